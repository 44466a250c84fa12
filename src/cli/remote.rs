//! `list --remote`: the account's keys beside those here.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::{
    args::List,
    connect::{Office, runtime},
    context::Context,
    keys, manage,
    report::Failure,
};
use crate::{
    exchange::{ApiKey, ClientId, Credential, Network},
    key::{Fingerprint, KeyName},
    provision::{self, Survey},
    store::{Record, State},
};

/// A key here that belongs to the network.
struct Local {
    name: KeyName,
    generation: crate::store::Generation,
    record: Record,
    public: crate::key::PublicKey,
}

pub(super) fn list(context: &Context, args: &List) -> Result<(), Failure> {
    let network = context.network()?;
    let (survey, operator) = runtime()?.block_on(async {
        let mut office = Office::open(context, &network, &args.admin, &args.passphrase).await?;
        let mut work = manage::work_of(context, &mut office);
        let survey = work.survey().await?;
        Ok::<_, Failure>((survey, work.desk.operator().client_id().clone()))
    })?;
    let rows = compare(context, &network, &survey, &operator)?;
    let findings = rows.iter().filter(|row| is_finding(row)).count();
    let value = json!({"keys": rows, "findings": findings});
    context.output.result(&value, || table(&rows))?;
    if args.exit_code && findings > 0 {
        return Err(Failure::findings(format!("{findings} keys do not match"))
            .hint("\"derikey list --remote\" names what differs"));
    }
    Ok(())
}

fn is_finding(row: &Value) -> bool {
    !row["orphan"].is_null()
        || row["drift"]
            .as_array()
            .is_some_and(|drift| !drift.is_empty())
}

/// Returns a row for each key, there or here.
pub(super) fn compare(
    context: &Context,
    network: &Network,
    survey: &Survey,
    operator: &ClientId,
) -> Result<Vec<Value>, Failure> {
    let locals = locals(context, network)?;
    let mut rows: Vec<Value> = survey
        .0
        .iter()
        .map(|key| {
            let local = locals.iter().find(|local| key.is(&local.public));
            row(key, local, operator)
        })
        .collect();
    for local in &locals {
        let known = local.record.registration.as_ref();
        let retired = local.record.state() == State::Retired;
        if survey.0.iter().any(|key| key.is(&local.public)) || retired {
            continue;
        }
        rows.push(json!({
            "name": local.name,
            "generation": local.generation,
            "client_id": known.map(|known| &known.client_id),
            "key_id": known.and_then(|known| known.key_id),
            "label": known.map(|known| &known.label),
            "max_scope": known.map(|known| &known.scope),
            "orphan": "local",
            "drift": [],
        }));
    }
    Ok(rows)
}

fn locals(context: &Context, network: &Network) -> Result<Vec<Local>, Failure> {
    let mut locals = Vec::new();
    for name in context.store.names()? {
        for generation in context.store.generations(&name)? {
            let record = context.store.record_of(&name, generation)?;
            if record
                .registration
                .as_ref()
                .is_some_and(|known| known.network == *network)
            {
                locals.push(Local {
                    public: context.store.public_of(&name, generation)?,
                    name: name.clone(),
                    generation,
                    record,
                });
            }
        }
    }
    Ok(locals)
}

fn row(key: &ApiKey, local: Option<&Local>, operator: &ClientId) -> Value {
    let symmetric = is_symmetric(key);
    let in_use = key.client_id == *operator;
    // There is no private half of a shared secret to miss, and whoever asks has the key in use.
    let orphan = local.is_none() && !symmetric && !in_use;
    let made = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(key.timestamp);
    let age = SystemTime::now()
        .duration_since(made)
        .map_or(0, |age| age.as_secs() / 86_400);
    json!({
        "name": local.map(|local| &local.name),
        "generation": local.map(|local| local.generation),
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
        "orphan": orphan.then_some("remote"),
        "drift": local.map_or_else(Vec::new, |local| drift(key, local)),
    })
}

/// Tells whether a key is a shared secret; a fingerprint without a public key is none.
fn is_symmetric(key: &ApiKey) -> bool {
    match (&key.public_key, &key.credential) {
        (Some(_), _) | (None, Credential::Fingerprint(_)) => false,
        (None, Credential::Secret(shown)) => shown.expose().parse::<Fingerprint>().is_err(),
        (None, Credential::Withheld) => true,
    }
}

/// Says how a key is not what is recorded of it.
fn drift(key: &ApiKey, local: &Local) -> Vec<String> {
    let Some(known) = &local.record.registration else {
        return Vec::new();
    };
    let recorded = crate::store::Specification {
        algorithm: local.record.algorithm,
        label: known.label.clone(),
        scope: known.scope.clone(),
        whitelist: known.whitelist.clone(),
        features: known.features.clone(),
    };
    let mut found = provision::differences_of(key, &recorded);
    if key.enabled.is_some_and(|enabled| enabled != known.enabled) {
        let word = |enabled: bool| if enabled { "enabled" } else { "disabled" };
        found.push(format!(
            "state: {} -> {}",
            word(!known.enabled),
            word(known.enabled)
        ));
    }
    if key.client_id != known.client_id {
        found.push(format!(
            "client id: {} -> {}",
            key.client_id, known.client_id
        ));
    }
    found
}

fn table(rows: &[Value]) -> String {
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
        remarks.extend(
            row["drift"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|d| d.as_str().map(str::to_owned)),
        );
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
    keys::columns(
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
