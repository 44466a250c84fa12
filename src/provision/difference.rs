//! How a key is not what it is to be, setting by setting.

use std::fmt;

use serde::Serialize;

use crate::{
    exchange::{Feature, Network, Whitelisted},
    key::Algorithm,
    store::{Registration, Specification},
};

/// One setting of a key, as it is and as it is to be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Difference {
    /// Which setting.
    pub field: &'static str,
    /// What it is.
    pub actual: Content,
    /// What it is to be.
    pub wanted: Content,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.field, self.actual, self.wanted)
    }
}

/// What a setting is set to.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Content {
    /// A word or several.
    Text(String),
    /// Entries in no order.
    List(Vec<String>),
    /// Yes or no.
    Flag(bool),
}

impl Content {
    fn list<'a>(words: impl Iterator<Item = &'a str>) -> Self {
        let mut words: Vec<String> = words.map(str::to_owned).collect();
        words.sort_unstable();
        words.dedup();
        Self::List(words)
    }

    /// Returns a whitelist.
    pub fn whitelist(addresses: &[Whitelisted]) -> Self {
        Self::list(addresses.iter().map(Whitelisted::as_str))
    }

    /// Returns features.
    pub fn features(features: &[Feature]) -> Self {
        Self::list(features.iter().map(Feature::as_str))
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Text(text) => text.clone(),
            Self::List(words) => words.join(" "),
            Self::Flag(yes) => yes.to_string(),
        };
        f.write_str(if text.is_empty() { "none" } else { &text })
    }
}

/// Returns how a registered key is recorded otherwise than it is wished.
pub fn differences(
    known: &Registration,
    algorithm: Algorithm,
    network: &Network,
    wish: &Specification,
) -> Vec<Difference> {
    let text = |text: &dyn fmt::Display| Content::Text(text.to_string());
    let mut pairs = vec![
        ("network", text(&known.network), text(network)),
        ("algorithm", text(&algorithm), text(&wish.algorithm)),
    ];
    let is = known.specification(algorithm);
    pairs.extend(settings(&is, wish));
    unequal(pairs)
}

/// Returns how a key at the exchange is not what it is to be.
pub fn differences_of(is: &Specification, wish: &Specification) -> Vec<Difference> {
    unequal(settings(is, wish))
}

type Pair = (&'static str, Content, Content);

/// Pairs what can be changed of a key with what it is to be.
fn settings(is: &Specification, wish: &Specification) -> Vec<Pair> {
    // Scopes are equal when they allow the same, however they are written.
    let scope = |of: &Specification| Content::Text(of.scope.to_string());
    let actual = if is.scope == wish.scope { wish } else { is };
    let label = |of: &Specification| Content::Text(of.label.clone());
    vec![
        ("scope", scope(actual), scope(wish)),
        ("label", label(is), label(wish)),
        (
            "whitelist",
            Content::whitelist(&is.whitelist),
            Content::whitelist(&wish.whitelist),
        ),
        (
            "features",
            Content::features(&is.features),
            Content::features(&wish.features),
        ),
    ]
}

fn unequal(pairs: Vec<Pair>) -> Vec<Difference> {
    let differ = pairs
        .into_iter()
        .filter(|(_, actual, wanted)| actual != wanted);
    let difference = |(field, actual, wanted)| Difference {
        field,
        actual,
        wanted,
    };
    differ.map(difference).collect()
}
