//! An exchange that means harm: answers that are none, answers without end, and answers that
//! give back what they were told, in the hope that it is printed.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    scene::{ENOUGH_MEMORY, Measured, NAME, SCOPE, Scene, is_tame, measure, says_why},
    support::{Run, installed},
};

/// What the fake exchange gives away, and wants to see printed.
const ACCESS_TOKEN: &str = "1582628593469.1MbQ-J_4.CBP-OqOwm_FBdMYj4cRK2dMXyHPfBtXGpzLxhWg31nHu3H_Q60FpE5_vqUBEQGSiMrIGzw3nC37NMb9d1tpBNqBOM_Ql9pXOmgtV9Yj3Pq1c6BqC6";
const REFRESH_TOKEN: &str = "1582629193469.1GP4rQd0.A9Wa78o5kFRIUP49mScaD1CqHgiK50HOl2VA6kCtWa8BQZU5Dr03BhcbXPNEdh3I_MVixKZXnyoBeKJwLl8LXnfo180ckAiPj3zOclcUu4zkXuF3NNP3sTPcDf1B3C1CwMKkJ1NOcf1yPmRbsrd7hbgQ-hLa40tfx6Oa-85ymm_3Z65LZcnCeLrqlj_A9jM";
const CODE: &str = "918273";
const ADMIN_SECRET: &str = "xzsY-9QeT0sPiMqXw2Zr1nKbLhVfCgDuE8aJtRmO4yI";

/// A request as the fake exchange got it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    head: String,
    pub(crate) body: Value,
}

impl Request {
    pub(crate) fn method(&self) -> &str {
        self.body["method"].as_str().unwrap_or_default()
    }

    pub(crate) fn answer(&self, result: &Value) -> Vec<u8> {
        let envelope = json!({"jsonrpc": "2.0", "id": self.body["id"], "result": result});
        ok(&envelope.to_string())
    }

    pub(crate) fn error(&self, error: &Value) -> Vec<u8> {
        let envelope = json!({"jsonrpc": "2.0", "id": self.body["id"], "error": error});
        ok(&envelope.to_string())
    }

    /// What a good exchange answers.
    pub(crate) fn good(&self) -> Vec<u8> {
        let params = &self.body["params"];
        match self.method() {
            "public/auth" => self.answer(&session(SCOPE)),
            "private/create_api_key" => self.answer(&key(params)),
            _ => self.answer(&json!([])),
        }
    }
}

fn session(scope: &str) -> Value {
    json!({
        "access_token": ACCESS_TOKEN, "refresh_token": REFRESH_TOKEN, "expires_in": 899,
        "token_type": "bearer", "scope": format!("{scope} mainaccount session:derikey"),
    })
}

fn key(params: &Value) -> Value {
    json!({
        "id": 7, "client_id": "AbCdEfGh", "name": params["name"], "enabled": true,
        "max_scope": params["max_scope"], "public_key": params["public_key"], "timestamp": 1,
    })
}

/// An answer of JSON, as it goes over the wire.
fn ok(body: &str) -> Vec<u8> {
    with_headers(
        "200 OK",
        "Content-Type: application/json\r\n",
        body.as_bytes(),
    )
}

fn with_headers(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// What the fake exchange does with a request; writes until it is done or nobody reads.
type Manner = dyn Fn(&Request, &mut TcpStream) -> std::io::Result<()> + Send + Sync;

/// A server on a thread; it ends with the process.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Fake {
    pub(crate) fn start(
        manner: impl Fn(&Request, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (manner, log): (Arc<Manner>, _) = (Arc::new(manner), Arc::clone(&seen));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (manner, log) = (Arc::clone(&manner), Arc::clone(&log));
                thread::spawn(move || serve(stream, &manner, &log));
            }
        });
        Self { address, seen }
    }

    /// A good exchange but for one method.
    pub(crate) fn hostile_at(
        method: &'static str,
        manner: impl Fn(&Request, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::start(move |request, stream| {
            if request.method() == method {
                manner(request, stream)
            } else {
                stream.write_all(&request.good())
            }
        })
    }

    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// Provisions a key there, as loudly as can be.
    pub(crate) fn provision(&self, scene: &Scene, more: &[&str]) -> Measured {
        let endpoint = format!("http://{}/api/v2", self.address);
        let secret = scene.home.secret_file("admin", ADMIN_SECRET);
        let mut command = scene.home.command(&["--json", "-vvv", "--timeout", "2"]);
        command
            .args([
                "provision",
                NAME,
                "--scope",
                SCOPE,
                "--no-passphrase",
                "--insecure",
            ])
            .args(["--network", "custom", "--endpoint", &endpoint])
            .args(["--admin-client-id", "admin"])
            .args(["--admin-secret-file", secret.to_str().unwrap()])
            .args(more)
            .env("RUST_LOG", "trace")
            .env("RUST_BACKTRACE", "full");
        measure(command)
    }
}

fn serve(stream: TcpStream, manner: &Arc<Manner>, log: &Mutex<Vec<Request>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(number) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = number.trim().parse().ok()?;
            }
            if line == "\r\n" {
                break;
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let body = serde_json::from_slice(&body).ok()?;
        let request = Request { head, body };
        log.lock().unwrap().push(request.clone());
        manner(&request, &mut stream).ok()?;
    }
}

/// Checks that an output gives nothing away and plays no tricks.
#[track_caller]
fn keeps_quiet(end: &Measured, what: &str) {
    is_tame(&end.run, what);
    let output = format!("{}{}", end.run.stdout, end.run.stderr);
    for secret in [ACCESS_TOKEN, REFRESH_TOKEN, CODE, ADMIN_SECRET] {
        // Any eight characters of it are too many.
        for piece in secret.as_bytes().windows(secret.len().min(8)) {
            let piece = std::str::from_utf8(piece).unwrap();
            assert!(!output.contains(piece), "{what}: {piece} in {output}");
        }
    }
}

/// Lets an exchange misbehave at the first call and, separately, when the key is made.
fn misbehaves(
    what: &str,
    manner: impl Fn(&Request, &mut TcpStream) -> std::io::Result<()> + Send + Sync + Copy + 'static,
) {
    for (method, wanted) in [("public/auth", 5), ("private/create_api_key", 9)] {
        let what = format!("{what} at {method}");
        let fake = Fake::hostile_at(method, manner);
        let scene = Scene::in_clear();
        let end = fake.provision(&scene, &[]);
        assert_eq!(end.run.code, Some(wanted), "{what}: {end:#?}");
        says_why(&end.run, &what);
        keeps_quiet(&end, &what);
        assert!(end.memory < ENOUGH_MEMORY, "{what}: {end:#?}");
        assert!(end.took < Duration::from_secs(15), "{what}: {end:#?}");
        assert_ne!(scene.state().as_deref(), Some("active"), "{what}");
        assert_eq!(scene.pending().len(), usize::from(wanted == 9), "{what}");
        let creations = fake.seen();
        let creations = creations
            .iter()
            .filter(|r| r.method() == "private/create_api_key");
        assert!(creations.count() <= 1, "{what}: made twice");
    }
}

macro_rules! misbehaviour {
    ($($name:ident: $manner:expr;)*) => { $(
        #[test]
        fn $name() {
            misbehaves(stringify!($name), $manner);
        }
    )* };
}

/// Writes something over and over until nobody reads any more.
fn for_ever(stream: &mut TcpStream, piece: &[u8], pause: Duration) -> std::io::Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(30) {
        stream.write_all(piece)?;
        if !pause.is_zero() {
            thread::sleep(pause);
        }
    }
    Ok(())
}

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
const TICK: Duration = Duration::from_millis(100);

misbehaviour! {
    a_flood_of_headers_is_cut_off: |_, stream| {
        stream.write_all(HEAD)?;
        stream.write_all("X-Flood: yes\r\n".repeat(100_000).as_bytes())?;
        stream.write_all(b"Content-Length: 2\r\n\r\n{}")
    };
    headers_without_end_are_cut_off: |_, stream| {
        stream.write_all(HEAD)?;
        for_ever(stream, &b"X-Flood: yes\r\n".repeat(1000), Duration::ZERO)
    };
    a_header_without_end_is_cut_off: |_, stream| {
        stream.write_all(HEAD)?;
        stream.write_all(b"X-Long: ")?;
        for_ever(stream, &[b'a'; 65536], Duration::ZERO)
    };
    headers_that_trickle_end_at_the_deadline: |_, stream| {
        stream.write_all(HEAD)?;
        for_ever(stream, b"X-Slow: yes\r\n", TICK)
    };
    silence_ends_at_the_deadline: |_, _| {
        thread::sleep(Duration::from_secs(10));
        Ok(())
    };
    a_body_of_a_gigabyte_is_cut_off: |_, stream| {
        stream.write_all(HEAD)?;
        stream.write_all(b"Content-Length: 1073741824\r\n\r\n{")?;
        for_ever(stream, &[b' '; 65536], Duration::ZERO)
    };
    a_body_without_a_length_is_cut_off: |_, stream| {
        stream.write_all(HEAD)?;
        stream.write_all(b"Connection: close\r\n\r\n{")?;
        for_ever(stream, &[b' '; 65536], Duration::ZERO)
    };
    a_body_that_trickles_ends_at_the_deadline: |request, stream| {
        let answer = request.good();
        let split = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 5;
        stream.write_all(&answer[..split])?;
        for byte in &answer[split..] {
            thread::sleep(TICK);
            stream.write_all(&[*byte])?;
        }
        Ok(())
    };
    chunks_without_end_are_cut_off: |_, stream| {
        stream.write_all(HEAD)?;
        stream.write_all(b"Transfer-Encoding: chunked\r\n\r\n")?;
        for_ever(stream, &b"10\r\n                \r\n".repeat(1000), Duration::ZERO)
    };
    a_chunk_extension_without_end_is_cut_off: |_, stream| {
        stream.write_all(HEAD)?;
        stream.write_all(b"Transfer-Encoding: chunked\r\n\r\n1;a=")?;
        for_ever(stream, &[b'a'; 65536], Duration::ZERO)
    };
    trailers_without_end_are_cut_off: |_, stream| {
        stream.write_all(HEAD)?;
        stream.write_all(b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n")?;
        for_ever(stream, &b"X-Trailer: yes\r\n".repeat(1000), Duration::ZERO)
    };
    a_status_line_that_is_none_is_refused: |_, stream| {
        stream.write_all(b"\x1b[31mGARBAGE\x1b[0m\r\n\r\n")?;
        Err(std::io::ErrorKind::Other.into())
    };
    two_lengths_are_refused: |request, stream| {
        let body = String::from_utf8_lossy(&request.good()).into_owned();
        let body = body.split_once("\r\n\r\n").unwrap().1.to_owned();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nContent-Length: 5\r\n\r\n", body.len());
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())
    };
    an_answer_with_a_byte_order_mark_is_refused: |request, stream| {
        let good = String::from_utf8_lossy(&request.good()).into_owned();
        let (_, body) = good.split_once("\r\n\r\n").unwrap();
        stream.write_all(&ok(&format!("\u{feff}{body}")))
    };
    an_answer_with_status_200_and_html_is_refused: |_, stream| {
        stream.write_all(&with_headers("200 OK", "Content-Type: text/html\r\n", b"<html><script>alert(1)</script>"))
    };
    an_answer_without_content_is_refused: |_, stream| {
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
    };
}

#[test]
fn json_that_is_no_answer_is_refused() {
    let deep = "[".repeat(200_000);
    let bodies: Vec<String> = vec![
        String::new(),
        "null".into(),
        "[]".into(),
        "{}".into(),
        r#"{"jsonrpc":"2.0","id":1,"result":NaN}"#.into(),
        r#"{"jsonrpc":"2.0","id":1,"result":1e999}"#.into(),
        r#"{"jsonrpc":"2.0","id":1,"result":{},"result":{}}"#.into(),
        r#"{"jsonrpc":"2.0","id":1,"id":2,"result":{}}"#.into(),
        r#"{"jsonrpc":"2.0","id":999,"result":{}}"#.into(),
        r#"{"jsonrpc":"2.0","id":{"a":1},"result":{}}"#.into(),
        r#"{"jsonrpc":"2.0","id":null,"result":{}}"#.into(),
        r#"{"jsonrpc":"2.0","id":1,"error":"no"}"#.into(),
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":"13004"}}"#.into(),
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":1e400}}"#.into(),
        r#"[{"jsonrpc":"2.0","id":1,"result":{}}]"#.into(),
        format!(r#"{{"jsonrpc":"2.0","id":1,"result":{deep}"#),
        format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"access_token":{deep}"#),
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"result":{{"access_token":{{"x":"{ACCESS_TOKEN}"}},"scope":["{REFRESH_TOKEN}"],"expires_in":"{ACCESS_TOKEN}"}}}}"#
        ),
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"result":{{"access_token":"{ACCESS_TOKEN}","scope":"trade:{ACCESS_TOKEN}","expires_in":-1}}}}"#
        ),
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"result":{{"access_token":"a\nb: {ACCESS_TOKEN}","scope":"account:read_write","expires_in":1}}}}"#
        ),
        format!(r#"{{"jsonrpc":"2.0","id":1,"result":"{ACCESS_TOKEN}"}}"#),
        format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"\u{1b}]0;{ACCESS_TOKEN}\u{7}\"}}"),
    ];
    for body in bodies {
        let what: String = body.chars().take(120).collect();
        let fake = Fake::hostile_at("public/auth", move |_, stream| stream.write_all(&ok(&body)));
        let end = fake.provision(&Scene::in_clear(), &[]);
        // A token that cannot be sent shows when it is.
        assert!(matches!(end.run.code, Some(5 | 9)), "{what}: {end:#?}");
        says_why(&end.run, &what);
        keeps_quiet(&end, &what);
        assert!(end.memory < ENOUGH_MEMORY, "{what}: {end:#?}");
        let created = fake
            .seen()
            .iter()
            .any(|r| r.method() == "private/create_api_key");
        assert!(!created, "{what}: it went on");
    }
}

#[test]
fn a_compressed_bomb_is_neither_asked_for_nor_opened() {
    if !installed("gzip", &["--version"]) {
        return;
    }
    let mut gzip = Command::new("gzip")
        .args(["-9", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = gzip.stdin.take().unwrap();
    let feeder = thread::spawn(move || {
        for _ in 0..200 {
            input.write_all(&vec![b' '; 1024 * 1024]).unwrap();
        }
        let answer = json!({"jsonrpc": "2.0", "id": 1, "result": session(SCOPE)});
        input.write_all(answer.to_string().as_bytes()).unwrap();
    });
    let bomb = gzip.wait_with_output().unwrap().stdout;
    feeder.join().unwrap();
    let fake = Fake::hostile_at("public/auth", move |_, stream| {
        stream.write_all(&with_headers("200 OK", "Content-Encoding: gzip\r\n", &bomb))
    });
    let end = fake.provision(&Scene::in_clear(), &[]);
    assert_eq!(end.run.code, Some(5), "{end:#?}");
    assert!(end.memory < ENOUGH_MEMORY, "{end:#?}");
    for request in fake.seen() {
        assert!(
            !request.head.to_lowercase().contains("accept-encoding"),
            "{request:#?}"
        );
    }
}

#[test]
fn redirects_cookies_and_refreshes_are_not_followed() {
    let trap = TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let elsewhere = trap.local_addr().unwrap();
    for status in [
        "301 M", "302 F", "303 S", "307 T", "308 P", "300 X", "305 U",
    ] {
        for target in [
            format!("http://{elsewhere}/api/v2/public/auth"),
            format!("//{elsewhere}/"),
            "file:///etc/passwd".into(),
            "/api/v2/public/auth".into(),
        ] {
            let what = format!("{status} to {target}");
            let headers = format!("Location: {target}\r\nRefresh: 0; url={target}\r\n");
            // Even with an answer in it.
            let manner = move |request: &Request, stream: &mut TcpStream| {
                let answer = json!({"id": request.body["id"], "result": session(SCOPE)});
                stream.write_all(&with_headers(
                    status,
                    &headers,
                    answer.to_string().as_bytes(),
                ))
            };
            let fake = Fake::hostile_at("public/auth", manner);
            let end = fake.provision(&Scene::in_clear(), &[]);
            assert_eq!(end.run.code, Some(5), "{what}: {end:#?}");
            let error = says_why(&end.run, &what);
            assert!(
                error["message"].as_str().unwrap().contains("redirect"),
                "{what}: {error}"
            );
            keeps_quiet(&end, &what);
            assert_eq!(fake.seen().len(), 1, "{what}: asked again");
            assert!(trap.accept().is_err(), "{what}: it went there");
        }
    }

    let headers = format!(
        "Content-Type: application/json\r\nSet-Cookie: track=me; Path=/\r\n\
         Refresh: 0; url=http://{elsewhere}/\r\nAlt-Svc: h2=\"{elsewhere}\"\r\n\
         Link: <http://{elsewhere}/>; rel=preload\r\nStrict-Transport-Security: max-age=9\r\n"
    );
    let fake = Fake::start(move |request, stream| {
        let good = request.good();
        let split = good.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        stream.write_all(&with_headers("200 OK", &headers, &good[split..]))
    });
    let end = fake.provision(&Scene::in_clear(), &[]);
    assert_eq!(end.run.code, Some(0), "{end:#?}");
    assert!(trap.accept().is_err(), "it went there");
    let seen = fake.seen();
    assert_eq!(seen.len(), 3, "{seen:#?}");
    for request in seen {
        let head = request.head.to_lowercase();
        for word in ["cookie", "referer", "upgrade"] {
            assert!(!head.contains(word), "{head}");
        }
    }
}

#[test]
fn what_an_error_echoes_is_not_printed() {
    let tricks = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}\r\u{8}";
    for method in ["public/auth", "private/create_api_key"] {
        for code in [
            10001,
            13004,
            13009,
            10028,
            11051,
            13403,
            13668,
            12998,
            -32602,
            -32601,
            i64::MAX,
            i64::MIN,
        ] {
            let what = format!("{code} at {method}");
            let fake = Fake::hostile_at(method, move |request, stream| {
                let echo = format!("{tricks} {} {} {ACCESS_TOKEN}", request.head, request.body);
                stream.write_all(&request.error(&json!({
                    "code": code, "message": echo,
                    "data": {"reason": echo, "param": ACCESS_TOKEN, "wait": 4_000_000_000_u64, "more": echo},
                })))
            });
            let end = fake.provision(&Scene::in_clear(), &[]);
            assert!(
                matches!(end.run.code, Some(1 | 4 | 5 | 6 | 9 | 75)),
                "{what}: {end:#?}"
            );
            assert!(
                end.took < Duration::from_secs(10),
                "{what}: it waited: {end:#?}"
            );
            says_why(&end.run, &what);
            keeps_quiet(&end, &what);
        }
    }
    // A megabyte of it.
    let fake = Fake::hostile_at("public/auth", move |request, stream| {
        let message = format!("{tricks}{ACCESS_TOKEN}").repeat(4000);
        stream.write_all(&request.error(&json!({"code": 13004, "message": message})))
    });
    let end = fake.provision(&Scene::in_clear(), &[]);
    assert!(end.run.stderr.len() < 2000, "{end:#?}");
    keeps_quiet(&end, "a megabyte");
}

#[test]
fn a_code_that_is_echoed_is_not_printed_and_not_sent_twice() {
    let fake = Fake::hostile_at("private/create_api_key", |request, stream| {
        if request.body["params"]["authorization_data"].is_string() {
            let echo = request.body["params"].to_string();
            let data = json!({"reason": echo});
            return stream
                .write_all(&request.error(&json!({"code": 13668, "message": echo, "data": data})));
        }
        stream.write_all(&request.answer(&json!({
            "security_key_authorization_required": true, "rp_id": "test.deribit.com",
            "challenge": "x".repeat(44), "security_keys": [{"type": "tfa", "name": "tfa"}],
        })))
    });
    let scene = Scene::in_clear();
    let codes = scene
        .home
        .secret_file("codes", &format!("{CODE}\n{CODE}\n"));
    // The descriptor of a shell's redirection; the second line is the same code again.
    let endpoint = format!("http://{}/api/v2", fake.address);
    let secret = scene.home.secret_file("admin", ADMIN_SECRET);
    let inner = scene
        .home
        .command(&["--json", "-vvv", "provision", NAME, "--scope", SCOPE]);
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("exec \"$@\" 7<'{}'", codes.display()), "sh"])
        .arg(inner.get_program())
        .args(inner.get_args())
        .args(["--no-passphrase", "--insecure", "--totp-fd", "7"])
        .args(["--network", "custom", "--endpoint", &endpoint])
        .args(["--admin-client-id", "admin", "--admin-secret-file"])
        .arg(secret)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let end = measure(command);
    assert_eq!(end.run.code, Some(6), "{end:#?}");
    says_why(&end.run, "echoed code");
    keeps_quiet(&end, "echoed code");
    let seen = fake.seen();
    let sent = seen
        .iter()
        .filter(|r| r.body["params"]["authorization_data"] == CODE);
    assert_eq!(sent.count(), 1, "{seen:#?}");
}

/// An exchange that shows of its keys neither a public key nor a fingerprint, and whose answer to
/// the creations of some numbers is lost, with what became of them.
fn withholding(lost: &'static [usize], carried_out: bool) -> Fake {
    let account: Mutex<(usize, Vec<Value>)> = Mutex::default();
    Fake::start(move |request, stream| {
        let (made, keys) = &mut *account.lock().unwrap();
        let params = &request.body["params"];
        let answer = match request.method() {
            "public/auth" => session(SCOPE),
            "private/create_api_key" => {
                *made += 1;
                let is_lost = lost.contains(made);
                let mut new = key(params);
                new["id"] = json!(6 + *made);
                new["client_id"] = json!(format!("AbCdEfG{made}"));
                let mut shown = new.clone();
                shown.as_object_mut().unwrap().remove("public_key");
                if !is_lost || carried_out {
                    keys.push(shown);
                }
                if is_lost {
                    return Err(std::io::ErrorKind::Other.into());
                }
                new
            }
            "private/list_api_keys" => json!(keys),
            "private/disable_api_key" => {
                let found = keys
                    .iter_mut()
                    .find(|key| key["id"] == params["id"])
                    .unwrap();
                found["enabled"] = json!(false);
                found.clone()
            }
            method => panic!("{method}"),
        };
        stream.write_all(&request.answer(&answer))
    })
}

/// Runs a command against a fake exchange that has been spoken to before.
fn again(fake: &Fake, scene: &Scene, args: &[&str]) -> Run {
    let endpoint = format!("http://{}/api/v2", fake.address);
    let secret = scene.home.path("admin");
    let mut command = scene.home.command(&["--json", "--timeout", "2"]);
    command
        .args(args)
        .args(["--no-passphrase", "--insecure"])
        .args(["--network", "custom", "--endpoint", &endpoint])
        .args(["--admin-client-id", "admin", "--admin-secret-file"])
        .arg(secret);
    Run::of(command.output().unwrap())
}

fn creations(fake: &Fake) -> usize {
    let seen = fake.seen();
    let created = |r: &&Request| r.method() == "private/create_api_key";
    seen.iter().filter(created).count()
}

#[test]
fn a_key_that_may_be_ours_and_does_not_show_it_is_never_made_twice() {
    let fake = withholding(&[1], true);
    let scene = Scene::in_clear();
    let end = fake.provision(&scene, &[]);
    assert_eq!(end.run.code, Some(9), "{end:#?}");
    for args in [
        &["resume"][..],
        &["resume", NAME],
        &["provision", NAME, "--scope", SCOPE],
    ] {
        let run = again(&fake, &scene, args);
        assert_eq!(run.code, Some(11), "{run:#?}");
        let error = says_why(&run, "undecided");
        assert!(
            error["message"].as_str().unwrap().contains("\"bot\""),
            "{error}"
        );
        let hint = error["hint"].as_str().unwrap();
        assert!(hint.contains("web form"), "{error}");
        assert_eq!(scene.pending().len(), 1);
    }
    // Giving it up would have to remove a key that may be another one.
    let run = again(&fake, &scene, &["resume", NAME, "--abandon", "--yes"]);
    assert_eq!(run.code, Some(11), "{run:#?}");
    assert_eq!(scene.pending().len(), 1);
    assert_eq!(creations(&fake), 1, "no second one");
}

#[test]
fn an_earlier_generation_that_shows_nothing_of_itself_is_not_taken_for_the_new_one() {
    for carried_out in [false, true] {
        let fake = withholding(&[2], carried_out);
        let scene = Scene::in_clear();
        let end = fake.provision(&scene, &[]);
        assert_eq!(end.run.code, Some(0), "{end:#?}");
        let run = again(&fake, &scene, &["rotate", NAME]);
        assert_eq!(run.code, Some(9), "{run:#?}");
        let run = again(&fake, &scene, &["resume"]);
        if carried_out {
            assert_eq!(run.code, Some(11), "{run:#?}");
            assert_eq!(creations(&fake), 2);
        } else {
            let done = run.json();
            assert_eq!(done["resumed"][0]["client_id"], "AbCdEfG3", "{done}");
            assert_eq!(scene.pending(), Vec::<Value>::new());
        }
    }
}

#[test]
fn remote_words_play_no_tricks_on_a_terminal() {
    let tricks = "\u{1b}[2J\u{1b}]8;;http://evil\u{7}\u{9b}31m\u{202e}\r\n";
    let fields: [(&str, Value); 9] = [
        ("name", json!(format!("{tricks}{ACCESS_TOKEN}"))),
        ("name", json!({"a": ACCESS_TOKEN})),
        ("client_id", json!(format!("x{tricks}"))),
        (
            "client_id",
            json!(format!("{ACCESS_TOKEN}{}", "x".repeat(100_000))),
        ),
        (
            "max_scope",
            json!(format!("trade:read_write {tricks}:read")),
        ),
        (
            "max_scope",
            json!(format!("trade:read_write {ACCESS_TOKEN}:read")),
        ),
        ("client_secret", json!(format!("{ACCESS_TOKEN}{tricks}"))),
        ("enabled_features", json!([tricks, ACCESS_TOKEN])),
        ("ip_whitelist", json!([tricks, ACCESS_TOKEN])),
    ];
    for (field, value) in fields {
        for plain in [false, true] {
            let what = format!(
                "{field} {}",
                value.to_string().chars().take(60).collect::<String>()
            );
            let told = value.clone();
            let fake = Fake::hostile_at("private/create_api_key", move |request, stream| {
                let mut key = key(&request.body["params"]);
                key[field] = told.clone();
                stream.write_all(&request.answer(&key))
            });
            let scene = Scene::in_clear();
            let end = if plain {
                // For people, without --json.
                let endpoint = format!("http://{}/api/v2", fake.address);
                let secret = scene.home.secret_file("admin", ADMIN_SECRET);
                let mut command =
                    scene
                        .home
                        .command(&["-vvv", "provision", NAME, "--scope", SCOPE]);
                command
                    .args(["--no-passphrase", "--insecure", "--network", "custom"])
                    .args(["--endpoint", &endpoint, "--admin-client-id", "admin"])
                    .arg("--admin-secret-file")
                    .arg(secret);
                measure(command)
            } else {
                fake.provision(&scene, &[])
            };
            let label = field == "name" && value.is_string();
            if label {
                assert_eq!(end.run.code, Some(0), "{what}: {end:#?}");
                is_tame(&end.run, &what);
            } else {
                assert!(matches!(end.run.code, Some(9 | 11)), "{what}: {end:#?}");
                assert_ne!(scene.state().as_deref(), Some("active"), "{what}");
                keeps_quiet(&end, &what);
            }
        }
    }
}

#[test]
fn a_scope_that_is_a_token_is_not_printed() {
    for scope in [
        format!("{SCOPE} {ACCESS_TOKEN}"),
        format!("{SCOPE} {ACCESS_TOKEN}:read"),
        format!("{SCOPE} trade:{ACCESS_TOKEN}"),
        format!("\u{1b}[2J:read_write {SCOPE}"),
    ] {
        let told = scope.clone();
        let fake = Fake::hostile_at("public/auth", move |request, stream| {
            stream.write_all(&request.answer(&session(&told)))
        });
        let end = fake.provision(&Scene::in_clear(), &[]);
        assert!(
            matches!(end.run.code, Some(0 | 5 | 9 | 11)),
            "{scope}: {end:#?}"
        );
        keeps_quiet(&end, &scope);
    }
}

/// The exchange says when a request came to it: whose clock will be refused before long hears of it.
#[test]
fn a_clock_that_drifts_is_warned_of_before_logins_fail() {
    for (off, said) in [
        (-20_999, Some("this clock is 20 s ahead of the exchange's")),
        (20_999, Some("this clock is 20 s behind the exchange's")),
        (-5_000, None),
        (5_000, None),
    ] {
        let fake = Fake::hostile_at("public/auth", move |request, stream| {
            let ours = request.body["params"]["timestamp"].as_i64().unwrap();
            let (id, at) = (&request.body["id"], (ours + off) * 1000);
            let answer = json!({"jsonrpc": "2.0", "id": id, "result": session(SCOPE), "usIn": at});
            stream.write_all(&ok(&answer.to_string()))
        });
        let stderr = fake.provision(&Scene::new(), &[]).run.stderr;
        assert!(stderr.contains(said.unwrap_or_default()), "{off}: {stderr}");
        assert_eq!(
            stderr.contains("this clock is"),
            said.is_some(),
            "{off}: {stderr}"
        );
    }
}
