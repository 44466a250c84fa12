//! Every way in which a call can go wrong, at the call that counts of six operations, and what is
//! left when the exchange is well again.
//!
//! The six: `provision` makes a key, so that its answer is the one that must not be lost; `edit`
//! resends everything that a key may do; `rotate` makes a key and takes another out of use, and is
//! struck at either; `remove` cannot be undone; `auth` is what bots live on, without an
//! administrator; `list --remote` only looks. `token` logs in as `auth` does, and `disable` is a
//! step of `rotate`.

use std::{
    fs,
    io::Write,
    net::TcpListener,
    ops::ControlFlow,
    process::{Command, Stdio},
    sync::{Arc, LazyLock},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    meddler::{Call, Deed, Done, Meddler},
    rotation::Play,
    scene::{
        Account, ENOUGH_MEMORY, Measured, NAME, SCOPE, Scene, base64_of, files, measure, says_why,
    },
    support::{Run, Server, join},
};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Operation {
    Provision,
    Edit,
    /// A rotation, at the call that makes the new key.
    RotateMaking,
    /// A rotation, at the call that takes the old key out of use.
    RotateClosing,
    Remove,
    Auth,
    List,
}

pub(crate) use Operation::{Auth, Edit, List, Provision, Remove, RotateClosing, RotateMaking};

const OPERATIONS: [Operation; 7] = [
    Provision,
    Edit,
    RotateMaking,
    RotateClosing,
    Remove,
    Auth,
    List,
];

/// What an edit makes of the key.
const NARROWER: &str = "account:read";
const OTHER_LABEL: &str = "bot_b";

impl Operation {
    /// The call that counts.
    pub(crate) const fn method(self) -> &'static str {
        match self {
            Provision | RotateMaking => "private/create_api_key",
            Edit => "private/edit_api_key",
            RotateClosing => "private/disable_api_key",
            Remove => "private/remove_api_key",
            Auth => "public/auth",
            List => "private/list_api_keys",
        }
    }
}

/// What a kind of fault comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sort {
    /// No usable answer; the call was not carried out.
    Lost,
    /// No usable answer; the call was carried out.
    LostAfter,
    /// The exchange wants to be asked later.
    Later,
    /// The answer comes from another network than the one before.
    Elsewhere,
    /// Odd, and no harm.
    Harmless,
}

/// The exit code by the table of the manual.
const fn expected(sort: Sort, operation: Operation) -> i32 {
    match (sort, operation) {
        (Sort::Harmless, _) => 0,
        (Sort::Later, _) => 75,
        // It is the only answer there is, and a custom network may be either kind.
        (Sort::Elsewhere, Auth) => 0,
        (Sort::Elsewhere, _) => 11,
        (Sort::Lost | Sort::LostAfter, Auth | List) => 5,
        // The account's list shows the key.
        (Sort::LostAfter, Provision | RotateMaking) => 0,
        (Sort::Lost | Sort::LostAfter, _) => 9,
    }
}

/// A keystore, an exchange, and somebody in between.
pub(crate) struct Stage {
    pub(crate) operation: Operation,
    pub(crate) play: Play,
    pub(crate) meddler: Meddler,
    /// The public half of the key that was there before, if one was.
    before: Option<String>,
}

/// Seconds that a call may take here.
const PATIENCE: &str = "3";

impl Stage {
    pub(crate) fn set(operation: Operation) -> Self {
        let scene = Scene::in_clear();
        let mut server = Server::start(&scene.home, &[]);
        let (account, address) = (Account::of(&server), server.address());
        let meddler = Meddler::before(&mut server);
        let play = Play {
            scene,
            server,
            account,
            address,
        };
        if operation != Provision {
            play.run(&["provision", NAME, "--scope", SCOPE]).ok();
        }
        Self {
            operation,
            before: play.scene.public(),
            play,
            meddler,
        }
    }

    fn command(&self) -> Command {
        let admin = self.play.server.admin();
        let network = self.play.server.network();
        let here = |args: &[&str]| self.play.home().command(&join(&[&["--json"], args]));
        let mut command = match self.operation {
            Provision => self.play.command(&["provision", NAME, "--scope", SCOPE]),
            RotateMaking | RotateClosing => self.play.command(&["rotate", NAME]),
            Edit => {
                let change = ["--scope", NARROWER, "--label", OTHER_LABEL];
                here(&join(&[&["edit", NAME], &change, &admin]))
            }
            Remove => here(&join(&[&["remove", NAME, "--yes"], &admin])),
            Auth => here(&join(&[&["auth", NAME], &network])),
            List => here(&join(&[&["list", "--remote"], &admin])),
        };
        command
            .args(["--timeout", PATIENCE, "-vv"])
            .env("RUST_LOG", "trace")
            .env("RUST_BACKTRACE", "full");
        command
    }

    pub(crate) fn run(&self) -> Measured {
        measure(self.command())
    }

    /// Checks how the operation ended while the exchange was not well.
    #[track_caller]
    pub(crate) fn ends(&self, wanted: i32, end: &Measured, what: &str) {
        assert_eq!(end.run.code, Some(wanted), "{what}: {end:#?}");
        assert!(end.memory < ENOUGH_MEMORY, "{what}: {end:#?}");
        // The call and the look for its outcome may each take their time, and there are pauses.
        assert!(end.took < Duration::from_secs(15), "{what}: {end:#?}");
        let pending = self.play.scene.pending().len();
        match wanted {
            0 | 5 => assert_eq!(pending, 0, "{what}: {end:#?}"),
            9 => assert_eq!(pending, 1, "{what}: 9 promises a resume: {end:#?}"),
            _ => {}
        }
        if wanted != 0 {
            says_why(&end.run, what);
        }
        self.keeps_its_secrets(&end.run, what);
    }

    /// Checks that an output holds no piece of a token, of the administrator's secret or of a key.
    #[track_caller]
    fn keeps_its_secrets(&self, run: &Run, what: &str) {
        let mut secrets = self.meddler.tokens();
        secrets.push(fs::read_to_string(&self.play.server.admin_secret_file).unwrap());
        let halves = files(&self.play.home().store());
        let private = halves.iter().filter(|path| path.ends_with("private.pem"));
        // Its first 21 characters say only that it is an Ed25519 key.
        let lines = private.map(|path| base64_of(&fs::read_to_string(path).unwrap())[22..].into());
        secrets.extend(lines);
        let output = format!("{}{}", run.stdout, run.stderr);
        for secret in secrets {
            let secret = secret.trim().as_bytes();
            for piece in secret.windows(secret.len().min(12)) {
                let piece = std::str::from_utf8(piece).unwrap();
                assert!(!output.contains(piece), "{what}: {piece} in {output}");
            }
        }
    }

    /// Lets the exchange be well again, finishes what was begun, and checks that the operation
    /// has come to its end as if nothing had happened.
    #[track_caller]
    pub(crate) fn settles(&self, end: &Measured, what: &str) {
        self.meddler.calm();
        let resumed = self.play.run(&["resume"]);
        assert_eq!(resumed.code, Some(0), "{what}: {resumed:#?}");
        self.keeps_its_secrets(&resumed, what);
        let unfinished = resumed.json()["resumed"] == json!([]);
        if end.run.code != Some(0) && unfinished {
            let again = self.run();
            assert_eq!(again.run.code, Some(0), "{what}: {again:#?}");
        }
        self.stands(what);
    }

    #[track_caller]
    pub(crate) fn stands(&self, what: &str) {
        let (play, server) = (&self.play, &self.play.server);
        match self.operation {
            Provision | Auth | List => {
                let flags = play.scene.flags(server);
                play.scene.stands(server, false, &flags, what);
            }
            Edit => {
                let keys = play.account.asymmetric();
                assert_eq!(keys.len(), 1, "{what}: {keys:#?}");
                let key = &keys[0];
                let theirs = base64_of(key["public_key"].as_str().unwrap());
                assert_eq!(Some(theirs), self.before, "{what}");
                assert_eq!(key["name"], OTHER_LABEL, "{what}: {key:#}");
                let scope = key["max_scope"].as_str().unwrap().split(' ');
                let scope: Vec<&str> = scope.filter(|area| !area.ends_with(":none")).collect();
                assert_eq!(scope, [NARROWER], "{what}: {key:#}");
                let record = play.record(NAME, "current");
                assert!(record.contains(OTHER_LABEL), "{what}: {record}");
                let login = play.home().run(&["--json", "auth", NAME]);
                let granted = &login.json()["granted_scope"];
                assert_eq!(granted, NARROWER, "{what}: {login:#?}");
            }
            RotateMaking | RotateClosing => {
                play.stands(NAME, what);
                assert_eq!(play.current(NAME), "2", "{what}");
            }
            Remove => {
                let keys = play.account.asymmetric();
                assert!(keys.is_empty(), "{what}: {keys:#?}");
                assert!(!play.dir(NAME).exists(), "{what}");
                // Its private half is kept.
                let kept = files(&play.home().store().join("trash"));
                let public = kept.iter().filter(|path| path.ends_with("public.pem"));
                let public: Vec<String> = public
                    .map(|path| base64_of(&fs::read_to_string(path).unwrap()))
                    .collect();
                assert_eq!(
                    Some(&public[..]),
                    self.before.as_ref().map(std::slice::from_ref)
                );
                assert!(kept.iter().any(|path| path.ends_with("private.pem")));
            }
        }
        assert_eq!(play.scene.pending(), Vec::<Value>::new(), "{what}");
    }
}

/// Runs every operation into every variant of a fault, many side by side.
fn strike(kind: &str, sort: Sort, deeds: &[Arc<Deed>]) {
    for (nth, deeds) in deeds.chunks(4).enumerate() {
        thread::scope(|scope| {
            for (operation, deed) in OPERATIONS
                .into_iter()
                .flat_map(|operation| deeds.iter().map(move |deed| (operation, deed)))
            {
                let what = format!("{kind} ({nth}) at {operation:?}");
                scope.spawn(move || {
                    let stage = Stage::set(operation);
                    stage.meddler.strike(operation.method(), Arc::clone(deed));
                    let end = stage.run();
                    assert!(stage.meddler.struck() > 0, "{what}: {end:#?}");
                    stage.ends(expected(sort, operation), &end, &what);
                    stage.settles(&end, &what);
                });
            }
        });
    }
}

macro_rules! strikes {
    ($($name:ident: $sort:ident = [$($deed:expr),* $(,)?];)*) => { $(
        #[test]
        fn $name() {
            strike(stringify!($name), Sort::$sort, &[$(Arc::new($deed)),*]);
        }
    )* };
}

const JSON: &str = "Content-Type: application/json\r\n";
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
const PORTAL: &str = "<html><head><title>Welcome to FreeAirportWiFi</title></head><body>\
    <form action=\"/login\">Please accept our terms</form></body></html>";

/// What the exchange answers, with something done to its text.
fn retold(call: &mut Call, retell: impl Fn(String) -> String) -> Done {
    let told = retell(call.carry_out()?.to_string());
    call.answer(&told)
}

/// What the exchange answers, with one field of the envelope put in.
fn with(call: &mut Call, field: &str, value: Value) -> Done {
    let mut answer = call.carry_out()?;
    answer[field] = value;
    call.answer(&answer.to_string())
}

/// The exchange carries the call out, and the result is not what it answers.
fn instead(call: &mut Call, result: &str) -> Done {
    let id = call.carry_out()?["id"].clone();
    call.answer(&format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#
    ))
}

fn squeezed(bytes: impl FnOnce(&mut dyn Write) + Send) -> Vec<u8> {
    let mut gzip = Command::new("gzip")
        .args(["-9", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("gzip is not installed");
    let mut input = gzip.stdin.take().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            bytes(&mut input);
            drop(input);
        });
        gzip.wait_with_output().unwrap().stdout
    })
}

static BOMB: LazyLock<Vec<u8>> = LazyLock::new(|| {
    squeezed(|input| {
        let blanks = vec![b' '; 1024 * 1024];
        for _ in 0..256 {
            input.write_all(&blanks).unwrap();
        }
    })
});

fn gzip(call: &mut Call, body: &[u8]) -> Done {
    let length = body.len();
    let head = format!("Content-Encoding: gzip\r\nContent-Length: {length}\r\n\r\n");
    call.say(&[HEAD, head.as_bytes(), body].concat())?;
    Ok(ControlFlow::Break(()))
}

strikes! {
    a_reset_before_the_call: Lost = [|call| call.reset()];
    an_end_before_the_call: Lost = [|_| Ok(ControlFlow::Break(()))];
    silence_before_the_call: Lost = [|call| call.hang()];
    a_page_of_a_captive_portal: Lost = [
        |call| call.reply("200 OK", "Content-Type: text/html\r\n", PORTAL),
        |call| call.reply("511 Network Authentication Required", "Content-Type: text/html\r\n", PORTAL),
        |call| call.reply("200 OK", JSON, r#"{"status":"login_required","portal":"http://10.0.0.1/"}"#),
    ];
    a_failing_server_before_the_call: Lost = [
        |call| call.reply("500 Internal Server Error", "Content-Type: text/plain\r\n", "oops"),
        |call| call.reply("502 Bad Gateway", "Content-Type: text/html\r\n", "<h1>502</h1>"),
        |call| call.reply("503 Service Unavailable", "Retry-After: 99999999999\r\n", ""),
        |call| call.reply("504 Gateway Timeout", JSON, "{}"),
    ];
    too_many_requests: Later = [
        |call| call.reply("429 Too Many Requests", "Retry-After: 99999999999999999999\r\n", "slow down"),
        |call| call.reply("429 Too Many Requests", "Retry-After: -1\r\nContent-Type: text/html\r\n", PORTAL),
        |call| call.reply("429 Too Many Requests", "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\n", ""),
        |call| {
            let error = json!({"code": 10028, "message": "too_many_requests", "data": {"wait": 4_000_000_000_u64}});
            let body = json!({"jsonrpc": "2.0", "id": call.body["id"], "error": error});
            call.reply("429 Too Many Requests", "Retry-After: NaN\r\n", &body.to_string())
        },
    ];

    a_reset_after_the_call: LostAfter = [|call| { call.carry_out()?; call.reset() }];
    a_reset_in_the_middle_of_the_answer: LostAfter = [|call| {
        call.carry_out()?;
        call.say(&[HEAD, b"Content-Length: 400\r\n\r\n{\"jsonrpc\":\"2.0\","].concat())?;
        thread::sleep(Duration::from_millis(50));
        call.reset()
    }];
    silence_after_the_call: LostAfter = [|call| { call.carry_out()?; call.hang() }];
    chunks_without_end: LostAfter = [
        |call| {
            call.carry_out()?;
            call.say(&[HEAD, b"Transfer-Encoding: chunked\r\n\r\n"].concat())?;
            call.for_ever(&b"10\r\n                \r\n".repeat(1000), Duration::ZERO)
        },
        |call| {
            call.carry_out()?;
            call.say(&[HEAD, b"Transfer-Encoding: chunked\r\n\r\n1;"].concat())?;
            call.for_ever(&[b'a'; 65536], Duration::ZERO)
        },
    ];
    a_slow_drip: LostAfter = [|call| {
        let answer = call.carry_out()?.to_string();
        let head = format!("Content-Length: {}\r\n\r\n", answer.len());
        call.say(&[HEAD, head.as_bytes()].concat())?;
        for byte in answer.as_bytes().chunks(1) {
            call.say(byte)?;
            thread::sleep(Duration::from_millis(150));
        }
        Ok(ControlFlow::Break(()))
    }];
    a_gibibyte: LostAfter = [
        |call| {
            call.carry_out()?;
            call.say(&[HEAD, b"Content-Length: 1073741824\r\n\r\n{"].concat())?;
            call.for_ever(&[b' '; 65536], Duration::ZERO)
        },
        |call| {
            call.carry_out()?;
            call.say(&[HEAD, b"Connection: close\r\n\r\n{"].concat())?;
            call.for_ever(&[b' '; 65536], Duration::ZERO)
        },
    ];
    a_compressed_answer: LostAfter = [
        |call| {
            let answer = call.carry_out()?.to_string();
            let body = squeezed(|input| input.write_all(answer.as_bytes()).unwrap());
            gzip(call, &body)
        },
        |call| { call.carry_out()?; gzip(call, &BOMB) },
    ];
    a_failing_server_after_the_call: LostAfter = [
        |call| { call.carry_out()?; call.reply("500 Internal Server Error", "Content-Type: text/plain\r\n", "oops") },
        |call| { call.carry_out()?; call.reply("502 Bad Gateway", "Content-Type: text/html\r\n", "<h1>502</h1>") },
        |call| { call.carry_out()?; call.reply("503 Service Unavailable", "Retry-After: 99999999999\r\n", "") },
        |call| { call.carry_out()?; call.reply("504 Gateway Timeout", JSON, "{}") },
    ];
    wrong_types: LostAfter = [
        |call| instead(call, "{}"),
        |call| instead(call, "7"),
        |call| instead(call, "null"),
        |call| instead(call, "[7]"),
        |call| instead(call, r#"{"id":"7","client_id":{"a":1},"access_token":7,"expires_in":"x","scope":8}"#),
        |call| instead(call, r#"[{"id":1e400,"client_id":[],"public_key":false,"max_scope":{}}]"#),
    ];
    keys_that_come_twice: LostAfter = [
        |call| retold(call, |text| text.replacen("\"result\":", "\"result\":{},\"result\":", 1)),
        |call| retold(call, |text| text.replacen("\"id\":", "\"id\":0,\"id\":", 1)),
        |call| retold(call, |text| text.replacen("\"testnet\":", "\"testnet\":true,\"testnet\":", 1)),
        |call| retold(call, |text| text.replacen("\"result\":", "\"res\\u0075lt\":\"ok\",\"result\":", 1)),
    ];
    deep_nesting: LostAfter = [
        |call| instead(call, &format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))),
        |call| instead(call, &format!("{}7{}", "{\"id\":".repeat(60_000), "}".repeat(60_000))),
        |call| instead(call, &"[".repeat(500_000)),
    ];
    both_a_result_and_an_error: LostAfter = [
        |call| with(call, "error", json!({"code": 13009, "message": "unauthorized"})),
        |call| with(call, "error", json!({"code": 10028, "message": "too_many_requests"})),
    ];
    an_answer_to_another_request: LostAfter = [
        |call| { let next = call.body["id"].as_u64().unwrap() + 1; with(call, "id", json!(next)) },
        |call| with(call, "id", json!("another")),
        |call| with(call, "id", json!({"id": 1})),
        |call| with(call, "id", json!(-1)),
    ];
    the_other_network: Elsewhere = [|call| with(call, "testnet", json!(false))];

    a_good_answer_with_a_wrong_label_on_it: Harmless = [
        |call| { let text = call.carry_out()?.to_string(); call.reply("200 OK", "Content-Type: text/html\r\n", &text) },
        |call| { let text = call.carry_out()?.to_string(); call.reply("200 OK", "Content-Type: image/png\r\n", &text) },
        |call| { let text = call.carry_out()?.to_string(); call.reply("200 OK", "", &text) },
        |call| { let text = call.carry_out()?.to_string(); call.reply("500 Internal Server Error", JSON, &text) },
    ];
}

#[test]
fn a_redirect_is_not_followed() {
    let trap = TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let elsewhere = trap.local_addr().unwrap();
    let statuses = [
        "301 Moved Permanently",
        "302 Found",
        "303 See Other",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
        "300 Multiple Choices",
        "305 Use Proxy",
    ];
    let deed = |status: &'static str| -> Arc<Deed> {
        Arc::new(move |call| {
            let method = call.method().to_owned();
            let headers = format!("{JSON}Location: http://{elsewhere}/api/v2/{method}\r\n");
            // Even with an answer in it.
            let body = json!({"jsonrpc": "2.0", "id": call.body["id"], "result": "ok"});
            call.reply(status, &headers, &body.to_string())
        })
    };
    strike("redirect", Sort::Lost, &statuses.map(deed));
    assert!(trap.accept().is_err(), "it went there");
}

#[test]
fn a_refused_connection_leaves_nothing_behind() {
    on_every_stage(|stage| {
        let what = format!("{:?}", stage.operation);
        stage.meddler.shut();
        let end = stage.run();
        stage.ends(5, &end, &what);
        stage.settles(&end, &what);
    });
}

#[test]
fn a_connection_that_is_refused_after_the_login_can_be_made_later() {
    on_every_stage(|stage| {
        let what = format!("{:?}", stage.operation);
        let login = |call: &mut Call| {
            let session = call.carry_out()?.to_string();
            call.shut_the_door();
            let headers = format!("{JSON}Connection: close\r\n");
            let _ = call.reply("200 OK", &headers, &session)?;
            Ok(ControlFlow::Break(()))
        };
        stage.meddler.strike("public/auth", Arc::new(login));
        let end = stage.run();
        // Of the others nothing was announced yet.
        let wanted = match stage.operation {
            Provision => 9,
            Auth => 0,
            _ => 5,
        };
        stage.ends(wanted, &end, &what);
        stage.settles(&end, &what);
    });
}

#[test]
fn a_connection_that_does_not_come_about_ends_at_the_deadline() {
    on_every_stage(|stage| {
        let what = format!("{:?}", stage.operation);
        stage.meddler.deafen();
        let end = stage.run();
        stage.ends(5, &end, &what);
        assert!(end.took < Duration::from_secs(8), "{what}: {end:#?}");
        stage.settles(&end, &what);
    });
}

/// Plays every operation once, side by side.
fn on_every_stage(play: impl Fn(&Stage) + Sync) {
    thread::scope(|scope| {
        for operation in OPERATIONS {
            let play = &play;
            scope.spawn(move || play(&Stage::set(operation)));
        }
    });
}
