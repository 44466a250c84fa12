//! The nine key methods and the four that support them: parameters and replies.
//!
//! Replies are read leniently, as the documentation disagrees with its own examples: unknown
//! fields are ignored, and fields that were ever seen missing are optional.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::{
    Again, Method, Scope,
    api_key::{ApiKey, Feature, KeyId, Whitelisted},
};

macro_rules! method {
    ($type:ty, $name:literal, $again:ident, $reply:ty) => {
        impl Method for $type {
            const NAME: &'static str = $name;
            const AGAIN: Again = Again::$again;
            type Reply = $reply;
        }
    };
}

/// Makes a key out of a public half. Cannot set a whitelist.
#[derive(Debug, Serialize)]
pub struct CreateApiKey<'a> {
    /// Its rights.
    pub max_scope: &'a Scope,
    /// Its label.
    pub name: &'a str,
    /// Its public half: SPKI PEM.
    pub public_key: &'a str,
    /// Its features.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub enabled_features: &'a [Feature],
}
method!(CreateApiKey<'_>, "private/create_api_key", Never, ApiKey);

/// Returns the account's keys.
#[derive(Debug, Serialize)]
pub struct ListApiKeys {}
method!(ListApiKeys, "private/list_api_keys", Freely, Vec<ApiKey>);

/// Returns those of the account's keys that can be read, for whoever cannot wait for the others.
#[derive(Debug, Serialize)]
pub struct ListLegibleApiKeys {}
method!(
    ListLegibleApiKeys,
    "private/list_api_keys",
    Freely,
    LegibleApiKeys
);

/// An account's keys, as far as they can be read.
#[derive(Debug)]
pub struct LegibleApiKeys {
    /// Those that can.
    pub keys: Vec<ApiKey>,
    /// How many more there are.
    pub others: usize,
}

impl<'de> Deserialize<'de> for LegibleApiKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let all = Vec::<&RawValue>::deserialize(deserializer)?;
        let legible = all
            .iter()
            .filter_map(|text| serde_json::from_str(text.get()).ok());
        let keys: Vec<ApiKey> = legible.collect();
        let others = all.len().saturating_sub(keys.len());
        Ok(Self { keys, others })
    }
}

/// Changes a key. Whatever is left out may be reset, so everything is sent.
#[derive(Debug, Serialize)]
pub struct EditApiKey<'a> {
    /// Which key.
    pub id: KeyId,
    /// Its rights.
    pub max_scope: &'a Scope,
    /// Its label; one that is empty can be had only by leaving it out.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub name: &'a str,
    /// Whether it may log in.
    pub enabled: bool,
    /// Its features.
    pub enabled_features: &'a [Feature],
    /// The addresses it may be used from; none means any.
    pub ip_whitelist: &'a [Whitelisted],
}
method!(
    EditApiKey<'_>,
    "private/edit_api_key",
    IfNotCarriedOut,
    ApiKey
);

/// Lets a key log in again.
#[derive(Debug, Serialize)]
pub struct EnableApiKey {
    /// Which key.
    pub id: KeyId,
}
method!(
    EnableApiKey,
    "private/enable_api_key",
    IfNotCarriedOut,
    ApiKey
);

/// Stops a key from logging in.
#[derive(Debug, Serialize)]
pub struct DisableApiKey {
    /// Which key.
    pub id: KeyId,
}
method!(
    DisableApiKey,
    "private/disable_api_key",
    IfNotCarriedOut,
    ApiKey
);

/// Takes a key away for good. Returns the word `ok`.
#[derive(Debug, Serialize)]
pub struct RemoveApiKey {
    /// Which key.
    pub id: KeyId,
}
method!(
    RemoveApiKey,
    "private/remove_api_key",
    IfNotCarriedOut,
    String
);

/// Makes a new secret. What it does to an asymmetric key is not documented.
#[derive(Debug, Serialize)]
pub struct ResetApiKey {
    /// Which key.
    pub id: KeyId,
}
method!(ResetApiKey, "private/reset_api_key", Never, ApiKey);

/// Changes a key's label.
#[derive(Debug, Serialize)]
pub struct ChangeApiKeyName<'a> {
    /// Which key.
    pub id: KeyId,
    /// Its new label.
    pub name: &'a str,
}
method!(
    ChangeApiKeyName<'_>,
    "private/change_api_key_name",
    IfNotCarriedOut,
    ApiKey
);

/// Changes a key's rights.
#[derive(Debug, Serialize)]
pub struct ChangeScopeInApiKey<'a> {
    /// Which key.
    pub id: KeyId,
    /// Its new rights.
    pub max_scope: &'a Scope,
}
method!(
    ChangeScopeInApiKey<'_>,
    "private/change_scope_in_api_key",
    IfNotCarriedOut,
    ApiKey
);

/// Returns what happened on the account.
#[derive(Debug, Serialize)]
pub struct GetAccessLog {
    /// How many events to pass over.
    pub offset: u32,
    /// How many to return, 1 to 1000.
    pub count: u32,
}
method!(GetAccessLog, "private/get_access_log", Freely, AccessLog);

/// Events of an account, newest first. Schema and example disagree about the shape; both are read.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum AccessLog {
    /// As the example shows it.
    Counted {
        /// The events.
        data: Vec<AccessEvent>,
    },
    /// As the schema has it.
    Plain(Vec<AccessEvent>),
}

impl AccessLog {
    /// Returns the events.
    pub fn events(&self) -> &[AccessEvent] {
        match self {
            Self::Counted { data } | Self::Plain(data) => data,
        }
    }
}

/// One event of an account.
#[derive(Debug, Deserialize)]
#[serde(from = "WireEvent")]
pub struct AccessEvent {
    /// Milliseconds since the Unix epoch.
    pub timestamp: u64,
    /// What happened, such as `new_api_key`.
    pub result: String,
    /// Where from.
    pub ip: String,
    /// The client id, for events of keys.
    pub data: serde_json::Value,
}

/// An event as it is sent: what happened goes by two names, and an exchange may send both.
#[derive(Deserialize)]
struct WireEvent {
    timestamp: u64,
    #[serde(default)]
    result: Option<String>,
    #[serde(default)]
    log: Option<String>,
    #[serde(default)]
    ip: Option<String>,
    #[serde(default)]
    data: serde_json::Value,
}

impl From<WireEvent> for AccessEvent {
    fn from(wire: WireEvent) -> Self {
        Self {
            timestamp: wire.timestamp,
            result: wire.result.or(wire.log).unwrap_or_default(),
            ip: wire.ip.unwrap_or_default(),
            data: wire.data,
        }
    }
}

/// Returns the exchange's clock: milliseconds since the Unix epoch.
#[derive(Debug, Serialize)]
pub struct GetTime {}
method!(GetTime, "public/get_time", Freely, u64);

/// Asks for a sign of life.
#[derive(Debug, Serialize)]
pub struct Ping {}
method!(Ping, "public/test", Freely, Version);

/// A sign of life.
#[derive(Debug, Deserialize)]
pub struct Version {
    /// The version of the exchange's API.
    pub version: String,
}

/// Asks whether trading is locked.
#[derive(Debug, Serialize)]
pub struct Status {}
method!(Status, "public/status", Freely, Health);

/// Whether trading is locked; the example has a boolean, the schema a word.
#[derive(Debug, Deserialize)]
pub struct Health {
    /// `true`, `false` or `partial`.
    pub locked: serde_json::Value,
    /// Which indices or currencies are.
    #[serde(alias = "locked_currencies", default)]
    pub locked_indices: Vec<String>,
}
