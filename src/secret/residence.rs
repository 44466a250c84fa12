use super::locked;

/// What kind of memory a secret lies in; better is greater.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Residence {
    /// Memory like any other: it may be swapped out.
    Pageable,
    /// Never swapped; on Linux not in a core file either, and empty in a child.
    Locked,
    /// Locked, and out of the reach of debuggers, of root and of the kernel (`memfd_secret`).
    Secret,
}

impl Residence {
    /// Returns the worst that private keys lie in, or would.
    ///
    /// Pageable, unless [`shelter_keys`](super::shelter_keys) was called in time.
    pub fn of_keys() -> Self {
        locked::residence()
    }

    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pageable => "pageable",
            Self::Locked => "locked",
            Self::Secret => "secret",
        }
    }
}
