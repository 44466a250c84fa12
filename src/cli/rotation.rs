//! Commands that put one key in the place of another: rotate, rollback.

use std::{
    cell::OnceCell,
    io::Write,
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Value, json};

use super::{
    answer,
    args::{AdminArgs, HookArgs, Rollback, Rotate, Sealing},
    audit,
    connect::{Office, runtime},
    context::{Context, now, wants_plain},
    keys, manage, memory, registry,
    report::Failure,
    signers,
};
use crate::{
    exchange::Network,
    key::KeyName,
    provision::{self, Rotated},
    store::{Intent, Issued, Operation, Record, Registration, Specification, Stage, Succession},
};

/// How many seconds a deploy hook may take, unless something else was named.
const HOOK_TIME: u64 = 60;

pub(super) fn rotate(context: &Context, args: &Rotate) -> Result<(), Failure> {
    wants_plain(&args.sealing.plain)?;
    let hook = words(&args.hook)?;
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
    let here = record
        .registration
        .as_ref()
        .is_some_and(|known| known.network == *network);
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
    Ok(here && !admin && args.older_than.is_none_or(|limit| age > limit))
}

fn rotate_one(
    context: &Context,
    args: &Rotate,
    name: &KeyName,
    hook: &[String],
) -> Result<Value, Failure> {
    let record = context.store.record(name)?;
    signers::refuse_elsewhere(name, &record)?;
    let (known, _) = registered(name, &record)?;
    context.check_network(name, &known.network)?;
    if context.global.dry_run {
        let steps = [
            format!(
                "would make generation {} of {name}, a new {} key",
                context.store.current(name)?.next(),
                record.algorithm
            ),
            format!(
                "would register it on {} with scope {} and prove it",
                known.network, known.scope
            ),
            "would put it in use, and then disable the old key".into(),
        ];
        return Ok(json!({"dry_run": true, "name": name, "steps": steps}));
    }
    let _lock = context.lock(name)?;
    let pending = context.store.intent(name)?;
    if let Some(intent) = past_taking_back(context, pending, &args.sealing, &args.admin)? {
        if intent.operation == Operation::Rotate && intent.stage < Stage::Switched {
            let intent = as_typed_now(intent, args, hook);
            return finish(context, intent, &args.sealing, &args.admin);
        }
        manage::refuse_pending(context, name)?;
    }
    // Somebody else may have been at it while this waited.
    let record = context.store.record(name)?;
    let (known, key_id) = registered(name, &record)?;
    let from = context.store.current(name)?;
    let last = context
        .store
        .generations(name)?
        .into_iter()
        .max()
        .unwrap_or(from);
    let spec = Specification {
        algorithm: record.algorithm,
        label: known.label.clone(),
        scope: known.scope.clone(),
        whitelist: known.whitelist.clone(),
        features: known.features.clone(),
    };
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
fn with_hook(mut intent: Intent, hook: &[String]) -> Intent {
    if let Some(succession) = &mut intent.succession
        && !hook.is_empty()
    {
        succession.hook = hook.to_vec();
    }
    intent
}

/// Continues a rotation with what was typed this time, where something was.
fn as_typed_now(intent: Intent, args: &Rotate, hook: &[String]) -> Intent {
    let mut intent = with_hook(intent, hook);
    if let Some(succession) = &mut intent.succession {
        if let Some(grace) = args.grace {
            succession.grace = grace.as_secs();
        }
        succession.remove_old |= args.remove_old;
    }
    intent
}

fn registered<'a>(
    name: &KeyName,
    record: &'a Record,
) -> Result<(&'a Registration, crate::exchange::KeyId), Failure> {
    let Some(known) = &record.registration else {
        return Err(
            Failure::refused(format!("{name} is not registered at an exchange")).hint(format!(
                "register it first with \"derikey register {name}\""
            )),
        );
    };
    let id = known.key_id.ok_or_else(|| {
        Failure::refused(format!("the id of {name} at the exchange is not known"))
            .hint("adopt it again: it needs account:read for that, and a one-time code (--totp-fd, -command or -seed-file)")
    })?;
    Ok((known, id))
}

pub(super) fn rollback(context: &Context, args: &Rollback) -> Result<(), Failure> {
    let name: KeyName = args.name.name.parse()?;
    let hook = words(&args.hook)?;
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
        Some(intent) if intent.operation == Operation::Rollback => with_hook(intent, &hook),
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
    let (now_known, key_id) = registered(name, &record)?;
    let mut earlier = context.store.generations(name)?;
    earlier.retain(|generation| *generation != current);
    let mut found = None;
    for generation in earlier {
        let record = context.store.record_of(name, generation)?;
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
    let (known, old_id) = registered(name, &record)?;
    let spec = Specification {
        algorithm: record.algorithm,
        label: known.label.clone(),
        scope: known.scope.clone(),
        whitelist: known.whitelist.clone(),
        features: known.features.clone(),
    };
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

/// Carries a rotation or a rollback on from wherever it stands.
pub(super) fn finish(
    context: &Context,
    intent: Intent,
    sealing: &Sealing,
    admin: &AdminArgs,
) -> Result<Value, Failure> {
    let (name, network) = (intent.name.clone(), intent.place.network()?);
    let action = intent.operation.as_str();
    let result = runtime()?.block_on(carry_out(context, intent, sealing, admin));
    let public = context.store.public(&name).ok();
    audit::outcome(context, action, &name, &network, public.as_ref(), &result)?;
    result
}

async fn carry_out(
    context: &Context,
    mut intent: Intent,
    sealing: &Sealing,
    admin: &AdminArgs,
) -> Result<Value, Failure> {
    let name = intent.name.clone();
    let network = intent.place.network()?;
    // Waiting for its grace to end needs neither a key nor the network.
    if let (Stage::Switched, Some(until)) = (
        intent.stage,
        intent.succession.as_ref().and_then(|s| s.until),
    ) && now() < until
    {
        let mut value = keys::about(context, &name)?;
        answer::merge(
            &mut value,
            json!({"changed": false, "old_key_enabled_until": until}),
        );
        return Ok(value);
    }
    let passphrase = &sealing.passphrase;
    let mut office = Office::open(context, &network, admin, passphrase).await?;
    let there = context
        .store
        .generations(&name)?
        .contains(&intent.generation);
    if !there && (intent.stage > Stage::Creating || intent.operation == Operation::Rollback) {
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
    let new = if there || sealing.plain.no_passphrase {
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
        let key = keys::make(context, intent.spec.algorithm)?;
        let pem = keys::seal(&key, new.as_deref(), &sealing.plain)?;
        let record = keys::fresh_record(&key);
        context
            .store
            .add_generation(&name, intent.generation, &pem, key.public(), &record)?;
        context
            .output
            .remark(format!("made generation {} of {name}", intent.generation));
        key
    };
    if intent.stage < Stage::Generated {
        intent.fingerprint = Some(key.public().fingerprint());
        intent.stage = Stage::Generated;
        context.store.announce(&intent)?;
    }
    let resting = memory::hold(context, key)?;
    let signer = signer.get_or_init(|| resting);
    let mut hook = |intent: &Intent, issued: &Issued| run_hook(context, intent, issued);
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
fn is_refused(intent: &Intent) -> bool {
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
    let survey = work.survey().await?;
    let Some(key) = survey
        .by_client_id(&old.client_id)
        .filter(|key| key.id == old.key_id)
    else {
        return Err(
            Failure::refused(format!("the account has no key {}", old.client_id))
                .hint("nothing was changed; is the administrator of the same account?"),
        );
    };
    let there = provision::merge(key, &provision::Change::default(), intent.spec.algorithm);
    for line in provision::differences_of(key, &intent.spec) {
        context.output.remark(format!(
            "what the exchange has is kept, not what is recorded here: {line}"
        ));
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
    let full = survey.0.len() >= KEYS_PER_ACCOUNT;
    let from = old.from;
    intent.spec = there;
    if full {
        work.clear_superseded(&intent.name, &[from]).await?;
    }
    Ok(())
}

/// An account holds no more (Deribit, "Creating new API key").
const KEYS_PER_ACCOUNT: usize = 8;

fn words(args: &HookArgs) -> Result<Vec<String>, Failure> {
    match &args.deploy_hook {
        None => Ok(Vec::new()),
        Some(line) => shlex::split(line)
            .filter(|words| !words.is_empty())
            .ok_or_else(|| {
                Failure::usage("--deploy-hook is no command line")
                    .hint("it is run without a shell; quote its words as for one")
            }),
    }
}

/// Tells a program of a new key: JSON on its standard input, names in its environment.
fn run_hook(context: &Context, intent: &Intent, issued: &Issued) -> Result<(), String> {
    let succession = intent.succession.as_ref();
    let Some((program, arguments)) = succession.and_then(|s| s.hook.split_first()) else {
        return Ok(());
    };
    let path = |file| {
        context
            .store
            .path(&intent.name, intent.generation, file)
            .map_err(|e| e.to_string())
    };
    let event = json!({
        "event": "deploy",
        "operation": intent.operation,
        "name": intent.name,
        "generation": intent.generation,
        "network": intent.place,
        "client_id": issued.client_id,
        "key_id": issued.key_id,
        "fingerprint": intent.fingerprint,
        "private_key_path": path("private.pem")?,
        "public_key_path": path("public.pem")?,
        "old_client_id": succession.map(|s| &s.client_id),
    });
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(std::io::stderr());
    for (field, value) in event.as_object().into_iter().flatten() {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        command.env(format!("DERIKEY_{}", field.to_uppercase()), text);
    }
    let mut child = command
        .spawn()
        .map_err(|error| format!("cannot be started: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook that does not read its input is free not to.
        let _ = writeln!(stdin, "{event}");
    }
    let time = succession.and_then(|s| s.hook_timeout).unwrap_or(HOOK_TIME);
    let deadline = Instant::now() + Duration::from_secs(time);
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("failed ({status})")),
            Ok(None) if Instant::now() >= deadline => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("took longer than {time} s"));
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(20)),
            Err(error) => return Err(format!("was lost: {error}")),
        }
    }
}
