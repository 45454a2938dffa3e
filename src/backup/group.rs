//! One dump, for all the databases that share it.

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::fan::{self, Fanned, Output};
use super::record::{About, Archive, Keep, manifest};
use super::upload::{Uploaded, abandon, upload};
use super::{Context, Job, Made, Outcome, plan};
use crate::catalog::commit::{Prepared, commit, places};
use crate::catalog::list::{is_shrunk, list};
use crate::catalog::lock::HostLock;
use crate::catalog::{BackupId, Listing, Manifest};
use crate::failure::{Failure, Kind};
use crate::source::{self, Pumped};
use crate::stage;
use crate::storage::{self, NamedStore};

/// How many chunks of a dump may wait for the scanner.
const CHUNKS: usize = 8;

/// Backs up the jobs of one group with one dump. Each job has its own outcome.
pub async fn back_up_group(group: Vec<Job>, context: &Context) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let mut ready = Vec::new();
    for job in group {
        match prepare(&job, context).await {
            Ok(prepared) => ready.push((job, prepared)),
            Err(failure) => outcomes.push(outcome(&job.name, Err(failure))),
        }
    }
    if ready.is_empty() {
        return outcomes;
    }
    let (jobs, prepared): (Vec<Job>, Vec<Ready>) = ready.into_iter().unzip();
    match take(&jobs, &prepared, context).await {
        Ok(made) => outcomes.extend(
            jobs.iter()
                .zip(made)
                .map(|(job, made)| outcome(&job.name, made)),
        ),
        Err(failure) => {
            outcomes.extend(
                jobs.iter()
                    .map(|job| outcome(&job.name, Err(failure.clone()))),
            );
        }
    }
    outcomes
}

fn outcome(name: &str, result: Result<Made, Failure>) -> Outcome {
    Outcome {
        name: name.to_owned(),
        result: result.map_err(|failure| failure.context(format!("cannot back up {name}"))),
    }
}

/// A job that may begin.
struct Ready {
    _lock: HostLock,
    /// The keys of the newest backup that is not shrunk.
    keys_before: Option<u64>,
}

/// What must hold before a server is bothered: nobody else is at it, the name is ours, there is room.
async fn prepare(job: &Job, context: &Context) -> Result<Ready, Failure> {
    let lock = HostLock::take(&context.state_dir, &job.name)?;
    let mut keys_before = None;
    for storage in &job.storages {
        let mut listing = list(std::slice::from_ref(storage), Some(&job.name)).await?;
        listing.mark_shrunk(|_| job.shrink_guard);
        refuse_another_hosts(job, context, &listing)?;
        ask_for_room(storage, &listing).await?;
        let good = listing.backups.iter().rev().find(|backup| !backup.shrunk);
        keys_before = keys_before.or(good.map(|backup| backup.manifest.rdb.keys));
    }
    Ok(Ready {
        _lock: lock,
        keys_before,
    })
}

fn refuse_another_hosts(job: &Job, context: &Context, listing: &Listing) -> Result<(), Failure> {
    if job.shared {
        return Ok(());
    }
    let other = listing
        .backups
        .iter()
        .rev()
        .find(|backup| backup.manifest.host != context.host);
    match other {
        None => Ok(()),
        Some(backup) => Err(Failure::new(
            Kind::Refused,
            format!(
                "storage {} holds backups of {} that host {} took",
                backup.place.storage(),
                job.name,
                backup.manifest.host
            ),
        )
        .cause(format!("this host is {}", context.host))
        .hint(
            "give this database another name, or set `shared = true` when both hosts serve the same data",
        )),
    }
}

async fn ask_for_room(storage: &NamedStore, listing: &Listing) -> Result<(), Failure> {
    let Some(last) = listing.backups.last() else {
        return Ok(());
    };
    let needed = last.manifest.data.bytes;
    match storage.store.free_bytes().await? {
        Some(free) if free < needed => Err(Failure::new(
            Kind::Storage,
            format!("there is not enough room in storage {}", storage.name),
        )
        .cause(format!(
            "{} has {free} bytes left, and the last backup took {needed}",
            storage.store.describe()
        ))
        .hint("free some room there, or keep fewer backups")),
        _ => Ok(()),
    }
}

/// Takes the dump. When it turns out to hold what this version does not know, so that no database
/// can be left out, it is taken again whole: a backup never fails because the server is newer.
async fn take(
    jobs: &[Job],
    ready: &[Ready],
    context: &Context,
) -> Result<Vec<Result<Made, Failure>>, Failure> {
    match attempt(jobs, ready, context, Keep::Meant).await {
        Err(Stopped::Opaque(why)) => {
            let warning = format!(
                "the dump could not be filtered by database ({why}): the backup holds all databases"
            );
            tracing::warn!("{warning}");
            match attempt(jobs, ready, context, Keep::All { warning }).await {
                Err(Stopped::Opaque(why)) => Err(Failure::new(Kind::Failed, why)),
                Err(Stopped::Failed(failure)) => Err(failure),
                Ok(made) => Ok(made),
            }
        }
        Err(Stopped::Failed(failure)) => Err(failure),
        Ok(made) => Ok(made),
    }
}

enum Stopped {
    /// The dump can't be filtered.
    Opaque(String),
    Failed(Failure),
}

impl<E: Into<Failure>> From<E> for Stopped {
    fn from(error: E) -> Stopped {
        Stopped::Failed(error.into())
    }
}

async fn attempt(
    jobs: &[Job],
    ready: &[Ready],
    context: &Context,
    keep: Keep,
) -> Result<Vec<Result<Made, Failure>>, Stopped> {
    let started_at = Timestamp::now();
    let Some(mut request) = plan::request(jobs) else {
        return Ok(Vec::new());
    };
    request.cancel = context.cancel.clone();
    let timeout = jobs.iter().map(|job| job.timeout).max().unwrap_or_default();
    let deadline = tokio::time::Instant::now() + timeout;
    let late = || {
        Failure::new(
            Kind::Timeout,
            format!("it took longer than {}s", timeout.as_secs()),
        )
        .hint("raise the database's `timeout`")
    };
    let dump = tokio::select! {
        dump = source::open(request) => dump?,
        () = context.cancel.cancelled() => return Err(interrupted().into()),
        () = tokio::time::sleep_until(deadline) => return Err(late().into()),
    };
    stage::reached("source-open");
    tracing::debug!(method = %dump.method, "{}", dump.reasons.join("; "));
    context.meter.start_bytes(dump.expected_bytes.unwrap_or(0));

    let Begun {
        archives,
        outputs,
        uploads,
    } = begin(jobs, started_at, &keep)?;
    let about = About::of(&dump);
    let (chunks, incoming) = mpsc::channel(CHUNKS);
    let (threads, meter) = (context.threads, context.meter.clone());
    let scanning =
        tokio::task::spawn_blocking(move || fan::run(incoming, outputs, threads, &meter));
    // Dropping the pump closes its channel: the scanner then sees a file that is cut short, and
    // everything behind it winds up by itself.
    let pumped = tokio::select! {
        pumped = dump.pump(chunks) => pumped.map_err(Failure::from),
        () = context.cancel.cancelled() => Err(interrupted()),
        () = tokio::time::sleep_until(deadline) => Err(late()),
    };
    stage::reached("pumped");
    let fanned = match scanning.await {
        Ok(fanned) => fanned,
        Err(panic) => {
            return Err(Failure::new(Kind::Failed, "the scanner panicked")
                .caused_by(&panic)
                .into());
        }
    };
    let mut uploaded = Vec::with_capacity(uploads.len());
    for upload in uploads {
        uploaded.push(upload.await.unwrap_or_default());
    }
    let stopped = judge(pumped, fanned, &mut uploaded);
    let (pumped, fanned) = match stopped {
        Ok(whole) => whole,
        Err(stopped) => {
            for uploads in uploaded {
                abandon(uploads).await;
            }
            return Err(stopped);
        }
    };
    if context.cancel.is_cancelled() {
        for uploads in uploaded {
            abandon(uploads).await;
        }
        return Err(interrupted().into());
    }
    let mut made = Vec::with_capacity(jobs.len());
    let packed = fanned.archives.iter();
    for ((((job, ready), archive), packed), uploads) in jobs
        .iter()
        .zip(ready)
        .zip(archives)
        .zip(packed)
        .zip(uploaded)
    {
        let facts = match packed {
            Ok(facts) => facts,
            Err(error) => {
                made.push(Err(lost(uploads, error).await));
                continue;
            }
        };
        let manifest = manifest(job, context, archive, &about, &fanned, facts, &keep);
        made.push(finish(job, ready, manifest, uploads, &about, &pumped, &keep).await);
    }
    Ok(made)
}

/// The failure of a run that was stopped from outside.
fn interrupted() -> Failure {
    Failure::new(Kind::Interrupted, "stopped before it was done")
        .hint("nothing of it is kept; run it again")
}

struct Begun {
    archives: Vec<Archive>,
    outputs: Vec<Output>,
    uploads: Vec<JoinHandle<Vec<Uploaded>>>,
}

fn begin(jobs: &[Job], started_at: Timestamp, keep: &Keep) -> Result<Begun, Failure> {
    let mut begun = Begun {
        archives: Vec::new(),
        outputs: Vec::new(),
        uploads: Vec::new(),
    };
    for job in jobs {
        let id = BackupId::new(started_at)
            .map_err(|error| Failure::new(Kind::Failed, "cannot make an ID").caused_by(&error))?;
        let object = format!("dump.rdb{}", job.compression.suffix());
        let databases = match keep {
            Keep::Meant => job.databases.clone(),
            Keep::All { .. } => None,
        };
        let (parts, receiver) = mpsc::channel(1);
        begun.outputs.push(Output {
            databases: databases.clone(),
            compression: job.compression,
            parts,
        });
        let places = places(&job.storages, &job.name, &id);
        begun
            .uploads
            .push(tokio::spawn(upload(places, object.clone(), receiver)));
        begun.archives.push(Archive {
            id,
            object,
            started_at,
            databases,
        });
    }
    Ok(begun)
}

/// Whether the dump is whole; if not, what of all that went wrong was the cause of the rest.
fn judge(
    pumped: Result<Pumped, Failure>,
    fanned: Result<Fanned, fan::Error>,
    uploaded: &mut [Vec<Uploaded>],
) -> Result<(Pumped, Fanned), Stopped> {
    match (pumped, fanned) {
        (Ok(pumped), Ok(fanned)) => Ok((pumped, fanned)),
        (_, Err(fan::Error::Opaque(why))) => Err(Stopped::Opaque(why.to_string())),
        (_, Err(fan::Error::AllLost)) => {
            let first = uploaded.iter_mut().flatten().find_map(|upload| {
                let gone = storage::Error::new(storage::Problem::Other, "storage", "go on");
                match std::mem::replace(&mut upload.result, Err(gone)) {
                    Err(error) => Some(Failure::from(error)),
                    open => {
                        upload.result = open;
                        None
                    }
                }
            });
            Err(first
                .unwrap_or_else(|| Failure::new(Kind::Storage, "no storage takes the data"))
                .into())
        }
        // A torn dump is the effect of a source that broke, not a finding of its own.
        (Err(failure), _) => Err(failure.into()),
        (Ok(_), Err(error)) => Err(Failure::new(Kind::Protocol, error.to_string())
            .caused_by(std::error::Error::source(&error).unwrap_or(&error))
            .hint("nothing of it is kept; run it again, and if it happens again the server's own dump is damaged")
            .into()),
    }
}

/// The failure of an archive that no storage has.
async fn lost(uploads: Vec<Uploaded>, error: &crate::pipeline::outbound::Error) -> Failure {
    let mut failure = None;
    let mut open = Vec::new();
    for upload in uploads {
        match upload.result {
            Err(error) => failure = failure.or(Some(Failure::from(error))),
            Ok(_) => open.push(upload),
        }
    }
    abandon(open).await;
    failure.unwrap_or_else(|| Failure::new(Kind::Failed, error.to_string()))
}

/// Commits an archive in every storage that has its data.
async fn finish(
    job: &Job,
    ready: &Ready,
    manifest: Manifest,
    uploads: Vec<Uploaded>,
    about: &About,
    pumped: &Pumped,
    keep: &Keep,
) -> Result<Made, Failure> {
    let mut storages = Vec::new();
    let mut failed: Option<Failure> = None;
    for Uploaded { place, result } in uploads {
        let name = place.storage().to_owned();
        let committed = match result {
            Ok(upload) => commit(Prepared { place, upload }, &manifest)
                .await
                .map_err(Failure::from),
            Err(error) => Err(error.into()),
        };
        match committed {
            Ok(()) => storages.push(name),
            Err(failure) => {
                failed.get_or_insert(failure.context(format!("storage {name} does not have it")));
            }
        }
    }
    if let Some(failure) = failed {
        return Err(match storages.is_empty() {
            true => failure,
            false => failure.cause(format!(
                "kept as {} in {}",
                manifest.id,
                storages.join(", ")
            )),
        });
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
            "it has {keys} keys, and the last good backup has {}",
            ready.keys_before.unwrap_or_default()
        ));
    }
    Ok(Made {
        manifest,
        storages,
        shrunk,
        reasons: about.reasons.clone(),
        warnings,
    })
}
