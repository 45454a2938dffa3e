//! Packed nodes become elements.

use super::super::packed::{Digits, Intset, Listpack, Packed, PackedError, Ziplist, Zipmap};
use super::super::string::StringRef;
use super::super::types::Family;
use super::Element;
use super::decode::Fault;
use super::unit::Stop;

/// Room for strings that must be inflated, used again and again.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    one: Vec<u8>,
    two: Vec<u8>,
}

/// Hands an element to whoever takes it.
#[inline]
pub(super) fn emit<E>(
    sink: &mut impl FnMut(Element<'_>) -> Result<(), E>,
    element: Element<'_>,
) -> Result<(), Stop<E>> {
    sink(element).map_err(Stop::Sink)
}

/// A string's content; what must be made is made in `room`.
#[inline]
pub(super) fn text<'a, 'b, E>(
    string: &StringRef<'a>,
    room: &'b mut Vec<u8>,
) -> Result<&'b [u8], Stop<E>>
where
    'a: 'b,
{
    Ok(string.decode_in(room)?)
}

/// A score's text as a number.
pub(super) fn score_of(digits: &[u8]) -> Option<f64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

impl Nodes {
    /// Gives back what grew beyond `keep` bytes.
    pub(super) fn shrink(&mut self, keep: usize) {
        for room in [&mut self.one, &mut self.two] {
            if room.capacity() > keep {
                *room = Vec::new();
            }
        }
    }

    pub(super) fn rooms(&mut self) -> [&mut Vec<u8>; 2] {
        [&mut self.one, &mut self.two]
    }

    /// The elements of a value that is one string.
    pub(super) fn whole<E>(
        &mut self,
        (code, family): (u8, Family),
        string: &StringRef<'_>,
        sink: &mut impl FnMut(Element<'_>) -> Result<(), E>,
    ) -> Result<(), Stop<E>> {
        match (code, family) {
            (0, _) => emit(sink, Element::String(text(string, &mut self.one)?)),
            (9, _) => {
                for pair in Zipmap::new(text(string, &mut self.one)?)? {
                    let (field, value) = pair?;
                    let expire_at_ms = None;
                    let element = Element::Field {
                        field,
                        value,
                        expire_at_ms,
                    };
                    emit(sink, element)?;
                }
                Ok(())
            }
            (10, _) => self.ziplist_items(string, sink),
            (11, _) => {
                let mut digits = Digits::new();
                for member in Intset::new(text(string, &mut self.one)?)? {
                    emit(sink, Element::Item(digits.of(member)))?;
                }
                Ok(())
            }
            (12, _) => scored(Ziplist::new(text(string, &mut self.one)?)?, sink),
            (13, _) => fields(Ziplist::new(text(string, &mut self.one)?)?, sink),
            (16, _) => fields(Listpack::new(text(string, &mut self.one)?)?, sink),
            (17, _) => scored(Listpack::new(text(string, &mut self.one)?)?, sink),
            (20, _) => self.listpack_items(string, sink),
            // 23 and 25: the expiries stand there in full; the base before a 25 only repeats the least.
            _ => expiring(Listpack::new(text(string, &mut self.one)?)?, sink),
        }
    }

    pub(super) fn ziplist_items<E>(
        &mut self,
        string: &StringRef<'_>,
        sink: &mut impl FnMut(Element<'_>) -> Result<(), E>,
    ) -> Result<(), Stop<E>> {
        items(Ziplist::new(text(string, &mut self.one)?)?, sink)
    }

    pub(super) fn listpack_items<E>(
        &mut self,
        string: &StringRef<'_>,
        sink: &mut impl FnMut(Element<'_>) -> Result<(), E>,
    ) -> Result<(), Stop<E>> {
        items(Listpack::new(text(string, &mut self.one)?)?, sink)
    }
}

type Next<'a> = Result<Packed<'a>, PackedError>;

fn items<'a, E>(
    packed: impl Iterator<Item = Next<'a>>,
    sink: &mut impl FnMut(Element<'_>) -> Result<(), E>,
) -> Result<(), Stop<E>> {
    let mut digits = Digits::new();
    for item in packed {
        emit(sink, Element::Item(item?.bytes(&mut digits)))?;
    }
    Ok(())
}

/// The rest of a pair or triple: there must be one.
fn rest<'a, E>(packed: &mut impl Iterator<Item = Next<'a>>) -> Result<Packed<'a>, Stop<E>> {
    match packed.next() {
        Some(item) => Ok(item?),
        None => Err(Stop::Fault(Fault::Uneven)),
    }
}

fn fields<'a, E>(
    mut packed: impl Iterator<Item = Next<'a>>,
    sink: &mut impl FnMut(Element<'_>) -> Result<(), E>,
) -> Result<(), Stop<E>> {
    let (mut one, mut two) = (Digits::new(), Digits::new());
    while let Some(field) = packed.next() {
        let (field, value) = (field?, rest(&mut packed)?);
        let element = Element::Field {
            field: field.bytes(&mut one),
            value: value.bytes(&mut two),
            expire_at_ms: None,
        };
        emit(sink, element)?;
    }
    Ok(())
}

/// Field, value, and the expiry in absolute milliseconds, 0 for none.
fn expiring<'a, E>(
    mut packed: impl Iterator<Item = Next<'a>>,
    sink: &mut impl FnMut(Element<'_>) -> Result<(), E>,
) -> Result<(), Stop<E>> {
    let (mut one, mut two) = (Digits::new(), Digits::new());
    while let Some(field) = packed.next() {
        let (field, value) = (field?, rest(&mut packed)?);
        let expiry = rest(&mut packed)?
            .to_int()
            .filter(|at| *at >= 0)
            .ok_or(Stop::Fault(Fault::Number))?;
        let element = Element::Field {
            field: field.bytes(&mut one),
            value: value.bytes(&mut two),
            expire_at_ms: Some(expiry).filter(|at| *at > 0),
        };
        emit(sink, element)?;
    }
    Ok(())
}

fn scored<'a, E>(
    mut packed: impl Iterator<Item = Next<'a>>,
    sink: &mut impl FnMut(Element<'_>) -> Result<(), E>,
) -> Result<(), Stop<E>> {
    let mut digits = Digits::new();
    while let Some(member) = packed.next() {
        let (member, score) = (member?, rest(&mut packed)?);
        let score = match score {
            Packed::Int(int) => Some(int as f64),
            Packed::Bytes(bytes) => score_of(bytes),
        };
        let element = Element::Scored {
            member: member.bytes(&mut digits),
            score: score.ok_or(Stop::Fault(Fault::Score))?,
        };
        emit(sink, element)?;
    }
    Ok(())
}
