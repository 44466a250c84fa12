use std::{fmt, str::FromStr};

use md5::{Digest, Md5};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Error;

/// The MD5 of a public key (SPKI, DER), by which Deribit names it.
///
/// The exchange shows it as `client_secret` of a key that has none. It identifies, it does
/// not authenticate: compare the whole public key where it matters.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    pub(super) fn of(spki: &[u8]) -> Self {
        Self(Md5::digest(spki).into())
    }

    /// Returns the sixteen bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// Returns the two lower-case digits of a byte. An agent under load writes a hundred of them for
/// each line of its log, which took a tenth of its time with the standard library's ways.
pub(crate) fn hex(byte: u8) -> [u8; 2] {
    let digit = |n: u8| n + if n < 10 { b'0' } else { b'a' - 10 };
    [digit(byte >> 4), digit(byte & 0xf)]
}

/// Writes bytes as lower-case pairs joined by colons.
pub(super) fn colons(f: &mut impl fmt::Write, bytes: &[u8]) -> fmt::Result {
    // In one piece: what it is written into may look at each piece for what to escape.
    let mut text = Vec::with_capacity(3 * bytes.len());
    for (i, byte) in bytes.iter().enumerate() {
        if i > 0 {
            text.push(b':');
        }
        text.extend(hex(*byte));
    }
    f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        colons(f, &self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        // What is none may be a secret: the exchange shows both in the same field.
        let bad = || Error::Fingerprint;
        let mut bytes = [0; 16];
        let mut pairs = text.split(':');
        for byte in &mut bytes {
            // from_str_radix would take "+f" for a pair.
            let pair = pairs
                .next()
                .filter(|pair| pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit()))
                .ok_or_else(bad)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
        }
        match pairs.next() {
            None => Ok(Self(bytes)),
            Some(_) => Err(bad()),
        }
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
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

    const SHOWN: &str = "9c:6d:c9:02:fd:9f:75:6e:14:bb:71:c5:74:95:86:c8";

    #[test]
    fn text_and_value_are_one() {
        let print: Fingerprint = SHOWN.parse().unwrap();
        assert_eq!(print.to_string(), SHOWN);
        assert_eq!(format!("{print:?}"), SHOWN);
        assert!(print.as_bytes().starts_with(&[0x9c, 0x6d]));
        let json = serde_json::to_string(&print).unwrap();
        assert_eq!(json, format!("{SHOWN:?}"));
        assert_eq!(serde_json::from_str::<Fingerprint>(&json).unwrap(), print);
    }

    #[test]
    fn nothing_else_is_a_fingerprint() {
        for text in [
            "",
            ":",
            "9c",
            &SHOWN[1..],
            &format!("{SHOWN}:00"),
            &SHOWN.replace("02", "+2"),
            &SHOWN.replace(':', ""),
            &format!(" {SHOWN}"),
        ] {
            assert!(text.parse::<Fingerprint>().is_err(), "{text}");
        }
    }
}
