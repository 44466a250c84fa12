//! Changing a key that is there: read, merge, resend everything, look again.
//!
//! `edit_api_key` may reset whatever is left out, so nothing ever is (Deribit, edit_api_key).

use super::{
    Event, Survey, Work, as_it_is, differences_of,
    inspect::{shows_features, shows_whitelist},
    verdict::{is_final, says_nothing, unfinished},
    widening::gives_no_more,
};
use crate::{
    Error,
    exchange::{
        self, ApiKey, ClientId, DisableApiKey, EditApiKey, EnableApiKey, Feature, KeyId,
        RemoveApiKey, Scope, Transport, Whitelisted,
    },
    store::{Intent, Issued, Operation, Specification, Stage},
};

/// What is to be different; what is not named stays.
#[derive(Debug, Default)]
pub struct Change {
    /// Other rights.
    pub scope: Option<Scope>,
    /// Another label.
    pub label: Option<String>,
    /// Another whitelist.
    pub whitelist: Option<Vec<Whitelisted>>,
    /// Addresses to add.
    pub add: Vec<Whitelisted>,
    /// Addresses to take out.
    pub remove: Vec<Whitelisted>,
    /// Other features.
    pub features: Option<Vec<Feature>>,
}

/// Returns what a key is to be after a change: all of it.
pub fn merge(is: &Specification, change: &Change) -> Specification {
    let whitelist = change.whitelist.as_ref().unwrap_or(&is.whitelist);
    let mut whitelist: Vec<Whitelisted> = whitelist.iter().chain(&change.add).cloned().collect();
    whitelist.retain(|address| !change.remove.contains(address));
    if change.whitelist.is_some() || !change.add.is_empty() || !change.remove.is_empty() {
        whitelist.sort_unstable();
        whitelist.dedup();
    }
    let is = is.clone();
    Specification {
        algorithm: is.algorithm,
        label: change.label.clone().unwrap_or(is.label),
        scope: change.scope.clone().unwrap_or(is.scope),
        whitelist,
        features: change.features.clone().unwrap_or(is.features),
    }
}

/// Why a change did not come to its end.
enum Stopped {
    /// The exchange said no to it for good.
    Refused(Error),
    /// It may have been carried out, or still can be.
    Midway(Error),
}

impl<E: Into<Error>> From<E> for Stopped {
    fn from(error: E) -> Self {
        Self::Midway(error.into())
    }
}

/// Sorts what came back from the one call that changes something.
///
/// After an earlier attempt only a key that is gone settles it: this operator may be refused
/// what another one has had done.
fn stopped(error: Error, attempt: Attempt) -> Stopped {
    let refused = is_final(&error) && !says_nothing(&error);
    if is_gone(&error) || (refused && attempt == Attempt::First) {
        Stopped::Refused(error)
    } else {
        Stopped::Midway(error)
    }
}

/// Tells whether the account has no such key.
fn is_gone(error: &Error) -> bool {
    match error {
        Error::NoSuchApiKey { .. } => true,
        Error::Exchange(exchange::Error::Refused(refusal)) => refusal.code == NOT_FOUND,
        _ => false,
    }
}

/// `not_found`: the account has no such key (Deribit, error codes).
const NOT_FOUND: i64 = 13020;

/// Whether a change was asked for before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Attempt {
    /// It was not: what is refused is not carried out.
    First,
    /// It was, and may have been carried out.
    Again,
}

/// Holds what the account shows of a key against what was sent; a whitelist that the list does not
/// show was shown by the answer to the edit, or nobody knows of it.
fn taken_over(
    survey: &Survey,
    id: KeyId,
    edited: &ApiKey,
    wish: &Specification,
    enabled: bool,
) -> Result<(), Error> {
    let key = survey.by_id(id).ok_or(Error::NoSuchApiKey { id })?;
    if key.max_scope != wish.scope {
        return Err(Error::ScopeDiffers {
            asked: wish.scope.clone(),
            granted: key.max_scope.clone(),
        });
    }
    let differs = |what| Err(Error::SettingDiffers { what });
    let shows = if key.ip_whitelist.is_some() {
        key
    } else {
        edited
    };
    if !shows_whitelist(shows, &wish.whitelist) {
        return differs("whitelist");
    }
    if key.name != wish.label {
        return differs("label");
    }
    if key.enabled.is_some_and(|now| now != enabled) {
        return differs("enabled");
    }
    if !shows_features(key, &wish.features) {
        return differs("features");
    }
    Ok(())
}

impl<T: Transport> Work<'_, T> {
    /// Carries out a change of a key in the keystore, whose intent is on disk.
    ///
    /// Can be repeated: what is so already is left so.
    ///
    /// # Errors
    /// [`Error::Unfinished`] with the cause.
    pub async fn change(&mut self, intent: &Intent, attempt: Attempt) -> Result<(), Error> {
        match self.carry_change(intent, attempt).await {
            Ok(()) => Ok(()),
            Err(Stopped::Refused(source)) => {
                // It is not carried out and never will be: it must not stand in the way for ever.
                self.store.conclude(&intent.name)?;
                Err(source)
            }
            // What is under way now is another operation.
            Err(Stopped::Midway(error @ (Error::Unfinished { .. } | Error::Disabled { .. }))) => {
                Err(error)
            }
            Err(Stopped::Midway(source)) => Err(unfinished(intent, source)),
        }
    }

    async fn carry_change(&mut self, intent: &Intent, attempt: Attempt) -> Result<(), Stopped> {
        let Some(issued) = &intent.issued else {
            return Ok(self.store.conclude(&intent.name)?);
        };
        if intent.operation == Operation::Remove {
            return self.remove(intent, issued, attempt).await;
        }
        let mut record = self.store.record_of(&intent.name, intent.generation)?;
        match intent.operation {
            Operation::Edit => {
                let known = record.registration.as_ref();
                let recorded = known.map_or_else(
                    || intent.spec.clone(),
                    |known| known.specification(record.algorithm),
                );
                let enabled = known.is_none_or(|known| known.enabled);
                self.edit(issued, (&recorded, enabled), &intent.spec, attempt)
                    .await?;
            }
            operation => {
                self.set(issued.key_id, &issued.client_id, operation)
                    .await
                    .map_err(|error| stopped(error, attempt))?;
                if operation == Operation::Enable {
                    self.must_be_wanted_still(intent, issued).await?;
                }
            }
        }
        if let Some(known) = &mut record.registration {
            match intent.operation {
                Operation::Edit => {
                    // Of an adopted key it may not have been known.
                    known.key_id = Some(issued.key_id);
                    known.scope = intent.spec.scope.clone();
                    known.label.clone_from(&intent.spec.label);
                    known.whitelist.clone_from(&intent.spec.whitelist);
                    known.features.clone_from(&intent.spec.features);
                }
                operation => known.enabled = operation == Operation::Enable,
            }
        }
        self.store
            .write_record(&intent.name, intent.generation, &record)?;
        Ok(self.store.conclude(&intent.name)?)
    }

    /// Takes a key away at the exchange, and the superseded ones of the same name with it.
    async fn remove(
        &mut self,
        intent: &Intent,
        issued: &Issued,
        attempt: Attempt,
    ) -> Result<(), Stopped> {
        let id = issued.key_id;
        self.set(id, &issued.client_id, Operation::Remove)
            .await
            .map_err(|error| stopped(error, attempt))?;
        // An earlier attempt may have come as far as the trash.
        if self.store.contains(&intent.name) {
            for generation in self.store.generations(&intent.name)? {
                let Some(mut record) = self.legible(&intent.name, generation)? else {
                    continue;
                };
                let Some(known) = &mut record.registration else {
                    continue;
                };
                if let Some(other) = known.key_id.filter(|other| *other != id) {
                    let client_id = known.client_id.clone();
                    self.set(other, &client_id, Operation::Remove).await?;
                }
                known.enabled = false;
                self.store.write_record(&intent.name, generation, &record)?;
            }
            // Its private halves are good for nothing now; they are kept all the same.
            let grave = self.store.discard(&intent.name, (self.now)())?;
            (self.tell)(Event::Buried(&grave));
        }
        Ok(self.store.conclude(&intent.name)?)
    }

    /// Makes sure that nobody has disabled a key while it was being enabled: whoever disables one that
    /// somebody else works on strikes the entry out first. Takes it back otherwise.
    pub(super) async fn must_be_wanted_still(
        &mut self,
        intent: &Intent,
        issued: &Issued,
    ) -> Result<(), Error> {
        let name = &intent.name;
        if self.store.intent(name)?.is_some() {
            return Ok(());
        }
        let back = Intent {
            operation: Operation::Disable,
            stage: Stage::Planned,
            succession: None,
            ..intent.clone()
        };
        self.store.announce(&back)?;
        let disabled = self.set(issued.key_id, &issued.client_id, Operation::Disable);
        disabled.await.map_err(|source| unfinished(&back, source))?;
        self.store.conclude(name)?;
        Err(Error::Disabled { name: name.clone() })
    }

    /// Resends all settings of a key with the changed ones among them, and looks again.
    async fn edit(
        &mut self,
        issued: &Issued,
        (recorded, enabled): (&Specification, bool),
        wish: &Specification,
        attempt: Attempt,
    ) -> Result<(), Stopped> {
        let id = issued.key_id;
        let survey = self.survey_with(&issued.client_id).await?;
        let Some(key) = survey.by_id(id) else {
            return Err(Stopped::Refused(Error::NoSuchApiKey { id }));
        };
        if key.client_id != issued.client_id {
            return Err(Error::ForeignId {
                id,
                ours: issued.client_id.clone(),
            }
            .into());
        }
        let enabled = key.enabled.unwrap_or(enabled);
        let is = as_it_is(key, recorded);
        if differences_of(&is, wish).is_empty() {
            return Ok(());
        }
        // The first time somebody has just been shown what there is.
        let changed = !differences_of(&is, recorded).is_empty();
        if attempt == Attempt::Again && changed && !gives_no_more(&is, wish) {
            return Err(Error::ChangedMeanwhile {
                client_id: issued.client_id.clone(),
            }
            .into());
        }
        let edited = self
            .desk
            .call(&EditApiKey {
                id,
                max_scope: &wish.scope,
                name: &wish.label,
                enabled,
                enabled_features: &wish.features,
                ip_whitelist: &wish.whitelist,
            })
            .await
            // The account was looked at before: no earlier attempt has done it.
            .map_err(|error| stopped(error, Attempt::First))?;
        let survey = self.survey().await?;
        let is_so = |survey: &Survey| taken_over(survey, id, &edited, wish, enabled);
        if is_so(&survey).is_ok() {
            return Ok(());
        }
        let later = self.look_until(|survey| is_so(survey).is_ok()).await?;
        Ok(is_so(later.as_ref().unwrap_or(&survey))?)
    }

    /// Enables, disables or removes a key.
    ///
    /// # Errors
    /// [`Error::ForeignId`], [`Error::NoSuchApiKey`], [`Error::SettingDiffers`] where the exchange
    /// says that it is not so, and those of the exchange.
    pub async fn set(
        &mut self,
        id: KeyId,
        client_id: &ClientId,
        operation: Operation,
    ) -> Result<(), Error> {
        if !self.has(id, client_id).await? {
            // An earlier attempt may have removed it, and a missing key cannot be removed.
            return match operation {
                Operation::Remove => Ok(()),
                _ => Err(Error::NoSuchApiKey { id }),
            };
        }
        let key = match operation {
            Operation::Enable => self.desk.call(&EnableApiKey { id }).await?,
            Operation::Disable => self.desk.call(&DisableApiKey { id }).await?,
            Operation::Remove => return self.take_away(id).await,
            _ => return Ok(()),
        };
        if (key.id, &key.client_id) != (id, client_id) {
            return Err(Error::ForeignId {
                id: key.id,
                ours: client_id.clone(),
            });
        }
        // The answer need not say it, and a key that is leaked must not be taken for disabled.
        let said = match key.enabled {
            Some(enabled) => Some(enabled),
            None => {
                let survey = self.survey_with(client_id).await?;
                survey.by_id(id).and_then(|key| key.enabled)
            }
        };
        if said == Some(operation == Operation::Enable) {
            Ok(())
        } else {
            Err(Error::SettingDiffers { what: "state" })
        }
    }

    /// Takes a key away that the account has shown.
    async fn take_away(&mut self, id: KeyId) -> Result<(), Error> {
        match self.desk.call(&RemoveApiKey { id }).await {
            // An earlier attempt has removed it, if the account stops showing it.
            Err(error) if is_gone(&error) => {
                let gone = self.look_until(|survey| survey.by_id(id).is_none());
                gone.await?.map(drop).ok_or(error)?;
            }
            result => drop(result?),
        }
        self.seen.remove(&id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use serde_json::{Value, json};

    use super::*;
    use crate::key::Algorithm;

    fn key() -> Value {
        json!({
            "id": 7, "client_id": "abc", "name": "bot", "max_scope": "trade:read", "enabled": true,
            "ip_whitelist": ["192.0.2.2", "192.0.2.1", "192.0.2.2"],
            "enabled_features": ["block_rfq_approval"],
        })
    }

    fn shown(key: &Value) -> ApiKey {
        serde_json::from_value(key.clone()).unwrap()
    }

    fn nothing() -> Specification {
        Specification {
            algorithm: Algorithm::Ed25519,
            label: String::new(),
            scope: Scope::nothing(),
            whitelist: Vec::new(),
            features: Vec::new(),
        }
    }

    fn is(key: &Value) -> Specification {
        as_it_is(&shown(key), &nothing())
    }

    /// An edit resets what it leaves out, whether that was shown or not.
    #[test]
    fn what_the_exchange_does_not_show_of_a_key_is_sent_back_as_it_is_recorded() {
        let recorded = Specification {
            whitelist: vec!["192.0.2.9".parse().unwrap()],
            features: vec!["restricted_block_trades".parse().unwrap()],
            ..nothing()
        };
        let resent = |key: &Value| {
            let is = as_it_is(&shown(key), &recorded);
            let merged = merge(&is, &Change::default());
            assert_eq!(merged.scope, shown(key).max_scope);
            (merged.whitelist, merged.features)
        };
        let mut hidden = key();
        for field in ["ip_whitelist", "enabled_features"] {
            hidden.as_object_mut().unwrap().remove(field);
        }
        let as_recorded = (recorded.whitelist.clone(), recorded.features.clone());
        assert_eq!(resent(&hidden), as_recorded);
        hidden["ip_whitelist"] = Value::Null;
        hidden["enabled_features"] = Value::Null;
        assert_eq!(resent(&hidden), as_recorded);
        hidden["ip_whitelist"] = json!([]);
        hidden["enabled_features"] = json!([]);
        assert_eq!(resent(&hidden), (Vec::new(), Vec::new()));
    }

    #[test]
    fn a_whitelist_that_is_left_alone_is_sent_back_as_it_came() {
        let merged = |change: &Change| merge(&is(&key()), change).whitelist;
        let shown = shown(&key()).ip_whitelist.unwrap();
        assert_eq!(merged(&Change::default()), shown);
        let other = Change {
            remove: vec!["192.0.2.3".parse().unwrap()],
            ..Change::default()
        };
        let sorted: Vec<Whitelisted> = ["192.0.2.1", "192.0.2.2"]
            .map(|ip| ip.parse().unwrap())
            .into();
        assert_eq!(merged(&other), sorted);
    }

    #[test]
    fn each_setting_that_was_not_taken_over_is_noticed() {
        let wish = is(&key());
        let mut unshown = key();
        unshown["ip_whitelist"] = Value::Null;
        let differs = |key: &Value| {
            let survey = Survey(vec![shown(key)]);
            taken_over(&survey, KeyId(7), &shown(&unshown), &wish, true).is_err()
        };
        assert!(!differs(&key()));
        for (field, value) in [
            ("id", json!(8)),
            ("max_scope", json!("trade:read_write")),
            ("ip_whitelist", json!(["192.0.2.1"])),
            ("name", json!("other")),
            ("enabled", json!(false)),
            ("enabled_features", json!(["restricted_block_trades"])),
            (
                "enabled_features",
                json!(["block_rfq_approval", "restricted_block_trades"]),
            ),
        ] {
            let mut other = key();
            other[field] = value;
            assert!(differs(&other), "{other}");
        }
    }
}
