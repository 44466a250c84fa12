//! The keystore: keys, their records, the journal and the audit log, on disk.
//!
//! ```text
//! HOME/  keys/NAME/1/{private.pem, public.pem, key.toml}   keys/NAME/current -> 1
//!        journal/NAME.json   audit.jsonl   trash/   sandbox/   config.toml
//! ```
//! Everything is 0600 or 0700 and ours, or it is refused. No private key is ever overwritten or
//! unlinked: a key that goes, goes to `trash/`.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    str::FromStr,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::key::{self, KeyName};

mod audit;
mod create;
mod files;
mod journal;
mod keys;
mod record;
mod steps;
mod trash;

pub use audit::{Entry, Link};
pub use files::{Trust, read, read_to_limit, write_new};
pub use journal::{Intent, Issued, Journal, Operation, Specification, Stage, Succession};
pub use record::{Moment, Place, Record, Registration, State, Version};

/// What can go wrong on disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system says no.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// Others can get at it.
    #[error("{path} is open to others (mode {mode:04o})", path = .path.display())]
    Exposed {
        /// What.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It belongs to somebody else.
    #[error("{path} belongs to user {owner}", path = .path.display())]
    Foreign {
        /// What.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// A link, a pipe, a directory or a device where a file should be.
    #[error("{path} is not a plain file", path = .path.display())]
    NotAFile {
        /// What.
        path: PathBuf,
    },
    /// Something else where a directory should be.
    #[error("{path} is not a directory", path = .path.display())]
    NotADirectory {
        /// What.
        path: PathBuf,
    },
    /// More than anyone has a reason to put there.
    #[error("{path} is larger than {limit} bytes", path = .path.display())]
    TooLarge {
        /// What.
        path: PathBuf,
        /// What would have been read.
        limit: usize,
    },
    /// More than would be read back.
    #[error("{path} would have {length} bytes, and {limit} is the most", path = .path.display())]
    Overlong {
        /// What.
        path: PathBuf,
        /// What it would have.
        length: usize,
        /// What it may have.
        limit: usize,
    },
    /// It is there already.
    #[error("{path} already exists", path = .path.display())]
    Exists {
        /// What.
        path: PathBuf,
    },
    /// The disk took the bytes and does not have them.
    #[error("{path} does not hold what was written to it", path = .path.display())]
    NotWritten {
        /// What.
        path: PathBuf,
    },
    /// One of our own files is damaged.
    #[error("{path} cannot be read: {problem}", path = .path.display())]
    Unreadable {
        /// What.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// There is a key of this name.
    #[error("there is already a key named {name}")]
    KeyExists {
        /// Its name.
        name: KeyName,
    },
    /// There is no key of this name.
    #[error("there is no key named {name}")]
    NoSuchKey {
        /// The name asked for.
        name: KeyName,
    },
    /// Another process works on this key.
    #[error("another derikey is working on {name}")]
    Busy {
        /// The key.
        name: KeyName,
    },
    /// The private key and `public.pem` are two different keys.
    #[error("{path} does not hold the private half of public.pem beside it", path = .path.display())]
    Mismatch {
        /// The private file.
        path: PathBuf,
    },
    /// A key that cannot be used.
    #[error("{path}: {source}", path = .path.display())]
    Key {
        /// Its file.
        path: PathBuf,
        /// Why not.
        source: key::Error,
    },
}

/// A generation of a key: 1, 2, 3 and so on; rotation makes the next one.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Generation(pub u32);

impl Generation {
    /// The first.
    pub const FIRST: Self = Self(1);

    /// Returns the one after this.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Generation {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let number = text.parse().map_err(|_| ())?;
        let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
        if plain { Ok(Self(number)) } else { Err(()) }
    }
}

/// Nobody else works on a key while this is held; the operating system lets go for the dead.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// The keystore.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
}

/// The largest record or public key that is read.
const LARGEST_RECORD: usize = 64 * 1024;

impl Store {
    /// Opens the keystore at `root`; what is not there yet is made when it is needed.
    ///
    /// # Errors
    /// [`Error::Exposed`], [`Error::Foreign`] or [`Error::NotADirectory`] for a root that cannot
    /// be trusted.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let store = Self { root: root.into() };
        for dir in [
            root.into(),
            root.join("keys"),
            root.join("journal"),
            root.join("trash"),
        ] {
            match files::check_dir(&dir) {
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
        }
        // The directory that it lies in, or the first that is there of those that it will lie in.
        let mut highest = root;
        while let Some(parent) = highest.parent()
            && parent != Path::new("")
            && !parent.exists()
        {
            highest = parent;
        }
        files::check_neighbourhood(highest)?;
        Ok(store)
    }

    /// Returns the directory that holds everything.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the root if it is not there, and returns it.
    ///
    /// # Errors
    /// Those of the file system, and of [`open`](Self::open).
    pub fn ensure_root(&self) -> Result<&Path, Error> {
        let above = |dir: &&Path| !dir.as_os_str().is_empty() && !dir.is_dir();
        let missing: Vec<&Path> = self.root.ancestors().skip(1).take_while(above).collect();
        for dir in missing.into_iter().rev() {
            files::make_dir(dir)?;
        }
        files::ensure_dir(&self.root)?;
        Ok(&self.root)
    }

    /// Makes a directory under the root if it is not there, and returns it.
    ///
    /// # Errors
    /// Those of the file system, and of [`open`](Self::open).
    pub fn subdir(&self, name: &str) -> Result<PathBuf, Error> {
        let dir = self.ensure_root()?.join(name);
        files::ensure_dir(&dir)?;
        Ok(dir)
    }

    fn entries(&self, dir: &str) -> Result<Vec<String>, Error> {
        let mut names = list(&self.root.join(dir))?;
        names.retain(|name| !name.starts_with('.'));
        Ok(names)
    }

    /// Waits until nobody else works on a key, but no longer than `patience`.
    ///
    /// What is done under the lock goes into the audit log, so that must be writable.
    ///
    /// # Errors
    /// [`Error::Busy`], and those of the file system.
    pub fn lock(&self, name: &KeyName, patience: Duration) -> Result<Lock, Error> {
        let path = self.subdir("keys")?.join(format!(".{name}.lock"));
        let file = files::open_ours(&path, OpenOptions::new().write(true))?;
        let give_up = Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => {
                    self.tidy(name)?;
                    self.check_audit()?;
                    return Ok(Lock { _file: file });
                }
                Err(fs::TryLockError::Error(error)) => return Err(files::at(&path)(error)),
                Err(fs::TryLockError::WouldBlock) if Instant::now() >= give_up => {
                    return Err(Error::Busy { name: name.clone() });
                }
                Err(fs::TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(25)),
            }
        }
    }

    /// Returns a text of the sandbox directory, such as its passphrase, or keeps a new one.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn sandbox_text(
        &self,
        file: &str,
        make: impl FnOnce() -> Zeroizing<String>,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let path = self.subdir("sandbox")?.join(file);
        match files::read_ours(&path, LARGEST_RECORD) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
        match write_new(&path, make().as_bytes()) {
            // Another process was faster; its text is the one that counts.
            Ok(()) | Err(Error::Exists { .. }) => files::read_ours(&path, LARGEST_RECORD),
            Err(error) => Err(error),
        }
    }
}

/// Returns the names in a directory, sorted; none where there is no directory.
fn list(dir: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(files::at(dir)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(files::at(dir))?.file_name();
        names.extend(name.to_str().map(str::to_owned));
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn generations_are_written_in_one_way() {
        for n in [1, 10, u32::MAX] {
            let text = Generation(n).to_string();
            assert_eq!(text.parse(), Ok(Generation(n)));
        }
        for text in ["", "0", "01", "+1", "-1", " 1", "1.0", "4294967296"] {
            assert_eq!(text.parse::<Generation>(), Err(()), "{text}");
        }
    }

    #[test]
    fn a_key_that_somebody_works_on_is_waited_for_no_longer_than_was_said() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("not/there/yet")).unwrap();
        let name = "bot".parse().unwrap();
        let held = store.lock(&name, Duration::ZERO).unwrap();
        let refused = store.lock(&name, Duration::from_millis(60));
        assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
        drop(held);
        store.lock(&name, Duration::ZERO).unwrap();
    }

    #[test]
    fn nothing_is_begun_that_could_not_be_written_down() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store")).unwrap();
        fs::create_dir(store.ensure_root().unwrap().join("audit.jsonl")).unwrap();
        let refused = store.lock(&"bot".parse().unwrap(), Duration::ZERO);
        assert!(
            matches!(refused, Err(Error::NotAFile { .. })),
            "{refused:?}"
        );
    }

    #[test]
    fn only_what_is_not_there_is_no_keystore_yet() {
        let home = tempfile::tempdir().unwrap();
        let (file, link) = (home.path().join("file"), home.path().join("link"));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&link, &link).unwrap();
        assert!(Store::open(&home.path().join("none")).is_ok());
        assert!(Store::open(&file.join("store")).is_err());
        assert!(list(&home.path().join("none")).unwrap().is_empty());
        assert!(list(&file).unwrap().is_empty());
        assert!(list(&link).is_err());
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_taken_for_nothing() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store")).unwrap();
        let name = "bot".parse().unwrap();
        store.ensure_root().unwrap();
        assert!(matches!(store.current(&name), Err(Error::NoSuchKey { .. })));
        assert!(matches!(store.intent(&name), Ok(None)));
        let keys = store.subdir("keys").unwrap();
        store.subdir("keys/bot").unwrap();
        assert!(matches!(store.current(&name), Err(Error::Io { .. })));
        fs::remove_dir_all(keys).unwrap();
        for dir in ["keys", "journal"] {
            fs::write(store.root().join(dir), "").unwrap();
        }
        assert!(matches!(store.current(&name), Err(Error::Io { .. })));
        assert!(matches!(store.intent(&name), Err(Error::Io { .. })));
    }
}
