//! What a key may do: a level for each area.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Error;

/// A part of an account that a key can be let into (Deribit, "Access scope").
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Area {
    /// Account data; with write access also settings, sub-accounts and API keys.
    Account,
    /// Orders and positions.
    Trade,
    /// Deposits, withdrawals, transfers, the address book.
    Wallet,
    /// Block trades.
    BlockTrade,
    /// Requests for quotes of blocks.
    BlockRfq,
    /// Custody accounts.
    Custody,
    /// An area that the exchange names and this version does not know.
    Other(Box<str>),
}

impl Area {
    /// The areas that can be asked for.
    pub const KNOWN: [Self; 6] = [
        Self::Account,
        Self::Trade,
        Self::Wallet,
        Self::BlockTrade,
        Self::BlockRfq,
        Self::Custody,
    ];

    /// Returns the word that the exchange uses.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Account => "account",
            Self::Trade => "trade",
            Self::Wallet => "wallet",
            Self::BlockTrade => "block_trade",
            Self::BlockRfq => "block_rfq",
            Self::Custody => "custody",
            Self::Other(name) => name,
        }
    }
}

/// How far a key is let into an area.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Level {
    /// Not at all.
    #[default]
    None,
    /// It may look.
    Read,
    /// It may look and act.
    ReadWrite,
}

impl Level {
    /// Returns the word that the exchange uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Read => "read",
            Self::ReadWrite => "read_write",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::None, Self::Read, Self::ReadWrite]
            .into_iter()
            .find(|level| level.as_str() == text)
    }
}

/// Named scopes for common kinds of key.
pub const PRESETS: [(&str, &str); 5] = [
    (
        "@read-only",
        "account:read trade:read wallet:read block_trade:read block_rfq:read custody:read",
    ),
    ("@trader", "account:read trade:read_write"),
    (
        "@market-maker",
        "account:read trade:read_write block_trade:read block_rfq:read_write",
    ),
    ("@risk", "account:read trade:read_write wallet:read"),
    (
        "@treasury",
        "account:read wallet:read_write custody:read_write",
    ),
];

/// What else stands in a granted scope with a colon behind it (Deribit, "Access scope").
const NO_AREAS: [&str; 4] = ["name", "session", "expires", "ip"];

/// A level for each area; an area that is left out is `none`.
///
/// Two scopes are equal when they allow the same, whatever was written out: the exchange sends
/// areas in another order than it was given, and may leave out those with `none`.
#[derive(Clone, Debug, Default)]
pub struct Scope(BTreeMap<Area, Level>);

/// Stand for what the exchange says of rights and nobody here knows.
const UNKNOWN_AREA: &str = "unknown_area";
const UNKNOWN_LEVEL: &str = "unknown_level";

impl Scope {
    /// Returns the scope that allows nothing, with the four areas every account has written out.
    pub fn nothing() -> Self {
        let areas = [Area::Account, Area::Trade, Area::Wallet, Area::BlockTrade];
        Self(areas.map(|area| (area, Level::None)).into())
    }

    /// Reads a scope as the exchange writes it, which may hold words that are no areas.
    ///
    /// Those (`mainaccount`, `session:…`, `name:…`) say nothing about rights and are left out. Of
    /// an area named twice the higher level counts: a doubt is settled on the safe side.
    pub fn from_wire(text: &str) -> Self {
        let mut scope = Self::default();
        for (name, level) in text.split_whitespace().filter_map(|t| t.split_once(':')) {
            // A key or a session may be named like a level.
            if NO_AREAS.contains(&name) {
                continue;
            }
            let area = Area::KNOWN.into_iter().find(|a| a.as_str() == name);
            let (area, level) = match (area, Level::parse(level)) {
                // A level that is not known may be the highest: it equals none that was asked for.
                (Some(_), None) => (Some(Area::Other(UNKNOWN_LEVEL.into())), Level::ReadWrite),
                (None, None) => (Some(Area::Other(UNKNOWN_AREA.into())), Level::ReadWrite),
                (area, Some(level)) => (area, level),
            };
            let harmless =
                name.len() <= 32 && name.bytes().all(|b| b == b'_' || b.is_ascii_lowercase());
            let area = match area {
                Some(area) => area,
                None if harmless => Area::Other(name.into()),
                None => Area::Other(UNKNOWN_AREA.into()),
            };
            let held = scope.0.entry(area).or_default();
            *held = level.max(*held);
        }
        scope
    }

    /// Tells whether all of it was understood: what was not cannot be sent back.
    pub fn is_understood(&self) -> bool {
        let unknown = [UNKNOWN_AREA, UNKNOWN_LEVEL].map(|word| Area::Other(word.into()));
        !unknown.iter().any(|area| self.0.contains_key(area))
    }

    /// Returns the level of one area.
    pub fn level(&self, area: &Area) -> Level {
        self.0.get(area).copied().unwrap_or_default()
    }

    /// Returns the areas with more than `none`, and their levels.
    pub fn allowed(&self) -> impl Iterator<Item = (&Area, Level)> {
        self.0
            .iter()
            .map(|(area, level)| (area, *level))
            .filter(|(_, level)| *level > Level::None)
    }

    /// Tells whether nothing here goes beyond `ceiling`.
    pub fn is_within(&self, ceiling: &Self) -> bool {
        self.allowed()
            .all(|(area, level)| level <= ceiling.level(area))
    }

    /// Tells whether a key with this scope can manage keys, its own among them.
    pub fn manages_keys(&self) -> bool {
        self.level(&Area::Account) == Level::ReadWrite
    }

    /// Returns the same scope without what moves funds, manages addresses, or manages keys: of
    /// those areas, and of areas that are not known, it may only look.
    pub fn without_power(&self) -> Self {
        let areas = self.0.iter().map(|(area, level)| {
            let trades = matches!(area, Area::Trade | Area::BlockTrade | Area::BlockRfq);
            let most = if trades {
                Level::ReadWrite
            } else {
                Level::Read
            };
            (area.clone(), most.min(*level))
        });
        Self(areas.collect())
    }

    /// Returns the same scope with `none` written out for every area that is known.
    ///
    /// At login an area that is not mentioned keeps the key's own level, so less is had only by
    /// saying so.
    pub fn written_out(&self) -> Self {
        let mut areas = self.0.clone();
        for area in Area::KNOWN {
            areas.entry(area).or_default();
        }
        Self(areas)
    }
}

impl PartialEq for Scope {
    fn eq(&self, other: &Self) -> bool {
        self.allowed().eq(other.allowed())
    }
}

impl Eq for Scope {}

impl FromStr for Scope {
    type Err = Error;

    /// Reads a scope as a person writes it: known areas, each at most once, or one preset.
    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |problem: String| Error::Scope { problem };
        let text = text.trim_matches(' ');
        if let Some((_, words)) = PRESETS.iter().find(|(name, _)| *name == text) {
            return Ok(Self::from_wire(words));
        }
        if text.starts_with('@') {
            let names: Vec<&str> = PRESETS.iter().map(|(name, _)| *name).collect();
            return Err(bad(format!(
                "there is no such preset; there are {}",
                names.join(", ")
            )));
        }
        let mut scope = Self::default();
        for token in text.split(' ').filter(|t| !t.is_empty()) {
            let (name, level) = token
                .split_once(':')
                .ok_or_else(|| bad(format!("{token:?} is not AREA:LEVEL")))?;
            let area = Area::KNOWN
                .into_iter()
                .find(|a| a.as_str() == name)
                .ok_or_else(|| {
                    let known = Area::KNOWN.each_ref().map(Area::as_str).join(", ");
                    bad(format!("there is no area {name:?}; there are {known}"))
                })?;
            let level = Level::parse(level).ok_or_else(|| {
                bad(format!(
                    "{token:?} has a level other than none, read, read_write"
                ))
            })?;
            if scope.0.insert(area, level).is_some() {
                return Err(bad(format!("the area {name} is named twice")));
            }
        }
        if scope.0.is_empty() {
            return Err(bad("it is empty".into()));
        }
        Ok(scope)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (area, level)) in self.0.iter().enumerate() {
            let gap = if i == 0 { "" } else { " " };
            write!(f, "{gap}{}:{}", area.as_str(), level.as_str())?;
        }
        Ok(())
    }
}

/// Goes out as one string, which is what every documented example shows.
impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Comes in as a string, or as the array that the official schema promises.
impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Both;
        impl<'de> de::Visitor<'de> for Both {
            type Value = Scope;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a scope")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Scope, E> {
                Ok(Scope::from_wire(text))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut words: A) -> Result<Scope, A::Error> {
                let mut text = String::new();
                while let Some(word) = words.next_element::<String>()? {
                    text.push_str(&word);
                    text.push(' ');
                }
                Ok(Scope::from_wire(&text))
            }
        }
        deserializer.deserialize_any(Both)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn scope(text: &str) -> Scope {
        text.parse().unwrap()
    }

    #[test]
    fn scopes_are_compared_by_what_they_allow() {
        let asked = scope("account:read trade:read block_trade:read_write wallet:none");
        let reply =
            Scope::from_wire("account:read block_trade:read_write trade:read mainaccount name:x");
        assert_eq!(asked, reply);
        assert_ne!(asked, scope("account:read trade:read"));
        assert!(scope("trade:read").is_within(&asked) && !asked.is_within(&scope("trade:read")));
    }

    #[test]
    fn both_wire_forms_are_read_and_one_is_written() {
        let text: Scope = serde_json::from_str(r#""trade:read account:none""#).unwrap();
        let list: Scope = serde_json::from_str(r#"["account:none","trade:read"]"#).unwrap();
        assert_eq!(text, list);
        assert_eq!(
            serde_json::to_string(&list).unwrap(),
            r#""account:none trade:read""#
        );
    }

    #[test]
    fn an_unknown_area_in_a_reply_counts_as_more_than_was_asked() {
        assert_ne!(
            scope("trade:read"),
            Scope::from_wire("trade:read margin:read_write")
        );
        assert_eq!(
            scope("trade:read"),
            Scope::from_wire("trade:read margin:none")
        );
        assert_eq!(
            Scope::from_wire("trade:read trade:read_write"),
            scope("trade:read_write")
        );
    }

    #[test]
    fn an_unknown_level_is_not_taken_for_none() {
        assert_ne!(
            scope("trade:read"),
            Scope::from_wire("trade:read wallet:admin")
        );
        assert_eq!(
            scope("trade:read"),
            Scope::from_wire("trade:read session:rest-x ip:1.2.3.4")
        );
    }

    #[test]
    fn nearly_right_scopes_are_refused() {
        for text in [
            "",
            " ",
            "trade",
            "trade:",
            "trade:write",
            "Trade:read",
            "trade:read trade:read",
            "trade:read\nwallet:read",
            "trade:read,wallet:read",
            "@nobody",
            "@trader wallet:read",
            "session:x",
            "trade:read\twallet:read",
        ] {
            assert!(text.parse::<Scope>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_name_like_a_level_gives_no_rights() {
        let granted = Scope::from_wire("name:read session:read_write trade:read");
        assert_eq!(granted, scope("trade:read"));
        assert_eq!(granted.to_string(), "trade:read");
    }

    #[test]
    fn presets_are_scopes() {
        for (name, words) in PRESETS {
            assert_eq!(scope(name).to_string(), scope(words).to_string());
        }
    }
}
