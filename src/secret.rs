//! Types that keep quiet about what they hold.
//!
//! A secret can be made, looked at through [`expose`](Secret::expose), and dropped, which wipes it.
//! It can be neither cloned, compared, printed nor serialised, and different secrets are different
//! types, so that a passphrase cannot be sent as a token. `grep -rn 'expose()' src` is the audit.

use std::fmt;

use serde::{Deserialize, Deserializer};
use zeroize::{Zeroize, Zeroizing};

mod locked;
mod residence;

pub use locked::{keep_from_children, shelter_keys};
pub use residence::Residence;

/// A value that is wiped when dropped and prints as `[redacted]`.
///
/// ```
/// let p = derikey::secret::Passphrase::new("hunter2".into());
/// assert_eq!(format!("{p:?} {p:#?}"), "[redacted] [redacted]");
/// ```
///
/// What must not compile has a twin that does, as `compile_fail` is content with any mistake.
///
/// No `Display`:
/// ```
/// fn shown(p: derikey::secret::Passphrase) -> String {
///     format!("{p:?}")
/// }
/// ```
/// ```compile_fail,E0277
/// fn shown(p: derikey::secret::Passphrase) -> String {
///     format!("{p}")
/// }
/// ```
/// No `Clone`:
/// ```
/// fn given(p: derikey::secret::AccessToken) -> derikey::secret::AccessToken {
///     p
/// }
/// ```
/// ```compile_fail,E0599
/// fn given(p: derikey::secret::AccessToken) -> derikey::secret::AccessToken {
///     p.clone()
/// }
/// ```
/// No `Copy`:
/// ```
/// fn once(p: derikey::secret::OneTimeCode) -> [derikey::secret::OneTimeCode; 1] {
///     [p]
/// }
/// ```
/// ```compile_fail,E0382
/// fn twice(p: derikey::secret::OneTimeCode) -> [derikey::secret::OneTimeCode; 2] {
///     [p, p]
/// }
/// ```
/// No `PartialEq`, which would stop at the first byte that differs:
/// ```
/// fn same(p: &derikey::secret::ClientSecret, q: &derikey::secret::ClientSecret) -> bool {
///     p.expose().len() == q.expose().len()
/// }
/// ```
/// ```compile_fail,E0369
/// fn same(p: &derikey::secret::ClientSecret, q: &derikey::secret::ClientSecret) -> bool {
///     p == q
/// }
/// ```
/// No `Serialize`:
/// ```
/// fn written(p: &derikey::secret::TotpSeed) -> String {
///     serde_json::to_string(&p.expose().len()).unwrap_or_default()
/// }
/// ```
/// ```compile_fail,E0277
/// fn written(p: &derikey::secret::TotpSeed) -> String {
///     serde_json::to_string(p).unwrap_or_default()
/// }
/// ```
/// None of them by way of what they are made of:
/// ```
/// fn inner(s: derikey::secret::Secret<Vec<u8>>) -> usize {
///     s.expose().len()
/// }
/// ```
/// ```compile_fail,E0599
/// fn inner(s: derikey::secret::Secret<Vec<u8>>) -> usize {
///     s.clone().expose().len()
/// }
/// ```
/// ```compile_fail,E0614
/// fn inner(s: derikey::secret::Secret<Vec<u8>>) -> usize {
///     (*s).len()
/// }
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
