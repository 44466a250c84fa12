//! Keys made or taken in on this machine, and put away.

use std::path::Path;

use serde_json::json;
use zeroize::Zeroizing;

use super::{
    answer,
    args::{Generate, Import, Name, Plain},
    audit,
    context::{Context, now, rng, wants_one, wants_plain},
    failure::Failure,
    inputs::or_stdin,
    manage,
    terminal::Waiting,
};
use crate::{
    key::{self, Algorithm, Fingerprint, KeyName, PrivateKey, PublicKey},
    secret::Passphrase,
    store::{self, Entry, Record, Trust},
};

mod list;
mod sealing;
mod show;

pub(super) use list::{Broken, all_whole, list, of_the_key};
pub(super) use sealing::{export, passwd};
pub(super) use show::{about, fingerprint, identity, public, public_of, show};

pub(super) fn generate(context: &Context, args: &Generate) -> Result<(), Failure> {
    let name: KeyName = args.name.name.parse()?;
    wants_one(
        &args.sealing.plain,
        args.sealing.passphrase.source().as_ref(),
    )?;
    refuse_taken(context, &name)?;
    let network = context.network_if_named()?;
    if context.global.dry_run {
        let step = format!("would make a key pair {} named {name}", args.algorithm);
        return answer::plan(context, &[step]);
    }
    let passphrase = context.new_passphrase(
        &name,
        &args.sealing.passphrase,
        &args.sealing.plain,
        network.as_ref(),
    )?;
    let _lock = context.lock(&name)?;
    refuse_taken(context, &name)?;
    manage::refuse_pending(context, &name)?;
    let key = make(context, args.algorithm)?;
    keep(
        context,
        &name,
        &key,
        passphrase.as_deref(),
        &args.sealing.plain,
    )?;
    let public = key.public().clone();
    // What is not needed any more is not kept while others hold the log.
    drop((key, passphrase));
    write_down(context, "generate", &name, public.fingerprint()).map_err(audit::unwritten)?;
    announce(context, &name, &public)
}

pub(super) fn import(context: &Context, args: &Import) -> Result<(), Failure> {
    let name: KeyName = args.name.name.parse()?;
    refuse_taken(context, &name)?;
    wants_plain(&args.sealing.plain)?;
    let network = context.network_if_named()?;
    let input = read_input(&args.file)?;
    let what = args.file.display();
    let sealed = PrivateKey::is_sealed(&input).map_err(|error| unusable(&args.file, error))?;
    if context.global.dry_run {
        let how = if sealed { "a sealed" } else { "a plain" };
        return answer::plan(
            context,
            &[format!(
                "would import {how} private key from {what} as {name}"
            )],
        );
    }
    let passphrase = context.new_passphrase(
        &name,
        &args.sealing.passphrase,
        &args.sealing.plain,
        network.as_ref(),
    )?;
    let key = if sealed {
        let own = match args.input.source() {
            Some(source) => Some(source.read_passphrase("the passphrase of the file")?),
            None => None,
        };
        match (own, passphrase.as_deref()) {
            (Some(own), _) => PrivateKey::read(&input, Some(&own)),
            // One passphrase was given: it may be the file's as well.
            (None, Some(ours)) => match PrivateKey::read(&input, Some(ours)) {
                Err(key::Error::WrongPassphrase) => ask_for_input(context, args, &input),
                result => result,
            },
            (None, None) => ask_for_input(context, args, &input),
        }
    } else {
        PrivateKey::read(&input, None)
    }
    .map_err(|error| unusable(&args.file, error))?;
    let _lock = context.lock(&name)?;
    refuse_taken(context, &name)?;
    manage::refuse_pending(context, &name)?;
    keep(
        context,
        &name,
        &key,
        passphrase.as_deref(),
        &args.sealing.plain,
    )?;
    let public = key.public().clone();
    drop((key, passphrase, input));
    write_down(context, "import", &name, public.fingerprint()).map_err(audit::unwritten)?;
    announce(context, &name, &public)
}

fn ask_for_input(context: &Context, args: &Import, input: &[u8]) -> Result<PrivateKey, key::Error> {
    let Some(terminal) = context.terminal() else {
        return PrivateKey::read(input, None);
    };
    let question = format!("Passphrase of {}: ", args.file.display());
    match terminal.ask_secret(&question) {
        Ok(typed) => PrivateKey::read(input, Some(&Passphrase::new(typed.to_string()))),
        Err(_) => Err(key::Error::Sealed),
    }
}

fn unusable(path: &Path, error: key::Error) -> Failure {
    let what = path.display();
    let sealed = matches!(error, key::Error::Sealed | key::Error::WrongPassphrase);
    let failure = Failure::from(store::Error::Key {
        path: path.into(),
        source: error,
    });
    if sealed {
        return failure.hint(format!(
            "give the passphrase of {what} with --input-passphrase-file, -fd or -command"
        ));
    }
    failure
}

/// Returns the content of a file that is read once, or of standard input.
fn read_input(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    Ok(store::read(or_stdin(path), key::MAX_INPUT, Trust::Private)?)
}

fn unusable_here(path: &Path, source: key::Error) -> Failure {
    store::Error::Key {
        path: path.into(),
        source,
    }
    .into()
}

pub(super) fn delete(context: &Context, args: &Name) -> Result<(), Failure> {
    let name: KeyName = args.name.parse()?;
    let _lock = context.lock(&name)?;
    if !context.store.contains(&name) {
        return Err(store::Error::NoSuchKey { name }.into());
    }
    // A link that somebody put in its place is not moved, nor is what it leads to.
    if !context.store.is_in_place(&name) {
        let path = context.store.root().join("keys").join(name.as_str());
        return Err(store::Error::NotADirectory { path }.into());
    }
    manage::refuse_pending(context, &name)?;
    let record = context.store.record(&name);
    let known = record.as_ref().map(|record| record.registration.as_ref());
    let why = match known {
        Ok(None) => None,
        Ok(Some(known)) => Some(format!(
            "{name} is registered as {} on {} and stays live there, without its private half",
            known.client_id, known.network
        )),
        Err(_) => Some(format!(
            "what is known of {name} cannot be read: it may be registered, and stays live then"
        )),
    };
    if let Some(why) = why {
        if context.global.dry_run {
            return answer::plan(context, &[why, format!("would move {name} to the trash")]);
        }
        context.confirm(&why, name.as_str())?;
    } else if context.global.dry_run {
        return answer::plan(context, &[format!("would move {name} to the trash")]);
    }
    let grave = context.store.discard(&name, now())?;
    let mut entry = Entry::new(now(), "delete", "done");
    entry.key = Some(&name);
    entry.fingerprint = record.ok().map(|record| record.fingerprint);
    context.store.audit(entry).map_err(audit::unwritten)?;
    context
        .output
        .remark(format!("to purge it: {}", purge(&grave)));
    let value = json!({"name": name, "trash": grave, "purge": purge(&grave)});
    context
        .output
        .result(&value, || format!("{name} is in {}", grave.display()))
}

/// Returns the command that removes what lies in the trash, fit for a shell.
pub(super) fn purge(grave: &Path) -> String {
    let path = grave.display().to_string();
    format!("rm -r '{}'", path.replace('\'', r"'\''"))
}

/// Makes a key pair; RSA takes its time, so somebody who watches is told.
pub(super) fn make(context: &Context, algorithm: Algorithm) -> Result<PrivateKey, Failure> {
    let slow = algorithm != Algorithm::Ed25519;
    let _waiting = Waiting::begin(
        format!("making an {algorithm} key"),
        slow && context.output.shows_progress(),
    );
    Ok(PrivateKey::generate(algorithm, &mut rng())?)
}

/// Puts a new key into the keystore, sealed unless that was ruled out.
pub(super) fn keep(
    context: &Context,
    name: &KeyName,
    key: &PrivateKey,
    passphrase: Option<&Passphrase>,
    plain: &Plain,
) -> Result<(), Failure> {
    let pem = seal(key, passphrase, plain)?;
    let record = fresh_record(key);
    Ok(context.store.create(name, &pem, key.public(), &record)?)
}

/// Returns the record of a key that no exchange knows yet.
pub(super) fn fresh_record(key: &PrivateKey) -> Record {
    Record {
        algorithm: key.public().algorithm(),
        fingerprint: key.public().fingerprint(),
        created: now(),
        registration: None,
        signer: None,
    }
}

pub(super) fn seal(
    key: &PrivateKey,
    passphrase: Option<&Passphrase>,
    plain: &Plain,
) -> Result<Zeroizing<String>, Failure> {
    Ok(match passphrase {
        Some(passphrase) => key.to_sealed_pem(passphrase, plain.kdf, &mut rng())?,
        None => key.to_plain_pem()?,
    })
}

fn refuse_taken(context: &Context, name: &KeyName) -> Result<(), Failure> {
    if context.store.contains(name) {
        return Err(store::Error::KeyExists { name: name.clone() }.into());
    }
    Ok(())
}

/// Writes down what is done to a key here.
fn write_down(
    context: &Context,
    action: &str,
    name: &KeyName,
    fingerprint: Fingerprint,
) -> Result<(), store::Error> {
    let mut entry = Entry::new(now(), action, "done");
    entry.key = Some(name);
    entry.fingerprint = Some(fingerprint);
    context.store.audit(entry)
}

fn announce(context: &Context, name: &KeyName, key: &PublicKey) -> Result<(), Failure> {
    let value = identity(context, name, key);
    context.output.result(&value, || answer::lines(&value))
}
