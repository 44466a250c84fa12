//! The programs under `examples/`, against a real agent and an exchange in its own process. Whatever
//! they and their children are given or read is looked through for the key.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::json;

use super::{
    agent::{Running, Stage},
    scene::base64_of,
    support::{Home, Run, Server, data, installed},
};

/// What a process can be told by: its arguments and environment, files, pipes, sockets.
const SENSES: &str = "trace=execve,open,openat,openat2,read,pread64,readv,recvfrom,recvmsg";

/// An exchange, and an agent that holds a key there.
struct Market {
    stage: Stage,
    agent: Running,
    _exchange: (Server, Home),
}

impl Market {
    fn new() -> Self {
        let exchange = Home::new();
        let server = Server::start(&exchange, &[]);
        let stage = Stage::on(&server.admin());
        stage.configure("[agent.keys.bot]\nrest = [\"GET /api/v2/private/get_positions\"]\n");
        let agent = stage.start();
        Self {
            stage,
            agent,
            _exchange: (server, exchange),
        }
    }

    fn private_key(&self) -> PathBuf {
        self.stage.home.store().join("keys/bot/1/private.pem")
    }

    /// `derikey exec bot -- PROGRAM`, as a user types it, behind another program's words.
    fn exec(&self, behind: &[&str], program: &[&str]) -> Command {
        let inner = self.stage.home.command(&["exec", "bot", "--"]);
        let mut command = match behind.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(inner.get_program());
                command.args(inner.get_args());
                command.env_clear();
                for (name, value) in inner.get_envs() {
                    command.env(name, value.unwrap());
                }
                command.current_dir(self.stage.home.path(""));
                command
            }
            None => inner,
        };
        let own = Path::new(env!("CARGO_BIN_EXE_derikey")).parent().unwrap();
        let rest = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([own.to_owned()].into_iter().chain(env::split_paths(&rest)));
        command
            .args(program)
            .env("PATH", path.unwrap())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("DERIKEY_AGENT_SOCK", &self.agent.path);
        command
    }

    /// Runs an example to its end, and then once more with somebody watching.
    #[track_caller]
    fn run(&self, program: &[&str], more: &[(&str, &str)]) -> String {
        let mut command = self.exec(&[], program);
        let run = Run::of(command.envs(more.iter().copied()).output().unwrap()).ok();
        if let Some(seen) = self.watch(program, more) {
            assert_eq!(self.traces_of_the_key(&seen), Vec::<&str>::new());
            // What is in arguments or the environment, every process of the user can read.
            let token = json!({"op": "token", "key": "bot", "scope": "account:read"});
            let token = self.agent.ask(&token)["result"]["access_token"].clone();
            let token = hex(token.as_str().unwrap().as_bytes());
            let mut starts = seen.lines().filter(|line| line.contains("execve("));
            assert!(starts.all(|line| !line.contains(&token)));
        }
        run.stdout
    }

    /// All that a program and its children sense, in hexadecimal; nothing where nobody can watch.
    #[track_caller]
    fn watch(&self, program: &[&str], more: &[(&str, &str)]) -> Option<String> {
        if !installed("strace", &["-o", "/dev/null", "true"]) {
            return None;
        }
        let log = self.stage.home.path("strace.log");
        let strace = [
            "strace", "-f", "-qq", "-v", "-xx", "-s", "20000", "-e", SENSES, "-o",
        ];
        let strace = [&strace[..], &[log.to_str().unwrap()]].concat();
        let mut command = self.exec(&strace, program);
        Run::of(command.envs(more.iter().copied()).output().unwrap()).ok();
        let seen = fs::read_to_string(&log).unwrap();
        fs::remove_file(&log).unwrap();
        assert!(
            seen.contains(&hex(b"get_account_summary")),
            "nothing was seen"
        );
        Some(seen)
    }

    /// How the key occurs in what was sensed.
    fn traces_of_the_key(&self, seen: &str) -> Vec<&'static str> {
        let body = base64_of(&fs::read_to_string(self.private_key()).unwrap());
        let der = BASE64_STANDARD.decode(&body).unwrap();
        let seed = der.last_chunk::<32>().unwrap();
        let name = self.private_key();
        let name = name.file_name().unwrap().to_str().unwrap();
        [
            ("the file", hex(name.as_bytes())),
            ("PEM", hex(body.as_bytes())),
            ("DER", hex(seed)),
            ("base64", hex(BASE64_STANDARD.encode(seed).as_bytes())),
        ]
        .into_iter()
        .filter(|(_, form)| seen.contains(form))
        .map(|(what, _)| what)
        .collect()
    }
}

/// As strace writes it.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect()
}

fn example(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples")
        .join(path);
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_bot_in_python_logs_in_without_a_key() {
    if !installed("python3", &["--version"]) {
        return;
    }
    let market = Market::new();
    let said = market.run(&["python3", &example("python/agent_client.py")], &[]);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(
        lines[0].starts_with("auth ") && lines[0].ends_with(" BTC"),
        "{said}"
    );
    assert!(lines[0].contains("trade:read_write"), "{said}");
    assert!(lines[0].contains("session:agent_client"), "{said}");
    assert_eq!(lines[1], "token account:read BTC", "{said}");
    assert_eq!(lines[2], "rest 0 positions", "{said}");
}

#[test]
fn what_the_agent_refuses_the_bot_is_told() {
    if !installed("python3", &["--version"]) {
        return;
    }
    let market = Market::new();
    let client = example("python/agent_client.py");
    market
        .agent
        .ask(&json!({"op": "lock", "passphrase": "sesame"}));
    // exec asks the agent which key it is, so the lock stops it before the bot begins.
    let mut command = market.exec(&[], &["python3", &client]);
    Run::of(command.output().unwrap()).fails(8);
    market
        .agent
        .ask(&json!({"op": "unlock", "passphrase": "sesame"}));
    let script = format!("DERIKEY_KEY=other exec python3 '{client}'");
    let mut command = market.exec(&[], &["sh", "-c", &script]);
    let run = Run::of(command.output().unwrap()).fails(1);
    assert!(run.stderr.contains("unknown_key: "), "{run:#?}");
}

#[test]
fn ccxt_trades_with_tokens_of_the_agent() {
    if !installed("python3", &["--version"]) {
        return;
    }
    let market = Market::new();
    let path = if installed("python3", &["-c", "import ccxt"]) {
        env::var("PYTHONPATH").unwrap_or_default()
    } else {
        data("stand-in").to_str().unwrap().to_owned()
    };
    let more = [("PYTHONPATH", path.as_str())];
    let said = market.run(&["python3", &example("python/ccxt_bearer.py")], &more);
    assert_eq!(said, "ccxt BTC\n");
}

#[test]
fn a_shell_script_hands_curl_what_it_needs() {
    // --fail-with-body came with curl 7.76.
    if !installed("curl", &["--fail-with-body", "--version"]) {
        return;
    }
    let market = Market::new();
    let said = market.run(&["sh", &example("shell/curl.sh")], &[]);
    let (summary, rest) = said.split_once('\n').unwrap();
    let summary: serde_json::Value = serde_json::from_str(summary).unwrap();
    assert_eq!(summary["result"]["currency"], "BTC");
    assert_eq!(rest, "the login was accepted\n");
}

/// The proof that whoever watches sees what there is to be seen.
#[test]
fn a_program_that_reads_the_key_is_caught() {
    let market = Market::new();
    let key = market.private_key();
    let script = format!("cat '{}'; echo get_account_summary", key.display());
    let script = market.stage.home.secret_file("script", &script);
    if let Some(seen) = market.watch(&["sh", script.to_str().unwrap()], &[]) {
        assert_eq!(market.traces_of_the_key(&seen), ["the file", "PEM"]);
    }
}
