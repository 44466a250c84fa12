//! Keys and signatures as SSH writes them (RFC 4251 section 5, RFC 4253 section 6.6).

use std::fmt;

use base64::prelude::{BASE64_STANDARD_NO_PAD, Engine};
use pkcs1::{RsaPublicKey, UintRef};
use pkcs8::der::Encode;
use sha2::{Digest, Sha256};

use super::{Algorithm, Error, PublicKey, Signature};

/// A public key as an ssh-agent lists it.
#[derive(Clone, Eq, PartialEq)]
pub struct SshKey {
    blob: Box<[u8]>,
    public: PublicKey,
}

impl SshKey {
    /// Reads a public key blob: `ssh-ed25519` (RFC 8709) or `ssh-rsa` (RFC 4253).
    ///
    /// # Errors
    /// [`Error::HardwareKey`] for a FIDO key, which signs more than it is given;
    /// [`Error::Unsupported`] for certificates and other algorithms, [`Error::Malformed`],
    /// and those of a weak key.
    pub fn read(blob: &[u8]) -> Result<Self, Error> {
        let damaged = || Error::Malformed {
            what: "SSH public key",
        };
        let mut rest = blob;
        let public = match string(&mut rest).ok_or_else(damaged)? {
            b"ssh-ed25519" => {
                let point = string(&mut rest).and_then(|bits| bits.try_into().ok());
                PublicKey::from_point(point.ok_or_else(damaged)?)?
            }
            b"ssh-rsa" => {
                let exponent = unsigned(&mut rest).ok_or_else(damaged)?;
                let modulus = unsigned(&mut rest).ok_or_else(damaged)?;
                let key = RsaPublicKey {
                    modulus: UintRef::new(modulus).map_err(|_| damaged())?,
                    public_exponent: UintRef::new(exponent).map_err(|_| damaged())?,
                };
                PublicKey::from_pkcs1(&key.to_der().map_err(|_| damaged())?)?
            }
            name => return Err(refusal(name)),
        };
        if !rest.is_empty() {
            return Err(damaged());
        }
        Ok(Self {
            blob: blob.into(),
            public,
        })
    }

    /// Returns the blob by which an ssh-agent knows the key.
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// Returns the public key.
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Returns the fingerprint that `ssh-add -l` shows of any key: `SHA256:` and base64.
    pub fn fingerprint_of(blob: &[u8]) -> String {
        let digest = BASE64_STANDARD_NO_PAD.encode(Sha256::digest(blob));
        format!("SHA256:{digest}")
    }

    /// Reads a signature of this key: `ssh-ed25519`, or `rsa-sha2-256` (RFC 8332).
    ///
    /// # Errors
    /// [`Error::Signature`] where it is none, or one over another hash.
    pub fn signature(&self, blob: &[u8]) -> Result<Signature, Error> {
        let mut rest = blob;
        let (Some(name), Some(bits)) = (string(&mut rest), string(&mut rest)) else {
            return Err(Error::Signature);
        };
        let (wanted, size) = match self.public.algorithm() {
            Algorithm::Ed25519 => (b"ssh-ed25519".as_slice(), 64),
            Algorithm::Rsa2048 => (b"rsa-sha2-256".as_slice(), 256),
            Algorithm::Rsa3072 => (b"rsa-sha2-256".as_slice(), 384),
            Algorithm::Rsa4096 => (b"rsa-sha2-256".as_slice(), 512),
        };
        // Some signers leave leading zeros out; a signature is as long as the modulus.
        let missing = usize::checked_sub(size, bits.len()).ok_or(Error::Signature)?;
        if name != wanted || !rest.is_empty() {
            return Err(Error::Signature);
        }
        let mut whole = vec![0; missing];
        whole.extend_from_slice(bits);
        Ok(Signature::new(whole))
    }
}

impl fmt::Debug for SshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.public, f)
    }
}

/// Says why a key with this name cannot be used.
pub(super) fn refusal(name: &[u8]) -> Error {
    let algorithm = match name {
        _ if name.starts_with(b"sk-") => return Error::HardwareKey,
        _ if name.ends_with(b"-cert-v01@openssh.com") => "SSH certificate",
        b"ssh-dss" => "DSA",
        b"ssh-ed448" => "Ed448",
        _ if name.starts_with(b"ecdsa-") => "EC",
        _ => "such SSH",
    };
    Error::Unsupported {
        algorithm: algorithm.into(),
    }
}

/// Takes a number off (RFC 4251, `uint32`).
pub(super) fn number(rest: &mut &[u8]) -> Option<u32> {
    let (bytes, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(u32::from_be_bytes(*bytes))
}

/// Takes a string of bytes off (RFC 4251, `string`).
pub(crate) fn string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(number(rest)?).ok()?;
    let (bytes, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(bytes)
}

/// Takes a number that is not negative off (RFC 4251, `mpint`).
fn unsigned<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let bytes = string(rest)?;
    match bytes {
        [0, tail @ ..] => Some(tail),
        [first, ..] if *first < 0x80 => Some(bytes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use base64::prelude::BASE64_STANDARD;

    use super::*;

    fn put(parts: &[&[u8]]) -> Vec<u8> {
        let length = |part: &[u8]| u32::try_from(part.len()).unwrap().to_be_bytes();
        let all = parts.iter();
        all.flat_map(|part| [length(part).to_vec(), part.to_vec()].concat())
            .collect()
    }

    /// Made by `ssh-keygen -t ed25519`; `ssh-keygen -l` shows the fingerprint.
    const BLOB: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIG/UuLXYoC0yniFF9vpjZBketunxOiR3znHxaSD4Ib7E";

    const SHOWN: &str = "SHA256:O6CX47usU60jsLmpcijrCnNU1YpG4W+X3ZfMvu2sNGE";

    #[test]
    fn a_key_is_read_from_what_an_agent_lists() {
        let blob = BASE64_STANDARD.decode(BLOB).unwrap();
        let Ok(key) = SshKey::read(&blob) else {
            panic!("{:?}", SshKey::read(&blob));
        };
        assert_eq!(key.public().algorithm(), Algorithm::Ed25519);
        assert_eq!(key.blob(), blob);
        assert_eq!(format!("{key:?}"), key.public().fingerprint().to_string());
        assert_eq!(SshKey::fingerprint_of(&blob), SHOWN);
        for cut in 0..blob.len() {
            assert!(SshKey::read(blob.get(..cut).unwrap()).is_err(), "{cut}");
        }
        assert!(SshKey::read(&[blob.as_slice(), &[0]].concat()).is_err());
    }

    #[test]
    fn keys_that_sign_something_else_are_refused_by_name() {
        let read = |name: &[u8]| SshKey::read(&put(&[name, &[1; 32]])).unwrap_err();
        let fido = read(b"sk-ssh-ed25519@openssh.com");
        assert!(matches!(fido, Error::HardwareKey), "{fido:?}");
        for (name, said) in [
            (
                b"ssh-ed25519-cert-v01@openssh.com".as_slice(),
                "SSH certificate",
            ),
            (b"ecdsa-sha2-nistp256", "EC"),
            (b"ssh-dss", "DSA"),
            (b"ssh-ed448", "Ed448"),
            (b"", "such SSH"),
        ] {
            let error = read(name);
            let Error::Unsupported { algorithm } = &error else {
                panic!("{error:?}");
            };
            assert_eq!(algorithm, said);
        }
        let short = SshKey::read(&put(&[b"ssh-rsa", &[1, 0, 1], &[1; 128]])).unwrap_err();
        assert!(matches!(short, Error::RsaSize { .. }), "{short:?}");
        let negative = SshKey::read(&put(&[b"ssh-rsa", &[1, 0, 1], &[0x80; 256]])).unwrap_err();
        assert!(matches!(negative, Error::Malformed { .. }), "{negative:?}");
    }

    #[test]
    fn signatures_of_another_kind_or_length_are_none() {
        let key = SshKey::read(&BASE64_STANDARD.decode(BLOB).unwrap()).unwrap();
        assert!(key.signature(&put(&[b"ssh-ed25519", &[7; 64]])).is_ok());
        for blob in [
            put(&[b"ssh-rsa", &[7; 64]]),
            put(&[b"ssh-ed25519", &[7; 65]]),
            put(&[b"ssh-ed25519", &[7; 64], b""]),
            put(&[b"ssh-ed25519"]),
            Vec::new(),
        ] {
            assert!(matches!(key.signature(&blob), Err(Error::Signature)));
        }
    }
}
