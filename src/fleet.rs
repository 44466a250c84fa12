//! A declared fleet, the account as it is, and the plan between them.
//!
//! Text and listings in, a plan out: no clock, no disk, no network. The order of a plan is its
//! promise: what is under way is finished first, then rights are taken away, then keys are made,
//! and only then is anything allowed more than before. Wherever it stops, the account allows no
//! more than it did or is meant to, and no bot waits for its key behind somebody else's rights.

use crate::{
    exchange::{ClientId, Feature, Network, Scope, Whitelisted},
    key::{Algorithm, KeyName},
    store::Specification,
};

mod compare;
mod file;
mod plan;
#[cfg(test)]
mod tests;

pub use compare::compare;
pub use plan::{
    Action, Block, KEYS_OF_AN_ACCOUNT, Local, Reach, Row, Settled, Step, Verdict, held, order,
};

/// What can be wrong with a fleet file. Of all values only scopes are quoted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is no TOML.
    #[error("line {line}: it is not TOML: {problem}")]
    Syntax {
        /// Where.
        line: usize,
        /// What the parser says.
        problem: String,
    },
    /// A field or a table that has no meaning here.
    #[error("line {line}: there is no field {field}{place}")]
    Unknown {
        /// Where.
        line: usize,
        /// Its name.
        field: String,
        /// In which table.
        place: String,
        /// The fields that there are.
        known: &'static [&'static str],
    },
    /// A field that looks like the place of a secret.
    #[error("line {line}: there is no field {field}{place}: a fleet file holds no secret")]
    Secret {
        /// Where.
        line: usize,
        /// Its name.
        field: String,
        /// In which table.
        place: String,
    },
    /// A number where a word should be, and the like.
    #[error("line {line}: {field} is not {wanted}")]
    Kind {
        /// Where.
        line: usize,
        /// Its name.
        field: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// A value that cannot be.
    #[error("line {line}: {field}: {problem}")]
    Value {
        /// Where.
        line: usize,
        /// Its name.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A key whose rights are said nowhere.
    #[error("line {line}: {name} has no scope")]
    NoScope {
        /// Where.
        line: usize,
        /// The key.
        name: KeyName,
    },
    /// Two keys that could not be told apart at the exchange.
    #[error("line {line}: {name} has the label {label} on {network}, which {other} has already")]
    SameLabel {
        /// Where.
        line: usize,
        /// The second one.
        name: KeyName,
        /// The label of both.
        label: KeyName,
        /// Where they meet.
        network: String,
        /// The first one.
        other: KeyName,
    },
    /// A file that says nothing.
    #[error("no key is declared in it")]
    Nothing,
}

/// Where a key is to live, as far as the file says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Site {
    /// Nothing is said: flags and configuration decide.
    Unsaid,
    /// A custom network whose endpoint flags or configuration name.
    Custom,
    /// There.
    On(Network),
}

/// A key as it is declared.
#[derive(Clone, Debug)]
pub struct Declared {
    /// What it is called here.
    pub name: KeyName,
    /// The line on which its table begins.
    pub line: usize,
    /// Where it is to live.
    pub site: Site,
    /// The key in the keystore that manages its account; if not said, flags and configuration do.
    pub admin: Option<KeyName>,
    /// What it is called at the exchange.
    pub label: KeyName,
    /// Its rights.
    pub scope: Scope,
    /// The addresses it may be used from, sorted; none means any.
    pub whitelist: Vec<Whitelisted>,
    /// Its features, sorted.
    pub features: Vec<Feature>,
    /// Its algorithm; if not said, a new key is Ed25519 and one that is there stays what it is.
    pub algorithm: Option<Algorithm>,
    /// Whether it may log in.
    pub enabled: bool,
}

impl Declared {
    /// Returns what the key is to be at the exchange.
    pub fn specification(&self, algorithm: Algorithm) -> Specification {
        Specification {
            algorithm,
            label: self.label.to_string(),
            scope: self.scope.clone(),
            whitelist: self.whitelist.clone(),
            features: self.features.clone(),
        }
    }
}

/// What a fleet file declares.
#[derive(Debug)]
pub struct Fleet {
    /// The keys, by name.
    pub keys: Vec<Declared>,
    /// Keys of the same accounts that are managed elsewhere, and nobody's business here.
    pub elsewhere: Vec<ClientId>,
}

impl Fleet {
    /// Reads a fleet file.
    ///
    /// # Errors
    /// What is wrong with it, and on which line.
    pub fn parse(text: &str) -> Result<Self, Error> {
        file::read(text)
    }

    /// Settles where each key lives, with the help of whoever knows what the file leaves open.
    ///
    /// # Errors
    /// [`Error::SameLabel`], and those of `settle`.
    pub fn settle<E: From<Error>>(
        &self,
        settle: impl Fn(&Declared) -> Result<Network, E>,
    ) -> Result<Vec<(Network, &Declared)>, E> {
        let mut settled: Vec<(Network, &Declared)> = Vec::new();
        for key in &self.keys {
            let network = settle(key)?;
            let same = |(there, other): &&(Network, &Declared)| {
                *there == network && other.label == key.label
            };
            if let Some((_, other)) = settled.iter().find(same) {
                return Err(Error::SameLabel {
                    line: key.line,
                    name: key.name.clone(),
                    label: key.label.clone(),
                    network: network.to_string(),
                    other: other.name.clone(),
                }
                .into());
            }
            settled.push((network, key));
        }
        Ok(settled)
    }
}
