//! What the crate adds to a signature, beside the bare one and OpenSSL's.
//!
//! Ours is what a login takes: its text, the signature, base64url. The candidates take turns, as
//! machines are noisy and only ratios last. Prints one table.
//!
//! ```sh
//! cargo bench --bench signing               # half a minute
//! cargo bench --bench signing -- --test     # seconds: whether it works
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a measurement that goes wrong has nothing better to do than to end"
)]

use std::{env, hint::black_box, process::Command, time::Instant};

use derikey::key::{Algorithm, Message, PrivateKey, Purpose, Stamp, Timestamp};

#[path = "peers/raw.rs"]
mod raw;
use raw::Raw;

/// One algorithm, what `openssl speed` calls it, and how many signatures make a turn.
const KINDS: [(Algorithm, &str, usize); 4] = [
    (Algorithm::Ed25519, "ed25519", 4000),
    (Algorithm::Rsa2048, "rsa2048", 400),
    (Algorithm::Rsa3072, "rsa3072", 120),
    (Algorithm::Rsa4096, "rsa4096", 60),
];

fn main() {
    let rounds = if env::args().any(|word| word == "--bench") {
        9
    } else {
        1
    };
    if cfg!(debug_assertions) {
        println!("Built for debugging: see whether it works, and believe no number.\n");
    }
    println!(
        "| a login's signature | a second of a processor makes | of the time of aws-lc-rs | of OpenSSL's |"
    );
    println!("|---|---|---|---|");
    for (algorithm, name, turn) in KINDS {
        let key =
            PrivateKey::generate(algorithm, &mut rand_core::UnwrapErr(getrandom::SysRng)).unwrap();
        let raw = Raw::read(&key.to_plain_pem().unwrap());
        let (stamp, purpose) = login();
        let text = Message::new(&stamp, &purpose).unwrap();
        let (mut ours, mut bare, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            // Turns within a turn: a neighbour's spell is longer than a tenth of one.
            for _ in 0..10 {
                ours.push(seconds(turn / 10, || {
                    let text = Message::new(&stamp, &purpose).unwrap();
                    black_box(key.sign(&text).unwrap().to_string());
                }));
                bare.push(seconds(turn / 10, || {
                    drop(black_box(raw.sign(text.as_bytes())))
                }));
            }
            theirs.extend(openssl(name));
        }
        let ours = median(&mut ours);
        let to_bare = ours / median(&mut bare);
        let to_openssl = if theirs.is_empty() {
            "not installed".into()
        } else {
            format!("{:.2}", ours / median(&mut theirs))
        };
        println!(
            "| {algorithm} | {:.0} | {to_bare:.2} | {to_openssl} |",
            1.0 / ours
        );
    }
}

fn login() -> (Stamp, Purpose) {
    let stamp = Stamp {
        timestamp: Timestamp(1_576_074_319_000),
        nonce: "ur81yspy45k16jc73z3izvev".parse().unwrap(),
    };
    let data = "a text as long as those that people put there".into();
    (stamp, Purpose::Login { data })
}

/// How long one of so many takes.
fn seconds(times: usize, mut what: impl FnMut()) -> f64 {
    let begun = Instant::now();
    for _ in 0..times {
        what();
    }
    begun.elapsed().as_secs_f64() / f64::from(u32::try_from(times).unwrap())
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// How long OpenSSL takes for one, by its own measure; nothing where it is not installed.
fn openssl(name: &str) -> Option<f64> {
    let mut command = Command::new("openssl");
    let output = command
        .args(["speed", "-mr", "-seconds", "1", name])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    // +F2:2:2048:SIGN:VERIFY, +F6:0:253:Ed25519:SIGN:VERIFY: how many in a second.
    let line = text.lines().find(|line| line.starts_with("+F"))?;
    let rate: f64 = line.rsplit(':').nth(1)?.parse().ok()?;
    (rate > 0.0).then(|| 1.0 / rate)
}
