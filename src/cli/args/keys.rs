//! What can be typed for keys on this machine.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::secrets::{InputPassphraseArgs, NewPassphraseArgs, PassphraseArgs, Plain, Sealing};
use crate::key::Algorithm;

/// A key in the keystore.
#[derive(Args, Debug)]
pub(in crate::cli) struct Name {
    /// Name of the key: 1 to 16 letters, digits or underscores
    pub(in crate::cli) name: String,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Which {
    /// Name of a key, or a file with a slash or a dot in its path
    #[arg(value_name = "NAME|FILE")]
    pub(in crate::cli) which: String,
    #[command(flatten)]
    pub(in crate::cli) passphrase: PassphraseArgs,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct FingerprintOf {
    #[command(flatten)]
    pub(in crate::cli) which: Which,
    /// Which digest; the exchange uses MD5
    #[arg(long, value_enum, default_value = "md5")]
    pub(in crate::cli) hash: Hash,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(in crate::cli) enum Hash {
    Md5,
    Sha256,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Generate {
    #[command(flatten)]
    pub(in crate::cli) name: Name,
    /// Kind of key
    #[arg(long, default_value = "ed25519", value_parser = algorithm())]
    pub(in crate::cli) algorithm: Algorithm,
    #[command(flatten)]
    pub(in crate::cli) sealing: Sealing,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Import {
    #[command(flatten)]
    pub(in crate::cli) name: Name,
    /// PKCS#8, PKCS#1 or OpenSSH, PEM or DER; `-` reads standard input
    pub(in crate::cli) file: PathBuf,
    #[command(flatten)]
    pub(in crate::cli) sealing: Sealing,
    #[command(flatten)]
    pub(in crate::cli) input: InputPassphraseArgs,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Passwd {
    #[command(flatten)]
    pub(in crate::cli) name: Name,
    #[command(flatten)]
    pub(in crate::cli) passphrase: PassphraseArgs,
    #[command(flatten)]
    pub(in crate::cli) new: NewPassphraseArgs,
    #[command(flatten)]
    pub(in crate::cli) plain: Plain,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Export {
    #[command(flatten)]
    pub(in crate::cli) name: Name,
    /// File to write, which must not be there yet [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) out: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) passphrase: PassphraseArgs,
    #[command(flatten)]
    pub(in crate::cli) new: NewPassphraseArgs,
    #[command(flatten)]
    pub(in crate::cli) plain: Plain,
}

pub(super) fn algorithm() -> impl clap::builder::TypedValueParser<Value = Algorithm> {
    use clap::builder::TypedValueParser;
    clap::builder::PossibleValuesParser::new(["ed25519", "rsa-2048", "rsa-3072", "rsa-4096"])
        .try_map(|text| text.parse::<Algorithm>())
}
