#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::super::length;
use super::*;
use crate::rdb::{Family, LogicalType, ValueType};

// The other tests have it too, each what it needs of it.
#[path = "../../../tests/shared/elements.rs"]
#[allow(dead_code, unreachable_pub)]
mod elements;

use self::elements::{Owned, Score, decoded, encoded};

fn value_type(code: u8, family: Family) -> ValueType {
    ValueType::new(code, family).unwrap()
}

fn digest(logical: LogicalType, elements: &[Owned]) -> u128 {
    elements::digest(logical, elements, FieldExpiries::Count)
}

fn bytes() -> impl Strategy<Value = Vec<u8>> + Clone {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..20),
        proptest::collection::vec(any::<u8>(), 60..70),
        any::<i64>().prop_map(|int| int.to_string().into_bytes()),
        (0usize..20_000).prop_map(|length| vec![b'r'; length]),
    ]
}

fn id() -> impl Strategy<Value = StreamId> + Clone {
    (0..1u64 << 45, prop_oneof![0..5u64, any::<u64>()]).prop_map(|(ms, seq)| StreamId { ms, seq })
}

fn stream() -> impl Strategy<Value = Vec<Owned>> {
    let pairs = proptest::collection::vec((bytes(), bytes()), 1..4);
    let entries = proptest::collection::btree_map(id(), pairs, 0..150);
    let pending =
        proptest::collection::btree_map(id(), (any::<i64>(), any::<u32>(), 0..3usize), 0..9);
    let group = (bytes(), id(), proptest::option::of(0..9u64), pending);
    let groups = proptest::collection::vec(group, 0..3);
    (entries, groups, any::<u64>(), id()).prop_map(|(entries, groups, added, max_deleted_id)| {
        let mut elements = Vec::new();
        let first_id = entries.keys().next().copied().unwrap_or_default();
        let last_id = entries.keys().last().copied().unwrap_or_default();
        let length = entries.len() as u64;
        for (id, pairs) in entries {
            elements.push(Owned::Entry(id, pairs));
        }
        elements.push(Owned::Stream(StreamFacts {
            length,
            last_id,
            since_7: Some(StreamHistory {
                first_id,
                max_deleted_id,
                entries_added: added,
            }),
        }));
        for (name, last_id, entries_read, pending) in groups {
            elements.push(Owned::Group(name, last_id, entries_read));
            for consumer in 0..3usize {
                let active = (consumer > 0).then_some(consumer as i64);
                elements.push(Owned::Consumer(vec![b'c', consumer as u8], 77, active));
                for (id, (delivered_ms, deliveries, owner)) in &pending {
                    if *owner == consumer {
                        elements.push(Owned::Pending(Pending {
                            id: *id,
                            delivered_ms: *delivered_ms,
                            deliveries: u64::from(*deliveries),
                        }));
                    }
                }
            }
            elements.push(Owned::GroupEnd);
        }
        elements
    })
}

/// A value of any type that has a plain form, with that form.
fn value() -> impl Strategy<Value = (ValueType, Vec<Owned>)> {
    use proptest::collection::vec;
    let score = prop_oneof![
        any::<f64>().prop_filter("one NaN is as good as another", |score| !score.is_nan()),
        Just(-0.0),
        Just(f64::INFINITY),
        (-1000..1000i32).prop_map(f64::from),
    ];
    let expiry = proptest::option::of(1..i64::MAX);
    let scored = (bytes(), score).prop_map(|(member, score)| Owned::Scored(member, Score(score)));
    let field = (bytes(), bytes()).prop_map(|(field, value)| Owned::Field(field, value, None));
    let expiring = (bytes(), bytes(), expiry);
    let expiring = expiring.prop_map(|(field, value, at)| Owned::Field(field, value, at));
    let of = |code, family| move |elements| (value_type(code, family), elements);
    prop_oneof![
        bytes().prop_map(|bytes| (value_type(0, Family::Redis), vec![Owned::String(bytes)])),
        vec(bytes().prop_map(Owned::Item), 0..80).prop_map(of(1, Family::Redis)),
        vec(bytes().prop_map(Owned::Item), 0..80).prop_map(of(2, Family::Redis)),
        vec(scored.clone(), 0..80).prop_map(of(3, Family::Redis)),
        vec(scored, 0..80).prop_map(of(5, Family::Redis)),
        vec(field, 0..80).prop_map(of(4, Family::Redis)),
        vec(expiring.clone(), 0..80).prop_map(of(24, Family::Redis)),
        vec(expiring, 0..80).prop_map(of(22, Family::Valkey)),
        stream().prop_map(of(21, Family::Redis)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_encoded_decodes_to_the_same_however_it_is_cut(
        (value_type, elements) in value(),
        piece in prop_oneof![1..40usize, Just(usize::MAX)],
    ) {
        let bytes = encoded(value_type, &elements);
        prop_assert_eq!(decoded(value_type, &bytes, piece).unwrap(), elements);
    }

    #[test]
    fn a_value_that_is_cut_or_goes_on_is_not_whole((value_type, elements) in value(), at in any::<prop::sample::Index>()) {
        let mut bytes = encoded(value_type, &elements);
        prop_assert!(decoded(value_type, &bytes[..at.index(bytes.len())], 64).is_err());
        bytes.push(0);
        prop_assert!(decoded(value_type, &bytes, 64).is_err());
    }

    #[test]
    fn any_bytes_are_decoded_or_refused_and_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        code in 0..28u8,
        piece in 1..9usize,
    ) {
        for family in [Family::Redis, Family::Valkey] {
            if let Some(value_type) = ValueType::new(code, family) {
                let whole = decoded(value_type, &bytes, usize::MAX);
                prop_assert_eq!(whole.ok(), decoded(value_type, &bytes, piece).ok());
            }
        }
    }

    #[test]
    fn a_damaged_value_never_panics((value_type, elements) in value(), at in any::<prop::sample::Index>(), bit in 0..8u32) {
        let mut bytes = encoded(value_type, &elements);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let _ = decoded(value_type, &bytes, 4096);
    }

    #[test]
    fn contents_are_told_apart_and_order_counts_where_there_is_one((value_type, mut elements) in value()) {
        let logical = value_type.logical();
        let before = digest(logical, &elements);
        if logical == LogicalType::Stream {
            return Ok(());
        }
        prop_assert_eq!(before, digest(logical, &elements));
        let same = elements.iter().all(|element| *element == elements[0]);
        elements.reverse();
        let palindrome = elements.iter().eq(elements.iter().rev());
        let reversed = digest(logical, &elements);
        prop_assert_eq!(before == reversed, logical != LogicalType::List || palindrome);
        let by = 1.min(elements.len());
        elements.rotate_left(by);
        if logical != LogicalType::List || same {
            prop_assert_eq!(before, digest(logical, &elements));
        }
        if elements.pop().is_some() {
            prop_assert_ne!(before, digest(logical, &elements));
        }
    }
}

#[test]
fn a_stream_without_history_gets_what_a_newer_server_would_assume() {
    let entry = |ms| {
        Owned::Entry(
            StreamId { ms, seq: 1 },
            vec![(b"f".to_vec(), b"v".to_vec())],
        )
    };
    let last_id = StreamId { ms: 9, seq: 1 };
    let facts = StreamFacts {
        length: 2,
        last_id,
        since_7: None,
    };
    let elements = [entry(5), entry(9), Owned::Stream(facts)];
    let new = value_type(21, Family::Redis);
    let read = decoded(new, &encoded(new, &elements), usize::MAX).unwrap();
    let Some(Owned::Stream(read)) = read.last() else {
        panic!("no facts");
    };
    assert_eq!(
        read.since_7,
        Some(StreamHistory {
            first_id: StreamId { ms: 5, seq: 1 },
            max_deleted_id: StreamId::default(),
            entries_added: 2,
        })
    );
    let old = value_type(15, Family::Redis);
    assert_eq!(decoded(old, &encoded(old, &elements), 3).unwrap(), elements);
}

#[test]
fn deleted_entries_are_left_out_and_ids_run_over() {
    use crate::rdb::packed::ListpackWriter;
    let mut node = ListpackWriter::new();
    // One entry, one deleted, one usual field.
    [1, 1, 1].into_iter().for_each(|int| node.int(int));
    node.bytes(b"f");
    node.int(0);
    for (flags, ms, seq) in [(3, 0, 0), (2, 4, -6)] {
        [flags, ms, seq].into_iter().for_each(|int| node.int(int));
        node.bytes(b"v");
        node.int(4);
    }
    let mut bytes = Vec::new();
    length::encode(1, &mut bytes);
    let id = [0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 7];
    length::encode_string(&id, &mut bytes);
    length::encode_string(&node.finish(), &mut bytes);
    [1, 13, 1, 0]
        .into_iter()
        .for_each(|length| length::encode(length, &mut bytes));
    let read = decoded(value_type(15, Family::Redis), &bytes, 5).unwrap();
    let entry = Owned::Entry(
        StreamId { ms: 13, seq: 1 },
        vec![(b"f".to_vec(), b"v".to_vec())],
    );
    assert_eq!(read[0], entry);
    assert_eq!(read.len(), 2);
}

#[test]
fn swapped_values_are_another_content() {
    let field = |field: &str, value: &str| Owned::Field(field.into(), value.into(), None);
    let hash = LogicalType::Hash;
    assert_ne!(
        digest(hash, &[field("a", "1"), field("b", "2")]),
        digest(hash, &[field("a", "2"), field("b", "1")])
    );
    let expiring = Owned::Field(b"a".to_vec(), b"1".to_vec(), Some(5));
    assert_ne!(digest(hash, &[expiring]), digest(hash, &[field("a", "1")]));
    let list = LogicalType::List;
    let items = [Owned::Item(b"a".to_vec())];
    assert_ne!(digest(list, &items), digest(LogicalType::Set, &items));
}

#[test]
fn a_zero_is_the_same_whatever_its_sign_since_servers_lose_that() {
    let scored = |score| [Owned::Scored(b"m".to_vec(), Score(score))];
    let of = |score| digest(LogicalType::Zset, &scored(score));
    assert_eq!(of(0.0), of(-0.0));
    assert_ne!(of(1.0), of(-1.0));
    let zset = value_type(5, Family::Redis);
    let again = decoded(zset, &encoded(zset, &scored(-0.0)), 64).unwrap();
    // Here it is not lost.
    assert!(matches!(&again[..], [Owned::Scored(_, Score(zero))] if zero.is_sign_negative()));
}

#[test]
fn each_server_is_given_what_it_knows() {
    use FieldsExpire::{No, Yes};
    let code = |logical, expire, family, version| {
        plain_type(logical, expire, family, version).map(ValueType::code)
    };
    let (redis, valkey) = (Family::Redis, Family::Valkey);
    assert_eq!(code(LogicalType::Zset, No, redis, 7), Some(3));
    assert_eq!(code(LogicalType::Zset, No, redis, 9), Some(5));
    assert_eq!(code(LogicalType::Hash, No, redis, 6), Some(4));
    assert_eq!(code(LogicalType::Hash, Yes, redis, 11), None);
    assert_eq!(code(LogicalType::Hash, Yes, redis, 12), Some(24));
    assert_eq!(code(LogicalType::Hash, Yes, valkey, 11), None);
    assert_eq!(code(LogicalType::Hash, Yes, valkey, 80), Some(22));
    assert_eq!(code(LogicalType::Stream, No, redis, 8), None);
    assert_eq!(code(LogicalType::Stream, No, redis, 9), Some(15));
    assert_eq!(code(LogicalType::Stream, No, valkey, 80), Some(21));
    assert_eq!(code(LogicalType::Module, No, redis, 12), None);
}
