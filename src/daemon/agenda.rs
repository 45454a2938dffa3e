//! What is due, what is next, what was missed. Pure: now is an argument, and so is what is remembered.
//!
//! A job is a database and a task. A due time is *served* once a run for it was begun or it was consciously
//! passed over; everything up to `served` is done with. So several due times that were missed make one run, and
//! none is run twice, whatever the clock does: while `served` lies ahead of a clock that was set back (by up to
//! three hours) it stands; further ahead it was made by a wrong clock, and is put back to now.
//!
//! A run that was begun and did not end well (it failed for a reason that may pass, or the process was killed)
//! stays *open*, and is tried again: after a minute, then 2, 4, 8, 16, then every 30 minutes, as long as that is
//! before the next due time. A backup that at least one storage has is not.
//!
//! The trap: state may be lost, and the store may be silent. Without state the newest backup says what was
//! served; until the stores have answered ([`Agenda::learn`]) a backup is not judged.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::cron::Cron;
use crate::failure::Kind;
use crate::runs::Task;

/// How far `served`, and a backup, may lie ahead of a clock that was set back.
pub(super) const SET_BACK: SignedDuration = SignedDuration::from_hours(3);

/// After how many minutes a run is tried again, the first time, the second, …; the last holds for all that follow.
const AGAIN_AFTER: [i64; 6] = [1, 2, 4, 8, 16, 30];

/// Which job: a task for a database.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId {
    /// The database's name.
    pub database: String,
    /// The task.
    pub task: Task,
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.task, self.database)
    }
}

/// A job as it is configured.
#[derive(Clone, Debug, PartialEq)]
pub struct Scheduled {
    /// Which.
    pub id: JobId,
    /// When it is due.
    pub cron: Cron,
    /// How much later than due it may begin.
    pub jitter: Duration,
    /// Whether it is made up for at start when it was missed.
    pub catch_up: bool,
}

/// What is remembered of a job when the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// Every due time up to this one is served.
    pub served: Timestamp,
    /// How many runs for the last of them were begun without any of them ending well.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub open: u32,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// Why a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is due.
    Due,
    /// It was due while nobody was there, or there is no backup at all.
    Missed,
    /// The run before did not end well.
    Again,
}

impl Why {
    /// The word in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Why::Due => "due",
            Why::Missed => "missed",
            Why::Again => "again",
        }
    }
}

/// What there is to do, and to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// The jobs to begin now. They count as running.
    pub begin: Vec<(JobId, Why)>,
    /// Jobs whose due time was passed over because their own run is still going on; each once a run.
    pub passed_over: Vec<JobId>,
    /// Jobs whose served time lay too far ahead: the clock was wrong, then or now.
    pub set_back: Vec<JobId>,
}

/// What the stores say of a database's backups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// When the newest was begun that is in each of the storages that answered. `None`: there is none, or no storage
    /// answered.
    pub newest: Option<Timestamp>,
    /// Whether every one of its storages answered.
    pub all_answered: bool,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Well.
    Well,
    /// It failed.
    Failed(Kind),
    /// It failed, but what it made is kept somewhere: another try would make it there once more, at the cost of the
    /// history.
    Kept,
    /// It was stopped with the process.
    Stopped,
}

/// Whether a failure of this kind may pass by itself.
pub fn may_pass(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Unreachable
            | Kind::Unavailable
            | Kind::Storage
            | Kind::Timeout
            | Kind::Protocol
            | Kind::Busy
    )
}

/// The jobs, and what is known of them.
#[derive(Clone, Debug)]
pub struct Agenda {
    host: String,
    zone: TimeZone,
    jobs: BTreeMap<JobId, Job>,
}

#[derive(Clone, Debug)]
struct Job {
    cron: Cron,
    jitter: Duration,
    /// Every due time up to this one is served. `None`: not known before the stores have answered.
    served: Option<Timestamp>,
    /// Whether the stores are still to say what their newest backup is.
    asked: bool,
    /// Runs begun for `served` without any of them ending well.
    open: u32,
    /// When the open run is tried again.
    again: Option<Timestamp>,
    /// There never was a run: one is due at once.
    at_once: bool,
    /// When this process took the job up, with the times that it has: a due time before that was missed.
    since: Timestamp,
    running: Option<Run>,
    /// It is configured no more, but its run is still going on.
    retired: bool,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    passed_over: bool,
}

impl Agenda {
    /// One without jobs, for this host.
    pub fn new(host: impl Into<String>) -> Agenda {
        Agenda {
            host: host.into(),
            zone: TimeZone::UTC,
            jobs: BTreeMap::new(),
        }
    }

    /// Takes a configuration: the first, with what is `remembered`, or another in the place of the one before.
    /// Jobs that stay keep what is known of them. Of those backups that [`Agenda::unknown`] then names the stores
    /// must be asked.
    pub fn configure(
        &mut self,
        scheduled: Vec<Scheduled>,
        zone: TimeZone,
        remembered: &BTreeMap<JobId, Remembered>,
        now: Timestamp,
    ) {
        let mut before = std::mem::take(&mut self.jobs);
        let zone_changed = self.zone != zone;
        self.zone = zone;
        for Scheduled {
            id,
            cron,
            jitter,
            catch_up,
        } in scheduled
        {
            let job = match before.remove(&id) {
                Some(mut job) => {
                    let changed = job.cron != cron || zone_changed;
                    job.retired = false;
                    (job.cron, job.jitter) = (cron, jitter);
                    if changed {
                        job.since = now;
                    }
                    if changed && !job.at_once {
                        // What the new times would have been says nothing about the past.
                        let passed = job.last_begun(&self.host, &self.zone, now);
                        job.served = job
                            .served
                            .map(|served| passed.map_or(served, |p| p.max(served)));
                    }
                    job
                }
                None => {
                    let remembered = remembered.get(&id);
                    Job::new(cron, jitter, id.task, catch_up, remembered, now)
                        .settled(&self.host, &self.zone, catch_up, now)
                }
            };
            self.jobs.insert(id, job);
        }
        for (id, mut job) in before {
            if job.running.is_some() {
                job.retired = true;
                self.jobs.insert(id, job);
            }
        }
    }

    /// The databases of which the stores must say what their newest backup is.
    pub fn unknown(&self) -> Vec<String> {
        let asked = self.jobs.iter().filter(|(_, job)| job.asked);
        asked.map(|(id, _)| id.database.clone()).collect()
    }

    /// The stores have answered. Backups from the future do not count.
    pub fn learn(&mut self, database: &str, known: Known, now: Timestamp) {
        let id = JobId {
            database: database.to_owned(),
            task: Task::Backup,
        };
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.asked) else {
            return;
        };
        job.asked = false;
        let newest = known
            .newest
            .filter(|newest| newest.duration_since(now) <= SET_BACK);
        if let Some(newest) = newest {
            // A backup that was made since, by whomever, closes what was open; one that a silent storage may not have
            // does not.
            if job.served.is_none_or(|served| served <= newest) {
                job.served = Some(newest);
                if known.all_answered {
                    job.open = 0;
                    job.again = None;
                }
            }
        } else if job.served.is_none() {
            // In whole seconds, as due times are: the backup must not seem to be older than what it serves.
            job.served = Some(Timestamp::from_second(now.as_second()).unwrap_or(now));
            job.at_once = true;
        }
    }

    /// What is due now. What it names to begin counts as running and its due time as served from here on.
    pub fn due(&mut self, now: Timestamp) -> Due {
        let mut due = Due::default();
        for (id, job) in &mut self.jobs {
            if job.retired || job.asked {
                continue;
            }
            let Some(served) = job.served else {
                continue;
            };
            if served.duration_since(now) > SET_BACK {
                job.served = Some(now);
                due.set_back.push(id.clone());
                continue;
            }
            let passed = job.last_begun(&self.host, &self.zone, now);
            let fresh = passed.filter(|passed| *passed > served);
            if let Some(run) = &mut job.running {
                if let Some(passed) = fresh {
                    job.served = Some(passed);
                    if !std::mem::replace(&mut run.passed_over, true) {
                        due.passed_over.push(id.clone());
                    }
                }
                continue;
            }
            // A clock that was set back does not put a second try off.
            let longest = wait(job.open);
            if let Some(again) = &mut job.again {
                *again = (*again).min(later(now, longest));
            }
            let why = if let Some(passed) = fresh {
                job.served = Some(passed);
                job.open = 0;
                match passed < job.since {
                    true => Some(Why::Missed),
                    false => Some(Why::Due),
                }
            } else if job.at_once {
                Some(Why::Missed)
            } else if job.again.is_some_and(|again| again <= now) {
                Some(Why::Again)
            } else {
                None
            };
            if let Some(why) = why {
                job.at_once = false;
                job.again = None;
                job.open = job.open.saturating_add(1);
                job.running = Some(Run { passed_over: false });
                due.begin.push((id.clone(), why));
            }
        }
        due
    }

    /// A run has ended.
    pub fn ended(&mut self, id: &JobId, ended: Ended, now: Timestamp) {
        let Some(job) = self.jobs.get_mut(id) else {
            return;
        };
        job.running = None;
        if job.retired {
            self.jobs.remove(id);
            return;
        }
        match ended {
            Ended::Failed(kind) if may_pass(kind) => {
                let again = later(now, wait(job.open));
                let next = job.next_begin(&self.host, &self.zone, now);
                job.again = Some(again).filter(|again| next.is_none_or(|next| *again < next));
                if job.again.is_none() {
                    job.open = 0;
                }
            }
            Ended::Well | Ended::Failed(_) | Ended::Kept => job.open = 0,
            // It is made up for after the restart.
            Ended::Stopped => {}
        }
    }

    /// When each job begins next, after `now`; and whether that is a run that is tried again. `None`: never again,
    /// or not known yet.
    pub fn next(&self, now: Timestamp) -> BTreeMap<JobId, (Option<Timestamp>, bool)> {
        let jobs = self.jobs.iter().filter(|(_, job)| !job.retired);
        jobs.map(|(id, job)| {
            let due = job.next_begin(&self.host, &self.zone, now);
            let next = match (job.again, due) {
                (Some(again), due) if due.is_none_or(|due| again < due) => (Some(again), true),
                (_, due) => (due, false),
            };
            (id.clone(), next)
        })
        .collect()
    }

    /// Since when a job is scheduled in this process as it is now.
    pub fn since(&self, id: &JobId) -> Option<Timestamp> {
        let job = self.jobs.get(id).filter(|job| !job.retired);
        job.map(|job| job.since)
    }

    /// Whether anything is scheduled.
    pub fn is_empty(&self) -> bool {
        self.jobs.values().all(|job| job.retired)
    }

    /// What is to be remembered.
    pub fn remembered(&self) -> BTreeMap<JobId, Remembered> {
        let jobs = self.jobs.iter().filter(|(_, job)| !job.retired);
        jobs.filter_map(|(id, job)| {
            let served = job.served?;
            let open = job.open;
            Some((id.clone(), Remembered { served, open }))
        })
        .collect()
    }
}

impl Job {
    fn new(
        cron: Cron,
        jitter: Duration,
        task: Task,
        catch_up: bool,
        remembered: Option<&Remembered>,
        now: Timestamp,
    ) -> Job {
        let served = remembered.map(|remembered| remembered.served);
        // A clock that was far ahead when it was remembered is no reason to wait for it.
        let served = served.map(|served| match served.duration_since(now) > SET_BACK {
            true => now,
            false => served,
        });
        let open = remembered.map_or(0, |remembered| remembered.open);
        let backup = task == Task::Backup;
        Job {
            cron,
            jitter,
            served: match backup && catch_up {
                true => served,
                false => served.or(Some(now)),
            },
            asked: backup && catch_up,
            open,
            // The first time at once; a run that ends the process each time must not do so without a pause.
            again: match open {
                0 => None,
                1 => Some(now),
                _ => Some(later(now, wait(open - 1))),
            },
            at_once: false,
            since: now,
            running: None,
            retired: false,
        }
    }

    /// Without `catch_up` what was missed is passed over.
    fn settled(mut self, host: &str, zone: &TimeZone, catch_up: bool, now: Timestamp) -> Job {
        if !catch_up {
            let passed = self.last_begun(host, zone, now);
            self.served = self.served.max(passed);
            (self.open, self.again) = (0, None);
        }
        self
    }

    /// When a run for a due time begins: jitter later, the same for all databases of this host, and not later than
    /// the next due time, so that they keep their order.
    fn begin(&self, due: Timestamp, host: &str, zone: &TimeZone) -> Timestamp {
        if self.jitter.is_zero() {
            return due;
        }
        let late = later(due, part_of(self.jitter, host, due));
        match self.cron.next(due, zone) {
            Some(next) => late.min(next),
            None => late,
        }
    }

    /// The last due time whose run begins at `now` or has begun before.
    fn last_begun(&self, host: &str, zone: &TimeZone, now: Timestamp) -> Option<Timestamp> {
        let due = self.cron.last(now, zone)?;
        if self.begin(due, host, zone) <= now {
            return Some(due);
        }
        // The one before it begins by the time of this one at the latest.
        self.cron
            .last(due.checked_sub(SignedDuration::from_nanos(1)).ok()?, zone)
    }

    /// When the first run begins whose due time is not served, and that does not begin before `now`.
    fn next_begin(&self, host: &str, zone: &TimeZone, now: Timestamp) -> Option<Timestamp> {
        if self.asked {
            return None;
        }
        if self.at_once {
            return Some(now);
        }
        let served = self.served?;
        // The due time at or before now may be one whose jitter is not over.
        let pending = self.cron.last(now, zone).filter(|due| *due > served);
        let due = match pending {
            Some(due) => due,
            None => self.cron.next(served.max(now), zone)?,
        };
        Some(self.begin(due, host, zone).max(now))
    }
}

/// How long to wait before the next try, after so many.
fn wait(tries: u32) -> SignedDuration {
    let index = usize::try_from(tries.saturating_sub(1)).unwrap_or(usize::MAX);
    SignedDuration::from_mins(AGAIN_AFTER[index.min(AGAIN_AFTER.len() - 1)])
}

fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// A part of `jitter`, in whole milliseconds: always the same for this host and due time, and spread evenly over hosts.
fn part_of(jitter: Duration, host: &str, due: Timestamp) -> SignedDuration {
    let hash =
        xxhash_rust::xxh3::xxh3_64_with_seed(host.as_bytes(), due.as_second().cast_unsigned());
    let span = u128::from(u64::MAX) + 1;
    let millis = u128::from(hash) * (jitter.as_millis() + 1) / span;
    SignedDuration::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
