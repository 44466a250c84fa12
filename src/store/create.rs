//! New keys and generations: there whole, or not at all.

use std::{fs, os::unix::fs::symlink, path::Path};

use super::{Error, Generation, Store, files, keys::encode, record::Record};
use crate::key::{KeyName, PrivateKey, PublicKey};

impl Store {
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
        self.create_at(&target, name, |dir| fill(dir, private, public, record))
    }

    /// Stores a key whose private half is held elsewhere: its public half, and who signs with it.
    ///
    /// # Errors
    /// [`Error::KeyExists`], and those of the file system.
    pub fn create_elsewhere(
        &self,
        name: &KeyName,
        public: &PublicKey,
        record: &Record,
    ) -> Result<(), Error> {
        let target = self.subdir("keys")?.join(name.as_str());
        self.create_at(&target, name, |dir| describe(dir, public, record))
    }

    fn create_at(
        &self,
        target: &Path,
        name: &KeyName,
        fill: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.contains(name) {
            return Err(Error::KeyExists { name: name.clone() });
        }
        stage(target, |staging| {
            let dir = staging.join(Generation::FIRST.to_string());
            files::new_dir(&dir).map_err(files::at(&dir))?;
            fill(&dir)?;
            let link = staging.join("current");
            symlink(Generation::FIRST.to_string(), &link).map_err(files::at(&link))?;
            files::sync_parent(&link)
        })
        .map_err(|error| match error {
            Error::Exists { .. } => Error::KeyExists { name: name.clone() },
            other => other,
        })
    }

    /// Stores another generation beside the one in use.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NoSuchKey`], and those of the file system.
    pub fn add_generation(
        &self,
        name: &KeyName,
        generation: Generation,
        private: &str,
        public: &PublicKey,
        record: &Record,
    ) -> Result<(), Error> {
        self.current(name)?;
        let target = self.generation_dir(name, generation);
        stage(&target, |staging| fill(staging, private, public, record))
    }
}

/// Fills a hidden directory and gives it its name when it is whole.
fn stage(target: &Path, fill: impl FnOnce(&Path) -> Result<(), Error>) -> Result<(), Error> {
    let staging = files::staging_dir(target)?;
    let stored = fill(&staging).and_then(|()| {
        files::rename_new(&staging, target)?;
        files::sync_parent(target).inspect_err(|_| {
            // It may not last, so it is not there.
            let _ = files::rename_new(target, &staging);
        })
    });
    if stored.is_err() {
        // Nothing ever used what lies here, and a plain key must not be left about.
        let _ = fs::remove_dir_all(&staging);
    }
    stored
}

/// Writes the files of a generation.
fn fill(dir: &Path, private: &str, public: &PublicKey, record: &Record) -> Result<(), Error> {
    let path = dir.join("private.pem");
    files::place_new(&path, private.as_bytes())?;
    PrivateKey::is_sealed(private.as_bytes()).map_err(|source| Error::Key { path, source })?;
    describe(dir, public, record)
}

/// Writes what is public of a generation.
fn describe(dir: &Path, public: &PublicKey, record: &Record) -> Result<(), Error> {
    files::place_new(&dir.join("public.pem"), public.to_pem().as_bytes())?;
    let path = dir.join("key.toml");
    files::place_new(&path, encode(&path, record)?.as_bytes())?;
    files::sync_parent(&path)
}
