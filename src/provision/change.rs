//! Changing a key that is there: read, merge, resend everything, look again.
//!
//! `edit_api_key` may reset whatever is left out, so nothing ever is (Deribit, edit_api_key).

use super::{Work, register::unfinished, sorted};
use crate::{
    Error,
    exchange::{
        ApiKey, ClientId, DisableApiKey, EditApiKey, EnableApiKey, Feature, KeyId, ListApiKeys,
        RemoveApiKey, Scope, Transport, Whitelisted,
    },
    store::{Intent, Operation, Specification},
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
pub fn merge(key: &ApiKey, change: &Change, algorithm: crate::key::Algorithm) -> Specification {
    let whitelist = change.whitelist.as_ref().unwrap_or(&key.ip_whitelist);
    let mut whitelist: Vec<Whitelisted> = whitelist.iter().chain(&change.add).cloned().collect();
    whitelist.retain(|address| !change.remove.contains(address));
    whitelist.sort_unstable();
    whitelist.dedup();
    let features = change.features.as_ref().unwrap_or(&key.enabled_features);
    Specification {
        algorithm,
        label: change.label.clone().unwrap_or_else(|| key.name.clone()),
        scope: change
            .scope
            .clone()
            .unwrap_or_else(|| key.max_scope.clone()),
        whitelist,
        features: features.clone(),
    }
}

/// Returns in words how a key is not what it is to be.
pub fn differences_of(key: &ApiKey, wish: &Specification) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |what: &str, is: String, to_be: String| {
        if is != to_be {
            let or_none = |text: String| if text.is_empty() { "none".into() } else { text };
            found.push(format!("{what}: {} -> {}", or_none(is), or_none(to_be)));
        }
    };
    if key.max_scope != wish.scope {
        compare("scope", key.max_scope.to_string(), wish.scope.to_string());
    }
    compare("label", key.name.clone(), wish.label.clone());
    let joined = |list: &[Whitelisted]| sorted(list).join(" ");
    compare(
        "whitelist",
        joined(&key.ip_whitelist),
        joined(&wish.whitelist),
    );
    let features = |list: &[Feature]| {
        let mut words: Vec<&str> = list.iter().map(Feature::as_str).collect();
        words.sort_unstable();
        words.join(" ")
    };
    compare(
        "features",
        features(&key.enabled_features),
        features(&wish.features),
    );
    found
}

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
        Ok(Survey(self.desk.call(&ListApiKeys {}).await?))
    }

    /// Carries out a change of a key in the keystore, whose intent is on disk.
    ///
    /// Can be repeated: what is so already is left so.
    ///
    /// # Errors
    /// [`Error::Unfinished`] with the cause.
    pub async fn change(&mut self, intent: &Intent) -> Result<(), Error> {
        match self.carry_change(intent).await {
            Ok(()) => Ok(()),
            Err(source) => Err(unfinished(intent, source)),
        }
    }

    async fn carry_change(&mut self, intent: &Intent) -> Result<(), Error> {
        let Some(issued) = &intent.issued else {
            return Ok(self.store.conclude(&intent.name)?);
        };
        if intent.operation == Operation::Remove {
            return self.remove(intent, issued.key_id).await;
        }
        let mut record = self.store.record_of(&intent.name, intent.generation)?;
        match intent.operation {
            Operation::Edit => self.edit(issued.key_id, &intent.spec).await?,
            operation => self.set(issued.key_id, operation).await?,
        }
        if let Some(known) = &mut record.registration {
            match intent.operation {
                Operation::Edit => {
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
    async fn remove(&mut self, intent: &Intent, id: KeyId) -> Result<(), Error> {
        self.set(id, Operation::Remove).await?;
        // An earlier attempt may have come as far as the trash.
        if self.store.contains(&intent.name) {
            for generation in self.store.generations(&intent.name)? {
                let mut record = self.store.record_of(&intent.name, generation)?;
                let Some(known) = &mut record.registration else {
                    continue;
                };
                if let Some(other) = known.key_id.filter(|other| *other != id) {
                    self.set(other, Operation::Remove).await?;
                }
                known.enabled = false;
                self.store.write_record(&intent.name, generation, &record)?;
            }
            // Its private halves are good for nothing now; they are kept all the same.
            self.store.discard(&intent.name, (self.now)())?;
        }
        Ok(self.store.conclude(&intent.name)?)
    }

    /// Resends all settings of a key with the changed ones among them, and looks again.
    async fn edit(&mut self, id: KeyId, wish: &Specification) -> Result<(), Error> {
        let survey = self.survey().await?;
        let Some(key) = survey.by_id(id) else {
            return Err(Error::NoSuchApiKey { id });
        };
        let enabled = key.enabled != Some(false);
        if differences_of(key, wish).is_empty() {
            return Ok(());
        }
        self.desk
            .call(&EditApiKey {
                id,
                max_scope: &wish.scope,
                name: &wish.label,
                enabled,
                enabled_features: &wish.features,
                ip_whitelist: &wish.whitelist,
            })
            .await?;
        let survey = self.survey().await?;
        let key = survey.by_id(id).ok_or(Error::NoSuchApiKey { id })?;
        if key.max_scope != wish.scope {
            return Err(Error::ScopeDiffers {
                asked: wish.scope.clone(),
                granted: key.max_scope.clone(),
            });
        }
        if sorted(&key.ip_whitelist) != sorted(&wish.whitelist) {
            return Err(Error::SettingDiffers { what: "whitelist" });
        }
        if key.enabled.is_some_and(|now| now != enabled) {
            return Err(Error::SettingDiffers { what: "enabled" });
        }
        Ok(())
    }

    /// Enables, disables or removes a key.
    ///
    /// # Errors
    /// Those of the exchange.
    pub async fn set(&mut self, id: KeyId, operation: Operation) -> Result<(), Error> {
        match operation {
            Operation::Enable => self.desk.call(&EnableApiKey { id }).await.map(drop),
            Operation::Disable => self.desk.call(&DisableApiKey { id }).await.map(drop),
            Operation::Remove => {
                // An earlier attempt may have removed it, and a missing key cannot be removed.
                if self.survey().await?.by_id(id).is_none() {
                    return Ok(());
                }
                self.desk.call(&RemoveApiKey { id }).await.map(drop)
            }
            _ => Ok(()),
        }
    }
}
