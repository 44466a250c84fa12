//! What the agent costs, beside a bare echo, the bare signature, and the real `ssh-agent`.
//!
//! One run measures all of them in turns, as machines are noisy and only ratios last. So it is no
//! harness of the usual kind, which measures one thing to its end and then the next. Each server is a
//! process of its own; the agent is the program that is built beside this one, with its audit log.
//!
//! ```sh
//! cargo bench --bench agent              # a minute or two
//! cargo bench --bench agent -- --test    # seconds: whether it works
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::as_conversions,
    reason = "a measurement that goes wrong has nothing better to do than to end"
)]

use std::{
    env, fs,
    hint::black_box,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use base64::prelude::{BASE64_STANDARD, Engine};
use tempfile::TempDir;

#[path = "peers/raw.rs"]
mod raw;
use raw::Raw;

const CONNECTIONS: usize = 64;
/// A login's text.
const TEXT: &[u8] = b"1576074319000\nur81yspy45k16jc73z3izvev\n";

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["echo", path, length] => echo(Path::new(path), length.parse().unwrap()),
        // As `cargo bench` says it; `cargo test --benches` says nothing.
        ["--bench"] => measure(&Effort::FULL),
        _ => measure(&Effort::SHORT),
    }
}

/// How often, and how long.
struct Effort {
    rounds: usize,
    spells: usize,
    spell: Duration,
}

impl Effort {
    const FULL: Self = Self {
        rounds: 400,
        spells: 24,
        spell: Duration::from_millis(400),
    };
    const SHORT: Self = Self {
        rounds: 20,
        spells: 1,
        spell: Duration::from_millis(300),
    };
}

/// The same for each kind of key.
struct Kind {
    name: &'static str,
    algorithm: &'static str,
    ssh: &'static [&'static str],
    /// What tells `ssh-agent` to sign as Deribit wants it.
    flags: u8,
    /// Signatures in one turn.
    turn: usize,
}

impl Kind {
    /// What ssh-agent does around a signature can be saved, the signature itself cannot: with RSA
    /// there is nothing to promise.
    fn beside_ssh(&self, budget: Budget) -> Budget {
        if self.flags == 0 {
            budget
        } else {
            Budget::None
        }
    }
}

const KINDS: [Kind; 2] = [
    Kind {
        name: "Ed25519",
        algorithm: "ed25519",
        ssh: &["-t", "ed25519"],
        flags: 0,
        turn: 20,
    },
    Kind {
        name: "RSA-2048",
        algorithm: "rsa-2048",
        ssh: &["-t", "rsa", "-b", "2048"],
        flags: 2,
        turn: 5,
    },
];

fn measure(effort: &Effort) {
    if cfg!(debug_assertions) {
        println!("Built for debugging: see whether it works, and believe no number.\n");
    }
    let mut verdicts = Vec::new();
    for kind in &KINDS {
        let scene = Scene::new(kind);
        alone(kind, &scene, effort, &mut verdicts);
        crowd(kind, &scene, effort, &mut verdicts);
    }
    println!("| the agent | ratio | budget |\n|---|---|---|");
    verdicts.iter().for_each(|row| println!("{row}"));
}

/// One connection, one request after the other.
fn alone(kind: &Kind, scene: &Scene, effort: &Effort, verdicts: &mut Vec<String>) {
    let mut floor = scene.echo.connect();
    let mut agent = scene.agent.connect();
    let mut ssh = scene.ssh.as_ref().map(Server::connect);
    let raw = Raw::read(&scene.pem);
    let mut floors = Times::default();
    let mut raws = Times::default();
    let mut agents = Times::default();
    let mut sshs = Times::default();
    for _ in 0..effort.rounds {
        floors.take(kind.turn, || floor.trip());
        raws.take(kind.turn, || drop(black_box(raw.sign(TEXT))));
        agents.take(kind.turn, || agent.trip());
        if let Some(ssh) = &mut ssh {
            sshs.take(kind.turn.min(5), || ssh.trip());
        }
    }
    println!(
        "{}, one connection                       median       p99",
        kind.name
    );
    row("bare echo of the same sizes", &mut floors);
    row("bare signature", &mut raws);
    row("agent, auth", &mut agents);
    row("ssh-agent, sign", &mut sshs);
    let (floor, raw) = (floors.median(), raws.median());
    let agent = agents.median();
    let name = kind.name;
    verdicts.push(verdict(
        &format!("{name}, one connection: beside a bare echo and a bare signature"),
        agent / (floor + raw),
        Budget::AtMost(1.25),
    ));
    if ssh.is_some() {
        let budget = kind.beside_ssh(Budget::AtMost(0.05));
        verdicts.push(verdict(
            &format!("{name}, one connection: beside `ssh-agent`"),
            agent / sshs.median(),
            budget,
        ));
    }
    println!();
}

/// As many connections as the agent lets in, each with a request under way all the time.
fn crowd(kind: &Kind, scene: &Scene, effort: &Effort, verdicts: &mut Vec<String>) {
    let mut rates = [(); 3].map(|()| (Times::default(), Times::default()));
    // Beside the bare signatures of the same spell: a noisy neighbour stays longer than that.
    let mut shares = Times::default();
    let servers = [Some(&scene.echo), Some(&scene.agent), scene.ssh.as_ref()];
    for _ in 0..effort.spells {
        let raw = signed_by_all_processors(&scene.pem, effort.spell);
        for (server, (rate, cost)) in servers.iter().zip(&mut rates) {
            let Some(server) = server else { continue };
            let mut callers: Vec<Caller> = (0..CONNECTIONS).map(|_| server.connect()).collect();
            let (spent, begun) = (server.processor_time(), Instant::now());
            let mut trips = 0_u32;
            callers.iter_mut().for_each(Caller::send);
            while begun.elapsed() < effort.spell {
                for caller in &mut callers {
                    caller.receive();
                    caller.send();
                    trips += 1;
                }
            }
            let took = begun.elapsed();
            let spent = server.processor_time() - spent;
            callers.iter_mut().for_each(Caller::receive);
            rate.0.push(f64::from(trips) / took.as_secs_f64());
            cost.0.push(f64::from(trips) / spent.as_secs_f64());
        }
        shares.0.extend(rates[1].1.0.last().map(|cost| cost / raw));
    }
    let name = kind.name;
    println!(
        "{name}, {CONNECTIONS} connections         requests/s    for each second of the server's processors"
    );
    for (what, (rate, cost)) in ["bare echo", "agent, auth", "ssh-agent, sign"]
        .iter()
        .zip(&mut rates)
    {
        if !rate.0.is_empty() {
            println!(
                "  {what:<34}{:>10.0}    {:>10.0}",
                rate.median(),
                cost.median()
            );
        }
    }
    let [_, agent, ssh] = &mut rates;
    verdicts.push(verdict(
        &format!("{name}, {CONNECTIONS} connections: of the bare signatures for each second of a processor"),
        shares.median(),
        Budget::AtLeast(0.65),
    ));
    if !ssh.0.0.is_empty() {
        let times = agent.0.median() / ssh.0.median();
        let budget = kind.beside_ssh(Budget::AtLeast(25.0));
        verdicts.push(verdict(
            &format!("{name}, {CONNECTIONS} connections: requests a second beside `ssh-agent`"),
            times,
            budget,
        ));
    }
    println!();
}

/// Bare signatures for each second of processor time while every processor makes some, as they do
/// under load: two that share a core are slower than one that has it to itself.
fn signed_by_all_processors(pem: &str, spell: Duration) -> f64 {
    let processors = thread::available_parallelism().unwrap().get();
    let (mut signed, mut spent) = (0.0, 0.0);
    thread::scope(|scope| {
        let work = || {
            let (raw, begun, mut signed) = (Raw::read(pem), Instant::now(), 0_u32);
            let before = thread_time(Path::new("/proc/thread-self"));
            while begun.elapsed() < spell {
                black_box(raw.sign(TEXT));
                signed += 1;
            }
            let spent = thread_time(Path::new("/proc/thread-self")) - before;
            (f64::from(signed), spent.as_secs_f64())
        };
        let workers: Vec<_> = (0..processors).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            let (more, longer) = worker.join().unwrap();
            signed += more;
            spent += longer;
        }
    });
    signed / spent
}

/// What a thread has used so far, by its directory.
fn thread_time(task: &Path) -> Duration {
    let text = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
    let spent = text.split(' ').next().and_then(|ns| ns.parse().ok());
    Duration::from_nanos(spent.unwrap_or(0))
}

enum Budget {
    AtMost(f64),
    AtLeast(f64),
    None,
}

/// Returns a row of the table that ends it all.
fn verdict(what: &str, ratio: f64, budget: Budget) -> String {
    let (kept, said) = match budget {
        Budget::AtMost(most) => (ratio <= most, format!("at most {most}")),
        Budget::AtLeast(least) => (ratio >= least, format!("at least {least}")),
        Budget::None => (true, "none".into()),
    };
    let mark = if kept { "" } else { ", missed" };
    format!("| {what} | {ratio:.2} | {said}{mark} |")
}

fn row(what: &str, times: &mut Times) {
    if !times.0.is_empty() {
        let [median, late] = [0.5, 0.99].map(|part| times.quantile(part) * 1e6);
        println!("  {what:<34}{median:>10.1} us{late:>10.1} us");
    }
}

/// Numbers in any order.
#[derive(Default)]
struct Times(Vec<f64>);

impl Times {
    fn take(&mut self, turn: usize, mut what: impl FnMut()) {
        for _ in 0..turn {
            let begun = Instant::now();
            what();
            self.0.push(begun.elapsed().as_secs_f64());
        }
    }

    fn median(&mut self) -> f64 {
        self.quantile(0.5)
    }

    fn quantile(&mut self, part: f64) -> f64 {
        self.0.sort_by(f64::total_cmp);
        self.0[((self.0.len() - 1) as f64 * part) as usize]
    }
}

/// Who is measured.
struct Scene {
    pem: String,
    agent: Server,
    echo: Server,
    ssh: Option<Server>,
    _dir: TempDir,
}

impl Scene {
    fn new(kind: &Kind) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let store = dir.path().join("store");
        let derikey = |args: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_derikey"));
            command.arg("--home").arg(&store).args(args).env_clear();
            command.stdin(Stdio::null());
            command
        };
        let made = derikey(&[
            "provision",
            "bot",
            "--network",
            "sandbox",
            "--scope",
            "trade:read",
            "--no-passphrase",
            "--insecure",
            "--algorithm",
            kind.algorithm,
        ]);
        finished(made);
        let pem = fs::read_to_string(store.join("keys/bot/current/private.pem")).unwrap();
        let path = dir.path().join("agent.sock");
        let mut command = derikey(&["agent", "bot", "--socket"]);
        command.arg(&path);
        let request = b"{\"op\":\"auth\",\"key\":\"bot\"}\n".to_vec();
        let agent = Server::start(command, path, request.clone(), Frame::Line);
        let caller = agent.connect();
        let length = caller.filled.to_string();
        assert!(
            caller.buffer.starts_with(b"{\"ok\":true"),
            "the agent does not sign"
        );
        let path = dir.path().join("echo.sock");
        let mut command = Command::new(env::current_exe().unwrap());
        command.arg("echo").arg(&path).arg(length);
        let echo = Server::start(command, path, request, Frame::Line);
        drop(caller);
        let ssh = ssh_agent(dir.path(), kind);
        Self {
            pem,
            agent,
            echo,
            ssh,
            _dir: dir,
        }
    }
}

fn finished(mut command: Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// Starts the real one with a key of its own, where it is installed.
fn ssh_agent(dir: &Path, kind: &Kind) -> Option<Server> {
    let (path, file) = (dir.join("ssh.sock"), dir.join("id"));
    let mut make = Command::new("ssh-keygen");
    make.args(["-q", "-N", "", "-f"]).arg(&file).args(kind.ssh);
    if make.status().is_err() {
        eprintln!("OpenSSH is not installed: nothing is compared with ssh-agent");
        return None;
    }
    let public = fs::read_to_string(file.with_extension("pub")).unwrap();
    let blob = BASE64_STANDARD
        .decode(public.split(' ').nth(1).unwrap())
        .unwrap();
    // SSH_AGENTC_SIGN_REQUEST: the key, the data, the flags.
    let mut body = vec![13];
    for part in [&blob[..], TEXT] {
        body.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
        body.extend(part);
    }
    body.extend([0, 0, 0, kind.flags]);
    let mut request = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    request.extend(body);
    let mut command = Command::new("ssh-agent");
    command.arg("-D").arg("-a").arg(&path);
    let server = Server::start(command, path.clone(), request, Frame::Counted);
    let mut add = Command::new("ssh-add");
    add.arg("-q").arg(&file).env("SSH_AUTH_SOCK", &path);
    finished(add);
    let mut caller = server.connect();
    caller.trip();
    // SSH_AGENT_SIGN_RESPONSE
    assert_eq!(caller.buffer[4], 14, "ssh-agent does not sign");
    Some(server)
}

/// Answers each line with as many bytes as it was told.
fn echo(path: &Path, length: usize) {
    let listener = UnixListener::bind(path).unwrap();
    println!("{}", path.display());
    for stream in listener.incoming() {
        thread::spawn(move || {
            let mut stream = stream.unwrap();
            let mut answer = vec![b'x'; length];
            answer[length - 1] = b'\n';
            let mut heard = vec![0; 65537];
            loop {
                match stream.read(&mut heard) {
                    Ok(n) if n > 0 && heard[n - 1] == b'\n' => {}
                    _ => return,
                }
                if stream.write_all(&answer).is_err() {
                    return;
                }
            }
        });
    }
}

/// How an answer ends.
#[derive(Clone, Copy)]
enum Frame {
    Line,
    Counted,
}

/// A process that answers one request again and again.
struct Server {
    child: Child,
    path: PathBuf,
    request: Vec<u8>,
    frame: Frame,
}

impl Server {
    /// Starts it and waits until it listens.
    fn start(mut command: Command, path: PathBuf, request: Vec<u8>, frame: Frame) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut said = BufReader::new(child.stdout.as_mut().unwrap());
        said.read_line(&mut line).unwrap();
        Self {
            child,
            path,
            request,
            frame,
        }
    }

    /// A connection that has asked once.
    fn connect(&self) -> Caller {
        let mut caller = Caller {
            stream: UnixStream::connect(&self.path).unwrap(),
            request: self.request.clone(),
            frame: self.frame,
            buffer: vec![0; 65536],
            filled: 0,
        };
        caller.trip();
        caller
    }

    /// What its threads have used so far.
    fn processor_time(&self) -> Duration {
        let tasks = format!("/proc/{}/task", self.child.id());
        let tasks = fs::read_dir(tasks).unwrap().flatten();
        tasks.map(|task| thread_time(&task.path())).sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection to a server.
struct Caller {
    stream: UnixStream,
    request: Vec<u8>,
    frame: Frame,
    buffer: Vec<u8>,
    filled: usize,
}

impl Caller {
    fn trip(&mut self) {
        self.send();
        self.receive();
    }

    fn send(&mut self) {
        self.stream.write_all(&self.request).unwrap();
    }

    fn receive(&mut self) {
        self.filled = 0;
        while !self.is_whole() {
            let n = self.stream.read(&mut self.buffer[self.filled..]).unwrap();
            assert!(n > 0, "the server hung up");
            self.filled += n;
        }
    }

    fn is_whole(&self) -> bool {
        let heard = &self.buffer[..self.filled];
        match self.frame {
            Frame::Line => heard.last() == Some(&b'\n'),
            Frame::Counted => heard
                .first_chunk::<4>()
                .is_some_and(|length| heard.len() - 4 == u32::from_be_bytes(*length) as usize),
        }
    }
}
