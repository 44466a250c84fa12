//! Secrets: whatever is run, however it ends, none of them turns up where it is not meant to be.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use base64::prelude::{
    BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD, Engine,
};
use serde_json::{Value, json};

use super::{
    store_files::{snapshot, under},
    support::{Home, Run, Server, join, left_out},
};

/// Letters and digits that nobody has seen before.
pub(crate) fn random(length: usize) -> String {
    let mut bytes = vec![0; length];
    fs::File::open("/dev/urandom")
        .unwrap()
        .read_exact(&mut bytes)
        .unwrap();
    // Base32, so that a canary can be a TOTP seed too.
    bytes
        .iter()
        .map(|b| char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[usize::from(b % 32)]))
        .collect()
}

const PREFIX: usize = 6;

/// Secrets, in every way in which one may be written by mistake.
#[derive(Default)]
pub(crate) struct Canaries {
    needles: HashMap<[u8; PREFIX], Vec<(String, Vec<u8>)>>,
}

impl Canaries {
    pub(crate) fn add(&mut self, name: &str, secret: &[u8]) {
        for (how, needle) in encodings(secret) {
            let prefix = *needle.first_chunk().unwrap();
            self.needles
                .entry(prefix)
                .or_default()
                .push((format!("{name} ({how})"), needle));
        }
    }

    /// Adds what is too short or too free for the other encodings: it would be found by chance.
    pub(crate) fn add_raw(&mut self, name: &str, secret: &[u8]) {
        let prefix = *secret.first_chunk().unwrap();
        self.needles
            .entry(prefix)
            .or_default()
            .push((name.into(), secret.to_vec()));
    }

    /// Returns the first canary in a text, with its place.
    pub(crate) fn find(&self, text: &[u8]) -> Option<String> {
        for at in 0..text.len().saturating_sub(PREFIX - 1) {
            let rest = &text[at..];
            let Some(candidates) = self.needles.get(rest.first_chunk::<PREFIX>().unwrap()) else {
                continue;
            };
            if let Some((name, _)) = candidates
                .iter()
                .find(|(_, needle)| rest.starts_with(needle))
            {
                return Some(format!("{name} at {at}"));
            }
        }
        None
    }

    #[track_caller]
    pub(crate) fn absent(&self, text: &[u8], what: &str) {
        let joined: Vec<u8> = text
            .iter()
            .copied()
            .filter(|b| !b.is_ascii_whitespace())
            .collect();
        let found = self.find(text).or_else(|| self.find(&joined));
        assert!(
            found.is_none(),
            "{what} holds the {}: {}",
            found.unwrap(),
            String::from_utf8_lossy(text)
        );
    }

    /// Searches everything under a home but what is excused.
    #[track_caller]
    pub(crate) fn absent_from_files(&self, home: &Home, excused: &[&str]) {
        for (path, (_, content)) in snapshot(&home.path("")) {
            let name = path.strip_prefix(home.path("")).unwrap();
            if !excused.iter().any(|excuse| name.starts_with(excuse)) {
                self.absent(&content, &name.display().to_string());
                self.absent(name.as_os_str().as_encoded_bytes(), "a file name");
            }
        }
    }
}

fn encodings(secret: &[u8]) -> Vec<(String, Vec<u8>)> {
    let each = |f: fn(&u8) -> String, gap: &str| {
        secret
            .iter()
            .map(f)
            .collect::<Vec<_>>()
            .join(gap)
            .into_bytes()
    };
    let backwards: Vec<u8> = secret.iter().rev().copied().collect();
    let mut all = vec![
        ("raw".to_owned(), secret.to_vec()),
        ("hex".into(), each(|b| format!("{b:02x}"), "")),
        ("HEX".into(), each(|b| format!("{b:02X}"), "")),
        ("colon hex".into(), each(|b| format!("{b:02x}"), ":")),
        ("percent".into(), each(|b| format!("%{b:02X}"), "")),
        ("JSON escapes".into(), each(|b| format!("\\u{b:04x}"), "")),
        (
            "UTF-16".into(),
            secret.iter().flat_map(|b| [*b, 0]).collect(),
        ),
        ("decimals".into(), each(u8::to_string, ", ")),
        ("decimals, tight".into(), each(u8::to_string, ",")),
        ("reversed".into(), backwards.clone()),
        (
            "base64 of reversed".into(),
            BASE64_STANDARD_NO_PAD.encode(&backwards).into_bytes(),
        ),
    ];
    let base64s = [
        ("base64", BASE64_STANDARD),
        ("base64url", BASE64_URL_SAFE),
        ("base64, bare", BASE64_STANDARD_NO_PAD),
        ("base64url, bare", BASE64_URL_SAFE_NO_PAD),
    ];
    for (name, engine) in base64s {
        all.push((name.into(), engine.encode(secret).into_bytes()));
        // In the middle of something else it starts at another bit.
        for skip in 1..3 {
            let whole = &secret[skip..];
            let whole = &whole[..whole.len() / 3 * 3];
            all.push((
                format!("{name}, shifted by {skip}"),
                engine.encode(whole).into_bytes(),
            ));
        }
    }
    all
}

#[test]
fn a_canary_is_found_in_every_encoding() {
    let secret = random(24);
    let mut canaries = Canaries::default();
    canaries.add("secret", secret.as_bytes());
    let ways = encodings(secret.as_bytes());
    assert!(ways.len() >= 12);
    for (how, needle) in ways {
        let text = [b"before ".as_slice(), &needle, b" after"].concat();
        assert!(canaries.find(&text).is_some(), "{how}");
        assert!(canaries.find(&text[..10]).is_none(), "{how}");
    }
    let token = BASE64_STANDARD.encode(format!("x{secret}y"));
    assert!(canaries.find(token.as_bytes()).is_some());
}

/// The numbers of a PKCS#8 key: the seed, or d, p, q, dP, dQ and qInv.
pub(crate) fn private_parts(pem: &str) -> Vec<Vec<u8>> {
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

/// An exchange that says what a test has it say.
pub(crate) struct Fake {
    pub(crate) endpoint: String,
}

impl Fake {
    /// Answers each call; no answer at all leaves the caller waiting.
    pub(crate) fn start(
        answer: impl Fn(&str, &Value) -> Option<Value> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}/api/v2", listener.local_addr().unwrap());
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answer = Arc::clone(&answer);
                std::thread::spawn(move || Self::reply(stream, &*answer));
            }
        });
        Self { endpoint }
    }

    fn reply(stream: TcpStream, answer: &dyn Fn(&str, &Value) -> Option<Value>) {
        let mut reader = BufReader::new(&stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let request: Value = serde_json::from_slice(&body).unwrap();
        let Some(mut reply) = answer(request["method"].as_str().unwrap(), &request["params"])
        else {
            std::thread::sleep(Duration::from_secs(60));
            return;
        };
        reply["jsonrpc"] = json!("2.0");
        reply["id"] = request["id"].clone();
        let body = reply.to_string();
        let _ = write!(
            &stream,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
    }

    pub(crate) fn network(&self) -> [&str; 4] {
        ["--network", "custom", "--endpoint", &self.endpoint]
    }
}

const LOUDNESS: [&[&str]; 8] = [
    &["-vvv"],
    &["-vvv", "--json"],
    &["-q"],
    &[],
    &["-v"],
    &["-q", "--json"],
    &["--json"],
    &["-v", "--json"],
];

/// A home full of canaries.
struct Nest {
    home: Home,
    canaries: Canaries,
    round: usize,
}

impl Nest {
    fn new() -> Self {
        let home = Home::new();
        let mut canaries = Canaries::default();
        for name in [
            "passphrase",
            "new-passphrase",
            "wrong-passphrase",
            "admin-secret",
            "seed",
        ] {
            let secret = random(32);
            home.secret_file(name, &format!("{secret}\n"));
            canaries.add(name, secret.as_bytes());
        }
        Self {
            home,
            canaries,
            round: 0,
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.home.command(args);
        command
            .env("RUST_LOG", "trace")
            .env("RUST_BACKTRACE", "full");
        command
    }

    /// Knows the private parts of a key from now on.
    fn learn(&mut self, name: &str) {
        let export = self.command(&[
            "export",
            name,
            "--passphrase-file",
            "passphrase",
            "--no-passphrase",
            "--insecure",
        ]);
        let pem = Run::of({ export }.output().unwrap()).ok().stdout;
        for (n, part) in private_parts(&pem).iter().enumerate() {
            self.canaries
                .add(&format!("part {n} of {name}"), &part[..32]);
        }
    }

    /// Searches what a run said; `stdout` is excused for the two commands that print secrets.
    #[track_caller]
    fn check(&self, run: &Run, stdout_excused: bool) {
        let what = format!("{run:?}");
        assert!(!run.stderr.contains("panicked"), "{what}");
        if !stdout_excused {
            self.canaries
                .absent(run.stdout.as_bytes(), &format!("stdout of {what}"));
        }
        self.canaries
            .absent(run.stderr.as_bytes(), &format!("stderr of {what}"));
    }

    /// Runs a command loud, loud in JSON and in one of the other ways, and searches what it says.
    #[track_caller]
    fn run(&mut self, args: &[&str], code: Option<i32>) {
        self.round += 1;
        for flags in [LOUDNESS[0], LOUDNESS[1], LOUDNESS[2 + self.round % 6]] {
            let run = Run::of(self.command(&join(&[flags, args])).output().unwrap());
            if let Some(code) = code {
                assert_eq!(run.code, Some(code), "{args:?} {flags:?}: {run:?}");
            }
            let printed = run.code == Some(0) && matches!(args[0], "token" | "export");
            self.check(&run, printed);
        }
    }

    #[track_caller]
    fn files(&self) {
        let mine = [
            "passphrase",
            "new-passphrase",
            "wrong-passphrase",
            "admin-secret",
            "seed",
            "codes",
            "store/sandbox",
        ];
        self.canaries.absent_from_files(&self.home, &mine);
    }
}

const SEALED: [&str; 2] = ["--passphrase-file", "passphrase"];
const WRONG: [&str; 2] = ["--passphrase-file", "wrong-passphrase"];

#[test]
fn commands_on_this_machine_say_and_keep_no_secret() {
    let mut nest = Nest::new();
    for (name, algorithm) in [("ed", "ed25519"), ("rsa", "rsa-2048")] {
        let run = nest
            .command(&join(&[
                &["generate", name, "--algorithm", algorithm, "-vvv"],
                &SEALED,
            ]))
            .output();
        let run = Run::of(run.unwrap()).ok();
        nest.learn(name);
        nest.check(&run, false);
    }
    for name in ["ed", "rsa"] {
        nest.run(&["show", name], Some(0));
        nest.run(&["public", name], Some(0));
        nest.run(&["fingerprint", name], Some(0));
        nest.run(
            &join(&[&["sign", "auth", name, "--client-id", "abc"], &SEALED]),
            Some(0),
        );
        nest.run(
            &join(&[&["sign", "auth", name, "--client-id", "abc"], &WRONG]),
            Some(7),
        );
        nest.run(
            &join(&[
                &[
                    "sign",
                    "request",
                    name,
                    "--client-id",
                    "abc",
                    "--method",
                    "GET",
                    "--path",
                    "/api/v2/x",
                ],
                &SEALED,
            ]),
            Some(0),
        );
        nest.run(
            &join(&[
                &["passwd", name, "--new-passphrase-file", "new-passphrase"],
                &WRONG,
            ]),
            Some(7),
        );
        nest.run(
            &join(&[&["export", name, "--no-passphrase", "--insecure"], &WRONG]),
            Some(7),
        );
        nest.run(
            &join(&[
                &["export", name, "--new-passphrase-file", "new-passphrase"],
                &SEALED,
            ]),
            Some(0),
        );
        nest.run(
            &join(&[
                &["show", &format!("store/keys/{name}/1/private.pem")],
                &SEALED,
            ]),
            Some(0),
        );
        nest.run(
            &join(&[
                &["show", &format!("store/keys/{name}/1/private.pem")],
                &WRONG,
            ]),
            Some(7),
        );
    }
    nest.run(&["list"], Some(0));
    nest.run(&["status"], Some(0));
    nest.run(&["resume"], Some(0));
    nest.run(&join(&[&["generate", "ed"], &SEALED]), Some(8));
    nest.run(&join(&[&["generate", "n", "--dry-run"], &SEALED]), Some(0));
    nest.run(&["auth", "ed"], Some(8));
    let sealed = join(&[
        &[
            "passwd",
            "ed",
            "--new-passphrase-file",
            "new-passphrase",
            "-vvv",
        ],
        &SEALED,
    ]);
    let run = Run::of(nest.command(&sealed).output().unwrap()).ok();
    nest.check(&run, false);
    nest.run(
        &join(&[&["sign", "auth", "ed", "--client-id", "abc"], &SEALED]),
        Some(7),
    );
    nest.run(&["delete", "rsa", "--dry-run"], Some(0));
    let run = Run::of(nest.command(&["delete", "rsa", "-vvv"]).output().unwrap()).ok();
    nest.check(&run, false);
    // A secret where another thing belongs.
    nest.run(
        &["import", "n", "passphrase", "--no-passphrase", "--insecure"],
        Some(7),
    );
    nest.run(&["public", "./passphrase"], Some(7));
    nest.run(
        &[
            "generate",
            "n",
            "--passphrase-command",
            "cat passphrase new-passphrase",
        ],
        Some(3),
    );
    nest.run(
        &[
            "generate",
            "n",
            "--passphrase-command",
            "sh -c 'cat passphrase; exit 3'",
        ],
        Some(3),
    );
    let secret = fs::read_to_string(nest.home.path("passphrase")).unwrap();
    nest.home.secret_file(
        "store/config.toml",
        &format!("passphrase = \"{}\"\n", secret.trim()),
    );
    nest.run(&["list"], Some(3));
    fs::write(nest.home.path("store/config.toml"), secret.trim()).unwrap();
    nest.run(&["list"], Some(3));
    fs::remove_file(nest.home.path("store/config.toml")).unwrap();
    for file in ["key.toml", "public.pem", "private.pem"] {
        fs::write(nest.home.path("store/keys/ed/1").join(file), &secret).unwrap();
        nest.run(
            &join(&[&["sign", "auth", "ed", "--client-id", "abc"], &SEALED]),
            None,
        );
        nest.run(&["list"], None);
        fs::write(nest.home.path("store/keys/ed/1").join(file), "gone").unwrap();
    }
    nest.files();
}

/// The faults that a registration meets, and in which call.
const FAULTS: [&str; 20] = [
    "auth:echo",
    "auth:garbage",
    "auth:both",
    "auth:truncate",
    "auth:wrong-scope",
    "auth:wrong-testnet",
    "auth:wrong-id",
    "auth:unauthorized",
    "auth:500",
    "create_api_key:echo",
    "create_api_key:garbage",
    "create_api_key:both",
    "create_api_key:drop-after",
    "create_api_key:hmac-secret",
    "create_api_key:wrong-key",
    "create_api_key:wrong-fingerprint",
    "create_api_key:wrong-name",
    "create_api_key:wrong-scope",
    "list_api_keys:echo",
    "edit_api_key:echo",
];

fn registration_says_nothing(faults: &[&str]) {
    let mut nest = Nest::new();
    for fault in faults {
        let _ = fs::remove_dir_all(nest.home.store());
        let server = Server::start(&nest.home, &["--fault", fault]);
        let secret = fs::read_to_string(&server.admin_secret_file).unwrap();
        nest.canaries.add(
            "the sandbox administrator's secret",
            secret.trim().as_bytes(),
        );
        let provision = join(&[
            &[
                "provision",
                "bot",
                "--scope",
                "account:read",
                "--ip",
                "127.0.0.1",
            ],
            &SEALED,
            &server.admin(),
        ]);
        nest.run(&provision, None);
        nest.run(&["status"], Some(0));
        nest.run(&join(&[&["resume"], &SEALED, &server.admin()]), None);
        let network = server.network();
        for command in ["auth", "token"] {
            let args = join(&[&[command, "bot"], &SEALED, &network]);
            let run = Run::of(nest.command(&join(&[&args, &["-vvv"]])).output().unwrap());
            nest.check(&run, false);
        }
        let wrong = join(&[
            &server.network(),
            &["--admin-client-id", &server.admin_client_id],
        ]);
        let wrong = join(&[
            &[
                "provision",
                "other",
                "--scope",
                "account:read",
                "--admin-secret-file",
                "admin-secret",
            ],
            &SEALED,
            &wrong,
        ]);
        nest.run(&wrong, None);
        nest.files();
    }
}

#[test]
fn failing_logins_say_and_keep_no_secret() {
    registration_says_nothing(&FAULTS[..7]);
}

#[test]
fn failing_registrations_say_and_keep_no_secret() {
    registration_says_nothing(&FAULTS[7..14]);
}

#[test]
fn wrong_answers_to_registrations_say_and_keep_no_secret() {
    registration_says_nothing(&FAULTS[14..]);
}

#[test]
fn codes_and_seeds_are_neither_said_nor_kept() {
    for fault in [
        "create_api_key:challenge",
        "create_api_key:echo:2",
        "create_api_key:wrong-rp-id",
        "create_api_key:both:2",
    ] {
        let mut nest = Nest::new();
        let server = Server::start(&nest.home, &["--totp-seed-file", "seed", "--fault", fault]);
        // Five failures in all would bring a pause of a minute, which is waited out.
        let codes: Vec<String> = (0..2).map(|_| format!("{:06}", fastrand())).collect();
        nest.home.secret_file("codes", &(codes.join("\n") + "\n"));
        for code in &codes {
            nest.canaries.add_raw("one-time code", code.as_bytes());
            nest.canaries.add_raw(
                "one-time code, reversed",
                code.chars().rev().collect::<String>().as_bytes(),
            );
            let hex: String = code.bytes().map(|b| format!("{b:02x}")).collect();
            nest.canaries.add_raw("one-time code, hex", hex.as_bytes());
            nest.canaries.add_raw(
                "one-time code, base64",
                BASE64_STANDARD_NO_PAD.encode(code).as_bytes(),
            );
        }
        let provision = join(&[
            &[
                "provision",
                "bot",
                "--scope",
                "account:read",
                "--no-passphrase",
                "--insecure",
            ],
            &server.admin(),
        ]);
        for flags in &LOUDNESS[..2] {
            let args = join(&[&provision, &["--totp-fd", "3"], flags]);
            let command = under(
                &["sh", "-c", "exec \"$0\" \"$@\" 3<codes"],
                &nest.command(&args),
            );
            let run = Run::of({ command }.output().unwrap());
            assert_ne!(run.code, Some(0), "{fault}: {run:?}");
            nest.check(&run, false);
        }
        for args in [
            join(&[&provision, &["--totp-command", "cat codes", "-vvv"]]),
            join(&[&provision, &["--totp-command", "cat seed", "-vvv"]]),
            // No seed at all: its codes would each wait for a half minute of their own.
            join(&[&provision, &["--totp-seed-file", "codes", "-vvv"]]),
        ] {
            let run = Run::of(nest.command(&args).output().unwrap());
            nest.check(&run, false);
        }
        nest.canaries.absent_from_files(
            &nest.home,
            &[
                "passphrase",
                "new-passphrase",
                "wrong-passphrase",
                "admin-secret",
                "seed",
                "codes",
                "store/sandbox",
                "store/keys/bot",
            ],
        );
    }
}

/// Six digits that are unlikely to occur by chance: no run of a timestamp.
fn fastrand() -> u32 {
    let mut bytes = [0; 4];
    fs::File::open("/dev/urandom")
        .unwrap()
        .read_exact(&mut bytes)
        .unwrap();
    u32::from_le_bytes(bytes) % 1_000_000
}

/// What a hostile exchange may answer to a login that it has seen the inside of.
fn hostile(kind: usize, token: &str, params: &Value) -> Value {
    let told = format!("\u{1b}]0;{token}\u{7}\r\n{params}");
    match kind {
        0 => {
            json!({"error": {"code": 13004, "message": told, "data": {"reason": told, "param": token, "wait": token}}})
        }
        1 => {
            json!({"result": {"access_token": [token], "refresh_token": token, "expires_in": token, "scope": "account:read"}})
        }
        2 => {
            json!({"result": {"access_token": token, "refresh_token": {token: token}, "expires_in": 9, "scope": [token]}})
        }
        3 => {
            json!({"result": {"access_token": token, "expires_in": 9, "scope": format!("account:read {token}:read_write")}})
        }
        4 => json!({"result": token, token: token}),
        5 => {
            json!({"result": {"security_key_authorization_required": true, "challenge": token, "rp_id": token, "security_keys": [{"type": token}]}})
        }
        6 => json!({"error": {"code": token, "message": token}}),
        7 => {
            json!({"result": {"access_token": format!("{token}\n\r\u{7f}é"), "refresh_token": token, "expires_in": 9, "scope": "account:read"}})
        }
        _ => json!({"error": {"code": -1, "message": token.repeat(20_000)}}),
    }
}

#[test]
fn tokens_are_said_by_the_token_command_alone_and_never_kept() {
    let mut nest = Nest::new();
    let (access, refresh) = (random(40), random(40));
    nest.canaries.add("access token", access.as_bytes());
    nest.canaries.add("refresh token", refresh.as_bytes());
    let (a, r) = (access.clone(), refresh.clone());
    let fake = Fake::start(move |method, _| {
        Some(match method {
            "public/auth" => {
                json!({"result": {"access_token": a, "refresh_token": r, "expires_in": 900, "scope": "account:read_write session:derikey", "token_type": "bearer"}})
            }
            "public/get_time" => json!({"result": 1}),
            // It tells what it was told, as a private call carries the token.
            _ => {
                json!({"error": {"code": 13009, "message": format!("token {a}"), "data": {"reason": a, "param": r}}})
            }
        })
    });
    let run = Run::of(
        nest.command(&join(&[&["generate", "k"], &SEALED]))
            .output()
            .unwrap(),
    );
    nest.check(&run.ok(), false);
    nest.learn("k");
    let adopt = join(&[
        &["adopt", "k", "--client-id", "abc"],
        &SEALED,
        &fake.network(),
    ]);
    nest.run(&adopt, Some(0));
    nest.run(&join(&[&["auth", "k"], &SEALED]), Some(0));
    nest.run(
        &join(&[&["auth", "k", "--scope", "trade:read"], &SEALED]),
        Some(11),
    );
    nest.run(&join(&[&["token", "k"], &SEALED]), Some(0));
    let said = Run::of(
        nest.command(&join(&[&["token", "k"], &SEALED]))
            .output()
            .unwrap(),
    );
    assert!(said.stdout.contains(&access) && !said.stdout.contains(&refresh));
    nest.run(
        &join(&[&["token", "k", "--scope", "trade:read"], &SEALED]),
        Some(11),
    );
    for admin in [
        vec!["--admin", "k"],
        vec![
            "--admin-client-id",
            "abc",
            "--admin-secret-file",
            "admin-secret",
        ],
    ] {
        let provision = join(&[
            &["provision", "n", "--scope", "account:read"],
            &SEALED,
            &fake.network(),
            &admin,
        ]);
        nest.run(&provision, None);
    }
    nest.files();
}

#[test]
fn a_token_that_breaks_out_of_a_header_or_a_shell_is_none() {
    let home = Home::new();
    home.run(&["generate", "k", "--no-passphrase", "--insecure"])
        .ok();
    let bad = [
        "a\nX: y",
        "a\r",
        "a b",
        "a;id",
        "$(id)",
        "`id`",
        "a'b",
        "a\"b",
        "a\u{1b}[2J",
        "\u{e9}",
        "",
        "a&b",
        "a\\b",
    ];
    let next = std::sync::atomic::AtomicUsize::new(0);
    let fake = Fake::start(move |_, _| {
        let n = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let token = n
            .checked_sub(1)
            .map_or("1582628593469.1MbQ-J_4.CBP~+/=", |n| bad[n]);
        Some(json!({"result": {"access_token": token, "expires_in": 9, "scope": "account:read"}}))
    });
    home.run(&join(&[
        &["adopt", "k", "--client-id", "abc"],
        &fake.network(),
    ]))
    .ok();
    for _ in bad {
        home.run(&["token", "k", "--format", "env"]).fails(5);
    }
}

#[test]
fn a_hostile_exchange_makes_it_say_nothing_and_send_nothing_to_the_terminal() {
    for kind in 0..9 {
        let mut nest = Nest::new();
        let token = random(40);
        nest.canaries.add("token", token.as_bytes());
        let fake = Fake::start(move |_, params| Some(hostile(kind, &token, params)));
        let plain = ["--no-passphrase", "--insecure"];
        nest.home.run(&join(&[&["generate", "k"], &plain])).ok();
        nest.learn("k");
        for args in [
            join(&[&["adopt", "k", "--client-id", "abc"], &fake.network()]),
            join(&[
                &[
                    "provision",
                    "n",
                    "--scope",
                    "account:read",
                    "--admin-client-id",
                    "abc",
                ],
                &["--admin-secret-file", "admin-secret"],
                &plain,
                &fake.network(),
            ]),
        ] {
            for flags in &LOUDNESS[..2] {
                let run = Run::of(nest.command(&join(&[&args, flags])).output().unwrap());
                // A word that is no area says nothing about rights.
                assert!(run.code != Some(0) || kind == 3, "{kind}: {run:?}");
                nest.check(&run, false);
                let said = run.stdout.clone() + &run.stderr;
                assert!(
                    said.chars().all(|c| c == '\n' || !c.is_control()),
                    "{kind}: {run:?}"
                );
                assert!(said.len() < 4000, "{kind}: {run:?}");
            }
        }
        nest.canaries.absent_from_files(
            &nest.home,
            &[
                "passphrase",
                "new-passphrase",
                "wrong-passphrase",
                "admin-secret",
                "seed",
                "store/keys/k/1/private.pem",
            ],
        );
    }
}

/// Names that a reader of manuals might expect to work.
const NAMES: [&str; 40] = [
    "DERIKEY_PASSPHRASE",
    "DERIKEY_PASSWORD",
    "DERIKEY_PASSPHRASE_FILE",
    "DERIKEY_PASSPHRASE_COMMAND",
    "DERIKEY_PASSPHRASE_FD",
    "DERIKEY_NEW_PASSPHRASE",
    "DERIKEY_INPUT_PASSPHRASE",
    "DERIKEY_ADMIN",
    "DERIKEY_ADMIN_SECRET",
    "DERIKEY_ADMIN_SECRET_FILE",
    "DERIKEY_ADMIN_CLIENT_ID",
    "DERIKEY_ADMIN_CLIENT_SECRET",
    "DERIKEY_ADMIN_PASSPHRASE",
    "DERIKEY_CLIENT_ID",
    "DERIKEY_CLIENT_SECRET",
    "DERIKEY_SECRET",
    "DERIKEY_TOKEN",
    "DERIKEY_ACCESS_TOKEN",
    "DERIKEY_TOTP",
    "DERIKEY_TOTP_SEED",
    "DERIKEY_TOTP_SEED_FILE",
    "DERIKEY_TOTP_COMMAND",
    "DERIKEY_TOTP_CODE",
    "DERIKEY_OTP",
    "DERIKEY_2FA",
    "DERIKEY_KEY",
    "DERIKEY_PRIVATE_KEY",
    "DERIKEY_SEED",
    "DERIKEY_CONFIG",
    "DERIKEY_INSECURE",
    "DERIKEY_NO_PASSPHRASE",
    "DERIKEY_ENDPOINT",
    "DERIBIT_CLIENT_ID",
    "DERIBIT_CLIENT_SECRET",
    "DERIBIT_ACCESS_TOKEN",
    "DERIBIT_API_KEY",
    "DERIBIT_API_SECRET",
    "DERIBIT_PRIVATE_KEY",
    "PASSPHRASE",
    "TOTP_SEED",
];

#[test]
fn secrets_in_the_environment_have_no_effect_and_never_appear() {
    let mut nest = Nest::new();
    let canary = random(40);
    nest.canaries.add("environment", canary.as_bytes());
    nest.home
        .run(&join(&[&["generate", "sealed"], &SEALED]))
        .ok();
    let fake = Fake::start(|_, _| {
        Some(json!({"error": {"code": 13004, "message": "invalid_credentials"}}))
    });
    let provision = ["provision", "n", "--scope", "account:read"];
    for args in [
        vec!["generate", "n"],
        vec!["generate", "n", "--no-passphrase"],
        join(&[&provision, &["--no-passphrase", "--insecure"]]),
        join(&[&provision, &SEALED, &fake.network()]),
        join(&[
            &provision,
            &SEALED,
            &fake.network(),
            &["--admin-client-id", "abc"],
        ]),
        vec!["sign", "auth", "sealed"],
        vec!["sign", "auth", "sealed", "--client-id", "abc"],
        vec!["passwd", "sealed"],
        vec!["list"],
        vec!["show", "sealed"],
    ] {
        let without = Run::of(nest.command(&args).output().unwrap());
        let mut command = nest.command(&join(&[&args, &["-vvv"]]));
        command.envs(NAMES.map(|name| (name, &canary)));
        let with = Run::of(command.output().unwrap());
        assert_eq!(with.code, without.code, "{args:?}: {with:?}");
        assert_eq!(with.stdout, without.stdout, "{args:?}");
        nest.check(&with, false);
    }
    nest.files();
}

#[test]
fn help_shows_no_value_of_the_environment() {
    let nest = Nest::new();
    let canary = random(40);
    let mut canaries = Canaries::default();
    canaries.add("environment", canary.as_bytes());
    let mut waiting = vec![Vec::<String>::new()];
    let mut seen = 0;
    while let Some(path) = waiting.pop() {
        for help in ["--help", "-h"] {
            let args: Vec<&str> = path.iter().map(String::as_str).chain([help]).collect();
            let mut command = Command::new(env!("CARGO_BIN_EXE_derikey"));
            command.args(&args).envs(NAMES.map(|name| (name, &canary)));
            for name in [
                "DERIKEY_HOME",
                "DERIKEY_NETWORK",
                "XDG_DATA_HOME",
                "CREDENTIALS_DIRECTORY",
                "HOME",
            ] {
                command.env(name, &canary);
            }
            let run = Run::of(command.current_dir(nest.home.path("")).output().unwrap()).ok();
            canaries.absent(run.stdout.as_bytes(), "help");
            canaries.absent(run.stderr.as_bytes(), "help");
            if help == "-h" {
                seen += 1;
                let commands = run
                    .stdout
                    .lines()
                    .skip_while(|line| *line != "Commands:")
                    .skip(1);
                for line in commands.take_while(|line| !line.is_empty()) {
                    let name = line.split_whitespace().next().unwrap();
                    if name != "help" {
                        waiting.push(path.iter().cloned().chain([name.to_owned()]).collect());
                    }
                }
            }
        }
    }
    assert!(seen > 20, "only {seen} pages of help were found");
}

/// The process that a process started, once it is there.
pub(crate) fn child_of(pid: u32) -> u32 {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let text =
            fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        if let Some(child) = text.split_whitespace().next() {
            return child.parse().unwrap();
        }
        assert!(Instant::now() < deadline, "no child came");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Ends a process and those that it started when a test is over.
pub(crate) struct Started(pub(crate) Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn neither_arguments_nor_environment_of_a_process_hold_a_secret() {
    let nest = Nest::new();
    let server = Server::start(
        &nest.home,
        &[
            "--totp-seed-file",
            "seed",
            "--fault",
            "create_api_key:challenge",
        ],
    );
    let provision = join(&[
        &["provision", "n", "--scope", "account:read"],
        &server.admin(),
    ]);
    for args in [
        // Before anything is read, and when everything is.
        join(&[
            &provision,
            &[
                "--passphrase-command",
                "sh -c 'cat passphrase; exec sleep 5'",
            ],
        ]),
        join(&[
            &provision,
            &SEALED,
            &["--totp-command", "sh -c 'cat codes; exec sleep 5'"],
        ]),
    ] {
        let mut command = nest.command(&args);
        let process = Started(
            command
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        );
        let child = child_of(process.0.id());
        std::thread::sleep(Duration::from_millis(200));
        for pid in [process.0.id(), child] {
            for file in ["cmdline", "environ"] {
                let path = PathBuf::from(format!("/proc/{pid}/{file}"));
                let Ok(text) = read_as_root(&path) else {
                    left_out("arguments and environment of a process of root's: not looked at");
                    continue;
                };
                assert!(!text.is_empty(), "{}", path.display());
                nest.canaries.absent(&text, &path.display().to_string());
            }
        }
    }
}

fn read_as_root(path: &Path) -> std::io::Result<Vec<u8>> {
    fs::read(path)
}

/// Debug output of what holds secrets is the one place where they turn up unasked.
mod debug {
    use std::collections::BTreeMap;

    use derikey::{
        exchange::{
            Authority, Challenge, ClientId, Exchange, Incoming, Login, LoginScope, Network,
            Outcome, Outgoing, Session, Totp, Transport, Unattended,
        },
        key::{Algorithm, PrivateKey, Stamp, SymmetricKey, Timestamp},
        provision::{Desk, Operator, Work},
        sandbox::Options,
        secret::{
            AccessToken, ClientSecret, OneTimeCode, Passphrase, RefreshToken, Secret, TotpSeed,
        },
        signer::{self, LocalSigner, Stamper},
        store::{Moment, Store},
    };
    use zeroize::Zeroizing;

    use super::{Canaries, private_parts, random};

    #[derive(Debug)]
    struct Frozen;

    impl Stamper for Frozen {
        fn stamp(&self) -> Result<Stamp, signer::Error> {
            Ok(Stamp {
                timestamp: Timestamp(1),
                nonce: "abcdefgh".parse().unwrap(),
            })
        }
    }

    #[derive(Debug)]
    struct Deaf;

    impl Transport for Deaf {
        async fn post(&self, _: Outgoing) -> Result<Incoming, derikey::exchange::Error> {
            unreachable!()
        }
        async fn pause(&self, _: std::time::Duration) {}
    }

    #[test]
    fn debug_output_of_secret_holders_shows_no_content() {
        let canary = random(32);
        let mut canaries = Canaries::default();
        canaries.add("secret", canary.as_bytes());
        let mut rng = rand_core::UnwrapErr(getrandom::SysRng);
        let text = || canary.clone();
        let id: ClientId = "abc".parse().unwrap();
        let mut said = vec![
            format!("{:#?}", Passphrase::new(text())),
            format!("{:#?}", AccessToken::new(text())),
            format!("{:#?}", RefreshToken::new(text())),
            format!("{:#?}", ClientSecret::new(text())),
            format!("{:#?}", OneTimeCode::new(text())),
            format!("{:#?}", TotpSeed::new(text())),
            format!("{:#?}", Secret::new(canary.as_bytes().to_vec())),
            format!("{:#?}", Totp::new(&TotpSeed::new(text())).unwrap()),
            format!("{:#?}", SymmetricKey::new(&ClientSecret::new(text()))),
            format!("{:#?}", Authority::Bearer(&AccessToken::new(text()))),
        ];
        let body = || Zeroizing::new(format!("{{\"x\":\"{canary}\"}}").into_bytes());
        said.push(format!(
            "{:?}",
            Incoming {
                status: 200,
                body: body()
            }
        ));
        said.push(format!(
            "{:?}",
            Outgoing {
                method: "public/auth",
                body: body(),
                authorization: Some(Zeroizing::new(text()))
            }
        ));
        let reply = serde_json::json!({"access_token": canary, "refresh_token": canary, "expires_in": 1, "scope": "account:read"});
        let session: Session = serde_json::from_value(reply).unwrap();
        said.push(format!("{session:?} {:?}", Outcome::Done(&session)));
        let demand = serde_json::json!({"challenge": canary});
        let challenge: Challenge = serde_json::from_value(demand).unwrap();
        said.push(format!(
            "{challenge:?} {:?}",
            Outcome::<()>::Challenged(challenge.clone())
        ));
        let (secret, token) = (ClientSecret::new(text()), RefreshToken::new(text()));
        let scope = LoginScope::default();
        said.push(format!(
            "{:?}",
            Login::with_secret(&secret, &id, &Frozen.stamp().unwrap(), scope.clone())
        ));
        said.push(format!(
            "{:?}",
            Login::RefreshToken {
                refresh_token: &token
            }
        ));
        said.push(format!(
            "{:?}",
            Login::ClientCredentials {
                client_id: &id,
                client_secret: &secret,
                scope
            }
        ));
        let operator = Operator::Secret {
            client_id: id.clone(),
            secret: &secret,
            stamper: &Frozen,
        };
        said.push(format!("{operator:?}"));
        let exchange = Exchange::new(Deaf, Network::Test);
        let mut unattended = Unattended;
        let desk = Desk::new(&exchange, operator, &mut unattended);
        said.push(format!("{desk:?}"));
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("keys")).unwrap();
        let work = Work {
            store: &store,
            desk,
            tell: Box::new(|_| ()),
            now: || Moment(std::time::SystemTime::UNIX_EPOCH),
            seen: BTreeMap::default(),
        };
        said.push(format!("{work:?}"));
        said.push(format!(
            "{:?}",
            Options {
                state_dir: "x".into(),
                listen: ([127, 0, 0, 1], 0).into(),
                faults: Vec::new(),
                totp_seed: Some(text())
            }
        ));
        for algorithm in [Algorithm::Ed25519, Algorithm::Rsa2048] {
            let key = PrivateKey::generate(algorithm, &mut rng).unwrap();
            for part in private_parts(&key.to_plain_pem().unwrap()) {
                canaries.add("part of a key", &part[..32]);
            }
            said.push(format!("{key:?}"));
            said.push(format!("{:?}", LocalSigner::new(key, Frozen)));
        }
        for text in said {
            canaries.absent(text.as_bytes(), "Debug output");
            assert!(!text.is_empty(), "it says what it is");
        }
    }
}
