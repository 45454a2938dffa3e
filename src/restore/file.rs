//! The way into a file.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::fit;
use super::found::Survey;
use super::plan::{self, Plan};
use super::{
    Attention, Backup, Check, Checked, OnProgress, Outcome, Progress, Request, Stage, blocking,
    route_of, survey_of,
};
use crate::failure::{Failure, Kind};
use crate::rdb::{DbIndex, Event, FromFn, Handler, Scanner, from_fn};
use crate::target::file::{Copy, Existing, PendingFile, Rewrite};
use crate::target::{Expiry, Route};
use crate::units::HumanCount;

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
        let (check, written) = (request.check, path.to_owned());
        let copied = blocking(move || {
            let (copy, report) = backup.read(copy)?;
            copy.check()?;
            let keys = copy.keys;
            Ok(Outcome {
                target,
                keys,
                opaque: report.opaque.is_some(),
                bytes: Some(copy.inner.finish()?),
                checked: read_back(check, &written, keys)?,
                ..Outcome::default()
            })
        });
        return copied.await;
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
    let (check, path) = (request.check, path.to_owned());
    let (written, checked) = blocking(move || {
        let (rewrite, _) = backup.read(rewrite)?;
        rewrite.check()?;
        let written = rewrite.inner.finish()?;
        let checked = read_back(check, &path, written.keys)?;
        Ok((written, checked))
    })
    .await?;
    Ok(Outcome {
        target,
        keys: written.keys,
        expired: written.expired,
        left_out: written.left_out,
        functions: plan.functions.len() as u64,
        bytes: Some(written.bytes),
        checked,
        ..Outcome::default()
    })
}

/// Reads the file that was written: it must be whole, and have so many keys.
fn read_back(check: Check, path: &Path, keys: u64) -> Result<Option<Checked>, Failure> {
    if check == Check::None {
        return Ok(None);
    }
    let wrong = |why: String| {
        Failure::new(
            Kind::Failed,
            format!("{} was written, but does not read back", path.display()),
        )
        .cause(why)
        .hint("do not use it; look at the disk, and restore again")
    };
    let mut found = 0;
    let mut count = from_fn(|event: Event<'_>| {
        found += u64::from(matches!(event, Event::Key(_)));
        Ok::<(), Infallible>(())
    });
    let read = |count: &mut FromFn<_>| {
        let mut file = File::open(path).map_err(|error| error.to_string())?;
        let mut scanner = Scanner::new();
        let mut block = vec![0; 256 << 10];
        loop {
            let length = file.read(&mut block).map_err(|error| error.to_string())?;
            if length == 0 {
                break;
            }
            let fed = scanner.feed(&block[..length], count);
            fed.map_err(|error| error.to_string())?;
        }
        let finished = scanner.finish(count);
        finished.map(drop).map_err(|error| error.to_string())
    };
    read(&mut count).map_err(wrong)?;
    if found != keys {
        return Err(wrong(format!(
            "it has {}, and {} written",
            HumanCount(found).of("key", "keys"),
            HumanCount(keys).of("was", "were")
        )));
    }
    Ok(Some(Checked::file(check, found)))
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
    fit::known(&route.map, &survey)?;
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
