//! Hostile input at every door: the corpus that the fuzzer left, and mutations of it.
//!
//! The search itself is `fuzz/`; this is what stays found.

use std::{
    fs,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
};

use crate::support::{Home, data};

#[path = "hostile_input/checks.rs"]
#[allow(unreachable_pub, reason = "the fuzz targets take it in as well")]
mod checks;

/// How many mutations each door gets. RSA keys and a thread for each make those of keys dear, and
/// so do buffers of 32 kB, wiped after each of some ten calls.
const MANY: usize = 20_000;
const FEW: usize = 1_500;

/// The files of a corpus, in one order.
fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(data("corpus").join(name)).unwrap();
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    let read = |path: PathBuf| (path.clone(), fs::read(path).unwrap());
    files.into_iter().map(read).collect()
}

/// Chance that is the same in every run (xorshift64*).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, end: usize) -> usize {
        let drawn = self.next() % u64::try_from(end.max(1)).unwrap();
        usize::try_from(drawn).unwrap()
    }
}

/// What breaks parsers.
const TOKENS: [&[u8]; 16] = [
    b"",
    b"\0",
    b"\n",
    b"\\n",
    b"\xff\xff\xff\xff",
    b"\x7f",
    b"0",
    b"-1",
    b"18446744073709551616",
    b"\"",
    b"\\u0000",
    b"\xe2\x80\xa8",
    b"{}",
    b"[[[[",
    b"../",
    b"read_write",
];

/// Changes a few places, and now and then grafts one file onto another.
fn mutated(chance: &mut Chance, corpus: &[(PathBuf, Vec<u8>)]) -> Vec<u8> {
    // The longer of two: what the search left are scraps, and most of what is whole is long.
    let two = [(); 2].map(|()| &corpus[chance.below(corpus.len())].1);
    let mut bytes = two.into_iter().max_by_key(|b| b.len()).unwrap().clone();
    for _ in 0..=chance.below(3) {
        let at = chance.below(bytes.len() + 1);
        let end = (at + chance.below(9)).min(bytes.len());
        match chance.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << chance.below(8),
            1 if at < bytes.len() => bytes[at] = u8::try_from(chance.below(256)).unwrap(),
            2 => drop(bytes.splice(at..end, TOKENS[chance.below(TOKENS.len())].iter().copied())),
            3 => drop(bytes.drain(at..end)),
            4 => bytes.truncate(at),
            _ => {
                let other = &corpus[chance.below(corpus.len())].1;
                let from = chance.below(other.len() + 1);
                bytes.splice(at.., other[from..].iter().copied());
            }
        }
    }
    bytes
}

#[track_caller]
fn holds(name: &str, mutations: usize) {
    let found = checks::CHECKS.iter().find(|(known, _)| *known == name);
    let check = found.unwrap().1;
    let corpus = corpus(name);
    assert!(!corpus.is_empty(), "{name}");
    for (path, bytes) in &corpus {
        let held = panic::catch_unwind(AssertUnwindSafe(|| check(bytes)));
        assert!(held.is_ok(), "{}", path.display());
    }
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    for n in 0..mutations {
        let bytes = mutated(&mut chance, &corpus);
        let held = panic::catch_unwind(AssertUnwindSafe(|| check(&bytes)));
        assert!(
            held.is_ok(),
            "{name}, mutation {n}: {}",
            bytes.escape_ascii()
        );
    }
}

#[test]
fn every_door_has_a_test_here_and_a_fuzz_target() {
    let mut corpora: Vec<String> = fs::read_dir(data("corpus"))
        .unwrap()
        .map(|dir| dir.unwrap().file_name().into_string().unwrap())
        .collect();
    corpora.sort();
    let mut checks: Vec<&str> = checks::CHECKS.iter().map(|(name, _)| *name).collect();
    checks.sort_unstable();
    assert_eq!(corpora, checks);
    // No part of the package, so it need not be there.
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let Ok(targets) = fs::read_dir(targets) else {
        return;
    };
    let mut targets: Vec<String> = targets
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    targets.sort();
    let files: Vec<String> = checks.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(targets, files);
}

#[test]
fn keys_of_any_bytes() {
    holds("keys", FEW);
}

#[test]
fn openssh_keys_of_any_bytes() {
    holds("openssh", FEW);
}

#[test]
fn sealed_keys_of_any_bytes() {
    holds("sealed", FEW);
}

#[test]
fn answers_of_any_bytes() {
    holds("answers", FEW);
}

#[test]
fn challenges_of_any_bytes() {
    holds("challenge", FEW);
}

#[test]
fn scopes_of_any_bytes() {
    holds("scopes", MANY);
}

#[test]
fn lines_to_the_agent_of_any_bytes() {
    holds("agent", MANY);
}

#[test]
fn policies_of_any_bytes() {
    holds("policy", MANY);
}

#[test]
fn configurations_of_any_bytes() {
    holds("config", FEW);
}

#[test]
fn fleets_of_any_bytes() {
    holds("fleet", MANY);
}

#[test]
fn journals_of_any_bytes() {
    holds("journal", MANY);
}

#[test]
fn records_of_any_bytes() {
    holds("record", MANY);
}

#[test]
fn audit_logs_of_any_bytes() {
    holds("audit", FEW);
}

/// A configuration with a bit of everything.
const CONFIG: &str = r#"network = "custom"
endpoint = "http://127.0.0.1:1/api/v2"
timeout = 5
require_locked_memory = false
passphrase_file = "words"
admin_client_id = "wcVoQGam"
admin_secret_command = "cat secret"
totp_seed_file = "seed"

[agent]
line = "10s"
idle = "5m"

[agent.keys.bot]
operations = ["auth", "rest"]
rest = ["GET /api/v2/private/get_positions"]
scope = "trade:read"
rate = "10/s"
lifetime = "8h"
uses = 100
"#;

/// What is read as a configuration is not yet one that can be worked with, so the program is run as
/// well: it works, or says what is wrong with the file and nothing of what is in it.
#[test]
fn the_program_with_configurations_of_any_bytes() {
    let corpus = [(PathBuf::from("config.toml"), CONFIG.as_bytes().to_vec())];
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let home = Home::new();
    let plain = ["generate", "bot", "--no-passphrase", "--insecure"];
    home.run(&plain).ok();
    let path = home.store().join("config.toml");
    home.secret_file("draft", "");
    fs::rename(home.path("draft"), &path).unwrap();
    let (mut taken, mut refused) = (0, 0);
    for n in 0..300 {
        let bytes = mutated(&mut chance, &corpus);
        fs::write(&path, &bytes).unwrap();
        let run = home.run(&["--json", "list"]);
        if run.code == Some(0) {
            taken += 1;
            continue;
        }
        refused += 1;
        let what = format!("{n}: {}: {run:#?}", bytes.escape_ascii());
        assert!(matches!(run.code, Some(2 | 3)), "{what}");
        assert!(
            run.stdout.is_empty() && run.stderr.lines().count() == 1,
            "{what}"
        );
        let error = run.error(run.code.unwrap());
        let message = error["message"].as_str().unwrap();
        assert!(!message.contains(char::is_control), "{what}");
        assert!(!message.contains("cat secret"), "{what}");
    }
    assert!(taken > 3 && refused > 100, "{taken} {refused}");
}
