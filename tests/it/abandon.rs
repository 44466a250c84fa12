//! Giving up what is under way: nothing of it is left, here or at the exchange, and nothing that
//! was there before is harmed.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::PathBuf};

use serde_json::{Value, json};

use super::{
    kills::PHASES,
    raw::Admin,
    rotation::{Play, hook},
    scene::{self, Account, NAME, SCOPE, Scene, files},
    support::{Run, Server, join},
};

/// Faults that stop a registration where the exchange has not taken the key.
const UNHEARD: &[&str] = &["create_api_key:rate-limit"];
/// Faults that lose the answer to a creation that was carried out, and the look after it.
const ANSWER_LOST: &[&str] = &["create_api_key:drop-after", "list_api_keys:500"];
/// The same for a creation that was not carried out.
const REQUEST_LOST: &[&str] = &["create_api_key:drop-before", "list_api_keys:500"];
/// Faults that keep a new key from proving itself.
const UNPROVEN: &[&str] = &["auth:500:2", "auth:500:3", "auth:500:4"];

/// What is in the keystore, but for the sandbox that lives in the same home.
fn contents(scene: &Scene) -> BTreeMap<PathBuf, Vec<u8>> {
    let store = scene.home.store();
    let lock = |path: &PathBuf| path.extension().is_some_and(|end| end == "lock");
    let ours = |path: &PathBuf| !path.starts_with(store.join("sandbox")) && !lock(path);
    let found = files(&store).into_iter().filter(ours);
    found
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

/// A registration that faults have stopped, and the exchange without them.
struct Stopped {
    scene: Scene,
    server: Server,
    address: String,
}

impl Stopped {
    #[track_caller]
    fn by(faults: &[&str], command: &[&str], stage: &str) -> Self {
        let scene = Scene::in_clear();
        let args: Vec<&str> = faults.iter().flat_map(|fault| ["--fault", fault]).collect();
        let server = Server::start(&scene.home, &args);
        if command[0] == "register" {
            let args = ["generate", NAME, "--no-passphrase", "--insecure"];
            scene.home.run(&args).ok();
        }
        let flags = if command[0] == "register" {
            server.admin()
        } else {
            scene.flags(&server)
        };
        let args = join(&[
            &["--json", "--timeout", "1"],
            command,
            &[NAME, "--scope", SCOPE],
            &flags,
        ]);
        let run = scene.home.run(&args);
        assert!(!matches!(run.code, Some(0) | None), "{run:#?}");
        let pending = scene.pending();
        assert_eq!(pending.len(), 1, "{run:#?}");
        assert_eq!(pending[0]["stage"], stage, "{run:#?}");
        assert_eq!(pending[0]["operation"], command[0]);
        let address = server.address();
        drop(server);
        let server = scene::restart(&scene.home, &address);
        Self {
            scene,
            server,
            address,
        }
    }

    fn resume(&self, more: &[&str]) -> Run {
        let flags = self.scene.flags(&self.server);
        let command = ["--json", "--timeout", "1", "resume"];
        self.scene.home.run(&join(&[&command, more, &flags]))
    }

    fn abandon(&self) -> Run {
        self.resume(&[NAME, "--abandon", "--yes"])
    }

    /// Gives the operation up in every way that must not work, and then in the one that does.
    #[track_caller]
    fn given_up(mut self, operation: &str, offline: bool) -> Self {
        let before = (
            contents(&self.scene),
            Account::of(&self.server).asymmetric(),
        );
        self.resume(&["--abandon", "--yes"]).error(2);
        let error = self.resume(&[NAME, "--abandon"]).error(8);
        assert!(error["hint"].as_str().unwrap().contains("--yes"), "{error}");
        let plan = self.resume(&[NAME, "--abandon", "--dry-run"]).json();
        assert_eq!(plan["dry_run"], true, "{plan}");
        self.resume(&["other", "--abandon", "--yes"]).error(8);
        let now = (
            contents(&self.scene),
            Account::of(&self.server).asymmetric(),
        );
        assert!(before == now, "it was not given up yet");
        self.server.stop();
        if !offline {
            let run = self.abandon();
            assert!(matches!(run.code, Some(5 | 9)), "{run:#?}");
            assert_eq!(self.scene.pending().len(), 1, "it is still under way");
            self.server = scene::restart(&self.scene.home, &self.address);
        }
        let lines = self.scene.audit_is_chained("before");
        let said = self.abandon().json();
        assert_eq!(
            said,
            json!({"name": NAME, "operation": operation, "abandoned": true})
        );
        assert_eq!(self.scene.pending(), Vec::<Value>::new());
        assert_eq!(self.scene.audit_is_chained("given up"), lines + 1);
        let log = fs::read_to_string(self.scene.home.store().join("audit.jsonl")).unwrap();
        let last: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
        assert_eq!(last["action"], "abandon", "{last}");
        assert_eq!(last["outcome"], "done", "{last}");
        assert_eq!(last["key"], NAME, "{last}");
        if offline {
            self.server = scene::restart(&self.scene.home, &self.address);
        }
        assert_eq!(Account::of(&self.server).asymmetric(), Vec::<Value>::new());
        self.abandon().error(8);
        assert_eq!(self.resume(&[]).json(), json!({"resumed": []}));
        self
    }

    /// What a private half was before, wherever it lies now.
    fn private_halves(&self) -> usize {
        let all = files(&self.scene.home.store());
        all.iter()
            .filter(|path| path.ends_with("private.pem"))
            .count()
    }
}

#[test]
fn a_provision_that_given_up_leaves_no_key_and_the_name_is_free() {
    for (faults, stage) in [
        (UNHEARD, "generated"),
        (ANSWER_LOST, "creating"),
        (REQUEST_LOST, "creating"),
        (UNPROVEN, "registered"),
    ] {
        let stopped = Stopped::by(faults, &["provision"], stage);
        let stopped = stopped.given_up("provision", stage == "generated");
        assert_eq!(stopped.scene.public(), None, "{faults:?}");
        assert_eq!(stopped.private_halves(), 1, "in the trash: {faults:?}");
        let flags = stopped.scene.flags(&stopped.server);
        let again = stopped.scene.provision(&flags, false).output().unwrap();
        Run::of(again).ok();
        let what = format!("anew after {faults:?}");
        stopped.scene.stands(&stopped.server, false, &flags, &what);
    }
}

#[test]
fn a_registration_that_given_up_leaves_the_key_pair_to_be_registered_again() {
    for (faults, stage) in [
        (UNHEARD, "generated"),
        (ANSWER_LOST, "creating"),
        (REQUEST_LOST, "creating"),
        (UNPROVEN, "registered"),
    ] {
        let stopped = Stopped::by(faults, &["register"], stage);
        let ours = stopped.scene.public().unwrap();
        let stopped = stopped.given_up("register", stage == "generated");
        assert_eq!(stopped.scene.public(), Some(ours), "{faults:?}");
        let home = &stopped.scene.home;
        let shown = home.run(&["--json", "show", NAME]).json();
        assert_eq!(shown["client_id"], Value::Null, "{faults:?}: {shown}");
        let flags = stopped.server.admin();
        let register = ["--json", "register", NAME, "--scope", SCOPE];
        home.run(&join(&[&register, &flags])).ok();
        let flags = stopped.scene.flags(&stopped.server);
        let what = format!("anew after {faults:?}");
        stopped.scene.stands(&stopped.server, false, &flags, &what);
    }
}

#[test]
fn a_registered_key_that_was_removed_elsewhere_is_named_and_can_be_given_up() {
    for ip in [false, true] {
        let scene = Scene::in_clear();
        let faults: &[&str] = if ip {
            &["--fault", "edit_api_key:500"]
        } else {
            &[
                "--fault",
                "auth:500:2",
                "--fault",
                "auth:500:3",
                "--fault",
                "auth:500:4",
            ]
        };
        let server = Server::start(&scene.home, faults);
        let address = server.address();
        let provision = scene.provision(&scene.flags(&server), ip).output();
        Run::of(provision.unwrap()).error(9);
        drop(server);
        let server = scene::restart(&scene.home, &address);
        let flags = scene.flags(&server);
        let admin = Admin::log_in(&server);
        let id = admin.keys()[0]["id"].clone();
        admin.call("private/remove_api_key", &json!({"id": id}));
        let run = scene.resume(&flags);
        let error = run.error(run.code.unwrap());
        assert!(matches!(run.code, Some(8 | 9)), "{error}");
        let (message, hint) = (error["message"].as_str(), error["hint"].as_str());
        let named = format!("id {id}");
        assert!(message.unwrap().contains(&named), "ip {ip}: {error}");
        assert!(hint.unwrap().contains("--abandon"), "ip {ip}: {error}");
        assert_eq!(scene.pending().len(), 1);
        scene
            .resume(&join(&[&[NAME, "--abandon", "--yes"], &flags]))
            .ok();
        assert_eq!(scene.pending(), Vec::<Value>::new());
        assert_eq!(scene.public(), None);
        assert_eq!(admin.keys(), Vec::<Value>::new());
    }
}

fn abandon(play: &Play) -> Run {
    play.run(&["resume", NAME, "--abandon", "--yes"])
}

/// Stops a command of a play with faults, and mends the exchange.
#[track_caller]
fn stop(play: &mut Play, faults: &[&str], args: &[&str], stage: &str) {
    play.restart(faults);
    let run = play.run(&join(&[args, &["--timeout", "1"]]));
    assert!(!matches!(run.code, Some(0) | None), "{run:#?}");
    play.restart(&[]);
    let pending = play.scene.pending();
    assert_eq!(pending.len(), 1, "{run:#?}");
    assert_eq!(pending[0]["stage"], stage, "{run:#?}");
}

#[test]
fn a_rotation_that_given_up_before_the_switch_never_was() {
    for (faults, stage) in [
        (UNHEARD, "generated"),
        // The first look is for what the exchange has now.
        (
            &["create_api_key:drop-after", "list_api_keys:500:2"],
            "creating",
        ),
        (
            &["create_api_key:drop-before", "list_api_keys:500:2"],
            "creating",
        ),
        (UNPROVEN, "registered"),
    ] {
        let mut play = Play::new();
        let before = (play.account.asymmetric(), play.record(NAME, "1"));
        stop(&mut play, faults, &["rotate", NAME], stage);
        let plan = play.run(&["resume", NAME, "--abandon", "--dry-run"]).json();
        assert_eq!(plan["dry_run"], true);
        assert_eq!(play.generations(NAME), ["1", "2"]);
        let said = abandon(&play).json();
        assert_eq!(said["operation"], "rotate");
        assert_eq!(play.generations(NAME), ["1"], "{stage}");
        assert_eq!(
            (play.account.asymmetric(), play.record(NAME, "1")),
            before,
            "{stage}"
        );
        play.stands(NAME, stage);
        abandon(&play).error(8);
        play.rotate(&[]).ok();
        play.stands(NAME, "anew");
    }
}

#[test]
fn a_rotation_that_given_up_in_its_grace_leaves_both_keys_and_a_way_back() {
    for back in [true, false] {
        let play = Play::new();
        play.rotate(&["--grace", "1h"]).ok();
        abandon(&play).ok();
        assert_eq!(play.scene.pending(), Vec::<Value>::new());
        assert_eq!(play.current(NAME), "2");
        assert_eq!(
            (play.enabled("1"), play.enabled("2")),
            (Some(true), Some(true))
        );
        play.works("given up");
        // Neither is left over in the end.
        if back {
            play.run(&["rollback", NAME]).ok();
            assert_eq!(play.current(NAME), "1");
        } else {
            play.rotate(&[]).ok();
            assert_eq!(play.generations(NAME), ["2", "3"]);
        }
        play.stands(NAME, "afterwards");
    }
}

/// Sets the journal back to what it was when the link had been switched and that was not yet
/// written down: a kill between two system calls leaves it so.
fn forget_the_switch(play: &Play) {
    let path = play.home().store().join("journal/bot.json");
    let mut intent: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(intent["stage"], "switched");
    intent["stage"] = json!("deployed");
    intent["succession"]
        .as_object_mut()
        .unwrap()
        .remove("until");
    fs::write(&path, intent.to_string()).unwrap();
}

/// Sets a record back to what it was before its key was superseded.
fn forget_the_retirement(play: &Play, generation: &str) {
    let path = play.dir(NAME).join(generation).join("key.toml");
    let text = fs::read_to_string(&path).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("retired = "));
    let text: String = lines
        .map(|line| line.replace("state = \"retired\"", "state = \"active\"") + "\n")
        .collect();
    fs::write(&path, text).unwrap();
}

#[test]
fn the_key_in_use_is_not_taken_back_where_the_switch_was_not_written_down_yet() {
    for then in ["resume", "rollback", "rotate"] {
        let play = Play::new();
        play.rotate(&["--grace", "1h"]).ok();
        forget_the_switch(&play);
        forget_the_retirement(&play, "1");
        if then == "resume" {
            play.run(&["resume"]).ok();
            assert_eq!(play.current(NAME), "2");
            play.works("resumed");
            continue;
        }
        abandon(&play).ok();
        assert_eq!(play.scene.pending(), Vec::<Value>::new());
        assert_eq!(play.current(NAME), "2");
        play.works("given up");
        assert_eq!(play.enabled("1"), Some(true));
        play.run(&[then, NAME]).ok();
        play.stands(NAME, then);
    }
}

#[test]
fn the_key_that_a_way_back_has_put_in_use_stays_enabled() {
    let mut play = Play::new();
    play.rotate(&[]).ok();
    stop(
        &mut play,
        &["disable_api_key:500"],
        &["rollback", NAME],
        "switched",
    );
    forget_the_switch(&play);
    forget_the_retirement(&play, "2");
    abandon(&play).ok();
    assert_eq!(play.current(NAME), "1");
    play.works("given up");
    play.run(&["rollback", NAME]).ok();
    play.stands(NAME, "forth");
}

#[test]
fn a_way_back_that_given_up_before_the_switch_never_was() {
    for grace in [false, true] {
        for faults in [
            &["enable_api_key:500"][..],
            &["enable_api_key:drop-after"],
            UNPROVEN,
        ] {
            let what = format!("{faults:?}, grace {grace}");
            let mut play = Play::new();
            let more: &[&str] = if grace { &["--grace", "1h"] } else { &[] };
            play.rotate(more).ok();
            stop(&mut play, faults, &["rollback", NAME], "generated");
            assert_eq!(play.scene.pending()[0]["operation"], "rollback");
            abandon(&play).ok();
            assert_eq!(play.current(NAME), "2", "{what}");
            play.works(&what);
            assert_eq!(play.enabled("1"), Some(grace), "{what}");
            let pending = play.scene.pending();
            if grace {
                assert_eq!(pending.len(), 1, "the grace goes on: {what}");
                assert_eq!(pending[0]["operation"], "rotate", "{what}");
                assert_eq!(pending[0]["stage"], "switched", "{what}");
            } else {
                play.stands(NAME, &what);
            }
            play.run(&["rollback", NAME]).ok();
            assert_eq!(play.current(NAME), "1", "{what}");
            play.stands(NAME, "back");
        }
    }
}

#[test]
fn a_way_back_to_a_key_that_is_gone_is_refused_and_stands_in_no_ones_way() {
    for grace in [false, true] {
        let play = Play::new();
        let more: &[&str] = if grace { &["--grace", "1h"] } else { &[] };
        play.rotate(more).ok();
        let admin = Admin::log_in(&play.server);
        let id = play.remote(NAME, "1").unwrap()["id"].clone();
        admin.call("private/remove_api_key", &json!({"id": id}));
        let failed = play.run(&["rollback", NAME]);
        let error = failed.error(failed.code.unwrap());
        assert!(matches!(failed.code, Some(8 | 9)), "{error}");
        assert_eq!(play.current(NAME), "2");
        play.works("refused");
        let operation = |play: &Play| {
            let pending = play.scene.pending();
            pending.first().map(|intent| intent["operation"].clone())
        };
        let wanted = grace.then(|| json!("rotate"));
        assert_eq!(operation(&play), wanted, "what was before goes on: {error}");
        if grace {
            abandon(&play).ok();
        }
        play.rotate(&[]).ok();
        assert_eq!(play.generations(NAME), ["2", "3"]);
        play.stands(NAME, "on");
    }
}

#[test]
fn a_change_that_given_up_is_left_as_the_exchange_has_it() {
    for (fault, carried_out) in [
        ("edit_api_key:drop-before", false),
        ("edit_api_key:drop-after", true),
    ] {
        let mut play = Play::new();
        let admin = |play: &Play, args: &[&str]| {
            let flags = play.server.admin();
            play.home().run(&join(&[&["--json"], args, &flags]))
        };
        play.restart(&[fault]);
        let edit = ["edit", NAME, "--scope", "account:read trade:read"];
        admin(&play, &edit).error(9);
        play.server.stop();
        // What the exchange has is not asked: it needs no network.
        let said = abandon(&play).json();
        assert_eq!(said["operation"], "edit");
        play.restart(&[]);
        assert_eq!(play.scene.pending(), Vec::<Value>::new());
        let scope = play.remote(NAME, "1").unwrap()["max_scope"].clone();
        let narrowed = scope.as_str().unwrap().contains("trade:read ")
            || scope.as_str().unwrap().ends_with("trade:read");
        assert_eq!(narrowed, carried_out, "{scope}");
        abandon(&play).error(8);
        // It can be asked for again.
        admin(&play, &edit).ok();
        play.works("edited");
    }
}

#[test]
fn an_untold_taking_back_can_be_given_up_too() {
    let mut play = Play::new();
    let failing = hook(play.home(), "failing", "exit 3");
    stop(
        &mut play,
        &["remove_api_key:500"],
        &["rotate", NAME, "--deploy-hook", &failing],
        "proven",
    );
    abandon(&play).ok();
    assert_eq!(play.generations(NAME), ["1"]);
    play.stands(NAME, "given up");
}

/// Kills a command at each of its calls and gives up what is left of it.
fn given_up_at_every_call(before: &[&str], args: &[&str]) {
    let stage = || {
        let (play, bridge) = Play::bridged(&[]);
        if !before.is_empty() {
            play.run(before).ok();
        }
        bridge.hold(None);
        (play, bridge)
    };
    let (play, bridge) = stage();
    play.run(args).ok();
    let calls = bridge.calls();
    assert!(calls.len() >= 4, "{calls:?}");
    drop(play);
    for phase in PHASES {
        for (call, method) in calls.iter().enumerate() {
            let what = format!("{args:?} killed at {method} ({call}), {phase:?}");
            let (play, bridge) = stage();
            bridge.kill(play.command(args), call, phase);
            if !play.scene.pending().is_empty() {
                abandon(&play).ok();
            }
            play.works(&what);
            assert_eq!(play.scene.pending(), Vec::<Value>::new(), "{what}");
            // Whatever was left of it, the next rotation leaves no trace of it.
            play.rotate(&[]).ok();
            play.stands(NAME, &what);
        }
    }
}

#[test]
fn a_rotation_that_is_killed_at_any_call_can_be_given_up() {
    given_up_at_every_call(&[], &["rotate", NAME]);
}

#[test]
fn a_way_back_that_is_killed_at_any_call_can_be_given_up() {
    given_up_at_every_call(&["rotate", NAME], &["rollback", NAME]);
}

#[test]
fn a_taking_back_that_was_killed_at_the_trash_makes_no_other_key() {
    let mut play = Play::new();
    let failing = hook(play.home(), "failing", "exit 3");
    stop(
        &mut play,
        &["remove_api_key:drop-after"],
        &["rotate", NAME, "--deploy-hook", &failing],
        "proven",
    );
    let trash = play.home().store().join("trash");
    fs::create_dir_all(&trash).unwrap();
    fs::set_permissions(&trash, fs::Permissions::from_mode(0o700)).unwrap();
    fs::rename(play.dir(NAME).join("2"), trash.join("bot-2")).unwrap();
    let done = play.run(&["resume"]).json();
    assert_eq!(done["resumed"][0]["taken_back"], true, "{done}");
    assert_eq!(fs::read_dir(&trash).unwrap().count(), 1, "nothing was made");
    play.stands(NAME, "taken back");
}

#[test]
fn a_rotation_whose_private_half_is_gone_is_not_carried_on_with_another() {
    let mut play = Play::new();
    stop(&mut play, UNPROVEN, &["rotate", NAME], "registered");
    let away = play.home().path("away");
    fs::rename(play.dir(NAME).join("2"), &away).unwrap();
    let error = play.run(&["resume"]).error(7);
    assert!(
        error["hint"].as_str().unwrap().contains("--abandon"),
        "{error}"
    );
    assert_eq!(play.generations(NAME), ["1"], "no other was made");
    abandon(&play).ok();
    play.stands(NAME, "given up");
}
