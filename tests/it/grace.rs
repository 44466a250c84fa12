//! While an old key and its successor are both there: what others do to either in the meantime,
//! ways back that fail, second rotations, and rotations that are continued otherwise.

use std::{
    fs, thread,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};

use super::{
    kills::{PHASES, Phase},
    raw::Admin,
    rotation::{Play, hook},
    scene::{NAME, SCOPE, Scene},
    support::{Run, join},
};

/// Does something to a generation behind the program's back.
fn elsewhere(play: &Play, method: &str, generation: &str) {
    let id = play.remote(NAME, generation).unwrap()["id"].clone();
    let admin = Admin::log_in(&play.server);
    admin.call(&format!("private/{method}"), &json!({"id": id}));
}

fn wait_for_the_grace() {
    thread::sleep(Duration::from_millis(1100));
}

#[track_caller]
fn says(run: &Run, word: &str) -> Value {
    let error = run.error(run.code.unwrap());
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(word), "{error}");
    error
}

#[test]
fn a_successor_that_was_disabled_ends_no_grace_until_it_is_enabled_again() {
    for more in [&[][..], &["--remove-old"]] {
        let play = Play::new();
        play.rotate(&join(&[&["--grace", "1s"], more])).ok();
        elsewhere(&play, "disable_api_key", "2");
        wait_for_the_grace();
        for _ in 0..2 {
            let run = play.run(&["resume"]);
            assert!(matches!(run.code, Some(8 | 9)), "{run:#?}");
            says(&run, "disabled");
            let client_id = play.remote(NAME, "2").unwrap()["client_id"].clone();
            says(&run, client_id.as_str().unwrap());
            assert_eq!(play.enabled("1"), Some(true), "the old key stays");
            assert_eq!(play.scene.pending()[0]["stage"], "switched");
        }
        elsewhere(&play, "enable_api_key", "2");
        play.run(&["resume"]).ok();
        play.stands(NAME, "enabled again");
        assert_eq!(play.generations(NAME).len(), 2 - more.len());
    }
}

#[test]
fn what_the_hint_says_of_a_disabled_successor_can_be_done() {
    let play = Play::new();
    play.rotate(&["--grace", "1s"]).ok();
    elsewhere(&play, "disable_api_key", "2");
    wait_for_the_grace();
    let error = play.run(&["resume"]).error(9);
    assert!(
        error["hint"].as_str().unwrap().contains("derikey enable"),
        "{error}"
    );
    let admin = play.server.admin();
    play.home()
        .run(&join(&[&["--json", "enable", NAME], &admin]))
        .ok();
    assert_eq!(play.enabled("2"), Some(true));
    assert_eq!(play.scene.pending()[0]["operation"], "rotate", "it goes on");
    play.run(&["resume"]).ok();
    play.stands(NAME, "enabled again");
}

#[test]
fn a_successor_that_is_gone_ends_no_grace_and_there_is_a_way_back() {
    let play = Play::new();
    play.rotate(&["--grace", "1s"]).ok();
    elsewhere(&play, "remove_api_key", "2");
    wait_for_the_grace();
    let run = play.run(&["resume"]);
    assert!(matches!(run.code, Some(8 | 9)), "{run:#?}");
    says(&run, "gone");
    assert_eq!(play.enabled("1"), Some(true));
    play.run(&["rollback", NAME]).ok();
    assert_eq!(play.current(NAME), "1");
    play.works("back");
    assert_eq!(play.scene.pending(), Vec::<Value>::new());
    play.rotate(&[]).ok();
    play.stands(NAME, "anew");
}

#[test]
fn a_successor_that_is_gone_before_the_switch_is_not_put_in_use() {
    let play = Play::new();
    let told = play.home().path("told");
    let text = format!("echo told >>{}; kill -9 $PPID", told.display());
    let hook = hook(play.home(), "hook", &text);
    let run = play.rotate(&["--deploy-hook", &hook]);
    assert_eq!(run.code, None, "killed: {run:#?}");
    elsewhere(&play, "remove_api_key", "2");
    let run = play.run(&["resume"]);
    assert_eq!(run.code, Some(8), "{run:#?}");
    says(&run, "gone");
    assert_eq!(fs::read_to_string(&told).unwrap(), "told\n", "no more");
    assert_eq!(play.current(NAME), "1");
    play.works("the key of before");
    assert_eq!(play.scene.pending(), Vec::<Value>::new());
    play.rotate(&[]).ok();
    play.stands(NAME, "anew");
}

#[test]
fn a_successor_that_cannot_log_in_ends_no_grace() {
    let mut play = Play::new();
    play.rotate(&["--grace", "1s"]).ok();
    wait_for_the_grace();
    // The first login is the administrator's.
    play.restart(&["auth:unauthorized:2"]);
    play.run(&["resume"]).error(4);
    assert_eq!(play.enabled("1"), Some(true), "the old key stays");
    play.restart(&[]);
    let said = play.run(&["resume"]).json();
    assert_eq!(said["resumed"][0]["granted_scope"], SCOPE, "{said}");
    play.stands(NAME, "later");
}

#[test]
fn a_successor_that_works_from_elsewhere_only_ends_the_grace() {
    let play = Play::with(Scene::in_clear(), &["--ip", "10.1.2.3"]);
    play.rotate(&["--grace", "1s"]).ok();
    wait_for_the_grace();
    let run = play.run(&["resume", "-v"]);
    assert!(
        run.stderr
            .contains("works from there only, which was not tried"),
        "{run:#?}"
    );
    let said = run.json();
    assert_eq!(said["resumed"][0]["granted_scope"], Value::Null, "{said}");
    assert_eq!(play.enabled("1"), Some(false));
    assert_eq!(play.enabled("2"), Some(true));
    assert_eq!(play.scene.pending(), Vec::<Value>::new());
}

#[test]
fn a_successor_without_rights_ends_no_grace() {
    let play = Play::new();
    play.rotate(&["--grace", "1s"]).ok();
    let id = play.remote(NAME, "2").unwrap()["id"].clone();
    let change = |scope: &str| {
        let admin = Admin::log_in(&play.server);
        let params = json!({"id": id, "max_scope": scope});
        admin.call("private/change_scope_in_api_key", &params);
    };
    change("trade:none");
    wait_for_the_grace();
    let run = play.run(&["resume"]);
    assert!(matches!(run.code, Some(8 | 9)), "{run:#?}");
    assert_eq!(play.enabled("1"), Some(true));
    // Narrowed is another matter: somebody has meant it so.
    change("trade:read");
    play.run(&["resume"]).ok();
    assert_eq!(play.enabled("1"), Some(false));
}

#[test]
fn an_old_key_that_is_gone_lets_the_grace_end_well() {
    for more in [&[][..], &["--remove-old"]] {
        let play = Play::new();
        play.rotate(&join(&[&["--grace", "1s"], more])).ok();
        elsewhere(&play, "remove_api_key", "1");
        wait_for_the_grace();
        let done = play.run(&["resume"]).json();
        assert_eq!(done["resumed"][0]["changed"], true, "{done}");
        assert_eq!(play.scene.pending(), Vec::<Value>::new());
        assert_eq!(play.current(NAME), "2");
        play.works("the old key is gone");
        assert_eq!(play.account.asymmetric().len(), 1);
        play.rotate(&[]).ok();
        assert_eq!(play.generations(NAME), ["2", "3"]);
        play.stands(NAME, "on");
    }
}

#[test]
fn a_way_back_that_a_hook_refuses_lets_the_grace_go_on() {
    let play = Play::new();
    play.rotate(&["--grace", "3s"]).ok();
    let journal = play.home().store().join("journal/bot.json");
    let before = fs::read(&journal).unwrap();
    let failing = hook(play.home(), "failing", "exit 3");
    play.run(&["rollback", NAME, "--deploy-hook", &failing])
        .error(1);
    assert_eq!(fs::read(&journal).unwrap(), before, "as it was");
    let pending = play.scene.pending();
    assert_eq!(pending[0]["operation"], "rotate");
    assert_eq!(pending[0]["stage"], "switched");
    assert_eq!(
        (play.enabled("1"), play.enabled("2")),
        (Some(true), Some(true))
    );
    assert_eq!(play.current(NAME), "2");
    play.works("refused");
    let record = play.record(NAME, "1");
    assert!(record.contains("enabled = true"), "{record}");
    thread::sleep(Duration::from_millis(3100));
    play.run(&["resume"]).ok();
    assert_eq!(play.enabled("1"), Some(false));
    play.stands(NAME, "the grace has ended");
}

#[test]
fn a_way_back_that_a_hook_refuses_lets_a_removal_go_on() {
    let mut play = Play::new();
    play.restart(&["remove_api_key:500"]);
    play.rotate(&["--remove-old"]).error(9);
    play.restart(&[]);
    assert_eq!(play.scene.pending()[0]["stage"], "disabled");
    let failing = hook(play.home(), "failing", "exit 3");
    play.run(&["rollback", NAME, "--deploy-hook", &failing])
        .error(1);
    assert_eq!(play.enabled("1"), Some(false), "disabled as before");
    assert_eq!(play.current(NAME), "2");
    play.works("refused");
    assert_eq!(play.scene.pending()[0]["operation"], "rotate");
    assert_eq!(play.scene.pending()[0]["stage"], "disabled");
    play.run(&["resume"]).ok();
    assert_eq!(play.generations(NAME), ["2"]);
    play.stands(NAME, "removed");
}

#[test]
fn a_successor_that_is_gone_ends_no_removal_of_the_old_key() {
    let mut play = Play::new();
    play.restart(&["remove_api_key:500"]);
    play.rotate(&["--remove-old"]).error(9);
    play.restart(&[]);
    elsewhere(&play, "remove_api_key", "2");
    let run = play.run(&["resume"]);
    assert!(matches!(run.code, Some(8 | 9)), "{run:#?}");
    says(&run, "gone");
    assert_eq!(play.enabled("1"), Some(false), "it is still there");
    play.run(&["rollback", NAME]).ok();
    assert_eq!(play.current(NAME), "1");
    play.works("back");
}

#[test]
fn a_way_back_is_open_while_the_old_key_waits_for_its_removal() {
    let mut play = Play::new();
    play.restart(&["remove_api_key:500"]);
    play.rotate(&["--remove-old"]).error(9);
    play.restart(&[]);
    play.run(&["rollback", NAME]).ok();
    assert_eq!(play.current(NAME), "1");
    play.stands(NAME, "back");
}

#[test]
fn a_way_back_is_continued_with_the_program_that_is_typed_then() {
    let mut play = Play::new();
    play.rotate(&[]).ok();
    play.restart(&["enable_api_key:500"]);
    let failing = hook(play.home(), "failing", "exit 3");
    play.run(&["rollback", NAME, "--deploy-hook", &failing])
        .error(9);
    play.restart(&[]);
    let content = hook(play.home(), "content", "touch \"$HOME/told\"");
    play.run(&["rollback", NAME, "--deploy-hook", &content])
        .ok();
    assert!(play.home().path("told").exists());
    assert_eq!(play.current(NAME), "1");
    play.stands(NAME, "back");
}

#[test]
fn a_refused_rotation_that_was_killed_says_that_it_is_taken_back() {
    let (probe, bridge) = Play::bridged(&[]);
    let script = hook(probe.home(), "hook", "exit 1");
    let args = ["rotate", NAME, "--deploy-hook", &script];
    bridge.hold(None);
    probe.run(&args).error(1);
    let calls = bridge.calls();
    let at = calls
        .iter()
        .position(|call| call == "private/remove_api_key")
        .unwrap();
    for phase in PHASES {
        let (play, bridge) = Play::bridged(&[]);
        let script = hook(play.home(), "hook", "exit 1");
        let args = ["rotate", NAME, "--deploy-hook", &script];
        bridge.kill(play.command(&args), at, phase);
        assert_eq!(play.scene.pending()[0]["stage"], "proven");
        let left = play.account.asymmetric().len();
        assert_eq!(
            left,
            if phase == Phase::BeforeTheAnswer {
                1
            } else {
                2
            }
        );
        let done = play.run(&["resume"]).json();
        let one = &done["resumed"][0];
        assert_eq!(one["taken_back"], true, "{done}");
        assert_eq!(one["changed"], false, "{done}");
        assert_eq!(one["name"], NAME, "{done}");
        assert_eq!(play.account.asymmetric().len(), 1);
        assert_eq!(play.generations(NAME), ["1"]);
        assert_eq!(play.run(&["resume"]).json(), json!({"resumed": []}));
        play.stands(NAME, "taken back");
    }
}

#[test]
fn a_rotation_that_follows_an_untold_taking_back_is_one() {
    let mut play = Play::new();
    let failing = hook(play.home(), "failing", "exit 3");
    play.restart(&["remove_api_key:500"]);
    play.rotate(&["--deploy-hook", &failing]).error(9);
    play.restart(&[]);
    let content = hook(play.home(), "content", "touch \"$HOME/told\"");
    let said = play.rotate(&["--deploy-hook", &content]).json();
    assert_eq!(said["changed"], true, "{said}");
    assert!(play.home().path("told").exists());
    assert_ne!(play.current(NAME), "1");
    play.stands(NAME, "rotated after all");
}

#[test]
fn what_is_superseded_stays_until_the_next_rotation_is_done() {
    for fault in ["create_api_key:unauthorized", "create_api_key:echo"] {
        let mut play = Play::new();
        play.rotate(&[]).ok();
        let before = (play.account.asymmetric(), play.record(NAME, "1"));
        play.restart(&[fault]);
        let refused = play.rotate(&[]);
        assert!(matches!(refused.code, Some(1 | 4)), "{refused:#?}");
        play.restart(&[]);
        assert_eq!(play.generations(NAME), ["1", "2"], "{fault}");
        assert_eq!(
            (play.account.asymmetric(), play.record(NAME, "1")),
            before,
            "{fault}"
        );
        play.stands(NAME, fault);
        play.run(&["rollback", NAME]).ok();
        assert_eq!(play.current(NAME), "1");
        play.stands(NAME, "back");
    }
}

#[test]
fn what_is_superseded_stays_while_the_next_rotation_is_under_way() {
    let mut play = Play::new();
    play.rotate(&[]).ok();
    // Its new key works, and the old one cannot be disabled yet.
    play.restart(&["disable_api_key:500"]);
    play.rotate(&[]).error(9);
    play.restart(&[]);
    assert_eq!(play.enabled("1"), Some(false), "it is still there");
    assert_eq!(play.generations(NAME), ["1", "2", "3"]);
    play.run(&["resume"]).ok();
    assert_eq!(play.generations(NAME), ["2", "3"]);
    assert_eq!(play.account.asymmetric().len(), 2);
    play.stands(NAME, "done");
}

#[test]
fn a_way_back_during_the_grace_of_a_second_rotation_leads_to_the_key_before() {
    let play = Play::new();
    play.rotate(&[]).ok();
    play.rotate(&["--grace", "1h"]).ok();
    play.run(&["rollback", NAME]).ok();
    assert_eq!(play.current(NAME), "2");
    play.stands(NAME, "back");
}

#[test]
fn a_rotation_is_continued_with_what_is_typed_then() {
    let mut play = Play::with(Scene::in_clear(), &[]);
    let first = hook(play.home(), "first", "touch \"$HOME/first_told\"");
    play.restart(&["auth:500:2", "auth:500:3", "auth:500:4"]);
    play.rotate(&["--deploy-hook", &first]).error(9);
    play.restart(&[]);
    assert_eq!(play.scene.pending()[0]["stage"], "registered");
    let second = hook(play.home(), "second", "touch \"$HOME/second_told\"");
    let more = ["--deploy-hook", &second, "--grace", "1s", "--remove-old"];
    let said = play.rotate(&more).json();
    assert!(said["old_key_enabled_until"].is_string(), "{said}");
    assert!(play.home().path("second_told").exists());
    assert!(!play.home().path("first_told").exists());
    assert_eq!(play.enabled("1"), Some(true));
    wait_for_the_grace();
    play.run(&["resume"]).ok();
    assert_eq!(play.generations(NAME), ["2"], "the old one is removed");
    play.stands(NAME, "continued");
}

#[test]
fn a_grace_may_be_a_year_and_no_longer() {
    let play = Play::with(Scene::in_clear(), &[]);
    let error = play.rotate(&["--grace", "31622401s"]).error(2);
    assert!(error["message"].as_str().unwrap().contains("a year is"));
    let before = SystemTime::now();
    let said = play.rotate(&["--grace", "366d"]).json();
    let until = said["old_key_enabled_until"].as_str().unwrap();
    let until = humantime::parse_rfc3339(until).unwrap();
    let grace = until.duration_since(before).unwrap().as_secs();
    let year = 366 * 86_400;
    assert!((year - 1..year + 60).contains(&grace), "{grace}");
}

#[test]
fn what_was_typed_first_holds_where_nothing_else_is_typed() {
    let mut play = Play::new();
    let script = hook(play.home(), "hook", "touch \"$HOME/told\"");
    play.restart(&["auth:500:2", "auth:500:3", "auth:500:4"]);
    let more = ["--deploy-hook", &script, "--grace", "1h", "--remove-old"];
    play.rotate(&more).error(9);
    play.restart(&[]);
    let said = play.rotate(&[]).json();
    assert!(said["old_key_enabled_until"].is_string(), "{said}");
    assert!(play.home().path("told").exists());
}
