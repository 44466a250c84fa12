use std::{
    fmt::{self, Write as _},
    str::FromStr,
};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use rand_core::CryptoRng;
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::Zeroizing;

use super::Error;

/// Exactly the text that is signed.
///
/// A login and a request can never be the same text: a login has two line breaks, a request
/// at least five, and no field before the last can contain one.
///
/// Wiped when dropped: the body of a request may hold a one-time code.
#[derive(Clone, Eq, PartialEq)]
pub struct Message(Zeroizing<String>);

impl Message {
    /// Builds the text. This is the only place that knows where the line breaks go.
    ///
    /// Deribit, "Authentication": `"{timestamp}\n{nonce}\n{data}"` for a login,
    /// `"{timestamp}\n{nonce}\n{METHOD}\n{uri}\n{body}\n"` for a request.
    ///
    /// # Errors
    /// [`Error::Control`], [`Error::Method`] or [`Error::Uri`] when a field is not what it
    /// has to be.
    pub fn new(stamp: &Stamp, purpose: &Purpose) -> Result<Self, Error> {
        let Stamp { timestamp, nonce } = stamp;
        let fields = match purpose {
            Purpose::Login { data } => {
                refuse_control("data", data, "")?;
                data.len()
            }
            Purpose::Request { method, uri, body } => {
                check_method(method)?;
                check_uri(uri)?;
                // The body is the last field: a line break in it cannot be taken for the end
                // of another, and JSON may have some.
                refuse_control("a body", body, "\n\r\t")?;
                method.len() + uri.len() + body.len() + 3
            }
        };
        // The longest timestamp has 20 digits.
        let mut text = Zeroizing::new(String::with_capacity(20 + 1 + nonce.0.len() + 1 + fields));
        let written = match purpose {
            Purpose::Login { data } => write!(text, "{timestamp}\n{nonce}\n{data}"),
            Purpose::Request { method, uri, body } => {
                write!(text, "{timestamp}\n{nonce}\n{method}\n{uri}\n{body}\n")
            }
        };
        match written {
            Ok(()) => Ok(Self(text)),
            Err(fmt::Error) => Err(Error::Library {
                doing: "writing text",
            }),
        }
    }

    /// Returns the bytes to sign.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({} bytes)", self.0.len())
    }
}

/// U+2028 and U+2029 are no control characters, but break lines all the same.
fn refuse_control(what: &'static str, text: &str, except: &str) -> Result<(), Error> {
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    if text.chars().any(|c| breaks(c) && !except.contains(c)) {
        Err(Error::Control { what })
    } else {
        Ok(())
    }
}

fn check_method(method: &str) -> Result<(), Error> {
    refuse_control("a method", method, "")?;
    if (1..=16).contains(&method.len()) && method.bytes().all(|b| b.is_ascii_uppercase()) {
        Ok(())
    } else {
        Err(Error::Method)
    }
}

fn check_uri(uri: &str) -> Result<(), Error> {
    refuse_control("a path", uri, "")?;
    // A fragment is not sent, so it must not be signed.
    let fits = |b: u8| b.is_ascii_graphic() && b != b'#';
    if uri.starts_with('/') && uri.bytes().all(fits) {
        Ok(())
    } else {
        Err(Error::Uri)
    }
}

/// What a signature is for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Purpose {
    /// `public/auth` with `client_signature`.
    Login {
        /// Any text of the user's; empty when there is none.
        data: String,
    },
    /// A REST request with a signed `Authorization` header.
    Request {
        /// The HTTP method, in capitals.
        method: String,
        /// Path and query, exactly as sent.
        uri: String,
        /// The body, exactly as sent.
        body: String,
    },
}

/// When a message is made, and what makes it unique.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Stamp {
    /// The moment. Deribit takes a signature for 60 seconds.
    pub timestamp: Timestamp,
    /// A text that is used once.
    pub nonce: Nonce,
}

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Timestamp(
    /// The milliseconds.
    pub u64,
);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A text that is used once: 1 to 64 visible ASCII characters, no comma, no quotes.
///
/// Comma and quotes would end it early in an `Authorization` header.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize)]
pub struct Nonce(String);

impl Nonce {
    /// 36^24 nonces: a collision is not to be expected within 10^18 of them.
    const LENGTH: usize = 24;

    /// Draws 24 characters from `[a-z0-9]`, each equally likely.
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
        let mut text = [0; Self::LENGTH];
        let mut room = text.iter_mut().peekable();
        while room.peek().is_some() {
            let mut bytes = [0; 32];
            rng.fill_bytes(&mut bytes);
            // 252 is the largest multiple of 36 in a byte; the four values above it would
            // favour the first four characters.
            let fair = bytes.iter().filter(|&&byte| byte < 252);
            let characters = fair.filter_map(|byte| ALPHABET.get(usize::from(byte % 36)));
            for (character, place) in characters.zip(&mut room) {
                *place = *character;
            }
        }
        Self(String::from_utf8_lossy(&text).into_owned())
    }

    /// Returns the nonce as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Nonce {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let fits = |b: u8| b.is_ascii_graphic() && !matches!(b, b',' | b'"' | b'\'');
        if (1..=64).contains(&text.len()) && text.bytes().all(fits) {
            Ok(Self(text.into()))
        } else {
            Err(Error::Nonce)
        }
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Nonce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// A signature; its text form is base64url without padding.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Signature(Box<[u8]>);

impl Signature {
    pub(super) fn new(bytes: impl Into<Box<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// Returns the raw signature: 64 bytes for Ed25519, the size of the modulus for RSA.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Three bytes make four characters, so that parts join without padding.
        for part in self.0.chunks(48) {
            let mut text = [0; 64];
            let length = BASE64_URL_SAFE_NO_PAD
                .encode_slice(part, &mut text)
                .map_err(|_| fmt::Error)?;
            let text = text.get(..length).unwrap_or_default();
            f.write_str(std::str::from_utf8(text).map_err(|_| fmt::Error)?)?;
        }
        Ok(())
    }
}

impl FromStr for Signature {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| Error::Signature)?;
        match bytes.len() {
            64 | 256 | 384 | 512 => Ok(Self::new(bytes)),
            _ => Err(Error::Signature),
        }
    }
}
