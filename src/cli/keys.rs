//! Commands about keys on this machine.

use std::{
    io::{self, IsTerminal},
    path::Path,
};

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{
    args::{Export, FingerprintOf, Generate, Hash, Import, Name, Passwd, Plain, Which},
    context::{Context, now, rng, wants_plain},
    report::{self, Failure},
    signers,
    terminal::Waiting,
};
use crate::{
    key::{self, Algorithm, Fingerprint, KeyName, PrivateKey, PublicKey},
    secret::Passphrase,
    store::{self, Entry, Record, Trust},
};

pub(super) fn generate(context: &Context, args: &Generate) -> Result<(), Failure> {
    let name: KeyName = args.name.name.parse()?;
    refuse_taken(context, &name)?;
    let network = context.network_if_named()?;
    wants_plain(&args.sealing.plain)?;
    if context.global.dry_run {
        let step = format!("would make a key pair {} named {name}", args.algorithm);
        return plan(context, &[step]);
    }
    let passphrase = context.new_passphrase(
        &name,
        &args.sealing.passphrase,
        &args.sealing.plain,
        network.as_ref(),
    )?;
    let _lock = context.lock(&name)?;
    refuse_taken(context, &name)?;
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
    audit(context, "generate", &name, public.fingerprint())?;
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
        return plan(
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
    keep(
        context,
        &name,
        &key,
        passphrase.as_deref(),
        &args.sealing.plain,
    )?;
    let public = key.public().clone();
    drop((key, passphrase, input));
    audit(context, "import", &name, public.fingerprint())?;
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
    let path = if path == Path::new("-") {
        Path::new("/dev/stdin")
    } else {
        path
    };
    Ok(store::read(path, key::MAX_INPUT, Trust::Private)?)
}

pub(super) fn public(context: &Context, args: &Which) -> Result<(), Failure> {
    let key = public_of(context, args)?;
    let pem = key.to_pem();
    context.output.result(
        &json!({"public_key": pem, "fingerprint": key.fingerprint()}),
        || pem.clone(),
    )
}

pub(super) fn fingerprint(context: &Context, args: &FingerprintOf) -> Result<(), Failure> {
    let key = public_of(context, &args.which)?;
    let (hash, text) = match args.hash {
        Hash::Md5 => ("md5", key.fingerprint().to_string()),
        Hash::Sha256 => ("sha256", key.fingerprint_sha256()),
    };
    let value = json!({"fingerprint": text, "hash": hash, "algorithm": key.algorithm()});
    context.output.result(&value, || text.clone())
}

pub(super) fn show(context: &Context, args: &Which) -> Result<(), Failure> {
    if let Target::Key(name) = target(context, &args.which)? {
        let record = context.store.record(&name)?;
        let value = describe(context, &name, &record)?;
        return context.output.result(&value, || lines(&value));
    }
    let key = public_of(context, args)?;
    let value = json!({
        "algorithm": key.algorithm(),
        "fingerprint": key.fingerprint(),
        "fingerprint_sha256": key.fingerprint_sha256(),
        "public_key": key.to_pem(),
    });
    context.output.result(&value, || lines(&value))
}

/// A name in the keystore, or a file.
pub(super) enum Target<'a> {
    Key(KeyName),
    File(&'a Path),
}

/// Tells names and files apart: a file has a slash or a dot in its path.
pub(super) fn target<'a>(context: &Context, which: &'a str) -> Result<Target<'a>, Failure> {
    match which.parse::<KeyName>() {
        Ok(name) if context.store.contains(&name) => Ok(Target::Key(name)),
        Ok(name) => Err(store::Error::NoSuchKey { name }.into()),
        Err(error) if which.is_empty() => Err(error.into()),
        Err(_) => Ok(Target::File(Path::new(which))),
    }
}

/// Returns the public half of whatever was named; of a private file only if it must be opened.
pub(super) fn public_of(context: &Context, args: &Which) -> Result<PublicKey, Failure> {
    let path = match target(context, &args.which)? {
        Target::Key(name) => return Ok(context.store.public(&name)?),
        Target::File(path) => path,
    };
    let stdin = Path::new("/dev/stdin");
    let path = if path == Path::new("-") { stdin } else { path };
    let bytes = store::read(path, key::MAX_INPUT, Trust::Public)?;
    let failed = |error| unusable_here(path, error);
    match PublicKey::read(&bytes) {
        Err(key::Error::Private | key::Error::Sealed) => {}
        result => return result.map_err(failed),
    }
    // A private file that others can read is said to be one before it is used.
    if path != stdin {
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

fn unusable_here(path: &Path, source: key::Error) -> Failure {
    store::Error::Key {
        path: path.into(),
        source,
    }
    .into()
}

pub(super) fn passwd(context: &Context, args: &Passwd) -> Result<(), Failure> {
    let name: KeyName = args.name.name.parse()?;
    let _lock = context.lock(&name)?;
    let record = context.store.record(&name)?;
    let plain = wants_plain(&args.plain)?;
    let key = context.unlock(&name, &record, &args.passphrase)?;
    let passphrase = match args.new.source() {
        _ if plain => None,
        Some(source) => Some(source.read_passphrase("the new passphrase")?.into()),
        None => Some(context.ask_new_passphrase(&name)?),
    };
    if context.global.dry_run {
        return plan(
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
    audit(context, "passwd", &name, record.fingerprint)?;
    context.output.remark(format!(
        "the file under the old passphrase is kept in {}; to purge it: {}",
        grave.display(),
        purge(&grave)
    ));
    let value = json!({"name": name, "fingerprint": record.fingerprint, "trash": grave, "purge": purge(&grave)});
    context
        .output
        .result(&value, || format!("{name} has a new passphrase"))
}

pub(super) fn export(context: &Context, args: &Export) -> Result<(), Failure> {
    let name: KeyName = args.name.name.parse()?;
    let record = context.store.record(&name)?;
    let plain = wants_plain(&args.plain)?;
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
    if context.global.dry_run {
        let how = if plain { "in clear" } else { "sealed" };
        return plan(context, &[format!("would export {name} {how}")]);
    }
    audit(context, "export", &name, record.fingerprint)?;
    match &args.out {
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
    if let Some(intent) = context.store.intent(&name)? {
        return Err(Failure::refused(format!(
            "{} of {name} is under way",
            intent.operation.as_str()
        ))
        .hint(format!("finish it first with \"derikey resume {name}\"")));
    }
    let record = context.store.record(&name);
    if let Ok(Record {
        registration: Some(known),
        ..
    }) = &record
    {
        let why = format!(
            "{name} is registered as {} on {} and stays live there, without its private half",
            known.client_id, known.network
        );
        if context.global.dry_run {
            return plan(context, &[why, format!("would move {name} to the trash")]);
        }
        context.confirm(&why, name.as_str())?;
    } else if context.global.dry_run {
        return plan(context, &[format!("would move {name} to the trash")]);
    }
    let grave = context.store.discard(&name, now())?;
    let mut entry = Entry::new(now(), "delete", "done");
    entry.key = Some(name.clone());
    entry.fingerprint = record.ok().map(|record| record.fingerprint);
    context.store.audit(entry)?;
    context
        .output
        .remark(format!("to purge it: {}", purge(&grave)));
    let value = json!({"name": name, "trash": grave, "purge": purge(&grave)});
    context
        .output
        .result(&value, || format!("{name} is in {}", grave.display()))
}

/// Returns the command that removes what lies in the trash, fit for a shell.
fn purge(grave: &Path) -> String {
    let path = grave.display().to_string();
    format!("rm -r '{}'", path.replace('\'', r"'\''"))
}

pub(super) fn list(context: &Context) -> Result<(), Failure> {
    let (mut keys, mut broken) = (Vec::new(), Vec::new());
    for name in context.store.names()? {
        match about(context, &name) {
            Ok(value) => keys.push(value),
            Err(failure) => {
                keys.push(json!({
                    "name": name,
                    "state": "unreadable",
                    "problem": failure.message(),
                    "cure": failure.cure(),
                }));
                broken.push((name, of_the_key(&failure)));
            }
        }
    }
    let value = json!({"keys": keys});
    context.output.result(&value, || table(&keys))?;
    all_whole(broken)
}

/// Counts whatever is wrong with the files of a key as one kind of failure.
pub(super) fn of_the_key(failure: &Failure) -> Failure {
    Failure::key(failure.message()).hint(failure.cure())
}

/// What could not be read of which key.
pub(super) type Broken = Vec<(KeyName, Failure)>;

/// Fails when something could not be read, after the rest was shown.
///
/// One failure is reported as it is; of several the first, which says of whom the others are.
pub(super) fn all_whole(broken: Broken) -> Result<(), Failure> {
    let mut broken = broken.into_iter();
    let Some((name, failure)) = broken.next() else {
        return Ok(());
    };
    let others: Vec<String> = broken.map(|(name, _)| name.to_string()).collect();
    Err(if others.is_empty() {
        failure.about(name.as_str())
    } else {
        failure.about(&format!("{name} (and {} as well)", others.join(", ")))
    })
}

fn table(keys: &[Value]) -> String {
    if keys.is_empty() {
        return "no keys yet; \"derikey provision\" or \"derikey generate\" makes one".into();
    }
    const COLUMNS: [&str; 6] = [
        "name",
        "algorithm",
        "state",
        "network",
        "client_id",
        "max_scope",
    ];
    let rows = keys.iter().map(|key| {
        let cell = |column| {
            key.get(column)
                .and_then(Value::as_str)
                .unwrap_or("-")
                .to_owned()
        };
        COLUMNS.map(cell).to_vec()
    });
    columns(
        &COLUMNS
            .map(|column| column.replace('_', " "))
            .each_ref()
            .map(String::as_str),
        rows,
    )
}

/// Lays cells out in columns, the way terminals have always been read.
pub(super) fn columns(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(head.iter().map(|column| column.to_uppercase()));
    table.add_rows(rows);
    table
        .lines()
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
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

fn audit(
    context: &Context,
    action: &str,
    name: &KeyName,
    fingerprint: Fingerprint,
) -> Result<(), Failure> {
    let mut entry = Entry::new(now(), action, "done");
    entry.key = Some(name.clone());
    entry.fingerprint = Some(fingerprint);
    Ok(context.store.audit(entry)?)
}

/// Says what a command would do.
pub(super) fn plan(context: &Context, steps: &[String]) -> Result<(), Failure> {
    let value = json!({"dry_run": true, "steps": steps});
    context.output.result(&value, || steps.join("\n"))
}

/// The fields that every answer about a key begins with.
pub(super) fn identity(context: &Context, name: &KeyName, key: &PublicKey) -> Value {
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

fn announce(context: &Context, name: &KeyName, key: &PublicKey) -> Result<(), Failure> {
    let value = identity(context, name, key);
    context.output.result(&value, || lines(&value))
}

/// Returns all that is known of a key.
pub(super) fn about(context: &Context, name: &KeyName) -> Result<Value, Failure> {
    describe(context, name, &context.store.record(name)?)
}

pub(super) fn describe(
    context: &Context,
    name: &KeyName,
    record: &Record,
) -> Result<Value, Failure> {
    let mut value = identity(context, name, &context.store.public(name)?);
    if let Some(held) = &record.signer {
        merge(&mut value, json!({"signer": held}));
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
    merge(&mut value, general);
    merge(&mut value, more);
    Ok(value)
}

/// Adds the fields of one object to another.
pub(super) fn merge(into: &mut Value, more: Value) {
    if let (Some(into), Value::Object(more)) = (into.as_object_mut(), more) {
        into.extend(more);
    }
}

/// Writes an object for people: a line for each field that says something.
pub(super) fn lines(value: &Value) -> String {
    let fields = value.as_object().into_iter().flatten();
    let shown = fields.filter_map(|(field, value)| {
        let text = match value {
            Value::Null => return None,
            Value::String(text) => text.trim_end().to_owned(),
            Value::Array(items) => {
                let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
                if items.is_empty() {
                    "none".into()
                } else {
                    items.join(" ")
                }
            }
            other => other.to_string(),
        };
        let gap = if text.contains('\n') { '\n' } else { ' ' };
        Some(format!("{}:{gap}{text}\n", field.replace('_', " ")))
    });
    shown.collect()
}
