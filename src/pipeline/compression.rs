//! How an archive is compressed, and the pieces that do it.
//!
//! Every block becomes a frame (zstd) or a member (gzip) of its own: all cores can work, and plain
//! `zstd -d` and `gunzip` read the result, for both formats say that files may be joined.

mod zstd;

use std::io::{self, BufReader, Read, Write as _};

use ::zstd::stream::read::Decoder;
use ::zstd::zstd_safe::{DCtx, compress_bound};

pub use crate::config::Compression;

use crate::pool::Pool;

/// The largest window that a foreign zstd file may ask for: 128 MiB, as the `zstd` tool itself allows.
const WINDOW_LOG_MAX: u32 = 27;

impl Compression {
    /// What the object's name ends in: `.zst`, `.gz` or nothing.
    pub fn suffix(self) -> &'static str {
        match self {
            Compression::None => "",
            Compression::Zstd(_) => ".zst",
            Compression::Gzip(_) => ".gz",
        }
    }
}

/// One thread's compressor: it keeps its tables from block to block.
pub(super) enum BlockCompressor {
    None,
    Zstd(zstd::Zstd),
    Gzip(flate2::Compression),
}

impl BlockCompressor {
    pub(super) fn new(compression: Compression) -> io::Result<BlockCompressor> {
        Ok(match compression {
            Compression::None => BlockCompressor::None,
            Compression::Zstd(level) => BlockCompressor::Zstd(zstd::Zstd::new(level)?),
            Compression::Gzip(level) => {
                BlockCompressor::Gzip(flate2::Compression::new(u32::from(level)))
            }
        })
    }

    /// Makes a frame of a block, in memory from the pool, which gets the block's.
    pub(super) fn compress(&mut self, block: Vec<u8>, pool: &Pool) -> io::Result<Vec<u8>> {
        let frame = match self {
            BlockCompressor::None => return Ok(block),
            BlockCompressor::Zstd(zstd) => zstd.compress(&block, pool)?,
            BlockCompressor::Gzip(level) => {
                let mut encoder = flate2::GzBuilder::new().write(pool.take(), *level);
                encoder.write_all(&block)?;
                encoder.finish()?
            }
        };
        pool.give(block);
        Ok(frame)
    }
}

/// The most bytes that the frame of a block may take.
pub(super) fn frame_room(block_bytes: usize) -> usize {
    compress_bound(block_bytes)
}

/// What the first bytes of a file say it is. Nothing else than these is compressed here.
pub(super) fn detect(start: &[u8]) -> Detected {
    match start {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Detected::Zstd,
        [0x1f, 0x8b, ..] => Detected::Gzip,
        // A zstd file may begin with a skippable frame.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Detected::Zstd,
        _ if start.starts_with(b"age-encryption.org/") => Detected::Age,
        _ if start
            .trim_ascii_start()
            .starts_with(b"-----BEGIN AGE ENCRYPTED") =>
        {
            Detected::ArmoredAge
        }
        _ => Detected::Plain,
    }
}

/// The layers that a file can have outermost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detected {
    Plain,
    Zstd,
    Gzip,
    Age,
    /// The same as text.
    ArmoredAge,
}

/// A reader that undoes one layer. It reads frame after frame to the end of its input, in bounded memory.
pub(super) fn decompressor<'a>(
    detected: Detected,
    input: impl Read + 'a,
) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match detected {
        Detected::Plain | Detected::Age | Detected::ArmoredAge => Box::new(input),
        Detected::Zstd => {
            let input = BufReader::with_capacity(DCtx::in_size(), input);
            let mut decoder = Decoder::with_buffer(input)?;
            decoder.window_log_max(WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
        Detected::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(
            BufReader::with_capacity(1 << 16, input),
        )),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn joined_frames_read_as_one_stream() {
        for compression in [Compression::Zstd(3), Compression::Gzip(6)] {
            let mut compressor = BlockCompressor::new(compression).unwrap();
            let mut file = compressor
                .compress(b"one ".to_vec(), &Pool::new(0))
                .unwrap();
            file.extend(compressor.compress(b"two".to_vec(), &Pool::new(0)).unwrap());
            let mut plain = String::new();
            decompressor(detect(&file), &file[..])
                .unwrap()
                .read_to_string(&mut plain)
                .unwrap();
            assert_eq!(plain, "one two");
        }
    }

    #[test]
    fn a_frame_that_is_cut_is_an_error() {
        for compression in [Compression::Zstd(3), Compression::Gzip(6)] {
            let mut compressor = BlockCompressor::new(compression).unwrap();
            let file = compressor
                .compress(vec![7; 100_000], &Pool::new(0))
                .unwrap();
            for cut in 4..file.len() {
                let cut = &file[..cut];
                let mut plain = Vec::new();
                let read = decompressor(detect(cut), cut)
                    .unwrap()
                    .read_to_end(&mut plain);
                assert!(read.is_err(), "{compression} cut to {}", cut.len());
            }
        }
    }
}
