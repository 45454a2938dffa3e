//! Random values go to a server in their plain layouts and come back in the server's own: the same content.

use std::collections::{BTreeMap, BTreeSet};

use rdbkeeper::rdb::payload::{Payload, encode, footer_version_for};
use rdbkeeper::rdb::value::{FieldExpiries, plain_type};
use rdbkeeper::rdb::{FileVersion, LogicalType, ValueType};

use crate::cmd;
use crate::support::elements::{Owned, decoded, digest, encoded, fields_expire};
use crate::support::servers::{Kind, Server, each};
use crate::values::random::{CASES, random_value};

/// The plain types of every age in which this server takes such a value.
fn plain_types(kind: &Kind, logical: LogicalType, elements: &[Owned]) -> Vec<ValueType> {
    let own = FileVersion::of_number(kind.rdb_version());
    let mut found: Vec<ValueType> = Vec::new();
    let ages = [6, 9, 10, own.number].into_iter();
    for number in ages.filter(|number| *number <= own.number) {
        let plain = plain_type(logical, fields_expire(elements), own.family, number);
        if let Some(plain) = plain.filter(|plain| !found.contains(plain)) {
            found.push(plain);
        }
    }
    assert!(!found.is_empty(), "{logical}");
    found
}

/// What a server keeps of what it was given in this layout: none keeps what a layout can't hold.
fn content(value_type: ValueType, elements: Vec<Owned>) -> Vec<Owned> {
    let again = encoded(value_type, &elements);
    let mut elements = decoded(value_type, &again, usize::MAX).unwrap();
    match value_type.logical() {
        LogicalType::List | LogicalType::String | LogicalType::Stream => {}
        // In no order.
        _ => elements.sort_by_cached_key(|element| format!("{element:?}")),
    }
    elements
}

#[test]
fn values_written_plain_come_back_from_a_server_as_the_same() {
    each(|kind| {
        let server = Server::start(kind);
        let mut client = server.client();
        let own = FileVersion::of_number(kind.rdb_version());
        let mut sent = BTreeMap::new();
        let mut received = BTreeSet::new();
        for case in 0..CASES {
            let seed = 0x00c0_ffee + case * 7919 + u64::from(own.number);
            let (logical, elements) = random_value(seed, case, kind.has_hash_field_expiry());
            for plain in plain_types(kind, logical, &elements) {
                let what = format!("seed {seed}: a {logical} as {plain}");
                *sent.entry(plain.code()).or_insert(0) += 1;
                let footer = footer_version_for(plain, own.family, own.number).unwrap();
                let payload = encode(plain.code(), &[], &encoded(plain, &elements), footer);
                let restored = client.attempt(cmd!["RESTORE", "key", 0, payload, "REPLACE"]);
                assert_eq!(restored.unwrap().error(), None, "{what}");
                let dumped = client.run(cmd!["DUMP", "key"]).bytes();
                let dumped = Payload::parse(&dumped).unwrap_or_else(|e| panic!("{what}: {e}"));
                let value_type = dumped.value_type.unwrap();
                received.insert(value_type.code());
                for piece in [usize::MAX, 13] {
                    let again = decoded(value_type, dumped.value, piece)
                        .unwrap_or_else(|error| panic!("{what}: {value_type}: {error}"));
                    let [before, after] = [&elements, &again]
                        .map(|elements| digest(logical, elements, FieldExpiries::Count));
                    // Both in the same layout, so that what it can't hold is left out of both.
                    let [ours, theirs] =
                        [elements.clone(), again].map(|elements| content(plain, elements));
                    assert_eq!(ours, theirs, "{what}: {value_type}");
                    assert_eq!(before, after, "{what}: {value_type}");
                }
            }
        }
        let met = |codes: &[u8]| codes.iter().all(|code| received.contains(code));
        eprintln!("{kind}: sent {sent:?}, received {received:?}");
        assert!(met(&[0, 2, 4, 5]), "{received:?}");
        if kind.has_hash_field_expiry() {
            let code = if kind.is_valkey() { 22 } else { 24 };
            assert!(sent.contains_key(&code) && met(&[code]));
        }
        if kind.speaks_redis(7, 2) {
            assert!(sent.contains_key(&15) && sent.contains_key(&19) && met(&[21]));
        }
    });
}
