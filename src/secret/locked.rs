//! Pages that are neither swapped out, dumped nor handed to a child, and descriptors that are not
//! inherited: the only unsafe code here.
//!
//! A secret has pages of its own, so 1,000 keys take 1,000 of them: 4 MiB of a limit
//! (`RLIMIT_MEMLOCK`) that is 8 MiB on today's systems. There are no guard pages, as mapping over
//! a reservation can fail half-way and leave a hole that another thread falls into.
#![allow(
    unsafe_code,
    reason = "the system's calls on memory, and the one signature made from it in place"
)]

#[cfg(target_os = "linux")]
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::{fmt, io, ptr, ptr::NonNull, slice};

use zeroize::Zeroize;

use super::Residence;

/// Bytes in pages of their own, in the best memory there is; wiped and given back when dropped.
///
/// ```
/// use derikey::secret::Locked;
/// let seed = Locked::new(&[&[1, 2], &[3]])?;
/// assert_eq!((seed.expose(), format!("{seed:?}")), (&[1, 2, 3][..], "[redacted]".into()));
/// # std::io::Result::Ok(())
/// ```
pub struct Locked {
    bytes: NonNull<u8>,
    length: usize,
    room: usize,
    residence: Residence,
}

// SAFETY: the pages belong to this value alone, and are only read while it is shared.
unsafe impl Send for Locked {}
// SAFETY: as above.
unsafe impl Sync for Locked {}

impl Locked {
    /// Copies a secret, given in parts, into pages of its own.
    ///
    /// # Errors
    /// That of the system when there is no memory at all. Where there is none that can be locked,
    /// it is [`Residence::Pageable`].
    pub fn new(parts: &[&[u8]]) -> io::Result<Self> {
        let length = parts.iter().map(|part| part.len()).sum();
        let room = room(length)?;
        let (bytes, residence) = take(room)?;
        // SAFETY: the pages are new, writable, zeroed, at least this long, and nobody else's.
        let mut rest = unsafe { slice::from_raw_parts_mut(bytes.as_ptr(), length) };
        for part in parts {
            let (here, behind) = rest.split_at_mut(part.len());
            here.copy_from_slice(part);
            rest = behind;
        }
        Ok(Self {
            bytes,
            length,
            room,
            residence,
        })
    }

    /// Shows the secret; every use of this is worth a look.
    pub fn expose(&self) -> &[u8] {
        // SAFETY: `new` wrote this many bytes there; nobody writes again before they are dropped.
        unsafe { slice::from_raw_parts(self.bytes.as_ptr(), self.length) }
    }

    /// Returns the kind of memory it lies in.
    pub const fn residence(&self) -> Residence {
        self.residence
    }

    /// Signs with what lies here if it is an Ed25519 key: the seed, then the public half.
    ///
    /// aws-lc's own type would keep a copy on the heap, and to make one for each signature takes
    /// as long as the signature.
    pub fn sign_ed25519(&self, message: &[u8]) -> Option<[u8; 64]> {
        let (key, mut made) = (self.expose(), [0; 64]);
        let (text, length) = (message.as_ptr(), message.len());
        // SAFETY: all three pointers are to as many bytes as the function takes of each.
        let signed = key.len() == 64
            && unsafe {
                aws_lc_sys::ED25519_sign(made.as_mut_ptr(), text, length, key.as_ptr()) == 1
            };
        signed.then_some(made)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // SAFETY: as in `new`; this is the last use.
        unsafe { slice::from_raw_parts_mut(self.bytes.as_ptr(), self.length) }.zeroize();
        give_back(self.bytes, self.room);
    }
}

impl fmt::Debug for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Maps zeroed pages, in the best memory there is.
fn take(room: usize) -> io::Result<(NonNull<u8>, Residence)> {
    #[cfg(target_os = "linux")]
    if let Some(pages) = take_secret(room) {
        return Ok((pages, Residence::Secret));
    }
    take_locked(room)
}

fn take_locked(room: usize) -> io::Result<(NonNull<u8>, Residence)> {
    let pages = map(room, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)?;
    #[cfg(target_os = "linux")]
    let apart =
        advise(pages, room, libc::MADV_DONTDUMP) & advise(pages, room, libc::MADV_WIPEONFORK);
    #[cfg(not(target_os = "linux"))]
    let apart = true;
    // SAFETY: the pages are ours. The interpreter does not know the call.
    let locked = !cfg!(miri) && unsafe { libc::mlock(pages.as_ptr().cast(), room) } == 0;
    Ok(if locked && apart {
        (pages, Residence::Locked)
    } else {
        (pages, Residence::Pageable)
    })
}

#[cfg(target_os = "linux")]
fn take_secret(room: usize) -> Option<NonNull<u8>> {
    if cfg!(miri) {
        return None;
    }
    // SAFETY: it takes flags and returns a descriptor, or -1.
    let fd = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let fd = libc::c_int::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: the descriptor is new and ours; the pages outlive it.
    let file = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: a call on a descriptor.
    let sized = unsafe { libc::ftruncate(file.as_raw_fd(), room.try_into().ok()?) } == 0;
    // This counts towards the limit on locked memory, too.
    let pages = sized.then(|| map(room, libc::MAP_SHARED, fd).ok())??;
    if advise(pages, room, libc::MADV_DONTFORK) {
        return Some(pages);
    }
    give_back(pages, room);
    None
}

fn give_back(pages: NonNull<u8>, room: usize) {
    // SAFETY: the pages are ours, and their owner is being dropped or was never made.
    unsafe { libc::munmap(pages.as_ptr().cast(), room) };
}

/// Returns the size of the pages for so many bytes.
fn room(length: usize) -> io::Result<usize> {
    // SAFETY: a question.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) });
    let room = page
        .ok()
        .and_then(|page| length.max(1).checked_next_multiple_of(page));
    room.ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

fn map(room: usize, flags: libc::c_int, fd: libc::c_int) -> io::Result<NonNull<u8>> {
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: new pages, at a place that the system finds free.
    let pages = unsafe { libc::mmap(ptr::null_mut(), room, rights, flags, fd, 0) };
    let pages = NonNull::new(pages.cast()).filter(|_| pages != libc::MAP_FAILED);
    pages.ok_or_else(io::Error::last_os_error)
}

#[cfg(target_os = "linux")]
fn advise(pages: NonNull<u8>, room: usize, advice: libc::c_int) -> bool {
    // SAFETY: the pages are ours, and none of the advices used here changes what they hold.
    !cfg!(miri) && unsafe { libc::madvise(pages.as_ptr().cast(), room, advice) == 0 }
}

/// Keeps a descriptor that a secret comes from to this process: programs that it starts do not
/// inherit it.
///
/// # Errors
/// That of the system, for a number that is no open descriptor.
pub fn keep_from_children(descriptor: i32) -> io::Result<()> {
    // SAFETY: sets a flag; a number that is no descriptor is answered with an error.
    match unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
