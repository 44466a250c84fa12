//! The use cases: register a key, prove it, adopt one made elsewhere.
//!
//! Intent first, effect second, record last. The encrypted key and a journal entry are on disk
//! before the exchange hears of the key; a lost answer is settled by looking, never by sending
//! again; and a key counts as active once it has logged in with exactly the rights that were
//! meant.

use crate::{
    Error,
    exchange::{
        self, ApiKey, ClientId, CreateApiKey, Credential, EditApiKey, Exchange, GetTime, Kind,
        ListApiKeys, LoginScope, Network, Outcome, Scope, Session, SessionName, Transport,
        Whitelisted,
    },
    key::{Algorithm, KeyName, PublicKey},
    signer::Signer,
    store::{Intent, Issued, Moment, Operation, Record, Registration, Specification, Stage, Store},
};

mod desk;
pub use desk::{Desk, Operator, log_in};

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

/// The differences between a registered key and a wish, in words; none if they are the same.
pub fn differences(
    known: &Registration,
    algorithm: Algorithm,
    network: &Network,
    wish: &Specification,
) -> Vec<String> {
    let list = |words: Vec<&str>| {
        if words.is_empty() {
            "none".into()
        } else {
            words.join(" ")
        }
    };
    let mut found = Vec::new();
    let mut compare = |what: &str, is: String, asked: String| {
        if is != asked {
            found.push(format!("{what} is {is}, asked for {asked}"));
        }
    };
    compare("network", known.network.to_string(), network.to_string());
    compare(
        "algorithm",
        algorithm.to_string(),
        wish.algorithm.to_string(),
    );
    if known.scope != wish.scope {
        compare("scope", known.scope.to_string(), wish.scope.to_string());
    }
    compare("label", known.label.clone(), wish.label.to_string());
    compare(
        "whitelist",
        list(sorted(&known.whitelist)),
        list(sorted(&wish.whitelist)),
    );
    let features = |features: &[exchange::Feature]| {
        let mut words: Vec<String> = features.iter().map(ToString::to_string).collect();
        words.sort_unstable();
        words.join(" ")
    };
    compare(
        "features",
        features(&known.features),
        features(&wish.features),
    );
    found
}

fn sorted(list: &[Whitelisted]) -> Vec<&str> {
    let mut words: Vec<&str> = list.iter().map(Whitelisted::as_str).collect();
    words.sort_unstable();
    words.dedup();
    words
}

/// One registration on its way: the account's desk, the journal, and somebody who listens.
pub struct Work<'a, T> {
    /// The keystore.
    pub store: &'a Store,
    /// Where the account is managed.
    pub desk: Desk<'a, T>,
    /// Who is told what happened.
    pub tell: &'a mut dyn FnMut(Event<'_>),
    /// The clock.
    pub now: fn() -> Moment,
}

impl<T> std::fmt::Debug for Work<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

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
        let source = match self.advance(&mut intent, signer).await {
            Ok(outcomes) => return Ok(outcomes),
            Err(error) => error,
        };
        if intent.stage <= Stage::Creating && is_final(&source) {
            // What is refused now need not have been refused before, and a code that says
            // nothing may stand for anything: only the account's list can tell.
            let doubtful = asked_before || says_nothing(&source);
            let absent = !doubtful || matches!(self.search(signer.public_key()).await, Ok(None));
            if absent {
                self.abandon(&intent)?;
                return Err(source);
            }
        }
        Err(Error::Unfinished {
            name: intent.name,
            operation: intent.operation.as_str(),
            stage: intent.stage,
            source: Box::new(source),
        })
    }

    /// Ends an operation that the exchange will have nothing of.
    ///
    /// # Errors
    /// Those of the keystore.
    pub fn abandon(&mut self, intent: &Intent) -> Result<(), Error> {
        if intent.operation == Operation::Provision && self.store.contains(&intent.name) {
            self.store.discard(&intent.name, (self.now)())?;
        }
        Ok(self.store.conclude(&intent.name)?)
    }

    async fn advance(
        &mut self,
        intent: &mut Intent,
        signer: &dyn Signer,
    ) -> Result<Outcomes, Error> {
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
                (self.tell)(Event::Registered(&key));
                intent.issued = Some(issued.clone());
                self.enter(intent, Stage::Registered)?;
                self.write_record(intent, &issued, &first_scope, None)?;
                issued
            }
        };
        if intent.stage < Stage::Granting {
            let proven = self.prove(&issued.client_id, signer, &first_scope).await?;
            (self.tell)(Event::Proven(proven.granted()));
            if intent.spec.whitelist.is_empty() {
                return self.finish(intent, &issued, Some(proven));
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
                (self.tell)(Event::NotFromHere);
                None
            }
            Err(error) => return Err(error),
        };
        self.finish(intent, &issued, proven)
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
            if let Some(key) = self.search(public).await? {
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
                match self.search(public).await {
                    Ok(Some(key)) => Ok(key),
                    _ => Err(error.into()),
                }
            }
            result => result,
        }
    }

    async fn search(&mut self, public: &PublicKey) -> Result<Option<ApiKey>, Error> {
        (self.tell)(Event::Searching);
        let keys = self.desk.call(&ListApiKeys {}).await?;
        // The lowest id is the one that was made first.
        Ok(keys
            .into_iter()
            .filter(|key| key.is(public))
            .min_by_key(|key| key.id))
    }

    /// Holds what the exchange says it made against what was sent.
    fn inspect(
        &mut self,
        key: &ApiKey,
        public: &PublicKey,
        spec: &Specification,
        scope: &Scope,
    ) -> Result<Issued, Error> {
        let ours = public.fingerprint();
        let foreign = |problem| Error::ForeignKey { ours, problem };
        if key
            .public_key
            .as_ref()
            .is_some_and(|theirs| theirs != public)
        {
            return Err(foreign("its public key differs"));
        }
        let fingerprint_verified = match &key.credential {
            Credential::Secret(_) => return Err(foreign("it is a symmetric key with a secret")),
            Credential::Fingerprint(theirs) if *theirs == ours => true,
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
        if key.name != spec.label.as_str() {
            (self.tell)(Event::LabelDiffers(&key.name));
        }
        Ok(Issued {
            client_id: key.client_id.clone(),
            key_id: key.id,
            fingerprint_verified,
        })
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
            .await?;
        self.inspect(&edited, public, spec, &spec.scope)?;
        if sorted(&edited.ip_whitelist) != sorted(&spec.whitelist) {
            return Err(Error::SettingDiffers { what: "whitelist" });
        }
        (self.tell)(Event::Granted(&spec.scope, &spec.whitelist));
        Ok(())
    }

    async fn prove(
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

    fn enter(&self, intent: &mut Intent, stage: Stage) -> Result<(), Error> {
        intent.stage = stage;
        Ok(self.store.announce(intent)?)
    }

    fn write_record(
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
            label: intent.spec.label.to_string(),
            scope: scope.clone(),
            whitelist: if proven.is_some() {
                intent.spec.whitelist.clone()
            } else {
                Vec::new()
            },
            features: intent.spec.features.clone(),
            fingerprint_verified: issued.fingerprint_verified,
            proven,
        };
        let record = Record {
            registration: Some(registration.clone()),
            ..self.store.record(&intent.name)?
        };
        self.store.write_record(&intent.name, &record)?;
        Ok(registration)
    }
}

/// Tells whether the exchange said no for good, so that nothing can be there.
fn is_final(error: &Error) -> bool {
    use exchange::Error as E;
    match error {
        Error::Exchange(E::Refused(refusal)) => !matches!(
            refusal.kind(),
            Kind::Transient | Kind::RateLimit | Kind::SecondFactor | Kind::SecondFactorLocked
        ),
        Error::Exchange(
            E::HardwareKeyOnly { .. } | E::ForeignChallenge { .. } | E::TooLarge { .. },
        ) => true,
        _ => false,
    }
}

/// Tells whether a refusal carries a code that does not say whether anything was carried out.
fn says_nothing(error: &Error) -> bool {
    matches!(error, Error::Exchange(exchange::Error::Refused(refusal)) if refusal.kind() == Kind::Other)
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
    let operator = Operator::Key { client_id, signer };
    let session = log_in(exchange, operator, &scope).await?;
    if session.scope != *asked {
        return Err(Error::ScopeDiffers {
            asked: asked.clone(),
            granted: session.scope,
        });
    }
    let granted = session.scope.clone();
    Ok((session, Proven { granted }))
}

/// Binds a key whose public half was pasted into the web form.
///
/// A signed login is the proof. If the key may look, it looks itself up for its id, label,
/// whitelist and features.
///
/// # Errors
/// Those of the login, and [`Error::ForeignKey`] where the account shows this client id with
/// another key.
pub async fn adopt<T: Transport>(
    exchange: &Exchange<T>,
    client_id: &ClientId,
    signer: &dyn Signer,
    now: Moment,
) -> Result<Outcomes, Error> {
    let session = SessionName::ours();
    let scope = LoginScope {
        areas: None,
        session: Some(&session),
    };
    let session = log_in(exchange, Operator::Key { client_id, signer }, &scope).await?;
    let mut registration = Registration {
        network: exchange.network().clone(),
        client_id: client_id.clone(),
        key_id: None,
        label: String::new(),
        scope: session.scope.clone(),
        whitelist: Vec::new(),
        features: Vec::new(),
        fingerprint_verified: false,
        proven: Some(now),
    };
    let who = exchange::Authority::Bearer(&session.access_token);
    // A challenge here is no reason to fail: the login is the proof, the rest is a convenience.
    if let Ok(Outcome::Done(keys)) = exchange.call(who, &ListApiKeys {}).await
        && let Some(key) = keys.into_iter().find(|key| key.client_id == *client_id)
    {
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
        registration.whitelist = key.ip_whitelist;
        registration.features = key.enabled_features;
    }
    Ok(Outcomes {
        registration,
        granted: Some(session.scope),
    })
}

/// Returns by how many seconds a clock differs from the exchange's, and whether it is ahead.
///
/// # Errors
/// Those of the exchange.
pub async fn clock_skew<T: Transport>(
    exchange: &Exchange<T>,
    ours: u64,
) -> Result<(u64, bool), Error> {
    match exchange
        .call(exchange::Authority::Nobody, &GetTime {})
        .await?
    {
        Outcome::Done(theirs) => Ok((ours.abs_diff(theirs) / 1000, ours > theirs)),
        Outcome::Challenged(_) => Ok((0, false)),
    }
}

/// Prepares the journal entry of a registration.
pub fn intend(
    operation: Operation,
    name: &KeyName,
    generation: crate::store::Generation,
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
    }
}
