//! Files: who can read them, what is put in their place, and what is never overwritten.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::support::{Home, Run, Server, data, installed, join, left_out};

/// Arguments that make a key in clear, which needs no passphrase and no time.
const PLAIN: [&str; 2] = ["--no-passphrase", "--insecure"];
/// A command that opens the private half of `k` and touches no network.
const SIGN: [&str; 9] = [
    "sign",
    "request",
    "k",
    "--client-id",
    "abc",
    "--method",
    "GET",
    "--path",
    "/api/v2/private/get_positions",
];

/// Puts a program in front of a command, such as one that limits or watches it.
pub(crate) fn under(prefix: &[&str], command: &Command) -> Command {
    let mut wrapped = Command::new(prefix[0]);
    wrapped
        .args(&prefix[1..])
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for (name, value) in command.get_envs() {
        wrapped.env(name, value.unwrap_or_default());
    }
    wrapped.current_dir(command.get_current_dir().unwrap());
    wrapped
}

/// Runs a command that must not hang.
#[track_caller]
fn bounded(home: &Home, args: &[&str]) -> Run {
    let run = Run::of(
        under(&["timeout", "-k", "1", "40"], &home.command(args))
            .output()
            .unwrap(),
    );
    assert!(
        !matches!(run.code, None | Some(124 | 137)),
        "{args:?} hangs: {run:?}"
    );
    run
}

/// Everything below a directory: mode and content, target or kind.
pub(crate) fn snapshot(dir: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let Ok(entries) = fs::read_dir(dir) else {
        return all;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        let kind = metadata.file_type();
        let content = if kind.is_symlink() {
            fs::read_link(&path)
                .unwrap()
                .into_os_string()
                .into_encoded_bytes()
        } else if kind.is_file() {
            fs::read(&path).unwrap()
        } else {
            format!("{kind:?}").into_bytes()
        };
        if kind.is_dir() {
            all.extend(snapshot(&path));
        }
        all.insert(path, (metadata.mode() & 0o7777, content));
    }
    all
}

/// What was there before is there still, byte for byte.
#[track_caller]
fn unharmed(before: &BTreeMap<PathBuf, (u32, Vec<u8>)>, dir: &Path) {
    let after = snapshot(dir);
    for (path, content) in before {
        assert_eq!(after.get(path), Some(content), "{} changed", path.display());
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A sealed and a registered key, a plain one, and everything that comes with them.
fn furnished() -> Home {
    let home = Home::new();
    let k = join(&[
        &[
            "provision",
            "k",
            "--network",
            "sandbox",
            "--scope",
            "account:read",
        ],
        &PLAIN,
    ]);
    home.run(&k).ok();
    home
}

/// A copy, so that what is made once can be spoiled often.
fn copy(home: &Home) -> Home {
    let fresh = Home::new();
    let status = Command::new("cp")
        .args([
            "-a",
            home.store().to_str().unwrap(),
            fresh.store().to_str().unwrap(),
        ])
        .status();
    assert!(status.unwrap().success());
    fresh
}

fn import_input(home: &Home) -> PathBuf {
    let pem = fs::read_to_string(data("keys/ed25519.openssl.pem")).unwrap();
    home.secret_file("input.pem", &pem)
}

fn everything_stays_private(umask: &str) {
    let home = Home::new();
    let input = import_input(&home);
    let (old, new) = (
        home.secret_file("old", "old passphrase\n"),
        home.secret_file("new", "new passphrase\n"),
    );
    let (input, old, new) = (
        input.to_str().unwrap(),
        old.to_str().unwrap(),
        new.to_str().unwrap(),
    );
    let sandbox = ["--network", "sandbox"];
    let sealed = ["--passphrase-file", old];
    let commands: Vec<Vec<&str>> = vec![
        join(&[&["generate", "gen"], &sealed]),
        join(&[&["generate", "clear"], &PLAIN]),
        join(&[&["import", "imp", input], &sealed]),
        join(&[&["provision", "bot", "--scope", "account:read"], &sandbox]),
        join(&[
            &["register", "gen", "--scope", "account:read"],
            &sandbox,
            &sealed,
        ]),
        join(&[&["provision", "bot", "--scope", "account:read"], &sandbox]),
        vec!["auth", "bot"],
        vec!["token", "bot"],
        vec!["sign", "auth", "bot"],
        vec!["list"],
        vec!["status"],
        vec!["resume"],
        vec!["show", "bot"],
        join(&[&["passwd", "gen", "--new-passphrase-file", new], &sealed]),
        vec!["export", "gen", "--out", "exported.pem"],
        join(&[&["export", "clear", "--out", "exported-clear.pem"], &PLAIN]),
        vec!["delete", "imp"],
        vec!["delete", "bot", "--yes"],
    ];
    for args in &commands {
        let script = format!("umask {umask}; exec \"$0\" \"$@\"");
        let run = under(&["sh", "-c", &script], &home.command(args));
        Run::of({ run }.output().unwrap()).ok();
        for (path, (mode, _)) in snapshot(&home.path("")) {
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            let right = if kind.is_dir() { 0o700 } else { 0o600 };
            assert!(
                kind.is_symlink() || mode == right,
                "{} has {mode:o} after {args:?} under umask {umask}",
                path.display()
            );
            let link = path.ends_with("current");
            assert_eq!(link, kind.is_symlink(), "{}", path.display());
        }
    }
}

#[test]
fn everything_is_private_under_umask_000() {
    everything_stays_private("000");
}

#[test]
fn everything_is_private_under_umask_022() {
    everything_stays_private("022");
}

#[test]
fn everything_is_private_under_umask_077() {
    everything_stays_private("077");
}

/// One system call: its name, its arguments as strace writes them, and what it returned.
pub(crate) struct Syscall {
    pub(crate) name: String,
    pub(crate) arguments: String,
    pub(crate) succeeded: bool,
}

impl Syscall {
    /// The paths in quotes, in order.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.arguments
            .split('"')
            .skip(1)
            .step_by(2)
            .map(PathBuf::from)
            .collect()
    }

    /// The path of the descriptor that comes first, as `-y` shows it.
    fn described(&self) -> Option<PathBuf> {
        let (_, rest) = self.arguments.split_once('<')?;
        Some(PathBuf::from(rest.split_once('>')?.0))
    }
}

/// Runs a command under strace and returns its system calls, or nothing where that is not allowed.
pub(crate) fn trace(home: &Home, calls: &str, args: &[&str]) -> Option<Vec<Syscall>> {
    let (run, calls) = traced(home, calls, &home.command(args))?;
    run.ok();
    Some(calls)
}

/// Runs any command under strace; returns how it ended, too.
pub(crate) fn traced(home: &Home, calls: &str, command: &Command) -> Option<(Run, Vec<Syscall>)> {
    if !installed("strace", &["-o", "/dev/null", "true"]) {
        return None;
    }
    let log = home.path("strace.log");
    let _ = fs::remove_file(&log);
    let filter = format!("trace={calls}");
    let prefix = [
        "strace",
        "-f",
        "-y",
        "-s",
        "16",
        "-e",
        &filter,
        "-o",
        log.to_str().unwrap(),
    ];
    let run = Run::of(under(&prefix, command).output().unwrap());
    let mut unfinished = BTreeMap::new();
    let mut all = Vec::new();
    for line in fs::read_to_string(&log).unwrap().lines() {
        let (pid, rest) = line.split_once(' ').unwrap();
        let rest = rest.trim_start();
        if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
            unfinished.insert(pid.to_owned(), begun.to_owned());
            continue;
        }
        let whole = match rest.split_once(" resumed>") {
            Some((_, end)) => unfinished.remove(pid).unwrap_or_default() + end,
            None => rest.to_owned(),
        };
        let Some((name, rest)) = whole.split_once('(') else {
            continue;
        };
        let Some((arguments, result)) = rest.rsplit_once(" = ") else {
            continue;
        };
        all.push(Syscall {
            name: name.into(),
            arguments: arguments.trim_end().trim_end_matches(')').into(),
            succeeded: !result.starts_with('-'),
        });
    }
    let _ = fs::remove_file(&log);
    assert!(!all.is_empty());
    Some((run, all))
}

const CHANGES: &str = "open,openat,openat2,creat,write,pwrite64,fsync,fdatasync,rename,renameat,\
    renameat2,link,linkat,symlink,symlinkat,mkdir,mkdirat,unlink,unlinkat,rmdir,chmod,fchmod,fchmodat,\
    chown,fchown,fchownat,truncate,ftruncate,mknod,mknodat";

#[test]
fn files_are_born_private_and_made_to_last_in_order() {
    let home = Home::new();
    let old = home.secret_file("old", "old passphrase\n");
    let sealed = ["--passphrase-file", old.to_str().unwrap()];
    let input = import_input(&home);
    let input = input.to_str().unwrap();
    let commands: Vec<Vec<&str>> = vec![
        vec![
            "provision",
            "bot",
            "--scope",
            "account:read",
            "--network",
            "sandbox",
        ],
        join(&[&["generate", "gen"], &sealed]),
        join(&[&["import", "imp", input], &sealed]),
        join(&[
            &["passwd", "gen", "--new-passphrase-command", "echo new"],
            &sealed,
        ]),
        vec!["export", "gen", "--out", "out.pem"],
        vec!["delete", "imp"],
    ];
    let mut renames = 0;
    for args in &commands {
        let Some(calls) = trace(&home, CHANGES, args) else {
            return;
        };
        renames += in_order(&home, args, &calls);
    }
    // Keys, records, journal stages, seals: if fewer are seen, the trace was misread.
    assert!(renames > 12, "only {renames} renames were seen");
}

fn in_order(home: &Home, args: &[&str], calls: &[Syscall]) -> usize {
    let root = home.path("");
    let done: Vec<&Syscall> = calls.iter().filter(|call| call.succeeded).collect();
    let synced = |path: &Path, range: &[&Syscall]| {
        range.iter().any(|call| {
            call.name.starts_with('f')
                && call.name.ends_with("sync")
                && call.described().as_deref() == Some(path)
        })
    };
    let mut renames = 0;
    for (at, call) in done.iter().enumerate() {
        let said = format!("{args:?}: {}({})", call.name, call.arguments);
        assert!(
            !call.name.contains("chmod") && !call.name.contains("chown"),
            "{said}"
        );
        // Secret memory is a file to the system, and lies on no disk.
        let in_memory = call.arguments.contains("/secretmem");
        assert!(
            in_memory || !call.name.contains("truncate") && !call.name.contains("mknod"),
            "{said}"
        );
        let paths: Vec<PathBuf> = call.paths().iter().map(|path| root.join(path)).collect();
        let creates = call.arguments.contains("O_CREAT");
        let changes = !call.name.contains("open") && !call.name.contains("write");
        if creates || (changes && !paths.is_empty()) {
            for path in &paths {
                // The link's own text is no path of ours.
                assert!(
                    path.starts_with(&root) || call.name.starts_with("symlink"),
                    "outside the home: {said}"
                );
            }
        }
        if creates {
            let shared = paths[0]
                .extension()
                .is_some_and(|e| e == "lock" || e == "jsonl");
            let flags = ["O_NOFOLLOW", "O_CLOEXEC", "0600"];
            assert!(
                flags.iter().all(|flag| call.arguments.contains(flag)),
                "{said}"
            );
            assert!(shared || call.arguments.contains("O_EXCL"), "{said}");
            assert!(!call.arguments.contains("O_TRUNC"), "{said}");
        }
        if call.name.starts_with("mkdir") {
            assert!(call.arguments.contains("0700"), "{said}");
        }
        // The sandbox's own state need not survive the machine.
        if paths
            .iter()
            .any(|path| path.starts_with(home.store().join("sandbox")))
            && !paths
                .iter()
                .any(|path| path.ends_with("sandbox/passphrase"))
        {
            continue;
        }
        if call.name.starts_with("rename") {
            let [from, to] = &paths[..] else {
                panic!("{said}")
            };
            renames += 1;
            let last_write = done[..at]
                .iter()
                .rposition(|c| c.name.contains("write") && c.described().as_ref() == Some(from))
                .unwrap_or(0);
            let moved = from.starts_with(home.store().join("keys"))
                && to.starts_with(home.store().join("trash"));
            assert!(
                moved || synced(from, &done[last_write..at]),
                "not fsynced before: {said}"
            );
            assert!(
                synced(to.parent().unwrap(), &done[at..]),
                "directory not fsynced after: {said}"
            );
            // A record, a stage of the journal and a seal take the place of the one before.
            let replaces = to.starts_with(home.store().join("journal"))
                || to.ends_with("key.toml")
                || args[0] == "passwd";
            assert!(
                replaces || call.arguments.contains("RENAME_NOREPLACE"),
                "{said}"
            );
        }
        if call.name.starts_with("symlink") {
            let link = paths.last().unwrap();
            assert!(synced(link.parent().unwrap(), &done[at..]), "{said}");
        }
        if call.name.starts_with("unlink") {
            assert!(!said.contains("private.pem"), "{said}");
        }
    }
    renames
}

#[test]
fn nothing_is_written_outside_the_home() {
    let home = Home::new();
    let elsewhere = home.path("tmp");
    fs::create_dir(&elsewhere).unwrap();
    for args in [
        &[
            "provision",
            "bot",
            "--scope",
            "account:read",
            "--network",
            "sandbox",
        ][..],
        &["auth", "bot"],
        &["passwd", "bot", "--new-passphrase-command", "echo new"],
    ] {
        let mut command = home.command(args);
        Run::of(command.env("TMPDIR", &elsewhere).output().unwrap()).ok();
    }
    assert_eq!(snapshot(&elsewhere), BTreeMap::new());
    let beside: Vec<_> = fs::read_dir(home.path(""))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(beside.len(), 2, "{beside:?}");
}

/// A file is refused with the exit code for key material, its path, and what to do.
#[track_caller]
fn refused(home: &Home, args: &[&str], path: &Path, cure: &str) {
    let args = join(&[args, &["--json"]]);
    let run = bounded(home, &args);
    let error = run.error(7);
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains(path.to_str().unwrap()),
        "{args:?}: {message}"
    );
    let hint = error["hint"].as_str().unwrap_or_default();
    assert!(hint.contains(cure), "{args:?}: {message}: {hint}");
    assert_eq!(run.stdout, "", "{args:?}");
}

/// Files that are believed, and the commands that believe them.
fn believed(home: &Home) -> Vec<(PathBuf, Vec<&'static str>)> {
    let store = home.store();
    let key = store.join("keys/k/1");
    let register = [
        "provision",
        "n",
        "--network",
        "sandbox",
        "--scope",
        "account:read",
    ];
    let pass = join(&[&["generate", "n", "--passphrase-file", "pass"]]);
    let secret = join(&[
        &register,
        &["--admin-client-id", "abc", "--admin-secret-file", "secret"],
    ]);
    let seed = join(&[&register, &["--totp-seed-file", "seed"]]);
    vec![
        (store.join("config.toml"), vec!["list"]),
        (
            store.join("audit.jsonl"),
            join(&[&["generate", "n"], &PLAIN]),
        ),
        (
            store.join("sandbox/passphrase"),
            vec!["generate", "n", "--network", "sandbox"],
        ),
        (store.join("sandbox/admin-secret"), register.to_vec()),
        (
            store.join("keys/.n.lock"),
            join(&[&["generate", "n"], &PLAIN]),
        ),
        (key.join("private.pem"), SIGN.to_vec()),
        (key.join("public.pem"), SIGN.to_vec()),
        (key.join("key.toml"), SIGN.to_vec()),
        (home.path("pass"), pass),
        (home.path("secret"), secret),
        (home.path("seed"), seed),
        (
            home.path("input.pem"),
            vec!["import", "n", "input.pem", PLAIN[0], PLAIN[1]],
        ),
    ]
}

/// A home in which every file of [`believed`] is there.
fn trusting() -> Home {
    let home = furnished();
    home.run(&["generate", "other", "--network", "sandbox"])
        .ok();
    home.secret_file("pass", "correct horse battery\n");
    home.secret_file("secret", "no secret of anybody\n");
    home.secret_file("seed", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\n");
    home.secret_file("store/config.toml", "timeout = 20\n");
    home.secret_file("store/keys/.n.lock", "");
    import_input(&home);
    home
}

/// What the user typed may be relative.
fn shown<'a>(home: &Home, path: &'a Path) -> &'a Path {
    if path.starts_with(home.store()) {
        path
    } else {
        Path::new(path.file_name().unwrap())
    }
}

#[test]
fn files_that_others_can_reach_are_refused() {
    let home = trusting();
    for (path, args) in believed(&home) {
        for mode in [0o640, 0o604, 0o620, 0o602, 0o644] {
            set_mode(&path, mode);
            let before = snapshot(&home.store());
            refused(&home, &args, shown(&home, &path), "chmod 600");
            set_mode(&path, 0o600);
            drop(before);
            // What was made before the refusal was seen is out of the way for the next round.
            let _ = fs::remove_dir_all(home.store().join("keys/n"));
        }
    }
}

#[test]
fn directories_that_others_can_reach_are_refused() {
    let home = trusting();
    let store = home.store();
    for (dir, args) in [
        (store.clone(), vec!["list"]),
        (store.join("keys"), vec!["list"]),
        (store.join("journal"), vec!["status"]),
        (store.join("trash"), vec!["list"]),
        (store.join("keys/k"), SIGN.to_vec()),
        (store.join("keys/k/1"), SIGN.to_vec()),
        (
            store.join("sandbox"),
            vec!["generate", "n", "--network", "sandbox"],
        ),
    ] {
        fs::create_dir_all(&dir).unwrap();
        for mode in [0o755, 0o750, 0o705, 0o710, 0o701, 0o770] {
            set_mode(&dir, mode);
            refused(&home, &args, &dir, "chmod 700");
        }
        set_mode(&dir, 0o777);
        refused(&home, &args, &dir, "directory of your own");
        set_mode(&dir, 0o700);
    }
}

#[test]
fn files_of_somebody_else_are_refused() {
    let home = trusting();
    let mut all = believed(&home);
    let store = home.store();
    all.extend([
        (store.clone(), vec!["list"]),
        (store.join("keys"), vec!["list"]),
        (store.join("keys/k"), SIGN.to_vec()),
        (store.join("keys/k/1"), SIGN.to_vec()),
        (
            store.join("sandbox"),
            vec!["generate", "n", "--network", "sandbox"],
        ),
    ]);
    for (path, args) in all {
        if std::os::unix::fs::lchown(&path, Some(65_534), None).is_err() {
            left_out("only root can give files away: not tested");
            return;
        }
        refused(&home, &args, shown(&home, &path), "your own");
        std::os::unix::fs::lchown(&path, Some(0), None).unwrap();
        let _ = fs::remove_dir_all(home.store().join("keys/n"));
    }
}

#[test]
fn a_link_in_the_place_of_a_key_is_neither_deleted_nor_tidied() {
    let home = Home::new();
    home.run(&["generate", "other", "--no-passphrase", "--insecure"])
        .ok();
    let place = home.store().join("keys/bot");
    let beside = home.path("beside");
    fs::create_dir(&beside).unwrap();
    fs::create_dir(beside.join("1")).unwrap();
    // Named like the drafts that a killed process leaves.
    for file in ["private.pem", ".x.1-0.new", "1/.key.toml.1-0.new"] {
        fs::write(beside.join(file), "somebody's").unwrap();
    }
    symlink(&beside, &place).unwrap();
    for more in [&[][..], &["--yes"], &["--dry-run"]] {
        let args: Vec<&str> = [&["delete", "bot"][..], more].concat();
        let run = home.run(&args).fails(7);
        assert!(
            run.stderr.contains("keys/bot is not a directory"),
            "{run:#?}"
        );
    }
    assert_eq!(fs::read_link(&place).unwrap(), beside);
    for file in ["private.pem", ".x.1-0.new", "1/.key.toml.1-0.new"] {
        assert_eq!(
            fs::read(beside.join(file)).unwrap(),
            b"somebody's",
            "{file}"
        );
    }
    assert!(!home.store().join("trash").exists());
}

#[test]
fn a_journal_that_others_can_reach_is_refused() {
    let home = Home::new();
    let server = Server::start(&home, &["--fault", "create_api_key:drop-before"]);
    let provision = join(&[
        &["provision", "n", "--scope", "account:read"],
        &PLAIN,
        &server.admin(),
    ]);
    home.run(&provision).fails(9);
    let journal = home.store().join("journal/n.json");
    for mode in [0o640, 0o604] {
        set_mode(&journal, mode);
        refused(&home, &["status"], &journal, "chmod 600");
        refused(&home, &["resume"], &journal, "chmod 600");
        refused(&home, &provision, &journal, "chmod 600");
    }
    set_mode(&journal, 0o600);
    if std::os::unix::fs::lchown(&journal, Some(65_534), None).is_ok() {
        refused(&home, &["status"], &journal, "your own");
    }
}

#[test]
fn a_directory_where_anybody_can_swap_the_passphrase_is_refused() {
    let home = Home::new();
    let dir = home.path("open");
    fs::create_dir(&dir).unwrap();
    let pass = home.secret_file("open/pass", "correct horse battery\n");
    set_mode(&dir, 0o777);
    let args = ["generate", "n", "--passphrase-file", pass.to_str().unwrap()];
    refused(&home, &args, &dir, "directory of your own");
    assert!(!home.store().join("keys/n").exists());
    set_mode(&dir, 0o1777);
    home.run(&args).ok();
}

#[test]
fn a_pipe_that_anybody_may_write_to_brings_no_passphrase() {
    let home = Home::new();
    let pipe = home.path("pipe");
    for (mode, code) in [("666", 7), ("620", 7), ("600", 0)] {
        let made = Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        set_mode(&pipe, u32::from_str_radix(mode, 8).unwrap());
        let mut writer = Command::new("timeout")
            .args(["20", "sh", "-c", "echo planted > pipe"])
            .current_dir(home.path(""))
            .spawn()
            .unwrap();
        let run = bounded(&home, &["generate", "n", "--passphrase-file", "pipe"]);
        assert_eq!(run.code, Some(code), "{mode}: {run:?}");
        writer.kill().unwrap();
        writer.wait().unwrap();
        fs::remove_file(&pipe).unwrap();
    }
}

/// What somebody may have put in the place of a file or directory.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Plant {
    Link,
    Dangling,
    Hard,
    Pipe,
    Directory,
}

const PLANTS: [Plant; 5] = [
    Plant::Link,
    Plant::Dangling,
    Plant::Hard,
    Plant::Pipe,
    Plant::Directory,
];

const VICTIM: &str = "what somebody else wrote\n";

impl Plant {
    /// Puts it there; `beside` holds the victims.
    fn put(self, at: &Path, beside: &Path) {
        if fs::symlink_metadata(at).is_ok_and(|m| m.is_dir()) {
            fs::remove_dir_all(at).unwrap();
        } else {
            let _ = fs::remove_file(at);
        }
        let victim = beside.join("victim");
        match self {
            Self::Link if at.extension().is_none() => symlink(beside.join("victims"), at).unwrap(),
            Self::Link => symlink(victim, at).unwrap(),
            Self::Dangling => symlink(beside.join("nothing"), at).unwrap(),
            Self::Hard => fs::hard_link(victim, at).unwrap(),
            Self::Directory => fs::create_dir(at).unwrap(),
            Self::Pipe => {
                let made = Command::new("mkfifo").args(["-m", "600"]).arg(at).status();
                assert!(made.unwrap().success());
            }
        }
    }
}

/// Runs a command with each plant at a path; the tool fails, does not hang, and harms nobody.
fn planted(model: &Home, at: &str, args: &[&str], plants: &[Plant]) {
    for plant in plants {
        let home = copy(model);
        import_input(&home);
        let beside = home.path("beside");
        fs::create_dir_all(beside.join("victims")).unwrap();
        set_mode(&beside, 0o700);
        set_mode(&beside.join("victims"), 0o700);
        for name in [
            "beside/victim",
            "beside/victims/private.pem",
            "beside/victims/key.toml",
        ] {
            home.secret_file(name, VICTIM);
        }
        let path = home.path(at);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        plant.put(&path, &beside);
        let before = snapshot(&beside);
        let run = bounded(&home, args);
        assert!(
            run.code != Some(0) && !run.stderr.contains("panicked"),
            "{plant:?} at {at} was taken by {args:?}: {run:?}"
        );
        assert!(
            run.code != Some(1),
            "{plant:?} at {at} is unexpected to {args:?}: {run:?}"
        );
        assert_eq!(snapshot(&beside), before, "{plant:?} at {at}, {args:?}");
        let there = fs::symlink_metadata(&path).unwrap().file_type();
        let same = match plant {
            Plant::Link | Plant::Dangling => there.is_symlink(),
            Plant::Hard => there.is_file(),
            Plant::Pipe => there.is_fifo(),
            Plant::Directory => there.is_dir(),
        };
        assert!(same, "{plant:?} at {at} is gone after {args:?}");
    }
}

#[test]
fn nothing_planted_in_place_of_a_directory_is_entered() {
    let home = furnished();
    let not_a_directory = &PLANTS[..4];
    let generate = join(&[&["generate", "n"], &PLAIN]);
    let provision = [
        "provision",
        "n",
        "--network",
        "sandbox",
        "--scope",
        "account:read",
        PLAIN[0],
        PLAIN[1],
    ];
    planted(&home, "store", &generate, not_a_directory);
    planted(&home, "store/keys", &generate, not_a_directory);
    planted(&home, "store/keys", &["list"], not_a_directory);
    planted(&home, "store/journal", &provision, not_a_directory);
    planted(
        &home,
        "store/trash",
        &["delete", "k", "--yes"],
        not_a_directory,
    );
    planted(
        &home,
        "store/sandbox",
        &["generate", "n", "--network", "sandbox"],
        not_a_directory,
    );
    planted(&home, "store/sandbox", &provision, not_a_directory);
    planted(&home, "store/keys/k", &SIGN, &PLANTS);
    planted(&home, "store/keys/k/1", &SIGN, &PLANTS);
}

#[test]
fn nothing_planted_where_a_key_goes_is_taken_or_replaced() {
    let home = furnished();
    planted(
        &home,
        "store/keys/n",
        &join(&[&["generate", "n"], &PLAIN]),
        &PLANTS,
    );
    planted(
        &home,
        "store/keys/n",
        &["import", "n", "input.pem", PLAIN[0], PLAIN[1]],
        &PLANTS,
    );
    planted(
        &home,
        "store/keys/n",
        &[
            "provision",
            "n",
            "--network",
            "sandbox",
            "--scope",
            "account:read",
        ],
        &PLANTS,
    );
    planted(
        &home,
        "store/keys/.n.lock",
        &join(&[&["generate", "n"], &PLAIN]),
        &PLANTS,
    );
}

#[test]
fn nothing_planted_in_place_of_a_file_of_a_key_is_read_or_written() {
    let home = furnished();
    for file in ["private.pem", "public.pem", "key.toml"] {
        planted(&home, &format!("store/keys/k/1/{file}"), &SIGN, &PLANTS);
        planted(
            &home,
            &format!("store/keys/k/1/{file}"),
            &["export", "k", PLAIN[0], PLAIN[1]],
            &PLANTS,
        );
    }
    // It writes key.toml.
    let again = [
        "provision",
        "k",
        "--network",
        "sandbox",
        "--scope",
        "account:read",
    ];
    planted(&home, "store/keys/k/1/key.toml", &again, &PLANTS);
    planted(
        &home,
        "store/keys/k/1/private.pem",
        &["passwd", "k", PLAIN[0], PLAIN[1]],
        &PLANTS,
    );
}

#[test]
fn a_current_link_leads_to_a_generation_beside_it_or_nowhere() {
    let model = furnished();
    model.run(&join(&[&["generate", "other"], &PLAIN])).ok();
    planted(&model, "store/keys/k/current", &SIGN, &PLANTS);
    for target in [
        "../other/1",
        "../../keys/k/1",
        "./1",
        "1/",
        "1/.",
        "01",
        "+1",
        "0",
        "-1",
        "2",
        "",
        "1 ",
        "99999999999",
    ] {
        let home = copy(&model);
        let link = home.store().join("keys/k/current");
        fs::remove_file(&link).unwrap();
        if symlink(target, &link).is_err() {
            continue;
        }
        let run = bounded(&home, &SIGN);
        assert!(matches!(run.code, Some(3 | 7)), "{target:?}: {run:?}");
        assert_eq!(run.stdout, "");
    }
}

#[test]
fn nothing_planted_in_place_of_state_is_read_or_written() {
    let home = furnished();
    let generate = join(&[&["generate", "n"], &PLAIN]);
    let provision = [
        "provision",
        "n",
        "--network",
        "sandbox",
        "--scope",
        "account:read",
        PLAIN[0],
        PLAIN[1],
    ];
    planted(&home, "store/audit.jsonl", &generate, &PLANTS);
    planted(&home, "store/config.toml", &["list"], &PLANTS);
    planted(&home, "store/journal/n.json", &provision, &PLANTS);
    planted(&home, "store/journal/n.json", &["status"], &PLANTS);
    planted(&home, "store/journal/n.json", &["resume", "n"], &PLANTS);
    // With the victim's text for a passphrase the key would open to its owner.
    let not_hard: Vec<Plant> = PLANTS.into_iter().filter(|p| *p != Plant::Hard).collect();
    planted(
        &home,
        "store/sandbox/passphrase",
        &["generate", "n", "--network", "sandbox"],
        &not_hard,
    );
}

#[test]
fn nothing_planted_in_place_of_the_sandbox_is_read_or_written() {
    let home = furnished();
    let provision = [
        "provision",
        "n",
        "--network",
        "sandbox",
        "--scope",
        "account:read",
        PLAIN[0],
        PLAIN[1],
    ];
    for file in ["state.json", "admin-secret"] {
        planted_in_sandbox(&home, file, &provision, &PLANTS);
    }
    planted_in_sandbox(&home, "state.lock", &provision, &PLANTS);
}

/// The sandbox's own troubles are unexpected, and may be.
fn planted_in_sandbox(model: &Home, file: &str, args: &[&str], plants: &[Plant]) {
    for plant in plants {
        let home = copy(model);
        let beside = home.path("beside");
        fs::create_dir(&beside).unwrap();
        fs::create_dir(beside.join("victims")).unwrap();
        home.secret_file("beside/victim", VICTIM);
        plant.put(&home.store().join("sandbox").join(file), &beside);
        let before = snapshot(&beside);
        let run = bounded(&home, args);
        assert_ne!(run.code, Some(0), "{plant:?} at {file}");
        assert_eq!(snapshot(&beside), before, "{plant:?} at {file}");
    }
}

#[test]
fn nothing_planted_where_an_export_goes_is_replaced() {
    let home = furnished();
    let export = join(&[&["export", "k", "--out", "out.pem"], &PLAIN]);
    planted(&home, "out.pem", &export, &PLANTS);
    let before = home.secret_file("there.pem", VICTIM);
    home.run(&join(&[&["export", "k", "--out", "there.pem"], &PLAIN]))
        .fails(8);
    assert_eq!(fs::read_to_string(before).unwrap(), VICTIM);
}

#[test]
fn manual_pages_are_not_written_through_links() {
    let home = Home::new();
    let dir = home.path("man");
    fs::create_dir(&dir).unwrap();
    for plant in [
        Plant::Link,
        Plant::Dangling,
        Plant::Hard,
        Plant::Pipe,
        Plant::Directory,
    ] {
        let beside = home.path("beside");
        let _ = fs::remove_dir_all(&beside);
        fs::create_dir_all(beside.join("victims")).unwrap();
        home.secret_file("beside/victim", VICTIM);
        plant.put(&dir.join("derikey-generate.1"), &beside);
        let before = snapshot(&beside);
        let run = bounded(&home, &["man", "man"]);
        assert_ne!(run.code, Some(0), "{plant:?}: {run:?}");
        assert_eq!(snapshot(&beside), before, "{plant:?}");
    }
    // Pages of an earlier version are written anew.
    fs::remove_dir_all(dir.join("derikey-generate.1")).unwrap();
    home.run(&["man", "man"]).ok();
    home.run(&["man", "man"]).ok();
    assert!(
        fs::read_to_string(dir.join("derikey-generate.1"))
            .unwrap()
            .contains("NAME")
    );
}

#[test]
fn nothing_planted_in_place_of_used_codes_is_read_or_written() {
    let home = Home::new();
    home.secret_file("seed", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\n");
    let server = Server::start(
        &home,
        &[
            "--totp-seed-file",
            "seed",
            "--fault",
            "create_api_key:challenge",
        ],
    );
    home.run(&join(&[&["generate", "k"], &PLAIN])).ok();
    let seed = home.path("seed");
    let args = join(&[
        &[
            "register",
            "k",
            "--scope",
            "account:read",
            "--totp-seed-file",
        ],
        &[seed.to_str().unwrap()],
        &server.admin(),
    ]);
    for (file, plants) in [
        ("store/second-factor.json", &PLANTS[..]),
        ("store/second-factor.lock", &PLANTS[..]),
    ] {
        // Each is its own copy, and each journal is left behind in it.
        planted(&home, file, &args, plants);
    }
}

#[test]
fn a_taken_name_leaves_everything_as_it_is() {
    let home = furnished();
    import_input(&home);
    home.run(&join(&[&["generate", "taken"], &PLAIN])).ok();
    let register = ["--network", "sandbox", "--scope", "account:read"];
    let trade = ["--network", "sandbox", "--scope", "trade:read"];
    for args in [
        join(&[&["generate", "taken"], &PLAIN]),
        join(&[
            &["generate", "taken", "--yes", "--algorithm", "rsa-2048"],
            &PLAIN,
        ]),
        join(&[&["import", "taken", "input.pem", "--yes"], &PLAIN]),
        join(&[&["provision", "taken", "--yes"], &register, &PLAIN]),
        join(&[&["generate", "k"], &PLAIN]),
        join(&[&["import", "k", "input.pem"], &PLAIN]),
        join(&[&["provision", "k", "--yes"], &trade, &PLAIN]),
        join(&[&["register", "k", "--yes"], &trade]),
    ] {
        let before = snapshot(&home.store().join("keys"));
        home.run(&args).fails(8);
        unharmed(&before, &home.store().join("keys"));
    }
    let audit = fs::read(home.store().join("audit.jsonl")).unwrap();
    home.run(&join(&[&["generate", "taken"], &PLAIN])).fails(8);
    assert_eq!(fs::read(home.store().join("audit.jsonl")).unwrap(), audit);
}

#[test]
fn of_many_that_make_the_same_key_one_wins() {
    let home = Home::new();
    let args = join(&[&["generate", "n"], &PLAIN]);
    let children: Vec<_> = (0..8)
        .map(|_| home.command(&args).spawn().unwrap())
        .collect();
    let runs: Vec<Run> = children
        .into_iter()
        .map(|c| Run::of(c.wait_with_output().unwrap()))
        .collect();
    let won: Vec<&Run> = runs.iter().filter(|run| run.code == Some(0)).collect();
    assert_eq!(won.len(), 1, "{runs:#?}");
    assert!(
        runs.iter().all(|run| matches!(run.code, Some(0 | 8))),
        "{runs:#?}"
    );
    let public = home.run(&["public", "n"]).ok().stdout;
    assert!(won[0].stdout.contains(public.trim()));
}

#[test]
fn a_private_key_that_is_not_the_public_one_is_refused() {
    let home = furnished();
    home.run(&join(&[&["generate", "other"], &PLAIN])).ok();
    home.run(&["generate", "sealed", "--network", "sandbox"])
        .ok();
    let keys = home.store().join("keys");
    let commands = [
        SIGN.to_vec(),
        vec!["auth", "k"],
        vec!["token", "k"],
        join(&[&["passwd", "k"], &PLAIN]),
        join(&[&["export", "k"], &PLAIN]),
    ];
    for (file, from) in [
        ("private.pem", "other"),
        ("private.pem", "sealed"),
        ("public.pem", "other"),
    ] {
        let (mine, theirs) = (
            keys.join("k/1").join(file),
            keys.join(from).join("1").join(file),
        );
        let kept = fs::read(&mine).unwrap();
        fs::write(&mine, fs::read(theirs).unwrap()).unwrap();
        for args in &commands {
            let run = bounded(&home, &join(&[args, &["--network", "sandbox"]]));
            assert_eq!(run.code, Some(7), "{file} of {from}, {args:?}: {run:?}");
            assert_eq!(run.stdout, "", "{file} of {from}, {args:?}");
        }
        fs::write(&mine, kept).unwrap();
    }
    bounded(&home, &SIGN).ok();
}

fn damage_is_noticed(plain: bool, step: usize) {
    let home = Home::new();
    let pass = home.secret_file("pass", "correct horse battery\n");
    let sealed = ["--passphrase-file", pass.to_str().unwrap()];
    let how: &[&str] = if plain { &PLAIN } else { &sealed };
    home.run(&join(&[&["generate", "k"], how])).ok();
    let how: &[&str] = if plain { &[] } else { &sealed };
    let sign = join(&[&SIGN, how]);
    let good = home.run(&sign).ok();
    assert!(good.stdout.contains("sig="));
    let path = home.store().join("keys/k/1/private.pem");
    let whole = fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(step) {
        let mut damaged = whole.clone();
        // Another letter, so that the base64 stays base64.
        damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
        fs::write(&path, &damaged).unwrap();
        let run = bounded(&home, &sign);
        // A line break may be any blank, and the last bits of base64 nothing.
        let breaks = whole[at].is_ascii_whitespace();
        assert!(run.code == Some(7) || breaks, "byte {at}: {run:?}");
        assert!(
            run.code == Some(0) || run.stdout.is_empty(),
            "byte {at}: {run:?}"
        );
    }
    for length in [0, 1, whole.len() / 2, whole.len() - 30] {
        fs::write(&path, &whole[..length]).unwrap();
        bounded(&home, &sign).fails(7);
    }
}

#[test]
fn a_damaged_plain_key_is_refused() {
    damage_is_noticed(true, 3);
}

#[test]
fn a_damaged_sealed_key_is_refused() {
    damage_is_noticed(false, 11);
}

#[test]
fn what_is_deleted_or_resealed_lies_in_the_trash() {
    let home = Home::new();
    let old = home.secret_file("old", "old passphrase\n");
    let new = home.secret_file("new", "new passphrase\n");
    let (old, new) = (old.to_str().unwrap(), new.to_str().unwrap());
    home.run(&["generate", "k", "--passphrase-file", old]).ok();
    let key = home.store().join("keys/k/1/private.pem");
    let sealed = fs::read(&key).unwrap();
    let passwd = home.run(&[
        "passwd",
        "k",
        "--passphrase-file",
        old,
        "--new-passphrase-file",
        new,
        "--json",
    ]);
    let value = passwd.json();
    let grave = PathBuf::from(value["trash"].as_str().unwrap());
    assert!(grave.starts_with(home.store().join("trash")));
    assert_eq!(fs::read(grave.join("private.pem")).unwrap(), sealed);
    assert_eq!(value["purge"], format!("rm -r '{}'", grave.display()));
    let resealed = fs::read(&key).unwrap();
    assert_ne!(resealed, sealed);
    home.run(&join(&[&SIGN, &["--passphrase-file", new]])).ok();
    home.run(&join(&[&SIGN, &["--passphrase-file", old]]))
        .fails(7);

    let whole = snapshot(&home.store().join("keys/k"));
    let delete = home.run(&["delete", "k", "--json"]);
    let value = delete.json();
    let grave = PathBuf::from(value["trash"].as_str().unwrap());
    assert_eq!(value["purge"], format!("rm -r '{}'", grave.display()));
    let moved: BTreeMap<PathBuf, _> = whole
        .into_iter()
        .map(|(path, content)| {
            (
                grave.join(path.strip_prefix(home.store().join("keys/k")).unwrap()),
                content,
            )
        })
        .collect();
    assert_eq!(snapshot(&grave), moved);
    assert!(!home.store().join("keys/k").exists());
    // Two of the same name in the same second.
    for _ in 0..3 {
        home.run(&join(&[&["generate", "k"], &PLAIN])).ok();
        home.run(&["delete", "k"]).ok();
    }
    assert_eq!(fs::read_dir(home.store().join("trash")).unwrap().count(), 5);
}

#[test]
fn the_purge_command_names_the_grave_whatever_the_home_is_called() {
    let home = Home::new();
    let odd = home.path("it's here");
    let store = odd.to_str().unwrap();
    home.run(&join(&[&["generate", "k", "--home", store], &PLAIN]))
        .ok();
    let run = home.run(&["delete", "k", "--home", store]).ok();
    let line = run
        .stderr
        .lines()
        .find_map(|line| line.split_once("rm -r "))
        .unwrap()
        .1;
    let shown = Command::new("sh")
        .args(["-c", &format!("printf %s {line}")])
        .output()
        .unwrap();
    let shown = PathBuf::from(String::from_utf8(shown.stdout).unwrap());
    assert!(
        shown.starts_with(odd.join("trash")) && shown.is_dir(),
        "{line}"
    );
}
