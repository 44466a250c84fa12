//! Every algorithm, in every sealing, to and from every tool: OpenSSL, Python, Node and, where it
//! can, `ssh-keygen`. Where a tool is missing, its column says so and is left out.

use std::fs;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::json;

use crate::{
    interop::{
        CLIENT_ID, PLAIN, Sealing, has_openssl, has_python, has_ssh_keygen, home, imported,
        openssl, openssl_signs, output, spki_of_ed25519_line, tool,
    },
    support::{Home, data, installed, join, left_out},
};

const WHAT: &str = "1576074319000\n1iqt2wls\nhello";

fn has_node() -> bool {
    installed("node", &[script("js").as_str(), "version"])
}

fn script(language: &str) -> String {
    let path = data(&format!("interop/check.{language}"));
    path.to_str().unwrap().to_owned()
}

/// Runs one of the two scripts, and returns what it says.
#[track_caller]
fn ask(home: &Home, language: &str, args: &[&str]) -> String {
    let script = script(language);
    let program = if language == "js" { "node" } else { "python3" };
    let said = output(home, program, &join(&[&[&script], args]), b"");
    String::from_utf8(said).unwrap().trim_end().to_owned()
}

/// The SHA-256 of what OpenSSL says is the public half.
#[track_caller]
fn openssl_reads(home: &Home, key: &str, words: Option<&str>) -> String {
    let pass = words.map(|words| format!("file:{words}"));
    let mut args = vec!["pkey", "-in", key, "-pubout", "-outform", "DER"];
    if let Some(pass) = &pass {
        args.extend(["-passin", pass]);
    }
    let spki = openssl(home, &args, b"");
    let digest = openssl(home, &["sha256", "-r"], &spki);
    String::from_utf8(digest).unwrap()[..64].to_owned()
}

/// From here to there: one key, written in each sealing, opened by each tool.
fn outwards(algorithm: &str) {
    let home = home();
    let generate = ["generate", "key", "--algorithm", algorithm];
    home.run(&join(&[&generate, PLAIN])).ok();
    let print = home.run(&["fingerprint", "key", "--hash", "sha256"]).ok();
    let print = print.stdout.trim_end().replace(':', "");
    let kind = algorithm.replace('-', "");
    let (openssl, python, node) = (has_openssl(), has_python(), has_node());
    for sealing in Sealing::ALL {
        let file = format!("{sealing:?}.pem");
        let options = match sealing {
            Sealing::Plain => PLAIN.to_vec(),
            sealed => sealed.options(&["--new-passphrase-file", "words"]),
        };
        let export = ["export", "key", "--out", &file];
        home.run(&join(&[&export, &options])).ok();
        let words = sealing.words("words");
        let read: Vec<&str> = ["read", &file].into_iter().chain(words).collect();
        if openssl {
            assert_eq!(openssl_reads(&home, &file, words), print, "{file}");
        }
        if python {
            assert_eq!(ask(&home, "py", &read), format!("{print} {kind}"), "{file}");
        }
        if node {
            assert_eq!(ask(&home, "js", &read), format!("{print} {kind}"), "{file}");
        }
        // What a wrong passphrase does does not depend on what is sealed.
        if words.is_some() && algorithm == "ed25519" {
            let read = ["read", &file, "wrong"];
            for (there, program, language) in [(python, "python3", "py"), (node, "node", "js")] {
                let script = script(language);
                let args = join(&[&[&script], &read]);
                assert!(!there || !tool(&home, program, &args, b"").0, "{file}");
            }
        }
    }
    if has_ssh_keygen() {
        ssh_keygen_reads(&home, algorithm);
    }
    if node {
        signatures_agree_with_node(&home);
    }
}

/// It opens PKCS#8 of RSA through OpenSSL, and of Ed25519 since its version 9.6.
fn ssh_keygen_reads(home: &Home, algorithm: &str) {
    for (sealing, passphrase) in [
        ("Plain", ""),
        ("Pbkdf2", "correct horse"),
        ("Scrypt", "correct horse"),
    ] {
        let file = format!("{sealing}.pem");
        let args = ["-y", "-P", passphrase, "-f", &file];
        let (done, line, said) = tool(home, "ssh-keygen", &args, b"");
        if !done && algorithm == "ed25519" {
            assert!(said.contains("invalid format"), "{said}");
            left_out("this ssh-keygen opens no Ed25519 key in PKCS#8");
            continue;
        }
        assert!(done, "{file}: {said}");
        let line = String::from_utf8(line).unwrap();
        let theirs = if algorithm == "ed25519" {
            spki_of_ed25519_line(&line)
        } else {
            fs::write(home.path("line.pub"), &line).unwrap();
            let args = ["-e", "-m", "PKCS8", "-f", "line.pub"];
            String::from_utf8(output(home, "ssh-keygen", &args, b"")).unwrap()
        };
        let ours = home.run(&["public", "key"]).ok().stdout;
        assert_eq!(theirs, ours, "{file}");
    }
}

/// Either verifies what the other signs.
fn signatures_agree_with_node(home: &Home) {
    let sign = ["sign", "auth", "key", "--client-id", CLIENT_ID];
    let moment = ["--timestamp", "1576074319000", "--nonce", "1iqt2wls"];
    let said = home
        .run(&join(&[&sign, &moment, &["--data", "hello"]]))
        .json();
    let signature = said["params"]["signature"].as_str().unwrap();
    fs::write(home.path("text"), WHAT).unwrap();
    let public = home.store().join("keys/key/current/public.pem");
    let public = public.to_str().unwrap();
    // A signature may begin with a hyphen, which is no option to a script of Node's.
    ask(home, "js", &["verify", public, "text", signature]);
    let theirs = ask(home, "js", &["sign", "Plain.pem", "text"]);
    // Both kinds of signature are a function of the key and the text.
    assert_eq!(theirs, signature);
    if has_openssl() {
        assert_eq!(openssl_signs(home, "Plain.pem", WHAT.as_bytes()), theirs);
    }
    let login = json!({"jsonrpc": "2.0", "id": 7, "method": "public/auth", "params": {
        "grant_type": "client_signature", "client_id": CLIENT_ID, "timestamp": 1_576_074_319_000_u64,
        "nonce": "1iqt2wls", "signature": theirs, "data": "hello"}});
    let verified = home.run_with_input(&["verify", "key"], login.to_string().as_bytes());
    verified.ok();
}

/// Makes a key of an algorithm with Python, in clear and sealed.
const PYTHON_MAKES: &str = r#"
import sys
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
kind, _, bits = sys.argv[1].partition("-")
key = rsa.generate_private_key(65537, int(bits)) if bits else ed25519.Ed25519PrivateKey.generate()
with open("python.pub", "wb") as file:
    file.write(key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo))
sealed = s.BestAvailableEncryption(b"correct horse")
for name, format, how in [
    ("plain", s.PrivateFormat.PKCS8, s.NoEncryption()),
    ("pbkdf2", s.PrivateFormat.PKCS8, sealed),
    ("openssh", s.PrivateFormat.OpenSSH, s.NoEncryption()),
]:
    with open("python." + name, "wb") as file:
        file.write(key.private_bytes(s.Encoding.PEM, format, how))
"#;

/// From there to here: a key of each tool, in each sealing that it can write.
fn inwards(algorithm: &str) {
    let home = home();
    let check = |name: &str, file: &str, public: &str| {
        assert_eq!(imported(&home, name, file), public, "{algorithm} {file}");
    };
    if has_openssl() {
        let bits = algorithm.strip_prefix("rsa-");
        let size = format!("rsa_keygen_bits:{}", bits.unwrap_or_default());
        let make: &[&str] = match bits {
            None => &["-algorithm", "ed25519"],
            Some(_) => &["-algorithm", "RSA", "-pkeyopt", &size],
        };
        openssl(
            &home,
            &join(&[&["genpkey", "-out", "openssl.plain"], make]),
            b"",
        );
        let topk8 = [
            "pkcs8",
            "-topk8",
            "-in",
            "openssl.plain",
            "-passout",
            "file:words",
        ];
        let pbkdf2 = [
            "-v2",
            "aes-256-cbc",
            "-v2prf",
            "hmacWithSHA256",
            "-out",
            "openssl.pbkdf2",
        ];
        openssl(&home, &join(&[&topk8, &pbkdf2]), b"");
        openssl(
            &home,
            &join(&[&topk8, &["-scrypt", "-out", "openssl.scrypt"]]),
            b"",
        );
        let public = openssl(&home, &["pkey", "-in", "openssl.plain", "-pubout"], b"");
        let public = String::from_utf8(public).unwrap();
        check("openssl1", "openssl.plain", &public);
        check("openssl2", "openssl.pbkdf2", &public);
        check("openssl3", "openssl.scrypt", &public);
    }
    if has_python() {
        output(&home, "python3", &["-c", PYTHON_MAKES, algorithm], b"");
        let public = fs::read_to_string(home.path("python.pub")).unwrap();
        check("python1", "python.plain", &public);
        check("python2", "python.pbkdf2", &public);
        check("python3", "python.openssh", &public);
    }
    if has_node() {
        for (name, words) in [("plain", None), ("pbkdf2", Some("words"))] {
            let make: Vec<&str> = ["make", algorithm].into_iter().chain(words).collect();
            let file = format!("node.{name}");
            fs::write(home.path(&file), ask(&home, "js", &make)).unwrap();
            let read: Vec<&str> = ["read", &file].into_iter().chain(words).collect();
            let theirs = ask(&home, "js", &read);
            imported(&home, name, &file);
            let ours = home.run(&["fingerprint", name, "--hash", "sha256"]).ok();
            let ours = ours.stdout.trim_end().replace(':', "");
            let kind = algorithm.replace('-', "");
            assert_eq!(theirs, format!("{ours} {kind}"), "{file}");
        }
    }
    if has_ssh_keygen() {
        from_ssh_keygen(&home, algorithm);
    }
}

fn from_ssh_keygen(home: &Home, algorithm: &str) {
    let kind: &[&str] = match algorithm.strip_prefix("rsa-") {
        None => &["-t", "ed25519"],
        Some(bits) => &["-t", "rsa", "-b", bits],
    };
    let make = ["-q", "-N", "", "-C", "a comment", "-f", "ssh_plain"];
    output(home, "ssh-keygen", &join(&[&make, kind]), b"");
    let mut variants = vec![("ssh_sealed", vec!["-N", "correct horse"])];
    if algorithm != "ed25519" {
        // It writes no Ed25519 key in another format than its own.
        variants.push(("ssh_pkcs8", vec!["-m", "PKCS8", "-N", ""]));
        variants.push(("ssh_pbes2", vec!["-m", "PKCS8", "-N", "correct horse"]));
        variants.push(("ssh_pkcs1", vec!["-m", "PEM", "-N", ""]));
    }
    let public = imported(home, "ssh_plain", "ssh_plain");
    let line = fs::read_to_string(home.path("ssh_plain.pub")).unwrap();
    let blob = BASE64_STANDARD.decode(line.split(' ').nth(1).unwrap());
    if algorithm == "ed25519" {
        assert_eq!(public, spki_of_ed25519_line(&line));
    } else {
        assert!(blob.unwrap().len() > 256);
        let args = ["-e", "-m", "PKCS8", "-f", "ssh_plain.pub"];
        let theirs = output(home, "ssh-keygen", &args, b"");
        assert_eq!(public.as_bytes(), theirs);
    }
    for (name, args) in variants {
        fs::copy(home.path("ssh_plain"), home.path(name)).unwrap();
        let change = ["-q", "-p", "-P", "", "-f", name];
        output(home, "ssh-keygen", &join(&[&change, &args]), b"");
        assert_eq!(imported(home, name, name), public, "{name}");
    }
}

macro_rules! matrix {
    ($($outwards:ident, $inwards:ident: $algorithm:literal;)*) => {
        $(
            #[test]
            fn $outwards() {
                outwards($algorithm);
            }

            #[test]
            fn $inwards() {
                inwards($algorithm);
            }
        )*
    };
}

matrix! {
    ed25519_keys_open_everywhere, ed25519_keys_come_from_everywhere: "ed25519";
    rsa_2048_keys_open_everywhere, rsa_2048_keys_come_from_everywhere: "rsa-2048";
    rsa_3072_keys_open_everywhere, rsa_3072_keys_come_from_everywhere: "rsa-3072";
    rsa_4096_keys_open_everywhere, rsa_4096_keys_come_from_everywhere: "rsa-4096";
}
