//! A backup's events become commands, on the thread that reads it.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::super::batch::{Batch, Builder, Eviction, Options};
use super::super::{Clock, Error, Fate, Route};
use crate::failure::Failure;
use crate::rdb::payload::{PayloadBuilder, footer_version_for};
use crate::rdb::{DbIndex, Event, FileVersion, Handler, KeyHead};

/// Room for payloads that travel beside their batches, in KiB.
const ROOM_KIB: u32 = 32 << 10;

/// From this size on, in bytes, a payload gets all of the room: two of them are never in memory at once.
const HUGE: usize = 16 << 20;

/// A handler that sends what it makes of a backup.
pub(super) trait Feeder: Handler<Error = Failure> + Send + Sized + 'static {
    fn lane(&mut self) -> &mut Lane;
}

/// Where batches go.
pub(super) struct Outlet {
    batches: mpsc::Sender<Batch>,
    room: Arc<Semaphore>,
    /// The reading thread need not be one of the runtime's.
    runtime: Handle,
}

impl Outlet {
    /// To be called within the runtime.
    pub(super) fn new(batches: mpsc::Sender<Batch>) -> Outlet {
        Outlet {
            batches,
            room: Arc::new(Semaphore::new(ROOM_KIB as usize)),
            runtime: Handle::current(),
        }
    }
}

/// The way from a reading thread to the pump.
pub(super) struct Lane {
    pub(super) builder: Builder,
    outlet: Option<Outlet>,
}

impl Lane {
    pub(super) fn new(outlet: Outlet, max_commands: usize) -> Lane {
        Lane {
            builder: Builder::new(max_commands),
            outlet: Some(outlet),
        }
    }

    /// Whether somebody still takes batches.
    pub(super) fn check(&self) -> Result<(), Error> {
        match &self.outlet {
            Some(outlet) if !outlet.batches.is_closed() => Ok(()),
            _ => Err(Error::Stopped),
        }
    }

    fn send(&self, batch: Batch) -> Result<(), Error> {
        match &self.outlet {
            Some(outlet) => outlet
                .batches
                .blocking_send(batch)
                .map_err(|_| Error::Stopped),
            None => Err(Error::Stopped),
        }
    }

    /// Waits until there is room for so many bytes. When the pump ends, what it had not sent gives its room back.
    fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Error> {
        let outlet = self.outlet.as_ref().ok_or(Error::Stopped)?;
        let kib = u32::try_from(bytes >> 10).unwrap_or(ROOM_KIB).min(ROOM_KIB);
        let wait = Arc::clone(&outlet.room).acquire_many_owned(kib);
        outlet.runtime.block_on(wait).map_err(|_| Error::Stopped)
    }

    /// Sends what has been gathered, if it is a full batch.
    pub(super) fn send_full(&mut self) -> Result<(), Error> {
        match self.builder.full() {
            Some(batch) => self.send(batch),
            None => Ok(()),
        }
    }

    /// Sends what has been gathered.
    pub(super) fn end(&mut self) -> Result<(), Error> {
        match self.builder.rest() {
            Some(batch) => self.send(batch),
            None => Ok(()),
        }
    }

    /// Tells the pump that nothing more comes.
    pub(super) fn close(&mut self) {
        self.outlet = None;
    }
}

/// Makes RESTORE commands of a backup's events.
pub struct KeySender {
    lane: Lane,
    route: Route,
    rdb: FileVersion,
    clock: Clock,
    absolute: bool,
    replace: bool,
    pub(super) expired: u64,
    pub(super) left_out: u64,
    name: Vec<u8>,
    spare: Vec<u8>,
    /// All of the room, for a huge value.
    room: Option<OwnedSemaphorePermit>,
    current: Option<Current>,
}

/// The key whose value comes.
struct Current {
    db: DbIndex,
    expire_at_ms: Option<i64>,
    eviction: Option<Eviction>,
    version: u16,
    payload: PayloadBuilder,
}

impl KeySender {
    pub(super) fn new(
        outlet: Outlet,
        max_commands: usize,
        route: Route,
        (rdb, clock, absolute): (FileVersion, Clock, bool),
        replace: bool,
    ) -> KeySender {
        KeySender {
            lane: Lane::new(outlet, max_commands),
            route,
            rdb,
            clock,
            absolute,
            replace,
            expired: 0,
            left_out: 0,
            name: Vec::new(),
            spare: Vec::new(),
            room: None,
            current: None,
        }
    }

    fn begin(&mut self, head: &KeyHead<'_>) -> Result<(), Error> {
        let key = head.key.decode().map_err(Error::KeyName)?;
        let now = head.expire_at_ms.map(|_| self.clock.now_ms());
        let (db, expire_at_ms) = match self.route.fate(head, &key, now)? {
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
        self.route.name(&key, &mut self.name);
        // A type that the target does not know was named before; should one come all the same, the server says so.
        let version = footer_version_for(head.value_type, self.rdb.family, self.rdb.number)
            .filter(|_| head.meta.is_empty())
            .unwrap_or(self.rdb.number);
        let spare = std::mem::take(&mut self.spare);
        self.current = Some(Current {
            db,
            expire_at_ms,
            eviction: match (head.idle_s, head.freq) {
                _ if !self.absolute => None,
                (Some(idle), _) => i64::try_from(idle).ok().map(Eviction::Idle),
                (None, Some(freq)) => Some(Eviction::Frequency(freq)),
                (None, None) => None,
            },
            version,
            payload: PayloadBuilder::reusing(spare, head.value_type.code(), head.meta),
        });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Error> {
        let Some(current) = self.current.take() else {
            return Ok(());
        };
        let mut payload = current.payload.finish(current.version);
        let ttl = match current.expire_at_ms {
            None => 0,
            Some(at) if self.absolute => at,
            // 0 would be "never".
            Some(at) => at.saturating_sub(self.clock.now_ms()).max(1),
        };
        let options = Options {
            replace: self.replace,
            absolute: self.absolute && current.expire_at_ms.is_some(),
            eviction: current.eviction,
        };
        let lane = &mut self.lane;
        let large = lane
            .builder
            .restore(current.db.0, &self.name, ttl, &mut payload, &options);
        self.spare = payload;
        match large {
            Some(mut batch) => {
                batch.room = Some(match self.room.take() {
                    Some(room) => room,
                    None => lane.room(batch.bytes_beside())?,
                });
                lane.send(batch)
            }
            None => lane.send_full(),
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        if self.room.is_none() && current.payload.payload_bytes() + bytes.len() > HUGE {
            // What waits in the batch is sent, so that the room can come free.
            self.lane.end()?;
            self.room = Some(self.lane.room(usize::MAX)?);
        }
        current.payload.push(bytes);
        Ok(())
    }
}

impl Handler for KeySender {
    type Error = Failure;

    fn event(&mut self, event: Event<'_>) -> Result<(), Failure> {
        match event {
            Event::Key(head) => self.begin(&head)?,
            Event::Value(bytes) => self.push(bytes)?,
            Event::ValueEnd => self.end()?,
            Event::Aux { key, value, .. } => self.route.learn(&key, &value),
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
}

/// Makes EXISTS commands of a backup's events.
pub struct KeyLooker {
    lane: Lane,
    route: Route,
    clock: Clock,
    databases: BTreeSet<DbIndex>,
    name: Vec<u8>,
}

impl KeyLooker {
    pub(super) fn new(
        outlet: Outlet,
        max_commands: usize,
        route: Route,
        clock: Clock,
        databases: BTreeSet<DbIndex>,
    ) -> KeyLooker {
        KeyLooker {
            lane: Lane::new(outlet, max_commands),
            route,
            clock,
            databases,
            name: Vec::new(),
        }
    }
}

impl Handler for KeyLooker {
    type Error = Failure;

    fn event(&mut self, event: Event<'_>) -> Result<(), Failure> {
        match event {
            Event::Key(head) if self.databases.contains(&self.route.database(head.db)) => {
                let key = head.key.decode().map_err(Error::KeyName)?;
                let now = Some(self.clock.now_ms());
                if let Fate::Written { db, .. } = self.route.fate(&head, &key, now)? {
                    self.route.name(&key, &mut self.name);
                    self.lane.builder.exists(db.0, &self.name);
                    self.lane.send_full()?;
                }
            }
            Event::Aux { key, value, .. } => self.route.learn(&key, &value),
            Event::Opaque { offset, what } => return Err(Error::Opaque { offset, what }.into()),
            _ => {}
        }
        Ok(())
    }
}

impl Feeder for KeyLooker {
    fn lane(&mut self) -> &mut Lane {
        &mut self.lane
    }
}
