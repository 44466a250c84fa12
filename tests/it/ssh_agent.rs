//! Keys that the real `ssh-agent` holds sign as if they were here.

use std::{
    fs,
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

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use serde_json::Value;

use super::{
    scene::Account,
    support::{Home, Run, Server, installed, join},
};

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

/// A keystore, an exchange and an ssh-agent.
struct Bench {
    agent: SshAgent,
    home: Home,
    _exchange: Home,
    server: Server,
}

impl Bench {
    fn new() -> Option<Self> {
        let agent = SshAgent::start()?;
        let home = Home::new();
        let exchange = Home::new();
        let server = Server::start(&exchange, &[]);
        Some(Self {
            agent,
            home,
            _exchange: exchange,
            server,
        })
    }

    fn run(&self, args: &[&str]) -> Run {
        let mut command = self.home.command(args);
        command.env("SSH_AUTH_SOCK", self.agent.socket());
        Run::of(command.output().unwrap())
    }

    fn register(&self, name: &str, signer: &str) -> Run {
        let register = ["register", name, "--scope", "trade:read", "--json"];
        let flags = ["--signer", signer];
        self.run(&join(&[&register, &flags, &self.server.admin()]))
    }
}

#[test]
fn a_key_in_the_agent_is_registered_proven_and_used_without_ever_being_here() {
    let Some(bench) = Bench::new() else {
        return;
    };
    for (name, kind) in [
        ("curve", ["ed25519"].as_slice()),
        ("rsa", &["rsa", "-b", "2048"]),
    ] {
        let signer = format!("ssh-agent:{}", bench.agent.add(kind, &[]));
        let made = bench.register(name, &signer).json();
        assert_eq!(made["granted_scope"], "trade:read");
        assert_eq!(made["private_key_path"], Value::Null);
        assert_eq!(made["fingerprint_verified"], true);
        let again = bench.register(name, &signer).json();
        assert_eq!(again["changed"], false);
        assert_eq!(again["client_id"], made["client_id"]);
        assert!(
            !bench
                .home
                .store()
                .join("keys")
                .join(name)
                .join("1/private.pem")
                .exists()
        );
        assert_eq!(
            bench.run(&["show", name, "--json"]).json()["signer"],
            signer
        );

        let network = bench.server.network();
        let login = bench
            .run(&join(&[&["auth", name, "--json"], &network]))
            .json();
        assert_eq!(login["granted_scope"], "trade:read");
        bench
            .run(&join(&[&["token", name, "--json"], &network]))
            .json();
        let request = bench.run(&["sign", "auth", name]).ok();
        let verified = bench
            .home
            .run_with_input(&["verify", name], request.stdout.as_bytes());
        verified.ok();
        // OpenSSL, which knows of no agent, agrees.
        let sign = [
            "sign",
            "auth",
            name,
            "--timestamp",
            "1576074319000",
            "--nonce",
            "1iqt2wls",
        ];
        let request = bench.run(&sign).json();
        let signature = request["params"]["signature"].as_str().unwrap();
        openssl_agrees(
            &bench.home,
            made["public_key"].as_str().unwrap(),
            kind[0],
            signature,
        );
        let url = "/api/v2/private/get_positions";
        let rest = [
            "sign", "request", name, "--method", "GET", "--path", url, "--json",
        ];
        bench.run(&rest).json();
    }
    let account = Account::of(&bench.server);
    assert_eq!(account.asymmetric().len(), 2);
    bench.run(&["doctor", "--json"]).json();
}

/// Verifies a login signed at the golden moment with `openssl`.
fn openssl_agrees(home: &Home, public: &str, kind: &str, signature: &str) {
    if !installed("openssl", &["version"]) {
        return;
    }
    fs::write(home.path("public.pem"), public).unwrap();
    fs::write(home.path("message"), "1576074319000\n1iqt2wls\n").unwrap();
    fs::write(
        home.path("signature"),
        BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap(),
    )
    .unwrap();
    let common = ["-sigfile", "signature", "-in", "message"];
    let raw = [
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        "public.pem",
        "-rawin",
    ];
    let digest: &[&str] = if kind == "rsa" {
        &["-digest", "sha256"]
    } else {
        &[]
    };
    let output = Command::new("openssl")
        .current_dir(home.path(""))
        .args(join(&[&raw, &common, digest]))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn what_takes_the_private_half_itself_is_refused() {
    let Some(bench) = Bench::new() else {
        return;
    };
    let signer = format!("ssh-agent:{}", bench.agent.add(&["ed25519"], &[]));
    bench.register("bot", &signer).ok();
    for args in [
        ["rotate", "bot"].as_slice(),
        &["export", "bot"],
        &["passwd", "bot"],
    ] {
        let run = bench.run(&join(&[args, &["--json", "--no-input"]]));
        let error = run.error(8);
        assert!(
            error["message"].as_str().unwrap().contains("not here"),
            "{args:?} {error}"
        );
    }
    // A key that is here is not turned into one that is not.
    bench
        .run(&["generate", "own", "--no-passphrase", "--insecure"])
        .ok();
    bench.register("own", &signer).error(7);
    // Another key under the name of one that is registered.
    let other = format!("ssh-agent:{}", bench.agent.add(&["rsa", "-b", "2048"], &[]));
    let network = bench.server.network();
    bench
        .run(&join(&[
            &["auth", "bot", "--json", "--signer", &other],
            &network,
        ]))
        .error(7);
    bench.run(&["delete", "bot", "--yes"]).ok();
}

#[test]
fn a_signer_that_is_none_is_refused_before_anything_is_written() {
    let Some(bench) = Bench::new() else {
        return;
    };
    for signer in [
        "",
        "ssh-agent",
        "ssh-agent:",
        "ssh-agent:SHA256:x",
        "pkcs11:x",
    ] {
        bench.register("bot", signer).error(2);
    }
    let absent = format!("ssh-agent:SHA256:{}", "A".repeat(43));
    bench.register("bot", &absent).error(8);
    let elliptic = format!("ssh-agent:{}", bench.agent.add(&["ecdsa"], &[]));
    bench.register("bot", &elliptic).error(7);
    let register = [
        "register",
        "bot",
        "--scope",
        "trade:read",
        "--json",
        "--signer",
        &absent,
    ];
    let args = join(&[&register, &bench.server.admin()]);
    // The tests' own environment has no agent in it.
    let run = Run::of(
        bench
            .home
            .command(&args)
            .env_remove("SSH_AUTH_SOCK")
            .output()
            .unwrap(),
    );
    run.error(3);
    let gone = bench
        .home
        .command(&args)
        .env("SSH_AUTH_SOCK", "/nowhere")
        .output()
        .unwrap();
    Run::of(gone).error(5);
    assert!(!bench.home.store().join("keys/bot").exists());
}
