//! The end of a backup: each storage that has the data gets the manifest, as soon as it has it.

use futures_util::future::join_all;

use super::group::{Limit, Ready};
use super::record::{About, Keep};
use super::relay::{Relay, abandon};
use super::{GRACE, Job, Made};
use crate::catalog::Manifest;
use crate::catalog::commit::{Prepared, commit};
use crate::failure::{Failure, Kind};
use crate::retention::is_shrunk;
use crate::source::Pumped;
use crate::units::HumanCount;

/// How one job of the group ended.
pub(super) struct Finished {
    pub(super) result: Result<Made, Failure>,
    /// The storages that have the new backup.
    pub(super) kept_in: Vec<String>,
}

impl From<Failure> for Finished {
    fn from(failure: Failure) -> Finished {
        Finished {
            result: Err(failure),
            kept_in: Vec::new(),
        }
    }
}

/// The failure of an archive that no storage has: that of a storage, if there was one, else `otherwise`.
pub(super) async fn lost(relays: Vec<Relay>, otherwise: Failure) -> Failure {
    abandon(relays).await.map_or(otherwise, Failure::from)
}

/// Commits an archive in every storage that has its data, or will have it.
#[allow(clippy::too_many_arguments)]
pub(super) async fn finish(
    job: &Job,
    ready: &Ready,
    manifest: Manifest,
    relays: Vec<Relay>,
    about: &About,
    pumped: &Pumped,
    keep: &Keep,
    limit: &Limit,
) -> Finished {
    let commits = relays.into_iter().map(async |relay| {
        let name = relay.place().storage().to_owned();
        (name, settle(relay, &manifest, limit).await)
    });
    let mut storages = Vec::new();
    let mut failed = ready.unfit.clone();
    for (name, committed) in join_all(commits).await {
        match committed {
            Ok(()) => storages.push(name),
            Err(failure) => failed.push((name, failure)),
        }
    }
    if !failed.is_empty() {
        return Finished {
            result: Err(partial(&manifest, failed, &storages)),
            kept_in: storages,
        };
    }
    let mut warnings = about.warnings.clone();
    warnings.extend(pumped.warnings.iter().cloned());
    if let Keep::All { warning } = keep {
        warnings.push(warning.clone());
    }
    if manifest.rdb.opaque {
        warnings.push(
            "the server is newer than this version of rdbkeeper: the backup is whole, but cannot be looked into".to_owned(),
        );
    }
    let keys = manifest.rdb.keys;
    let shrunk = ready
        .keys_before
        .is_some_and(|before| is_shrunk(keys, before, job.shrink_guard));
    if shrunk {
        warnings.push(format!(
            "it has {}, and the last good backup has {}",
            HumanCount(keys).of("key", "keys"),
            HumanCount(ready.keys_before.unwrap_or_default())
        ));
    }
    Finished {
        kept_in: storages.clone(),
        result: Ok(Made {
            manifest,
            storages,
            shrunk,
            reasons: about.reasons.clone(),
            warnings,
        }),
    }
}

/// Waits until a storage has the data, and commits it there.
async fn settle(relay: Relay, manifest: &Manifest, limit: &Limit) -> Result<(), Failure> {
    let place = relay.place().clone();
    // That it was stopped is the cause of whatever else is said then.
    let stopped = |failure: Failure| limit.cause().unwrap_or(failure);
    let upload = relay.outcome().await;
    let upload = upload.map_err(|error| stopped(error.into()))?;
    let committing = async { Ok(commit(Prepared { place, upload }, manifest).await?) };
    // What it leaves then is either whole or debris.
    let too_late = async {
        limit.stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        committed = committing => committed.map_err(stopped),
        () = too_late => Err(stopped(Failure::interrupted())),
    }
}

/// The failure of a backup that some storages do not have.
fn partial(manifest: &Manifest, failed: Vec<(String, Failure)>, kept: &[String]) -> Failure {
    let names: Vec<String> = failed.iter().map(|(name, _)| name.clone()).collect();
    let mut failures = failed.into_iter().map(|(name, failure)| {
        let context = format!("storage {name} does not have it");
        failure.context(context)
    });
    let Some(mut failure) = failures.next() else {
        return Failure::new(Kind::Failed, "no storage has it");
    };
    for other in failures {
        failure = failure.cause(
            std::iter::once(other.message)
                .chain(other.causes)
                .collect::<Vec<_>>()
                .join(": "),
        );
    }
    if kept.is_empty() {
        return failure;
    }
    let id = &manifest.id;
    let copies: Vec<String> = names
        .iter()
        .map(|name| format!("`rdbkeeper backup copy {id} --to {name}`"))
        .collect();
    let mut hint = format!("when that is put right: {}", copies.join(", "));
    if let Some(own) = &failure.hint
        && !matches!(failure.kind, Kind::Interrupted | Kind::Terminated)
    {
        hint = format!("{own}; {hint}");
    }
    failure
        .cause(format!("kept as {id} in {}", kept.join(", ")))
        .hint(hint)
}
