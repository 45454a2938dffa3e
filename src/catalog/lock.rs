//! One piece of work of a kind at a time for a database on this host, whoever asked for it.
//!
//! A lock is an advisory lock on a file in the state folder: the kernel gives it back when the
//! process ends, however it ends, so there is nothing stale to clean up. The file itself stays, and does where the state
//! folder can be written to no more.

use std::fs::{File, TryLockError};
use std::path::Path;

use super::Error;
use crate::storage::private;

/// What a lock is for. Different kinds do not exclude each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A backup.
    Backup,
    /// Expiring sessions.
    Sessions,
}

impl Work {
    /// The lock file's name. A database's name has no point in it, so no two are alike.
    fn file(self, database: &str) -> String {
        match self {
            Work::Backup => format!("{database}.lock"),
            Work::Sessions => format!("{database}.sessions.lock"),
        }
    }

    pub(super) fn doing(self) -> &'static str {
        match self {
            Work::Backup => "backing up",
            Work::Sessions => "expiring sessions of",
        }
    }
}

/// Held while a piece of work is done for a database on this host.
#[derive(Debug)]
pub struct HostLock {
    // Closing it gives the lock back.
    _file: File,
}

impl HostLock {
    /// Takes the lock of a database; [`Error::Busy`] when another process has it.
    pub fn take(state_dir: &Path, database: &str, work: Work) -> Result<HostLock, Error> {
        let folder = state_dir.join("locks");
        let path = folder.join(work.file(database));
        let fail = |action: &str, source| Error::File {
            action: format!("{action} {}", path.display()),
            source,
        };
        private::make_folders(&folder).map_err(|error| fail("make the folder of", error))?;
        let file = private::open_lock(&path).map_err(|error| fail("open the lock file", error))?;
        match file.try_lock() {
            Ok(()) => Ok(HostLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::Busy {
                database: database.to_owned(),
                work,
            }),
            Err(TryLockError::Error(error)) => Err(fail("lock", error)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_link_in_the_place_of_a_lock_is_refused_and_what_it_points_at_stays() {
        let state = tempfile::tempdir().unwrap();
        let victim = state.path().join("victim");
        std::fs::write(&victim, b"mine").unwrap();
        std::fs::create_dir(state.path().join("locks")).unwrap();
        let link = state.path().join("locks/sessions.lock");
        std::os::unix::fs::symlink(&victim, link).unwrap();
        let taken = HostLock::take(state.path(), "sessions", Work::Backup);
        assert!(matches!(taken, Err(Error::File { .. })), "{taken:?}");
        assert_eq!(std::fs::read(&victim).unwrap(), b"mine");
    }

    #[test]
    fn a_lock_is_held_once_and_given_back_when_dropped() {
        let state = tempfile::tempdir().unwrap();
        let held = HostLock::take(state.path(), "sessions", Work::Backup).unwrap();
        assert!(matches!(
            HostLock::take(state.path(), "sessions", Work::Backup),
            Err(Error::Busy { .. })
        ));
        HostLock::take(state.path(), "celery", Work::Backup).unwrap();
        HostLock::take(state.path(), "sessions", Work::Sessions).unwrap();
        drop(held);
        HostLock::take(state.path(), "sessions", Work::Backup).unwrap();
    }
}
