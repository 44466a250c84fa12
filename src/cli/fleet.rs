//! `plan`, `apply` and `drift`: a declared fleet beside the accounts that it lives in.

use super::{
    args::{AdminArgs, ApplyArgs, DriftArgs, FleetFile, PassphraseArgs, PlanArgs},
    connect::{Office, runtime_for},
    context::{Context, wants_plain},
    failure::Failure,
    inputs::or_stdin,
    manage,
};
use crate::{
    exchange::{Https, Network},
    fleet::{Declared, Fleet, Site},
    key::KeyName,
    provision::Work,
    store::{self, Trust},
};

mod apply;
mod report;
mod step;
mod view;
mod words;

use apply::carry_out;
use report::Report;
use view::{Plan, View};

/// The largest fleet file that is read; a thousand keys fit in.
const LARGEST: usize = 1024 * 1024;

pub(super) fn plan(context: &Context, args: &PlanArgs) -> Result<(), Failure> {
    let fleet = read(&args.fleet)?;
    let sections = sections(context, &args.fleet, &fleet, &args.admin)?;
    runtime_for(context)?.block_on(async {
        let mut offices = open(context, &sections, &args.passphrase).await?;
        let (views, _) = look(context, &sections, &mut offices, &fleet).await?;
        let plans = view::plans(context, &views, args.prune.prune);
        Report::of(&plans).print(context)
    })
}

pub(super) fn drift(context: &Context, args: &DriftArgs) -> Result<(), Failure> {
    let fleet = read(&args.fleet)?;
    let sections = sections(context, &args.fleet, &fleet, &args.admin)?;
    runtime_for(context)?.block_on(async {
        let mut offices = open(context, &sections, &args.passphrase).await?;
        let (views, _) = look(context, &sections, &mut offices, &fleet).await?;
        let plans = view::plans(context, &views, false);
        Report::of(&plans).print(context)?;
        match plans.iter().map(Plan::findings).sum::<usize>() {
            0 => Ok(()),
            1 => Err(drifted("1 key is".into(), &args.fleet)),
            many => Err(drifted(format!("{many} keys are"), &args.fleet)),
        }
    })
}

fn drifted(who: String, fleet: &FleetFile) -> Failure {
    Failure::findings(format!("{who} not as declared")).hint(format!(
        "\"derikey apply -f {}\" mends what it can, and \"derikey plan\" says what that is",
        fleet.file.display()
    ))
}

pub(super) fn apply(context: &Context, args: &ApplyArgs) -> Result<(), Failure> {
    let fleet = read(&args.fleet)?;
    wants_plain(&args.sealing.plain)?;
    let sections = sections(context, &args.fleet, &fleet, &args.admin)?;
    runtime_for(context)?.block_on(async {
        let mut offices = open(context, &sections, &args.sealing.passphrase).await?;
        let (views, mut works) = look(context, &sections, &mut offices, &fleet).await?;
        let plans = view::plans(context, &views, args.prune.prune);
        if context.global.dry_run {
            return Report::of(&plans).print(context);
        }
        for plan in &plans {
            plan.refuse_too_many()?;
        }
        confirm(context, &plans)?;
        let mut report = Report::of(&plans);
        let failure = carry_out(context, &plans, &mut works, &args.sealing, &mut report).await;
        report.print(context)?;
        failure.map_or(Ok(()), Err)
    })
}

/// Reads the file before anything else is touched.
fn read(args: &FleetFile) -> Result<Fleet, Failure> {
    let shown = args.file.display().to_string();
    let bytes = store::read(or_stdin(&args.file), LARGEST, Trust::Orders).map_err(unreadable)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| {
        Failure::configuration(format!("{shown} is not UTF-8")).hint("is it the right file?")
    })?;
    Fleet::parse(text).map_err(|error| Failure::from(error).about(&shown))
}

fn unreadable(error: store::Error) -> Failure {
    use store::Error as E;
    let message = error.to_string();
    match error {
        E::Exposed { path, .. } => Failure::key(message).hint(format!(
            "everybody could have written it: look whether it says what you mean, then chmod o-w '{}'",
            path.display()
        )),
        E::NotAFile { .. } => {
            Failure::configuration(message).hint("name a file, or - for standard input")
        }
        E::TooLarge { .. } => Failure::configuration(message).hint("is it the right file?"),
        _ => Failure::configuration(message).hint("check the path and its permissions"),
    }
}

/// The declared keys of one account: one network, one administrator, one listing.
struct Section<'f> {
    network: Network,
    /// Who manages it, in words for people.
    title: String,
    /// The key that manages it, where the file or a flag names one.
    admin_name: Option<KeyName>,
    admin: AdminArgs,
    keys: Vec<&'f Declared>,
}

/// Sorts the declared keys by network and administrator.
fn sections<'f>(
    context: &Context,
    file: &FleetFile,
    fleet: &'f Fleet,
    typed: &AdminArgs,
) -> Result<Vec<Section<'f>>, Failure> {
    let shown = file.file.display().to_string();
    let settle = |declared: &Declared| network_of(context, declared);
    let settled = fleet
        .settle(settle)
        .map_err(|failure| failure.about(&shown))?;
    let mut sections: Vec<Section<'f>> = Vec::new();
    for (network, declared) in settled {
        refuse_two_administrators(declared, typed).map_err(|failure| failure.about(&shown))?;
        let same = |section: &&mut Section<'_>| {
            section.network == network && section.admin_name == declared.admin
        };
        if let Some(section) = sections.iter_mut().find(same) {
            section.keys.push(declared);
            continue;
        }
        let admin = match &declared.admin {
            None => typed.clone(),
            Some(name) => AdminArgs {
                admin: Some(name.to_string()),
                ..typed.clone()
            },
        };
        let title = match &declared.admin {
            None => network.to_string(),
            Some(name) => format!("{network}, administrator {name}"),
        };
        sections.push(Section {
            network,
            title,
            admin_name: declared.admin.clone(),
            admin,
            keys: vec![declared],
        });
    }
    Ok(sections)
}

/// Returns where a key is to live: the file comes first, and may not be contradicted.
fn network_of(context: &Context, declared: &Declared) -> Result<Network, Failure> {
    let network = match &declared.site {
        Site::Unsaid => return context.network(),
        Site::Custom => context.network_of("custom")?,
        Site::On(network) => network.clone(),
    };
    context.check_network(&declared.name, &network)?;
    Ok(network)
}

/// An administrator that was typed for a whole file is not that of another account.
fn refuse_two_administrators(declared: &Declared, typed: &AdminArgs) -> Result<(), Failure> {
    let Some(name) = &declared.admin else {
        return Ok(());
    };
    let other = match (&typed.admin, &typed.admin_client_id) {
        (Some(admin), _) if admin != name.as_str() => admin,
        (None, Some(id)) => id,
        _ => return Ok(()),
    };
    Err(Failure::refused(format!(
        "{} is of the account that {name} manages, and {other:?} was named",
        declared.name
    ))
    .hint("leave --admin and --admin-client-id out, or admin in the file"))
}

/// Opens an office for each account; nothing is sent yet.
async fn open<'c>(
    context: &'c Context,
    sections: &[Section<'_>],
    passphrase: &PassphraseArgs,
) -> Result<Vec<Office<'c>>, Failure> {
    let mut offices = Vec::new();
    for section in sections {
        let office = Office::open(context, &section.network, &section.admin, passphrase).await;
        offices.push(office.map_err(|failure| failure.about(&section.title))?);
    }
    Ok(offices)
}

/// Looks at each account, once, and keeps its desk open.
async fn look<'s, 'w>(
    context: &'w Context,
    sections: &'s [Section<'s>],
    offices: &'w mut [Office<'_>],
    fleet: &Fleet,
) -> Result<(Vec<View<'s>>, Vec<Work<'w, Https>>), Failure> {
    let (mut views, mut works) = (Vec::new(), Vec::new());
    for (section, office) in sections.iter().zip(offices) {
        context
            .output
            .remark(format!("looking at the account on {}", section.title));
        let mut work = manage::work_of(context, office);
        let survey = work.survey().await;
        let survey = survey.map_err(|error| Failure::from(error).about(&section.title))?;
        let operator = work.desk.operator().client_id().clone();
        views.push(View::new(context, section, survey, operator, fleet)?);
        works.push(work);
    }
    Ok((views, works))
}

/// Shows what would be done, and has it agreed to.
fn confirm(context: &Context, plans: &[Plan<'_>]) -> Result<(), Failure> {
    let changes: usize = plans.iter().map(Plan::changes).sum();
    if changes == 0 {
        return Ok(());
    }
    let text = Report::of(plans).text();
    let noun = if changes == 1 { "key" } else { "keys" };
    let why = format!("{changes} {noun} would be changed");
    context.confirm_shown(&text, &why, "apply")?;
    for plan in plans {
        for (name, area, what) in plan.powers() {
            context.confirm(&format!("{name}: {what}"), area.as_str())?;
        }
    }
    Ok(())
}
