//! What a first reading finds in a backup, and what it must know of the target to judge it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::library::Library;
use super::scales::Scales;
use crate::rdb::{DbIndex, FileVersion, LogicalType, Unknown};
use crate::selection::Filters;
use crate::target::live::Known;
use crate::target::way::{Abilities, Unheld};

/// What a live target can hold.
#[derive(Clone, Debug)]
pub struct Holds {
    /// What decides how values get there.
    pub abilities: Abilities,
    /// The names of its modules, in small letters; `None` when that is not known.
    pub modules: Option<BTreeSet<String>>,
    /// What becomes of what it can't hold.
    pub loss: Loss,
    /// Which values are decoded.
    pub depth: Depth,
}

/// What becomes of what a target can't hold: `--allow-loss`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Loss {
    /// Nothing is written.
    #[default]
    Refused,
    /// It is left out.
    Allowed,
}

/// Of which streams it is learned what commands must know beforehand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Depth {
    /// Those that can't go as they are, by their type.
    #[default]
    Needed,
    /// All of them: when some are too long to go as they are, which is known at their end only.
    Everything,
}

/// By how many keys each way is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WayCounts {
    /// RESTORE of the payload as it is.
    pub as_is: u64,
    /// RESTORE of the value in a plainer layout.
    pub recoded: u64,
    /// Plain commands.
    pub commands: u64,
}

/// Keys that can't be held for one reason.
#[derive(Clone, Debug)]
pub struct UnheldKeys {
    /// Why.
    pub why: Unheld,
    /// How many.
    pub keys: u64,
    /// How many things in them, where it is not the whole of them: fields, elements, entries.
    pub parts: u64,
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
    /// Keys that can't be held and are left out.
    pub unheld: u64,
    /// Keys that will be written, by what they are to their user.
    pub types: BTreeMap<&'static str, u64>,
}

/// What a backup holds.
pub struct Survey {
    /// The header's version.
    pub version: Option<FileVersion>,
    /// By the database in the backup.
    pub databases: BTreeMap<DbIndex, Surveyed>,
    /// What the target can't hold.
    pub unheld: Vec<UnheldKeys>,
    /// How many keys that is about, each counted once.
    pub unheld_keys: u64,
    /// How the keys will be written.
    pub ways: WayCounts,
    /// The types that will be written by commands.
    pub by_commands: BTreeSet<LogicalType>,
    /// Whether there are strings among them that the target puts together of pieces.
    pub in_pieces: bool,
    /// What is known of single keys.
    pub known: Known,
    /// Of some streams too little was learned: see [`Depth`].
    pub too_shallow: bool,
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
    /// The first one that goes by RESTORE.
    pub first_restored: Option<(DbIndex, Vec<u8>)>,
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
