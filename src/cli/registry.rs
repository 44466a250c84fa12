//! Commands that register keys, provision and register, and what finishes them.

use serde_json::{Value, json};

use super::{
    answer,
    args::{AdminArgs, Provision, Register, Sealing},
    audit,
    connect::{Office, runtime_for},
    context::{Context, now, wants_one},
    events::tell,
    failure::Failure,
    keys, manage, memory, signers,
};
use crate::{
    exchange::{ApiKey, Https, Network},
    key::{Algorithm, KeyName, PrivateKey, PublicKey},
    provision::{self, Event, Outcomes, Work},
    secret::Passphrase,
    signer::Signer,
    store::{Generation, Intent, Operation, Specification, Stage},
};

mod adopt;
mod proof;
mod wish;

pub(super) use adopt::adopt;
use proof::{as_wished, prove_again};
pub(super) use wish::{addresses, features, powers};
use wish::{confirm_rights, plan, same_wish, specification};

pub(super) fn provision(context: &Context, args: &Provision) -> Result<(), Failure> {
    let name: KeyName = args.name.name.parse()?;
    let spec = specification(&args.wish, &name, args.algorithm)?;
    // One that is named may be for the administrator's key.
    let named = args.sealing.passphrase.source();
    let admin_is_a_key = args.admin.admin.is_some()
        || (args.admin.admin_client_id.is_none() && context.config.admin.is_some());
    let is_for_admin = admin_is_a_key && args.admin.passphrase.source().is_none();
    wants_one(
        &args.sealing.plain,
        named.filter(|_| !is_for_admin).as_ref(),
    )?;
    let network = context.network_for(&name)?;
    if context.global.dry_run {
        return rehearse(context, Operation::Provision, &name, &network, &spec);
    }
    let _lock = context.lock(&name)?;
    if let Some(intent) = interrupted(context, Operation::Provision, &name, &network, &spec)? {
        return finish(context, intent, &args.sealing, &args.admin)?.print(context);
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
    let network = context.network_for(&name)?;
    let (_, record) = signers::enrol(context, &name, &args.held)?;
    spec.algorithm = record.algorithm;
    if context.global.dry_run {
        return rehearse(context, Operation::Register, &name, &network, &spec);
    }
    let _lock = context.lock(&name)?;
    // Somebody else may have been at it while this waited.
    let record = context.store.record(&name)?;
    let sealing = Sealing::for_opening(args.passphrase.clone());
    if let Some(intent) = interrupted(context, Operation::Register, &name, &network, &spec)? {
        return finish(context, intent, &sealing, &args.admin)?.print(context);
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

/// Returns what was interrupted if it is what is asked for now; else that gives way, if it can.
pub(super) fn interrupted(
    context: &Context,
    operation: Operation,
    name: &KeyName,
    network: &Network,
    spec: &Specification,
) -> Result<Option<Intent>, Failure> {
    match context.store.intent(name)? {
        Some(intent) if same_wish(&intent, operation, network, spec)? => Ok(Some(intent)),
        Some(intent) => give_way(context, intent).map(|()| None),
        None => Ok(None),
    }
}

/// Says what would be done, as far as looking here tells.
fn rehearse(
    context: &Context,
    operation: Operation,
    name: &KeyName,
    network: &Network,
    spec: &Specification,
) -> Result<(), Failure> {
    if let Some(intent) = context.store.intent(name)? {
        if same_wish(&intent, operation, network, spec)? {
            let (what, stage) = (operation.as_str(), intent.stage.as_str());
            let step = format!("would finish the {what} of {name} that stopped at {stage}");
            return answer::plan(context, &[step]);
        }
        may_give_way(&intent)?;
    } else if context.store.contains(name) {
        let record = context.store.record(name)?;
        if operation == Operation::Provision || record.registration.is_some() {
            as_wished(name, &record, network, spec)?;
            let step = format!("would prove {name} again by a signed login, and change nothing");
            return answer::plan(context, &[step]);
        }
    }
    let make = match operation {
        Operation::Provision => "make",
        _ => "use",
    };
    let mut steps = plan(name, network, spec, make);
    let asked = powers(&spec.scope).into_iter();
    steps.extend(asked.map(|(_, why)| format!("would want a confirmation: {why}")));
    answer::plan(context, &steps)
}

/// Tells whether an interrupted operation is one of which the exchange cannot have heard.
fn may_give_way(intent: &Intent) -> Result<(), Failure> {
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
    Ok(())
}

/// Lets an interrupted operation go of which the exchange cannot have heard.
fn give_way(context: &Context, intent: Intent) -> Result<(), Failure> {
    may_give_way(&intent)?;
    let name = &intent.name;
    if intent.operation == Operation::Provision && context.store.contains(name) {
        context.store.discard(name, now())?;
    }
    Ok(context.store.conclude(name)?)
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
        answer::merge(&mut value, registration(&self.outcomes));
        answer::merge(&mut value, json!({"changed": self.changed}));
        value
    }

    pub(super) fn print(&self, context: &Context) -> Result<(), Failure> {
        let value = self.value(context);
        context.output.result(&value, || answer::lines(&value))
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
    let network = intent.place.network()?;
    let written = intent.clone();
    let result = runtime_for(context)?.block_on(async {
        let mut office = Office::open(context, &network, admin, &sealing.passphrase).await?;
        let mut work = manage::work_of(context, &mut office);
        carry_out(context, intent, &network, sealing, &mut work).await
    });
    write_down(context, &written, &network, result)
}

/// Carries a registration to its end at a desk that is open, and writes down what it came to.
pub(super) async fn finish_at(
    context: &Context,
    intent: Intent,
    sealing: &Sealing,
    work: &mut Work<'_, Https>,
) -> Result<Done, Failure> {
    let network = intent.place.network()?;
    let written = intent.clone();
    let result = carry_out(context, intent, &network, sealing, work).await;
    write_down(context, &written, &network, result)
}

/// Writes down in the audit log what a registration came to.
fn write_down(
    context: &Context,
    intent: &Intent,
    network: &Network,
    result: Result<Done, Failure>,
) -> Result<Done, Failure> {
    let action = intent.operation.as_str();
    let public = result.as_ref().ok().map(|done| &done.public);
    audit::outcome(context, action, &intent.name, network, public, &result)?;
    result
}

async fn carry_out(
    context: &Context,
    mut intent: Intent,
    network: &Network,
    sealing: &Sealing,
    work: &mut Work<'_, Https>,
) -> Result<Done, Failure> {
    let name = intent.name.clone();
    let passphrase = &sealing.passphrase;
    if !context.store.contains(&name) {
        let ours = intent
            .fingerprint
            .filter(|_| intent.stage == Stage::Creating);
        let is_there = match ours {
            Some(ours) => {
                let is_ours = |key: &ApiKey| key.shows(ours);
                work.search_again(&intent, &is_ours).await?.is_some()
            }
            None => intent.stage > Stage::Creating,
        };
        if is_there {
            return Err(Failure::key(format!(
                "{name} is registered, and its private half is gone"
            ))
            .hint(format!(
                "restore it from a backup or from HOME/trash, or give this up with \"derikey resume {name} --abandon\""
            )));
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
        if work.desk.session().is_none() {
            work.desk.log_in().await?;
            tell(context, &Event::OperatorLoggedIn);
        }
        if let Some(session) = work.desk.session() {
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
        let mut next = intent.clone();
        next.stage = Stage::Generated;
        if let Err(error) = context.store.announce(&next) {
            return Err(provision::unfinished(&intent, error.into()).into());
        }
        intent = next;
    }
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
