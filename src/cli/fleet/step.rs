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
    exchange::{ApiKey, Https, Network},
    fleet::{Action, Local, Reach, Row, Step},
    key::Algorithm,
    provision::{self, Attempt, Work},
    store::{Generation, Operation, Record, Registration},
};

/// A key whose turn it is: it is locked, and as it was when the plan was made.
pub(super) struct Turn<'a> {
    pub(super) context: &'a Context,
    pub(super) network: &'a Network,
    pub(super) row: &'a Row<'a>,
    pub(super) local: &'a Local,
    pub(super) sealing: &'a Sealing,
}

impl Turn<'_> {
    /// Takes a step.
    pub(super) async fn take(&self, work: &mut Work<'_, Https>, step: Step) -> Result<(), Failure> {
        match step.action {
            Action::Create => self.register(work, Operation::Provision).await,
            Action::Register => self.register(work, Operation::Register).await,
            _ if step.reach == Reach::Finishes => {
                let Some(intent) = &self.local.pending else {
                    return Ok(());
                };
                let network = intent.place.network()?;
                manage::go_on(self.context, work, intent, &network, Attempt::Again).await
            }
            Action::Edit => self.edit(work).await,
            Action::Enable => self.switch(work, Operation::Enable).await,
            Action::Disable => self.switch(work, Operation::Disable).await,
        }
    }

    /// As `provision` and `register` do.
    async fn register(
        &self,
        work: &mut Work<'_, Https>,
        operation: Operation,
    ) -> Result<(), Failure> {
        let (context, declared, network) = (self.context, self.row.declared, self.network);
        let is = self.local.record.as_ref().map(|record| record.algorithm);
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
        registry::finish_at(context, intent, self.sealing, work).await?;
        Ok(())
    }

    /// The key here and there that a change is about.
    fn both(&self) -> Result<(&Record, &Registration, &ApiKey), Failure> {
        let name = &self.row.declared.name;
        let record = self.local.record.as_ref();
        let known = manage::registered(name, record.and_then(|r| r.registration.as_ref()))?;
        match (record, self.row.key) {
            (Some(record), Some(key)) => Ok((record, known, key)),
            _ => Err(Failure::refused(format!("the account has no key {name}"))),
        }
    }

    /// As `edit` does.
    async fn edit(&self, work: &mut Work<'_, Https>) -> Result<(), Failure> {
        let (record, known, key) = self.both()?;
        let declared = self.row.declared;
        let intent = manage::intend(
            Operation::Edit,
            &declared.name,
            self.context.store.current(&declared.name)?,
            known,
            key,
            declared.specification(record.algorithm),
        );
        manage::begin(self.context, work, &intent, &known.network).await
    }

    /// As `enable` and `disable` do.
    async fn switch(
        &self,
        work: &mut Work<'_, Https>,
        operation: Operation,
    ) -> Result<(), Failure> {
        let (record, known, key) = self.both()?;
        let name = &self.row.declared.name;
        let switch = Switch {
            operation,
            name,
            record,
            known,
            key,
        };
        let meanwhile = manage::beside(self.context, name, operation)?;
        manage::switch(self.context, work, &switch, meanwhile).await?;
        Ok(())
    }
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
