//! Which one-time codes are used up: the last step of each seed, program and account.
//!
//! A code works once (RFC 6238 section 5.2), and two commands in the same half minute would send
//! the same one. The step is claimed on disk before its code is sent.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io,
    path::{Path, PathBuf},
};

use super::{Error, Store, files};

/// The largest file that is read.
const LARGEST: usize = 64 * 1024;
/// For how many steps a seed is remembered: a day. A code is good for a minute or two.
const REMEMBERED: u64 = 2 * 60 * 24;

impl Store {
    /// Claims a step of each of these sources; false, and nothing claimed, if it or a later one is
    /// used up in any.
    ///
    /// # Errors
    /// Those of the file system, and [`Error::Unreadable`].
    pub fn claim_step(&self, sources: &[&str], step: u64) -> Result<bool, Error> {
        let path = self.steps_path()?;
        let lock_path = path.with_extension("lock");
        let lock = files::open_ours(&lock_path, OpenOptions::new().write(true))?;
        lock.lock().map_err(files::at(&lock_path))?;
        let mut used = used(&path)?;
        let mut last = sources.iter().filter_map(|source| used.get(*source));
        if last.any(|last| *last >= step) {
            return Ok(false);
        }
        // One seed a line, for ever, would once be more than is read.
        used.retain(|_, last| last.saturating_add(REMEMBERED) > step);
        used.extend(sources.iter().map(|source| ((*source).to_owned(), step)));
        let text = serde_json::to_vec(&used).map_err(|error| Error::Unreadable {
            path: path.clone(),
            problem: error.to_string(),
        })?;
        files::replace(&path, &text, LARGEST)?;
        Ok(true)
    }

    /// Tells whether a step can still be claimed of each of these sources.
    ///
    /// # Errors
    /// Those of the file system, and [`Error::Unreadable`].
    pub fn is_step_free(&self, sources: &[&str], step: u64) -> Result<bool, Error> {
        let used = used(&self.steps_path()?)?;
        let mut last = sources.iter().filter_map(|source| used.get(*source));
        Ok(last.all(|last| *last < step))
    }

    fn steps_path(&self) -> Result<PathBuf, Error> {
        Ok(self.ensure_root()?.join("second-factor.json"))
    }
}

/// Returns the last used step of each seed.
fn used(path: &Path) -> Result<BTreeMap<String, u64>, Error> {
    match files::read_ours(path, LARGEST) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| Error::Unreadable {
            path: path.into(),
            problem: error.to_string(),
        }),
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(BTreeMap::new())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_step_is_claimed_once_and_with_it_all_before() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store")).unwrap();
        assert!(store.is_step_free(&["a"], 5).unwrap());
        assert!(store.claim_step(&["a"], 5).unwrap());
        for (seed, step, free) in [
            ("a", 4, false),
            ("a", 5, false),
            ("a", 6, true),
            ("b", 5, true),
        ] {
            assert_eq!(
                store.is_step_free(&[seed], step).unwrap(),
                free,
                "{seed} {step}"
            );
            assert_eq!(
                store.claim_step(&[seed], step).unwrap(),
                free,
                "{seed} {step}"
            );
        }
    }

    #[test]
    fn a_step_is_claimed_of_all_sources_or_of_none() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store")).unwrap();
        assert!(store.claim_step(&["seed", "account"], 5).unwrap());
        assert!(!store.claim_step(&["program", "account"], 5).unwrap());
        assert!(!store.is_step_free(&["program", "account"], 5).unwrap());
        assert!(store.claim_step(&["program"], 5).unwrap());
    }

    #[test]
    fn hundreds_of_seeds_are_kept_apart() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store")).unwrap();
        let seeds: BTreeMap<_, _> = (0..200).map(|n| (format!("{n:016x}"), 7)).collect();
        let text = serde_json::to_vec(&seeds).unwrap();
        files::replace(&store.steps_path().unwrap(), &text, LARGEST).unwrap();
        assert!(store.claim_step(&["another"], 7).unwrap());
        for seed in seeds.keys() {
            assert!(!store.is_step_free(&[seed], 7).unwrap(), "{seed}");
        }
    }

    #[test]
    fn seeds_that_nobody_uses_any_more_are_forgotten_after_a_day() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store")).unwrap();
        let first = 59_000_000;
        assert!(store.claim_step(&["a"], first).unwrap());
        assert!(store.claim_step(&["b"], first + 2_879).unwrap());
        assert!(!store.is_step_free(&["a"], first).unwrap(), "not yet");
        assert!(store.claim_step(&["b"], first + 2_880).unwrap());
        assert!(store.is_step_free(&["a"], first).unwrap(), "forgotten");
        assert!(!store.is_step_free(&["b"], first + 2_880).unwrap());
    }

    /// Else every code would seem to be unused.
    #[test]
    fn only_a_file_that_is_not_there_stands_for_no_step() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let missing = file.path().with_extension("missing");
        assert_eq!(used(&missing).unwrap(), BTreeMap::new());
        let unreachable = used(&file.path().join("second-factor.json"));
        assert!(
            matches!(unreachable, Err(Error::Io { .. })),
            "{unreachable:?}"
        );
    }
}
