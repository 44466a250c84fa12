//! Many at once: one winner, no second key, nobody who waits for a dead process.

use std::{
    fs,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    scene::{Account, NAME, SCOPE, Scene, base64_of, is_tame},
    support::{Run, Server},
};

const MANY: usize = 20;

/// Starts commands as close together as can be, and waits for all of them.
fn all_at_once(commands: impl IntoIterator<Item = Command>) -> Vec<Run> {
    let children: Vec<Child> = commands
        .into_iter()
        .map(|mut command| command.spawn().unwrap())
        .collect();
    children
        .into_iter()
        .map(|child| Run::of(child.wait_with_output().unwrap()))
        .collect()
}

#[test]
fn twenty_provisions_of_one_name_make_one_key() {
    let scene = Scene::in_clear();
    let server = Server::start(&scene.home, &[]);
    let flags = scene.flags(&server);
    let runs = all_at_once((0..MANY).map(|_| scene.provision(&flags, false)));
    let mut changed = 0;
    for run in &runs {
        is_tame(run, "one of many");
        // 75: it waited for the others as long as it would.
        match run.code {
            Some(0) => changed += usize::from(run.json()["changed"] == true),
            _ => {
                run.error(75);
            }
        }
    }
    assert_eq!(changed, 1, "{runs:#?}");
    scene.stands(&server, false, &flags, "twenty provisions");
}

#[test]
fn twenty_provisions_that_want_different_things_make_one_key() {
    let scene = Scene::in_clear();
    let server = Server::start(&scene.home, &[]);
    let flags = scene.flags(&server);
    let runs = all_at_once((0..MANY).map(|n| scene.provision(&flags, n % 2 == 0)));
    let done: Vec<bool> = runs.iter().map(|run| run.code == Some(0)).collect();
    let with_ip = done.iter().step_by(2).any(|done| *done);
    let without = done.iter().skip(1).step_by(2).any(|done| *done);
    assert!(with_ip != without, "both had their way: {runs:#?}");
    for run in runs.iter().filter(|run| run.code != Some(0)) {
        assert!(matches!(run.code, Some(8 | 75)), "{run:#?}");
    }
    scene.stands(&server, with_ip, &flags, "different wishes");
}

#[test]
fn twenty_resumes_finish_one_key_once() {
    let scene = Scene::in_clear();
    let faults = [
        "--fault",
        "create_api_key:drop-after:1",
        "--fault",
        "list_api_keys:500:1",
    ];
    let server = Server::start(&scene.home, &faults);
    let flags = scene.flags(&server);
    let first = Run::of(scene.provision(&flags, true).output().unwrap());
    first.error(9);
    let resume = || {
        let mut command = scene.home.command(&["--json", "resume"]);
        command.args(&flags);
        command
    };
    let runs = all_at_once((0..MANY).map(|_| resume()));
    let finished = runs
        .iter()
        .filter(|run| run.code == Some(0))
        .filter(|run| run.json()["resumed"].as_array().unwrap().len() == 1);
    assert_eq!(finished.count(), 1, "{runs:#?}");
    assert!(
        runs.iter().all(|run| matches!(run.code, Some(0 | 75))),
        "{runs:#?}"
    );
    scene.stands(&server, true, &flags, "twenty resumes");
}

#[test]
fn twenty_generates_of_one_name_have_one_winner() {
    let scene = Scene::new();
    let command = || {
        let args = ["--json", "generate", NAME, "--no-passphrase", "--insecure"];
        scene.home.command(&args)
    };
    let runs = all_at_once((0..MANY).map(|_| command()));
    let (won, lost): (Vec<&Run>, Vec<&Run>) = runs.iter().partition(|run| run.code == Some(0));
    let [winner] = won.as_slice() else {
        panic!("{} winners: {runs:#?}", won.len());
    };
    for run in lost {
        run.error(8);
    }
    let public = winner.json()["public_key"].as_str().unwrap().to_owned();
    assert_eq!(scene.public(), Some(base64_of(&public)));
    assert_eq!(scene.audit_is_chained("twenty generates"), 1);
    let left: Vec<_> = fs::read_dir(scene.home.store().join("keys"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".new"))
        .collect();
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn twenty_different_names_all_get_their_key() {
    let scene = Scene::new();
    let runs = all_at_once((0..MANY).map(|n| {
        let args = ["--json", "generate", "--no-passphrase", "--insecure"];
        let mut command = scene.home.command(&args);
        command.arg(format!("bot_{n}"));
        command
    }));
    for run in &runs {
        run.json();
    }
    assert_eq!(scene.audit_is_chained("twenty names"), MANY);
}

#[test]
fn seven_different_provisions_fill_the_account_at_once() {
    // Eight keys fit, and one is the administrator's.
    let scene = Scene::in_clear();
    let server = Server::start(&scene.home, &[]);
    let flags = scene.flags(&server);
    let runs = all_at_once((0..7).map(|n| {
        let mut command = scene.home.command(&["--json", "provision"]);
        command.args([&format!("bot_{n}"), "--scope", SCOPE]);
        command.args(&flags);
        command
    }));
    let mut ids: Vec<Value> = runs
        .iter()
        .map(|run| run.json()["key_id"].clone())
        .collect();
    ids.sort_by_key(Value::as_u64);
    ids.dedup();
    assert_eq!(ids.len(), 7, "{runs:#?}");
    assert_eq!(Account::of(&server).asymmetric().len(), 7);
    assert_eq!(scene.pending(), Vec::<Value>::new());
    assert_eq!(scene.audit_is_chained("seven provisions"), 7);
}

#[test]
fn the_lock_of_a_killed_process_holds_nobody_up() {
    let scene = Scene::in_clear();
    let slow = Server::start(&scene.home, &["--fault", "create_api_key:slow:1"]);
    let flags = scene.flags(&slow);
    let mut child = scene.provision(&flags, false).spawn().unwrap();
    let lock = scene.home.store().join("keys/.bot.lock");
    let begun = Instant::now();
    while Account::of(&slow).asymmetric().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20));
        thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(lock.exists());
    let begun = Instant::now();
    scene.recovers(&slow, false, &flags, "killed with the lock");
    assert!(begun.elapsed() < Duration::from_secs(15), "somebody waited");
}
