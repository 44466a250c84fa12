//! What can be typed for that which serves others: agent, sandbox, completions, manual pages.

use std::path::PathBuf;

use clap::Args;

use super::{keys::Name, secrets::PassphraseArgs};

#[derive(Args, Debug)]
pub(in crate::cli) struct AgentArgs {
    /// Names of the keys to hold
    #[arg(value_name = "NAME", required_unless_present_any = ["status", "lock", "unlock", "stop"])]
    pub(in crate::cli) names: Vec<String>,
    /// Where to listen [default: $XDG_RUNTIME_DIR/derikey/agent.sock]
    #[arg(long, value_name = "PATH")]
    pub(in crate::cli) socket: Option<PathBuf>,
    /// Forget the keys after this time, such as 8h, suspended or not
    #[arg(long, value_name = "DURATION", value_parser = lifetime)]
    pub(in crate::cli) lifetime: Option<std::time::Duration>,
    #[command(flatten)]
    orders: Orders,
    #[command(flatten)]
    pub(in crate::cli) passphrase: PassphraseArgs,
}

fn lifetime(text: &str) -> Result<std::time::Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time.as_secs() < 1 {
        return Err("a second is the shortest".into());
    }
    Ok(time)
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
pub(in crate::cli) enum Order {
    Status,
    Lock,
    Unlock,
    Stop,
}

impl Order {
    pub(in crate::cli) const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "ask",
            Self::Lock => "lock",
            Self::Unlock => "unlock",
            Self::Stop => "stop",
        }
    }
}

impl AgentArgs {
    /// Returns what is to be said to a running agent, if anything is.
    pub(in crate::cli) fn order(&self) -> Option<Order> {
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

#[derive(Args, Debug)]
pub(in crate::cli) struct Exec {
    #[command(flatten)]
    pub(in crate::cli) name: Name,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(in crate::cli) command: Vec<std::ffi::OsString>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct SandboxArgs {
    /// Loopback address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub(in crate::cli) listen: std::net::SocketAddr,
    /// File with a base32 seed; its codes become the second factor
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) totp_seed_file: Option<PathBuf>,
    // Brackets would be a link in rustdoc.
    #[arg(
        long,
        value_name = "FAULT",
        help = "Fail on purpose: METHOD:KIND[:NTH], METHOD may be *; may be given several times"
    )]
    pub(in crate::cli) fault: Vec<String>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Script {
    /// For which shell
    pub(in crate::cli) shell: clap_complete::Shell,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Pages {
    /// Into which directory
    pub(in crate::cli) dir: PathBuf,
}
