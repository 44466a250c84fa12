//! The agent's decisions on their way into the audit log.
//!
//! A line that is on the disk costs a hundred times what a signature costs. So decisions go to a
//! thread that writes all there are in one piece and makes them last together. It takes them in
//! before their answers are sent, never loses one while the process lives, and makes callers wait
//! when the disk is slow. Refusals that repeat themselves are counted after the first few of a
//! second, so that a flood of them does not fill the disk.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use super::{
    context::{Context, now},
    failure::Failure,
};
use crate::{
    agent::{Decision, Ledger, Subject, Unwritable},
    store::{Entry, Moment},
};

/// What the thread is called that writes the log.
pub(super) const AUDIT: &str = "audit";
/// How many decisions can be on their way, and go into the log in one piece.
const WAITING: usize = 4096;
/// How many refusals of one kind are written one by one in each second.
const EACH_SECOND: u64 = 5;
const SECOND: Duration = Duration::from_secs(1);
/// How long lines are let gather: waking this thread for each, or the disk for a few, would cost
/// their callers more than their signatures.
const GATHER: Duration = Duration::from_millis(20);

enum Message {
    Decided(Decision, SystemTime),
    Flush(SyncSender<()>),
}

/// Takes decisions in.
pub(super) struct Books {
    sender: SyncSender<Message>,
    broken: Arc<AtomicBool>,
}

impl fmt::Debug for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Books")
    }
}

impl Books {
    /// Writes that the agent begins, and starts to take decisions in.
    pub(super) fn open(context: &Arc<Context>) -> Result<Self, Failure> {
        context
            .store
            .audit(Entry::new(now(), "agent start", "done"))?;
        let (sender, receiver) = sync_channel(WAITING);
        let broken = Arc::new(AtomicBool::new(false));
        let clerk = Clerk {
            context: Arc::clone(context),
            broken: Arc::clone(&broken),
            counted: BTreeMap::new(),
            since: Instant::now(),
            failed: None,
        };
        thread::Builder::new()
            .name(AUDIT.into())
            .spawn(move || clerk.run(&receiver))
            .map_err(|error| Failure::unexpected(format!("no thread can be started: {error}")))?;
        Ok(Self { sender, broken })
    }

    /// Waits until everything is written, but not for ever.
    pub(super) fn close(&self) {
        let (done, written) = sync_channel(1);
        let mut message = Message::Flush(done);
        for _ in 0..100 {
            match self.sender.try_send(message) {
                Ok(()) => {
                    let _ = written.recv_timeout(5 * SECOND);
                    return;
                }
                Err(TrySendError::Full(back)) => message = back,
                Err(TrySendError::Disconnected(_)) => return,
            }
            thread::sleep(GATHER);
        }
    }
}

impl Ledger for Arc<Books> {
    fn record(&self, decision: Decision) -> Result<(), Unwritable> {
        // Refusals are taken in all the same: a full disk is no reason to forget them.
        let broken = self.broken.load(Ordering::Relaxed);
        if broken && decision.outcome == "done" {
            return Err(Unwritable);
        }
        self.sender
            .send(Message::Decided(decision, SystemTime::now()))
            .map_err(|_| Unwritable)
    }
}

/// A line that will be written.
struct Note {
    at: SystemTime,
    action: Cow<'static, str>,
    key: Option<Arc<Subject>>,
    outcome: Cow<'static, str>,
}

impl Note {
    fn new(decision: Decision, at: SystemTime, outcome: Cow<'static, str>) -> Self {
        Self {
            at,
            action: match decision.detail {
                Some(method) => format!("{} {}", decision.action, method.as_str()).into(),
                None => decision.action.into(),
            },
            key: decision.key,
            outcome,
        }
    }

    fn entry(&self) -> Entry<'_> {
        let mut entry = Entry::new(Moment(self.at), &self.action, &self.outcome);
        if let Some(key) = &self.key {
            entry.key = Some(&key.identity.name);
            entry.fingerprint = Some(key.fingerprint);
            entry.network = Some(&key.place);
        }
        entry
    }
}

/// What is counted: action, key and outcome.
type Kind = (&'static str, Option<String>, &'static str);

/// Refusals of one kind.
struct Counted {
    /// How many got lines of their own.
    written: u64,
    /// How many did not.
    more: u64,
    last: Decision,
}

/// Who writes.
struct Clerk {
    context: Arc<Context>,
    broken: Arc<AtomicBool>,
    /// Refusals of this second, or since nothing can be written.
    counted: BTreeMap<Kind, Counted>,
    since: Instant,
    /// When it last could not be written.
    failed: Option<Instant>,
}

impl Clerk {
    fn run(mut self, receiver: &Receiver<Message>) {
        let mut lines = Vec::new();
        let mut asked = Vec::new();
        loop {
            match receiver.recv_timeout(SECOND) {
                Ok(message) => self.take(message, &mut lines, &mut asked),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // So many and no more: those that are only counted could go on for ever.
            for _ in 0..WAITING {
                match receiver.try_recv() {
                    Ok(message) => self.take(message, &mut lines, &mut asked),
                    Err(_) => break,
                }
            }
            // Refusals go on being taken in while nothing can be written: nobody waits for the disk
            // to be told no.
            let last = !asked.is_empty();
            if last || self.failed.is_none() && self.since.elapsed() >= SECOND {
                self.sum_up(&mut lines);
            }
            if last || self.failed.is_none_or(|at| at.elapsed() >= SECOND) {
                self.write(&mut lines);
            }
            for done in asked.drain(..) {
                let _ = done.send(());
            }
            thread::sleep(GATHER);
        }
    }

    fn take(&mut self, message: Message, lines: &mut Vec<Note>, asked: &mut Vec<SyncSender<()>>) {
        match message {
            Message::Flush(done) => asked.push(done),
            Message::Decided(decision, at) if decision.outcome.starts_with("done") => {
                let outcome = decision.outcome.into();
                lines.push(Note::new(decision, at, outcome));
            }
            Message::Decided(decision, at) => {
                let name = decision
                    .key
                    .as_ref()
                    .map(|key| key.identity.name.to_string());
                let kind = (decision.action, name, decision.outcome);
                let counted = self.counted.entry(kind).or_insert_with(|| Counted {
                    written: 0,
                    more: 0,
                    last: decision.clone(),
                });
                if counted.written < EACH_SECOND && self.failed.is_none() {
                    counted.written += 1;
                    let outcome = decision.outcome.into();
                    lines.push(Note::new(decision.clone(), at, outcome));
                } else {
                    counted.more += 1;
                }
                counted.last = decision;
            }
        }
    }

    /// Writes one line for what was counted and not written.
    fn sum_up(&mut self, lines: &mut Vec<Note>) {
        self.since = Instant::now();
        for Counted { more, last, .. } in std::mem::take(&mut self.counted).into_values() {
            if more > 0 {
                let outcome = format!("{} ({more} more)", last.outcome);
                lines.push(Note::new(last, SystemTime::now(), outcome.into()));
            }
        }
    }

    /// Writes what there is. Where that fails nothing is signed, until it is written after all.
    fn write(&mut self, lines: &mut Vec<Note>) {
        if lines.is_empty() {
            return;
        }
        let output = &self.context.output;
        match self.context.store.audit_all(lines.iter().map(Note::entry)) {
            Ok(()) => {
                lines.clear();
                self.failed = None;
                if self.broken.swap(false, Ordering::Relaxed) {
                    output.remark("the audit log can be written again");
                }
            }
            Err(error) => {
                self.failed = Some(Instant::now());
                if !self.broken.swap(true, Ordering::Relaxed) {
                    output.remark(format!(
                        "warning: nothing is signed: the audit log cannot be written: {error}"
                    ));
                }
            }
        }
    }
}
