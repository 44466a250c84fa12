//! What a caller may ask for, and the answer to each.

use std::{
    fmt,
    sync::atomic::Ordering,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use super::Agent;
use crate::{
    agent::{
        Denial,
        clock::uptime,
        policy::{Operation, RestMethod},
        rest,
        slot::Slot,
        wire::{self, Code, Login, Text, VERSION},
    },
    key::Purpose,
    signer::{Signed, Signer},
};

/// The scheme of a signed request, as `exchange` writes it.
const SCHEME: &str = "deri-hmac-sha256";
/// The longest token that fits into an answer with room to spare.
const LONGEST_TOKEN: usize = 8 * 1024;

/// The last second of 9999, after 1970: what RFC 3339 can write.
const LAST_SECOND: Duration = Duration::from_secs(253_402_300_799);

impl Agent {
    pub(super) fn auth(
        &self,
        key: Result<&Slot, Denial>,
        scope: Option<&str>,
        out: &mut Vec<u8>,
    ) -> Result<(), Denial> {
        let key = self.allow(key, Operation::Auth)?;
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
        let login = Login {
            client_id: &identity.client_id,
            signed: &signed,
            scope: scope.as_deref(),
        };
        wire::write_login(out, &login)
    }

    pub(super) fn rest(
        &self,
        key: Result<&Slot, Denial>,
        (method, path, body): (&str, &str, &str),
        out: &mut Vec<u8>,
    ) -> Result<(), Denial> {
        let key = self.allow(key, Operation::Rest)?;
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

    pub(super) fn token(
        &self,
        key: Result<&Slot, Denial>,
        scope: Option<&str>,
        out: &mut Vec<u8>,
    ) -> Result<(), Denial> {
        let key = self.allow(key, Operation::Token)?;
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
        // Locked or expired while the exchange was asked. Used up it may be meanwhile: by this.
        let still = match key.signer() {
            Err(denial) if denial.code != Code::UsedUp => Err(denial),
            _ => self.open(),
        };
        if let Err(denial) = still {
            drop(fresh);
            key.tokens.clear();
            return Err(denial);
        }
        let Some((granted, left)) = fresh.look() else {
            return Err(Denial::new(Code::Internal, "there is no token"));
        };
        let ends = SystemTime::now() + left.min(Duration::from_secs(u64::from(u32::MAX)));
        // Of a clock that is out of all bounds the nearest moment that can be written.
        let ends = ends.clamp(UNIX_EPOCH, UNIX_EPOCH + LAST_SECOND);
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

    pub(super) fn list(&self, only: Option<&str>, out: &mut Vec<u8>) -> Result<(), Denial> {
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

    pub(super) fn status(&self, out: &mut Vec<u8>) -> Result<(), Denial> {
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

    pub(super) fn shut(&self, passphrase: &str, out: &mut Vec<u8>) -> Result<(), Denial> {
        self.lock.shut(passphrase)?;
        for key in &self.keys {
            key.tokens.clear();
        }
        // Locked it stays, written down or not.
        self.note("agent lock", None, None, "done")?;
        wire::write_done(out, Empty {})
    }

    pub(super) fn unlock(&self, passphrase: &str, out: &mut Vec<u8>) -> Result<(), Denial> {
        let note = || self.note("agent unlock", None, None, "done");
        self.lock.open(passphrase, note)?;
        wire::write_done(out, Empty {})
    }
}

fn sign(signer: &dyn Signer, purpose: &Purpose) -> Result<Signed, Denial> {
    let signed = signer.sign(purpose);
    signed.map_err(|_| Denial::new(Code::Internal, "the key did not sign"))
}

#[derive(Serialize)]
pub(super) struct Empty {}

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
