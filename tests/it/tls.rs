//! TLS: whom the program believes, and that nothing is said to anybody else. The servers are real
//! ones, of Python and its OpenSSL, and so are the certificates.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::Value;

use super::{
    scene::{Account, NAME, SCOPE, Scene, measure, says_why},
    store_files::traced,
    support::{Server, installed, join},
};

/// A TLS server in front of an exchange. Its log says who came, and every byte that was said to it
/// after the handshake.
const TLS_SERVER: &str = r#"
import socket, ssl, sys, threading
cert, key, host, upstream, port, log, versions = sys.argv[1:]
oldest, newest = (getattr(ssl.TLSVersion, version) for version in versions.split("-"))
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
if newest < ssl.TLSVersion.TLSv1_2:
    context.set_ciphers("ALL:@SECLEVEL=0")
context.minimum_version = oldest
context.maximum_version = newest
context.load_cert_chain(cert, key)
listener = socket.create_server(("127.0.0.1", int(port)))
print(listener.getsockname()[1], flush=True)
def note(text):
    with open(log, "a") as file:
        file.write(text + "\n")
def pipe(a, b):
    try:
        while data := a.recv(65536):
            b.sendall(data)
    except OSError:
        pass
    for end in (a, b):
        try: end.shutdown(socket.SHUT_RDWR)
        except OSError: pass
def serve(raw):
    note("connection")
    try:
        client = context.wrap_socket(raw, server_side=True)
        first = client.recv(65536)
    except OSError as error:
        note("refused " + str(error))
        return
    if not first:
        note("closed")
        return
    note("request over " + client.version())
    server = socket.create_connection((host, int(upstream)))
    server.sendall(first)
    threading.Thread(target=pipe, args=(server, client), daemon=True).start()
    pipe(client, server)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

const MODERN: &str = "TLSv1_2-TLSv1_3";

/// A TLS server that ends with the test.
struct Tls {
    child: Child,
    port: String,
    log: PathBuf,
}

impl Tls {
    fn start(dir: &Path, certificate: &str, upstream: &str, versions: &str) -> Self {
        Self::start_at(dir, certificate, upstream, versions, "0")
    }

    fn start_at(dir: &Path, certificate: &str, upstream: &str, versions: &str, at: &str) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        let log = dir.join(format!("{certificate}-{nth}.log"));
        let (host, port) = upstream.rsplit_once(':').unwrap();
        let mut child = Command::new("python3")
            .args(["-W", "ignore", "-c", TLS_SERVER])
            .arg(dir.join(format!("{certificate}.pem")))
            .arg(dir.join(format!("{certificate}.key")))
            .args([host, port, at])
            .arg(&log)
            .arg(versions)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let port = line.trim().to_owned();
        assert_ne!(port, "", "the TLS server does not start");
        Self { child, port, log }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Checks that somebody came, and said nothing but hello.
    #[track_caller]
    fn heard_nothing(&self, what: &str) {
        let log = self.log();
        assert!(log.contains("connection"), "{what}: nobody came: {log}");
        assert!(!log.contains("request"), "{what}: it said something: {log}");
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn openssl(dir: &Path, args: &[&str]) {
    let output = Command::new("openssl")
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
}

/// Makes an authority and what it, or nobody, has signed.
fn certificates(dir: &Path) {
    let ca = "[ca]\ndefault_ca=d\n[d]\ndatabase=index\nserial=serial\nnew_certs_dir=.\n\
              default_md=sha256\npolicy=p\ncopy_extensions=copy\nx509_extensions=e\nunique_subject=no\n\
              [p]\ncommonName=supplied\n[e]\nbasicConstraints=CA:FALSE\n";
    fs::write(dir.join("ca.cnf"), ca).unwrap();
    fs::write(dir.join("index"), "").unwrap();
    fs::write(dir.join("serial"), "01\n").unwrap();
    let new_key = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ];
    for name in ["authority", "stranger"] {
        let (key, pem) = (format!("{name}.key"), format!("{name}.pem"));
        let subject = format!("/CN={name}");
        let mut args = vec![
            "req", "-x509", "-days", "2", "-keyout", &key, "-out", &pem, "-subj", &subject,
        ];
        args.extend(new_key);
        openssl(dir, &args);
    }
    let leaf = |name: &str, names: &str, authority: &str, from: &str, to: &str| {
        let files = [
            format!("{name}.key"),
            format!("{name}.csr"),
            format!("{name}.pem"),
        ];
        let (subject, alt) = (format!("/CN={name}"), format!("subjectAltName={names}"));
        let mut args = vec!["req", "-new", "-keyout", &files[0], "-out", &files[1]];
        args.extend(["-subj", &subject, "-addext", &alt]);
        args.extend(new_key);
        openssl(dir, &args);
        let (cert, key) = (format!("{authority}.pem"), format!("{authority}.key"));
        let mut args = vec![
            "ca", "-batch", "-notext", "-config", "ca.cnf", "-cert", &cert,
        ];
        args.extend(["-keyfile", &key, "-in", &files[1], "-out", &files[2]]);
        args.extend(["-startdate", from, "-enddate", to]);
        openssl(dir, &args);
    };
    let here = "IP:127.0.0.1,DNS:localhost";
    let (past, gone, far) = ("20200101000000Z", "20200201000000Z", "20491231000000Z");
    leaf("good", here, "authority", past, far);
    leaf("elsewhere", "DNS:www.deribit.com", "authority", past, far);
    leaf("expired", here, "authority", past, gone);
    leaf("early", here, "authority", "20480101000000Z", far);
    leaf("unknown", here, "stranger", past, far);
    // A common name has not counted for a long time.
    leaf("localhost", "DNS:elsewhere.example", "authority", past, far);
    let mut args = vec![
        "req",
        "-x509",
        "-days",
        "2",
        "-keyout",
        "alone.key",
        "-out",
        "alone.pem",
    ];
    args.extend([
        "-subj",
        "/CN=alone",
        "-addext",
        "subjectAltName=IP:127.0.0.1,DNS:localhost",
    ]);
    args.extend(new_key);
    openssl(dir, &args);
}

/// An exchange, and certificates for whoever stands before it.
struct Stage {
    scene: Scene,
    server: Server,
    dir: PathBuf,
}

impl Stage {
    fn set() -> Option<Self> {
        if !installed("openssl", &["version"]) || !installed("python3", &["-c", "import ssl"]) {
            return None;
        }
        let scene = Scene::in_clear();
        let server = Server::start(&scene.home, &[]);
        let dir = scene.home.path("tls");
        fs::create_dir(&dir).unwrap();
        certificates(&dir);
        Some(Self { scene, server, dir })
    }

    fn tls(&self, certificate: &str, versions: &str) -> Tls {
        Tls::start(&self.dir, certificate, &self.server.address(), versions)
    }

    fn authority(&self) -> String {
        let path = self.dir.join("authority.pem");
        path.to_str().unwrap().to_owned()
    }

    /// A command over TLS, with the authority of `--ca-file` if there is to be one.
    fn command(&self, args: &[&str], host: &str, port: &str, trusts: bool) -> Command {
        let endpoint = format!("https://{host}:{port}/api/v2");
        let authority = self.authority();
        let network = ["--network", "custom", "--endpoint", &endpoint];
        let mut command = self.scene.home.command(&["--json", "--timeout", "5"]);
        command.args(network);
        if trusts {
            command.args(["--ca-file", &authority]);
        }
        command.args(args);
        if args[0] != "auth" {
            command
                .args(["--admin-client-id", &self.server.admin_client_id])
                .arg("--admin-secret-file")
                .arg(&self.server.admin_secret_file);
        }
        command
    }

    /// The keys that are in the keystore.
    fn names(&self) -> Vec<String> {
        let listed = self.scene.home.run(&["--json", "list"]).json();
        let keys = listed["keys"].as_array().unwrap().iter();
        keys.map(|key| key["name"].as_str().unwrap().to_owned())
            .collect()
    }

    fn provision(&self, name: &str, host: &str, port: &str, trusts: bool) -> Command {
        let plain = ["--no-passphrase", "--insecure"];
        let args = join(&[&["provision", name, "--scope", SCOPE], &plain]);
        self.command(&args, host, port, trusts)
    }
}

/// What a variable of the environment says elsewhere about proxies and about whom to believe.
fn misled(command: &mut Command, proxy: &str, dir: &Path, authority: &Path) {
    for name in [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "FTP_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ] {
        command.env(name, proxy);
    }
    command.env("NO_PROXY", "").env("no_proxy", "");
    for name in [
        "SSL_CERT_FILE",
        "CURL_CA_BUNDLE",
        "REQUESTS_CA_BUNDLE",
        "NODE_EXTRA_CA_CERTS",
        "AWS_CA_BUNDLE",
    ] {
        command.env(name, authority);
    }
    command
        .env("SSL_CERT_DIR", dir)
        .env("SSLKEYLOGFILE", dir.join("keys.log"))
        .env("NODE_TLS_REJECT_UNAUTHORIZED", "0")
        .env("PYTHONHTTPSVERIFY", "0")
        .env("CURL_INSECURE", "1");
}

/// Somebody who waits for whoever is led there.
fn trap() -> (TcpListener, String) {
    let trap = TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let proxy = format!("http://{}", trap.local_addr().unwrap());
    (trap, proxy)
}

#[test]
fn a_server_that_is_not_who_it_should_be_hears_nothing() {
    let Some(stage) = Stage::set() else { return };
    let (trap, proxy) = trap();
    let cases: [(&str, bool, &str, &str); 12] = [
        (
            "good",
            false,
            MODERN,
            "no authority of ours, only the environment's",
        ),
        ("alone", false, MODERN, "self-signed"),
        ("alone", true, MODERN, "self-signed, another authority"),
        ("elsewhere", true, MODERN, "another host's"),
        (
            "localhost",
            true,
            MODERN,
            "our host in the common name alone",
        ),
        ("expired", true, MODERN, "expired"),
        ("expired", true, "TLSv1_2-TLSv1_2", "expired, TLS 1.2"),
        ("early", true, MODERN, "not yet valid"),
        ("unknown", true, MODERN, "unknown authority"),
        ("good", true, "TLSv1-TLSv1", "TLS 1.0"),
        ("good", true, "TLSv1_1-TLSv1_1", "TLS 1.1"),
        ("good", true, "TLSv1-TLSv1_1", "TLS 1.0 and 1.1"),
    ];
    thread::scope(|scope| {
        for (nth, (certificate, trusts, versions, what)) in cases.into_iter().enumerate() {
            let (stage, proxy) = (&stage, &proxy);
            scope.spawn(move || {
                let tls = stage.tls(certificate, versions);
                let name = format!("bot{nth}");
                let mut command = stage.provision(&name, "localhost", &tls.port, trusts);
                let authority = stage.authority();
                misled(&mut command, proxy, &stage.dir, Path::new(&authority));
                let end = measure(command);
                assert_eq!(end.run.code, Some(5), "{what}: {end:#?}");
                says_why(&end.run, what);
                tls.heard_nothing(what);
                if versions.ends_with("TLSv1") || versions.ends_with("TLSv1_1") {
                    speaks(&tls, versions);
                }
            });
        }
    });
    assert!(
        trap.accept().is_err(),
        "a proxy of the environment was asked"
    );
    assert!(Account::of(&stage.server).asymmetric().is_empty());
    assert_eq!(stage.scene.pending(), Vec::<Value>::new());
    assert!(stage.names().is_empty());
}

/// Makes sure that a server of old speaks at all, with a client that is not particular.
fn speaks(tls: &Tls, versions: &str) {
    let newest = versions.rsplit('-').next().unwrap();
    let flag = newest.replace("TLSv", "-tls");
    let address = format!("127.0.0.1:{}", tls.port);
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &address, &flag])
        .args(["-cipher", "ALL:@SECLEVEL=0"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let protocol = newest.replace('_', ".").replace("TLSv1.0", "TLSv1");
    assert!(said.contains(&format!("Protocol  : {protocol}")), "{said}");
}

/// The six operations, in an order in which each can be done.
const OPERATIONS: [&[&str]; 6] = [
    &[
        "provision",
        NAME,
        "--scope",
        SCOPE,
        "--no-passphrase",
        "--insecure",
    ],
    &["auth", NAME],
    &["list", "--remote"],
    &["edit", NAME, "--scope", "account:read"],
    &["rotate", NAME, "--no-passphrase", "--insecure"],
    &["remove", NAME, "--yes"],
];

#[test]
fn a_good_server_is_believed_for_its_own_authority_and_for_no_other_reason() {
    let Some(stage) = Stage::set() else { return };
    let (trap, proxy) = trap();
    for versions in ["TLSv1_2-TLSv1_2", "TLSv1_3-TLSv1_3"] {
        let tls = stage.tls("good", versions);
        for args in OPERATIONS {
            let what = format!("{args:?} over {versions}");
            // Whom the environment trusts does not count.
            let believed = if versions.contains("1_2") {
                "stranger.pem"
            } else {
                "nothing-there"
            };
            let mut command = stage.command(args, "localhost", &tls.port, true);
            misled(&mut command, &proxy, &stage.dir, &stage.dir.join(believed));
            let end = measure(command);
            assert_eq!(end.run.code, Some(0), "{what}: {end:#?}");
        }
        let version = versions[..7].replace('_', ".");
        assert!(
            tls.log().contains(&format!("request over {version}")),
            "{}",
            tls.log()
        );
        assert!(Account::of(&stage.server).asymmetric().is_empty());
    }
    assert!(
        trap.accept().is_err(),
        "a proxy of the environment was asked"
    );
    let keys = stage.dir.join("keys.log");
    assert!(!keys.exists(), "session keys were written down");
}

#[test]
fn a_server_that_is_another_one_today_hears_nothing_whatever_is_asked() {
    let Some(stage) = Stage::set() else { return };
    let good = stage.tls("good", MODERN);
    let port = good.port.clone();
    let end = measure(stage.provision(NAME, "localhost", &port, true));
    assert_eq!(end.run.code, Some(0), "{end:#?}");
    let before = Account::of(&stage.server).asymmetric();
    drop(good);
    let upstream = stage.server.address();
    let other = Tls::start_at(&stage.dir, "unknown", &upstream, MODERN, &port);
    thread::scope(|scope| {
        for args in OPERATIONS {
            let (stage, port) = (&stage, &port);
            scope.spawn(move || {
                let what = format!("{args:?}");
                let end = if args[0] == "provision" {
                    measure(stage.provision("second", "localhost", port, true))
                } else {
                    measure(stage.command(args, "localhost", port, true))
                };
                assert_eq!(end.run.code, Some(5), "{what}: {end:#?}");
                says_why(&end.run, &what);
            });
        }
    });
    other.heard_nothing("all of them");
    assert_eq!(stage.scene.pending(), Vec::<Value>::new());
    assert_eq!(Account::of(&stage.server).asymmetric(), before);
    assert_eq!(stage.names(), [NAME]);
}

/// A listener that speaks no TLS, and what it was told.
fn plain(answer: &'static [u8]) -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let heard: Arc<Mutex<Vec<u8>>> = Arc::default();
    let keep = Arc::clone(&heard);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let keep = Arc::clone(&keep);
            thread::spawn(move || {
                let mut client = client;
                let mut chunk = [0; 4096];
                while let Ok(n @ 1..) = client.read(&mut chunk) {
                    keep.lock().unwrap().extend(&chunk[..n]);
                    if std::io::Write::write_all(&mut client, answer).is_err() {
                        break;
                    }
                }
            });
        }
    });
    (port, heard)
}

#[test]
fn a_server_without_tls_hears_a_hello_and_nothing_else() {
    let answers: [&[u8]; 3] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 301 Moved Permanently\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n",
        b"",
    ];
    for answer in answers {
        let what = String::from_utf8_lossy(answer).into_owned();
        let scene = Scene::in_clear();
        let (port, heard) = plain(answer);
        let secret = scene.home.secret_file("admin", "a-secret-that-stays-here");
        let endpoint = format!("https://localhost:{port}/api/v2");
        let mut command = scene.home.command(&["--json", "--timeout", "2"]);
        command
            .args(["provision", NAME, "--scope", SCOPE])
            .args(["--no-passphrase", "--insecure", "--network", "custom"])
            .args(["--endpoint", &endpoint, "--admin-client-id", "admin"])
            .arg("--admin-secret-file")
            .arg(secret);
        let end = measure(command);
        assert_eq!(end.run.code, Some(5), "{what}: {end:#?}");
        says_why(&end.run, &what);
        assert!(end.took < Duration::from_secs(8), "{what}: {end:#?}");
        let heard = heard.lock().unwrap();
        // A handshake of TLS 1, whatever version it offers (RFC 8446, section 5.1).
        assert_eq!(heard.get(..2), Some(&[0x16, 0x03][..]), "{what}");
        let text = String::from_utf8_lossy(&heard);
        for word in ["POST", "HTTP/", "public/auth", "admin", "Bearer"] {
            assert!(!text.contains(word), "{what}: {word}");
        }
        assert_eq!(scene.public(), None, "{what}");
    }
}

#[test]
fn no_proxy_comes_from_the_environment_where_there_is_no_tls_either() {
    let (trap, proxy) = trap();
    let scene = Scene::in_clear();
    let server = Server::start(&scene.home, &[]);
    let nothing = scene.home.path("nothing");
    for args in OPERATIONS {
        let flags = if args[0] == "auth" {
            server.network()
        } else {
            server.admin()
        };
        let mut command = scene.home.command(&join(&[&["--json"], args, &flags]));
        misled(&mut command, &proxy, &nothing, &nothing);
        let end = measure(command);
        assert_eq!(end.run.code, Some(0), "{args:?}: {end:#?}");
    }
    assert!(trap.accept().is_err(), "the proxy was asked");
}

#[test]
fn plain_http_leaves_this_machine_for_nobody() {
    let scene = Scene::in_clear();
    for endpoint in [
        "http://198.51.100.1/api/v2",
        "http://localhost.example.invalid/api/v2",
        "http://127.0.0.1.example.invalid/api/v2",
    ] {
        let args = ["--json", "--network", "custom", "--endpoint", endpoint];
        let mut command = scene.home.command(&args);
        command.args([
            "provision",
            NAME,
            "--scope",
            SCOPE,
            "--no-passphrase",
            "--insecure",
        ]);
        // Nobody is spoken to and no name is looked up: there is not even a socket.
        if let Some((_, calls)) = traced(&scene.home, "execve,socket,connect", &command) {
            for call in calls {
                let what = format!("{endpoint}: {}({})", call.name, call.arguments);
                assert!(!call.arguments.contains("AF_INET"), "{what}");
            }
        }
        let end = measure(command);
        assert_eq!(end.run.code, Some(2), "{endpoint}: {end:#?}");
        says_why(&end.run, endpoint);
        assert!(end.took < Duration::from_secs(2), "{endpoint}: {end:#?}");
    }
}
