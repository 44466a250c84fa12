//! Somebody in between who does to one call what a broken network, a confused box on the way or a
//! hostile exchange would do; all others go through.

use std::{
    collections::BTreeSet,
    io::{self, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use rustix::net::sockopt::set_socket_linger;
use serde_json::{Value, json};

use super::{kills::message, support::Server};

/// What is done to a call; the connection goes on after it, or ends.
pub(crate) type Deed = dyn Fn(&mut Call) -> io::Result<ControlFlow<()>> + Send + Sync;

/// What a deed comes to.
pub(crate) type Done = io::Result<ControlFlow<()>>;

/// A call that is on its way.
pub(crate) struct Call {
    /// How many calls of the method were struck before this one.
    pub(crate) nth: usize,
    pub(crate) body: Value,
    request: Vec<u8>,
    client: TcpStream,
    door: Arc<Door>,
}

impl Call {
    pub(crate) fn method(&self) -> &str {
        self.body["method"].as_str().unwrap_or_default()
    }

    /// Lets the exchange carry the call out, and returns its answer.
    pub(crate) fn carry_out(&self) -> io::Result<Value> {
        let answer = self.door.ask(&self.request)?;
        let at = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        Ok(serde_json::from_slice(&answer[at + 4..])?)
    }

    /// Sends bytes as they are.
    pub(crate) fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.client.write_all(bytes)
    }

    /// Answers with a body under status 200, and leaves the connection as it is.
    pub(crate) fn answer(&mut self, body: &str) -> Done {
        self.reply("200 OK", "Content-Type: application/json\r\n", body)
    }

    /// Answers with an error.
    pub(crate) fn refuse(&mut self, code: i64) -> Done {
        let error = json!({"code": code, "message": "refused"});
        let answer = json!({"jsonrpc": "2.0", "id": self.body["id"], "error": error});
        self.answer(&answer.to_string())
    }

    /// Lets the exchange carry the call out, and tells something else of what came of it.
    pub(crate) fn retell(&mut self, change: impl FnOnce(&mut Value)) -> Done {
        let mut answer = self.carry_out()?;
        change(&mut answer["result"]);
        self.answer(&answer.to_string())
    }

    /// Answers, and leaves the connection as it is.
    pub(crate) fn reply(&mut self, status: &str, headers: &str, body: &str) -> Done {
        let length = body.len();
        self.say(
            format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
                .as_bytes(),
        )?;
        Ok(ControlFlow::Continue(()))
    }

    /// Ends the connection with a reset and not with an end.
    pub(crate) fn reset(&self) -> Done {
        set_socket_linger(&self.client, Some(Duration::ZERO))?;
        Ok(ControlFlow::Break(()))
    }

    /// Says something over and over until nobody listens any more.
    pub(crate) fn for_ever(&mut self, piece: &[u8], pause: Duration) -> Done {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(30) {
            self.client.write_all(piece)?;
            thread::sleep(pause);
        }
        Ok(ControlFlow::Break(()))
    }

    /// Says nothing until nobody waits any more.
    pub(crate) fn hang(&mut self) -> Done {
        let _ = self.client.read(&mut [0]);
        Ok(ControlFlow::Break(()))
    }

    /// Stops listening; what is open stays open.
    pub(crate) fn shut_the_door(&self) {
        self.door.shut();
    }
}

/// Stands between the program and an exchange.
pub(crate) struct Meddler {
    door: Arc<Door>,
}

#[derive(Default)]
struct State {
    orders: Vec<Order>,
    tokens: BTreeSet<String>,
    listener: Option<TcpListener>,
    /// Those who stand in the queue, so that nobody else gets in.
    crowd: Vec<TcpStream>,
    /// Whether the test is over.
    gone: bool,
}

/// What is to be done to the calls of a method, and how often it was.
struct Order {
    method: &'static str,
    deed: Arc<Deed>,
    struck: usize,
}

struct Door {
    upstream: String,
    address: SocketAddr,
    state: Mutex<State>,
}

impl Door {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn shut(&self) {
        self.state().listener = None;
    }

    /// Passes a request on.
    fn ask(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut server = TcpStream::connect(&self.upstream)?;
        server.write_all(request)?;
        let (_, answer) = message(&mut BufReader::new(server)).ok_or(io::ErrorKind::BrokenPipe)?;
        self.remember_tokens(&answer);
        Ok(answer)
    }

    fn listen(self: &Arc<Self>) {
        loop {
            let next = {
                let state = self.state();
                if state.gone {
                    return;
                }
                let open = state.listener.as_ref().filter(|_| state.crowd.is_empty());
                open.and_then(|listener| listener.accept().ok())
            };
            let Some((client, _)) = next else {
                thread::sleep(Duration::from_millis(2));
                continue;
            };
            client.set_nonblocking(false).unwrap();
            let door = Arc::clone(self);
            thread::spawn(move || door.carry(client));
        }
    }

    /// Carries the requests of one connection over.
    fn carry(self: &Arc<Self>, mut client: TcpStream) -> Option<()> {
        // An answer waits for no acknowledgement of the one before.
        client.set_nodelay(true).ok()?;
        let mut reader = BufReader::new(client.try_clone().ok()?);
        loop {
            let (_, request) = message(&mut reader)?;
            let at = request.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
            let body: Value = serde_json::from_slice(request.get(at..)?).ok()?;
            let method = body["method"].as_str()?.to_owned();
            let deed = {
                let mut state = self.state();
                let order = state.orders.iter_mut().find(|order| order.method == method);
                order.map(|order| {
                    order.struck += 1;
                    (Arc::clone(&order.deed), order.struck - 1)
                })
            };
            if let Some((deed, nth)) = deed {
                let mut call = Call {
                    nth,
                    body,
                    request,
                    client: client.try_clone().ok()?,
                    door: Arc::clone(self),
                };
                if deed(&mut call).ok()?.is_break() {
                    return None;
                }
                continue;
            }
            let answer = self.ask(&request).ok()?;
            client.write_all(&answer).ok()?;
            if String::from_utf8_lossy(&request).contains("Connection: close") {
                return None;
            }
        }
    }

    fn remember_tokens(&self, answer: &[u8]) {
        let text = String::from_utf8_lossy(answer);
        for field in ["access_token", "refresh_token"] {
            let rest = text.split_once(&format!("\"{field}\":\"")).map(|(_, r)| r);
            let token = rest.and_then(|rest| rest.split('"').next());
            self.state().tokens.extend(token.map(str::to_owned));
        }
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        // Tests share a process where one program runs them all.
        if let Ok(mut state) = self.door.state.lock() {
            state.gone = true;
        }
    }
}

impl Meddler {
    /// Stands before `server`, which is from then on reached through it; meddles with nothing yet.
    pub(crate) fn before(server: &mut Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let door = Arc::new(Door {
            upstream: server.address(),
            address,
            state: Mutex::default(),
        });
        server.endpoint = format!("http://{address}/api/v2");
        let meddler = Self { door };
        meddler.open(listener);
        let inside = Arc::clone(&meddler.door);
        thread::spawn(move || inside.listen());
        meddler
    }

    fn open(&self, listener: TcpListener) {
        listener.set_nonblocking(true).unwrap();
        self.door.state().listener = Some(listener);
    }

    /// Does something to every call of a method from now on.
    pub(crate) fn strike(&self, method: &'static str, deed: Arc<Deed>) {
        self.door.state().orders.push(Order {
            method,
            deed,
            struck: 0,
        });
    }

    /// Listens no more: whoever comes is refused.
    pub(crate) fn shut(&self) {
        self.door.shut();
    }

    /// Lets nobody in, and refuses nobody either: whoever comes waits for an answer to the first
    /// packet.
    pub(crate) fn deafen(&self) {
        let mut state = self.door.state();
        rustix::net::listen(state.listener.as_ref().unwrap(), 0).unwrap();
        let patience = Duration::from_millis(100);
        while let Ok(one) = TcpStream::connect_timeout(&self.door.address, patience) {
            state.crowd.push(one);
        }
        assert!((1..16).contains(&state.crowd.len()));
    }

    /// Lets everything through again.
    pub(crate) fn calm(&self) {
        let mut state = self.door.state();
        state.orders.clear();
        state.crowd.clear();
        match &state.listener {
            Some(listener) => rustix::net::listen(listener, 128).unwrap(),
            None => {
                drop(state);
                self.open(bind_again(self.door.address));
            }
        }
    }

    /// How many calls were struck since the last calm.
    pub(crate) fn struck(&self) -> usize {
        self.door.state().orders.iter().map(|o| o.struck).sum()
    }

    /// Every token that was given out.
    pub(crate) fn tokens(&self) -> Vec<String> {
        self.door.state().tokens.iter().cloned().collect()
    }
}

/// Listens where it did before; somebody else may hold the port for a moment.
fn bind_again(address: SocketAddr) -> TcpListener {
    (0..40)
        .find_map(|_| {
            let listener = TcpListener::bind(address).ok();
            if listener.is_none() {
                thread::sleep(Duration::from_millis(250));
            }
            listener
        })
        .expect("the address stays taken")
}
