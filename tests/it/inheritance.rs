//! What hooks and other programs that it starts are given: no descriptor, no page, no word of a
//! secret, and signals as a program finds them anywhere.
#![cfg(target_os = "linux")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    process::{Command, Stdio},
};

use serde_json::json;

use super::{
    agent::{LAUNCHER, Running, Stage},
    leaks::{Canaries, private_parts, random},
    store_files::under,
    support::{Home, Run, Server, installed, join},
};

/// A program that writes down what it finds around it, and prints a file.
const LOOK: &str = r#"#!/bin/sh
ls -l /proc/self/fd >"$1.fd"
grep -E '^Sig(Ign|Blk)' /proc/self/status >"$1.signals"
cat /proc/self/maps >"$1.maps"
tr '\0' '\n' </proc/self/environ >"$1.env"
pwd >"$1.cwd"
if test -n "$2"; then cat "$2"; fi
"#;

/// What a program found.
#[derive(Debug)]
struct Seen {
    descriptors: BTreeMap<u32, String>,
    ignored: u64,
    blocked: u64,
    maps: String,
    environment: BTreeSet<String>,
    directory: String,
}

fn look(home: &Home) {
    let path = home.path("look");
    fs::write(&path, LOOK).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

impl Seen {
    #[track_caller]
    fn by(home: &Home, who: &str) -> Self {
        let read = |what: &str| {
            let path = home.path(&format!("{who}.{what}"));
            fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        };
        let listed = read("fd");
        let descriptors = listed.lines().filter_map(|line| {
            let (link, target) = line.split_once(" -> ")?;
            let number = link.rsplit(' ').next()?.parse().ok()?;
            // The one that it looks with.
            let own = target.starts_with("/proc/") && target.ends_with("/fd");
            (!own).then(|| (number, target.to_owned()))
        });
        let signals = read("signals");
        let mask = |name: &str| {
            let line = signals.lines().find_map(|line| line.strip_prefix(name));
            let mask = u64::from_str_radix(line.unwrap().trim(), 16).unwrap();
            // The C library's own, 32 and 33, which nobody else sends.
            mask & 0x7fff_ffff
        };
        Self {
            descriptors: descriptors.collect(),
            ignored: mask("SigIgn:"),
            blocked: mask("SigBlk:"),
            maps: read("maps"),
            environment: read("env").lines().map(str::to_owned).collect(),
            directory: read("cwd").trim().to_owned(),
        }
    }

    /// What there is anyway, in a program that is started by the test itself.
    fn anyway(home: &Home) -> Self {
        let mut command = Command::new(home.path("look"));
        let done = command
            .arg("anyway")
            .current_dir(home.path(""))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output();
        Run::of(done.unwrap()).ok();
        Self::by(home, "anyway")
    }

    /// Which of the signals that it finds ignored are to be left so: whoever runs the tests may
    /// have been told not to end with the terminal.
    const fn left_ignored(&self) -> u64 {
        const INT_PIPE_TERM: u64 = 1 << 1 | 1 << 12 | 1 << 14;
        self.ignored & !INT_PIPE_TERM
    }

    #[track_caller]
    fn is_clean(&self, anyway: &Self, what: &str) {
        for (number, target) in &self.descriptors {
            let known = *number <= 2 || anyway.descriptors.contains_key(number);
            assert!(known, "{what}: {number} is {target}");
        }
        assert_eq!(self.blocked, 0, "{what}");
        assert_eq!(self.ignored, anyway.left_ignored(), "{what}");
        assert!(!self.maps.contains("secretmem"), "{what}: {}", self.maps);
        assert_eq!(self.directory, anyway.directory, "{what}");
    }

    /// The names that were added to an environment.
    fn added(&self) -> Vec<&str> {
        let given = ["PATH", "HOME", "PWD", "OLDPWD", "_", "SHLVL"];
        let names = self.environment.iter();
        names
            .filter_map(|entry| entry.split('=').next())
            .filter(|name| !given.contains(name))
            .collect()
    }
}

/// A keystore with a key at a server, and everything that a secret is read from.
struct Scenery {
    home: Home,
    server: Server,
    canaries: Canaries,
}

const SCOPE: [&str; 2] = ["--scope", "account:read"];

impl Scenery {
    fn new() -> Self {
        let home = Home::new();
        look(&home);
        let mut canaries = Canaries::default();
        for name in ["pass", "other", "seed"] {
            let secret = random(32);
            home.secret_file(name, &format!("{secret}\n"));
            canaries.add(name, secret.as_bytes());
        }
        home.secret_file("codes", "123456\n234567\n345678\n");
        let server = Server::start(&home, &[]);
        fs::copy(&server.admin_secret_file, home.path("admin")).unwrap();
        let secret = fs::read_to_string(home.path("admin")).unwrap();
        canaries.add("the administrator's secret", secret.trim().as_bytes());
        let pass = ["--passphrase-file", "pass"];
        let provision = join(&[&["provision", "bot"], &SCOPE, &pass, &server.admin()]);
        home.run(&provision).ok();
        let export = ["export", "bot", "--no-passphrase", "--insecure"];
        let pem = home.run(&join(&[&export, &pass])).ok().stdout;
        canaries.add("the key", &private_parts(&pem)[0]);
        Self {
            home,
            server,
            canaries,
        }
    }

    /// Runs a command with every file of secrets open, and returns what a program it started saw.
    #[track_caller]
    fn run(&self, args: &[&str], who: &str) -> Seen {
        let script = "exec \"$0\" \"$@\" 6<other 7<pass 8<codes 9<admin";
        let command = under(&["sh", "-c", script], &self.home.command(args));
        let run = Run::of({ command }.output().unwrap());
        assert!(!run.stderr.contains("panicked"), "{run:?}");
        Seen::by(&self.home, who)
    }

    /// Checks what a program found that a command starts, but for descriptors that the command was
    /// not told of: those are whoever's opened them.
    #[track_caller]
    fn gives_nothing(&self, args: &[&str], who: &str, not_told: &[&str]) {
        let mut seen = self.run(args, who);
        for number in not_told {
            let there = seen.descriptors.remove(&number.parse().unwrap());
            assert!(there.is_some(), "{who}: {number} was to be seen");
        }
        seen.is_clean(&Seen::anyway(&self.home), who);
        for entry in &seen.environment {
            let found = self.canaries.find(entry.as_bytes());
            assert_eq!(found, None, "{who}: {entry}");
        }
        let added = seen.added();
        let documented = who == "hook" && added.iter().all(|name| name.starts_with("DERIKEY_"));
        assert!(added.is_empty() || documented, "{who}: {added:?}");
    }
}

#[test]
fn programs_for_secrets_and_hooks_are_given_nothing_of_a_secret() {
    let scenery = Scenery::new();
    let server = &scenery.server;
    let place = server.network();
    let client = ["--admin-client-id", &server.admin_client_id];
    let admin_fd = join(&[&place, &client, &["--admin-secret-fd", "9"]]);
    let all_fds = join(&[&admin_fd, &["--passphrase-fd", "7", "--totp-fd", "8"]]);
    let sealed = join(&[&["provision", "new"], &SCOPE, &["--passphrase-fd", "7"]]);
    let fds = ["6", "7", "8", "9"];
    // Who looks; the command; the descriptors that the command was not told of.
    let cases: [(&str, Vec<&str>, &[&str]); 7] = [
        (
            "hook",
            join(&[&["rotate", "bot", "--deploy-hook", "./look hook"], &all_fds]),
            &fds[..1],
        ),
        (
            "passphrase",
            vec![
                "generate",
                "n",
                "--passphrase-command",
                "./look passphrase pass",
            ],
            &fds,
        ),
        // The program runs before the descriptor is read.
        (
            "input",
            vec![
                "import",
                "m",
                "store/keys/bot/1/private.pem",
                "--input-passphrase-command",
                "./look input pass",
                "--passphrase-fd",
                "7",
            ],
            &["6", "8", "9"],
        ),
        (
            "old",
            vec![
                "passwd",
                "bot",
                "--passphrase-command",
                "./look old pass",
                "--new-passphrase-fd",
                "6",
            ],
            &fds[1..],
        ),
        (
            "new",
            vec![
                "passwd",
                "bot",
                "--passphrase-fd",
                "6",
                "--new-passphrase-command",
                "./look new pass",
            ],
            &fds[1..],
        ),
        (
            "admin",
            join(&[
                &sealed,
                &place,
                &client,
                &[
                    "--admin-secret-command",
                    "./look admin admin",
                    "--totp-fd",
                    "8",
                ],
            ]),
            &["6", "9"],
        ),
        (
            "key",
            join(&[
                &["provision", "new"],
                &SCOPE,
                &admin_fd,
                &["--passphrase-command", "./look key pass", "--totp-fd", "8"],
            ]),
            &["6", "7"],
        ),
    ];
    for (who, args, not_told) in cases {
        scenery.gives_nothing(&args, who, not_told);
    }
}

#[test]
fn a_program_for_codes_is_given_nothing_of_a_secret() {
    let mut scenery = Scenery::new();
    let address = scenery.server.address();
    scenery.server.stop();
    scenery.server = Server::start_at(&scenery.home, &address, &["--totp-seed-file", "seed"]);
    let edit = ["edit", "bot", "--label", "other", "--passphrase-fd", "7"];
    let admin = ["--admin-client-id", &scenery.server.admin_client_id];
    let sources = [
        "--admin-secret-fd",
        "9",
        "--totp-command",
        "./look code codes",
    ];
    let args = join(&[&edit, &scenery.server.network(), &admin, &sources]);
    scenery.gives_nothing(&args, "code", &["6", "8"]);
}

#[test]
fn a_program_that_exec_becomes_has_its_streams_and_nothing_else() {
    let stage = Stage::new();
    look(&stage.home);
    let anyway = Seen::anyway(&stage.home);
    let agent = stage.start();
    let mut command = stage.home.command(&["exec", "bot", "--", "./look", "exec"]);
    command.env("DERIKEY_AGENT_SOCK", &agent.path);
    Run::of(command.output().unwrap()).ok();
    let seen = Seen::by(&stage.home, "exec");
    seen.is_clean(&anyway, "exec");
    let added = [
        "DERIBIT_CLIENT_ID",
        "DERIBIT_NETWORK",
        "DERIKEY_AGENT_SOCK",
        "DERIKEY_KEY",
    ];
    assert_eq!(seen.added(), added);
}

#[test]
fn an_agent_keeps_the_socket_that_it_was_handed_to_itself() {
    if !installed("python3", &["--version"]) {
        return;
    }
    let stage = Stage::new();
    look(&stage.home);
    stage.home.secret_file("pass", "correct horse\n");
    let sealed = ["passwd", "bot", "--new-passphrase-file", "pass"];
    stage.home.run(&sealed).ok();
    let anyway = Seen::anyway(&stage.home);
    let agent = ["agent", "bot", "--passphrase-command", "./look agent pass"];
    let inner = stage.home.command(&agent);
    let mut launch = Command::new("python3");
    launch.args(["-c", LAUNCHER]).arg(stage.socket());
    launch.arg(inner.get_program()).args(inner.get_args());
    launch.current_dir(stage.home.path(""));
    launch.stdout(Stdio::piped()).stderr(Stdio::piped());
    let agent = Running::begin(launch);
    assert_eq!(agent.ask(&json!({"op": "auth", "key": "bot"}))["ok"], true);
    let mut seen = Seen::by(&stage.home, "agent");
    // Python ignores some, and passes that on.
    seen.ignored = anyway.left_ignored();
    seen.is_clean(&anyway, "agent");
}

/// Has the program find signals ignored and blocked, as one does that a careless one starts.
const CARELESS: [&str; 3] = [
    "env",
    "--ignore-signal=PIPE,INT,TERM",
    "--block-signal=INT,USR1",
];
const NOHUP: [&str; 2] = ["env", "--ignore-signal=HUP"];
const PLAINLY: [&str; 2] = ["env", "--default-signal=HUP"];

#[test]
fn programs_find_signals_as_they_are_meant_to_be() {
    if !installed(CARELESS[0], &join(&[&CARELESS[1..], &["true"]])) {
        return;
    }
    let stage = Stage::new();
    look(&stage.home);
    let anyway = Seen::anyway(&stage.home);
    let agent = stage.start();
    stage.home.secret_file("pass", "correct horse\n");
    let exec: &[&str] = &["exec", "bot", "--", "./look", "exec"];
    let secret: &[&str] = &[
        "export",
        "bot",
        "--new-passphrase-command",
        "./look secret pass",
    ];
    let hook: &[&str] = &["rotate", "bot", "--deploy-hook", "./look hook", "--yes"];
    for (who, args) in [("exec", exec), ("secret", secret), ("hook", hook)] {
        for (prefix, ignored) in [(&CARELESS[..], 0), (&NOHUP[..], 1)] {
            let mut inner = stage.home.command(args);
            inner.env("DERIKEY_AGENT_SOCK", &agent.path);
            let _ = fs::remove_file(stage.home.path(&format!("{who}.signals")));
            let run = Run::of({ under(prefix, &inner) }.output().unwrap());
            assert!(run.code.is_some(), "{run:?}");
            let mut seen = Seen::by(&stage.home, who);
            // Whoever is not to end with the terminal is not to start what does.
            let left = anyway.left_ignored();
            assert_eq!(seen.ignored, ignored | left, "{who} {prefix:?}");
            seen.ignored = left;
            seen.is_clean(&anyway, who);
        }
    }
}

#[test]
fn an_agent_outlives_its_terminal_if_nohup_says_so() {
    if !installed(NOHUP[0], &join(&[&NOHUP[1..], &["true"]])) {
        return;
    }
    let stage = Stage::new();
    let agent = Running::begin(under(&NOHUP, &stage.command(&["bot"])));
    agent.signal("HUP");
    let request = json!({"op": "auth", "key": "bot"});
    for _ in 0..3 {
        assert_eq!(agent.ask(&request)["ok"], true);
    }
    assert_eq!(agent.stop().code, Some(0));
    let mut agent = Running::begin(under(&PLAINLY, &stage.command(&["bot"])));
    agent.signal("HUP");
    assert_eq!(agent.wait().code, Some(0));
}

#[test]
fn a_bot_that_exec_became_ends_with_its_reader() {
    let stage = Stage::new();
    let agent = stage.start();
    let mut command = stage.home.command(&["exec", "bot", "--", "yes"]);
    command.env("DERIKEY_AGENT_SOCK", &agent.path);
    let mut bot = command.spawn().unwrap();
    drop(bot.stdout.take());
    let status = bot.wait().unwrap();
    assert_eq!(status.signal(), Some(13), "{status}");
}
