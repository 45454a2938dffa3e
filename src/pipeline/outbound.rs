//! Plain bytes become an archive: digest, blocks, compression on several threads, encryption, digest, parts.
//!
//! ```text
//! write() ─ plain digest ─ blocks ─┬─ worker ─┬─ collector: in order, encryption, stored digest, parts ─> channel
//!                                  └─ worker ─┘
//! ```
//!
//! The collector takes blocks in the order in which they were handed out: each block's result has a
//! channel of its own, and those channels are queued. The queue's length bounds what is in memory.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use bytes::Bytes;

use super::Digester;
use super::compression::{BlockCompressor, Compression, frame_room};
use super::seal::{Seal, Sink};
use crate::pool::{Filling, Pool};
use crate::turns::COMPRESSION;

/// How much plain data becomes one frame. Twice as much makes an archive about a hundredth smaller and costs twice the memory.
pub(super) const BLOCK_BYTES: usize = 2 << 20;

/// By how much compression gives way to other work.
const NICER: i32 = 5;

/// What went through a [`Packer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedFacts {
    /// Size of the plain bytes.
    pub plain_bytes: u64,
    /// Their SHA-256 in hex.
    pub plain_sha256: String,
    /// Size of what is stored.
    pub bytes: u64,
    /// Its SHA-256 in hex.
    pub sha256: String,
    /// What the encryption put in front.
    pub header: Option<HeaderFacts>,
}

/// The first bytes of an encrypted archive, which say who can open it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderFacts {
    /// How many they are.
    pub bytes: u64,
    /// Their SHA-256 in hex.
    pub sha256: String,
}

/// Why an archive could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The storage side of the channel is gone; its own error says why.
    #[error("the storage stopped taking data")]
    Closed,
    /// A compressor failed or a thread could not be made.
    #[error("cannot compress")]
    Compress(#[source] io::Error),
}

/// How an archive is made.
#[derive(Debug, Default)]
pub struct Settings {
    /// How it is compressed.
    pub compression: Compression,
    /// How it is encrypted, if it is.
    pub seal: Option<Seal>,
    /// Threads for compression.
    pub threads: usize,
}

/// What the collector made of an archive.
struct Collected {
    digest: Digester,
    header: Option<HeaderFacts>,
}

type Block = io::Result<Vec<u8>>;

struct Job {
    block: Vec<u8>,
    done: SyncSender<Block>,
}

/// Packs one archive. Dropping it without [`Packer::finish`] abandons the archive.
pub struct Packer {
    digest: Digester,
    block: Filling,
    jobs: SyncSender<Job>,
    order: SyncSender<Receiver<Block>>,
    collector: JoinHandle<Result<Collected, Error>>,
}

impl Packer {
    /// Starts the threads of one archive. Its parts, each but the last as long as a buffer of `part_pool` has room, go to `parts`.
    pub fn start(
        settings: Settings,
        part_pool: Pool,
        parts: tokio::sync::mpsc::Sender<Bytes>,
    ) -> Result<Packer, Error> {
        let Settings {
            compression,
            seal,
            threads,
        } = settings;
        let threads = match compression {
            Compression::None => 1,
            _ => threads.max(1),
        };
        // Of each queue's blocks one a thread is being worked on, and one more is ready for whoever is first.
        let (jobs, todo) = sync_channel::<Job>(1);
        let (order, ordered) = sync_channel::<Receiver<Block>>(threads + 1);
        let todo = Arc::new(Mutex::new(todo));
        // A frame may be a little longer than its block.
        let pool = Pool::new(frame_room(BLOCK_BYTES));
        for _ in 0..threads {
            let mut compressor = BlockCompressor::new(compression).map_err(Error::Compress)?;
            let todo = Arc::clone(&todo);
            let pool = pool.clone();
            Builder::new()
                .name("compress".to_owned())
                .spawn(move || {
                    give_way();
                    loop {
                        let job = todo.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        let Ok(job) = job else { return };
                        let turn = COMPRESSION.take();
                        let block = compressor.compress(job.block, &pool);
                        drop(turn);
                        // A collector that is gone has given up on the archive.
                        let _ = job.done.send(block);
                    }
                })
                .map_err(Error::Compress)?;
        }
        let frames = pool.clone();
        let collector = Builder::new()
            .name("collect".to_owned())
            .spawn(move || collect(&ordered, &frames, seal, part_pool, &parts))
            .map_err(Error::Compress)?;
        Ok(Packer {
            digest: Digester::default(),
            block: Filling::new(pool, BLOCK_BYTES),
            jobs,
            order,
            collector,
        })
    }

    /// Takes the next plain bytes. Blocks while the storage is behind.
    pub fn write(&mut self, mut data: &[u8]) -> Result<(), Error> {
        while !data.is_empty() {
            if let Some(full) = self.block.fill(&mut data) {
                self.hand_out(full)?;
            }
        }
        Ok(())
    }

    /// Whole blocks are digested, not what comes in: that may be a few bytes at a time.
    fn hand_out(&mut self, block: Vec<u8>) -> Result<(), Error> {
        self.digest.update(&block);
        let (done, result) = sync_channel(1);
        self.order.send(result).map_err(|_| Error::Closed)?;
        self.jobs
            .send(Job { block, done })
            .map_err(|_| Error::Closed)
    }

    /// Packs what is left and waits until all of it has been handed to the storage's channel.
    pub fn finish(mut self) -> Result<PackedFacts, Error> {
        let handed = match self.block.rest() {
            None => Ok(()),
            Some(last) => self.hand_out(last),
        };
        let Packer {
            digest,
            jobs,
            order,
            collector,
            ..
        } = self;
        drop((jobs, order));
        let stored = match collector.join() {
            Ok(stored) => stored?,
            Err(_) => return Err(Error::Compress(io::Error::other("the collector panicked"))),
        };
        handed?;
        Ok(PackedFacts {
            plain_bytes: digest.bytes(),
            plain_sha256: digest.finish(),
            bytes: stored.digest.bytes(),
            sha256: stored.digest.finish(),
            header: stored.header,
        })
    }
}

/// A thread that compresses has time, and whoever it waits for has not: on a host that it shares with the server, the server
/// comes first.
fn give_way() {
    use rustix::process::{getpriority_process, setpriority_process};
    // Of this thread alone, on Linux. Who may not is as fast as before.
    if let Ok(nice) = getpriority_process(None) {
        let _ = setpriority_process(None, (nice + NICER).min(19));
    }
}

fn collect(
    ordered: &Receiver<Receiver<Block>>,
    frames: &Pool,
    seal: Option<Seal>,
    pool: Pool,
    parts: &tokio::sync::mpsc::Sender<Bytes>,
) -> Result<Collected, Error> {
    // Writing fails for one reason alone.
    let closed = |_: io::Error| Error::Closed;
    let parts = Parts {
        digest: Digester::default(),
        part: Filling::new(pool.clone(), pool.room()),
        channel: parts,
    };
    let mut header = None;
    let mut sink = Sink::start(parts, seal, |parts| {
        header = Some(HeaderFacts {
            bytes: parts.digest.bytes(),
            sha256: parts.digest.clone().finish(),
        });
    })
    .map_err(closed)?;
    for result in ordered {
        let frame = match result.recv() {
            Ok(frame) => frame.map_err(Error::Compress)?,
            // The packer was dropped between announcing a block and handing it out.
            Err(_) => return Err(Error::Closed),
        };
        sink.write_all(&frame).map_err(closed)?;
        frames.give(frame);
    }
    let mut parts = sink.finish().map_err(closed)?;
    if let Some(last) = parts.part.rest() {
        parts.send(last).map_err(closed)?;
    }
    Ok(Collected {
        digest: parts.digest,
        header,
    })
}

/// What is stored, digested and cut into parts.
struct Parts<'c> {
    digest: Digester,
    part: Filling,
    channel: &'c tokio::sync::mpsc::Sender<Bytes>,
}

impl Parts<'_> {
    /// The channel is closed when the storage has given up.
    fn send(&mut self, part: Vec<u8>) -> io::Result<()> {
        self.channel
            .blocking_send(self.part.pool().lend(part))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Parts<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.digest.update(data);
        let mut rest = data;
        while !rest.is_empty() {
            if let Some(full) = self.part.fill(&mut rest) {
                self.send(full)?;
            }
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
