//! `[daemon]`: what is one for the host.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::reader::TableReader;

/// What is one for the host, whichever database is at work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonConfig {
    /// Host locks and last runs.
    pub state_dir: PathBuf,
    /// Remote backups on their way back.
    pub spool_dir: PathBuf,
    /// The most threads that compress at once; see [`DaemonConfig::compression_threads`].
    pub threads: NonZeroUsize,
}

/// `threads` when it is not set.
const DEFAULT_THREADS: NonZeroUsize = NonZeroUsize::new(4).expect("four is not zero");

/// The keys that come with later features.
const LATER: &[&str] = &["timezone", "concurrency", "listen"];

impl DaemonConfig {
    /// The defaults below the folder of this user's state.
    pub(super) fn below(home: &Path) -> DaemonConfig {
        DaemonConfig {
            state_dir: home.join("state"),
            spool_dir: home.join("spool"),
            threads: DEFAULT_THREADS,
        }
    }

    /// How many threads compress: `threads`, at most one a core.
    pub fn compression_threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.threads.get().min(cores)
    }
}

/// What the table says; the defaults are laid below by the caller, who knows the home.
#[derive(Default)]
pub(super) struct DaemonTable {
    pub(super) state_dir: Option<PathBuf>,
    pub(super) spool_dir: Option<PathBuf>,
    pub(super) threads: Option<NonZeroUsize>,
}

impl DaemonTable {
    pub(super) fn read(reader: TableReader<'_, '_>) -> DaemonTable {
        let threads = reader.whole("threads", 1..=1024);
        let table = DaemonTable {
            state_dir: reader.path("state_dir").map(|found| found.value),
            spool_dir: reader.path("spool_dir").map(|found| found.value),
            threads: threads
                .and_then(|count| usize::try_from(count).ok())
                .and_then(NonZeroUsize::new),
        };
        reader.finish(LATER);
        table
    }
}
