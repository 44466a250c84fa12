//! What is written is read as the same thing, for whatever chance thinks of.

use derikey::{
    agent::{Rate, RestMethod},
    exchange::{Area, Level, Scope},
    key::{
        Algorithm, Error, Fingerprint, Kdf, KeyName, Message, Nonce, PrivateKey, PublicKey,
        Purpose, Stamp, Timestamp,
    },
    secret::Passphrase,
};
use proptest::prelude::*;

fn key_of(seed: [u8; 32]) -> PrivateKey {
    // PKCS#8 version 1 around a seed (RFC 8410).
    let mut der = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".to_vec();
    der.extend(seed);
    PrivateKey::read(&der, None).unwrap()
}

/// One text, broken into lines of any width, with any line ends, or on one line.
fn refolded(pem: &str, width: usize, end: &str) -> String {
    let mut lines = pem.lines();
    let begin = lines.next().unwrap();
    let mut body: Vec<&str> = lines.collect();
    let last = body.pop().unwrap();
    let body = body.concat();
    let folded: Vec<&str> = body
        .as_bytes()
        .chunks(width)
        .map(|line| str::from_utf8(line).unwrap())
        .collect();
    format!("{begin}{end}{}{end}{last}{end}", folded.join(end))
}

/// Areas with levels, each area at most once, in any order.
fn typed_scope() -> impl Strategy<Value = Vec<(usize, usize)>> {
    let areas: Vec<usize> = (0..Area::KNOWN.len()).collect();
    let some = prop::sample::subsequence(areas, 1..=Area::KNOWN.len()).prop_shuffle();
    some.prop_flat_map(|areas| {
        let levels = prop::collection::vec(0..3_usize, areas.len());
        levels.prop_map(move |levels| areas.iter().copied().zip(levels).collect())
    })
}

fn nonce() -> impl Strategy<Value = String> {
    "[!#-&(-+\\--~]{1,64}"
}

/// Text with what could break a message apart, more often than chance would have it.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~\u{e4}\u{2603}]{0,40}",
        "[a-z/\n\r\t\u{0}\u{7f}\u{85}\u{2028}]{0,12}",
        any::<String>(),
    ]
}

fn purpose() -> impl Strategy<Value = Purpose> {
    let login = text().prop_map(|data| Purpose::Login { data });
    let method = prop_oneof![
        Just("GET".to_owned()),
        Just("POST".to_owned()),
        "[A-Za-z\n]{0,4}"
    ];
    let uri = prop_oneof!["/api/v2/[a-z_/?=&]{0,20}", text()];
    let request = (method, uri, text()).prop_map(|(method, uri, body)| Purpose::Request {
        method,
        uri,
        body,
    });
    prop_oneof![login, request]
}

fn stamp() -> impl Strategy<Value = Stamp> {
    (any::<u64>(), nonce()).prop_map(|(timestamp, nonce)| Stamp {
        timestamp: Timestamp(timestamp),
        nonce: nonce.parse().unwrap(),
    })
}

/// The documentation's layout, written once more.
fn layout(stamp: &Stamp, purpose: &Purpose) -> String {
    let (ts, nonce) = (stamp.timestamp.0, stamp.nonce.as_str());
    match purpose {
        Purpose::Login { data } => format!("{ts}\n{nonce}\n{data}"),
        Purpose::Request { method, uri, body } => {
            format!("{ts}\n{nonce}\n{method}\n{uri}\n{body}\n")
        }
    }
}

/// Takes a message apart again, from the text alone.
fn read_back(text: &str) -> (Stamp, Purpose) {
    let (ts, rest) = text.split_once('\n').unwrap();
    let (nonce, rest) = rest.split_once('\n').unwrap();
    let stamp = Stamp {
        timestamp: Timestamp(ts.parse().unwrap()),
        nonce: nonce.parse().unwrap(),
    };
    let purpose = match rest.split_once('\n') {
        None => Purpose::Login { data: rest.into() },
        Some((method, rest)) => {
            let (uri, body) = rest.split_once('\n').unwrap();
            Purpose::Request {
                method: method.into(),
                uri: uri.into(),
                body: body.strip_suffix('\n').unwrap().into(),
            }
        }
    };
    (stamp, purpose)
}

/// So many cases, unless `PROPTEST_CASES` says otherwise, which the default has read.
pub(crate) fn config(cases: u32) -> ProptestConfig {
    let usual = ProptestConfig::default();
    let said = std::env::var_os("PROPTEST_CASES").is_some();
    ProptestConfig {
        cases: if said { usual.cases } else { cases },
        failure_persistence: None,
        ..usual
    }
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn keys_come_back_however_their_text_is_folded(
        seed: [u8; 32],
        width in 1..100_usize,
        end in prop::sample::select(vec!["\n", "\r\n", "\\n", "\n\n", " \n"]),
    ) {
        let key = key_of(seed);
        let pem = key.to_plain_pem().unwrap();
        let again = PrivateKey::read(refolded(&pem, width, end).as_bytes(), None).unwrap();
        prop_assert_eq!(again.public(), key.public());
        prop_assert_eq!(&*again.to_plain_pem().unwrap(), &*pem);
        let public = refolded(&key.public().to_pem(), width, end);
        let public = PublicKey::read(public.as_bytes()).unwrap();
        prop_assert_eq!(&public, key.public());
        let print = public.fingerprint();
        prop_assert_eq!(print.to_string().parse::<Fingerprint>().unwrap(), print);
    }

    #[test]
    fn what_is_signed_verifies_and_nothing_else_does(
        seed: [u8; 32],
        stamp in stamp(),
        data in "[ -~]{0,80}",
        other in "[ -~]{0,80}",
    ) {
        let key = key_of(seed);
        let message = |data: &str| Message::new(&stamp, &Purpose::Login { data: data.into() });
        let signature = key.sign(&message(&data).unwrap()).unwrap();
        let read = signature.to_string().parse().unwrap();
        prop_assert_eq!(&read, &signature);
        let verified = key.public().verify(&message(&data).unwrap(), &read);
        prop_assert!(verified.is_ok());
        let verified = key.public().verify(&message(&other).unwrap(), &read);
        prop_assert_eq!(verified.is_ok(), data == other);
    }
}

proptest! {
    #![proptest_config(config(4096))]

    #[test]
    fn scopes_are_printed_as_they_are_read(typed in typed_scope()) {
        let word = |(area, level): &(usize, usize)| {
            format!("{}:{}", Area::KNOWN[*area].as_str(), ["none", "read", "read_write"][*level])
        };
        let words: Vec<String> = typed.iter().map(word).collect();
        let scope: Scope = words.join(" ").parse().unwrap();
        for (area, level) in &typed {
            let level = [Level::None, Level::Read, Level::ReadWrite][*level];
            prop_assert_eq!(scope.level(&Area::KNOWN[*area]), level);
        }
        let printed = scope.to_string();
        let mut sorted: Vec<&str> = printed.split(' ').collect();
        let mut given: Vec<&str> = words.iter().map(String::as_str).collect();
        sorted.sort_unstable();
        given.sort_unstable();
        prop_assert_eq!(sorted, given);
        prop_assert_eq!(printed.parse::<Scope>().unwrap(), scope.clone());
        prop_assert_eq!(Scope::from_wire(&printed), scope);
    }

    #[test]
    fn a_message_is_laid_out_as_documented_or_refused(stamp in stamp(), purpose in purpose()) {
        match Message::new(&stamp, &purpose) {
            Ok(message) => {
                let text = layout(&stamp, &purpose);
                prop_assert_eq!(message.as_bytes(), text.as_bytes());
                // No other login and no other request has this text.
                prop_assert_eq!(read_back(&text), (stamp, purpose));
            }
            Err(Error::Control { .. } | Error::Method | Error::Uri) => {}
            Err(error) => prop_assert!(false, "{error:?}"),
        }
    }

    #[test]
    fn words_are_what_they_were(text in any::<String>(), name in "[A-Za-z0-9_]{1,16}", nonce in nonce()) {
        prop_assert_eq!(name.parse::<KeyName>().unwrap().to_string(), name);
        prop_assert_eq!(nonce.parse::<Nonce>().unwrap().to_string(), nonce);
        if let Ok(name) = text.parse::<KeyName>() {
            prop_assert_eq!(name.as_str(), text.as_str());
        }
        if let Ok(algorithm) = text.parse::<Algorithm>() {
            prop_assert_eq!(algorithm.to_string(), text.as_str());
        }
        if let Ok(method) = text.parse::<RestMethod>() {
            prop_assert_eq!(method.as_str(), text.as_str());
        }
        prop_assert!(text.parse::<Rate>().is_err() || text.contains('/'));
    }
}

proptest! {
    // Each takes two key derivations, which cannot be had cheaper.
    #![proptest_config(config(4))]

    #[test]
    fn a_sealed_key_opens_with_its_passphrase_only(
        seed: [u8; 32],
        words in "\\PC{1,40}",
        other in "\\PC{1,40}",
    ) {
        let key = key_of(seed);
        let passphrase = |text: &str| Passphrase::new(text.into());
        let mut chance = rand_core::UnwrapErr(getrandom::SysRng);
        let pem = key.to_sealed_pem(&passphrase(&words), Kdf::Scrypt, &mut chance).unwrap();
        let again = PrivateKey::read(pem.as_bytes(), Some(&passphrase(&words))).unwrap();
        prop_assert_eq!(again.public(), key.public());
        if words != other {
            let wrong = PrivateKey::read(pem.as_bytes(), Some(&passphrase(&other)));
            prop_assert!(matches!(wrong, Err(Error::WrongPassphrase)), "{wrong:?}");
        }
    }
}
