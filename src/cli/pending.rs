//! What was interrupted: shown, and finished.

use serde_json::{Value, json};

use super::{
    answer,
    args::Resume,
    audit,
    connect::{Office, runtime_for},
    context::{Context, now},
    failure::Failure,
    keys::{self, Broken},
    manage, memory, registry, rotation,
};
use crate::{
    key::KeyName,
    provision::{self, Surrender},
    secret::Residence,
    store::{self, Intent, Operation},
};

pub(super) fn resume(context: &Context, args: &Resume) -> Result<(), Failure> {
    let wanted: Option<KeyName> = args.name.as_ref().map(|name| name.parse()).transpose()?;
    if let (Some(name), true) = (&wanted, args.abandon) {
        return abandon(context, name, args);
    }
    let (mut intents, mut damaged) = journal(context)?;
    if let Some(name) = &wanted
        && !context.store.contains(name)
        && !intents.iter().any(|intent| intent.name == *name)
        && !damaged.iter().any(|(damaged, _)| damaged == name)
    {
        return Err(store::Error::NoSuchKey { name: name.clone() }.into());
    }
    let is_meant = |name: &KeyName| wanted.as_ref().is_none_or(|wanted| name == wanted);
    intents.retain(|intent| is_meant(&intent.name));
    damaged.retain(|(name, _)| is_meant(name));
    if context.global.dry_run {
        let steps: Vec<String> = intents.iter().map(pending).collect();
        answer::plan(context, &steps)?;
        return keys::all_whole(damaged);
    }
    let (mut resumed, mut failed) = (Vec::new(), damaged);
    for intent in intents {
        match resume_one(context, &intent.name, args) {
            Ok(Some(value)) => resumed.push(value),
            Ok(None) => {}
            Err(failure) => failed.push((intent.name, failure)),
        }
    }
    let left: Vec<Value> = failed
        .iter()
        .map(|(name, failure)| json!({"name": name, "kind": failure.kind(), "message": failure.message()}))
        .collect();
    let last = failed.pop();
    for (_, failure) in failed {
        context.output.remark(failure.message());
    }
    // On a failure standard output stays empty, unless something else was finished or failed too.
    let last = match last {
        Some((_, failure)) if resumed.is_empty() && left.len() == 1 => return Err(failure),
        last => last,
    };
    let value = if left.is_empty() {
        json!({"resumed": resumed})
    } else {
        json!({"resumed": resumed, "failed": left})
    };
    context.output.result(&value, || {
        let texts: Vec<String> = resumed.iter().map(answer::lines).collect();
        match (texts.is_empty(), left.is_empty()) {
            (true, true) => "nothing to finish".into(),
            (true, false) => "nothing could be finished".into(),
            _ => texts.join("\n"),
        }
    })?;
    last.map_or(Ok(()), |(_, failure)| Err(failure))
}

/// Returns what is under way, and the entries that do not say what is.
pub(super) fn journal(context: &Context) -> Result<(Vec<Intent>, Broken), Failure> {
    let (mut intents, mut damaged) = (Vec::new(), Vec::new());
    for (name, entry) in context.store.journal()? {
        match entry {
            Ok(intent) => intents.push(intent),
            Err(error) => {
                let unreadable = matches!(error, store::Error::Unreadable { .. });
                let mut failure = Failure::from(error);
                if unreadable {
                    failure = failure.hint(format!(
                        "it tells what was being done to {name}: restore it from a backup; or look what came of it \
                         with \"derikey list --remote\", and move the file away"
                    ));
                }
                damaged.push((name, failure));
            }
        }
    }
    Ok((intents, damaged))
}

/// Finishes one operation, unless somebody else has in the meantime.
fn resume_one(context: &Context, name: &KeyName, args: &Resume) -> Result<Option<Value>, Failure> {
    let _lock = context.lock(name)?;
    let Some(intent) = context.store.intent(name)? else {
        return Ok(None);
    };
    context.check_network(name, &intent.place.network()?)?;
    match intent.operation {
        Operation::Provision | Operation::Register => {
            let done = registry::finish(context, intent, &args.sealing, &args.admin)?;
            Ok(Some(done.value(context)))
        }
        Operation::Rotate | Operation::Rollback => {
            rotation::finish(context, intent, &args.sealing, &args.admin).map(Some)
        }
        Operation::Edit | Operation::Enable | Operation::Disable | Operation::Remove => {
            manage::finish(context, intent, &args.admin, &args.sealing.passphrase).map(Some)
        }
    }
}

/// Gives an unfinished operation up, for one that cannot or should not be finished.
fn abandon(context: &Context, name: &KeyName, args: &Resume) -> Result<(), Failure> {
    let _lock = context.lock(name)?;
    let Some(intent) = context.store.intent(name)? else {
        return Err(Failure::refused(format!("nothing of {name} is under way"))
            .hint("\"derikey status\" shows what is"));
    };
    let network = intent.place.network()?;
    context.check_network(name, &network)?;
    let action = intent.operation.as_str();
    let surrender = Surrender::of(&context.store, &intent);
    let comes_to = match surrender {
        Surrender::Unheard => "the exchange has not heard of it",
        Surrender::KeyRemoved => "the key that it registered is removed at the exchange",
        Surrender::KeyDisabled => "the key that it enabled is disabled again",
        Surrender::LeftAsItIs if manage::grace_of(&intent).is_some() => {
            "both keys stay as they are until the next rotation, which removes the older one"
        }
        Surrender::LeftAsItIs => "what the exchange has stays as it is",
    };
    if context.global.dry_run {
        return answer::plan(
            context,
            &[format!("would give {action} of {name} up: {comes_to}")],
        );
    }
    context.confirm(
        &format!("this gives {action} of {name} up: {comes_to}"),
        name.as_str(),
    )?;
    let result = runtime_for(context)?.block_on(async {
        if matches!(surrender, Surrender::Unheard | Surrender::LeftAsItIs) {
            return Ok(provision::strike_out(&context.store, &intent, now())?);
        }
        let passphrase = &args.sealing.passphrase;
        let mut office = Office::open(context, &network, &args.admin, passphrase).await?;
        let mut work = manage::work_of(context, &mut office);
        work.give_up(&intent).await.map_err(Failure::from)
    });
    let public = context.store.public(name).ok();
    audit::outcome(context, "abandon", name, &network, public.as_ref(), &result)?;
    result?;
    let value = json!({"name": name, "operation": intent.operation, "abandoned": true});
    context.output.result(&value, || {
        format!("{action} of {name} is given up: {comes_to}")
    })
}

pub(super) fn status(context: &Context) -> Result<(), Failure> {
    let (intents, damaged) = journal(context)?;
    // On a failure standard output stays empty, unless there is something else to show.
    if intents.is_empty() && !damaged.is_empty() {
        return keys::all_whole(damaged);
    }
    let shown: Vec<Value> = intents
        .iter()
        .map(|intent| {
            json!({
                "name": intent.name,
                "operation": intent.operation,
                "stage": intent.stage,
                "network": intent.place.network().map(|network| network.name()).ok(),
                "started": intent.started,
                "client_id": intent.issued.as_ref().map(|issued| &issued.client_id),
                "old_key_enabled_until": manage::grace_of(intent),
            })
        })
        .collect();
    let memory = Residence::of_keys();
    let value = if damaged.is_empty() {
        json!({"pending": shown, "memory": memory.as_str()})
    } else {
        let rows = damaged.iter().map(|(name, failure)| {
            json!({"name": name, "problem": failure.message(), "cure": failure.cure()})
        });
        let rows = rows.collect::<Vec<_>>();
        json!({"pending": shown, "memory": memory.as_str(), "damaged": rows})
    };
    context.output.result(&value, || {
        let mut texts: Vec<String> = intents.iter().map(pending).collect();
        let unknown = |(name, _): &(KeyName, _)| {
            format!("something of {name} is under way; the journal does not say what")
        };
        texts.extend(damaged.iter().map(unknown));
        if texts.is_empty() {
            texts.push("nothing is under way".into());
        }
        texts.push(memory::said(memory).into());
        texts.join("\n")
    })?;
    keys::all_whole(damaged)
}

fn pending(intent: &Intent) -> String {
    if let Some(until) = manage::grace_of(intent) {
        return format!(
            "rotate of {} is in its grace: the old key stays enabled until {until}; then run \"derikey resume {}\"",
            intent.name, intent.name
        );
    }
    format!(
        "{} of {} stopped at {}, begun {}; run \"derikey resume {}\"",
        intent.operation.as_str(),
        intent.name,
        intent.stage.as_str(),
        intent.started,
        intent.name
    )
}
