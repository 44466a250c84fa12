//! An account as it was seen, the keys here beside it, and the plan that follows.

use super::Section;
use crate::{
    cli::{
        context::Context,
        failure::Failure,
        registry,
        remote::{self, Local as Kept},
    },
    exchange::{ApiKey, Area, ClientId},
    fleet::{self, Action, Block, Declared, Fleet, KEYS_OF_AN_ACCOUNT, Local, Row, Verdict},
    key::KeyName,
    provision::Survey,
};

/// An account as it was seen.
pub(super) struct View<'s> {
    pub(super) section: &'s Section<'s>,
    pub(super) survey: Survey,
    operator: ClientId,
    /// The keys here that belong to the network.
    kept: Vec<Kept>,
    /// The declared keys as they are here, in the order of the section; or why they cannot be read.
    locals: Vec<Result<Local, Failure>>,
    elsewhere: Vec<ClientId>,
}

impl<'s> View<'s> {
    pub(super) fn new(
        context: &Context,
        section: &'s Section<'s>,
        survey: Survey,
        operator: ClientId,
        fleet: &Fleet,
    ) -> Result<Self, Failure> {
        let locals = section.keys.iter().map(|key| here(context, &key.name));
        Ok(Self {
            section,
            survey,
            operator,
            kept: remote::locals(context, &section.network)?,
            locals: locals.collect(),
            elsewhere: fleet.elsewhere.clone(),
        })
    }

    fn claimed(&self) -> impl Iterator<Item = ClientId> {
        let locals = self.locals.iter().flatten();
        let known = locals.filter_map(|local| local.record.as_ref()?.registration.as_ref());
        known.map(|known| known.client_id.clone())
    }

    fn row<'v>(
        &'v self,
        declared: &'v Declared,
        local: &Result<Local, Failure>,
        claimed: &[ClientId],
    ) -> Row<'v> {
        let network = &self.section.network;
        match local {
            Ok(local) => fleet::compare(
                declared,
                network,
                local,
                &self.survey,
                &self.operator,
                claimed,
            ),
            Err(failure) => Row {
                declared,
                key: None,
                differences: Vec::new(),
                verdict: Verdict::Blocked(Block::Unreadable {
                    problem: failure.message().into(),
                    cure: failure.cure().into(),
                }),
            },
        }
    }
}

/// Reads what is here of a declared key.
pub(super) fn here(context: &Context, name: &KeyName) -> Result<Local, Failure> {
    let pending = context.store.intent(name)?;
    if !context.store.contains(name) {
        return Ok(Local {
            pending,
            ..Local::default()
        });
    }
    Ok(Local {
        record: Some(context.store.record(name)?),
        public: Some(context.store.public(name)?),
        pending,
    })
}

/// A key of the account that is not declared.
pub(super) struct Stray<'v> {
    pub(super) key: &'v ApiKey,
    /// What it is called here, if it is here.
    pub(super) name: Option<&'v KeyName>,
    /// Whether it is the generation of that name that is in use.
    pub(super) in_use: bool,
    /// Whether it is to be disabled.
    pub(super) is_pruned: bool,
}

impl Stray<'_> {
    pub(super) fn is_live(&self) -> bool {
        self.key.enabled != Some(false)
    }
}

/// What is to be done in one account.
pub(super) struct Plan<'v> {
    pub(super) view: &'v View<'v>,
    pub(super) rows: Vec<Row<'v>>,
    /// What was here when the plan was made, row by row.
    pub(super) locals: Vec<Option<&'v Local>>,
    pub(super) strays: Vec<Stray<'v>>,
}

/// Plans what is to be done in each account.
pub(super) fn plans<'v>(context: &Context, views: &'v [View<'v>], prune: bool) -> Vec<Plan<'v>> {
    let mut plans = Vec::new();
    for view in views {
        // Two administrators can be of the same account.
        let beside: Vec<&'v View<'v>> = views
            .iter()
            .filter(|other| other.section.network == view.section.network)
            .collect();
        let claimed: Vec<ClientId> = beside.iter().flat_map(|view| view.claimed()).collect();
        let keys = view.section.keys.iter().zip(&view.locals);
        let rows: Vec<Row<'_>> = keys
            .map(|(key, local)| view.row(key, local, &claimed))
            .collect();
        for row in &rows {
            context
                .output
                .detail(format!("{}: {:?}", row.declared.name, row.verdict));
        }
        plans.push(Plan {
            view,
            locals: view
                .locals
                .iter()
                .map(|local| local.as_ref().ok())
                .collect(),
            strays: strays(view, &beside, prune),
            rows,
        });
    }
    plans
}

fn strays<'v>(view: &'v View<'v>, beside: &[&'v View<'v>], prune: bool) -> Vec<Stray<'v>> {
    let is_declared = |name: &KeyName| {
        let mut keys = beside.iter().flat_map(|view| &view.section.keys);
        keys.any(|declared| declared.name == *name)
    };
    let manages = |key: &ApiKey, name: Option<&KeyName>| {
        let mut views = beside.iter();
        views.any(|view| {
            let is_named = name.is_some() && view.section.admin_name.as_ref() == name;
            is_named || view.operator == key.client_id
        })
    };
    // Even one whose registration was interrupted before anything was recorded.
    let is_ours = |key: &ApiKey| {
        let mut locals = beside.iter().flat_map(|view| view.locals.iter().flatten());
        locals.any(|local| local.public.as_ref().is_some_and(|public| key.is(public)))
    };
    let claimed: Vec<ClientId> = beside.iter().flat_map(|view| view.claimed()).collect();
    let mut strays = Vec::new();
    for key in &view.survey.0 {
        let kept = view.kept.iter().find(|kept| kept.is(key));
        let name = kept.map(|kept| &kept.name);
        let settled = manages(key, name)
            || is_ours(key)
            || claimed.contains(&key.client_id)
            || view.elsewhere.contains(&key.client_id);
        // A generation that another has taken the place of may be in its grace.
        let superseded = kept.is_some_and(|kept| {
            let grace = kept.known().is_some_and(|known| known.enabled);
            is_declared(&kept.name) && (kept.in_use || grace || key.enabled == Some(false))
        });
        if settled || superseded {
            continue;
        }
        strays.push(Stray {
            key,
            name,
            in_use: kept.is_some_and(|kept| kept.in_use),
            is_pruned: prune && key.enabled != Some(false),
        });
    }
    strays
}

impl Plan<'_> {
    /// How many keys would be changed.
    pub(super) fn changes(&self) -> usize {
        let rows = self.rows.iter().filter(|row| !row.steps().is_empty());
        let strays = self.strays.iter().filter(|stray| stray.is_pruned);
        rows.count() + strays.count()
    }

    /// How many keys are not as they are declared, or are enabled and not declared at all.
    pub(super) fn findings(&self) -> usize {
        let differs = |row: &&Row<'_>| !matches!(row.verdict, Verdict::Settled(_));
        let strays = self.strays.iter().filter(|stray| stray.is_live());
        self.rows.iter().filter(differs).count() + strays.count()
    }

    /// How many keys the account would hold in the end.
    pub(super) fn held(&self) -> usize {
        fleet::held(&self.rows, &self.view.survey)
    }

    pub(super) fn is_too_much(&self) -> bool {
        let now = self.view.survey.0.len();
        self.held() > KEYS_OF_AN_ACCOUNT && self.held() > now
    }

    pub(super) fn refuse_too_many(&self) -> Result<(), Failure> {
        if !self.is_too_much() {
            return Ok(());
        }
        Err(Failure::refused(format!(
            "{}: an account holds {KEYS_OF_AN_ACCOUNT} keys at most, and this one would hold {}",
            self.view.section.title,
            self.held()
        ))
        .hint(
            "nothing was changed; declare fewer keys, or another admin for some of them, or make room with \
             \"derikey remove\": a disabled key takes up room too",
        ))
    }

    /// The powers that would be given and were not there before: to whom, and what they mean.
    pub(super) fn powers(&self) -> Vec<(&KeyName, Area, &'static str)> {
        let mut given = Vec::new();
        for row in &self.rows {
            let has = row
                .key
                .map_or_else(Vec::new, |key| registry::powers(&key.max_scope));
            let gives = |action: &Action| {
                matches!(
                    action,
                    Action::Create | Action::Register | Action::Edit | Action::Enable
                )
            };
            if !row.steps().iter().any(|step| gives(&step.action)) {
                continue;
            }
            let enables = row.steps().iter().any(|step| step.action == Action::Enable);
            let powers = registry::powers(&row.declared.scope);
            let new = powers
                .into_iter()
                .filter(|power| enables || !has.contains(power));
            given.extend(new.map(|(area, what)| (&row.declared.name, area, what)));
        }
        given
    }
}
