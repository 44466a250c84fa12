//! A key as long as it lives: who it is, what it may be used for, and what is left of it.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    Denial, Held, Subject,
    clock::uptime,
    policy::{Bucket, Policy},
    tokens::Tokens,
    wire::Code,
};
use crate::signer::Signer;

/// A key, as long as it lives.
pub(super) struct Slot {
    pub(super) subject: Arc<Subject>,
    pub(super) pem: String,
    /// Whether signing waits for another program.
    pub(super) waits: bool,
    pub(super) policy: Policy,
    signer: RwLock<Result<Arc<dyn Signer>, Code>>,
    bucket: Option<Mutex<Bucket>>,
    pub(super) used: AtomicU64,
    pub(super) ends: Option<Duration>,
    pub(super) tokens: Tokens,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.subject.fmt(f)
    }
}

impl Slot {
    pub(super) fn new(held: Held, now: Duration) -> Self {
        let (public, identity) = (held.signer.public_key(), held.identity);
        let place = match &identity.endpoint {
            Some(endpoint) => format!("{} ({endpoint})", identity.network),
            None => identity.network.clone(),
        };
        Self {
            subject: Arc::new(Subject {
                fingerprint: public.fingerprint(),
                identity,
                place,
            }),
            pem: public.to_pem(),
            waits: held.signer.waits(),
            bucket: held.policy.rate.map(|rate| Bucket::new(rate, now).into()),
            // Of the lifetimes that can be written down, some are longer than a moment can say.
            ends: held
                .policy
                .lifetime
                .map(|lifetime| now.saturating_add(lifetime)),
            policy: held.policy,
            used: AtomicU64::new(0),
            tokens: Tokens::default(),
            signer: RwLock::new(Ok(held.signer)),
        }
    }

    pub(super) fn name(&self) -> &str {
        self.subject.identity.name.as_str()
    }

    pub(super) fn signer(&self) -> Result<Arc<dyn Signer>, Denial> {
        let signer = self.signer.read().unwrap_or_else(PoisonError::into_inner);
        match &*signer {
            Ok(signer) => Ok(Arc::clone(signer)),
            Err(code) => Err(gone(*code)),
        }
    }

    /// Takes the key out of memory; whoever is signing with it right now is the last.
    pub(super) fn drop_key(&self, why: Code) -> bool {
        let mut signer = self.signer.write().unwrap_or_else(PoisonError::into_inner);
        let was_there = signer.is_ok();
        if was_there {
            *signer = Err(why);
        }
        drop(signer);
        self.tokens.clear();
        was_there
    }

    /// Uses the key up by one, if its time, its uses and its rate allow it.
    pub(super) fn take(&self) -> Result<Arc<dyn Signer>, Denial> {
        let signer = self.signer()?;
        if self.bucket.is_none() && self.policy.uses.is_none() && self.ends.is_none() {
            return Ok(signer);
        }
        let now = uptime();
        if self.ends.is_some_and(|ends| ends <= now) {
            return Err(gone(Code::Expired));
        }
        if let Some(bucket) = &self.bucket {
            let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
            if !bucket.take(now) {
                return Err(Denial::new(Code::Rate, "this key is asked for too often"));
            }
        }
        if let Some(most) = self.policy.uses {
            let more = |used| (used < most).then_some(used + 1);
            let counted = self
                .used
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, more);
            counted.map_err(|_| gone(Code::UsedUp))?;
        }
        Ok(signer)
    }

    pub(super) fn is_used_up(&self) -> bool {
        let used = self.used.load(Ordering::SeqCst);
        self.policy.uses.is_some_and(|most| used >= most)
    }
}

fn gone(code: Code) -> Denial {
    let message = match code {
        Code::Expired => "the key's lifetime is over; it is not in memory any more",
        _ => "the key's uses are used up; it is not in memory any more",
    };
    Denial::new(code, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::{
        agent::Identity,
        key::{PrivateKey, Stamp, Timestamp},
        signer::{self, LocalSigner, Stamper},
    };

    #[derive(Debug)]
    struct Frozen;

    impl Stamper for Frozen {
        fn stamp(&self) -> Result<Stamp, signer::Error> {
            Ok(Stamp {
                timestamp: Timestamp(1_576_074_319_000),
                nonce: "1iqt2wls".parse().unwrap(),
            })
        }
    }

    fn slot(policy: Policy, now: Duration) -> Slot {
        let pem = include_bytes!("../../tests/data/keys/ed25519.rfc8032.pem");
        let key = PrivateKey::read(pem, None).unwrap();
        let held = Held {
            identity: Identity {
                name: "bot".parse().unwrap(),
                client_id: "wcVoQGam".into(),
                network: "test".into(),
                endpoint: None,
            },
            signer: Arc::new(LocalSigner::new(key, Frozen)),
            policy,
        };
        Slot::new(held, now)
    }

    #[test]
    fn a_lifetime_that_no_clock_can_say_does_not_end() {
        let now = uptime();
        let living = |lifetime| {
            let policy = Policy {
                lifetime: Some(lifetime),
                ..Policy::default()
            };
            slot(policy, now).take().is_ok()
        };
        assert!(living(Duration::from_secs(3600)) && !living(Duration::ZERO));
        let longest = humantime::parse_duration("18446744073709551615s").unwrap();
        assert!(living(longest) && living(Duration::MAX));
    }
}
