use std::{panic, thread};

use zeroize::zeroize_stack;

use super::Error;

/// More than any of this work needs; given here so that the environment does not decide.
const STACK: usize = 1 << 20;
/// Deeper than any of this work reaches, in bytes.
pub(super) const DEEP: usize = 128 * 1024;
/// Twice as deep as an Ed25519 signature reaches, in bytes.
pub(super) const SHALLOW: usize = 4 * 1024;

/// Does work that strews secrets over the stack on a thread that is then gone.
///
/// Deciphering, decoding and big-number arithmetic leave copies in dead stack frames. They
/// are overwritten when the work is done; the thread's end hands its stack back as well,
/// though of that the C library keeps the upper end for the next thread.
pub(super) fn secluded<T: Send>(
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    thread::scope(|scope| {
        thread::Builder::new()
            .stack_size(STACK)
            .spawn_scoped(scope, || swept::<_, DEEP>(work))
            .map_err(Error::Thread)?
            .join()
            .unwrap_or_else(|panic| panic::resume_unwind(panic))
    })
}

/// Does work that strews secrets over the stack, and overwrites what it left there.
pub(super) fn swept<T, const BYTES: usize>(work: impl FnOnce() -> T) -> T {
    let result = frame(work);
    zeroize_stack::<BYTES>();
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
    use crate::key::{Algorithm, Message, PrivateKey, Purpose, Stamp, Timestamp};

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
    #[test]
    fn no_signature_reaches_deeper_than_what_is_swept_behind_it() {
        let mut rng = rand_core::UnwrapErr(getrandom::SysRng);
        for (algorithm, swept) in [(Algorithm::Ed25519, SHALLOW), (Algorithm::Rsa4096, DEEP)] {
            let key = PrivateKey::generate(algorithm, &mut rng).unwrap();
            let stamp = Stamp {
                timestamp: Timestamp(1),
                nonce: "n".parse().unwrap(),
            };
            let data = String::new();
            let message = Message::new(&stamp, &Purpose::Login { data }).unwrap();
            // What is set up once is set up before.
            key.sign(&message).unwrap();
            paint();
            deep_down(|| drop(key.sign(&message).unwrap()));
            let stack = look();
            let clean = |part: &[u8]| part.iter().all(|byte| *byte == 0);
            let sweep = stack.windows(swept / 2).position(clean);
            let traces = sweep.unwrap_or(stack.len());
            assert!(traces < 64, "{algorithm}: {traces} bytes below the sweep");
        }
    }
}
