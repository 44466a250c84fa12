//! A heap for aws-lc in pages that are neither swapped out, dumped nor handed to a child, Ed25519
//! keys that lie there, registers that are cleared behind them, and descriptors that are not
//! inherited: the only unsafe code here.
//!
//! Private keys live where aws-lc allocates, and so does all that it makes of them to sign. There are
//! no guard pages, as mapping over a reservation can fail half-way and leave a hole that another
//! thread falls into.
#![allow(
    unsafe_code,
    reason = "the system's calls on memory, what aws-lc calls to have some, one signature, registers"
)]

#[cfg(target_os = "linux")]
use std::os::fd::{FromRawFd, OwnedFd};
use std::{
    ffi::{c_char, c_int, c_void},
    io,
    ops::Range,
    ptr,
    ptr::NonNull,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::Residence;

/// Lets aws-lc allocate from locked pages, and from nowhere else, from here on: private keys then
/// lie there, and nothing of them anywhere else.
///
/// To be called before anything else of this process has used aws-lc; the program does it first of
/// all. What was allocated before stays where it is, and is never freed. Returns whether it is so:
/// a process can choose its memory once.
pub fn shelter_keys() -> bool {
    // SAFETY: the functions keep the contract of malloc, realloc and free.
    let set = unsafe {
        aws_lc_sys::CRYPTO_set_mem_functions(Some(allocate), Some(reallocate), Some(release))
    };
    SHELTERED.fetch_or(set == 1, Ordering::SeqCst) || set == 1
}

/// Returns the worst kind of memory that keys were given so far.
pub(super) fn residence() -> Residence {
    if !SHELTERED.load(Ordering::SeqCst) {
        return Residence::Pageable;
    }
    let mut heap = heap();
    // Where nothing was taken yet, some is.
    match heap.allocate(1) {
        Some(probe) => heap.release(probe),
        None => return Residence::Pageable,
    }
    heap.residence
}

static SHELTERED: AtomicBool = AtomicBool::new(false);
static HEAP: Mutex<Heap> = Mutex::new(Heap::new());

fn heap() -> MutexGuard<'static, Heap> {
    HEAP.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Blocks of powers of two, each kind in a chain of those that are free. Pages are never given back:
/// there are no more of them than were once in use.
struct Heap {
    free: [*mut Block; KINDS],
    /// What nobody has used yet of the last pages taken.
    fresh: *mut Block,
    left: usize,
    /// All there is, as addresses.
    taken: Vec<Range<usize>>,
    residence: Residence,
}

/// What stands before each allocation, which it aligns as malloc does.
#[repr(C, align(16))]
struct Block {
    kind: usize,
    /// What was asked for; so much is wiped.
    length: usize,
    /// The next one that is free.
    next: *mut Self,
}

const HEAD: usize = size_of::<Block>();
const SMALLEST: usize = 2 * HEAD;
/// From [`SMALLEST`] to a MiB: no part of a key is nearly as long.
const KINDS: usize = 15;
/// Pages are taken by so much at least: there are limits to how much can be locked.
const LEAST: usize = 64 * 1024;
const MOST: usize = 1024 * 1024;

// SAFETY: the blocks belong to the heap, or to whoever was given them.
unsafe impl Send for Heap {}

impl Heap {
    const fn new() -> Self {
        Self {
            free: [ptr::null_mut(); KINDS],
            fresh: ptr::null_mut(),
            left: 0,
            taken: Vec::new(),
            residence: Residence::Secret,
        }
    }

    fn allocate(&mut self, length: usize) -> Option<NonNull<u8>> {
        let room = length.checked_add(HEAD)?.checked_next_power_of_two()?;
        let room = room.max(SMALLEST);
        let kind = usize::try_from((room / SMALLEST).ilog2()).ok()?;
        let first = self.free.get_mut(kind)?;
        let block = match NonNull::new(*first) {
            Some(block) => {
                // SAFETY: what is in a chain is a block of ours that nobody uses.
                *first = unsafe { block.as_ref() }.next;
                block
            }
            None => self.carve(room)?,
        };
        let next = ptr::null_mut();
        // SAFETY: the block is nobody else's, aligned, and longer than its head.
        unsafe {
            block.write(Block { kind, length, next });
            Some(block.add(1).cast())
        }
    }

    /// Cuts a block off the pages; takes more where too little is left.
    fn carve(&mut self, room: usize) -> Option<NonNull<Block>> {
        if self.left < room {
            let mut size = self.taken.iter().map(ExactSizeIterator::len).sum::<usize>();
            size = size.clamp(LEAST, MOST).max(room);
            let (pages, residence) = loop {
                let (pages, residence) = take(size)?;
                let smaller = size / 2;
                if residence > Residence::Pageable || smaller < LEAST.max(room) {
                    break (pages, residence);
                }
                give_back(pages, size);
                size = smaller;
            };
            let from = pages.as_ptr().addr();
            self.taken.push(from..from + size);
            self.residence = self.residence.min(residence);
            (self.fresh, self.left) = (pages.as_ptr().cast(), size);
        }
        let block = NonNull::new(self.fresh);
        // SAFETY: so much is left there.
        self.fresh = unsafe { self.fresh.byte_add(room) };
        self.left -= room;
        block
    }

    /// Returns the head of an allocation, if it is one of this heap.
    fn head(&self, at: NonNull<u8>) -> Option<NonNull<Block>> {
        let ours = |pages: &Range<usize>| pages.contains(&at.addr().get());
        // SAFETY: each of our allocations stands behind its head.
        let head = || unsafe { at.cast::<Block>().sub(1) };
        self.taken.iter().any(ours).then(head)
    }

    fn release(&mut self, at: NonNull<u8>) {
        let Some(mut block) = self.head(at) else {
            return;
        };
        // SAFETY: the allocation ends here, so block and bytes are ours again.
        unsafe {
            let head = block.as_mut();
            at.write_bytes(0, head.length);
            if let Some(first) = self.free.get_mut(head.kind) {
                head.next = *first;
                *first = block.as_ptr();
            }
        }
    }

    fn reallocate(&mut self, at: NonNull<u8>, length: usize) -> Option<NonNull<u8>> {
        // SAFETY: the allocation is in use, and so is its head.
        let old = unsafe { self.head(at)?.as_ref() }.length;
        let new = self.allocate(length)?;
        // SAFETY: both are as long as that, and different.
        unsafe { new.copy_from_nonoverlapping(at, old.min(length)) };
        self.release(at);
        Some(new)
    }
}

fn or_null(at: Option<NonNull<u8>>) -> *mut c_void {
    at.map_or(ptr::null_mut(), |at| at.as_ptr().cast())
}

unsafe extern "C" fn allocate(length: usize, _: *const c_char, _: c_int) -> *mut c_void {
    or_null(heap().allocate(length))
}

unsafe extern "C" fn reallocate(
    at: *mut c_void,
    length: usize,
    _: *const c_char,
    _: c_int,
) -> *mut c_void {
    or_null(match NonNull::new(at.cast()) {
        Some(at) => heap().reallocate(at, length),
        None => heap().allocate(length),
    })
}

unsafe extern "C" fn release(at: *mut c_void, _: *const c_char, _: c_int) {
    if let Some(at) = NonNull::new(at.cast()) {
        heap().release(at);
    }
}

/// Maps zeroed pages, in the best memory there is.
fn take(room: usize) -> Option<(NonNull<u8>, Residence)> {
    #[cfg(target_os = "linux")]
    if let Some(pages) = take_secret(room) {
        return Some((pages, Residence::Secret));
    }
    take_locked(room)
}

fn take_locked(room: usize) -> Option<(NonNull<u8>, Residence)> {
    let pages = map(room, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)?;
    #[cfg(target_os = "linux")]
    let apart =
        advise(pages, room, libc::MADV_DONTDUMP) & advise(pages, room, libc::MADV_WIPEONFORK);
    #[cfg(not(target_os = "linux"))]
    let apart = true;
    // SAFETY: the pages are ours. The interpreter does not know the call.
    let locked = !cfg!(miri) && unsafe { libc::mlock(pages.as_ptr().cast(), room) } == 0;
    Some(if locked && apart {
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
    let fd = c_int::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: the descriptor is new and ours; the pages outlive it.
    let file = unsafe { OwnedFd::from_raw_fd(fd) };
    rustix::fs::ftruncate(&file, room.try_into().ok()?).ok()?;
    // This counts towards the limit on locked memory, too.
    let pages = map(room, libc::MAP_SHARED, fd)?;
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

fn map(room: usize, flags: c_int, fd: c_int) -> Option<NonNull<u8>> {
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: new pages, at a place that the system finds free.
    let pages = unsafe { libc::mmap(ptr::null_mut(), room, rights, flags, fd, 0) };
    NonNull::new(pages.cast()).filter(|_| pages != libc::MAP_FAILED)
}

#[cfg(target_os = "linux")]
fn advise(pages: NonNull<u8>, room: usize, advice: c_int) -> bool {
    // SAFETY: the pages are ours, and none of the advices used here changes what they hold.
    !cfg!(miri) && unsafe { libc::madvise(pages.as_ptr().cast(), room, advice) == 0 }
}

/// An Ed25519 private key, where aws-lc keeps what is secret.
///
/// `aws-lc-rs` has one too, and around each signature asks the heap for eight blocks, and copies room
/// for the longest signature of any algorithm: two pages of stack above what there is to wipe.
pub(crate) struct Ed25519Secret(NonNull<u8>);

// SAFETY: nobody writes to it between its making and its end.
unsafe impl Send for Ed25519Secret {}
// SAFETY: as above.
unsafe impl Sync for Ed25519Secret {}

impl Ed25519Secret {
    /// Takes seed and public half in, which have to belong together.
    pub(crate) fn new(halves: &[u8; 64]) -> Option<Self> {
        // SAFETY: it reads so much, and returns a copy in room of its own, or none.
        let copy = unsafe { aws_lc_sys::OPENSSL_memdup(halves.as_ptr().cast(), halves.len()) };
        NonNull::new(copy.cast()).map(Self)
    }

    /// Returns the private half.
    pub(crate) const fn seed(&self) -> &[u8; 32] {
        // SAFETY: it was written when this was made, and lives as long.
        unsafe { self.0.cast().as_ref() }
    }

    /// Signs (RFC 8032, pure Ed25519).
    pub(crate) fn sign(&self, message: &[u8]) -> Option<[u8; 64]> {
        let mut made = [0; 64];
        // SAFETY: it reads the message and the 64 bytes of the key, and writes 64.
        let done = unsafe {
            let (text, length) = (message.as_ptr(), message.len());
            aws_lc_sys::ED25519_sign(made.as_mut_ptr(), text, length, self.0.as_ptr())
        };
        (done == 1).then_some(made)
    }
}

impl Drop for Ed25519Secret {
    fn drop(&mut self) {
        // SAFETY: it came from there; it is wiped there, too.
        unsafe { aws_lc_sys::OPENSSL_free(self.0.as_ptr().cast()) };
    }
}

/// Clears the registers that have room for part of a key: what is computed there stays until something
/// else needs them, and is in each core and each context that is saved until then.
///
/// On processors other than x86-64 it does nothing.
pub(crate) fn clear_registers() {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: it writes to registers that any call may write to, with instructions that are there.
    unsafe {
        use std::arch::{asm, is_x86_feature_detected};
        // In the short form, which clears the whole of each and does not slow the processor down.
        if is_x86_feature_detected!("avx512vl") {
            asm!(
                ".irp i, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31",
                r"vpxord xmm\i, xmm\i, xmm\i",
                ".endr",
                clobber_abi("sysv64"),
            );
        }
        if is_x86_feature_detected!("avx") {
            asm!("vzeroall", clobber_abi("sysv64"));
        } else {
            asm!(
                ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
                r"pxor xmm\i, xmm\i",
                ".endr",
                clobber_abi("sysv64"),
            );
        }
    }
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

/// What is in an allocation, or was: pages are never given back.
#[cfg(test)]
fn bytes<'a>(at: NonNull<u8>, length: usize) -> &'a mut [u8] {
    // SAFETY: the tests look at no block through two of these.
    unsafe { std::slice::from_raw_parts_mut(at.as_ptr(), length) }
}
