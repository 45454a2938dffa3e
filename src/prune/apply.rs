//! Doing what was decided, in one storage.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::survey::{Plan, Survey, survey};
use super::{Job, Mode, Report, State};
use crate::catalog::commit::{self, Pruned};
use crate::catalog::debris::{self, Debris};
use crate::catalog::lease::Lease;
use crate::catalog::{BackupId, MANIFEST};
use crate::failure::{Failure, Kind};
use crate::retention::Reason;
use crate::stage;
use crate::storage::{NamedStore, ObjectMeta};

/// Prunes one storage; how far it came is in `report`, whatever becomes of it.
pub(super) async fn storage(
    job: &Job,
    storage: &NamedStore,
    first: Survey,
    guard: Option<&BackupId>,
    mode: Mode,
    now: Timestamp,
    report: &mut Report,
) -> Result<(), Failure> {
    let (plan, debris) = first.plan(job, &storage.name, guard, now);
    let ripe = ripe(job, storage, debris, &plan, mode, now).await;
    let nothing = plan.going.is_empty() && ripe.as_ref().is_ok_and(Vec::is_empty);
    if mode == Mode::DryRun || nothing {
        *report = plan.report;
        for debris in ripe? {
            report.swept.folders += 1;
            report.swept.bytes += debris.bytes();
        }
        report.freed_bytes = plan
            .going
            .iter()
            .map(|(_, backup)| backup.manifest.data.bytes)
            .sum();
        return Ok(());
    }
    *report = plan.report;
    drop(ripe?);
    let mut lease = Lease::take(storage, &job.name, &job.host).await?;
    stage::reached("prune-leased");
    let done = leased(job, storage, guard, now, report, &mut lease).await;
    if let Err(error) = lease.release().await {
        tracing::warn!(
            database = job.name,
            "the lease of prune stays in storage {} for some minutes: {error}",
            storage.name
        );
    }
    done
}

/// Decides again, now that nobody else removes anything, and does it.
async fn leased(
    job: &Job,
    storage: &NamedStore,
    guard: Option<&BackupId>,
    now: Timestamp,
    report: &mut Report,
    lease: &mut Lease,
) -> Result<(), Failure> {
    let second = survey(storage, job).await?;
    let (plan, debris) = second.plan(job, &storage.name, guard, now);
    let ripe = ripe(job, storage, debris, &plan, Mode::Remove, now).await?;
    report.clone_from(&plan.report);
    for (at, backup) in &plan.going {
        go_on(job)?;
        must_be_as_surveyed(job, storage, &plan).await?;
        let judged = &mut report.backups[*at];
        match commit::prune(backup, lease).await? {
            Pruned::Removed { bytes } => {
                judged.state = State::Removed;
                report.freed_bytes += bytes;
                tracing::info!(
                    database = job.name,
                    "removed {} from storage {}",
                    backup.manifest.id,
                    storage.name
                );
            }
            Pruned::Pinned => {
                judged.state = State::Kept;
                judged.reasons.push(Reason::Pinned);
            }
            Pruned::Gone => judged.state = State::Removed,
            Pruned::Locked { why } => {
                judged.state = State::Kept;
                judged.reasons.push(Reason::Locked(why));
            }
        }
    }
    for debris in &ripe {
        go_on(job)?;
        lease.look().await?;
        let went = debris::sweep(debris).await?;
        report.swept.bytes += went.bytes;
        report.swept.folders += went.folders;
        stage::reached("prune-swept");
    }
    Ok(())
}

/// The debris that is old enough. While the guard is tripped none is.
async fn ripe(
    job: &Job,
    storage: &NamedStore,
    debris: Vec<Debris>,
    plan: &Plan,
    mode: Mode,
    now: Timestamp,
) -> Result<Vec<Debris>, Failure> {
    if debris.is_empty() || plan.report.guard.is_some() {
        return Ok(Vec::new());
    }
    let now = match mode {
        Mode::DryRun => now,
        Mode::Remove => storage.store.clock().await?,
    };
    let age = debris::age(job.timeout);
    let ripe = debris.into_iter().filter(|debris| debris.is_ripe(now, age));
    Ok(ripe.collect())
}

fn go_on(job: &Job) -> Result<(), Failure> {
    if job.cancel.is_cancelled() {
        return Err(Failure::interrupted());
    }
    match job.gate.closed() {
        Some(why) => Err(Failure::new(
            Kind::Interrupted,
            format!("nothing more is removed: {why}"),
        )),
        None => Ok(()),
    }
}

/// What replaces those that go may have been deleted by hand since it was listed; and a backup may have come since,
/// perhaps one that is shrunk, beside which nothing may go.
async fn must_be_as_surveyed(job: &Job, storage: &NamedStore, plan: &Plan) -> Result<(), Failure> {
    let Some(good) = &plan.newest_good else {
        return Err(Failure::new(
            Kind::Refused,
            "there is no good backup that would be left",
        ));
    };
    let objects = storage.store.list(&job.name).await?;
    let there: BTreeSet<BackupId> = objects.iter().filter_map(committed).collect();
    if !there.contains(&good.manifest.id) {
        let id = &good.manifest.id;
        let message = format!("{id}, the newest good backup, was removed meanwhile");
        return Err(Failure::new(Kind::Refused, message).hint("run it again"));
    }
    let known = |id: &&BackupId| plan.report.backups.iter().any(|judged| judged.id == **id);
    match there.iter().find(|id| !known(id)) {
        Some(id) => Err(
            Failure::new(Kind::Busy, format!("{id} was backed up meanwhile"))
                .hint("nothing more was removed; the next prune does the rest"),
        ),
        None => Ok(()),
    }
}

/// The backup that this object is the manifest of.
fn committed(object: &ObjectMeta) -> Option<BackupId> {
    let mut segments = object.key.as_str().rsplit('/');
    let manifest = segments.next()? == MANIFEST;
    segments.next()?.parse().ok().filter(|_| manifest)
}
