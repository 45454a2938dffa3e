//! Backups that are late, told as failures.
//!
//! A run that fails is recorded and told by itself. One that never ends, finds another process at it each time, or waits
//! for a place for ever leaves nothing to tell: it is seen from the backups that are there. The traps: a picture that is
//! older than the last success must not call it late, and a daemon that was just started has not had its chance yet.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::Daemon;
use crate::daemon::agenda::JobId;
use crate::daemon::picture::EVERY;
use crate::failure::{Failure, Kind};
use crate::health::{DatabaseState, Reason, What, judge};
use crate::runs::ledger::Record;
use crate::runs::settle::REMINDER;
use crate::runs::{Keeper, Task};

/// What was done within two rounds of looks at the storages may be missing in the picture.
const JUST_NOW: SignedDuration = SignedDuration::from_secs(2 * EVERY.as_secs() as i64);

impl Daemon {
    /// Looks through a new picture, and records which backups are late.
    pub(super) fn tell_late(&mut self, now: Timestamp) {
        let Some(picture) = self.gallery.last() else {
            return;
        };
        if self.looked_through.replace(picture.taken_at) == Some(picture.taken_at) {
            return;
        }
        let reasons = judge(&picture, now);
        for state in &picture.databases {
            let id = JobId {
                database: state.name.clone(),
                task: Task::Backup,
            };
            let (Some(since), Ok(database)) =
                (self.agenda.since(&id), self.config.database(&state.name))
            else {
                continue;
            };
            // One that is at work ends with an outcome: its time is limited.
            let seen = self.board.read();
            let running = seen.jobs.get(&id).and_then(|job| job.running.as_ref());
            if running.is_some_and(|running| !running.waiting) {
                continue;
            }
            let record = self.ledger.read(&id.database, id.task);
            let Some(failure) = overdue(state, &reasons, &picture.zone, &record, since, now) else {
                continue;
            };
            let causes = failure.causes.join(": ");
            tracing::error!(database = id.database, "{failure}: {causes}");
            Keeper::new(&self.config, self.cancel.clone())
                .telling_by(self.teller.clone())
                .record_overdue(database, now, &failure);
            let record = self.ledger.read(&id.database, id.task);
            self.board.change(|seen| {
                if let Some(job) = seen.jobs.get_mut(&id) {
                    job.record = record;
                }
            });
        }
    }
}

/// Whether it is to be recorded that a backup is late. `since`: when its job was taken up as it is.
fn overdue(
    state: &DatabaseState,
    reasons: &[Reason],
    zone: &TimeZone,
    record: &Record,
    since: Timestamp,
    now: Timestamp,
) -> Option<Failure> {
    let allowed = SignedDuration::try_from(state.jitter + state.timeout).ok()?;
    let is_over = |due: Timestamp| {
        let deadline = due.max(since).checked_add(allowed);
        deadline.is_ok_and(|deadline| now > deadline)
    };
    let is_late = |reason: &&Reason| {
        let due = match reason.what {
            What::Late => reason.since,
            What::NeverBackedUp => state.next(Task::Backup, since, zone),
            _ => None,
        };
        reason.database == state.name && due.is_some_and(is_over)
    };
    let late = reasons.iter().find(is_late)?;
    let mut failure = Failure::new(
        Kind::Failed,
        format!("the backup of {} is late", state.name),
    )
    .cause(late.message.clone());
    let is_a_day_ago = |at: Timestamp| now.duration_since(at).abs() >= REMINDER;
    let told = match &record.attempt {
        Some(last) if record.failing_since.is_some() => {
            if let Some(error) = last.error.as_ref().filter(|_| !last.overdue) {
                failure = failure.cause(format!("the last run failed: {}", error.message));
                failure.causes.extend(error.causes.iter().cloned());
            }
            // A run that fails is told by itself; only when none has come since there is something to add.
            let next = state.next(Task::Backup, last.started_at, zone);
            let none_came = last.overdue || next.is_some_and(is_over);
            !(none_came && is_a_day_ago(last.started_at))
        }
        // The picture may have been taken before this success.
        _ => record
            .succeeded_at
            .is_some_and(|at| now.duration_since(at).abs() < JUST_NOW),
    };
    (!told).then_some(failure)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::health::{Brief, Held, Picture, StorageState};
    use crate::runs::ledger::Attempt;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-{text}Z").parse().unwrap()
    }

    /// Backed up at two in the night, which may take an hour; the newest backup was begun then.
    fn state(newest: Option<&str>) -> DatabaseState {
        let brief = |began| Brief {
            id: "id".to_owned(),
            started_at: at(began),
            snapshot_at: at(began),
            finished_at: at(began),
            keys: 1,
            bytes: 1,
            plain_bytes: 1,
            method: "scan".to_owned(),
            shrunk: false,
        };
        DatabaseState {
            name: "web".to_owned(),
            schedules: BTreeMap::from([(Task::Backup, "0 2 * * *".parse().unwrap())]),
            jitter: Duration::ZERO,
            timeout: Duration::from_secs(3600),
            storages: vec![StorageState {
                name: "disk".to_owned(),
                held: Ok(Held {
                    newest: newest.map(brief),
                    ..Held::default()
                }),
            }],
            records: BTreeMap::new(),
        }
    }

    fn causes(
        newest: Option<&str>,
        record: &Record,
        since: &str,
        now: &str,
    ) -> Option<Vec<String>> {
        let state = state(newest);
        let picture = Picture {
            taken_at: at(now),
            zone: TimeZone::UTC,
            databases: vec![state.clone()],
        };
        let reasons = judge(&picture, at(now));
        let zone = TimeZone::UTC;
        let failure = overdue(&state, &reasons, &zone, record, at(since), at(now))?;
        assert_eq!(failure.message, "the backup of web is late");
        Some(failure.causes)
    }

    #[test]
    fn a_backup_that_stays_away_is_told_when_it_had_its_chance() {
        let newest = Some("20T02:00:01");
        let none = Record::default();
        for (newest, since, now, expected) in [
            (newest, "19T00:00:00", "21T02:59:00", false),
            (newest, "19T00:00:00", "21T03:00:01", true),
            // The daemon was started after it had been due.
            (newest, "23T12:00:00", "23T12:00:10", false),
            (newest, "23T12:00:00", "23T13:00:01", true),
            // There never was one.
            (None, "20T12:00:00", "21T02:59:00", false),
            (None, "20T12:00:00", "21T03:00:01", true),
        ] {
            let told = causes(newest, &none, since, now).is_some();
            assert_eq!(told, expected, "{newest:?} {since} {now}");
        }
    }

    #[test]
    fn it_is_told_once_then_daily_and_not_beside_the_failures_of_its_runs() {
        let newest = Some("20T02:00:01");
        let told = |record: &Record, now| causes(newest, record, "19T00:00:00", now).is_some();
        let late = Failure::new(Kind::Failed, "the backup of web is late");
        let record = Record::default().after(Attempt::overdue(at("21T03:00:01"), &late));
        assert!(!told(&record, "21T03:05:00"));
        assert!(told(&record, "22T03:00:01"));
        // A run that failed, and is tried again or due again.
        let down = Failure::new(Kind::Unreachable, "cannot back up web").cause("refused");
        let failed = |at| Attempt::new(at, at, Some(&down));
        let record = Record::default().after(failed(at("21T02:00:01")));
        assert!(!told(&record, "21T12:00:00"));
        assert!(!told(&record, "22T02:00:00"));
        // No other came.
        assert_eq!(
            causes(newest, &record, "19T00:00:00", "22T03:00:01").unwrap()[1..],
            ["the last run failed: cannot back up web", "refused"]
        );
        // It has just succeeded, and the picture is older.
        let made = Attempt::new(at("21T05:00:00"), at("21T05:01:00"), None);
        let record = record.after(made);
        assert!(!told(&record, "21T05:01:10"));
        assert!(told(&record, "21T05:20:00"));
    }
}
