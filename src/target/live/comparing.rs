//! A comparison as a whole: what is asked, and what the answers come to.

use std::sync::Arc;

use super::compare::{ExpiryQuestion, KeyComparer, Setup};
use super::known::Known;
use super::sample::Chosen;
use super::verdict::{Comparison, Counted, Verdict};
use super::{Settings, commands_per_batch, drive};
use crate::failure::{Failure, Kind};
use crate::rdb::value::FieldExpiries;
use crate::server::info::Version;
use crate::server::{self, Code, Endpoint, Facts};
use crate::target::pump::End;
use crate::target::{Error, Route, TargetFacts};

/// What is compared.
#[derive(Clone, Debug)]
pub struct Comparing {
    /// Which keys.
    pub chosen: Chosen,
    /// Whether the expiries of single fields arrived.
    pub expiries: FieldExpiries,
    /// What did not arrive, of single keys.
    pub known: Arc<Known>,
    /// How the keys' expiries were written.
    pub times: Times,
}

/// How expiries were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// As points in time.
    Absolute,
    /// Some as a time from then, so that they are a little late: RESTORE before Redis 5.0, SET before 6.2.
    FromThen,
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
    comparing: Comparing,
    settings: &Settings,
    read: R,
) -> Result<Comparison, Failure>
where
    R: FnOnce(KeyComparer) -> Result<KeyComparer, Failure> + Send + 'static,
{
    let wrap = |source| Error::target(&facts.place, source);
    // Before the first key: what must be there later was there now.
    let before = info(endpoint).await.map_err(wrap)?;
    let question = match facts.info.is_at_least(Version(7, 0, 0), Version(0, 0, 0)) {
        true => ExpiryQuestion::Absolute,
        false => ExpiryQuestion::Relative,
    };
    let times = comparing.times;
    let setup = Setup {
        route: route.clone(),
        clock: facts.clock,
        question,
        comparing,
        max_bulk: facts.max_bulk,
        skipped: settings.skipped.clone(),
        max_commands: commands_per_batch(settings.rate),
    };
    let (tell, told) = std::sync::mpsc::channel();
    let make = move |outlet| KeyComparer::new(outlet, setup, tell);
    let mut verdict = Verdict::new(settings, facts.clock, (question, times), told);
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
    found.after = info(endpoint).await.ok().flatten();
    if let Some(before) = before {
        let certain = comparer.certain.iter();
        found.counted = certain
            .map(|(db, expected)| Counted {
                db: db.0,
                expected: *expected,
                has: before.keyspace.get(&db.0).map_or(0, |size| size.keys),
            })
            .collect();
    }
    Ok(found)
}

/// What the server tells of itself; `None` when it does not.
async fn info(endpoint: &Endpoint) -> Result<Option<Facts>, server::Error> {
    let mut wire = endpoint.wire().await?;
    match wire.call(&[b"INFO"]).await {
        Ok(text) => {
            let text = text.into_bytes().unwrap_or_default();
            Ok(Some(Facts::parse(&String::from_utf8_lossy(&text))))
        }
        Err(server::Error::Reply { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
