//! Batches go out, replies come in, at once: the server is never idle and never buffers more answers than a few batches.
//!
//! The bound is the queue between the two directions: a batch enters it before it is sent and leaves it when all of it
//! is answered. So whatever ends a run, every command that was sent is accounted for, as long as the connection holds.

use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::batch::{Asked, Batch};
use crate::server::wire::{WireReader, WireWriter};
use crate::server::{Error, Reply, Wire};

/// Batches in flight.
const IN_FLIGHT: usize = 8;

/// After a cancellation, how long answers to what is in flight are waited for.
const GRACE: Duration = Duration::from_secs(5);

/// Takes the replies.
pub(crate) trait Judge {
    /// Looks at the reply for a key; `Break` ends the run: nothing more is sent, what is in flight is still judged.
    fn judge(&mut self, asked: Asked, db: u32, key: &[u8], reply: Reply) -> ControlFlow<()>;
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// All batches were sent and answered.
    Done,
    /// The judge had enough.
    Stopped,
    /// It was cancelled.
    Cancelled,
}

/// Sends the batches and hands the replies to `judge`. At most `rate` keys a second are sent, evenly; 0 is no limit.
///
/// # Errors
/// The connection broke. What was judged until then stands.
pub(crate) async fn pump(
    wire: Wire,
    batches: mpsc::Receiver<Batch>,
    judge: &mut (impl Judge + Send),
    rate: u64,
    cancel: &CancellationToken,
) -> Result<End, Error> {
    let (reader, writer) = wire.split();
    let stop = cancel.child_token();
    let (sent, answered) = mpsc::channel::<Batch>(IN_FLIGHT);
    let both = async {
        // When writing fails the reader goes on: what the server said before it hung up is worth more than a broken pipe.
        let write = async { Ok(send_all(writer, batches, sent, rate, &stop).await) };
        let read = receive_all(reader, answered, judge, &stop);
        let (written, end) = tokio::try_join!(write, read)?;
        written?;
        Ok::<End, Error>(end)
    };
    let given_up = async {
        cancel.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    let end = tokio::select! {
        end = both => end?,
        () = given_up => End::Cancelled,
    };
    Ok(match end {
        End::Done if cancel.is_cancelled() => End::Cancelled,
        end => end,
    })
}

/// Sends until there are no more batches, or `stop`. Its end drops both queues: the reader learns that nothing more
/// comes, and whoever makes batches that they are not wanted any more.
async fn send_all(
    mut writer: WireWriter,
    mut batches: mpsc::Receiver<Batch>,
    sent: mpsc::Sender<Batch>,
    rate: u64,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let mut next_at = Instant::now();
    loop {
        let mut batch = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            batch = batches.recv() => match batch {
                Some(batch) => batch,
                None => return Ok(()),
            },
        };
        if rate > 0 {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep_until(next_at) => {}
            }
            let pause = Duration::from_secs_f64(batch.keys() as f64 / rate as f64);
            next_at = next_at.max(Instant::now()) + pause;
        }
        let parts: Vec<Bytes> = batch.parts().collect();
        let room = batch.room.take();
        tokio::select! {
            biased;
            // First: the answer that makes the room may be the one that ends the run.
            () = stop.cancelled() => return Ok(()),
            place = sent.reserve() => match place {
                Ok(place) => place.send(batch.without_payloads()),
                // The reader has gone only after an error, which it tells itself.
                Err(_) => return Ok(()),
            },
        }
        for part in parts {
            writer.send(&part).await?;
        }
        // Only now may another large payload come.
        drop(room);
    }
}

async fn receive_all(
    mut reader: WireReader,
    mut answered: mpsc::Receiver<Batch>,
    judge: &mut (impl Judge + Send),
    stop: &CancellationToken,
) -> Result<End, Error> {
    let mut end = End::Done;
    while let Some(batch) = answered.recv().await {
        for expected in &batch.expected {
            let reply = reader.reply().await?;
            let key = batch.key(expected);
            if judge
                .judge(expected.asked, expected.db, key, reply)
                .is_break()
            {
                end = End::Stopped;
                stop.cancel();
            }
        }
    }
    Ok(end)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::batch::Builder;
    use super::*;
    use crate::server::Stream;

    fn batch() -> Batch {
        let mut builder = Builder::new(1);
        builder.exists(0, b"k");
        builder.rest().unwrap()
    }

    /// On one thread, so that the stop and the room come to the sender at once.
    #[tokio::test]
    async fn a_stop_that_comes_with_the_room_for_a_batch_leaves_it_unsent() {
        let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        let (_reader, writer) = Wire::new(Stream::Unix(ours), Duration::from_secs(60)).split();
        let (make, batches) = mpsc::channel(2);
        let (sent, mut answered) = mpsc::channel(1);
        let stop = CancellationToken::new();
        make.send(batch()).await.unwrap();
        make.send(batch()).await.unwrap();
        let sending = tokio::spawn({
            let stop = stop.clone();
            async move { send_all(writer, batches, sent, 0, &stop).await }
        });
        // The first is in flight, the second waits for its place when it has left the queue.
        while make.capacity() < 2 {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        assert!(answered.try_recv().is_ok());
        sending.await.unwrap().unwrap();
        assert!(answered.recv().await.is_none());
        drop(theirs);
    }
}
