//! How an archive is compressed, and the pieces that do it.
//!
//! Every block becomes a frame (zstd) or a member (gzip) of its own: all cores can work, and plain
//! `zstd -d` and `gunzip` read the result, for both formats say that files may be joined.

use std::fmt;
use std::io::{self, BufReader, Read, Write as _};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The largest window that a foreign zstd file may ask for: 128 MiB, as the `zstd` tool itself allows.
const WINDOW_LOG_MAX: u32 = 27;

/// How an archive is compressed: `zstd:3`, `gzip:6`, `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Compression {
    /// Not at all.
    None,
    /// Zstandard, level 1 to 19.
    Zstd(u8),
    /// gzip, level 1 to 9.
    Gzip(u8),
}

impl Default for Compression {
    fn default() -> Compression {
        Compression::Zstd(3)
    }
}

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

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Compression::None => f.write_str("none"),
            Compression::Zstd(level) => write!(f, "zstd:{level}"),
            Compression::Gzip(level) => write!(f, "gzip:{level}"),
        }
    }
}

impl FromStr for Compression {
    type Err = String;

    fn from_str(text: &str) -> Result<Compression, String> {
        let wrong = || {
            format!(
                "{text:?} is no compression: write zstd, zstd:1 to zstd:19, gzip, gzip:1 to gzip:9, or none"
            )
        };
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => (name, Some(level.parse::<u8>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        match (name, level) {
            ("none", None) => Ok(Compression::None),
            ("zstd", None) => Ok(Compression::Zstd(3)),
            ("zstd", Some(level @ 1..=19)) => Ok(Compression::Zstd(level)),
            ("gzip", None) => Ok(Compression::Gzip(6)),
            ("gzip", Some(level @ 1..=9)) => Ok(Compression::Gzip(level)),
            _ => Err(wrong()),
        }
    }
}

impl TryFrom<String> for Compression {
    type Error = String;

    fn try_from(text: String) -> Result<Compression, String> {
        text.parse()
    }
}

impl From<Compression> for String {
    fn from(compression: Compression) -> String {
        compression.to_string()
    }
}

/// One thread's compressor: it keeps its tables from block to block.
pub(super) enum BlockCompressor {
    None,
    Zstd(zstd::bulk::Compressor<'static>),
    Gzip(flate2::Compression),
}

impl BlockCompressor {
    pub(super) fn new(compression: Compression) -> io::Result<BlockCompressor> {
        Ok(match compression {
            Compression::None => BlockCompressor::None,
            Compression::Zstd(level) => {
                let mut compressor = zstd::bulk::Compressor::new(i32::from(level))?;
                compressor.include_checksum(true)?;
                BlockCompressor::Zstd(compressor)
            }
            Compression::Gzip(level) => {
                BlockCompressor::Gzip(flate2::Compression::new(u32::from(level)))
            }
        })
    }

    /// Makes a frame of a block.
    pub(super) fn compress(&mut self, block: Vec<u8>) -> io::Result<Vec<u8>> {
        match self {
            BlockCompressor::None => Ok(block),
            BlockCompressor::Zstd(compressor) => compressor.compress(&block),
            BlockCompressor::Gzip(level) => {
                let out = Vec::with_capacity(block.len() / 2);
                let mut encoder = flate2::GzBuilder::new().write(out, *level);
                encoder.write_all(&block)?;
                encoder.finish()
            }
        }
    }
}

/// What the first bytes of a file say it is. Nothing else than these is compressed here.
pub(super) fn detect(start: &[u8]) -> Detected {
    match start {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Detected::Zstd,
        [0x1f, 0x8b, ..] => Detected::Gzip,
        // A zstd file may begin with a skippable frame.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Detected::Zstd,
        _ if start.starts_with(b"age-encryption.org/") => Detected::Age,
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
}

/// A reader that undoes one layer. It reads frame after frame to the end of its input, in bounded memory.
pub(super) fn decompressor<'a>(
    detected: Detected,
    input: impl Read + 'a,
) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match detected {
        Detected::Plain | Detected::Age => Box::new(input),
        Detected::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(BufReader::with_capacity(
                zstd::zstd_safe::DCtx::in_size(),
                input,
            ))?;
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
    fn only_levels_that_exist_are_taken() {
        for good in ["zstd:1", "zstd:19", "gzip:1", "gzip:9", "none"] {
            assert_eq!(good.parse::<Compression>().unwrap().to_string(), good);
        }
        assert_eq!("zstd".parse::<Compression>().unwrap(), Compression::Zstd(3));
        for bad in [
            "", "zstd:0", "zstd:20", "gzip:10", "none:1", "lz4", "zstd:", "ZSTD",
        ] {
            assert!(bad.parse::<Compression>().is_err(), "{bad}");
        }
    }

    #[test]
    fn joined_frames_read_as_one_stream() {
        for compression in [Compression::Zstd(3), Compression::Gzip(6)] {
            let mut compressor = BlockCompressor::new(compression).unwrap();
            let mut file = compressor.compress(b"one ".to_vec()).unwrap();
            file.extend(compressor.compress(b"two".to_vec()).unwrap());
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
            let file = compressor.compress(vec![7; 100_000]).unwrap();
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
