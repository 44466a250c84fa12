//! What each method needs before it is carried out, and the small ones.

use serde_json::{Value, json};

use super::keys::Command;
use super::login;
use super::proof::Seed;
use super::rpc::{Call, Refusal};
use super::scope::{Area, Areas, Level};
use super::second_factor;
use super::state::State;

/// What one method asks for.
pub(super) struct Rule {
    pub(super) name: &'static str,
    needs: Option<(Area, Level)>,
    second_factor: bool,
}

/// Every method there is (scopes and second factors from the OpenAPI file).
pub(super) const METHODS: &[Rule] = &[
    open("public/auth"),
    open("public/exchange_token"),
    open("public/fork_token"),
    open("public/get_time"),
    open("public/status"),
    open("public/test"),
    open("private/logout"),
    flagged("private/create_api_key", Level::ReadWrite),
    flagged("private/list_api_keys", Level::Read),
    flagged("private/edit_api_key", Level::ReadWrite),
    flagged("private/disable_api_key", Level::ReadWrite),
    flagged("private/change_scope_in_api_key", Level::ReadWrite),
    plain("private/enable_api_key", Area::Account, Level::ReadWrite),
    plain("private/remove_api_key", Area::Account, Level::ReadWrite),
    plain("private/reset_api_key", Area::Account, Level::ReadWrite),
    plain(
        "private/change_api_key_name",
        Area::Account,
        Level::ReadWrite,
    ),
    plain("private/get_access_log", Area::Account, Level::Read),
    plain("private/get_account_summary", Area::Account, Level::Read),
    plain("private/get_positions", Area::Trade, Level::Read),
];

/// One request being carried out under the lock.
pub(super) struct Turn<'a> {
    pub(super) state: &'a mut State,
    pub(super) call: &'a Call,
    pub(super) now: u64,
    pub(super) seed: Option<&'a Seed>,
    pub(super) demand: Demand,
}

/// When a second factor is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Demand {
    /// On the flagged methods, if there is a seed.
    Usual,
    /// On this call whatever its method.
    Always,
    /// On this call, and only a hardware key will do.
    Hardware,
}

/// Who asks, with the rights of this request.
pub(super) struct Caller {
    pub(super) key_id: u64,
    pub(super) areas: Areas,
}

/// Carries out one request.
pub(super) fn answer(turn: &mut Turn<'_>) -> Result<Value, Refusal> {
    let method = turn.call.method.as_str();
    let rule = METHODS.iter().find(|rule| rule.name == method);
    let rule = rule.ok_or_else(|| Refusal::new(-32601, "Method not found"))?;
    let Some((area, level)) = rule.needs else {
        return open_answer(turn);
    };

    let caller = login::caller(turn)?;
    if caller.areas.level(area) < level {
        let needed = format!(
            "{} is not in the scope of the caller",
            Areas::one(area, level)
        );
        return Err(Refusal::because(13021, "forbidden", &needed));
    }
    let command = Command::read(turn.call)?;
    if let Some(challenge) = second_factor::gate(turn, &caller, rule.second_factor)? {
        return Ok(challenge);
    }
    command.apply(turn, &caller)
}

fn open_answer(turn: &mut Turn<'_>) -> Result<Value, Refusal> {
    match turn.call.method.as_str() {
        "public/auth" => login::auth(turn),
        "public/get_time" => Ok(json!(turn.now)),
        "public/status" => Ok(json!({ "locked": "false", "locked_indices": [] })),
        "public/test" => match turn.call.text("expected_result")? {
            Some("exception") => Err(Refusal::new(10001, "error")),
            _ => Ok(json!({ "version": "1.2.26" })),
        },
        // Over HTTP there is no connection to log out from.
        "private/logout" => Err(Refusal::new(10030, "must_be_websocket_request")),
        _ => Err(Refusal::new(10033, "not_implemented")),
    }
}

const fn open(name: &'static str) -> Rule {
    Rule {
        name,
        needs: None,
        second_factor: false,
    }
}

const fn plain(name: &'static str, area: Area, level: Level) -> Rule {
    Rule {
        name,
        needs: Some((area, level)),
        second_factor: false,
    }
}

const fn flagged(name: &'static str, level: Level) -> Rule {
    Rule {
        name,
        needs: Some((Area::Account, level)),
        second_factor: true,
    }
}
