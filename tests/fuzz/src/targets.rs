//! What is done to the bytes that a fuzzer makes: one function a target. It returns, or it has found something.
//!
//! The fuzzer looks for panics, for what takes long and for what takes much memory; the asserts here add what must be
//! true of every input: that how it is cut does not matter, and that what was read can be written and read again.

use std::convert::Infallible;

use rdbkeeper::catalog::manifest::{Manifest, Read};
use rdbkeeper::config::SessionStore;
use rdbkeeper::pipeline::sha256;
use rdbkeeper::rdb::packed::{Intset, Listpack, ListpackWriter, Packed, Ziplist, Zipmap};
use rdbkeeper::rdb::payload::{self, Payload};
use rdbkeeper::rdb::value::{
    ContentDigest, Decoder, Element, Encoder, FieldExpiries, FieldsExpire, ValueError, plain_type,
};
use rdbkeeper::rdb::{Event, Family, Scanner, StringRef, ValueType, from_fn, lzf};
use rdbkeeper::sessions::stores::{companions, hash_fields, read_hash, read_text, role};

/// What is done to some bytes.
pub type Target = fn(&[u8]);

/// Every target by its name, which is that of its folder of seeds, too.
pub const ALL: [(&str, Target); 7] = [
    ("scanner", scanner),
    ("value", value),
    ("packed", packed),
    ("lzf", inflate),
    ("payload", dumped),
    ("manifest", manifest),
    ("stores", stores),
];

/// A file, whole and in pieces.
pub fn scanner(data: &[u8]) {
    let scan = |piece: usize| {
        let mut scanner = Scanner::new();
        let (mut raw, mut keys) = (Vec::new(), 0_u64);
        let mut handler = from_fn(|event: Event<'_>| {
            raw.extend_from_slice(event.raw());
            keys += u64::from(matches!(event, Event::Key(_)));
            Ok::<(), Infallible>(())
        });
        let fed = data
            .chunks(piece)
            .try_for_each(|part| scanner.feed(part, &mut handler));
        let outcome = fed.and_then(|()| scanner.finish(&mut handler));
        (outcome.map_err(|error| error.to_string()), raw, keys)
    };
    let whole = scan(data.len().max(1));
    if whole.0.is_ok() {
        assert_eq!(whole.1, data, "the raw bytes are the file");
    }
    let cut = scan(1 + data.len() % 7);
    // Of two faults a reading in pieces may meet the other one first.
    assert_eq!(whole.0.is_ok(), cut.0.is_ok(), "cut in pieces");
    if whole.0.is_ok() {
        assert!(whole == cut, "cut in pieces");
    }
}

/// What a value turned out to be.
#[derive(PartialEq)]
struct Content {
    digest: u128,
    elements: u64,
    /// What the plain layouts can't hold, or no server makes.
    odd: bool,
}

fn decode(
    value_type: ValueType,
    data: &[u8],
    piece: usize,
    also: &mut dyn FnMut(Element<'_>),
) -> Option<Content> {
    let mut digest = ContentDigest::new(value_type.logical(), FieldExpiries::Count);
    let (mut elements, mut odd) = (0, false);
    let mut owned = Vec::new();
    let mut sink = |element: Element<'_>| {
        elements += 1;
        match element {
            Element::Field {
                expire_at_ms: Some(..=0),
                ..
            }
            | Element::Unowned(_) => odd = true,
            Element::Group(_) => owned.clear(),
            Element::Owned(pending) => owned.push(pending.id),
            Element::GroupEnd => {
                owned.sort_unstable();
                odd |= owned.windows(2).any(|pair| pair[0] == pair[1]);
            }
            Element::Module(_) | Element::ModuleBytes(_) => elements = 1,
            _ => {}
        }
        digest.element(element);
        also(element);
        Ok::<(), Infallible>(())
    };
    let mut decoder = Decoder::new();
    decoder.start(value_type);
    for part in data.chunks(piece) {
        match decoder.push(part, &mut sink) {
            Ok(()) => {}
            Err(ValueError::Sink(never)) => match never {},
            Err(ValueError::Damaged(_)) => return None,
        }
    }
    decoder.finish().ok()?;
    Some(Content {
        digest: digest.finish(),
        elements,
        odd,
    })
}

fn value_of(value_type: ValueType, data: &[u8]) {
    let family = value_type.family().unwrap_or(Family::Redis);
    let rdb_version = match family {
        Family::Redis => 12,
        Family::Valkey => 80,
    };
    let expire = match value_type.code() {
        22..=25 => FieldsExpire::Yes,
        _ => FieldsExpire::No,
    };
    let plain = plain_type(value_type.logical(), expire, family, rdb_version);
    let mut encoder = plain.map(Encoder::new);
    let whole = decode(value_type, data, data.len().max(1), &mut |element| {
        if let Some(encoder) = &mut encoder {
            encoder.element(element);
        }
    });
    let cut = decode(value_type, data, 1 + data.len() % 5, &mut |_| {});
    assert!(whole == cut, "cut in pieces");
    if let (Some(content), Some(encoder), Some(plain)) = (whole, encoder, plain)
        && !content.odd
    {
        let bytes = encoder.finish();
        let again = decode(plain, &bytes, bytes.len().max(1), &mut |_| {});
        assert!(again == Some(content), "written and read again");
    }
}

/// A value: the first byte says of which type (in the low five bits) and family (the next one).
pub fn value(data: &[u8]) {
    let Some((&head, data)) = data.split_first() else {
        return;
    };
    let family = match head & 0x20 {
        0 => Family::Redis,
        _ => Family::Valkey,
    };
    if let Some(value_type) = ValueType::new(head & 0x1f, family) {
        value_of(value_type, data);
    }
}

/// A packed structure: the first byte says which.
pub fn packed(data: &[u8]) {
    let Some((&kind, data)) = data.split_first() else {
        return;
    };
    // No structure has more elements than bytes.
    let most = data.len();
    match kind % 4 {
        0 => {
            if let Ok(listpack) = Listpack::new(data) {
                rewrite(listpack, most);
            }
        }
        1 => {
            if let Ok(ziplist) = Ziplist::new(data) {
                rewrite(ziplist, most);
            }
        }
        2 => {
            if let Ok(intset) = Intset::new(data) {
                assert!(intset.count() <= most);
            }
        }
        _ => {
            if let Ok(zipmap) = Zipmap::new(data) {
                assert!(zipmap.count() <= most + 1);
            }
        }
    }
}

fn rewrite<'a, E: std::fmt::Debug>(
    packed: impl Iterator<Item = Result<Packed<'a>, E>>,
    most: usize,
) {
    let (mut writer, mut elements) = (ListpackWriter::new(), Vec::new());
    let mut whole = true;
    for element in packed {
        assert!(whole, "it goes on after an error");
        match element {
            Ok(element) => elements.push(element),
            Err(_) => whole = false,
        }
    }
    assert!(elements.len() <= most);
    for element in &elements {
        match element {
            Packed::Bytes(bytes) => writer.bytes(bytes),
            Packed::Int(int) => writer.int(*int),
        }
    }
    let bytes = writer.finish();
    let again = Listpack::new(&bytes).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    assert_eq!(again, Ok(elements), "written and read again");
}

/// Compressed bytes: the first four say how long they were, little-endian. And a string of a file.
pub fn inflate(data: &[u8]) {
    if let Some((length, packed)) = data.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let mut out = Vec::new();
        if lzf::decompress_into(packed, length, &mut out).is_ok() {
            assert_eq!(out.len(), length);
        }
        // No token makes more than 264 bytes of 3; a vector that grows may have twice of what it needs.
        assert!(out.capacity() <= (packed.len() * 88 + 264) * 2);
    }
    if let Ok(Some(string)) = StringRef::parse(data)
        && let Ok(content) = string.decode()
    {
        assert!(content.len() as u64 <= string.decoded_len());
    }
}

/// What DUMP gives: as it is, and with a footer that fits.
pub fn dumped(data: &[u8]) {
    let mut fitting = Vec::new();
    if let Some((&version, body)) = data.split_first() {
        fitting.extend_from_slice(body);
        fitting.extend(payload::footer(body, u16::from(version)));
    }
    for bytes in [data, &fitting] {
        if let Ok(payload) = Payload::parse(bytes)
            && let Some(value_type) = payload.value_type
        {
            value_of(value_type, payload.value);
        }
        if let Ok(libraries) = payload::parse_functions(bytes) {
            let again = payload::encode_functions(libraries.iter().copied(), 10);
            let again = payload::parse_functions(&again).map(|again| again.len());
            assert_eq!(again, Ok(libraries.len()));
        }
    }
}

/// A manifest: as it is, and with a digest that fits.
pub fn manifest(data: &[u8]) {
    let mut fitting = data.to_vec();
    fitting.extend(format!("\"check\": \"{}\"\n}}\n", sha256(data)).bytes());
    for bytes in [data, &fitting] {
        if let Read::Whole(manifest) = Manifest::read(bytes) {
            let again = manifest.to_bytes().map(|bytes| Manifest::read(&bytes));
            assert_eq!(again.ok(), Some(Read::Whole(manifest)));
        }
    }
}

/// A session: the first byte says of which store.
pub fn stores(data: &[u8]) {
    let Some((&store, data)) = data.split_first() else {
        return;
    };
    let stores = SessionStore::ALL;
    let store = stores[usize::from(store) % stores.len()];
    let _ = read_text(store, data);
    let _ = role(store, data);
    let fields = hash_fields(store).len();
    let mut values: Vec<_> = data
        .splitn(fields.max(1), |byte| *byte == 0)
        .map(Some)
        .collect();
    values.resize(fields, None);
    let _ = read_hash(store, &values);
    let _ = companions(store, data, &values);
}
