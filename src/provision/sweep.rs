//! Disabling many keys at once, for the day on which somebody else may have them.
//!
//! First all of them side by side and without a code; then, one after another, those that want a
//! code each or were told "later"; the operator's own key last; and in the end a look at the account.

use futures_util::{StreamExt, stream};

use super::{Event, Work};
use crate::{
    Error,
    exchange::{
        self, ApiKey, Authority, DisableApiKey, Kind, LegibleApiKeys, ListLegibleApiKeys, Outcome,
        Refusal, Transport,
    },
    store::Operation,
};

/// How many calls are under way at once: all keys of an account, as it holds eight. The limits are
/// twenty calls a second after a burst of a hundred, and 32 connections (Deribit, "Rate limits",
/// "Connection management").
const AT_ONCE: usize = 8;

/// What became of a key that was to be disabled.
#[derive(Debug)]
pub struct Swept<'k> {
    /// The key.
    pub key: &'k ApiKey,
    /// Why the exchange did not confirm it; nothing where it did.
    pub failure: Option<Error>,
    /// What the account showed of it in the end; nothing where nobody could look.
    pub enabled: Option<bool>,
}

impl<T: Transport> Work<'_, T> {
    /// Disables keys that a survey has just found; one that cannot be reached stops no other.
    ///
    /// Returns what became of each, in the order in which they were given.
    ///
    /// # Errors
    /// Those of the login; what happens to a key is said of that key.
    pub async fn sweep<'k>(&mut self, keys: &[&'k ApiKey]) -> Result<Vec<Swept<'k>>, Error> {
        self.desk.log_in().await?;
        let operator = self.desk.operator().client_id().clone();
        let (own, others): (Vec<&ApiKey>, Vec<&ApiKey>) =
            keys.iter().partition(|key| key.client_id == operator);
        let (mut swept, mut waiting) = self.side_by_side(&others).await;
        if !waiting.is_empty() {
            (self.tell)(Event::OneByOne(waiting.len()));
        }
        // After this one nothing can be disabled any more.
        waiting.extend(own);
        let mut given_up = false;
        for key in waiting {
            let failure = if given_up {
                Some(exchange::Error::Interrupted.into())
            } else {
                let done = self.set(key.id, &key.client_id, Operation::Disable).await;
                done.err()
            };
            given_up |= matches!(failure, Some(Error::Exchange(exchange::Error::Interrupted)));
            swept.push(self.told(key, failure));
        }
        self.look_again(&mut swept).await;
        let place = |swept: &Swept<'_>| keys.iter().position(|key| key.id == swept.key.id);
        swept.sort_by_key(place);
        Ok(swept)
    }

    /// Disables what can be disabled without a code, and returns what is to be asked for again.
    async fn side_by_side<'k>(&mut self, keys: &[&'k ApiKey]) -> (Vec<Swept<'k>>, Vec<&'k ApiKey>) {
        let exchange = self.desk.exchange();
        let (mut answers, mut again) = (Vec::new(), Vec::new());
        let Some(session) = self.desk.session() else {
            return (answers, keys.to_vec());
        };
        let who = Authority::Bearer(&session.access_token);
        let disable = |key: &'k ApiKey| async move {
            let answer = exchange.call(who, &DisableApiKey { id: key.id }).await;
            (key, answer)
        };
        let mut calls = stream::iter(keys.iter().copied().map(disable)).buffer_unordered(AT_ONCE);
        while let Some((key, answer)) = calls.next().await {
            let failure = match answer {
                Ok(Outcome::Done(said)) if said.id != key.id || said.client_id != key.client_id => {
                    Some(Error::ForeignId {
                        id: said.id,
                        ours: key.client_id.clone(),
                    })
                }
                Ok(Outcome::Done(said)) if said.enabled == Some(true) => {
                    Some(Error::SettingDiffers { what: "state" })
                }
                Ok(Outcome::Done(said)) if said.enabled == Some(false) => None,
                // Who does not say so is looked at, one after another.
                Ok(Outcome::Done(_) | Outcome::Challenged(_)) => {
                    again.push(key);
                    continue;
                }
                Err(exchange::Error::Refused(refusal)) if can_be_mended(&refusal) => {
                    again.push(key);
                    continue;
                }
                Err(error) => Some(error.into()),
            };
            (self.tell)(Event::Swept(key, failure.as_ref()));
            answers.push(Swept {
                key,
                failure,
                enabled: None,
            });
        }
        (answers, again)
    }

    fn told<'k>(&mut self, key: &'k ApiKey, failure: Option<Error>) -> Swept<'k> {
        (self.tell)(Event::Swept(key, failure.as_ref()));
        Swept {
            key,
            failure,
            enabled: None,
        }
    }

    /// Looks at the account once more, unless that costs a code or cannot be done.
    async fn look_again(&mut self, swept: &mut [Swept<'_>]) {
        let Some(session) = self.desk.session() else {
            return;
        };
        let who = Authority::Bearer(&session.access_token);
        let answer = self.desk.exchange().call(who, &ListLegibleApiKeys {});
        let Ok(Outcome::Done(LegibleApiKeys { keys, others })) = answer.await else {
            return;
        };
        for one in swept {
            let now = keys.iter().find(|key| key.client_id == one.key.client_id);
            // A key that is gone opens nothing, if it is gone.
            one.enabled = match now {
                Some(key) => key.enabled,
                None => (others == 0).then_some(false),
            };
            if one.enabled == Some(true) && one.failure.is_none() {
                one.failure = Some(Error::SettingDiffers { what: "state" });
            }
        }
    }
}

/// Tells whether a fresh login, a code or more patience may turn a refusal around: the exchange
/// ends the session of whoever asks too much (Deribit, error 10028).
fn can_be_mended(refusal: &Refusal) -> bool {
    matches!(
        refusal.kind(),
        Kind::SecondFactor | Kind::RateLimit | Kind::Transient
    ) || refusal.code == super::desk::TOKEN_REFUSED
}
