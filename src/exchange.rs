//! The exchange: one call, one challenge, and what may be tried again.
//!
//! A [`Method`] is a value that knows its reply. [`Exchange::call`] sends it and says what came
//! back; [`Exchange::confirm`] also answers the second factor. The wire is a [`Transport`].

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    key::Purpose,
    secret::{AccessToken, OneTimeCode},
    signer::Signer,
};

mod api_key;
mod echo;
mod error;
#[cfg(feature = "https")]
mod https;
mod login;
mod methods;
mod network;
mod refusal;
mod rpc;
mod scope;
mod second_factor;
mod skew;
mod totp;
mod transport;

pub use api_key::{ApiKey, ClientId, Credential, Feature, KeyId, Setting, Whitelisted};
pub use error::Error;
#[cfg(feature = "https")]
pub use https::Https;
pub use login::{Login, LoginScope, Session, SessionName, authorization};
pub use methods::{
    AccessEvent, AccessLog, ChangeApiKeyName, ChangeScopeInApiKey, CreateApiKey, DisableApiKey,
    EditApiKey, EnableApiKey, GetAccessLog, GetTime, Health, LegibleApiKeys, ListApiKeys,
    ListLegibleApiKeys, Ping, RemoveApiKey, ResetApiKey, Status, Version,
};
pub use network::{Endpoint, Network};
pub use refusal::{Kind, Refusal};
pub use rpc::{encode, must_fit};
pub use scope::{Area, Level, PRESETS, Scope};
pub use second_factor::{Attempts, Challenge, SecondFactor, Unattended};
pub use skew::Skew;
pub use totp::Totp;
pub use transport::{Incoming, Outgoing, Transport};

/// May a call that failed be made again?
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Again {
    /// It only reads: again after a broken connection, and when the exchange says "later".
    Freely,
    /// It changes something to a stated value: again only when the exchange says "later".
    IfNotCarriedOut,
    /// It makes something: never.
    Never,
}

/// A call to the exchange: its parameters, its name, its reply.
pub trait Method: Serialize + Sync {
    /// The name, such as `private/list_api_keys`.
    const NAME: &'static str;
    /// Whether it may be made again when it failed.
    const AGAIN: Again;
    /// What a good answer holds.
    type Reply: DeserializeOwned + Send;
}

/// In whose name a call is made.
#[derive(Clone, Copy, Debug)]
pub enum Authority<'a> {
    /// A public method.
    Nobody,
    /// The holder of an access token.
    Bearer(&'a AccessToken),
    /// A key that signs this very request; uses up no session (Deribit, "Authentication").
    ///
    /// That this works for asymmetric keys rests on one public script; the default is a token.
    Signed {
        /// Whose key it is.
        client_id: &'a ClientId,
        /// Who signs.
        signer: &'a dyn Signer,
    },
}

/// What a call came to.
#[derive(Debug)]
pub enum Outcome<R> {
    /// The reply.
    Done(R),
    /// The exchange wants a second factor first; nothing was carried out.
    Challenged(Challenge),
}

/// Pauses before a call is made again.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(300),
    Duration::from_millis(900),
    Duration::from_millis(2_700),
];
/// The longest pause that an exchange may ask for before the call is given up.
const LONGEST_PAUSE: u64 = 10;

/// An exchange that can be called.
#[derive(Debug)]
pub struct Exchange<T> {
    transport: T,
    network: Network,
    next_id: AtomicU64,
    testnet: OnceLock<bool>,
    /// When the exchange got the last request, by its own clock: microseconds since 1970.
    us_in: AtomicU64,
}

impl<T: Transport> Exchange<T> {
    /// Speaks to `network` through `transport`.
    pub const fn new(transport: T, network: Network) -> Self {
        Self {
            transport,
            network,
            next_id: AtomicU64::new(1),
            testnet: OnceLock::new(),
            us_in: AtomicU64::new(0),
        }
    }

    /// Returns the network that this speaks to.
    pub const fn network(&self) -> &Network {
        &self.network
    }

    /// Returns the transport.
    pub const fn transport(&self) -> &T {
        &self.transport
    }

    /// Returns when the exchange got the last request, by its own clock, in milliseconds since
    /// the Unix epoch; nothing where it did not say.
    pub fn received(&self) -> Option<u64> {
        Some(self.us_in.load(Ordering::Relaxed) / 1000).filter(|received| *received > 0)
    }

    /// Makes one call and returns the reply, or the challenge that stands before it.
    ///
    /// # Errors
    /// Those of the transport, a [`Refusal`], or an answer that is none.
    pub async fn call<M: Method>(
        &self,
        who: Authority<'_>,
        method: &M,
    ) -> Result<Outcome<M::Reply>, Error> {
        let mut pauses = PAUSES.into_iter();
        loop {
            let error = match self.call_once(who, method, None).await {
                Ok(outcome) => return Ok(outcome),
                Err(error) => error,
            };
            let Some(pause) = pauses.next() else {
                return Err(error);
            };
            match (M::AGAIN, &error) {
                (Again::Freely, Error::Unreachable { .. } | Error::Broken { .. }) => {
                    self.transport.pause(pause).await
                }
                (Again::Freely | Again::IfNotCarriedOut, Error::Refused(refusal))
                    if matches!(refusal.kind(), Kind::Transient | Kind::RateLimit)
                        && refusal.wait.is_none_or(|wait| wait <= LONGEST_PAUSE) =>
                {
                    let asked = Duration::from_secs(refusal.wait.unwrap_or(0));
                    self.transport.pause(pause.max(asked)).await;
                }
                _ => return Err(error),
            }
        }
    }

    /// Makes one call and answers the second factor when one is demanded.
    ///
    /// A code is sent once. After a failed one the exchange wants a fresh challenge, so the call
    /// starts over; three tries, then it stops. A pause that the exchange asks for after too many
    /// failed codes is waited out, if whoever gives the codes has the patience.
    ///
    /// # Errors
    /// Those of [`call`](Self::call), and [`Error::NoSecondFactor`], [`Error::SecondFactorRefused`],
    /// [`Error::HardwareKeyOnly`], [`Error::ForeignChallenge`].
    pub async fn confirm<M: Method>(
        &self,
        who: Authority<'_>,
        method: &M,
        second: &mut dyn SecondFactor,
    ) -> Result<M::Reply, Error> {
        self.confirm_within(who, method, second, &mut Attempts::default())
            .await
    }

    /// As [`confirm`](Self::confirm), for a call that may have to be made anew: what was tried counts
    /// on.
    ///
    /// # Errors
    /// As [`confirm`](Self::confirm).
    pub async fn confirm_within<M: Method>(
        &self,
        who: Authority<'_>,
        method: &M,
        second: &mut dyn SecondFactor,
        attempts: &mut Attempts,
    ) -> Result<M::Reply, Error> {
        let mut reason = "challenged again".to_owned();
        let mut before = None;
        while let Some(left) = attempts.next() {
            let challenge = match self.call(who, method).await {
                Ok(Outcome::Done(reply)) => return Ok(reply),
                Ok(Outcome::Challenged(challenge)) => challenge,
                // A-AUTH: such a call may also be rejected outright; a fresh call brings a challenge.
                Err(Error::Refused(refusal)) if refusal.kind() == Kind::SecondFactor => {
                    reason = refusal.reason.unwrap_or_else(|| "no reason given".into());
                    continue;
                }
                Err(error) if left > 0 && waits_out(&error, second) => continue,
                Err(error) => return Err(error),
            };
            self.network
                .check_challenge(&challenge, self.testnet.get().copied())?;
            if !challenge.takes_a_code() {
                return Err(Error::HardwareKeyOnly { method: M::NAME });
            }
            // A failed code voids its challenge (Deribit, "Security keys").
            if before.replace(challenge.text().to_owned()).as_deref() == Some(challenge.text()) {
                reason = "the challenge of the refused code came again".into();
                break;
            }
            let code = match second.code(&challenge) {
                // What was wrong with the code before says more than that there is no other.
                Err(Error::NoSecondFactor { .. }) if attempts.made() > 1 => {
                    return Err(Error::SecondFactorRefused {
                        method: M::NAME,
                        attempts: attempts.made() - 1,
                        reason,
                    });
                }
                code => code?,
            };
            let answered = rpc::Answered {
                method,
                authorization_data: code.expose(),
                challenge: challenge.text(),
            };
            match self.call_once(who, &answered, Some(&code)).await {
                Ok(Outcome::Done(reply)) => return Ok(reply),
                Ok(Outcome::Challenged(_)) => {}
                Err(Error::Refused(refusal)) if refusal.kind() == Kind::SecondFactor => {
                    reason = refusal.reason.unwrap_or_else(|| "no reason given".into());
                }
                Err(error) if left > 0 && waits_out(&error, second) => before = None,
                Err(error) => return Err(error),
            }
        }
        Err(Error::SecondFactorRefused {
            method: M::NAME,
            attempts: attempts.made(),
            reason,
        })
    }

    async fn call_once<M: Method>(
        &self,
        who: Authority<'_>,
        method: &M,
        code: Option<&OneTimeCode>,
    ) -> Result<Outcome<M::Reply>, Error> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let body = encode(id, method)?;
        let authorization = match who {
            Authority::Nobody => None,
            Authority::Bearer(token) => Some(Zeroizing::new(format!("Bearer {}", token.expose()))),
            Authority::Signed { client_id, signer } => {
                Some(self.sign::<M>(client_id, signer, &body)?)
            }
        };
        let mut answer = self
            .transport
            .post(Outgoing {
                method: M::NAME,
                body,
                authorization,
            })
            .await?;
        let token = match who {
            // A login may be answered with the token that there is already.
            Authority::Bearer(token) if M::NAME.starts_with("private/") => Some(token.expose()),
            _ => None,
        };
        echo::mask(&mut answer.body, token, code.map(|code| code.expose()));
        let answer = rpc::decode::<M::Reply>(M::NAME, id, &answer)?;
        if let Some(said) = answer.testnet {
            self.network
                .check_testnet(said, self.testnet.get().copied())?;
            self.testnet.get_or_init(|| said);
        }
        self.us_in
            .store(answer.us_in.unwrap_or(0), Ordering::Relaxed);
        answer.outcome
    }

    fn sign<M: Method>(
        &self,
        client_id: &ClientId,
        signer: &dyn Signer,
        body: &[u8],
    ) -> Result<Zeroizing<String>, Error> {
        let endpoint = self.network.endpoint();
        let uri = endpoint.map_or_else(|| format!("/api/v2/{}", M::NAME), |e| e.path(M::NAME));
        let body = String::from_utf8_lossy(body).into_owned();
        let mut purpose = Purpose::Request {
            method: "POST".into(),
            uri,
            body,
        };
        let signed = signer.sign(&purpose);
        if let Purpose::Request { body, .. } = &mut purpose {
            body.zeroize();
        }
        let signed = signed?;
        Ok(Zeroizing::new(authorization(client_id, &signed)))
    }
}

/// Tells whether a call was put off for a while by too many failed codes, and the while is over.
fn waits_out(error: &Error, second: &mut dyn SecondFactor) -> bool {
    match error {
        Error::Refused(refusal) if refusal.kind() == Kind::SecondFactorLocked => {
            refusal.wait.is_some_and(|seconds| second.waits(seconds))
        }
        _ => false,
    }
}
