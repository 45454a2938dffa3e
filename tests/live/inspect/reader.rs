//! A reader of exported JSON lines that knows nothing of the program: its own unescaping, its own idea of each type.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::support::compare::{Contents, Expiry, Item, Value};

/// The bytes that a text stands for: `\\` is a backslash, `\xNN` a byte, all else itself.
pub fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        assert!(!c.is_control(), "a control character in {text:?}");
        if c != '\\' {
            out.extend_from_slice(c.to_string().as_bytes());
            continue;
        }
        match chars.next() {
            Some('\\') => out.push(b'\\'),
            Some('x') => {
                let hex: String = chars.by_ref().take(2).collect();
                assert_eq!(hex, hex.to_lowercase());
                out.push(u8::from_str_radix(&hex, 16).unwrap());
            }
            other => panic!("a backslash and {other:?} in {text:?}"),
        }
    }
    out
}

fn text(json: &Json) -> Value {
    Value::Text(bytes(json.as_str().unwrap()))
}

fn number(json: &Json) -> Value {
    let number = json
        .as_i64()
        .unwrap_or_else(|| panic!("no whole number: {json}"));
    Value::Text(number.to_string().into_bytes())
}

fn plain(json: &Json) -> Value {
    Value::Text(json.as_str().unwrap().as_bytes().to_vec())
}

/// As a server's answer is sorted before it is compared.
fn sorted(mut values: Vec<Value>) -> Value {
    values.sort_by_cached_key(|value| format!("{value:?}"));
    Value::List(values)
}

fn score(json: &Json) -> Value {
    let number: f64 = match json {
        // The number as it is written: whoever reads it decides how exactly.
        Json::Number(number) => number.to_string().parse().unwrap(),
        Json::String(word) => {
            assert!(["inf", "-inf", "nan"].contains(&word.as_str()), "{word}");
            word.parse().unwrap()
        }
        other => panic!("a score: {other}"),
    };
    Value::Text(format!("{number:?}").into_bytes())
}

fn pending(json: &Json, consumer: Option<&Value>) -> Value {
    let mut entry = vec![plain(&json["id"])];
    entry.extend(consumer.cloned());
    entry.push(number(&json["delivered_ms"]));
    entry.push(number(&json["deliveries"]));
    Value::List(entry)
}

fn map(members: Vec<(&str, Value)>) -> Value {
    let members = members.into_iter();
    Value::Map(
        members
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    )
}

fn stream(json: &Json) -> Value {
    let entries = json["entries"].as_array().unwrap().iter().map(|entry| {
        let fields = entry["fields"].as_array().unwrap().iter();
        let fields = fields.flat_map(|pair| pair.as_array().unwrap().iter().map(text));
        Value::List(vec![plain(&entry["id"]), Value::List(fields.collect())])
    });
    let groups = json["groups"].as_array().unwrap().iter().map(|group| {
        let mut all = Vec::new();
        let mut consumers = Vec::new();
        for consumer in group["consumers"].as_array().unwrap() {
            let name = text(&consumer["name"]);
            let owned = consumer["pending"].as_array().unwrap();
            all.extend(owned.iter().map(|entry| pending(entry, Some(&name))));
            let owned = Value::List(owned.iter().map(|entry| pending(entry, None)).collect());
            let seen = number(&consumer["seen_ms"]);
            consumers.push(map(vec![
                ("name", name),
                ("seen-time", seen),
                ("pending", owned.clone()),
                ("pel", owned),
            ]));
        }
        // A group's are in the order of their IDs, and of all consumers.
        let id = |entry: &Value| match entry {
            Value::List(parts) => match &parts[0] {
                Value::Text(id) => {
                    let id = String::from_utf8(id.clone()).unwrap();
                    let (ms, seq) = id.split_once('-').unwrap();
                    (ms.parse::<u64>().unwrap(), seq.parse::<u64>().unwrap())
                }
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        all.sort_by_key(id);
        let mut members = vec![
            ("name", text(&group["name"])),
            ("last-delivered-id", plain(&group["last_id"])),
            ("consumers", Value::List(consumers)),
            ("pending", Value::List(all.clone())),
            ("pel", Value::List(all)),
        ];
        if let Some(read) = group.get("entries_read") {
            members.push(("entries-read", number(read)));
        }
        map(members)
    });
    let mut members = vec![
        ("length", number(&json["length"])),
        ("last-generated-id", plain(&json["last_id"])),
        ("entries", Value::List(entries.collect())),
        ("groups", Value::List(groups.collect())),
    ];
    if let Some(id) = json.get("max_deleted_id") {
        members.push(("max-deleted-entry-id", plain(id)));
        members.push(("entries-added", number(&json["entries_added"])));
    }
    map(members)
}

fn value(kind: &str, json: &Json) -> Value {
    let list = || json.as_array().unwrap().iter();
    match kind {
        "string" => text(json),
        "list" => Value::List(list().map(text).collect()),
        "set" => sorted(list().map(text).collect()),
        "zset" => sorted(
            list()
                .map(|pair| Value::List(vec![text(&pair["member"]), score(&pair["score"])]))
                .collect(),
        ),
        "hash" => {
            let fields = json.as_object().unwrap().iter().map(|(field, value)| {
                let field = Value::Text(bytes(field));
                Value::List(match value {
                    Json::Object(_) => {
                        vec![field, text(&value["value"]), number(&value["expire_at_ms"])]
                    }
                    _ => vec![field, text(value)],
                })
            });
            sorted(fields.collect())
        }
        "stream" => stream(json),
        other => panic!("the type {other}"),
    }
}

/// What JSON lines hold.
pub fn contents(lines: &str) -> Contents {
    assert!(lines.is_empty() || lines.ends_with('\n'));
    let mut databases: BTreeMap<u32, BTreeMap<Vec<u8>, Item>> = BTreeMap::new();
    for line in lines.lines() {
        let json: Json = serde_json::from_str(line).unwrap_or_else(|error| {
            panic!("{error} in {}", line.chars().take(200).collect::<String>())
        });
        let kind = json["type"].as_str().unwrap().to_owned();
        let item = Item {
            value: value(&kind, &json["value"]),
            expiry: match json.get("expire_at_ms") {
                Some(at) => Expiry::At(at.as_i64().unwrap()),
                None => Expiry::Never,
            },
            kind,
        };
        let db = json["db"].as_u64().unwrap() as u32;
        let key = bytes(json["key"].as_str().unwrap());
        let before = databases.entry(db).or_default().insert(key, item);
        assert!(before.is_none(), "a key stands twice");
    }
    Contents {
        databases,
        functions: None,
    }
}
