//! What was interrupted: shown, and finished.

use serde_json::{Value, json};

use super::{
    args::Resume, context::Context, keys, manage, memory, registry, report::Failure, rotation,
};
use crate::{
    key::KeyName,
    secret::Residence,
    store::{Intent, Operation},
};

pub(super) fn resume(context: &Context, args: &Resume) -> Result<(), Failure> {
    let wanted: Option<KeyName> = args.name.as_ref().map(|name| name.parse()).transpose()?;
    let mut intents = context.store.intents()?;
    intents.retain(|intent| wanted.as_ref().is_none_or(|name| intent.name == *name));
    if context.global.dry_run {
        let steps: Vec<String> = intents.iter().map(pending).collect();
        return keys::plan(context, &steps);
    }
    let mut resumed = Vec::new();
    let mut failed = None;
    for intent in intents {
        match resume_one(context, &intent.name, args) {
            Ok(Some(value)) => resumed.push(value),
            Ok(None) => {}
            Err(failure) => {
                if let Some(earlier) = failed.replace(failure) {
                    context.output.remark(Failure::message(&earlier));
                }
            }
        }
    }
    // On a failure standard output stays empty, unless something else was finished.
    let failed = match failed {
        Some(failure) if resumed.is_empty() => return Err(failure),
        failed => failed,
    };
    let value = json!({"resumed": resumed});
    context.output.result(&value, || {
        let texts: Vec<String> = resumed.iter().map(keys::lines).collect();
        if texts.is_empty() {
            "nothing to finish".into()
        } else {
            texts.join("\n")
        }
    })?;
    failed.map_or(Ok(()), Err)
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

pub(super) fn status(context: &Context) -> Result<(), Failure> {
    let intents = context.store.intents()?;
    let shown: Vec<Value> = intents
        .iter()
        .map(|intent| {
            json!({
                "name": intent.name,
                "operation": intent.operation,
                "stage": intent.stage,
                "network": intent.place,
                "started": intent.started,
                "client_id": intent.issued.as_ref().map(|issued| &issued.client_id),
            })
        })
        .collect();
    let memory = Residence::available();
    let value = json!({"pending": shown, "memory": memory.as_str()});
    context.output.result(&value, || {
        let mut texts: Vec<String> = intents.iter().map(pending).collect();
        if texts.is_empty() {
            texts.push("nothing is under way".into());
        }
        texts.push(memory::said(memory).into());
        texts.join("\n")
    })
}

fn pending(intent: &Intent) -> String {
    format!(
        "{} of {} stopped at {}, begun {}; run \"derikey resume {}\"",
        intent.operation.as_str(),
        intent.name,
        intent.stage.as_str(),
        intent.started,
        intent.name
    )
}
