//! Makes, registers, rotates and uses self-generated (Ed25519/RSA) API keys for the Deribit
//! exchange, on hosts that have no HSM.
//!
//! The rooms, from the ground up. Lower rooms do not know that upper ones exist, which a test
//! guards (`tests/it/architecture.rs`).
//!
//! - [`secret`]: types that keep quiet about what they hold.
//! - [`key`]: keys, the formats they come in, the texts they sign. Bytes in, bytes out.
//! - [`signer`]: the one joint. Whatever can sign is a [`signer::Signer`].
//! - [`exchange`]: one call, one challenge, one answer, over any [`exchange::Transport`].
//! - [`store`]: keys, their records, the journal and the audit log on disk.
//! - [`provision`]: the use cases. Persist, then register; prove, then trust.
//! - [`fleet`]: declared keys beside those of the account, and the plan between the two. Pure: `cli`
//!   looks, asks, and takes each step by the path of the command for one key.
//! - `agent`: keys held for other programs, which ask for logins and requests, never for bytes.
//! - `cli`: the command line; the only room with a terminal, a clock and an environment.
//! - `sandbox`: a local exchange to try all of it on. Imports nothing of the others.

mod error;
pub mod exchange;
pub mod fleet;
pub mod key;
pub mod provision;
pub mod secret;
pub mod signer;
pub mod store;

#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "sandbox")]
pub mod sandbox;

pub use error::Error;
