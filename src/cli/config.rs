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

/// The longest problem that is told.
const LONGEST_PROBLEM: usize = 512;

/// The defaults of a keystore.
///
/// Public for the search for hostile input alone, which hands it any bytes.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
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
        Self::parse(&bytes).map_err(|problem| {
            Failure::configuration(format!("{} cannot be used: {problem}", path.display()))
                .hint("README.md lists the fields it may have")
        })
    }

    /// Reads the text of a configuration.
    ///
    /// # Errors
    /// What is wrong with it, in one line, with no value of it: that could be anything.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = str::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
        let config: Self = toml::from_str(text).map_err(|error| told(text, &error))?;
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

/// Says on which line what is wrong. The parser would show the line, and the value that it found.
fn told(text: &str, error: &toml::de::Error) -> String {
    let problem = match error.message().split_once(':') {
        Some((kind @ ("invalid type" | "invalid value" | "invalid length"), rest)) => {
            wanted(kind, rest)
        }
        _ => match error.message().strip_prefix("unknown variant ") {
            Some(rest) => wanted("unknown word", rest),
            None => error.message().into(),
        },
    };
    let visible = |c: char| if c.is_ascii_graphic() { c } else { ' ' };
    let problem: String = problem.chars().take(LONGEST_PROBLEM).map(visible).collect();
    match error.span() {
        Some(span) => {
            let before = text.get(..span.start).unwrap_or(text);
            format!("line {}: {problem}", before.matches('\n').count() + 1)
        }
        None => problem,
    }
}

/// Leaves out what was found. What is wanted is told in words of our own, and comes last.
fn wanted(kind: &str, rest: &str) -> String {
    match rest.rsplit_once(", expected ") {
        Some((_, wanted)) => format!("{kind}, expected {wanted}"),
        None => kind.into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_mistake_is_told_with_its_line_and_without_the_value() {
        for (text, told) in [
            (
                "# one\ntimeout = \"hunter2, expected x\"\n",
                "line 2: invalid type, expected u64",
            ),
            (
                "passphrase_command = 12345\n",
                "line 1: invalid type, expected a string",
            ),
            (
                "[agent.keys.bot]\n\noperations = [\"hunter2\"]\n",
                "line 3: unknown word, expected one of `auth`, `token`, `rest`",
            ),
            (
                "[agent]\nline = \"hunter2\"\n",
                "line 2: a duration is written like 10s or 5m",
            ),
            (
                "[agent.keys.bot]\nuses = 0\n",
                "agent.keys.bot: a key with no uses left need not be opened",
            ),
        ] {
            assert_eq!(Config::parse(text.as_bytes()).unwrap_err(), told);
        }
        let strange = format!("\"\\u0007{}\" = 1\n", "x".repeat(4096));
        let told = Config::parse(strange.as_bytes()).unwrap_err();
        assert!(told.starts_with("line 1: unknown field ` xxx") && told.len() < 600);
        assert_eq!(Config::parse(b"\xff").unwrap_err(), "it is not UTF-8");
        let config = Config::parse(b"admin = \"boss\"\n[agent.keys.bot]\nuses = 1\n").unwrap();
        assert_eq!(config.admin.as_deref(), Some("boss"));
        assert_eq!(config.agent.keys.len(), 1);
    }
}
