//! What root finds in the memory of an agent that is at rest: nothing of its keys.
#![cfg(target_os = "linux")]

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use serde_json::json;

use super::{
    agent::Running,
    hardening::Traces,
    leaks::{private_parts, random},
    memory::{add_expanded, core_of},
    support::{Home, installed, join, left_out},
};

struct Stage {
    home: Home,
    dir: PathBuf,
    traces: Traces,
}

const KEYS: [(&str, &str); 3] = [
    ("curve", "ed25519"),
    ("rsa", "rsa-2048"),
    ("large", "rsa-4096"),
];

/// A keystore with keys that are sealed with one passphrase, and what is to be looked for.
fn stage() -> Stage {
    let home = Home::new();
    let dir = home.path("run");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    let passphrase = random(40);
    home.secret_file("pass", &format!("{passphrase}\n"));
    let mut traces = Traces::default();
    traces.add("the passphrase", passphrase.as_bytes());
    for (name, algorithm) in KEYS {
        let sealed = ["--passphrase-file", "pass"];
        let provision = [
            "provision",
            name,
            "--algorithm",
            algorithm,
            "--network",
            "sandbox",
        ];
        home.run(&join(&[&provision, &["--scope", "trade:read"], &sealed]))
            .ok();
        let export = ["export", name, "--no-passphrase", "--insecure"];
        let pem = home.run(&join(&[&export, &sealed])).ok().stdout;
        traces.add_key(name, &pem);
        if algorithm == "ed25519" {
            add_expanded(&mut traces, &private_parts(&pem)[0]);
        }
    }
    Stage { home, dir, traces }
}

#[test]
fn root_finds_nothing_of_the_keys_that_an_agent_holds_and_has_used() {
    let stage = stage();
    let had = stage.home.run(&["status", "--json"]).json()["memory"].clone();
    let mut command = stage.home.command(&["agent", "curve", "rsa", "large"]);
    command.args(["--passphrase-file", "pass"]);
    command.arg("--socket").arg(stage.dir.join("agent.sock"));
    let agent = Running::begin(command);
    for _ in 0..20 {
        let mut caller = agent.connect();
        for (name, _) in KEYS {
            for operation in ["auth", "token", "auth"] {
                let request = json!({"op": operation, "key": name});
                assert_eq!(caller.ask(&request.to_string())["ok"], true, "{request}");
            }
        }
    }
    let Some(found) = stage.traces.in_memory(agent.pid()) else {
        return;
    };
    match had.as_str() {
        Some("secret") => assert!(found.is_empty(), "{found:#?}"),
        Some("pageable") => left_out("no memory can be locked here"),
        // Root sees them in their pages, and nowhere else.
        _ => {
            let elsewhere = found
                .iter()
                .filter(|hit| hit.contains("heap") || hit.contains("stack"));
            assert_eq!(elsewhere.count(), 0, "{found:#?}");
        }
    }
    // Locked pages are left out of a core, and secret ones cannot be in it.
    if installed("gdb", &["--version"])
        && had != "pageable"
        && let Some(core) = core_of(&stage.home, agent.pid())
    {
        assert!(core.len() > 100_000, "{}", core.len());
        let found = stage.traces.in_bytes(&core);
        assert!(found.is_empty(), "{found:#?}");
    }
}
