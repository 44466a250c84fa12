//! `enable`, `disable` and `remove`: whether a key may log in, and whether it is there.

use std::time::Duration;

use serde_json::json;

use super::{
    find, local_of, refuse_foreign, refuse_lock_out, refuse_pending, registered,
    switch::{Switch, set_there, switch},
    work_of,
};
use crate::{
    cli::{
        answer,
        args::Target,
        connect::{Office, runtime_for},
        context::Context,
        failure::Failure,
    },
    exchange::{ApiKey, ClientId, Https, KeyId, Network},
    key::KeyName,
    provision::{Survey, Work},
    store::{Lock, Operation, Registration, Stage, State},
};

/// How long the disabling of a key waits for whoever works on it.
const BRIEFLY: Duration = Duration::from_secs(2);

pub(in crate::cli) fn set(
    context: &Context,
    args: &Target,
    operation: Operation,
) -> Result<(), Failure> {
    match Named::parse(&args.target)? {
        Named::Key(name) => set_named(context, args, operation, &name),
        Named::Id(id) => {
            let is_it = |known: &Registration| known.key_id == Some(id);
            set_by_id(context, args, operation, &is_it, &|survey| survey.by_id(id))
        }
        Named::Client(id) => {
            let is_it = |known: &Registration| known.client_id == id;
            set_by_id(context, args, operation, &is_it, &|survey| {
                survey.by_client_id(&id)
            })
        }
    }
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

/// Finds the key here, by its name, that goes by an id on the network that is meant: however it
/// is named, it is locked, journalled and recorded the same way.
fn in_use(
    context: &Context,
    network: &Network,
    is_it: &dyn Fn(&Registration) -> bool,
) -> Result<Option<KeyName>, Failure> {
    for name in context.store.names()? {
        // A record that cannot be read is nobody's reason not to disable another key.
        let registration = context
            .store
            .record(&name)
            .ok()
            .and_then(|r| r.registration);
        if registration.is_some_and(|known| known.network == *network && is_it(&known)) {
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
    if record.registration.is_none()
        && let Ok(Some(pending)) = context.store.intent(name)
    {
        return Err(
            Failure::refused(format!("{name} is still being registered")).hint(format!(
                "take it back with \"derikey resume {name} --abandon\", or disable what there may be of it \
                 with \"derikey panic --match {} --network {}\"",
                pending.spec.label,
                pending.place.network().map_or("NETWORK", |network| network.name()),
            )),
        );
    }
    let known = registered(name, record.registration.as_ref())?;
    context.check_network(name, &known.network)?;
    match lock(context, name, operation) {
        Ok(_lock) => set_locked(context, args, operation, name),
        Err(failure) if operation == Operation::Disable => {
            disable_anyway(context, args, &failure, &known.network, &|survey| {
                survey.by_client_id(&known.client_id)
            })
        }
        Err(failure) => Err(failure),
    }
}

/// Changes the key that an id names, under the name that it has here while it is in use.
fn set_by_id(
    context: &Context,
    args: &Target,
    operation: Operation,
    is_it: &dyn Fn(&Registration) -> bool,
    pick: &dyn Fn(&Survey) -> Option<&ApiKey>,
) -> Result<(), Failure> {
    let network = context.network()?;
    if let Some(name) = in_use(context, &network, is_it)? {
        match lock(context, &name, operation) {
            Ok(_lock) => {
                // A rotation may have put another key in its place while this waited.
                let record = context.store.record(&name)?;
                if record.registration.as_ref().is_some_and(is_it) {
                    return set_locked(context, args, operation, &name);
                }
            }
            Err(failure) if operation == Operation::Disable => {
                return disable_anyway(context, args, &failure, &network, pick);
            }
            Err(failure) => return Err(failure),
        }
    }
    set_remote(context, args, operation, &network, pick)
}

/// Keeps others away from a key; one that is to be disabled may be leaked, and waits for nobody long.
fn lock(context: &Context, name: &KeyName, operation: Operation) -> Result<Lock, Failure> {
    match operation {
        Operation::Disable => Ok(context.store.lock(name, BRIEFLY)?),
        _ => context.lock(name),
    }
}

/// Disables a key that somebody else works on, or of which nothing can be written down: one that
/// is leaked waits for no hook and for no disk.
fn disable_anyway(
    context: &Context,
    args: &Target,
    failure: &Failure,
    network: &Network,
    pick: &dyn Fn(&Survey) -> Option<&ApiKey>,
) -> Result<(), Failure> {
    let why = failure.message();
    context
        .output
        .remark(format!("{why}; it is disabled all the same"));
    set_remote(context, args, Operation::Disable, network, pick)
}

/// Changes a key that nobody else works on.
fn set_locked(
    context: &Context,
    args: &Target,
    operation: Operation,
    name: &KeyName,
) -> Result<(), Failure> {
    let record = context.store.record(name)?;
    let known = registered(name, record.registration.as_ref())?;
    let meanwhile = beside(context, name, operation)?;
    if context.global.dry_run {
        return answer::plan(
            context,
            &[format!(
                "would {} {name} on {}",
                operation.as_str(),
                known.network
            )],
        );
    }
    let value = runtime_for(context)?.block_on(async {
        let mut office =
            Office::open(context, &known.network, &args.admin, &args.passphrase).await?;
        let mut work = work_of(context, &mut office);
        let survey = look(&mut work, operation, Some(&known.client_id)).await?;
        let key = find(&survey, known)?;
        if operation == Operation::Enable {
            refuse_foreign(context, name, key)?;
        }
        if operation != Operation::Enable && !args.lock_out.i_will_lock_myself_out {
            refuse_lock_out(&survey, key, work.desk.operator().client_id())?;
        }
        // What counts is whether it works there, not whether it is thought to.
        if operation == Operation::Remove && key.enabled != Some(false) {
            let why = format!("{name} is enabled, and removing it cannot be undone");
            context.confirm(&why, name.as_str())?;
        }
        let it = Switch {
            operation,
            name,
            record: &record,
            known,
            key,
        };
        switch(context, &mut work, &it, meanwhile).await
    })?;
    context.output.result(&value, || answer::lines(&value))
}

/// Tells whether a switch is made beside an operation that is under way, and what that one will
/// do; nothing where it is journalled as usual.
///
/// A leaked key is disabled at once, whatever else is going on; and what was disabled so may be
/// enabled again. The entry that is there stays true: `resume` enables nothing that was disabled.
pub(in crate::cli) fn beside(
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

/// Looks at the account, at what can be read of it where that is what is to be disabled.
async fn look(
    work: &mut Work<'_, Https>,
    operation: Operation,
    with: Option<&ClientId>,
) -> Result<Survey, Failure> {
    if operation == Operation::Disable {
        let (survey, others) = work.survey_legible().await?;
        let is_there = |id: &ClientId| survey.by_client_id(id).is_some();
        if others > 0 || with.is_none_or(is_there) {
            return Ok(survey);
        }
    }
    Ok(match with {
        Some(client_id) => work.survey_with(client_id).await?,
        None => work.survey().await?,
    })
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
        return answer::plan(
            context,
            &[format!(
                "would {} {target} on {network}",
                operation.as_str()
            )],
        );
    }
    let value = runtime_for(context)?.block_on(async {
        let mut office = Office::open(context, network, &args.admin, &args.passphrase).await?;
        let mut work = work_of(context, &mut office);
        let survey = look(&mut work, operation, None).await?;
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
        let name = ours.map(|(name, ..)| name);
        set_there(context, &mut work, network, key, operation, name).await?;
        Ok(json!({
            "client_id": key.client_id,
            "key_id": key.id,
            "label": key.name,
            "network": network.name(),
            "operation": operation,
            "changed": true,
        }))
    })?;
    context.output.result(&value, || answer::lines(&value))
}
