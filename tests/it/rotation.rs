//! One key in the place of another: a working key at every moment, and a way back.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};

use super::{
    kills::{Bridge, PHASES, Phase},
    raw,
    scene::{self, Account, NAME, SCOPE, Scene, base64_of},
    support::{Home, Run, Server, join},
};

/// A registered key, the exchange that knows it, and a bot that uses it.
pub(crate) struct Play {
    pub(crate) scene: Scene,
    pub(crate) server: Server,
    pub(crate) account: Account,
    /// The exchange itself, whatever stands before it.
    pub(crate) address: String,
}

impl Play {
    pub(crate) fn new() -> Self {
        Self::with(Scene::in_clear(), &[])
    }

    /// One whose key was registered with more flags than a scope.
    pub(crate) fn with(scene: Scene, more: &[&str]) -> Self {
        Self::before(scene, more, |_| ()).0
    }

    /// One that reaches the exchange over a bridge.
    pub(crate) fn bridged(more: &[&str]) -> (Self, Bridge) {
        Self::before(Scene::in_clear(), more, Bridge::before)
    }

    fn before<T>(scene: Scene, more: &[&str], stand: impl FnOnce(&mut Server) -> T) -> (Self, T) {
        let mut server = Server::start(&scene.home, &[]);
        let (account, address) = (Account::of(&server), server.address());
        let stands = stand(&mut server);
        let play = Self {
            account,
            address,
            scene,
            server,
        };
        play.run(&join(&[&["provision", NAME, "--scope", SCOPE], more]))
            .ok();
        (play, stands)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let flags = self.scene.flags(&self.server);
        self.home().command(&join(&[&["--json"], args, &flags]))
    }

    pub(crate) fn run(&self, args: &[&str]) -> Run {
        Run::of(self.command(args).output().unwrap())
    }

    pub(crate) fn rotate(&self, more: &[&str]) -> Run {
        self.run(&join(&[&["rotate", NAME], more]))
    }

    pub(crate) fn home(&self) -> &Home {
        &self.scene.home
    }

    /// The exchange from its saved state, with faults, at the address that it had.
    pub(crate) fn restart(&mut self, faults: &[&str]) {
        let args: Vec<&str> = faults.iter().flat_map(|fault| ["--fault", fault]).collect();
        self.server.stop();
        self.server = (0..20)
            .find_map(|_| {
                let start = || Server::start_at(&self.scene.home, &self.address, &args);
                let server = std::panic::catch_unwind(std::panic::AssertUnwindSafe(start)).ok();
                if server.is_none() {
                    thread::sleep(Duration::from_millis(250));
                }
                server
            })
            .expect("the address stays taken");
    }

    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        self.home().store().join("keys").join(name)
    }

    /// The generation in use.
    pub(crate) fn current(&self, name: &str) -> String {
        let target = fs::read_link(self.dir(name).join("current")).unwrap();
        target.to_str().unwrap().to_owned()
    }

    pub(crate) fn generations(&self, name: &str) -> Vec<String> {
        let entries = fs::read_dir(self.dir(name)).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|entry| entry.parse::<u64>().is_ok())
            .collect();
        names.sort();
        names
    }

    pub(crate) fn public(&self, name: &str, generation: &str) -> String {
        let path = self.dir(name).join(generation).join("public.pem");
        base64_of(&fs::read_to_string(path).unwrap())
    }

    pub(crate) fn record(&self, name: &str, generation: &str) -> String {
        fs::read_to_string(self.dir(name).join(generation).join("key.toml")).unwrap()
    }

    /// What the exchange has of a generation, if it has it.
    pub(crate) fn remote(&self, name: &str, generation: &str) -> Option<Value> {
        let ours = self.public(name, generation);
        let keys = self.account.asymmetric();
        keys.into_iter()
            .find(|key| base64_of(key["public_key"].as_str().unwrap()) == ours)
    }

    /// Whether the exchange lets a generation log in; nothing where it has it not.
    pub(crate) fn enabled(&self, generation: &str) -> Option<bool> {
        self.remote(NAME, generation)
            .map(|key| key["enabled"].as_bool().unwrap())
    }

    #[track_caller]
    pub(crate) fn works(&self, what: &str) {
        if let Err(why) = bot_logs_in(&self.dir(NAME), &self.address) {
            panic!("{what}: {why}: {:#?}", self.account.asymmetric());
        }
    }

    /// Checks that a rotation has ended: one enabled key, ours, in use; at most one to go back
    /// to; nothing that we have no private half of; and nothing to do.
    #[track_caller]
    pub(crate) fn stands(&self, name: &str, what: &str) {
        let keys: Vec<Value> = self
            .account
            .asymmetric()
            .into_iter()
            .filter(|key| key["name"] == name)
            .collect();
        let enabled: Vec<&Value> = keys.iter().filter(|key| key["enabled"] == true).collect();
        assert_eq!(enabled.len(), 1, "{what}: {keys:#?}");
        assert!(keys.len() <= 2, "{what}: {keys:#?}");
        let ours: Vec<String> = self
            .generations(name)
            .iter()
            .map(|generation| self.public(name, generation))
            .collect();
        for key in &keys {
            let theirs = base64_of(key["public_key"].as_str().unwrap());
            assert!(ours.contains(&theirs), "{what}: an orphan: {key:#}");
        }
        assert_eq!(ours.len(), keys.len(), "{what}: {keys:#?}");
        let current = self.remote(name, "current").expect(what);
        assert_eq!(current["enabled"], true, "{what}: {keys:#?}");
        let record = self.record(name, "current");
        assert!(record.contains("state = \"active\""), "{what}: {record}");
        for generation in self.generations(name) {
            let key = self.remote(name, &generation).expect(what);
            let record = self.record(name, &generation);
            let said = record.contains("enabled = true");
            assert_eq!(key["enabled"], said, "{what}: {record}");
        }
        if let Err(why) = bot_logs_in(&self.dir(name), &self.address) {
            panic!("{what}: {why}");
        }
        assert_eq!(self.scene.pending(), Vec::<Value>::new(), "{what}");
        assert_eq!(self.run(&["resume"]).json()["resumed"], json!([]), "{what}");
        self.scene.audit_is_chained(what);
    }
}

/// Logs in as a bot does that reads its key where it always lies.
fn bot_logs_in(dir: &Path, address: &str) -> Result<String, String> {
    static NONCE: AtomicU64 = AtomicU64::new(0);
    let generation = fs::read_link(dir.join("current")).map_err(|e| e.to_string())?;
    let read = |file: &str| {
        fs::read_to_string(dir.join("current").join(file)).map_err(|e| format!("{file}: {e}"))
    };
    let der = BASE64_STANDARD
        .decode(base64_of(&read("private.pem")?))
        .map_err(|e| e.to_string())?;
    let seed: [u8; 32] = der[der.len() - 32..].try_into().unwrap();
    let record = read("key.toml")?;
    let client_id = record
        .lines()
        .find_map(|line| line.strip_prefix("client_id = "))
        .ok_or("no client id")?
        .trim_matches('"');
    let millis = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis();
    let nonce = format!(
        "b{}x{}",
        std::process::id(),
        NONCE.fetch_add(1, Ordering::Relaxed)
    );
    let text = format!("{millis}\n{nonce}\n");
    let signature = SigningKey::from_bytes(&seed).sign(text.as_bytes());
    let answer = raw::call(
        address,
        None,
        "public/auth",
        &json!({
            "grant_type": "client_signature",
            "client_id": client_id,
            "timestamp": u64::try_from(millis).unwrap(),
            "nonce": nonce,
            "data": "",
            "signature": BASE64_URL_SAFE_NO_PAD.encode(signature.to_bytes()),
        }),
    );
    if answer["result"]["access_token"].is_string() {
        return Ok(client_id.to_owned());
    }
    // The switch may have come between the reading and the login.
    if fs::read_link(dir.join("current")).is_ok_and(|now| now != generation) {
        return bot_logs_in(dir, address);
    }
    Err(format!(
        "generation {} cannot log in: {answer}",
        generation.display()
    ))
}

/// A bot that logs in again and again until it is stopped.
struct Bot {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<Vec<String>, String>>,
}

impl Bot {
    fn start(play: &Play) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (dir, address, seen) = (play.dir(NAME), play.address.clone(), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut used = Vec::new();
            loop {
                let last = seen.load(Ordering::Relaxed);
                used.push(bot_logs_in(&dir, &address)?);
                if last {
                    return Ok(used);
                }
            }
        });
        Self { stop, thread }
    }

    /// The client ids that it used, each once.
    #[track_caller]
    fn used(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut used = self.thread.join().unwrap().unwrap();
        used.dedup();
        used
    }
}

/// Writes a program for `--deploy-hook`.
pub(crate) fn hook(home: &Home, name: &str, text: &str) -> String {
    let path = home.path(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_new_key_is_what_the_old_one_was_and_the_old_one_is_disabled() {
    let play = Play::with(
        Scene::in_clear(),
        &[
            "--ip",
            "127.0.0.1",
            "--ip",
            "10.1.2.3",
            "--label",
            "desk_7",
            "--feature",
            "restricted_block_trades",
        ],
    );
    let before = play.remote(NAME, "1").unwrap();
    let bot = Bot::start(&play);
    let said = play.rotate(&[]).json();
    let used = bot.used();

    let (old, new) = (
        play.remote(NAME, "1").unwrap(),
        play.remote(NAME, "2").unwrap(),
    );
    assert_eq!(play.current(NAME), "2");
    for field in ["max_scope", "ip_whitelist", "name", "enabled_features"] {
        assert!(before[field].is_string() || before[field].is_array());
        assert_eq!(new[field], before[field], "{field}");
        assert_eq!(old[field], before[field], "{field}");
    }
    assert_eq!(
        (&old["enabled"], &new["enabled"]),
        (&json!(false), &json!(true))
    );
    assert_ne!(play.public(NAME, "1"), play.public(NAME, "2"));

    let id = |key: &Value| key["client_id"].as_str().unwrap().to_owned();
    assert_eq!(used, [id(&old), id(&new)], "first the one, then the other");
    assert_eq!(said["client_id"], new["client_id"]);
    assert_eq!(said["key_id"], new["id"]);
    assert_eq!(said["label"], "desk_7");
    assert_eq!(said["generation"], 2);
    assert_eq!(said["changed"], true);
    assert_eq!(said["old_key_enabled_until"], Value::Null);
    assert_eq!(said["max_scope"], SCOPE);
    assert_eq!(said["fingerprint_verified"], true);
    assert_eq!(said["ip_whitelist"].as_array().unwrap().len(), 2);
    assert!(base64_of(said["public_key"].as_str().unwrap()) == play.public(NAME, "2"));

    let (was, is) = (play.record(NAME, "1"), play.record(NAME, "2"));
    assert!(was.contains("state = \"retired\""), "{was}");
    assert!(was.contains("enabled = false"), "{was}");
    assert!(is.contains("state = \"active\""), "{is}");
    assert!(is.contains("proven = "), "{is}");
    assert_eq!(play.scene.pending(), Vec::<Value>::new());
    // An independent login with the new key proves it; the old one is of no use any more.
    play.works("rotated");
    let log = raw::inspect(play.home(), |admin| admin.events_of(&id(&new)));
    assert!(!log.is_empty(), "the new key was proven by a login");
}

#[test]
fn the_old_key_goes_if_that_was_asked_for() {
    let play = Play::new();
    let old = play.public(NAME, "1");
    let bot = Bot::start(&play);
    play.rotate(&["--remove-old"]).ok();
    assert_eq!(bot.used().len(), 2);
    assert_eq!(play.generations(NAME), ["2"]);
    let keys = play.account.asymmetric();
    assert_eq!(keys.len(), 1, "{keys:#?}");
    assert_ne!(base64_of(keys[0]["public_key"].as_str().unwrap()), old);
    let trash = scene::files(&play.home().store().join("trash"));
    assert!(
        trash.iter().any(|path| path.ends_with("private.pem")),
        "a private half is never unlinked: {trash:?}"
    );
    play.stands(NAME, "removed");
    let error = play.run(&["rollback", NAME]).error(8);
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("no earlier key")
    );
    play.stands(NAME, "refused");
}

#[test]
fn the_superseded_key_makes_room_for_the_next_one() {
    let play = Play::new();
    play.rotate(&[]).ok();
    let first = play.public(NAME, "1");
    // Six more and the administrator's: with the superseded one the account is full.
    let mut more = 0;
    while play.account.keys().len() < 8 {
        more += 1;
        let name = format!("other{more}");
        play.run(&["provision", &name, "--scope", SCOPE]).ok();
    }
    let bot = Bot::start(&play);
    play.rotate(&[]).ok();
    assert_eq!(bot.used().len(), 2);
    assert_eq!(play.generations(NAME), ["2", "3"]);
    assert_eq!(play.account.keys().len(), 8);
    let theirs: Vec<String> = play
        .account
        .asymmetric()
        .iter()
        .map(|key| base64_of(key["public_key"].as_str().unwrap()))
        .collect();
    assert!(!theirs.contains(&first), "the superseded one made room");
    play.stands(NAME, "full");
    // Another one has nothing to make room with.
    let before = (play.account.keys(), play.record("other1", "1"));
    let refused = play.run(&["rotate", "other1"]);
    assert!(!matches!(refused.code, Some(0 | 9) | None), "{refused:#?}");
    let error = refused.error(refused.code.unwrap());
    assert!(error["hint"].as_str().unwrap().contains("eight keys"));
    assert_eq!(refused.stdout, "");
    assert_eq!(play.generations("other1"), ["1"]);
    assert_eq!((play.account.keys(), play.record("other1", "1")), before);
    assert_eq!(play.scene.pending(), Vec::<Value>::new());
    play.stands("other1", "no room");
}

#[test]
fn the_hook_is_told_of_the_new_key_and_of_no_secret() {
    let play = Play::with(Scene::new(), &[]);
    let sealed = play
        .home()
        .secret_file("again", "correct horse battery staple");
    let store = play.home().store();
    let script = hook(
        play.home(),
        "hook",
        &format!(
            "cat > \"$HOME/event\"; env > \"$HOME/env\"; echo \"$@\" > \"$HOME/args\"\n\
             readlink '{}/keys/bot/current' > \"$HOME/in_use\"; echo noise; echo more >&2",
            store.display()
        ),
    );
    let line = format!("'{script}' one 'two words' '$HOME'");
    let run = play.rotate(&["--deploy-hook", &line]);
    let said = run.json();
    assert!(!run.stdout.contains("noise"), "{run:#?}");
    assert!(run.stderr.contains("noise") && run.stderr.contains("more"));
    let read = |name: &str| fs::read_to_string(play.home().path(name)).unwrap();
    assert_eq!(read("args").trim(), "one two words $HOME", "no shell");
    assert_eq!(read("in_use").trim(), "1", "deployed before it is switched");
    let (event, env) = (read("event"), read("env"));
    let event_json: Value = serde_json::from_str(&event).unwrap();
    let old = play.remote(NAME, "1").unwrap();
    for (field, value) in [
        ("event", json!("deploy")),
        ("operation", json!("rotate")),
        ("name", json!(NAME)),
        ("generation", json!(2)),
        ("client_id", said["client_id"].clone()),
        ("key_id", said["key_id"].clone()),
        ("fingerprint", said["fingerprint"].clone()),
        ("old_client_id", old["client_id"].clone()),
    ] {
        assert_eq!(event_json[field], value, "{event}");
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        let variable = format!("DERIKEY_{}={text}", field.to_uppercase());
        assert!(
            env.lines().any(|line| line == variable),
            "{variable}: {env}"
        );
    }
    let path = event_json["private_key_path"].as_str().unwrap();
    assert_eq!(Path::new(path), store.join("keys/bot/2/private.pem"));
    let admin = fs::read_to_string(&play.server.admin_secret_file).unwrap();
    let private = fs::read_to_string(path).unwrap();
    for text in [&event, &env, &run.stdout, &run.stderr] {
        for secret in [
            fs::read_to_string(&sealed).unwrap().trim(),
            admin.trim(),
            private.lines().nth(1).unwrap(),
            "PRIVATE KEY",
        ] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[test]
fn a_hook_that_fails_takes_the_rotation_back() {
    let play = Play::new();
    let failing = hook(play.home(), "failing", "echo noise; exit 3");
    let killed = hook(play.home(), "killed", "kill -9 $$");
    let plain = play.home().secret_file("plain", "no program");
    let record = play.record(NAME, "1");
    for line in [
        failing.as_str(),
        killed.as_str(),
        "/nowhere/at/all",
        plain.to_str().unwrap(),
    ] {
        let bot = Bot::start(&play);
        let run = play.rotate(&["--deploy-hook", line]);
        assert_eq!(bot.used().len(), 1, "{line}");
        let error = run.error(1);
        assert_eq!(run.stdout, "", "{line}");
        assert!(
            error["message"].as_str().unwrap().contains("hook"),
            "{error}"
        );
        assert_eq!(play.current(NAME), "1", "{line}");
        assert_eq!(play.account.asymmetric().len(), 1, "{line}");
        assert_eq!(play.record(NAME, "1"), record, "{line}");
        play.stands(NAME, line);
    }
    // What is no command line is refused before anything happens.
    for line in ["", "'open"] {
        play.rotate(&["--deploy-hook", line]).error(2);
        play.stands(NAME, line);
    }
    play.rotate(&[]).ok();
    play.stands(NAME, "mended");
}

#[test]
fn a_rotation_that_is_taken_back_and_killed_never_ends_with_no_key() {
    let mut tried = 0;
    for phase in PHASES {
        for at in 0..12 {
            let (play, bridge) = Play::bridged(&[]);
            let script = hook(
                play.home(),
                "hook",
                "test -e \"$HOME/content\" && exit 0; exit 1",
            );
            let mut command = play.command(&["rotate", NAME, "--deploy-hook", &script]);
            let what = format!("taken back, killed at {at}, {phase:?}");
            if phase == Phase::BeforeTheExchange && at == 0 {
                bridge.hold(None);
                Run::of(command.output().unwrap()).error(1);
                tried = bridge.calls().len();
                assert!(bridge.calls().contains(&"private/remove_api_key".into()));
                play.stands(NAME, "unharmed");
                continue;
            }
            if at >= tried {
                break;
            }
            bridge.kill(
                play.command(&["rotate", NAME, "--deploy-hook", &script]),
                at,
                phase,
            );
            play.works(&what);
            // The program is content when it is asked again.
            fs::write(play.home().path("content"), "").unwrap();
            let resumed = play.run(&["resume"]);
            play.works(&format!("{what}: {resumed:#?}"));
            play.run(&["resume"]).ok();
            play.stands(NAME, &what);
        }
    }
    assert!(tried > 4);
}

#[test]
fn the_old_key_stays_enabled_until_its_grace_ends() {
    let play = Play::new();
    let said = play.rotate(&["--grace", "2s"]).json();
    assert!(said["old_key_enabled_until"].is_string(), "{said}");
    assert_eq!(play.current(NAME), "2");
    assert_eq!(
        (play.enabled("1"), play.enabled("2")),
        (Some(true), Some(true))
    );
    assert_eq!(play.scene.pending().len(), 1);
    let early = play.run(&["resume"]).json();
    assert_eq!(early["resumed"][0]["changed"], false, "{early}");
    assert_eq!(play.enabled("1"), Some(true));
    assert_eq!(play.scene.pending()[0]["stage"], "switched");
    // Nothing else begins in between.
    play.rotate(&[]).error(8);
    assert_eq!(play.generations(NAME), ["1", "2"]);
    thread::sleep(Duration::from_millis(2100));
    let late = play.run(&["resume"]).json();
    assert_eq!(late["resumed"][0]["changed"], true, "{late}");
    assert_eq!(
        (play.enabled("1"), play.enabled("2")),
        (Some(false), Some(true))
    );
    play.stands(NAME, "after the grace");
}

#[test]
fn there_is_a_way_back_during_the_grace_and_after() {
    for grace in ["1h", "0s"] {
        let play = Play::new();
        play.run(&["rollback", NAME]).error(8);
        play.stands(NAME, "nothing to go back to");
        play.rotate(&["--grace", grace]).ok();
        let bot = Bot::start(&play);
        let said = play.run(&["rollback", NAME]).json();
        assert_eq!(bot.used().len(), 2, "{grace}");
        assert_eq!(said["generation"], 1, "{grace}");
        assert_eq!(play.current(NAME), "1", "{grace}");
        assert_eq!(
            (play.enabled("1"), play.enabled("2")),
            (Some(true), Some(false))
        );
        play.stands(NAME, grace);
        // And forth again, and on.
        play.run(&["rollback", NAME]).ok();
        assert_eq!(play.current(NAME), "2", "{grace}");
        play.stands(NAME, "forth");
        play.rotate(&[]).ok();
        play.stands(NAME, "on");
        assert_eq!(play.generations(NAME), ["2", "3"]);
    }
}

#[test]
fn there_is_no_way_back_on_another_network() {
    let mut play = Play::new();
    play.rotate(&[]).ok();
    let right = play.server.endpoint.clone();
    play.server.endpoint = "http://127.0.0.1:9/api/v2".into();
    play.run(&["rollback", NAME]).error(8);
    assert_eq!(play.current(NAME), "2");
    play.server.endpoint = right;
    play.stands(NAME, "refused");
}

#[test]
fn a_way_back_that_a_hook_refuses_stays_open() {
    let play = Play::new();
    play.rotate(&[]).ok();
    let failing = hook(play.home(), "failing", "exit 3");
    play.run(&["rollback", NAME, "--deploy-hook", &failing])
        .error(1);
    assert_eq!(play.current(NAME), "2");
    play.stands(NAME, "refused");
    assert!(play.record(NAME, "1").contains("state = \"retired\""));
    play.run(&["rollback", NAME]).ok();
    assert_eq!(play.current(NAME), "1");
    play.stands(NAME, "back");
}

/// An account whose keys are managed by a key in the keystore.
fn with_own_admin() -> (Play, Bridge) {
    let (play, bridge) = Play::bridged(&[]);
    let scope = "account:read_write trade:read_write";
    play.run(&["provision", "boss", "--yes", "--scope", scope])
        .ok();
    bridge.hold(None);
    (play, bridge)
}

/// Runs a command that the administrator's own key is the operator of.
fn by_boss(play: &Play, args: &[&str]) -> Command {
    let mut flags = play.server.network();
    flags.extend(["--admin", "boss"]);
    if args[0] != "edit" {
        flags.extend(["--no-passphrase", "--insecure"]);
    }
    play.home().command(&join(&[&["--json"], args, &flags]))
}

#[test]
fn the_administrator_rotates_its_own_key_with_itself() {
    for more in [&[][..], &["--remove-old"], &["--grace", "1s"]] {
        let (play, _bridge) = with_own_admin();
        let run = |args: &[&str]| Run::of(by_boss(&play, args).output().unwrap());
        run(&join(&[&["rotate", "boss"], more])).ok();
        if more.contains(&"--grace") {
            thread::sleep(Duration::from_millis(1100));
            run(&["resume"]).ok();
        }
        play.stands("boss", "rotated itself");
        // It still manages keys: the way back, another rotation, another key.
        if !more.contains(&"--remove-old") {
            run(&["rollback", "boss"]).ok();
            assert_eq!(play.current("boss"), "1");
            play.stands("boss", "went back by itself");
        }
        run(&["rotate", "boss"]).ok();
        play.stands("boss", "rotated itself again");
        run(&["rotate", NAME]).ok();
        play.stands(NAME, "rotated by it");
    }
}

#[test]
fn the_administrator_that_is_killed_while_it_rotates_itself_is_never_locked_out() {
    let (play, bridge) = with_own_admin();
    Run::of(by_boss(&play, &["rotate", "boss"]).output().unwrap()).ok();
    let calls = bridge.calls();
    assert!(calls.len() >= 5, "{calls:?}");
    drop(play);
    for phase in PHASES {
        for (call, method) in calls.iter().enumerate() {
            let what = format!("boss killed at {method} ({call}), {phase:?}");
            let (play, bridge) = with_own_admin();
            bridge.kill(by_boss(&play, &["rotate", "boss"]), call, phase);
            if let Err(why) = bot_logs_in(&play.dir("boss"), &play.address) {
                panic!("{what}: {why}");
            }
            let resumed = Run::of(by_boss(&play, &["resume"]).output().unwrap());
            assert_eq!(resumed.code, Some(0), "{what}: {resumed:#?}");
            play.stands("boss", &what);
        }
    }
}

#[test]
fn only_what_is_due_is_rotated_and_one_failure_stops_no_other() {
    let play = Play::new();
    for name in ["aaa", "mmm", "zzz"] {
        play.run(&["provision", name, "--scope", SCOPE]).ok();
    }
    // Two of them have grown old.
    for name in ["aaa", "bot", "mmm"] {
        let path = play.dir(name).join("1/key.toml");
        let text = fs::read_to_string(&path).unwrap();
        let aged: String = text
            .lines()
            .map(|line| {
                if line.starts_with("created = ") {
                    "created = \"2026-01-01T00:00:00Z\"\n".to_owned()
                } else {
                    format!("{line}\n")
                }
            })
            .collect();
        assert_ne!(aged, text);
        fs::write(&path, aged).unwrap();
    }
    let all = ["rotate", "--all", "--older-than", "90d"];
    // The first one is damaged.
    fs::write(play.dir("aaa").join("1/key.toml"), "damaged").unwrap();
    let run = play.run(&all);
    assert!(!matches!(run.code, Some(0) | None), "{run:#?}");
    assert!(run.stderr.contains("aaa"), "{run:#?}");
    let current = |name| play.current(name);
    assert_eq!(
        ["aaa", "bot", "mmm", "zzz"].map(current),
        ["1", "2", "2", "1"]
    );
    for name in ["bot", "mmm", "zzz"] {
        play.stands(name, "due or not");
    }
    // The rotated ones are young.
    fs::remove_dir_all(play.dir("aaa")).unwrap();
    assert_eq!(play.run(&all).json()["rotated"], json!([]));
    play.run(&["rotate", NAME, "--older-than", "90d"]).error(2);
    let rotated = play.run(&["rotate", "--all"]).json();
    assert_eq!(rotated["rotated"].as_array().unwrap().len(), 3);
    // One in its grace has its new key already.
    play.run(&["rotate", NAME, "--grace", "1h"]).ok();
    let rotated = play.run(&["rotate", "--all"]).json();
    assert_eq!(rotated["rotated"].as_array().unwrap().len(), 2);
    assert_eq!(play.scene.pending().len(), 1);
}

#[test]
fn one_key_that_the_exchange_refuses_stops_no_other() {
    let mut play = Play::new();
    for name in ["mmm", "zzz"] {
        play.run(&["provision", name, "--scope", SCOPE]).ok();
    }
    // The second rotation cannot disable the old key.
    play.restart(&["disable_api_key:500:2"]);
    let run = play.run(&["rotate", "--all"]);
    assert_eq!(run.code, Some(9), "{run:#?}");
    assert!(run.stderr.contains("mmm"), "{run:#?}");
    assert_eq!(
        ["bot", "mmm", "zzz"].map(|name| play.current(name)),
        ["2"; 3]
    );
    play.run(&["resume"]).ok();
    for name in ["bot", "mmm", "zzz"] {
        play.stands(name, "resumed");
    }
}

/// Lets one rotation meet faults, and looks at what `resume` makes of it.
fn survives(faults: &[&str], ip: bool) {
    let more: &[&str] = if ip { &["--ip", "127.0.0.1"] } else { &[] };
    let what = format!("{faults:?}, whitelist: {ip}");
    let mut play = Play::with(Scene::in_clear(), more);
    play.restart(faults);
    let run = play.rotate(&["--timeout", "1"]);
    assert!(!run.stderr.contains("panicked"), "{what}: {run:#?}");
    play.restart(&[]);
    play.works(&what);
    if run.code == Some(0) {
        play.stands(NAME, &what);
        return;
    }
    let error = run.error(run.code.unwrap());
    assert!(error["hint"].is_string(), "{what}: {error}");
    if play.scene.pending().is_empty() {
        assert_eq!(play.current(NAME), "1", "{what}");
        play.stands(NAME, &what);
        return;
    }
    let resumed = play.run(&["resume"]);
    assert_eq!(resumed.code, Some(0), "{what}: {run:#?} {resumed:#?}");
    play.stands(NAME, &what);
    assert_eq!(play.current(NAME), "2", "{what}");
}

const ANY: [&str; 7] = [
    "drop-before",
    "drop-after",
    "after-500",
    "garbage",
    "rate-limit",
    "maintenance",
    "unauthorized",
];

#[test]
fn a_fault_where_the_new_key_is_made_loses_nothing() {
    for kind in ANY.iter().chain(&["wrong-fingerprint", "echo", "both"]) {
        survives(&[&format!("create_api_key:{kind}")], false);
    }
    survives(&["create_api_key:drop-after", "list_api_keys:500"], false);
}

#[test]
fn a_resume_that_is_refused_forgets_no_successor() {
    for fault in ["auth:unauthorized", "list_api_keys:unauthorized"] {
        let mut play = Play::new();
        // The exchange has the new key; the answer was lost, and so was the look at the account.
        play.restart(&["create_api_key:drop-after", "list_api_keys:500:2"]);
        play.rotate(&["--timeout", "1"]).error(9);
        let ours = play.public(NAME, "2");
        play.restart(&[fault]);
        let run = play.run(&["resume"]);
        assert_ne!(run.code, Some(0), "{fault}: {run:#?}");
        assert_eq!(play.scene.pending().len(), 1, "{fault}: {run:#?}");
        assert_eq!(play.public(NAME, "2"), ours, "{fault}");
        play.restart(&[]);
        play.run(&["resume"]).json();
        play.stands(NAME, fault);
        assert_eq!(play.public(NAME, "current"), ours, "{fault}");
    }
}

#[test]
fn a_fault_where_the_old_key_is_disabled_loses_nothing() {
    for kind in [
        "drop-before",
        "drop-after",
        "garbage",
        "unauthorized",
        "both",
    ] {
        survives(&[&format!("disable_api_key:{kind}")], false);
    }
}

#[test]
fn a_fault_where_the_new_key_gets_its_rights_loses_nothing() {
    for kind in ["drop-before", "after-500", "rate-limit", "wrong-scope"] {
        survives(&[&format!("edit_api_key:{kind}")], true);
    }
}

#[test]
fn a_fault_where_the_new_key_proves_itself_loses_nothing() {
    for kind in ["drop-before", "after-500", "unauthorized", "wrong-scope"] {
        // A login is tried three times at most; the first one is the administrator's.
        let faults: Vec<String> = (2..5).map(|nth| format!("auth:{kind}:{nth}")).collect();
        let faults: Vec<&str> = faults.iter().map(String::as_str).collect();
        survives(&faults, false);
    }
    // The second proof, with a whitelist.
    let faults = ["auth:500:3", "auth:500:4", "auth:500:5"];
    survives(&faults, true);
}

/// Kills one command at each of its calls; the old or the new key works, and `resume` ends it.
fn killed_at_every_call(more: &[&str], before: &[&[&str]], args: &[&str], in_use: &str) {
    let stage = || {
        let (play, bridge) = Play::bridged(more);
        for args in before {
            play.run(args).ok();
        }
        bridge.hold(None);
        (play, bridge)
    };
    let (play, bridge) = stage();
    play.run(args).ok();
    let calls = bridge.calls();
    assert!(calls.len() >= 4, "{calls:?}");
    play.stands(NAME, "unharmed");
    drop(play);
    for phase in PHASES {
        for (call, method) in calls.iter().enumerate() {
            let what = format!("{args:?} killed at {method} ({call}), {phase:?}");
            let (play, bridge) = stage();
            bridge.kill(play.command(args), call, phase);
            play.works(&what);
            let resumed = play.run(&["resume"]);
            assert_eq!(resumed.code, Some(0), "{what}: {resumed:#?}");
            if resumed.json()["resumed"] == json!([]) {
                // Nothing had been announced.
                play.works(&what);
                play.run(args).ok();
            }
            play.stands(NAME, &what);
            assert_eq!(play.current(NAME), in_use, "{what}");
        }
    }
}

#[test]
fn rotate_killed_at_any_call_leaves_a_key_that_works() {
    killed_at_every_call(&[], &[], &["rotate", NAME], "2");
}

#[test]
fn rotate_with_a_whitelist_killed_at_any_call_leaves_a_key_that_works() {
    let whitelist = ["--ip", "127.0.0.1"];
    killed_at_every_call(&whitelist, &[], &["rotate", NAME, "--remove-old"], "2");
}

#[test]
fn a_second_rotate_killed_at_any_call_leaves_a_key_that_works() {
    killed_at_every_call(&[], &[&["rotate", NAME]], &["rotate", NAME], "3");
}

#[test]
fn rollback_killed_at_any_call_leaves_a_key_that_works() {
    killed_at_every_call(&[], &[&["rotate", NAME]], &["rollback", NAME], "1");
}

#[test]
fn a_rollback_in_a_grace_killed_at_any_call_leaves_a_key_that_works() {
    let before: [&[&str]; 1] = [&["rotate", NAME, "--grace", "1h"]];
    killed_at_every_call(&[], &before, &["rollback", NAME], "1");
}

#[test]
fn a_resume_of_a_rotation_that_is_killed_too_leaves_a_key_that_works() {
    for (first, phase) in [(1, Phase::BeforeTheAnswer), (3, Phase::BeforeTheExchange)] {
        for call in 0..5 {
            let (play, bridge) = Play::bridged(&[]);
            bridge.kill(play.command(&["rotate", NAME]), first, phase);
            let what = format!("killed at {first}, resume killed at {call}");
            // It may not make so many calls.
            let mut probe = play.command(&["resume"]).spawn().unwrap();
            thread::sleep(Duration::from_millis(10 * call));
            let _ = probe.kill();
            probe.wait().unwrap();
            play.works(&what);
            play.run(&["resume"]).ok();
            play.stands(NAME, &what);
        }
    }
}

#[test]
fn remove_takes_the_superseded_key_away_too_and_can_be_killed_at_any_call() {
    let remove = ["remove", NAME, "--yes"];
    let stage = || {
        let (play, bridge) = Play::bridged(&[]);
        play.rotate(&[]).ok();
        bridge.hold(None);
        (play, bridge)
    };
    let (play, bridge) = stage();
    let run = |play: &Play, args: &[&str]| {
        let admin = play.server.admin();
        play.home().command(&join(&[&["--json"], args, &admin]))
    };
    Run::of(run(&play, &remove).output().unwrap()).ok();
    let calls = bridge.calls();
    assert_eq!(play.account.asymmetric(), Vec::<Value>::new());
    for phase in PHASES {
        for (call, method) in calls.iter().enumerate() {
            let what = format!("remove killed at {method} ({call}), {phase:?}");
            let (play, bridge) = stage();
            bridge.kill(run(&play, &remove), call, phase);
            Run::of(run(&play, &["resume"]).output().unwrap()).ok();
            if play.dir(NAME).exists() {
                Run::of(run(&play, &remove).output().unwrap()).ok();
            }
            assert_eq!(play.account.asymmetric(), Vec::<Value>::new(), "{what}");
            assert_eq!(play.scene.pending(), Vec::<Value>::new(), "{what}");
            assert!(!play.dir(NAME).exists(), "{what}");
        }
    }
}

#[test]
fn a_removal_that_was_killed_at_the_trash_can_be_finished() {
    let (play, bridge) = Play::bridged(&[]);
    let admin = play.server.admin();
    let remove = join(&[&["--json", "remove", NAME, "--yes"], &admin]);
    bridge.hold(None);
    let mut probe = play.home().command(&remove);
    Run::of(probe.output().unwrap()).ok();
    let last = bridge.calls().len() - 1;
    assert_eq!(bridge.calls()[last], "private/remove_api_key");
    drop(play);
    let (play, bridge) = Play::bridged(&[]);
    let admin = play.server.admin();
    let remove = join(&[&["--json", "remove", NAME, "--yes"], &admin]);
    bridge.kill(play.home().command(&remove), last, Phase::BeforeTheAnswer);
    // What comes next is the move to the trash.
    let trash = play.home().store().join("trash");
    fs::create_dir_all(&trash).unwrap();
    fs::set_permissions(&trash, fs::Permissions::from_mode(0o700)).unwrap();
    fs::rename(play.dir(NAME), trash.join("bot-1")).unwrap();
    let resume = join(&[&["--json", "resume"], &admin]);
    play.home().run(&resume).ok();
    assert_eq!(play.scene.pending(), Vec::<Value>::new());
    assert_eq!(play.account.asymmetric(), Vec::<Value>::new());
}

#[test]
fn a_hook_that_takes_too_long_is_ended_and_counts_as_failed() {
    // The first attempt is interrupted before the hook; its time is in the journal.
    let bench = crate::manage::Bench::with_faults(&["create_api_key:drop-before:2"]);
    let old = bench.trader("bot");
    let script = hook(
        &bench.home,
        "hook",
        "echo $$ > \"$HOME/pid\"; exec sleep 600",
    );
    let plain = ["--no-passphrase", "--insecure"];
    let timeout = ["--deploy-hook", &script, "--hook-timeout", "1s"];
    bench
        .run(&join(&[&["rotate", "bot"], &timeout, &plain]))
        .error(9);
    let begun = Instant::now();
    for args in [&["resume"][..], &join(&[&["rotate", "bot"], &timeout])] {
        let error = bench.run(&join(&[args, &plain])).error(1);
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("took longer than 1 s"), "{error}");
        let pid = fs::read_to_string(bench.home.path("pid")).unwrap();
        let process = format!("/proc/{}", pid.trim());
        assert!(!Path::new(&process).exists(), "it is left running");
        assert_eq!(bench.remote(&old["client_id"])["enabled"], true);
        assert_eq!(bench.show("bot")["client_id"], old["client_id"]);
        assert_eq!(bench.pending(), json!([]));
        assert_eq!(bench.admin().keys().len(), 1, "the new key was taken back");
    }
    // Far from the minute that is usual.
    assert!(begun.elapsed() < Duration::from_secs(50));

    for bad in ["0s", "500ms", "2days", "soon"] {
        let args = [
            "rotate",
            "bot",
            "--deploy-hook",
            &script,
            "--hook-timeout",
            bad,
        ];
        bench.run(&args).error(2);
    }
    bench
        .run(&["rotate", "bot", "--hook-timeout", "1s"])
        .error(2);
}
