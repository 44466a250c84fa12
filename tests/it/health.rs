//! `doctor`, `audit` and `scope`: each finding is provoked, and named.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

#[cfg(target_os = "linux")]
use crate::hardening::{NOBODY, as_nobody};
use crate::{
    kills::can_trace,
    manage::{Bench, SCOPE},
    raw::Tap,
    second_look::message,
    store_files::under,
    support::{Home, Run, join},
};

/// What a run with findings says on standard output.
#[track_caller]
fn findings(run: &Run) -> Value {
    assert_eq!(run.error(10)["kind"], "findings");
    serde_json::from_str(&run.stdout).unwrap()
}

/// The one check that failed.
#[track_caller]
fn only_problem(run: &Run) -> Value {
    let said = findings(run);
    let checks = said["checks"].as_array().unwrap().iter();
    let bad: Vec<&Value> = checks.filter(|check| check["ok"] == false).collect();
    assert_eq!(bad.len(), 1, "{bad:#?}");
    assert_eq!(said["findings"], 1);
    for field in ["check", "kind", "problem", "cure"] {
        assert!(!bad[0][field].as_str().unwrap().is_empty(), "{bad:#?}");
    }
    bad[0].clone()
}

fn says(value: &Value, field: &str, word: &str) -> bool {
    value[field]
        .as_str()
        .is_some_and(|text| text.contains(word))
}

// doctor

#[test]
fn doctor_finds_nothing_where_nothing_is_wrong() {
    let bench = Bench::new();
    let bot = bench.trader("bot");
    let said = bench.run(&["doctor"]).json();
    assert_eq!(said["findings"], 0);
    let checks = said["checks"].as_array().unwrap();
    for words in ["the clock", "bot at the exchange", "files of bot", "chain"] {
        let found = checks.iter().find(|check| says(check, "check", words));
        assert_eq!(found.unwrap()["ok"], true, "{words}: {said}");
    }
    let text = bench
        .home
        .run(&join(&[&["doctor"], &bench.server.admin()]))
        .ok();
    assert!(text.stdout.lines().all(|line| line.starts_with("good")));

    // A key that was disabled with our knowledge is as it should be.
    bench.run(&["disable", "bot"]).json();
    bench.run(&["doctor"]).json();
    bench.run(&["enable", "bot"]).json();

    // One that was disabled without is not.
    bench.tamper(&bot["client_id"], &json!({"enabled": false}));
    let problem = only_problem(&bench.run(&["doctor"]));
    assert!(says(&problem, "check", "bot at the exchange"));
    assert!(says(&problem, "problem", "disabled"), "{problem}");
    assert!(says(&problem, "cure", "derikey enable bot"), "{problem}");
    // It changes nothing by itself.
    assert_eq!(bench.remote(&bot["client_id"])["enabled"], false);
    bench.tamper(&bot["client_id"], &json!({"enabled": true}));

    let admin = bench.admin();
    admin.call("private/remove_api_key", &json!({"id": bot["key_id"]}));
    let problem = only_problem(&bench.run(&["doctor"]));
    assert!(says(&problem, "problem", "does not have it"), "{problem}");
}

#[test]
fn doctor_finds_a_wrong_clock() {
    let bench = Bench::with_faults(&["get_time:clock-skew"]);
    bench.trader("bot");
    let problem = only_problem(&bench.run(&["doctor"]));
    assert!(says(&problem, "check", "clock"), "{problem}");
    let seconds: Vec<u64> = problem["problem"]
        .as_str()
        .unwrap()
        .split(' ')
        .filter_map(|word| word.parse().ok())
        .collect();
    assert!((295..=305).contains(&seconds[0]), "{problem}");
    // The exchange is ahead, so this machine is behind.
    assert!(says(&problem, "problem", "behind"), "{problem}");
    assert!(says(&problem, "cure", "chronyd"), "{problem}");
    let text = bench.home.run(&join(&[&["doctor"], &bench.server.admin()]));
    assert_eq!(text.code, Some(10));
    assert!(text.stdout.contains("wrong") && text.stdout.contains("chronyd"));
    // The clock cannot be seen from here alone.
    bench.home.run(&["--json", "doctor", "--offline"]).json();
}

#[test]
fn doctor_finds_what_is_unfinished() {
    let bench = Bench::with_faults(&["edit_api_key:drop-before:1"]);
    bench.trader("bot");
    bench.run(&["edit", "bot", "--label", "other"]).error(9);
    let problem = only_problem(&bench.run(&["doctor"]));
    assert!(says(&problem, "check", "edit of bot"), "{problem}");
    assert!(says(&problem, "cure", "derikey resume bot"), "{problem}");
    bench.run(&["resume"]).json();
    bench.run(&["doctor"]).json();
}

#[test]
fn doctor_finds_files_that_were_exchanged_or_spoilt() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new();
    bench.trader("one");
    bench.trader("two");
    let offline = || bench.home.run(&["--json", "doctor", "--offline"]);
    offline().json();
    let dir = |name: &str| bench.home.store().join("keys").join(name).join("current");

    let public = dir("one").join("public.pem");
    let ours = fs::read(&public).unwrap();
    fs::write(&public, fs::read(dir("two").join("public.pem")).unwrap()).unwrap();
    let problem = only_problem(&offline());
    assert!(says(&problem, "check", "one"), "{problem}");
    assert!(says(&problem, "problem", "different keys"), "{problem}");
    fs::write(&public, ours).unwrap();
    offline().json();

    let private = dir("two").join("private.pem");
    fs::set_permissions(&private, fs::Permissions::from_mode(0o644)).unwrap();
    let problem = only_problem(&offline());
    assert!(says(&problem, "check", "two"), "{problem}");
    assert!(says(&problem, "cure", "chmod 600"), "{problem}");
    fs::set_permissions(&private, fs::Permissions::from_mode(0o600)).unwrap();
    offline().json();

    fs::write(dir("two").join("key.toml"), "nonsense = 1\n").unwrap();
    let problem = only_problem(&offline());
    assert!(says(&problem, "check", "two"), "{problem}");
}

#[test]
fn doctor_offline_reaches_no_network() {
    let bench = Bench::new();
    bench.trader("bot");
    let tap = Tap::before(&bench.server);
    let mut flags = bench.server.admin();
    flags[3] = &tap.endpoint;
    let offline = ["--json", "doctor", "--offline"];
    bench.home.run(&join(&[&offline, &flags])).json();
    assert_eq!(tap.requests(), Vec::<Value>::new());
    // Without the flag it does, which shows that the tap hears it.
    bench.home.run(&join(&[&["--json", "doctor"], &flags]));
    assert!(!tap.requests().is_empty());

    // An exchange that is not there is a finding, not the end.
    let Bench { server, home, .. } = bench;
    drop(server);
    home.run(&offline).json();
    let problem = only_problem(&home.run(&["--json", "doctor"]));
    assert!(says(&problem, "check", "network"), "{problem}");
}

/// Expects one finding of a kind about a key, with words in its problem and its cure.
#[track_caller]
fn is_the_problem(run: &Run, kind: &str, key: &str, words: [&str; 2]) {
    let problem = only_problem(run);
    assert_eq!(problem["kind"], kind, "{problem}");
    assert_eq!(problem["key"], key, "{problem}");
    assert!(says(&problem, "problem", words[0]), "{problem}");
    assert!(says(&problem, "cure", words[1]), "{problem}");
}

#[test]
fn doctor_tells_a_disabled_key_from_drift() {
    let bench = Bench::new();
    let bot = bench.trader("bot");
    bench.tamper(&bot["client_id"], &json!({"enabled": false}));
    let words = ["disabled there", "derikey enable bot"];
    is_the_problem(&bench.run(&["doctor"]), "disabled_key", "bot", words);
    // Without an administrator the key itself is asked for.
    let alone = || {
        bench
            .home
            .run(&join(&[&["--json", "doctor"], &bench.server.network()]))
    };
    is_the_problem(&alone(), "disabled_key", "bot", words);
    bench.tamper(&bot["client_id"], &json!({"enabled": true}));
    alone().json();

    bench.tamper(&bot["client_id"], &json!({"name": "evil"}));
    let words = ["label: evil -> bot", "derikey edit bot"];
    is_the_problem(&bench.run(&["doctor"]), "drift", "bot", words);
    bench.tamper(&bot["client_id"], &json!({"name": "bot"}));

    bench.run(&["disable", "bot"]).json();
    bench.tamper(&bot["client_id"], &json!({"enabled": true}));
    let words = ["is enabled there", "derikey disable bot"];
    is_the_problem(&bench.run(&["doctor"]), "drift", "bot", words);
}

#[test]
fn doctor_says_when_this_host_is_not_on_a_whitelist() {
    let bench = Bench::new();
    let bot = bench.provision("bot", &["--scope", SCOPE, "--ip", "127.0.0.1"]);
    bench.run(&["doctor"]).json();
    bench.run(&["edit", "bot", "--ip", "10.0.0.1"]).json();
    let words = ["127.0.0.1", "derikey edit bot --add-ip 127.0.0.1"];
    is_the_problem(&bench.run(&["doctor"]), "ip_not_whitelisted", "bot", words);
    let alone = bench
        .home
        .run(&join(&[&["--json", "doctor"], &bench.server.network()]));
    let words = ["10.0.0.1", "derikey edit bot --add-ip"];
    is_the_problem(&alone, "ip_not_whitelisted", "bot", words);
    assert_eq!(
        bench.remote(&bot["client_id"])["ip_whitelist"],
        json!(["10.0.0.1"])
    );
}

#[test]
fn doctor_finds_a_key_that_is_another_at_the_exchange() {
    let bench = Bench::new();
    bench.trader("bot");
    let dir = bench.home.store().join("keys/bot/1");
    // The account's key stays, and a new pair takes the place of ours.
    let other = Home::new();
    other
        .run(&["generate", "x", "--no-passphrase", "--insecure"])
        .ok();
    let theirs = other.store().join("keys/x/1");
    let record = fs::read_to_string(dir.join("key.toml")).unwrap();
    let line = |text: &str, field: &str| -> String {
        let mut lines = text.lines();
        lines.find(|line| line.starts_with(field)).unwrap().into()
    };
    let made = fs::read_to_string(theirs.join("key.toml")).unwrap();
    let swapped = record.replace(
        &line(&record, "fingerprint ="),
        &line(&made, "fingerprint ="),
    );
    fs::write(dir.join("key.toml"), swapped).unwrap();
    for file in ["public.pem", "private.pem"] {
        fs::write(dir.join(file), fs::read(theirs.join(file)).unwrap()).unwrap();
    }
    bench.home.run(&["--json", "doctor", "--offline"]).json();
    let words = ["another public key under", "backup"];
    is_the_problem(&bench.run(&["doctor"]), "wrong_key", "bot", words);
    let alone = bench
        .home
        .run(&join(&[&["--json", "doctor"], &bench.server.network()]));
    let words = ["does not know it as", "--admin"];
    is_the_problem(&alone, "wrong_key", "bot", words);

    // A private half that is not that of the public one is seen without the exchange.
    let ours = fs::read(theirs.join("private.pem")).unwrap();
    other
        .run(&["generate", "y", "--no-passphrase", "--insecure"])
        .ok();
    let third = other.store().join("keys/y/1/private.pem");
    fs::write(dir.join("private.pem"), fs::read(third).unwrap()).unwrap();
    let offline = bench.home.run(&["--json", "doctor", "--offline"]);
    let words = ["private half", "backup"];
    is_the_problem(&offline, "wrong_key", "bot", words);
    fs::write(dir.join("private.pem"), ours).unwrap();
    bench.home.run(&["--json", "doctor", "--offline"]).json();
}

#[test]
fn doctor_opens_a_sealed_key_where_nobody_must_be_asked() {
    let home = Home::new();
    home.secret_file("right", "right\n");
    home.secret_file("wrong", "wrong\n");
    for name in ["one", "two"] {
        home.run(&["generate", name, "--passphrase-file", "right"])
            .ok();
    }
    let file = |name: &str| home.store().join("keys").join(name).join("1/private.pem");
    fs::write(file("one"), fs::read(file("two")).unwrap()).unwrap();
    let doctor = |more: &[&str]| home.run(&join(&[&["--json", "doctor", "--offline"], more]));
    let words = ["private half", "backup"];
    let run = doctor(&["--passphrase-file", "right"]);
    is_the_problem(&run, "wrong_key", "one", words);
    // A file that cannot be opened is not known to be wrong.
    doctor(&[]).json();
    doctor(&["--passphrase-file", "wrong"]).json();
}

#[test]
fn doctor_finds_another_network_than_was_meant() {
    // It says that it is production once it has said that it is not.
    let bench = Bench::with_faults(&["list_api_keys:wrong-testnet"]);
    bench.trader("bot");
    let run = bench.run(&["doctor"]);
    let problem = only_problem(&run);
    assert_eq!(problem["kind"], "wrong_network", "{problem}");
    assert!(says(&problem, "cure", "--endpoint"), "{problem}");
}

#[test]
fn doctor_sorts_its_findings() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::with_faults(&["edit_api_key:drop-before:1"]);
    for name in ["one", "two", "three", "four"] {
        bench.trader(name);
    }
    let store = bench.home.store();
    bench.run(&["edit", "one", "--label", "x"]).error(9);
    let private = store.join("keys/two/1/private.pem");
    fs::set_permissions(&private, fs::Permissions::from_mode(0o640)).unwrap();
    fs::write(store.join("keys/three/1/key.toml"), "damaged").unwrap();
    fs::write(store.join("journal/four.json"), "{").unwrap();
    fs::set_permissions(
        store.join("journal/four.json"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    fs::set_permissions(store.join("audit.jsonl"), fs::Permissions::from_mode(0o644)).unwrap();
    let Bench { server, home, .. } = bench;
    drop(server);
    // The network is gone as well, and nothing of it stops anything else.
    let run = home.run(&["--json", "doctor"]);
    let said = findings(&run);
    let mut found: Vec<(&str, &str)> = said["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["ok"] == false)
        .map(|check| {
            assert!(!check["cure"].as_str().unwrap().is_empty(), "{check}");
            let word = |field: &str| check[field].as_str().unwrap_or("-");
            (word("kind"), word("key"))
        })
        .collect();
    found.sort_unstable();
    assert_eq!(
        found,
        [
            ("damaged_journal", "four"),
            ("network", "-"),
            ("unfinished", "one"),
            ("unreadable", "three"),
            ("unsafe_permissions", "-"),
            ("unsafe_permissions", "two"),
        ],
        "{said}"
    );
    assert_eq!(said["findings"], 6);
}

// audit

fn log(home: &Home) -> PathBuf {
    home.store().join("audit.jsonl")
}

fn hex(line: &str) -> String {
    let digest = Sha256::digest(line.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(target_os = "linux")]
#[test]
fn the_audit_log_tells_which_user_it_was() {
    let home = Home::new();
    let generate = ["generate", "one", "--no-passphrase", "--insecure"];
    let Some(mut command) = as_nobody(&home, &generate) else {
        return;
    };
    Run::of(command.output().unwrap()).ok();
    let text = fs::read_to_string(log(&home)).unwrap();
    let entry: Value = serde_json::from_str(text.trim()).unwrap();
    assert_eq!(entry["uid"], NOBODY, "{entry}");
}

#[test]
fn the_audit_log_tells_who_did_what_to_which_key() {
    let bench = Bench::new();
    let bot = bench.trader("bot");
    bench.run(&["edit", "bot", "--label", "other"]).json();
    bench.run(&["disable", "bot"]).json();
    let by_client = format!("client:{}", bot["client_id"].as_str().unwrap());
    bench.run(&["enable", &by_client]).json();
    bench.run(&["disable", "id:1"]).error(8);
    let said = bench.home.run(&["--json", "audit"]).json();
    assert_eq!(said["verified"], true);
    assert_eq!(said["first_broken_line"], Value::Null);
    let entries = said["entries"].as_array().unwrap();
    for action in ["provision", "edit", "disable", "enable"] {
        let found: Vec<&Value> = entries
            .iter()
            .filter(|entry| entry["action"] == action && entry["outcome"] == "done")
            .collect();
        assert_eq!(found.len(), 1, "{action}: {entries:#?}");
        assert_eq!(found[0]["key"], "bot", "{action}");
        assert!(found[0]["uid"].is_u64() && found[0]["at"].is_string());
    }
    // The chain is what it is said to be.
    let text = fs::read_to_string(log(&bench.home)).unwrap();
    let mut prev = "0".repeat(64);
    for line in text.lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        assert_eq!(entry["prev"], prev);
        prev = hex(line);
    }
    let shown = bench.home.run(&["audit"]).ok();
    assert_eq!(shown.stdout.lines().count(), entries.len());
    // A home without a log has nothing to be verified.
    let said = Home::new().run(&["--json", "audit"]).json();
    assert_eq!(said["entries"], json!([]));
}

#[test]
fn a_log_that_cannot_be_opened_is_not_taken_for_an_empty_one() {
    if !can_trace() {
        return;
    }
    let home = Home::new();
    home.run(&["generate", "one", "--no-passphrase", "--insecure"])
        .ok();
    let path = log(&home);
    let fails = [
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-P",
        path.to_str().unwrap(),
        "-e",
        "inject=openat:error=EIO",
    ];
    let run = Run::of(
        under(&fails, &home.command(&["--json", "audit"]))
            .output()
            .unwrap(),
    );
    let said = message(&run, 1);
    assert!(said.contains("audit.jsonl"), "{said}");
}

#[test]
fn a_log_that_was_tampered_with_is_named_by_its_line() {
    let home = Home::new();
    let plain = ["--no-passphrase", "--insecure"];
    for name in ["a", "b", "c", "d", "e"] {
        home.run(&join(&[&["generate", name], &plain])).ok();
    }
    let path = log(&home);
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 5);
    home.run(&["audit"]).ok();

    type Change = fn(&mut Vec<String>);
    // The line at which the chain breaks: after one that was edited, at one that was added or
    // whose predecessor is gone.
    let cases: [(&str, Change, usize); 8] = [
        ("edited", |l| l[2] = l[2].replace("\"c\"", "\"x\""), 4),
        ("removed", |l| drop(l.remove(2)), 3),
        ("the first removed", |l| drop(l.remove(0)), 1),
        ("added", |l| l.insert(2, l[1].clone()), 3),
        (
            "added with the right link",
            |l| {
                let mut entry: Value = serde_json::from_str(&l[1]).unwrap();
                entry["prev"] = json!(hex(&l[1]));
                l.insert(2, entry.to_string());
            },
            4,
        ),
        ("swapped", |l| l.swap(1, 2), 2),
        ("spoilt", |l| l[3] = "not json".into(), 4),
        (
            "the link itself",
            |l| l[3] = l[3].replace("\"prev\":\"", "\"prev\":\"0"),
            4,
        ),
    ];
    for (what, change, number) in cases {
        let mut changed = lines.clone();
        change(&mut changed);
        fs::write(&path, changed.join("\n") + "\n").unwrap();
        let run = home.run(&["--json", "audit"]);
        let error = run.error(11);
        assert!(
            says(&error, "message", &format!("line {number}")),
            "{what}: {error}"
        );
        let said: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(said["verified"], false, "{what}");
        assert_eq!(said["first_broken_line"], number, "{what}");
        assert_eq!(said["entries"].as_array().unwrap().len(), changed.len());
        let text = home.run(&["audit"]);
        assert_eq!(text.code, Some(11), "{what}");
        let marked = text.stdout.lines().position(|line| line.starts_with('!'));
        assert_eq!(marked.map(|at| at + 1), Some(number), "{what}");
        let problem = only_problem(&home.run(&["--json", "doctor", "--offline"]));
        assert!(says(&problem, "check", "audit"), "{what}: {problem}");
        assert!(
            says(&problem, "problem", &format!("line {number}")),
            "{what}: {problem}"
        );
    }
    fs::write(&path, text).unwrap();
    home.run(&["audit"]).ok();
}

// scope

#[test]
fn a_scope_is_explained_in_words() {
    let home = Home::new();
    let said = home
        .run(&[
            "--json",
            "scope",
            "explain",
            "trade:read_write wallet:none account:read",
        ])
        .json();
    let list = |field: &str| said[field].to_string();
    assert!(list("can").contains("place, change and cancel orders"));
    assert!(list("can").contains("see orders"));
    assert!(list("can").contains("see balances"));
    for word in ["withdraw", "make, change and remove keys", "see deposits"] {
        assert!(list("cannot").contains(word), "{word}: {said}");
        assert!(!list("can").contains(word), "{word}: {said}");
    }
    // Everything that a key could do stands on one side or the other, once.
    let count = |field: &str| said[field].as_array().unwrap().len();
    assert_eq!(count("can") + count("cannot"), 12, "{said}");

    let text = home.run(&["scope", "explain", "@treasury"]).ok().stdout;
    let (can, cannot) = text.split_once("it cannot:").unwrap();
    assert!(can.contains("withdraw") && can.contains("custody accounts"));
    assert!(cannot.contains("place, change and cancel orders"), "{text}");
    for bad in ["trade", "trade:all", "@nobody", "", "trade:read trade:read"] {
        home.run(&["scope", "explain", bad]).fails(2);
    }
    assert!(!home.store().exists(), "words need no keystore");
}

#[test]
fn presets_and_areas_are_listed() {
    let home = Home::new();
    let said = home.run(&["--json", "scope", "list"]).json();
    let presets = said["presets"].as_array().unwrap();
    let named: Vec<&str> = presets
        .iter()
        .map(|preset| preset["preset"].as_str().unwrap())
        .collect();
    assert_eq!(
        named,
        [
            "@read-only",
            "@trader",
            "@market-maker",
            "@risk",
            "@treasury"
        ]
    );
    // The six read scopes of the exchange's own advice.
    let mut read: Vec<&str> = presets[0]["scope"].as_str().unwrap().split(' ').collect();
    read.sort_unstable();
    let areas = [
        "account",
        "block_rfq",
        "block_trade",
        "custody",
        "trade",
        "wallet",
    ];
    assert_eq!(read, areas.map(|area| format!("{area}:read")));
    let mut listed: Vec<&str> = said["areas"]
        .as_array()
        .unwrap()
        .iter()
        .map(|area| area["area"].as_str().unwrap())
        .collect();
    listed.sort_unstable();
    assert_eq!(listed, areas);
    let text = home.run(&["scope", "list"]).ok().stdout;
    for word in named.iter().chain(&areas) {
        assert!(text.contains(word), "{word}");
    }
    // No preset manages keys; only the treasury moves funds.
    for (preset, name) in presets.iter().zip(&named) {
        let scope = preset["scope"].as_str().unwrap();
        assert!(!scope.contains("account:read_write"), "{name}");
        assert_eq!(scope.contains("wallet:read_write"), *name == "@treasury");
    }
}

#[test]
fn more_rights_than_needed_are_warned_about() {
    let home = Home::new();
    for good in [
        "@read-only",
        "@trader",
        "@market-maker",
        "@risk",
        "trade:read_write",
    ] {
        let said = home.run(&["--json", "scope", "lint", good]).json();
        assert_eq!(said["warnings"], json!([]), "{good}");
    }
    let cases: [(&[&str], &[&str]); 5] = [
        (&["wallet:read_write"], &["wallet:read_write"]),
        (&["account:read_write"], &["account:read_write"]),
        (&["@treasury"], &["wallet:read_write", "custody:read_write"]),
        (
            &[
                "account:read trade:read_write wallet:read",
                "--preset",
                "@trader",
            ],
            &["wallet:read is more"],
        ),
        (
            &["trade:read_write", "--preset", "@read-only"],
            &["trade:read_write is more than the preset's trade:read"],
        ),
    ];
    for (args, words) in cases {
        let run = home.run(&join(&[&["--json", "scope", "lint"], args]));
        let said = findings(&run);
        let warnings = said["warnings"].as_array().unwrap();
        assert_eq!(warnings.len(), words.len(), "{args:?}: {said}");
        for (warning, word) in warnings.iter().zip(words) {
            assert!(warning.as_str().unwrap().contains(word), "{args:?}: {said}");
        }
        let text = home.run(&join(&[&["scope", "lint"], args]));
        assert_eq!(text.code, Some(10));
        assert!(text.stdout.contains(words[0]), "{text:#?}");
    }
    // No more than the preset is no warning.
    home.run(&["scope", "lint", "trade:read", "--preset", "@trader"])
        .ok();
    home.run(&["scope", "lint", "trade:read", "--preset", "@nobody"])
        .fails(2);
    home.run(&["scope", "lint", "trade:none:read"]).fails(2);
}
