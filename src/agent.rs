//! The signing agent: holds keys for other programs, and signs what things mean, never bytes.
//!
//! A signature does not say what it is for: the texts of a login and of a REST request can be made
//! the same by whoever chooses the login's data. So a caller names an operation; text, moment and
//! nonce are the agent's. What `docs/agent-protocol.md` does not name cannot be asked.
//!
//! A thread for each processor attends to whoever speaks: a signature is a matter of microseconds,
//! and to wake a thread of its own for each caller would cost as many.

use std::{fmt, sync::Arc, time::Duration};

use serde::Serialize;

use crate::{
    key::{Fingerprint, KeyName},
    secret::AccessToken,
    signer::Signer,
};

mod client;
mod clock;
mod desk;
mod lock;
mod policy;
mod rest;
mod serve;
mod slot;
mod socket;
mod tokens;
mod wire;

pub use client::{AgentSigner, Client, ClientError, HeldKey, Token};
pub use desk::Agent;
pub use policy::{Operation, Policy, PolicyError, Rate, RestMethod};
pub use serve::{CONNECTIONS, Limits, WAIT, serve};
pub use socket::{Bound, SocketError, bind};
pub use wire::{Code, LONGEST_LINE, VERSION};

/// Who a key is: all of it public.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its name here.
    pub name: KeyName,
    /// Names it at login.
    pub client_id: String,
    /// Its network: `sandbox`, `test`, `prod` or `custom`.
    pub network: String,
    /// The base address of a custom network.
    pub endpoint: Option<String>,
}

/// A key that is handed to the agent, already open.
#[derive(Debug)]
pub struct Held {
    /// Who it is.
    pub identity: Identity,
    /// What signs.
    pub signer: Arc<dyn Signer>,
    /// What for.
    pub policy: Policy,
}

/// Who brings access tokens, so that the agent itself speaks to no network.
pub trait Logins: fmt::Debug + Send + Sync {
    /// Writes a scope out in the one form that it is asked for in, or the key's own ceiling where
    /// none was asked for.
    ///
    /// # Errors
    /// [`Code::Malformed`] for what is no scope, [`Code::Denied`] for more than the policy allows.
    fn scope(&self, key: &KeyName, asked: Option<&str>) -> Result<String, Denial>;

    /// Logs in and returns a token for exactly this scope, in this session.
    ///
    /// # Errors
    /// [`Code::Login`] with a reason.
    fn log_in(
        &self,
        key: &KeyName,
        signer: &dyn Signer,
        scope: &str,
        session: &str,
    ) -> Result<Granted, Denial>;
}

/// A token of the exchange.
#[derive(Debug)]
pub struct Granted {
    /// The token.
    pub access_token: AccessToken,
    /// How long it lives.
    pub expires_in: Duration,
    /// What it allows.
    pub scope: String,
}

/// Who writes decisions down. Nothing is signed that could not be handed to it.
pub trait Ledger: fmt::Debug + Send + Sync {
    /// Takes a decision in, before its answer is sent.
    ///
    /// # Errors
    /// [`Unwritable`] when the log cannot be written; the agent then refuses.
    fn record(&self, decision: Decision) -> Result<(), Unwritable>;
}

/// The audit log cannot be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Unwritable;

/// One decision, without a secret and without a word of the caller's.
#[derive(Clone, Debug)]
pub struct Decision {
    /// What was asked: `agent auth`, `agent rest`, and so on.
    pub action: &'static str,
    /// The REST method that was signed.
    pub detail: Option<RestMethod>,
    /// The key, if it is one that is held.
    pub key: Option<Arc<Subject>>,
    /// `done`, `refused: CODE` or `failed: CODE`.
    pub outcome: &'static str,
}

/// The key that a decision is about.
#[derive(Debug)]
pub struct Subject {
    /// Who it is.
    pub identity: Identity,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// Its network, and the base address where that has no name.
    pub place: String,
}

/// Why there is no result.
#[derive(Clone, Debug, Serialize)]
pub struct Denial {
    /// For programs.
    pub code: Code,
    /// For people.
    pub message: String,
    /// What kind of failure a login ended with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Denial {
    /// Says why.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            reason: None,
        }
    }

    /// Says what kind of failure it was.
    pub fn because(mut self, reason: &str) -> Self {
        self.reason = Some(reason.into());
        self
    }
}
