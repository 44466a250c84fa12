//! Faults: the ways in which the sandbox can be told to fail.

use std::fmt;
use std::str::FromStr;

use super::Error;
use super::rules::METHODS;

/// Every kind of fault: its name, its other names and what it does.
///
/// "Applied" says whether the request took effect before it went wrong.
pub const KINDS: &[FaultKind] = &[
    kind(
        Kind::DropBefore,
        "drop-before",
        &["dropped-before"],
        "closes the connection; not applied",
    ),
    kind(
        Kind::DropAfter,
        "drop-after",
        &["dropped-after"],
        "applied, then closes the connection",
    ),
    kind(
        Kind::Truncate,
        "truncate",
        &["truncated"],
        "applied; half an answer, then closes the connection",
    ),
    kind(
        Kind::Http500,
        "500",
        &["http-500"],
        "status 500 with plain text; not applied",
    ),
    kind(
        Kind::After500,
        "after-500",
        &["500-after"],
        "applied, then status 500 with plain text",
    ),
    kind(
        Kind::Http502,
        "502",
        &["html-502", "http-502"],
        "status 502 with a page of HTML; not applied",
    ),
    kind(
        Kind::Garbage,
        "garbage",
        &[],
        "applied; status 200 with bytes that are no JSON",
    ),
    kind(
        Kind::Slow,
        "slow",
        &[],
        "applied; the answer comes after 20 seconds",
    ),
    kind(
        Kind::Drip,
        "drip",
        &[],
        "applied; one byte every 200 ms, without end",
    ),
    kind(
        Kind::Huge,
        "huge",
        &[],
        "applied; a well-formed answer of more than 1 MiB",
    ),
    kind(
        Kind::Redirect,
        "redirect",
        &["307"],
        "status 307 to another port; not applied",
    ),
    kind(
        Kind::ClockSkew,
        "clock-skew",
        &[],
        "the server's clock is 300 s ahead",
    ),
    kind(
        Kind::RateLimit,
        "rate-limit",
        &[],
        "error 10028 with wait 1; not applied",
    ),
    kind(
        Kind::Maintenance,
        "maintenance",
        &[],
        "error 11051; not applied",
    ),
    kind(
        Kind::Unauthorized,
        "unauthorized",
        &[],
        "error 13009; not applied",
    ),
    kind(
        Kind::Echo,
        "echo",
        &[],
        "an error that quotes the parameters and escape bytes; not applied",
    ),
    kind(
        Kind::Both,
        "both",
        &[],
        "applied; the answer has both a result and an error",
    ),
    kind(
        Kind::Challenge,
        "challenge",
        &[],
        "asks for a second factor on a private method (needs a seed)",
    ),
    kind(
        Kind::WebauthnOnly,
        "webauthn-only",
        &["u2f-only"],
        "asks for a hardware key and nothing else; not applied",
    ),
    kind(
        Kind::WrongFingerprint,
        "wrong-fingerprint",
        &[],
        "applied; reports another fingerprint",
    ),
    kind(
        Kind::WrongKey,
        "wrong-key",
        &[],
        "applied; reports another public key",
    ),
    kind(
        Kind::WrongName,
        "wrong-name",
        &[],
        "applied; reports another name",
    ),
    kind(
        Kind::WrongScope,
        "wrong-scope",
        &[],
        "applied; reports a broader scope than it stored",
    ),
    kind(
        Kind::HmacSecret,
        "hmac-secret",
        &[],
        "applied; reports a shared secret instead of the public key",
    ),
    kind(
        Kind::WrongTestnet,
        "wrong-testnet",
        &[],
        "applied; the envelope says testnet: false",
    ),
    kind(
        Kind::WrongRpId,
        "wrong-rp-id",
        &[],
        "a challenge for another site",
    ),
    kind(
        Kind::WrongId,
        "wrong-id",
        &[],
        "applied; the answer has another request's id",
    ),
];

/// One row of [`KINDS`].
#[derive(Debug)]
pub struct FaultKind {
    /// The name to write after the method.
    pub name: &'static str,
    /// Other names that mean the same.
    pub aliases: &'static [&'static str],
    /// What happens, in one line.
    pub about: &'static str,
    kind: Kind,
}

/// One fault: which method fails, how, and on which call.
///
/// Written `METHOD:KIND[:NTH]`: METHOD with or without `private/` or
/// `public/`, or `*` for all; KIND out of [`KINDS`]; NTH counts, from 1, the
/// calls that METHOD matches in this server; without it every call fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    method: String,
    pub(super) kind: Kind,
    pub(super) nth: Option<u64>,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    DropBefore,
    DropAfter,
    Truncate,
    Http500,
    After500,
    Http502,
    Garbage,
    Slow,
    Drip,
    Huge,
    Redirect,
    ClockSkew,
    RateLimit,
    Maintenance,
    Unauthorized,
    Echo,
    Both,
    Challenge,
    WebauthnOnly,
    WrongFingerprint,
    WrongKey,
    WrongName,
    WrongScope,
    HmacSecret,
    WrongTestnet,
    WrongRpId,
    WrongId,
}

impl Fault {
    /// Says whether a method, named in full, is meant.
    pub(super) fn matches(&self, method: &str) -> bool {
        self.method == "*" || self.method == method
    }
}

impl FromStr for Fault {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parts = text.splitn(3, ':');
        let (method, name) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let nth =
            match parts.next() {
                None => None,
                Some(digits) => {
                    let nth = digits.parse().ok().filter(|nth| *nth > 0);
                    Some(nth.ok_or_else(|| {
                        Error::Fault(format!("not a count from 1 in fault {text:?}"))
                    })?)
                }
            };
        let named = |rule: &&super::rules::Rule| {
            rule.name == method
                || rule
                    .name
                    .split_once('/')
                    .is_some_and(|(_, short)| short == method)
        };
        let method = match METHODS.iter().find(named) {
            Some(rule) => rule.name,
            None if method == "*" => method,
            None => return Err(Error::Fault(format!("unknown method in fault {text:?}"))),
        };
        let called = |row: &&FaultKind| row.name == name || row.aliases.contains(&name);
        let row = KINDS
            .iter()
            .find(called)
            .ok_or_else(|| Error::Fault(format!("unknown kind of fault in {text:?}")))?;
        Ok(Self {
            method: method.to_owned(),
            kind: row.kind,
            nth,
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = KINDS
            .iter()
            .find(|row| row.kind == self.kind)
            .map_or("", |row| row.name);
        write!(f, "{}:{name}", self.method)?;
        self.nth.map_or(Ok(()), |nth| write!(f, ":{nth}"))
    }
}

const fn kind(
    kind: Kind,
    name: &'static str,
    aliases: &'static [&'static str],
    about: &'static str,
) -> FaultKind {
    FaultKind {
        name,
        aliases,
        about,
        kind,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for row in KINDS {
            for name in std::iter::once(&row.name).chain(row.aliases) {
                let fault: Fault = format!("create_api_key:{name}:2").parse().unwrap();
                assert_eq!(
                    fault.to_string(),
                    format!("private/create_api_key:{}:2", row.name)
                );
                assert_eq!(fault.to_string().parse::<Fault>().unwrap(), fault);
            }
        }
        let every: Fault = "*:500".parse().unwrap();
        assert!(every.nth.is_none() && every.matches("public/auth"));
        assert!(
            !"auth:500"
                .parse::<Fault>()
                .unwrap()
                .matches("public/get_time")
        );
    }

    #[test]
    fn refuses_the_rest() {
        for bad in [
            "",
            "auth",
            "auth:",
            "auth:fire",
            "auth:500:0",
            "auth:500:x",
            "auth:500:1:2",
            "creat_api_key:500",
            ":500",
        ] {
            assert!(
                matches!(bad.parse::<Fault>(), Err(Error::Fault(_))),
                "{bad}"
            );
        }
    }
}
