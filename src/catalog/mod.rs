//! The catalog: which backups there are, and what they hold. The store is the only truth.
//!
//! ```text
//! <database>/<id>/dump.rdb[.zst|.gz]     the data
//! <database>/<id>/manifest.json          written last: it is the commit
//! <database>/<id>/pinned, accepted, damaged   markers
//! <database>/prune-lease/<generation>    held while backups are removed
//! ```
//!
//! A folder without a manifest is debris: no listing shows it. Only [`commit`] writes a manifest.

pub mod commit;
pub mod debris;
pub mod id;
pub mod lease;
pub mod list;
pub mod lock;
pub mod manifest;
pub mod markers;
pub mod selector;

use crate::failure::{Failure, Kind};
use crate::storage;

use self::lock::Work;
pub use id::BackupId;
pub use list::{Backup, Listing};
pub use manifest::Manifest;
pub use selector::Selector;

/// The name of the object that makes a folder a backup.
pub const MANIFEST: &str = "manifest.json";

/// What went wrong in the catalog.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// A manifest is not what it was when it was written.
    #[error("the manifest of {backup} is damaged: {why}")]
    Damaged {
        /// Which backup, for people.
        backup: String,
        /// What is wrong with it.
        why: String,
    },
    /// No backup fits a selector.
    #[error("there is no backup {what}")]
    NotFound {
        /// What was looked for, as a phrase: `of sessions`, `20261122T214353Z-7f3a9c`.
        what: String,
        /// What there is instead, or what to do.
        hint: String,
    },
    /// A selector is none.
    #[error("{0:?} is no backup's ID, database, time or path")]
    Selector(String),
    /// A backup of that kind belongs to a later version.
    #[error("the manifest of {backup} has format {format}, which a later version wrote")]
    Newer {
        /// Which backup, for people.
        backup: String,
        /// Its format.
        format: u64,
    },
    /// The data of a backup was removed before its manifest could be written.
    #[error("the data of {backup} was removed before the backup was finished")]
    Swept {
        /// Which backup, for people.
        backup: String,
    },
    /// Another host has backups under the same name.
    #[error("storage {storage} holds backups of {database} that host {host} took")]
    Foreign {
        /// The storage's name.
        storage: String,
        /// The database.
        database: String,
        /// The other host.
        host: String,
        /// This host.
        here: String,
    },
    /// Another process works on the same database.
    #[error("another process is {} {database}", work.doing())]
    Busy {
        /// The database.
        database: String,
        /// What the other process does.
        work: Work,
    },
    /// Another process removes backups of the same database from the same storage.
    #[error("{holder} is pruning {database} in storage {storage}")]
    Leased {
        /// The database.
        database: String,
        /// The storage's name.
        storage: String,
        /// Who, for people.
        holder: String,
    },
    /// The lease of prune went to another process while this one stood still.
    #[error("another process has taken over the pruning of {database} in storage {storage}")]
    LeaseLost {
        /// The database.
        database: String,
        /// The storage's name.
        storage: String,
    },
    /// A local file operation failed.
    #[error("cannot {action}")]
    File {
        /// What could not be done, on what.
        action: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let message = error.to_string();
        match error {
            Error::Storage(error) => error.into(),
            Error::Damaged { .. } => Failure::new(Kind::Damaged, message).hint(
                "the data beside it may still be whole: verify its dump.rdb file by its path",
            ),
            Error::NotFound { hint, .. } => Failure::new(Kind::NotFound, message).hint(hint),
            Error::Selector(_) => Failure::new(Kind::Usage, message).hint(
                "write an ID, a database's name, NAME@2026-11-22T12:00:00Z, latest, or a path with a `/` in it",
            ),
            Error::Newer { .. } => Failure::new(Kind::Failed, message)
                .hint("use the newest rdbkeeper to read it"),
            Error::Swept { .. } => Failure::new(Kind::Failed, message).hint(
                "prune takes what is unfinished for longer than a day, and twice the database's `timeout`, for debris: was this process stopped?",
            ),
            Error::Foreign { here, .. } => Failure::new(Kind::Refused, message)
                .cause(format!("this host is {here}"))
                .hint(
                    "give this database another name, or set `shared = true` when both hosts serve the same data",
                ),
            Error::Busy { .. } => {
                Failure::new(Kind::Busy, message).hint("wait until it is done, then try again")
            }
            Error::Leased { .. } => Failure::new(Kind::Busy, message).hint(
                "wait until it is done; if it was killed, its lease ends ten minutes after its last sign of life",
            ),
            Error::LeaseLost { .. } => Failure::new(Kind::Busy, message)
                .hint("nothing more was removed; the next prune does the rest"),
            Error::File { ref source, .. } => {
                Failure::new(Kind::Storage, message).caused_by(source)
            }
        }
    }
}
