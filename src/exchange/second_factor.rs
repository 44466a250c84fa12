//! The second factor: what the exchange demands, and who answers.

use std::fmt;

use serde::Deserialize;

use super::Error;
use crate::secret::OneTimeCode;

/// What the exchange sends instead of a result when it wants a second factor.
///
/// It lives one minute and is good for one answer (Deribit, "Security keys").
#[derive(Clone, Deserialize)]
pub struct Challenge {
    #[serde(rename = "challenge")]
    text: String,
    #[serde(default)]
    rp_id: Option<String>,
    #[serde(default)]
    security_keys: Vec<SecurityKey>,
}

#[derive(Clone, Debug, Deserialize)]
struct SecurityKey {
    #[serde(rename = "type", default)]
    kind: String,
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its text is half of what confirms the call.
        f.debug_struct("Challenge")
            .field("rp_id", &self.rp_id)
            .field("security_keys", &self.security_keys)
            .finish_non_exhaustive()
    }
}

impl Challenge {
    /// Returns the text that goes back unchanged with the code.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the site that the challenge says it is for.
    pub fn rp_id(&self) -> Option<&str> {
        self.rp_id.as_deref()
    }

    /// Tells whether a one-time code can answer it. The exchange with hardware keys is not public.
    pub fn takes_a_code(&self) -> bool {
        self.security_keys.is_empty() || self.security_keys.iter().any(|key| key.kind == "tfa")
    }
}

/// How often a second factor has been tried for one operation: three times, then it stops.
#[derive(Debug, Default)]
pub struct Attempts(usize);

impl Attempts {
    /// How many there are.
    const ALL: usize = 3;

    /// Begins one, and returns how many are left after it; nothing where there was none left.
    pub(super) const fn next(&mut self) -> Option<usize> {
        if self.0 == Self::ALL {
            return None;
        }
        self.0 += 1;
        Some(Self::ALL - self.0)
    }

    /// Returns how many were begun.
    pub(super) const fn made(&self) -> usize {
        self.0
    }
}

/// Someone who can answer a challenge: a person, a program, a seed.
///
/// A code is good for one use, so an implementation remembers what it has given away.
pub trait SecondFactor: Send {
    /// Returns a code that has not been used before; may wait for one.
    ///
    /// # Errors
    /// [`Error::NoSecondFactor`] where there is nobody to ask or no code is left.
    fn code(&mut self, challenge: &Challenge) -> Result<OneTimeCode, Error>;

    /// Lets the seconds pass that the exchange asks for after too many failed codes (12998), and
    /// returns true; returns false at once where that is too long.
    fn waits(&mut self, seconds: u64) -> bool;
}

/// Nobody is there to answer.
#[derive(Debug)]
pub struct Unattended;

impl SecondFactor for Unattended {
    fn code(&mut self, _: &Challenge) -> Result<OneTimeCode, Error> {
        Err(Error::NoSecondFactor {
            problem: "none was given".into(),
        })
    }

    fn waits(&mut self, _: u64) -> bool {
        false
    }
}
