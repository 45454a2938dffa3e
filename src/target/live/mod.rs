//! A live server as a target: keys are written by pipelined RESTORE or by plain commands, and looked for by EXISTS before.
//!
//! A thread reads the backup and makes batches; a pump sends them. The numbers in every result and every
//! error count the server's own answers, never what was sent.

mod compare;
mod comparing;
mod feed;
mod judge;
mod known;
mod lane;
mod maker;
mod making;
mod sample;
mod sender;
mod skipped;
mod verdict;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use self::compare::KeyComparer;
pub use self::comparing::{Comparing, Times, compare};
use self::feed::Feeder;
pub use self::feed::KeyLooker;
use self::judge::{Look, Tally};
pub use self::known::{Known, Numbers};
use self::lane::Outlet;
use self::making::Making;
pub use self::sample::{Chosen, key_hash};
pub use self::sender::KeySender;
use self::sender::Means;
pub use self::skipped::{Skipped, SkippedKeys};
pub use self::verdict::{Comparison, Counted, Difference, Unlike};
use super::pump::{End, Judge, pump};
use super::way::Abilities;
use super::{Error, Route, TargetFacts};
use crate::failure::{Failure, Kind};
use crate::rdb::DbIndex;
use crate::selection::KeyNames;
use crate::server::{self, Endpoint};
use crate::units::HumanCount;

/// Batches that wait for the pump. With those in flight they are what a restore keeps in memory.
const WAITING: usize = 4;

/// How long the removal of what is half made may take.
const SWEEP: Duration = Duration::from_secs(3);

/// After the end of a run, how long the reading thread is waited for.
const READER_GRACE: Duration = Duration::from_secs(4);

/// What happens to a key that the target has already: `--on-conflict`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnConflict {
    /// Nothing is written.
    #[default]
    Fail,
    /// The target's key stays.
    Skip,
    /// The backup's key takes its place.
    Replace,
}

impl OnConflict {
    /// The word on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            OnConflict::Fail => "fail",
            OnConflict::Skip => "skip",
            OnConflict::Replace => "replace",
        }
    }
}

/// How keys are written.
#[derive(Clone)]
pub struct Settings {
    /// For keys that are there, or appear while the restore runs.
    pub on_conflict: OnConflict,
    /// Keys a second; 0 is no limit.
    pub rate: u64,
    /// Whether errors show key names.
    pub names: KeyNames,
    /// How many keys there are to write, for what errors say.
    pub keys: u64,
    /// Told now and then how many keys are answered.
    pub progress: Arc<dyn Fn(u64) + Send + Sync>,
    /// Stops it.
    pub cancel: CancellationToken,
    /// Takes the names of the keys that were there and stayed.
    pub skipped: SkippedKeys,
}

/// What was written, by the server's answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Keys written.
    pub keys: u64,
    /// Keys that were there and stayed.
    pub skipped: u64,
    /// Keys that were over by the target's clock, and left out.
    pub expired: u64,
    /// Keys that the filters left out.
    pub left_out: u64,
    /// Keys, of those written, whose value went in a plainer layout than it had.
    pub recoded: u64,
    /// Keys, of those written, that were made by plain commands.
    pub by_commands: u64,
    /// What the target could not hold.
    pub losses: Losses,
}

/// What of a backup a target could not hold, and was left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Losses {
    /// Keys.
    pub keys: u64,
    /// Keys that came without their metadata.
    pub metadata: u64,
    /// Fields of hashes that came without their expiry.
    pub field_expiries: u64,
    /// Elements that are longer than the target takes.
    pub elements: u64,
    /// Pending entries of streams.
    pub pending_entries: u64,
    /// Function libraries.
    pub functions: u64,
}

impl Losses {
    /// Whether nothing was left out.
    pub fn is_none(&self) -> bool {
        *self == Losses::default()
    }
}

/// By which ways values go, and what is known of single keys.
#[derive(Clone, Debug)]
pub struct Ways {
    /// What the target can do.
    pub abilities: Abilities,
    /// What was found out about single keys.
    pub known: Arc<Known>,
}

/// Keys that the target has already.
#[derive(Clone, Debug, Default)]
pub struct Conflicts {
    /// How many.
    pub keys: u64,
    /// The first few, masked unless they may be shown: database and name.
    pub samples: Vec<(u32, String)>,
}

/// Writes the keys that `read` feeds to the handler it is given. `read` runs on a thread of its own, reads the whole
/// backup and returns the handler.
///
/// # Errors
/// What `read` says, or [`Error`]: each tells how many keys were written.
pub async fn write<R>(
    endpoint: &Endpoint,
    facts: &TargetFacts,
    route: &Route,
    ways: &Ways,
    settings: &Settings,
    read: R,
) -> Result<Written, Failure>
where
    R: FnOnce(KeySender) -> Result<KeySender, Failure> + Send + 'static,
{
    let run = getrandom::u64().map_err(|error| {
        Failure::new(Kind::Failed, "the system gives no random numbers").cause(error.to_string())
    })?;
    let making = Arc::new(Making::new(run));
    let means = Means {
        route: route.clone(),
        clock: facts.clock,
        abilities: ways.abilities,
        absolute: facts.has_absolute_ttl(),
        on_conflict: settings.on_conflict,
        names: settings.names,
        known: Arc::clone(&ways.known),
        making: Arc::clone(&making),
    };
    let max_commands = commands_per_batch(settings.rate);
    let make = move |outlet| KeySender::new(outlet, max_commands, means);
    let mut tally = Tally::new(facts, settings, &making);
    let (ended, read) = drive(
        endpoint,
        &mut tally,
        settings.rate,
        &settings.cancel,
        make,
        read,
    )
    .await;
    sweep(endpoint, making.left()).await;
    tally.conclude(ended)?;
    (settings.progress)(tally.written.keys + tally.written.skipped);
    // Only now: when the pump has stopped, the reader's complaint is that nobody takes its batches.
    let written = tally.written.keys;
    let sender = read.map_err(|failure| {
        failure.context(format!(
            "the backup could not be read to its end; {} written to {}",
            HumanCount(written).of("key was", "keys were"),
            facts.place
        ))
    })?;
    Ok(Written {
        expired: sender.expired,
        left_out: sender.left_out,
        losses: sender.losses,
        ..tally.written
    })
}

/// Looks which of the keys that would be written are there already, in those databases of the target.
///
/// # Errors
/// What `read` says, or [`Error`].
pub async fn look<R>(
    endpoint: &Endpoint,
    facts: &TargetFacts,
    route: &Route,
    databases: BTreeSet<DbIndex>,
    settings: &Settings,
    read: R,
) -> Result<Conflicts, Failure>
where
    R: FnOnce(KeyLooker) -> Result<KeyLooker, Failure> + Send + 'static,
{
    let (route, clock) = (route.clone(), facts.clock);
    let max_commands = commands_per_batch(settings.rate);
    let make = move |outlet| KeyLooker::new(outlet, max_commands, route, clock, databases);
    let mut judge = Look::new(settings);
    let (ended, read) = drive(
        endpoint,
        &mut judge,
        settings.rate,
        &settings.cancel,
        make,
        read,
    )
    .await;
    let wrap = |source| Error::target(&facts.place, source);
    let end = ended.map_err(wrap)?;
    if let Some(reply) = judge.refused {
        let command = "EXISTS".to_owned();
        return Err(wrap(server::Error::Reply { command, reply }).into());
    }
    if end == End::Cancelled {
        return Err(Failure::new(
            Kind::Interrupted,
            "stopped before anything was written",
        ));
    }
    read?;
    Ok(judge.found)
}

/// Removes what is half made. Where that fails, its expiry does it within the hour.
async fn sweep(endpoint: &Endpoint, left: Vec<(u32, Vec<u8>)>) {
    let Some((_, first)) = left.first() else {
        return;
    };
    let first = String::from_utf8_lossy(first).into_owned();
    let removal = async {
        let mut wire = endpoint.wire().await?;
        for (db, temporary) in &left {
            wire.call(&[b"SELECT", db.to_string().as_bytes()]).await?;
            wire.call(&[b"DEL", temporary]).await?;
        }
        Ok::<(), server::Error>(())
    };
    let why = match tokio::time::timeout(SWEEP, removal).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it took too long".to_owned(),
    };
    tracing::warn!(
        "the key {first}, half made, may be left on the target: {why}; it expires within an hour"
    );
}

/// With a rate, batches are small enough to be spread over the second.
fn commands_per_batch(rate: u64) -> usize {
    match rate {
        0 => usize::MAX,
        rate => usize::try_from(rate / 20).unwrap_or(usize::MAX),
    }
}

async fn drive<F, R>(
    endpoint: &Endpoint,
    judge: &mut (impl Judge + Send),
    rate: u64,
    cancel: &CancellationToken,
    make: impl FnOnce(Outlet) -> F,
    read: R,
) -> (Result<End, server::Error>, Result<F, Failure>)
where
    F: Feeder,
    R: FnOnce(F) -> Result<F, Failure> + Send + 'static,
{
    let gone = || Failure::new(Kind::Failed, "the backup was not read");
    let wire = match endpoint.wire().await {
        Ok(wire) => wire,
        Err(error) => return (Err(error), Err(gone())),
    };
    let (outlet, batches) = mpsc::channel(WAITING);
    let feeder = make(Outlet::new(outlet));
    let reading = tokio::task::spawn_blocking(move || {
        let mut feeder = read(feeder)?;
        feeder.finish()?;
        feeder.lane().close();
        Ok(feeder)
    });
    let ended = pump(wire, batches, judge, rate, cancel).await;
    let read = match &ended {
        Ok(End::Done) => reading.await,
        // It ends with the next batch that nobody takes; a storage that stalls must not hold us up.
        _ => match tokio::time::timeout(READER_GRACE, reading).await {
            Ok(read) => read,
            Err(_) => return (ended, Err(gone())),
        },
    };
    (ended, read.unwrap_or_else(|_| Err(gone())))
}
