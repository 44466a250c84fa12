//! Commands that change keys at the exchange: edit, enable, disable, remove.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    args::{AdminArgs, Edit, PassphraseArgs, Target},
    connect::{Office, runtime},
    context::{Context, now},
    keys, registry,
    report::Failure,
};
use crate::{
    exchange::{ApiKey, ClientId, Https, KeyId, Network},
    key::KeyName,
    provision::{self, Attempt, Change, Survey, Work, differences_of},
    store::{
        Generation, Intent, Issued, Operation, Record, Registration, Specification, Stage, State,
    },
};

pub(super) fn edit(context: &Context, args: &Edit) -> Result<(), Failure> {
    let name: KeyName = args.name.name.parse()?;
    let change = change_of(args)?;
    let record = context.store.record(&name)?;
    let known = registered(&name, record.registration.as_ref())?;
    context.check_network(&name, &known.network)?;
    let _lock = context.lock(&name)?;
    refuse_pending(context, &name)?;
    // Somebody else may have been at it while this waited.
    let record = context.store.record(&name)?;
    let known = registered(&name, record.registration.as_ref())?;
    let intent = runtime()?.block_on(async {
        let mut office =
            Office::open(context, &known.network, &args.admin, &args.passphrase).await?;
        let mut work = work_of(context, &mut office);
        let survey = work.survey().await?;
        let key = find(&survey, known)?;
        let wish = provision::merge(key, &change, record.algorithm);
        let differences = differences_of(key, &wish);
        for line in &differences {
            context.output.remark(line);
        }
        if context.global.dry_run || differences.is_empty() {
            let steps: Vec<String> = differences
                .iter()
                .map(|d| format!("would change {d}"))
                .collect();
            let value =
                json!({"dry_run": context.global.dry_run, "changed": false, "steps": steps});
            let text = || {
                if steps.is_empty() {
                    "nothing to change".into()
                } else {
                    steps.join("\n")
                }
            };
            context.output.result(&value, text)?;
            return Ok(None);
        }
        confirm_widening(context, &name, key, &wish)?;
        let narrows = key.max_scope.manages_keys() && !wish.scope.manages_keys();
        if narrows && !args.lock_out.i_will_lock_myself_out {
            refuse_lock_out(&survey, key, work.desk.operator().client_id())?;
        }
        let intent = intend(
            Operation::Edit,
            &name,
            context.store.current(&name)?,
            known,
            key,
            wish,
        );
        context.store.announce(&intent)?;
        let result = work
            .change(&intent, Attempt::First)
            .await
            .map_err(Failure::from);
        audit(context, &intent, &known.network, &result)?;
        result.map(|()| Some(intent))
    })?;
    match intent {
        None => Ok(()),
        Some(intent) => {
            let value = outcome(context, &intent)?;
            context.output.result(&value, || keys::lines(&value))
        }
    }
}

fn change_of(args: &Edit) -> Result<Change, Failure> {
    let parse = |typed: &[String]| registry::addresses(typed, args.unchecked_ip);
    let features: Result<Vec<_>, _> = args.feature.iter().map(|feature| feature.parse()).collect();
    let change = Change {
        scope: args.scope.as_deref().map(str::parse).transpose()?,
        label: args
            .label
            .as_deref()
            .map(str::parse::<KeyName>)
            .transpose()?
            .map(|l| l.to_string()),
        whitelist: (!args.ip.is_empty()).then(|| parse(&args.ip)).transpose()?,
        add: parse(&args.add_ip)?,
        remove: parse(&args.remove_ip)?,
        features: Some(features?).filter(|features| !features.is_empty()),
    };
    let nothing = change.scope.is_none()
        && change.label.is_none()
        && change.whitelist.is_none()
        && change.features.is_none()
        && change.add.is_empty()
        && change.remove.is_empty();
    if nothing {
        return Err(Failure::usage("nothing to change was named")
            .hint("add --scope, --label, --ip, --add-ip, --remove-ip or --feature"));
    }
    Ok(change)
}

/// Makes sure that more rights, or rights without a whitelist, are meant.
fn confirm_widening(
    context: &Context,
    name: &KeyName,
    key: &ApiKey,
    wish: &Specification,
) -> Result<(), Failure> {
    let mut reasons = Vec::new();
    if !wish.scope.is_within(&key.max_scope) {
        reasons.push(format!(
            "get more rights: {} -> {}",
            key.max_scope, wish.scope
        ));
    }
    if wish.whitelist.is_empty() && !key.ip_whitelist.is_empty() {
        reasons.push("be usable from any address".into());
    }
    if reasons.is_empty() {
        return Ok(());
    }
    context.confirm(
        &format!("{name} would {}", reasons.join(", and ")),
        name.as_str(),
    )
}

fn registered<'a>(
    name: &KeyName,
    known: Option<&'a Registration>,
) -> Result<&'a Registration, Failure> {
    known.ok_or_else(|| {
        Failure::refused(format!("{name} is not registered at an exchange")).hint(format!(
            "register it first with \"derikey register {name}\""
        ))
    })
}

fn find<'a>(survey: &'a Survey, known: &Registration) -> Result<&'a ApiKey, Failure> {
    survey.by_client_id(&known.client_id).ok_or_else(|| {
        Failure::refused(format!(
            "the account has no key {} any more",
            known.client_id
        ))
        .hint("it was removed there, or the administrator is of another account")
    })
}

pub(super) fn refuse_pending(context: &Context, name: &KeyName) -> Result<(), Failure> {
    match context.store.intent(name)? {
        None => Ok(()),
        Some(intent) => Err(Failure::refused(format!(
            "{} of {name} is under way",
            intent.operation.as_str()
        ))
        .hint(format!("finish it first with \"derikey resume {name}\""))),
    }
}

fn refuse_lock_out(survey: &Survey, key: &ApiKey, operator: &ClientId) -> Result<(), Failure> {
    match survey.lock_out(key, operator) {
        None => Ok(()),
        Some(why) => Err(Failure::refused(format!("that would lock you out: {why}"))
            .hint("use another administrator; or, if you mean it, add --i-will-lock-myself-out")),
    }
}

/// Returns the desk with its keystore, and with somebody who tells what happens.
pub(super) fn work_of<'a>(context: &'a Context, office: &'a mut Office<'_>) -> Work<'a, Https> {
    Work {
        store: &context.store,
        desk: office.desk(),
        tell: Box::new(|event| registry::tell(context, &event)),
        now,
        seen: BTreeMap::new(),
    }
}

fn intend(
    operation: Operation,
    name: &KeyName,
    generation: Generation,
    known: &Registration,
    key: &ApiKey,
    wish: Specification,
) -> Intent {
    let mut intent = provision::intend(operation, name, generation, &known.network, wish, now());
    intent.stage = Stage::Planned;
    intent.issued = Some(Issued {
        client_id: key.client_id.clone(),
        key_id: key.id,
        fingerprint_verified: known.fingerprint_verified,
    });
    intent
}

/// Finishes an interrupted change.
pub(super) fn finish(
    context: &Context,
    intent: Intent,
    admin: &AdminArgs,
    passphrase: &PassphraseArgs,
) -> Result<Value, Failure> {
    let network = intent.place.network()?;
    let result = runtime()?.block_on(async {
        let mut office = Office::open(context, &network, admin, passphrase).await?;
        let mut work = work_of(context, &mut office);
        work.change(&intent, Attempt::Again)
            .await
            .map_err(Failure::from)
    });
    audit(context, &intent, &network, &result)?;
    result?;
    outcome(context, &intent)
}

/// What a change came to.
fn outcome(context: &Context, intent: &Intent) -> Result<Value, Failure> {
    if intent.operation == Operation::Remove {
        return Ok(json!({"name": intent.name, "removed": true, "changed": true}));
    }
    let mut value = keys::about(context, &intent.name)?;
    keys::merge(&mut value, json!({"changed": true}));
    Ok(value)
}

fn audit<T>(
    context: &Context,
    intent: &Intent,
    network: &Network,
    result: &Result<T, Failure>,
) -> Result<(), Failure> {
    let public = context.store.public(&intent.name).ok();
    registry::audit(
        context,
        intent.operation.as_str(),
        &intent.name,
        network,
        public.as_ref(),
        result,
    )
}

/// How a key is named for a change.
enum Named {
    Key(KeyName),
    Id(KeyId),
    Client(ClientId),
}

impl Named {
    fn parse(text: &str) -> Result<Self, Failure> {
        if let Some(id) = text.strip_prefix("id:") {
            let id = id
                .parse()
                .map_err(|_| Failure::usage(format!("{id:?} is no key id")).hint("such as id:7"))?;
            return Ok(Self::Id(KeyId(id)));
        }
        match text.strip_prefix("client:") {
            Some(id) => Ok(Self::Client(id.parse()?)),
            None => Ok(Self::Key(text.parse()?)),
        }
    }
}

pub(super) fn set(context: &Context, args: &Target, operation: Operation) -> Result<(), Failure> {
    match Named::parse(&args.target)? {
        Named::Key(name) => set_named(context, args, operation, &name),
        Named::Id(id) => match in_use(context, |known| known.key_id == Some(id))? {
            Some(name) => set_named(context, args, operation, &name),
            None => set_remote(context, args, operation, &|survey| survey.by_id(id)),
        },
        Named::Client(id) => match in_use(context, |known| known.client_id == id)? {
            Some(name) => set_named(context, args, operation, &name),
            None => set_remote(context, args, operation, &|survey| survey.by_client_id(&id)),
        },
    }
}

/// Finds the key here, by its name, that goes by an id on the network that is meant: however it
/// is named, it is locked, journalled and recorded the same way.
fn in_use(
    context: &Context,
    is_it: impl Fn(&Registration) -> bool,
) -> Result<Option<KeyName>, Failure> {
    let network = context.network()?;
    for name in context.store.names()? {
        // A record that cannot be read is nobody's reason not to disable another key.
        let registration = context
            .store
            .record(&name)
            .ok()
            .and_then(|r| r.registration);
        if registration.is_some_and(|known| known.network == network && is_it(&known)) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn set_named(
    context: &Context,
    args: &Target,
    operation: Operation,
    name: &KeyName,
) -> Result<(), Failure> {
    let record = context.store.record(name)?;
    let known = registered(name, record.registration.as_ref())?;
    context.check_network(name, &known.network)?;
    let _lock = context.lock(name)?;
    refuse_pending(context, name)?;
    // Somebody else may have been at it while this waited.
    let record = context.store.record(name)?;
    let known = registered(name, record.registration.as_ref())?;
    if context.global.dry_run {
        return keys::plan(
            context,
            &[format!(
                "would {} {name} on {}",
                operation.as_str(),
                known.network
            )],
        );
    }
    let intent = runtime()?.block_on(async {
        let mut office =
            Office::open(context, &known.network, &args.admin, &args.passphrase).await?;
        let mut work = work_of(context, &mut office);
        let survey = work.survey().await?;
        let key = find(&survey, known)?;
        if operation != Operation::Enable && !args.lock_out.i_will_lock_myself_out {
            refuse_lock_out(&survey, key, work.desk.operator().client_id())?;
        }
        // What counts is whether it works there, not whether it is thought to.
        if operation == Operation::Remove && key.enabled != Some(false) {
            let why = format!("{name} is enabled, and removing it cannot be undone");
            context.confirm(&why, name.as_str())?;
        }
        let wish = provision::merge(key, &Change::default(), record.algorithm);
        let intent = intend(
            operation,
            name,
            context.store.current(name)?,
            known,
            key,
            wish,
        );
        context.store.announce(&intent)?;
        let result = work
            .change(&intent, Attempt::First)
            .await
            .map_err(Failure::from);
        audit(context, &intent, &known.network, &result)?;
        result.map(|()| intent)
    })?;
    let value = outcome(context, &intent)?;
    context.output.result(&value, || keys::lines(&value))
}

/// Changes a key that is named by what the exchange calls it; it need not be here.
fn set_remote(
    context: &Context,
    args: &Target,
    operation: Operation,
    pick: &dyn Fn(&Survey) -> Option<&ApiKey>,
) -> Result<(), Failure> {
    let network = context.network()?;
    let target = &args.target;
    if context.global.dry_run {
        return keys::plan(
            context,
            &[format!(
                "would {} {target} on {network}",
                operation.as_str()
            )],
        );
    }
    let value = runtime()?.block_on(async {
        let mut office = Office::open(context, &network, &args.admin, &args.passphrase).await?;
        let mut work = work_of(context, &mut office);
        let survey = work.survey().await?;
        let Some(key) = pick(&survey) else {
            return Err(Failure::refused(format!("the account has no key {target}"))
                .hint("\"derikey list --remote\" shows the account's keys"));
        };
        if operation != Operation::Enable && !args.lock_out.i_will_lock_myself_out {
            refuse_lock_out(&survey, key, work.desk.operator().client_id())?;
        }
        // A damaged record must not stand in the way.
        let ours = local_of(context, &network, key).ok().flatten();
        let retired = ours
            .as_ref()
            .is_some_and(|(_, _, record)| record.state() == State::Retired);
        if operation == Operation::Remove && key.enabled != Some(false) && !retired {
            let why = format!(
                "{} ({}) is enabled, and removing it cannot be undone",
                key.client_id, key.name
            );
            context.confirm(&why, key.client_id.as_str())?;
        }
        work.set(key.id, &key.client_id, operation).await?;
        if let Err(failure) = note(context, &network, key, operation == Operation::Enable) {
            context.output.remark(failure.message());
        }
        let mut entry = crate::store::Entry::new(now(), operation.as_str(), "done");
        entry.key = ours.map(|(name, ..)| name);
        entry.network = Some(format!("{network} {}", key.client_id));
        context.store.audit(entry)?;
        Ok(json!({
            "client_id": key.client_id,
            "key_id": key.id,
            "label": key.name,
            "network": network.name(),
            "operation": operation,
            "changed": true,
        }))
    })?;
    context.output.result(&value, || keys::lines(&value))
}

/// Finds the key in the keystore that a remote one is.
fn local_of(
    context: &Context,
    network: &Network,
    key: &ApiKey,
) -> Result<Option<(KeyName, Generation, Record)>, Failure> {
    for name in context.store.names()? {
        for generation in context.store.generations(&name).unwrap_or_default() {
            // A record that cannot be read is nobody's reason not to disable another key.
            let Ok(record) = context.store.record_of(&name, generation) else {
                continue;
            };
            let is_it = |known: &Registration| {
                known.client_id == key.client_id && known.network == *network
            };
            if record.registration.as_ref().is_some_and(is_it) {
                return Ok(Some((name, generation, record)));
            }
        }
    }
    Ok(None)
}

/// Writes down that a key may log in, or not any more, if it is one of ours.
pub(super) fn note(
    context: &Context,
    network: &Network,
    key: &ApiKey,
    enabled: bool,
) -> Result<(), Failure> {
    if let Some((name, generation, mut record)) = local_of(context, network, key)? {
        if let Some(known) = &mut record.registration {
            known.enabled = enabled;
        }
        context.store.write_record(&name, generation, &record)?;
    }
    Ok(())
}
