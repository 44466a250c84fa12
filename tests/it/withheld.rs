//! Answers that show less of a key than they could, or name it otherwise: what shows itself to be
//! another's is let be, what is ours is recognised by what is left.

use std::{
    fs,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};

use super::{
    manage::{Bench, SCOPE},
    meddler::{Call, Meddler},
    support::{Run, join},
};

const PRINT: &str = "0f:0f:0f:0f:0f:0f:0f:0f:0f:0f:0f:0f:0f:0f:0f:0e";

fn provision(bench: &Bench) -> Run {
    let flags = ["--scope", SCOPE, "--no-passphrase", "--insecure", "-v"];
    bench.run(&join(&[&["provision", "one"], &flags]))
}

fn forget(key: &mut Value, field: &str) {
    key.as_object_mut().unwrap().remove(field);
}

/// The answer to the first creation is lost, and it was not carried out: whether it was is for the
/// account to show.
#[test]
fn only_a_key_of_the_same_label_that_shows_nothing_else_may_be_ours() {
    for (name, credential, undecided) in [
        ("two", None, false),
        ("one", Some(PRINT), false),
        ("one", None, true),
    ] {
        let mut bench = Bench::new();
        let meddler = Meddler::before(&mut bench.server);
        let lost = |call: &mut Call| match call.nth {
            0 => Ok(ControlFlow::Break(())),
            _ => call.retell(|_| ()),
        };
        meddler.strike("private/create_api_key", Arc::new(lost));
        let other = move |call: &mut Call| {
            call.retell(|keys| {
                let mut key = json!({
                    "id": 99, "client_id": "another", "name": name, "enabled": true,
                    "max_scope": "account:read", "client_secret": credential,
                });
                if credential.is_none() {
                    forget(&mut key, "client_secret");
                }
                keys.as_array_mut().unwrap().push(key);
            })
        };
        meddler.strike("private/list_api_keys", Arc::new(other));
        let what = format!("{name} {credential:?}");
        provision(&bench).error(9);
        let resumed = bench.run(&["resume"]);
        if undecided {
            let error = resumed.error(11);
            assert!(error["message"].as_str().unwrap().contains("\"one\""));
        } else {
            let done = resumed.json();
            assert_eq!(done["resumed"][0]["name"], "one", "{what}: {done}");
        }
    }
}

#[test]
fn a_key_that_shows_our_fingerprint_alone_is_ours() {
    let mut bench = Bench::new();
    let meddler = Meddler::before(&mut bench.server);
    let hides = |call: &mut Call| call.retell(|key| forget(key, "public_key"));
    meddler.strike("private/create_api_key", Arc::new(hides));
    let run = provision(&bench);
    assert_eq!(run.json()["fingerprint_verified"], true, "{run:#?}");
    let proof = format!("a signed login, which was granted {SCOPE}");
    assert!(run.stderr.contains(&proof), "{run:#?}");
}

/// As where the administrator is one of another account, in which the number is somebody else's.
#[test]
fn an_id_that_is_another_keys_is_not_removed() {
    let mut bench = Bench::new();
    let meddler = Meddler::before(&mut bench.server);
    let key = bench.trader("one");
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let lost = move |_: &mut Call| {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(ControlFlow::Break(()))
    };
    meddler.strike("private/remove_api_key", Arc::new(lost));
    let id = key["key_id"].clone();
    let other = move |call: &mut Call| {
        call.retell(|keys| {
            for key in keys.as_array_mut().unwrap() {
                if key["id"] == id {
                    key["client_id"] = json!("another");
                }
            }
        })
    };
    bench.run(&["remove", "one", "--yes"]).error(9);
    let before = asked.load(Ordering::Relaxed);
    assert_ne!(before, 0);
    meddler.strike("private/list_api_keys", Arc::new(other));
    let error = bench.run(&["resume", "one"]).error(11);
    let hint = error["hint"].as_str().unwrap();
    assert!(hint.contains("nothing was changed"), "{error}");
    assert_eq!(asked.load(Ordering::Relaxed), before);
}

/// Whoever took the directory away has left nothing to strike out.
#[test]
fn an_operation_whose_key_is_gone_from_the_keystore_can_be_given_up() {
    for registered_before in [false, true] {
        let bench = Bench::with_faults(&["create_api_key:rate-limit"]);
        if registered_before {
            let generate = ["generate", "one", "--no-passphrase", "--insecure"];
            bench.home.run(&generate).ok();
            let register = ["register", "one", "--scope", SCOPE, "--timeout", "1"];
            assert_ne!(bench.run(&register).code, Some(0));
        } else {
            assert_ne!(provision(&bench).code, Some(0));
        }
        fs::remove_dir_all(bench.home.store().join("keys/one")).unwrap();
        let given_up = bench.run(&["resume", "one", "--abandon", "--yes"]).json();
        assert_eq!(given_up["abandoned"], true, "{given_up}");
        let left = bench.home.run(&["--json", "status"]).json();
        assert_eq!(left["pending"], json!([]), "{left}");
    }
}
