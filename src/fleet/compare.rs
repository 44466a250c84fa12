//! A declared key, held against what is here and what the account has.

use super::{
    Declared,
    plan::{Action, Block, Local, Reach, Row, Settled, Step, Verdict},
};
use crate::{
    exchange::{ApiKey, ClientId, Network},
    key::Algorithm,
    provision::{Content, Difference, Survey, as_it_is, differences_of, gives_no_more, shuts_out},
    store::{Intent, Operation, Registration, Specification, Stage},
};

/// Holds a declared key against what is here and what the account has.
///
/// `claimed` are the client ids of all declared keys: one of them may have this key's label, and
/// is about to be called something else.
pub fn compare<'a>(
    declared: &'a Declared,
    network: &Network,
    local: &Local,
    survey: &'a Survey,
    operator: &ClientId,
    claimed: &[ClientId],
) -> Row<'a> {
    let key = there(local, survey);
    let mut row = Row {
        declared,
        key,
        differences: Vec::new(),
        verdict: Verdict::Settled(Settled::AsDeclared),
    };
    let judged = match (local.known(), &local.pending) {
        (_, Some(intent)) if is_registering(intent) => {
            registering(declared, network, local, intent)
        }
        (None, Some(intent)) => Err(Block::Pending(intent.operation)),
        (None, None) => absent(&row, local, survey, claimed),
        (Some(known), pending) => {
            let judged = registered(&row, known, network, local, survey);
            judged.and_then(|there| {
                let wish = declared.specification(algorithm_of(declared, local));
                let is = as_it_is(there, &known.specification(wish.algorithm));
                let enabled = there.enabled.unwrap_or(known.enabled);
                row.differences = differences(&is, enabled, declared, &wish);
                let steps = towards(&is, enabled, declared, &wish, &row.differences);
                let verdict = match pending {
                    Some(intent) => beside(intent, &wish, declared, steps)?,
                    None if steps.is_empty() => Verdict::Settled(Settled::AsDeclared),
                    None => Verdict::Steps(steps),
                };
                let loses = (is.scope.manages_keys() && !wish.scope.manages_keys())
                    // Whether this host is on its whitelist, nobody here knows.
                    || (there.client_id == *operator && shuts_out(&is.whitelist, &wish.whitelist));
                keeps_the_owner_in(&verdict, there, loses, survey, operator).map(|()| verdict)
            })
        }
    };
    row.verdict = judged.unwrap_or_else(Verdict::Blocked);
    row
}

/// Finds the key in the account, under the id that is recorded if it is there twice.
fn there<'a>(local: &Local, survey: &'a Survey) -> Option<&'a ApiKey> {
    let public = local.public.as_ref()?;
    let recorded = local.known().map(|known| &known.client_id);
    let ours = survey.0.iter().filter(|key| key.is(public));
    ours.min_by_key(|key| (Some(&key.client_id) != recorded, key.id))
}

fn algorithm_of(declared: &Declared, local: &Local) -> Algorithm {
    let is = local.record.as_ref().map(|record| record.algorithm);
    is.or(declared.algorithm).unwrap_or(Algorithm::Ed25519)
}

fn right_algorithm(declared: &Declared, local: &Local) -> Result<(), Block> {
    let is = local.record.as_ref().map(|record| record.algorithm);
    match (is, declared.algorithm) {
        (Some(is), Some(declared)) if is != declared => Err(Block::Algorithm { is, declared }),
        _ => Ok(()),
    }
}

fn is_registering(intent: &Intent) -> bool {
    matches!(intent.operation, Operation::Provision | Operation::Register)
}

/// Goes on with a registration that was interrupted, if it is the declared one.
fn registering(
    declared: &Declared,
    network: &Network,
    local: &Local,
    intent: &Intent,
) -> Result<Verdict, Block> {
    right_algorithm(declared, local)?;
    let same = intent.spec == declared.specification(algorithm_of(declared, local))
        && intent.place.network().is_ok_and(|there| there == *network);
    // Of an earlier wish the exchange has not heard before this stage.
    if !declared.enabled || !(same || intent.stage < Stage::Generated) {
        return Err(Block::Pending(intent.operation));
    }
    let action = match intent.operation {
        Operation::Register => Action::Register,
        _ => Action::Create,
    };
    Ok(Verdict::Steps(vec![Step {
        action,
        reach: Reach::Finishes,
    }]))
}

/// Judges a key that no exchange is known to have.
fn absent(
    row: &Row<'_>,
    local: &Local,
    survey: &Survey,
    claimed: &[ClientId],
) -> Result<Verdict, Block> {
    let declared = row.declared;
    right_algorithm(declared, local)?;
    if let Some(key) = row.key {
        return Err(Block::Unbound(key.client_id.clone()));
    }
    if !declared.enabled {
        return Ok(Verdict::Settled(Settled::NotThere));
    }
    let takes_the_label = |key: &&ApiKey| {
        key.name == declared.label.as_str()
            && key.enabled != Some(false)
            && !claimed.contains(&key.client_id)
    };
    if let Some(key) = survey.0.iter().find(takes_the_label) {
        return Err(Block::Label(key.client_id.clone()));
    }
    let action = if local.record.is_some() {
        Action::Register
    } else {
        Action::Create
    };
    Ok(Verdict::Steps(vec![Step {
        action,
        reach: Reach::New,
    }]))
}

/// Makes sure that a registered key is the one that the account has.
fn registered<'a>(
    row: &Row<'a>,
    known: &Registration,
    network: &Network,
    local: &Local,
    survey: &Survey,
) -> Result<&'a ApiKey, Block> {
    right_algorithm(row.declared, local)?;
    if known.network != *network {
        return Err(Block::OtherNetwork(known.network.clone()));
    }
    let id = known.client_id.clone();
    match row.key {
        Some(key) if key.client_id == id => Ok(key),
        Some(key) => Err(Block::OtherId {
            recorded: id,
            there: key.client_id.clone(),
        }),
        None if survey.by_client_id(&id).is_some() => Err(Block::OtherKey(id)),
        None => Err(Block::Missing(id)),
    }
}

/// Returns how a key in the account is not what is declared, in the words of the file.
fn differences(
    is: &Specification,
    enabled: bool,
    declared: &Declared,
    wish: &Specification,
) -> Vec<Difference> {
    let mut found = differences_of(is, wish);
    for difference in &mut found {
        if difference.field == "whitelist" {
            difference.field = "ip";
        }
    }
    if enabled != declared.enabled {
        found.push(Difference {
            field: "enabled",
            actual: Content::Flag(enabled),
            wanted: Content::Flag(declared.enabled),
        });
    }
    found
}

/// Returns the steps from a key to what is declared of it.
///
/// What is to be disabled is so before its settings are changed, and what is to be enabled after.
fn towards(
    is: &Specification,
    enabled: bool,
    declared: &Declared,
    wish: &Specification,
    differences: &[Difference],
) -> Vec<Step> {
    let step = |action, reach| Step { action, reach };
    let mut steps = Vec::new();
    if enabled && !declared.enabled {
        steps.push(step(Action::Disable, Reach::Less));
    }
    if differences.iter().any(|d| d.field != "enabled") {
        let reach = if gives_no_more(is, wish) {
            Reach::Less
        } else {
            Reach::More
        };
        steps.push(step(Action::Edit, reach));
    }
    if !enabled && declared.enabled {
        steps.push(step(Action::Enable, Reach::More));
    }
    steps
}

/// Judges steps beside an operation that is under way with the same key.
fn beside(
    intent: &Intent,
    wish: &Specification,
    declared: &Declared,
    mut steps: Vec<Step>,
) -> Result<Verdict, Block> {
    let operation = intent.operation;
    let finish = |action| Step {
        action,
        reach: Reach::Finishes,
    };
    match operation {
        Operation::Edit if intent.spec == *wish => {
            steps.retain(|step| step.action != Action::Edit);
            steps.insert(0, finish(Action::Edit));
        }
        Operation::Enable if declared.enabled => {
            steps.retain(|step| step.action != Action::Enable);
            steps.insert(0, finish(Action::Enable));
        }
        Operation::Disable if !declared.enabled => {
            steps.retain(|step| step.action != Action::Disable);
            steps.insert(0, finish(Action::Disable));
        }
        // The one takes the place of the other.
        Operation::Enable if steps.first().is_some_and(|s| s.action == Action::Disable) => {}
        // A rotation may be in its grace for a day, and nothing is wrong with that.
        Operation::Rotate | Operation::Rollback if steps.is_empty() => {
            return Ok(Verdict::Settled(Settled::UnderWay(operation)));
        }
        // A key is disabled whatever else is going on.
        Operation::Rotate | Operation::Rollback
            if steps.iter().all(|step| step.action == Action::Disable) => {}
        _ => return Err(Block::Pending(operation)),
    }
    Ok(Verdict::Steps(steps))
}

/// Refuses what takes the account from whoever manages it: `loses` is what an edit would do to that.
fn keeps_the_owner_in(
    verdict: &Verdict,
    key: &ApiKey,
    loses: bool,
    survey: &Survey,
    operator: &ClientId,
) -> Result<(), Block> {
    let Verdict::Steps(steps) = verdict else {
        return Ok(());
    };
    let has = |action| steps.iter().any(|step| step.action == action);
    if has(Action::Disable) || (has(Action::Edit) && loses) {
        return survey
            .lock_out(key, operator)
            .map_or(Ok(()), |why| Err(Block::LockOut(why)));
    }
    Ok(())
}
