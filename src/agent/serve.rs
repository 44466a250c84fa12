//! Who may connect, how many, and for how long.

use std::{
    io::{self, ErrorKind, Write},
    os::unix::net::{UnixListener, UnixStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::geteuid,
};

use super::{
    Denial,
    desk::Agent,
    wire::{self, Code},
};

mod connection;
mod seats;

use connection::{ANSWER, Connection};
pub use seats::{CONNECTIONS, WAIT};
use seats::{LINGER, Seats};

/// How long to wait when the system has no descriptor or thread to spare.
const BREATH: Duration = Duration::from_millis(50);
/// How often the clock is looked at.
const TICK: Duration = Duration::from_millis(500);
/// How long connections have to end when the agent does.
const FAREWELL: Duration = Duration::from_secs(2);

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

impl Limits {
    /// How often they are looked at: often enough for the shortest.
    fn tick(&self) -> Duration {
        let shortest = self.line.min(self.idle).min(self.total);
        (shortest / 4).clamp(Duration::from_millis(10), TICK)
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
    let seats = Seats::new(limits.connections, bell)?;
    seats.staff(agent)?;
    let mut looked = Instant::now();
    let interval = limits.tick();
    let tick = Timespec::try_from(interval).ok();
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
        if looked.elapsed() >= interval {
            agent.look_at_the_clock();
            seats.look_at_the_clock(agent);
            looked = Instant::now();
        }
        if waiting.revents().is_empty() {
            continue;
        }
        match listener.accept() {
            Ok((stream, _)) => welcome(stream, agent, limits, &seats),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // Descriptors or memory ran out, or the caller has gone again: it passes.
            Err(_) => thread::sleep(BREATH),
        }
    };
    agent.close();
    seats.close(FAREWELL);
    ended
}

/// Lets somebody in, or says why not.
fn welcome(stream: UnixStream, agent: &Agent, limits: Limits, seats: &Seats) {
    if !is_ours(&stream) {
        // Somebody else's program learns nothing, not even that.
        agent.turned_away(Code::Denied);
        return;
    }
    if stream.set_read_timeout(Some(LINGER)).is_err() {
        return;
    }
    if let Err(connection) = seats.seat(Box::new(Connection::new(stream, limits))) {
        agent.turned_away(Code::Busy);
        let mut out = Vec::with_capacity(ANSWER);
        let denial = Denial::new(Code::Busy, "there are too many connections");
        wire::write_refused(&mut out, &denial);
        // Its buffer is empty: all of it fits.
        let _ = connection.stream().write_all(&out);
    }
}

/// Tells whether the other end runs as the same user. Not even root is let in: it has other ways.
fn is_ours(stream: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream).is_ok_and(|peer| peer.uid == geteuid())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use std::{fs, io::Read};

    use super::*;
    use crate::{
        agent::{Decision, Granted, Ledger, Logins, Unwritable},
        key::KeyName,
        signer::Signer,
    };

    #[derive(Debug)]
    struct Nobody;

    impl Ledger for Nobody {
        fn record(&self, _: Decision) -> Result<(), Unwritable> {
            Ok(())
        }
    }

    impl Logins for Nobody {
        fn scope(&self, _: &KeyName, _: Option<&str>) -> Result<String, Denial> {
            Err(Denial::new(Code::Login, "nobody logs in"))
        }

        fn log_in(&self, _: &KeyName, _: &dyn Signer, _: &str, _: &str) -> Result<Granted, Denial> {
            Err(Denial::new(Code::Login, "nobody logs in"))
        }
    }

    fn attendants() -> usize {
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.trim() == "connections").count()
    }

    #[test]
    fn its_threads_end_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let agent = Agent::new(Vec::new(), Box::new(Nobody), Box::new(Nobody), [0; 32]);
        let (bell, rung) = UnixStream::pair().unwrap();
        let serving = thread::spawn(move || {
            serve(&listener, &Arc::new(agent), Limits::default(), &rung).unwrap();
        });
        let mut caller = UnixStream::connect(&path).unwrap();
        caller.write_all(b"{\"op\":\"status\"}\n").unwrap();
        assert!(caller.read(&mut [0; 512]).unwrap() > 0);
        // Threads take their names, and go, in their own time.
        let settles = |settled: fn(usize) -> bool| {
            let begun = Instant::now();
            while !settled(attendants()) {
                assert!(begun.elapsed() < 5 * FAREWELL, "{}", attendants());
                thread::sleep(BREATH);
            }
        };
        settles(|n| n >= 2);
        drop(bell);
        serving.join().unwrap();
        settles(|n| n == 0);
        assert_eq!(caller.read(&mut [0; 1]).unwrap(), 0, "it was hung up on");
    }
}
