use std::{panic, thread};

use zeroize::zeroize_stack;

use super::Error;

/// More than any of this work needs; given here so that the environment does not decide.
const STACK: usize = 1 << 20;
/// Deeper than any of this work reaches, in bytes.
pub(super) const DEEP: usize = 128 * 1024;
/// Four times as deep as an Ed25519 signature reaches, in bytes.
pub(super) const SHALLOW: usize = 8 * 1024;

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
