//! Commands that register keys: provision, register, adopt, and what finishes them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    args::{AdminArgs, Adopt, PassphraseArgs, Provision, Register, Sealing, Wish},
    connect::{Connection, Office, runtime},
    context::{Context, now, wants_plain},
    keys, manage, memory,
    report::Failure,
    second_factor::Codes,
    signers,
};
use crate::{
    exchange::{self, Area, ClientId, Feature, Level, Network, Scope, Whitelisted},
    key::{Algorithm, KeyName, PrivateKey, PublicKey},
    provision::{self, Adopted, Event, Outcomes, Unseen, Work},
    secret::Passphrase,
    signer::Signer,
    store::{Entry, Generation, Intent, Operation, Record, Registration, Specification, Stage},
};

pub(super) fn provision(context: &Context, args: &Provision) -> Result<(), Failure> {
    let name: KeyName = args.name.name.parse()?;
    let spec = specification(&args.wish, &name, args.algorithm)?;
    let network = context.network()?;
    wants_plain(&args.sealing.plain)?;
    if context.global.dry_run {
        return plan(context, &name, &network, &spec, "make");
    }
    let _lock = context.lock(&name)?;
    if let Some(intent) = context.store.intent(&name)? {
        if same_wish(&intent, Operation::Provision, &network, &spec)? {
            return finish(context, intent, &args.sealing, &args.admin)
                .and_then(|done| done.print(context));
        }
        give_way(context, intent)?;
    }
    if context.store.contains(&name) {
        return prove_again(context, &name, &network, &spec, &args.sealing.passphrase);
    }
    confirm_rights(context, &spec.scope)?;
    let intent = provision::intend(
        Operation::Provision,
        &name,
        Generation::FIRST,
        &network,
        spec,
        now(),
    );
    finish(context, intent, &args.sealing, &args.admin)?.print(context)
}

pub(super) fn register(context: &Context, args: &Register) -> Result<(), Failure> {
    let name: KeyName = args.name.name.parse()?;
    let mut spec = specification(&args.wish, &name, Algorithm::Ed25519)?;
    let network = context.network()?;
    signers::enrol(context, &name, &args.held)?;
    let record = context.store.record(&name)?;
    spec.algorithm = record.algorithm;
    if context.global.dry_run {
        return plan(context, &name, &network, &spec, "use");
    }
    let _lock = context.lock(&name)?;
    // Somebody else may have been at it while this waited.
    let record = context.store.record(&name)?;
    let sealing = Sealing::for_opening(args.passphrase.clone());
    if let Some(intent) = context.store.intent(&name)? {
        if same_wish(&intent, Operation::Register, &network, &spec)? {
            return finish(context, intent, &sealing, &args.admin)
                .and_then(|done| done.print(context));
        }
        give_way(context, intent)?;
    }
    if record.registration.is_some() {
        return prove_again(context, &name, &network, &spec, &args.passphrase);
    }
    confirm_rights(context, &spec.scope)?;
    let intent = provision::intend(
        Operation::Register,
        &name,
        context.store.current(&name)?,
        &network,
        spec,
        now(),
    );
    finish(context, intent, &sealing, &args.admin)?.print(context)
}

/// Turns what was typed into what the key is to be.
fn specification(
    wish: &Wish,
    name: &KeyName,
    algorithm: Algorithm,
) -> Result<Specification, Failure> {
    let label = match &wish.label {
        Some(label) => label.parse::<KeyName>()?,
        None => name.clone(),
    };
    Ok(Specification {
        algorithm,
        label: label.to_string(),
        scope: wish.scope.parse()?,
        whitelist: addresses(&wish.ip, wish.unchecked_ip)?,
        features: features(&wish.feature)?.unwrap_or_default(),
    })
}

/// Reads features; `none` is the word for a key without any, and nothing where none was typed.
pub(super) fn features(typed: &[String]) -> Result<Option<Vec<Feature>>, Failure> {
    if typed.iter().any(|feature| feature == "none") {
        return if typed.len() == 1 {
            Ok(Some(Vec::new()))
        } else {
            Err(Failure::usage("--feature none goes with no other feature")
                .hint("leave out the one or the other"))
        };
    }
    let features: Result<Vec<Feature>, _> = typed.iter().map(|feature| feature.parse()).collect();
    Ok(Some(features?).filter(|features| !features.is_empty()))
}

/// Reads addresses for a whitelist: IPv4, unless that is waived.
pub(super) fn addresses(typed: &[String], unchecked: bool) -> Result<Vec<Whitelisted>, Failure> {
    let mut whitelist = Vec::new();
    for address in typed {
        let plain = address
            .parse()
            .is_ok_and(|ip: std::net::Ipv4Addr| !ip.is_unspecified());
        if !plain && !unchecked {
            return Err(Failure::usage(format!("{address:?} is not an IPv4 address")).hint(
                "the exchange documents nothing else; --unchecked-ip passes it through as it is",
            ));
        }
        let address: Whitelisted = address.parse()?;
        if !whitelist.contains(&address) {
            whitelist.push(address);
        }
    }
    Ok(whitelist)
}

/// Rights with which a thief needs no second step are given with a second thought.
pub(super) fn confirm_rights(context: &Context, scope: &Scope) -> Result<(), Failure> {
    let reasons = [
        (Area::Wallet, "wallet:read_write lets the key withdraw"),
        (
            Area::Account,
            "account:read_write lets the key manage keys, its own rights among them",
        ),
    ];
    for (area, why) in reasons {
        if scope.level(&area) == Level::ReadWrite {
            context.confirm(why, area.as_str())?;
        }
    }
    Ok(())
}

/// Tells whether an interrupted operation is the one that is now asked for.
fn same_wish(
    intent: &Intent,
    operation: Operation,
    network: &Network,
    spec: &Specification,
) -> Result<bool, Failure> {
    Ok(
        intent.operation == operation
            && intent.place.network()? == *network
            && intent.spec == *spec,
    )
}

/// Lets an interrupted operation go of which the exchange cannot have heard.
fn give_way(context: &Context, intent: Intent) -> Result<(), Failure> {
    let name = &intent.name;
    let ours = matches!(intent.operation, Operation::Provision | Operation::Register);
    if !ours || intent.stage >= Stage::Generated {
        let what = intent.operation.as_str();
        return Err(Failure::refused(format!(
            "{what} of {name} with scope {} is under way, which is something else",
            intent.spec.scope
        ))
        .hint(format!(
            "finish it first with \"derikey resume {name}\", or give it up with --abandon there"
        )));
    }
    if intent.operation == Operation::Provision && context.store.contains(name) {
        context.store.discard(name, now())?;
    }
    Ok(context.store.conclude(name)?)
}

fn plan(
    context: &Context,
    name: &KeyName,
    network: &Network,
    spec: &Specification,
    make: &str,
) -> Result<(), Failure> {
    let mut steps = vec![
        format!("would {make} the {} key {name}", spec.algorithm),
        format!("would register it on {network} as {}", spec.label),
    ];
    if spec.whitelist.is_empty() {
        steps.push(format!(
            "would give it {} at once, usable from any address",
            spec.scope
        ));
        steps.push("would prove it by a signed login".into());
    } else {
        let list: Vec<&str> = spec.whitelist.iter().map(Whitelisted::as_str).collect();
        steps.push("would prove it by a signed login while it has no rights".into());
        steps.push(format!(
            "would give it {} and the whitelist {} in one edit",
            spec.scope,
            list.join(" ")
        ));
    }
    keys::plan(context, &steps)
}

/// A registration that came to its end.
pub(super) struct Done {
    pub(super) name: KeyName,
    pub(super) public: PublicKey,
    pub(super) outcomes: Outcomes,
    pub(super) changed: bool,
}

impl Done {
    pub(super) fn value(&self, context: &Context) -> Value {
        let mut value = keys::identity(context, &self.name, &self.public);
        keys::merge(&mut value, registration(&self.outcomes));
        keys::merge(&mut value, json!({"changed": self.changed}));
        value
    }

    pub(super) fn print(&self, context: &Context) -> Result<(), Failure> {
        let value = self.value(context);
        context.output.result(&value, || keys::lines(&value))
    }
}

pub(super) fn registration(outcomes: &Outcomes) -> Value {
    let known = &outcomes.registration;
    json!({
        "network": known.network.name(),
        "client_id": known.client_id,
        "key_id": known.key_id,
        "label": known.label,
        "max_scope": known.scope,
        "ip_whitelist": known.whitelist,
        "enabled_features": known.features,
        "fingerprint_verified": known.fingerprint_verified,
        "granted_scope": outcomes.granted,
    })
}

/// Carries a registration from wherever it stands to its end.
pub(super) fn finish(
    context: &Context,
    intent: Intent,
    sealing: &Sealing,
    admin: &AdminArgs,
) -> Result<Done, Failure> {
    let action = intent.operation.as_str();
    let (name, network) = (intent.name.clone(), intent.place.network()?);
    let result = runtime()?.block_on(carry_out(context, intent, &network, sealing, admin));
    let public = result.as_ref().ok().map(|done| done.public.clone());
    audit(context, action, &name, &network, public.as_ref(), &result)?;
    result
}

async fn carry_out(
    context: &Context,
    mut intent: Intent,
    network: &Network,
    sealing: &Sealing,
    admin: &AdminArgs,
) -> Result<Done, Failure> {
    let name = intent.name.clone();
    let passphrase = &sealing.passphrase;
    let mut office = Office::open(context, network, admin, passphrase).await?;
    let mut desk = office.desk();
    if !context.store.contains(&name) {
        if intent.stage > Stage::Creating {
            return Err(Failure::key(format!(
                "{name} is registered, and its private half is gone"
            ))
            .hint("restore it from a backup or from HOME/trash; or remove it in the web form"));
        }
        // Given up, and then interrupted: the exchange has nothing, so it begins anew.
        intent.stage = Stage::Planned;
        intent.fingerprint = None;
    }
    let signer: Box<dyn Signer> = if context.store.contains(&name) {
        signers::signer_on(context, &name, Some(network), passphrase)?
    } else {
        let new = context.new_passphrase(&name, passphrase, &sealing.plain, Some(network))?;
        // Most of what can go wrong shows here, before anything is written.
        desk.log_in().await?;
        tell(context, &Event::OperatorLoggedIn);
        if let Some(session) = desk.session() {
            context.warn_about_clock(session);
        }
        let key = make_key(context, &intent, new.as_deref(), sealing)?;
        Box::new(memory::hold(context, key)?)
    };
    let public = signer.public_key().clone();
    let ours = public.fingerprint();
    if intent.fingerprint.is_some_and(|meant| meant != ours) {
        return Err(Failure::key(format!(
            "{name} is another key than the one that was being registered"
        ))
        .hint("restore the key from a backup, or remove what is at the exchange in the web form"));
    }
    if intent.stage < Stage::Generated {
        intent.fingerprint = Some(ours);
        intent.stage = Stage::Generated;
        context.store.announce(&intent)?;
    }
    let mut work = Work {
        store: &context.store,
        desk,
        tell: Box::new(|event| tell(context, &event)),
        now,
        seen: BTreeMap::new(),
    };
    let outcomes = work.register(intent, &*signer).await?;
    Ok(Done {
        name,
        public,
        outcomes,
        changed: true,
    })
}

fn make_key(
    context: &Context,
    intent: &Intent,
    passphrase: Option<&Passphrase>,
    sealing: &Sealing,
) -> Result<PrivateKey, Failure> {
    context.store.announce(intent)?;
    let kept = keys::make(context, intent.spec.algorithm).and_then(|key| {
        keys::keep(context, &intent.name, &key, passphrase, &sealing.plain).map(|()| key)
    });
    match kept {
        Ok(key) => {
            let fingerprint = key.public().fingerprint();
            context.output.remark(format!(
                "made the {} key {} with fingerprint {fingerprint}",
                intent.spec.algorithm, intent.name
            ));
            Ok(key)
        }
        Err(failure) => {
            // Nothing was made, so nothing is under way.
            let _ = context.store.conclude(&intent.name);
            Err(failure)
        }
    }
}

pub(super) fn tell(context: &Context, event: &Event<'_>) {
    let output = context.output;
    match event {
        Event::OperatorLoggedIn => output.remark("the administrator has logged in"),
        Event::Creating(scope) => {
            output.remark(format!("registering the public half with scope {scope}"))
        }
        Event::Searching => output.remark("looking for the key among the account's keys"),
        Event::Registered(key) => output.remark(format!(
            "the exchange has it as {} (id {})",
            key.client_id, key.id
        )),
        Event::LabelDiffers(label) => {
            output.remark(format!("warning: the exchange labels it {label:?}"))
        }
        Event::FingerprintDiffers => {
            output.remark("warning: the exchange names this RSA key by another fingerprint; its public key is ours");
        }
        Event::Proven(scope) => {
            let granted = if scope.allowed().next().is_none() {
                "no right yet".into()
            } else {
                scope.to_string()
            };
            output.remark(format!(
                "proved it by a signed login, which was granted {granted}"
            ));
        }
        Event::Granted(scope, whitelist) => {
            let list: Vec<&str> = whitelist.iter().map(Whitelisted::as_str).collect();
            output.remark(format!(
                "gave it scope {scope} and whitelist {} in one edit",
                list.join(" ")
            ));
        }
        Event::Switched(generation) => output.remark(format!("generation {generation} is in use")),
        Event::Clearing(generation) => output.remark(format!(
            "removing generation {generation}, which was superseded before"
        )),
        Event::Disabled(client_id) => output.remark(format!("disabled the old key {client_id}")),
        Event::Swept(key, None) => {
            output.remark(format!("disabled {} ({})", key.client_id, key.name))
        }
        Event::Swept(key, Some(why)) => {
            output.remark(format!("{} ({}): {why}", key.client_id, key.name))
        }
        Event::OneByOne(count) => output.remark(format!(
            "{count} more are asked for one after another: they want a code each, or patience"
        )),
        Event::NotFromHere => {
            output.remark("this host is not on its whitelist: the key works from there only, which was not tried");
        }
    }
}

/// Proves a key that is registered as it should be; else says what differs.
fn prove_again(
    context: &Context,
    name: &KeyName,
    network: &Network,
    spec: &Specification,
    passphrase: &PassphraseArgs,
) -> Result<(), Failure> {
    let record = context.store.record(name)?;
    let Some(known) = &record.registration else {
        return Err(Failure::refused(format!(
            "there is already a key named {name}, which is not registered"
        ))
        .hint(format!(
            "register it with \"derikey register {name}\", or choose another name"
        )));
    };
    let differences = provision::differences(known, record.algorithm, network, spec);
    if !differences.is_empty() {
        return Err(Failure::refused(format!(
            "{name} is registered otherwise: {}",
            differences.join("; ")
        ))
        .hint("nothing was changed; choose another name, or change the key at the exchange"));
    }
    let signer = signers::signer(context, name, &record, passphrase)?;
    let public = signer.public_key().clone();
    let result = runtime()?.block_on(async {
        let connection = Connection::open(context, network).await?;
        match provision::prove(
            &connection.exchange,
            &known.client_id,
            &*signer,
            &spec.scope,
        )
        .await
        {
            Ok((_, proven)) => Ok(Some(proven.granted().clone())),
            // Its whitelist need not hold this host.
            Err(crate::Error::Exchange(error))
                if error.is_credentials() && !known.whitelist.is_empty() && known.enabled =>
            {
                tell(context, &Event::NotFromHere);
                Ok(None)
            }
            Err(error) => Err(Failure::from(error)),
        }
    });
    audit(context, "prove", name, network, Some(&public), &result)?;
    let granted = result?;
    let registration = Registration {
        proven: if granted.is_some() {
            Some(now())
        } else {
            known.proven
        },
        ..known.clone()
    };
    context.store.write_record(
        name,
        context.store.current(name)?,
        &Record {
            registration: Some(registration.clone()),
            ..record.clone()
        },
    )?;
    let how = if granted.is_some() {
        "; proved it again"
    } else {
        ""
    };
    context
        .output
        .remark(format!("{name} is registered like that already{how}"));
    Done {
        name: name.clone(),
        public,
        outcomes: Outcomes {
            registration,
            granted,
        },
        changed: false,
    }
    .print(context)
}

pub(super) fn adopt(context: &Context, args: &Adopt) -> Result<(), Failure> {
    let name: KeyName = args.name.name.parse()?;
    let network = context.network()?;
    let named: Option<ClientId> = args.client_id.as_deref().map(str::parse).transpose()?;
    signers::enrol(context, &name, &args.held)?;
    let record = context.store.record(&name)?;
    let public = context.store.public(&name)?;
    let client_id = match named {
        Some(id) => id,
        None => match paste(context, &name, &network, &public)? {
            Some(typed) => typed.parse()?,
            None => return Ok(()),
        },
    };
    let _lock = if context.global.dry_run {
        None
    } else {
        Some(context.lock(&name)?)
    };
    manage::refuse_pending(context, &name)?;
    let record = context.store.record(&name).unwrap_or(record);
    if let Some(known) = &record.registration
        && (known.client_id != client_id || known.network != network)
    {
        return Err(Failure::refused(format!(
            "{name} is {} on {} already",
            known.client_id, known.network
        ))
        .hint("a key belongs to one network and one client id for ever; make another with \"derikey generate\""));
    }
    if context.global.dry_run {
        return keys::plan(
            context,
            &[format!(
                "would log in on {network} as {client_id} with {name} and bind it"
            )],
        );
    }
    let mut codes = Codes::open(context, &args.second)?;
    let signer = signers::signer_on(context, &name, Some(&network), &args.passphrase)?;
    let result = runtime()?.block_on(async {
        let connection = Connection::open(context, &network).await?;
        let exchange = &connection.exchange;
        let adopted = provision::adopt(exchange, &client_id, &*signer, &mut codes, now()).await;
        adopted.map_err(Failure::from)
    });
    audit(context, "adopt", &name, &network, Some(&public), &result)?;
    let Adopted {
        mut outcomes,
        unseen,
    } = result?;
    if let Some(known) = &record.registration {
        // What was known and could not be seen this time stays known.
        let seen = &mut outcomes.registration;
        if seen.key_id.is_none() {
            let proven = seen.proven;
            *seen = Registration {
                proven,
                ..known.clone()
            };
        }
    }
    let registration = Some(outcomes.registration.clone());
    context.store.write_record(
        &name,
        context.store.current(&name)?,
        &Record {
            registration,
            ..record
        },
    )?;
    let incomplete = outcomes.registration.key_id.is_none();
    let done = Done {
        name,
        public,
        outcomes,
        changed: true,
    };
    let mut value = done.value(context);
    if let Some(unseen) = unseen.filter(|_| incomplete) {
        keys::merge(&mut value, missing(context, &done.name, &unseen));
    }
    context.output.result(&value, || keys::lines(&value))
}

/// Says what is not known of an adopted key, why, and how that is made good.
fn missing(context: &Context, name: &KeyName, unseen: &Unseen) -> Value {
    let (why, cure) = match unseen {
        Unseen::NoRight => (
            "it may not look at the account's keys".into(),
            "give it account:read in the web form, and adopt it again",
        ),
        Unseen::NotListed => (
            "the account does not list it".into(),
            "look at the account's keys in the web form",
        ),
        Unseen::Refused(error @ exchange::Error::NoSecondFactor { .. }) => (
            error.to_string(),
            "adopt it again with --totp-fd, --totp-command or --totp-seed-file, or on a terminal",
        ),
        Unseen::Refused(error) => (error.to_string(), "adopt it again later"),
    };
    context.output.remark(format!(
        "warning: {name} is bound, but not all is known of it: {why}"
    ));
    json!({
        "not_known": ["key_id", "label", "ip_whitelist", "enabled_features"],
        "next": format!("what changes a key needs its id; {cure}"),
    })
}

/// Says what to paste where; a person at the terminal is asked for what the form shows then.
fn paste(
    context: &Context,
    name: &KeyName,
    network: &Network,
    public: &PublicKey,
) -> Result<Option<String>, Failure> {
    let pem = public.to_pem();
    let steps = match network.endpoint() {
        Some(endpoint) => format!(
            "open {}, then Account, API, Add new key, Self-generated key; paste the public key; \
             choose the rights; then run \"derikey adopt {name} --client-id ID\" with the client id shown",
            endpoint.as_str().trim_end_matches("/api/v2")
        ),
        None => format!(
            "the sandbox has no web form to paste this into, and its administrator is at hand: \
             run \"derikey --network sandbox register {name} --scope SCOPE\" instead"
        ),
    };
    let value = json!({"name": name, "fingerprint": public.fingerprint(), "public_key": pem, "next": steps});
    context.output.result(&value, || format!("{pem}{steps}"))?;
    if context.output.json || *network == Network::Sandbox {
        return Ok(None);
    }
    let Some(terminal) = context.terminal() else {
        return Ok(None);
    };
    let typed = terminal.ask("Client id (empty to do it later): ")?;
    Ok(Some(typed.trim().to_owned()).filter(|typed| !typed.is_empty()))
}

pub(super) fn audit<T>(
    context: &Context,
    action: &str,
    name: &KeyName,
    network: &Network,
    public: Option<&PublicKey>,
    result: &Result<T, Failure>,
) -> Result<(), Failure> {
    let outcome = result.as_ref().map_or_else(Failure::kind, |_| "done");
    let mut entry = Entry::new(now(), action, outcome);
    entry.key = Some(name.clone());
    entry.network = Some(network.to_string());
    entry.fingerprint = public.map(PublicKey::fingerprint);
    match (context.store.audit(entry), result) {
        // The failure itself matters more than that it could not be written down.
        (Err(_), Err(_)) | (Ok(()), _) => Ok(()),
        (Err(error), Ok(_)) => Err(error.into()),
    }
}
