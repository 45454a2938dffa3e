//! The backup journey: from configured databases to committed backups.
//!
//! Databases on one server share one dump (`plan` groups them): one BGSAVE or one transfer, several
//! archives. The dump is scanned on its way (`fan`), every part goes to every storage at once
//! (`upload`), each at its own pace (`relay`), and only when source, scanner and storage all agree that it is whole is
//! the manifest written (`finish`). Whatever goes wrong before that leaves nothing that is listed.

mod fan;
mod finish;
mod group;
mod plan;
mod record;
mod relay;
mod upload;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::catalog::Manifest;
use crate::catalog::lock::{HostLock, Work};
use crate::config::Encryption;
use crate::failure::Failure;
use crate::meter::Meter;
use crate::pipeline::Compression;
use crate::source;
use crate::spool::Spool;
use crate::storage::NamedStore;

pub use group::back_up_group;
pub use plan::group;

/// How long a storage may take for what it is at, to commit or to remove what was sent, after the signal to stop.
pub const GRACE: Duration = Duration::from_secs(2);

/// One database to back up: what its configuration says, resolved.
#[derive(Clone, Debug)]
pub struct Job {
    /// The configured name.
    pub name: String,
    /// The server, how to dump it, and how gently.
    pub source: source::Request,
    /// The databases that are meant; `None`: all.
    pub databases: Option<BTreeSet<u32>>,
    /// Every one of them must have it.
    pub storages: Vec<NamedStore>,
    /// How the archive is compressed.
    pub compression: Compression,
    /// Whom it is encrypted to.
    pub encryption: Encryption,
    /// Whether other hosts may back up under this name, too.
    pub shared: bool,
    /// Fewer keys than this times those of the last good backup are suspicious.
    pub shrink_guard: f64,
    /// How long all of it may take.
    pub timeout: Duration,
}

/// What every job of a run has in common.
#[derive(Clone, Debug)]
pub struct Context {
    /// This host's name, as manifests have it.
    pub host: String,
    /// Threads for compression, for each archive.
    pub threads: usize,
    /// Where what a slow storage has not taken yet waits.
    pub spool: Spool,
    /// Stops everything when it is cancelled.
    pub cancel: CancellationToken,
    /// Moves as the dump does.
    pub meter: Meter,
}

/// A backup that was made.
#[derive(Clone, Debug)]
pub struct Made {
    /// What it is.
    pub manifest: Manifest,
    /// The storages that have it.
    pub storages: Vec<String>,
    /// Whether it has far fewer keys than the one before.
    pub shrunk: bool,
    /// Why it was taken by this method.
    pub reasons: Vec<String>,
    /// What a person should know, although it worked.
    pub warnings: Vec<String>,
}

/// What became of one job.
#[derive(Debug)]
pub struct Outcome {
    /// The database's name.
    pub name: String,
    /// Its backup, or why there is none (or not in every storage).
    pub result: Result<Made, Failure>,
    /// The storages that have the new backup, whether all of them have it or not.
    pub kept_in: Vec<String>,
}

/// A job that no other process on this host is at.
#[derive(Debug)]
pub struct Locked {
    job: Job,
    // Given back when this is dropped: after what its holder does around the backup.
    _lock: HostLock,
}

impl Locked {
    /// Takes the host lock of a job's database.
    ///
    /// # Errors
    /// [`Kind::Busy`](crate::failure::Kind::Busy) when another process has it.
    pub fn take(job: Job, state_dir: &Path) -> Result<Locked, Failure> {
        let lock = HostLock::take(state_dir, &job.name, Work::Backup);
        let lock = lock.map_err(|error| cannot(&job.name, error.into()))?;
        Ok(Locked { job, _lock: lock })
    }

    /// The job.
    pub fn job(&self) -> &Job {
        &self.job
    }
}

/// A failure, as that of backing up a database.
pub fn cannot(database: &str, failure: Failure) -> Failure {
    failure.context(format!("cannot back up {database}"))
}
