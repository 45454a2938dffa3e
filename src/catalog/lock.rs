//! One backup of a database at a time on this host, whoever asked for it.
//!
//! A lock is an advisory lock on a file in the state folder: the kernel gives it back when the
//! process ends, however it ends, so there is nothing stale to clean up. The file itself stays.

use std::fs::{File, TryLockError};
use std::path::Path;

use super::Error;
use crate::storage::private;

/// Held while a database is being backed up on this host.
#[derive(Debug)]
pub struct HostLock {
    // Closing it gives the lock back.
    _file: File,
}

impl HostLock {
    /// Takes the lock of a database; [`Error::Busy`] when another process has it.
    pub fn take(state_dir: &Path, database: &str) -> Result<HostLock, Error> {
        let folder = state_dir.join("locks");
        let path = folder.join(format!("{database}.lock"));
        let fail = |action: &str, source| Error::File {
            action: format!("{action} {}", path.display()),
            source,
        };
        private::make_folders(&folder).map_err(|error| fail("make the folder of", error))?;
        let file =
            private::open_or_create(&path).map_err(|error| fail("open the lock file", error))?;
        match file.try_lock() {
            Ok(()) => Ok(HostLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::Busy(database.to_owned())),
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
        let taken = HostLock::take(state.path(), "sessions");
        assert!(matches!(taken, Err(Error::File { .. })), "{taken:?}");
        assert_eq!(std::fs::read(&victim).unwrap(), b"mine");
    }

    #[test]
    fn a_lock_is_held_once_and_given_back_when_dropped() {
        let state = tempfile::tempdir().unwrap();
        let held = HostLock::take(state.path(), "sessions").unwrap();
        assert!(matches!(
            HostLock::take(state.path(), "sessions"),
            Err(Error::Busy(_))
        ));
        HostLock::take(state.path(), "celery").unwrap();
        drop(held);
        HostLock::take(state.path(), "sessions").unwrap();
    }
}
