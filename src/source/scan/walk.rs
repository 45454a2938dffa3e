//! The walk over a database's keys: what is asked for, what is on its way, and what goes into the file.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Dialect, FRAGMENT, IN_FLIGHT, Sink, writing};
use crate::rdb::payload::Payload;
use crate::rdb::{DbIndex, NewKey, Writer};
use crate::server::info::Role;
use crate::server::pace::Pace;
use crate::server::{self, Facts, Reply, Wire};
use crate::source::error::masked;
use crate::source::seen::Seen;
use crate::source::{Error, ScanSettings};

/// Answers that are on their way, in order.
pub(super) enum Stage {
    /// Of SCAN.
    Scan,
    /// Of MEMORY USAGE, one a key.
    Sizes(Vec<Bytes>),
    /// Of the expiry and DUMP of each key (before 7.0 TIME in front).
    Values(Vec<Bytes>),
}

pub(super) struct Walk {
    pub(super) place: String,
    pub(super) wire: Wire,
    pub(super) facts: Facts,
    pub(super) dialect: Dialect,
    pub(super) settings: ScanSettings,
    pub(super) count: usize,
    /// `None` only while it is away on a thread that may block.
    pub(super) seen: Option<Seen>,
    pub(super) pace: Pace,
    /// The database selected.
    pub(super) db: u32,
    /// Whether it has its heading in the file.
    pub(super) begun: bool,
    pub(super) stages: VecDeque<Stage>,
    /// Groups of keys with large values, not asked for yet.
    pub(super) large: Vec<Vec<Bytes>>,
    /// Where SCAN goes on when the large values are through.
    pub(super) held_cursor: Option<Bytes>,
    pub(super) file: Writer<Sink>,
    pub(super) sink: Sink,
    pub(super) out: mpsc::Sender<Bytes>,
    pub(super) vanished: u64,
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

    pub(super) async fn database(&mut self, db: u32) -> Result<(), Error> {
        if db != self.db {
            self.wire.queue(&[b"SELECT", db.to_string().as_bytes()]);
            self.flush().await?;
            self.answer("SELECT").await?;
            self.db = db;
        }
        self.begun = false;
        if let Some(seen) = &mut self.seen {
            seen.clear();
            seen.expect(self.facts.keyspace.get(&db).map_or(0, |found| found.keys));
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
            reply.as_time_ms().ok_or_else(|| self.unexpected("TIME"))?
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
    pub(super) async fn look_back(&mut self, warnings: &mut Vec<String>) -> Result<(), Error> {
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
