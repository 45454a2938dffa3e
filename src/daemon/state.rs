//! What the daemon remembers between two lives, in the state folder: `daemon.json`; and that there is one daemon
//! alone, `daemon.lock`.
//!
//! Losing it loses no more than the catch-up of one cycle. A file that cannot be read counts as absent.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::agenda::{JobId, Remembered};
use crate::failure::{Failure, Kind};
use crate::runs::Task;
use crate::storage::private;

/// The file, and what was last written into it.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    written: Option<BTreeMap<JobId, Remembered>>,
}

/// By database and task.
#[derive(Default, Serialize, Deserialize)]
struct Document {
    jobs: BTreeMap<String, BTreeMap<String, Remembered>>,
}

impl StateFile {
    /// The one in this folder.
    pub(super) fn new(state_dir: &Path) -> StateFile {
        StateFile {
            path: state_dir.join("daemon.json"),
            written: None,
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is remembered; nothing, after a warning, when it cannot be read.
    pub(super) fn read(&self) -> BTreeMap<JobId, Remembered> {
        let read = match std::fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice::<Document>(&bytes).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Document::default()),
            Err(error) => Err(error),
        };
        let document = read.unwrap_or_else(|error| {
            tracing::warn!(
                "what is remembered in {} cannot be read, and counts as absent: {error}",
                self.path.display()
            );
            Document::default()
        });
        let mut all = BTreeMap::new();
        for (database, tasks) in document.jobs {
            for task in Task::ALL {
                if let Some(remembered) = tasks.get(task.as_str()) {
                    let database = database.clone();
                    all.insert(JobId { database, task }, *remembered);
                }
            }
        }
        all
    }

    /// Writes it, when it is not what was written last. Whole or not at all.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn write(&mut self, all: BTreeMap<JobId, Remembered>) -> io::Result<()> {
        if self.written.as_ref() == Some(&all) {
            return Ok(());
        }
        let mut document = Document::default();
        for (id, remembered) in &all {
            let tasks = document.jobs.entry(id.database.clone()).or_default();
            tasks.insert(id.task.as_str().to_owned(), *remembered);
        }
        let mut bytes = serde_json::to_vec_pretty(&document)?;
        bytes.push(b'\n');
        let mut file = private::TemporaryFile::create(&self.path)?;
        file.file().write_all(&bytes)?;
        file.replace()?;
        self.written = Some(all);
        Ok(())
    }
}

/// Held while this is the daemon of a state folder.
#[derive(Debug)]
pub(super) struct Alone {
    // Closing it gives the lock back.
    _file: File,
}

impl Alone {
    /// Makes the state folder, and takes it.
    ///
    /// # Errors
    /// [`Kind::Busy`] when another daemon has it; [`Kind::Storage`] when it cannot be written to.
    pub(super) fn take(state_dir: &Path) -> Result<Alone, Failure> {
        let unwritable = |error: io::Error| {
            let message = format!("cannot write to the state folder {}", state_dir.display());
            Failure::new(Kind::Storage, message)
                .caused_by(&error)
                .hint("make it writable for this user, or change `state_dir`")
        };
        private::make_folders(state_dir).map_err(unwritable)?;
        let file = private::open_or_create(&state_dir.join("daemon.lock")).map_err(unwritable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let message = format!("another daemon is at work with {}", state_dir.display());
                return Err(Failure::new(Kind::Busy, message)
                    .hint("`systemctl status rdbkeeper` tells of the one that systemd started"));
            }
            Err(TryLockError::Error(error)) => return Err(unwritable(error)),
        }
        // A folder in which files can be opened but not made would be found out at the first run.
        let probe = private::TemporaryFile::create(&state_dir.join("daemon.json"));
        drop(probe.map_err(unwritable)?);
        Ok(Alone { _file: file })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_broken_counts_as_absent() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = StateFile::new(folder.path());
        assert!(file.read().is_empty());
        let mut all = BTreeMap::new();
        for (task, open) in [(Task::Backup, 2), (Task::Sessions, 0)] {
            let id = JobId {
                database: "web".to_owned(),
                task,
            };
            let served = Timestamp::from_second(1_800_000_000).unwrap();
            all.insert(id, Remembered { served, open });
        }
        file.write(all.clone()).unwrap();
        assert_eq!(file.read(), all);
        assert_eq!(StateFile::new(folder.path()).read(), all);
        std::fs::write(file.path(), b"{\"jobs\":{\"web\":").unwrap();
        assert!(file.read().is_empty());
    }

    #[test]
    fn a_second_daemon_is_refused_and_a_folder_that_cannot_be_made_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let alone = Alone::take(folder.path()).unwrap();
        assert_eq!(Alone::take(folder.path()).unwrap_err().kind, Kind::Busy);
        drop(alone);
        drop(Alone::take(folder.path()).unwrap());
        let file = folder.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let failure = Alone::take(&file.join("state")).unwrap_err();
        assert_eq!(failure.kind, Kind::Storage);
    }
}
