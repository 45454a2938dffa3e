//! What a file holds, counted while it is scanned.
//!
//! Its size depends on the databases that hold keys, not on the keys: some 130 bytes each, and the
//! scanner lets no file have more than a few ten thousand ([`Limits`](super::Limits)). The trap: a
//! file of a few megabytes can name millions.

use std::collections::BTreeMap;
use std::convert::Infallible;

use super::event::{Event, Handler, KeyHead, Unknown};
use super::string::StringRef;
use super::types::{DbIndex, FileVersion, LogicalType};

/// No more of an aux value than this is kept.
const AUX_BYTES: usize = 256;

/// Counts of a whole file: a [`Handler`] that never fails.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// The header's version.
    pub version: Option<FileVersion>,
    /// Function libraries, those of the release candidates included.
    pub functions: u64,
    /// Blocks of modules' own data.
    pub module_aux: u64,
    /// What the file says about itself and its server.
    pub aux: AuxFacts,
    /// From where on nothing could be counted, and why.
    pub opaque: Option<(u64, Unknown)>,
    databases: BTreeMap<DbIndex, DbSummary>,
    /// The database of the keys that come, kept out of the map while they do.
    current: Option<(DbIndex, DbSummary)>,
}

/// Counts of one database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DbSummary {
    /// Keys.
    pub keys: u64,
    /// Keys that expire.
    pub expires: u64,
    /// The first expiry, in milliseconds of Unix time.
    pub min_expire_at_ms: Option<i64>,
    /// The last expiry, in milliseconds of Unix time.
    pub max_expire_at_ms: Option<i64>,
    /// Keys of each logical type, by its number.
    types: [u64; LogicalType::ALL.len()],
}

/// What the aux fields of a file say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuxFacts {
    /// `redis 7.0.15` or `valkey 9.1.2`, from `redis-ver` or `valkey-ver`.
    pub server: Option<String>,
    /// When the file was begun, in seconds of Unix time (`ctime`).
    pub ctime: Option<i64>,
    /// The server's memory then, in bytes (`used-mem`).
    pub used_memory: Option<u64>,
    /// The replication ID (`repl-id`).
    pub repl_id: Option<String>,
    /// The replication offset (`repl-offset`).
    pub repl_offset: Option<i64>,
    /// The database that the replication stream had selected (`repl-stream-db`).
    pub repl_stream_db: Option<i64>,
}

impl AuxFacts {
    /// Takes a field in, if it is one of those.
    pub fn note(&mut self, key: &[u8], value: &[u8]) {
        if value.len() > AUX_BYTES {
            return;
        }
        let text = String::from_utf8_lossy(value);
        match key {
            b"redis-ver" => self.server = Some(format!("redis {text}")),
            b"valkey-ver" => self.server = Some(format!("valkey {text}")),
            b"ctime" => self.ctime = text.parse().ok(),
            b"used-mem" => self.used_memory = text.parse().ok(),
            b"repl-id" => self.repl_id = Some(text.into_owned()),
            b"repl-offset" => self.repl_offset = text.parse().ok(),
            b"repl-stream-db" => self.repl_stream_db = text.parse().ok(),
            _ => {}
        }
    }
}

impl Summary {
    /// Nothing counted yet.
    pub fn new() -> Summary {
        Summary::default()
    }

    /// The databases that hold keys, in order.
    pub fn databases(&self) -> BTreeMap<DbIndex, DbSummary> {
        let mut all = self.databases.clone();
        if let Some((db, counts)) = &self.current
            && counts.keys > 0
        {
            all.entry(*db).or_default().merge(counts);
        }
        all
    }

    /// Keys in all databases.
    pub fn keys(&self) -> u64 {
        self.all().map(|db| db.keys).sum()
    }

    /// Keys that expire, in all databases.
    pub fn expires(&self) -> u64 {
        self.all().map(|db| db.expires).sum()
    }

    /// The counts that add up: a database may be in two of them.
    fn all(&self) -> impl Iterator<Item = &DbSummary> {
        let current = self.current.iter().map(|(_, counts)| counts);
        self.databases.values().chain(current)
    }

    /// Counts a key.
    pub fn key(&mut self, head: &KeyHead<'_>) {
        let counts = match &mut self.current {
            Some((db, counts)) if *db == head.db => counts,
            _ => self.enter(head.db),
        };
        counts.count(head);
    }

    fn enter(&mut self, db: DbIndex) -> &mut DbSummary {
        if let Some((old, counts)) = self.current.take()
            && counts.keys > 0
        {
            self.databases.entry(old).or_default().merge(&counts);
        }
        &mut self.current.insert((db, DbSummary::default())).1
    }
}

impl DbSummary {
    /// Keys by what they are to their user.
    pub fn logical_types(&self) -> BTreeMap<LogicalType, u64> {
        LogicalType::ALL
            .into_iter()
            .zip(self.types)
            .filter(|(_, keys)| *keys > 0)
            .collect()
    }

    fn count(&mut self, head: &KeyHead<'_>) {
        self.keys += 1;
        if let Some(at) = head.expire_at_ms {
            self.expires += 1;
            self.min_expire_at_ms = Some(self.min_expire_at_ms.map_or(at, |min| min.min(at)));
            self.max_expire_at_ms = Some(self.max_expire_at_ms.map_or(at, |max| max.max(at)));
        }
        // `ALL` has every one in the order of the numbers: a test below.
        self.types[head.value_type.logical() as usize] += 1;
    }

    fn merge(&mut self, other: &DbSummary) {
        self.keys += other.keys;
        self.expires += other.expires;
        self.min_expire_at_ms = earlier(self.min_expire_at_ms, other.min_expire_at_ms);
        self.max_expire_at_ms = self.max_expire_at_ms.max(other.max_expire_at_ms);
        for (ours, theirs) in self.types.iter_mut().zip(other.types) {
            *ours += theirs;
        }
    }
}

fn earlier(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

/// Whether decoding it costs little, even where it is compressed.
fn is_small(string: StringRef<'_>) -> bool {
    string.raw().len() <= 16 * AUX_BYTES
}

impl Handler for Summary {
    type Error = Infallible;

    fn event(&mut self, event: Event<'_>) -> Result<(), Infallible> {
        match event {
            Event::Key(head) => self.key(&head),
            Event::Header { version, .. } => self.version = Some(version),
            Event::Aux { key, value, .. } => {
                if is_small(key)
                    && is_small(value)
                    && let (Ok(key), Ok(value)) = (key.decode(), value.decode())
                {
                    self.aux.note(&key, &value);
                }
            }
            Event::Function { .. } | Event::FunctionPreGa { .. } => self.functions += 1,
            Event::ModuleAux { .. } => self.module_aux += 1,
            Event::Opaque { offset, what } => self.opaque = Some((offset, what)),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_the_types_are_their_places() {
        for (place, logical) in LogicalType::ALL.into_iter().enumerate() {
            assert_eq!(logical as usize, place);
        }
    }

    #[test]
    fn a_database_costs_a_few_bytes() {
        assert!(size_of::<(DbIndex, DbSummary)>() <= 128);
    }
}
