//! Values decoded in the first reading: that they can be, and what in them may not be held.
//!
//! All of them, those that go as they are, too: a checksum may be right, or absent, and a value rotten. Servers up to 6.2 can
//! be ended by a RESTORE of one, and the next ones take some of them.

use std::convert::Infallible;

use crate::rdb::ValueType;
use crate::rdb::value::{DecodeError, Decoder, Element, StreamId, ValueError};
use crate::target::commands::Ghosts;

/// What stands around an element in a plain layout, in bytes at most.
const FRAME: u64 = 9;

/// What is in a value, as far as it matters for how it can be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Examined {
    /// Fields that have an expiry of their own, which is not over.
    pub(super) expiring: u64,
    /// Elements with something in them that is longer than the target takes.
    pub(super) too_large: u64,
    /// Pending entries that no consumer has.
    pub(super) unowned: u64,
    /// How long it is in a plain layout, at most.
    pub(super) plain_bytes: u64,
}

/// What is looked for in a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// That it is sound, and what in it may not be held.
    Content,
    /// Also what commands must know of a stream beforehand; it costs memory.
    Ghosts,
}

/// Decodes values, one after the other, and keeps nothing of them.
pub(super) struct Examiner {
    decoder: Decoder,
    ghosts: Ghosts,
    now_ms: i64,
    max_bulk: u64,
    sight: Sight,
    found: Examined,
}

impl Examiner {
    /// Fields that end by `now_ms` are over; elements longer than `max_bulk` bytes are too large.
    pub(super) fn new(now_ms: i64, max_bulk: u64) -> Examiner {
        Examiner {
            decoder: Decoder::new(),
            ghosts: Ghosts::new(),
            now_ms,
            max_bulk,
            sight: Sight::Content,
            found: Examined::default(),
        }
    }

    pub(super) fn start(&mut self, value_type: ValueType, sight: Sight) {
        self.decoder.start(value_type);
        self.sight = sight;
        self.ghosts.clear();
        self.found = Examined::default();
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        let (found, ghosts) = (&mut self.found, &mut self.ghosts);
        let (now, max_bulk, sight) = (self.now_ms, self.max_bulk, self.sight);
        let pushed = self.decoder.push(bytes, &mut |element| {
            look(found, element, now, max_bulk);
            if sight == Sight::Ghosts {
                ghosts.element(element);
            }
            Ok::<(), Infallible>(())
        });
        match pushed {
            Ok(()) => Ok(()),
            Err(ValueError::Damaged(error)) => Err(error),
            Err(ValueError::Sink(never)) => match never {},
        }
    }

    /// What was found; the ghosts of a stream; how many more of those there are.
    pub(super) fn finish(&mut self) -> Result<(Examined, Vec<StreamId>, u64), DecodeError> {
        self.decoder.finish()?;
        let (ghosts, more) = self.ghosts.finish();
        Ok((self.found, ghosts, more))
    }
}

fn look(found: &mut Examined, element: Element<'_>, now_ms: i64, max_bulk: u64) {
    let mut add = |parts: &[&[u8]]| {
        let bytes = |part: &[u8]| part.len() as u64;
        found.plain_bytes += parts.iter().map(|part| bytes(part) + FRAME).sum::<u64>();
        let longest = parts.iter().map(|part| bytes(part)).max().unwrap_or(0);
        found.too_large += u64::from(longest > max_bulk);
    };
    match element {
        // It can come in pieces.
        Element::String(value) => found.plain_bytes += value.len() as u64 + FRAME,
        Element::Item(item) => add(&[item]),
        Element::Scored { member, .. } => add(&[member, &[0; 8]]),
        Element::Field {
            field,
            value,
            expire_at_ms,
        } => {
            if expire_at_ms.is_some_and(|at| at <= now_ms) {
                return;
            }
            add(&[field, value]);
            found.expiring += u64::from(expire_at_ms.is_some());
            found.plain_bytes += 8;
        }
        Element::Entry(entry) => {
            // A packed entry has a few numbers besides.
            found.plain_bytes += 64;
            let mut longest = 0;
            for (field, value) in entry.fields.iter() {
                found.plain_bytes += (field.len() + value.len()) as u64 + 4 * FRAME;
                longest = longest.max(field.len()).max(value.len());
            }
            found.too_large += u64::from(longest as u64 > max_bulk);
        }
        Element::Group(group) => found.plain_bytes += group.name.len() as u64 + 64,
        Element::Consumer(consumer) => found.plain_bytes += consumer.name.len() as u64 + 64,
        Element::Owned(_) => found.plain_bytes += 64,
        Element::Unowned(_) => found.unowned += 1,
        Element::Stream(_) | Element::GroupEnd | Element::Module(_) | Element::ModuleBytes(_) => {}
    }
}
