//! What others do in the meantime, and what lies damaged beside what is asked for: the key that was
//! meant is the one that is changed, and one that is leaked is disabled whatever else is wrong.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::DirBuilderExt},
    path::Path,
    process::Child,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    bad_input::chmod,
    kills::can_trace,
    manage::{Bench, SCOPE},
    meddler::{Call, Meddler},
    rotation::hook,
    store_files::under,
    support::{Home, Run, join},
};

const PLAIN: [&str; 2] = ["--no-passphrase", "--insecure"];

/// The asymmetric keys of the account: client id, and whether it is enabled.
fn account(bench: &Bench) -> Vec<(String, bool)> {
    let keys = bench.admin().call("private/list_api_keys", &json!({}));
    let ours = keys.as_array().unwrap().iter();
    ours.filter(|key| key["public_key"].is_string())
        .map(|key| {
            let id = key["client_id"].as_str().unwrap().to_owned();
            (id, key["enabled"].as_bool().unwrap())
        })
        .collect()
}

#[track_caller]
fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap()
}

/// A rotation whose hook is running, which it does for two seconds.
fn at_the_hook(bench: &Bench, more: &[&str]) -> Child {
    let script = hook(&bench.home, "hook", "touch \"$HOME/told\"; sleep 2");
    let rotate = ["--json", "rotate", "one", "--deploy-hook", &script];
    let args = join(&[&rotate, more, &PLAIN, &bench.server.admin()]);
    let rotation = bench.home.command(&args).spawn().unwrap();
    let begun = Instant::now();
    while !bench.home.path("told").exists() {
        assert!(begun.elapsed() < Duration::from_secs(30));
        thread::sleep(Duration::from_millis(20));
    }
    rotation
}

/// A rotation holds the key while its hook runs; whoever names the old one by its id means that.
#[test]
fn an_id_means_the_key_that_it_meant_when_it_was_typed() {
    for by_client in [true, false] {
        let bench = Bench::new();
        let old = bench.trader("one");
        let client_id = text(&old, "client_id");
        let id = if by_client {
            format!("client:{client_id}")
        } else {
            format!("id:{}", old["key_id"])
        };
        let rotation = at_the_hook(&bench, &["--grace", "24h"]);
        let said = bench.run(&["disable", &id]).json();
        assert_eq!(said["client_id"], client_id, "{said}");
        let rotated = Run::of(rotation.wait_with_output().unwrap()).json();
        let new = text(&rotated, "client_id");
        for (key, enabled) in account(&bench) {
            assert_eq!(enabled, key == new, "{key}");
        }
    }
}

#[test]
fn no_old_key_goes_whose_successor_is_disabled_while_the_hook_runs() {
    let bench = Bench::new();
    let old = bench.trader("one");
    let rotation = at_the_hook(&bench, &[]);
    let keys = bench.admin().call("private/list_api_keys", &json!({}));
    let mut keys = keys.as_array().unwrap().iter();
    let new = keys.rfind(|key| key["public_key"].is_string()).unwrap();
    assert_ne!(new["client_id"], old["client_id"]);
    let id = json!({"id": new["id"]});
    bench.admin().call("private/disable_api_key", &id);
    let run = Run::of(rotation.wait_with_output().unwrap());
    assert_ne!(run.code, Some(0), "{run:#?}");
    assert_eq!(bench.remote(&old["client_id"])["enabled"], true, "{run:#?}");
}

#[test]
fn resume_does_not_enable_what_was_disabled_from_elsewhere() {
    let bench = Bench::with_faults(&["edit_api_key:500:1"]);
    let provision = ["provision", "one", "--scope", SCOPE, "--ip", "127.0.0.1"];
    let run = bench.run(&join(&[&provision, &PLAIN]));
    assert!(matches!(run.code, Some(5 | 9)), "{run:#?}");
    let keys = account(&bench);
    let [(client_id, true)] = keys.as_slice() else {
        panic!("{keys:?}");
    };
    let by_id = format!("client:{client_id}");
    let elsewhere = Home::new();
    let disable = ["--json", "disable", &by_id];
    elsewhere
        .run(&join(&[&disable, &bench.server.admin()]))
        .json();
    let resumed = bench.run(&["resume"]);
    let message = resumed.error(resumed.code.unwrap())["message"].clone();
    assert!(message.as_str().unwrap().contains("disabled"), "{message}");
    assert_eq!(account(&bench), [(client_id.clone(), false)]);
    // Whoever wants it to work says so.
    let enable = ["--json", "enable", &by_id];
    elsewhere
        .run(&join(&[&enable, &bench.server.admin()]))
        .json();
    bench.run(&["resume"]).json();
    assert_eq!(account(&bench), [(client_id.clone(), true)]);
}

/// A creation whose answer is lost.
fn in_doubt() -> Bench {
    let bench = Bench::with_faults(&["create_api_key:drop-after", "list_api_keys:500:1"]);
    let provision = ["provision", "one", "--scope", SCOPE, "--timeout", "2"];
    bench.run(&join(&[&provision, &PLAIN])).error(9);
    assert_eq!(account(&bench).len(), 1);
    bench
}

#[test]
fn a_key_that_may_be_there_is_disabled_by_panic_or_taken_back() {
    let bench = in_doubt();
    let error = bench.run(&["disable", "one"]).error(8);
    let hint = text(&error, "hint");
    for way in ["derikey resume one --abandon", "derikey panic --match one"] {
        assert!(hint.contains(way), "{error}");
    }
    bench.run(&["panic", "--match", "one", "--yes"]).json();
    let keys = account(&bench);
    assert!(keys.len() == 1 && !keys[0].1, "{keys:?}");
}

#[test]
fn what_cannot_be_looked_for_is_not_given_up() {
    let bench = in_doubt();
    let public = bench.home.store().join("keys/one/1/public.pem");
    // As a backup is restored.
    chmod(&public, 0o644);
    let abandon = ["resume", "one", "--abandon", "--yes"];
    bench.run(&abandon).error(7);
    let status = bench.home.run(&["--json", "status"]).json();
    assert_eq!(status["pending"][0]["name"], "one", "{status}");
    chmod(&public, 0o600);
    assert_eq!(bench.run(&abandon).json()["abandoned"], true);
    assert_eq!(account(&bench), []);
}

/// Once the exchange has named it, its public half need not be read to find it.
#[test]
fn what_has_an_id_is_given_up_though_its_public_half_cannot_be_read() {
    let bench = Bench::with_faults(&["auth:500:2"]);
    let provision = ["provision", "one", "--scope", SCOPE, "--timeout", "2"];
    bench.run(&join(&[&provision, &PLAIN])).error(9);
    chmod(&bench.home.store().join("keys/one/1/public.pem"), 0o644);
    let abandon = ["resume", "one", "--abandon", "--yes"];
    assert_eq!(bench.run(&abandon).json()["abandoned"], true);
    assert_eq!(account(&bench), []);
}

#[test]
fn a_key_that_somebody_took_out_of_the_keystore_is_found_at_the_exchange() {
    let bench = in_doubt();
    let keys = bench.home.store().join("keys");
    fs::rename(keys.join("one"), bench.home.path("moved")).unwrap();
    // It is not made a second time.
    let error = bench.run(&["resume", "one"]).error(7);
    assert!(text(&error, "hint").contains("--abandon"), "{error}");
    assert_eq!(account(&bench).len(), 1);
    let abandon = ["resume", "one", "--abandon", "--yes"];
    assert_eq!(bench.run(&abandon).json()["abandoned"], true);
    assert_eq!(account(&bench), []);
}

#[test]
fn a_successor_that_somebody_took_out_of_the_keystore_is_not_made_again() {
    let bench = Bench::with_faults(&["create_api_key:drop-after:2", "list_api_keys:500:2"]);
    bench.trader("one");
    let rotate = ["rotate", "one", "--timeout", "2"];
    bench.run(&join(&[&rotate, &PLAIN])).error(9);
    let second = bench.home.store().join("keys/one/2");
    fs::rename(second, bench.home.path("moved")).unwrap();
    let resume = join(&[&["resume", "one"], &PLAIN]);
    let run = bench.run(&resume[..2]);
    assert_eq!(run.code, Some(7), "{run:#?}");
    assert_eq!(account(&bench).len(), 2);
    let abandon = ["resume", "one", "--abandon", "--yes"];
    assert_eq!(bench.run(&abandon).json()["abandoned"], true);
    assert_eq!(account(&bench).len(), 1);
}

#[test]
fn panic_reports_what_it_did_though_the_log_cannot_be_written() {
    for (fault, reached) in [("disable_api_key:500", false), ("remove_api_key:500", true)] {
        let bench = Bench::with_faults(&[fault]);
        let key = bench.trader("one");
        chmod(&bench.home.store().join("audit.jsonl"), 0o640);
        let run = bench.run(&["panic", "--yes", "--timeout", "2"]);
        let report: Value = serde_json::from_str(&run.stdout).unwrap();
        let list = if reached { "disabled" } else { "not_reached" };
        assert_eq!(report[list][0]["client_id"], key["client_id"], "{run:#?}");
        assert!(!matches!(run.code, None | Some(0)), "{run:#?}");
        let named = run.stderr.contains("audit.jsonl");
        assert!(named, "{run:#?}");
    }
}

#[test]
fn a_key_is_disabled_though_nothing_can_be_written_down() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 2] = [
        ("the log is open to others", |store| {
            chmod(&store.join("audit.jsonl"), 0o640);
        }),
        ("something cannot be tidied", |store| {
            let mut dir = fs::DirBuilder::new();
            dir.mode(0o700)
                .create(store.join("keys/one/1/.x.new"))
                .unwrap();
        }),
    ];
    for (what, harm) in harms {
        for by_id in [false, true] {
            let bench = Bench::new();
            let key = bench.trader("one");
            let client_id = text(&key, "client_id");
            harm(&bench.home.store());
            let target = if by_id {
                format!("client:{client_id}")
            } else {
                "one".into()
            };
            let run = bench.run(&["disable", &target]);
            assert_eq!(
                account(&bench),
                [(client_id.to_owned(), false)],
                "{what}: {run:#?}"
            );
            if run.code != Some(0) {
                let error = run.error(run.code.unwrap());
                let message = text(&error, "message");
                assert!(
                    message.contains("done at the exchange"),
                    "{what}: {message}"
                );
            }
            // Nothing but disabling goes on like that.
            let enabled = bench.run(&["enable", &target]);
            assert_ne!(enabled.code, Some(0), "{what}: {enabled:#?}");
        }
    }
}

#[test]
fn a_key_is_disabled_though_the_disk_takes_nothing() {
    if !can_trace() {
        return;
    }
    let bench = Bench::new();
    let key = bench.trader("one");
    let refusing = [
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=fsync,fdatasync",
        "-e",
        "inject=fsync,fdatasync:error=ENOSPC",
    ];
    let disable = join(&[&["--json", "disable", "one"], &bench.server.admin()]);
    let mut command = under(&refusing, &bench.home.command(&disable));
    let run = Run::of(command.output().unwrap());
    let client_id = text(&key, "client_id").to_owned();
    assert_eq!(account(&bench), [(client_id, false)], "{run:#?}");
    let error = run.error(1);
    let message = text(&error, "message");
    assert!(message.contains("done at the exchange"), "{message}");
}

#[test]
fn one_odd_key_of_the_account_keeps_no_other_enabled() {
    let odd: [(&str, Value); 4] = [
        ("timestamp", Value::Null),
        ("id", Value::Null),
        ("client_id", json!("a.b")),
        ("enabled", json!("true")),
    ];
    for (field, value) in odd {
        let mut bench = Bench::new();
        let meddler = Meddler::before(&mut bench.server);
        let one = bench.trader("one");
        let two = bench.trader("two");
        let what = format!("{field} {value}");
        let foreign = move |call: &mut Call| {
            call.retell(|keys| {
                let mut key = json!({"id": 99, "client_id": "other", "name": "foreign",
                    "max_scope": "", "enabled": true, "timestamp": 1});
                key[field] = value.clone();
                keys.as_array_mut().unwrap().push(key);
            })
        };
        meddler.strike("private/list_api_keys", Arc::new(foreign));
        let said = bench.run(&["disable", "one", "-v"]);
        assert_eq!(said.json()["changed"], true, "{what}");
        assert!(said.stderr.contains("1 of the account's keys"), "{said:#?}");
        let run = bench.run(&["panic", "--yes"]);
        let report: Value = serde_json::from_str(&run.stdout).unwrap();
        let error = run.error(5);
        assert!(text(&error, "message").contains("1 of the account's keys"));
        assert_eq!(report["disabled"][0]["client_id"], two["client_id"]);
        assert_eq!(report["already"][0]["client_id"], one["client_id"]);
        assert_eq!(report["verified"], false, "{what}");
        // What makes something looks at all of them: one of these may be what it made.
        bench.run(&join(&[&["rotate", "two"], &PLAIN])).error(5);
        meddler.calm();
        let said = bench.run(&["disable", "one", "-v"]);
        assert!(!said.stderr.contains("of the account's keys"), "{said:#?}");
    }
}

#[test]
fn an_address_is_the_same_however_it_is_spelled() {
    let bench = Bench::new();
    let long = ["--ip", "2001:DB8:0:0:0:0:0:1", "--unchecked-ip"];
    let made = bench.provision("one", &join(&[&["--scope", SCOPE], &long]));
    assert_eq!(made["ip_whitelist"], json!(["2001:db8::1"]), "{made}");
    let edit = ["edit", "one", "--yes", "--unchecked-ip"];
    let add = ["--add-ip", "127.0.0.1", "--add-ip", "2001:db8::0:1"];
    let edited = bench.run(&join(&[&edit, &add])).json();
    let both = json!(["127.0.0.1", "2001:db8::1"]);
    assert_eq!(edited["ip_whitelist"], both, "{edited}");
    let remove = ["--remove-ip", "2001:DB8::1"];
    let edited = bench.run(&join(&[&edit, &remove])).json();
    assert_eq!(edited["ip_whitelist"], json!(["127.0.0.1"]), "{edited}");
}

#[test]
fn a_feature_that_is_typed_twice_is_one() {
    let bench = Bench::new();
    let feature = ["--feature", "restricted_block_trades"];
    let made = bench.provision("one", &join(&[&["--scope", SCOPE], &feature, &feature]));
    let one = json!(["restricted_block_trades"]);
    assert_eq!(made["enabled_features"], one, "{made}");
}

#[test]
fn a_superseded_generation_that_is_damaged_stops_nothing() {
    let damages: [fn(&Path) -> io::Result<()>; 2] = [
        |record| fs::write(record, ""),
        |record| fs::remove_file(record),
    ];
    for damage in damages {
        let bench = Bench::new();
        bench.trader("one");
        let rotate = join(&[&["rotate", "one", "-v"], &PLAIN]);
        bench.run(&rotate).json();
        let keys = bench.home.store().join("keys/one");
        damage(&keys.join("1/key.toml")).unwrap();
        let run = bench.run(&rotate);
        assert_eq!(run.json()["generation"], 3, "{run:#?}");
        assert!(
            run.stderr.contains("generation 1 cannot be read"),
            "{run:#?}"
        );
        let back = bench.run(&["rollback", "one"]).json();
        assert_eq!(back["generation"], 2, "{back}");
        let status = bench.home.run(&["--json", "status"]).json();
        assert_eq!(status["pending"], json!([]), "{status}");
        bench.run(&["remove", "one", "--yes"]).json();
        assert!(!keys.exists());
    }
}

#[test]
fn a_home_whose_name_is_no_text_is_refused() {
    let home = Home::new();
    let mut odd = home.path("").into_os_string();
    odd.push(OsStr::from_bytes(b"/odd\xff"));
    let mut command = home.command(&["--json", "--network", "sandbox"]);
    let provision = ["provision", "one", "--scope", SCOPE];
    command.args(provision).env("DERIKEY_HOME", &odd);
    command.env_remove("HOME");
    let run = Run::of(command.arg("--home").arg(&odd).output().unwrap());
    let error = run.error(2);
    assert!(text(&error, "message").contains("not UTF-8"), "{error}");
    assert!(!Path::new(&odd).exists());
}

#[test]
fn a_pattern_that_fits_no_line_of_the_log_is_refused() {
    let home = Home::new();
    let pattern = "a".repeat(20_000);
    let panic = ["panic", "--match", &pattern, "--yes"];
    let sandbox = ["--json", "--network", "sandbox"];
    home.run(&join(&[&sandbox, &panic])).error(2);
}

#[test]
fn a_whitelist_larger_than_a_journal_keeps_no_key_from_being_switched() {
    let mut bench = Bench::new();
    let meddler = Meddler::before(&mut bench.server);
    bench.trader("one");
    let odd = vec!["not an address at all"; 16_000];
    let swollen = move |call: &mut Call| {
        call.retell(|keys| {
            for key in keys.as_array_mut().unwrap() {
                key["ip_whitelist"] = json!(odd);
            }
        })
    };
    meddler.strike("private/list_api_keys", Arc::new(swollen));
    for (command, state) in [("disable", "disabled"), ("enable", "active")] {
        let done = bench.run(&[command, "one", "--yes"]);
        assert_eq!(done.json()["state"], state, "{command}: {done:#?}");
        // Done beside the journal it would say so.
        assert!(
            done.json().get("meanwhile").is_none(),
            "{command}: {done:#?}"
        );
    }
    let gone = bench.run(&["remove", "one", "--yes"]).json();
    assert_eq!(gone["removed"], true, "{gone}");
}

#[test]
fn a_key_whose_label_the_exchange_has_emptied_is_rotated_under_its_name() {
    let bench = Bench::new();
    let key = bench.trader("one");
    let all_but_the_name = json!({
        "id": key["key_id"], "max_scope": SCOPE, "enabled": true,
        "enabled_features": [], "ip_whitelist": [],
    });
    bench
        .admin()
        .call("private/edit_api_key", &all_but_the_name);
    bench.run(&["edit", "one", "--ip", "127.0.0.1"]).json();
    let shown = bench.home.run(&["--json", "show", "one"]).json();
    assert_eq!(shown["label"], "", "{shown}");
    let rotated = bench.run(&join(&[&["rotate", "one", "-v"], &PLAIN]));
    assert!(
        rotated.stderr.contains("with the label \"\""),
        "{rotated:#?}"
    );
    assert_eq!(rotated.json()["label"], "one", "{rotated:#?}");
}
