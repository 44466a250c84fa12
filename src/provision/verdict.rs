//! What stopped an operation: a refusal for good, a call not carried out, or something in doubt.

use crate::{
    Error,
    exchange::{self, Kind},
    store::Intent,
};

/// Tells whether the exchange said no for good, so that nothing can be there.
pub(super) fn is_final(error: &Error) -> bool {
    use exchange::Error as E;
    match error {
        Error::Exchange(E::Refused(refusal)) => !matches!(
            refusal.kind(),
            Kind::Transient | Kind::RateLimit | Kind::SecondFactor | Kind::SecondFactorLocked
        ),
        Error::Exchange(
            E::HardwareKeyOnly { .. } | E::ForeignChallenge { .. } | E::TooLarge { .. },
        ) => true,
        _ => false,
    }
}

/// Tells whether a refusal carries a code that does not say whether anything was carried out.
pub(super) fn says_nothing(error: &Error) -> bool {
    matches!(error, Error::Exchange(exchange::Error::Refused(refusal)) if refusal.kind() == Kind::Other)
}

/// Tells whether a call came to nothing for certain, so that it can be made again later.
pub(super) fn was_not_carried_out(error: &Error) -> bool {
    use exchange::Error as E;
    match error {
        Error::Exchange(E::Refused(refusal)) if refusal.leaves_doubt() => false,
        Error::Exchange(E::Refused(refusal)) => matches!(
            refusal.kind(),
            Kind::Transient | Kind::RateLimit | Kind::SecondFactor | Kind::SecondFactorLocked
        ),
        Error::Exchange(
            E::NoSecondFactor { .. }
            | E::SecondFactorRefused { .. }
            | E::Interrupted
            | E::Unreachable { .. },
        ) => true,
        _ => false,
    }
}

/// Wraps what stopped an operation, so that `resume` is what is said of it.
pub fn unfinished(intent: &Intent, source: Error) -> Error {
    Error::Unfinished {
        name: intent.name.clone(),
        operation: intent.operation.as_str(),
        stage: intent.stage,
        source: Box::new(source),
    }
}
