//! Giving an unfinished operation up: what it made is taken back, and it is struck out.

use super::Work;
use crate::{
    Error,
    exchange::Transport,
    store::{Intent, Moment, Operation, Stage, Store},
};

/// What giving an operation up comes to, for whoever must agree to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Surrender {
    /// The exchange has not heard of it: nothing is sent.
    Unheard,
    /// The key that it registered, if any, is removed at the exchange.
    KeyRemoved,
    /// The key that it enabled is disabled again.
    KeyDisabled,
    /// It is only struck out; what the exchange has stays as it is.
    LeftAsItIs,
}

impl Surrender {
    /// Returns what giving an operation up would come to.
    pub fn of(intent: &Intent) -> Self {
        match intent.operation {
            Operation::Provision | Operation::Register | Operation::Rotate
                if intent.stage < Stage::Creating =>
            {
                Self::Unheard
            }
            Operation::Provision | Operation::Register => Self::KeyRemoved,
            Operation::Rotate if intent.stage < Stage::Switched => Self::KeyRemoved,
            Operation::Rollback if intent.stage < Stage::Switched => Self::KeyDisabled,
            _ => Self::LeftAsItIs,
        }
    }
}

impl<T: Transport> Work<'_, T> {
    /// Takes back what an unfinished operation has made, and strikes it out.
    ///
    /// # Errors
    /// Those of the exchange and the keystore; it is still under way then.
    pub async fn give_up(&mut self, intent: &Intent) -> Result<(), Error> {
        match Surrender::of(intent) {
            Surrender::KeyRemoved => self.unregister(intent).await?,
            Surrender::KeyDisabled => {
                if let Some(issued) = &intent.issued {
                    return self.undo(intent, issued).await;
                }
            }
            Surrender::Unheard | Surrender::LeftAsItIs => {}
        }
        strike_out(self.store, intent, (self.now)())
    }

    /// Removes the key that an operation registered, by its public half: its id may not be known.
    async fn unregister(&mut self, intent: &Intent) -> Result<(), Error> {
        let public = self.store.public_of(&intent.name, intent.generation).ok();
        let found = match public {
            Some(public) => self.search(intent, &public).await?,
            None => None,
        };
        if let Some(key) = found {
            self.seen.insert(key.id, key.client_id.clone());
            return self.set(key.id, &key.client_id, Operation::Remove).await;
        }
        match &intent.issued {
            Some(issued) => {
                self.set(issued.key_id, &issued.client_id, Operation::Remove)
                    .await
            }
            None => Ok(()),
        }
    }
}

/// Ends an operation here: what it made goes to the trash, what was there before stays.
///
/// # Errors
/// Those of the keystore.
pub fn strike_out(store: &Store, intent: &Intent, now: Moment) -> Result<(), Error> {
    let (name, generation) = (&intent.name, intent.generation);
    let there = store.contains(name) && store.generations(name)?.contains(&generation);
    match intent.operation {
        Operation::Provision if there => {
            store.discard(name, now)?;
        }
        Operation::Register if there => {
            let mut record = store.record_of(name, generation)?;
            if record.registration.take().is_some() {
                store.write_record(name, generation, &record)?;
            }
        }
        Operation::Rotate if there && intent.stage < Stage::Switched => {
            store.discard_generation(name, generation, now)?;
        }
        _ => {}
    }
    Ok(store.conclude(name)?)
}
