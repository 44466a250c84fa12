//! `rollback`: the key before is put back in its place.

use super::{finish::finish, hook, past_taking_back, with_hook, with_id};
use crate::{
    cli::{
        answer,
        args::{HookArgs, Rollback},
        context::{Context, now},
        failure::Failure,
    },
    key::KeyName,
    provision,
    store::{Intent, Issued, Operation, Stage, Succession},
};

pub(in crate::cli) fn rollback(context: &Context, args: &Rollback) -> Result<(), Failure> {
    let name: KeyName = args.name.name.parse()?;
    let hook = hook::words(&args.hook)?;
    let _lock = context.lock(&name)?;
    let pending = context.store.intent(&name)?;
    if let Some(intent) = &pending
        && (intent.operation != Operation::Rotate || intent.stage < Stage::Switched)
        && intent.operation != Operation::Rollback
    {
        return Err(Failure::refused(format!(
            "{} of {name} is under way",
            intent.operation.as_str()
        ))
        .hint(format!(
            "the old key is still in use; finish it with \"derikey resume {name}\""
        )));
    }
    let registration = context.store.record(&name)?.registration;
    if let Some(known) = &registration {
        context.check_network(&name, &known.network)?;
    }
    let pending = if context.global.dry_run {
        pending
    } else {
        past_taking_back(context, pending, &args.sealing, &args.admin)?
    };
    let intent = match pending {
        Some(intent) if intent.operation == Operation::Rollback => {
            with_hook(intent, &hook, &args.hook)
        }
        pending => back(context, &name, hook, &args.hook, pending)?,
    };
    if context.global.dry_run {
        return answer::plan(
            context,
            &[format!(
                "would put generation {} of {name} back in use",
                intent.generation
            )],
        );
    }
    let value = finish(context, intent, &args.sealing, &args.admin)?;
    context.output.result(&value, || answer::lines(&value))
}

/// Prepares the way back to the newest generation that was superseded.
fn back(
    context: &Context,
    name: &KeyName,
    hook: Vec<String>,
    args: &HookArgs,
    pending: Option<Intent>,
) -> Result<Intent, Failure> {
    let current = context.store.current(name)?;
    let record = context.store.record(name)?;
    let (now_known, key_id) = with_id(name, &record)?;
    let mut earlier = context.store.generations(name)?;
    earlier.retain(|generation| *generation != current);
    let mut found = None;
    for generation in earlier {
        let record = match context.store.record_of(name, generation) {
            Ok(record) => record,
            Err(error) => {
                context.output.remark(format!(
                    "warning: generation {generation} is none to go back to: {error}"
                ));
                continue;
            }
        };
        if let Some(known) = record.registration.filter(|known| known.retired.is_some()) {
            found = found.max(known.retired.map(|at| (at, generation)));
        }
    }
    let Some((_, generation)) = found else {
        return Err(
            Failure::refused(format!("{name} has no earlier key to go back to"))
                .hint("there is one from the end of a rotation until the next one"),
        );
    };
    let record = context.store.record_of(name, generation)?;
    let (known, old_id) = with_id(name, &record)?;
    let spec = known.specification(record.algorithm);
    let mut intent = provision::intend(
        Operation::Rollback,
        name,
        generation,
        &known.network,
        spec,
        now(),
    );
    intent.issued = Some(Issued {
        client_id: known.client_id.clone(),
        key_id: old_id,
        fingerprint_verified: known.fingerprint_verified,
    });
    intent.succession = Some(Succession {
        from: current,
        client_id: now_known.client_id.clone(),
        key_id,
        hook,
        hook_timeout: args.hook_timeout.map(|time| time.as_secs()),
        grace: 0,
        until: None,
        remove_old: false,
        taken_back: false,
        puts_off: pending.map(Box::new),
    });
    Ok(intent)
}
