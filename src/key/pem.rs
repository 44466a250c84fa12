use base64::prelude::{BASE64_STANDARD, Engine};
use zeroize::Zeroizing;

use super::Error;

/// A PEM block: its label, and what it holds.
pub(super) struct Block<'a> {
    pub(super) label: &'a str,
    body: &'a [u8],
    /// Whether another block follows.
    pub(super) more: bool,
}

const BEGIN: &[u8] = b"-----BEGIN ";
const DASHES: &[u8] = b"-----";

/// Finds the first PEM block; text around it is allowed (RFC 7468, section 2).
///
/// OpenSSL writes "Bag Attributes" before a key out of a PKCS#12 file.
pub(super) fn find(input: &[u8]) -> Result<Option<Block<'_>>, Error> {
    let Some((_, rest)) = split(input, BEGIN) else {
        return Ok(None);
    };
    let damaged = Error::Malformed { what: "PEM" };
    let named = split(rest, DASHES).and_then(|(label, rest)| {
        let plain = |b: &u8| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b' ';
        let label = label.iter().all(plain).then_some(label)?;
        Some((str::from_utf8(label).ok()?, rest))
    });
    let Some((label, rest)) = named else {
        return Err(damaged);
    };
    let end = split(rest, b"-----END ").and_then(|(body, rest)| {
        let rest = rest.strip_prefix(label.as_bytes())?.strip_prefix(DASHES)?;
        Some((body, rest))
    });
    let Some((body, rest)) = end else {
        return Err(damaged);
    };
    Ok(Some(Block {
        label,
        body,
        more: split(rest, BEGIN).is_some(),
    }))
}

impl Block<'_> {
    /// Says whether this is encrypted in the way from before PKCS#8 (RFC 1421 headers).
    pub(super) fn is_legacy_encrypted(&self) -> bool {
        split(self.body, b"Proc-Type:").is_some() || split(self.body, b"DEK-Info:").is_some()
    }

    /// Decodes the base64, however its lines are broken, also with `\n` written out.
    pub(super) fn decode(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        let mut text = Zeroizing::new(Vec::with_capacity(self.body.len()));
        let mut rest = self.body;
        while let [byte, tail @ ..] = rest {
            rest = match (byte, tail) {
                (b'\\', [b'n' | b'r', tail @ ..]) => tail,
                _ => tail,
            };
            if *byte != b'\\' && !byte.is_ascii_whitespace() {
                text.push(*byte);
            }
        }
        let mut der = Zeroizing::new(vec![0; text.len() / 4 * 3]);
        let length = BASE64_STANDARD
            .decode_slice(&*text, &mut der)
            .map_err(|_| Error::Malformed { what: "PEM" })?;
        der.truncate(length);
        Ok(der)
    }
}

/// Writes PEM: lines of 64 columns, LF, one at the end; exactly as long as it needs to be.
pub(super) fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let base64 = der.len().div_ceil(3) * 4;
    let frame = 2 * (label.len() + DASHES.len() * 2 + 1) + "BEGIN ".len() + "END ".len();
    let mut pem = Zeroizing::new(String::with_capacity(frame + base64 + base64.div_ceil(64)));
    for part in ["-----BEGIN ", label, "-----\n"] {
        pem.push_str(part);
    }
    for line in der.chunks(48) {
        BASE64_STANDARD.encode_string(line, &mut pem);
        pem.push('\n');
    }
    for part in ["-----END ", label, "-----\n"] {
        pem.push_str(part);
    }
    pem
}

/// Returns what is before and after the first occurrence.
pub(super) fn split<'a>(text: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = text.windows(mark.len()).position(|window| window == mark)?;
    let (before, rest) = text.split_at_checked(at)?;
    Some((before, rest.strip_prefix(mark)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn lines_have_64_columns_and_the_string_never_grows() {
        for length in [0, 1, 47, 48, 49, 96, 1200] {
            let der = vec![0xa5; length];
            let pem = encode("PRIVATE KEY", &der);
            assert_eq!(pem.capacity(), pem.len(), "{length}");
            assert!(pem.lines().all(|line| line.len() <= 64));
            assert!(pem.ends_with("-----END PRIVATE KEY-----\n"));
            let block = find(pem.as_bytes()).unwrap().unwrap();
            assert_eq!((block.label, block.more), ("PRIVATE KEY", false));
            assert_eq!(*block.decode().unwrap(), der);
        }
    }

    #[test]
    fn half_a_block_is_damaged() {
        for text in [
            "-----BEGIN PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PUBLIC KEY-----",
            "-----BEGIN ",
            "-----BEGIN priv\u{e9}-----\nAAAA\n-----END priv\u{e9}-----",
        ] {
            assert!(find(text.as_bytes()).is_err(), "{text}");
        }
        for body in ["A", "AA", "AAA", "AAA=A", "AA=A", "A*AA", "AB=="] {
            let pem = format!("-----BEGIN X-----\n{body}\n-----END X-----");
            let block = find(pem.as_bytes()).unwrap().unwrap();
            assert!(block.decode().is_err(), "{body}");
        }
    }
}
