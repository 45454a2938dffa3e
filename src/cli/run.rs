//! `run`: the daemon.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use crate::config::{Config, Environment};
use crate::daemon::{self, Origin};
use crate::failure::{Failure, Kind};

/// The variable by which glibc is told how many heaps a process may have.
const ARENAS: &str = "MALLOC_ARENA_MAX";

/// Begins the process anew with few heaps, unless its environment says how many. glibc gives every few threads a heap
/// of their own and keeps what lay in it: over hundreds of runs, each with threads of its own, a daemon grew to four times
/// its size. It reads the variable when a process begins, and at no other time. The process keeps its ID.
pub(super) fn with_few_heaps() {
    if !cfg!(target_env = "gnu") || std::env::var_os(ARENAS).is_some() {
        return;
    }
    let mut line = std::env::args_os();
    if let (Some(name), Ok(program)) = (line.next(), std::env::current_exe()) {
        let error = Command::new(program)
            .arg0(name)
            .args(line)
            .env(ARENAS, "2")
            .exec();
        // It runs as well without, only larger.
        tracing::debug!("the process cannot be begun anew with {ARENAS}: {error}");
    }
}

/// `run`. It has signals of its own: a daemon that is told to stop has done what it should, and exits 0.
pub(super) async fn run(
    config: Config,
    named: Option<PathBuf>,
    environment: Environment,
    json: bool,
) -> Result<u8, Failure> {
    if json {
        return Err(
            Failure::new(Kind::Usage, "the daemon has no result that could be JSON")
                .hint("`--log json` writes its log so"),
        );
    }
    daemon::run(config, Origin { named, environment }).await?;
    Ok(0)
}
