use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeyPairComponents, PublicKeyComponents};
use crypto_bigint::{CheckedSub, NonZero, U4096};
use ssh_key::private::{KeypairData, RsaKeypair};
use zeroize::Zeroizing;

use super::{
    Error, PrivateKey,
    public::rsa_size,
    ssh::{self, number, string},
};
use crate::secret::Passphrase;

/// `ssh-keygen` makes 16 to 24 rounds; a thousand take seconds.
const MAX_BCRYPT_ROUNDS: u32 = 1024;

/// Reads an OpenSSH private key.
pub(super) fn read(blob: &[u8], passphrase: Option<&Passphrase>) -> Result<PrivateKey, Error> {
    let sealed = is_sealed(blob)?;
    let damaged = |_| Error::Malformed {
        what: "OpenSSH key",
    };
    let mut key = ssh_key::PrivateKey::from_bytes(blob).map_err(damaged)?;
    if sealed {
        let passphrase = passphrase.ok_or(Error::Sealed)?;
        key = key
            .decrypt(passphrase.expose())
            .map_err(|_| Error::WrongPassphrase)?;
    }
    match key.key_data() {
        KeypairData::Ed25519(pair) => {
            let key = PrivateKey::from_seed(&Zeroizing::new(pair.private.to_bytes()))?;
            // The file has three copies of the public half, and `ssh-key` compares only those.
            if key.public.has_bits(&pair.public.0) {
                Ok(key)
            } else {
                Err(Error::Mismatch)
            }
        }
        KeypairData::Rsa(pair) => PrivateKey::from_rsa(rsa(pair)?),
        _ => Err(Error::Unrecognised),
    }
}

/// Says whether the key takes a passphrase; refuses what could not be opened anyway.
pub(super) fn is_sealed(blob: &[u8]) -> Result<bool, Error> {
    let damaged = || Error::Malformed {
        what: "OpenSSH key",
    };
    let header = Header::parse(blob).ok_or_else(damaged)?;
    if header.keys != 1 {
        return Err(Error::Several);
    }
    if !matches!(header.algorithm, b"ssh-ed25519" | b"ssh-rsa") {
        return Err(ssh::refusal(header.algorithm));
    }
    match (header.cipher, header.kdf) {
        (b"none", b"none") => Ok(false),
        (b"none", _) | (_, b"none") => Err(damaged()),
        // `ssh-key` has it only with a feature, and says no more than that deciphering failed.
        (b"3des-cbc", _) => Err(Error::UnsupportedSealing),
        (_, b"bcrypt") => match header.rounds.ok_or_else(damaged)? {
            0 => Err(damaged()),
            1..=MAX_BCRYPT_ROUNDS => Ok(true),
            _ => Err(Error::Costly {
                what: "more than 1024 rounds of bcrypt",
            }),
        },
        _ => Err(Error::UnsupportedSealing),
    }
}

/// The part of the file that is in the clear (OpenSSH, PROTOCOL.key).
struct Header<'a> {
    cipher: &'a [u8],
    kdf: &'a [u8],
    rounds: Option<u32>,
    keys: u32,
    algorithm: &'a [u8],
}

impl<'a> Header<'a> {
    fn parse(blob: &'a [u8]) -> Option<Self> {
        let rest = &mut blob.strip_prefix(b"openssh-key-v1\0")?;
        let (cipher, kdf, mut options) = (string(rest)?, string(rest)?, string(rest)?);
        let rounds = string(&mut options).and_then(|_salt| number(&mut options));
        let keys = number(rest)?;
        let mut public = string(rest)?;
        let algorithm = string(&mut public)?;
        Some(Self {
            cipher,
            kdf,
            rounds,
            keys,
            algorithm,
        })
    }
}

/// OpenSSH leaves out d mod (p-1) and d mod (q-1).
///
/// The arithmetic is constant-time and on the stack, which the caller's thread wipes.
fn rsa(pair: &RsaKeypair) -> Result<RsaKeyPair, Error> {
    let invalid = || Error::Invalid { algorithm: "RSA" };
    let (public, private) = (pair.public(), pair.private());
    let n = public.n().as_positive_bytes().ok_or_else(invalid)?;
    let e = public.e().as_positive_bytes().ok_or_else(invalid)?;
    rsa_size(n, e)?;
    let d = private.d().as_positive_bytes().ok_or_else(invalid)?;
    let p = private.p().as_positive_bytes().ok_or_else(invalid)?;
    let q = private.q().as_positive_bytes().ok_or_else(invalid)?;
    let inverse = private.iqmp().as_positive_bytes().ok_or_else(invalid)?;
    let exponent = |prime: &[u8]| -> Option<Zeroizing<Vec<u8>>> {
        let less = wide(prime)?.checked_sub(&U4096::ONE).into_option()?;
        let less = NonZero::new(less).into_option()?;
        let bytes = Zeroizing::new(wide(d)?.rem(&less).to_be_bytes());
        Some(Zeroizing::new(bytes.as_ref().to_vec()))
    };
    RsaKeyPair::from_components(&KeyPairComponents {
        public_key: PublicKeyComponents { n, e },
        d,
        dP: exponent(p).ok_or_else(invalid)?.as_slice(),
        dQ: exponent(q).ok_or_else(invalid)?.as_slice(),
        qInv: inverse,
        p,
        q,
    })
    .map_err(|_| invalid())
}

fn wide(bytes: &[u8]) -> Option<U4096> {
    let mut padded = Zeroizing::new([0; U4096::BYTES]);
    let start = padded.len().checked_sub(bytes.len())?;
    padded.get_mut(start..)?.copy_from_slice(bytes);
    Some(U4096::from_be_slice(&*padded))
}
