use std::fmt::Write as _;

use aws_lc_rs::hmac;

use super::{
    Message,
    sweep::{DEEP, swept},
};
use crate::secret::ClientSecret;

/// A symmetric API key, as Deribit's web form makes them: it signs with HMAC-SHA256.
///
/// An account's administrator may have one; the keys made here never are.
pub struct SymmetricKey(hmac::Key);

impl SymmetricKey {
    /// Prepares a secret for signing.
    pub fn new(secret: &ClientSecret) -> Self {
        let secret = secret.expose().as_bytes();
        swept::<_, DEEP>(|| Self(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    /// Signs a message; lower-case hex, as the documentation has it ("Authentication").
    pub fn sign_hex(&self, message: &Message) -> String {
        let tag = swept::<_, DEEP>(|| hmac::sign(&self.0, message.as_bytes()));
        tag.as_ref()
            .iter()
            .fold(String::with_capacity(64), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            })
    }
}

impl std::fmt::Debug for SymmetricKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SymmetricKey([redacted])")
    }
}
