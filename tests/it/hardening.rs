//! The process: what others can see of it, and what stays in its memory.
#![cfg(target_os = "linux")]

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    os::unix::{fs::MetadataExt, process::ExitStatusExt},
    process::{Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use base64::prelude::{BASE64_STANDARD_NO_PAD, Engine};
use serde_json::json;

use super::{
    leaks::{Fake, Started, child_of, private_parts, random},
    store_files::{trace, under},
    support::{Home, Run, installed, join, left_out},
};

const WAITING: [&str; 4] = ["generate", "n", "--passphrase-command", "sleep 30"];

fn start(home: &Home, args: &[&str]) -> Started {
    let mut command = home.command(args);
    Started(
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    )
}

/// Whether the same user, who is not root, may open a file of a process.
fn user_may_open(user: u32, path: &str) -> bool {
    let user = user.to_string();
    let status = Command::new("setpriv")
        .args([
            "--reuid",
            &user,
            "--regid",
            &user,
            "--clear-groups",
            "head",
            "-c",
            "1",
            path,
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.unwrap().success()
}

pub(crate) const NOBODY: u32 = 65_534;

/// The program as run by another user than root, in a home of that one's own; nothing where nobody
/// here can become somebody else.
pub(crate) fn as_nobody(home: &Home, args: &[&str]) -> Option<Command> {
    if !installed("setpriv", &["--reuid", "65534", "--clear-groups", "true"]) {
        return None;
    }
    let dir = home.path("");
    let program = home.path("derikey");
    // The build directory need not be open to everybody.
    fs::copy(env!("CARGO_BIN_EXE_derikey"), &program).unwrap();
    std::os::unix::fs::chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
    let become_nobody = [
        "setpriv",
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
    ];
    let mut copy = Command::new(program);
    copy.args(home.command(args).get_args())
        .current_dir(&dir)
        .env("HOME", &dir)
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    Some(under(&become_nobody, &copy))
}

#[test]
fn other_processes_of_the_same_user_cannot_look_inside() {
    let home = Home::new();
    let Some(mut command) = as_nobody(&home, &WAITING) else {
        return;
    };
    let process = Started(
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let pid = process.0.id();
    let control = child_of(pid);
    let own = |pid: u32, file: &str| format!("/proc/{pid}/{file}");
    // The program that it started is an ordinary process, which shows that the question is a good one.
    for file in ["environ", "maps"] {
        assert!(user_may_open(NOBODY, &own(control, file)), "{file}");
        assert!(!user_may_open(NOBODY, &own(pid, file)), "{file}");
    }
    assert!(!user_may_open(NOBODY, &own(pid, "mem")));
    assert!(!user_may_open(NOBODY, &own(pid, "auxv")));
    assert_eq!(fs::metadata(own(pid, "environ")).unwrap().uid(), 0);
    assert_eq!(fs::metadata(own(control, "environ")).unwrap().uid(), NOBODY);
}

#[test]
fn no_core_can_be_left_behind() {
    let home = Home::new();
    let mut command = under(
        &[
            "sh",
            "-c",
            "ulimit -c unlimited 2>/dev/null; exec \"$0\" \"$@\"",
        ],
        &home.command(&WAITING),
    );
    let process = Started(
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let pid = process.0.id();
    let child = child_of(pid);
    for pid in [pid, child] {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"))
            .unwrap();
        let words: Vec<&str> = core.split_whitespace().collect();
        assert_eq!(words[4..6], ["0", "0"], "{core}");
    }
}

#[test]
fn a_crash_leaves_no_core() {
    let unlimited = ["sh", "-c", "ulimit -c unlimited; exec \"$0\" \"$@\""];
    let home = Home::new();
    let crash = |inner: &Command, signal: &str| {
        let mut command = under(&unlimited, inner);
        let spawned = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut process = Started(spawned.unwrap());
        let pid = process.0.id();
        let child = child_of(pid);
        let kill = |signal: &str, pid: u32| {
            let pid = pid.to_string();
            let sent = Command::new("kill").args(["-s", signal, &pid]).status();
            sent.unwrap().success()
        };
        assert!(kill(signal, pid));
        let status = process.0.wait().unwrap();
        // On a busy machine it may have ended by itself.
        kill("KILL", child);
        status.core_dumped()
    };
    let mut other = Command::new("sh");
    other
        .args(["-c", "sleep 30; true"])
        .current_dir(home.path(""));
    if !crash(&other, "ABRT") {
        left_out("nothing leaves a core on this machine");
        return;
    }
    for signal in ["ABRT", "SEGV", "QUIT", "BUS"] {
        assert!(!crash(&home.command(&WAITING), signal), "{signal}");
    }
    let left: Vec<_> = fs::read_dir(home.path("")).unwrap().flatten().collect();
    let is_core = |name: OsString| name.as_encoded_bytes().starts_with(b"core");
    let cores = left.iter().filter(|entry| is_core(entry.file_name()));
    // The one of the other program.
    assert!(cores.count() <= 1, "{left:?}");
}

#[test]
fn it_closes_itself_off_before_the_first_secret_is_opened() {
    let home = Home::new();
    let pass = home.secret_file("pass", "correct horse battery\n");
    let args = ["generate", "n", "--passphrase-file", pass.to_str().unwrap()];
    let Some(calls) = trace(
        &home,
        "open,openat,prctl,prlimit64,setrlimit,clone,clone3",
        &args,
    ) else {
        return;
    };
    let place = |wanted: &str| {
        let found = calls
            .iter()
            .position(|call| call.succeeded && call.arguments.contains(wanted));
        found.unwrap_or_else(|| panic!("{wanted} was not seen"))
    };
    let (closed, core, secret) = (
        place("PR_SET_DUMPABLE"),
        place("RLIMIT_CORE"),
        place("pass\""),
    );
    assert!(closed < secret && core < secret);
    let thread = calls.iter().position(|call| call.name.starts_with("clone"));
    assert!(thread.is_none_or(|thread| closed < thread));
    for call in &calls[..closed] {
        let system = ["/etc/ld.so", "/lib", "/usr/lib", "/proc/self/"];
        let known = call.paths().iter().all(|path| {
            system
                .iter()
                .any(|dir| path.to_str().unwrap().starts_with(dir))
        });
        assert!(
            !call.name.starts_with("open") || known,
            "{}({})",
            call.name,
            call.arguments
        );
    }
    assert!(
        !calls
            .iter()
            .any(|call| call.arguments.contains("SUID_DUMP_USER"))
    );
}

const PAGE: usize = 4096;

/// Secrets as they may lie in memory.
#[derive(Default)]
pub(crate) struct Traces(Vec<(String, Vec<u8>)>);

impl Traces {
    pub(crate) fn add(&mut self, name: &str, secret: &[u8]) {
        let backwards: Vec<u8> = secret.iter().rev().copied().collect();
        let hex: String = secret.iter().map(|b| format!("{b:02x}")).collect();
        self.0.push((name.into(), secret.to_vec()));
        self.0
            .push((format!("{name}, the other way round"), backwards));
        self.0.push((format!("{name}, hex"), hex.into_bytes()));
        self.0.push((
            format!("{name}, base64"),
            BASE64_STANDARD_NO_PAD
                .encode(&secret[..secret.len() / 3 * 3])
                .into_bytes(),
        ));
    }

    /// Everything of a key in clear: its numbers, whole and by halves, and the lines of its PEM.
    pub(crate) fn add_key(&mut self, name: &str, pem: &str) {
        let parts = private_parts(pem);
        for (n, part) in parts.iter().enumerate() {
            for (half, piece) in part.chunks_exact(16).enumerate().take(6) {
                self.add(&format!("part {n}.{half} of {name}"), piece);
            }
        }
        // The first lines of RSA hold the public modulus.
        let lines: Vec<&str> = pem.lines().filter(|line| !line.starts_with('-')).collect();
        for line in lines
            .iter()
            .skip(if parts.len() == 1 { 0 } else { 8 })
            .filter(|line| line.len() >= 24)
        {
            self.0
                .push((format!("PEM of {name}"), line.as_bytes().to_vec()));
        }
    }

    /// Everything that is found in the memory of a process, with where.
    pub(crate) fn in_memory(&self, pid: u32) -> Option<Vec<String>> {
        let found = self.search(pid);
        if found.is_none() {
            left_out("the memory of another process cannot be read here: not looked at");
        }
        found
    }

    fn search(&self, pid: u32) -> Option<Vec<String>> {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
        let mut memory = File::open(format!("/proc/{pid}/mem")).ok()?;
        let (mut found, mut seen) = (Vec::new(), 0);
        for line in maps.lines() {
            let mut words = line.split_whitespace();
            let (range, rights) = (words.next()?, words.next()?);
            if !rights.starts_with("rw") {
                continue;
            }
            let (from, to) = range.split_once('-')?;
            let (from, to) = (
                u64::from_str_radix(from, 16).ok()?,
                u64::from_str_radix(to, 16).ok()?,
            );
            let mut bytes = vec![0; usize::try_from(to - from).ok()?];
            if memory.seek(SeekFrom::Start(from)).is_err() || memory.read_exact(&mut bytes).is_err()
            {
                continue;
            }
            seen += bytes.len();
            let place = line.split_whitespace().nth(5).unwrap_or("anonymous");
            for (name, at) in self.in_bytes(&bytes) {
                let at = from + u64::try_from(at).ok()?;
                found.push(format!("{name} at {at:#x} in {place} {range}"));
            }
        }
        assert!(seen > 100_000, "only {seen} bytes were looked at");
        Some(found)
    }

    /// Everything that is found in a piece of memory.
    pub(crate) fn in_bytes(&self, bytes: &[u8]) -> Vec<(&str, usize)> {
        let mut by_start = std::collections::HashMap::<[u8; 8], Vec<usize>>::new();
        for (n, (_, needle)) in self.0.iter().enumerate() {
            by_start
                .entry(*needle.first_chunk().unwrap())
                .or_default()
                .push(n);
        }
        let mut first = vec![false; 1 << 16];
        for start in by_start.keys() {
            first[usize::from(u16::from_ne_bytes([start[0], start[1]]))] = true;
        }
        let mut found = Vec::new();
        // Most pages were never written to.
        let pages = (0..bytes.len()).step_by(PAGE);
        let written = pages.filter(|at| !bytes[*at..].starts_with(&[0; PAGE]));
        for at in written.flat_map(|page| page.saturating_sub(7)..page + PAGE) {
            if at + 8 > bytes.len() {
                continue;
            }
            if !first[usize::from(u16::from_ne_bytes([bytes[at], bytes[at + 1]]))] {
                continue;
            }
            let rest = &bytes[at..];
            for n in by_start
                .get(rest.first_chunk::<8>().unwrap())
                .into_iter()
                .flatten()
            {
                let (name, needle) = &self.0[*n];
                if rest.starts_with(needle) {
                    found.push((name.as_str(), at));
                }
            }
        }
        found
    }
}

/// Runs a command against an exchange that does not answer one call, and looks into its memory.
fn stalled(
    home: &Home,
    method: &'static str,
    args: &[&str],
    traces: &Traces,
) -> Option<Vec<String>> {
    let (sender, arrived) = mpsc::channel();
    let fake = Fake::start(move |called, _| {
        if called == method {
            let _ = sender.send(());
            return None;
        }
        Some(
            json!({"result": {"access_token": "token", "expires_in": 900, "scope": "account:read_write"}}),
        )
    });
    let process = start(home, &join(&[args, &fake.network()]));
    arrived.recv_timeout(Duration::from_secs(60)).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    traces.in_memory(process.0.id())
}

struct Prepared {
    home: Home,
    traces: Traces,
}

fn prepared(algorithm: &str) -> Prepared {
    let home = Home::new();
    let passphrase = random(40);
    home.secret_file("pass", &format!("{passphrase}\n"));
    home.run(&[
        "generate",
        "k",
        "--algorithm",
        algorithm,
        "--passphrase-file",
        "pass",
    ])
    .ok();
    let pem = home
        .run(&[
            "export",
            "k",
            "--passphrase-file",
            "pass",
            "--no-passphrase",
            "--insecure",
        ])
        .ok()
        .stdout;
    let mut traces = Traces(Vec::new());
    traces.add("the passphrase", passphrase.as_bytes());
    traces.add_key(algorithm, &pem);
    Prepared { home, traces }
}

#[test]
fn the_search_of_memory_finds_what_is_there() {
    let home = Home::new();
    let secret = random(40);
    let mut traces = Traces(Vec::new());
    traces.add("a shell variable", secret.as_bytes());
    let script = format!("x={secret}; sleep 30; echo $x");
    let mut command = Command::new("sh");
    let process = Started(
        command
            .args(["-c", &script])
            .current_dir(home.path(""))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    child_of(process.0.id());
    if let Some(found) = traces.in_memory(process.0.id()) {
        assert!(!found.is_empty());
    }
}

/// The answer to a login is awaited: the key is needed still, as it may have to log in again, but
/// it lies in locked pages only, where nobody can look if the system has secret ones.
fn only_the_key_itself_stays(algorithm: &str) {
    let Prepared { home, traces } = prepared(algorithm);
    let args = [
        "adopt",
        "k",
        "--client-id",
        "abc",
        "--passphrase-file",
        "pass",
    ];
    let Some(found) = stalled(&home, "public/auth", &args, &traces) else {
        return;
    };
    if home.run(&["--json", "status"]).json()["memory"] == "secret" {
        assert!(found.is_empty(), "{algorithm}: {found:#?}");
        return;
    }
    let excess: Vec<&String> = found
        .iter()
        .filter(|hit| {
            hit.contains("passphrase")
                || hit.contains("PEM")
                || hit.contains("hex")
                || hit.contains("base64")
                || hit.contains("[stack]")
                || hit.contains("[heap]")
        })
        .collect();
    assert!(excess.is_empty(), "{algorithm}: {excess:#?}");
}

#[test]
fn while_an_ed25519_key_is_needed_nothing_else_of_it_is_in_memory() {
    only_the_key_itself_stays("ed25519");
}

#[test]
fn while_an_rsa_key_is_needed_nothing_else_of_it_is_in_memory() {
    only_the_key_itself_stays("rsa-2048");
}

/// Runs a command up to its line in the audit log, which comes last, and looks into its memory.
fn at_the_end(home: &Home, args: &[&str], traces: &Traces) -> Option<Vec<String>> {
    let log = File::open(home.store().join("audit.jsonl")).unwrap();
    log.lock().unwrap();
    let process = start(home, args);
    let pid = process.0.id().to_string();
    let deadline = Instant::now() + Duration::from_secs(60);
    let waits = |line: &str| line.contains("->") && line.split_whitespace().any(|word| word == pid);
    while !fs::read_to_string("/proc/locks")
        .unwrap()
        .lines()
        .any(waits)
    {
        assert!(Instant::now() < deadline, "{args:?} never came to its end");
        std::thread::sleep(Duration::from_millis(10));
    }
    traces.in_memory(process.0.id())
}

fn nothing_stays(algorithm: &str) {
    let Prepared { home, mut traces } = prepared(algorithm);
    let new = random(40);
    home.secret_file("new", &format!("{new}\n"));
    traces.add("the new passphrase", new.as_bytes());
    let export = ["export", "k", "--passphrase-file", "pass"];
    let clear = home
        .run(&join(&[&export, &["--no-passphrase", "--insecure"]]))
        .ok()
        .stdout;
    home.secret_file("clear.pem", &clear);
    for args in [
        join(&[
            &export,
            &["--new-passphrase-file", "new", "--out", "out.pem"],
        ]),
        vec!["import", "plain", "clear.pem", "--passphrase-file", "pass"],
        vec![
            "import",
            "sealed",
            "store/keys/k/1/private.pem",
            "--passphrase-file",
            "new",
            "--input-passphrase-file",
            "pass",
        ],
        vec![
            "passwd",
            "k",
            "--passphrase-file",
            "pass",
            "--new-passphrase-file",
            "new",
        ],
    ] {
        let Some(found) = at_the_end(&home, &args, &traces) else {
            return;
        };
        assert!(found.is_empty(), "{algorithm}, {args:?}: {found:#?}");
    }
}

#[test]
fn of_an_ed25519_key_that_was_dropped_nothing_is_in_memory() {
    nothing_stays("ed25519");
}

#[test]
fn of_an_rsa_key_that_was_dropped_nothing_is_in_memory() {
    nothing_stays("rsa-2048");
}

#[test]
fn of_a_large_rsa_key_that_was_dropped_nothing_is_in_memory() {
    nothing_stays("rsa-4096");
}

#[test]
fn hooks_and_programs_do_not_inherit_the_descriptors_that_secrets_come_from() {
    let home = Home::new();
    home.secret_file("pass", "correct horse battery\n");
    home.run(&[
        "--network",
        "sandbox",
        "provision",
        "bot",
        "--scope",
        "trade:read",
    ])
    .ok();
    let look = "sh -c 'ls -l /proc/self/fd >\"$HOME/'$1'\"; cat pass'";
    let hook = look.replace("'$1'", "hook").replace("; cat pass", "");
    let program = look.replace("'$1'", "program");
    let rotate = [
        "rotate",
        "bot",
        "--deploy-hook",
        &hook,
        "--passphrase-fd",
        "7",
    ];
    let codes = ["--totp-fd", "8", "--admin-client-id", "x"];
    for (args, seen) in [
        (rotate.to_vec(), "hook"),
        (
            vec!["generate", "other", "--passphrase-command", &program],
            "program",
        ),
    ] {
        let mut args = args;
        if seen == "hook" {
            args.extend(&codes[..2]);
        }
        let script = "exec \"$0\" \"$@\" 7<pass 8<pass";
        let command = under(&["sh", "-c", script], &home.command(&args));
        let run = Run::of({ command }.output().unwrap());
        assert_eq!(run.code, Some(0), "{run:?}");
        let listed = fs::read_to_string(home.path(seen)).unwrap();
        let inherited = listed.lines().filter(|line| line.contains("/pass"));
        // What was not named for a secret is none of our business.
        let expected = if seen == "hook" { 0 } else { 2 };
        assert_eq!(inherited.count(), expected, "{listed}");
    }
}
