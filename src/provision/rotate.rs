//! Putting one generation of a key in the place of another, one journalled step after another.
//!
//! create -> prove -> deploy -> switch -> grace -> disable the old. A working key exists at every
//! moment: the old one is touched only after the new one has logged in with the same rights.

use std::time::Duration;

use super::{Event, Operator, Outcomes, Work, register::unfinished};
use crate::{
    Error,
    exchange::{Scope, Transport},
    key::KeyName,
    signer::Signer,
    store::{Generation, Intent, Issued, Moment, Operation, Registration, Stage, Succession},
};

/// Tells a program of the new key; its refusal rolls the rotation back.
pub type Hook<'a> = dyn FnMut(&Intent, &Issued) -> Result<(), String> + 'a;

/// Where a rotation stands when a call returns without an error.
#[derive(Debug)]
pub enum Rotated {
    /// The old key is disabled, or gone.
    Done(Outcomes),
    /// The new key is in use; the old one stays enabled until then.
    Waiting(Outcomes, Moment),
}

impl<'a, T: Transport> Work<'a, T> {
    /// Carries a rotation or a rollback from wherever it stands as far as it can go now.
    ///
    /// `signer` holds the key that is to be used from now on.
    ///
    /// # Errors
    /// [`Error::Hook`] where it was rolled back, [`Error::Unfinished`] where `resume` can go on.
    pub async fn rotate(
        &mut self,
        mut intent: Intent,
        signer: &'a dyn Signer,
        hook: &mut Hook<'_>,
    ) -> Result<Rotated, Error> {
        let asked_before = intent.stage == Stage::Creating;
        match self.carry_rotation(&mut intent, signer, hook).await {
            Ok(rotated) => Ok(rotated),
            Err(error @ Error::Hook { .. }) => Err(error),
            Err(error)
                if intent.operation == Operation::Rotate
                    && self
                        .is_refused_for_good(&intent, asked_before, signer, &error)
                        .await =>
            {
                self.drop_generation(&intent)?;
                Err(error)
            }
            Err(source) => Err(unfinished(&intent, source)),
        }
    }

    async fn carry_rotation(
        &mut self,
        intent: &mut Intent,
        signer: &'a dyn Signer,
        hook: &mut Hook<'_>,
    ) -> Result<Rotated, Error> {
        if let Some(issued) = intent.issued.clone()
            && intent.succession.as_ref().is_some_and(|s| s.taken_back)
        {
            self.undo(intent, &issued).await?;
            return Err(Error::Hook {
                problem: "failed before this was interrupted".into(),
            });
        }
        let mut granted = None;
        if intent.stage < Stage::Proven {
            if intent.operation == Operation::Rollback {
                granted = self.revive(intent, signer).await?;
            } else {
                let (issued, proven) = self.establish(intent, signer).await?;
                granted = proven.map(|proven| proven.granted);
                let now = Some((self.now)());
                self.write_record(intent, &issued, &intent.spec.scope, now)?;
            }
            self.enter(intent, Stage::Proven)?;
        }
        let (Some(succession), Some(issued)) = (intent.succession.clone(), intent.issued.clone())
        else {
            return Err(Error::SettingDiffers { what: "journal" });
        };
        // Nothing is put in use that is gone, whoever took it away in the meantime.
        if intent.stage <= Stage::Deployed && !self.has(issued.key_id, &issued.client_id).await? {
            self.drop_generation(intent)?;
            return Err(Error::Hook {
                problem: "failed before".into(),
            });
        }
        if intent.stage == Stage::Proven {
            if let Err(problem) = hook(intent, &issued) {
                // From here on there is no way forward: the new key may be gone.
                let mut refused = succession;
                refused.taken_back = true;
                intent.succession = Some(refused);
                self.enter(intent, Stage::Proven)?;
                self.undo(intent, &issued).await?;
                return Err(Error::Hook { problem });
            }
            self.enter(intent, Stage::Deployed)?;
        }
        if intent.stage == Stage::Deployed {
            self.store.switch(&intent.name, intent.generation)?;
            let mut held = succession.clone();
            held.until = Some(after((self.now)(), succession.grace));
            intent.succession = Some(held);
            self.enter(intent, Stage::Switched)?;
            (self.tell)(Event::Switched(intent.generation));
        }
        let until = intent.succession.as_ref().and_then(|s| s.until);
        if intent.stage == Stage::Switched {
            self.retire(&intent.name, succession.from, true)?;
            if let Some(until) = until.filter(|until| (self.now)() < *until) {
                return Ok(Rotated::Waiting(self.outcomes(intent, granted)?, until));
            }
            // If the new key was disabled since, the old one may be the last that works.
            if self.is_disabled(&intent.name, intent.generation)?
                && !self.is_disabled(&intent.name, succession.from)?
            {
                return Err(Error::Disabled {
                    name: intent.name.clone(),
                });
            }
            self.close(&succession, &issued, signer, Operation::Disable)
                .await?;
            self.retire(&intent.name, succession.from, false)?;
            (self.tell)(Event::Disabled(&succession.client_id));
            self.enter(intent, Stage::Disabled)?;
        }
        if succession.remove_old {
            self.close(&succession, &issued, signer, Operation::Remove)
                .await?;
            if self
                .store
                .generations(&intent.name)?
                .contains(&succession.from)
            {
                self.store
                    .discard_generation(&intent.name, succession.from, (self.now)())?;
            }
        }
        let outcomes = self.outcomes(intent, granted)?;
        self.store.conclude(&intent.name)?;
        Ok(Rotated::Done(outcomes))
    }

    /// Disables or removes the old key; with the new key itself where the old one is the operator.
    async fn close(
        &mut self,
        old: &Succession,
        new: &Issued,
        signer: &'a dyn Signer,
        operation: Operation,
    ) -> Result<(), Error> {
        if *self.desk.operator().client_id() == old.client_id {
            self.desk.take_over(Operator::Key {
                client_id: new.client_id.clone(),
                signer,
            });
        }
        self.set(old.key_id, &old.client_id, operation).await
    }

    /// Lets the earlier key log in again and proves it.
    async fn revive(
        &mut self,
        intent: &mut Intent,
        signer: &dyn Signer,
    ) -> Result<Option<Scope>, Error> {
        let Some(issued) = intent.issued.clone() else {
            return Err(Error::SettingDiffers { what: "journal" });
        };
        self.set(issued.key_id, &issued.client_id, Operation::Enable)
            .await?;
        let scope = intent.spec.scope.clone();
        let granted = match self.prove(&issued.client_id, signer, &scope).await {
            Ok(proven) => {
                (self.tell)(Event::Proven(proven.granted()));
                Some(proven.granted)
            }
            // It has logged in before; this host need not be on its whitelist.
            Err(Error::Exchange(error))
                if error.is_credentials() && !intent.spec.whitelist.is_empty() =>
            {
                (self.tell)(Event::NotFromHere);
                None
            }
            Err(error) => return Err(error),
        };
        let now = Some((self.now)());
        self.write_record(intent, &issued, &scope, now)?;
        Ok(granted)
    }

    /// Takes back a new key that nobody uses yet; the old one was never touched.
    async fn undo(&mut self, intent: &Intent, issued: &Issued) -> Result<(), Error> {
        if intent.operation == Operation::Rollback {
            self.set(issued.key_id, &issued.client_id, Operation::Disable)
                .await?;
            self.retire(&intent.name, intent.generation, false)?;
            return Ok(self.store.conclude(&intent.name)?);
        }
        self.set(issued.key_id, &issued.client_id, Operation::Remove)
            .await?;
        self.drop_generation(intent)
    }

    fn drop_generation(&mut self, intent: &Intent) -> Result<(), Error> {
        let there = self
            .store
            .generations(&intent.name)?
            .contains(&intent.generation);
        if intent.operation == Operation::Rotate && there {
            self.store
                .discard_generation(&intent.name, intent.generation, (self.now)())?;
        }
        Ok(self.store.conclude(&intent.name)?)
    }

    /// Marks a generation as one that another has taken the place of.
    fn retire(&self, name: &KeyName, old: Generation, enabled: bool) -> Result<(), Error> {
        let mut record = self.store.record_of(name, old)?;
        if let Some(known) = &mut record.registration {
            // Once it is retired, somebody may have disabled it before its time.
            if known.retired.is_none() || !enabled {
                known.enabled = enabled;
            }
            known.retired = known.retired.or(Some((self.now)()));
        }
        Ok(self.store.write_record(name, old, &record)?)
    }

    fn outcomes(&self, intent: &Intent, granted: Option<Scope>) -> Result<Outcomes, Error> {
        let record = self.store.record_of(&intent.name, intent.generation)?;
        let registration = record
            .registration
            .ok_or(Error::SettingDiffers { what: "journal" })?;
        Ok(Outcomes {
            registration,
            granted,
        })
    }

    /// Removes, at the exchange, a generation that was superseded before: an account has room for
    /// eight keys, and one is enough to go back to.
    ///
    /// # Errors
    /// Those of the exchange and the keystore.
    pub async fn make_room(
        &mut self,
        name: &KeyName,
        generation: Generation,
        known: &Registration,
    ) -> Result<(), Error> {
        if let Some(id) = known.key_id {
            self.set(id, &known.client_id, Operation::Remove).await?;
        }
        self.store
            .discard_generation(name, generation, (self.now)())?;
        Ok(())
    }
}

/// The longest grace, in seconds: a year.
const LONGEST_GRACE: u64 = 366 * 86_400;

fn after(now: Moment, seconds: u64) -> Moment {
    // A moment after the year 9999 cannot be written down.
    let grace = Duration::from_secs(seconds.min(LONGEST_GRACE));
    Moment(now.0.checked_add(grace).unwrap_or(now.0))
}
