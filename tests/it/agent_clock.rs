//! The clock by which keys live: the one that nobody sets, and that goes on in sleep.
#![cfg(target_os = "linux")]

use std::{
    env, fs, io,
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use derikey::{
    agent::{
        Agent, Decision, Denial, Granted, Held, Identity, Ledger, Limits, Logins, Policy,
        Unwritable, serve,
    },
    key::{Algorithm, KeyName, PrivateKey, Stamp, Timestamp},
    signer::{self, LocalSigner, Signer, Stamper},
};
use serde_json::{Value, json};

use super::{
    agent::{Running, Stage},
    support::{Home, Run, installed, left_out},
};

#[derive(Debug)]
struct Any;

impl Stamper for Any {
    fn stamp(&self) -> Result<Stamp, signer::Error> {
        Ok(Stamp {
            timestamp: Timestamp(1),
            nonce: "abcdefgh".parse().unwrap(),
        })
    }
}

impl Ledger for Any {
    fn record(&self, _: Decision) -> Result<(), Unwritable> {
        Ok(())
    }
}

impl Logins for Any {
    fn scope(&self, _: &KeyName, _: Option<&str>) -> Result<String, Denial> {
        unreachable!()
    }

    fn log_in(&self, _: &KeyName, _: &dyn Signer, _: &str, _: &str) -> Result<Granted, Denial> {
        unreachable!()
    }
}

/// Goes on in a process whose clocks are ahead, which is how a sleep looks from inside: every clock
/// of a machine that slept is ahead but the monotonic one, which stood still.
#[allow(unsafe_code, reason = "calls that no crate here offers")]
fn later(ahead: &str, work: impl FnOnce()) -> io::Result<()> {
    // SAFETY: it changes where children of this thread are put.
    if unsafe { libc::unshare(libc::CLONE_NEWTIME) } == -1 {
        return Err(io::Error::last_os_error());
    }
    let this = fs::read_link("/proc/thread-self")?;
    let this = Path::new("/proc").join(this.file_name().unwrap());
    fs::write(this.join("timens_offsets"), ahead)?;
    // SAFETY: the C library's allocator is whole after a fork, and no lock of ours was held.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let done = catch_unwind(AssertUnwindSafe(work)).is_ok();
            // SAFETY: it ends the process, and nothing of the parent's with it.
            unsafe { libc::_exit(i32::from(!done)) }
        }
        child => {
            let mut status = 0;
            // SAFETY: the child is ours, and the place for its status is there.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert_eq!(status, 0);
            Ok(())
        }
    }
}

/// Not a test but the process that the next one starts: an agent whose clocks jump. The program
/// itself cannot be moved to another time while it runs.
#[test]
fn sleeper() {
    let Ok(ahead) = env::var("SLEEPER") else {
        return;
    };
    let mut rng = rand_core::UnwrapErr(getrandom::SysRng);
    let key = PrivateKey::generate(Algorithm::Ed25519, &mut rng).unwrap();
    let held = Held {
        identity: Identity {
            name: "bot".parse().unwrap(),
            client_id: "abc".into(),
            network: "sandbox".into(),
            endpoint: None,
        },
        signer: Arc::new(LocalSigner::new(key, Any)),
        policy: Policy {
            lifetime: Some(Duration::from_secs(3600)),
            ..Policy::default()
        },
    };
    let agent = Arc::new(Agent::new(
        vec![held],
        Box::new(Any),
        Box::new(Any),
        [0; 32],
    ));
    let afterwards = || {
        let listener = UnixListener::bind("sleeper.sock").unwrap();
        let (stop, stopping) = UnixStream::pair().unwrap();
        let serving = thread::spawn(move || serve(&listener, &agent, Limits::default(), &stopping));
        let mut stream = UnixStream::connect("sleeper.sock").unwrap();
        stream
            .write_all(b"{\"op\":\"auth\",\"key\":\"bot\"}\n")
            .unwrap();
        let mut answer = String::new();
        BufReader::new(&stream).read_line(&mut answer).unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        fs::write("word", answer["error"]["code"].as_str().unwrap_or("signed")).unwrap();
        drop(stop);
        serving.join().unwrap().unwrap();
    };
    if let Err(error) = later(&ahead, afterwards) {
        fs::write("word", format!("clocks cannot be moved here: {error}")).unwrap();
    }
}

#[test]
fn a_key_that_lives_an_hour_does_not_outlive_a_night_of_sleep() {
    for (ahead, expected) in [
        ("", "signed"),
        ("boottime 3500 0", "signed"),
        ("boottime 3700 0", "expired"),
        // It is not this one that counts.
        ("monotonic 3700 0", "signed"),
    ] {
        let home = Home::new();
        let ran = Command::new(env::current_exe().unwrap())
            .args(["--exact", "agent_clock::sleeper", "--nocapture"])
            .current_dir(home.path(""))
            .env("SLEEPER", ahead)
            .output();
        let run = Run::of(ran.unwrap()).ok();
        let word = fs::read_to_string(home.path("word"));
        let word = word.unwrap_or_else(|e| panic!("{e}: {run:?}"));
        if word.contains("cannot") {
            left_out(&word);
            return;
        }
        assert_eq!(word, expected, "{ahead}");
    }
}

/// What a program asks the C library for the time of day is ahead by what a file says.
const SHIFT: &str = r#"
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <sys/syscall.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    FILE *file = clock == CLOCK_REALTIME ? fopen(getenv("SHIFT"), "r") : 0;
    long seconds;
    if (file && fscanf(file, "%ld", &seconds) == 1) now->tv_sec += seconds;
    if (file) fclose(file);
    return result;
}
"#;

/// An agent whose wall clock can be set, and who sets it; nothing where that cannot be done.
fn with_a_wall_clock(stage: &Stage, lifetime: &str) -> Option<(Running, impl Fn(i64))> {
    let compiler = ["-shared", "-fPIC", "-x", "c", "-", "-o"];
    let library = stage.home.path("shift.so");
    if !library.exists() {
        let mut child = Command::new("cc")
            .args(compiler)
            .arg(&library)
            .stdin(Stdio::piped())
            .spawn()
            .ok()?;
        child.stdin.take()?.write_all(SHIFT.as_bytes()).ok()?;
        assert!(child.wait().unwrap().success());
    }
    let file = stage.home.path("ahead");
    fs::write(&file, "0").unwrap();
    let mut command = stage.command(&["bot", "--lifetime", lifetime]);
    command.env("LD_PRELOAD", library).env("SHIFT", &file);
    let set = move |seconds: i64| fs::write(&file, seconds.to_string()).unwrap();
    Some((Running::begin(command), set))
}

/// How far the agent's time of day is ahead of ours, in seconds.
fn ahead(answer: &Value) -> i64 {
    let theirs = answer["result"]["params"]["timestamp"].as_i64().unwrap() / 1000;
    let ours = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    theirs - i64::try_from(ours).unwrap()
}

#[test]
fn a_wall_clock_that_is_set_neither_lengthens_nor_shortens_a_life() {
    if !installed("cc", &["--version"]) {
        return;
    }
    const DAY: i64 = 86_400;
    let stage = Stage::new();
    let auth = json!({"op": "auth", "key": "bot"});
    let (agent, set) = with_a_wall_clock(&stage, "1h").unwrap();
    for day in [DAY, -DAY, 30 * DAY] {
        set(day);
        let answer = agent.ask(&auth);
        assert_eq!(answer["ok"], true, "{day}: {answer}");
        assert!(
            (ahead(&answer) - day).abs() < 5,
            "the clock was not set: {answer}"
        );
    }
    assert_eq!(agent.stop().code, Some(0));
    let begun = Instant::now();
    let (agent, set) = with_a_wall_clock(&stage, "3s").unwrap();
    let answer = agent.ask(&auth);
    assert!(
        answer["ok"] == true || begun.elapsed().as_secs() >= 3,
        "{answer}"
    );
    set(-DAY);
    thread::sleep(Duration::from_millis(3100));
    assert_eq!(agent.ask(&auth)["error"]["code"], "expired");
}
