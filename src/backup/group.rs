//! One dump, for all the databases that share it.

use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::fan::{self, Fanned, Output};
use super::finish::{Finished, finish, lost};
use super::record::{About, Archive, Keep, manifest};
use super::relay::{Patience, Relay, Route, abandon};
use super::upload::upload;
use super::{Context, Job, Locked, Outcome, cannot, plan};
use crate::catalog::commit::places;
use crate::catalog::list::newest;
use crate::catalog::{BackupId, Listing};
use crate::config::Encryption;
use crate::failure::{Failure, Kind};
use crate::pipeline::seal::Seal;
use crate::pool::Pool;
use crate::source::{self, Pumped};
use crate::stage;
use crate::storage::{NamedStore, PART_BYTES};
use crate::units::HumanDuration;

/// How long it may take to see what a storage has, before a backup begins.
const LOOK: Duration = Duration::from_secs(30);

/// How many manifests are read for that, the newest: whose they are and what came last is in a few as in all.
const LOOKED_AT: usize = 64;

/// How many chunks of a dump may wait for the scanner.
const CHUNKS: usize = 8;

/// Backs up the jobs of one group with one dump. Each job has its own outcome.
pub async fn back_up_group(group: &[Locked], context: &Context) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let mut ready = Vec::new();
    for job in group.iter().map(Locked::job) {
        // Nothing is begun yet, so it may be dropped anywhere.
        let prepared = tokio::select! {
            biased;
            () = context.cancel.cancelled() => Err(interrupted()),
            prepared = prepare(job, context) => prepared,
        };
        match prepared {
            Ok(prepared) => ready.push((job.clone(), prepared)),
            Err(failure) => outcomes.push(outcome(&job.name, failure.into())),
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
                    .map(|job| outcome(&job.name, failure.clone().into())),
            );
        }
    }
    outcomes
}

fn outcome(name: &str, finished: Finished) -> Outcome {
    Outcome {
        name: name.to_owned(),
        result: finished.result.map_err(|failure| cannot(name, failure)),
        kept_in: finished.kept_in,
    }
}

/// A job that may begin.
pub(super) struct Ready {
    /// The keys of the newest backup that is not shrunk.
    pub(super) keys_before: Option<u64>,
    /// The storages that can take it, at least one.
    storages: Vec<NamedStore>,
    /// Those that cannot, and why: they fail the run, and do not keep the others from having it.
    pub(super) unfit: Vec<(String, Failure)>,
}

/// What must hold before a server is bothered: the name is ours, there is room.
async fn prepare(job: &Job, context: &Context) -> Result<Ready, Failure> {
    let mut ready = Ready {
        keys_before: None,
        storages: Vec::new(),
        unfit: Vec::new(),
    };
    // A passphrase that cannot be had is this job's failure, and not that of those who share the dump.
    if let Encryption::Passphrase(source) = &job.encryption {
        source.read()?;
    }
    let looks = job.storages.iter().map(async |storage| {
        let looked = timeout(LOOK, look_at(storage, job, context)).await;
        (storage, looked.unwrap_or_else(|_| Err(silent(storage))))
    });
    for (storage, looked) in join_all(looks).await {
        match looked {
            Ok(keys) => {
                ready.keys_before = ready.keys_before.or(keys);
                ready.storages.push(storage.clone());
            }
            // Whose backups these are is a question about the name, not about the storage.
            Err(failure) if failure.kind == Kind::Refused => return Err(failure),
            Err(failure) => ready.unfit.push((storage.name.clone(), failure)),
        }
    }
    if ready.storages.is_empty() && !ready.unfit.is_empty() {
        return Err(ready.unfit.swap_remove(0).1);
    }
    Ok(ready)
}

/// The failure of a storage that cannot be looked at in time.
fn silent(storage: &NamedStore) -> Failure {
    let (name, limit) = (&storage.name, HumanDuration(LOOK));
    let message = format!("storage {name} does not answer within {limit}");
    Failure::new(Kind::Storage, message).hint("try again later")
}

/// Looks at what a storage has of this database; gives the keys of its newest good backup.
async fn look_at(
    storage: &NamedStore,
    job: &Job,
    context: &Context,
) -> Result<Option<u64>, Failure> {
    let mut listing = newest(storage, &job.name, LOOKED_AT).await?;
    listing.mark_shrunk(|_| job.shrink_guard);
    if !job.shared {
        listing.must_be_of(&context.host)?;
    }
    ask_for_room(storage, &listing).await?;
    let mut newest_first = listing.backups.iter().rev();
    let good = newest_first.find(|backup| !backup.shrunk && !backup.damaged);
    Ok(good.map(|backup| backup.manifest.rdb.keys))
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
async fn take(jobs: &[Job], ready: &[Ready], context: &Context) -> Result<Vec<Finished>, Failure> {
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
) -> Result<Vec<Finished>, Stopped> {
    let started_at = Timestamp::now();
    let Some(mut request) = plan::request(jobs) else {
        return Ok(Vec::new());
    };
    let limit = Limit::start(context, jobs);
    request.cancel = limit.stop.clone();
    let scanned = request.databases.clone();
    let seals = seal(jobs).await?;
    // It ends by itself when it is stopped, after it has put back what it changed on the server.
    let dump = source::open(request).await.map_err(Failure::from);
    let dump = dump.map_err(|failure| limit.cause().unwrap_or(failure))?;
    stage::reached("source-open");
    tracing::debug!(method = %dump.method, "{}", dump.reasons.join("; "));
    context.meter.start_bytes(dump.expected_bytes.unwrap_or(0));

    let Begun {
        archives,
        outputs,
        uploads,
    } = begin(jobs, ready, seals, started_at, &keep, context, &limit.stop)?;
    let about = About::of(&dump, scanned);
    let (chunks, incoming) = mpsc::channel(CHUNKS);
    let (threads, meter) = (context.threads, context.meter.clone());
    let scanning =
        tokio::task::spawn_blocking(move || fan::run(incoming, outputs, threads, &meter));
    // Dropping the pump closes its channel: the scanner then sees a file that is cut short, and
    // everything behind it winds up by itself.
    let pumped = tokio::select! {
        pumped = dump.pump(chunks) => pumped.map_err(Failure::from),
        () = limit.stop.cancelled() => Err(interrupted()),
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
    let mut relayed = Vec::with_capacity(uploads.len());
    let mut broke = None;
    for upload in uploads {
        relayed.push(upload.await.unwrap_or_else(|panic| {
            broke = Some(Failure::new(Kind::Failed, "the upload panicked").caused_by(&panic));
            Vec::new()
        }));
    }
    let judged = match limit.cause().or(broke) {
        Some(failure) => Err(Judged::Stopped(Stopped::Failed(failure))),
        None => judge(pumped, fanned),
    };
    let (pumped, fanned) = match judged {
        Ok(whole) => whole,
        Err(judged) => {
            let all: Vec<Relay> = relayed.into_iter().flatten().collect();
            return Err(match judged {
                Judged::AllLost(failure) => Stopped::Failed(lost(all, failure).await),
                Judged::Stopped(stopped) => {
                    abandon(all).await;
                    stopped
                }
            });
        }
    };
    let behind: Vec<&str> = relayed
        .iter()
        .flatten()
        .filter(|relay| !relay.has_ended())
        .map(|relay| relay.place().storage())
        .collect();
    if !behind.is_empty() {
        tracing::debug!("the dump is done; not yet in {}", behind.join(", "));
    }
    // None waits for another: neither an archive for one of another database, nor a storage for a slow one.
    let mut finishing = Vec::with_capacity(jobs.len());
    let packed = fanned.archives.iter();
    for ((((job, ready), archive), packed), relays) in jobs
        .iter()
        .zip(ready)
        .zip(archives)
        .zip(packed)
        .zip(relayed)
    {
        let (about, pumped, keep, limit) = (&about, &pumped, &keep, &limit);
        let manifest = packed
            .as_ref()
            .map(|facts| manifest(job, context, archive, about, &fanned, facts, keep));
        finishing.push(async move {
            match manifest {
                Ok(manifest) => {
                    finish(job, ready, manifest, relays, about, pumped, keep, limit).await
                }
                Err(error) => {
                    let failure = Failure::new(Kind::Failed, error.to_string());
                    lost(relays, failure).await.into()
                }
            }
        });
    }
    Ok(join_all(finishing).await)
}

/// What encrypts each job's archive. It is made before the source is opened: a passphrase takes a while, and no fork
/// is to wait for that.
async fn seal(jobs: &[Job]) -> Result<Vec<Option<Seal>>, Failure> {
    let wanted: Vec<Encryption> = jobs.iter().map(|job| job.encryption.clone()).collect();
    let made = tokio::task::spawn_blocking(move || {
        let seals = wanted.iter().map(Seal::new);
        seals.collect::<Result<Vec<_>, _>>()
    });
    match made.await {
        Ok(seals) => Ok(seals?),
        Err(panic) => {
            Err(Failure::new(Kind::Failed, "making the encryption's keys").caused_by(&panic))
        }
    }
}

/// What ends a run before its end: a signal, or its time being over. Every stage watches one token.
pub(super) struct Limit {
    pub(super) stop: CancellationToken,
    cancel: CancellationToken,
    timeout: Duration,
    timer: JoinHandle<()>,
}

impl Limit {
    fn start(context: &Context, jobs: &[Job]) -> Limit {
        let timeout = jobs.iter().map(|job| job.timeout).max().unwrap_or_default();
        let stop = context.cancel.child_token();
        let ended = stop.clone();
        Limit {
            stop,
            cancel: context.cancel.clone(),
            timeout,
            timer: tokio::spawn(async move {
                tokio::time::sleep(timeout).await;
                ended.cancel();
            }),
        }
    }

    /// Why the run was stopped, if it was.
    pub(super) fn cause(&self) -> Option<Failure> {
        if self.cancel.is_cancelled() {
            return Some(interrupted());
        }
        let late = || {
            let message = format!("it took longer than {}", HumanDuration(self.timeout));
            Failure::new(Kind::Timeout, message).hint("raise the database's `timeout`")
        };
        self.stop.is_cancelled().then(late)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        self.timer.abort();
    }
}

/// The failure of a run that was stopped from outside.
fn interrupted() -> Failure {
    Failure::interrupted().hint("nothing of it is kept; run it again")
}

struct Begun {
    archives: Vec<Archive>,
    outputs: Vec<Output>,
    uploads: Vec<JoinHandle<Vec<Relay>>>,
}

fn begin(
    jobs: &[Job],
    ready: &[Ready],
    seals: Vec<Option<Seal>>,
    started_at: Timestamp,
    keep: &Keep,
    context: &Context,
    stop: &CancellationToken,
) -> Result<Begun, Failure> {
    let mut begun = Begun {
        archives: Vec::new(),
        outputs: Vec::new(),
        uploads: Vec::new(),
    };
    for ((job, ready), seal) in jobs.iter().zip(ready).zip(seals) {
        let id = BackupId::new(started_at)
            .map_err(|error| Failure::new(Kind::Failed, "cannot make an ID").caused_by(&error))?;
        let encrypted = if seal.is_some() { ".age" } else { "" };
        let object = format!("dump.rdb{}{encrypted}", job.compression.suffix());
        let databases = match keep {
            Keep::Meant => job.databases.clone(),
            Keep::All { .. } => None,
        };
        let (parts, receiver) = mpsc::channel(1);
        let pool = Pool::new(PART_BYTES);
        begun.outputs.push(Output {
            databases: databases.clone(),
            compression: job.compression,
            seal,
            pool: pool.clone(),
            parts,
        });
        let places = places(&ready.storages, &job.name, &id);
        let route = Route {
            object: object.clone(),
            spool: context.spool.clone(),
            pool,
            patience: Patience::USUAL,
            stop: stop.clone(),
        };
        begun
            .uploads
            .push(tokio::spawn(upload(places, receiver, route)));
        begun.archives.push(Archive {
            id,
            object,
            started_at,
            databases,
        });
    }
    Ok(begun)
}

/// What a dump that made no archive comes to.
enum Judged {
    /// The storages know why.
    AllLost(Failure),
    Stopped(Stopped),
}

/// Whether the dump is whole; if not, what of all that went wrong was the cause of the rest.
fn judge(
    pumped: Result<Pumped, Failure>,
    fanned: Result<Fanned, fan::Error>,
) -> Result<(Pumped, Fanned), Judged> {
    let stopped = |failure: Failure| Judged::Stopped(failure.into());
    match (pumped, fanned) {
        (Ok(pumped), Ok(fanned)) => Ok((pumped, fanned)),
        (_, Err(fan::Error::Opaque(why))) => Err(Judged::Stopped(Stopped::Opaque(why.to_string()))),
        (_, Err(error @ fan::Error::AllLost)) => Err(Judged::AllLost(Failure::new(
            Kind::Storage,
            error.to_string(),
        ))),
        // A torn dump is the effect of a source that broke, not a finding of its own.
        (Err(failure), _) => Err(stopped(failure)),
        (Ok(_), Err(error)) => Err(stopped(Failure::new(Kind::Protocol, error.to_string())
            .caused_by(std::error::Error::source(&error).unwrap_or(&error))
            .hint("nothing of it is kept; run it again, and if it happens again the server's own dump is damaged"))),
    }
}
