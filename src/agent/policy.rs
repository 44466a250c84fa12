//! What a key may be used for, as `config.toml` says it.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use serde::{Deserialize, Deserializer, de};

use super::rest;

/// What a key may be used for.
///
/// Nothing said means: logins and tokens, no REST request, for as long as the agent runs.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The operations; where nothing is said, `auth` and `token`, and `rest` if methods are
    /// listed.
    pub operations: Option<Vec<Operation>>,
    /// The REST methods that are signed, exactly.
    #[serde(default)]
    pub rest: Vec<RestMethod>,
    /// The most that a token may allow; in the exchange's words.
    pub scope: Option<String>,
    /// How often.
    pub rate: Option<Rate>,
    /// For how long after the agent was started, suspended or not.
    #[serde(default, deserialize_with = "a_duration")]
    pub lifetime: Option<Duration>,
    /// How many times.
    pub uses: Option<u64>,
}

impl Policy {
    /// Tells whether an operation is allowed; a REST request must be listed besides.
    pub fn allows(&self, operation: Operation) -> bool {
        match (&self.operations, operation) {
            (Some(operations), _) => operations.contains(&operation),
            (None, Operation::Rest) => !self.rest.is_empty(),
            (None, Operation::Auth | Operation::Token) => true,
        }
    }

    /// Refuses a policy that contradicts itself.
    ///
    /// # Errors
    /// What contradicts what.
    pub fn check(&self) -> Result<(), PolicyError> {
        if !self.rest.is_empty() && !self.allows(Operation::Rest) {
            return Err(PolicyError::RestWithoutRest);
        }
        if self.uses == Some(0) {
            return Err(PolicyError::NoUse);
        }
        Ok(())
    }
}

/// What a policy cannot say.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Not `GET /api/v2/private/METHOD`.
    #[error(
        "a REST method is GET or POST, a blank and /api/v2/private/ with a name in small letters"
    )]
    NotAMethod,
    /// Never signed for anybody.
    #[error(
        "{0:?} is never signed: it moves funds, manages addresses, accounts or keys, or shows them"
    )]
    Forbidden(String),
    /// REST methods, and operations without `rest`.
    #[error("REST methods are listed, and operations leave rest out")]
    RestWithoutRest,
    /// Zero uses.
    #[error("a key with no uses left need not be opened")]
    NoUse,
    /// Not `10/s`.
    #[error("a rate is a number from 1 to 1000000, a slash, and s, m or h, such as 10/s")]
    Rate,
}

/// What can be asked of a key.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// A signed login.
    Auth,
    /// An access token.
    Token,
    /// A signed REST request.
    Rest,
}

impl Operation {
    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Token => "token",
            Self::Rest => "rest",
        }
    }
}

/// One REST method, exactly: `GET /api/v2/private/get_positions`.
#[derive(Clone, Eq, PartialEq)]
pub struct RestMethod(Arc<str>);

impl RestMethod {
    /// Returns the method and the path, with the blank between them.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells whether a request is for this method.
    pub(super) fn is(&self, verb: &str, path: &str) -> bool {
        self.0.split_once(' ') == Some((verb, path))
    }
}

impl FromStr for RestMethod {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let (verb, path) = text.split_once(' ').ok_or(PolicyError::NotAMethod)?;
        if !matches!(verb, "GET" | "POST") {
            return Err(PolicyError::NotAMethod);
        }
        let name = rest::method_of(path).ok_or(PolicyError::NotAMethod)?;
        if rest::is_forbidden(name) {
            return Err(PolicyError::Forbidden(text.into()));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Debug for RestMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RestMethod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// So many in so long: `10/s`, `600/m`, `5000/h`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// How many, which may all come at once.
    pub count: u32,
    /// In how long.
    pub period: Duration,
}

impl FromStr for Rate {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let (count, unit) = text.split_once('/').ok_or(PolicyError::Rate)?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return Err(PolicyError::Rate),
        };
        let digits = count.bytes().all(|b| b.is_ascii_digit());
        match count.parse() {
            Ok(count) if digits && (1..=1_000_000).contains(&count) => Ok(Self {
                count,
                period: Duration::from_secs(seconds),
            }),
            _ => Err(PolicyError::Rate),
        }
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

fn a_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text)
        .map(Some)
        .map_err(|_| de::Error::custom("a duration is written like 8h or 15m"))
}

/// A bucket that fills at a rate and is emptied by one for each use.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: Rate,
    /// How much is in it, counted in fractions of a use.
    filled: f64,
    at: Duration,
}

impl Bucket {
    /// Starts full.
    pub(super) fn new(rate: Rate, now: Duration) -> Self {
        Self {
            rate,
            filled: f64::from(rate.count),
            at: now,
        }
    }

    /// Takes one out, if there is one.
    pub(super) fn take(&mut self, now: Duration) -> bool {
        let most = f64::from(self.rate.count);
        let since = now.saturating_sub(self.at).as_secs_f64();
        self.at = now;
        self.filled = (self.filled + since * most / self.rate.period.as_secs_f64()).min(most);
        if self.filled < 1.0 {
            return false;
        }
        self.filled -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_bucket_holds_what_its_rate_says() {
        let start = Duration::from_secs(100);
        let mut bucket = Bucket::new("2/s".parse().unwrap(), start);
        assert!(bucket.take(start) && bucket.take(start) && !bucket.take(start));
        assert!(!bucket.take(start + Duration::from_millis(400)));
        assert!(bucket.take(start + Duration::from_millis(510)));
        // However long nobody came, no more than one filling is there.
        let later = start + Duration::from_secs(3600);
        assert!(bucket.take(later) && bucket.take(later) && !bucket.take(later));
    }

    #[test]
    fn rates_are_read_strictly() {
        for text in [
            "", "10", "0/s", "+1/s", "1/d", "1 /s", "1/s ", "-1/s", "1.5/s",
        ] {
            assert!(text.parse::<Rate>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn policies_list_exact_methods_and_no_dangerous_ones() {
        let fine: RestMethod = "GET /api/v2/private/get_positions".parse().unwrap();
        assert!(fine.is("GET", "/api/v2/private/get_positions"));
        assert!(!fine.is("POST", "/api/v2/private/get_positions"));
        for text in [
            "GET  /api/v2/private/get_positions",
            "get /api/v2/private/get_positions",
            "PUT /api/v2/private/get_positions",
            "GET /api/v2/private/Get_positions",
            "GET /api/v2/private/*",
            "GET /api/v2/private/",
            "GET /api/v2",
            "POST /api/v2",
            "POST /api/v2/",
            "GET /api/v2/public/auth",
            "GET /api/v2/private/../public/auth",
            "GET /api/v2/private/get_positions?currency=BTC",
            "GET //api/v2/private/get_positions",
        ] {
            let error = text.parse::<RestMethod>().unwrap_err();
            assert!(matches!(error, PolicyError::NotAMethod), "{text:?}");
        }
        for name in [
            "withdraw",
            "cancel_withdrawal",
            "get_withdrawals",
            "submit_transfer_to_subaccount",
            "submit_transfer_to_user",
            "submit_transfer_between_subaccounts",
            "cancel_transfer_by_id",
            "get_transfers",
            "add_to_address_book",
            "remove_from_address_book",
            "update_in_address_book",
            "get_address_book",
            "save_address_beneficiary",
            "create_deposit_address",
            "get_current_deposit_address",
            "set_clearance_originator",
            "create_api_key",
            "list_api_keys",
            "edit_api_key",
            "enable_api_key",
            "disable_api_key",
            "remove_api_key",
            "reset_api_key",
            "change_api_key_name",
            "change_scope_in_api_key",
            "get_api_key",
            "create_subaccount",
            "remove_subaccount",
            "set_email_for_subaccount",
            "toggle_subaccount_login",
            "set_password_for_subaccount",
            "get_subaccounts",
            "set_disabled_trading_products",
            "move_positions",
            "logout",
            "get_access_log",
            "enable_affiliate_program",
            "exchange_token",
        ] {
            let error = format!("POST /api/v2/private/{name}").parse::<RestMethod>();
            assert!(matches!(error, Err(PolicyError::Forbidden(_))), "{name}");
        }
    }
}
