//! `rotate`: one key in the place of another, or every key that is due.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::{
    answer,
    args::{AdminArgs, HookArgs, Rotate, Sealing},
    context::{Context, now, wants_plain},
    failure::Failure,
    manage, signers,
};
use crate::{
    exchange::Network,
    key::KeyName,
    provision,
    store::{Intent, Operation, Record, Registration, Stage, Succession},
};

mod finish;
mod hook;
mod rollback;

pub(super) use finish::finish;
use finish::is_refused;
pub(super) use rollback::rollback;

pub(super) fn rotate(context: &Context, args: &Rotate) -> Result<(), Failure> {
    wants_plain(&args.sealing.plain)?;
    let hook = hook::words(&args.hook)?;
    let Some(name) = &args.name else {
        return rotate_all(context, args, &hook);
    };
    let name: KeyName = name.parse()?;
    let value = rotate_one(context, args, &name, &hook)?;
    context.output.result(&value, || answer::lines(&value))
}

fn rotate_all(context: &Context, args: &Rotate, hook: &[String]) -> Result<(), Failure> {
    let network = context.network()?;
    let (mut rotated, mut failed) = (Vec::new(), None);
    for name in context.store.names()? {
        let one = is_due(context, args, &network, &name).and_then(|due| {
            due.then(|| rotate_one(context, args, &name, hook))
                .transpose()
        });
        match one {
            Ok(value) => rotated.extend(value),
            Err(failure) => {
                context
                    .output
                    .remark(format!("{name}: {}", failure.message()));
                failed.get_or_insert(failure);
            }
        }
    }
    let value = json!({"rotated": rotated});
    context.output.result(&value, || {
        let texts: Vec<String> = rotated.iter().map(answer::lines).collect();
        if texts.is_empty() {
            "no key is due".into()
        } else {
            texts.join("\n")
        }
    })?;
    failed.map_or(Ok(()), Err)
}

/// Tells whether `rotate --all` means a key.
fn is_due(
    context: &Context,
    args: &Rotate,
    network: &Network,
    name: &KeyName,
) -> Result<bool, Failure> {
    let record = context.store.record(name)?;
    // One that somebody has disabled is not to be back overnight, and one that an ssh-agent holds
    // is renewed there.
    let here = record.signer.is_none()
        && record
            .registration
            .as_ref()
            .is_some_and(|known| known.network == *network && known.enabled);
    let age = SystemTime::now()
        .duration_since(record.created.0)
        .unwrap_or_default();
    // The administrator's own key is rotated by name, when somebody looks.
    let admin = args
        .admin
        .admin
        .as_deref()
        .or(context.config.admin.as_deref())
        == Some(name.as_str());
    // One in its grace has its new key already; `resume` ends it.
    let in_grace = context.store.intent(name)?.is_some_and(|intent| {
        intent.operation == Operation::Rotate && intent.stage == Stage::Switched
    });
    let due = args.older_than.is_none_or(|limit| age > limit);
    Ok(here && !admin && !in_grace && due)
}

fn rotate_one(
    context: &Context,
    args: &Rotate,
    name: &KeyName,
    hook: &[String],
) -> Result<Value, Failure> {
    let record = context.store.record(name)?;
    signers::refuse_elsewhere(name, &record)?;
    let known = manage::registered(name, record.registration.as_ref())?;
    context.check_network(name, &known.network)?;
    if context.global.dry_run {
        match context.store.intent(name)? {
            Some(intent) if is_carried_on(&intent) => {
                let step = format!(
                    "would finish the rotation that stopped at {}",
                    intent.stage.as_str()
                );
                return Ok(json!({"dry_run": true, "name": name, "steps": [step]}));
            }
            _ => manage::refuse_pending(context, name)?,
        }
        let current = context.store.current(name)?;
        let mut steps = vec![
            format!(
                "would make generation {} of {name}, a new {} key",
                current.next(),
                record.algorithm
            ),
            format!(
                "would register it on {} with what {} has there ({}, as recorded here) and prove it",
                known.network, known.client_id, known.scope
            ),
            "would put it in use, and then disable the old key".into(),
        ];
        let older = context.store.generations(name)?.into_iter();
        let gone = older.filter(|generation| *generation != current);
        steps.extend(gone.map(|generation| {
            format!("would remove generation {generation}, which was superseded before")
        }));
        return Ok(json!({"dry_run": true, "name": name, "steps": steps}));
    }
    let _lock = context.lock(name)?;
    let pending = context.store.intent(name)?;
    if let Some(intent) = past_taking_back(context, pending, &args.sealing, &args.admin)? {
        if is_carried_on(&intent) {
            let intent = as_typed_now(intent, args, hook);
            context.store.announce(&intent)?;
            return finish(context, intent, &args.sealing, &args.admin);
        }
        manage::refuse_pending(context, name)?;
    }
    // Somebody else may have been at it while this waited.
    let record = manage::looked_up(context, name, &args.admin, &args.sealing.passphrase)?;
    let (known, key_id) = with_id(name, &record)?;
    let from = context.store.current(name)?;
    let last = context
        .store
        .generations(name)?
        .into_iter()
        .max()
        .unwrap_or(from);
    let spec = known.specification(record.algorithm);
    provision::must_fit(&spec)?;
    let mut intent = provision::intend(
        Operation::Rotate,
        name,
        last.next(),
        &known.network,
        spec,
        now(),
    );
    intent.succession = Some(Succession {
        from,
        client_id: known.client_id.clone(),
        key_id,
        hook: hook.to_vec(),
        hook_timeout: args.hook.hook_timeout.map(|time| time.as_secs()),
        grace: args.grace.map_or(0, |grace| grace.as_secs()),
        until: None,
        remove_old: args.remove_old,
        taken_back: false,
        puts_off: None,
    });
    finish(context, intent, &args.sealing, &args.admin)
}

/// Tells whether to rotate a key is to finish what was interrupted of it.
fn is_carried_on(intent: &Intent) -> bool {
    intent.operation == Operation::Rotate && intent.stage < Stage::Switched
}

/// Ends a taking-back that was interrupted, so that what is typed now begins anew; returns what is
/// under way then.
fn past_taking_back(
    context: &Context,
    pending: Option<Intent>,
    sealing: &Sealing,
    admin: &AdminArgs,
) -> Result<Option<Intent>, Failure> {
    match pending {
        Some(intent) if is_refused(&intent) => {
            let name = intent.name.clone();
            finish(context, intent, sealing, admin)?;
            Ok(context.store.intent(&name)?)
        }
        pending => Ok(pending),
    }
}

/// Continues with the program that was typed this time, if one was.
fn with_hook(mut intent: Intent, hook: &[String], args: &HookArgs) -> Intent {
    if let Some(succession) = &mut intent.succession
        && !hook.is_empty()
    {
        succession.hook = hook.to_vec();
        succession.hook_timeout = args.hook_timeout.map(|time| time.as_secs());
    }
    intent
}

/// Continues a rotation with what was typed this time, where something was.
fn as_typed_now(intent: Intent, args: &Rotate, hook: &[String]) -> Intent {
    let mut intent = with_hook(intent, hook, &args.hook);
    if let Some(succession) = &mut intent.succession {
        if let Some(grace) = args.grace {
            succession.grace = grace.as_secs();
        }
        succession.remove_old |= args.remove_old;
    }
    intent
}

/// Returns what is known of a key at the exchange, and its id there.
fn with_id<'a>(
    name: &KeyName,
    record: &'a Record,
) -> Result<(&'a Registration, crate::exchange::KeyId), Failure> {
    let known = manage::registered(name, record.registration.as_ref())?;
    let id = known.key_id.ok_or_else(|| {
        Failure::refused(format!("the id of {name} at the exchange is not known"))
            .hint("adopt it again: it needs account:read for that, and a one-time code (--totp-fd, -command or -seed-file)")
    })?;
    Ok((known, id))
}
