//! `public/auth`: who is there, proven by a signature, and the session that comes of it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Again, ClientId, Error, Method, Scope, Skew};
use crate::{
    key::{Message, Purpose, Stamp, SymmetricKey},
    secret::{AccessToken, ClientSecret, RefreshToken},
    signer::{Signed, Signer},
};

/// The scheme of a signed request. Documented for symmetric keys; a public script uses it for
/// asymmetric ones too. Header schemes are case-insensitive.
const SCHEME: &str = "deri-hmac-sha256";

/// Returns the `Authorization` header of a signed request (Deribit, "Authentication").
pub fn authorization(client_id: &ClientId, signed: &Signed) -> String {
    let Signed { stamp, signature } = signed;
    format!(
        "{SCHEME} id={client_id},ts={},nonce={},sig={signature}",
        stamp.timestamp, stamp.nonce
    )
}

/// A login: one of the three grants of `public/auth`.
///
/// For an asymmetric key only the signature works; a symmetric key's secret signs too, so that it
/// need not travel.
#[derive(Debug, Serialize)]
#[serde(tag = "grant_type", rename_all = "snake_case")]
pub enum Login<'a> {
    /// A signature over the moment and a nonce, valid for 60 seconds.
    ClientSignature {
        /// Whose key it is.
        client_id: &'a ClientId,
        /// Milliseconds since the Unix epoch, as signed.
        timestamp: u64,
        /// The nonce, as signed.
        nonce: String,
        /// base64url without padding of an asymmetric key; hex of a symmetric one.
        signature: String,
        /// The free text, as signed.
        data: String,
        /// What is asked for.
        #[serde(skip_serializing_if = "LoginScope::is_default")]
        scope: LoginScope<'a>,
    },
    /// A refresh token from an earlier login.
    RefreshToken {
        /// The token.
        #[serde(serialize_with = "the_refresh_token")]
        refresh_token: &'a RefreshToken,
    },
    /// The secret itself. Nothing in this crate sends it; bots of other people do.
    ClientCredentials {
        /// Whose key it is.
        client_id: &'a ClientId,
        /// The secret.
        #[serde(serialize_with = "the_client_secret")]
        client_secret: &'a ClientSecret,
        /// What is asked for.
        #[serde(skip_serializing_if = "LoginScope::is_default")]
        scope: LoginScope<'a>,
    },
}

impl<'a> Login<'a> {
    /// Asks a signer for a login.
    ///
    /// # Errors
    /// The signer's.
    pub fn signed_by(
        signer: &dyn Signer,
        client_id: &'a ClientId,
        data: String,
        scope: LoginScope<'a>,
    ) -> Result<Self, Error> {
        let signed = signer.sign(&Purpose::Login { data: data.clone() })?;
        Ok(Self::with_signature(
            client_id,
            &signed.stamp,
            signed.signature.to_string(),
            data,
            scope,
        ))
    }

    /// Signs a login with a symmetric key's secret, which stays here.
    ///
    /// # Errors
    /// [`Error::Key`] where the text cannot be signed.
    pub fn with_secret(
        secret: &ClientSecret,
        client_id: &'a ClientId,
        stamp: &Stamp,
        scope: LoginScope<'a>,
    ) -> Result<Self, Error> {
        let data = String::new();
        let message = Message::new(stamp, &Purpose::Login { data: data.clone() })?;
        let signature = SymmetricKey::new(secret).sign_hex(&message);
        Ok(Self::with_signature(
            client_id, stamp, signature, data, scope,
        ))
    }

    fn with_signature(
        client_id: &'a ClientId,
        stamp: &Stamp,
        signature: String,
        data: String,
        scope: LoginScope<'a>,
    ) -> Self {
        Self::ClientSignature {
            client_id,
            timestamp: stamp.timestamp.0,
            nonce: stamp.nonce.to_string(),
            signature,
            data,
            scope,
        }
    }
}

impl Method for Login<'_> {
    const NAME: &'static str = "public/auth";
    // Its nonce is good once: a fresh login is another value.
    const AGAIN: Again = Again::Never;
    type Reply = Session;
}

fn the_refresh_token<S: Serializer>(
    token: &RefreshToken,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(token.expose())
}

fn the_client_secret<S: Serializer>(
    secret: &ClientSecret,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}

/// What a login asks for: areas and a session.
///
/// Areas that are not mentioned keep the key's own level, so the scope is written out in full.
#[derive(Clone, Debug, Default)]
pub struct LoginScope<'a> {
    /// The areas; none asks for all that the key has.
    pub areas: Option<&'a Scope>,
    /// The session; without one each login uses up one of the sixteen a key has.
    pub session: Option<&'a SessionName>,
}

impl LoginScope<'_> {
    const fn is_default(&self) -> bool {
        self.areas.is_none() && self.session.is_none()
    }
}

impl fmt::Display for LoginScope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(areas) = self.areas {
            write!(f, "{}", areas.written_out())?;
        }
        if let Some(session) = self.session {
            let gap = if self.areas.is_some() { " " } else { "" };
            write!(f, "{gap}session:{}", session.0)?;
        }
        Ok(())
    }
}

impl Serialize for LoginScope<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The name of a session: 1 to 32 letters, digits, underscores or hyphens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SessionName(String);

impl SessionName {
    /// The session that this program uses where none is named.
    pub fn ours() -> Self {
        Self("derikey".into())
    }
}

impl FromStr for SessionName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let fits = (1..=32).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if !fits {
            return Err(Error::Identifier {
                what: "a session name",
                problem: "it must be 1 to 32 letters, digits, underscores or hyphens",
            });
        }
        Ok(Self(text.into()))
    }
}

/// A session: an access token, what it allows and how long it lives.
#[derive(Debug, Deserialize)]
pub struct Session {
    /// The token that private calls carry.
    #[serde(deserialize_with = "a_token")]
    pub access_token: AccessToken,
    /// What a new access token is had for.
    #[serde(default)]
    pub refresh_token: Option<RefreshToken>,
    /// Seconds until the access token expires.
    pub expires_in: u64,
    /// The areas that were granted, which may be fewer or more than were asked for.
    pub scope: Scope,
    /// By how much the clock that signed differs from the exchange's, where it said.
    #[serde(skip)]
    pub skew: Option<Skew>,
}

/// A token goes into headers and shell variables: it holds what RFC 6750 lets it hold (section
/// 2.1, b64token), and nothing that ends a line or begins a command.
fn a_token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<AccessToken, D::Error> {
    let token = AccessToken::deserialize(deserializer)?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
    if token.expose().is_empty() || !token.expose().bytes().all(fits) {
        return Err(de::Error::custom("not a token"));
    }
    Ok(token)
}
