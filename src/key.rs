//! Keys, the formats they come in, and the texts they sign. Bytes in, bytes out.
//!
//! Ed25519 keys are made by `ed25519-dalek`, RSA keys by `aws-lc-rs`; every signature is made
//! by aws-lc. The `rsa` crate sees public halves only (RUSTSEC-2023-0071).

use std::{fmt, str::FromStr};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256},
};
use rand_core::CryptoRng;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::secret::{Ed25519Secret, Passphrase};

mod error;
mod fingerprint;
mod import;
mod message;
mod name;
mod openssh;
mod pem;
mod pkcs8;
mod public;
mod ssh;
mod sweep;
mod symmetric;

pub use error::Error;
pub use fingerprint::Fingerprint;
pub(crate) use fingerprint::hex;
pub use message::{Message, Nonce, Purpose, Signature, Stamp, Timestamp};
pub use name::KeyName;
pub use pkcs8::Kdf;
pub use public::PublicKey;
pub use ssh::SshKey;
pub(crate) use ssh::string as ssh_string;
pub use symmetric::SymmetricKey;

use import::Found;
use sweep::{DEEP, SHALLOW, swept};

/// The longest input that is looked at; the largest honest one has a tenth of it.
pub const MAX_INPUT: usize = 64 * 1024;

/// A private key that Deribit takes the public half of.
pub struct PrivateKey {
    pair: Pair,
    public: PublicKey,
}

/// Ready to sign: parsing a key costs more than signing with it.
enum Pair {
    Ed25519(Ed25519Secret),
    Rsa(RsaKeyPair),
}

impl Pair {
    fn sign(&self, bytes: &[u8]) -> Result<Signature, Error> {
        match self {
            Self::Ed25519(secret) => secret.sign(bytes).map(Signature::new),
            Self::Rsa(pair) => {
                let mut made = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), bytes, &mut made)
                    .ok()
                    .map(|()| Signature::new(made))
            }
        }
        .ok_or(Error::Library { doing: "signing" })
    }
}

impl PrivateKey {
    /// Makes a new key.
    ///
    /// An RSA key has 65537 as its public exponent; its randomness is that of `aws-lc`, which
    /// takes none from outside.
    ///
    /// # Errors
    /// [`Error::Library`] when the generation fails.
    pub fn generate(algorithm: Algorithm, rng: &mut impl CryptoRng) -> Result<Self, Error> {
        let size = match algorithm {
            Algorithm::Ed25519 => {
                let mut seed = Zeroizing::new([0; 32]);
                rng.fill_bytes(&mut *seed);
                return swept::<_, DEEP>(|| Self::from_seed(&seed));
            }
            Algorithm::Rsa2048 => KeySize::Rsa2048,
            Algorithm::Rsa3072 => KeySize::Rsa3072,
            Algorithm::Rsa4096 => KeySize::Rsa4096,
        };
        swept::<_, DEEP>(|| {
            let pair = RsaKeyPair::generate(size);
            Self::from_rsa(pair.map_err(|_| Error::Library {
                doing: "generating a key",
            })?)
        })
    }

    /// Reads a private key in any format that is known here.
    ///
    /// PKCS#8 (v1, v2; plain, or PBES2 with PBKDF2 or scrypt and AES-CBC), PKCS#1 and OpenSSH;
    /// in PEM, also on one line with `\n` written out, or in DER. A passphrase that is not
    /// needed is not looked at.
    ///
    /// # Errors
    /// [`Error::Sealed`] without the passphrase it needs, [`Error::WrongPassphrase`] with
    /// another, [`Error::Costly`] when opening it would take too much time or memory; every
    /// kind of foreign, weak or damaged input has a variant of its own.
    pub fn read(input: &[u8], passphrase: Option<&Passphrase>) -> Result<Self, Error> {
        swept::<_, DEEP>(|| match import::recognise(input)? {
            Found::Pkcs8(der) => pkcs8::read(&der),
            Found::Pkcs1(der) => Self::from_rsa(pkcs8::rsa(&der)?),
            Found::OpenSsh(blob) => openssh::read(&blob, passphrase),
            Found::Sealed(der) => {
                let sealed = pkcs8::Sealed::read(&der)?;
                sealed.open(passphrase.ok_or(Error::Sealed)?)
            }
        })
    }

    /// Says whether reading the input takes a passphrase; derives no key from it.
    ///
    /// # Errors
    /// As [`read`](Self::read), as far as can be told without opening the key.
    pub fn is_sealed(input: &[u8]) -> Result<bool, Error> {
        swept::<_, DEEP>(|| match import::recognise(input)? {
            Found::Pkcs8(_) | Found::Pkcs1(_) => Ok(false),
            Found::OpenSsh(blob) => openssh::is_sealed(&blob),
            Found::Sealed(der) => pkcs8::Sealed::read(&der).map(|_| true),
        })
    }

    /// Seals the key: PKCS#8 v1 in PBES2 with AES-256-CBC, as `openssl pkey` reads it.
    ///
    /// # Errors
    /// [`Error::EmptyPassphrase`]; [`Error::Library`] when the means fail.
    pub fn to_sealed_pem(
        &self,
        passphrase: &Passphrase,
        kdf: Kdf,
        rng: &mut impl CryptoRng,
    ) -> Result<Zeroizing<String>, Error> {
        let (mut salt, mut iv) = ([0; 16], [0; 16]);
        rng.fill_bytes(&mut salt);
        rng.fill_bytes(&mut iv);
        swept::<_, DEEP>(|| {
            let sealed = pkcs8::seal(self.to_der()?.as_ref(), passphrase, kdf, &salt, iv)?;
            Ok(pem::encode("ENCRYPTED PRIVATE KEY", &sealed))
        })
    }

    /// Writes the key for everybody to read: PKCS#8 v1 in PEM.
    ///
    /// # Errors
    /// [`Error::Library`] when the means fail.
    pub fn to_plain_pem(&self) -> Result<Zeroizing<String>, Error> {
        swept::<_, DEEP>(|| Ok(pem::encode("PRIVATE KEY", self.to_der()?.as_ref())))
    }

    /// Returns the public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs a message: pure Ed25519, or RSA PKCS#1 v1.5 with SHA-256.
    ///
    /// # Errors
    /// [`Error::Library`] when the library fails; it checks its RSA signatures.
    pub fn sign(&self, message: &Message) -> Result<Signature, Error> {
        let sign = || self.pair.sign(message.as_bytes());
        match self.pair {
            Pair::Ed25519(_) => swept::<_, SHALLOW>(sign),
            Pair::Rsa(_) => swept::<_, DEEP>(sign),
        }
    }

    fn from_seed(seed: &[u8; 32]) -> Result<Self, Error> {
        let signing = ed25519_dalek::SigningKey::from_bytes(seed);
        let point = signing.verifying_key();
        // The two libraries must agree on the public half: signing with another gives the seed away.
        Ed25519KeyPair::from_seed_and_public_key(seed, point.as_bytes()).map_err(|_| {
            Error::Invalid {
                algorithm: "Ed25519",
            }
        })?;
        let halves = Zeroizing::new(signing.to_keypair_bytes());
        let secret = Ed25519Secret::new(&halves).ok_or(Error::Library {
            doing: "keeping a key",
        })?;
        Ok(Self {
            pair: Pair::Ed25519(secret),
            public: PublicKey::from_point(point.as_bytes())?,
        })
    }

    fn from_rsa(pair: RsaKeyPair) -> Result<Self, Error> {
        Ok(Self {
            public: PublicKey::from_pkcs1(pair.public_key().as_ref())?,
            pair: Pair::Rsa(pair),
        })
    }

    /// PKCS#8 v1: version 2, which `ed25519-dalek` writes, is unreadable to OpenSSL and Python.
    fn to_der(&self) -> Result<Pkcs8V1Der<'static>, Error> {
        let failed = || Error::Library {
            doing: "encoding a key",
        };
        match &self.pair {
            Pair::Ed25519(secret) => Ed25519KeyPair::from_seed_unchecked(secret.seed())
                .map_err(|_| failed())?
                .as_der(),
            Pair::Rsa(pair) => pair.as_der(),
        }
        .map_err(|_| failed())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PrivateKey")
            .field(&self.public.fingerprint())
            .finish()
    }
}

/// The kinds of key that Deribit takes and that can be made here.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Algorithm {
    /// Small, fast, recommended by Deribit.
    Ed25519,
    /// RSA with 2048 bits.
    Rsa2048,
    /// RSA with 3072 bits.
    Rsa3072,
    /// RSA with 4096 bits.
    Rsa4096,
}

impl Algorithm {
    /// All of them, smallest first.
    pub const ALL: [Self; 4] = [Self::Ed25519, Self::Rsa2048, Self::Rsa3072, Self::Rsa4096];

    fn as_str(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::Rsa2048 => "rsa-2048",
            Self::Rsa3072 => "rsa-3072",
            Self::Rsa4096 => "rsa-4096",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut all = Self::ALL.into_iter();
        all.find(|algorithm| algorithm.as_str() == text)
            .ok_or_else(|| Error::Algorithm(text.into()))
    }
}

impl Serialize for Algorithm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Algorithm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
