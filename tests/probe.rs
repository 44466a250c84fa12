//! An allocator that looks at every block that is given back: none may hold a secret.
//!
//! What `aws-lc` allocates by itself goes past this allocator; it wipes its blocks on its own,
//! which the search of a process's memory (`it/hardening.rs`) looks at.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]
#![allow(
    unsafe_code,
    reason = "an allocator cannot be written without; nothing else here is unsafe"
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    backtrace::Backtrace,
    cell::Cell,
    fs, future,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, Engine};
use derikey::{
    exchange::{
        self, Authority, ClientId, Exchange, Incoming, ListApiKeys, Login, LoginScope, Method,
        Network, Outcome, Outgoing, SecondFactor, Totp, Transport,
    },
    key::{Algorithm, Kdf, PrivateKey, Purpose, Stamp, Timestamp},
    provision::{Desk, Operator, log_in},
    secret::{AccessToken, ClientSecret, OneTimeCode, Passphrase, RefreshToken, TotpSeed},
    signer::{self, LocalSigner, Signer, Stamper},
    store::{Moment, Record, Store},
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

struct Probe;

#[global_allocator]
static PROBE: Probe = Probe;

/// Whether anything is looked for at the moment.
static ARMED: AtomicBool = AtomicBool::new(false);
static SOUGHT: RwLock<Sought> = RwLock::new(Sought::nothing());
static FOUND: Mutex<Vec<String>> = Mutex::new(Vec::new());
thread_local! {
    /// Whether this thread is looking, and so gives back memory of its own.
    static LOOKING: Cell<bool> = const { Cell::new(false) };
}
/// One test at a time: what another prepares would be found too.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Sought {
    needles: Vec<(String, Vec<u8>)>,
    /// Which needles begin with two given bytes: none, for most of them.
    begins: Vec<bool>,
}

impl Sought {
    const fn nothing() -> Self {
        Self {
            needles: Vec::new(),
            begins: Vec::new(),
        }
    }

    fn in_block(&self, block: &[u8]) -> Option<&str> {
        let mut at = 0;
        while at + 1 < block.len() {
            if self.begins[usize::from(u16::from_ne_bytes([block[at], block[at + 1]]))] {
                let found = self
                    .needles
                    .iter()
                    .find(|(_, needle)| block[at..].starts_with(needle));
                if let Some((name, _)) = found {
                    return Some(name);
                }
            }
            at += 1;
        }
        None
    }
}

impl Probe {
    fn look(&self, block: *mut u8, size: usize) {
        // A thread that waits for itself waits for ever; one that ends looks no more.
        let first = LOOKING.try_with(|looking| !looking.replace(true));
        if first == Ok(true) {
            if ARMED.load(Ordering::SeqCst) {
                self.look_closely(block, size);
            }
            let _ = LOOKING.try_with(|looking| looking.set(false));
        }
    }

    fn look_closely(&self, block: *mut u8, size: usize) {
        // SAFETY: the caller gives back a block of this size, which is still allocated. Bytes of
        // it that nobody wrote to are looked at as they are, and decide nothing but a test.
        let bytes = unsafe { std::slice::from_raw_parts(block, size) };
        let sought: RwLockReadGuard<'_, Sought> = SOUGHT.read().unwrap();
        let Some(name) = sought.in_block(bytes).map(str::to_owned) else {
            return;
        };
        drop(sought);
        let trace = Backtrace::force_capture().to_string();
        let ours = trace.lines().filter(|line| {
            [
                "derikey",
                "serde_json",
                "ssh_key",
                "pkcs",
                "rsa",
                "totp",
                "base64",
                "der",
            ]
            .iter()
            .any(|name| line.contains(name))
        });
        let ours: Vec<&str> = ours.take(40).collect();
        let hit = format!(
            "{name} in a block of {size} bytes, freed by\n{}",
            ours.join("\n")
        );
        FOUND.lock().unwrap().push(hit);
    }
}

// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Probe {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Zeroed, so that nothing of an earlier owner is taken for the new one's.
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.look(block, layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // It may move, and leave its old self behind; here it always does.
        // SAFETY: the caller promises that the new size makes a layout with the old alignment.
        let moved = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !moved.is_null() {
            // SAFETY: both blocks are allocated, at least this long, and not the same.
            unsafe { std::ptr::copy_nonoverlapping(block, moved, size.min(layout.size())) };
            // SAFETY: the block is the caller's, who gives it back with its layout.
            unsafe { self.dealloc(block, layout) };
        }
        moved
    }
}

/// Secrets to look for.
#[derive(Default)]
struct Secrets(Vec<(String, Vec<u8>)>);

impl Secrets {
    fn with(mut self, name: &str, secret: &[u8]) -> Self {
        let backwards: Vec<u8> = secret.iter().rev().copied().collect();
        let hex: String = secret.iter().map(|b| format!("{b:02x}")).collect();
        let whole = &secret[..secret.len() / 3 * 3];
        self.0.extend([
            (name.to_owned(), secret.to_vec()),
            (format!("{name}, the other way round"), backwards),
            (format!("{name}, hex"), hex.into_bytes()),
            (
                format!("{name}, base64"),
                BASE64_STANDARD_NO_PAD.encode(whole).into_bytes(),
            ),
        ]);
        self
    }

    /// The numbers of a key by pieces, and the lines of its PEM that are secret.
    fn with_key(mut self, pem: &str) -> Self {
        let parts = private_parts(pem);
        let lines = pem.lines().filter(|line| !line.starts_with('-'));
        for line in lines
            .skip(if parts.len() == 1 { 0 } else { 8 })
            .filter(|line| line.len() > 20)
        {
            self.0
                .push(("a line of PEM".into(), line.as_bytes().to_vec()));
        }
        for (n, part) in parts.iter().enumerate() {
            for piece in part.chunks_exact(16).take(4) {
                self = self.with(&format!("part {n} of the key"), piece);
            }
        }
        self
    }

    /// Runs something and returns the secrets in the blocks that it gave back.
    fn in_what_is_freed_by<T>(self, work: impl FnOnce() -> T) -> Vec<String> {
        assert!(TURN.try_lock().is_err(), "a test begins with `turn()`");
        let mut begins = vec![false; 1 << 16];
        for (_, needle) in &self.0 {
            begins[usize::from(u16::from_ne_bytes([needle[0], needle[1]]))] = true;
        }
        *SOUGHT.write().unwrap() = Sought {
            needles: self.0,
            begins,
        };
        ARMED.store(true, Ordering::SeqCst);
        drop(work());
        ARMED.store(false, Ordering::SeqCst);
        std::mem::take(&mut *FOUND.lock().unwrap())
    }

    #[track_caller]
    fn do_not_leave<T>(self, what: &str, work: impl FnOnce() -> T) {
        let found = self.in_what_is_freed_by(work);
        assert!(
            found.is_empty(),
            "{what} leaves {}: {}",
            found.len(),
            found[0]
        );
    }
}

fn private_parts(pem: &str) -> Vec<Vec<u8>> {
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = BASE64_STANDARD.decode(body).unwrap();
    let outer = elements(&elements(&der)[0]);
    let inner = elements(&outer[2]);
    if inner[0].len() == 32 {
        return inner;
    }
    let numbers = elements(&inner[0]).into_iter().skip(3);
    numbers
        .map(|n| n.strip_prefix(&[0]).map_or(n.clone(), <[u8]>::to_vec))
        .collect()
}

/// The contents of DER elements in a row.
fn elements(mut der: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let [_, length, rest @ ..] = der {
        let (length, rest) = match usize::from(*length) {
            short @ 0..0x80 => (short, rest),
            long => {
                let (bytes, rest) = rest.split_at(long - 0x80);
                (
                    bytes.iter().fold(0, |sum, b| sum << 8 | usize::from(*b)),
                    rest,
                )
            }
        };
        all.push(rest[..length].to_vec());
        der = &rest[length..];
    }
    all
}

const CANARY: &str = "canary-Qm7xPzW2vK9sTfB4";
const SEED: &str = "KRUGKIDROVUWG2ZAMJZG653OEBTG66BA";

fn canary() -> Secrets {
    Secrets::default().with("the canary", CANARY.as_bytes())
}

fn rng() -> impl rand_core::CryptoRng {
    rand_core::UnwrapErr(getrandom::SysRng)
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

#[derive(Debug)]
struct Frozen;

impl Stamper for Frozen {
    fn stamp(&self) -> Result<Stamp, signer::Error> {
        Ok(Stamp {
            timestamp: Timestamp(1_576_074_319_000),
            nonce: "1iqt2wls".parse().unwrap(),
        })
    }
}

/// Answers in order, whatever is asked.
struct Scripted(Mutex<Vec<Zeroizing<Vec<u8>>>>);

impl Scripted {
    fn new(replies: &[Value]) -> Self {
        let whole = |(n, reply): (usize, &Value)| {
            let mut reply = reply.clone();
            reply["id"] = json!(n + 1);
            Zeroizing::new(reply.to_string().into_bytes())
        };
        Self(Mutex::new(
            replies.iter().enumerate().map(whole).rev().collect(),
        ))
    }
}

impl Transport for Scripted {
    fn post(
        &self,
        request: Outgoing,
    ) -> impl Future<Output = Result<Incoming, exchange::Error>> + Send {
        drop(request);
        let body = self.0.lock().unwrap().pop().unwrap();
        future::ready(Ok(Incoming { status: 200, body }))
    }

    fn pause(&self, _: Duration) -> impl Future<Output = ()> + Send {
        future::ready(())
    }
}

fn exchange(replies: &[Value]) -> Exchange<Scripted> {
    Exchange::new(Scripted::new(replies), Network::Test)
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(work)
}

struct Seeded(Totp);

impl SecondFactor for Seeded {
    fn code(&mut self, _: &exchange::Challenge) -> Result<OneTimeCode, exchange::Error> {
        Ok(self.0.code(7))
    }

    fn waits(&mut self, _: u64) -> bool {
        false
    }
}

#[test]
fn a_plain_string_is_caught_and_a_wiped_one_is_not() {
    let _turn = turn();
    let found = canary().in_what_is_freed_by(|| CANARY.to_owned());
    assert_eq!(found.len(), 1, "{found:?}");
    let found = canary().in_what_is_freed_by(|| {
        let mut text = String::with_capacity(CANARY.len());
        text.push_str(CANARY);
        text.push('!');
        text.clear();
        text.shrink_to_fit();
    });
    assert!(!found.is_empty(), "growing leaves the old block behind");
    let found = canary().in_what_is_freed_by(|| CANARY.bytes().rev().collect::<Vec<u8>>());
    assert_eq!(found.len(), 1, "{found:?}");
    canary().do_not_leave("a wiped string", || Zeroizing::new(CANARY.to_owned()));
}

#[test]
fn secret_types_wipe_what_they_held() {
    let _turn = turn();
    canary().do_not_leave("Passphrase", || Passphrase::new(CANARY.to_owned()));
    canary().do_not_leave("a token with room", || {
        let mut text = String::with_capacity(1000);
        text.push_str(CANARY);
        AccessToken::new(text)
    });
    let json = format!("\"{CANARY}\"");
    canary().do_not_leave("a token out of JSON", || {
        serde_json::from_str::<AccessToken>(&json).unwrap()
    });
    canary().do_not_leave("a secret where none fits", || {
        let _ = serde_json::from_str::<ClientSecret>(&format!("{{\"x\":{}}}", 1)).unwrap_err();
    });
}

#[test]
fn sealing_and_opening_leave_nothing() {
    let _turn = turn();
    for algorithm in [Algorithm::Ed25519, Algorithm::Rsa2048, Algorithm::Rsa4096] {
        let key = PrivateKey::generate(algorithm, &mut rng()).unwrap();
        let plain = key.to_plain_pem().unwrap();
        let secrets = || canary().with_key(&plain);
        let mut sealed = Zeroizing::new(String::new());
        for kdf in [Kdf::Scrypt, Kdf::Pbkdf2] {
            secrets().do_not_leave("sealing", || {
                let passphrase = Passphrase::new(CANARY.to_owned());
                sealed = key.to_sealed_pem(&passphrase, kdf, &mut rng()).unwrap();
            });
            secrets().do_not_leave("opening", || {
                let passphrase = Passphrase::new(CANARY.to_owned());
                PrivateKey::read(sealed.as_bytes(), Some(&passphrase)).unwrap()
            });
            secrets().do_not_leave("opening with another passphrase", || {
                let passphrase = Passphrase::new([CANARY, "!"].concat());
                PrivateKey::read(sealed.as_bytes(), Some(&passphrase)).unwrap_err()
            });
        }
        secrets().do_not_leave("writing in clear", || key.to_plain_pem().unwrap());
        secrets().do_not_leave("reading in clear", || {
            PrivateKey::read(plain.as_bytes(), None).unwrap()
        });
        secrets().do_not_leave("dropping", move || drop(key));
    }
}

#[test]
fn signing_leaves_nothing() {
    let _turn = turn();
    for algorithm in [Algorithm::Ed25519, Algorithm::Rsa2048, Algorithm::Rsa4096] {
        let key = PrivateKey::generate(algorithm, &mut rng()).unwrap();
        let secrets = Secrets::default().with_key(&key.to_plain_pem().unwrap());
        let signer = LocalSigner::new(key, Frozen);
        let data = String::new();
        secrets.do_not_leave("signing", || signer.sign(&Purpose::Login { data }).unwrap());
    }
}

#[test]
fn importing_any_format_leaves_nothing() {
    let _turn = turn();
    let index: Value = serde_json::from_slice(&fs::read(data("index.json")).unwrap()).unwrap();
    let all = index
        .as_array()
        .or_else(|| index["keys"].as_array())
        .unwrap();
    let mut tried = 0;
    for entry in all {
        let (Some(file), Some(sealed)) = (entry["file"].as_str(), entry["sealed"].as_bool()) else {
            continue;
        };
        let Ok(input) = fs::read(data(file)) else {
            continue;
        };
        let words = entry["passphrase"].as_str();
        let given = words.map(|words| Passphrase::new(words.to_owned()));
        let Ok(key) = PrivateKey::read(&input, given.as_ref()) else {
            continue;
        };
        assert_eq!(sealed, given.is_some(), "{file}");
        let mut secrets = Secrets::default().with_key(&key.to_plain_pem().unwrap());
        if let Some(words) = words {
            secrets = secrets.with("the passphrase", words.as_bytes());
        }
        drop(key);
        secrets.do_not_leave(file, || PrivateKey::read(&input, given.as_ref()).unwrap());
        tried += 1;
    }
    assert!(tried > 60, "only {tried} keys were read");
}

#[test]
fn damaged_keys_leave_nothing() {
    let _turn = turn();
    for file in [
        "keys/ed25519.openssl.pem",
        "keys/rsa2048.openssl.pem",
        "keys/rsa2048.openssl.pkcs1.pem",
        "keys/rsa2048.ssh.pem",
        "keys/ed25519.ssh.pem",
    ] {
        let input = fs::read(data(file)).unwrap();
        let plain = PrivateKey::read(&input, None)
            .unwrap()
            .to_plain_pem()
            .unwrap();
        for at in (30..input.len() - 30).step_by(41) {
            let mut damaged = input.clone();
            damaged[at] ^= 1;
            let secrets = Secrets::default().with_key(&plain);
            secrets.do_not_leave(&format!("{file} with byte {at} damaged"), || {
                PrivateKey::read(&damaged, None)
            });
            let _ = Zeroizing::new(damaged);
        }
    }
}

#[test]
fn logins_leave_nothing() {
    let _turn = turn();
    let id: ClientId = "abc".parse().unwrap();
    let scope = LoginScope::default();
    canary().do_not_leave("signing with a secret", || {
        let secret = ClientSecret::new(CANARY.to_owned());
        let login =
            Login::with_secret(&secret, &id, &Frozen.stamp().unwrap(), scope.clone()).unwrap();
        exchange::encode(1, &login).unwrap();
    });
    canary().do_not_leave("encoding a secret", || {
        let client_secret = &ClientSecret::new(CANARY.to_owned());
        let login = Login::ClientCredentials {
            client_id: &id,
            client_secret,
            scope: scope.clone(),
        };
        exchange::encode(1, &login).unwrap()
    });
    canary().do_not_leave("encoding a refresh token", || {
        let refresh_token = &RefreshToken::new(CANARY.to_owned());
        exchange::encode(1, &Login::RefreshToken { refresh_token }).unwrap()
    });
}

#[test]
fn answers_with_tokens_leave_nothing() {
    let _turn = turn();
    let id: ClientId = "abc".parse().unwrap();
    let good = json!({"result": {"access_token": CANARY, "refresh_token": CANARY, "expires_in": 9, "scope": "account:read_write"}});
    // Where JSON is escaped, or a string stands for a number, serde_json copies it; not here.
    let odd = [
        json!({"result": {"access_token": [CANARY], "expires_in": 9}}),
        json!({"result": {"access_token": CANARY, "refresh_token": CANARY, "expires_in": 9, "scope": [1]}}),
        json!({"result": {"security_key_authorization_required": true, "challenge": [CANARY]}}),
        json!({"error": {"code": 13004, "message": CANARY, "data": {"reason": CANARY, "param": CANARY}}}),
        json!({"error": {"code": 13004, "message": format!("{CANARY}\n"), "data": {"reason": format!("\n{CANARY}"), "x": [CANARY]}}}),
        json!({"result": {CANARY: CANARY}}),
    ];
    let secret = ClientSecret::new(format!("other {CANARY}"));
    for reply in std::iter::once(&good).chain(&odd) {
        let exchange = exchange(&[reply.clone(), reply.clone(), reply.clone(), reply.clone()]);
        canary().do_not_leave(&reply.to_string(), || {
            let operator = Operator::Secret {
                client_id: id.clone(),
                secret: &secret,
                stamper: &Frozen,
            };
            wait(log_in(&exchange, &operator, &LoginScope::default())).is_ok()
        });
    }
}

#[test]
fn private_calls_with_a_second_factor_leave_nothing() {
    let _turn = turn();
    let id: ClientId = "abc".parse().unwrap();
    let totp = || Totp::new(&TotpSeed::new(SEED.to_owned())).unwrap();
    let seed = totp_bytes(SEED);
    let code = totp().code(7).expose().to_owned();
    let session = json!({"result": {"access_token": CANARY, "expires_in": 9, "scope": "account:read_write"}, "testnet": true});
    let demand = json!({"result": {"security_key_authorization_required": true, "challenge": "abcdef", "rp_id": "test.deribit.com", "security_keys": [{"type": "tfa"}]}, "testnet": true});
    let symmetric = json!({"result": [{"id": 1, "client_id": "abc", "client_secret": CANARY, "max_scope": "account:read", "name": "x", "timestamp": 1, "enabled": true}], "testnet": true});
    let exchange = exchange(&[session, demand, symmetric]);
    let secrets = canary()
        .with("the seed", &seed)
        .with("the seed as text", SEED.as_bytes());
    let mut secrets = secrets;
    secrets.0.push(("the code".into(), code.into_bytes()));
    let other = ClientSecret::new("something else".into());
    secrets.do_not_leave("a private call", || {
        let mut second = Seeded(totp());
        let operator = Operator::Secret {
            client_id: id.clone(),
            secret: &other,
            stamper: &Frozen,
        };
        let mut desk = Desk::new(&exchange, operator, &mut second);
        let keys = wait(desk.call(&ListApiKeys {})).unwrap();
        assert_eq!(keys.len(), 1);
        keys
    });
}

fn totp_bytes(base32: &str) -> Vec<u8> {
    let (mut bits, mut held, mut bytes) = (0_u32, 0, Vec::new());
    for letter in base32.bytes() {
        let value = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
            .iter()
            .position(|l| *l == letter)
            .unwrap();
        bits = bits << 5 | u32::try_from(value).unwrap();
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).unwrap());
        }
    }
    bytes
}

#[test]
fn seeds_leave_nothing() {
    let _turn = turn();
    let mixed = "krug kidr-OVUW G2ZA mjzg 653o ebtg 66ba";
    let secrets = || {
        Secrets::default()
            .with("the seed", &totp_bytes(SEED))
            .with("the seed as text", SEED.as_bytes())
            .with("the seed as typed", mixed.as_bytes())
    };
    secrets().do_not_leave("a seed", || {
        let totp = Totp::new(&TotpSeed::new(mixed.to_owned())).unwrap();
        let _ = (totp.tag().len(), totp.code(7), totp.code(8));
        totp
    });
    secrets().do_not_leave("a seed that is none", || {
        Totp::new(&TotpSeed::new([mixed, "1"].concat())).unwrap_err()
    });
}

#[test]
fn a_bearer_of_a_token_leaves_nothing() {
    let _turn = turn();
    let exchange = exchange(&[json!({"result": []})]);
    canary().do_not_leave("a call", || {
        let token = AccessToken::new(CANARY.to_owned());
        match wait(exchange.call(Authority::Bearer(&token), &ListApiKeys {})).unwrap() {
            Outcome::Done(keys) => assert_eq!(
                (keys.len(), ListApiKeys::NAME),
                (0, "private/list_api_keys")
            ),
            Outcome::Challenged(_) => panic!("challenged"),
        }
    });
}

#[test]
fn the_keystore_leaves_nothing() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let name: derikey::key::KeyName = "k".parse().unwrap();
    let key = PrivateKey::generate(Algorithm::Rsa2048, &mut rng()).unwrap();
    let plain = key.to_plain_pem().unwrap();
    let now = Moment(SystemTime::now());
    let record = Record {
        algorithm: key.public().algorithm(),
        fingerprint: key.public().fingerprint(),
        created: now,
        registration: None,
        signer: None,
    };
    let secrets = || canary().with_key(&plain);
    secrets().do_not_leave("keeping", || {
        store.create(&name, &plain, key.public(), &record).unwrap()
    });
    let passphrase = || Ok::<_, derikey::store::Error>(Passphrase::new(CANARY.to_owned()));
    secrets().do_not_leave("loading", || store.load(&name, passphrase).unwrap());
    let sealed = key
        .to_sealed_pem(&Passphrase::new(CANARY.to_owned()), Kdf::Scrypt, &mut rng())
        .unwrap();
    secrets().do_not_leave("sealing anew", || {
        store.reseal(&name, &sealed, now).unwrap()
    });
    secrets().do_not_leave("loading what is sealed", || {
        store.load(&name, passphrase).unwrap()
    });
    secrets().do_not_leave("the private file", || {
        store.private_pem(&name).unwrap();
        store
            .sandbox_text("passphrase", || Zeroizing::new(CANARY.to_owned()))
            .unwrap();
    });
}
