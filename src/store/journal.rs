//! What is under way: one file per key, written and fsynced before the step that it announces.

use std::{fs, io, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    Error, Generation, Store, files,
    record::{Moment, Place, Version},
};
use crate::{
    exchange::{ClientId, Feature, KeyId, Scope, Whitelisted},
    key::{Algorithm, Fingerprint, KeyName},
};

/// The largest entry that is read: what a key is to be, thrice, as far as a request takes it.
const LARGEST: usize = 256 * 1024;
/// By how much an entry grows on its way, at most: names that the exchange gives, moments.
const GROWTH: usize = 1024;

/// An operation that has begun and not ended.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// The version of this format.
    pub version: Version<1>,
    /// What is being done.
    pub operation: Operation,
    /// The key.
    pub name: KeyName,
    /// Its generation.
    pub generation: Generation,
    /// Where it is to live.
    pub place: Place,
    /// What it is to be.
    pub spec: Specification,
    /// When it began.
    pub started: Moment,
    /// The key pair, once it is on disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
    /// How far it has come.
    pub stage: Stage,
    /// What the exchange called it, once it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued: Option<Issued>,
    /// The key that this one takes the place of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succession: Option<Succession>,
}

/// What is under way, by key; an entry that cannot be read is there with its problem.
pub type Journal = Vec<(KeyName, Result<Intent, Error>)>;

/// What is being done to a key.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// The key is made and registered; if the exchange refuses it, it goes to the trash again.
    Provision,
    /// A key that was there before is registered; if the exchange refuses it, it stays.
    Register,
    /// A new generation is made, registered and put in the place of the one in use.
    Rotate,
    /// The generation before is put back in the place of the one in use.
    Rollback,
    /// Rights, label, whitelist or features are changed.
    Edit,
    /// The key may log in again.
    Enable,
    /// The key may not log in any more.
    Disable,
    /// The key is taken away at the exchange.
    Remove,
}

impl Operation {
    /// Returns the command that began it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provision => "provision",
            Self::Register => "register",
            Self::Rotate => "rotate",
            Self::Rollback => "rollback",
            Self::Edit => "edit",
            Self::Enable => "enable",
            Self::Disable => "disable",
            Self::Remove => "remove",
        }
    }
}

/// How one key takes the place of another.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Succession {
    /// The generation that is in use when it begins.
    pub from: Generation,
    /// How that one logs in.
    pub client_id: ClientId,
    /// How that one is named for changes.
    pub key_id: KeyId,
    /// The program that is told of the new key, word by word; none if empty.
    pub hook: Vec<String>,
    /// Seconds that it may take, where another time than usual was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook_timeout: Option<u64>,
    /// Seconds for which the old key stays enabled.
    pub grace: u64,
    /// Until when it stays enabled, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Moment>,
    /// Whether the old key is taken away at the exchange in the end.
    pub remove_old: bool,
    /// Whether that program refused, so that the new key is being taken back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub taken_back: bool,
    /// The rotation that a rollback interrupted, and that goes on if the rollback is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub puts_off: Option<Box<Intent>>,
}

/// What a key is to be at the exchange.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Specification {
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// Its label.
    pub label: String,
    /// Its rights.
    pub scope: Scope,
    /// The addresses it may be used from; none means any.
    pub whitelist: Vec<Whitelisted>,
    /// Its features.
    pub features: Vec<Feature>,
}

/// The names that the exchange gave.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Issued {
    /// Names it at login.
    pub client_id: ClientId,
    /// Names it for changes.
    pub key_id: KeyId,
    /// Whether the exchange named it by our fingerprint.
    pub fingerprint_verified: bool,
}

/// How far an operation has come: the entry names the step that may have begun.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The key pair is about to be made.
    Planned,
    /// The key pair is on disk, and nothing was sent.
    Generated,
    /// `create_api_key` is about to be sent or was: the exchange may have the key.
    Creating,
    /// The exchange has the key, without rights if a whitelist is to come.
    Registered,
    /// The key has logged in; scope and whitelist are about to be given in one edit.
    Granting,
    /// The new key works; the program that is told of it is about to run or did.
    Proven,
    /// That program is content; the new key is about to be put in use.
    Deployed,
    /// The new key is in use; the old one is about to be disabled, after its grace.
    Switched,
    /// The old key is disabled; it may be about to be removed.
    Disabled,
}

impl Stage {
    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Generated => "generated",
            Self::Creating => "creating",
            Self::Registered => "registered",
            Self::Granting => "granting",
            Self::Proven => "proven",
            Self::Deployed => "deployed",
            Self::Switched => "switched",
            Self::Disabled => "disabled",
        }
    }
}

impl Store {
    /// Writes down what is about to be done, in place of what was written for this key before.
    ///
    /// # Errors
    /// [`Error::Overlong`], and those of the file system.
    pub fn announce(&self, intent: &Intent) -> Result<(), Error> {
        let path = self.subdir("journal")?.join(file_name(&intent.name));
        let text = serde_json::to_vec_pretty(intent).map_err(|error| Error::Unreadable {
            path: path.clone(),
            problem: error.to_string(),
        })?;
        let growth = if intent.stage < Stage::Switched {
            GROWTH
        } else {
            0
        };
        files::replace(&path, &text, LARGEST - growth)
    }

    /// Strikes out an operation that has ended.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn conclude(&self, name: &KeyName) -> Result<(), Error> {
        let path = self.journal_path(name);
        match fs::remove_file(&path) {
            Ok(()) => files::sync_parent(&path),
            // Whoever disabled the key at once has struck it out.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(files::at(&path)(error)),
        }
    }

    /// Returns the operation under way for a key.
    ///
    /// # Errors
    /// Those of the file system, and [`Error::Unreadable`].
    pub fn intent(&self, name: &KeyName) -> Result<Option<Intent>, Error> {
        let path = self.journal_path(name);
        let bytes = match files::read_ours(&path, LARGEST) {
            Ok(bytes) => bytes,
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let unreadable = |problem: String| Error::Unreadable {
            path: path.clone(),
            problem,
        };
        let intent: Intent =
            serde_json::from_slice(&bytes).map_err(|e| unreadable(e.to_string()))?;
        if intent.name != *name {
            return Err(unreadable(format!("it speaks of {}", intent.name)));
        }
        Ok(Some(intent))
    }

    /// Returns all operations under way, by name; one that cannot be read hides no other.
    ///
    /// # Errors
    /// Those of the directory; what is wrong with an entry is said in its place.
    pub fn journal(&self) -> Result<Journal, Error> {
        let entries = self.entries("journal")?;
        let names = entries
            .iter()
            .filter_map(|entry| entry.strip_suffix(".json")?.parse().ok());
        let read = |name: KeyName| {
            let intent = self.intent(&name).transpose()?;
            Some((name, intent))
        };
        Ok(names.filter_map(read).collect())
    }

    fn journal_path(&self, name: &KeyName) -> PathBuf {
        self.root().join("journal").join(file_name(name))
    }
}

fn file_name(name: &KeyName) -> String {
    format!("{name}.json")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_entry_that_will_grow_leaves_room_for_it() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store")).unwrap();
        let text = include_str!("../../tests/data/corpus/journal/bot.json");
        let mut intent: Intent = serde_json::from_str(text).unwrap();
        for (stage, limit) in [(Stage::Planned, 255 * 1024), (Stage::Switched, 256 * 1024)] {
            intent.stage = stage;
            intent.spec.label.clear();
            let rest = serde_json::to_vec_pretty(&intent).unwrap().len();
            intent.spec.label = "x".repeat(limit - rest);
            store.announce(&intent).unwrap();
            assert_eq!(store.intent(&intent.name).unwrap(), Some(intent.clone()));
            intent.spec.label.push('x');
            let refused = store.announce(&intent);
            assert!(
                matches!(refused, Err(Error::Overlong { .. })),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn stages_are_called_what_the_journal_calls_them() {
        for stage in [
            Stage::Planned,
            Stage::Generated,
            Stage::Creating,
            Stage::Registered,
            Stage::Granting,
            Stage::Proven,
            Stage::Deployed,
            Stage::Switched,
            Stage::Disabled,
        ] {
            assert_eq!(serde_json::to_value(stage).unwrap(), stage.as_str());
        }
    }
}
