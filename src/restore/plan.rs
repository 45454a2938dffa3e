//! What a restore is going to do, decided from facts alone: nothing here asks a server or writes a byte.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::found::{Loss, Survey, WayCounts};
use super::library::Library;
use super::memory::{Doing, MemoryPlan, Occupied};
use crate::failure::Failure;
use crate::rdb::DbIndex;
use crate::target::facts::{TargetFacts, TargetLibraries};
use crate::target::live::{Conflicts, OnConflict};
use crate::target::way::Mode;
use crate::target::{Expiry, Route};
use crate::units::{HumanCount, listed};

/// What becomes of a function library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LibraryFate {
    /// It is loaded.
    Load,
    /// It is loaded over another one of that name.
    Replace,
    /// The target has the very same.
    Same,
    /// The target has another one of that name, which stays.
    Skip,
    /// The target has another one of that name, and the policy is to fail.
    Conflict,
    /// The target knows no functions.
    Unheld,
    /// The target does not tell which libraries it has.
    Unseen,
}

/// A function library in a plan.
#[derive(Clone, Debug, Serialize)]
pub struct LibraryPlan {
    /// Its name.
    pub name: String,
    /// What becomes of it.
    pub fate: LibraryFate,
}

/// One database in a plan.
#[derive(Clone, Debug, Serialize)]
pub struct DatabasePlan {
    /// Its number in the backup.
    pub from: u32,
    /// Its number on the target.
    pub to: u32,
    /// Keys to write.
    pub keys: u64,
    /// Those of them that will expire.
    pub expires: u64,
    /// Keys that are over, and left out.
    pub expired: u64,
    /// Keys that the filters leave out.
    pub left_out: u64,
    /// Keys that the target can't hold, and that are left out.
    pub unheld: u64,
    /// Keys to write, by type.
    pub types: BTreeMap<&'static str, u64>,
    /// Keys that the target has in that database now.
    pub target_keys: u64,
}

/// What the target can't hold, for one reason.
#[derive(Clone, Debug, Serialize)]
pub struct UnheldPlan {
    /// The type's name, `too-large` or `module`: keys as a whole. `key-metadata`, `field-expiry`, `element-too-large` or
    /// `pending-entries`: something of them.
    pub what: &'static str,
    /// The module's name for its type, where that is what is lacking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// How many keys.
    pub keys: u64,
    /// How many fields, elements or entries in them; 0 where it is the whole of the keys.
    pub parts: u64,
    /// The database of the first.
    pub db: u32,
    /// The first, masked unless it may be shown.
    pub sample: String,
}

impl fmt::Display for UnheldPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} × {}", HumanCount(self.keys), self.what)?;
        if let Some(module) = &self.module {
            write!(f, " {module}")?;
        }
        if self.parts > 0 {
            write!(f, " ({} in all)", HumanCount(self.parts))?;
        }
        write!(f, ", the first {} in database {}", self.sample, self.db)
    }
}

/// Keys that the target has already.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ConflictPlan {
    /// How many.
    pub keys: u64,
    /// The first few, masked unless they may be shown.
    pub samples: Vec<String>,
}

/// What a restore is going to do.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The server or the file.
    pub target: String,
    /// `redis 7.0.15`; absent for a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_server: Option<String>,
    /// The RDB version that the target speaks; for a file that of the backup.
    pub target_rdb: String,
    /// The RDB version of the backup.
    pub backup_rdb: String,
    /// Keys to write.
    pub keys: u64,
    /// Keys that are over, and left out.
    pub expired: u64,
    /// Keys that the filters leave out.
    pub left_out: u64,
    /// By database.
    pub databases: Vec<DatabasePlan>,
    /// Function libraries.
    pub functions: Vec<LibraryPlan>,
    /// `keep`, `shift` or `strip`.
    pub ttl: &'static str,
    /// `fail`, `skip` or `replace`.
    pub on_conflict: &'static str,
    /// Keys that the target has already; absent when nobody looked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conflicts: Option<ConflictPlan>,
    /// Databases that are emptied first, and how many keys they have now.
    pub flush: BTreeMap<u32, u64>,
    /// Keys that two or more keys of the backup would become.
    pub collisions: u64,
    /// `auto`, `restore` or `commands`; absent for a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<&'static str>,
    /// How many keys are written by which way; absent for a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ways: Option<WayCounts>,
    /// What the target can't hold.
    pub unheld: Vec<UnheldPlan>,
    /// The memory that the keys need; absent for a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryPlan>,
    /// Whether what can't be held is left out, instead of nothing being written.
    pub allow_loss: bool,
    /// What is worth knowing before it begins.
    pub warnings: Vec<String>,
    /// Why it will not be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// The same, in full.
    #[serde(skip)]
    pub refusal: Option<Failure>,
}

/// Facts that a plan is made of.
pub(super) struct Ingredients<'a> {
    pub(super) place: &'a str,
    /// Absent for a file.
    pub(super) facts: Option<&'a TargetFacts>,
    pub(super) lacking: &'a [DbIndex],
    pub(super) survey: &'a Survey,
    pub(super) route: &'a Route,
    pub(super) on_conflict: OnConflict,
    pub(super) flush: bool,
    pub(super) mode: Mode,
    pub(super) loss: Loss,
    pub(super) conflicts: Option<&'a Conflicts>,
}

/// The databases of the target that will get keys.
pub(super) fn target_databases(survey: &Survey, route: &Route) -> BTreeSet<DbIndex> {
    survey
        .databases
        .iter()
        .filter(|(_, found)| found.keys > 0)
        .map(|(db, _)| route.database(*db))
        .collect()
}

/// What becomes of a function library on that target.
pub(super) fn library_fate(
    library: &Library,
    facts: &TargetFacts,
    on_conflict: OnConflict,
) -> LibraryFate {
    let there = match &facts.libraries {
        TargetLibraries::None => return LibraryFate::Unheld,
        TargetLibraries::Refused(_) => return LibraryFate::Unseen,
        TargetLibraries::Known(there) => there,
    };
    match there.get(&library.name) {
        None => LibraryFate::Load,
        Some(there) if library.code().is_ok_and(|code| *there == *code) => LibraryFate::Same,
        Some(_) => match on_conflict {
            OnConflict::Fail => LibraryFate::Conflict,
            OnConflict::Skip => LibraryFate::Skip,
            OnConflict::Replace => LibraryFate::Replace,
        },
    }
}

impl Plan {
    pub(super) fn of(ingredients: &Ingredients<'_>) -> Plan {
        let Ingredients {
            survey,
            route,
            facts,
            ..
        } = *ingredients;
        let keys_there = |db: DbIndex| {
            facts
                .and_then(|facts| facts.info.keyspace.get(&db.0))
                .map_or(0, |keyspace| keyspace.keys)
        };
        let rdb = survey
            .version
            .map_or_else(|| "unknown".to_owned(), |version| version.to_string());
        let databases: Vec<DatabasePlan> = survey
            .databases
            .iter()
            .filter(|(db, _)| route.filters.takes_database(**db))
            .map(|(db, found)| DatabasePlan {
                from: db.0,
                to: route.database(*db).0,
                keys: found.keys,
                expires: found.expires,
                expired: found.expired,
                left_out: found.left_out,
                unheld: found.unheld,
                types: found.types.clone(),
                target_keys: keys_there(route.database(*db)),
            })
            .collect();
        let functions = match facts {
            Some(facts) if route.filters.is_all() => survey
                .libraries
                .iter()
                .map(|library| LibraryPlan {
                    name: library.name.clone(),
                    fate: library_fate(library, facts, ingredients.on_conflict),
                })
                .collect(),
            Some(_) => Vec::new(),
            None if route.filters.is_all() => survey
                .libraries
                .iter()
                .map(|library| LibraryPlan {
                    name: library.name.clone(),
                    fate: LibraryFate::Load,
                })
                .collect(),
            None => Vec::new(),
        };
        let mut plan = Plan {
            target: ingredients.place.to_owned(),
            target_server: facts.map(|facts| facts.info.server()),
            target_rdb: facts.map_or_else(|| rdb.clone(), |facts| facts.rdb.to_string()),
            backup_rdb: rdb,
            keys: survey.keys(),
            expired: survey.databases.values().map(|found| found.expired).sum(),
            left_out: survey.databases.values().map(|found| found.left_out).sum(),
            databases,
            functions,
            ttl: match route.expiry {
                Expiry::Keep => "keep",
                Expiry::Shift { .. } => "shift",
                Expiry::Strip => "strip",
            },
            on_conflict: ingredients.on_conflict.as_str(),
            conflicts: ingredients.conflicts.map(|conflicts| ConflictPlan {
                keys: conflicts.keys,
                samples: conflicts
                    .samples
                    .iter()
                    .map(|(db, key)| format!("{key} in database {db}"))
                    .collect(),
            }),
            flush: BTreeMap::new(),
            collisions: survey.collisions,
            unheld: survey
                .unheld
                .iter()
                .map(|found| UnheldPlan {
                    what: found.why.name(),
                    module: found.why.module(),
                    keys: found.keys,
                    parts: found.parts,
                    db: found.sample.0.0,
                    sample: found.sample.1.clone(),
                })
                .collect(),
            allow_loss: ingredients.loss == Loss::Allowed,
            mode: facts.map(|_| ingredients.mode.as_str()),
            ways: facts.map(|_| survey.ways),
            memory: None,
            warnings: Vec::new(),
            refused: None,
            refusal: None,
        };
        if ingredients.flush {
            for db in target_databases(survey, route) {
                plan.flush.insert(db.0, keys_there(db));
            }
        }
        if let Some(facts) = facts.filter(|_| plan.keys > 0) {
            let doing = plan.doing(ingredients);
            plan.memory = Some(MemoryPlan::of(&survey.scales, &facts.info, doing));
        }
        plan.warn(ingredients);
        plan.refusal = plan.judge(ingredients).err();
        plan.refused = plan.refusal.as_ref().map(|failure| failure.message.clone());
        plan
    }

    /// What happens to the target's own keys, as far as its memory goes.
    pub(super) fn doing(&self, ingredients: &Ingredients<'_>) -> Doing {
        let there = |db: &DbIndex| {
            let keyspace = ingredients.facts.map(|facts| &facts.info.keyspace);
            keyspace.is_some_and(|keyspace| keyspace.get(&db.0).is_some_and(|db| db.keys > 0))
        };
        let targets = target_databases(ingredients.survey, ingredients.route);
        Doing {
            flushed_keys: self.flush.values().sum(),
            on_conflict: ingredients.on_conflict,
            occupied: match !ingredients.flush && targets.iter().any(there) {
                true => Occupied::Yes,
                false => Occupied::No,
            },
        }
    }

    /// Whether a function library is to be loaded.
    pub(super) fn loads(&self) -> bool {
        let mut fates = self.functions.iter().map(|library| library.fate);
        fates.any(|fate| matches!(fate, LibraryFate::Load | LibraryFate::Replace))
    }

    /// It will not be done, for this reason.
    pub(super) fn refuse(&mut self, failure: Failure) {
        self.refused = Some(failure.message.clone());
        self.refusal = Some(failure);
    }

    /// Whether a person should be asked before it begins, and about what.
    pub fn question(&self) -> Option<String> {
        let keys: u64 = self.flush.values().sum();
        if keys == 0 {
            return None;
        }
        let plural = if self.flush.len() == 1 { "" } else { "s" };
        Some(format!(
            "delete {} in database{plural} {} of {}",
            match keys {
                1 => "the 1 key".to_owned(),
                keys => format!("all {} keys", HumanCount(keys)),
            },
            listed(self.flush.keys()),
            self.target
        ))
    }
}
