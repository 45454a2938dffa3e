//! What a first reading found out about single keys, which a second one must know from their beginning.

use std::collections::BTreeMap;

use crate::rdb::value::StreamId;

/// Facts about keys, each named by its number: the first key of a backup is 1.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Keys that can't be held and are left out.
    pub lost: Numbers,
    /// Of streams: pending entries that are in them no more.
    pub ghosts: BTreeMap<u64, Vec<StreamId>>,
}

impl Known {
    pub(super) fn ghosts(&self, number: u64) -> &[StreamId] {
        self.ghosts.get(&number).map_or(&[], Vec::as_slice)
    }
}

/// A set of numbers: one bit for each that could be in it.
#[derive(Clone, Debug, Default)]
pub struct Numbers(Vec<u64>);

impl Numbers {
    /// Adds a number.
    pub fn insert(&mut self, number: u64) {
        let Ok(word) = usize::try_from(number / 64) else {
            return;
        };
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (number % 64);
    }

    /// Whether it is in it.
    pub fn contains(&self, number: u64) -> bool {
        let word = usize::try_from(number / 64).ok();
        let word = word.and_then(|word| self.0.get(word));
        word.is_some_and(|word| word >> (number % 64) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_it_when_they_were_added() {
        let mut numbers = Numbers::default();
        assert!(!numbers.contains(1));
        for number in [1, 63, 64, 5000] {
            numbers.insert(number);
        }
        for number in 0..10_000 {
            assert_eq!(
                numbers.contains(number),
                [1, 63, 64, 5000].contains(&number)
            );
        }
    }
}
