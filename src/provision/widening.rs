//! Whether a change gives more than there was, or takes a way in.

use crate::{
    exchange::{Feature, Whitelisted},
    store::Specification,
};

/// Tells whether a key can do no more after a change than before: no other right, from no other
/// place, without a restriction less.
pub fn gives_no_more(is: &Specification, wish: &Specification) -> bool {
    wish.scope.is_within(&is.scope)
        && narrows_list(&is.whitelist, &wish.whitelist)
        && keeps(&is.features, &wish.features)
}

/// An empty whitelist lets in everybody.
fn narrows_list(is: &[Whitelisted], wish: &[Whitelisted]) -> bool {
    is.is_empty() || (!wish.is_empty() && wish.iter().all(|ip| is.contains(ip)))
}

/// Tells whether no feature is taken away: one can be a restriction, so that its end gives rights.
pub fn keeps(is: &[Feature], wish: &[Feature]) -> bool {
    is.iter().all(|feature| wish.contains(feature))
}

/// Tells whether an address that a key may be used from may not be one any more.
pub fn shuts_out(is: &[Whitelisted], wish: &[Whitelisted]) -> bool {
    !wish.is_empty() && (is.is_empty() || !is.iter().all(|address| wish.contains(address)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::key::Algorithm;

    const RESTRICTION: &str = "restricted_block_trades";

    fn list<T: std::str::FromStr<Err: std::fmt::Debug>>(words: &str) -> Vec<T> {
        words
            .split(' ')
            .filter(|w| !w.is_empty())
            .map(|w| w.parse().unwrap())
            .collect()
    }

    fn key(scope: &str, whitelist: &str, features: &str) -> Specification {
        Specification {
            algorithm: Algorithm::Ed25519,
            label: "bot".into(),
            scope: scope.parse().unwrap(),
            whitelist: list(whitelist),
            features: list(features),
        }
    }

    #[test]
    fn less_is_no_more_and_each_setting_can_be_more_by_itself() {
        let is = key("trade:read_write", "10.0.0.1 10.0.0.2", RESTRICTION);
        assert!(gives_no_more(&is, &is));
        assert!(gives_no_more(
            &is,
            &key("trade:read", "10.0.0.2", RESTRICTION)
        ));
        for more in [
            key("trade:read wallet:read", "10.0.0.1", RESTRICTION),
            key("trade:read", "10.0.0.3", RESTRICTION),
            key("trade:read", "", RESTRICTION),
            key("trade:read", "10.0.0.1", ""),
        ] {
            assert!(!gives_no_more(&is, &more), "{more:?}");
        }
        // Whoever lets everybody in is narrowed by any list, and by none.
        let open = key("trade:read", "", "");
        assert!(gives_no_more(
            &open,
            &key("trade:read", "10.0.0.9", RESTRICTION)
        ));
        assert!(gives_no_more(&open, &open));
    }

    #[test]
    fn whoever_may_come_from_an_address_no_more_is_shut_out() {
        for (is, wish, out) in [
            ("", "", false),
            ("10.0.0.1", "", false),
            ("10.0.0.1", "10.0.0.1 10.0.0.2", false),
            ("", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", true),
            ("10.0.0.1 10.0.0.2", "10.0.0.1", true),
        ] {
            assert_eq!(shuts_out(&list(is), &list(wish)), out, "{is} -> {wish}");
        }
    }
}
