//! What can be typed.

use std::{ffi::OsString, path::PathBuf};

use clap::{ArgAction, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, ValueEnum};

mod account;
mod commands;
#[cfg(test)]
mod documented;
mod fleet;
mod keys;
mod registry;
mod rotation;
mod secrets;
mod serve;
mod signing;

pub(super) use account::{Doctor, Edit, List, Panic, ScopeArgs, ScopeCommand, Target};
pub(super) use commands::Command;
pub(super) use fleet::{ApplyArgs, DriftArgs, FleetFile, PlanArgs};
pub(super) use keys::{Export, FingerprintOf, Generate, Hash, Import, Name, Passwd, Which};
pub(super) use registry::{Adopt, Provision, Register, Resume, Wish};
pub(super) use rotation::{HookArgs, Rollback, Rotate};
pub(super) use secrets::{
    AdminArgs, AdminPassphraseArgs, AdminSecretArgs, InputPassphraseArgs, NewPassphraseArgs,
    PassphraseArgs, Plain, Sealing, SecondFactorArgs,
};
pub(super) use serve::{AgentArgs, Exec, Order, Pages, SandboxArgs, Script};
pub(super) use signing::{
    AgentUse, Auth, MomentArgs, Sign, SignArgs, SignAuth, SignRequest, SignerArgs, Token,
    TokenFormat, Verify,
};

/// Makes, registers, rotates and uses self-generated API keys for the Deribit exchange.
///
/// The private half of a key never leaves this machine: it is made here, sealed here, and signs
/// here. The exchange gets the public half.
#[derive(Debug, Parser)]
#[command(
    name = "derikey",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
#[command(after_long_help = "\
Try it without a network or an account:
  derikey provision my_bot --network sandbox --scope \"account:read trade:read_write\"
  derikey token my_bot

Exit codes: 0 done, 1 unexpected, 2 usage, 3 configuration, 4 the exchange refused, 5 network,
6 second factor, 7 key material, 8 refused here, 9 unfinished (derikey resume), 10 findings,
11 verification failed, 75 try again later, 130 interrupted.")]
struct Program {
    #[command(flatten)]
    global: Global,
}

/// What was typed.
#[derive(Debug)]
pub(super) struct Cli {
    pub(super) global: Global,
    pub(super) command: Command,
}

impl Cli {
    /// Describes all that can be typed.
    pub(super) fn description() -> clap::Command {
        let commands = Command::ALL.iter();
        Program::command().subcommands(commands.filter_map(|(name, _)| Command::describe(name)))
    }

    /// Describes as much as it takes to read these words: to describe all the commands, each with all
    /// of its arguments, takes longer than to sign.
    pub(super) fn description_for(words: &[OsString]) -> clap::Command {
        let first = words
            .get(1)
            .and_then(|word| word.to_str())
            .unwrap_or_default();
        if let Some(command) = Command::describe(first) {
            return Program::command().subcommand(command);
        }
        match first {
            // clap answers these before it reads on, and shows no command's arguments.
            "-h" | "--help" | "-V" | "--version" => {
                let named = |(name, about): &(_, _)| clap::Command::new(*name).about(*about);
                Program::command()
                    .mut_args(|arg| arg.global(false))
                    .subcommands(Command::ALL.iter().map(named))
            }
            _ => Self::description(),
        }
    }

    /// Takes over what clap has read.
    pub(super) fn from_matches(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self {
            global: Global::from_arg_matches_mut(matches)?,
            command: Command::from_matches(matches)?,
        })
    }
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Global options")]
pub(super) struct Global {
    /// Directory that holds all state [env: DERIKEY_HOME] [default: $XDG_DATA_HOME/derikey]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) home: Option<PathBuf>,
    /// Which exchange is meant [env: DERIKEY_NETWORK]
    #[arg(long, global = true, value_enum)]
    pub(super) network: Option<NetworkName>,
    /// Base address of a custom network: https://HOST/api/v2, or http:// to this machine
    #[arg(long, global = true, value_name = "URL")]
    pub(super) endpoint: Option<String>,
    /// PEM certificates to trust instead of the built-in ones, for a custom network
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) ca_file: Option<PathBuf>,
    /// One JSON object on standard output; a failure is one JSON line on standard error
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Never ask anything; fail instead
    #[arg(long, global = true)]
    pub(super) no_input: bool,
    /// Answer every confirmation with yes
    #[arg(short, long, global = true)]
    pub(super) yes: bool,
    /// Say what would be done, and do nothing
    #[arg(short = 'n', long, global = true)]
    pub(super) dry_run: bool,
    /// Say nothing but results and failures
    #[arg(short, long, global = true)]
    pub(super) quiet: bool,
    /// Say more; twice says even more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(super) verbose: u8,
    /// Refuse to work where keys in use could be swapped out
    #[arg(long, global = true)]
    pub(super) require_locked_memory: bool,
    /// Seconds that one call to the exchange may take [default: 30]
    #[arg(long, global = true, value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(super) timeout: Option<u64>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum NetworkName {
    /// The exchange inside this program; its keys are worth nothing
    Sandbox,
    /// test.deribit.com
    Test,
    /// www.deribit.com
    Prod,
    /// Any endpoint that speaks the protocol; see --endpoint
    Custom,
}

impl NetworkName {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
            Self::Test => "test",
            Self::Prod => "prod",
            Self::Custom => "custom",
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// Returns what clap says to these words, by one description of them or another.
    fn said(mut description: clap::Command, words: &[OsString]) -> String {
        let error = description.try_get_matches_from_mut(words).unwrap_err();
        error.format(&mut description).to_string()
    }

    #[test]
    fn what_is_described_of_the_commands_is_enough_for_what_was_typed() {
        let typed = [
            "",
            "-h",
            "--help",
            "-V",
            "--version",
            "--help sign",
            "help",
            "help sign",
            "sing",
            "--bogus",
            "--json sign auth",
            "sign",
            "sign auth",
            "sign --version",
            "sign auth -h",
        ];
        let named = Command::ALL.iter().flat_map(|(name, _)| {
            ["-h", "--help", "--bogus", "--json --timeout"].map(|word| format!("{name} {word}"))
        });
        for line in typed.map(str::to_owned).into_iter().chain(named) {
            let words = ["derikey"].into_iter().chain(line.split_whitespace());
            let words: Vec<OsString> = words.map(OsString::from).collect();
            let all = said(Cli::description(), &words);
            assert_eq!(said(Cli::description_for(&words), &words), all, "{line}");
        }
    }
}
