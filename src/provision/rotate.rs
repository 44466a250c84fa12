//! Putting one generation of a key in the place of another, one journalled step after another.
//!
//! create -> prove -> deploy -> switch -> grace -> disable the old. A working key exists at every
//! moment: the old one is touched only after the new one has logged in with the same rights.

use std::time::Duration;

use super::{Event, Operator, Outcomes, Work, as_it_is, strike_out, verdict::unfinished};
use crate::{
    Error,
    exchange::{Scope, Transport, Whitelisted},
    key::KeyName,
    signer::Signer,
    store::{Generation, Intent, Issued, Moment, Operation, Stage, Succession},
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
    /// The program that is told of a new key had refused it before this was interrupted; it is
    /// taken back, and the key of before is in use.
    TakenBack,
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
            Err(error @ (Error::Hook { .. } | Error::Unfinished { .. })) => Err(error),
            // Struck out by whoever disabled it: there is nothing to resume.
            Err(error @ Error::Disabled { .. }) if self.store.intent(&intent.name)?.is_none() => {
                Err(error)
            }
            Err(error @ Error::SuccessorUnusable { .. }) if intent.stage <= Stage::Deployed => {
                Err(error)
            }
            Err(error)
                if intent.operation == Operation::Rotate
                    && self
                        .is_refused_for_good(&intent, asked_before, signer, &error)
                        .await =>
            {
                strike_out(self.store, &intent, (self.now)())?;
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
            return Ok(Rotated::TakenBack);
        }
        let proven_before = intent.stage >= Stage::Proven;
        let mut granted = None;
        if !proven_before {
            granted = self.bring_in(intent, signer).await?;
        }
        let (Some(succession), Some(issued)) = (intent.succession.clone(), intent.issued.clone())
        else {
            return Err(Error::SettingDiffers { what: "journal" });
        };
        if intent.stage <= Stage::Deployed {
            self.must_be_there(intent, &issued).await?;
        }
        if intent.stage == Stage::Proven {
            self.deploy(intent, &issued, hook).await?;
        }
        if intent.stage == Stage::Deployed {
            self.put_in_use(intent, &succession)?;
        }
        let until = intent.succession.as_ref().and_then(|s| s.until);
        if intent.stage == Stage::Switched
            && let Some(until) = until.filter(|until| (self.now)() < *until)
        {
            return Ok(Rotated::Waiting(self.outcomes(intent, granted)?, until));
        }
        let touches_old = intent.stage == Stage::Switched || succession.remove_old;
        if touches_old && !self.both_disabled(intent, &succession)? {
            if proven_before {
                granted = self.prove_again(intent, &issued, signer).await?;
            } else if !succession.hook.is_empty() {
                // A program that is told of the new key takes its time, too.
                granted = self
                    .prove_as(
                        &intent.name,
                        &issued,
                        signer,
                        &intent.spec.scope,
                        &intent.spec.whitelist,
                    )
                    .await?;
            }
        }
        self.let_go(intent, &succession, &issued, signer).await?;
        self.clear_superseded(&intent.name, &[succession.from, intent.generation])
            .await?;
        let outcomes = self.outcomes(intent, granted)?;
        self.store.conclude(&intent.name)?;
        Ok(Rotated::Done(outcomes))
    }

    /// create -> prove: a new key, or the earlier one that is gone back to.
    async fn bring_in(
        &mut self,
        intent: &mut Intent,
        signer: &'a dyn Signer,
    ) -> Result<Option<Scope>, Error> {
        let granted = if intent.operation == Operation::Rollback {
            self.revive(intent, signer).await?
        } else {
            let (issued, proven) = self.establish(intent, signer).await?;
            let now = Some((self.now)());
            self.write_record(intent, &issued, &intent.spec.scope, now)?;
            proven.map(|proven| proven.granted)
        };
        self.enter(intent, Stage::Proven)?;
        Ok(granted)
    }

    /// deploy: the program that is told of the new key has the last word.
    async fn deploy(
        &mut self,
        intent: &mut Intent,
        issued: &Issued,
        hook: &mut Hook<'_>,
    ) -> Result<(), Error> {
        let Err(problem) = hook(intent, issued) else {
            return self.enter(intent, Stage::Deployed);
        };
        // From here on there is no way forward: the new key may be gone.
        if let Some(succession) = &mut intent.succession {
            succession.taken_back = true;
        }
        self.enter(intent, Stage::Proven)?;
        self.undo(intent, issued).await?;
        Err(Error::Hook { problem })
    }

    /// switch: commands use the new key from here on, and the grace of the old one begins.
    fn put_in_use(&mut self, intent: &mut Intent, succession: &Succession) -> Result<(), Error> {
        self.store.switch(&intent.name, intent.generation)?;
        if let Some(held) = &mut intent.succession {
            held.until = Some(after((self.now)(), succession.grace));
        }
        // Before that is written down: what waits for its grace to end looks no further, and a
        // generation that is not retired is none to go back to.
        self.retire(&intent.name, succession.from, true)?;
        self.enter(intent, Stage::Switched)?;
        (self.tell)(Event::Switched(intent.generation));
        Ok(())
    }

    /// Tells whether somebody has disabled both keys, which was meant.
    fn both_disabled(&self, intent: &Intent, succession: &Succession) -> Result<bool, Error> {
        Ok(self.is_disabled(&intent.name, intent.generation)?
            && self.is_disabled(&intent.name, succession.from)?)
    }

    /// disable the old, and remove it where that was asked for.
    async fn let_go(
        &mut self,
        intent: &mut Intent,
        old: &Succession,
        new: &Issued,
        signer: &'a dyn Signer,
    ) -> Result<(), Error> {
        if intent.stage == Stage::Switched {
            self.close(old, new, signer, Operation::Disable).await?;
            self.retire(&intent.name, old.from, false)?;
            (self.tell)(Event::Disabled(&old.client_id));
            self.enter(intent, Stage::Disabled)?;
        }
        if old.remove_old {
            self.close(old, new, signer, Operation::Remove).await?;
            if self.store.generations(&intent.name)?.contains(&old.from) {
                self.store
                    .discard_generation(&intent.name, old.from, (self.now)())?;
            }
        }
        Ok(())
    }

    /// Makes sure that nothing is put in use that is gone, whoever took it away in the meantime;
    /// where it is, there is no way forward, and the operation is struck out.
    async fn must_be_there(&mut self, intent: &Intent, issued: &Issued) -> Result<(), Error> {
        if self.has(issued.key_id, &issued.client_id).await? {
            return Ok(());
        }
        strike_out(self.store, intent, (self.now)())?;
        Err(Error::SuccessorUnusable {
            client_id: issued.client_id.clone(),
            problem: "gone from the account",
        })
    }

    /// Makes sure that the new key still works, before the old one goes: a grace is long enough
    /// for somebody to disable or remove it.
    async fn prove_again(
        &mut self,
        intent: &Intent,
        issued: &Issued,
        signer: &dyn Signer,
    ) -> Result<Option<Scope>, Error> {
        let unusable = |problem| Error::SuccessorUnusable {
            client_id: issued.client_id.clone(),
            problem,
        };
        let survey = self.survey_with(&issued.client_id).await?;
        let key = survey
            .by_id(issued.key_id)
            .filter(|key| key.client_id == issued.client_id)
            .ok_or_else(|| unusable("gone from the account"))?;
        if key.enabled == Some(false) {
            return Err(unusable("disabled"));
        }
        // Narrower is what somebody has meant; nothing at all is another way to disable it.
        let scope = key.max_scope.clone();
        if scope.allowed().next().is_none() && intent.spec.scope.allowed().next().is_some() {
            return Err(unusable("left without any right"));
        }
        let whitelist = as_it_is(key, &intent.spec).whitelist;
        self.prove_as(&intent.name, issued, signer, &scope, &whitelist)
            .await
    }

    /// Proves a key that has logged in before; this host need not be on its whitelist.
    async fn prove_as(
        &mut self,
        name: &KeyName,
        issued: &Issued,
        signer: &dyn Signer,
        scope: &Scope,
        whitelist: &[Whitelisted],
    ) -> Result<Option<Scope>, Error> {
        match self.prove(&issued.client_id, signer, scope).await {
            Ok(proven) => {
                (self.tell)(Event::Proven(proven.granted()));
                Ok(Some(proven.granted))
            }
            Err(Error::Exchange(error)) if error.is_credentials() && !whitelist.is_empty() => {
                self.must_be_kept_out(name, issued).await?;
                (self.tell)(Event::NotFromHere);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes sure that a refused login is the whitelist's doing: a key that somebody has disabled or
    /// removed in the meantime is refused just the same.
    pub(super) async fn must_be_kept_out(
        &mut self,
        name: &KeyName,
        issued: &Issued,
    ) -> Result<(), Error> {
        let survey = self.survey_with(&issued.client_id).await?;
        match survey.by_client_id(&issued.client_id) {
            None => Err(Error::NoSuchApiKey { id: issued.key_id }),
            Some(key) if key.enabled == Some(false) => Err(Error::Disabled { name: name.clone() }),
            // One that lets everybody in keeps nobody out.
            Some(key) if key.ip_whitelist.as_deref().is_some_and(<[_]>::is_empty) => {
                Err(Error::SettingDiffers { what: "whitelist" })
            }
            Some(_) => Ok(()),
        }
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
        // Somebody may have removed it in the meantime, which is as good.
        if !self.has(old.key_id, &old.client_id).await? {
            return Ok(());
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
        self.must_be_there(intent, &issued).await?;
        self.set(issued.key_id, &issued.client_id, Operation::Enable)
            .await?;
        self.must_be_wanted_still(intent, &issued).await?;
        let scope = intent.spec.scope.clone();
        let whitelist = &intent.spec.whitelist;
        let granted = self
            .prove_as(&intent.name, &issued, signer, &scope, whitelist)
            .await?;
        let now = Some((self.now)());
        self.write_record(intent, &issued, &scope, now)?;
        Ok(granted)
    }

    /// Takes back a new key that nobody uses yet; the old one was never touched.
    pub(super) async fn undo(&mut self, intent: &Intent, issued: &Issued) -> Result<(), Error> {
        if intent.operation == Operation::Rollback {
            // A rotation that was in its grace takes its course again: the key stays enabled.
            let put_off = intent
                .succession
                .as_ref()
                .and_then(|s| s.puts_off.as_deref());
            let in_grace = put_off.is_some_and(|before| before.stage == Stage::Switched);
            // Somebody may have removed it in the meantime, which is as good.
            if !in_grace && self.has(issued.key_id, &issued.client_id).await? {
                self.set(issued.key_id, &issued.client_id, Operation::Disable)
                    .await?;
            }
            self.retire(&intent.name, intent.generation, in_grace)?;
        } else {
            self.set(issued.key_id, &issued.client_id, Operation::Remove)
                .await?;
        }
        strike_out(self.store, intent, (self.now)())
    }

    /// Marks a generation as one that another has taken the place of.
    fn retire(&self, name: &KeyName, old: Generation, enabled: bool) -> Result<(), Error> {
        let mut record = self.store.record_of(name, old)?;
        if let Some(known) = &mut record.registration {
            // One that somebody has disabled before its time stays so.
            known.enabled &= enabled;
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

    /// Removes, here and at the exchange, what earlier rotations left behind: an account has room
    /// for eight keys, and one is enough to go back to.
    ///
    /// # Errors
    /// Those of the exchange and the keystore.
    pub async fn clear_superseded(
        &mut self,
        name: &KeyName,
        keep: &[Generation],
    ) -> Result<(), Error> {
        for generation in self.store.generations(name)? {
            if keep.contains(&generation) {
                continue;
            }
            let Some(record) = self.legible(name, generation)? else {
                continue;
            };
            // One that nobody knows of is left from a rotation that ended before it registered.
            if let Some(known) = record.registration {
                if known.retired.is_none() {
                    continue;
                }
                (self.tell)(Event::Clearing(generation));
                if let Some(id) = known.key_id {
                    self.set(id, &known.client_id, Operation::Remove).await?;
                }
            }
            self.store
                .discard_generation(name, generation, (self.now)())?;
        }
        Ok(())
    }
}

/// The longest grace: a year.
pub const LONGEST_GRACE: Duration = Duration::from_secs(366 * 86_400);

fn after(now: Moment, seconds: u64) -> Moment {
    // A moment after the year 9999 cannot be written down.
    let grace = Duration::from_secs(seconds).min(LONGEST_GRACE);
    Moment(now.0.checked_add(grace).unwrap_or(now.0))
}
