//! `rdbkeeper run`: the schedule is kept, for years, unattended.
//!
//! One loop does all of it. A tick a second comes from the scheduler (`schedule`); at each the loop reads the wall
//! clock, asks the [`agenda`] what is due, and starts it as a task of its own when there is a place for it
//! (`places`). What is going on stands on the [`board`], for metrics, health and systemd.
//!
//! What it promises: nothing that one job does (fail, hang, panic) keeps the loop from going round; SIGTERM ends
//! it within ten seconds; a configuration that is wrong is refused and the old one goes on.

pub mod agenda;
pub mod board;
mod clock;
pub mod http;
pub mod picture;
mod places;
mod run;
mod schedule;
mod signals;
mod state;
mod stores;
mod systemd;
mod work;

use std::path::PathBuf;

use crate::config::{Config, Environment};
use crate::failure::Failure;

/// Where the configuration came from, to be read anew.
#[derive(Clone, Debug)]
pub struct Origin {
    /// `--config`.
    pub named: Option<PathBuf>,
    /// What the process was started with.
    pub environment: Environment,
}

/// Runs until a signal stops it.
///
/// # Errors
/// What keeps it from starting: a second daemon, a state folder that cannot be written to. And a scheduler that ticks no
/// more.
pub async fn run(config: Config, origin: Origin) -> Result<(), Failure> {
    run::Daemon::start(config, origin).await?.run().await
}
