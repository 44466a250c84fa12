//! When a signature is made, and its nonce.

use std::{cell::RefCell, convert::Infallible, time::SystemTime};

use rand_core::{Rng, TryCryptoRng, TryRng, utils};

use super::context::rng;
use crate::{
    key::{Nonce, Stamp, Timestamp},
    signer::{self, Stamper},
};

/// Moments from this machine's clock, nonces from its generator.
#[derive(Debug)]
pub(super) struct SystemStamper;

impl Stamper for SystemStamper {
    fn stamp(&self) -> Result<Stamp, signer::Error> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let millis = since.ok().and_then(|t| u64::try_from(t.as_millis()).ok());
        Ok(Stamp {
            timestamp: Timestamp(millis.ok_or(signer::Error::Clock)?),
            nonce: AHEAD.with_borrow_mut(Nonce::random),
        })
    }
}

thread_local! {
    static AHEAD: RefCell<Ahead> = const { RefCell::new(Ahead(Vec::new())) };
}

/// The system's generator, asked for sixteen nonces at once: asking takes a tenth of the time of an
/// Ed25519 signature. It is for what is sent in the clear, and not for secrets.
#[derive(Debug)]
struct Ahead(Vec<u8>);

impl TryRng for Ahead {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        utils::next_word_via_fill(self)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        utils::next_word_via_fill(self)
    }

    fn try_fill_bytes(&mut self, room: &mut [u8]) -> Result<(), Infallible> {
        if self.0.len() < room.len() {
            // Kept only when it is drawn: there is no nonce in zeros.
            let mut drawn = vec![0; room.len().max(512)];
            rng().fill_bytes(&mut drawn);
            self.0 = drawn;
        }
        let left = self.0.len() - room.len();
        if let Some(drawn) = self.0.get(left..) {
            room.copy_from_slice(drawn);
        }
        self.0.truncate(left);
        Ok(())
    }
}

impl TryCryptoRng for Ahead {}
