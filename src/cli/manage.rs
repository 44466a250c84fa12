//! Changes to keys at the exchange: begun, finished, written down.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    answer,
    args::{AdminArgs, PassphraseArgs},
    audit,
    connect::{Office, runtime_for},
    context::{Context, now},
    events,
    failure::Failure,
    keys,
};
use crate::{
    exchange::{ApiKey, ClientId, Https, Network},
    key::KeyName,
    provision::{self, Attempt, Survey, Work},
    store::{
        Generation, Intent, Issued, Moment, Operation, Record, Registration, Specification, Stage,
    },
};

pub(super) mod edit;
mod enable;
mod switch;

pub(super) use edit::{as_seen, edit};
pub(super) use enable::{beside, set};
pub(super) use switch::{Switch, said, set_there, switch};

pub(super) fn registered<'a>(
    name: &KeyName,
    known: Option<&'a Registration>,
) -> Result<&'a Registration, Failure> {
    known.ok_or_else(|| {
        Failure::refused(format!("{name} is not registered at an exchange")).hint(format!(
            "register it with \"derikey register {name} --scope SCOPE\", or bind it with \"derikey adopt {name}\""
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

/// Returns the record of a key; of one that was adopted without a look at the account with what is
/// seen of it now, which is kept.
pub(super) fn looked_up(
    context: &Context,
    name: &KeyName,
    admin: &AdminArgs,
    passphrase: &PassphraseArgs,
) -> Result<Record, Failure> {
    let record = context.store.record(name)?;
    let Some(known) = record
        .registration
        .as_ref()
        .filter(|known| known.key_id.is_none())
    else {
        return Ok(record);
    };
    let seen = runtime_for(context)?.block_on(async {
        let mut office = Office::open(context, &known.network, admin, passphrase).await?;
        let survey = work_of(context, &mut office)
            .survey_with(&known.client_id)
            .await?;
        let key = find(&survey, known)?;
        refuse_foreign(context, name, key)?;
        Ok::<_, Failure>(as_seen(&record, key))
    })?;
    context
        .store
        .write_record(name, context.store.current(name)?, &seen)?;
    Ok(seen)
}

pub(super) fn refuse_pending(context: &Context, name: &KeyName) -> Result<(), Failure> {
    let Some(intent) = context.store.intent(name)? else {
        return Ok(());
    };
    if let Some(until) = grace_of(&intent) {
        let why =
            format!("{name} is in the grace of a rotation: its old key is enabled until {until}");
        return Err(Failure::refused(why).hint(format!(
            "go back with \"derikey rollback {name}\", or end the grace with \"derikey resume {name} --abandon\", \
             which leaves both keys as they are until the next rotation"
        )));
    }
    let operation = intent.operation.as_str();
    Err(
        Failure::refused(format!("{operation} of {name} is under way"))
            .hint(format!("finish it first with \"derikey resume {name}\"")),
    )
}

/// Returns until when the old key of a rotation stays enabled, while it does.
pub(super) fn grace_of(intent: &Intent) -> Option<Moment> {
    let succession = intent.succession.as_ref()?;
    let until = succession.until.filter(|until| now() < *until)?;
    (intent.operation == Operation::Rotate && intent.stage == Stage::Switched).then_some(until)
}

pub(super) fn refuse_lock_out(
    survey: &Survey,
    key: &ApiKey,
    operator: &ClientId,
) -> Result<(), Failure> {
    match survey.lock_out(key, operator) {
        None => Ok(()),
        Some(why) => Err(Failure::refused(format!("that would lock you out: {why}"))
            .hint("use another administrator; or, if you mean it, add --i-will-lock-myself-out")),
    }
}

/// Refuses to give rights to what the account shows in the place of our key.
fn refuse_foreign(context: &Context, name: &KeyName, key: &ApiKey) -> Result<(), Failure> {
    let ours = context.store.public(name)?;
    match &key.public_key {
        Some(theirs) if *theirs != ours => Err(crate::Error::ForeignKey {
            ours: ours.fingerprint(),
            problem: "the account shows another public key under its client id",
        }
        .into()),
        _ => Ok(()),
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

pub(super) fn intend(
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

/// Journals a change, carries it out, and writes down what came of it.
pub(super) async fn begin(
    context: &Context,
    work: &mut Work<'_, Https>,
    intent: &Intent,
    network: &Network,
) -> Result<(), Failure> {
    context.store.announce(intent)?;
    go_on(context, work, intent, network, Attempt::First).await
}

/// Carries a change out at a desk that is open, and writes down what came of it.
pub(super) async fn go_on(
    context: &Context,
    work: &mut Work<'_, Https>,
    intent: &Intent,
    network: &Network,
    attempt: Attempt,
) -> Result<(), Failure> {
    let result = work.change(intent, attempt).await.map_err(Failure::from);
    write_down(context, intent, network, &result)?;
    result
}

/// Finishes an interrupted change.
pub(super) fn finish(
    context: &Context,
    intent: Intent,
    admin: &AdminArgs,
    passphrase: &PassphraseArgs,
) -> Result<Value, Failure> {
    let network = intent.place.network()?;
    let result = runtime_for(context)?.block_on(async {
        let mut office = Office::open(context, &network, admin, passphrase).await?;
        let mut work = work_of(context, &mut office);
        work.change(&intent, Attempt::Again)
            .await
            .map_err(Failure::from)
    });
    write_down(context, &intent, &network, &result)?;
    result?;
    outcome(context, &intent)
}

/// What a change came to.
fn outcome(context: &Context, intent: &Intent) -> Result<Value, Failure> {
    if intent.operation == Operation::Remove {
        return Ok(json!({"name": intent.name, "removed": true, "changed": true}));
    }
    let mut value = keys::about(context, &intent.name)?;
    answer::merge(&mut value, json!({"changed": true}));
    Ok(value)
}

/// Writes down in the audit log what a change came to.
fn write_down<T>(
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

/// Finds the key in the keystore that a remote one is.
pub(super) fn local_of(
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

/// Strikes out what would enable a key that is about to be disabled. Before that, so that whoever
/// is enabling it right now sees it and takes that back.
pub(super) fn give_up_enabling(
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
