//! The harness: a home of its own for each test, the built binary, a sandbox in its own process.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::OpenOptionsExt,
    panic::Location,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
};

use serde_json::Value;
use tempfile::TempDir;

/// A directory for one test, with a keystore in it that is not there yet.
pub(crate) struct Home {
    dir: TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// The keystore.
    pub(crate) fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// A path beside the keystore.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file that only its owner can read.
    pub(crate) fn secret_file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
        path
    }

    /// The program, with this home, nothing of our environment, and nobody to ask.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_derikey"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .current_dir(self.dir.path())
            .args(["--home", self.store().to_str().unwrap(), "--no-input"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Run {
        Run::of(self.command(args).output().unwrap())
    }

    /// Runs the program with something on its standard input.
    pub(crate) fn run_with_input(&self, args: &[&str], input: &[u8]) -> Run {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        // A program that refuses early does not read, which is its right.
        let _ = child.stdin.take().unwrap().write_all(input);
        Run::of(child.wait_with_output().unwrap())
    }
}

/// What a run of the program came to.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Expects success and returns the JSON object on standard output.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:#?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:#?}"))
    }

    /// Expects success.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    /// Expects a failure with an exit code, a cause and nothing on standard output.
    #[track_caller]
    pub(crate) fn fails(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert_eq!(self.stdout, "", "{self:#?}");
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
        self
    }

    /// Expects a failure under `--json` and returns its one line's `error` object.
    #[track_caller]
    pub(crate) fn error(&self, code: i32) -> Value {
        assert_eq!(self.code, Some(code), "{self:#?}");
        let last = self.stderr.lines().last().unwrap_or_default();
        let line: Value = serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {self:#?}"));
        assert_eq!(line["error"]["exit"], code, "{self:#?}");
        line["error"].clone()
    }
}

/// A sandbox exchange in a process of its own.
pub(crate) struct Server {
    child: Child,
    pub(crate) endpoint: String,
    pub(crate) admin_client_id: String,
    pub(crate) admin_secret_file: PathBuf,
}

impl Server {
    /// Starts one with its state in `home`.
    pub(crate) fn start(home: &Home, args: &[&str]) -> Self {
        Self::start_at(home, "127.0.0.1:0", args)
    }

    /// Starts one at an address, such as the one it had before.
    pub(crate) fn start_at(home: &Home, address: &str, args: &[&str]) -> Self {
        let mut command = home.command(&["sandbox", "--json", "--listen", address]);
        let mut child = command.args(args).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let Ok(said) = serde_json::from_str::<Value>(&line) else {
            let _ = child.kill();
            panic!(
                "the sandbox said {line:?}: {:#?}",
                Run::of(child.wait_with_output().unwrap())
            );
        };
        let text = |field: &str| said[field].as_str().unwrap().to_owned();
        Self {
            child,
            endpoint: text("endpoint"),
            admin_client_id: text("admin_client_id"),
            admin_secret_file: text("admin_secret_file").into(),
        }
    }

    /// Ends it, so that another may have its address.
    pub(crate) fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The address it listens on.
    pub(crate) fn address(&self) -> String {
        let rest = self.endpoint.strip_prefix("http://").unwrap();
        rest.split('/').next().unwrap().to_owned()
    }

    /// The flags that name it.
    pub(crate) fn network(&self) -> Vec<&str> {
        vec!["--network", "custom", "--endpoint", &self.endpoint]
    }

    /// The flags that name it and its administrator.
    pub(crate) fn admin(&self) -> Vec<&str> {
        let mut flags = self.network();
        flags.extend(["--admin-client-id", &self.admin_client_id]);
        flags.extend([
            "--admin-secret-file",
            self.admin_secret_file.to_str().unwrap(),
        ]);
        flags
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Where the test data lies.
pub(crate) fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

/// Says what is left out, where this machine cannot have it; where everything must be looked at,
/// nothing may be.
///
/// A test that left something out passes all the same, so `scripts/prove.sh` has it written to the
/// file that `DERIKEY_LEFT_OUT` names, one line for each: the test, a tab, what was left out.
#[track_caller]
pub(crate) fn left_out(what: &str) {
    let all = std::env::var_os("LOOK_AT_EVERYTHING").is_some();
    assert!(!all, "{what}");
    eprintln!("{what}");
    if let Some(path) = std::env::var_os("DERIKEY_LEFT_OUT") {
        let file = fs::OpenOptions::new().create(true).append(true).open(path);
        // One write, as other tests write there at the same time.
        let line = format!("{}\t{}\n", this_test(), what.replace(['\n', '\t'], " "));
        file.unwrap().write_all(line.as_bytes()).unwrap();
    }
}

/// The test that runs, by the name of its thread. One that a test begins has no name: there, the
/// file has to do.
#[track_caller]
fn this_test() -> String {
    let thread = thread::current();
    if let Some(name) = thread.name().filter(|name| name.contains("::")) {
        return name.to_owned();
    }
    let file = Path::new(Location::caller().file()).file_stem().unwrap();
    format!("{}::", file.display())
}

/// Tells whether a program is installed; interop tests say so and stop where it is not.
#[track_caller]
pub(crate) fn installed(program: &str, probe: &[&str]) -> bool {
    let status = Command::new(program)
        .args(probe)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let there = status.is_ok_and(|status| status.success());
    if !there {
        let missing = match probe {
            ["-c", import] => format!("{} for {program}", import.trim_start_matches("import ")),
            _ => program.to_owned(),
        };
        left_out(&format!(
            "{missing} is not installed: nothing was tried with it"
        ));
    }
    there
}

/// The two words for a key in clear.
pub(crate) const PLAIN: [&str; 2] = ["--no-passphrase", "--insecure"];

/// Joins arguments of several origins.
pub(crate) fn join<'a>(parts: &[&[&'a str]]) -> Vec<&'a str> {
    parts.concat()
}
