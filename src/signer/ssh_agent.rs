//! Keys that an ssh-agent holds: in memory, in a TPM, in a token.
//!
//! An agent's signatures are over the bytes that it is given, as Deribit's are: Ed25519, and
//! `rsa-sha2-256` for RSA. The protocol is that of draft-ietf-sshm-ssh-agent, of which two
//! questions are needed here.

use std::{
    fmt,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use super::{Error, Signed, Signer, Stamper};
use crate::key::{self, Fingerprint, Message, PublicKey, Purpose, Signature, SshKey, ssh_string};

/// How long an agent may take: somebody may have to type a PIN or touch a token.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest answer that is read; OpenSSH's own limit.
const LONGEST: u32 = 256 * 1024;

const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
/// Asks for `rsa-sha2-256` where the key is RSA.
const RSA_SHA2_256: u32 = 2;

/// Which of an agent's keys is meant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Wanted {
    /// As `ssh-add -l` shows it: `SHA256:` and base64.
    Ssh(String),
    /// As Deribit shows it.
    Deribit(Fingerprint),
}

impl Wanted {
    fn is(&self, blob: &[u8]) -> bool {
        match self {
            Self::Ssh(text) => SshKey::fingerprint_of(blob) == *text,
            Self::Deribit(fingerprint) => {
                SshKey::read(blob).is_ok_and(|key| key.public().fingerprint() == *fingerprint)
            }
        }
    }
}

impl FromStr for Wanted {
    type Err = key::Error;

    fn from_str(text: &str) -> Result<Self, key::Error> {
        match text.strip_prefix("SHA256:") {
            Some(digest)
                if digest.len() == 43
                    && digest
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"+/".contains(&b)) =>
            {
                Ok(Self::Ssh(text.to_owned()))
            }
            Some(_) => Err(key::Error::Fingerprint),
            None => text.parse().map(Self::Deribit),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ssh(text) => f.write_str(text),
            Self::Deribit(fingerprint) => fmt::Display::fmt(fingerprint, f),
        }
    }
}

/// A key that an ssh-agent holds.
#[derive(Debug)]
pub struct SshAgentSigner<S> {
    socket: PathBuf,
    key: SshKey,
    stamper: S,
}

impl<S> SshAgentSigner<S> {
    /// Asks the agent behind a socket for one of its keys.
    ///
    /// # Errors
    /// [`Error::Unreachable`]; [`Error::Refused`] where it has no such key; [`Error::Key`] for one
    /// that Deribit does not take, such as a FIDO key.
    pub fn find(socket: &Path, wanted: &Wanted, stamper: S) -> Result<Self, Error> {
        let answer = ask(socket, IDENTITIES_ANSWER, &[REQUEST_IDENTITIES])?;
        let keys = identities(&answer).ok_or_else(unreadable)?;
        let Some(blob) = keys.iter().find(|blob| wanted.is(blob)) else {
            let reason = match keys.len() {
                0 => "the ssh-agent holds no key, or is locked".into(),
                n => format!("none of the {n} keys of the ssh-agent is {wanted}"),
            };
            return Err(Error::Refused { reason });
        };
        Ok(Self {
            socket: socket.into(),
            key: SshKey::read(blob)?,
            stamper,
        })
    }
}

impl<S: Stamper> Signer for SshAgentSigner<S> {
    fn public_key(&self) -> &PublicKey {
        self.key.public()
    }

    fn waits(&self) -> bool {
        true
    }

    fn sign(&self, purpose: &Purpose) -> Result<Signed, Error> {
        let stamp = self.stamper.stamp()?;
        let message = Message::new(&stamp, purpose)?;
        let signature = self.sign_bytes(message.as_bytes())?;
        // What another program hands over is looked at before it is passed on.
        self.key.public().verify(&message, &signature)?;
        Ok(Signed { stamp, signature })
    }
}

impl<S> SshAgentSigner<S> {
    fn sign_bytes(&self, message: &[u8]) -> Result<Signature, Error> {
        let mut request = vec![SIGN_REQUEST];
        put(&mut request, self.key.blob())?;
        put(&mut request, message)?;
        request.extend_from_slice(&RSA_SHA2_256.to_be_bytes());
        let answer = ask(&self.socket, SIGN_RESPONSE, &request)?;
        let mut rest = answer.as_slice();
        let blob = ssh_string(&mut rest).filter(|_| rest.is_empty());
        Ok(self.key.signature(blob.ok_or_else(unreadable)?)?)
    }
}

/// Asks one question, and returns the answer without its type.
fn ask(socket: &Path, wanted: u8, request: &[u8]) -> Result<Vec<u8>, Error> {
    let (kind, answer) = exchange(socket, request).map_err(Error::Unreachable)?;
    if kind == wanted {
        return Ok(answer);
    }
    let reason = match wanted {
        SIGN_RESPONSE => {
            "the ssh-agent did not sign: it may be locked, the key may be limited to other uses, \
             or a confirmation was not given"
        }
        _ => "the ssh-agent does not list its keys",
    };
    Err(Error::Refused {
        reason: reason.into(),
    })
}

fn exchange(socket: &Path, request: &[u8]) -> io::Result<(u8, Vec<u8>)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let length = u32::try_from(request.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), request].concat())?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if !(1..=LONGEST).contains(&length) {
        return Err(io::Error::other("its answer has an impossible length"));
    }
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    let mut answer = Vec::new();
    let rest = u64::from(length) - 1;
    stream.take(rest).read_to_end(&mut answer)?;
    if u64::try_from(answer.len()).ok() != Some(rest) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let [kind] = kind;
    Ok((kind, answer))
}

fn unreadable() -> Error {
    Error::Unreachable(io::Error::other("its answer cannot be read"))
}

/// Returns the public keys of an answer; nothing where it is none.
fn identities(answer: &[u8]) -> Option<Vec<&[u8]>> {
    let (count, mut rest) = answer.split_first_chunk()?;
    let mut keys = Vec::new();
    for _ in 0..u32::from_be_bytes(*count) {
        keys.push(ssh_string(&mut rest)?);
        let _comment = ssh_string(&mut rest)?;
    }
    Some(keys)
}

fn put(request: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Error> {
    let length = u32::try_from(bytes.len()).map_err(|_| key::Error::Signature)?;
    request.extend_from_slice(&length.to_be_bytes());
    request.extend_from_slice(bytes);
    Ok(())
}
