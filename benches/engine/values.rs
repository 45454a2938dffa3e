//! One value of each encoding, as servers make them: small collections of at most 128 elements, larger ones where those are kept
//! in nodes. Half of the elements are texts, half numbers.

use rdbkeeper::rdb::length::{encode, encode_string};
use rdbkeeper::rdb::packed::ListpackWriter;
use rdbkeeper::rdb::value::{
    Consumer, Element, Encoder, Entry, Fields, Group, Pending, StreamFacts, StreamHistory, StreamId,
};
use rdbkeeper::rdb::{Family, ValueType};

use crate::data::{Random, lzf, session};

/// What it is, its type, its bytes in file form.
pub type Value = (&'static str, ValueType, Vec<u8>);

fn value_type(code: u8) -> ValueType {
    ValueType::new(code, Family::Redis).unwrap()
}

/// A value of each.
pub fn all() -> Vec<Value> {
    let mut random = Random(0xdec0de);
    let random = &mut random;
    let pairs = pairs(random, 64);
    let text = session(random).into_bytes();
    let values = [
        ("string", 0, string(&text)),
        ("string, LZF", 0, lzf_string(&text)),
        (
            "string of 64 KiB, LZF",
            0,
            lzf_string(&text_of(random, 64 << 10)),
        ),
        ("hash, listpack", 16, string(&listpack(&pairs))),
        ("zset, listpack", 17, string(&listpack(&pairs))),
        ("set, listpack", 20, string(&listpack(&pairs))),
        (
            "list, quicklist of listpacks",
            18,
            quicklist(random, Some(2), listpack),
        ),
        ("hash, ziplist", 13, string(&ziplist(&pairs))),
        ("zset, ziplist", 12, string(&ziplist(&pairs))),
        (
            "list, quicklist of ziplists",
            14,
            quicklist(random, None, ziplist),
        ),
        ("set, intset", 11, string(&intset(512))),
        ("hash, zipmap", 9, string(&zipmap(&pairs))),
        ("hash, plain", 4, hash(random, 2_000)),
        ("zset, plain", 5, zset(random, 2_000)),
        ("stream", 21, stream(random, 1_000)),
    ];
    values
        .map(|(name, code, bytes)| (name, value_type(code), bytes))
        .into()
}

/// A text and a number in turn: field and value, member and score, or just elements.
type Pair = (String, i64);

fn pairs(random: &mut Random, count: usize) -> Vec<Pair> {
    let number =
        |random: &mut Random, i| random.below(1_u64 << [6, 14, 30, 45][i % 4]).cast_signed();
    (0..count)
        .map(|i| {
            (
                format!("member:{:08x}", random.below(1 << 32)),
                number(random, i),
            )
        })
        .collect()
}

/// Sessions, one after the other.
pub fn text_of(random: &mut Random, len: usize) -> Vec<u8> {
    let mut text = Vec::new();
    while text.len() < len {
        text.extend(session(random).into_bytes());
    }
    text.truncate(len);
    text
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_string(bytes, &mut out);
    out
}

fn lzf_string(plain: &[u8]) -> Vec<u8> {
    let packed = lzf(plain);
    let mut out = vec![0xc3];
    encode(packed.len() as u64, &mut out);
    encode(plain.len() as u64, &mut out);
    out.extend(packed);
    out
}

fn listpack(pairs: &[Pair]) -> Vec<u8> {
    let mut writer = ListpackWriter::new();
    for (text, number) in pairs {
        writer.bytes(text.as_bytes());
        writer.int(*number);
    }
    writer.finish()
}

/// `ziplist.c`: each element tells the length of the one before it.
fn ziplist(pairs: &[Pair]) -> Vec<u8> {
    let mut bytes = vec![0; 10];
    let mut begin = bytes.len();
    let mut before = 0;
    let mut element = |head: u8, body: &[u8]| {
        begin = bytes.len();
        bytes.extend([before, head]);
        bytes.extend_from_slice(body);
        before = (bytes.len() - begin) as u8;
    };
    for (text, number) in pairs {
        element(text.len() as u8, text.as_bytes());
        match (i16::try_from(*number), i32::try_from(*number)) {
            (Ok(number), _) => element(0xc0, &number.to_le_bytes()),
            (_, Ok(number)) => element(0xd0, &number.to_le_bytes()),
            _ => element(0xe0, &number.to_le_bytes()),
        }
    }
    bytes.push(0xff);
    let length = bytes.len() as u32;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes[4..8].copy_from_slice(&(begin as u32).to_le_bytes());
    bytes[8..10].copy_from_slice(&(pairs.len() as u16 * 2).to_le_bytes());
    bytes
}

/// `zipmap.c`: lengths of one byte, and one that counts unused bytes.
fn zipmap(pairs: &[Pair]) -> Vec<u8> {
    let mut bytes = vec![pairs.len() as u8];
    for (text, number) in pairs {
        let number = number.to_string();
        bytes.push(text.len() as u8);
        bytes.extend(text.as_bytes());
        bytes.extend([number.len() as u8, 0]);
        bytes.extend(number.as_bytes());
    }
    bytes.push(0xff);
    bytes
}

/// `intset.c`: numbers of 4 bytes.
fn intset(count: u32) -> Vec<u8> {
    let head = [4, count].into_iter();
    let numbers = head.chain((0..count).map(|i| i * 1_000));
    numbers.flat_map(u32::to_le_bytes).collect()
}

/// Eight nodes of about 8 KiB, each behind the mark of its kind where the type has one.
fn quicklist(random: &mut Random, container: Option<u64>, node: fn(&[Pair]) -> Vec<u8>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(8, &mut out);
    for _ in 0..8 {
        if let Some(container) = container {
            encode(container, &mut out);
        }
        encode_string(&node(&pairs(random, 320)), &mut out);
    }
    out
}

fn hash(random: &mut Random, count: usize) -> Vec<u8> {
    let mut out = Vec::new();
    encode(count as u64, &mut out);
    for (text, number) in pairs(random, count) {
        encode_string(text.as_bytes(), &mut out);
        encode_string(number.to_string().as_bytes(), &mut out);
    }
    out
}

fn zset(random: &mut Random, count: usize) -> Vec<u8> {
    let mut out = Vec::new();
    encode(count as u64, &mut out);
    for (text, number) in pairs(random, count) {
        encode_string(text.as_bytes(), &mut out);
        out.extend((number as f64).to_le_bytes());
    }
    out
}

/// Entries of three fields, and a group whose consumer has not acknowledged the last tenth of them.
fn stream(random: &mut Random, count: u64) -> Vec<u8> {
    let id = |i| StreamId {
        ms: 1_732_200_000_000 + i * 10,
        seq: 0,
    };
    let mut encoder = Encoder::new(value_type(21));
    for (i, (text, number)) in (0..count).zip(pairs(random, count as usize)) {
        let number = number.to_string();
        let parts = [
            "who",
            text.as_str(),
            "amount",
            number.as_str(),
            "state",
            "done",
        ];
        let ends: Vec<usize> = parts
            .iter()
            .scan(0, |end, part| {
                *end += part.len();
                Some(*end)
            })
            .collect();
        let joined = parts.concat();
        let fields = Fields::new(joined.as_bytes(), &ends);
        encoder.element(Element::Entry(Entry { id: id(i), fields }));
    }
    let last_id = id(count - 1);
    encoder.element(Element::Stream(StreamFacts {
        length: count,
        last_id,
        since_7: Some(StreamHistory {
            first_id: id(0),
            max_deleted_id: StreamId::default(),
            entries_added: count,
        }),
    }));
    encoder.element(Element::Group(Group {
        name: b"workers",
        last_id,
        entries_read: Some(count),
    }));
    encoder.element(Element::Consumer(Consumer {
        name: b"one",
        seen_ms: 1_732_300_000_000,
        active_ms: Some(1_732_300_000_000),
    }));
    for i in count - count / 10..count {
        encoder.element(Element::Owned(Pending {
            id: id(i),
            delivered_ms: 1_732_300_000_000,
            deliveries: 1,
        }));
    }
    encoder.element(Element::GroupEnd);
    encoder.finish()
}
