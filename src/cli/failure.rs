//! A failure: its cause, its cure and its exit code.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use serde_json::json;

use crate::exchange::Refusal;

mod cures;

pub(super) const EXIT_INTERRUPTED: u8 = 130;

/// A failure: what is true, what to do about it, and the exit code.
#[derive(Debug)]
pub(super) struct Failure {
    kind: &'static str,
    exit: u8,
    message: String,
    hint: Option<String>,
    exchange: Option<Box<Refusal>>,
    everywhere: bool,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $exit:expr),* $(,)?) => { $(
        $(#[$doc])*
        pub(super) fn $name(message: impl Into<String>) -> Self {
            Self::new(stringify!($name), $exit, message.into())
        }
    )* };
}

impl Failure {
    kinds! {
        unexpected = 1,
        usage = 2,
        configuration = 3,
        rejected = 4,
        network = 5,
        second_factor = 6,
        key = 7,
        refused = 8,
        findings = 10,
        verification = 11,
        try_again = 75,
    }

    fn new(kind: &'static str, exit: u8, message: String) -> Self {
        Self {
            kind,
            exit,
            message,
            hint: None,
            exchange: None,
            everywhere: false,
        }
    }

    pub(super) fn interrupted() -> Self {
        Self::interrupted_with(EXIT_INTERRUPTED)
    }

    /// Ends the program as the signal says that ends it.
    pub(super) fn interrupted_with(exit: u8) -> Self {
        Self::new("interrupted", exit, "interrupted".into())
    }

    /// Tells whether the next key would meet with the same: the way to the exchange, who asks
    /// there, the second factor, or a person who has had enough.
    pub(super) const fn is_everywhere(&self) -> bool {
        self.everywhere || self.exit == EXIT_INTERRUPTED
    }

    /// Says what to do about it.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says in front of the cause what it happened to.
    pub(super) fn about(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    pub(super) const fn kind(&self) -> &'static str {
        self.kind
    }

    /// Returns what to do about it; where nothing better is known, what helps with its kind.
    pub(super) fn cure(&self) -> &str {
        if let Some(hint) = &self.hint {
            return hint;
        }
        match self.kind {
            "usage" => "--help after the command shows what it takes",
            "configuration" => "check the flags and config.toml",
            "key" => "check that it is the right file and the right key",
            "refused" => "nothing was changed",
            "verification" => {
                "it was changed, signed with another key, or signed for something else"
            }
            "interrupted" => {
                "\"derikey status\" shows whether anything is under way; \"derikey resume\" finishes it"
            }
            _ => "try again with -v; \"derikey status\" shows whether anything is under way",
        }
    }

    fn with_exchange(mut self, refusal: &Refusal) -> Self {
        self.exchange = Some(Box::new(refusal.clone()));
        self
    }

    /// Writes the failure to standard error and returns its exit code.
    pub(super) fn report(&self, json: bool) -> ExitCode {
        let mut stderr = io::stderr().lock();
        let _ = if json {
            let mut error = json!({"kind": self.kind, "exit": self.exit, "message": self.message, "hint": self.cure()});
            if let (Some(refusal), Some(fields)) = (&self.exchange, error.as_object_mut()) {
                let exchange = json!({"code": refusal.code, "message": refusal.message, "reason": refusal.reason});
                fields.insert("exchange".into(), exchange);
            }
            writeln!(stderr, "{}", json!({"error": error}))
        } else {
            writeln!(
                stderr,
                "derikey: error: {}\nderikey: hint: {}",
                self.message,
                self.cure()
            )
        };
        ExitCode::from(self.exit)
    }
}
