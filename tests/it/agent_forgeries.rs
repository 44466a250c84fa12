//! Forged requests: whatever is asked, no signature that comes back is good for anything that the
//! policy does not allow.
//!
//! The judge knows nothing of the agent. It builds every text that the request's own words could
//! make, tries each signature on all of them, and looks at those that fit.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use ed25519_dalek::pkcs8::DecodePublicKey;
use rsa::signature::Verifier;
use serde_json::{Value, json};
use sha2::Sha256;

use super::agent::{Caller, Running, Stage};

const ALLOWED: [(&str, &str); 2] = [
    ("GET", "/api/v2/private/get_positions"),
    ("POST", "/api/v2/private/buy"),
];

const FORBIDDEN: [&str; 12] = [
    "/api/v2/private/withdraw",
    "/api/v2/private/submit_transfer_to_user",
    "/api/v2/private/submit_transfer_to_subaccount",
    "/api/v2/private/add_to_address_book",
    "/api/v2/private/create_api_key",
    "/api/v2/private/edit_api_key",
    "/api/v2/private/list_api_keys",
    "/api/v2/private/sell",
    "/api/v2/private/get_account_summary",
    "/api/v2/public/auth",
    "/api/v2",
    "/api/v2/",
];

const VERBS: [&str; 8] = [
    "GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "get", "post",
];

/// What is put into, before, after and between the words of honest requests.
fn poisons() -> Vec<String> {
    let mut poisons: Vec<String> = [
        "\n",
        "\r",
        "\r\n",
        "\0",
        "\t",
        "\u{b}",
        "\u{c}",
        "\u{1b}",
        "\u{7f}",
        "\u{85}",
        "\u{a0}",
        "\u{ad}",
        "\u{200b}",
        "\u{202e}",
        "\u{2028}",
        "\u{2029}",
        "\u{feff}",
        "\u{ff0f}",
        "\u{2215}",
        "\u{1f4a3}",
        "%0a",
        "%0d%0a",
        "%00",
        "%2e%2e%2f",
        "%2f",
        "%252f",
        "%c0%af",
        "%u002f",
        "..",
        "/../",
        "/..;/",
        "/./",
        "//",
        "\\",
        "/",
        "#",
        "?",
        "&",
        "=",
        ";",
        ":",
        "*",
        "~",
        "|",
        " ",
        "  ",
        "+",
        "'",
        "\"",
        "`",
        "<",
        "{",
        "}",
        "[",
        "]",
        "$(id)",
        "{{7}}",
        "\\n",
        "\\u000a",
        "\\x0a",
    ]
    .map(str::to_owned)
    .into();
    for path in FORBIDDEN {
        poisons.push(format!("\nGET\n{path}\n\n"));
        poisons.push(format!("POST\n{path}\n{{}}\n"));
        poisons.push(format!("/../..{path}"));
        poisons.push(format!("?method={path}"));
    }
    poisons
}

/// Lines that were put together with malice.
fn forgeries() -> Vec<Vec<u8>> {
    let now = millis();
    let positions = ALLOWED[0].1;
    let buy = ALLOWED[1].1;
    let body = |method: &str| {
        json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": {"amount": 10}}).to_string()
    };
    let honest = [
        json!({"op": "auth", "key": "bot"}),
        json!({"op": "auth", "key": "bot", "scope": "trade:read"}),
        json!({"op": "rest", "key": "bot", "method": "GET", "path": positions}),
        json!({"op": "rest", "key": "bot", "method": "GET",
            "path": format!("{positions}?currency=BTC")}),
        json!({"op": "rest", "key": "bot", "method": "POST", "path": buy}),
        json!({"op": "rest", "key": "bot", "method": "POST", "path": buy,
            "body": body("private/buy")}),
    ];
    let mut lines: Vec<Value> = honest.to_vec();
    // Every field of every honest request, poisoned before, behind and in the middle.
    for request in &honest {
        for (field, value) in request.as_object().unwrap() {
            let text = value.as_str().unwrap();
            for poison in poisons() {
                let middle = text.len() / 2;
                for bad in [
                    format!("{poison}{text}"),
                    format!("{text}{poison}"),
                    format!("{}{poison}{}", &text[..middle], &text[middle..]),
                    poison.clone(),
                ] {
                    let mut line = request.clone();
                    line[field] = json!(bad);
                    lines.push(line);
                }
            }
            for other in [
                json!(null),
                json!(1),
                json!([text]),
                json!({"a": text}),
                json!(true),
            ] {
                let mut line = request.clone();
                line[field] = other;
                lines.push(line);
            }
            for turned in [text.to_uppercase(), text.to_lowercase()] {
                let mut line = request.clone();
                line[field] = json!(turned);
                lines.push(line);
            }
        }
        // Fields that are not the caller's.
        for (field, value) in [
            ("timestamp", json!(now + 30_000)),
            ("ts", json!(now + 30_000)),
            ("nonce", json!("mine")),
            ("data", json!("GET\n/api/v2/private/withdraw\n\n")),
            ("data", json!("")),
            ("client_id", json!("other")),
            ("uri", json!(FORBIDDEN[0])),
            ("url", json!(FORBIDDEN[0])),
            ("message", json!("bytes")),
            ("bytes", json!("AAAA")),
            ("purpose", json!({"login": {"data": "x"}})),
            ("params", json!({"data": "x"})),
            ("X-HTTP-Method-Override", json!("POST")),
            ("Key", json!("bot")),
            ("OP", json!("rest")),
            ("passphrase", json!("x")),
            ("path", json!(FORBIDDEN[0])),
            ("method", json!("POST")),
            ("body", json!("{}")),
        ] {
            let mut line = request.clone();
            line[field] = value;
            lines.push(line);
        }
    }
    // Every forbidden path in every manner.
    for path in FORBIDDEN {
        for verb in VERBS {
            lines.push(json!({"op": "rest", "key": "bot", "method": verb, "path": path}));
        }
        let method = path.strip_prefix("/api/v2/").unwrap_or("private/withdraw");
        for uri in [
            positions.to_owned(),
            buy.to_owned(),
            format!("{positions}/../{method}"),
            format!("{buy}?method={method}"),
            format!("{buy}#{path}"),
            format!("{path}?/../get_positions"),
        ] {
            for verb in ["GET", "POST"] {
                for body in [
                    body(method),
                    format!(r#"{{"method":"private/buy","method":"{method}","jsonrpc":"2.0"}}"#),
                    format!(r#"{{"jsonrpc":"2.0","method":"private/buy","Method":"{method}"}}"#),
                    format!(r#"{{"jsonrpc":"2.0","method":"private/buy"}}{{"method":"{method}"}}"#),
                    format!(r#"[{{"jsonrpc":"2.0","method":"{method}"}}]"#),
                    format!(
                        r#"{{"jsonrpc":"2.0","method":"private/buy","params":{{"method":"{method}"}}}}"#
                    ),
                    format!("jsonrpc=2.0&method={method}"),
                    format!("{}\n{}", body("private/buy"), body(method)),
                ] {
                    lines.push(
                        json!({"op": "rest", "key": "bot", "method": verb, "path": uri,
                        "body": body}),
                    );
                }
            }
        }
    }
    let mut lines: Vec<Vec<u8>> = lines
        .iter()
        .map(|line| line.to_string().into_bytes())
        .collect();
    // What no JSON library would write.
    let withdraw = FORBIDDEN[0];
    let raws: [String; 15] = [
        r#"{"op":"auth","op":"rest","key":"bot"}"#.into(),
        r#"{"op":"auth","key":"bot","key":"bot"}"#.into(),
        r#"{"op":"auth","key":"bot","\u006bey":"bot"}"#.into(),
        r#"{"op":"\u0061uth","key":"bot"}"#.into(),
        r#"{"op":"auth","key":"b\u006ft"}"#.into(),
        r#"["auth",null,"bot"]"#.into(),
        r#""auth""#.into(),
        r#"{"op":"auth","key":"bot"}{"op":"auth","key":"bot"}"#.into(),
        r#"{"op":"auth","key":"bot",}"#.into(),
        r#"{'op':'auth','key':'bot'}"#.into(),
        r#"{"op":"auth","key":"bot"} // "#.into(),
        format!(
            r#"{{"op":"rest","key":"bot","method":"GET","path":"{positions}","path":"{withdraw}"}}"#
        ),
        format!(
            r#"{{"op":"rest","key":"bot","method":"GET","path":"{withdraw}","path":"{positions}"}}"#
        ),
        format!(r#"{{"op":"rest","key":"bot","method":"GET","method":"POST","path":"{buy}"}}"#),
        format!(r#"{{"op":"rest","key":"bot","method":"GET","path":"{positions}\u003fa=1"}}"#),
    ];
    for raw in raws {
        lines.push(raw.clone().into_bytes());
        lines.push(format!("\u{feff}{raw}").into_bytes());
        lines.push(format!(" {raw}").into_bytes());
        lines.push(format!("{raw}\r").into_bytes());
        lines.push([raw.as_bytes(), b"\0"].concat());
        lines.push([raw.as_bytes(), b"\xff\xfe"].concat());
    }
    lines
}

fn millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// Every string in a value, and what others could make of it.
fn words(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => {
            let decoded = text
                .replace("%0a", "\n")
                .replace("%2f", "/")
                .replace("%2e", ".");
            for text in [text.as_str(), &decoded] {
                found.insert(text.to_owned());
                found.insert(text.to_lowercase());
                found.insert(text.trim().to_owned());
                for separator in ['\n', '\r', '\0', '?', '#', ';', ' ', '\u{2028}'] {
                    found.extend(text.split(separator).map(str::to_owned));
                }
                if let Some(at) = text.rfind("/..") {
                    found.insert(format!("/api/v2{}", &text[at + 3..]));
                    found.insert(text[at + 3..].to_owned());
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| words(item, found)),
        Value::Object(fields) => fields.values().for_each(|item| words(item, found)),
        _ => {}
    }
}

/// What a signature could be good for.
#[derive(Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Meaning {
    Login(String),
    Request(String, String, String),
}

impl Meaning {
    fn text(&self, stamp: &str) -> String {
        match self {
            Self::Login(data) => format!("{stamp}\n{data}"),
            Self::Request(verb, uri, body) => format!("{stamp}\n{verb}\n{uri}\n{body}\n"),
        }
    }

    /// The policy, written down once more and otherwise.
    fn is_allowed(&self) -> bool {
        match self {
            Self::Login(data) => data.is_empty(),
            Self::Request(verb, uri, body) => {
                let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
                let listed = ALLOWED.contains(&(verb.as_str(), path));
                let mut names = BTreeSet::new();
                let clean = query
                    .split('&')
                    .filter(|pair| !pair.is_empty())
                    .all(|pair| {
                        let name = pair.split('=').next().unwrap();
                        name != "method" && names.insert(name.to_owned())
                    })
                    && uri
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"/_?&=-.:,".contains(&b))
                    && !uri.contains("..");
                let said = body.to_lowercase().matches("method").count();
                let fits = body.is_empty() || {
                    let read: Value = serde_json::from_str(body).unwrap_or_default();
                    verb == "POST"
                        && said == 1
                        && read["method"] == path.trim_start_matches("/api/v2/")
                };
                listed && clean && fits
            }
        }
    }
}

/// All that a request's words could mean.
fn meanings(line: &[u8]) -> Vec<Meaning> {
    let mut own = BTreeSet::new();
    words(&serde_json::from_slice(line).unwrap_or_default(), &mut own);
    let mut data: BTreeSet<String> = own.clone();
    data.insert(String::new());
    let mut uris: BTreeSet<String> = own.iter().filter(|w| w.contains('/')).cloned().collect();
    uris.extend(FORBIDDEN.map(str::to_owned));
    uris.extend(ALLOWED.map(|(_, path)| path.to_owned()));
    let mut bodies: BTreeSet<String> = own
        .iter()
        .filter(|w| w.contains(['{', '[', '=', '\n']))
        .cloned()
        .collect();
    bodies.insert(String::new());
    bodies.insert("{}".into());
    let mut found = Vec::new();
    for verb in VERBS {
        for uri in &uris {
            for body in &bodies {
                data.insert(format!("{verb}\n{uri}\n{body}\n"));
                found.push(Meaning::Request(verb.into(), uri.clone(), body.clone()));
            }
        }
    }
    // As data, a request would be the same text: it counts as the request that it is.
    found.extend(
        data.into_iter()
            .filter(|data| data.matches('\n').count() != 3)
            .map(Meaning::Login),
    );
    found
}

/// The moment, the nonce and the signature in an answer.
fn signed(answer: &Value) -> Option<(u64, String, String)> {
    let result = &answer["result"];
    let params = if result["params"].is_object() {
        &result["params"]
    } else {
        result
    };
    Some((
        params["timestamp"].as_u64()?,
        params["nonce"].as_str()?.to_owned(),
        params["signature"].as_str()?.to_owned(),
    ))
}

/// The public half of the agent's key, in other hands.
enum Judge {
    Ed25519(ed25519_dalek::VerifyingKey),
    Rsa(rsa::pkcs1v15::VerifyingKey<Sha256>),
}

impl Judge {
    fn of(stage: &Stage) -> Self {
        let pem = stage.home.run(&["public", "bot"]).ok().stdout;
        match ed25519_dalek::VerifyingKey::from_public_key_pem(&pem) {
            Ok(key) => Self::Ed25519(key),
            Err(_) => Self::Rsa(rsa::pkcs1v15::VerifyingKey::from_public_key_pem(&pem).unwrap()),
        }
    }

    fn accepts(&self, text: &str, signature: &[u8]) -> bool {
        match self {
            Self::Ed25519(key) => {
                let signature = ed25519_dalek::Signature::from_slice(signature).unwrap();
                key.verify_strict(text.as_bytes(), &signature).is_ok()
            }
            Self::Rsa(key) => {
                let signature = signature.try_into().unwrap();
                key.verify(text.as_bytes(), &signature).is_ok()
            }
        }
    }
}

fn agent(algorithm: &str) -> (Stage, Running) {
    let stage = Stage::on(&["--network", "sandbox", "--algorithm", algorithm]);
    stage.configure(
        "[agent.keys.bot]\n\
         rest = [\"GET /api/v2/private/get_positions\", \"POST /api/v2/private/buy\"]\n",
    );
    let agent = stage.start();
    (stage, agent)
}

#[test]
fn no_forged_request_gets_more_than_the_policy_allows() {
    nothing_more_is_allowed("ed25519", &forgeries());
}

#[test]
fn no_forged_request_gets_more_of_an_rsa_key() {
    nothing_more_is_allowed("rsa-2048", &forgeries());
}

fn nothing_more_is_allowed(algorithm: &str, lines: &[Vec<u8>]) {
    let (stage, agent) = agent(algorithm);
    let judge = Judge::of(&stage);
    assert!(lines.len() >= 500, "{}", lines.len());
    let (mut nonces, mut refused, mut made) = (BTreeSet::new(), 0, BTreeSet::new());
    let mut caller: Option<Caller> = None;
    for line in lines {
        // A line break in a line makes two of it.
        let parts: Vec<&[u8]> = line.split(|b| *b == b'\n').collect();
        let caller = caller.get_or_insert_with(|| agent.connect());
        for part in parts {
            let shown = String::from_utf8_lossy(part);
            caller.send(part);
            caller.send(b"\n");
            let answer = caller
                .hear()
                .unwrap_or_else(|| panic!("no answer: {shown}"));
            let Some((timestamp, nonce, signature)) = signed(&answer) else {
                assert_eq!(answer["ok"], false, "{shown}: {answer}");
                refused += 1;
                continue;
            };
            assert!(timestamp.abs_diff(millis()) <= 1000, "{shown}: {answer}");
            assert!(!shown.contains(&nonce), "{shown}");
            assert!(nonces.insert(nonce.clone()), "{shown}: a nonce twice");
            let bytes = BASE64_URL_SAFE_NO_PAD.decode(&signature).unwrap();
            let stamp = format!("{timestamp}\n{nonce}");
            let good: Vec<Meaning> = meanings(part)
                .into_iter()
                .filter(|meaning| judge.accepts(&meaning.text(&stamp), &bytes))
                .collect();
            assert!(
                !good.is_empty(),
                "{shown}: it is good for nothing known: {answer}"
            );
            for meaning in good {
                assert!(meaning.is_allowed(), "{shown}: {meaning:?}");
                made.insert(meaning);
            }
        }
    }
    // The honest ones among them were signed, each for what it is.
    assert!(made.contains(&Meaning::Login(String::new())));
    for (verb, path) in ALLOWED {
        let found = made.iter().any(
            |meaning| matches!(meaning, Meaning::Request(v, uri, _) if v == verb && uri == path),
        );
        assert!(found, "{verb} {path}");
    }
    assert!(
        refused > lines.len() * 9 / 10,
        "{refused} of {}",
        lines.len()
    );
}

#[test]
fn the_judge_would_see_a_wrong_signature() {
    let line = br#"{"op":"auth","key":"bot","data":"POST\n/api/v2/private/withdraw\n{}\n"}"#;
    let stamp = "1\nn";
    let signed = "1\nn\nPOST\n/api/v2/private/withdraw\n{}\n";
    let found: Vec<Meaning> = meanings(line)
        .into_iter()
        .filter(|meaning| meaning.text(stamp) == signed)
        .collect();
    assert!(!found.is_empty());
    assert!(
        found.iter().all(|meaning| !meaning.is_allowed()),
        "{found:?}"
    );
    for (verb, uri, body) in [
        ("GET", "/api/v2/private/get_positions?a=%0a", ""),
        ("GET", "/api/v2/private/get_positions", "{}"),
        ("POST", "/api/v2/private/get_positions", ""),
        (
            "POST",
            "/api/v2/private/buy",
            r#"{"method":"private/withdraw"}"#,
        ),
        ("POST", "/api/v2/private/buy?method=x", ""),
    ] {
        assert!(!Meaning::Request(verb.into(), uri.into(), body.into()).is_allowed());
    }
}

#[test]
fn ten_thousand_frames_of_garbage_leave_no_trace() {
    let (_stage, agent) = agent("ed25519");
    let honest = json!({"op": "auth", "key": "bot"});
    assert_eq!(agent.ask(&honest)["ok"], true);
    let (descriptors, memory) = (agent.descriptors(), agent.memory());
    // A small generator of its own: the same garbage every time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let start = honest.to_string().into_bytes();
    for round in 0..100 {
        let mut caller = agent.connect();
        for _ in 0..100 {
            let mut frame = match random() % 3 {
                // An honest line with some bytes changed.
                0 => {
                    let mut frame = start.clone();
                    for _ in 0..=random() % 4 {
                        let at = usize::try_from(random()).unwrap() % frame.len();
                        frame[at] = u8::try_from(random() % 256).unwrap();
                    }
                    frame
                }
                1 => {
                    let length = random() % 600;
                    (0..length)
                        .map(|_| u8::try_from(random() % 256).unwrap())
                        .collect()
                }
                _ => {
                    let depth = usize::try_from(random() % 5000).unwrap();
                    [&b"{\"op\":"[..], &b"[".repeat(depth)].concat()
                }
            };
            for byte in &mut frame {
                if *byte == b'\n' {
                    *byte = b' ';
                }
            }
            frame.push(b'\n');
            caller.send(&frame);
            assert!(caller.hear().is_some());
        }
        // Half of them hang up in the middle of a line.
        if round % 2 == 0 {
            caller.send(&b"\xff\xff\xff\xff".repeat(1000));
        }
    }
    assert_eq!(agent.ask(&honest)["ok"], true);
    let begun = std::time::Instant::now();
    while agent.descriptors() > descriptors {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "descriptors leak"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(
        agent.memory() < memory + 8 * 1024,
        "{} kB, then {} kB",
        memory,
        agent.memory()
    );
}
