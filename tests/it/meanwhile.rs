//! What somebody else does to a key while an operation is under way, interrupted, or about to begin.

use std::{
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    kills::can_trace,
    manage::{Bench, rights},
    meddler::{Call, Deed, Meddler},
    second_look::{failing, message},
    support::{PLAIN, join},
};

/// A disabled key, and somebody between us and the exchange.
fn disabled() -> (Bench, Meddler, Value) {
    let mut bench = Bench::new();
    let meddler = Meddler::before(&mut bench.server);
    let bot = bench.trader("bot");
    bench.run(&["disable", "bot"]).json();
    (bench, meddler, bot)
}

/// What becomes of a call while somebody strikes its entry out, as whoever disables the key at once does.
fn strikes_out(bench: &Bench) -> Arc<Deed> {
    let journal = bench.home.store().join("journal/bot.json");
    Arc::new(move |call: &mut Call| {
        fs::remove_file(&journal)?;
        call.retell(|_| {})
    })
}

fn audited(bench: &Bench, action: &str) -> usize {
    let audit = bench.home.run(&["--json", "audit"]).json();
    let entries = audit["entries"].as_array().unwrap().iter();
    entries.filter(|entry| entry["action"] == action).count()
}

/// An edit says of each key whether it is enabled, and the list need not.
#[test]
fn an_edit_enables_no_key_because_the_list_does_not_say_that_it_is_disabled() {
    let (bench, meddler, bot) = disabled();
    let hides = |call: &mut Call| {
        call.retell(|keys| {
            for key in keys.as_array_mut().unwrap() {
                key.as_object_mut().unwrap().remove("enabled");
            }
        })
    };
    meddler.strike("private/list_api_keys", Arc::new(hides));
    bench.run(&["edit", "bot", "--label", "other"]).json();
    // Nor does it get a successor that is not.
    let refused = bench.run(&join(&[&["rotate", "bot"], &PLAIN]));
    assert!(message(&refused, 8).contains("is disabled"), "{refused:#?}");
    meddler.calm();
    let there = bench.remote(&bot["client_id"]);
    assert_eq!(there["enabled"], false);
    assert_eq!(there["name"], "other");
    assert_eq!(bench.record("bot")["enabled"].as_bool(), Some(false));
}

#[test]
fn panic_leaves_nothing_behind_that_enables_a_key_again() {
    let bench = Bench::with_faults(&["enable_api_key:drop-before:1"]);
    let bot = bench.trader("bot");
    bench.run(&["disable", "bot"]).json();
    bench.run(&["enable", "bot"]).error(9);
    assert_eq!(bench.pending().as_array().unwrap().len(), 1);
    let said = bench.run(&["panic", "--match", "bot", "--yes"]).json();
    assert_eq!(said["already"][0]["client_id"], bot["client_id"], "{said}");
    assert_eq!(bench.pending(), json!([]));
    bench.run(&["resume"]).json();
    assert_eq!(bench.remote(&bot["client_id"])["enabled"], false);
}

#[test]
fn panic_says_what_else_is_under_way_with_a_key() {
    let bench = Bench::with_faults(&["create_api_key:maintenance:2"]);
    bench.trader("bot");
    bench.run(&join(&[&["rotate", "bot"], &PLAIN])).error(75);
    let run = bench.run(&["panic", "--match", "bot", "--yes", "-v"]);
    run.json();
    assert!(
        run.stderr.contains("rotate of bot is under way"),
        "{run:#?}"
    );
}

/// Whoever disables a key waits for nobody, and whoever enables it at that moment does not win.
#[test]
fn a_key_that_is_disabled_while_it_is_being_enabled_stays_disabled() {
    for when in ["before", "after"] {
        let (bench, meddler, bot) = disabled();
        let flags: Vec<String> = bench.server.admin().iter().map(|s| (*s).into()).collect();
        let bench_home = bench.home.path("");
        let outcome = Arc::new(Mutex::new(None));
        let told = Arc::clone(&outcome);
        let disables = move |call: &mut Call| {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_derikey"));
            command.env_clear().current_dir(&bench_home);
            command.args(["--json", "--no-input", "disable", "bot", "--home", "store"]);
            command.args(&flags);
            let carried = (when == "after").then(|| call.carry_out());
            *told.lock().unwrap() = Some(command.output().unwrap().status.success());
            let answer = match carried {
                Some(answer) => answer?,
                None => call.carry_out()?,
            };
            call.answer(&answer.to_string())
        };
        meddler.strike("private/enable_api_key", Arc::new(disables));
        let enabled = bench.run(&["enable", "bot"]);
        assert_eq!(*outcome.lock().unwrap(), Some(true), "{when}: {enabled:#?}");
        assert!(
            message(&enabled, 8).contains("disabled in the meantime"),
            "{enabled:#?}"
        );
        meddler.calm();
        assert_eq!(bench.remote(&bot["client_id"])["enabled"], false, "{when}");
        assert_eq!(
            bench.record("bot")["enabled"].as_bool(),
            Some(false),
            "{when}"
        );
        assert_eq!(bench.pending(), json!([]), "{when}");
        bench.run(&["enable", "bot"]).json();
        assert_eq!(bench.remote(&bot["client_id"])["enabled"], true, "{when}");
    }
}

/// Where it cannot be taken back at once, that is what is under way.
#[test]
fn a_key_that_cannot_be_disabled_again_at_once_is_disabled_by_resume() {
    let (bench, meddler, bot) = disabled();
    meddler.strike("private/enable_api_key", strikes_out(&bench));
    meddler.strike(
        "private/disable_api_key",
        Arc::new(|call: &mut Call| call.refuse(11051)),
    );
    let enabled = bench.run(&["enable", "bot"]);
    let error = enabled.error(75);
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("disable of bot"),
        "{error}"
    );
    meddler.calm();
    assert_eq!(bench.pending()[0]["operation"], "disable");
    bench.run(&["resume"]).json();
    assert_eq!(bench.remote(&bot["client_id"])["enabled"], false);
}

/// A way back enables a key, too, and whoever disables it at once strikes that out.
#[test]
fn a_way_back_whose_key_is_disabled_meanwhile_is_at_its_end() {
    for disables in ["at once", "later"] {
        let mut bench = Bench::new();
        let meddler = Meddler::before(&mut bench.server);
        let old = bench.trader("bot");
        let new = bench.run(&join(&[&["rotate", "bot"], &PLAIN])).json();
        meddler.strike("private/enable_api_key", strikes_out(&bench));
        if disables == "later" {
            let refuses = |call: &mut Call| call.refuse(11051);
            meddler.strike("private/disable_api_key", Arc::new(refuses));
        }
        let back = bench.run(&["rollback", "bot"]);
        meddler.calm();
        if disables == "later" {
            assert!(message(&back, 75).contains("disable of bot"), "{back:#?}");
            let pending = &bench.pending()[0];
            assert_eq!(pending["operation"], "disable", "{pending}");
            assert_eq!(pending["stage"], "planned", "{pending}");
            bench.run(&["resume"]).json();
        } else {
            let said = message(&back, 8);
            assert!(said.contains("disabled in the meantime"), "{said}");
        }
        assert_eq!(bench.pending(), json!([]));
        assert_eq!(bench.remote(&old["client_id"])["enabled"], false);
        assert_eq!(bench.remote(&new["client_id"])["enabled"], true);
    }
}

/// Whoever disables a key at once strikes the entry of another operation out; a disk that does not
/// let go of it is another matter.
#[test]
fn an_entry_that_is_gone_is_struck_out_and_one_that_stays_is_not() {
    let mut bench = Bench::new();
    let meddler = Meddler::before(&mut bench.server);
    bench.trader("bot");
    meddler.strike("private/edit_api_key", strikes_out(&bench));
    bench.run(&["edit", "bot", "--label", "other"]).json();
    meddler.calm();
    if !can_trace() {
        return;
    }
    let edit = ["edit", "bot", "--label", "third"];
    let edit = join(&[&edit, &bench.server.admin()]);
    let edited = failing(&bench, "unlink:error=EIO", &edit);
    assert_ne!(edited.code, Some(0), "{edited:#?}");
    assert_eq!(bench.pending()[0]["operation"], "edit");
    bench.run(&["resume"]).json();
    assert_eq!(bench.pending(), json!([]));
}

/// The exchange need not say in its answer what became of a key, and may say it of another.
#[test]
fn panic_takes_no_key_for_disabled_of_which_nobody_said_so() {
    for lie in ["silent", "another"] {
        let mut bench = Bench::new();
        let meddler = Meddler::before(&mut bench.server);
        let bot = bench.trader("bot");
        let shown = Mutex::new(bench.remote(&bot["client_id"]));
        let lies = move |call: &mut Call| {
            let mut key = shown.lock().unwrap().clone();
            let fields = key.as_object_mut().unwrap();
            match lie {
                "silent" => drop(fields.remove("enabled")),
                _ => {
                    fields.insert("enabled".into(), json!(false));
                    fields.insert("id".into(), json!(77));
                }
            }
            let answer =
                json!({"jsonrpc": "2.0", "id": call.body["id"], "result": key, "testnet": true});
            call.answer(&answer.to_string())
        };
        meddler.strike("private/disable_api_key", Arc::new(lies));
        // A code is wanted for whoever looks a second time.
        let looks = |call: &mut Call| match call.nth {
            0 => call.retell(|_| {}),
            _ => call.refuse(11051),
        };
        meddler.strike("private/list_api_keys", Arc::new(looks));
        let run = bench.run(&["panic", "--match", "bot", "--yes"]);
        assert_ne!(run.code, Some(0), "{lie}: {run:#?}");
        let said: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(said["disabled"], json!([]), "{lie}: {said}");
        assert_eq!(said["not_reached"][0]["client_id"], bot["client_id"]);
        meddler.calm();
        assert_eq!(
            bench.record("bot")["enabled"].as_bool(),
            Some(true),
            "{lie}"
        );
    }
}

/// A key that is gone opens nothing.
#[test]
fn panic_takes_a_key_that_somebody_removes_meanwhile_for_disabled() {
    let mut bench = Bench::new();
    let meddler = Meddler::before(&mut bench.server);
    let bot = bench.trader("bot");
    let admin = Arc::new(bench.admin());
    let removes = move |call: &mut Call| {
        let said = call.carry_out()?;
        admin.call(
            "private/remove_api_key",
            &json!({"id": call.body["params"]["id"]}),
        );
        call.answer(&said.to_string())
    };
    meddler.strike("private/disable_api_key", Arc::new(removes));
    let said = bench.run(&["panic", "--yes"]).json();
    assert_eq!(bench.find(&bot["client_id"]), None);
    assert_eq!(said["disabled"][0]["client_id"], bot["client_id"]);
    assert_eq!(said["verified"], true, "{said}");
}

#[test]
fn a_resumed_edit_gives_back_nothing_that_was_taken_away_meanwhile() {
    let bench = Bench::with_faults(&["edit_api_key:drop-before:1"]);
    let bot = bench.provision("bot", &["--scope", "trade:read_write"]);
    let id = &bot["client_id"];
    bench.run(&["edit", "bot", "--label", "other"]).error(9);
    bench.tamper(
        id,
        &json!({"max_scope": "trade:read", "ip_whitelist": ["127.0.0.1"]}),
    );
    let there = bench.remote(id);
    let resumed = bench.run(&["resume", "bot"]);
    assert!(
        message(&resumed, 9).contains("changed in the meantime"),
        "{resumed:#?}"
    );
    assert_eq!(bench.remote(id), there);
    bench.run(&["resume", "bot", "--abandon", "--yes"]).json();
    bench.run(&["edit", "bot", "--label", "other"]).json();
    let edited = bench.remote(id);
    assert_eq!(rights(&edited["max_scope"]), ["trade:read"]);
    assert_eq!(edited["name"], "other");
}

#[test]
fn an_edit_that_takes_away_is_resumed_whatever_somebody_else_did() {
    let bench = Bench::with_faults(&["edit_api_key:drop-before:1"]);
    let bot = bench.provision("bot", &["--scope", "trade:read_write wallet:read"]);
    bench
        .run(&["edit", "bot", "--scope", "trade:read"])
        .error(9);
    bench.tamper(
        &bot["client_id"],
        &json!({"max_scope": "trade:read wallet:read"}),
    );
    bench.run(&["resume", "bot"]).json();
    let there = bench.remote(&bot["client_id"]);
    assert_eq!(rights(&there["max_scope"]), ["trade:read"]);
}

#[test]
fn a_resumed_rotation_gives_its_key_what_the_old_one_has_by_then() {
    let bench = Bench::with_faults(&["create_api_key:maintenance:2"]);
    let bot = bench.provision("bot", &["--scope", "trade:read_write"]);
    bench.run(&join(&[&["rotate", "bot"], &PLAIN])).error(75);
    assert_eq!(bench.pending()[0]["stage"], "generated");
    bench.tamper(&bot["client_id"], &json!({"max_scope": "trade:read"}));
    bench.run(&["resume", "bot"]).json();
    let successor = Value::from(bench.record("bot")["client_id"].as_str().unwrap());
    assert_ne!(successor, bot["client_id"]);
    assert_eq!(
        rights(&bench.remote(&successor)["max_scope"]),
        ["trade:read"]
    );
}

#[test]
fn a_restriction_is_not_taken_off_without_a_yes() {
    let bench = Bench::new();
    let feature = ["--feature", "restricted_block_trades"];
    let bot = bench.provision("bot", &join(&[&["--scope", "trade:read"], &feature]));
    let edit = ["edit", "bot", "--feature", "none"];
    assert!(message(&bench.run(&edit), 8).contains("lose a feature"));
    let there = bench.remote(&bot["client_id"]);
    assert_eq!(
        there["enabled_features"],
        json!(["restricted_block_trades"])
    );
    bench.run(&join(&[&edit, &["--yes"]])).json();
}

#[test]
fn a_fleet_does_not_shut_out_the_key_that_applies_it() {
    let bench = Bench::new();
    let boss = bench.provision("boss", &["--scope", "account:read_write trade:read"]);
    let fleet = bench.home.path("fleet.toml");
    let text = "[keys.boss]\nscope = \"account:read_write trade:read\"\nip = [\"203.0.113.7\"]\n";
    fs::write(&fleet, text).unwrap();
    let apply = [
        "--json",
        "apply",
        "-f",
        fleet.to_str().unwrap(),
        "--yes",
        "--admin",
        "boss",
    ];
    let run = bench.home.run(&join(&[&apply, &bench.server.network()]));
    assert_ne!(run.code, Some(0), "{run:#?}");
    assert!(run.stdout.contains("lock you out"), "{run:#?}");
    assert_eq!(bench.remote(&boss["client_id"])["ip_whitelist"], json!([]));
    // Another administrator may.
    let args = ["apply", "-f", fleet.to_str().unwrap(), "--yes"];
    bench.run(&args).json();
}

#[test]
fn a_disabled_key_that_is_rotated_is_not_taken_for_enabled_in_the_grace() {
    let bench = Bench::new();
    bench.trader("bot");
    bench.run(&["disable", "bot"]).json();
    let rotate = ["rotate", "bot", "--grace", "1s", "--yes"];
    bench.run(&join(&[&rotate, &PLAIN])).json();
    let old = fs::read_to_string(bench.home.store().join("keys/bot/1/key.toml")).unwrap();
    assert!(old.contains("enabled = false"), "{old}");
    bench.run(&["disable", "bot"]).json();
    std::thread::sleep(Duration::from_millis(1500));
    bench.run(&["resume"]).json();
    assert_eq!(bench.pending(), json!([]));
}

#[test]
fn no_other_key_is_put_where_one_is_about_to_be_made() {
    if !can_trace() {
        return;
    }
    let bench = Bench::new();
    bench.home.run(&join(&[&["generate", "mine"], &PLAIN])).ok();
    let export = ["export", "mine", "--out", "mine.pem"];
    bench.home.run(&join(&[&export, &PLAIN])).ok();
    let provision = ["provision", "bot", "--scope", "trade:read"];
    let stopped = failing(
        &bench,
        "renameat2:signal=KILL:when=1",
        &join(&[&provision, &PLAIN, &bench.server.admin()]),
    );
    assert_ne!(stopped.code, Some(0), "{stopped:#?}");
    assert_eq!(bench.pending().as_array().unwrap().len(), 1);
    for line in [&["generate", "bot"][..], &["import", "bot", "mine.pem"]] {
        let refused = bench.home.run(&join(&[&["--json"], line, &PLAIN]));
        assert!(message(&refused, 8).contains("under way"), "{refused:#?}");
    }
    bench.run(&join(&[&["resume", "bot"], &PLAIN])).json();
}

#[test]
fn waiting_for_a_grace_is_nothing_that_is_done() {
    let bench = Bench::new();
    bench.trader("bot");
    bench
        .run(&join(&[&["rotate", "bot", "--grace", "1h"], &PLAIN]))
        .json();
    for _ in 0..3 {
        bench.run(&["resume"]).json();
    }
    assert_eq!(audited(&bench, "rotate"), 1);
}

#[test]
fn who_changes_a_passphrase_is_told_of_the_generation_that_keeps_its_own() {
    let bench = Bench::new();
    bench.home.secret_file("pw", "correct horse\n");
    bench.trader("bot");
    bench
        .run(&join(&[&["rotate", "bot", "--grace", "1h"], &PLAIN]))
        .json();
    let passwd = bench
        .home
        .run(&["passwd", "bot", "--new-passphrase-file", "pw"])
        .ok();
    assert!(passwd.stderr.contains("generation 1"), "{passwd:#?}");
}
