//! Values, decoded: from the bytes as they stand in a file to what a user put in, and back.
//!
//! [`Decoder`] is fed a value's fragments as a [`Scanner`](super::Scanner) hands them out and gives an [`Element`] for
//! each thing in it: a member, a field, a stream's entry. What it keeps in memory is one string of the file (an element,
//! or a packed node of many small ones) and, in a stream, the pending entries of one consumer group; never the whole of
//! a collection. [`Encoder`] makes a value of elements, in the plainest layout that a server knows, [`ContentDigest`] a
//! number that is the same for equal contents, however they are encoded.
//!
//! What it promises: damaged or hostile bytes give a [`DecodeError`], never a panic, an endless loop, or memory beyond
//! what the bytes can honestly hold.
//!
//! The trap: numbers inside a packed node are numbers only to the server; to its user they are the decimal text that
//! was written. Elements are always bytes.

mod decode;
mod digest;
mod encode;
mod nodes;
mod stream;
mod streams;
mod streams_out;
mod unit;

use std::fmt;

pub use decode::{DecodeError, Decoder, Fault, decode};
pub use digest::{ContentDigest, FieldExpiries};
pub use encode::{Encoder, FieldsExpire, plain_type};
pub use stream::{Consumer, Entry, Fields, Group, Pending, StreamFacts, StreamHistory, StreamId};

use super::types::ModuleId;

/// One thing in a value, in the order of the file. The bytes live until the sink returns.
///
/// By type, a value is: one `String`; any number of `Item` (list, set); of `Scored` (zset); of `Field` (hash); one
/// `Module` and its `ModuleBytes`; a stream's are described at [`Element::Entry`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Element<'a> {
    /// The whole of a string.
    String(&'a [u8]),
    /// An element of a list, or a member of a set.
    Item(&'a [u8]),
    /// A member of a sorted set.
    Scored {
        /// The member.
        member: &'a [u8],
        /// Its score; infinities, −0 and (from old servers) NaN included.
        score: f64,
    },
    /// A field of a hash.
    Field {
        /// Its name.
        field: &'a [u8],
        /// Its value.
        value: &'a [u8],
        /// When it alone expires, Unix time in milliseconds.
        expire_at_ms: Option<i64>,
    },
    /// An entry of a stream that was not deleted. After the last one follow one `Stream`, then for each group: `Group`,
    /// for each of its consumers `Consumer` and its `Owned` entries, then `Unowned` entries if there are any, `GroupEnd`.
    Entry(Entry<'a>),
    /// What a stream knows of itself, after its last entry.
    Stream(StreamFacts),
    /// A consumer group begins.
    Group(Group<'a>),
    /// A consumer of that group.
    Consumer(Consumer<'a>),
    /// An entry that this consumer got and has not acknowledged; in the order of the IDs.
    Owned(Pending),
    /// A pending entry of the group that no consumer has (Redis 8.8 and later).
    Unowned(Pending),
    /// The group is complete.
    GroupEnd,
    /// Whose value it is.
    Module(ModuleId),
    /// The next fragment of a module's value as it stands in the file, after the module's ID; nothing of it is understood.
    ModuleBytes(&'a [u8]),
}

/// A fault of decoding: what is wrong, or what the sink said.
#[derive(Debug, thiserror::Error)]
pub enum ValueError<E> {
    /// The value is damaged.
    #[error(transparent)]
    Damaged(#[from] DecodeError),
    /// Whoever takes the elements wants no more.
    #[error("decoding was stopped by what takes the elements")]
    Sink(E),
}

impl fmt::Display for StreamId {
    /// `1526919030474-55`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

#[cfg(test)]
mod tests;
