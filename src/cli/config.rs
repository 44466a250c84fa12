//! `config.toml`: defaults for what is typed often. It names where secrets are, and holds none.

use std::{io, path::PathBuf};

use serde::Deserialize;

use super::report::Failure;
use crate::store::{self, Store, Trust};

/// The largest configuration that is read.
const LARGEST: usize = 64 * 1024;

/// The defaults of a keystore.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    pub(super) network: Option<String>,
    pub(super) endpoint: Option<String>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) timeout: Option<u64>,
    pub(super) require_locked_memory: Option<bool>,
    pub(super) passphrase_file: Option<PathBuf>,
    pub(super) passphrase_command: Option<String>,
    pub(super) admin: Option<String>,
    pub(super) admin_client_id: Option<String>,
    pub(super) admin_secret_file: Option<PathBuf>,
    pub(super) admin_secret_command: Option<String>,
    pub(super) totp_command: Option<String>,
    pub(super) totp_seed_file: Option<PathBuf>,
}

impl Config {
    /// Reads the configuration, if there is one.
    pub(super) fn read(store: &Store) -> Result<Self, Failure> {
        let path = store.root().join("config.toml");
        let bytes = match store::read(&path, LARGEST, Trust::Ours) {
            Ok(bytes) => bytes,
            Err(store::Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(error.into()),
        };
        let broken = |problem: String| {
            Failure::configuration(format!("{} cannot be used: {problem}", path.display()))
                .hint("README.md lists the fields it may have")
        };
        let text = std::str::from_utf8(&bytes).map_err(|_| broken("it is not UTF-8".into()))?;
        // The message of the parser without its picture of the line, which could hold anything.
        toml::from_str(text).map_err(|error| broken(error.message().replace('\n', " ")))
    }
}
