//! By how much this clock and the exchange's differ.

use std::fmt;

/// From here on, in milliseconds, somebody should be told: at 60 seconds signatures are refused.
const NOTABLE: u64 = 5_000;
/// Clocks that differ by less, in milliseconds, are not what made a login fail.
const HARMFUL: u64 = 10_000;

/// By how many milliseconds this clock is ahead of the exchange's; behind it, where negative.
///
/// Its text is made to stand after "this clock is".
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Skew(i64);

impl Skew {
    /// Compares two clocks, in milliseconds since the Unix epoch.
    pub fn between(ours: u64, theirs: u64) -> Self {
        let apart = i64::try_from(ours.abs_diff(theirs)).unwrap_or(i64::MAX);
        Self(if ours < theirs { -apart } else { apart })
    }

    /// Tells whether somebody should be told, though logins still go through.
    pub const fn is_notable(self) -> bool {
        self.0.unsigned_abs() > NOTABLE
    }

    /// Tells whether it may be why a login was refused.
    pub const fn is_harmful(self) -> bool {
        self.0.unsigned_abs() > HARMFUL
    }
}

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.unsigned_abs() / 1000;
        let direction = if self.0 < 0 { "behind" } else { "ahead of" };
        write!(f, "{seconds} s {direction} the exchange's")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_by_how_much_and_which_way() {
        let cases = [
            (61_999, 1_000, "60 s ahead of the exchange's"),
            (1_000, 61_999, "60 s behind the exchange's"),
            (1_999, 1_000, "0 s ahead of the exchange's"),
            (u64::MAX, 0, "9223372036854775 s ahead of the exchange's"),
            (0, u64::MAX, "9223372036854775 s behind the exchange's"),
        ];
        for (ours, theirs, text) in cases {
            assert_eq!(Skew::between(ours, theirs).to_string(), text);
        }
    }

    #[test]
    fn matters_the_same_both_ways() {
        for (apart, notable, harmful) in [
            (0, false, false),
            (5_000, false, false),
            (5_001, true, false),
            (10_000, true, false),
            (10_001, true, true),
            (u64::MAX, true, true),
        ] {
            for skew in [Skew::between(apart, 0), Skew::between(0, apart)] {
                assert_eq!(skew.is_notable(), notable, "{skew}");
                assert_eq!(skew.is_harmful(), harmful, "{skew}");
            }
        }
    }
}
