//! What a plan says, and what came of it, as one JSON object.

use serde_json::{Value, json};

use super::{
    Plan,
    view::Stray,
    words::{cure, settled},
};
use crate::{
    cli::{answer, context::Context, failure::Failure},
    fleet::{Declared, Row, Verdict},
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

    pub(super) const fn as_str(&self) -> Option<&'static str> {
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
    pub(super) plans: &'p [Plan<'v>],
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
                answer::merge(&mut value, json!({"network": network, "admin": admin}));
                keys.push(self.with_outcome(value, outcome));
            }
            for (stray, outcome) in plan.strays.iter().zip(&outcomes.strays) {
                let mut value = about_stray(stray);
                answer::merge(&mut value, json!({"network": network}));
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
            answer::merge(&mut value, json!({"dry_run": true}));
        }
        if self.is_applied {
            let (done, failed, left) = self.counts();
            let came_of_it =
                json!({"changed": done > 0, "done": done, "failed": failed, "left": left});
            answer::merge(&mut value, came_of_it);
        }
        value
    }

    fn with_outcome(&self, mut value: Value, outcome: &Outcome) -> Value {
        if self.is_applied {
            answer::merge(&mut value, json!({"outcome": outcome.as_str()}));
        }
        if let Outcome::Failed {
            kind,
            message,
            hint,
        } = outcome
        {
            let failure = json!({"kind": kind, "message": message, "hint": hint});
            answer::merge(&mut value, json!({"failure": failure}));
        }
        value
    }

    /// How many keys are done, failed, and were left.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        (self.count("done"), self.count("failed"), self.count("left"))
    }

    fn count(&self, what: &str) -> usize {
        let rows = self
            .outcomes
            .iter()
            .flat_map(|o| o.rows.iter().chain(&o.strays));
        rows.filter(|outcome| outcome.as_str() == Some(what))
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
