//! A faithful local imitation of the exchange, to try things on.
//!
//! It speaks JSON-RPC over plain HTTP on loopback, keeps an account in files,
//! checks what the documentation says is checked, and can be told to fail.
//! Nothing of the rest of the crate is used here: the messages that are signed,
//! the fingerprints and the one-time codes are written a second time, from the
//! documentation, and verified by other code than the code that makes them.

mod fault;
mod http;
mod keys;
mod lies;
mod login;
mod proof;
mod rpc;
mod rules;
mod scope;
mod second_factor;
mod state;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use self::fault::Kind;
pub use self::fault::{Fault, FaultKind, KINDS};
use self::http::{Armed, Server};
use self::proof::Seed;
use self::state::Ledger;

/// How a sandbox is set up.
pub struct Options {
    /// Where the account is kept; made with its administrator on first use.
    pub state_dir: PathBuf,
    /// A loopback address; port 0 takes any free port.
    pub listen: SocketAddr,
    /// What goes wrong, and when.
    pub faults: Vec<Fault>,
    /// The seed of one-time codes in base32; without it nothing asks for them.
    pub totp_seed: Option<String>,
}

/// A running sandbox; it stops when this is dropped.
///
/// Several sandboxes, in one process or in many, may serve the same directory.
#[derive(Debug)]
pub struct Sandbox {
    endpoint: String,
    admin_client_id: String,
    admin_secret_file: PathBuf,
    accepting: JoinHandle<()>,
}

/// Why a sandbox does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address can be reached from other machines.
    #[error("the sandbox listens on loopback addresses only, not on {address}")]
    NotLoopback {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The account cannot be read or written.
    #[error("cannot use the sandbox state in {}: {source}", path.display())]
    State {
        /// The directory of the state.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The text is no fault.
    #[error("{0}")]
    Fault(String),
    /// The seed of one-time codes is missing or is no base32.
    #[error("{0}")]
    Seed(&'static str),
    /// The accept loop has ended.
    #[error("the sandbox has stopped")]
    Stopped,
}

impl Sandbox {
    /// Binds the address and serves it from a task of the current runtime.
    ///
    /// # Errors
    ///
    /// [`Error::NotLoopback`], [`Error::Bind`] and [`Error::State`] as they say;
    /// [`Error::Seed`] if the seed is no base32, or missing for a fault that
    /// asks for codes.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let Options {
            state_dir,
            listen: address,
            faults,
            totp_seed,
        } = options;
        if !address.ip().is_loopback() {
            return Err(Error::NotLoopback { address });
        }
        let seed = match totp_seed {
            Some(text) => Some(
                Seed::from_base32(&text)
                    .ok_or(Error::Seed("the seed of one-time codes is no base32"))?,
            ),
            None if faults.iter().any(|fault| fault.kind == Kind::Challenge) => {
                return Err(Error::Seed(
                    "the fault challenge needs a seed of one-time codes",
                ));
            }
            None => None,
        };
        let (ledger, admin_client_id) = Ledger::open(&state_dir)?;
        let admin_secret_file = ledger.admin_secret_file();
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| Error::Bind { address, source })?;
        let address = listener
            .local_addr()
            .map_err(|source| Error::Bind { address, source })?;
        let faults = faults
            .into_iter()
            .map(|fault| Armed {
                fault,
                seen: AtomicU64::new(0),
            })
            .collect();
        let server = Arc::new(Server {
            ledger,
            seed,
            faults,
            address,
        });
        let accepting = tokio::spawn(http::serve(server, listener));
        Ok(Self {
            endpoint: format!("http://{address}/api/v2"),
            admin_client_id,
            admin_secret_file,
            accepting,
        })
    }

    /// Returns the base of all methods: `http://127.0.0.1:PORT/api/v2`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Returns the client id of the administrator.
    pub fn admin_client_id(&self) -> &str {
        &self.admin_client_id
    }

    /// Returns the file that holds the administrator's secret, on one line.
    pub fn admin_secret_file(&self) -> &Path {
        &self.admin_secret_file
    }

    /// Serves until the loop ends, which it normally does not.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`] if the runtime ended the loop.
    pub async fn run(mut self) -> Result<(), Error> {
        (&mut self.accepting).await.map_err(|_| Error::Stopped)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("state_dir", &self.state_dir)
            .field("listen", &self.listen)
            .field("faults", &self.faults)
            .field("totp_seed", &self.totp_seed.as_ref().map(|_| "[redacted]"))
            .finish()
    }
}
