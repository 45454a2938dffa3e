//! Keys, and the bytes that they hold, estimated from a sample.
//!
//! MEMORY USAGE of every key would cost a server more than the sweep itself. The first keys of each class are
//! asked about, then one in so many: SCAN goes by hash and not by age or size, so they are as good as drawn by
//! lot. The trap: a few huge values among small ones are easily missed; the standard error tells what is known
//! about that, and the size of the sample is always given with the number.

use serde::Serialize;

/// So many of a class are asked about, whatever comes.
const FIRST: u64 = 32;
/// And then one in so many.
const ONE_IN: u64 = 64;

/// A class of keys, as it is counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    keys: u64,
    asked: u64,
    sampled: u64,
    sum: f64,
    squares: f64,
    /// Classes that were merged into this one, each estimated by itself.
    merged: Merged,
}

#[derive(Clone, Copy, Debug, Default)]
struct Merged {
    keys: u64,
    sampled: u64,
    bytes: f64,
    variance: f64,
}

impl Held {
    /// Whether the next key should be asked about.
    pub(super) fn wish(&mut self) -> bool {
        self.asked += 1;
        self.asked <= FIRST || self.asked.is_multiple_of(ONE_IN)
    }

    /// Counts a key.
    pub(super) fn add(&mut self, bytes: Option<u64>) {
        self.keys += 1;
        if let Some(bytes) = bytes {
            let bytes = bytes as f64;
            self.sampled += 1;
            self.sum += bytes;
            self.squares += bytes * bytes;
        }
    }

    /// How many keys it has.
    pub(super) fn keys(&self) -> u64 {
        self.keys + self.merged.keys
    }

    /// Takes the keys of another class.
    pub(super) fn absorb(&mut self, other: &Held) {
        let (bytes, variance) = other.weigh();
        self.merged.keys += other.keys();
        self.merged.sampled += other.sampled + other.merged.sampled;
        self.merged.bytes += bytes;
        self.merged.variance += variance;
    }

    /// Bytes and the variance of that estimate.
    fn weigh(&self) -> (f64, f64) {
        let Merged {
            bytes, variance, ..
        } = self.merged;
        if self.keys == 0 {
            return (bytes, variance);
        }
        let keys = self.keys as f64;
        if self.sampled == 0 {
            // What was merged into it is the best that is known.
            let mean = bytes / (self.merged.keys.max(1)) as f64;
            return (bytes + mean * keys, variance);
        }
        let sampled = self.sampled as f64;
        let mean = self.sum / sampled;
        let own = if self.sampled > 1 {
            let spread =
                (self.squares / sampled - mean * mean).max(0.0) * sampled / (sampled - 1.0);
            let unseen = (1.0 - sampled / keys).max(0.0);
            keys * keys * spread / sampled * unseen
        } else {
            0.0
        };
        (bytes + mean * keys, variance + own)
    }

    /// What is known of it.
    pub(super) fn held(&self) -> KeysHeld {
        let sampled = self.sampled + self.merged.sampled;
        let keys = self.keys();
        let (bytes, variance) = self.weigh();
        let known = sampled > 0 || keys == 0;
        KeysHeld {
            keys,
            bytes: known.then_some(bytes.round() as u64),
            bytes_error: known.then_some(variance.sqrt().round() as u64),
            sampled,
        }
    }
}

/// Keys, and what they hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KeysHeld {
    /// How many.
    pub keys: u64,
    /// The bytes that they take in the server's memory, estimated; `null` where the server told nothing.
    pub bytes: Option<u64>,
    /// The standard error of that; zero where every key was asked about.
    pub bytes_error: Option<u64>,
    /// How many keys were asked about.
    pub sampled: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_class_is_known_exactly() {
        let mut held = Held::default();
        for bytes in [100, 200, 600] {
            assert!(held.wish());
            held.add(Some(bytes));
        }
        let known = held.held();
        assert_eq!((known.keys, known.bytes), (3, Some(900)));
        assert_eq!((known.bytes_error, known.sampled), (Some(0), 3));
    }

    #[test]
    fn a_large_class_is_estimated_within_its_error() {
        let mut held = Held::default();
        let mut truth = 0_u64;
        for index in 0..200_000_u64 {
            let bytes = 500 + (index.wrapping_mul(2_654_435_761) >> 7) % 1000;
            truth += bytes;
            let wish = held.wish();
            held.add(wish.then_some(bytes));
        }
        let known = held.held();
        let off = known.bytes.unwrap_or(0).abs_diff(truth);
        let error = known.bytes_error.unwrap_or(0);
        assert!(error > 0 && off < 5 * error, "{known:?}, truth {truth}");
        assert!(known.sampled < 4000);
    }

    #[test]
    fn what_is_merged_keeps_its_own_estimate() {
        let (mut all, mut small) = (Held::default(), Held::default());
        for _ in 0..10 {
            all.add(Some(10));
        }
        small.add(Some(1_000_000));
        all.absorb(&small);
        assert_eq!(all.held().bytes, Some(1_000_100));
        assert_eq!(all.held().keys, 11);
    }

    #[test]
    fn without_an_answer_nothing_is_claimed() {
        let mut held = Held::default();
        assert_eq!(held.held().bytes, Some(0));
        held.add(None);
        assert_eq!(held.held().bytes, None);
    }
}
