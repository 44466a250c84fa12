//! Answers that are well-formed and not true: another key, another fingerprint, other rights,
//! another label.

use std::{sync::Arc, thread};

use serde_json::{Value, json};

use super::{
    meddler::Deed,
    six_operations::{
        Auth, Edit, List, Operation, Provision, Remove, RotateClosing, RotateMaking, Stage,
    },
};

const OTHER_KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
    MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----";
const OTHER_FINGERPRINT: &str = "0f:0f:0f:0f:0f:0f:0f:0f:0f:0f:0f:0f:0f:0f:0f:0e";
const BROADER: &str = "account:read_write trade:read_write wallet:read_write";
const OTHER_LABEL: &str = "somebody_else";

const CREATE: &str = "private/create_api_key";
const DISABLE: &str = "private/disable_api_key";
const LIST: &str = "private/list_api_keys";

/// Tells something else of every key but the administrator's, from one of the calls on.
fn instead(field: &'static str, value: &'static str, from: usize) -> Arc<Deed> {
    Arc::new(move |call| {
        let mut answer = call.carry_out()?;
        let told: Vec<&mut Value> = match &mut answer["result"] {
            Value::Array(keys) => keys.iter_mut().collect(),
            one => vec![one],
        };
        for one in told {
            let is_a_login = one["access_token"].is_string();
            if call.nth >= from && (is_a_login || one["public_key"].is_string()) {
                one[field] = json!(value);
            }
        }
        call.answer(&answer.to_string())
    })
}

/// Runs operations into an untruth: which method tells it, from which of its calls on, and how
/// that has to end.
fn lie(field: &'static str, value: &'static str, table: &[(Operation, &'static str, usize, i32)]) {
    thread::scope(|scope| {
        for (operation, method, from, wanted) in table.iter().copied() {
            scope.spawn(move || {
                let what = format!("{field} told by {method}, {operation:?}");
                let stage = Stage::set(operation);
                stage.meddler.strike(method, instead(field, value, from));
                let end = stage.run();
                assert!(stage.meddler.struck() > from, "{what}: {end:#?}");
                stage.ends(wanted, &end, &what);
                if operation == List {
                    let listed = end.run.json();
                    let nothing = [json!([]), json!([]), json!(null)];
                    let remarks = |row: &Value| {
                        ["drift", "problems", "orphan"].map(|field| row[field].clone())
                    };
                    let rows = listed["keys"].as_array().unwrap();
                    let said = rows.iter().any(|row| remarks(row) != nothing);
                    assert_eq!(said, field != "client_secret", "{what}: {listed:#}");
                }
                stage.settles(&end, &what);
            });
        }
    });
}

#[test]
fn another_public_key_is_not_taken_for_ours() {
    let table = [
        (Provision, CREATE, 0, 11),
        (RotateMaking, CREATE, 0, 11),
        // Nothing but the state is made of that answer.
        (RotateClosing, DISABLE, 0, 0),
        // A key that is not ours is given no rights, and may well be taken away.
        (Edit, LIST, 0, 11),
        (Remove, LIST, 0, 0),
        (List, LIST, 0, 0),
    ];
    lie("public_key", OTHER_KEY, &table);
}

#[test]
fn another_fingerprint_is_not_taken_for_ours() {
    let table = [
        (Provision, CREATE, 0, 11),
        (RotateMaking, CREATE, 0, 11),
        (RotateClosing, DISABLE, 0, 0),
        // The public key itself says more than its fingerprint.
        (Edit, LIST, 0, 0),
        (Remove, LIST, 0, 0),
        (List, LIST, 0, 0),
    ];
    lie("client_secret", OTHER_FINGERPRINT, &table);
}

#[test]
fn other_rights_are_noticed() {
    let table = [
        (Provision, CREATE, 0, 11),
        (RotateMaking, CREATE, 0, 11),
        (RotateClosing, DISABLE, 0, 0),
        // The first two looks come before the change, and what they show is kept.
        (Edit, LIST, 2, 11),
        (Remove, LIST, 0, 0),
        (List, LIST, 0, 0),
    ];
    lie("max_scope", BROADER, &table);
    lie("scope", BROADER, &[(Auth, "public/auth", 0, 11)]);
}

#[test]
fn another_label_is_noticed() {
    let table = [
        // That is said and not failed.
        (Provision, CREATE, 0, 0),
        (RotateMaking, CREATE, 0, 0),
        (RotateClosing, DISABLE, 0, 0),
        (Edit, LIST, 2, 11),
        (Remove, LIST, 0, 0),
        (List, LIST, 0, 0),
    ];
    lie("name", OTHER_LABEL, &table);
}
