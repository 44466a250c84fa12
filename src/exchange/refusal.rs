//! What the exchange says when it refuses, as data.

use std::fmt;

/// A refusal: a code of the exchange's complete list, and what came with it.
///
/// Remote words are kept only when they are words: lower and upper case letters, blanks and
/// underscores. A hostile or broken exchange could echo a token or a one-time code, and this text
/// ends up on terminals and in logs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// The method that was called.
    pub method: &'static str,
    /// The exchange's code.
    pub code: i64,
    /// The exchange's word for it, if it is one.
    pub message: Option<String>,
    /// `data.reason`, if it is a word.
    pub reason: Option<String>,
    /// `data.param`, if it is a word.
    pub param: Option<String>,
    /// Seconds to wait, where the exchange says so.
    pub wait: Option<u64>,
}

/// What a refusal means for the caller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Wrong id, secret, signature or token; or the clock is wrong, or the key is disabled or used
    /// from an address that is not on its whitelist. The exchange does not say which.
    Credentials,
    /// The credentials are good and not enough.
    Permission,
    /// The caller's scope is smaller than the scope it hands out.
    ScopeExceeded,
    /// The second factor was refused.
    SecondFactor,
    /// The account must set up a second factor first.
    SecondFactorSetup,
    /// Too many failed codes; see [`Refusal::wait`].
    SecondFactorLocked,
    /// Too many requests; see [`Refusal::wait`].
    RateLimit,
    /// Not now: maintenance, settlement, a full queue. Whether the call was carried out all the same,
    /// [`Refusal::leaves_doubt`] tells.
    Transient,
    /// The request itself is not to the exchange's liking.
    Invalid,
    /// There is no such method.
    NoSuchMethod,
    /// Anything else.
    Other,
}

impl Refusal {
    /// Tells whether the call may have been carried out: the exchange broke off in the middle of it
    /// (`internal_server_error`, `timed_out`).
    pub const fn leaves_doubt(&self) -> bool {
        matches!(self.code, 11094 | 13888)
    }

    /// Returns what the code means (Deribit, "Complete RPC error codes reference").
    pub const fn kind(&self) -> Kind {
        match self.code {
            10000 | 13004 | 13009 => Kind::Credentials,
            11042 | 13007 | 13012 | 13020 | 13021 | 13025 | 13031 | 11098 => Kind::Permission,
            13403 => Kind::ScopeExceeded,
            13668 => Kind::SecondFactor,
            13904 => Kind::SecondFactorSetup,
            12998 => Kind::SecondFactorLocked,
            10028 | 10066 | 12003 => Kind::RateLimit,
            10040 | 10041 | 10047 | 11051 | 11056 | 11094 | 13028 | 13503 | 13888 => {
                Kind::Transient
            }
            -32602 | -32000 | -32600 | -32700 | 11029 | 11043 | 11049 | 11050 | 13010 | 13011
            | 13016 | 13018 => Kind::Invalid,
            -32601 | 10033 => Kind::NoSuchMethod,
            _ => Kind::Other,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the exchange refused {}: ", self.method)?;
        f.write_str(self.message.as_deref().unwrap_or("no readable message"))?;
        write!(f, " (code {}", self.code)?;
        if let Some(reason) = &self.reason {
            write!(f, ", reason {reason}")?;
        }
        if let Some(param) = &self.param {
            write!(f, ", param {param}")?;
        }
        if let Some(wait) = self.wait {
            write!(f, ", wait {wait} s")?;
        }
        f.write_str(")")
    }
}

/// Returns remote text if it is words and nothing else.
pub(super) fn words(text: &str) -> Option<String> {
    // A capital inside a word, or a very long word, may be a piece of a token.
    let word = |word: &str| {
        let rest = word
            .strip_prefix(|c: char| c.is_ascii_uppercase())
            .unwrap_or(word);
        rest.len() <= 24 && rest.bytes().all(|b| b.is_ascii_lowercase())
    };
    let harmless = (1..=64).contains(&text.len()) && text.split([' ', '_']).all(word);
    harmless.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn only_words_are_kept_of_remote_text() {
        for kept in [
            "unauthorized",
            "Invalid params",
            "tfa_code_not_matched",
            "scope_exceeded",
        ] {
            assert_eq!(words(kept).as_deref(), Some(kept));
        }
        for dropped in [
            "",
            "123456",
            "\u{1b}[2Jgone",
            "Bearer eyJhbGciOi",
            "a\nb",
            "AbCdEfGhIjKlMnOpQrStUvWxYzAbCd",
            &"x ".repeat(99),
        ] {
            assert_eq!(words(dropped), None);
        }
    }
}
