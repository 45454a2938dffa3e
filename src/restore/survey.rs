//! The first reading of a backup: everything that a plan needs to know of it, and proof that it is whole.
//!
//! Memory is small whatever the backup holds, with one exception: where two keys could come to have one name (databases
//! that are merged, prefixes that are renamed) 16 bytes are kept for each key that this could happen to.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use tokio_util::sync::CancellationToken;

use super::memory::Scales;
use super::{Attention, modules};
use crate::failure::{Failure, Kind};
use crate::rdb::payload::{FOOTER_BYTES, footer_version_for};
use crate::rdb::{
    Damage, DbIndex, Event, Family, FileVersion, Handler, KeyHead, LogicalType, ModuleId,
    StringRef, Unknown, ValueType, length,
};
use crate::selection::{Filters, KeyNames, shown};
use crate::target::live::key_hash;
use crate::target::{Error, Fate, Route};
use crate::units::HumanBytes;

/// The first RDB version of Redis that knows key metadata.
const METADATA_SINCE: u16 = 13;

/// Hashes whose fields expire, in either family.
const FIELD_EXPIRY_TYPES: std::ops::RangeInclusive<u8> = 22..=25;

/// The most bytes of source that the function libraries of a backup may have, all together. Real ones have a few KiB.
const MAX_LIBRARY_BYTES: u64 = 64 << 20;

/// What a library costs besides its source, in bytes.
const LIBRARY_COST: u64 = 128;

/// So many different reasons why keys can't be held are told apart; modules beyond them are counted together.
const MANY_REASONS: usize = 64;

/// What a live target can hold.
#[derive(Clone, Debug)]
pub struct Holds {
    /// Its family and RDB version.
    pub rdb: FileVersion,
    /// The longest argument that it takes, in bytes.
    pub max_bulk: u64,
    /// The names of its modules, in small letters; `None` when that is not known.
    pub modules: Option<BTreeSet<String>>,
}

/// Why a key can't be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unheld {
    /// The target does not know the type.
    Type(ValueType),
    /// The target does not know key metadata.
    Metadata,
    /// The value is longer than the target takes at once.
    Size,
    /// No module of the target knows the value; without the version of its encoding.
    Module(ModuleId),
}

impl Unheld {
    /// A word: the type's name, `key-metadata`, `too-large`, `module`.
    pub fn name(self) -> &'static str {
        match self {
            Unheld::Type(value_type) => value_type.name(),
            Unheld::Metadata => "key-metadata",
            Unheld::Size => "too-large",
            Unheld::Module(_) => "module",
        }
    }

    /// The module's name for its type.
    pub fn module(self) -> Option<String> {
        match self {
            Unheld::Module(id) => Some(id.name()),
            _ => None,
        }
    }
}

/// Keys that can't be held for one reason.
#[derive(Clone, Debug)]
pub struct UnheldKeys {
    /// Why.
    pub why: Unheld,
    /// How many.
    pub keys: u64,
    /// The first: its database in the backup, and its name, masked unless it may be shown.
    pub sample: (DbIndex, String),
}

/// One database of a backup, as the route sees it.
#[derive(Clone, Debug, Default)]
pub struct Surveyed {
    /// Keys that will be written.
    pub keys: u64,
    /// Those of them that will expire.
    pub expires: u64,
    /// Keys that are over.
    pub expired: u64,
    /// Keys that the filters leave out.
    pub left_out: u64,
    /// Keys that will be written, by what they are to their user.
    pub types: BTreeMap<&'static str, u64>,
}

/// A function library in a backup.
#[derive(Clone, PartialEq, Eq)]
pub struct Library {
    /// Its name, from its first line.
    pub name: String,
    /// Its source as it stands in the file: compressed, it may be a hundredth of itself.
    packed: Vec<u8>,
}

impl Library {
    fn new(code: &StringRef<'_>) -> Result<Library, Error> {
        let text = code.decode().map_err(Error::KeyName)?;
        Ok(Library {
            name: library_name(&text).unwrap_or_else(|| "?".to_owned()),
            packed: code.raw().to_vec(),
        })
    }

    /// Its source.
    ///
    /// # Errors
    /// It is damaged; not so when it was surveyed.
    pub fn code(&self) -> Result<Cow<'_, [u8]>, Error> {
        match StringRef::parse(&self.packed) {
            Ok(Some(code)) => code.decode().map_err(Error::KeyName),
            Ok(None) => Err(Error::KeyName(Damage::Lzf)),
            Err(damage) => Err(Error::KeyName(damage)),
        }
    }
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Library({}, {} bytes)", self.name, self.packed.len())
    }
}

/// What a backup holds.
pub struct Survey {
    /// The header's version.
    pub version: Option<FileVersion>,
    /// By the database in the backup.
    pub databases: BTreeMap<DbIndex, Surveyed>,
    /// What the target can't hold.
    pub unheld: Vec<UnheldKeys>,
    /// Function libraries.
    pub libraries: Vec<Library>,
    /// Function libraries in a form that no released server takes.
    pub unreadable_libraries: u64,
    /// Modules that have data of their own in the backup, which belongs to no key.
    pub modules: BTreeSet<String>,
    /// From where on nothing can be read.
    pub opaque: Option<(u64, Unknown)>,
    /// Hashes that will be written and whose fields have expiries of their own.
    pub field_expiries: u64,
    /// Keys whose name on the target another key has too.
    pub collisions: u64,
    /// When the backup was taken, Unix time in milliseconds.
    pub snapshot_ms: Option<i64>,
    /// The first key that will be written: its database in the backup, and its name on the target.
    pub first: Option<(DbIndex, Vec<u8>)>,
    /// What the keys weigh.
    pub scales: Scales,
}

impl std::fmt::Debug for Survey {
    /// Without the names of keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Survey")
            .field("databases", &self.databases)
            .field("unheld", &self.unheld)
            .field("libraries", &self.libraries)
            .finish_non_exhaustive()
    }
}

impl Survey {
    /// Keys that will be written.
    pub fn keys(&self) -> u64 {
        self.databases.values().map(|found| found.keys).sum()
    }

    /// The databases in the backup that are meant, whatever else the filters leave of their keys.
    pub fn meant_databases(&self, filters: &Filters) -> BTreeSet<DbIndex> {
        self.databases
            .keys()
            .copied()
            .filter(|db| filters.takes_database(*db))
            .collect()
    }
}

/// The handler that makes a [`Survey`].
pub struct Surveyor {
    route: Route,
    now_ms: Option<i64>,
    holds: Option<Holds>,
    names: KeyNames,
    attention: Attention,
    progress: Box<dyn Fn(u64) + Send>,
    survey: Survey,
    merged: BTreeSet<DbIndex>,
    hashes: Vec<u128>,
    seen: u64,
    library_bytes: u64,
    current: Option<Current>,
    name: Vec<u8>,
}

struct Current {
    from: DbIndex,
    sample: Vec<u8>,
    payload_bytes: u64,
    /// The beginning of a module's value, until it has told whose it is.
    module: Option<Vec<u8>>,
}

impl Surveyor {
    /// `holds` is absent when the target is a file, which holds everything; so is `now_ms`.
    pub fn new(
        route: Route,
        now_ms: Option<i64>,
        holds: Option<Holds>,
        names: KeyNames,
        cancel: CancellationToken,
        progress: Box<dyn Fn(u64) + Send>,
    ) -> Surveyor {
        let merged = merged(&route);
        Surveyor {
            survey: Survey {
                version: None,
                databases: BTreeMap::new(),
                unheld: Vec::new(),
                libraries: Vec::new(),
                unreadable_libraries: 0,
                modules: BTreeSet::new(),
                opaque: None,
                field_expiries: 0,
                collisions: 0,
                snapshot_ms: route.snapshot_ms,
                first: None,
                scales: Scales::default(),
            },
            route,
            now_ms,
            holds,
            names,
            attention: Attention::new(cancel),
            progress,
            merged,
            hashes: Vec::new(),
            seen: 0,
            library_bytes: 0,
            current: None,
            name: Vec::new(),
        }
    }

    /// What was found. To be called when all of the backup has been read.
    pub fn finish(mut self) -> Survey {
        self.hashes.sort_unstable();
        let twice = self.hashes.windows(2).filter(|pair| pair[0] == pair[1]);
        self.survey.collisions = twice.count() as u64;
        self.survey.snapshot_ms = self.route.snapshot_ms;
        self.survey
    }

    fn key(&mut self, head: &KeyHead<'_>) -> Result<(), Failure> {
        self.seen += 1;
        if self.seen.is_multiple_of(1024) {
            (self.progress)(self.seen);
            if self.attention.cancel.is_cancelled() {
                return Err(stopped());
            }
        }
        let key = head.key.decode().map_err(Error::KeyName)?;
        let fate = self.route.fate(head, &key, self.now_ms)?;
        let meant = match fate {
            Fate::Written { db, .. } => {
                self.route.name(&key, &mut self.name);
                Some(key_hash(db.0, &self.name))
            }
            Fate::LeftOut | Fate::Expired => None,
        };
        let expires = head.expire_at_ms.is_some();
        self.survey
            .scales
            .key(head.value_type, &key, expires, meant);
        let found = self.survey.databases.entry(head.db).or_default();
        match fate {
            Fate::LeftOut => found.left_out += 1,
            Fate::Expired => found.expired += 1,
            Fate::Written { db, expire_at_ms } => {
                found.keys += 1;
                found.expires += u64::from(expire_at_ms.is_some());
                if FIELD_EXPIRY_TYPES.contains(&head.value_type.code()) {
                    self.survey.field_expiries += 1;
                }
                *found
                    .types
                    .entry(head.value_type.logical().as_str())
                    .or_default() += 1;
                if self.survey.first.is_none() {
                    let mut name = Vec::new();
                    self.route.name(&key, &mut name);
                    self.survey.first = Some((head.db, name));
                }
                self.collide(head.db, db, &key);
                self.hold(head, &key);
            }
        }
        Ok(())
    }

    fn collide(&mut self, from: DbIndex, to: DbIndex, key: &[u8]) {
        let merged = self.merged.contains(&from);
        if !merged && self.route.rename.is_empty() {
            return;
        }
        let mut name = std::mem::take(&mut self.name);
        self.route.name(key, &mut name);
        let may_collide = merged
            || self
                .route
                .rename
                .iter()
                .any(|rename| name.starts_with(&rename.to));
        if may_collide {
            let hash = xxhash_rust::xxh3::xxh3_128_with_seed(&name, u64::from(to.0));
            self.hashes.push(hash);
        }
        self.name = name;
    }

    fn hold(&mut self, head: &KeyHead<'_>, key: &[u8]) {
        let Some(holds) = &self.holds else {
            return;
        };
        let rdb = holds.rdb;
        let asks = holds.modules.is_some() && head.value_type.logical() == LogicalType::Module;
        if footer_version_for(head.value_type, rdb.family, rdb.number).is_none() {
            self.unheld(Unheld::Type(head.value_type), head.db, key);
        } else if !head.meta.is_empty() && !knows_metadata(rdb) {
            self.unheld(Unheld::Metadata, head.db, key);
        } else {
            let mut sample = self
                .current
                .take()
                .map(|current| current.sample)
                .unwrap_or_default();
            sample.clear();
            sample.extend_from_slice(key);
            self.current = Some(Current {
                from: head.db,
                sample,
                payload_bytes: (head.meta.len() + 1 + FOOTER_BYTES) as u64,
                module: asks.then(Vec::new),
            });
            return;
        }
        self.current = None;
    }

    fn unheld(&mut self, why: Unheld, db: DbIndex, key: &[u8]) {
        let many = self.survey.unheld.len() >= MANY_REASONS;
        let same = |found: Unheld| {
            found == why || (many && matches!((found, why), (Unheld::Module(_), Unheld::Module(_))))
        };
        match self.survey.unheld.iter_mut().find(|found| same(found.why)) {
            Some(found) => found.keys += 1,
            None => self.survey.unheld.push(UnheldKeys {
                why,
                keys: 1,
                sample: (db, shown(key, self.names)),
            }),
        }
    }

    fn value(&mut self, bytes: &[u8]) {
        let Some(current) = &mut self.current else {
            return;
        };
        current.payload_bytes += bytes.len() as u64;
        let Some(begin) = &mut current.module else {
            return;
        };
        // A length of up to nine bytes, which may come in pieces.
        begin.extend_from_slice(&bytes[..bytes.len().min(9)]);
        let Ok(Some((id, _))) = length::decode(begin) else {
            return;
        };
        current.module = None;
        let id = ModuleId(id & !1023);
        let known = self.holds.as_ref().and_then(|holds| holds.modules.as_ref());
        if known.is_some_and(|modules| !modules::may_know(modules, &id.name())) {
            let (from, sample) = (current.from, std::mem::take(&mut current.sample));
            self.current = None;
            self.unheld(Unheld::Module(id), from, &sample);
        }
    }

    fn value_end(&mut self) {
        if let (Some(current), Some(holds)) = (&mut self.current, &self.holds) {
            if current.payload_bytes > holds.max_bulk {
                let (from, sample) = (current.from, std::mem::take(&mut current.sample));
                self.unheld(Unheld::Size, from, &sample);
            }
            // What comes before the next key that can be held is not counted for this one.
            if let Some(current) = &mut self.current {
                current.payload_bytes = 0;
            }
        }
    }
}

impl Handler for Surveyor {
    type Error = Failure;

    fn event(&mut self, event: Event<'_>) -> Result<(), Failure> {
        if self.attention.is_stopped(&event) {
            return Err(stopped());
        }
        self.survey.scales.event(&event);
        match event {
            Event::Header { version, .. } => self.survey.version = Some(version),
            Event::Aux { key, value, .. } => self.route.learn(&key, &value),
            Event::Key(head) => self.key(&head)?,
            Event::Value(bytes) => self.value(bytes),
            Event::ValueEnd => self.value_end(),
            Event::Function { code, .. } => {
                // Judged by what it announces, before any of it is inflated.
                let bytes = code.decoded_len().saturating_add(LIBRARY_COST);
                self.library_bytes = self.library_bytes.saturating_add(bytes);
                if self.library_bytes > MAX_LIBRARY_BYTES {
                    return Err(Error::TooManyFunctions {
                        limit: HumanBytes(MAX_LIBRARY_BYTES),
                    }
                    .into());
                }
                self.survey.libraries.push(Library::new(&code)?);
            }
            Event::FunctionPreGa { .. } => self.survey.unreadable_libraries += 1,
            Event::ModuleAux { module, .. } => {
                self.survey.modules.insert(module.name());
            }
            Event::Opaque { offset, what } => self.survey.opaque = Some((offset, what)),
            _ => {}
        }
        Ok(())
    }
}

/// Somebody stopped it, in time.
pub(super) fn stopped() -> Failure {
    Failure::new(Kind::Interrupted, "stopped before anything was written")
}

fn knows_metadata(rdb: FileVersion) -> bool {
    rdb.family == Family::Redis && rdb.number >= METADATA_SINCE
}

/// The databases whose keys meet those of another database on the target.
///
/// Any database may be in the backup: one that is not mapped meets those that are mapped to its number.
fn merged(route: &Route) -> BTreeSet<DbIndex> {
    let mut sources: BTreeMap<DbIndex, BTreeSet<DbIndex>> = BTreeMap::new();
    for (from, to) in &route.map {
        if route.filters.takes_database(*from) {
            sources.entry(*to).or_default().insert(*from);
        }
    }
    for (to, from) in &mut sources {
        if !route.map.contains_key(to) && route.filters.takes_database(*to) {
            from.insert(*to);
        }
    }
    sources
        .into_values()
        .filter(|from| from.len() > 1)
        .flatten()
        .collect()
}

/// The name in a library's first line: `#!lua name=mylib`.
pub(super) fn library_name(code: &[u8]) -> Option<String> {
    let line = code.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?.strip_prefix("#!")?;
    line.split_whitespace()
        .find_map(|word| word.strip_prefix("name="))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_named_by_its_first_line() {
        assert_eq!(
            library_name(b"#!lua name=lib\nreturn 1").as_deref(),
            Some("lib")
        );
        assert_eq!(
            library_name(b"#!lua  flags=x name=a_b \n").as_deref(),
            Some("a_b")
        );
        assert_eq!(library_name(b"return 1"), None);
    }

    #[test]
    fn databases_that_meet_are_found() {
        let route = |map: &[(u32, u32)], only: &[u32]| {
            let route = Route {
                map: map
                    .iter()
                    .map(|(a, b)| (DbIndex(*a), DbIndex(*b)))
                    .collect(),
                filters: Filters {
                    databases: only.iter().map(|db| DbIndex(*db)).collect(),
                    ..Filters::default()
                },
                ..Route::default()
            };
            merged(&route)
                .into_iter()
                .map(|db| db.0)
                .collect::<Vec<_>>()
        };
        assert_eq!(route(&[(1, 5)], &[]), [1, 5]);
        assert_eq!(route(&[(1, 5)], &[1]), [0; 0]);
        assert_eq!(route(&[(1, 2), (2, 1)], &[]), [0; 0]);
        assert_eq!(route(&[(1, 7), (3, 7)], &[1, 3]), [1, 3]);
        assert_eq!(route(&[], &[]), [0; 0]);
    }
}
