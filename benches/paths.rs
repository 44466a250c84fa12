//! What lies between a wish and an answer: the finished login request, a call to an exchange.
//!
//!     cargo bench --bench paths
//!
//! The exchange is the sandbox in this process, over real HTTP on loopback: `get_time` is the path
//! and nothing else.
#![allow(clippy::unwrap_used, reason = "a bench")]

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use derikey::{
    exchange::{
        Authority, ClientId, Endpoint, Exchange, GetTime, Https, Login, LoginScope, Network, Scope,
        encode,
    },
    key::{Algorithm, Nonce, PrivateKey, Stamp, Timestamp},
    sandbox::{Options, Sandbox},
    signer::{self, LocalSigner, Stamper},
};

fn rng() -> rand_core::UnwrapErr<getrandom::SysRng> {
    rand_core::UnwrapErr(getrandom::SysRng)
}

/// This moment, and a nonce of the system's.
#[derive(Debug)]
struct Now;

impl Stamper for Now {
    fn stamp(&self) -> Result<Stamp, signer::Error> {
        let since = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
        Ok(Stamp {
            timestamp: Timestamp(u64::try_from(since).unwrap()),
            nonce: Nonce::random(&mut rng()),
        })
    }
}

/// From a key and a wish to the bytes that are sent.
fn requests(c: &mut Criterion) {
    let client_id: ClientId = "AAAAAAAA".parse().unwrap();
    let asked: Scope = "account:read trade:read_write".parse().unwrap();
    let mut group = c.benchmark_group("login request");
    for algorithm in [Algorithm::Ed25519, Algorithm::Rsa2048] {
        let key = PrivateKey::generate(algorithm, &mut rng()).unwrap();
        let signer = LocalSigner::new(key, Now);
        group.bench_function(algorithm.to_string(), |b| {
            b.iter(|| {
                let scope = LoginScope {
                    areas: Some(&asked),
                    session: None,
                };
                let login = Login::signed_by(&signer, &client_id, String::new(), scope).unwrap();
                black_box(encode(1, &login).unwrap())
            });
        });
    }
    group.finish();
}

fn calls(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let home = tempfile::tempdir().unwrap();
    let sandbox = runtime.block_on(Sandbox::start(Options {
        state_dir: home.path().to_path_buf(),
        listen: ([127, 0, 0, 1], 0).into(),
        faults: Vec::new(),
        totp_seed: None,
    }));
    let sandbox = sandbox.unwrap();
    let endpoint: Endpoint = sandbox.endpoint().parse().unwrap();
    let transport = Https::new(endpoint.clone(), None, Duration::from_secs(10)).unwrap();
    let exchange = Exchange::new(transport, Network::Custom(endpoint));
    let mut group = c.benchmark_group("sandbox");
    group.bench_function("get_time", |b| {
        b.iter(|| {
            runtime
                .block_on(exchange.call(Authority::Nobody, &GetTime {}))
                .unwrap()
        });
    });
    group.finish();
}

criterion_group!(benches, requests, calls);
criterion_main!(benches);
