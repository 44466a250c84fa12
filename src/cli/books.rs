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
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
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
        };
        thread::Builder::new()
            .name("audit".into())
            .spawn(move || clerk.run(&receiver))
            .map_err(|error| Failure::unexpected(format!("no thread can be started: {error}")))?;
        Ok(Self { sender, broken })
    }

    /// Waits until everything is written, but not for ever.
    pub(super) fn close(&self) {
        let (done, written) = sync_channel(1);
        if self.sender.send(Message::Flush(done)).is_ok() {
            let _ = written.recv_timeout(5 * SECOND);
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

/// Who writes.
struct Clerk {
    context: Arc<Context>,
    broken: Arc<AtomicBool>,
    /// Refusals of this second: how many, and the last of them.
    counted: BTreeMap<Kind, (u64, Decision)>,
    since: Instant,
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
            while lines.len() < WAITING {
                match receiver.try_recv() {
                    Ok(message) => self.take(message, &mut lines, &mut asked),
                    Err(_) => break,
                }
            }
            if self.since.elapsed() >= SECOND || !asked.is_empty() {
                self.sum_up(&mut lines);
            }
            self.write(&mut lines, asked.is_empty());
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
                let (count, last) = self
                    .counted
                    .entry(kind)
                    .or_insert_with(|| (0, decision.clone()));
                *count += 1;
                if *count <= EACH_SECOND {
                    let outcome = decision.outcome.into();
                    lines.push(Note::new(decision.clone(), at, outcome));
                }
                *last = decision;
            }
        }
    }

    /// Writes one line for what was counted and not written.
    fn sum_up(&mut self, lines: &mut Vec<Note>) {
        self.since = Instant::now();
        for (count, last) in std::mem::take(&mut self.counted).into_values() {
            let more = count.saturating_sub(EACH_SECOND);
            if more > 0 {
                let outcome = format!("{} ({more} more)", last.outcome);
                lines.push(Note::new(last, SystemTime::now(), outcome.into()));
            }
        }
    }

    /// Writes until it is written; nothing is signed in the meantime.
    fn write(&self, lines: &mut Vec<Note>, patiently: bool) {
        while !lines.is_empty() {
            match self.context.store.audit_all(lines.iter().map(Note::entry)) {
                Ok(()) => {
                    lines.clear();
                    if self.broken.swap(false, Ordering::Relaxed) {
                        self.context
                            .output
                            .remark("the audit log can be written again");
                    }
                }
                Err(error) => {
                    if !self.broken.swap(true, Ordering::Relaxed) {
                        let problem = format!(
                            "warning: nothing is signed: the audit log cannot be written: {error}"
                        );
                        self.context.output.remark(problem);
                    }
                    if !patiently {
                        return;
                    }
                    thread::sleep(SECOND);
                }
            }
        }
    }
}
