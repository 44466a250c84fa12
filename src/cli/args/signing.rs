//! What can be typed for keys in use: who signs, what, and when.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{
    keys::{Name, Which},
    secrets::PassphraseArgs,
};

/// Whether a running agent is used.
#[derive(Args, Debug)]
pub(in crate::cli) struct AgentUse {
    /// Use the key itself, even where an agent holds it
    #[arg(long)]
    pub(in crate::cli) no_agent: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct SignerArgs {
    /// Who holds the private half: ssh-agent:FINGERPRINT, as ssh-add -l shows it
    #[arg(long, value_name = "SIGNER")]
    pub(in crate::cli) signer: Option<String>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Auth {
    #[command(flatten)]
    pub(in crate::cli) name: Name,
    /// Rights to ask for [default: all that the key has]
    #[arg(long)]
    pub(in crate::cli) scope: Option<String>,
    /// Session to use [default: derikey]
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) session: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) agent: AgentUse,
    #[command(flatten)]
    pub(in crate::cli) held: SignerArgs,
    #[command(flatten)]
    pub(in crate::cli) passphrase: PassphraseArgs,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Token {
    #[command(flatten)]
    pub(in crate::cli) auth: Auth,
    /// How to print it
    #[arg(long, value_enum, default_value = "json")]
    pub(in crate::cli) format: TokenFormat,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(in crate::cli) enum TokenFormat {
    /// One JSON object
    Json,
    /// An HTTP header
    Header,
    /// DERIBIT_ACCESS_TOKEN=...
    Env,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct SignArgs {
    #[command(subcommand)]
    pub(in crate::cli) what: Sign,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Sign {
    /// Print the complete JSON-RPC request for public/auth
    Auth(SignAuth),
    /// Print the Authorization header of a signed REST request
    Request(SignRequest),
}

#[derive(Args, Debug)]
pub(in crate::cli) struct SignAuth {
    #[command(flatten)]
    pub(in crate::cli) name: Name,
    /// Client id [default: the one the key is registered under]
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) client_id: Option<String>,
    /// Rights to ask for; not covered by the signature
    #[arg(long)]
    pub(in crate::cli) scope: Option<String>,
    /// Free text that is signed along
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(in crate::cli) data: String,
    #[command(flatten)]
    pub(in crate::cli) moment: MomentArgs,
    #[command(flatten)]
    pub(in crate::cli) agent: AgentUse,
    #[command(flatten)]
    pub(in crate::cli) held: SignerArgs,
    #[command(flatten)]
    pub(in crate::cli) passphrase: PassphraseArgs,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct MomentArgs {
    /// Milliseconds since 1970 [default: now]
    #[arg(long, value_name = "MS")]
    pub(in crate::cli) timestamp: Option<u64>,
    /// Text that is used once [default: random]
    #[arg(long)]
    pub(in crate::cli) nonce: Option<String>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct SignRequest {
    #[command(flatten)]
    pub(in crate::cli) name: Name,
    /// Client id [default: the one the key is registered under]
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) client_id: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) request: RequestArgs,
    #[command(flatten)]
    pub(in crate::cli) moment: MomentArgs,
    #[command(flatten)]
    pub(in crate::cli) agent: AgentUse,
    #[command(flatten)]
    pub(in crate::cli) held: SignerArgs,
    #[command(flatten)]
    pub(in crate::cli) passphrase: PassphraseArgs,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct RequestArgs {
    /// HTTP method: GET or POST
    #[arg(long, value_name = "METHOD")]
    pub(in crate::cli) method: String,
    /// Path with its query, exactly as it will be sent, from /api/v2/ on
    #[arg(long, value_name = "PATH")]
    pub(in crate::cli) path: String,
    /// File with the body, byte for byte as it will be sent; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) body: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Verify {
    #[command(flatten)]
    pub(in crate::cli) which: Which,
    /// HTTP method, for a signed REST request
    #[arg(long, requires = "path")]
    pub(in crate::cli) method: Option<String>,
    /// Path, for a signed REST request
    #[arg(long, requires = "method")]
    pub(in crate::cli) path: Option<String>,
    /// File with the body, for a signed REST request
    #[arg(long, value_name = "FILE", requires = "path")]
    pub(in crate::cli) body: Option<PathBuf>,
}
