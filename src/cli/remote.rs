//! `list --remote`: the account's keys beside those here.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::{
    answer,
    args::List,
    connect::{Office, runtime_for},
    context::Context,
    failure::Failure,
    keys, manage,
};
use crate::{
    exchange::{ApiKey, ClientId, Credential, Network},
    key::{Fingerprint, KeyName},
    provision::Survey,
    store::{Generation, Registration},
};

mod drift;
mod local;

use drift::{Differences, Fault, drift, faults, problems, unreadable};
pub(super) use local::{Local, locals};

/// A key, there or here or both.
pub(super) struct Row {
    pub(super) name: Option<KeyName>,
    pub(super) generation: Option<Generation>,
    /// What the record says, where there is one and another has not taken its place.
    pub(super) known: Option<Registration>,
    pub(super) faults: Vec<Fault>,
    /// Whether the account has a key that nobody here knows.
    is_stranger: bool,
    value: Value,
    broken: Option<Failure>,
}

pub(super) fn list(context: &Context, args: &List) -> Result<(), Failure> {
    let network = context.network()?;
    let (survey, operator) = runtime_for(context)?.block_on(async {
        let mut office = Office::open(context, &network, &args.admin, &args.passphrase).await?;
        let mut work = manage::work_of(context, &mut office);
        let survey = work.survey().await?;
        Ok::<_, Failure>((survey, work.desk.operator().client_id().clone()))
    })?;
    let rows = compare(context, &network, &survey, &operator)?;
    let is_finding = |row: &&Row| row.is_stranger || !row.faults.is_empty();
    let findings = rows.iter().filter(is_finding).count();
    let values: Vec<&Value> = rows.iter().map(|row| &row.value).collect();
    let value = json!({"keys": values, "findings": findings});
    context.output.result(&value, || table(&values))?;
    if args.exit_code && findings > 0 {
        return Err(Failure::findings(format!("{findings} keys do not match"))
            .hint("\"derikey list --remote\" names what differs"));
    }
    let broken = rows
        .into_iter()
        .filter_map(|row| Some((row.name?, row.broken?)));
    keys::all_whole(broken.collect())
}

/// Returns a row for each key, there or here.
pub(super) fn compare(
    context: &Context,
    network: &Network,
    survey: &Survey,
    operator: &ClientId,
) -> Result<Vec<Row>, Failure> {
    let mut locals = locals(context, network)?;
    let mut rows = Vec::new();
    for key in &survey.0 {
        let at = locals.iter().position(|local| local.is(key));
        let local = at.map(|at| locals.remove(at));
        rows.push(row(key, local, operator));
    }
    for local in locals {
        if !local.is_retired() || local.problem.is_some() {
            rows.push(row_of_absent(local, survey));
        }
    }
    Ok(rows)
}

/// Returns the row of a key that the account has not got.
fn row_of_absent(local: Local, survey: &Survey) -> Row {
    let known = local.known();
    let mut faults = Vec::new();
    let mut orphan = None;
    if let Some(failure) = &local.problem {
        faults.push(unreadable(failure));
    } else if let Some(known) = known {
        orphan = Some("local");
        let name = &local.name;
        faults.push(match survey.by_client_id(&known.client_id) {
            // Whatever is signed with it is refused, and nothing says why.
            Some(other) => Fault {
                kind: "wrong_key",
                problem: format!(
                    "the account has another public key under {}{}",
                    known.client_id,
                    other.public_key.as_ref().map_or_else(
                        || ": a shared secret".into(),
                        |public| format!(": {}", public.fingerprint())
                    )
                ),
                cure: format!(
                    "restore the key pair that was registered from a backup or from trash/; \
                     or make another: derikey provision, then derikey delete {name}"
                ),
            },
            None => Fault {
                kind: "missing_there",
                problem: "the account does not have it".into(),
                cure: format!("make another: derikey provision; then derikey delete {name}"),
            },
        });
    }
    let value = json!({
        "name": local.name,
        "generation": local.generation,
        "client_id": known.map(|known| &known.client_id),
        "key_id": known.and_then(|known| known.key_id),
        "label": known.map(|known| &known.label),
        "max_scope": known.map(|known| &known.scope),
        "orphan": orphan,
        "drift": [],
        "problems": problems(&faults),
    });
    Row {
        known: known.cloned(),
        generation: (!local.in_use).then_some(local.generation),
        name: Some(local.name),
        faults,
        is_stranger: false,
        value,
        broken: local.problem.as_ref().map(keys::of_the_key),
    }
}

fn row(key: &ApiKey, local: Option<Local>, operator: &ClientId) -> Row {
    let symmetric = is_symmetric(key);
    let in_use = key.client_id == *operator;
    // There is no private half of a shared secret to miss, and whoever asks has the key in use.
    let is_stranger = local.is_none() && !symmetric && !in_use;
    let made = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(key.timestamp);
    let age = SystemTime::now()
        .duration_since(made)
        .map_or(0, |age| age.as_secs() / 86_400);
    let differences = local
        .as_ref()
        .map_or_else(Differences::default, |local| drift(key, local));
    let faults = match &local {
        Some(local) => faults(key, local, &differences),
        None => Vec::new(),
    };
    let value = json!({
        "name": local.as_ref().map(|local| &local.name),
        "generation": local.as_ref().map(|local| local.generation),
        "client_id": key.client_id,
        "key_id": key.id,
        "label": key.name,
        "kind": if symmetric { "symmetric" } else { "asymmetric" },
        "algorithm": key.public_key.as_ref().map(|public| public.algorithm()),
        "fingerprint": key.public_key.as_ref().map(|public| public.fingerprint()),
        "max_scope": key.max_scope,
        "ip_whitelist": key.ip_whitelist,
        "enabled_features": key.enabled_features,
        "enabled": key.enabled,
        "age_days": age,
        "in_use": in_use,
        "orphan": is_stranger.then_some("remote"),
        "drift": differences.all(),
        "problems": problems(&faults),
    });
    let local = local.as_ref();
    Row {
        name: local.map(|local| local.name.clone()),
        generation: local
            .filter(|local| !local.in_use)
            .map(|local| local.generation),
        known: local
            .filter(|local| !local.is_retired())
            .and_then(|local| local.known().cloned()),
        faults,
        is_stranger,
        value,
        broken: local
            .and_then(|local| local.problem.as_ref())
            .map(keys::of_the_key),
    }
}

/// Tells whether a key is a shared secret; a fingerprint without a public key is none.
fn is_symmetric(key: &ApiKey) -> bool {
    match (&key.public_key, &key.credential) {
        (Some(_), _) | (None, Credential::Fingerprint(_)) => false,
        (None, Credential::Secret(shown)) => shown.expose().parse::<Fingerprint>().is_err(),
        (None, Credential::Withheld) => true,
    }
}

fn table(rows: &[&Value]) -> String {
    if rows.is_empty() {
        return "the account has no keys, and none is recorded here".into();
    }
    let cells = |row: &Value| {
        let word = |field: &str| match row.get(field) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::Bool(yes)) => if *yes { "yes" } else { "no" }.into(),
            _ => "-".into(),
        };
        let mut remarks: Vec<String> = Vec::new();
        if row["in_use"] == true {
            remarks.push("in use".into());
        }
        if let Some(orphan) = row["orphan"].as_str() {
            remarks.push(if orphan == "remote" {
                "not here".into()
            } else {
                "not there".into()
            });
        }
        for field in ["drift", "problems"] {
            let words = row[field].as_array().into_iter().flatten();
            remarks.extend(words.filter_map(|word| word.as_str().map(str::to_owned)));
        }
        [
            word("name"),
            word("key_id"),
            word("client_id"),
            word("label"),
            word("kind"),
            word("enabled"),
            word("max_scope"),
            remarks.join("; "),
        ]
    };
    answer::columns(
        &[
            "name",
            "id",
            "client id",
            "label",
            "kind",
            "enabled",
            "max scope",
            "remarks",
        ],
        rows.iter().map(|row| cells(row).to_vec()),
    )
}
