//! What `/healthz` and `/api/status` say, made of the board and the last picture.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::daemon::agenda::JobId;
use crate::daemon::board::{JobSeen, Seen, Trouble};
use crate::health::{DatabaseDocument, Picture, Reason, Severity, StatusDocument, What, judge};
use crate::runs::Task;
use crate::runs::ledger::Attempt;
use crate::setup;

/// A picture that is older than this is not trusted any more: it is taken every few minutes.
const STALE: SignedDuration = SignedDuration::from_mins(30);

/// The document of `/healthz`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Health {
    /// Whether the answer is 200.
    pub(super) healthy: bool,
    time: Timestamp,
    reasons: Vec<Reason>,
    /// What is wrong with the daemon itself.
    troubles: Vec<TroubleSeen>,
}

#[derive(Clone, Debug, Serialize)]
struct TroubleSeen {
    trouble: &'static str,
    severity: Severity,
    message: String,
    since: Option<Timestamp>,
}

/// The document of `/api/status`. Times are UTC, sizes in bytes.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Status {
    tool: &'static str,
    host: String,
    started_at: Timestamp,
    configured_at: Timestamp,
    #[serde(flatten)]
    health: Health,
    jobs: Vec<JobDocument>,
    databases: Vec<DatabaseDocument>,
}

#[derive(Clone, Debug, Serialize)]
struct JobDocument {
    database: String,
    task: &'static str,
    schedule: Option<String>,
    /// When it begins next, jitter counted.
    next: Option<Timestamp>,
    /// Whether that is a failed run tried again.
    again: bool,
    running: Option<RunningDocument>,
    last: Option<Attempt>,
    succeeded_at: Option<Timestamp>,
    failing_since: Option<Timestamp>,
    /// Runs since the daemon was started.
    succeeded: u64,
    failed: u64,
}

#[derive(Clone, Debug, Serialize)]
struct RunningDocument {
    since: Timestamp,
    waiting: bool,
    bytes: u64,
    keys: u64,
}

impl JobDocument {
    fn new(id: &JobId, job: &JobSeen) -> JobDocument {
        let running = job.running.as_ref().map(|running| {
            let reading = running.meter.read();
            RunningDocument {
                since: running.since,
                waiting: running.waiting,
                bytes: reading.bytes,
                keys: reading.keys,
            }
        });
        JobDocument {
            database: id.database.clone(),
            task: id.task.as_str(),
            schedule: job.schedule.clone(),
            next: job.next,
            again: job.again,
            running,
            last: job.record.attempt.clone(),
            succeeded_at: job.record.succeeded_at,
            failing_since: job.record.failing_since,
            succeeded: job.counts.succeeded,
            failed: job.counts.failed,
        }
    }
}

/// The picture with what the board knows better: how the last runs ended.
pub(super) fn up_to_date(picture: &Picture, seen: &Seen) -> Picture {
    let mut picture = picture.clone();
    let configured = |name: &str| seen.config.database(name).is_ok();
    picture.databases.retain(|state| configured(&state.name));
    for state in &mut picture.databases {
        for task in Task::ALL {
            let id = JobId {
                database: state.name.clone(),
                task,
            };
            if let Some(job) = seen.jobs.get(&id)
                && job.record.attempt.is_some()
            {
                state.records.insert(task, job.record.clone());
            }
        }
    }
    picture
}

impl Health {
    pub(super) fn of(seen: &Seen, picture: Option<&Picture>, now: Timestamp) -> Health {
        let reasons = match picture {
            Some(picture) => {
                let mut reasons = judge(&up_to_date(picture, seen), now);
                reasons.extend(not_looked_at(seen, picture));
                reasons
            }
            None => Vec::new(),
        };
        let mut troubles: Vec<TroubleSeen> = seen
            .troubles
            .iter()
            .map(|(trouble, told)| TroubleSeen {
                trouble: trouble.as_str(),
                severity: severity(*trouble),
                message: told.text.clone(),
                since: Some(told.since),
            })
            .collect();
        troubles.extend(unseen(picture, now));
        let bad = |severity: Severity| severity == Severity::Unhealthy;
        Health {
            healthy: !reasons.iter().any(|reason| bad(reason.severity))
                && !troubles.iter().any(|trouble| bad(trouble.severity)),
            time: now,
            reasons,
            troubles,
        }
    }
}

/// Unhealthy is what means that backups that somebody counts on will not be made: without a scheduler, without
/// anything that is scheduled, and while what a person wrote into the configuration does not hold. The rest does not
/// keep one from being made.
fn severity(trouble: Trouble) -> Severity {
    match trouble {
        Trouble::Scheduler | Trouble::Reload | Trouble::Idle => Severity::Unhealthy,
        Trouble::State | Trouble::Pruning | Trouble::Restart => Severity::Warning,
    }
}

/// What is configured and is not in the picture, which is older than the configuration: not known is not healthy.
fn not_looked_at(seen: &Seen, picture: &Picture) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for database in &seen.config.databases {
        let name = database.name.as_str();
        let state = picture.databases.iter().find(|state| state.name == name);
        let storages = state.map_or(&[][..], |state| &state.storages);
        for storage in &database.storage {
            if storages.iter().any(|s| s.name == storage.as_str()) {
                continue;
            }
            reasons.push(Reason {
                database: name.to_owned(),
                storage: Some(storage.to_string()),
                what: What::NotLookedAt,
                severity: match database.schedule {
                    Some(_) => Severity::Unhealthy,
                    None => Severity::Warning,
                },
                message: format!(
                    "storage {storage} has not been looked at yet for backups of {name}"
                ),
                since: Some(seen.configured_at),
            });
        }
    }
    reasons
}

/// What is not known is not healthy.
fn unseen(picture: Option<&Picture>, now: Timestamp) -> Option<TroubleSeen> {
    let (message, since) = match picture {
        None => ("the storages have not been looked at yet", None),
        Some(picture) if now.duration_since(picture.taken_at) > STALE => (
            "the storages have not been looked at for long",
            Some(picture.taken_at),
        ),
        Some(_) => return None,
    };
    Some(TroubleSeen {
        trouble: "storages",
        severity: Severity::Unhealthy,
        message: message.to_owned(),
        since,
    })
}

impl Status {
    pub(super) fn of(seen: &Seen, picture: Option<&Picture>, now: Timestamp) -> Status {
        let health = Health::of(seen, picture, now);
        let databases = picture.map(|picture| {
            let picture = up_to_date(picture, seen);
            StatusDocument::new(&picture, health.reasons.clone(), now).databases
        });
        Status {
            tool: concat!("rdbkeeper ", env!("CARGO_PKG_VERSION")),
            host: setup::host_name(),
            started_at: seen.started_at,
            configured_at: seen.configured_at,
            jobs: seen
                .jobs
                .iter()
                .map(|(id, job)| JobDocument::new(id, job))
                .collect(),
            databases: databases.unwrap_or_default(),
            health,
        }
    }
}

#[cfg(test)]
mod tests;
