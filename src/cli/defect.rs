//! A panic: a defect of the program, of which nothing is said but where it is.
//!
//! What a panic says by itself may quote a secret: a text that is cut in the wrong place is quoted
//! whole, and a failed `expect` shows the value.

use std::{
    io::{self, Write},
    panic::{self, Location},
    path::Path,
    process::ExitCode,
    sync::{Mutex, PoisonError},
    thread,
};

use super::{books::AUDIT, failure::Failure};
use crate::agent::{CONNECTIONS, WAIT};

/// Where the last one was.
static PLACE: Mutex<Option<String>> = Mutex::new(None);

/// Runs the program; a panic in it becomes a failure with a fixed text.
pub(super) fn contain(program: fn() -> ExitCode) -> ExitCode {
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(place);
        // One that others go on after is remarked upon; the others are reported as they arrive.
        let thread = thread::current();
        let survived = [AUDIT, CONNECTIONS, WAIT];
        let name = thread.name().filter(|name| survived.contains(name));
        if let (Some(name), Some(place)) = (name, &place) {
            let _ = writeln!(io::stderr(), "derikey: {name}: {}", text(place));
        }
        *PLACE.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }));
    panic::catch_unwind(program).unwrap_or_else(|_| {
        let place = PLACE.lock().unwrap_or_else(PoisonError::into_inner).take();
        Failure::unexpected(text(place.as_deref().unwrap_or("somewhere")))
            .hint(
                "please report it with the command; \"derikey status\" shows whether anything is \
                 under way",
            )
            .report(std::env::args_os().any(|arg| arg == "--json"))
    })
}

fn text(place: &str) -> String {
    format!("a defect in the program, at {place}")
}

/// Names a place in this code whole, in another crate's by its file: where that was built is
/// nobody's business.
fn place(at: &Location<'_>) -> String {
    let file = Path::new(at.file());
    let shown = match file.file_name() {
        Some(name) if file.is_absolute() => Path::new(name),
        _ => file,
    };
    format!("{}:{}", shown.display(), at.line())
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "tests"
    )]
    use std::{env, process::Command};

    use super::*;

    const SECRET: &str = "ääh-Qm7xPzW2vK9sTfB4-canary";

    /// Ways in which a panic quotes what it was about.
    const WAYS: [fn() -> ExitCode; 5] = [
        || panic!("{SECRET}"),
        || panic!("{}", &SECRET[1..]),
        || {
            env::var(SECRET)
                .map(|_| ExitCode::SUCCESS)
                .map_err(|_| SECRET)
                .expect(SECRET)
        },
        || {
            assert_eq!(SECRET, env::var("DEFECT").unwrap());
            ExitCode::SUCCESS
        },
        // As the work on keys does it.
        || {
            thread::scope(|scope| scope.spawn(|| panic!("{SECRET}")).join())
                .unwrap_or_else(|panic| panic::resume_unwind(panic))
        },
    ];

    /// Not a test but the process that the next one starts.
    #[test]
    fn defective() {
        let Ok(way) = env::var("DEFECT") else { return };
        if [CONNECTIONS, WAIT, AUDIT].contains(&way.as_str()) {
            let thread = thread::Builder::new().name(way);
            let thread = thread.spawn(|| contain(|| panic!("{SECRET}")));
            thread.unwrap().join().unwrap();
            return;
        }
        contain(WAYS[way.parse::<usize>().unwrap()]);
    }

    #[test]
    fn a_panic_says_where_it_is_and_nothing_else() {
        let ways = (0..WAYS.len()).map(|way| way.to_string());
        let threads = [CONNECTIONS, WAIT, AUDIT];
        for way in ways.chain(threads.map(str::to_owned)) {
            let output = Command::new(env::current_exe().unwrap())
                .args(["--exact", "cli::defect::tests::defective", "--nocapture"])
                .env("DEFECT", &way)
                .env("RUST_BACKTRACE", "full")
                .output()
                .unwrap();
            assert!(output.status.success(), "{way}: {output:?}");
            let stderr = String::from_utf8(output.stderr).unwrap();
            let stdout = String::from_utf8(output.stdout).unwrap();
            let said: Vec<&str> = stderr.lines().collect();
            let cause = said
                .iter()
                .filter(|line| line.contains("a defect in the program, at src/cli/defect.rs:"));
            let lines = if threads.contains(&way.as_str()) {
                2
            } else {
                1
            };
            assert_eq!(cause.count(), lines, "{way}: {stderr}");
            assert_eq!(said.len(), lines + 1, "{way}: {stderr}");
            assert!(!(stdout + &stderr).contains("Qm7xPzW2"), "{way}");
        }
    }
}
