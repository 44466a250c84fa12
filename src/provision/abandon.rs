//! Giving an unfinished operation up: what it made is taken back, and it is struck out.

use super::Work;
use crate::{
    Error,
    exchange::Transport,
    key::KeyName,
    store::{Generation, Intent, Moment, Operation, Stage, Store},
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
    pub fn of(store: &Store, intent: &Intent) -> Self {
        let switched = is_switched(store, intent);
        match intent.operation {
            Operation::Provision | Operation::Register | Operation::Rotate
                if intent.stage < Stage::Creating =>
            {
                Self::Unheard
            }
            Operation::Provision | Operation::Register => Self::KeyRemoved,
            Operation::Rotate if !switched => Self::KeyRemoved,
            Operation::Rollback if !switched => Self::KeyDisabled,
            _ => Self::LeftAsItIs,
        }
    }
}

/// Tells whether the key that a rotation or a rollback is about is the one in use.
///
/// The link is switched a moment before that is written down.
fn is_switched(store: &Store, intent: &Intent) -> bool {
    let in_use = store
        .current(&intent.name)
        .is_ok_and(|current| current == intent.generation);
    intent.succession.is_some() && (in_use || intent.stage >= Stage::Switched)
}

/// Tells whether the key that an operation is about is in the keystore.
fn is_here(store: &Store, intent: &Intent) -> Result<bool, Error> {
    let name = &intent.name;
    Ok(store.contains(name) && store.generations(name)?.contains(&intent.generation))
}

impl<T: Transport> Work<'_, T> {
    /// Takes back what an unfinished operation has made, and strikes it out.
    ///
    /// # Errors
    /// Those of the exchange and the keystore; it is still under way then.
    pub async fn give_up(&mut self, intent: &Intent) -> Result<(), Error> {
        match Surrender::of(self.store, intent) {
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
        let found = match self.store.public_of(&intent.name, intent.generation) {
            Ok(public) => self.search_again(intent, &|key| key.is(&public)).await?,
            // Its id says which it is.
            Err(_) if intent.issued.is_some() => None,
            Err(error) => match intent.fingerprint {
                // Somebody took it out of the keystore; a file that cannot be read is there.
                Some(ours) if !is_here(self.store, intent)? => {
                    self.search_again(intent, &|key| key.shows(ours)).await?
                }
                _ => return Err(error.into()),
            },
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

/// Ends an operation here: what it made goes to the trash, what was there before stays, and what
/// it had put off goes on.
///
/// # Errors
/// Those of the keystore.
pub fn strike_out(store: &Store, intent: &Intent, now: Moment) -> Result<(), Error> {
    let (name, generation) = (&intent.name, intent.generation);
    let there = is_here(store, intent)?;
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
        Operation::Rotate | Operation::Rollback if is_switched(store, intent) => {
            // The key before is one to go back to, and the next rotation clears it away.
            if let Some(succession) = &intent.succession {
                supersede(store, name, succession.from, now)?;
            }
        }
        Operation::Rotate if there => {
            store.discard_generation(name, generation, now)?;
        }
        Operation::Rollback => {
            // A rotation that was in its grace takes its course again.
            let before = intent.succession.as_ref();
            if let Some(before) = before.and_then(|s| s.puts_off.as_deref()) {
                return Ok(store.announce(before)?);
            }
        }
        _ => {}
    }
    Ok(store.conclude(name)?)
}

/// Marks a generation as one that another has taken the place of, if it is still there.
fn supersede(
    store: &Store,
    name: &KeyName,
    generation: Generation,
    now: Moment,
) -> Result<(), Error> {
    if !store.generations(name)?.contains(&generation) {
        return Ok(());
    }
    let mut record = store.record_of(name, generation)?;
    if let Some(known) = &mut record.registration {
        known.retired = known.retired.or(Some(now));
    }
    Ok(store.write_record(name, generation, &record)?)
}
