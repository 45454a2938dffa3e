//! Random values of every type.

use std::collections::{BTreeMap, BTreeSet};

use rdbkeeper::rdb::LogicalType;
use rdbkeeper::rdb::value::{Pending, StreamFacts, StreamHistory, StreamId};

use crate::support::data::Random;
use crate::support::elements::{Owned, Score};

/// Values for each server. A failure names its seed.
pub const CASES: u64 = 200;

/// Each kind of value is met equally often.
const KINDS: [LogicalType; 6] = [
    LogicalType::String,
    LogicalType::List,
    LogicalType::Set,
    LogicalType::Zset,
    LogicalType::Hash,
    LogicalType::Stream,
];

/// A value that depends on the seed alone; its type is that of the case.
pub fn random_value(seed: u64, case: u64, may_expire: bool) -> (LogicalType, Vec<Owned>) {
    let logical = KINDS[case as usize % KINDS.len()];
    let elements = value(&mut Random::new(seed), logical, may_expire);
    (logical, elements)
}

fn bytes(random: &mut Random) -> Vec<u8> {
    match random.below(9) {
        0 => Vec::new(),
        1 => random.below(1 << 20).to_string().into_bytes(),
        2 => random.next().cast_signed().to_string().into_bytes(),
        3 => format!("00{}", random.below(100)).into_bytes(),
        4 => {
            let length = random.below(300);
            random.bytes(length)
        }
        5 => b"compress me ".repeat(random.below(60)),
        6 if random.below(20) == 0 => random.bytes(9000),
        _ => {
            let length = random.below(20);
            random.bytes(length)
        }
    }
}

fn size(random: &mut Random) -> usize {
    match random.below(4) {
        0 => 1,
        3 => 1 + random.below(400),
        _ => 1 + random.below(30),
    }
}

fn score(random: &mut Random) -> f64 {
    match random.below(6) {
        0 => f64::INFINITY,
        1 => f64::NEG_INFINITY,
        2 => -0.0,
        3 => random.next().cast_signed() as f64,
        4 => random.below(1000) as f64 / 8.0,
        // Neither infinite nor NaN.
        _ => f64::from_bits(random.next() & !(1 << 62)),
    }
}

fn value(random: &mut Random, logical: LogicalType, may_expire: bool) -> Vec<Owned> {
    let size = size(random);
    match logical {
        LogicalType::String => vec![Owned::String(bytes(random))],
        LogicalType::List => (0..size).map(|_| Owned::Item(bytes(random))).collect(),
        LogicalType::Set => {
            let members: BTreeSet<_> = (0..size).map(|_| bytes(random)).collect();
            members.into_iter().map(Owned::Item).collect()
        }
        LogicalType::Zset => {
            let members: BTreeMap<_, _> =
                (0..size).map(|_| (bytes(random), score(random))).collect();
            let members = members.into_iter();
            members
                .map(|(member, score)| Owned::Scored(member, Score(score)))
                .collect()
        }
        LogicalType::Hash => {
            let expire = if may_expire { random.below(3) } else { 0 };
            let fields: BTreeMap<_, _> =
                (0..size).map(|_| (bytes(random), bytes(random))).collect();
            let fields = fields.into_iter();
            fields
                .map(|(field, value)| {
                    let expires = expire == 2 || (expire == 1 && random.below(3) == 0);
                    let late = 4_102_444_800_000 + (random.next() % 1_000_000_000_000) as i64;
                    Owned::Field(field, value, expires.then_some(late))
                })
                .collect()
        }
        _ => stream(random, size),
    }
}

fn stream(random: &mut Random, size: usize) -> Vec<Owned> {
    let size = if random.below(5) == 0 { 0 } else { size };
    let mut id = StreamId {
        ms: random.next() % 2_000_000_000_000,
        seq: random.next() % 3,
    };
    let mut ids = Vec::new();
    let mut elements = Vec::new();
    for _ in 0..size {
        id = match random.below(3) {
            0 => StreamId {
                seq: id.seq.saturating_add(1 + random.next() % 9),
                ..id
            },
            1 => StreamId {
                ms: id.ms + 1 + random.next() % 70_000,
                seq: random.next() >> 2,
            },
            _ => StreamId {
                ms: id.ms + 1,
                seq: 0,
            },
        };
        ids.push(id);
        let pairs = (0..=random.below(3)).map(|at| match random.below(3) {
            0 => (bytes(random), bytes(random)),
            _ => (format!("field {at}").into_bytes(), bytes(random)),
        });
        elements.push(Owned::Entry(id, pairs.collect()));
    }
    let first_id = ids.first().copied().unwrap_or_default();
    let last_id = StreamId {
        ms: id.ms + random.next() % 3,
        seq: id.seq.saturating_add(random.next() % 3),
    };
    elements.push(Owned::Stream(StreamFacts {
        length: size as u64,
        last_id,
        since_7: Some(StreamHistory {
            first_id,
            max_deleted_id: StreamId {
                ms: id.ms - random.next() % 3 % (id.ms + 1),
                seq: 0,
            },
            entries_added: size as u64 + random.next() % 1000,
        }),
    }));
    for group in 0..random.below(4) {
        let name = [vec![group as u8], bytes(random)].concat();
        let read = (random.below(2) == 0).then(|| random.next() % (size as u64 + 1));
        elements.push(Owned::Group(name, last_id, read));
        // Each pending entry belongs to one consumer; the first is of an entry that is no longer there.
        let mut pending: Vec<StreamId> = ids
            .iter()
            .copied()
            .filter(|_| random.below(3) == 0)
            .collect();
        pending.insert(0, StreamId { ms: 0, seq: 7 });
        let consumers = random.below(4);
        let owners: Vec<usize> = pending
            .iter()
            .map(|_| random.below(consumers.max(1)))
            .collect();
        // A radix tree's order is that of the names.
        for consumer in 0..consumers {
            let seen = 1_700_000_000_000 + random.below(1000) as i64;
            let active = (random.below(3) > 0).then_some(seen - 5);
            elements.push(Owned::Consumer(
                [vec![consumer as u8], bytes(random)].concat(),
                seen,
                active,
            ));
            for (id, owner) in pending.iter().zip(&owners) {
                if *owner == consumer {
                    elements.push(Owned::Pending(Pending {
                        id: *id,
                        delivered_ms: 1_650_000_000_000 + random.below(1 << 30) as i64,
                        deliveries: 1 + random.next() % 70_000,
                    }));
                }
            }
        }
        elements.push(Owned::GroupEnd);
    }
    elements
}
