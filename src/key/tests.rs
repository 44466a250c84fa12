#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]
use std::convert::Infallible;

use rand_core::{TryCryptoRng, TryRng, utils};

use super::*;
use crate::secret::ClientSecret;

mod wycheproof;

const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";

macro_rules! accepted {
    ($name:literal) => {
        include_bytes!(concat!("../../tests/data/key-room/accepted/", $name)).as_slice()
    };
}
macro_rules! refused {
    ($name:literal) => {
        include_bytes!(concat!("../../tests/data/key-room/refused/", $name)).as_slice()
    };
}

fn chance() -> impl CryptoRng {
    rand_core::UnwrapErr(getrandom::SysRng)
}

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(text.into())
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn rfc8032() -> PrivateKey {
    PrivateKey::from_seed(&unhex(SEED).try_into().unwrap()).unwrap()
}

fn stamp() -> Stamp {
    Stamp {
        timestamp: Timestamp(1_576_074_319_000),
        nonce: "1iqt2wls".parse().unwrap(),
    }
}

fn login(data: &str) -> Purpose {
    Purpose::Login { data: data.into() }
}

fn request(method: &str, uri: &str, body: &str) -> Purpose {
    Purpose::Request {
        method: method.into(),
        uri: uri.into(),
        body: body.into(),
    }
}

fn message(purpose: &Purpose) -> Message {
    Message::new(&stamp(), purpose).unwrap()
}

fn read(input: &[u8]) -> Result<PrivateKey, Error> {
    PrivateKey::read(input, Some(&passphrase("correct-horse")))
}

// --- vectors

#[test]
fn fingerprint_is_the_one_deribit_documents() {
    // With blanks for line breaks and no final one, as the exchange may give it back.
    let pem = b"-----BEGIN PUBLIC KEY----- MCowBQYDK2VwAyEAM7FWhKquNqLmTOV4hfYT5r3AjrYiORTT6Tn5HIfFNV8= -----END PUBLIC KEY-----";
    let key = PublicKey::read(pem).unwrap();
    let print = "9c:6d:c9:02:fd:9f:75:6e:14:bb:71:c5:74:95:86:c8";
    assert_eq!(key.fingerprint().to_string(), print);
    assert_eq!(format!("{key:?}"), print);
    assert_eq!(key.spki_der().len(), 44);
    assert_eq!(PublicKey::read(key.spki_der()).unwrap(), key);
    assert_eq!(PublicKey::read(key.to_pem().as_bytes()).unwrap(), key);
}

#[test]
fn signatures_are_those_of_openssl() {
    let key = rfc8032();
    assert_eq!(
        format!("{key:?}"),
        "PrivateKey(32:9b:c1:7e:bd:33:06:cd:02:b7:d3:58:eb:c7:50:df)"
    );
    let account = "/api/v2/private/get_account_summary?currency=BTC";
    for (purpose, expected) in [
        (
            login(""),
            "ct_usiNBEI4biVO3qsPw4ACmmZR-NEhJpA6sX9nUXU3mak75LAiccV35TNtZM8-OdvjW0i77cJKvX1IFhz1PAg",
        ),
        (
            login("hello"),
            "vn9cjm9CJXR5qhpXuJWPutn5YR1N21xIrhOCoP60G6qSBBy_dKGiSP6sA3RHi7MvqETvdsVGH7XdxqvQ34owDA",
        ),
        (
            request("GET", account, ""),
            "hFqbTTh9oOtaYeEHUVORHIn0dr1h3adFjcUSlxSd6XkT7S_LtJn6mABNU-Ltxy_SUkkfAZbRv-cLaO9qtgTkBQ",
        ),
    ] {
        let message = message(&purpose);
        let signature = key.sign(&message).unwrap();
        assert_eq!(signature.to_string(), expected);
        assert_eq!(expected.parse::<Signature>().unwrap(), signature);
        key.public().verify(&message, &signature).unwrap();
    }
    assert_eq!(
        message(&request("GET", account, "")).as_bytes(),
        b"1576074319000\n1iqt2wls\nGET\n/api/v2/private/get_account_summary?currency=BTC\n\n"
    );
    assert_eq!(
        format!("{:?}", message(&login("otp 123456"))),
        "Message(33 bytes)"
    );
}

#[test]
fn a_symmetric_key_shows_nothing() {
    let key = SymmetricKey::new(&ClientSecret::new("canary".into()));
    assert_eq!(format!("{key:?}"), "SymmetricKey([redacted])");
}

#[test]
fn rfc_8032_tests_1_to_3_and_sha_abc() {
    for (seed, public, message, signature) in [
        (
            SEED,
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
        (
            "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
            "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
        ),
    ] {
        let key = PrivateKey::from_seed(&unhex(seed).try_into().unwrap()).unwrap();
        let (message, signature) = (unhex(message), unhex(signature));
        assert!(key.public().has_bits(&unhex(public)));
        assert_eq!(key.pair.sign(&message).unwrap().as_bytes(), signature);
        key.public().verify_bytes(&message, &signature).unwrap();
        assert!(key.public().verify_bytes(b"x", &signature).is_err());
    }
}

#[test]
fn rsa_signature_is_that_of_python() {
    let key = read(accepted!("rsa-2048.pem")).unwrap();
    let message = message(&login(""));
    let signature = key.sign(&message).unwrap();
    assert_eq!(signature.as_bytes(), accepted!("rsa-2048.sig"));
    assert_eq!(signature.to_string().len(), 342);
    key.public().verify(&message, &signature).unwrap();
    let other = read(accepted!("openssh-rsa")).unwrap();
    let verdict = other.public().verify(&message, &signature);
    assert!(matches!(verdict, Err(Error::Forged)));
}

#[test]
fn signatures_are_parsed_strictly() {
    let text = rfc8032().sign(&message(&login(""))).unwrap().to_string();
    for bad in [
        String::new(),
        format!("{text}=="),
        text.replace('_', "/"),
        text[..84].to_owned(),
        format!("{}h", &text[..85]), // stray bits
        format!("{text}\n"),
    ] {
        assert!(bad.parse::<Signature>().is_err(), "{bad}");
    }
}

// --- formats

#[test]
fn every_format_of_the_same_key_is_the_same_key() {
    let ed25519 = PublicKey::read(accepted!("ed25519.pub.pem")).unwrap();
    let rsa = PublicKey::read(accepted!("rsa-2048.pub.pem")).unwrap();
    assert_eq!(
        ed25519.fingerprint_sha256().len() + rsa.fingerprint_sha256().len(),
        190
    );
    for (name, input, sealed, public) in [
        ("pem", accepted!("ed25519.pem"), false, &ed25519),
        ("der", accepted!("ed25519.der"), false, &ed25519),
        ("v2", accepted!("ed25519.v2.pem"), false, &ed25519),
        (
            "sha1",
            accepted!("ed25519.hmacWithSHA1.pem"),
            true,
            &ed25519,
        ),
        (
            "sha224",
            accepted!("ed25519.hmacWithSHA224.pem"),
            true,
            &ed25519,
        ),
        (
            "sha256",
            accepted!("ed25519.hmacWithSHA256.pem"),
            true,
            &ed25519,
        ),
        (
            "sha384",
            accepted!("ed25519.hmacWithSHA384.pem"),
            true,
            &ed25519,
        ),
        (
            "sha512",
            accepted!("ed25519.hmacWithSHA512.pem"),
            true,
            &ed25519,
        ),
        ("aes128", accepted!("ed25519.aes128.pem"), true, &ed25519),
        ("aes192", accepted!("ed25519.aes192.pem"), true, &ed25519),
        ("scrypt", accepted!("ed25519.scrypt.pem"), true, &ed25519),
        ("pem", accepted!("rsa-2048.pem"), false, &rsa),
        ("der", accepted!("rsa-2048.der"), false, &rsa),
        ("v2", accepted!("rsa-2048.v2.pem"), false, &rsa),
        ("pkcs1", accepted!("rsa-2048.pkcs1.pem"), false, &rsa),
        ("pkcs1 der", accepted!("rsa-2048.pkcs1.der"), false, &rsa),
        ("swapped", accepted!("rsa-2048.swapped.pem"), false, &rsa),
        ("scrypt der", accepted!("rsa-2048.scrypt.der"), true, &rsa),
    ] {
        let key = read(input).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(key.public(), public, "{name}");
        assert_eq!(PrivateKey::is_sealed(input).unwrap(), sealed, "{name}");
        let unaided = PrivateKey::read(input, None);
        assert_eq!(matches!(unaided, Err(Error::Sealed)), sealed, "{name}");
        if sealed {
            let wrong = PrivateKey::read(input, Some(&passphrase("wrong-horse")));
            assert!(matches!(wrong, Err(Error::WrongPassphrase)), "{name}");
        }
        let message = message(&login("x"));
        public
            .verify(&message, &key.sign(&message).unwrap())
            .unwrap();
    }
}

#[test]
fn openssh_keys() {
    for (name, input, sealed, print) in [
        (
            "ed25519",
            accepted!("openssh-ed25519"),
            false,
            "95:bf:8a:16:75:a9:aa:5a:26:a1:7c:ea:93:58:2f:50",
        ),
        (
            "ed25519",
            accepted!("openssh-ed25519-sealed"),
            true,
            "b8:cb:5f:2d:0f:b6:e7:2f:6b:81:bd:dd:a8:c7:05:4c",
        ),
        (
            "rsa",
            accepted!("openssh-rsa"),
            false,
            "11:dd:50:45:11:1e:8a:f3:e2:91:fc:a2:f1:16:3e:e0",
        ),
        (
            "rsa",
            accepted!("openssh-rsa-sealed"),
            true,
            "11:dd:50:45:11:1e:8a:f3:e2:91:fc:a2:f1:16:3e:e0",
        ),
    ] {
        let key = read(input).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(key.public().fingerprint().to_string(), print, "{name}");
        assert_eq!(PrivateKey::is_sealed(input).unwrap(), sealed, "{name}");
        let unaided = PrivateKey::read(input, None);
        assert_eq!(matches!(unaided, Err(Error::Sealed)), sealed, "{name}");
        let message = message(&login("x"));
        let signature = key.sign(&message).unwrap();
        key.public().verify(&message, &signature).unwrap();
        if sealed {
            let wrong = PrivateKey::read(input, Some(&passphrase("wrong")));
            assert!(matches!(wrong, Err(Error::WrongPassphrase)), "{name}");
        }
        // Out of OpenSSH's format and through ours.
        let again = read(key.to_plain_pem().unwrap().as_bytes()).unwrap();
        assert_eq!(again.public(), key.public());
    }
}

#[test]
fn pem_in_any_dress() {
    let plain = str::from_utf8(accepted!("ed25519.pem")).unwrap();
    let public = PublicKey::read(accepted!("ed25519.pub.pem")).unwrap();
    for text in [
        plain.replace('\n', "\r\n"),
        format!("\u{feff}\n\r\n  {plain}\n\n"),
        plain.trim_end().to_owned(),
        plain.replace('\n', "\\n"),
        format!("\"{}\"\n", plain.replace('\n', "\\r\\n")),
        plain.replace('\n', " "),
        format!("Bag Attributes\n    localKeyID: 01\nKey Attributes: <No Attributes>\n{plain}"),
    ] {
        assert_eq!(
            read(text.as_bytes()).expect(&text).public(),
            &public,
            "{text}"
        );
    }
    let pem = str::from_utf8(accepted!("rsa-2048.pub.pem")).unwrap();
    let rsa = PublicKey::read(pem.as_bytes()).unwrap();
    assert_eq!(rsa.to_pem(), pem);
    assert_eq!(
        PublicKey::read(pem.replace('\n', "\\n").as_bytes()).unwrap(),
        rsa
    );
}

#[test]
fn what_is_written_is_what_openssl_writes() {
    for input in [accepted!("ed25519.pem"), accepted!("rsa-2048.pem")] {
        assert_eq!(
            read(input).unwrap().to_plain_pem().unwrap().as_bytes(),
            input
        );
    }
}

#[test]
fn round_trips() {
    let secret = passphrase("p\u{e9} \u{1f600}");
    for algorithm in [Algorithm::Ed25519, Algorithm::Rsa2048] {
        let key = PrivateKey::generate(algorithm, &mut chance()).unwrap();
        assert_eq!(key.public().algorithm(), algorithm);
        for kdf in [Kdf::Scrypt, Kdf::Pbkdf2] {
            let pem = key.to_sealed_pem(&secret, kdf, &mut chance()).unwrap();
            assert!(pem.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"));
            assert!(PrivateKey::is_sealed(pem.as_bytes()).unwrap());
            let again = PrivateKey::read(pem.as_bytes(), Some(&secret)).unwrap();
            assert_eq!(again.public(), key.public());
            let other = key.to_sealed_pem(&secret, kdf, &mut chance()).unwrap();
            assert_ne!(*pem, *other, "salt and iv are fresh");
        }
        let plain = key.to_plain_pem().unwrap();
        assert_eq!(read(plain.as_bytes()).unwrap().public(), key.public());
        let empty = key.to_sealed_pem(&passphrase(""), Kdf::Scrypt, &mut chance());
        assert!(matches!(empty, Err(Error::EmptyPassphrase)));
    }
}

#[test]
fn names_of_algorithms_and_kdfs() {
    for algorithm in Algorithm::ALL {
        let text = algorithm.to_string();
        assert_eq!(text.parse::<Algorithm>().unwrap(), algorithm);
        let json = serde_json::to_string(&algorithm).unwrap();
        assert_eq!(json, format!("{text:?}"));
        assert_eq!(serde_json::from_str::<Algorithm>(&json).unwrap(), algorithm);
    }
    assert!("RSA".parse::<Algorithm>().is_err());
    for kdf in [Kdf::Scrypt, Kdf::Pbkdf2] {
        assert_eq!(kdf.to_string().parse::<Kdf>().unwrap(), kdf);
    }
    assert_eq!(Kdf::default(), Kdf::Scrypt);
    assert!("argon2".parse::<Kdf>().is_err());
}

// --- refusals

#[test]
fn refusals() {
    // Whatever is hostile here would take minutes to years if it were not refused.
    let mut wrong = Vec::new();
    for (name, input, expected) in [
        ("empty", b"".as_slice(), "Empty"),
        ("blank", b"\xef\xbb\xbf \r\n\t", "Empty"),
        ("large", &[b' '; MAX_INPUT], "Empty"),
        ("too large", &[b' '; MAX_INPUT + 1], "TooLarge"),
        ("noise", b"hello", "Unrecognised"),
        ("noise", b"\x30\x00", "Malformed"),
        ("noise", b"\x30\x82", "Unrecognised"),
        ("utf-16", b"\xff\xfe-\0-\0", "Foreign(UTF-16 text)"),
        ("1024", refused!("rsa-1024.pem"), "RsaSize(1024)"),
        ("2560", refused!("rsa-2560.pem"), "RsaSize(2560)"),
        ("8192", refused!("rsa-8192.pem"), "RsaSize(8192)"),
        ("e=3", refused!("rsa-e3.pem"), "RsaExponent"),
        ("e even", refused!("rsa-even-e.pem"), "RsaExponent"),
        ("e huge", refused!("rsa-huge-e.pem"), "RsaExponent"),
        ("d", refused!("rsa-wrong-d.pem"), "Invalid(RSA)"),
        ("n", refused!("rsa-wrong-n.pem"), "Invalid(RSA)"),
        ("qinv", refused!("rsa-wrong-qinv.pem"), "Invalid(RSA)"),
        (
            "primes",
            refused!("rsa-multiprime.pem"),
            "Unsupported(multi-prime RSA)",
        ),
        ("pss", refused!("rsa-pss.pem"), "Unsupported(RSA-PSS)"),
        ("ec", refused!("ec.pem"), "Unsupported(EC)"),
        ("ec", refused!("ec-sec1.pem"), "Unsupported(EC)"),
        ("ec", refused!("ec-sec1.der"), "Unsupported(EC)"),
        ("dsa", refused!("dsa.pem"), "Unsupported(DSA)"),
        ("dsa", refused!("dsa-traditional.der"), "Unsupported(DSA)"),
        (
            "dsa",
            b"-----BEGIN DSA PRIVATE KEY-----\n-----END DSA PRIVATE KEY-----",
            "Unsupported(DSA)",
        ),
        ("x25519", refused!("x25519.pem"), "Unsupported(X25519)"),
        ("x448", refused!("x448.pem"), "Unsupported(X448)"),
        ("ed448", refused!("ed448.pem"), "Unsupported(Ed448)"),
        ("public", accepted!("ed25519.pub.pem"), "Public"),
        ("public", refused!("rsa-public-pkcs1.pem"), "Public"),
        ("public", refused!("openssh.pub"), "Public"),
        ("public", b"\x30\x06\x02\x01\x0f\x02\x01\x03", "Public"),
        ("certificate", refused!("certificate.pem"), "Certificate"),
        ("certificate", refused!("certificate.der"), "Certificate"),
        (
            "legacy",
            refused!("legacy-encrypted.pem"),
            "LegacyEncryption",
        ),
        (
            "half legacy",
            b"-----BEGIN PRIVATE KEY-----\nDEK-Info: X\n-----END PRIVATE KEY-----",
            "LegacyEncryption",
        ),
        ("p12", refused!("archive.p12"), "Foreign(a PKCS#12 archive)"),
        ("ppk", refused!("putty.ppk"), "Foreign(a PuTTY key (.ppk))"),
        (
            "age",
            refused!("age.pem"),
            "Foreign(a file encrypted with age)",
        ),
        (
            "age",
            refused!("age-identity.txt"),
            "Foreign(an age identity)",
        ),
        ("pgp", refused!("pgp.asc"), "Foreign(an OpenPGP text)"),
        (
            "label",
            b"-----BEGIN X-----\n-----END X-----",
            "Unrecognised",
        ),
        ("jwk", b"{\"kty\":\"OKP\"}", "Foreign(a JSON text)"),
        ("two", refused!("two.pem"), "Several"),
        ("two", refused!("openssh-two"), "Several"),
        ("v2", refused!("ed25519.v2.mismatch.pem"), "Mismatch"),
        ("v2", refused!("rsa-2048.v2.mismatch.pem"), "Mismatch"),
        ("short", refused!("ed25519-short.pem"), "Malformed"),
        ("trailing", refused!("ed25519-trailing.pem"), "Malformed"),
        ("ssh sk", refused!("openssh-sk"), "HardwareKey"),
        ("ssh ecdsa", refused!("openssh-ecdsa"), "Unsupported(EC)"),
        ("ssh dsa", refused!("openssh-dsa"), "Unsupported(DSA)"),
        (
            "ssh rounds",
            refused!("openssh-rounds"),
            "Costly(more than 1024 rounds of bcrypt)",
        ),
        ("ssh kdf", refused!("openssh-cipher"), "UnsupportedSealing"),
        ("ssh 3des", refused!("openssh-3des"), "UnsupportedSealing"),
        ("pbes1", refused!("pbes1.pem"), "UnsupportedSealing"),
        ("3des", refused!("pbes2-des3.pem"), "UnsupportedSealing"),
        ("gcm", refused!("pbes2-gcm.pem"), "UnsupportedSealing"),
        ("rc2", refused!("pbes2-rc2.pem"), "UnsupportedSealing"),
        (
            "2^31 rounds",
            refused!("pbkdf2-2e31.pem"),
            "Costly(more than 10,000,000 rounds of PBKDF2)",
        ),
        (
            "rounds",
            refused!("pbkdf2-10000001.pem"),
            "Costly(more than 10,000,000 rounds of PBKDF2)",
        ),
        ("no rounds", refused!("pbkdf2-0.pem"), "Malformed"),
        ("salt", refused!("pbkdf2-long-salt.pem"), "Malformed"),
        (
            "scrypt",
            refused!("scrypt-memory.pem"),
            "Costly(more than 256 MiB of memory for scrypt)",
        ),
        (
            "scrypt",
            refused!("scrypt-work.pem"),
            "Costly(more than 1 GiB of work for scrypt)",
        ),
        (
            "scrypt",
            refused!("scrypt-overflow.pem"),
            "Costly(more than 256 MiB of memory for scrypt)",
        ),
        ("scrypt", refused!("scrypt-n0.pem"), "Malformed"),
        ("scrypt", refused!("scrypt-n3.pem"), "Malformed"),
    ] {
        let found = kind(&read(input).expect_err(name));
        if found != expected {
            wrong.push(format!("{name}: {found}, expected {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The variant, with what it says about the input.
fn kind(error: &Error) -> String {
    match error {
        Error::Foreign { format } => format!("Foreign({format})"),
        Error::Unsupported { algorithm } => format!("Unsupported({algorithm})"),
        Error::Costly { what } => format!("Costly({what})"),
        Error::RsaSize { bits } => format!("RsaSize({bits})"),
        Error::Invalid { algorithm } => format!("Invalid({algorithm})"),
        other => {
            let text = format!("{other:?}");
            text.split([' ', '(']).next().unwrap().to_owned()
        }
    }
}

#[test]
fn a_few_bytes_decide_how_a_sealed_key_is_refused() {
    for (input, from, to, expected) in [
        // N of scrypt, beside r
        (
            refused!("scrypt-n3.pem"),
            b"\x03\x02\x01\x08",
            b"\x01\x02\x01\x08",
            "Malformed",
        ),
        (
            refused!("scrypt-n3.pem"),
            b"\x03\x02\x01\x08",
            b"\x02\x02\x01\x08",
            "WrongPassphrase",
        ),
        // hmacWithSHA512-224 (RFC 8018, B.1.2)
        (
            accepted!("ed25519.hmacWithSHA512.pem"),
            b"\x02\x0b\x05\x00",
            b"\x02\x0c\x05\x00",
            "UnsupportedSealing",
        ),
        // A cipher without a derivation; no round of bcrypt
        (accepted!("openssh-ed25519"), b"none", b"aes-", "Malformed"),
        (
            accepted!("openssh-ed25519-sealed"),
            b"\x00\x00\x00\x04",
            b"\x00\x00\x00\x00",
            "Malformed",
        ),
    ] {
        let block = pem::find(input).unwrap().unwrap();
        let mut der = block.decode().unwrap();
        let at = der.windows(4).position(|four| four == from).unwrap();
        der[at..at + 4].copy_from_slice(to);
        let pem = pem::encode(block.label, &der);
        assert_eq!(kind(&read(pem.as_bytes()).unwrap_err()), expected, "{to:?}");
    }
}

#[test]
fn costs_are_known_before_a_passphrase_is_asked_for() {
    for input in [refused!("pbkdf2-2e31.pem"), refused!("openssh-rounds")] {
        assert!(matches!(
            PrivateKey::is_sealed(input),
            Err(Error::Costly { .. })
        ));
        assert!(matches!(
            PrivateKey::read(input, None),
            Err(Error::Costly { .. })
        ));
    }
}

#[test]
fn public_keys_that_are_none() {
    for (input, expected) in [
        (accepted!("ed25519.pem"), "Private"),
        (accepted!("ed25519.der"), "Private"),
        (accepted!("openssh-rsa"), "Private"),
        (refused!("certificate.pem"), "Certificate"),
        (refused!("small-order.pub.pem"), "Invalid(Ed25519)"),
        (
            refused!("rsa-public-pkcs1.pem"),
            "Foreign(a public key in a format other than SPKI)",
        ),
        (
            refused!("openssh.pub"),
            "Foreign(a public key in a format other than SPKI)",
        ),
        (refused!("putty.ppk"), "Foreign(a PuTTY key (.ppk))"),
        (b"", "Empty"),
    ] {
        assert_eq!(kind(&PublicKey::read(input).unwrap_err()), expected);
    }
}

#[test]
fn damage_never_panics() {
    for input in [
        accepted!("ed25519.der"),
        accepted!("ed25519.v2.pem"),
        accepted!("openssh-ed25519"),
        accepted!("rsa-2048.pkcs1.der"),
    ] {
        let step = input.len().div_ceil(200);
        for at in (0..input.len()).step_by(step) {
            let mut bytes = input.to_vec();
            let _ = PrivateKey::is_sealed(&bytes[..at]);
            let _ = PrivateKey::read(&bytes[..at], None);
            bytes[at] ^= 0x80 | u8::try_from(at % 128).unwrap();
            let _ = PrivateKey::read(&bytes, None);
            let _ = PublicKey::read(&bytes);
        }
    }
}

// --- texts to sign

#[test]
fn a_login_cannot_pass_for_a_request() {
    let text = message(&request("GET", "/api/v2/private/withdraw?amount=1", ""));
    let text = str::from_utf8(text.as_bytes()).unwrap();
    let data = text.strip_prefix("1576074319000\n1iqt2wls\n").unwrap();
    let refused = Message::new(&stamp(), &login(data));
    assert!(matches!(refused, Err(Error::Control { what: "data" })));
    assert!("1iqt2wls\nGET".parse::<Nonce>().is_err());
}

#[test]
fn fields_that_could_end_early_are_refused() {
    let good = "/api/v2/private/buy";
    for c in [
        '\0', '\n', '\r', '\t', '\u{7f}', '\u{85}', '\u{9b}', '\u{2028}', '\u{2029}',
    ] {
        for purpose in [
            login(&format!("a{c}b")),
            request(&format!("GET{c}"), good, ""),
            request("GET", &format!("{good}{c}"), ""),
        ] {
            let refused = Message::new(&stamp(), &purpose);
            assert!(matches!(refused, Err(Error::Control { .. })), "{purpose:?}");
        }
        let body = Message::new(&stamp(), &request("POST", good, &format!("{{{c}}}")));
        assert_eq!(body.is_ok(), matches!(c, '\n' | '\r' | '\t'), "{c:?}");
    }
    for method in ["", "get", "G ET", "GET1", "ABCDEFGHIJKLMNOPQ"] {
        let refused = Message::new(&stamp(), &request(method, good, ""));
        assert!(matches!(refused, Err(Error::Method)), "{method}");
    }
    for uri in ["", "api", "/a b", "/a#b", "/\u{e9}", "https://x/"] {
        let refused = Message::new(&stamp(), &request("GET", uri, ""));
        assert!(matches!(refused, Err(Error::Uri)), "{uri}");
    }
    assert!(Message::new(&stamp(), &login("any text, \u{fc}\"'")).is_ok());
}

/// One byte after another, from 255 down.
struct Falling(u8);

impl TryRng for Falling {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        utils::next_word_via_fill(self)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        utils::next_word_via_fill(self)
    }

    fn try_fill_bytes(&mut self, room: &mut [u8]) -> Result<(), Infallible> {
        for byte in room {
            *byte = self.0;
            self.0 = self.0.wrapping_sub(1);
        }
        Ok(())
    }
}

impl TryCryptoRng for Falling {}

#[test]
fn bytes_that_would_favour_some_characters_make_none() {
    let nonce = Nonce::random(&mut Falling(255));
    assert_eq!(nonce.as_str(), "9876543210zyxwvutsrqponm");
}

#[test]
fn nonces() {
    let mut counts = [0_u32; 256];
    for _ in 0..3000 {
        let nonce = Nonce::random(&mut chance());
        assert_eq!(nonce.as_str().len(), 24);
        assert_eq!(nonce.as_str().parse::<Nonce>().unwrap(), nonce);
        for byte in nonce.as_str().bytes() {
            counts[usize::from(byte)] += 1;
        }
    }
    // 72,000 characters, 2,000 of each expected; 300 are six and a half deviations.
    for (byte, &count) in (0_u8..=255).zip(&counts) {
        let drawn = byte.is_ascii_lowercase() || byte.is_ascii_digit();
        assert_eq!(count > 0, drawn, "{byte}");
        assert!(!drawn || count.abs_diff(2000) < 300, "{byte}: {count}");
    }
    for bad in [
        "",
        "a b",
        "a,b",
        "a\"b",
        "a'b",
        "\u{e9}",
        "a\n",
        &"a".repeat(65),
    ] {
        assert!(bad.parse::<Nonce>().is_err(), "{bad:?}");
        assert!(serde_json::from_str::<Nonce>(&format!("{bad:?}")).is_err());
    }
    assert!(
        "123e4567-e89b-12d3-a456-426614174000"
            .parse::<Nonce>()
            .is_ok()
    );
}
