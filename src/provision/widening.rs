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
