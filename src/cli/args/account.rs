//! What can be typed for an account's keys as they are.

use clap::{Args, Subcommand};

use super::{
    keys::Name,
    secrets::{AdminArgs, PassphraseArgs},
};

#[derive(Args, Debug)]
pub(in crate::cli) struct List {
    /// Also the account's keys, matched with those here
    #[arg(long)]
    pub(in crate::cli) remote: bool,
    /// Exit with 10 when something does not match
    #[arg(long, requires = "remote")]
    pub(in crate::cli) exit_code: bool,
    #[command(flatten)]
    pub(in crate::cli) passphrase: PassphraseArgs,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Edit {
    #[command(flatten)]
    pub(in crate::cli) name: Name,
    /// New rights
    #[arg(long, value_name = "SCOPE")]
    pub(in crate::cli) scope: Option<String>,
    /// New label
    #[arg(long)]
    pub(in crate::cli) label: Option<String>,
    /// New whitelist, in place of the old one; may be given several times
    #[arg(long, value_name = "ADDR", conflicts_with_all = ["add_ip", "remove_ip"])]
    pub(in crate::cli) ip: Vec<String>,
    /// Address to add to the whitelist
    #[arg(long, value_name = "ADDR")]
    pub(in crate::cli) add_ip: Vec<String>,
    /// Address to take from the whitelist
    #[arg(long, value_name = "ADDR")]
    pub(in crate::cli) remove_ip: Vec<String>,
    /// Pass addresses through that are not plain IPv4
    #[arg(long)]
    pub(in crate::cli) unchecked_ip: bool,
    /// New features, in place of the old ones; may be given several times; `none` takes all away
    #[arg(long, value_name = "FEATURE")]
    pub(in crate::cli) feature: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) lock_out: LockOut,
    #[command(flatten)]
    pub(in crate::cli) passphrase: PassphraseArgs,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct LockOut {
    /// Do it even to the key in use or the last one that can manage keys
    #[arg(long)]
    pub(in crate::cli) i_will_lock_myself_out: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Target {
    /// Name of a key, or id:7, or client:ID
    #[arg(value_name = "NAME|id:N|client:ID")]
    pub(in crate::cli) target: String,
    #[command(flatten)]
    pub(in crate::cli) lock_out: LockOut,
    #[command(flatten)]
    pub(in crate::cli) passphrase: PassphraseArgs,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Panic {
    /// Only keys whose name here, label or client id matches, with * and ?
    #[arg(long = "match", value_name = "GLOB", default_value = "*")]
    pub(in crate::cli) pattern: String,
    #[command(flatten)]
    pub(in crate::cli) lock_out: LockOut,
    #[command(flatten)]
    pub(in crate::cli) passphrase: PassphraseArgs,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Doctor {
    /// Look at this machine only
    #[arg(long)]
    pub(in crate::cli) offline: bool,
    #[command(flatten)]
    pub(in crate::cli) passphrase: PassphraseArgs,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct ScopeArgs {
    #[command(subcommand)]
    pub(in crate::cli) what: ScopeCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ScopeCommand {
    /// The areas, the levels and the presets
    List,
    /// What a key with these rights can do, and cannot
    Explain {
        /// Rights or a preset
        scope: String,
    },
    /// Warn about rights that are more than usual
    Lint {
        /// Rights or a preset
        scope: String,
        /// A preset that should be enough
        #[arg(long, value_name = "PRESET")]
        preset: Option<String>,
    },
}
