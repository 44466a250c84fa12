//! The audit log: the line that an operation leaves in it, and all of it shown and verified.

use serde_json::{Value, json};

use super::{
    context::{Context, now},
    failure::Failure,
};
use crate::{
    exchange::Network,
    key::{KeyName, PublicKey},
    store::{self, Entry, Link},
};

/// Writes down what an operation came to.
pub(super) fn outcome<T>(
    context: &Context,
    action: &str,
    name: &KeyName,
    network: &Network,
    public: Option<&PublicKey>,
    result: &Result<T, Failure>,
) -> Result<(), Failure> {
    let outcome = result.as_ref().map_or_else(Failure::kind, |_| "done");
    let mut entry = Entry::new(now(), action, outcome);
    let network = network.to_string();
    entry.key = Some(name);
    entry.network = Some(&network);
    entry.fingerprint = public.map(PublicKey::fingerprint);
    match (context.store.audit(entry), result) {
        // The failure itself matters more than that it could not be written down.
        (Err(_), Err(_)) | (Ok(()), _) => Ok(()),
        (Err(error), Ok(_)) => Err(unwritten(error)),
    }
}

/// Says of what is done that it could not be written down.
pub(super) fn unwritten(error: store::Error) -> Failure {
    Failure::from(error)
        .about("it is done, and the audit log does not say so")
        .hint("do not repeat it: \"derikey list\" shows what there is; mend the log's place first")
}

/// Shows the log, and verifies its chain.
pub(super) fn show(context: &Context) -> Result<(), Failure> {
    let mut links = Vec::new();
    context.store.audit_log(|link| links.push(link))?;
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
                word(if entry["key"].is_string() {
                    "key"
                } else {
                    "client_id"
                }),
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
