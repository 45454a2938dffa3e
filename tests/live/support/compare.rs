//! What a server holds, in a form that two servers of different versions can be compared by: for every key of every
//! database its type, its whole value and its expiry; and the function libraries.
//!
//! The value is asked for by the type's own commands, never by DUMP alone: two versions may keep one value in two encodings.

use std::collections::{BTreeMap, BTreeSet};

use super::client::{Client, Command, Reply};
use super::data::Random;
use crate::cmd;

/// Everything that a server holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    /// Keys by database; databases without keys are absent.
    pub databases: BTreeMap<u32, BTreeMap<Vec<u8>, Item>>,
    /// Function libraries: name and code. `None` where the server knows no functions.
    pub functions: Option<BTreeMap<String, String>>,
}

/// A key's type, value and expiry.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// As TYPE says.
    pub kind: String,
    /// The whole value, in an order that does not depend on its encoding.
    pub value: Value,
    /// When it expires.
    pub expiry: Expiry,
}

/// A key's expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Never.
    Never,
    /// Unix time in milliseconds.
    At(i64),
    /// The same, but computed from PTTL and TIME, where the server has no PEXPIRETIME: off by some milliseconds.
    About(i64),
}

/// How far an [`Expiry::About`] may be off: the time between two commands of a pipeline on a busy machine.
const TOLERANCE_MS: i64 = 5000;

impl Expiry {
    /// Whether both can mean the same moment.
    pub fn agrees_with(self, other: Expiry) -> bool {
        match (self, other) {
            (Expiry::Never, Expiry::Never) => true,
            (Expiry::At(a), Expiry::At(b)) => a == b,
            (Expiry::At(a) | Expiry::About(a), Expiry::At(b) | Expiry::About(b)) => {
                (a - b).abs() <= TOLERANCE_MS
            }
            _ => false,
        }
    }

    /// The moment, if there is one.
    pub fn at(self) -> Option<i64> {
        match self {
            Expiry::Never => None,
            Expiry::At(ms) | Expiry::About(ms) => Some(ms),
        }
    }
}

/// A value in canonical form.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// Bytes, numbers as their text.
    Text(Vec<u8>),
    /// In the order that means something.
    List(Vec<Value>),
    /// By name. Two servers of different versions are compared by the names that both have.
    Map(BTreeMap<String, Value>),
    /// Nothing.
    Nil,
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Text(bytes) if bytes.len() > 80 => {
                write!(
                    f,
                    "\"{}…\" ({} bytes)",
                    bytes[..60].escape_ascii(),
                    bytes.len()
                )
            }
            Value::Text(bytes) => write!(f, "\"{}\"", bytes.escape_ascii()),
            Value::List(items) if items.len() > 12 => {
                write!(f, "{:?}… ({} elements)", &items[..12], items.len())
            }
            Value::List(items) => f.debug_list().entries(items).finish(),
            Value::Map(map) => f.debug_map().entries(map).finish(),
            Value::Nil => f.write_str("nil"),
        }
    }
}

impl Value {
    fn agrees_with(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::List(a), Value::List(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.agrees_with(b))
            }
            (Value::Map(a), Value::Map(b)) => a
                .iter()
                .all(|(name, a)| b.get(name).is_none_or(|b| a.agrees_with(b))),
            (a, b) => a == b,
        }
    }
}

impl Contents {
    /// Reads everything.
    pub fn of(client: &mut Client) -> Contents {
        let mut contents = Contents::default();
        for (db, _) in client.keyspace() {
            client.select(db);
            let keys = keys(client);
            let items = items(client, &keys);
            if !items.is_empty() {
                contents.databases.insert(db, items);
            }
        }
        client.select(0);
        contents.functions = functions(client);
        contents
    }

    /// How many keys there are.
    pub fn keys(&self) -> usize {
        self.databases.values().map(BTreeMap::len).sum()
    }

    /// Keeps the databases for which `keep` is true.
    #[must_use]
    pub fn only(mut self, mut keep: impl FnMut(u32, &[u8], &Item) -> bool) -> Contents {
        for (db, items) in &mut self.databases {
            items.retain(|key, item| keep(*db, key, item));
        }
        self.databases.retain(|_, items| !items.is_empty());
        self
    }

    /// What differs, a line each; empty when both hold the same.
    pub fn differences(&self, other: &Contents) -> Vec<String> {
        let mut found = Vec::new();
        let databases: BTreeSet<u32> = self
            .databases
            .keys()
            .chain(other.databases.keys())
            .copied()
            .collect();
        let none = BTreeMap::new();
        for db in databases {
            let ours = self.databases.get(&db).unwrap_or(&none);
            let theirs = other.databases.get(&db).unwrap_or(&none);
            let keys: BTreeSet<&Vec<u8>> = ours.keys().chain(theirs.keys()).collect();
            for key in keys {
                let name = format!("db {db} \"{}\"", key[..key.len().min(60)].escape_ascii());
                match (ours.get(key), theirs.get(key)) {
                    (Some(_), None) => found.push(format!("{name}: only in the first")),
                    (None, Some(_)) => found.push(format!("{name}: only in the second")),
                    (Some(a), Some(b)) => {
                        if a.kind != b.kind {
                            found.push(format!("{name}: {} against {}", a.kind, b.kind));
                        } else if !a.value.agrees_with(&b.value) {
                            found.push(format!("{name}: {:?} against {:?}", a.value, b.value));
                        }
                        if !a.expiry.agrees_with(b.expiry) {
                            found.push(format!(
                                "{name}: expires {:?} against {:?}",
                                a.expiry, b.expiry
                            ));
                        }
                    }
                    (None, None) => {}
                }
            }
        }
        if let (Some(a), Some(b)) = (&self.functions, &other.functions)
            && a != b
        {
            found.push(format!("functions: {:?} against {:?}", a.keys(), b.keys()));
        }
        found
    }

    /// Panics with the first differences unless both hold the same.
    #[track_caller]
    pub fn must_equal(&self, other: &Contents, what: &str) {
        let found = self.differences(other);
        let shown = &found[..found.len().min(20)];
        assert!(
            found.is_empty(),
            "{what}: {} differences:\n{}",
            found.len(),
            shown.join("\n")
        );
    }
}

/// Panics unless both servers hold the same: every key, type, value and expiry, and the functions.
#[track_caller]
pub fn assert_same(first: &mut Client, second: &mut Client, what: &str) {
    let a = Contents::of(first);
    let b = Contents::of(second);
    a.must_equal(&b, what);
}

/// Every key of the selected database.
pub fn keys(client: &mut Client) -> Vec<Vec<u8>> {
    let mut keys = BTreeSet::new();
    let mut cursor = b"0".to_vec();
    loop {
        let reply = client.run(cmd!["SCAN", &cursor, "COUNT", 1000]);
        cursor = reply.array()[0].bytes();
        keys.extend(reply.array()[1].array().iter().map(Reply::bytes));
        if cursor == b"0" {
            return keys.into_iter().collect();
        }
    }
}

fn items(client: &mut Client, keys: &[Vec<u8>]) -> BTreeMap<Vec<u8>, Item> {
    let ask = |client: &mut Client, command: &dyn Fn(&Vec<u8>) -> Command| {
        client.run_all(keys.iter().map(command).collect())
    };
    let kinds = ask(client, &|key| cmd!["TYPE", key]);
    let expiries = expiries(client, keys);
    let mut items = BTreeMap::new();
    let values = client.run_all(
        keys.iter()
            .zip(&kinds)
            .map(|(key, kind)| match kind.text().as_str() {
                "string" => cmd!["GET", key],
                "list" => cmd!["LRANGE", key, 0, -1],
                "set" => cmd!["SMEMBERS", key],
                "zset" => cmd!["ZRANGE", key, 0, -1, "WITHSCORES"],
                "hash" => cmd!["HGETALL", key],
                "stream" => cmd!["XINFO", "STREAM", key, "FULL", "COUNT", 0],
                _ => cmd!["DUMP", key],
            })
            .collect(),
    );
    for (((key, kind), expiry), reply) in keys.iter().zip(&kinds).zip(expiries).zip(&values) {
        let kind = kind.text();
        if kind == "none" {
            continue;
        }
        let value = match kind.as_str() {
            "string" | "list" => plain(reply),
            "set" => sorted(reply.array().iter().map(plain).collect()),
            "zset" => sorted(pairs(reply).into_iter().map(score_by_value).collect()),
            "hash" => sorted(with_field_expiries(client, key, pairs(reply))),
            "stream" => stream(reply),
            // A module's: without the payload's version and checksum.
            _ => match plain(reply) {
                Value::Text(mut payload) => {
                    payload.truncate(payload.len().saturating_sub(10));
                    Value::Text(payload)
                }
                other => other,
            },
        };
        items.insert(
            key.clone(),
            Item {
                kind,
                value,
                expiry,
            },
        );
    }
    items
}

fn expiries(client: &mut Client, keys: &[Vec<u8>]) -> Vec<Expiry> {
    let known = client
        .attempt(cmd!["PEXPIRETIME", "rdbkeeper no such key"])
        .unwrap()
        .error()
        .is_none();
    if known {
        let replies = client.run_all(keys.iter().map(|key| cmd!["PEXPIRETIME", key]).collect());
        return replies
            .iter()
            .map(|reply| match reply.int() {
                ..0 => Expiry::Never,
                at => Expiry::At(at),
            })
            .collect();
    }
    let commands = keys
        .iter()
        .flat_map(|key| [cmd!["TIME"], cmd!["PTTL", key]])
        .collect();
    client
        .run_all(commands)
        .chunks(2)
        .map(|pair| {
            let part = |index: usize| pair[0].array()[index].text().parse::<i64>().unwrap();
            match pair[1].int() {
                ..0 => Expiry::Never,
                left => Expiry::About(part(0) * 1000 + part(1) / 1000 + left),
            }
        })
        .collect()
}

/// Each field as (field, value) or (field, value, expiry).
fn with_field_expiries(client: &mut Client, key: &[u8], fields: Vec<Value>) -> Vec<Value> {
    let mut command = cmd!["HPEXPIRETIME", key, "FIELDS", fields.len()];
    for field in &fields {
        if let Value::List(pair) = field
            && let Value::Text(name) = &pair[0]
        {
            command.push(name.clone());
        }
    }
    match client.attempt(command).unwrap() {
        Reply::Array(times) => fields
            .into_iter()
            .zip(times)
            .map(|(field, time)| match (field, time.int()) {
                (Value::List(mut pair), at @ 0..) => {
                    pair.push(Value::Text(at.to_string().into_bytes()));
                    Value::List(pair)
                }
                (field, _) => field,
            })
            .collect(),
        // A server that does not know it has no such expiry.
        _ => fields,
    }
}

fn functions(client: &mut Client) -> Option<BTreeMap<String, String>> {
    let reply = client
        .attempt(cmd!["FUNCTION", "LIST", "WITHCODE"])
        .unwrap();
    if reply.error().is_some() {
        return None;
    }
    let mut found = BTreeMap::new();
    for library in reply.array() {
        let field = |name: &str| {
            library
                .array()
                .chunks(2)
                .find(|pair| pair[0].text() == name)
                .map(|pair| pair[1].text())
                .unwrap_or_default()
        };
        found.insert(field("library_name"), field("library_code"));
    }
    Some(found)
}

fn plain(reply: &Reply) -> Value {
    match reply {
        Reply::Simple(text) => Value::Text(text.clone().into_bytes()),
        Reply::Bulk(bytes) => Value::Text(bytes.clone()),
        Reply::Int(number) => Value::Text(number.to_string().into_bytes()),
        Reply::Array(items) => Value::List(items.iter().map(plain).collect()),
        Reply::Nil | Reply::Error(_) => Value::Nil,
    }
}

fn pairs(reply: &Reply) -> Vec<Value> {
    reply
        .array()
        .chunks(2)
        .map(|pair| Value::List(pair.iter().map(plain).collect()))
        .collect()
}

/// A member and its score; versions print the same score with more or fewer digits.
fn score_by_value(pair: Value) -> Value {
    match pair {
        Value::List(mut pair) => {
            if let Some(Value::Text(score)) = pair.get_mut(1) {
                let number: f64 = std::str::from_utf8(score).unwrap().parse().unwrap();
                *score = format!("{number:?}").into_bytes();
            }
            Value::List(pair)
        }
        other => other,
    }
}

fn sorted(mut values: Vec<Value>) -> Value {
    values.sort_by_cached_key(|value| format!("{value:?}"));
    Value::List(values)
}

/// XINFO STREAM FULL without what depends on the server's memory layout or is computed from the rest.
fn stream(reply: &Reply) -> Value {
    const DERIVED: [&str; 8] = [
        "radix-tree-keys",
        "radix-tree-nodes",
        "lag",
        "idle",
        "inactive",
        "active-time",
        "recorded-first-entry-id",
        "pel-count",
    ];
    let mut map = BTreeMap::new();
    for pair in reply.array().chunks(2) {
        let name = pair[0].text();
        if DERIVED.contains(&name.as_str()) {
            continue;
        }
        let value = if matches!(name.as_str(), "groups" | "consumers") {
            Value::List(pair[1].array().iter().map(stream).collect())
        } else {
            plain(&pair[1])
        };
        map.insert(name, value);
    }
    Value::Map(map)
}

/// Changes a key of a kind at random: for tests that write while something else reads.
pub fn disturb(random: &mut Random, key: &str) -> Command {
    match random.below(3) {
        0 => cmd!["DEL", key],
        1 => cmd!["SET", key, format!("disturbed {}", random.next())],
        _ => cmd![
            "SET",
            key,
            "disturbed, and gone soon",
            "PX",
            50 + random.below(100)
        ],
    }
}
