//! Which one-time codes are used up: the last step of each seed.
//!
//! A code works once (RFC 6238 section 5.2), and two commands in the same half minute would send
//! the same one. The step is claimed on disk before its code is sent.

use std::{collections::BTreeMap, fs::OpenOptions, io};

use super::{Error, Store, files};

/// The largest file that is read.
const LARGEST: usize = 64 * 1024;

impl Store {
    /// Claims a step of a seed; false if it or a later one is used up.
    ///
    /// # Errors
    /// Those of the file system, and [`Error::Unreadable`].
    pub fn claim_step(&self, seed: &str, step: u64) -> Result<bool, Error> {
        let root = self.ensure_root()?;
        let lock_path = root.join("second-factor.lock");
        let lock = files::open_ours(&lock_path, OpenOptions::new().write(true))?;
        lock.lock().map_err(files::at(&lock_path))?;
        let path = root.join("second-factor.json");
        let mut used: BTreeMap<String, u64> = match files::read_ours(&path, LARGEST) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| Error::Unreadable {
                path: path.clone(),
                problem: error.to_string(),
            })?,
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                BTreeMap::new()
            }
            Err(error) => return Err(error),
        };
        if used.get(seed).is_some_and(|last| *last >= step) {
            return Ok(false);
        }
        used.insert(seed.into(), step);
        let text = serde_json::to_vec(&used).map_err(|error| Error::Unreadable {
            path: path.clone(),
            problem: error.to_string(),
        })?;
        files::replace(&path, &text)?;
        Ok(true)
    }
}
