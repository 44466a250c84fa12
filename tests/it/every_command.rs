//! Every command, in every manner of speaking, at an exchange that does what it should or fails in
//! one of many ways: no secret is said, kept, or to be seen on the process.
//!
//! A command of the program that has no row here is a failure, and so is a row that no command has.
//! Manners take turns, and most of the sandbox's faults meet two rows each; `EVERY_MANNER=1` has each
//! row played in every manner at every fault.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use derikey::sandbox::KINDS;
use serde_json::{Value, json};

use super::{
    agent::Running,
    leaks::{Canaries, private_parts, random},
    store_files::under,
    support::{Home, Run, Server, installed, join},
};

/// A command, and arguments with which it does its work where nothing is in its way.
///
/// `PASS`, `NEW`, `NETWORK` and `ADMIN` stand for the flags that name a passphrase, a new one, the
/// exchange, and the exchange with its administrator. `AGENT` has an agent run before. The key
/// `bot` is registered, `spare` is not, and each has a file in clear beside the keystore. A file
/// that a new command needs is written by `Stage::new`.
const ROWS: &[(&str, &str)] = &[
    (
        "provision",
        "new --scope account:read --ip 127.0.0.1 PASS ADMIN",
    ),
    ("generate", "new PASS"),
    ("generate", "new --algorithm rsa-2048 --kdf pbkdf2 PASS"),
    ("import", "new spare.pem PASS"),
    ("public", "bot"),
    ("fingerprint", "bot"),
    ("show", "bot"),
    ("passwd", "spare NEW PASS"),
    ("export", "spare NEW PASS"),
    ("export", "spare --no-passphrase --insecure PASS"),
    ("delete", "spare"),
    ("register", "spare --scope account:read PASS ADMIN"),
    ("adopt", "spare --client-id nobody PASS NETWORK"),
    ("list", ""),
    ("list", "--remote ADMIN"),
    ("edit", "bot --label other --add-ip 127.0.0.1 PASS ADMIN"),
    ("enable", "bot PASS ADMIN"),
    ("disable", "bot PASS ADMIN"),
    ("remove", "bot --yes PASS ADMIN"),
    ("rotate", "bot --deploy-hook true PASS ADMIN"),
    ("rollback", "bot PASS ADMIN"),
    ("panic", "--match * --yes PASS ADMIN"),
    ("plan", "-f fleet.toml PASS ADMIN"),
    ("apply", "-f fleet.toml --yes PASS ADMIN"),
    ("drift", "-f fleet.toml PASS ADMIN"),
    ("doctor", "PASS ADMIN"),
    ("audit", ""),
    ("scope list", ""),
    ("scope explain", "@trader"),
    ("scope lint", "account:read"),
    ("auth", "bot PASS"),
    ("token", "bot PASS"),
    ("token", "bot --format env PASS"),
    ("sign auth", "bot PASS"),
    (
        "sign request",
        "bot --method GET --path /api/v2/private/get_positions PASS",
    ),
    ("verify", "bot"),
    ("resume", "PASS ADMIN"),
    ("status", ""),
    ("agent", "bot --socket run/other.sock PASS"),
    ("agent", "--status --socket run/agent.sock AGENT"),
    ("agent", "--lock --socket run/agent.sock PASS AGENT"),
    ("agent", "--unlock --socket run/agent.sock PASS AGENT"),
    ("agent", "--stop --socket run/agent.sock AGENT"),
    ("exec", "bot -- env AGENT"),
    ("sandbox", "--totp-seed-file seed"),
    ("completions", "bash"),
    ("man", "man"),
];

/// Rows that end otherwise than well even where nothing is in their way, and how.
const ENDS: &[(&str, i32)] = &[
    // The exchange does not know the key by that name.
    ("adopt spare", 4),
    // There is nothing to go back to.
    ("rollback", 8),
    // The file declares another label, and a key that the exchange does not know.
    ("drift", 10),
    // It was never locked.
    ("agent --unlock", 8),
    // It serves until it is told to end.
    ("sandbox", 143),
];

const MANNERS: [&[&str]; 6] = [
    &[],
    &["-q"],
    &["-v"],
    &["-vvv"],
    &["--json"],
    &["--json", "-vvv"],
];

/// The faults that every row meets in every run, each in a test of its own.
const ALWAYS: [&str; 6] = [
    "echo",
    "both",
    "unauthorized",
    "drop-after",
    "slow",
    // Where the code is another.
    "challenge",
];

/// What the sandbox says in the place of a public key where it is told to lie about that.
const SHARED_SECRET: &str = "B6RsF9rrLY5ezEGBQkyLlV-UC7whyPJ34BMA-kKYpes";

/// A second factor that is none: six digits that occur nowhere by chance.
const CODE: &str = "907351";

/// Waits until a program that serves has said so, and ends it.
const SERVES: &str = r#"
rm -f said
"$0" "$@" >said &
for n in $(seq 100); do test -s said && break; sleep 0.1; done
kill $!; wait $!; ended=$?; cat said; exit $ended
"#;

/// Refuses every thread.
const NO_THREAD: [&str; 8] = [
    "strace",
    "-f",
    "-qq",
    "-o",
    "/dev/null",
    "-e",
    "trace=clone,clone3",
    "-einject=clone,clone3:error=EAGAIN",
];

/// What the tests keep their secrets in; everything else is searched.
const MINE: [&str; 9] = [
    "passphrase",
    "new-passphrase",
    "wrong-passphrase",
    "admin-secret",
    "seed",
    "codes",
    "bot.pem",
    "spare.pem",
    "store/sandbox",
];

#[test]
fn every_command_has_a_row() {
    let mut found = BTreeSet::new();
    let mut waiting = vec![Vec::<String>::new()];
    while let Some(path) = waiting.pop() {
        let mut help = Command::new(env!("CARGO_BIN_EXE_derikey"));
        let help = Run::of(help.args(&path).arg("-h").output().unwrap()).ok();
        let mut lines = help.stdout.lines().skip_while(|line| *line != "Commands:");
        if lines.next().is_none() {
            found.insert(path.join(" "));
            continue;
        }
        for line in lines.take_while(|line| !line.is_empty()) {
            let name = line.split_whitespace().next().unwrap();
            if name != "help" {
                waiting.push(path.iter().cloned().chain([name.to_owned()]).collect());
            }
        }
    }
    let rows: BTreeSet<String> = ROWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(found, rows);
}

/// What stands in a command's way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum World {
    /// Nothing.
    Honest,
    /// The exchange, in one of its own ways of failing.
    Faulty(&'static str),
    /// One that answers with all that it was sent, in every place of an answer. A login it grants
    /// first, where it is to be asked for more.
    Mirror { grants: bool },
    /// Nobody is there.
    Gone,
    /// The passphrase is another.
    WrongPassphrase,
    /// The second factor is another.
    WrongCode,
    /// The system has no thread to spare, which is a panic where a name of a host is looked up.
    NoThread,
}

/// A keystore and an account, put back before each command.
struct Stage {
    home: Home,
    theirs: Home,
    address: String,
    admin: String,
    canaries: Canaries,
    token: String,
    world: World,
}

impl Stage {
    fn new(worlds: &[World]) -> Self {
        let (home, theirs) = (Home::new(), Home::new());
        let mut canaries = Canaries::default();
        home.secret_file("codes", &format!("{CODE}\n"));
        for name in ["passphrase", "new-passphrase", "wrong-passphrase", "seed"] {
            let secret = random(32);
            home.secret_file(name, &format!("{secret}\n"));
            canaries.add(name, secret.as_bytes());
        }
        fs::copy(home.path("seed"), theirs.path("seed")).unwrap();
        let server = Server::start(&theirs, &[]);
        fs::copy(&server.admin_secret_file, home.path("admin-secret")).unwrap();
        let secret = fs::read_to_string(home.path("admin-secret")).unwrap();
        canaries.add("the administrator's secret", secret.trim().as_bytes());
        let mut stage = Self {
            home,
            theirs: Home::new(),
            address: server.address(),
            admin: server.admin_client_id.clone(),
            canaries,
            token: random(40),
            world: World::Honest,
        };
        stage
            .canaries
            .add("the access token", stage.token.as_bytes());
        stage.run_plain("provision bot --scope account:read PASS ADMIN");
        stage.run_plain("generate spare PASS");
        for name in ["bot", "spare"] {
            let export = format!("export {name} --no-passphrase --insecure PASS");
            let pem = stage.run_plain(&export).stdout;
            learn(&mut stage.canaries, name, &pem);
            stage.home.secret_file(&format!("{name}.pem"), &pem);
        }
        let login = stage.run_plain("sign auth bot PASS").stdout;
        fs::write(stage.home.path("login.json"), login).unwrap();
        let fleet =
            "[defaults]\nscope = \"account:read\"\n[keys.bot]\nlabel = \"other\"\n[keys.spare]\n";
        fs::write(stage.home.path("fleet.toml"), fleet).unwrap();
        let run = stage.home.path("run");
        fs::create_dir(&run).unwrap();
        fs::set_permissions(run, fs::Permissions::from_mode(0o700)).unwrap();
        drop(server);
        stage.theirs = theirs;
        stage.world = worlds[0];
        if worlds.iter().any(|world| world.asks_for_a_code()) {
            stage.canaries.add_raw("the one-time code", CODE.as_bytes());
        }
        let shared = SHARED_SECRET.as_bytes();
        stage.canaries.add("secret of another key", shared);
        copy(&stage.home.store(), &stage.home.path(".before"));
        copy(&stage.theirs.store(), &stage.theirs.path(".before"));
        stage
    }

    /// Searches what a run said and left for the private half of the key that it made.
    fn look_for_the_key(&self, name: &str, run: &Run) {
        let export = format!("export {name} --no-passphrase --insecure PASS");
        let mut canaries = Canaries::default();
        learn(&mut canaries, name, &self.run_plain(&export).stdout);
        canaries.absent(run.stdout.as_bytes(), &format!("stdout of {run:?}"));
        canaries.absent(run.stderr.as_bytes(), &format!("stderr of {run:?}"));
        canaries.absent_from_files(&self.home, &[]);
    }

    fn run_plain(&self, line: &str) -> Run {
        self.home
            .run(
                &self
                    .arguments(line)
                    .0
                    .iter()
                    .map(String::as_str)
                    .collect::<Vec<_>>(),
            )
            .ok()
    }

    /// The arguments of a row, and whether an agent is to run.
    fn arguments(&self, line: &str) -> (Vec<String>, bool) {
        let endpoint = match self.world {
            World::NoThread => "https://localhost:9/api/v2".into(),
            _ => format!("http://{}/api/v2", self.address),
        };
        let network = ["--network", "custom", "--endpoint", &endpoint];
        let pass = match self.world {
            World::WrongPassphrase => "wrong-passphrase",
            _ => "passphrase",
        };
        let admin = [
            "--admin-client-id",
            &self.admin,
            "--admin-secret-file",
            "admin-secret",
        ];
        let (mut flags, mut rest, mut agent) = (Vec::new(), Vec::new(), false);
        for word in line.split_whitespace() {
            match word {
                "PASS" => flags.extend(["--passphrase-file", pass]),
                "NEW" => flags.extend(["--new-passphrase-file", "new-passphrase"]),
                "NETWORK" => flags.extend(network),
                "ADMIN" => {
                    flags.extend(join(&[&network, &admin]));
                    if self.world.asks_for_a_code() {
                        flags.extend(["--totp-fd", "7"]);
                    }
                }
                "AGENT" => agent = true,
                word => rest.push(word),
            }
        }
        // In front, as a program's own arguments come last.
        let two = 1 + usize::from(["sign", "scope"].contains(&rest[0]));
        let words = rest
            .iter()
            .take(two)
            .chain(&flags)
            .chain(rest.iter().skip(two));
        (words.map(|word| (*word).to_owned()).collect(), agent)
    }

    /// Puts everything back as it was, and opens the exchange.
    fn restore(&self) -> Option<Server> {
        for (home, what) in [(&self.home, "the keystore"), (&self.theirs, "the account")] {
            fs::remove_dir_all(home.store()).unwrap_or_else(|e| panic!("{what}: {e}"));
            copy(&home.path(".before"), &home.store());
        }
        let faults = match self.world {
            World::Honest | World::WrongPassphrase => vec![],
            // It needs a challenge to lie about.
            World::Faulty("wrong-rp-id") => vec!["*:wrong-rp-id".to_owned(), "*:challenge".into()],
            World::Faulty(fault) => vec![format!("*:{fault}")],
            World::WrongCode => vec!["*:challenge".into()],
            World::Gone | World::NoThread | World::Mirror { .. } => return None,
        };
        let mut args: Vec<&str> = Vec::new();
        for fault in &faults {
            args.extend(["--fault", fault]);
        }
        if self.world.asks_for_a_code() {
            args.extend(["--totp-seed-file", "seed"]);
        }
        Some(Server::start_at(&self.theirs, &self.address, &args))
    }
}

/// Has the private numbers of a key looked for.
fn learn(canaries: &mut Canaries, name: &str, pem: &str) {
    for (n, part) in private_parts(pem).iter().enumerate() {
        canaries.add(&format!("part {n} of {name}"), &part[..32]);
    }
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(done.unwrap().success());
}

/// Answers every request with all of it, head and body, wherever an answer has room for words.
fn mirror(address: &str, grants: Option<String>) {
    let listener = TcpListener::bind(address).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let grants = grants.clone();
            thread::spawn(move || reflect(&stream, grants.as_deref()));
        }
    });
}

fn reflect(mut stream: &TcpStream, grants: Option<&str>) -> Option<()> {
    let (mut reader, mut head, mut length) = (BufReader::new(stream), String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let from = head.len();
        reader.read_line(&mut head).ok().filter(|n| *n > 0)?;
        let line = head[from..].to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let request: Value = serde_json::from_slice(&body).ok()?;
    let all = format!("{head}{request}");
    let answer = match grants {
        Some(token) if request["method"] == "public/auth" => json!({"result": {
            "access_token": token, "refresh_token": token, "expires_in": 900,
            "scope": "account:read_write session:derikey", "token_type": "bearer",
        }}),
        // As an error that is well-formed, with the token of the request in it.
        Some(_) => json!({"error": {
            "code": 13009, "message": all, "data": {"reason": all, "param": all, "wait": all},
        }}),
        None => json!({
            "result": {"access_token": all, "scope": all, "expires_in": all, "client_id": all,
                "public_key": all, "name": all, "max_scope": [all], "challenge": all},
            "error": {"code": 1, "message": all, "data": request},
            "usIn": all, "testnet": all, &all: all,
        }),
    };
    let mut answer = answer;
    answer["jsonrpc"] = json!("2.0");
    answer["id"] = request["id"].clone();
    let text = answer.to_string();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\nset-cookie: x={}\r\n\r\n{text}",
        text.len(),
        request["method"]
    )
    .ok()
}

impl Stage {
    /// Runs a row in a manner, looks at the process while it lives, and at all that it left.
    fn play(&self, name: &str, args: &str, manner: &[&str]) -> Run {
        let line = format!("{name} {args}");
        let (words, with_agent) = self.arguments(&line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let agent = with_agent.then(|| {
            let mut command = self.home.command(&["agent", "bot", "--passphrase-file"]);
            command.args(["passphrase", "--socket", "run/agent.sock"]);
            Running::begin(command)
        });
        let inner = self
            .home
            .command(&join(&[manner, &["--timeout", "1"], &words]));
        let serves = args.starts_with("bot --socket") || name == "sandbox";
        let script = if serves {
            SERVES
        } else {
            "exec \"$0\" \"$@\" 7<codes"
        };
        let mut command = under(&["sh", "-c", script], &inner);
        if self.world == World::NoThread {
            command = under(&NO_THREAD, &command);
        }
        command
            .env("RUST_LOG", "trace")
            .env("RUST_BACKTRACE", "full");
        command.env("DERIKEY_AGENT_SOCK", self.home.path("run/agent.sock"));
        if agent.is_none() {
            command.env_remove("DERIKEY_AGENT_SOCK");
        }
        command.stdin(fs::File::open(self.home.path("login.json")).unwrap());
        let child = command.spawn().unwrap();
        let what = format!("{:?}: {line} {manner:?}", self.world);
        self.look_at(child.id(), &what);
        thread::sleep(Duration::from_millis(40));
        self.look_at(child.id(), &what);
        let run = Run::of(child.wait_with_output().unwrap());
        drop(agent);
        let excused = run.code == Some(0) && ["token", "export"].contains(&name);
        if !excused {
            self.canaries
                .absent(run.stdout.as_bytes(), &format!("stdout of {what}"));
        }
        self.canaries
            .absent(run.stderr.as_bytes(), &format!("stderr of {what}"));
        assert!(run.code.is_some_and(|code| code != 101), "{what}: {run:?}");
        assert!(!run.stderr.contains("panicked"), "{what}: {run:?}");
        let defects = run.stderr.matches("a defect in the program").count();
        match self.world {
            // Nothing but that it was one, and where.
            World::NoThread if defects == 1 => {
                let lines = run
                    .stderr
                    .lines()
                    .skip_while(|line| !line.contains("a defect"));
                assert!(lines.count() <= 2, "{what}: {run:?}");
                assert_eq!(run.code, Some(1), "{what}: {run:?}");
            }
            _ => assert_eq!(defects, 0, "{what}: {run:?}"),
        }
        self.canaries.absent_from_files(&self.home, &MINE);
        run
    }

    /// Looks at the arguments and the environment of a process and of those that it started.
    fn look_at(&self, pid: u32, what: &str) {
        for file in ["cmdline", "environ"] {
            let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            self.canaries.absent(&text, &format!("{file} of {what}"));
        }
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        for child in children.unwrap_or_default().split_whitespace() {
            self.look_at(child.parse().unwrap(), what);
        }
    }
}

impl World {
    fn asks_for_a_code(self) -> bool {
        matches!(self, Self::WrongCode | Self::Faulty("wrong-rp-id"))
    }

    /// Whether a row can be any different here.
    fn concerns(self, args: &str) -> bool {
        match self {
            Self::Honest => true,
            Self::WrongPassphrase => args.contains("PASS"),
            Self::WrongCode | Self::NoThread => args.contains("ADMIN"),
            _ => ["ADMIN", "NETWORK", "bot PASS", "bot --format"]
                .iter()
                .any(|word| args.contains(word)),
        }
    }
}

/// The manners in which a row is played: they take turns, as all of them take half an hour.
fn manners(turn: usize) -> Vec<&'static [&'static str]> {
    if every_manner() {
        return MANNERS.into();
    }
    vec![MANNERS[turn % MANNERS.len()]]
}

fn every_manner() -> bool {
    std::env::var_os("EVERY_MANNER").is_some()
}

/// Plays rows in a world.
fn play(world: World, number: usize) {
    play_and_look(&[world], number, |_| {});
}

/// Plays every row in one world; of several, each with the first row, which makes a key and asks the
/// exchange for more than the others do, and with one other.
fn play_and_look(worlds: &[World], number: usize, mut look: impl FnMut(&Run)) {
    let mut stage = Stage::new(worlds);
    let world = worlds[0];
    match world {
        World::Mirror { grants } => mirror(&stage.address, grants.then(|| stage.token.clone())),
        World::Gone => assert!(TcpStream::connect(&stage.address).is_err()),
        _ => {}
    }
    let rows = ROWS.iter().filter(|(_, args)| world.concerns(args));
    let plays: Vec<_> = if let [world] = worlds {
        rows.map(|row| (row, world)).collect()
    } else {
        let first = worlds.iter().map(|world| (&ROWS[0], world));
        rows.skip(1).cycle().zip(worlds).chain(first).collect()
    };
    for (turn, ((name, args), world)) in plays.into_iter().enumerate() {
        stage.world = *world;
        for manner in manners(turn + number) {
            let server = stage.restore();
            let run = stage.play(name, args, manner);
            drop(server);
            look(&run);
            if *world == World::Honest {
                let line = format!("{name} {args}");
                let known = ENDS.iter().find(|(begin, _)| line.starts_with(begin));
                let expected = known.map_or(0, |(_, code)| *code);
                assert_eq!(run.code, Some(expected), "{line}: {run:#?}");
                if ["provision", "generate", "rotate"].contains(name) {
                    stage.look_for_the_key(args.split(' ').next().unwrap(), &run);
                }
            }
        }
    }
}

#[test]
fn where_nothing_is_in_the_way() {
    play(World::Honest, 1);
}

#[test]
fn where_the_exchange_quotes_what_it_was_told() {
    play(World::Faulty("echo"), 2);
}

#[test]
fn where_the_exchange_says_two_things_at_once() {
    play(World::Faulty("both"), 3);
}

#[test]
fn where_the_exchange_refuses() {
    play(World::Faulty("unauthorized"), 4);
}

#[test]
fn where_the_exchange_breaks_off() {
    play(World::Faulty("drop-after"), 5);
}

#[test]
fn where_the_exchange_is_slow() {
    play(World::Faulty("slow"), 6);
}

#[test]
fn where_the_exchange_fails_in_any_other_way() {
    let kinds: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    assert!(ALWAYS.iter().all(|name| kinds.contains(name)), "{kinds:?}");
    let others = kinds.iter().filter(|name| !ALWAYS.contains(name));
    let worlds: Vec<World> = others.map(|name| World::Faulty(name)).collect();
    if !every_manner() {
        play_and_look(&worlds, 13, |_| {});
        return;
    }
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(world) = worlds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    play(*world, 13);
                }
            });
        }
    });
}

#[test]
fn where_a_mirror_answers() {
    play(World::Mirror { grants: false }, 7);
}

#[test]
fn where_a_mirror_answers_after_the_login() {
    play(World::Mirror { grants: true }, 8);
}

#[test]
fn where_nobody_answers() {
    play(World::Gone, 9);
}

#[test]
fn where_the_passphrase_is_another() {
    play(World::WrongPassphrase, 10);
}

#[test]
fn where_the_code_is_another() {
    play(World::WrongCode, 11);
}

#[test]
fn where_no_thread_can_be_had() {
    if !installed(NO_THREAD[0], &["-o", "/dev/null", "true"]) {
        return;
    }
    let mut panics = 0;
    play_and_look(&[World::NoThread], 12, |run| {
        panics += usize::from(run.stderr.contains("a defect in the program"));
    });
    assert!(panics > 1, "{panics}");
}
