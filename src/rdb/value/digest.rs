//! A number for a value's content, whatever its encoding.

use super::super::types::LogicalType;
use super::Element;

/// Whether the expiries of single fields are part of a hash's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldExpiries {
    /// They are.
    Count,
    /// They are not: they were left out on purpose.
    Ignored,
}

/// Sums up elements: equal for equal contents, whichever server wrote them and in whatever order a set, a hash or a
/// sorted set was kept.
///
/// Of a stream the entries, its last ID, its groups with their last IDs and their pending entries with owner, time and
/// count are content; the times of consumers, consumers without pending entries, and what servers before 7.0 do not know
/// are not.
#[derive(Clone, Debug)]
pub struct ContentDigest {
    logical: LogicalType,
    expiries: FieldExpiries,
}

impl ContentDigest {
    /// Nothing yet.
    pub fn new(logical: LogicalType, expiries: FieldExpiries) -> ContentDigest {
        ContentDigest { logical, expiries }
    }

    /// Adds the next element.
    pub fn element(&mut self, element: Element<'_>) {
        let _ = (element, self.logical, self.expiries);
        todo!()
    }

    /// The digest of the whole value.
    pub fn finish(&self) -> u128 {
        todo!()
    }
}
