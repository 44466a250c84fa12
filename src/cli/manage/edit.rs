//! `edit`: rights, label, whitelist and features, merged into what the exchange has.

use serde_json::json;

use super::{
    begin, find, intend, outcome, refuse_foreign, refuse_lock_out, refuse_pending, registered,
    work_of,
};
use crate::{
    cli::{
        answer,
        args::Edit,
        audit,
        connect::{Office, runtime_for},
        context::Context,
        failure::Failure,
        keys, registry,
    },
    exchange::{ApiKey, Setting},
    key::KeyName,
    provision::{self, Change, Content, Difference, as_it_is, differences_of, shuts_out},
    store::{Operation, Record, Specification},
};

pub(in crate::cli) fn edit(context: &Context, args: &Edit) -> Result<(), Failure> {
    let name: KeyName = args.name.name.parse()?;
    let change = change_of(args)?;
    let record = context.store.record(&name)?;
    let known = registered(&name, record.registration.as_ref())?;
    context.check_network(&name, &known.network)?;
    let _lock = context.lock(&name)?;
    refuse_pending(context, &name)?;
    // Somebody else may have been at it while this waited.
    let record = context.store.record(&name)?;
    let known = registered(&name, record.registration.as_ref())?;
    let intent = runtime_for(context)?.block_on(async {
        let mut office =
            Office::open(context, &known.network, &args.admin, &args.passphrase).await?;
        let mut work = work_of(context, &mut office);
        let survey = work.survey_with(&known.client_id).await?;
        let key = find(&survey, known)?;
        refuse_foreign(context, &name, key)?;
        refuse_to_garble(&name, key, &change)?;
        let recorded = known.specification(record.algorithm);
        let is = as_it_is(key, &recorded);
        // Of one that was adopted without a look at the account, nothing is recorded that it could
        // differ from.
        let recorded = if known.key_id.is_some() {
            recorded
        } else {
            is.clone()
        };
        let wish = provision::merge(&is, &change);
        let differences = differences_of(&is, &wish);
        for line in &differences {
            context.output.remark(line.to_string());
        }
        let is_changed = |drift: &Difference| differences.iter().any(|d| d.field == drift.field);
        for line in differences_of(&is, &recorded) {
            if !is_changed(&line) {
                context.output.remark(kept(&line));
            }
        }
        if context.global.dry_run || differences.is_empty() {
            let steps: Vec<String> = differences
                .iter()
                .map(|d| format!("would change {d}"))
                .collect();
            // It is so already, which need not be what is recorded.
            let seen = as_seen(&record, key);
            if !context.global.dry_run && seen != record {
                confirm_widening(context, &name, &[&recorded, &is], &wish)?;
                let generation = context.store.current(&name)?;
                context.store.write_record(&name, generation, &seen)?;
                let (network, public) = (&known.network, context.store.public(&name)?);
                let done: Result<(), Failure> = Ok(());
                audit::outcome(context, "edit", &name, network, Some(&public), &done)?;
            }
            let mut value = keys::about(context, &name)?;
            answer::merge(
                &mut value,
                json!({"dry_run": context.global.dry_run, "changed": false, "steps": steps}),
            );
            let text = || {
                if steps.is_empty() {
                    "nothing to change".into()
                } else {
                    steps.join("\n")
                }
            };
            context.output.result(&value, text)?;
            return Ok(None);
        }
        confirm_widening(context, &name, &[&is, &recorded], &wish)?;
        let operator = work.desk.operator().client_id();
        let narrows = key.max_scope.manages_keys() && !wish.scope.manages_keys();
        // Whether this host is on it, nobody here knows.
        let shuts_out = key.client_id == *operator && shuts_out(&is.whitelist, &wish.whitelist);
        if (narrows || shuts_out) && !args.lock_out.i_will_lock_myself_out {
            refuse_lock_out(&survey, key, operator)?;
        }
        let intent = intend(
            Operation::Edit,
            &name,
            context.store.current(&name)?,
            known,
            key,
            wish,
        );
        let done = begin(context, &mut work, &intent, &known.network).await;
        done.map(|()| Some(intent))
    })?;
    match intent {
        None => Ok(()),
        Some(intent) => {
            let value = outcome(context, &intent)?;
            context.output.result(&value, || answer::lines(&value))
        }
    }
}

fn change_of(args: &Edit) -> Result<Change, Failure> {
    let parse = |typed: &[String]| registry::addresses(typed, args.unchecked_ip);
    let change = Change {
        scope: args.scope.as_deref().map(str::parse).transpose()?,
        label: args
            .label
            .as_deref()
            .map(str::parse::<KeyName>)
            .transpose()?
            .map(|l| l.to_string()),
        whitelist: (!args.ip.is_empty()).then(|| parse(&args.ip)).transpose()?,
        add: parse(&args.add_ip)?,
        remove: parse(&args.remove_ip)?,
        features: registry::features(&args.feature)?,
    };
    let nothing = change.scope.is_none()
        && change.label.is_none()
        && change.whitelist.is_none()
        && change.features.is_none()
        && change.add.is_empty()
        && change.remove.is_empty();
    if nothing {
        return Err(Failure::usage("nothing to change was named")
            .hint("add --scope, --label, --ip, --add-ip, --remove-ip or --feature"));
    }
    Ok(change)
}

/// Refuses to send back what could not be shown and is therefore not what the exchange has.
pub(in crate::cli) fn refuse_to_garble(
    name: &KeyName,
    key: &ApiKey,
    change: &Change,
) -> Result<(), Failure> {
    for setting in &key.tamed {
        let (what, flag, is_replaced) = match setting {
            Setting::Scope => ("scope", "--scope", change.scope.is_some()),
            Setting::Label => ("label", "--label", change.label.is_some()),
            Setting::Whitelist => ("whitelist", "--ip", change.whitelist.is_some()),
            Setting::Features => ("features", "--feature", change.features.is_some()),
        };
        if !is_replaced {
            return Err(Failure::refused(format!(
                "the {what} of {name} at the exchange cannot be kept as it is: it holds what cannot be shown"
            ))
            .hint(format!(
                "whatever is sent is sent whole, so give it anew: derikey edit {name} {flag} ..."
            )));
        }
    }
    Ok(())
}

/// Says of a setting that somebody has changed there, and that is left so.
pub(in crate::cli) fn kept(drift: &Difference) -> String {
    format!("what the exchange has is kept, not what is recorded here: {drift}")
}

/// Makes sure that more rights, rights without a whitelist or a restriction less are meant: more than it has there, or
/// more than it was known to have.
fn confirm_widening(
    context: &Context,
    name: &KeyName,
    before: &[&Specification],
    wish: &Specification,
) -> Result<(), Failure> {
    let mut reasons = Vec::new();
    if let Some(less) = before.iter().find(|was| !wish.scope.is_within(&was.scope)) {
        reasons.push(format!(
            "have more rights: {} -> {}",
            less.scope, wish.scope
        ));
    }
    if wish.whitelist.is_empty() && before.iter().any(|was| !was.whitelist.is_empty()) {
        reasons.push("be usable from any address".into());
    }
    if let Some(was) = before
        .iter()
        .find(|was| !provision::keeps(&was.features, &wish.features))
    {
        let (is, wish) = (
            Content::features(&was.features),
            Content::features(&wish.features),
        );
        reasons.push(format!(
            "lose a feature, which can be a restriction: {is} -> {wish}"
        ));
    }
    if reasons.is_empty() {
        return Ok(());
    }
    context.confirm(
        &format!("{name} would {}", reasons.join(", and ")),
        name.as_str(),
    )
}

/// Returns a record with what the exchange has in the place of what was recorded.
pub(in crate::cli) fn as_seen(record: &Record, key: &ApiKey) -> Record {
    let mut seen = record.clone();
    if let Some(known) = &mut seen.registration {
        let is = as_it_is(key, &known.specification(record.algorithm));
        known.key_id = Some(key.id);
        known.label = is.label;
        known.scope = is.scope;
        known.whitelist = is.whitelist;
        known.features = is.features;
    }
    seen
}
