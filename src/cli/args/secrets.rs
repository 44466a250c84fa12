//! Where secrets come from, as it can be typed: flags name places, and never hold a secret.

use std::path::PathBuf;

use clap::Args;

use crate::{key::Kdf, secret::keep_from_children};

/// How a new private file is sealed.
#[derive(Args, Debug)]
pub(in crate::cli) struct Sealing {
    #[command(flatten)]
    pub(in crate::cli) passphrase: PassphraseArgs,
    #[command(flatten)]
    pub(in crate::cli) plain: Plain,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Plain {
    /// Passphrase function of the private file
    #[arg(long, default_value = "scrypt", value_parser = kdf())]
    pub(in crate::cli) kdf: Kdf,
    /// Write the private key in clear; only together with --insecure
    #[arg(long)]
    pub(in crate::cli) no_passphrase: bool,
    /// Yes, in clear; only together with --no-passphrase
    #[arg(long)]
    pub(in crate::cli) insecure: bool,
}

impl Sealing {
    /// For a key that is there: its file is opened, and none is written.
    pub(in crate::cli) fn for_opening(passphrase: PassphraseArgs) -> Self {
        Self {
            passphrase,
            plain: Plain {
                kdf: Kdf::default(),
                no_passphrase: false,
                insecure: false,
            },
        }
    }
}

macro_rules! secret_source {
    ($name:ident, $what:literal, $file:literal, $fd:literal, $command:literal) => {
        #[derive(Args, Clone, Debug, Default)]
        pub(in crate::cli) struct $name {
            #[doc = concat!("File with ", $what)]
            #[arg(long = $file, value_name = "FILE", conflicts_with_all = [$fd, $command], id = $file)]
            pub(in crate::cli) file: Option<PathBuf>,
            #[doc = concat!("Open file descriptor to read ", $what, " from")]
            #[arg(long = $fd, value_name = "N", conflicts_with = $command, id = $fd,
                value_parser = descriptor)]
            pub(in crate::cli) fd: Option<i32>,
            #[doc = concat!("Program, run without a shell, that prints ", $what)]
            #[arg(long = $command, value_name = "CMD", id = $command)]
            pub(in crate::cli) command: Option<String>,
        }
    };
}

secret_source!(
    PassphraseArgs,
    "the passphrase",
    "passphrase-file",
    "passphrase-fd",
    "passphrase-command"
);
secret_source!(
    NewPassphraseArgs,
    "the new passphrase",
    "new-passphrase-file",
    "new-passphrase-fd",
    "new-passphrase-command"
);
secret_source!(
    InputPassphraseArgs,
    "the passphrase of the file to import",
    "input-passphrase-file",
    "input-passphrase-fd",
    "input-passphrase-command"
);
secret_source!(
    AdminSecretArgs,
    "the administrator's secret",
    "admin-secret-file",
    "admin-secret-fd",
    "admin-secret-command"
);
secret_source!(
    AdminPassphraseArgs,
    "the passphrase of the administrator's key",
    "admin-passphrase-file",
    "admin-passphrase-fd",
    "admin-passphrase-command"
);

/// Who manages keys, and the second factor for it.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Administrator")]
pub(in crate::cli) struct AdminArgs {
    /// Key in the keystore that manages the account's keys
    #[arg(long, value_name = "NAME", conflicts_with = "admin_client_id")]
    pub(in crate::cli) admin: Option<String>,
    /// Client id of a symmetric key that manages the account's keys; its secret never travels
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) admin_client_id: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) secret: AdminSecretArgs,
    #[command(flatten)]
    pub(in crate::cli) passphrase: AdminPassphraseArgs,
    #[command(flatten)]
    pub(in crate::cli) second: SecondFactorArgs,
}

/// Where one-time codes come from.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Second factor")]
pub(in crate::cli) struct SecondFactorArgs {
    /// Open file descriptor with one-time codes, one a line, read when they are needed
    #[arg(long, value_name = "N", conflicts_with_all = ["totp_command", "totp_seed_file"],
        value_parser = descriptor)]
    pub(in crate::cli) totp_fd: Option<i32>,
    /// Program, run without a shell, that prints a one-time code
    #[arg(long, value_name = "CMD", conflicts_with = "totp_seed_file")]
    pub(in crate::cli) totp_command: Option<String>,
    /// File with the base32 seed that one-time codes come from
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) totp_seed_file: Option<PathBuf>,
}

/// Reads the number of a descriptor, and keeps what is behind it from every program that is started
/// from here on: one for another secret may run before this one is read.
fn descriptor(text: &str) -> Result<i32, String> {
    let number = text.parse().ok().filter(|number| *number >= 0);
    let number = number.ok_or("a descriptor is a number from 0 on")?;
    // Whether it is open is told when it is read.
    let _ = keep_from_children(number);
    Ok(number)
}

fn kdf() -> impl clap::builder::TypedValueParser<Value = Kdf> {
    use clap::builder::TypedValueParser;
    clap::builder::PossibleValuesParser::new(["scrypt", "pbkdf2"])
        .try_map(|text| text.parse::<Kdf>())
}
