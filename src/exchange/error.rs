//! What can go wrong between here and the exchange.

use super::{Kind, Refusal};
use crate::{key, signer};

/// What can go wrong between here and the exchange.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection came about; nothing was sent.
    #[error("cannot reach {host}: {problem}")]
    Unreachable {
        /// Where to.
        host: String,
        /// Why not.
        problem: String,
    },
    /// The connection broke after the request may have gone out.
    #[error("the connection to {host} broke: {problem}")]
    Broken {
        /// Where to.
        host: String,
        /// How.
        problem: String,
    },
    /// No answer within the time allowed; the request may have been carried out.
    #[error("no answer from {host} within {seconds} s")]
    TimedOut {
        /// Where from.
        host: String,
        /// The time allowed.
        seconds: u64,
    },
    /// The exchange refused the call.
    #[error("{0}")]
    Refused(Refusal),
    /// An answer that is no answer. Its text is not shown: it could hold what was sent.
    #[error("the answer to {method} is none: {problem} (HTTP status {status})")]
    Malformed {
        /// The method that was called.
        method: &'static str,
        /// What is wrong with it.
        problem: &'static str,
        /// The HTTP status that came with it.
        status: u16,
    },
    /// The other end is another network than was meant.
    #[error("wrong network: {problem}")]
    WrongNetwork {
        /// What gave it away.
        problem: String,
    },
    /// The exchange demands a second factor for another site; no code was asked for or sent.
    #[error("the challenge is for another site than the {network} network; no code was sent")]
    ForeignChallenge {
        /// The network that was meant.
        network: &'static str,
    },
    /// The person who was asked for a code pressed Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// A second factor is demanded and cannot be had.
    #[error("a second factor is needed: {problem}")]
    NoSecondFactor {
        /// Why there is none.
        problem: String,
    },
    /// The second factor was answered and refused each time.
    #[error("the second factor for {method} was refused {attempts} times ({reason})")]
    SecondFactorRefused {
        /// The method that was called.
        method: &'static str,
        /// How often it was tried.
        attempts: usize,
        /// The exchange's last reason.
        reason: String,
    },
    /// Only hardware keys are registered, and their protocol is not public.
    #[error("{method} wants a hardware security key, for which there is no public protocol")]
    HardwareKeyOnly {
        /// The method that was called.
        method: &'static str,
    },
    /// The request is larger than the 32 kB that the exchange takes.
    #[error("the request for {method} is larger than the 32 kB that the exchange takes")]
    TooLarge {
        /// The method that was called.
        method: &'static str,
    },
    /// Not a scope.
    #[error("not a scope: {problem}")]
    Scope {
        /// What is wrong with it.
        problem: String,
    },
    /// Not an endpoint.
    #[error("not an endpoint: {problem}")]
    Endpoint {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Some other identifier that cannot be one.
    #[error("not {what}: {problem}")]
    Identifier {
        /// What it was meant to be.
        what: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The certificates of `--ca-file` cannot be used.
    #[error("the certificate file cannot be used: {problem}")]
    Authorities {
        /// What is wrong with it.
        problem: String,
    },
    /// The signer could not sign.
    #[error(transparent)]
    Signer(#[from] signer::Error),
    /// What should be signed cannot be.
    #[error(transparent)]
    Key(#[from] key::Error),
}

impl Error {
    /// Tells whether the call may have been carried out although no usable answer came.
    pub const fn leaves_doubt(&self) -> bool {
        match self {
            Self::Broken { .. }
            | Self::TimedOut { .. }
            | Self::Malformed { .. }
            | Self::WrongNetwork { .. } => true,
            Self::Refused(refusal) => refusal.leaves_doubt(),
            _ => false,
        }
    }

    /// Tells whether the exchange refused because of who asked, or from where.
    ///
    /// It does not explain further, and which code an address outside the whitelist gets is not
    /// documented. A locked account and the like have codes of their own and do not count.
    pub fn is_credentials(&self) -> bool {
        let who = |refusal: &Refusal| {
            refusal.kind() == Kind::Credentials || matches!(refusal.code, 11042 | 13020 | 13021)
        };
        matches!(self, Self::Refused(refusal) if who(refusal))
    }
}
