//! Reads one unit of a value, or tells how many bytes it must have.

use super::super::error::Damage;
use super::super::length;
use super::super::packed::PackedError;
use super::super::string::StringRef;
use super::decode::Fault;
use super::nodes;

/// Why there is no unit.
#[derive(Debug)]
pub(super) enum Stop<E> {
    /// It is cut: it has at least so many bytes.
    Cut(usize),
    /// It can't be.
    Fault(Fault),
    /// The sink wants no more.
    Sink(E),
}

impl<E> From<Damage> for Stop<E> {
    fn from(damage: Damage) -> Stop<E> {
        Stop::Fault(damage.into())
    }
}

impl<E> From<PackedError> for Stop<E> {
    fn from(error: PackedError) -> Stop<E> {
        Stop::Fault(error.into())
    }
}

/// The bytes from a unit's beginning on.
#[derive(Debug)]
pub(super) struct Unit<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Unit<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Unit<'a> {
        Unit { bytes, at: 0 }
    }

    /// How many bytes were read.
    pub(super) fn used(&self) -> usize {
        self.at
    }

    #[inline]
    pub(super) fn fixed<const N: usize, E>(&mut self) -> Result<[u8; N], Stop<E>> {
        match self.bytes[self.at..].first_chunk::<N>() {
            Some(chunk) => {
                self.at += N;
                Ok(*chunk)
            }
            None => Err(Stop::Cut(self.at + N)),
        }
    }

    #[inline]
    pub(super) fn length<E>(&mut self) -> Result<u64, Stop<E>> {
        match length::decode(&self.bytes[self.at..])? {
            Some((value, bytes)) => {
                self.at += bytes;
                Ok(value)
            }
            None => Err(self.one_more()),
        }
    }

    #[inline]
    pub(super) fn string<E>(&mut self) -> Result<StringRef<'a>, Stop<E>> {
        let rest = &self.bytes[self.at..];
        let Some(head) = length::string_head(rest)? else {
            return Err(self.one_more());
        };
        let end = usize::try_from(head.body)
            .ok()
            .and_then(|body| body.checked_add(head.head))
            .and_then(|length| length.checked_add(self.at))
            .ok_or(Stop::Fault(Fault::Cut))?;
        match self.bytes.get(self.at..end) {
            Some(raw) => {
                self.at = end;
                Ok(StringRef::new(raw, head.head, head.form))
            }
            None => Err(Stop::Cut(end)),
        }
    }

    /// The content of the next string; what must be made is made in `room`.
    #[inline]
    pub(super) fn text<'b, E>(&mut self, room: &'b mut Vec<u8>) -> Result<&'b [u8], Stop<E>>
    where
        'a: 'b,
    {
        nodes::text(&self.string()?, room)
    }

    /// A score as old servers wrote it: a length and ASCII, or a mark.
    pub(super) fn text_score<E>(&mut self) -> Result<f64, Stop<E>> {
        let length = match self.fixed::<1, E>()?[0] {
            253 => return Ok(f64::NAN),
            254 => return Ok(f64::INFINITY),
            255 => return Ok(f64::NEG_INFINITY),
            length => usize::from(length),
        };
        let end = self.at + length;
        let digits = self.bytes.get(self.at..end).ok_or(Stop::Cut(end))?;
        self.at = end;
        nodes::score_of(digits).ok_or(Stop::Fault(Fault::Score))
    }

    /// The head of something is cut: how long it is, nobody knows.
    fn one_more<E>(&self) -> Stop<E> {
        Stop::Cut(self.bytes.len() + 1)
    }
}
