//! A piece of work as it is configured, whoever asks for it: the daemon, a timer, a person.
//!
//! A run takes the host lock of its database, does the journey, and leaves a record in the state folder.
//! The trap: nothing here may fail a backup that was made. What goes wrong around it is told, and stays
//! beside the result.

mod backup;
pub mod hooks;
pub mod ledger;
pub mod notices;
mod prune;
mod sessions;
pub mod settle;
pub mod teller;
mod verify;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::backup::Made;
use crate::config::{Config, DatabaseConfig};
use crate::failure::{Failure, Kind};
use crate::meter::Meter;
use crate::prune::Gate;
use crate::setup;

use self::ledger::{Attempt, Ledger, Record};
use self::notices::{Ended, ending};
use self::teller::{Patience, Teller};

/// A kind of work for a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Task {
    /// Backing it up (`schedule`).
    Backup,
    /// Reading its newest backup back whole (`verify_schedule`).
    Verify,
    /// Expiring its old sessions (`sessions_schedule`).
    Sessions,
}

impl Task {
    /// All of them.
    pub const ALL: [Task; 3] = [Task::Backup, Task::Verify, Task::Sessions];

    /// The word in files, metrics and documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Task::Backup => "backup",
            Task::Verify => "verify",
            Task::Sessions => "sessions",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Does what is configured, and keeps the record of it.
#[derive(Debug)]
pub struct Keeper<'a> {
    config: &'a Config,
    host: String,
    ledger: Ledger,
    cancel: CancellationToken,
    meter: Meter,
    teller: Teller,
    hook_limit: Duration,
    gate: Gate,
    /// The databases whose backups have settled.
    settled: Mutex<BTreeSet<String>>,
}

/// How long a command waits at its end for notices that are not delivered yet; less when it was stopped.
const FAREWELL: Duration = Duration::from_secs(15);
const FAREWELL_STOPPED: Duration = Duration::from_secs(2);

impl<'a> Keeper<'a> {
    /// One that stops when `cancel` is, and tells as a command does: see [`Keeper::farewell`].
    pub fn new(config: &'a Config, cancel: CancellationToken) -> Keeper<'a> {
        Keeper {
            config,
            host: setup::host_name(),
            ledger: Ledger::new(&config.daemon.state_dir),
            cancel,
            meter: Meter::default(),
            teller: Teller::new(Patience::COMMAND),
            hook_limit: hooks::LIMIT,
            gate: Gate::default(),
            settled: Mutex::default(),
        }
    }

    /// Tells by this teller, which whoever made it drains.
    #[must_use]
    pub fn telling_by(mut self, teller: Teller) -> Keeper<'a> {
        self.teller = teller;
        self
    }

    /// Removes nothing while this gate is closed, also in the middle of it.
    #[must_use]
    pub fn with_gate(mut self, gate: Gate) -> Keeper<'a> {
        self.gate = gate;
        self
    }

    /// Gives hooks another time limit than [`hooks::LIMIT`].
    #[must_use]
    pub fn with_hook_limit(mut self, limit: Duration) -> Keeper<'a> {
        self.hook_limit = limit;
        self
    }

    /// Waits, for some seconds, until all notices are delivered or given up.
    pub async fn farewell(&self) {
        let longest = match self.cancel.is_cancelled() {
            true => FAREWELL_STOPPED,
            false => FAREWELL,
        };
        self.teller.drain(longest).await;
    }

    /// Moves this meter from now on.
    #[must_use]
    pub fn with_meter(mut self, meter: Meter) -> Self {
        self.meter = meter;
        self
    }

    /// Records the failure of a run that could not record it itself: it panicked, or was given up.
    pub fn record_failure(
        &self,
        database: &DatabaseConfig,
        task: Task,
        started_at: Timestamp,
        failure: &Failure,
    ) {
        self.record(database, task, started_at, Err(failure));
    }

    /// The same of a verification. One that could not open what it read is no failure, and no success either.
    fn record_verified(
        &self,
        database: &DatabaseConfig,
        started_at: Timestamp,
        failure: Option<&Failure>,
        stored_only: bool,
    ) {
        if failure.is_some_and(|failure| says_nothing(failure.kind)) {
            return;
        }
        let attempt = Attempt {
            stored_only,
            ..Attempt::new(started_at, Timestamp::now(), failure)
        };
        self.keep(database, Task::Verify, attempt, None);
    }

    /// Records, as a failure, that a backup is overdue: nothing is known of a run for it.
    pub fn record_overdue(&self, database: &DatabaseConfig, now: Timestamp, failure: &Failure) {
        let attempt = Attempt::overdue(now, failure);
        self.keep(database, Task::Backup, attempt, None);
    }

    /// The records of this host.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Moves as the work does.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Records how a run ended, and tells whoever asked for it. That another process was at it, or that we were
    /// stopped, says nothing about the work.
    fn record(
        &self,
        database: &DatabaseConfig,
        task: Task,
        started_at: Timestamp,
        result: Result<Option<&Made>, &Failure>,
    ) {
        if result.is_err_and(|failure| says_nothing(failure.kind)) {
            return;
        }
        let attempt = Attempt::new(started_at, Timestamp::now(), result.err());
        self.keep(database, task, attempt, result.ok().flatten());
    }

    fn keep(&self, database: &DatabaseConfig, task: Task, attempt: Attempt, made: Option<&Made>) {
        let name = database.name.as_str();
        let shrunk = made.map(|made| made.shrunk);
        let old = self.ledger.read(name, task);
        let (record, news) = settle::settle(old, attempt.clone(), shrunk);
        self.write_record(name, task, &record);
        if let Some(notify) = &database.notify {
            let ended = Ended {
                database: name,
                host: &self.host,
                task,
                attempt: &attempt,
                made,
            };
            for notice in ending(notify, &ended, &news) {
                self.teller.tell(name, &notify.url, notice);
            }
        }
    }
}

impl Keeper<'_> {
    /// Keeps a record. That it cannot be is told, and no more: it is remembered as long as the process lives.
    fn write_record(&self, name: &str, task: Task, record: &Record) {
        if let Err(error) = self.ledger.write(name, task, record) {
            tracing::warn!(
                database = name,
                "the record of this {task} run cannot be kept in {}: {error}",
                self.ledger.folder().display()
            );
        }
    }
}

/// Whether a failure of this kind is none of the work: another process was at it, or it was stopped.
fn says_nothing(kind: Kind) -> bool {
    matches!(kind, Kind::Busy | Kind::Interrupted | Kind::Terminated)
}
