//! Proofs of identity: public keys, signatures, secrets and one-time codes.
//!
//! Written from the documentation with other code than the client's: dalek and
//! `rsa` verify what another library signed.

use std::fmt;
use std::io;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ed25519_dalek::VerifyingKey as Ed25519Key;
use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use rsa::RsaPublicKey;
use rsa::pkcs1v15;
use rsa::pkcs8::DecodePublicKey;
use rsa::signature::Verifier;
use rsa::traits::PublicKeyParts;
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The first bytes of every Ed25519 SubjectPublicKeyInfo (RFC 8410).
const ED25519_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// The smallest RSA modulus accepted, in bytes (2048 bits).
const RSA_MINIMUM: usize = 256;

/// Seconds for which a one-time code stands (RFC 6238).
const STEP: u64 = 30;

/// What a key logs in with.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Credential {
    /// A shared secret, for HMAC.
    Secret(String),
    /// A SubjectPublicKeyInfo in DER, written in base64.
    Public(String),
}

/// The seed of one-time codes.
pub(super) struct Seed(Vec<u8>);

impl Credential {
    /// Makes a shared secret of 43 url-safe characters.
    pub(super) fn random() -> io::Result<Self> {
        Ok(Self::Secret(url_safe::<32>()?))
    }

    /// Reads a public key as `create_api_key` takes it.
    pub(super) fn from_pem(pem: &str) -> Result<Self, String> {
        let der = decode_pem(pem).ok_or("must be a PEM encoded public key")?;
        if let Some(raw) = ed25519(&der) {
            let key = Ed25519Key::from_bytes(&raw).map_err(|_| "not a point of Ed25519")?;
            if key.is_weak() {
                return Err("weak Ed25519 key".to_owned());
            }
        } else {
            let key = RsaPublicKey::from_public_key_der(&der)
                .map_err(|_| "must be an Ed25519 or RSA public key")?;
            if key.size() < RSA_MINIMUM || key.n().bits() < 2048 {
                return Err("RSA keys must have at least 2048 bits".to_owned());
            }
        }
        Ok(Self::Public(STANDARD.encode(der)))
    }

    /// The public key as the exchange shows it: no newline at the end.
    pub(super) fn to_pem(&self) -> Option<String> {
        let Self::Public(text) = self else {
            return None;
        };
        let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
        for (position, character) in text.chars().enumerate() {
            if position > 0 && position % 64 == 0 {
                pem.push('\n');
            }
            pem.push(character);
        }
        pem.push_str("\n-----END PUBLIC KEY-----");
        Some(pem)
    }

    /// What stands in `client_secret`: the secret or the fingerprint.
    pub(super) fn client_secret(&self) -> String {
        match self {
            Self::Secret(secret) => secret.clone(),
            Self::Public(text) => fingerprint(&STANDARD.decode(text).unwrap_or_default()),
        }
    }

    /// Says whether this is the shared secret itself.
    pub(super) fn is_secret(&self, offered: &str) -> bool {
        matches!(self, Self::Secret(secret) if secret == offered)
    }

    /// Checks a signature as it is written on the wire.
    pub(super) fn verifies(&self, message: &[u8], signature: &str) -> bool {
        match self {
            Self::Secret(secret) => hmac_sha256_hex(secret, message) == signature,
            Self::Public(text) => verify(text, message, signature).is_some(),
        }
    }
}

impl Seed {
    /// Reads base32 (RFC 4648); blanks, case and padding do not matter.
    pub(super) fn from_base32(text: &str) -> Option<Self> {
        let mut bytes = Vec::new();
        let (mut bits, mut held) = (0_u32, 0_u32);
        for character in text
            .chars()
            .filter(|character| !matches!(character, ' ' | '-' | '='))
        {
            let value = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".find(character.to_ascii_uppercase())?;
            bits = ((bits & 0xff) << 5) | u32::try_from(value).ok()?;
            held += 5;
            if held >= 8 {
                held -= 8;
                bytes.push(u8::try_from((bits >> held) & 0xff).ok()?);
            }
        }
        (!bytes.is_empty()).then_some(Self(bytes))
    }

    /// The time step in which this code stands, one step of drift allowed.
    pub(super) fn step_of(&self, code: &str, now_ms: u64) -> Option<u64> {
        let step = now_ms / 1000 / STEP;
        [step, step.saturating_sub(1), step.saturating_add(1)]
            .into_iter()
            .find(|step| self.code(*step).as_deref() == Some(code))
    }

    /// The code of a time step (RFC 6238 with SHA-1 and six digits).
    pub(super) fn code(&self, step: u64) -> Option<String> {
        let mut mac = Hmac::<Sha1>::new_from_slice(&self.0).ok()?;
        mac.update(&step.to_be_bytes());
        let digest = mac.finalize().into_bytes();
        let offset = usize::from(digest.last()? & 0x0f);
        let word: [u8; 4] = digest
            .get(offset..offset.checked_add(4)?)?
            .try_into()
            .ok()?;
        Some(format!(
            "{:06}",
            (u32::from_be_bytes(word) & 0x7fff_ffff) % 1_000_000
        ))
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed([redacted])")
    }
}

/// Random bytes from the operating system, written in base64url.
pub(super) fn url_safe<const N: usize>() -> io::Result<String> {
    Ok(URL_SAFE_NO_PAD.encode(random::<N>()?))
}

/// Random bytes from the operating system, written in padded base64.
pub(super) fn padded<const N: usize>() -> io::Result<String> {
    Ok(STANDARD.encode(random::<N>()?))
}

/// SHA-256 in hex: what is stored of a token.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Decodes padded base64.
pub(super) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}

fn decode_pem(pem: &str) -> Option<Vec<u8>> {
    let body = pem.trim().strip_prefix("-----BEGIN PUBLIC KEY-----")?;
    let body = body.strip_suffix("-----END PUBLIC KEY-----")?;
    // The lines of the body must be lines: a PEM whose breaks were lost on the
    // way is not one.
    let body = body
        .strip_prefix("\r\n")
        .or_else(|| body.strip_prefix('\n'))?;
    let text: String = body
        .split('\n')
        .map(|line| line.strip_suffix('\r').unwrap_or(line))
        .collect();
    STANDARD.decode(text).ok()
}

fn ed25519(der: &[u8]) -> Option<[u8; 32]> {
    der.strip_prefix(&ED25519_PREFIX)?.try_into().ok()
}

fn verify(spki: &str, message: &[u8], signature: &str) -> Option<()> {
    let der = STANDARD.decode(spki).ok()?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    if let Some(raw) = ed25519(&der) {
        let key = Ed25519Key::from_bytes(&raw).ok()?;
        let signature = ed25519_dalek::Signature::from_slice(&signature).ok()?;
        return key.verify_strict(message, &signature).ok();
    }
    let key = RsaPublicKey::from_public_key_der(&der).ok()?;
    let signature = pkcs1v15::Signature::try_from(signature.as_slice()).ok()?;
    pkcs1v15::VerifyingKey::<Sha256>::new(key)
        .verify(message, &signature)
        .ok()
}

fn hmac_sha256_hex(secret: &str, message: &[u8]) -> String {
    // HMAC takes keys of any length, so the empty string cannot come of it; were
    // it to, it would match no signature because those are never empty.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
        return "-".to_owned();
    };
    mac.update(message);
    hex(&mac.finalize().into_bytes())
}

/// MD5 of the DER in colon hex (the documentation's own example proves it).
fn fingerprint(der: &[u8]) -> String {
    let pairs: Vec<String> = Md5::digest(der)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    pairs.join(":")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn matches_the_documented_hmac_vectors() {
        let key = Credential::Secret("AMANDASECRECT".to_owned());
        assert!(key.verifies(
            b"1576074319000\n1iqt2wls\n",
            "56590594f97921b09b18f166befe0d1319b198bbcdad7ca73382de2f88fe9aa1"
        ));
        assert!(key.verifies(
            b"1576074319000\n1iqt2wls\nGET\n/api/v2/private/get_account_summary?currency=BTC\n\n",
            "9bfbc51a2bc372d72cc396cf1a213dc78d42eb74cb7dc272351833ad0de276ab"
        ));
        assert!(!key.verifies(b"1576074319000\n1iqt2wls\n", ""));
    }

    #[test]
    fn matches_the_documented_fingerprint() {
        let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAM7FWhKquNqLmTOV4hfYT5r3AjrYiORTT6Tn5HIfFNV8=\n-----END PUBLIC KEY-----";
        for sent in [
            pem.to_owned(),
            format!("{pem}\n"),
            pem.replace('\n', "\r\n"),
        ] {
            let key = Credential::from_pem(&sent).unwrap();
            assert_eq!(
                key.client_secret(),
                "9c:6d:c9:02:fd:9f:75:6e:14:bb:71:c5:74:95:86:c8"
            );
            assert_eq!(key.to_pem().unwrap(), pem);
        }
    }

    #[test]
    fn verifies_ed25519_and_nothing_else() {
        let key = Credential::from_pem("-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----").unwrap();
        let signature = "ct_usiNBEI4biVO3qsPw4ACmmZR-NEhJpA6sX9nUXU3mak75LAiccV35TNtZM8-OdvjW0i77cJKvX1IFhz1PAg";
        assert!(key.verifies(b"1576074319000\n1iqt2wls\n", signature));
        assert!(!key.verifies(b"1576074319001\n1iqt2wls\n", signature));
        assert!(!key.verifies(b"1576074319000\n1iqt2wls\n", &format!("{signature}==")));
    }

    #[test]
    fn refuses_other_public_keys() {
        let small = "-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAL1dMSTV1JsLcK2mDnFIkQmuEcOUxYBH\nlEEVKDkOKHWIbhHbUdKKcXoCYAzhw7ZgbvfXo/qfpOlqZTLsTO2zoYECAwEAAQ==\n-----END PUBLIC KEY-----";
        let joined = "-----BEGIN PUBLIC KEY----- MCowBQYDK2VwAyEAM7FWhKquNqLmTOV4hfYT5r3AjrYiORTT6Tn5HIfFNV8= -----END PUBLIC KEY-----";
        for bad in ["", "ssh-ed25519 AAAA", joined, small] {
            assert!(Credential::from_pem(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn matches_rfc_6238() {
        // RFC 6238, appendix B: the eight-digit codes end in these six digits.
        let seed = Seed::from_base32("GEZD GNBV GY3T QOJQ GEZDGNBVGY3TQOJQ").unwrap();
        assert_eq!(seed.code(59 / STEP).unwrap(), "287082");
        assert_eq!(seed.code(1_111_111_109 / STEP).unwrap(), "081804");
        assert_eq!(seed.step_of("287082", 89_000), Some(1));
        assert_eq!(seed.step_of("287082", 120_000), None);
        assert!(Seed::from_base32("1").is_none() && Seed::from_base32("").is_none());
    }
}
