use std::fmt;

use ed25519_dalek::VerifyingKey;
use pkcs1::RsaPublicKeyRef;
use pkcs8::{DecodePublicKey, Document, EncodePublicKey, SubjectPublicKeyInfoRef, der::Decode};
use rsa::{RsaPublicKey, pkcs1::DecodeRsaPublicKey, pkcs1v15, signature::Verifier};
use sha2::{Digest, Sha256};

use super::{Algorithm, Error, Fingerprint, Message, Signature, fingerprint::colons, import, pem};

/// The public half of a key: what Deribit is given, and knows it by.
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct PublicKey {
    spki: Box<[u8]>,
    algorithm: Algorithm,
}

impl PublicKey {
    /// Reads a public key: SubjectPublicKeyInfo in PEM or DER.
    ///
    /// The PEM may be folded in any way: the exchange gives it back without a final line
    /// break, and in places with blanks for line breaks.
    ///
    /// # Errors
    /// [`Error::Private`] for a private key, and otherwise as
    /// [`PrivateKey::read`](super::PrivateKey::read).
    pub fn read(input: &[u8]) -> Result<Self, Error> {
        let der = import::public(input)?;
        let damaged = |_| Error::Malformed { what: "public key" };
        let spki = SubjectPublicKeyInfoRef::from_der(&der).map_err(damaged)?;
        let bits = spki.subject_public_key.as_bytes().unwrap_or_default();
        let key = match import::algorithm(&spki.algorithm)? {
            import::Family::Ed25519 => {
                let point = bits
                    .try_into()
                    .map_err(|_| Error::Malformed { what: "public key" })?;
                Self::from_point(point)?
            }
            import::Family::Rsa => Self::from_pkcs1(bits)?,
        };
        // The fingerprint is one of bytes: other bytes for the same key would be another name.
        if *key.spki == **der {
            Ok(key)
        } else {
            Err(Error::Malformed { what: "public key" })
        }
    }

    pub(super) fn from_point(point: &[u8; 32]) -> Result<Self, Error> {
        let invalid = Error::Invalid {
            algorithm: "Ed25519",
        };
        match VerifyingKey::from_bytes(point) {
            // Under a point of small order, one signature fits every message.
            Ok(key) if !key.is_weak() => {
                Self::from_spki(key.to_public_key_der(), Algorithm::Ed25519)
            }
            _ => Err(invalid),
        }
    }

    /// Takes an `RSAPublicKey` (RFC 8017, A.1.1).
    pub(super) fn from_pkcs1(der: &[u8]) -> Result<Self, Error> {
        let parts = RsaPublicKeyRef::try_from(der);
        let parts = parts.map_err(|_| Error::Malformed {
            what: "RSA public key",
        })?;
        let algorithm = rsa_size(parts.modulus.as_bytes(), parts.public_exponent.as_bytes())?;
        let key =
            RsaPublicKey::from_pkcs1_der(der).map_err(|_| Error::Invalid { algorithm: "RSA" })?;
        Self::from_spki(key.to_public_key_der(), algorithm)
    }

    fn from_spki(
        spki: Result<Document, pkcs8::spki::Error>,
        algorithm: Algorithm,
    ) -> Result<Self, Error> {
        let spki = spki.map_err(|_| Error::Library {
            doing: "encoding a public key",
        })?;
        Ok(Self {
            spki: spki.as_bytes().into(),
            algorithm,
        })
    }

    /// Returns the PEM: lines of 64 columns, LF, one at the end.
    pub fn to_pem(&self) -> String {
        pem::encode("PUBLIC KEY", &self.spki).as_str().to_owned()
    }

    /// Returns the SubjectPublicKeyInfo in DER.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// Returns the kind of key.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the fingerprint that the exchange shows.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.spki)
    }

    /// Returns the SHA-256 of the SPKI, as pairs joined by colons.
    pub fn fingerprint_sha256(&self) -> String {
        let mut text = String::with_capacity(95);
        // A string takes everything that is written to it.
        let _infallible = colons(&mut text, &Sha256::digest(&self.spki));
        text
    }

    /// Checks a signature.
    ///
    /// # Errors
    /// [`Error::Forged`] when it is not this key's signature of this message.
    pub fn verify(&self, message: &Message, signature: &Signature) -> Result<(), Error> {
        self.verify_bytes(message.as_bytes(), signature.as_bytes())
    }

    pub(super) fn verify_bytes(&self, message: &[u8], signature: &[u8]) -> Result<(), Error> {
        let verified = match self.algorithm {
            Algorithm::Ed25519 => VerifyingKey::from_public_key_der(&self.spki)
                .ok()
                .zip(ed25519_dalek::Signature::from_slice(signature).ok())
                .and_then(|(key, signature)| key.verify_strict(message, &signature).ok()),
            Algorithm::Rsa2048 | Algorithm::Rsa3072 | Algorithm::Rsa4096 => {
                RsaPublicKey::from_public_key_der(&self.spki)
                    .ok()
                    .zip(pkcs1v15::Signature::try_from(signature).ok())
                    .and_then(|(key, signature)| {
                        let key = pkcs1v15::VerifyingKey::<Sha256>::new(key);
                        key.verify(message, &signature).ok()
                    })
            }
        };
        verified.ok_or(Error::Forged)
    }

    /// Says whether these are the bits inside the SPKI, as PKCS#8 v2 has them.
    pub(super) fn has_bits(&self, bits: &[u8]) -> bool {
        SubjectPublicKeyInfoRef::from_der(&self.spki)
            .is_ok_and(|spki| spki.subject_public_key.as_bytes() == Some(bits))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.fingerprint(), f)
    }
}

/// Refuses what Deribit does not take or nobody should use; big-endian, no leading zeros.
///
/// Exponents below 65537 make forgery and recovery easier where padding is done wrong
/// (NIST SP 800-56B asks for more than 2^16); above 33 bits no library verifies.
pub(super) fn rsa_size(modulus: &[u8], exponent: &[u8]) -> Result<Algorithm, Error> {
    let first = modulus.first().copied().unwrap_or_default();
    let bits =
        (modulus.len() * 8).saturating_sub(usize::try_from(first.leading_zeros()).unwrap_or(8));
    let algorithm = match bits {
        2048 => Algorithm::Rsa2048,
        3072 => Algorithm::Rsa3072,
        4096 => Algorithm::Rsa4096,
        bits => return Err(Error::RsaSize { bits }),
    };
    let wide = |value: u64, &byte: &u8| value.checked_mul(256)?.checked_add(byte.into());
    match exponent.iter().try_fold(0, wide) {
        Some(value @ 65537..0x2_0000_0000) if value % 2 == 1 => Ok(algorithm),
        _ => Err(Error::RsaExponent),
    }
}
