//! Packed structures: many small elements in one string of the file, as servers keep small collections.
//!
//! Each reader is an iterator over the elements of one such string, from its first to its last byte. What it promises:
//! every byte is looked at before it is believed, so that a damaged one gives a [`PackedError`] with its place in the
//! string, never a panic; an iterator ends after its first error. Lengths and counts that a structure tells of itself
//! must be true. The only thing that is not checked is what serves reading backwards.
//!
//! The trap: an element that looks like an integer is kept as one, so a string such as `10` comes as [`Packed::Int`].

mod intset;
mod listpack;
mod ziplist;
mod zipmap;

use std::fmt;

pub use intset::Intset;
pub use listpack::{Listpack, ListpackWriter};
pub use ziplist::Ziplist;
pub use zipmap::Zipmap;

/// An element of a packed structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packed<'a> {
    /// A string, as it is.
    Bytes(&'a [u8]),
    /// A string that is the decimal text of this number.
    Int(i64),
}

impl Packed<'_> {
    /// The number, whether it is kept as one or as its text.
    pub fn to_int(self) -> Option<i64> {
        match self {
            Packed::Int(int) => Some(int),
            Packed::Bytes(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
        }
    }
}

impl<'a> Packed<'a> {
    /// The bytes that its user knows; `digits` holds those of a number.
    pub fn bytes<'b>(self, digits: &'b mut Digits) -> &'b [u8]
    where
        'a: 'b,
    {
        match self {
            Packed::Bytes(bytes) => bytes,
            Packed::Int(int) => digits.of(int),
        }
    }
}

/// Room for the decimal text of a number.
#[derive(Clone, Copy, Debug, Default)]
pub struct Digits([u8; 20]);

impl Digits {
    /// Room for one.
    pub fn new() -> Digits {
        Digits::default()
    }

    /// The decimal text.
    #[inline]
    pub fn of(&mut self, int: i64) -> &[u8] {
        let at = self.write(int.unsigned_abs());
        if int >= 0 {
            return &self.0[at..];
        }
        // The longest: `-9223372036854775808`.
        self.0[at - 1] = b'-';
        &self.0[at - 1..]
    }

    /// The decimal text of a number without a sign.
    #[inline]
    pub fn of_unsigned(&mut self, int: u64) -> &[u8] {
        let at = self.write(int);
        &self.0[at..]
    }

    /// Writes the digits up to the end, and answers where they begin.
    #[inline]
    fn write(&mut self, mut rest: u64) -> usize {
        let mut at = self.0.len();
        loop {
            at -= 1;
            self.0[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                return at;
            }
        }
    }
}

/// Which structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackedKind {
    /// From Redis 5.0 on.
    Listpack,
    /// Up to Redis 6.2.
    Ziplist,
    /// Sets of integers.
    Intset,
    /// Hashes up to Redis 2.4.
    Zipmap,
}

impl fmt::Display for PackedKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            PackedKind::Listpack => "listpack",
            PackedKind::Ziplist => "ziplist",
            PackedKind::Intset => "intset",
            PackedKind::Zipmap => "zipmap",
        })
    }
}

/// A packed structure that is not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a {kind} is damaged at its byte {at}: {why}")]
pub struct PackedError {
    /// Which kind of structure.
    pub kind: PackedKind,
    /// Where in its string.
    pub at: usize,
    /// What is wrong.
    pub why: PackedDamage,
}

/// What is wrong with a packed structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackedDamage {
    /// An element, or the end mark, would lie beyond the string's end.
    #[error("it ends too early")]
    Cut,
    /// It says another length of itself than it has.
    #[error("it says that it has {said} bytes, and has {have}")]
    Length {
        /// What it says.
        said: u64,
        /// What it has.
        have: u64,
    },
    /// It says another number of elements than it has.
    #[error("it says that it has {said} elements, and has {have}")]
    Count {
        /// What it says.
        said: u64,
        /// What it has.
        have: u64,
    },
    /// A byte that begins no element.
    #[error("byte {0:#04x} begins no element")]
    Encoding(u8),
    /// Something follows the end mark.
    #[error("something follows its end")]
    Trailing,
    /// Integers of a width that there is not.
    #[error("there are no integers of {0} bytes")]
    Width(u32),
}

/// Reads forward in the string of a packed structure.
#[derive(Clone, Debug)]
struct Reader<'a> {
    kind: PackedKind,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(kind: PackedKind, bytes: &'a [u8]) -> Reader<'a> {
        Reader { kind, bytes, at: 0 }
    }

    #[cold]
    fn error(&self, at: usize, why: PackedDamage) -> PackedError {
        let kind = self.kind;
        PackedError { kind, at, why }
    }

    #[inline]
    fn take(&mut self, count: usize) -> Result<&'a [u8], PackedError> {
        let rest = &self.bytes[self.at..];
        match rest.get(..count) {
            Some(taken) => {
                self.at += count;
                Ok(taken)
            }
            None => Err(self.error(self.at, PackedDamage::Cut)),
        }
    }

    #[inline]
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], PackedError> {
        match self.bytes[self.at..].first_chunk::<N>() {
            Some(chunk) => {
                self.at += N;
                Ok(*chunk)
            }
            None => Err(self.error(self.at, PackedDamage::Cut)),
        }
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, PackedError> {
        Ok(self.fixed::<1>()?[0])
    }

    /// The length in the head must be that of the string.
    fn check_length(&self, said: u32) -> Result<(), PackedError> {
        let have = self.bytes.len() as u64;
        if u64::from(said) == have {
            Ok(())
        } else {
            let said = u64::from(said);
            Err(self.error(0, PackedDamage::Length { said, have }))
        }
    }
}

/// Listpack and ziplist say 65 535 when they have as many elements or more.
const MANY: u16 = u16::MAX;

/// What an iterator over elements up to an end mark of 0xFF keeps.
#[derive(Clone, Debug)]
struct Walk<'a> {
    reader: Reader<'a>,
    said: u16,
    have: u64,
    ended: bool,
}

impl<'a> Walk<'a> {
    fn next_by(
        &mut self,
        element: fn(&mut Reader<'a>, u8) -> Result<Packed<'a>, PackedError>,
    ) -> Option<Result<Packed<'a>, PackedError>> {
        if self.ended {
            return None;
        }
        let begin = self.reader.at;
        let first = match self.reader.byte() {
            Ok(first) => first,
            Err(error) => return self.end(Err(error)),
        };
        if first == 0xff {
            return self.end(self.check_end());
        }
        match element(&mut self.reader, first) {
            Ok(element) => {
                self.have += 1;
                Some(Ok(element))
            }
            Err(error) => {
                self.reader.at = begin;
                self.end(Err(error))
            }
        }
    }

    fn end(&mut self, result: Result<(), PackedError>) -> Option<Result<Packed<'a>, PackedError>> {
        self.ended = true;
        result.err().map(Err)
    }

    fn check_end(&self) -> Result<(), PackedError> {
        let at = self.reader.at;
        if at != self.reader.bytes.len() {
            return Err(self.reader.error(at, PackedDamage::Trailing));
        }
        let (said, have) = (u64::from(self.said), self.have);
        if self.said != MANY && said != have {
            return Err(self.reader.error(0, PackedDamage::Count { said, have }));
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_their_decimal_text() {
        let mut digits = Digits::new();
        for int in [0, 7, -1, 10, 4096, i64::MAX, i64::MIN, -9] {
            assert_eq!(digits.of(int), int.to_string().as_bytes());
        }
        for int in [0, 9, 10, u64::MAX] {
            assert_eq!(digits.of_unsigned(int), int.to_string().as_bytes());
        }
    }
}
