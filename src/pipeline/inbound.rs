//! An archive becomes plain bytes again: digest, decryption, decompression, digest, and every check on the way.
//!
//! ```text
//! storage reader (async) ─> stored digest, decryption, decompression (a thread) ─┬─> consumer (the caller's thread)
//!                                                                               └─> plain digest (a thread)
//! ```
//!
//! The consumer sees bytes before the digests are known: nothing may be done with them that cannot
//! be taken back until [`unpack`] has returned.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{SyncSender, sync_channel};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::sync::mpsc;

use super::Digester;
use super::compression::{Detected, decompressor, detect};
use super::keys::{KeyError, Keys, OpenError};
use crate::pool::Pool;
use crate::storage::{self, Reader};

/// So many bytes say what a file is.
const START_BYTES: usize = 32;

/// The size of the pieces that the consumer is given.
const PIECE_BYTES: usize = 1 << 20;

/// Stored bytes on their way to [`unpack`].
pub type Stored = mpsc::Receiver<Result<Bytes, storage::Error>>;

/// What a manifest says of an archive's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Size of the stored object.
    pub bytes: u64,
    /// SHA-256 of the stored object.
    pub sha256: String,
    /// Size of the plain RDB file.
    pub plain_bytes: u64,
    /// SHA-256 of the plain RDB file.
    pub plain_sha256: String,
}

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Size of the stored object.
    pub bytes: u64,
    /// Size of the plain bytes.
    pub plain_bytes: u64,
}

/// Why an archive could not be read back.
#[derive(Debug, thiserror::Error)]
pub enum Error<E> {
    /// The storage failed.
    #[error(transparent)]
    Storage(storage::Error),
    /// The bytes are not what they were.
    #[error("{0}")]
    Damaged(String),
    /// It is encrypted, whole as far as can be told, and no key opens it.
    #[error(transparent)]
    Key(KeyError),
    /// A thread could not be made.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// The consumer stopped.
    #[error("{0}")]
    Consumer(E),
}

/// Whether a file that begins with these bytes is an age file.
pub fn is_encrypted(start: &[u8]) -> bool {
    detect(start) == Detected::Age
}

/// Reads an object ahead of its consumer, a few pieces at most.
///
/// Must be called within a tokio runtime.
pub fn read_ahead(mut reader: Box<dyn Reader>) -> Stored {
    let (sender, receiver) = mpsc::channel(3);
    tokio::spawn(async move {
        loop {
            let next = reader.next().await;
            let last = !matches!(&next, Ok(bytes) if !bytes.is_empty());
            if matches!(&next, Ok(bytes) if bytes.is_empty()) {
                return;
            }
            if sender.send(next).await.is_err() || last {
                return;
            }
        }
    });
    receiver
}

/// Reads an archive to its end, gives its plain bytes to `consume`, and checks all that is expected. Where nothing is, as
/// of a file without a manifest, no digest is made.
///
/// Blocks; to be called on a thread where that is fine.
pub fn unpack<E>(
    stored: Stored,
    expected: Option<&Expected>,
    keys: &Keys,
    mut consume: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<Unpacked, Error<E>> {
    let (pieces, plain) = sync_channel::<Bytes>(2);
    let digested = expected.is_some();
    std::thread::scope(|scope| {
        let reading = std::thread::Builder::new()
            .name("decompress".to_owned())
            .spawn_scoped(scope, move || undo(stored, digested, keys, &pieces))
            .map_err(Error::Thread)?;
        // Beside the consumer: a digest takes longer than a scan.
        let (copies, digesting) = match digested {
            false => (None, None),
            true => {
                let (copies, to_digest) = sync_channel::<Bytes>(2);
                let digesting = std::thread::Builder::new()
                    .name("digest".to_owned())
                    .spawn_scoped(scope, move || {
                        let mut digest = Digester::default();
                        to_digest.iter().for_each(|piece| digest.update(&piece));
                        digest
                    })
                    .map_err(Error::Thread)?;
                (Some(copies), Some(digesting))
            }
        };
        let mut plain_bytes = 0;
        let mut failed = None;
        for piece in &plain {
            plain_bytes += piece.len() as u64;
            if let Some(expected) = expected
                && plain_bytes > expected.plain_bytes
            {
                failed = Some(Error::Damaged(format!(
                    "it holds more than the {} bytes that its manifest names",
                    expected.plain_bytes
                )));
                break;
            }
            if let Some(copies) = &copies {
                // It ends after us, or by a panic, which is seen at its end.
                let _ = copies.send(piece.clone());
            }
            if let Err(error) = consume(&piece) {
                failed = Some(Error::Consumer(error));
                break;
            }
        }
        drop(copies);
        let digest = match digesting.map(|thread| thread.join()) {
            None => None,
            Some(Ok(digest)) => Some(digest),
            Some(Err(_)) => {
                failed = Some(Error::Damaged("the digest panicked".to_owned()));
                None
            }
        };
        let passed = Passed {
            bytes: plain_bytes,
            digest,
        };
        // The reading thread ends when its queue's other end is gone.
        drop(plain);
        let read = match reading.join() {
            Ok(read) => read,
            Err(_) => Err(Stopped::Damaged("the decompressor panicked".to_owned())),
        };
        match (failed, read) {
            // The cause is nearer to the storage than its effect.
            (_, Err(Stopped::Storage(error))) => Err(Error::Storage(error)),
            (Some(Error::Consumer(error)), Err(Stopped::Damaged(_))) => Err(Error::Consumer(error)),
            (_, Err(Stopped::Damaged(why))) => Err(Error::Damaged(why)),
            (_, Err(Stopped::Key(error, stored))) => {
                // A flipped bit may look like a wrong key: the digest tells one from the other.
                check("stored", *stored, expected.map(Expected::stored)).map_err(Error::Damaged)?;
                Err(Error::Key(error))
            }
            (Some(error), _) => Err(error),
            (None, Err(Stopped::Closed)) => {
                Err(Error::Damaged("reading it ended too soon".to_owned()))
            }
            (None, Ok(stored)) => {
                let unpacked = Unpacked {
                    bytes: stored.bytes,
                    plain_bytes: passed.bytes,
                };
                check("stored", stored, expected.map(Expected::stored)).map_err(Error::Damaged)?;
                check("plain", passed, expected.map(Expected::plain)).map_err(Error::Damaged)?;
                Ok(unpacked)
            }
        }
    })
}

impl Expected {
    fn stored(&self) -> (u64, &str) {
        (self.bytes, &self.sha256)
    }

    fn plain(&self) -> (u64, &str) {
        (self.plain_bytes, &self.plain_sha256)
    }
}

/// Bytes that passed, and their digest where there is something to compare it with.
struct Passed {
    bytes: u64,
    digest: Option<Digester>,
}

impl Passed {
    fn new(digested: bool) -> Passed {
        Passed {
            bytes: 0,
            digest: digested.then(Digester::default),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        if let Some(digest) = &mut self.digest {
            digest.update(bytes);
        }
    }
}

/// Compares what passed with what is expected; the error says what differs.
fn check(what: &str, passed: Passed, expected: Option<(u64, &str)>) -> Result<(), String> {
    match (passed.digest, expected) {
        (Some(digest), Some(expected)) => compare(what, (passed.bytes, &digest.finish()), expected),
        _ => Ok(()),
    }
}

/// Compares the size and the digest of what is stored with what is expected; the error says what differs.
pub(crate) fn check_stored(bytes: u64, sha256: &str, expected: &Expected) -> Result<(), String> {
    compare("stored", (bytes, sha256), expected.stored())
}

fn compare(what: &str, is: (u64, &str), should: (u64, &str)) -> Result<(), String> {
    if is.0 != should.0 {
        return Err(format!(
            "the {what} size is {} bytes, and its manifest says {}",
            is.0, should.0
        ));
    }
    if is.1 != should.1 {
        return Err(format!(
            "the SHA-256 of the {what} bytes is {}, and its manifest says {}",
            is.1, should.1
        ));
    }
    Ok(())
}

/// Reads an archive to its end and compares its stored size and digest: all that can be done without a key.
///
/// Blocks; to be called on a thread where that is fine.
///
/// # Errors
/// [`Error::Damaged`] when they differ, [`Error::Storage`] when it cannot be read.
pub fn check_digest<E>(
    mut stored: Stored,
    expected: &Expected,
    mut progress: impl FnMut(u64),
) -> Result<(), Error<E>> {
    let mut digest = Digester::default();
    while let Some(chunk) = stored.blocking_recv() {
        let chunk = chunk.map_err(Error::Storage)?;
        digest.update(&chunk);
        progress(chunk.len() as u64);
    }
    check_stored(digest.bytes(), &digest.finish(), expected).map_err(Error::Damaged)
}

enum Stopped {
    Storage(storage::Error),
    Damaged(String),
    /// No key opens it; and what is stored.
    Key(KeyError, Box<Passed>),
    /// The consumer is gone.
    Closed,
}

/// The reading thread: stored bytes in, plain pieces out. Gives what was stored.
fn undo(
    stored: Stored,
    digested: bool,
    keys: &Keys,
    pieces: &SyncSender<Bytes>,
) -> Result<Passed, Stopped> {
    let mut input = Input {
        stored,
        chunk: Bytes::new(),
        passed: Passed::new(digested),
        error: None,
    };
    let first = input.fill_start();
    if let (Err(_), Some(error)) = (first, input.error.take()) {
        return Err(Stopped::Storage(error));
    }
    let result = match detect(&input.chunk) {
        Detected::Age => match keys.open(&mut input) {
            Ok(opened) => decrypt(Decrypting(opened), pieces),
            Err(OpenError::Damaged(why)) => Err(Stopped::Damaged(why)),
            Err(OpenError::Key(error)) => {
                let stored = input.drain()?;
                return Err(Stopped::Key(error, Box::new(stored)));
            }
        },
        Detected::ArmoredAge => {
            let stored = input.drain()?;
            return Err(Stopped::Key(KeyError::Armored, Box::new(stored)));
        }
        Detected::Plain => input.pass(pieces),
        detected => pump(detected, &mut input, pieces),
    };
    if let Some(error) = input.error.take() {
        return Err(Stopped::Storage(error));
    }
    result?;
    // A decompressor may stop before the end; the digest must not.
    input.drain()
}

/// What comes of a decryption goes on. It is read to its end, which says that it was not cut short.
fn decrypt(opened: Decrypting<impl Read>, pieces: &SyncSender<Bytes>) -> Result<(), Stopped> {
    let mut opened = BufReader::with_capacity(1 << 16, opened);
    let detected = match opened.fill_buf() {
        Ok(start) => detect(start),
        Err(error) => return Err(Stopped::Damaged(told(&error))),
    };
    pump(detected, &mut opened, pieces)?;
    io::copy(&mut opened, &mut io::sink())
        .map(drop)
        .map_err(|error| Stopped::Damaged(told(&error)))
}

fn pump(
    detected: Detected,
    input: &mut impl Read,
    pieces: &SyncSender<Bytes>,
) -> Result<(), Stopped> {
    let damaged = |error: io::Error| Stopped::Damaged(told(&error));
    let mut reader = decompressor(detected, input).map_err(damaged)?;
    let pool = Pool::new(PIECE_BYTES);
    loop {
        let mut piece = pool.take();
        let read = reader
            .by_ref()
            .take(PIECE_BYTES as u64)
            .read_to_end(&mut piece)
            .map_err(damaged)?;
        if read == 0 {
            return Ok(());
        }
        pieces.send(pool.lend(piece)).map_err(|_| Stopped::Closed)?;
    }
}

/// What is wrong with the bytes, by the layer that found it.
fn told(error: &io::Error) -> String {
    match error.get_ref() {
        Some(inner) if inner.is::<NotDecrypted>() => error.to_string(),
        _ => format!("it does not decompress: {error}"),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("it does not decrypt: {0}")]
struct NotDecrypted(io::Error);

/// The reader of an encrypted archive, whose errors say so.
struct Decrypting<R>(R);

impl<R: Read> Read for Decrypting<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0
            .read(out)
            .map_err(|error| io::Error::new(error.kind(), NotDecrypted(error)))
    }
}

/// The stored bytes as a reader that digests what passes.
struct Input {
    stored: Stored,
    chunk: Bytes,
    passed: Passed,
    error: Option<storage::Error>,
}

impl Input {
    fn fill(&mut self) -> io::Result<()> {
        while self.chunk.is_empty() {
            match self.next()? {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Fills it with enough to see what the file is; less only where there is no more.
    fn fill_start(&mut self) -> io::Result<()> {
        while self.chunk.len() < START_BYTES {
            let Some(chunk) = self.next()? else {
                return Ok(());
            };
            if self.chunk.is_empty() {
                self.chunk = chunk;
            } else {
                let mut both = BytesMut::from(&self.chunk[..]);
                both.extend_from_slice(&chunk);
                self.chunk = both.freeze();
            }
        }
        Ok(())
    }

    /// The next chunk, digested.
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        match self.stored.blocking_recv() {
            None => Ok(None),
            Some(Ok(chunk)) => {
                self.passed.update(&chunk);
                Ok(Some(chunk))
            }
            Some(Err(error)) => {
                let told = io::Error::other(error.to_string());
                self.error = Some(error);
                Err(told)
            }
        }
    }

    /// Hands on all bytes as they are.
    fn pass(&mut self, pieces: &SyncSender<Bytes>) -> Result<(), Stopped> {
        loop {
            let chunk = std::mem::take(&mut self.chunk);
            if !chunk.is_empty() {
                pieces.send(chunk).map_err(|_| Stopped::Closed)?;
            }
            match self.next() {
                Ok(Some(chunk)) => self.chunk = chunk,
                Ok(None) => return Ok(()),
                Err(error) => return Err(Stopped::Damaged(error.to_string())),
            }
        }
    }

    /// Reads what is left; gives all that was stored.
    fn drain(mut self) -> Result<Passed, Stopped> {
        loop {
            match self.next() {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(self.passed),
                Err(error) => {
                    return Err(match self.error.take() {
                        Some(error) => Stopped::Storage(error),
                        None => Stopped::Damaged(error.to_string()),
                    });
                }
            }
        }
    }
}

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.fill()?;
        Ok(&self.chunk)
    }

    fn consume(&mut self, amount: usize) {
        self.chunk.advance(amount);
    }
}

impl Read for Input {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.fill()?;
        let n = out.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut out[..n]);
        Ok(n)
    }
}

#[cfg(test)]
mod tests;
