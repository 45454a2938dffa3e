//! Elements that own their bytes, and short ways from a value's bytes to them and back.

use std::convert::Infallible;

use rdbkeeper::rdb::value::{
    Consumer, ContentDigest, DecodeError, Decoder, Element, Encoder, Entry, FieldExpiries, Fields,
    FieldsExpire, Group, Pending, StreamFacts, StreamId, ValueError,
};
use rdbkeeper::rdb::{LogicalType, ModuleId, ValueType};

/// Fields and values of an entry.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// A score. One NaN is as good as another, and a zero as the other, for servers lose its sign.
#[derive(Clone, Copy, Debug)]
pub struct Score(pub f64);

impl PartialEq for Score {
    fn eq(&self, other: &Score) -> bool {
        self.0 == other.0 || self.0.is_nan() && other.0.is_nan()
    }
}

/// An [`Element`]; a module's bytes are in one piece.
#[derive(Clone, Debug, PartialEq)]
pub enum Owned {
    String(Vec<u8>),
    Item(Vec<u8>),
    Scored(Vec<u8>, Score),
    Field(Vec<u8>, Vec<u8>, Option<i64>),
    Entry(StreamId, Pairs),
    Stream(StreamFacts),
    Group(Vec<u8>, StreamId, Option<u64>),
    /// Name, seen, active.
    Consumer(Vec<u8>, i64, Option<i64>),
    Pending(Pending),
    Unowned(Pending),
    GroupEnd,
    Module(u64, Vec<u8>),
}

fn add(elements: &mut Vec<Owned>, element: Element<'_>) {
    let element = match element {
        Element::String(bytes) => Owned::String(bytes.to_vec()),
        Element::Item(bytes) => Owned::Item(bytes.to_vec()),
        Element::Scored { member, score } => Owned::Scored(member.to_vec(), Score(score)),
        Element::Field {
            field,
            value,
            expire_at_ms,
        } => Owned::Field(field.to_vec(), value.to_vec(), expire_at_ms),
        Element::Entry(entry) => {
            let fields = entry.fields.iter();
            let fields = fields.map(|(field, value)| (field.to_vec(), value.to_vec()));
            Owned::Entry(entry.id, fields.collect())
        }
        Element::Stream(facts) => Owned::Stream(facts),
        Element::Group(group) => {
            Owned::Group(group.name.to_vec(), group.last_id, group.entries_read)
        }
        Element::Consumer(consumer) => {
            Owned::Consumer(consumer.name.to_vec(), consumer.seen_ms, consumer.active_ms)
        }
        Element::Owned(pending) => Owned::Pending(pending),
        Element::Unowned(pending) => Owned::Unowned(pending),
        Element::GroupEnd => Owned::GroupEnd,
        Element::Module(id) => Owned::Module(id.0, Vec::new()),
        Element::ModuleBytes(bytes) => match elements.last_mut() {
            Some(Owned::Module(_, all)) => {
                all.extend_from_slice(bytes);
                return;
            }
            _ => panic!("a module's bytes before its ID"),
        },
    };
    elements.push(element);
}

impl Owned {
    /// Lends it as what it was.
    pub fn lend(&self, lend: &mut impl FnMut(Element<'_>)) {
        match self {
            Owned::String(bytes) => lend(Element::String(bytes)),
            Owned::Item(bytes) => lend(Element::Item(bytes)),
            Owned::Scored(member, score) => lend(Element::Scored {
                member,
                score: score.0,
            }),
            Owned::Field(field, value, expire_at_ms) => lend(Element::Field {
                field,
                value,
                expire_at_ms: *expire_at_ms,
            }),
            Owned::Entry(id, pairs) => {
                let (mut bytes, mut ends) = (Vec::new(), Vec::new());
                for part in pairs.iter().flat_map(|(field, value)| [field, value]) {
                    bytes.extend_from_slice(part);
                    ends.push(bytes.len());
                }
                lend(Element::Entry(Entry {
                    id: *id,
                    fields: Fields::new(&bytes, &ends),
                }));
            }
            Owned::Stream(facts) => lend(Element::Stream(*facts)),
            Owned::Group(name, last_id, entries_read) => lend(Element::Group(Group {
                name,
                last_id: *last_id,
                entries_read: *entries_read,
            })),
            Owned::Consumer(name, seen_ms, active_ms) => lend(Element::Consumer(Consumer {
                name,
                seen_ms: *seen_ms,
                active_ms: *active_ms,
            })),
            Owned::Pending(pending) => lend(Element::Owned(*pending)),
            Owned::Unowned(pending) => lend(Element::Unowned(*pending)),
            Owned::GroupEnd => lend(Element::GroupEnd),
            Owned::Module(id, bytes) => {
                lend(Element::Module(ModuleId(*id)));
                lend(Element::ModuleBytes(bytes));
            }
        }
    }
}

/// A value's elements, its bytes given in fragments of `piece`.
pub fn decoded(
    value_type: ValueType,
    bytes: &[u8],
    piece: usize,
) -> Result<Vec<Owned>, DecodeError> {
    let mut elements = Vec::new();
    let mut decoder = Decoder::new();
    decoder.start(value_type);
    for part in bytes.chunks(piece) {
        let pushed = decoder.push(part, &mut |element: Element<'_>| {
            add(&mut elements, element);
            Ok::<(), Infallible>(())
        });
        match pushed {
            Ok(()) => {}
            Err(ValueError::Damaged(error)) => return Err(error),
            Err(ValueError::Sink(never)) => match never {},
        }
    }
    decoder.finish()?;
    Ok(elements)
}

/// A value of elements.
pub fn encoded(value_type: ValueType, elements: &[Owned]) -> Vec<u8> {
    let mut encoder = Encoder::new(value_type);
    for element in elements {
        element.lend(&mut |element| encoder.element(element));
    }
    encoder.finish()
}

/// What [`ContentDigest`] says of elements.
pub fn digest(logical: LogicalType, elements: &[Owned], expiries: FieldExpiries) -> u128 {
    let mut digest = ContentDigest::new(logical, expiries);
    for element in elements {
        element.lend(&mut |element| digest.element(element));
    }
    digest.finish()
}

/// Whether a field expires.
pub fn fields_expire(elements: &[Owned]) -> FieldsExpire {
    let expires = |element: &Owned| matches!(element, Owned::Field(_, _, Some(_)));
    match elements.iter().any(expires) {
        true => FieldsExpire::Yes,
        false => FieldsExpire::No,
    }
}
