use std::fmt;

use aws_lc_rs::{rsa::KeyPair as RsaKeyPair, signature::KeyPair as _};

use super::{
    Error, Message, Pair, PrivateKey, PublicKey, Signature,
    seclusion::{DEEP, SHALLOW, secluded, swept},
};
use crate::secret::{Locked, Residence};

/// A private key between two signatures, for as long as anybody likes: it lies in [`Locked`] pages.
///
/// What signing makes of it exists only while it signs. That costs an Ed25519 key nothing, and an
/// RSA key as much again as the signature or more, since it is parsed, prepared and blinded anew
/// each time: its form ready for use lies on aws-lc's own heap, which can be swapped out.
pub struct RestingKey {
    form: Form,
    bytes: Locked,
    public: PublicKey,
}

/// What the bytes are.
enum Form {
    /// The seed, then the public half.
    Ed25519,
    /// PKCS#8.
    Rsa,
}

impl RestingKey {
    /// Lays a key to rest; nothing else of it stays.
    ///
    /// # Errors
    /// [`Error::Memory`] and [`Error::Thread`] when the system has none left, [`Error::Library`]
    /// when the key cannot be encoded. Where no page can be locked there is no error:
    /// [`residence`](Self::residence) tells.
    pub fn new(key: PrivateKey) -> Result<Self, Error> {
        secluded(move || {
            let der = key.to_der()?;
            let (form, bytes) = match &key.pair {
                Pair::Ed25519(pair) => {
                    // RFC 8410, version 1: the seed comes last.
                    let seed = der.as_ref().last_chunk::<32>();
                    let seed = seed.ok_or(Error::Library {
                        doing: "encoding a key",
                    })?;
                    let parts = [seed.as_slice(), pair.public_key().as_ref()];
                    (Form::Ed25519, Locked::new(&parts))
                }
                Pair::Rsa(_) => (Form::Rsa, Locked::new(&[der.as_ref()])),
            };
            Ok(Self {
                form,
                bytes: bytes.map_err(Error::Memory)?,
                public: key.public,
            })
        })
    }

    /// Returns the public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Returns the kind of memory it lies in.
    pub const fn residence(&self) -> Residence {
        self.bytes.residence()
    }

    /// Signs a message: pure Ed25519, or RSA PKCS#1 v1.5 with SHA-256.
    ///
    /// # Errors
    /// [`Error::Library`] when the library fails; it checks its RSA signatures.
    pub fn sign(&self, message: &Message) -> Result<Signature, Error> {
        let failed = Error::Library { doing: "signing" };
        let text = message.as_bytes();
        match self.form {
            Form::Ed25519 => {
                let made = swept::<_, SHALLOW>(|| self.bytes.sign_ed25519(text));
                Ok(Signature::new(made.ok_or(failed)?))
            }
            Form::Rsa => swept::<_, DEEP>(|| {
                let pair = RsaKeyPair::from_pkcs8(self.bytes.expose());
                Pair::Rsa(pair.map_err(|_| failed)?).sign(text)
            }),
        }
    }
}

impl fmt::Debug for RestingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RestingKey")
            .field(&self.public.fingerprint())
            .finish()
    }
}
