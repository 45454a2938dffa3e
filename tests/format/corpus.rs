//! Files that real servers wrote, and what is expected of them.

use std::collections::{BTreeMap, BTreeSet};

use rdbkeeper::rdb::{
    Checksum, DbIndex, Event, FileError, LogicalType, StringRef, Summary, Unknown, from_fn,
    scan_bytes,
};

use crate::support::*;

/// The files whose checksum does not fit: both were edited by hand, to be refused.
const WRONG_CHECKSUM: [&str; 2] = ["librdb/future_v19", "librdb/invalid_chksum_v8"];

/// The files that hold something of which nothing is known.
const OPAQUE: [&str; 1] = ["librdb/redis_ent_opcode_ram_lru"];

#[test]
fn every_file_has_its_expected_outcome() {
    for (name, bytes) in corpus() {
        let (outcome, recorder) = record(&bytes);
        if WRONG_CHECKSUM.contains(&name.as_str()) {
            assert!(
                matches!(outcome, Err(FileError::Checksum { .. })),
                "{name}: {outcome:?}"
            );
            continue;
        }
        let report = outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(recorder.raw, bytes, "{name}: the raw bytes are the file");
        assert_eq!(report.bytes, bytes.len() as u64);
        assert_eq!(report.opaque.is_some(), OPAQUE.contains(&name.as_str()));
        let expected = match (&bytes[bytes.len() - 8..], bytes[8]) {
            (_, b'2'..=b'4') if bytes[7] == b'0' => Checksum::Absent,
            ([0, 0, 0, 0, 0, 0, 0, 0], _) => Checksum::Disabled,
            _ => Checksum::Verified,
        };
        assert_eq!(report.checksum, expected, "{name}");
    }
}

#[test]
fn keys_by_type_and_database_are_counted() {
    use LogicalType::{Hash, List, Module, Set, Stream, String, Zset};
    for (name, expected) in [
        ("librdb/100_lists", &[(List, 100)][..]),
        ("librdb/empty", &[]),
        ("librdb/hash_lp_v11", &[(Hash, 2)]),
        ("librdb/hash_lp_with_hexpire_v12", &[(Hash, 1)]),
        ("librdb/hash_with_expire_v12", &[(Hash, 1)]),
        ("librdb/module", &[(Module, 1)]),
        ("librdb/multiple_lists_strings", &[(String, 3), (List, 3)]),
        ("librdb/plain_list_v6", &[(List, 1)]),
        ("librdb/plain_set_v6", &[(Set, 1)]),
        ("librdb/plain_zset_2_v11", &[(Zset, 1)]),
        ("librdb/plain_zset_v6", &[(Zset, 1)]),
        ("librdb/single_key", &[(String, 1)]),
        ("librdb/stream_v11", &[(Stream, 1)]),
        ("redis/hash-zipmap", &[(Hash, 1)]),
        ("redis/zset-ziplist", &[(Zset, 1)]),
    ] {
        let mut types = BTreeMap::new();
        for db in summary_of(name).databases().values() {
            for (logical, keys) in db.logical_types() {
                *types.entry(logical).or_insert(0) += keys;
            }
        }
        assert_eq!(types, expected.iter().copied().collect(), "{name}");
    }
    let databases = summary_of("librdb/multiple_dbs").databases();
    let keys: Vec<_> = databases
        .iter()
        .map(|(db, counts)| (*db, counts.keys))
        .collect();
    assert_eq!(keys, [(DbIndex(0), 1), (DbIndex(1), 1), (DbIndex(2), 1)]);
    let expired = summary_of("librdb/set_expired_v11");
    assert_eq!((expired.keys(), expired.expires()), (1, 1));
    assert_eq!(summary_of("librdb/function2").functions, 2);
}

#[test]
fn the_keys_are_those_of_the_json_beside_a_file() {
    let mut compared = 0;
    for (name, bytes) in corpus() {
        let Some(objects) = expected(&format!("{name}_data")) else {
            continue;
        };
        let expected: BTreeSet<Vec<u8>> = objects
            .keys()
            .filter(|key| !key.starts_with("__"))
            .map(|key| key.clone().into_bytes())
            .collect();
        let mut found = BTreeSet::new();
        plain(scan_bytes(
            &bytes,
            &mut from_fn(|event| {
                if let Event::Key(head) = event {
                    found.insert(head.key.decode().unwrap().into_owned());
                }
                Ok(())
            }),
        ))
        .unwrap();
        assert_eq!(found, expected, "{name}");
        compared += 1;
    }
    assert!(compared > 15);
}

fn summary_of(name: &str) -> Summary {
    let (outcome, summary) = summary(&corpus_file(name));
    outcome.unwrap();
    summary
}

#[test]
fn what_a_file_says_of_its_server_is_kept() {
    let summary = summary_of("librdb/misc_with_stream");
    assert_eq!(summary.aux.server.as_deref(), Some("redis 6.2.13"));
    assert_eq!(summary.aux.ctime, Some(1_701_639_321));
    assert_eq!(summary.aux.used_memory, Some(3_826_648));
}

#[test]
fn eviction_facts_belong_to_their_keys() {
    let facts = |name: &str| {
        let mut facts = Vec::new();
        plain(scan_bytes(
            &corpus_file(name),
            &mut from_fn(|event| {
                if let Event::Key(head) = event {
                    facts.push((head.idle_s.is_some(), head.freq.is_some()));
                }
                Ok(())
            }),
        ))
        .unwrap();
        facts
    };
    assert!(
        facts("librdb/mem_policy_lru")
            .iter()
            .all(|fact| *fact == (true, false))
    );
    assert!(
        facts("librdb/mem_policy_lfu")
            .iter()
            .all(|fact| *fact == (false, true))
    );
}

#[test]
fn an_unknown_type_makes_the_rest_opaque_and_the_checksum_still_counts() {
    let mut bytes = corpus_file("librdb/redis_ent_opcode_ram_lru");
    let (outcome, recorder) = record(&bytes);
    let report = outcome.unwrap();
    assert_eq!(report.opaque, Some((280, Unknown::Type(b'k'))));
    assert_eq!(report.checksum, Checksum::Verified);
    assert_eq!(recorder.raw, bytes);
    bytes[300] ^= 1;
    assert!(matches!(record(&bytes).0, Err(FileError::Checksum { .. })));
}

#[test]
fn strings_decode_to_what_the_json_says() {
    let mut found = BTreeMap::new();
    let mut last = None;
    plain(scan_bytes(
        &corpus_file("librdb/string_int_encoded"),
        &mut from_fn(|event| {
            match event {
                Event::Key(head) => last = Some(head.key.decode().unwrap().into_owned()),
                Event::Value(raw) => {
                    let value = StringRef::parse(raw).unwrap().unwrap();
                    let value = String::from_utf8(value.decode().unwrap().into_owned()).unwrap();
                    found.insert(String::from_utf8(last.take().unwrap()).unwrap(), value);
                }
                _ => {}
            }
            Ok(())
        }),
    ))
    .unwrap();
    let expected: BTreeMap<_, _> = expected("librdb/string_int_encoded")
        .unwrap()
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.as_str()?.to_owned())))
        .collect();
    assert!(found.len() > 20);
    assert_eq!(found, expected);
}

#[test]
fn compressed_strings_inflate() {
    let mut values = Vec::new();
    for name in [
        "librdb/string_lzf",
        "redis/encodings",
        "librdb/multiple_lists_strings",
    ] {
        plain(scan_bytes(
            &corpus_file(name),
            &mut from_fn(|event| {
                if let Event::Value(raw) = event
                    && raw[0] == 0xc3
                {
                    let value = StringRef::parse(raw).unwrap().unwrap();
                    values.push(value.decode().unwrap().into_owned());
                }
                Ok(())
            }),
        ))
        .unwrap();
    }
    // All were made of one letter, over and over.
    assert!(values.len() > 2);
    for value in &values {
        assert!(value.iter().all(|byte| *byte == value[0]), "{value:?}");
    }
    assert!(values.iter().all(|value| value.len() > 20));
}

/// The members of a JSON file of librdb: objects of keys or a list of such, with braces or without.
fn expected(name: &str) -> Option<serde_json::Map<String, serde_json::Value>> {
    let path = format!(
        "{}/tests/corpus/rdb/{name}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = std::fs::read_to_string(path).ok()?;
    let text = text.trim().trim_end_matches(',');
    let value: serde_json::Value = if text.starts_with(['[', '{']) {
        serde_json::from_str(text).unwrap()
    } else {
        serde_json::from_str(&format!("{{{text}}}")).unwrap()
    };
    let objects = match value {
        serde_json::Value::Array(objects) => objects,
        one => vec![one],
    };
    Some(
        objects
            .into_iter()
            .flat_map(|object| object.as_object().unwrap().clone())
            .collect(),
    )
}
