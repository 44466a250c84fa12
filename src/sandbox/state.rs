//! The account as it stands in files, shared by every process that serves it.
//!
//! Each request takes the lock, loads, changes and replaces `state.json`. A
//! rename is atomic, so a process killed at any moment leaves the old state or
//! the new one; nothing is fsynced because keys of a sandbox need not survive
//! the machine.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::Error;
use super::proof::{self, Credential};
use super::scope::{Areas, Level};

/// Events of the access log that are kept.
const EVENTS: usize = 1000;

/// How long a nonce is remembered; the message around it is good for a minute.
const NONCE_LIFE: u64 = 600_000;

/// Everything the exchange remembers about one account.
#[derive(Serialize, Deserialize)]
pub(super) struct State {
    pub(super) user_id: u64,
    pub(super) admin_client_id: String,
    pub(super) next_key_id: u64,
    pub(super) next_event_id: u64,
    pub(super) keys: Vec<Key>,
    pub(super) grants: Vec<Grant>,
    pub(super) challenges: Vec<Challenge>,
    /// Time steps of one-time codes that were used.
    pub(super) used_steps: Vec<u64>,
    /// When second factors failed, in milliseconds.
    pub(super) failures: Vec<u64>,
    /// Nonces by client id, with the time of their use.
    pub(super) nonces: BTreeMap<String, BTreeMap<String, u64>>,
    pub(super) events: Vec<Event>,
}

/// One API key.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Key {
    pub(super) id: u64,
    pub(super) client_id: String,
    pub(super) credential: Credential,
    pub(super) name: String,
    pub(super) max_scope: Areas,
    pub(super) enabled: bool,
    pub(super) timestamp: u64,
    pub(super) enabled_features: Vec<String>,
    pub(super) ip_whitelist: Vec<IpAddr>,
}

/// One pair of tokens; the tokens themselves are not stored.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Grant {
    pub(super) key_id: u64,
    pub(super) session: String,
    pub(super) areas: Areas,
    pub(super) ip: Option<IpAddr>,
    pub(super) lifetime: Option<u64>,
    pub(super) issued: u64,
    pub(super) access_sha256: String,
    pub(super) access_expires: u64,
    pub(super) refresh_sha256: String,
    pub(super) refresh_expires: u64,
}

/// One demand for a second factor.
#[derive(Serialize, Deserialize)]
pub(super) struct Challenge {
    pub(super) text: String,
    pub(super) key_id: u64,
    /// SHA-256 of the method and its parameters.
    pub(super) request: String,
    pub(super) issued: u64,
}

/// One line of the access log.
#[derive(Serialize, Deserialize)]
pub(super) struct Event {
    pub(super) id: u64,
    pub(super) timestamp: u64,
    pub(super) ip: IpAddr,
    pub(super) log: String,
    pub(super) client_id: String,
}

/// The directory that holds the state.
#[derive(Debug)]
pub(super) struct Ledger {
    dir: PathBuf,
}

impl State {
    pub(super) fn key_of_client(&self, client_id: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.client_id == client_id)
    }

    pub(super) fn record(&mut self, log: &str, client_id: &str, ip: IpAddr, now: u64) {
        let event = Event {
            id: self.next_event_id,
            timestamp: now,
            ip,
            log: log.to_owned(),
            client_id: client_id.to_owned(),
        };
        self.next_event_id = self.next_event_id.saturating_add(1);
        self.events.push(event);
        let surplus = self.events.len().saturating_sub(EVENTS);
        self.events.drain(..surplus);
    }

    /// Uses up a nonce; false if the key has used it before.
    pub(super) fn spend_nonce(&mut self, client_id: &str, nonce: &str, now: u64) -> bool {
        let spent = self.nonces.entry(client_id.to_owned()).or_default();
        spent.retain(|_, used| used.saturating_add(NONCE_LIFE) > now);
        spent.insert(nonce.to_owned(), now).is_none()
    }

    fn new() -> io::Result<Self> {
        let client_id = client_id()?;
        let admin = Key {
            id: 1,
            client_id: client_id.clone(),
            credential: Credential::random()?,
            name: "admin".to_owned(),
            max_scope: Areas::uniform(Level::ReadWrite),
            enabled: true,
            timestamp: now(),
            enabled_features: Vec::new(),
            ip_whitelist: Vec::new(),
        };
        Ok(Self {
            user_id: 62178,
            admin_client_id: client_id,
            next_key_id: 2,
            next_event_id: 1,
            keys: vec![admin],
            grants: Vec::new(),
            challenges: Vec::new(),
            used_steps: Vec::new(),
            failures: Vec::new(),
            nonces: BTreeMap::new(),
            events: Vec::new(),
        })
    }
}

impl Ledger {
    /// Opens the directory, making it and the administrator on first use.
    ///
    /// Returns the administrator's client id beside the ledger.
    pub(super) fn open(dir: &Path) -> Result<(Self, String), Error> {
        let ledger = Self {
            dir: dir.to_owned(),
        };
        let client_id = ledger.prepare().map_err(|source| Error::State {
            path: dir.to_owned(),
            source,
        })?;
        Ok((ledger, client_id))
    }

    /// The file that holds the administrator's secret.
    pub(super) fn admin_secret_file(&self) -> PathBuf {
        self.dir.join("admin-secret")
    }

    /// Lets one caller at a time read and change the state.
    ///
    /// Blocks while another process holds the lock, which is never longer than
    /// a request takes to apply.
    pub(super) fn with<R>(&self, apply: impl FnOnce(&mut State) -> R) -> io::Result<R> {
        let _lock = self.lock()?;
        let before = read(&self.dir.join("state.json"))?;
        let mut state: State = serde_json::from_slice(&before).map_err(corrupt)?;
        let result = apply(&mut state);
        let after = serde_json::to_vec(&state).map_err(corrupt)?;
        if after != before {
            self.replace("state.json", &after)?;
        }
        Ok(result)
    }

    fn prepare(&self) -> io::Result<String> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)?;
        let _lock = self.lock()?;
        let state = match read(&self.dir.join("state.json")) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(corrupt)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let state = State::new()?;
                self.introduce_admin(&state)?;
                // Last, because its presence says that all of the above is done.
                self.replace("state.json", &serde_json::to_vec(&state).map_err(corrupt)?)?;
                state
            }
            Err(error) => return Err(error),
        };
        Ok(state.admin_client_id)
    }

    fn introduce_admin(&self, state: &State) -> io::Result<()> {
        self.replace(
            "admin-client-id",
            format!("{}\n", state.admin_client_id).as_bytes(),
        )?;
        let admin = state.key_of_client(&state.admin_client_id);
        let secret = admin
            .map(|key| key.credential.client_secret())
            .unwrap_or_default();
        self.replace("admin-secret", format!("{secret}\n").as_bytes())
    }

    fn lock(&self) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE;
        let path = self.dir.join("state.lock");
        let file = open(&path, flags)?;
        if file.metadata()?.nlink() != 1 {
            let what = format!("{} has a second name", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        file.lock()?;
        Ok(file)
    }

    /// Replaces a file whole; to be called under the lock.
    fn replace(&self, name: &str, contents: &[u8]) -> io::Result<()> {
        let temporary = self.dir.join(format!(".{name}.new"));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let mut file = match open(&temporary, flags) {
            // Left behind by a process that was killed: the lock is ours now.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                std::fs::remove_file(&temporary)?;
                open(&temporary, flags)?
            }
            other => other?,
        };
        file.write_all(contents)?;
        std::fs::rename(&temporary, self.dir.join(name))
    }
}

/// Draws a client id of eight url-safe characters.
pub(super) fn client_id() -> io::Result<String> {
    loop {
        let id = proof::url_safe::<6>()?;
        // A hyphen in front would read as a flag on a command line.
        if !id.starts_with('-') {
            return Ok(id);
        }
    }
}

/// The time in milliseconds since 1970.
pub(super) fn now() -> u64 {
    now_us() / 1000
}

/// The time in microseconds since 1970.
pub(super) fn now_us() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since
        .ok()
        .and_then(|since| u64::try_from(since.as_micros()).ok())
        .unwrap_or(0)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path, OFlags::RDONLY)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    // Non-blocking, so that a pipe put there cannot make us wait for its other end.
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?);
    if !file.metadata()?.is_file() {
        let what = format!("{} is not a plain file", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    Ok(file)
}

fn corrupt(error: serde_json::Error) -> io::Error {
    // The text of the error may quote the file, which holds secrets.
    let what = format!(
        "state.json is damaged at line {} column {}",
        error.line(),
        error.column()
    );
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn makes_an_administrator_once() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("sandbox");
        let (ledger, first) = Ledger::open(&dir).unwrap();
        let (_, second) = Ledger::open(&dir).unwrap();
        assert_eq!(first, second);
        let secret = std::fs::read_to_string(ledger.admin_secret_file()).unwrap();
        assert_eq!(secret.len(), 44);
        assert!(
            ledger
                .with(|state| state
                    .keys
                    .iter()
                    .all(|key| key.credential.is_secret(secret.trim())))
                .unwrap()
        );
    }

    #[test]
    fn files_are_private_and_links_are_not_followed() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("sandbox");
        Ledger::open(&dir).unwrap();
        assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        for entry in std::fs::read_dir(&dir).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().mode() & 0o777, 0o600);
        }
        std::fs::rename(dir.join("state.json"), dir.join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("elsewhere", dir.join("state.json")).unwrap();
        assert!(matches!(Ledger::open(&dir), Err(Error::State { .. })));
    }

    #[test]
    fn survives_a_leftover_and_shares_the_state() {
        let home = tempfile::tempdir().unwrap();
        let (one, _) = Ledger::open(home.path()).unwrap();
        let (two, _) = Ledger::open(home.path()).unwrap();
        std::fs::write(home.path().join(".state.json.new"), "half a st").unwrap();
        for ledger in [&one, &two] {
            ledger.with(|state| state.next_key_id += 1).unwrap();
        }
        assert_eq!(one.with(|state| state.next_key_id).unwrap(), 4);
    }

    #[test]
    fn changes_of_many_do_not_get_lost() {
        let home = tempfile::tempdir().unwrap();
        Ledger::open(home.path()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let (ledger, _) = Ledger::open(home.path()).unwrap();
                    for _ in 0..25 {
                        ledger.with(|state| state.next_key_id += 1).unwrap();
                    }
                });
            }
        });
        let (ledger, _) = Ledger::open(home.path()).unwrap();
        assert_eq!(ledger.with(|state| state.next_key_id).unwrap(), 102);
    }
}
