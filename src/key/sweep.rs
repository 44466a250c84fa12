//! The stack, overwritten below work that strews secrets over it, and the registers behind it.
//!
//! Deciphering, decoding and big-number arithmetic leave copies in dead stack frames, and what they
//! computed last where they computed it.

use zeroize::zeroize_stack;

use crate::secret::clear_registers;

/// Deeper than any work on keys reaches, in bytes.
pub(super) const DEEP: usize = 128 * 1024;
/// Twice as deep as an Ed25519 signature reaches, in bytes.
pub(super) const SHALLOW: usize = 4 * 1024;

/// Does work that strews secrets over stack and registers, and overwrites what it left there.
pub(super) fn swept<T, const BYTES: usize>(work: impl FnOnce() -> T) -> T {
    let result = frame(work);
    zeroize_stack::<BYTES>();
    clear_registers();
    result
}

/// A frame of its own, so that the sweeping covers what the work left.
#[inline(never)]
fn frame<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use std::{fs::File, hint::black_box, os::unix::fs::FileExt};

    use super::*;
    use crate::{
        key::{Algorithm, Kdf, Message, PrivateKey, Purpose, Stamp, SymmetricKey, Timestamp},
        secret::{ClientSecret, Passphrase},
    };

    /// More than is swept.
    const PAINTED: usize = 4 * DEEP;
    const PAINT: u8 = 0xa5;

    #[inline(never)]
    fn paint() {
        black_box(&mut [PAINT; PAINTED]);
    }

    /// Does something so far down that looking does not reach there.
    #[inline(never)]
    fn deep_down(work: impl FnOnce()) {
        let room = [PAINT; PAINTED / 4];
        work();
        black_box(&room);
    }

    /// Returns the stack below this place, deepest first, from where the paint is gone.
    #[inline(never)]
    fn look() -> Vec<u8> {
        let here = 0_u8;
        let below = u64::try_from(std::ptr::from_ref(&here).addr() - PAINTED).unwrap();
        let mut stack = vec![0; PAINTED];
        let memory = File::open("/proc/self/mem").unwrap();
        memory.read_exact_at(&mut stack, below).unwrap();
        let painted = stack.iter().position(|byte| *byte == PAINT).unwrap();
        let reached = stack[painted..].iter().position(|byte| *byte != PAINT);
        stack.split_off(painted + reached.unwrap())
    }

    /// Below what was overwritten there are but the traces of overwriting it.
    fn is_swept(what: &str, depth: usize, work: &dyn Fn()) {
        // What is set up once is set up before.
        work();
        paint();
        deep_down(work);
        let stack = look();
        let clean = |part: &[u8]| part.iter().all(|byte| *byte == 0);
        let sweep = stack.windows(depth / 2).position(clean);
        let traces = sweep.unwrap_or(stack.len());
        assert!(traces < 64, "{what}: {traces} bytes below the sweep");
    }

    fn rng() -> rand_core::UnwrapErr<getrandom::SysRng> {
        rand_core::UnwrapErr(getrandom::SysRng)
    }

    #[test]
    fn no_signature_reaches_deeper_than_what_is_swept_behind_it() {
        for (algorithm, swept) in [(Algorithm::Ed25519, SHALLOW), (Algorithm::Rsa4096, DEEP)] {
            let key = PrivateKey::generate(algorithm, &mut rng()).unwrap();
            let stamp = Stamp {
                timestamp: Timestamp(1),
                nonce: "n".parse().unwrap(),
            };
            let data = String::new();
            let message = Message::new(&stamp, &Purpose::Login { data }).unwrap();
            is_swept(algorithm.as_str(), swept, &|| {
                drop(key.sign(&message).unwrap())
            });
        }
    }

    #[test]
    fn no_making_reading_or_sealing_of_a_key_reaches_deeper_than_what_is_swept_behind_it() {
        for algorithm in [Algorithm::Ed25519, Algorithm::Rsa2048] {
            let make = || PrivateKey::generate(algorithm, &mut rng()).unwrap();
            let key = make();
            is_swept("making", DEEP, &|| drop(make()));
            let passphrase = Passphrase::new("correct horse".into());
            for kdf in [Kdf::Scrypt, Kdf::Pbkdf2] {
                let seal = || key.to_sealed_pem(&passphrase, kdf, &mut rng()).unwrap();
                is_swept("sealing", DEEP, &|| drop(seal()));
                let sealed = seal();
                let open = || PrivateKey::read(sealed.as_bytes(), Some(&passphrase)).unwrap();
                is_swept("opening", DEEP, &|| drop(open()));
            }
            is_swept("writing", DEEP, &|| drop(key.to_plain_pem().unwrap()));
        }
    }

    #[test]
    fn no_signature_with_a_shared_secret_reaches_deeper_than_what_is_swept_behind_it() {
        let secret = ClientSecret::new("B6RsF9rrLY5ezEGBQkyLlV".into());
        let stamp = Stamp {
            timestamp: Timestamp(1),
            nonce: "n".parse().unwrap(),
        };
        let data = String::new();
        let message = Message::new(&stamp, &Purpose::Login { data }).unwrap();
        is_swept("preparing", DEEP, &|| drop(SymmetricKey::new(&secret)));
        let key = SymmetricKey::new(&secret);
        is_swept("signing", DEEP, &|| drop(key.sign_hex(&message)));
    }

    #[test]
    fn no_reading_of_a_foreign_format_reaches_deeper_than_what_is_swept_behind_it() {
        let passphrase = Passphrase::new("correct-horse".into());
        for file in [
            "ed25519.pem",
            "ed25519.hmacWithSHA1.pem",
            "openssh-ed25519",
            "openssh-ed25519-sealed",
            "openssh-rsa",
            "openssh-rsa-sealed",
            "rsa-2048.pkcs1.der",
            "rsa-2048.v2.pem",
        ] {
            let text = std::fs::read(format!("tests/data/key-room/accepted/{file}")).unwrap();
            let read = || PrivateKey::read(&text, Some(&passphrase)).unwrap();
            is_swept(file, DEEP, &|| drop(read()));
        }
    }
}
