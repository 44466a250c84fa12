//! The terminal: questions and answers that nobody else sees.
//!
//! Questions go to `/dev/tty`, never to standard output. A secret is read without echo, and the
//! terminal is put right again before a signal ends the program.

use std::{
    fs::{File, OpenOptions},
    io::{self, IsTerminal, Read, Write},
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr},
};
use signal_hook::{
    consts::{SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ},
    iterator::Signals,
};
use zeroize::{Zeroize, Zeroizing};

use super::failure::{EXIT_INTERRUPTED, Failure};

/// The longest answer that is taken.
const LONGEST: usize = 1024;

/// Whether a signal may end the program on the spot. While a secret is typed it may not.
static AT_ONCE: OnceLock<Arc<AtomicBool>> = OnceLock::new();
/// Whether signals that nobody obeys do what they always do; while a secret is typed they end the
/// prompt instead, so that the terminal is put right.
static AS_EVER: OnceLock<Arc<AtomicBool>> = OnceLock::new();
const OTHERS: [i32; 4] = [SIGQUIT, SIGALRM, SIGUSR1, SIGUSR2];
/// Whether a thread says something before a signal ends the program.
static ANSWERED: AtomicBool = AtomicBool::new(false);
/// The prompt that such a thread tells of a signal, which then ends the prompt and nothing else: who
/// both listened for themselves would each make something of the same one.
static PROMPT: Mutex<Option<UnixStream>> = Mutex::new(None);

/// Has an interrupt end the program with the documented exit code.
pub(super) fn obey_signals() {
    let at_once = AT_ONCE.get_or_init(|| Arc::new(AtomicBool::new(true)));
    // A file that may not grow is an error like any other, and says where.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::default());
    for &signal in obeyed() {
        let exit = i32::from(exit_of(signal));
        // Where the system refuses, its own default stays, which ends the program as well.
        let _ = signal_hook::flag::register_conditional_shutdown(signal, exit, Arc::clone(at_once));
    }
}

/// From now on something may be under way when a signal comes, and whoever sent it is told so.
pub(super) fn answer_signals(json: bool) {
    let Some(at_once) = AT_ONCE.get() else { return };
    if ANSWERED.load(Ordering::SeqCst) {
        return;
    }
    // Without a thread to spare it ends without a word.
    let Ok(mut signals) = Signals::new(obeyed()) else {
        return;
    };
    let answer = move || {
        for signal in &mut signals {
            if let Some(prompt) = &mut *prompt() {
                let _ = prompt.write(&[0]);
                continue;
            }
            // The next one does not wait for whoever does not read.
            at_once.store(true, Ordering::SeqCst);
            let exit = exit_of(signal);
            Failure::interrupted_with(exit).report(json);
            signal_hook::low_level::exit(i32::from(exit));
        }
    };
    let thread = thread::Builder::new().name("signals".into()).spawn(answer);
    if thread.is_ok() {
        ANSWERED.store(true, Ordering::SeqCst);
        at_once.store(false, Ordering::SeqCst);
    }
}

fn prompt() -> MutexGuard<'static, Option<UnixStream>> {
    PROMPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the exit code of a program that a signal ends.
fn exit_of(signal: i32) -> u8 {
    match signal {
        SIGINT => EXIT_INTERRUPTED,
        _ => u8::try_from(128 + signal).unwrap_or(EXIT_INTERRUPTED),
    }
}

/// Says whether signals that nobody obeys do what they always do.
fn as_ever(ever: bool) {
    let flag = AS_EVER.get_or_init(|| {
        let flag = Arc::new(AtomicBool::new(ever));
        for signal in OTHERS {
            // Whoever stops listening to a signal would leave it without any effect.
            let _ = signal_hook::flag::register_conditional_default(signal, Arc::clone(&flag));
        }
        flag
    });
    flag.store(ever, Ordering::SeqCst);
}

/// Says whether somebody waits for signals, which then may not end the program by themselves.
fn await_signals(awaited: bool) {
    if let Some(at_once) = AT_ONCE.get() {
        at_once.store(
            !awaited && !ANSWERED.load(Ordering::SeqCst),
            Ordering::SeqCst,
        );
    }
}

/// The signals that end the program. Under `nohup` the end of the terminal is none of them, nor
/// for the programs that it starts.
fn obeyed() -> &'static [i32] {
    static NOHUP: OnceLock<bool> = OnceLock::new();
    let nohup = *NOHUP.get_or_init(|| {
        // Read at one go.
        let mut status = String::with_capacity(4096);
        let _ =
            File::open("/proc/self/status").and_then(|mut file| file.read_to_string(&mut status));
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        ignored.is_some_and(|mask| mask & 1 << (SIGHUP - 1) != 0)
    });
    if nohup {
        &[SIGINT, SIGTERM]
    } else {
        &[SIGINT, SIGTERM, SIGHUP]
    }
}

/// From now on signals do not end the program: there is something to read when one comes.
pub(super) fn signals_to_come() -> Result<UnixStream, Failure> {
    let failed =
        |error: io::Error| Failure::unexpected(format!("signals cannot be waited for: {error}"));
    let (signals, sender) = UnixStream::pair().map_err(failed)?;
    for &signal in obeyed() {
        let sender = sender.try_clone().map_err(failed)?;
        signal_hook::low_level::pipe::register(signal, sender).map_err(failed)?;
    }
    await_signals(true);
    Ok(signals)
}

/// The person at the terminal.
pub(super) struct Terminal {
    tty: File,
}

impl Terminal {
    /// Opens the terminal that started the program, if there is one.
    pub(super) fn open() -> Option<Self> {
        let tty = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/tty")
            .ok()?;
        tty.is_terminal().then_some(Self { tty })
    }

    /// Asks for a secret, without echo.
    pub(super) fn ask_secret(&self, question: &str) -> Result<Zeroizing<String>, Failure> {
        self.say(question)?;
        let answer = {
            let quiet = Quiet::begin(&self.tty)?;
            let answer = self.read_line(Some(&quiet));
            drop(quiet);
            answer
        };
        self.say("\n")?;
        answer
    }

    /// Asks for something that may be seen.
    pub(super) fn ask(&self, question: &str) -> Result<Zeroizing<String>, Failure> {
        self.say(question)?;
        self.read_line(None)
    }

    fn say(&self, text: &str) -> Result<(), Failure> {
        let written = (&self.tty).write_all(text.as_bytes());
        written.map_err(|error| {
            Failure::unexpected(format!("the terminal cannot be written to: {error}"))
        })
    }

    fn read_line(&self, quiet: Option<&Quiet<'_>>) -> Result<Zeroizing<String>, Failure> {
        let mut line = Zeroizing::new(Vec::with_capacity(LONGEST));
        loop {
            if let Some(quiet) = quiet {
                let mut fds = [
                    PollFd::new(&self.tty, PollFlags::IN),
                    PollFd::new(&quiet.signals, PollFlags::IN),
                    PollFd::new(&quiet.resumed, PollFlags::IN),
                ];
                match poll(&mut fds, None) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(error) => {
                        return Err(Failure::unexpected(format!(
                            "the terminal cannot be read: {error}"
                        )));
                    }
                }
                let [typed, signalled, resumed] = fds;
                if !signalled.revents().is_empty() {
                    return Err(Failure::interrupted());
                }
                if !resumed.revents().is_empty() {
                    quiet.hush_again()?;
                    line.zeroize();
                    continue;
                }
                if typed.revents().is_empty() {
                    continue;
                }
            }
            let mut byte = Zeroizing::new([0]);
            match (&self.tty).read(&mut *byte) {
                Ok(0) => return Err(Failure::interrupted()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(Failure::unexpected(format!(
                        "the terminal cannot be read: {error}"
                    )));
                }
            }
            match *byte {
                [b'\n' | b'\r'] => break,
                _ if line.len() == LONGEST => {
                    return Err(Failure::usage(format!(
                        "the answer is longer than {LONGEST} bytes"
                    )));
                }
                [other] => line.push(other),
            }
        }
        match std::str::from_utf8(&line) {
            Ok(text) => Ok(Zeroizing::new(text.to_owned())),
            Err(_) => Err(Failure::usage("the answer is not UTF-8")),
        }
    }
}

/// A terminal without echo, put right again when this is dropped.
struct Quiet<'a> {
    tty: &'a File,
    before: Termios,
    silent: Termios,
    /// Readable when a signal is to end the program.
    signals: UnixStream,
    /// Readable when it goes on after it was stopped: the shell has turned the echo on meanwhile.
    resumed: UnixStream,
    registered: Vec<signal_hook::SigId>,
}

impl<'a> Quiet<'a> {
    fn begin(tty: &'a File) -> Result<Self, Failure> {
        let failed = not_set_up;
        let mut registered = Vec::new();
        let mut wait_for = |waited: &[i32]| {
            let (signals, sender) = UnixStream::pair()?;
            for &signal in waited {
                let sender = sender.try_clone()?;
                registered.push(signal_hook::low_level::pipe::register(signal, sender)?);
            }
            Ok((signals, sender))
        };
        let (resumed, _) = wait_for(&[SIGCONT]).map_err(failed)?;
        let signals = if ANSWERED.load(Ordering::SeqCst) {
            let (signals, sender) = wait_for(&OTHERS).map_err(failed)?;
            *prompt() = Some(sender);
            signals
        } else {
            wait_for(&[obeyed(), &OTHERS].concat()).map_err(failed)?.0
        };
        let before = tcgetattr(tty).map_err(|errno| failed(errno.into()))?;
        let mut silent = before.clone();
        silent
            .local_modes
            .remove(LocalModes::ECHO | LocalModes::ECHONL);
        await_signals(true);
        as_ever(false);
        let quiet = Self {
            tty,
            before,
            silent,
            signals,
            resumed,
            registered,
        };
        // Flushing drops what was typed ahead, which was echoed.
        quiet.hush()?;
        Ok(quiet)
    }

    fn hush(&self) -> Result<(), Failure> {
        tcsetattr(self.tty, OptionalActions::Flush, &self.silent)
            .map_err(|errno| not_set_up(errno.into()))
    }

    /// Turns the echo off once more; what was typed meanwhile is no part of the secret.
    fn hush_again(&self) -> Result<(), Failure> {
        (&self.resumed).read(&mut [0; 16]).map_err(not_set_up)?;
        self.hush()
    }
}

fn not_set_up(error: io::Error) -> Failure {
    Failure::unexpected(format!("the terminal cannot be set up: {error}"))
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.tty, OptionalActions::Flush, &self.before);
        for id in self.registered.drain(..) {
            signal_hook::low_level::unregister(id);
        }
        prompt().take();
        await_signals(false);
        as_ever(true);
    }
}

/// Shows on a terminal that something takes its time; does nothing anywhere else.
pub(super) struct Waiting(Option<indicatif::ProgressBar>);

impl Waiting {
    /// Begins, with what is being waited for.
    pub(super) fn begin(what: String, show: bool) -> Self {
        if !show || !io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = indicatif::ProgressBar::new_spinner().with_message(what);
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(Some(bar))
    }

    /// Counts seconds down.
    pub(super) fn count_down(what: &str, seconds: u64, show: bool) {
        let waiting = Self::begin(format!("{what}: {seconds} s"), show);
        for left in (1..=seconds).rev() {
            if let Some(bar) = &waiting.0 {
                bar.set_message(format!("{what}: {left} s"));
            }
            thread::sleep(Duration::from_secs(1));
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
