//! One archive's data on its way into one storage: a queue, a task, and for a storage that is behind a file.
//!
//! The dump waits for a storage a few seconds and no longer, for as long as it flows the server pays for its fork. From
//! then on the rest of the data goes to a file without a name in the spool folder, and the storage takes it from there at
//! its own pace. Where that cannot be, the storage is left behind.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::GRACE;
use crate::catalog::list::Place;
use crate::pool::Pool;
use crate::spool::{Spool, SpoolFile};
use crate::stage;
use crate::storage::{Error, PART_BYTES, Problem, STALL, TRANSFER, Upload, within};
use crate::units::HumanDuration;

/// How many parts wait for a storage, beside the one that it is taking.
const QUEUE: usize = 1;

/// How long a store may take to remove what was sent.
const ABORT: Duration = Duration::from_secs(30);

/// How long a storage may keep others waiting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// So long may it hold up the dump, and for a tenth of the dump's time beyond.
    pub(super) hold: Duration,
    /// So long may this host's own disk take for a part: the spool, or a storage that lies on the same disk, so that
    /// the spool would be no faster.
    pub(super) disk: Duration,
    /// So long may a storage take for a part.
    pub(super) part: Duration,
}

impl Patience {
    /// That of every backup.
    pub(super) const USUAL: Patience = Patience {
        hold: Duration::from_secs(5),
        disk: Duration::from_secs(60),
        part: TRANSFER,
    };
}

/// What is done with the spool, in errors.
const SPOOLING: &str = "let the rest of the backup wait on this host's disk";

/// What every relay of an archive has in common.
#[derive(Clone, Debug)]
pub(super) struct Route {
    /// The object's name.
    pub(super) object: String,
    pub(super) spool: Spool,
    /// What the parts are made of, those from the spool, too.
    pub(super) pool: Pool,
    pub(super) patience: Patience,
    /// Stops all of them.
    pub(super) stop: CancellationToken,
}

/// An archive's data on its way into one storage.
pub(super) struct Relay {
    place: Place,
    route: Route,
    feed: Feed,
    /// To tell the task of the file. Dropped: there is none.
    tell: Option<oneshot::Sender<Tail>>,
    task: JoinHandle<Carried>,
    begun: Instant,
    /// How long the dump has waited for it.
    held: Duration,
    /// Why it was left behind, where its task does not know.
    lost: Option<Error>,
    stop: CancellationToken,
    /// Stops the task when this goes.
    _guard: DropGuard,
}

/// Where the next part goes.
#[derive(Debug)]
enum Feed {
    Queue(mpsc::Sender<Bytes>),
    Spool {
        file: SpoolFile,
        written: watch::Sender<u64>,
    },
    Closed,
}

/// What a task ends with: the upload, or why there is none; `None` when it was stopped.
type Carried = Result<Box<dyn Upload>, Option<Error>>;

/// What became of a part that was offered.
enum Offered {
    Taken,
    /// The queue was full all the time.
    Behind,
    /// Nobody takes anything any more.
    Gone,
}

async fn offer(queue: &mpsc::Sender<Bytes>, part: &Bytes, limit: Duration) -> Offered {
    match timeout(limit, queue.reserve()).await {
        Ok(Ok(place)) => {
            place.send(part.clone());
            Offered::Taken
        }
        Ok(Err(_)) => Offered::Gone,
        Err(_) => Offered::Behind,
    }
}

/// The rest of the data: what of it is written already, and whether more comes, which is when the sender is gone.
#[derive(Debug)]
struct Tail {
    file: SpoolFile,
    written: watch::Receiver<u64>,
}

impl Relay {
    /// Begins. The storage is asked at once, and nobody waits for its answer here.
    pub(super) fn start(place: Place, route: Route) -> Relay {
        let (queue, parts) = mpsc::channel(QUEUE);
        let (tell, tail) = oneshot::channel();
        let stop = route.stop.child_token();
        let carrier = Carrier {
            place: place.clone(),
            pool: route.pool.clone(),
            patience: route.patience,
            whole: route.stop.clone(),
            stop: stop.clone(),
        };
        let task = tokio::spawn(carrier.carry(route.object.clone(), parts, tail));
        Relay {
            place,
            route,
            feed: Feed::Queue(queue),
            tell: Some(tell),
            task,
            begun: Instant::now(),
            held: Duration::ZERO,
            lost: None,
            _guard: stop.clone().drop_guard(),
            stop,
        }
    }

    /// Where it leads.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Whether it takes more.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.feed, Feed::Closed)
    }

    /// Takes the next part. Waits while the storage is behind, though not for long.
    pub(super) async fn take(&mut self, part: Bytes) {
        match &self.feed {
            Feed::Closed => {}
            Feed::Queue(queue) => {
                let waits = Instant::now();
                let hold = self.route.patience.hold;
                let left = (hold + self.begun.elapsed() / 10).saturating_sub(self.held);
                match offer(queue, &part, left.min(hold)).await {
                    Offered::Taken => {}
                    // Its task has ended, and knows why.
                    Offered::Gone => self.feed = Feed::Closed,
                    Offered::Behind => self.go_around(part).await,
                }
                self.held += waits.elapsed();
            }
            Feed::Spool { .. } => self.append(part).await,
        }
    }

    /// The storage is behind: from this part on all goes to the spool, unless that is no faster.
    async fn go_around(&mut self, part: Bytes) {
        let spool = self.route.spool.clone();
        let patience = self.route.patience;
        let same_disk = self.place.store().shares_disk_with(spool.folder());
        // One that hangs says nothing of its disk.
        let same_disk = timeout(patience.hold, same_disk).await.unwrap_or(false);
        if same_disk && let Feed::Queue(queue) = &self.feed {
            match offer(queue, &part, patience.disk).await {
                Offered::Taken => {}
                Offered::Gone => self.feed = Feed::Closed,
                Offered::Behind => self.leave(self.behind(patience.disk)),
            }
            return;
        }
        let name = self.place.storage().to_owned();
        let file = match within(patience.disk, &name, SPOOLING, spool.file()).await {
            Ok(file) => file,
            Err(error) => return self.leave_for(error),
        };
        let (written, seen) = watch::channel(0);
        let tail = Tail {
            file: file.clone(),
            written: seen,
        };
        let told = self.tell.take().is_some_and(|tell| tell.send(tail).is_ok());
        // The queue's end tells the task that the file goes on from there.
        self.feed = match told {
            true => Feed::Spool { file, written },
            false => Feed::Closed,
        };
        self.append(part).await;
        if self.is_open() {
            tracing::warn!(
                storage = name,
                "storage {name} is slow: the rest of the backup waits for it on the disk, in {}",
                spool.folder().display()
            );
        }
    }

    async fn append(&mut self, part: Bytes) {
        let Feed::Spool { file, written } = &mut self.feed else {
            return;
        };
        let name = self.place.storage();
        let append = file.append(part);
        match within(self.route.patience.disk, name, SPOOLING, append).await {
            Ok(()) => {
                if written.send(file.bytes()).is_err() {
                    self.feed = Feed::Closed;
                }
            }
            Err(error) => self.leave_for(error),
        }
    }

    fn behind(&self, limit: Duration) -> Error {
        let action = format!(
            "keep up: it took nothing for {}, and the spool folder is on the same disk",
            HumanDuration(limit)
        );
        Error::new(Problem::Unavailable, self.place.store().describe(), action)
    }

    /// Leaves the storage behind because what it has not taken can wait nowhere.
    fn leave_for(&mut self, error: Error) {
        let (problem, hint) = (error.problem, error.hint.clone());
        let action = "keep up with the dump, and the rest cannot wait on this host's disk";
        let mut lost = Error::new(problem, self.place.store().describe(), action).because(error);
        lost.hint = hint;
        self.leave(lost);
    }

    fn leave(&mut self, error: Error) {
        tracing::warn!(
            storage = self.place.storage(),
            "storage {} is left behind: {error}",
            self.place.storage()
        );
        self.lost = Some(error);
        self.stop.cancel();
        self.feed = Feed::Closed;
    }

    /// There are no more parts: those under way are what there is.
    pub(super) fn end(&mut self) {
        self.feed = Feed::Closed;
        self.tell = None;
    }

    /// Whether it has come to its end.
    pub(super) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits until the storage has taken all, and gives the upload, to be finished.
    ///
    /// # Errors
    /// Why the storage does not have it.
    pub(super) async fn outcome(self) -> Result<Box<dyn Upload>, Error> {
        let store = self.place.store().describe();
        self.ended().await.map_err(|error| {
            let stopped = || Error::new(Problem::Other, store, "write the data: it was stopped");
            error.unwrap_or_else(stopped)
        })
    }

    async fn ended(mut self) -> Carried {
        self.end();
        let ended = (&mut self.task).await.unwrap_or_else(|panic| {
            let store = self.place.store().describe();
            let error = Error::new(Problem::Other, store, "write the data");
            Err(Some(error.because(panic)))
        });
        match (self.lost.take(), ended) {
            (None, ended) => ended,
            (Some(error), Err(_)) => Err(Some(error)),
            (Some(error), Ok(open)) => {
                abort(open, ABORT).await;
                Err(Some(error))
            }
        }
    }

    /// Ends it and removes what was sent. Gives what was wrong with the storage before, if anything was.
    async fn abandon(self) -> Option<Error> {
        self.stop.cancel();
        let limit = match self.route.stop.is_cancelled() {
            true => GRACE,
            false => ABORT,
        };
        match self.ended().await {
            Ok(open) => {
                abort(open, limit).await;
                None
            }
            Err(error) => error,
        }
    }
}

/// Ends them all and removes what was sent of an archive that is not to be. Gives what was wrong with the first storage
/// that something was wrong with.
pub(super) async fn abandon(relays: Vec<Relay>) -> Option<Error> {
    let ended = join_all(relays.into_iter().map(Relay::abandon)).await;
    ended.into_iter().flatten().next()
}

/// Removes what was sent, if the store does that within its time; otherwise it is debris.
async fn abort(open: Box<dyn Upload>, limit: Duration) {
    let _ = timeout(limit, open.abort()).await;
}

/// The task's side.
struct Carrier {
    place: Place,
    pool: Pool,
    patience: Patience,
    /// Stops this storage alone, too.
    stop: CancellationToken,
    /// Stops the whole run.
    whole: CancellationToken,
}

impl Carrier {
    /// Takes all of it into the storage: the queue's, then the file's.
    async fn carry(
        self,
        object: String,
        mut parts: mpsc::Receiver<Bytes>,
        tail: oneshot::Receiver<Tail>,
    ) -> Carried {
        let mut open = self.or_stopped(self.begin(&object)).await?;
        let carried = self
            .or_stopped(async {
                while let Some(part) = parts.recv().await {
                    self.send(open.as_mut(), part).await?;
                }
                // Without a tail all of it came through the queue.
                if let Ok(tail) = tail.await {
                    self.catch_up(open.as_mut(), tail).await?;
                }
                let store = self.place.store().describe();
                within(TRANSFER, &store, "write the data", open.settle()).await
            })
            .await;
        match carried {
            Ok(()) => Ok(open),
            Err(error) => {
                // Whoever feeds it is told at once, and not when the store has cleaned up.
                drop(parts);
                let limit = match self.whole.is_cancelled() {
                    true => GRACE,
                    false => ABORT,
                };
                abort(open, limit).await;
                Err(error)
            }
        }
    }

    async fn begin(&self, object: &str) -> Result<Box<dyn Upload>, Error> {
        let key = self.place.key(object)?;
        let work = self.place.store().upload(&key);
        let store = self.place.store().describe();
        within(STALL, &store, format!("create {key}"), work).await
    }

    async fn send(&self, open: &mut dyn Upload, part: Bytes) -> Result<(), Error> {
        let store = self.place.store().describe();
        within(
            self.patience.part,
            &store,
            "write the data",
            open.part(part),
        )
        .await?;
        stage::reached("part");
        Ok(())
    }

    /// Takes the rest from the file, in parts of the usual size, while it may still grow.
    async fn catch_up(&self, open: &mut dyn Upload, mut tail: Tail) -> Result<(), Error> {
        let mut sent = 0;
        loop {
            // Gone is whoever wrote it: there is no more than now.
            let grows = tail.written.changed().await.is_ok();
            let written = *tail.written.borrow_and_update();
            while written - sent >= PART_BYTES as u64 || (!grows && written > sent) {
                let length = (written - sent).min(PART_BYTES as u64);
                let part = tail.file.read(sent, length as usize, &self.pool).await?;
                self.send(open, part).await?;
                sent += length;
            }
            if !grows {
                let name = self.place.storage();
                tracing::info!(storage = name, "storage {name} has caught up");
                return Ok(());
            }
        }
    }

    async fn or_stopped<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Option<Error>> {
        tokio::select! {
            done = work => done.map_err(Some),
            () = self.stop.cancelled() => Err(None),
        }
    }
}

#[cfg(test)]
mod tests;
