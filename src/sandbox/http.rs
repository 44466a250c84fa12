//! HTTP on loopback, and the faults that happen on the wire.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, LOCATION};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep};

use super::fault::{Fault, Kind};
use super::lies;
use super::proof::Seed;
use super::rpc::{self, Call, Head, Refusal};
use super::rules::{self, Demand, Turn};
use super::state::{self, Ledger};

/// How far ahead [`Kind::ClockSkew`] is, in milliseconds.
const SKEW: u64 = 300_000;

/// Longer than anyone should wait for an answer.
const SLOW: Duration = Duration::from_secs(20);

/// Time between the bytes of [`Kind::Drip`].
const TICK: Duration = Duration::from_millis(200);

/// More than the 1 MiB that a careful client reads.
const HUGE: usize = 2 * 1024 * 1024;

/// One exchange: its account, its second factor and its faults.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) ledger: Ledger,
    pub(super) seed: Option<Seed>,
    pub(super) faults: Vec<Armed>,
    pub(super) address: SocketAddr,
}

/// A fault with the number of calls that it has seen.
#[derive(Debug)]
pub(super) struct Armed {
    pub(super) fault: Fault,
    pub(super) seen: AtomicU64,
}

/// Ends a connection without a word.
#[derive(Debug)]
struct Hangup;

/// A body as the wire gets it.
enum Wire {
    Whole(Option<Bytes>),
    /// Some bytes of a longer body, and then the end of the connection.
    Half(Option<Bytes>, Pin<Box<Sleep>>),
    /// A byte at a time, and blanks when there are no more.
    Drip(Bytes, Pin<Box<Sleep>>),
}

/// Serves until it is aborted; its connections end with it.
pub(super) async fn serve(server: Arc<Server>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                connections.spawn(converse(Arc::clone(&server), stream, peer.ip()));
            }
            // Out of descriptors, most likely: others are about to be closed.
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn converse(server: Arc<Server>, stream: TcpStream, peer: IpAddr) {
    let service = service_fn(|request| reply(&server, peer, request));
    // A connection that breaks is the client's business or one of our faults.
    let _broken = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn reply(
    server: &Server,
    peer: IpAddr,
    request: Request<Incoming>,
) -> Result<Response<Wire>, Hangup> {
    let (parts, body) = request.into_parts();
    let header = |name: HeaderName| {
        parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let head = Head {
        verb: parts.method.as_str(),
        uri: parts.uri.path_and_query().map_or("/", |uri| uri.as_str()),
        content_type: header(CONTENT_TYPE),
        authorization: header(AUTHORIZATION),
        peer,
    };
    let arrived = state::now_us();
    let body = match Limited::new(body, rpc::BODY_LIMIT).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            let (status, envelope) =
                rpc::envelope(None, Err(Refusal::too_large()), arrived, state::now_us());
            return json_response(status, &envelope);
        }
        Err(_) => return Err(Hangup),
    };
    match Call::read(&head, &body) {
        None => plain(404, "text/plain", "Not Found"),
        Some(Err((id, refusal))) => {
            let (status, envelope) =
                rpc::envelope(id.as_ref(), Err(refusal), arrived, state::now_us());
            json_response(status, &envelope)
        }
        Some(Ok(call)) => carry_out(server, &call, arrived).await,
    }
}

async fn carry_out(server: &Server, call: &Call, arrived: u64) -> Result<Response<Wire>, Hangup> {
    let kinds = server.kinds(&call.method);
    let mut outcome = None;
    for kind in &kinds {
        match kind {
            Kind::DropBefore => return Err(Hangup),
            Kind::Http500 => return plain(500, "text/plain", "Internal Server Error"),
            Kind::Http502 => return plain(502, "text/html", BAD_GATEWAY),
            Kind::Redirect => return server.redirect(call),
            Kind::RateLimit => outcome = Some(Refusal::wait(10028, "too_many_requests", 1)),
            Kind::Maintenance => outcome = Some(Refusal::new(11051, "system_maintenance")),
            Kind::Unauthorized => {
                outcome = Some(Refusal::because(13009, "unauthorized", "invalid_token"))
            }
            Kind::Echo => outcome = Some(echo(call)),
            _ => {}
        }
    }
    let skew = if kinds.contains(&Kind::ClockSkew) {
        SKEW
    } else {
        0
    };
    let outcome = match outcome {
        Some(refusal) => Err(refusal),
        None => server.apply(call, &kinds, skew),
    };
    let shifted = |us: u64| us.saturating_add(skew * 1000);
    let (status, mut envelope) = rpc::envelope(
        call.id.as_ref(),
        outcome,
        shifted(arrived),
        shifted(state::now_us()),
    );
    for kind in &kinds {
        lies::distort(*kind, &mut envelope);
    }
    for kind in &kinds {
        match kind {
            Kind::DropAfter => return Err(Hangup),
            Kind::After500 => return plain(500, "text/plain", "Internal Server Error"),
            Kind::Garbage => {
                return respond(
                    200,
                    "application/json",
                    Bytes::from_static(b"\x1f\x8b\x08\x00{\"jsonrpc\":\xff\xfe"),
                );
            }
            Kind::Truncate => return truncated(status, &encode(&envelope)),
            Kind::Drip => {
                return build(
                    status,
                    "application/json",
                    Wire::Drip(encode(&envelope), Box::pin(sleep(TICK))),
                );
            }
            Kind::Slow => sleep(SLOW).await,
            Kind::Huge => {
                envelope.insert("padding".to_owned(), json!("x".repeat(HUGE)));
            }
            _ => {}
        }
    }
    json_response(status, &envelope)
}

impl Server {
    /// The faults that strike this call.
    fn kinds(&self, method: &str) -> Vec<Kind> {
        let meant = self
            .faults
            .iter()
            .filter(|armed| armed.fault.matches(method));
        let struck = meant.filter(|armed| {
            let count = armed.seen.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            armed.fault.nth.is_none_or(|nth| nth == count)
        });
        struck.map(|armed| armed.fault.kind).collect()
    }

    fn apply(&self, call: &Call, kinds: &[Kind], skew: u64) -> Result<Value, Refusal> {
        let demand = if kinds.contains(&Kind::WebauthnOnly) {
            Demand::Hardware
        } else if kinds.contains(&Kind::Challenge) {
            Demand::Always
        } else {
            Demand::Usual
        };
        let outcome = self.ledger.with(|state| {
            let now = state::now().saturating_add(skew);
            rules::answer(&mut Turn {
                state,
                call,
                now,
                seed: self.seed.as_ref(),
                demand,
            })
        });
        outcome.unwrap_or_else(|error| Err(Refusal::internal(error)))
    }

    fn redirect(&self, call: &Call) -> Result<Response<Wire>, Hangup> {
        let mut elsewhere = self.address;
        elsewhere.set_port(self.address.port().checked_add(1).unwrap_or(1024));
        let mut response = plain(307, "text/plain", "Temporary Redirect")?;
        let location = format!("http://{elsewhere}{}", call.uri)
            .parse()
            .map_err(|_| Hangup)?;
        response.headers_mut().insert(LOCATION, location);
        Ok(response)
    }
}

const BAD_GATEWAY: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n";

/// An error that a careless client would print with all that is in it.
fn echo(call: &Call) -> Refusal {
    let params = Value::Object(call.params.clone()).to_string();
    let quoted = format!("\u{1b}[2J\u{1b}[31mother_error <{params}>\u{1b}]0;owned\u{7}\u{1b}[0m");
    Refusal {
        data: Some(json!({ "reason": quoted })),
        ..Refusal::new(11031, &quoted)
    }
}

fn truncated(status: u16, body: &Bytes) -> Result<Response<Wire>, Hangup> {
    let half = body.slice(..body.len() / 2);
    // A moment later, so that the first half is really sent.
    let then = Box::pin(sleep(Duration::from_millis(50)));
    let mut response = build(status, "application/json", Wire::Half(Some(half), then))?;
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, body.len().into());
    Ok(response)
}

fn encode(envelope: &Map<String, Value>) -> Bytes {
    // A map of JSON values has no way to fail; were there one, an empty body
    // would say so to any client.
    Bytes::from(serde_json::to_vec(envelope).unwrap_or_default())
}

fn json_response(status: u16, envelope: &Map<String, Value>) -> Result<Response<Wire>, Hangup> {
    respond(status, "application/json", encode(envelope))
}

fn plain(status: u16, kind: &'static str, text: &'static str) -> Result<Response<Wire>, Hangup> {
    respond(status, kind, Bytes::from_static(text.as_bytes()))
}

fn respond(status: u16, kind: &'static str, body: Bytes) -> Result<Response<Wire>, Hangup> {
    build(status, kind, Wire::Whole(Some(body)))
}

fn build(status: u16, kind: &'static str, body: Wire) -> Result<Response<Wire>, Hangup> {
    let status = StatusCode::from_u16(status).map_err(|_| Hangup)?;
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, kind)
        .body(body)
        .map_err(|_| Hangup)
}

impl Body for Wire {
    type Data = Bytes;
    type Error = Hangup;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Hangup>>> {
        match self.get_mut() {
            Self::Whole(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            Self::Half(half, then) => match half.take() {
                Some(half) => Poll::Ready(Some(Ok(Frame::data(half)))),
                None => then.as_mut().poll(context).map(|()| Some(Err(Hangup))),
            },
            Self::Drip(rest, tick) => tick.as_mut().poll(context).map(|()| {
                *tick = Box::pin(sleep(TICK));
                // The last byte never comes: it would complete the answer.
                let byte = if rest.len() > 1 {
                    rest.split_to(1)
                } else {
                    Bytes::from_static(b" ")
                };
                Some(Ok(Frame::data(byte)))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(Some(body)) => u64::try_from(body.len())
                .map(SizeHint::with_exact)
                .unwrap_or_default(),
            Self::Whole(None) => SizeHint::with_exact(0),
            _ => SizeHint::default(),
        }
    }
}

impl fmt::Display for Hangup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("connection closed on purpose")
    }
}

impl std::error::Error for Hangup {}
