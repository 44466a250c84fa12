//! `plan`, `apply` and `drift`: a declared fleet against an exchange in another process, with
//! somebody who changes the account by hand.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command, thread, time::Duration};

use serde_json::{Value, json};

use crate::{
    kills::{Bridge, PHASES, Phase},
    manage::{Bench, rights},
    raw::Tap,
    scene::{Account, is_tame, says_why},
    support::{Home, Run, Server, join},
    terminal::Person,
};

const FILE: &str = "FLEET.toml";
const PLAIN: [&str; 2] = ["--no-passphrase", "--insecure"];

/// Two keys, one of them with everything that can be said of a key.
const TWO: &str = r#"
[defaults]
scope = "account:read"

[keys.alice]
scope = "account:read trade:read_write"
label = "desk_1"
ip = ["127.0.0.1", "203.0.113.7"]
features = ["restricted_block_trades"]

[keys.bob]
"#;

impl Bench {
    fn declare(&self, text: &str) {
        fs::write(self.home.path(FILE), text).unwrap();
    }

    fn plan(&self, more: &[&str]) -> Value {
        self.run(&join(&[&["plan", "-f", FILE], more])).json()
    }

    fn try_apply(&self, more: &[&str]) -> Run {
        self.run(&join(&[&["apply", "-f", FILE, "--yes"], &PLAIN, more]))
    }

    fn apply(&self, more: &[&str]) -> Value {
        self.try_apply(more).json()
    }

    /// What `drift` says: its exit code, and what it prints.
    fn drift(&self) -> (i32, Value) {
        let run = self.run(&["drift", "-f", FILE]);
        let said = serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {run:#?}"));
        let code = run.code.unwrap();
        if code != 0 {
            assert_eq!(run.error(10)["kind"], "findings");
        }
        (code, said)
    }

    /// Registers a key whose keystore is gone right after.
    fn lost(&self, name: &str) -> Value {
        let more = ["--scope", "trade:read", "--yes", "--json"];
        let admin = self.server.admin();
        Home::new()
            .run(&join(&[&["provision", name], &more, &PLAIN, &admin]))
            .json()
    }

    #[track_caller]
    fn is_in_order(&self) {
        let (code, said) = self.drift();
        assert_eq!(code, 0, "{said:#}");
        assert_eq!(said["findings"], 0);
        assert_eq!(self.plan(&[])["changes"], 0);
        // Nobody is asked anything, and nothing is done.
        let again = self.run(&["apply", "-f", FILE]).json();
        assert_eq!(again["changed"], false, "{again:#}");
        assert_eq!(self.pending(), json!([]));
    }
}

#[track_caller]
fn row<'a>(said: &'a Value, name: &str) -> &'a Value {
    let mut rows = said["keys"].as_array().unwrap().iter();
    rows.find(|row| row["name"] == name)
        .unwrap_or_else(|| panic!("{said:#}"))
}

fn words(list: &Value, field: &str) -> Vec<String> {
    let list = list.as_array().unwrap().iter();
    list.map(|item| item[field].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_fleet_is_planned_made_and_left_alone() {
    let bench = Bench::new();
    bench.declare(TWO);
    let plan = bench.plan(&[]);
    assert_eq!(plan["network"], "custom");
    assert_eq!(plan["changes"], 2);
    assert_eq!(words(&plan["keys"], "name"), ["alice", "bob"]);
    assert_eq!(words(&plan["keys"], "action"), ["create", "create"]);
    assert_eq!(plan["undeclared"], json!([]));
    assert_eq!(plan["accounts"][0]["held"], 1);
    assert_eq!(plan["accounts"][0]["would_hold"], 3);
    assert!(
        !bench.home.store().join("keys").exists(),
        "a plan makes nothing"
    );
    assert_eq!(bench.drift().0, 10, "what is not there is not as declared");
    let dry = bench.run(&["apply", "-f", FILE, "--dry-run"]).json();
    assert_eq!(
        (&dry["changes"], &dry["dry_run"]),
        (&json!(2), &json!(true))
    );
    assert_eq!(bench.admin().keys().len(), 0);

    let said = bench.apply(&[]);
    assert_eq!((&said["changed"], &said["done"]), (&json!(true), &json!(2)));
    assert_eq!(words(&said["keys"], "outcome"), ["done", "done"]);
    let alice = bench.remote(&row(&said, "alice")["client_id"]);
    assert_eq!(alice["name"], "desk_1");
    assert_eq!(
        rights(&alice["max_scope"]),
        ["account:read", "trade:read_write"]
    );
    assert_eq!(alice["ip_whitelist"], json!(["127.0.0.1", "203.0.113.7"]));
    assert_eq!(
        alice["enabled_features"],
        json!(["restricted_block_trades"])
    );
    let bob = bench.remote(&row(&said, "bob")["client_id"]);
    assert_eq!(
        (&bob["name"], &bob["enabled"]),
        (&json!("bob"), &json!(true))
    );
    for name in ["alice", "bob"] {
        assert_eq!(bench.show(name)["state"], "active", "{name}");
    }
    assert_eq!(bench.admin().keys().len(), 2);

    bench.is_in_order();
    assert_eq!(bench.admin().keys().len(), 2);
    let log = bench.home.run(&["--json", "audit"]).json();
    assert_eq!(words(&log["entries"], "action"), ["provision", "provision"]);
}

#[test]
fn whatever_is_changed_by_hand_is_drift_and_apply_mends_it() {
    let bench = Bench::new();
    bench.declare(TWO);
    let id = row(&bench.apply(&[]), "alice")["client_id"].clone();
    let before = bench.remote(&id);
    for (change, field, actual) in [
        (
            json!({"max_scope": "account:read trade:read_write wallet:read"}),
            "scope",
            json!("account:read trade:read_write wallet:read"),
        ),
        (
            json!({"max_scope": "account:read"}),
            "scope",
            json!("account:read"),
        ),
        (json!({"name": "other"}), "label", json!("other")),
        (
            json!({"ip_whitelist": ["127.0.0.1"]}),
            "ip",
            json!(["127.0.0.1"]),
        ),
        (json!({"ip_whitelist": []}), "ip", json!([])),
        (json!({"enabled_features": []}), "features", json!([])),
        (json!({"enabled": false}), "enabled", json!(false)),
    ] {
        bench.tamper(&id, &change);
        let (code, said) = bench.drift();
        assert_eq!(code, 10, "{change}");
        assert_eq!(said["findings"], 1, "{change}");
        let differences = &row(&said, "alice")["differences"];
        assert_eq!(words(differences, "field"), [field], "{change}");
        assert_eq!(differences[0]["actual"], actual, "{change}");
        let done = bench.apply(&[]);
        assert_eq!(done["done"], 1, "{done:#}");
        assert_eq!(row(&done, "bob")["action"], "nothing");
        assert_eq!(bench.remote(&id), before, "{change}");
        assert_eq!(bench.drift().0, 0, "{change}");
    }
    // All at once, and disabled: its settings are mended before it may log in again.
    let all = json!({"max_scope": "trade:read", "name": "x", "ip_whitelist": [],
        "enabled_features": [], "enabled": false});
    bench.tamper(&id, &all);
    let said = bench.plan(&[]);
    assert_eq!(row(&said, "alice")["steps"], json!(["edit", "enable"]));
    bench.apply(&[]);
    assert_eq!(bench.remote(&id), before);
    bench.is_in_order();
    assert_eq!(bench.show("alice")["state"], "active");
}

#[test]
fn a_file_that_changes_is_followed_and_a_key_that_is_switched_off_stays_so() {
    let bench = Bench::new();
    bench.declare(TWO);
    let said = bench.apply(&[]);
    let off = TWO.replace("label = \"desk_1\"", "enabled = false");
    bench.declare(&off);
    let plan = bench.plan(&[]);
    assert_eq!(row(&plan, "alice")["action"], "disable");
    assert_eq!(row(&plan, "alice")["steps"], json!(["disable", "edit"]));
    bench.apply(&[]);
    let alice = bench.remote(&row(&said, "alice")["client_id"]);
    assert_eq!(
        (&alice["enabled"], &alice["name"]),
        (&json!(false), &json!("alice"))
    );
    bench.is_in_order();
    bench.declare(TWO);
    bench.apply(&[]);
    let alice = bench.remote(&row(&said, "alice")["client_id"]);
    assert_eq!(
        (&alice["enabled"], &alice["name"]),
        (&json!(true), &json!("desk_1"))
    );
    bench.is_in_order();
    // One that is declared as switched off is not made to begin with.
    bench.declare("[keys.zoe]\nscope = \"@trader\"\nenabled = false");
    assert_eq!(row(&bench.plan(&[]), "zoe")["action"], "nothing");
}

#[test]
fn a_key_that_is_here_is_registered_and_what_the_exchange_has_is_recorded() {
    let bench = Bench::new();
    let generate = ["generate", "bob", "--algorithm", "ed25519"];
    bench.home.run(&join(&[&generate, &PLAIN])).ok();
    bench.declare("[keys.bob]\nscope = \"@trader\"");
    assert_eq!(row(&bench.plan(&[]), "bob")["action"], "register");
    let before = bench.home.run(&["--json", "show", "bob"]).json()["fingerprint"].clone();
    let id = row(&bench.apply(&[]), "bob")["client_id"].clone();
    assert_eq!(bench.remote(&id)["client_secret"], before);
    bench.is_in_order();
    // Somebody does by hand what is declared later: nothing is sent, and the record follows.
    bench.tamper(&id, &json!({"name": "robert"}));
    bench.declare("[keys.bob]\nscope = \"@trader\"\nlabel = \"robert\"");
    assert_eq!(bench.apply(&[])["changed"], false);
    assert_eq!(bench.show("bob")["label"], "robert");
}

#[test]
fn keys_that_are_not_declared_are_named_and_disabled_only_when_asked() {
    let bench = Bench::new();
    bench.declare(TWO);
    bench.apply(&[]);
    let known = bench.trader("carol");
    let stranger = bench.lost("dave");
    let (code, said) = bench.drift();
    assert_eq!(code, 10, "a live key that nobody declared");
    assert_eq!(said["findings"], 2);
    let undeclared = &said["undeclared"];
    assert_eq!(words(undeclared, "label"), ["carol", "dave"]);
    assert_eq!(undeclared[0]["name"], "carol");
    assert_eq!(undeclared[1]["name"], Value::Null);
    assert_eq!(said["changes"], 0);
    assert_eq!(bench.apply(&[])["changed"], false);
    assert_eq!(bench.remote(&known["client_id"])["enabled"], true);

    // Those that are managed elsewhere are named in the file.
    let elsewhere = format!("elsewhere = [{}]\n{TWO}", stranger["client_id"]);
    bench.declare(&elsewhere);
    let plan = bench.plan(&["--prune"]);
    assert_eq!(plan["changes"], 1);
    assert_eq!(words(&plan["undeclared"], "action"), ["disable"]);
    let pruned = bench.apply(&["--prune"]);
    assert_eq!(pruned["undeclared"][0]["outcome"], "done");
    assert_eq!(bench.remote(&known["client_id"])["enabled"], false);
    assert_eq!(bench.remote(&stranger["client_id"])["enabled"], true);
    assert_eq!(bench.show("carol")["state"], "disabled");
    bench.is_in_order();

    bench.declare(TWO);
    bench.apply(&["--prune"]);
    assert_eq!(bench.remote(&stranger["client_id"])["enabled"], false);
    bench.is_in_order();
    // Nobody was taken away, and whoever does it is left in.
    assert_eq!(bench.admin().keys().len(), 4);
}

#[test]
fn an_account_holds_eight_keys_and_nothing_is_begun_that_would_not_fit() {
    let bench = Bench::new();
    let declare = |count: usize| {
        let keys = (1..=count).map(|n| format!("[keys.bot_{n}]\nscope = \"trade:read\"\n"));
        bench.declare(&keys.collect::<String>());
    };
    declare(8);
    let plan = bench.plan(&[]);
    assert_eq!(plan["accounts"][0]["too_many"], true);
    assert_eq!(plan["accounts"][0]["would_hold"], 9);
    let error = says_why(&bench.try_apply(&[]), "eight and the administrator");
    assert_eq!(error["exit"], 8);
    assert!(
        error["message"].as_str().unwrap().contains("would hold 9"),
        "{error}"
    );
    assert_eq!(bench.admin().keys().len(), 0);
    assert!(!bench.home.store().join("keys").exists());
    declare(7);
    assert_eq!(bench.apply(&[])["done"], 7);
    bench.is_in_order();
}

#[test]
fn what_was_interrupted_is_finished_if_it_is_declared_and_else_left_to_resume() {
    let bench = Bench::with_faults(&["edit_api_key:drop-after:1", "create_api_key:drop-after:2"]);
    bench.trader("bob");
    bench.run(&["edit", "bob", "--label", "robert"]).error(9);
    bench.declare("[keys.bob]\nscope = \"account:read trade:read_write\"\nlabel = \"bobby\"");
    let plan = bench.plan(&[]);
    let bob = row(&plan, "bob");
    assert_eq!(bob["action"], "blocked");
    assert!(
        bob["cure"].as_str().unwrap().contains("derikey resume bob"),
        "{bob}"
    );
    assert_eq!(bench.drift().0, 10);
    let run = bench.try_apply(&[]);
    let error = run.error(8);
    assert!(
        error["hint"]
            .as_str()
            .unwrap()
            .contains("derikey resume bob"),
        "{error}"
    );
    assert_eq!(
        bench.pending()[0]["operation"],
        "edit",
        "nothing was touched"
    );

    bench.declare("[keys.bob]\nscope = \"account:read trade:read_write\"\nlabel = \"robert\"");
    assert_eq!(row(&bench.plan(&[]), "bob")["steps"], json!(["edit"]));
    assert_eq!(bench.apply(&[])["done"], 1);
    bench.is_in_order();
}

#[test]
fn a_rotation_in_its_grace_is_no_drift_and_its_old_key_no_stranger() {
    let bench = Bench::new();
    bench.declare("[keys.bob]\nscope = \"trade:read\"");
    bench.apply(&[]);
    let rotate = ["rotate", "bob", "--grace", "1h"];
    bench.run(&join(&[&rotate, &PLAIN])).json();
    let (code, said) = bench.drift();
    assert_eq!(code, 0, "{said:#}");
    assert_eq!(said["undeclared"], json!([]));
    assert_eq!(row(&said, "bob")["reason"], "rotate is under way");
    let pruned = bench.apply(&["--prune"]);
    assert_eq!(pruned["changed"], false);
    // What would have to be changed waits for it, but for one thing.
    bench.declare("[keys.bob]\nscope = \"trade:read\"\nlabel = \"other\"");
    assert_eq!(row(&bench.plan(&[]), "bob")["action"], "blocked");
    bench.declare("[keys.bob]\nscope = \"trade:read\"\nenabled = false");
    assert_eq!(bench.apply(&[])["done"], 1);
    assert_eq!(
        bench.remote(&bench.show("bob")["client_id"])["enabled"],
        false
    );
}

#[test]
fn what_no_step_can_settle_is_blocked_and_stops_no_other_key() {
    let bench = Bench::new();
    let keys = ["alice", "bob", "carol"];
    for name in keys {
        bench.trader(name);
    }
    let ids = keys.map(|name| bench.show(name)["client_id"].clone());
    bench
        .run(&[
            "remove",
            &format!("id:{}", bench.show("alice")["key_id"]),
            "--yes",
        ])
        .json();
    bench.trader("alice");
    let id = bench.show("alice")["key_id"].clone();
    bench
        .admin()
        .call("private/remove_api_key", &json!({"id": id}));
    fs::write(
        bench.home.store().join("keys/bob/1/key.toml"),
        "version = 7",
    )
    .unwrap();
    let mode = fs::Permissions::from_mode(0o600);
    fs::set_permissions(bench.home.store().join("keys/bob/1/key.toml"), mode).unwrap();
    let scope = "scope = \"account:read trade:read_write\"";
    bench.declare(&format!(
        "[defaults]\n{scope}\n[keys.alice]\n[keys.bob]\n[keys.carol]\nlabel = \"c\"\n[keys.dave]\n\
         label = \"frank\"\n[keys.erin]\nalgorithm = \"rsa-2048\""
    ));
    bench.home.run(&join(&[&["generate", "erin"], &PLAIN])).ok();
    bench.lost("frank");
    let run = bench.try_apply(&[]);
    let error = run.error(8);
    assert!(
        error["message"].as_str().unwrap().contains("3 more"),
        "{error}"
    );
    let said: Value = serde_json::from_str(&run.stdout).unwrap();
    for (name, reason) in [
        ("alice", "which the account has not"),
        ("bob", "key.toml cannot be read"),
        ("dave", "an enabled key of that label"),
        ("erin", "it is ed25519, and declared as rsa-2048"),
    ] {
        let row = row(&said, name);
        assert_eq!(row["action"], "blocked", "{row}");
        assert!(row["reason"].as_str().unwrap().contains(reason), "{row}");
        assert!(!row["cure"].as_str().unwrap().is_empty(), "{row}");
    }
    assert_eq!(row(&said, "carol")["outcome"], "done");
    assert_eq!(bench.remote(&ids[2])["name"], "c");
    assert_eq!(bench.drift().0, 10);
}

#[test]
fn one_keys_failure_stops_no_other_and_its_exit_code_is_what_remains() {
    let bench = Bench::new();
    let boss = bench.provision("boss", &["--scope", "account:read_write trade:read_write"]);
    let network = bench.server.network();
    bench.declare(
        "[defaults]\nadmin = \"boss\"\n[keys.alice]\nscope = \"wallet:read\"\n\
         [keys.bob]\nscope = \"trade:read\"",
    );
    let apply = ["--json", "apply", "-f", FILE, "--yes"];
    let run = bench.home.run(&join(&[&apply, &PLAIN, &network]));
    let error = run.error(4);
    assert_eq!(error["exchange"]["code"], 13403, "{error}");
    let said: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(words(&said["keys"], "outcome"), ["failed", "done"]);
    assert_eq!(row(&said, "alice")["failure"]["kind"], "rejected");
    // The administrator's own key is neither undeclared nor to be pruned.
    assert_eq!(
        words(&said["undeclared"], "client_id"),
        [bench.server.admin_client_id.as_str()]
    );
    let boss_is_declared = "[defaults]\nadmin = \"boss\"\n[keys.boss]\nscope = \"account:read\"";
    bench.declare(boss_is_declared);
    let plan = bench
        .home
        .run(&join(&[&["--json", "plan", "-f", FILE], &network]))
        .json();
    assert_eq!(row(&plan, "boss")["action"], "blocked");
    assert!(
        row(&plan, "boss")["reason"]
            .as_str()
            .unwrap()
            .contains("lock you out"),
        "{plan}"
    );
    assert_eq!(bench.remote(&boss["client_id"])["enabled"], true);
}

#[test]
fn a_broken_way_to_the_exchange_stops_all_and_says_what_is_left() {
    let bench = Bench::with_faults(&["create_api_key:drop-before:1"]);
    bench.declare(TWO);
    let run = bench.try_apply(&[]);
    run.error(9);
    let said: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(words(&said["keys"], "outcome"), ["failed", "left"]);
    assert_eq!((&said["failed"], &said["left"]), (&json!(1), &json!(1)));
    assert_eq!(bench.apply(&[])["done"], 2);
    assert_eq!(bench.admin().keys().len(), 2);
    bench.is_in_order();
}

/// Types what may be seen.
fn shown(wait: &str, text: &str) -> Value {
    json!({"wait": wait, "type": format!("{text}\n"), "shown": true})
}

#[test]
fn nothing_is_changed_without_a_yes() {
    let bench = Bench::new();
    bench.declare("[keys.bob]\nscope = \"account:read wallet:read_write\"");
    let run = bench.run(&join(&[&["apply", "-f", FILE], &PLAIN]));
    let error = says_why(&run, "nobody to ask");
    assert_eq!(error["exit"], 8);
    assert!(error["hint"].as_str().unwrap().contains("--yes"), "{error}");
    assert!(!bench.home.store().join("keys").exists());

    let args = join(&[&["apply", "-f", FILE], &PLAIN, &bench.server.admin()]);
    let person = Person::at(&bench.home);
    // A plan is agreed to, and a power besides.
    let Some(session) = person.session(&args, &json!([shown("Type apply", "yes")])) else {
        return;
    };
    assert_eq!(session.exit, Some(8), "{session:#?}");
    let half = json!([shown("Type apply", "apply"), shown("Type wallet", "no")]);
    let session = person.session(&args, &half).unwrap();
    assert_eq!(session.exit, Some(8), "{session:#?}");
    assert!(
        session
            .seen
            .contains("bob: wallet:read_write lets the key withdraw")
    );
    assert_eq!(bench.admin().keys().len(), 0);
    let both = json!([shown("Type apply", "apply"), shown("Type wallet", "wallet")]);
    let session = person.session(&args, &both).unwrap();
    assert_eq!(session.exit, Some(0), "{session:#?}");
    let create = session.seen.find("create       bob").expect("the plan");
    assert!(
        create < session.seen.find("Type apply").unwrap(),
        "shown before it is asked"
    );
    bench.is_in_order();
}

#[test]
fn a_fleet_spans_networks_and_administrators() {
    let (east, west) = (Bench::new(), Bench::new());
    let home = &east.home;
    for (bench, boss) in [(&east, "boss_e"), (&west, "boss_w")] {
        let scope = [
            "--scope",
            "account:read_write trade:read_write",
            "--yes",
            "--json",
        ];
        let provision = join(&[&["provision", boss], &scope, &PLAIN, &bench.server.admin()]);
        home.run(&provision).json();
    }
    let table = |bench: &Bench, key: &str, boss: &str| {
        format!(
            "[keys.{key}]\nlabel = \"bot\"\nnetwork = \"custom\"\nendpoint = \"{}\"\nadmin = \"{boss}\"\n",
            bench.server.endpoint
        )
    };
    let (e, w) = (
        table(&east, "bot_e", "boss_e"),
        table(&west, "bot_w", "boss_w"),
    );
    east.declare(&format!("[defaults]\nscope = \"trade:read\"\n{e}{w}"));
    let apply = join(&[&["--json", "apply", "-f", FILE, "--yes"], &PLAIN]);
    let said = home.run(&apply).json();
    assert_eq!(said["done"], 2);
    assert_eq!(said["accounts"].as_array().unwrap().len(), 2);
    assert!(east.find(&row(&said, "bot_e")["client_id"]).is_some());
    assert!(west.find(&row(&said, "bot_w")["client_id"]).is_some());
    // Whoever contradicts the file is asked what is meant.
    for flags in [
        &["--network", "test"][..],
        &["--admin", "boss_e"],
        &["--admin-client-id", "x"],
    ] {
        let error = says_why(&home.run(&join(&[&apply, flags])), &format!("{flags:?}"));
        assert_eq!(error["exit"], 8, "{error}");
        assert!(
            error["message"]
                .as_str()
                .unwrap()
                .starts_with("FLEET.toml: bot_"),
            "{error}"
        );
    }
    assert_eq!(east.admin().keys().len(), 2);
}

#[test]
fn the_same_label_twice_is_refused_on_one_network_before_anything_is_sent() {
    let bench = Bench::new();
    bench.declare("[defaults]\nscope = \"@trader\"\n[keys.a]\nlabel = \"x\"\n[keys.x]");
    let tap = Tap::before(&bench.server);
    let admin = bench.server.admin();
    let flags = ["--network", "custom", "--endpoint", &tap.endpoint];
    let run = bench.home.run(&join(&[
        &["--json", "plan", "-f", FILE],
        &flags,
        &admin[4..],
    ]));
    let error = says_why(&run, "labels");
    assert_eq!(error["exit"], 3);
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("x has the label x"),
        "{error}"
    );
    assert!(tap.requests().is_empty());
}

/// Runs a command on a file that it should not take, with an exchange that cannot be reached.
#[track_caller]
fn refused(home: &Home, command: &str, file: &str, exit: i32) -> String {
    let nowhere = [
        "--network",
        "custom",
        "--endpoint",
        "http://127.0.0.1:1/api/v2",
    ];
    let admin = [
        "--admin-client-id",
        "x",
        "--admin-secret-file",
        "no_such_secret",
    ];
    let run = home.run(&join(&[&["--json", command, "-f", file], &nowhere, &admin]));
    let error = says_why(&run, file);
    assert_eq!(error["exit"], exit, "{file}: {error}");
    assert!(!home.store().exists(), "{file}: something was made");
    error["message"].as_str().unwrap().to_owned()
}

#[test]
fn a_bad_file_is_refused_with_its_line_before_anything_is_touched() {
    let home = Home::new();
    let huge = format!("# {}\n{TWO}", "x".repeat(2 * 1024 * 1024));
    for (text, said) in [
        ("", "no key is declared"),
        ("# nothing\n", "no key is declared"),
        (huge.as_str(), "larger than"),
        (
            "[keys.a]\nscope = \"@trader\"\nwhitelist = []\n",
            "line 3: there is no field whitelist",
        ),
        (
            "[keys.a]\nscope = \"@trader\"\npassphrase = \"hunter2\"\n",
            "line 3: there is no field passphrase",
        ),
        (
            "[keys.a]\nscope = \"@trader\"\n[keys.a]\n",
            "line 3: it is not TOML: duplicate key",
        ),
        (
            "[keys.a-b]\nscope = \"@trader\"\n",
            "line 1: keys: a-b is no name",
        ),
        ("[keys.a]\nscope = \"trade:all\"\n", "line 2: keys.a.scope"),
        (
            "[keys.a]\nscope = \"@trader\"\nip = [\"10.0.0.0/8\"]\n",
            "line 3: keys.a.ip",
        ),
        (
            "[keys.a]\nscope = \"@trader\"\nenabled = 1\n",
            "line 3: keys.a.enabled is not true or false",
        ),
        (
            "[keys.a]\nscope = \"@nobody\"\n",
            "line 2: keys.a.scope: not a scope: there is no such preset",
        ),
        ("{\"keys\": {}}", "line 1: it is not TOML"),
        ("[keys.a\nscope", "it is not TOML"),
    ] {
        fs::write(home.path(FILE), text).unwrap();
        for command in ["plan", "drift", "apply"] {
            let message = refused(&home, command, FILE, 3);
            assert!(message.contains(said), "{said}: {message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }
    fs::write(home.path("latin"), b"[keys.a]\nlabel = \"\xe9\"").unwrap();
    assert!(refused(&home, "plan", "latin", 3).contains("not UTF-8"));
    assert!(refused(&home, "plan", "missing", 3).contains("missing"));
    fs::create_dir(home.path("dir")).unwrap();
    assert!(refused(&home, "plan", "dir", 3).contains("not a plain file"));
    let made = Command::new("mkfifo")
        .arg(home.path("fifo"))
        .status()
        .unwrap();
    assert!(made.success());
    assert!(refused(&home, "plan", "fifo", 3).contains("not a plain file"));
    assert!(refused(&home, "plan", "/dev/zero", 3).contains("not a plain file"));
    // Everybody may read it, and not everybody may write it.
    fs::write(home.path("open"), TWO).unwrap();
    fs::set_permissions(home.path("open"), fs::Permissions::from_mode(0o666)).unwrap();
    assert!(refused(&home, "plan", "open", 7).contains("open to others"));
}

#[test]
fn a_file_comes_from_standard_input_too_and_people_read_lines() {
    let bench = Bench::new();
    let plan = join(&[&["plan", "-f", "-"], &bench.server.admin()]);
    let run = bench.home.run_with_input(&plan, TWO.as_bytes()).ok();
    assert!(run.stdout.contains("create       alice"), "{run:#?}");
    assert!(run.stdout.contains("2 to change"), "{run:#?}");
    is_tame(&run, "plan");
    // A label that somebody else chose obeys no terminal.
    bench.declare(TWO);
    let id = row(&bench.apply(&[]), "bob")["client_id"].clone();
    bench.tamper(&id, &json!({"max_scope": "trade:read"}));
    let run = bench
        .home
        .run(&join(&[&["drift", "-f", FILE], &bench.server.admin()]));
    assert_eq!(run.code, Some(10));
    assert!(
        run.stdout.contains("scope: trade:read -> account:read"),
        "{run:#?}"
    );
    assert!(run.stderr.contains("1 key is not as declared"), "{run:#?}");
}

/// Waits for the next half minute once.
#[test]
fn with_a_second_factor_each_code_is_waited_for_and_without_one_nothing_is_begun() {
    const SEED: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\n";
    let exchange = Home::new();
    let seed = exchange.secret_file("seed", SEED);
    let server = Server::start(&exchange, &["--totp-seed-file", seed.to_str().unwrap()]);
    let home = Home::new();
    home.secret_file("seed", SEED);
    fs::write(home.path(FILE), "[keys.bob]\nscope = \"trade:read\"").unwrap();
    let tap = Tap::before(&server);
    let admin = server.admin();
    let access = join(&[
        &["--network", "custom", "--endpoint", &tap.endpoint],
        &admin[4..],
    ]);
    let apply = join(&[&["--json", "apply", "-f", FILE, "--yes"], &PLAIN, &access]);
    assert_eq!(says_why(&home.run(&apply), "no code")["exit"], 6);
    assert!(!home.store().join("keys").exists());
    let said = home
        .run(&join(&[&apply, &["--totp-seed-file", "seed"]]))
        .json();
    assert_eq!(said["done"], 1);
    let codes = tap.codes();
    assert_eq!(codes.len(), 2, "one to look, one to make it: {codes:?}");
    assert_ne!(codes[0], codes[1]);
}

#[test]
fn two_applies_at_once_make_no_key_twice() {
    let bench = Bench::new();
    bench.declare(TWO);
    let children = [(); 2].map(|()| apply_command(&bench).spawn().unwrap());
    for child in children {
        let run = Run::of(child.wait_with_output().unwrap());
        // Who comes second finds that it is done, or that it is not as it was planned.
        assert!(matches!(run.code, Some(0 | 75)), "{run:#?}");
    }
    bench.apply(&[]);
    assert_eq!(bench.admin().keys().len(), 2);
    bench.is_in_order();
}

/// A fleet of one key to be narrowed and one to be made, an exchange and the bridge to it.
fn stage() -> (Bench, Bridge) {
    let mut bench = Bench::new();
    bench.provision("alice", &["--scope", "account:read trade:read_write"]);
    bench.declare("[keys.alice]\nscope = \"account:read\"\n[keys.bob]\nscope = \"trade:read\"");
    let bridge = Bridge::before(&mut bench.server);
    // A key belongs to the endpoint that it was registered at.
    let record = bench.home.store().join("keys/alice/1/key.toml");
    rewrite(
        &record,
        "endpoint = ",
        &format!("endpoint = \"{}\"", bench.server.endpoint),
    );
    (bench, bridge)
}

fn rewrite(path: &Path, begins: &str, line: &str) {
    let text = fs::read_to_string(path).unwrap();
    let lines = text
        .lines()
        .map(|l| if l.starts_with(begins) { line } else { l });
    let text: Vec<&str> = lines.collect();
    fs::write(path, text.join("\n") + "\n").unwrap();
}

fn apply_command(bench: &Bench) -> Command {
    let args = join(&[
        &["--json", "apply", "-f", FILE, "--yes"],
        &PLAIN,
        &bench.server.admin(),
    ]);
    bench.home.command(&args)
}

#[test]
fn an_apply_that_is_killed_at_any_call_is_finished_by_another_with_no_key_twice() {
    let calls = [
        "public/auth",
        "private/list_api_keys",
        "private/list_api_keys",
        "private/edit_api_key",
        "private/list_api_keys",
        "private/create_api_key",
        "public/auth",
    ];
    for phase in PHASES {
        for (call, method) in calls.iter().enumerate() {
            let what = format!("killed at {method} ({call}), {phase:?}");
            let (bench, bridge) = stage();
            bridge.kill(apply_command(&bench), call, phase);
            // Every call is followed by `resume` in one phase, and by `apply` itself in the other.
            if (call % 2 == 1) == (phase == Phase::BeforeTheExchange) {
                let resumed = bench.run(&join(&[&["resume"], &PLAIN]));
                assert_eq!(resumed.code, Some(0), "{what}: {resumed:#?}");
                assert_eq!(bench.pending(), json!([]), "{what}");
            }
            // A key that was made and not yet recorded is nobody else's.
            bench.apply(&["--prune"]);
            let keys = Account::of(&bench.server).asymmetric();
            let mut labels: Vec<&str> = keys.iter().map(|k| k["name"].as_str().unwrap()).collect();
            labels.sort_unstable();
            assert_eq!(labels, ["alice", "bob"], "{what}");
            bench.is_in_order();
        }
    }
    // Those were all calls that there are.
    let (bench, bridge) = stage();
    Run::of(apply_command(&bench).output().unwrap()).json();
    assert_eq!(bridge.calls(), calls);
}

#[test]
fn an_apply_that_is_killed_at_any_moment_is_finished_by_another() {
    for milliseconds in (4..120).step_by(14) {
        let bench = Bench::new();
        bench.declare(TWO);
        let mut child = apply_command(&bench).spawn().unwrap();
        thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
        let what = format!("after {milliseconds} ms");
        let again = bench.try_apply(&["--prune"]);
        assert_eq!(again.code, Some(0), "{what}: {again:#?}");
        assert_eq!(bench.admin().keys().len(), 2, "{what}");
        bench.is_in_order();
    }
}
