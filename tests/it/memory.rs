//! Keys that are held for long: in which pages, and nowhere else.
#![cfg(target_os = "linux")]

use std::{
    env, fs,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

use derikey::{
    key::{Algorithm, Message, PrivateKey, Purpose, Stamp, Timestamp},
    secret::{Residence, shelter_keys},
};
use serde_json::json;
use sha2::{Digest, Sha512};
use zeroize::Zeroizing;

use super::{
    hardening::Traces,
    leaks::{Started, child_of, private_parts},
    store_files::under,
    support::{Home, Run, installed, join, left_out},
};

const NO_SECRET_MEMORY: &[&str] = &["inject=memfd_secret:error=ENOSYS"];
const NO_LOCKED_MEMORY: &[&str] = &[
    "inject=memfd_secret:error=EPERM",
    "inject=mlock:error=ENOMEM",
];

/// The words before a command that make calls of it fail; nothing where that cannot be done.
fn without<'a>(calls: &[&'a str]) -> Option<Vec<&'a str>> {
    if !installed("strace", &["-o", "/dev/null", "true"]) {
        return None;
    }
    let mut words = vec!["strace", "-f", "-qq", "-o", "/dev/null"];
    words.extend(["-e", "trace=memfd_secret,mlock"]);
    for call in calls {
        words.extend(["-e", call]);
    }
    Some(words)
}

fn message() -> Message {
    let stamp = Stamp {
        timestamp: Timestamp(1_576_074_319_000),
        nonce: "1iqt2wls".parse().unwrap(),
    };
    let data = String::new();
    Message::new(&stamp, &Purpose::Login { data }).unwrap()
}

/// Not a test but the process that tests start and look into: it takes keys in, signs with them,
/// says so and waits for its end.
#[test]
fn holder() {
    let (Some(dir), Ok(manner)) = (env::var_os("HOLD_KEYS"), env::var("HOLD_MANNER")) else {
        return;
    };
    // First of all: this process has not used aws-lc yet.
    assert!(manner == "heap" || shelter_keys());
    let mut held = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let mut file = File::open(entry.unwrap().path()).unwrap();
        let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
        let mut pem = Zeroizing::new(vec![0; length]);
        file.read_exact(&mut pem).unwrap();
        held.push(PrivateKey::read(&pem, None).unwrap());
    }
    // Last, so that nothing else goes over the same stack again; Ed25519 at the very end, as it
    // leaves more in registers, and an RSA signature would need some of them.
    let message = message();
    held.sort_by_key(|key| key.public().algorithm() == Algorithm::Ed25519);
    held.iter().for_each(|key| drop(key.sign(&message)));
    if manner == "drop" {
        held.clear();
    }
    if manner == "fork" {
        a_child_does_not_inherit_the_pages();
    }
    let word = Residence::of_keys().as_str();
    writeln!(io::stdout(), "\nready {word}").unwrap();
    // Until the other end is closed.
    let _ = io::stdin().read(&mut [0]);
    drop(held);
}

/// A holder at rest, and what it holds.
struct Holder {
    home: Home,
    _child: Started,
    pid: u32,
    residence: String,
    traces: Traces,
}

/// Starts a holder of some keys in a manner: "shelter", "drop", "fork", and without shelter "heap".
fn hold(manner: &str, prefix: &[&str]) -> Holder {
    let home = Home::new();
    let dir = home.path("keys");
    fs::create_dir(&dir).unwrap();
    let mut traces = Traces::default();
    let algorithms = [
        Algorithm::Ed25519,
        Algorithm::Ed25519,
        Algorithm::Rsa2048,
        Algorithm::Rsa4096,
    ];
    for (n, algorithm) in algorithms.into_iter().enumerate() {
        let mut rng = rand_core::UnwrapErr(getrandom::SysRng);
        let key = PrivateKey::generate(algorithm, &mut rng).unwrap();
        let pem = key.to_plain_pem().unwrap();
        fs::write(dir.join(n.to_string()), pem.as_bytes()).unwrap();
        traces.add_key(&format!("key {n}"), &pem);
        if algorithm == Algorithm::Ed25519 {
            add_expanded(&mut traces, &private_parts(&pem)[0]);
        }
    }
    let mut plain = Command::new(env::current_exe().unwrap());
    plain
        .args(["--exact", "memory::holder", "--nocapture"])
        .current_dir(home.path(""))
        .env("HOLD_KEYS", &dir)
        .env("HOLD_MANNER", manner);
    let mut command = if prefix.is_empty() {
        plain
    } else {
        under(prefix, &plain)
    };
    let spawned = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = Started(spawned.unwrap());
    let residence = ready(&mut child.0);
    let pid = match prefix {
        [] => child.0.id(),
        _ => child_of(child.0.id()),
    };
    Holder {
        home,
        _child: child,
        pid,
        residence,
        traces,
    }
}

/// What becomes of an Ed25519 seed when it signs: the scalar and the prefix of its nonces.
pub(crate) fn add_expanded(traces: &mut Traces, seed: &[u8]) {
    let mut expanded = Sha512::digest(seed);
    for (half, name) in expanded
        .chunks_exact(16)
        .zip(["hash 0", "hash 1", "hash 2", "hash 3"])
    {
        traces.add(name, half);
    }
    expanded[0] &= 0xf8;
    expanded[31] = expanded[31] & 0x3f | 0x40;
    traces.add("the scalar, first half", &expanded[..16]);
    traces.add("the scalar, other half", &expanded[16..32]);
}

/// Waits until a holder is ready, and returns what memory it got.
fn ready(child: &mut Child) -> String {
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let mut lines = stdout.lines().map(Result::unwrap);
    let word = lines.find_map(|line| line.strip_prefix("ready ").map(str::to_owned));
    word.expect("the holder came to no good")
}

/// The flags of the mapping with a given range.
fn flags(pid: u32, range: &str) -> Vec<String> {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let mapping = smaps.split_once(&format!("{range} ")).unwrap().1;
    let line = mapping
        .lines()
        .find_map(|line| line.strip_prefix("VmFlags:"));
    line.unwrap()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

#[test]
fn keys_are_out_of_sight_where_the_system_has_secret_memory() {
    let holder = hold("shelter", &[]);
    if holder.residence != "secret" {
        left_out(&format!("no secret memory here: {}", holder.residence));
        return;
    }
    let found = holder.traces.in_memory(holder.pid).unwrap();
    assert!(found.is_empty(), "{found:#?}");
    let smaps = fs::read_to_string(format!("/proc/{}/smaps", holder.pid)).unwrap();
    let secret = smaps.lines().filter(|line| line.contains("/secretmem"));
    let ranges: Vec<&str> = secret.map(|line| line.split(' ').next().unwrap()).collect();
    assert!(!ranges.is_empty(), "{smaps}");
    for range in ranges {
        let flags = flags(holder.pid, range);
        for flag in ["lo", "dd", "dc"] {
            assert!(flags.iter().any(|f| f == flag), "{flag}: {flags:?}");
        }
    }
}

/// Has root's debugger make a core of a process that lives on.
pub(crate) fn core_of(home: &Home, pid: u32) -> Option<Vec<u8>> {
    let prefix = home.path("core");
    let status = Command::new("gcore")
        .args(["-o", prefix.to_str().unwrap(), &pid.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let core = fs::read(home.path(&format!("core.{pid}"))).ok();
    if core.is_none() {
        left_out(&format!("no core could be made: {status:?}"));
    }
    core
}

#[test]
fn a_core_of_a_process_has_no_key() {
    if !installed("gdb", &["--version"]) {
        return;
    }
    for (manner, caught) in [("shelter", false), ("heap", true)] {
        let holder = hold(manner, &[]);
        let Some(core) = core_of(&holder.home, holder.pid) else {
            return;
        };
        let found = holder.traces.in_bytes(&core);
        assert_eq!(!found.is_empty(), caught, "{manner}: {found:?}");
    }
}

#[test]
fn keys_are_in_locked_pages_only_where_it_has_none() {
    let Some(prefix) = without(NO_SECRET_MEMORY) else {
        return;
    };
    let holder = hold("shelter", &prefix);
    assert_eq!(holder.residence, "locked");
    let found = holder.traces.in_memory(holder.pid).unwrap();
    assert!(!found.is_empty(), "root sees them there");
    for hit in found {
        let flags = flags(holder.pid, hit.split_whitespace().last().unwrap());
        for flag in ["lo", "dd", "wf"] {
            assert!(flags.iter().any(|f| f == flag), "{hit}: {flags:?}");
        }
    }
}

#[test]
fn where_nothing_can_be_locked_it_says_so() {
    let Some(prefix) = without(NO_LOCKED_MEMORY) else {
        return;
    };
    let holder = hold("shelter", &prefix);
    assert_eq!(holder.residence, "pageable");
    for hit in holder.traces.in_memory(holder.pid).unwrap() {
        let flags = flags(holder.pid, hit.split_whitespace().last().unwrap());
        for flag in ["dd", "wf"] {
            assert!(flags.iter().any(|f| f == flag), "{hit}: {flags:?}");
        }
    }
}

#[test]
fn dropped_keys_are_gone_and_a_build_that_keeps_them_is_caught() {
    let holder = hold("heap", &[]);
    let found = holder.traces.in_memory(holder.pid).unwrap();
    for key in ["key 0", "key 1", "key 2", "key 3"] {
        assert!(
            found.iter().any(|hit| hit.contains(key)),
            "{key} was missed"
        );
    }
    let mut prefixes = vec![vec![]];
    prefixes.extend(without(NO_SECRET_MEMORY));
    prefixes.extend(without(NO_LOCKED_MEMORY));
    for prefix in prefixes {
        let holder = hold("drop", &prefix);
        let found = holder.traces.in_memory(holder.pid).unwrap();
        assert!(found.is_empty(), "{prefix:?}: {found:#?}");
    }
}

#[test]
fn keys_are_not_handed_to_a_child() {
    // It has looked by itself.
    assert_ne!(hold("fork", &[]).residence, "pageable");
}

/// Where a locked mapping of this process begins.
fn locked_place() -> usize {
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut from = 0;
    for line in smaps.lines() {
        let range = line.split_once('-').map(|(from, _)| from);
        if let Some(Ok(begins)) = range.map(|from| usize::from_str_radix(from, 16)) {
            from = begins;
        } else if line.starts_with("VmFlags:") && line.contains(" lo ") {
            return from;
        }
    }
    panic!("nothing is locked: {smaps}");
}

#[allow(unsafe_code, reason = "something must run between fork and exec")]
fn a_child_does_not_inherit_the_pages() {
    let (secret, ordinary) = (locked_place(), Box::new(7_u64));
    let plain = std::ptr::from_ref(&*ordinary).addr();
    let mapped = |address: usize| {
        let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        maps.lines().any(|line| {
            let hex = |text| usize::from_str_radix(text, 16).ok();
            let range = line
                .split(' ')
                .next()
                .and_then(|range| range.split_once('-'));
            range.is_some_and(|(from, to)| {
                hex(from).is_some_and(|from| from <= address)
                    && hex(to).is_some_and(|to| address < to)
            })
        })
    };
    let there = move |address, wanted| {
        let mut command = Command::new("true");
        // SAFETY: the child reads a file and compares addresses; C's allocator is whole after a fork.
        unsafe {
            command.pre_exec(move || match mapped(address) == wanted {
                true => Ok(()),
                false => Err(io::Error::other("unlike what is wanted")),
            });
        }
        command.status().is_ok_and(|status| status.success())
    };
    assert!(
        there(plain, true) && !there(plain, false),
        "the question is no good"
    );
    match Residence::of_keys() {
        Residence::Secret => assert!(there(secret, false)),
        // They are there, and empty: the flag `wf` is looked at elsewhere.
        _ => assert!(there(secret, true)),
    }
}

const PASS: [&str; 2] = ["--passphrase-file", "pass"];

/// A keystore with a key that the sandbox knows.
fn provisioned() -> Home {
    let home = Home::new();
    home.secret_file("pass", "correct horse battery\n");
    let scope = [
        "provision",
        "bot",
        "--network",
        "sandbox",
        "--scope",
        "account:read",
    ];
    home.run(&join(&[&scope, &PASS])).ok();
    home
}

fn run_without(home: &Home, calls: &[&str], args: &[&str]) -> Option<Run> {
    let prefix = without(calls)?;
    Some(Run::of(
        under(&prefix, &home.command(args)).output().unwrap(),
    ))
}

#[test]
fn status_and_doctor_tell_what_memory_there_is() {
    let home = Home::new();
    let here = home.run(&["--json", "status"]).json()["memory"].clone();
    if here == "pageable" {
        left_out("no memory can be locked here");
        return;
    }
    for (calls, word) in [(NO_SECRET_MEMORY, "locked"), (NO_LOCKED_MEMORY, "pageable")] {
        let status = |args: &[&str]| run_without(&home, calls, args);
        let Some(told) = status(&["--json", "status"]) else {
            return;
        };
        assert_eq!(told.json()["memory"], word);
        let told = status(&["status"]).unwrap().ok();
        assert!(told.stdout.contains(&format!("{word} memory")), "{told:?}");
        let told = status(&["--json", "doctor", "--offline"]).unwrap();
        let (code, said) = (
            told.code,
            serde_json::from_str::<serde_json::Value>(&told.stdout).unwrap(),
        );
        let checks = said["checks"].as_array().unwrap();
        let about = checks.iter().find(|check| {
            check["check"]
                .as_str()
                .unwrap()
                .contains("memory can be locked")
                || check["check"].as_str().unwrap().contains("locked memory")
        });
        let about = about.unwrap_or_else(|| panic!("{said:#}"));
        assert_eq!(about["ok"], json!(word == "locked"));
        if word == "pageable" {
            assert_eq!(code, Some(10));
            let cure = about["cure"].as_str().unwrap();
            assert!(cure.contains("ulimit -l") && cure.contains("LimitMEMLOCK="));
        }
    }
}

#[test]
fn a_key_that_may_be_swapped_out_is_remarked_upon() {
    let home = provisioned();
    let auth = join(&[&["auth", "bot"], &PASS]);
    assert!(!home.run(&auth).ok().stderr.contains("locked memory"));
    let Some(run) = run_without(&home, NO_LOCKED_MEMORY, &auth) else {
        return;
    };
    let run = run.ok();
    assert!(
        run.stderr
            .contains("warning: the key cannot be held in locked memory"),
        "{run:?}"
    );
    assert!(run.stderr.contains("LimitMEMLOCK="), "{run:?}");
    let run = run_without(&home, NO_SECRET_MEMORY, &auth).unwrap().ok();
    assert!(!run.stderr.contains("locked memory"), "{run:?}");
}

#[test]
fn whoever_insists_on_locked_memory_is_refused_before_a_secret_is_read() {
    let home = provisioned();
    let command = ["--passphrase-command", "sh -c 'touch read; cat pass'"];
    let told: [&[&str]; 4] = [
        &["auth", "bot"],
        &["token", "bot"],
        &["sign", "auth", "bot"],
        &["generate", "other"],
    ];
    for args in told {
        let args = join(&[&["--require-locked-memory"], args, &command]);
        let Some(run) = run_without(&home, NO_LOCKED_MEMORY, &args) else {
            return;
        };
        let error = run.fails(8);
        assert!(
            error.stderr.contains("--require-locked-memory"),
            "{error:?}"
        );
        assert!(!home.path("read").exists(), "{args:?} read the passphrase");
    }
    // Where there is any, it goes on.
    let args = join(&[&["auth", "bot", "--require-locked-memory"], &command]);
    run_without(&home, NO_SECRET_MEMORY, &args).unwrap().ok();
    assert!(home.path("read").exists());
    home.secret_file("store/config.toml", "require_locked_memory = true\n");
    run_without(&home, NO_LOCKED_MEMORY, &join(&[&["auth", "bot"], &PASS]))
        .unwrap()
        .fails(8);
    // What tells the reason is not refused.
    run_without(&home, NO_LOCKED_MEMORY, &["status"])
        .unwrap()
        .ok();
}

#[test]
fn a_limit_of_nothing_is_no_memory_to_lock() {
    let prefix = [
        "setpriv",
        "--bounding-set",
        "-ipc_lock",
        "prlimit",
        "--memlock=0:0",
    ];
    if !installed(prefix[0], &join(&[&prefix[1..], &["true"]])) {
        return;
    }
    let home = Home::new();
    let limited = |args: &[&str]| Run::of(under(&prefix, &home.command(args)).output().unwrap());
    assert_eq!(limited(&["--json", "status"]).json()["memory"], "pageable");
    limited(&["--require-locked-memory", "list"]).fails(8);
}
