//! The program dies at every call that it makes, and at many steps in between.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

use super::{
    scene::{Account, NAME, SCOPE, Scene, files},
    support::{Home, Run, Server, installed},
};

/// Where a call is held back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Phase {
    /// The exchange does not hear of it.
    BeforeTheExchange,
    /// The exchange has answered; the answer does not arrive.
    BeforeTheAnswer,
}

pub(crate) const PHASES: [Phase; 2] = [Phase::BeforeTheExchange, Phase::BeforeTheAnswer];

/// What goes over a bridge.
struct Traffic {
    /// The methods called, in order.
    calls: Vec<String>,
    /// Which call to hold, counted from 0, and where.
    hold: Option<(usize, Phase)>,
}

/// Stands between the program and the exchange, and can hold one call for ever.
pub(crate) struct Bridge {
    traffic: Arc<Mutex<Traffic>>,
    held: Receiver<()>,
}

impl Bridge {
    /// Stands before `server`, which is from then on reached over it.
    pub(crate) fn before(server: &mut Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let upstream = server.address();
        let traffic = Arc::new(Mutex::new(Traffic {
            calls: Vec::new(),
            hold: None,
        }));
        let (tell, held) = mpsc::channel();
        let shared = Arc::clone(&traffic);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (traffic, tell, upstream) =
                    (Arc::clone(&shared), tell.clone(), upstream.clone());
                thread::spawn(move || carry(client.unwrap(), &upstream, &traffic, &tell));
            }
        });
        server.endpoint = format!("http://{address}/api/v2");
        Self { traffic, held }
    }

    pub(crate) fn hold(&self, hold: Option<(usize, Phase)>) {
        let mut traffic = self.traffic.lock().unwrap();
        traffic.calls.clear();
        traffic.hold = hold;
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.traffic.lock().unwrap().calls.clone()
    }

    /// Runs a command until its call is held, and kills it there.
    #[track_caller]
    pub(crate) fn kill(&self, mut command: Command, call: usize, phase: Phase) {
        self.hold(Some((call, phase)));
        let mut child = command.spawn().unwrap();
        let held = self.held.recv_timeout(Duration::from_secs(30));
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(held.is_ok(), "call {call} never came: {output:?}");
        assert_eq!(output.status.code(), None, "it ended by itself");
        self.hold(None);
    }
}

/// Carries the requests of one connection over.
fn carry(
    mut client: TcpStream,
    upstream: &str,
    traffic: &Mutex<Traffic>,
    tell: &Sender<()>,
) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    loop {
        let (head, request) = message(&mut reader)?;
        let path = head.split(' ').nth(1)?.to_owned();
        let phase = {
            let mut traffic = traffic.lock().unwrap();
            let call = traffic.calls.len();
            traffic
                .calls
                .push(path.trim_start_matches("/api/v2/").into());
            traffic
                .hold
                .filter(|(held, _)| *held == call)
                .map(|(_, phase)| phase)
        };
        let hold = |mut client: TcpStream| {
            tell.send(()).ok()?;
            // Until the other end is dead.
            let _ = client.read_to_end(&mut Vec::new());
            None
        };
        if phase == Some(Phase::BeforeTheExchange) {
            return hold(client);
        }
        let mut server = TcpStream::connect(upstream).ok()?;
        server.write_all(&request).ok()?;
        let (_, answer) = message(&mut BufReader::new(server))?;
        if phase == Some(Phase::BeforeTheAnswer) {
            return hold(client);
        }
        client.write_all(&answer).ok()?;
        let last = String::from_utf8_lossy(&request).contains("Connection: close");
        if last {
            return None;
        }
    }
}

/// Reads one HTTP message that says how long it is; returns its first line, and all of it.
pub(crate) fn message(reader: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let mut whole = Vec::new();
    let mut length = 0;
    let mut first = None;
    loop {
        let begins = whole.len();
        if reader.read_until(b'\n', &mut whole).ok()? == 0 {
            return None;
        }
        let line = String::from_utf8_lossy(whole.get(begins..)?).to_ascii_lowercase();
        if let Some(number) = line.strip_prefix("content-length:") {
            length = number.trim().parse().ok()?;
        }
        first.get_or_insert(line.clone());
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    whole.extend(body);
    Some((first?, whole))
}

/// A command that registers the key.
#[derive(Clone, Copy, Debug)]
enum Registering {
    Provision,
    ProvisionWithWhitelist,
    Register,
}

impl Registering {
    const fn whitelisted(self) -> bool {
        matches!(self, Self::ProvisionWithWhitelist)
    }

    /// The calls that it makes when nothing goes wrong.
    fn calls(self) -> Vec<&'static str> {
        let mut calls = vec!["public/auth", "private/create_api_key", "public/auth"];
        if self.whitelisted() {
            calls.extend(["private/edit_api_key", "public/auth"]);
        }
        calls
    }

    fn command(self, scene: &Scene, flags: &[&str]) -> Command {
        match self {
            Self::Provision => scene.provision(flags, false),
            Self::ProvisionWithWhitelist => scene.provision(flags, true),
            Self::Register => {
                let args = ["--json", "register", NAME, "--scope", SCOPE];
                let mut command = scene.home.command(&args);
                command.args(flags);
                command
            }
        }
    }

    /// A keystore, an exchange and the bridge to it, just before the command.
    fn stage(self, scene: Scene) -> (Scene, Server, Bridge) {
        let mut server = Server::start(&scene.home, &[]);
        let bridge = Bridge::before(&mut server);
        if matches!(self, Self::Register) {
            let [file, path] = scene.passphrase_flags();
            scene.home.run(&["generate", NAME, file, path]).ok();
        }
        (scene, server, bridge)
    }
}

/// Checks what must be true of a program that has just died.
fn dead_well(scene: &Scene, server: &Server, what: &str) {
    assert_eq!(scene.plaintext(), Vec::<PathBuf>::new(), "{what}");
    dead_well_in_clear(scene, server, what);
}

fn dead_well_in_clear(scene: &Scene, server: &Server, what: &str) {
    let there = Account::of(server).asymmetric().len();
    assert!(there <= 1, "{what}");
    if there == 1 && scene.state().as_deref() != Some("active") {
        let pending = scene.pending();
        assert_eq!(
            pending.len(),
            1,
            "{what}: the exchange has more than the journal"
        );
        assert!(
            scene.public().is_some(),
            "{what}: a key without its private half"
        );
    }
}

fn dies_at_every_call(command: Registering) {
    for phase in PHASES {
        for (call, method) in command.calls().iter().enumerate() {
            let what = format!("{command:?}, killed at {method} ({call}), {phase:?}");
            let (scene, server, bridge) = command.stage(Scene::new());
            let flags = scene.flags(&server);
            bridge.kill(command.command(&scene, &flags), call, phase);
            dead_well(&scene, &server, &what);
            scene.recovers(&server, command.whitelisted(), &flags, &what);
        }
    }
    // Those were all calls that there are.
    let (scene, server, bridge) = command.stage(Scene::new());
    let flags = scene.flags(&server);
    Run::of(command.command(&scene, &flags).output().unwrap()).ok();
    assert_eq!(bridge.calls(), command.calls());
}

#[test]
fn provision_killed_at_any_call_ends_with_one_key() {
    dies_at_every_call(Registering::Provision);
}

#[test]
fn provision_with_a_whitelist_killed_at_any_call_ends_with_one_key() {
    dies_at_every_call(Registering::ProvisionWithWhitelist);
}

#[test]
fn register_killed_at_any_call_ends_with_one_key() {
    dies_at_every_call(Registering::Register);
}

#[test]
fn a_resume_that_is_killed_too_makes_no_second_key() {
    for command in [Registering::Provision, Registering::ProvisionWithWhitelist] {
        let mut calls = command.calls();
        // It looks before it makes, and finds.
        calls[1] = "private/list_api_keys";
        for (call, method) in calls.iter().enumerate() {
            for phase in PHASES {
                let what = format!("{command:?}, resume killed at {method} ({call}), {phase:?}");
                let (scene, server, bridge) = command.stage(Scene::in_clear());
                let flags = scene.flags(&server);
                let first = command.command(&scene, &flags);
                bridge.kill(first, 1, Phase::BeforeTheAnswer);
                let ours = scene.public();
                let mut resume = scene.home.command(&["--json", "resume"]);
                resume.args(&flags);
                bridge.kill(resume, call, phase);
                dead_well_in_clear(&scene, &server, &what);
                scene.recovers(&server, command.whitelisted(), &flags, &what);
                assert_eq!(scene.public(), ours, "{what}: another key");
            }
        }
    }
}

#[test]
fn the_same_command_again_goes_on_where_a_kill_stopped_it() {
    for command in [Registering::Provision, Registering::Register] {
        for phase in PHASES {
            let (scene, server, bridge) = command.stage(Scene::new());
            let flags = scene.flags(&server);
            bridge.kill(command.command(&scene, &flags), 1, phase);
            let again = Run::of(command.command(&scene, &flags).output().unwrap());
            assert_eq!(again.json()["changed"], true, "{command:?} {phase:?}");
            scene.stands(&server, false, &flags, "again");
        }
    }
}

#[test]
fn another_command_for_the_same_name_keeps_its_hands_off_an_interrupted_one() {
    let (scene, server, bridge) = Registering::Provision.stage(Scene::new());
    let flags = scene.flags(&server);
    bridge.kill(scene.provision(&flags, false), 1, Phase::BeforeTheAnswer);
    let ours = scene.public();
    let [file, path] = scene.passphrase_flags();
    for args in [
        &["provision", NAME, "--scope", "trade:read"][..],
        &["generate", NAME, file, path],
        &["delete", NAME, "--yes"],
        &["register", NAME, "--scope", SCOPE],
    ] {
        let mut command = scene.home.command(args);
        if !matches!(args[0], "generate" | "delete") {
            command.args(&flags);
        }
        Run::of(command.output().unwrap()).fails(8);
        assert_eq!(scene.public(), ours, "{args:?}");
        assert_eq!(scene.pending().len(), 1, "{args:?}");
    }
    scene.recovers(&server, false, &flags, "kept");
}

pub(crate) fn can_trace() -> bool {
    installed(
        "strace",
        &["-f", "-e", "inject=read:signal=SIGCONT:when=9999", "true"],
    )
}

/// Everything in the keystore by name: mode and content, or where a link leads.
fn picture(store: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut picture = BTreeMap::new();
    for path in files(store) {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        picture.insert(path.clone(), (mode, fs::read(&path).unwrap()));
    }
    picture
}

/// A command that writes, on a disk that fails.
struct Failing<'a> {
    what: &'a str,
    /// What comes before it.
    before: &'a [&'a str],
    args: &'a [&'a str],
    /// Whether the key is in clear, so that a stray temporary file would be too.
    plain: bool,
}

/// Runs a command under strace, which lets the n-th system call of a kind fail.
///
/// Returns how it ended and the line that tells which call was struck, if one was.
fn strike(
    home: &Home,
    inner: &Command,
    calls: &str,
    error: &str,
    nth: usize,
) -> (Run, Option<String>) {
    let log = home.path("strace.log");
    let mut command = Command::new("strace");
    command
        .args(["-f", "-y", "-o", log.to_str().unwrap(), "-e"])
        .arg(format!("trace={calls}"))
        .arg("-e")
        .arg(format!("inject={calls}:error={error}:when={nth}"))
        .arg(inner.get_program())
        .args(inner.get_args())
        .current_dir(home.path(""))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home.path(""))
        .stdin(Stdio::null());
    let run = Run::of(command.output().unwrap());
    let log = fs::read_to_string(&log).unwrap();
    let struck = log.lines().find(|line| line.contains("(INJECTED)"));
    (run, struck.map(str::to_owned))
}

/// Lets the n-th system call of a kind fail, for every n, until a run is not struck any more.
fn fails_at_every(failing: &Failing<'_>, calls: &str, error: &str) {
    for nth in 1..200 {
        let home = Home::new();
        home.secret_file("other", "another passphrase");
        if !failing.before.is_empty() {
            home.run(failing.before).ok();
        }
        let before = picture(&home.store());
        let (run, injected) = strike(&home, &home.command(failing.args), calls, error, nth);
        let Some(injected) = injected else {
            assert_eq!(run.code, Some(0), "{}: {run:#?}", failing.what);
            assert!(nth > 1, "{}: nothing was struck", failing.what);
            return;
        };
        let what = format!("{}, {injected}", failing.what);
        assert!(!run.stderr.contains("panicked"), "{what}: {run:#?}");
        // Words that cannot be written change nothing; the result must be missed.
        if injected.contains("(2<") {
            continue;
        }
        assert!(!matches!(run.code, Some(0) | None), "{what}: {run:#?}");
        if injected.contains("(1<") || injected.contains("audit.jsonl") {
            // What was done is done.
            continue;
        }
        let after = picture(&home.store());
        for (path, was) in &before {
            assert_eq!(after.get(path), Some(was), "{what}: {}", path.display());
        }
        for path in after.keys().filter(|path| !before.contains_key(*path)) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let harmless = name.ends_with(".lock") || name == "audit.jsonl";
            let trash = path.starts_with(home.store().join("trash")) && !failing.plain;
            assert!(harmless || trash, "{what}: left {}", path.display());
        }
    }
    panic!("{}: never ends", failing.what);
}

fn on_every_disk(failing: &Failing<'_>, disks: &[(&str, &str)]) {
    if !can_trace() {
        return;
    }
    for (calls, error) in disks {
        fails_at_every(failing, calls, error);
    }
}

#[test]
fn generate_on_a_failing_disk_leaves_nothing_in_clear() {
    let failing = Failing {
        what: "generate",
        before: &[],
        args: &["generate", NAME, "--no-passphrase", "--insecure"],
        plain: true,
    };
    let disks = [
        ("write", "ENOSPC"),
        ("write", "EDQUOT"),
        ("fsync", "EIO"),
        ("renameat2", "EIO"),
    ];
    on_every_disk(&failing, &disks);
}

#[test]
fn passwd_on_a_failing_disk_leaves_the_key_as_it_was() {
    let failing = Failing {
        what: "passwd",
        before: &["generate", NAME, "--no-passphrase", "--insecure"],
        args: &["passwd", NAME, "--new-passphrase-file", "other"],
        plain: true,
    };
    let disks = [
        ("write", "ENOSPC"),
        ("fsync", "EIO"),
        ("linkat", "EIO"),
        ("rename", "ENOSPC"),
    ];
    on_every_disk(&failing, &disks);
}

#[test]
fn provision_on_a_failing_disk_can_be_finished_when_it_works_again() {
    if !can_trace() {
        return;
    }
    for (calls, error) in [
        ("write", "ENOSPC"),
        ("fsync", "EIO"),
        ("renameat2", "EIO"),
        ("rename", "ENOSPC"),
        ("unlink", "EIO"),
    ] {
        for nth in 1..200 {
            let scene = Scene::in_clear();
            let server = Server::start(&scene.home, &[]);
            let flags = scene.flags(&server);
            let command = scene.provision(&flags, true);
            let (run, injected) = strike(&scene.home, &command, calls, error, nth);
            let Some(injected) = injected else {
                assert!(nth > 1, "{calls}: nothing was struck");
                break;
            };
            let what = format!("provision, {injected}");
            // The runtime's own pipes are no disk, and words that nobody reads change nothing.
            if injected.contains("/store/") || injected.contains("(1<") {
                assert!(!run.stderr.contains("panicked"), "{what}: {run:#?}");
                assert!(!matches!(run.code, Some(0) | None), "{what}: {run:#?}");
            }
            dead_well_in_clear(&scene, &server, &what);
            scene.recovers(&server, true, &flags, &what);
        }
    }
}

/// A half of a line would break the chain, and all of it would come twice.
#[test]
fn a_line_that_is_not_on_the_disk_is_not_in_the_log() {
    if !can_trace() {
        return;
    }
    let home = Home::new();
    let plain = ["--no-passphrase", "--insecure"];
    home.run(&[&["generate", "one"], &plain[..]].concat()).ok();
    let log = home.store().join("audit.jsonl");
    let before = fs::read_to_string(&log).unwrap();
    let command = home.command(&[&["generate", "two"], &plain[..]].concat());
    let (run, struck) = strike(&home, &command, "fdatasync", "EIO", 1);
    assert!(struck.unwrap().contains("audit.jsonl"));
    assert_ne!(run.code, Some(0), "{run:#?}");
    assert_eq!(fs::read_to_string(&log).unwrap(), before);
}
