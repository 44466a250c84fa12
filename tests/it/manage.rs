//! Changing keys at the exchange: `edit`, `enable`, `disable`, `remove`, `panic` and
//! `list --remote`, with an exchange in another process and somebody who looks at the account
//! by hand.

use std::{fs, path::PathBuf, sync::Arc};

use serde_json::{Value, json};

use crate::{
    meddler::{Call, Meddler},
    raw::{Admin, Gate, Tap},
    support::{Home, Run, Server, join},
};

pub(crate) const SCOPE: &str = "account:read trade:read_write";

/// A client whose keys are in clear, which saves the time of sealing them, and an exchange.
pub(crate) struct Bench {
    pub(crate) server: Server,
    pub(crate) home: Home,
    exchange: Home,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with_faults(&[])
    }

    pub(crate) fn with_faults(faults: &[&str]) -> Self {
        let exchange = Home::new();
        let flags: Vec<&str> = faults.iter().flat_map(|f| ["--fault", *f]).collect();
        Self {
            server: Server::start(&exchange, &flags),
            home: Home::new(),
            exchange,
        }
    }

    /// Runs a command with the administrator at hand, and reads JSON.
    pub(crate) fn run(&self, args: &[&str]) -> Run {
        self.home
            .run(&join(&[&["--json"], args, &self.server.admin()]))
    }

    pub(crate) fn provision(&self, name: &str, more: &[&str]) -> Value {
        let flags = ["--no-passphrase", "--insecure", "--yes"];
        self.run(&join(&[&["provision", name], &flags, more]))
            .json()
    }

    pub(crate) fn trader(&self, name: &str) -> Value {
        self.provision(name, &["--scope", SCOPE])
    }

    pub(crate) fn admin(&self) -> Admin {
        Admin::log_in(&self.server)
    }

    /// The key as the exchange has it now, without the moment of its last change.
    #[track_caller]
    pub(crate) fn remote(&self, client_id: &Value) -> Value {
        let mut key = self.find(client_id).expect("the account has no such key");
        key.as_object_mut().unwrap().remove("timestamp");
        key
    }

    pub(crate) fn find(&self, client_id: &Value) -> Option<Value> {
        let mut keys = self.admin().keys().into_iter();
        keys.find(|key| key["client_id"] == *client_id)
    }

    /// What `status` says is under way.
    pub(crate) fn pending(&self) -> Value {
        self.home.run(&["--json", "status"]).json()["pending"].clone()
    }

    /// What `show` says.
    pub(crate) fn show(&self, name: &str) -> Value {
        self.home.run(&["--json", "show", name]).json()
    }

    /// The lines of the record that differ when something is changed.
    pub(crate) fn record(&self, name: &str) -> toml::Table {
        let path = self.home.store().join("keys").join(name);
        let text = fs::read_to_string(path.join("current/key.toml")).unwrap();
        text.parse().unwrap()
    }

    /// Changes a key without our knowledge, and only what is named.
    pub(crate) fn tamper(&self, client_id: &Value, change: &Value) {
        let mut key = self.remote(client_id);
        for (field, value) in change.as_object().unwrap() {
            key[field] = value.clone();
        }
        for field in ["client_id", "client_secret", "public_key", "default"] {
            key.as_object_mut().unwrap().remove(field);
        }
        self.admin().call("private/edit_api_key", &key);
    }

    /// Where everything about the administrator is known.
    fn operator(&self) -> String {
        format!("client:{}", self.server.admin_client_id)
    }
}

/// The areas of a scope that allow something, in order.
pub(crate) fn rights(scope: &Value) -> Vec<&str> {
    let mut words: Vec<&str> = scope
        .as_str()
        .unwrap()
        .split(' ')
        .filter(|word| !word.ends_with(":none"))
        .collect();
    words.sort_unstable();
    words
}

// edit

#[test]
fn an_edit_keeps_what_it_does_not_name() {
    let bench = Bench::new();
    let bot = bench.provision(
        "bot",
        &[
            "--scope",
            SCOPE,
            "--label",
            "shown",
            "--ip",
            "127.0.0.1",
            "--feature",
            "restricted_block_trades",
        ],
    );
    let id = &bot["client_id"];
    let begun = bench.remote(id);
    assert_eq!(begun["ip_whitelist"], json!(["127.0.0.1"]));
    assert_eq!(
        begun["enabled_features"],
        json!(["restricted_block_trades"])
    );

    // Each setting by itself, and everything else as it was.
    let mut expected = begun;
    let steps: [(&[&str], &str, Value); 4] = [
        (&["--label", "other"], "name", json!("other")),
        (
            &["--ip", "10.0.0.1", "--ip", "10.0.0.2"],
            "ip_whitelist",
            json!(["10.0.0.1", "10.0.0.2"]),
        ),
        (
            &["--feature", "block_trade_approval", "--yes"],
            "enabled_features",
            json!(["block_trade_approval"]),
        ),
        (&["--scope", "trade:read"], "max_scope", Value::Null),
    ];
    for (flags, field, value) in steps {
        let said = bench.run(&join(&[&["edit", "bot"], flags])).json();
        assert_eq!(said["changed"], true, "{said}");
        let mut now = bench.remote(id);
        if field == "max_scope" {
            assert_eq!(rights(&now[field]), ["trade:read"]);
            now[field] = expected[field].clone();
        } else {
            expected[field] = value;
        }
        assert_eq!(now, expected, "{flags:?}");
    }
    // The record and `show` follow.
    let shown = bench.show("bot");
    assert_eq!(shown["label"], "other");
    assert_eq!(shown["ip_whitelist"], json!(["10.0.0.1", "10.0.0.2"]));
    assert_eq!(shown["enabled_features"], json!(["block_trade_approval"]));
    assert_eq!(rights(&shown["max_scope"]), ["trade:read"]);
    let record = bench.record("bot");
    assert_eq!(record["label"].as_str(), Some("other"));
    assert_eq!(record["whitelist"].as_array().unwrap().len(), 2);
    assert!(record["scope"].as_str().unwrap().contains("trade:read"));
    assert_eq!(bench.pending(), json!([]));
    let listed = bench.run(&["list", "--remote", "--exit-code"]).json();
    assert_eq!(listed["findings"], 0, "{listed}");
}

#[test]
fn features_are_taken_away_with_none() {
    let bench = Bench::new();
    let feature = ["--feature", "block_trade_approval"];
    let bot = bench.provision("bot", &join(&[&["--scope", SCOPE], &feature]));
    let id = &bot["client_id"];
    let mixed = ["--feature", "none", "--feature", "block_trade_approval"];
    bench.run(&join(&[&["edit", "bot"], &mixed])).error(2);
    let before = bench.remote(id);
    assert_eq!(before["enabled_features"], json!(["block_trade_approval"]));
    let said = bench
        .run(&["edit", "bot", "--feature", "none", "--yes"])
        .json();
    assert_eq!(said["enabled_features"], json!([]), "{said}");
    assert_eq!(bench.remote(id)["enabled_features"], json!([]));
    let said = bench.run(&["edit", "bot", "--feature", "none"]).json();
    assert_eq!(said["changed"], false, "{said}");
    // It is the default, and may be said.
    let two = bench.provision("two", &["--scope", SCOPE, "--feature", "none"]);
    assert_eq!(two["enabled_features"], json!([]));
    bench.provision("two", &["--scope", SCOPE]);
}

#[test]
fn an_edit_that_changes_nothing_says_as_much_as_any_other() {
    let bench = Bench::new();
    let bot = bench.trader("bot");
    let changed = bench.run(&["edit", "bot", "--label", "other"]).json();
    let same = bench.run(&["edit", "bot", "--label", "other"]).json();
    assert_eq!(same["changed"], false);
    for (field, value) in changed.as_object().unwrap() {
        if field != "changed" {
            assert_eq!(same[field], *value, "{field}: {same}");
        }
    }
    assert_eq!(same["client_id"], bot["client_id"]);
    // What somebody else has changed to the same is written down.
    bench.tamper(&bot["client_id"], &json!({"name": "third"}));
    let same = bench.run(&["edit", "bot", "--label", "third"]).json();
    assert_eq!(
        (&same["changed"], &same["label"]),
        (&json!(false), &json!("third"))
    );
    bench.run(&["list", "--remote", "--exit-code"]).json();
}

#[test]
fn what_cannot_be_shown_is_not_sent_back_in_its_tame_form() {
    let bench = Bench::new();
    let bot = bench.trader("bot");
    let path = bench.exchange.store().join("sandbox/state.json");
    let relabel = |label: &str| {
        let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for key in state["keys"].as_array_mut().unwrap() {
            if key["client_id"] == bot["client_id"] {
                key["name"] = json!(label);
            }
        }
        fs::write(&path, state.to_string()).unwrap();
    };
    for label in ["caf\u{e9}", "a\u{1b}[2Jb", &"x".repeat(65)] {
        relabel(label);
        let before = bench.remote(&bot["client_id"]);
        assert_eq!(before["name"], *label);
        let error = bench.run(&["edit", "bot", "--ip", "127.0.0.1"]).error(8);
        assert!(
            error["hint"].as_str().unwrap().contains("--label"),
            "{error}"
        );
        assert_eq!(bench.remote(&bot["client_id"]), before, "{label:?}");
        assert_eq!(bench.pending(), json!([]));
    }
    bench
        .run(&["edit", "bot", "--ip", "127.0.0.1", "--label", "bot"])
        .json();
    assert_eq!(bench.remote(&bot["client_id"])["name"], "bot");
    // What can be shown is kept to the letter, whether or not it may be typed here.
    relabel("Public key 1");
    let tap = Tap::before(&bench.server);
    let mut admin = bench.server.admin();
    admin[3] = &tap.endpoint;
    // The sandbox refuses this one; the documentation shows it.
    let edit = ["--json", "edit", "bot", "--add-ip", "10.0.0.1"];
    let record = bench.home.store().join("keys/bot/current/key.toml");
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replace(&bench.server.endpoint, &tap.endpoint)).unwrap();
    bench.home.run(&join(&[&edit, &admin])).error(1);
    let sent = tap.calls("private/edit_api_key");
    assert_eq!(sent[0]["name"], "Public key 1", "{sent:?}");
}

#[test]
fn a_disabled_key_stays_disabled_through_an_edit() {
    let bench = Bench::new();
    let id = &bench.trader("bot")["client_id"];
    bench.run(&["disable", "bot"]).json();
    bench.run(&["edit", "bot", "--label", "quiet"]).json();
    let remote = bench.remote(id);
    assert_eq!(
        (&remote["enabled"], &remote["name"]),
        (&json!(false), &json!("quiet"))
    );
    assert_eq!(bench.record("bot")["enabled"].as_bool(), Some(false));

    // Nor does an edit enable what was disabled behind our back, or disable what is enabled.
    bench.run(&["enable", "bot"]).json();
    bench.tamper(id, &json!({"enabled": false}));
    bench.run(&["edit", "bot", "--label", "still"]).json();
    assert_eq!(bench.remote(id)["enabled"], false);
    bench.tamper(id, &json!({"enabled": true}));
    bench.run(&["edit", "bot", "--label", "loud"]).json();
    assert_eq!(bench.remote(id)["enabled"], true);
}

#[test]
fn addresses_are_replaced_added_and_taken_out() {
    let bench = Bench::new();
    let id = &bench.provision("bot", &["--scope", SCOPE, "--ip", "127.0.0.1"])["client_id"];
    let expect = |flags: &[&str], list: Value| {
        bench.run(&join(&[&["edit", "bot"], flags])).json();
        assert_eq!(bench.remote(id)["ip_whitelist"], list, "{flags:?}");
        assert_eq!(bench.show("bot")["ip_whitelist"], list, "{flags:?}");
    };
    expect(
        &["--add-ip", "10.0.0.9", "--add-ip", "10.0.0.8"],
        json!(["10.0.0.8", "10.0.0.9", "127.0.0.1"]),
    );
    expect(
        &["--remove-ip", "10.0.0.8", "--add-ip", "10.0.0.7"],
        json!(["10.0.0.7", "10.0.0.9", "127.0.0.1"]),
    );
    expect(&["--ip", "10.1.0.1"], json!(["10.1.0.1"]));
    expect(
        &["--add-ip", "2001:db8::1", "--unchecked-ip"],
        json!(["10.1.0.1", "2001:db8::1"]),
    );

    // What is there already, or is not, is no difference.
    for same in [
        ["--add-ip", "10.1.0.1"],
        ["--remove-ip", "10.9.9.9"],
        ["--label", "bot"],
        ["--scope", "trade:read_write account:read wallet:none"],
    ] {
        let before = bench.find(id);
        let said = bench.run(&join(&[&["edit", "bot"], &same])).json();
        assert_eq!(said["changed"], false, "{same:?}: {said}");
        assert_eq!(bench.find(id), before, "{same:?}");
    }
}

#[test]
fn what_is_no_change_or_no_address_is_refused_before_a_socket_is_touched() {
    let bench = Bench::new();
    bench.trader("bot");
    let tap = Tap::before(&bench.server);
    let mut admin = bench.server.admin();
    admin[3] = &tap.endpoint;
    let before = bench.find(&bench.show("bot")["client_id"]);
    let cases: [&[&str]; 9] = [
        &[],
        &["--unchecked-ip"],
        &["--ip", "10.0.0.0/8"],
        &["--ip", "2001:db8::1"],
        &["--add-ip", "0.0.0.0"],
        &["--remove-ip", "bot.example.com"],
        &["--ip", "10.0.0.1", "--add-ip", "10.0.0.2"],
        &["--scope", "trade:all"],
        &["--label", "two words"],
    ];
    for flags in cases {
        let run = bench
            .home
            .run(&join(&[&["--json", "edit", "bot"], flags, &admin]));
        assert_eq!(run.code, Some(2), "{flags:?}: {run:#?}");
        assert_eq!(run.stdout, "", "{flags:?}");
    }
    assert_eq!(tap.requests(), Vec::<Value>::new());
    assert_eq!(bench.find(&bench.show("bot")["client_id"]), before);
}

#[test]
fn a_dry_run_of_an_edit_shows_the_difference_and_makes_none() {
    let bench = Bench::new();
    let id = &bench.trader("bot")["client_id"];
    let (before, record) = (bench.find(id), bench.record("bot"));
    let events = bench.admin().events_of(id.as_str().unwrap());
    let flags = [
        "--scope",
        "wallet:read_write",
        "--label",
        "other",
        "--ip",
        "10.0.0.1",
    ];
    let said = bench
        .run(&join(&[&["edit", "bot", "--dry-run"], &flags]))
        .json();
    assert_eq!(said["dry_run"], true);
    assert_eq!(said["changed"], false);
    let steps = said["steps"].to_string();
    for word in [
        "wallet:read_write",
        "trade:read_write",
        "bot -> other",
        "none -> 10.0.0.1",
    ] {
        assert!(steps.contains(word), "{word}: {steps}");
    }
    assert_eq!(bench.find(id), before);
    assert_eq!(bench.admin().events_of(id.as_str().unwrap()), events);
    assert_eq!(bench.record("bot"), record);
    assert_eq!(bench.pending(), json!([]));

    for command in ["disable", "enable", "remove"] {
        bench.run(&[command, "bot", "--dry-run"]).json();
        let by_id = format!("client:{}", id.as_str().unwrap());
        bench.run(&[command, &by_id, "--dry-run"]).json();
    }
    bench.run(&["panic", "--dry-run"]).json();
    assert_eq!(bench.find(id), before);
    assert_eq!(bench.record("bot"), record);
}

#[test]
fn more_rights_or_an_open_whitelist_need_a_yes() {
    let bench = Bench::new();
    let id = &bench.provision("bot", &["--scope", SCOPE, "--ip", "127.0.0.1"])["client_id"];
    let before = bench.find(id);
    let cases: [&[&str]; 3] = [
        &["--scope", "account:read trade:read_write wallet:read"],
        &["--scope", "account:read_write trade:read_write"],
        &["--remove-ip", "127.0.0.1"],
    ];
    for flags in cases {
        let error = bench.run(&join(&[&["edit", "bot"], flags])).error(8);
        assert!(
            error["hint"].as_str().unwrap().contains("--yes"),
            "{flags:?}: {error}"
        );
        assert_eq!(bench.find(id), before, "{flags:?}");
        assert_eq!(bench.pending(), json!([]));
    }
    for flags in cases {
        let said = bench.run(&join(&[&["edit", "bot", "--yes"], flags])).json();
        assert_eq!(said["changed"], true, "{flags:?}: {said}");
    }
    let after = bench.remote(id);
    assert_eq!(after["ip_whitelist"], json!([]));
    assert_eq!(
        rights(&after["max_scope"]),
        ["account:read_write", "trade:read_write"]
    );
    // Less needs none.
    bench
        .run(&["edit", "bot", "--scope", "account:none trade:read"])
        .json();
    assert_eq!(rights(&bench.remote(id)["max_scope"]), ["trade:read"]);
}

#[test]
fn an_edit_whose_answer_is_lost_is_finished_by_resume() {
    for fault in [
        "edit_api_key:drop-after:1",
        "edit_api_key:drop-before:1",
        "edit_api_key:garbage:1",
    ] {
        let bench = Bench::with_faults(&[fault]);
        let id = &bench.trader("bot")["client_id"];
        let flags = ["--label", "other", "--ip", "127.0.0.1"];
        let error = bench.run(&join(&[&["edit", "bot"], &flags])).error(9);
        assert!(
            error["hint"]
                .as_str()
                .unwrap()
                .contains("derikey resume bot"),
            "{fault}: {error}"
        );
        let pending = bench.pending();
        assert_eq!(pending[0]["name"], "bot", "{fault}: {pending}");
        assert_eq!(pending[0]["operation"], "edit", "{fault}");
        assert_eq!(pending[0]["client_id"], *id, "{fault}");

        // Meanwhile nothing else is done to that key, unless it is disabled.
        let meanwhile: [&[&str]; 3] = [
            &["edit", "bot", "--label", "third"],
            &["enable", "bot"],
            &["remove", "bot", "--yes"],
        ];
        for args in meanwhile {
            let error = bench.run(args).error(8);
            assert!(
                error["hint"]
                    .as_str()
                    .unwrap()
                    .contains("derikey resume bot"),
                "{args:?}: {error}"
            );
        }
        let by_client = format!("client:{}", id.as_str().unwrap());
        bench.run(&["remove", &by_client, "--yes"]).error(8);

        let resumed = bench.run(&["resume"]).json();
        assert_eq!(resumed["resumed"][0]["name"], "bot", "{fault}: {resumed}");
        let remote = bench.remote(id);
        assert_eq!(remote["name"], "other", "{fault}");
        assert_eq!(remote["ip_whitelist"], json!(["127.0.0.1"]), "{fault}");
        assert_eq!(bench.show("bot")["label"], "other", "{fault}");
        assert_eq!(bench.run(&["resume"]).json()["resumed"], json!([]));
        assert_eq!(bench.pending(), json!([]));
    }
}

#[test]
fn a_change_that_the_exchange_refuses_for_good_leaves_nothing_pending() {
    let bench = Bench::new();
    let id = &bench.trader("bot")["client_id"];
    let before = bench.find(id);
    // The sandbox takes plain addresses only.
    let run = bench.run(&["edit", "bot", "--ip", "10.0.0.0/8", "--unchecked-ip"]);
    assert!(run.code != Some(0) && run.code != Some(9), "{run:#?}");
    assert_eq!(bench.find(id), before);
    assert_eq!(bench.pending(), json!([]));
    // So the next one is not in anybody's way.
    bench.run(&["edit", "bot", "--label", "other"]).json();
    assert_eq!(bench.remote(id)["name"], "other");
    assert_eq!(bench.show("bot")["ip_whitelist"], json!([]));
}

#[test]
fn a_key_without_a_label_can_be_edited() {
    let bench = Bench::new();
    let plain = ["--no-passphrase", "--insecure"];
    bench.home.run(&join(&[&["generate", "bot"], &plain])).ok();
    let pem = bench.home.run(&["public", "bot"]).ok().stdout;
    // As the web form, and the documented example, may leave it.
    let made = bench.admin().call(
        "private/create_api_key",
        &json!({"max_scope": "trade:read", "public_key": pem}),
    );
    let id = &made["client_id"];
    let adopt = [
        "--json",
        "adopt",
        "bot",
        "--client-id",
        id.as_str().unwrap(),
    ];
    let network = bench.server.network();
    bench.home.run(&join(&[&adopt, &network])).json();
    bench.run(&["edit", "bot", "--ip", "127.0.0.1"]).json();
    let remote = bench.remote(id);
    assert_eq!(remote["ip_whitelist"], json!(["127.0.0.1"]));
    assert_eq!(remote["name"], "");
    assert_eq!(bench.pending(), json!([]));
}

#[test]
fn a_change_of_a_key_that_is_gone_leaves_nothing_pending() {
    for command in ["edit", "disable"] {
        let fault = format!("{command}_api_key:drop-before:1");
        let bench = Bench::with_faults(&[&fault]);
        let bot = bench.trader("bot");
        let args: &[&str] = match command {
            "edit" => &["edit", "bot", "--label", "x"],
            _ => &["disable", "bot"],
        };
        bench.run(args).error(9);
        // Somebody else's administrator cannot finish it, and does not forget it either.
        let mut flags = bench.server.admin();
        let wrong = bench.home.path("wrong");
        if !wrong.exists() {
            bench.home.secret_file("wrong", "not-the-secret");
        }
        let last = flags.len() - 1;
        flags[last] = wrong.to_str().unwrap();
        let resume = bench.home.run(&join(&[&["--json", "resume"], &flags]));
        resume.error(4);
        assert_eq!(bench.pending()[0]["name"], "bot", "{command}");

        let admin = bench.admin();
        admin.call("private/remove_api_key", &json!({"id": bot["key_id"]}));
        let run = bench.run(&["resume"]);
        assert!(!matches!(run.code, Some(0 | 9)), "{command}: {run:#?}");
        assert_eq!(bench.pending(), json!([]), "{command}");
        assert!(bench.home.store().join("keys/bot").exists(), "{command}");
    }
}

#[test]
fn an_administrator_in_the_keystore_does_not_lock_itself_out() {
    let bench = Bench::new();
    bench.trader("bot");
    let boss = bench.provision("boss", &["--scope", "account:read_write trade:read_write"]);
    let network = bench.server.network();
    let by_boss = |args: &[&str]| {
        bench.home.run(&join(&[
            &["--json", "--yes"],
            args,
            &["--admin", "boss"],
            &network,
        ]))
    };
    by_boss(&["edit", "bot", "--label", "by_boss"]).json();
    assert_eq!(bench.show("bot")["label"], "by_boss");
    let before = bench.find(&boss["client_id"]);
    let by_client = format!("client:{}", boss["client_id"].as_str().unwrap());
    let cases: [&[&str]; 5] = [
        &["disable", "boss"],
        &["remove", "boss"],
        &["disable", &by_client],
        &["remove", &by_client],
        &["edit", "boss", "--scope", "account:read trade:read_write"],
    ];
    for args in cases {
        let error = by_boss(args).error(8);
        assert!(
            error["hint"]
                .as_str()
                .unwrap()
                .contains("--i-will-lock-myself-out"),
            "{args:?}: {error}"
        );
        assert_eq!(bench.find(&boss["client_id"]), before, "{args:?}");
    }
    // A label is no lock.
    by_boss(&["edit", "boss", "--label", "chief"]).json();
    // And whoever means it, may.
    by_boss(&["disable", "boss", "--i-will-lock-myself-out"]).json();
    assert_eq!(bench.remote(&boss["client_id"])["enabled"], false);
    by_boss(&["edit", "bot", "--label", "again"]).error(4);
}

// enable, disable, remove

#[test]
fn a_key_is_switched_by_name_by_id_and_by_client_id() {
    let bench = Bench::new();
    let bot = bench.trader("bot");
    let id = &bot["client_id"];
    let by_id = format!("id:{}", bot["key_id"]);
    let by_client = format!("client:{}", id.as_str().unwrap());
    for target in ["bot", &by_id, &by_client] {
        for (command, enabled) in [("disable", false), ("enable", true)] {
            // A second time is no failure and changes nothing.
            for changed in [true, false] {
                let said = bench.run(&[command, target]).json();
                assert_eq!(said["changed"], changed, "{said}");
                assert_eq!(bench.remote(id)["enabled"], enabled, "{command} {target}");
                let record = bench.record("bot");
                assert_eq!(record["enabled"].as_bool(), Some(enabled), "{target}");
            }
        }
    }
    let said = bench.run(&["disable", &by_client]).json();
    assert_eq!(said["client_id"], *id);
    assert_eq!(said["key_id"], bot["key_id"]);

    for target in ["id:99", "client:nobody99"] {
        bench.run(&["disable", target]).error(8);
    }
    for target in ["id:", "id:x", "id:-1", "client:", "id:7 "] {
        bench.run(&["disable", target]).error(2);
    }
}

#[test]
fn removing_an_enabled_key_needs_a_yes_however_it_is_named() {
    let bench = Bench::new();
    for by in ["name", "id", "client"] {
        let bot = bench.trader("bot");
        let id = &bot["client_id"];
        let target = match by {
            "name" => "bot".to_owned(),
            "id" => format!("id:{}", bot["key_id"]),
            _ => format!("client:{}", id.as_str().unwrap()),
        };
        bench.run(&["remove", &target]).error(8);
        assert_eq!(bench.remote(id)["enabled"], true, "{by}");

        // Disabled here, enabled there: it is what is there that would stop working.
        bench.run(&["disable", "bot"]).json();
        bench.tamper(id, &json!({"enabled": true}));
        bench.run(&["remove", &target]).error(8);
        assert!(bench.find(id).is_some(), "{by}");
        if by == "name" {
            bench.run(&["remove", &target, "--yes"]).json();
        } else {
            bench.run(&["disable", &target]).json();
            bench.run(&["remove", &target]).json();
        }
        assert!(bench.find(id).is_none(), "{by}");
        // The private half is kept, out of the way: the name is free again.
        let trash = bench.home.store().join("trash");
        let kept = crate::scene::files(&trash);
        let kept: Vec<&PathBuf> = kept
            .iter()
            .filter(|path| path.ends_with("private.pem"))
            .collect();
        assert!(!kept.is_empty(), "{by}");
        assert!(!bench.home.store().join("keys/bot").exists(), "{by}");
        let listed = bench.run(&["list", "--remote", "--exit-code"]).json();
        assert_eq!(listed["findings"], 0, "{by}: {listed}");
    }
}

#[test]
fn the_operators_own_key_is_left_alone_unless_it_is_meant() {
    let bench = Bench::new();
    bench.trader("bot");
    let operator = bench.operator();
    for command in ["disable", "remove"] {
        let error = bench.run(&[command, &operator, "--yes"]).error(8);
        let hint = error["hint"].as_str().unwrap();
        assert!(hint.contains("--i-will-lock-myself-out"), "{error}");
    }
    assert_eq!(bench.admin().keys().len(), 1, "it still logs in");
    // One's own key can be enabled, which locks nobody out.
    bench.run(&["enable", &operator]).json();
    bench
        .run(&["disable", &operator, "--i-will-lock-myself-out"])
        .json();
    bench.run(&["list", "--remote"]).error(4);
}

#[test]
fn a_key_of_another_network_is_refused() {
    let bench = Bench::new();
    bench.trader("bot");
    let other = Bench::new();
    let cases: [&[&str]; 5] = [
        &["edit", "bot", "--label", "x"],
        &["disable", "bot"],
        &["enable", "bot"],
        &["remove", "bot", "--yes"],
        &["disable", "bot", "--network", "sandbox"],
    ];
    for args in cases {
        let mut flags = other.server.admin();
        if args.contains(&"sandbox") {
            flags.drain(..4);
        }
        let error = bench.home.run(&join(&[&["--json"], args, &flags])).error(8);
        assert!(
            error["message"]
                .as_str()
                .unwrap()
                .contains("belongs to the custom"),
            "{args:?}: {error}"
        );
    }
    // The same id over there is somebody else's key.
    let theirs = other.trader("bot");
    let flags = other.server.admin();
    let by_id = format!("id:{}", theirs["key_id"]);
    bench
        .home
        .run(&join(&[&["--json", "disable", &by_id], &flags]))
        .json();
    assert_eq!(other.remote(&theirs["client_id"])["enabled"], false);
    assert_eq!(bench.record("bot")["enabled"].as_bool(), Some(true));
}

#[test]
fn a_lost_answer_to_a_switch_is_finished_by_resume() {
    for command in ["disable", "enable", "remove"] {
        let fault = format!("{command}_api_key:drop-after:1");
        let bench = Bench::with_faults(&[&fault]);
        let id = &bench.trader("bot")["client_id"];
        bench.run(&[command, "bot", "--yes"]).error(9);
        let pending = bench.pending();
        assert_eq!(pending[0]["operation"], command, "{pending}");
        bench.run(&["edit", "bot", "--label", "x"]).error(8);
        bench.run(&["resume", "bot"]).json();
        match command {
            "remove" => {
                assert!(bench.find(id).is_none());
                assert!(!bench.home.store().join("keys/bot").exists());
            }
            _ => assert_eq!(bench.remote(id)["enabled"], command == "enable"),
        }
        assert_eq!(bench.pending(), json!([]));
    }
}

/// What `disable` says of an operation that is under way.
#[track_caller]
fn disabled_meanwhile(bench: &Bench, name: &str, word: &str) {
    let said = bench.run(&["disable", name]).json();
    assert_eq!(said["state"], "disabled", "{said}");
    let meanwhile = said["meanwhile"].as_str().unwrap();
    assert!(meanwhile.contains(word), "{said}");
}

#[test]
fn a_leaked_key_is_disabled_while_an_edit_is_pending_and_stays_so() {
    for fault in ["drop-after", "drop-before"] {
        let bench = Bench::with_faults(&[&format!("edit_api_key:{fault}:1")]);
        let id = &bench.trader("bot")["client_id"];
        bench.run(&["edit", "bot", "--label", "other"]).error(9);
        disabled_meanwhile(&bench, "bot", "edit of bot is under way still");
        assert_eq!(bench.remote(id)["enabled"], false);
        assert_eq!(bench.pending()[0]["operation"], "edit", "{fault}");
        bench.run(&["resume"]).json();
        let remote = bench.remote(id);
        assert_eq!(remote["name"], "other", "{fault}");
        assert_eq!(remote["enabled"], false, "{fault}");
        assert_eq!(bench.record("bot")["enabled"].as_bool(), Some(false));
        assert_eq!(bench.pending(), json!([]));
    }
}

#[test]
fn a_pending_enable_does_not_undo_a_later_disable() {
    for by in ["name", "client", "panic"] {
        let bench = Bench::with_faults(&["enable_api_key:drop-before:1"]);
        let bot = bench.trader("bot");
        let id = &bot["client_id"];
        bench.run(&["disable", "bot"]).json();
        bench.run(&["enable", "bot"]).error(9);
        // Somebody may have enabled it by now.
        bench.tamper(id, &json!({"enabled": true}));
        let client = format!("client:{}", id.as_str().unwrap());
        match by {
            "name" => bench.run(&["disable", "bot"]).json(),
            "client" => bench.run(&["disable", &client]).json(),
            _ => bench.run(&["panic", "--yes"]).json(),
        };
        assert_eq!(bench.pending(), json!([]), "{by}");
        assert_eq!(bench.run(&["resume"]).json()["resumed"], json!([]));
        assert_eq!(bench.remote(id)["enabled"], false, "{by}");
    }
}

#[test]
fn a_key_that_is_disabled_before_it_has_its_rights_is_not_enabled_by_resume() {
    let bench = Bench::with_faults(&["edit_api_key:drop-before:1"]);
    let flags = ["--no-passphrase", "--insecure", "--ip", "127.0.0.1"];
    let provision = ["provision", "bot", "--scope", SCOPE];
    bench.run(&join(&[&provision, &flags])).error(9);
    let id = bench.pending()[0]["client_id"].clone();
    disabled_meanwhile(&bench, "bot", "does not enable it");
    assert_eq!(bench.remote(&id)["enabled"], false);
    let error = bench.run(&["resume"]).error(9);
    assert!(error["message"].as_str().unwrap().contains("was disabled"));
    assert!(
        error["hint"]
            .as_str()
            .unwrap()
            .contains("derikey enable bot")
    );
    assert_eq!(bench.remote(&id)["enabled"], false);
    assert_eq!(rights(&bench.remote(&id)["max_scope"]), Vec::<&str>::new());

    // Whoever wants it after all enables it, and goes on.
    bench.run(&["enable", "bot"]).json();
    bench.run(&["resume"]).json();
    assert_eq!(bench.pending(), json!([]));
    let remote = bench.remote(&id);
    assert_eq!(remote["ip_whitelist"], json!(["127.0.0.1"]));
    assert_eq!(remote["enabled"], true);
}

#[test]
fn a_rotation_does_not_take_the_last_key_that_works() {
    for way in ["enable", "both"] {
        let bench = Bench::new();
        let old = bench.trader("bot");
        let plain = ["--no-passphrase", "--insecure"];
        let rotate = ["rotate", "bot", "--grace", "1s"];
        let new = bench.run(&join(&[&rotate, &plain])).json();
        let old_client = format!("client:{}", old["client_id"].as_str().unwrap());
        disabled_meanwhile(&bench, "bot", old["client_id"].as_str().unwrap());
        assert_eq!(bench.remote(&new["client_id"])["enabled"], false);
        assert_eq!(bench.remote(&old["client_id"])["enabled"], true);
        std::thread::sleep(std::time::Duration::from_millis(1500));
        let error = bench.run(&["resume"]).error(9);
        assert!(error["message"].as_str().unwrap().contains("disabled"));
        assert_eq!(bench.remote(&old["client_id"])["enabled"], true, "{way}");
        match way {
            "enable" => bench.run(&["enable", "bot"]).json(),
            // The old key has leaked too.
            _ => bench.run(&["disable", &old_client]).json(),
        };
        bench.run(&["resume"]).json();
        assert_eq!(bench.pending(), json!([]), "{way}");
        assert_eq!(bench.remote(&old["client_id"])["enabled"], false, "{way}");
        let enabled = way == "enable";
        assert_eq!(bench.remote(&new["client_id"])["enabled"], enabled, "{way}");
    }
}

#[test]
fn the_old_key_can_be_disabled_before_its_grace_ends() {
    let bench = Bench::new();
    let old = bench.trader("bot");
    let plain = ["--no-passphrase", "--insecure"];
    let rotate = ["rotate", "bot", "--grace", "1s"];
    let new = bench.run(&join(&[&rotate, &plain])).json();
    for target in [
        format!("client:{}", old["client_id"].as_str().unwrap()),
        format!("id:{}", old["key_id"]),
    ] {
        bench.run(&["disable", &target]).json();
        assert_eq!(bench.remote(&old["client_id"])["enabled"], false);
        assert_eq!(bench.remote(&new["client_id"])["enabled"], true);
    }
    bench.run(&["resume"]).json();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    bench.run(&["resume"]).json();
    assert_eq!(bench.pending(), json!([]));
    assert_eq!(bench.remote(&old["client_id"])["enabled"], false);
    assert_eq!(bench.remote(&new["client_id"])["enabled"], true);
    bench.run(&["list", "--remote", "--exit-code"]).json();
}

// list --remote

fn row<'a>(listed: &'a Value, client_id: &Value) -> &'a Value {
    let rows = listed["keys"].as_array().unwrap();
    let mut found = rows.iter().filter(|row| row["client_id"] == *client_id);
    let row = found.next().unwrap_or_else(|| panic!("{listed}"));
    assert!(found.next().is_none(), "{listed}");
    row
}

#[test]
fn the_accounts_keys_are_listed_beside_ours() {
    let bench = Bench::new();
    let bot = bench.provision("bot", &["--scope", SCOPE, "--label", "shown"]);
    let rsa = bench.provision("big", &["--scope", SCOPE, "--algorithm", "rsa-2048"]);
    let clean = bench.run(&["list", "--remote", "--exit-code"]).json();
    assert_eq!(clean["findings"], 0, "{clean}");
    for (ours, name, algorithm) in [(&bot, "bot", "ed25519"), (&rsa, "big", "rsa-2048")] {
        let row = row(&clean, &ours["client_id"]);
        assert_eq!(row["name"], name);
        assert_eq!(row["key_id"], ours["key_id"]);
        assert_eq!(row["fingerprint"], ours["fingerprint"]);
        assert_eq!(row["algorithm"], algorithm);
        assert_eq!(row["kind"], "asymmetric");
        assert_eq!(row["enabled"], true);
        assert_eq!(row["age_days"], 0);
        assert_eq!(row["orphan"], Value::Null);
        assert_eq!(row["drift"], json!([]));
    }
    // The administrator's own symmetric key is shown, and is nobody's fault.
    let own = row(&clean, &json!(bench.server.admin_client_id));
    assert_eq!(own["kind"], "symmetric");
    assert_eq!(own["orphan"], Value::Null, "{own}");

    // Neither is another symmetric key, whose secret stays secret.
    let made = bench.admin().call(
        "private/create_api_key",
        &json!({"name": "old_bot", "max_scope": "trade:read"}),
    );
    let run = bench.run(&["list", "--remote", "--exit-code"]);
    let row_of = run.json();
    assert_eq!(row(&row_of, &made["client_id"])["kind"], "symmetric");
    let text = bench
        .home
        .run(&join(&[&["list", "--remote"], &bench.server.admin()]))
        .ok();
    let secret = made["client_secret"].as_str().unwrap();
    let own = fs::read_to_string(&bench.server.admin_secret_file).unwrap();
    for said in [&run.stdout, &run.stderr, &text.stdout, &text.stderr] {
        assert!(!said.contains(secret) && !said.contains(own.trim()));
    }
    assert!(text.stdout.contains("old_bot") && text.stdout.contains("symmetric"));
    // Switching it shows it as little.
    for command in ["disable", "enable", "disable", "remove"] {
        let target = format!("client:{}", made["client_id"].as_str().unwrap());
        for more in [&["-vv"][..], &["--dry-run"][..]] {
            let run = bench.run(&join(&[&[command, &target], more]));
            assert!(
                !run.stdout.contains(secret) && !run.stderr.contains(secret),
                "{run:#?}"
            );
            if more == ["-vv"] && command != "remove" {
                run.json();
            }
        }
    }
    assert!(bench.find(&made["client_id"]).is_none());
}

#[test]
fn the_age_of_a_key_is_told_in_days() {
    let bench = Bench::new();
    let bot = bench.trader("bot");
    let path = bench.exchange.store().join("sandbox/state.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for key in state["keys"].as_array_mut().unwrap() {
        let made = key["timestamp"].as_u64().unwrap();
        // A minute short of 91 days.
        key["timestamp"] = json!(made - 91 * 86_400_000 + 60_000);
    }
    fs::write(&path, state.to_string()).unwrap();
    let listed = bench.run(&["list", "--remote", "--exit-code"]).json();
    assert_eq!(row(&listed, &bot["client_id"])["age_days"], 90);
}

#[test]
fn what_is_on_one_side_only_is_an_orphan() {
    let bench = Bench::new();
    let bot = bench.trader("bot");
    let lost = bench.trader("lost");
    let admin = bench.admin();
    admin.call("private/remove_api_key", &json!({"id": lost["key_id"]}));
    // Somebody else's key pair, made in another keystore.
    let other = Home::new();
    other
        .run(&["generate", "x", "--no-passphrase", "--insecure"])
        .ok();
    let pem = other.run(&["public", "x"]).ok().stdout;
    let theirs = admin.call(
        "private/create_api_key",
        &json!({"name": "stranger", "max_scope": "trade:read", "public_key": pem}),
    );
    let run = bench.run(&["list", "--remote", "--exit-code"]);
    assert_eq!(run.error(10)["kind"], "findings");
    let listed: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(listed["findings"], 2, "{listed}");
    assert_eq!(row(&listed, &theirs["client_id"])["orphan"], "remote");
    assert_eq!(row(&listed, &theirs["client_id"])["name"], Value::Null);
    assert_eq!(row(&listed, &lost["client_id"])["orphan"], "local");
    assert_eq!(row(&listed, &lost["client_id"])["name"], "lost");
    assert_eq!(row(&listed, &bot["client_id"])["orphan"], Value::Null);
    // Without the flag it is a list like any other.
    assert_eq!(bench.run(&["list", "--remote"]).json(), listed);
    let text = bench
        .home
        .run(&join(&[&["list", "--remote"], &bench.server.admin()]))
        .ok();
    assert!(text.stdout.contains("not here") && text.stdout.contains("not there"));
}

#[test]
fn whatever_was_changed_behind_our_back_is_drift() {
    let bench = Bench::new();
    let bot = bench.provision("bot", &["--scope", SCOPE, "--ip", "127.0.0.1"]);
    let id = &bot["client_id"];
    let before = bench.remote(id);
    let cases = [
        (
            json!({"max_scope": "account:read trade:read_write wallet:read_write"}),
            ["scope", "wallet:read_write"],
        ),
        (
            json!({"ip_whitelist": ["127.0.0.1", "10.6.6.6"]}),
            ["whitelist", "10.6.6.6"],
        ),
        (json!({"ip_whitelist": []}), ["whitelist", "none"]),
        (json!({"name": "evil"}), ["label", "evil"]),
        (
            json!({"enabled_features": ["block_trade_approval"]}),
            ["features", "block_trade_approval"],
        ),
        (json!({"enabled": false}), ["state", "disabled"]),
    ];
    for (change, words) in cases {
        bench.tamper(id, &change);
        let run = bench.run(&["list", "--remote", "--exit-code"]);
        run.error(10);
        let listed: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(listed["findings"], 1, "{change}: {listed}");
        let drift = row(&listed, id)["drift"].as_array().unwrap();
        assert_eq!(drift.len(), 1, "{change}: {drift:?}");
        let said = drift[0].as_str().unwrap();
        for word in words {
            assert!(said.contains(word), "{change}: {said}");
        }
        bench.tamper(id, &before);
        bench.run(&["list", "--remote", "--exit-code"]).json();
    }
}

#[test]
fn one_damaged_record_hides_no_other_key() {
    let bench = Bench::new();
    let keys = ["aaa", "bbb", "ccc"].map(|name| bench.trader(name));
    let path = bench.home.store().join("keys/aaa/current/key.toml");
    fs::write(&path, "version = 1\nnonsense").unwrap();
    let shown = |run: &Run, field: &str| -> Vec<Value> {
        let said: Value = serde_json::from_str(&run.stdout).unwrap();
        said["keys"]
            .as_array()
            .unwrap()
            .iter()
            .map(|key| key[field].clone())
            .collect()
    };
    let run = bench.home.run(&["--json", "list"]);
    let error = run.error(7);
    assert!(error["message"].as_str().unwrap().starts_with("aaa: "));
    assert_eq!(shown(&run, "name"), ["aaa", "bbb", "ccc"]);
    assert_eq!(shown(&run, "state"), ["unreadable", "active", "active"]);
    let text = bench.home.run(&["list"]);
    assert_eq!(text.code, Some(7));
    assert!(text.stdout.contains("unreadable") && text.stdout.contains("ccc"));

    // At the exchange it is known by its public half.
    let run = bench.run(&["list", "--remote"]);
    run.error(7);
    let listed: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(listed["findings"], 1, "{listed}");
    for (key, name) in keys.iter().zip(["aaa", "bbb", "ccc"]) {
        let row = row(&listed, &key["client_id"]);
        assert_eq!(row["name"], name, "{listed}");
        assert_eq!(row["orphan"], Value::Null, "{listed}");
        let problems = row["problems"].as_array().unwrap().len();
        assert_eq!(problems, usize::from(name == "aaa"), "{listed}");
    }
    bench.run(&["list", "--remote", "--exit-code"]).error(10);
    let said = bench.run(&["panic", "--yes"]).json();
    assert_eq!(said["disabled"].as_array().unwrap().len(), 3, "{said}");

    // A link in its place is followed by nobody.
    let kept = bench.home.path("kept");
    fs::rename(bench.home.store().join("keys/aaa"), &kept).unwrap();
    std::os::unix::fs::symlink(&kept, bench.home.store().join("keys/aaa")).unwrap();
    let run = bench.home.run(&["--json", "list"]);
    run.error(7);
    assert_eq!(shown(&run, "state")[0], "unreadable");
    assert_eq!(shown(&run, "state").len(), 3);
    bench.run(&["list", "--remote"]).error(7);
}

#[test]
fn one_damaged_journal_entry_stops_no_other() {
    let bench = Bench::with_faults(&["disable_api_key:drop-before:1"]);
    for name in ["aaa", "bbb"] {
        bench.trader(name);
    }
    bench.run(&["disable", "bbb"]).error(9);
    let entry = bench.home.store().join("journal/aaa.json");
    fs::copy(bench.home.store().join("journal/bbb.json"), &entry).unwrap();
    fs::write(&entry, "{\"version\":1,").unwrap();

    let run = bench.home.run(&["--json", "status"]);
    let error = run.error(3);
    assert!(error["message"].as_str().unwrap().contains("aaa.json"));
    assert!(error["hint"].as_str().unwrap().contains("list --remote"));
    let said: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(said["pending"][0]["name"], "bbb", "{said}");
    assert_eq!(said["damaged"][0]["name"], "aaa", "{said}");
    let text = bench.home.run(&["status"]);
    assert!(text.stdout.contains("disable of bbb") && text.stdout.contains("aaa"));

    let run = bench.run(&["resume"]);
    let error = run.error(3);
    assert!(error["message"].as_str().unwrap().contains("aaa.json"));
    let said: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(said["resumed"][0]["name"], "bbb", "{said}");
    assert_eq!(said["failed"][0]["name"], "aaa", "{said}");
    assert_eq!(bench.record("bbb")["enabled"].as_bool(), Some(false));
    // It stays in the way of its own key only.
    bench.run(&["edit", "aaa", "--label", "x"]).error(3);
    bench.run(&["enable", "bbb"]).json();
    fs::remove_file(entry).unwrap();
    bench.run(&["edit", "aaa", "--label", "x"]).json();
}

// panic

#[test]
fn panic_disables_what_matches_and_nothing_else() {
    let bench = Bench::new();
    let names = ["mm_one", "mm_two", "desk"];
    let keys = names.map(|name| bench.trader(name));
    let stranger = bench.admin().call(
        "private/create_api_key",
        &json!({"name": "mm_x", "max_scope": "trade:read"}),
    );
    bench.run(&["panic", "--match", "mm_*"]).error(8);
    for key in &keys {
        assert_eq!(bench.remote(&key["client_id"])["enabled"], true);
    }
    let planned = bench.run(&["panic", "--match", "mm_*", "--dry-run"]).json();
    assert_eq!(planned["disabled"].as_array().unwrap().len(), 3);
    let said = bench.run(&["panic", "--match", "mm_*", "--yes"]).json();
    assert_eq!(said["disabled"], planned["disabled"]);
    assert_eq!(said["not_reached"], json!([]));
    let enabled = |id: &Value| bench.remote(id)["enabled"].clone();
    for (key, name, on) in [
        (&keys[0], "mm_one", false),
        (&keys[1], "mm_two", false),
        (&keys[2], "desk", true),
    ] {
        assert_eq!(enabled(&key["client_id"]), on, "{name}");
        assert_eq!(bench.record(name)["enabled"].as_bool(), Some(on), "{name}");
    }
    assert_eq!(enabled(&stranger["client_id"]), false);

    // Everything: the operator's own key is spared, and said to be.
    let said = bench.run(&["panic", "--yes"]).json();
    assert_eq!(said["disabled"].as_array().unwrap().len(), 1, "{said}");
    assert_eq!(said["disabled"][0]["label"], "desk");
    assert_eq!(said["spared"][0]["client_id"], bench.server.admin_client_id);
    assert_eq!(enabled(&keys[2]["client_id"]), false);
    bench.run(&["list", "--remote", "--exit-code"]).json();
    // It is written down.
    let audit = bench.home.run(&["--json", "audit"]).json();
    let entries = audit["entries"].as_array().unwrap();
    let network = &entries[0]["network"];
    let mut logged: Vec<Value> = entries
        .iter()
        .filter(|entry| entry["action"] == "panic")
        .map(|entry| {
            json!([
                entry["key"],
                entry["client_id"],
                entry["network"],
                entry["outcome"]
            ])
        })
        .collect();
    let line = |name: Value, key: &Value| json!([name, key["client_id"], network, "done"]);
    let mut wanted = [
        line(json!("mm_one"), &keys[0]),
        line(json!("mm_two"), &keys[1]),
        line(Value::Null, &stranger),
        line(json!("desk"), &keys[2]),
    ];
    wanted[..3].sort_by_key(ToString::to_string);
    logged[..3].sort_by_key(ToString::to_string);
    assert_eq!(logged, wanted);
    // Where there was nothing to disable, that is what is written down.
    bench
        .run(&["panic", "--match", "nobody", "--yes"])
        .error(10);
    let audit = bench.home.run(&["--json", "audit"]).json();
    let last = audit["entries"].as_array().unwrap().last().unwrap();
    assert_eq!(last["outcome"], "nothing to disable", "{last}");

    // One by its client id.
    bench.run(&["enable", "mm_two"]).json();
    let id = keys[1]["client_id"].as_str().unwrap();
    bench.run(&["panic", "--match", id, "--yes"]).json();
    assert_eq!(enabled(&keys[1]["client_id"]), false);
}

#[test]
fn panic_goes_on_after_a_failure_and_says_what_it_could_not_reach() {
    for fault in ["500", "drop-before", "echo", "garbage"] {
        let bench = Bench::with_faults(&[&format!("disable_api_key:{fault}:2")]);
        let keys = ["one", "two", "three"].map(|name| bench.trader(name));
        let run = bench.run(&["panic", "--yes"]);
        assert!(!matches!(run.code, Some(0)), "{fault}: {run:#?}");
        let failed = run.error(run.code.unwrap());
        let enabled: Vec<&Value> = keys
            .iter()
            .filter(|key| bench.remote(&key["client_id"])["enabled"] == true)
            .collect();
        let left = usize::from(fault != "garbage");
        assert_eq!(enabled.len(), left, "{fault}: {failed}");
        let said: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(said["disabled"].as_array().unwrap().len(), 2, "{said}");
        assert_eq!(said["verified"], true, "{said}");
        let missed = said["not_reached"][0].clone();
        let lost = &missed["client_id"];
        assert_eq!(said["not_reached"].as_array().unwrap().len(), 1, "{said}");
        assert!(!missed["why"].as_str().unwrap().is_empty(), "{said}");
        // The account was looked at: an answer that was lost says nothing about the key.
        assert_eq!(missed["enabled"], left == 1, "{fault}: {said}");
        let message = failed["message"].as_str().unwrap();
        assert!(message.contains(lost.as_str().unwrap()), "{failed}");
        for (name, key) in ["one", "two", "three"].iter().zip(&keys) {
            let record = bench.record(name)["enabled"].as_bool();
            let open = left == 1 && key["client_id"] == *lost;
            assert_eq!(record, Some(open), "{fault}: {name}");
            assert_eq!(bench.remote(&key["client_id"])["enabled"], open);
        }
        // Again, and it is done.
        bench.run(&["panic", "--yes"]).json();
        for key in &keys {
            assert_eq!(bench.remote(&key["client_id"])["enabled"], false);
        }
    }
}

#[test]
fn an_answer_that_shows_the_other_state_is_a_failure() {
    for (command, enabled) in [("disable", true), ("enable", false)] {
        let mut bench = Bench::new();
        let meddler = Meddler::before(&mut bench.server);
        bench.trader("one");
        let says = move |call: &mut Call| call.retell(|key| key["enabled"] = json!(enabled));
        let method = match command {
            "disable" => "private/disable_api_key",
            _ => "private/enable_api_key",
        };
        meddler.strike(method, Arc::new(says));
        let run = bench.run(&[command, "one"]);
        assert_eq!(run.code, Some(11), "{command}: {run:#?}");
        assert_eq!(meddler.struck(), 1, "{command}: {run:#?}");
    }
}

#[test]
fn a_key_that_goes_while_it_is_removed_is_removed() {
    let mut bench = Bench::new();
    let meddler = Meddler::before(&mut bench.server);
    let key = bench.trader("one");
    // Somebody else was quicker.
    let gone = |call: &mut Call| {
        call.carry_out()?;
        call.refuse(13020)
    };
    meddler.strike("private/remove_api_key", Arc::new(gone));
    bench.run(&["remove", "one", "--yes"]).json();
    let keys = bench.admin().keys();
    assert!(
        keys.iter()
            .all(|left| left["client_id"] != key["client_id"])
    );
    assert!(!bench.home.store().join("keys/one").exists());
}

#[test]
fn an_rsa_key_by_another_fingerprint_is_ours_by_its_public_half() {
    let mut bench = Bench::new();
    let meddler = Meddler::before(&mut bench.server);
    let print = "0f:0f:0f:0f:0f:0f:0f:0f:0f:0f:0f:0f:0f:0f:0f:0e";
    let other = move |call: &mut Call| call.retell(|key| key["client_secret"] = json!(print));
    meddler.strike("private/create_api_key", Arc::new(other));
    let flags = ["--scope", SCOPE, "--no-passphrase", "--insecure", "-v"];
    let run = bench.run(&join(&[
        &["provision", "one", "--algorithm", "rsa-2048"],
        &flags,
    ]));
    assert_eq!(run.json()["fingerprint_verified"], false, "{run:#?}");
    assert!(run.stderr.contains("by another fingerprint"), "{run:#?}");
}

#[test]
fn a_key_that_shows_neither_half_nor_fingerprint_is_not_taken_for_ours() {
    let mut bench = Bench::new();
    let meddler = Meddler::before(&mut bench.server);
    let hides = |call: &mut Call| {
        call.retell(|key| {
            let key = key.as_object_mut().unwrap();
            key.remove("public_key");
            key.remove("client_secret");
        })
    };
    meddler.strike("private/create_api_key", Arc::new(hides));
    let flags = ["--scope", SCOPE, "--no-passphrase", "--insecure"];
    let run = bench.run(&join(&[&["provision", "one"], &flags]));
    assert_eq!(run.code, Some(11), "{run:#?}");
}

#[test]
fn a_key_by_another_label_is_taken_and_that_is_said() {
    for differs in [false, true] {
        let mut bench = Bench::new();
        let meddler = Meddler::before(&mut bench.server);
        let other = move |call: &mut Call| {
            call.retell(|key| {
                if differs {
                    key["name"] = json!("somebody_else");
                }
            })
        };
        meddler.strike("private/create_api_key", Arc::new(other));
        let flags = ["--scope", SCOPE, "--no-passphrase", "--insecure", "-v"];
        let run = bench.run(&join(&[&["provision", "one"], &flags]));
        assert_eq!(run.code, Some(0), "{run:#?}");
        let said = run.stderr.contains("warning: the exchange");
        assert_eq!(said, differs, "{run:#?}");
    }
}

#[test]
fn a_token_that_ran_out_on_the_way_is_replaced_once() {
    for (args, method, refused, exit, calls) in [
        (["disable", "one"], "private/disable_api_key", 1, 0, 2),
        (["disable", "one"], "private/disable_api_key", 9, 4, 2),
        // Who was let in a moment ago is not let in by another login.
        (["list", "--remote"], "private/list_api_keys", 9, 4, 1),
    ] {
        let mut bench = Bench::new();
        let meddler = Meddler::before(&mut bench.server);
        bench.trader("one");
        let refuses = move |call: &mut Call| {
            if call.nth < refused {
                call.refuse(13009)
            } else {
                call.retell(|_| ())
            }
        };
        meddler.strike(method, Arc::new(refuses));
        let run = bench.run(&args);
        assert_eq!(run.code, Some(exit), "{args:?}: {run:#?}");
        assert_eq!(meddler.struck(), calls, "{args:?}: {run:#?}");
    }
}

#[test]
fn panic_takes_no_answer_for_a_yes_that_says_enabled() {
    let mut bench = Bench::new();
    let key = bench.trader("one");
    let meddler = Meddler::before(&mut bench.server);
    let says = |call: &mut Call| call.retell(|key| key["enabled"] = json!(true));
    meddler.strike("private/disable_api_key", Arc::new(says));
    // Nor can anybody look in the end.
    let looks = |call: &mut Call| match call.nth {
        0 => call.retell(|_| ()),
        _ => call.reset(),
    };
    meddler.strike("private/list_api_keys", Arc::new(looks));
    let run = bench.run(&["panic", "--yes"]);
    let failed = run.error(11);
    let said: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(said["disabled"], json!([]), "{failed}");
    assert_eq!(said["not_reached"][0]["client_id"], key["client_id"]);
    assert_eq!(said["not_reached"][0]["enabled"], Value::Null, "{said}");
    assert_eq!(said["verified"], false);
    assert_eq!(bench.record("one")["enabled"].as_bool(), Some(true));
}

#[test]
fn panic_is_not_stopped_by_a_broken_record() {
    let bench = Bench::new();
    let keys = ["aaa", "bbb", "ccc"].map(|name| bench.trader(name));
    let path = bench.home.store().join("keys/aaa/current/key.toml");
    fs::write(path, "version = 1\nnonsense").unwrap();
    bench.run(&["panic", "--yes"]);
    for key in &keys {
        assert_eq!(bench.remote(&key["client_id"])["enabled"], false, "{key}");
    }
    for name in ["bbb", "ccc"] {
        assert_eq!(bench.record(name)["enabled"].as_bool(), Some(false));
    }
}

#[test]
fn panic_disables_seven_keys_side_by_side() {
    let bench = Bench::new();
    let names = ["k1", "k2", "k3", "k4", "k5", "k6", "k7"];
    let keys = names.map(|name| bench.trader(name));
    // None is let through before all seven have come.
    let gate = Gate::before(&bench.server, "private/disable_api_key", 7);
    let mut flags = bench.server.admin();
    flags[3] = &gate.endpoint;
    let run = bench
        .home
        .run(&join(&[&["--json", "panic", "--yes", "-v"], &flags]));
    assert!(!run.stderr.contains("one after another"), "{run:#?}");
    let said = run.json();
    assert_eq!(gate.together(), 7, "{said}");
    assert_eq!(said["verified"], true);
    let order: Vec<&Value> = said["disabled"].as_array().unwrap().iter().collect();
    for (said, key) in order.iter().zip(&keys) {
        assert_eq!(
            said["client_id"], key["client_id"],
            "in the account's order"
        );
        assert_eq!(bench.remote(&key["client_id"])["enabled"], false);
    }
    // What is disabled is said to be so, and left alone.
    let said = bench.run(&["panic", "--yes"]).json();
    assert_eq!(said["already"].as_array().unwrap().len(), 7, "{said}");
    assert_eq!(said["disabled"], json!([]));
}

#[test]
fn panic_tells_people_what_became_of_each_key() {
    let bench = Bench::with_faults(&["disable_api_key:drop-before:2"]);
    let keys = ["one", "two", "three"].map(|name| bench.trader(name));
    bench.run(&["disable", "three"]).json();
    let run = bench
        .home
        .run(&join(&[&["panic", "--yes"], &bench.server.admin()]));
    assert_eq!(run.code, Some(5), "{run:#?}");
    let line = |word: &str| -> String {
        let mut lines = run.stdout.lines();
        lines.find(|line| line.starts_with(word)).unwrap().into()
    };
    assert!(line("disabled before").contains("three"), "{run:#?}");
    assert!(line("in use, left enabled").contains("admin"), "{run:#?}");
    let missed = line("NOT REACHED");
    assert!(missed.contains("shows it enabled"), "{run:#?}");
    assert!(missed.contains("broke"), "why: {run:#?}");
    assert!(line("disabled:").contains("one") != missed.contains("one"));
    // On the way each is told of as it happens.
    for key in &keys[..2] {
        let id = key["client_id"].as_str().unwrap();
        assert!(run.stderr.contains(id), "{run:#?}");
    }
}

#[test]
fn panic_waits_out_a_rate_limit_and_goes_on() {
    let bench = Bench::with_faults(&[
        "disable_api_key:rate-limit:1",
        "disable_api_key:rate-limit:2",
        "disable_api_key:unauthorized:3",
    ]);
    let keys = ["one", "two", "three"].map(|name| bench.trader(name));
    let said = bench.run(&["panic", "--yes"]).json();
    assert_eq!(said["disabled"].as_array().unwrap().len(), 3, "{said}");
    for key in &keys {
        assert_eq!(bench.remote(&key["client_id"])["enabled"], false);
    }
}
