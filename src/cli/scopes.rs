//! Rights in words: what a key can do, and what is more than it needs.

use serde_json::json;

use super::{args::ScopeCommand, context::Context, failure::Failure};
use crate::exchange::{Area, Level, PRESETS, Scope};

pub(super) fn scope(context: &Context, command: &ScopeCommand) -> Result<(), Failure> {
    match command {
        ScopeCommand::List => list(context),
        ScopeCommand::Explain { scope } => explain(context, &scope.parse()?),
        ScopeCommand::Lint { scope, preset } => lint(context, &scope.parse()?, preset.as_deref()),
    }
}

fn list(context: &Context) -> Result<(), Failure> {
    let areas: Vec<_> = Area::KNOWN
        .iter()
        .map(|area| json!({"area": area.as_str(), "read": words(area, Level::Read), "read_write": words(area, Level::ReadWrite)}))
        .collect();
    let presets: Vec<_> = PRESETS
        .iter()
        .map(|(name, scope)| json!({"preset": name, "scope": scope}))
        .collect();
    context
        .output
        .result(&json!({"areas": areas, "presets": presets}), || {
            let areas = Area::KNOWN.iter().map(|area| {
                let (name, read, write) = (
                    area.as_str(),
                    words(area, Level::Read),
                    words(area, Level::ReadWrite),
                );
                format!("{name}:read        {read}\n{name}:read_write  {write}\n")
            });
            let presets = PRESETS
                .iter()
                .map(|(name, scope)| format!("{name}  {scope}\n"));
            areas.chain(["\n".into()]).chain(presets).collect()
        })
}

/// Says what a level of an area means for whoever holds the key.
const fn words(area: &Area, level: Level) -> &'static str {
    match (area, level) {
        (_, Level::None) => "nothing",
        (Area::Account, Level::Read) => "see balances, settings and the account's keys",
        (Area::Account, Level::ReadWrite) => {
            "change settings and sub-accounts; make, change and remove keys"
        }
        (Area::Trade, Level::Read) => "see orders, trades and positions",
        (Area::Trade, Level::ReadWrite) => "place, change and cancel orders",
        (Area::Wallet, Level::Read) => "see deposits, withdrawals, transfers and addresses",
        (Area::Wallet, Level::ReadWrite) => "withdraw and transfer funds, change the address book",
        (Area::BlockTrade, Level::Read) => "see block trades",
        (Area::BlockTrade, Level::ReadWrite) => "agree and execute block trades",
        (Area::BlockRfq, Level::Read) => "see requests for quotes of blocks",
        (Area::BlockRfq, Level::ReadWrite) => {
            "ask for and give quotes of blocks, and trade on them"
        }
        (Area::Custody, Level::Read) => "see custody accounts",
        (Area::Custody, Level::ReadWrite) => "move funds of custody accounts",
        (Area::Other(_), _) => "something that this version does not know",
    }
}

fn explain(context: &Context, scope: &Scope) -> Result<(), Failure> {
    let mut can = Vec::new();
    let mut cannot = Vec::new();
    for area in &Area::KNOWN {
        let level = scope.level(area);
        if level > Level::None {
            can.push(words(area, Level::Read));
        }
        match level {
            Level::ReadWrite => can.push(words(area, Level::ReadWrite)),
            _ => cannot.push(words(area, Level::ReadWrite)),
        }
        if level == Level::None {
            cannot.push(words(area, Level::Read));
        }
    }
    let value = json!({"scope": scope, "can": can, "cannot": cannot});
    context.output.result(&value, || {
        let lines = |head: &str, what: &[&str]| match what {
            [] => String::new(),
            what => what.iter().fold(format!("{head}:\n"), |text, line| {
                format!("{text}  {line}\n")
            }),
        };
        lines("a key with this scope can", &can) + &lines("it cannot", &cannot)
    })
}

/// Returns what is worth a second thought about a scope.
pub(super) fn warnings(scope: &Scope, preset: Option<&Scope>) -> Vec<String> {
    let mut found = Vec::new();
    if scope.level(&Area::Wallet) == Level::ReadWrite {
        found.push("wallet:read_write can withdraw; a bot that trades needs none of it".into());
    }
    if scope.level(&Area::Account) == Level::ReadWrite {
        found.push(
            "account:read_write can make and change keys; only an administrator's key needs it"
                .into(),
        );
    }
    if scope.level(&Area::Custody) == Level::ReadWrite {
        found.push("custody:read_write can move funds".into());
    }
    if let Some(preset) = preset {
        for (area, level) in scope
            .allowed()
            .filter(|(area, level)| *level > preset.level(area))
        {
            let enough = preset.level(area).as_str();
            found.push(format!(
                "{0}:{1} is more than the preset's {0}:{enough}",
                area.as_str(),
                level.as_str()
            ));
        }
    }
    found
}

fn lint(context: &Context, scope: &Scope, preset: Option<&str>) -> Result<(), Failure> {
    let preset: Option<Scope> = match preset {
        Some(name) if PRESETS.iter().any(|(preset, _)| *preset == name) => Some(name.parse()?),
        Some(name) => {
            return Err(Failure::usage(format!("there is no preset {name:?}"))
                .hint("\"derikey scope list\" shows them"));
        }
        None => None,
    };
    let found = warnings(scope, preset.as_ref());
    let value = json!({"scope": scope, "warnings": found});
    context.output.result(&value, || {
        if found.is_empty() {
            "nothing to say against it".into()
        } else {
            found.join("\n")
        }
    })?;
    match found.len() {
        0 => Ok(()),
        n => Err(Failure::findings(format!("{n} warnings about {scope}"))
            .hint("leave out what the key does not need")),
    }
}
