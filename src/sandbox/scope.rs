//! Scopes as the exchange reads, merges and prints them.
//!
//! Deribit, "Access scope" and "Creating an API key": `area:level` tokens
//! separated by single blanks; a token's scope is the key's scope merged with
//! the requested one and limited by the key.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// What may be granted, in the order in which the exchange prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Area {
    Account,
    BlockRfq,
    BlockTrade,
    Custody,
    Trade,
    Wallet,
}

/// How much of an area is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Level {
    None,
    Read,
    ReadWrite,
}

/// The areas that a text mentioned; an area it did not mention is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Areas(BTreeMap<Area, Level>);

/// What a login may ask for besides areas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Requested {
    pub(super) areas: Areas,
    pub(super) session: Option<String>,
    pub(super) expires: Option<u64>,
    pub(super) ip: Option<Ipv4Addr>,
}

impl Area {
    pub(super) const ALL: [Self; 6] = [
        Self::Account,
        Self::BlockRfq,
        Self::BlockTrade,
        Self::Custody,
        Self::Trade,
        Self::Wallet,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::BlockRfq => "block_rfq",
            Self::BlockTrade => "block_trade",
            Self::Custody => "custody",
            Self::Trade => "trade",
            Self::Wallet => "wallet",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|area| area.name() == name)
    }
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Read => "read",
            Self::ReadWrite => "read_write",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::None, Self::Read, Self::ReadWrite]
            .into_iter()
            .find(|level| level.name() == name)
    }
}

impl Areas {
    /// Every area at one level.
    pub(super) fn uniform(level: Level) -> Self {
        Self(Area::ALL.into_iter().map(|area| (area, level)).collect())
    }

    /// One area at one level.
    pub(super) fn one(area: Area, level: Level) -> Self {
        Self(BTreeMap::from([(area, level)]))
    }

    /// Reads a `max_scope`, which may hold nothing but areas.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut areas = Self::default();
        for word in words(text) {
            if !areas.take(word)? {
                return Err(format!("unknown scope: {word}"));
            }
        }
        Ok(areas)
    }

    pub(super) fn level(&self, area: Area) -> Level {
        self.0.get(&area).copied().unwrap_or(Level::None)
    }

    /// Says whether nothing here exceeds the ceiling.
    pub(super) fn within(&self, ceiling: &Self) -> bool {
        self.0
            .iter()
            .all(|(area, level)| *level <= ceiling.level(*area))
    }

    /// The lower of the two levels of each area.
    pub(super) fn limited_by(&self, ceiling: &Self) -> Self {
        let lower = |area| (area, self.level(area).min(ceiling.level(area)));
        Self(Area::ALL.into_iter().map(lower).collect())
    }

    /// Merges a request into a key's scope: areas the request does not mention
    /// keep the key's level, the others get the lower of both.
    pub(super) fn merged_with(&self, requested: &Self) -> Self {
        let mut merged = self.clone();
        for (area, level) in &requested.0 {
            merged.0.insert(*area, (*level).min(self.level(*area)));
        }
        merged
    }

    /// The words for what is really granted; areas with none are left out.
    pub(super) fn granted(&self) -> Vec<String> {
        let some = self.0.iter().filter(|(_, level)| **level > Level::None);
        some.map(|(area, level)| format!("{}:{}", area.name(), level.name()))
            .collect()
    }

    /// Takes one word if it names an area; false if it is of another kind.
    fn take(&mut self, word: &str) -> Result<bool, String> {
        let Some((name, level)) = word.split_once(':') else {
            return Ok(false);
        };
        let Some(area) = Area::parse(name) else {
            return Ok(false);
        };
        let level = Level::parse(level).ok_or_else(|| format!("unknown access level: {word}"))?;
        if self.0.insert(area, level).is_some() {
            return Err(format!("scope given twice: {name}"));
        }
        Ok(true)
    }
}

impl fmt::Display for Areas {
    /// Prints what was mentioned, none included, in the exchange's own order.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (area, level)) in self.0.iter().enumerate() {
            let blank = if position == 0 { "" } else { " " };
            write!(f, "{blank}{}:{}", area.name(), level.name())?;
        }
        Ok(())
    }
}

impl Requested {
    /// Reads the `scope` of a login.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut requested = Self::default();
        for word in words(text) {
            if requested.areas.take(word)? {
                continue;
            }
            match word.split_once(':') {
                Some(("session", name)) if session_name(name) => {
                    requested.session = Some(name.to_owned());
                }
                Some(("expires", seconds)) => {
                    let seconds = seconds.parse().ok().filter(|seconds| *seconds > 0);
                    requested.expires =
                        Some(seconds.ok_or_else(|| format!("bad lifetime: {word}"))?);
                }
                Some(("ip", "*")) => requested.ip = None,
                Some(("ip", address)) => {
                    let address = address
                        .parse()
                        .map_err(|_| format!("bad address: {word}"))?;
                    requested.ip = Some(address);
                }
                // Words that a granted scope holds and a refresh may send back;
                // a connection scope means nothing over HTTP.
                Some(("name", _)) => {}
                None if word == "mainaccount" || word == "connection" => {}
                _ => return Err(format!("unknown scope: {word}")),
            }
        }
        Ok(requested)
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    // An empty text has no words; a doubled blank has an empty one, which is
    // then refused as unknown.
    text.split(' ').filter(move |_| !text.is_empty())
}

fn session_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn comes_back_in_the_documented_order() {
        let sent = "account:read trade:read block_trade:read_write wallet:none";
        let back = "account:read block_trade:read_write trade:read wallet:none";
        assert_eq!(Areas::parse(sent).unwrap().to_string(), back);
    }

    #[test]
    fn merges_as_documented() {
        let key = Areas::parse("account:read trade:read_write wallet:read").unwrap();
        let asked =
            Requested::parse("account:read_write wallet:none session:bot expires:60").unwrap();
        let granted = key.merged_with(&asked.areas);
        assert_eq!(granted.granted(), ["account:read", "trade:read_write"]);
        assert_eq!(asked.session.as_deref(), Some("bot"));
        assert_eq!(asked.expires, Some(60));
    }

    #[test]
    fn knows_the_ceiling() {
        let ceiling = Areas::parse("account:read_write trade:read").unwrap();
        assert!(
            Areas::parse("trade:read wallet:none")
                .unwrap()
                .within(&ceiling)
        );
        assert!(!Areas::parse("trade:read_write").unwrap().within(&ceiling));
        assert!(!Areas::parse("wallet:read").unwrap().within(&ceiling));
    }

    #[test]
    fn refuses_other_words() {
        for bad in [
            "trade",
            "trade:write",
            "trade:read  wallet:read",
            "trade:read trade:read",
            " ",
            "mainaccount",
            "session:x",
        ] {
            assert!(Areas::parse(bad).is_err(), "{bad}");
        }
        assert!(Areas::parse("").unwrap().granted().is_empty());
        for bad in ["expires:0", "ip:here", "session:", "all"] {
            assert!(Requested::parse(bad).is_err(), "{bad}");
        }
    }
}
