//! What a key costs: making, signing, checking, naming, sealing, opening; beside the raw library.
//!
//!     cargo bench --bench keys
//!
//! `sign` is what the crate does for one login (text, signature, base64url); `sign/raw` is
//! aws-lc-rs over the same bytes and nothing else. Only ratios within one run mean anything.
#![allow(clippy::unwrap_used, reason = "a bench")]

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, SamplingMode, criterion_group, criterion_main};
use derikey::{
    key::{Algorithm, Kdf, Message, Nonce, PrivateKey, Purpose, Stamp, Timestamp},
    secret::Passphrase,
};

#[path = "peers/raw.rs"]
mod raw;
use raw::Raw;

const ALGORITHMS: [Algorithm; 4] = [
    Algorithm::Ed25519,
    Algorithm::Rsa2048,
    Algorithm::Rsa3072,
    Algorithm::Rsa4096,
];

fn rng() -> rand_core::UnwrapErr<getrandom::SysRng> {
    rand_core::UnwrapErr(getrandom::SysRng)
}

fn make(algorithm: Algorithm) -> PrivateKey {
    PrivateKey::generate(algorithm, &mut rng()).unwrap()
}

fn stamp() -> Stamp {
    Stamp {
        timestamp: Timestamp(1_576_074_319_000),
        nonce: "1iqt2wls".parse::<Nonce>().unwrap(),
    }
}

fn login() -> Purpose {
    Purpose::Login {
        data: "a text as long as those that people put there".into(),
    }
}

fn keys(c: &mut Criterion) {
    for algorithm in ALGORITHMS {
        let rsa = algorithm != Algorithm::Ed25519;
        let mut group = c.benchmark_group(algorithm.to_string());
        if rsa {
            group.sampling_mode(SamplingMode::Flat).sample_size(20);
        }
        // Finding primes takes as long as it takes: the spread is the nature of it.
        group.bench_function("generate", |b| b.iter(|| make(algorithm)));
        group.sample_size(100);

        let key = make(algorithm);
        let raw = Raw::read(&key.to_plain_pem().unwrap());
        let stamp = stamp();
        let purpose = login();
        let message = Message::new(&stamp, &purpose).unwrap();
        group.bench_function("sign", |b| {
            b.iter(|| {
                let message = Message::new(&stamp, &purpose).unwrap();
                black_box(key.sign(&message).unwrap().to_string())
            });
        });
        group.bench_function("sign/raw", |b| {
            b.iter(|| black_box(raw.sign(message.as_bytes())))
        });
        let signature = key.sign(&message).unwrap();
        let public = key.public().clone();
        group.bench_function("verify", |b| {
            b.iter(|| public.verify(&message, &signature).unwrap())
        });
        group.bench_function("fingerprint", |b| {
            b.iter(|| black_box(public.fingerprint()))
        });
        group.finish();
    }
}

fn sealing(c: &mut Criterion) {
    let passphrase = Passphrase::new("correct horse battery staple".into());
    let mut group = c.benchmark_group("sealing");
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group.measurement_time(Duration::from_secs(3));
    for algorithm in ALGORITHMS {
        let key = make(algorithm);
        for kdf in [Kdf::Scrypt, Kdf::Pbkdf2] {
            let seal = || key.to_sealed_pem(&passphrase, kdf, &mut rng()).unwrap();
            let id = |doing| BenchmarkId::new(format!("{doing}/{kdf}"), algorithm);
            group.bench_function(id("seal"), |b| b.iter(seal));
            let sealed = seal();
            group.bench_function(id("open"), |b| {
                b.iter(|| PrivateKey::read(sealed.as_bytes(), Some(&passphrase)).unwrap());
            });
        }
    }
    group.finish();
}

criterion_group!(benches, keys, sealing);
criterion_main!(benches);
