//! What can be typed for a declared fleet.

use std::path::PathBuf;

use clap::Args;

use super::secrets::{AdminArgs, PassphraseArgs, Sealing};

#[derive(Args, Debug)]
pub(in crate::cli) struct FleetFile {
    /// The declared fleet; `-` reads standard input
    #[arg(short = 'f', long, value_name = "FLEET.toml")]
    pub(in crate::cli) file: PathBuf,
}

#[derive(Args, Debug)]
#[command(after_long_help = "\
A fleet file, all of whose fields but scope may be left out:
  [defaults]
  network = \"test\"                # with custom: endpoint = \"https://HOST/api/v2\"
  admin = \"boss\"                  # a key here that manages the account
  scope = \"@read-only\"

  [keys.bot_1]
  scope = \"account:read trade:read_write\"
  ip = [\"203.0.113.7\"]
  [keys.bot_2]
  enabled = false                 # also label, features, algorithm, unchecked_ip

Examples:
  derikey plan -f FLEET.toml
  derikey --json plan -f FLEET.toml | jq .changes")]
pub(in crate::cli) struct PlanArgs {
    #[command(flatten)]
    pub(in crate::cli) fleet: FleetFile,
    #[command(flatten)]
    pub(in crate::cli) prune: Prune,
    #[command(flatten)]
    pub(in crate::cli) passphrase: PassphraseArgs,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Args, Debug)]
#[command(after_long_help = "\
What was interrupted is finished first, then rights are taken away and keys disabled, then keys
are made, and last are rights given: wherever it stops, nothing can do more than before or than
is declared. Run it again to go on; a second run changes nothing.

Examples:
  derikey apply -f FLEET.toml
  derikey apply -f FLEET.toml --yes --passphrase-file FILE --totp-seed-file FILE
  derikey apply -f FLEET.toml --prune        # disables enabled keys that are not declared")]
pub(in crate::cli) struct ApplyArgs {
    #[command(flatten)]
    pub(in crate::cli) fleet: FleetFile,
    #[command(flatten)]
    pub(in crate::cli) prune: Prune,
    #[command(flatten)]
    pub(in crate::cli) sealing: Sealing,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Args, Debug)]
#[command(after_long_help = "\
Exits with 0 if all is as it is declared, and with 10 if anything is not: a key that differs, is
missing or cannot be mended by itself, or an enabled key that is not declared. List the client
ids of keys that are managed elsewhere at the top of the file: elsewhere = [\"CLIENT_ID\"].

Examples:
  derikey drift -f FLEET.toml
  derikey --json drift -f FLEET.toml || mail -s drift ops@example.com")]
pub(in crate::cli) struct DriftArgs {
    #[command(flatten)]
    pub(in crate::cli) fleet: FleetFile,
    #[command(flatten)]
    pub(in crate::cli) passphrase: PassphraseArgs,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Prune {
    /// Disable enabled keys of the accounts that are not declared; none is ever removed
    #[arg(long)]
    pub(in crate::cli) prune: bool,
}
