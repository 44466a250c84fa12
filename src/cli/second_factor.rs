//! Where one-time codes come from: a descriptor, a program, a seed, a person.

use std::{
    fs::File,
    io::Read,
    sync::{MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use zeroize::Zeroizing;

use super::{
    args::SecondFactorArgs,
    context::Context,
    failure::Failure,
    inputs::{self, Source},
    terminal::Waiting,
};
use crate::{
    exchange::{Challenge, ClientId, Error, Network, SecondFactor, Totp},
    secret::{OneTimeCode, TotpSeed},
    store,
};

/// Whoever was named on the command line or in the configuration; else the person there.
pub(super) struct Codes<'a> {
    context: &'a Context,
    from: From,
    /// Whoever logs in, and where: wherever a code comes from, it is good once there.
    account: String,
}

enum From {
    Lines,
    Program(String),
    Seed(Totp),
    Person,
}

/// What all desks of one run share: a descriptor is read on, not from its start again, and a code
/// that one desk has given away is no other's.
#[derive(Default)]
pub(super) struct Memory {
    lines: Option<File>,
    given: Vec<Zeroizing<String>>,
}

impl<'a> Codes<'a> {
    /// Opens whatever was named; reads no code yet.
    pub(super) fn open(
        context: &'a Context,
        args: &SecondFactorArgs,
        network: &Network,
        client_id: &ClientId,
    ) -> Result<Self, Failure> {
        let config = &context.config;
        let typed =
            args.totp_fd.is_some() || args.totp_command.is_some() || args.totp_seed_file.is_some();
        let (command, seed) = if typed {
            (&args.totp_command, &args.totp_seed_file)
        } else {
            (&config.totp_command, &config.totp_seed_file)
        };
        let from = match (args.totp_fd, command, seed) {
            (Some(number), _, _) => {
                let mut memory = remembered(context);
                if memory.lines.is_none() {
                    memory.lines = Some(inputs::share_fd(number, "the one-time code")?);
                }
                From::Lines
            }
            (None, Some(command), _) => From::Program(command.clone()),
            (None, None, Some(path)) => {
                let line = Source::File(path.clone()).read_line("the TOTP seed")?;
                From::Seed(Totp::new(&TotpSeed::new(line.to_string()))?)
            }
            (None, None, None) => From::Person,
        };
        Ok(Self {
            context,
            from,
            account: format!("{network} {client_id}"),
        })
    }

    fn next(&mut self, challenge: &Challenge) -> Result<Zeroizing<String>, Error> {
        match &mut self.from {
            From::Lines => match &mut remembered(self.context).lines {
                Some(file) => next_line(file),
                None => Err(no_code("no code is left to read")),
            },
            From::Program(command) => from_program(self.context, command, &self.account),
            From::Seed(totp) => from_seed(self.context, totp, &self.account),
            From::Person => {
                let site = challenge.rp_id().unwrap_or("the exchange");
                let site: String = site
                    .chars()
                    .filter(char::is_ascii_graphic)
                    .take(64)
                    .collect();
                let terminal = self
                    .context
                    .terminal()
                    .ok_or_else(|| no_code("none was given and nobody can be asked"))?;
                terminal
                    .ask_secret(&format!("One-time code for {site}: "))
                    .map_err(|failure| match failure.kind() {
                        "interrupted" => Error::Interrupted,
                        _ => no_code(failure.message()),
                    })
            }
        }
    }
}

impl SecondFactor for Codes<'_> {
    fn code(&mut self, challenge: &Challenge) -> Result<OneTimeCode, Error> {
        let code = six_digits(self.next(challenge)?)?;
        let mut memory = remembered(self.context);
        if memory.given.contains(&code) {
            return Err(no_code("the same code was given twice; a code works once"));
        }
        memory.given.push(code.clone());
        Ok(OneTimeCode::new(code.to_string()))
    }

    fn waits(&mut self, seconds: u64) -> bool {
        if seconds > LONGEST_PAUSE {
            return false;
        }
        self.context.output.remark(format!(
            "too many one-time codes have failed; waiting for {seconds} s, as the exchange asks"
        ));
        Waiting::count_down(
            "waiting until codes are taken again",
            seconds,
            self.context.output.shows_progress(),
        );
        true
    }
}

fn remembered<'a>(context: &'a Context) -> MutexGuard<'a, Memory> {
    context.codes.lock().unwrap_or_else(PoisonError::into_inner)
}

fn no_code(problem: &str) -> Error {
    Error::NoSecondFactor {
        problem: problem.into(),
    }
}

/// Reads one line and not a byte more: the next one may not have been typed yet.
fn next_line(file: &mut File) -> Result<Zeroizing<String>, Error> {
    let mut line = Zeroizing::new(String::with_capacity(64));
    let mut byte = [0];
    loop {
        match file.read(&mut byte) {
            Ok(0) if line.is_empty() => return Err(no_code("no code is left to read")),
            Ok(0) => break,
            Ok(_) if byte == *b"\n" => break,
            Ok(_) if line.len() == 63 => {
                return Err(no_code("what was given is not a code of six digits"));
            }
            Ok(_) => line.extend(byte.map(char::from)),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(no_code(&format!("the code cannot be read: {error}"))),
        }
    }
    Ok(Zeroizing::new(line.trim().to_owned()))
}

/// How many steps are waited for: a handful of processes may share a seed.
const LONGEST_WAIT: u32 = 8;

/// The longest pause after failed codes that is waited out, in seconds.
const LONGEST_PAUSE: u64 = 300;

fn six_digits(code: Zeroizing<String>) -> Result<Zeroizing<String>, Error> {
    if code.len() == 6 && code.bytes().all(|b| b.is_ascii_digit()) {
        Ok(code)
    } else {
        Err(no_code("what was given is not a code of six digits"))
    }
}

/// Asks a program, in a step in which nobody has taken a code from it.
///
/// It shows the same code for half a minute, and a code is sent once. A step is used up by a code,
/// not by a program that fails.
fn from_program(
    context: &Context,
    command: &str,
    account: &str,
) -> Result<Zeroizing<String>, Error> {
    let sources = [&*format!("program {command}"), account];
    let problem = |error: store::Error| no_code(&error.to_string());
    for _ in 0..LONGEST_WAIT {
        let step = Totp::step_at(seconds_now());
        if context
            .store
            .is_step_free(&sources, step)
            .map_err(problem)?
        {
            let bytes = inputs::output_of(command, "the one-time code")
                .map_err(|failure| no_code(failure.message()))?;
            let text = std::str::from_utf8(&bytes).unwrap_or_default();
            let code = six_digits(Zeroizing::new(text.trim().to_owned()))?;
            // A program that asks somebody may have taken its time: its code can be a later step's.
            let step = Totp::step_at(seconds_now());
            if context.store.claim_step(&sources, step).map_err(problem)? {
                return Ok(code);
            }
        }
        wait_for_next_step(context);
    }
    Err(no_code(USED_UP))
}

/// Waits for a step whose code nobody has sent, claims it, and returns its code.
fn from_seed(context: &Context, totp: &Totp, account: &str) -> Result<Zeroizing<String>, Error> {
    for _ in 0..LONGEST_WAIT {
        let now = seconds_now();
        let step = Totp::step_at(now);
        // A code that is about to change may arrive too late.
        let claimed = Totp::STEP - now % Totp::STEP > 2
            && context
                .store
                .claim_step(&[totp.tag(), account], step)
                .map_err(|error| no_code(&error.to_string()))?;
        if claimed {
            return Ok(Zeroizing::new(totp.code(step).expose().to_owned()));
        }
        wait_for_next_step(context);
    }
    Err(no_code(USED_UP))
}

const USED_UP: &str =
    "the codes up to a later time than this are used up; was the clock ahead before?";

fn wait_for_next_step(context: &Context) {
    Waiting::count_down(
        "waiting for the next one-time code",
        Totp::STEP - seconds_now() % Totp::STEP,
        context.output.shows_progress(),
    );
}

fn seconds_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
