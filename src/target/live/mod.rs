//! A live server as a target: keys are written by pipelined RESTORE, and looked for by EXISTS before.
//!
//! A thread reads the backup and makes batches; a pump sends them. The numbers in every result and every
//! error count the server's own answers, never what was sent.

mod compare;
mod feed;
mod judge;
mod sample;
mod skipped;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use self::compare::KeyComparer;
use self::compare::{ExpiryQuestion, Setup};
use self::feed::{Feeder, Outlet};
pub use self::feed::{KeyLooker, KeySender};
use self::judge::{Look, Tally};
pub use self::sample::{Chosen, key_hash};
pub use self::skipped::{Skipped, SkippedKeys};
use self::verdict::Verdict;
pub use self::verdict::{Comparison, Counted, Difference, Unlike};
use super::pump::{End, Judge, pump};
use super::{Error, Route, TargetFacts};
use crate::failure::{Failure, Kind};
use crate::rdb::DbIndex;
use crate::rdb::value::FieldExpiries;
use crate::selection::KeyNames;
use crate::server::info::{Keyspace, Version};
use crate::server::{self, Code, Endpoint, Facts};
use crate::units::HumanCount;

/// Batches that wait for the pump. With those in flight they are what a restore keeps in memory.
const WAITING: usize = 4;

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
    settings: &Settings,
    read: R,
) -> Result<Written, Failure>
where
    R: FnOnce(KeySender) -> Result<KeySender, Failure> + Send + 'static,
{
    let replace = settings.on_conflict == OnConflict::Replace;
    let target = (facts.rdb, facts.clock, facts.has_absolute_ttl());
    let route = route.clone();
    let max_commands = commands_per_batch(settings.rate);
    let make = move |outlet| KeySender::new(outlet, max_commands, route, target, replace);
    let mut tally = Tally::new(facts, settings);
    let (ended, read) = drive(
        endpoint,
        &mut tally,
        settings.rate,
        &settings.cancel,
        make,
        read,
    )
    .await;
    tally.conclude(ended)?;
    (settings.progress)(tally.written.keys + tally.written.skipped);
    // Only now: when the pump has stopped, the reader's complaint is that nobody takes its batches.
    let written = tally.written.keys;
    let sender = read.map_err(|failure| {
        failure.context(format!(
            "the backup could not be read to its end; {} keys were written to {}",
            HumanCount(written),
            facts.place
        ))
    })?;
    Ok(Written {
        expired: sender.expired,
        left_out: sender.left_out,
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

/// Compares what was written with the backup: the chosen keys one by one, and how many there are in each database.
///
/// `route` is the one that was written by. Where the server forbids a question, that is in the result, with what was
/// compared until then.
///
/// # Errors
/// What `read` says, or [`Error`]; none of them says that something is wrong on the target.
pub async fn compare<R>(
    endpoint: &Endpoint,
    facts: &TargetFacts,
    route: &Route,
    (chosen, expiries): (Chosen, FieldExpiries),
    settings: &Settings,
    read: R,
) -> Result<Comparison, Failure>
where
    R: FnOnce(KeyComparer) -> Result<KeyComparer, Failure> + Send + 'static,
{
    let wrap = |source| Error::target(&facts.place, source);
    // Before the first key: what must be there later was there now.
    let sizes = sizes(endpoint).await.map_err(wrap)?;
    let question = match facts.info.is_at_least(Version(7, 0, 0), Version(0, 0, 0)) {
        true => ExpiryQuestion::Absolute,
        false => ExpiryQuestion::Relative,
    };
    let setup = Setup {
        route: route.clone(),
        clock: facts.clock,
        chosen,
        question,
        expiries,
        skipped: settings.skipped.clone(),
        max_commands: commands_per_batch(settings.rate),
    };
    let (tell, told) = std::sync::mpsc::channel();
    let make = move |outlet| KeyComparer::new(outlet, setup, tell);
    let mut verdict = Verdict::new(settings, facts, question, told);
    let (ended, read) = drive(
        endpoint,
        &mut verdict,
        settings.rate,
        &settings.cancel,
        make,
        read,
    )
    .await;
    let end = ended.map_err(wrap)?;
    let Verdict {
        mut found, refused, ..
    } = verdict;
    if let Some((command, reply)) = refused {
        // A command that is renamed away is forbidden, too.
        if !matches!(reply.code, Code::NoPerm | Code::Err) {
            return Err(wrap(server::Error::Reply { command, reply }).into());
        }
        found.forbidden = Some((command, reply));
        return Ok(found);
    }
    if end == End::Cancelled {
        return Err(Failure::new(Kind::Interrupted, "stopped"));
    }
    let comparer = read?;
    (settings.progress)(found.keys);
    if let Some(sizes) = sizes {
        let certain = comparer.certain.iter();
        found.counted = certain
            .map(|(db, expected)| Counted {
                db: db.0,
                expected: *expected,
                has: sizes.get(&db.0).map_or(0, |size| size.keys),
            })
            .collect();
    }
    Ok(found)
}

/// How many keys each database has; `None` when the server does not tell.
async fn sizes(endpoint: &Endpoint) -> Result<Option<BTreeMap<u32, Keyspace>>, server::Error> {
    let mut wire = endpoint.wire().await?;
    match wire.call(&[b"INFO", b"keyspace"]).await {
        Ok(text) => {
            let text = text.into_bytes().unwrap_or_default();
            Ok(Some(Facts::parse(&String::from_utf8_lossy(&text)).keyspace))
        }
        Err(server::Error::Reply { .. }) => Ok(None),
        Err(error) => Err(error),
    }
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
        feeder.lane().end()?;
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
