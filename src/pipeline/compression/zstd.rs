//! Blocks of zstd.
//!
//! Level 3 finds matches by two tables, of long and of short ones. In an RDB file the short ones seldom pay: its strings are
//! short, and the server has packed many of them by LZF already. One table of middling matches then makes frames of the same
//! size in 0.6 of the time (docs/performance.md). Whether it does is tried now and then, on the data themselves.

use std::io;

use zstd::bulk::Compressor;
use zstd::zstd_safe::{CParameter, Strategy};

use super::super::outbound::BLOCK_BYTES;
use super::frame_room;
use crate::pool::Pool;

/// The level that has a quick way.
const TRIED_LEVEL: u8 = 3;

/// Of so many blocks, one is tried both ways.
const TRIAL_EVERY: u32 = 32;

/// The quick way is taken while its frames are larger by a part of so many at most.
const TOLERANCE: usize = 40;

/// One thread's compressor.
pub(in crate::pipeline) struct Zstd {
    exact: Compressor<'static>,
    quick: Option<Quick>,
}

struct Quick {
    compressor: Compressor<'static>,
    /// Whether it was good enough the last time.
    pays: bool,
    /// Blocks until the next trial.
    trial_in: u32,
}

impl Zstd {
    pub(super) fn new(level: u8) -> io::Result<Zstd> {
        let compressor = || {
            let mut compressor = Compressor::new(i32::from(level))?;
            compressor.include_checksum(true)?;
            Ok::<_, io::Error>(compressor)
        };
        let exact = compressor()?;
        if level != TRIED_LEVEL {
            return Ok(Zstd { exact, quick: None });
        }
        let mut quick = compressor()?;
        for parameter in [
            CParameter::Strategy(Strategy::ZSTD_fast),
            CParameter::WindowLog(BLOCK_BYTES.ilog2()),
            CParameter::HashLog(16),
            CParameter::MinMatch(6),
        ] {
            quick.set_parameter(parameter)?;
        }
        Ok(Zstd {
            exact,
            quick: Some(Quick {
                compressor: quick,
                pays: false,
                trial_in: 0,
            }),
        })
    }

    /// Makes a frame of a block, in memory from the pool.
    pub(super) fn compress(&mut self, block: &[u8], pool: &Pool) -> io::Result<Vec<u8>> {
        let Some(quick) = &mut self.quick else {
            return frame(&mut self.exact, block, pool);
        };
        if quick.trial_in > 0 {
            quick.trial_in -= 1;
            let compressor = match quick.pays {
                true => &mut quick.compressor,
                false => &mut self.exact,
            };
            return frame(compressor, block, pool);
        }
        quick.trial_in = TRIAL_EVERY - 1;
        let exact = frame(&mut self.exact, block, pool)?;
        let fast = frame(&mut quick.compressor, block, pool)?;
        quick.pays = fast.len() <= exact.len() + exact.len() / TOLERANCE;
        let (smaller, larger) = match fast.len() < exact.len() {
            true => (fast, exact),
            false => (exact, fast),
        };
        pool.give(larger);
        Ok(smaller)
    }
}

fn frame(compressor: &mut Compressor<'_>, block: &[u8], pool: &Pool) -> io::Result<Vec<u8>> {
    let mut frame = pool.take();
    frame.reserve(frame_room(block.len()));
    compressor.compress_to_buffer(block, &mut frame)?;
    Ok(frame)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Text: what short matches are good for.
    const TEXT: &[u8] = include_bytes!("../inbound.rs");

    /// Records of random bytes that come again: long matches alone.
    fn records(len: usize) -> Vec<u8> {
        let mut state = 7u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let kinds: Vec<Vec<u8>> = (0..64)
            .map(|_| (0..12).flat_map(|_| next().to_le_bytes()).collect())
            .collect();
        let mut bytes = Vec::new();
        while bytes.len() < len {
            bytes.extend_from_slice(&kinds[(next() % 64) as usize]);
            bytes.extend_from_slice(&next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    #[test]
    fn the_quick_way_is_taken_where_it_costs_no_size_and_left_where_it_does() {
        let pool = Pool::new(frame_room(BLOCK_BYTES));
        let mut zstd = Zstd::new(3).unwrap();
        let mut exact = Compressor::new(3).unwrap();
        exact.include_checksum(true).unwrap();
        for (data, pays) in [(records(BLOCK_BYTES), true), (TEXT.to_vec(), false)] {
            let limit = exact.compress(&data).unwrap().len();
            let limit = limit + limit / TOLERANCE;
            for _ in 0..TRIAL_EVERY {
                let frame = zstd.compress(&data, &pool).unwrap();
                assert!(zstd::bulk::decompress(&frame, BLOCK_BYTES).unwrap() == data);
                assert_eq!(zstd.quick.as_ref().unwrap().pays, pays);
                assert!(frame.len() <= limit);
                pool.give(frame);
            }
        }
    }

    #[test]
    fn other_levels_are_as_they_are() {
        let data = records(100_000);
        for level in [1, 2, 4, 9] {
            let mut exact = Compressor::new(i32::from(level)).unwrap();
            exact.include_checksum(true).unwrap();
            let frame = Zstd::new(level)
                .unwrap()
                .compress(&data, &Pool::new(0))
                .unwrap();
            assert!(frame == exact.compress(&data).unwrap());
        }
    }
}
