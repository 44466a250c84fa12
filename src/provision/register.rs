//! Registering a key: persist, create, prove, and only then give it its rights.

use super::{
    Event, Outcomes, Proven, Work,
    inspect::shows_whitelist,
    prove, strike_out,
    verdict::{is_final, says_nothing, unfinished, was_not_carried_out},
};
use crate::{
    Error,
    exchange::{self, ApiKey, ClientId, CreateApiKey, EditApiKey, Scope, Transport},
    key::{KeyName, PublicKey},
    signer::Signer,
    store::{Generation, Intent, Issued, Moment, Record, Registration, Stage},
};

impl<T: Transport> Work<'_, T> {
    /// Carries a registration from wherever it stands to its end.
    ///
    /// The key pair is on disk. On a definite refusal of the exchange nothing is left under way: a
    /// key that was made for this goes to the trash, one that was there before stays. Where an
    /// earlier attempt may have gone through, the account must be seen not to have the key first.
    ///
    /// # Errors
    /// [`Error::Unfinished`] where `resume` can go on; else the cause itself.
    pub async fn register(
        &mut self,
        mut intent: Intent,
        signer: &dyn Signer,
    ) -> Result<Outcomes, Error> {
        let asked_before = intent.stage == Stage::Creating;
        let source = match self.establish(&mut intent, signer).await {
            Ok((issued, proven)) => return self.finish(&intent, &issued, proven),
            Err(error) => error,
        };
        if self
            .is_refused_for_good(&intent, asked_before, signer, &source)
            .await
        {
            strike_out(self.store, &intent, (self.now)())?;
            return Err(source);
        }
        Err(unfinished(&intent, source))
    }

    /// Tells whether the exchange will have nothing of the key, and has it not.
    pub(super) async fn is_refused_for_good(
        &mut self,
        intent: &Intent,
        asked_before: bool,
        signer: &dyn Signer,
        error: &Error,
    ) -> bool {
        if intent.stage > Stage::Creating || !is_final(error) {
            return false;
        }
        // What is refused now need not have been refused before, and a code that says nothing
        // may stand for anything: only the account's list can tell.
        let doubtful = asked_before || says_nothing(error);
        if !doubtful {
            return true;
        }
        let public = signer.public_key();
        let found = self.search_again(intent, &|key| key.is(public)).await;
        matches!(found, Ok(None))
    }

    /// Gets the exchange to have the key as it is meant, proven by a signed login.
    ///
    /// No proof comes back where the whitelist keeps this host out; the key was proven before it
    /// got its rights.
    pub(super) async fn establish(
        &mut self,
        intent: &mut Intent,
        signer: &dyn Signer,
    ) -> Result<(Issued, Option<Proven>), Error> {
        // What somebody disabled since is not given its rights, which would enable it.
        if intent.issued.is_some() && self.is_disabled(&intent.name, intent.generation)? {
            return Err(Error::Disabled {
                name: intent.name.clone(),
            });
        }
        if let Some(issued) = intent
            .issued
            .as_ref()
            .filter(|_| intent.stage >= Stage::Granting)
        {
            self.must_be_enabled(&intent.name, issued, signer).await?;
        }
        let public = signer.public_key().clone();
        let first_scope = match intent.spec.whitelist.as_slice() {
            [] => intent.spec.scope.clone(),
            // create_api_key cannot set a whitelist: until it is there the key may do nothing.
            _ => Scope::nothing(),
        };
        let issued = match &intent.issued {
            Some(issued) => issued.clone(),
            None => {
                let key = self.create(intent, &public, &first_scope).await?;
                let issued = self.inspect(&key, &public, &intent.spec, &first_scope)?;
                // None was sent, and what is recorded must be what is there.
                if !shows_whitelist(&key, &[]) {
                    return Err(Error::SettingDiffers { what: "whitelist" });
                }
                (self.tell)(Event::Registered(&key));
                self.seen.insert(issued.key_id, issued.client_id.clone());
                intent.issued = Some(issued.clone());
                self.enter(intent, Stage::Registered)?;
                self.write_record(intent, &issued, &first_scope, None)?;
                issued
            }
        };
        if intent.stage < Stage::Granting {
            let proven = match self.prove(&issued.client_id, signer, &first_scope).await {
                // A refused login does not say that the key was removed in the meantime.
                Err(Error::Exchange(error))
                    if error.is_credentials()
                        && !self.has(issued.key_id, &issued.client_id).await? =>
                {
                    return Err(Error::NoSuchApiKey { id: issued.key_id });
                }
                result => result?,
            };
            (self.tell)(Event::Proven(proven.granted()));
            if intent.spec.whitelist.is_empty() {
                return Ok((issued, Some(proven)));
            }
            self.enter(intent, Stage::Granting)?;
        }
        self.grant(intent, &issued, &public).await?;
        let scope = intent.spec.scope.clone();
        let proven = match self.prove(&issued.client_id, signer, &scope).await {
            Ok(proven) => {
                (self.tell)(Event::Proven(proven.granted()));
                Some(proven)
            }
            // The key has logged in before; this host need not be on its whitelist.
            Err(Error::Exchange(error)) if error.is_credentials() => {
                self.must_be_kept_out(&intent.name, &issued).await?;
                (self.tell)(Event::NotFromHere);
                None
            }
            Err(error) => return Err(error),
        };
        Ok((issued, proven))
    }

    /// Makes sure that nobody has disabled a key from elsewhere while giving it its rights was
    /// interrupted. That it logs in says so without a code; the list is looked at only if it does
    /// not, as its whitelist may be there already and keep this host out.
    async fn must_be_enabled(
        &mut self,
        name: &KeyName,
        issued: &Issued,
        signer: &dyn Signer,
    ) -> Result<(), Error> {
        match self
            .prove(&issued.client_id, signer, &Scope::nothing())
            .await
        {
            Err(Error::Exchange(error)) if error.is_credentials() => {}
            Ok(_) | Err(Error::ScopeDiffers { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
        let survey = self.survey_with(&issued.client_id).await?;
        match survey.by_client_id(&issued.client_id) {
            Some(key) if key.enabled == Some(false) => Err(Error::Disabled { name: name.clone() }),
            _ => Ok(()),
        }
    }

    /// Gets the exchange to have the key exactly once, and returns what it says of it.
    async fn create(
        &mut self,
        intent: &mut Intent,
        public: &PublicKey,
        scope: &Scope,
    ) -> Result<ApiKey, Error> {
        if intent.stage == Stage::Creating {
            // An earlier attempt may have gone through.
            if let Some(key) = self.search_again(intent, &|key| key.is(public)).await? {
                return Ok(key);
            }
        } else {
            self.desk.log_in().await?;
            self.enter(intent, Stage::Creating)?;
        }
        (self.tell)(Event::Creating(scope));
        let pem = public.to_pem();
        let call = CreateApiKey {
            max_scope: scope,
            name: &intent.spec.label,
            public_key: pem.trim_end(),
            enabled_features: &intent.spec.features,
        };
        match self.desk.call(&call).await {
            Err(Error::Exchange(error)) if error.leaves_doubt() => {
                // Never sent again: it may be there already. A wrong network is not asked further.
                if matches!(error, exchange::Error::WrongNetwork { .. }) {
                    return Err(error.into());
                }
                match self.search(intent, &|key| key.is(public)).await {
                    Ok(Some(key)) => Ok(key),
                    _ => Err(error.into()),
                }
            }
            Err(error) if was_not_carried_out(&error) => {
                // There is nothing to look for later, and a look can cost a one-time code.
                self.enter(intent, Stage::Generated)?;
                Err(error)
            }
            result => result,
        }
    }

    /// Gives scope and whitelist in one edit, so that neither is ever there without the other.
    async fn grant(
        &mut self,
        intent: &Intent,
        issued: &Issued,
        public: &PublicKey,
    ) -> Result<(), Error> {
        let spec = &intent.spec;
        let edited = self
            .desk
            .call(&EditApiKey {
                id: issued.key_id,
                max_scope: &spec.scope,
                name: &spec.label,
                enabled: true,
                enabled_features: &spec.features,
                ip_whitelist: &spec.whitelist,
            })
            .await;
        let edited = match edited {
            // A refusal does not say that the key was removed in the meantime.
            Err(Error::Exchange(error))
                if error.is_credentials()
                    && !self.has(issued.key_id, &issued.client_id).await? =>
            {
                return Err(Error::NoSuchApiKey { id: issued.key_id });
            }
            result => result?,
        };
        let shown = self.inspect(&edited, public, spec, &spec.scope)?;
        if (shown.key_id, &shown.client_id) != (issued.key_id, &issued.client_id) {
            return Err(Error::ForeignId {
                id: shown.key_id,
                ours: issued.client_id.clone(),
            });
        }
        if !shows_whitelist(&edited, &spec.whitelist) {
            return Err(Error::SettingDiffers { what: "whitelist" });
        }
        (self.tell)(Event::Granted(&spec.scope, &spec.whitelist));
        Ok(())
    }

    /// Tells whether a generation is recorded as disabled, or is gone.
    pub(super) fn is_disabled(
        &self,
        name: &KeyName,
        generation: Generation,
    ) -> Result<bool, Error> {
        if !self.store.generations(name)?.contains(&generation) {
            return Ok(true);
        }
        let record = self.store.record_of(name, generation)?;
        Ok(record.registration.is_some_and(|known| !known.enabled))
    }

    pub(super) async fn prove(
        &self,
        client_id: &ClientId,
        signer: &dyn Signer,
        asked: &Scope,
    ) -> Result<Proven, Error> {
        prove(self.desk.exchange(), client_id, signer, asked)
            .await
            .map(|(_, proven)| proven)
    }

    fn finish(
        &self,
        intent: &Intent,
        issued: &Issued,
        proven: Option<Proven>,
    ) -> Result<Outcomes, Error> {
        let now = Some((self.now)());
        let registration = self.write_record(intent, issued, &intent.spec.scope, now)?;
        self.store.conclude(&intent.name)?;
        Ok(Outcomes {
            registration,
            granted: proven.map(|proven| proven.granted),
        })
    }

    pub(super) fn enter(&self, intent: &mut Intent, stage: Stage) -> Result<(), Error> {
        intent.stage = stage;
        Ok(self.store.announce(intent)?)
    }

    pub(super) fn write_record(
        &self,
        intent: &Intent,
        issued: &Issued,
        scope: &Scope,
        proven: Option<Moment>,
    ) -> Result<Registration, Error> {
        let registration = Registration {
            network: self.desk.exchange().network().clone(),
            client_id: issued.client_id.clone(),
            key_id: Some(issued.key_id),
            label: intent.spec.label.clone(),
            scope: scope.clone(),
            whitelist: if proven.is_some() {
                intent.spec.whitelist.clone()
            } else {
                Vec::new()
            },
            features: intent.spec.features.clone(),
            enabled: true,
            retired: None,
            fingerprint_verified: issued.fingerprint_verified,
            proven,
        };
        let record = Record {
            registration: Some(registration.clone()),
            ..self.store.record_of(&intent.name, intent.generation)?
        };
        self.store
            .write_record(&intent.name, intent.generation, &record)?;
        Ok(registration)
    }
}
