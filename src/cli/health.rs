//! `doctor` says what is wrong, and how to mend it.

use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};
use serde_json::{Value, json};

use super::{
    args::Doctor,
    checkup,
    connect::runtime_for,
    context::{Context, now},
    failure::Failure,
    keys, memory, pending,
};
use crate::{
    exchange::Network,
    key::{self, KeyName, PrivateKey},
    store::{self, Generation, Record, Stage},
};

/// What was looked at, and what is wrong with it.
struct Finding {
    check: String,
    key: Option<KeyName>,
    wrong: Option<Wrong>,
}

/// What is wrong, and how to mend it.
struct Wrong {
    kind: &'static str,
    problem: String,
    cure: String,
}

#[derive(Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    pub(super) fn good(&mut self, check: impl Into<String>) {
        self.0.push(Finding {
            check: check.into(),
            key: None,
            wrong: None,
        });
    }

    /// Something about this host.
    fn bad(
        &mut self,
        check: impl Into<String>,
        problem: impl Into<String>,
        cure: impl Into<String>,
    ) {
        self.found("host", None, check, problem, cure);
    }

    pub(super) fn found(
        &mut self,
        kind: &'static str,
        key: Option<&KeyName>,
        check: impl Into<String>,
        problem: impl Into<String>,
        cure: impl Into<String>,
    ) {
        self.0.push(Finding {
            check: check.into(),
            key: key.cloned(),
            wrong: Some(Wrong {
                kind,
                problem: problem.into(),
                cure: cure.into(),
            }),
        });
    }

    /// A check that could not be made to its end.
    pub(super) fn failed(
        &mut self,
        kind: &'static str,
        key: Option<&KeyName>,
        check: impl Into<String>,
        failure: &Failure,
    ) {
        self.found(kind, key, check, failure.message(), failure.cure());
    }
}

pub(super) fn doctor(context: &Context, args: &Doctor) -> Result<(), Failure> {
    let mut findings = Findings::default();
    process(&mut findings);
    let networks = keys(context, args, &mut findings)?;
    operations(context, &mut findings);
    chain(context, &mut findings);
    if !args.offline {
        for network in networks {
            let asked = runtime_for(context)?.block_on(checkup::ask(
                context,
                args,
                &network,
                &mut findings,
            ));
            if let Err((kind, failure)) = asked {
                findings.failed(kind, None, format!("the {network} network"), &failure);
            }
        }
    }
    let wrong = findings.0.iter().filter(|f| f.wrong.is_some()).count();
    let rows: Vec<Value> = findings.0.iter().map(row).collect();
    context
        .output
        .result(&json!({"checks": rows, "findings": wrong}), || {
            findings.0.iter().map(in_words).collect()
        })?;
    match wrong {
        0 => Ok(()),
        n => {
            Err(Failure::findings(format!("{n} things are wrong"))
                .hint("each is listed with its cure"))
        }
    }
}

fn row(finding: &Finding) -> Value {
    let wrong = finding.wrong.as_ref();
    json!({
        "check": finding.check,
        "ok": wrong.is_none(),
        "kind": wrong.map(|wrong| wrong.kind),
        "key": finding.key,
        "problem": wrong.map(|wrong| &wrong.problem),
        "cure": wrong.map(|wrong| &wrong.cure),
    })
}

fn in_words(finding: &Finding) -> String {
    match &finding.wrong {
        Some(wrong) => format!(
            "wrong  {}: {}\n       {}\n",
            finding.check, wrong.problem, wrong.cure
        ),
        None => format!("good   {}\n", finding.check),
    }
}

fn process(findings: &mut Findings) {
    #[cfg(target_os = "linux")]
    match dumpable_behavior() {
        Ok(DumpableBehavior::NotDumpable) => {
            findings.good("other processes cannot read this one's memory")
        }
        _ => findings.bad(
            "other processes cannot read this one's memory",
            "the system did not allow it",
            "check the security policy of this host",
        ),
    }
    match getrlimit(Resource::Core).current {
        Some(0) => findings.good("no core files are written"),
        _ => findings.bad(
            "no core files are written",
            "the limit could not be set",
            "set ulimit -c 0",
        ),
    }
    match memory::checked() {
        (check, None) => findings.good(check),
        (check, Some((problem, cure))) => findings.bad(check, problem, cure),
    }
}

/// Looks at every key here, and returns the networks they live on.
fn keys(
    context: &Context,
    args: &Doctor,
    findings: &mut Findings,
) -> Result<Vec<Network>, Failure> {
    let mut networks: Vec<Network> = context.network_if_named()?.into_iter().collect();
    for name in context.store.names()? {
        let current = match context.store.current(&name) {
            Ok(current) => current,
            Err(error) => {
                let check = format!("the files of {name}");
                let failure = keys::of_the_key(&Failure::from(error));
                findings.failed("unreadable", Some(&name), check, &failure);
                continue;
            }
        };
        for generation in context.store.generations(&name)? {
            let check = if generation == current {
                format!("the files of {name}")
            } else {
                format!("the files of {name}, generation {generation}")
            };
            match files(context, args, &name, generation) {
                Ok(record) => {
                    findings.good(check);
                    if let Some(known) = record.registration
                        && !networks.contains(&known.network)
                    {
                        networks.push(known.network);
                    }
                }
                Err((kind, failure)) => findings.failed(kind, Some(&name), check, &failure),
            }
        }
    }
    Ok(networks)
}

/// Looks at the files of one generation: whole, nobody else's, and of one key.
fn files(
    context: &Context,
    args: &Doctor,
    name: &KeyName,
    generation: Generation,
) -> Result<Record, (&'static str, Failure)> {
    let failed = |error: store::Error| (kind_of(&error), Failure::from(error));
    let record = context.store.record_of(name, generation).map_err(failed)?;
    let public = context.store.public_of(name, generation).map_err(failed)?;
    if record.fingerprint != public.fingerprint() {
        let failure = Failure::key("key.toml and public.pem speak of different keys");
        return Err(("wrong_key", failure.hint("restore both from a backup")));
    }
    if record.signer.is_some() {
        return Ok(record);
    }
    let pem = context.store.private_pem_of(name, generation);
    let pem = pem.map_err(failed)?;
    let unusable = |source| {
        let path = context.store.root().join("keys").join(name.as_str());
        failed(store::Error::Key { path, source })
    };
    // A sealed file is opened where nobody must be asked for its passphrase.
    let passphrase = if PrivateKey::is_sealed(&pem).map_err(unusable)? {
        let network = record.registration.as_ref().map(|known| &known.network);
        match context.passphrase_at_hand(&args.passphrase, network) {
            Ok(Some(passphrase)) => Some(passphrase),
            _ => return Ok(record),
        }
    } else {
        None
    };
    let opened = context.store.load_of(name, generation, || {
        passphrase.ok_or(store::Error::NoSuchKey { name: name.clone() })
    });
    match opened {
        // Another key's passphrase was named, which is no fault of this one.
        Err(store::Error::Key {
            source: key::Error::WrongPassphrase,
            ..
        }) => Ok(record),
        Err(error) => Err(failed(error)),
        Ok(_) => Ok(record),
    }
}

/// Sorts what can be wrong with a file.
const fn kind_of(error: &store::Error) -> &'static str {
    match error {
        store::Error::Exposed { .. } | store::Error::Foreign { .. } => "unsafe_permissions",
        store::Error::NotAFile { .. } | store::Error::NotADirectory { .. } => "unsafe_file",
        store::Error::Mismatch { .. } => "wrong_key",
        _ => "unreadable",
    }
}

fn operations(context: &Context, findings: &mut Findings) {
    let check = "nothing is unfinished";
    let (intents, damaged) = match pending::journal(context) {
        Ok(found) => found,
        Err(failure) => return findings.failed("damaged_journal", None, check, &failure),
    };
    if intents.is_empty() && damaged.is_empty() {
        findings.good(check);
    }
    for (name, failure) in damaged {
        let check = format!("the journal of {name}");
        findings.failed("damaged_journal", Some(&name), check, &failure);
    }
    for intent in intents {
        let (name, stage) = (&intent.name, intent.stage);
        let waits = intent
            .succession
            .as_ref()
            .and_then(|s| s.until)
            .filter(|until| now() < *until);
        let what = format!("{} of {name}", intent.operation.as_str());
        match waits {
            Some(until) if stage == Stage::Switched => {
                findings.good(format!("{what}: the old key stays enabled until {until}"));
            }
            _ => findings.found(
                "unfinished",
                Some(name),
                what,
                format!("it stopped at {}", stage.as_str()),
                format!("run \"derikey resume {name}\""),
            ),
        }
    }
}

fn chain(context: &Context, findings: &mut Findings) {
    let check = "the audit log's chain holds";
    let mut broken = None;
    let read = context.store.audit_log(|link| {
        if !link.holds && broken.is_none() {
            broken = Some(link.number);
        }
    });
    if let Err(error) = read {
        let kind = kind_of(&error);
        return findings.failed(kind, None, check, &Failure::from(error));
    }
    match broken {
        None => findings.good(check),
        Some(number) => findings.found(
            "audit_chain",
            None,
            check,
            format!("it breaks at line {number}"),
            "compare it with a backup; somebody or something changed it",
        ),
    }
}
