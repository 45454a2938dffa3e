//! How the last runs ended, in the state folder: `runs/<database>.<task>.json`.
//!
//! Losing it loses nothing but what was told and when: which backups there are is known from the stores.
//! A record that cannot be read counts as absent.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Task;
use crate::failure::Failure;
use crate::storage::private;

/// Records that could not be written, by their files: a state folder that cannot be written to must not make every run
/// look like the first, and its failure be told each time.
static UNWRITTEN: Mutex<BTreeMap<PathBuf, Record>> = Mutex::new(BTreeMap::new());

fn unwritten() -> MutexGuard<'static, BTreeMap<PathBuf, Record>> {
    UNWRITTEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The records of all databases of this host.
#[derive(Clone, Debug)]
pub struct Ledger {
    folder: PathBuf,
}

/// What is known of the runs of one task for one database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The last run that was not stopped from outside.
    pub attempt: Option<Attempt>,
    /// When the last run that succeeded ended; of verifications, one that read everything back.
    pub succeeded_at: Option<Timestamp>,
    /// When the first run ended of those that have failed since. `None`: the last one succeeded.
    pub failing_since: Option<Timestamp>,
    /// What was told of the runs that have failed since: the kind of failure, and when the run was begun that it was
    /// last told of.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub told: BTreeMap<String, Timestamp>,
    /// Whether the last backup that was made is shrunk.
    #[serde(default)]
    pub shrunk: bool,
    /// That old backups could not be removed after a backup, and since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prune_failed: Option<PruneFailed>,
    /// When the backup was begun with which that was told last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shrink_told: Option<Timestamp>,
}

/// Old backups were not removed, although a policy says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneFailed {
    /// When it failed first.
    pub since: Timestamp,
    /// Why it failed last, in one line.
    pub message: String,
}

/// How a run went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it was begun.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Told>,
    /// Whether it is no run: one was due, and none came to its end for so long that this is told as a failure.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overdue: bool,
    /// Whether it is a verification without the key to all of it: only what is stored was compared.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stored_only: bool,
}

/// A failure as it is recorded: without a hint, which is for the moment, and without what a program printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// [`Kind::as_str`](crate::failure::Kind::as_str).
    pub kind: String,
    /// What failed, on what.
    pub message: String,
    /// Why, outermost first.
    #[serde(default)]
    pub causes: Vec<String>,
}

impl Told {
    /// What is recorded of a failure.
    pub fn of(failure: &Failure) -> Told {
        Told {
            kind: failure.kind.as_str().to_owned(),
            message: failure.message.clone(),
            causes: failure.causes.clone(),
        }
    }
}

impl Attempt {
    /// A run that ended.
    pub fn new(
        started_at: Timestamp,
        finished_at: Timestamp,
        failure: Option<&Failure>,
    ) -> Attempt {
        Attempt {
            started_at,
            finished_at,
            error: failure.map(Told::of),
            overdue: false,
            stored_only: false,
        }
    }

    /// That at this moment a run is overdue.
    pub fn overdue(now: Timestamp, failure: &Failure) -> Attempt {
        Attempt {
            overdue: true,
            ..Attempt::new(now, now, Some(failure))
        }
    }
}

impl Record {
    /// The record after another run.
    #[must_use]
    pub fn after(self, attempt: Attempt) -> Record {
        let failed = attempt.error.is_some();
        Record {
            succeeded_at: match failed || attempt.stored_only {
                true => self.succeeded_at,
                false => Some(attempt.finished_at),
            },
            failing_since: match failed {
                true => self.failing_since.or(Some(attempt.finished_at)),
                false => None,
            },
            told: match failed {
                true => self.told,
                false => BTreeMap::new(),
            },
            shrunk: self.shrunk,
            prune_failed: self.prune_failed,
            shrink_told: self.shrink_told,
            attempt: Some(attempt),
        }
    }
}

impl Record {
    /// The record after old backups were removed, or could not be.
    #[must_use]
    pub fn after_prune(mut self, failed: Option<String>, now: Timestamp) -> Record {
        let since = self.prune_failed.map_or(now, |before| before.since);
        self.prune_failed = failed.map(|message| PruneFailed { since, message });
        self
    }
}

impl Ledger {
    /// The records below a state folder.
    pub fn new(state_dir: &Path) -> Ledger {
        Ledger {
            folder: state_dir.join("runs"),
        }
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, database: &str, task: Task) -> PathBuf {
        self.folder.join(format!("{database}.{task}.json"))
    }

    /// What is recorded; nothing where there is no record, or none that can be read.
    pub fn read(&self, database: &str, task: Task) -> Record {
        let path = self.path(database, task);
        if let Some(record) = unwritten().get(&path) {
            return record.clone();
        }
        let read = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Record::default()),
            Err(error) => Err(error),
        };
        read.unwrap_or_else(|error| {
            tracing::warn!(
                "what is recorded in {} cannot be read, and counts as absent: {error}",
                path.display()
            );
            Record::default()
        })
    }

    /// Records, in the place of what was there. What cannot be written is remembered as long as the process lives.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, database: &str, task: Task, record: &Record) -> io::Result<()> {
        let path = self.path(database, task);
        let written = self.replace(&path, record);
        match &written {
            Ok(()) => unwritten().remove(&path),
            Err(_) => unwritten().insert(path, record.clone()),
        };
        written
    }

    fn replace(&self, path: &Path, record: &Record) -> io::Result<()> {
        private::make_folders(&self.folder)?;
        let mut file = private::TemporaryFile::create(path)?;
        let mut bytes = serde_json::to_vec_pretty(record)?;
        bytes.push(b'\n');
        file.file().write_all(&bytes)?;
        file.replace()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::failure::Kind;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_record_remembers_since_when_runs_fail_and_when_one_succeeded() {
        let failure = Failure::new(Kind::Unreachable, "cannot back up sessions").cause("refused");
        let ok = |second| Attempt::new(at(second), at(second + 1), None);
        let bad = |second| Attempt::new(at(second), at(second + 1), Some(&failure));
        let record = Record::default()
            .after(ok(10))
            .after(bad(20))
            .after(bad(30));
        assert_eq!(record.succeeded_at, Some(at(11)));
        assert_eq!(record.failing_since, Some(at(21)));
        let record = record.after(ok(40));
        assert_eq!(
            (record.succeeded_at, record.failing_since),
            (Some(at(41)), None)
        );
    }

    #[test]
    fn a_verification_without_the_key_is_no_success_and_no_failure() {
        let stored = Attempt {
            stored_only: true,
            ..Attempt::new(at(20), at(21), None)
        };
        let whole = Attempt::new(at(10), at(11), None);
        let record = Record::default().after(whole).after(stored.clone());
        assert_eq!(record.succeeded_at, Some(at(11)));
        assert_eq!(record.failing_since, None);
        assert!(
            serde_json::to_string(&stored)
                .unwrap()
                .contains("\"stored_only\":true")
        );
    }

    #[test]
    fn that_old_backups_stay_is_remembered_since_when_until_they_go() {
        let failed = |message: &str| Some(message.to_owned());
        let record = Record::default()
            .after_prune(failed("denied"), at(10))
            .after(Attempt::new(at(20), at(21), None))
            .after_prune(failed("full"), at(22));
        let expected = PruneFailed {
            since: at(10),
            message: "full".to_owned(),
        };
        assert_eq!(record.prune_failed, Some(expected));
        assert_eq!(record.after_prune(None, at(30)).prune_failed, None);
    }

    #[test]
    fn what_a_program_printed_is_not_recorded() {
        let mut failure = Failure::new(Kind::Failed, "the hook `sh` ended with exit code 3");
        failure.said = vec!["TOKEN=abc".to_owned()];
        let failure = failure.context("cannot back up web");
        assert!(failure.causes_and_said().concat().contains("TOKEN=abc"));
        let attempt = Attempt::new(at(1), at(2), Some(&failure));
        let recorded = serde_json::to_string(&attempt).unwrap();
        assert!(recorded.contains("exit code 3"), "{recorded}");
        assert!(!recorded.contains("TOKEN"), "{recorded}");
    }

    #[test]
    fn what_cannot_be_written_is_remembered_until_it_can() {
        let state = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(&state.path().join("state"));
        std::fs::write(state.path().join("state"), b"in the way").unwrap();
        let record = Record::default().after(Attempt::new(at(1), at(2), None));
        assert!(ledger.write("web", Task::Backup, &record).is_err());
        assert_eq!(ledger.read("web", Task::Backup), record);
        std::fs::remove_file(state.path().join("state")).unwrap();
        let record = record.after(Attempt::new(at(3), at(4), None));
        ledger.write("web", Task::Backup, &record).unwrap();
        assert_eq!(ledger.read("web", Task::Backup), record);
    }

    #[test]
    fn records_are_read_as_they_were_written_and_broken_ones_count_as_absent() {
        let state = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(state.path());
        assert_eq!(ledger.read("sessions", Task::Backup), Record::default());
        let record = Record::default().after(Attempt::new(at(1), at(2), None));
        ledger.write("sessions", Task::Backup, &record).unwrap();
        ledger.write("sessions", Task::Backup, &record).unwrap();
        assert_eq!(ledger.read("sessions", Task::Backup), record);
        assert_eq!(ledger.read("sessions", Task::Verify), Record::default());
        std::fs::write(ledger.path("sessions", Task::Backup), b"{\"att").unwrap();
        assert_eq!(ledger.read("sessions", Task::Backup), Record::default());
    }
}
