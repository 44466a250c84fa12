//! What can be typed for keys on their way to an exchange.

use clap::Args;

use super::{
    keys::{Name, algorithm},
    secrets::{AdminArgs, PassphraseArgs, Sealing, SecondFactorArgs},
    signing::SignerArgs,
};
use crate::key::Algorithm;

#[derive(Args, Debug)]
pub(in crate::cli) struct Wish {
    /// Rights: AREA:none|read|read_write, separated by blanks, or a preset such as @read-only
    #[arg(long, value_name = "SCOPE")]
    pub(in crate::cli) scope: String,
    /// Label at the exchange [default: NAME]
    #[arg(long)]
    pub(in crate::cli) label: Option<String>,
    /// IPv4 address that the key may be used from; may be given several times
    #[arg(long, value_name = "ADDR")]
    pub(in crate::cli) ip: Vec<String>,
    /// Pass addresses through that are not plain IPv4
    #[arg(long)]
    pub(in crate::cli) unchecked_ip: bool,
    /// Feature of the key; may be given several times; `none`, which is the default, for no feature
    #[arg(long, value_name = "FEATURE")]
    pub(in crate::cli) feature: Vec<String>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Provision {
    #[command(flatten)]
    pub(in crate::cli) name: Name,
    #[command(flatten)]
    pub(in crate::cli) wish: Wish,
    /// Kind of key
    #[arg(long, default_value = "ed25519", value_parser = algorithm())]
    pub(in crate::cli) algorithm: Algorithm,
    #[command(flatten)]
    pub(in crate::cli) sealing: Sealing,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Register {
    #[command(flatten)]
    pub(in crate::cli) name: Name,
    #[command(flatten)]
    pub(in crate::cli) wish: Wish,
    #[command(flatten)]
    pub(in crate::cli) held: SignerArgs,
    #[command(flatten)]
    pub(in crate::cli) passphrase: PassphraseArgs,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Adopt {
    #[command(flatten)]
    pub(in crate::cli) name: Name,
    /// Client id that the web form showed; without it, what to paste there is printed
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) client_id: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) held: SignerArgs,
    #[command(flatten)]
    pub(in crate::cli) passphrase: PassphraseArgs,
    #[command(flatten)]
    pub(in crate::cli) second: SecondFactorArgs,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Resume {
    /// Only this key [default: all]
    pub(in crate::cli) name: Option<String>,
    /// Give it up instead: what it has made is taken back as far as that goes
    #[arg(long, requires = "name")]
    pub(in crate::cli) abandon: bool,
    #[command(flatten)]
    pub(in crate::cli) sealing: Sealing,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}
