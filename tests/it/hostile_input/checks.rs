//! What must hold for any bytes at all, one function for each door by which they come in.
//!
//! Two callers: the fuzzer (`fuzz/`), which searches, and `hostile_input.rs`, which goes over what
//! was found and mutates it some thousand times. Only the public interface is used.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, UNIX_EPOCH},
};

use base64::prelude::{BASE64_STANDARD, Engine};
use derikey::{
    agent::{
        Agent, Code, Decision, Denial, Granted, Held, Identity, Ledger, Limits, Logins, Policy,
        Unwritable, serve,
    },
    cli::Config,
    exchange::{
        Authority, Challenge, CreateApiKey, Error, Exchange, GetAccessLog, GetTime, Incoming,
        ListApiKeys, Method, Network, Outcome, Outgoing, Ping, Scope, SecondFactor, Session,
        Status, Transport,
    },
    fleet::{Fleet, Site},
    key::{self, Algorithm, KeyName, Message, PrivateKey, PublicKey, Purpose, Stamp, Timestamp},
    secret::{AccessToken, OneTimeCode, Passphrase},
    signer::{self, LocalSigner, Signed, Signer, Stamper},
    store::{Entry, Intent, Moment, Record, Specification, Store},
};
use futures_util::FutureExt;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use zeroize::Zeroizing;

/// A door, and what must hold there.
pub type Check = fn(&[u8]);

/// All of them, by the names of their corpora.
pub const CHECKS: [(&str, Check); 13] = [
    ("keys", keys),
    ("openssh", openssh),
    ("sealed", sealed),
    ("answers", answers),
    ("challenge", challenge),
    ("scopes", scopes),
    ("agent", agent),
    ("policy", policy),
    ("config", config),
    ("fleet", fleet),
    ("journal", journal),
    ("record", record),
    ("audit", audit),
];

const SEED_KEY: &[u8] = include_bytes!("../../data/keys/ed25519.rfc8032.pem");

// Keys.

/// A key that is read signs, and is read again from what it is written as.
fn is_a_key(key: &PrivateKey) {
    let stamp = Stamp {
        timestamp: Timestamp(1_576_074_319_000),
        nonce: "1iqt2wls".parse().unwrap(),
    };
    let message = Message::new(
        &stamp,
        &Purpose::Login {
            data: String::new(),
        },
    )
    .unwrap();
    let signature = key.sign(&message).unwrap();
    key.public().verify(&message, &signature).unwrap();
    let plain = key.to_plain_pem().unwrap();
    let again = PrivateKey::read(plain.as_bytes(), None).unwrap();
    assert_eq!(again.public(), key.public());
    let public = PublicKey::read(key.public().to_pem().as_bytes()).unwrap();
    assert_eq!(public, *key.public());
}

/// No error says anything that a terminal would obey.
fn is_harmless(error: &impl std::fmt::Display) {
    let text = error.to_string();
    assert!(!text.contains(char::is_control), "{text:?}");
}

/// PEM and DER of every kind, in clear.
pub fn keys(data: &[u8]) {
    match PublicKey::read(data) {
        Ok(key) => {
            assert_eq!(PublicKey::read(key.spki_der()).unwrap(), key);
            assert!(PrivateKey::read(data, None).is_err());
        }
        Err(error) => is_harmless(&error),
    }
    let sealed = PrivateKey::is_sealed(data);
    match PrivateKey::read(data, None) {
        Ok(key) => {
            assert!(!sealed.unwrap());
            is_a_key(&key);
        }
        Err(key::Error::Sealed) => assert!(sealed.unwrap()),
        // What is wrong inside can often be told only when it is opened.
        Err(error) => is_harmless(&error),
    }
}

/// What stands in an OpenSSH file, in clear and sealed with few rounds.
pub fn openssh(data: &[u8]) {
    let mut pem = String::from("-----BEGIN OPENSSH PRIVATE KEY-----\n");
    BASE64_STANDARD.encode_string(data, &mut pem);
    pem.push_str("\n-----END OPENSSH PRIVATE KEY-----\n");
    keys(pem.as_bytes());
    if rounds_of(data).is_some_and(|rounds| (1..=4).contains(&rounds)) {
        opens_or_not(pem.as_bytes());
    }
}

/// The rounds of bcrypt, counted by hand: magic, cipher, "bcrypt", salt and rounds.
fn rounds_of(data: &[u8]) -> Option<u32> {
    let at = data.windows(10).position(|w| w == b"\0\0\0\x06bcrypt")?;
    let number = |at: usize| {
        let bytes = data.get(at..at + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    };
    let salt = usize::try_from(number(at + 14)?).ok()?;
    number((at + 18).checked_add(salt).filter(|at| *at < data.len())?)
}

fn opens_or_not(data: &[u8]) {
    let words = Passphrase::new("correct horse".into());
    match PrivateKey::read(data, Some(&words)) {
        Ok(key) => is_a_key(&key),
        Err(error) => is_harmless(&error),
    }
}

/// A sealed PKCS#8 key whose derivation is cheap. One that is dear is refused before it is begun.
pub fn sealed(data: &[u8]) {
    use pkcs8::{
        EncryptedPrivateKeyInfoRef,
        der::Decode,
        pkcs5::{EncryptionScheme, pbes2::Kdf},
    };
    let known = PrivateKey::is_sealed(data);
    let Ok(info) = EncryptedPrivateKeyInfoRef::from_der(data) else {
        return keys(data);
    };
    let EncryptionScheme::Pbes2(parameters) = &info.encryption_algorithm else {
        return;
    };
    let (cheap, dear) = match &parameters.kdf {
        Kdf::Pbkdf2(kdf) => (kdf.iteration_count <= 64, kdf.iteration_count > 10_000_000),
        Kdf::Scrypt(kdf) => {
            let (r, p) = (u64::from(kdf.block_size), u64::from(kdf.parallelization));
            let memory = u128::from(kdf.cost_parameter) * u128::from(r) * 128;
            let work = memory * u128::from(p);
            (work <= 1 << 16, memory > 256 << 20 || work > 1 << 30)
        }
        _ => return,
    };
    if dear {
        assert!(known.is_err(), "{known:?}");
        // It does not get to the passphrase.
        opens_or_not(data);
    } else if cheap {
        opens_or_not(data);
    }
}

// The exchange.

/// Answers with what it was given, again and again, and lets no time pass.
struct Parrot<'a> {
    answers: Mutex<VecDeque<&'a [u8]>>,
    sent: Mutex<Vec<String>>,
}

impl Transport for Parrot<'_> {
    async fn post(&self, request: Outgoing) -> Result<Incoming, Error> {
        let sent = String::from_utf8(request.body.to_vec()).unwrap();
        self.sent.lock().unwrap().push(sent);
        let mut answers = self.answers.lock().unwrap();
        let answer = answers.front().copied().unwrap_or_default();
        if answers.len() > 1 {
            answers.pop_front();
        }
        Ok(Incoming {
            status: 200,
            body: Zeroizing::new(answer.to_vec()),
        })
    }

    async fn pause(&self, _: Duration) {}
}

fn parrot<'a>(network: Network, answers: &[&'a [u8]]) -> Exchange<Parrot<'a>> {
    let answers = answers.iter().copied().collect();
    let parrot = Parrot {
        answers: Mutex::new(answers),
        sent: Mutex::default(),
    };
    Exchange::new(parrot, network)
}

/// Calls one method, and sees that an error shows nothing of the answer.
fn call<M: Method>(data: &[u8], method: &M) {
    let exchange = parrot(Network::Test, &[data]);
    let token = AccessToken::new("1582628593469.secret".into());
    let called = exchange.call(Authority::Bearer(&token), method);
    match called.now_or_never().unwrap() {
        Ok(Outcome::Done(_) | Outcome::Challenged(_)) => {}
        Err(error) => {
            is_harmless(&error);
            // Words may be quoted, and nothing that could be a token.
            let text = error.to_string();
            let odd = |c: char| c.is_ascii_digit() || c.is_ascii_uppercase();
            for piece in text.split([' ', '_']).filter(|piece| piece.len() > 24) {
                assert!(!piece.chars().skip(1).any(odd), "{text}");
            }
        }
    }
}

/// An answer to any call.
pub fn answers(data: &[u8]) {
    call(data, &ListApiKeys {});
    call(data, &GetTime {});
    call(data, &Ping {});
    call(data, &Status {});
    call(
        data,
        &GetAccessLog {
            offset: 0,
            count: 1,
        },
    );
    let create = CreateApiKey {
        max_scope: &Scope::nothing(),
        name: "bot",
        public_key: "",
        enabled_features: &[],
    };
    call(data, &create);
    if let Ok(answer) = serde_json::from_slice::<Value>(data)
        && let Some(result) = answer.get("result")
    {
        // Whether it is one or not, it is told without a panic.
        let _ = serde_json::from_value::<Session>(result.clone()).map(|s| format!("{s:?}"));
    }
}

/// Answers a challenge, and remembers whose.
#[derive(Default)]
struct Asked(Vec<Option<String>>);

impl SecondFactor for Asked {
    fn code(&mut self, challenge: &Challenge) -> Result<OneTimeCode, Error> {
        self.0.push(challenge.rp_id().map(str::to_owned));
        Ok(OneTimeCode::new("287082".into()))
    }

    fn waits(&mut self, _: u64) -> bool {
        false
    }
}

/// Answers to a call and to the code that follows it, one a line. A code goes to no other site and
/// no more than three times, and never in two requests.
pub fn challenge(data: &[u8]) {
    let lines: Vec<&[u8]> = data.split(|b| *b == b'\n').collect();
    for (network, sites) in [
        (Network::Test, &["test.deribit.com"][..]),
        (Network::Production, &["www.deribit.com", "deribit.com"]),
    ] {
        let exchange = parrot(network, &lines);
        let token = AccessToken::new("1582628593469.secret".into());
        let mut second = Asked::default();
        let called = exchange.confirm(Authority::Bearer(&token), &ListApiKeys {}, &mut second);
        if let Err(error) = called.now_or_never().unwrap() {
            is_harmless(&error);
            assert!(!error.to_string().contains("287082"));
        }
        assert!(second.0.len() <= 3);
        for site in second.0.iter().flatten() {
            assert!(sites.contains(&site.as_str()), "{site}");
        }
        let sent = exchange.transport().sent.lock().unwrap();
        let with_code = sent.iter().filter(|body| body.contains("287082")).count();
        assert_eq!(with_code, second.0.len());
    }
}

/// A scope, as a person types it and as the exchange writes it.
pub fn scopes(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    match text.parse::<Scope>() {
        Ok(scope) => {
            stands_for_itself(&scope);
            // What is typed is never read as less or more by the exchange's rules.
            if !text.trim().starts_with('@') {
                assert_eq!(Scope::from_wire(text), scope);
            }
            assert_eq!(scope.to_string().parse::<Scope>().unwrap(), scope);
        }
        Err(error) => is_harmless(&error),
    }
    let scope = Scope::from_wire(text);
    stands_for_itself(&scope);
    if let Ok(name) = text.parse::<KeyName>() {
        assert!(name.as_str() == text && (1..=16).contains(&text.len()));
        assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
    }
}

fn stands_for_itself(scope: &Scope) {
    let text = scope.to_string();
    assert!(text.bytes().all(|b| b.is_ascii_graphic() || b == b' '));
    assert_eq!(Scope::from_wire(&text), *scope);
    assert!(scope.is_within(scope) && scope.without_power().is_within(scope));
    assert!(!scope.without_power().manages_keys());
    assert_eq!(scope.written_out(), *scope);
    let json = serde_json::to_string(scope).unwrap();
    assert_eq!(serde_json::from_str::<Scope>(&json).unwrap(), *scope);
}

// The agent.

/// Signs, and remembers what.
#[derive(Debug)]
struct Recorder {
    signer: LocalSigner<Frozen>,
    signed: Arc<Mutex<Vec<Purpose>>>,
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

impl Signer for Recorder {
    fn public_key(&self) -> &PublicKey {
        self.signer.public_key()
    }

    fn sign(&self, purpose: &Purpose) -> Result<Signed, signer::Error> {
        self.signed.lock().unwrap().push(purpose.clone());
        self.signer.sign(purpose)
    }
}

/// Speaks to no exchange.
#[derive(Debug)]
struct Nowhere;

impl Logins for Nowhere {
    fn scope(&self, _: &KeyName, asked: Option<&str>) -> Result<String, Denial> {
        let scope = asked.unwrap_or("trade:read").parse::<Scope>();
        let scope = scope.map_err(|_| Denial::new(Code::Malformed, "that is no scope"))?;
        Ok(scope.to_string())
    }

    fn log_in(&self, _: &KeyName, _: &dyn Signer, _: &str, _: &str) -> Result<Granted, Denial> {
        Err(Denial::new(Code::Login, "there is no exchange"))
    }
}

impl Ledger for Nowhere {
    fn record(&self, _: Decision) -> Result<(), Unwritable> {
        Ok(())
    }
}

/// The keys that the agent under test always has, and what each may be asked for.
const POLICIES: [(&str, &str); 3] = [
    ("plain", ""),
    (
        "rest",
        "rest = [\"GET /api/v2/private/get_positions\", \"POST /api/v2/private/buy\"]",
    ),
    ("tokens", "operations = [\"token\"]"),
];
/// The key whose policy is the first line.
const OWN: &str = "own";

/// A policy, as its text says it: for what is judged by it, not by the type that is under test.
#[derive(Clone, Debug, Default, PartialEq)]
struct Said(toml::Table);

impl Said {
    /// Reads what stands after `own = `, if that is a policy that a configuration may have.
    fn read(line: &[u8]) -> Option<(Self, Policy)> {
        let line = str::from_utf8(line).ok()?;
        let said: toml::Table = format!("{OWN} = {line}").parse().ok()?;
        let said = Self(said.get(OWN)?.as_table()?.clone());
        let policy: Policy = toml::from_str(&said.0.to_string()).ok()?;
        policy.check().ok()?;
        Some((said, policy))
    }

    fn of(key: &str, own: Option<&Self>) -> Self {
        let fixed = POLICIES.iter().find(|(name, _)| *name == key);
        match fixed {
            Some((_, text)) => Self(text.parse().unwrap()),
            None => own.filter(|_| key == OWN).unwrap().clone(),
        }
    }

    fn lists(&self, field: &str, word: &str) -> Option<bool> {
        let words = self.0.get(field)?.as_array().unwrap();
        Some(words.iter().any(|said| said.as_str() == Some(word)))
    }

    fn allows(&self, operation: &str) -> bool {
        let unsaid = || operation != "rest" || self.0.contains_key("rest");
        self.lists("operations", operation).unwrap_or_else(unsaid)
    }

    fn wears_out(&self) -> bool {
        ["uses", "rate", "lifetime"]
            .iter()
            .any(|limit| self.0.contains_key(*limit))
    }

    /// How often it may sign before it is forgotten.
    fn uses(&self) -> Option<usize> {
        let uses = self.0.get("uses")?.as_integer()?;
        usize::try_from(uses).ok()
    }
}

/// An agent in a thread of its own, and a connection to it.
struct Running {
    /// The policy of one more key, and how often that key has signed.
    own: Option<Said>,
    own_signed: usize,
    signed: Arc<Mutex<Vec<Purpose>>>,
    path: std::path::PathBuf,
    _dir: tempfile::TempDir,
    connection: Option<BufReader<UnixStream>>,
    stop: UnixStream,
    serving: Option<thread::JoinHandle<()>>,
}

impl Running {
    fn start(own: Option<(Said, Policy)>) -> Self {
        let signed: Arc<Mutex<Vec<Purpose>>> = Arc::default();
        let held = |(name, policy): (&str, Policy)| Held {
            identity: Identity {
                name: name.parse().unwrap(),
                client_id: "wcVoQGam".into(),
                network: "test".into(),
                endpoint: None,
            },
            signer: Arc::new(Recorder {
                signer: LocalSigner::new(PrivateKey::read(SEED_KEY, None).unwrap(), Frozen),
                signed: Arc::clone(&signed),
            }),
            policy,
        };
        let (own, policy) = own.unzip();
        let fixed = POLICIES.map(|(name, policy)| (name, toml::from_str(policy).unwrap()));
        let policies = fixed.into_iter().chain(policy.map(|policy| (OWN, policy)));
        let held = policies.map(held).collect();
        let agent = Agent::new(held, Box::new(Nowhere), Box::new(Nowhere), [7; 32]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let (stop, bell) = UnixStream::pair().unwrap();
        let serving = thread::spawn(move || {
            serve(&listener, &Arc::new(agent), Limits::default(), &bell).unwrap();
        });
        Self {
            own,
            own_signed: 0,
            signed,
            path,
            _dir: dir,
            connection: None,
            stop,
            serving: Some(serving),
        }
    }

    /// Sends one line and returns the answer; nothing when the agent hung up.
    fn ask(&mut self, line: &[u8]) -> Option<String> {
        let connection = match self.connection.as_mut() {
            Some(connection) => connection,
            None => {
                let stream = UnixStream::connect(&self.path).unwrap();
                self.connection.insert(BufReader::new(stream))
            }
        };
        // An agent that hangs up on a long line does not read all of it.
        let _ = connection.get_mut().write_all(&[line, b"\n"].concat());
        let mut answer = String::new();
        match connection.read_line(&mut answer) {
            Ok(1..) => Some(answer),
            _ => {
                self.connection = None;
                None
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.connection = None;
        let _ = self.stop.write_all(b"x");
        // There are thousands of them, one after the other.
        let ended = self.serving.take().map(thread::JoinHandle::join);
        assert!(!matches!(ended, Some(Err(_))) || thread::panicking());
    }
}

thread_local! {
    static AGENT: RefCell<Option<Running>> = const { RefCell::new(None) };
}

/// Lines to an agent. Whatever is signed has exactly the form that the policy allowed. The first
/// line may be the policy of one more key, as an inline table: `{ rest = ["GET ..."], uses = 3 }`.
pub fn agent(data: &[u8]) {
    let mut lines = data.split(|b| *b == b'\n').peekable();
    let own = lines.peek().and_then(|line| Said::read(line));
    if own.is_some() {
        lines.next();
    }
    AGENT.with_borrow_mut(|slot| {
        // The one that runs will do, where nothing of it is used up.
        let own = own.as_ref();
        let same = |running: &Running| {
            running.own.as_ref() == own.map(|(said, _)| said)
                && own.is_none_or(|(said, _)| !said.wears_out())
        };
        if !slot.as_ref().is_some_and(same) {
            *slot = None;
        }
        for line in lines {
            let agent = slot.get_or_insert_with(|| Running::start(own.cloned()));
            let answer = agent.ask(line);
            let signed = std::mem::take(&mut *agent.signed.lock().unwrap());
            let Some(answer) = answer else {
                assert!(signed.is_empty() && line.len() > 64 * 1024);
                continue;
            };
            let body = answer.strip_suffix('\n').unwrap();
            assert!(body.bytes().all(|b| b == b' ' || b.is_ascii_graphic()));
            let answer: Value = serde_json::from_str(body).unwrap();
            let ok = answer["ok"].as_bool().unwrap();
            assert!(ok || answer["error"]["code"].is_string());
            assert!(ok || signed.is_empty());
            if line.len() > 64 * 1024 {
                assert_eq!(answer["error"]["code"], "too_long");
                agent.connection = None;
            } else if ok {
                is_allowed(line, &signed, agent);
                put_back(slot, line);
            }
        }
    });
}

/// A line that was answered with a result says in the open what was signed for it.
fn is_allowed(line: &[u8], signed: &[Purpose], agent: &mut Running) {
    let line: Value = serde_json::from_slice(line).unwrap();
    let text = |field: &str| line.get(field).and_then(Value::as_str).unwrap_or_default();
    let (op, key) = (text("op"), text("key"));
    let said = || Said::of(key, agent.own.as_ref());
    match (op, signed) {
        ("auth", [Purpose::Login { data }]) => {
            assert!(data.is_empty() && said().allows(op), "{line}");
        }
        ("rest", [Purpose::Request { method, uri, body }]) => {
            assert_eq!(
                (method.as_str(), uri.as_str()),
                (text("method"), text("path"))
            );
            assert!(body == text("body") && said().allows(op), "{line}");
            is_listed(&said(), method, uri, body);
        }
        ("list" | "status" | "lock" | "unlock" | "shutdown", []) => {}
        _ => panic!("{line} {signed:?}"),
    }
    if key == OWN && matches!(op, "auth" | "rest") {
        agent.own_signed += 1;
        let said = Said::of(key, agent.own.as_ref());
        assert!(said.uses().is_none_or(|most| agent.own_signed <= most));
    }
    for foreign in ["data", "nonce", "timestamp"] {
        assert!(line.get(foreign).is_none(), "{line}");
    }
}

/// One of the methods that a policy lists, said in one way.
fn is_listed(said: &Said, method: &str, uri: &str, body: &str) {
    let path = uri.split('?').next().unwrap();
    let listed = said.lists("rest", &format!("{method} {path}"));
    assert_eq!(listed, Some(true), "{method} {uri}");
    let name = path.strip_prefix("/api/v2/private/").unwrap();
    assert!(!NEVER.iter().any(|part| name.contains(part)), "{uri}");
    let plain = |name: &str| {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        name.bytes().all(fits) && name != "method"
    };
    assert!(!name.is_empty() && plain(name), "{uri}");
    match method {
        "GET" => {
            let rest = uri.strip_prefix(path).unwrap();
            assert!(body.is_empty(), "{uri}");
            let harmless = |b: u8| b.is_ascii_alphanumeric() || b"?&=_-.:,".contains(&b);
            assert!(
                rest.bytes().all(harmless) && rest.matches('?').count() <= 1,
                "{uri}"
            );
            let mut names: Vec<&str> = rest
                .trim_start_matches('?')
                .split('&')
                .filter_map(|pair| Some(pair.split_once('=')?.0))
                .collect();
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert!(names.len() == all && names.into_iter().all(plain), "{uri}");
        }
        "POST" => {
            assert_eq!(uri, path);
            if !body.is_empty() {
                let value: Value = serde_json::from_str(body).unwrap();
                assert_eq!(value["method"], format!("private/{name}"), "{body}");
                assert_eq!(value["jsonrpc"], "2.0", "{body}");
                assert!(!body.contains('\\'), "{body}");
                // Without escapes, a name that is there twice is the only way to lose a quote.
                let quotes = |text: &str| text.matches('"').count();
                assert_eq!(quotes(&value.to_string()), quotes(body), "{body}");
                assert!(names_in(&value["params"]).into_iter().all(plain), "{body}");
            }
        }
        _ => panic!("{method}"),
    }
}

/// The names of all objects in a JSON value.
fn names_in(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(items) => items.iter().flat_map(names_in).collect(),
        Value::Object(fields) => {
            let inner = fields.values().flat_map(names_in);
            fields.keys().map(String::as_str).chain(inner).collect()
        }
        _ => Vec::new(),
    }
}

/// Undoes what the next line should not meet.
fn put_back(slot: &mut Option<Running>, line: &[u8]) {
    let line: Value = serde_json::from_slice(line).unwrap();
    match line["op"].as_str().unwrap() {
        "lock" => {
            let agent = slot.as_mut().unwrap();
            let refused = agent.ask(br#"{"op":"auth","key":"plain"}"#).unwrap();
            assert!(refused.contains("locked") && agent.signed.lock().unwrap().is_empty());
            let unlock = serde_json::json!({"op": "unlock", "passphrase": line["passphrase"]});
            let answer = agent.ask(unlock.to_string().as_bytes()).unwrap();
            assert!(answer.contains("true"), "{answer}");
        }
        "shutdown" => *slot = None,
        _ => {}
    }
}

/// Names that no policy may list, in the words of the protocol's documentation.
const NEVER: [&str; 8] = [
    "withdraw",
    "transfer",
    "api_key",
    "subaccount",
    "address",
    "password",
    "deposit",
    "token",
];

/// Policies of keys, as `config.toml` has them under `agent.keys`.
pub fn policy(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    let Ok(policies) = toml::from_str::<BTreeMap<KeyName, Policy>>(text) else {
        return;
    };
    for policy in policies.values() {
        if let Err(error) = policy.check() {
            is_harmless(&error);
        }
        for method in &policy.rest {
            let (verb, path) = method.as_str().split_once(' ').unwrap();
            assert!(matches!(verb, "GET" | "POST"), "{method:?}");
            let name = path.strip_prefix("/api/v2/private/").unwrap();
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            assert!(!name.is_empty() && name.bytes().all(plain), "{method:?}");
            assert!(!NEVER.iter().any(|part| name.contains(part)), "{method:?}");
        }
        if let Some(rate) = policy.rate {
            assert!((1..=1_000_000).contains(&rate.count));
        }
    }
}

/// The fields of `config.toml`, of its `agent`, and of a key there.
const FIELDS: [&str; 14] = [
    "network",
    "endpoint",
    "ca_file",
    "timeout",
    "require_locked_memory",
    "passphrase_file",
    "passphrase_command",
    "admin",
    "admin_client_id",
    "admin_secret_file",
    "admin_secret_command",
    "totp_command",
    "totp_seed_file",
    "agent",
];
const AGENT_FIELDS: [&str; 4] = ["line", "idle", "total", "keys"];
const KEY_FIELDS: [&str; 6] = ["operations", "rest", "scope", "rate", "lifetime", "uses"];

/// What no error shows, as a text and as a number.
const CANARY: &str = "tr0ub4dor";
const CANARY_NUMBER: i64 = 7_316_498_250;

/// A whole `config.toml`. What is taken has known fields only; an error is a line that a terminal
/// can be shown, with no value in it, whatever the field is called.
pub fn config(data: &[u8]) {
    let taken = Config::parse(data)
        .map_err(|error| is_told_well(&error))
        .is_ok();
    let Ok(text) = str::from_utf8(data) else {
        return assert!(!taken);
    };
    let Ok(table) = text.parse::<toml::Table>() else {
        assert!(!taken);
        return shows_no_torn_value(text);
    };
    if taken {
        has_only(&table, &FIELDS);
        let nothing = toml::Table::new();
        let inside = |table: &toml::Table, field: &str| match table.get(field) {
            Some(value) => value.as_table().unwrap().clone(),
            None => nothing.clone(),
        };
        let agent = inside(&table, "agent");
        has_only(&agent, &AGENT_FIELDS);
        for (name, policy) in inside(&agent, "keys") {
            assert!(name.parse::<KeyName>().is_ok(), "{name:?}");
            has_only(policy.as_table().unwrap(), &KEY_FIELDS);
        }
    }
    // Each value in turn is one that somebody would not want to read in a log.
    for n in 0..32 {
        for canary in [
            toml::Value::from(CANARY),
            CANARY_NUMBER.into(),
            vec![CANARY].into(),
            vec![CANARY_NUMBER].into(),
        ] {
            let mut table = table.clone();
            if !with_value(&mut table, &mut { n }, &canary) {
                return;
            }
            if let Err(error) = Config::parse(table.to_string().as_bytes()) {
                shows_no_canary(&error);
            }
        }
    }
}

fn has_only(table: &toml::Table, known: &[&str]) {
    let strange = table.keys().find(|field| !known.contains(&field.as_str()));
    assert_eq!(strange, None);
}

fn is_told_well(error: &str) {
    let visible = |b: u8| b == b' ' || b.is_ascii_graphic();
    assert!(
        error.bytes().all(visible) && error.len() < 1024,
        "{error:?}"
    );
}

fn shows_no_canary(error: &str) {
    is_told_well(error);
    let shown = error.contains(CANARY) || error.contains(&CANARY_NUMBER.to_string());
    assert!(!shown, "{error}");
}

/// Puts another value in the place of the `n`th, those of tables within tables included.
fn with_value(table: &mut toml::Table, n: &mut usize, value: &toml::Value) -> bool {
    for (_, old) in table.iter_mut() {
        if *n == 0 {
            *old = value.clone();
            return true;
        }
        *n -= 1;
        if let toml::Value::Table(inner) = old
            && with_value(inner, n, value)
        {
            return true;
        }
    }
    false
}

/// What is no TOML: the same with a canary after an equals sign, where that is none either.
fn shows_no_torn_value(text: &str) {
    for (at, _) in text.match_indices('=').take(8) {
        let (before, after) = text.split_at(at + 1);
        for value in [CANARY, "\"tr0ub4dor\" #", "'tr0ub4dor", "7316498250"] {
            let torn = format!("{before}{value}{after}");
            if let Err(error) = Config::parse(torn.as_bytes())
                && torn.parse::<toml::Table>().is_err()
            {
                shows_no_canary(&error);
            }
        }
    }
}

/// A declared fleet. What is read is whole; an error says where, and nothing that was there.
pub fn fleet(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    let fleet = match Fleet::parse(text) {
        Ok(fleet) => fleet,
        Err(error) => {
            is_harmless(&error);
            assert!(error.to_string().len() < 2048);
            return;
        }
    };
    assert!(!fleet.keys.is_empty());
    assert!(fleet.keys.is_sorted_by(|a, b| a.name < b.name));
    let lines = text.lines().count();
    for key in &fleet.keys {
        assert!((1..=lines).contains(&key.line));
        assert!(key.whitelist.is_sorted_by(|a, b| a < b));
        let plain = |f: &derikey::exchange::Feature| f.as_str() != "none";
        assert!(key.features.is_sorted_by(|a, b| a < b) && key.features.iter().all(plain));
        stands_for_itself(&key.scope);
        // It can be journalled as it is.
        let spec = key.specification(Algorithm::Ed25519);
        let written = serde_json::to_string(&spec).unwrap();
        assert_eq!(
            serde_json::from_str::<Specification>(&written).unwrap(),
            spec
        );
    }
    let settled = fleet.settle::<derikey::fleet::Error>(|key| {
        Ok(match &key.site {
            Site::On(network) => network.clone(),
            Site::Unsaid | Site::Custom => Network::Sandbox,
        })
    });
    if let Ok(settled) = settled {
        let mut labels: Vec<(String, &KeyName)> = settled
            .iter()
            .map(|(network, key)| (network.to_string(), &key.label))
            .collect();
        labels.sort();
        assert!(labels.is_sorted_by(|a, b| a < b), "a label twice");
    }
}

// Files.

/// Whatever is read is written so that it is read as the same again.
fn is_stable<T: DeserializeOwned + Serialize>(
    read: impl Fn(&str) -> Option<T>,
    write: impl Fn(&T) -> String,
    data: &[u8],
) {
    let Some(first) = str::from_utf8(data).ok().and_then(&read) else {
        return;
    };
    let written = write(&first);
    let second = read(&written).unwrap_or_else(|| panic!("{written}"));
    assert_eq!(write(&second), written);
}

/// A journal entry.
pub fn journal(data: &[u8]) {
    let read = |text: &str| serde_json::from_str::<Intent>(text).ok();
    is_stable(read, |intent| serde_json::to_string(intent).unwrap(), data);
}

/// A `key.toml`.
pub fn record(data: &[u8]) {
    let read = |text: &str| toml::from_str::<Record>(text).ok();
    is_stable(read, |record| toml::to_string(record).unwrap(), data);
}

/// An audit log. Each line of it is told as it is, whether it holds or not; and whatever the file
/// ends with, a line that is added stands by itself and is chained to the one before.
pub fn audit(data: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let entry = || Entry::new(Moment(UNIX_EPOCH), "generate", "done");
    // Made by the store itself, so that its mode is right.
    store.audit(entry()).unwrap();
    fs::write(store.root().join("audit.jsonl"), data).unwrap();
    let log = || {
        let mut log = Vec::new();
        store.audit_log(|link| log.push(link)).unwrap();
        log
    };
    let before = log();
    let lines = data.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    assert_eq!(before.len(), lines.clone().count());
    for (link, line) in before.iter().zip(lines) {
        assert_eq!(link.text, String::from_utf8_lossy(line));
    }
    store.audit(entry()).unwrap();
    let after = log();
    let (last, others) = after.split_last().unwrap();
    assert!(last.holds, "{last:?}");
    assert_eq!(format!("{others:?}"), format!("{before:?}"));
}
