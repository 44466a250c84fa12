//! What can be typed.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

mod account;
mod fleet;
mod keys;
mod registry;
mod rotation;
mod secrets;
mod serve;
mod signing;

pub(super) use account::{Doctor, Edit, List, Panic, ScopeCommand, Target};
pub(super) use fleet::{ApplyArgs, DriftArgs, FleetFile, PlanArgs};
pub(super) use keys::{Export, FingerprintOf, Generate, Hash, Import, Name, Passwd, Which};
pub(super) use registry::{Adopt, Provision, Register, Resume, Wish};
pub(super) use rotation::{HookArgs, Rollback, Rotate};
pub(super) use secrets::{
    AdminArgs, AdminPassphraseArgs, AdminSecretArgs, InputPassphraseArgs, NewPassphraseArgs,
    PassphraseArgs, Plain, Sealing, SecondFactorArgs,
};
pub(super) use serve::{AgentArgs, Exec, Order, SandboxArgs};
pub(super) use signing::{
    AgentUse, Auth, MomentArgs, Sign, SignAuth, SignRequest, SignerArgs, Token, TokenFormat, Verify,
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
    arg_required_else_help = true
)]
#[command(after_long_help = "\
Try it without a network or an account:
  derikey provision my_bot --network sandbox --scope \"account:read trade:read_write\"
  derikey token my_bot

Exit codes: 0 done, 1 unexpected, 2 usage, 3 configuration, 4 the exchange refused, 5 network,
6 second factor, 7 key material, 8 refused here, 9 unfinished (derikey resume), 10 findings,
11 verification failed, 75 try again later, 130 interrupted.")]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
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

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make, register and prove a key: the main job, in one command
    Provision(Provision),
    /// Make a key pair in the keystore
    Generate(Generate),
    /// Take a key made elsewhere into the keystore
    Import(Import),
    /// Print the public half as PEM
    Public(Which),
    /// Print the fingerprint by which the exchange names the key
    Fingerprint(FingerprintOf),
    /// Show what is known of a key
    Show(Which),
    /// Change the passphrase of a key
    Passwd(Passwd),
    /// Print the private key as PKCS#8, sealed
    Export(Export),
    /// Move a key to the trash
    Delete(Name),
    /// Register a key that is in the keystore
    Register(Register),
    /// Bind a key whose public half was pasted into the web form
    Adopt(Adopt),
    /// List the keys
    List(List),
    /// Change rights, label, whitelist or features at the exchange
    Edit(Edit),
    /// Let a key log in again
    Enable(Target),
    /// Stop a key from logging in
    Disable(Target),
    /// Take a key away at the exchange, for good
    Remove(Target),
    /// Put a new key in the place of the one in use
    Rotate(Rotate),
    /// Put the key before back in its place
    Rollback(Rollback),
    /// Disable every key that matches, at once
    Panic(Panic),
    /// Show what it takes to have the account as a fleet file declares it
    Plan(PlanArgs),
    /// Have the account as a fleet file declares it
    Apply(ApplyArgs),
    /// Find what is not as a fleet file declares it; exit with 10 if anything is
    Drift(DriftArgs),
    /// Find what is wrong, and say how to mend it
    Doctor(Doctor),
    /// Show the audit log and verify its chain
    Audit,
    /// Rights in words
    #[command(subcommand)]
    Scope(ScopeCommand),
    /// Prove that a key works: log in and print what was granted
    Auth(Auth),
    /// Print an access token for a bot
    Token(Token),
    /// Sign a login or a request, without touching the network
    #[command(subcommand)]
    Sign(Sign),
    /// Check a signed login or request, read from standard input
    Verify(Verify),
    /// Finish what was interrupted
    Resume(Resume),
    /// Show what was interrupted
    Status,
    /// Hold keys for other programs, which ask for logins, tokens and requests
    Agent(AgentArgs),
    /// Run a program that finds the agent and its key in its environment
    Exec(Exec),
    /// Serve the local exchange over HTTP
    Sandbox(SandboxArgs),
    /// Print a completion script
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages
    Man {
        /// Into which directory
        dir: PathBuf,
    },
}
