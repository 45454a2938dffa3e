//! From elements to a value's bytes, in the plainest layout of its type.
//!
//! The plain layouts are known to servers of every age, which turn them into their own packed ones while they load. So a
//! value that an older server, or one of the other family, does not know in its packed form can still go there by RESTORE.

use super::super::length;
use super::super::types::{Family, LogicalType, ValueType};
use super::Element;
use super::streams_out::StreamEncoder;

/// The plain type in which a server of `family` with this RDB version takes such a value: `None` when it can't hold it.
///
/// `field_expiries`: whether a hash has fields that expire; a server that knows none gets `None`. A module's value has no
/// plain form.
pub fn plain_type(
    logical: LogicalType,
    field_expiries: FieldsExpire,
    family: Family,
    rdb_version: u16,
) -> Option<ValueType> {
    let code = match (logical, field_expiries) {
        (LogicalType::String, _) => 0,
        (LogicalType::List, _) => 1,
        (LogicalType::Set, _) => 2,
        (LogicalType::Zset, _) if rdb_version >= 8 => 5,
        (LogicalType::Zset, _) => 3,
        (LogicalType::Hash, FieldsExpire::No) => 4,
        (LogicalType::Hash, FieldsExpire::Yes) => match family {
            Family::Redis => 24,
            Family::Valkey => 22,
        },
        (LogicalType::Stream, _) => match rdb_version {
            11.. => 21,
            10 => 19,
            _ => 15,
        },
        (LogicalType::Module, _) => return None,
    };
    ValueType::new(code, family).filter(|found| found.known_to(family, rdb_version))
}

/// Whether a hash has fields that expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldsExpire {
    /// At least one.
    Yes,
    /// None.
    No,
}

/// Makes a value of elements. Memory is the value's own size.
#[derive(Debug)]
pub struct Encoder {
    value_type: ValueType,
    body: Vec<u8>,
    elements: u64,
    stream: StreamEncoder,
}

/// The least expiry of a hash, which its expiries are counted from. Servers write the true one; any that is not greater
/// does as well, and this one lets each expiry stand as it is.
const LEAST_EXPIRY: i64 = 1;

impl Encoder {
    /// An encoder for a type that [`plain_type`] gave.
    pub fn new(value_type: ValueType) -> Encoder {
        Encoder {
            value_type,
            body: Vec::new(),
            elements: 0,
            stream: StreamEncoder::new(value_type.code()),
        }
    }

    /// The type.
    pub fn value_type(&self) -> ValueType {
        self.value_type
    }

    /// Adds the next element. What the type can't hold (a field's expiry in a plain hash, a stream's history before 7.0)
    /// is left out, and so is an element of another type.
    pub fn element(&mut self, element: Element<'_>) {
        let body = &mut self.body;
        match (element, self.value_type.logical()) {
            (Element::String(bytes), LogicalType::String) if self.elements == 0 => {
                length::encode_string(bytes, body);
            }
            (Element::Item(item), LogicalType::List | LogicalType::Set) => {
                length::encode_string(item, body);
            }
            (Element::Scored { member, score }, LogicalType::Zset) => {
                length::encode_string(member, body);
                match self.value_type.code() {
                    3 => text_score(score, body),
                    _ => body.extend(score.to_le_bytes()),
                }
            }
            (
                Element::Field {
                    field,
                    value,
                    expire_at_ms,
                },
                LogicalType::Hash,
            ) => match (self.value_type.code(), self.value_type.family()) {
                (24, _) => {
                    let expiry = expire_at_ms.map_or(0, |at| at.max(LEAST_EXPIRY));
                    length::encode(expiry.cast_unsigned(), body);
                    length::encode_string(field, body);
                    length::encode_string(value, body);
                }
                (22, Some(Family::Valkey)) => {
                    length::encode_string(field, body);
                    length::encode_string(value, body);
                    body.extend(expire_at_ms.unwrap_or(-1).to_le_bytes());
                }
                _ => {
                    length::encode_string(field, body);
                    length::encode_string(value, body);
                }
            },
            (element, LogicalType::Stream) => {
                self.elements += u64::from(matches!(element, Element::Entry(_)));
                self.stream.element(element);
                return;
            }
            _ => return,
        }
        self.elements += 1;
    }

    /// How many bytes it has so far, about.
    pub fn bytes(&self) -> usize {
        self.body.len() + self.stream.bytes()
    }

    /// How many elements (members, fields, entries) it has so far. A server takes no empty collection but a stream.
    pub fn elements(&self) -> u64 {
        self.elements
    }

    /// Ends the value: its bytes as they stand in a file, or in a payload after the type byte.
    pub fn finish(self) -> Vec<u8> {
        let mut head = Vec::new();
        match (self.value_type.logical(), self.value_type.code()) {
            (LogicalType::String, _) => return self.body,
            (LogicalType::Stream, _) => return self.stream.finish(),
            (_, 24) => head.extend(LEAST_EXPIRY.to_le_bytes()),
            _ => {}
        }
        length::encode(self.elements, &mut head);
        let mut value = self.body;
        value.splice(..0, head);
        value
    }
}

/// A score as text (`rdbSaveDoubleValue`).
fn text_score(score: f64, out: &mut Vec<u8>) {
    if score.is_nan() {
        out.push(253);
    } else if score.is_infinite() {
        out.push(if score > 0.0 { 254 } else { 255 });
    } else {
        // The shortest text that means this number: at most 24 characters.
        let text = format!("{score:e}");
        out.push(text.len() as u8);
        out.extend(text.as_bytes());
    }
}
