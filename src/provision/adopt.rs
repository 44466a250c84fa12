//! Adopting a key whose public half was pasted into the web form: a signed login is the proof.

use super::{Operator, Outcomes, log_in};
use crate::{
    Error,
    exchange::{
        self, ApiKey, Area, ClientId, Credential, Exchange, Level, ListApiKeys, LoginScope,
        SecondFactor, Session, SessionName, Transport,
    },
    signer::Signer,
    store::{Moment, Registration},
};

/// A key whose public half was pasted into the web form, and is bound now.
#[derive(Debug)]
pub struct Adopted {
    /// What came of it.
    pub outcomes: Outcomes,
    /// Why its id, label, whitelist and features are not known; nothing where they are.
    pub unseen: Option<Unseen>,
}

/// Why a key could not look itself up.
#[derive(Debug)]
pub enum Unseen {
    /// It may not look: that takes `account:read`.
    NoRight,
    /// The account does not list it.
    NotListed,
    /// It was not let, for want of a one-time code or for another reason.
    Refused(exchange::Error),
}

/// Binds a key whose public half was pasted into the web form.
///
/// A signed login is the proof. If the key may look, it looks itself up for its id, label,
/// whitelist and features, which can take a one-time code.
///
/// # Errors
/// Those of the login, [`Error::ForeignKey`] where the account shows this client id with another
/// key, and those of the look that say that something is wrong with the other end.
pub async fn adopt<T: Transport>(
    exchange: &Exchange<T>,
    client_id: &ClientId,
    signer: &dyn Signer,
    second: &mut dyn SecondFactor,
    now: Moment,
) -> Result<Adopted, Error> {
    let session = SessionName::ours();
    let scope = LoginScope {
        areas: None,
        session: Some(&session),
    };
    let operator = Operator::Key {
        client_id: client_id.clone(),
        signer,
    };
    let session = log_in(exchange, &operator, &scope).await?;
    let mut registration = Registration {
        network: exchange.network().clone(),
        client_id: client_id.clone(),
        key_id: None,
        label: String::new(),
        scope: session.scope.clone(),
        whitelist: Vec::new(),
        features: Vec::new(),
        enabled: true,
        retired: None,
        fingerprint_verified: false,
        proven: Some(now),
    };
    let unseen = match look_up(exchange, client_id, &session, second).await? {
        Err(unseen) => Some(unseen),
        Ok(key) => {
            let public = signer.public_key();
            if !key.is(public) {
                return Err(Error::ForeignKey {
                    ours: public.fingerprint(),
                    problem: "the account shows this client id with another key",
                });
            }
            registration.fingerprint_verified = matches!(key.credential, Credential::Fingerprint(theirs) if theirs == public.fingerprint());
            registration.key_id = Some(key.id);
            registration.label = key.name;
            registration.scope = key.max_scope;
            registration.whitelist = key.ip_whitelist.unwrap_or_default();
            registration.features = key.enabled_features.unwrap_or_default();
            None
        }
    };
    Ok(Adopted {
        outcomes: Outcomes {
            registration,
            granted: Some(session.scope),
        },
        unseen,
    })
}

/// Lets a key look for itself in the account. That it cannot is no reason to fail: the login is
/// the proof, the rest is a convenience.
async fn look_up<T: Transport>(
    exchange: &Exchange<T>,
    client_id: &ClientId,
    session: &Session,
    second: &mut dyn SecondFactor,
) -> Result<Result<ApiKey, Unseen>, Error> {
    use exchange::Error as E;
    // No code is spent on what would be refused.
    if session.scope.level(&Area::Account) == Level::None {
        return Ok(Err(Unseen::NoRight));
    }
    let who = exchange::Authority::Bearer(&session.access_token);
    match exchange.confirm(who, &ListApiKeys {}, second).await {
        Ok(keys) => Ok(keys
            .into_iter()
            .find(|key| key.client_id == *client_id)
            .ok_or(Unseen::NotListed)),
        Err(error @ (E::Interrupted | E::ForeignChallenge { .. } | E::WrongNetwork { .. })) => {
            Err(error.into())
        }
        Err(error) => Ok(Err(Unseen::Refused(error))),
    }
}
