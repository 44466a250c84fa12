use ::pkcs8::{
    AlgorithmIdentifierRef,
    der::{Decode, Reader, SliceReader, Tag, Tagged, asn1::AnyRef},
};
use zeroize::Zeroizing;

use super::{Error, MAX_INPUT, pem};

/// A private key whose container is known, not yet opened.
pub(super) enum Found {
    /// `PrivateKeyInfo` or `OneAsymmetricKey` (RFC 5958).
    Pkcs8(Zeroizing<Vec<u8>>),
    /// `EncryptedPrivateKeyInfo` (RFC 5958).
    Sealed(Zeroizing<Vec<u8>>),
    /// `RSAPrivateKey` (RFC 8017).
    Pkcs1(Zeroizing<Vec<u8>>),
    /// `openssh-key-v1` (OpenSSH, PROTOCOL.key).
    OpenSsh(Zeroizing<Vec<u8>>),
}

/// What a label, or a shape, stands for.
enum Kind {
    Pkcs8,
    Sealed,
    Pkcs1,
    OpenSsh,
    Spki,
    Public,
    Certificate,
    Unsupported(&'static str),
    Foreign(&'static str),
}

/// Recognises a private key; whatever else it is gets a name in the error.
pub(super) fn recognise(input: &[u8]) -> Result<Found, Error> {
    let (kind, der) = container(input)?;
    match kind {
        Kind::Pkcs8 => Ok(Found::Pkcs8(der)),
        Kind::Sealed => Ok(Found::Sealed(der)),
        Kind::Pkcs1 => Ok(Found::Pkcs1(der)),
        Kind::OpenSsh => Ok(Found::OpenSsh(der)),
        Kind::Spki | Kind::Public => Err(Error::Public),
        other => Err(refusal(&other)),
    }
}

/// Recognises a public key (SubjectPublicKeyInfo).
pub(super) fn public(input: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    let (kind, der) = container(input)?;
    match kind {
        Kind::Spki => Ok(der),
        Kind::Pkcs8 | Kind::Sealed | Kind::Pkcs1 | Kind::OpenSsh => Err(Error::Private),
        Kind::Public => Err(Error::Foreign {
            format: "a public key in a format other than SPKI",
        }),
        other => Err(refusal(&other)),
    }
}

fn refusal(kind: &Kind) -> Error {
    match *kind {
        Kind::Certificate => Error::Certificate,
        Kind::Foreign(format) => Error::Foreign { format },
        Kind::Unsupported(algorithm) => Error::Unsupported {
            algorithm: algorithm.into(),
        },
        _ => Error::Unrecognised,
    }
}

fn container(input: &[u8]) -> Result<(Kind, Zeroizing<Vec<u8>>), Error> {
    if input.len() > MAX_INPUT {
        return Err(Error::TooLarge);
    }
    if input.starts_with(b"\xff\xfe") || input.starts_with(b"\xfe\xff") {
        return Err(Error::Foreign {
            format: "UTF-16 text",
        });
    }
    let text = input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(input);
    if text.trim_ascii().is_empty() {
        return Err(Error::Empty);
    }
    if let Ok(der) = AnyRef::from_der(input)
        && der.tag() == Tag::Sequence
    {
        return Ok((shape(der.value())?, Zeroizing::new(input.to_vec())));
    }
    let Some(block) = pem::find(text)? else {
        return Ok((signature_of(text)?, Zeroizing::default()));
    };
    let kind = label(block.label)?;
    // What is refused for what it is need not be well-formed.
    if matches!(
        kind,
        Kind::Certificate | Kind::Unsupported(_) | Kind::Foreign(_)
    ) {
        return Err(refusal(&kind));
    }
    if block.is_legacy_encrypted() {
        return Err(Error::LegacyEncryption);
    }
    if block.more {
        return Err(Error::Several);
    }
    Ok((kind, block.decode()?))
}

fn label(label: &str) -> Result<Kind, Error> {
    Ok(match label {
        "PRIVATE KEY" => Kind::Pkcs8,
        "ENCRYPTED PRIVATE KEY" => Kind::Sealed,
        "RSA PRIVATE KEY" => Kind::Pkcs1,
        "OPENSSH PRIVATE KEY" => Kind::OpenSsh,
        "PUBLIC KEY" => Kind::Spki,
        "RSA PUBLIC KEY" | "DSA PUBLIC KEY" | "EC PUBLIC KEY" => Kind::Public,
        "CERTIFICATE"
        | "X509 CERTIFICATE"
        | "TRUSTED CERTIFICATE"
        | "CERTIFICATE REQUEST"
        | "NEW CERTIFICATE REQUEST"
        | "PKCS7"
        | "X509 CRL" => Kind::Certificate,
        "EC PRIVATE KEY" | "EC PARAMETERS" => Kind::Unsupported("EC"),
        "DSA PRIVATE KEY" | "DSA PARAMETERS" => Kind::Unsupported("DSA"),
        "AGE ENCRYPTED FILE" => Kind::Foreign("a file encrypted with age"),
        other if other.starts_with("PGP ") => Kind::Foreign("an OpenPGP text"),
        _ => return Err(Error::Unrecognised),
    })
}

/// Names texts that are not PEM by how they begin.
fn signature_of(text: &[u8]) -> Result<Kind, Error> {
    let text = text.trim_ascii_start();
    let begins = |mark: &str| text.starts_with(mark.as_bytes());
    let public = [
        "ssh-",
        "ecdsa-sha2-",
        "sk-ssh-",
        "sk-ecdsa-",
        "---- BEGIN SSH2 PUBLIC",
    ];
    if public.into_iter().any(begins) {
        return Ok(Kind::Public);
    }
    let known = [
        ("PuTTY-User-Key-File-", "a PuTTY key (.ppk)"),
        ("age-encryption.org/", "a file encrypted with age"),
        ("AGE-SECRET-KEY-", "an age identity"),
        ("# created: ", "an age identity"),
        ("---- BEGIN SSH2 ENCRYPTED", "an ssh.com key"),
        ("untrusted comment:", "a minisign or signify key"),
        ("{", "a JSON text"),
    ];
    let found = known.into_iter().find(|(mark, _)| begins(mark));
    let found = found.ok_or(Error::Unrecognised);
    found.map(|(_, what)| Kind::Foreign(what))
}

/// Tells DER structures apart by their first elements.
fn shape(sequence: &[u8]) -> Result<Kind, Error> {
    let damaged = |_| Error::Malformed { what: "DER" };
    let mut reader = SliceReader::new(sequence).map_err(|_| Error::Unrecognised)?;
    let mut next = || AnyRef::decode(&mut reader).map_err(damaged);
    let (first, second) = (next()?, next()?);
    Ok(match (first.tag(), second.tag()) {
        (Tag::Integer, Tag::Sequence) if first.value() == [3] => Kind::Foreign("a PKCS#12 archive"),
        (Tag::Integer, Tag::Sequence) => Kind::Pkcs8,
        (Tag::Integer, Tag::OctetString) => Kind::Unsupported("EC"),
        (Tag::Integer, Tag::Integer) => {
            let mut elements = 2;
            while !reader.is_finished() {
                AnyRef::decode(&mut reader).map_err(damaged)?;
                elements += 1;
            }
            match elements {
                2 => Kind::Public,
                6 => Kind::Unsupported("DSA"),
                _ => Kind::Pkcs1,
            }
        }
        (Tag::Sequence, Tag::OctetString) => Kind::Sealed,
        (Tag::Sequence, Tag::BitString) => Kind::Spki,
        (Tag::Sequence, Tag::Sequence) => Kind::Certificate,
        _ => return Err(Error::Unrecognised),
    })
}

/// The two families of keys that Deribit takes.
pub(super) enum Family {
    Ed25519,
    Rsa,
}

/// Reads an algorithm identifier; RFC 8410 wants no parameters, RFC 8017 wants NULL.
pub(super) fn algorithm(identifier: &AlgorithmIdentifierRef<'_>) -> Result<Family, Error> {
    let parameters = identifier.parameters;
    let (family, fits) = match identifier.oid.to_string().as_str() {
        "1.3.101.112" => (Family::Ed25519, parameters.is_none()),
        "1.2.840.113549.1.1.1" => (Family::Rsa, parameters.is_some_and(|any| any.is_null())),
        other => {
            let name = match other {
                "1.2.840.10045.2.1" => "EC",
                "1.2.840.10040.4.1" => "DSA",
                "1.2.840.113549.1.1.10" => "RSA-PSS",
                "1.2.840.113549.1.3.1" | "1.2.840.10046.2.1" => "Diffie-Hellman",
                "1.3.101.110" => "X25519",
                "1.3.101.111" => "X448",
                "1.3.101.113" => "Ed448",
                oid => oid,
            };
            return Err(Error::Unsupported {
                algorithm: name.into(),
            });
        }
    };
    if fits {
        Ok(family)
    } else {
        Err(Error::Malformed {
            what: "algorithm identifier",
        })
    }
}
