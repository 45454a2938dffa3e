//! `run`: the daemon.

use std::path::PathBuf;

use crate::config::{Config, Environment};
use crate::daemon::{self, Origin};
use crate::failure::{Failure, Kind};

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
