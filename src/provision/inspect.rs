//! What the exchange shows of a key: looked for in the account, held against what was sent.

use super::{Content, Event, Survey, Work};
use crate::{
    Error,
    exchange::{ApiKey, ClientId, Credential, Feature, ListApiKeys, Scope, Transport, Whitelisted},
    key::{Algorithm, PublicKey},
    store::{Intent, Issued, Specification},
};

impl<T: Transport> Work<'_, T> {
    /// Looks for the key in the account; an error where the account does not show enough to tell.
    pub(super) async fn search(
        &mut self,
        intent: &Intent,
        is_ours: &dyn Fn(&ApiKey) -> bool,
    ) -> Result<Option<ApiKey>, Error> {
        (self.tell)(Event::Searching);
        let keys = self.desk.call(&ListApiKeys {}).await?;
        let hidden = |key: &ApiKey| {
            key.public_key.is_none() && matches!(key.credential, Credential::Withheld)
        };
        let label = &intent.spec.label;
        // An earlier generation goes by the same label.
        let known = self.known_before(intent);
        let may_be_ours =
            |key: &ApiKey| hidden(key) && key.name == *label && !known.contains(&key.client_id);
        let undecided = keys.iter().any(may_be_ours);
        match first_of(Survey(keys), is_ours) {
            None if undecided => Err(Error::Undecided {
                label: label.clone(),
            }),
            found => Ok(found),
        }
    }

    /// Looks for the key where nothing may be made of its absence before a list that lags behind
    /// has had its time: by its public half, or where that was taken out of the keystore by its
    /// fingerprint, which the journal has.
    ///
    /// # Errors
    /// [`Error::Undecided`] where the account does not show enough to tell, and those of the exchange.
    pub async fn search_again(
        &mut self,
        intent: &Intent,
        is_ours: &dyn Fn(&ApiKey) -> bool,
    ) -> Result<Option<ApiKey>, Error> {
        if let Some(key) = self.search(intent, is_ours).await? {
            return Ok(Some(key));
        }
        let later = self.look_until(|survey| survey.0.iter().any(is_ours));
        Ok(later.await?.and_then(|survey| first_of(survey, is_ours)))
    }

    /// Returns what the other generations of a key log in as, as far as they can be read.
    fn known_before(&self, intent: &Intent) -> Vec<ClientId> {
        let mut others = self.store.generations(&intent.name).unwrap_or_default();
        others.retain(|generation| *generation != intent.generation);
        let record = |generation| self.store.record_of(&intent.name, generation).ok();
        let records = others.into_iter().filter_map(record);
        records
            .filter_map(|record| record.registration.map(|known| known.client_id))
            .collect()
    }

    /// Holds what the exchange says it made against what was sent.
    pub(super) fn inspect(
        &mut self,
        key: &ApiKey,
        public: &PublicKey,
        spec: &Specification,
        scope: &Scope,
    ) -> Result<Issued, Error> {
        let ours = public.fingerprint();
        let foreign = |problem| Error::ForeignKey { ours, problem };
        if key.public_key_unreadable {
            return Err(foreign("its public key cannot be read"));
        }
        if key
            .public_key
            .as_ref()
            .is_some_and(|theirs| theirs != public)
        {
            return Err(foreign("its public key differs"));
        }
        if key.enabled == Some(false) {
            return Err(Error::SettingDiffers { what: "state" });
        }
        let fingerprint_verified = match &key.credential {
            Credential::Fingerprint(theirs) if *theirs == ours => true,
            // Shown without the public key beside it, our fingerprint is one all the same.
            Credential::Secret(_) if key.public_key.is_none() && key.is(public) => true,
            Credential::Secret(_) => return Err(foreign("it is a symmetric key with a secret")),
            // The rule is proven for Ed25519 only; an equal public key says as much.
            Credential::Fingerprint(_)
                if spec.algorithm != Algorithm::Ed25519 && key.public_key.is_some() =>
            {
                (self.tell)(Event::FingerprintDiffers);
                false
            }
            Credential::Fingerprint(_) => return Err(foreign("its fingerprint differs")),
            Credential::Withheld if key.public_key.is_some() => false,
            Credential::Withheld => {
                return Err(foreign("it shows neither a public key nor a fingerprint"));
            }
        };
        if key.max_scope != *scope {
            return Err(Error::ScopeDiffers {
                asked: scope.clone(),
                granted: key.max_scope.clone(),
            });
        }
        // A feature can be a restriction.
        if !shows_features(key, &spec.features) {
            return Err(Error::SettingDiffers { what: "features" });
        }
        if key.name != spec.label {
            (self.tell)(Event::LabelDiffers(&key.name));
        }
        Ok(Issued {
            client_id: key.client_id.clone(),
            key_id: key.id,
            fingerprint_verified,
        })
    }
}

/// Returns what a key is at the exchange: what it shows, and of what it does not what is recorded.
///
/// What is not shown is no less there, and whatever an edit leaves out is reset.
pub fn as_it_is(key: &ApiKey, recorded: &Specification) -> Specification {
    let (addresses, features) = (key.ip_whitelist.as_ref(), key.enabled_features.as_ref());
    Specification {
        algorithm: recorded.algorithm,
        label: key.name.clone(),
        scope: key.max_scope.clone(),
        whitelist: addresses.unwrap_or(&recorded.whitelist).clone(),
        features: features.unwrap_or(&recorded.features).clone(),
    }
}

/// Tells whether a key shows these addresses and no others; that there are none need not be shown.
pub(super) fn shows_whitelist(key: &ApiKey, addresses: &[Whitelisted]) -> bool {
    let shown = key.ip_whitelist.as_deref().unwrap_or_default();
    Content::whitelist(shown) == Content::whitelist(addresses)
}

/// Tells whether a key has these features and no others, as far as it shows any.
pub(super) fn shows_features(key: &ApiKey, features: &[Feature]) -> bool {
    let same = |shown: &[Feature]| Content::features(shown) == Content::features(features);
    key.enabled_features.as_deref().is_none_or(same)
}

/// Returns the account's key that is ours.
fn first_of(survey: Survey, is_ours: &dyn Fn(&ApiKey) -> bool) -> Option<ApiKey> {
    let ours = survey.0.into_iter().filter(is_ours);
    // The lowest id is the one that was made first.
    ours.min_by_key(|key| key.id)
}
