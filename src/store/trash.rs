//! The trash: a key that goes, goes there; and what was left half done is cleared away.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{Error, Generation, Store, files, keys::is_dir, list, record::Moment};
use crate::key::KeyName;

impl Store {
    /// Moves a key with all its generations to the trash and returns where it went.
    ///
    /// # Errors
    /// [`Error::NoSuchKey`], and those of the file system.
    pub fn discard(&self, name: &KeyName, at: Moment) -> Result<PathBuf, Error> {
        if !self.contains(name) {
            return Err(Error::NoSuchKey { name: name.clone() });
        }
        self.bury(name, &self.key_dir(name), at)
    }

    /// Moves one generation, which is not in use, to the trash and returns where it went.
    ///
    /// # Errors
    /// [`Error::Exists`] for the one in use, and those of the file system.
    pub fn discard_generation(
        &self,
        name: &KeyName,
        generation: Generation,
        at: Moment,
    ) -> Result<PathBuf, Error> {
        let dir = self.generation_dir(name, generation);
        if self.current(name)? == generation {
            return Err(Error::Exists { path: dir });
        }
        self.bury(name, &dir, at)
    }

    fn bury(&self, name: &KeyName, dir: &Path, at: Moment) -> Result<PathBuf, Error> {
        let grave = self.grave(name, at)?;
        files::rename_new(dir, &grave)?;
        files::sync_parent(&grave)?;
        files::sync_parent(dir)?;
        Ok(grave)
    }

    /// Returns a place in the trash that nothing lies in yet.
    pub(super) fn grave(&self, name: &KeyName, at: Moment) -> Result<PathBuf, Error> {
        let trash = self.subdir("trash")?;
        let stamp: String = at
            .to_string()
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .collect();
        let mut candidates = (1..1000).map(|n| trash.join(format!("{name}-{stamp}-{n}")));
        let free = candidates.find(|path| fs::symlink_metadata(path).is_err());
        free.ok_or(Error::Exists { path: trash })
    }

    /// Clears away what a process that was killed left half done, while nobody works on the key.
    ///
    /// A key that never got its place goes to the trash; drafts of files that are there go.
    pub(super) fn tidy(&self, name: &KeyName) -> Result<(), Error> {
        let keys = self.root().join("keys");
        let ours = format!(".{name}.");
        for file in drafts(&keys)?.iter().filter(|file| file.starts_with(&ours)) {
            self.bury(name, &keys.join(file), Moment(SystemTime::UNIX_EPOCH))?;
        }
        let key = self.key_dir(name);
        // What lies behind a link is not ours to tidy.
        if !is_dir(&key) {
            return Ok(());
        }
        for file in drafts(&key)? {
            let draft = key.join(file);
            if is_dir(&draft) {
                self.bury(name, &draft, Moment(SystemTime::UNIX_EPOCH))?;
            } else {
                fs::remove_file(&draft).map_err(files::at(&draft))?;
            }
        }
        for generation in self.generations(name)? {
            let dir = self.generation_dir(name, generation);
            if !is_dir(&dir) {
                continue;
            }
            for draft in drafts(&dir)?.iter().map(|file| dir.join(file)) {
                fs::remove_file(&draft).map_err(files::at(&draft))?;
            }
        }
        Ok(())
    }
}

/// Returns the names of unfinished files in a directory.
fn drafts(dir: &Path) -> Result<Vec<String>, Error> {
    let mut names = list(dir)?;
    names.retain(|name| name.starts_with('.') && name.ends_with(".new"));
    Ok(names)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_was_left_half_done_goes_and_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store")).unwrap();
        let keys = store.subdir("keys").unwrap();
        let (dirs, drafts) = (
            [".bot.7-0.new", "bot/.2.7-0.new"],
            ["bot/.current.7-0.new", "bot/1/.key.toml.7-0.new"],
        );
        let others = [".other.7-0.new", ".bot.lock", "bot/1/x.new", "bot/1/.x"];
        fs::create_dir_all(keys.join("bot/1")).unwrap();
        for dir in dirs {
            fs::create_dir(keys.join(dir)).unwrap();
        }
        for file in drafts.iter().chain(&others) {
            fs::write(keys.join(file), "").unwrap();
        }
        store.tidy(&"bot".parse().unwrap()).unwrap();
        for gone in dirs.iter().chain(&drafts) {
            assert!(!keys.join(gone).exists(), "{gone}");
        }
        assert!(others.iter().all(|other| keys.join(other).exists()));
        assert_eq!(list(&store.root().join("trash")).unwrap().len(), 2);
    }
}
