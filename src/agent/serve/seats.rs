//! Where callers sit, and who attends to them: as many threads as there are processors, whichever
//! is free for whoever speaks. What has to wait for another program gets a thread of its own, so
//! that nobody else waits with it.
//!
//! A thread for each caller was simpler, and spent a fifth of its time on being switched to.

use std::{
    io::{self, Write},
    net::Shutdown,
    os::{fd::OwnedFd, unix::net::UnixStream},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, CreateFlags, EventData, EventFlags},
    io::Errno,
};

use super::{
    BREATH,
    connection::{Connection, Ear, Patience, Then},
};
use crate::agent::desk::Agent;

/// What the threads are called that attend to callers.
pub const CONNECTIONS: &str = "connections";
/// What a thread is called that waits for another program, for one caller.
pub const WAIT: &str = "wait";

/// More of them would only queue for the processors.
const MOST_THREADS: usize = 16;
/// How many callers a thread takes on at once: few, as they wait for one another.
const AT_ONCE: usize = 4;
/// How long a thread stays with whom it has answered, while others are free: to be told of the next
/// request by the system takes longer than to listen for it. Sockets count it in ticks of the
/// kernel's clock, so it may be some milliseconds.
pub(super) const LINGER: Duration = Duration::from_millis(1);
/// A caller is announced once, to one thread, and again when that has put it back.
const ONCE: EventFlags = EventFlags::IN.union(EventFlags::ONESHOT);
/// A caller is announced each time it says more: that saves a call for each answer, and wakes a thread
/// for nothing where one is free and the caller quick.
const EACH_TIME: EventFlags = EventFlags::IN
    .union(EventFlags::RDHUP)
    .union(EventFlags::ET);
/// What announces the end together with what was said before it, and only then.
const ENDS: EventFlags = EventFlags::RDHUP.union(EventFlags::HUP);
/// Stands for the bell at the end.
const CLOSING: EventData = EventData::new_u64(u64::MAX);

/// Everybody's places.
pub(super) struct Seats {
    epoll: OwnedFd,
    threads: usize,
    seats: Vec<Mutex<Seat>>,
    free: Mutex<Vec<usize>>,
    /// How many are not free.
    seated: AtomicUsize,
    closed: AtomicBool,
    /// Written to when somebody asks for the agent's end.
    bell: UnixStream,
    /// Readable from the end on, to whoever waits then.
    gong: (UnixStream, UnixStream),
}

/// One place.
#[derive(Default)]
struct Seat {
    /// Nobody, while the caller is attended to.
    here: Option<Box<Connection>>,
    /// Whether it is announced each time it says more, rather than once.
    each_time: bool,
    /// Whether it said more while it was attended to.
    again: bool,
}

impl Seats {
    pub(super) fn new(most: usize, bell: UnixStream) -> io::Result<Arc<Self>> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let gong = UnixStream::pair()?;
        epoll::add(&epoll, &gong.0, CLOSING, EventFlags::IN)?;
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Ok(Arc::new(Self {
            epoll,
            threads: processors.clamp(2, MOST_THREADS),
            seats: (0..most).map(|_| Mutex::default()).collect(),
            free: Mutex::new((0..most).rev().collect()),
            seated: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            bell,
            gong,
        }))
    }

    /// Starts the threads.
    pub(super) fn staff(self: &Arc<Self>, agent: &Arc<Agent>) -> io::Result<()> {
        for _ in 0..self.threads {
            let (seats, agent) = (Arc::clone(self), Arc::clone(agent));
            let work = move || seats.work(&agent);
            thread::Builder::new()
                .name(CONNECTIONS.into())
                .spawn(work)?;
        }
        Ok(())
    }

    /// Finds a place, if there is one.
    pub(super) fn seat(&self, connection: Box<Connection>) -> Result<(), Box<Connection>> {
        let Some(at) = lock(&self.free).pop() else {
            return Err(connection);
        };
        let Some(seat) = self.seats.get(at) else {
            return Err(connection);
        };
        self.seated.fetch_add(1, Ordering::Relaxed);
        let mut seat = lock(seat);
        *seat = Seat::default();
        let here = seat.here.insert(connection);
        if epoll::add(&self.epoll, here.stream(), name(at), ONCE).is_err() {
            // The system has no memory for it.
            seat.here = None;
            drop(seat);
            self.free_up(at);
        }
        Ok(())
    }

    /// Sends away whoever is here too long. Who is attended to right now is not silent.
    pub(super) fn look_at_the_clock(&self, agent: &Agent) {
        for (at, seat) in self.seats.iter().enumerate() {
            let Ok(mut seat) = seat.try_lock() else {
                continue;
            };
            if let Some(late) = seat.here.take_if(|here| here.is_overdue(agent)) {
                let _ = late.stream().shutdown(Shutdown::Both);
                drop(late);
                drop(seat);
                self.free_up(at);
            }
        }
    }

    /// Sends everybody away; those who are attended to right now have some time to end.
    pub(super) fn close(&self, farewell: Duration) {
        self.closed.store(true, Ordering::SeqCst);
        let _ = (&self.gong.1).write(&[0]);
        let leaving = Instant::now();
        loop {
            for (at, seat) in self.seats.iter().enumerate() {
                if lock(seat).here.take().is_some() {
                    self.free_up(at);
                }
            }
            if self.seated() == 0 || leaving.elapsed() >= farewell {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn work(self: Arc<Self>, agent: &Arc<Agent>) {
        let mut speaking = Vec::with_capacity(AT_ONCE);
        while !self.closed() {
            match epoll::wait(&self.epoll, spare_capacity(&mut speaking), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => thread::sleep(BREATH),
            }
            let mut speaking = speaking.drain(..);
            while let Some(event) = speaking.next() {
                let seat = usize::try_from(event.data.u64()).ok();
                let Some((at, seat)) = seat.and_then(|at| Some((at, self.seats.get(at)?))) else {
                    continue;
                };
                let mut seat = lock(seat);
                let Some(here) = seat.here.take() else {
                    // Somebody is attending to it, or it was sent away meanwhile.
                    seat.again = true;
                    continue;
                };
                // Its end is not read with what came before it; so it is announced anew.
                let flags = event.flags;
                seat.again |= flags.intersects(ENDS);
                let linger = speaking.len() == 0 && !seat.each_time;
                drop(seat);
                self.attend(at, here, agent, linger);
            }
        }
    }

    /// Attends to a caller, here or on a thread of its own, and may linger if nobody else spoke.
    fn attend(
        self: &Arc<Self>,
        at: usize,
        mut here: Box<Connection>,
        agent: &Arc<Agent>,
        linger: bool,
    ) {
        let mut then = attend(&mut here, agent, Patience::None, Ear::Now);
        let free = || self.seated() < self.threads && !self.closed();
        // Who is in the middle of a line goes back to its place, where the clock finds it.
        while then == Then::Stay && linger && here.is_between_lines() && free() {
            then = attend(&mut here, agent, Patience::None, Ear::Open);
        }
        if then != Then::Wait {
            self.settle(at, here, then);
            return;
        }
        let (seats, theirs) = (Arc::clone(self), Arc::clone(agent));
        // Whoever gets it first: the new thread, or this one if there is none to spare.
        let guest = Arc::new(Mutex::new(Some(here)));
        let given = Arc::clone(&guest);
        let wait = move || {
            if let Some(mut here) = lock(&given).take() {
                let then = attend(&mut here, &theirs, Patience::Much, Ear::Now);
                seats.settle(at, here, then);
            }
        };
        if thread::Builder::new()
            .name(WAIT.into())
            .spawn(wait)
            .is_err()
        {
            let here = lock(&guest).take();
            if let Some(mut here) = here {
                let then = attend(&mut here, agent, Patience::Much, Ear::Now);
                self.settle(at, here, then);
            }
        }
    }

    fn closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Returns how many callers there are.
    fn seated(&self) -> usize {
        self.seated.load(Ordering::Relaxed)
    }

    fn free_up(&self, at: usize) {
        lock(&self.free).push(at);
        self.seated.fetch_sub(1, Ordering::Relaxed);
    }

    /// Puts a caller back, or its place.
    fn settle(&self, at: usize, here: Box<Connection>, then: Then) {
        let stays = matches!(then, Then::Stay | Then::Silent) && !self.closed();
        if let Some(seat) = self.seats.get(at).filter(|_| stays) {
            let each_time = self.seated() > self.threads;
            let mut seat = lock(seat);
            // What it said meanwhile is announced by asking anew.
            let known = each_time && seat.each_time && !seat.again && !here.may_have_said_more();
            seat.again = false;
            seat.each_time = each_time;
            let here = seat.here.insert(here);
            let how = if each_time { EACH_TIME } else { ONCE };
            if known || epoll::modify(&self.epoll, here.stream(), name(at), how).is_ok() {
                return;
            }
            seat.here = None;
        } else {
            // Nobody who reads gets less than a whole answer.
            let _ = here.stream().shutdown(Shutdown::Both);
            drop(here);
        }
        self.free_up(at);
        if then == Then::Stop {
            let _ = (&self.bell).write(&[0]);
        }
    }
}

/// A defect costs the caller that comes upon it its connection, and nobody else theirs.
fn attend(here: &mut Connection, agent: &Agent, patience: Patience, ear: Ear) -> Then {
    let attended = catch_unwind(AssertUnwindSafe(|| here.attend(agent, patience, ear)));
    attended.unwrap_or(Then::Leave)
}

/// What a place is announced by.
fn name(at: usize) -> EventData {
    EventData::new_u64(u64::try_from(at).unwrap_or(u64::MAX))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
