//! Who decides: is the key there, may it be used for this, now, once more?

use std::{fmt, sync::Arc, time::Duration};

use super::{
    Decision, Denial, Held, Ledger, Logins,
    clock::uptime,
    lock::Lock,
    policy::{Operation, RestMethod},
    slot::Slot,
    wire::{self, Code, Request},
};

mod operations;

use operations::Empty;

/// The agent: its keys, its lock, and who it reports to.
pub struct Agent {
    keys: Vec<Slot>,
    lock: Lock,
    logins: Box<dyn Logins>,
    ledger: Box<dyn Ledger>,
    started: Duration,
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent")
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

/// What follows an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Next {
    /// The next request.
    Request,
    /// The agent's end.
    Stop,
}

impl Agent {
    /// Takes keys in, and randomness to salt the passphrase of the lock with.
    pub fn new(
        keys: Vec<Held>,
        logins: Box<dyn Logins>,
        ledger: Box<dyn Ledger>,
        salt: [u8; 32],
    ) -> Self {
        let now = uptime();
        Self {
            keys: keys.into_iter().map(|held| Slot::new(held, now)).collect(),
            lock: Lock::new(salt),
            logins,
            ledger,
            started: now,
        }
    }

    /// Tells whether the answer may have to wait for another program, or for a punishment's end.
    pub(super) fn waits_for(&self, request: &Request<'_>) -> bool {
        match request {
            Request::Token { .. } | Request::Unlock(_) => true,
            Request::Auth { key, .. } | Request::Rest { key, .. } => {
                self.find(key).is_ok_and(|key| key.waits)
            }
            Request::List { .. } | Request::Status | Request::Lock(_) | Request::Shutdown => false,
        }
    }

    /// Answers one request. `out` has room for an answer, and holds one afterwards.
    pub(super) fn answer(&self, request: &Request<'_>, out: &mut Vec<u8>) -> Next {
        let action = request.action();
        let mut used = None;
        let mut find = |name| self.find(name).inspect(|key| used = Some(*key));
        let done = match request {
            Request::Auth { key, scope } => self.auth(find(key), *scope, out),
            Request::Token { key, scope } => self.token(find(key), *scope, out),
            Request::Rest {
                key,
                method,
                path,
                body,
            } => self.rest(find(key), (method, path, body), out),
            Request::List { key } => self.open().and_then(|()| self.list(*key, out)),
            Request::Status => self.status(out),
            Request::Lock(passphrase) => self.shut(passphrase, out),
            Request::Unlock(passphrase) => self.unlock(passphrase, out),
            Request::Shutdown => {
                // It ends, written down or not: nothing is safer than no key.
                let _ = self.note(action, None, None, "done");
                wire::write_done(out, Empty {})
            }
        };
        if let Err(denial) = done {
            self.refuse(action, used, &denial, out);
        }
        // The last use was this one, whatever came of it: the key goes now, not when somebody asks
        // again.
        if let Some(key) = used.filter(|key| key.is_used_up()) {
            self.forget(key, Code::UsedUp);
        }
        if *request == Request::Shutdown {
            Next::Stop
        } else {
            Next::Request
        }
    }

    /// Writes a refusal as an answer, and down.
    pub(super) fn refuse_line(&self, denial: &Denial, out: &mut Vec<u8>) {
        self.refuse("agent request", None, denial, out);
    }

    fn refuse(&self, action: &'static str, key: Option<&Slot>, denial: &Denial, out: &mut Vec<u8>) {
        // There is nothing to hold back when a refusal cannot be written down.
        let _ = self.note(action, key, None, denial.code.outcome());
        wire::write_refused(out, denial);
        if let Some(key) = key.filter(|_| denial.code == Code::Expired) {
            self.forget(key, Code::Expired);
        }
    }

    /// Writes down that somebody was not let in.
    pub(super) fn turned_away(&self, why: Code) {
        let _ = self.note("agent connection", None, None, why.outcome());
    }

    /// Drops the keys whose time is over.
    pub(super) fn look_at_the_clock(&self) {
        let now = uptime();
        for key in &self.keys {
            if key.ends.is_some_and(|ends| ends <= now) {
                self.forget(key, Code::Expired);
            }
        }
    }

    /// Drops all keys and tokens.
    pub(super) fn close(&self) {
        for key in &self.keys {
            key.drop_key(Code::Expired);
        }
    }

    fn forget(&self, key: &Slot, why: Code) {
        if key.drop_key(why) {
            let outcome = if why == Code::Expired {
                "done: expired"
            } else {
                "done: used_up"
            };
            let _ = self.note("agent forget", Some(key), None, outcome);
        }
    }

    fn note(
        &self,
        action: &'static str,
        key: Option<&Slot>,
        detail: Option<&RestMethod>,
        outcome: &'static str,
    ) -> Result<(), Denial> {
        let decision = Decision {
            action,
            detail: detail.cloned(),
            key: key.map(|key| Arc::clone(&key.subject)),
            outcome,
        };
        self.ledger.record(decision).map_err(|_| {
            Denial::new(
                Code::Audit,
                "the audit log cannot be written, and without it nothing is signed",
            )
        })
    }

    fn find(&self, name: &str) -> Result<&Slot, Denial> {
        let found = self.keys.iter().find(|key| key.name() == name);
        found.ok_or_else(|| Denial::new(Code::UnknownKey, "this agent holds no key of that name"))
    }

    fn open(&self) -> Result<(), Denial> {
        if self.lock.is_shut() {
            return Err(Denial::new(Code::Locked, "the agent is locked"));
        }
        Ok(())
    }

    /// Finds out whether a key may be used for something.
    fn allow<'a>(
        &self,
        key: Result<&'a Slot, Denial>,
        operation: Operation,
    ) -> Result<&'a Slot, Denial> {
        // Whoever finds it locked learns nothing about its keys.
        self.open()?;
        let key = key?;
        if !key.policy.allows(operation) {
            return Err(Denial::new(
                Code::Denied,
                format!(
                    "the policy of this key does not allow {}",
                    operation.as_str()
                ),
            ));
        }
        Ok(key)
    }
}
