//! The test data, file by file: every key is what the index says, everything else is refused,
//! every signature comes out byte for byte.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use derikey::{
    exchange::Totp,
    key::{
        Algorithm, Error, MAX_INPUT, Message, PrivateKey, PublicKey, Purpose, Signature, Stamp,
        SymmetricKey, Timestamp,
    },
    secret::{ClientSecret, Passphrase, TotpSeed},
};
use serde_json::Value;

use crate::support::{Home, Run, data, join};

/// No honest or hostile file may take longer than this to be refused.
const PATIENCE: Duration = Duration::from_secs(3);
/// A program that runs longer waits for something that never comes.
const HANGS: Duration = Duration::from_secs(30);

const PLAIN: &[&str] = &["--no-passphrase", "--insecure"];

fn json(name: &str) -> Value {
    serde_json::from_slice(&fs::read(data(name)).unwrap()).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn text<'a>(entry: &'a Value, field: &str) -> &'a str {
    entry[field].as_str().unwrap()
}

fn content(entry: &Value, field: &str) -> Vec<u8> {
    fs::read(data(text(entry, field))).unwrap()
}

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(text.into())
}

fn passphrase_of(entry: &Value) -> Option<Passphrase> {
    entry["passphrase"].as_str().map(passphrase)
}

fn algorithm(entry: &Value) -> Algorithm {
    match text(entry, "algorithm") {
        "ed25519" => Algorithm::Ed25519,
        "rsa2048" => Algorithm::Rsa2048,
        "rsa3072" => Algorithm::Rsa3072,
        "rsa4096" => Algorithm::Rsa4096,
        other => panic!("{other}"),
    }
}

#[track_caller]
fn check_public(key: &PublicKey, entry: &Value) {
    assert_eq!(key.algorithm(), algorithm(entry), "{entry}");
    assert_eq!(key.fingerprint().to_string(), text(entry, "md5"), "{entry}");
    let sha256 = key.fingerprint_sha256().replace(':', "");
    assert_eq!(sha256, text(entry, "sha256"), "{entry}");
}

#[test]
fn every_key_of_the_index_is_read_as_what_it_is() {
    let index = json("index.json");
    assert!(list(&index["keys"]).len() >= 80);
    for entry in list(&index["keys"]) {
        let input = content(entry, "file");
        let sealed = entry["sealed"].as_bool().unwrap();
        assert_eq!(PrivateKey::is_sealed(&input).unwrap(), sealed, "{entry}");
        let key = PrivateKey::read(&input, passphrase_of(entry).as_ref());
        let key = key.unwrap_or_else(|error| panic!("{error}: {entry}"));
        check_public(key.public(), entry);
        let public = PublicKey::read(&content(entry, "public")).unwrap();
        assert_eq!(*key.public(), public, "{entry}");
        let pem = fs::read_to_string(data(text(entry, "public"))).unwrap();
        assert_eq!(key.public().to_pem(), pem, "{entry}");
    }
}

#[test]
fn a_sealed_key_opens_with_its_passphrase_and_no_other() {
    let index = json("index.json");
    for entry in list(&index["keys"]) {
        let input = content(entry, "file");
        if entry["sealed"] == true {
            let without = PrivateKey::read(&input, None);
            assert!(matches!(without, Err(Error::Sealed)), "{entry}");
            let right = text(entry, "passphrase");
            let mut wrong = vec![format!("{right}\n"), String::new()];
            // Each try costs a key derivation: the dear ones are asked once.
            if text(entry, "file").contains("600k") || text(entry, "file").contains("rsa") {
                wrong.truncate(1);
            }
            for wrong in wrong {
                let opened = PrivateKey::read(&input, Some(&passphrase(&wrong)));
                assert!(
                    matches!(opened, Err(Error::WrongPassphrase)),
                    "{wrong:?} {opened:?} {entry}"
                );
            }
        } else {
            let key = PrivateKey::read(&input, Some(&passphrase("not needed"))).unwrap();
            check_public(key.public(), entry);
        }
    }
}

#[test]
fn every_public_key_of_the_index_is_read_and_written_back() {
    let index = json("index.json");
    for entry in list(&index["public"]) {
        let input = content(entry, "file");
        let key = PublicKey::read(&input).unwrap();
        check_public(&key, entry);
        assert_eq!(key.to_pem().as_bytes(), input, "{entry}");
        assert_eq!(PublicKey::read(key.spki_der()).unwrap(), key, "{entry}");
        // As the exchange gives it back: no final line break; blanks for line breaks.
        let pem = key.to_pem();
        for folded in [pem.trim_end().to_owned(), pem.trim_end().replace('\n', " ")] {
            assert_eq!(PublicKey::read(folded.as_bytes()).unwrap(), key, "{entry}");
        }
        let error = PrivateKey::read(&input, None);
        assert!(matches!(error, Err(Error::Public)), "{error:?} {entry}");
    }
}

#[test]
fn a_private_key_is_not_taken_for_a_public_one() {
    let index = json("index.json");
    for entry in list(&index["keys"]) {
        let error = PublicKey::read(&content(entry, "file"));
        assert!(matches!(error, Err(Error::Private)), "{error:?} {entry}");
    }
}

/// What a refused file has to be refused as.
fn is_refused_rightly(entry: &Value, error: &Error) -> bool {
    let file = text(entry, "file");
    match text(entry, "why") {
        "rsa-size" => {
            matches!(error, Error::RsaSize { bits } if file.contains(&format!("rsa{bits}")))
        }
        "rsa-exponent" => matches!(error, Error::RsaExponent),
        "rsa-primes" => matches!(error, Error::Unsupported { .. }),
        "inconsistent" => matches!(error, Error::Invalid { .. } | Error::Mismatch),
        "algorithm" => {
            let name = ["RSA-PSS", "EC", "DSA", "X25519", "Ed448"]
                .into_iter()
                .find(|name| {
                    let begin = format!("refused/{}", name.to_lowercase());
                    file.starts_with(&begin)
                });
            matches!(error, Error::Unsupported { algorithm } if Some(algorithm.as_str()) == name)
        }
        "not-private" if file.contains("certificate") => matches!(error, Error::Certificate),
        "not-private" => matches!(error, Error::Public),
        "legacy-encryption" => matches!(error, Error::LegacyEncryption),
        "cipher" => matches!(error, Error::UnsupportedSealing),
        "cost" => matches!(error, Error::Costly { .. }),
        "malformed" if file.contains("utf16") => matches!(error, Error::Foreign { .. }),
        "malformed" => matches!(error, Error::Malformed { .. }),
        "two-keys" => matches!(error, Error::Several),
        "empty" => matches!(error, Error::Empty),
        other => panic!("{other} is a reason that this test does not know"),
    }
}

#[test]
fn every_refused_file_is_refused_for_its_reason_and_soon() {
    let index = json("index.json");
    assert!(list(&index["refused"]).len() >= 38);
    let mut wrong = Vec::new();
    for entry in list(&index["refused"]) {
        let input = content(entry, "file");
        for passphrase in [passphrase_of(entry), Some(passphrase("another")), None] {
            let begun = Instant::now();
            let read = PrivateKey::read(&input, passphrase.as_ref());
            let took = begun.elapsed();
            assert!(took < PATIENCE, "{took:?} {entry}");
            match read {
                Ok(_) => wrong.push(format!("accepted: {entry}")),
                Err(error) if is_refused_rightly(entry, &error) => {}
                Err(error) => wrong.push(format!("{error:?}: {entry}")),
            }
        }
        let begun = Instant::now();
        let _ = PrivateKey::is_sealed(&input);
        assert!(begun.elapsed() < PATIENCE, "{entry}");
        assert!(
            PublicKey::read(&input).is_err() || text(entry, "file").ends_with("public.pem"),
            "{entry}"
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Every file under a directory, with its mode and content.
fn tree(dir: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        let mode = metadata.permissions().mode();
        let bytes = if metadata.is_dir() {
            found.extend(tree(&path));
            Vec::new()
        } else if metadata.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            target.to_string_lossy().into_owned().into_bytes()
        } else {
            fs::read(&path).unwrap()
        };
        found.insert(path, (mode, bytes));
    }
    found
}

/// Puts bytes into a file that only its owner can read.
fn private_file(home: &Home, name: &str, bytes: &[u8]) -> String {
    let path = home.path(name);
    let mut options = fs::OpenOptions::new();
    let options = options.write(true).create_new(true).mode(0o600);
    options.open(&path).unwrap().write_all(bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A failure says one cause and one cure, and nothing else.
#[track_caller]
fn one_cause_and_one_hint(run: &Run, what: &str) {
    let lines: Vec<&str> = run.stderr.lines().collect();
    let [cause, hint] = lines[..] else {
        panic!("{what}: {run:#?}");
    };
    assert!(cause.starts_with("derikey: error: "), "{what}: {run:#?}");
    assert!(hint.starts_with("derikey: hint: "), "{what}: {run:#?}");
}

#[test]
fn import_refuses_every_refused_file_and_writes_nothing() {
    let index = json("index.json");
    let fresh = Home::new();
    let used = Home::new();
    used.run(&join(&[&["generate", "other"], PLAIN])).ok();
    let before = tree(&used.store());
    assert!(before.len() > 4);
    for home in [&fresh, &used] {
        home.secret_file("words", "correct horse\n");
    }
    for (n, entry) in list(&index["refused"]).iter().enumerate() {
        let input = content(entry, "file");
        let name = format!("refused{n}");
        for home in [&fresh, &used] {
            let file = private_file(home, &name, &input);
            let words = ["--passphrase-file", "words"];
            let begun = Instant::now();
            let run = home.run(&join(&[&["import", "bot", &file], &words]));
            assert!(begun.elapsed() < PATIENCE, "{entry}");
            let run = run.fails(7);
            one_cause_and_one_hint(&run, text(entry, "file"));
            assert!(!run.stderr.contains("correct horse"), "{run:#?}");
        }
        let run = fresh.run_with_input(&["import", "bot", "-", "--passphrase-file=words"], &input);
        one_cause_and_one_hint(&run.fails(7), text(entry, "file"));
        assert!(!fresh.store().exists(), "{entry}");
    }
    assert_eq!(tree(&used.store()), before);
}

#[test]
fn import_refuses_what_is_too_large_or_no_key_at_all() {
    let home = Home::new();
    let key = fs::read(data("keys/ed25519.openssl.pem")).unwrap();
    let mut padded = key.clone();
    padded.resize(MAX_INPUT + 1, b'\n');
    let cases: [(&str, Vec<u8>); 6] = [
        ("padded", padded),
        ("zeros", vec![0; MAX_INPUT]),
        ("endless", vec![b'A'; 4 * MAX_INPUT]),
        ("begins", b"-----BEGIN ".repeat(MAX_INPUT / 11)),
        ("nested", [0x30, 0x80].repeat(MAX_INPUT / 2)),
        ("long", vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 2, 1, 0]),
    ];
    for (name, bytes) in cases {
        let file = private_file(&home, name, &bytes);
        let begun = Instant::now();
        let run = home.run(&join(&[&["import", "bot", &file], PLAIN]));
        assert!(begun.elapsed() < PATIENCE, "{name}");
        one_cause_and_one_hint(&run.fails(7), name);
        assert!(!home.store().exists(), "{name}");
    }
}

/// What a recorded signature is of.
fn signed(entry: &Value) -> (Stamp, Purpose) {
    let own = |field: &str| text(entry, field).to_owned();
    let purpose = match text(entry, "purpose") {
        "login" => Purpose::Login { data: own("data") },
        "request" => Purpose::Request {
            method: own("method"),
            uri: own("uri"),
            body: own("body"),
        },
        other => panic!("{other}"),
    };
    let stamp = Stamp {
        timestamp: Timestamp(entry["timestamp"].as_u64().unwrap()),
        nonce: text(entry, "nonce").parse().unwrap(),
    };
    (stamp, purpose)
}

#[track_caller]
fn message(entry: &Value) -> Message {
    let (stamp, purpose) = signed(entry);
    let message = Message::new(&stamp, &purpose).unwrap();
    assert_eq!(
        message.as_bytes(),
        text(entry, "message").as_bytes(),
        "{entry}"
    );
    message
}

#[test]
fn every_recorded_signature_is_made_byte_for_byte_and_verified() {
    let all = json("signatures.json");
    let mut count = 0;
    for entry in list(&all["keys"]) {
        let key = PrivateKey::read(&content(entry, "file"), None).unwrap();
        let public = PublicKey::read(&content(entry, "public")).unwrap();
        assert_eq!(public.fingerprint().to_string(), text(entry, "md5"));
        for recorded in list(&entry["signatures"]) {
            let message = message(recorded);
            let made = key.sign(&message).unwrap();
            assert_eq!(made.to_string(), text(recorded, "signature"), "{recorded}");
            let read: Signature = text(recorded, "signature").parse().unwrap();
            assert_eq!(read, made);
            public.verify(&message, &read).unwrap();
            count += 1;
        }
    }
    assert!(count >= 50, "{count}");
}

/// The letters of base64url, for changing a signature's text.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Flips one bit of what a base64url text stands for.
fn flip(signature: &str, at: usize, bit: u8) -> String {
    let mut letters = signature.as_bytes().to_vec();
    let value = LETTERS.iter().position(|&l| l == letters[at]).unwrap();
    letters[at] = LETTERS[value ^ (1 << bit)];
    String::from_utf8(letters).unwrap()
}

#[test]
fn a_flipped_bit_another_message_or_another_key_does_not_verify() {
    let all = json("signatures.json");
    let keys = list(&all["keys"]);
    for (n, entry) in keys.iter().enumerate() {
        let public = PublicKey::read(&content(entry, "public")).unwrap();
        let recorded = list(&entry["signatures"]);
        let (first, other) = (&recorded[0], &recorded[1]);
        let text_of = text(first, "signature");
        let good: Signature = text_of.parse().unwrap();
        public.verify(&message(first), &good).unwrap();
        let step = if text_of.len() < 100 { 1 } else { 29 };
        // The last letter holds bits that must be zero: flipping those is no signature at all.
        for at in (0..text_of.len() - 1).step_by(step) {
            for bit in [0, 5] {
                let flipped: Signature = flip(text_of, at, bit).parse().unwrap();
                let verified = public.verify(&message(first), &flipped);
                assert!(matches!(verified, Err(Error::Forged)), "{at} {entry}");
            }
        }
        let verified = public.verify(&message(other), &good);
        assert!(matches!(verified, Err(Error::Forged)), "{entry}");
        let stranger = &keys[(n + 1) % keys.len()];
        let stranger = PublicKey::read(&content(stranger, "public")).unwrap();
        let verified = stranger.verify(&message(first), &good);
        assert!(matches!(verified, Err(Error::Forged)), "{entry}");
    }
}

#[test]
fn nothing_but_unpadded_base64url_is_a_signature() {
    let all = json("signatures.json");
    let good = text(&all["keys"][0]["signatures"][0], "signature");
    assert!(good.parse::<Signature>().is_ok());
    let hex: String = good.bytes().map(|b| format!("{b:02x}")).collect();
    let bad = [
        String::new(),
        format!("{good}=="),
        format!(" {good}"),
        format!("{good}\n"),
        good.replace('_', "/").replace('-', "+"),
        good[..good.len() - 1].to_owned(),
        format!("{good}AAAA"),
        flip(good, good.len() - 1, 0),
        hex,
    ];
    for text in bad {
        assert!(text.parse::<Signature>().is_err(), "{text}");
    }
}

#[test]
fn symmetric_keys_sign_as_the_documentation_shows() {
    let all = json("signatures.json");
    assert_eq!(list(&all["hmac"]).len(), 2);
    for entry in list(&all["hmac"]) {
        let secret = ClientSecret::new(text(entry, "client_secret").into());
        let made = SymmetricKey::new(&secret).sign_hex(&message(entry));
        assert_eq!(made, text(entry, "signature"), "{entry}");
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn seeds_of_rfc_8032_have_the_public_keys_of_rfc_8032() {
    let all = json("signatures.json");
    assert_eq!(list(&all["rfc8032"]).len(), 3);
    for entry in list(&all["rfc8032"]) {
        let mut der = unhex("302e020100300506032b657004220420");
        der.extend(unhex(text(entry, "seed")));
        let key = PrivateKey::read(&der, None).unwrap();
        let mut spki = unhex("302a300506032b6570032100");
        spki.extend(unhex(text(entry, "public")));
        assert_eq!(key.public().spki_der(), spki, "{entry}");
        assert_eq!(PublicKey::read(&spki).unwrap(), *key.public(), "{entry}");
    }
}

#[test]
fn one_time_codes_are_those_of_rfc_6238() {
    let all = json("signatures.json");
    let rfc = &all["rfc6238"];
    assert_eq!(rfc["step"], Totp::STEP);
    let seed = text(rfc, "secret_base32");
    let shown = format!("{} {}-=", &seed[..16].to_lowercase(), &seed[16..]);
    for seed in [seed, &shown] {
        let totp = Totp::new(&TotpSeed::new(seed.into())).unwrap();
        for code in list(&rfc["codes"]) {
            let time = code["time"].as_u64().unwrap();
            let made = totp.code(Totp::step_at(time));
            assert_eq!(made.expose(), text(code, "digits6"), "{code}");
            assert!(text(code, "digits8").ends_with(made.expose()));
            let next = totp.code(Totp::step_at(time) + 1);
            assert_ne!(next.expose(), made.expose());
        }
    }
}

/// Ends a program that waits for what never comes.
fn finish(mut child: Child) -> Run {
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > HANGS {
            let _ = child.kill();
            panic!(
                "it hangs: {:#?}",
                Run::of(child.wait_with_output().unwrap())
            );
        }
        thread::sleep(Duration::from_millis(5));
    }
    Run::of(child.wait_with_output().unwrap())
}

/// The program under a shell that gives it a pipe with `input` as descriptor 3.
fn run_with_descriptor_3(home: &Home, args: &[&str], input: &[u8]) -> Run {
    let bare = home.command(args);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "exec \"$0\" \"$@\" 3<&0 </dev/null"])
        .arg(bare.get_program())
        .args(bare.get_args())
        .current_dir(home.path("."))
        .env("HOME", home.path("."))
        .env_remove("DERIKEY_HOME")
        .env_remove("DERIKEY_NETWORK")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = shell.spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input);
    finish(child)
}

/// The program reading a named pipe that is filled once: who opens it twice waits for ever.
fn run_with_fifo(home: &Home, fifo: &str, args: &[&str], input: &[u8]) -> Run {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let path = home.path(fifo);
    mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let child = home.command(args).spawn().unwrap();
    let input = input.to_vec();
    // Left behind where the program never opens the pipe.
    thread::spawn(move || fs::write(path, input));
    finish(child)
}

/// Key files of every encoding and container that the program imports.
const IMPORTED: &[&str] = &[
    "keys/ed25519.openssl.pem",
    "keys/ed25519.openssl.der",
    "keys/ed25519.openssl.crlf.pem",
    "keys/ed25519.openssl.one-line.pem",
    "keys/ed25519.openssl.no-final-newline.pem",
    "keys/ed25519.openssl.pbes2-sha256-aes256.pem",
    "keys/ed25519.openssl.pbes2-sha256-aes256.der",
    "keys/ed25519.openssl.pbes2-sha256-aes256.crlf.pem",
    "keys/ed25519.openssl.pbes2-sha256-aes256.one-line.pem",
    "keys/ed25519.openssl.scrypt.pem",
    "keys/ed25519.python.pkcs8-v2.pem",
    "keys/ed25519.python.openssh.pem",
    "keys/ed25519.ssh.pem",
    "keys/ed25519.ssh.crlf.pem",
    "keys/ed25519.ssh.aes256-ctr.pem",
    "keys/ed25519.ssh.chacha20-poly1305.pem",
    "keys/rsa2048.openssl.pkcs1.pem",
    "keys/rsa2048.openssl.pkcs1.der",
    "keys/rsa2048.ssh.pem",
    "keys/rsa2048.ssh.aes256-ctr.pem",
    "keys/rsa3072.ssh.pem",
    "keys/rsa4096.openssl.pem",
];

fn import<'a>(name: &'a str, file: &'a str, options: &[&'a str]) -> Vec<&'a str> {
    join(&[&["import", name, file], options])
}

#[test]
fn import_takes_a_file_standard_input_and_pipes_that_are_read_once() {
    let index = json("index.json");
    let home = Home::new();
    home.secret_file("words", "correct horse\n");
    let options = join(&[PLAIN, &["--json", "--input-passphrase-file", "words"]]);
    for (n, wanted) in IMPORTED.iter().enumerate() {
        let found = list(&index["keys"]).iter().find(|e| e["file"] == *wanted);
        let entry = found.unwrap_or_else(|| panic!("{wanted} is gone"));
        let input = content(entry, "file");
        let public = fs::read_to_string(data(text(entry, "public"))).unwrap();
        let file = private_file(&home, &format!("input{n}"), &input);
        let fifo = format!("fifo{n}");
        let names = ["f", "s", "p", "d"].map(|way| format!("{way}{n}"));
        let [f, s, p, d] = names.each_ref().map(String::as_str);
        let runs = [
            home.run(&import(f, &file, &options)),
            home.run_with_input(&import(s, "-", &options), &input),
            run_with_fifo(&home, &fifo, &import(p, &fifo, &options), &input),
            run_with_descriptor_3(&home, &import(d, "/dev/fd/3", &options), &input),
        ];
        for (name, run) in names.iter().zip(runs) {
            let said = run.json();
            assert_eq!(said["name"], **name);
            assert_eq!(said["fingerprint"], entry["md5"], "{wanted}");
            assert_eq!(said["public_key"], *public, "{wanted}");
            let algorithm = said["algorithm"].as_str().unwrap().replace('-', "");
            assert_eq!(algorithm, text(entry, "algorithm"), "{wanted}");
        }
        // What was imported is there, and is the same key.
        let name = names[n % names.len()].as_str();
        assert_eq!(home.run(&["public", name]).ok().stdout, public, "{wanted}");
        let kept = PrivateKey::read(&kept(&home, name), None).unwrap();
        check_public(kept.public(), entry);
    }
}

/// The private key as the keystore has it.
fn kept(home: &Home, name: &str) -> Vec<u8> {
    let dir = home.store().join("keys").join(name).join("current");
    fs::read(dir.join("private.pem")).unwrap()
}

const SEALED: &str = "keys/ed25519.openssl.pbes2-sha256-aes256.pem";

#[test]
fn a_passphrase_comes_from_a_file_a_descriptor_or_a_program() {
    let home = Home::new();
    home.secret_file("new", "battery staple\r\n");
    home.secret_file("old", "correct horse\n");
    let input = fs::read(data(SEALED)).unwrap();
    let file = private_file(&home, "input", &input);
    let old = ["--input-passphrase-file", "old"];
    let new = ["--passphrase-file", "new"];
    let fd = ["--passphrase-fd", "3"];
    let runs = [
        home.run(&join(&[&["import", "a", &file], &new, &old])),
        run_with_descriptor_3(
            &home,
            &join(&[&["import", "b", &file], &fd, &old]),
            b"battery staple\n",
        ),
        home.run(&join(&[
            &["import", "c", &file, "--passphrase-command", "cat 'new'"],
            &old,
        ])),
        run_with_descriptor_3(
            &home,
            &join(&[&["import", "d", &file, "--input-passphrase-fd", "3"], &new]),
            b"correct horse",
        ),
        home.run(&join(&[
            &["import", "e", &file],
            &["--input-passphrase-command", "cat old"],
            &new,
        ])),
    ];
    for (name, run) in ["a", "b", "c", "d", "e"].into_iter().zip(runs) {
        assert_eq!(run.code, Some(0), "{name} {run:#?}");
        let pem = kept(&home, name);
        assert!(PrivateKey::is_sealed(&pem).unwrap(), "{name}");
        let opened = PrivateKey::read(&pem, Some(&passphrase("battery staple")));
        assert!(opened.is_ok(), "{name} {opened:?}");
    }
    let opened = PrivateKey::read(&kept(&home, "a"), Some(&passphrase("correct horse")));
    assert!(matches!(opened, Err(Error::WrongPassphrase)));
}

#[test]
fn one_passphrase_opens_the_file_and_seals_the_key() {
    let home = Home::new();
    home.secret_file("words", "correct horse\n");
    let file = private_file(&home, "input", &fs::read(data(SEALED)).unwrap());
    let run = home.run(&["import", "bot", &file, "--passphrase-file", "words"]);
    run.ok();
    let pem = kept(&home, "bot");
    assert_ne!(pem, fs::read(data(SEALED)).unwrap());
    PrivateKey::read(&pem, Some(&passphrase("correct horse"))).unwrap();
}

#[test]
fn a_passphrase_that_does_not_fit_leaves_nothing_behind() {
    let home = Home::new();
    home.secret_file("words", "correct horse\n");
    home.secret_file("wrong", "incorrect horse\n");
    home.secret_file("empty", "\n");
    for file in [
        SEALED,
        "keys/ed25519.openssl.scrypt.pem",
        "keys/ed25519.ssh.aes256-ctr.pem",
        "keys/ed25519.ssh.aes256-gcm.pem",
    ] {
        let name = file.replace('/', "-");
        let file = private_file(&home, &name, &fs::read(data(file)).unwrap());
        let wrongs: [&[&str]; 5] = [
            &["--passphrase-file=words", "--input-passphrase-file=wrong"],
            &["--passphrase-file=wrong"],
            &["--passphrase-file=words", "--input-passphrase-file=empty"],
            &["--passphrase-file=empty", "--input-passphrase-file=words"],
            PLAIN,
        ];
        for wrong in wrongs {
            let run = home.run(&import("bot", &file, wrong)).fails(7);
            one_cause_and_one_hint(&run, &format!("{name} {wrong:?}"));
            assert!(!run.stderr.contains("horse"), "{run:#?}");
            assert!(!home.store().exists(), "{name} {wrong:?}");
        }
    }
}

#[test]
fn a_file_that_others_can_read_is_refused() {
    let home = Home::new();
    let file = private_file(
        &home,
        "input",
        &fs::read(data("keys/ed25519.openssl.pem")).unwrap(),
    );
    for mode in [0o640, 0o604, 0o644, 0o620, 0o601] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let run = home.run(&import("bot", &file, PLAIN)).fails(7);
        one_cause_and_one_hint(&run, &file);
        assert!(run.stderr.contains(&format!("{mode:04o}")), "{run:#?}");
        assert!(!home.store().exists());
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
    home.run(&import("bot", &file, PLAIN)).ok();
}

#[test]
fn fingerprint_and_public_read_files_as_they_read_names() {
    let index = json("index.json");
    let home = Home::new();
    home.secret_file("words", "correct horse\n");
    for (n, wanted) in IMPORTED.iter().enumerate() {
        let found = list(&index["keys"]).iter().find(|e| e["file"] == *wanted);
        let entry = found.unwrap();
        let file = private_file(&home, &format!("input{n}"), &content(entry, "file"));
        let public = data(text(entry, "public"));
        let words = ["--passphrase-file", "words"];
        for file in [file.as_str(), public.to_str().unwrap()] {
            let md5 = home.run(&join(&[&["fingerprint", file], &words])).ok();
            assert_eq!(md5.stdout.trim_end(), text(entry, "md5"), "{file}");
            let sha256 = ["fingerprint", file, "--hash", "sha256"];
            let sha256 = home.run(&join(&[&sha256, &words])).ok();
            let sha256 = sha256.stdout.trim_end().replace(':', "");
            assert_eq!(sha256, text(entry, "sha256"), "{file}");
        }
        let run = home.run(&join(&[&["public", &file], &words])).ok();
        assert_eq!(run.stdout, fs::read_to_string(&public).unwrap(), "{wanted}");
    }
    assert!(!home.store().exists());
}
