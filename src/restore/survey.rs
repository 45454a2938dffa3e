//! The first reading of a backup: everything that a plan needs to know of it, and proof that it is whole.
//!
//! Memory is small whatever the backup holds, with one exception: where two keys could come to have one name (databases
//! that are merged, prefixes that are renamed) 16 bytes are kept for each key that this could happen to. Of a stream that
//! is written by commands the pending entries are kept that are in it no more.

use std::collections::{BTreeMap, BTreeSet};

use tokio_util::sync::CancellationToken;

use super::examine::{Examined, Examiner, Sight};
use super::found::{Depth, Holds, Loss, Survey, UnheldKeys, WayCounts};
use super::library::Library;
use super::scales::Scales;
use super::{Attention, modules};
use crate::failure::{Failure, Kind};
use crate::rdb::payload::FOOTER_BYTES;
use crate::rdb::value::DecodeError;
use crate::rdb::{DbIndex, Event, Handler, KeyHead, LogicalType, ModuleId, ValueType, length};
use crate::selection::{KeyNames, shown};
use crate::target::live::{Known, key_hash};
use crate::target::way::{Unheld, Way, has_field_expiries};
use crate::target::{Error, Fate, Route};
use crate::units::HumanBytes;

/// The most bytes of source that the function libraries of a backup may have, all together. Real ones have a few KiB.
const MAX_LIBRARY_BYTES: u64 = 64 << 20;

/// What a library costs besides its source, in bytes.
const LIBRARY_COST: u64 = 128;

/// So many different reasons why keys can't be held are told apart; modules beyond them are counted together.
const MANY_REASONS: usize = 64;

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
    /// The number of the last key of which something can't be held.
    last_unheld: u64,
    library_bytes: u64,
    current: Option<Current>,
    examiner: Option<Examiner>,
    name: Vec<u8>,
    /// The room of a key's name, used again.
    sample: Vec<u8>,
}

struct Current {
    from: DbIndex,
    sample: Vec<u8>,
    /// Its number in the file.
    number: u64,
    value_type: ValueType,
    expires: bool,
    way: Way,
    /// Whether it is decoded.
    examined: bool,
    sight: Sight,
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
        let examiner = holds.as_ref().map(|holds| {
            let max_bulk = holds.abilities.dialect.max_bulk;
            Examiner::new(now_ms.unwrap_or(i64::MIN), max_bulk)
        });
        Surveyor {
            survey: Survey {
                version: None,
                databases: BTreeMap::new(),
                unheld: Vec::new(),
                unheld_keys: 0,
                ways: WayCounts::default(),
                by_commands: BTreeSet::new(),
                in_pieces: false,
                known: Known::default(),
                too_shallow: false,
                libraries: Vec::new(),
                unreadable_libraries: 0,
                modules: BTreeSet::new(),
                opaque: None,
                field_expiries: 0,
                collisions: 0,
                snapshot_ms: route.snapshot_ms,
                first: None,
                scales: Scales::default(),
                first_restored: None,
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
            last_unheld: 0,
            library_bytes: 0,
            current: None,
            examiner,
            name: Vec::new(),
            sample: Vec::new(),
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
                if has_field_expiries(head.value_type) {
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
                self.hold(head, &key, expire_at_ms.is_some());
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

    fn hold(&mut self, head: &KeyHead<'_>, key: &[u8], expires: bool) {
        let Some(holds) = &self.holds else {
            return;
        };
        let way = holds.abilities.way(head.value_type);
        let is_module = head.value_type.logical() == LogicalType::Module;
        let loses_metadata = holds.abilities.loses_metadata(head, way);
        let mut sample = std::mem::take(&mut self.sample);
        sample.clear();
        sample.extend_from_slice(key);
        let current = Current {
            from: head.db,
            sample,
            number: self.seen,
            value_type: head.value_type,
            expires,
            way,
            // A layout that is known by description only proves nothing against a value that goes as it is.
            examined: !is_module
                && (way != Way::AsIs
                    || head.value_type.is_tried()
                    || holds.depth == Depth::Everything),
            sight: match (way, holds.depth) {
                (Way::AsIs, Depth::Needed) => Sight::Content,
                _ => Sight::Ghosts,
            },
            payload_bytes: (head.meta.len() + 1 + FOOTER_BYTES) as u64,
            module: (is_module && holds.modules.is_some()).then(Vec::new),
        };
        if let Way::Never(why) = way {
            return self.lose(current, why);
        }
        if loses_metadata {
            self.unheld(Unheld::Metadata, &current, 0);
        }
        if current.examined
            && let Some(examiner) = &mut self.examiner
        {
            examiner.start(head.value_type, current.sight);
        }
        self.current = Some(current);
    }

    /// The key as a whole can't be held.
    fn lose(&mut self, current: Current, why: Unheld) {
        self.unheld(why, &current, 0);
        if self.holds.as_ref().map(|holds| holds.loss) != Some(Loss::Allowed) {
            return;
        }
        self.survey.known.lost.insert(current.number);
        self.survey.scales.lost();
        let found = self.survey.databases.entry(current.from).or_default();
        found.keys = found.keys.saturating_sub(1);
        found.expires = found.expires.saturating_sub(u64::from(current.expires));
        found.unheld += 1;
        let logical = current.value_type.logical().as_str();
        if let Some(keys) = found.types.get_mut(logical) {
            *keys = keys.saturating_sub(1);
        }
        found.types.retain(|_, keys| *keys > 0);
    }

    /// Notes what can't be held of a key: the whole of it, or so many things in it.
    fn unheld(&mut self, why: Unheld, current: &Current, parts: u64) {
        if self.last_unheld != current.number {
            self.last_unheld = current.number;
            self.survey.unheld_keys += 1;
        }
        let many = self.survey.unheld.len() >= MANY_REASONS;
        let same = |found: Unheld| {
            found == why || (many && matches!((found, why), (Unheld::Module(_), Unheld::Module(_))))
        };
        match self.survey.unheld.iter_mut().find(|found| same(found.why)) {
            Some(found) => {
                found.keys += 1;
                found.parts += parts;
            }
            None => self.survey.unheld.push(UnheldKeys {
                why,
                keys: 1,
                parts,
                sample: (current.from, shown(&current.sample, self.names)),
            }),
        }
    }

    fn value(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        current.payload_bytes += bytes.len() as u64;
        if current.examined
            && let Some(examiner) = &mut self.examiner
        {
            let pushed = examiner.push(bytes);
            return pushed.map_err(|source| damaged(current, source, self.names));
        }
        let Some(begin) = &mut current.module else {
            return Ok(());
        };
        // A length of up to nine bytes, which may come in pieces.
        begin.extend_from_slice(&bytes[..bytes.len().min(9)]);
        let Ok(Some((id, _))) = length::decode(begin) else {
            return Ok(());
        };
        current.module = None;
        let id = ModuleId(id & !1023);
        let known = self.holds.as_ref().and_then(|holds| holds.modules.as_ref());
        if known.is_some_and(|modules| !modules::may_know(modules, &id.name()))
            && let Some(current) = self.current.take()
        {
            self.lose(current, Unheld::Module(id));
        }
        Ok(())
    }

    fn value_end(&mut self) -> Result<(), Failure> {
        let Some(mut current) = self.current.take() else {
            return Ok(());
        };
        let (Some(holds), Some(examiner)) = (&self.holds, &mut self.examiner) else {
            return Ok(());
        };
        let abilities = holds.abilities;
        let examined = match current.examined {
            true => examiner
                .finish()
                .map_err(|source| damaged(&current, source, self.names))?,
            false => (Examined::default(), Vec::new(), 0),
        };
        let (found, ghosts, more) = examined;
        let logical = current.value_type.logical();
        let bytes = match current.way {
            Way::Recoded(_) => current.payload_bytes.max(found.plain_bytes),
            _ => current.payload_bytes,
        };
        if current.way == Way::AsIs && bytes > abilities.dialect.max_bulk {
            if !abilities.overflows(bytes) || logical == LogicalType::Module {
                self.lose(current, Unheld::Size);
                return Ok(());
            }
            self.survey.too_shallow |=
                logical == LogicalType::Stream && current.sight == Sight::Content;
        }
        if abilities.overflows(bytes) {
            current.way = Way::Commands;
        }
        let restored = match current.way {
            Way::AsIs | Way::Never(_) => {
                self.survey.ways.as_is += 1;
                true
            }
            Way::Recoded(_) => {
                self.survey.ways.recoded += 1;
                true
            }
            Way::Commands => {
                self.survey.ways.commands += 1;
                self.survey.by_commands.insert(logical);
                self.survey.in_pieces |= logical == LogicalType::String
                    && found.plain_bytes > abilities.dialect.max_bulk;
                false
            }
        };
        if restored && self.survey.first_restored.is_none() {
            let mut name = Vec::new();
            self.route.name(&current.sample, &mut name);
            self.survey.first_restored = Some((current.from, name));
        }
        if current.way == Way::Commands && !ghosts.is_empty() {
            self.survey.known.ghosts.insert(current.number, ghosts);
        }
        if found.expiring > 0 && abilities.loses_field_expiries(current.way) {
            self.unheld(Unheld::FieldExpiry, &current, found.expiring);
        }
        if found.too_large > 0 && current.way == Way::Commands {
            self.unheld(Unheld::Element, &current, found.too_large);
        }
        let more = if current.way == Way::Commands {
            more
        } else {
            0
        };
        if found.unowned + more > 0 && current.way != Way::AsIs {
            self.unheld(Unheld::Pending, &current, found.unowned + more);
        }
        self.sample = current.sample;
        Ok(())
    }
}

fn damaged(current: &Current, source: DecodeError, names: KeyNames) -> Failure {
    let key = shown(&current.sample, names);
    let db = current.from.0;
    Error::Value { key, db, source }.into()
}

impl Handler for Surveyor {
    type Error = Failure;

    fn event(&mut self, event: Event<'_>) -> Result<(), Failure> {
        if self.attention.is_stopped(&event) {
            return Err(stopped());
        }
        match event {
            Event::Header { version, .. } => self.survey.version = Some(version),
            Event::Aux { key, value, .. } => self.route.learn(&key, &value),
            Event::Key(head) => self.key(&head)?,
            Event::Value(bytes) => self.value(bytes)?,
            Event::ValueEnd => self.value_end()?,
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
        self.survey.scales.event(&event);
        Ok(())
    }
}

/// Somebody stopped it, in time.
pub(super) fn stopped() -> Failure {
    Failure::new(Kind::Interrupted, "stopped before anything was written")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selection::Filters;

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
