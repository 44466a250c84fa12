use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize};

use super::Error;

/// The name of a key, here and at the exchange: `[A-Za-z0-9_]{1,16}`.
///
/// The rule is Deribit's for labels; it also makes every name safe as the name of a file.
///
/// ```
/// # use derikey::key::KeyName;
/// assert!("bot_1".parse::<KeyName>().is_ok());
/// assert!("".parse::<KeyName>().is_err());
/// assert!("../prod".parse::<KeyName>().is_err());
/// ```
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct KeyName(String);

impl KeyName {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let fits = (1..=16).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if fits {
            Ok(Self(text.into()))
        } else {
            Err(Error::Name(text.into()))
        }
    }
}

impl AsRef<str> for KeyName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<'de> Deserialize<'de> for KeyName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_rule() {
        for text in ["a", "_", "bot_1", "ABCDEFGHIJKLMNO9"] {
            let name: KeyName = text.parse().unwrap();
            assert_eq!((name.to_string(), name.as_ref()), (text.into(), text));
            let json = serde_json::to_string(&name).unwrap();
            assert_eq!(serde_json::from_str::<KeyName>(&json).unwrap(), name);
        }
        for text in [
            "",
            ".",
            "a b",
            "a-b",
            "a/b",
            "a\n",
            "\u{e9}",
            "ABCDEFGHIJKLMNOPQ",
        ] {
            assert!(text.parse::<KeyName>().is_err(), "{text:?}");
        }
        assert!(serde_json::from_str::<KeyName>("\"..\"").is_err());
    }
}
