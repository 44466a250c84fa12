//! The bare signature of aws-lc-rs, for comparison.

use aws_lc_rs::{rand::SystemRandom, rsa, signature};
use base64::prelude::{BASE64_STANDARD, Engine};

/// A key of the library's own.
pub(crate) enum Raw {
    Ed25519(signature::Ed25519KeyPair),
    Rsa(rsa::KeyPair, SystemRandom),
}

impl Raw {
    /// Reads PKCS#8 in clear, in PEM.
    pub(crate) fn read(pem: &str) -> Self {
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = BASE64_STANDARD.decode(body).unwrap();
        match signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der) {
            Ok(pair) => Self::Ed25519(pair),
            Err(_) => Self::Rsa(rsa::KeyPair::from_pkcs8(&der).unwrap(), SystemRandom::new()),
        }
    }

    /// Signs and does nothing else.
    pub(crate) fn sign(&self, text: &[u8]) -> Vec<u8> {
        match self {
            Self::Ed25519(pair) => pair.sign(text).as_ref().to_vec(),
            Self::Rsa(pair, random) => {
                let mut made = vec![0; pair.public_modulus_len()];
                let scheme = &signature::RSA_PKCS1_SHA256;
                pair.sign(scheme, random, text, &mut made).unwrap();
                made
            }
        }
    }
}
