//! The picture as a document: what `rdbkeeper status --json` prints, and what `/api/status` holds for each database.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::{Brief, DatabaseState, Picture, Reason, Severity, StorageState};
use crate::runs::Task;
use crate::runs::ledger::{Attempt, Told};

/// The document of `rdbkeeper status --json`. Times are UTC, sizes in bytes.
#[derive(Clone, Debug, Serialize)]
pub struct StatusDocument {
    /// Whether no reason is `unhealthy`.
    pub healthy: bool,
    /// When it was looked.
    pub time: Timestamp,
    /// Whether any backup is scheduled at all.
    pub scheduled: bool,
    /// What is not as it should be.
    pub reasons: Vec<Reason>,
    /// The databases, in the order of the configuration.
    pub databases: Vec<DatabaseDocument>,
}

/// A database in the document.
#[derive(Clone, Debug, Serialize)]
pub struct DatabaseDocument {
    database: String,
    healthy: bool,
    tasks: BTreeMap<&'static str, TaskDocument>,
    storages: Vec<StorageDocument>,
}

/// A task for a database.
#[derive(Clone, Debug, Serialize)]
struct TaskDocument {
    /// Its cron expression.
    schedule: Option<String>,
    /// When it is due next, jitter not counted.
    next: Option<Timestamp>,
    /// The last run on this host that was not stopped.
    last: Option<Attempt>,
    /// When the last run that succeeded ended.
    succeeded_at: Option<Timestamp>,
    /// When the first run ended of those that have failed since.
    failing_since: Option<Timestamp>,
}

/// What a storage holds of a database.
#[derive(Clone, Debug, Serialize)]
struct StorageDocument {
    storage: String,
    /// Why it is not known.
    error: Option<Told>,
    kept: Option<u64>,
    /// Stored bytes of all of them.
    bytes: Option<u64>,
    newest: Option<BackupDocument>,
    newest_good: Option<BackupDocument>,
}

#[derive(Clone, Debug, Serialize)]
struct BackupDocument {
    #[serde(flatten)]
    brief: Brief,
    duration_seconds: f64,
}

impl StatusDocument {
    /// The document of a picture that was judged at `now`.
    pub fn new(picture: &Picture, reasons: Vec<Reason>, now: Timestamp) -> StatusDocument {
        let of = |state| DatabaseDocument::new(picture, state, &reasons, now);
        StatusDocument {
            healthy: !is_unhealthy(&reasons, None),
            time: now,
            scheduled: picture.is_scheduled(),
            databases: picture.databases.iter().map(of).collect(),
            reasons,
        }
    }
}

fn is_unhealthy(reasons: &[Reason], database: Option<&str>) -> bool {
    reasons.iter().any(|reason| {
        reason.severity == Severity::Unhealthy
            && database.is_none_or(|database| reason.database == database)
    })
}

impl DatabaseDocument {
    fn new(
        picture: &Picture,
        state: &DatabaseState,
        reasons: &[Reason],
        now: Timestamp,
    ) -> DatabaseDocument {
        let task = |task: Task| {
            let record = state.records.get(&task).cloned().unwrap_or_default();
            let document = TaskDocument {
                schedule: state.schedules.get(&task).map(ToString::to_string),
                next: state.next(task, now, &picture.zone),
                last: record.attempt,
                succeeded_at: record.succeeded_at,
                failing_since: record.failing_since,
            };
            (task.as_str(), document)
        };
        DatabaseDocument {
            database: state.name.clone(),
            healthy: !is_unhealthy(reasons, Some(&state.name)),
            tasks: Task::ALL.map(task).into(),
            storages: state.storages.iter().map(StorageDocument::new).collect(),
        }
    }
}

impl StorageDocument {
    fn new(storage: &StorageState) -> StorageDocument {
        let held = storage.held.as_ref().ok();
        let backup = |brief: &Brief| BackupDocument {
            brief: brief.clone(),
            duration_seconds: brief.took().as_secs_f64(),
        };
        StorageDocument {
            storage: storage.name.clone(),
            error: storage.held.as_ref().err().cloned(),
            kept: held.map(|held| held.kept),
            bytes: held.map(|held| held.bytes),
            newest: held.and_then(|held| held.newest.as_ref()).map(backup),
            newest_good: held.and_then(|held| held.newest_good.as_ref()).map(backup),
        }
    }
}
