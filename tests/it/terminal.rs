//! Prompts on a real pseudo-terminal: what is asked, what is shown, and how it is left behind.

use std::{
    fs,
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use derikey::{exchange::Totp, secret::TotpSeed};
use serde_json::{Value, json};

use crate::{
    hostile::Fake,
    raw::{self, Admin},
    scene::Scene,
    support::{Home, Run, Server, installed, join},
};

const PASSPHRASE: &str = "correct horse battery";

/// Runs a program on a terminal of its own and does what a person would: waits for words, types,
/// presses keys; also sends signals. Reports what was to be seen and whether it was echoed.
const DRIVER: &str = r#"
import fcntl, json, os, pty, select, signal, sys, termios, time

job = json.load(sys.stdin)
master, slave = pty.openpty()
def echoes():
    return bool(termios.tcgetattr(slave)[3] & termios.ECHO)
started = echoes()
pid = os.fork()
if pid == 0:
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for fd in (0, 1, 2):
        os.dup2(slave, fd)
    if job["stdout"]:
        os.dup2(os.open(job["stdout"], os.O_WRONLY | os.O_CREAT, 0o600), 1)
    if job["stdin"]:
        os.dup2(os.open(job["stdin"], os.O_RDONLY), 0)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # whoever runs the tests may have been told to ignore them
    os.chdir(job["dir"])
    os.closerange(3, 256)
    os.execve(job["args"][0], job["args"], {"PATH": os.environ["PATH"], "HOME": job["dir"], "TERM": job["term"]})

seen, marked, status = b"", 0, None
def look(seconds):
    global seen
    if select.select([master], [], [], seconds)[0]:
        seen += os.read(master, 4096)
def until(done, seconds=15):
    end = time.time() + seconds
    while not done() and time.time() < end:
        look(0.02)
    return done()
def ended():
    global status
    if status is None:
        got, code = os.waitpid(pid, os.WNOHANG)
        if got:
            status = code
    return status is not None

echoed = []
missing = None
for step in job["steps"]:
    words = step["wait"].encode()
    if not until(lambda: words in seen[marked:] or ended()) or words not in seen[marked:]:
        missing = step["wait"]
        break
    marked = seen.index(words, marked) + len(words)
    if not step.get("shown"):
        until(lambda: not echoes(), 3)
    echoed.append(echoes())
    if "type" in step:
        os.write(master, step["type"].encode())
    if "signal" in step:
        time.sleep(0.05)
        os.kill(pid, step["signal"])
    if step.get("stopped"):
        # As a shell with job control does it.
        time.sleep(0.05)
        mode = termios.tcgetattr(slave)
        mode[3] |= termios.ECHO
        termios.tcsetattr(slave, termios.TCSANOW, mode)
        os.kill(pid, signal.SIGCONT)
        until(lambda: not echoes(), 3)
        echoed.append(echoes())
        os.write(master, step["then"].encode())
if not until(ended):
    os.kill(pid, signal.SIGKILL)
    missing = missing or "its end"
    os.waitpid(pid, 0)
look(0.05)
exit = None if status is None else os.waitstatus_to_exitcode(status)
print(json.dumps({"seen": seen.decode("utf-8", "replace"), "exit": exit, "echoed": echoed,
                  "started": started, "left": echoes(), "missing": missing}))
"#;

/// A person at a terminal.
pub(crate) struct Person<'a> {
    home: &'a Home,
    stdout: Option<PathBuf>,
    stdin: Option<PathBuf>,
    /// What the terminal can do: a dumb one shows no bars.
    term: &'static str,
}

/// What the terminal showed.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) seen: String,
    pub(crate) exit: Option<i64>,
    echoed: Vec<bool>,
    echo_before: bool,
    echo_after: bool,
}

impl<'a> Person<'a> {
    pub(crate) fn at(home: &'a Home) -> Self {
        Self {
            home,
            stdout: None,
            stdin: None,
            term: "dumb",
        }
    }

    /// Runs a command and answers; nothing where there is no Python.
    pub(crate) fn session(&self, args: &[&str], steps: &Value) -> Option<Session> {
        if !installed("python3", &["-c", "import pty"]) {
            return None;
        }
        let store = self.home.store();
        let program = env!("CARGO_BIN_EXE_derikey");
        let args = join(&[&[program, "--home", store.to_str().unwrap()], args]);
        let job = json!({
            "args": args, "steps": steps, "dir": self.home.path(""),
            "stdout": self.stdout, "stdin": self.stdin, "term": self.term,
        });
        let mut child = Command::new("python3")
            .args(["-c", DRIVER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(job.to_string().as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        let session = Session {
            seen: said["seen"].as_str().unwrap().to_owned(),
            exit: said["exit"].as_i64(),
            echoed: said["echoed"]
                .as_array()
                .unwrap()
                .iter()
                .map(|b| b.as_bool().unwrap())
                .collect(),
            echo_before: said["started"].as_bool().unwrap(),
            echo_after: said["left"].as_bool().unwrap(),
        };
        assert_eq!(said["missing"], Value::Null, "{session:#?}");
        assert!(session.echo_before, "a terminal echoes to begin with");
        Some(session)
    }
}

fn typed(wait: &str, text: &str) -> Value {
    json!({"wait": wait, "type": format!("{text}\n")})
}

fn keys_of(home: &Home) -> Vec<String> {
    let entries = fs::read_dir(home.store().join("keys"));
    let names = entries
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.starts_with('.')).collect()
}

#[test]
fn a_new_passphrase_is_asked_twice_and_never_shown() {
    let home = Home::new();
    let steps = json!([
        typed("New passphrase for bot: ", PASSPHRASE),
        typed("again: ", PASSPHRASE)
    ]);
    let Some(session) = Person::at(&home).session(&["generate", "bot"], &steps) else {
        return;
    };
    assert_eq!(session.exit, Some(0), "{session:#?}");
    assert_eq!(session.echoed, [false, false]);
    assert!(!session.seen.contains(PASSPHRASE), "{session:#?}");
    assert!(session.echo_after, "the terminal echoes again");
    home.secret_file("passphrase", PASSPHRASE);
    let sign = ["sign", "auth", "bot", "--client-id", "x"];
    home.run(&join(&[&sign, &["--passphrase-file", "passphrase"]]))
        .ok();
}

#[test]
fn a_passphrase_typed_at_the_prompt_opens_the_key_and_a_wrong_one_does_not() {
    let home = Home::new();
    home.secret_file("passphrase", PASSPHRASE);
    let args = ["generate", "bot", "--passphrase-file", "passphrase"];
    home.run(&args).ok();
    let sign = ["sign", "auth", "bot", "--client-id", "x"];
    for (answer, exit) in [(PASSPHRASE, 0), ("incorrect horse", 7)] {
        let steps = json!([typed("Passphrase of bot: ", answer)]);
        let Some(session) = Person::at(&home).session(&sign, &steps) else {
            return;
        };
        assert_eq!(session.exit, Some(exit), "{session:#?}");
        assert!(!session.seen.contains(answer), "{session:#?}");
    }
}

#[test]
fn two_different_passphrases_or_an_empty_one_make_no_key() {
    let home = Home::new();
    let different = json!([
        typed("New passphrase", PASSPHRASE),
        typed("again: ", "something else")
    ]);
    let empty = json!([typed("New passphrase", "")]);
    for steps in [different, empty] {
        let Some(session) = Person::at(&home).session(&["generate", "bot"], &steps) else {
            return;
        };
        assert_eq!(session.exit, Some(7), "{session:#?}");
        assert!(session.seen.contains("derikey: error: "), "{session:#?}");
        assert!(session.echo_after);
        assert_eq!(keys_of(&home), Vec::<String>::new());
    }
}

#[test]
fn questions_go_to_the_terminal_wherever_the_streams_lead() {
    let home = Home::new();
    let steps = json!([
        typed("New passphrase", PASSPHRASE),
        typed("again: ", PASSPHRASE)
    ]);
    let (stdout, stdin) = (home.path("stdout"), home.path("stdin"));
    fs::write(&stdin, "not the passphrase\n").unwrap();
    let person = Person {
        home: &home,
        term: "dumb",
        stdout: Some(stdout.clone()),
        stdin: Some(stdin),
    };
    let Some(session) = person.session(&["generate", "bot", "--json"], &steps) else {
        return;
    };
    assert_eq!(session.exit, Some(0), "{session:#?}");
    let said: Value = serde_json::from_str(&fs::read_to_string(stdout).unwrap()).unwrap();
    assert_eq!(said["name"], "bot");
}

#[test]
fn no_input_asks_nothing_even_on_a_terminal() {
    let home = Home::new();
    let args = ["generate", "bot", "--no-input"];
    let Some(session) = Person::at(&home).session(&args, &json!([])) else {
        return;
    };
    assert_eq!(session.exit, Some(7), "{session:#?}");
    assert!(!session.seen.contains("New passphrase"), "{session:#?}");
}

#[test]
fn ctrl_c_at_a_prompt_ends_with_130_and_the_terminal_echoes_again() {
    let home = Home::new();
    let first = json!([{"wait": "New passphrase", "type": "half a pass\u{3}"}]);
    let second = json!([
        typed("New passphrase", PASSPHRASE),
        {"wait": "again: ", "type": "half\u{3}"}
    ]);
    for steps in [first, second] {
        let Some(session) = Person::at(&home).session(&["generate", "bot"], &steps) else {
            return;
        };
        assert_eq!(session.exit, Some(130), "{session:#?}");
        assert!(session.echoed.iter().all(|echo| !echo));
        assert!(session.echo_after, "{session:#?}");
        assert!(!session.seen.contains("half"), "{session:#?}");
        assert_eq!(keys_of(&home), Vec::<String>::new());
    }
}

#[test]
fn a_signal_at_a_prompt_ends_the_program_and_the_terminal_echoes_again() {
    let home = Home::new();
    // What nobody obeys does not leave the terminal mute either: SIGQUIT, SIGALRM, SIGUSR1.
    let others = [3, 14, 10].map(|signal| (signal, [130, 130]));
    let obeyed = [(15, [143, 130]), (2, [130, 130]), (1, [129, 130])];
    for (signal, exits) in obeyed.into_iter().chain(others) {
        let steps = json!([{"wait": "New passphrase", "signal": signal}]);
        let Some(session) = Person::at(&home).session(&["generate", "bot"], &steps) else {
            return;
        };
        assert_eq!(session.echoed, [false]);
        assert!(
            session.exit.is_some_and(|exit| exits.contains(&exit)),
            "{signal}: {session:#?}"
        );
        assert!(session.echo_after, "{signal}: {session:#?}");
        assert_eq!(keys_of(&home), Vec::<String>::new());
    }
}

#[test]
fn a_prompt_that_was_stopped_does_not_echo_when_it_goes_on() {
    let home = Home::new();
    let stop = json!({
        "wait": "New passphrase", "type": "half", "signal": 19, "stopped": true,
        "then": format!("{PASSPHRASE}\n"),
    });
    let steps = json!([stop, typed("again: ", PASSPHRASE)]);
    let Some(session) = Person::at(&home).session(&["generate", "bot"], &steps) else {
        return;
    };
    assert_eq!(session.echoed, [false; 3], "{session:#?}");
    assert!(!session.seen.contains(PASSPHRASE), "{session:#?}");
    assert_eq!(session.exit, Some(0), "{session:#?}");
    assert!(session.echo_after);
}

#[test]
fn a_private_key_is_never_shown_on_a_terminal() {
    let home = Home::new();
    home.secret_file("passphrase", PASSPHRASE);
    let with = ["--passphrase-file", "passphrase"];
    home.run(&join(&[&["generate", "bot"], &with])).ok();
    let plain = ["--no-passphrase", "--insecure"];
    for more in [[].as_slice(), &plain, &["--json"], &["--yes"]] {
        let args = join(&[&["export", "bot"], &with, more]);
        let Some(session) = Person::at(&home).session(&args, &json!([])) else {
            return;
        };
        assert_eq!(session.exit, Some(8), "{more:?}: {session:#?}");
        assert!(!session.seen.contains("PRIVATE KEY"), "{session:#?}");
    }
    // Into a file it goes.
    let person = Person {
        home: &home,
        term: "dumb",
        stdout: Some(home.path("out")),
        stdin: None,
    };
    let session = person.session(&["export", "bot"], &json!([])).unwrap();
    assert_eq!(session.exit, Some(0), "{session:#?}");
    let exported = fs::read_to_string(home.path("out")).unwrap();
    assert!(exported.contains("ENCRYPTED PRIVATE KEY"));
}

#[test]
fn what_cannot_be_undone_is_confirmed_by_typing_the_name() {
    let home = Home::new();
    let args = [
        "provision",
        "bot",
        "--network",
        "sandbox",
        "--scope",
        "trade:read",
    ];
    home.run(&args).ok();
    let answer = |text: &str| json!([{"wait": "Type bot to go on: ", "type": format!("{text}\n"), "shown": true}]);
    for (text, exit, left) in [("", 8, 1), ("y", 8, 1), ("yes", 8, 1), ("bot", 0, 0)] {
        let Some(session) = Person::at(&home).session(&["delete", "bot"], &answer(text)) else {
            return;
        };
        assert_eq!(session.exit, Some(exit), "{text}: {session:#?}");
        assert_eq!(keys_of(&home).len(), left, "{text}");
    }
}

#[test]
fn giving_up_is_confirmed_by_typing_the_name() {
    let scene = Scene::in_clear();
    let server = Server::start(&scene.home, &["--fault", "create_api_key:rate-limit"]);
    let flags = scene.flags(&server);
    let answer = |text: &str| json!([{"wait": "Type bot to go on: ", "type": format!("{text}\n"), "shown": true}]);
    Run::of(scene.provision(&flags, false).output().unwrap()).error(75);
    let args = join(&[&["resume", "bot", "--abandon"], &flags]);
    for (text, exit, left) in [("", 8, 1), ("yes", 8, 1), ("bot", 0, 0)] {
        let Some(session) = Person::at(&scene.home).session(&args, &answer(text)) else {
            return;
        };
        assert_eq!(session.exit, Some(exit), "{text}: {session:#?}");
        assert!(session.seen.contains("not heard of it"), "{session:#?}");
        assert_eq!(scene.pending().len(), left, "{text}");
        assert_eq!(keys_of(&scene.home).len(), left, "{text}");
    }
}

#[test]
fn a_pause_after_failed_codes_is_counted_down() {
    let fake = Fake::hostile_at("private/create_api_key", |request, stream| {
        match request.body["params"]["authorization_data"].as_str() {
            None => stream.write_all(&request.answer(&json!({
                "security_key_authorization_required": true, "rp_id": "test.deribit.com",
                "challenge": "x".repeat(44), "security_keys": [{"type": "tfa", "name": "tfa"}],
            }))),
            Some("111111") => stream.write_all(&request.error(&json!({
                "code": 12998, "message": "security_key_authorization_over_limit",
                "data": {"wait": 2},
            }))),
            Some(_) => stream.write_all(&request.good()),
        }
    });
    let home = Home::new();
    home.secret_file("passphrase", PASSPHRASE);
    home.secret_file("admin", "secret");
    let endpoint = format!("http://{}/api/v2", fake.address);
    let args = join(&[
        &[
            "provision",
            "bot",
            "--scope",
            "account:read trade:read_write",
        ],
        &["--passphrase-file", "passphrase"],
        &["--admin-client-id", "admin", "--admin-secret-file", "admin"],
        &["--network", "custom", "--endpoint", &endpoint],
    ]);
    let prompt = "One-time code for test.deribit.com: ";
    let steps = json!([
        typed(prompt, "111111"),
        {"wait": "waiting until codes are taken again: 2 s", "shown": true},
        {"wait": "waiting until codes are taken again: 1 s", "shown": true},
        typed(prompt, "222222"),
    ]);
    let person = Person {
        term: "xterm",
        ..Person::at(&home)
    };
    let Some(session) = person.session(&args, &steps) else {
        return;
    };
    assert_eq!(session.exit, Some(0), "{session:#?}");
}

#[test]
fn the_administrators_secret_and_a_one_time_code_are_asked_for_and_not_shown() {
    const SEED: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
    let exchange = Home::new();
    let seed = exchange.secret_file("seed", SEED);
    let server = Server::start(&exchange, &["--totp-seed-file", seed.to_str().unwrap()]);
    let home = Home::new();
    home.secret_file("passphrase", PASSPHRASE);
    let args = join(&[
        &["provision", "bot", "--scope", "trade:read"],
        &["--passphrase-file", "passphrase"],
        &["--admin-client-id", &server.admin_client_id],
        &server.network(),
    ]);
    let secret = fs::read_to_string(&server.admin_secret_file).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let totp = Totp::new(&TotpSeed::new(SEED.into())).unwrap();
    let code = totp.code(Totp::step_at(now.as_secs())).expose().to_owned();
    let steps = json!([
        typed(
            &format!("Secret of {}: ", server.admin_client_id),
            secret.trim()
        ),
        typed("One-time code for test.deribit.com: ", &code)
    ]);
    let Some(session) = Person::at(&home).session(&args, &steps) else {
        return;
    };
    assert_eq!(session.exit, Some(0), "{session:#?}");
    assert_eq!(session.echoed, [false, false]);
    assert!(!session.seen.contains(secret.trim()) && !session.seen.contains(&code));
    assert!(session.echo_after);
    drop(server);
    let server = Server::start(&exchange, &[]);
    assert_eq!(Admin::log_in(&server).keys().len(), 1);
}

#[test]
fn ctrl_c_at_the_code_for_one_key_asks_for_no_other() {
    const SEED: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
    let exchange = Home::new();
    let made = raw::inspect(&exchange, |admin| {
        ["one", "two"].map(|name| {
            let params = json!({"name": name, "max_scope": "trade:read"});
            admin.call("private/create_api_key", &params)["client_id"].clone()
        })
    });
    let seed = exchange.secret_file("seed", SEED);
    let server = Server::start(&exchange, &["--totp-seed-file", seed.to_str().unwrap()]);
    let home = Home::new();
    let args = join(&[&["panic", "--yes"], &server.admin()]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let totp = Totp::new(&TotpSeed::new(SEED.into())).unwrap();
    let code = totp.code(Totp::step_at(now.as_secs())).expose().to_owned();
    let prompt = "One-time code for test.deribit.com: ";
    // The first is for the look at the account.
    let steps = json!([typed(prompt, &code), {"wait": prompt, "type": "\u{3}"}]);
    let Some(session) = Person::at(&home).session(&args, &steps) else {
        return;
    };
    assert_eq!(session.exit, Some(130), "{session:#?}");
    assert_eq!(session.seen.matches(prompt).count(), 2, "{session:#?}");
    for id in &made {
        let line = format!("NOT REACHED: {}", id.as_str().unwrap());
        assert!(session.seen.contains(&line), "{session:#?}");
    }
}
