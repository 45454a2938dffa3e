//! The daemon's signals: SIGTERM and SIGINT stop it, SIGHUP reloads.
//!
//! Whatever hangs, the process ends within ten seconds of the first SIGTERM: a thread of its own sees to that,
//! because a work loop that is stuck in a call could not. A second one ends it at once.

use std::time::Duration;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio::sync::mpsc;

use crate::failure::{Failure, Kind};

/// When the process ends at the latest, after the first signal to stop.
const LATEST: Duration = Duration::from_secs(9);

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// Finish, and end.
    Stop,
    /// Read the configuration anew.
    Reload,
}

/// Begins to watch for signals.
///
/// # Errors
/// When that cannot be done.
pub(super) fn watch() -> Result<mpsc::Receiver<Signal>, Failure> {
    let stream = |kind| -> Result<Stream, Failure> {
        signal(kind).map_err(|error| {
            Failure::new(Kind::Failed, "cannot watch for signals").caused_by(&error)
        })
    };
    let mut interrupt = stream(SignalKind::interrupt())?;
    let mut terminate = stream(SignalKind::terminate())?;
    let mut hang_up = stream(SignalKind::hangup())?;
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        let mut stopping = false;
        loop {
            let kind = tokio::select! {
                _ = interrupt.recv() => Kind::Interrupted,
                _ = terminate.recv() => Kind::Terminated,
                _ = hang_up.recv() => {
                    // One that waits to be seen is enough.
                    let _ = sender.try_send(Signal::Reload);
                    continue;
                }
            };
            if stopping {
                std::process::exit(i32::from(kind.exit_code()));
            }
            stopping = true;
            end_by_force_later();
            let _ = sender.send(Signal::Stop).await;
        }
    });
    Ok(receiver)
}

fn end_by_force_later() {
    let guard = std::thread::Builder::new().name("end".to_owned());
    let started = guard.spawn(|| {
        std::thread::sleep(LATEST);
        tracing::warn!("something hangs and is left behind");
        std::process::exit(0);
    });
    if let Err(error) = started {
        tracing::warn!("nothing watches over the end of this process: {error}");
    }
}
