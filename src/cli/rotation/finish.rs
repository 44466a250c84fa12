//! A rotation or a rollback, carried on from wherever it stands.

use std::cell::OnceCell;

use serde_json::{Value, json};

use super::hook;
use crate::{
    cli::{
        answer,
        args::{AdminArgs, Plain, Sealing},
        audit,
        connect::{Office, runtime_for},
        context::{Context, now},
        failure::Failure,
        keys,
        manage::{self, edit},
        memory, registry,
    },
    fleet::KEYS_OF_AN_ACCOUNT,
    key::{KeyName, PrivateKey},
    provision::{self, Rotated},
    secret::Passphrase,
    store::{Intent, Issued, Operation, Stage},
};

/// Carries a rotation or a rollback on from wherever it stands.
pub(in crate::cli) fn finish(
    context: &Context,
    intent: Intent,
    sealing: &Sealing,
    admin: &AdminArgs,
) -> Result<Value, Failure> {
    // Waiting for its grace to end needs neither a key nor the network, and is nothing that is done.
    if let Some(value) = in_grace(context, &intent)? {
        return Ok(value);
    }
    let (name, network) = (intent.name.clone(), intent.place.network()?);
    let action = intent.operation.as_str();
    let result = runtime_for(context)?.block_on(carry_out(context, intent, sealing, admin));
    let public = context.store.public(&name).ok();
    audit::outcome(context, action, &name, &network, public.as_ref(), &result)?;
    result
}

/// Returns what there is to say of a rotation that waits for its grace to end.
fn in_grace(context: &Context, intent: &Intent) -> Result<Option<Value>, Failure> {
    let until = intent.succession.as_ref().and_then(|s| s.until);
    let Some(until) = until.filter(|until| intent.stage == Stage::Switched && now() < *until)
    else {
        return Ok(None);
    };
    let mut value = keys::about(context, &intent.name)?;
    let grace = json!({"changed": false, "old_key_enabled_until": until});
    answer::merge(&mut value, grace);
    Ok(Some(value))
}

async fn carry_out(
    context: &Context,
    mut intent: Intent,
    sealing: &Sealing,
    admin: &AdminArgs,
) -> Result<Value, Failure> {
    let name = intent.name.clone();
    let network = intent.place.network()?;
    let passphrase = &sealing.passphrase;
    let mut office = Office::open(context, &network, admin, passphrase).await?;
    let there = context
        .store
        .generations(&name)?
        .contains(&intent.generation);
    let is_rollback = intent.operation == Operation::Rollback;
    let gone = match intent.fingerprint {
        Some(ours) if !there && !is_rollback && intent.stage == Stage::Creating => {
            let mut work = manage::work_of(context, &mut office);
            let is_ours = |key: &crate::exchange::ApiKey| key.shows(ours);
            work.search_again(&intent, &is_ours).await?.is_some()
        }
        _ => !there && (intent.stage > Stage::Creating || is_rollback),
    };
    if gone {
        if is_refused(&intent) {
            // Taken back, and then interrupted before that was written down.
            manage::work_of(context, &mut office)
                .give_up(&intent)
                .await?;
            return taken_back(context, &name);
        }
        let what = format!(
            "the private half of generation {} of {name}",
            intent.generation
        );
        return Err(Failure::key(format!("{what} is gone")).hint(format!(
            "restore it from a backup or from HOME/trash, or give this up with \"derikey resume {name} --abandon\""
        )));
    }
    let new = if there {
        None
    } else {
        context.new_passphrase(&name, passphrase, &sealing.plain, Some(&network))?
    };
    let signer = OnceCell::new();
    let mut work = manage::work_of(context, &mut office);
    if !there {
        // Given up, and then interrupted: the exchange has nothing, so it begins anew.
        intent.stage = Stage::Planned;
        intent.fingerprint = None;
    }
    if intent.operation == Operation::Rotate && intent.stage < Stage::Creating {
        as_it_is_there(&mut work, context, &mut intent).await?;
        context.store.announce(&intent)?;
    }
    if intent.operation == Operation::Rollback {
        context.store.announce(&intent)?;
    }
    let key = if there {
        let unlock = || context.passphrase(&name, passphrase, Some(&network));
        context.store.load_of(&name, intent.generation, unlock)?
    } else {
        make_generation(context, &intent, new.as_deref(), &sealing.plain).inspect_err(|_| {
            // Nothing was made, so nothing is under way.
            let _ = context.store.conclude(&name);
        })?
    };
    if intent.stage < Stage::Generated {
        let mut next = intent.clone();
        next.fingerprint = Some(key.public().fingerprint());
        next.stage = Stage::Generated;
        if let Err(error) = context.store.announce(&next) {
            return Err(provision::unfinished(&intent, error.into()).into());
        }
        intent = next;
    }
    let held = memory::hold(context, key)?;
    let signer = signer.get_or_init(|| held);
    let mut hook = |intent: &Intent, issued: &Issued| hook::run(context, intent, issued);
    let rotated = work.rotate(intent, signer, &mut hook).await?;
    let public = context.store.public(&name)?;
    let (outcomes, until) = match rotated {
        Rotated::TakenBack => return taken_back(context, &name),
        Rotated::Done(outcomes) => (outcomes, None),
        Rotated::Waiting(outcomes, until) => {
            context.output.remark(format!(
                "the old key stays enabled until {until}; \"derikey resume {name}\" disables it then"
            ));
            (outcomes, Some(until))
        }
    };
    let mut value = keys::identity(context, &name, &public);
    answer::merge(&mut value, registry::registration(&outcomes));
    answer::merge(
        &mut value,
        json!({
            "generation": context.store.current(&name)?,
            "changed": true,
            "old_key_enabled_until": until,
        }),
    );
    Ok(value)
}

/// Tells whether the program that is told of a new key has refused this one.
pub(super) fn is_refused(intent: &Intent) -> bool {
    intent.succession.as_ref().is_some_and(|s| s.taken_back)
}

fn taken_back(context: &Context, name: &KeyName) -> Result<Value, Failure> {
    context
        .output
        .remark("the deploy hook had failed: the new key is taken back, and the old one is in use");
    let mut value = keys::about(context, name)?;
    answer::merge(&mut value, json!({"changed": false, "taken_back": true}));
    Ok(value)
}

/// Makes the key that takes the place of the one in use.
fn make_generation(
    context: &Context,
    intent: &Intent,
    passphrase: Option<&Passphrase>,
    plain: &Plain,
) -> Result<PrivateKey, Failure> {
    let (name, generation) = (&intent.name, intent.generation);
    let key = keys::make(context, intent.spec.algorithm)?;
    let pem = keys::seal(&key, passphrase, plain)?;
    let record = keys::fresh_record(&key);
    context
        .store
        .add_generation(name, generation, &pem, key.public(), &record)?;
    context
        .output
        .remark(format!("made generation {generation} of {name}"));
    Ok(key)
}

/// Takes over what the exchange has now: what was narrowed there is not widened again. Makes room
/// beforehand only where the account is full, so that there is a way back until the last moment.
async fn as_it_is_there(
    work: &mut provision::Work<'_, crate::exchange::Https>,
    context: &Context,
    intent: &mut Intent,
) -> Result<(), Failure> {
    let Some(old) = &intent.succession else {
        return Ok(());
    };
    let survey = work.survey_with(&old.client_id).await?;
    let Some(key) = survey
        .by_client_id(&old.client_id)
        .filter(|key| key.id == old.key_id)
    else {
        return Err(
            Failure::refused(format!("the account has no key {}", old.client_id))
                .hint("nothing was changed; is the administrator of the same account?"),
        );
    };
    let record = context.store.record_of(&intent.name, old.from)?;
    let recorded = record.registration.is_none_or(|known| known.enabled);
    if !key.enabled.unwrap_or(recorded) {
        let name = &intent.name;
        let why = format!("{name} is disabled, and the new key in its place would not be");
        context.confirm(&why, name.as_str())?;
    }
    let change = provision::Change::default();
    edit::refuse_to_garble(&intent.name, key, &change)?;
    let mut there = provision::as_it_is(key, &intent.spec);
    for line in provision::differences_of(&there, &intent.spec) {
        context.output.remark(edit::kept(&line));
    }
    if !there.scope.is_within(&intent.spec.scope) {
        let name = &intent.name;
        let why = format!(
            "the exchange shows more rights for {name} than are recorded here ({} -> {}), \
             and the new key would get them",
            intent.spec.scope, there.scope
        );
        context.confirm(&why, name.as_str())?;
    }
    // The exchange shows labels that it lets nobody choose, the empty one above all.
    if there.label.parse::<KeyName>().is_err() {
        context.output.remark(format!(
            "no key can be made with the label {:?}: the new one gets {}",
            there.label, intent.name
        ));
        there.label = intent.name.to_string();
    }
    let full = survey.0.len() >= KEYS_OF_AN_ACCOUNT;
    let from = old.from;
    intent.spec = there;
    if full {
        work.clear_superseded(&intent.name, &[from]).await?;
    }
    Ok(())
}
