//! The agent from outside: its socket, its limits, its policy, its log, and the programs that use
//! it.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink},
        net::{UnixDatagram, UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    raw::Tap,
    support::{Home, Run, Server, installed, left_out},
};

const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const SCOPE: &str = "account:read trade:read_write";

/// A keystore with a registered key, and a directory for the socket.
pub(crate) struct Stage {
    pub(crate) home: Home,
    pub(crate) dir: PathBuf,
}

impl Stage {
    /// With a key named `bot` on the network of the flags.
    pub(crate) fn on(network: &[&str]) -> Self {
        Self::with_scope(SCOPE, network)
    }

    fn with_scope(scope: &str, network: &[&str]) -> Self {
        let home = Home::new();
        let dir = home.path("run");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        let stage = Self { home, dir };
        stage.provision("bot", scope, network);
        stage
    }

    /// On the sandbox, which needs nobody else.
    pub(crate) fn new() -> Self {
        Self::on(&["--network", "sandbox"])
    }

    fn provision(&self, name: &str, scope: &str, network: &[&str]) {
        let mut args = vec!["provision", name, "--scope", scope, "--yes"];
        args.extend(["--no-passphrase", "--insecure"]);
        args.extend(network);
        self.home.run(&args).ok();
    }

    pub(crate) fn configure(&self, text: &str) {
        let path = self.home.store().join("config.toml");
        let _ = fs::remove_file(&path);
        self.home.secret_file("store/config.toml", text);
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("agent.sock")
    }

    /// `agent bot --socket ...`, with more arguments.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.home.command(&["agent"]);
        let socket = self.socket();
        command.args(args).arg("--socket").arg(socket);
        command
    }

    pub(crate) fn start(&self) -> Running {
        Running::begin(self.command(&["bot"]))
    }

    /// Runs an agent that does not start. One that does would serve for ever, so it is stopped.
    fn refused(&self, args: &[&str]) -> Run {
        let inner = self.command(args);
        let mut command = Command::new("timeout");
        command.arg("20").arg(inner.get_program());
        command.args(inner.get_args()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        Run::of(command.output().unwrap())
    }

    /// Runs a client with the agent in its environment.
    fn client(&self, args: &[&str]) -> Run {
        let mut command = self.home.command(args);
        command.env("DERIKEY_AGENT_SOCK", self.socket());
        Run::of(command.output().unwrap())
    }

    fn audit(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.home.store().join("audit.jsonl")).unwrap();
        let mut prev = "0".repeat(64);
        text.lines()
            .map(|line| {
                let entry: Value = serde_json::from_str(line).unwrap();
                assert_eq!(entry["prev"], *prev, "{text}");
                prev = Sha256::digest(line.as_bytes())
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                entry
            })
            .collect()
    }
}

/// A running agent.
pub(crate) struct Running {
    child: Child,
    pub(crate) path: PathBuf,
}

impl Running {
    /// Starts it and waits until it says where it listens.
    pub(crate) fn begin(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        if line.is_empty() {
            panic!("{:#?}", Run::of(child.wait_with_output().unwrap()));
        }
        Self {
            child,
            path: line.trim().into(),
        }
    }

    pub(crate) fn connect(&self) -> Caller {
        Caller::at(&self.path)
    }

    /// Asks one thing on a connection of its own.
    pub(crate) fn ask(&self, request: &Value) -> Value {
        self.connect().ask(&request.to_string())
    }

    pub(crate) fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.child.id()))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(self.proc("fd")).unwrap().count()
    }

    /// Resident memory in kB.
    pub(crate) fn memory(&self) -> u64 {
        let text = fs::read_to_string(self.proc("status")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.unwrap().split_whitespace().next().unwrap();
        number.parse().unwrap()
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.unwrap().success());
    }

    /// Ends it as a service manager does.
    pub(crate) fn stop(mut self) -> Run {
        self.signal("TERM");
        self.wait()
    }

    pub(crate) fn wait(&mut self) -> Run {
        let begun = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < PATIENCE, "the agent does not end");
            thread::sleep(Duration::from_millis(10));
        }
        let mut text = String::new();
        let stderr = self.child.stderr.as_mut().unwrap();
        stderr.read_to_string(&mut text).unwrap();
        Run {
            code: self.child.wait().unwrap().code(),
            stdout: String::new(),
            stderr: text,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection.
pub(crate) struct Caller(BufReader<UnixStream>);

impl Caller {
    fn at(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        // Whoever is not let in may find the door shut already.
        let _ = self.0.get_mut().write_all(bytes);
    }

    /// The next line; nothing at the end.
    pub(crate) fn hear(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))),
        }
    }

    pub(crate) fn ask(&mut self, line: &str) -> Value {
        self.send(line.as_bytes());
        self.send(b"\n");
        self.hear().unwrap()
    }
}

#[track_caller]
fn code(answer: &Value) -> &str {
    assert_eq!(answer["ok"], false, "{answer}");
    answer["error"]["code"].as_str().unwrap()
}

#[track_caller]
fn result(answer: &Value) -> &Value {
    assert_eq!(answer["ok"], true, "{answer}");
    &answer["result"]
}

fn auth() -> Value {
    json!({"op": "auth", "key": "bot"})
}

#[test]
fn it_answers_every_operation_and_ends_cleanly() {
    let stage = Stage::new();
    stage.configure("[agent.keys.bot]\nrest = [\"GET /api/v2/private/get_positions\"]\n");
    let agent = stage.start();
    let mut caller = agent.connect();

    let login = caller.ask(&auth().to_string());
    let request = result(&login);
    assert_eq!(request["method"], "public/auth");
    assert_eq!(request["params"]["data"], "");
    let verified = stage
        .home
        .run_with_input(&["verify", "bot"], request.to_string().as_bytes());
    verified.ok();

    let rest = json!({"op": "rest", "key": "bot", "method": "GET",
        "path": "/api/v2/private/get_positions?currency=BTC"});
    let rest = caller.ask(&rest.to_string());
    let header = result(&rest)["authorization"].as_str().unwrap().to_owned();
    let args = ["verify", "bot", "--method", "GET", "--path"];
    let args = [&args[..], &["/api/v2/private/get_positions?currency=BTC"]].concat();
    stage.home.run_with_input(&args, header.as_bytes()).ok();

    let token = caller.ask(r#"{"op":"token","key":"bot","scope":"trade:read"}"#);
    assert_eq!(result(&token)["scope"], "trade:read");
    assert!(result(&token)["expires_in"].as_u64().unwrap() > 60);

    let list = caller.ask(r#"{"op":"list","v":1}"#);
    let key = &result(&list)["keys"][0];
    assert_eq!(list["result"]["version"], 1);
    let shown = stage.home.run(&["--json", "show", "bot"]).json();
    assert_eq!(key["fingerprint"], shown["fingerprint"]);
    assert_eq!(key["client_id"], shown["client_id"]);
    let status = caller.ask(r#"{"op":"status"}"#);
    assert_eq!(result(&status)["locked"], false);
    assert_eq!(status["result"]["keys"], 1);

    let path = agent.path.clone();
    let ended = agent.stop();
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    assert!(!path.exists());
    assert!(caller.hear().is_none());
}

#[test]
fn a_caller_can_end_it() {
    let stage = Stage::new();
    let mut agent = stage.start();
    result(&agent.ask(&json!({"op": "shutdown"})));
    assert_eq!(agent.wait().code, Some(0));
    assert!(!agent.path.exists());
    // Whether the caller waits for it or not.
    let mut agent = stage.start();
    let mut caller = agent.connect();
    result(&caller.ask(r#"{"op":"status"}"#));
    agent.signal("STOP");
    caller.send(b"{\"op\":\"shutdown\"}\n");
    drop(caller);
    agent.signal("CONT");
    assert_eq!(agent.wait().code, Some(0));
    let mut agent = stage.start();
    stage.client(&["agent", "--stop"]).ok();
    assert_eq!(agent.wait().code, Some(0));
}

#[test]
fn the_default_place_is_the_runtime_directory() {
    let stage = Stage::new();
    let mut command = stage.home.command(&["agent", "bot", "--json"]);
    command.env("XDG_RUNTIME_DIR", &stage.dir);
    let agent = Running::begin(command);
    let said: Value = serde_json::from_str(agent.path.to_str().unwrap()).unwrap();
    let path = stage.dir.join("derikey/agent.sock");
    assert_eq!(said["socket"], path.to_str().unwrap());
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    let mut command = stage.home.command(&["--json", "agent", "--status"]);
    command.env("XDG_RUNTIME_DIR", &stage.dir);
    let status = Run::of(command.output().unwrap()).json();
    assert_eq!(status["version"], 1);
    drop(agent);
    stage.home.run(&["agent", "bot"]).fails(3);
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn the_socket_is_never_wider_than_its_owner() {
    let stage = Stage::new();
    let socket = stage.socket();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watched = scope.spawn(|| {
            let mut seen = 0;
            while !done.load(Ordering::SeqCst) {
                if let Ok(metadata) = fs::symlink_metadata(&socket) {
                    assert_eq!(metadata.mode() & 0o777, 0o600);
                    seen += 1;
                }
            }
            seen
        });
        let line = "umask 000; exec \"$@\"";
        for _ in 0..5 {
            let inner = stage.command(&["bot"]);
            let mut command = Command::new("sh");
            command.args(["-c", line, "sh"]).arg(inner.get_program());
            command.args(inner.get_args()).env_clear();
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            let agent = Running::begin(command);
            assert_eq!(agent.stop().code, Some(0));
        }
        done.store(true, Ordering::SeqCst);
        assert!(watched.join().unwrap() > 0);
    });
    assert_eq!(mode(&stage.dir.join("agent.sock.lock")) & 0o077, 0);
}

#[test]
fn what_is_at_the_path_stays_there() {
    let stage = Stage::new();
    let socket = stage.socket();
    let victim = stage.home.secret_file("victim", "precious");
    let refused = |what: &str| {
        let run = stage.refused(&["--json", "bot"]);
        assert_eq!(run.code, Some(8), "{what}: {run:#?}");
        run.error(8);
    };
    fs::write(&socket, "somebody's notes").unwrap();
    refused("a file");
    assert_eq!(fs::read_to_string(&socket).unwrap(), "somebody's notes");
    fs::remove_file(&socket).unwrap();
    symlink(&victim, &socket).unwrap();
    refused("a link");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    fs::remove_file(&socket).unwrap();
    symlink(stage.dir.join("nowhere"), &socket).unwrap();
    refused("a dangling link");
    fs::remove_file(&socket).unwrap();
    fs::create_dir(&socket).unwrap();
    refused("a directory");
    fs::remove_dir(&socket).unwrap();
    // A socket that lives, of another program.
    let listener = UnixListener::bind(&socket).unwrap();
    refused("a live socket");
    // It has no room, and lives all the same.
    let mut crowd = Vec::new();
    while let Ok(stream) = nonblocking_connect(&socket) {
        crowd.push(stream);
        assert!(crowd.len() < 10_000);
        if crowd.len() > 200 {
            break;
        }
    }
    refused("a busy socket");
    drop((listener, crowd));
    // Now it is dead, and ours.
    let agent = stage.start();
    refused("another agent");
    result(&agent.ask(&auth()));
    // Killed, it leaves a dead socket behind, which the next one takes away.
    agent.signal("KILL");
    drop(agent);
    assert!(
        fs::symlink_metadata(&socket)
            .unwrap()
            .file_type()
            .is_socket()
    );
    let agent = stage.start();
    result(&agent.ask(&auth()));
    // What somebody else puts in its place is not removed at the end.
    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "new").unwrap();
    assert_eq!(agent.stop().code, Some(0));
    assert_eq!(fs::read_to_string(&socket).unwrap(), "new");
}

fn nonblocking_connect(path: &Path) -> Result<rustix::fd::OwnedFd, rustix::io::Errno> {
    use rustix::net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
    };
    let flags = SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

#[test]
fn a_directory_that_others_get_into_is_refused() {
    let stage = Stage::new();
    for wide in [0o755, 0o710, 0o707, 0o777] {
        fs::set_permissions(&stage.dir, fs::Permissions::from_mode(wide)).unwrap();
        let run = stage.refused(&["bot"]).fails(7);
        assert!(run.stderr.contains("chmod 700"), "{run:#?}");
        assert_eq!(mode(&stage.dir), wide);
        assert!(!stage.socket().exists());
    }
    // One for everybody, such as /tmp, stays one.
    fs::set_permissions(&stage.dir, fs::Permissions::from_mode(0o1777)).unwrap();
    let run = stage.refused(&["bot"]).fails(7);
    assert!(!run.stderr.contains("chmod"), "{run:#?}");
    fs::remove_dir(&stage.dir).unwrap();
    let real = stage.home.path("real");
    fs::create_dir(&real).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o700)).unwrap();
    symlink(&real, &stage.dir).unwrap();
    stage.refused(&["bot"]).fails(7);
}

#[test]
fn there_are_sixty_four_callers_at_most() {
    let stage = Stage::new();
    let agent = stage.start();
    let mut callers: Vec<Caller> = (0..64).map(|_| agent.connect()).collect();
    for caller in &mut callers {
        result(&caller.ask(r#"{"op":"status"}"#));
    }
    let mut late = agent.connect();
    let turned_away = late.hear().unwrap();
    assert_eq!(code(&turned_away), "busy");
    assert!(late.hear().is_none());
    callers.pop();
    let begun = Instant::now();
    loop {
        let mut again = agent.connect();
        if again.ask(r#"{"op":"status"}"#)["ok"] == true {
            break;
        }
        assert!(begun.elapsed() < PATIENCE);
    }
    for caller in &mut callers {
        result(&caller.ask(&auth().to_string()));
    }
}

/// Few callers and many are told of in different ways; none may be forgotten in either, or between.
#[test]
fn no_request_of_a_crowd_is_forgotten() {
    let stage = Stage::new();
    let agent = stage.start();
    let line = format!("{}\n", auth());
    for callers in [1, 2, 3, 12, 2, 12, 1] {
        thread::scope(|scope| {
            for _ in 0..callers {
                scope.spawn(|| {
                    let mut caller = agent.connect();
                    for round in 0..40 {
                        // One to five at once, the last one in two pieces.
                        let text = line.repeat(round % 5 + 1);
                        let (most, rest) = text.split_at(text.len() - round % 20);
                        caller.send(most.as_bytes());
                        caller.send(rest.as_bytes());
                        for _ in 0..=round % 5 {
                            result(&caller.hear().expect("an answer"));
                        }
                    }
                });
            }
            // More at once than there is room for.
            let mut caller = agent.connect();
            let mut sender = caller.0.get_ref().try_clone().unwrap();
            let flood = "{\"op\":\"status\"}\n".repeat(9000);
            scope.spawn(move || sender.write_all(flood.as_bytes()).unwrap());
            for _ in 0..9000 {
                result(&caller.hear().expect("an answer"));
            }
        });
    }
    // All of it is there before the first of it is read, and nothing comes after.
    let mut crowd: Vec<Caller> = (0..5).map(|_| agent.connect()).collect();
    for _ in 0..3 {
        crowd.iter_mut().for_each(|caller| {
            result(&caller.ask(&auth().to_string()));
        });
    }
    agent.signal("STOP");
    let long = format!("{{\"op\":\"status\"{:1000}}}\n", "");
    crowd[0].send(long.repeat(100).as_bytes());
    // This one has nothing more to say, and says so.
    crowd[1].send(format!("{}\n", auth()).as_bytes());
    let stream = crowd[1].0.get_ref();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    agent.signal("CONT");
    for _ in 0..100 {
        result(&crowd[0].hear().expect("an answer"));
    }
    result(&crowd[1].hear().expect("an answer"));
    let begun = Instant::now();
    assert!(crowd[1].hear().is_none() && begun.elapsed() < PATIENCE / 2);
}

#[test]
fn a_thousand_half_requests_do_no_harm() {
    let stage = Stage::new();
    stage.configure("[agent]\nline = \"500ms\"\n");
    let agent = stage.start();
    // Its first answer says that all it opens for itself is open.
    result(&agent.ask(&auth()));
    let before = agent.descriptors();
    let mut half: Vec<Caller> = (0..1000)
        .map(|_| {
            let mut caller = agent.connect();
            caller.send(br#"{"op":"auth","#);
            caller
        })
        .collect();
    // They run out of time, whether anybody hangs up or not.
    let begun = Instant::now();
    while agent.connect().ask(r#"{"op":"status"}"#)["ok"] != true {
        assert!(begun.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(20));
    }
    assert!(agent.memory() < 32 * 1024);
    let told = half[0].hear().unwrap();
    assert_eq!(code(&told), "timeout");
    drop(half);
    result(&agent.ask(&auth()));
    settles(|| agent.descriptors() <= before + 1);
}

#[track_caller]
fn settles(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "it does not settle");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn lines_and_silences_have_their_limits() {
    let stage = Stage::new();
    stage.configure("[agent]\nline = \"600ms\"\nidle = \"900ms\"\ntotal = \"3s\"\n");
    let agent = stage.start();
    // The longest line there is, and one more byte.
    let fill = |length: usize| {
        let start = r#"{"op":"status","key":""#;
        format!("{start}{}", "x".repeat(length - start.len()))
    };
    assert_eq!(code(&agent.connect().ask(&fill(65_536))), "malformed");
    assert_eq!(code(&agent.connect().ask(&fill(65_537))), "too_long");
    // A drop at a time.
    let mut slow = agent.connect();
    result(&slow.ask(r#"{"op":"status"}"#));
    let begun = Instant::now();
    let told = loop {
        slow.send(b" ");
        thread::sleep(Duration::from_millis(50));
        if begun.elapsed() > Duration::from_millis(1400) {
            break slow.hear().unwrap();
        }
    };
    assert_eq!(code(&told), "timeout");
    // Silence.
    let mut silent = agent.connect();
    result(&silent.ask(r#"{"op":"status"}"#));
    let begun = Instant::now();
    assert!(silent.hear().is_none());
    assert!(begun.elapsed() >= Duration::from_millis(800), "{begun:?}");
    // One who goes on for ever.
    let mut busy = agent.connect();
    let begun = Instant::now();
    loop {
        busy.send(b"{\"op\":\"status\"}\n");
        if busy.hear().is_none() {
            break;
        }
        assert!(begun.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(20));
    }
    assert!(begun.elapsed() >= Duration::from_millis(2900));
    // Several lines at once are answered one by one.
    let mut eager = agent.connect();
    eager.send(b"{\"op\":\"status\"}\n{\"op\":\"list\"}\nx\n");
    assert!(result(&eager.hear().unwrap())["pid"].is_u64());
    assert!(result(&eager.hear().unwrap())["keys"].is_array());
    assert_eq!(code(&eager.hear().unwrap()), "malformed");
}

/// Nobody else is there, so a thread may stay with it: that is no reason to let it take its time.
#[test]
fn a_line_that_drips_has_its_limit_too() {
    let stage = Stage::new();
    stage.configure("[agent]\nline = \"500ms\"\n");
    let agent = stage.start();
    let mut caller = agent.connect();
    result(&caller.ask(&auth().to_string()));
    let mut drip = caller.0.get_ref().try_clone().unwrap();
    let begun = Instant::now();
    thread::spawn(move || {
        while begun.elapsed() < PATIENCE && drip.write_all(b" ").is_ok() {
            thread::sleep(Duration::from_micros(300));
        }
    });
    assert_eq!(code(&caller.hear().expect("a word of farewell")), "timeout");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn running_out_of_descriptors_passes() {
    let stage = Stage::new();
    let inner = stage.command(&["bot"]);
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -n 24; exec \"$@\"", "sh"])
        .arg(inner.get_program())
        .args(inner.get_args())
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let agent = Running::begin(command);
    let crowd: Vec<Caller> = (0..40).map(|_| agent.connect()).collect();
    thread::sleep(Duration::from_millis(300));
    drop(crowd);
    settles(|| {
        let mut caller = agent.connect();
        caller.send(b"{\"op\":\"status\"}\n");
        caller.hear().is_some_and(|answer| answer["ok"] == true)
    });
}

#[test]
fn another_user_is_not_answered_even_through_open_doors() {
    if !rustix::process::geteuid().is_root() {
        left_out("only root can become somebody else: nothing was tried");
        return;
    }
    if !installed("setpriv", &["--version"]) {
        return;
    }
    let stage = Stage::new();
    let agent = stage.start();
    for path in [
        agent.path.as_path(),
        &stage.dir,
        stage.dir.parent().unwrap(),
    ] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let script = "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\
                  s.settimeout(10)\ntry:\n s.sendall(b'{\"op\":\"status\"}\\n')\nexcept OSError: pass\n\
                  try:\n print(len(s.recv(100)))\nexcept OSError: print(0)";
    let run = Command::new("setpriv")
        .args([
            "--reuid",
            "12345",
            "--clear-groups",
            "/usr/bin/env",
            "python3",
            "-c",
            script,
        ])
        .arg(&agent.path)
        .env("PATH", "/usr/bin:/bin:/usr/local/bin")
        .output()
        .unwrap();
    let run = Run::of(run);
    if run.code == Some(127) || run.stderr.contains("No such file") {
        left_out("no python3 for everybody: nothing was tried");
        return;
    }
    assert_eq!(run.stdout.trim(), "0", "{run:#?}");
    result(&agent.ask(&auth()));
    settles(|| {
        let lines = stage.audit();
        lines.iter().any(|line| {
            line["action"] == "agent connection" && line["outcome"] == "refused: denied"
        })
    });
}

#[test]
fn locked_it_does_nothing_until_the_passphrase_is_said_again() {
    let stage = Stage::new();
    let agent = stage.start();
    let lock = json!({"op": "lock", "passphrase": "sesame"});
    assert_eq!(
        code(&agent.ask(&json!({"op": "unlock", "passphrase": "x"}))),
        "not_locked"
    );
    result(&agent.ask(&json!({"op": "token", "key": "bot"})));
    result(&agent.ask(&lock));
    let token = json!({"op": "token", "key": "bot"});
    let rest = json!({"op": "rest", "key": "bot", "method": "GET", "path": "/api/v2/private/buy"});
    for request in [auth(), token, rest, lock, json!({"op": "list"})] {
        assert_eq!(code(&agent.ask(&request)), "locked", "{request}");
    }
    assert_eq!(result(&agent.ask(&json!({"op": "status"})))["locked"], true);
    stage.client(&["sign", "auth", "bot"]).fails(8);
    stage.client(&["sign", "auth", "bot", "--no-agent"]).ok();
    for wrong in ["sesam", "sesame2", "Sesame", " sesame"] {
        let begun = Instant::now();
        let unlock = json!({"op": "unlock", "passphrase": wrong});
        assert_eq!(code(&agent.ask(&unlock)), "wrong_passphrase");
        assert!(begun.elapsed() >= Duration::from_millis(900));
    }
    result(&agent.ask(&json!({"op": "unlock", "passphrase": "sesame"})));
    result(&agent.ask(&auth()));
    // The same by way of the program.
    let file = stage.home.secret_file("lock", "open, \u{e9}");
    let flags = ["--passphrase-file", file.to_str().unwrap()];
    stage
        .client(&[&["agent", "--lock"][..], &flags].concat())
        .ok();
    assert_eq!(code(&agent.ask(&auth())), "locked");
    stage
        .client(&[&["agent", "--unlock"][..], &flags].concat())
        .ok();
    result(&agent.ask(&auth()));
    let log = fs::read_to_string(stage.home.store().join("audit.jsonl")).unwrap();
    assert!(!log.contains("sesame") && !log.contains("open, "));
}

#[test]
fn a_policy_is_kept() {
    let stage = Stage::new();
    stage.provision("two", SCOPE, &["--network", "sandbox"]);
    stage.provision("three", SCOPE, &["--network", "sandbox"]);
    stage.configure(
        "[agent.keys.bot]\noperations = [\"token\"]\nscope = \"trade:read\"\n\
         [agent.keys.two]\nrate = \"3/h\"\n\
         [agent.keys.three]\nuses = 3\nlifetime = \"1h\"\n",
    );
    let agent = Running::begin(stage.command(&["bot", "two", "three"]));
    let ask = |op: &str, key: &str, scope: Option<&str>| {
        let mut request = json!({"op": op, "key": key});
        if let Some(scope) = scope {
            request["scope"] = json!(scope);
        }
        agent.ask(&request)
    };
    assert_eq!(code(&ask("auth", "bot", None)), "denied");
    assert_eq!(result(&ask("token", "bot", None))["scope"], "trade:read");
    for more in [
        "trade:read_write",
        "account:read",
        "@trader",
        "wallet:read trade:read",
    ] {
        assert_eq!(code(&ask("token", "bot", Some(more))), "denied", "{more}");
        assert_eq!(code(&ask("auth", "two", Some("wallet:read"))), "denied");
    }
    for no_scope in [
        "",
        "trade:read session:x",
        "trade:read expires:1",
        "x",
        "trade:read,account:read",
    ] {
        assert_eq!(
            code(&ask("token", "bot", Some(no_scope))),
            "malformed",
            "{no_scope}"
        );
    }
    for _ in 0..3 {
        result(&ask("auth", "two", None));
    }
    assert_eq!(code(&ask("auth", "two", None)), "rate");
    let list = agent.ask(&json!({"op": "list", "key": "three"}));
    assert_eq!(result(&list)["keys"][0]["uses_left"], 3);
    result(&ask("token", "three", None));
    result(&ask("auth", "three", None));
    // What is refused for another reason uses nothing up.
    assert_eq!(code(&ask("token", "three", Some("wallet:read"))), "denied");
    result(&ask("token", "three", None));
    assert_eq!(code(&ask("auth", "three", None)), "used_up");
    assert_eq!(code(&ask("token", "three", None)), "used_up");
    assert_eq!(code(&ask("auth", "four", None)), "unknown_key");
    let rest = json!({"op": "rest", "key": "two", "method": "GET",
        "path": "/api/v2/private/get_positions"});
    assert_eq!(code(&agent.ask(&rest)), "denied");
}

#[test]
fn a_lifetime_ends() {
    let stage = Stage::new();
    let agent = Running::begin(stage.command(&["bot", "--lifetime", "3s"]));
    result(&agent.ask(&auth()));
    result(&agent.ask(&json!({"op": "token", "key": "bot"})));
    // It goes by itself, whether anybody asks or not.
    settles(|| agent.ask(&json!({"op": "status"}))["result"]["keys"] == 0);
    assert_eq!(code(&agent.ask(&auth())), "expired");
    assert_eq!(
        code(&agent.ask(&json!({"op": "token", "key": "bot"}))),
        "expired"
    );
    settles(|| {
        let lines = stage.audit();
        lines
            .iter()
            .any(|line| line["action"] == "agent forget" && line["outcome"] == "done: expired")
    });
}

#[test]
fn a_policy_that_cannot_be_is_refused() {
    let stage = Stage::new();
    for policy in [
        "rest = [\"POST /api/v2/private/withdraw\"]",
        "rest = [\"POST /api/v2/private/submit_transfer_to_user\"]",
        "rest = [\"POST /api/v2/private/create_api_key\"]",
        "rest = [\"GET /api/v2/private/list_api_keys\"]",
        "rest = [\"POST /api/v2/private/add_to_address_book\"]",
        "rest = [\"POST /api/v2\"]",
        "rest = [\"* /api/v2/private/buy\"]",
        "rest = [\"GET /api/v2/private/get_*\"]",
        "operations = [\"auth\"]\nrest = [\"GET /api/v2/private/get_positions\"]",
        "operations = [\"sign\"]",
        "uses = 0",
        "uses = -1",
        "rate = \"often\"",
        "lifetime = \"long\"",
        "scope = \"everything\"",
        "confirm = true",
    ] {
        stage.configure(&format!("[agent.keys.bot]\n{policy}\n"));
        let run = stage.refused(&["bot"]);
        assert_eq!(run.code, Some(3), "{policy}: {run:#?}");
        assert!(!stage.socket().exists());
    }
    stage.configure("");
    for names in [&["nobody"][..], &["bot", "bot"], &["../bot"], &[]] {
        let run = stage.refused(names);
        assert!(matches!(run.code, Some(2 | 3)), "{names:?}: {run:#?}");
    }
    stage
        .home
        .run(&["generate", "fresh", "--no-passphrase", "--insecure"])
        .ok();
    stage.refused(&["fresh"]).fails(8);
}

#[test]
fn a_key_that_can_move_funds_or_manage_keys_gives_no_login_by_default() {
    for scope in [
        "account:read_write",
        "wallet:read_write trade:read",
        "custody:read_write",
    ] {
        let stage = Stage::with_scope(scope, &["--network", "sandbox"]);
        let agent = stage.start();
        assert_eq!(code(&agent.ask(&auth())), "denied", "{scope}");
        let token = agent.ask(&json!({"op": "token", "key": "bot"}));
        assert!(
            !result(&token)["scope"]
                .as_str()
                .unwrap()
                .contains("account:read_write")
        );
        assert!(
            !token["result"]["scope"]
                .as_str()
                .unwrap()
                .contains("wallet:read_write")
        );
        let more = agent.ask(&json!({"op": "token", "key": "bot", "scope": scope}));
        assert_eq!(code(&more), "denied", "{scope}");
        drop(agent);
        stage.configure("[agent.keys.bot]\noperations = [\"auth\"]\n");
        let agent = stage.start();
        result(&agent.ask(&auth()));
    }
}

#[test]
fn every_decision_has_its_line() {
    let stage = Stage::new();
    stage.configure("[agent.keys.bot]\nrest = [\"GET /api/v2/private/get_positions\"]\n");
    let agent = stage.start();
    let mut caller = agent.connect();
    let mut secrets = Vec::new();
    for _ in 0..40 {
        let answer = caller.ask(&auth().to_string());
        let params = &result(&answer)["params"];
        secrets.push(params["signature"].as_str().unwrap().to_owned());
        secrets.push(params["nonce"].as_str().unwrap().to_owned());
    }
    let token = caller.ask(r#"{"op":"token","key":"bot"}"#);
    secrets.push(result(&token)["access_token"].as_str().unwrap().to_owned());
    let rest = json!({"op": "rest", "key": "bot", "method": "GET",
        "path": "/api/v2/private/get_positions"});
    result(&caller.ask(&rest.to_string()));
    for _ in 0..3 {
        caller.ask(r#"{"op":"auth","key":"CANARY"}"#);
    }
    caller.ask(r#"{"op":"rest","key":"bot","method":"GET","path":"/api/v2/private/CANARY"}"#);
    caller.ask("CANARY");
    // A flood is counted, not spelled out.
    for _ in 0..500 {
        caller.ask(r#"{"op":"token","key":"bot","scope":"wallet:read_write"}"#);
    }
    let pid = fs::read_to_string(agent.proc("comm")).unwrap();
    assert_eq!(pid.trim(), "derikey");
    assert_eq!(agent.stop().code, Some(0));
    let lines = stage.audit();
    let count = |action: &str, outcome: &str| {
        let mut found = lines.iter();
        found
            .by_ref()
            .filter(|line| line["action"] == action && line["outcome"] == outcome)
            .count()
    };
    assert_eq!(count("agent start", "done"), 1);
    assert_eq!(count("agent auth", "done"), 40);
    assert_eq!(count("agent token", "done"), 1);
    assert_eq!(
        count("agent rest GET /api/v2/private/get_positions", "done"),
        1
    );
    assert_eq!(count("agent auth", "refused: unknown_key"), 3);
    assert_eq!(count("agent rest", "refused: malformed"), 1);
    assert_eq!(count("agent request", "refused: malformed"), 1);
    assert_eq!(count("agent stop", "done"), 1);
    let denied: u64 = lines
        .iter()
        .filter(|line| line["action"] == "agent token" && line["outcome"] != "done")
        .map(|line| {
            let outcome = line["outcome"].as_str().unwrap();
            let rest = outcome.strip_prefix("refused: denied").unwrap().trim();
            let more = rest
                .strip_prefix('(')
                .and_then(|rest| rest.strip_suffix(" more)"));
            more.map_or(1, |more| more.parse().unwrap())
        })
        .sum();
    assert_eq!(denied, 500);
    assert!(lines.len() < 200, "{}", lines.len());
    let text = fs::read_to_string(stage.home.store().join("audit.jsonl")).unwrap();
    assert!(!text.contains("CANARY"));
    for secret in secrets {
        assert!(!text.contains(&secret));
    }
    stage.home.run(&["audit"]).ok();
}

#[test]
fn an_end_that_was_a_failure_is_written_down_as_one() {
    let stage = Stage::new();
    let mut command = stage.command(&["bot"]);
    command.stdout(fs::File::options().write(true).open("/dev/full").unwrap());
    let run = Run::of(command.output().unwrap());
    assert_eq!(run.code, Some(1), "{run:?}");
    let last = stage.audit().pop().unwrap();
    assert_eq!(last["action"], "agent stop");
    assert_eq!(last["outcome"], "failed: unexpected");
    assert!(!stage.socket().exists());
}

#[test]
fn without_its_log_it_signs_nothing() {
    let stage = Stage::new();
    let agent = stage.start();
    result(&agent.ask(&auth()));
    let log = stage.home.store().join("audit.jsonl");
    let twin = stage.home.path("twin");
    settles(|| {
        stage
            .audit()
            .iter()
            .any(|line| line["action"] == "agent auth")
    });
    // With a second name it is not written to.
    fs::hard_link(&log, &twin).unwrap();
    settles(|| agent.ask(&auth())["ok"] == false);
    // More than could ever be on their way into the log.
    let mut caller = agent.connect();
    let mut sender = caller.0.get_ref().try_clone().unwrap();
    let many = format!("{}\n", auth()).repeat(10_000);
    thread::scope(|scope| {
        scope.spawn(move || sender.write_all(many.as_bytes()).unwrap());
        for _ in 0..10_000 {
            assert_eq!(code(&caller.hear().expect("an answer")), "audit");
        }
    });
    // It can be locked, and stays so as long as nobody could tell who opened it.
    assert_eq!(
        code(&agent.ask(&json!({"op": "lock", "passphrase": "sesame"}))),
        "audit"
    );
    let unlock = json!({"op": "unlock", "passphrase": "sesame"});
    assert_eq!(code(&agent.ask(&unlock)), "audit");
    let status = agent.ask(&json!({"op": "status"}));
    assert_eq!(result(&status)["locked"], true);
    fs::remove_file(&twin).unwrap();
    settles(|| agent.ask(&unlock)["ok"] == true);
    result(&agent.ask(&auth()));
    let run = agent.stop();
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(run.stderr.contains("nothing is signed"), "{run:#?}");
    let refused = |line: &&Value| line["outcome"].as_str().unwrap().contains("audit (");
    let lines = stage.audit();
    assert!(lines.iter().any(|line| refused(&line)), "{lines:#?}");
}

/// Nothing is safer than no key, written down or not.
#[test]
fn without_its_log_it_can_be_ended() {
    let stage = Stage::new();
    let mut agent = stage.start();
    result(&agent.ask(&auth()));
    let log = stage.home.store().join("audit.jsonl");
    fs::hard_link(log, stage.home.path("twin")).unwrap();
    settles(|| agent.ask(&auth())["ok"] == false);
    result(&agent.ask(&json!({"op": "shutdown"})));
    agent.wait();
    assert!(!agent.path.exists());
}

#[test]
fn many_callers_cost_one_login() {
    let exchange = Home::new();
    let server = Server::start(&exchange, &[]);
    let tap = Tap::before(&server);
    let flags = [
        "--network",
        "custom",
        "--endpoint",
        &tap.endpoint,
        "--admin-client-id",
        &server.admin_client_id,
        "--admin-secret-file",
        server.admin_secret_file.to_str().unwrap(),
    ];
    let stage = Stage::on(&flags);
    let agent = stage.start();
    let client_id = stage.home.run(&["--json", "show", "bot"]).json()["client_id"].clone();
    let logins = || {
        let calls = tap.calls("public/auth");
        calls
            .iter()
            .filter(|call| call["client_id"] == client_id)
            .count()
    };
    let before = logins();
    let tokens: Vec<String> = thread::scope(|scope| {
        let callers: Vec<_> = (0..32)
            .map(|_| {
                scope.spawn(|| {
                    let answer = agent.ask(&json!({"op": "token", "key": "bot"}));
                    result(&answer)["access_token"].as_str().unwrap().to_owned()
                })
            })
            .collect();
        callers
            .into_iter()
            .map(|caller| caller.join().unwrap())
            .collect()
    });
    assert!(tokens.iter().all(|token| *token == tokens[0]));
    assert_eq!(logins(), before + 1);
    for _ in 0..3 {
        let token = stage.client(&["--json", "token", "bot"]).json();
        assert_eq!(token["access_token"], *tokens[0]);
    }
    assert_eq!(logins(), before + 1);
    // As many scopes as there are places, each with a session of its own; then no more.
    let scopes = [
        "trade:read",
        "trade:read_write",
        "account:read",
        "account:none",
        "trade:none",
        "account:read trade:read",
        "account:read trade:read_write",
    ];
    let mut sessions = 0;
    for scope in scopes.into_iter().chain(["account:none trade:read_write"]) {
        let answer = agent.ask(&json!({"op": "token", "key": "bot", "scope": scope}));
        sessions += u64::from(answer["ok"] == true);
    }
    assert!(sessions > 4);
    let mut used: Vec<String> = tap
        .calls("public/auth")
        .iter()
        .filter_map(|call| call["scope"].as_str())
        .flat_map(|scope| scope.split(' '))
        .filter(|word| word.starts_with("session:derikey-agent-"))
        .map(str::to_owned)
        .collect();
    used.sort();
    used.dedup();
    assert!(used.len() <= 8, "{used:?}");
    // The first token still works: nobody's session was pushed out.
    let bearer = format!("Bearer {}", tokens[0]);
    let answer = super::raw::call(
        &server.address(),
        Some(&bearer),
        "private/get_positions",
        &json!({}),
    );
    assert!(answer.get("error").is_none(), "{answer}");
}

#[test]
fn a_login_that_fails_is_told_as_what_it_is() {
    let exchange = Home::new();
    let mut server = Server::start(&exchange, &[]);
    let stage = Stage::on(&server.admin());
    let agent = stage.start();
    server.stop();
    let answer = agent.ask(&json!({"op": "token", "key": "bot"}));
    assert_eq!(code(&answer), "login");
    assert_eq!(answer["error"]["reason"], "network");
    thread::sleep(Duration::from_millis(2100));
    stage.client(&["token", "bot"]).fails(5);
}

#[test]
fn a_last_use_that_fails_takes_the_key_with_it() {
    let exchange = Home::new();
    let mut server = Server::start(&exchange, &[]);
    let stage = Stage::on(&server.admin());
    stage.configure("[agent.keys.bot]\nuses = 1\n");
    let agent = stage.start();
    server.stop();
    let token = json!({"op": "token", "key": "bot"});
    assert_eq!(code(&agent.ask(&token)), "login");
    let status = agent.ask(&json!({"op": "status"}));
    assert_eq!(result(&status)["keys"], 0);
    assert_eq!(code(&agent.ask(&token)), "used_up");
}

/// A use that was counted in time is answered, although another was the last one meanwhile.
#[test]
fn a_use_is_one_however_long_it_takes() {
    let exchange = Home::new();
    let mut server = Server::start(&exchange, &[]);
    let stage = Stage::on(&server.admin());
    stage.configure("[agent.keys.bot]\nuses = 2\n");
    let agent = stage.start();
    let address = server.address();
    server.stop();
    let _server = Server::start_at(&exchange, &address, &["--fault", "auth:slow"]);
    let mut slow = agent.connect();
    slow.send(b"{\"op\":\"token\",\"key\":\"bot\"}\n");
    let list = json!({"op": "list"});
    settles(|| agent.ask(&list)["result"]["keys"][0]["uses_left"] == 1);
    result(&agent.ask(&auth()));
    assert_eq!(code(&agent.ask(&auth())), "used_up");
    result(&slow.hear().expect("an answer"));
}

/// What one asks for takes longer than a line may, and the others have said what they want.
#[test]
fn nobody_is_late_who_waits_to_be_heard() {
    let stage = Stage::new();
    let args = ["provision", "slow", "--algorithm", "rsa-4096", "--yes"];
    let more = ["--scope", SCOPE, "--network", "sandbox"];
    let plain = ["--no-passphrase", "--insecure"];
    stage.home.run(&[&args[..], &more, &plain].concat()).ok();
    stage.configure("[agent]\nline = \"100ms\"\n");
    let agent = Running::begin(stage.command(&["bot", "slow"]));
    let line = format!("{{\"op\":\"auth\",\"key\":\"slow\"{:300}}}\n", "");
    agent.signal("STOP");
    let mut callers: Vec<Caller> = (0..4).map(|_| agent.connect()).collect();
    for caller in &mut callers {
        caller.send(line.repeat(100).as_bytes());
    }
    agent.signal("CONT");
    thread::scope(|scope| {
        for caller in &mut callers {
            scope.spawn(|| {
                for _ in 0..100 {
                    result(&caller.hear().expect("an answer"));
                }
            });
        }
    });
}

#[test]
fn those_who_wait_for_the_exchange_keep_nobody_waiting() {
    let exchange = Home::new();
    let mut server = Server::start(&exchange, &[]);
    let stage = Stage::on(&server.admin());
    let agent = stage.start();
    server.stop();
    // Somebody who listens, and never says a word.
    let address = server.address();
    let begun = Instant::now();
    let _mute = loop {
        match TcpListener::bind(&address) {
            Ok(listener) => break listener,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
        thread::sleep(Duration::from_millis(20));
    };
    let waiting: Vec<Caller> = (0..40)
        .map(|_| {
            let mut caller = agent.connect();
            caller.send(b"{\"op\":\"token\",\"key\":\"bot\"}\n");
            caller
        })
        .collect();
    let begun = Instant::now();
    for _ in 0..100 {
        result(&agent.ask(&auth()));
    }
    // A login gives up after half a minute.
    assert!(begun.elapsed() < Duration::from_secs(10), "{begun:?}");
    drop(waiting);
}

#[test]
fn programs_use_the_agent_when_there_is_one() {
    let stage = Stage::new();
    stage.configure("[agent.keys.bot]\nrest = [\"GET /api/v2/private/get_positions\"]\n");
    let agent = stage.start();
    // From here on there is no key but the agent's.
    let private = stage.home.store().join("keys/bot/1/private.pem");
    let hidden = stage.home.path("hidden");
    fs::rename(&private, &hidden).unwrap();
    let login = stage.client(&["sign", "auth", "bot"]).ok();
    stage
        .home
        .run_with_input(&["verify", "bot"], login.stdout.as_bytes())
        .ok();
    let scoped = stage
        .client(&["sign", "auth", "bot", "--scope", "trade:read"])
        .json();
    assert!(
        scoped["params"]["scope"]
            .as_str()
            .unwrap()
            .contains("trade:read")
    );
    let path = "/api/v2/private/get_positions?currency=BTC";
    let request = ["sign", "request", "bot", "--method", "GET", "--path", path];
    let header = stage.client(&request).ok();
    let args = ["verify", "bot", "--method", "GET", "--path", path];
    stage
        .home
        .run_with_input(&args, header.stdout.as_bytes())
        .ok();
    stage.client(&["auth", "bot"]).ok();
    stage.client(&["token", "bot", "--format", "header"]).ok();
    let refused = stage
        .client(&[
            "sign",
            "request",
            "bot",
            "--method",
            "POST",
            "--path",
            "/api/v2/private/buy",
        ])
        .fails(8);
    assert!(refused.stderr.contains("--no-agent"), "{refused:#?}");
    stage.client(&["token", "bot", "--session", "mine"]).ok();
    // What no agent does takes the key itself, which is not there.
    for own in [
        &["sign", "auth", "bot", "--data", "x"][..],
        &["sign", "auth", "bot", "--nonce", "x"],
        &["sign", "auth", "bot", "--timestamp", "1"],
        &["sign", "auth", "bot", "--no-agent"],
    ] {
        assert_ne!(stage.client(own).code, Some(0), "{own:?}");
    }
    fs::rename(&hidden, &private).unwrap();
    stage.client(&["sign", "auth", "bot", "--data", "x"]).ok();
    // The default path needs no word.
    drop(agent);
    let runtime = stage.home.path("xdg");
    fs::create_dir(&runtime).unwrap();
    let run = |args: &[&str]| {
        let mut command = stage.home.command(args);
        command.env("XDG_RUNTIME_DIR", &runtime);
        Run::of(command.output().unwrap())
    };
    run(&["sign", "auth", "bot"]).ok();
    let mut command = stage.home.command(&["agent", "bot"]);
    command.env("XDG_RUNTIME_DIR", &runtime);
    let agent = Running::begin(command);
    fs::rename(&private, &hidden).unwrap();
    run(&["sign", "auth", "bot"]).ok();
    fs::rename(&hidden, &private).unwrap();
    // A dead one that nobody named is passed over; a dead one that somebody named is not.
    agent.signal("KILL");
    drop(agent);
    run(&["sign", "auth", "bot"]).ok();
    stage.client(&["sign", "auth", "bot"]).fails(5);
    stage.client(&["sign", "auth", "bot", "--no-agent"]).ok();
}

#[test]
fn an_agent_with_another_key_of_that_name_is_not_believed() {
    let stage = Stage::new();
    let other = Stage::new();
    let agent = other.start();
    let client = |args: &[&str]| {
        let mut command = stage.home.command(args);
        command.env("DERIKEY_AGENT_SOCK", &agent.path);
        Run::of(command.output().unwrap())
    };
    let login = client(&["sign", "auth", "bot"]).ok();
    assert!(login.stderr.contains("another key"), "{login:#?}");
    let input = login.stdout.as_bytes();
    stage.home.run_with_input(&["verify", "bot"], input).ok();
}

#[test]
fn a_lying_agent_is_found_out() {
    let stage = Stage::new();
    let real = stage.start();
    let list = real.ask(&json!({"op": "list"}));
    let signed = result(&real.ask(&auth())).clone();
    let mut forged = signed.clone();
    forged["params"]["nonce"] = json!("another");
    let mut old = signed;
    old["params"]["timestamp"] = json!(1_576_074_319_000_u64);
    for (lie, exit) in [(forged, 11), (old, 5), (json!({}), 5), (json!("x"), 5)] {
        let path = stage.dir.join("liar.sock");
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let list = list.to_string();
        let liar = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut caller = Caller(BufReader::new(stream));
            caller.hear().unwrap();
            caller.send(format!("{list}\n").as_bytes());
            caller.hear().unwrap();
            caller.send(format!("{}\n", json!({"ok": true, "result": lie})).as_bytes());
        });
        let mut command = stage.home.command(&["sign", "auth", "bot"]);
        command.env("DERIKEY_AGENT_SOCK", &path);
        Run::of(command.output().unwrap()).fails(exit);
        liar.join().unwrap();
    }
}

#[test]
fn exec_hands_over_no_secret() {
    let stage = Stage::new();
    let exec = ["exec", "bot", "--", "/usr/bin/env"];
    let refused = stage.home.run(&exec).fails(8);
    assert!(refused.stderr.contains("derikey agent bot"), "{refused:#?}");
    let agent = stage.start();
    let shown = stage.home.run(&["--json", "show", "bot"]).json();
    let run = stage.client(&exec).ok();
    let mut found: Vec<&str> = run
        .stdout
        .lines()
        .filter(|line| line.starts_with("DERI"))
        .collect();
    found.sort_unstable();
    let expected = [
        format!("DERIBIT_CLIENT_ID={}", shown["client_id"].as_str().unwrap()),
        "DERIBIT_NETWORK=sandbox".into(),
        format!("DERIKEY_AGENT_SOCK={}", agent.path.display()),
        "DERIKEY_KEY=bot".into(),
    ];
    assert_eq!(found, expected);
    let run = stage.client(&["exec", "bot", "--", "sh", "-c", "exit 42"]);
    assert_eq!(run.code, Some(42));
    stage
        .client(&["exec", "bot", "--", "/nowhere/program"])
        .fails(3);
    stage.client(&["exec", "other", "--", "true"]).fails(8);
}

/// Hands a socket down as systemd does.
pub(crate) const LAUNCHER: &str = "\
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1]); s.listen(16)
if s.fileno() != 3: os.dup2(s.fileno(), 3)
os.set_inheritable(3, True)
os.environ['LISTEN_FDS'] = '1'
os.environ['LISTEN_PID'] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
";

#[test]
fn a_service_manager_can_hand_it_a_socket() {
    if !installed("python3", &["--version"]) {
        return;
    }
    let stage = Stage::new();
    let inner = stage.home.command(&["agent", "bot"]);
    let launch = |inner: &Command| {
        let mut command = Command::new("python3");
        command.args(["-c", LAUNCHER]).arg(stage.socket());
        command.arg(inner.get_program()).args(inner.get_args());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let agent = Running::begin(launch(&inner));
    assert_eq!(agent.path, stage.socket());
    result(&agent.ask(&auth()));
    stage.client(&["sign", "auth", "bot"]).ok();
    assert_eq!(agent.stop().code, Some(0));
    // The file is the service manager's.
    assert!(stage.socket().exists());
    fs::remove_file(stage.socket()).unwrap();
    let inner = stage.command(&["bot"]);
    Run::of(launch(&inner).output().unwrap()).fails(2);
}

#[test]
fn a_service_manager_is_told_when_it_is_ready() {
    use std::os::linux::net::SocketAddrExt;
    let stage = Stage::new();
    let path = stage.home.path("notify");
    let name = format!("derikey-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let sockets = [
        (
            UnixDatagram::bind(&path).unwrap(),
            path.to_str().unwrap().to_owned(),
        ),
        (
            UnixDatagram::bind_addr(&address).unwrap(),
            format!("@{name}"),
        ),
    ];
    for (socket, name) in sockets {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut command = stage.command(&["bot"]);
        command.env("NOTIFY_SOCKET", name);
        let agent = Running::begin(command);
        let mut heard = [0; 64];
        let length = socket.recv(&mut heard).unwrap();
        assert_eq!(&heard[..length], b"READY=1");
        result(&agent.ask(&auth()));
        agent.stop();
        let length = socket.recv(&mut heard).unwrap();
        assert_eq!(&heard[..length], b"STOPPING=1");
    }
}

#[test]
fn descriptors_that_are_sent_along_are_not_taken() {
    if !installed("python3", &["--version"]) {
        return;
    }
    let stage = Stage::new();
    let agent = stage.start();
    result(&agent.ask(&auth()));
    let before = agent.descriptors();
    let script = "import array,os,socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\
        f=array.array('i',[os.open('/dev/null',0) for _ in range(100)])\n\
        for i in range(20):\n\
        \x20s.sendmsg([b'{\"op\":\"status\"}\\n'],[(socket.SOL_SOCKET,socket.SCM_RIGHTS,f)])\n\
        \x20assert s.recv(65536).startswith(b'{\"ok\":true')\n\
        for line in [b'{\"op\":', b'\\xff\\n', b'\\0']*20:\n\
        \x20c=socket.socket(socket.AF_UNIX)\n\
        \x20c.connect(sys.argv[1])\n\
        \x20c.sendmsg([line],[(socket.SOL_SOCKET,socket.SCM_RIGHTS,f)])\n\
        \x20c.close()\n\
        s.sendall(b'{\"op\":\"status\"}\\n')\n\
        assert s.recv(65536).startswith(b'{\"ok\":true')\n\
        print('done'); sys.stdin.read()";
    let mut child = Command::new("python3")
        .args(["-c", script])
        .arg(&agent.path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "done\n");
    // Those who hung up are gone, and the one that did not is still served.
    settles(|| agent.descriptors() <= before + 1);
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn a_passphrase_opens_the_keys_once() {
    let stage = Stage::new();
    let file = stage.home.secret_file("pass", "correct horse");
    let flags = ["--passphrase-file", file.to_str().unwrap()];
    let new = ["--new-passphrase-file", file.to_str().unwrap()];
    stage
        .home
        .run(&[&["passwd", "bot"][..], &new].concat())
        .ok();
    stage.refused(&["bot", "--passphrase-fd", "99"]).fails(3);
    let agent = Running::begin(stage.command(&[&["bot"][..], &flags].concat()));
    fs::remove_file(&file).unwrap();
    result(&agent.ask(&auth()));
    stage.client(&["sign", "auth", "bot"]).ok();
    assert!(!stage.dir.join("passphrase").exists());
}
