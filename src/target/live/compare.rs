//! The questions of a comparison: a backup is read once more, and the target asked what it has of it.
//!
//! Each value is decoded and digested as it streams by, and asked for by DUMP, so that the two may be encoded
//! differently. What is asked for is bounded by the bytes that the answers will have, as the source tells; a value too
//! large to be pulled through memory is asked for its length alone, and a module's, which nobody here understands,
//! whether it is there.
//!
//! The trap: a target lives. A key may be over by now, and so may a field of a hash; both have to be left out on both
//! sides, or the comparison would cry wolf.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::batch::Asked;
use super::super::{Clock, Error, Fate, Route};
use super::comparing::Comparing;
use super::feed::Feeder;
use super::lane::{Lane, Outlet};
use super::sample::key_hash;
use super::skipped::{Skipped, SkippedKeys};
use crate::failure::Failure;
use crate::rdb::value::{ContentDigest, Decoder, Element, FieldExpiries};
use crate::rdb::{DbIndex, Event, Handler, KeyHead, LogicalType, ValueType};

/// A value from this size on, in bytes, is compared by its length.
const HUGE: u64 = 64 << 20;

/// Answers of so many bytes are asked for in one batch.
const BATCH_BYTES: u64 = 256 << 10;

/// All large answers that are awaited have at most so many bytes, in KiB, or there is one alone.
const ROOM_KIB: u32 = 32 << 10;

/// How often it is looked, while there is no room, whether somebody still answers.
const LOOK_UP: Duration = Duration::from_millis(100);

/// By so much our idea of the target's clock may be wrong, in milliseconds.
pub(super) const SLACK_MS: i64 = 1000;

/// Fields that expire within this time from now are not compared, in milliseconds: the answer comes well before.
const FIELD_SLACK_MS: i64 = 600_000;

/// What a key should be on the target.
pub(super) struct Expectation {
    /// When it expires there, Unix time in milliseconds.
    pub(super) expire_at_ms: Option<i64>,
    pub(super) wanted: Wanted,
    pub(super) skipped: Skipped,
    /// The room that the answer takes, until it is there.
    pub(super) _room: Option<OwnedSemaphorePermit>,
}

/// What its value should be.
pub(super) enum Wanted {
    /// It is asked for by DUMP.
    Content {
        logical: LogicalType,
        digest: u128,
        fields: Fields,
        /// Whether nothing is left of it when the fields go that may expire meanwhile.
        vanishes: bool,
    },
    /// It is asked for its length: so many elements, or bytes.
    Length {
        command: &'static str,
        least: u64,
        most: u64,
    },
    /// It is asked whether it is there.
    Presence,
}

impl Wanted {
    /// The command that asks.
    pub(super) fn command(&self) -> &'static str {
        match self {
            Wanted::Content { .. } => "DUMP",
            Wanted::Length { command, .. } => command,
            Wanted::Presence => "EXISTS",
        }
    }
}

/// How the fields of a hash are compared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields {
    pub(super) expiries: FieldExpiries,
    /// Those that expire up to then are not compared, Unix time in milliseconds.
    pub(super) until_ms: i64,
}

impl Fields {
    /// Whether an element is compared.
    pub(super) fn counts(self, element: Element<'_>) -> bool {
        match element {
            Element::Field {
                expire_at_ms: Some(at),
                ..
            } => at > self.until_ms,
            _ => true,
        }
    }
}

/// How it is asked when a key expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExpiryQuestion {
    /// PEXPIRETIME, from Redis 7.0 on.
    Absolute,
    /// PTTL between two TIMEs.
    Relative,
}

/// Makes questions of a backup's events.
pub struct KeyComparer {
    lane: Lane,
    route: Route,
    clock: Clock,
    question: ExpiryQuestion,
    comparing: Comparing,
    max_bulk: u64,
    skipped: SkippedKeys,
    /// Keys so far, whatever becomes of them.
    seen: u64,
    expectations: mpsc::Sender<Expectation>,
    room: Arc<Semaphore>,
    runtime: Handle,
    /// Bytes that the answers to the batch in the making will have.
    weight: u64,
    types: BTreeSet<u8>,
    /// Keys that must be there, by the target's database, as far as that is certain.
    pub(super) certain: BTreeMap<DbIndex, u64>,
    decoder: Decoder,
    name: Vec<u8>,
    current: Option<Current>,
}

/// The key whose value comes.
struct Current {
    db: DbIndex,
    expire_at_ms: Option<i64>,
    skipped: Skipped,
    value_type: ValueType,
    digest: ContentDigest,
    fields: Fields,
    /// Elements, or bytes of a string.
    count: u64,
    /// Those of them that are not compared, for they may be over.
    fleeting: u64,
    /// Bytes as they stand in the file, and decoded.
    raw_bytes: u64,
    plain_bytes: u64,
    /// It could not be decoded, or not all of it can be held: whatever the target made of it is not judged.
    puzzling: bool,
}

/// What [`KeyComparer::new`] needs to know.
pub(super) struct Setup {
    pub(super) route: Route,
    pub(super) clock: Clock,
    pub(super) question: ExpiryQuestion,
    pub(super) comparing: Comparing,
    /// The longest element that the target takes, in bytes.
    pub(super) max_bulk: u64,
    pub(super) skipped: SkippedKeys,
    pub(super) max_commands: usize,
}

impl KeyComparer {
    /// To be called within the runtime.
    pub(super) fn new(
        outlet: Outlet,
        setup: Setup,
        expectations: mpsc::Sender<Expectation>,
    ) -> KeyComparer {
        KeyComparer {
            lane: Lane::new(outlet, setup.max_commands),
            route: setup.route,
            clock: setup.clock,
            question: setup.question,
            comparing: setup.comparing,
            max_bulk: setup.max_bulk,
            skipped: setup.skipped,
            seen: 0,
            expectations,
            room: Arc::new(Semaphore::new(ROOM_KIB as usize)),
            runtime: Handle::current(),
            weight: 0,
            types: BTreeSet::new(),
            certain: BTreeMap::new(),
            decoder: Decoder::new(),
            name: Vec::new(),
            current: None,
        }
    }

    fn begin(&mut self, head: &KeyHead<'_>) -> Result<(), Error> {
        self.seen += 1;
        let known = &self.comparing.known;
        if known.lost.contains(self.seen) {
            return Ok(());
        }
        let has_ghosts = !known.ghosts(self.seen).is_empty();
        let key = head.key.decode().map_err(Error::KeyName)?;
        let now = self.clock.now_ms();
        let Fate::Written { db, expire_at_ms } = self.route.fate(head, &key, Some(now))? else {
            return Ok(());
        };
        let over_soon = expire_at_ms.is_some_and(|at| at <= now.saturating_add(SLACK_MS));
        if !over_soon && !may_vanish(head.value_type) {
            *self.certain.entry(db).or_default() += 1;
        }
        self.route.name(&key, &mut self.name);
        if !self.comparing.chosen.takes(key_hash(db.0, &self.name))
            && !self.types.insert(head.value_type.code())
        {
            return Ok(());
        }
        self.types.insert(head.value_type.code());
        let skipped = self.skipped.knows(db.0, &self.name);
        if skipped == Skipped::Yes {
            return Ok(());
        }
        self.decoder.start(head.value_type);
        self.current = Some(Current {
            db,
            expire_at_ms,
            skipped,
            value_type: head.value_type,
            digest: ContentDigest::new(head.value_type.logical(), self.comparing.expiries),
            fields: Fields {
                expiries: self.comparing.expiries,
                until_ms: now.saturating_add(FIELD_SLACK_MS),
            },
            count: 0,
            fleeting: 0,
            raw_bytes: 0,
            plain_bytes: 0,
            // Pending entries of deleted entries can't all be made by commands.
            puzzling: head.value_type.logical() == LogicalType::Module || has_ghosts,
        });
        Ok(())
    }

    fn push(&mut self, bytes: &[u8]) {
        let Some(current) = &mut self.current else {
            return;
        };
        current.raw_bytes += bytes.len() as u64;
        if current.puzzling {
            return;
        }
        let max_bulk = self.max_bulk;
        let mut cut = false;
        let mut take = |element: Element<'_>| {
            let bytes = element_bytes(element);
            // By commands such an element can't arrive.
            cut |= bytes > max_bulk;
            current.plain_bytes += bytes;
            match element {
                Element::String(bytes) => current.count = bytes.len() as u64,
                Element::Item(_)
                | Element::Scored { .. }
                | Element::Field { .. }
                | Element::Entry(_) => {
                    current.count += 1;
                }
                _ => {}
            }
            if current.fields.counts(element) {
                current.digest.element(comparable(element));
            } else {
                current.fleeting += 1;
            }
            Ok::<(), std::convert::Infallible>(())
        };
        if self.decoder.push(bytes, &mut take).is_err() || cut {
            current.puzzling = true;
        }
    }

    fn end(&mut self) -> Result<(), Error> {
        let Some(mut current) = self.current.take() else {
            return Ok(());
        };
        if !current.puzzling && self.decoder.finish().is_err() {
            current.puzzling = true;
        }
        let bytes = current.raw_bytes.max(current.plain_bytes);
        let logical = current.value_type.logical();
        let wanted = if current.puzzling
            || (current.fleeting > 0 && current.fields.expiries == FieldExpiries::Ignored)
        {
            Wanted::Presence
        } else if bytes > HUGE {
            Wanted::Length {
                command: length_command(logical),
                least: current.count - current.fleeting,
                most: current.count,
            }
        } else {
            Wanted::Content {
                logical,
                digest: current.digest.finish(),
                fields: current.fields,
                vanishes: current.fleeting > 0 && current.fleeting == current.count,
            }
        };
        let answer = match wanted {
            Wanted::Content { .. } => bytes,
            Wanted::Length { .. } | Wanted::Presence => 0,
        };
        let room = match answer > BATCH_BYTES {
            true => {
                // It is the first of its batch, and all that is asked before is on its way, so that its room can come free.
                self.send()?;
                Some(self.room(answer)?)
            }
            false => None,
        };
        let db = current.db.0;
        let command = wanted.command().as_bytes();
        // Nobody takes it any more when the pump has ended, which the next batch tells.
        let _ = self.expectations.send(Expectation {
            expire_at_ms: current.expire_at_ms,
            wanted,
            skipped: current.skipped,
            _room: room,
        });
        let builder = &mut self.lane.builder;
        match self.question {
            ExpiryQuestion::Absolute => {
                builder.command(db, &[b"PEXPIRETIME", &self.name], Asked::Expiry);
            }
            ExpiryQuestion::Relative => {
                builder.command(db, &[b"TIME"], Asked::Time);
                builder.command(db, &[b"PTTL", &self.name], Asked::Expiry);
                builder.command(db, &[b"TIME"], Asked::Time);
            }
        }
        builder.command(db, &[command, &self.name], Asked::Content);
        self.weight += answer;
        match self.weight >= BATCH_BYTES {
            true => self.send(),
            false => self.lane.send_full(),
        }
    }

    /// Sends what has been gathered.
    fn send(&mut self) -> Result<(), Error> {
        self.weight = 0;
        self.lane.end()
    }

    /// Waits until an answer of so many bytes may be asked for.
    fn room(&self, bytes: u64) -> Result<OwnedSemaphorePermit, Error> {
        let kib = u32::try_from(bytes >> 10).unwrap_or(ROOM_KIB).min(ROOM_KIB);
        loop {
            let wait = Arc::clone(&self.room).acquire_many_owned(kib);
            let wait = async { tokio::time::timeout(LOOK_UP, wait).await };
            match self.runtime.block_on(wait) {
                Ok(room) => return room.map_err(|_| Error::Stopped),
                // The room of what is never answered does not come free.
                Err(_) => self.lane.check()?,
            }
        }
    }
}

/// Whether such a key can go without its own expiry: a hash whose fields are all over.
fn may_vanish(value_type: ValueType) -> bool {
    const NEWEST_WITHOUT_FIELD_EXPIRY: u8 = 21;
    value_type.logical() == LogicalType::Hash && value_type.code() > NEWEST_WITHOUT_FIELD_EXPIRY
}

fn length_command(logical: LogicalType) -> &'static str {
    match logical {
        LogicalType::String => "STRLEN",
        LogicalType::List => "LLEN",
        LogicalType::Set => "SCARD",
        LogicalType::Zset => "ZCARD",
        LogicalType::Hash => "HLEN",
        LogicalType::Stream => "XLEN",
        LogicalType::Module => "EXISTS",
    }
}

/// The element as it is digested: servers from 7.0 on keep a score of −0 as 0 when it comes by ZADD.
pub(super) fn comparable(element: Element<'_>) -> Element<'_> {
    match element {
        Element::Scored { member, score } => Element::Scored {
            member,
            score: score + 0.0,
        },
        other => other,
    }
}

/// The bytes of an element in an answer, about.
fn element_bytes(element: Element<'_>) -> u64 {
    let bytes = match element {
        Element::String(bytes) | Element::Item(bytes) | Element::ModuleBytes(bytes) => bytes.len(),
        Element::Scored { member, .. } => member.len() + 8,
        Element::Field { field, value, .. } => field.len() + value.len() + 8,
        // Its fields are in nodes that the file has as they are.
        Element::Entry(_) => 0,
        _ => 24,
    };
    bytes as u64 + 2
}

impl Handler for KeyComparer {
    type Error = Failure;

    fn event(&mut self, event: Event<'_>) -> Result<(), Failure> {
        match event {
            Event::Key(head) => self.begin(&head)?,
            Event::Value(bytes) => self.push(bytes),
            Event::ValueEnd => self.end()?,
            Event::Aux { key, value, .. } => self.route.learn(&key, &value),
            Event::Opaque { offset, what } => return Err(Error::Opaque { offset, what }.into()),
            _ => {}
        }
        Ok(())
    }
}

impl Feeder for KeyComparer {
    fn lane(&mut self) -> &mut Lane {
        &mut self.lane
    }
}
