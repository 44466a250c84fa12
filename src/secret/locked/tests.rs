#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
use super::*;

/// Blocks of many sizes, in an order that is nobody's: each keeps what is in it, none overlaps
/// another, and a block that was given back is clean.
#[test]
fn the_heap_keeps_its_blocks_apart() {
    let mut heap = Heap::new();
    let mut held: Vec<(NonNull<u8>, usize, u8)> = Vec::new();
    let mut state = 1_u32;
    let mut draw = |below: usize| {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        usize::try_from(state >> 8).unwrap() % below
    };
    let mut most = 0;
    let rounds = if cfg!(miri) { 200 } else { 20_000 };
    for round in 0..rounds {
        let mark = u8::try_from(1 + round % 255).unwrap();
        match draw(4) {
            0 | 1 => {
                let length = draw(if round % 50 == 0 { 100_000 } else { 700 });
                let at = heap.allocate(length).unwrap();
                assert_eq!(at.addr().get() % 16, 0);
                bytes(at, length).fill(mark);
                held.push((at, length, mark));
            }
            2 if !held.is_empty() => {
                let (at, length, mark) = held.swap_remove(draw(held.len()));
                assert!(bytes(at, length).iter().all(|b| *b == mark));
                heap.release(at);
                assert!(bytes(at, length).iter().all(|b| *b == 0));
            }
            3 if !held.is_empty() => {
                let (at, old, mark) = held.swap_remove(draw(held.len()));
                let new = draw(2_000);
                let moved = heap.reallocate(at, new).unwrap();
                assert!(bytes(moved, new.min(old)).iter().all(|b| *b == mark));
                bytes(moved, new).fill(mark);
                held.push((moved, new, mark));
            }
            _ => {}
        }
        most = most.max(held.iter().map(|(_, length, _)| length + HEAD).sum());
    }
    for (at, length, mark) in held {
        assert!(bytes(at, length).iter().all(|b| *b == mark));
        heap.release(at);
    }
    // Blocks are used again, and are less than twice as long as what is in them.
    let taken: usize = heap.taken.iter().map(ExactSizeIterator::len).sum();
    assert!(taken < 2 * most + 2 * MOST, "{taken} for {most}");
}

#[test]
fn the_heap_refuses_what_is_absurd_and_leaves_what_is_not_its_own() {
    let mut heap = Heap::new();
    assert!(heap.allocate(usize::MAX).is_none());
    assert!(heap.allocate(MOST).is_none());
    assert!(heap.allocate(MOST - HEAD).is_some());
    assert!(heap.allocate(0).is_some());
    let mut other = [7_u8; 256];
    let foreign = NonNull::from(&mut other[128]);
    heap.release(foreign);
    assert!(heap.reallocate(foreign, 1).is_none());
    assert_eq!(other, [7; 256]);
}

#[test]
fn the_better_memory_is_the_greater() {
    assert!(Residence::Secret > Residence::Locked && Residence::Locked > Residence::Pageable);
    assert_eq!(Residence::Pageable.as_str(), "pageable");
}

// The interpreter has neither locked memory, nor /proc, nor aws-lc.
#[cfg(all(target_os = "linux", not(miri)))]
mod with_the_system {
    use super::*;

    /// The flags of the mapping in which an address lies (`man 5 proc_pid_smaps`).
    fn flags(at: *const u8) -> Option<String> {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in smaps.lines() {
            let range = line.split_whitespace().next().unwrap().split_once('-');
            let address = |hex| usize::from_str_radix(hex, 16).ok();
            if let Some((Some(from), Some(to))) = range.map(|(a, b)| (address(a), address(b))) {
                inside = (from..to).contains(&at.addr());
            } else if let Some(flags) = line.strip_prefix("VmFlags: ")
                && inside
            {
                return Some(format!(" {flags}"));
            }
        }
        None
    }

    fn has(at: *const u8, wanted: &[&str]) {
        let flags = flags(at).unwrap();
        for flag in wanted {
            assert!(flags.contains(&format!(" {flag} ")), "{flag}: {flags}");
        }
    }

    #[test]
    fn the_system_agrees_about_the_pages() {
        let mut heap = Heap::new();
        let at = heap.allocate(100).unwrap();
        let wanted: &[&str] = match heap.residence {
            Residence::Secret => &["lo", "dd", "dc"],
            Residence::Locked => &["lo", "dd", "wf"],
            Residence::Pageable => &["dd", "wf"],
        };
        has(at.as_ptr(), wanted);
    }

    #[test]
    fn without_memfd_secret_the_pages_are_locked_all_the_same() {
        let (pages, residence) = take_locked(LEAST).unwrap();
        assert_eq!(residence, Residence::Locked, "ulimit -l allows too little");
        has(pages.as_ptr(), &["lo", "dd", "wf"]);
        give_back(pages, LEAST);
        // Another thread may have been given the place; locked it is no more.
        assert!(flags(pages.as_ptr()).is_none_or(|flags| !flags.contains(" lo ")));
    }
}
