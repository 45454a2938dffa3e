//! Whether every database is backed up as it should be: the picture, and the judgement of it.
//!
//! The picture is what the stores hold and what the last runs left in the state folder; it is gathered where
//! waiting is allowed. [`judge`] is a pure function of it and of now, and the one judge of `/healthz` and of
//! `rdbkeeper status`. The trap: "nothing failed" is not healthy. What has never run, and what stays away, has to be
//! seen from the backups that are there, never from the absence of errors.

mod document;
mod gather;
mod judge;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::catalog::Backup;
use crate::cron::Cron;
use crate::runs::Task;
use crate::runs::ledger::{Record, Told};

pub use self::document::{DatabaseDocument, StatusDocument};
pub use self::gather::{Gatherer, LIMIT};
pub use self::judge::{Reason, Severity, What, judge};

/// A backup that was begun later than this from now was made with a wrong clock: it proves nothing about today.
pub const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_mins(5);

/// What is known of the databases at one moment.
#[derive(Clone, Debug)]
pub struct Picture {
    /// When it was taken.
    pub taken_at: Timestamp,
    /// The time zone of the schedules.
    pub zone: TimeZone,
    /// The databases, in the order of the configuration.
    pub databases: Vec<DatabaseState>,
}

/// What is known of a database.
#[derive(Clone, Debug)]
pub struct DatabaseState {
    /// Its name.
    pub name: String,
    /// When its jobs are due. A task that is not in it is not scheduled.
    pub schedules: BTreeMap<Task, Cron>,
    /// How much later than due a job may begin.
    pub jitter: Duration,
    /// How long a backup may take.
    pub timeout: Duration,
    /// Its storages, in the order of the configuration.
    pub storages: Vec<StorageState>,
    /// How the last runs ended on this host.
    pub records: BTreeMap<Task, Record>,
}

/// What is known of a database in one of its storages.
#[derive(Clone, Debug)]
pub struct StorageState {
    /// The storage.
    pub name: String,
    /// What it holds of the database, or why that is not known.
    pub held: Result<Held, Told>,
}

/// What a storage holds of a database.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Held {
    /// How many backups there are.
    pub kept: u64,
    /// Their stored bytes.
    pub bytes: u64,
    /// The newest, those from the future aside.
    pub newest: Option<Brief>,
    /// The newest that is not shrunk, those from the future aside.
    pub newest_good: Option<Brief>,
    /// It has none, and had some at this moment, when it was looked at for the last time with any.
    pub emptied: Option<Timestamp>,
    /// The newest that was begun later than now.
    pub from_future: Option<Brief>,
    /// Those whose manifest cannot be used, or whose data is evidently not what it says; oldest first.
    pub broken: Vec<Broken>,
}

/// The facts of a backup that matter here. Sizes in bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Brief {
    /// Its ID.
    pub id: String,
    /// When it was begun.
    pub started_at: Timestamp,
    /// The moment whose data it holds.
    pub snapshot_at: Timestamp,
    /// When it was complete.
    pub finished_at: Timestamp,
    /// Keys.
    pub keys: u64,
    /// Stored bytes.
    pub bytes: u64,
    /// Bytes of the RDB file.
    pub plain_bytes: u64,
    /// How it was taken.
    pub method: String,
    /// Whether it has far fewer keys than the last good one.
    pub shrunk: bool,
}

/// A backup that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its ID.
    pub id: String,
    /// The second in its ID.
    pub began_at: Timestamp,
    /// What is wrong.
    pub message: String,
    /// Whether it is damaged or cannot be read; else it is of a newer version of rdbkeeper.
    pub damaged: bool,
}

impl Brief {
    fn of(backup: &Backup) -> Brief {
        let manifest = &backup.manifest;
        Brief {
            id: manifest.id.to_string(),
            started_at: manifest.started_at,
            snapshot_at: manifest.snapshot_at,
            finished_at: manifest.finished_at,
            keys: manifest.rdb.keys,
            bytes: manifest.data.bytes,
            plain_bytes: manifest.data.plain_bytes,
            method: manifest.method.clone(),
            shrunk: backup.shrunk,
        }
    }

    /// How long it took.
    pub fn took(&self) -> Duration {
        let took = self.finished_at.duration_since(self.started_at);
        Duration::try_from(took).unwrap_or_default()
    }
}

impl Picture {
    /// Whether any backup is scheduled at all.
    pub fn is_scheduled(&self) -> bool {
        let scheduled = |state: &DatabaseState| state.schedules.contains_key(&Task::Backup);
        self.databases.iter().any(scheduled)
    }
}

impl DatabaseState {
    /// When a task is due next, its jitter not counted.
    pub fn next(&self, task: Task, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        self.schedules.get(&task)?.next(now, zone)
    }

    /// Its newest backup in whichever storage.
    pub fn newest(&self) -> Option<&Brief> {
        let held = self.storages.iter().filter_map(|s| s.held.as_ref().ok());
        held.filter_map(|held| held.newest.as_ref())
            .max_by_key(|brief| brief.started_at)
    }

    /// Its newest backup that is not shrunk, in whichever storage.
    pub fn newest_good(&self) -> Option<&Brief> {
        let held = self.storages.iter().filter_map(|s| s.held.as_ref().ok());
        held.filter_map(|held| held.newest_good.as_ref())
            .max_by_key(|brief| brief.started_at)
    }
}
