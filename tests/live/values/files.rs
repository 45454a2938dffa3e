//! What is decoded of a server's file is what the server itself answers.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use rdbkeeper::rdb::value::{FieldExpiries, StreamId, plain_type};
use rdbkeeper::rdb::{
    Event, FileVersion, LogicalType, StringRef, ValueType, from_fn, length, scan_bytes,
};

use crate::cmd;
use crate::support::compare::{Contents, Expiry, Item, Value};
use crate::support::elements::{Owned, decoded, digest, encoded, fields_expire};
use crate::support::servers::{Kind, Server, each};
use crate::support::{data, encodings};

/// The type bytes that a file of this server must have after [`encodings::fill`].
fn expected_types(kind: &Kind) -> BTreeSet<u8> {
    // String, unpacked set, intset, hash, binary scores.
    let mut types = BTreeSet::from([0, 2, 11, 4, 5]);
    types.extend(match kind.rdb_version() {
        ..=9 => &[14, 12, 13, 15][..],
        10 => &[18, 17, 16, 19],
        11 => &[18, 17, 16, 20, 21],
        12..=79 => &[18, 17, 16, 20, 21, 24, 25],
        _ => &[18, 17, 16, 20, 21, 22],
    });
    types
}

/// A file's keys with their elements in the comparison's form, and the type bytes that were seen.
fn read(file: &[u8], kind: &Kind) -> (Contents, BTreeSet<u8>) {
    let mut contents = Contents::default();
    let mut types = BTreeSet::new();
    let mut key: Option<(u32, Vec<u8>, ValueType, Expiry)> = None;
    let mut value = Vec::new();
    let mut plain_nodes = 0;
    scan_bytes(
        file,
        &mut from_fn(|event: Event<'_>| {
            match event {
                Event::Header { version, .. } => {
                    assert_eq!(version.number, kind.rdb_version());
                }
                Event::Key(head) => {
                    let expiry = head.expire_at_ms.map_or(Expiry::Never, Expiry::At);
                    let name = head.key.decode().unwrap().into_owned();
                    key = Some((head.db.0, name, head.value_type, expiry));
                    value.clear();
                }
                Event::Value(bytes) => value.extend_from_slice(bytes),
                Event::ValueEnd => {
                    let (db, name, value_type, expiry) = key.take().unwrap();
                    types.insert(value_type.code());
                    if value_type.code() == 18 {
                        plain_nodes += count_plain_nodes(&value);
                    }
                    let elements = decoded(value_type, &value, usize::MAX).unwrap();
                    assert_eq!(decoded(value_type, &value, 61).unwrap(), elements);
                    stays_itself(value_type, kind, &elements);
                    let item = Item {
                        kind: value_type.logical().to_string(),
                        value: canonical(value_type.logical(), &elements),
                        expiry,
                    };
                    contents.databases.entry(db).or_default().insert(name, item);
                }
                _ => {}
            }
            Ok::<(), Infallible>(())
        }),
    )
    .unwrap();
    let has_plain_nodes = kind.speaks_redis(7, 0);
    assert_eq!(plain_nodes > 0, has_plain_nodes, "plain nodes of lists");
    (contents, types)
}

/// How many nodes of a list (type 18) are one element.
fn count_plain_nodes(value: &[u8]) -> usize {
    let (nodes, mut at) = length::decode(value).unwrap().unwrap();
    let mut plain = 0;
    for _ in 0..nodes {
        let (container, bytes) = length::decode(&value[at..]).unwrap().unwrap();
        plain += usize::from(container == 1);
        at += bytes;
        at += StringRef::parse(&value[at..]).unwrap().unwrap().raw().len();
    }
    plain
}

/// Written in the plain layout of the same server, it is read again as what it was.
fn stays_itself(value_type: ValueType, kind: &Kind, elements: &[Owned]) {
    let logical = value_type.logical();
    let FileVersion { family, number } = FileVersion::of_number(kind.rdb_version());
    let plain = plain_type(logical, fields_expire(elements), family, number).unwrap();
    let again = decoded(plain, &encoded(plain, elements), usize::MAX).unwrap();
    assert_eq!(again, elements, "{value_type} as {plain}");
    let count = FieldExpiries::Count;
    assert_eq!(
        digest(logical, &again, count),
        digest(logical, elements, count)
    );
}

fn text(bytes: impl AsRef<[u8]>) -> Value {
    Value::Text(bytes.as_ref().to_vec())
}

fn number(number: impl ToString) -> Value {
    text(number.to_string())
}

/// As `support/compare.rs` makes it of a server's answers.
fn canonical(logical: LogicalType, elements: &[Owned]) -> Value {
    if logical == LogicalType::Stream {
        return stream(elements);
    }
    let mut items: Vec<Value> = elements
        .iter()
        .map(|element| match element {
            Owned::String(bytes) | Owned::Item(bytes) => text(bytes),
            Owned::Scored(member, score) => {
                Value::List(vec![text(member), text(format!("{:?}", score.0))])
            }
            Owned::Field(field, value, expiry) => {
                let mut parts = vec![text(field), text(value)];
                parts.extend(expiry.map(number));
                Value::List(parts)
            }
            other => panic!("{other:?} in a {logical}"),
        })
        .collect();
    match logical {
        LogicalType::String => items.remove(0),
        LogicalType::List => Value::List(items),
        _ => {
            items.sort_by_cached_key(|value| format!("{value:?}"));
            Value::List(items)
        }
    }
}

/// As `XINFO STREAM FULL` shows a stream.
fn stream(elements: &[Owned]) -> Value {
    let id = |id: &StreamId| text(id.to_string());
    let push = |map: &mut BTreeMap<String, Value>, name: &str, value: Value| match map
        .entry(name.to_owned())
        .or_insert(Value::List(Vec::new()))
    {
        Value::List(list) => list.push(value),
        _ => panic!("{name} is no list"),
    };
    let empty = || Value::List(Vec::new());
    let mut whole = BTreeMap::from([
        ("entries".to_owned(), empty()),
        ("groups".to_owned(), empty()),
    ]);
    let (mut group, mut consumer) = (BTreeMap::new(), None);
    let mut consumer_name = Vec::new();
    let mut pending_of_group = BTreeMap::new();
    for element in elements {
        match element {
            Owned::Entry(at, pairs) => {
                let pairs = pairs.iter().flat_map(|(f, v)| [text(f), text(v)]).collect();
                push(
                    &mut whole,
                    "entries",
                    Value::List(vec![id(at), Value::List(pairs)]),
                );
            }
            Owned::Stream(facts) => {
                whole.insert("length".to_owned(), number(facts.length));
                whole.insert("last-generated-id".to_owned(), id(&facts.last_id));
                if let Some(history) = facts.since_7 {
                    whole.insert(
                        "max-deleted-entry-id".to_owned(),
                        id(&history.max_deleted_id),
                    );
                    whole.insert("entries-added".to_owned(), number(history.entries_added));
                }
            }
            Owned::Group(name, last_id, read) => {
                group = BTreeMap::from([
                    ("name".to_owned(), text(name)),
                    ("last-delivered-id".to_owned(), id(last_id)),
                    ("entries-read".to_owned(), read.map_or(Value::Nil, number)),
                    ("consumers".to_owned(), empty()),
                ]);
                pending_of_group = BTreeMap::new();
            }
            Owned::Consumer(name, seen, active) => {
                if let Some(consumer) = consumer.take() {
                    push(&mut group, "consumers", Value::Map(consumer));
                }
                consumer_name = name.clone();
                consumer = Some(BTreeMap::from([
                    ("name".to_owned(), text(name)),
                    ("seen-time".to_owned(), number(seen)),
                    ("active-time".to_owned(), number(active.unwrap_or(-1))),
                    ("pending".to_owned(), empty()),
                    ("pel".to_owned(), empty()),
                ]));
            }
            Owned::Pending(pending) => {
                let times = [number(pending.delivered_ms), number(pending.deliveries)];
                let mut of_consumer = vec![id(&pending.id)];
                let mut of_group = vec![id(&pending.id), text(&consumer_name)];
                of_consumer.extend(times.clone());
                of_group.extend(times);
                push(
                    consumer.as_mut().unwrap(),
                    "pel",
                    Value::List(of_consumer.clone()),
                );
                push(
                    consumer.as_mut().unwrap(),
                    "pending",
                    Value::List(of_consumer),
                );
                pending_of_group.insert(pending.id, Value::List(of_group));
            }
            Owned::GroupEnd => {
                if let Some(consumer) = consumer.take() {
                    push(&mut group, "consumers", Value::Map(consumer));
                }
                let pending = std::mem::take(&mut pending_of_group);
                let pending = Value::List(pending.into_values().collect());
                group.insert("pending".to_owned(), pending.clone());
                group.insert("pel".to_owned(), pending);
                push(&mut whole, "groups", Value::Map(std::mem::take(&mut group)));
            }
            other => panic!("{other:?} in a stream"),
        }
    }
    Value::Map(whole)
}

/// Panics when the server says something that [`stream`] leaves out: it would not be compared.
fn nothing_left_out(server: &Value, ours: &Value, path: &str) {
    match (server, ours) {
        (Value::Map(server), Value::Map(ours)) => {
            for (name, value) in server {
                let path = format!("{path} {name}");
                let own = ours.get(name);
                nothing_left_out(value, own.unwrap_or_else(|| panic!("{path}")), &path);
            }
        }
        (Value::List(server), Value::List(ours)) => {
            for (server, ours) in server.iter().zip(ours) {
                nothing_left_out(server, ours, path);
            }
        }
        _ => {}
    }
}

#[test]
fn every_type_in_every_encoding_is_read_as_its_server_answers() {
    each(|kind| {
        let server = Server::start(kind);
        let mut client = server.client();
        data::fill(&mut client, kind);
        client.select(5);
        let made = encodings::fill(
            &mut client,
            kind,
            0xe5c0_de00 + u64::from(kind.rdb_version()),
        );
        for made in &made {
            let encoding = client.run(cmd!["OBJECT", "ENCODING", made.key]).text();
            assert_eq!(encoding, made.encoding, "{}", made.key.escape_ascii());
        }
        let file = server.save();
        let (ours, types) = read(&file, kind);
        let missing: Vec<_> = expected_types(kind).difference(&types).copied().collect();
        assert!(
            missing.is_empty(),
            "types {missing:?} are not in the file: {types:?}"
        );
        let theirs = Contents::of(&mut client);
        assert!(theirs.keys() > 500 && theirs.keys() == ours.keys());
        theirs.must_equal(
            &Contents {
                functions: theirs.functions.clone(),
                ..ours.clone()
            },
            "the server's answers, and what is decoded of its file",
        );
        for (db, items) in &theirs.databases {
            for (key, item) in items {
                let own = &ours.databases[db][key];
                nothing_left_out(&item.value, &own.value, &key.escape_ascii().to_string());
            }
        }
        let times = active_times(&mut client);
        for (consumer, time) in times {
            let group = find(&ours.databases[&5][&b"stream:groups"[..]].value, &consumer);
            assert_eq!(group, Some(time), "{}", consumer.escape_ascii());
        }
    });
}

/// When each consumer of a stream was active, where the server knows it; the comparison leaves it out.
fn active_times(client: &mut crate::support::client::Client) -> Vec<(Vec<u8>, Value)> {
    client.select(5);
    let reply = client.run(cmd!["XINFO", "STREAM", "stream:groups", "FULL"]);
    let field = |of: &[crate::support::client::Reply], name: &str| {
        let mut pairs = of.chunks(2);
        pairs
            .find(|pair| pair[0].text() == name)
            .map(|pair| pair[1].clone())
    };
    let mut found = Vec::new();
    for group in field(reply.array(), "groups").unwrap().array() {
        for consumer in field(group.array(), "consumers").unwrap().array() {
            if let Some(active) = field(consumer.array(), "active-time") {
                let name = field(consumer.array(), "name").unwrap().bytes();
                found.push((name, number(active.int())));
            }
        }
    }
    found
}

/// When the consumer of that name was active, as decoded.
fn find(stream: &Value, consumer: &[u8]) -> Option<Value> {
    let (Value::Map(map), name) = (stream, text(consumer)) else {
        return None;
    };
    if map.get("name") == Some(&name) && map.contains_key("active-time") {
        return map.get("active-time").cloned();
    }
    let lists = ["groups", "consumers"]
        .into_iter()
        .filter_map(|list| map.get(list));
    lists
        .filter_map(|list| match list {
            Value::List(items) => Some(items),
            _ => None,
        })
        .flatten()
        .find_map(|item| find(item, consumer))
}
