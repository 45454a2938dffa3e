//! What a report says of each key prefix.

use serde::Serialize;

use super::facts::Expiry;
use super::sample::{Held, KeysHeld};
use crate::prefixes::{PrefixTable, Prefixes, Tally};

/// The keys of a prefix by whether they expire.
#[derive(Clone, Debug, Default)]
pub(super) struct Lasting {
    with_ttl: u64,
    without_ttl: Held,
}

impl Lasting {
    /// Whether the bytes of this key should be asked for.
    pub(super) fn wish(&mut self) -> bool {
        self.without_ttl.wish()
    }

    /// Counts a key.
    pub(super) fn add(&mut self, expiry: Option<Expiry>, bytes: Option<u64>) {
        if expiry == Some(Expiry::Never) {
            self.without_ttl.add(bytes);
        } else {
            self.with_ttl += 1;
        }
    }

    /// Keys without TTL.
    pub(super) fn without_ttl(&self) -> KeysHeld {
        self.without_ttl.held()
    }
}

impl Tally for Lasting {
    fn keys(&self) -> u64 {
        self.with_ttl + self.without_ttl.keys()
    }

    fn absorb(&mut self, other: &Lasting) {
        self.with_ttl += other.with_ttl;
        self.without_ttl.absorb(&other.without_ttl);
    }
}

/// The prefixes: those without TTL first, by what they hold.
pub(super) fn counted(prefixes: Prefixes<Lasting>) -> (Vec<PrefixCounts>, OtherPrefixes) {
    let PrefixTable { listed, others } = prefixes.finish(|lasting| {
        let held = lasting.without_ttl();
        (held.bytes.unwrap_or(0), held.keys, lasting.keys())
    });
    let listed = listed.into_iter().map(|(prefix, lasting)| PrefixCounts {
        prefix,
        keys: lasting.keys(),
        with_ttl: lasting.with_ttl,
        without_ttl: lasting.without_ttl(),
    });
    let (prefixes, rest) = others;
    let others = OtherPrefixes {
        prefixes,
        keys: rest.keys(),
        with_ttl: rest.with_ttl,
        without_ttl: rest.without_ttl(),
    };
    (listed.collect(), others)
}

/// A prefix and its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PrefixCounts {
    /// What the names begin with, and a `*`; or the whole name of one key. Bytes beyond ASCII are escaped as in Rust.
    /// Never any part of an ID.
    pub prefix: String,
    /// Its keys.
    pub keys: u64,
    /// Those with a TTL.
    pub with_ttl: u64,
    /// Those that never expire.
    pub without_ttl: KeysHeld,
}

/// All prefixes that are not listed, and the names that have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct OtherPrefixes {
    /// How many prefixes; those that were merged before the end are not counted.
    pub prefixes: usize,
    /// Their keys.
    pub keys: u64,
    /// Those with a TTL.
    pub with_ttl: u64,
    /// Those that never expire.
    pub without_ttl: KeysHeld,
}
