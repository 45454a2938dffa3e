//! The restore journey: a plan that can be shown, and then done.
//!
//! A backup is read two or three times, in full and checked each time: once to learn what it holds and that it is whole,
//! once more to look for keys that the target has already (only where it has any), and once to write.
//! [`prepare`] does the first two and changes nothing; [`Prepared::run`] does the last. [`to_file`] is the way into a file.
//!
//! What it promises: the target is not touched before the backup has been read and checked in full, and nothing is
//! written when the plan finds that something can't be.

mod plan;
mod survey;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub use plan::{ConflictPlan, DatabasePlan, LibraryFate, LibraryPlan, Plan, UnheldPlan};
pub use survey::{Holds, Library, Survey, Surveyed, Surveyor, Unheld, UnheldKeys};

use crate::failure::{Failure, Kind};
use crate::rdb::{DbIndex, Handler, Report};
use crate::selection::{Filters, KeyNames};
use crate::server::Endpoint;
use crate::target::facts::TargetFacts;
use crate::target::file::{Copy, Existing, PendingFile, Rewrite};
use crate::target::live::{self, Conflicts, OnConflict, Settings};
use crate::target::{Error, Expiry, Rename, Route};

/// A backup that can be read, as often as it is asked for.
pub trait Backup: Send + Sync + 'static {
    /// Reads the whole backup and feeds its events to `handler`, verifying all that can be: digests where there are some,
    /// structure and checksum. Returns the handler when everything was found whole. Blocks; called on a thread for such work.
    ///
    /// # Errors
    /// The backup is damaged or can't be read, or the handler wants no more: its failure comes back as it is.
    fn read<H>(&self, handler: H) -> Result<(H, Report), Failure>
    where
        H: Handler<Error = Failure> + Send + 'static;
}

/// What `--ttl` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ttl {
    /// The absolute expiry stands.
    #[default]
    Keep,
    /// What was left when the backup was taken counts from now.
    Shift,
    /// None.
    Strip,
}

/// What the user wants.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Which keys.
    pub filters: Filters,
    /// Databases that become others.
    pub map: BTreeMap<DbIndex, DbIndex>,
    /// The `/N` of the target: every key goes there.
    pub into: Option<DbIndex>,
    /// Prefixes that become others.
    pub rename: Vec<Rename>,
    /// What happens to keys that are there.
    pub on_conflict: OnConflict,
    /// Whether the target databases are emptied first.
    pub flush: bool,
    /// What becomes of expiries.
    pub ttl: Ttl,
    /// When the backup was taken, Unix time in milliseconds, from its manifest; else the file's own word is taken.
    pub snapshot_ms: Option<i64>,
    /// Keys a second; 0 is no limit.
    pub rate: u64,
    /// Whether key names are shown.
    pub names: KeyNames,
    /// Whether the conflicts are to be counted even where they decide nothing: for a dry run.
    pub always_look: bool,
}

/// Where a restore is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The backup is read and checked.
    Reading,
    /// The target is asked which keys it has.
    Looking,
    /// Keys are written.
    Writing,
}

/// How far a restore is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Which stage.
    pub stage: Stage,
    /// Keys dealt with in it.
    pub keys: u64,
    /// Keys there are, once that is known.
    pub of: Option<u64>,
}

/// Is told now and then how far it is.
pub type OnProgress = Arc<dyn Fn(Progress) + Send + Sync>;

/// What a restore did.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The server or the file.
    pub target: String,
    /// Keys written.
    pub keys: u64,
    /// Keys that were there and stayed.
    pub skipped: u64,
    /// Keys that were over, and left out.
    pub expired: u64,
    /// Keys that the filters left out.
    pub left_out: u64,
    /// Function libraries loaded.
    pub functions: u64,
    /// The length of the file that was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// A restore to a live server, ready to run.
pub struct Prepared<B> {
    backup: Arc<B>,
    endpoint: Endpoint,
    facts: TargetFacts,
    route: Route,
    request: Request,
    libraries: Vec<Library>,
    plan: Plan,
    progress: OnProgress,
    cancel: CancellationToken,
}

impl<B> std::fmt::Debug for Prepared<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared")
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

/// Looks at the target and reads the backup, and decides. Changes nothing. What the plan refuses is in the plan; [`Prepared::run`]
/// will not do it.
///
/// # Errors
/// The target can't be asked or is no place to restore to, the backup is damaged, or the request makes no sense for it.
pub async fn prepare<B: Backup>(
    backup: Arc<B>,
    endpoint: Endpoint,
    request: Request,
    progress: OnProgress,
    cancel: CancellationToken,
) -> Result<Prepared<B>, Failure> {
    let facts = TargetFacts::of(&endpoint).await?;
    plan::suitable(&facts)?;
    let mut route = route_of(&request, facts.clock.now_ms());
    let holds = Holds {
        rdb: facts.rdb,
        max_bulk: facts.max_bulk,
    };
    let now = facts.clock.now_ms();
    let survey = survey_of(
        &backup,
        &route,
        Some(now),
        Some(holds),
        &request,
        &progress,
        &cancel,
    )
    .await?;
    route.snapshot_ms = survey.snapshot_ms;
    if let Some(into) = request.into {
        plan::into_one(&mut route, into, &survey.meant_databases(&request.filters))?;
    }
    let targets = plan::target_databases(&survey, &route);
    let list: Vec<DbIndex> = targets.iter().copied().collect();
    let lacking = facts.lacks(&endpoint, &list).await?;
    let mut ingredients = plan::Ingredients {
        place: &facts.place,
        facts: Some(&facts),
        lacking: &lacking,
        survey: &survey,
        route: &route,
        on_conflict: request.on_conflict,
        flush: request.flush,
        conflicts: None,
    };
    let mut plan = Plan::of(&ingredients);
    let conflicts;
    if plan.refusal.is_none() && (request.on_conflict == OnConflict::Fail || request.always_look) {
        let occupied: BTreeSet<DbIndex> = targets
            .into_iter()
            .filter(|db| !request.flush && facts.info.keyspace.contains_key(&db.0))
            .collect();
        conflicts = if occupied.is_empty() {
            Conflicts::default()
        } else {
            let settings = settings_of(&request, Stage::Looking, plan.keys, &progress, &cancel);
            let reader = Arc::clone(&backup);
            let read = move |handler| reader.read(handler).map(|(handler, _)| handler);
            live::look(&endpoint, &facts, &route, occupied, &settings, read).await?
        };
        ingredients.conflicts = Some(&conflicts);
        plan = Plan::of(&ingredients);
    }
    let libraries = survey.libraries;
    Ok(Prepared {
        backup,
        endpoint,
        facts,
        route,
        request,
        libraries,
        plan,
        progress,
        cancel,
    })
}

impl<B: Backup> Prepared<B> {
    /// What is going to be done.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Does it. Whether a person agrees ([`Plan::question`]) is asked before.
    ///
    /// # Errors
    /// What the plan refuses, and whatever happens meanwhile; each error says how much was written.
    pub async fn run(self) -> Result<Outcome, Failure> {
        if let Some(refusal) = self.plan.refusal {
            return Err(refusal);
        }
        if self.cancel.is_cancelled() {
            return Err(Failure::new(
                Kind::Interrupted,
                "stopped before anything was written",
            ));
        }
        let databases: Vec<u32> = self.plan.flush.keys().copied().collect();
        flush(&self.endpoint, &self.facts, &databases, &self.cancel).await?;
        let functions = load(
            &self.endpoint,
            &self.facts,
            &self.libraries,
            &self.plan.functions,
        )
        .await?;
        let settings = settings_of(
            &self.request,
            Stage::Writing,
            self.plan.keys,
            &self.progress,
            &self.cancel,
        );
        let reader = Arc::clone(&self.backup);
        let read = move |handler| reader.read(handler).map(|(handler, _)| handler);
        let written =
            live::write(&self.endpoint, &self.facts, &self.route, &settings, read).await?;
        Ok(Outcome {
            target: self.plan.target,
            keys: written.keys,
            skipped: written.skipped,
            expired: written.expired,
            left_out: written.left_out,
            functions,
            bytes: None,
        })
    }
}

/// Writes a backup into an RDB file: without filters, maps and the like byte for byte the one that was dumped.
///
/// # Errors
/// The backup is damaged, the file is there already or can't be written, or two keys would have one name.
pub async fn to_file<B: Backup>(
    backup: Arc<B>,
    path: &Path,
    existing: Existing,
    request: Request,
    progress: OnProgress,
    cancel: CancellationToken,
) -> Result<Outcome, Failure> {
    let target = path.display().to_string();
    // First of all, so that a path that can't be written is not found out at the end.
    let file = PendingFile::create(path, existing)?;
    let mut route = route_of(&request, jiff::Timestamp::now().as_millisecond());
    if route.is_identity() && request.into.is_none() {
        let copy = Stoppable::new(Copy::new(file), cancel);
        let copied = blocking(move || {
            let (copy, _) = backup.read(copy)?;
            Ok((copy.keys, copy.inner.finish()?))
        });
        let (keys, bytes) = copied.await?;
        return Ok(Outcome {
            target,
            keys,
            skipped: 0,
            expired: 0,
            left_out: 0,
            functions: 0,
            bytes: Some(bytes),
        });
    }
    let (plan, survey) =
        survey_for_file(&backup, &target, &mut route, &request, &progress, &cancel).await?;
    if let Some(refusal) = plan.refusal {
        return Err(refusal);
    }
    let mut sizes: BTreeMap<DbIndex, (u64, u64)> = BTreeMap::new();
    for (db, found) in &survey.databases {
        let size = sizes.entry(route.database(*db)).or_default();
        size.0 += found.keys;
        size.1 += found.expires;
    }
    let rewrite = Stoppable::new(Rewrite::new(file, route, sizes), cancel);
    let written = blocking(move || {
        let (rewrite, _) = backup.read(rewrite)?;
        Ok(rewrite.inner.finish()?)
    })
    .await?;
    Ok(Outcome {
        target,
        keys: written.keys,
        skipped: 0,
        expired: written.expired,
        left_out: written.left_out,
        functions: plan.functions.len() as u64,
        bytes: Some(written.bytes),
    })
}

/// What [`to_file`] would do, for a dry run. Reads the backup and writes nothing.
///
/// # Errors
/// The backup is damaged, or the request makes no sense for it.
pub async fn plan_file<B: Backup>(
    backup: Arc<B>,
    path: &Path,
    request: Request,
    progress: OnProgress,
    cancel: CancellationToken,
) -> Result<Plan, Failure> {
    let target = path.display().to_string();
    let mut route = route_of(&request, jiff::Timestamp::now().as_millisecond());
    let (plan, _) =
        survey_for_file(&backup, &target, &mut route, &request, &progress, &cancel).await?;
    Ok(plan)
}

async fn survey_for_file<B: Backup>(
    backup: &Arc<B>,
    target: &str,
    route: &mut Route,
    request: &Request,
    progress: &OnProgress,
    cancel: &CancellationToken,
) -> Result<(Plan, Survey), Failure> {
    let survey = survey_of(backup, route, None, None, request, progress, cancel).await?;
    route.snapshot_ms = survey.snapshot_ms;
    if let Some(into) = request.into {
        plan::into_one(route, into, &survey.meant_databases(&request.filters))?;
    }
    let plan = Plan::of(&plan::Ingredients {
        place: target,
        facts: None,
        lacking: &[],
        survey: &survey,
        route,
        on_conflict: request.on_conflict,
        flush: false,
        conflicts: None,
    });
    Ok((plan, survey))
}

/// Ends a reading when it is cancelled.
struct Stoppable<H> {
    inner: H,
    keys: u64,
    cancel: CancellationToken,
}

impl<H> Stoppable<H> {
    fn new(inner: H, cancel: CancellationToken) -> Stoppable<H> {
        Stoppable {
            inner,
            keys: 0,
            cancel,
        }
    }
}

impl<H: Handler<Error = Failure>> Handler for Stoppable<H> {
    type Error = Failure;

    fn event(&mut self, event: crate::rdb::Event<'_>) -> Result<(), Failure> {
        if let crate::rdb::Event::Key(_) = event {
            self.keys += 1;
            if self.keys.is_multiple_of(1024) && self.cancel.is_cancelled() {
                return Err(Failure::new(Kind::Interrupted, "stopped; no file was made"));
            }
        }
        self.inner.event(event)
    }
}

fn route_of(request: &Request, begin_ms: i64) -> Route {
    Route {
        filters: request.filters.clone(),
        map: request.map.clone(),
        rename: request.rename.clone(),
        expiry: match request.ttl {
            Ttl::Keep => Expiry::Keep,
            Ttl::Shift => Expiry::Shift { begin_ms },
            Ttl::Strip => Expiry::Strip,
        },
        snapshot_ms: request.snapshot_ms,
    }
}

fn settings_of(
    request: &Request,
    stage: Stage,
    keys: u64,
    progress: &OnProgress,
    cancel: &CancellationToken,
) -> Settings {
    let progress = Arc::clone(progress);
    Settings {
        on_conflict: request.on_conflict,
        rate: request.rate,
        names: request.names,
        keys,
        progress: Arc::new(move |done| {
            progress(Progress {
                stage,
                keys: done,
                of: Some(keys),
            });
        }),
        cancel: cancel.clone(),
    }
}

async fn survey_of<B: Backup>(
    backup: &Arc<B>,
    route: &Route,
    now_ms: Option<i64>,
    holds: Option<Holds>,
    request: &Request,
    progress: &OnProgress,
    cancel: &CancellationToken,
) -> Result<Survey, Failure> {
    let backup = Arc::clone(backup);
    let progress = Arc::clone(progress);
    let tell = Box::new(move |keys| {
        progress(Progress {
            stage: Stage::Reading,
            keys,
            of: None,
        });
    });
    let surveyor = Surveyor::new(
        route.clone(),
        now_ms,
        holds,
        request.names,
        cancel.clone(),
        tell,
    );
    blocking(move || {
        let (surveyor, _) = backup.read(surveyor)?;
        Ok(surveyor.finish())
    })
    .await
}

async fn blocking<T, F>(work: F) -> Result<T, Failure>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Failure> + Send + 'static,
{
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            Err(Failure::new(Kind::Failed, "the backup was not read").cause(error.to_string()))
        })
}

/// Empties databases. Their memory is given back behind the scenes; where there is a limit to it, that is awaited.
async fn flush(
    endpoint: &Endpoint,
    facts: &TargetFacts,
    databases: &[u32],
    cancel: &CancellationToken,
) -> Result<(), Failure> {
    if databases.is_empty() {
        return Ok(());
    }
    let wrap = |source| Error::target(&facts.place, source);
    let mut wire = endpoint.wire().await.map_err(wrap)?;
    for db in databases {
        wire.call(&[b"SELECT", db.to_string().as_bytes()])
            .await
            .map_err(wrap)?;
        // ASYNC is of Redis 4.0.
        let asynchronous: &[&[u8]] = &[b"FLUSHDB", b"ASYNC"];
        let words = if facts.info.version.0 >= 4 {
            asynchronous
        } else {
            &asynchronous[..1]
        };
        wire.call(words).await.map_err(wrap)?;
    }
    // Without a limit there is nothing to wait for.
    let mut waiting = facts.info.maxmemory > 0;
    while waiting {
        let text = wire
            .call(&[b"INFO", b"memory"])
            .await
            .map_err(wrap)?
            .into_bytes()
            .unwrap_or_default();
        let info = crate::server::Facts::parse(&String::from_utf8_lossy(&text));
        let pending = info
            .get("lazyfree_pending_objects")
            .is_some_and(|pending| pending != "0");
        waiting = pending && !cancel.is_cancelled();
        if waiting {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// Loads the function libraries that the plan says. Returns how many.
async fn load(
    endpoint: &Endpoint,
    facts: &TargetFacts,
    libraries: &[Library],
    plans: &[LibraryPlan],
) -> Result<u64, Failure> {
    let wanted: Vec<(&Library, LibraryFate)> = libraries
        .iter()
        .zip(plans)
        .map(|(library, plan)| (library, plan.fate))
        .filter(|(_, fate)| matches!(fate, LibraryFate::Load | LibraryFate::Replace))
        .collect();
    if wanted.is_empty() {
        return Ok(0);
    }
    let mut wire = endpoint
        .wire()
        .await
        .map_err(|source| Error::target(&facts.place, source))?;
    for (library, fate) in &wanted {
        let mut words: Vec<&[u8]> = vec![b"FUNCTION", b"LOAD"];
        if *fate == LibraryFate::Replace {
            words.push(b"REPLACE");
        }
        words.push(&library.code);
        wire.call(&words).await.map_err(|source| Error::Function {
            place: facts.place.clone(),
            name: library.name.clone(),
            source: Box::new(source),
        })?;
    }
    Ok(wanted.len() as u64)
}
