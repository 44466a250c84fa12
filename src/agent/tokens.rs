//! Access tokens of one key: many callers, one login; eight sessions at most of the sixteen.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{Denial, Granted, clock::uptime, wire::Code};

/// How many scopes of one key can have tokens at a time. Each has a session of its own.
const SCOPES: usize = 8;
/// A token is renewed this long before it ends, or in the last quarter of a short life.
const SPARE: Duration = Duration::from_secs(60);
/// How long callers are told of the same failure before the exchange is asked again.
const PATIENCE: Duration = Duration::from_secs(2);

/// The tokens of one key.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    places: Mutex<Vec<Arc<Place>>>,
}

/// The place of one scope. Whoever logs in holds it, and all others wait for what comes of it.
#[derive(Debug)]
pub(super) struct Place {
    scope: String,
    session: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    granted: Option<(Granted, Duration)>,
    failed: Option<(Denial, Duration)>,
}

impl State {
    fn is_fresh(&self, now: Duration) -> bool {
        self.granted.as_ref().is_some_and(|(granted, ends)| {
            let spare = SPARE.min(granted.expires_in / 4);
            now + spare < *ends
        })
    }

    fn is_over(&self, now: Duration) -> bool {
        self.granted.as_ref().is_none_or(|(_, ends)| *ends <= now)
    }
}

/// A token, and how long it still lives.
pub(super) struct Fresh<'a> {
    state: MutexGuard<'a, State>,
    now: Duration,
}

impl Fresh<'_> {
    /// Returns the token and the time that it has left.
    pub(super) fn look(&self) -> Option<(&Granted, Duration)> {
        let (granted, ends) = self.state.granted.as_ref()?;
        Some((granted, ends.saturating_sub(self.now)))
    }
}

impl Tokens {
    /// Returns the place of a scope, which may be one that an ended token leaves.
    pub(super) fn place(&self, scope: &str) -> Result<Arc<Place>, Denial> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = places.iter().find(|place| place.scope == scope) {
            return Ok(Arc::clone(place));
        }
        let now = uptime();
        let number = if places.len() < SCOPES {
            places.len()
        } else {
            // A place that somebody waits in is not given away.
            let over = |place: &Arc<Place>| {
                place
                    .state
                    .try_lock()
                    .is_ok_and(|state| state.is_over(now) && Arc::strong_count(place) == 1)
            };
            places.iter().position(over).ok_or_else(|| {
                Denial::new(
                    Code::Busy,
                    "tokens of eight scopes of this key are in use; ask for one of those",
                )
            })?
        };
        let place = Arc::new(Place {
            scope: scope.into(),
            session: format!("derikey-agent-{number}"),
            state: Mutex::default(),
        });
        match places.get_mut(number) {
            Some(old) => *old = Arc::clone(&place),
            None => places.push(Arc::clone(&place)),
        }
        Ok(place)
    }

    /// Forgets every token.
    pub(super) fn clear(&self) {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        for place in places.iter() {
            // One that is just being fetched goes with the next round.
            if let Ok(mut state) = place.state.try_lock() {
                *state = State::default();
            }
        }
    }
}

impl Place {
    /// Returns a token that lives for a while, after a login if there is none.
    pub(super) fn token(
        &self,
        log_in: impl FnOnce(&str, &str) -> Result<Granted, Denial>,
    ) -> Result<Fresh<'_>, Denial> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = uptime();
        if state.is_fresh(now) {
            return Ok(Fresh { state, now });
        }
        if let Some((denial, at)) = &state.failed
            && now < *at + PATIENCE
        {
            return Err(denial.clone());
        }
        state.granted = None;
        match log_in(&self.scope, &self.session) {
            Ok(granted) => {
                // Counted from before the login: the token may be a little younger, never older.
                let ends = now + granted.expires_in;
                state.granted = Some((granted, ends));
                state.failed = None;
                Ok(Fresh { state, now })
            }
            Err(denial) => {
                state.failed = Some((denial.clone(), uptime()));
                Err(denial)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::secret::AccessToken;

    fn granted(seconds: u64) -> Granted {
        Granted {
            access_token: AccessToken::new("token".into()),
            expires_in: Duration::from_secs(seconds),
            scope: "trade:read".into(),
        }
    }

    #[test]
    fn many_callers_log_in_once() {
        let (tokens, logins) = (Tokens::default(), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let place = tokens.place("trade:read").unwrap();
                    let fresh = place.token(|_, session| {
                        assert_eq!(session, "derikey-agent-0");
                        logins.fetch_add(1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(50));
                        Ok(granted(900))
                    });
                    assert!(fresh.unwrap().look().is_some());
                });
            }
        });
        assert_eq!(logins.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_failure_is_shared_too() {
        let (tokens, logins) = (Tokens::default(), AtomicU32::new(0));
        for _ in 0..5 {
            let place = tokens.place("trade:read").unwrap();
            let failed = place.token(|_, _| {
                logins.fetch_add(1, Ordering::SeqCst);
                Err(Denial::new(Code::Login, "no"))
            });
            assert!(failed.is_err());
        }
        assert_eq!(logins.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_ninth_scope_waits_for_a_place() {
        let tokens = Tokens::default();
        for n in 0..SCOPES {
            let place = tokens.place(&format!("scope {n}")).unwrap();
            place.token(|_, _| Ok(granted(900))).unwrap();
        }
        assert_eq!(tokens.place("one more").unwrap_err().code, Code::Busy);
        tokens.clear();
        let place = tokens.place("one more").unwrap();
        assert!(place.session.starts_with("derikey-agent-"));
    }
}
