//! Values of real files against what another program read in them: librdb's goldens (its `rdb-cli json` and `resp`).

use std::collections::BTreeMap;

use rdbkeeper::rdb::value::{FieldExpiries, FieldsExpire, StreamId, plain_type};
use rdbkeeper::rdb::{Event, Family, LogicalType, ValueType, from_fn, scan_bytes};
use serde_json::{Map, Value as Json, json};

use crate::elements::{Owned, decoded, digest, encoded, fields_expire};
use crate::support::*;

/// A key with its value as it stands in the file.
struct Key {
    db: u32,
    name: String,
    value_type: ValueType,
    family: Family,
    expires: bool,
    value: Vec<u8>,
}

impl Key {
    fn elements(&self) -> Vec<Owned> {
        decoded(self.value_type, &self.value, usize::MAX)
            .unwrap_or_else(|error| panic!("{} {}: {error}", self.value_type, self.name))
    }
}

/// The keys of a file up to where it is damaged, if it is, and the sources of its functions.
fn keys(bytes: &[u8]) -> (Vec<Key>, Vec<String>) {
    let (mut keys, mut functions): (Vec<Key>, Vec<String>) = Default::default();
    let mut family = Family::Redis;
    let _ = scan_bytes(
        bytes,
        &mut from_fn(|event: Event<'_>| {
            match event {
                Event::Header { version, .. } => family = version.family,
                Event::Key(head) => keys.push(Key {
                    db: head.db.0,
                    name: latin(&head.key.decode().unwrap()),
                    value_type: head.value_type,
                    family,
                    expires: head.expire_at_ms.is_some(),
                    value: Vec::new(),
                }),
                Event::Value(bytes) => keys.last_mut().unwrap().value.extend_from_slice(bytes),
                Event::Function { code, .. } => functions.push(latin(&code.decode().unwrap())),
                _ => {}
            }
            Ok::<(), std::convert::Infallible>(())
        }),
    );
    (keys, functions)
}

fn file_keys(name: &str) -> Vec<Key> {
    keys(&corpus_file(name)).0
}

/// librdb's JSON has a character for each byte.
fn latin(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// As `rdb-cli json` shows a value; a set's members in order.
fn shown(key: &Key) -> Json {
    let elements = key.elements();
    let text = |bytes: &[u8]| Json::String(latin(bytes));
    let mut object = Map::new();
    let mut items = Vec::new();
    for element in &elements {
        match element {
            Owned::String(bytes) => return text(bytes),
            Owned::Item(bytes) => items.push(text(bytes)),
            Owned::Scored(member, score) => {
                object.insert(latin(member), number(score.0));
            }
            Owned::Field(field, value, _) => {
                object.insert(latin(field), text(value));
            }
            Owned::Module(id, _) => {
                let name = rdbkeeper::rdb::ModuleId(*id).name();
                let size = key.value.len();
                return Json::String(format!(
                    "<Content of Module '{name}'. Occupies a serialized size of {size} bytes>"
                ));
            }
            _ => return stream(&elements),
        }
    }
    match key.value_type.logical() {
        LogicalType::List => Json::Array(items),
        LogicalType::Set => sorted(items),
        _ => Json::Object(object),
    }
}

fn sorted(mut items: Vec<Json>) -> Json {
    items.sort_by_key(Json::to_string);
    Json::Array(items)
}

/// A score by what it is, however it was written; JSON has no infinities.
fn number(score: f64) -> Json {
    // librdb's JSON does not tell -0 from 0.
    let score = if score == 0.0 { 0.0 } else { score };
    json!(format!("{score:?}"))
}

/// As `rdb-cli json --include stream-meta` shows a stream.
fn stream(elements: &[Owned]) -> Json {
    let id = |id: &StreamId| Json::String(id.to_string());
    let mut object = Map::new();
    let (mut entries, mut groups) = (Vec::new(), Vec::new());
    for element in elements {
        match element {
            Owned::Entry(at, pairs) => {
                let pairs = pairs.iter();
                let pairs = pairs.map(|(field, value)| (latin(field), json!(latin(value))));
                entries.push(json!({"id": id(at), "items": pairs.collect::<Map<_, _>>()}));
            }
            Owned::Stream(facts) => {
                object.insert("length".to_owned(), json!(facts.length));
                object.insert("lastID".to_owned(), id(&facts.last_id));
                let history = facts.since_7.unwrap();
                object.insert("entriesAdded".to_owned(), json!(history.entries_added));
                object.insert("firstID".to_owned(), id(&history.first_id));
                object.insert("maxDelEntryID".to_owned(), id(&history.max_deleted_id));
            }
            Owned::Group(name, last_id, read) => groups.push(json!({
                "name": latin(name), "lastid": id(last_id), "entriesRead": read,
                "pending": [], "consumers": [],
            })),
            Owned::Consumer(name, seen, active) => {
                let consumer = json!({
                    "name": latin(name), "activeTime": active, "seenTime": seen,
                });
                let group = groups.last_mut().unwrap();
                group["consumers"].as_array_mut().unwrap().push(consumer);
            }
            Owned::Pending(pending) => {
                let group = groups.last_mut().unwrap();
                let all = group["pending"].as_array_mut().unwrap();
                all.push(json!({
                    "sent": pending.delivered_ms, "id": id(&pending.id), "count": pending.deliveries,
                }));
                let consumer = group["consumers"].as_array_mut().unwrap().last_mut();
                let own = consumer.unwrap().as_object_mut().unwrap();
                let own = own.entry("pending").or_insert(json!([]));
                own.as_array_mut()
                    .unwrap()
                    .push(json!({"id": id(&pending.id)}));
            }
            _ => {}
        }
    }
    object.insert("entries".to_owned(), Json::Array(entries));
    object.insert("groups".to_owned(), Json::Array(groups));
    Json::Object(object)
}

fn golden_text(name: &str) -> String {
    let root = env!("CARGO_MANIFEST_DIR");
    std::fs::read_to_string(format!("{root}/tests/corpus/rdb/librdb/{name}")).unwrap()
}

/// A golden: for each database what its keys hold. With one database the file is the inside of an object.
fn golden(name: &str) -> Vec<Map<String, Json>> {
    let text = golden_text(name);
    let text = text.trim();
    let text = match text.starts_with('[') {
        true => text.to_owned(),
        false => format!("[{{{text}}}]"),
    };
    let parsed: Json = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
    let databases = parsed.as_array().unwrap().iter();
    databases
        .map(|db| db.as_object().unwrap().clone())
        .collect()
}

/// Files, and the golden that tells what is in them.
const GOLDENS: [(&str, &str); 29] = [
    ("cluster_slot_info", "cluster_slot_info"),
    ("function2", "function2"),
    ("hash_lp_v11", "hash_lp_v11_data"),
    ("hash_lp_with_hexpire_v12", "hash_lp_ex_v12_data"),
    ("hash_v3", "hash_data"),
    ("hash_v3", "plain_hash_data"),
    ("hash_with_expire_v12", "hash_ex_v12_data"),
    ("hash_zl_v6", "hash_zl_v6_data"),
    ("hash_zm_v2", "hash_zm_v2_data"),
    ("mem_policy_lfu", "mem_policy_lfu"),
    ("mem_policy_lru", "mem_policy_lru"),
    ("module", "module_data"),
    ("module_aux", "module_aux_data"),
    ("multiple_dbs", "multiple_dbs_data"),
    ("multiple_lists_strings", "multiple_lists_strings_data"),
    ("multiple_lists_strings", "multiple_lists_strings_no_aux"),
    ("plain_list_v6", "plain_list_v6_data"),
    ("plain_set_v6", "plain_set_v6_data"),
    ("plain_zset_2_v11", "plain_zset_2_v11_data"),
    ("plain_zset_v6", "plain_zset_v6_data"),
    ("quicklist", "quicklist_data"),
    ("quicklist2_v11", "single_list_data"),
    ("set_is_v11", "set_is_v11_data"),
    ("set_lp_v11", "set_lp_v11_data"),
    ("set_not_expired_v11", "set_not_expired"),
    ("single_key", "single_key_data"),
    ("string_int_encoded", "string_int_encoded"),
    ("ziplist_v3", "ziplist_data"),
    ("zset_lp_v11", "zset_lp_v11_data"),
];

/// Brings the golden's value into the form of [`shown`].
fn comparable(logical: LogicalType, golden: Json) -> Json {
    match (logical, golden) {
        (LogicalType::Set, Json::Array(items)) => sorted(items),
        (LogicalType::Zset, Json::Object(scores)) => {
            let scores = scores.into_iter().map(|(member, score)| {
                let score = score.as_str().unwrap().parse().unwrap();
                (member, number(score))
            });
            Json::Object(scores.collect())
        }
        (_, other) => other,
    }
}

#[test]
fn values_are_what_another_reader_finds_in_the_file() {
    let zset_ziplist = [("zset_zl_v6", "zset_zl_v6_data")];
    for (file, json) in GOLDENS.into_iter().chain(zset_ziplist) {
        let (keys, functions) = keys(&corpus_file(&format!("librdb/{file}")));
        let mut expected = golden(&format!("{json}.json"));
        let mut numbers: Vec<u32> = keys.iter().map(|key| key.db).collect();
        numbers.dedup();
        for key in &keys {
            let at = numbers.iter().position(|db| *db == key.db).unwrap();
            let wanted = expected[at]
                .remove(&key.name)
                .unwrap_or_else(|| panic!("{file}: {} is not in the golden", key.name));
            let wanted = comparable(key.value_type.logical(), wanted);
            assert_eq!(shown(key), wanted, "{file}: {}", key.name);
        }
        for (name, rest) in expected.into_iter().flatten() {
            match name.as_str() {
                "__func__" => {
                    let sources: Vec<_> = rest.as_object().unwrap().values().cloned().collect();
                    assert_eq!(json!(functions), Json::Array(sources), "{file}");
                }
                "__aux__" | "__dbsize__" | "__slotinfo__" => {}
                missing => panic!("{file}: {missing} was not found"),
            }
        }
    }
}

#[test]
fn a_stream_is_what_another_reader_finds_in_it() {
    let keys = file_keys("librdb/stream_v11");
    let [key] = &keys[..] else {
        panic!("one key");
    };
    let with_meta = shown(key);
    assert_eq!(
        with_meta,
        golden("stream_data_with_meta.json")[0]["mystream"]
    );
    let plain = &golden("stream_data.json")[0]["mystream"];
    assert_eq!(with_meta["entries"], plain["entries"]);
}

/// The commands in a file of RESP.
fn commands(name: &str) -> Vec<Vec<String>> {
    let text = golden_text(name);
    let mut lines = text.split("\r\n");
    let mut commands = Vec::new();
    while let Some(count) = lines.next().and_then(|line| line.strip_prefix('*')) {
        let count: usize = count.parse().unwrap();
        let command = (0..count).map(|_| {
            assert!(lines.next().unwrap().starts_with('$'));
            lines.next().unwrap().to_owned()
        });
        commands.push(command.collect());
    }
    commands
}

#[test]
fn a_stream_is_what_the_commands_of_another_program_would_make() {
    let [key] = &file_keys("librdb/stream_v11")[..] else {
        panic!("one key");
    };
    for (golden, since_7) in [
        ("stream_v11_target_ver_6.2.resp", false),
        ("stream_v11_target_ver_7.2.resp", true),
    ] {
        let mut expected: Vec<Vec<String>> = Vec::new();
        let mut push = |words: Vec<String>| expected.push(words);
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let (mut group, mut consumer) = (String::new(), String::new());
        for element in key.elements() {
            match element {
                Owned::Entry(id, pairs) => {
                    let mut add: Vec<String> = words(&["XADD", &key.name, &id.to_string()]);
                    for (field, value) in pairs {
                        add.extend([latin(&field), latin(&value)]);
                    }
                    push(add);
                }
                Owned::Stream(facts) => {
                    let mut set: Vec<String> =
                        words(&["XSETID", &key.name, &facts.last_id.to_string()]);
                    if since_7 {
                        let history = facts.since_7.unwrap();
                        set.extend(["ENTRIESADDED".into(), history.entries_added.to_string()]);
                        set.extend(["MAXDELETEDID".into(), history.max_deleted_id.to_string()]);
                    }
                    push(set);
                }
                Owned::Group(name, last_id, read) => {
                    group = latin(&name);
                    let mut create: Vec<String> =
                        words(&["XGROUP", "CREATE", &key.name, &group, &last_id.to_string()]);
                    if since_7 {
                        create.extend(["ENTRIESREAD".into(), read.unwrap().to_string()]);
                    }
                    push(create);
                }
                Owned::Consumer(name, ..) => consumer = latin(&name),
                Owned::Pending(pending) => push(words(&[
                    "XCLAIM",
                    &key.name,
                    &group,
                    &consumer,
                    "0",
                    &pending.id.to_string(),
                    "TIME",
                    &pending.delivered_ms.to_string(),
                    "RETRYCOUNT",
                    &pending.deliveries.to_string(),
                    "JUSTID",
                    "FORCE",
                ])),
                Owned::GroupEnd => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(expected, commands(golden), "{golden}");
    }
}

/// The files that no golden tells of; what is in them is asserted below, or they have no keys.
const WITHOUT_GOLDEN: [&str; 14] = [
    "librdb/100_lists",
    "librdb/empty",
    "librdb/function",
    "librdb/future_v19",
    "librdb/invalid_chksum_v8",
    "librdb/misc_with_stream",
    "librdb/module_aux_empty",
    "librdb/module_aux_v12",
    "librdb/redis_ent_opcode_ram_lru",
    "librdb/script",
    "librdb/script_legacy",
    "librdb/set_expired_v11",
    "librdb/string_lzf",
    "librdb/stream_v11",
];

#[test]
fn every_file_of_librdb_has_a_golden_or_is_named() {
    let known: Vec<String> = GOLDENS
        .iter()
        .map(|(file, _)| format!("librdb/{file}"))
        .chain(WITHOUT_GOLDEN.map(str::to_owned))
        .chain(["librdb/zset_zl_v6".to_owned()])
        .collect();
    for (name, _) in corpus() {
        assert!(
            name.starts_with("redis/") || known.contains(&name),
            "{name} is held against nothing"
        );
    }
}

/// How many keys there are of each type's name, and of how many elements.
fn counts(keys: &[Key]) -> BTreeMap<&'static str, (usize, usize)> {
    let mut counts = BTreeMap::new();
    for key in keys {
        let count: &mut (usize, usize) = counts.entry(key.value_type.name()).or_default();
        count.0 += 1;
        count.1 += key.elements().len();
    }
    counts
}

#[test]
fn files_without_a_golden_hold_what_is_known_of_them() {
    for (name, expected) in [
        (
            "librdb/100_lists",
            &[("list-quicklist-2", (100, 10_000))][..],
        ),
        ("librdb/empty", &[]),
        ("librdb/function", &[]),
        ("librdb/future_v19", &[("string", (1, 1))]),
        ("librdb/invalid_chksum_v8", &[("string", (3, 3))]),
        (
            "librdb/misc_with_stream",
            &[
                ("hash", (1, 2)),
                ("list", (1, 1)),
                ("set", (1, 1)),
                ("stream-listpacks", (5, 117)),
                ("string", (3, 3)),
                ("zset-2", (1, 1)),
            ],
        ),
        ("librdb/module_aux_empty", &[]),
        ("librdb/module_aux_v12", &[("module-2", (1, 1))]),
        ("librdb/redis_ent_opcode_ram_lru", &[]),
        ("librdb/script", &[]),
        ("librdb/script_legacy", &[]),
        ("librdb/set_expired_v11", &[("string", (1, 1))]),
        ("librdb/string_lzf", &[("string", (2, 2))]),
        ("librdb/stream_v11", &[("stream-listpacks-3", (1, 16))]),
        ("redis/scriptbackup", &[]),
    ] {
        let keys = file_keys(name);
        assert_eq!(counts(&keys), expected.iter().copied().collect(), "{name}");
    }
    // librdb's own golden of it is empty: what is over is left out there.
    let expired = file_keys("librdb/set_expired_v11");
    assert!(expired[0].expires && golden_text("set_expired.json").is_empty());
    for key in file_keys("librdb/100_lists") {
        assert_eq!(key.elements().len(), 100, "{}", key.name);
    }
}

#[test]
fn a_module_s_value_is_kept_as_it_is() {
    for name in ["librdb/module", "librdb/module_aux_v12"] {
        for key in file_keys(name) {
            let [Owned::Module(id, bytes)] = &key.elements()[..] else {
                panic!("{name}: one module's value");
            };
            let mut whole = Vec::new();
            rdbkeeper::rdb::length::encode(*id, &mut whole);
            whole.extend_from_slice(bytes);
            assert_eq!(whole, key.value, "{name}");
        }
    }
}

#[test]
fn fields_that_expire_have_their_times() {
    // The latest that a server takes is 2^46 - 1.
    for (name, [first, second]) in [
        (
            "librdb/hash_with_expire_v12",
            [70_368_744_170_663, 70_368_744_170_063],
        ),
        (
            "librdb/hash_lp_with_hexpire_v12",
            [(1 << 46) - 1, 70_368_744_107_663],
        ),
    ] {
        let mut times = Vec::new();
        for element in file_keys(name)[0].elements() {
            let Owned::Field(field, _, expiry) = element else {
                panic!("{name}: a field");
            };
            times.push((latin(&field), expiry));
        }
        times.sort();
        let expected = [
            ("field1", Some(first)),
            ("field2", Some(second)),
            ("field3", None),
        ];
        let expected = expected.map(|(field, expiry)| (field.to_owned(), expiry));
        assert_eq!(times, expected, "{name}");
    }
}

/// What Redis's own test of the file expects (`tests/integration/convert-zipmap-hash-on-load.tcl` and `rdb.tcl`).
#[test]
fn the_files_of_redis_hold_what_its_tests_expect() {
    let eight = ["1", "2", "3", "a", "b", "c", "100000", "6000000000"];
    let expected = json!({
        "compressible": "a".repeat(137),
        "hash": {"a": "1", "aa": "10", "aaa": "100", "b": "2", "bb": "20", "bbb": "200", "c": "3",
            "cc": "30", "ccc": "300", "ddd": "400", "eee": "5000000000"},
        "hash_zipped": {"a": "1", "b": "2", "c": "3"},
        "list": eight.repeat(3),
        "list_zipped": eight,
        "number": "10",
        "set": sorted(eight.map(|item| json!(item)).to_vec()),
        "set_zipped_1": ["1", "2", "3", "4"],
        "set_zipped_2": ["100000", "200000", "300000", "400000"],
        "set_zipped_3": ["1000000000", "2000000000", "3000000000", "4000000000", "5000000000", "6000000000"],
        "string": "Hello World",
        "zset": {"a": "1.0", "b": "2.0", "c": "3.0", "aa": "10.0", "bb": "20.0", "cc": "30.0", "aaa": "100.0",
            "bbb": "200.0", "ccc": "300.0", "aaaa": "1000.0", "cccc": "123456789.0", "bbbb": "5000000000.0"},
        "zset_zipped": {"a": "1.0", "b": "2.0", "c": "3.0"},
    });
    let two = json!({"f1": "v1", "f2": "v2"});
    for (name, expected) in [
        ("redis/encodings", expected),
        ("redis/hash-ziplist", json!({"hash": two})),
        ("redis/hash-zipmap", json!({"hash": two})),
        ("redis/list-quicklist", json!({"list": ["7"], "x": "7"})),
        (
            "redis/zset-ziplist",
            json!({"zset": {"one": "1.0", "two": "2.0"}}),
        ),
    ] {
        let keys = file_keys(name);
        let found: Map<String, Json> = keys
            .iter()
            .map(|key| (key.name.clone(), shown(key)))
            .collect();
        assert_eq!(Json::Object(found), expected, "{name}");
    }
}

#[test]
fn damage_is_told_with_its_place_and_what_is_empty_is_empty() {
    let mut damaged = Vec::new();
    for key in file_keys("redis/corrupt_ziplist") {
        if let Err(error) = decoded(key.value_type, &key.value, usize::MAX) {
            damaged.push((key.name, error.to_string()));
        }
    }
    let expected = "the value is damaged near its byte 0: a ziplist is damaged at its byte 4: it ends too early";
    assert_eq!(
        damaged,
        [("key:000000000091".to_owned(), expected.to_owned())]
    );
    // Collections that no server keeps: they are read, and have nothing in them.
    let empty = file_keys("redis/corrupt_empty_keys");
    assert_eq!(empty.len(), 9);
    for key in empty {
        assert_eq!(key.elements(), [], "{}", key.name);
    }
}

#[test]
fn values_are_the_same_however_their_bytes_are_cut() {
    for (name, bytes) in corpus() {
        for key in keys(&bytes).0 {
            let whole = decoded(key.value_type, &key.value, usize::MAX);
            for piece in [1, 2, 3, 7] {
                let cut = decoded(key.value_type, &key.value, piece);
                assert_eq!(cut.is_ok(), whole.is_ok(), "{name}: {}", key.name);
                if let (Ok(cut), Ok(whole)) = (&cut, &whole) {
                    assert_eq!(cut, whole, "{name}: {} in pieces of {piece}", key.name);
                }
            }
        }
    }
}

#[test]
fn values_with_a_flipped_byte_are_read_or_refused_and_cut_ones_are_never_whole() {
    let mut seen: BTreeMap<u8, usize> = BTreeMap::new();
    for (name, bytes) in corpus() {
        for mut key in keys(&bytes).0 {
            let (value_type, length) = (key.value_type, key.value.len());
            // Each type is met, and none too often.
            let met = seen.entry(value_type.code()).or_default();
            *met += 1;
            if *met > 8 || value_type.name() == "module-2" {
                continue;
            }
            let step = 1 + length / 200;
            for at in (0..length).step_by(step) {
                let cut = decoded(value_type, &key.value[..at], usize::MAX);
                assert!(cut.is_err(), "{name}: {} cut at {at}", key.name);
                for mask in [0x01, 0x10, 0x80, 0xff] {
                    key.value[at] ^= mask;
                    let whole = decoded(value_type, &key.value, usize::MAX);
                    if mask == 0x10 {
                        let pieces = decoded(value_type, &key.value, 5);
                        // By their digests: a score may be no number.
                        let sum = |read: &[Owned]| {
                            digest(value_type.logical(), read, FieldExpiries::Count)
                        };
                        let [whole, pieces] =
                            [whole, pieces].map(|read| read.ok().map(|read| sum(&read)));
                        assert_eq!(pieces, whole, "{name}: {} at {at}", key.name);
                    }
                    key.value[at] ^= mask;
                }
            }
        }
    }
}

#[test]
fn values_written_for_every_version_that_can_hold_them_are_the_same() {
    let mut written: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, bytes) in corpus() {
        for key in keys(&bytes).0 {
            let logical = key.value_type.logical();
            let Ok(elements) = decoded(key.value_type, &key.value, usize::MAX) else {
                assert!(name.starts_with("redis/corrupt"), "{name}");
                continue;
            };
            let expire = fields_expire(&elements);
            let redis = (2..=15).map(|version| (Family::Redis, version));
            let mut held = 0;
            for (family, version) in redis.chain([(Family::Valkey, 80), (Family::Valkey, 81)]) {
                let Some(plain) = plain_type(logical, expire, family, version) else {
                    continue;
                };
                held += 1;
                let again = encoded(plain, &elements);
                for piece in [3, usize::MAX] {
                    let again = decoded(plain, &again, piece).unwrap();
                    let [before, after] = [&elements, &again]
                        .map(|elements| digest(logical, elements, FieldExpiries::Count));
                    assert_eq!(before, after, "{name}: {} as {plain}", key.name);
                    if logical != LogicalType::Stream {
                        assert_eq!(again, elements, "{name}: {} as {plain}", key.name);
                    }
                }
                *written.entry(plain.name()).or_default() += 1;
            }
            let expected = match (logical, expire) {
                (LogicalType::Module, _) => 0,
                (LogicalType::Stream, _) => 9,
                // Redis from 12, Valkey from 80 on.
                (_, FieldsExpire::Yes) => 6,
                _ => 16,
            };
            assert_eq!(held, expected, "{name}: {} {:?}", key.name, key.family);
        }
    }
    let expected = "hash hash-2 hash-metadata list set stream-listpacks stream-listpacks-2 stream-listpacks-3 string zset zset-2";
    let written: Vec<&str> = written.into_keys().collect();
    assert_eq!(written.join(" "), expected);
}
