//! The JSON-RPC envelope: what goes out, what comes back, and the challenge hidden in a result.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::{Again, Challenge, Error, Incoming, Method, Outcome, Refusal, refusal::words};
use crate::secret::append;

/// The exchange takes 32 kB (Deribit, error -32600).
const LARGEST_REQUEST: usize = 32_000;
/// Room to begin with.
const TYPICAL_REQUEST: usize = 512;
/// The documented one has 44 characters.
const LONGEST_CHALLENGE: usize = 1_000;
/// The longest wait that is believed, in seconds: a day.
const LONGEST_WAIT: u64 = 86_400;

#[derive(Serialize)]
struct Request<'a, M> {
    jsonrpc: &'static str,
    id: u64,
    method: &'static str,
    params: &'a M,
}

/// Returns the JSON-RPC request for a method, in a buffer that is wiped.
///
/// # Errors
/// [`Error::TooLarge`].
pub fn encode<M: Method>(id: u64, method: &M) -> Result<Zeroizing<Vec<u8>>, Error> {
    let request = Request {
        jsonrpc: "2.0",
        id,
        method: M::NAME,
        params: method,
    };
    let mut room = Bounded(Zeroizing::new(Vec::with_capacity(TYPICAL_REQUEST)));
    serde_json::to_writer(&mut room, &request).map_err(|_| Error::TooLarge { method: M::NAME })?;
    Ok(room.0)
}

/// Tells whether a method fits into a request, also with the answer to a second factor beside it.
///
/// # Errors
/// [`Error::TooLarge`].
pub fn must_fit<M: Method>(method: &M) -> Result<(), Error> {
    let longest = Answered {
        method,
        authorization_data: "000000",
        challenge: &"0".repeat(LONGEST_CHALLENGE),
    };
    encode(u64::MAX, &longest).map(drop)
}

/// Takes as much as the exchange does.
struct Bounded(Zeroizing<Vec<u8>>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if bytes.len() > LARGEST_REQUEST.saturating_sub(self.0.len()) {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        append(&mut self.0, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The same call again, with the second factor attached.
#[derive(Serialize)]
pub(super) struct Answered<'a, M> {
    #[serde(flatten)]
    pub(super) method: &'a M,
    pub(super) authorization_data: &'a str,
    pub(super) challenge: &'a str,
}

impl<M: Method> Method for Answered<'_, M> {
    const NAME: &'static str = M::NAME;
    const AGAIN: Again = Again::Never; // its code is good once
    type Reply = M::Reply;
}

/// An answer taken apart.
pub(super) struct Answer<R> {
    /// Whether the exchange says that it is the test network.
    pub(super) testnet: Option<bool>,
    /// When the exchange got the request: microseconds since the Unix epoch.
    pub(super) us_in: Option<u64>,
    pub(super) outcome: Result<Outcome<R>, Error>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<Fault<'a>>,
    #[serde(default)]
    testnet: Option<bool>,
    #[serde(borrow, rename = "usIn", default)]
    us_in: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Fault<'a> {
    code: i64,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// Takes an answer apart. The body decides, not the HTTP status: errors come with 400 and 401 too.
pub(super) fn decode<R: DeserializeOwned>(
    method: &'static str,
    id: u64,
    answer: &Incoming,
) -> Result<Answer<R>, Error> {
    let status = answer.status;
    let malformed = |problem| Error::Malformed {
        method,
        problem,
        status,
    };
    // What serde says quotes the text, and the text may be a token.
    let envelope: Envelope<'_> =
        serde_json::from_slice(&answer.body).map_err(|_| malformed("it is no JSON-RPC"))?;
    let testnet = envelope.testnet;
    let us_in = envelope.us_in.and_then(|number| number.get().parse().ok());
    // Some errors come without an id, or with null, which reads the same.
    if let Some(theirs) = envelope.id.map(RawValue::get)
        && theirs.trim_matches('"') != id.to_string()
    {
        return Err(malformed("it answers another request"));
    }
    let outcome = match (envelope.result, envelope.error) {
        (Some(_), Some(_)) => return Err(malformed("it holds both a result and an error")),
        (None, None) => return Err(malformed("it holds neither a result nor an error")),
        (None, Some(fault)) => Err(Error::Refused(refusal(method, &fault))),
        (Some(result), None) => match challenge(result) {
            Some(challenge) => challenge.map(Outcome::Challenged).map_err(malformed),
            None => serde_json::from_str(result.get())
                .map(Outcome::Done)
                .map_err(|_| malformed("its result is not what the documentation promises")),
        },
    };
    Ok(Answer {
        testnet,
        us_in,
        outcome,
    })
}

/// Looks for a challenge, which comes as a result and not as an error (Deribit, "Security keys").
fn challenge(result: &RawValue) -> Option<Result<Challenge, &'static str>> {
    #[derive(Deserialize)]
    struct Demand {
        #[serde(default)]
        security_key_authorization_required: bool,
    }
    let demand: Demand = serde_json::from_str(result.get()).ok()?;
    demand
        .security_key_authorization_required
        .then(|| serde_json::from_str(result.get()).map_err(|_| "its challenge cannot be read"))
}

fn refusal(method: &'static str, fault: &Fault<'_>) -> Refusal {
    // Kept as it came: a reply that quotes what was sent is not copied about.
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Data<'a> {
        #[serde(borrow)]
        reason: Option<&'a RawValue>,
        #[serde(borrow)]
        param: Option<&'a RawValue>,
        #[serde(borrow)]
        wait: Option<&'a RawValue>,
    }
    let data: Data<'_> = fault
        .data
        .and_then(|data| serde_json::from_str(data.get()).ok())
        .unwrap_or_default();
    Refusal {
        method,
        // One that no documented code is like may be an echo of what was sent.
        code: if (-99_999..=99_999).contains(&fault.code) {
            fault.code
        } else {
            0
        },
        message: fault.message.and_then(spoken),
        reason: data.reason.and_then(spoken),
        param: data.param.and_then(spoken),
        wait: data
            .wait
            .and_then(|wait| wait.get().parse::<u64>().ok())
            .map(|seconds| seconds.min(LONGEST_WAIT)),
    }
}

/// Returns a remote string if it is words and nothing else; words need no escapes.
fn spoken(value: &RawValue) -> Option<String> {
    let text = value.get().strip_prefix('"')?.strip_suffix('"')?;
    words(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;

    fn read(body: &str) -> Result<Outcome<u64>, Error> {
        let answer = Incoming {
            status: 200,
            body: Zeroizing::new(body.into()),
        };
        decode::<u64>("public/get_time", 7, &answer).and_then(|answer| answer.outcome)
    }

    #[derive(Serialize)]
    struct Said(String);

    impl Method for Said {
        const NAME: &'static str = "public/say";
        const AGAIN: Again = Again::Never;
        type Reply = u64;
    }

    #[test]
    fn a_request_may_be_as_long_as_the_exchange_takes_it_and_no_longer() {
        let say = |length| encode(7, &Said("x".repeat(length)));
        let room = 32_000 - say(0).unwrap().len();
        assert_eq!(say(room).unwrap().len(), 32_000);
        assert!(matches!(say(room + 1), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn what_must_fit_leaves_room_for_a_second_factor() {
        #[derive(Serialize)]
        struct Told {
            text: String,
        }
        impl Method for Told {
            const NAME: &'static str = "public/say";
            const AGAIN: Again = Again::Never;
            type Reply = u64;
        }
        let told = |length| Told {
            text: "x".repeat(length),
        };
        let fits = |length| must_fit(&told(length)).is_ok();
        let lengths: Vec<usize> = (0..32_000).collect();
        let longest = lengths.partition_point(|length| fits(*length)) - 1;
        let alone = encode(u64::MAX, &told(longest)).unwrap().len();
        assert!((30_900..31_000).contains(&alone), "{alone}");
    }

    #[test]
    fn an_answer_must_be_one() {
        assert!(matches!(
            read(r#"{"id":7,"result":5}"#),
            Ok(Outcome::Done(5))
        ));
        assert!(matches!(
            read(r#"{"id":"7","result":5}"#),
            Ok(Outcome::Done(5))
        ));
        assert!(matches!(read(r#"{"result":5}"#), Ok(Outcome::Done(5))));
        for body in [
            "",
            "null",
            "[]",
            "{}",
            "\u{feff}{\"id\":7,\"result\":5}",
            r#"{"id":8,"result":5}"#,
            r#"{"id":7,"result":NaN}"#,
            r#"{"id":7,"result":"5"}"#,
            r#"{"id":7,"result":5,"result":6}"#,
            r#"{"id":7,"result":5,"error":{"code":1}}"#,
            r#"{"id":7,"result":5} trailing"#,
            r#"{"id":7,"result":{"security_key_authorization_required":true}}"#,
        ] {
            assert!(matches!(read(body), Err(Error::Malformed { .. })), "{body}");
        }
        let deep = format!(
            r#"{{"id":7,"result":{}{}}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        assert!(matches!(read(&deep), Err(Error::Malformed { .. })));
    }

    #[test]
    fn a_refusal_keeps_its_data_and_no_foreign_text() {
        let body = r#"{"id":null,"error":{"code":12998,"message":"token 123456","data":{"reason":"x_y","param":7,"wait":9}}}"#;
        let Err(Error::Refused(refusal)) = read(body) else {
            panic!("not refused")
        };
        assert_eq!(
            (refusal.code, refusal.message, refusal.wait),
            (12998, None, Some(9))
        );
        assert_eq!(
            (refusal.reason.as_deref(), refusal.param),
            (Some("x_y"), None)
        );
    }
}
