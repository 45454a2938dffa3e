//! The daemon's signals: SIGTERM and SIGINT stop it, SIGHUP reloads.
//!
//! Whatever hangs, the process ends within ten seconds of the first SIGTERM: a thread of its own waits for signals
//! and sees to that, because a work loop that is stuck in a call could not. A second one ends it at once. The trap
//! is the log: when nobody reads it whoever writes to it waits, so nothing on the way to the end does.

use std::io;
use std::sync::mpsc::channel;
use std::time::Duration;

use tokio::runtime::Builder;
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

/// How long the last word may take.
const LAST_WORD: Duration = Duration::from_millis(200);

/// Begins to watch for signals.
///
/// # Errors
/// When that cannot be done.
pub(super) fn watch() -> Result<mpsc::Receiver<Signal>, Failure> {
    let cannot =
        |error: io::Error| Failure::new(Kind::Failed, "cannot watch for signals").caused_by(&error);
    let (sender, receiver) = mpsc::channel(4);
    let (ready, started) = channel();
    // A runtime of its own: the threads of the other may all be stuck.
    let thread = std::thread::Builder::new().name("signals".to_owned());
    let spawned = thread.spawn(move || {
        let runtime = match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(ready.send(Err(error))),
        };
        runtime.block_on(async {
            match Streams::new() {
                Ok(streams) => {
                    // It can only fail when nobody waits for it any more.
                    let _ = ready.send(Ok(()));
                    streams.pass_on(sender).await;
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        });
    });
    spawned.map_err(cannot)?;
    let started = started
        .recv()
        .unwrap_or_else(|error| Err(io::Error::other(error)));
    started.map_err(cannot)?;
    Ok(receiver)
}

struct Streams {
    interrupt: Stream,
    terminate: Stream,
    hang_up: Stream,
}

impl Streams {
    fn new() -> io::Result<Streams> {
        Ok(Streams {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Passes on what comes, for ever.
    async fn pass_on(mut self, sender: mpsc::Sender<Signal>) {
        let mut stopping = false;
        loop {
            let kind = tokio::select! {
                _ = self.interrupt.recv() => Kind::Interrupted,
                _ = self.terminate.recv() => Kind::Terminated,
                _ = self.hang_up.recv() => {
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
            // A queue that is full of signals to reload must not keep this one from hearing of the next.
            let sender = sender.clone();
            tokio::spawn(async move { sender.send(Signal::Stop).await });
        }
    }
}

/// This thread waits for nothing else, so it will be there.
fn end_by_force_later() {
    tokio::spawn(async {
        tokio::time::sleep(LATEST).await;
        // The log may be what hangs.
        let (said, done) = channel();
        let last_word = std::thread::Builder::new().spawn(move || {
            tracing::warn!("something hangs and is left behind");
            // It can only fail when the wait for it is over.
            let _ = said.send(());
        });
        if last_word.is_ok() {
            let _ = done.recv_timeout(LAST_WORD);
        }
        std::process::exit(0);
    });
}
