//! Which storages lack a backup that they should have: when one was away, nobody copies it by himself.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;

use super::context::App;
use crate::catalog::BackupId;
use crate::catalog::list::{Backup, Listing};
use crate::config::DatabaseConfig;
use crate::retention::{Fact, Fate, Guard, Rules, Standing, judge};

/// The storages that lack a backup, by its database and its ID.
pub(super) type Lacks = BTreeMap<(String, BackupId), Vec<String>>;

/// What is lacking of what a listing shows, in those of `storages` that were listed. What a storage's policy would not
/// keep is not lacking there.
pub(super) fn lacks(app: &App, listing: &Listing, storages: &[String]) -> Lacks {
    let mut lacks = Lacks::new();
    let silent = |name: &str| listing.silent.iter().any(|(silent, _)| silent == name);
    for database in &app.config.databases {
        for storage in &database.storage {
            let storage = storage.as_str();
            if silent(storage) || !storages.iter().any(|listed| listed == storage) {
                continue;
            }
            for id in lacking(app, listing, database, storage) {
                let key = (database.name.to_string(), id);
                lacks.entry(key).or_default().push(storage.to_owned());
            }
        }
    }
    lacks
}

/// What is lacking of a database in one storage, oldest first, whether it is one that the database is backed up to or not.
pub(super) fn lacking(
    app: &App,
    listing: &Listing,
    database: &DatabaseConfig,
    storage: &str,
) -> Vec<BackupId> {
    let of_database = |backup: &&Backup| backup.manifest.database == database.name.as_str();
    let (here, elsewhere): (Vec<&Backup>, Vec<&Backup>) = listing
        .backups
        .iter()
        .filter(of_database)
        .partition(|backup| backup.place.storage() == storage);
    // What is broken here is told as such.
    let broken = listing.broken.iter();
    let broken = broken.filter(|broken| broken.place.storage() == storage);
    let mut known: BTreeSet<&BackupId> = here.iter().map(|backup| &backup.manifest.id).collect();
    known.extend(broken.map(|broken| &broken.id));
    let mut missing = Vec::new();
    for backup in elsewhere {
        if !backup.damaged && known.insert(&backup.manifest.id) {
            missing.push(backup);
        }
    }
    let mut all: Vec<&Backup> = here.into_iter().chain(missing.iter().copied()).collect();
    all.sort_by_key(|backup| (backup.manifest.started_at, backup.manifest.id.clone()));
    let facts: Vec<Fact> = all.iter().map(|backup| fact(backup)).collect();
    let rules = Rules {
        policy: database.policies.of(storage),
        zone: &app.config.daemon.timezone,
        shrink_guard: database.shrink_guard,
    };
    let fates = judge(&facts, rules, Timestamp::now(), Guard::Clear);
    let stays = all.iter().zip(fates).filter_map(|(backup, fate)| {
        let is_missing = missing.iter().any(|m| m.manifest.id == backup.manifest.id);
        (is_missing && matches!(fate, Fate::Stays(_))).then(|| backup.manifest.id.clone())
    });
    stays.collect()
}

fn fact(backup: &Backup) -> Fact {
    Fact {
        id: backup.manifest.id.to_string(),
        began: backup.manifest.started_at,
        standing: match (backup.damaged, backup.shrunk) {
            (true, _) => Standing::Damaged,
            (false, true) => Standing::Shrunk,
            (false, false) => Standing::Good,
        },
        keys: backup.manifest.rdb.keys,
        pinned: backup.pinned,
        accepted: backup.accepted,
    }
}

/// A backup's document with the storages that should have it and do not, where there are any.
pub(super) fn with_lacks(mut document: Value, lacking: &[String]) -> Value {
    if let Value::Object(members) = &mut document
        && !lacking.is_empty()
    {
        members.insert("lacks".to_owned(), lacking.into());
    }
    document
}

/// Says how what is lacking is put right.
pub(super) fn tell_lacks(lacks: &Lacks) {
    let mut counts = BTreeMap::<&str, usize>::new();
    for storage in lacks.values().flatten() {
        *counts.entry(storage).or_default() += 1;
    }
    for (storage, count) in counts {
        tracing::warn!(
            "storage {storage} lacks {count} of these: `rdbkeeper backup copy --all --to {storage}` copies what it lacks"
        );
    }
}
