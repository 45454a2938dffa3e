//! A backup's events become keys on the server, on the thread that reads it: each value by the way that suits it.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::super::batch::{Asked, Eviction, Options};
use super::super::way::{Abilities, Way};
use super::super::{Clock, Error, Fate, Route};
use super::feed::Feeder;
use super::known::Known;
use super::lane::{Lane, Outlet};
use super::maker::{Maker, Whole};
use super::making::Making;
use super::{Losses, OnConflict};
use crate::failure::Failure;
use crate::rdb::payload::{FOOTER_BYTES, PayloadBuilder, footer_version_for};
use crate::rdb::value::{Element, Encoder, ValueError, decode};
use crate::rdb::{DbIndex, Event, Handler, KeyHead, LogicalType, ValueType};
use crate::selection::{KeyNames, shown};

/// From this size on, in bytes, a payload gets all of the room: two of them are never in memory at once.
const HUGE: usize = 16 << 20;

/// What a [`KeySender`] is made of, besides where it sends to.
pub(super) struct Means {
    pub(super) route: Route,
    pub(super) clock: Clock,
    pub(super) abilities: Abilities,
    /// Whether RESTORE takes ABSTTL.
    pub(super) absolute: bool,
    pub(super) on_conflict: OnConflict,
    pub(super) names: KeyNames,
    pub(super) known: Arc<Known>,
    pub(super) making: Arc<Making>,
}

/// Writes the keys of a backup's events.
pub struct KeySender {
    lane: Lane,
    means: Means,
    maker: Maker,
    /// Keys seen, of all that are in the backup.
    seen: u64,
    pub(super) expired: u64,
    pub(super) left_out: u64,
    pub(super) losses: Losses,
    name: Vec<u8>,
    spare: Vec<u8>,
    /// All of the room, for a huge value.
    room: Option<OwnedSemaphorePermit>,
    current: Option<Current>,
}

/// The key whose value comes.
struct Current {
    number: u64,
    db: DbIndex,
    expire_at_ms: Option<i64>,
    eviction: Option<Eviction>,
    value_type: ValueType,
    way: Way,
    /// What is gathered of it; nothing where it goes by commands.
    payload: PayloadBuilder,
    /// Where the value begins in the payload.
    begin: usize,
    version: u16,
}

impl KeySender {
    pub(super) fn new(outlet: Outlet, max_commands: usize, means: Means) -> KeySender {
        KeySender {
            lane: Lane::new(outlet, max_commands),
            maker: Maker::new(
                Arc::clone(&means.making),
                means.abilities.dialect,
                means.clock,
                means.on_conflict,
                means.names,
            ),
            means,
            seen: 0,
            expired: 0,
            left_out: 0,
            losses: Losses::default(),
            name: Vec::new(),
            spare: Vec::new(),
            room: None,
            current: None,
        }
    }

    fn begin(&mut self, head: &KeyHead<'_>) -> Result<(), Error> {
        self.seen += 1;
        let key = head.key.decode().map_err(Error::KeyName)?;
        let now = head.expire_at_ms.map(|_| self.means.clock.now_ms());
        let (db, expire_at_ms) = match self.means.route.fate(head, &key, now)? {
            Fate::LeftOut => {
                self.left_out += 1;
                if self.left_out.is_multiple_of(1024) {
                    self.lane.check()?;
                }
                return Ok(());
            }
            Fate::Expired => {
                self.expired += 1;
                return Ok(());
            }
            Fate::Written { db, expire_at_ms } => (db, expire_at_ms),
        };
        if self.means.known.lost.contains(self.seen) {
            self.losses.keys += 1;
            return Ok(());
        }
        self.means.route.name(&key, &mut self.name);
        let abilities = &self.means.abilities;
        let way = match abilities.way(head.value_type) {
            // It was named before; should it come all the same, the server says so.
            Way::Never(_) => Way::AsIs,
            way => way,
        };
        let loses = abilities.loses_metadata(head, way);
        self.losses.metadata += u64::from(loses);
        let meta = if loses { &[] } else { head.meta };
        let rdb = abilities.rdb;
        let version = footer_version_for(head.value_type, rdb.family, rdb.number)
            .filter(|_| meta.is_empty())
            .unwrap_or(rdb.number);
        let spare = std::mem::take(&mut self.spare);
        let absolute = self.means.absolute;
        self.current = Some(Current {
            number: self.seen,
            db,
            expire_at_ms,
            eviction: match (head.idle_s, head.freq) {
                _ if !absolute => None,
                (Some(idle), _) => i64::try_from(idle).ok().map(Eviction::Idle),
                (None, Some(freq)) => Some(Eviction::Frequency(freq)),
                (None, None) => None,
            },
            value_type: head.value_type,
            way,
            payload: PayloadBuilder::reusing(spare, head.value_type.code(), meta),
            begin: meta.len() + 1,
            version,
        });
        if way == Way::Commands {
            self.make();
        }
        Ok(())
    }

    /// Begins the current key by commands.
    fn make(&mut self) {
        let Some(current) = &mut self.current else {
            return;
        };
        current.way = Way::Commands;
        let key = Whole {
            db: current.db,
            name: &self.name,
            expire_at_ms: current.expire_at_ms,
            value_type: current.value_type,
        };
        self.maker
            .begin(&key, self.means.known.ghosts(current.number));
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        if current.way == Way::Commands {
            return self.maker.push(&mut self.lane, bytes);
        }
        let size = current.payload.payload_bytes() + bytes.len();
        if self.means.abilities.overflows(size as u64)
            && current.value_type.logical() != LogicalType::Module
        {
            return self.overflow(bytes);
        }
        if self.room.is_none() && size > HUGE {
            // What waits in the batch is sent, so that the room can come free.
            self.lane.end()?;
            self.room = Some(self.lane.room(usize::MAX)?);
        }
        current.payload.push(bytes);
        Ok(())
    }

    /// The value is longer than the server takes at once: what came of it, and what comes, goes by commands.
    fn overflow(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.make();
        if let Some(current) = &mut self.current {
            let gathered = std::mem::replace(&mut current.payload, PayloadBuilder::new(0, &[]));
            // Its commands need the room.
            self.room = None;
            let gathered = gathered.into_bytes();
            self.maker
                .push(&mut self.lane, &gathered[current.begin..])?;
        }
        self.maker.push(&mut self.lane, bytes)
    }

    fn end(&mut self) -> Result<(), Error> {
        let Some(current) = &self.current else {
            return Ok(());
        };
        match current.way {
            Way::AsIs | Way::Never(_) => {
                if let Some(current) = self.current.take() {
                    let payload = current.payload;
                    let (version, asked) = (current.version, Asked::Restore);
                    let about = (current.db, current.expire_at_ms, current.eviction);
                    self.restore(payload.finish(version), asked, about)?;
                }
                Ok(())
            }
            Way::Commands => self.made(),
            Way::Recoded(plain) => self.recode(plain),
        }
    }

    /// Ends a key that went by commands.
    fn made(&mut self) -> Result<(), Error> {
        let made = self.maker.end(&mut self.lane)?;
        if let Some(current) = self.current.take() {
            self.spare = current.payload.into_bytes();
        }
        // What was over is all that there was.
        self.expired += u64::from(made.commands == 0);
        self.losses.elements += made.lost.too_large;
        self.losses.field_expiries += made.lost.field_expiries;
        self.losses.pending_entries += made.lost.unowned;
        Ok(())
    }

    /// The value in a layout that the server knows.
    fn recode(&mut self, plain: ValueType) -> Result<(), Error> {
        let Some(current) = self.current.take() else {
            return Ok(());
        };
        let gathered = current.payload.into_bytes();
        let loses = self.means.abilities.loses_field_expiries(current.way);
        let now = self.means.clock.now_ms();
        let mut encoder = Encoder::new(plain);
        let mut losses = Losses::default();
        let mut sink = |mut element: Element<'_>| {
            match &mut element {
                Element::Field { expire_at_ms, .. } => {
                    if expire_at_ms.is_some_and(|at| at <= now) {
                        return Ok(());
                    }
                    if loses && expire_at_ms.take().is_some() {
                        losses.field_expiries += 1;
                    }
                }
                Element::Unowned(_) => losses.pending_entries += 1,
                _ => {}
            }
            encoder.element(element);
            Ok::<(), std::convert::Infallible>(())
        };
        let decoded = decode(current.value_type, &gathered[current.begin..], &mut sink);
        match decoded {
            Ok(()) => {}
            Err(ValueError::Sink(never)) => match never {},
            Err(ValueError::Damaged(source)) => {
                return Err(Error::Value {
                    key: shown(&self.name, self.means.names),
                    db: current.db.0,
                    source,
                });
            }
        }
        let is_empty = encoder.elements() == 0;
        if is_empty && matches!(plain.logical(), LogicalType::Hash) {
            self.expired += 1;
            self.spare = gathered;
            self.room = None;
            return Ok(());
        }
        let size = (encoder.bytes() + 1 + FOOTER_BYTES) as u64;
        if self.means.abilities.overflows(size) {
            drop(encoder);
            self.room = None;
            self.current = Some(Current {
                payload: PayloadBuilder::new(0, &[]),
                ..current
            });
            self.make();
            if let Some(current) = &self.current {
                let value = &gathered[current.begin..];
                self.maker.push(&mut self.lane, value)?;
            }
            return self.made();
        }
        self.losses.field_expiries += losses.field_expiries;
        self.losses.pending_entries += losses.pending_entries;
        let rdb = self.means.abilities.rdb;
        let version = footer_version_for(plain, rdb.family, rdb.number).unwrap_or(rdb.number);
        let mut payload = PayloadBuilder::reusing(gathered, plain.code(), &[]);
        payload.push(&encoder.finish());
        let about = (current.db, current.expire_at_ms, current.eviction);
        self.restore(payload.finish(version), Asked::Recoded, about)
    }

    fn restore(
        &mut self,
        mut payload: Vec<u8>,
        asked: Asked,
        (db, expire_at_ms, eviction): (DbIndex, Option<i64>, Option<Eviction>),
    ) -> Result<(), Error> {
        let absolute = self.means.absolute;
        let ttl = match expire_at_ms {
            None => 0,
            Some(at) if absolute => at,
            // 0 would be "never".
            Some(at) => at.saturating_sub(self.means.clock.now_ms()).max(1),
        };
        let options = Options {
            replace: self.means.on_conflict == OnConflict::Replace,
            absolute: absolute && expire_at_ms.is_some(),
            eviction,
        };
        let lane = &mut self.lane;
        let large = lane
            .builder
            .restore(asked, db.0, &self.name, ttl, &mut payload, &options);
        self.spare = payload;
        match large {
            Some(mut batch) => {
                batch.room = Some(match self.room.take() {
                    Some(room) => room,
                    None => lane.room(batch.bytes_beside())?,
                });
                lane.send(batch)
            }
            None => {
                self.room = None;
                lane.send_full()
            }
        }
    }
}

impl Handler for KeySender {
    type Error = Failure;

    fn event(&mut self, event: Event<'_>) -> Result<(), Failure> {
        match event {
            Event::Key(head) => self.begin(&head)?,
            Event::Value(bytes) => self.push(bytes)?,
            Event::ValueEnd => self.end()?,
            Event::Aux { key, value, .. } => self.means.route.learn(&key, &value),
            Event::Opaque { offset, what } => return Err(Error::Opaque { offset, what }.into()),
            _ => {}
        }
        Ok(())
    }
}

impl Feeder for KeySender {
    fn lane(&mut self) -> &mut Lane {
        &mut self.lane
    }

    fn finish(&mut self) -> Result<(), Error> {
        self.maker.finish(&mut self.lane)?;
        self.lane.end()
    }
}
