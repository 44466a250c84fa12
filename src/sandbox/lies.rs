//! Answers that say something else than what was done.

use serde_json::{Map, Value, json};

use super::fault::Kind;

/// Two valid keys, so that one of them is always another one.
const FOREIGN_KEYS: [&str; 2] = [
    "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----",
    "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAM7FWhKquNqLmTOV4hfYT5r3AjrYiORTT6Tn5HIfFNV8=\n-----END PUBLIC KEY-----",
];

/// What a shared secret looks like.
const SECRET: &str = "B6RsF9rrLY5ezEGBQkyLlV-UC7whyPJ34BMA-kKYpes";

/// A scope that nothing exceeds.
const EVERYTHING: &str = "account:read_write block_rfq:read_write block_trade:read_write custody:read_write trade:read_write wallet:read_write";

/// Distorts an envelope if the fault is one of these.
pub(super) fn distort(kind: Kind, envelope: &mut Map<String, Value>) {
    match kind {
        Kind::WrongTestnet => {
            envelope.insert("testnet".to_owned(), json!(false));
        }
        Kind::WrongId => {
            let foreign = match envelope.get("id").and_then(Value::as_i64) {
                Some(id) => json!(id.wrapping_add(1)),
                None => json!("another-request"),
            };
            envelope.insert("id".to_owned(), foreign);
        }
        Kind::Both => {
            envelope
                .entry("error")
                .or_insert_with(|| json!({ "code": 10001, "message": "error" }));
            envelope.entry("result").or_insert_with(|| json!("ok"));
        }
        _ => {
            for object in objects(envelope.get_mut("result")) {
                misreport(kind, object);
            }
        }
    }
}

fn misreport(kind: Kind, object: &mut Map<String, Value>) {
    let is_key = object.contains_key("client_id");
    let is_challenge = object.contains_key("rp_id");
    let mut set = |name: &str, value: Value| object.insert(name.to_owned(), value);
    match kind {
        Kind::WrongFingerprint if is_key => {
            let mut pairs = ["0f"; 16];
            pairs.rotate_left(1);
            set("client_secret", json!(pairs.join(":")));
        }
        Kind::WrongKey if is_key => {
            let real = object.get("public_key").cloned().unwrap_or(Value::Null);
            let other = FOREIGN_KEYS.into_iter().find(|foreign| real != *foreign);
            object.insert("public_key".to_owned(), json!(other));
        }
        Kind::WrongName if is_key => {
            set("name", json!("somebody_else"));
        }
        Kind::HmacSecret if is_key => {
            set("client_secret", json!(SECRET));
            object.remove("public_key");
        }
        Kind::WrongScope if is_key => {
            set("max_scope", json!(EVERYTHING));
        }
        Kind::WrongScope => {
            // A login: the other words of the scope stay as they are.
            let Some(scope) = object.get("scope").and_then(Value::as_str) else {
                return;
            };
            let areas = |word: &&str| {
                EVERYTHING
                    .split(' ')
                    .any(|area| area.split(':').next() == word.split(':').next())
            };
            let others = scope.split(' ').filter(|word| !areas(word));
            let mut words: Vec<&str> = others.chain(EVERYTHING.split(' ')).collect();
            words.sort_unstable();
            let scope = words.join(" ");
            object.insert("scope".to_owned(), json!(scope));
        }
        Kind::WrongRpId if is_challenge => {
            set("rp_id", json!("test.deribit.example"));
        }
        _ => {}
    }
}

/// The objects of a result: itself, or the elements of an array.
fn objects(result: Option<&mut Value>) -> Vec<&mut Map<String, Value>> {
    match result {
        Some(Value::Object(object)) => vec![object],
        Some(Value::Array(items)) => items.iter_mut().filter_map(Value::as_object_mut).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    fn distorted(kind: Kind, envelope: Value) -> Value {
        let mut envelope = envelope.as_object().unwrap().clone();
        distort(kind, &mut envelope);
        Value::Object(envelope)
    }

    #[test]
    fn the_other_key_is_another() {
        for key in FOREIGN_KEYS {
            let told = distorted(
                Kind::WrongKey,
                json!({ "result": [{ "client_id": "x", "public_key": key }] }),
            );
            assert_ne!(told["result"][0]["public_key"], key);
        }
    }

    #[test]
    fn broadens_a_login() {
        let told = distorted(
            Kind::WrongScope,
            json!({ "result": { "scope": "mainaccount session:x trade:read" } }),
        );
        let scope = told["result"]["scope"].as_str().unwrap();
        assert!(
            scope.contains("session:x")
                && scope.contains("trade:read_write")
                && !scope.contains("trade:read ")
        );
    }

    #[test]
    fn answers_somebody_else() {
        assert_eq!(distorted(Kind::WrongId, json!({ "id": 4 }))["id"], 5);
        assert_eq!(
            distorted(Kind::WrongId, json!({ "id": "4" }))["id"],
            "another-request"
        );
    }
}
