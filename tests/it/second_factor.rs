//! Second factors against a sandbox that asks for them: each code once, at the right moment, to
//! the right exchange, and no more often than three times.

use std::{
    fs,
    io::{PipeReader, PipeWriter, Read, Write},
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use derikey::{exchange::Totp, secret::TotpSeed};
use rustix::io::{FdFlags, fcntl_setfd};
use serde_json::{Value, json};

use crate::{
    hostile::{Fake, Request},
    raw::{self, Admin, Tap},
    scene::Scene,
    support::{Home, Run, Server, join},
};

const SEED: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
const SCOPE: &str = "account:read trade:read_write";

/// A client in front of an exchange that wants one-time codes, and somebody who listens.
struct Bench {
    tap: Tap,
    server: Server,
    home: Home,
    exchange: Home,
}

impl Bench {
    fn new(more: &[&str]) -> Self {
        let exchange = Home::new();
        let seed = exchange.secret_file("seed", &format!("{SEED}\n"));
        let args = ["--totp-seed-file", seed.to_str().unwrap()];
        Self::start(exchange, &join(&[&args, more]))
    }

    fn start(exchange: Home, args: &[&str]) -> Self {
        let server = Server::start(&exchange, args);
        let home = Home::new();
        home.secret_file("passphrase", "correct horse battery\n");
        home.secret_file("seed", &format!("{SEED}\n"));
        Self {
            tap: Tap::before(&server),
            server,
            home,
            exchange,
        }
    }

    /// Where to go and with whose rights.
    fn access(&self) -> Vec<&str> {
        let mut flags = vec!["--network", "custom", "--endpoint", &self.tap.endpoint];
        flags.extend(&self.server.admin()[4..]);
        flags.extend(["--passphrase-file", "passphrase"]);
        flags
    }

    fn provision<'a>(&'a self, name: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let command = ["provision", name, "--scope", SCOPE, "--json"];
        join(&[&command, &self.access(), more])
    }

    fn run(&self, args: &[&str]) -> Run {
        self.home.run(args)
    }

    /// The keys that the exchange has, and when what happened to the first of them.
    fn account(&self) -> (Vec<Value>, Vec<(String, u64)>) {
        raw::inspect(&self.exchange, |admin| {
            let keys = admin.keys();
            let events = keys.first().map(|key| {
                let id = key["client_id"].as_str().unwrap();
                admin.events_of(id)
            });
            (keys, events.unwrap_or_default())
        })
    }

    /// Waits until a method has been called.
    fn wait_for(&self, method: &str) {
        let start = Instant::now();
        while self.tap.calls(method).is_empty() {
            assert!(start.elapsed() < Duration::from_secs(20), "no {method}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn step() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Totp::step_at(now.as_secs())
}

fn code(step: u64) -> String {
    let totp = Totp::new(&TotpSeed::new(SEED.into())).unwrap();
    totp.code(step).expose().to_owned()
}

/// Codes that are not right, nor will be soon.
fn wrong_codes(count: usize) -> Vec<String> {
    let near: Vec<String> = (step() - 5..step() + 15).map(code).collect();
    let all = (0..1000).map(|n| format!("{n:06}"));
    all.filter(|code| !near.contains(code))
        .take(count)
        .collect()
}

/// A pipe whose reading end the program inherits, and the number of that end.
fn pipe() -> (PipeReader, PipeWriter, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    fcntl_setfd(&reader, FdFlags::empty()).unwrap();
    let number = reader.as_raw_fd().to_string();
    (reader, writer, number)
}

/// A pipe with lines in it and no more to come, so that nothing waits for ever.
fn pipe_with(lines: &str) -> (PipeReader, String) {
    let (reader, mut writer, number) = pipe();
    writeln!(writer, "{lines}").unwrap();
    (reader, number)
}

/// A code to look for the key and one to make it: both are taken at the same moment, as the
/// exchange allows for clocks that differ by a step.
fn two_codes() -> (PipeReader, String) {
    let now = step();
    let codes = [code(now), code(now + 1), "no third is needed".into()];
    pipe_with(&codes.join("\n"))
}

/// What is left in a pipe that nobody writes to any more.
fn left(mut reader: PipeReader) -> String {
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    text
}

fn is_nothing(scope: &Value) -> bool {
    let mut words = scope.as_str().unwrap().split(' ');
    words.all(|word| word.ends_with(":none"))
}

#[track_caller]
fn no_key_and_nothing_pending(bench: &Bench, name: &str) {
    assert!(!bench.home.store().join("keys").join(name).exists());
    let status = bench.run(&["status", "--json"]).json();
    assert_eq!(status["pending"], json!([]));
}

/// Waits for the next half minute once.
#[test]
fn with_a_seed_a_whitelisted_key_gets_its_rights_in_one_edit_and_each_code_is_sent_once() {
    let bench = Bench::new(&[]);
    let more = ["--ip", "127.0.0.1", "--totp-seed-file", "seed"];
    let said = bench.run(&bench.provision("bot", &more)).json();
    assert_eq!(said["granted_scope"], SCOPE);

    let codes = bench.tap.codes();
    assert_eq!(codes.len(), 2, "{codes:?}");
    assert_ne!(codes[0], codes[1]);

    let creations = bench.tap.calls("private/create_api_key");
    assert_eq!(creations.len(), 2, "one without and one with a code");
    for creation in creations {
        assert!(is_nothing(&creation["max_scope"]), "{creation}");
    }
    let edits = bench.tap.calls("private/edit_api_key");
    assert_eq!(edits.len(), 2, "one without and one with a code");
    for edit in &edits {
        assert_eq!(edit["ip_whitelist"], json!(["127.0.0.1"]), "{edit}");
        assert!(!is_nothing(&edit["max_scope"]), "{edit}");
    }
    let (keys, events) = bench.account();
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0]["client_id"], said["client_id"]);
    assert_eq!(keys[0]["client_secret"], said["fingerprint"]);
    assert_eq!(keys[0]["ip_whitelist"], json!(["127.0.0.1"]));
    assert_eq!(keys[0]["max_scope"], SCOPE);
    let names: Vec<&str> = events.iter().map(|(what, _)| what.as_str()).collect();
    assert_eq!(
        names,
        [
            "new_api_key",
            "success",
            "changed_scope",
            "changed_whitelist",
            "success"
        ]
    );
    assert_eq!(
        events[2].1, events[3].1,
        "scope and whitelist at one moment"
    );
}

/// Waits for the next half minute once.
#[test]
fn two_commands_at_once_with_one_seed_never_send_the_same_code() {
    let bench = Bench::new(&[]);
    let more = ["--totp-seed-file", "seed"];
    let children = ["one", "two"].map(|name| {
        bench
            .home
            .command(&bench.provision(name, &more))
            .spawn()
            .unwrap()
    });
    for child in children {
        Run::of(child.wait_with_output().unwrap()).json();
    }
    let codes = bench.tap.codes();
    assert_eq!(codes.len(), 2, "{codes:?}");
    assert_ne!(codes[0], codes[1]);
    assert_eq!(bench.account().0.len(), 2);
}

#[test]
fn a_code_on_a_descriptor_is_read_when_it_is_asked_for() {
    let bench = Bench::new(&[]);
    let (reader, mut writer, fd) = pipe();
    let args = bench.provision("bot", &["--totp-fd", &fd]);
    let mut child = bench.home.command(&args).spawn().unwrap();
    drop(reader);
    bench.wait_for("private/create_api_key");
    thread::sleep(Duration::from_millis(100));
    assert!(child.try_wait().unwrap().is_none(), "it waits for the code");
    let code = code(step());
    writeln!(writer, "{code}").unwrap();
    // The end of the pipe is not what it waits for.
    let run = Run::of(child.wait_with_output().unwrap());
    drop(writer);
    assert_eq!(run.json()["changed"], true);
    assert_eq!(bench.tap.codes(), std::slice::from_ref(&code));
    assert!(!run.stderr.contains(&code) && !run.stdout.contains(&code));
}

#[test]
fn each_challenge_takes_one_line_from_the_descriptor_and_leaves_the_rest() {
    let bench = Bench::new(&[]);
    let now = step();
    let codes = [code(now), code(now + 1)];
    let (reader, fd) = pipe_with(&format!("{}\nspare", codes.join("\n")));
    let more = ["--totp-fd", &fd, "--ip", "127.0.0.1"];
    bench.run(&bench.provision("bot", &more)).json();
    assert_eq!(bench.tap.codes(), codes);
    assert_eq!(left(reader), "spare\n");
}

#[test]
fn no_code_is_read_where_none_is_asked_for() {
    let bench = Bench::start(Home::new(), &[]);
    let (reader, fd) = pipe_with("123456");
    let args = bench.provision("bot", &["--totp-fd", &fd]);
    bench.run(&args).json();
    assert_eq!(bench.tap.codes(), Vec::<String>::new());
    assert_eq!(left(reader), "123456\n");
}

#[test]
fn a_program_is_run_once_for_one_challenge() {
    let bench = Bench::new(&[]);
    let program = "sh -c 'echo run >>asked; cat code'";
    fs::write(bench.home.path("code"), format!("{}\n", code(step()))).unwrap();
    let args = bench.provision("bot", &["--totp-command", program]);
    bench.run(&args).json();
    assert_eq!(
        fs::read_to_string(bench.home.path("asked")).unwrap(),
        "run\n"
    );
    assert_eq!(bench.tap.codes().len(), 1);
}

#[test]
fn without_a_code_it_stops_with_exit_6_and_resume_finishes() {
    let bench = Bench::new(&[]);
    let error = bench.run(&bench.provision("bot", &[])).error(6);
    assert_eq!(error["kind"], "second_factor");
    assert!(error["hint"].as_str().unwrap().contains("resume bot"));
    let status = bench.run(&["status", "--json"]).json();
    assert_eq!(status["pending"][0]["name"], "bot");
    assert_eq!(status["pending"][0]["stage"], "generated");
    let looks = bench.tap.calls("private/list_api_keys");
    assert_eq!(looks, Vec::<Value>::new(), "there is nothing to look for");
    let before = bench.run(&["show", "bot", "--json"]).json();
    assert!(bench.account().0.is_empty());

    // Without a code, resume stops at the same place.
    let resume = join(&[&["resume", "--json"], &bench.access()]);
    bench.run(&resume).error(6);

    let (reader, fd) = pipe_with(&format!("{}\nspare", code(step())));
    let done = bench.run(&join(&[&resume, &["--totp-fd", &fd]])).json();
    assert_eq!(left(reader), "spare\n", "one code is enough");
    assert_eq!(bench.tap.codes().len(), 1);
    let key = &done["resumed"][0];
    assert_eq!(key["fingerprint"], before["fingerprint"], "no second key");
    assert_eq!(key["granted_scope"], SCOPE);
    let (keys, _) = bench.account();
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0]["client_secret"], before["fingerprint"]);
    assert_eq!(bench.run(&resume).json(), json!({"resumed": []}));
}

#[test]
fn three_wrong_codes_are_enough_and_none_is_sent_twice() {
    let bench = Bench::new(&[]);
    let wrong = wrong_codes(6);
    let (reader, fd) = pipe_with(&wrong.join("\n"));
    let run = bench.run(&bench.provision("bot", &["--totp-fd", &fd]));
    let error = run.error(6);
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("tfa_code_not_matched")
    );
    assert_eq!(bench.tap.codes(), wrong[..3]);
    // Each answer went to a challenge of its own.
    let answered = bench.tap.calls("private/create_api_key");
    let mut challenges: Vec<&str> = answered
        .iter()
        .filter_map(|params| params["challenge"].as_str())
        .collect();
    challenges.sort_unstable();
    challenges.dedup();
    assert_eq!(challenges.len(), 3);
    assert_eq!(left(reader), wrong[3..].join("\n") + "\n");
    for code in &wrong[..3] {
        assert!(!run.stderr.contains(code.as_str()), "{run:#?}");
    }
    assert!(bench.account().0.is_empty());
    assert_eq!(
        bench.run(&["status", "--json"]).json()["pending"][0]["name"],
        "bot"
    );
}

#[test]
fn the_same_code_is_not_sent_a_second_time() {
    let bench = Bench::new(&[]);
    let wrong = &wrong_codes(1)[0];
    let (_reader, fd) = pipe_with(&format!("{wrong}\n{wrong}\n{wrong}"));
    let run = bench.run(&bench.provision("bot", &["--totp-fd", &fd]));
    run.error(6);
    assert_eq!(bench.tap.codes(), std::slice::from_ref(wrong));
}

#[test]
fn what_is_no_code_is_not_sent() {
    let bench = Bench::new(&[]);
    bench.run(&bench.provision("bot", &[])).error(6);
    let resume = join(&[&["resume", "--json"], &bench.access()]);
    for line in [
        "",
        "12345",
        "1234567",
        "abcdef",
        "12 34 56",
        &"1".repeat(99),
    ] {
        let (_reader, fd) = pipe_with(line);
        let run = bench.run(&join(&[&resume, &["--totp-fd", &fd]]));
        run.error(6);
    }
    for program in ["false", "true", "/no/such/program"] {
        let run = bench.run(&join(&[&resume, &["--totp-command", program]]));
        run.error(6);
    }
    assert_eq!(bench.tap.codes(), Vec::<String>::new());
}

#[test]
fn a_seed_that_is_none_or_lies_open_is_refused_before_anything_is_sent() {
    let bench = Bench::new(&[]);
    bench.home.secret_file("short", "GEZD\n");
    bench
        .home
        .secret_file("garbage", "not base32 at all 0189\n");
    let open = bench.home.secret_file("open", &format!("{SEED}\n"));
    fs::set_permissions(open, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    for (file, codes) in [
        ("short", [2, 3, 7].as_slice()),
        ("garbage", &[2, 3, 7]),
        ("open", &[7]),
        ("missing", &[3]),
    ] {
        let run = bench.run(&bench.provision("bot", &["--totp-seed-file", file]));
        assert!(codes.contains(&run.code.unwrap()), "{file}: {run:#?}");
        assert!(!run.stderr.contains("GEZD"), "{run:#?}");
        no_key_and_nothing_pending(&bench, "bot");
    }
    assert_eq!(bench.tap.requests(), Vec::<Value>::new());
}

#[test]
fn where_only_a_hardware_key_will_do_no_code_is_read() {
    let bench = Bench::new(&["--fault", "create_api_key:webauthn-only"]);
    let (reader, fd) = pipe_with(&code(step()));
    bench
        .run(&bench.provision("bot", &["--totp-fd", &fd]))
        .error(6);
    assert_eq!(bench.tap.codes(), Vec::<String>::new());
    assert_eq!(left(reader).len(), 7);
    assert!(bench.account().0.is_empty());
    no_key_and_nothing_pending(&bench, "bot");
}

#[test]
fn a_challenge_for_another_site_gets_no_code_and_none_is_read() {
    let bench = Bench::new(&["--fault", "create_api_key:wrong-rp-id"]);
    let (reader, fd) = pipe_with(&code(step()));
    bench
        .run(&bench.provision("bot", &["--totp-fd", &fd]))
        .error(11);
    assert_eq!(bench.tap.codes(), Vec::<String>::new());
    assert_eq!(left(reader).len(), 7);
    assert!(bench.account().0.is_empty());
    no_key_and_nothing_pending(&bench, "bot");
}

#[test]
fn an_exchange_that_says_it_is_another_network_gets_no_code() {
    for fault in ["create_api_key:wrong-testnet", "*:wrong-testnet"] {
        let bench = Bench::new(&["--fault", fault]);
        let (reader, fd) = pipe_with(&code(step()));
        bench
            .run(&bench.provision("bot", &["--totp-fd", &fd]))
            .error(11);
        assert_eq!(bench.tap.codes(), Vec::<String>::new(), "{fault}");
        assert_eq!(left(reader).len(), 7, "{fault}");
        assert!(bench.account().0.is_empty());
    }
}

#[test]
fn a_key_stopped_before_its_rights_are_given_can_do_nothing_from_anywhere() {
    let bench = Bench::new(&[]);
    // One code: enough to create, not enough to edit.
    let (_reader, fd) = pipe_with(&code(step()));
    let more = ["--totp-fd", &fd, "--ip", "127.0.0.1"];
    bench.run(&bench.provision("bot", &more)).error(6);
    let (keys, events) = bench.account();
    assert_eq!(keys.len(), 1);
    assert!(is_nothing(&keys[0]["max_scope"]), "{}", keys[0]);
    assert_eq!(events.len(), 2, "made and proved: {events:?}");

    let (_reader, fd) = pipe_with(&code(step() + 1));
    let args = join(&[
        &["resume", "bot", "--json"],
        &bench.access(),
        &["--totp-fd", &fd],
    ]);
    let done = bench.run(&args).json();
    assert_eq!(done["resumed"][0]["granted_scope"], SCOPE);
    let (keys, _) = bench.account();
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0]["max_scope"], SCOPE);
    assert_eq!(keys[0]["ip_whitelist"], json!(["127.0.0.1"]));
}

#[test]
fn the_same_command_again_continues_where_a_missing_code_stopped_it() {
    let bench = Bench::new(&[]);
    bench.run(&bench.provision("bot", &[])).error(6);
    let before = bench.run(&["show", "bot", "--json"]).json();
    // Something else under the same name is not what was begun.
    let other = join(&[
        &["provision", "bot", "--scope", "trade:read", "--json"],
        &bench.access(),
    ]);
    bench.run(&other).error(8);
    let (_reader, fd) = two_codes();
    let args = bench.provision("bot", &["--totp-fd", &fd]);
    let said = bench.run(&args).json();
    assert_eq!(said["fingerprint"], before["fingerprint"]);
    let keys = raw::inspect(&bench.exchange, Admin::keys);
    assert_eq!(keys.len(), 1);
}

#[test]
fn a_program_is_not_asked_twice_in_one_half_minute_even_by_two_commands() {
    let bench = Bench::new(&[]);
    let program = "sh -c 't=$(date +%s); echo $t >>asked; cat code.$((t / 30))'";
    for step in step()..step() + 20 {
        let path = bench.home.path(&format!("code.{step}"));
        fs::write(path, format!("{}\n", code(step))).unwrap();
    }
    let more = ["--totp-command", program];
    bench.run(&bench.provision("bot", &more)).ok();
    bench.run(&bench.provision("bot2", &more)).ok();
    let asked = fs::read_to_string(bench.home.path("asked")).unwrap();
    let steps: Vec<u64> = asked
        .lines()
        .map(|at| Totp::step_at(at.parse().unwrap()))
        .collect();
    assert_eq!(steps.len(), 2, "{asked}");
    assert!(steps[0] < steps[1], "{asked}");
}

#[test]
fn codes_on_one_descriptor_are_read_on_by_the_next_desk_and_the_next_command() {
    let bench = Bench::new(&[]);
    // A file, which a second look would find at its start again.
    let now = step();
    let lines = format!("{}\n{}\n", code(now), code(now + 1));
    let codes = fs::File::open(bench.home.secret_file("codes", &lines)).unwrap();
    fcntl_setfd(&codes, FdFlags::empty()).unwrap();
    let number = codes.as_raw_fd().to_string();
    let more = ["--totp-fd", &number];
    bench.run(&bench.provision("bot", &more)).ok();
    bench.run(&bench.provision("bot2", &more)).ok();
    assert_eq!(bench.account().0.len(), 2);
    let sent = bench.tap.codes();
    assert_eq!(sent.len(), 2, "{sent:?}");
    assert_ne!(sent[0], sent[1]);
}

/// The list and two keys, a code each: the exchange takes the codes of three steps at one moment.
#[test]
fn panic_asks_for_a_fresh_code_for_each_key_that_wants_one() {
    let bench = Bench::new(&[]);
    let made = raw::inspect(&bench.exchange, |admin| {
        ["one", "two"].map(|name| {
            let params = json!({"name": name, "max_scope": "trade:read"});
            admin.call("private/create_api_key", &params)["client_id"].clone()
        })
    });
    let seconds = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        now.as_secs() % Totp::STEP
    };
    // The earliest of the codes is good until this half minute ends.
    while seconds() > Totp::STEP - 18 {
        thread::sleep(Duration::from_millis(100));
    }
    let now = step();
    let (_reader, fd) = pipe_with(&[code(now - 1), code(now), code(now + 1)].join("\n"));
    let command = ["panic", "--yes", "--json", "-v", "--totp-fd", &fd];
    let run = bench.run(&join(&[&command, &bench.access()]));
    assert!(run.stderr.contains("2 more are asked for"), "{run:#?}");
    let said = run.json();
    assert_eq!(said["disabled"].as_array().unwrap().len(), 2, "{said}");
    // Both were asked for at once and without a code; then each anew, and once more with its code.
    let calls = bench.tap.calls("private/disable_api_key");
    let with: Vec<bool> = calls
        .iter()
        .map(|call| call["authorization_data"].is_string())
        .collect();
    assert_eq!(with, [false, false, false, true, false, true], "{calls:#?}");
    // The look at the end would cost one more, so nobody looks.
    assert_eq!(bench.tap.codes().len(), 3);
    assert_eq!(said["verified"], false);
    let (keys, _) = bench.account();
    for id in &made {
        let key = keys.iter().find(|key| key["client_id"] == *id).unwrap();
        assert_eq!(key["enabled"], false);
    }
}

#[test]
fn two_interrupted_operations_take_their_codes_from_one_descriptor() {
    let bench = Bench::new(&[]);
    for name in ["one", "two"] {
        bench.run(&bench.provision(name, &[])).error(6);
    }
    let now = step();
    let codes = [code(now), code(now + 1)];
    let (reader, fd) = pipe_with(&format!("{}\nspare", codes.join("\n")));
    let resume = join(&[&["resume", "--json"], &bench.access(), &["--totp-fd", &fd]]);
    let done = bench.run(&resume).json();
    assert_eq!(done["resumed"].as_array().unwrap().len(), 2, "{done}");
    assert_eq!(bench.tap.codes(), codes, "each is sent once");
    assert_eq!(left(reader), "spare\n");
    assert_eq!(bench.account().0.len(), 2);
}

#[test]
fn a_code_that_one_operation_has_sent_is_not_sent_by_the_next() {
    let bench = Bench::new(&[]);
    for name in ["one", "two"] {
        bench.run(&bench.provision(name, &[])).error(6);
    }
    let code = code(step());
    let (_reader, fd) = pipe_with(&format!("{code}\n{code}"));
    let resume = join(&[&["resume", "--json"], &bench.access(), &["--totp-fd", &fd]]);
    let run = bench.run(&resume);
    assert_eq!(run.code, Some(6), "{run:#?}");
    assert_eq!(bench.tap.codes(), [code]);
    assert_eq!(bench.account().0.len(), 1);
    let status = bench.run(&["status", "--json"]).json();
    assert_eq!(status["pending"][0]["name"], "two");
}

#[test]
fn an_administrators_secret_that_can_be_read_once_serves_a_whole_run() {
    let faults = ["create_api_key:rate-limit:1", "create_api_key:rate-limit:2"];
    let args = ["--fault", faults[0], "--fault", faults[1]];
    let bench = Bench::start(Home::new(), &args);
    let secret = fs::read_to_string(&bench.server.admin_secret_file).unwrap();
    let with_secret_on = |command: &[&str], source: [&str; 2]| {
        let id = ["--admin-client-id", &bench.server.admin_client_id];
        let network = ["--network", "custom", "--endpoint", &bench.tap.endpoint];
        let passphrase = ["--passphrase-file", "passphrase"];
        bench.run(&join(&[command, &network, &id, &source, &passphrase]))
    };
    for name in ["one", "two"] {
        bench.run(&bench.provision(name, &[])).error(75);
    }
    let (_reader, fd) = pipe_with(secret.trim());
    let source = ["--admin-secret-fd", &fd];
    let done = with_secret_on(&["resume", "--json"], source).json();
    assert_eq!(done["resumed"].as_array().unwrap().len(), 2, "{done}");

    let (_reader, fd) = pipe_with(secret.trim());
    let source = ["--admin-secret-fd", &fd];
    let done = with_secret_on(&["rotate", "--all", "--json"], source).json();
    assert_eq!(done["rotated"].as_array().unwrap().len(), 2, "{done}");

    fs::write(bench.home.path("secret"), &secret).unwrap();
    let program = "sh -c 'echo run >>asked; cat secret'";
    let source = ["--admin-secret-command", program];
    let done = with_secret_on(&["rotate", "--all", "--json"], source).json();
    assert_eq!(done["rotated"].as_array().unwrap().len(), 2, "{done}");
    let asked = fs::read_to_string(bench.home.path("asked")).unwrap();
    assert_eq!(asked, "run\n", "a person may be behind it");
}

/// An exchange that wants a code, and has had enough of them as often as `answers` says.
fn impatient(wait: u64, unasked: usize, answered: usize) -> Fake {
    let left = std::sync::Mutex::new((unasked, answered, 0));
    Fake::hostile_at(
        "private/create_api_key",
        move |request: &Request, stream| {
            let (unasked, answered, challenges) = &mut *left.lock().unwrap();
            let has_code = !request.body["params"]["authorization_data"].is_null();
            let times = if has_code { answered } else { unasked };
            if *times > 0 {
                *times -= 1;
                return stream.write_all(&request.error(&json!({
                    "code": 12998, "message": "security_key_authorization_over_limit",
                    "data": {"wait": wait},
                })));
            }
            if has_code {
                return stream.write_all(&request.good());
            }
            *challenges += 1;
            stream.write_all(&request.answer(&json!({
                "security_key_authorization_required": true, "rp_id": "test.deribit.com",
                "challenge": format!("{challenges:044}"),
                "security_keys": [{"type": "tfa", "name": "tfa"}],
            })))
        },
    )
}

/// What was sent with each code: the code and its challenge.
fn answers(fake: &Fake) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    fake.seen()
        .iter()
        .map(|request| request.body["params"].clone())
        .filter(|params| params["authorization_data"].is_string())
        .map(|params| {
            (
                text(&params["authorization_data"]),
                text(&params["challenge"]),
            )
        })
        .collect()
}

#[test]
fn a_pause_that_the_exchange_asks_for_is_waited_out() {
    // Before a code was given, and after one: then the next one is a fresh one.
    for (unasked, answered, codes) in [(1, 0, 1), (0, 1, 2), (1, 1, 2)] {
        let what = format!("{unasked} unasked, {answered} answered");
        let fake = impatient(2, unasked, answered);
        let (reader, fd) = pipe_with("111111\n222222\n333333");
        let end = fake.provision(&Scene::in_clear(), &["--totp-fd", &fd]);
        assert_eq!(end.run.code, Some(0), "{what}: {end:#?}");
        let pauses = unasked + answered;
        let least = Duration::from_secs(2 * u64::try_from(pauses).unwrap());
        assert!(end.took >= least, "{what}: {end:#?}");
        assert!(
            end.took < least + Duration::from_secs(5),
            "{what}: {end:#?}"
        );
        let sent = answers(&fake);
        assert_eq!(sent.len(), codes, "{what}: {sent:?}");
        assert!(codes < 2 || (sent[0].0 != sent[1].0 && sent[0].1 != sent[1].1));
        assert_eq!(left(reader).lines().count(), 3 - codes, "{what}");
        // One remark each, no bar and no countdown where nobody watches.
        let remarks = end.run.stderr.matches("waiting for 2 s").count();
        assert_eq!(remarks, pauses, "{what}: {end:#?}");
        assert!(
            !end.run.stderr.contains("until codes are taken"),
            "{end:#?}"
        );
    }
}

#[test]
fn a_pause_that_is_too_long_is_named_and_not_waited_for() {
    let fake = impatient(301, 0, 1);
    let scene = Scene::in_clear();
    let (reader, fd) = pipe_with("111111\n222222");
    let end = fake.provision(&scene, &["--totp-fd", &fd]);
    let error = end.run.error(6);
    assert!(end.took < Duration::from_secs(2), "{end:#?}");
    for part in ["message", "hint"] {
        assert!(error[part].as_str().unwrap().contains("301 s"), "{error}");
    }
    assert_eq!(left(reader), "222222\n");
    assert_eq!(scene.pending()[0]["stage"], "generated");
}

#[test]
fn an_exchange_that_asks_for_pauses_without_end_is_given_up() {
    let fake = impatient(1, 0, 99);
    let scene = Scene::in_clear();
    let (reader, fd) = pipe_with("111111\n222222\n333333\n444444");
    let end = fake.provision(&scene, &["--totp-fd", &fd]);
    end.run.error(6);
    assert_eq!(answers(&fake).len(), 3);
    assert_eq!(left(reader), "444444\n");
    assert_eq!(scene.pending()[0]["stage"], "generated");
}

#[test]
fn the_sandboxs_own_pause_after_five_failures_is_waited_out() {
    let bench = Bench::new(&[]);
    let wrong = wrong_codes(5);
    for (name, codes) in [("bot", &wrong[..3]), ("bot", &wrong[3..])] {
        let (_reader, fd) = pipe_with(&codes.join("\n"));
        bench
            .run(&bench.provision(name, &["--totp-fd", &fd]))
            .error(6);
    }
    // The failures are made to be 52 seconds old, for a test that ends soon.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let then = u64::try_from(now.as_millis()).unwrap() - 52_000;
    let path = bench.exchange.store().join("sandbox/state.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let failures = state["failures"].as_array_mut().unwrap();
    assert_eq!(failures.len(), 5, "{failures:?}");
    for failed in failures {
        *failed = json!(then);
    }
    fs::write(&path, state.to_string()).unwrap();
    let begun = Instant::now();
    let (_reader, fd) = pipe_with(&code(step()));
    let run = bench.run(&bench.provision("bot", &["--totp-fd", &fd, "-v"]));
    assert_eq!(run.json()["changed"], true);
    assert!(run.stderr.contains("as the exchange asks"), "{run:#?}");
    assert!(begun.elapsed() >= Duration::from_secs(1), "{run:#?}");
    assert_eq!(bench.account().0.len(), 1);
}

/// What the web form does: a key of somebody who is not the program.
fn pasted(bench: &Bench, scope: &str) -> Value {
    let made = bench
        .run(&[
            "generate",
            "first",
            "--json",
            "--passphrase-file",
            "passphrase",
        ])
        .json();
    raw::inspect(&bench.exchange, |admin| {
        let params = json!({
            "name": "from_web", "max_scope": scope, "public_key": made["public_key"].as_str().unwrap().trim(),
        });
        admin.call("private/create_api_key", &params)
    })
}

fn adopt(bench: &Bench, key: &Value, more: &[&str]) -> Run {
    let id = key["client_id"].as_str().unwrap();
    let network = ["--network", "custom", "--endpoint", &bench.tap.endpoint];
    let passphrase = ["--passphrase-file", "passphrase"];
    bench.run(&join(&[
        &["adopt", "first", "--client-id", id],
        &network,
        &passphrase,
        more,
    ]))
}

#[test]
fn a_key_that_is_adopted_with_a_code_is_known_completely() {
    let bench = Bench::new(&[]);
    let key = pasted(&bench, "account:read_write trade:read_write");
    fs::write(bench.home.path("code"), format!("{}\n", code(step() + 1))).unwrap();
    let (_reader, fd) = pipe_with(&code(step()));
    for source in [["--totp-fd", &fd], ["--totp-command", "cat code"]] {
        let said = adopt(&bench, &key, &join(&[&["--json"], &source])).json();
        assert_eq!(said["key_id"], key["id"], "{said}");
        assert_eq!(said["label"], "from_web", "{said}");
        assert_eq!(said["fingerprint_verified"], true, "{said}");
        assert!(said.get("not_known").is_none(), "{said}");
        assert!(said.get("next").is_none(), "{said}");
    }
    assert_eq!(bench.tap.codes().len(), 2);
    // It can be changed by its id, which takes another code that it is not about.
    let shown = bench.run(&["show", "first", "--json"]).json();
    assert_eq!(shown["key_id"], key["id"]);
}

#[test]
fn a_key_that_is_adopted_without_a_code_is_bound_and_what_is_missing_is_said() {
    let bench = Bench::new(&[]);
    let key = pasted(&bench, "account:read_write trade:read_write");
    let said = adopt(&bench, &key, &["--json"]).json();
    assert_eq!(said["client_id"], key["client_id"]);
    assert_eq!(said["key_id"], Value::Null);
    let not_known = json!(["key_id", "label", "ip_whitelist", "enabled_features"]);
    assert_eq!(said["not_known"], not_known, "{said}");
    assert!(
        said["next"].as_str().unwrap().contains("--totp-fd"),
        "{said}"
    );
    let people = adopt(&bench, &key, &[]).ok();
    assert!(people.stdout.contains("--totp-fd"), "{people:#?}");
    assert!(
        people.stderr.contains("second factor is needed"),
        "{people:#?}"
    );
    // It works already, and what needs its id says what to do.
    let passphrase = ["--passphrase-file", "passphrase"];
    bench.run(&join(&[&["auth", "first"], &passphrase])).ok();
    let rotate = join(&[&["rotate", "first", "--json"], &bench.access()]);
    let error = bench.run(&rotate).error(6);
    assert!(
        error["hint"].as_str().unwrap().contains("--totp-fd"),
        "{error}"
    );

    // With a code it is completed; without one nothing is forgotten afterwards.
    let (_reader, fd) = pipe_with(&code(step()));
    let said = adopt(&bench, &key, &["--json", "--totp-fd", &fd]).json();
    assert_eq!(said["key_id"], key["id"], "{said}");
    let said = adopt(&bench, &key, &["--json"]).json();
    assert_eq!(said["key_id"], key["id"], "{said}");
    assert_eq!(said["label"], "from_web", "{said}");
    assert!(said.get("not_known").is_none(), "{said}");
}

#[test]
fn a_key_that_is_adopted_with_wrong_codes_is_bound_all_the_same() {
    let bench = Bench::new(&[]);
    let key = pasted(&bench, "account:read trade:read");
    let wrong = wrong_codes(4);
    let (reader, fd) = pipe_with(&wrong.join("\n"));
    let said = adopt(&bench, &key, &["--json", "--totp-fd", &fd]).json();
    assert_eq!(said["client_id"], key["client_id"]);
    assert!(said["not_known"].is_array(), "{said}");
    assert_eq!(left(reader).lines().count(), 1, "three are enough");
}

#[test]
fn a_key_that_may_not_look_is_adopted_without_spending_a_code() {
    let bench = Bench::new(&[]);
    let key = pasted(&bench, "trade:read_write");
    let (reader, fd) = pipe_with(&code(step()));
    let said = adopt(&bench, &key, &["--json", "--totp-fd", &fd]).json();
    assert!(
        said["next"].as_str().unwrap().contains("account:read"),
        "{said}"
    );
    assert_eq!(left(reader).len(), 7);
    assert_eq!(
        bench.tap.calls("private/list_api_keys"),
        Vec::<Value>::new()
    );
}

#[test]
fn adopt_gives_no_code_to_another_site_and_reads_none_that_cannot_be_one() {
    let bench = Bench::new(&["--fault", "list_api_keys:wrong-rp-id"]);
    let key = pasted(&bench, "account:read trade:read");
    let (reader, fd) = pipe_with(&code(step()));
    adopt(&bench, &key, &["--json", "--totp-fd", &fd]).error(11);
    assert_eq!(left(reader).len(), 7);
    let before = bench.tap.requests().len();
    bench.home.secret_file("short", "GEZD\n");
    let run = adopt(&bench, &key, &["--json", "--totp-seed-file", "short"]);
    run.error(run.code.filter(|code| *code != 0).unwrap());
    assert_eq!(bench.tap.requests().len(), before, "nothing was sent");
    let shown = bench.run(&["show", "first", "--json"]).json();
    assert_eq!(shown["client_id"], Value::Null);
}

#[test]
fn panic_without_a_code_disables_what_needs_none_and_names_the_rest() {
    // One call of three wants a code, which nobody has.
    let bench = Bench::start(
        Home::new(),
        &[
            "--fault",
            "disable_api_key:webauthn-only:2",
            "--fault",
            "disable_api_key:webauthn-only:4",
        ],
    );
    raw::inspect(&bench.exchange, |admin| {
        for name in ["one", "two", "three"] {
            let params = json!({"name": name, "max_scope": "trade:read"});
            admin.call("private/create_api_key", &params);
        }
    });
    let run = bench.run(&join(&[&["panic", "--yes", "--json"], &bench.access()]));
    let error = run.error(6);
    let said: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(said["disabled"].as_array().unwrap().len(), 2, "{said}");
    let missed = &said["not_reached"][0];
    assert_eq!(missed["kind"], "second_factor", "{said}");
    assert_eq!(missed["enabled"], true, "{said}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(missed["client_id"].as_str().unwrap()));
}
