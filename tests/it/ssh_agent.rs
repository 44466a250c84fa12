//! Keys that the real `ssh-agent` holds sign as if they were here.

use std::{
    io::{Read, Write},
    os::unix::net::UnixListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use derikey::{
    key::{Nonce, Purpose, Stamp, Timestamp},
    signer::{self, Signer, SshAgentSigner, Stamper, Wanted},
};

use super::support::{Home, installed};

/// An `ssh-agent` of its own.
pub(crate) struct SshAgent {
    child: Child,
    home: Home,
}

impl SshAgent {
    /// Starts one; nothing where OpenSSH is not installed.
    pub(crate) fn start() -> Option<Self> {
        if !installed("ssh", &["-V"]) {
            return None;
        }
        let home = Home::new();
        let child = Command::new("ssh-agent")
            .arg("-D")
            .arg("-a")
            .arg(home.path("agent"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let agent = Self { child, home };
        while !agent.socket().exists() {
            thread::sleep(Duration::from_millis(10));
        }
        Some(agent)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.home.path("agent")
    }

    /// Makes a key with `ssh-keygen`, hands it over with `ssh-add`, and returns its fingerprint.
    pub(crate) fn add(&self, kind: &[&str], how: &[&str]) -> String {
        let file = self.home.path(&kind.concat());
        let run = |program: &str, args: &[&str]| {
            let output = Command::new(program)
                .args(args)
                .arg(&file)
                .env("SSH_AUTH_SOCK", self.socket())
                .output()
                .unwrap();
            assert!(output.status.success(), "{program}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let mut make = vec!["-q", "-N", "", "-t"];
        make.extend(kind);
        make.push("-f");
        run("ssh-keygen", &make);
        run("ssh-add", &[&["-q"], how].concat());
        let shown = run("ssh-keygen", &["-l", "-f"]);
        shown.split_whitespace().nth(1).unwrap().to_owned()
    }
}

impl Drop for SshAgent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug)]
struct Frozen;

impl Stamper for Frozen {
    fn stamp(&self) -> Result<Stamp, signer::Error> {
        Ok(Stamp {
            timestamp: Timestamp(1_576_074_319_000),
            nonce: "1iqt2wls".parse::<Nonce>().unwrap(),
        })
    }
}

fn login() -> Purpose {
    Purpose::Login {
        data: String::new(),
    }
}

#[test]
fn ed25519_and_rsa_keys_of_the_real_agent_sign() {
    let Some(agent) = SshAgent::start() else {
        return;
    };
    for kind in [
        ["ed25519"].as_slice(),
        &["rsa", "-b", "2048"],
        &["rsa", "-b", "3072"],
    ] {
        let shown = agent.add(kind, &[]);
        let wanted: Wanted = shown.parse().unwrap();
        let signer = SshAgentSigner::find(&agent.socket(), &wanted, Frozen).unwrap();
        let signed = signer.sign(&login()).unwrap();
        let message = derikey::key::Message::new(&signed.stamp, &login()).unwrap();
        signer
            .public_key()
            .verify(&message, &signed.signature)
            .unwrap();
        // By the name that Deribit gives it, it is the same key.
        let wanted: Wanted = signer
            .public_key()
            .fingerprint()
            .to_string()
            .parse()
            .unwrap();
        let same = SshAgentSigner::find(&agent.socket(), &wanted, Frozen).unwrap();
        assert_eq!(same.public_key(), signer.public_key());
    }
}

#[test]
fn what_cannot_sign_is_refused_with_the_reason() {
    let Some(agent) = SshAgent::start() else {
        return;
    };
    let absent: Wanted = format!("SHA256:{}", "A".repeat(43)).parse().unwrap();
    let find = |wanted: &Wanted| SshAgentSigner::find(&agent.socket(), wanted, Frozen);
    let empty = find(&absent).unwrap_err().to_string();
    assert!(empty.contains("holds no key"), "{empty}");
    let elliptic: Wanted = agent.add(&["ecdsa"], &[]).parse().unwrap();
    let error = find(&elliptic).unwrap_err().to_string();
    assert!(error.contains("EC"), "{error}");
    let error = find(&absent).unwrap_err().to_string();
    assert!(error.contains("none of the 1 keys"), "{error}");
    // There is nobody to confirm.
    let confirmed: Wanted = agent.add(&["ed25519"], &["-c"]).parse().unwrap();
    let error = find(&confirmed).unwrap().sign(&login()).unwrap_err();
    assert!(matches!(error, signer::Error::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("did not sign"), "{error}");
    let gone = SshAgentSigner::find(&agent.socket().with_extension("gone"), &absent, Frozen);
    assert!(matches!(gone, Err(signer::Error::Unreachable(_))));
}

#[test]
fn a_hostile_agent_gets_no_more_than_an_error() {
    let absent: Wanted = format!("SHA256:{}", "A".repeat(43)).parse().unwrap();
    let home = Home::new();
    for (nth, answer) in [
        b"".as_slice(),
        b"\0\0\0\0",
        b"\xff\xff\xff\xff\x0c",
        b"\0\0\0\x05\x0c\xff\xff\xff\xff",
        b"\0\0\0\x09\x0c\0\0\0\x01\xff\xff\xff\xff",
        b"\0\0\0\x01\x05",
        b"\0\0\0\x20\x0c\0\0",
    ]
    .into_iter()
    .enumerate()
    {
        let socket = home.path(&format!("hostile{nth}"));
        let listener = UnixListener::bind(&socket).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 5];
            stream.read_exact(&mut asked).unwrap();
            let _ = stream.write_all(answer);
        });
        let error = SshAgentSigner::find(&socket, &absent, Frozen).unwrap_err();
        assert!(!error.to_string().is_empty(), "{answer:?}");
        server.join().unwrap();
    }
}

#[test]
fn names_of_keys_are_parsed_at_the_door() {
    for bad in [
        "",
        "SHA256:",
        "SHA256:short",
        "MD5:9c:6d",
        "9c:6d",
        &format!("SHA256:{}", "*".repeat(43)),
    ] {
        assert!(bad.parse::<Wanted>().is_err(), "{bad}");
    }
}
