//! What is typed wrongly is refused with the right exit code, a cause and a cure, and leaves no
//! trace.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::Write,
    net::TcpListener,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::json;

use crate::{
    raw::{self, Admin, Tap},
    store_files::snapshot,
    support::{Home, Run, Server, join, left_out},
};

const SCOPE: &str = "trade:read";

/// Expects an exit code, one cause, one cure, and nothing on standard output.
#[track_caller]
fn refused(run: Run, code: i32) -> Run {
    let run = run.fails(code);
    let lines = |start: &str| run.stderr.lines().filter(|l| l.starts_with(start)).count();
    assert_eq!(lines("derikey: error: "), 1, "{run:#?}");
    assert_eq!(lines("derikey: hint: "), 1, "{run:#?}");
    let hint = run.stderr.lines().last().unwrap();
    let hint = hint.strip_prefix("derikey: hint: ").unwrap_or_default();
    let says_something = hint.starts_with(|c: char| c.is_alphanumeric() || "\"'-".contains(c));
    assert!(says_something, "{run:#?}");
    assert!(
        run.stderr.lines().all(|line| line.starts_with("derikey: ")),
        "{run:#?}"
    );
    run
}

/// As [`refused`], and the keystore was not even made.
#[track_caller]
fn refused_without_a_trace(home: &Home, args: &[&str], code: i32) {
    let run = home.run(args);
    assert_eq!(run.code, Some(code), "{args:?}: {run:#?}");
    refused(run, code);
    assert!(!home.store().exists(), "{args:?} wrote something");
}

/// What there is of keys, journal and trash.
fn remains(home: &Home) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for dir in ["keys", "journal", "trash"] {
        for entry in fs::read_dir(home.store().join(dir)).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|e| e != "lock") {
                found.push(path);
            }
        }
    }
    found
}

pub(crate) fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A keystore with one sealed key, and the file with its passphrase.
fn with_key() -> (Home, String) {
    let home = Home::new();
    let passphrase = home.secret_file("passphrase", "correct horse battery\n");
    let passphrase = passphrase.to_str().unwrap().to_owned();
    home.run(&["generate", "bot", "--passphrase-file", &passphrase])
        .ok();
    (home, passphrase)
}

#[test]
fn a_name_is_one_to_sixteen_letters_digits_and_underscores_in_every_command() {
    let home = Home::new();
    let sandbox = ["--network", "sandbox"];
    for name in [
        "",
        "abcdefghijklmnopq",
        "../x",
        "a/b",
        ".",
        "..",
        "a b",
        "a-b",
        "b\u{f6}t",
        "bot\n",
        "a\u{7f}",
        "\u{202e}bot",
    ] {
        let commands: &[&[&str]] = &[
            &["generate", name],
            &["import", name, "/dev/null"],
            &["passwd", name],
            &["export", name],
            &["delete", name],
            &["provision", name, "--scope", SCOPE],
            &["register", name, "--scope", SCOPE],
            &["adopt", name],
            &["auth", name],
            &["token", name],
            &["sign", "auth", name],
            &[
                "sign",
                "request",
                name,
                "--method",
                "GET",
                "--path",
                "/api/v2/x",
            ],
            &["resume", name],
            &["provision", "bot", "--scope", SCOPE, "--label", name],
        ];
        for command in commands {
            refused_without_a_trace(&home, &join(&[command, &sandbox]), 2);
        }
    }
}

#[test]
fn values_that_cannot_be_meant_are_usage_errors_and_touch_nothing() {
    let home = Home::new();
    let provision = ["provision", "bot", "--network", "sandbox", "--scope"];
    let mut cases: Vec<Vec<&str>> = Vec::new();
    for scope in [
        "",
        " ",
        "trade",
        "trade:",
        "trade:write",
        "trade:read,wallet:read",
        "trade:read trade:read_write",
        "trade:read margin:read",
        "Trade:read",
        "@nobody",
        "trade:read\nwallet:read_write",
        "session:x",
        "trade:read expires:9",
    ] {
        cases.push(join(&[&provision, &[scope]]));
    }
    for ip in [
        "",
        "1.2.3",
        "1.2.3.4.5",
        "256.1.1.1",
        "10.0.0.0/8",
        "::1",
        "0.0.0.0",
        "localhost",
        "01.2.3.4",
        "1.2.3.4 ",
    ] {
        cases.push(join(&[&provision, &[SCOPE, "--ip", ip]]));
    }
    cases.push(join(&[
        &provision,
        &[SCOPE, "--ip", "bad address!", "--unchecked-ip"],
    ]));
    for feature in ["", "A", "a b", "a;b", "\u{e9}"] {
        cases.push(join(&[&provision, &[SCOPE, "--feature", feature]]));
    }
    for fd in ["-1", "x", "1.5", "99999999999", ""] {
        for flag in ["--passphrase-fd", "--totp-fd", "--admin-secret-fd"] {
            cases.push(join(&[&provision, &[SCOPE, flag, fd]]));
        }
    }
    let algorithm = |value| join(&[&provision, &[SCOPE, "--algorithm", value]]);
    cases.extend(["", "rsa", "rsa-1024", "ED25519"].map(algorithm));
    let timeout = |value| join(&[&provision, &[SCOPE, "--timeout", value]]);
    cases.extend(["0", "-1", "3601", "x"].map(timeout));
    let endpoint = |value| vec!["list", "--network", "custom", "--endpoint", value];
    let bad = [
        "",
        "http://example.com",
        "http://www.deribit.com/api/v2",
        "ftp://127.0.0.1/api/v2",
        "https://",
        "https://user:word@host/api/v2",
        "https://host/api/v2?x=1",
        "http://127.0.0.1.example.com/api/v2",
        "http://localhost@example.com/api/v2",
    ];
    for bad in bad {
        let mut args = join(&[&provision, &[SCOPE]]);
        args.retain(|word| !["--network", "sandbox"].contains(word));
        args.extend(&endpoint(bad)[1..]);
        cases.push(args);
    }
    let odd: &[&[&str]] = &[
        &["frobnicate"],
        &["generate"],
        &["generate", "a", "b"],
        &["provision", "bot", "--network", "sandbox"],
        &["list", "--network", "mainnet"],
        &["list", "--endpoint", "http://127.0.0.1:1/api/v2"],
        &[
            "list",
            "--network",
            "test",
            "--endpoint",
            "https://h/api/v2",
        ],
        &["list", "--network", "prod", "--ca-file", "/dev/null"],
        &["list", "--no-such-flag"],
        &["generate", "bot", "--no-passphrase"],
        &["generate", "bot", "--insecure"],
        &["generate", "bot", "--kdf", "md5"],
        &[
            "generate",
            "bot",
            "--passphrase-file",
            "a",
            "--passphrase-fd",
            "3",
        ],
        &["fingerprint", "bot", "--hash", "sha1"],
        &["auth", "bot", "--scope", "trade"],
        &["auth", "bot", "--session", "a b"],
        &["auth", "bot", "--session", ""],
        &["token", "bot", "--format", "xml"],
        &["token", "bot", "--scope", "@nobody"],
        &["sign", "auth", "bot", "--nonce", ""],
        &["sign", "auth", "bot", "--nonce", "a,b"],
        &["sign", "auth", "bot", "--timestamp", "-5"],
        &["sign", "auth", "bot", "--timestamp", "now"],
        &["sign", "auth", "bot", "--client-id", "a b"],
        &["sign", "auth", "bot", "--scope", "x"],
        &["sign", "request", "bot", "--method", "GET"],
        &[
            "sign",
            "request",
            "bot",
            "--method",
            "get",
            "--path",
            "/api/v2/x",
        ],
        &[
            "sign",
            "request",
            "bot",
            "--method",
            "",
            "--path",
            "/api/v2/x",
        ],
        &[
            "sign",
            "request",
            "bot",
            "--method",
            "G\nT",
            "--path",
            "/api/v2/x",
        ],
        &["sign", "request", "bot", "--method", "GET", "--path", "x"],
        &[
            "sign",
            "request",
            "bot",
            "--method",
            "GET",
            "--path",
            "/api/v2/x?a#y",
        ],
        &[
            "sign",
            "request",
            "bot",
            "--method",
            "GET",
            "--path",
            "/api/v2/x?a y",
        ],
        &["verify", "bot", "--method", "GET"],
        &["sandbox", "--listen", "0.0.0.0:0"],
        &["sandbox", "--listen", "127.0.0.1"],
        &["sandbox", "--fault", "x"],
        &["sandbox", "--fault", "auth:fire"],
        &["completions", "nosh"],
        &["completions"],
        &["--home", "x", "list"],
    ];
    cases.extend(odd.iter().map(|args| args.to_vec()));
    for args in &cases {
        refused_without_a_trace(&home, args, 2);
    }
}

#[test]
fn a_command_that_needs_a_network_and_finds_none_names_the_choices() {
    let home = Home::new();
    let passphrase = home.secret_file("passphrase", "correct horse battery\n");
    let provision = ["provision", "bot", "--scope", SCOPE];
    refused_without_a_trace(&home, &provision, 3);
    let custom = join(&[&provision, &["--network", "custom"]]);
    refused_without_a_trace(&home, &custom, 3);
    let args = [
        "generate",
        "bot",
        "--passphrase-file",
        passphrase.to_str().unwrap(),
    ];
    home.run(&args).ok();
    for args in [
        provision.as_slice(),
        &["register", "bot", "--scope", SCOPE],
        &["adopt", "bot"],
    ] {
        let run = refused(home.run(args), 3);
        for choice in ["sandbox", "test", "prod", "custom"] {
            assert!(run.stderr.contains(choice), "{run:#?}");
        }
    }
    for bad in ["nonsense", "Sandbox", "sandbox "] {
        let run = home
            .command(&provision)
            .env("DERIKEY_NETWORK", bad)
            .output();
        refused(Run::of(run.unwrap()), 3);
    }
}

#[test]
fn a_key_that_is_not_there_is_said_to_be_missing() {
    let home = Home::new();
    for args in [
        ["public", "nobody"].as_slice(),
        &["fingerprint", "nobody"],
        &["show", "nobody"],
        &["export", "nobody"],
        &["auth", "nobody"],
        &["token", "nobody"],
        &["sign", "auth", "nobody"],
        &["sign", "auth", "nobody", "--client-id", "x"],
        &[
            "sign",
            "request",
            "nobody",
            "--method",
            "GET",
            "--path",
            "/api/v2/private/x",
        ],
        &["verify", "nobody"],
        &[
            "register",
            "nobody",
            "--network",
            "sandbox",
            "--scope",
            SCOPE,
        ],
        &["adopt", "nobody", "--network", "sandbox"],
        &["fingerprint", "./nothing.pem"],
        &["import", "bot", "./nothing.pem"],
    ] {
        refused_without_a_trace(&home, args, 3);
    }
    for args in [["passwd", "nobody"], ["delete", "nobody"]] {
        refused(home.run(&args), 3);
        assert_eq!(remains(&home), Vec::<PathBuf>::new());
    }
}

#[test]
fn without_a_passphrase_or_anybody_to_ask_nothing_is_made_or_opened() {
    let home = Home::new();
    refused_without_a_trace(&home, &["generate", "bot"], 7);
    let (home, _) = with_key();
    for args in [
        ["sign", "auth", "bot", "--client-id", "x"].as_slice(),
        &["passwd", "bot"],
        &["export", "bot", "--no-passphrase", "--insecure"],
        &[
            "adopt",
            "bot",
            "--client-id",
            "x",
            "--network",
            "custom",
            "--endpoint",
            "http://127.0.0.1:9/api/v2",
        ],
    ] {
        refused(home.run(args), 7);
    }
}

#[test]
fn a_passphrase_file_must_be_private_one_line_and_text() {
    let (home, _) = with_key();
    let new: &[(&str, &[u8], u32, i32)] = &[
        ("empty", b"", 0o600, 7),
        ("newline", b"\n", 0o600, 7),
        ("crlf", b"\r\n", 0o600, 7),
        ("two_lines", b"one\ntwo\n", 0o600, 3),
        ("nul", b"a\0b\n", 0o600, 3),
        ("latin1", b"caf\xe9\n", 0o600, 3),
        ("readable", b"correct horse battery\n", 0o644, 7),
        ("group", b"correct horse battery\n", 0o640, 7),
        ("long", &[b'x'; 5000], 0o600, 7),
        ("wrong", b"incorrect horse\n", 0o600, 7),
    ];
    for (name, bytes, mode, code) in new {
        let path = home.path(name);
        fs::write(&path, bytes).unwrap();
        chmod(&path, *mode);
        let flag = ["--passphrase-file", path.to_str().unwrap()];
        let sign = ["sign", "auth", "bot", "--client-id", "x"];
        refused(home.run(&join(&[&sign, &flag])), *code);
        if *name != "wrong" {
            refused(home.run(&join(&[&["generate", "other"], &flag])), *code);
            assert_eq!(remains(&home), [home.store().join("keys/bot")], "{name}");
        }
    }
    let link = home.path("link");
    std::os::unix::fs::symlink(home.path("passphrase"), &link).unwrap();
    let open = home.path("open");
    fs::DirBuilder::new().mode(0o700).create(&open).unwrap();
    chmod(&open, 0o777);
    fs::copy(home.path("passphrase"), open.join("passphrase")).unwrap();
    // A link that the user names is followed; whose file it leads to is what counts.
    let flag = ["--passphrase-file", link.to_str().unwrap()];
    home.run(&join(&[&["generate", "linked"], &flag])).ok();
    for path in [open.join("passphrase"), home.path("open")] {
        let flag = ["--passphrase-file", path.to_str().unwrap()];
        refused(home.run(&join(&[&["generate", "other"], &flag])), 7);
    }
    let flag = ["--passphrase-file", "missing"];
    refused(home.run(&join(&[&["generate", "other"], &flag])), 3);
    for program in ["false", "/no/such/program", "", "'", "echo one; echo two"] {
        let flag = ["--passphrase-command", program];
        let run = home.run(&join(&[
            &["sign", "auth", "bot", "--client-id", "x"],
            &flag,
        ]));
        assert!(matches!(run.code, Some(3 | 7)), "{program}: {run:#?}");
        let code = run.code.unwrap();
        refused(run, code);
    }
    let flag = ["--passphrase-fd", "77"];
    refused(home.run(&join(&[&["generate", "other"], &flag])), 3);
}

#[test]
fn a_configuration_with_a_slip_in_it_is_not_half_believed() {
    let (home, _) = with_key();
    let config = home.store().join("config.toml");
    for text in [
        "netwrok = \"sandbox\"\n",
        "passphrase = \"tr0ub4dor\"\n",
        "network = 5\n",
        "network = \"sandbox\"\nnetwork = \"test\"\n",
        "not toml",
        "[table]\nx = 1\n",
    ] {
        fs::write(&config, text).unwrap();
        chmod(&config, 0o600);
        let run = refused(home.run(&["list"]), 3);
        assert!(run.stderr.contains("config.toml"), "{run:#?}");
        assert!(!run.stderr.contains("tr0ub4dor"), "{run:#?}");
    }
    fs::write(&config, [0xff, 0xfe]).unwrap();
    refused(home.run(&["list"]), 3);
    fs::write(&config, "network = \"atlantis\"\n").unwrap();
    refused(home.run(&["provision", "x", "--scope", SCOPE]), 3);
    fs::write(&config, "network = \"sandbox\"\n").unwrap();
    for mode in [0o644, 0o660, 0o602] {
        chmod(&config, mode);
        let run = refused(home.run(&["list"]), 7);
        assert!(run.stderr.contains("chmod 600"), "{run:#?}");
        assert_eq!(config.metadata().unwrap().mode() & 0o777, mode);
    }
}

#[test]
fn a_home_that_others_can_enter_or_that_is_no_directory_is_refused() {
    let (home, _) = with_key();
    for dir in [home.store(), home.store().join("keys")] {
        for mode in [0o755, 0o710, 0o701, 0o777] {
            chmod(&dir, mode);
            let run = refused(home.run(&["list"]), 7);
            assert!(run.stderr.contains(dir.to_str().unwrap()), "{run:#?}");
            assert_eq!(dir.metadata().unwrap().mode() & 0o777, mode, "not mended");
        }
        chmod(&dir, 0o700);
    }
    home.run(&["list"]).ok();
    for file in ["private.pem", "key.toml", "public.pem"] {
        let path = home.store().join("keys/bot/1").join(file);
        chmod(&path, 0o644);
        let sign = ["sign", "auth", "bot", "--client-id", "x"];
        let flag = ["--passphrase-file", "passphrase"];
        refused(home.run(&join(&[&sign, &flag])), 7);
        chmod(&path, 0o600);
    }
    let file = Home::new();
    fs::write(file.store(), "").unwrap();
    refused(file.run(&["list"]), 7);
    let link = Home::new();
    std::os::unix::fs::symlink(home.store(), link.store()).unwrap();
    refused(link.run(&["list"]), 7);
}

#[test]
fn an_exchange_that_cannot_be_reached_leaves_nothing_behind() {
    let home = Home::new();
    home.secret_file("passphrase", "correct horse battery\n");
    home.secret_file("secret", "B6RsF9rrLY5ezEGBQkyLlV-UC7whyPJ34BMA-kKYpes\n");
    // A port that nobody listens on: it was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/api/v2", free.local_addr().unwrap());
    drop(free);
    let run = home.run(&[
        "provision",
        "bot",
        "--scope",
        SCOPE,
        "--network",
        "custom",
        "--endpoint",
        &endpoint,
        "--admin-client-id",
        "TiA4AyLPq3",
        "--admin-secret-file",
        "secret",
        "--passphrase-file",
        "passphrase",
    ]);
    refused(run, 5);
    assert_eq!(remains(&home), Vec::<PathBuf>::new());
}

#[test]
fn an_administrator_who_is_none_leaves_nothing_behind() {
    let exchange = Home::new();
    let server = Server::start(&exchange, &[]);
    let home = Home::new();
    home.secret_file("passphrase", "correct horse battery\n");
    home.secret_file("wrong", "B6RsF9rrLY5ezEGBQkyLlV-UC7whyPJ34BMA-kKYpes\n");
    home.secret_file("empty", "\n");
    home.secret_file("two", "one\ntwo\n");
    let base = join(&[
        &["provision", "bot", "--scope", SCOPE],
        &["--passphrase-file", "passphrase"],
        &server.network(),
    ]);
    let id = server.admin_client_id.as_str();
    for (who, code) in [
        (
            ["--admin-client-id", id, "--admin-secret-file", "wrong"].as_slice(),
            4,
        ),
        (
            &[
                "--admin-client-id",
                "nobody",
                "--admin-secret-file",
                "wrong",
            ],
            4,
        ),
        (
            &["--admin-client-id", id, "--admin-secret-file", "empty"],
            3,
        ),
        (&["--admin-client-id", id, "--admin-secret-file", "two"], 3),
        (
            &["--admin-client-id", id, "--admin-secret-file", "missing"],
            3,
        ),
        (&["--admin-client-id", id], 3),
        (
            &["--admin-client-id", "a b", "--admin-secret-file", "wrong"],
            2,
        ),
        (&["--admin", "nobody"], 3),
        (&["--admin", "../x"], 2),
        (&[], 3),
    ] {
        let run = home.run(&join(&[&base, who]));
        assert_eq!(run.code, Some(code), "{who:?}: {run:#?}");
        refused(run, code);
        assert_eq!(remains(&home), Vec::<PathBuf>::new(), "{who:?}");
    }
    assert!(Admin::log_in(&server).keys().is_empty());
}

#[test]
fn a_scope_beyond_the_administrators_own_is_refused_and_nothing_stays() {
    let exchange = Home::new();
    let server = Server::start(&exchange, &[]);
    let home = Home::new();
    home.secret_file("passphrase", "correct horse battery\n");
    let passphrase = ["--passphrase-file", "passphrase"];
    let boss = [
        "provision",
        "boss",
        "--scope",
        "account:read_write trade:read",
    ];
    home.run(&join(&[&boss, &passphrase, &server.admin(), &["--yes"]]))
        .ok();
    let before = remains(&home);
    let run = home.run(&join(&[
        &["provision", "bot", "--scope", "trade:read_write"],
        &["--admin", "boss"],
        &passphrase,
        &server.network(),
    ]));
    let run = refused(run, 4);
    assert!(run.stderr.contains("scope_exceeded"), "{run:#?}");
    let live: Vec<PathBuf> = remains(&home)
        .into_iter()
        .filter(|path| !path.starts_with(home.store().join("trash")))
        .collect();
    assert_eq!(live, before, "neither key nor journal");
    assert_eq!(Admin::log_in(&server).keys().len(), 1);
    // A key that may not manage keys is told so before anything is sent.
    let small = ["provision", "small", "--scope", "trade:read"];
    home.run(&join(&[&small, &passphrase, &server.admin()]))
        .ok();
    let tap = Tap::before(&server);
    let run = home.run(&join(&[
        &[
            "provision",
            "bot",
            "--scope",
            "trade:read",
            "--admin",
            "small",
        ],
        &passphrase,
        &["--network", "custom", "--endpoint", &tap.endpoint],
    ]));
    refused(run, 8);
    assert_eq!(tap.requests().len(), 0);
}

#[test]
fn the_ninth_key_of_an_account_is_refused_and_leaves_no_live_key() {
    let exchange = Home::new();
    let server = Server::start(&exchange, &[]);
    let admin = Admin::log_in(&server);
    for n in 2..=8 {
        let params = json!({"name": format!("k{n}"), "max_scope": "trade:read"});
        admin.call("private/create_api_key", &params);
    }
    let home = Home::new();
    home.secret_file("passphrase", "correct horse battery\n");
    let run = home.run(&join(&[
        &["provision", "bot", "--scope", SCOPE],
        &["--passphrase-file", "passphrase"],
        &server.admin(),
    ]));
    let run = refused(run, 1);
    assert!(run.stderr.contains("eight keys"), "{run:#?}");
    assert!(!home.store().join("keys/bot").exists());
    assert_eq!(home.run(&["status", "--json"]).json()["pending"], json!([]));
    assert_eq!(admin.keys().len(), 7);
}

#[test]
fn a_feature_that_the_exchange_does_not_know_leaves_no_live_key() {
    let home = Home::new();
    let args = [
        "provision",
        "bot",
        "--network",
        "sandbox",
        "--scope",
        SCOPE,
        "--feature",
        "time_travel",
    ];
    let run = refused(home.run(&args), 1);
    assert!(run.stderr.contains("enabled_features"), "{run:#?}");
    assert!(!home.store().join("keys/bot").exists());
    assert_eq!(home.run(&["status", "--json"]).json()["pending"], json!([]));
    assert!(raw::inspect(&home, Admin::keys).is_empty());
    // In the middle of the work too, a program reads one line and nothing else.
    let run = home.run(&join(&[&args, &["--json"]]));
    assert_eq!(run.error(1)["exchange"]["code"], -32602);
    assert_eq!(run.stderr.lines().count(), 1, "{run:#?}");
}

#[test]
fn a_mistake_under_json_is_one_line_with_every_field() {
    let home = Home::new();
    for (args, code) in [
        (["generate", "../x"].as_slice(), 2),
        (&["frobnicate"], 2),
        (&["generate"], 2),
        (&["generate", "x", "--algorithm", "dsa"], 2),
        (&["provision", "x", "--scope", SCOPE], 3),
        (&["auth", "nobody"], 3),
        (&["generate", "x"], 7),
        (&["sandbox", "--listen", "0.0.0.0:0"], 2),
        (&["man", "/dev/null/x"], 3),
    ] {
        let run = home.run(&join(&[args, &["--json"]]));
        assert_eq!(run.stdout, "", "{run:#?}");
        assert_eq!(run.stderr.lines().count(), 1, "{run:#?}");
        let error = run.error(code);
        for field in ["kind", "message", "hint"] {
            let text = error[field].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{args:?}: no {field}: {error}");
        }
    }
}

#[test]
fn no_command_at_all_shows_help_on_standard_error() {
    let home = Home::new();
    let output = Command::new(env!("CARGO_BIN_EXE_derikey")).output();
    let run = Run::of(output.unwrap()).fails(2);
    assert!(run.stderr.contains("Usage:"), "{run:#?}");
    assert!(!home.store().exists());
}

// Standard output that does not take what is written.

#[test]
fn a_reader_that_has_gone_away_is_no_failure() {
    let (home, _) = with_key();
    for args in [["list"].as_slice(), &["public", "bot"], &["--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let run = home.command(args).stdout(writer).output().unwrap();
        let run = Run::of(run).ok();
        assert_eq!(run.stderr, "");
    }
    // Closed altogether.
    let command = format!("exec '{}' \"$@\" >&-", env!("CARGO_BIN_EXE_derikey"));
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &command, "sh", "--home"])
        .arg(home.store());
    let run = Run::of(shell.args(["public", "bot"]).output().unwrap());
    assert_eq!(run.code, Some(0), "{run:#?}");
}

#[test]
fn a_result_that_cannot_be_written_is_a_failure() {
    let (home, _) = with_key();
    for args in [
        ["list"].as_slice(),
        &["public", "bot"],
        &["export", "bot"],
        &["completions", "bash"],
        &["--help"],
    ] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let run = home.command(args).stdout(full).output().unwrap();
        refused(Run::of(run), 1);
    }
}

#[test]
fn a_full_disk_leaves_no_half_key_and_no_registered_one() {
    let home = Home::new();
    let disk = home.path("disk");
    fs::create_dir(&disk).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs"])
        .arg(&disk)
        .stderr(Stdio::null())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        left_out("no small disk can be mounted: nothing was filled up");
        return;
    }
    let _mounted = Mounted(disk.clone());
    home.secret_file("passphrase", "correct horse battery\n");
    let exchange = Home::new();
    let server = Server::start(&exchange, &[]);
    let store = disk.join("store");
    let run = |args: &[&str]| {
        let args = join(&[args, &["--passphrase-file", "passphrase"]]);
        let mut command = Command::new(env!("CARGO_BIN_EXE_derikey"));
        let command = command.current_dir(home.path("")).arg("--no-input");
        Run::of(
            command
                .arg("--home")
                .arg(&store)
                .args(args)
                .output()
                .unwrap(),
        )
    };
    run(&["generate", "first"]).ok();
    let mut filler = File::create(disk.join("filler")).unwrap();
    while filler.write_all(&[0; 1024]).is_ok() {}
    let first = store.join("keys/first/1/private.pem");
    let before = fs::read(&first).unwrap();

    refused(run(&["generate", "second"]), 1);
    let provision = join(&[&["provision", "third", "--scope", SCOPE], &server.admin()]);
    refused(run(&provision), 1);
    for entry in fs::read_dir(store.join("keys")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "first" || name.ends_with(".lock"), "{name} is left");
    }
    assert_eq!(fs::read(&first).unwrap(), before);
    assert!(Admin::log_in(&server).keys().is_empty());
    // With room again all is well.
    drop(filler);
    fs::remove_file(disk.join("filler")).unwrap();
    run(&["generate", "second"]).ok();
    run(&provision).ok();
}

/// A mounted disk, unmounted whatever happens.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Of two orders that exclude each other, neither is carried out.
#[test]
fn a_passphrase_and_none_are_not_both_taken() {
    let home = Home::new();
    let plain = ["--no-passphrase", "--insecure"];
    home.secret_file("pw", "correct horse\n");
    home.run(&["generate", "bot", "--passphrase-file", "pw"])
        .ok();
    let before = snapshot(&home.store());
    let (named, new) = (["--passphrase-file", "pw"], ["--new-passphrase-file", "pw"]);
    for line in [
        join(&[&["generate", "new"], &named]),
        join(&[
            &[
                "provision",
                "new",
                "--network",
                "sandbox",
                "--scope",
                "trade:read",
            ],
            &named,
        ]),
        join(&[&["passwd", "bot"], &named, &new]),
        join(&[&["export", "bot"], &named, &new]),
    ] {
        let run = home.run(&join(&[&["--json"], &line, &plain]));
        assert!(run.stdout.is_empty(), "{line:?}");
        run.error(2);
        assert_eq!(snapshot(&home.store()), before, "{line:?}");
    }
    // What opens a file is no order for another.
    home.run(&join(&[&["export", "bot"], &named, &plain])).ok();
}

/// Nor is anything looked up for them, and who else a passphrase could be for counts.
#[test]
fn orders_that_exclude_each_other_are_refused_first() {
    let home = Home::new();
    let plain = ["--no-passphrase", "--insecure"];
    home.secret_file("pw", "correct horse\n");
    home.run(&["generate", "bot", "--passphrase-file", "pw"])
        .ok();
    let (named, new) = (["--passphrase-file", "pw"], ["--new-passphrase-file", "pw"]);
    let provision = ["provision", "new", "--scope", "trade:read"];
    let own = ["--admin-passphrase-file", "pw"];
    for line in [
        join(&[&["passwd", "nobody"], &new]),
        join(&[&["export", "nobody"], &new]),
        join(&[&["generate", "bot"], &named]),
        join(&[&provision, &named]),
        join(&[&provision, &named, &["--admin", "bot"], &own]),
        join(&[&provision, &named, &["--admin-client-id", "abc"]]),
    ] {
        let error = home.run(&join(&[&["--json"], &line, &plain])).error(2);
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("--no-passphrase"), "{line:?}: {error}");
    }
    // That of the administrator's key, as far as can be told.
    let line = join(&[&provision, &named, &["--admin", "bot"], &plain]);
    let dry = ["--json", "-n", "--network", "sandbox"];
    home.run(&join(&[&dry, &line])).json();
    // What is configured is for every key that is not said to be an exception.
    let config = format!("passphrase_file = {:?}\nadmin = \"bot\"\n", home.path("pw"));
    home.secret_file("store/config.toml", &config);
    let line = join(&[&provision, &named, &["--admin-client-id", "abc"], &plain]);
    home.run(&join(&[&dry, &line])).error(2);
    home.run(&join(&[&["generate", "clear"], &plain])).ok();
    home.run(&join(&[&["passwd", "bot"], &plain])).ok();
}

#[test]
fn a_command_that_is_left_out_is_asked_for() {
    let home = Home::new();
    for (group, commands) in [("sign", "auth, request"), ("scope", "list, explain, lint")] {
        let error = home.run(&["--json", group]).error(2);
        let message = error["message"].as_str().unwrap();
        assert_eq!(message, format!("derikey {group} needs a command"));
        assert!(
            error["hint"].as_str().unwrap().contains(commands),
            "{error}"
        );
        let help = home.run(&[group]).fails(2);
        assert_eq!(help.stdout, "");
        assert!(
            help.stderr.contains(&format!("Usage: derikey {group}")),
            "{help:#?}"
        );
    }
    let help = home.run(&[]).fails(2);
    assert!(
        help.stderr.contains("Usage: derikey [OPTIONS]"),
        "{help:#?}"
    );
}

/// Wherever options stand, and whatever the value of one is called.
#[test]
fn a_command_is_missing_of_the_group_that_was_typed() {
    let home = Home::new();
    for (line, group) in [
        (&["--network", "sandbox", "sign"][..], "derikey sign"),
        (&["sign", "--network", "sandbox"], "derikey sign"),
        (&["sign", "-q"], "derikey sign"),
        (&["sign", "--"], "derikey sign"),
        (&["--ca-file", "sign", "scope"], "derikey scope"),
        (&["scope", "--ca-file", "sign"], "derikey scope"),
        (&["--network", "sandbox"], "derikey"),
    ] {
        let json = ["--json"];
        for line in [join(&[&json, line]), join(&[line, &json])] {
            if line.contains(&"--") && line.last() == Some(&"--json") {
                continue;
            }
            let error = home.run(&line).error(2);
            assert_eq!(error["message"], format!("{group} needs a command"));
        }
        let help = home.run(line).fails(2);
        let usage = format!("Usage: {group} [OPTIONS] <COMMAND>");
        assert!(help.stderr.contains(&usage), "{line:?}: {help:#?}");
    }
}

#[test]
fn standard_input_is_not_taken_for_two_things() {
    let home = Home::new();
    home.run(&["generate", "bot", "--no-passphrase", "--insecure"])
        .ok();
    let request = ["--method", "POST", "--path", "/api/v2/private/x"];
    let verify = |key, more: &[&str]| {
        let line = join(&[&["--json", "verify", key], &request, more]);
        let error = home.run_with_input(&line, b"{}").error(2);
        error["hint"].as_str().unwrap().to_owned()
    };
    for stdin in ["-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"] {
        let hint = verify("bot", &["--body", stdin]);
        assert!(hint.contains("--body FILE"), "{stdin}: {hint}");
        let hint = verify(stdin, &[]);
        assert!(hint.contains("by its name"), "{stdin}: {hint}");
    }
    for passphrase in [
        ["--passphrase-fd", "0"],
        ["--passphrase-file", "/dev/stdin"],
    ] {
        let hint = verify("./bot.pem", &passphrase);
        assert!(hint.contains("--passphrase-file"), "{hint}");
    }
}

/// Whoever looks at a key whose files are not what they were is told the same by each command.
#[test]
fn a_damaged_record_is_one_kind_of_failure() {
    type Damage = fn(&Path) -> std::io::Result<()>;
    let damages: [Damage; 4] = [
        |key| fs::write(key.join("1/key.toml"), "nonsense"),
        |key| {
            fs::remove_file(key.join("current"))?;
            std::os::unix::fs::symlink("elsewhere", key.join("current"))
        },
        |key| fs::remove_file(key.join("1/key.toml")),
        |key| fs::remove_file(key.join("1/public.pem")),
    ];
    for (index, damage) in damages.into_iter().enumerate() {
        let home = Home::new();
        home.run(&["generate", "bot", "--no-passphrase", "--insecure"])
            .ok();
        damage(&home.store().join("keys/bot")).unwrap();
        for line in [&["list"][..], &["show", "bot"]] {
            let error = home.run(&join(&[&["--json"], line])).error(7);
            assert_eq!(error["kind"], "key", "{index} {line:?}: {error}");
        }
        if index < 2 {
            for line in [&["export", "bot"][..], &["sign", "auth", "bot"]] {
                home.run(&join(&[&["--json"], line])).error(7);
            }
        }
    }
}

#[test]
fn what_is_configured_wrong_is_a_configuration_error() {
    let home = Home::new();
    home.run(&["generate", "bot", "--no-passphrase", "--insecure"])
        .ok();
    let mut odd = home.command(&["--json", "generate", "new"]);
    odd.env("DERIKEY_NETWORK", OsStr::from_bytes(b"prod\xff"));
    Run::of(odd.output().unwrap()).error(3);
    home.secret_file(
        "store/config.toml",
        "network = \"custom\"\nendpoint = \"nonsense\"\n",
    );
    let error = home.run(&["--json", "generate", "new"]).error(3);
    assert!(
        error["message"].as_str().unwrap().contains("config.toml"),
        "{error}"
    );
    // A file where a directory was named.
    let file = home.secret_file("file", "");
    let below = file.join("home");
    let mut list = Command::new(env!("CARGO_BIN_EXE_derikey"));
    list.args(["--json", "list", "--home"]).arg(below);
    Run::of(list.output().unwrap()).error(3);
    home.run(&["--json", "man", file.to_str().unwrap()])
        .error(3);
}
