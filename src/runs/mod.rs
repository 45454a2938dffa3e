//! A piece of work as it is configured, whoever asks for it: the daemon, a timer, a person.
//!
//! A run takes the host lock of its database, does the journey, and leaves a record in the state folder.
//! The trap: nothing here may fail a backup that was made. What goes wrong around it is told, and stays
//! beside the result.

mod backup;
pub mod ledger;
mod prune;
mod sessions;
mod verify;

use std::fmt;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, DatabaseConfig};
use crate::failure::{Failure, Kind};
use crate::meter::Meter;
use crate::setup;

use self::ledger::{Attempt, Ledger};

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
    /// Nothing is pruned after a backup: the clock cannot be trusted at the moment.
    pub hold_prune: bool,
}

impl<'a> Keeper<'a> {
    /// One that stops when `cancel` is.
    pub fn new(config: &'a Config, cancel: CancellationToken) -> Keeper<'a> {
        Keeper {
            config,
            host: setup::host_name(),
            ledger: Ledger::new(&config.daemon.state_dir),
            cancel,
            meter: Meter::default(),
            hold_prune: false,
        }
    }

    /// Moves as the work does.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Records how a run ended. That another process was at it, or that we were stopped, says nothing about the work.
    fn record(
        &self,
        database: &DatabaseConfig,
        task: Task,
        started_at: Timestamp,
        failure: Option<&Failure>,
    ) {
        let name = database.name.as_str();
        if failure.is_some_and(|failure| {
            matches!(
                failure.kind,
                Kind::Busy | Kind::Interrupted | Kind::Terminated
            )
        }) {
            return;
        }
        let attempt = Attempt::new(started_at, Timestamp::now(), failure);
        let record = self.ledger.read(name, task).after(attempt);
        if let Err(error) = self.ledger.write(name, task, &record) {
            tracing::warn!(
                database = name,
                "the record of this {task} run cannot be kept in {}: {error}",
                self.ledger.folder().display()
            );
        }
    }
}
