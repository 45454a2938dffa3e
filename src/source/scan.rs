//! Key by key: SCAN, then DUMP and the expiry of each key, written as an RDB file.
//!
//! Promise: every key that was there from the beginning to the end is in the file, whole, and no
//! key stands in it twice. The trap: what a pipeline asks for, the server holds in memory until we
//! read it. So at most two batches are in flight, and where values can be large their sizes are
//! asked for first, a value beyond the bound ends the scan, and large ones go a few at a time.

mod walk;

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::pool::{Filling, Pool};
use crate::rdb::payload;
use crate::rdb::{FileVersion, Writer};
use crate::server::info::{Product, Version};
use crate::server::pace::Pace;
use crate::server::resp::Limits;
use crate::server::wire::rdb_version;
use crate::server::{self, Code, Endpoint, Facts, Wire};

use super::seen::Seen;
use super::{Error, Method, Pumped, ScanSettings};
use walk::Walk;

/// Values asked for at a time, by MEMORY USAGE, in bytes.
const IN_FLIGHT: u64 = 32 << 20;
/// A value is written in fragments of this size.
const FRAGMENT: usize = 256 << 10;
/// Batches asked for at a time. The server reads commands in blocks of 16 KiB and sends their answers together, so with a
/// hundred keys at a time it waits for us now and then; what other clients feel is such a block, not what waits behind it.
const BATCHES: usize = 2;
/// What is written goes on in pieces of this size: each wakes a thread.
const PIECE: usize = 256 << 10;
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
/// is smaller than the bound, and what is asked for at a time is small on average.
pub(super) fn asks_for_sizes(facts: &Facts, settings: &ScanSettings) -> bool {
    let average = facts.used_memory / facts.keys().max(1);
    facts.used_memory >= settings.max_value
        || facts.keys() > 0
            && average.saturating_mul((BATCHES * settings.batch) as u64) > 2 * IN_FLIGHT
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
    let started_ms = answers
        .pop_front()
        .and_then(|reply| reply.as_time_ms())
        .ok_or_else(|| {
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

/// Takes what the writer writes, for the channel.
#[derive(Clone, Debug)]
struct Sink(Arc<Mutex<Gathered>>);

/// What was written and not sent yet.
#[derive(Debug)]
struct Gathered {
    piece: Filling,
    full: Vec<Bytes>,
}

impl Gathered {
    fn push(&mut self, piece: Vec<u8>) {
        let piece = self.piece.pool().lend(piece);
        self.full.push(piece);
    }
}

impl Sink {
    fn new() -> Sink {
        Sink(Arc::new(Mutex::new(Gathered {
            piece: Filling::new(Pool::new(PIECE), PIECE),
            full: Vec::new(),
        })))
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pieces that are full.
    fn take(&self) -> Vec<Bytes> {
        std::mem::take(&mut self.gathered().full)
    }

    /// All that there is.
    fn take_all(&self) -> Vec<Bytes> {
        let mut gathered = self.gathered();
        if let Some(last) = gathered.piece.rest() {
            gathered.push(last);
        }
        std::mem::take(&mut gathered.full)
    }
}

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut gathered = self.gathered();
        let mut rest = bytes;
        while !rest.is_empty() {
            if let Some(full) = gathered.piece.fill(&mut rest) {
                gathered.push(full);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Opened {
    pub(super) async fn pump(self, out: mpsc::Sender<Bytes>) -> Result<Pumped, Error> {
        let sink = Sink::new();
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
        for piece in sink.take_all() {
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
    /// COUNT: two batches; where a rate is set the server waits anyway, and it is one, and at most a twentieth of a second's keys.
    fn scan_count(&self) -> usize {
        let batch = self.batch.max(1);
        match self.max_keys_per_second {
            0 => BATCHES * batch,
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
