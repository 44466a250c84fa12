//! What is done is not undone by what comes after it: a resume, a second try, an edit of something
//! else, a disk that is full at the very end.

use std::{
    fs,
    process::Stdio,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use serde_json::{Value, json};

use super::{
    kills::can_trace,
    manage::{Bench, SCOPE},
    meddler::{Call, Meddler},
    rotation::hook,
    store_files::under,
    support::{Home, PLAIN, Run, join},
};

/// Runs a command with system calls failing as strace says.
pub(crate) fn failing(bench: &Bench, inject: &str, args: &[&str]) -> Run {
    let inject = format!("inject={inject}");
    let calls = inject[7..].split(':').next().unwrap();
    let trace = format!("trace={calls}");
    let strace = [
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        &trace,
        "-e",
        &inject,
    ];
    let args = join(&[&["--json"], args]);
    Run::of(under(&strace, &bench.home.command(&args)).output().unwrap())
}

pub(crate) fn message(run: &Run, code: i32) -> String {
    run.error(code)["message"].as_str().unwrap().to_owned()
}

#[test]
fn a_resumed_rotation_writes_no_key_in_clear_at_one_word() {
    if !can_trace() {
        return;
    }
    let bench = Bench::new();
    bench.trader("one");
    // The journal has it, and the new key finds no place.
    let stopped = failing(
        &bench,
        "renameat2:signal=KILL:when=1",
        &join(&[&["rotate", "one"], &PLAIN, &bench.server.admin()]),
    );
    assert_ne!(stopped.code, Some(0), "{stopped:#?}");
    assert_eq!(bench.pending().as_array().unwrap().len(), 1, "{stopped:#?}");
    let resumed = bench.run(&["resume", "one", "--no-passphrase"]);
    assert!(message(&resumed, 2).contains("--insecure"), "{resumed:#?}");
    assert!(!bench.home.store().join("keys/one/2").exists());
    bench.run(&join(&[&["resume", "one"], &PLAIN])).json();
    assert!(bench.home.store().join("keys/one/2/private.pem").exists());
}

/// An edit resets what it leaves out, and the list need not show all there is.
#[test]
fn what_the_list_does_not_show_outlasts_an_edit_and_a_rotation() {
    let mut bench = Bench::new();
    let meddler = Meddler::before(&mut bench.server);
    let feature = ["--feature", "restricted_block_trades"];
    let ip = ["--ip", "127.0.0.1"];
    bench.provision("one", &join(&[&["--scope", SCOPE], &ip, &feature]));
    let hides = |call: &mut Call| {
        call.retell(|keys| {
            for key in keys.as_array_mut().unwrap() {
                let key = key.as_object_mut().unwrap();
                key.remove("ip_whitelist");
                key.remove("enabled_features");
            }
        })
    };
    meddler.strike("private/list_api_keys", Arc::new(hides));
    let sent = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&sent);
    let listens = move |call: &mut Call| {
        told.lock().unwrap().push(call.body["params"].clone());
        call.retell(|_| {})
    };
    meddler.strike("private/edit_api_key", Arc::new(listens));
    bench.run(&["edit", "one", "--label", "other"]).json();
    bench.run(&join(&[&["rotate", "one"], &PLAIN])).json();
    let sent: Vec<Value> = sent.lock().unwrap().clone();
    assert_eq!(sent.len(), 2, "{sent:?}");
    for edit in sent {
        assert_eq!(edit["ip_whitelist"], json!(["127.0.0.1"]), "{edit}");
        assert_eq!(
            edit["enabled_features"],
            json!(["restricted_block_trades"]),
            "{edit}"
        );
    }
}

/// `internal_server_error` and `timed_out` do not say that nothing was done.
#[test]
fn a_key_that_was_made_before_the_exchange_broke_off_is_found_and_not_made_again() {
    for code in [11094, 13888] {
        let mut bench = Bench::new();
        let meddler = Meddler::before(&mut bench.server);
        let breaks_off = move |call: &mut Call| {
            call.carry_out()?;
            call.refuse(code)
        };
        meddler.strike("private/create_api_key", Arc::new(breaks_off));
        bench.trader("one");
        let keys = bench.admin().keys();
        let ours = keys.iter().filter(|key| key["public_key"].is_string());
        assert_eq!(ours.count(), 1, "{code}: {keys:?}");
        assert_eq!(meddler.struck(), 1, "{code}");
    }
}

#[test]
fn wherever_a_rotation_is_killed_there_is_a_way_back_in_its_grace() {
    if !can_trace() {
        return;
    }
    let mut switched = 0;
    for nth in 1.. {
        let bench = Bench::new();
        bench.trader("one");
        let kill = format!("rename:signal=KILL:when={nth}");
        let run = failing(
            &bench,
            &kill,
            &join(&[
                &["rotate", "one", "--grace", "24h"],
                &PLAIN,
                &bench.server.admin(),
            ]),
        );
        bench.run(&join(&[&["resume"], &PLAIN])).json();
        let link = fs::read_link(bench.home.store().join("keys/one/current")).unwrap();
        // The first is that of the journal: what is not in there was never begun.
        if nth == 1 && link.to_str() == Some("1") {
            continue;
        }
        assert_eq!(link.to_str(), Some("2"), "{nth}: {run:#?}");
        let back = bench.run(&join(&[&["rollback", "one"], &PLAIN]));
        assert_eq!(back.json()["generation"], 1, "{nth}: {back:#?}");
        switched += 1;
        if run.code == Some(0) {
            break;
        }
    }
    assert!(switched > 5, "only {switched} points");
}

#[test]
fn a_key_that_was_disabled_gets_no_successor_that_is_not() {
    let bench = Bench::new();
    bench.trader("one");
    bench.trader("two");
    bench.run(&["disable", "one"]).json();
    let rotated = bench.run(&join(&[&["rotate", "--all"], &PLAIN])).json();
    let names: Vec<&Value> = rotated["rotated"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| &key["name"])
        .collect();
    assert_eq!(names, ["two"], "{rotated}");
    let refused = bench.run(&join(&[&["rotate", "one", "--no-input"], &PLAIN]));
    assert!(
        message(&refused, 8).contains("one is disabled"),
        "{refused:#?}"
    );
    assert!(!bench.home.store().join("keys/one/2").exists());
    bench
        .run(&join(&[&["rotate", "one", "--yes"], &PLAIN]))
        .json();
}

#[test]
fn what_is_done_and_not_written_down_is_said_to_be_done() {
    if !can_trace() {
        return;
    }
    let bench = Bench::new();
    let full = "fdatasync:error=ENOSPC";
    let made = failing(
        &bench,
        full,
        &join(&[
            &["provision", "one", "--scope", SCOPE],
            &PLAIN,
            &bench.server.admin(),
        ]),
    );
    let said = message(&made, 1);
    assert!(said.contains("it is done"), "{said}");
    assert_eq!(bench.show("one")["state"], "active");
    let made = failing(&bench, full, &join(&[&["generate", "two"], &PLAIN]));
    assert!(message(&made, 1).contains("it is done"), "{made:#?}");
    assert_eq!(bench.show("two")["name"], "two");
    // An export is written down first, and then not made.
    let out = bench.home.path("out.pem");
    let export = [
        "export",
        "two",
        "--no-passphrase",
        "--insecure",
        "--out",
        out.to_str().unwrap(),
    ];
    let stopped = failing(&bench, full, &export);
    assert!(!message(&stopped, 1).contains("it is done"), "{stopped:#?}");
    assert!(!out.exists());
}

#[test]
fn a_key_that_could_not_be_disabled_by_its_id_is_in_the_log() {
    let mut bench = Bench::new();
    let meddler = Meddler::before(&mut bench.server);
    let key = bench.trader("one");
    meddler.strike(
        "private/disable_api_key",
        Arc::new(|call: &mut Call| call.refuse(13021)),
    );
    let target = format!("id:{}", key["key_id"]);
    bench.run(&["disable", &target]).error(4);
    let log = bench.home.run(&["--json", "audit"]).json();
    let last = log["entries"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["action"], "disable", "{last}");
    assert_ne!(last["outcome"], "done", "{last}");
}

#[test]
fn a_key_whose_record_is_damaged_is_not_put_away_without_a_question() {
    let home = Home::new();
    home.run(&join(&[&["generate", "one"], &PLAIN])).ok();
    let record = home.store().join("keys/one/1/key.toml");
    fs::write(record, "version = 1\nstate = ").unwrap();
    let refused = home.run(&["--json", "delete", "one"]);
    assert!(
        message(&refused, 8).contains("may be registered"),
        "{refused:#?}"
    );
    assert!(home.store().join("keys/one").exists());
    home.run(&["--json", "--yes", "delete", "one"]).ok();
}

#[test]
fn rights_that_are_not_understood_are_not_sent_back_as_others() {
    let mut bench = Bench::new();
    let meddler = Meddler::before(&mut bench.server);
    bench.trader("one");
    let new_level = |call: &mut Call| {
        call.retell(|keys| {
            for key in keys.as_array_mut().unwrap() {
                key["max_scope"] = json!("trade:read wallet:admin");
            }
        })
    };
    meddler.strike("private/list_api_keys", Arc::new(new_level));
    for args in [
        &["edit", "one", "--label", "other", "--yes"][..],
        &["rotate", "one", "--yes", PLAIN[0], PLAIN[1]],
    ] {
        let refused = bench.run(args);
        assert!(
            message(&refused, 8).contains("the scope of one"),
            "{refused:#?}"
        );
    }
}

#[test]
fn a_name_that_is_no_text_is_refused_before_a_key_is_exported() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let home = Home::new();
    home.run(&join(&[&["generate", "one"], &PLAIN])).ok();
    let out = home.path("").join(OsStr::from_bytes(b"\xff.pem"));
    let mut export = home.command(&join(&[&["--json", "export", "one"], &PLAIN, &["--out"]]));
    let run = Run::of(export.arg(&out).output().unwrap());
    assert!(message(&run, 2).contains("not UTF-8"), "{run:#?}");
    assert!(!out.exists());
}

/// What a program is told of a network means the same to a derikey that it runs.
#[test]
fn a_hook_can_use_the_key_that_it_is_told_of() {
    let bench = Bench::new();
    bench.trader("one");
    let program = env!("CARGO_BIN_EXE_derikey");
    let home = bench.home.store();
    let text = format!(
        "#!/bin/sh\ntest \"$DERIKEY_NETWORK\" = custom && exec '{program}' --home '{}' --json show one\n",
        home.display()
    );
    let tells = hook(&bench.home, "tells", &text);
    bench
        .run(&join(&[
            &["rotate", "one", "--deploy-hook", &tells],
            &PLAIN,
        ]))
        .json();
    let text = format!(
        "#!/bin/sh\nexec '{program}' --home '{}' --json token one >/dev/null\n",
        home.display()
    );
    let uses = hook(&bench.home, "uses", &text);
    // The one in use still is the old one while the hook runs.
    bench
        .run(&join(&[&["rotate", "one", "--deploy-hook", &uses], &PLAIN]))
        .json();
}

#[test]
fn an_interrupted_operation_says_so_in_a_line_of_json() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let bench = Bench::with_faults(&["create_api_key:slow:1"]);
        let args = join(&[
            &["--json", "provision", "one", "--scope", SCOPE],
            &PLAIN,
            &bench.server.admin(),
        ]);
        let mut command = bench.home.command(&args);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let journal = bench.home.store().join("journal/one.json");
        while !fs::read_to_string(&journal).is_ok_and(|text| text.contains("creating")) {
            thread::sleep(Duration::from_millis(20));
        }
        thread::sleep(Duration::from_millis(100));
        kill_process(Pid::from_child(&child), signal).unwrap();
        let run = Run::of(child.wait_with_output().unwrap());
        let error = run.error(code);
        assert_eq!(error["kind"], "interrupted", "{run:#?}");
        assert!(
            error["hint"].as_str().unwrap().contains("resume"),
            "{run:#?}"
        );
        bench.run(&["resume"]).json();
    }
}

#[test]
fn panic_goes_by_names_too_and_says_so_when_nothing_matches() {
    let bench = Bench::new();
    let key = bench.provision("one", &["--scope", SCOPE, "--label", "other"]);
    let nothing = bench.run(&["panic", "--match", "two*", "--yes"]);
    assert_eq!(nothing.code, Some(10), "{nothing:#?}");
    assert!(
        nothing.stderr.contains("no key of the account matches"),
        "{nothing:#?}"
    );
    let run = bench.run(&["panic", "--match", "one*", "--yes"]).json();
    assert_eq!(run["disabled"][0]["client_id"], key["client_id"], "{run}");
}

#[test]
fn a_grace_is_called_one_and_who_ends_it_is_told_what_becomes_of_the_old_key() {
    let bench = Bench::new();
    bench.trader("one");
    bench
        .run(&join(&[&["rotate", "one", "--grace", "1h"], &PLAIN]))
        .json();
    assert!(bench.pending()[0]["old_key_enabled_until"].is_string());
    let refused = bench.run(&["edit", "one", "--label", "other"]);
    let error = refused.error(8);
    assert!(
        error["message"].as_str().unwrap().contains("grace"),
        "{error}"
    );
    assert!(
        error["hint"].as_str().unwrap().contains("rollback"),
        "{error}"
    );
    let rehearsed = bench.run(&["-n", "resume", "one", "--abandon"]).json();
    let said = rehearsed["steps"].to_string();
    assert!(said.contains("the next rotation, which removes"), "{said}");
    let next = bench.run(&join(&[&["-n", "rotate", "one"], &PLAIN]));
    assert!(message(&next, 8).contains("grace"), "{next:#?}");
    bench.run(&["resume", "one", "--abandon", "--yes"]).json();
    let next = bench.run(&join(&[&["-n", "rotate", "one"], &PLAIN])).json();
    assert!(
        next["steps"].to_string().contains("remove generation 1"),
        "{next}"
    );
}

#[test]
fn a_rehearsal_says_what_the_performance_does() {
    let bench = Bench::new();
    let provision = |name, scope| {
        let args = [
            "-n",
            "provision",
            name,
            "--scope",
            scope,
            PLAIN[0],
            PLAIN[1],
        ];
        bench.run(&args)
    };
    let first = provision("one", "wallet:read_write").json()["steps"].to_string();
    assert!(
        first.contains("would make") && first.contains("want a confirmation"),
        "{first}"
    );
    bench.trader("one");
    let again = provision("one", SCOPE).json()["steps"].to_string();
    assert!(again.contains("would prove one again"), "{again}");
    assert!(message(&provision("one", "account:read"), 8).contains("registered otherwise"));
    bench.home.run(&join(&[&["generate", "two"], &PLAIN])).ok();
    assert!(message(&provision("two", SCOPE), 8).contains("not registered"));
}

#[test]
fn a_code_that_was_refused_is_said_to_be_where_there_is_no_other() {
    let home = Home::new();
    let seed = home.secret_file("seed", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
    let exchange = Home::new();
    let server =
        super::support::Server::start(&exchange, &["--totp-seed-file", seed.to_str().unwrap()]);
    let args = join(&[
        &[
            "--json",
            "provision",
            "one",
            "--scope",
            SCOPE,
            "--totp-command",
            "echo 000000",
        ],
        &PLAIN,
        &server.admin(),
    ]);
    let run = home.run(&args);
    let said = message(&run, 6);
    assert!(said.contains("tfa_code_not_matched"), "{said}");
}

#[test]
fn a_rotation_that_finds_no_room_for_its_key_is_not_under_way() {
    if !can_trace() {
        return;
    }
    let bench = Bench::new();
    bench.trader("one");
    let args = join(&[&["rotate", "one"], &PLAIN, &bench.server.admin()]);
    let stopped = failing(&bench, "renameat2:error=ENOSPC:when=1", &args);
    assert!(!message(&stopped, 1).contains("resume"), "{stopped:#?}");
    assert_eq!(bench.pending(), json!([]));
    assert!(!bench.home.store().join("keys/one/2").exists());
}

#[test]
fn a_umask_that_hides_files_from_their_owner_does_not() {
    let home = Home::new();
    let script = r#"umask 0777; exec "$0" "$@""#;
    let generate = join(&[&["generate", "one"], &PLAIN]);
    let made = Run::of(
        under(&["sh", "-c", script], &home.command(&generate))
            .output()
            .unwrap(),
    );
    assert_eq!(made.code, Some(0), "{made:#?}");
    use std::os::unix::fs::MetadataExt;
    let mode = |path: &str| fs::metadata(home.store().join(path)).unwrap().mode() & 0o7777;
    assert_eq!((mode(""), mode("keys/one/1/private.pem")), (0o700, 0o600));
}

#[test]
fn a_public_half_that_was_exchanged_is_not_shown_as_the_keys() {
    let home = Home::new();
    for name in ["one", "two"] {
        home.run(&join(&[&["generate", name], &PLAIN])).ok();
    }
    let file = |name: &str| home.store().join(format!("keys/{name}/1/public.pem"));
    fs::copy(file("two"), file("one")).unwrap();
    for command in ["public", "fingerprint"] {
        let refused = home.run(&["--json", command, "one"]);
        assert!(message(&refused, 7).contains("key.toml"), "{refused:#?}");
    }
}

#[test]
fn an_export_for_a_program_is_one_object() {
    let home = Home::new();
    home.run(&join(&[&["generate", "one"], &PLAIN])).ok();
    let said = home
        .run(&join(&[&["--json", "export", "one"], &PLAIN]))
        .json();
    let pem = fs::read_to_string(home.store().join("keys/one/1/private.pem")).unwrap();
    assert_eq!(said["private_key"], pem);
}

#[test]
fn a_key_that_is_there_needs_no_network_named() {
    let home = Home::new();
    home.run(&["provision", "one", "--network", "sandbox", "--scope", SCOPE])
        .ok();
    let again = home
        .run(&["--json", "provision", "one", "--scope", SCOPE])
        .json();
    assert_eq!(again["changed"], false);
    let mut other = home.command(&["--json", "auth", "one"]);
    let run = Run::of(other.env("DERIKEY_NETWORK", "custom").output().unwrap());
    assert!(
        message(&run, 8).contains("belongs to the sandbox"),
        "{run:#?}"
    );
}

/// A login that is refused need not be the whitelist's doing.
#[test]
fn no_old_key_goes_before_its_successor_is_known_to_be_enabled() {
    for (method, change) in [
        ("disable_api_key", "disabled"),
        ("remove_api_key", "removed"),
    ] {
        for answer in ["honest", "odd"] {
            let mut bench = Bench::new();
            let meddler = Meddler::before(&mut bench.server);
            let old = bench.provision("one", &["--scope", SCOPE, "--ip", "192.0.2.7"]);
            let admin = Arc::new(bench.admin());
            let meddles = move |call: &mut Call| {
                let id = call.body["params"]["id"].clone();
                let said = call.carry_out()?;
                admin.call(&format!("private/{method}"), &json!({"id": id}));
                let mut said = said;
                if answer == "odd" {
                    said["result"]["enabled"] = json!(false);
                }
                call.answer(&said.to_string())
            };
            meddler.strike("private/edit_api_key", Arc::new(meddles));
            let run = bench.run(&join(&[&["rotate", "one"], &PLAIN]));
            assert_ne!(run.code, Some(0), "{change} {answer}: {run:#?}");
            let left = bench.remote(&old["client_id"]);
            assert_eq!(left["enabled"], true, "{change} {answer}: {run:#?}");
            let link = fs::read_link(bench.home.store().join("keys/one/current")).unwrap();
            assert_eq!(link.to_str(), Some("1"), "{change} {answer}");
        }
    }
}

/// The list need not say whether a key is enabled; that its whitelist is empty says enough.
#[test]
fn a_refused_login_is_not_laid_to_a_whitelist_that_is_gone() {
    let mut bench = Bench::new();
    let meddler = Meddler::before(&mut bench.server);
    let old = bench.provision("one", &["--scope", SCOPE, "--ip", "192.0.2.7"]);
    let (admin, ours) = (Arc::new(bench.admin()), old["client_id"].clone());
    let disables = move |call: &mut Call| {
        let said = call.carry_out()?;
        let id = &call.body["params"]["id"];
        admin.call("private/disable_api_key", &json!({"id": id}));
        call.answer(&said.to_string())
    };
    meddler.strike("private/edit_api_key", Arc::new(disables));
    let opens = move |call: &mut Call| {
        call.retell(|keys| {
            let keys = keys.as_array_mut().unwrap().iter_mut();
            for key in keys.filter(|key| key["client_id"] != ours) {
                key["ip_whitelist"] = json!([]);
                key.as_object_mut().unwrap().remove("enabled");
            }
        })
    };
    meddler.strike("private/list_api_keys", Arc::new(opens));
    let run = bench.run(&join(&[&["rotate", "one"], &PLAIN]));
    assert_ne!(run.code, Some(0), "{run:#?}");
    meddler.calm();
    assert_eq!(bench.remote(&old["client_id"])["enabled"], true);
    let link = fs::read_link(bench.home.store().join("keys/one/current")).unwrap();
    assert_eq!(link.to_str(), Some("1"));
}

#[test]
fn a_code_is_sent_once_whichever_way_it_came() {
    let home = Home::new();
    let seed = home.secret_file("seed", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
    let exchange = Home::new();
    let seed = seed.to_str().unwrap();
    let server = super::support::Server::start(&exchange, &["--totp-seed-file", seed]);
    let program = format!(
        "python3 -c \"import base64,hmac,struct,time; k=base64.b32decode(open('{seed}').read().strip()); \
         d=hmac.new(k,struct.pack('>Q',int(time.time())//30),'sha1').digest(); o=d[-1]&15; \
         print('%06d'%((struct.unpack('>I',d[o:o+4])[0]&0x7fffffff)%1000000))\""
    );
    if !super::support::installed("python3", &["-c", "0"]) {
        return;
    }
    let provision = |name, source: &[&str]| {
        let args = join(&[
            &["--json", "provision", name, "--scope", SCOPE],
            &PLAIN,
            source,
            &server.admin(),
        ]);
        home.run(&args).json();
    };
    // The sandbox takes each code once, and would refuse the second.
    provision("one", &["--totp-seed-file", seed]);
    let steps = || fs::read_to_string(home.store().join("second-factor.json")).unwrap();
    // Of the seed, and of the account that it is the seed of.
    assert!(steps().contains("custom"), "{}", steps());
    provision("two", &["--totp-command", &program]);
    assert!(steps().contains("program"), "{}", steps());
}

#[test]
fn three_codes_are_all_there_are_for_one_call() {
    let mut bench = Bench::new();
    let meddler = Meddler::before(&mut bench.server);
    let codes = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&codes);
    let wants = move |call: &mut Call| {
        let id = call.body["id"].clone();
        if call.body["params"]["authorization_data"].is_string() {
            let mut count = counted.lock().unwrap();
            *count += 1;
            let code = if *count == 3 { 13009 } else { 13668 };
            let error =
                json!({"code": code, "message": "no", "data": {"reason": "tfa_code_not_matched"}});
            return call.answer(&json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string());
        }
        let challenge = json!({
            "security_keys": [{"type": "tfa", "name": "tfa"}], "security_key_authorization_required": true,
            "rp_id": "test.deribit.com", "challenge": format!("{:0>44}", call.nth),
        });
        call.answer(&json!({"jsonrpc": "2.0", "id": id, "result": challenge}).to_string())
    };
    meddler.strike("private/create_api_key", Arc::new(wants));
    let lines: String = (0..9).map(|n| format!("{n}{n}{n}{n}{n}{n}\n")).collect();
    let args = join(&[
        &[
            "--json",
            "provision",
            "one",
            "--scope",
            SCOPE,
            "--totp-fd",
            "0",
        ],
        &PLAIN,
        &bench.server.admin(),
    ]);
    let run = bench.home.run_with_input(&args, lines.as_bytes());
    run.error(6);
    assert_eq!(*codes.lock().unwrap(), 3, "{run:#?}");
}

#[test]
fn the_exchange_itself_is_no_custom_network() {
    let home = Home::new();
    for host in [
        "www.deribit.com",
        "TEST.deribit.com",
        "deribit.com.",
        "deribit.com:8443",
    ] {
        let endpoint = format!("https://{host}/api/v2");
        let args = [
            "--json",
            "--network",
            "custom",
            "--endpoint",
            &endpoint,
            "provision",
            "one",
            "--scope",
            SCOPE,
        ];
        let refused = home.run(&args);
        assert!(
            message(&refused, 2).contains("--network prod or test"),
            "{refused:#?}"
        );
    }
    assert!(!home.store().exists());
}

#[test]
fn a_public_half_that_cannot_be_read_is_not_taken_for_one_that_is_not_shown() {
    for shown in [
        "garbage",
        "",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
    ] {
        let mut bench = Bench::new();
        let meddler = Meddler::before(&mut bench.server);
        let other = move |call: &mut Call| call.retell(|key| key["public_key"] = json!(shown));
        meddler.strike("private/create_api_key", Arc::new(other));
        let provision = ["provision", "one", "--scope", SCOPE];
        let run = bench.run(&join(&[&provision, &PLAIN]));
        assert!(message(&run, 11).contains("cannot be read"), "{run:#?}");
    }
}

/// For a key that is leaked nothing else matters.
#[test]
fn a_key_is_not_taken_for_disabled_because_the_answer_does_not_say() {
    type Lie = fn(&mut Value);
    let silent: Lie = |key| drop(key.as_object_mut().unwrap().remove("enabled"));
    let elsewhere: Lie = |key| key["id"] = json!(99);
    let lies = [
        (silent, false, 11),
        (silent, true, 0),
        (elsewhere, true, 11),
    ];
    for (lie, done, code) in lies {
        let mut bench = Bench::new();
        let meddler = Meddler::before(&mut bench.server);
        let client_id = bench.trader("one")["client_id"].clone();
        let answers = move |call: &mut Call| {
            if done {
                return call.retell(lie);
            }
            let mut key =
                json!({"id": call.body["params"]["id"], "client_id": client_id, "enabled": false});
            lie(&mut key);
            let id = call.body["id"].clone();
            call.answer(&json!({"jsonrpc": "2.0", "id": id, "result": key}).to_string())
        };
        meddler.strike("private/disable_api_key", Arc::new(answers));
        let run = bench.run(&["disable", "one"]);
        assert_eq!(run.code, Some(code), "{done}: {run:#?}");
    }
}

#[test]
fn what_is_echoed_where_words_belong_is_not_shown() {
    let mut bench = Bench::new();
    let meddler = Meddler::before(&mut bench.server);
    bench.trader("one");
    let echo =
        "1582628593469.1MbQ-J_4.CBP-OqOwm_FBdMYj4cRK2dMXyHPfBtXGpzLxhWg31nHu3H_Q60FpE5_vqUBEQG";
    let echoes = move |call: &mut Call| {
        call.retell(|keys| {
            for key in keys.as_array_mut().unwrap() {
                key["name"] = json!(echo);
                key["ip_whitelist"] = json!([echo]);
                key["enabled_features"] = json!([echo]);
            }
        })
    };
    meddler.strike("private/list_api_keys", Arc::new(echoes));
    for args in [
        &["list", "--remote"][..],
        &["doctor"],
        &["-n", "panic"],
        &["-vv", "list", "--remote"],
    ] {
        let run = bench.run(args);
        for part in ["CBP-OqOwm", "FBdMYj4cRK2d", "1nHu3H_Q60F"] {
            assert!(
                !(run.stdout.clone() + &run.stderr).contains(part),
                "{args:?}: {run:#?}"
            );
        }
    }
    let odd = |call: &mut Call| {
        let id = call.body["id"].clone();
        let error = json!({"code": 432_973, "message": "no", "data": {"wait": 932_592}});
        call.answer(&json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string())
    };
    meddler.strike("private/list_api_keys", Arc::new(odd));
    let run = bench.run(&["list", "--remote"]);
    assert!(
        !run.stderr.contains("432973") && !run.stderr.contains("932592"),
        "{run:#?}"
    );
}

#[test]
fn an_administrators_own_whitelist_is_not_drawn_tighter_without_a_word() {
    let bench = Bench::new();
    let rights = [
        "--scope",
        "account:read_write trade:read",
        "--ip",
        "127.0.0.1",
    ];
    bench.provision("boss", &rights);
    let as_boss = |more: &[&str]| {
        let args = ["--json", "--yes", "edit", "boss", "--admin", "boss"];
        bench.home.run(&join(&[&args, more]))
    };
    let refused = as_boss(&["--ip", "192.0.2.7"]);
    assert!(
        message(&refused, 8).contains("lock you out"),
        "{refused:#?}"
    );
    as_boss(&["--add-ip", "192.0.2.7"]).json();
    as_boss(&["--remove-ip", "192.0.2.7", "--i-will-lock-myself-out"]).json();
}

#[test]
fn a_link_at_the_end_of_the_home_is_refused_with_a_slash_behind_it_too() {
    let home = Home::new();
    home.run(&join(&[&["generate", "one"], &PLAIN])).ok();
    let link = home.path("link");
    std::os::unix::fs::symlink(home.store(), &link).unwrap();
    for slash in ["", "/", "//"] {
        let path = format!("{}{slash}", link.display());
        let refused = home.run(&["--json", "--home", &path, "list"]);
        assert_ne!(refused.code, Some(0), "{slash}: {refused:#?}");
    }
}

#[test]
fn a_home_that_anybody_can_put_another_in_the_place_of_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    home.run(&join(&[&["generate", "one"], &PLAIN])).ok();
    let around = home.store().parent().unwrap().to_owned();
    let before = fs::metadata(&around).unwrap().permissions();
    for (mode, code) in [(0o777, Some(7)), (0o1777, Some(0)), (0o775, Some(0))] {
        fs::set_permissions(&around, fs::Permissions::from_mode(mode)).unwrap();
        let run = home.run(&["--json", "list"]);
        assert_eq!(run.code, code, "{mode:o}: {run:#?}");
        // Nor is one made there.
        for new in [around.join("new"), around.join("a/b/new")] {
            let mut list = std::process::Command::new(env!("CARGO_BIN_EXE_derikey"));
            list.args(["--json", "list", "--home"]).arg(&new);
            let run = Run::of(list.output().unwrap());
            assert_eq!(run.code, code, "{mode:o}: {run:#?}");
        }
    }
    fs::set_permissions(&around, before).unwrap();
}

#[test]
fn a_file_that_may_not_grow_is_an_error_and_no_sudden_death() {
    let home = Home::new();
    let generate = join(&[&["--json", "generate", "one"], &PLAIN]);
    let script = r#"ulimit -f 0; exec "$0" "$@""#;
    let run = Run::of(
        under(&["sh", "-c", script], &home.command(&generate))
            .output()
            .unwrap(),
    );
    let error = run.error(1);
    assert!(
        error["message"].as_str().unwrap().contains("too large"),
        "{error}"
    );
}

#[test]
fn a_key_that_is_disabled_already_is_not_said_to_change() {
    let bench = Bench::new();
    bench.trader("one");
    for changed in [true, false] {
        assert_eq!(bench.run(&["disable", "one"]).json()["changed"], changed);
    }
}

/// Whoever disables both keys of a rotation means it, whether a program was told of the new one or not.
#[test]
fn a_grace_ends_where_both_keys_are_disabled() {
    let bench = Bench::new();
    bench.trader("one");
    let tells = hook(&bench.home, "tells", "#!/bin/sh\nexit 0\n");
    let rotate = ["rotate", "one", "--grace", "1s", "--deploy-hook", &tells];
    bench.run(&join(&[&rotate, &PLAIN])).json();
    bench.run(&["panic", "--yes"]).json();
    thread::sleep(Duration::from_secs(1));
    bench.run(&["resume"]).json();
    assert_eq!(bench.pending(), json!([]));
}

/// A disk can say that it has written what it has not.
#[test]
fn a_line_of_the_audit_log_that_is_not_there_is_missed() {
    if !can_trace() {
        return;
    }
    let bench = Bench::new();
    bench.home.run(&join(&[&["generate", "one"], &PLAIN])).ok();
    let log = bench.home.store().join("audit.jsonl");
    let before = fs::read(&log).unwrap();
    // A name as long as the first gives a line as long.
    let whole = format!("retval={}", before.len());
    let mut missed = 0;
    for nth in 1..12 {
        for lie in ["retval=1", &whole] {
            let name = format!("k{nth:02}");
            let inject = format!("write:{lie}:when={nth}");
            let run = failing(&bench, &inject, &join(&[&["generate", &name], &PLAIN]));
            if run.code == Some(0) {
                let audit = bench.home.run(&["--json", "audit"]).json();
                let entries = audit["entries"].as_array().unwrap();
                assert_eq!(entries.len(), 2, "{inject}: {audit}");
            } else {
                missed += 1;
            }
            let _ = bench.home.run(&["delete", &name, "--yes"]);
            fs::write(&log, &before).unwrap();
        }
    }
    assert!(missed > 3, "only {missed}");
}

#[test]
fn a_clear_export_that_is_not_said_to_be_there_is_not() {
    if !can_trace() {
        return;
    }
    let bench = Bench::new();
    bench.home.run(&join(&[&["generate", "one"], &PLAIN])).ok();
    let export = join(&[&["export", "one", "--out", "out.pem"], &PLAIN]);
    let mut failed = 0;
    for nth in 1..4 {
        let run = failing(&bench, &format!("fsync:error=EIO:when={nth}"), &export);
        failed += usize::from(run.code != Some(0));
        let there = bench.home.path("out.pem").exists();
        assert_eq!(there, run.code == Some(0), "{nth}: {run:#?}");
        let _ = fs::remove_file(bench.home.path("out.pem"));
    }
    assert!(failed > 0);
}

/// A hostile exchange answers with what it was sent, in the places of names.
#[test]
fn a_token_that_comes_back_as_a_name_is_not_shown() {
    let mut bench = Bench::new();
    let meddler = Meddler::before(&mut bench.server);
    bench.trader("one");
    // Not longer than what may stand in the place of a name.
    let token = "abcdef0123456789abcdef01";
    let keys: Vec<Value> = bench.admin().keys();
    let enters = move |call: &mut Call| call.retell(|login| login["access_token"] = json!(token));
    let quotes = move |call: &mut Call| {
        let mut keys = keys.clone();
        for key in &mut keys {
            key["name"] = json!(token);
            key["ip_whitelist"] = json!([token]);
            key["enabled_features"] = json!([token]);
        }
        let answer = json!({"jsonrpc": "2.0", "id": call.body["id"], "result": keys});
        call.answer(&answer.to_string())
    };
    meddler.strike("public/auth", Arc::new(enters));
    meddler.strike("private/list_api_keys", Arc::new(quotes));
    for verbosity in ["-q", "-v", "-vvv"] {
        let run = bench.run(&["list", "--remote", verbosity]);
        assert!(run.stdout.contains("xxxx"), "{run:#?}");
        assert!(!run.stdout.contains(token), "{run:#?}");
        assert!(!run.stderr.contains(token), "{run:#?}");
    }
}

/// A record that cannot be read for the moment is not a damaged one, which would be left behind.
#[test]
fn a_removal_leaves_no_earlier_key_because_a_disk_fails() {
    if !can_trace() {
        return;
    }
    let bench = Bench::new();
    let one = bench.trader("one");
    bench.run(&join(&[&["rotate", "one"], &PLAIN])).json();
    let record = bench.home.store().join("keys/one/1/key.toml");
    let strace = [
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-P",
        record.to_str().unwrap(),
        "-e",
        "trace=openat",
        "-e",
        "inject=openat:error=EIO",
    ];
    let remove = join(&[&["--json", "remove", "one", "--yes"], &bench.server.admin()]);
    let failed = Run::of(
        under(&strace, &bench.home.command(&remove))
            .output()
            .unwrap(),
    );
    assert_ne!(failed.code, Some(0), "{failed:#?}");
    assert!(bench.find(&one["client_id"]).is_some());
    bench.run(&["resume"]).json();
    assert!(bench.find(&one["client_id"]).is_none());
    assert!(!bench.home.store().join("keys/one").exists());
}
