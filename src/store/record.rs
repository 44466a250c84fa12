//! What is known of a key besides the key: `key.toml`.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::journal::Specification;
use crate::{
    exchange::{
        ClientId, Endpoint, Error as ExchangeError, Feature, KeyId, Network, Scope, Whitelisted,
    },
    key::{Algorithm, Fingerprint},
};

/// A moment, written as RFC 3339 in UTC; one before 1970 or after 9999 as the nearest that can be.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Moment(pub SystemTime);

/// The last second of 9999, after 1970.
const LAST: Duration = Duration::from_secs(253_402_300_799);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written = self.0.clamp(UNIX_EPOCH, UNIX_EPOCH + LAST);
        humantime::format_rfc3339_seconds(written).fmt(f)
    }
}

impl FromStr for Moment {
    type Err = humantime::TimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        humantime::parse_rfc3339(text).map(Self)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// A generation of a key, as `key.toml` holds it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "File", into = "File")]
pub struct Record {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The MD5 fingerprint by which the exchange names the key.
    pub fingerprint: Fingerprint,
    /// When it was made or imported.
    pub created: Moment,
    /// What the exchange knows of it; nothing before it is registered.
    pub registration: Option<Registration>,
    /// Who signs with it, where its private half is not here: `ssh-agent:FINGERPRINT`.
    pub signer: Option<String>,
}

/// What the exchange said about a key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Registration {
    /// Where it lives, for ever.
    pub network: Network,
    /// Names it at login.
    pub client_id: ClientId,
    /// Names it for changes; unknown for a key that was adopted without the right to look.
    pub key_id: Option<KeyId>,
    /// Its label at the exchange.
    pub label: String,
    /// Its rights.
    pub scope: Scope,
    /// The addresses it may be used from; none means any.
    pub whitelist: Vec<Whitelisted>,
    /// Its features.
    pub features: Vec<Feature>,
    /// Whether it may log in, as far as was last seen.
    pub enabled: bool,
    /// When another generation took its place.
    pub retired: Option<Moment>,
    /// Whether the exchange named it by our fingerprint.
    pub fingerprint_verified: bool,
    /// When a signed login last succeeded; never, for a key that is not known to work.
    pub proven: Option<Moment>,
}

impl Registration {
    /// Returns what the key is at the exchange, as far as was last seen.
    pub fn specification(&self, algorithm: Algorithm) -> Specification {
        Specification {
            algorithm,
            label: self.label.clone(),
            scope: self.scope.clone(),
            whitelist: self.whitelist.clone(),
            features: self.features.clone(),
        }
    }
}

/// `key.toml`, line by line.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: Version<1>,
    state: State,
    algorithm: Algorithm,
    fingerprint: Fingerprint,
    created: Moment,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    network: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    endpoint: Option<Endpoint>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_id: Option<ClientId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_id: Option<KeyId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<Scope>,
    #[serde(default)]
    whitelist: Vec<Whitelisted>,
    #[serde(default)]
    features: Vec<Feature>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    enabled: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retired: Option<Moment>,
    #[serde(default)]
    fingerprint_verified: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    proven: Option<Moment>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signer: Option<String>,
}

impl From<Record> for File {
    fn from(record: Record) -> Self {
        let mut file = Self {
            version: Version,
            state: record.state(),
            algorithm: record.algorithm,
            fingerprint: record.fingerprint,
            created: record.created,
            network: None,
            endpoint: None,
            client_id: None,
            key_id: None,
            label: None,
            scope: None,
            whitelist: Vec::new(),
            features: Vec::new(),
            enabled: None,
            retired: None,
            fingerprint_verified: false,
            proven: None,
            signer: record.signer,
        };
        if let Some(known) = record.registration {
            let place = Place::from(&known.network);
            file.network = Some(place.network);
            file.endpoint = place.endpoint;
            file.client_id = Some(known.client_id);
            file.key_id = known.key_id;
            file.label = Some(known.label);
            file.scope = Some(known.scope);
            file.whitelist = known.whitelist;
            file.features = known.features;
            file.enabled = Some(known.enabled);
            file.retired = known.retired;
            file.fingerprint_verified = known.fingerprint_verified;
            file.proven = known.proven;
        }
        file
    }
}

impl TryFrom<File> for Record {
    type Error = String;

    fn try_from(file: File) -> Result<Self, String> {
        let registration = match (file.state, file.network, file.client_id, file.scope) {
            (State::Local, None, None, None) => None,
            (
                State::Registered | State::Active | State::Disabled | State::Retired,
                Some(network),
                Some(client_id),
                Some(scope),
            ) => Some(Registration {
                network: Network::from_parts(&network, file.endpoint).map_err(|e| e.to_string())?,
                client_id,
                key_id: file.key_id,
                label: file.label.unwrap_or_default(),
                scope,
                whitelist: file.whitelist,
                features: file.features,
                enabled: file.enabled.unwrap_or(true),
                retired: file.retired,
                fingerprint_verified: file.fingerprint_verified,
                proven: file.proven,
            }),
            _ => return Err("state does not go with network, client_id and scope".into()),
        };
        Ok(Self {
            algorithm: file.algorithm,
            fingerprint: file.fingerprint,
            created: file.created,
            registration,
            signer: file.signer,
        })
    }
}

impl Record {
    /// Returns how far the key has come.
    pub fn state(&self) -> State {
        match &self.registration {
            None => State::Local,
            Some(known) if known.retired.is_some() => State::Retired,
            Some(known) if !known.enabled => State::Disabled,
            Some(known) if known.proven.is_none() => State::Registered,
            Some(_) => State::Active,
        }
    }
}

/// How far a key has come.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// No exchange has it.
    Local,
    /// The exchange has it; it has not logged in yet.
    Registered,
    /// It has logged in with the rights that were meant.
    Active,
    /// It may not log in.
    Disabled,
    /// Another generation has taken its place.
    Retired,
}

impl State {
    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Registered => "registered",
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Retired => "retired",
        }
    }
}

/// A network as files name it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Place {
    network: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    endpoint: Option<Endpoint>,
}

impl Place {
    /// Returns the network.
    ///
    /// # Errors
    /// [`ExchangeError::Identifier`] where there is no such network.
    pub fn network(&self) -> Result<Network, ExchangeError> {
        Network::from_parts(&self.network, self.endpoint.clone())
    }
}

impl From<&Network> for Place {
    fn from(network: &Network) -> Self {
        let endpoint = match network {
            Network::Custom(endpoint) => Some(endpoint.clone()),
            _ => None,
        };
        Self {
            network: network.name().into(),
            endpoint,
        }
    }
}

/// The one version of a file format that this program reads.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Version<const N: u32>;

impl<const N: u32> Serialize for Version<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(N)
    }
}

impl<'de, const N: u32> Deserialize<'de> for Version<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            n if n == N => Ok(Self),
            n => Err(de::Error::custom(format_args!(
                "version {n} was written by another derikey; this one reads version {N}"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_file_of_another_version_is_not_read() {
        assert_eq!(
            toml::from_str::<Versioned>("version = 2").unwrap().version,
            Version
        );
        for other in [1, 3] {
            let refused = toml::from_str::<Versioned>(&format!("version = {other}"));
            let problem = refused.unwrap_err().to_string();
            assert!(
                problem.contains("was written by another derikey"),
                "{problem}"
            );
        }
    }

    #[test]
    fn a_key_is_what_was_last_seen_of_it() {
        let now = Moment(SystemTime::UNIX_EPOCH);
        let mut record = Record {
            algorithm: Algorithm::Ed25519,
            fingerprint: "00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff"
                .parse()
                .unwrap(),
            created: now,
            registration: None,
            signer: None,
        };
        assert_eq!(record.state(), State::Local);
        for (enabled, retired, proven, state) in [
            (true, None, None, State::Registered),
            (true, None, Some(now), State::Active),
            (false, None, Some(now), State::Disabled),
            (false, Some(now), Some(now), State::Retired),
            (true, Some(now), None, State::Retired),
        ] {
            record.registration = Some(Registration {
                network: Network::Test,
                client_id: "abc".parse().unwrap(),
                key_id: None,
                label: String::new(),
                scope: Scope::nothing(),
                whitelist: Vec::new(),
                features: Vec::new(),
                enabled,
                retired,
                fingerprint_verified: false,
                proven,
            });
            assert_eq!(record.state(), state);
            let file = toml::to_string(&record).unwrap();
            let line = format!("state = \"{}\"", state.as_str());
            assert!(file.lines().any(|found| found == line), "{file}");
            assert_eq!(toml::from_str::<Record>(&file).unwrap(), record);
        }
    }

    #[test]
    fn a_clock_out_of_all_bounds_is_written_as_the_nearest_moment_there_is() {
        let day = Duration::from_secs(86_400);
        for (moment, written) in [
            (UNIX_EPOCH - day, "1970-01-01T00:00:00Z"),
            (UNIX_EPOCH + LAST, "9999-12-31T23:59:59Z"),
            (UNIX_EPOCH + LAST + day, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Moment(moment).to_string(), written);
            assert!(written.parse::<Moment>().is_ok());
        }
    }

    #[derive(Debug, Deserialize)]
    struct Versioned {
        version: Version<2>,
    }
}
