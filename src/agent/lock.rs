//! The lock: what is asked for while it is shut is refused, until the passphrase is said again.

use std::{
    sync::{Mutex, PoisonError, RwLock},
    thread,
    time::Duration,
};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{Denial, wire::Code};

/// How long a wrong passphrase takes to be refused, one after the other.
const PENALTY: Duration = Duration::from_secs(1);

/// The lock of an agent.
pub(super) struct Lock {
    salt: [u8; 32],
    /// A salted digest: the passphrase itself is not kept.
    shut: RwLock<Option<Zeroizing<[u8; 32]>>>,
    /// Held by whoever tries a passphrase, so that guesses do not run side by side.
    trying: Mutex<()>,
}

impl Lock {
    /// Starts open.
    pub(super) fn new(salt: [u8; 32]) -> Self {
        Self {
            salt,
            shut: RwLock::new(None),
            trying: Mutex::new(()),
        }
    }

    fn digest(&self, passphrase: &str) -> Zeroizing<[u8; 32]> {
        let mut hash = Sha256::new();
        hash.update(self.salt);
        hash.update(passphrase.as_bytes());
        Zeroizing::new(hash.finalize().into())
    }

    /// Tells whether it is shut.
    pub(super) fn is_shut(&self) -> bool {
        let shut = self.shut.read().unwrap_or_else(PoisonError::into_inner);
        shut.is_some()
    }

    /// Shuts it with a passphrase.
    pub(super) fn shut(&self, passphrase: &str) -> Result<(), Denial> {
        if passphrase.is_empty() {
            return Err(Denial::new(Code::Malformed, "the passphrase is empty"));
        }
        let mut shut = self.shut.write().unwrap_or_else(PoisonError::into_inner);
        if shut.is_some() {
            return Err(Denial::new(Code::Locked, "the agent is locked already"));
        }
        *shut = Some(self.digest(passphrase));
        Ok(())
    }

    /// Opens it with the same passphrase, once that is written down.
    pub(super) fn open(
        &self,
        passphrase: &str,
        note: impl FnOnce() -> Result<(), Denial>,
    ) -> Result<(), Denial> {
        let _one_at_a_time = self.trying.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut shut = self.shut.write().unwrap_or_else(PoisonError::into_inner);
            match &*shut {
                None => return Err(Denial::new(Code::NotLocked, "the agent is not locked")),
                Some(held) if same(held, &self.digest(passphrase)) => {
                    note()?;
                    *shut = None;
                    return Ok(());
                }
                Some(_) => {}
            }
        }
        thread::sleep(PENALTY);
        Err(Denial::new(
            Code::WrongPassphrase,
            "that is not the passphrase it was locked with",
        ))
    }
}

/// Takes as long for a digest that differs early as for one that differs late.
fn same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    let pairs = one.iter().zip(other.iter());
    pairs.fold(0, |sum, (a, b)| std::hint::black_box(sum | (a ^ b))) == 0
}
