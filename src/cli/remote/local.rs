//! The keys here, as far as they can be read, to be held against the account's.

use crate::{
    cli::{context::Context, failure::Failure},
    exchange::{ApiKey, Network},
    key::{KeyName, PublicKey},
    store::{Generation, Record, Registration, State},
};

/// A generation here that belongs to the network, or may: its record cannot be read.
pub(in crate::cli) struct Local {
    pub(in crate::cli) name: KeyName,
    pub(in crate::cli) generation: Generation,
    pub(in crate::cli) in_use: bool,
    pub(in crate::cli) record: Option<Record>,
    pub(in crate::cli) public: Option<PublicKey>,
    pub(in crate::cli) problem: Option<Failure>,
}

impl Local {
    /// Tells whether a remote key is this one, by whatever can be read here.
    pub(in crate::cli) fn is(&self, key: &ApiKey) -> bool {
        match (&self.public, &self.record) {
            (Some(public), _) => key.is(public),
            (None, Some(record)) => {
                let theirs = key.public_key.as_ref();
                theirs.is_some_and(|theirs| theirs.fingerprint() == record.fingerprint)
            }
            (None, None) => false,
        }
    }

    pub(in crate::cli) fn known(&self) -> Option<&Registration> {
        self.record.as_ref()?.registration.as_ref()
    }

    pub(in crate::cli) fn is_retired(&self) -> bool {
        let state = self.record.as_ref().map(Record::state);
        state == Some(State::Retired)
    }

    /// How a command names it.
    pub(in crate::cli) fn target(&self) -> String {
        match self.known() {
            Some(known) if !self.in_use => format!("client:{}", known.client_id),
            _ => self.name.to_string(),
        }
    }
}

pub(in crate::cli) fn locals(context: &Context, network: &Network) -> Result<Vec<Local>, Failure> {
    let mut locals = Vec::new();
    for name in context.store.names()? {
        let current = context.store.current(&name);
        let lost = || {
            let error = current.as_ref().err()?;
            Some(Failure::key(error.to_string()).hint("restore it from a backup, or move it away"))
        };
        let generations = context.store.generations(&name).unwrap_or_default();
        // A link or a file in the place of a key has no generations.
        if let (true, Some(problem)) = (generations.is_empty(), lost()) {
            locals.push(Local {
                name,
                generation: Generation::FIRST,
                in_use: true,
                record: None,
                public: None,
                problem: Some(problem),
            });
            continue;
        }
        for generation in generations {
            let (record, not_read) = split(context.store.record_of(&name, generation));
            let (public, not_found) = split(context.store.public_of(&name, generation));
            let elsewhere = |record: &Record| {
                let known = record.registration.as_ref();
                known.is_none_or(|known| known.network != *network)
            };
            if record.as_ref().is_some_and(elsewhere) {
                continue;
            }
            locals.push(Local {
                name: name.clone(),
                generation,
                in_use: current.as_ref().is_ok_and(|current| *current == generation),
                record,
                public,
                problem: not_read.or(not_found).or_else(lost),
            });
        }
    }
    Ok(locals)
}

fn split<T>(result: Result<T, crate::store::Error>) -> (Option<T>, Option<Failure>) {
    match result {
        Ok(value) => (Some(value), None),
        Err(error) => (None, Some(error.into())),
    }
}
