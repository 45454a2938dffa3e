//! What a restore is going to do, decided from facts alone: nothing here asks a server or writes a byte.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::memory::{Doing, MemoryPlan, Occupied};
use super::survey::{Library, Survey};
use crate::failure::{Failure, Kind};
use crate::rdb::DbIndex;
use crate::server::info::Role;
use crate::target::facts::{TargetFacts, TargetLibraries};
use crate::target::live::{Conflicts, OnConflict};
use crate::target::{Expiry, Route};
use crate::units::HumanCount;

/// Refuses a target that is not to be written to: a replica, a cluster node, a server that loads.
///
/// # Errors
/// [`Kind::Refused`].
pub(super) fn suitable(facts: &TargetFacts) -> Result<(), Failure> {
    let place = &facts.place;
    let refused =
        |message: String, hint: String| Err(Failure::new(Kind::Refused, message).hint(hint));
    if facts.info.role == Role::Replica {
        let master = match (facts.info.get("master_host"), facts.info.get("master_port")) {
            (Some(host), Some(port)) => format!("restore to its primary, {host}:{port}"),
            _ => "restore to its primary".to_owned(),
        };
        return refused(format!("{place} is a replica"), master);
    }
    if facts.info.cluster_enabled {
        return refused(
            format!("{place} is a node of a cluster"),
            "restore to a server that is not in cluster mode".to_owned(),
        );
    }
    if facts.info.loading {
        return refused(
            format!("{place} is loading its data"),
            "try again when it is done".to_owned(),
        );
    }
    Ok(())
}

/// Applies the `/N` of a target: every key goes into that database, if there is only one to put there.
///
/// # Errors
/// [`Kind::Refused`] when the backup has several, [`Kind::Usage`] when the map says otherwise.
pub(super) fn into_one(
    route: &mut Route,
    into: DbIndex,
    found: &BTreeSet<DbIndex>,
) -> Result<(), Failure> {
    let targets: BTreeSet<DbIndex> = found
        .iter()
        .map(|db| {
            route
                .map
                .get(db)
                .copied()
                .unwrap_or(if found.len() == 1 { into } else { *db })
        })
        .collect();
    if targets.len() > 1 {
        let list: Vec<String> = found.iter().map(DbIndex::to_string).collect();
        return Err(Failure::new(
            Kind::Refused,
            format!(
                "the target names database {into}, but the backup has the databases {}",
                list.join(", ")
            ),
        )
        .hint("choose one with --db, map each with --map, or leave the number out of the target"));
    }
    if let Some(target) = targets.iter().next().filter(|target| **target != into) {
        return Err(Failure::new(
            Kind::Usage,
            format!("the target names database {into}, but --map says {target}"),
        )
        .hint("leave the number out of the target, or map to it"));
    }
    for db in found {
        route.map.insert(*db, into);
    }
    Ok(())
}

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
    /// Keys to write, by type.
    pub types: BTreeMap<&'static str, u64>,
    /// Keys that the target has in that database now.
    pub target_keys: u64,
}

/// Keys that the target can't hold.
#[derive(Clone, Debug, Serialize)]
pub struct UnheldPlan {
    /// The type's name, `key-metadata`, `too-large` or `module`.
    pub what: &'static str,
    /// The module's name for its type, where that is what is lacking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// How many.
    pub keys: u64,
    /// The database of the first.
    pub db: u32,
    /// The first, masked unless it may be shown.
    pub sample: String,
}

impl UnheldPlan {
    /// What it is, for a person.
    pub(super) fn words(&self) -> String {
        match &self.module {
            Some(module) => format!("{} {module}", self.what),
            None => self.what.to_owned(),
        }
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
    /// What the target can't hold.
    pub unheld: Vec<UnheldPlan>,
    /// The memory that the keys need; absent for a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryPlan>,
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
                    db: found.sample.0.0,
                    sample: found.sample.1.clone(),
                })
                .collect(),
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
    fn doing(&self, ingredients: &Ingredients<'_>) -> Doing {
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
        let databases: Vec<String> = self.flush.keys().map(u32::to_string).collect();
        let plural = if databases.len() == 1 { "" } else { "s" };
        Some(format!(
            "delete all {} keys in database{plural} {} of {}",
            HumanCount(keys),
            databases.join(" and "),
            self.target
        ))
    }

    fn warn(&mut self, ingredients: &Ingredients<'_>) {
        let survey = ingredients.survey;
        let mut warn = |text: String| self.warnings.push(text);
        if self.keys == 0 {
            warn("no key is selected".to_owned());
        }
        if !survey.libraries.is_empty() && !ingredients.route.filters.is_all() {
            warn(format!(
                "{} function libraries are left out, because only some keys are selected",
                HumanCount(survey.libraries.len() as u64)
            ));
        }
        if survey.field_expiries > 0 && ingredients.route.expiry != Expiry::Keep {
            warn(format!(
                "the expiries of single fields stay as they are, in {} hashes: --ttl is about keys",
                HumanCount(survey.field_expiries)
            ));
        }
        if ingredients.facts.is_none() {
            return;
        }
        if !survey.modules.is_empty() {
            let names: Vec<&str> = survey.modules.iter().map(String::as_str).collect();
            warn(format!(
                "data of modules that belongs to no key can't be restored to a running server: {}",
                names.join(", ")
            ));
        }
        if survey.unreadable_libraries > 0 {
            warn(format!(
                "{} function libraries are in the form of Redis 7.0's release candidates, which no server takes",
                HumanCount(survey.unreadable_libraries)
            ));
        }
        if let Some(warning) = self.memory.as_ref().and_then(MemoryPlan::warning) {
            warn(warning);
        }
    }

    /// Whether it may be done.
    fn judge(&self, ingredients: &Ingredients<'_>) -> Result<(), Failure> {
        let refuse = |message: String| Failure::new(Kind::Refused, message);
        let place = ingredients.place;
        if let Some((offset, what)) = ingredients.survey.opaque {
            return Err(crate::target::Error::Opaque { offset, what }.into());
        }
        // A mistyped filter must not look like success.
        if self.keys == 0 && self.left_out > 0 {
            return Err(refuse(format!(
                "no key of the backup is selected: the filters leave out all {}",
                HumanCount(self.left_out)
            ))
            .hint("`rdbkeeper backup show` tells what it holds, by database and type; globs are quoted for the shell"));
        }
        if !ingredients.lacking.is_empty() {
            let list: Vec<String> = ingredients.lacking.iter().map(DbIndex::to_string).collect();
            return Err(
                refuse(format!("{place} has no database {}", list.join(", "))).hint(
                    "raise `databases` in its configuration, or put the keys elsewhere with --map",
                ),
            );
        }
        if !self.unheld.is_empty() {
            let server = self.target_server.as_deref().unwrap_or("the target");
            let keys: u64 = self.unheld.iter().map(|found| found.keys).sum();
            let mut failure = refuse(format!(
                "{place} ({server}) cannot hold {} keys",
                HumanCount(keys)
            ));
            for found in &self.unheld {
                failure = failure.cause(format!(
                    "{} × {}, the first {} in database {}",
                    HumanCount(found.keys),
                    found.words(),
                    found.sample,
                    found.db
                ));
            }
            return Err(failure.hint(
                match self.unheld.iter().all(|found| found.module.is_some()) {
                    true => "load the module into the target, or leave these keys out with --exclude or --type",
                    false => "restore to a newer server, or leave these keys out with --exclude or --type",
                },
            ));
        }
        let libraries = |fate: LibraryFate| {
            let names: Vec<&str> = self
                .functions
                .iter()
                .filter(|library| library.fate == fate)
                .map(|library| library.name.as_str())
                .collect();
            (!names.is_empty()).then(|| names.join(", "))
        };
        if let Some(names) = libraries(LibraryFate::Unheld) {
            return Err(refuse(format!("{place} knows no functions"))
                .cause(format!("function libraries in the backup: {names}"))
                .hint(
                    "restore to Redis 7.0 or newer, or restore the keys alone with --match '*'",
                ));
        }
        if let (Some(_), Some(facts)) = (libraries(LibraryFate::Unseen), ingredients.facts)
            && let TargetLibraries::Refused(reply) = &facts.libraries
        {
            let source = crate::server::Error::Reply {
                command: "FUNCTION LIST".to_owned(),
                reply: reply.clone(),
            };
            return Err(crate::target::Error::target(place, source).into());
        }
        // Whatever is done with keys of the target: of two keys of the backup one would vanish.
        if self.collisions > 0 {
            return Err(refuse(format!(
                "{} keys of the backup would take the name of another one",
                HumanCount(self.collisions)
            ))
            .hint("put the databases elsewhere with --map, or choose another prefix"));
        }
        if let Some(memory) = &self.memory {
            memory.judge(place, self.doing(ingredients))?;
        }
        if ingredients.on_conflict != OnConflict::Fail || ingredients.facts.is_none() {
            return Ok(());
        }
        let hint = "keep the target's with --on-conflict skip, or the backup's with --on-conflict replace; --flush empties the databases first";
        if let Some(conflicts) = self
            .conflicts
            .as_ref()
            .filter(|conflicts| conflicts.keys > 0)
        {
            let mut failure = refuse(format!(
                "{place} has {} of the {} keys already",
                HumanCount(conflicts.keys),
                HumanCount(self.keys)
            ));
            if !conflicts.samples.is_empty() {
                failure = failure.cause(format!("for example {}", conflicts.samples.join(", ")));
            }
            return Err(failure.hint(hint));
        }
        if let Some(names) = libraries(LibraryFate::Conflict) {
            return Err(refuse(format!("{place} has other function libraries of the same name"))
                .cause(format!("they are: {names}"))
                .hint("keep the target's with --on-conflict skip, or the backup's with --on-conflict replace"));
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn databases(list: &[u32]) -> BTreeSet<DbIndex> {
        list.iter().copied().map(DbIndex).collect()
    }

    fn apply(map: &[(u32, u32)], into: u32, found: &[u32]) -> Result<Vec<(u32, u32)>, Kind> {
        let mut route = Route {
            map: map
                .iter()
                .map(|(from, to)| (DbIndex(*from), DbIndex(*to)))
                .collect(),
            ..Route::default()
        };
        into_one(&mut route, DbIndex(into), &databases(found)).map_err(|failure| failure.kind)?;
        Ok(route.map.iter().map(|(from, to)| (from.0, to.0)).collect())
    }

    #[test]
    fn a_number_in_the_target_takes_a_single_database() {
        assert_eq!(apply(&[], 2, &[7]), Ok(vec![(7, 2)]));
        assert_eq!(apply(&[], 2, &[]), Ok(vec![]));
        assert_eq!(apply(&[(7, 2)], 2, &[7]), Ok(vec![(7, 2)]));
        assert_eq!(
            apply(&[(1, 2), (3, 2)], 2, &[1, 3]),
            Ok(vec![(1, 2), (3, 2)])
        );
        // 2 stays where it is, and 1 joins it there.
        assert_eq!(apply(&[(1, 2)], 2, &[1, 2]), Ok(vec![(1, 2), (2, 2)]));
    }

    #[test]
    fn a_number_in_the_target_is_refused_for_several_databases_and_for_another_map() {
        assert_eq!(apply(&[], 2, &[1, 3]), Err(Kind::Refused));
        assert_eq!(apply(&[(1, 2)], 2, &[1, 3]), Err(Kind::Refused));
        assert_eq!(apply(&[(1, 5)], 2, &[1]), Err(Kind::Usage));
    }
}
