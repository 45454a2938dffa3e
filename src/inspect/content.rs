//! What a backup's keys add up to: by type and by the beginning of their names, how many, how large, how long they have
//! left; and the largest of them.
//!
//! One reading, in which no value is decoded. Sizes are those in the RDB file, name and expiry included: what the keys
//! take in a server's memory is another number. Names are cut before what may be an ID.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::convert::Infallible;

use jiff::Timestamp;
use serde::Serialize;

use crate::lossless;
use crate::prefixes::cut::{Shape, cut, ends_hard, masked, parent};
use crate::prefixes::{Prefixes, Tally};
use crate::rdb::{Event, Handler, KeyHead, LogicalType};
use crate::selection::KeyNames;

/// A prefix that fewer keys share is not listed where names are masked.
const SHARED_BY: u64 = 8;

/// So many of the largest keys are listed.
const LARGEST: usize = 10;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Keys by what is left of their lifetime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Expiries {
    /// They never expire.
    pub none: u64,
    /// They are over.
    pub over: u64,
    /// Less than an hour.
    pub under_1h: u64,
    /// Less than a day.
    pub under_1d: u64,
    /// Less than 30 days.
    pub under_30d: u64,
    /// More.
    pub more: u64,
}

impl Expiries {
    fn of(expire_at_ms: Option<i64>, now_ms: i64) -> Expiries {
        let mut one = Expiries::default();
        let Some(at) = expire_at_ms else {
            one.none = 1;
            return one;
        };
        let place = match at.saturating_sub(now_ms) {
            ..=0 => &mut one.over,
            1..HOUR_MS => &mut one.under_1h,
            HOUR_MS..DAY_MS => &mut one.under_1d,
            left if left < 30 * DAY_MS => &mut one.under_30d,
            _ => &mut one.more,
        };
        *place = 1;
        one
    }

    fn add(&mut self, other: &Expiries) {
        self.none += other.none;
        self.over += other.over;
        self.under_1h += other.under_1h;
        self.under_1d += other.under_1d;
        self.under_30d += other.under_30d;
        self.more += other.more;
    }
}

/// Keys, and what they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// How many.
    pub keys: u64,
    /// Their bytes in the RDB file.
    pub bytes: u64,
    /// How long they have left.
    pub expiry: Expiries,
}

impl Tally for Counts {
    fn keys(&self) -> u64 {
        self.keys
    }

    fn absorb(&mut self, other: &Counts) {
        self.keys += other.keys;
        self.bytes += other.bytes;
        self.expiry.add(&other.expiry);
    }
}

/// The keys of one type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OfType {
    /// The type.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Its keys.
    #[serde(flatten)]
    pub counts: Counts,
}

/// The keys of one prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OfPrefix {
    /// What the names begin with, and a `*`; or the whole name of one key. Never any part of an ID.
    pub prefix: String,
    /// Its keys.
    #[serde(flatten)]
    pub counts: Counts,
}

/// The keys of all other prefixes, and those whose names have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Others {
    /// How many prefixes; those that were merged before the end are not counted.
    pub prefixes: usize,
    /// Their keys.
    #[serde(flatten)]
    pub counts: Counts,
}

/// A key that is larger than most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Large {
    /// Its database.
    pub db: u32,
    /// Its name, masked unless asked for.
    pub key: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Its encoding in the file.
    pub encoding: &'static str,
    /// Its bytes in the RDB file.
    pub bytes: u64,
    /// When it expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expire_at_ms: Option<i64>,
}

/// What a backup's keys add up to.
///
/// ```json
/// { "at": "2026-11-22T21:43:53Z",
///   "types": [ { "type": "string", "keys": 1000, "bytes": 412345,
///                "expiry": { "none": 0, "over": 3, "under_1h": 97, "under_1d": 900, "under_30d": 0, "more": 0 } } ],
///   "prefixes": [ { "prefix": "websauna_session*", "keys": 1000, … } ],
///   "other_prefixes": { "prefixes": 0, "keys": 0, … },
///   "largest": [ { "db": 1, "key": "\"websauna_session…\" (80 bytes)", "type": "string", "encoding": "string", "bytes": 8001 } ] }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Content {
    /// The moment that lifetimes are counted from.
    pub at: Timestamp,
    /// By type.
    pub types: Vec<OfType>,
    /// By prefix, those first that take the most bytes; at most 20.
    pub prefixes: Vec<OfPrefix>,
    /// All other prefixes.
    pub other_prefixes: Others,
    /// The largest keys, the largest first.
    pub largest: Vec<Large>,
}

/// Adds up. Drive it by a scan, then [`finish`](Survey::finish).
#[derive(Debug)]
pub struct Survey {
    now: Timestamp,
    names: KeyNames,
    types: BTreeMap<LogicalType, Counts>,
    prefixes: Prefixes<Counts>,
    largest: BinaryHeap<Reverse<Held>>,
    key: Vec<u8>,
    current: Option<Held>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    bytes: u64,
    db: u32,
    key: Vec<u8>,
    kind: LogicalType,
    encoding: &'static str,
    expire_at_ms: Option<i64>,
}

impl Survey {
    /// Lifetimes are counted from `now`. Masked, a name that has no ID in it is not listed whole either.
    pub fn new(now: Timestamp, names: KeyNames) -> Survey {
        Survey {
            now,
            names,
            types: BTreeMap::new(),
            prefixes: Prefixes::default(),
            largest: BinaryHeap::new(),
            key: Vec::new(),
            current: None,
        }
    }

    fn begin(&mut self, head: &KeyHead<'_>) {
        self.key.clear();
        // A damaged name is not this reading's business: its key is counted as one without a prefix.
        if let Ok(key) = head.key.decode() {
            self.key.extend_from_slice(&key);
        }
        self.current = Some(Held {
            bytes: head.raw.len() as u64,
            db: head.db.0,
            key: Vec::new(),
            kind: head.value_type.logical(),
            encoding: head.value_type.name(),
            expire_at_ms: head.expire_at_ms,
        });
    }

    fn end(&mut self) {
        let Some(mut held) = self.current.take() else {
            return;
        };
        let counts = Counts {
            keys: 1,
            bytes: held.bytes,
            expiry: Expiries::of(held.expire_at_ms, self.now.as_millisecond()),
        };
        self.types.entry(held.kind).or_default().absorb(&counts);
        let mut cut = cut(&self.key);
        if cut.shape == Shape::Whole && self.names == KeyNames::Masked {
            let before = parent(cut.prefix).filter(|prefix| ends_hard(prefix));
            cut.prefix = before.unwrap_or_default();
            cut.shape = Shape::Other;
        }
        self.prefixes.tally(&cut).absorb(&counts);
        let smallest = self.largest.peek().map_or(0, |smallest| smallest.0.bytes);
        if self.largest.len() < LARGEST || held.bytes > smallest {
            held.key.clone_from(&self.key);
            self.largest.push(Reverse(held));
            if self.largest.len() > LARGEST {
                self.largest.pop();
            }
        }
    }

    /// What was found.
    pub fn finish(self) -> Content {
        let types = self.types.into_iter().map(|(kind, counts)| OfType {
            kind: kind.as_str(),
            counts,
        });
        let table = self.prefixes.finish(|counts| (counts.bytes, counts.keys));
        let (mut others, mut rest) = table.others;
        let mut prefixes = Vec::new();
        for (prefix, counts) in table.listed {
            // What few keys share may be a person's name or a token; what none share is no prefix.
            let tells = self.names == KeyNames::Masked && counts.keys < SHARED_BY;
            if tells || prefix == "*" {
                others += usize::from(prefix != "*");
                rest.absorb(&counts);
            } else {
                prefixes.push(OfPrefix { prefix, counts });
            }
        }
        let mut largest: Vec<Held> = self.largest.into_iter().map(|held| held.0).collect();
        largest.sort_unstable_by(|a, b| b.cmp(a));
        let largest = largest.into_iter().map(|held| Large {
            db: held.db,
            key: match self.names {
                KeyNames::Masked => masked(&held.key),
                KeyNames::Shown => lossless::text_of(&held.key),
            },
            kind: held.kind.as_str(),
            encoding: held.encoding,
            bytes: held.bytes,
            expire_at_ms: held.expire_at_ms,
        });
        Content {
            at: self.now,
            types: types.collect(),
            prefixes,
            other_prefixes: Others {
                prefixes: others,
                counts: rest,
            },
            largest: largest.collect(),
        }
    }
}

impl Handler for Survey {
    type Error = Infallible;

    fn event(&mut self, event: Event<'_>) -> Result<(), Infallible> {
        match event {
            Event::Key(head) => self.begin(&head),
            Event::Value(fragment) => {
                if let Some(held) = &mut self.current {
                    held.bytes += fragment.len() as u64;
                }
            }
            Event::ValueEnd => self.end(),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::rdb::{DbIndex, Family, FileVersion, NewKey, Writer, scan_bytes};

    fn surveyed(keys: &[(&[u8], usize, Option<i64>)], now_ms: i64, names: KeyNames) -> Content {
        let version = FileVersion {
            family: Family::Redis,
            number: 11,
        };
        let mut writer = Writer::new(Vec::new(), version).unwrap();
        writer.select_db(DbIndex(3)).unwrap();
        for (key, size, expire_at_ms) in keys {
            let head = NewKey {
                expire_at_ms: *expire_at_ms,
                ..NewKey::new(key, 0)
            };
            let mut value = vec![0x80];
            value.extend_from_slice(&(*size as u32).to_be_bytes());
            value.resize(5 + size, b'v');
            writer.key(&head, &value).unwrap();
        }
        let (file, _) = writer.finish().unwrap();
        let now = Timestamp::from_millisecond(now_ms).unwrap();
        let mut survey = Survey::new(now, names);
        scan_bytes(&file, &mut survey).unwrap();
        survey.finish()
    }

    #[test]
    fn what_is_left_of_a_lifetime_falls_into_its_place() {
        let now = 1_795_383_079_411;
        for (expire_at_ms, wanted) in [
            (None, "none"),
            (Some(now), "over"),
            (Some(i64::MIN), "over"),
            (Some(now + 1), "under_1h"),
            (Some(now + HOUR_MS - 1), "under_1h"),
            (Some(now + HOUR_MS), "under_1d"),
            (Some(now + DAY_MS), "under_30d"),
            (Some(now + 30 * DAY_MS - 1), "under_30d"),
            (Some(now + 30 * DAY_MS), "more"),
            (Some(i64::MAX), "more"),
        ] {
            let found = serde_json::to_value(Expiries::of(expire_at_ms, now)).unwrap();
            let found: Vec<&String> = found
                .as_object()
                .unwrap()
                .iter()
                .filter(|(_, count)| **count == 1)
                .map(|(name, _)| name)
                .collect();
            assert_eq!(found, [wanted], "{expire_at_ms:?}");
        }
    }

    #[test]
    fn what_few_names_share_is_not_listed_unless_it_is_asked_for() {
        let mut names: Vec<String> = (0..8).map(|n| format!("cart:{n:032x}")).collect();
        names.extend(
            [
                "sess:alice:data",
                "sess:alice:cart",
                "deadbeef:cart",
                "celery",
            ]
            .map(str::to_owned),
        );
        let keys: Vec<(&[u8], usize, Option<i64>)> = names
            .iter()
            .map(|name| (name.as_bytes(), 1, None))
            .collect();
        let masked = surveyed(&keys, 0, KeyNames::Masked);
        let listed: Vec<&str> = masked
            .prefixes
            .iter()
            .map(|row| row.prefix.as_str())
            .collect();
        assert_eq!(listed, ["cart:*"]);
        assert_eq!(masked.other_prefixes.counts.keys, 4);
        let shown = surveyed(&keys, 0, KeyNames::Shown);
        assert!(shown.prefixes.iter().any(|row| row.prefix == "celery"));
    }

    #[test]
    fn sizes_add_up_and_the_largest_keys_come_first_with_masked_names() {
        let names: Vec<String> = (0..40).map(|n| format!("session:{n:032x}")).collect();
        let keys: Vec<(&[u8], usize, Option<i64>)> = names
            .iter()
            .enumerate()
            .map(|(n, name)| (name.as_bytes(), (n * 7) % 40, Some(5)))
            .collect();
        let content = surveyed(&keys, 1000, KeyNames::Masked);
        let [strings] = &content.types[..] else {
            panic!("{content:?}");
        };
        // Expiry 9, type 1, name 1 + 40, value 5 and its bytes.
        let wanted: u64 = (0..40).map(|n| 9 + 1 + 41 + 5 + (n * 7) % 40).sum();
        assert_eq!((strings.counts.keys, strings.counts.bytes), (40, wanted));
        assert_eq!(strings.counts.expiry.over, 40);
        assert_eq!(content.prefixes[0].prefix, "session:*");
        assert_eq!(content.prefixes[0].counts, strings.counts);
        let sizes: Vec<u64> = content.largest.iter().map(|large| large.bytes).collect();
        let wanted: Vec<u64> = (30..40).rev().map(|size| 56 + size).collect();
        assert_eq!(sizes, wanted);
        assert_eq!(content.largest[0].key, "\"session:…\" (40 bytes)");
        assert_eq!(content.largest[0].db, 3);
        let shown = surveyed(&keys[..1], 0, KeyNames::Shown);
        assert_eq!(shown.largest[0].key, names[0]);
    }
}
