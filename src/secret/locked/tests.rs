#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
use super::*;

#[test]
fn what_went_in_comes_out() {
    let locked = Locked::new(&[b"seed", b"", b"public half"]).unwrap();
    assert_eq!(locked.expose(), b"seedpublic half");
    assert_eq!(format!("{locked:?} {locked:#?}"), "[redacted] [redacted]");
    assert!(Locked::new(&[]).unwrap().expose().is_empty());
}

#[test]
fn longer_than_a_page_is_as_good() {
    let long: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    let locked = Locked::new(&[&long[..5000], &long[5000..]]).unwrap();
    assert_eq!(locked.expose(), long);
}

#[test]
fn many_live_side_by_side_and_on_other_threads() {
    let all: Vec<Locked> = (0..20_u8)
        .map(|n| Locked::new(&[&[n; 64]]).unwrap())
        .collect();
    std::thread::scope(|scope| {
        for (n, locked) in (0_u8..).zip(&all) {
            scope.spawn(move || assert_eq!(locked.expose(), [n; 64]));
        }
    });
    std::thread::spawn(move || drop(all)).join().unwrap();
}

#[test]
fn the_better_memory_is_the_greater() {
    assert!(Residence::Secret > Residence::Locked && Residence::Locked > Residence::Pageable);
    assert_eq!(Residence::Pageable.as_str(), "pageable");
    assert!(Residence::available() >= Locked::new(&[b"x"]).unwrap().residence());
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
        let locked = Locked::new(&[b"a secret"]).unwrap();
        let wanted: &[&str] = match locked.residence() {
            Residence::Secret => &["lo", "dd", "dc"],
            Residence::Locked => &["lo", "dd", "wf"],
            Residence::Pageable => &["dd", "wf"],
        };
        has(locked.expose().as_ptr(), wanted);
    }

    #[test]
    fn without_memfd_secret_the_pages_are_locked_all_the_same() {
        let room = room(1).unwrap();
        let (pages, residence) = take_locked(room).unwrap();
        assert_eq!(residence, Residence::Locked, "ulimit -l allows no page");
        has(pages.as_ptr(), &["lo", "dd", "wf"]);
        give_back(pages, room);
    }

    #[test]
    fn dropped_pages_are_gone() {
        let locked = Locked::new(&[b"a secret"]).unwrap();
        let at = locked.expose().as_ptr();
        drop(locked);
        // Another thread may have been given the place; locked it is no more.
        assert!(flags(at).is_none_or(|flags| !flags.contains(" lo ")));
    }

    #[test]
    fn an_ed25519_key_signs_where_it_lies() {
        use ed25519_dalek::{Signer, SigningKey};
        let key = SigningKey::from_bytes(&[7; 32]);
        let locked = Locked::new(&[key.as_bytes(), key.verifying_key().as_bytes()]).unwrap();
        for message in [&b""[..], b"1576074319000\n1iqt2wls\n"] {
            let signature = locked.sign_ed25519(message).unwrap();
            assert_eq!(signature, key.sign(message).to_bytes());
        }
        for short in [&[][..], &[1; 63], &[1; 65]] {
            assert_eq!(Locked::new(&[short]).unwrap().sign_ed25519(b"x"), None);
        }
    }
}
