//! A live server as a target: keys are written by pipelined RESTORE, and looked for by EXISTS before.
//!
//! A thread reads the backup and makes batches; [`pump`](super::pump) sends them. The numbers in every result and every
//! error count the server's own answers, never what was sent.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::batch::{Asked, Batch, Builder, Eviction, Options};
use super::pump::{End, Judge, pump};
use super::{Clock, Error, Fate, Route, TargetFacts};
use crate::failure::{Failure, Kind};
use crate::rdb::payload::{PayloadBuilder, footer_version_for};
use crate::rdb::{DbIndex, Event, FileVersion, Handler, KeyHead};
use crate::selection::{KeyNames, shown};
use crate::server::{self, Code, Endpoint, Reply, ServerError};

/// Batches that wait for the pump. With those in flight they are what a restore keeps in memory.
const WAITING: usize = 4;

/// Room for payloads that travel beside their batches, in KiB.
const ROOM_KIB: u32 = 32 << 10;

/// From this size on, in bytes, a payload gets all of the room: two of them are never in memory at once.
const HUGE: usize = 16 << 20;

/// After the end of a run, how long the reading thread is waited for.
const READER_GRACE: Duration = Duration::from_secs(4);

/// What happens to a key that the target has already: `--on-conflict`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnConflict {
    /// Nothing is written.
    #[default]
    Fail,
    /// The target's key stays.
    Skip,
    /// The backup's key takes its place.
    Replace,
}

impl OnConflict {
    /// The word on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            OnConflict::Fail => "fail",
            OnConflict::Skip => "skip",
            OnConflict::Replace => "replace",
        }
    }
}

/// How keys are written.
#[derive(Clone)]
pub struct Settings {
    /// For keys that are there, or appear while the restore runs.
    pub on_conflict: OnConflict,
    /// Keys a second; 0 is no limit.
    pub rate: u64,
    /// Whether errors show key names.
    pub names: KeyNames,
    /// How many keys there are to write, for what errors say.
    pub keys: u64,
    /// Told now and then how many keys are answered.
    pub progress: Arc<dyn Fn(u64) + Send + Sync>,
    /// Stops it.
    pub cancel: CancellationToken,
}

/// What was written, by the server's answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Keys written.
    pub keys: u64,
    /// Keys that were there and stayed.
    pub skipped: u64,
    /// Keys that were over by the target's clock, and left out.
    pub expired: u64,
    /// Keys that the filters left out.
    pub left_out: u64,
}

/// Keys that the target has already.
#[derive(Clone, Debug, Default)]
pub struct Conflicts {
    /// How many.
    pub keys: u64,
    /// The first few, masked unless they may be shown: database and name.
    pub samples: Vec<(u32, String)>,
}

/// Writes the keys that `read` feeds to the handler it is given. `read` runs on a thread of its own, reads the whole
/// backup and returns the handler.
///
/// # Errors
/// What `read` says, or [`Error`]: each tells how many keys were written.
pub async fn write<R>(
    endpoint: &Endpoint,
    facts: &TargetFacts,
    route: &Route,
    settings: &Settings,
    read: R,
) -> Result<Written, Failure>
where
    R: FnOnce(KeySender) -> Result<KeySender, Failure> + Send + 'static,
{
    let replace = settings.on_conflict == OnConflict::Replace;
    let target = (facts.rdb, facts.clock, facts.has_absolute_ttl());
    let route = route.clone();
    let max_commands = commands_per_batch(settings.rate);
    let make = move |outlet| KeySender::new(outlet, max_commands, route, target, replace);
    let mut tally = Tally::new(facts, settings);
    let (ended, read) = drive(
        endpoint,
        &mut tally,
        settings.rate,
        &settings.cancel,
        make,
        read,
    )
    .await;
    tally.conclude(ended)?;
    // Only now: when the pump has stopped, the reader's complaint is that nobody takes its batches.
    let written = tally.written.keys;
    let sender = read.map_err(|failure| {
        failure.context(format!(
            "the backup could not be read to its end; {written} keys were written to {}",
            facts.place
        ))
    })?;
    Ok(Written {
        expired: sender.expired,
        left_out: sender.left_out,
        ..tally.written
    })
}

/// Looks which of the keys that would be written are there already, in those databases of the target.
///
/// # Errors
/// What `read` says, or [`Error`].
pub async fn look<R>(
    endpoint: &Endpoint,
    facts: &TargetFacts,
    route: &Route,
    databases: BTreeSet<DbIndex>,
    settings: &Settings,
    read: R,
) -> Result<Conflicts, Failure>
where
    R: FnOnce(KeyLooker) -> Result<KeyLooker, Failure> + Send + 'static,
{
    let (route, clock) = (route.clone(), facts.clock);
    let max_commands = commands_per_batch(settings.rate);
    let make = move |outlet| KeyLooker {
        lane: Lane::new(outlet, max_commands),
        route,
        clock,
        databases,
        name: Vec::new(),
    };
    let mut judge = Look {
        found: Conflicts::default(),
        asked: 0,
        settings,
        refused: None,
    };
    let (ended, read) = drive(
        endpoint,
        &mut judge,
        settings.rate,
        &settings.cancel,
        make,
        read,
    )
    .await;
    let wrap = |source| Error::target(&facts.place, source);
    let end = ended.map_err(wrap)?;
    if let Some(reply) = judge.refused {
        let command = "EXISTS".to_owned();
        return Err(wrap(server::Error::Reply { command, reply }).into());
    }
    if end == End::Cancelled {
        return Err(Failure::new(
            Kind::Interrupted,
            "stopped before anything was written",
        ));
    }
    read?;
    Ok(judge.found)
}

/// With a rate, batches are small enough to be spread over the second.
fn commands_per_batch(rate: u64) -> usize {
    match rate {
        0 => usize::MAX,
        rate => usize::try_from(rate / 20).unwrap_or(usize::MAX),
    }
}

/// A handler that sends what it makes of a backup.
trait Feeder: Handler<Error = Failure> + Send + Sized + 'static {
    fn lane(&mut self) -> &mut Lane;
}

async fn drive<F, R>(
    endpoint: &Endpoint,
    judge: &mut (impl Judge + Send),
    rate: u64,
    cancel: &CancellationToken,
    make: impl FnOnce(Outlet) -> F,
    read: R,
) -> (Result<End, server::Error>, Result<F, Failure>)
where
    F: Feeder,
    R: FnOnce(F) -> Result<F, Failure> + Send + 'static,
{
    let gone = || Failure::new(Kind::Failed, "the backup was not read");
    let wire = match endpoint.wire().await {
        Ok(wire) => wire,
        Err(error) => return (Err(error), Err(gone())),
    };
    let (outlet, batches) = mpsc::channel(WAITING);
    let feeder = make(Outlet {
        batches: outlet,
        room: Arc::new(Semaphore::new(ROOM_KIB as usize)),
        runtime: Handle::current(),
    });
    let reading = tokio::task::spawn_blocking(move || {
        let mut feeder = read(feeder)?;
        feeder.lane().end()?;
        feeder.lane().close();
        Ok(feeder)
    });
    let ended = pump(wire, batches, judge, rate, cancel).await;
    let read = match &ended {
        Ok(End::Done) => reading.await,
        // It ends with the next batch that nobody takes; a storage that stalls must not hold us up.
        _ => match tokio::time::timeout(READER_GRACE, reading).await {
            Ok(read) => read,
            Err(_) => return (ended, Err(gone())),
        },
    };
    (ended, read.unwrap_or_else(|_| Err(gone())))
}

/// Where batches go.
struct Outlet {
    batches: mpsc::Sender<Batch>,
    room: Arc<Semaphore>,
    /// The reading thread need not be one of the runtime's.
    runtime: Handle,
}

/// The way from a reading thread to the pump.
struct Lane {
    builder: Builder,
    outlet: Option<Outlet>,
}

impl Lane {
    fn new(outlet: Outlet, max_commands: usize) -> Lane {
        Lane {
            builder: Builder::new(max_commands),
            outlet: Some(outlet),
        }
    }

    /// Whether somebody still takes batches.
    fn check(&self) -> Result<(), Error> {
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

    fn send_full(&mut self) -> Result<(), Error> {
        match self.builder.full() {
            Some(batch) => self.send(batch),
            None => Ok(()),
        }
    }

    fn end(&mut self) -> Result<(), Error> {
        match self.builder.rest() {
            Some(batch) => self.send(batch),
            None => Ok(()),
        }
    }

    /// Tells the pump that nothing more comes.
    fn close(&mut self) {
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
    expired: u64,
    left_out: u64,
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
    fn new(
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

/// Counts the answers to EXISTS.
struct Look<'a> {
    found: Conflicts,
    asked: u64,
    settings: &'a Settings,
    refused: Option<ServerError>,
}

impl Judge for Look<'_> {
    fn judge(&mut self, asked: Asked, db: u32, key: &[u8], reply: Reply) -> ControlFlow<()> {
        if let Some(error) = reply.as_error() {
            self.refused.get_or_insert(error);
            return ControlFlow::Break(());
        }
        if asked == Asked::Exists {
            self.asked += 1;
            if self.asked.is_multiple_of(1024) {
                (self.settings.progress)(self.asked);
            }
            if reply.as_int().is_some_and(|count| count > 0) {
                self.found.keys += 1;
                if self.found.samples.len() < 3 {
                    self.found
                        .samples
                        .push((db, shown(key, self.settings.names)));
                }
            }
        }
        ControlFlow::Continue(())
    }
}

/// Counts the answers to RESTORE, and decides which of them ends the run.
struct Tally<'a> {
    facts: &'a TargetFacts,
    settings: &'a Settings,
    written: Written,
    failed: u64,
    answered: u64,
    /// The first key that was refused alone.
    first: Option<(String, u32, ServerError)>,
    /// Why it does not go on.
    fatal: Option<Fatal>,
}

enum Fatal {
    Appeared(String, u32),
    Refused(ServerError),
}

impl<'a> Tally<'a> {
    fn new(facts: &'a TargetFacts, settings: &'a Settings) -> Tally<'a> {
        Tally {
            facts,
            settings,
            written: Written::default(),
            failed: 0,
            answered: 0,
            first: None,
            fatal: None,
        }
    }

    /// What the run's end means, once everything in flight is answered.
    fn conclude(&mut self, ended: Result<End, server::Error>) -> Result<(), Error> {
        let place = self.facts.place.clone();
        let written = self.written.keys;
        let rest = self
            .settings
            .keys
            .saturating_sub(written + self.written.skipped);
        let rest = format!("{rest} were not");
        if let Some(fatal) = self.fatal.take() {
            return Err(match fatal {
                Fatal::Appeared(key, db) => Error::Appeared {
                    place,
                    key,
                    db,
                    written,
                },
                Fatal::Refused(reply) => Error::Refused {
                    place,
                    written,
                    rest,
                    reply: Box::new(reply),
                },
            });
        }
        match ended {
            Err(source) if self.answered == 0 => Err(Error::target(&place, source)),
            Err(source) => Err(Error::Lost {
                place,
                written,
                source: Box::new(source),
            }),
            Ok(End::Cancelled) => Err(Error::Cancelled {
                place,
                written,
                rest,
            }),
            Ok(End::Done | End::Stopped) => match self.first.take() {
                None => Ok(()),
                Some((key, db, reply)) => Err(Error::Keys {
                    place,
                    failed: self.failed,
                    written,
                    key,
                    db,
                    reply: Box::new(reply),
                }),
            },
        }
    }

    fn refused(&mut self, db: u32, key: &[u8], reply: ServerError) -> ControlFlow<()> {
        let names = self.settings.names;
        match (&reply.code, self.settings.on_conflict) {
            (Code::BusyKey, OnConflict::Skip) => {
                self.written.skipped += 1;
                return ControlFlow::Continue(());
            }
            (Code::BusyKey, OnConflict::Fail) => {
                self.fatal
                    .get_or_insert_with(|| Fatal::Appeared(shown(key, names), db));
            }
            // What is wrong with this key alone.
            (Code::Err | Code::Other(_) | Code::WrongType | Code::BusyKey, _) => {
                self.failed += 1;
                self.first
                    .get_or_insert_with(|| (shown(key, names), db, reply));
                return ControlFlow::Continue(());
            }
            _ => {
                self.fatal.get_or_insert(Fatal::Refused(reply));
            }
        }
        ControlFlow::Break(())
    }
}

impl Judge for Tally<'_> {
    fn judge(&mut self, asked: Asked, db: u32, key: &[u8], reply: Reply) -> ControlFlow<()> {
        let error = reply.as_error();
        if asked != Asked::Restore {
            return match error {
                // Without its database no key may follow.
                Some(reply) => {
                    self.fatal.get_or_insert(Fatal::Refused(reply));
                    ControlFlow::Break(())
                }
                None => ControlFlow::Continue(()),
            };
        }
        self.answered += 1;
        if self.answered.is_multiple_of(1024) {
            (self.settings.progress)(self.answered);
        }
        match error {
            None => {
                self.written.keys += 1;
                ControlFlow::Continue(())
            }
            Some(reply) => self.refused(db, key, reply),
        }
    }
}
