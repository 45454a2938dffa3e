//! What is to be put back, in the state folder: a file for each server process, named by its run ID.
//!
//! The file is the lock, too: it is held alone while the setting is changed, and shared while dumps are made. The kernel
//! gives the lock back when a process ends, however it ends, so a file that nobody holds is what a killed one has left.
//! The trap: the file is removed when all is done, so whoever gets the lock looks whether it is still the one of that name.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::storage::private;

/// What is to be put back, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Of the server's process.
    pub(super) run_id: String,
    /// Where it was reached, without credentials.
    pub(super) address: String,
    /// The value before.
    pub(super) was: String,
    /// When it was changed, Unix time in seconds.
    pub(super) at_s: u64,
}

/// The folder of all records.
pub(super) fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("server-compression")
}

/// A record's file that is open and locked.
#[derive(Debug)]
pub(super) struct Held {
    path: PathBuf,
    file: File,
    alone: bool,
}

/// What came of entering.
#[derive(Debug)]
pub(super) enum Entry {
    /// Nobody else is at it.
    Alone(Held),
    /// Others make dumps with the setting off.
    Joined(Held),
    /// Somebody changes it just now.
    Busy,
}

/// Enters to turn the setting off.
pub(super) fn enter(folder: &Path, run_id: &str) -> io::Result<Entry> {
    let path = path_of(folder, run_id)?;
    private::make_folders(folder)?;
    let file = private::open_or_create(&path)?;
    private::sync_folder(folder)?;
    let mut held = Held {
        path,
        file,
        alone: false,
    };
    if held.lock(FlockOperation::NonBlockingLockExclusive)? {
        held.alone = true;
        return Ok(match held.is_current() {
            true => Entry::Alone(held),
            false => Entry::Busy,
        });
    }
    let joined = held.lock(FlockOperation::NonBlockingLockShared)?;
    // One that was removed meanwhile, or is not yet written, is nothing to join.
    Ok(match joined && held.record().is_some() {
        true => Entry::Joined(held),
        false => Entry::Busy,
    })
}

/// Enters what was left; `None` where somebody is at it, or it is gone.
pub(super) fn enter_left(folder: &Path, run_id: &str) -> Option<Held> {
    let path = path_of(folder, run_id).ok()?;
    let file = File::open(&path).ok()?;
    let mut held = Held {
        path,
        file,
        alone: false,
    };
    held.take_alone().then_some(held)
}

/// Every record that can be read.
pub(super) fn all(folder: &Path) -> Vec<Record> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| read(&entry.path())).collect()
}

/// One that was cut short was not finished before the server was touched: it counts as none.
fn read(path: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn path_of(folder: &Path, run_id: &str) -> io::Result<PathBuf> {
    let plain = run_id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match plain && !run_id.is_empty() {
        true => Ok(folder.join(run_id)),
        false => Err(io::Error::other("the server tells no run_id")),
    }
}

impl Held {
    fn lock(&self, operation: FlockOperation) -> io::Result<bool> {
        match flock(&self.file, operation) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the file is still the one of its name.
    fn is_current(&self) -> bool {
        let id = |meta: fs::Metadata| (meta.dev(), meta.ino());
        let own = self.file.metadata().map(id);
        let named = fs::symlink_metadata(&self.path).map(id);
        matches!((own, named), (Ok(own), Ok(named)) if own == named)
    }

    pub(super) fn is_alone(&self) -> bool {
        self.alone
    }

    /// What is recorded.
    pub(super) fn record(&self) -> Option<Record> {
        self.is_current().then(|| read(&self.path))?
    }

    /// Records, durably.
    pub(super) fn write(&mut self, record: &Record) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.write_all(&serde_json::to_vec(record)?)?;
        self.file.sync_all()
    }

    /// Lets others join.
    pub(super) fn share(&mut self) {
        self.alone = false;
        // The kernel does it in two steps. Who comes in between puts the setting back: the dump is as good with it.
        if !self
            .lock(FlockOperation::NonBlockingLockShared)
            .unwrap_or(false)
        {
            tracing::debug!("the lock of {} was taken over", self.path.display());
        }
    }

    /// Whether nobody else is at it any more, and it is still there. Then nobody else gets in.
    pub(super) fn take_alone(&mut self) -> bool {
        self.alone = self.alone
            || self
                .lock(FlockOperation::NonBlockingLockExclusive)
                .unwrap_or(false);
        self.alone && self.is_current()
    }

    /// Removes it: there is nothing to be put back.
    pub(super) fn remove(&mut self) {
        if self.alone
            && self.is_current()
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!("{} cannot be removed: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn record() -> Record {
        Record {
            run_id: "abc1".to_owned(),
            address: "localhost:6379".to_owned(),
            was: "yes".to_owned(),
            at_s: 1,
        }
    }

    fn alone(folder: &Path) -> Held {
        match enter(folder, "abc1").unwrap() {
            Entry::Alone(held) => held,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_last_of_several_is_the_one_who_puts_it_back() {
        let state = tempfile::tempdir().unwrap();
        let folder = folder(state.path());
        let mut first = alone(&folder);
        assert!(matches!(enter(&folder, "abc1").unwrap(), Entry::Busy));
        first.write(&record()).unwrap();
        first.share();
        let Entry::Joined(mut second) = enter(&folder, "abc1").unwrap() else {
            panic!("the second does not join");
        };
        assert!(enter_left(&folder, "abc1").is_none(), "it is held");
        assert!(!first.take_alone());
        drop(first);
        assert!(second.take_alone());
        assert_eq!(second.record(), Some(record()));
        second.remove();
        assert_eq!((second.record(), all(&folder)), (None, Vec::new()));
        // Who waited for a file that is gone begins with a new one.
        let mut third = alone(&folder);
        assert!(!second.take_alone(), "it is not its file any more");
        assert_eq!(third.record(), None);
        third.remove();
    }

    #[test]
    fn what_a_process_left_is_found_and_what_it_did_not_finish_is_none() {
        let state = tempfile::tempdir().unwrap();
        let folder = folder(state.path());
        assert!(all(&folder).is_empty());
        let mut held = alone(&folder);
        held.write(&record()).unwrap();
        drop(held);
        assert_eq!(all(&folder), [record()]);
        assert!(enter_left(&folder, "abc1").unwrap().record().is_some());
        std::fs::write(folder.join("abc1"), b"{\"run_id\":\"ab").unwrap();
        assert!(all(&folder).is_empty());
        assert_eq!(alone(&folder).record(), None);
    }

    #[test]
    fn a_name_that_is_no_run_id_makes_no_file() {
        let state = tempfile::tempdir().unwrap();
        for name in ["", "../x", "a b"] {
            assert!(enter(state.path(), name).is_err(), "{name}");
        }
        assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 0);
    }
}
