//! Keys that somebody changed at the exchange, or that were adopted without a look at it.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::{Value, json};

use super::{
    manage::{Bench, rights},
    support::{PLAIN, join},
};

/// A key whose public half was pasted into the web form, with rights that do not let it look.
fn adopted(bench: &Bench) -> Value {
    bench.home.run(&join(&[&["generate", "bot"], &PLAIN])).ok();
    let pem = bench.home.run(&["public", "bot"]).ok().stdout;
    let made = bench.admin().call(
        "private/create_api_key",
        &json!({"name": "desk", "max_scope": "trade:read", "public_key": pem}),
    );
    let said = adopt(bench, &["--client-id", made["client_id"].as_str().unwrap()]);
    assert_eq!(said["key_id"], Value::Null, "{said}");
    made
}

fn adopt(bench: &Bench, more: &[&str]) -> Value {
    let adopt = ["--json", "adopt", "bot"];
    let run = bench
        .home
        .run(&join(&[&adopt, more, &bench.server.network()]));
    run.json()
}

#[test]
fn rights_that_somebody_added_there_are_not_taken_over_without_a_yes() {
    let bench = Bench::new();
    let bot = bench.provision("bot", &["--scope", "trade:read", "--ip", "127.0.0.1"]);
    let id = &bot["client_id"];
    let recorded = bench.record("bot");
    let edits: [&[&str]; 3] = [
        &["edit", "bot", "--label", "bot"],
        &["edit", "bot", "--label", "other"],
        &["edit", "bot", "--ip", "127.0.0.1"],
    ];
    for wider in [
        json!({"max_scope": "trade:read_write wallet:read_write"}),
        json!({"max_scope": "trade:read", "ip_whitelist": []}),
    ] {
        bench.tamper(id, &wider);
        let there = bench.remote(id);
        for edit in edits {
            if edit.contains(&"--ip") && wider.get("ip_whitelist").is_some() {
                continue;
            }
            let refused = bench.run(edit);
            let why = refused.error(8)["message"].as_str().unwrap().to_owned();
            let what = match wider.get("ip_whitelist") {
                Some(_) => "usable from any address",
                None => "more rights: trade:read -> trade:read_write wallet:read_write",
            };
            assert!(why.contains(what), "{why}");
            assert_eq!(bench.remote(id), there, "{edit:?}");
            assert_eq!(bench.record("bot"), recorded, "{edit:?}");
            assert_eq!(bench.pending(), json!([]), "{edit:?}");
        }
    }
    // With a yes it is said, kept, recorded and written down.
    bench.tamper(
        id,
        &json!({"max_scope": "trade:read_write", "ip_whitelist": ["127.0.0.1"]}),
    );
    let taken = bench.run(&["edit", "bot", "--label", "bot", "--yes", "-v"]);
    assert_eq!(taken.json()["changed"], false);
    assert!(
        taken
            .stderr
            .contains("kept, not what is recorded here: scope: trade:read_write -> trade:read"),
        "{taken:#?}"
    );
    let scope = Value::from(bench.record("bot")["scope"].as_str().unwrap());
    assert_eq!(rights(&scope), ["trade:read_write"]);
    let audit = bench.home.run(&["--json", "audit"]).json();
    let last = audit["entries"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["action"], &last["key"]),
        (&json!("edit"), &json!("bot"))
    );
}

#[test]
fn what_somebody_narrowed_there_is_edited_without_a_question() {
    let bench = Bench::new();
    let bot = bench.provision("bot", &["--scope", "trade:read_write"]);
    bench.tamper(&bot["client_id"], &json!({"max_scope": "trade:read"}));
    let edited = bench.run(&["edit", "bot", "--label", "other", "-v"]);
    edited.json();
    assert!(
        edited.stderr.contains("is kept, not what is recorded"),
        "{edited:#?}"
    );
    let there = bench.remote(&bot["client_id"]);
    assert_eq!(rights(&there["max_scope"]), ["trade:read"]);
}

#[test]
fn a_key_that_was_adopted_blindly_is_looked_up_by_who_may_look() {
    let bench = Bench::new();
    let made = adopted(&bench);
    // Nothing is called drift that was never known.
    bench.run(&["list", "--remote", "--exit-code"]).json();
    let planned = bench.run(&["rotate", "bot", "--dry-run"]).json();
    assert_eq!(planned["dry_run"], true);
    let rotated = bench.run(&join(&[&["rotate", "bot"], &PLAIN])).json();
    assert_eq!(rotated["label"], "desk", "{rotated}");
    assert_ne!(rotated["client_id"], made["client_id"]);
    assert_eq!(bench.remote(&made["client_id"])["enabled"], false);
}

#[test]
fn an_edit_remembers_what_it_saw_of_a_key_that_was_adopted_blindly() {
    let bench = Bench::new();
    let made = adopted(&bench);
    bench.run(&["edit", "bot", "--label", "other"]).json();
    assert_eq!(bench.show("bot")["key_id"], made["id"]);
    bench.run(&["list", "--remote", "--exit-code"]).json();
}

#[test]
fn a_key_in_whose_place_the_account_shows_another_is_not_looked_up() {
    let bench = Bench::new();
    let made = adopted(&bench);
    bench
        .home
        .run(&join(&[&["generate", "thief"], &PLAIN]))
        .ok();
    let mut record = bench.record("bot").to_string();
    let theirs = bench.trader("other");
    record = record.replace(
        made["client_id"].as_str().unwrap(),
        theirs["client_id"].as_str().unwrap(),
    );
    let path = bench.home.store().join("keys/bot/current/key.toml");
    fs::write(path, record).unwrap();
    bench.run(&join(&[&["rotate", "bot"], &PLAIN])).error(11);
    assert_eq!(bench.remote(&theirs["client_id"])["enabled"], true);
}

#[test]
fn nobody_is_told_to_paste_a_key_that_is_registered() {
    let bench = Bench::new();
    let bot = bench.trader("bot");
    let network = bench.server.network();
    for network in [&network[..], &["--network", "test"]] {
        let run = bench
            .home
            .run(&join(&[&["--json", "adopt", "bot"], network]));
        assert_eq!(run.stdout, "");
        let why = run.error(8)["message"].to_string();
        assert!(why.contains(bot["client_id"].as_str().unwrap()), "{why}");
    }
    // Who says which one it is has it looked at again.
    let again = adopt(&bench, &["--client-id", bot["client_id"].as_str().unwrap()]);
    assert_eq!(again["changed"], false, "{again}");
}

#[test]
fn a_configured_administrator_of_an_exchange_does_not_shut_the_sandbox() {
    let bench = Bench::new();
    let admin = "account:read_write trade:read_write";
    bench.provision("chief", &["--scope", admin]);
    let config = bench.home.store().join("config.toml");
    for line in ["admin = \"chief\"", "admin_client_id = \"abc\""] {
        fs::write(&config, line).unwrap();
        fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
        let name = if line.contains("chief") { "one" } else { "two" };
        let made = bench.home.run(&[
            "--json",
            "--network",
            "sandbox",
            "provision",
            name,
            "--scope",
            "trade:read",
        ]);
        assert_eq!(made.json()["network"], "sandbox");
    }
    // One that is typed is meant.
    let typed = ["--network", "sandbox", "--admin", "chief"];
    let run = bench.home.run(&join(&[
        &["--json", "provision", "three", "--scope", "trade:read"],
        &typed,
    ]));
    run.error(8);
}

#[test]
fn where_the_files_of_a_removed_key_are_is_said() {
    let bench = Bench::new();
    bench.trader("bot");
    let removed = bench.run(&["remove", "bot", "--yes", "-v"]);
    removed.json();
    let trash = bench.home.store().join("trash");
    let grave = fs::read_dir(&trash)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    assert!(
        removed.stderr.contains(grave.to_str().unwrap()),
        "{removed:#?}"
    );
}
