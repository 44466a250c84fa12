//! The units under `packaging/`, against the program they start, what it does, and what systemd
//! says of them. Whether systemd runs them is tried nowhere: no test has a machine of its own.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use super::{
    agent::{Running, Stage},
    support::{Home, Run, Server, installed, left_out},
};

const UNITS: [&str; 2] = ["derikey-agent.service", "derikey-agent.socket"];
const PROGRAM: &str = "/usr/local/bin/derikey";

fn path(unit: &str) -> PathBuf {
    let systemd = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd");
    systemd.join(unit)
}

/// All that a unit says of one thing, in order.
fn said(unit: &str, name: &str) -> Vec<String> {
    let text = fs::read_to_string(path(unit)).unwrap();
    let prefix = format!("{name}=");
    let lines = text.lines().filter_map(|line| line.strip_prefix(&prefix));
    lines.map(str::to_owned).collect()
}

#[test]
fn the_units_say_what_is_promised() {
    let [service, socket] = UNITS;
    for (unit, name, value) in [
        (service, "Type", "notify"),
        (service, "User", "derikey"),
        (service, "EnvironmentFile", "/etc/derikey/agent.env"),
        (service, "Environment", "DERIKEY_HOME=%S/derikey"),
        (service, "StateDirectory", "derikey"),
        (service, "StateDirectoryMode", "0700"),
        (
            service,
            "LoadCredentialEncrypted",
            "derikey.passphrase:/etc/derikey/passphrase.cred",
        ),
        (service, "Requires", socket),
        (service, "MemoryDenyWriteExecute", "yes"),
        (service, "LimitCORE", "0"),
        (service, "LimitMEMLOCK", "8M"),
        (service, "MemorySwapMax", "0"),
        (service, "NoNewPrivileges", "yes"),
        (service, "CapabilityBoundingSet", ""),
        (socket, "ListenStream", "/run/derikey/agent.sock"),
        (socket, "SocketUser", "derikey"),
        (socket, "SocketMode", "0600"),
        (socket, "DirectoryMode", "0700"),
    ] {
        assert_eq!(said(unit, name), [value], "{unit}: {name}");
    }
    let before = said(socket, "ExecStartPre").join(" ");
    assert!(before.ends_with(" -m 0700 -o derikey -g derikey /run/derikey"));
    // The service's own directory would take the socket away with it.
    assert!(said(service, "RuntimeDirectory").is_empty());
}

#[test]
fn the_service_starts_a_program_that_takes_its_words() {
    let started = said(UNITS[0], "ExecStart");
    let words: Vec<&str> = started[0].split(' ').collect();
    let (program, arguments) = words.split_first().unwrap();
    assert_eq!(*program, PROGRAM);
    let help = Home::new().run(&["agent", "--help"]).ok().stdout;
    for flag in arguments.iter().filter(|word| word.starts_with('-')) {
        let known = help
            .split_whitespace()
            .any(|word| word.trim_end_matches(',') == *flag);
        assert!(known, "{flag}");
    }
    let rest: Vec<&&str> = arguments
        .iter()
        .filter(|word| !word.starts_with('-'))
        .collect();
    // systemd splits it into words because there are no braces around it.
    assert_eq!(rest, [&"agent", &"$DERIKEY_KEYS"]);
}

#[test]
fn systemd_finds_no_fault_with_the_units() {
    if !installed("systemd-analyze", &["--version"]) {
        return;
    }
    let home = Home::new();
    let copies = UNITS.map(|unit| {
        let text = fs::read_to_string(path(unit)).unwrap();
        let copy = home.path(unit);
        // It wants the program to be there.
        fs::write(&copy, text.replace(PROGRAM, env!("CARGO_BIN_EXE_derikey"))).unwrap();
        copy
    });
    let analyze = |args: &[&str], units: &[PathBuf]| {
        let mut command = Command::new("systemd-analyze");
        command.args(args).args(units).env("SYSTEMD_PAGER", "");
        Run::of(command.output().unwrap())
    };
    let verified = analyze(&["verify", "--man=no"], &copies).ok();
    assert_eq!(verified.stderr, "", "{verified:#?}");
    // Exposure in tenths: 0 is a service that can do nothing, 100 one without any care.
    let exposed = ["security", "--no-pager", "--offline=true", "--threshold=20"];
    let known = analyze(&["security", "--help"], &[]).stdout;
    if known.contains("--offline") && known.contains("--threshold") {
        analyze(&exposed, &copies[..1]).ok();
    } else {
        left_out("this systemd-analyze does not judge how exposed a file is");
    }
}

/// The system calls of a set of systemd's, or of one by itself.
fn members(name: &str, calls: &mut BTreeSet<String>) {
    if !name.starts_with('@') {
        calls.insert(name.to_owned());
        return;
    }
    let mut command = Command::new("systemd-analyze");
    let shown = command
        .args(["syscall-filter", "--no-pager", name])
        .output();
    let shown = Run::of(shown.unwrap()).ok().stdout;
    let lines = shown.lines().filter_map(|line| line.strip_prefix("    "));
    for line in lines.filter(|line| !line.starts_with('#')) {
        members(line.trim(), calls);
    }
}

#[test]
fn the_filter_lets_through_what_the_agent_does() {
    let there = installed("systemd-analyze", &["--version"])
        && installed("strace", &["-o", "/dev/null", "true"]);
    if !there {
        return;
    }
    let mut allowed = BTreeSet::new();
    // systemd lets these through always.
    members("@default", &mut allowed);
    for filter in said(UNITS[0], "SystemCallFilter") {
        let taken = filter.strip_prefix('~');
        let mut calls = BTreeSet::new();
        for name in taken.unwrap_or(&filter).split(' ') {
            members(name, &mut calls);
        }
        match taken {
            Some(_) => allowed.retain(|call| !calls.contains(call)),
            None => allowed.extend(calls),
        }
    }
    let exchange = Home::new();
    let server = Server::start(&exchange, &[]);
    let stage = Stage::on(&server.admin());
    let passphrase = stage
        .home
        .secret_file("derikey.passphrase", "correct horse");
    let new = ["passwd", "bot", "--new-passphrase-file"];
    let new = [&new[..], &[passphrase.to_str().unwrap()]].concat();
    stage.home.run(&new).ok();
    let log = stage.home.path("strace.log");
    let inner = stage.command(&["bot", "--require-locked-memory"]);
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(&log);
    command.arg(inner.get_program()).args(inner.get_args());
    command
        .env_clear()
        .env("CREDENTIALS_DIRECTORY", stage.home.path(""))
        .env("NOTIFY_SOCKET", stage.home.path("nobody"))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut agent = Running::begin(command);
    for op in ["auth", "token"] {
        let answer = agent.ask(&json!({"op": op, "key": "bot"}));
        assert_eq!(answer["ok"], true, "{answer}");
    }
    agent.ask(&json!({"op": "shutdown"}));
    agent.wait();
    let seen = fs::read_to_string(&log).unwrap();
    let calls: BTreeSet<&str> = seen
        .lines()
        .filter_map(|line| line.split_once(' ')?.1.trim_start().split_once('('))
        .map(|(call, _)| call.trim_start_matches("<... "))
        .filter(|call| call.chars().all(|c| c.is_alphanumeric() || c == '_'))
        .collect();
    for call in ["memfd_secret", "accept4", "connect", "fdatasync"] {
        assert!(calls.contains(call), "{call} was not seen: {calls:?}");
    }
    let mut stopped = calls.iter().filter(|call| !allowed.contains(**call));
    assert_eq!(stopped.next(), None, "{calls:?}");
}
