//! The second factor: challenges and one-time codes.
//!
//! Deribit, "Security keys": the first call is answered with a challenge, the
//! same call is sent again with the challenge and a code; a challenge lives a
//! minute, a code works once, and after a failure all starts over.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::proof::{self, Seed};
use super::rpc::{Call, Refusal};
use super::rules::{Caller, Demand, Turn};
use super::state::Challenge;

/// Milliseconds that a challenge lives.
const LIFE: u64 = 60_000;

/// Failures within [`PENALTY`] after which there is nothing but waiting.
const FAILURES: usize = 5;

/// Milliseconds for which a failure counts.
const PENALTY: u64 = 60_000;

/// Parameters that belong to the proof and not to the request.
const PROOF: [&str; 3] = ["authorization_data", "challenge", "access_token"];

/// Lets a call through, or returns the challenge to answer it with.
pub(super) fn gate(
    turn: &mut Turn<'_>,
    caller: &Caller,
    flagged: bool,
) -> Result<Option<Value>, Refusal> {
    if turn.demand == Demand::Hardware {
        let keys = json!([{ "type": "u2f", "name": "yubikey", "credential_id": "c2FuZGJveA" }]);
        return issue(turn, caller, keys).map(Some);
    }
    let Some(seed) = turn.seed else {
        return Ok(None);
    };
    let answer = turn.call.text("authorization_data")?;
    let challenge = turn.call.text("challenge")?;
    if answer.is_none() && challenge.is_none() {
        if !flagged && turn.demand == Demand::Usual {
            return Ok(None);
        }
        patient(turn)?;
        return issue(turn, caller, json!([{ "type": "tfa", "name": "tfa" }])).map(Some);
    }
    patient(turn)?;
    let outcome = check(turn, caller, seed, challenge.unwrap_or(""), answer);
    if let Err(reason) = outcome {
        turn.state.failures.push(turn.now);
        return Err(Refusal::because(
            13668,
            "security_key_authorization_error",
            reason,
        ));
    }
    turn.state.failures.clear();
    Ok(None)
}

fn issue(turn: &mut Turn<'_>, caller: &Caller, security_keys: Value) -> Result<Value, Refusal> {
    let text = proof::padded::<32>().map_err(Refusal::internal)?;
    forget_expired(turn);
    turn.state.challenges.push(Challenge {
        text: text.clone(),
        key_id: caller.key_id,
        request: digest(turn.call),
        issued: turn.now,
    });
    Ok(json!({
        "security_keys": security_keys,
        "security_key_authorization_required": true,
        "rp_id": "test.deribit.com",
        "challenge": text,
    }))
}

/// Checks an answer; its challenge is void afterwards whatever comes of it.
fn check(
    turn: &mut Turn<'_>,
    caller: &Caller,
    seed: &Seed,
    challenge: &str,
    answer: Option<&str>,
) -> Result<(), &'static str> {
    forget_expired(turn);
    let position = turn
        .state
        .challenges
        .iter()
        .position(|known| known.text == challenge);
    let known = position.map(|position| turn.state.challenges.remove(position));
    let request = digest(turn.call);
    let known = known.filter(|known| known.key_id == caller.key_id && known.request == request);
    known.ok_or("challenge_timeout")?;
    let code = answer.ok_or("tfa_code_is_required")?;
    let step = seed.step_of(code, turn.now).ok_or("tfa_code_not_matched")?;
    if turn.state.used_steps.contains(&step) {
        return Err("used_tfa_code");
    }
    // Codes older than these no longer match anyway.
    turn.state
        .used_steps
        .retain(|used| used.saturating_add(10) > step);
    turn.state.used_steps.push(step);
    Ok(())
}

/// Refuses while there are too many recent failures.
fn patient(turn: &mut Turn<'_>) -> Result<(), Refusal> {
    let now = turn.now;
    turn.state
        .failures
        .retain(|failed| failed.saturating_add(PENALTY) > now);
    if turn.state.failures.len() < FAILURES {
        return Ok(());
    }
    let until = turn
        .state
        .failures
        .first()
        .map_or(now, |first| first.saturating_add(PENALTY));
    let seconds = until.saturating_sub(now).div_ceil(1000);
    Err(Refusal::wait(
        12998,
        "security_key_authorization_over_limit",
        seconds,
    ))
}

fn forget_expired(turn: &mut Turn<'_>) {
    let now = turn.now;
    turn.state
        .challenges
        .retain(|challenge| challenge.issued.saturating_add(LIFE) > now);
}

/// What a challenge is bound to: the method and its own parameters, sorted.
fn digest(call: &Call) -> String {
    let own = call
        .params
        .iter()
        .filter(|(name, _)| !PROOF.contains(&name.as_str()));
    let own: BTreeMap<_, _> = own.collect();
    proof::sha256_hex(json!([call.method, own]).to_string().as_bytes())
}
