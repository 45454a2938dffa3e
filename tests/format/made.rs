//! Files made at random, of every type and opcode that is known: strategies for proptest.

use proptest::collection::vec;
use proptest::prelude::*;
use rdbkeeper::rdb::length::{encode, encode_string};
use rdbkeeper::rdb::{DbIndex, Family, FileVersion, NewKey, ValueType, Writer};

/// A length, in its shortest form or a longer one.
fn length(value: u64, form: u8) -> Vec<u8> {
    let mut out = Vec::new();
    match form % 4 {
        0 if value <= u64::from(u32::MAX) => {
            out.push(0x80);
            out.extend((value as u32).to_be_bytes());
        }
        1 => {
            out.push(0x81);
            out.extend(value.to_be_bytes());
        }
        _ => encode(value, &mut out),
    }
    out
}

fn any_length() -> BoxedStrategy<Vec<u8>> {
    (
        prop_oneof![0..64u64, 0..20_000u64, any::<u64>()],
        any::<u8>(),
    )
        .prop_map(|(value, form)| length(value, form))
        .boxed()
}

/// A string in any encoding.
pub fn string() -> BoxedStrategy<Vec<u8>> {
    let plain = prop_oneof![4 => 0..20usize, 2 => 60..70usize, 1 => 200..400usize];
    prop_oneof![
        6 => (plain, any::<u8>(), any::<u8>()).prop_map(|(len, fill, form)| {
            let mut out = length(len as u64, form);
            out.extend((0..len).map(|i| fill.wrapping_add(i as u8)));
            out
        }),
        1 => any::<i8>().prop_map(|value| vec![0xc0, value as u8]),
        1 => any::<i16>().prop_map(|value| [&[0xc1][..], &value.to_le_bytes()].concat()),
        1 => any::<i32>().prop_map(|value| [&[0xc2][..], &value.to_le_bytes()].concat()),
        1 => (vec(any::<u8>(), 1..30), any::<u8>()).prop_map(|(bytes, form)| {
            let mut out = vec![0xc3];
            out.extend(length(bytes.len() as u64 + 1, form));
            out.extend(length(bytes.len() as u64, form >> 2));
            out.push(bytes.len() as u8 - 1);
            out.extend(bytes);
            out
        }),
    ]
    .boxed()
}

fn fixed(len: usize) -> BoxedStrategy<Vec<u8>> {
    vec(any::<u8>(), len).boxed()
}

fn all(parts: Vec<BoxedStrategy<Vec<u8>>>) -> BoxedStrategy<Vec<u8>> {
    parts.prop_map(|parts| parts.concat()).boxed()
}

fn counted(element: BoxedStrategy<Vec<u8>>) -> BoxedStrategy<Vec<u8>> {
    (vec(element, 0..4), any::<u8>())
        .prop_map(|(elements, form)| {
            let mut out = length(elements.len() as u64, form);
            out.extend(elements.concat());
            out
        })
        .boxed()
}

fn score() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![
        Just(vec![253]),
        Just(vec![254]),
        Just(vec![255]),
        Just(b"\x041.25".to_vec()),
    ]
    .boxed()
}

fn module_ops() -> BoxedStrategy<Vec<u8>> {
    let op = |code: u8, value: BoxedStrategy<Vec<u8>>| {
        value.prop_map(move |value| [&[code][..], &value].concat())
    };
    let any_op = prop_oneof![
        op(1, any_length()),
        op(2, any_length()),
        op(3, fixed(4)),
        op(4, fixed(8)),
        op(5, string()),
    ];
    vec(any_op, 0..4)
        .prop_map(|ops| [ops.concat(), vec![0]].concat())
        .boxed()
}

fn stream(version: u8) -> BoxedStrategy<Vec<u8>> {
    let ids = || counted(fixed(16));
    let lengths = |count| all((0..count).map(|_| any_length()).collect());
    let pending = counted(all(vec![fixed(16), fixed(8), any_length()]));
    let times = if version >= 3 { 16 } else { 8 };
    let consumers = counted(all(vec![string(), fixed(times), ids()]));
    let read = if version >= 2 { 3 } else { 2 };
    let mut group = vec![string(), lengths(read), pending, consumers];
    if version >= 5 {
        group.push(ids());
    }
    let facts = if version >= 2 { 8 } else { 3 };
    let mut parts = vec![
        counted(all(vec![string(), string()])),
        lengths(facts),
        counted(all(group)),
    ];
    if version >= 4 {
        let messages = counted(all(vec![string(), lengths(2)]));
        parts.push(lengths(2));
        parts.push(counted(all(vec![string(), messages])));
        parts.push(lengths(2));
    }
    all(parts)
}

/// A value's bytes in a file.
pub fn value(value_type: ValueType) -> BoxedStrategy<Vec<u8>> {
    let pairs = || vec![string(), string()];
    match (value_type.code(), value_type.family()) {
        (0 | 9..=13 | 16 | 17 | 20, _) | (23, Some(Family::Redis)) => string(),
        (1 | 2 | 14, _) => counted(string()),
        (3, _) => counted(all(vec![string(), score()])),
        (4, _) => counted(all(pairs())),
        (5, _) => counted(all(vec![string(), fixed(8)])),
        (7, _) => all(vec![any_length(), module_ops()]),
        (15, _) => stream(1),
        (18, _) => counted(all(vec![
            prop_oneof![Just(vec![1]), Just(vec![2])].boxed(),
            string(),
        ])),
        (19, _) => stream(2),
        (21, _) => stream(3),
        (26, _) => stream(4),
        (27, _) => stream(5),
        (22, Some(Family::Redis)) => counted(all(vec![any_length(), string(), string()])),
        (24, _) => all(vec![
            fixed(8),
            counted(all(vec![any_length(), string(), string()])),
        ]),
        (25, _) => all(vec![fixed(8), string()]),
        (22, _) => counted(all(vec![string(), string(), fixed(8)])),
        (code, family) => panic!("no strategy for type {code} of {family:?}"),
    }
}

/// Every type of a family.
pub fn types(family: Family) -> Vec<ValueType> {
    (0..=255)
        .filter_map(|code| ValueType::new(code, family))
        .collect()
}

#[derive(Clone, Debug)]
pub enum Part {
    Raw(Vec<u8>),
    Aux(Vec<u8>, Vec<u8>),
    Db(u32),
    Resize(u64, u64),
    Function(Vec<u8>),
    Key(Key),
}

#[derive(Clone, Debug)]
pub struct Key {
    pub name: Vec<u8>,
    pub type_code: u8,
    pub value: Vec<u8>,
    pub expire_at_ms: Option<i64>,
    pub idle_s: Option<u64>,
    pub freq: Option<u8>,
    pub meta: Vec<u8>,
}

impl Key {
    pub fn head(&self) -> NewKey<'_> {
        NewKey {
            expire_at_ms: self.expire_at_ms,
            idle_s: self.idle_s,
            freq: self.freq,
            meta: &self.meta,
            ..NewKey::new(&self.name, self.type_code)
        }
    }
}

fn metadata() -> BoxedStrategy<Vec<u8>> {
    counted(all(vec![fixed(4), module_ops()]))
        .prop_map(|body| [&[243][..], &body].concat())
        .boxed()
}

pub fn key(family: Family) -> BoxedStrategy<Key> {
    let typed = proptest::sample::select(types(family))
        .prop_flat_map(|value_type| (Just(value_type.code()), value(value_type)));
    let meta = match family {
        Family::Redis => prop_oneof![8 => Just(Vec::new()), 1 => metadata()].boxed(),
        Family::Valkey => Just(Vec::new()).boxed(),
    };
    (
        vec(any::<u8>(), 0..80),
        typed,
        proptest::option::of(0..i64::MAX),
        proptest::option::of(any::<u64>()),
        proptest::option::of(any::<u8>()),
        meta,
    )
        .prop_map(
            |(name, (type_code, value), expire_at_ms, idle_s, freq, meta)| Key {
                name,
                type_code,
                value,
                expire_at_ms,
                idle_s,
                freq,
                meta,
            },
        )
        .boxed()
}

fn part(family: Family) -> BoxedStrategy<Part> {
    let small = || vec(any::<u8>(), 0..30);
    let raw = |opcode: u8, body: BoxedStrategy<Vec<u8>>| {
        body.prop_map(move |body| Part::Raw([&[opcode][..], &body].concat()))
            .boxed()
    };
    let pre_ga = all(vec![
        string(),
        string(),
        prop_oneof![
            Just(vec![0]),
            string().prop_map(|text| [&[1][..], &text].concat())
        ]
        .boxed(),
        string(),
    ]);
    let module_aux = all(vec![
        any_length(),
        Just(vec![2]).boxed(),
        any_length(),
        module_ops(),
    ]);
    let import = match family {
        Family::Valkey => raw(
            243,
            all(vec![
                string(),
                counted(all(vec![any_length(), any_length()])),
            ]),
        ),
        Family::Redis => raw(244, all(vec![any_length(), any_length(), any_length()])),
    };
    // An expiry in seconds, which the writer never writes.
    let in_seconds = all(vec![fixed(4), Just(vec![0]).boxed(), string(), string()]);
    prop_oneof![
        12 => key(family).prop_map(Part::Key),
        2 => (small(), small()).prop_map(|(key, value)| Part::Aux(key, value)),
        4 => (0..5u32).prop_map(Part::Db),
        1 => (any::<u64>(), 0..100u64).prop_map(|(keys, expires)| Part::Resize(keys, expires)),
        1 => small().prop_map(Part::Function),
        1 => raw(246, pre_ga),
        1 => raw(247, module_aux),
        1 => import,
        1 => raw(253, in_seconds),
    ]
    .boxed()
}

/// A file of a family: its version and its parts.
pub fn file() -> BoxedStrategy<(FileVersion, Vec<Part>)> {
    prop_oneof![
        (2..16u16).prop_map(|number| FileVersion {
            family: Family::Redis,
            number
        }),
        Just(FileVersion {
            family: Family::Valkey,
            number: 80
        }),
    ]
    .prop_flat_map(|version| (Just(version), vec(part(version.family), 0..12)))
    .boxed()
}

/// The bytes of a file.
pub fn write(version: FileVersion, parts: &[Part]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), version).unwrap();
    for part in parts {
        match part {
            Part::Raw(raw) => writer.raw(raw).unwrap(),
            Part::Aux(key, value) => writer.aux(key, value).unwrap(),
            Part::Db(db) => writer.select_db(DbIndex(*db)).unwrap(),
            Part::Resize(keys, expires) => writer.resize_db(*keys, *expires).unwrap(),
            Part::Function(code) => writer.function(code).unwrap(),
            Part::Key(key) => writer.key(&key.head(), &key.value).unwrap(),
        }
    }
    let (bytes, len) = writer.finish().unwrap();
    assert_eq!(bytes.len() as u64, len);
    bytes
}

/// A library's source as it stands in a file.
pub fn encoded(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_string(bytes, &mut out);
    out
}
