//! Types that keep quiet about what they hold.
//!
//! A secret can be made, looked at through [`expose`](Secret::expose), and dropped, which wipes it.
//! It can be neither cloned, compared, printed nor serialised, and different secrets are different
//! types, so that a passphrase cannot be sent as a token. `grep -rn 'expose()' src` is the audit.

use std::fmt;

use serde::{Deserialize, Deserializer};
use zeroize::{Zeroize, Zeroizing};

#[cfg(doctest)]
pub mod forbidden;
mod locked;
mod residence;

pub(crate) use locked::{Ed25519Secret, clear_registers};
pub use locked::{keep_from_children, shelter_keys};
pub use residence::Residence;

/// A value that is wiped when dropped and prints as `[redacted]`.
///
/// ```
/// let p = derikey::secret::Passphrase::new("hunter2".into());
/// assert_eq!(format!("{p:?} {p:#?}"), "[redacted] [redacted]");
/// ```
///
/// What it cannot do must not compile; the same for every other holder of a secret is in
/// `secret/forbidden.rs`.
/// ```compile_fail,E0277
/// let p = derikey::secret::Passphrase::new("hunter2".into());
/// println!("{p}");
/// ```
pub struct Secret<T: Zeroize>(Zeroizing<T>);

impl<T: Zeroize> Secret<T> {
    /// Takes the value in.
    pub fn new(value: T) -> Self {
        Self(Zeroizing::new(value))
    }

    /// Shows the value; every use of this is worth a look.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Appends to a buffer; where it has to move, what it leaves behind is wiped.
pub(crate) fn append(buffer: &mut Zeroizing<Vec<u8>>, more: &[u8]) {
    let needed = buffer.len() + more.len();
    if needed > buffer.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(needed.max(buffer.capacity() * 2)));
        larger.extend_from_slice(buffer);
        *buffer = larger;
    }
    buffer.extend_from_slice(more);
}

macro_rules! secret_text {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => { $(
        $(#[$doc])*
        pub struct $name(Secret<Box<str>>);

        impl $name {
            /// Takes the text in, at exact capacity; what the text leaves behind is wiped.
            pub fn new(text: String) -> Self {
                let text = Zeroizing::new(text);
                Self(Secret::new(Box::from(text.as_str())))
            }

            /// Shows the text; every use of this is worth a look.
            pub fn expose(&self) -> &str {
                self.0.expose()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map(Self::new)
            }
        }
    )* };
}

secret_text!(
    /// What a private key is sealed with.
    Passphrase,
    /// A bearer token of the exchange.
    AccessToken,
    /// What a new access token is had for.
    RefreshToken,
    /// The secret of a symmetric API key: it signs, and is never sent.
    ClientSecret,
    /// One code of a second factor.
    OneTimeCode,
    /// The base32 seed that one-time codes come from.
    TotpSeed,
);
