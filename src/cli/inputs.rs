//! Where secrets come from: a file, an open descriptor, a program. Never a flag's value, never
//! the environment.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use zeroize::Zeroizing;

use super::{
    args::{
        AdminPassphraseArgs, AdminSecretArgs, InputPassphraseArgs, NewPassphraseArgs,
        PassphraseArgs,
    },
    failure::Failure,
};
use crate::{
    secret::{self, Passphrase},
    store::{self, Trust},
};

/// The longest secret that is read.
const LONGEST: usize = 4096;

/// A place where a secret lies.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Source {
    File(PathBuf),
    /// Put there by the service manager.
    Credential(PathBuf),
    /// A file that this program keeps.
    Kept(PathBuf),
    Fd(i32),
    Command(String),
}

macro_rules! sources {
    ($($args:ty),*) => { $(
        impl $args {
            /// Returns where the secret lies, if anything was said.
            pub(super) fn source(&self) -> Option<Source> {
                let file = self.file.clone().map(Source::File);
                let fd = self.fd.map(Source::Fd);
                file.or(fd).or_else(|| self.command.clone().map(Source::Command))
            }
        }
    )* };
}

sources!(
    PassphraseArgs,
    NewPassphraseArgs,
    InputPassphraseArgs,
    AdminSecretArgs,
    AdminPassphraseArgs
);

impl Source {
    /// Returns the one line that lies there, without its line break.
    pub(super) fn read_line(&self, what: &str) -> Result<Zeroizing<String>, Failure> {
        let bytes = match self {
            Self::File(path) => store::read(path, LONGEST, Trust::Private)?,
            Self::Credential(path) => store::read(path, LONGEST, Trust::Credential)?,
            Self::Kept(path) => store::read(path, LONGEST, Trust::Ours)?,
            Self::Fd(number) => {
                let path = fd_path(*number);
                let file = open_fd(*number, what)?;
                store::read_to_limit(&file, &path, LONGEST)?
            }
            Self::Command(command) => output_of(command, what)?,
        };
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| Failure::configuration(format!("{what} is not UTF-8")))?;
        let line = text.strip_suffix('\n').unwrap_or(text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.contains(['\n', '\r', '\0']) {
            return Err(
                Failure::configuration(format!("{what} is more than one line"))
                    .hint("put it alone on the first and only line"),
            );
        }
        Ok(Zeroizing::new(line.to_owned()))
    }

    /// Tells whether the secret is still there after it was read.
    pub(super) fn can_be_read_again(&self) -> bool {
        match self {
            Self::File(path) | Self::Kept(path) | Self::Credential(path) => path.is_file(),
            Self::Fd(_) | Self::Command(_) => false,
        }
    }

    /// Tells whether it is standard input that the secret is read from.
    pub(super) fn is_stdin(&self) -> bool {
        match self {
            Self::File(path) => is_stdin(path),
            Self::Fd(number) => *number == 0,
            Self::Credential(_) | Self::Kept(_) | Self::Command(_) => false,
        }
    }

    /// Returns the passphrase that lies there.
    pub(super) fn read_passphrase(&self, what: &str) -> Result<Passphrase, Failure> {
        passphrase(&self.read_line(what)?, what)
    }
}

/// Returns a line as a passphrase; an empty one protects nothing and is refused.
pub(super) fn passphrase(line: &str, what: &str) -> Result<Passphrase, Failure> {
    if line.is_empty() {
        return Err(Failure::key(format!("{what} is empty"))
            .hint("a key without a passphrase needs --no-passphrase and --insecure together"));
    }
    Ok(Passphrase::new(line.to_owned()))
}

fn fd_path(number: i32) -> PathBuf {
    Path::new("/dev/fd").join(number.to_string())
}

/// Opens a descriptor that was inherited, from its start where it has one.
fn open_fd(number: i32, what: &str) -> Result<File, Failure> {
    keep(number, what)?;
    // Going by /dev/fd needs no unsafe code, but a socket has no path that can be opened, and some
    // languages hand one down as a pipe.
    let opened = File::open(fd_path(number)).or_else(|error| take_fd(number).ok_or(error));
    opened.map_err(|error| no_fd(number, what, &error))
}

/// Opens a descriptor that is read line by line: the next command reads on from there.
pub(super) fn share_fd(number: i32, what: &str) -> Result<File, Failure> {
    keep(number, what)?;
    take_fd(number).map_or_else(|| open_fd(number, what), Ok)
}

/// Keeps hooks, and programs for passphrases and codes, from what is behind the descriptor.
fn keep(number: i32, what: &str) -> Result<(), Failure> {
    secret::keep_from_children(number).map_err(|error| no_fd(number, what, &error))
}

fn no_fd(number: i32, what: &str, error: &std::io::Error) -> Failure {
    Failure::configuration(format!(
        "{what} cannot be read from descriptor {number}: {error}"
    ))
    .hint("is it open? in a shell: 3<FILE, and then the number 3")
}

/// Takes a duplicate of one of our own descriptors, where the system has a way to ask for it.
#[cfg(target_os = "linux")]
fn take_fd(number: i32) -> Option<File> {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let ourselves = pidfd_open(getpid(), PidfdFlags::empty()).ok()?;
    let taken = pidfd_getfd(ourselves, number, PidfdGetfdFlags::empty()).ok()?;
    Some(taken.into())
}

#[cfg(not(target_os = "linux"))]
fn take_fd(_: i32) -> Option<File> {
    None
}

/// Runs a program without a shell and returns what it printed.
pub(super) fn output_of(command: &str, what: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let failed = |problem: String| {
        Failure::configuration(format!("the program for {what} {problem}"))
            .hint("it is run without a shell; it must print one line and exit with 0")
    };
    let words = shlex::split(command).filter(|words| !words.is_empty());
    let words = words.ok_or_else(|| failed("is no command line".into()))?;
    let (program, arguments) = words
        .split_first()
        .ok_or_else(|| failed("is no command line".into()))?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("cannot be started: {error}")))?;
    let stdout = child.stdout.take();
    let read = stdout.map(|stdout| store::read_to_limit(stdout, Path::new(program), LONGEST));
    let status = child
        .wait()
        .map_err(|error| failed(format!("was lost: {error}")))?;
    match read.transpose() {
        // Whoever prints for ever is told to stop, and fails at that.
        Err(store::Error::TooLarge { .. }) => {
            Err(failed(format!("printed more than {LONGEST} bytes")))
        }
        Err(error) => Err(failed(format!("cannot be read: {error}"))),
        Ok(_) if !status.success() => Err(failed(format!("failed: {status}"))),
        Ok(bytes) => Ok(bytes.unwrap_or_default()),
    }
}

/// Tells whether a path that was typed is standard input, by any of its names.
pub(super) fn is_stdin(path: &Path) -> bool {
    ["-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"]
        .iter()
        .any(|stdin| path == Path::new(stdin))
}

/// Returns what a path that was typed stands for: `-` is standard input.
pub(super) fn or_stdin(path: &Path) -> &Path {
    if path == Path::new("-") {
        Path::new("/dev/stdin")
    } else {
        path
    }
}
