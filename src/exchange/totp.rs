//! One-time codes from a seed (RFC 6238: SHA-1, six digits, steps of thirty seconds).

use std::fmt;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::Error;
use crate::secret::{OneTimeCode, TotpSeed};

/// Sets the tag apart from any other hash of a seed.
const TAG_DOMAIN: &[u8] = b"derikey one-time codes\0";

/// A seed that codes come from. It has no clock: the step is the caller's.
pub struct Totp {
    inner: totp_rs::Totp,
    tag: String,
}

impl Totp {
    /// Seconds for which a code is shown.
    pub const STEP: u64 = 30;

    /// Reads a base32 seed as sites show it: any case, blanks, hyphens and padding allowed.
    ///
    /// # Errors
    /// [`Error::Identifier`] where it is no base32 or shorter than 80 bits.
    pub fn new(seed: &TotpSeed) -> Result<Self, Error> {
        let bad = |problem| Error::Identifier {
            what: "a TOTP seed",
            problem,
        };
        let mut text = Zeroizing::new(String::with_capacity(seed.expose().len()));
        let kept = |c: &char| !c.is_whitespace() && !"-=".contains(*c);
        text.extend(
            seed.expose()
                .chars()
                .filter(kept)
                .map(|c| c.to_ascii_uppercase()),
        );
        if text.len() < 16 {
            return Err(bad(
                "it has fewer than the 16 base32 characters that are usual",
            ));
        }
        let foreign = bad("it holds something else than the base32 letters A-Z and 2-7");
        // Looked at beforehand: the decoder does not wipe what it decoded before it gave up.
        if !text.bytes().all(|b| matches!(b, b'A'..=b'Z' | b'2'..=b'7')) {
            return Err(foreign);
        }
        let secret = totp_rs::Secret::try_from_base32(text.as_str()).map_err(|_| foreign)?;
        let digest = Sha256::new()
            .chain_update(TAG_DOMAIN)
            .chain_update(secret.as_bytes())
            .finalize();
        let tag = digest
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let inner = totp_rs::Builder::new()
            .with_secret(secret)
            .build_noncompliant();
        Ok(Self { inner, tag })
    }

    /// Returns a name for the seed under which its used steps are kept.
    ///
    /// Eight bytes of a hash over a seed of at least 80 random bits lead nowhere.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Returns the number of the step at a moment given in seconds since the Unix epoch.
    pub const fn step_at(seconds: u64) -> u64 {
        seconds / Self::STEP
    }

    /// Returns the code of a step.
    pub fn code(&self, step: u64) -> OneTimeCode {
        OneTimeCode::new(
            self.inner
                .generate(step.saturating_mul(Self::STEP))
                .to_string(),
        )
    }
}

impl fmt::Debug for Totp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Totp([redacted])")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// RFC 6238 appendix B, SHA-1, the last six of its eight digits.
    #[test]
    fn codes_are_those_of_rfc_6238() {
        let totp = Totp::new(&TotpSeed::new(
            "gezd gnbv gy3t qojq-GEZDGNBVGY3TQOJQ==".into(),
        ))
        .unwrap();
        for (seconds, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(totp.code(Totp::step_at(seconds)).expose(), code);
        }
    }

    /// RFC 4226 appendix D: the counter is what RFC 6238 calls a step.
    #[test]
    fn codes_are_those_of_rfc_4226() {
        let totp = Totp::new(&TotpSeed::new("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ".into())).unwrap();
        let codes = [
            "755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583",
            "399871", "520489",
        ];
        for (counter, code) in (0..).zip(codes) {
            assert_eq!(totp.code(counter).expose(), code, "{counter}");
        }
    }

    #[test]
    fn seeds_that_are_none_are_refused() {
        for seed in [
            "",
            "GEZDGNBV",
            "GEZDGNBVGY3TQOJ1",
            "gezdgnbvgy3tqo!q",
            "287082",
        ] {
            assert!(Totp::new(&TotpSeed::new(seed.into())).is_err(), "{seed}");
        }
    }
}
