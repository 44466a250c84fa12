//! What a plan says, and what came of it: one JSON object, or lines for people.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{
    Plan,
    view::{Stray, cure, settled},
};
use crate::{
    cli::{context::Context, failure::Failure},
    fleet::{Declared, Row, Verdict},
    provision::Content,
    store::Registration,
};

/// What came of a key.
#[derive(Debug, Default)]
pub(super) enum Outcome {
    /// Nothing was to be done, or nothing was tried.
    #[default]
    Untouched,
    /// All of it was done.
    Done,
    /// It failed.
    Failed {
        kind: &'static str,
        message: String,
        hint: String,
    },
    /// Something before it failed in a way that it would have met with too.
    Left,
}

impl Outcome {
    pub(super) fn failed(failure: &Failure) -> Self {
        Self::Failed {
            kind: failure.kind(),
            message: failure.message().into(),
            hint: failure.cure().into(),
        }
    }

    const fn as_str(&self) -> Option<&'static str> {
        match self {
            Self::Untouched => None,
            Self::Done => Some("done"),
            Self::Failed { .. } => Some("failed"),
            Self::Left => Some("left"),
        }
    }
}

/// The outcomes of one account, in the order of its plan.
pub(super) struct Outcomes {
    pub(super) rows: Vec<Outcome>,
    pub(super) strays: Vec<Outcome>,
    /// What is recorded of a key now, where something was done to it.
    pub(super) known: Vec<Option<Registration>>,
}

/// Plans, and what came of them.
pub(super) struct Report<'p, 'v> {
    plans: &'p [Plan<'v>],
    pub(super) outcomes: Vec<Outcomes>,
    /// Whether anything was to be carried out.
    pub(super) is_applied: bool,
}

impl<'p, 'v> Report<'p, 'v> {
    pub(super) fn of(plans: &'p [Plan<'v>]) -> Self {
        let untouched = |plan: &Plan<'_>| Outcomes {
            rows: plan.rows.iter().map(|_| Outcome::Untouched).collect(),
            strays: plan.strays.iter().map(|_| Outcome::Untouched).collect(),
            known: plan.rows.iter().map(|_| None).collect(),
        };
        Self {
            plans,
            outcomes: plans.iter().map(untouched).collect(),
            is_applied: false,
        }
    }

    pub(super) fn print(&self, context: &Context) -> Result<(), Failure> {
        context.output.result(&self.value(context), || self.text())
    }

    fn value(&self, context: &Context) -> Value {
        let (mut accounts, mut keys, mut undeclared) = (Vec::new(), Vec::new(), Vec::new());
        for (plan, outcomes) in self.plans.iter().zip(&self.outcomes) {
            let section = plan.view.section;
            let (network, admin) = (section.network.name(), &section.admin_name);
            accounts.push(json!({
                "network": network,
                "endpoint": section.network.endpoint().map(|endpoint| endpoint.to_string()),
                "admin": admin,
                "held": plan.view.survey.0.len(),
                "would_hold": plan.held(),
                "too_many": plan.is_too_much(),
            }));
            for ((row, outcome), known) in plan.rows.iter().zip(&outcomes.rows).zip(&outcomes.known)
            {
                let mut value = about(row, known.as_ref());
                value["network"] = network.into();
                value["admin"] = json!(admin);
                keys.push(self.with_outcome(value, outcome));
            }
            for (stray, outcome) in plan.strays.iter().zip(&outcomes.strays) {
                let mut value = about_stray(stray);
                value["network"] = network.into();
                undeclared.push(self.with_outcome(value, outcome));
            }
        }
        let changes: usize = self.plans.iter().map(Plan::changes).sum();
        let findings: usize = self.plans.iter().map(Plan::findings).sum();
        let mut networks: Vec<&str> = self
            .plans
            .iter()
            .map(|plan| plan.view.section.network.name())
            .collect();
        networks.dedup();
        let network = match networks.as_slice() {
            [one] => Some(*one),
            _ => None,
        };
        let mut value = json!({
            "network": network,
            "changes": changes,
            "findings": findings,
            "accounts": accounts,
            "keys": keys,
            "undeclared": undeclared,
        });
        if context.global.dry_run {
            value["dry_run"] = true.into();
        }
        if self.is_applied {
            value["changed"] = (self.count("done") > 0).into();
            value["done"] = self.count("done").into();
            value["failed"] = self.count("failed").into();
            value["left"] = self.count("left").into();
        }
        value
    }

    fn with_outcome(&self, mut value: Value, outcome: &Outcome) -> Value {
        if self.is_applied {
            value["outcome"] = json!(outcome.as_str());
        }
        if let Outcome::Failed {
            kind,
            message,
            hint,
        } = outcome
        {
            value["failure"] = json!({"kind": kind, "message": message, "hint": hint});
        }
        value
    }

    fn count(&self, what: &str) -> usize {
        let rows = self
            .outcomes
            .iter()
            .flat_map(|o| o.rows.iter().chain(&o.strays));
        rows.filter(|outcome| outcome.as_str() == Some(what))
            .count()
    }

    /// Writes all of it for people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (plan, outcomes) in self.plans.iter().zip(&self.outcomes) {
            let now = plan.view.survey.0.len();
            let _ = writeln!(text, "{}: {now} of 8 keys", plan.view.section.title);
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
                    "  it would hold {} keys, and holds 8 at most: nothing will be changed",
                    plan.held()
                );
            }
        }
        text + &self.sum()
    }

    /// Says in one line what all of it comes to.
    fn sum(&self) -> String {
        if self.is_applied {
            let (done, failed, left) =
                (self.count("done"), self.count("failed"), self.count("left"));
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

fn about(row: &Row<'_>, known: Option<&Registration>) -> Value {
    let (action, reason, cure) = match &row.verdict {
        Verdict::Settled(why) => ("nothing", settled(*why), None),
        Verdict::Steps(steps) => {
            let first = steps.first().map_or("nothing", |step| step.action.as_str());
            (first, None, None)
        }
        Verdict::Blocked(block) => {
            let cure = cure(block, &row.declared.name);
            ("blocked", Some(block.to_string()), Some(cure))
        }
    };
    let steps: Vec<&str> = row
        .steps()
        .iter()
        .map(|step| step.action.as_str())
        .collect();
    let differences: Vec<Value> = row
        .differences
        .iter()
        .map(|d| json!({"field": d.field, "declared": d.wanted, "actual": d.actual}))
        .collect();
    let there = row.key.map(|key| (&key.client_id, Some(key.id)));
    let there = known
        .map(|known| (&known.client_id, known.key_id))
        .or(there);
    json!({
        "name": row.declared.name,
        "action": action,
        "steps": steps,
        "differences": differences,
        "reason": reason,
        "cure": cure,
        "client_id": there.map(|(client_id, _)| client_id),
        "key_id": there.and_then(|(_, id)| id),
        "declared": declared(row.declared),
    })
}

fn declared(declared: &Declared) -> Value {
    json!({
        "scope": declared.scope,
        "label": declared.label,
        "ip": declared.whitelist,
        "features": declared.features,
        "algorithm": declared.algorithm,
        "enabled": declared.enabled,
    })
}

fn about_stray(stray: &Stray<'_>) -> Value {
    json!({
        "name": stray.name,
        "client_id": stray.key.client_id,
        "key_id": stray.key.id,
        "label": stray.key.name,
        "max_scope": stray.key.max_scope,
        "enabled": stray.key.enabled,
        "action": if stray.is_pruned { "disable" } else { "nothing" },
    })
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
