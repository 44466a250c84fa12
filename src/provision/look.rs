//! Looking at the account: what its list shows, and what it does not show yet.
//!
//! A list may lag behind what was done. What it does not show is looked for again before anything
//! is made of that, as long as a look costs no one-time code.

use std::{io, time::Duration};

use super::{Event, Work};
use crate::{
    Error,
    exchange::{
        ApiKey, Authority, ClientId, KeyId, LegibleApiKeys, ListApiKeys, ListLegibleApiKeys,
        Outcome, Transport,
    },
    key::KeyName,
    store::{self, Generation, Record},
};

/// Pauses before the account is looked at again.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_millis(1_500)];

/// The account's keys, as they were a moment ago.
#[derive(Debug)]
pub struct Survey(pub Vec<ApiKey>);

impl Survey {
    /// Finds a key by its id.
    pub fn by_id(&self, id: KeyId) -> Option<&ApiKey> {
        self.0.iter().find(|key| key.id == id)
    }

    /// Finds a key by the id it logs in with.
    pub fn by_client_id(&self, client_id: &ClientId) -> Option<&ApiKey> {
        self.0.iter().find(|key| key.client_id == *client_id)
    }

    /// Says why taking rights from a key would lock its owner out; nothing where it would not.
    pub fn lock_out(&self, target: &ApiKey, operator: &ClientId) -> Option<String> {
        if target.client_id == *operator {
            return Some(format!(
                "{} is the key that this is done with",
                target.client_id
            ));
        }
        let manages = |key: &&ApiKey| key.enabled != Some(false) && key.max_scope.manages_keys();
        let others = self
            .0
            .iter()
            .filter(manages)
            .filter(|key| key.id != target.id)
            .count();
        (manages(&target) && others == 0)
            .then(|| format!("{} is the last key that can manage keys", target.client_id))
    }
}

impl<T: Transport> Work<'_, T> {
    /// Returns the account's keys.
    ///
    /// # Errors
    /// Those of the exchange.
    pub async fn survey(&mut self) -> Result<Survey, Error> {
        let keys = self.desk.call(&ListApiKeys {}).await?;
        Ok(self.seen_now(keys))
    }

    /// Returns the account's keys as far as they can be read, and how many more there are: one odd
    /// entry does not keep the others enabled.
    ///
    /// # Errors
    /// Those of the exchange.
    pub async fn survey_legible(&mut self) -> Result<(Survey, usize), Error> {
        let LegibleApiKeys { keys, others } = self.desk.call(&ListLegibleApiKeys {}).await?;
        if others > 0 {
            (self.tell)(Event::Withheld(others));
        }
        Ok((self.seen_now(keys), others))
    }

    /// Returns the account's keys, with one among them that should be there, if it is.
    ///
    /// # Errors
    /// Those of the exchange.
    pub async fn survey_with(&mut self, client_id: &ClientId) -> Result<Survey, Error> {
        let survey = self.survey().await?;
        if survey.by_client_id(client_id).is_some() {
            return Ok(survey);
        }
        let later = self.look_until(|survey| survey.by_client_id(client_id).is_some());
        Ok(later.await?.unwrap_or(survey))
    }

    /// Looks at the account again until it shows something; nothing where it does not show it in
    /// time, or a look costs a code.
    ///
    /// # Errors
    /// Those of the exchange.
    pub(super) async fn look_until(
        &mut self,
        shows: impl Fn(&Survey) -> bool,
    ) -> Result<Option<Survey>, Error> {
        for pause in PAUSES {
            let exchange = self.desk.exchange();
            exchange.transport().pause(pause).await;
            let Some(session) = self.desk.session() else {
                return Ok(None);
            };
            let who = Authority::Bearer(&session.access_token);
            let Outcome::Done(keys) = exchange.call(who, &ListApiKeys {}).await? else {
                return Ok(None);
            };
            let survey = self.seen_now(keys);
            if shows(&survey) {
                return Ok(Some(survey));
            }
        }
        Ok(None)
    }

    /// Returns the record of a generation that an operation comes by and is not about: one that
    /// is damaged is left as it is, and is no reason to stop.
    ///
    /// # Errors
    /// Those of a disk that fails, as it may not the next time.
    pub(super) fn legible(
        &mut self,
        name: &KeyName,
        generation: Generation,
    ) -> Result<Option<Record>, Error> {
        use io::ErrorKind::{NotFound, PermissionDenied};
        match self.store.record_of(name, generation) {
            Ok(record) => Ok(Some(record)),
            Err(store::Error::Io { path, source })
                if !matches!(source.kind(), NotFound | PermissionDenied) =>
            {
                Err(store::Error::Io { path, source }.into())
            }
            Err(error) => {
                (self.tell)(Event::Illegible(generation, &error));
                Ok(None)
            }
        }
    }

    fn seen_now(&mut self, keys: Vec<ApiKey>) -> Survey {
        let names = keys.iter().map(|key| (key.id, key.client_id.clone()));
        self.seen = names.collect();
        Survey(keys)
    }

    /// Tells whether the account has a key, by both of its names.
    ///
    /// Looks only if this run has not seen the id yet: a look can cost a one-time code.
    ///
    /// # Errors
    /// [`Error::ForeignId`] where the id is another key's, and those of the exchange.
    pub async fn has(&mut self, id: KeyId, client_id: &ClientId) -> Result<bool, Error> {
        if !self.seen.contains_key(&id) && self.survey().await?.by_id(id).is_none() {
            self.look_until(|survey| survey.by_id(id).is_some()).await?;
        }
        match self.seen.get(&id) {
            None => Ok(false),
            Some(theirs) if theirs == client_id => Ok(true),
            Some(_) => Err(Error::ForeignId {
                id,
                ours: client_id.clone(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    fn key(id: u64, scope: &str, enabled: bool) -> ApiKey {
        let key =
            json!({"id": id, "client_id": id.to_string(), "max_scope": scope, "enabled": enabled});
        serde_json::from_value(key).unwrap()
    }

    #[test]
    fn only_the_operator_and_the_last_key_that_manages_keys_lock_their_owner_out() {
        let (manages, trades) = ("account:read_write", "trade:read_write");
        for (target, other, locks_out) in [
            (key(2, manages, true), key(3, manages, true), false),
            (key(2, manages, true), key(3, manages, false), true),
            (key(2, manages, true), key(3, trades, true), true),
            (key(2, manages, false), key(3, trades, true), false),
            (key(2, trades, true), key(3, trades, true), false),
            (key(1, trades, true), key(3, manages, true), true),
        ] {
            let survey = Survey(vec![key(target.id.0, manages, true), other]);
            let said = survey.lock_out(&target, &"1".parse().unwrap());
            assert_eq!(said.is_some(), locks_out, "{target:?}, {survey:?}");
        }
    }
}
