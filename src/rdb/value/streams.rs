//! Streams, from their nodes to the last consumer.
//!
//! A node is a listpack that begins with a master entry: how many entries there are, how many were deleted, how many
//! fields a usual one has, their names, and 0. Each entry is: flags, what its ID adds to the node's, its fields (none
//! where they are the usual ones) and values, and how many elements of the listpack it took (`t_stream.c`).
//!
//! The trap: a group's pending entries come twice. The group tells time and count of each; a consumer only which are its.

use super::super::packed::{Digits, Listpack, Packed};
use super::Element;
use super::decode::Fault;
use super::nodes::{emit, text};
use super::stream::{
    Consumer, Entry, Fields, Group, Pending, StreamFacts, StreamHistory, StreamId,
};
use super::unit::{Stop, Unit};

/// Which layout, as `RDB_TYPE_STREAM_LISTPACKS*` number them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    /// Redis 5.0.
    #[default]
    One,
    /// Redis 7.0: history, entries read.
    Two,
    /// Redis 7.2: active times.
    Three,
    /// Redis 8.6: producers. Known by description only.
    Four,
    /// Redis 8.8: pending entries that nobody has. Known by description only.
    Five,
}

/// What of a stream comes next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    NodeCount,
    Node(u64),
    Facts,
    GroupCount,
    /// So many groups are left, this one included.
    Group(u64),
    PendingCount(u64),
    Pending(u64, u64),
    ConsumerCount(u64),
    Consumer(u64, u64),
    OwnedCount(u64, u64),
    Owned(u64, u64, u64),
    UnownedCount(u64),
    Unowned(u64, u64),
    ProducerFacts,
    ProducerCount,
    Producer(u64),
    MessageCount(u64),
    Message(u64, u64),
    ProducerEnd,
}

/// Entry flags.
const DELETED: i64 = 1;
const SAME_FIELDS: i64 = 2;

/// What is kept while a stream is read.
#[derive(Debug, Default)]
pub(super) struct Reader {
    version: Version,
    /// The pending entries of the group that is read, and whether a consumer has them.
    pending: Vec<(Pending, bool)>,
    node: Node,
    room: Vec<u8>,
}

impl Reader {
    /// Gives back what grew beyond `keep` bytes.
    pub(super) fn shrink(&mut self, keep: usize) {
        self.pending = Vec::new();
        if self.room.capacity() > keep {
            self.room = Vec::new();
        }
        if self.node.capacity() > keep {
            self.node = Node::default();
        }
    }

    /// Begins a stream.
    pub(super) fn begin(&mut self, version: Version) -> Stage {
        self.version = version;
        Stage::NodeCount
    }

    /// Reads a unit, and tells what comes next: `None` after the last.
    pub(super) fn step<E>(
        &mut self,
        stage: Stage,
        unit: &mut Unit<'_>,
        sink: &mut impl FnMut(Element<'_>) -> Result<(), E>,
    ) -> Result<Option<Stage>, Stop<E>> {
        Ok(Some(match stage {
            Stage::NodeCount => match unit.length()? {
                0 => Stage::Facts,
                count => Stage::Node(count),
            },
            Stage::Node(left) => {
                let id = unit.string()?;
                let entries = unit.string()?;
                let id = text(&id, &mut self.room)?;
                let id = raw_id(id).ok_or(Stop::Fault(Fault::NodeId(id.len() as u64)))?;
                self.node
                    .entries(id, text(&entries, &mut self.room)?, sink)?;
                match left {
                    1 => Stage::Facts,
                    left => Stage::Node(left - 1),
                }
            }
            Stage::Facts => {
                let facts = self.facts(unit)?;
                emit(sink, Element::Stream(facts))?;
                Stage::GroupCount
            }
            Stage::GroupCount => match unit.length()? {
                0 => return Ok(self.after_groups()),
                count => Stage::Group(count),
            },
            Stage::Group(left) => {
                self.group(unit, sink)?;
                Stage::PendingCount(left)
            }
            Stage::PendingCount(groups) => match unit.length()? {
                0 => Stage::ConsumerCount(groups),
                count => Stage::Pending(groups, count),
            },
            Stage::Pending(groups, left) => {
                let pending = Pending {
                    id: id_of(unit.fixed()?),
                    delivered_ms: i64::from_le_bytes(unit.fixed()?),
                    deliveries: unit.length()?,
                };
                self.pending.push((pending, false));
                match left {
                    1 => {
                        // Servers write them in order; those who look one up count on it.
                        self.pending.sort_unstable_by_key(|(pending, _)| pending.id);
                        Stage::ConsumerCount(groups)
                    }
                    left => Stage::Pending(groups, left - 1),
                }
            }
            Stage::ConsumerCount(groups) => match unit.length()? {
                0 => return self.after_consumers(groups, sink),
                count => Stage::Consumer(groups, count),
            },
            Stage::Consumer(groups, left) => {
                self.consumer(unit, sink)?;
                Stage::OwnedCount(groups, left)
            }
            Stage::OwnedCount(groups, consumers) => match unit.length()? {
                0 => return self.next_consumer(groups, consumers, sink),
                count => Stage::Owned(groups, consumers, count),
            },
            Stage::Owned(groups, consumers, left) => {
                let id = id_of(unit.fixed()?);
                let found = self
                    .pending
                    .binary_search_by_key(&id, |(known, _)| known.id);
                let found = found.ok().and_then(|at| self.pending.get_mut(at));
                let (pending, owned) = found.ok_or(Stop::Fault(Fault::Pending))?;
                *owned = true;
                emit(sink, Element::Owned(*pending))?;
                match left {
                    1 => return self.next_consumer(groups, consumers, sink),
                    left => Stage::Owned(groups, consumers, left - 1),
                }
            }
            Stage::UnownedCount(groups) => match unit.length()? {
                0 => return self.end_group(groups, sink),
                count => Stage::Unowned(groups, count),
            },
            Stage::Unowned(groups, left) => {
                // Which they are is known: those that no consumer has.
                unit.fixed::<16, E>()?;
                match left {
                    1 => return self.end_group(groups, sink),
                    left => Stage::Unowned(groups, left - 1),
                }
            }
            Stage::ProducerFacts => {
                unit.length()?;
                unit.length()?;
                Stage::ProducerCount
            }
            Stage::ProducerCount => match unit.length()? {
                0 => Stage::ProducerEnd,
                count => Stage::Producer(count),
            },
            Stage::Producer(left) => {
                unit.string()?;
                Stage::MessageCount(left)
            }
            Stage::MessageCount(producers) => match unit.length()? {
                0 => next_producer(producers),
                count => Stage::Message(producers, count),
            },
            Stage::Message(producers, left) => {
                unit.string()?;
                unit.length()?;
                unit.length()?;
                match left {
                    1 => next_producer(producers),
                    left => Stage::Message(producers, left - 1),
                }
            }
            Stage::ProducerEnd => {
                unit.length()?;
                unit.length()?;
                return Ok(None);
            }
        }))
    }

    fn facts<E>(&self, unit: &mut Unit<'_>) -> Result<StreamFacts, Stop<E>> {
        let length = unit.length()?;
        let last_id = length_id(unit)?;
        let since_7 = match self.version {
            Version::One => None,
            _ => Some(StreamHistory {
                first_id: length_id(unit)?,
                max_deleted_id: length_id(unit)?,
                entries_added: unit.length()?,
            }),
        };
        Ok(StreamFacts {
            length,
            last_id,
            since_7,
        })
    }

    fn group<E>(
        &mut self,
        unit: &mut Unit<'_>,
        sink: &mut impl FnMut(Element<'_>) -> Result<(), E>,
    ) -> Result<(), Stop<E>> {
        let name = unit.string()?;
        let last_id = length_id(unit)?;
        let entries_read = match self.version {
            Version::One => None,
            // −1, as the server does not know it.
            _ => Some(unit.length()?).filter(|read| *read != u64::MAX),
        };
        self.pending.clear();
        let name = text(&name, &mut self.room)?;
        let group = Group {
            name,
            last_id,
            entries_read,
        };
        emit(sink, Element::Group(group))
    }

    fn consumer<E>(
        &mut self,
        unit: &mut Unit<'_>,
        sink: &mut impl FnMut(Element<'_>) -> Result<(), E>,
    ) -> Result<(), Stop<E>> {
        let name = unit.string()?;
        let seen_ms = i64::from_le_bytes(unit.fixed()?);
        let active_ms = match self.version {
            Version::One | Version::Two => None,
            _ => Some(i64::from_le_bytes(unit.fixed()?)).filter(|at| *at != -1),
        };
        let name = text(&name, &mut self.room)?;
        let consumer = Consumer {
            name,
            seen_ms,
            active_ms,
        };
        emit(sink, Element::Consumer(consumer))
    }

    fn next_consumer<E>(
        &mut self,
        groups: u64,
        consumers: u64,
        sink: &mut impl FnMut(Element<'_>) -> Result<(), E>,
    ) -> Result<Option<Stage>, Stop<E>> {
        match consumers {
            1 => self.after_consumers(groups, sink),
            left => Ok(Some(Stage::Consumer(groups, left - 1))),
        }
    }

    fn after_consumers<E>(
        &mut self,
        groups: u64,
        sink: &mut impl FnMut(Element<'_>) -> Result<(), E>,
    ) -> Result<Option<Stage>, Stop<E>> {
        match self.version {
            Version::Five => Ok(Some(Stage::UnownedCount(groups))),
            _ => self.end_group(groups, sink),
        }
    }

    fn end_group<E>(
        &mut self,
        groups: u64,
        sink: &mut impl FnMut(Element<'_>) -> Result<(), E>,
    ) -> Result<Option<Stage>, Stop<E>> {
        for (pending, owned) in &self.pending {
            if !owned {
                emit(sink, Element::Unowned(*pending))?;
            }
        }
        emit(sink, Element::GroupEnd)?;
        Ok(match groups {
            1 => self.after_groups(),
            left => Some(Stage::Group(left - 1)),
        })
    }

    fn after_groups(&self) -> Option<Stage> {
        (self.version >= Version::Four).then_some(Stage::ProducerFacts)
    }
}

fn next_producer(left: u64) -> Stage {
    match left {
        1 => Stage::ProducerEnd,
        left => Stage::Producer(left - 1),
    }
}

/// An ID as it stands in pending entries: two numbers of 8 bytes, big-endian.
fn id_of(raw: [u8; 16]) -> StreamId {
    let raw = u128::from_be_bytes(raw);
    StreamId {
        ms: (raw >> 64) as u64,
        seq: raw as u64,
    }
}

/// The same, as a node's key.
fn raw_id(raw: &[u8]) -> Option<StreamId> {
    raw.try_into().ok().map(id_of)
}

/// An ID as two lengths.
fn length_id<E>(unit: &mut Unit<'_>) -> Result<StreamId, Stop<E>> {
    Ok(StreamId {
        ms: unit.length()?,
        seq: unit.length()?,
    })
}

/// Room for the entries of a node.
#[derive(Debug, Default)]
struct Node {
    /// The names of the usual fields, one after the other, and where each ends.
    names: Vec<u8>,
    name_ends: Vec<usize>,
    /// The values of an entry, or its fields and values in turn, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Node {
    /// In bytes.
    fn capacity(&self) -> usize {
        let ends = self.name_ends.capacity() + self.ends.capacity();
        self.names.capacity() + self.bytes.capacity() + ends * size_of::<usize>()
    }

    fn entries<E>(
        &mut self,
        node: StreamId,
        bytes: &[u8],
        sink: &mut impl FnMut(Element<'_>) -> Result<(), E>,
    ) -> Result<(), Stop<E>> {
        let mut items = Listpack::new(bytes)?;
        let mut digits = Digits::new();
        number(&mut items)?;
        number(&mut items)?;
        let usual = count(&mut items)?;
        self.names.clear();
        self.name_ends.clear();
        for _ in 0..usual {
            let name = next(&mut items)?;
            self.names.extend_from_slice(name.bytes(&mut digits));
            self.name_ends.push(self.names.len());
        }
        // The master entry ends as the others do, with a 0 for their count.
        number(&mut items)?;
        while let Some(flags) = items.next() {
            let flags = flags?.to_int().ok_or(Stop::Fault(Fault::Number))?;
            let id = StreamId {
                ms: node.ms.wrapping_add_signed(number(&mut items)?),
                seq: node.seq.wrapping_add_signed(number(&mut items)?),
            };
            self.bytes.clear();
            self.ends.clear();
            // The usual names are lent from where they stand: copied, a long one would be as often as there are entries.
            let usual = flags & SAME_FIELDS != 0;
            let strings = match usual {
                true => self.name_ends.len() as u64,
                false => count(&mut items)?.saturating_mul(2),
            };
            for _ in 0..strings {
                let string = next(&mut items)?;
                self.bytes.extend_from_slice(string.bytes(&mut digits));
                self.ends.push(self.bytes.len());
            }
            number(&mut items)?;
            if flags & DELETED == 0 {
                let fields = match usual {
                    true => Fields::with_names(
                        (&self.names, &self.name_ends),
                        (&self.bytes, &self.ends),
                    ),
                    false => Fields::new(&self.bytes, &self.ends),
                };
                emit(sink, Element::Entry(Entry { id, fields }))?;
            }
        }
        Ok(())
    }
}

fn next<'a, E>(items: &mut Listpack<'a>) -> Result<Packed<'a>, Stop<E>> {
    match items.next() {
        Some(item) => Ok(item?),
        None => Err(Stop::Fault(Fault::Uneven)),
    }
}

fn number<E>(items: &mut Listpack<'_>) -> Result<i64, Stop<E>> {
    next(items)?.to_int().ok_or(Stop::Fault(Fault::Number))
}

/// How many elements follow. It is believed only as far as they are there.
fn count<E>(items: &mut Listpack<'_>) -> Result<u64, Stop<E>> {
    u64::try_from(number(items)?).map_err(|_| Stop::Fault(Fault::Number))
}
