//! One caller: one line in, one line out.

use std::{os::unix::net::UnixStream, time::Instant};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};
use zeroize::{Zeroizing, optimization_barrier};

use super::Limits;
use crate::agent::{
    Denial,
    desk::{Agent, Next},
    wire::{Code, LONGEST_LINE, Request},
};

/// How long a reader may take to make room for an answer.
const WRITING: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};
/// Room for an answer. It never grows while there is a token in it.
pub(super) const ANSWER: usize = 16 * 1024;

/// A caller, and the lines that come and go.
pub(super) struct Connection {
    stream: UnixStream,
    limits: Limits,
    /// Never grows, and is wiped behind each line: a passphrase may be in it.
    buffer: Zeroizing<Vec<u8>>,
    filled: usize,
    /// How far there is no line break.
    searched: usize,
    out: Zeroizing<Vec<u8>>,
    /// How much of `out` has been taken.
    taken: usize,
    began: Instant,
    /// When the line under way began, or the last one ended.
    since: Instant,
    spoken: bool,
    /// Whether the last reading filled the buffer.
    crammed: bool,
    /// What follows the answer that is being written, if no other line does.
    last: Option<Then>,
}

/// What follows when there is nothing left to do for a caller right now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Then {
    /// It stays, until it says more.
    Stay,
    /// It stays, and said nothing.
    Silent,
    /// What comes next takes long: [`Connection::attend`] it with patience.
    Wait,
    /// It has gone, or has to.
    Leave,
    /// It asked for the agent's end.
    Stop,
}

/// Whether to wait for other programs: for the exchange, an ssh-agent, a caller that does not read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Patience {
    /// Nobody else is kept waiting by it.
    Much,
    /// Others are.
    None,
}

/// Whether to listen for a moment when nothing has been said yet: as long as the socket's timeout.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ear {
    /// Takes what is there.
    Now,
    /// Listens.
    Open,
}

impl Connection {
    pub(super) fn new(stream: UnixStream, limits: Limits) -> Self {
        let now = Instant::now();
        Self {
            stream,
            limits,
            buffer: Zeroizing::new(vec![0; LONGEST_LINE + 1]),
            filled: 0,
            searched: 0,
            out: Zeroizing::new(Vec::with_capacity(ANSWER)),
            taken: 0,
            began: now,
            since: now,
            spoken: false,
            crammed: false,
            last: None,
        }
    }

    pub(super) const fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Answers the lines that are there; reads once, so that nobody has to wait for one who never
    /// stops.
    pub(super) fn attend(&mut self, agent: &Agent, patience: Patience, ear: Ear) -> Then {
        let mut heard = None;
        loop {
            match self.speak(patience) {
                Then::Stay => {}
                // Who asked for the agent's end need not hear that it comes.
                Then::Leave => return self.last.unwrap_or(Then::Leave),
                other => return other,
            }
            if let Some(last) = self.last {
                return last;
            }
            if let Some(end) = self.line() {
                if !self.reply(agent, end, patience) {
                    return Then::Wait;
                }
            } else if self.since.duration_since(self.began) > self.limits.total {
                // Who never stops is never found by the clock.
                return Then::Leave;
            } else if let Some(heard) = heard {
                return heard;
            } else {
                match self.hear(agent, ear) {
                    stays @ (Then::Stay | Then::Silent) => heard = Some(stays),
                    other => return other,
                }
            }
        }
    }

    /// Tells whether no line is under way.
    pub(super) const fn is_between_lines(&self) -> bool {
        self.filled == 0
    }

    /// Tells whether the last reading took all there was room for.
    pub(super) const fn may_have_said_more(&self) -> bool {
        self.crammed
    }

    /// Finds out whether a silent caller has to go, and says so to one in the middle of a line.
    pub(super) fn is_overdue(&mut self, agent: &Agent) -> bool {
        // Until a caller has asked for something, silence is not its right.
        let patience = if self.filled > 0 || !self.spoken {
            self.limits.line
        } else {
            self.limits.idle
        };
        // Nor is one late whose words nobody has had the time to listen to.
        let late = self.since.elapsed() > patience && !(self.filled == 0 && self.has_spoken());
        if late && self.filled > 0 {
            self.part(
                agent,
                &Denial::new(Code::Timeout, "the line did not end in time"),
            );
            self.speak(Patience::None);
        }
        late || self.began.elapsed() > self.limits.total
    }

    /// Tells whether there is something to be read.
    fn has_spoken(&self) -> bool {
        let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        matches!(recv(&self.stream, &mut [0][..], peek), Ok((1.., _)))
    }

    /// Returns where the first line ends.
    fn line(&mut self) -> Option<usize> {
        let new = self.buffer.get(self.searched..self.filled)?;
        let found = new.iter().position(|b| *b == b'\n');
        let end = found.map(|at| self.searched + at);
        self.searched = end.unwrap_or(self.filled);
        end
    }

    /// Answers the line at the front of the buffer, and wipes it; unless that needs more patience.
    fn reply(&mut self, agent: &Agent, end: usize, patience: Patience) -> bool {
        match Request::read(self.buffer.get(..end).unwrap_or_default()) {
            Ok(request) if patience == Patience::None && agent.waits_for(&request) => return false,
            Ok(request) => {
                if agent.answer(&request, &mut self.out) == Next::Stop {
                    self.last = Some(Then::Stop);
                }
            }
            Err(denial) => agent.refuse_line(&denial, &mut self.out),
        }
        let used = end + 1;
        self.buffer.copy_within(used..self.filled, 0);
        let left = self.filled.saturating_sub(used);
        if let Some(behind) = self.buffer.get_mut(left..self.filled) {
            wipe(behind);
        }
        self.filled = left;
        self.searched = 0;
        self.spoken = true;
        self.since = Instant::now();
        true
    }

    /// Says why this caller is not listened to any longer.
    fn part(&mut self, agent: &Agent, why: &Denial) {
        agent.refuse_line(why, &mut self.out);
        self.last = Some(Then::Leave);
    }

    fn hear(&mut self, agent: &Agent, ear: Ear) -> Then {
        let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
        if room.is_empty() {
            let denial = Denial::new(Code::TooLong, "the line is longer than 65536 bytes");
            self.part(agent, &denial);
            return Then::Stay;
        }
        let most = room.len();
        let how = match ear {
            Ear::Now => RecvFlags::DONTWAIT,
            Ear::Open => RecvFlags::empty(),
        };
        match recv(&self.stream, &mut *room, how) {
            Ok((0, _)) => Then::Leave,
            Ok((n, _)) => {
                self.crammed = n == most;
                // A line that came whole is never late.
                if self.filled == 0 && room.get(n - 1) != Some(&b'\n') {
                    self.since = Instant::now();
                }
                self.filled += n;
                Then::Stay
            }
            Err(Errno::AGAIN | Errno::INTR) => Then::Silent,
            Err(_) => Then::Leave,
        }
    }

    /// Writes what there is of an answer, and wipes it.
    fn speak(&mut self, patience: Patience) -> Then {
        while let Some(rest) = self.out.get(self.taken..).filter(|rest| !rest.is_empty()) {
            match send(
                &self.stream,
                rest,
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            ) {
                Ok(0) => return Then::Leave,
                Ok(n) => self.taken += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if patience == Patience::None {
                        return Then::Wait;
                    }
                    let mut room = [PollFd::new(&self.stream, PollFlags::OUT)];
                    if matches!(poll(&mut room, Some(&WRITING)), Ok(0)) {
                        return Then::Leave;
                    }
                }
                Err(_) => return Then::Leave,
            }
        }
        wipe(&mut self.out);
        self.out.clear();
        self.taken = 0;
        Then::Stay
    }
}

/// Wipes in one piece: `Zeroize` goes byte by byte, and there are hundreds behind each answer.
fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    optimization_barrier(bytes);
}
