//! `enable`, `disable` and `remove`: whether a key may log in, and whether it is there.

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
        connect::{Office, runtime},
        context::Context,
        failure::Failure,
    },
    exchange::{ApiKey, ClientId, KeyId, Network},
    key::KeyName,
    provision::Survey,
    store::{Operation, Registration, Stage, State},
};

pub(in crate::cli) fn set(
    context: &Context,
    args: &Target,
    operation: Operation,
) -> Result<(), Failure> {
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
        return answer::plan(
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
        let survey = work.survey_with(&known.client_id).await?;
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
