//! The keys that were on the target before and stayed there: what they hold is not the backup's.
//!
//! A run counts them; a comparison afterwards has to know which they were. Hashes are kept, up to a bound; beyond it a
//! comparison can't tell a key that was skipped from one that was written.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::key_hash;

/// So many are remembered: with the set's own cost 20 MiB at most.
const REMEMBERED: usize = 1 << 20;

/// Keys that were skipped. Clones share one memory.
#[derive(Clone, Debug, Default)]
pub struct SkippedKeys(Arc<Mutex<Memory>>);

#[derive(Debug, Default)]
struct Memory {
    hashes: HashSet<u64>,
    overflowed: bool,
}

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// It was written.
    No,
    /// It was there, and stayed.
    Yes,
    /// Too many were skipped to remember them all.
    Perhaps,
}

impl SkippedKeys {
    /// Remembers one, by its database and name on the target.
    pub fn add(&self, db: u32, key: &[u8]) {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.hashes.len() < REMEMBERED {
            memory.hashes.insert(key_hash(db, key));
        } else {
            memory.overflowed = true;
        }
    }

    /// Whether a key was skipped.
    pub fn knows(&self, db: u32, key: &[u8]) -> Skipped {
        let memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.hashes.contains(&key_hash(db, key)) {
            Skipped::Yes
        } else if memory.overflowed {
            Skipped::Perhaps
        } else {
            Skipped::No
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_skipped_is_known_up_to_a_bound_and_beyond_it_nothing_is_claimed() {
        let skipped = SkippedKeys::default();
        let clone = skipped.clone();
        clone.add(0, b"a");
        assert_eq!(skipped.knows(0, b"a"), Skipped::Yes);
        assert_eq!(skipped.knows(1, b"a"), Skipped::No);
        assert_eq!(skipped.knows(0, b"b"), Skipped::No);
        for number in 0..REMEMBERED {
            clone.add(2, &number.to_le_bytes());
        }
        assert_eq!(skipped.knows(0, b"a"), Skipped::Yes);
        assert_eq!(skipped.knows(0, b"b"), Skipped::Perhaps);
    }
}
