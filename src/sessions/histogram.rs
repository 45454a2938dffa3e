//! How long keys have left.

use serde::Serialize;

use super::facts::Expiry;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Keys by what is left of their lifetime. A year is 365 days; a bound belongs to what is below it, so that
/// a session that was used this moment and lives for a year is within the year.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Histogram {
    /// They have no TTL.
    pub no_ttl: u64,
    /// Up to an hour.
    pub up_to_1h: u64,
    /// Up to a day.
    pub up_to_1d: u64,
    /// Up to 7 days.
    pub up_to_7d: u64,
    /// Up to 30 days.
    pub up_to_30d: u64,
    /// Up to 365 days.
    pub up_to_1y: u64,
    /// Longer.
    pub more: u64,
}

impl Histogram {
    /// Counts a key.
    pub fn add(&mut self, expiry: Expiry, now_ms: i64) {
        let slot = match expiry {
            Expiry::Never => &mut self.no_ttl,
            Expiry::At(at) => match at.saturating_sub(now_ms) {
                left if left <= HOUR_MS => &mut self.up_to_1h,
                left if left <= DAY_MS => &mut self.up_to_1d,
                left if left <= 7 * DAY_MS => &mut self.up_to_7d,
                left if left <= 30 * DAY_MS => &mut self.up_to_30d,
                left if left <= 365 * DAY_MS => &mut self.up_to_1y,
                _ => &mut self.more,
            },
        };
        *slot += 1;
    }

    /// The classes with a name for people each, the shortest first and those without TTL at the end.
    pub fn classes(&self) -> [(&'static str, u64); 7] {
        [
            ("to 1h", self.up_to_1h),
            ("to 1d", self.up_to_1d),
            ("to 7d", self.up_to_7d),
            ("to 30d", self.up_to_30d),
            ("to 1y", self.up_to_1y),
            ("longer", self.more),
            ("none", self.no_ttl),
        ]
    }

    /// How many keys were counted.
    pub fn total(&self) -> u64 {
        self.classes().iter().map(|(_, keys)| keys).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bound_belongs_to_what_is_below_it() {
        let now = 1_000_000;
        let mut found = Histogram::default();
        for left in [
            -5,
            0,
            HOUR_MS,
            DAY_MS,
            7 * DAY_MS,
            30 * DAY_MS,
            365 * DAY_MS,
            366 * DAY_MS,
        ] {
            found.add(Expiry::At(now + left), now);
        }
        found.add(Expiry::Never, now);
        assert_eq!(found.classes().map(|(_, keys)| keys), [3, 1, 1, 1, 1, 1, 1]);
        assert_eq!(found.total(), 9);
    }

    proptest! {
        #[test]
        fn every_key_is_in_one_class(expiries in prop::collection::vec(any::<Option<i64>>(), 0..50), now in any::<i64>()) {
            let mut found = Histogram::default();
            for expiry in &expiries {
                found.add(expiry.map_or(Expiry::Never, Expiry::At), now);
            }
            prop_assert_eq!(found.total(), expiries.len() as u64);
        }
    }
}
