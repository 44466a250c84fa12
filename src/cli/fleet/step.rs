//! One step of one key, as the command for it does it.

use super::{Plan, view::Stray};
use crate::{
    cli::{
        args::Sealing,
        context::{Context, now},
        failure::Failure,
        manage::{self, Switch},
        registry,
    },
    exchange::{ApiKey, Https},
    fleet::{Action, Local, Reach, Row, Step},
    key::Algorithm,
    provision::{self, Attempt, Work},
    store::{Generation, Operation, Record, Registration},
};

/// Takes a step with a key that is locked and as it was when the plan was made.
pub(super) async fn take(
    context: &Context,
    plan: &Plan<'_>,
    row: &Row<'_>,
    local: &Local,
    work: &mut Work<'_, Https>,
    sealing: &Sealing,
    step: Step,
) -> Result<(), Failure> {
    match step.action {
        Action::Create | Action::Register => {
            register(context, plan, row, local, work, sealing, step.action).await
        }
        _ if step.reach == Reach::Finishes => {
            let Some(intent) = &local.pending else {
                return Ok(());
            };
            let network = intent.place.network()?;
            manage::go_on(context, work, intent, &network, Attempt::Again).await
        }
        Action::Edit => edit(context, row, local, work).await,
        Action::Enable => switch(context, row, local, work, Operation::Enable).await,
        Action::Disable => switch(context, row, local, work, Operation::Disable).await,
    }
}

/// As `provision` and `register` do.
async fn register(
    context: &Context,
    plan: &Plan<'_>,
    row: &Row<'_>,
    local: &Local,
    work: &mut Work<'_, Https>,
    sealing: &Sealing,
    action: Action,
) -> Result<(), Failure> {
    let operation = match action {
        Action::Register => Operation::Register,
        _ => Operation::Provision,
    };
    let (declared, network) = (row.declared, &plan.view.section.network);
    let is = local.record.as_ref().map(|record| record.algorithm);
    let algorithm = is.or(declared.algorithm).unwrap_or(Algorithm::Ed25519);
    let spec = declared.specification(algorithm);
    let name = &declared.name;
    let intent = match registry::interrupted(context, operation, name, network, &spec)? {
        Some(intent) => intent,
        None => {
            let generation = match operation {
                Operation::Register => context.store.current(name)?,
                _ => Generation::FIRST,
            };
            provision::intend(operation, name, generation, network, spec, now())
        }
    };
    registry::finish_at(context, intent, sealing, work).await?;
    Ok(())
}

/// The key here and there that a change is about.
fn both<'a>(
    row: &Row<'a>,
    local: &'a Local,
) -> Result<(&'a Record, &'a Registration, &'a ApiKey), Failure> {
    let name = &row.declared.name;
    let record = local.record.as_ref();
    let known = manage::registered(name, record.and_then(|r| r.registration.as_ref()))?;
    match (record, row.key) {
        (Some(record), Some(key)) => Ok((record, known, key)),
        _ => Err(Failure::refused(format!("the account has no key {name}"))),
    }
}

/// As `edit` does.
async fn edit(
    context: &Context,
    row: &Row<'_>,
    local: &Local,
    work: &mut Work<'_, Https>,
) -> Result<(), Failure> {
    let (record, known, key) = both(row, local)?;
    let name = &row.declared.name;
    let intent = manage::intend(
        Operation::Edit,
        name,
        context.store.current(name)?,
        known,
        key,
        row.declared.specification(record.algorithm),
    );
    manage::begin(context, work, &intent, &known.network).await
}

/// As `enable` and `disable` do.
async fn switch(
    context: &Context,
    row: &Row<'_>,
    local: &Local,
    work: &mut Work<'_, Https>,
    operation: Operation,
) -> Result<(), Failure> {
    let (record, known, key) = both(row, local)?;
    let name = &row.declared.name;
    let switch = Switch {
        operation,
        name,
        record,
        known,
        key,
    };
    let meanwhile = manage::beside(context, name, operation)?;
    manage::switch(context, work, &switch, meanwhile).await?;
    Ok(())
}

/// As `disable` does with a key that it is not told the name of.
pub(super) async fn prune(
    context: &Context,
    plan: &Plan<'_>,
    work: &mut Work<'_, Https>,
    stray: &Stray<'_>,
) -> Result<(), Failure> {
    let key = stray.key;
    manage::refuse_lock_out(&plan.view.survey, key, work.desk.operator().client_id())?;
    let network = &plan.view.section.network;
    let Some(name) = stray.name.filter(|_| stray.in_use) else {
        let name = stray.name.cloned();
        return manage::set_there(context, work, network, key, Operation::Disable, name).await;
    };
    let _lock = context.lock(name)?;
    let record = context.store.record(name)?;
    let known = manage::registered(name, record.registration.as_ref())?;
    let switch = Switch {
        operation: Operation::Disable,
        name,
        record: &record,
        known,
        key,
    };
    let meanwhile = manage::beside(context, name, Operation::Disable)?;
    manage::switch(context, work, &switch, meanwhile).await?;
    Ok(())
}
