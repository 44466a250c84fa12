//! Commands that change keys at the exchange: edit, enable, disable, remove.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    args::{AdminArgs, Edit, PassphraseArgs, Target},
    audit,
    connect::{Office, runtime},
    context::{Context, now},
    events, keys, registry,
    report::Failure,
};
use crate::{
    exchange::{ApiKey, ClientId, Https, KeyId, Network, Setting},
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
        refuse_to_garble(&name, key, &change)?;
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
            if !context.global.dry_run {
                // It is so already, which need not be what is recorded.
                as_it_is_there(context, &name, &record, key)?;
            }
            let mut value = keys::about(context, &name)?;
            keys::merge(
                &mut value,
                json!({"dry_run": context.global.dry_run, "changed": false, "steps": steps}),
            );
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

/// Refuses to send back what could not be shown and is therefore not what the exchange has.
fn refuse_to_garble(name: &KeyName, key: &ApiKey, change: &Change) -> Result<(), Failure> {
    for setting in &key.tamed {
        let (what, flag, is_replaced) = match setting {
            Setting::Label => ("label", "--label", change.label.is_some()),
            Setting::Whitelist => ("whitelist", "--ip", change.whitelist.is_some()),
            Setting::Features => ("features", "--feature", change.features.is_some()),
        };
        if !is_replaced {
            return Err(Failure::refused(format!(
                "the {what} of {name} at the exchange cannot be kept as it is: it holds what cannot be shown"
            ))
            .hint(format!(
                "an edit sends everything again, so name it anew with {flag} as well"
            )));
        }
    }
    Ok(())
}

/// Writes down what the exchange has, where no change was needed to have it so.
fn as_it_is_there(
    context: &Context,
    name: &KeyName,
    record: &Record,
    key: &ApiKey,
) -> Result<(), Failure> {
    let mut seen = record.clone();
    if let Some(known) = &mut seen.registration {
        known.key_id = Some(key.id);
        known.label.clone_from(&key.name);
        known.scope = key.max_scope.clone();
        known.whitelist.clone_from(&key.ip_whitelist);
        known.features.clone_from(&key.enabled_features);
    }
    if seen != *record {
        let generation = context.store.current(name)?;
        context.store.write_record(name, generation, &seen)?;
    }
    Ok(())
}

fn change_of(args: &Edit) -> Result<Change, Failure> {
    let parse = |typed: &[String]| registry::addresses(typed, args.unchecked_ip);
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
        features: registry::features(&args.feature)?,
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
        tell: Box::new(|event| events::tell(context, &event)),
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
    audit::outcome(
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
            None => set_remote(context, args, operation, &context.network()?, &|survey| {
                survey.by_id(id)
            }),
        },
        Named::Client(id) => match in_use(context, |known| known.client_id == id)? {
            Some(name) => set_named(context, args, operation, &name),
            None => set_remote(context, args, operation, &context.network()?, &|survey| {
                survey.by_client_id(&id)
            }),
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
    // Somebody else may have been at it while this waited.
    let record = context.store.record(name)?;
    let known = registered(name, record.registration.as_ref())?;
    let meanwhile = beside(context, name, operation)?;
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
    let value = runtime()?.block_on(async {
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
        if let Some(meanwhile) = meanwhile {
            // Its journal entry is not ours to write over: this is a step of its own.
            let done = work.set(key.id, &key.client_id, operation).await;
            let done = done.map_err(Failure::from);
            let public = context.store.public(name).ok();
            let action = operation.as_str();
            audit::outcome(
                context,
                action,
                name,
                &known.network,
                public.as_ref(),
                &done,
            )?;
            done?;
            note(context, &known.network, key, operation == Operation::Enable)?;
            context.output.remark(&meanwhile);
            let mut value = keys::about(context, name)?;
            keys::merge(&mut value, json!({"changed": true, "meanwhile": meanwhile}));
            return Ok(value);
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
        result.and_then(|()| outcome(context, &intent))
    })?;
    context.output.result(&value, || keys::lines(&value))
}

/// Tells whether a switch is made beside an operation that is under way, and what that one will
/// do; nothing where it is journalled as usual.
///
/// A leaked key is disabled at once, whatever else is going on; and what was disabled so may be
/// enabled again. The entry that is there stays true: `resume` enables nothing that was disabled.
fn beside(
    context: &Context,
    name: &KeyName,
    operation: Operation,
) -> Result<Option<String>, Failure> {
    let pending = context.store.intent(name);
    let disables = operation == Operation::Disable;
    let enables = operation == Operation::Enable;
    let intent = match pending {
        Ok(None) => return Ok(None),
        Ok(Some(intent)) => intent,
        Err(error) if disables => {
            return Ok(Some(format!("something of {name} is under way: {error}")));
        }
        Err(error) => return Err(error.into()),
    };
    match intent.operation {
        // One takes the place of the other.
        Operation::Enable | Operation::Disable if disables => return Ok(None),
        Operation::Edit | Operation::Enable | Operation::Disable | Operation::Remove
            if !disables =>
        {
            return refuse_pending(context, name).map(|()| None);
        }
        _ if disables || enables => {}
        _ => return refuse_pending(context, name).map(|()| None),
    }
    let what = intent.operation.as_str();
    let next = match (&intent.succession, disables) {
        (Some(before), true) if intent.stage >= Stage::Switched => format!(
            "the key before it, {}, is still enabled if you have not disabled it; \
             \"derikey resume {name}\" does not disable it while {name} is",
            before.client_id
        ),
        (Some(_), true) => format!("\"derikey resume {name}\" puts another key in its place"),
        (None, true) => format!("\"derikey resume {name}\" does not enable it"),
        (_, false) => format!("\"derikey resume {name}\" finishes it"),
    };
    Ok(Some(format!("{what} of {name} is under way still: {next}")))
}

/// Changes a key that is named by what the exchange calls it; it need not be here.
fn set_remote(
    context: &Context,
    args: &Target,
    operation: Operation,
    network: &Network,
    pick: &dyn Fn(&Survey) -> Option<&ApiKey>,
) -> Result<(), Failure> {
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
        let mut office = Office::open(context, network, &args.admin, &args.passphrase).await?;
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
        let ours = local_of(context, network, key).ok().flatten();
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
        if let Err(failure) = note(context, network, key, operation == Operation::Enable) {
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
        if !enabled {
            give_up_enabling(context, &name, &key.client_id)?;
        }
    }
    Ok(())
}

/// Strikes out what would enable a key again that has just been disabled.
fn give_up_enabling(
    context: &Context,
    name: &KeyName,
    client_id: &ClientId,
) -> Result<(), Failure> {
    // One that cannot be read is said to be so by whoever wants to go on with it.
    let Ok(Some(intent)) = context.store.intent(name) else {
        return Ok(());
    };
    let enables = match intent.operation {
        Operation::Enable => true,
        // Before its key is proven nothing else was changed.
        Operation::Rollback => intent.stage < Stage::Proven,
        _ => false,
    };
    let issued = intent.issued.as_ref();
    if enables && issued.is_some_and(|issued| issued.client_id == *client_id) {
        context.store.conclude(name)?;
        context.output.remark(format!(
            "{} of {name}, which was under way, is given up: it would have enabled the key",
            intent.operation.as_str()
        ));
    }
    Ok(())
}
