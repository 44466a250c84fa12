//! The wire: what goes out, what comes in, and who carries it.

use std::{fmt, future::Future, time::Duration};

use zeroize::Zeroizing;

use super::Error;

/// A request on its way out.
pub struct Outgoing {
    /// The method, which is also the end of the address.
    pub method: &'static str,
    /// The JSON-RPC request; may hold a one-time code.
    pub body: Zeroizing<Vec<u8>>,
    /// The `Authorization` header.
    pub authorization: Option<Zeroizing<String>>,
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

/// An answer as it came.
pub struct Incoming {
    /// The HTTP status.
    pub status: u16,
    /// The body; may hold tokens.
    pub body: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// Carries requests to an exchange and brings answers back.
pub trait Transport: Send + Sync {
    /// Sends a request once, without following redirects, and returns whatever was answered.
    fn post(&self, request: Outgoing) -> impl Future<Output = Result<Incoming, Error>> + Send;

    /// Lets time pass before another try.
    fn pause(&self, time: Duration) -> impl Future<Output = ()> + Send;
}
