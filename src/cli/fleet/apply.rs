//! A plan carried out, by the same paths as the commands that change one key.

use super::{
    Plan,
    report::{Outcome, Outcomes, Report},
    step,
    view::here,
    words::cure,
};
use crate::{
    cli::{args::Sealing, context::Context, failure::Failure, manage},
    exchange::{ApiKey, Https},
    fleet::{self, Local, Reach, Row, Settled, Step, Verdict},
    provision::Work,
};

/// One step of one key.
#[derive(Clone, Copy)]
enum Job {
    Row(usize, Step),
    Stray(usize),
}

impl Job {
    const fn reach(&self) -> Reach {
        match self {
            Self::Row(_, step) => step.reach,
            Self::Stray(_) => Reach::Less,
        }
    }
}

/// Carries plans out, account by account, and returns the first failure.
///
/// One key's failure stops nothing but that key, unless the others would meet with it too.
pub(super) async fn carry_out(
    context: &Context,
    plans: &[Plan<'_>],
    works: &mut [Work<'_, Https>],
    sealing: &Sealing,
    report: &mut Report<'_, '_>,
) -> Option<Failure> {
    report.is_applied = true;
    let mut first = None;
    let total: usize = plans.iter().map(Plan::changes).sum();
    let mut begun = 0;
    let mut is_interrupted = false;
    for ((plan, work), outcomes) in plans.iter().zip(works).zip(&mut report.outcomes) {
        let mut jobs: Vec<Job> = fleet::order(&plan.rows)
            .into_iter()
            .map(|(row, step)| Job::Row(row, step))
            .collect();
        let pruned = plan.strays.iter().enumerate();
        jobs.extend(
            pruned
                .filter(|(_, stray)| stray.is_pruned)
                .map(|(at, _)| Job::Stray(at)),
        );
        jobs.sort_by_key(Job::reach);
        let mut locals: Vec<Option<Local>> =
            plan.locals.iter().map(|local| local.cloned()).collect();
        let mut stopped = is_interrupted;
        for job in jobs {
            let Some(outcome) = outcome_of(outcomes, job) else {
                continue;
            };
            if stopped {
                if matches!(outcome, Outcome::Untouched) {
                    *outcome = Outcome::Left;
                }
                continue;
            }
            match outcome {
                Outcome::Failed { .. } | Outcome::Left => continue,
                Outcome::Untouched => begun += 1,
                Outcome::Done => {}
            }
            context
                .output
                .remark(format!("{} ({begun} of {total})", title(plan, job)));
            let result = take(context, plan, work, sealing, job, &mut locals).await;
            let Some(outcome) = outcome_of(outcomes, job) else {
                continue;
            };
            let Err(failure) = result else {
                *outcome = Outcome::Done;
                continue;
            };
            let failure = failure.about(&title(plan, job));
            context.output.remark(failure.message());
            *outcome = Outcome::failed(&failure);
            stopped = failure.is_everywhere();
            is_interrupted |= failure.kind() == "interrupted";
            first.get_or_insert(failure);
        }
        let known = locals.into_iter().map(|local| local?.record?.registration);
        outcomes.known = known.collect();
        if !stopped {
            refresh(context, plan);
        }
    }
    first.or_else(|| blocked(plans))
}

fn outcome_of(outcomes: &mut Outcomes, job: Job) -> Option<&mut Outcome> {
    match job {
        Job::Row(row, _) => outcomes.rows.get_mut(row),
        Job::Stray(at) => outcomes.strays.get_mut(at),
    }
}

fn title(plan: &Plan<'_>, job: Job) -> String {
    match job {
        Job::Row(row, step) => {
            let name = plan
                .rows
                .get(row)
                .map_or("", |row| row.declared.name.as_str());
            format!("{name}: {}", step.action.as_str())
        }
        Job::Stray(at) => {
            let stray = plan.strays.get(at);
            let id = stray.map_or("", |stray| stray.key.client_id.as_str());
            format!("{id}: disable")
        }
    }
}

/// What stands in the way of a key is a failure of its own, once all others are seen to.
fn blocked(plans: &[Plan<'_>]) -> Option<Failure> {
    let rows = plans.iter().flat_map(|plan| &plan.rows);
    let mut blocks = rows.filter_map(|row| match &row.verdict {
        Verdict::Blocked(block) => Some((&row.declared.name, block)),
        _ => None,
    });
    let (name, block) = blocks.next()?;
    let others = match blocks.count() {
        0 => String::new(),
        more => format!(", and {more} more cannot be settled either"),
    };
    let failure = Failure::refused(format!("{name}: {block}{others}"));
    Some(failure.hint(cure(block, name)))
}

async fn take(
    context: &Context,
    plan: &Plan<'_>,
    work: &mut Work<'_, Https>,
    sealing: &Sealing,
    job: Job,
    locals: &mut [Option<Local>],
) -> Result<(), Failure> {
    match job {
        Job::Stray(at) => match plan.strays.get(at) {
            Some(stray) => step::prune(context, plan, work, stray).await,
            None => Ok(()),
        },
        Job::Row(at, step) => {
            let (Some(row), Some(Some(local))) = (plan.rows.get(at), locals.get_mut(at)) else {
                return Ok(());
            };
            let name = &row.declared.name;
            let _lock = context.lock(name)?;
            if here(context, name)? != *local {
                return Err(Failure::try_again(format!("{name} was changed meanwhile"))
                    .hint("look at the plan again: nothing was done to it"));
            }
            let turn = step::Turn {
                context,
                network: &plan.view.section.network,
                row,
                local,
                sealing,
            };
            let result = turn.take(work, step).await;
            // Whatever came of it, the next step begins from there.
            if let Ok(now) = here(context, name) {
                *local = now;
            }
            result
        }
    }
}

/// Writes down what the account has, where that is what is declared and not what is recorded.
fn refresh(context: &Context, plan: &Plan<'_>) {
    for (row, local) in plan.rows.iter().zip(&plan.locals) {
        let as_declared = matches!(row.verdict, Verdict::Settled(Settled::AsDeclared));
        let (true, Some(key), Some(local)) = (as_declared, row.key, local) else {
            continue;
        };
        if let Err(failure) = record(context, row, key, local) {
            // The key is as it should be; `list --remote` goes on saying that its record is not.
            context.output.remark(failure.message());
        }
    }
}

fn record(context: &Context, row: &Row<'_>, key: &ApiKey, local: &Local) -> Result<(), Failure> {
    let Some(record) = &local.record else {
        return Ok(());
    };
    let mut seen = manage::as_seen(record, key);
    if let (Some(known), Some(enabled)) = (&mut seen.registration, key.enabled) {
        known.enabled = enabled;
    }
    if seen == *record {
        return Ok(());
    }
    let name = &row.declared.name;
    let _lock = context.lock(name)?;
    if here(context, name)? == *local {
        let generation = context.store.current(name)?;
        context.store.write_record(name, generation, &seen)?;
    }
    Ok(())
}
