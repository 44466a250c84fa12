//! Who signs with a key: the key itself, or the ssh-agent that holds its private half.

use std::{env, path::PathBuf};

use super::{
    args::{PassphraseArgs, SignerArgs},
    context::{Context, now},
    failure::Failure,
    memory,
    stamper::SystemStamper,
};
use crate::{
    exchange::Network,
    key::{KeyName, PublicKey},
    signer::{Signer, SshAgentSigner, Stamper, Wanted},
    store::Record,
};

const PREFIX: &str = "ssh-agent:";

/// Opens what signs with a key that belongs to a network, or soon will.
pub(super) fn signer_on(
    context: &Context,
    name: &KeyName,
    network: Option<&Network>,
    args: &PassphraseArgs,
) -> Result<Box<dyn Signer>, Failure> {
    if let Some(held) = &context.store.record(name)?.signer {
        return Ok(Box::new(elsewhere(context, name, held, SystemStamper)?));
    }
    let key = context.unlock_on(name, network, args)?;
    Ok(Box::new(memory::hold(context, key)?))
}

/// Opens what signs with a key.
pub(super) fn signer(
    context: &Context,
    name: &KeyName,
    record: &Record,
    args: &PassphraseArgs,
) -> Result<Box<dyn Signer>, Failure> {
    match &record.registration {
        Some(known) => signer_on(context, name, Some(&known.network), args),
        None => signer_on(context, name, context.network_if_named()?.as_ref(), args),
    }
}

/// Finds the key in the ssh-agent that is said to hold it, and makes sure that it is the one here.
pub(super) fn elsewhere<S: Stamper>(
    context: &Context,
    name: &KeyName,
    held: &str,
    stamper: S,
) -> Result<SshAgentSigner<S>, Failure> {
    let signer = ssh_agent(held, stamper)?;
    if context.store.contains(name) && context.store.public(name)? != *signer.public_key() {
        return Err(
            Failure::key(format!("{held} is another key than {name}")).hint(format!(
                "its public half is not that of \"derikey public {name}\""
            )),
        );
    }
    Ok(signer)
}

fn ssh_agent<S: Stamper>(held: &str, stamper: S) -> Result<SshAgentSigner<S>, Failure> {
    let wanted = wanted(held)?;
    let socket = env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty());
    let socket = socket.map(PathBuf::from).ok_or_else(|| {
        Failure::configuration("no ssh-agent is at hand: SSH_AUTH_SOCK is not set").hint(
            "start one: eval \"$(ssh-agent)\"; then ssh-add the key, or ssh-add -s for a token",
        )
    })?;
    SshAgentSigner::find(&socket, &wanted, stamper).map_err(|error| {
        Failure::from(error)
            .hint("\"ssh-add -l\" shows what it holds; ssh-add adds a key, ssh-add -X unlocks it")
    })
}

/// Reads `ssh-agent:FINGERPRINT`.
fn wanted(text: &str) -> Result<Wanted, Failure> {
    let fingerprint = text.strip_prefix(PREFIX).ok_or_else(|| {
        Failure::usage(format!("{text:?} is no signer"))
            .hint("write ssh-agent:SHA256:..., with the fingerprint that \"ssh-add -l\" shows")
    })?;
    fingerprint.parse().map_err(|_| {
        Failure::usage("what follows ssh-agent: is no fingerprint")
            .hint("\"ssh-add -l\" shows it: SHA256: and 43 characters")
    })
}

/// Takes a key that an ssh-agent holds into the keystore, its public half and where the rest is;
/// leaves one that is there already. Returns what is known of the key then, or would be.
pub(super) fn enrol(
    context: &Context,
    name: &KeyName,
    args: &SignerArgs,
) -> Result<(PublicKey, Record), Failure> {
    let there = || Ok((context.store.public(name)?, context.store.record(name)?));
    let Some(held) = &args.signer else {
        return there();
    };
    let signer = elsewhere(context, name, held, SystemStamper)?;
    if context.store.contains(name) {
        return match context.store.record(name)?.signer {
            Some(_) => there(),
            None => Err(
                Failure::refused(format!("{name} has its private half here"))
                    .hint("leave --signer out, or choose another name for the ssh-agent's key"),
            ),
        };
    }
    let public = signer.public_key().clone();
    let record = Record {
        algorithm: public.algorithm(),
        fingerprint: public.fingerprint(),
        created: now(),
        registration: None,
        signer: Some(held.clone()),
    };
    if context.global.dry_run {
        return Ok((public, record));
    }
    let _lock = context.lock(name)?;
    context.store.create_elsewhere(name, &public, &record)?;
    context.output.remark(format!(
        "took in the public half of {name}, {}, which the ssh-agent signs with",
        public.fingerprint()
    ));
    Ok((public, record))
}

/// Refuses what takes the private half itself.
pub(super) fn refuse_elsewhere(name: &KeyName, record: &Record) -> Result<(), Failure> {
    match &record.signer {
        None => Ok(()),
        Some(held) => Err(Failure::refused(format!(
            "the private half of {name} is not here: {held} holds it"
        ))
        .hint("make its successor there, take it in under another name, and disable this one")),
    }
}
