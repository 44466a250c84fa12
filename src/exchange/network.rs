//! Which exchange is meant, and where it is.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Error, second_factor::Challenge};

/// An exchange that a key belongs to, for ever.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Network {
    /// The exchange inside this program; its keys are worth nothing.
    Sandbox,
    /// test.deribit.com
    Test,
    /// www.deribit.com
    Production,
    /// Any other endpoint that speaks the protocol.
    Custom(Endpoint),
}

impl Network {
    /// Returns the word for it on the command line and in files.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
            Self::Test => "test",
            Self::Production => "prod",
            Self::Custom(_) => "custom",
        }
    }

    /// Returns the network of a name, and for a custom one its endpoint.
    ///
    /// # Errors
    /// [`Error::Identifier`] where there is no such network or the endpoint does not go with it.
    pub fn from_parts(name: &str, endpoint: Option<Endpoint>) -> Result<Self, Error> {
        let bad = |problem| Error::Identifier {
            what: "a network",
            problem,
        };
        match (name, endpoint) {
            ("sandbox", None) => Ok(Self::Sandbox),
            ("test", None) => Ok(Self::Test),
            ("prod", None) => Ok(Self::Production),
            ("custom", Some(endpoint)) => Ok(Self::Custom(endpoint)),
            ("custom", None) => Err(bad("a custom network needs an endpoint")),
            ("sandbox" | "test" | "prod", Some(_)) => {
                Err(bad("an endpoint goes with the custom network only"))
            }
            _ => Err(bad("there are sandbox, test, prod and custom")),
        }
    }

    /// Returns where it is; the sandbox has no fixed place.
    pub fn endpoint(&self) -> Option<Endpoint> {
        let fixed = |host: &str| Endpoint {
            url: format!("https://{host}/api/v2"),
            host: host.into(),
            loopback: false,
        };
        match self {
            Self::Sandbox => None,
            Self::Test => Some(fixed("test.deribit.com")),
            Self::Production => Some(fixed("www.deribit.com")),
            Self::Custom(endpoint) => Some(endpoint.clone()),
        }
    }

    /// Returns what the `testnet` of every answer must be, where that is known.
    const fn testnet(&self) -> Option<bool> {
        match self {
            Self::Sandbox | Self::Test => Some(true),
            Self::Production => Some(false),
            Self::Custom(_) => None,
        }
    }

    /// Refuses an answer that says it comes from another network.
    ///
    /// A custom network may be either kind, but not one in this answer and the other in the next.
    pub(super) fn check_testnet(&self, said: bool, said_before: Option<bool>) -> Result<(), Error> {
        match self.testnet().or(said_before) {
            Some(expected) if expected != said => Err(Error::WrongNetwork {
                problem: format!(
                    "an answer says testnet: {said}, and the {} network says {expected}",
                    self.name()
                ),
            }),
            _ => Ok(()),
        }
    }

    /// Refuses a challenge that is not for this network, before a code is asked for or sent.
    pub(super) fn check_challenge(
        &self,
        challenge: &Challenge,
        testnet: Option<bool>,
    ) -> Result<(), Error> {
        let Some(rp_id) = challenge.rp_id() else {
            return Ok(());
        };
        let fits = match (self, rp_id) {
            (Self::Sandbox | Self::Test, id) => id == "test.deribit.com",
            (Self::Production, id) => id == "www.deribit.com" || id == "deribit.com",
            (Self::Custom(_), "test.deribit.com") => testnet != Some(false),
            (Self::Custom(_), "www.deribit.com" | "deribit.com") => testnet == Some(false),
            (Self::Custom(endpoint), id) => endpoint.goes_by(id),
        };
        if fits {
            return Ok(());
        }
        Err(Error::ForeignChallenge {
            network: self.name(),
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Custom(endpoint) => write!(f, "custom ({endpoint})"),
            _ => f.write_str(self.name()),
        }
    }
}

/// The base address of an exchange: HTTPS, or HTTP to this machine itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Endpoint {
    url: String,
    host: String,
    loopback: bool,
}

impl Endpoint {
    /// Returns the address without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.url
    }

    /// Returns the host without the port.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Tells whether it is on this machine, where plain HTTP is allowed.
    pub const fn is_loopback(&self) -> bool {
        self.loopback
    }

    /// Returns the path of a method, which is what a signed request signs.
    pub fn path(&self, method: &str) -> String {
        let after_scheme = self.url.split_once("://").map_or("", |(_, rest)| rest);
        let base = after_scheme
            .find('/')
            .and_then(|at| after_scheme.get(at..))
            .unwrap_or("");
        format!("{base}/{method}")
    }

    /// Tells whether a relying-party id can be this host's. On this machine a name without a dot
    /// (`localhost`, `sandbox`) is nobody else's.
    fn goes_by(&self, rp_id: &str) -> bool {
        let parent = self
            .host
            .strip_suffix(rp_id)
            .is_some_and(|head| head.ends_with('.') && rp_id.contains('.'));
        let local = self.loopback
            && (!rp_id.contains('.') || rp_id.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()));
        rp_id == self.host || parent || local
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |problem: &'static str| Error::Endpoint { problem };
        if !text.bytes().all(|b| b.is_ascii_graphic()) || text.len() > 256 {
            return Err(bad("it must be at most 256 visible ASCII characters"));
        }
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| bad("it does not begin with https://"))?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if rest.contains(['?', '#', '@', '\\', '%'])
            || path.split('/').any(|part| part == "." || part == "..")
        {
            return Err(bad("it must be only https://HOST[:PORT]/PATH"));
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        if port.is_some_and(|p| p.parse::<u16>().is_err() || !p.bytes().all(|b| b.is_ascii_digit()))
        {
            return Err(bad("its port is not a number up to 65535"));
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let address = bare.parse::<IpAddr>().ok();
        let named = !host.is_empty()
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
        if !named && address.is_none() {
            return Err(bad("it has no host that can be one"));
        }
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        if name == "deribit.com" || name.ends_with(".deribit.com") {
            return Err(bad(
                "it is the exchange itself, which is --network prod or test: whom they trust cannot be changed",
            ));
        }
        let loopback = host == "localhost" || address.is_some_and(|a| a.is_loopback());
        match scheme {
            "https" => {}
            "http" if loopback => {}
            "http" => return Err(bad("plain HTTP goes to this machine only; use https://")),
            _ => return Err(bad("it does not begin with https://")),
        }
        Ok(Self {
            url: text.trim_end_matches('/').into(),
            host: bare.to_ascii_lowercase(),
            loopback,
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.url)
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn endpoints_are_https_or_on_this_machine() {
        for good in [
            "https://deribit.com.example/api/v2",
            "https://notderibit.com/api/v2",
            "https://gateway.example:8443/api/v2/",
            "http://127.0.0.1:8080/api/v2",
            "http://localhost:1/api/v2",
            "http://[::1]:9/api/v2",
        ] {
            assert!(good.parse::<Endpoint>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "https://",
            "www.deribit.com/api/v2",
            "https://www.deribit.com/api/v2",
            "https://TEST.DERIBIT.COM./api/v2",
            "https://deribit.com:8443/api/v2",
            "ftp://127.0.0.1/api/v2",
            "http://www.deribit.com/api/v2",
            "http://127.0.0.1.evil.example/api/v2",
            "http://localhost@evil.example/api/v2",
            "https://user:word@host/api/v2",
            "https://host/api/v2?x=1",
            "https://host/api/v2#x",
            "https://host/../v2",
            "https://host:99999/",
            "https://ho st/",
            "http://[::1%25lo]/",
        ] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_keep_what_stands_before_the_method() {
        let endpoint: Endpoint = "http://127.0.0.1:8080/api/v2/".parse().unwrap();
        assert_eq!(endpoint.path("public/auth"), "/api/v2/public/auth");
        assert_eq!(endpoint.as_str(), "http://127.0.0.1:8080/api/v2");
    }

    #[test]
    fn the_testnet_flag_may_not_change() {
        let custom = Network::Custom("http://127.0.0.1:1/api/v2".parse().unwrap());
        assert!(custom.check_testnet(false, None).is_ok());
        assert!(custom.check_testnet(false, Some(true)).is_err());
        assert!(Network::Test.check_testnet(false, None).is_err());
        assert!(Network::Production.check_testnet(true, None).is_err());
    }
}
