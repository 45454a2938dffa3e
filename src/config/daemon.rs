//! `[daemon]`: what is one for the host.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;

use super::reader::TableReader;

/// What is one for the host, whichever database is at work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonConfig {
    /// Host locks and last runs.
    pub state_dir: PathBuf,
    /// Remote backups on their way back.
    pub spool_dir: PathBuf,
    /// The most threads that compress at once, whatever is at work; see [`DaemonConfig::compression_threads`].
    pub threads: NonZeroUsize,
    /// How much this process gives way to others for the processor; 0: as it was begun.
    pub nice: u8,
    /// The time zone of schedules and of the periods of retention.
    pub timezone: TimeZone,
    /// How many databases are at work at once.
    pub concurrency: NonZeroUsize,
    /// Where metrics, health and status are served; `None`: nowhere.
    pub listen: Option<SocketAddr>,
}

/// `threads` when it is not set.
const DEFAULT_THREADS: NonZeroUsize = NonZeroUsize::new(4).expect("four is not zero");

/// `concurrency` when it is not set.
const DEFAULT_CONCURRENCY: NonZeroUsize = NonZeroUsize::new(2).expect("two is not zero");

impl DaemonConfig {
    /// The defaults below the folder of this user's state.
    pub(super) fn below(home: &Path) -> DaemonConfig {
        DaemonConfig {
            state_dir: home.join("state"),
            spool_dir: home.join("spool"),
            threads: DEFAULT_THREADS,
            nice: 0,
            timezone: TimeZone::UTC,
            concurrency: DEFAULT_CONCURRENCY,
            listen: None,
        }
    }

    /// How many threads compress: `threads`, at most one a core.
    pub fn compression_threads(&self) -> NonZeroUsize {
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.threads.min(cores)
    }
}

/// What the table says; the defaults are laid below by the caller, who knows the home.
#[derive(Default)]
pub(super) struct DaemonTable {
    pub(super) state_dir: Option<PathBuf>,
    pub(super) spool_dir: Option<PathBuf>,
    pub(super) threads: Option<NonZeroUsize>,
    nice: Option<u8>,
    timezone: Option<TimeZone>,
    concurrency: Option<NonZeroUsize>,
    listen: Option<SocketAddr>,
}

impl DaemonTable {
    pub(super) fn read(reader: TableReader<'_, '_>) -> DaemonTable {
        let count = |key| {
            let count = reader.whole(key, 1..=1024)?;
            NonZeroUsize::new(usize::try_from(count).ok()?)
        };
        let table = DaemonTable {
            state_dir: reader.path("state_dir").map(|found| found.value),
            spool_dir: reader.path("spool_dir").map(|found| found.value),
            threads: count("threads"),
            nice: reader
                .whole("nice", 0..=19)
                .and_then(|nice| u8::try_from(nice).ok()),
            timezone: read_timezone(&reader),
            concurrency: count("concurrency"),
            listen: read_listen(&reader),
        };
        reader.finish(&[]);
        table
    }

    /// What it says, with the defaults below.
    pub(super) fn over(self, below: DaemonConfig) -> DaemonConfig {
        DaemonConfig {
            state_dir: self.state_dir.unwrap_or(below.state_dir),
            spool_dir: self.spool_dir.unwrap_or(below.spool_dir),
            threads: self.threads.unwrap_or(below.threads),
            nice: self.nice.unwrap_or(below.nice),
            timezone: self.timezone.unwrap_or(below.timezone),
            concurrency: self.concurrency.unwrap_or(below.concurrency),
            listen: self.listen,
        }
    }
}

fn read_timezone(reader: &TableReader<'_, '_>) -> Option<TimeZone> {
    let found = reader.text("timezone")?;
    match TimeZone::get(&found.value) {
        Ok(zone) => Some(zone),
        Err(_) => {
            reader.reading().mistake(
                found.span,
                format!(
                    "`timezone`: `{}` is no time zone; write \"UTC\" or a name such as \"Europe/Berlin\"",
                    found.value
                ),
            );
            None
        }
    }
}

fn read_listen(reader: &TableReader<'_, '_>) -> Option<SocketAddr> {
    let found = reader.text("listen")?;
    match found.value.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            reader.reading().mistake(
                found.span,
                "`listen` is an address and a port, such as \"127.0.0.1:9187\" or \"[::1]:9187\"",
            );
            None
        }
    }
}
