//! Who decides: is the key there, may it be used for this, now, once more?

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use serde::Serialize;

use super::{
    Decision, Denial, Held, Ledger, Logins, Subject,
    clock::uptime,
    lock::Lock,
    policy::{Bucket, Operation, Policy, RestMethod},
    rest,
    tokens::Tokens,
    wire::{self, AuthParams, AuthRequest, Code, Request, Text, VERSION},
};
use crate::{
    key::Purpose,
    signer::{Signed, Signer},
};

/// The scheme of a signed request, as `exchange` writes it.
const SCHEME: &str = "deri-hmac-sha256";
/// The longest token that fits into an answer with room to spare.
const LONGEST_TOKEN: usize = 8 * 1024;

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

/// A key, as long as it lives.
struct Slot {
    subject: Arc<Subject>,
    pem: String,
    policy: Policy,
    signer: RwLock<Result<Arc<dyn Signer>, Code>>,
    bucket: Option<Mutex<Bucket>>,
    used: AtomicU64,
    ends: Option<Duration>,
    tokens: Tokens,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.subject.fmt(f)
    }
}

impl Slot {
    fn new(held: Held, now: Duration) -> Self {
        let public = held.signer.public_key();
        Self {
            subject: Arc::new(Subject {
                fingerprint: public.fingerprint(),
                identity: held.identity,
            }),
            pem: public.to_pem(),
            bucket: held.policy.rate.map(|rate| Bucket::new(rate, now).into()),
            ends: held.policy.lifetime.map(|lifetime| now + lifetime),
            policy: held.policy,
            used: AtomicU64::new(0),
            tokens: Tokens::default(),
            signer: RwLock::new(Ok(held.signer)),
        }
    }

    fn name(&self) -> &str {
        self.subject.identity.name.as_str()
    }

    fn signer(&self) -> Result<Arc<dyn Signer>, Denial> {
        let signer = self.signer.read().unwrap_or_else(PoisonError::into_inner);
        match &*signer {
            Ok(signer) => Ok(Arc::clone(signer)),
            Err(code) => Err(gone(*code)),
        }
    }

    /// Takes the key out of memory; whoever is signing with it right now is the last.
    fn drop_key(&self, why: Code) -> bool {
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
    fn take(&self) -> Result<Arc<dyn Signer>, Denial> {
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

    fn is_used_up(&self) -> bool {
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

    /// Answers one line. `out` has room for an answer, and holds one afterwards.
    pub(super) fn answer(&self, line: &[u8], out: &mut Vec<u8>) -> Next {
        let request = match Request::read(line) {
            Ok(request) => request,
            Err(denial) => {
                self.refuse("agent request", None, &denial, out);
                return Next::Request;
            }
        };
        let action = request.action();
        let done = match &request {
            Request::Auth { key, scope } => self.auth(key, *scope, out),
            Request::Token { key, scope } => self.token(key, *scope, out),
            Request::Rest {
                key,
                method,
                path,
                body,
            } => self.rest(key, (method, path, body), out),
            Request::List { key } => self.open().and_then(|()| self.list(*key, out)),
            Request::Status => self.status(out),
            Request::Lock(passphrase) => self.shut(passphrase, out),
            Request::Unlock(passphrase) => self.unlock(passphrase, out),
            Request::Shutdown => self
                .note(action, None, None, "done")
                .and_then(|()| wire::write_done(out, Empty {})),
        };
        let key = match &request {
            Request::Auth { key, .. } | Request::Token { key, .. } | Request::Rest { key, .. } => {
                self.find(key).ok()
            }
            _ => None,
        };
        if let Err(denial) = done {
            self.refuse(action, key, &denial, out);
            return Next::Request;
        }
        // The last use was this one: the key goes now, not when somebody asks again.
        if let Some(key) = key.filter(|key| key.is_used_up()) {
            self.forget(key, Code::UsedUp);
        }
        if request == Request::Shutdown {
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

    /// Finds a key that may be used for something.
    fn key_for(&self, name: &str, operation: Operation) -> Result<&Slot, Denial> {
        self.open()?;
        let key = self.find(name)?;
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

    fn auth(&self, name: &str, scope: Option<&str>, out: &mut Vec<u8>) -> Result<(), Denial> {
        let key = self.key_for(name, Operation::Auth)?;
        let identity = &key.subject.identity;
        let scope = match scope {
            Some(scope) => Some(self.logins.scope(&identity.name, Some(scope))?),
            None => None,
        };
        let signer = key.take()?;
        self.note("agent auth", Some(key), None, "done")?;
        let signed = sign(
            &*signer,
            &Purpose::Login {
                data: String::new(),
            },
        )?;
        wire::write_done(
            out,
            AuthRequest {
                jsonrpc: "2.0",
                id: 1,
                method: "public/auth",
                params: AuthParams {
                    grant_type: "client_signature",
                    client_id: &identity.client_id,
                    timestamp: signed.stamp.timestamp.0,
                    nonce: signed.stamp.nonce.as_str(),
                    signature: Text(&signed.signature),
                    data: "",
                    scope: scope.as_deref(),
                },
            },
        )
    }

    fn rest(
        &self,
        name: &str,
        (method, path, body): (&str, &str, &str),
        out: &mut Vec<u8>,
    ) -> Result<(), Denial> {
        let key = self.key_for(name, Operation::Rest)?;
        let (purpose, listed) = rest::decide(&key.policy, method, path, body)?;
        let signer = key.take()?;
        self.note("agent rest", Some(key), Some(listed), "done")?;
        let signed = sign(&*signer, &purpose)?;
        let (stamp, client_id) = (&signed.stamp, &key.subject.identity.client_id);
        wire::write_done(
            out,
            RestSigned {
                authorization: Text(format_args!(
                    "{SCHEME} id={client_id},ts={},nonce={},sig={}",
                    stamp.timestamp, stamp.nonce, signed.signature
                )),
                timestamp: stamp.timestamp.0,
                nonce: stamp.nonce.as_str(),
                signature: Text(&signed.signature),
            },
        )
    }

    fn token(&self, name: &str, scope: Option<&str>, out: &mut Vec<u8>) -> Result<(), Denial> {
        let key = self.key_for(name, Operation::Token)?;
        let key_name = &key.subject.identity.name;
        let scope = self.logins.scope(key_name, scope)?;
        let place = key.tokens.place(&scope)?;
        let signer = key.take()?;
        self.note("agent token", Some(key), None, "done")?;
        let fresh = place.token(|scope, session| {
            let granted = self.logins.log_in(key_name, &*signer, scope, session)?;
            if granted.access_token.expose().len() > LONGEST_TOKEN {
                return Err(Denial::new(Code::Login, "the exchange's token is too long"));
            }
            Ok(granted)
        })?;
        // Locked or expired while the exchange was asked.
        if let Err(denial) = self.open().and_then(|()| key.signer().map(drop)) {
            drop(fresh);
            key.tokens.clear();
            return Err(denial);
        }
        let Some((granted, left)) = fresh.look() else {
            return Err(Denial::new(Code::Internal, "there is no token"));
        };
        let ends = SystemTime::now() + left.min(Duration::from_secs(u64::from(u32::MAX)));
        wire::write_done(
            out,
            TokenAnswer {
                access_token: granted.access_token.expose(),
                token_type: "bearer",
                expires_in: left.as_secs(),
                expires_at: Text(humantime::format_rfc3339_seconds(ends)),
                scope: &granted.scope,
            },
        )
    }

    fn list(&self, only: Option<&str>, out: &mut Vec<u8>) -> Result<(), Denial> {
        let now = uptime();
        let keys = self.keys.iter().filter(|key| key.signer().is_ok());
        let keys = keys.filter(|key| only.is_none_or(|only| only == key.name()));
        let keys = keys.map(|key| {
            let identity = &key.subject.identity;
            let operations = [Operation::Auth, Operation::Token, Operation::Rest];
            KeyAnswer {
                name: identity.name.as_str(),
                fingerprint: Text(key.subject.fingerprint),
                public_key: &key.pem,
                client_id: &identity.client_id,
                network: &identity.network,
                endpoint: identity.endpoint.as_deref(),
                operations: operations
                    .into_iter()
                    .filter(|operation| key.policy.allows(*operation))
                    .map(Operation::as_str)
                    .collect(),
                rest: key.policy.rest.iter().map(RestMethod::as_str).collect(),
                expires_in: key.ends.map(|ends| ends.saturating_sub(now).as_secs()),
                uses_left: key
                    .policy
                    .uses
                    .map(|most| most.saturating_sub(key.used.load(Ordering::SeqCst))),
            }
        });
        let answer = ListAnswer {
            version: VERSION,
            keys: keys.collect(),
        };
        wire::write_list(out, answer)
    }

    fn status(&self, out: &mut Vec<u8>) -> Result<(), Denial> {
        let keys = self.keys.iter().filter(|key| key.signer().is_ok()).count();
        let answer = StatusAnswer {
            version: VERSION,
            locked: self.lock.is_shut(),
            keys,
            pid: std::process::id(),
            uptime: uptime().saturating_sub(self.started).as_secs(),
        };
        wire::write_done(out, answer)
    }

    fn shut(&self, passphrase: &str, out: &mut Vec<u8>) -> Result<(), Denial> {
        self.lock.shut(passphrase)?;
        for key in &self.keys {
            key.tokens.clear();
        }
        // Locked it stays, written down or not.
        self.note("agent lock", None, None, "done")?;
        wire::write_done(out, Empty {})
    }

    fn unlock(&self, passphrase: &str, out: &mut Vec<u8>) -> Result<(), Denial> {
        self.lock.open(passphrase)?;
        self.note("agent unlock", None, None, "done")?;
        wire::write_done(out, Empty {})
    }
}

fn sign(signer: &dyn Signer, purpose: &Purpose) -> Result<Signed, Denial> {
    let signed = signer.sign(purpose);
    signed.map_err(|_| Denial::new(Code::Internal, "the key did not sign"))
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
#[serde(bound = "A: fmt::Display")]
struct RestSigned<'a, A: fmt::Display> {
    authorization: Text<A>,
    timestamp: u64,
    nonce: &'a str,
    signature: Text<&'a crate::key::Signature>,
}

#[derive(Serialize)]
#[serde(bound = "D: fmt::Display")]
struct TokenAnswer<'a, D: fmt::Display> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: u64,
    expires_at: Text<D>,
    scope: &'a str,
}

#[derive(Serialize)]
struct ListAnswer<'a> {
    version: u32,
    keys: Vec<KeyAnswer<'a>>,
}

#[derive(Serialize)]
struct KeyAnswer<'a> {
    name: &'a str,
    fingerprint: Text<crate::key::Fingerprint>,
    public_key: &'a str,
    client_id: &'a str,
    network: &'a str,
    endpoint: Option<&'a str>,
    operations: Vec<&'static str>,
    rest: Vec<&'a str>,
    expires_in: Option<u64>,
    uses_left: Option<u64>,
}

#[derive(Serialize)]
struct StatusAnswer {
    version: u32,
    locked: bool,
    keys: usize,
    pid: u32,
    uptime: u64,
}
