//! What every command has at hand: the configuration, where results go, the signal to stop, progress.

use std::future::Future;
use std::io::IsTerminal as _;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::output::Output;
use super::progress::{Progress, Show, Unit};
use crate::config::Config;
use crate::failure::{Failure, Kind};
use crate::meter::Meter;
use crate::prune::GRACE;

/// How often a progress display looks at the work.
const LOOK: Duration = Duration::from_millis(200);

/// What every command has at hand.
#[derive(Debug)]
pub struct App {
    /// The configuration.
    pub config: Config,
    /// Where results go.
    pub output: Output,
    /// Cancelled by the first signal.
    pub cancel: CancellationToken,
    pub(super) show: Show,
}

impl App {
    /// Runs work that can be dropped anywhere, until a signal comes.
    pub(super) async fn stoppable<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            result = work => result,
            () = self.cancel.cancelled() => Err(Failure::interrupted()),
        }
    }

    /// Runs work that changes something: after a signal it has a moment to come to its end.
    pub(super) async fn stoppable_in_grace<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let too_late = async {
            self.cancel.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            result = work => result,
            () = too_late => Err(Failure::interrupted()),
        }
    }

    /// Runs work and shows how far it is by its meter.
    pub async fn with_progress<T>(
        &self,
        what: &str,
        unit: Unit,
        meter: &Meter,
        work: impl Future<Output = T>,
    ) -> T {
        self.with_progress_as(self.show, (what, unit), meter, work)
            .await
    }

    /// The same for work that writes to standard output: where that is a terminal, a bar would stand in its midst.
    pub(super) async fn with_progress_beside_output<T>(
        &self,
        what: &str,
        unit: Unit,
        meter: &Meter,
        work: impl Future<Output = T>,
    ) -> T {
        let show = self.show.beside(std::io::stdout().is_terminal());
        self.with_progress_as(show, (what, unit), meter, work).await
    }

    async fn with_progress_as<T>(
        &self,
        show: Show,
        (what, unit): (&str, Unit),
        meter: &Meter,
        work: impl Future<Output = T>,
    ) -> T {
        let mut progress = Progress::new(show, what, unit, None);
        let mut phase = "";
        let mut total = 0;
        let mut look = tokio::time::interval(LOOK);
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                _ = look.tick() => {
                    let reading = meter.read();
                    if reading.phase != phase {
                        (phase, total) = (reading.phase, 0);
                        progress = Progress::new(show, phase, unit, None);
                    }
                    let (done, all) = match unit {
                        Unit::Bytes => (reading.bytes, reading.total_bytes),
                        Unit::Keys => (reading.keys, reading.total_keys),
                    };
                    if all != total {
                        total = all;
                        progress.set_total(all);
                    }
                    progress.set(done);
                }
            }
        }
    }

    /// Writes a result; that standard output is gone is a failure like any other.
    pub fn result<T: serde::Serialize + ?Sized>(
        &self,
        json: &T,
        text: impl std::fmt::Display,
    ) -> Result<(), Failure> {
        match self.output.result(json, text) {
            // Whoever has seen enough is nothing to complain about: the work was done.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            written => written.map_err(|error| {
                Failure::new(Kind::Failed, "cannot write to standard output").caused_by(&error)
            }),
        }
    }
}
