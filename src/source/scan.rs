//! Key by key: SCAN, then DUMP and the expiry of each key, written as an RDB file.
//!
//! Promise: every key that was there from the beginning to the end is in the file, whole, and no
//! key stands in it twice. The trap: what a pipeline asks for, the server holds in memory until we
//! read it. So at most two batches are in flight, and where values can be large their sizes are
//! asked for first, a value beyond the bound ends the scan, and large ones go a few at a time.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::rdb::payload::{self, Payload};
use crate::rdb::{DbIndex, FileVersion, NewKey, Writer};
use crate::server::info::{Product, Role, Version};
use crate::server::resp::Limits;
use crate::server::wire::rdb_version;
use crate::server::{self, Code, Endpoint, Facts, Reply, Wire};

use super::error::masked;
use super::seen::Seen;
use super::{Error, Method, Pumped, ScanSettings};

/// Values asked for at a time, by MEMORY USAGE, in bytes.
const IN_FLIGHT: u64 = 32 << 20;
/// A value is written in fragments of this size.
const FRAGMENT: usize = 256 << 10;
/// The longest string that is read although `max_value` is smaller: keys, functions.
const LEAST_LIMIT: u64 = 64 << 20;
/// A key that is asked for to see whether that is allowed.
const PROBE: &[u8] = b"rdbkeeper:probe";

/// A scan that is about to begin.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) started_ms: i64,
    place: String,
    wire: Wire,
    facts: Facts,
    dialect: Dialect,
    version: FileVersion,
    functions: Option<Bytes>,
    databases: Vec<u32>,
    settings: ScanSettings,
    warnings: Vec<String>,
}

/// What differs between servers.
#[derive(Clone, Copy, Debug)]
struct Dialect {
    /// PEXPIRETIME, from 7.0 on; before, TIME for each batch and PTTL for each key.
    pexpiretime: bool,
    /// Sizes are asked for before values.
    sizes_first: bool,
}

/// Whether values can be so large that their sizes must be known first: not when the whole server
/// is smaller than the bound, and a batch of average values is small.
pub(super) fn asks_for_sizes(facts: &Facts, settings: &ScanSettings) -> bool {
    let average = facts.used_memory / facts.keys().max(1);
    facts.used_memory >= settings.max_value
        || facts.keys() > 0 && average.saturating_mul(settings.batch as u64) > 2 * IN_FLIGHT
}

/// Connects, and asks each command that the scan needs once.
pub(super) async fn open(
    endpoint: &Endpoint,
    facts: &Facts,
    databases: &Option<BTreeSet<u32>>,
    settings: &ScanSettings,
) -> Result<Opened, Error> {
    let place = endpoint.place();
    let failed = |source| Error::Server {
        place: place.clone(),
        doing: "prepare the scan",
        source: Box::new(source),
    };
    let mut wire = endpoint.wire().await.map_err(failed)?;
    wire.set_limits(Limits {
        bulk: settings.max_value.max(LEAST_LIMIT),
        ..Limits::default()
    });
    let seven = facts.is_at_least(Version(7, 0, 0), Version(7, 0, 0));
    let dialect = Dialect {
        pexpiretime: seven,
        sizes_first: asks_for_sizes(facts, settings),
    };
    let mut asked: Vec<&[&[u8]]> = vec![&[b"TIME"], &[b"SCAN", b"0", b"COUNT", b"1"]];
    asked.push(&[b"DUMP", PROBE]);
    asked.push(if seven {
        &[b"PEXPIRETIME", PROBE]
    } else {
        &[b"PTTL", PROBE]
    });
    if dialect.sizes_first {
        asked.push(&[b"MEMORY", b"USAGE", PROBE]);
    }
    let mut answers = VecDeque::new();
    for args in asked {
        match wire.call(args).await {
            Ok(answer) => answers.push_back(answer),
            Err(error) if matches!(error.code(), Some(Code::Err | Code::NoPerm)) => {
                return Err(Error::Incapable {
                    method: Method::Scan,
                    place,
                    why: format!("{} is refused", String::from_utf8_lossy(args[0])),
                    source: Some(Box::new(error)),
                });
            }
            Err(error) => return Err(failed(error)),
        }
    }
    let started_ms = answers.pop_front().and_then(time_ms).ok_or_else(|| {
        failed(server::Error::Unexpected {
            command: "TIME".to_owned(),
        })
    })?;
    if facts.is_at_least(Version(7, 2, 0), Version(7, 2, 0)) {
        // Without it reading counts as use, and the server evicts the wrong keys later.
        if let Err(error) = wire.call(&[b"CLIENT", b"NO-TOUCH", b"ON"]).await {
            if error.is_disconnect() {
                return Err(failed(error));
            }
            tracing::debug!(%error, "CLIENT NO-TOUCH");
        }
    }
    let mut warnings = Vec::new();
    let functions = if seven {
        match wire.call(&[b"FUNCTION", b"DUMP"]).await {
            Ok(reply) => reply.into_bytes(),
            Err(error) if matches!(error.code(), Some(Code::Err | Code::NoPerm)) => {
                warnings.push("functions are not in the dump: FUNCTION DUMP is refused".to_owned());
                None
            }
            Err(error) => return Err(failed(error)),
        }
    } else {
        None
    };
    let number = rdb_version(&mut wire, facts).await.map_err(failed)?;
    let databases = match databases {
        Some(wanted) => wanted.iter().copied().collect(),
        None => facts.keyspace.keys().copied().collect(),
    };
    Ok(Opened {
        started_ms,
        place,
        wire,
        facts: facts.clone(),
        dialect,
        version: FileVersion::of_number(number),
        functions,
        databases,
        settings: settings.clone(),
        warnings,
    })
}

fn time_ms(reply: Reply) -> Option<i64> {
    let parts = reply.into_array()?;
    let [seconds, micros] = parts.as_slice() else {
        return None;
    };
    Some(seconds.as_int()? * 1000 + micros.as_int()? / 1000)
}

/// Takes what the writer writes, for the channel.
#[derive(Clone, Debug, Default)]
struct Sink(Arc<Mutex<Vec<Bytes>>>);

impl Sink {
    fn take(&self) -> Vec<Bytes> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Bytes::copy_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Opened {
    pub(super) async fn pump(self, out: mpsc::Sender<Bytes>) -> Result<Pumped, Error> {
        let sink = Sink::default();
        let mut file = Writer::new(sink.clone(), self.version).map_err(writing)?;
        self.write_head(&mut file)?;
        let spill_dir = self.settings.spill_dir.clone();
        let spill = |source| Error::Spill {
            path: spill_dir.clone(),
            source,
        };
        let mut walk = Walk {
            seen: Some(Seen::new(self.settings.seen_in_memory, &spill_dir).map_err(spill)?),
            pace: Pace::new(self.settings.max_keys_per_second),
            count: self.settings.scan_count(),
            settings: self.settings,
            place: self.place,
            wire: self.wire,
            facts: self.facts,
            dialect: self.dialect,
            db: 0,
            begun: false,
            stages: VecDeque::new(),
            large: Vec::new(),
            held_cursor: None,
            file,
            sink: sink.clone(),
            out,
            vanished: 0,
        };
        for db in self.databases {
            walk.database(db).await?;
        }
        let mut pumped = Pumped {
            vanished_keys: walk.vanished,
            warnings: self.warnings,
            bytes: 0,
        };
        walk.look_back(&mut pumped.warnings).await?;
        let (_, bytes) = walk.file.finish().map_err(writing)?;
        pumped.bytes = bytes;
        for piece in sink.take() {
            walk.out
                .send(piece)
                .await
                .map_err(|_| Error::ReceiverGone)?;
        }
        Ok(pumped)
    }

    /// What a server writes in front of the keys.
    fn write_head(&self, file: &mut Writer<Sink>) -> Result<(), Error> {
        let (name, version) = match self.facts.product {
            Product::Redis => ("redis-ver", self.facts.get("redis_version")),
            Product::Valkey => ("valkey-ver", self.facts.get("valkey_version")),
        };
        let bits = self.facts.get("arch_bits").unwrap_or("64");
        let ctime = (self.started_ms / 1000).to_string();
        let memory = self.facts.used_memory.to_string();
        for (key, value) in [
            (name, version.unwrap_or_default()),
            ("redis-bits", bits),
            ("ctime", &ctime),
            ("used-mem", &memory),
        ] {
            file.aux(key.as_bytes(), value.as_bytes())
                .map_err(writing)?;
        }
        if let Some(functions) = &self.functions {
            let damaged = |problem: String| Error::Payload {
                db: 0,
                key: "the functions".to_owned(),
                problem,
            };
            for library in
                payload::parse_functions(functions).map_err(|error| damaged(error.to_string()))?
            {
                let code = library
                    .decode()
                    .map_err(|error| damaged(error.to_string()))?;
                file.function(&code).map_err(writing)?;
            }
        }
        Ok(())
    }
}

impl ScanSettings {
    /// COUNT: the batch, but at most a twentieth of a second's keys where a rate is set.
    fn scan_count(&self) -> usize {
        let batch = self.batch.max(1);
        match self.max_keys_per_second {
            0 => batch,
            rate => batch.min((rate / 20).max(1) as usize),
        }
    }
}

fn writing(source: io::Error) -> Error {
    // The sink takes everything; only a version without a header is refused.
    Error::File {
        path: PathBuf::from("the dump in the making"),
        source,
    }
}

/// Spreads keys over time.
struct Pace {
    each: Duration,
    next: Instant,
}

impl Pace {
    fn new(per_second: u64) -> Pace {
        Pace {
            each: if per_second == 0 {
                Duration::ZERO
            } else {
                Duration::from_secs(1) / u32::try_from(per_second).unwrap_or(u32::MAX)
            },
            next: Instant::now(),
        }
    }

    async fn take(&mut self, keys: usize) {
        if self.each.is_zero() {
            return;
        }
        tokio::time::sleep_until(self.next).await;
        self.next =
            self.next.max(Instant::now()) + self.each * u32::try_from(keys).unwrap_or(u32::MAX);
    }
}

/// Answers that are on their way, in order.
enum Stage {
    /// Of SCAN.
    Scan,
    /// Of MEMORY USAGE, one a key.
    Sizes(Vec<Bytes>),
    /// Of the expiry and DUMP of each key (before 7.0 TIME in front).
    Values(Vec<Bytes>),
}

struct Walk {
    place: String,
    wire: Wire,
    facts: Facts,
    dialect: Dialect,
    settings: ScanSettings,
    count: usize,
    /// `None` only while it is away on a thread that may block.
    seen: Option<Seen>,
    pace: Pace,
    /// The database selected.
    db: u32,
    /// Whether it has its heading in the file.
    begun: bool,
    stages: VecDeque<Stage>,
    /// Groups of keys with large values, not asked for yet.
    large: Vec<Vec<Bytes>>,
    /// Where SCAN goes on when the large values are through.
    held_cursor: Option<Bytes>,
    file: Writer<Sink>,
    sink: Sink,
    out: mpsc::Sender<Bytes>,
    vanished: u64,
}

impl Walk {
    fn broke(&self, source: server::Error) -> Error {
        Error::Died {
            place: self.place.clone(),
            received: self.file.bytes(),
            expected: None,
            source: Box::new(source),
        }
    }

    fn unexpected(&self, command: &str) -> Error {
        self.broke(server::Error::Unexpected {
            command: command.to_owned(),
        })
    }

    async fn answer(&mut self, command: &str) -> Result<Reply, Error> {
        let reply = self.wire.reply().await.map_err(|error| self.broke(error))?;
        reply.ok(command).map_err(|source| Error::Server {
            place: self.place.clone(),
            doing: "scan",
            source: Box::new(source),
        })
    }

    async fn flush(&mut self) -> Result<(), Error> {
        self.wire.flush().await.map_err(|error| self.broke(error))
    }

    async fn database(&mut self, db: u32) -> Result<(), Error> {
        if db != self.db {
            self.wire.queue(&[b"SELECT", db.to_string().as_bytes()]);
            self.flush().await?;
            self.answer("SELECT").await?;
            self.db = db;
        }
        self.begun = false;
        if let Some(seen) = &mut self.seen {
            seen.clear();
        }
        self.ask_scan(b"0");
        self.flush().await?;
        loop {
            while let Some(stage) = self.stages.pop_front() {
                match stage {
                    Stage::Scan => self.on_scan().await?,
                    Stage::Sizes(keys) => self.on_sizes(keys).await?,
                    Stage::Values(keys) => self.on_values(keys).await?,
                }
            }
            // Nothing is in flight: now the large ones, one group after the other.
            for group in std::mem::take(&mut self.large) {
                self.ask_values(&group);
                self.flush().await?;
                self.on_values(group).await?;
            }
            match self.held_cursor.take() {
                None => return Ok(()),
                Some(cursor) => {
                    self.ask_scan(&cursor);
                    self.flush().await?;
                }
            }
        }
    }

    fn ask_scan(&mut self, cursor: &[u8]) {
        let count = self.count.to_string();
        self.wire
            .queue(&[b"SCAN", cursor, b"COUNT", count.as_bytes()]);
        self.stages.push_back(Stage::Scan);
    }

    fn ask_values(&mut self, keys: &[Bytes]) {
        let expiry: &[u8] = if self.dialect.pexpiretime {
            b"PEXPIRETIME"
        } else {
            self.wire.queue(&[b"TIME"]);
            b"PTTL"
        };
        for key in keys {
            self.wire.queue(&[expiry, key]);
            self.wire.queue(&[b"DUMP", key]);
        }
    }

    async fn on_scan(&mut self) -> Result<(), Error> {
        let reply = self.answer("SCAN").await?;
        let Some(Ok([cursor, keys])) = reply.into_array().map(<[Reply; 2]>::try_from) else {
            return Err(self.unexpected("SCAN"));
        };
        let (Some(cursor), Some(keys)) = (cursor.into_bytes(), keys.into_array()) else {
            return Err(self.unexpected("SCAN"));
        };
        let keys: Option<Vec<Bytes>> = keys.into_iter().map(Reply::into_bytes).collect();
        let keys = keys.ok_or_else(|| self.unexpected("SCAN"))?;
        let keys = self.unseen(keys).await?;
        // The next SCAN is in front: the server works on it while we read this batch.
        if cursor != "0" {
            if self.large.is_empty() {
                self.ask_scan(&cursor);
            } else {
                self.held_cursor = Some(cursor);
            }
        }
        if !keys.is_empty() {
            self.pace.take(keys.len()).await;
            if self.dialect.sizes_first {
                for key in &keys {
                    self.wire.queue(&[b"MEMORY", b"USAGE", key]);
                }
                self.stages.push_back(Stage::Sizes(keys));
            } else {
                self.ask_values(&keys);
                self.stages.push_back(Stage::Values(keys));
            }
        }
        self.flush().await
    }

    /// Those that were not seen before.
    async fn unseen(&mut self, keys: Vec<Bytes>) -> Result<Vec<Bytes>, Error> {
        fn filter(mut seen: Seen, keys: Vec<Bytes>) -> io::Result<(Seen, Vec<Bytes>)> {
            let mut new = Vec::with_capacity(keys.len());
            for key in keys {
                if seen.insert(&key)? {
                    new.push(key);
                }
            }
            Ok((seen, new))
        }
        let Some(seen) = self.seen.take() else {
            return Ok(keys);
        };
        let filtered = if seen.may_block(keys.len()) {
            match tokio::task::spawn_blocking(move || filter(seen, keys)).await {
                Ok(filtered) => filtered,
                // Only a panic or the end of the runtime ends it otherwise.
                Err(_) => return Err(Error::Cancelled),
            }
        } else {
            filter(seen, keys)
        };
        let (seen, keys) = filtered.map_err(|source| Error::Spill {
            path: self.settings.spill_dir.clone(),
            source,
        })?;
        self.seen = Some(seen);
        Ok(keys)
    }

    async fn on_sizes(&mut self, keys: Vec<Bytes>) -> Result<(), Error> {
        let mut groups: Vec<Vec<Bytes>> = vec![Vec::new()];
        let mut bytes: u64 = 0;
        for key in keys {
            let size = self.answer("MEMORY USAGE").await?.as_int();
            let Some(size) = size.and_then(|size| u64::try_from(size).ok()) else {
                self.vanished += 1;
                continue;
            };
            if size > self.settings.max_value {
                return Err(self.too_large(&key, Some(size)));
            }
            if bytes > 0 && bytes + size > IN_FLIGHT {
                groups.push(Vec::new());
                bytes = 0;
            }
            bytes += size;
            if let Some(group) = groups.last_mut() {
                group.push(key);
            }
        }
        groups.retain(|group| !group.is_empty());
        match <[Vec<Bytes>; 1]>::try_from(groups) {
            Ok([keys]) => {
                self.ask_values(&keys);
                self.stages.push_back(Stage::Values(keys));
                self.flush().await
            }
            // Large values wait until all that was asked before has been read.
            Err(groups) => {
                self.large.extend(groups);
                Ok(())
            }
        }
    }

    async fn on_values(&mut self, keys: Vec<Bytes>) -> Result<(), Error> {
        let now_ms = if self.dialect.pexpiretime {
            0
        } else {
            let reply = self.answer("TIME").await?;
            time_ms(reply).ok_or_else(|| self.unexpected("TIME"))?
        };
        for key in keys {
            let expiry = self
                .answer("PEXPIRETIME")
                .await?
                .as_int()
                .ok_or_else(|| self.unexpected("PEXPIRETIME"))?;
            let value = match self.wire.reply().await {
                Ok(reply) => reply.ok("DUMP").map_err(|source| Error::Server {
                    place: self.place.clone(),
                    doing: "scan",
                    source: Box::new(source),
                })?,
                Err(server::Error::TooLong { len, .. }) => {
                    return Err(self.too_large(&key, Some(len)));
                }
                Err(error) => return Err(self.broke(error)),
            };
            match (expiry, value) {
                (-2, _) | (_, Reply::Bulk(None)) => self.vanished += 1,
                (_, Reply::Bulk(Some(value))) => {
                    if value.len() as u64 > self.settings.max_value {
                        return Err(self.too_large(&key, Some(value.len() as u64)));
                    }
                    let expire_at_ms = (expiry >= 0).then(|| now_ms.saturating_add(expiry));
                    self.write(&key, expire_at_ms, &value).await?;
                }
                _ => return Err(self.unexpected("DUMP")),
            }
        }
        Ok(())
    }

    fn too_large(&self, key: &[u8], bytes: Option<u64>) -> Error {
        Error::TooLarge {
            db: self.db,
            key: masked(key),
            bytes,
            limit: self.settings.max_value,
        }
    }

    async fn write(
        &mut self,
        key: &[u8],
        expire_at_ms: Option<i64>,
        payload: &[u8],
    ) -> Result<(), Error> {
        let payload = Payload::parse(payload).map_err(|error| Error::Payload {
            db: self.db,
            key: masked(key),
            problem: error.to_string(),
        })?;
        if !self.begun {
            self.begun = true;
            self.file.select_db(DbIndex(self.db)).map_err(writing)?;
            if let Some(keyspace) = self.facts.keyspace.get(&self.db) {
                // A hint, as it is in a server's own file.
                self.file
                    .resize_db(keyspace.keys, keyspace.expires)
                    .map_err(writing)?;
            }
        }
        let head = NewKey {
            expire_at_ms,
            meta: payload.meta,
            ..NewKey::new(key, payload.type_code)
        };
        self.file.begin_key(&head).map_err(writing)?;
        for fragment in payload.value.chunks(FRAGMENT) {
            self.file.raw(fragment).map_err(writing)?;
            for piece in self.sink.take() {
                self.out
                    .send(piece)
                    .await
                    .map_err(|_| Error::ReceiverGone)?;
            }
        }
        Ok(())
    }

    /// After the last key: is it still the data set that was begun with?
    async fn look_back(&mut self, warnings: &mut Vec<String>) -> Result<(), Error> {
        self.wire.queue(&[b"INFO"]);
        self.flush().await?;
        let text = self.answer("INFO").await?.into_bytes().unwrap_or_default();
        let now = Facts::parse(&String::from_utf8_lossy(&text));
        if now.role == Role::Replica && !now.master_link_up {
            return Err(Error::StaleReplica {
                place: self.place.clone(),
            });
        }
        if now.replid != self.facts.replid {
            warnings.push(
                "the server's replication history changed during the scan (a failover or a full synchronisation)"
                    .to_owned(),
            );
        }
        Ok(())
    }
}
