//! The restore journey: a plan that can be shown, and then done.
//!
//! A backup is read two to four times, in full and checked each time: once to learn what it holds and that it is whole,
//! once more to look for keys that the target has already (only where it has any), and once to write.
//! [`prepare`] does the first two and changes nothing; [`Prepared::run`] does the last, and reads the backup once more to
//! compare what the target has then. [`to_file`] is the way into a file.
//!
//! What it promises: the target is not touched before the backup has been read and checked in full, and nothing is
//! written when the plan finds that something can't be.

mod before;
mod check;
mod examine;
mod fetch;
mod file;
mod fit;
mod found;
mod judge;
mod library;
mod memory;
mod modules;
mod plan;
mod prepare;
mod scales;
mod show;
mod survey;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub use check::{Check, Checked};
pub use fetch::{NotFetched, fetch};
pub use file::{plan_file, to_file};
pub use found::{Depth, Holds, Loss, Survey, Surveyed, UnheldKeys, WayCounts};
pub use library::Library;
pub use memory::MemoryPlan;
pub use plan::{ConflictPlan, DatabasePlan, LibraryFate, LibraryPlan, Plan, UnheldPlan};
pub use prepare::prepare;
pub use scales::Scales;
pub use survey::Surveyor;

use crate::failure::{Failure, Kind};
use crate::rdb::value::FieldExpiries;
use crate::rdb::{DbIndex, Event, Handler, Report};
use crate::selection::{Filters, KeyNames};
use crate::server::Endpoint;
use crate::stage;
use crate::target::facts::TargetFacts;
use crate::target::live::{
    self, Comparing, Losses, OnConflict, Settings, SkippedKeys, Times, Ways, Written,
};
use crate::target::way::Mode;
use crate::target::{Expiry, Rename, Route};
use crate::units::HumanCount;

/// A backup that can be read, as often as it is asked for.
pub trait Backup: Send + Sync + 'static {
    /// Reads the whole backup and feeds its events to `handler`, verifying all that can be: digests where there are some, or
    /// that it is the same as in an earlier reading, structure and checksum. Returns the handler when everything was found whole. Blocks; called on a thread for such work.
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
    /// How values are written.
    pub mode: Mode,
    /// What becomes of what the target can't hold.
    pub loss: Loss,
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
    /// How much of what was written is compared with the backup afterwards.
    pub check: Check,
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
    /// What was written is compared with the backup.
    Checking,
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
#[derive(Clone, Debug, Default, Serialize)]
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
    /// Keys, of those written, whose value went in a plainer layout than it had.
    pub recoded: u64,
    /// Keys, of those written, that were made by plain commands.
    pub commands: u64,
    /// What the target could not hold, and was left out.
    #[serde(skip_serializing_if = "Losses::is_none")]
    pub losses: Losses,
    /// Whether a part of the file that was written can't be read: it has keys that are not counted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub opaque: bool,
    /// The length of the file that was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// What the check afterwards found; absent where none was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checked: Option<Checked>,
}

/// Why a restore did not end well.
#[derive(Debug)]
pub struct NotGood {
    /// Why.
    pub failure: Failure,
    /// What was done, where all was written and the check afterwards found something wrong.
    pub outcome: Option<Box<Outcome>>,
}

impl From<Failure> for NotGood {
    fn from(failure: Failure) -> NotGood {
        NotGood {
            failure,
            outcome: None,
        }
    }
}

/// A restore to a live server, ready to run.
pub struct Prepared<B> {
    backup: Arc<B>,
    endpoint: Endpoint,
    facts: TargetFacts,
    route: Route,
    ways: Ways,
    request: Request,
    libraries: Vec<Library>,
    /// The hash of the largest key.
    largest: Option<u64>,
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

impl<B: Backup> Prepared<B> {
    /// What is going to be done.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Does it. Whether a person agrees ([`Plan::question`]) is asked before.
    ///
    /// # Errors
    /// What the plan refuses, and whatever happens meanwhile; each error says how much was written.
    pub async fn run(self) -> Result<Outcome, NotGood> {
        if let Some(refusal) = self.plan.refusal.clone() {
            return Err(refusal.cause("nothing was written").into());
        }
        if self.cancel.is_cancelled() {
            return Err(survey::stopped().into());
        }
        // Before anything is deleted: FLUSHDB leaves functions alone, and a library may be refused.
        let functions = before::load(
            &self.endpoint,
            &self.facts,
            &self.libraries,
            &self.plan.functions,
        )
        .await?;
        let mut emptied = before::Emptied::default();
        let databases: Vec<u32> = self.plan.flush.keys().copied().collect();
        before::flush(
            &self.endpoint,
            &self.facts,
            &databases,
            &self.cancel,
            &mut emptied,
        )
        .await
        .map_err(|failure| emptied.told(failure))?;
        let settings = settings_of(
            &self.request,
            Stage::Writing,
            self.plan.keys,
            &self.progress,
            &self.cancel,
        );
        let reader = Arc::clone(&self.backup);
        let read = move |handler| reader.read(handler).map(|(handler, _)| handler);
        // What is left of a key's time counts from here, however long the question took that was asked before.
        let mut route = self.route.clone();
        if let Expiry::Shift { begin_ms } = &mut route.expiry {
            *begin_ms = self.facts.clock.now_ms();
        }
        let written = live::write(
            &self.endpoint,
            &self.facts,
            &route,
            &self.ways,
            &settings,
            read,
        )
        .await
        .map_err(|failure| emptied.told(failure))?;
        let (checked, wrong) = match self.request.check {
            Check::None => (None, None),
            Check::All | Check::Sample => {
                let (checked, wrong) = self.check(&route, &settings, written).await?;
                (Some(checked), wrong)
            }
        };
        let unloaded = |library: &&LibraryPlan| library.fate == LibraryFate::Unheld;
        let outcome = Outcome {
            target: self.plan.target,
            keys: written.keys,
            skipped: written.skipped,
            expired: written.expired,
            left_out: written.left_out,
            functions,
            recoded: written.recoded,
            commands: written.by_commands,
            losses: Losses {
                functions: self.plan.functions.iter().filter(unloaded).count() as u64,
                ..written.losses
            },
            opaque: false,
            bytes: None,
            checked,
        };
        match wrong {
            None => Ok(outcome),
            Some(failure) => Err(NotGood {
                failure,
                outcome: Some(Box::new(outcome)),
            }),
        }
    }

    /// Compares what was written with the backup: what was found, and what of it is wrong.
    async fn check(
        &self,
        route: &Route,
        written_by: &Settings,
        written: Written,
    ) -> Result<(Checked, Option<Failure>), Failure> {
        let check = self.request.check;
        let keys = written.keys + written.skipped;
        let mut settings = settings_of(
            &self.request,
            Stage::Checking,
            check.about(keys),
            &self.progress,
            &self.cancel,
        );
        settings.skipped = written_by.skipped.clone();
        (settings.progress)(0);
        stage::reached("before-check");
        let chosen = check.chosen(keys, self.largest);
        let reader = Arc::clone(&self.backup);
        let read = move |handler| reader.read(handler).map(|(handler, _)| handler);
        let comparing = Comparing {
            chosen,
            expiries: match written.losses.field_expiries {
                0 => FieldExpiries::Count,
                _ => FieldExpiries::Ignored,
            },
            known: Arc::clone(&self.ways.known),
            times: match self.facts.has_absolute_ttl()
                && (written.by_commands == 0 || self.ways.abilities.dialect.set_pxat)
            {
                true => Times::Absolute,
                false => Times::FromThen,
            },
        };
        let found = live::compare(
            &self.endpoint,
            &self.facts,
            route,
            comparing,
            &settings,
            read,
        )
        .await
        .map_err(|failure| {
            failure.context(format!(
                "all {} written to {}, but not compared with the backup",
                HumanCount(written.keys).of("key was", "keys were"),
                self.facts.place
            ))
        })?;
        let checked = Checked::of(check, &found, &self.facts);
        let place = &self.facts.place;
        let wrong = checked.wrong(&found, written.keys, place, self.request.names);
        Ok((checked, wrong))
    }
}

/// How many bytes may pass before it is looked whether somebody stopped it.
const ATTENTION_BYTES: usize = 1 << 20;

/// Notices that it was stopped: after so many bytes as much as after so many keys, as keys may be few and values huge.
struct Attention {
    cancel: CancellationToken,
    bytes: usize,
}

impl Attention {
    fn new(cancel: CancellationToken) -> Attention {
        Attention { cancel, bytes: 0 }
    }

    /// Whether it was stopped, as far as that is looked at with this event.
    fn is_stopped(&mut self, event: &Event<'_>) -> bool {
        self.bytes = self.bytes.saturating_add(event.raw().len());
        if self.bytes < ATTENTION_BYTES {
            return false;
        }
        self.bytes = 0;
        self.cancel.is_cancelled()
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
        skipped: SkippedKeys::default(),
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
    let stop = cancel.clone();
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
        if stop.is_cancelled() {
            return Err(survey::stopped());
        }
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
