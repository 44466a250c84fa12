//! A plan, and what came of it, for people: a line for each key.

use std::fmt::Write;

use super::{
    Plan,
    report::{Outcome, Report},
    view::Stray,
};
use crate::{
    fleet::{Block, KEYS_OF_AN_ACCOUNT, Row, Settled, Verdict},
    key::KeyName,
    provision::Content,
};

impl Report<'_, '_> {
    /// Writes all of it for people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (plan, outcomes) in self.plans.iter().zip(&self.outcomes) {
            let now = plan.view.survey.0.len();
            let _ = writeln!(
                text,
                "{}: {now} of {KEYS_OF_AN_ACCOUNT} keys",
                plan.view.section.title
            );
            for (row, outcome) in plan.rows.iter().zip(&outcomes.rows) {
                text.push_str(&line(
                    &word(row, outcome),
                    row.declared.name.as_str(),
                    &details(row),
                ));
                text.push_str(&failed(outcome));
            }
            for (stray, outcome) in plan.strays.iter().zip(&outcomes.strays) {
                let word = outcome.as_str().unwrap_or(if stray.is_pruned {
                    "disable"
                } else {
                    "undeclared"
                });
                let name = stray
                    .name
                    .map_or_else(|| stray.key.name.as_str(), |name| name.as_str());
                text.push_str(&line(word, name, &[stray_in_words(stray)]));
                text.push_str(&failed(outcome));
            }
            if plan.is_too_much() {
                let _ = writeln!(
                    text,
                    "  it would hold {} keys, and holds {KEYS_OF_AN_ACCOUNT} at most: nothing will be changed",
                    plan.held()
                );
            }
        }
        text + &self.sum()
    }

    /// Says in one line what all of it comes to.
    fn sum(&self) -> String {
        if self.is_applied {
            let (done, failed, left) = self.counts();
            return match (done, failed + left + self.blocked()) {
                (0, 0) => "nothing to do".into(),
                (_, 0) => format!("{done} changed"),
                _ => format!(
                    "{done} changed, {failed} failed, {left} left, {} to be settled by hand",
                    self.blocked()
                ),
            };
        }
        let changes: usize = self.plans.iter().map(Plan::changes).sum();
        let undeclared: usize = self.plans.iter().map(|plan| plan.strays.len()).sum();
        format!(
            "{changes} to change, {} to be settled by hand, {undeclared} not declared",
            self.blocked()
        )
    }

    fn blocked(&self) -> usize {
        let rows = self.plans.iter().flat_map(|plan| &plan.rows);
        rows.filter(|row| matches!(row.verdict, Verdict::Blocked(_)))
            .count()
    }
}

fn stray_in_words(stray: &Stray<'_>) -> String {
    let state = if stray.is_live() {
        "enabled"
    } else {
        "disabled"
    };
    let key = stray.key;
    format!(
        "not declared: {} (id {}), {state}, {}",
        key.client_id, key.id, key.max_scope
    )
}

fn word(row: &Row<'_>, outcome: &Outcome) -> String {
    let steps: Vec<&str> = row
        .steps()
        .iter()
        .map(|step| step.action.as_str())
        .collect();
    let planned = match &row.verdict {
        Verdict::Settled(_) => "nothing".into(),
        Verdict::Blocked(_) => "blocked".into(),
        Verdict::Steps(_) => steps.join("+"),
    };
    outcome.as_str().map_or(planned, str::to_owned)
}

fn details(row: &Row<'_>) -> Vec<String> {
    match &row.verdict {
        Verdict::Settled(why) => vec![settled(*why).unwrap_or_default()],
        Verdict::Blocked(block) => {
            let mut said = vec![block.to_string(), cure(block, &row.declared.name)];
            said.extend(row.differences.iter().map(ToString::to_string));
            said
        }
        Verdict::Steps(_) if row.differences.is_empty() => {
            let wish = row.declared;
            let from = match Content::whitelist(&wish.whitelist) {
                Content::List(list) if list.is_empty() => "any address".into(),
                list => list.to_string(),
            };
            vec![format!("{}; from {from}", wish.scope)]
        }
        Verdict::Steps(_) => row.differences.iter().map(ToString::to_string).collect(),
    }
}

/// Lays a word, a name and what there is to say of them out in lines.
fn line(word: &str, name: &str, details: &[String]) -> String {
    let mut text = format!("  {word:<12} {name:<16}");
    for (at, detail) in details.iter().enumerate() {
        if at > 0 {
            let _ = write!(text, "\n{:<31}", "");
        }
        let _ = write!(text, " {detail}");
    }
    text.trim_end().to_owned() + "\n"
}

fn failed(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Failed { message, hint, .. } => format!("{:<31} {message}; {hint}\n", ""),
        _ => String::new(),
    }
}

/// Says in words why nothing is to be done.
pub(super) fn settled(settled: Settled) -> Option<String> {
    match settled {
        Settled::AsDeclared => None,
        Settled::NotThere => Some("it is not there, and is not to be enabled".into()),
        Settled::UnderWay(operation) => Some(format!("{} is under way", operation.as_str())),
    }
}

/// Says how what stands in the way is settled.
pub(super) fn cure(block: &Block, name: &KeyName) -> String {
    match block {
        Block::Pending(_) => {
            format!("derikey resume {name} finishes it, or gives it up with --abandon")
        }
        Block::Algorithm { is, .. } => format!(
            "no key changes its algorithm: declare algorithm = \"{is}\", or declare another key"
        ),
        Block::OtherNetwork(network) => format!(
            "declare it on {network}, or another key on this network: a key belongs to one for ever"
        ),
        Block::Missing(_) => format!(
            "is the administrator of another account? if it was removed there: derikey delete {name}, and \
             the next apply makes another"
        ),
        Block::OtherKey(_) => format!(
            "restore the key pair that was registered from a backup or from trash/; or derikey delete {name}"
        ),
        Block::OtherId { .. } => format!("restore the key.toml of {name} from a backup"),
        Block::Unbound(id) => format!("derikey adopt {name} --client-id {id}"),
        Block::Label(id) => format!(
            "if its private half is somewhere, import and adopt it; if not: derikey remove client:{id}, \
             or declare another label"
        ),
        Block::LockOut(_) => "use another administrator for that".into(),
        Block::Unreadable { cure, .. } => cure.clone(),
    }
}
