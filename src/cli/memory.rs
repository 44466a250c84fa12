//! What kind of memory keys are held in: tried, said, and insisted upon.

use super::{context::Context, failure::Failure, stamper::SystemStamper};
use crate::{key::PrivateKey, secret::Residence, signer::LocalSigner};

const CURE: &str = "raise the limit on locked memory, of which keys take 64 KiB or more: \
    ulimit -l, or LimitMEMLOCK= in a unit";

/// Says what kind of memory a key would be held in now.
pub(super) fn said(residence: Residence) -> &'static str {
    match residence {
        Residence::Secret => "keys in use are held in secret memory (memfd_secret)",
        Residence::Locked => "keys in use are held in locked memory",
        Residence::Pageable => "keys in use are held in pageable memory: they may be swapped out",
    }
}

/// Looks at what there is, for `doctor`: the check, and where it fails the problem and the cure.
pub(super) fn checked() -> (&'static str, Option<(&'static str, &'static str)>) {
    match Residence::of_keys() {
        Residence::Pageable => (
            "memory can be locked",
            Some(("too little of it: keys in use may be swapped out", CURE)),
        ),
        better => (said(better), None),
    }
}

/// Refuses to go on where memory must be locked and cannot be; before the first secret is read.
pub(super) fn insist(context: &Context) -> Result<(), Failure> {
    if must_be_locked(context) && Residence::of_keys() == Residence::Pageable {
        return Err(refused("this process may not lock memory"));
    }
    Ok(())
}

/// Holds a key for as long as a command needs it.
pub(super) fn hold(
    context: &Context,
    key: PrivateKey,
) -> Result<LocalSigner<SystemStamper>, Failure> {
    check(context)?;
    Ok(LocalSigner::new(key, SystemStamper))
}

/// Says so when keys are held where they may be swapped out, and refuses it where memory must be
/// locked.
pub(super) fn check(context: &Context) -> Result<(), Failure> {
    if Residence::of_keys() > Residence::Pageable {
        return Ok(());
    }
    let what = "the key cannot be held in locked memory";
    if must_be_locked(context) {
        return Err(refused(what));
    }
    context
        .output
        .remark(format!("warning: {what}, and may be swapped out; {CURE}"));
    Ok(())
}

fn must_be_locked(context: &Context) -> bool {
    context.global.require_locked_memory || context.config.require_locked_memory.unwrap_or(false)
}

fn refused(what: &str) -> Failure {
    Failure::refused(format!("{what}, and --require-locked-memory insists on it")).hint(CURE)
}
