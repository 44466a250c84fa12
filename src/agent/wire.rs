//! The lines that go over the socket: requests in, answers out. `docs/agent-protocol.md`.

use std::{
    fmt,
    io::{self, Write},
};

use serde::{Deserialize, Serialize};

use super::Denial;
use crate::signer::Signed;

/// The version of the protocol.
pub const VERSION: u32 = 1;
/// The longest line, its line break not counted.
pub const LONGEST_LINE: usize = 64 * 1024;

/// What can be asked. Not among it: a key, bytes to be signed, a moment, a nonce.
#[derive(Eq, PartialEq)]
pub(super) enum Request<'a> {
    Auth {
        key: &'a str,
        scope: Option<&'a str>,
    },
    Token {
        key: &'a str,
        scope: Option<&'a str>,
    },
    Rest {
        key: &'a str,
        method: &'a str,
        path: &'a str,
        body: String,
    },
    List {
        key: Option<&'a str>,
    },
    Status,
    Lock(&'a str),
    Unlock(&'a str),
    Shutdown,
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // There may be a passphrase in it.
        f.write_str(self.action())
    }
}

/// Every field there is. Borrowed text has no escapes in it, which is how they are refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    op: &'a str,
    v: Option<u32>,
    key: Option<&'a str>,
    scope: Option<&'a str>,
    method: Option<&'a str>,
    path: Option<&'a str>,
    body: Option<String>,
    passphrase: Option<&'a str>,
}

impl<'a> Request<'a> {
    /// Reads one line.
    pub(super) fn read(line: &'a [u8]) -> Result<Self, Denial> {
        let bad = |problem: &'static str| Denial::new(Code::Malformed, problem);
        if line.iter().any(u8::is_ascii_control) {
            return Err(bad("there is a control character in the line"));
        }
        // A struct can be read from a list too, by position.
        if !line.starts_with(b"{") {
            return Err(bad("the line is not a JSON object"));
        }
        let line: Line<'a> = serde_json::from_slice(line).map_err(|_| {
            bad("the line is not an object with the documented fields, each once, without escapes")
        })?;
        if line.v.is_some_and(|v| v != VERSION) {
            return Err(Denial::new(
                Code::Version,
                "this agent speaks version 1 of the protocol",
            ));
        }
        let words = [line.key, line.scope, line.method, line.path];
        let body = line.body.as_deref();
        let wild = |text: &str| !text.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
        if words.into_iter().flatten().chain(body).any(wild) {
            return Err(bad("a field has other than visible ASCII in it"));
        }
        let extra = || bad("there is a field that this operation does not take");
        let missing = || bad("there is a field missing");
        let no_rest = line.method.is_none() && line.path.is_none() && line.body.is_none();
        let no_words = no_rest && line.key.is_none() && line.scope.is_none();
        if line.passphrase.is_some() && !matches!(line.op, "lock" | "unlock") {
            return Err(extra());
        }
        match line.op {
            "auth" | "token" if !no_rest => Err(extra()),
            "rest" if line.scope.is_some() => Err(extra()),
            "list" if !no_rest || line.scope.is_some() => Err(extra()),
            "status" | "lock" | "unlock" | "shutdown" if !no_words => Err(extra()),
            "auth" => Ok(Self::Auth {
                key: line.key.ok_or_else(missing)?,
                scope: line.scope,
            }),
            "token" => Ok(Self::Token {
                key: line.key.ok_or_else(missing)?,
                scope: line.scope,
            }),
            "rest" => Ok(Self::Rest {
                key: line.key.ok_or_else(missing)?,
                method: line.method.ok_or_else(missing)?,
                path: line.path.ok_or_else(missing)?,
                body: line.body.unwrap_or_default(),
            }),
            "list" => Ok(Self::List { key: line.key }),
            "status" => Ok(Self::Status),
            "lock" => line.passphrase.map(Self::Lock).ok_or_else(missing),
            "unlock" => line.passphrase.map(Self::Unlock).ok_or_else(missing),
            "shutdown" => Ok(Self::Shutdown),
            _ => Err(bad("there is no such operation")),
        }
    }

    /// Returns what it is called in the audit log.
    pub(super) const fn action(&self) -> &'static str {
        match self {
            Self::Auth { .. } => "agent auth",
            Self::Token { .. } => "agent token",
            Self::Rest { .. } => "agent rest",
            Self::List { .. } => "agent list",
            Self::Status => "agent status",
            Self::Lock(_) => "agent lock",
            Self::Unlock(_) => "agent unlock",
            Self::Shutdown => "agent shutdown",
        }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident = $word:literal, $outcome:literal;)*) => {
        /// Why there is no result.
        #[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum Code { $($(#[$doc])* $code,)* }

        impl Code {
            /// Returns the word on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$code => $word,)* }
            }

            /// Returns what the audit log says.
            pub(super) const fn outcome(self) -> &'static str {
                match self { $(Self::$code => $outcome,)* }
            }
        }
    };
}

codes! {
    /// It is no request.
    Malformed = "malformed", "refused: malformed";
    /// It is longer than a line may be.
    TooLong = "too_long", "refused: too_long";
    /// It is of another version of the protocol.
    Version = "version", "refused: version";
    /// There is no such key here.
    UnknownKey = "unknown_key", "refused: unknown_key";
    /// The policy says no.
    Denied = "denied", "refused: denied";
    /// It is too often.
    Rate = "rate", "refused: rate";
    /// The key's time is over; it is not in memory any more.
    Expired = "expired", "refused: expired";
    /// The key's uses are used up; it is not in memory any more.
    UsedUp = "used_up", "refused: used_up";
    /// The agent is locked.
    Locked = "locked", "refused: locked";
    /// The agent is not locked.
    NotLocked = "not_locked", "refused: not_locked";
    /// That is another passphrase.
    WrongPassphrase = "wrong_passphrase", "refused: wrong_passphrase";
    /// There are too many connections, or too many scopes of one key in use.
    Busy = "busy", "refused: busy";
    /// It took too long.
    Timeout = "timeout", "refused: timeout";
    /// The exchange gave no token.
    Login = "login", "failed: login";
    /// The audit log cannot be written, without which nothing is signed.
    Audit = "audit", "failed: audit";
    /// Signing failed.
    Internal = "internal", "failed: internal";
}

/// A line with a result.
#[derive(Serialize)]
pub(super) struct Done<T> {
    pub(super) ok: bool,
    pub(super) result: T,
}

/// A line with a refusal.
#[derive(Serialize)]
struct Refused<'a> {
    ok: bool,
    error: &'a Denial,
}

/// What makes a login.
pub(super) struct Login<'a> {
    pub(super) client_id: &'a str,
    pub(super) signed: &'a Signed,
    pub(super) scope: Option<&'a str>,
}

/// Written as it prints, without a string in between.
pub(super) struct Text<T>(pub(super) T);

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Writes an answer that has a result.
pub(super) fn write_done(out: &mut Vec<u8>, result: impl Serialize) -> Result<(), Denial> {
    write(out, &Done { ok: true, result })
        .map_err(|_| Denial::new(Code::Internal, "the answer is too long"))
}

/// Writes an answer that may be long and has nothing secret in it.
pub(super) fn write_list(out: &mut Vec<u8>, result: impl Serialize) -> Result<(), Denial> {
    out.clear();
    serde_json::to_writer(&mut *out, &Done { ok: true, result })
        .map_err(|_| Denial::new(Code::Internal, "the answer cannot be written"))?;
    out.push(b'\n');
    Ok(())
}

/// Writes an answer that is a refusal.
pub(super) fn write_refused(out: &mut Vec<u8>, error: &Denial) {
    // It is far shorter than the buffer.
    let _ = write(out, &Refused { ok: false, error });
}

/// Writes the answer to `auth`: the complete request for `public/auth`, as the exchange takes it.
///
/// Word for word, as it is what bots wait for: the serializer's way around the same text takes a
/// twentieth of the time of an Ed25519 signature. A test holds one against the other.
pub(super) fn write_login(out: &mut Vec<u8>, login: &Login<'_>) -> Result<(), Denial> {
    let Login {
        client_id,
        signed,
        scope,
    } = login;
    write_with(out, |mut out| {
        out.write_all(
            br#"{"ok":true,"result":{"jsonrpc":"2.0","id":1,"method":"public/auth","params":{"grant_type":"client_signature","client_id":"#,
        )?;
        serde_json::to_writer(&mut out, client_id)?;
        out.write_all(br#","timestamp":"#)?;
        serde_json::to_writer(&mut out, &signed.stamp.timestamp)?;
        out.write_all(br#","nonce":"#)?;
        serde_json::to_writer(&mut out, signed.stamp.nonce.as_str())?;
        write!(out, r#","signature":"{}","data":"""#, signed.signature)?;
        if let Some(scope) = scope {
            out.write_all(br#","scope":"#)?;
            serde_json::to_writer(&mut out, scope)?;
        }
        out.write_all(b"}}}")
    })
    .map_err(|_| Denial::new(Code::Internal, "the answer is too long"))
}

fn write(out: &mut Vec<u8>, value: &impl Serialize) -> io::Result<()> {
    write_with(out, |out| Ok(serde_json::to_writer(out, value)?))
}

/// Writes a line, whole or not at all.
fn write_with(
    out: &mut Vec<u8>,
    text: impl FnOnce(Bounded<'_>) -> io::Result<()>,
) -> io::Result<()> {
    out.clear();
    let written = text(Bounded(out));
    if written.is_err() {
        out.clear();
    }
    written?;
    out.push(b'\n');
    Ok(())
}

/// A buffer that does not grow: that would leave its old self behind, and there may be a token in it.
struct Bounded<'a>(&'a mut Vec<u8>);

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() >= self.0.capacity().saturating_sub(self.0.len()) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write(bytes).map(drop)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::key::{Signature, Stamp, Timestamp};

    proptest! {
        /// The text is that of a serializer, whatever is in it.
        #[test]
        fn a_login_is_written_as_a_serializer_writes_it(
            client_id: String,
            timestamp: u64,
            nonce in "[!#-&(-+\\--~]{1,64}",
            bytes in prop::collection::vec(any::<u8>(), 64),
            scope: Option<String>,
        ) {
            let signature = BASE64_URL_SAFE_NO_PAD.encode(bytes);
            let signed = Signed {
                stamp: Stamp { timestamp: Timestamp(timestamp), nonce: nonce.parse().unwrap() },
                signature: signature.parse::<Signature>().unwrap(),
            };
            let mut out = Vec::with_capacity(16 * 1024);
            let login = Login { client_id: &client_id, signed: &signed, scope: scope.as_deref() };
            prop_assert!(write_login(&mut out, &login).is_ok());
            let mut params = json!({
                "grant_type": "client_signature", "client_id": client_id,
                "timestamp": timestamp, "nonce": nonce, "signature": signature, "data": "",
            });
            if let Some(scope) = scope {
                params.as_object_mut().unwrap().insert("scope".into(), scope.into());
            }
            let request = json!({"jsonrpc": "2.0", "id": 1, "method": "public/auth", "params": params});
            let expected = json!({"ok": true, "result": request});
            prop_assert_eq!(String::from_utf8(out).unwrap(), format!("{expected}\n"));
        }
    }

    #[test]
    fn an_answer_that_is_too_long_is_not_begun() {
        let mut out = Vec::with_capacity(64);
        assert!(write_done(&mut out, "x".repeat(64)).is_err());
        assert!(out.is_empty());
        assert!(out.capacity() < 128);
    }

    #[test]
    fn requests_are_read() {
        let auth = Request::Auth {
            key: "bot",
            scope: Some("trade:read"),
        };
        let line = br#"{"op":"auth","v":1,"key":"bot","scope":"trade:read"}"#;
        assert_eq!(Request::read(line).unwrap(), auth);
        let line = br#"{"op":"rest","key":"bot","method":"POST","path":"/x","body":"{\"a\":1}"}"#;
        let rest = Request::Rest {
            key: "bot",
            method: "POST",
            path: "/x",
            body: r#"{"a":1}"#.into(),
        };
        assert_eq!(Request::read(line).unwrap(), rest);
    }

    #[test]
    fn every_operation_takes_its_own_fields_and_no_others() {
        let every = ["key", "scope", "method", "path", "body", "passphrase"];
        for (op, needed, optional) in [
            ("auth", ["key"].as_slice(), ["scope"].as_slice()),
            ("token", &["key"], &["scope"]),
            ("rest", &["key", "method", "path"], &["body"]),
            ("list", &[], &["key"]),
            ("status", &[], &[]),
            ("lock", &["passphrase"], &[]),
            ("unlock", &["passphrase"], &[]),
            ("shutdown", &[], &[]),
        ] {
            let fits = |fields: &[&str]| {
                let fields: String = fields.iter().map(|f| format!(r#","{f}":"x""#)).collect();
                let line = format!(r#"{{"op":"{op}"{fields}}}"#);
                let read = Request::read(line.as_bytes()).map(|request| request.action());
                read.is_ok_and(|action| action == format!("agent {op}"))
            };
            assert!(fits(needed), "{op}");
            for field in every {
                let others = needed.iter().copied().filter(|f| *f != field);
                let mut fields: Vec<&str> = others.collect();
                let without = fits(&fields);
                assert_eq!(without, !needed.contains(&field), "{op} without {field}");
                fields.push(field);
                let known = needed.contains(&field) || optional.contains(&field);
                assert_eq!(fits(&fields), known, "{op} with {field}");
            }
        }
    }

    #[test]
    fn what_is_not_documented_is_refused() {
        for line in [
            "",
            "{}",
            "null",
            "[\"auth\",1,\"bot\"]",
            r#"{"op":"auth"}"#,
            r#"{"op":"auth","key":"bot"} {}"#,
            r#"{"op":"auth","op":"rest","key":"bot"}"#,
            r#"{"op":"auth","key":"bot","key":"other"}"#,
            r#"{"op":"auth","key":"bot","\u006bey":"other"}"#,
            r#"{"op":"auth","key":"b\u006ft"}"#,
            r#"{"op":"auth","key":"bot","data":""}"#,
            r#"{"op":"auth","key":"bot","nonce":"n"}"#,
            r#"{"op":"auth","key":"bot","timestamp":1}"#,
            r#"{"op":"auth","key":"bot","path":"/x"}"#,
            r#"{"op":"auth","key":"bot","passphrase":"x"}"#,
            r#"{"op":"auth","key":"bot","v":2}"#,
            r#"{"op":"rest","key":"bot","method":"GET"}"#,
            r#"{"op":"rest","key":"bot","method":"GET","path":"/x","body":"a\nb"}"#,
            r#"{"op":"rest","key":"bot","method":"GET","path":"/x","body":"\u2028"}"#,
            r#"{"op":"list","scope":"trade:read"}"#,
            r#"{"op":"AUTH","key":"bot"}"#,
            "{\"op\":\"auth\",\t\"key\":\"bot\"}",
            "{\"op\":\"auth\",\"key\":\"bot\"}\r",
            "{\"op\":\"auth\",\"key\":\"b\u{2028}t\"}",
            "{\"op\":\"auth\",\"key\":\"b\u{0}t\"}",
        ] {
            assert!(Request::read(line.as_bytes()).is_err(), "{line:?}");
        }
    }
}
