//! Other tools open what the program writes, and it opens what they write: OpenSSL, OpenSSH and
//! Python's cryptography. Where one of them is missing, its tests say so and stop.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use serde_json::{Value, json};

use crate::support::{Home, Run, data, installed, join};

pub(crate) const PLAIN: &[&str] = &["--no-passphrase", "--insecure"];
pub(crate) const WORDS: &[&str] = &["--passphrase-file", "words"];
pub(crate) const CLIENT_ID: &str = "wcVoQGam";

/// A home with a passphrase, another one, and a wrong one.
pub(crate) fn home() -> Home {
    let home = Home::new();
    home.secret_file("words", "correct horse\n");
    home.secret_file("new", "battery staple\n");
    home.secret_file("wrong", "incorrect horse\n");
    home
}

pub(crate) fn has_openssl() -> bool {
    installed("openssl", &["version"])
}

pub(crate) fn has_ssh_keygen() -> bool {
    // It knows no harmless question but this one.
    let key = data("keys/rsa2048.ssh.pub.pem");
    let key = key.to_str().unwrap();
    installed("ssh-keygen", &["-i", "-m", "PKCS8", "-f", key])
}

pub(crate) fn has_python() -> bool {
    let check = data("interop/check.py");
    installed("python3", &[check.to_str().unwrap(), "version"])
}

/// Runs a tool in a home, with something on its standard input.
pub(crate) fn tool(
    home: &Home,
    program: &str,
    args: &[&str],
    input: &[u8],
) -> (bool, Vec<u8>, String) {
    let mut child = Command::new(program)
        .args(args)
        .current_dir(home.path("."))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), output.stdout, said)
}

#[track_caller]
pub(crate) fn output(home: &Home, program: &str, args: &[&str], input: &[u8]) -> Vec<u8> {
    let (done, stdout, said) = tool(home, program, args, input);
    assert!(done, "{program} {args:?}: {said}");
    stdout
}

#[track_caller]
pub(crate) fn openssl(home: &Home, args: &[&str], input: &[u8]) -> Vec<u8> {
    output(home, "openssl", args, input)
}

/// The SubjectPublicKeyInfo of a private key, as OpenSSL sees it.
#[track_caller]
fn spki_of_private(home: &Home, key: &str, words: Option<&str>) -> Vec<u8> {
    let pass = words.map(|words| format!("file:{words}"));
    let mut args = vec!["pkey", "-in", key, "-pubout", "-outform", "DER"];
    if let Some(pass) = &pass {
        args.extend(["-passin", pass]);
    }
    openssl(home, &args, b"")
}

/// The SubjectPublicKeyInfo of a public key, as OpenSSL sees it.
#[track_caller]
fn spki_of_public(home: &Home, key: &str) -> Vec<u8> {
    let args = ["pkey", "-pubin", "-in", key, "-outform", "DER"];
    openssl(home, &args, b"")
}

/// What Python says of a private key: the SHA-256 of its public half, and its algorithm.
#[track_caller]
fn python_reads(home: &Home, key: &str, words: Option<&str>) -> String {
    let check = data("interop/check.py");
    let mut args = vec![check.to_str().unwrap(), "read", key];
    args.extend(words);
    let said = output(home, "python3", &args, b"");
    String::from_utf8(said).unwrap().trim_end().to_owned()
}

/// What Python would have to say, as the program sees it.
fn expected_of_python(home: &Home, name: &str, algorithm: &str) -> String {
    let sha256 = home.run(&["fingerprint", name, "--hash", "sha256"]).ok();
    let sha256 = sha256.stdout.trim_end().replace(':', "");
    format!("{sha256} {}", algorithm.replace('-', ""))
}

/// How a private key file is sealed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sealing {
    Plain,
    Scrypt,
    Pbkdf2,
}

impl Sealing {
    pub(crate) const ALL: [Self; 3] = [Self::Plain, Self::Scrypt, Self::Pbkdf2];

    /// The options that ask for it, given where the passphrase comes from.
    pub(crate) fn options(self, words: &[&'static str]) -> Vec<&'static str> {
        match self {
            Self::Plain => PLAIN.to_vec(),
            Self::Scrypt => join(&[words, &["--kdf", "scrypt"]]),
            Self::Pbkdf2 => join(&[words, &["--kdf", "pbkdf2"]]),
        }
    }

    pub(crate) fn words(self, file: &'static str) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Scrypt | Self::Pbkdf2 => Some(file),
        }
    }

    /// The words by which OpenSSL describes its parameters.
    fn described(self) -> &'static [&'static str] {
        match self {
            Self::Plain => &[],
            Self::Scrypt => &["PBES2", "scrypt", "aes-256-cbc", ":4000", ":08", ":05"],
            Self::Pbkdf2 => &[
                "PBES2",
                "PBKDF2",
                "aes-256-cbc",
                "hmacWithSHA256",
                ":0927C0",
            ],
        }
    }
}

/// What other tools have to say of a private key file.
struct Expected<'a> {
    /// The file with its public half.
    public: &'a str,
    /// What Python says, where it is there.
    python: Option<&'a str>,
    /// The file with its passphrase.
    words: Option<&'a str>,
}

/// Holds a private key file against a public one, in both other tools.
#[track_caller]
fn same_key_elsewhere(home: &Home, key: &str, expected: &Expected<'_>) {
    let theirs = spki_of_private(home, key, expected.words);
    assert_eq!(theirs, spki_of_public(home, expected.public), "{key}");
    if let Some(python) = expected.python {
        assert_eq!(python_reads(home, key, expected.words), python, "{key}");
    }
}

/// Sees that OpenSSL finds the documented parameters, and refuses another passphrase.
#[track_caller]
fn is_sealed_as_documented(home: &Home, key: &str, sealing: Sealing) {
    let body = openssl(home, &["asn1parse", "-in", key], b"");
    let body = String::from_utf8(body).unwrap();
    for word in sealing.described() {
        assert!(body.contains(word), "{key}: {word} in {body}");
    }
    let args = ["pkey", "-in", key, "-noout", "-passin", "file:wrong"];
    let (opened, ..) = tool(home, "openssl", &args, b"");
    assert!(!opened, "{key}");
}

/// Generates a key, and holds its halves against each other in the other tools.
#[track_caller]
fn generated(
    home: &Home,
    name: &str,
    algorithm: &str,
    sealing: Sealing,
) -> (String, Option<String>) {
    let options = join(&[
        &["--algorithm", algorithm, "--json"],
        &sealing.options(WORDS),
    ]);
    let said = home.run(&join(&[&["generate", name], &options])).json();
    let path = |field: &str| said[field].as_str().unwrap().to_owned();
    let (key, public) = (path("private_key_path"), path("public_key_path"));
    assert_eq!(said["public_key"], fs::read_to_string(&public).unwrap());
    let expected = has_python().then(|| expected_of_python(home, name, algorithm));
    let words = sealing.words("words");
    let elsewhere = Expected {
        public: &public,
        python: expected.as_deref(),
        words,
    };
    same_key_elsewhere(home, &key, &elsewhere);
    if words.is_some() {
        is_sealed_as_documented(home, &key, sealing);
    }
    (public, expected)
}

/// Exports a key and opens what comes out: as it is kept, or sealed anew, or in clear.
#[track_caller]
fn exported(home: &Home, name: &str, n: usize, options: &[&str], expected: &Expected<'_>) {
    let export = join(&[&["export", name], options]);
    let file = format!("{name}{n}.pem");
    if n.is_multiple_of(2) {
        let run = home.run(&export).ok();
        home.secret_file(&file, &run.stdout);
    } else {
        home.run(&join(&[&export, &["--out", &file]])).ok();
        let mode = fs::metadata(home.path(&file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    same_key_elsewhere(home, &file, expected);
}

fn generate_and_export(algorithm: &str) {
    if !has_openssl() {
        return;
    }
    let home = home();
    let new = |sealing: Sealing| sealing.options(&["--new-passphrase-file", "new"]);
    for (name, sealing) in ["a", "b", "c"].into_iter().zip(Sealing::ALL) {
        let (public, python) = generated(&home, name, algorithm, sealing);
        let expected = |words| Expected {
            public: &public,
            python: python.as_deref(),
            words,
        };
        match sealing {
            Sealing::Plain => {
                for (n, sealing) in Sealing::ALL.into_iter().enumerate() {
                    let expected = expected(sealing.words("new"));
                    exported(&home, name, n, &new(sealing), &expected);
                }
            }
            // A sealed key leaves as it is kept, and nobody is asked for its passphrase.
            Sealing::Scrypt => {
                exported(&home, name, 0, &[], &expected(Some("words")));
                exported(&home, name, 1, &[], &expected(Some("words")));
            }
            Sealing::Pbkdf2 => {
                let options = join(&[WORDS, &new(Sealing::Pbkdf2)]);
                exported(&home, name, 0, &options, &expected(Some("new")));
                let options = join(&[WORDS, PLAIN]);
                exported(&home, name, 1, &options, &expected(None));
            }
        }
    }
}

#[test]
fn ed25519_keys_open_in_openssl_and_python_as_the_same_key() {
    generate_and_export("ed25519");
}

#[test]
fn rsa_keys_open_in_openssl_and_python_as_the_same_key() {
    generate_and_export("rsa-2048");
}

#[test]
fn plain_keys_are_pkcs8_version_1_in_lines_of_64_columns() {
    if !has_openssl() {
        return;
    }
    for algorithm in ["ed25519", "rsa-2048"] {
        let home = home();
        let options = join(&[&["--algorithm", algorithm], PLAIN]);
        home.run(&join(&[&["generate", "bot"], &options])).ok();
        let key = home.store().join("keys/bot/current/private.pem");
        let key = key.to_str().unwrap();
        let text = fs::read_to_string(key).unwrap();
        assert!(text.starts_with("-----BEGIN PRIVATE KEY-----\n"));
        assert!(text.ends_with("\n-----END PRIVATE KEY-----\n"));
        assert!(text.is_ascii() && text.lines().all(|line| line.len() <= 64));
        // OpenSSL writes the same key as the same bytes.
        let theirs = openssl(&home, &["pkey", "-in", key], b"");
        assert_eq!(String::from_utf8(theirs).unwrap(), text, "{algorithm}");
        let public = home.run(&["public", "bot"]).ok().stdout;
        let theirs = openssl(&home, &["pkey", "-in", key, "-pubout"], b"");
        assert_eq!(String::from_utf8(theirs).unwrap(), public, "{algorithm}");
    }
}

#[test]
fn a_changed_passphrase_counts_for_openssl_too() {
    if !has_openssl() {
        return;
    }
    let home = home();
    home.run(&join(&[&["generate", "bot"], WORDS])).ok();
    let passwd = ["passwd", "bot", "--new-passphrase-file", "new"];
    home.run(&join(&[&passwd, WORDS])).ok();
    let key = home.store().join("keys/bot/current/private.pem");
    let public = home.store().join("keys/bot/current/public.pem");
    let (key, public) = (key.to_str().unwrap(), public.to_str().unwrap());
    let expected = Expected {
        public,
        python: None,
        words: Some("new"),
    };
    same_key_elsewhere(&home, key, &expected);
    is_sealed_as_documented(&home, key, Sealing::Scrypt);
    let args = ["pkey", "-in", key, "-noout", "-passin", "file:words"];
    let (opened, ..) = tool(&home, "openssl", &args, b"");
    assert!(!opened);
}

/// Imports a file of another tool and returns the public half as the program has it.
#[track_caller]
pub(crate) fn imported(home: &Home, name: &str, file: &str) -> String {
    let path = home.path(file);
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    let options = join(&[PLAIN, &["--input-passphrase-file", "words"]]);
    home.run(&join(&[&["import", name, file], &options])).ok();
    home.run(&["public", name]).ok().stdout
}

#[test]
fn keys_fresh_from_openssl_are_imported() {
    if !has_openssl() {
        return;
    }
    let home = home();
    for (kind, make) in [
        ("ed", &["-algorithm", "ed25519"][..]),
        (
            "rsa",
            &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        ),
    ] {
        let key = format!("{kind}.pem");
        openssl(&home, &join(&[&["genpkey", "-out", &key], make]), b"");
        let public = openssl(&home, &["pkey", "-in", &key, "-pubout"], b"");
        let public = String::from_utf8(public).unwrap();
        let topk8 = ["pkcs8", "-topk8", "-in", &key, "-passout", "file:words"];
        let mut variants: Vec<(&str, Vec<&str>)> = vec![
            ("plain", vec!["pkey", "-in", &key]),
            ("der", vec!["pkey", "-in", &key, "-outform", "DER"]),
            ("default", topk8.to_vec()),
            ("aes128", join(&[&topk8, &["-v2", "aes-128-cbc"]])),
            (
                "sha512",
                join(&[&topk8, &["-v2", "aes256", "-v2prf", "hmacWithSHA512"]]),
            ),
            ("scrypt", join(&[&topk8, &["-scrypt"]])),
            (
                "sealed_der",
                join(&[&topk8, &["-iter", "100000", "-outform", "DER"]]),
            ),
        ];
        if kind == "rsa" {
            let traditional = vec!["pkey", "-in", &key, "-traditional"];
            variants.push(("traditional", traditional));
        }
        for (n, (variant, args)) in variants.into_iter().enumerate() {
            let file = format!("{kind}.{variant}");
            fs::write(home.path(&file), openssl(&home, &args, b"")).unwrap();
            let name = format!("{kind}{n}");
            assert_eq!(imported(&home, &name, &file), public, "{file}");
        }
    }
}

#[test]
fn keys_fresh_from_ssh_keygen_are_imported() {
    if !has_ssh_keygen() {
        return;
    }
    let home = home();
    let variants: [(&str, &[&str]); 6] = [
        ("ed", &["-t", "ed25519", "-N", ""]),
        ("ed_sealed", &["-t", "ed25519", "-N", "correct horse"]),
        (
            "ed_gcm",
            &[
                "-t",
                "ed25519",
                "-N",
                "correct horse",
                "-Z",
                "aes256-gcm@openssh.com",
            ],
        ),
        ("rsa", &["-t", "rsa", "-b", "2048", "-N", ""]),
        (
            "rsa_sealed",
            &["-t", "rsa", "-b", "2048", "-N", "correct horse"],
        ),
        (
            "rsa_pem",
            &["-t", "rsa", "-b", "2048", "-N", "", "-m", "PEM"],
        ),
    ];
    for (name, args) in variants {
        let args = join(&[&["-q", "-C", "a comment", "-f", name], args]);
        output(&home, "ssh-keygen", &args, b"");
        let ours = imported(&home, name, name);
        let public = format!("{name}.pub");
        let theirs = if name.starts_with("rsa") {
            let args = ["-e", "-m", "PKCS8", "-f", &public];
            String::from_utf8(output(&home, "ssh-keygen", &args, b"")).unwrap()
        } else {
            spki_of_ed25519_line(&fs::read_to_string(home.path(&public)).unwrap())
        };
        assert_eq!(ours, theirs, "{name}");
    }
}

/// OpenSSH converts no Ed25519 key: the last 32 bytes of its line are the key.
pub(crate) fn spki_of_ed25519_line(line: &str) -> String {
    use base64::prelude::BASE64_STANDARD;
    let blob = line.split(' ').nth(1).unwrap();
    let blob = BASE64_STANDARD.decode(blob).unwrap();
    let mut spki = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00".to_vec();
    spki.extend(&blob[blob.len() - 32..]);
    let body = BASE64_STANDARD.encode(spki);
    format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
}

/// Writes a key of each kind in each container that cryptography knows.
const PYTHON_MAKES: &str = r#"
import itertools, sys
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
keys = {"ed": ed25519.Ed25519PrivateKey.generate(), "rsa": rsa.generate_private_key(65537, 2048)}
plain, sealed = s.NoEncryption(), s.BestAvailableEncryption(b"correct horse")
for kind, key in keys.items():
    with open(kind + ".pub", "wb") as file:
        file.write(key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo))
    formats = {
        "p8": (s.Encoding.PEM, s.PrivateFormat.PKCS8, plain),
        "p8_der": (s.Encoding.DER, s.PrivateFormat.PKCS8, plain),
        "p8s": (s.Encoding.PEM, s.PrivateFormat.PKCS8, sealed),
        "p8s_der": (s.Encoding.DER, s.PrivateFormat.PKCS8, sealed),
        "ssh": (s.Encoding.PEM, s.PrivateFormat.OpenSSH, plain),
    }
    if kind == "rsa":
        formats["p1"] = (s.Encoding.PEM, s.PrivateFormat.TraditionalOpenSSL, plain)
        formats["p1_der"] = (s.Encoding.DER, s.PrivateFormat.TraditionalOpenSSL, plain)
    for name, how in formats.items():
        with open(kind + "_" + name, "wb") as file:
            file.write(key.private_bytes(*how))
        print(kind + "_" + name)
"#;

#[test]
fn keys_fresh_from_python_are_imported() {
    if !has_python() {
        return;
    }
    let home = home();
    let made = output(&home, "python3", &["-c", PYTHON_MAKES], b"");
    let made = String::from_utf8(made).unwrap();
    assert_eq!(made.lines().count(), 12);
    for name in made.lines() {
        let kind = name.split('_').next().unwrap();
        let public = fs::read_to_string(home.path(&format!("{kind}.pub"))).unwrap();
        assert_eq!(imported(&home, name, name), public, "{name}");
    }
}

#[test]
fn fingerprints_are_those_of_openssl_over_the_der() {
    if !has_openssl() {
        return;
    }
    let home = home();
    home.run(&join(&[&["generate", "ed"], PLAIN])).ok();
    let rsa = ["generate", "rsa", "--algorithm", "rsa-2048"];
    home.run(&join(&[&rsa, PLAIN])).ok();
    let example = data("keys/ed25519.deribit.pub.pem");
    for which in ["ed", "rsa", example.to_str().unwrap()] {
        let pem = home.run(&["public", which]).ok().stdout;
        let der = ["pkey", "-pubin", "-outform", "DER"];
        let der = openssl(&home, &der, pem.as_bytes());
        for hash in ["md5", "sha256"] {
            let theirs = openssl(&home, &[hash, "-c"], &der);
            let theirs = String::from_utf8(theirs).unwrap();
            let theirs = theirs.split("= ").nth(1).unwrap().trim_end();
            let ours = home.run(&["fingerprint", which, "--hash", hash]).ok();
            assert_eq!(ours.stdout.trim_end(), theirs, "{which} {hash}");
        }
    }
}

/// Whether OpenSSL takes a signature over a text for that of a public key.
fn openssl_verifies(home: &Home, public: &str, text: &[u8], signature: &[u8]) -> bool {
    fs::write(home.path("text"), text).unwrap();
    fs::write(home.path("signature"), signature).unwrap();
    let args = [
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        public,
        "-rawin",
        "-in",
        "text",
        "-sigfile",
        "signature",
    ];
    let (verified, ..) = tool(home, "openssl", &args, b"");
    verified
}

pub(crate) fn openssl_signs(home: &Home, key: &str, text: &[u8]) -> String {
    fs::write(home.path("text"), text).unwrap();
    let args = ["pkeyutl", "-sign", "-inkey", key, "-rawin", "-in", "text"];
    BASE64_URL_SAFE_NO_PAD.encode(openssl(home, &args, b""))
}

/// A home with a key of each kind in clear, and the paths of their halves.
fn signers(home: &Home) -> Vec<(&'static str, String, String)> {
    let kinds = [("ed", "ed25519"), ("rsa", "rsa-2048"), ("big", "rsa-3072")];
    let made = kinds.into_iter().map(|(name, algorithm)| {
        let args = ["generate", name, "--algorithm", algorithm, "--json"];
        let said = home.run(&join(&[&args, PLAIN])).json();
        let path = |field: &str| said[field].as_str().unwrap().to_owned();
        (name, path("private_key_path"), path("public_key_path"))
    });
    made.collect()
}

/// Has Python verify as well, where it is there.
#[track_caller]
fn python_verifies(home: &Home, public: &str, text: &[u8], signature: &str) {
    fs::write(home.path("text"), text).unwrap();
    let check = data("interop/check.py");
    let args = [check.to_str().unwrap(), "verify", public, "text", signature];
    // A signature may begin with a hyphen, which is no option to this script.
    output(home, "python3", &args, b"");
}

#[test]
fn openssl_and_python_verify_signed_logins() {
    if !has_openssl() {
        return;
    }
    let python = has_python();
    let home = home();
    for (name, _, public) in signers(&home) {
        for data in ["", "hello", "gr\u{fc}\u{df}e \u{2603} \"x\" \\n"] {
            let args = [
                "sign",
                "auth",
                name,
                "--client-id",
                CLIENT_ID,
                "--data",
                data,
            ];
            let said = home.run(&args).json();
            assert_eq!(
                (&said["jsonrpc"], &said["method"]),
                (&json!("2.0"), &json!("public/auth"))
            );
            let params = &said["params"];
            assert_eq!(params["grant_type"], "client_signature");
            assert_eq!(params["client_id"], CLIENT_ID);
            assert_eq!(params["data"], data);
            let nonce = params["nonce"].as_str().unwrap();
            let text = format!("{}\n{nonce}\n{data}", params["timestamp"].as_u64().unwrap());
            let signature = params["signature"].as_str().unwrap();
            let raw = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
            assert!(
                openssl_verifies(&home, &public, text.as_bytes(), &raw),
                "{name} {said}"
            );
            let other = format!("{text} ");
            assert!(
                !openssl_verifies(&home, &public, other.as_bytes(), &raw),
                "{name}"
            );
            if python {
                python_verifies(&home, &public, text.as_bytes(), signature);
            }
            let verified = home.run_with_input(&["verify", name], said.to_string().as_bytes());
            verified.ok();
        }
    }
}

#[test]
fn openssl_verifies_a_login_whose_moment_and_scope_were_given() {
    if !has_openssl() {
        return;
    }
    let home = home();
    home.run(&join(&[&["generate", "ed"], PLAIN])).ok();
    let sign = ["sign", "auth", "ed", "--client-id", CLIENT_ID];
    let moment = ["--timestamp", "1576074319000", "--nonce", "1iqt2wls"];
    let scope = ["--scope", "account:read trade:read_write"];
    let said = home.run(&join(&[&sign, &moment, &scope])).json();
    assert_eq!(said["params"]["timestamp"], 1_576_074_319_000_u64);
    let granted = said["params"]["scope"].as_str().unwrap();
    assert!(
        granted.contains("account:read") && granted.contains("wallet:none"),
        "{said}"
    );
    let raw = said["params"]["signature"].as_str().unwrap();
    let raw = BASE64_URL_SAFE_NO_PAD.decode(raw).unwrap();
    let public = home.store().join("keys/ed/current/public.pem");
    let public = public.to_str().unwrap();
    assert!(openssl_verifies(
        &home,
        public,
        b"1576074319000\n1iqt2wls\n",
        &raw
    ));
}

const URI: &str = "/api/v2/private/get_account_summary?currency=BTC";
const BODY: &str =
    "{\"jsonrpc\":\"2.0\",\n\t\"id\":1,\"method\":\"private/x\",\"params\":{\"a\":\"\u{fc}\"}}";

/// The fields of a header, and what was signed for it.
fn reassembled(header: &str, method: &str, uri: &str, body: &str) -> (Vec<u8>, String) {
    let fields = header.split_once(' ').unwrap().1;
    let field = |name: &str| {
        let mut pairs = fields.split(',').map(|pair| pair.split_once('=').unwrap());
        pairs.find(|(n, _)| *n == name).unwrap().1.to_owned()
    };
    assert_eq!(field("id"), CLIENT_ID);
    let (ts, nonce) = (field("ts"), field("nonce"));
    let text = format!("{ts}\n{nonce}\n{method}\n{uri}\n{body}\n");
    (text.into_bytes(), field("sig"))
}

#[test]
fn openssl_and_python_verify_signed_requests() {
    if !has_openssl() {
        return;
    }
    let python = has_python();
    let home = home();
    fs::write(home.path("body"), BODY).unwrap();
    for (name, _, public) in signers(&home) {
        let uri = "/api/v2/private/x";
        let cases: [(&[&str], &str, &str, &str); 3] = [
            (&["--method", "GET", "--path", URI], "GET", URI, ""),
            (
                &["--method", "POST", "--path", uri, "--body", "body"],
                "POST",
                uri,
                BODY,
            ),
            (
                &["--method", "POST", "--path", uri, "--body", "-"],
                "POST",
                uri,
                BODY,
            ),
        ];
        for (options, method, uri, body) in cases {
            let sign = ["sign", "request", name, "--client-id", CLIENT_ID];
            let sign = join(&[&sign, options]);
            let said = home.run_with_input(&join(&[&sign, &["--json"]]), body.as_bytes());
            let said = said.json();
            let header = said["authorization"].as_str().unwrap();
            assert!(header.starts_with("deri-hmac-sha256 "), "{header}");
            let (text, signature) = reassembled(header, method, uri, body);
            let raw = BASE64_URL_SAFE_NO_PAD.decode(&signature).unwrap();
            assert!(
                openssl_verifies(&home, &public, &text, &raw),
                "{name} {said}"
            );
            let without_the_last_break = &text[..text.len() - 1];
            assert!(!openssl_verifies(
                &home,
                &public,
                without_the_last_break,
                &raw
            ));
            if python {
                python_verifies(&home, &public, &text, &signature);
            }
            // For people the same header stands on a line of its own.
            let shown = home.run_with_input(&sign, body.as_bytes()).ok().stdout;
            let header = shown.strip_prefix("Authorization: ").unwrap();
            let (text, signature) = reassembled(header.trim_end(), method, uri, body);
            let raw = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
            assert!(openssl_verifies(&home, &public, &text, &raw), "{shown}");
        }
    }
}

/// The request of a login that somebody else signed.
fn login(signature: &str, data: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": 7, "method": "public/auth", "params": {
        "grant_type": "client_signature", "client_id": CLIENT_ID, "timestamp": 1_576_074_319_000_u64,
        "nonce": "1iqt2wls", "signature": signature, "data": data}})
}

#[track_caller]
fn verified(home: &Home, args: &[&str], input: &str) -> Run {
    home.run_with_input(&join(&[&["verify"], args]), input.as_bytes())
}

#[test]
fn signatures_of_openssl_are_verified_and_altered_ones_are_not() {
    if !has_openssl() {
        return;
    }
    let home = home();
    fs::write(home.path("body"), BODY).unwrap();
    for (name, key, public) in signers(&home) {
        let file = Path::new(&public).to_str().unwrap();
        let signature = openssl_signs(&home, &key, b"1576074319000\n1iqt2wls\nhello");
        let good = login(&signature, "hello").to_string();
        verified(&home, &[name], &good).ok();
        verified(&home, &[file], &good).ok();
        verified(&home, &[name], &login(&signature, "hallo").to_string()).fails(11);
        let later = good.replace("1576074319000", "1576074319001");
        verified(&home, &[name], &later).fails(11);
        let other = good.replace("1iqt2wls", "1iqt2wlt");
        verified(&home, &[name], &other).fails(11);

        let uri = "/api/v2/private/x";
        let text = format!("1576074319000\n1iqt2wls\nPOST\n{uri}\n{BODY}\n");
        let signature = openssl_signs(&home, &key, text.as_bytes());
        let begin = format!("id={CLIENT_ID},ts=1576074319000,nonce=1iqt2wls,sig={signature}");
        let request = ["--method", "POST", "--path", uri, "--body", "body"];
        let request = join(&[&[name], &request]);
        for header in [
            format!("Authorization: deri-hmac-sha256 {begin}\n"),
            format!("DERI-HMAC-SHA256 {begin}"),
            format!("deri-hmac-sha256 {}", begin.replace(',', ", ")),
            json!({"authorization": format!("deri-hmac-sha256 {begin}")}).to_string(),
        ] {
            verified(&home, &request, &header).ok();
            let get = ["--method", "GET", "--path", uri, "--body", "body"];
            verified(&home, &join(&[&[name], &get]), &header).fails(11);
            let bare = ["--method", "POST", "--path", uri];
            verified(&home, &join(&[&[name], &bare]), &header).fails(11);
            let elsewhere = [
                "--method",
                "POST",
                "--path",
                "/api/v2/private/y",
                "--body",
                "body",
            ];
            verified(&home, &join(&[&[name], &elsewhere]), &header).fails(11);
        }
        // A signed request is no login, although its text could be one.
        verified(&home, &[name], &login(&signature, "").to_string()).fails(11);
    }
}
