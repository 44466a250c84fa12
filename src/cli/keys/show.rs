//! What is known of a key: its public half, its fingerprint, its record.

use std::path::Path;

use serde_json::{Value, json};

use super::{of_the_key, unusable_here};
use crate::{
    cli::{
        answer,
        args::{FingerprintOf, Hash, Which},
        context::Context,
        failure::Failure,
        inputs::or_stdin,
    },
    key::{self, KeyName, PrivateKey, PublicKey},
    store::{self, Record, Trust},
};

pub(in crate::cli) fn public(context: &Context, args: &Which) -> Result<(), Failure> {
    let key = public_of(context, args)?;
    let pem = key.to_pem();
    context.output.result(
        &json!({"public_key": pem, "fingerprint": key.fingerprint()}),
        || pem.clone(),
    )
}

pub(in crate::cli) fn fingerprint(context: &Context, args: &FingerprintOf) -> Result<(), Failure> {
    let key = public_of(context, &args.which)?;
    let (hash, text) = match args.hash {
        Hash::Md5 => ("md5", key.fingerprint().to_string()),
        Hash::Sha256 => ("sha256", key.fingerprint_sha256()),
    };
    let value = json!({"fingerprint": text, "hash": hash, "algorithm": key.algorithm()});
    context.output.result(&value, || text.clone())
}

pub(in crate::cli) fn show(context: &Context, args: &Which) -> Result<(), Failure> {
    if let Target::Key(name) = target(context, &args.which)? {
        let value = about(context, &name).map_err(|failure| of_the_key(&failure))?;
        return context.output.result(&value, || answer::lines(&value));
    }
    let key = public_of(context, args)?;
    let value = json!({
        "algorithm": key.algorithm(),
        "fingerprint": key.fingerprint(),
        "fingerprint_sha256": key.fingerprint_sha256(),
        "public_key": key.to_pem(),
    });
    context.output.result(&value, || answer::lines(&value))
}

/// A name in the keystore, or a file.
enum Target<'a> {
    Key(KeyName),
    File(&'a Path),
}

/// Tells names and files apart: a file has a slash or a dot in its path.
fn target<'a>(context: &Context, which: &'a str) -> Result<Target<'a>, Failure> {
    match which.parse::<KeyName>() {
        Ok(name) if context.store.contains(&name) => Ok(Target::Key(name)),
        Ok(name) => Err(store::Error::NoSuchKey { name }.into()),
        Err(error) if which.is_empty() => Err(error.into()),
        Err(_) => Ok(Target::File(Path::new(which))),
    }
}

/// Returns the public half of whatever was named; of a private file only if it must be opened.
pub(in crate::cli) fn public_of(context: &Context, args: &Which) -> Result<PublicKey, Failure> {
    let path = match target(context, &args.which)? {
        Target::Key(name) => {
            let public = context.store.public(&name)?;
            // What is recorded was proven; the file beside it may have been changed.
            return match context.store.record(&name) {
                Ok(record) if record.fingerprint != public.fingerprint() => Err(Failure::key(
                    format!("public.pem of {name} is not the key that key.toml speaks of"),
                )
                .hint("one of the two was changed: restore both from a backup")),
                _ => Ok(public),
            };
        }
        Target::File(path) => path,
    };
    let is_stdin = path == Path::new("-");
    let path = or_stdin(path);
    let bytes = store::read(path, key::MAX_INPUT, Trust::Public)?;
    let failed = |error| unusable_here(path, error);
    match PublicKey::read(&bytes) {
        Err(key::Error::Private | key::Error::Sealed) => {}
        result => return result.map_err(failed),
    }
    // A private file that others can read is said to be one before it is used.
    if !is_stdin {
        store::read(path, key::MAX_INPUT, Trust::Private)?;
    }
    let key = if PrivateKey::is_sealed(&bytes).map_err(failed)? {
        let passphrase = context.passphrase(&path.display(), &args.passphrase, None)?;
        PrivateKey::read(&bytes, Some(&passphrase))
    } else {
        PrivateKey::read(&bytes, None)
    };
    Ok(key.map_err(failed)?.public().clone())
}

/// The fields that every answer about a key begins with.
pub(in crate::cli) fn identity(context: &Context, name: &KeyName, key: &PublicKey) -> Value {
    let private = context.store.current_path(name, "private.pem");
    let elsewhere = context
        .store
        .record(name)
        .is_ok_and(|record| record.signer.is_some());
    json!({
        "name": name,
        "algorithm": key.algorithm(),
        "fingerprint": key.fingerprint(),
        "public_key": key.to_pem(),
        "private_key_path": (!elsewhere).then_some(private),
        "public_key_path": context.store.current_path(name, "public.pem"),
    })
}

/// Returns all that is known of a key.
pub(in crate::cli) fn about(context: &Context, name: &KeyName) -> Result<Value, Failure> {
    describe(context, name, &context.store.record(name)?)
}

fn describe(context: &Context, name: &KeyName, record: &Record) -> Result<Value, Failure> {
    let mut value = identity(context, name, &context.store.public(name)?);
    if let Some(held) = &record.signer {
        answer::merge(&mut value, json!({"signer": held}));
    }
    let more = match &record.registration {
        None => json!({}),
        Some(known) => json!({
            "network": known.network.name(),
            "endpoint": known.network.endpoint().map(|endpoint| endpoint.to_string()),
            "client_id": known.client_id,
            "key_id": known.key_id,
            "label": known.label,
            "max_scope": known.scope,
            "ip_whitelist": known.whitelist,
            "enabled_features": known.features,
            "fingerprint_verified": known.fingerprint_verified,
            "proven": known.proven,
        }),
    };
    let general = json!({
        "state": record.state().as_str(),
        "generation": context.store.current(name)?,
        "created": record.created,
    });
    answer::merge(&mut value, general);
    answer::merge(&mut value, more);
    Ok(value)
}
