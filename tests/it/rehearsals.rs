//! `--dry-run` before every command: what would be done is said, and nothing is.

use serde_json::Value;

use super::{
    agent::Stage,
    manage::Bench,
    store_files::snapshot,
    support::{Home, PLAIN, Run, join},
};

#[track_caller]
fn is_rehearsed(said: &Value) {
    assert_eq!(said["dry_run"], true, "{said}");
    assert!(said.get("access_token").is_none(), "{said}");
}

#[test]
fn a_rehearsal_changes_nothing_here_nor_there() {
    let bench = Bench::new();
    bench.trader("bot");
    bench
        .home
        .run(&join(&[&["generate", "spare"], &PLAIN]))
        .ok();
    let fleet = format!("[defaults]\nscope = {:?}\n[keys.new]\n", "trade:read");
    std::fs::write(bench.home.path("fleet.toml"), fleet).unwrap();
    let pages = bench.home.path("pages");
    let fleet = bench.home.path("fleet.toml");
    let (pages, fleet) = (pages.to_str().unwrap(), fleet.to_str().unwrap());
    let lines: [&[&str]; 21] = [
        &["provision", "new", "--scope", "trade:read"],
        &["generate", "new"],
        &["delete", "spare"],
        &["register", "spare", "--scope", "trade:read"],
        &["adopt", "spare", "--client-id", "abc"],
        &["edit", "bot", "--label", "other"],
        &["disable", "bot"],
        &["enable", "bot"],
        &["remove", "bot"],
        &["disable", "id:2"],
        &["rotate", "bot"],
        &["panic"],
        &["apply", "-f", fleet],
        &["auth", "bot"],
        &["token", "bot"],
        &["token", "bot", "--format", "env"],
        &["export", "bot", "--no-passphrase", "--insecure"],
        &["agent", "bot", "--socket", "agent.sock"],
        &["sandbox"],
        &["man", pages],
        &["resume"],
    ];
    let (here, there) = (snapshot(&bench.home.store()), bench.admin().keys());
    let managing = "provision register edit disable enable remove rotate panic apply resume";
    for line in lines {
        let dry = ["--json", "--dry-run"];
        let run = if managing.split(' ').any(|command| command == line[0]) {
            bench.run(&join(&[line, &dry[1..]]))
        } else if line[0] == "adopt" {
            bench
                .home
                .run(&join(&[&dry, line, &bench.server.network()]))
        } else {
            bench.home.run(&join(&[&dry, line]))
        };
        let said = run.json();
        if line[0] != "resume" {
            is_rehearsed(&said);
        }
        assert_eq!(snapshot(&bench.home.store()), here, "{line:?}");
        assert_eq!(bench.admin().keys(), there, "{line:?}");
    }
    assert!(!bench.home.path("pages").exists());
    assert!(!bench.home.path("agent.sock").exists());
    // For people it is said in the same words, and manual pages need no keystore.
    let man = bench.home.run(&["-n", "man", pages]).ok();
    assert_eq!(man.stdout, format!("would write manual pages to {pages}\n"));
    let anywhere = bench.home.run(&["-n", "man", pages, "--home", fleet]);
    assert_eq!(anywhere.ok().stdout, man.stdout);
    // What could not be done is not said to be.
    for (line, code) in [
        (&["agent", "nobody", "--socket", "agent.sock"][..], 3),
        (&["agent", "spare", "--socket", "agent.sock"], 8),
        (&["token", "spare"], 8),
        (&["agent", "bot", "bot", "--socket", "agent.sock"], 2),
        (&["man", fleet], 3),
        (&["auth", "bot", "--scope", "nonsense"], 2),
        (&["agent", "--stop", "--socket", "agent.sock"], 5),
    ] {
        bench
            .home
            .run(&join(&[&["--json", "-n"], line]))
            .error(code);
    }
}

#[test]
fn an_agent_outlasts_rehearsals_of_its_end() {
    let stage = Stage::new();
    let agent = stage.start();
    let socket = agent.path.to_str().unwrap();
    stage.home.secret_file("lock", "open sesame\n");
    for order in ["stop", "lock", "unlock"] {
        let flag = format!("--{order}");
        let line = ["--json", "-n", "agent", &flag, "--socket", socket];
        is_rehearsed(&stage.home.run(&line).json());
        let said = stage.home.run(&line[1..]).ok().stdout;
        assert_eq!(said, format!("would {order} the agent at {socket}\n"));
    }
    // Where one answers, no other can be.
    let second = ["--json", "-n", "agent", "bot", "--socket", socket];
    stage.home.run(&second).error(8);
    // It holds keys that are not in this keystore, and hands out tokens for them.
    let elsewhere = Home::new();
    let mut token = elsewhere.command(&["--json", "-n", "token", "bot"]);
    let run = Run::of(token.env("DERIKEY_AGENT_SOCK", socket).output().unwrap());
    is_rehearsed(&run.json());
    let mut token = elsewhere.command(&["--json", "-n", "token", "bot", "--scope", "nonsense"]);
    let run = Run::of(token.env("DERIKEY_AGENT_SOCK", socket).output().unwrap());
    run.error(2);
    let mut exec = stage
        .home
        .command(&["--json", "-n", "exec", "bot", "--", "touch", "made"]);
    let run = Run::of(exec.env("DERIKEY_AGENT_SOCK", socket).output().unwrap());
    is_rehearsed(&run.json());
    assert!(!stage.home.path("made").exists());
    let status = ["--json", "-n", "agent", "--status", "--socket", socket];
    let status = stage.home.run(&status).json();
    assert_eq!(status["locked"], false, "{status}");
}
