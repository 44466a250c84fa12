//! `passwd` and `export`: the private file under another passphrase.

use std::{
    io::{self, IsTerminal},
    path::Path,
};

use serde::Serialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::{purge, seal, unusable_here, write_down};
use crate::{
    cli::{
        answer,
        args::{Export, Passwd},
        audit,
        context::{Context, now, wants_one},
        failure::Failure,
        report, signers,
    },
    key::{Fingerprint, KeyName, PrivateKey},
    store::{self, Generation},
};

pub(in crate::cli) fn passwd(context: &Context, args: &Passwd) -> Result<(), Failure> {
    let name: KeyName = args.name.name.parse()?;
    let plain = wants_one(&args.plain, args.new.source().as_ref())?;
    // A lock is a file: it is made for no key that is not there.
    context.store.current(&name)?;
    let _lock = context.lock(&name)?;
    let record = context.store.record(&name)?;
    let key = context.unlock(&name, &record, &args.passphrase)?;
    let passphrase = match args.new.source() {
        _ if plain => None,
        Some(source) => Some(source.read_passphrase("the new passphrase")?.into()),
        None => Some(context.ask_new_passphrase(&name)?),
    };
    if context.global.dry_run {
        return answer::plan(
            context,
            &[format!(
                "would seal {name} anew and move the old file to the trash"
            )],
        );
    }
    let pem = seal(&key, passphrase.as_deref(), &args.plain)?;
    drop((key, passphrase));
    let grave = context.store.reseal(&name, &pem, now())?;
    drop(pem);
    write_down(context, "passwd", &name, record.fingerprint).map_err(audit::unwritten)?;
    context.output.remark(format!(
        "the file under the old passphrase is kept in {}; to purge it: {}",
        grave.display(),
        purge(&grave)
    ));
    for generation in others_in_use(context, &name)? {
        context.output.remark(format!(
            "warning: generation {generation}, which \"derikey rollback {name}\" would go back to, keeps its own passphrase"
        ));
    }
    let value = json!({"name": name, "fingerprint": record.fingerprint, "trash": grave, "purge": purge(&grave)});
    context
        .output
        .result(&value, || format!("{name} has a new passphrase"))
}

/// Returns the generations beside the one in use that the exchange has.
fn others_in_use(context: &Context, name: &KeyName) -> Result<Vec<Generation>, Failure> {
    let mut others = context.store.generations(name)?;
    let current = context.store.current(name)?;
    others.retain(|generation| {
        let record = context.store.record_of(name, *generation).ok();
        *generation != current && record.is_some_and(|record| record.registration.is_some())
    });
    Ok(others)
}

/// What an export prints for a program.
#[derive(Serialize)]
struct Exported<'a> {
    name: &'a KeyName,
    fingerprint: Fingerprint,
    private_key: &'a str,
}

pub(in crate::cli) fn export(context: &Context, args: &Export) -> Result<(), Failure> {
    let name: KeyName = args.name.name.parse()?;
    let plain = wants_one(&args.plain, args.new.source().as_ref())?;
    let record = context.store.record(&name)?;
    if args.out.is_none() && io::stdout().is_terminal() {
        return Err(Failure::refused("a private key is not shown on a terminal")
            .hint("add --out FILE, or send standard output to a file or a program"));
    }
    signers::refuse_elsewhere(&name, &record)?;
    let stored = context.store.private_pem(&name)?;
    let sealed =
        PrivateKey::is_sealed(&stored).map_err(|e| unusable_here(Path::new("private.pem"), e))?;
    let new = args.new.source();
    let pem: Zeroizing<Vec<u8>> = if plain || new.is_some() {
        let key = context.unlock(&name, &record, &args.passphrase)?;
        let passphrase = match new {
            Some(source) if !plain => Some(source.read_passphrase("the new passphrase")?),
            _ => None,
        };
        Zeroizing::new(
            seal(&key, passphrase.as_ref(), &args.plain)?
                .as_bytes()
                .to_vec(),
        )
    } else if sealed {
        stored
    } else {
        return Err(
            Failure::refused(format!("{name} is kept in clear, and an export is sealed"))
                .hint("add --new-passphrase-file, or --no-passphrase and --insecure together"),
        );
    };
    if let Some(path) = &args.out {
        // It stands in the answer, which is JSON.
        if path.to_str().is_none() {
            return Err(Failure::usage(format!("{} is not UTF-8", path.display()))
                .hint("choose a file whose name is text; nothing was written"));
        }
        if path.symlink_metadata().is_ok() {
            return Err(store::Error::Exists { path: path.clone() }.into());
        }
    }
    if context.global.dry_run {
        let how = if plain { "in clear" } else { "sealed" };
        return answer::plan(context, &[format!("would export {name} {how}")]);
    }
    write_down(context, "export", &name, record.fingerprint)?;
    match &args.out {
        None if context.output.json => {
            let text = std::str::from_utf8(&pem).unwrap_or_default();
            let exported = Exported {
                name: &name,
                fingerprint: record.fingerprint,
                private_key: text,
            };
            report::write_secret(&exported, text.len())
        }
        None => report::write_out(&pem),
        Some(path) => {
            store::write_new(path, &pem)?;
            let value =
                json!({"name": name, "fingerprint": record.fingerprint, "private_key_path": path});
            context
                .output
                .result(&value, || format!("{name} is in {}", path.display()))
        }
    }
}
