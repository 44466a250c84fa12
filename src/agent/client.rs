//! The other end: a program that has an agent sign.

use std::{
    fmt,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use super::wire::Code;
use crate::{
    key::{Fingerprint, KeyName, Message, Nonce, PublicKey, Purpose, Signature, Stamp, Timestamp},
    secret::AccessToken,
    signer::{self, Signed, Signer},
};

/// The longest answer that is read.
const LONGEST_ANSWER: u64 = 4 * 1024 * 1024;
/// A signature's timestamp may be this far from our clock: it is the same clock.
const SKEW: u64 = 5_000;

/// Why an agent gave no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// It does not answer.
    #[error("the agent does not answer")]
    Unreachable(#[source] io::Error),
    /// It answers in no way that is documented.
    #[error("the agent's answer is not one of its protocol")]
    Unintelligible,
    /// It says no.
    #[error("the agent says no: {message}")]
    Refused {
        /// For programs.
        code: Code,
        /// For people; visible ASCII.
        message: String,
        /// What kind of failure a login ended with.
        reason: Option<String>,
    },
}

/// A connection to an agent.
pub struct Client {
    stream: Mutex<BufReader<UnixStream>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

/// A key that an agent holds, in its words.
#[derive(Debug, Deserialize)]
pub struct HeldKey {
    /// Its name.
    pub name: KeyName,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// Its public half, as PEM.
    pub public_key: String,
    /// Names it at login.
    pub client_id: String,
    /// Its network.
    pub network: String,
    /// The base address of a custom network.
    pub endpoint: Option<String>,
}

/// A token, as an agent gives it.
#[derive(Debug, Deserialize)]
pub struct Token {
    /// The token.
    pub access_token: AccessToken,
    /// Seconds that it still lives.
    pub expires_in: u64,
    /// When it ends, in RFC 3339.
    pub expires_at: String,
    /// What it allows.
    pub scope: String,
}

#[derive(Default, Serialize)]
struct Ask<'a> {
    op: &'a str,
    v: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    passphrase: Option<&'a str>,
}

impl Client {
    /// Connects to the agent at a path. An answer may take as long as `patience`.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`].
    pub fn connect(path: &Path, patience: Duration) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).map_err(ClientError::Unreachable)?;
        check_peer(&stream).map_err(ClientError::Unreachable)?;
        stream
            .set_read_timeout(Some(patience))
            .and_then(|()| stream.set_write_timeout(Some(patience)))
            .map_err(ClientError::Unreachable)?;
        Ok(Self {
            stream: Mutex::new(BufReader::new(stream)),
        })
    }

    /// Returns the key of a name, if the agent holds it.
    ///
    /// # Errors
    /// As [`status`](Self::status).
    pub fn key(&self, name: &KeyName) -> Result<Option<HeldKey>, ClientError> {
        #[derive(Deserialize)]
        struct List {
            keys: Vec<HeldKey>,
        }
        let list: List = self.ask(&Ask {
            op: "list",
            key: Some(name.as_str()),
            ..Ask::default()
        })?;
        Ok(list.keys.into_iter().find(|key| key.name == *name))
    }

    /// Returns a token of a key.
    ///
    /// # Errors
    /// As [`status`](Self::status).
    pub fn token(&self, name: &KeyName, scope: Option<&str>) -> Result<Token, ClientError> {
        self.ask(&Ask {
            op: "token",
            key: Some(name.as_str()),
            scope,
            ..Ask::default()
        })
    }

    /// Returns how the agent is.
    ///
    /// # Errors
    /// [`ClientError`], each of its kinds.
    pub fn status(&self) -> Result<serde_json::Value, ClientError> {
        self.simple("status", None)
    }

    /// Locks the agent with a passphrase.
    ///
    /// # Errors
    /// As [`status`](Self::status).
    pub fn lock(&self, passphrase: &str) -> Result<(), ClientError> {
        self.simple("lock", Some(passphrase)).map(drop)
    }

    /// Unlocks it with the same passphrase.
    ///
    /// # Errors
    /// As [`status`](Self::status).
    pub fn unlock(&self, passphrase: &str) -> Result<(), ClientError> {
        self.simple("unlock", Some(passphrase)).map(drop)
    }

    /// Ends the agent.
    ///
    /// # Errors
    /// As [`status`](Self::status).
    pub fn shutdown(&self) -> Result<(), ClientError> {
        self.simple("shutdown", None).map(drop)
    }

    fn simple(&self, op: &str, passphrase: Option<&str>) -> Result<serde_json::Value, ClientError> {
        self.ask(&Ask {
            op,
            passphrase,
            ..Ask::default()
        })
    }

    fn ask<T: DeserializeOwned>(&self, ask: &Ask<'_>) -> Result<T, ClientError> {
        #[derive(Deserialize)]
        struct Answer<T> {
            ok: bool,
            result: Option<T>,
            error: Option<Refusal>,
        }
        #[derive(Deserialize)]
        struct Refusal {
            code: Code,
            message: String,
            reason: Option<String>,
        }
        let ask = Ask {
            v: super::VERSION,
            ..*ask
        };
        let mut line = Zeroizing::new(Vec::with_capacity(super::LONGEST_LINE + 1));
        serde_json::to_writer(&mut *line, &ask).map_err(|_| ClientError::Unintelligible)?;
        line.push(b'\n');
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        // An agent that has no room answers before it is asked, and hangs up.
        let sent = stream.get_mut().write_all(&line);
        let mut answer = Zeroizing::new(Vec::with_capacity(16 * 1024));
        let read = (&mut *stream)
            .take(LONGEST_ANSWER)
            .read_until(b'\n', &mut answer);
        drop(stream);
        if answer.last() != Some(&b'\n') {
            let gone = || io::ErrorKind::UnexpectedEof.into();
            let error = sent.err().or(read.err()).unwrap_or_else(gone);
            return Err(ClientError::Unreachable(error));
        }
        let answer: Answer<T> =
            serde_json::from_slice(&answer).map_err(|_| ClientError::Unintelligible)?;
        match answer {
            Answer {
                ok: true,
                result: Some(result),
                ..
            } => Ok(result),
            Answer {
                ok: false,
                error: Some(refusal),
                ..
            } => Err(ClientError::Refused {
                code: refusal.code,
                message: tame(&refusal.message),
                reason: refusal.reason,
            }),
            _ => Err(ClientError::Unintelligible),
        }
    }
}

/// Whoever listens is us, or root: a socket that a service manager opened is root's.
#[cfg(target_os = "linux")]
fn check_peer(stream: &UnixStream) -> io::Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(stream)?;
    if peer.uid.is_root() || peer.uid == rustix::process::geteuid() {
        return Ok(());
    }
    Err(io::ErrorKind::PermissionDenied.into())
}

#[cfg(not(target_os = "linux"))]
fn check_peer(_: &UnixStream) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// What a stranger at the socket says could play tricks on a terminal.
fn tame(text: &str) -> String {
    let shown = |c: char| {
        if c == ' ' || c.is_ascii_graphic() {
            c
        } else {
            '?'
        }
    };
    text.chars().take(512).map(shown).collect()
}

/// A key that an agent holds, as a [`Signer`].
///
/// What the agent returns is checked against the public key before it is passed on.
#[derive(Debug)]
pub struct AgentSigner {
    client: Client,
    name: KeyName,
    public: PublicKey,
    now: fn() -> u64,
}

impl AgentSigner {
    /// Takes a connection in; `now` is our clock, in milliseconds since 1970.
    pub fn new(client: Client, name: KeyName, public: PublicKey, now: fn() -> u64) -> Self {
        Self {
            client,
            name,
            public,
            now,
        }
    }

    /// Returns the connection.
    pub fn client(&self) -> &Client {
        &self.client
    }

    fn ask(&self, purpose: &Purpose) -> Result<Signed, ClientError> {
        #[derive(Deserialize)]
        struct Login {
            params: Params,
        }
        #[derive(Deserialize)]
        struct Params {
            timestamp: u64,
            nonce: Nonce,
            signature: String,
        }
        let key = Some(self.name.as_str());
        let Params {
            timestamp,
            nonce,
            signature,
        } = match purpose {
            Purpose::Login { .. } => {
                let login: Login = self.client.ask(&Ask {
                    op: "auth",
                    key,
                    ..Ask::default()
                })?;
                login.params
            }
            Purpose::Request { method, uri, body } => self.client.ask(&Ask {
                op: "rest",
                key,
                method: Some(method),
                path: Some(uri),
                body: (!body.is_empty()).then_some(body),
                ..Ask::default()
            })?,
        };
        let signature: Signature = signature.parse().map_err(|_| ClientError::Unintelligible)?;
        if timestamp.abs_diff((self.now)()) > SKEW {
            return Err(ClientError::Unintelligible);
        }
        Ok(Signed {
            stamp: Stamp {
                timestamp: Timestamp(timestamp),
                nonce,
            },
            signature,
        })
    }
}

impl Signer for AgentSigner {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn waits(&self) -> bool {
        true
    }

    fn sign(&self, purpose: &Purpose) -> Result<Signed, signer::Error> {
        if matches!(purpose, Purpose::Login { data } if !data.is_empty()) {
            return Err(signer::Error::Refused {
                reason: "an agent signs no data of the caller's".into(),
            });
        }
        let signed = self.ask(purpose).map_err(|error| match error {
            ClientError::Refused { message, .. } => signer::Error::Refused { reason: message },
            ClientError::Unreachable(source) => signer::Error::Unreachable(source),
            ClientError::Unintelligible => {
                signer::Error::Unreachable(io::ErrorKind::InvalidData.into())
            }
        })?;
        let message = Message::new(&signed.stamp, purpose)?;
        self.public.verify(&message, &signed.signature)?;
        Ok(signed)
    }
}
