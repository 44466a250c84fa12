//! `config.toml`: defaults for what is typed often. It names where secrets are, and holds none.

use std::{collections::BTreeMap, io, path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer, de};

use super::failure::Failure;
use crate::{
    agent::{Limits, Policy},
    key::KeyName,
    store::{self, Store, Trust},
};

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
    #[serde(default)]
    pub(super) agent: AgentConfig,
}

/// What the agent may do with each key, and for how long it listens.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AgentConfig {
    /// How long a line may take [default: 10s]
    line: Option<Span>,
    /// How long a connection may be silent [default: 5m]
    idle: Option<Span>,
    /// How long a connection may last [default: 12h]
    total: Option<Span>,
    /// The policy of each key.
    #[serde(default)]
    pub(super) keys: BTreeMap<KeyName, Policy>,
}

impl AgentConfig {
    /// Returns the limits of a connection.
    pub(super) fn limits(&self) -> Limits {
        let default = Limits::default();
        let or = |span: &Option<Span>, default| span.as_ref().map_or(default, |span| span.0);
        Limits {
            line: or(&self.line, default.line),
            idle: or(&self.idle, default.idle),
            total: or(&self.total, default.total),
            ..default
        }
    }
}

/// A length of time that is not nothing.
#[derive(Debug)]
struct Span(Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match humantime::parse_duration(&text) {
            Ok(span) if !span.is_zero() => Ok(Self(span)),
            _ => Err(de::Error::custom("a duration is written like 10s or 5m")),
        }
    }
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
        Self::parse(text).map_err(broken)
    }

    /// Returns what a text declares, or what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        // The message of the parser without its picture of the line, which could hold anything.
        let config: Self =
            toml::from_str(text).map_err(|error| error.message().replace('\n', " "))?;
        if config
            .timeout
            .is_some_and(|seconds| !(1..=3600).contains(&seconds))
        {
            return Err("timeout: from 1 to 3600 seconds".into());
        }
        for (name, policy) in &config.agent.keys {
            let checked = policy.check();
            checked.map_err(|error| format!("agent.keys.{name}: {error}"))?;
        }
        Ok(config)
    }
}
