//! What can be typed where one key takes the place of another.

use clap::Args;

use super::{
    keys::Name,
    secrets::{AdminArgs, Sealing},
};
use crate::provision::LONGEST_GRACE;

#[derive(Args, Debug)]
pub(in crate::cli) struct Rotate {
    /// Name of the key
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub(in crate::cli) name: Option<String>,
    /// Every registered key of the network; one failure does not stop the others
    #[arg(long)]
    pub(in crate::cli) all: bool,
    /// With --all, only keys older than this, such as 90d
    #[arg(long, value_name = "DURATION", requires = "all", conflicts_with = "name", value_parser = humantime::parse_duration)]
    pub(in crate::cli) older_than: Option<std::time::Duration>,
    /// How long the old key stays enabled, such as 24h; "derikey resume" ends it
    #[arg(long, value_name = "DURATION", value_parser = grace)]
    pub(in crate::cli) grace: Option<std::time::Duration>,
    #[command(flatten)]
    pub(in crate::cli) hook: HookArgs,
    /// Take the old key away at the exchange in the end; without this it stays, disabled
    #[arg(long)]
    pub(in crate::cli) remove_old: bool,
    #[command(flatten)]
    pub(in crate::cli) sealing: Sealing,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct HookArgs {
    /// Program, run without a shell, that is told of the new key: JSON on standard input,
    /// DERIKEY_* variables, never a secret; its failure rolls back
    #[arg(long, value_name = "CMD")]
    pub(in crate::cli) deploy_hook: Option<String>,
    /// How long that program may take before it counts as failed, such as 5m [default: 60s]
    #[arg(long, value_name = "DURATION", requires = "deploy_hook", value_parser = hook_timeout)]
    pub(in crate::cli) hook_timeout: Option<std::time::Duration>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Rollback {
    #[command(flatten)]
    pub(in crate::cli) name: Name,
    #[command(flatten)]
    pub(in crate::cli) hook: HookArgs,
    #[command(flatten)]
    pub(in crate::cli) sealing: Sealing,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

fn hook_timeout(text: &str) -> Result<std::time::Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if !(1..=86_400).contains(&time.as_secs()) {
        return Err("a second is the shortest, a day the longest".into());
    }
    Ok(time)
}

fn grace(text: &str) -> Result<std::time::Duration, String> {
    let grace = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if grace > LONGEST_GRACE {
        return Err("a year is the longest".into());
    }
    Ok(grace)
}
