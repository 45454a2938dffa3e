//! Files that real servers wrote, and what is expected of them.

use rdbkeeper::rdb::{
    Checksum, DbIndex, Event, FileError, LogicalType, Unknown, from_fn, scan_bytes,
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
fn keys_by_type_are_as_the_files_authors_say() {
    use LogicalType::{Hash, List, Module, Set, Stream, String, Zset};
    for (name, expected) in [
        ("librdb/100_lists", &[(List, 100)][..]),
        ("librdb/empty", &[]),
        ("librdb/hash_lp_v11", &[(Hash, 1)]),
        ("librdb/hash_lp_with_hexpire_v12", &[(Hash, 1)]),
        ("librdb/hash_with_expire_v12", &[(Hash, 1)]),
        ("librdb/module", &[(Module, 1)]),
        ("librdb/plain_list_v6", &[(List, 1)]),
        ("librdb/plain_set_v6", &[(Set, 1)]),
        ("librdb/plain_zset_2_v11", &[(Zset, 1)]),
        ("librdb/plain_zset_v6", &[(Zset, 1)]),
        ("librdb/single_key", &[(String, 1)]),
        ("librdb/stream_v11", &[(Stream, 1)]),
        ("redis/hash-zipmap", &[(Hash, 1)]),
        ("redis/zset-ziplist", &[(Zset, 1)]),
    ] {
        let (_, summary) = summary(&corpus_file(name));
        let mut types = std::collections::BTreeMap::new();
        for db in summary.databases().values() {
            for (logical, keys) in db.logical_types() {
                *types.entry(logical).or_insert(0) += keys;
            }
        }
        let expected = expected.iter().copied().collect();
        assert_eq!(types, expected, "{name}");
    }
}

#[test]
fn keys_are_counted_by_database_and_expiry() {
    let (_, summary) = summary(&corpus_file("librdb/multiple_dbs"));
    let keys: Vec<_> = summary
        .databases()
        .into_iter()
        .map(|(db, counts)| (db, counts.keys))
        .collect();
    assert_eq!(keys, [(DbIndex(0), 1), (DbIndex(1), 1), (DbIndex(2), 1)]);

    let (_, expired) = self::summary_of("librdb/set_expired_v11");
    assert_eq!((expired.keys(), expired.expires()), (1, 1));
    let (_, functions) = self::summary_of("librdb/function2");
    assert_eq!((functions.keys(), functions.functions), (0, 2));
}

fn summary_of(name: &str) -> (Outcome, rdbkeeper::rdb::Summary) {
    summary(&corpus_file(name))
}

#[test]
fn what_a_file_says_of_its_server_is_kept() {
    let (_, summary) = summary_of("librdb/misc_with_stream");
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
fn strings_decode_to_what_the_json_beside_them_says() {
    for (name, json) in [
        ("librdb/string_lzf", None),
        ("librdb/string_int_encoded", Some("string_int_encoded")),
        (
            "librdb/multiple_lists_strings",
            Some("multiple_lists_strings_subset_str"),
        ),
    ] {
        let mut found = std::collections::BTreeMap::new();
        let mut last = None;
        plain(scan_bytes(
            &corpus_file(name),
            &mut from_fn(|event| {
                match event {
                    Event::Key(head) if head.value_type.code() == 0 => {
                        last = Some(head.key.decode().unwrap().into_owned());
                    }
                    Event::Value(raw) => {
                        if let Some(key) = last.take() {
                            let value = rdbkeeper::rdb::StringRef::parse(raw).unwrap().unwrap();
                            found.insert(
                                String::from_utf8(key).unwrap(),
                                String::from_utf8(value.decode().unwrap().into_owned()).unwrap(),
                            );
                        }
                    }
                    _ => {}
                }
                Ok(())
            }),
        ))
        .unwrap();
        assert!(!found.is_empty());
        if let Some(json) = json {
            assert_eq!(found, expected_strings(json), "{name}");
        }
    }
}

/// The string values of a JSON file of librdb: objects of keys, or a list of such.
fn expected_strings(name: &str) -> std::collections::BTreeMap<String, String> {
    let path = format!(
        "{}/tests/corpus/rdb/librdb/{name}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = std::fs::read_to_string(path).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let objects = match value {
        serde_json::Value::Array(objects) => objects,
        one => vec![one],
    };
    objects
        .iter()
        .flat_map(|object| object.as_object().unwrap())
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}
