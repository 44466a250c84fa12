//! `list`: the keys here, and last what could not be read of them.

use serde_json::{Value, json};

use super::about;
use crate::{
    cli::{answer, context::Context, failure::Failure},
    key::KeyName,
};

pub(in crate::cli) fn list(context: &Context) -> Result<(), Failure> {
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
    answer::columns(
        &COLUMNS
            .map(|column| column.replace('_', " "))
            .each_ref()
            .map(String::as_str),
        rows,
    )
}

/// Counts whatever is wrong with the files of a key as one kind of failure.
pub(in crate::cli) fn of_the_key(failure: &Failure) -> Failure {
    Failure::key(failure.message()).hint(failure.cure())
}

/// What could not be read of which key.
pub(in crate::cli) type Broken = Vec<(KeyName, Failure)>;

/// Fails when something could not be read, after the rest was shown.
///
/// One failure is reported as it is; of several the first, which says of whom the others are.
pub(in crate::cli) fn all_whole(broken: Broken) -> Result<(), Failure> {
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
