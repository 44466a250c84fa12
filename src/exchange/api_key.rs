//! A key as the exchange names and describes it.
//!
//! It is read leniently, as all replies are (`methods.rs`).

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, de};

use super::{Error, Scope};
use crate::{
    key::{Fingerprint, PublicKey},
    secret::ClientSecret,
};

/// Names a key within its account; every change uses it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct KeyId(pub u64);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! word {
    ($(#[$doc:meta])* $name:ident, $what:literal, $problem:literal, $fits:expr, $spelled:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
        pub struct $name(String);

        impl $name {
            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                let fits: fn(&str) -> bool = $fits;
                if !fits(text) {
                    return Err(Error::Identifier { what: $what, problem: $problem });
                }
                Ok(Self($spelled(text)))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

impl<'de> Deserialize<'de> for ClientId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

macro_rules! lenient {
    ($($name:ident: $spelled:expr),*) => { $(
        impl $name {
            /// Takes over what the exchange or a file says: one odd entry must not hide a whole
            /// account. What could not be typed is not shown: it may be anything, a token of ours.
            fn lenient(text: &str) -> Self {
                text.parse().unwrap_or_else(|_| Self($spelled("unreadable")))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Ok(Self::lenient(&text))
            }
        }
    )* };
}

/// Returns the one spelling of an address that has several, as IPv6 has; any other text as it is.
fn address(text: &str) -> String {
    let ip = text.parse::<IpAddr>();
    ip.map_or_else(|_| text.into(), |ip| ip.to_string())
}

lenient!(Feature: String::from, Whitelisted: address);

word!(
    /// Names a key at login: some ten characters that are safe in a URL.
    ClientId, "a client id", "it must be 1 to 64 letters, digits, underscores or hyphens",
    |text| (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'),
    String::from
);
word!(
    /// A feature of a key, such as `restricted_block_trades`; the exchange may add more.
    Feature, "a feature", "it must be 1 to 64 lower-case letters, digits or underscores",
    |text| (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
    String::from
);
word!(
    /// An address on a whitelist. The documentation speaks of IP addresses and shows none.
    Whitelisted, "an address", "it must be 1 to 64 letters, digits, dots, colons, hyphens, slashes or stars",
    |text| (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".:/-*".contains(&b)),
    address
);

impl Whitelisted {
    /// Returns a plain IPv4 address, which is all that the documentation speaks of; nothing for
    /// any other text.
    pub fn ipv4(text: &str) -> Option<Self> {
        let address: std::net::Ipv4Addr = text.parse().ok()?;
        (!address.is_unspecified()).then(|| Self(text.into()))
    }
}

/// What `client_secret` turned out to be.
#[derive(Debug)]
pub enum Credential {
    /// The fingerprint of an asymmetric key; may be shown.
    Fingerprint(Fingerprint),
    /// The secret of a symmetric key; is never shown.
    Secret(ClientSecret),
    /// Nothing was sent.
    Withheld,
}

/// A setting of which the exchange may say what nobody here understands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Setting {
    /// The rights.
    Scope,
    /// The label.
    Label,
    /// The whitelist.
    Whitelist,
    /// The features.
    Features,
}

/// A key as the exchange describes it.
#[derive(Debug)]
pub struct ApiKey {
    /// Names it within the account.
    pub id: KeyId,
    /// Names it at login.
    pub client_id: ClientId,
    /// Its label; the documented example returns an empty one.
    pub name: String,
    /// Its rights.
    pub max_scope: Scope,
    /// Whether it may log in.
    pub enabled: Option<bool>,
    /// Its public half, if it is asymmetric and readable.
    pub public_key: Option<PublicKey>,
    /// Whether it shows a public half that cannot be read, which is not to show none.
    pub public_key_unreadable: bool,
    /// What came as `client_secret`.
    pub credential: Credential,
    /// The addresses it may be used from, if they are shown; an empty list means any.
    pub ip_whitelist: Option<Vec<Whitelisted>>,
    /// Its features, if they are shown, which they often are not.
    pub enabled_features: Option<Vec<Feature>>,
    /// Which of its settings are not what the exchange sent, as that could not be shown.
    pub tamed: Vec<Setting>,
    /// Milliseconds since the Unix epoch of its creation or last change; the documentation does
    /// not say which.
    pub timestamp: u64,
}

impl ApiKey {
    /// Tells whether this is the key with the given public half, by whatever the exchange shows.
    pub fn is(&self, key: &PublicKey) -> bool {
        match &self.public_key {
            Some(theirs) => theirs == key,
            None => self.shows(key.fingerprint()),
        }
    }

    /// Tells whether the exchange shows a fingerprint of it, or the public half that has it.
    pub fn shows(&self, fingerprint: Fingerprint) -> bool {
        match (&self.public_key, &self.credential) {
            (Some(theirs), _) => theirs.fingerprint() == fingerprint,
            (None, Credential::Fingerprint(theirs)) => *theirs == fingerprint,
            // Without a public key a fingerprint is kept like a secret, and is still one.
            (None, Credential::Secret(shown)) => {
                let theirs = shown.expose().parse::<Fingerprint>();
                theirs.is_ok_and(|theirs| theirs == fingerprint)
            }
            (None, Credential::Withheld) => false,
        }
    }
}

impl<'de> Deserialize<'de> for ApiKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {
            id: KeyId,
            client_id: ClientId,
            #[serde(default)]
            client_secret: Option<ClientSecret>,
            #[serde(default)]
            name: Option<String>,
            #[serde(default)]
            max_scope: Option<Scope>,
            #[serde(default)]
            enabled: Option<bool>,
            #[serde(default)]
            public_key: Option<String>,
            #[serde(default)]
            ip_whitelist: Option<Vec<serde_json::Value>>,
            #[serde(default)]
            enabled_features: Option<Vec<serde_json::Value>>,
            #[serde(default)]
            timestamp: u64,
        }
        let wire = Wire::deserialize(deserializer)?;
        let credential = match wire.client_secret {
            None => Credential::Withheld,
            Some(secret) => match secret.expose().parse() {
                Ok(fingerprint) if wire.public_key.is_some() => {
                    Credential::Fingerprint(fingerprint)
                }
                _ => Credential::Secret(secret),
            },
        };
        // The schema does not say what the entries of its lists are. One that cannot be shown is
        // replaced by a word that equals nothing that was asked for.
        let entries = |list: Option<Vec<serde_json::Value>>| -> Option<Vec<String>> {
            let text = |entry: serde_json::Value| entry.as_str().unwrap_or_default().to_owned();
            list.map(|entries| entries.into_iter().map(text).collect())
        };
        let (addresses, words) = (entries(wire.ip_whitelist), entries(wire.enabled_features));
        let max_scope = wire.max_scope.unwrap_or_default();
        let public_key = wire
            .public_key
            .as_ref()
            .and_then(|pem| PublicKey::read(pem.as_bytes()).ok());
        let mut tamed = Vec::new();
        if !max_scope.is_understood() {
            tamed.push(Setting::Scope);
        }
        if wire.name.as_deref().is_some_and(|name| label(name) != name) {
            tamed.push(Setting::Label);
        }
        if addresses
            .iter()
            .flatten()
            .any(|ip| Whitelisted::lenient(ip).0 != address(ip))
        {
            tamed.push(Setting::Whitelist);
        }
        if words
            .iter()
            .flatten()
            .any(|word| Feature::lenient(word).0 != *word)
        {
            tamed.push(Setting::Features);
        }
        Ok(Self {
            id: wire.id,
            client_id: wire.client_id,
            name: wire.name.as_deref().map(label).unwrap_or_default(),
            max_scope,
            enabled: wire.enabled,
            public_key_unreadable: wire.public_key.is_some() && public_key.is_none(),
            public_key,
            credential,
            ip_whitelist: addresses
                .map(|list| list.iter().map(|ip| Whitelisted::lenient(ip)).collect()),
            enabled_features: words
                .map(|list| list.iter().map(|word| Feature::lenient(word)).collect()),
            tamed,
            timestamp: wire.timestamp,
        })
    }
}

/// Returns a remote label with everything that could play tricks on a terminal replaced; one that is
/// much too long for a label may be anything, a token of ours, and is cut short.
fn label(text: &str) -> String {
    let tame = |c: char| {
        if c.is_ascii_graphic() || c == ' ' {
            c
        } else {
            '?'
        }
    };
    match text.chars().count() {
        0..=32 => text.chars().map(tame).collect(),
        _ => text.chars().take(16).map(tame).collect::<String>() + "...",
    }
}
