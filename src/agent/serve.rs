//! Connections: who may connect, how many, for how long; one line in, one line out.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::geteuid,
};
use zeroize::{Zeroize, Zeroizing};

use super::{
    Denial,
    desk::{Agent, Next},
    wire::{self, Code, LONGEST_LINE},
};

/// How long a reader may take to make room for an answer.
const WRITING: Duration = Duration::from_secs(10);
/// How long to wait when the system has no descriptor or thread to spare.
const BREATH: Duration = Duration::from_millis(50);
/// How often the clock is looked at.
const TICK: Duration = Duration::from_millis(500);
/// How long connections have to end when the agent does.
const FAREWELL: Duration = Duration::from_secs(2);
/// Room for an answer. It never grows while there is a token in it.
const ANSWER: usize = 16 * 1024;

/// How long, and how many.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many connections there may be.
    pub connections: usize,
    /// How long a line, or the first one, may take from its beginning to its end.
    pub line: Duration,
    /// How long a connection may be silent.
    pub idle: Duration,
    /// How long a connection may last.
    pub total: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            line: Duration::from_secs(10),
            idle: Duration::from_secs(300),
            total: Duration::from_secs(12 * 3600),
        }
    }
}

/// The connections there are.
struct Guests {
    count: AtomicUsize,
    streams: Mutex<Vec<Arc<UnixStream>>>,
    /// Written to when somebody asks for the agent's end.
    bell: UnixStream,
}

impl Guests {
    fn add(&self, stream: &Arc<UnixStream>) {
        self.count.fetch_add(1, Ordering::SeqCst);
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.push(Arc::clone(stream));
    }

    fn remove(&self, stream: &Arc<UnixStream>) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.retain(|other| !Arc::ptr_eq(other, stream));
        drop(streams);
        self.count.fetch_sub(1, Ordering::SeqCst);
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

/// Answers whoever connects, until there is something to read from `stop` or a caller asks for
/// the end. Then all keys are dropped.
///
/// # Errors
/// Those of the operating system that leave nothing to go on with.
pub fn serve(
    listener: &UnixListener,
    agent: &Arc<Agent>,
    limits: Limits,
    stop: &UnixStream,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let (ring, bell) = UnixStream::pair()?;
    bell.set_nonblocking(true)?;
    let guests = Arc::new(Guests {
        count: AtomicUsize::new(0),
        streams: Mutex::default(),
        bell,
    });
    let mut looked = Instant::now();
    let tick = Timespec::try_from(TICK).ok();
    let ended = loop {
        let mut fds = [
            PollFd::new(listener, PollFlags::IN),
            PollFd::new(stop, PollFlags::IN),
            PollFd::new(&ring, PollFlags::IN),
        ];
        match poll(&mut fds, tick.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::NOMEM) => thread::sleep(BREATH),
            Err(errno) => break Err(errno.into()),
        }
        let [waiting, stopped, rung] = fds;
        if !stopped.revents().is_empty() || !rung.revents().is_empty() {
            break Ok(());
        }
        if looked.elapsed() >= TICK {
            agent.look_at_the_clock();
            looked = Instant::now();
        }
        if waiting.revents().is_empty() {
            continue;
        }
        match listener.accept() {
            Ok((stream, _)) => welcome(stream, agent, limits, &guests),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // Descriptors or memory ran out, or the caller has gone again: it passes.
            Err(_) => thread::sleep(BREATH),
        }
    };
    agent.close();
    let streams = guests
        .streams
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    for stream in streams.iter() {
        let _ = stream.shutdown(Shutdown::Read);
    }
    drop(streams);
    let leaving = Instant::now();
    while guests.count() > 0 && leaving.elapsed() < FAREWELL {
        thread::sleep(Duration::from_millis(5));
    }
    ended
}

/// Lets somebody in, or says why not.
fn welcome(stream: UnixStream, agent: &Arc<Agent>, limits: Limits, guests: &Arc<Guests>) {
    if !is_ours(&stream) {
        // Somebody else's program learns nothing, not even that.
        agent.turned_away(Code::Denied);
        return;
    }
    let ready = stream
        .set_nonblocking(false)
        .and_then(|()| stream.set_write_timeout(Some(WRITING)));
    if ready.is_err() {
        return;
    }
    if guests.count() >= limits.connections {
        turn_away(&stream, agent, "there are too many connections");
        return;
    }
    let stream = Arc::new(stream);
    guests.add(&stream);
    let (theirs, ours, others) = (Arc::clone(agent), Arc::clone(&stream), Arc::clone(guests));
    let started = thread::Builder::new()
        .name("connection".into())
        .spawn(move || {
            let next = Connection::new(&ours, limits).run(&theirs);
            // Nobody who reads gets less than a whole answer.
            let _ = ours.shutdown(Shutdown::Both);
            others.remove(&ours);
            if next == Next::Stop {
                let _ = (&others.bell).write(&[0]);
            }
        });
    if started.is_err() {
        turn_away(&stream, agent, "the system has no thread to spare");
        guests.remove(&stream);
        thread::sleep(BREATH);
    }
}

fn turn_away(mut stream: &UnixStream, agent: &Agent, why: &str) {
    agent.turned_away(Code::Busy);
    let mut out = Vec::with_capacity(ANSWER);
    wire::write_refused(&mut out, &Denial::new(Code::Busy, why));
    // Its buffer is empty: this does not wait.
    let _ = stream.write_all(&out);
}

/// Tells whether the other end runs as the same user. Not even root is let in: it has other ways.
#[cfg(target_os = "linux")]
fn is_ours(stream: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream).is_ok_and(|peer| peer.uid == geteuid())
}

/// Where the system does not say who it is, nobody is let in.
#[cfg(not(target_os = "linux"))]
fn is_ours(_: &UnixStream) -> bool {
    let _ = geteuid();
    false
}

/// One caller, and the lines that come.
struct Connection<'a> {
    stream: &'a UnixStream,
    limits: Limits,
    /// Never grows, and is wiped behind each line: a passphrase may be in it.
    buffer: Zeroizing<Vec<u8>>,
    filled: usize,
    out: Zeroizing<Vec<u8>>,
    began: Instant,
    /// When the line under way began, or the last one ended.
    since: Instant,
    spoken: bool,
}

/// What came of waiting for a line.
enum Heard {
    /// One that ends at this place.
    Line(usize),
    TooLong,
    TooSlow,
    Gone,
}

impl<'a> Connection<'a> {
    fn new(stream: &'a UnixStream, limits: Limits) -> Self {
        let now = Instant::now();
        Self {
            stream,
            limits,
            buffer: Zeroizing::new(vec![0; LONGEST_LINE + 1]),
            filled: 0,
            out: Zeroizing::new(Vec::with_capacity(ANSWER)),
            began: now,
            since: now,
            spoken: false,
        }
    }

    fn run(mut self, agent: &Agent) -> Next {
        let Limits {
            line, idle, total, ..
        } = self.limits;
        // Reading wakes up now and then to look at its limits.
        let nap = line.min(idle).min(total) / 4;
        let nap = nap.clamp(Duration::from_millis(10), Duration::from_millis(2500));
        if self.stream.set_read_timeout(Some(nap)).is_err() {
            return Next::Request;
        }
        loop {
            let refusal = match self.hear() {
                Heard::Line(end) => {
                    let next = self.reply(agent, end);
                    match next {
                        Some(Next::Request) => continue,
                        Some(Next::Stop) => return Next::Stop,
                        None => return Next::Request,
                    }
                }
                Heard::TooLong => Denial::new(Code::TooLong, "the line is longer than 65536 bytes"),
                Heard::TooSlow => Denial::new(Code::Timeout, "the line did not end in time"),
                Heard::Gone => return Next::Request,
            };
            agent.refuse_line(&refusal, &mut self.out);
            let _ = self.stream.write_all(&self.out);
            return Next::Request;
        }
    }

    /// Answers the line at the front of the buffer, and wipes it. Nothing when nobody reads.
    fn reply(&mut self, agent: &Agent, end: usize) -> Option<Next> {
        let next = agent.answer(self.buffer.get(..end).unwrap_or_default(), &mut self.out);
        let used = end + 1;
        self.buffer.copy_within(used..self.filled, 0);
        let left = self.filled.saturating_sub(used);
        if let Some(behind) = self.buffer.get_mut(left..self.filled) {
            behind.zeroize();
        }
        self.filled = left;
        let written = self.stream.write_all(&self.out);
        if let Some(answer) = self.out.get_mut(..) {
            answer.zeroize();
        }
        self.spoken = true;
        self.since = Instant::now();
        written.is_ok().then_some(next)
    }

    fn hear(&mut self) -> Heard {
        let mut searched = 0;
        loop {
            let heard = self.buffer.get(searched..self.filled).unwrap_or_default();
            if let Some(at) = heard.iter().position(|b| *b == b'\n') {
                return Heard::Line(searched + at);
            }
            searched = self.filled;
            if self.began.elapsed() > self.limits.total {
                return Heard::Gone;
            }
            // Until a caller has asked for something, silence is not its right.
            let patience = if self.filled > 0 || !self.spoken {
                self.limits.line
            } else {
                self.limits.idle
            };
            if self.since.elapsed() > patience {
                return if self.filled > 0 {
                    Heard::TooSlow
                } else {
                    Heard::Gone
                };
            }
            let Some(room) = self.buffer.get_mut(self.filled..).filter(|r| !r.is_empty()) else {
                return Heard::TooLong;
            };
            match self.stream.read(room) {
                Ok(0) => return Heard::Gone,
                Ok(n) => {
                    if self.filled == 0 {
                        self.since = Instant::now();
                    }
                    self.filled += n;
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                Err(_) => return Heard::Gone,
            }
        }
    }
}
