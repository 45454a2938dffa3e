//! What is not as it should be, and whether it is unhealthy or only worth a look.
//!
//! Unhealthy is what the schedule of backups promises and the stores do not hold, and a backup that was found damaged. A
//! database whose backups are not scheduled here is shown, and warned of: somebody else decides when it is backed up.

use std::fmt;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Serialize, Serializer};

use super::{Brief, DatabaseState, Held, Picture, StorageState};
use crate::failure::Kind;
use crate::runs::Task;
use crate::runs::ledger::{Attempt, Told};
use crate::units::{HumanCount, HumanDuration};

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The database.
    pub database: String,
    /// The storage, where it is about one.
    pub storage: Option<String>,
    /// What it is.
    #[serde(rename = "reason")]
    pub what: What,
    /// How grave it is.
    pub severity: Severity,
    /// One sentence, lower case, without a full stop.
    pub message: String,
    /// Since when, where that is known.
    pub since: Option<Timestamp>,
}

/// How grave a reason is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A person should look at it.
    Warning,
    /// A backup that should be there is not, or is not to be trusted.
    Unhealthy,
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// There is no backup.
    NeverBackedUp,
    /// The newest backup is older than the schedule allows.
    Late,
    /// The last backup run failed.
    BackupFailed,
    /// The newest backup has far fewer keys than the last good one.
    Shrunk,
    /// A backup cannot be used, or the newest was read and found damaged.
    Damaged,
    /// A storage cannot be listed.
    StorageSilent,
    /// The daemon has not looked at a storage since it was configured.
    NotLookedAt,
    /// A storage had backups and has none any more.
    Emptied,
    /// A backup is dated later than now.
    FromFuture,
    /// The newest backup could not be verified.
    VerifyFailed,
    /// Sessions were not expired.
    SessionsFailed,
    /// Old backups could not be removed.
    PruneFailed,
}

impl What {
    /// The word in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            What::NeverBackedUp => "never-backed-up",
            What::Late => "late",
            What::BackupFailed => "backup-failed",
            What::Shrunk => "shrunk",
            What::Damaged => "damaged",
            What::StorageSilent => "storage-silent",
            What::NotLookedAt => "not-looked-at",
            What::Emptied => "emptied",
            What::FromFuture => "from-future",
            What::VerifyFailed => "verify-failed",
            What::SessionsFailed => "sessions-failed",
            What::PruneFailed => "prune-failed",
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for What {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Everything that is not as it should be, by database in the order of the picture. Healthy is when none of it is
/// [`Severity::Unhealthy`].
pub fn judge(picture: &Picture, now: Timestamp) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for state in &picture.databases {
        let mut found = Found {
            state,
            zone: &picture.zone,
            now,
            reasons: &mut reasons,
        };
        found.runs();
        found.storages();
    }
    reasons
}

struct Found<'a> {
    state: &'a DatabaseState,
    zone: &'a TimeZone,
    now: Timestamp,
    reasons: &'a mut Vec<Reason>,
}

impl Found<'_> {
    fn add(
        &mut self,
        what: What,
        severity: Severity,
        storage: Option<&StorageState>,
        since: Option<Timestamp>,
        message: String,
    ) {
        self.reasons.push(Reason {
            database: self.state.name.clone(),
            storage: storage.map(|storage| storage.name.clone()),
            what,
            severity,
            message,
            since,
        });
    }

    /// How grave it is when a backup is not as it should be.
    fn of_backups(&self) -> Severity {
        match self.state.schedules.contains_key(&Task::Backup) {
            true => Severity::Unhealthy,
            false => Severity::Warning,
        }
    }

    fn runs(&mut self) {
        for (task, record) in &self.state.records {
            if let Some(failed) = &record.prune_failed {
                let message = format!(
                    "old backups of {} are not removed: {}",
                    self.state.name, failed.message
                );
                let since = Some(failed.since);
                self.add(What::PruneFailed, Severity::Warning, None, since, message);
            }
            let Some(attempt) = &record.attempt else {
                continue;
            };
            let Some(error) = &attempt.error else {
                continue;
            };
            let since = Some(record.failing_since.unwrap_or(attempt.finished_at));
            let name = &self.state.name;
            let text = told(error);
            match task {
                // That it is late or missing the storages say themselves, as long as it is true.
                Task::Backup if attempt.overdue || self.is_over(attempt) => {}
                Task::Backup => {
                    let message = format!("the last backup of {name} failed: {text}");
                    self.add(What::BackupFailed, self.of_backups(), None, since, message);
                }
                Task::Verify if error.kind == Kind::Damaged.as_str() => {
                    let message = format!("a backup of {name} was read and is damaged: {text}");
                    self.add(What::Damaged, Severity::Unhealthy, None, since, message);
                }
                Task::Verify => {
                    let message = format!("the newest backup of {name} is not verified: {text}");
                    self.add(What::VerifyFailed, Severity::Warning, None, since, message);
                }
                Task::Sessions => {
                    let message = format!("sessions of {name} are not expired: {text}");
                    self.add(
                        What::SessionsFailed,
                        Severity::Warning,
                        None,
                        since,
                        message,
                    );
                }
            }
        }
    }

    /// Whether every storage has a backup that was begun after this run had failed: somebody else made it, by hand or
    /// with another state folder.
    fn is_over(&self, failed: &Attempt) -> bool {
        let newer = |storage: &StorageState| {
            let newest = storage
                .held
                .as_ref()
                .ok()
                .and_then(|held| held.newest.as_ref());
            newest.is_some_and(|newest| newest.started_at > failed.finished_at)
        };
        !self.state.storages.is_empty() && self.state.storages.iter().all(newer)
    }

    fn storages(&mut self) {
        let name = &self.state.name;
        let none_at_all = self.state.newest().is_none();
        for storage in &self.state.storages {
            let held = match &storage.held {
                Ok(held) => held,
                Err(error) => {
                    let text = told(error);
                    let message = format!("storage {} cannot be listed: {text}", storage.name);
                    self.add(
                        What::StorageSilent,
                        self.of_backups(),
                        Some(storage),
                        None,
                        message,
                    );
                    continue;
                }
            };
            match &held.newest {
                None if self.of_backups() == Severity::Unhealthy => {
                    let message = match none_at_all {
                        true => format!("{name} has never been backed up"),
                        false => format!("storage {} has no backup of {name}", storage.name),
                    };
                    let unhealthy = Severity::Unhealthy;
                    self.add(What::NeverBackedUp, unhealthy, Some(storage), None, message);
                }
                None => {}
                Some(newest) => self.newest(storage, held, newest),
            }
            self.not_usable(storage, held);
        }
    }

    fn newest(&mut self, storage: &StorageState, held: &Held, newest: &Brief) {
        let name = &self.state.name;
        if let Some(due) = self.late_since(newest) {
            let age = self.now.duration_since(newest.started_at);
            let age = HumanDuration(Duration::try_from(age).unwrap_or_default());
            let message = format!(
                "the newest backup of {name} in storage {} is {age} old, and one was due at {}",
                storage.name,
                moment(due)
            );
            self.add(
                What::Late,
                self.of_backups(),
                Some(storage),
                Some(due),
                message,
            );
        }
        if newest.shrunk {
            let before = held.newest_good.as_ref().map_or(0, |good| good.keys);
            let message = format!(
                "the newest backup of {name} in storage {} has {}, and the last good one has {}; `rdbkeeper backup accept {}` says that this is right",
                storage.name,
                HumanCount(newest.keys).of("key", "keys"),
                HumanCount(before),
                newest.id
            );
            let since = Some(newest.started_at);
            self.add(
                What::Shrunk,
                self.of_backups(),
                Some(storage),
                since,
                message,
            );
        }
    }

    /// When the backup was due that should have replaced this one. `None`: it is fresh.
    fn late_since(&self, newest: &Brief) -> Option<Timestamp> {
        let due = self
            .state
            .next(Task::Backup, newest.started_at, self.zone)?;
        let allowed = SignedDuration::try_from(self.state.jitter + self.state.timeout).ok()?;
        let deadline = due.checked_add(allowed).ok()?;
        (self.now > deadline).then_some(due)
    }

    /// Backups that are there and do not count.
    fn not_usable(&mut self, storage: &StorageState, held: &Held) {
        let name = &self.state.name;
        for broken in held.broken.iter().filter(|broken| broken.damaged) {
            let newest = held.newest.as_ref();
            // Of a broken one no more is known than the second in its ID.
            let is_newest = newest
                .is_none_or(|newest| broken.began_at.as_second() >= newest.started_at.as_second());
            let severity = match is_newest {
                true => self.of_backups(),
                false => Severity::Warning,
            };
            let message = format!(
                "{} of {name} in storage {} cannot be used: {}",
                broken.id, storage.name, broken.message
            );
            self.add(What::Damaged, severity, Some(storage), None, message);
        }
        if let Some(had) = held.emptied {
            let message = format!(
                "storage {} has no backups of {name} any more, and had some at {}: is it the same disk, and mounted?",
                storage.name,
                moment(had)
            );
            let warning = Severity::Warning;
            self.add(What::Emptied, warning, Some(storage), Some(had), message);
        }
        if let Some(future) = &held.from_future {
            let message = format!(
                "{} of {name} in storage {} is dated later than now: a clock is or was wrong",
                future.id, storage.name
            );
            let warning = Severity::Warning;
            self.add(What::FromFuture, warning, Some(storage), None, message);
        }
    }
}

/// A moment for people.
fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// A recorded failure in one line.
fn told(error: &Told) -> String {
    let mut text = error.message.clone();
    for cause in &error.causes {
        text.push_str(": ");
        text.push_str(cause);
    }
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests;
