//! The exchange's own language by hand: HTTP over a socket, JSON-RPC, the administrator's HMAC.
//!
//! Nothing of the program under test is used here, so that both cannot be wrong in the same way.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::{Home, Server};

/// Sends one HTTP request and returns the JSON of the answer, whatever its status.
pub(crate) fn http(
    address: &str,
    verb: &str,
    uri: &str,
    authorization: Option<&str>,
    body: &str,
) -> Value {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let authorization =
        authorization.map_or_else(String::new, |value| format!("Authorization: {value}\r\n"));
    let length = body.len();
    write!(
        stream,
        "{verb} {uri} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n{authorization}Connection: close\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer}"))
}

/// Calls a method with an `Authorization` header and returns the whole envelope.
pub(crate) fn call(
    address: &str,
    authorization: Option<&str>,
    method: &str,
    params: &Value,
) -> Value {
    let body = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}).to_string();
    let uri = format!("/api/v2/{method}");
    http(address, "POST", &uri, authorization, &body)
}

/// The lower-case hex of an HMAC, as symmetric keys sign.
fn hmac_hex(secret: &str, message: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(message.as_bytes());
    let digest = mac.finalize().into_bytes();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The administrator of a sandbox, logged in by hand.
pub(crate) struct Admin {
    address: String,
    bearer: String,
}

impl Admin {
    /// Logs in with a signature made here.
    pub(crate) fn log_in(server: &Server) -> Self {
        static NONCE: AtomicU64 = AtomicU64::new(0);
        let millis = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_millis();
        let pid = std::process::id();
        let nonce = format!("t{pid}x{}", NONCE.fetch_add(1, Ordering::Relaxed));
        let secret = std::fs::read_to_string(&server.admin_secret_file).unwrap();
        let signature = hmac_hex(secret.trim(), &format!("{millis}\n{nonce}\n"));
        let params = json!({
            "grant_type": "client_signature",
            "client_id": server.admin_client_id,
            "timestamp": u64::try_from(millis).unwrap(),
            "nonce": nonce,
            "data": "",
            "signature": signature,
        });
        let answer = call(&server.address(), None, "public/auth", &params);
        let token = answer["result"]["access_token"]
            .as_str()
            .unwrap_or_else(|| panic!("{answer}"));
        Self {
            address: server.address(),
            bearer: format!("Bearer {token}"),
        }
    }

    /// Calls a method and expects a result.
    #[track_caller]
    pub(crate) fn call(&self, method: &str, params: &Value) -> Value {
        let answer = call(&self.address, Some(&self.bearer), method, params);
        assert!(answer.get("error").is_none(), "{answer}");
        answer["result"].clone()
    }

    /// The account's keys without the administrator's own.
    pub(crate) fn keys(&self) -> Vec<Value> {
        let keys = self.call("private/list_api_keys", &json!({}));
        let keys = keys.as_array().unwrap().iter();
        keys.filter(|key| key["name"] != "admin").cloned().collect()
    }

    /// The events of one client in the order in which they happened: what and when.
    pub(crate) fn events_of(&self, client_id: &str) -> Vec<(String, u64)> {
        let log = self.call("private/get_access_log", &json!({"count": 1000}));
        let rows = log["data"].as_array().unwrap().iter().rev();
        rows.filter(|row| row["data"] == client_id)
            .map(|row| {
                (
                    row["log"].as_str().unwrap().to_owned(),
                    row["timestamp"].as_u64().unwrap(),
                )
            })
            .collect()
    }
}

/// Looks at a sandbox's account, second factor or not: another server over the same state.
pub(crate) fn inspect<T>(home: &Home, look: impl FnOnce(&Admin) -> T) -> T {
    let server = Server::start(home, &[]);
    look(&Admin::log_in(&server))
}

/// Somebody who listens in between: passes everything on and keeps the requests.
pub(crate) struct Tap {
    pub(crate) endpoint: String,
    /// The requests of all connections, in the order in which they came.
    heard: Arc<Mutex<Vec<Value>>>,
}

impl Tap {
    /// Listens in front of a server.
    pub(crate) fn before(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}/api/v2", listener.local_addr().unwrap());
        let heard: Arc<Mutex<Vec<Value>>> = Arc::default();
        let (target, keep) = (server.address(), Arc::clone(&heard));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(&target) else {
                    return;
                };
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let keep = Arc::clone(&keep);
                thread::spawn(move || {
                    let mut unread = Vec::new();
                    pass(from, to, |bytes| {
                        unread.extend(bytes);
                        keep.lock().unwrap().extend(take_bodies(&mut unread));
                    });
                });
                thread::spawn(move || pass(server, client, |_| {}));
            }
        });
        Self { endpoint, heard }
    }

    /// The requests that went through so far.
    pub(crate) fn requests(&self) -> Vec<Value> {
        self.heard.lock().unwrap().clone()
    }

    /// The parameters of every call of a method.
    pub(crate) fn calls(&self, method: &str) -> Vec<Value> {
        let requests = self.requests().into_iter();
        requests
            .filter(|request| request["method"] == method)
            .map(|request| request["params"].clone())
            .collect()
    }

    /// Every one-time code that was sent.
    pub(crate) fn codes(&self) -> Vec<String> {
        let requests = self.requests().into_iter();
        requests
            .filter_map(|request| {
                request["params"]["authorization_data"]
                    .as_str()
                    .map(str::to_owned)
            })
            .collect()
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut keep: impl FnMut(&[u8])) {
    let mut chunk = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut chunk) {
        keep(&chunk[..n]);
        if to.write_all(&chunk[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

/// Takes the JSON bodies of whole requests from what one connection has brought.
fn take_bodies(bytes: &mut Vec<u8>) -> Vec<Value> {
    let mut found = Vec::new();
    while let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length: usize = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"))
            .map_or(0, |text| text.trim().parse().unwrap());
        let Some(body) = bytes.get(end + 4..end + 4 + length) else {
            break;
        };
        found.extend(serde_json::from_slice::<Value>(body));
        bytes.drain(..end + 4 + length);
    }
    found
}

/// Somebody in between who holds calls of one method back until so many have come together, and
/// no longer than a few seconds.
pub(crate) struct Gate {
    pub(crate) endpoint: String,
    together: Arc<AtomicU64>,
}

impl Gate {
    pub(crate) fn before(server: &Server, method: &'static str, wanted: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}/api/v2", listener.local_addr().unwrap());
        let together: Arc<AtomicU64> = Arc::default();
        let (target, count) = (server.address(), Arc::clone(&together));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(&target) else {
                    return;
                };
                let count = Arc::clone(&count);
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let call = format!("POST /api/v2/{method} ");
                thread::spawn(move || {
                    pass(from, to, |bytes| {
                        if !bytes.starts_with(call.as_bytes()) {
                            return;
                        }
                        count.fetch_add(1, Ordering::SeqCst);
                        let start = std::time::Instant::now();
                        while count.load(Ordering::SeqCst) < wanted
                            && start.elapsed() < Duration::from_secs(5)
                        {
                            thread::sleep(Duration::from_millis(5));
                        }
                        if count.load(Ordering::SeqCst) < wanted {
                            // They do not come together, and none is counted from here on.
                            count.fetch_sub(1, Ordering::SeqCst);
                        }
                    });
                });
                thread::spawn(move || pass(server, client, |_| {}));
            }
        });
        Self { endpoint, together }
    }

    /// How many were under way at the same time, as far as was wanted.
    pub(crate) fn together(&self) -> u64 {
        self.together.load(Ordering::SeqCst)
    }
}
