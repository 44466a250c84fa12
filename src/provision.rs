//! The use cases: register a key, prove it, adopt one made elsewhere.
//!
//! Intent first, effect second, record last. The encrypted key and a journal entry are on disk
//! before the exchange hears of the key; a lost answer is settled by looking, never by sending
//! again; and a key counts as active once it has logged in with exactly the rights that were
//! meant.

use std::{collections::BTreeMap, path::Path};

use crate::{
    Error,
    exchange::{
        self, ApiKey, ClientId, EditApiKey, Exchange, GetTime, KeyId, LoginScope, Network, Outcome,
        Scope, Session, SessionName, Skew, Transport, Whitelisted,
    },
    key::KeyName,
    signer::Signer,
    store::{Generation, Intent, Moment, Operation, Registration, Specification, Stage, Store},
};

mod abandon;
mod adopt;
mod change;
mod desk;
mod difference;
mod inspect;
mod look;
mod register;
mod rotate;
mod sweep;
mod verdict;
mod widening;

pub use abandon::{Surrender, strike_out};
pub use adopt::{Adopted, Unseen, adopt};
pub use change::{Attempt, Change, merge};
pub use desk::{Desk, Operator, log_in};
pub use difference::{Content, Difference, differences, differences_of};
pub use inspect::as_it_is;
pub use look::Survey;
pub use rotate::{Hook, LONGEST_GRACE, Rotated};
pub use sweep::Swept;
pub use verdict::unfinished;
pub use widening::{gives_no_more, keeps, shuts_out};

/// What happened, for whoever tells the user.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The account's administrator has logged in.
    OperatorLoggedIn,
    /// The exchange is about to be told of the key, with these rights.
    Creating(&'a Scope),
    /// An answer was lost; the account is being searched for the key.
    Searching,
    /// The exchange has the key.
    Registered(&'a ApiKey),
    /// The exchange gave it another label than was asked for.
    LabelDiffers(&'a str),
    /// The exchange names an RSA key by another fingerprint than the documented rule gives.
    FingerprintDiffers,
    /// The key has logged in.
    Proven(&'a Scope),
    /// Scope and whitelist have been set together.
    Granted(&'a Scope, &'a [Whitelisted]),
    /// The key cannot log in from here, as its whitelist has it.
    NotFromHere,
    /// Another generation is in use.
    Switched(Generation),
    /// A generation that an earlier rotation superseded is about to be removed.
    Clearing(Generation),
    /// So many keys of the account cannot be read.
    Withheld(usize),
    /// A generation that cannot be read is left as it is.
    Illegible(Generation, &'a crate::store::Error),
    /// What there is of a removed key here lies in the trash.
    Buried(&'a Path),
    /// A key may not log in any more.
    Disabled(&'a ClientId),
    /// One of many keys was disabled, or was not, for a reason.
    Swept(&'a ApiKey, Option<&'a Error>),
    /// So many keys remain that are disabled one after another.
    OneByOne(usize),
}

/// What came of it.
#[derive(Debug)]
pub struct Outcomes {
    /// What the exchange has.
    pub registration: Registration,
    /// What a login was granted; nothing where the whitelist keeps this host out.
    pub granted: Option<Scope>,
}

/// Evidence that a key has logged in with the rights that were meant.
#[derive(Debug)]
pub struct Proven {
    granted: Scope,
}

impl Proven {
    /// Returns what was granted.
    pub const fn granted(&self) -> &Scope {
        &self.granted
    }
}

/// One registration on its way: the account's desk, the journal, and somebody who listens.
pub struct Work<'a, T> {
    /// The keystore.
    pub store: &'a Store,
    /// Where the account is managed.
    pub desk: Desk<'a, T>,
    /// Who is told what happened.
    pub tell: Box<dyn FnMut(Event<'_>) + 'a>,
    /// The clock.
    pub now: fn() -> Moment,
    /// Whose id is whose, as far as this run has seen; ids mean nothing in another account.
    pub seen: BTreeMap<KeyId, ClientId>,
}

impl<T> std::fmt::Debug for Work<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

/// Proves a key by a signed login that must grant exactly what was asked for.
///
/// # Errors
/// [`Error::ScopeDiffers`], and those of the login.
pub async fn prove<T: Transport>(
    exchange: &Exchange<T>,
    client_id: &ClientId,
    signer: &dyn Signer,
    asked: &Scope,
) -> Result<(Session, Proven), Error> {
    let session = SessionName::ours();
    let scope = LoginScope {
        areas: Some(asked),
        session: Some(&session),
    };
    let operator = Operator::Key {
        client_id: client_id.clone(),
        signer,
    };
    let session = log_in(exchange, &operator, &scope).await?;
    if session.scope != *asked {
        return Err(Error::ScopeDiffers {
            asked: asked.clone(),
            granted: session.scope,
        });
    }
    let granted = session.scope.clone();
    Ok((session, Proven { granted }))
}

/// Returns by how much a clock, in milliseconds since the Unix epoch, differs from the exchange's;
/// nothing where it wants a second factor to tell.
///
/// # Errors
/// Those of the exchange.
pub async fn clock_skew<T: Transport>(
    exchange: &Exchange<T>,
    ours: u64,
) -> Result<Option<Skew>, Error> {
    let said = exchange.call(exchange::Authority::Nobody, &GetTime {});
    Ok(match said.await? {
        Outcome::Done(theirs) => Some(Skew::between(ours, theirs)),
        Outcome::Challenged(_) => None,
    })
}

/// Makes sure that the exchange can be told in one request what a key is to be, before anything is
/// made: its rights and its whitelist are given together.
///
/// # Errors
/// [`exchange::Error::TooLarge`].
pub fn must_fit(spec: &Specification) -> Result<(), exchange::Error> {
    exchange::must_fit(&EditApiKey {
        id: KeyId(u64::MAX),
        max_scope: &spec.scope,
        name: &spec.label,
        enabled: true,
        enabled_features: &spec.features,
        ip_whitelist: &spec.whitelist,
    })
}

/// Prepares the journal entry of a registration.
pub fn intend(
    operation: Operation,
    name: &KeyName,
    generation: Generation,
    network: &Network,
    spec: Specification,
    now: Moment,
) -> Intent {
    Intent {
        version: crate::store::Version,
        operation,
        name: name.clone(),
        generation,
        place: network.into(),
        spec,
        started: now,
        fingerprint: None,
        stage: Stage::Planned,
        issued: None,
        succession: None,
    }
}
