//! One registration as a play: a keystore, an account at the exchange, and somebody who looks at
//! both afterwards without the program's help.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::support::{Home, Run, Server};

/// What every key here is called, and what it may do.
pub(crate) const NAME: &str = "bot";
pub(crate) const SCOPE: &str = "account:read trade:read_write";

/// Memory that no answer may make the program use, in kB.
pub(crate) const ENOUGH_MEMORY: u64 = 64 * 1024;

const PASSPHRASE: &str = "correct horse battery staple";

/// A keystore and the passphrase of its keys.
pub(crate) struct Scene {
    pub(crate) home: Home,
    passphrase: PathBuf,
    in_clear: bool,
}

/// A run with what it cost.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) run: Run,
    pub(crate) took: Duration,
    /// The most memory that was resident, in kB.
    pub(crate) memory: u64,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let home = Home::new();
        let passphrase = home.secret_file("passphrase", PASSPHRASE);
        Self {
            home,
            passphrase,
            in_clear: false,
        }
    }

    /// One whose key is not sealed, which saves most of the time that a run takes.
    pub(crate) fn in_clear() -> Self {
        Self {
            in_clear: true,
            ..Self::new()
        }
    }

    /// The flags of a command that registers a key at `server`.
    pub(crate) fn flags<'a>(&'a self, server: &'a Server) -> Vec<&'a str> {
        let mut flags = server.admin();
        if self.in_clear {
            flags.extend(["--no-passphrase", "--insecure"]);
        } else {
            flags.extend(self.passphrase_flags());
        }
        flags
    }

    pub(crate) fn passphrase_flags(&self) -> [&str; 2] {
        ["--passphrase-file", self.passphrase.to_str().unwrap()]
    }

    /// `provision`, with a whitelist of this machine if asked for.
    pub(crate) fn provision(&self, flags: &[&str], ip: bool) -> Command {
        let mut command = self
            .home
            .command(&["--json", "provision", NAME, "--scope", SCOPE]);
        if ip {
            command.args(["--ip", "127.0.0.1"]);
        }
        command.args(flags);
        command
    }

    pub(crate) fn resume(&self, flags: &[&str]) -> Run {
        let mut command = self.home.command(&["--json", "resume"]);
        Run::of(command.args(flags).output().unwrap())
    }

    /// What `status` says is under way.
    pub(crate) fn pending(&self) -> Vec<Value> {
        let status = self.home.run(&["--json", "status"]).json();
        status["pending"].as_array().unwrap().clone()
    }

    /// The state in the key's record, if there is a key.
    pub(crate) fn state(&self) -> Option<String> {
        let text = fs::read_to_string(self.home.store().join("keys/bot/current/key.toml")).ok()?;
        let line = text.lines().find(|line| line.starts_with("state"))?;
        Some(line.split('"').nth(1)?.to_owned())
    }

    /// Our public half as one line of base64, if there is a key.
    pub(crate) fn public(&self) -> Option<String> {
        let path = self.home.store().join("keys/bot/current/public.pem");
        Some(base64_of(&fs::read_to_string(path).ok()?))
    }

    /// Finishes whatever was interrupted and proves that it came out as if nothing had happened.
    ///
    /// `server` is the exchange without faults, at the address that it had before.
    #[track_caller]
    pub(crate) fn recovers(&self, server: &Server, ip: bool, flags: &[&str], what: &str) {
        let resumed = self.resume(flags);
        assert_eq!(resumed.code, Some(0), "{what}: {resumed:#?}");
        if self.public().is_none() {
            // Nothing had been announced, or the exchange had refused for good.
            let again = Run::of(self.provision(flags, ip).output().unwrap());
            assert_eq!(again.code, Some(0), "{what}: {again:#?}");
        }
        self.stands(server, ip, flags, what);
    }

    /// Proves that there is exactly one key, ours, with the rights that were asked for, and that
    /// it works.
    #[track_caller]
    pub(crate) fn stands(&self, server: &Server, ip: bool, flags: &[&str], what: &str) {
        let ours = self.public().expect(what);
        let keys = Account::of(server).keys();
        let (found, strange): (Vec<&Value>, Vec<&Value>) = keys
            .iter()
            .filter(|key| key["public_key"].is_string())
            .partition(|key| base64_of(key["public_key"].as_str().unwrap()) == ours);
        assert_eq!(found.len(), 1, "{what}: {keys:#?}");
        assert!(strange.is_empty(), "{what}: an orphan: {strange:#?}");
        let key = found.first().unwrap();
        let mut scope: Vec<&str> = key["max_scope"]
            .as_str()
            .unwrap()
            .split(' ')
            .filter(|area| !area.ends_with(":none"))
            .collect();
        scope.sort_unstable();
        assert_eq!(scope.join(" "), SCOPE, "{what}");
        let whitelist = key["ip_whitelist"].as_array().cloned().unwrap_or_default();
        let asked = if ip { vec![json!("127.0.0.1")] } else { vec![] };
        assert_eq!(whitelist, asked, "{what}");
        assert_eq!(key["enabled"], true, "{what}");
        assert_eq!(key["name"], NAME, "{what}");
        assert_eq!(self.state().as_deref(), Some("active"), "{what}");

        let [file, path] = self.passphrase_flags();
        let login = self.home.run(&["--json", "auth", NAME, file, path]);
        assert_eq!(login.code, Some(0), "{what}: {login:#?}");
        assert_eq!(self.pending(), Vec::<Value>::new(), "{what}");
        let again = self.resume(flags);
        assert_eq!(again.json()["resumed"], json!([]), "{what}");
        self.audit_is_chained(what);
    }

    /// Checks that each line of the audit log carries the SHA-256 of the line before; returns
    /// how many there are.
    #[track_caller]
    pub(crate) fn audit_is_chained(&self, what: &str) -> usize {
        let text = fs::read_to_string(self.home.store().join("audit.jsonl")).unwrap();
        assert!(text.is_empty() || text.ends_with("\n"), "{what}: {text}");
        let mut prev = "0".repeat(64);
        for line in text.lines() {
            // A line torn by a kill is no JSON; the chain runs through it all the same.
            if let Ok(entry) = serde_json::from_str::<Value>(line) {
                assert_eq!(entry["prev"], *prev, "{what}: {text}");
            }
            prev = Sha256::digest(line.as_bytes())
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
        }
        text.lines().count()
    }

    /// Finds files of the keystore that hold a private key in clear.
    pub(crate) fn plaintext(&self) -> Vec<PathBuf> {
        let mut found = files(&self.home.store());
        found.retain(|path| {
            let bytes = fs::read(path).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            text.contains("BEGIN PRIVATE KEY") || text.contains("MC4CAQAwBQYDK2VwBCIEI")
        });
        found
    }
}

/// Every plain file under a directory.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => dirs.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// The base64 of a PEM document, whatever its line breaks.
pub(crate) fn base64_of(pem: &str) -> String {
    let body: String = pem.split("-----").nth(2).unwrap_or_default().into();
    body.split_whitespace().collect()
}

/// Starts the exchange at an address it had before; somebody else may hold it for a moment.
pub(crate) fn restart(home: &Home, address: &str) -> Server {
    for _ in 0..20 {
        if let Ok(server) = catch_unwind(AssertUnwindSafe(|| Server::start_at(home, address, &[])))
        {
            return server;
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    panic!("{address} stays taken");
}

/// Runs a command to its end and measures it. Its output must fit into a pipe.
pub(crate) fn measure(mut command: Command) -> Measured {
    let begun = Instant::now();
    let mut child = command.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    // For a moment it still has this program's name, and its memory.
    let ours = format!(
        "Name:\t{}",
        fs::read_to_string("/proc/thread-self/comm").unwrap()
    );
    let mut memory = 0;
    while child.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let text = if text.starts_with(&ours) { "" } else { &text };
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        memory = memory.max(number.and_then(|n| n.parse().ok()).unwrap_or(0));
        assert!(
            begun.elapsed() < Duration::from_secs(90),
            "it never ends: {command:?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    Measured {
        run: Run::of(child.wait_with_output().unwrap()),
        took: begun.elapsed(),
        memory,
    }
}

/// Checks a failure under `--json`: one object with a cause and a cure, and nothing that could
/// play tricks on a terminal.
#[track_caller]
pub(crate) fn says_why(run: &Run, what: &str) -> Value {
    assert_eq!(run.stdout, "", "{what}: {run:#?}");
    assert!(!run.stderr.contains("panicked"), "{what}: {run:#?}");
    is_tame(run, what);
    let objects: Vec<Value> = run
        .stderr
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    assert_eq!(objects.len(), 1, "{what}: {run:#?}");
    let error = run.error(run.code.unwrap())["message"].clone();
    assert!(
        error.as_str().is_some_and(|text| !text.is_empty()),
        "{what}"
    );
    let error = objects.first().unwrap()["error"].clone();
    assert!(
        error["hint"].as_str().is_some_and(|text| !text.is_empty()),
        "{what}: no hint: {run:#?}"
    );
    error
}

/// Checks that output holds no control byte but line breaks.
#[track_caller]
pub(crate) fn is_tame(run: &Run, what: &str) {
    let wild = |text: &str| text.chars().any(|c| c.is_control() && c != '\n');
    assert!(!wild(&run.stderr) && !wild(&run.stdout), "{what}: {run:#?}");
}

/// The account as its owner sees it, asked without the program.
pub(crate) struct Account {
    address: String,
    client_id: String,
    secret: String,
}

impl Account {
    pub(crate) fn of(server: &Server) -> Self {
        let secret = fs::read_to_string(&server.admin_secret_file).unwrap();
        Self {
            address: server.address(),
            client_id: server.admin_client_id.clone(),
            secret: secret.trim().to_owned(),
        }
    }

    /// All keys, the administrator's among them.
    pub(crate) fn keys(&self) -> Vec<Value> {
        let login = json!({
            "grant_type": "client_credentials",
            "client_id": self.client_id,
            "client_secret": self.secret,
        });
        let session = call(&self.address, "public/auth", login, None);
        let token = session["result"]["access_token"].as_str().unwrap();
        let list = call(
            &self.address,
            "private/list_api_keys",
            json!({}),
            Some(token),
        );
        list["result"].as_array().unwrap().clone()
    }

    /// The keys that are not the administrator's.
    pub(crate) fn asymmetric(&self) -> Vec<Value> {
        let mut keys = self.keys();
        keys.retain(|key| key["public_key"].is_string());
        keys
    }
}

fn call(address: &str, method: &str, params: Value, token: Option<&str>) -> Value {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    let authorization = token.map_or_else(String::new, |token| {
        format!("Authorization: Bearer {token}\r\n")
    });
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let head = format!(
        "POST /api/v2/{method} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         {authorization}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer}"))
}
