//! `doctor` says what is wrong and how to mend it; `audit` shows the log and verifies its chain.

use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};
use serde_json::{Value, json};

use super::{
    args::Doctor,
    connect::{Connection, Office, runtime},
    context::{Context, SystemStamper, now},
    manage, memory, remote,
    report::Failure,
};
use crate::{
    exchange::Network,
    provision,
    signer::Stamper,
    store::{Link, Stage},
};

/// What was looked at, and what is wrong with it.
struct Finding {
    check: String,
    problem: Option<String>,
    cure: Option<String>,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn good(&mut self, check: impl Into<String>) {
        self.0.push(Finding {
            check: check.into(),
            problem: None,
            cure: None,
        });
    }

    fn bad(
        &mut self,
        check: impl Into<String>,
        problem: impl Into<String>,
        cure: impl Into<String>,
    ) {
        self.0.push(Finding {
            check: check.into(),
            problem: Some(problem.into()),
            cure: Some(cure.into()),
        });
    }

    fn failed(&mut self, check: impl Into<String>, failure: &Failure) {
        self.bad(check, failure.message(), failure.cure());
    }
}

pub(super) fn doctor(context: &Context, args: &Doctor) -> Result<(), Failure> {
    let mut findings = Findings::default();
    process(&mut findings);
    let networks = keys(context, &mut findings)?;
    operations(context, &mut findings)?;
    chain(context, &mut findings)?;
    if !args.offline {
        for network in networks {
            if let Err(failure) = runtime()?.block_on(reach(context, args, &network, &mut findings))
            {
                findings.failed(format!("the {network} network"), &failure);
            }
        }
    }
    let wrong = findings
        .0
        .iter()
        .filter(|finding| finding.problem.is_some())
        .count();
    let rows: Vec<Value> = findings
        .0
        .iter()
        .map(|f| json!({"check": f.check, "ok": f.problem.is_none(), "problem": f.problem, "cure": f.cure}))
        .collect();
    context
        .output
        .result(&json!({"checks": rows, "findings": wrong}), || {
            findings.0.iter().fold(String::new(), |text, finding| {
                match (&finding.problem, &finding.cure) {
                    (Some(problem), cure) => {
                        let cure = cure.as_deref().unwrap_or_default();
                        format!("{text}wrong  {}: {problem}\n       {cure}\n", finding.check)
                    }
                    (None, _) => format!("{text}good   {}\n", finding.check),
                }
            })
        })?;
    match wrong {
        0 => Ok(()),
        n => {
            Err(Failure::findings(format!("{n} things are wrong"))
                .hint("each is listed with its cure"))
        }
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
fn keys(context: &Context, findings: &mut Findings) -> Result<Vec<Network>, Failure> {
    let mut networks: Vec<Network> = context.network_if_named()?.into_iter().collect();
    for name in context.store.names()? {
        let check = format!("the files of {name}");
        let looked = context.store.record(&name).and_then(|record| {
            let public = context.store.public(&name)?;
            context.store.private_pem(&name)?;
            Ok((record, public))
        });
        match looked {
            Err(error) => findings.failed(check, &Failure::from(error)),
            Ok((record, public)) if record.fingerprint != public.fingerprint() => findings.bad(
                check,
                "key.toml and public.pem speak of different keys",
                "restore both from a backup",
            ),
            Ok((record, _)) => {
                findings.good(check);
                if let Some(known) = record.registration
                    && !networks.contains(&known.network)
                {
                    networks.push(known.network);
                }
            }
        }
    }
    Ok(networks)
}

fn operations(context: &Context, findings: &mut Findings) -> Result<(), Failure> {
    let intents = context.store.intents()?;
    for intent in &intents {
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
            _ => findings.bad(
                what,
                format!("it stopped at {}", stage.as_str()),
                format!("run \"derikey resume {name}\""),
            ),
        }
    }
    if intents.is_empty() {
        findings.good("nothing is unfinished");
    }
    Ok(())
}

fn chain(context: &Context, findings: &mut Findings) -> Result<(), Failure> {
    let broken = context
        .store
        .audit_log()?
        .into_iter()
        .find(|link| !link.holds);
    match broken {
        None => findings.good("the audit log's chain holds"),
        Some(link) => findings.bad(
            "the audit log's chain holds",
            format!("it breaks at line {}", link.number),
            "compare it with a backup; somebody or something changed it",
        ),
    }
    Ok(())
}

/// Asks an exchange what time it is, and, where an administrator is named, about the keys.
async fn reach(
    context: &Context,
    args: &Doctor,
    network: &Network,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let connection = Connection::open(context, network).await?;
    let ours = SystemStamper.stamp()?.timestamp.0;
    let (seconds, ahead) = provision::clock_skew(&connection.exchange, ours).await?;
    let check = format!("the clock, by the {network} network");
    if seconds > 5 {
        let direction = if ahead { "ahead" } else { "behind" };
        findings.bad(
            check,
            format!("it is {seconds} s {direction}; at 60 s signatures are refused"),
            "set it: chronyd, systemd-timesyncd",
        );
    } else {
        findings.good(check);
    }
    drop(connection);
    let named = args.admin.admin.is_some() || args.admin.admin_client_id.is_some();
    let configured = context.config.admin.is_some() || context.config.admin_client_id.is_some();
    if !named && !configured && *network != Network::Sandbox {
        findings.good(format!(
            "the keys on {network} were not asked for: no administrator was named"
        ));
        return Ok(());
    }
    let mut office = Office::open(context, network, &args.admin, &args.passphrase).await?;
    let mut work = manage::work_of(context, &mut office);
    let survey = work.survey().await?;
    let operator = work.desk.operator().client_id().clone();
    for row in remote::compare(context, network, &survey, &operator)? {
        let Some(name) = row.get("name").and_then(Value::as_str) else {
            continue;
        };
        let check = format!("{name} at the exchange");
        let drift: Vec<&str> = row
            .get("drift")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if row.get("orphan").and_then(Value::as_str) == Some("local") {
            findings.bad(
                check,
                "the account does not have it",
                format!("make another: derikey provision; then derikey delete {name}"),
            );
        } else if drift.is_empty() {
            findings.good(check);
        } else {
            findings.bad(
                check,
                drift.join("; "),
                format!("derikey edit {name}, derikey enable {name}, or adopt what is there"),
            );
        }
    }
    Ok(())
}

pub(super) fn audit(context: &Context) -> Result<(), Failure> {
    let links = context.store.audit_log()?;
    let broken = links
        .iter()
        .find(|link| !link.holds)
        .map(|link| link.number);
    let entries: Vec<Value> = links
        .iter()
        .map(|link| {
            serde_json::from_str(&link.text).unwrap_or_else(|_| json!({"unreadable": true}))
        })
        .collect();
    let value =
        json!({"entries": entries, "verified": broken.is_none(), "first_broken_line": broken});
    context.output.result(&value, || {
        let line = |(link, entry): (&Link, &Value)| {
            let word = |field: &str| entry[field].as_str().unwrap_or("-").to_owned();
            let mark = if link.holds { ' ' } else { '!' };
            format!(
                "{mark}{:>5}  {}  uid {}  {} {} {}\n",
                link.number,
                word("at"),
                entry["uid"],
                word("action"),
                word("key"),
                word("outcome")
            )
        };
        links.iter().zip(&entries).map(line).collect()
    })?;
    match broken {
        None => Ok(()),
        Some(number) => Err(Failure::verification(format!(
            "the audit log's chain breaks at line {number}"
        ))
        .hint("the line before it was changed, added or taken out, or it was itself")),
    }
}
