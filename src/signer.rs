//! Everything that can sign is a [`Signer`]: a key in this process, an agent that holds one.

use std::{fmt, io};

use crate::key::{self, Message, PrivateKey, PublicKey, Purpose, RestingKey, Signature, Stamp};

mod ssh_agent;

pub use ssh_agent::{SshAgentSigner, Wanted};

/// Something that can sign: a key at hand, or an agent that holds one.
///
/// The caller says what for; the signer chooses the moment and the nonce, so that nobody can
/// order a signature for later.
pub trait Signer: fmt::Debug + Send + Sync {
    /// Returns the public half of the key that signs.
    fn public_key(&self) -> &PublicKey;

    /// Signs for a purpose, now.
    ///
    /// This blocks: for microseconds (Ed25519) up to milliseconds (RSA, an agent).
    ///
    /// # Errors
    /// [`Error::Refused`] or [`Error::Unreachable`] when the signer is an agent,
    /// [`Error::Clock`] when there is no moment to sign for, [`Error::Key`] when the purpose
    /// is malformed or the signing fails.
    fn sign(&self, purpose: &Purpose) -> Result<Signed, Error>;
}

/// A signature and the moment it was made for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Signed {
    /// What goes into the request beside the signature.
    pub stamp: Stamp,
    /// The signature.
    pub signature: Signature,
}

/// Where moments and nonces come from.
pub trait Stamper: fmt::Debug + Send + Sync {
    /// Returns this moment and a nonce that was never used.
    ///
    /// # Errors
    /// [`Error::Clock`] when the clock cannot be read or shows a time before 1970.
    fn stamp(&self) -> Result<Stamp, Error>;
}

/// A private key in this process.
#[derive(Debug)]
pub struct LocalSigner<S> {
    key: PrivateKey,
    stamper: S,
}

impl<S> LocalSigner<S> {
    /// Takes a key in, and a source of moments.
    pub fn new(key: PrivateKey, stamper: S) -> Self {
        Self { key, stamper }
    }

    /// Returns the key.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }
}

impl<S: Stamper> Signer for LocalSigner<S> {
    fn public_key(&self) -> &PublicKey {
        self.key.public()
    }

    fn sign(&self, purpose: &Purpose) -> Result<Signed, Error> {
        let stamp = self.stamper.stamp()?;
        let signature = self.key.sign(&Message::new(&stamp, purpose)?)?;
        Ok(Signed { stamp, signature })
    }
}

/// A private key in this process that stays: in locked pages, and nowhere else.
#[derive(Debug)]
pub struct LockedSigner<S> {
    key: RestingKey,
    stamper: S,
}

impl<S> LockedSigner<S> {
    /// Takes a key in, and a source of moments.
    pub fn new(key: RestingKey, stamper: S) -> Self {
        Self { key, stamper }
    }

    /// Returns the key.
    pub fn key(&self) -> &RestingKey {
        &self.key
    }
}

impl<S: Stamper> Signer for LockedSigner<S> {
    fn public_key(&self) -> &PublicKey {
        self.key.public()
    }

    fn sign(&self, purpose: &Purpose) -> Result<Signed, Error> {
        let stamp = self.stamper.stamp()?;
        let signature = self.key.sign(&Message::new(&stamp, purpose)?)?;
        Ok(Signed { stamp, signature })
    }
}

/// Why there is no signature.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The agent's policy says no.
    #[error("the signer refused: {reason}")]
    Refused {
        /// In its words.
        reason: String,
    },
    /// The agent does not answer.
    #[error("the signer cannot be reached")]
    Unreachable(#[source] io::Error),
    /// No moment to sign for.
    #[error("the clock cannot be read")]
    Clock,
    /// The key does not sign this.
    #[error(transparent)]
    Key(#[from] key::Error),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::key::{Algorithm, Timestamp};

    #[derive(Debug)]
    struct Frozen(Option<Stamp>);

    impl Stamper for Frozen {
        fn stamp(&self) -> Result<Stamp, Error> {
            self.0.clone().ok_or(Error::Clock)
        }
    }

    #[test]
    fn the_signer_chooses_the_moment() {
        let mut rng = rand_core::UnwrapErr(getrandom::SysRng);
        let key = PrivateKey::generate(Algorithm::Ed25519, &mut rng).unwrap();
        let stamp = Stamp {
            timestamp: Timestamp(1_576_074_319_000),
            nonce: "1iqt2wls".parse().unwrap(),
        };
        let purpose = Purpose::Login {
            data: String::new(),
        };
        let signer: Box<dyn Signer> = Box::new(LocalSigner::new(key, Frozen(Some(stamp.clone()))));
        let signed = signer.sign(&purpose).unwrap();
        assert_eq!(signed.stamp, stamp);
        let message = Message::new(&stamp, &purpose).unwrap();
        signer
            .public_key()
            .verify(&message, &signed.signature)
            .unwrap();
    }

    #[test]
    fn a_key_at_rest_signs_as_it_did() {
        for algorithm in [Algorithm::Ed25519, Algorithm::Rsa2048] {
            let mut rng = rand_core::UnwrapErr(getrandom::SysRng);
            let stamp = Stamp {
                timestamp: Timestamp(1_576_074_319_000),
                nonce: "1iqt2wls".parse().unwrap(),
            };
            let purpose = Purpose::Login {
                data: String::new(),
            };
            let local = LocalSigner::new(
                PrivateKey::generate(algorithm, &mut rng).unwrap(),
                Frozen(Some(stamp.clone())),
            );
            // Both kinds of signature depend on nothing but key and message.
            let before = local.sign(&purpose).unwrap();
            let public = local.public_key().clone();
            let key = RestingKey::new(local.key).unwrap();
            let signer: Box<dyn Signer> = Box::new(LockedSigner::new(key, Frozen(Some(stamp))));
            assert_eq!(signer.public_key(), &public);
            assert_eq!(signer.sign(&purpose).unwrap(), before);
            assert_eq!(signer.sign(&purpose).unwrap(), before);
            let shown = format!("{signer:?}");
            assert!(shown.contains(&public.fingerprint().to_string()), "{shown}");
        }
    }

    #[test]
    fn without_a_clock_there_is_no_signature() {
        let mut rng = rand_core::UnwrapErr(getrandom::SysRng);
        let key = PrivateKey::generate(Algorithm::Ed25519, &mut rng).unwrap();
        let signer = LocalSigner::new(key, Frozen(None));
        let purpose = Purpose::Login {
            data: String::new(),
        };
        assert!(matches!(signer.sign(&purpose), Err(Error::Clock)));
    }
}
