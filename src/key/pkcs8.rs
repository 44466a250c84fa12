use std::{fmt, str::FromStr};

use ::pkcs8::{
    AlgorithmIdentifierRef, EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef,
    der::{
        Decode, Encode, ErrorKind, SliceReader,
        asn1::{AnyRef, OctetStringRef},
    },
    pkcs5::{self, EncryptionScheme, pbes2},
};
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use pkcs1::RsaPrivateKeyRef;
use zeroize::Zeroizing;

use super::{
    Error, PrivateKey,
    import::{self, Family},
    public::rsa_size,
};
use crate::secret::Passphrase;

// What is written. `openssl pkey` 3.0 reads no scrypt above this N, and no AES-GCM.
const SCRYPT_N: u64 = 1 << 14;
const SCRYPT_R: u16 = 8;
const SCRYPT_P: u16 = 5;
const PBKDF2_ROUNDS: u32 = 600_000;

// What is read: files of others may ask for seconds, not for minutes or all the memory.
const MAX_PBKDF2_ROUNDS: u32 = 10_000_000;
const MAX_SCRYPT_MEMORY: u64 = 256 << 20;
const MAX_SCRYPT_WORK: u64 = 1 << 30;

/// How a passphrase becomes a key.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Kdf {
    /// scrypt with N=2^14, r=8, p=5: memory makes guessing dear.
    #[default]
    Scrypt,
    /// PBKDF2-HMAC-SHA256 with 600,000 rounds, for tools that know no scrypt.
    Pbkdf2,
}

impl fmt::Display for Kdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Scrypt => "scrypt",
            Self::Pbkdf2 => "pbkdf2",
        })
    }
}

impl FromStr for Kdf {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "scrypt" => Ok(Self::Scrypt),
            "pbkdf2" => Ok(Self::Pbkdf2),
            _ => Err(Error::Kdf(text.into())),
        }
    }
}

/// Reads a plain PKCS#8 private key, version 1 or 2.
pub(super) fn read(der: &[u8]) -> Result<PrivateKey, Error> {
    let damaged = Error::Malformed { what: "PKCS#8 key" };
    let Ok(info) = PrivateKeyInfoRef::from_der(der) else {
        return Err(damaged);
    };
    let inner = info.private_key.as_bytes();
    let key = match import::algorithm(&info.algorithm)? {
        Family::Rsa => PrivateKey::from_rsa(rsa(inner)?)?,
        Family::Ed25519 => {
            // RFC 8410: CurvePrivateKey is an OCTET STRING within the OCTET STRING.
            let seed = <&OctetStringRef>::from_der(inner).ok();
            let seed = seed.and_then(|seed| <&[u8; 32]>::try_from(seed.as_bytes()).ok());
            PrivateKey::from_seed(seed.ok_or(damaged)?)?
        }
    };
    match info.public_key {
        Some(bits) if !key.public.has_bits(bits.as_bytes().unwrap_or_default()) => {
            Err(Error::Mismatch)
        }
        _ => Ok(key),
    }
}

/// Reads an `RSAPrivateKey` (RFC 8017, A.1.2).
pub(super) fn rsa(der: &[u8]) -> Result<RsaKeyPair, Error> {
    let parts = RsaPrivateKeyRef::try_from(der);
    let parts = parts.map_err(|_| Error::Malformed {
        what: "RSA private key",
    })?;
    rsa_size(parts.modulus.as_bytes(), parts.public_exponent.as_bytes())?;
    if parts.other_prime_infos.is_some() {
        return Err(Error::Unsupported {
            algorithm: "multi-prime RSA".into(),
        });
    }
    RsaKeyPair::from_der(der).map_err(|_| Error::Invalid { algorithm: "RSA" })
}

/// A sealed key whose parameters are known and within bounds.
pub(super) struct Sealed<'a> {
    parameters: pbes2::Parameters,
    ciphertext: &'a [u8],
}

impl<'a> Sealed<'a> {
    /// Reads the parameters, and refuses those that would stall or exhaust the machine.
    pub(super) fn read(der: &'a [u8]) -> Result<Self, Error> {
        let info = EncryptedPrivateKeyInfoRef::from_der(der).map_err(|e| match e.kind() {
            ErrorKind::OidUnknown { .. } => Error::UnsupportedSealing,
            _ if !is_known(der) => Error::UnsupportedSealing,
            _ => Error::Malformed {
                what: "encrypted PKCS#8 key",
            },
        })?;
        let EncryptionScheme::Pbes2(parameters) = info.encryption_algorithm else {
            return Err(Error::UnsupportedSealing);
        };
        match parameters.encryption {
            pbes2::EncryptionScheme::Aes128Cbc { .. }
            | pbes2::EncryptionScheme::Aes192Cbc { .. }
            | pbes2::EncryptionScheme::Aes256Cbc { .. } => {}
            _ => return Err(Error::UnsupportedSealing),
        }
        check_cost(&parameters.kdf)?;
        Ok(Self {
            parameters,
            ciphertext: info.encrypted_data.as_bytes(),
        })
    }

    /// Decrypts and reads the key.
    pub(super) fn open(&self, passphrase: &Passphrase) -> Result<PrivateKey, Error> {
        let mut buffer = Zeroizing::new(self.ciphertext.to_vec());
        // PBES2 has no checksum: that padding and structure fit is all there is to go by.
        let der = self
            .parameters
            .decrypt_in_place(passphrase.expose(), &mut buffer)
            .map_err(|e| match e {
                pkcs5::Error::DecryptFailed => Error::WrongPassphrase,
                _ => Error::UnsupportedSealing,
            })?;
        match read(der) {
            Err(Error::Malformed { .. }) => Err(Error::WrongPassphrase),
            result => result,
        }
    }
}

/// PBES1, the schemes of PKCS#12 and ciphers such as RC2 have parameters of other shapes.
fn is_known(der: &[u8]) -> bool {
    let method = AnyRef::from_der(der).and_then(|info| {
        let mut reader = SliceReader::new(info.value())?;
        AlgorithmIdentifierRef::decode(&mut reader)
    });
    let Ok(method) = method else { return false };
    let cipher = method.parameters.and_then(|schemes| {
        let mut reader = SliceReader::new(schemes.value()).ok()?;
        AnyRef::decode(&mut reader).ok()?;
        AlgorithmIdentifierRef::decode(&mut reader).ok()
    });
    let known = [
        pbes2::AES_128_CBC_OID,
        pbes2::AES_192_CBC_OID,
        pbes2::AES_256_CBC_OID,
    ];
    method.oid == pbes2::PBES2_OID && cipher.is_none_or(|cipher| known.contains(&cipher.oid))
}

fn check_cost(kdf: &pbes2::Kdf) -> Result<(), Error> {
    let what = match kdf {
        pbes2::Kdf::Pbkdf2(parameters) => match parameters.iteration_count {
            0 => {
                return Err(Error::Malformed {
                    what: "encrypted PKCS#8 key",
                });
            }
            1..=MAX_PBKDF2_ROUNDS => return Ok(()),
            _ => "more than 10,000,000 rounds of PBKDF2",
        },
        pbes2::Kdf::Scrypt(parameters) => {
            let (n, r) = (parameters.cost_parameter, parameters.block_size);
            let p = parameters.parallelization;
            if n < 2 || !n.is_power_of_two() || r == 0 || p == 0 {
                return Err(Error::Malformed {
                    what: "encrypted PKCS#8 key",
                });
            }
            let memory = n.checked_mul(128).and_then(|m| m.checked_mul(r.into()));
            let work = memory.and_then(|m| m.checked_mul(p.into()));
            match (memory, work) {
                (Some(..=MAX_SCRYPT_MEMORY), Some(..=MAX_SCRYPT_WORK)) => return Ok(()),
                (Some(..=MAX_SCRYPT_MEMORY), _) => "more than 1 GiB of work for scrypt",
                _ => "more than 256 MiB of memory for scrypt",
            }
        }
        _ => return Err(Error::UnsupportedSealing),
    };
    Err(Error::Costly { what })
}

/// Seals a PKCS#8 private key; returns an `EncryptedPrivateKeyInfo`.
pub(super) fn seal(
    der: &[u8],
    passphrase: &Passphrase,
    kdf: Kdf,
    salt: &[u8; 16],
    iv: [u8; 16],
) -> Result<Vec<u8>, Error> {
    if passphrase.expose().is_empty() {
        return Err(Error::EmptyPassphrase);
    }
    let failed = || Error::Library {
        doing: "sealing a key",
    };
    let parameters = parameters(kdf, salt, iv).ok_or_else(failed)?;
    // One block of room: padding is never empty and never more.
    let mut buffer = Zeroizing::new(vec![0; der.len() + 16]);
    buffer
        .get_mut(..der.len())
        .ok_or_else(failed)?
        .copy_from_slice(der);
    let ciphertext = parameters
        .encrypt_in_place(passphrase.expose(), &mut buffer, der.len())
        .map_err(|_| failed())?;
    let encrypted_data = OctetStringRef::new(ciphertext).map_err(|_| failed())?;
    EncryptedPrivateKeyInfoRef {
        encryption_algorithm: parameters.into(),
        encrypted_data,
    }
    .to_der()
    .map_err(|_| failed())
}

fn parameters(kdf: Kdf, salt: &[u8; 16], iv: [u8; 16]) -> Option<pbes2::Parameters> {
    let salt = pbes2::Salt::new(salt).ok()?;
    let kdf = match kdf {
        Kdf::Scrypt => pbes2::Kdf::Scrypt(pbes2::ScryptParams {
            salt,
            cost_parameter: SCRYPT_N,
            block_size: SCRYPT_R,
            parallelization: SCRYPT_P,
            key_length: None,
        }),
        Kdf::Pbkdf2 => pbes2::Kdf::Pbkdf2(pbes2::Pbkdf2Params {
            salt,
            iteration_count: PBKDF2_ROUNDS,
            key_length: None,
            prf: pbes2::Pbkdf2Prf::HmacWithSha256,
        }),
    };
    let encryption = pbes2::EncryptionScheme::Aes256Cbc { iv };
    Some(pbes2::Parameters { kdf, encryption })
}

#[cfg(test)]
mod tests;
