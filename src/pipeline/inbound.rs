//! An archive becomes plain bytes again: digest, decompression, digest, and every check on the way.
//!
//! ```text
//! storage reader (async) ─> stored digest, decompression (a thread) ─> plain digest, consumer (the caller's thread)
//! ```
//!
//! The consumer sees bytes before the digests are known: nothing may be done with them that cannot
//! be taken back until [`unpack`] has returned.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::{Buf as _, Bytes};
use tokio::sync::mpsc;

use super::Digester;
use super::compression::{Detected, decompressor, detect};
use crate::storage::{self, Reader};

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Size of the stored object.
    pub bytes: u64,
    /// SHA-256 of the stored object.
    pub sha256: String,
    /// Size of the plain bytes.
    pub plain_bytes: u64,
    /// SHA-256 of the plain bytes.
    pub plain_sha256: String,
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
    /// The file is encrypted, which this version cannot undo.
    #[error("the file is encrypted with age")]
    Encrypted,
    /// A thread could not be made.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// The consumer stopped.
    #[error("{0}")]
    Consumer(E),
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

/// Reads an archive to its end, gives its plain bytes to `consume`, and checks all that is expected.
///
/// Blocks; to be called on a thread where that is fine.
pub fn unpack<E>(
    stored: Stored,
    expected: Option<&Expected>,
    mut consume: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<Unpacked, Error<E>> {
    let (pieces, plain) = sync_channel::<Vec<u8>>(2);
    let (empties, spare) = sync_channel::<Vec<u8>>(4);
    std::thread::scope(|scope| {
        let reading = std::thread::Builder::new()
            .name("decompress".to_owned())
            .spawn_scoped(scope, move || decompress(stored, &pieces, &spare))
            .map_err(Error::Thread)?;
        let mut digest = Digester::default();
        let mut failed = None;
        for piece in &plain {
            digest.update(&piece);
            if let Some(expected) = expected
                && digest.bytes() > expected.plain_bytes
            {
                failed = Some(Error::Damaged(format!(
                    "it holds more than the {} bytes that its manifest names",
                    expected.plain_bytes
                )));
                break;
            }
            if let Err(error) = consume(&piece) {
                failed = Some(Error::Consumer(error));
                break;
            }
            // A full queue of spare buffers is no loss.
            let _ = empties.try_send(piece);
        }
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
            (_, Err(Stopped::Encrypted)) => Err(Error::Encrypted),
            (Some(error), _) => Err(error),
            (None, Err(Stopped::Closed)) => {
                Err(Error::Damaged("reading it ended too soon".to_owned()))
            }
            (None, Ok(stored)) => {
                let unpacked = Unpacked {
                    bytes: stored.bytes(),
                    sha256: stored.finish(),
                    plain_bytes: digest.bytes(),
                    plain_sha256: digest.finish(),
                };
                check(&unpacked, expected)?;
                Ok(unpacked)
            }
        }
    })
}

/// Compares what was read with what is expected.
fn check<E>(unpacked: &Unpacked, expected: Option<&Expected>) -> Result<(), Error<E>> {
    let Some(expected) = expected else {
        return Ok(());
    };
    let sizes = [
        ("stored", unpacked.bytes, expected.bytes),
        ("plain", unpacked.plain_bytes, expected.plain_bytes),
    ];
    for (what, is, should) in sizes {
        if is != should {
            return Err(Error::Damaged(format!(
                "the {what} size is {is} bytes, and its manifest says {should}"
            )));
        }
    }
    let digests = [
        ("stored", &unpacked.sha256, &expected.sha256),
        ("plain", &unpacked.plain_sha256, &expected.plain_sha256),
    ];
    for (what, is, should) in digests {
        if is != should {
            return Err(Error::Damaged(format!(
                "the SHA-256 of the {what} bytes is {is}, and its manifest says {should}"
            )));
        }
    }
    Ok(())
}

enum Stopped {
    Storage(storage::Error),
    Damaged(String),
    Encrypted,
    /// The consumer is gone.
    Closed,
}

/// The reading thread: stored bytes in, plain pieces out. Gives the digest of what was stored.
fn decompress(
    stored: Stored,
    pieces: &SyncSender<Vec<u8>>,
    spare: &Receiver<Vec<u8>>,
) -> Result<Digester, Stopped> {
    let mut input = Input {
        stored,
        chunk: Bytes::new(),
        digest: Digester::default(),
        error: None,
    };
    let first = input.fill();
    if let (Err(_), Some(error)) = (first, input.error.take()) {
        return Err(Stopped::Storage(error));
    }
    let detected = detect(&input.chunk);
    if detected == Detected::Age {
        return Err(Stopped::Encrypted);
    }
    let result = pump(detected, &mut input, pieces, spare);
    if let Some(error) = input.error.take() {
        return Err(Stopped::Storage(error));
    }
    result?;
    // A decompressor may stop before the end; the digest must not.
    let mut rest = [0; 1 << 16];
    loop {
        match input.read(&mut rest) {
            Ok(0) => return Ok(input.digest),
            Ok(_) => {}
            Err(error) => {
                return Err(match input.error.take() {
                    Some(error) => Stopped::Storage(error),
                    None => Stopped::Damaged(error.to_string()),
                });
            }
        }
    }
}

fn pump(
    detected: Detected,
    input: &mut Input,
    pieces: &SyncSender<Vec<u8>>,
    spare: &Receiver<Vec<u8>>,
) -> Result<(), Stopped> {
    let damaged = |error: io::Error| Stopped::Damaged(format!("it does not decompress: {error}"));
    let mut reader = decompressor(detected, input).map_err(damaged)?;
    loop {
        let mut piece = spare.try_recv().unwrap_or_default();
        piece.clear();
        piece.reserve_exact(PIECE_BYTES);
        let read = reader
            .by_ref()
            .take(PIECE_BYTES as u64)
            .read_to_end(&mut piece)
            .map_err(damaged)?;
        if read == 0 {
            return Ok(());
        }
        pieces.send(piece).map_err(|_| Stopped::Closed)?;
    }
}

/// The stored bytes as a reader that digests what passes.
struct Input {
    stored: Stored,
    chunk: Bytes,
    digest: Digester,
    error: Option<storage::Error>,
}

impl Input {
    fn fill(&mut self) -> io::Result<()> {
        while self.chunk.is_empty() {
            match self.stored.blocking_recv() {
                None => return Ok(()),
                Some(Ok(chunk)) => {
                    self.digest.update(&chunk);
                    self.chunk = chunk;
                }
                Some(Err(error)) => {
                    let told = io::Error::other(error.to_string());
                    self.error = Some(error);
                    return Err(told);
                }
            }
        }
        Ok(())
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
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::pipeline::Compression;
    use crate::pipeline::outbound::{PackedFacts, Packer};

    fn pack(plain: &[u8], compression: Compression, threads: usize) -> (Vec<u8>, PackedFacts) {
        let (sender, mut receiver) = mpsc::channel::<Bytes>(2);
        let taking = std::thread::spawn(move || {
            let mut stored = Vec::<u8>::new();
            while let Some(part) = receiver.blocking_recv() {
                stored.extend_from_slice(&part);
            }
            stored
        });
        let mut packer = Packer::start(compression, threads, 100_000, sender).unwrap();
        for piece in plain.chunks(70_001) {
            packer.write(piece).unwrap();
        }
        let facts = packer.finish().unwrap();
        (taking.join().unwrap(), facts)
    }

    fn read_back(
        stored: &[u8],
        expected: Option<&Expected>,
    ) -> Result<Vec<u8>, Error<std::convert::Infallible>> {
        let (sender, receiver) = mpsc::channel(1);
        let stored = stored.to_vec();
        let feeding = std::thread::spawn(move || {
            for chunk in stored.chunks(33_333) {
                if sender
                    .blocking_send(Ok(Bytes::copy_from_slice(chunk)))
                    .is_err()
                {
                    return;
                }
            }
        });
        let mut plain = Vec::new();
        let result = unpack(receiver, expected, |piece| {
            plain.extend_from_slice(piece);
            Ok(())
        });
        feeding.join().unwrap();
        result.map(|_| plain)
    }

    fn sample() -> Vec<u8> {
        (0..5_300_000u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> (24 + (i >> 18) % 6)) as u8)
            .collect()
    }

    fn expected(facts: PackedFacts) -> Expected {
        Expected {
            bytes: facts.bytes,
            sha256: facts.sha256,
            plain_bytes: facts.plain_bytes,
            plain_sha256: facts.plain_sha256,
        }
    }

    #[test]
    fn what_is_packed_unpacks_to_the_same_bytes_with_every_compression_and_thread_count() {
        let plain = sample();
        for compression in [
            Compression::None,
            Compression::Zstd(1),
            Compression::Gzip(1),
        ] {
            for threads in [1, 3] {
                let (stored, facts) = pack(&plain, compression, threads);
                assert_eq!(facts.bytes, stored.len() as u64);
                assert_eq!(facts.plain_sha256, crate::pipeline::sha256(&plain));
                assert_eq!(facts.sha256, crate::pipeline::sha256(&stored));
                let expected = expected(facts);
                assert!(read_back(&stored, Some(&expected)).unwrap() == plain);
            }
        }
    }

    #[test]
    fn a_flip_a_cut_and_an_extension_are_damage_wherever_they_are() {
        let plain = &sample()[..300_000];
        for compression in [
            Compression::None,
            Compression::Zstd(3),
            Compression::Gzip(1),
        ] {
            let (stored, facts) = pack(plain, compression, 2);
            let expected = expected(facts);
            for at in (0..stored.len()).step_by(stored.len() / 97) {
                let mut flipped = stored.clone();
                flipped[at] ^= 1 << (at % 8);
                let read = read_back(&flipped, Some(&expected));
                assert!(
                    matches!(read, Err(Error::Damaged(_) | Error::Encrypted)),
                    "{compression} flipped at {at}"
                );
                let read = read_back(&stored[..at], Some(&expected));
                assert!(
                    matches!(read, Err(Error::Damaged(_))),
                    "{compression} cut at {at}"
                );
            }
            for tail in [&[0u8][..], &stored, b"x"] {
                let long = [&stored[..], tail].concat();
                assert!(matches!(
                    read_back(&long, Some(&expected)),
                    Err(Error::Damaged(_))
                ));
            }
        }
    }

    #[test]
    fn a_storage_error_is_told_as_such() {
        let (sender, receiver) = mpsc::channel(2);
        let error = storage::Error::new(storage::Problem::Unavailable, "s", "read x");
        sender
            .try_send(Ok(Bytes::from_static(&[0x28, 0xb5, 0x2f, 0xfd, 4])))
            .unwrap();
        sender.try_send(Err(error)).unwrap();
        let result = unpack(receiver, None, |_| Ok::<_, ()>(()));
        assert!(matches!(result, Err(Error::Storage(_))));
    }
}
