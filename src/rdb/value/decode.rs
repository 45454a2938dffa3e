//! From a value's bytes to its elements.
//!
//! A value is a row of units, each of which must lie in one piece: a count, a string, a string and its score. Units are
//! read where they lie; only one that a fragment's end cuts is gathered, and never more of it than it has. So each byte
//! is copied at most once, and a length that lies costs nothing.

use super::super::error::Damage;
use super::super::packed::PackedError;
use super::super::types::{Family, ValueType};
use super::nodes::{self, Nodes};
use super::streams::{self, Stage, Version};
use super::unit::{Stop, Unit};
use super::{Element, ValueError};

/// A value that can't be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value is damaged near its byte {at}: {fault}")]
pub struct DecodeError {
    /// Where in the value the element or packed node begins, in bytes.
    pub at: u64,
    /// What.
    pub fault: Fault,
}

/// What is wrong with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A rule of the file format is broken.
    #[error(transparent)]
    Format(#[from] Damage),
    /// A packed structure is damaged.
    #[error(transparent)]
    Packed(#[from] PackedError),
    /// It ends too early.
    #[error("it ends too early")]
    Cut,
    /// Something follows its end.
    #[error("something follows its end")]
    Trailing,
    /// A packed structure of pairs or triples ends within one.
    #[error("a packed structure ends in the middle of a field or member")]
    Uneven,
    /// A score that is no number.
    #[error("a score is no number")]
    Score,
    /// A number that is none, or one that can't be: an expiry, an ID, a count within a packed structure.
    #[error("a number within a packed structure is none, or can't be")]
    Number,
    /// A stream's node whose ID has not 16 bytes.
    #[error("a stream's node has an ID of {0} bytes")]
    NodeId(u64),
    /// A consumer has an entry that its group does not know as pending.
    #[error("a consumer has a pending entry that its group does not have")]
    Pending,
}

/// What comes next.
#[derive(Clone, Copy, Debug)]
enum State {
    /// Nothing was begun.
    Idle,
    /// One string, which is the value, or holds it.
    One,
    /// The least expiry, before what it is the base of.
    Base,
    /// How many units there are.
    Count,
    /// So many units.
    Each(u64),
    /// A module's ID.
    Module,
    /// A module's own bytes.
    Raw,
    /// A stream.
    Stream(Stage),
    /// Nothing more.
    Done,
}

/// Decodes values, one after the other. See the [module](super).
#[derive(Debug)]
pub struct Decoder {
    code: u8,
    family: Family,
    state: State,
    /// The least expiry of a hash's fields.
    base: i64,
    /// A unit that a fragment's end cut.
    pending: Vec<u8>,
    /// So many bytes it must have before another attempt.
    need: usize,
    /// How many bytes of the value are dealt with.
    at: u64,
    nodes: Nodes,
    stream: streams::Reader,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder::new()
    }
}

/// A gathering buffer that grew beyond this is given back after use.
const KEEP: usize = 1 << 20;

impl Decoder {
    /// A decoder that waits for [`start`](Decoder::start).
    pub fn new() -> Decoder {
        Decoder {
            code: 0,
            family: Family::Redis,
            state: State::Idle,
            base: 0,
            pending: Vec::new(),
            need: 0,
            at: 0,
            nodes: Nodes::default(),
            stream: streams::Reader::default(),
        }
    }

    /// Begins a value of this type; whatever came before is forgotten.
    pub fn start(&mut self, value_type: ValueType) {
        self.code = value_type.code();
        self.family = value_type.family().unwrap_or(Family::Redis);
        self.at = 0;
        self.base = 0;
        self.pending.clear();
        if self.pending.capacity() > KEEP {
            self.pending = Vec::new();
        }
        self.nodes.shrink(KEEP);
        self.stream.shrink(KEEP);
        self.state = match (self.code, self.family) {
            (0 | 9..=13 | 16 | 17 | 20, _) | (23, Family::Redis) => State::One,
            (24 | 25, _) => State::Base,
            (7, _) => State::Module,
            (15, _) => State::Stream(self.stream.begin(Version::One)),
            (19, _) => State::Stream(self.stream.begin(Version::Two)),
            (21, _) => State::Stream(self.stream.begin(Version::Three)),
            (26, _) => State::Stream(self.stream.begin(Version::Four)),
            (27, _) => State::Stream(self.stream.begin(Version::Five)),
            _ => State::Count,
        };
    }

    /// Takes the next fragment of the value's bytes, of any size.
    ///
    /// # Errors
    /// The bytes break a rule, or the sink wants no more; the value can't go on afterwards.
    pub fn push<E>(
        &mut self,
        fragment: &[u8],
        sink: &mut impl FnMut(Element<'_>) -> Result<(), E>,
    ) -> Result<(), ValueError<E>> {
        let mut rest = fragment;
        while !self.pending.is_empty() {
            // Never more than the unit has, so that what follows it stays where it lies.
            let take = rest.len().min(self.need - self.pending.len());
            self.pending.extend_from_slice(&rest[..take]);
            rest = &rest[take..];
            if self.pending.len() < self.need {
                return Ok(());
            }
            let pending = std::mem::take(&mut self.pending);
            let used = self.step(&pending, sink);
            self.pending = pending;
            if self.advance(used)?.is_some() {
                self.pending.clear();
            }
        }
        while !rest.is_empty() {
            let used = self.step(rest, sink);
            match self.advance(used)? {
                Some(used) => rest = &rest[used..],
                None => {
                    self.pending.extend_from_slice(rest);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Ends the value.
    ///
    /// # Errors
    /// It was not whole.
    pub fn finish(&mut self) -> Result<(), DecodeError> {
        let whole = matches!(self.state, State::Done | State::Raw) && self.pending.is_empty();
        self.state = State::Idle;
        if whole {
            Ok(())
        } else {
            Err(self.error(Fault::Cut))
        }
    }

    fn error(&self, fault: Fault) -> DecodeError {
        DecodeError { at: self.at, fault }
    }

    /// What a step's end means: so many bytes are dealt with, or more are needed.
    fn advance<E>(&mut self, step: Result<usize, Stop<E>>) -> Result<Option<usize>, ValueError<E>> {
        match step {
            Ok(used) => {
                self.at += used as u64;
                Ok(Some(used))
            }
            Err(Stop::Cut(need)) => {
                self.need = need;
                Ok(None)
            }
            Err(Stop::Fault(fault)) => {
                self.state = State::Idle;
                Err(self.error(fault).into())
            }
            Err(Stop::Sink(error)) => {
                self.state = State::Idle;
                Err(ValueError::Sink(error))
            }
        }
    }

    /// Reads the unit at the start of `bytes`, which are not empty, and answers its length.
    #[inline]
    fn step<E>(
        &mut self,
        bytes: &[u8],
        sink: &mut impl FnMut(Element<'_>) -> Result<(), E>,
    ) -> Result<usize, Stop<E>> {
        let mut unit = Unit::new(bytes);
        self.state = match self.state {
            State::Idle | State::Done => return Err(Stop::Fault(Fault::Trailing)),
            State::One => {
                let string = unit.string()?;
                self.nodes.whole((self.code, self.family), &string, sink)?;
                State::Done
            }
            State::Base => {
                self.base = i64::from_le_bytes(unit.fixed()?);
                match self.code {
                    25 => State::One,
                    _ => State::Count,
                }
            }
            State::Count => match unit.length()? {
                0 => State::Done,
                count => State::Each(count),
            },
            State::Each(left) => {
                self.one_of_many(&mut unit, sink)?;
                match left {
                    1 => State::Done,
                    left => State::Each(left - 1),
                }
            }
            State::Module => {
                let id = unit.length()?;
                nodes::emit(sink, Element::Module(super::super::types::ModuleId(id)))?;
                State::Raw
            }
            State::Raw => {
                nodes::emit(sink, Element::ModuleBytes(bytes))?;
                return Ok(bytes.len());
            }
            State::Stream(stage) => match self.stream.step(stage, &mut unit, sink)? {
                Some(stage) => State::Stream(stage),
                None => State::Done,
            },
        };
        Ok(unit.used())
    }

    /// One unit of those that a count announced.
    #[inline]
    fn one_of_many<E>(
        &mut self,
        unit: &mut Unit<'_>,
        sink: &mut impl FnMut(Element<'_>) -> Result<(), E>,
    ) -> Result<(), Stop<E>> {
        let [one, two] = self.nodes.rooms();
        // What is compressed is inflated when the whole unit is there, or each byte that comes would do it anew.
        let element = match (self.code, self.family) {
            (1 | 2, _) => Element::Item(unit.text(one)?),
            (3, _) => {
                let (member, score) = (unit.string()?, unit.text_score()?);
                Element::Scored {
                    member: nodes::text(&member, one)?,
                    score,
                }
            }
            (5, _) => {
                let (member, score) = (unit.string()?, unit.fixed()?);
                Element::Scored {
                    member: nodes::text(&member, one)?,
                    score: f64::from_le_bytes(score),
                }
            }
            (4, _) => field(unit, None, [one, two])?,
            (22, Family::Valkey) => {
                let (field, value, at) = (unit.string()?, unit.string()?, unit.fixed()?);
                Element::Field {
                    field: nodes::text(&field, one)?,
                    value: nodes::text(&value, two)?,
                    expire_at_ms: Some(i64::from_le_bytes(at)).filter(|at| *at != -1),
                }
            }
            (22 | 24, _) => {
                let expiry = unit.length()?;
                let expire_at_ms = match (expiry, self.code) {
                    (0, _) => None,
                    (at, 22) => Some(at),
                    // The base is an expiry, too, and told from "none" by one.
                    (at, _) => Some(at - 1)
                        .zip(u64::try_from(self.base).ok())
                        .and_then(|(at, base)| at.checked_add(base)),
                };
                let expire_at_ms = match (expiry, expire_at_ms.map(i64::try_from)) {
                    (0, _) => None,
                    (_, Some(Ok(at))) => Some(at),
                    _ => return Err(Stop::Fault(Fault::Number)),
                };
                field(unit, expire_at_ms, [one, two])?
            }
            (14, _) => {
                let string = unit.string()?;
                return self.nodes.ziplist_items(&string, sink);
            }
            // 18: the last of the types that are counted.
            _ => {
                let container = unit.length()?;
                let string = unit.string()?;
                return match container {
                    1 => nodes::emit(sink, Element::Item(nodes::text(&string, one)?)),
                    2 => self.nodes.listpack_items(&string, sink),
                    other => Err(Stop::Fault(Damage::Container(other).into())),
                };
            }
        };
        nodes::emit(sink, element)
    }
}

/// A field and its value.
#[inline]
fn field<'a: 'b, 'b, E>(
    unit: &mut Unit<'a>,
    expire_at_ms: Option<i64>,
    [one, two]: [&'b mut Vec<u8>; 2],
) -> Result<Element<'b>, Stop<E>> {
    let (field, value) = (unit.string()?, unit.string()?);
    Ok(Element::Field {
        field: nodes::text(&field, one)?,
        value: nodes::text(&value, two)?,
        expire_at_ms,
    })
}

/// Decodes a value that is whole.
///
/// # Errors
/// It is damaged, or the sink wants no more.
pub fn decode<E>(
    value_type: ValueType,
    bytes: &[u8],
    sink: &mut impl FnMut(Element<'_>) -> Result<(), E>,
) -> Result<(), ValueError<E>> {
    let mut decoder = Decoder::new();
    decoder.start(value_type);
    decoder.push(bytes, sink)?;
    Ok(decoder.finish()?)
}
