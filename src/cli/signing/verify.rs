//! `verify`: what somebody says to have signed, held against a public key.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use super::request;
use crate::{
    cli::{args::Verify, context::Context, failure::Failure, inputs::is_stdin, keys},
    exchange::{ClientId, Login, Method},
    key::{self, Message, Purpose, Signature, Stamp, Timestamp},
    store::{self, Trust},
};

pub(in crate::cli) fn verify(context: &Context, args: &Verify) -> Result<(), Failure> {
    refuse_two_inputs(args)?;
    let key = keys::public_of(context, &args.which)?;
    let input = store::read(Path::new("/dev/stdin"), key::MAX_INPUT, Trust::Public)?;
    let text = std::str::from_utf8(&input).map_err(|_| unreadable("it is not UTF-8"))?;
    let claim = match (&args.method, &args.path) {
        (Some(method), Some(path)) => Claim::request(text, method, path, args.body.as_ref())?,
        _ => Claim::login(text)?,
    };
    let message = Message::new(&claim.stamp, &claim.purpose)?;
    key.verify(&message, &claim.signature)?;
    let value = json!({
        "verified": true,
        "fingerprint": key.fingerprint(),
        "client_id": claim.client_id,
        "timestamp": claim.stamp.timestamp,
        "nonce": claim.stamp.nonce,
    });
    context.output.result(&value, || {
        format!("the signature is that of {}", key.fingerprint())
    })
}

/// Refuses to read anything else from where the signature comes from.
fn refuse_two_inputs(args: &Verify) -> Result<(), Failure> {
    let passphrase = args.which.passphrase.source();
    let (what, cure) = if args.body.as_deref().is_some_and(is_stdin) {
        ("the body", "give the body in a file: --body FILE")
    } else if is_stdin(Path::new(&args.which.which)) {
        ("the key", "give the key by its name, or in a file")
    } else if passphrase.is_some_and(|source| source.is_stdin()) {
        (
            "the passphrase",
            "give the passphrase with --passphrase-file",
        )
    } else {
        return Ok(());
    };
    Err(Failure::usage(format!(
        "standard input has what is to be verified, and cannot be {what} as well"
    ))
    .hint(cure))
}

/// What somebody says to have signed.
struct Claim {
    client_id: String,
    stamp: Stamp,
    purpose: Purpose,
    signature: Signature,
}

impl Claim {
    /// Reads the JSON-RPC request of a login.
    fn login(text: &str) -> Result<Self, Failure> {
        #[derive(Deserialize)]
        struct Request {
            method: String,
            params: Params,
        }
        #[derive(Deserialize)]
        struct Params {
            grant_type: String,
            client_id: String,
            timestamp: Value,
            nonce: String,
            signature: String,
            #[serde(default)]
            data: String,
        }
        let request: Request = serde_json::from_str(text).map_err(|_| {
            unreadable("it is no JSON-RPC request with a signature").hint(
                "for a login give the JSON of \"derikey sign auth\"; for a REST request add --method and --path",
            )
        })?;
        let Params {
            grant_type,
            client_id,
            timestamp,
            nonce,
            signature,
            data,
        } = request.params;
        if request.method != Login::NAME || grant_type != "client_signature" {
            return Err(unreadable("it is no public/auth with a client signature"));
        }
        Ok(Self {
            client_id: plain(&client_id)?,
            stamp: stamp(&timestamp.to_string(), &nonce)?,
            purpose: Purpose::Login { data },
            signature: signature.parse()?,
        })
    }

    /// Reads the `Authorization` header of a REST request, or the JSON that holds it.
    fn request(
        text: &str,
        method: &str,
        path: &str,
        body: Option<&PathBuf>,
    ) -> Result<Self, Failure> {
        #[derive(Deserialize)]
        struct Signed {
            authorization: String,
        }
        let header = serde_json::from_str(text)
            .map_or_else(|_| text.to_owned(), |s: Signed| s.authorization);
        let header = header.trim();
        let value = match header.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => value.trim(),
            _ => header,
        };
        let (scheme, fields) = value
            .split_once(' ')
            .ok_or_else(|| unreadable("it is no Authorization header"))?;
        if !scheme.eq_ignore_ascii_case("deri-hmac-sha256") {
            return Err(unreadable("its scheme is not deri-hmac-sha256"));
        }
        let field = |wanted: &str| {
            let mut pairs = fields
                .split(',')
                .filter_map(|pair| pair.trim().split_once('='));
            let found = pairs
                .find(|(name, _)| *name == wanted)
                .map(|(_, value)| value.to_owned());
            found.ok_or_else(|| unreadable("it lacks one of id, ts, nonce and sig"))
        };
        Ok(Self {
            client_id: plain(&field("id")?)?,
            stamp: stamp(&field("ts")?, &field("nonce")?)?,
            purpose: request(method, path, body.map(PathBuf::as_path))?,
            signature: field("sig")?.parse()?,
        })
    }
}

fn unreadable(problem: &str) -> Failure {
    Failure::verification(format!("what was given cannot be verified: {problem}"))
}

fn plain(client_id: &str) -> Result<String, Failure> {
    let id: ClientId = client_id
        .parse()
        .map_err(|_| unreadable("its client id is none"))?;
    Ok(id.to_string())
}

/// Timestamps come as a number, and as a string from some clients.
fn stamp(timestamp: &str, nonce: &str) -> Result<Stamp, Failure> {
    let millis = timestamp
        .trim_matches('"')
        .parse()
        .map_err(|_| unreadable("its timestamp is none"))?;
    Ok(Stamp {
        timestamp: Timestamp(millis),
        nonce: nonce.parse().map_err(|_| unreadable("its nonce is none"))?,
    })
}
