//! Switching one key at a desk that is open: journalled where it is one of ours.

use serde_json::{Value, json};

use super::{give_up_enabling, go_on, intend, note, outcome};
use crate::{
    cli::{
        answer, audit,
        context::{Context, now},
        failure::Failure,
        keys,
    },
    exchange::{ApiKey, Https, Network},
    key::KeyName,
    provision::{Attempt, Work},
    store::{Entry, Operation, Record, Registration},
};

/// A key here that is to be enabled, disabled or removed there.
pub(in crate::cli) struct Switch<'a> {
    pub(in crate::cli) operation: Operation,
    pub(in crate::cli) name: &'a KeyName,
    pub(in crate::cli) record: &'a Record,
    pub(in crate::cli) known: &'a Registration,
    pub(in crate::cli) key: &'a ApiKey,
}

/// Switches a key that is locked, beside whatever else is under way with it.
pub(in crate::cli) async fn switch(
    context: &Context,
    work: &mut Work<'_, Https>,
    switch: &Switch<'_>,
    meanwhile: Option<String>,
) -> Result<Value, Failure> {
    let Switch {
        operation,
        name,
        known,
        key,
        ..
    } = *switch;
    let meanwhile = match meanwhile {
        Some(meanwhile) => meanwhile,
        None => {
            // Its settings stay, whatever they are by now.
            let settings = known.specification(switch.record.algorithm);
            let current = context.store.current(name)?;
            let intent = intend(operation, name, current, known, key, settings);
            match context.store.announce(&intent) {
                Ok(()) => {
                    go_on(context, work, &intent, &known.network, Attempt::First).await?;
                    let mut value = outcome(context, &intent)?;
                    if operation != Operation::Remove {
                        let was_so = key.enabled == Some(operation == Operation::Enable);
                        answer::merge(&mut value, json!({"changed": !was_so}));
                    }
                    return Ok(value);
                }
                // One that is leaked does not wait for a disk that is full.
                Err(error) if operation == Operation::Disable => error.to_string(),
                Err(error) => return Err(error.into()),
            }
        }
    };
    if operation == Operation::Disable {
        said(context, give_up_enabling(context, name, &key.client_id));
    }
    // The journal entry that is there is not ours to write over: this is a step of its own.
    let done = work.set(key.id, &key.client_id, operation).await;
    let done = done.map_err(Failure::from);
    let public = context.store.public(name).ok();
    let action = operation.as_str();
    let audited = audit::outcome(
        context,
        action,
        name,
        &known.network,
        public.as_ref(),
        &done,
    );
    done?;
    note(context, &known.network, key, operation == Operation::Enable)
        .and(audited)
        .map_err(|failure| failure.about(DONE_UNWRITTEN))?;
    context.output.remark(&meanwhile);
    let mut value = keys::about(context, name)?;
    answer::merge(&mut value, json!({"changed": true, "meanwhile": meanwhile}));
    Ok(value)
}

/// Says what could not be written down, and goes on.
pub(in crate::cli) fn said(context: &Context, written: Result<(), Failure>) {
    if let Err(failure) = written {
        context.output.remark(failure.message());
    }
}

/// What becomes of a leaked key matters more than the record of it.
const DONE_UNWRITTEN: &str = "it is done at the exchange, and not written down here";

/// Changes a key by its ids alone, records that if it is one of ours, and writes it down.
pub(in crate::cli) async fn set_there(
    context: &Context,
    work: &mut Work<'_, Https>,
    network: &Network,
    key: &ApiKey,
    operation: Operation,
    name: Option<KeyName>,
) -> Result<(), Failure> {
    if let (Operation::Disable, Some(name)) = (operation, &name) {
        said(context, give_up_enabling(context, name, &key.client_id));
    }
    let done = work.set(key.id, &key.client_id, operation).await;
    let done = done.map_err(Failure::from);
    if done.is_ok() {
        said(
            context,
            note(context, network, key, operation == Operation::Enable),
        );
    }
    let outcome = done.as_ref().map_or_else(Failure::kind, |()| "done");
    let mut entry = Entry::new(now(), operation.as_str(), outcome);
    let network = network.to_string();
    entry.key = name.as_ref();
    entry.client_id = Some(&key.client_id);
    entry.network = Some(&network);
    let audited = context.store.audit(entry).map_err(Failure::from);
    done?;
    audited.map_err(|failure| failure.about(DONE_UNWRITTEN))
}
