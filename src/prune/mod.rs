//! The prune journey: backups that no rule keeps go, with what unfinished ones have left.
//!
//! What goes is decided by [`retention`] from what a storage holds; nothing goes from a storage
//! that cannot be listed in full, and one storage's trouble does not keep the others from being pruned. It is
//! decided once without the lease, so that a storage with nothing to remove is not written to, and again with it.
//! The trap is all that can change between the decision and the deed: before each removal the lease is looked
//! at, the backup is looked at for a new pin, the newest good one must still be there, and the [`Gate`] open.

mod apply;
mod gate;
mod survey;

use std::pin::pin;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio_util::sync::CancellationToken;

use crate::catalog::BackupId;
use crate::catalog::debris::Amount;
use crate::config::{Keep, Policies};
use crate::failure::{Failure, Kind};
use crate::retention::{self, Guard, Reason};
use crate::storage::NamedStore;
use crate::units::HumanDuration;

pub use self::gate::{Closed, Gate};
use self::survey::Survey;

/// How long a removal that has begun may go on after the signal to stop. What it leaves is debris.
pub const GRACE: Duration = Duration::from_secs(2);

/// A database to prune: what its configuration says, resolved.
#[derive(Clone, Debug)]
pub struct Job {
    /// The configured name.
    pub name: String,
    /// Where.
    pub storages: Vec<NamedStore>,
    /// What stays, by storage.
    pub policies: Policies,
    /// The time zone of its periods.
    pub zone: TimeZone,
    /// Fewer keys than this times those of the last good backup are suspicious.
    pub shrink_guard: f64,
    /// Whether other hosts back up under this name, too: otherwise nothing goes where one did.
    pub shared: bool,
    /// How long a backup may take: what is unfinished for longer is debris.
    pub timeout: Duration,
    /// This host's name, for the lease.
    pub host: String,
    /// Stops it between two removals.
    pub cancel: CancellationToken,
    /// Keeps it from removing anything more while it is closed.
    pub gate: Gate,
}

/// Whether anything is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is only said what would be. Nothing is written, so ages of debris are by this host's clock.
    DryRun,
    /// It is done.
    Remove,
}

/// What became of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It stays.
    Kept,
    /// No rule keeps it, and it is there: in a dry run, or when pruning failed before it.
    Goes,
    /// It is gone.
    Removed,
}

/// A backup, and what was decided.
#[derive(Clone, Debug)]
pub struct Judged {
    /// Its ID.
    pub id: BackupId,
    /// When it was begun; of a damaged one the second in its ID.
    pub began: Timestamp,
    /// What its data takes; `None` where nothing can be said.
    pub bytes: Option<u64>,
    /// What became of it.
    pub state: State,
    /// Why it stays; none when it goes.
    pub reasons: Vec<Reason>,
}

/// What was decided and done in one storage.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The policy; `None`: no backup ever goes.
    pub policy: Option<Keep>,
    /// The newest backup, when it is shrunk and therefore nothing goes.
    pub guard: Option<BackupId>,
    /// Every backup, oldest first.
    pub backups: Vec<Judged>,
    /// The bytes of the backups that were removed, or would be.
    pub freed_bytes: u64,
    /// What of unfinished backups was removed, or would be.
    pub swept: Amount,
}

/// What became of one storage.
#[derive(Debug)]
pub struct Pruned {
    /// Its name.
    pub storage: String,
    /// How far it came; empty when the storage could not be listed.
    pub report: Report,
    /// Why it came no further.
    pub failure: Option<Failure>,
}

/// Prunes a database in each of its storages.
pub async fn prune(job: &Job, mode: Mode, now: Timestamp) -> Vec<Pruned> {
    let surveys = join_all(job.storages.iter().map(|storage| async {
        tokio::select! {
            survey = survey::survey(storage, job) => survey,
            () = job.cancel.cancelled() => Err(Failure::interrupted()),
        }
    }))
    .await;
    let guard = guard(surveys.iter().flatten(), now);
    let done = job.storages.iter().zip(surveys).map(async |(storage, survey)| {
        let mut report = Report::default();
        let result = match survey {
            Err(failure) => Err(failure),
            Ok(survey) => tokio::select! {
                result = apply::storage(job, storage, survey, guard.as_ref(), mode, now, &mut report) => result,
                () = out_of_grace(&job.cancel) => Err(Failure::interrupted()),
            },
        };
        let context = || format!("cannot prune {} in storage {}", job.name, storage.name);
        Pruned {
            storage: storage.name.clone(),
            report,
            failure: result.err().map(|failure| failure.context(context())),
        }
    });
    join_all(done).await
}

/// Prunes as [`prune`] does. What has not come to its end within `limit` is stopped as by `job.cancel`, so that it gives
/// its lease back, and has failed.
pub async fn prune_within(job: &Job, mode: Mode, now: Timestamp, limit: Duration) -> Vec<Pruned> {
    let stop = job.cancel.child_token();
    let bounded = Job {
        cancel: stop.clone(),
        ..job.clone()
    };
    let mut work = pin!(prune(&bounded, mode, now));
    let mut done = tokio::select! {
        done = &mut work => return done,
        () = tokio::time::sleep(limit) => {
            stop.cancel();
            work.await
        }
    };
    if !job.cancel.is_cancelled() {
        for pruned in &mut done {
            if let Some(failure) = &mut pruned.failure
                && failure.kind == Kind::Interrupted
            {
                failure.kind = Kind::Timeout;
                failure.causes = vec![format!("it took longer than {}", HumanDuration(limit))];
            }
        }
    }
    done
}

/// The newest backup of all storages, if it is shrunk: then nothing goes in any of them.
fn guard<'s>(surveys: impl Iterator<Item = &'s Survey>, now: Timestamp) -> Option<BackupId> {
    let newest = surveys.filter_map(|survey| {
        let facts = survey.facts();
        let newest = retention::newest(&facts, now)?.clone();
        Some((newest.began, newest.id, retention::guard(&facts, now)))
    });
    // Of copies of the same backup one that is shrunk counts.
    let newest =
        newest.max_by_key(|(began, id, guard)| (*began, id.clone(), *guard == Guard::Tripped))?;
    match newest {
        (_, id, Guard::Tripped) => id.parse().ok(),
        _ => None,
    }
}

async fn out_of_grace(cancel: &CancellationToken) {
    cancel.cancelled().await;
    tokio::time::sleep(GRACE).await;
}

#[cfg(test)]
mod tests;
