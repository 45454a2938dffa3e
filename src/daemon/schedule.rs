//! The heartbeat of the daemon: a tick a second, and no more. What is due at a tick the agenda says.
//!
//! The traps of the crate: it goes by the wall clock, so a clock that is set back makes it fall silent until the
//! old time comes again, and a repeated job of it stops for ever once it was late; it keeps the UTC offset of the
//! moment at which a job was made. Hence a job of every second, in UTC; and whoever waits for ticks starts it anew
//! ([`Heartbeat::again`]) when none comes.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use crate::failure::{Failure, Kind};

/// Every second.
const EVERY_SECOND: &str = "* * * * * *";

/// A silence that is not normal any more.
pub(super) const SILENCE: Duration = Duration::from_secs(5);

/// The ticks.
pub(super) struct Heartbeat {
    scheduler: JobScheduler,
    ticks: mpsc::Receiver<()>,
}

impl Heartbeat {
    /// Starts to tick.
    ///
    /// # Errors
    /// When the scheduler cannot be started.
    pub(super) async fn start() -> Result<Heartbeat, Failure> {
        // A tick that finds one waiting is not needed.
        let (sender, ticks) = mpsc::channel(1);
        let scheduler = begin(sender).await.map_err(|error| {
            Failure::new(Kind::Failed, "cannot start the scheduler").caused_by(&error)
        })?;
        Ok(Heartbeat { scheduler, ticks })
    }

    /// Waits for the next tick; for ever when there is none. It can be dropped while it waits.
    pub(super) async fn tick(&mut self) {
        if self.ticks.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Starts it anew.
    ///
    /// # Errors
    /// As for [`Heartbeat::start`]; then the old one stays.
    pub(super) async fn again(&mut self) -> Result<(), Failure> {
        let mut old = std::mem::replace(self, Heartbeat::start().await?);
        // It ends at its next round; what it still holds is small.
        let _ = old.scheduler.shutdown().await;
        Ok(())
    }
}

async fn begin(sender: mpsc::Sender<()>) -> Result<JobScheduler, JobSchedulerError> {
    let scheduler = JobScheduler::new().await?;
    let job = Job::new(EVERY_SECOND, move |_, _| {
        let _ = sender.try_send(());
    })?;
    scheduler.add(job).await?;
    scheduler.start().await?;
    Ok(scheduler)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn it_ticks_and_can_be_started_anew() {
        let mut heartbeat = Heartbeat::start().await.unwrap();
        heartbeat.tick().await;
        heartbeat.tick().await;
        heartbeat.again().await.unwrap();
        heartbeat.tick().await;
    }
}
