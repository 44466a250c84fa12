//! The keys that are there: looked up, switched in one step, opened, sealed anew.

use std::{
    borrow::Borrow,
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{
    Error, Generation, LARGEST_RECORD, Store,
    files::{self, read_ours},
    list,
    record::{Moment, Record},
};
use crate::{
    key::{self, KeyName, PrivateKey, PublicKey},
    secret::Passphrase,
};

impl Store {
    /// Returns the names of all keys, sorted.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn names(&self) -> Result<Vec<KeyName>, Error> {
        let names = self.entries("keys")?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Tells whether there is a key of this name, whole or not.
    pub fn contains(&self, name: &KeyName) -> bool {
        fs::symlink_metadata(self.key_dir(name)).is_ok()
    }

    /// Tells whether a key lies in a directory, and not behind a link or in a file.
    pub fn is_in_place(&self, name: &KeyName) -> bool {
        is_dir(&self.key_dir(name))
    }

    /// Puts another generation in use, in one step.
    ///
    /// # Errors
    /// [`Error::NoSuchKey`], and those of the file system.
    pub fn switch(&self, name: &KeyName, generation: Generation) -> Result<(), Error> {
        files::check_dir(&self.generation_dir(name, generation))?;
        let link = self.key_dir(name).join("current");
        let (draft, ()) = files::fresh_name(&link, |path| symlink(generation.to_string(), path))?;
        files::rename_over(&draft, &link)?;
        files::sync_parent(&link)
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
        let target = match fs::read_link(&link) {
            // Something else than a link.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => PathBuf::new(),
            target => target.map_err(files::at(&link))?,
        };
        let target = target.to_str().and_then(|text| text.parse().ok());
        target.ok_or(Error::Unreadable {
            path: link,
            problem: "it does not lead to a generation beside it".into(),
        })
    }

    /// Returns all generations of a key, oldest first.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn generations(&self, name: &KeyName) -> Result<Vec<Generation>, Error> {
        let entries = list(&self.key_dir(name))?;
        let mut found: Vec<Generation> = entries.iter().filter_map(|e| e.parse().ok()).collect();
        found.sort_unstable();
        Ok(found)
    }

    pub(super) fn key_dir(&self, name: &KeyName) -> PathBuf {
        self.root().join("keys").join(name.as_str())
    }

    pub(super) fn generation_dir(&self, name: &KeyName, generation: Generation) -> PathBuf {
        self.key_dir(name).join(generation.to_string())
    }

    /// Returns where a file of the generation in use lies, as bots read it.
    pub fn current_path(&self, name: &KeyName, file: &str) -> PathBuf {
        self.key_dir(name).join("current").join(file)
    }

    /// Returns where a file of a generation lies.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn path(
        &self,
        name: &KeyName,
        generation: Generation,
        file: &str,
    ) -> Result<PathBuf, Error> {
        let dir = self.generation_dir(name, generation);
        files::check_dir(&dir)?;
        Ok(dir.join(file))
    }

    /// Returns the record of the generation in use.
    ///
    /// # Errors
    /// [`Error::NoSuchKey`], [`Error::Unreadable`], and those of the file system.
    pub fn record(&self, name: &KeyName) -> Result<Record, Error> {
        self.record_of(name, self.current(name)?)
    }

    /// Returns the record of a generation.
    ///
    /// # Errors
    /// [`Error::Unreadable`], and those of the file system.
    pub fn record_of(&self, name: &KeyName, generation: Generation) -> Result<Record, Error> {
        let path = self.path(name, generation, "key.toml")?;
        let bytes = read_ours(&path, LARGEST_RECORD)?;
        let unreadable = |problem: String| Error::Unreadable {
            path: path.clone(),
            problem,
        };
        let text = std::str::from_utf8(&bytes).map_err(|e| unreadable(e.to_string()))?;
        toml::from_str(text).map_err(|e| unreadable(e.message().into()))
    }

    /// Writes down what is now known of a generation.
    ///
    /// # Errors
    /// [`Error::Overlong`], and those of the file system.
    pub fn write_record(
        &self,
        name: &KeyName,
        generation: Generation,
        record: &Record,
    ) -> Result<(), Error> {
        let path = self.path(name, generation, "key.toml")?;
        let text = encode(&path, record)?;
        files::replace(&path, text.as_bytes(), LARGEST_RECORD)
    }

    /// Returns the public half of the generation in use; the private file is not touched.
    ///
    /// # Errors
    /// [`Error::NoSuchKey`], [`Error::Key`], and those of the file system.
    pub fn public(&self, name: &KeyName) -> Result<PublicKey, Error> {
        self.public_of(name, self.current(name)?)
    }

    /// Returns the public half of a generation.
    ///
    /// # Errors
    /// [`Error::Key`], and those of the file system.
    pub fn public_of(&self, name: &KeyName, generation: Generation) -> Result<PublicKey, Error> {
        let path = self.path(name, generation, "public.pem")?;
        let pem = read_ours(&path, LARGEST_RECORD)?;
        PublicKey::read(&pem).map_err(|source| Error::Key { path, source })
    }

    /// Returns the private file in use as it is, sealed or not.
    ///
    /// # Errors
    /// [`Error::NoSuchKey`], and those of the file system.
    pub fn private_pem(&self, name: &KeyName) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.private_pem_of(name, self.current(name)?)
    }

    /// Returns the private file of a generation as it is, sealed or not.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn private_pem_of(
        &self,
        name: &KeyName,
        generation: Generation,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let path = self.path(name, generation, "private.pem")?;
        read_ours(&path, key::MAX_INPUT)
    }

    /// Opens the private key in use; asks for a passphrase if need be.
    ///
    /// # Errors
    /// [`Error::NoSuchKey`], and those of [`load_of`](Self::load_of).
    pub fn load<P: Borrow<Passphrase>, E: From<Error>>(
        &self,
        name: &KeyName,
        unlock: impl FnOnce() -> Result<P, E>,
    ) -> Result<PrivateKey, E> {
        self.load_of(name, self.current(name)?, unlock)
    }

    /// Opens the private key of a generation and compares it with `public.pem`.
    ///
    /// # Errors
    /// [`Error::Key`], [`Error::Mismatch`], those of the file system, and those of `unlock`.
    pub fn load_of<P: Borrow<Passphrase>, E: From<Error>>(
        &self,
        name: &KeyName,
        generation: Generation,
        unlock: impl FnOnce() -> Result<P, E>,
    ) -> Result<PrivateKey, E> {
        let path = self.path(name, generation, "private.pem")?;
        let pem = read_ours(&path, key::MAX_INPUT)?;
        let unusable = |source| Error::Key {
            path: path.clone(),
            source,
        };
        let key = match PrivateKey::read(&pem, None) {
            Err(key::Error::Sealed) => PrivateKey::read(&pem, Some(unlock()?.borrow())),
            opened => opened,
        };
        let key = key.map_err(unusable)?;
        // PBES2 has no MAC: a damaged file can decrypt to another key.
        if *key.public() != self.public_of(name, generation)? {
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
        let path = self.path(name, self.current(name)?, "private.pem")?;
        let grave = self.grave(name, at)?;
        let draft = files::Draft::write(&path, private.as_bytes())?;
        files::ensure_dir(&grave)?;
        let buried = grave.join("private.pem");
        fs::hard_link(&path, &buried).map_err(files::at(&buried))?;
        let replaced =
            files::sync_parent(&buried).and_then(|()| files::rename_over(&draft.path, &path));
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
}

pub(super) fn is_dir(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

pub(super) fn encode(path: &Path, record: &Record) -> Result<String, Error> {
    toml::to_string(record).map_err(|error| Error::Unreadable {
        path: path.into(),
        problem: error.to_string(),
    })
}
