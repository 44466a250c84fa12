//! What can be typed.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::key::{Algorithm, Kdf};

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

/// A key in the keystore.
#[derive(Args, Debug)]
pub(super) struct Name {
    /// Name of the key: 1 to 16 letters, digits or underscores
    pub(super) name: String,
}

#[derive(Args, Debug)]
pub(super) struct Which {
    /// Name of a key, or a file with a slash or a dot in its path
    #[arg(value_name = "NAME|FILE")]
    pub(super) which: String,
    #[command(flatten)]
    pub(super) passphrase: PassphraseArgs,
}

#[derive(Args, Debug)]
pub(super) struct FingerprintOf {
    #[command(flatten)]
    pub(super) which: Which,
    /// Which digest; the exchange uses MD5
    #[arg(long, value_enum, default_value = "md5")]
    pub(super) hash: Hash,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Hash {
    Md5,
    Sha256,
}

#[derive(Args, Debug)]
pub(super) struct Wish {
    /// Rights: AREA:none|read|read_write, separated by blanks, or a preset such as @read-only
    #[arg(long, value_name = "SCOPE")]
    pub(super) scope: String,
    /// Label at the exchange [default: NAME]
    #[arg(long)]
    pub(super) label: Option<String>,
    /// IPv4 address that the key may be used from; may be given several times
    #[arg(long, value_name = "ADDR")]
    pub(super) ip: Vec<String>,
    /// Pass addresses through that are not plain IPv4
    #[arg(long)]
    pub(super) unchecked_ip: bool,
    /// Feature of the key; may be given several times; `none`, which is the default, for no feature
    #[arg(long, value_name = "FEATURE")]
    pub(super) feature: Vec<String>,
}

#[derive(Args, Debug)]
pub(super) struct Provision {
    #[command(flatten)]
    pub(super) name: Name,
    #[command(flatten)]
    pub(super) wish: Wish,
    /// Kind of key
    #[arg(long, default_value = "ed25519", value_parser = algorithm())]
    pub(super) algorithm: Algorithm,
    #[command(flatten)]
    pub(super) sealing: Sealing,
    #[command(flatten)]
    pub(super) admin: AdminArgs,
}

#[derive(Args, Debug)]
pub(super) struct Register {
    #[command(flatten)]
    pub(super) name: Name,
    #[command(flatten)]
    pub(super) wish: Wish,
    #[command(flatten)]
    pub(super) held: SignerArgs,
    #[command(flatten)]
    pub(super) passphrase: PassphraseArgs,
    #[command(flatten)]
    pub(super) admin: AdminArgs,
}

#[derive(Args, Debug)]
pub(super) struct Generate {
    #[command(flatten)]
    pub(super) name: Name,
    /// Kind of key
    #[arg(long, default_value = "ed25519", value_parser = algorithm())]
    pub(super) algorithm: Algorithm,
    #[command(flatten)]
    pub(super) sealing: Sealing,
}

#[derive(Args, Debug)]
pub(super) struct Import {
    #[command(flatten)]
    pub(super) name: Name,
    /// PKCS#8, PKCS#1 or OpenSSH, PEM or DER; `-` reads standard input
    pub(super) file: PathBuf,
    #[command(flatten)]
    pub(super) sealing: Sealing,
    #[command(flatten)]
    pub(super) input: InputPassphraseArgs,
}

#[derive(Args, Debug)]
pub(super) struct Passwd {
    #[command(flatten)]
    pub(super) name: Name,
    #[command(flatten)]
    pub(super) passphrase: PassphraseArgs,
    #[command(flatten)]
    pub(super) new: NewPassphraseArgs,
    #[command(flatten)]
    pub(super) plain: Plain,
}

#[derive(Args, Debug)]
pub(super) struct Export {
    #[command(flatten)]
    pub(super) name: Name,
    /// File to write, which must not be there yet [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
    #[command(flatten)]
    pub(super) passphrase: PassphraseArgs,
    #[command(flatten)]
    pub(super) new: NewPassphraseArgs,
    #[command(flatten)]
    pub(super) plain: Plain,
}

#[derive(Args, Debug)]
pub(super) struct Adopt {
    #[command(flatten)]
    pub(super) name: Name,
    /// Client id that the web form showed; without it, what to paste there is printed
    #[arg(long, value_name = "ID")]
    pub(super) client_id: Option<String>,
    #[command(flatten)]
    pub(super) held: SignerArgs,
    #[command(flatten)]
    pub(super) passphrase: PassphraseArgs,
    #[command(flatten)]
    pub(super) second: SecondFactorArgs,
}

#[derive(Args, Debug)]
pub(super) struct Auth {
    #[command(flatten)]
    pub(super) name: Name,
    /// Rights to ask for [default: all that the key has]
    #[arg(long)]
    pub(super) scope: Option<String>,
    /// Session to use [default: derikey]
    #[arg(long, value_name = "NAME")]
    pub(super) session: Option<String>,
    #[command(flatten)]
    pub(super) agent: AgentUse,
    #[command(flatten)]
    pub(super) held: SignerArgs,
    #[command(flatten)]
    pub(super) passphrase: PassphraseArgs,
}

#[derive(Args, Debug)]
pub(super) struct Token {
    #[command(flatten)]
    pub(super) auth: Auth,
    /// How to print it
    #[arg(long, value_enum, default_value = "json")]
    pub(super) format: TokenFormat,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum TokenFormat {
    /// One JSON object
    Json,
    /// An HTTP header
    Header,
    /// DERIBIT_ACCESS_TOKEN=...
    Env,
}

#[derive(Debug, Subcommand)]
pub(super) enum Sign {
    /// Print the complete JSON-RPC request for public/auth
    Auth(SignAuth),
    /// Print the Authorization header of a signed REST request
    Request(SignRequest),
}

#[derive(Args, Debug)]
pub(super) struct SignAuth {
    #[command(flatten)]
    pub(super) name: Name,
    /// Client id [default: the one the key is registered under]
    #[arg(long, value_name = "ID")]
    pub(super) client_id: Option<String>,
    /// Rights to ask for; not covered by the signature
    #[arg(long)]
    pub(super) scope: Option<String>,
    /// Free text that is signed along
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(super) data: String,
    #[command(flatten)]
    pub(super) moment: MomentArgs,
    #[command(flatten)]
    pub(super) agent: AgentUse,
    #[command(flatten)]
    pub(super) held: SignerArgs,
    #[command(flatten)]
    pub(super) passphrase: PassphraseArgs,
}

#[derive(Args, Debug)]
pub(super) struct MomentArgs {
    /// Milliseconds since 1970 [default: now]
    #[arg(long, value_name = "MS")]
    pub(super) timestamp: Option<u64>,
    /// Text that is used once [default: random]
    #[arg(long)]
    pub(super) nonce: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct SignRequest {
    #[command(flatten)]
    pub(super) name: Name,
    /// Client id [default: the one the key is registered under]
    #[arg(long, value_name = "ID")]
    pub(super) client_id: Option<String>,
    #[command(flatten)]
    pub(super) request: RequestArgs,
    #[command(flatten)]
    pub(super) moment: MomentArgs,
    #[command(flatten)]
    pub(super) agent: AgentUse,
    #[command(flatten)]
    pub(super) held: SignerArgs,
    #[command(flatten)]
    pub(super) passphrase: PassphraseArgs,
}

#[derive(Args, Debug)]
pub(super) struct RequestArgs {
    /// HTTP method: GET or POST
    #[arg(long, value_name = "METHOD")]
    pub(super) method: String,
    /// Path with its query, exactly as it will be sent, from /api/v2/ on
    #[arg(long, value_name = "PATH")]
    pub(super) path: String,
    /// File with the body, byte for byte as it will be sent; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    pub(super) body: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct Verify {
    #[command(flatten)]
    pub(super) which: Which,
    /// HTTP method, for a signed REST request
    #[arg(long, requires = "path")]
    pub(super) method: Option<String>,
    /// Path, for a signed REST request
    #[arg(long, requires = "method")]
    pub(super) path: Option<String>,
    /// File with the body, for a signed REST request
    #[arg(long, value_name = "FILE", requires = "path")]
    pub(super) body: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct Resume {
    /// Only this key [default: all]
    pub(super) name: Option<String>,
    /// Give it up instead: what it has made is taken back as far as that goes
    #[arg(long, requires = "name")]
    pub(super) abandon: bool,
    #[command(flatten)]
    pub(super) sealing: Sealing,
    #[command(flatten)]
    pub(super) admin: AdminArgs,
}

#[derive(Args, Debug)]
pub(super) struct List {
    /// Also the account's keys, matched with those here
    #[arg(long)]
    pub(super) remote: bool,
    /// Exit with 10 when something does not match
    #[arg(long, requires = "remote")]
    pub(super) exit_code: bool,
    #[command(flatten)]
    pub(super) passphrase: PassphraseArgs,
    #[command(flatten)]
    pub(super) admin: AdminArgs,
}

#[derive(Args, Debug)]
pub(super) struct Edit {
    #[command(flatten)]
    pub(super) name: Name,
    /// New rights
    #[arg(long, value_name = "SCOPE")]
    pub(super) scope: Option<String>,
    /// New label
    #[arg(long)]
    pub(super) label: Option<String>,
    /// New whitelist, in place of the old one; may be given several times
    #[arg(long, value_name = "ADDR", conflicts_with_all = ["add_ip", "remove_ip"])]
    pub(super) ip: Vec<String>,
    /// Address to add to the whitelist
    #[arg(long, value_name = "ADDR")]
    pub(super) add_ip: Vec<String>,
    /// Address to take from the whitelist
    #[arg(long, value_name = "ADDR")]
    pub(super) remove_ip: Vec<String>,
    /// Pass addresses through that are not plain IPv4
    #[arg(long)]
    pub(super) unchecked_ip: bool,
    /// New features, in place of the old ones; may be given several times; `none` takes all away
    #[arg(long, value_name = "FEATURE")]
    pub(super) feature: Vec<String>,
    #[command(flatten)]
    pub(super) lock_out: LockOut,
    #[command(flatten)]
    pub(super) passphrase: PassphraseArgs,
    #[command(flatten)]
    pub(super) admin: AdminArgs,
}

#[derive(Args, Debug)]
pub(super) struct LockOut {
    /// Do it even to the key in use or the last one that can manage keys
    #[arg(long)]
    pub(super) i_will_lock_myself_out: bool,
}

#[derive(Args, Debug)]
pub(super) struct Target {
    /// Name of a key, or id:7, or client:ID
    #[arg(value_name = "NAME|id:N|client:ID")]
    pub(super) target: String,
    #[command(flatten)]
    pub(super) lock_out: LockOut,
    #[command(flatten)]
    pub(super) passphrase: PassphraseArgs,
    #[command(flatten)]
    pub(super) admin: AdminArgs,
}

#[derive(Args, Debug)]
pub(super) struct Rotate {
    /// Name of the key
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub(super) name: Option<String>,
    /// Every registered key of the network; one failure does not stop the others
    #[arg(long)]
    pub(super) all: bool,
    /// With --all, only keys older than this, such as 90d
    #[arg(long, value_name = "DURATION", requires = "all", conflicts_with = "name", value_parser = humantime::parse_duration)]
    pub(super) older_than: Option<std::time::Duration>,
    /// How long the old key stays enabled, such as 24h; "derikey resume" ends it
    #[arg(long, value_name = "DURATION", value_parser = grace)]
    pub(super) grace: Option<std::time::Duration>,
    #[command(flatten)]
    pub(super) hook: HookArgs,
    /// Take the old key away at the exchange in the end; without this it stays, disabled
    #[arg(long)]
    pub(super) remove_old: bool,
    #[command(flatten)]
    pub(super) sealing: Sealing,
    #[command(flatten)]
    pub(super) admin: AdminArgs,
}

#[derive(Args, Debug)]
pub(super) struct HookArgs {
    /// Program, run without a shell, that is told of the new key: JSON on standard input,
    /// DERIKEY_* variables, never a secret; its failure rolls back
    #[arg(long, value_name = "CMD")]
    pub(super) deploy_hook: Option<String>,
    /// How long that program may take before it counts as failed, such as 5m [default: 60s]
    #[arg(long, value_name = "DURATION", requires = "deploy_hook", value_parser = hook_timeout)]
    pub(super) hook_timeout: Option<std::time::Duration>,
}

#[derive(Args, Debug)]
pub(super) struct Rollback {
    #[command(flatten)]
    pub(super) name: Name,
    #[command(flatten)]
    pub(super) hook: HookArgs,
    #[command(flatten)]
    pub(super) sealing: Sealing,
    #[command(flatten)]
    pub(super) admin: AdminArgs,
}

#[derive(Args, Debug)]
pub(super) struct Panic {
    /// Only keys whose label or client id matches, with * and ?
    #[arg(long = "match", value_name = "GLOB", default_value = "*")]
    pub(super) pattern: String,
    #[command(flatten)]
    pub(super) lock_out: LockOut,
    #[command(flatten)]
    pub(super) passphrase: PassphraseArgs,
    #[command(flatten)]
    pub(super) admin: AdminArgs,
}

#[derive(Args, Debug)]
pub(super) struct Doctor {
    /// Look at this machine only
    #[arg(long)]
    pub(super) offline: bool,
    #[command(flatten)]
    pub(super) passphrase: PassphraseArgs,
    #[command(flatten)]
    pub(super) admin: AdminArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum ScopeCommand {
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

#[derive(Args, Debug)]
pub(super) struct AgentArgs {
    /// Names of the keys to hold
    #[arg(value_name = "NAME", required_unless_present_any = ["status", "lock", "unlock", "stop"])]
    pub(super) names: Vec<String>,
    /// Where to listen [default: $XDG_RUNTIME_DIR/derikey/agent.sock]
    #[arg(long, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
    /// Forget the keys after this time, such as 8h, suspended or not
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(super) lifetime: Option<std::time::Duration>,
    #[command(flatten)]
    orders: Orders,
    #[command(flatten)]
    pub(super) passphrase: PassphraseArgs,
}

/// What is said to an agent that runs.
#[derive(Args, Debug)]
#[group(multiple = false, conflicts_with_all = ["names", "lifetime"])]
struct Orders {
    /// Ask a running agent how it is
    #[arg(long)]
    status: bool,
    /// Lock a running agent with a passphrase of its own
    #[arg(long)]
    lock: bool,
    /// Unlock it with the same passphrase
    #[arg(long)]
    unlock: bool,
    /// End a running agent
    #[arg(long)]
    stop: bool,
}

/// What is said to an agent that runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Order {
    Status,
    Lock,
    Unlock,
    Stop,
}

impl AgentArgs {
    /// Returns what is to be said to a running agent, if anything is.
    pub(super) fn order(&self) -> Option<Order> {
        let orders = [
            (self.orders.status, Order::Status),
            (self.orders.lock, Order::Lock),
            (self.orders.unlock, Order::Unlock),
            (self.orders.stop, Order::Stop),
        ];
        orders
            .into_iter()
            .find_map(|(said, order)| said.then_some(order))
    }
}

/// Whether a running agent is used.
#[derive(Args, Debug)]
pub(super) struct AgentUse {
    /// Use the key itself, even where an agent holds it
    #[arg(long)]
    pub(super) no_agent: bool,
}

#[derive(Args, Debug)]
pub(super) struct SignerArgs {
    /// Who holds the private half: ssh-agent:FINGERPRINT, as ssh-add -l shows it
    #[arg(long, value_name = "SIGNER")]
    pub(super) signer: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct Exec {
    #[command(flatten)]
    pub(super) name: Name,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(super) command: Vec<std::ffi::OsString>,
}

#[derive(Args, Debug)]
pub(super) struct SandboxArgs {
    /// Loopback address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub(super) listen: std::net::SocketAddr,
    /// File with a base32 seed; its codes become the second factor
    #[arg(long, value_name = "FILE")]
    pub(super) totp_seed_file: Option<PathBuf>,
    // Brackets would be a link in rustdoc.
    #[arg(
        long,
        value_name = "FAULT",
        help = "Fail on purpose: METHOD:KIND[:NTH], METHOD may be *; may be given several times"
    )]
    pub(super) fault: Vec<String>,
}

/// How a new private file is sealed.
#[derive(Args, Debug)]
pub(super) struct Sealing {
    #[command(flatten)]
    pub(super) passphrase: PassphraseArgs,
    #[command(flatten)]
    pub(super) plain: Plain,
}

#[derive(Args, Debug)]
pub(super) struct Plain {
    /// Passphrase function of the private file
    #[arg(long, default_value = "scrypt", value_parser = kdf())]
    pub(super) kdf: Kdf,
    /// Write the private key in clear; only together with --insecure
    #[arg(long)]
    pub(super) no_passphrase: bool,
    /// Yes, in clear; only together with --no-passphrase
    #[arg(long)]
    pub(super) insecure: bool,
}

impl Sealing {
    /// For a key that is there: its file is opened, and none is written.
    pub(super) fn for_opening(passphrase: PassphraseArgs) -> Self {
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
        pub(super) struct $name {
            #[doc = concat!("File with ", $what)]
            #[arg(long = $file, value_name = "FILE", conflicts_with_all = [$fd, $command], id = $file)]
            pub(super) file: Option<PathBuf>,
            #[doc = concat!("Open file descriptor to read ", $what, " from")]
            #[arg(long = $fd, value_name = "N", conflicts_with = $command, id = $fd,
                value_parser = clap::value_parser!(i32).range(0..))]
            pub(super) fd: Option<i32>,
            #[doc = concat!("Program, run without a shell, that prints ", $what)]
            #[arg(long = $command, value_name = "CMD", id = $command)]
            pub(super) command: Option<String>,
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
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Administrator")]
pub(super) struct AdminArgs {
    /// Key in the keystore that manages the account's keys
    #[arg(long, value_name = "NAME", conflicts_with = "admin_client_id")]
    pub(super) admin: Option<String>,
    /// Client id of a symmetric key that manages the account's keys; its secret never travels
    #[arg(long, value_name = "ID")]
    pub(super) admin_client_id: Option<String>,
    #[command(flatten)]
    pub(super) secret: AdminSecretArgs,
    #[command(flatten)]
    pub(super) passphrase: AdminPassphraseArgs,
    #[command(flatten)]
    pub(super) second: SecondFactorArgs,
}

/// Where one-time codes come from.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Second factor")]
pub(super) struct SecondFactorArgs {
    /// Open file descriptor with one-time codes, one a line, read when they are needed
    #[arg(long, value_name = "N", conflicts_with_all = ["totp_command", "totp_seed_file"],
        value_parser = clap::value_parser!(i32).range(0..))]
    pub(super) totp_fd: Option<i32>,
    /// Program, run without a shell, that prints a one-time code
    #[arg(long, value_name = "CMD", conflicts_with = "totp_seed_file")]
    pub(super) totp_command: Option<String>,
    /// File with the base32 seed that one-time codes come from
    #[arg(long, value_name = "FILE")]
    pub(super) totp_seed_file: Option<PathBuf>,
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
    if grace > std::time::Duration::from_secs(366 * 86_400) {
        return Err("a year is the longest".into());
    }
    Ok(grace)
}

fn algorithm() -> impl clap::builder::TypedValueParser<Value = Algorithm> {
    use clap::builder::TypedValueParser;
    clap::builder::PossibleValuesParser::new(["ed25519", "rsa-2048", "rsa-3072", "rsa-4096"])
        .try_map(|text| text.parse::<Algorithm>())
}

fn kdf() -> impl clap::builder::TypedValueParser<Value = Kdf> {
    use clap::builder::TypedValueParser;
    clap::builder::PossibleValuesParser::new(["scrypt", "pbkdf2"])
        .try_map(|text| text.parse::<Kdf>())
}
