//! The desk at which an account is managed: one login, one second factor, many calls.

use std::time::Duration;

use super::clock_skew;
use crate::{
    Error,
    exchange::{
        self, Attempts, Authority, ClientId, Exchange, Kind, Login, LoginScope, Method, Outcome,
        SecondFactor, Session, SessionName, Skew, Transport,
    },
    secret::ClientSecret,
    signer::{Signer, Stamper},
};

/// Who logs in, and with what.
#[derive(Clone, Debug)]
pub enum Operator<'a> {
    /// An asymmetric key.
    Key {
        /// Its id.
        client_id: ClientId,
        /// Who signs with it.
        signer: &'a dyn Signer,
    },
    /// A symmetric key; its secret signs and stays here.
    Secret {
        /// Its id.
        client_id: ClientId,
        /// Its secret.
        secret: &'a ClientSecret,
        /// Where moments and nonces come from.
        stamper: &'a dyn Stamper,
    },
}

impl Operator<'_> {
    /// Returns the id under which it logs in.
    pub const fn client_id(&self) -> &ClientId {
        match self {
            Self::Key { client_id, .. } | Self::Secret { client_id, .. } => client_id,
        }
    }

    fn login<'s>(&'s self, scope: &LoginScope<'s>) -> Result<Login<'s>, Error> {
        Ok(match self {
            Self::Key { client_id, signer } => {
                Login::signed_by(*signer, client_id, String::new(), scope.clone())?
            }
            Self::Secret {
                client_id,
                secret,
                stamper,
            } => Login::with_secret(secret, client_id, &stamper.stamp()?, scope.clone())?,
        })
    }
}

/// Pauses before a login is tried again.
const PAUSES: [Duration; 2] = [Duration::from_millis(300), Duration::from_millis(900)];

/// Logs in. Tries again, with a fresh signature, when the exchange cannot be reached or says
/// "later"; never when it says no, as failed logins are limited.
///
/// # Errors
/// [`Error::Skew`] where the login was refused and the clocks disagree; else those of the
/// exchange and the signer.
pub async fn log_in<'s, T: Transport>(
    exchange: &Exchange<T>,
    operator: &'s Operator<'_>,
    scope: &LoginScope<'s>,
) -> Result<Session, Error> {
    let mut pauses = PAUSES.into_iter();
    loop {
        let login = operator.login(scope)?;
        let error = match exchange.call(Authority::Nobody, &login).await {
            Ok(Outcome::Done(session)) => {
                let skew = skew(exchange, &login);
                return Ok(Session { skew, ..session });
            }
            Ok(Outcome::Challenged(_)) => exchange::Error::NoSecondFactor {
                problem: "the login itself wants one, which the documentation does not foresee"
                    .into(),
            },
            Err(error) => error,
        };
        let later = match &error {
            exchange::Error::Unreachable { .. } | exchange::Error::Broken { .. } => true,
            exchange::Error::Refused(refusal) => matches!(refusal.kind(), Kind::Transient),
            _ => false,
        };
        match pauses.next() {
            Some(pause) if later => exchange.transport().pause(pause).await,
            _ if error.is_credentials() => return Err(explain(exchange, &login, error).await),
            _ => return Err(error.into()),
        }
    }
}

/// Returns by how much the clock that signed differs, by the exchange's answer.
fn skew<T: Transport>(exchange: &Exchange<T>, login: &Login<'_>) -> Option<Skew> {
    let Login::ClientSignature { timestamp, .. } = login else {
        return None;
    };
    Some(Skew::between(*timestamp, exchange.received()?))
}

/// Asks the exchange once what time it is, as it does not say whether the clock was the reason.
async fn explain<T: Transport>(
    exchange: &Exchange<T>,
    login: &Login<'_>,
    source: exchange::Error,
) -> Error {
    let Login::ClientSignature { timestamp, .. } = login else {
        return source.into();
    };
    match clock_skew(exchange, *timestamp).await {
        Ok(Some(skew)) if skew.is_harmful() => Error::Skew { skew, source },
        _ => source.into(),
    }
}

/// The desk at which an account is managed.
pub struct Desk<'a, T> {
    exchange: &'a Exchange<T>,
    operator: Operator<'a>,
    second: &'a mut dyn SecondFactor,
    session: Option<Session>,
}

impl<T> std::fmt::Debug for Desk<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk")
            .field("operator", &self.operator)
            .finish_non_exhaustive()
    }
}

impl<'a, T: Transport> Desk<'a, T> {
    /// Sits an operator down; nothing is sent yet.
    pub fn new(
        exchange: &'a Exchange<T>,
        operator: Operator<'a>,
        second: &'a mut dyn SecondFactor,
    ) -> Self {
        Self {
            exchange,
            operator,
            second,
            session: None,
        }
    }

    /// Returns who sits here.
    pub const fn operator(&self) -> &Operator<'a> {
        &self.operator
    }

    /// Lets somebody else sit down, who will have to log in.
    pub fn take_over(&mut self, operator: Operator<'a>) {
        self.operator = operator;
        self.session = None;
    }

    /// Returns the exchange.
    pub const fn exchange(&self) -> &'a Exchange<T> {
        self.exchange
    }

    /// Logs the operator in, unless that has happened.
    ///
    /// # Errors
    /// Those of [`log_in`].
    pub async fn log_in(&mut self) -> Result<(), Error> {
        if self.session.is_none() {
            let session = SessionName::ours();
            let scope = LoginScope {
                areas: None,
                session: Some(&session),
            };
            self.session = Some(log_in(self.exchange, &self.operator, &scope).await?);
        }
        Ok(())
    }

    /// Returns the operator's session, once there is one.
    pub const fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// Makes a private call, second factor included.
    ///
    /// Waiting for codes can outlive a token: when an older one is refused, which means that
    /// nothing was carried out, the operator logs in once more.
    ///
    /// # Errors
    /// Those of [`log_in`] and [`Exchange::confirm`].
    pub async fn call<M: Method>(&mut self, method: &M) -> Result<M::Reply, Error> {
        let mut fresh = self.session.is_none();
        let mut attempts = Attempts::default();
        loop {
            self.log_in().await?;
            let Some(session) = &self.session else {
                continue;
            };
            let who = Authority::Bearer(&session.access_token);
            let confirmed = self
                .exchange
                .confirm_within(who, method, self.second, &mut attempts);
            match confirmed.await {
                Err(exchange::Error::Refused(refusal))
                    if refusal.code == TOKEN_REFUSED && !fresh =>
                {
                    self.session = None;
                    fresh = true;
                }
                result => return Ok(result?),
            }
        }
    }
}

/// `unauthorized`: a wrong or expired token (Deribit, error codes).
pub(super) const TOKEN_REFUSED: i64 = 13009;
