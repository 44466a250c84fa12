//! Logging in: `public/auth`, its tokens, and who stands behind a request.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::proof;
use super::rpc::Refusal;
use super::rules::{Caller, Turn};
use super::scope::{Areas, Requested};
use super::state::{Grant, Key, State};

/// How old a signature may be, in milliseconds.
const WINDOW: u64 = 60_000;

/// How far ahead a client's clock may be; no document says, so not far.
const AHEAD: u64 = 5_000;

/// Seconds that a token lives over HTTP, as observed.
const LIFETIME: u64 = 899;

/// Milliseconds that a refresh token lives: the difference seen in real ones.
const REFRESH: u64 = 7 * 24 * 3600 * 1000;

/// Sessions of one key.
const SESSIONS: usize = 16;

/// Token pairs kept of one session.
const PAIRS: usize = 32;

/// What a login has established before a token is made of it.
struct Proven {
    key: Key,
    areas: Areas,
    session: Option<String>,
    lifetime: Option<u64>,
    ip: Option<IpAddr>,
}

/// A signature with what it covers besides the request.
struct Stamped<'a> {
    client_id: &'a str,
    timestamp: &'a str,
    nonce: &'a str,
    signature: &'a str,
}

/// Carries out `public/auth`.
pub(super) fn auth(turn: &mut Turn<'_>) -> Result<Value, Refusal> {
    let call = turn.call;
    let requested = Requested::parse(call.text("scope")?.unwrap_or(""));
    let requested = requested.map_err(|reason| Refusal::param("scope", &reason))?;
    let key = match call.required_text("grant_type")? {
        "client_credentials" => by_secret(
            turn,
            call.required_text("client_id")?,
            call.required_text("client_secret")?,
        ),
        "client_signature" => by_signature(turn),
        "refresh_token" => return refresh(turn, requested),
        _ => {
            return Err(Refusal::param(
                "grant_type",
                "must be client_credentials, client_signature or refresh_token",
            ));
        }
    };
    let client_id = call.text("client_id")?.unwrap_or("");
    if turn.state.key_of_client(client_id).is_some() {
        let log = if key.is_ok() { "success" } else { "failure" };
        turn.state.record(log, client_id, call.peer, turn.now);
    }
    let key = key?;
    let areas = key.max_scope.merged_with(&requested.areas);
    let (session, lifetime) = (requested.session, requested.expires);
    issue(
        turn,
        Proven {
            key,
            areas,
            session,
            lifetime,
            ip: requested.ip.map(IpAddr::from),
        },
    )
}

/// Finds out who sent a private request.
pub(super) fn caller(turn: &mut Turn<'_>) -> Result<Caller, Refusal> {
    let call = turn.call;
    let Some(header) = call.authorization.as_deref() else {
        let token = call.text("access_token")?;
        return by_token(
            turn,
            token.ok_or_else(|| Refusal::new(10000, "authorization_required"))?,
        );
    };
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header, ""));
    let key = match scheme.to_ascii_lowercase().as_str() {
        "bearer" => return by_token(turn, rest.trim()),
        "basic" => by_basic(turn, rest.trim()),
        "deri-hmac-sha256" => by_header(turn, rest),
        _ => return Err(unauthorized("unknown_scheme")),
    };
    // For a header every failed proof is one code (Deribit, "RPC error codes").
    let key = key.map_err(|refusal| Refusal {
        code: 13009,
        message: "unauthorized".to_owned(),
        ..refusal
    })?;
    Ok(Caller {
        key_id: key.id,
        areas: key.max_scope,
    })
}

fn by_token(turn: &Turn<'_>, token: &str) -> Result<Caller, Refusal> {
    let digest = proof::sha256_hex(token.as_bytes());
    let grant = turn
        .state
        .grants
        .iter()
        .find(|grant| grant.access_sha256 == digest);
    let grant = grant.filter(|grant| grant.access_expires > turn.now);
    let grant = grant.ok_or_else(|| unauthorized("invalid_token"))?;
    let key = turn.state.keys.iter().find(|key| key.id == grant.key_id);
    let key = key
        .filter(|key| key.enabled)
        .ok_or_else(|| unauthorized("invalid_token"))?;
    if !listed(key, turn.call.peer) || grant.ip.is_some_and(|ip| ip != turn.call.peer) {
        return Err(unauthorized("ip_not_allowed"));
    }
    Ok(Caller {
        key_id: key.id,
        areas: grant.areas.limited_by(&key.max_scope),
    })
}

fn by_basic(turn: &Turn<'_>, text: &str) -> Result<Key, Refusal> {
    let decoded = proof::decode_base64(text).and_then(|bytes| String::from_utf8(bytes).ok());
    let decoded = decoded.ok_or_else(|| rejected("malformed_header"))?;
    let (client_id, secret) = decoded
        .split_once(':')
        .ok_or_else(|| rejected("malformed_header"))?;
    by_secret(turn, client_id, secret)
}

/// Accepts a shared secret; a key pair has none (Deribit, "Asymmetric keys").
fn by_secret(turn: &Turn<'_>, client_id: &str, secret: &str) -> Result<Key, Refusal> {
    let key = admitted(turn, client_id)?;
    if !key.credential.is_secret(secret) {
        return Err(rejected("wrong_secret"));
    }
    Ok(key)
}

fn by_signature(turn: &mut Turn<'_>) -> Result<Key, Refusal> {
    let call = turn.call;
    // An integer in the schema, but strings are seen to work.
    let timestamp = match call.params.get("timestamp") {
        Some(Value::String(text)) => text.clone(),
        _ => call.required_integer("timestamp")?.to_string(),
    };
    let data = call.text("data")?.unwrap_or("");
    let stamped = Stamped {
        client_id: call.required_text("client_id")?,
        timestamp: &timestamp,
        nonce: call.text("nonce")?.unwrap_or(""),
        signature: call.required_text("signature")?,
    };
    for (name, text) in [("nonce", stamped.nonce), ("data", data)] {
        if text.contains('\n') {
            return Err(Refusal::param(name, "must not hold a line break"));
        }
    }
    checked(turn, &stamped, data.as_bytes())
}

/// Accepts a signed request: `deri-hmac-sha256 id=..,ts=..,nonce=..,sig=..`.
fn by_header(turn: &mut Turn<'_>, text: &str) -> Result<Key, Refusal> {
    let mut fields = BTreeMap::new();
    for field in text.split(',') {
        let (name, value) = field
            .trim()
            .split_once('=')
            .ok_or_else(|| rejected("malformed_header"))?;
        if fields.insert(name, value).is_some() {
            return Err(rejected("malformed_header"));
        }
    }
    let field = |name| {
        fields
            .get(name)
            .copied()
            .ok_or_else(|| rejected("malformed_header"))
    };
    let stamped = Stamped {
        client_id: field("id")?,
        timestamp: field("ts")?,
        nonce: field("nonce")?,
        signature: field("sig")?,
    };
    let call = turn.call;
    let mut covered = format!("{}\n{}\n", call.verb, call.uri).into_bytes();
    covered.extend_from_slice(&call.body);
    covered.push(b'\n');
    checked(turn, &stamped, &covered)
}

/// Checks time, signature and nonce, in this order: only whoever can sign may
/// use up a nonce.
fn checked(turn: &mut Turn<'_>, stamped: &Stamped<'_>, covered: &[u8]) -> Result<Key, Refusal> {
    let key = admitted(turn, stamped.client_id)?;
    let stamp: u64 = stamped
        .timestamp
        .parse()
        .map_err(|_| rejected("invalid_timestamp"))?;
    if stamp.saturating_add(WINDOW) < turn.now || stamp > turn.now.saturating_add(AHEAD) {
        return Err(rejected("invalid_timestamp"));
    }
    let mut message = format!("{}\n{}\n", stamped.timestamp, stamped.nonce).into_bytes();
    message.extend_from_slice(covered);
    if !key.credential.verifies(&message, stamped.signature) {
        return Err(rejected("invalid_signature"));
    }
    if !turn
        .state
        .spend_nonce(stamped.client_id, stamped.nonce, turn.now)
    {
        return Err(rejected("nonce_already_used"));
    }
    Ok(key)
}

/// The key of a client, if it may come in at all from where it is.
fn admitted(turn: &Turn<'_>, client_id: &str) -> Result<Key, Refusal> {
    let key = turn
        .state
        .key_of_client(client_id)
        .ok_or_else(|| rejected("unknown_client"))?;
    if !key.enabled {
        return Err(rejected("api_key_disabled"));
    }
    if !listed(key, turn.call.peer) {
        return Err(rejected("ip_not_allowed"));
    }
    Ok(key.clone())
}

fn listed(key: &Key, peer: IpAddr) -> bool {
    key.ip_whitelist.is_empty() || key.ip_whitelist.contains(&peer.to_canonical())
}

/// Trades a refresh token for a new pair; the old pair is worth nothing then.
fn refresh(turn: &mut Turn<'_>, requested: Requested) -> Result<Value, Refusal> {
    let digest = proof::sha256_hex(turn.call.required_text("refresh_token")?.as_bytes());
    let now = turn.now;
    let live = |grant: &Grant| grant.refresh_sha256 == digest && grant.refresh_expires > now;
    let position = turn
        .state
        .grants
        .iter()
        .position(live)
        .ok_or_else(|| rejected("invalid_token"))?;
    let old = turn.state.grants.remove(position);
    let key = turn.state.keys.iter().find(|key| key.id == old.key_id);
    let client_id = key.map(|key| key.client_id.clone()).unwrap_or_default();
    let key = admitted(turn, &client_id)?;
    if old.ip.is_some_and(|ip| ip != turn.call.peer) {
        return Err(rejected("ip_not_allowed"));
    }
    let areas = old
        .areas
        .limited_by(&key.max_scope)
        .merged_with(&requested.areas);
    let session = requested.session.or(Some(old.session));
    let lifetime = requested.expires.or(old.lifetime);
    issue(
        turn,
        Proven {
            key,
            areas,
            session,
            lifetime,
            ip: old.ip,
        },
    )
}

fn issue(turn: &mut Turn<'_>, proven: Proven) -> Result<Value, Refusal> {
    let Proven {
        key,
        areas,
        session,
        lifetime,
        ip,
    } = proven;
    let session = match session {
        Some(name) => name,
        None => format!("rest-{}", proof::padded::<8>().map_err(Refusal::internal)?),
    };
    let lives = lifetime.unwrap_or(LIFETIME).min(LIFETIME);
    let access_expires = turn.now.saturating_add(lives.saturating_mul(1000));
    let refresh_expires = turn.now.saturating_add(REFRESH);
    let access = token(access_expires)?;
    let refresh = token(refresh_expires)?;

    make_room(turn.state, key.id, &session, turn.now);
    let mut words = areas.granted();
    words.extend(["mainaccount".to_owned(), format!("session:{session}")]);
    words.extend(lifetime.map(|seconds| format!("expires:{seconds}")));
    words.extend(ip.map(|ip| format!("ip:{ip}")));
    words.extend((!key.name.is_empty()).then(|| format!("name:{}", key.name)));
    words.sort();
    let sid = format!("{}.{}.{session}", turn.state.user_id, key.client_id);
    turn.state.grants.push(Grant {
        key_id: key.id,
        session,
        areas,
        ip,
        lifetime,
        issued: turn.now,
        access_sha256: proof::sha256_hex(access.as_bytes()),
        access_expires,
        refresh_sha256: proof::sha256_hex(refresh.as_bytes()),
        refresh_expires,
    });

    let mut result = json!({
        "access_token": access,
        "token_type": "bearer",
        "expires_in": lives,
        "refresh_token": refresh,
        "scope": words.join(" "),
        "sid": sid,
        "enabled_features": key.enabled_features,
        "mandatory_tfa_status": if turn.seed.is_some() { "enabled" } else { "disabled" },
        "google_login": false,
    });
    if let (Some(state), Some(result)) = (turn.call.params.get("state"), result.as_object_mut()) {
        result.insert("state".to_owned(), state.clone());
    }
    Ok(result)
}

/// Ends the session that was idle longest when a key opens one too many.
fn make_room(state: &mut State, key_id: u64, session: &str, now: u64) {
    state.grants.retain(|grant| grant.refresh_expires > now);
    // Grants stand in the order in which they were issued.
    let mut latest = BTreeMap::new();
    let mut pairs = 0;
    for (position, grant) in state
        .grants
        .iter()
        .enumerate()
        .filter(|(_, grant)| grant.key_id == key_id)
    {
        latest.insert(grant.session.clone(), position);
        pairs += usize::from(grant.session == session);
    }
    if pairs >= PAIRS {
        let oldest = state
            .grants
            .iter()
            .position(|grant| grant.key_id == key_id && grant.session == session);
        oldest.map(|position| state.grants.remove(position));
    }
    if latest.len() >= SESSIONS && !latest.contains_key(session) {
        let idle = latest.into_iter().min_by_key(|(_, position)| *position);
        state.grants.retain(|grant| {
            grant.key_id != key_id || idle.as_ref().is_none_or(|(name, _)| *name != grant.session)
        });
    }
}

/// A token: its expiry, as real ones show it, and randomness.
fn token(expires: u64) -> Result<String, Refusal> {
    let (short, long) = (proof::url_safe::<6>(), proof::url_safe::<48>());
    Ok(format!(
        "{expires}.{}.{}",
        short.map_err(Refusal::internal)?,
        long.map_err(Refusal::internal)?
    ))
}

fn rejected(reason: &str) -> Refusal {
    Refusal::because(13004, "invalid_credentials", reason)
}

fn unauthorized(reason: &str) -> Refusal {
    Refusal::because(13009, "unauthorized", reason)
}
