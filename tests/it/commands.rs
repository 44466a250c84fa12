//! Every command through the built binary: what it prints, what it writes, what really works.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            fs::{MetadataExt, PermissionsExt},
            net::UnixStream,
        },
    },
    path::{Path, PathBuf},
    process::Stdio,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    raw::{self, Admin, Tap},
    support::{Home, Run, Server, join},
};

const IDENTITY: &[&str] = &[
    "name",
    "algorithm",
    "fingerprint",
    "public_key",
    "private_key_path",
    "public_key_path",
];
const REGISTRATION: &[&str] = &[
    "network",
    "client_id",
    "key_id",
    "label",
    "max_scope",
    "ip_whitelist",
    "enabled_features",
    "fingerprint_verified",
    "granted_scope",
];
const SCOPE: &str = "account:read trade:read_write";
const SUMMARY: &str = "private/get_account_summary";

/// RFC 8032 section 7.1, test 1, as PKCS#8 version 1 around the seed.
const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
const SEED_FINGERPRINT: &str = "32:9b:c1:7e:bd:33:06:cd:02:b7:d3:58:eb:c7:50:df";
const SEED_PUBLIC: &str = "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

fn seed_pem() -> String {
    let hex = format!("302e020100300506032b657004220420{SEED}");
    let der: Vec<u8> = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect();
    let body = BASE64_STANDARD.encode(der);
    format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
}

/// A client with a home of its own in front of an exchange in another process.
struct Bench {
    server: Server,
    home: Home,
    passphrase: String,
    _exchange: Home,
}

impl Bench {
    fn new() -> Self {
        let exchange = Home::new();
        let home = Home::new();
        let path = home.secret_file("passphrase", "correct horse battery\n");
        Self {
            server: Server::start(&exchange, &[]),
            home,
            passphrase: path.to_str().unwrap().to_owned(),
            _exchange: exchange,
        }
    }

    /// Runs a command with the passphrase at hand.
    fn run(&self, args: &[&str]) -> Run {
        self.home
            .run(&join(&[args, &["--passphrase-file", &self.passphrase]]))
    }

    /// Runs a command with the passphrase and the administrator at hand.
    fn managed(&self, args: &[&str]) -> Run {
        self.run(&join(&[args, &self.server.admin()]))
    }

    fn provision(&self, name: &str) -> Value {
        let run = self.managed(&["provision", name, "--scope", SCOPE, "--json"]);
        one_object(&run)
    }

    fn admin(&self) -> Admin {
        Admin::log_in(&self.server)
    }
}

/// A keystore on the sandbox network with one registered key.
fn tried() -> Home {
    let home = Home::new();
    home.run(&[
        "provision",
        "my_bot",
        "--network",
        "sandbox",
        "--scope",
        SCOPE,
    ])
    .ok();
    home
}

/// Expects success and exactly one JSON object, on one line, on standard output.
#[track_caller]
fn one_object(run: &Run) -> Value {
    let value = run.json();
    assert!(value.is_object(), "{run:#?}");
    assert_eq!(run.stdout.matches('\n').count(), 1, "{run:#?}");
    value
}

/// Expects a failure as exactly one JSON line on standard error and nothing on standard output.
#[track_caller]
fn one_failure(run: &Run, code: i32) -> Value {
    assert_eq!(run.stdout, "", "{run:#?}");
    assert_eq!(run.stderr.lines().count(), 1, "{run:#?}");
    let error = run.error(code);
    let mut names = BTreeSet::from_iter(names_of(&error));
    names.remove("exchange");
    assert_eq!(names, ["kind", "exit", "message", "hint"].into(), "{error}");
    assert!(
        error["hint"].as_str().is_some_and(|hint| !hint.is_empty()),
        "{error}"
    );
    error
}

fn names_of(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[track_caller]
fn has_exactly(value: &Value, fields: &[&[&str]]) {
    let wanted: BTreeSet<&str> = fields.concat().into_iter().collect();
    assert_eq!(BTreeSet::from_iter(names_of(value)), wanted, "{value}");
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field]
        .as_str()
        .unwrap_or_else(|| panic!("no {field}: {value}"))
}

fn words(scope: &Value) -> BTreeSet<&str> {
    let words = scope.as_str().unwrap().split(' ');
    words.filter(|word| !word.ends_with(":none")).collect()
}

/// The fingerprint as the exchange computes it: MD5 over the SPKI DER.
fn md5_of(pem: &str) -> String {
    use md5::Digest as _;
    let body: String = pem
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    let digest = md5::Md5::digest(BASE64_STANDARD.decode(body).unwrap());
    let pairs: Vec<String> = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    pairs.join(":")
}

/// Everything below a directory: path, mode and content.
fn snapshot(dir: &Path) -> Vec<(PathBuf, u32, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        let content = if metadata.is_file() {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        if metadata.is_dir() {
            all.extend(snapshot(&path));
        }
        all.push((path, metadata.mode(), content));
    }
    all.sort();
    all
}

/// Asks with a token, as a bot does.
fn summary(server: &Server, authorization: &str) -> Value {
    raw::call(
        &server.address(),
        Some(authorization),
        SUMMARY,
        &json!({"currency": "BTC"}),
    )
}

// provision

#[test]
fn the_readme_command_works_without_a_terminal_an_account_or_a_question() {
    let home = Home::new();
    let args = [
        "provision",
        "my_bot",
        "--network",
        "sandbox",
        "--scope",
        SCOPE,
    ];
    let run = home.run(&args).ok();
    assert!(run.stdout.contains("client id: "), "{run:#?}");
    let shown = home.run(&["show", "my_bot", "--json"]).json();
    assert_eq!(shown["network"], "sandbox");
    assert_eq!(words(&shown["max_scope"]), SCOPE.split(' ').collect());
    let token = home.run(&["token", "my_bot", "--json"]).json();
    assert!(!text(&token, "access_token").is_empty());
    // Sealed although nothing was asked.
    let pem = fs::read_to_string(home.store().join("keys/my_bot/current/private.pem")).unwrap();
    assert!(
        pem.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"),
        "{pem}"
    );
}

#[test]
fn provision_says_exactly_what_the_exchange_has() {
    let bench = Bench::new();
    let said = bench.provision("bot");
    has_exactly(&said, &[IDENTITY, REGISTRATION, &["changed"]]);
    assert_eq!(said["changed"], true);
    assert_eq!(said["fingerprint_verified"], true);
    assert_eq!(said["label"], "bot");
    assert_eq!(said["network"], "custom");
    assert_eq!(words(&said["granted_scope"]), SCOPE.split(' ').collect());
    assert_eq!(said["ip_whitelist"], json!([]));
    assert_eq!(said["enabled_features"], json!([]));
    assert_eq!(
        text(&said, "fingerprint"),
        md5_of(text(&said, "public_key"))
    );

    let keys = bench.admin().keys();
    let [key] = keys.as_slice() else {
        panic!("{keys:?}")
    };
    assert_eq!(key["client_id"], said["client_id"]);
    assert_eq!(key["id"], said["key_id"]);
    assert_eq!(key["name"], "bot");
    assert_eq!(key["client_secret"], said["fingerprint"]);
    assert_eq!(words(&key["max_scope"]), SCOPE.split(' ').collect());
    assert_eq!(
        text(key, "public_key").trim(),
        text(&said, "public_key").trim()
    );
}

#[test]
fn provision_takes_address_feature_label_and_algorithm() {
    let bench = Bench::new();
    let run = bench.managed(&[
        "provision",
        "bot",
        "--scope",
        "trade:read",
        "--ip",
        "127.0.0.1",
        "--ip",
        "192.0.2.7",
        "--feature",
        "restricted_block_trades",
        "--label",
        "other_label",
        "--algorithm",
        "rsa-2048",
        "--json",
    ]);
    let said = one_object(&run);
    has_exactly(&said, &[IDENTITY, REGISTRATION, &["changed"]]);
    assert_eq!(said["algorithm"], "rsa-2048");
    assert_eq!(said["label"], "other_label");
    assert_eq!(said["ip_whitelist"], json!(["127.0.0.1", "192.0.2.7"]));
    assert_eq!(said["enabled_features"], json!(["restricted_block_trades"]));
    assert_eq!(words(&said["granted_scope"]), ["trade:read"].into());
    let keys = bench.admin().keys();
    let [key] = keys.as_slice() else {
        panic!("{keys:?}")
    };
    assert_eq!(key["name"], "other_label");
    assert_eq!(key["ip_whitelist"], said["ip_whitelist"]);
    assert_eq!(key["enabled_features"], said["enabled_features"]);
    assert_eq!(words(&key["max_scope"]), ["trade:read"].into());
}

#[test]
fn a_whitelist_without_this_host_is_no_failure_and_grants_nothing_here() {
    let bench = Bench::new();
    let run = bench.managed(&[
        "provision",
        "bot",
        "--scope",
        "trade:read",
        "--ip",
        "192.0.2.7",
        "--json",
    ]);
    let said = one_object(&run);
    assert_eq!(said["granted_scope"], Value::Null);
    assert_eq!(words(&said["max_scope"]), ["trade:read"].into());
    assert_eq!(
        bench.admin().keys()[0]["ip_whitelist"],
        json!(["192.0.2.7"])
    );
    let again = bench.managed(&[
        "provision",
        "bot",
        "--scope",
        "trade:read",
        "--ip",
        "192.0.2.7",
        "--json",
    ]);
    assert_eq!(one_object(&again)["changed"], false);
    // Here it cannot log in, and that is the exchange's refusal.
    bench.run(&["auth", "bot", "--json"]).error(4);
}

#[test]
fn provision_a_second_time_proves_the_key_and_changes_nothing() {
    let bench = Bench::new();
    let first = bench.provision("bot");
    let second = bench.provision("bot");
    assert_eq!(second["changed"], false);
    for field in ["client_id", "fingerprint", "key_id", "granted_scope"] {
        assert_eq!(first[field], second[field], "{field}");
    }
    assert_eq!(bench.admin().keys().len(), 1);
    // It is proved again, and that needs no administrator.
    let args = join(&[
        &["provision", "bot", "--scope", SCOPE, "--json"],
        &bench.server.network(),
    ]);
    assert_eq!(one_object(&bench.run(&args))["changed"], false);
    let logins = bench.admin().events_of(text(&first, "client_id"));
    let logins = logins.iter().filter(|(what, _)| what == "success").count();
    assert_eq!(logins, 3);
}

#[test]
fn the_order_of_areas_is_no_difference() {
    let bench = Bench::new();
    bench.provision("bot");
    let run = bench.managed(&[
        "provision",
        "bot",
        "--scope",
        "trade:read_write wallet:none account:read",
        "--json",
    ]);
    assert_eq!(one_object(&run)["changed"], false);
}

#[test]
fn another_specification_is_refused_with_the_difference_named() {
    let bench = Bench::new();
    bench.provision("bot");
    let before = snapshot(&bench.home.store().join("keys"));
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["--scope", "account:read trade:read"],
            &["scope", "trade:read"],
        ),
        (
            &["--scope", SCOPE, "--label", "else"],
            &["label", "bot", "else"],
        ),
        (
            &["--scope", SCOPE, "--ip", "192.0.2.1"],
            &["whitelist", "192.0.2.1"],
        ),
        (
            &["--scope", SCOPE, "--feature", "block_trade_approval"],
            &["feature", "block_trade_approval"],
        ),
        (
            &["--scope", SCOPE, "--algorithm", "rsa-2048"],
            &["algorithm", "ed25519", "rsa-2048"],
        ),
    ];
    for (more, named) in cases {
        let run = bench.managed(&join(&[&["provision", "bot", "--json"], more]));
        let error = one_failure(&run, 8);
        for word in *named {
            assert!(text(&error, "message").contains(word), "{word}: {error}");
        }
    }
    assert_eq!(snapshot(&bench.home.store().join("keys")), before);
    assert_eq!(bench.admin().keys().len(), 1);
}

#[test]
fn a_local_key_of_that_name_is_not_provisioned_over() {
    let bench = Bench::new();
    bench.run(&["generate", "bot"]).ok();
    let before = snapshot(&bench.home.store().join("keys"));
    let run = bench.managed(&["provision", "bot", "--scope", SCOPE, "--json"]);
    let error = one_failure(&run, 8);
    assert!(text(&error, "hint").contains("register"), "{error}");
    assert_eq!(snapshot(&bench.home.store().join("keys")), before);
    assert!(bench.admin().keys().is_empty());
}

#[test]
fn rights_to_withdraw_or_to_manage_keys_need_a_yes() {
    let bench = Bench::new();
    for scope in [
        "wallet:read_write",
        "account:read_write",
        "custody:read_write",
    ] {
        let args = ["provision", "bot", "--scope", scope, "--json"];
        one_failure(&bench.managed(&args), 8);
        assert!(bench.admin().keys().is_empty());
    }
    let run = bench.managed(&[
        "provision",
        "bot",
        "--scope",
        "wallet:read_write",
        "--json",
        "--yes",
    ]);
    assert_eq!(
        words(&one_object(&run)["granted_scope"]),
        ["wallet:read_write"].into()
    );
}

#[test]
fn a_dry_run_of_provision_writes_nothing_and_sends_nothing() {
    let bench = Bench::new();
    let tap = Tap::before(&bench.server);
    let flags = ["--network", "custom", "--endpoint", &tap.endpoint];
    let run = bench.run(&join(&[
        &["provision", "bot", "--scope", SCOPE, "--dry-run", "--json"],
        &flags,
    ]));
    let said = one_object(&run);
    assert!(said.to_string().contains("ed25519"), "{said}");
    assert!(!bench.home.store().exists());
    assert_eq!(tap.requests(), Vec::<Value>::new());
    // The tap does hear: the same without --dry-run goes through it.
    let admin = join(&[
        &flags,
        &["--admin-client-id", &bench.server.admin_client_id],
        &[
            "--admin-secret-file",
            bench.server.admin_secret_file.to_str().unwrap(),
        ],
    ]);
    bench
        .run(&join(&[&["provision", "bot", "--scope", SCOPE], &admin]))
        .ok();
    assert_eq!(tap.calls("private/create_api_key").len(), 1);
}

#[test]
fn a_dry_run_of_anything_leaves_every_byte_as_it_was() {
    let bench = Bench::new();
    bench.provision("bot");
    bench.run(&["generate", "local"]).ok();
    let new = bench.home.secret_file("new", "another one\n");
    let key = bench.home.secret_file("key.pem", &seed_pem());
    let out = bench.home.path("out.pem");
    let (new, key) = (new.to_str().unwrap(), key.to_str().unwrap());
    let before = snapshot(&bench.home.store());
    let commands: &[&[&str]] = &[
        &["generate", "other"],
        &["import", "other", key],
        &["passwd", "local", "--new-passphrase-file", new],
        &["export", "local", "--out", out.to_str().unwrap()],
    ];
    for command in commands {
        bench.run(&join(&[&["-n"], command])).ok();
        assert_eq!(snapshot(&bench.home.store()), before, "{command:?}");
    }
    for command in [["delete", "local"], ["delete", "bot"]] {
        bench.home.run(&join(&[&["-n"], &command])).ok();
        assert_eq!(snapshot(&bench.home.store()), before, "{command:?}");
    }
    bench
        .managed(&["register", "local", "--scope", SCOPE, "-n"])
        .ok();
    assert_eq!(snapshot(&bench.home.store()), before);
    assert!(!out.exists());
    assert_eq!(bench.admin().keys().len(), 1);
}

// keys on this machine

#[test]
fn generate_makes_each_algorithm_and_says_exactly_where_it_is() {
    let bench = Bench::new();
    for (name, algorithm) in [("a", "ed25519"), ("b", "rsa-2048"), ("c", "rsa-3072")] {
        let run = bench.run(&["generate", name, "--algorithm", algorithm, "--json"]);
        let said = one_object(&run);
        has_exactly(&said, &[IDENTITY]);
        assert_eq!(said["name"], name);
        assert_eq!(said["algorithm"], algorithm);
        assert_eq!(
            text(&said, "fingerprint"),
            md5_of(text(&said, "public_key"))
        );
        let private = Path::new(text(&said, "private_key_path"));
        assert_eq!(private.metadata().unwrap().permissions().mode(), 0o100_600);
        assert!(
            fs::read_to_string(private)
                .unwrap()
                .contains("BEGIN ENCRYPTED PRIVATE KEY")
        );
        let public = fs::read_to_string(text(&said, "public_key_path")).unwrap();
        assert_eq!(public, text(&said, "public_key"));
    }
    let run = bench.run(&["generate", "a", "--json"]);
    one_failure(&run, 8);
}

#[test]
fn both_kinds_of_sealing_open_again_and_plain_takes_two_words() {
    let bench = Bench::new();
    for kdf in ["scrypt", "pbkdf2"] {
        bench.run(&["generate", kdf, "--kdf", kdf]).ok();
        bench.run(&["sign", "auth", kdf, "--client-id", "x"]).ok();
    }
    for flag in ["--no-passphrase", "--insecure"] {
        let run = bench.home.run(&["generate", "plain", flag, "--json"]);
        one_failure(&run, 2);
        assert!(!bench.home.store().join("keys/plain").exists());
    }
    let args = ["generate", "plain", "--no-passphrase", "--insecure"];
    bench.home.run(&args).ok();
    let pem = bench.home.store().join("keys/plain/current/private.pem");
    assert!(
        fs::read_to_string(pem)
            .unwrap()
            .starts_with("-----BEGIN PRIVATE KEY-----\n")
    );
    bench
        .home
        .run(&["sign", "auth", "plain", "--client-id", "x"])
        .ok();
}

#[test]
fn import_reads_a_file_standard_input_and_one_line_pem() {
    let bench = Bench::new();
    let pem = seed_pem();
    let file = bench.home.secret_file("key.pem", &pem);
    let said = one_object(&bench.run(&["import", "file", file.to_str().unwrap(), "--json"]));
    has_exactly(&said, &[IDENTITY]);
    assert_eq!(said["fingerprint"], SEED_FINGERPRINT);
    assert!(
        text(&said, "public_key").contains(SEED_PUBLIC),
        "the public half of RFC 8032's key"
    );

    let one_line = pem.trim_end().replace('\n', "\\n");
    for (name, input) in [("stdin", pem.as_str()), ("line", one_line.as_str())] {
        let args = ["import", name, "-", "--passphrase-file", &bench.passphrase];
        bench.home.run_with_input(&args, input.as_bytes()).ok();
        let printed = bench.home.run(&["fingerprint", name]).ok().stdout;
        assert_eq!(printed.trim(), SEED_FINGERPRINT);
    }
    let again = bench.run(&["import", "file", file.to_str().unwrap(), "--json"]);
    one_failure(&again, 8);
}

#[test]
fn import_opens_a_sealed_file_with_its_own_passphrase() {
    let bench = Bench::new();
    bench.run(&["generate", "bot"]).ok();
    let out = bench.home.path("sealed.pem");
    let out = out.to_str().unwrap();
    let other = bench.home.secret_file("other", "another one\n");
    let other = other.to_str().unwrap();
    bench
        .run(&[
            "export",
            "bot",
            "--out",
            out,
            "--new-passphrase-file",
            other,
        ])
        .ok();
    let run = bench.run(&["import", "copy", out, "--json"]);
    one_failure(&run, 7);
    let run = bench.run(&[
        "import",
        "copy",
        out,
        "--input-passphrase-file",
        other,
        "--json",
    ]);
    let copy = one_object(&run);
    let original = bench.home.run(&["show", "bot", "--json"]).json();
    assert_eq!(copy["fingerprint"], original["fingerprint"]);
    // What is kept is sealed with the keystore's passphrase, not with the file's.
    bench
        .run(&["sign", "auth", "copy", "--client-id", "x"])
        .ok();
}

#[test]
fn standard_input_may_be_a_socket_as_some_languages_give_it() {
    let bench = Bench::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut child = bench
        .home
        .command(&["import", "bot", "-", "--passphrase-file", &bench.passphrase])
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .unwrap();
    let mut writer = ours;
    writer.write_all(seed_pem().as_bytes()).unwrap();
    drop(writer);
    let status = child.wait().unwrap();
    let run = Run::of(child.wait_with_output().unwrap());
    assert!(status.success(), "{run:#?}");
    let printed = bench.home.run(&["fingerprint", "bot"]).ok().stdout;
    assert_eq!(printed.trim(), SEED_FINGERPRINT);
}

#[test]
fn public_fingerprint_and_show_agree_for_names_and_files() {
    let home = tried();
    let shown = one_object(&home.run(&["show", "my_bot", "--json"]));
    let public = home.run(&["public", "my_bot"]).ok().stdout;
    assert_eq!(public, text(&shown, "public_key"));
    assert_eq!(shown["state"], "active");
    assert_eq!(shown["generation"], 1);
    let said = one_object(&home.run(&["public", "my_bot", "--json"]));
    assert_eq!(said["public_key"], shown["public_key"]);

    let file = home.path("key.pub.pem");
    fs::write(&file, &public).unwrap();
    for which in ["my_bot", file.to_str().unwrap()] {
        let md5 = home.run(&["fingerprint", which]).ok().stdout;
        assert_eq!(md5.trim(), md5_of(&public));
        let said = one_object(&home.run(&["fingerprint", which, "--hash", "md5", "--json"]));
        assert_eq!(said["fingerprint"], md5.trim());
        assert_eq!(home.run(&["public", which]).ok().stdout, public);
        assert!(home.run(&["show", which]).ok().stdout.contains(md5.trim()));
        let body: String = public.lines().filter(|l| !l.starts_with('-')).collect();
        let der = BASE64_STANDARD.decode(body).unwrap();
        let hex: String = Sha256::digest(&der)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let sha = home
            .run(&["fingerprint", which, "--hash", "sha256"])
            .ok()
            .stdout;
        assert_eq!(sha.trim().replace(':', ""), hex);
    }
}

#[test]
fn a_file_with_a_private_key_shows_its_public_half_if_nobody_else_can_read_it() {
    let home = Home::new();
    let file = home.secret_file("key.pem", &seed_pem());
    let path = file.to_str().unwrap();
    let printed = home.run(&["fingerprint", path]).ok().stdout;
    assert_eq!(printed.trim(), SEED_FINGERPRINT);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    one_failure(&home.run(&["fingerprint", path, "--json"]), 7);
}

#[test]
fn passwd_keeps_the_old_file_and_only_the_new_passphrase_opens() {
    let bench = Bench::new();
    let made = bench.run(&["generate", "bot", "--json"]).json();
    let private = PathBuf::from(text(&made, "private_key_path"));
    let old = fs::read(&private).unwrap();
    let new = bench.home.secret_file("new", "another one\n");
    let new = new.to_str().unwrap();
    let run = bench.run(&["passwd", "bot", "--new-passphrase-file", new, "--json"]);
    let said = one_object(&run);
    let buried = Path::new(text(&said, "trash")).join("private.pem");
    assert!(buried.starts_with(bench.home.store().join("trash")));
    assert_eq!(fs::read(buried).unwrap(), old);
    assert_ne!(fs::read(&private).unwrap(), old);
    assert_eq!(private.metadata().unwrap().mode() & 0o777, 0o600);

    let sign = ["sign", "auth", "bot", "--client-id", "x", "--json"];
    one_failure(&bench.run(&sign), 7);
    let with_new = join(&[&sign, &["--passphrase-file", new]]);
    bench.home.run(&with_new).ok();
    // With the wrong old passphrase nothing changes.
    let before = fs::read(&private).unwrap();
    let run = bench.run(&["passwd", "bot", "--new-passphrase-file", new, "--json"]);
    one_failure(&run, 7);
    assert_eq!(fs::read(&private).unwrap(), before);
}

#[test]
fn export_is_sealed_unless_two_words_say_otherwise() {
    let bench = Bench::new();
    bench.run(&["generate", "bot"]).ok();
    let stored = fs::read_to_string(bench.home.store().join("keys/bot/current/private.pem"));
    let sealed = bench.home.run(&["export", "bot"]).ok().stdout;
    assert_eq!(sealed, stored.unwrap());
    for flag in ["--no-passphrase", "--insecure"] {
        let run = bench.run(&["export", "bot", flag, "--json"]);
        one_failure(&run, 2);
    }
    let plain = bench
        .run(&["export", "bot", "--no-passphrase", "--insecure"])
        .ok()
        .stdout;
    assert!(plain.starts_with("-----BEGIN PRIVATE KEY-----\n"));
    let file = bench.home.secret_file("plain.pem", &plain);
    let ours = bench.home.run(&["fingerprint", "bot"]).ok().stdout;
    let theirs = bench
        .home
        .run(&["fingerprint", file.to_str().unwrap()])
        .ok()
        .stdout;
    assert_eq!(ours, theirs);
}

#[test]
fn export_to_a_file_is_private_and_overwrites_nothing() {
    let bench = Bench::new();
    bench.run(&["generate", "bot"]).ok();
    let out = bench.home.path("out.pem");
    let args = ["export", "bot", "--out", out.to_str().unwrap(), "--json"];
    let said = one_object(&bench.run(&args));
    assert_eq!(said["private_key_path"], out.to_str().unwrap());
    assert_eq!(out.metadata().unwrap().mode() & 0o777, 0o600);
    let before = fs::read(&out).unwrap();
    one_failure(&bench.run(&args), 8);
    assert_eq!(fs::read(&out).unwrap(), before);
    let link = bench.home.path("link.pem");
    std::os::unix::fs::symlink(bench.home.path("victim"), &link).unwrap();
    let run = bench.run(&["export", "bot", "--out", link.to_str().unwrap(), "--json"]);
    one_failure(&run, 8);
    assert!(!bench.home.path("victim").exists());
}

#[test]
fn delete_moves_to_the_trash_and_asks_for_a_registered_key() {
    let bench = Bench::new();
    let made = bench.run(&["generate", "local", "--json"]).json();
    let pem = fs::read(text(&made, "private_key_path")).unwrap();
    let said = one_object(&bench.home.run(&["delete", "local", "--json"]));
    let grave = Path::new(text(&said, "trash"));
    assert_eq!(fs::read(grave.join("1/private.pem")).unwrap(), pem);
    assert!(!bench.home.store().join("keys/local").exists());

    bench.provision("bot");
    let error = one_failure(&bench.home.run(&["delete", "bot", "--json"]), 8);
    assert!(text(&error, "hint").contains("--yes"), "{error}");
    bench.home.run(&["show", "bot"]).ok();
    bench.home.run(&["delete", "bot", "-y"]).ok();
    one_failure(&bench.home.run(&["show", "bot", "--json"]), 3);
    let left = bench.home.run(&["list", "--json"]).json();
    assert_eq!(left, json!({"keys": []}));
    // The name is free again, the old key is in the trash still.
    bench.run(&["generate", "local"]).ok();
    assert_eq!(fs::read(grave.join("1/private.pem")).unwrap(), pem);
}

#[test]
fn list_shows_every_key_with_what_is_known_of_it() {
    let bench = Bench::new();
    let empty = one_object(&bench.home.run(&["list", "--json"]));
    assert_eq!(empty, json!({"keys": []}));
    let said = bench.provision("bot");
    bench.run(&["generate", "another"]).ok();
    let list = one_object(&bench.home.run(&["list", "--json"]));
    has_exactly(&list, &[&["keys"]]);
    let keys = list["keys"].as_array().unwrap();
    let names: Vec<&str> = keys.iter().map(|key| text(key, "name")).collect();
    assert_eq!(names, ["another", "bot"]);
    assert_eq!(keys[1]["client_id"], said["client_id"]);
    assert_eq!(keys[1]["fingerprint"], said["fingerprint"]);
    let table = bench.home.run(&["list"]).ok().stdout;
    assert!(
        table.contains("another") && table.contains(text(&said, "client_id")),
        "{table}"
    );
}

// registering what is there

#[test]
fn register_takes_a_key_that_is_there_and_is_idempotent() {
    let bench = Bench::new();
    let made = bench.run(&["generate", "bot", "--json"]).json();
    let args = [
        "register",
        "bot",
        "--scope",
        SCOPE,
        "--ip",
        "127.0.0.1",
        "--json",
    ];
    let said = one_object(&bench.managed(&args));
    has_exactly(&said, &[IDENTITY, REGISTRATION, &["changed"]]);
    assert_eq!(said["fingerprint"], made["fingerprint"]);
    assert_eq!(words(&said["granted_scope"]), SCOPE.split(' ').collect());
    let keys = bench.admin().keys();
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0]["client_secret"], made["fingerprint"]);
    assert_eq!(one_object(&bench.managed(&args))["changed"], false);
    assert_eq!(bench.admin().keys().len(), 1);
    let other = ["register", "bot", "--scope", "trade:read", "--json"];
    one_failure(&bench.managed(&other), 8);
    one_failure(
        &bench.managed(&["register", "nobody", "--scope", SCOPE, "--json"]),
        3,
    );
}

#[test]
fn adopt_says_what_to_paste_and_then_binds_what_was_made_at_the_exchange() {
    let bench = Bench::new();
    let made = bench.run(&["generate", "first", "--json"]).json();
    let network = bench.server.network();
    let told = bench.home.run(&join(&[&["adopt", "first"], &network])).ok();
    assert!(
        told.stdout.contains(text(&made, "public_key").trim()),
        "{told:#?}"
    );
    let told = one_object(
        &bench
            .home
            .run(&join(&[&["adopt", "first", "--json"], &network])),
    );
    assert_eq!(told["public_key"], made["public_key"]);

    // What the web form does, and another key beside it.
    let admin = bench.admin();
    let create = |name: &str, pem: &str| {
        admin.call(
            "private/create_api_key",
            &json!({"name": name, "max_scope": "account:read_write trade:read_write", "public_key": pem}),
        )
    };
    let key = create("from_web", text(&made, "public_key"));
    let foreign = create(
        "foreign",
        &format!("-----BEGIN PUBLIC KEY-----\n{SEED_PUBLIC}\n-----END PUBLIC KEY-----"),
    );
    let adopt = |client_id: &str| {
        bench.run(&join(&[
            &["adopt", "first", "--client-id", client_id, "--json"],
            &network,
        ]))
    };
    one_failure(&adopt(text(&foreign, "client_id")), 4);
    assert_eq!(
        bench.home.run(&["show", "first", "--json"]).json()["client_id"],
        Value::Null
    );
    let said = one_object(&adopt(text(&key, "client_id")));
    has_exactly(&said, &[IDENTITY, REGISTRATION, &["changed"]]);
    assert_eq!(said["client_id"], key["client_id"]);
    assert_eq!(said["key_id"], key["id"]);
    assert_eq!(said["label"], "from_web");
    assert_eq!(said["fingerprint_verified"], true);
    bench.run(&["auth", "first"]).ok();

    // An adopted key can manage keys.
    let run = bench.run(&join(&[
        &[
            "provision",
            "bot",
            "--scope",
            "trade:read",
            "--admin",
            "first",
            "--json",
        ],
        &network,
    ]));
    assert_eq!(
        words(&one_object(&run)["granted_scope"]),
        ["trade:read"].into()
    );
}

#[test]
fn a_key_moves_to_another_machine_by_export_import_and_adopt() {
    let bench = Bench::new();
    let said = bench.provision("bot");
    let sealed = bench.home.run(&["export", "bot"]).ok().stdout;
    let there = Home::new();
    let passphrase = there.secret_file("passphrase", "correct horse battery\n");
    let passphrase = ["--passphrase-file", passphrase.to_str().unwrap()];
    let file = there.secret_file("bot.pem", &sealed);
    let args = ["import", "moved", file.to_str().unwrap()];
    there.run(&join(&[&args, &passphrase])).ok();
    let args = [
        "adopt",
        "moved",
        "--client-id",
        text(&said, "client_id"),
        "--json",
    ];
    let run = there.run(&join(&[&args, &passphrase, &bench.server.network()]));
    let adopted = one_object(&run);
    assert_eq!(adopted["fingerprint"], said["fingerprint"]);
    assert_eq!(adopted["key_id"], said["key_id"]);
    assert_eq!(words(&adopted["max_scope"]), words(&said["max_scope"]));
    there.run(&join(&[&["auth", "moved"], &passphrase])).ok();
}

// using a key

#[test]
fn auth_tells_what_was_granted_and_never_a_token() {
    let bench = Bench::new();
    let key = bench.provision("bot");
    let said = one_object(&bench.run(&["auth", "bot", "--json"]));
    has_exactly(&said, &[&["client_id", "granted_scope", "expires_in"]]);
    assert_eq!(said["client_id"], key["client_id"]);
    assert_eq!(words(&said["granted_scope"]), SCOPE.split(' ').collect());
    assert!(said["expires_in"].as_u64().unwrap() > 0);

    let less = one_object(&bench.run(&["auth", "bot", "--scope", "trade:read", "--json"]));
    assert_eq!(words(&less["granted_scope"]), ["trade:read"].into());
    for more in [
        "wallet:read",
        "account:read_write",
        "trade:read custody:read",
    ] {
        let run = bench.run(&["auth", "bot", "--scope", more, "--json"]);
        one_failure(&run, 11);
    }
    bench.run(&["auth", "bot", "--session", "mine"]).ok();
    bench.run(&["generate", "local"]).ok();
    one_failure(&bench.run(&["auth", "local", "--json"]), 8);
}

#[test]
fn a_token_of_each_form_opens_the_account() {
    let bench = Bench::new();
    bench.provision("bot");
    let said = one_object(&bench.run(&["token", "bot", "--json"]));
    has_exactly(
        &said,
        &[&[
            "access_token",
            "token_type",
            "expires_in",
            "expires_at",
            "scope",
        ]],
    );
    assert_eq!(said["token_type"], "bearer");
    assert_eq!(words(&said["scope"]), SCOPE.split(' ').collect());
    let default = one_object(&bench.run(&["token", "bot"]));
    let header = bench
        .run(&["token", "bot", "--format", "header"])
        .ok()
        .stdout;
    let (name, header) = header.trim_end().split_once(": ").unwrap();
    assert_eq!(name, "Authorization");
    let env = bench.run(&["token", "bot", "--format", "env"]).ok().stdout;
    let env = env
        .trim_end()
        .strip_prefix("DERIBIT_ACCESS_TOKEN=")
        .unwrap();
    for authorization in [
        format!("Bearer {}", text(&said, "access_token")),
        format!("Bearer {}", text(&default, "access_token")),
        header.to_owned(),
        format!("Bearer {env}"),
    ] {
        let answer = summary(&bench.server, &authorization);
        assert_eq!(answer["result"]["currency"], "BTC", "{answer}");
    }
    assert!(
        summary(&bench.server, "Bearer nonsense")
            .get("error")
            .is_some()
    );
}

#[test]
fn a_narrower_token_really_is_narrower() {
    let bench = Bench::new();
    bench.provision("bot");
    let run = bench.run(&["token", "bot", "--scope", "trade:read", "--json"]);
    let said = one_object(&run);
    assert_eq!(words(&said["scope"]), ["trade:read"].into());
    let answer = summary(
        &bench.server,
        &format!("Bearer {}", text(&said, "access_token")),
    );
    assert_eq!(answer["error"]["code"], 13021, "{answer}");
    let run = bench.run(&["token", "bot", "--scope", "wallet:read", "--json"]);
    one_failure(&run, 11);
}

#[test]
fn a_signed_login_sent_from_elsewhere_logs_in_once() {
    let bench = Bench::new();
    let key = bench.provision("bot");
    let run = bench.run(&["sign", "auth", "bot", "--data", "hello", "--json"]);
    let request = one_object(&run);
    assert_eq!(request["jsonrpc"], "2.0");
    assert_eq!(request["method"], "public/auth");
    let params = &request["params"];
    assert_eq!(params["grant_type"], "client_signature");
    assert_eq!(params["client_id"], key["client_id"]);
    assert_eq!(params["data"], "hello");
    assert!(params["timestamp"].is_u64(), "{params}");
    let address = bench.server.address();
    let send = || raw::http(&address, "POST", "/api/v2/public/auth", None, &run.stdout);
    let answer = send();
    let token = text(&answer["result"], "access_token");
    assert_eq!(
        summary(&bench.server, &format!("Bearer {token}"))["result"]["currency"],
        "BTC"
    );
    assert!(send().get("error").is_some(), "a nonce works once");

    let run = bench.run(&["sign", "auth", "bot", "--scope", "trade:read"]);
    let answer = raw::http(&address, "POST", "/api/v2/public/auth", None, &run.stdout);
    let granted = text(&answer["result"], "scope");
    assert!(
        granted.contains("trade:read") && !granted.contains("account:read "),
        "{granted}"
    );
}

#[test]
fn signing_reproduces_the_published_signatures_and_needs_no_network() {
    let home = Home::new();
    let file = home.secret_file("key.pem", &seed_pem());
    let args = ["import", "bot", file.to_str().unwrap()];
    home.run(&join(&[&args, &["--no-passphrase", "--insecure"]]))
        .ok();
    let moment = ["--timestamp", "1576074319000", "--nonce", "1iqt2wls"];
    let who = ["--client-id", "TiA4AyLPq3"];
    let login = |data: &[&str]| {
        let args = join(&[&["sign", "auth", "bot", "--json"], &who, &moment, data]);
        let said = one_object(&home.run(&args));
        assert_eq!(said["params"]["timestamp"], 1_576_074_319_000_u64);
        assert_eq!(said["params"]["nonce"], "1iqt2wls");
        text(&said["params"], "signature").to_owned()
    };
    assert_eq!(
        login(&[]),
        "ct_usiNBEI4biVO3qsPw4ACmmZR-NEhJpA6sX9nUXU3mak75LAiccV35TNtZM8-OdvjW0i77cJKvX1IFhz1PAg"
    );
    assert_eq!(
        login(&["--data", "hello"]),
        "vn9cjm9CJXR5qhpXuJWPutn5YR1N21xIrhOCoP60G6qSBBy_dKGiSP6sA3RHi7MvqETvdsVGH7XdxqvQ34owDA"
    );
    let path = "/api/v2/private/get_account_summary?currency=BTC";
    let request = ["--method", "GET", "--path", path, "--json"];
    let args = join(&[&["sign", "request", "bot"], &who, &moment, &request]);
    let said = one_object(&home.run(&args));
    has_exactly(&said, &[&["authorization", "timestamp", "nonce"]]);
    let sig =
        "hFqbTTh9oOtaYeEHUVORHIn0dr1h3adFjcUSlxSd6XkT7S_LtJn6mABNU-Ltxy_SUkkfAZbRv-cLaO9qtgTkBQ";
    let header = text(&said, "authorization");
    assert!(header.eq_ignore_ascii_case(&format!(
        "deri-hmac-sha256 id=TiA4AyLPq3,ts=1576074319000,nonce=1iqt2wls,sig={sig}"
    )));
    assert!(
        header.ends_with(sig),
        "base64url is not to be changed: {header}"
    );
}

#[test]
fn a_signed_request_opens_the_account_for_exactly_that_request() {
    let bench = Bench::new();
    bench.provision("bot");
    let address = bench.server.address();
    let path = format!("/api/v2/{SUMMARY}?currency=BTC");
    let sign = |more: &[&str]| {
        let args = join(&[&["sign", "request", "bot", "--json"], more]);
        let said = one_object(&bench.run(&args));
        has_exactly(&said, &[&["authorization", "timestamp", "nonce"]]);
        assert!(said["timestamp"].is_u64(), "{said}");
        text(&said, "authorization").to_owned()
    };
    let header = sign(&["--method", "GET", "--path", &path]);
    let answer = raw::http(&address, "GET", &path, Some(&header), "");
    assert_eq!(answer["result"]["currency"], "BTC", "{answer}");
    let elsewhere = sign(&["--method", "GET", "--path", &path]);
    let other = format!("/api/v2/{SUMMARY}?currency=ETH");
    let answer = raw::http(&address, "GET", &other, Some(&elsewhere), "");
    assert_eq!(answer["error"]["code"], 13009, "{answer}");

    let body = json!({"jsonrpc": "2.0", "id": 1, "method": SUMMARY, "params": {"currency": "BTC"}})
        .to_string();
    let file = bench.home.path("body.json");
    fs::write(&file, &body).unwrap();
    let path = format!("/api/v2/{SUMMARY}");
    let header = sign(&[
        "--method",
        "POST",
        "--path",
        &path,
        "--body",
        file.to_str().unwrap(),
    ]);
    let answer = raw::http(&address, "POST", &path, Some(&header), &body);
    assert_eq!(answer["result"]["currency"], "BTC", "{answer}");

    // For people: the header as it stands in a request.
    let args = ["sign", "request", "bot", "--method", "GET", "--path", &path];
    let printed = bench.run(&args).ok().stdout;
    assert!(
        printed
            .to_ascii_lowercase()
            .starts_with("authorization: deri-hmac-sha256 id="),
        "{printed}"
    );
}

#[test]
fn only_paths_of_the_exchange_are_signed() {
    let home = Home::new();
    home.run(&["generate", "bot", "--no-passphrase", "--insecure"])
        .ok();
    let sign = |path: &str| {
        let args = [
            "sign",
            "request",
            "bot",
            "--client-id",
            "x",
            "--method",
            "GET",
        ];
        home.run(&join(&[&args, &["--path", path]]))
    };
    for path in [
        "/x",
        "/api/v1/private/x",
        "/api/v2x/private/x",
        "/api/v2/../v1/private/x",
        "/api/v2/private/..",
        "/api/v2/./private/x",
        "/api/v2/%2e%2e/x",
        "/api/v2//private/x",
        "//api/v2/private/x",
        "/API/v2/private/x",
        "?/api/v2/private/x",
    ] {
        let run = sign(path).fails(2);
        assert!(run.stderr.contains("/api/v2/"), "{path}: {run:#?}");
    }
    for path in [
        "/api/v2/private/get_positions?currency=BTC&x=/../%2e",
        "/api/v2/private/get_positions",
        "/api/v2",
    ] {
        sign(path).ok();
    }
    let help = home.run(&["sign", "request", "--help"]).ok();
    assert!(help.stdout.contains("from /api/v2/ on"), "{help:#?}");
}

#[test]
fn nothing_is_signed_for_another_network() {
    let bench = Bench::new();
    bench.provision("bot");
    let request = ["--method", "GET", "--path", "/api/v2/private/x"];
    for network in ["test", "prod", "sandbox"] {
        for command in ["auth", "request"] {
            let more: &[&str] = if command == "request" { &request } else { &[] };
            let args = ["--network", network, "sign", command, "bot"];
            for who in [&[][..], &["--client-id", "other"]] {
                let run = bench.run(&join(&[&args, more, who])).fails(8);
                assert!(run.stderr.contains("belongs to the custom"), "{run:#?}");
            }
        }
    }
    // Its own network may be named, and a key that belongs nowhere is nobody's yet.
    let own = bench.server.network();
    bench
        .run(&join(&[&["sign", "auth", "bot", "--json"], &own]))
        .ok();
    let plain = ["--no-passphrase", "--insecure"];
    bench.home.run(&join(&[&["generate", "new"], &plain])).ok();
    let args = ["--network", "test", "sign", "auth", "new"];
    bench.home.run(&join(&[&args, &["--client-id", "x"]])).ok();
}

#[test]
fn the_sandbox_has_no_form_to_paste_into() {
    let home = Home::new();
    home.run(&["generate", "first", "--no-passphrase", "--insecure"])
        .ok();
    let adopt = ["--network", "sandbox", "adopt", "first"];
    for more in [&[][..], &["--json"]] {
        let told = home.run(&join(&[&adopt, more])).ok().stdout;
        assert!(told.contains("no web form"), "{told}");
        assert!(told.contains("register first --scope"), "{told}");
        assert!(told.contains("BEGIN PUBLIC KEY"), "{told}");
        assert!(!told.contains("Add new key"), "{told}");
        assert!(!told.contains("open the sandbox"), "{told}");
    }
    // What it says is true.
    let register = [
        "--network",
        "sandbox",
        "register",
        "first",
        "--scope",
        SCOPE,
    ];
    home.run(&register).ok();
}

#[test]
fn the_body_of_a_signed_request_may_come_on_standard_input() {
    let bench = Bench::new();
    bench.provision("bot");
    let path = format!("/api/v2/{SUMMARY}");
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": SUMMARY, "params": {"currency": "BTC"}})
        .to_string();
    let args = [
        "sign",
        "request",
        "bot",
        "--method",
        "POST",
        "--path",
        &path,
        "--body",
        "-",
        "--json",
        "--passphrase-file",
        &bench.passphrase,
    ];
    let said = one_object(&bench.home.run_with_input(&args, body.as_bytes()));
    let header = text(&said, "authorization");
    let answer = raw::http(&bench.server.address(), "POST", &path, Some(header), &body);
    assert_eq!(answer["result"]["currency"], "BTC", "{answer}");
}

#[test]
fn verify_tells_a_good_login_from_a_changed_one() {
    let home = tried();
    let good = home.run(&["sign", "auth", "my_bot", "--data", "x"]).ok();
    let request: Value = serde_json::from_str(&good.stdout).unwrap();
    let run = home.run_with_input(&["verify", "my_bot", "--json"], good.stdout.as_bytes());
    assert_eq!(one_object(&run)["verified"], true);
    let public = home.path("key.pub.pem");
    fs::write(&public, home.run(&["public", "my_bot"]).ok().stdout).unwrap();
    let args = ["verify", public.to_str().unwrap()];
    home.run_with_input(&args, good.stdout.as_bytes()).ok();

    let with = |field: &str, value: Value| {
        let mut changed = request.clone();
        changed["params"][field] = value;
        changed.to_string()
    };
    let signature = text(&request["params"], "signature");
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    let mut grant = request.clone();
    grant["method"] = json!("private/withdraw");
    for bad in [
        with("timestamp", json!(1_576_074_319_000_u64)),
        with("nonce", json!("other")),
        with("data", json!("y")),
        with("signature", json!(format!("{flipped}{}", &signature[1..]))),
        with("signature", json!("")),
        with("nonce", json!("a\nb")),
        grant.to_string(),
        String::new(),
        "garbage".to_owned(),
        "{}".to_owned(),
        "[1,2]".to_owned(),
        "\u{0}\u{1}".to_owned(),
    ] {
        let run = home.run_with_input(&["verify", "my_bot", "--json"], bad.as_bytes());
        one_failure(&run, 11);
    }
    let run = home.run_with_input(&["verify", "my_bot", "--json"], &[0xff, 0xfe]);
    one_failure(&run, 11);
}

#[test]
fn verify_tells_a_good_request_from_a_changed_one() {
    let home = tried();
    let body = home.path("body");
    fs::write(&body, "{}").unwrap();
    let body = body.to_str().unwrap();
    let request = [
        "--method",
        "POST",
        "--path",
        "/api/v2/private/x",
        "--body",
        body,
    ];
    let sign = |json: &[&str]| {
        home.run(&join(&[&["sign", "request", "my_bot"], &request, json]))
            .ok()
            .stdout
    };
    let verify = |request: &[&str], input: &str| {
        let args = join(&[&["verify", "my_bot", "--json"], request]);
        home.run_with_input(&args, input.as_bytes())
    };
    for good in [sign(&[]), sign(&["--json"])] {
        assert_eq!(one_object(&verify(&request, &good))["verified"], true);
    }
    let good = sign(&[]);
    let method = [
        "--method",
        "GET",
        "--path",
        "/api/v2/private/x",
        "--body",
        body,
    ];
    let path = [
        "--method",
        "POST",
        "--path",
        "/api/v2/private/y",
        "--body",
        body,
    ];
    let no_body = ["--method", "POST", "--path", "/api/v2/private/x"];
    for changed in [method.as_slice(), &path, &no_body] {
        one_failure(&verify(changed, &good), 11);
    }
    for bad in [
        good.replace("nonce=", "nonce=x"),
        good.replace("sig=", "sig=A"),
        good.replace("deri-hmac-sha256", "basic"),
        "garbage".to_owned(),
    ] {
        one_failure(&verify(&request, &bad), 11);
    }
}

// the rest

#[test]
fn nothing_to_resume_is_said_and_is_no_failure() {
    let home = tried();
    let said = one_object(&home.run(&["resume", "--json"]));
    assert_eq!(said, json!({"resumed": []}));
    let said = one_object(&home.run(&["status", "--json"]));
    let memory = said["memory"].as_str().unwrap().to_owned();
    assert_eq!(said, json!({"pending": [], "memory": memory}));
    assert!(["secret", "locked", "pageable"].contains(&memory.as_str()));
    for command in ["resume", "status"] {
        assert_ne!(home.run(&[command]).ok().stdout.trim(), "");
    }
}

#[test]
fn sandbox_says_where_it_is_and_serves_what_a_tool_needs() {
    let home = Home::new();
    let server = Server::start(&home, &[]);
    let answer = raw::call(&server.address(), None, "public/test", &json!({}));
    assert_eq!(answer["testnet"], true);
    assert!(Admin::log_in(&server).keys().is_empty());
    assert_eq!(
        server.admin_secret_file.metadata().unwrap().mode() & 0o777,
        0o600
    );
}

#[test]
fn the_sandbox_network_and_the_sandbox_server_share_one_account() {
    let home = tried();
    let keys = raw::inspect(&home, Admin::keys);
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0]["name"], "my_bot");
}

#[test]
fn completions_are_there_for_each_shell() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = home.run(&["completions", shell]).ok().stdout;
        for word in ["provision", "fingerprint", "--passphrase-file"] {
            let word = word.trim_start_matches('-');
            assert!(script.contains(word), "{shell} lacks {word}");
        }
    }
    assert!(!home.store().exists(), "completions need no keystore");
}

#[test]
fn there_is_a_manual_page_for_each_command() {
    let home = Home::new();
    let dir = home.path("man/deep");
    home.run(&["man", dir.to_str().unwrap()]).ok();
    let pages: BTreeSet<String> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(pages.contains("derikey.1"), "{pages:?}");
    for command in [
        "provision",
        "generate",
        "import",
        "public",
        "fingerprint",
        "show",
        "passwd",
        "export",
        "delete",
        "register",
        "adopt",
        "list",
        "auth",
        "token",
        "sign",
        "sign-auth",
        "sign-request",
        "verify",
        "resume",
        "status",
        "sandbox",
        "completions",
        "man",
    ] {
        assert!(
            pages.contains(&format!("derikey-{command}.1")),
            "no page for {command} in {pages:?}"
        );
    }
}

#[test]
fn help_and_version_are_results() {
    let home = Home::new();
    for args in [
        ["--help"].as_slice(),
        &["help", "provision"],
        &["provision", "--help"],
        &["--version"],
    ] {
        let run = home.run(args).ok();
        assert_ne!(run.stdout, "");
        assert_eq!(run.stderr, "");
    }
}

#[test]
fn global_flags_stand_before_or_after_the_command() {
    let home = tried();
    for args in [
        ["--json", "list"].as_slice(),
        &["list", "--json"],
        &["-q", "--json", "list"],
        &["list", "-q", "--json", "-vv"],
        &["--timeout", "5", "list", "--json"],
        &["list", "--timeout", "5", "--json"],
        &["--network", "sandbox", "--json", "auth", "my_bot"],
        &["auth", "my_bot", "--network", "sandbox", "--json"],
        &["-y", "-n", "--json", "delete", "my_bot"],
        &["delete", "my_bot", "-y", "-n", "--json"],
        &["sign", "--json", "auth", "my_bot"],
    ] {
        one_object(&home.run(args));
    }
    // The harness itself puts --home in front; here it comes last.
    let mut command = home.command(&[]);
    command.args(["list", "--json"]);
    one_object(&Run::of(command.output().unwrap()));
}

#[test]
fn quiet_says_nothing_but_results() {
    let home = Home::new();
    let args = ["provision", "b", "--network", "sandbox", "--scope", SCOPE];
    let run = home.run(&join(&[&args, &["-q"]])).ok();
    assert_eq!(run.stderr, "");
    assert_ne!(run.stdout, "");
}

#[test]
fn the_network_comes_from_flag_environment_configuration_or_the_key_itself() {
    let home = Home::new();
    let args = ["provision", "a", "--scope", SCOPE, "--json"];
    one_failure(&home.run(&args), 3);
    let run = Run::of(
        home.command(&args)
            .env("DERIKEY_NETWORK", "sandbox")
            .output()
            .unwrap(),
    );
    assert_eq!(one_object(&run)["network"], "sandbox");
    one_object(&home.run(&["auth", "a", "--json"]));
    fs::write(home.store().join("config.toml"), "network = \"sandbox\"\n").unwrap();
    fs::set_permissions(
        home.store().join("config.toml"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    let run = home.run(&["provision", "b", "--scope", SCOPE, "--json"]);
    assert_eq!(one_object(&run)["network"], "sandbox");
    let run = Run::of(
        home.command(&["provision", "c", "--scope", SCOPE, "--json"])
            .env("DERIKEY_NETWORK", "tset")
            .output()
            .unwrap(),
    );
    one_failure(&run, 3);
}

#[test]
fn a_key_is_used_on_its_own_network_only() {
    let bench = Bench::new();
    bench.provision("bot");
    let other = Home::new();
    let elsewhere = Server::start(&other, &[]);
    let before = snapshot(&bench.home.store().join("keys"));
    for network in [
        elsewhere.network(),
        vec!["--network", "sandbox"],
        vec!["--network", "test"],
    ] {
        let run = bench.run(&join(&[&["auth", "bot", "--json"], &network]));
        assert!(matches!(run.code, Some(8 | 11)), "{run:#?}");
        let admin = join(&[&["provision", "bot", "--scope", SCOPE, "--json"], &network]);
        one_failure(&bench.run(&admin), 8);
    }
    assert_eq!(snapshot(&bench.home.store().join("keys")), before);
}

#[test]
fn secrets_come_from_descriptors_programs_credentials_and_configured_files() {
    let bench = Bench::new();
    bench.run(&["generate", "bot"]).ok();
    let sign = ["sign", "auth", "bot", "--client-id", "x"];
    let program = format!("cat '{}'", bench.passphrase);
    bench
        .home
        .run(&join(&[&sign, &["--passphrase-command", &program]]))
        .ok();

    let (reader, mut writer) = std::io::pipe().unwrap();
    rustix::io::fcntl_setfd(&reader, rustix::io::FdFlags::empty()).unwrap();
    writer.write_all(b"correct horse battery\n").unwrap();
    drop(writer);
    let fd = reader.as_raw_fd().to_string();
    bench
        .home
        .run(&join(&[&sign, &["--passphrase-fd", &fd]]))
        .ok();

    let credentials = bench.home.path("credentials");
    fs::create_dir(&credentials).unwrap();
    fs::set_permissions(&credentials, fs::Permissions::from_mode(0o700)).unwrap();
    fs::copy(&bench.passphrase, credentials.join("derikey.passphrase")).unwrap();
    let run = Run::of(
        bench
            .home
            .command(&sign)
            .env("CREDENTIALS_DIRECTORY", &credentials)
            .output()
            .unwrap(),
    );
    run.ok();

    let config = bench.home.store().join("config.toml");
    fs::write(
        &config,
        format!("passphrase_file = \"{}\"\n", bench.passphrase),
    )
    .unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
    bench.home.run(&sign).ok();
}

#[test]
fn a_descriptor_may_be_a_socket() {
    let bench = Bench::new();
    bench.run(&["generate", "bot"]).ok();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty()).unwrap();
    ours.write_all(b"correct horse battery\n").unwrap();
    drop(ours);
    let fd = theirs.as_raw_fd().to_string();
    let sign = ["sign", "auth", "bot", "--client-id", "x"];
    bench
        .home
        .run(&join(&[&sign, &["--passphrase-fd", &fd]]))
        .ok();
}

#[test]
fn environment_variables_that_look_like_secrets_change_nothing() {
    let bench = Bench::new();
    bench.run(&["generate", "bot"]).ok();
    let mut command = bench
        .home
        .command(&["sign", "auth", "bot", "--client-id", "x", "--json"]);
    for name in [
        "DERIKEY_PASSPHRASE",
        "DERIKEY_PASSPHRASE_FILE",
        "PASSPHRASE",
        "DERIKEY_ADMIN_SECRET",
        "DERIKEY_TOTP",
    ] {
        command.env(name, "correct horse battery");
    }
    one_failure(&Run::of(command.output().unwrap()), 7);
}
