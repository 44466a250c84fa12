//! The nine key methods, and the private reads that show a key at work.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::proof::Credential;
use super::rpc::{Call, Refusal};
use super::rules::{Caller, Turn};
use super::scope::{Areas, Level};
use super::state::{self, Key, State};

/// Keys of one account (Deribit, "Connection management").
const KEYS: usize = 8;

/// Features that can be switched on (OpenAPI, `enabled_features`).
const FEATURES: [&str; 2] = ["restricted_block_trades", "block_trade_approval"];

/// A private request whose parameters are in order.
pub(super) enum Command {
    Create(New),
    List,
    Edit(u64, Edit),
    Enable(u64),
    Disable(u64),
    Remove(u64),
    Reset(u64),
    Rename(u64, String),
    Rescope(u64, Areas),
    AccessLog { offset: usize, count: usize },
    Summary,
    Positions,
}

/// A key to be made.
pub(super) struct New {
    name: String,
    max_scope: Areas,
    credential: Option<Credential>,
    enabled_features: Vec<String>,
}

/// What an edit leaves of a key: everything it does not name is reset.
pub(super) struct Edit {
    name: String,
    max_scope: Areas,
    enabled: bool,
    enabled_features: Vec<String>,
    ip_whitelist: Vec<IpAddr>,
}

impl Command {
    pub(super) fn read(call: &Call) -> Result<Self, Refusal> {
        let id = || call.required_integer("id");
        Ok(match call.method.as_str() {
            "private/create_api_key" => Self::Create(New {
                max_scope: max_scope(call.required_text("max_scope")?)?,
                name: name(call)?.unwrap_or_default(),
                credential: public_key(call)?,
                enabled_features: features(call)?,
            }),
            "private/list_api_keys" => Self::List,
            "private/edit_api_key" => {
                let edit = Edit {
                    // "If scope is not provided, its value is set as none."
                    max_scope: call
                        .text("max_scope")?
                        .map_or_else(|| Ok(Areas::uniform(Level::None)), max_scope)?,
                    name: name(call)?.unwrap_or_default(),
                    enabled: call.boolean("enabled")?.unwrap_or(true),
                    enabled_features: features(call)?,
                    ip_whitelist: whitelist(call)?,
                };
                Self::Edit(id()?, edit)
            }
            "private/enable_api_key" => Self::Enable(id()?),
            "private/disable_api_key" => Self::Disable(id()?),
            "private/remove_api_key" => Self::Remove(id()?),
            "private/reset_api_key" => Self::Reset(id()?),
            "private/change_api_key_name" => {
                call.required_text("name")?;
                Self::Rename(id()?, name(call)?.unwrap_or_default())
            }
            "private/change_scope_in_api_key" => {
                Self::Rescope(id()?, max_scope(call.required_text("max_scope")?)?)
            }
            "private/get_access_log" => Self::AccessLog {
                offset: small(call, "offset", 0)?,
                count: small(call, "count", 10)?,
            },
            "private/get_account_summary" => Self::Summary,
            "private/get_positions" => Self::Positions,
            _ => return Err(Refusal::new(10033, "not_implemented")),
        })
    }

    pub(super) fn apply(self, turn: &mut Turn<'_>, caller: &Caller) -> Result<Value, Refusal> {
        let (peer, now) = (turn.call.peer, turn.now);
        let state = &mut *turn.state;
        let (log, shown) = match self {
            Self::Create(new) => ("new_api_key", create(state, new, caller, now)?),
            Self::List => return Ok(state.keys.iter().map(|key| view(key, caller)).collect()),
            Self::Edit(id, edit) => {
                let before = target(state, id, caller)?.clone();
                within(&edit.max_scope, caller)?;
                let after = change(state, id, caller, now, |key| edit.apply(key))?;
                return Ok(edited(state, &before, &after, caller, peer, now));
            }
            Self::Enable(id) => (
                "enabled_api_key",
                change(state, id, caller, now, |key| key.enabled = true)?,
            ),
            Self::Disable(id) => (
                "disabled_api_key",
                change(state, id, caller, now, |key| key.enabled = false)?,
            ),
            Self::Remove(id) => {
                let key = target(state, id, caller)?.clone();
                state.keys.retain(|key| key.id != id);
                state.grants.retain(|grant| grant.key_id != id);
                state.nonces.remove(&key.client_id);
                state.record("removed_api_key", &key.client_id, peer, now);
                return Ok(json!("ok"));
            }
            Self::Reset(id) => ("reset_api_key", reset(state, id, caller, now)?),
            Self::Rename(id, name) => {
                let key = change(state, id, caller, now, |key| key.name = name)?;
                return Ok(view(&key, caller));
            }
            Self::Rescope(id, areas) => {
                within(&areas, caller)?;
                (
                    "changed_scope",
                    change(state, id, caller, now, |key| key.max_scope = areas)?,
                )
            }
            Self::AccessLog { offset, count } => return Ok(access_log(state, offset, count)),
            Self::Summary => return Ok(summary(state)),
            Self::Positions => return Ok(json!([])),
        };
        state.record(log, &shown.client_id, peer, now);
        Ok(view(&shown, caller))
    }
}

impl Edit {
    fn apply(self, key: &mut Key) {
        key.name = self.name;
        key.max_scope = self.max_scope;
        key.enabled = self.enabled;
        key.enabled_features = self.enabled_features;
        key.ip_whitelist = self.ip_whitelist;
    }
}

fn create(state: &mut State, new: New, caller: &Caller, now: u64) -> Result<Key, Refusal> {
    within(&new.max_scope, caller)?;
    if state.keys.len() >= KEYS {
        // The limit is documented, its error is not.
        return Err(Refusal::because(11030, "other_reject", "too many API keys"));
    }
    let credential = match new.credential {
        Some(credential) => credential,
        None => Credential::random().map_err(Refusal::internal)?,
    };
    let key = Key {
        id: state.next_key_id,
        client_id: state::client_id().map_err(Refusal::internal)?,
        credential,
        name: new.name,
        max_scope: new.max_scope,
        enabled: true,
        timestamp: now,
        enabled_features: new.enabled_features,
        ip_whitelist: Vec::new(),
    };
    state.next_key_id = state.next_key_id.saturating_add(1);
    state.keys.push(key.clone());
    Ok(key)
}

fn reset(state: &mut State, id: u64, caller: &Caller, now: u64) -> Result<Key, Refusal> {
    if matches!(target(state, id, caller)?.credential, Credential::Public(_)) {
        // No document says what a new secret of a key pair would be.
        return Err(Refusal::because(
            11030,
            "other_reject",
            "asymmetric keys have no secret to reset",
        ));
    }
    let credential = Credential::random().map_err(Refusal::internal)?;
    state.grants.retain(|grant| grant.key_id != id);
    change(state, id, caller, now, |key| key.credential = credential)
}

fn edited(
    state: &mut State,
    before: &Key,
    after: &Key,
    caller: &Caller,
    peer: IpAddr,
    now: u64,
) -> Value {
    let switched = if after.enabled {
        "enabled_api_key"
    } else {
        "disabled_api_key"
    };
    for (changed, log) in [
        (before.max_scope != after.max_scope, "changed_scope"),
        (
            before.ip_whitelist != after.ip_whitelist,
            "changed_whitelist",
        ),
        (before.enabled != after.enabled, switched),
    ] {
        if changed {
            state.record(log, &after.client_id, peer, now);
        }
    }
    view(after, caller)
}

fn change(
    state: &mut State,
    id: u64,
    caller: &Caller,
    now: u64,
    change: impl FnOnce(&mut Key),
) -> Result<Key, Refusal> {
    let key = target(state, id, caller)?;
    change(key);
    key.timestamp = now;
    Ok(key.clone())
}

/// The key of an id, if the caller's own scope covers it.
fn target<'a>(state: &'a mut State, id: u64, caller: &Caller) -> Result<&'a mut Key, Refusal> {
    let key = state.keys.iter_mut().find(|key| key.id == id);
    let key = key.ok_or_else(|| Refusal::new(13020, "not_found"))?;
    within(&key.max_scope, caller)?;
    Ok(key)
}

fn within(areas: &Areas, caller: &Caller) -> Result<(), Refusal> {
    areas
        .within(&caller.areas)
        .then_some(())
        .ok_or_else(|| Refusal::new(13403, "scope_exceeded"))
}

/// A key as the exchange shows it; secrets only within the caller's scope.
fn view(key: &Key, caller: &Caller) -> Value {
    let mut view = json!({
        "id": key.id,
        "timestamp": key.timestamp,
        "client_id": key.client_id,
        "max_scope": key.max_scope.to_string(),
        "enabled": key.enabled,
        "default": false,
        "name": key.name,
        "enabled_features": key.enabled_features,
        "ip_whitelist": key.ip_whitelist,
    });
    let public_key = key.credential.to_pem();
    if let Some(view) = view.as_object_mut() {
        if public_key.is_some() || key.max_scope.within(&caller.areas) {
            view.insert(
                "client_secret".to_owned(),
                json!(key.credential.client_secret()),
            );
        }
        if let Some(pem) = public_key {
            view.insert("public_key".to_owned(), json!(pem));
        }
    }
    view
}

/// The log, newest first, in the form of the documented example.
fn access_log(state: &State, offset: usize, count: usize) -> Value {
    let newest = state.events.iter().rev().skip(offset).take(count);
    let rows: Vec<Value> = newest
        .map(|event| {
            json!({
                "id": event.id,
                "timestamp": event.timestamp,
                "ip": event.ip,
                "country": "Local Country",
                "city": "Local Town",
                "result": event.log,
                "log": event.log,
                "data": event.client_id,
            })
        })
        .collect();
    json!({ "records_total": state.events.len(), "data": rows })
}

fn summary(state: &State) -> Value {
    json!({
        "currency": "BTC",
        "balance": 1.0,
        "equity": 1.0,
        "available_funds": 1.0,
        "id": state.user_id,
        "type": "main",
        "username": "sandbox",
    })
}

fn max_scope(text: &str) -> Result<Areas, Refusal> {
    Areas::parse(text).map_err(|reason| Refusal::param("max_scope", &reason))
}

fn name(call: &Call) -> Result<Option<String>, Refusal> {
    let Some(name) = call.text("name")? else {
        return Ok(None);
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if !(1..=16).contains(&name.len()) || !name.bytes().all(allowed) {
        let rule = "only letters, numbers and underscores allowed; maximum length - 16 characters";
        return Err(Refusal::param("name", rule));
    }
    Ok(Some(name.to_owned()))
}

fn public_key(call: &Call) -> Result<Option<Credential>, Refusal> {
    let Some(pem) = call.text("public_key")? else {
        return Ok(None);
    };
    let credential =
        Credential::from_pem(pem).map_err(|reason| Refusal::param("public_key", &reason))?;
    Ok(Some(credential))
}

fn features(call: &Call) -> Result<Vec<String>, Refusal> {
    let features = call.texts("enabled_features")?;
    if features.iter().any(|feature| !FEATURES.contains(feature)) {
        return Err(Refusal::param("enabled_features", "unknown feature"));
    }
    Ok(features.into_iter().map(str::to_owned).collect())
}

/// Plain addresses only: no document speaks of networks.
fn whitelist(call: &Call) -> Result<Vec<IpAddr>, Refusal> {
    let bad = |_| Refusal::param("ip_whitelist", "must be IP addresses");
    let addresses = call.texts("ip_whitelist")?;
    addresses
        .into_iter()
        .map(|address| address.parse().map_err(bad))
        .collect()
}

fn small(call: &Call, name: &str, default: usize) -> Result<usize, Refusal> {
    let Some(number) = call.integer(name)? else {
        return Ok(default);
    };
    let limits = if name == "count" {
        1..=1000
    } else {
        0..=usize::MAX
    };
    let number = usize::try_from(number)
        .ok()
        .filter(|number| limits.contains(number));
    number.ok_or_else(|| Refusal::param(name, "out of range"))
}
