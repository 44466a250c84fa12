//! An answer that ends too early: at every byte for two operations, at some bytes for the others;
//! `EVERY_BYTE=1` has it end at every byte for all of them.

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use serde_json::{Value, json};

use super::{
    meddler::Deed,
    six_operations::{
        Auth, Edit, List, Operation, Provision, Remove, RotateClosing, RotateMaking, Stage,
    },
};

/// How the length of an answer is known.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Length {
    /// It is said.
    Said,
    /// It ends with the connection.
    OfTheConnection,
}

/// The fields that an answer cannot do without.
const NEEDED: [&str; 8] = [
    "id",
    "client_id",
    "name",
    "max_scope",
    "public_key",
    "access_token",
    "expires_in",
    "scope",
];

/// The shortest answer that says the same.
fn shortest(answer: &Value) -> String {
    let mut result = answer["result"].clone();
    let objects: Vec<&mut Value> = match &mut result {
        Value::Array(keys) => keys.iter_mut().collect(),
        one => vec![one],
    };
    for object in objects.into_iter().filter_map(Value::as_object_mut) {
        object.retain(|field, _| NEEDED.contains(&field.as_str()));
    }
    json!({"id": answer["id"], "result": result}).to_string()
}

/// Carries the first call out and sends so many bytes of its answer; says how many there are, and
/// where the body begins.
fn cut(at: usize, length: Length, whole: &Arc<[AtomicUsize; 2]>) -> Arc<Deed> {
    let whole = Arc::clone(whole);
    Arc::new(move |call| {
        let body = shortest(&call.carry_out()?);
        let head = match length {
            Length::Said => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()),
            Length::OfTheConnection => "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_owned(),
        };
        whole[0].store(head.len(), Ordering::Relaxed);
        let answer = format!("{head}{body}");
        whole[1].store(answer.len(), Ordering::Relaxed);
        let end = if call.nth == 0 { at } else { answer.len() };
        call.say(&answer.as_bytes()[..end.min(answer.len())])?;
        Ok(ControlFlow::Break(()))
    })
}

/// How an operation ends whose first answer is cut; reads and logins are tried again where the
/// connection broke, and not where an answer came that is none.
fn expected(operation: Operation, length: Length, is_in_the_body: bool) -> i32 {
    let broke = length == Length::Said || !is_in_the_body;
    match operation {
        // The account's list shows the key.
        Provision | RotateMaking => 0,
        Auth | List if broke => 0,
        Auth | List => 5,
        _ => 9,
    }
}

/// Cuts the first answer to the call that counts at every so many bytes, and at the last one.
fn cuts(operation: Operation, length: Length, step: usize) {
    let whole: Arc<[AtomicUsize; 2]> = Arc::default();
    let strike = |stage: &Stage, at: usize| {
        let what = format!("{operation:?} cut at {at}, {length:?}");
        stage.meddler.calm();
        let deed = cut(at, length, &whole);
        stage.meddler.strike(operation.method(), deed);
        let end = stage.run();
        let [head, all] = [0, 1].map(|i: usize| whole[i].load(Ordering::Relaxed));
        let wanted = if at < all {
            expected(operation, length, at >= head)
        } else {
            0
        };
        stage.ends(wanted, &end, &what);
        if !matches!(operation, Auth | List) {
            stage.settles(&end, &what);
        }
        all
    };
    let all = strike(&Stage::set(operation), usize::MAX);
    assert!((40..1000).contains(&all), "{operation:?}: {all}");
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                // What only looks leaves the stage as it was.
                let mut stage = None;
                loop {
                    let at = next.fetch_add(step, Ordering::Relaxed);
                    if at >= all {
                        break;
                    }
                    let used = stage.take().filter(|_| matches!(operation, Auth | List));
                    let fresh = used.unwrap_or_else(|| Stage::set(operation));
                    strike(&fresh, at);
                    stage = Some(fresh);
                }
            });
        }
    });
    strike(&Stage::set(operation), all - 1);
}

#[test]
fn a_removal_survives_a_cut_at_every_byte_of_its_answer() {
    cuts(Remove, Length::Said, 1);
}

#[test]
fn a_login_survives_a_cut_at_every_byte_of_its_answer() {
    cuts(Auth, Length::Said, 1);
}

#[test]
fn the_others_survive_a_cut_at_every_few_bytes() {
    let every_byte = std::env::var_os("EVERY_BYTE").is_some();
    thread::scope(|scope| {
        for operation in [
            Provision,
            Edit,
            RotateMaking,
            RotateClosing,
            Remove,
            List,
            Auth,
        ] {
            for length in [Length::Said, Length::OfTheConnection] {
                if every_byte {
                    // One after another, as each takes all the processors that there are.
                    cuts(operation, length, 1);
                    continue;
                }
                let step = if operation == Remove { 5 } else { 67 };
                scope.spawn(move || cuts(operation, length, step));
            }
        }
    });
}
