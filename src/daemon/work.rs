//! One piece of work, from its place to its outcome. It runs as a task of its own: a panic in it ends that task.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::agenda::{Ended, JobId, Why};
use super::places::Place;
use crate::backup::{self, Job};
use crate::config::Config;
use crate::failure::{Failure, Kind};
use crate::meter::Meter;
use crate::prune::Gate;
use crate::runs::teller::Teller;
use crate::runs::{Keeper, Task};
use crate::sessions::tally::RuleCounts;
use crate::stage;
use crate::units::HumanDuration;

/// For what is done around a dump: the hooks before it, looking at the storages.
const AROUND: Duration = Duration::from_secs(3600);

/// The same, for each database that shares the dump: its manifest goes to each of its storages.
const AROUND_EACH: Duration = Duration::from_secs(15 * 60);

/// What is to be done, for one database or for several that share a dump.
#[derive(Debug)]
pub(super) struct Piece {
    /// The jobs that it is, and why; at least one, all of one task.
    pub(super) ids: Vec<(JobId, Why)>,
    /// The jobs of a dump; none for the other tasks.
    pub(super) group: Vec<Job>,
    /// The server that is dumped.
    pub(super) server: Option<String>,
    /// As it was configured when it was due.
    pub(super) config: Arc<Config>,
    /// Whether what that configuration says may still be removed.
    pub(super) gate: Gate,
    /// How far it is.
    pub(super) meter: Meter,
    /// Who tells of it.
    pub(super) teller: Teller,
}

/// A piece that is being done.
#[derive(Debug)]
pub(super) struct AtWork {
    /// The jobs that it is.
    pub(super) ids: Vec<JobId>,
    /// To be given back.
    pub(super) place: Place,
    /// Since when.
    pub(super) since: Timestamp,
    /// As it was configured.
    pub(super) config: Arc<Config>,
}

/// How a run for one job ended.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Which.
    pub(super) id: JobId,
    /// What came of it.
    pub(super) result: Result<Facts, Failure>,
    /// Whether a storage has what it made, although it failed.
    pub(super) kept: bool,
    /// What a sweep over sessions counted, also when it failed on the way.
    pub(super) counts: Option<Vec<RuleCounts>>,
}

/// What is logged of a run that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Facts {
    /// A backup was made.
    BackedUp {
        id: String,
        keys: u64,
        bytes: u64,
        storages: Vec<String>,
        shrunk: bool,
        warnings: Vec<String>,
    },
    /// Backups were read back whole.
    Verified {
        ids: Vec<String>,
        /// `None` where an encrypted one was not opened, for want of a key.
        keys: Option<u64>,
    },
    /// Sessions were expired.
    Swept { scanned: u64, done: u64 },
}

impl Outcome {
    /// What it means for the agenda.
    pub(super) fn ended(&self) -> Ended {
        match &self.result {
            Ok(_) => Ended::Well,
            Err(_) if self.kept => Ended::Kept,
            Err(failure) => match failure.kind {
                Kind::Interrupted | Kind::Terminated => Ended::Stopped,
                kind => Ended::Failed(kind),
            },
        }
    }
}

/// Does it.
pub(super) async fn run(piece: Piece, cancel: CancellationToken) -> Vec<Outcome> {
    stage::reached("daemon-run");
    let config = piece.config;
    // Whatever happens to this piece, the others go on.
    let stop = cancel.child_token();
    let keeper = Keeper::new(&config, stop.clone())
        .with_meter(piece.meter)
        .with_gate(piece.gate)
        .telling_by(piece.teller);
    let mut outcomes = Vec::new();
    let started_at = Timestamp::now();
    if !piece.group.is_empty() {
        let limit = longest(&piece.group);
        match tokio::time::timeout(limit, keeper.dump_group(piece.group)).await {
            Ok(mut settled) => {
                // Hooks and pruning have limits of their own. The backups stand, whatever becomes of these.
                let rest = AssertUnwindSafe(keeper.wind_up(&mut settled)).catch_unwind();
                if rest.await.is_err() {
                    tracing::error!(
                        "what follows a backup panicked: this is a mistake in rdbkeeper; the backup stands"
                    );
                }
                outcomes.extend(settled.outcomes.into_iter().map(of_backup));
            }
            Err(_) => {
                stop.cancel();
                for (id, _) in piece.ids {
                    let failure = given_up(&id, limit);
                    if !keeper.has_settled(&id.database)
                        && let Ok(database) = config.database(&id.database)
                    {
                        keeper.record_failure(database, id.task, started_at, &failure);
                        failure_hooks(&config, &cancel, &id, &failure);
                    }
                    outcomes.push(Outcome {
                        id,
                        result: Err(failure),
                        kept: false,
                        counts: None,
                    });
                }
            }
        }
        return outcomes;
    }
    for (id, _) in piece.ids {
        let Ok(database) = config.database(&id.database) else {
            continue;
        };
        outcomes.push(match id.task {
            // Those whose configuration makes no job have been told when they were planned.
            Task::Backup => continue,
            Task::Verify => {
                let verified =
                    tokio::time::timeout(database.timeout, keeper.verify(database)).await;
                let result = match verified {
                    Ok(verified) => verified.map(|verified| Facts::Verified {
                        keys: verified
                            .iter()
                            .all(|verified| verified.content.is_some())
                            .then(|| {
                                let contents = verified.iter().filter_map(|v| v.content.as_ref());
                                contents.map(|content| content.rdb.keys).sum()
                            }),
                        ids: verified.into_iter().filter_map(|v| v.id).collect(),
                    }),
                    Err(_) => {
                        let took = HumanDuration(database.timeout);
                        let failure = Failure::new(
                            Kind::Timeout,
                            format!("cannot verify {}: it took longer than {took}", id.database),
                        )
                        .hint("raise the database's `timeout`");
                        keeper.record_failure(database, id.task, started_at, &failure);
                        Err(failure)
                    }
                };
                Outcome {
                    id,
                    result,
                    kept: false,
                    counts: None,
                }
            }
            Task::Sessions => {
                let (tally, swept) = keeper.expire(database, Some(database.timeout)).await;
                let facts = Facts::Swept {
                    scanned: tally.scanned(),
                    done: tally.done(),
                };
                Outcome {
                    result: swept.map(|_| facts),
                    kept: false,
                    counts: Some(tally.counts()),
                    id,
                }
            }
        });
    }
    outcomes
}

/// How long backups may take with all that is done before them: its own `timeout` bounds the dump alone. A storage
/// that never answers must not hold a place for ever.
fn longest(group: &[Job]) -> Duration {
    let timeout = group.iter().map(|job| job.timeout).max();
    let databases = u32::try_from(group.len()).unwrap_or(u32::MAX);
    timeout
        .unwrap_or_default()
        .saturating_mul(2)
        .saturating_add(AROUND)
        .saturating_add(AROUND_EACH.saturating_mul(databases))
}

/// Runs the failure hooks of a backup that did not come to run them itself. They may take their time: not the
/// loop's, and no place's.
pub(super) fn failure_hooks(
    config: &Arc<Config>,
    cancel: &CancellationToken,
    id: &JobId,
    failure: &Failure,
) {
    if id.task != Task::Backup {
        return;
    }
    let (config, cancel) = (Arc::clone(config), cancel.clone());
    let (name, failure) = (id.database.clone(), failure.clone());
    tokio::spawn(async move {
        let keeper = Keeper::new(&config, cancel);
        keeper.failure_hooks(&name, &failure).await;
    });
}

fn given_up(id: &JobId, limit: Duration) -> Failure {
    let message = format!("the {id} was given up after {}", HumanDuration(limit));
    Failure::new(Kind::Timeout, message).cause("a storage or something around the backup hangs")
}

/// The outcome of a backup.
pub(super) fn of_backup(outcome: backup::Outcome) -> Outcome {
    Outcome {
        id: JobId {
            database: outcome.name,
            task: Task::Backup,
        },
        kept: !outcome.kept_in.is_empty(),
        result: outcome.result.map(|made| Facts::BackedUp {
            id: made.manifest.id.to_string(),
            keys: made.manifest.rdb.keys,
            bytes: made.manifest.data.bytes,
            storages: made.storages,
            shrunk: made.shrunk,
            warnings: made.warnings,
        }),
        counts: None,
    }
}

/// The failure of a job that panicked.
pub(super) fn panicked(id: &JobId) -> Failure {
    Failure::new(Kind::Failed, format!("the {id} panicked"))
        .cause("this is a mistake in rdbkeeper")
        .hint("the log has the place; please report it")
}

/// Logs that a run begins.
pub(super) fn log_begin(id: &JobId, why: Why) {
    let (database, task) = (id.database.as_str(), id.task.as_str());
    let why = why.as_str();
    tracing::info!(database, task, why, "{task} begins");
}

/// Logs how a run ended. A failure like the one before is told in a word.
pub(super) fn log_end(outcome: &Outcome, seconds: f64, like_before: bool) {
    let (database, task) = (outcome.id.database.as_str(), outcome.id.task.as_str());
    match &outcome.result {
        Ok(Facts::BackedUp {
            id,
            keys,
            bytes,
            storages,
            shrunk,
            warnings,
        }) => {
            let storages = storages.join(", ");
            tracing::info!(
                database,
                task,
                id,
                keys,
                bytes,
                seconds,
                storages,
                "backed up"
            );
            for warning in warnings {
                tracing::warn!(database, task, id, "{warning}");
            }
            if *shrunk {
                tracing::warn!(
                    database,
                    task,
                    id,
                    keys,
                    "the backup has far fewer keys than the one before: nothing is removed until one has not, or `rdbkeeper backup accept` says that it is right"
                );
            }
        }
        Ok(Facts::Verified { ids, keys }) => {
            let id = ids.join(", ");
            match keys {
                Some(keys) => {
                    tracing::info!(database, task, id, keys, seconds, "verified: it is whole");
                }
                None => tracing::info!(
                    database,
                    task,
                    id,
                    seconds,
                    "verified without the key: the stored bytes are as they were written"
                ),
            }
        }
        Ok(Facts::Swept { scanned, done }) => {
            tracing::info!(database, task, scanned, done, seconds, "sessions expired");
        }
        Err(failure) => log_failure(&outcome.id, failure, seconds, like_before),
    }
}

fn log_failure(id: &JobId, failure: &Failure, seconds: f64, like_before: bool) {
    let (database, task) = (id.database.as_str(), id.task.as_str());
    let kind = failure.kind.as_str();
    let mut text = vec![failure.message.clone()];
    text.extend(failure.causes_and_said());
    let text = text.join(": ");
    match failure.kind {
        Kind::Interrupted | Kind::Terminated => {
            tracing::info!(database, task, seconds, "{text}");
        }
        Kind::Busy | Kind::NotFound => tracing::warn!(database, task, kind, "{text}"),
        _ if like_before => {
            tracing::info!(database, task, kind, seconds, "it fails as before");
        }
        _ => {
            let hint = failure.hint.as_deref().unwrap_or_default();
            tracing::error!(database, task, kind, seconds, hint, "{text}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_that_some_storage_has_is_not_one_to_try_again() {
        let outcome = |kept_in: &[&str]| {
            of_backup(backup::Outcome {
                name: "web".to_owned(),
                result: Err(Failure::new(Kind::Storage, "there is no room")),
                kept_in: kept_in.iter().map(ToString::to_string).collect(),
            })
        };
        assert_eq!(outcome(&["disk"]).ended(), Ended::Kept);
        assert_eq!(outcome(&[]).ended(), Ended::Failed(Kind::Storage));
    }
}
