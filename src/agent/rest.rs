//! Which REST requests are signed: one of the methods that the policy lists, said in one way.
//!
//! Whatever two programs could read differently is refused: the exchange must find in a request
//! the method that was decided on here, and no other.

use std::{collections::BTreeSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};

use super::{Denial, policy::Policy, policy::RestMethod, wire::Code};
use crate::key::Purpose;

const PREFIX: &str = "/api/v2/private/";
/// The longest path with its query.
const LONGEST_PATH: usize = 4096;
/// The exchange takes 32 kB.
const LONGEST_BODY: usize = 32_000;

/// Parts of the names of methods that are never signed, written without their underscores:
/// withdrawals and deposits, transfers (of positions too), addresses, sub-accounts, API and
/// security keys, logins, and what shows any of them.
const FORBIDDEN: [&str; 26] = [
    "withdraw",
    "deposit",
    "transfer",
    "payout",
    "moveposition",
    "address",
    "beneficiar",
    "clearance",
    "wallet",
    "custody",
    "key",
    "subaccount",
    "password",
    "secret",
    "credential",
    "security",
    "email",
    "tfa",
    "2fa",
    "totp",
    "login",
    "logout",
    "token",
    "auth",
    "accesslog",
    "affiliate",
];

/// Names that could say again, and otherwise, what the path says.
const OVERRIDES: [&str; 12] = [
    "method",
    "_method",
    "http_method",
    "jsonrpc",
    "params",
    "access_token",
    "refresh_token",
    "client_id",
    "client_secret",
    "grant_type",
    "authorization_data",
    "challenge",
];

/// Returns the name of the method in a path, if it is a path of the exact form.
pub(super) fn method_of(path: &str) -> Option<&str> {
    let name = path.strip_prefix(PREFIX)?;
    let fits = (1..=64).contains(&name.len()) && is_word(name);
    fits.then_some(name)
}

/// Tells whether a method is never signed, whatever a policy says.
pub(super) fn is_forbidden(name: &str) -> bool {
    let folded: String = name.chars().filter(|c| *c != '_').collect();
    // Which of the products may be traded is a setting of the account.
    folded.contains("disabledtradingproducts") || FORBIDDEN.iter().any(|part| folded.contains(part))
}

fn is_word(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    text.bytes().all(fits)
}

/// Decides whether a request is signed, and builds exactly what is.
pub(super) fn decide<'p>(
    policy: &'p Policy,
    verb: &str,
    uri: &str,
    body: &str,
) -> Result<(Purpose, &'p RestMethod), Denial> {
    let bad = |problem: &'static str| Denial::new(Code::Malformed, problem);
    let (path, query) = match uri.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (uri, None),
    };
    let name = method_of(path).ok_or_else(|| {
        bad("the path must be /api/v2/private/ and the name of a method in small letters")
    })?;
    let listed = policy.rest.iter().find(|method| method.is(verb, path));
    let Some(listed) = listed.filter(|_| !is_forbidden(name)) else {
        return Err(Denial::new(
            Code::Denied,
            "the policy does not list this method",
        ));
    };
    if uri.len() > LONGEST_PATH || uri.contains("..") {
        return Err(bad("the path is too long or has two dots in a row"));
    }
    match (verb, query) {
        // The exchange also reads a JSON-RPC body that comes with GET.
        ("GET", _) if !body.is_empty() => return Err(bad("a GET has no body")),
        ("GET", Some(query)) => check_query(query).map_err(bad)?,
        ("POST", Some(_)) => return Err(bad("a POST has no query")),
        ("POST", None) if !body.is_empty() => check_body(body, name).map_err(bad)?,
        _ => {}
    }
    let purpose = Purpose::Request {
        method: verb.into(),
        uri: uri.into(),
        body: body.into(),
    };
    Ok((purpose, listed))
}

fn check_query(query: &str) -> Result<(), &'static str> {
    let mut seen = BTreeSet::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').ok_or("the query is not NAME=VALUE")?;
        if name.is_empty() || !is_word(name) {
            return Err("a name in the query is not in small letters");
        }
        if OVERRIDES.contains(&name) {
            return Err("a name in the query says what the path says");
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.:,".contains(&b);
        if !value.bytes().all(plain) {
            return Err("a value in the query has other than letters, digits and _-.:,");
        }
        if !seen.insert(name) {
            return Err("a name is in the query twice");
        }
    }
    Ok(())
}

/// A body is one JSON-RPC request for the method in the path, with nothing in it twice.
fn check_body(body: &str, name: &str) -> Result<(), &'static str> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Request<'a> {
        jsonrpc: &'a str,
        #[serde(default, rename = "id")]
        _id: Option<u64>,
        method: &'a str,
        #[serde(default)]
        params: Option<Plain>,
    }
    // An escape could hide a name from one reader and show it to another.
    let plain = |b: u8| (b == b' ' || b.is_ascii_graphic()) && b != b'\\';
    if body.len() > LONGEST_BODY || !body.bytes().all(plain) {
        return Err("the body is too long, or has an escape or other than visible ASCII in it");
    }
    // A list in its place would be read by position.
    if !body.starts_with('{') {
        return Err("the body is not a JSON object");
    }
    let request: Request<'_> = serde_json::from_str(body).map_err(
        |_| "the body is not one JSON-RPC request of jsonrpc, id, method and params, each once",
    )?;
    if request.jsonrpc != "2.0" || request.method.strip_prefix("private/") != Some(name) {
        return Err("the method in the body is not the one in the path");
    }
    if request.params.is_some_and(|params| !params.object) {
        return Err("the params in the body are not an object");
    }
    Ok(())
}

/// Any JSON in which no object has a name twice, not even in other capitals.
struct Plain {
    object: bool,
}

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PlainVisitor)
    }
}

struct PlainVisitor;

macro_rules! scalars {
    ($($visit:ident: $type:ty),*) => { $(
        fn $visit<E: de::Error>(self, _: $type) -> Result<Plain, E> {
            Ok(Plain { object: false })
        }
    )* };
}

impl<'de> Visitor<'de> for PlainVisitor {
    type Value = Plain;

    scalars!(visit_bool: bool, visit_u64: u64, visit_i64: i64, visit_f64: f64, visit_str: &str);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Plain, E> {
        Ok(Plain { object: false })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Plain, A::Error> {
        while items.next_element::<Plain>()?.is_some() {}
        Ok(Plain { object: false })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Plain, A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(name) = map.next_key::<String>()? {
            map.next_value::<Plain>()?;
            if !is_word(&name) || OVERRIDES.contains(&name.as_str()) || !seen.insert(name) {
                return Err(de::Error::custom(
                    "a name that is there twice, or is no name",
                ));
            }
        }
        Ok(Plain { object: true })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn policy() -> Policy {
        Policy {
            rest: vec![
                "GET /api/v2/private/get_positions".parse().unwrap(),
                "POST /api/v2/private/buy".parse().unwrap(),
            ],
            ..Policy::default()
        }
    }

    #[test]
    fn what_is_listed_is_signed_as_it_stands() {
        let body =
            r#"{"jsonrpc":"2.0","id":1,"method":"private/buy","params":{"amount":10,"legs":[{}]}}"#;
        for (verb, uri, body) in [
            ("GET", "/api/v2/private/get_positions", ""),
            (
                "GET",
                "/api/v2/private/get_positions?currency=BTC&kind=",
                "",
            ),
            ("POST", "/api/v2/private/buy", ""),
            ("POST", "/api/v2/private/buy", body),
        ] {
            let policy = policy();
            let (purpose, listed) = decide(&policy, verb, uri, body).unwrap();
            let exact = Purpose::Request {
                method: verb.into(),
                uri: uri.into(),
                body: body.into(),
            };
            assert_eq!(purpose, exact);
            assert!(listed.as_str().starts_with(verb));
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let positions = "/api/v2/private/get_positions";
        let body =
            |inner: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"private/buy",{inner}}}"#);
        let requests = [
            ("POST", positions, String::new()),
            ("get", positions, String::new()),
            ("GET", "/api/v2/private/get_positions/", String::new()),
            ("GET", "/api/v2/private/get_positions?", String::new()),
            (
                "GET",
                "/api/v2/private/get_positions?a=1&a=2",
                String::new(),
            ),
            (
                "GET",
                "/api/v2/private/get_positions?method=private/withdraw",
                String::new(),
            ),
            ("GET", "/api/v2/private/get_positions?a=%0A", String::new()),
            ("GET", "/api/v2/private/get_positions?a=b#c", String::new()),
            ("GET", "/api/v2/private/get_positions?a=1..2", String::new()),
            ("GET", "/api/v2/private/get_positions?A=1", String::new()),
            ("GET", "/api/v2/private/get_positions;a=1", String::new()),
            ("GET", "/api/v2//private/get_positions", String::new()),
            ("GET", positions, body(r#""params":{}"#)),
            ("POST", "/api/v2/private/buy?amount=1", String::new()),
            ("POST", "/api/v2/private/buy", "[]".into()),
            (
                "POST",
                "/api/v2/private/buy",
                r#"["2.0",1,"private/buy"]"#.into(),
            ),
            (
                "POST",
                "/api/v2/private/buy",
                body(r#""method":"private/withdraw""#),
            ),
            (
                "POST",
                "/api/v2/private/buy",
                body(r#""Method":"private/withdraw""#),
            ),
            (
                "POST",
                "/api/v2/private/buy",
                r#"{"jsonrpc":"2.0","method":"private/withdraw"}"#.into(),
            ),
            ("POST", "/api/v2/private/buy", body(r#""params":[1]"#)),
            (
                "POST",
                "/api/v2/private/buy",
                body(r#""params":{"a":1,"a":2}"#),
            ),
            (
                "POST",
                "/api/v2/private/buy",
                body(r#""params":{"a":{"b":1,"b":2}}"#),
            ),
            (
                "POST",
                "/api/v2/private/buy",
                body(r#""params":{"method":"x"}"#),
            ),
            (
                "POST",
                "/api/v2/private/buy",
                body(r#""params":{"a":"\u0062"}"#),
            ),
            ("POST", "/api/v2/private/buy", body("\"params\":{}") + "{}"),
            ("POST", "/api/v2/private/buy", body("\"params\":\n{}")),
        ];
        for (verb, uri, body) in requests {
            assert!(
                decide(&policy(), verb, uri, &body).is_err(),
                "{verb} {uri} {body}"
            );
        }
    }
}
