//! What goes over the wire, message by message, and how calls behave when answers go wrong.

use std::{
    collections::{BTreeSet, VecDeque},
    error::Error as _,
    fs,
    future::Future,
    sync::Mutex,
    time::Duration,
};

use derikey::{
    exchange::{
        self, AccessLog, Again, ApiKey, Authority, Challenge, ChangeApiKeyName,
        ChangeScopeInApiKey, ClientId, CreateApiKey, Credential, DisableApiKey, EditApiKey,
        EnableApiKey, Error, Exchange, Feature, GetAccessLog, GetTime, Incoming, KeyId, Kind,
        ListApiKeys, Login, LoginScope, Method, Network, Outcome, Outgoing, Ping, Refusal,
        RemoveApiKey, ResetApiKey, Scope, SecondFactor, Session, SessionName, Status, Transport,
        Unattended, Whitelisted,
    },
    key::{KeyName, Message, PrivateKey, PublicKey, Purpose, Signature, Stamp, Timestamp},
    secret::{AccessToken, ClientSecret, OneTimeCode, RefreshToken},
    signer::{self, LocalSigner, Stamper},
};
use serde::Serialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::support::data;

/// The official example's token; in no message may it turn up by itself.
const TOKEN: &str = "1582628593469.1MbQ-J_4.CBP-OqOwm_FBdMYj4cRK2dMXyHPfBtXGpzLxhWg31nHu3H_Q60FpE5_vqUBEQGSiMrIGzw3nC37NMb9d1tpBNqBOM_Ql9pXOmgtV9Yj3Pq1c6BqC6dU6eTxHMFO67x8GpJxqw_QcKP5IepwGBD-gfKSHfAv9AEnLJkNu3JkMJBdLToY1lrBnuedF3dU_uARm";
/// The challenge of the recorded messages.
const CHALLENGE: &str = "+Di4SKN9VykrSoHlZO2KF3LEyEZF4ih9CZXVuudQiKQ=";
/// The key of the documentation's example, as it stands in a request.
const EXAMPLE_KEY: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAM7FWhKquNqLmTOV4hfYT5r3AjrYiORTT6Tn5HIfFNV8=\n-----END PUBLIC KEY-----";
const EXAMPLE_PRINT: &str = "9c:6d:c9:02:fd:9f:75:6e:14:bb:71:c5:74:95:86:c8";

fn wire(name: &str) -> String {
    fs::read_to_string(data("wire").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn names(end: &str) -> BTreeSet<String> {
    let files = fs::read_dir(data("wire")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(end)).collect()
}

fn scope(text: &str) -> Scope {
    text.parse().unwrap()
}

fn wait<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

// What goes out.

fn client_id() -> ClientId {
    "wcVoQGam".parse().unwrap()
}

/// Moments that a test chooses: the documentation's, and others after it.
#[derive(Debug, Default)]
struct Ticking(Mutex<u64>);

impl Stamper for Ticking {
    fn stamp(&self) -> Result<Stamp, signer::Error> {
        let mut ticks = self.0.lock().unwrap();
        *ticks += 1;
        let nonce = match *ticks {
            1 => "1iqt2wls".to_owned(),
            n => format!("nonce{n}"),
        };
        Ok(Stamp {
            timestamp: Timestamp(1_576_074_318_999 + *ticks),
            nonce: nonce.parse().unwrap(),
        })
    }
}

fn rfc8032_signer() -> LocalSigner<Ticking> {
    let pem = fs::read(data("keys/ed25519.rfc8032.pem")).unwrap();
    LocalSigner::new(PrivateKey::read(&pem, None).unwrap(), Ticking::default())
}

/// The recorded number of a request, so that the rest can be compared.
fn id_of(recorded: &str) -> u64 {
    let value: Value = serde_json::from_str(recorded).unwrap();
    value["id"].as_u64().unwrap()
}

/// A request as it would go out in place of the recorded one.
fn encoded<M: Method>(recorded: &str, method: &M) -> String {
    let bytes = exchange::encode(id_of(recorded), method).unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Puts areas into one order: the exchange gives them no meaning.
fn sorted_scopes(mut message: Value) -> Value {
    for field in ["max_scope", "scope"] {
        if let Some(text) = message["params"][field].as_str() {
            let mut words: Vec<&str> = text.split(' ').collect();
            words.sort_unstable();
            message["params"][field] = words.join(" ").into();
        }
    }
    message
}

#[track_caller]
fn same_bytes<M: Method>(name: &str, method: &M) {
    let recorded = wire(name);
    assert_eq!(encoded(&recorded, method), recorded, "{name}");
}

#[track_caller]
fn same_values<M: Method>(name: &str, adapt: impl Fn(&mut Value), method: &M) {
    let recorded = wire(name);
    let ours: Value = serde_json::from_str(&encoded(&recorded, method)).unwrap();
    let mut theirs: Value = serde_json::from_str(&recorded).unwrap();
    adapt(&mut theirs);
    assert_eq!(sorted_scopes(ours), sorted_scopes(theirs), "{name}");
}

const AS_IT_IS: fn(&mut Value) = |_| {};

#[test]
fn requests_without_choices_are_the_recorded_bytes() {
    same_bytes("list_api_keys.request.json", &ListApiKeys {});
    same_bytes("get_time.request.json", &GetTime {});
    same_bytes("test.request.json", &Ping {});
    same_bytes("status.request.json", &Status {});
    same_bytes(
        "enable_api_key.request.json",
        &EnableApiKey { id: KeyId(3) },
    );
    same_bytes(
        "disable_api_key.request.json",
        &DisableApiKey { id: KeyId(3) },
    );
    same_bytes(
        "remove_api_key.request.json",
        &RemoveApiKey { id: KeyId(2) },
    );
    same_bytes("reset_api_key.request.json", &ResetApiKey { id: KeyId(3) });
    let log = GetAccessLog {
        offset: 0,
        count: 3,
    };
    same_bytes("get_access_log.request.json", &log);
}

#[test]
fn requests_with_choices_hold_the_recorded_values() {
    let id = KeyId(3);
    let name: KeyName = "KeyName3".parse().unwrap();
    let rename = ChangeApiKeyName {
        id,
        name: name.as_str(),
    };
    same_values("change_api_key_name.request.json", AS_IT_IS, &rename);
    let max_scope = scope("account:read_write wallet:read_write block_trade:read trade:read_write");
    let rescope = ChangeScopeInApiKey {
        id,
        max_scope: &max_scope,
    };
    same_values("change_scope_in_api_key.request.json", AS_IT_IS, &rescope);
}

#[test]
fn create_api_key_holds_the_recorded_values() {
    // The official example has a name with blanks, which the exchange itself does not keep.
    let name: KeyName = "Public_key_1".parse().unwrap();
    let max_scope = scope("account:read trade:read block_trade:read_write wallet:none");
    let create = CreateApiKey {
        max_scope: &max_scope,
        name: name.as_str(),
        public_key: EXAMPLE_KEY,
        enabled_features: &[],
    };
    let rename = |message: &mut Value| message["params"]["name"] = "Public_key_1".into();
    same_values("create_api_key.request.json", rename, &create);

    let name: KeyName = "bot_1".parse().unwrap();
    let max_scope =
        scope("account:read block_rfq:none block_trade:none custody:none trade:read wallet:none");
    let features = ["restricted_block_trades", "block_trade_approval"];
    let features = features.map(|f| f.parse::<Feature>().unwrap());
    let create = CreateApiKey {
        max_scope: &max_scope,
        name: name.as_str(),
        public_key: EXAMPLE_KEY,
        enabled_features: &features,
    };
    same_values("create_api_key.features.request.json", AS_IT_IS, &create);

    let name: KeyName = "bot_rsa".parse().unwrap();
    let pem = fs::read(data("keys/rsa2048.openssl.pub.pem")).unwrap();
    let pem = PublicKey::read(&pem).unwrap().to_pem();
    let create = CreateApiKey {
        max_scope: &max_scope,
        name: name.as_str(),
        public_key: pem.trim_end(),
        enabled_features: &[],
    };
    same_values("create_api_key.rsa.request.json", AS_IT_IS, &create);
}

#[test]
fn edit_api_key_sends_every_documented_parameter() {
    let name: KeyName = "bot_1".parse().unwrap();
    let max_scope =
        scope("account:read block_rfq:none block_trade:none custody:none trade:read wallet:none");
    let features = ["restricted_block_trades".parse::<Feature>().unwrap()];
    let whitelist = ["192.0.2.1", "198.51.100.7"].map(|a| a.parse::<Whitelisted>().unwrap());
    let mut edit = EditApiKey {
        id: KeyId(5),
        max_scope: &max_scope,
        name: name.as_str(),
        enabled: true,
        enabled_features: &features,
        ip_whitelist: &whitelist,
    };
    same_values("edit_api_key.full.request.json", AS_IT_IS, &edit);
    edit.enabled_features = &[];
    edit.ip_whitelist = &[];
    // Empty lists are sent: what is left out might be kept.
    same_values("edit_api_key.open.request.json", AS_IT_IS, &edit);

    let name: KeyName = "NewKeyName".parse().unwrap();
    let max_scope = scope("account:read_write wallet:read_write block_trade:read trade:read_write");
    let edit = EditApiKey {
        id: KeyId(3),
        max_scope: &max_scope,
        name: name.as_str(),
        ..edit
    };
    let complete = |message: &mut Value| {
        message["params"]["enabled"] = true.into();
        message["params"]["enabled_features"] = json!([]);
        message["params"]["ip_whitelist"] = json!([]);
    };
    same_values("edit_api_key.request.json", complete, &edit);
}

#[test]
fn the_three_grants_of_a_login_hold_the_recorded_values() {
    let id = client_id();
    let signer = rfc8032_signer();
    let login = Login::signed_by(&signer, &id, String::new(), LoginScope::default()).unwrap();
    same_values("auth.client_signature.request.json", AS_IT_IS, &login);

    let areas =
        scope("account:read block_rfq:none block_trade:none custody:none trade:none wallet:none");
    let session: SessionName = "derikey".parse().unwrap();
    let asked = LoginScope {
        areas: Some(&areas),
        session: Some(&session),
    };
    let login = Login::signed_by(&rfc8032_signer(), &id, "hello".into(), asked).unwrap();
    let ours_only = |message: &mut Value| {
        // The library asks for no lifetime and has no use for an echo.
        let params = message["params"].as_object_mut().unwrap();
        params.remove("state").unwrap();
        let scope = params["scope"].as_str().unwrap();
        params["scope"] = scope.replace(" expires:900", "").into();
    };
    let name = "auth.client_signature.scoped.request.json";
    same_values(name, ours_only, &login);

    let recorded: Value = serde_json::from_str(&wire("auth.refresh_token.request.json")).unwrap();
    let token = recorded["params"]["refresh_token"].as_str().unwrap();
    let token = RefreshToken::new(token.into());
    let login = Login::RefreshToken {
        refresh_token: &token,
    };
    same_bytes("auth.refresh_token.request.json", &login);

    let id: ClientId = "fo7WAPRm4P".parse().unwrap();
    let secret = ClientSecret::new("W0H6FJW4IRPZ1MOQ8FP6KMC5RZDUUKXS".into());
    let login = Login::ClientCredentials {
        client_id: &id,
        client_secret: &secret,
        scope: LoginScope::default(),
    };
    same_bytes("auth.client_credentials.request.json", &login);
    assert!(!format!("{login:?}").contains("W0H6FJW4"), "{login:?}");
}

#[test]
fn a_login_for_less_says_none_for_what_it_does_not_mention() {
    let id = client_id();
    let areas = scope("trade:read");
    let asked = LoginScope {
        areas: Some(&areas),
        session: None,
    };
    let login = Login::signed_by(&rfc8032_signer(), &id, String::new(), asked).unwrap();
    let body = exchange::encode(1, &login).unwrap();
    let sent: Value = serde_json::from_slice(&body).unwrap();
    let sent: BTreeSet<&str> = sent["params"]["scope"]
        .as_str()
        .unwrap()
        .split(' ')
        .collect();
    // Deribit, "Creating an API key": what is not mentioned keeps the key's own level.
    for area in [
        "account:none",
        "trade:read",
        "wallet:none",
        "block_trade:none",
    ] {
        assert!(sent.contains(area), "{area} {sent:?}");
    }
}

#[test]
fn a_login_with_a_secret_sends_its_signature_only() {
    let id: ClientId = "AMANDA".parse().unwrap();
    let secret = ClientSecret::new("AMANDASECRECT".into());
    let stamp = Ticking::default().stamp().unwrap();
    let login = Login::with_secret(&secret, &id, &stamp, LoginScope::default()).unwrap();
    let body = exchange::encode(1, &login).unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    let sent: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        sent["params"]["signature"],
        "56590594f97921b09b18f166befe0d1319b198bbcdad7ca73382de2f88fe9aa1"
    );
    assert!(!body.contains("AMANDASECRECT"));
}

#[test]
fn every_recorded_request_is_built_somewhere_or_is_not_ours() {
    let ours = include_str!("wire.rs");
    // The library neither forks tokens, nor logs out, nor asks for failures.
    let not_ours = [
        "exchange_token.request.json",
        "fork_token.request.json",
        "logout.request.json",
        "test.exception.request.json",
    ];
    for name in names(".request.json") {
        let built = ours.matches(&format!("{name:?}")).count();
        assert!(built > 0 || not_ours.contains(&name.as_str()), "{name}");
    }
}

#[test]
fn a_request_above_32_kb_is_not_sent() {
    let name: KeyName = "bot".parse().unwrap();
    let none = Scope::nothing();
    let large = "A".repeat(32_001);
    let create = CreateApiKey {
        max_scope: &none,
        name: name.as_str(),
        public_key: &large,
        enabled_features: &[],
    };
    let exchange = scripted(Network::Test, []);
    let error = wait(exchange.call(bearer(&token()), &create)).unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
    assert!(exchange.transport().sent().is_empty());
}

// The scripted transport.

/// What the other end does next.
enum Step {
    /// Answers, in the name of the request that is being answered.
    Answer(String),
    /// Answers with exactly these bytes and this status.
    Raw(u16, String),
    /// Does not answer.
    Fail(Error),
}

/// A request as it went out.
#[derive(Clone, Debug)]
struct Sent {
    method: &'static str,
    body: String,
    authorization: Option<String>,
}

impl Sent {
    fn value(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn params(&self) -> Value {
        self.value()["params"].clone()
    }

    fn code(&self) -> Option<String> {
        let code = self.params()["authorization_data"].clone();
        code.as_str().map(str::to_owned)
    }

    fn challenge(&self) -> Option<String> {
        let text = self.params()["challenge"].clone();
        text.as_str().map(str::to_owned)
    }

    /// The parameters without the answer to a challenge.
    fn original(&self) -> Value {
        let mut params = self.params();
        let fields = params.as_object_mut().unwrap();
        fields.shift_remove("authorization_data");
        fields.shift_remove("challenge");
        params
    }
}

/// Follows a script, and remembers what was asked of it.
#[derive(Default)]
struct Script {
    steps: Mutex<VecDeque<Step>>,
    sent: Mutex<Vec<Sent>>,
    pauses: Mutex<Vec<Duration>>,
}

impl Script {
    fn sent(&self) -> Vec<Sent> {
        self.sent.lock().unwrap().clone()
    }

    fn pauses(&self) -> Vec<Duration> {
        self.pauses.lock().unwrap().clone()
    }

    fn codes(&self) -> Vec<String> {
        self.sent().iter().filter_map(Sent::code).collect()
    }

    fn left(&self) -> usize {
        self.steps.lock().unwrap().len()
    }

    fn play(&self, request: &Outgoing) -> Result<Incoming, Error> {
        let body = String::from_utf8(request.body.to_vec()).unwrap();
        let id = id_of(&body);
        self.sent.lock().unwrap().push(Sent {
            method: request.method,
            body,
            authorization: request.authorization.as_deref().cloned(),
        });
        let step = self.steps.lock().unwrap().pop_front();
        let (status, body) = match step.expect("one call more than the script foresees") {
            Step::Answer(text) => (200, in_the_name_of(&text, id)),
            Step::Raw(status, text) => (status, text.replace("\"ID\"", &id.to_string())),
            Step::Fail(error) => return Err(error),
        };
        Ok(Incoming {
            status,
            body: Zeroizing::new(body.into_bytes()),
        })
    }
}

impl Transport for Script {
    async fn post(&self, request: Outgoing) -> Result<Incoming, Error> {
        self.play(&request)
    }

    async fn pause(&self, time: Duration) {
        self.pauses.lock().unwrap().push(time);
    }
}

/// Gives a recorded reply the number of a request, if it has one.
fn in_the_name_of(text: &str, id: u64) -> String {
    let begin = "{\"jsonrpc\":\"2.0\",\"id\":";
    match text.strip_prefix(begin) {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit()) => {
            let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{begin}{id}{rest}")
        }
        _ => text.to_owned(),
    }
}

fn scripted(network: Network, steps: impl IntoIterator<Item = Step>) -> Exchange<Script> {
    let script = Script {
        steps: Mutex::new(steps.into_iter().collect()),
        ..Script::default()
    };
    Exchange::new(script, network)
}

fn answer(name: &str) -> Step {
    Step::Answer(wire(name))
}

fn token() -> AccessToken {
    AccessToken::new(TOKEN.into())
}

fn bearer(token: &AccessToken) -> Authority<'_> {
    Authority::Bearer(token)
}

fn custom(url: &str) -> Network {
    Network::Custom(url.parse().unwrap())
}

/// The network that a recorded reply can come from.
fn home_of(reply: &str) -> Network {
    if reply.contains("\"testnet\":false") {
        Network::Production
    } else {
        Network::Test
    }
}

/// Decodes a recorded reply as the answer to a method.
fn decode<M: Method>(name: &str, method: &M) -> Result<Outcome<M::Reply>, Error> {
    let reply = wire(name);
    let exchange = scripted(home_of(&reply), [Step::Answer(reply)]);
    wait(exchange.call(bearer(&token()), method))
}

#[track_caller]
fn done<M: Method>(name: &str, method: &M) -> M::Reply {
    match decode(name, method) {
        Ok(Outcome::Done(reply)) => reply,
        Ok(Outcome::Challenged(_)) => panic!("{name} is taken for a challenge"),
        Err(error) => panic!("{name}: {error}"),
    }
}

// What comes back.

/// What `client_secret` has to be read as.
#[derive(Debug)]
enum Shown {
    Print(&'static str),
    Secret(&'static str),
    Nothing,
}

/// What a reply says of a key.
struct Expected {
    id: u64,
    client_id: &'static str,
    name: &'static str,
    max_scope: &'static str,
    enabled: Option<bool>,
    public_key: Option<&'static str>,
    shown: Shown,
    whitelist: &'static [&'static str],
    features: &'static [&'static str],
    timestamp: u64,
}

/// The documentation's real example.
const EXAMPLE: Expected = Expected {
    id: 5,
    client_id: "wcVoQGam",
    name: "",
    max_scope: "account:read block_trade:read_write trade:read wallet:none",
    enabled: Some(true),
    public_key: Some("ed25519.deribit"),
    shown: Shown::Print(EXAMPLE_PRINT),
    whitelist: &[],
    features: &[],
    timestamp: 1_560_238_048_714,
};

/// The official file's example of a changed key.
const CHANGED: Expected = Expected {
    id: 3,
    client_id: "1sXMQBhM",
    name: "NewKeyName",
    max_scope: "account:read_write block_trade:read trade:read_write wallet:read_write",
    enabled: Some(true),
    public_key: None,
    shown: Shown::Secret("B6RsF9rrLY5ezEGBQkyLlV-UC7whyPJ34BMA-kKYpes"),
    whitelist: &[],
    features: &[],
    timestamp: 1_560_242_482_758,
};

const TWO_FEATURES: &[&str] = &["restricted_block_trades", "block_trade_approval"];
const READER: &str =
    "account:read block_rfq:none block_trade:none custody:none trade:read wallet:none";

fn public_file(stem: &str) -> PublicKey {
    PublicKey::read(&fs::read(data(&format!("keys/{stem}.pub.pem"))).unwrap()).unwrap()
}

#[track_caller]
fn check_key(what: &str, key: &ApiKey, expected: &Expected) {
    assert_eq!(key.id, KeyId(expected.id), "{what}");
    assert_eq!(key.client_id.as_str(), expected.client_id, "{what}");
    assert_eq!(key.name, expected.name, "{what}");
    assert_eq!(key.max_scope, scope(expected.max_scope), "{what}");
    assert_eq!(key.enabled, expected.enabled, "{what}");
    assert_eq!(
        key.public_key,
        expected.public_key.map(public_file),
        "{what}"
    );
    assert_eq!(key.timestamp, expected.timestamp, "{what}");
    let whitelist: Vec<&str> = key
        .ip_whitelist
        .iter()
        .flatten()
        .map(Whitelisted::as_str)
        .collect();
    assert_eq!(whitelist, expected.whitelist, "{what}");
    let features: Vec<&str> = key
        .enabled_features
        .iter()
        .flatten()
        .map(Feature::as_str)
        .collect();
    assert_eq!(features, expected.features, "{what}");
    match (&key.credential, &expected.shown) {
        (Credential::Fingerprint(print), Shown::Print(expected)) => {
            assert_eq!(print.to_string(), *expected, "{what}");
        }
        (Credential::Secret(secret), Shown::Secret(expected)) => {
            assert_eq!(secret.expose(), *expected, "{what}");
            assert!(!format!("{key:?}").contains(expected), "{what}: {key:?}");
        }
        (Credential::Withheld, Shown::Nothing) => {}
        (credential, shown) => panic!("{what}: {credential:?} is not {shown:?}"),
    }
}

/// What a reply with one key says.
fn expected_of(name: &str) -> Option<Expected> {
    Some(match name {
        "create_api_key.reply.json"
        | "create_api_key.answered.reply.json"
        | "create_api_key.array_scope.reply.json"
        | "create_api_key.production.reply.json"
        | "create_api_key.reflowed.reply.json" => EXAMPLE,
        "create_api_key.features.reply.json" => Expected {
            id: 6,
            client_id: "aB3-dE_f9Q",
            name: "bot_1",
            max_scope: "account:read trade:read",
            features: TWO_FEATURES,
            ..EXAMPLE
        },
        "create_api_key.foreign.reply.json" => Expected {
            public_key: Some("ed25519.rfc8032"),
            shown: Shown::Print("32:9b:c1:7e:bd:33:06:cd:02:b7:d3:58:eb:c7:50:df"),
            ..EXAMPLE
        },
        // Without the public key nothing says that this is a fingerprint.
        "create_api_key.no_public_key.reply.json" => Expected {
            public_key: None,
            shown: Shown::Secret(EXAMPLE_PRINT),
            ..EXAMPLE
        },
        "create_api_key.required_only.reply.json" => Expected {
            public_key: None,
            enabled: None,
            shown: Shown::Secret(EXAMPLE_PRINT),
            ..EXAMPLE
        },
        "create_api_key.rsa.reply.json" => Expected {
            id: 7,
            client_id: "Rs4kEyId",
            name: "bot_rsa",
            max_scope: READER,
            public_key: Some("rsa2048.openssl"),
            shown: Shown::Print("8c:d0:2f:be:a8:3c:3a:57:6d:96:c0:d3:ab:a7:0e:d6"),
            ..EXAMPLE
        },
        "create_api_key.symmetric.reply.json" => Expected {
            public_key: None,
            shown: Shown::Secret("P9Z_c73KaBPwpoTVfsXzehAhjhdJn5kM7Zlz_hhDhE8"),
            ..EXAMPLE
        },
        "create_api_key.unknown_fields.reply.json" => Expected {
            name: "bot_1",
            features: &["restricted_block_trades", "feature_of_tomorrow"],
            ..EXAMPLE
        },
        "create_api_key.wrong_fingerprint.reply.json" => Expected {
            shown: Shown::Print("32:9b:c1:7e:bd:33:06:cd:02:b7:d3:58:eb:c7:50:df"),
            ..EXAMPLE
        },
        "edit_api_key.full.reply.json" => Expected {
            name: "bot_1",
            max_scope: READER,
            whitelist: &["192.0.2.1", "198.51.100.7"],
            features: &["restricted_block_trades"],
            ..EXAMPLE
        },
        "edit_api_key.open.reply.json" => Expected {
            name: "bot_1",
            max_scope: READER,
            ..EXAMPLE
        },
        "disable_api_key.reply.json" => Expected {
            enabled: Some(false),
            ..CHANGED
        },
        "change_api_key_name.reply.json"
        | "change_scope_in_api_key.reply.json"
        | "edit_api_key.reply.json"
        | "enable_api_key.reply.json"
        | "reset_api_key.reply.json" => CHANGED,
        _ => return None,
    })
}

/// Calls each method that returns a key, to see that each has that reply.
#[track_caller]
fn key_of(name: &str) -> ApiKey {
    let (id, label) = (KeyId(3), "bot_1".parse::<KeyName>().unwrap());
    let max_scope = scope("account:read");
    match name.split('.').next().unwrap() {
        "create_api_key" => done(name, &create(&label, &max_scope)),
        "edit_api_key" => {
            let edit = EditApiKey {
                id,
                max_scope: &max_scope,
                name: label.as_str(),
                enabled: true,
                enabled_features: &[],
                ip_whitelist: &[],
            };
            done(name, &edit)
        }
        "change_api_key_name" => done(
            name,
            &ChangeApiKeyName {
                id,
                name: label.as_str(),
            },
        ),
        "change_scope_in_api_key" => {
            let max_scope = &max_scope;
            done(name, &ChangeScopeInApiKey { id, max_scope })
        }
        "enable_api_key" => done(name, &EnableApiKey { id }),
        "disable_api_key" => done(name, &DisableApiKey { id }),
        "reset_api_key" => done(name, &ResetApiKey { id }),
        other => panic!("{other}"),
    }
}

fn create<'a>(name: &'a KeyName, max_scope: &'a Scope) -> CreateApiKey<'a> {
    CreateApiKey {
        max_scope,
        name: name.as_str(),
        public_key: EXAMPLE_KEY,
        enabled_features: &[],
    }
}

fn keys_are(name: &str, expected: &[Expected]) {
    let keys = done(name, &ListApiKeys {});
    assert_eq!(keys.len(), expected.len(), "{name}");
    for (key, expected) in keys.iter().zip(expected) {
        check_key(name, key, expected);
    }
}

/// The two keys of the official list.
fn listed(secrets: bool) -> [Expected; 2] {
    let shown = |secret| match secrets {
        true => Shown::Secret(secret),
        false => Shown::Nothing,
    };
    [
        Expected {
            id: 1,
            client_id: "TiA4AyLPq3",
            max_scope: "account:read block_trade:read trade:read_write wallet:read",
            enabled: Some(false),
            public_key: None,
            shown: shown("SjM57m1T2CfXZ4vZ76X1APjqRlJdtzHI8IwVXoQnfoM"),
            timestamp: 1_560_236_001_108,
            ..EXAMPLE
        },
        Expected {
            id: 2,
            client_id: "aD-KFx-H",
            max_scope: "account:read_write block_trade:read_write trade:read_write wallet:read_write",
            public_key: None,
            shown: shown("mwNOvbUVyQczytQ5IVM8CbzmgqNJ81WvLKfu6MXcJPs"),
            timestamp: 1_560_236_287_708,
            ..EXAMPLE
        },
    ]
}

/// Methods that the library has no use for; what they return is a session.
#[derive(Serialize)]
struct ForkToken {}

impl Method for ForkToken {
    const NAME: &'static str = "public/fork_token";
    const AGAIN: Again = Again::Never;
    type Reply = Session;
}

#[track_caller]
fn check_session(name: &str, session: &Session) {
    let (expires_in, granted) = match name {
        "auth.client_signature.reply.json" => (
            899,
            "account:read_write block_trade:read_write custody:read_write trade:read_write wallet:read_write",
        ),
        "auth.refresh_token.reply.json" => (
            900,
            "account:read_write block_trade:read_write custody:read_write trade:read_write wallet:read_write",
        ),
        "auth.client_signature.websocket.reply.json" => (
            31_536_000,
            "account:read_write block_trade:read_write custody:read_write trade:read_write wallet:read_write",
        ),
        "auth.client_signature.scoped.reply.json" => (900, "account:read"),
        "auth.client_signature.scoped.narrower.reply.json" => (900, "account:none"),
        "auth.client_signature.scoped.wider.reply.json" => {
            (900, "account:read_write trade:read_write")
        }
        _ => (31_536_000, "account:none"),
    };
    assert_eq!(session.access_token.expose(), TOKEN, "{name}");
    let refresh = session.refresh_token.as_ref().unwrap().expose();
    assert!(refresh.starts_with("1582628593469.1GP4rQd0."), "{name}");
    assert_eq!(session.expires_in, expires_in, "{name}");
    assert_eq!(session.scope, scope(granted), "{name}");
    let shown = format!("{session:?}");
    assert!(
        !shown.contains(TOKEN) && !shown.contains(refresh),
        "{shown}"
    );
}

#[test]
fn every_recorded_reply_is_read_as_what_it_says() {
    for name in names(".reply.json") {
        let name = name.as_str();
        let login = Login::RefreshToken {
            refresh_token: &RefreshToken::new("x".into()),
        };
        if let Some(expected) = expected_of(name) {
            check_key(name, &key_of(name), &expected);
            continue;
        }
        match name {
            _ if name.starts_with("error.") || name.contains(".challenge.") => {}
            _ if name.starts_with("auth.") => check_session(name, &done(name, &login)),
            "exchange_token.reply.json" | "fork_token.reply.json" => {
                check_session(name, &done(name, &ForkToken {}));
            }
            "list_api_keys.reply.json" => keys_are(name, &listed(true)),
            "list_api_keys.empty.reply.json" => keys_are(name, &[]),
            "list_api_keys.answered.reply.json" => {
                let [first, second] = listed(true);
                keys_are(name, &[first, second, EXAMPLE]);
            }
            "list_api_keys.withheld.reply.json" => {
                let [first, second] = listed(false);
                let shown = Shown::Nothing;
                keys_are(name, &[first, second, Expected { shown, ..EXAMPLE }]);
            }
            "list_api_keys.full.reply.json" => {
                let keys = done(name, &ListApiKeys {});
                let ids: Vec<KeyId> = keys.iter().map(|key| key.id).collect();
                assert_eq!(ids, (1..=8).map(KeyId).collect::<Vec<_>>());
                let ours = public_file("ed25519.deribit");
                assert!(keys.iter().all(|key| key.is(&ours)));
                assert_eq!(keys[6].name, "bot_7");
                assert_eq!(
                    keys[6].ip_whitelist.as_ref().unwrap()[0].as_str(),
                    "192.0.2.7"
                );
            }
            "remove_api_key.reply.json" => {
                assert_eq!(done(name, &RemoveApiKey { id: KeyId(2) }), "ok");
            }
            "get_time.reply.json" => assert_eq!(done(name, &GetTime {}), 1_550_147_385_946),
            "test.reply.json" => assert_eq!(done(name, &Ping {}).version, "1.2.26"),
            "get_access_log.reply.json" | "get_access_log.schema.reply.json" => {
                check_log(name, &done(name, &access_log()));
            }
            "status.reply.json" => check_status(name, json!(true), &["BTC", "ETH"]),
            "status.schema.true.reply.json" => {
                check_status(name, json!("true"), &["BTC", "ETH"]);
            }
            "status.schema.partial.reply.json" => check_status(name, json!("partial"), &["ETH"]),
            "status.schema.false.reply.json" => check_status(name, json!("false"), &[]),
            _ => panic!("{name} is not tested"),
        }
    }
}

fn access_log() -> GetAccessLog {
    GetAccessLog {
        offset: 0,
        count: 3,
    }
}

fn check_log(name: &str, log: &AccessLog) {
    let events: Vec<(u64, &str, &str)> = log
        .events()
        .iter()
        .map(|event| (event.timestamp, event.result.as_str(), event.ip.as_str()))
        .collect();
    if name.contains("schema") {
        let expected = [
            (1_536_569_522_277, "new_api_key", "192.0.2.1"),
            (1_536_569_522_000, "changed_scope", "192.0.2.1"),
            (1_536_569_521_000, "success", "192.0.2.1"),
        ];
        assert_eq!(events, expected, "{name}");
        let data: Vec<&Value> = log.events().iter().map(|event| &event.data).collect();
        let object = json!({"client_id": "wcVoQGam"});
        assert_eq!(data, [&json!("wcVoQGam"), &object, &Value::Null]);
    } else {
        let expected = [
            (1_575_876_682_576, "success", "127.0.0.1"),
            (1_575_876_459_309, "success", "127.0.0.1"),
            (1_575_546_252_774, "disabled_tfa", "127.0.0.1"),
        ];
        assert_eq!(events, expected, "{name}");
    }
}

fn check_status(name: &str, locked: Value, indices: &[&str]) {
    let status = done(name, &Status {});
    assert_eq!(status.locked, locked, "{name}");
    assert_eq!(status.locked_indices, indices, "{name}");
}

#[test]
fn a_key_is_recognised_by_its_public_key_before_its_fingerprint() {
    let ours = public_file("ed25519.deribit");
    let theirs = public_file("ed25519.rfc8032");
    for (name, is_ours, is_theirs) in [
        ("create_api_key.reply.json", true, false),
        ("create_api_key.reflowed.reply.json", true, false),
        ("create_api_key.foreign.reply.json", false, true),
        ("create_api_key.wrong_fingerprint.reply.json", true, false),
        // Only the fingerprint is there to go by.
        ("create_api_key.no_public_key.reply.json", true, false),
        ("create_api_key.required_only.reply.json", true, false),
        ("create_api_key.symmetric.reply.json", false, false),
        ("enable_api_key.reply.json", false, false),
    ] {
        let key = key_of(name);
        assert_eq!(
            (key.is(&ours), key.is(&theirs)),
            (is_ours, is_theirs),
            "{name}"
        );
    }
    let keys = done("list_api_keys.withheld.reply.json", &ListApiKeys {});
    let found: Vec<bool> = keys.iter().map(|key| key.is(&ours)).collect();
    assert_eq!(found, [false, false, true]);
}

/// What a challenge has to be read as: its site, and whether a code answers it.
const CHALLENGES: &[(&str, &str, bool)] = &[
    (
        "create_api_key.challenge.reply.json",
        "test.deribit.com",
        true,
    ),
    (
        "create_api_key.challenge.no_id.reply.json",
        "test.deribit.com",
        true,
    ),
    (
        "create_api_key.challenge.both.reply.json",
        "test.deribit.com",
        true,
    ),
    (
        "create_api_key.challenge.u2f.reply.json",
        "test.deribit.com",
        false,
    ),
    (
        "create_api_key.challenge.unknown.reply.json",
        "test.deribit.com",
        false,
    ),
    (
        "create_api_key.challenge.foreign.reply.json",
        "deribit.example.com",
        true,
    ),
    (
        "create_api_key.challenge.production.reply.json",
        "www.deribit.com",
        true,
    ),
    (
        "list_api_keys.challenge.reply.json",
        "test.deribit.com",
        true,
    ),
];

#[track_caller]
fn is_challenge<M: Method>(name: &str, method: &M) {
    let (_, rp_id, takes_a_code) = CHALLENGES.iter().find(|(n, ..)| *n == name).unwrap();
    match decode(name, method) {
        Ok(Outcome::Challenged(challenge)) => {
            assert_eq!(challenge.text(), CHALLENGE, "{name}");
            assert_eq!(challenge.rp_id(), Some(*rp_id), "{name}");
            assert_eq!(challenge.takes_a_code(), *takes_a_code, "{name}");
        }
        Ok(Outcome::Done(_)) => panic!("{name} as {} is taken for a reply", M::NAME),
        Err(error) => panic!("{name} as {}: {error}", M::NAME),
    }
}

/// A method whose reply takes any JSON whatever.
#[derive(Serialize)]
struct Anything {}

impl Method for Anything {
    const NAME: &'static str = "private/anything";
    const AGAIN: Again = Again::Freely;
    type Reply = Value;
}

#[test]
fn a_challenge_is_found_before_the_reply_type_whatever_the_method() {
    let recorded: BTreeSet<String> = names(".reply.json")
        .into_iter()
        .filter(|name| name.contains(".challenge."))
        .collect();
    let known: BTreeSet<String> = CHALLENGES.iter().map(|(n, ..)| (*n).to_owned()).collect();
    assert_eq!(recorded, known);
    let (label, none) = ("bot_1".parse().unwrap(), Scope::nothing());
    for name in &recorded {
        is_challenge(name, &create(&label, &none));
        is_challenge(name, &ListApiKeys {});
        is_challenge(name, &RemoveApiKey { id: KeyId(1) });
        is_challenge(name, &EnableApiKey { id: KeyId(1) });
        is_challenge(name, &ResetApiKey { id: KeyId(1) });
        is_challenge(name, &access_log());
        is_challenge(name, &Anything {});
    }
}

#[test]
fn a_reply_that_says_no_second_factor_is_needed_is_a_reply() {
    let reply = "{\"id\":\"ID\",\"result\":{\"security_key_authorization_required\":false,\"challenge\":\"x\"}}";
    let exchange = scripted(Network::Test, [Step::Raw(200, reply.into())]);
    let outcome = wait(exchange.call(Authority::Nobody, &Anything {})).unwrap();
    assert!(matches!(outcome, Outcome::Done(_)));
}

#[test]
fn every_recorded_error_is_a_refusal_of_its_kind() {
    for name in names(".reply.json") {
        let Some(rest) = name.strip_prefix("error.") else {
            continue;
        };
        let recorded: Value = serde_json::from_str(&wire(&name)).unwrap();
        let fault = &recorded["error"];
        let kind = match rest.split('.').next().unwrap() {
            "10000" | "13004" | "13009" => Kind::Credentials,
            "13012" => Kind::Permission,
            "13403" => Kind::ScopeExceeded,
            "13668" => Kind::SecondFactor,
            "13904" => Kind::SecondFactorSetup,
            "12998" => Kind::SecondFactorLocked,
            "10028" | "12003" => Kind::RateLimit,
            "11051" => Kind::Transient,
            "-32600" | "-32602" | "-32000" | "-32700" | "11050" => Kind::Invalid,
            "-32601" => Kind::NoSuchMethod,
            other => panic!("{other} is not tested"),
        };
        let (label, none) = ("bot_1".parse().unwrap(), Scope::nothing());
        let Err(Error::Refused(refusal)) = decode(&name, &create(&label, &none)) else {
            panic!("{name} is no refusal");
        };
        assert_eq!(refusal.kind(), kind, "{name}");
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let expected = Refusal {
            method: "private/create_api_key",
            code: fault["code"].as_i64().unwrap(),
            message: text(&fault["message"]),
            reason: text(&fault["data"]["reason"]),
            param: text(&fault["data"]["param"]),
            wait: fault["data"]["wait"].as_u64(),
        };
        assert_eq!(refusal, expected, "{name}");
        let shown = refusal.to_string();
        assert!(shown.contains("private/create_api_key"), "{shown}");
        assert!(shown.contains(&expected.code.to_string()), "{shown}");
        for word in [&expected.message, &expected.reason, &expected.param] {
            assert!(word.as_ref().is_none_or(|w| shown.contains(w)), "{shown}");
        }
    }
}

#[test]
fn an_error_counts_whatever_the_http_status() {
    let body = wire("error.13009.reply.json").replace("4316", "\"ID\"");
    let body = body.replace("8974", "\"ID\"");
    for status in [200, 400, 401, 403, 429, 500, 503] {
        let exchange = scripted(Network::Test, [Step::Raw(status, body.clone())]);
        let error = wait(exchange.call(bearer(&token()), &DisableApiKey { id: KeyId(1) }));
        assert!(
            matches!(&error, Err(Error::Refused(r)) if r.code == 13009),
            "{status} {error:?}"
        );
    }
}

#[test]
fn what_is_no_answer_is_refused_and_not_quoted() {
    let canary = "canary1582628593469";
    let deep = format!("{{\"id\":\"ID\",\"result\":{}", "[".repeat(200_000));
    let bodies = [
        String::new(),
        "null".into(),
        format!("<html>{canary}</html>"),
        format!("{{\"id\":\"ID\",\"result\":\"{canary}\"}}"),
        format!("{{\"id\":\"ID\",\"result\":{{\"client_id\":\"{canary}!\",\"id\":1}}}}"),
        format!("[{{\"id\":\"ID\",\"result\":\"{canary}\"}}]"),
        format!(
            "{{\"id\":\"ID\",\"result\":{{}},\"error\":{{\"code\":1,\"message\":\"{canary}\"}}}}"
        ),
        format!("{{\"id\":\"ID\",\"error\":{{\"message\":\"{canary}\"}}}}"),
        format!("{{\"id\":\"ID\",\"error\":\"{canary}\"}}"),
        format!("{{\"id\":\"ID\",\"error\":{{\"code\":\"{canary}\"}}}}"),
        format!("{{\"id\":\"ID\",\"testnet\":\"{canary}\",\"result\":{{}}}}"),
        format!("{{\"id\":999,\"result\":\"{canary}\"}}"),
        format!("{{\"id\":\"{canary}\",\"result\":{{}}}}"),
        format!("{{\"id\":null,\"result\":\"{canary}\"}}"),
        format!("{{\"id\":\"ID\",\"id\":\"ID\",\"result\":\"{canary}\"}}"),
        "{\"id\":\"ID\"}".into(),
        "{\"id\":\"ID\",\"result\":null,\"error\":null}".into(),
        "{\"id\":\"ID\",\"result\":{\"security_key_authorization_required\":true}}".into(),
        deep,
    ];
    for body in bodies {
        for status in [200, 502] {
            let exchange = scripted(Network::Test, [Step::Raw(status, body.clone())]);
            let method = DisableApiKey { id: KeyId(1) };
            let error = wait(exchange.call(bearer(&token()), &method)).unwrap_err();
            let Error::Malformed {
                method, status: s, ..
            } = &error
            else {
                panic!("{body:.60}: {error:?}");
            };
            assert_eq!((*method, *s), ("private/disable_api_key", status));
            assert!(error.leaves_doubt());
            assert_keeps_quiet(&error, &[canary]);
            assert_eq!(exchange.transport().sent().len(), 1);
        }
    }
}

#[test]
fn an_answer_to_another_request_or_with_two_meanings_is_refused() {
    // The reply type takes all of these results: only the envelope is wrong.
    for body in [
        r#"{"id":999,"result":"ok"}"#,
        r#"{"id":"999","result":"ok"}"#,
        r#"{"id":"one","result":"ok"}"#,
        r#"{"id":[1],"result":"ok"}"#,
        r#"{"id":999,"error":{"code":13009,"message":"unauthorized"}}"#,
        r#"{"id":"ID","result":"ok","error":{"code":13009,"message":"unauthorized"}}"#,
        r#"{"id":"ID","result":"ok","result":"ok"}"#,
        r#"{"id":"ID","result":"ok"}{"id":"ID","result":"ok"}"#,
        r#"[{"id":"ID","result":"ok"}]"#,
    ] {
        let exchange = scripted(Network::Test, [Step::Raw(200, body.into())]);
        let result = wait(exchange.call(Authority::Nobody, &Anything {}));
        assert!(
            matches!(result, Err(Error::Malformed { .. })),
            "{body} {result:?}"
        );
    }
    let body = r#"{"id":"ID","result":"ok"}"#;
    let exchange = scripted(Network::Test, [Step::Raw(200, body.into())]);
    assert!(wait(exchange.call(Authority::Nobody, &Anything {})).is_ok());
}

#[test]
fn an_answer_may_have_its_number_as_text_or_not_at_all() {
    for id in ["\"id\":\"ID\",", "", "\"id\":null,", "\"id\":\"1\","] {
        let body = format!("{{\"jsonrpc\":\"2.0\",{id}\"result\":5}}");
        let exchange = scripted(Network::Test, [Step::Raw(200, body.clone())]);
        let outcome = wait(exchange.call(Authority::Nobody, &GetTime {}));
        assert!(
            matches!(outcome, Ok(Outcome::Done(5))),
            "{body} {outcome:?}"
        );
    }
}

// How calls behave.

/// Gives codes away, and remembers for which challenges.
#[derive(Default)]
struct Codes {
    given: usize,
    challenges: Vec<String>,
    patience: u64,
    asked_to_wait: Vec<u64>,
}

impl SecondFactor for Codes {
    fn code(&mut self, challenge: &Challenge) -> Result<OneTimeCode, Error> {
        self.given += 1;
        self.challenges.push(challenge.text().to_owned());
        Ok(OneTimeCode::new(code(self.given)))
    }

    fn waits(&mut self, seconds: u64) -> bool {
        self.asked_to_wait.push(seconds);
        seconds <= self.patience
    }
}

/// The n-th code; the first is the recorded one.
fn code(n: usize) -> String {
    (602_050 + n).to_string()
}

/// A challenge with a text of its own.
fn challenge(text: &str) -> Step {
    let recorded = wire("create_api_key.challenge.reply.json");
    Step::Answer(recorded.replace(CHALLENGE, text))
}

fn refused_code(reason: &str) -> Step {
    answer(&format!("error.13668.{reason}.reply.json"))
}

fn broken() -> Step {
    Step::Fail(Error::Broken {
        host: "test.deribit.com".into(),
        problem: "reset".into(),
    })
}

fn unreachable() -> Step {
    Step::Fail(Error::Unreachable {
        host: "test.deribit.com".into(),
        problem: "refused".into(),
    })
}

fn timed_out() -> Step {
    Step::Fail(Error::TimedOut {
        host: "test.deribit.com".into(),
        seconds: 30,
    })
}

fn code_error(code: i64, data: &str) -> Step {
    Step::Raw(
        400,
        format!(
            "{{\"id\":\"ID\",\"error\":{{\"code\":{code},\"message\":\"later\",\"data\":{data}}}}}"
        ),
    )
}

/// Calls `create_api_key` and answers the second factor.
fn confirm_create(
    exchange: &Exchange<Script>,
    second: &mut dyn SecondFactor,
) -> Result<ApiKey, Error> {
    let name: KeyName = "Public_key_1".parse().unwrap();
    let max_scope = scope("account:read trade:read block_trade:read_write wallet:none");
    wait(exchange.confirm(bearer(&token()), &create(&name, &max_scope), second))
}

#[test]
fn a_challenge_is_answered_with_the_same_call_a_code_and_the_challenge() {
    let steps = [
        answer("create_api_key.challenge.reply.json"),
        answer("create_api_key.answered.reply.json"),
    ];
    let exchange = scripted(Network::Test, steps);
    let mut codes = Codes::default();
    let key = confirm_create(&exchange, &mut codes).unwrap();
    check_key("answered", &key, &EXAMPLE);
    assert_eq!(codes.challenges, [CHALLENGE]);

    let sent = exchange.transport().sent();
    let [asked, answered] = &sent[..] else {
        panic!("{sent:?}");
    };
    assert_eq!((asked.code(), asked.challenge()), (None, None));
    assert_eq!(asked.params(), answered.original());
    assert_ne!(asked.value()["id"], answered.value()["id"]);
    for sent in &sent {
        assert_eq!(sent.method, "private/create_api_key");
        let header = format!("Bearer {TOKEN}");
        assert_eq!(sent.authorization.as_deref(), Some(header.as_str()));
        assert!(!sent.body.contains(TOKEN));
    }
    // And that is what the documentation shows, but for the blanks in its name.
    let recorded = wire("create_api_key.answered.request.json");
    let mut recorded: Value = serde_json::from_str(&recorded).unwrap();
    recorded["params"]["name"] = "Public_key_1".into();
    recorded["id"] = answered.value()["id"].clone();
    assert_eq!(
        sorted_scopes(answered.value()),
        sorted_scopes(recorded.clone())
    );
}

#[test]
fn an_answered_list_is_the_documented_request() {
    let steps = [
        answer("list_api_keys.challenge.reply.json"),
        answer("list_api_keys.answered.reply.json"),
    ];
    let exchange = scripted(Network::Test, steps);
    let keys = wait(exchange.confirm(bearer(&token()), &ListApiKeys {}, &mut Codes::default()));
    assert_eq!(keys.unwrap().len(), 3);
    let sent = exchange.transport().sent();
    let recorded = wire("list_api_keys.answered.request.json");
    assert_eq!(in_the_name_of(&sent[1].body, 88), recorded);
}

#[test]
fn without_a_challenge_nobody_is_asked() {
    let exchange = scripted(Network::Test, [answer("create_api_key.reply.json")]);
    let mut codes = Codes::default();
    confirm_create(&exchange, &mut codes).unwrap();
    assert_eq!(codes.given, 0);
    assert_eq!(exchange.transport().sent().len(), 1);
}

#[test]
fn after_a_failed_code_a_new_challenge_is_answered_with_a_new_code() {
    for reason in [
        "tfa_code_not_matched",
        "used_tfa_code",
        "challenge_timeout",
        "tfa_code_is_required",
    ] {
        let steps = [
            challenge("first="),
            refused_code(reason),
            challenge("second="),
            answer("create_api_key.reply.json"),
        ];
        let exchange = scripted(Network::Test, steps);
        let mut codes = Codes::default();
        confirm_create(&exchange, &mut codes).unwrap();
        assert_eq!(codes.challenges, ["first=", "second="]);
        let sent = exchange.transport().sent();
        let answers: Vec<_> = sent.iter().map(|s| (s.code(), s.challenge())).collect();
        let given = |n, text: &str| (Some(code(n)), Some(text.to_owned()));
        let expected = [
            (None, None),
            given(1, "first="),
            (None, None),
            given(2, "second="),
        ];
        assert_eq!(answers, expected, "{reason}");
        assert!(sent.iter().all(|s| s.original() == sent[0].params()));
        let ids: BTreeSet<String> = sent.iter().map(|s| s.value()["id"].to_string()).collect();
        assert_eq!(ids.len(), 4);
    }
}

#[test]
fn after_three_failed_codes_it_stops() {
    let failed = |n: usize| {
        [
            challenge(&format!("challenge{n}=")),
            refused_code(["tfa_code_not_matched", "used_tfa_code", "challenge_timeout"][n % 3]),
        ]
    };
    let exchange = scripted(Network::Test, (0..5).flat_map(failed));
    let mut codes = Codes::default();
    let error = confirm_create(&exchange, &mut codes).unwrap_err();
    let Error::SecondFactorRefused {
        method,
        attempts,
        reason,
    } = &error
    else {
        panic!("{error:?}");
    };
    assert_eq!((*method, *attempts), ("private/create_api_key", 3));
    assert_eq!(reason, "challenge_timeout");
    assert_eq!(exchange.transport().codes(), [code(1), code(2), code(3)]);
    assert_eq!(exchange.transport().sent().len(), 6);
    assert!(exchange.transport().pauses().is_empty());
}

#[test]
fn a_challenge_in_place_of_an_answer_uses_up_a_try() {
    let steps = (0..9).map(|n| challenge(&format!("challenge{n}=")));
    let exchange = scripted(Network::Test, steps);
    let error = confirm_create(&exchange, &mut Codes::default()).unwrap_err();
    assert!(matches!(
        error,
        Error::SecondFactorRefused { attempts: 3, .. }
    ));
    let codes = exchange.transport().codes();
    let distinct: BTreeSet<&String> = codes.iter().collect();
    assert_eq!((codes.len(), distinct.len()), (3, 3));
    let sent = exchange.transport().sent();
    assert!(sent.len() <= 6, "{}", sent.len());
}

#[test]
fn a_refusal_for_want_of_a_code_brings_no_code_without_a_challenge() {
    let steps = (0..9).map(|_| refused_code("tfa_code_is_required"));
    let exchange = scripted(Network::Test, steps);
    let mut codes = Codes::default();
    let error = confirm_create(&exchange, &mut codes).unwrap_err();
    assert!(
        matches!(error, Error::SecondFactorRefused { .. }),
        "{error:?}"
    );
    assert!(exchange.transport().sent().len() <= 3);
    assert_eq!(codes.given, 0);

    // One refusal, then the challenge that it should have been.
    let steps = [
        refused_code("tfa_code_is_required"),
        challenge("x="),
        answer("create_api_key.reply.json"),
    ];
    let exchange = scripted(Network::Test, steps);
    confirm_create(&exchange, &mut Codes::default()).unwrap();
    assert_eq!(exchange.transport().codes(), [code(1)]);
}

#[test]
fn too_many_failed_codes_are_said_at_once_with_the_time_to_wait() {
    for first in [None, Some(challenge("x="))] {
        let steps = first.into_iter().chain([answer("error.12998.reply.json")]);
        let exchange = scripted(Network::Test, steps);
        let error = confirm_create(&exchange, &mut Codes::default()).unwrap_err();
        let Error::Refused(refusal) = &error else {
            panic!("{error:?}");
        };
        assert_eq!(refusal.kind(), Kind::SecondFactorLocked);
        assert_eq!(refusal.wait, Some(60));
        assert_eq!(exchange.transport().left(), 0);
        assert!(exchange.transport().pauses().is_empty());
    }
}

#[test]
fn a_pause_after_failed_codes_is_waited_out_and_then_a_fresh_challenge_answered() {
    let lock = || answer("error.12998.reply.json");
    let steps = [
        challenge("x="),
        lock(),
        lock(),
        challenge("y="),
        answer("create_api_key.reply.json"),
    ];
    let exchange = scripted(Network::Test, steps);
    let mut codes = Codes {
        patience: 60,
        ..Codes::default()
    };
    confirm_create(&exchange, &mut codes).unwrap();
    assert_eq!(codes.asked_to_wait, [60, 60]);
    assert_eq!(codes.challenges, ["x=", "y="]);
    assert_eq!(exchange.transport().codes(), [code(1), code(2)]);
}

#[test]
fn a_pause_after_the_last_try_is_not_waited_out() {
    let steps = (0..3).map(|_| answer("error.12998.reply.json"));
    let exchange = scripted(Network::Test, steps);
    let mut codes = Codes {
        patience: 60,
        ..Codes::default()
    };
    let error = confirm_create(&exchange, &mut codes).unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error:?}");
    assert_eq!(codes.asked_to_wait, [60, 60]);
}

#[test]
fn a_code_is_never_sent_twice() {
    let ends: [fn() -> Step; 8] = [
        broken,
        unreachable,
        timed_out,
        || Step::Raw(502, "<html>".into()),
        || answer("error.11051.reply.json"),
        || answer("error.10028.reply.json"),
        || answer("error.10028.bare.reply.json"),
        || code_error(10040, "null"),
    ];
    for end in ends {
        // A list may be read again freely, but not with a code that is spent.
        let spare = || [challenge("y="), answer("list_api_keys.empty.reply.json")];
        let steps = [challenge("x="), end()].into_iter().chain(spare());
        let exchange = scripted(Network::Test, steps);
        let _ = wait(exchange.confirm(bearer(&token()), &ListApiKeys {}, &mut Codes::default()));
        let codes = exchange.transport().codes();
        let distinct: BTreeSet<&String> = codes.iter().collect();
        assert_eq!(codes.len(), distinct.len(), "{codes:?}");

        let steps = [challenge("x="), end()].into_iter().chain(spare());
        let exchange = scripted(Network::Test, steps);
        let error = confirm_create(&exchange, &mut Codes::default());
        assert!(error.is_err());
        assert_eq!(exchange.transport().codes(), [code(1)]);
        assert_eq!(exchange.transport().sent().len(), 2);
    }
}

#[test]
fn a_hardware_key_alone_is_said_and_no_code_is_asked_for() {
    for name in ["u2f", "unknown"] {
        let reply = format!("create_api_key.challenge.{name}.reply.json");
        let exchange = scripted(Network::Test, [answer(&reply)]);
        let mut codes = Codes::default();
        let error = confirm_create(&exchange, &mut codes).unwrap_err();
        let method = "private/create_api_key";
        assert!(
            matches!(error, Error::HardwareKeyOnly { method: m } if m == method),
            "{error:?}"
        );
        assert_eq!(codes.given, 0);
    }
    let steps = [
        answer("create_api_key.challenge.both.reply.json"),
        answer("create_api_key.reply.json"),
    ];
    let exchange = scripted(Network::Test, steps);
    confirm_create(&exchange, &mut Codes::default()).unwrap();
    assert_eq!(exchange.transport().codes(), [code(1)]);
}

#[test]
fn nobody_there_to_answer_ends_the_call() {
    let exchange = scripted(Network::Test, [challenge("x=")]);
    let error = confirm_create(&exchange, &mut Unattended).unwrap_err();
    assert!(matches!(error, Error::NoSecondFactor { .. }), "{error:?}");
    assert_eq!(exchange.transport().sent().len(), 1);
}

#[test]
fn a_challenge_for_another_site_never_gets_a_code() {
    let gateway = "https://gateway.example/api/v2";
    let local = "http://127.0.0.1:1/api/v2";
    let cases: [(Network, &str, bool); 17] = [
        (Network::Test, "test.deribit.com", true),
        (Network::Test, "www.deribit.com", false),
        (Network::Test, "deribit.com", false),
        (Network::Test, "com", false),
        (Network::Test, "", false),
        (Network::Test, "test.deribit.com.evil.example", false),
        (Network::Test, "TEST.deribit.com\u{0}", false),
        (Network::Sandbox, "www.deribit.com", false),
        (Network::Production, "www.deribit.com", true),
        (Network::Production, "test.deribit.com", false),
        (Network::Production, "evil.example", false),
        (custom(gateway), "gateway.example", true),
        (custom(gateway), "evil.example", false),
        (custom(gateway), "example", false),
        (custom(gateway), "way.example", false),
        (custom(local), "localhost", true),
        (custom(local), "evil.example", false),
    ];
    for (network, rp_id, fits) in cases {
        let body = json!({"security_keys": [{"type": "tfa"}], "challenge": "x=",
            "security_key_authorization_required": true, "rp_id": rp_id});
        let what = format!("{network} {rp_id:?}");
        let steps = [
            Step::Raw(200, format!("{{\"id\":\"ID\",\"result\":{body}}}")),
            answer("create_api_key.reply.json"),
        ];
        let exchange = scripted(network, steps);
        let mut codes = Codes::default();
        let result = confirm_create(&exchange, &mut codes);
        if fits {
            assert!(result.is_ok(), "{what} {result:?}");
        } else {
            let error = result.unwrap_err();
            assert!(
                matches!(error, Error::ForeignChallenge { .. }),
                "{what} {error:?}"
            );
            assert_eq!(
                (codes.given, exchange.transport().sent().len()),
                (0, 1),
                "{what}"
            );
        }
    }
    for name in ["foreign", "production"] {
        let reply = wire(&format!("create_api_key.challenge.{name}.reply.json"));
        let reply = reply.replace("\"testnet\":false", "\"testnet\":true");
        let exchange = scripted(Network::Test, [Step::Answer(reply)]);
        let mut codes = Codes::default();
        let error = confirm_create(&exchange, &mut codes).unwrap_err();
        assert!(matches!(error, Error::ForeignChallenge { .. }), "{error:?}");
        assert_eq!(codes.given, 0);
    }
}

#[test]
fn an_answer_of_the_other_network_is_refused_before_anything_else() {
    let wrong = [
        (Network::Test, "create_api_key.production.reply.json"),
        (Network::Sandbox, "create_api_key.production.reply.json"),
        (
            Network::Test,
            "create_api_key.challenge.production.reply.json",
        ),
        (Network::Test, "error.11050.reply.json"),
        (Network::Production, "create_api_key.answered.reply.json"),
        (Network::Production, "create_api_key.challenge.reply.json"),
        (Network::Production, "error.13009.reply.json"),
    ];
    for (network, name) in wrong {
        let exchange = scripted(network, [answer(name)]);
        let mut codes = Codes::default();
        let error = confirm_create(&exchange, &mut codes).unwrap_err();
        assert!(
            matches!(error, Error::WrongNetwork { .. }),
            "{name} {error:?}"
        );
        assert!(error.leaves_doubt());
        assert_eq!(
            (codes.given, exchange.transport().sent().len()),
            (0, 1),
            "{name}"
        );
    }
}

#[test]
fn a_custom_network_may_be_either_kind_but_not_change() {
    for (first, second) in [("true", "false"), ("false", "true")] {
        let reply = |said: &str| {
            Step::Raw(
                200,
                format!("{{\"id\":\"ID\",\"result\":5,\"testnet\":{said}}}"),
            )
        };
        let steps = [reply(first), reply(first), reply(second), reply(first)];
        let exchange = scripted(custom("https://gateway.example/api/v2"), steps);
        let ask = || wait(exchange.call(Authority::Nobody, &GetTime {}));
        assert!(ask().is_ok());
        assert!(ask().is_ok());
        assert!(matches!(ask(), Err(Error::WrongNetwork { .. })));
        assert!(ask().is_ok());
    }
}

#[test]
fn on_a_custom_network_the_testnet_flag_decides_which_site_may_ask() {
    for (testnet, rp_id, fits) in [
        (true, "test.deribit.com", true),
        (true, "www.deribit.com", false),
        (false, "www.deribit.com", true),
        (false, "test.deribit.com", false),
    ] {
        let body = json!({"security_keys": [{"type": "tfa"}], "challenge": "x=",
            "security_key_authorization_required": true, "rp_id": rp_id});
        let text = format!("{{\"id\":\"ID\",\"result\":{body},\"testnet\":{testnet}}}");
        let steps = [Step::Raw(200, text), answer("create_api_key.reply.json")];
        let exchange = scripted(custom("https://gateway.example/api/v2"), steps);
        let mut codes = Codes::default();
        let result = confirm_create(&exchange, &mut codes);
        assert_eq!(
            (result.is_ok(), codes.given == 1),
            (fits, fits),
            "{testnet} {rp_id}"
        );
    }
}

/// Errors that a read may meet and a creation may not survive.
fn passing() -> Vec<Step> {
    let mut steps = vec![broken(), unreachable(), timed_out()];
    for code in [
        10028, 10040, 10041, 10047, 10066, 11051, 11094, 13028, 13888,
    ] {
        steps.push(code_error(code, "{\"wait\":1}"));
    }
    steps.push(Step::Raw(503, String::new()));
    steps
}

#[track_caller]
fn is_sent_once<M: Method>(method: &M) {
    for step in passing() {
        let exchange = scripted(Network::Test, [step]);
        let result = wait(exchange.call(bearer(&token()), method));
        assert!(result.is_err());
        assert_eq!(exchange.transport().sent().len(), 1);
        assert!(exchange.transport().pauses().is_empty());
    }
}

#[test]
fn what_makes_something_is_sent_once_whatever_happens() {
    let (label, none) = ("bot_1".parse().unwrap(), Scope::nothing());
    is_sent_once(&create(&label, &none));
    is_sent_once(&ResetApiKey { id: KeyId(1) });
    let id = client_id();
    let login = Login::signed_by(&rfc8032_signer(), &id, String::new(), LoginScope::default());
    is_sent_once(&login.unwrap());
    for step in passing() {
        let exchange = scripted(Network::Test, [step]);
        assert!(confirm_create(&exchange, &mut Codes::default()).is_err());
        assert_eq!(exchange.transport().sent().len(), 1);
    }
}

#[test]
fn a_read_is_sent_again_after_a_break_and_gives_up_in_the_end() {
    let ends: [fn() -> Step; 2] = [broken, unreachable];
    for again in ends {
        let steps = [
            again(),
            again(),
            again(),
            answer("list_api_keys.reply.json"),
        ];
        let exchange = scripted(Network::Test, steps);
        let outcome = wait(exchange.call(bearer(&token()), &ListApiKeys {})).unwrap();
        assert!(matches!(outcome, Outcome::Done(keys) if keys.len() == 2));
        let pauses = exchange.transport().pauses();
        assert_eq!(pauses.len(), 3);
        assert!(pauses.is_sorted() && pauses[0] >= Duration::from_millis(100));
        let sent = exchange.transport().sent();
        assert!(sent.iter().all(|s| s.params() == json!({})));
        let ids: BTreeSet<String> = sent.iter().map(|s| s.value()["id"].to_string()).collect();
        assert_eq!(ids.len(), 4);

        let exchange = scripted(Network::Test, (0..9).map(|_| again()));
        let error = wait(exchange.call(bearer(&token()), &ListApiKeys {})).unwrap_err();
        assert!(matches!(
            error,
            Error::Broken { .. } | Error::Unreachable { .. }
        ));
        assert_eq!(exchange.transport().sent().len(), 4);
    }
}

#[test]
fn what_the_exchange_put_off_is_sent_again_after_a_pause() {
    for code in [
        10028, 10040, 10041, 10047, 10066, 11051, 11094, 13028, 13888,
    ] {
        let steps = [
            code_error(code, "null"),
            answer("disable_api_key.reply.json"),
        ];
        let exchange = scripted(Network::Test, steps);
        let method = DisableApiKey { id: KeyId(3) };
        let outcome = wait(exchange.call(bearer(&token()), &method)).unwrap();
        assert!(matches!(outcome, Outcome::Done(_)), "{code}");
        let pauses = exchange.transport().pauses();
        assert!(pauses.len() == 1 && !pauses[0].is_zero(), "{code}");
    }
}

#[test]
fn the_pause_is_as_long_as_the_exchange_asks_for_within_reason() {
    let steps = [
        answer("error.10028.reply.json"),
        answer("list_api_keys.empty.reply.json"),
    ];
    let exchange = scripted(Network::Test, steps);
    wait(exchange.call(bearer(&token()), &ListApiKeys {})).unwrap();
    assert_eq!(exchange.transport().pauses(), [Duration::from_secs(3)]);

    // What is absurd is a day to us.
    for (wait_for, believed) in [("60", 60), ("3600", 3600), ("18446744073709551615", 86_400)] {
        let data = format!("{{\"wait\":{wait_for}}}");
        let exchange = scripted(Network::Test, [code_error(10028, &data)]);
        let error = wait(exchange.call(bearer(&token()), &ListApiKeys {})).unwrap_err();
        let Error::Refused(refusal) = error else {
            panic!("{error:?}");
        };
        assert_eq!(refusal.wait, Some(believed));
        assert!(exchange.transport().pauses().is_empty());
    }
}

#[test]
fn a_change_is_not_sent_again_when_it_may_have_been_carried_out() {
    for step in [broken(), timed_out(), Step::Raw(502, "<html>".into())] {
        let exchange = scripted(Network::Test, [step]);
        let method = DisableApiKey { id: KeyId(3) };
        let error = wait(exchange.call(bearer(&token()), &method)).unwrap_err();
        assert!(error.leaves_doubt(), "{error:?}");
        assert_eq!(exchange.transport().sent().len(), 1);
    }
}

#[test]
fn a_refusal_that_time_does_not_heal_is_final() {
    for name in names(".reply.json") {
        let final_one = ["error.10028", "error.11051", "error.12003"];
        if !name.starts_with("error.") || final_one.iter().any(|f| name.starts_with(f)) {
            continue;
        }
        let exchange = scripted(home_of(&wire(&name)), [answer(&name)]);
        let error = wait(exchange.call(bearer(&token()), &ListApiKeys {})).unwrap_err();
        assert!(matches!(error, Error::Refused(_)), "{name} {error:?}");
        assert!(!error.leaves_doubt());
        assert!(exchange.transport().pauses().is_empty(), "{name}");
    }
}

#[test]
fn doubt_is_left_by_broken_calls_and_not_by_calls_that_never_began() {
    let doubt = |step: Step| {
        let exchange = scripted(Network::Test, [step]);
        let (label, none) = ("bot_1".parse().unwrap(), Scope::nothing());
        let error = wait(exchange.call(bearer(&token()), &create(&label, &none))).unwrap_err();
        error.leaves_doubt()
    };
    assert!(doubt(broken()) && doubt(timed_out()));
    assert!(doubt(Step::Raw(504, "<html>".into())));
    assert!(!doubt(unreachable()));
    assert!(!doubt(answer("error.13403.reply.json")));
}

/// Neither words nor innards of an error, nor of what caused it, hold a secret.
#[track_caller]
fn assert_keeps_quiet(error: &Error, secrets: &[&str]) {
    let mut said = format!("{error} {error:?} {error:#?}");
    let mut cause = error.source();
    while let Some(deeper) = cause {
        said.push_str(&format!(" {deeper} {deeper:?}"));
        cause = deeper.source();
    }
    for secret in secrets {
        assert!(!said.contains(secret), "{secret} in {said}");
    }
}

#[test]
fn secrets_that_the_server_echoes_stay_out_of_errors() {
    let secret = "B6RsF9rrLY5ezEGBQkyLlV-UC7whyPJ34BMA-kKYpes";
    let code = code(1);
    let secrets = [TOKEN, &TOKEN[..60], secret, CHALLENGE, &code];
    let (label, none) = ("bot_1".parse().unwrap(), Scope::nothing());
    for echoed in secrets {
        for around in ["{}", "token {}", "{} expired", "invalid_{}"] {
            let text = around.replace("{}", echoed);
            let bodies = [
                json!({"code": 13009, "message": text}),
                json!({"code": 13668, "message": "x", "data": {"reason": text}}),
                json!({"code": -32602, "message": "x", "data": {"reason": "x", "param": text}}),
                json!({"code": -32602, "message": "x", "data": text}),
                json!({"code": -32602, "message": [text], "data": [text]}),
            ];
            for body in bodies {
                let body = format!("{{\"id\":\"ID\",\"error\":{body}}}");
                let steps = (0..9).map(|_| Step::Raw(400, body.clone()));
                let exchange = scripted(Network::Test, steps);
                let error = wait(exchange.call(bearer(&token()), &create(&label, &none)));
                assert_keeps_quiet(&error.unwrap_err(), &secrets);
                // The same in answer to a code, three times.
                let pairs =
                    (0..3).flat_map(|_| [challenge(CHALLENGE), Step::Raw(400, body.clone())]);
                let exchange = scripted(Network::Test, pairs);
                let error = confirm_create(&exchange, &mut Codes::default()).unwrap_err();
                assert_keeps_quiet(&error, &secrets);
            }
        }
    }
}

#[test]
fn messages_on_their_way_show_nothing_of_what_they_carry() {
    let outgoing = Outgoing {
        method: "private/create_api_key",
        body: Zeroizing::new(b"{\"authorization_data\":\"602051\"}".to_vec()),
        authorization: Some(Zeroizing::new(format!("Bearer {TOKEN}"))),
    };
    let incoming = Incoming {
        status: 200,
        body: Zeroizing::new(TOKEN.as_bytes().to_vec()),
    };
    let shown = format!("{outgoing:?} {outgoing:#?} {incoming:?} {incoming:#?}");
    // Bytes are shown as numbers: 54, 48, 50, 48, 53, 49 is the code.
    for secret in [TOKEN, "602051", "54, 48, 50, 48, 53, 49", "49, 53, 56, 50"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    let flat: String = shown.split_whitespace().collect();
    assert!(!flat.contains("54,48,50,48,53,49"), "{shown}");
    assert!(!flat.contains("49,53,56,50"), "{shown}");
    assert!(shown.contains("private/create_api_key") && shown.contains("200"));
}

#[test]
fn a_signed_call_signs_the_very_bytes_that_are_sent_each_time_anew() {
    let signer = rfc8032_signer();
    let id = client_id();
    let who = Authority::Signed {
        client_id: &id,
        signer: &signer,
    };
    // Sent again after a break, challenged, and answered.
    let steps = [
        broken(),
        challenge("x="),
        answer("list_api_keys.answered.reply.json"),
    ];
    let exchange = scripted(Network::Test, steps);
    wait(exchange.confirm(who, &ListApiKeys {}, &mut Codes::default())).unwrap();
    assert_eq!(exchange.transport().sent().len(), 3);
    check_signed(&exchange.transport().sent(), "/api/v2");
    let gateway = custom("https://gateway.example:8443/deribit/api/v2/");
    for (network, base) in [
        (Network::Production, "/api/v2"),
        (Network::Sandbox, "/api/v2"),
        (gateway, "/deribit/api/v2"),
    ] {
        let exchange = scripted(network, [answer("list_api_keys.empty.reply.json")]);
        wait(exchange.call(who, &ListApiKeys {})).unwrap();
        check_signed(&exchange.transport().sent(), base);
    }
}

/// Verifies the header of each request over its own body.
#[track_caller]
fn check_signed(sent: &[Sent], base: &str) {
    let public = public_file("ed25519.rfc8032");
    let mut nonces = BTreeSet::new();
    for sent in sent {
        let header = sent.authorization.as_deref().unwrap();
        let fields = header.strip_prefix("deri-hmac-sha256 ").unwrap();
        let field = |name: &str| {
            let mut pairs = fields.split(',').map(|pair| pair.split_once('=').unwrap());
            pairs.find(|(n, _)| *n == name).unwrap().1.to_owned()
        };
        assert_eq!(field("id"), "wcVoQGam");
        let stamp = Stamp {
            timestamp: Timestamp(field("ts").parse().unwrap()),
            nonce: field("nonce").parse().unwrap(),
        };
        let uri = format!("{base}/{}", sent.method);
        let text = format!(
            "{}\n{}\nPOST\n{uri}\n{}\n",
            field("ts"),
            field("nonce"),
            sent.body
        );
        let purpose = Purpose::Request {
            method: "POST".into(),
            uri,
            body: sent.body.clone(),
        };
        let message = Message::new(&stamp, &purpose).unwrap();
        assert_eq!(message.as_bytes(), text.as_bytes());
        let signature: Signature = field("sig").parse().unwrap();
        public.verify(&message, &signature).unwrap();
        assert!(nonces.insert(field("nonce")), "{header}");
    }
}

#[test]
fn a_public_call_carries_no_authorization() {
    let exchange = scripted(Network::Test, [answer("get_time.reply.json")]);
    wait(exchange.call(Authority::Nobody, &GetTime {})).unwrap();
    assert_eq!(exchange.transport().sent()[0].authorization, None);
}

#[test]
fn words_of_a_granted_scope_that_are_no_areas_give_no_rights() {
    // A key may be called `read`, and so may a session: neither is an area.
    let asked = scope("account:read trade:read_write");
    for extra in [
        "mainaccount",
        "connection",
        "name:read",
        "name:none",
        "name:read_write",
        "session:read",
        "session:rest-PRwURohyuaQ=",
        "expires:900",
        "ip:192.0.2.1",
        "ip:*",
    ] {
        let granted = Scope::from_wire(&format!("{extra} trade:read_write account:read"));
        assert_eq!(granted, asked, "{extra}");
    }
}
