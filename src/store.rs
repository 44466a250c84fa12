//! The keystore: keys, their records, the journal and the audit log, on disk.
//!
//! ```text
//! HOME/  keys/NAME/1/{private.pem, public.pem, key.toml}   keys/NAME/current -> 1
//!        journal/NAME.json   audit.jsonl   trash/   sandbox/   config.toml
//! ```
//! Everything is 0600 or 0700 and ours, or it is refused. No private key is ever overwritten or
//! unlinked: a key that goes, goes to `trash/`.

use std::{
    borrow::Borrow,
    fmt,
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, symlink},
    path::{Path, PathBuf},
    str::FromStr,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    key::{self, KeyName, PrivateKey, PublicKey},
    secret::Passphrase,
};

mod audit;
mod files;
mod journal;
mod record;
mod steps;

pub use audit::Entry;
pub use files::{Trust, read, read_to_limit};
pub use journal::{Intent, Issued, Operation, Specification, Stage};
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
        let plain =
            number > 0 && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
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
        if let Some(parent) = self.root.parent().filter(|p| !p.as_os_str().is_empty()) {
            let create = DirBuilder::new().recursive(true).mode(0o700).create(parent);
            create.map_err(files::at(parent))?;
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
        let path = self.root.join(dir);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(files::at(&path)(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(files::at(&path))?.file_name();
            names.extend(
                name.to_str()
                    .filter(|name| !name.starts_with('.'))
                    .map(str::to_owned),
            );
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Returns the names of all keys, sorted.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn names(&self) -> Result<Vec<KeyName>, Error> {
        Ok(self
            .entries("keys")?
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect())
    }

    /// Tells whether there is a key of this name, whole or not.
    pub fn contains(&self, name: &KeyName) -> bool {
        fs::symlink_metadata(self.key_dir(name)).is_ok()
    }

    /// Waits until nobody else works on a key, but no longer than `patience`.
    ///
    /// # Errors
    /// [`Error::Busy`], and those of the file system.
    pub fn lock(&self, name: &KeyName, patience: Duration) -> Result<Lock, Error> {
        let path = self.subdir("keys")?.join(format!(".{name}.lock"));
        let file = files::open_ours(&path, OpenOptions::new().write(true))?;
        let give_up = Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(fs::TryLockError::Error(error)) => return Err(files::at(&path)(error)),
                Err(fs::TryLockError::WouldBlock) if Instant::now() >= give_up => {
                    return Err(Error::Busy { name: name.clone() });
                }
                Err(fs::TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(25)),
            }
        }
    }

    /// Returns the generation in use.
    ///
    /// # Errors
    /// [`Error::NoSuchKey`], [`Error::Unreadable`] for a link that leads elsewhere.
    pub fn current(&self, name: &KeyName) -> Result<Generation, Error> {
        let dir = self.key_dir(name);
        match files::check_dir(&dir) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NoSuchKey { name: name.clone() });
            }
            result => result?,
        }
        let link = dir.join("current");
        let target = fs::read_link(&link).map_err(files::at(&link))?;
        target
            .to_str()
            .and_then(|text| text.parse().ok())
            .ok_or(Error::Unreadable {
                path: link,
                problem: "it does not lead to a generation beside it".into(),
            })
    }

    fn key_dir(&self, name: &KeyName) -> PathBuf {
        self.root.join("keys").join(name.as_str())
    }

    /// Returns where a file of the generation in use lies, as bots read it.
    pub fn current_path(&self, name: &KeyName, file: &str) -> PathBuf {
        self.key_dir(name).join("current").join(file)
    }

    fn path(&self, name: &KeyName, file: &str) -> Result<PathBuf, Error> {
        let dir = self.key_dir(name).join(self.current(name)?.to_string());
        files::check_dir(&dir)?;
        Ok(dir.join(file))
    }

    /// Stores a new key whose private half is already PEM, sealed or not.
    ///
    /// The key is there whole or not at all.
    ///
    /// # Errors
    /// [`Error::KeyExists`], and those of the file system.
    pub fn create(
        &self,
        name: &KeyName,
        private: &str,
        public: &PublicKey,
        record: &Record,
    ) -> Result<(), Error> {
        let target = self.subdir("keys")?.join(name.as_str());
        if self.contains(name) {
            return Err(Error::KeyExists { name: name.clone() });
        }
        let staging = files::staging_dir(&target)?;
        let stored = self.fill(&staging, private, public, record).and_then(|()| {
            files::rename_new(&staging, &target).map_err(|error| match error {
                Error::Exists { .. } => Error::KeyExists { name: name.clone() },
                other => other,
            })?;
            files::sync_parent(&target).inspect_err(|_| {
                // It may not last, so it is not there.
                let _ = files::rename_new(&target, &staging);
            })
        });
        if stored.is_err() {
            // Nothing ever used what lies here, and a plain key must not be left about.
            let _ = fs::remove_dir_all(&staging);
        }
        stored
    }

    fn fill(
        &self,
        staging: &Path,
        private: &str,
        public: &PublicKey,
        record: &Record,
    ) -> Result<(), Error> {
        let dir = staging.join(Generation::FIRST.to_string());
        files::ensure_dir(&dir)?;
        let path = dir.join("private.pem");
        files::write_new(&path, private.as_bytes())?;
        PrivateKey::is_sealed(private.as_bytes()).map_err(|source| Error::Key { path, source })?;
        files::write_new(&dir.join("public.pem"), public.to_pem().as_bytes())?;
        write_record(&dir.join("key.toml"), record, files::write_new)?;
        let link = staging.join("current");
        symlink(Generation::FIRST.to_string(), &link).map_err(files::at(&link))?;
        files::sync_parent(&link)
    }

    /// Returns the record of the generation in use.
    ///
    /// # Errors
    /// [`Error::NoSuchKey`], [`Error::Unreadable`], and those of the file system.
    pub fn record(&self, name: &KeyName) -> Result<Record, Error> {
        let path = self.path(name, "key.toml")?;
        let bytes = files::read_ours(&path, LARGEST_RECORD)?;
        let unreadable = |problem: String| Error::Unreadable {
            path: path.clone(),
            problem,
        };
        let text = std::str::from_utf8(&bytes).map_err(|e| unreadable(e.to_string()))?;
        toml::from_str(text).map_err(|e| unreadable(e.message().into()))
    }

    /// Writes down what is now known of the generation in use.
    ///
    /// # Errors
    /// [`Error::NoSuchKey`], and those of the file system.
    pub fn write_record(&self, name: &KeyName, record: &Record) -> Result<(), Error> {
        write_record(&self.path(name, "key.toml")?, record, files::replace)
    }

    /// Returns the public half; the private file is not touched.
    ///
    /// # Errors
    /// [`Error::NoSuchKey`], [`Error::Key`], and those of the file system.
    pub fn public(&self, name: &KeyName) -> Result<PublicKey, Error> {
        let path = self.path(name, "public.pem")?;
        let pem = files::read_ours(&path, LARGEST_RECORD)?;
        PublicKey::read(&pem).map_err(|source| Error::Key { path, source })
    }

    /// Returns the private file as it is, sealed or not.
    ///
    /// # Errors
    /// [`Error::NoSuchKey`], and those of the file system.
    pub fn private_pem(&self, name: &KeyName) -> Result<Zeroizing<Vec<u8>>, Error> {
        files::read_ours(&self.path(name, "private.pem")?, key::MAX_INPUT)
    }

    /// Opens the private key and compares it with `public.pem`; asks for a passphrase if need be.
    ///
    /// # Errors
    /// [`Error::Key`], [`Error::Mismatch`], those of the file system, and those of `unlock`.
    pub fn load<P: Borrow<Passphrase>, E: From<Error>>(
        &self,
        name: &KeyName,
        unlock: impl FnOnce() -> Result<P, E>,
    ) -> Result<PrivateKey, E> {
        let path = self.path(name, "private.pem")?;
        let pem = files::read_ours(&path, key::MAX_INPUT)?;
        let unusable = |source| Error::Key {
            path: path.clone(),
            source,
        };
        let key = if PrivateKey::is_sealed(&pem).map_err(unusable)? {
            PrivateKey::read(&pem, Some(unlock()?.borrow())).map_err(unusable)?
        } else {
            PrivateKey::read(&pem, None).map_err(unusable)?
        };
        // PBES2 has no MAC: a damaged file can decrypt to another key.
        if *key.public() != self.public(name)? {
            return Err(Error::Mismatch { path }.into());
        }
        Ok(key)
    }

    /// Puts another sealing of the same key in place; the old one goes to the trash.
    ///
    /// Returns where it went. At every moment `private.pem` is there and whole; after an error it
    /// is the one that was there before.
    ///
    /// # Errors
    /// [`Error::NoSuchKey`], and those of the file system.
    pub fn reseal(&self, name: &KeyName, private: &str, at: Moment) -> Result<PathBuf, Error> {
        let path = self.path(name, "private.pem")?;
        let grave = self.grave(name, at)?;
        let draft = files::Draft::write(&path, private.as_bytes())?;
        files::ensure_dir(&grave)?;
        let buried = grave.join("private.pem");
        fs::hard_link(&path, &buried).map_err(files::at(&buried))?;
        let replaced = files::sync_parent(&buried)
            .and_then(|()| fs::rename(&draft.path, &path).map_err(files::at(&path)));
        if replaced.is_err() {
            // The old file is where it was; this was only its second name.
            let _ = fs::remove_file(&buried).and_then(|()| fs::remove_dir(&grave));
        }
        replaced?;
        draft.keep();
        files::sync_parent(&path).inspect_err(|_| {
            // The new file may not last, and the old one does.
            let _ = fs::rename(&buried, &path).and_then(|()| fs::remove_dir(&grave));
        })?;
        Ok(grave)
    }

    /// Moves a key to the trash and returns where it went.
    ///
    /// # Errors
    /// [`Error::NoSuchKey`], and those of the file system.
    pub fn discard(&self, name: &KeyName, at: Moment) -> Result<PathBuf, Error> {
        let dir = self.key_dir(name);
        if !self.contains(name) {
            return Err(Error::NoSuchKey { name: name.clone() });
        }
        let grave = self.grave(name, at)?;
        files::rename_new(&dir, &grave)?;
        files::sync_parent(&grave)?;
        files::sync_parent(&dir)?;
        Ok(grave)
    }

    /// Returns a place in the trash that nothing lies in yet.
    fn grave(&self, name: &KeyName, at: Moment) -> Result<PathBuf, Error> {
        let trash = self.subdir("trash")?;
        let stamp: String = at
            .to_string()
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .collect();
        let candidates = (1..1000).map(|n| trash.join(format!("{name}-{stamp}-{n}")));
        let free = candidates
            .into_iter()
            .find(|path| fs::symlink_metadata(path).is_err());
        free.ok_or(Error::Exists { path: trash })
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
        match files::write_new(&path, make().as_bytes()) {
            // Another process was faster; its text is the one that counts.
            Ok(()) | Err(Error::Exists { .. }) => files::read_ours(&path, LARGEST_RECORD),
            Err(error) => Err(error),
        }
    }
}

fn write_record(
    path: &Path,
    record: &Record,
    write: fn(&Path, &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let text = toml::to_string(record).map_err(|error| Error::Unreadable {
        path: path.into(),
        problem: error.to_string(),
    })?;
    write(path, text.as_bytes())
}
