//! `panic`: everything that matches is disabled, and what could not be reached is named.

use serde_json::{Value, json};

use super::{
    answer,
    args::Panic,
    connect::{Office, runtime_for},
    context::{Context, now},
    failure::Failure,
    manage,
};
use crate::{
    exchange::{ApiKey, ClientId, Network},
    key::KeyName,
    provision::Swept,
    store::{Entry, Operation},
};

const LONGEST_PATTERN: usize = 256;

/// What became of the keys that match.
#[derive(Default)]
struct Report {
    disabled: Vec<Value>,
    already: Vec<Value>,
    spared: Vec<Value>,
    not_reached: Vec<Value>,
    /// Whether the account was looked at in the end.
    verified: bool,
    /// How many keys of the account could not be read.
    others: usize,
    failure: Option<Failure>,
    /// What the audit log is to say.
    tried: Vec<Tried>,
}

/// A key that was to be disabled, its name here, and what came of it.
struct Tried {
    client_id: ClientId,
    name: Option<KeyName>,
    outcome: &'static str,
}

pub(super) fn panic(context: &Context, args: &Panic) -> Result<(), Failure> {
    let network = context.network()?;
    let pattern = &args.pattern;
    if pattern.len() > LONGEST_PATTERN {
        return Err(
            Failure::usage(format!("the pattern has more than {LONGEST_PATTERN} bytes"))
                .hint("a label has 16 at most; * stands for any of them"),
        );
    }
    if !context.global.dry_run {
        let why = format!("every key that matches {pattern:?} on {network} would be disabled");
        context.confirm(&why, "panic")?;
    }
    let report = runtime_for(context)?.block_on(disable(context, args, &network))?;
    let mut audited = Ok(());
    if !context.global.dry_run {
        audited = write_down(context, &network, &report);
    }
    let value = json!({
        "disabled": report.disabled,
        "already": report.already,
        "spared": report.spared,
        "not_reached": report.not_reached,
        "verified": report.verified,
        "dry_run": context.global.dry_run,
    });
    context
        .output
        .result(&value, || in_words(&report, context.global.dry_run))?;
    let Some(failure) = report.failure else {
        // All there is can be nothing; what was named is meant to be there.
        if pattern != "*" && report.is_empty() && report.others == 0 {
            return Err(
                Failure::findings(format!("no key of the account matches {pattern:?}")).hint(
                    "\"derikey list --remote\" shows names, labels and client ids; nothing was disabled",
                ),
            );
        }
        if report.others > 0 {
            let others = report.others;
            return Err(
                Failure::network(format!("{others} of the account's keys cannot be read"))
                    .hint("the others are disabled; look at these in the web form"),
            );
        }
        return audited.map_err(|failure| failure.about("the audit log does not have it"));
    };
    let names: Vec<String> = report.not_reached.iter().map(named).collect();
    let mut cure = format!(
        "{}; then run \"derikey panic\" again: what is disabled stays so",
        failure.cure()
    );
    if let Err(unwritten) = audited {
        cure += &format!("; the audit log does not have it: {}", unwritten.message());
    }
    Err(failure
        .about(&format!("not reached: {}", names.join(", ")))
        .hint(cure))
}

/// Writes down each key that was to be disabled; where there was none, that it was tried.
fn write_down(context: &Context, network: &Network, report: &Report) -> Result<(), Failure> {
    let network = network.to_string();
    let line = |outcome| {
        let mut entry = Entry::new(now(), "panic", outcome);
        entry.network = Some(&network);
        entry
    };
    let tried = report.tried.iter().map(|tried| {
        let mut entry = line(tried.outcome);
        entry.key = tried.name.as_ref();
        entry.client_id = Some(&tried.client_id);
        entry
    });
    let mut entries: Vec<Entry<'_>> = tried.collect();
    if report.others > 0 {
        entries.push(line("unfinished"));
    } else if entries.is_empty() {
        entries.push(line("nothing to disable"));
    }
    Ok(context.store.audit_all(entries)?)
}

async fn disable(context: &Context, args: &Panic, network: &Network) -> Result<Report, Failure> {
    let mut office = Office::open(context, network, &args.admin, &args.passphrase).await?;
    let mut work = manage::work_of(context, &mut office);
    let (survey, others) = work.survey_legible().await?;
    let operator = work.desk.operator().client_id().clone();
    let pattern = &args.pattern;
    let mut report = Report {
        others,
        ..Report::default()
    };
    let (mut targets, mut already): (Vec<&ApiKey>, Vec<&ApiKey>) = Default::default();
    for key in &survey.0 {
        // A keystore that cannot be read is no reason to stop.
        let named_so_here = || {
            let here = manage::local_of(context, network, key).ok().flatten();
            here.is_some_and(|(name, ..)| glob(pattern, name.as_str()))
        };
        let named_so = glob(pattern, &key.name) || glob(pattern, key.client_id.as_str());
        if !named_so && !named_so_here() {
            continue;
        }
        if key.enabled == Some(false) {
            report.already.push(about(key));
            already.push(key);
        } else if key.client_id == operator && !args.lock_out.i_will_lock_myself_out {
            report.spared.push(about(key));
        } else {
            targets.push(key);
        }
    }
    if context.global.dry_run {
        report.disabled = targets.into_iter().map(about).collect();
        return Ok(report);
    }
    // One that is disabled already may be about to be enabled.
    for key in already.into_iter().chain(targets.iter().copied()) {
        forestall(context, network, key);
    }
    if targets.is_empty() {
        return Ok(report);
    }
    let swept = work.sweep(&targets).await?;
    report.verified = others == 0 && swept.iter().all(|one| one.enabled.is_some());
    for one in swept {
        report.add(context, network, one);
    }
    Ok(report)
}

/// Strikes out what would enable a key again, and says what else is under way with it.
fn forestall(context: &Context, network: &Network, key: &ApiKey) {
    let here = manage::local_of(context, network, key).ok().flatten();
    let Some((name, ..)) = here else {
        return;
    };
    let struck = manage::give_up_enabling(context, &name, &key.client_id);
    manage::said(
        context,
        struck.map_err(|failure| failure.about(name.as_str())),
    );
    if let Ok(Some(meanwhile)) = manage::beside(context, &name, Operation::Disable) {
        context.output.remark(meanwhile);
    }
}

impl Report {
    /// Tells whether no key matched.
    fn is_empty(&self) -> bool {
        let lists = [
            &self.disabled,
            &self.already,
            &self.spared,
            &self.not_reached,
        ];
        lists.into_iter().all(Vec::is_empty)
    }

    fn add(&mut self, context: &Context, network: &Network, one: Swept<'_>) {
        let Swept {
            key,
            failure,
            enabled,
        } = one;
        let local = manage::local_of(context, network, key).ok().flatten();
        let name = local.map(|(name, ..)| name);
        // What is disabled matters more than the record of it.
        if (failure.is_none() || enabled == Some(false))
            && let Err(failure) = manage::note(context, network, key, false)
        {
            let id = &key.client_id;
            manage::said(context, Err(failure.about(id.as_str())));
        }
        let mut about = about(key);
        let failure = failure.map(Failure::from);
        self.tried.push(Tried {
            client_id: key.client_id.clone(),
            name,
            outcome: failure.as_ref().map_or("done", Failure::kind),
        });
        let Some(failure) = failure else {
            self.disabled.push(about);
            return;
        };
        let why = json!({"why": failure.message(), "kind": failure.kind(), "enabled": enabled});
        answer::merge(&mut about, why);
        self.not_reached.push(about);
        self.failure.get_or_insert(failure);
    }
}

fn about(key: &ApiKey) -> Value {
    json!({"client_id": key.client_id, "key_id": key.id, "label": key.name})
}

fn word<'a>(about: &'a Value, field: &str) -> &'a str {
    about.get(field).and_then(Value::as_str).unwrap_or("-")
}

fn named(about: &Value) -> String {
    format!("{} ({})", word(about, "client_id"), word(about, "label"))
}

fn in_words(report: &Report, dry_run: bool) -> String {
    let say = |list: &[Value], what: &str| -> String {
        let line = |key: &Value| {
            format!(
                "{what}: {} {}\n",
                word(key, "client_id"),
                word(key, "label")
            )
        };
        list.iter().map(line).collect()
    };
    let not_reached: String = report
        .not_reached
        .iter()
        .map(|key| {
            // What the account shows is what a person does next about it.
            let now = match key.get("enabled").and_then(Value::as_bool) {
                Some(true) => "the account shows it enabled",
                Some(false) => "but the account shows it disabled",
                None => "nobody could look whether it is enabled",
            };
            format!(
                "NOT REACHED: {} {}: {}; {now}\n",
                word(key, "client_id"),
                word(key, "label"),
                word(key, "why")
            )
        })
        .collect();
    let text = say(&report.disabled, "disabled")
        + &say(&report.already, "disabled before")
        + &say(&report.spared, "in use, left enabled")
        + &not_reached
        + match report.disabled.is_empty() || report.verified || dry_run {
            true => "",
            false => {
                "nobody could look at the account afterwards: the exchange said of each that it is disabled\n"
            }
        };
    if text.is_empty() {
        "no key matches".into()
    } else {
        text
    }
}

/// Matches with `*` for any text and `?` for any one character.
///
/// Only the last `*` ever takes more: what those before it took fits as well as any.
fn glob(pattern: &str, text: &str) -> bool {
    let (mut wanted, mut rest) = (pattern.chars(), text.chars());
    // What follows the last star, and the text from where that may begin.
    let mut star = None;
    loop {
        let here = rest.clone();
        match (wanted.next(), rest.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                star = Some((wanted.clone(), here.clone()));
                rest = here;
            }
            (Some(w), Some(c)) if w == '?' || w == c => {}
            _ => {
                let Some((after, left)) = &mut star else {
                    return false;
                };
                if left.next().is_none() {
                    return false;
                }
                (wanted, rest) = (after.clone(), left.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn a_star_is_any_text_and_a_question_mark_any_character() {
        for (pattern, fits, others) in [
            ("", &[""][..], &["a"][..]),
            ("*", &["", "a", "bot_1"], &[]),
            ("bot", &["bot"], &["", "bo", "bots", "abot"]),
            ("bot*", &["bot", "bot_1"], &["abot", "bo"]),
            ("*bot", &["bot", "a_bot", "botbot"], &["bots"]),
            ("b?t", &["bot", "b*t"], &["bt", "boot"]),
            (
                "a*b*c",
                &["abc", "aXbXc", "abbcc", "abcbc"],
                &["ab", "acb", "abcd"],
            ),
            ("*a*?", &["ab", "xaxx", "aa"], &["a", "xxa", "xx"]),
        ] {
            assert!(fits.iter().all(|text| glob(pattern, text)), "{pattern}");
            assert!(!others.iter().any(|text| glob(pattern, text)), "{pattern}");
        }
    }

    #[test]
    fn many_stars_take_no_longer_than_one() {
        let pattern = "*a".repeat(100) + "*b";
        assert!(!glob(&pattern, &"a".repeat(64)));
    }
}
