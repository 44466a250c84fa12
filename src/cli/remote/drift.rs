//! How a key is not what is recorded of it, and how that is mended.

use super::local::Local;
use crate::{cli::failure::Failure, exchange::ApiKey, provision, store::Specification};

/// Something that is not as it is recorded, and what to do about it.
pub(in crate::cli) struct Fault {
    pub(in crate::cli) kind: &'static str,
    pub(in crate::cli) problem: String,
    pub(in crate::cli) cure: String,
}

pub(super) fn unreadable(failure: &Failure) -> Fault {
    Fault {
        kind: "unreadable",
        problem: failure.message().into(),
        cure: failure.cure().into(),
    }
}

/// What is wrong besides drift, in words.
pub(super) fn problems(faults: &[Fault]) -> Vec<&str> {
    let other = faults
        .iter()
        .filter(|fault| !matches!(fault.kind, "drift" | "disabled_key" | "missing_there"));
    other.map(|fault| fault.problem.as_str()).collect()
}

/// Says what the differences mean and how each is mended.
pub(super) fn faults(key: &ApiKey, local: &Local, differences: &Differences) -> Vec<Fault> {
    let mut found = Vec::new();
    found.extend(local.problem.as_ref().map(unreadable));
    let (name, target) = (&local.name, local.target());
    if let Some(known) = local.known().filter(|_| differences.client_id.is_some()) {
        found.push(Fault {
            kind: "wrong_key",
            problem: format!(
                "it is recorded as {}, and the account knows its public key as {}",
                known.client_id, key.client_id
            ),
            cure: format!("restore the key.toml of {name} from a backup"),
        });
    }
    match (&differences.state, key.enabled) {
        (Some(_), Some(false)) => found.push(Fault {
            kind: "disabled_key",
            problem: "it was disabled there".into(),
            cure: format!("find out who did; then derikey enable {target}"),
        }),
        (Some(_), _) => found.push(Fault {
            kind: "drift",
            problem: "it is recorded as disabled and is enabled there".into(),
            cure: format!("derikey disable {target}, or derikey enable {target} if it should be"),
        }),
        (None, _) => {}
    }
    if !differences.settings.is_empty() {
        found.push(Fault {
            kind: "drift",
            problem: differences.settings.join("; "),
            cure: format!("derikey edit {name}, or adopt what is there"),
        });
    }
    found
}

/// How a key is not what is recorded of it.
#[derive(Default)]
pub(super) struct Differences {
    settings: Vec<String>,
    state: Option<String>,
    client_id: Option<String>,
}

impl Differences {
    pub(super) fn all(&self) -> Vec<&String> {
        let settings = self.settings.iter();
        settings.chain(&self.state).chain(&self.client_id).collect()
    }
}

pub(super) fn drift(key: &ApiKey, local: &Local) -> Differences {
    let (Some(known), Some(record)) = (local.known(), &local.record) else {
        return Differences::default();
    };
    let mut recorded = known.specification(record.algorithm);
    let is = provision::as_it_is(key, &recorded);
    if known.key_id.is_none() {
        // It was adopted without a look at the account: its rights are what a login was granted, and
        // nothing else is known.
        let scope = recorded.scope;
        recorded = Specification {
            scope,
            ..is.clone()
        };
    }
    let word = |enabled: bool| if enabled { "enabled" } else { "disabled" };
    let differs = key.enabled.is_some_and(|enabled| enabled != known.enabled);
    let (from, to) = (&key.client_id, &known.client_id);
    Differences {
        settings: provision::differences_of(&is, &recorded)
            .iter()
            .map(ToString::to_string)
            .collect(),
        state: differs
            .then(|| format!("state: {} -> {}", word(!known.enabled), word(known.enabled))),
        client_id: (from != to).then(|| format!("client id: {from} -> {to}")),
    }
}
