//! What a command starts: where none of it is needed, no thread, no socket, no queue of events.

use std::process::Command;

use super::{store_files::traced, support::Home};

const STARTS: &str =
    "execve,clone,clone3,fork,vfork,socket,connect,epoll_create,epoll_create1,io_uring_setup";

/// The calls by which a command starts something, or nothing where that cannot be seen.
fn starts(home: &Home, command: &Command) -> Option<Vec<String>> {
    let (run, calls) = traced(home, STARTS, command)?;
    run.ok();
    let (begins, starts): (Vec<_>, Vec<_>) = calls.iter().partition(|call| call.name == "execve");
    assert!(!begins.is_empty());
    let shown = starts.iter();
    let shown = shown.map(|call| format!("{}({})", call.name, call.arguments));
    Some(shown.collect())
}

#[test]
fn what_needs_neither_network_nor_agent_starts_nothing() {
    let home = Home::new();
    let plain = ["--no-passphrase", "--insecure"];
    let keys = [("small", "ed25519"), ("large", "rsa-2048")];
    for (key, algorithm) in keys {
        let generate = ["generate", key, "--algorithm", algorithm];
        let made = home.command(&generate).args(plain).status();
        assert!(made.unwrap().success());
    }
    // The word alone: after another, the help of all the commands is made.
    let mut help = Command::new(env!("CARGO_BIN_EXE_derikey"));
    help.env_clear().current_dir(home.path("")).arg("--help");
    let client = ["--client-id", "abc"];
    let mut commands = vec![help];
    for (key, _) in keys {
        commands.push(home.command(&["fingerprint", key]));
        commands.push(home.command(&["public", key]));
        let mut sign = home.command(&["sign", "auth", key]);
        sign.args(client);
        commands.push(sign);
        // Somebody logged in has a place where an agent would be.
        let mut sign = home.command(&["sign", "auth", key, "--no-agent"]);
        sign.args(client).env("XDG_RUNTIME_DIR", home.path("run"));
        commands.push(sign);
    }
    for command in &commands {
        let Some(calls) = starts(&home, command) else {
            return;
        };
        assert!(calls.is_empty(), "{command:?}: {calls:#?}");
    }
    // What needs a network and another program is seen to start all three.
    let mut provision = home.command(&["provision", "bot", "--network", "sandbox"]);
    provision.args([
        "--scope",
        "account:read",
        "--passphrase-command",
        "echo words",
    ]);
    let calls = starts(&home, &provision).unwrap().join("\n");
    for call in ["clone", "socket(", "epoll_create"] {
        assert!(calls.contains(call), "{call}: {calls}");
    }
}
