//! From elements to a value's bytes, in the plainest layout of its type.
//!
//! The plain layouts are known to servers of every age, which turn them into their own packed ones while they load. So a
//! value that an older server, or one of the other family, does not know in its packed form can still go there by RESTORE.

use super::super::types::{Family, LogicalType, ValueType};
use super::Element;

/// The plain type in which a server of `family` with this RDB version takes such a value: `None` when it can't hold it.
///
/// `field_expiries`: whether a hash has fields that expire; a server that knows none gets `None`. A module's value has no
/// plain form.
pub fn plain_type(
    logical: LogicalType,
    field_expiries: bool,
    family: Family,
    rdb_version: u16,
) -> Option<ValueType> {
    let _ = (logical, field_expiries, family, rdb_version);
    todo!()
}

/// Makes a value of elements. Memory is the value's own size.
#[derive(Debug)]
pub struct Encoder {
    value_type: ValueType,
}

impl Encoder {
    /// An encoder for a type that [`plain_type`] gave.
    pub fn new(value_type: ValueType) -> Encoder {
        Encoder { value_type }
    }

    /// The type.
    pub fn value_type(&self) -> ValueType {
        self.value_type
    }

    /// Adds the next element. What the type can't hold (a field's expiry in a plain hash, a stream's history before 7.0)
    /// is left out.
    pub fn element(&mut self, element: Element<'_>) {
        let _ = element;
        todo!()
    }

    /// How many bytes it has so far, about.
    pub fn bytes(&self) -> usize {
        todo!()
    }

    /// How many elements (members, fields, entries) it has so far. A server does not take an empty collection.
    pub fn elements(&self) -> u64 {
        todo!()
    }

    /// Ends the value: its bytes as they stand in a file, or in a payload after the type byte.
    pub fn finish(self) -> Vec<u8> {
        todo!()
    }
}
