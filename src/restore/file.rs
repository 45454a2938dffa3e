//! The way into a file.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::fit;
use super::found::Survey;
use super::plan::{self, Plan};
use super::{
    Attention, Backup, OnProgress, Outcome, Progress, Request, Stage, blocking, route_of, survey_of,
};
use crate::failure::{Failure, Kind};
use crate::rdb::{DbIndex, Event, Handler};
use crate::target::file::{Copy, Existing, PendingFile, Rewrite};
use crate::target::{Expiry, Route};

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
        let copy = Watched::new(Copy::new(file), None, progress, cancel);
        let copied = blocking(move || {
            let (copy, _) = backup.read(copy)?;
            copy.check()?;
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
            ..Outcome::default()
        });
    }
    let (plan, survey) =
        survey_for_file(&backup, &target, &mut route, &request, &progress, &cancel).await?;
    if let Some(refusal) = plan.refusal {
        return Err(refusal);
    }
    // Of all keys in the backup, as they are all read.
    let keys = plan.keys + plan.expired + plan.left_out;
    let mut sizes: BTreeMap<DbIndex, (u64, u64)> = BTreeMap::new();
    for (db, found) in &survey.databases {
        let size = sizes.entry(route.database(*db)).or_default();
        size.0 += found.keys;
        size.1 += found.expires;
    }
    if let Expiry::Shift { begin_ms } = &mut route.expiry {
        *begin_ms = jiff::Timestamp::now().as_millisecond();
    }
    let rewrite = Watched::new(
        Rewrite::new(file, route, sizes),
        Some(keys),
        progress,
        cancel,
    );
    let written = blocking(move || {
        let (rewrite, _) = backup.read(rewrite)?;
        rewrite.check()?;
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
        ..Outcome::default()
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
    route.check_snapshot(jiff::Timestamp::now().as_millisecond())?;
    if let Some(into) = request.into {
        fit::into_one(route, into, &survey.meant_databases(&request.filters))?;
    }
    let plan = Plan::of(&plan::Ingredients {
        place: target,
        facts: None,
        lacking: &[],
        survey: &survey,
        route,
        on_conflict: request.on_conflict,
        flush: false,
        mode: request.mode,
        loss: request.loss,
        conflicts: None,
    });
    Ok((plan, survey))
}

/// Tells how far a reading is, and ends it when it is cancelled.
struct Watched<H> {
    inner: H,
    keys: u64,
    of: Option<u64>,
    progress: OnProgress,
    attention: Attention,
}

impl<H> Watched<H> {
    fn new(
        inner: H,
        of: Option<u64>,
        progress: OnProgress,
        cancel: CancellationToken,
    ) -> Watched<H> {
        Watched {
            inner,
            keys: 0,
            of,
            progress,
            attention: Attention::new(cancel),
        }
    }

    /// Whether it may go on.
    fn check(&self) -> Result<(), Failure> {
        match self.attention.cancel.is_cancelled() {
            false => Ok(()),
            true => Err(Failure::new(Kind::Interrupted, "stopped; no file was made")),
        }
    }
}

impl<H: Handler<Error = Failure>> Handler for Watched<H> {
    type Error = Failure;

    fn event(&mut self, event: Event<'_>) -> Result<(), Failure> {
        if self.attention.is_stopped(&event) {
            self.check()?;
        }
        if let Event::Key(_) = event {
            self.keys += 1;
            if self.keys.is_multiple_of(1024) {
                (self.progress)(Progress {
                    stage: Stage::Writing,
                    keys: self.keys,
                    of: self.of,
                });
                self.check()?;
            }
        }
        self.inner.event(event)
    }
}
