//! JSON-RPC as the exchange speaks it: requests in, envelopes out.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

/// The largest body taken: 32 kB (Deribit, "RPC error codes", -32600).
pub(super) const BODY_LIMIT: usize = 32 * 1024;

/// Parameters whose values are numbers or booleans, for query strings.
const NOT_TEXT: [&str; 6] = [
    "id",
    "timestamp",
    "offset",
    "count",
    "enabled",
    "subject_id",
];

/// One request with everything that its proof of identity covers.
pub(super) struct Call {
    pub(super) method: String,
    pub(super) params: Map<String, Value>,
    pub(super) id: Option<Value>,
    pub(super) authorization: Option<String>,
    pub(super) verb: String,
    pub(super) uri: String,
    pub(super) body: Vec<u8>,
    pub(super) peer: IpAddr,
}

/// The outside of a request, before its body is read.
pub(super) struct Head<'a> {
    pub(super) verb: &'a str,
    /// Path and query exactly as sent.
    pub(super) uri: &'a str,
    pub(super) content_type: Option<&'a str>,
    pub(super) authorization: Option<&'a str>,
    pub(super) peer: IpAddr,
}

/// An error of the exchange.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: i32,
    pub(super) message: String,
    pub(super) data: Option<Value>,
}

impl Refusal {
    pub(super) fn new(code: i32, message: &str) -> Self {
        Self {
            code,
            message: message.to_owned(),
            data: None,
        }
    }

    /// A refusal with `data.reason`.
    pub(super) fn because(code: i32, message: &str, reason: &str) -> Self {
        Self {
            data: Some(json!({ "reason": reason })),
            ..Self::new(code, message)
        }
    }

    pub(super) fn param(param: &str, reason: &str) -> Self {
        Self {
            data: Some(json!({ "reason": reason, "param": param })),
            ..Self::new(-32602, "Invalid params")
        }
    }

    /// A refusal that says in how many seconds to come back.
    pub(super) fn wait(code: i32, message: &str, seconds: u64) -> Self {
        Self {
            data: Some(json!({ "wait": seconds })),
            ..Self::new(code, message)
        }
    }

    pub(super) fn bad_request(reason: &str) -> Self {
        Self::because(11050, "bad_request", reason)
    }

    pub(super) fn too_large() -> Self {
        Self::new(-32600, "request entity too large")
    }

    /// Something that is the sandbox's own fault.
    pub(super) fn internal(_: std::io::Error) -> Self {
        Self::new(11094, "internal_server_error")
    }
}

impl Call {
    /// Reads a request; None if the path is no part of the interface.
    ///
    /// A refusal comes with the id of the request if that could be read.
    pub(super) fn read(
        head: &Head<'_>,
        body: &[u8],
    ) -> Option<Result<Self, (Option<Value>, Refusal)>> {
        let (path, query) = head.uri.split_once('?').unwrap_or((head.uri, ""));
        let named = path.strip_prefix("/api/v2")?;
        let named = match named.strip_prefix('/') {
            Some(method) => method,
            None if named.is_empty() => "",
            None => return None,
        };
        let mut call = Self {
            method: named.to_owned(),
            params: Map::new(),
            id: None,
            authorization: head.authorization.map(str::to_owned),
            verb: head.verb.to_owned(),
            uri: head.uri.to_owned(),
            body: body.to_vec(),
            peer: head.peer,
        };
        let outcome = match head.verb {
            "GET" => call.take_query(query),
            "POST" => call.take_body(head.content_type),
            _ => return None,
        };
        Some(match outcome {
            Ok(()) => Ok(call),
            Err(refusal) => Err((call.id, refusal)),
        })
    }

    fn take_query(&mut self, query: &str) -> Result<(), Refusal> {
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
            let bad = || Refusal::bad_request("query is not percent-encoded UTF-8");
            let (name, text) = (
                unescape(name).ok_or_else(bad)?,
                unescape(text).ok_or_else(bad)?,
            );
            let simple = NOT_TEXT.contains(&name.as_str());
            let value = simple.then(|| serde_json::from_str(&text).ok()).flatten();
            let value = value.unwrap_or(Value::String(text));
            if self.params.insert(name.clone(), value).is_some() {
                // No document says how arrays stand in a query.
                return Err(Refusal::param(&name, "given more than once"));
            }
        }
        Ok(())
    }

    fn take_body(&mut self, content_type: Option<&str>) -> Result<(), Refusal> {
        let kind = content_type.map(|kind| kind.split(';').next().unwrap_or("").trim());
        if kind.is_some_and(|kind| !kind.eq_ignore_ascii_case("application/json")) {
            return Err(Refusal::new(13018, "invalid_content_type"));
        }
        let parsed =
            serde_json::from_slice(&self.body).map_err(|_| Refusal::new(-32700, "Parse error"))?;
        let Value::Object(mut envelope) = parsed else {
            return Err(Refusal::bad_request("batches are not supported"));
        };
        self.id = envelope
            .remove("id")
            .filter(|id| id.is_i64() || id.is_u64() || id.is_string());
        if self.id.is_none() {
            return Err(Refusal::bad_request("id must be an integer or a string"));
        }
        if envelope.remove("jsonrpc") != Some(json!("2.0")) {
            return Err(Refusal::bad_request("jsonrpc must be \"2.0\""));
        }
        match envelope.remove("method") {
            Some(Value::String(method)) if self.method.is_empty() || self.method == method => {
                self.method = method
            }
            _ => {
                return Err(Refusal::bad_request(
                    "method is missing or differs from the path",
                ));
            }
        }
        match envelope.remove("params") {
            None => {}
            Some(Value::Object(params)) => self.params = params,
            Some(_) => {
                return Err(Refusal::param(
                    "params",
                    "positional parameters are not supported",
                ));
            }
        }
        match self.params.iter().find(|(_, value)| value.is_null()) {
            Some((name, _)) => Err(Refusal::param(name, "must be left out instead of null")),
            None => Ok(()),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Refusal> {
        match self.params.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Refusal::param(name, "must be a string")),
        }
    }

    pub(super) fn required_text(&self, name: &str) -> Result<&str, Refusal> {
        self.text(name)?.ok_or_else(|| self.missing(name))
    }

    pub(super) fn integer(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.params.get(name) else {
            return Ok(None);
        };
        value
            .as_u64()
            .map(Some)
            .ok_or_else(|| Refusal::param(name, "must be an integer"))
    }

    pub(super) fn required_integer(&self, name: &str) -> Result<u64, Refusal> {
        self.integer(name)?.ok_or_else(|| self.missing(name))
    }

    pub(super) fn boolean(&self, name: &str) -> Result<Option<bool>, Refusal> {
        let Some(value) = self.params.get(name) else {
            return Ok(None);
        };
        value
            .as_bool()
            .map(Some)
            .ok_or_else(|| Refusal::param(name, "must be a boolean"))
    }

    /// An array of strings; nothing sent is an empty one.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<&str>, Refusal> {
        let bad = || Refusal::param(name, "must be an array of strings");
        let Some(value) = self.params.get(name) else {
            return Ok(Vec::new());
        };
        let items = value.as_array().ok_or_else(bad)?;
        items
            .iter()
            .map(|item| item.as_str().ok_or_else(bad))
            .collect()
    }

    fn missing(&self, name: &str) -> Refusal {
        if self.params.is_empty() {
            return Refusal::new(-32000, "Missing params");
        }
        Refusal::param(name, "required")
    }
}

/// Wraps an outcome; the status says what HTTP makes of it.
pub(super) fn envelope(
    id: Option<&Value>,
    outcome: Result<Value, Refusal>,
    us_in: u64,
    us_out: u64,
) -> (u16, Map<String, Value>) {
    let mut envelope = Map::new();
    envelope.insert("jsonrpc".to_owned(), json!("2.0"));
    if let Some(id) = id {
        envelope.insert("id".to_owned(), id.clone());
    }
    let status = match outcome {
        Ok(result) => {
            envelope.insert("result".to_owned(), result);
            200
        }
        Err(refusal) => {
            let mut error = json!({ "code": refusal.code, "message": refusal.message });
            if let (Some(data), Some(error)) = (refusal.data, error.as_object_mut()) {
                error.insert("data".to_owned(), data);
            }
            envelope.insert("error".to_owned(), error);
            if refusal.code == 13009 { 401 } else { 400 }
        }
    };
    envelope.insert("usIn".to_owned(), json!(us_in));
    envelope.insert("usOut".to_owned(), json!(us_out));
    envelope.insert("usDiff".to_owned(), json!(us_out.saturating_sub(us_in)));
    envelope.insert("testnet".to_owned(), json!(true));
    (status, envelope)
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let pair = [rest.next()?, rest.next()?];
                let digits = std::str::from_utf8(&pair).ok()?;
                digits
                    .bytes()
                    .all(|digit| digit.is_ascii_hexdigit())
                    .then_some(())?;
                u8::from_str_radix(digits, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use std::net::Ipv4Addr;

    use super::*;

    fn read(verb: &str, uri: &str, body: &str) -> Result<Call, i32> {
        let peer = IpAddr::from(Ipv4Addr::LOCALHOST);
        let head = Head {
            verb,
            uri,
            content_type: Some("application/json; charset=utf-8"),
            authorization: None,
            peer,
        };
        Call::read(&head, body.as_bytes())
            .unwrap()
            .map_err(|(_, refusal)| refusal.code)
    }

    #[test]
    fn reads_the_three_forms() {
        let body = r#"{"jsonrpc":"2.0","id":7,"method":"public/test","params":{"a":"b"}}"#;
        for call in [
            read("POST", "/api/v2", body),
            read("POST", "/api/v2/public/test", body),
        ] {
            let call = call.unwrap();
            assert_eq!(
                (call.method.as_str(), call.id),
                ("public/test", Some(json!(7)))
            );
        }
        let call = read(
            "GET",
            "/api/v2/private/x?id=7&name=a%20b+c&scope=trade%3Aread",
            "",
        )
        .unwrap();
        assert_eq!(
            Value::Object(call.params),
            json!({ "id": 7, "name": "a b c", "scope": "trade:read" })
        );
    }

    #[test]
    fn refuses_what_the_exchange_does_not_take() {
        for (body, code) in [
            ("{", -32700),
            ("[]", 11050),
            (r#"{"jsonrpc":"2.0","method":"public/test"}"#, 11050),
            (
                r#"{"jsonrpc":"2.0","id":1.5,"method":"public/test"}"#,
                11050,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"public/test","params":[1]}"#,
                -32602,
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"public/test","params":{"a":null}}"#,
                -32602,
            ),
        ] {
            assert_eq!(read("POST", "/api/v2/", body).err(), Some(code), "{body}");
        }
        assert_eq!(
            read(
                "POST",
                "/api/v2/public/auth",
                r#"{"jsonrpc":"2.0","id":1,"method":"public/test"}"#
            )
            .err(),
            Some(11050)
        );
    }

    #[test]
    fn wraps_errors_with_their_status() {
        let (status, envelope) = envelope(
            Some(&json!("x")),
            Err(Refusal::because(13009, "unauthorized", "invalid_token")),
            5,
            9,
        );
        assert_eq!(status, 401);
        assert_eq!(envelope["error"]["data"]["reason"], "invalid_token");
        assert_eq!(
            (&envelope["id"], &envelope["usDiff"], &envelope["testnet"]),
            (&json!("x"), &json!(4), &json!(true))
        );
    }
}
