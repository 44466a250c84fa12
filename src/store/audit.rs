//! The audit log: who did what to which key, each line chained to the one before.
//!
//! A line's `prev` is the SHA-256 of the line before it, byte for byte, so that a line that is
//! changed, added or taken out in the middle shows. Whoever can write the file can write all of
//! it anew; the chain is against accidents and quiet edits, not against the owner of the account.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    time::UNIX_EPOCH,
};

use rustix::process::getuid;
use serde::{Deserialize, Serialize, de::IgnoredAny};
use sha2::{Digest, Sha256};

use super::{Error, Store, files, record::Moment};
use crate::{
    exchange::ClientId,
    key::{Fingerprint, KeyName, hex},
};

/// The longest line that is written or looked for.
const LONGEST_LINE: u64 = 16 * 1024;
/// Room to begin with.
const TYPICAL_LINE: usize = 320;
/// What the first line is chained to.
const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What one line of the log says. It borrows, as an agent under load writes them by the ten thousand.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Entry<'a> {
    /// When.
    pub at: Moment,
    /// Who: the real user id; the log puts it in.
    uid: u32,
    /// What, by the name of the command.
    pub action: &'a str,
    /// Which key.
    pub key: Option<&'a KeyName>,
    /// Its fingerprint.
    pub fingerprint: Option<Fingerprint>,
    /// What the exchange calls it, where it need not have a name here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<&'a ClientId>,
    /// On which network.
    pub network: Option<&'a str>,
    /// `done`, or what kind of failure.
    pub outcome: &'a str,
}

impl<'a> Entry<'a> {
    /// Prepares a line about something that ended just now; the log chains it.
    pub fn new(at: Moment, action: &'a str, outcome: &'a str) -> Self {
        Self {
            at,
            uid: 0,
            action,
            key: None,
            fingerprint: None,
            client_id: None,
            network: None,
            outcome,
        }
    }

    /// Tells whether it is the same text as another: a moment is written to the second.
    fn reads_like(&self, other: &Self) -> bool {
        let second = |moment: Moment| moment.0.duration_since(UNIX_EPOCH).map(|t| t.as_secs());
        let at = other.at;
        Self { at, ..*self } == *other && second(self.at).ok() == second(at).ok()
    }
}

/// What makes a line one of the log.
#[derive(Deserialize)]
struct Chained {
    #[serde(rename = "at")]
    _at: Moment,
    #[serde(rename = "uid")]
    _uid: u32,
    #[serde(rename = "action")]
    _action: IgnoredAny,
    #[serde(rename = "outcome")]
    _outcome: IgnoredAny,
    prev: String,
}

/// A line of the log as it is, and whether the chain holds there.
#[derive(Clone, Debug)]
pub struct Link {
    /// Its number, from 1.
    pub number: usize,
    /// The line.
    pub text: String,
    /// Whether it is an entry and is chained to the line before.
    pub holds: bool,
}

impl Store {
    /// Shows the log, line by line: an agent that is busy writes gigabytes of it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn audit_log(&self, mut each: impl FnMut(Link)) -> Result<(), Error> {
        let path = self.root().join("audit.jsonl");
        let file = match files::look_into(&path) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(());
            }
            file => file?,
        };
        let mut prev = GENESIS.to_owned();
        for (at, line) in BufReader::new(file).split(b'\n').enumerate() {
            let line = line.map_err(files::at(&path))?;
            if line.is_empty() {
                continue;
            }
            let entry: Option<Chained> = serde_json::from_slice(&line).ok();
            let holds = entry.is_some_and(|entry| entry.prev == prev);
            prev = digest(&line);
            each(Link {
                number: at + 1,
                text: String::from_utf8_lossy(&line).into_owned(),
                holds,
            });
        }
        Ok(())
    }

    /// Finds out whether the log can be written, before anything is done that belongs into it; makes
    /// one that lasts where there is none.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn check_audit(&self) -> Result<(), Error> {
        let path = self.root().join("audit.jsonl");
        let is_there = path.symlink_metadata().is_ok();
        files::open_ours(&path, OpenOptions::new().read(true).append(true))?;
        if is_there {
            return Ok(());
        }
        files::sync_parent(&path)
    }

    /// Appends a line, chained to the last one.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn audit(&self, entry: Entry<'_>) -> Result<(), Error> {
        self.audit_all([entry])
    }

    /// Appends lines, each chained to the one before, in one piece.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn audit_all<'a>(&self, entries: impl IntoIterator<Item = Entry<'a>>) -> Result<(), Error> {
        let path = self.ensure_root()?.join("audit.jsonl");
        let failed = files::at(&path);
        let mut file = files::open_ours(&path, OpenOptions::new().read(true).append(true))?;
        file.lock().map_err(&failed)?;
        let length = file.metadata().map_err(&failed)?.len();
        let (last, torn) = last_line(&mut file).map_err(&failed)?;
        let entries = entries.into_iter();
        let mut lines = Vec::with_capacity(entries.size_hint().0 * TYPICAL_LINE);
        // A line torn by a power cut is closed, so that the next one stands by itself.
        if torn {
            lines.push(b'\n');
        }
        let prev = last.map_or_else(|| GENESIS.into(), |line| digest(&line));
        chain(&mut lines, prev, entries).map_err(|error| Error::Unreadable {
            path: path.clone(),
            problem: error.to_string(),
        })?;
        let whole = length.saturating_add(u64::try_from(lines.len()).unwrap_or(u64::MAX));
        let written = file
            .write_all(&lines)
            .and_then(|()| file.sync_data())
            .and_then(|()| file.metadata());
        let error = match written {
            Ok(now) if now.len() == whole => return Ok(()),
            // A disk can say yes and mean no.
            Ok(_) => Error::NotWritten { path: path.clone() },
            Err(error) => failed(error),
        };
        // A half of it would break the chain, and all of it would come twice.
        let _ = file.set_len(length);
        Err(error)
    }
}

/// Adds a line for each entry, chained to the one before it.
fn chain<'a>(
    lines: &mut Vec<u8>,
    mut prev: String,
    entries: impl Iterator<Item = Entry<'a>>,
) -> serde_json::Result<()> {
    let uid = getuid().as_raw();
    // An agent does the same many times a second; the link is all that changes.
    let (mut said, mut text) = (None, Vec::new());
    for entry in entries {
        if !said.is_some_and(|said| entry.reads_like(&said)) {
            text.clear();
            serde_json::to_writer(&mut text, &Entry { uid, ..entry })?;
            // Without its closing brace: the link comes last.
            text.pop();
            said = Some(entry);
        }
        let begins = lines.len();
        for part in [&*text, br#","prev":""#, prev.as_bytes(), br#""}"#] {
            lines.extend_from_slice(part);
        }
        prev = digest(lines.get(begins..).unwrap_or_default());
        lines.push(b'\n');
    }
    Ok(())
}

fn digest(line: &[u8]) -> String {
    let mut text = [0; GENESIS.len()];
    for (digits, byte) in text.chunks_exact_mut(2).zip(&Sha256::digest(line)) {
        digits.copy_from_slice(&hex(*byte));
    }
    // It is ASCII.
    String::from_utf8(text.into()).unwrap_or_default()
}

/// Returns the last line that is not empty, without its line break, and whether the file ends
/// without one.
fn last_line(file: &mut File) -> io::Result<(Option<Vec<u8>>, bool)> {
    let length = file.seek(SeekFrom::End(0))?;
    let start = length.saturating_sub(LONGEST_LINE);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.take(LONGEST_LINE).read_to_end(&mut tail)?;
    let last = tail.rsplit(|b| *b == b'\n').find(|line| !line.is_empty());
    let torn = tail.last().is_some_and(|b| *b != b'\n');
    Ok((last.map(<[u8]>::to_vec), torn))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use std::time::Duration;

    use serde_json::Value;

    use super::*;

    #[test]
    fn a_line_as_long_as_there_can_be_is_chained_to() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store")).unwrap();
        for length in [1, 4_000, 16_000, 1] {
            let network = "x".repeat(length);
            let entry = Entry {
                network: Some(&network),
                ..Entry::new(Moment(UNIX_EPOCH), "auth", "done")
            };
            store.audit(entry).unwrap();
        }
        let log = log_of(&store);
        assert_eq!(log.len(), 4);
        assert!(log.iter().all(|link| link.holds), "{log:?}");
    }

    fn log_of(store: &Store) -> Vec<Link> {
        let mut log = Vec::new();
        store.audit_log(|link| log.push(link)).unwrap();
        log
    }

    #[test]
    fn each_entry_is_a_line_of_its_own_whatever_the_one_before_said() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store")).unwrap();
        let (one, two): (KeyName, KeyName) = ("one".parse().unwrap(), "two".parse().unwrap());
        let at = |millis| Moment(UNIX_EPOCH + Duration::from_millis(millis));
        let entry = |millis, outcome, key| Entry {
            key: Some(key),
            ..Entry::new(at(millis), "agent auth", outcome)
        };
        let entries = [
            entry(1000, "done", &one),
            entry(1000, "done", &one),
            entry(1999, "done", &one),
            entry(2000, "done", &one),
            entry(2000, "done", &two),
            entry(2000, "failed", &two),
            entry(1000, "done", &one),
        ];
        store.audit_all(entries).unwrap();
        let log = log_of(&store);
        assert!(log.iter().all(|link| link.holds), "{log:#?}");
        let said = |link: &Link| {
            let line: Value = serde_json::from_str(&link.text).unwrap();
            let [at, key, outcome] = ["at", "key", "outcome"].map(|field| line[field].clone());
            format!("{at} {key} {outcome}").replace('"', "")
        };
        let expected = [
            "1970-01-01T00:00:01Z one done",
            "1970-01-01T00:00:01Z one done",
            "1970-01-01T00:00:01Z one done",
            "1970-01-01T00:00:02Z one done",
            "1970-01-01T00:00:02Z two done",
            "1970-01-01T00:00:02Z two failed",
            "1970-01-01T00:00:01Z one done",
        ];
        assert_eq!(log.iter().map(said).collect::<Vec<_>>(), expected);
    }
}
