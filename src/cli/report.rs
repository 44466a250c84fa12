//! Where results and remarks go: one JSON object, or text for people.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use zeroize::Zeroizing;

use super::{args::Global, failure::Failure};

/// Where results and remarks go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    pub(super) json: bool,
    pub(super) quiet: bool,
    pub(super) verbose: u8,
}

impl Output {
    pub(super) const fn of(global: &Global) -> Self {
        Self {
            json: global.json,
            quiet: global.quiet,
            verbose: global.verbose,
        }
    }

    /// Writes a result: one JSON object, or text for people.
    pub(super) fn result(
        self,
        value: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        let text = if self.json {
            serde_json::to_string(value).map_err(|error| Failure::unexpected(error.to_string()))?
        } else {
            text()
        };
        write_out(text.trim_end().as_bytes()).and_then(|()| write_out(b"\n"))
    }

    /// Says something on the way. A program that reads JSON gets nothing but the one line of a
    /// failure, unless it asks for more.
    pub(super) fn remark(self, text: impl AsRef<str>) {
        if !self.quiet && (!self.json || self.verbose > 0) {
            let _ = writeln!(io::stderr().lock(), "derikey: {}", text.as_ref());
        }
    }

    /// Says something that only the curious want to know.
    pub(super) fn detail(self, text: impl AsRef<str>) {
        if self.verbose > 0 && !self.quiet {
            self.remark(text);
        }
    }

    /// Tells whether somebody watches.
    pub(super) fn shows_progress(self) -> bool {
        !self.quiet && io::stderr().is_terminal()
    }
}

/// Writes a JSON object that has a secret in it, of so many bytes; nothing of it is left in memory.
pub(super) fn write_secret(value: &impl Serialize, secret: usize) -> Result<(), Failure> {
    // With room for all of it, escapes included: what grows leaves a copy behind.
    let mut text = Zeroizing::new(Vec::with_capacity(secret * 6 + 4096));
    serde_json::to_writer(&mut *text, value)
        .map_err(|error| Failure::unexpected(error.to_string()))?;
    text.push(b'\n');
    write_out(&text)
}

/// Writes to standard output. A reader that has gone away has had enough, which is no failure.
pub(super) fn write_out(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::unexpected(
            format!("standard output cannot be written: {error}"),
        )),
        _ => Ok(()),
    }
}
