//! The sweep: it walks the keys of a server, looks at those that rules take, decides, and acts.
//!
//! Promises:
//! - A key is acted upon only in one step with a check that it still is what was decided upon. One that was
//!   used, renewed, changed or removed meanwhile is left for the next run.
//! - [`Mode::Report`] sends no writing command, and needs no more than reading. No mode disturbs idle times where
//!   the server knows CLIENT NO-TOUCH (Redis 7.2 and later, every Valkey).
//! - Before anything is done the server is looked at (what it is, what this user may), and again after every lost connection.
//!
//! The traps: SCAN may give a key twice, so counts are close and not exact while a server rehashes. And what a
//! pipeline asks for the server holds in memory until it is read, so long values are asked for one at a time.

mod acl;
mod act;
mod error;
mod guard;
mod idle;
mod look;
mod marker;
mod pipe;
mod values;
mod walk;
mod watch;

use std::collections::BTreeSet;
use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use super::Observer;
use crate::config::SessionRule;
use crate::meter::Meter;
use crate::server::Endpoint;

pub use acl::acl_line;
pub use error::{Error, Guard};

/// What a sweep is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything is looked at, also keys that no rule takes; nothing is refused that can be warned of.
    Report,
    /// As [`Mode::Expire`], but nothing is written.
    DryRun,
    /// What was decided is done.
    Expire,
}

/// A sweep to be done.
#[derive(Clone, Debug)]
pub struct Job {
    /// The server.
    pub endpoint: Endpoint,
    /// Its databases that are meant; `None`: all that have keys.
    pub databases: Option<BTreeSet<u32>>,
    /// The rules, in the order of the configuration: the first that takes a key decides.
    pub rules: Vec<SessionRule>,
    /// What for.
    pub mode: Mode,
    /// COUNT of SCAN, and keys in one step; at least 1.
    pub batch: usize,
    /// Keys a second; 0 is without limit.
    pub max_keys_per_second: u64,
    /// Where what was observed of the server's forks is kept, for rules with `idle`.
    pub state_dir: Option<PathBuf>,
    /// The name of the database in the configuration, which names the file in `state_dir`.
    pub name: String,
    /// Stops it, between two batches.
    pub cancel: CancellationToken,
    /// Counts keys.
    pub meter: Meter,
}

impl Job {
    /// All databases, 100 keys at a time without limit, no state folder.
    pub fn new(endpoint: Endpoint, rules: Vec<SessionRule>, mode: Mode) -> Job {
        Job {
            endpoint,
            databases: None,
            rules,
            mode,
            batch: 100,
            max_keys_per_second: 0,
            state_dir: None,
            name: "default".to_owned(),
            cancel: CancellationToken::new(),
            meter: Meter::default(),
        }
    }
}

/// A database that was swept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SweptDatabase {
    /// Its number.
    pub db: u32,
    /// Its keys by DBSIZE when it was begun, expired ones that were not removed yet included; `None` where
    /// the server does not tell.
    pub keys: Option<u64>,
}

/// A sweep that came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swept {
    /// The server, without user and password.
    pub address: String,
    /// `redis 7.0.15`; `None` where INFO is refused.
    pub server: Option<String>,
    /// `master` or `slave`; `None` where INFO is refused.
    pub role: Option<&'static str>,
    /// The databases, in their order.
    pub databases: Vec<SweptDatabase>,
    /// Keys that SCAN gave, those of a database that was begun again included.
    pub scanned: u64,
    /// How often the connection was lost and made again.
    pub reconnects: u64,
    /// How often a database was begun again, because the server had been restarted: its keys were told twice.
    pub restarts: u64,
    /// Why nothing counts as idle yet, of a rule that has `idle`: it passes with time.
    pub idle_waits: Option<String>,
    /// What a person should know.
    pub warnings: Vec<String>,
    /// When it began: Unix time in milliseconds, by the server's clock.
    pub started_ms: i64,
    /// When it was done.
    pub finished_ms: i64,
}

/// Walks, looks, decides, acts, and tells `observer` of every key.
///
/// # Errors
/// [`Error`]. What was done until then was told.
pub async fn sweep(job: Job, observer: &mut dyn Observer) -> Result<Swept, Error> {
    walk::sweep(job, observer).await
}
