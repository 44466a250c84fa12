//! The wire: HTTPS with its own trust store, or HTTP to this machine. The only file that says
//! reqwest.
//!
//! Nothing is taken from the environment: no proxy, no certificates. No redirect is followed, no
//! compressed body is asked for, no answer is read beyond 1 MiB, and the whole exchange of one
//! request and one answer has a deadline.

use std::time::Duration;

use reqwest::{
    Client,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
    redirect::Policy,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
    version::{TLS12, TLS13},
};
use zeroize::Zeroizing;

use super::{Endpoint, Error, Incoming, Outgoing, Transport};
use crate::secret::append;

/// The largest answer that is read.
const LARGEST_ANSWER: usize = 1024 * 1024;

/// A [`Transport`] over HTTPS.
#[derive(Debug)]
pub struct Https {
    client: Client,
    endpoint: Endpoint,
    deadline: Duration,
}

impl Https {
    /// Prepares to speak to `endpoint`; nothing is sent yet.
    ///
    /// `authorities` are PEM certificates to trust instead of the authorities compiled in.
    ///
    /// # Errors
    /// [`Error::Authorities`] where those certificates cannot be used.
    pub fn new(
        endpoint: Endpoint,
        authorities: Option<&[u8]>,
        deadline: Duration,
    ) -> Result<Self, Error> {
        let client = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .https_only(!endpoint.is_loopback())
            .http1_only()
            .timeout(deadline)
            .user_agent(concat!("derikey/", env!("CARGO_PKG_VERSION")));
        let trusted = |problem: String| Error::Authorities { problem };
        let client = client
            .tls_backend_preconfigured(tls(authorities).map_err(trusted)?)
            .build()
            .map_err(|error| Error::Unreachable {
                host: endpoint.host().into(),
                problem: causes(&error),
            })?;
        Ok(Self {
            client,
            endpoint,
            deadline,
        })
    }

    fn failed(&self, error: &reqwest::Error) -> Error {
        let host = self.endpoint.host().to_owned();
        let problem = causes(error);
        if error.is_timeout() && !error.is_connect() {
            let seconds = self.deadline.as_secs();
            Error::TimedOut { host, seconds }
        } else if error.is_connect() || error.is_builder() {
            Error::Unreachable { host, problem }
        } else {
            Error::Broken { host, problem }
        }
    }
}

impl Transport for Https {
    async fn post(&self, request: Outgoing) -> Result<Incoming, Error> {
        let method = request.method;
        let mut call = self
            .client
            .post(format!("{}/{method}", self.endpoint))
            .header(CONTENT_TYPE, "application/json")
            // The body is wiped when the last reference to it goes.
            .body(bytes::Bytes::from_owner(Wiped(request.body)));
        if let Some(authorization) = &request.authorization {
            let mut value = HeaderValue::from_str(authorization).map_err(|_| Error::Malformed {
                method,
                problem: "the token it follows cannot be sent",
                status: 0,
            })?;
            value.set_sensitive(true);
            call = call.header(AUTHORIZATION, value);
        }
        let mut response = call.send().await.map_err(|e| self.failed(&e))?;
        let status = response.status().as_u16();
        if response.status().is_redirection() {
            return Err(Error::Malformed {
                method,
                problem: "it is an unexpected redirect",
                status,
            });
        }
        let mut body = Zeroizing::new(Vec::with_capacity(16 * 1024));
        while let Some(chunk) = response.chunk().await.map_err(|e| self.failed(&e))? {
            if body.len() + chunk.len() > LARGEST_ANSWER {
                return Err(Error::Malformed {
                    method,
                    problem: "it is larger than 1 MiB",
                    status,
                });
            }
            append(&mut body, &chunk);
        }
        Ok(Incoming { status, body })
    }

    async fn pause(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

struct Wiped(Zeroizing<Vec<u8>>);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn tls(authorities: Option<&[u8]>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match authorities {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|_| "it is not PEM".to_owned())?;
                roots.add(certificate).map_err(|e| e.to_string())?;
            }
            if roots.is_empty() {
                return Err("it holds no certificate".into());
            }
        }
    }
    let config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

/// Returns the innermost cause, which is the one that helps, without the address.
fn causes(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let text = cause.to_string();
    let tame = |c: char| {
        if c.is_ascii_graphic() || c == ' ' {
            c
        } else {
            '?'
        }
    };
    text.chars().take(200).map(tame).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// The tables of Unicode domains are not compiled in (docs/dependencies.md): an endpoint is
    /// ASCII, and what it can say must not need them.
    #[test]
    fn every_endpoint_is_an_address_without_unicode_tables() {
        for text in [
            "https://exchange.example/api/v2",
            "https://xn--bcher-kva.example:8443/api/v2",
            "https://XN--BCHER-KVA.example/api/v2",
            "https://under-score.example./api/v2",
            "https://127.0.0.1/api/v2",
            "http://[::1]:9/api/v2",
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            let address = reqwest::Url::parse(&format!("{endpoint}/public/auth"));
            assert!(address.is_ok(), "{text}: {address:?}");
        }
        assert!(
            "https://b\u{fc}cher.example/api/v2"
                .parse::<Endpoint>()
                .is_err()
        );
    }
}
