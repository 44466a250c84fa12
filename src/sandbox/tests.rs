//! The sandbox over real connections, with requests written by hand.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ed25519_dalek::{Signer, SigningKey};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::proof::Seed;
use super::{Error, Options, Sandbox, state};

const SEED: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

/// RSA 2048, and its signature of "1\n2\n3", made once with OpenSSL.
const RSA_PEM: &str = concat!(
    "-----BEGIN PUBLIC KEY-----\n",
    "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAveJkmtC+JIhpJA71oHip\n",
    "/e5I55ZkmHA/c4Betlk/TOqacpU4e/NXTAaMTFwU9bRCKUfa2EdLM9hOycmklhy2\n",
    "J8J5DVXGGpoBt6FG00rLvF6F/Pep4JOGj71+2MV0csu7/ONhI0Bs2dd2r1XnrBVM\n",
    "jLAEKr9KJ+/xy/1D/qeW3h3+eObaMk7CtRssYKwSQTyTUHB7zRHKjfTSyywkcpgv\n",
    "s7ei78KAu4QiY0GXHkASE1oKyNv4poR9xi1DTzl1gAIiWIMzy11gUdxpTNhCaq9y\n",
    "bTXiQpYOpeb+h+RVABPy7NmdHe6OwPaxNb8jWVViKfCccP9uRjzgYGZJ4buXIYOb\n",
    "bQIDAQAB\n",
    "-----END PUBLIC KEY-----",
);

const RSA_SIGNATURE: &str = concat!(
    "T1dXf8vMmDacNSLweu4E0vtuf-3qQaSb0TpU2j2nWmuAPIp6YOK2fCulBgD4DPXu3-",
    "yNKkVieA4h80jskTW5KlU6lFa6Hk4DN1jsUfgSIs-Z9DFlVy5St3IZtjhFKu-",
    "X01DepHj2m9OR4q2tJFK9liPw-1vheTFUYl2C-H-EueF7rNvb3cK5on-Waxo2Sw6z41eMUVlTm-",
    "3EEM95IcSeMKMj3jNDPNl1IQk5qEq59k6XWoNzA_TsIOMq4DxbYf6gEZRuS5W-",
    "Ak7igFh8QsFIMBvcHTIXtU0zQinbrlV60cR4DrG2ZcrGTFMBfoSU089Jy-71yKMuczd1cmnonrYWwg",
);

/// A sandbox with what a client needs to talk to it.
struct Desk {
    sandbox: Sandbox,
    token: String,
}

struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

fn options(dir: &Path, faults: &[&str]) -> Options {
    Options {
        state_dir: dir.to_owned(),
        listen: "127.0.0.1:0".parse().unwrap(),
        faults: faults.iter().map(|fault| fault.parse().unwrap()).collect(),
        totp_seed: None,
    }
}

impl Desk {
    async fn open(dir: &Path, faults: &[&str]) -> Self {
        Self::with(options(dir, faults)).await
    }

    async fn with(options: Options) -> Self {
        let mut desk = Self {
            sandbox: Sandbox::start(options).await.unwrap(),
            token: String::new(),
        };
        desk.token = desk.admin_token("").await;
        desk
    }

    async fn admin_token(&self, scope: &str) -> String {
        let answer = self.call("public/auth", self.admin_login(scope)).await;
        answer["result"]["access_token"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    fn admin_login(&self, scope: &str) -> Value {
        let secret = std::fs::read_to_string(self.sandbox.admin_secret_file()).unwrap();
        json!({
            "grant_type": "client_credentials",
            "client_id": self.sandbox.admin_client_id(),
            "client_secret": secret.trim(),
            "scope": scope,
        })
    }

    async fn call(&self, method: &str, params: Value) -> Value {
        self.call_with(&self.token, method, params).await
    }

    async fn call_with(&self, token: &str, method: &str, params: Value) -> Value {
        let header = if token.is_empty() {
            String::new()
        } else {
            format!("Authorization: bearer {token}\r\n")
        };
        let body =
            json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params }).to_string();
        self.raw("POST", "/api/v2", &header, body.as_bytes())
            .await
            .unwrap()
            .json()
    }

    async fn code(&self, method: &str, params: Value) -> i64 {
        self.call(method, params).await["error"]["code"]
            .as_i64()
            .unwrap_or(0)
    }

    /// Sends bytes and reads what comes until the end or for two seconds.
    async fn raw(&self, verb: &str, uri: &str, headers: &str, body: &[u8]) -> Option<Reply> {
        let address = self
            .sandbox
            .endpoint()
            .strip_prefix("http://")
            .unwrap()
            .strip_suffix("/api/v2")
            .unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "{verb} {uri} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // A refusal may come before the body is taken.
        let _sent = stream.write_all(body).await;
        let mut bytes = Vec::new();
        let _end =
            tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut bytes)).await;
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Some(Reply {
            status,
            head,
            body: bytes[end + 4..].to_vec(),
        })
    }
}

fn pair() -> (SigningKey, String) {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).unwrap();
    let key = SigningKey::from_bytes(&seed);
    let mut der = vec![
        0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
    ];
    der.extend_from_slice(key.verifying_key().as_bytes());
    (
        key,
        format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            STANDARD.encode(der)
        ),
    )
}

fn signed(key: &SigningKey, client_id: &Value, timestamp: u64, nonce: &str) -> Value {
    let signature = key.sign(format!("{timestamp}\n{nonce}\n").as_bytes());
    json!({
        "grant_type": "client_signature",
        "client_id": client_id,
        "timestamp": timestamp,
        "nonce": nonce,
        "signature": URL_SAFE_NO_PAD.encode(signature.to_bytes()),
        "data": "",
    })
}

#[tokio::test]
async fn listens_on_loopback_only() {
    let home = tempfile::tempdir().unwrap();
    let mut open = options(home.path(), &[]);
    open.listen = "0.0.0.0:0".parse().unwrap();
    assert!(matches!(
        Sandbox::start(open).await,
        Err(Error::NotLoopback { .. })
    ));
    let lonely = Sandbox::start(options(home.path(), &["*:challenge"])).await;
    assert!(matches!(lonely, Err(Error::Seed(_))));
}

#[tokio::test]
async fn a_key_pair_registers_and_logs_in() {
    let home = tempfile::tempdir().unwrap();
    let desk = Desk::open(home.path(), &[]).await;
    let (key, pem) = pair();
    let params = json!({ "max_scope": "wallet:none trade:read account:read", "name": "bot_1", "public_key": pem });
    let made = desk.call("private/create_api_key", params).await;
    let made = &made["result"];
    assert_eq!(made["max_scope"], "account:read trade:read wallet:none");
    assert_eq!(made["public_key"], pem.trim_end());
    assert_eq!(made["client_secret"].as_str().unwrap().len(), 47);

    let now = state::now();
    let login = signed(&key, &made["client_id"], now, "nonce1");
    let granted = desk.call("public/auth", login.clone()).await;
    assert_eq!(granted["result"]["expires_in"], 899);
    let scope = granted["result"]["scope"].as_str().unwrap();
    assert!(
        scope.starts_with("account:read mainaccount name:bot_1 session:rest-"),
        "{scope}"
    );
    assert!(scope.ends_with("= trade:read"), "{scope}");

    assert_eq!(
        desk.code("public/auth", login).await,
        13004,
        "a nonce works once"
    );
    for (stamp, nonce) in [(now - 61_000, "old"), (now + 60_000, "new")] {
        assert_eq!(
            desk.code(
                "public/auth",
                signed(&key, &made["client_id"], stamp, nonce)
            )
            .await,
            13004
        );
    }
    let secret = json!({ "grant_type": "client_credentials", "client_id": made["client_id"], "client_secret": made["client_secret"] });
    assert_eq!(
        desk.code("public/auth", secret).await,
        13004,
        "key pairs have no secret"
    );

    let reset = desk
        .call("private/reset_api_key", json!({ "id": made["id"] }))
        .await;
    assert_eq!(reset["error"]["code"], 11030);
    assert_eq!(
        desk.code("private/disable_api_key", json!({ "id": made["id"] }))
            .await,
        0
    );
    assert_eq!(
        desk.code(
            "public/auth",
            signed(&key, &made["client_id"], now, "nonce2")
        )
        .await,
        13004
    );
    let token = granted["result"]["access_token"].as_str().unwrap();
    let positions = desk
        .call_with(token, "private/get_positions", json!({}))
        .await;
    assert_eq!(
        positions["error"]["code"], 13009,
        "nor do the tokens of a disabled key"
    );
    let log = desk.call("private/get_access_log", json!({})).await;
    assert_eq!(log["result"]["data"][0]["log"], "failure");
    assert_eq!(log["result"]["data"][1]["log"], "disabled_api_key");
}

#[tokio::test]
async fn an_rsa_signature_is_verified() {
    let home = tempfile::tempdir().unwrap();
    let desk = Desk::open(home.path(), &[]).await;
    let made = desk
        .call(
            "private/create_api_key",
            json!({ "max_scope": "", "public_key": RSA_PEM }),
        )
        .await;
    assert_eq!(made["result"]["public_key"], RSA_PEM);
    let key = super::proof::Credential::from_pem(RSA_PEM).unwrap();
    assert!(key.verifies(b"1\n2\n3", RSA_SIGNATURE));
    assert!(!key.verifies(b"1\n2\n4", RSA_SIGNATURE));
}

#[tokio::test]
async fn a_signed_header_needs_no_token() {
    let home = tempfile::tempdir().unwrap();
    let desk = Desk::open(home.path(), &[]).await;
    let (key, pem) = pair();
    let made = desk
        .call(
            "private/create_api_key",
            json!({ "max_scope": "trade:read", "public_key": pem }),
        )
        .await;
    let client_id = made["result"]["client_id"].as_str().unwrap();
    let uri = "/api/v2/private/get_positions?currency=BTC";
    let now = state::now();
    let signature = URL_SAFE_NO_PAD.encode(
        key.sign(format!("{now}\nn1\nGET\n{uri}\n\n").as_bytes())
            .to_bytes(),
    );
    let header = format!(
        "Authorization: DERI-HMAC-SHA256 id={client_id}, ts={now}, sig={signature}, nonce=n1\r\n"
    );
    assert_eq!(
        desk.raw("GET", uri, &header, b"").await.unwrap().status,
        200
    );
    let again = desk.raw("GET", uri, &header, b"").await.unwrap();
    assert_eq!(
        (again.status, again.json()["error"]["code"].as_i64()),
        (401, Some(13009))
    );

    let secret = std::fs::read_to_string(desk.sandbox.admin_secret_file()).unwrap();
    let body = r#"{"jsonrpc":"2.0","id":"a","method":"private/list_api_keys"}"#;
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.trim().as_bytes()).unwrap();
    mac.update(format!("{now}\nn2\nPOST\n/api/v2\n{body}\n").as_bytes());
    let hex: String = mac
        .finalize()
        .into_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let admin = desk.sandbox.admin_client_id();
    let header =
        format!("Authorization: deri-hmac-sha256 id={admin},ts={now},nonce=n2,sig={hex}\r\n");
    let listed = desk
        .raw("POST", "/api/v2", &header, body.as_bytes())
        .await
        .unwrap()
        .json();
    assert_eq!(listed["id"], "a");
    assert_eq!(listed["result"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_ceiling_is_the_scope_of_the_caller() {
    let home = tempfile::tempdir().unwrap();
    let desk = Desk::open(home.path(), &[]).await;
    let low = desk
        .admin_token("trade:read wallet:none custody:none block_trade:none block_rfq:none")
        .await;
    for (scope, code) in [
        ("trade:read account:read_write", 0),
        ("trade:read_write", 13403),
        ("wallet:read", 13403),
    ] {
        let answer = desk
            .call_with(
                &low,
                "private/create_api_key",
                json!({ "max_scope": scope }),
            )
            .await;
        assert_eq!(
            answer["error"]["code"].as_i64().unwrap_or(0),
            code,
            "{scope}"
        );
    }
    for method in [
        "private/remove_api_key",
        "private/disable_api_key",
        "private/edit_api_key",
    ] {
        let answer = desk
            .call_with(&low, method, json!({ "id": 1, "max_scope": "trade:read" }))
            .await;
        assert_eq!(answer["error"]["code"], 13403, "{method}");
    }
    let listed = desk
        .call_with(&low, "private/list_api_keys", json!({}))
        .await;
    assert!(listed["result"][0].get("client_secret").is_none());
    assert!(listed["result"][1].get("client_secret").is_some());
    let blind = desk.admin_token("account:none").await;
    let answer = desk
        .call_with(&blind, "private/list_api_keys", json!({}))
        .await;
    assert_eq!(answer["error"]["code"], 13021);
}

#[tokio::test]
async fn an_edit_resets_what_it_does_not_name() {
    let home = tempfile::tempdir().unwrap();
    let desk = Desk::open(home.path(), &[]).await;
    let params = json!({ "max_scope": "trade:read", "name": "bot", "enabled_features": ["block_trade_approval"] });
    let id = desk.call("private/create_api_key", params).await["result"]["id"].clone();
    let params =
        json!({ "id": id, "max_scope": "trade:read", "name": "bot", "ip_whitelist": ["10.0.0.1"] });
    let edited = desk.call("private/edit_api_key", params).await["result"].clone();
    assert_eq!(
        (&edited["enabled_features"], &edited["ip_whitelist"]),
        (&json!([]), &json!(["10.0.0.1"]))
    );
    let login = json!({ "grant_type": "client_credentials", "client_id": edited["client_id"], "client_secret": edited["client_secret"] });
    assert_eq!(
        desk.code("public/auth", login).await,
        13004,
        "not from this address"
    );
    let edited = desk.call("private/edit_api_key", json!({ "id": id })).await["result"].clone();
    assert_eq!(
        (&edited["name"], &edited["ip_whitelist"]),
        (&json!(""), &json!([]))
    );
    assert!(!edited["max_scope"].as_str().unwrap().contains("read"));
}

#[tokio::test]
async fn parameters_are_checked() {
    let home = tempfile::tempdir().unwrap();
    let desk = Desk::open(home.path(), &[]).await;
    for (method, params, code) in [
        (
            "private/create_api_key",
            json!({ "max_scope": "trade:read", "name": "a b" }),
            -32602,
        ),
        (
            "private/create_api_key",
            json!({ "max_scope": "trade:read", "name": "seventeen_letters" }),
            -32602,
        ),
        (
            "private/create_api_key",
            json!({ "max_scope": ["trade:read"] }),
            -32602,
        ),
        (
            "private/create_api_key",
            json!({ "max_scope": "trade:read", "public_key": "x" }),
            -32602,
        ),
        ("private/create_api_key", json!({}), -32000),
        (
            "private/edit_api_key",
            json!({ "id": 1, "ip_whitelist": ["10.0.0.0/8"] }),
            -32602,
        ),
        ("private/remove_api_key", json!({ "id": "1" }), -32602),
        ("private/remove_api_key", json!({ "id": 99 }), 13020),
        ("private/set_api_key_as_default", json!({ "id": 1 }), -32601),
        ("private/logout", json!({}), 10030),
        ("public/fork_token", json!({}), 10033),
        (
            "public/test",
            json!({ "expected_result": "exception" }),
            10001,
        ),
    ] {
        assert_eq!(
            desk.code(method, params.clone()).await,
            code,
            "{method} {params}"
        );
    }
    let nobody = desk.call_with("", "private/list_api_keys", json!({})).await;
    assert_eq!(nobody["error"]["code"], 10000);
    let large = vec![b' '; 33_000];
    let reply = desk.raw("POST", "/api/v2", "", &large).await.unwrap();
    assert_eq!(
        (reply.status, reply.json()["error"]["code"].as_i64()),
        (400, Some(-32600))
    );
}

#[tokio::test]
async fn the_ninth_key_and_the_seventeenth_session() {
    let home = tempfile::tempdir().unwrap();
    let desk = Desk::open(home.path(), &[]).await;
    let codes: Vec<i64> = {
        let mut codes = Vec::new();
        for _ in 0..8 {
            codes.push(
                desk.code(
                    "private/create_api_key",
                    json!({ "max_scope": "trade:read" }),
                )
                .await,
            );
        }
        codes
    };
    assert_eq!(codes, [0, 0, 0, 0, 0, 0, 0, 11030]);
    for number in 0..15 {
        desk.admin_token(&format!("session:s{number}")).await;
    }
    assert_eq!(
        desk.code("private/get_positions", json!({})).await,
        0,
        "sixteen sessions"
    );
    desk.admin_token("session:s3").await;
    assert_eq!(
        desk.code("private/get_positions", json!({})).await,
        0,
        "one of them again"
    );
    desk.admin_token("session:s15").await;
    assert_eq!(
        desk.code("private/get_positions", json!({})).await,
        13009,
        "one too many"
    );
}

#[tokio::test]
async fn a_refresh_token_works_once() {
    let home = tempfile::tempdir().unwrap();
    let desk = Desk::open(home.path(), &[]).await;
    let first = desk
        .call(
            "public/auth",
            desk.admin_login("session:x trade:read expires:60"),
        )
        .await["result"]
        .clone();
    assert_eq!(first["expires_in"], 60);
    let refresh = json!({ "grant_type": "refresh_token", "refresh_token": first["refresh_token"], "state": "s" });
    let second = desk.call("public/auth", refresh.clone()).await["result"].clone();
    assert_eq!(
        (&second["scope"], &second["state"]),
        (&first["scope"], &json!("s"))
    );
    assert_eq!(desk.code("public/auth", refresh).await, 13004);
}

#[tokio::test]
async fn a_challenge_and_a_code_work_once() {
    let home = tempfile::tempdir().unwrap();
    let mut with_seed = options(
        home.path(),
        &["get_positions:challenge:1", "public/auth:wrong-rp-id"],
    );
    with_seed.totp_seed = Some(SEED.to_owned());
    assert!(!format!("{with_seed:?}").contains(SEED));
    let desk = Desk::with(with_seed).await;
    let seed = Seed::from_base32(SEED).unwrap();
    let method = "private/create_api_key";
    let params = |extra: Value| {
        let mut params = json!({ "max_scope": "trade:read", "name": "bot" });
        params
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        params
    };
    let challenge = desk.call(method, params(json!({}))).await["result"].clone();
    assert_eq!(challenge["security_key_authorization_required"], true);
    assert_eq!(challenge["rp_id"], "test.deribit.com");
    assert_eq!(challenge["challenge"].as_str().unwrap().len(), 44);

    // All codes of one run are of neighbouring steps, so they are told apart.
    let step = state::now() / 30_000;
    let (code, next) = (seed.code(step).unwrap(), seed.code(step + 1).unwrap());
    let answer = |code: &str, challenge: &Value| json!({ "authorization_data": code, "challenge": challenge["challenge"] });
    let made = desk.call(method, params(answer(&code, &challenge))).await;
    assert_eq!(made["result"]["name"], "bot", "{made}");

    let reason = |answer: Value| {
        answer["error"]["data"]["reason"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let again = desk.call(method, params(answer(&next, &challenge))).await;
    assert_eq!(
        (again["error"]["code"].as_i64(), reason(again).as_str()),
        (Some(13668), "challenge_timeout")
    );
    let challenge = desk.call(method, params(json!({}))).await["result"].clone();
    assert_eq!(
        reason(desk.call(method, params(answer(&code, &challenge))).await),
        "used_tfa_code"
    );
    let challenge = desk.call(method, params(json!({}))).await["result"].clone();
    let other = json!({ "max_scope": "wallet:read", "authorization_data": next, "challenge": challenge["challenge"] });
    assert_eq!(
        reason(desk.call(method, other).await),
        "challenge_timeout",
        "bound to its request"
    );
    let challenge = desk.call("private/get_positions", json!({})).await["result"].clone();
    let bare = json!({ "challenge": challenge["challenge"] });
    assert_eq!(
        reason(desk.call("private/get_positions", bare).await),
        "tfa_code_is_required"
    );
    let challenge = desk.call(method, params(json!({}))).await["result"].clone();
    assert_eq!(
        reason(
            desk.call(method, params(answer("abcdef", &challenge)))
                .await
        ),
        "tfa_code_not_matched"
    );
    let over = desk.call(method, params(json!({}))).await;
    assert_eq!(over["error"]["code"], 12998);
    assert!(over["error"]["data"]["wait"].as_u64().unwrap() > 50);
}

#[tokio::test]
async fn the_state_is_shared_and_survives() {
    let home = tempfile::tempdir().unwrap();
    let one = Desk::open(home.path(), &[]).await;
    let two = Desk::open(home.path(), &[]).await;
    assert_eq!(
        one.code(
            "private/create_api_key",
            json!({ "max_scope": "trade:read" })
        )
        .await,
        0
    );
    let token = one.token.clone();
    drop(one);
    let listed = two
        .call_with(&token, "private/list_api_keys", json!({}))
        .await;
    assert_eq!(listed["result"].as_array().unwrap().len(), 2);
    drop(two);
    let three = Desk::open(home.path(), &[]).await;
    let listed = three
        .call_with(&token, "private/list_api_keys", json!({}))
        .await;
    assert_eq!(listed["result"].as_array().unwrap().len(), 2);
    let stored = std::fs::read_to_string(home.path().join("state.json")).unwrap();
    assert!(!stored.contains(&token));
}

#[tokio::test]
async fn faults_before_and_after() {
    let home = tempfile::tempdir().unwrap();
    let faults = [
        "create_api_key:drop-before:1",
        "create_api_key:500:2",
        "create_api_key:502:3",
        "create_api_key:redirect:4",
        "create_api_key:echo:5",
        "create_api_key:drop-after:6",
        "create_api_key:truncate:7",
        "create_api_key:garbage:8",
        "create_api_key:after-500:9",
        "create_api_key:huge:10",
        "create_api_key:drip:11",
        "create_api_key:both:12",
        "get_time:clock-skew",
        "list_api_keys:webauthn-only",
    ];
    let desk = Desk::open(home.path(), &faults).await;
    let body = json!({
        "jsonrpc": "2.0", "id": 7, "method": "private/create_api_key",
        "params": { "max_scope": "trade:read", "access_token": desk.token },
    });
    let body = body.to_string();
    let mut seen = Vec::new();
    for _ in 0..12 {
        seen.push(desk.raw("POST", "/api/v2/", "", body.as_bytes()).await);
    }
    assert!(seen[0].is_none() && seen[5].is_none());
    let status = |number: usize| seen[number].as_ref().unwrap().status;
    assert_eq!(
        [status(1), status(2), status(3), status(8)],
        [500, 502, 307, 500]
    );
    assert!(
        seen[3]
            .as_ref()
            .unwrap()
            .head
            .contains("location: http://127.0.0.1:")
    );
    let echoed = seen[4].as_ref().unwrap().json()["error"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(echoed.contains(&desk.token) && echoed.contains('\u{1b}'));
    for number in [6, 7, 10] {
        let body = &seen[number].as_ref().unwrap().body;
        assert!(!body.is_empty() && serde_json::from_slice::<Value>(body).is_err());
    }
    assert!(seen[9].as_ref().unwrap().body.len() > 1024 * 1024);
    let both = seen[11].as_ref().unwrap().json();
    assert!(both.get("error").is_some() && both.get("result").is_some());

    let ahead = desk.call("public/get_time", json!({})).await["result"]
        .as_u64()
        .unwrap();
    assert!(ahead > state::now() + 290_000);
    let hardware = desk.call("private/list_api_keys", json!({})).await;
    assert_eq!(hardware["result"]["security_keys"][0]["type"], "u2f");
    let calm = Desk::open(home.path(), &[]).await;
    let listed = calm.call("private/list_api_keys", json!({})).await;
    assert_eq!(
        listed["result"].as_array().unwrap().len(),
        8,
        "those applied, and the administrator"
    );
}

#[tokio::test]
async fn starting_is_fast() {
    let home = tempfile::tempdir().unwrap();
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let begun = std::time::Instant::now();
        Sandbox::start(options(home.path(), &[])).await.unwrap();
        best = best.min(begun.elapsed());
    }
    assert!(best < Duration::from_millis(3), "{best:?}");
}
