//! The keys that a scan has seen, so that each is written once: a server refuses a file in which
//! a key stands twice, and SCAN names keys twice when a table grows or shrinks under it.
//!
//! Keys are 128-bit hashes with a random seed. Up to a bound they are in memory; beyond it they go
//! to disk as sorted runs, which are merged in tiers of four, so that few runs have to be looked
//! through. Looking up costs about one read of 4 KiB for each run: fence posts in memory (at most
//! 1 MiB a run) narrow it down, interpolation does the rest. The files have no name from the
//! moment they are made: whatever happens to this process, nothing is left behind.

use std::collections::HashSet;
use std::fs::File;
use std::hash::{BuildHasherDefault, Hasher};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Runs of one size that are merged into one.
const TIER: usize = 4;
/// Hashes in a page of 4 KiB.
const PAGE: u64 = 256;
/// Parts in which hashes are sorted, a power of two.
const PARTS: u128 = 16;
/// The most fence posts of a run.
const FENCES: u64 = 1 << 16;
/// Bytes of a hash.
const WIDTH: u64 = 16;

/// Hashes are random already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }
}

/// The set of keys seen.
pub(super) struct Seen {
    memory: HashSet<u128, BuildHasherDefault<Identity>>,
    bound: usize,
    runs: Vec<Run>,
    folder: PathBuf,
    seed: u64,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Seen({} in memory, {} runs)",
            self.memory.len(),
            self.runs.len()
        )
    }
}

impl Seen {
    /// Holds up to `bound` hashes in memory; `folder` is made when they spill.
    ///
    /// # Errors
    /// When the system has no random seed to give.
    pub(super) fn new(bound: usize, folder: &Path) -> io::Result<Seen> {
        let seed = getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Seen {
            memory: HashSet::default(),
            bound: bound.max(1),
            runs: Vec::new(),
            folder: folder.to_owned(),
            seed,
        })
    }

    /// Makes room for so many keys, as far as memory goes: a table that grows is in memory twice while it does.
    pub(super) fn expect(&mut self, keys: u64) {
        let keys = usize::try_from(keys).unwrap_or(self.bound).min(self.bound);
        self.memory.reserve(keys.saturating_sub(self.memory.len()));
    }

    /// Whether inserting so many keys may touch the disk.
    pub(super) fn may_block(&self, keys: usize) -> bool {
        !self.runs.is_empty() || self.memory.len() + keys > self.bound
    }

    /// Remembers a key; false when it was seen before.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn insert(&mut self, key: &[u8]) -> io::Result<bool> {
        let hash = xxh3_128_with_seed(key, self.seed);
        if self.runs.is_empty() && self.memory.len() < self.bound {
            return Ok(self.memory.insert(hash));
        }
        if self.memory.contains(&hash) {
            return Ok(false);
        }
        for run in &self.runs {
            if run.contains(hash)? {
                return Ok(false);
            }
        }
        if self.memory.len() >= self.bound {
            self.spill()?;
        }
        self.memory.insert(hash);
        Ok(true)
    }

    /// Forgets all keys: for the next database.
    pub(super) fn clear(&mut self) {
        self.memory.clear();
        self.runs.clear();
    }

    fn spill(&mut self) -> io::Result<()> {
        let mut maker = RunMaker::new(&self.folder, self.memory.len() as u64, 0)?;
        // A part after the other, in their order: all of them beside the table would be as large as it is.
        let mut part = Vec::new();
        for high in 0..PARTS {
            let of_part = |hash: &&u128| (**hash >> (128 - PARTS.ilog2())) == high;
            part.extend(self.memory.iter().filter(of_part));
            part.sort_unstable();
            for hash in part.drain(..) {
                maker.push(hash)?;
            }
        }
        self.memory.clear();
        self.runs.push(maker.finish()?);
        while let Some(tier) = self.full_tier() {
            let (merged, kept): (Vec<Run>, Vec<Run>) =
                self.runs.drain(..).partition(|run| run.tier == tier);
            self.runs = kept;
            self.runs.push(merge(&self.folder, &merged, tier + 1)?);
        }
        tracing::debug!(runs = self.runs.len(), "the keys seen went to disk");
        Ok(())
    }

    fn full_tier(&self) -> Option<u32> {
        self.runs
            .iter()
            .map(|run| run.tier)
            .find(|tier| self.runs.iter().filter(|run| run.tier == *tier).count() >= TIER)
    }
}

/// Sorted hashes in a file without a name.
struct Run {
    file: File,
    len: u64,
    tier: u32,
    /// The first hash of each stride.
    fences: Vec<u128>,
    stride: u64,
}

impl Run {
    fn contains(&self, hash: u128) -> io::Result<bool> {
        let after = self.fences.partition_point(|fence| *fence <= hash) as u64;
        if after == 0 {
            return Ok(false);
        }
        // Positions and the values that bound them: [from, till).
        let mut from = (after - 1) * self.stride;
        let mut till = (after * self.stride).min(self.len);
        let mut least = self.fences[after as usize - 1];
        let mut most = self
            .fences
            .get(after as usize)
            .copied()
            .unwrap_or(u128::MAX);
        let mut page = [0u8; (PAGE * WIDTH) as usize];
        while from < till {
            let share = (hash - least) as f64 / ((most - least) as f64).max(1.0);
            let guess = from + ((till - from) as f64 * share) as u64;
            let begin = (guess.min(till - 1) / PAGE * PAGE).max(from);
            let end = (begin / PAGE * PAGE + PAGE).min(till);
            let bytes = &mut page[..((end - begin) * WIDTH) as usize];
            self.file.read_exact_at(bytes, begin * WIDTH)?;
            let (hashes, _) = bytes.as_chunks::<{ WIDTH as usize }>();
            let value = |bytes: &[u8; WIDTH as usize]| u128::from_be_bytes(*bytes);
            let (first, last) = match (hashes.first(), hashes.last()) {
                (Some(first), Some(last)) => (value(first), value(last)),
                _ => return Ok(false),
            };
            if hash < first {
                (till, most) = (begin, first);
            } else if hash > last {
                (from, least) = (end, last);
            } else {
                return Ok(hashes.binary_search_by_key(&hash, value).is_ok());
            }
        }
        Ok(false)
    }
}

/// A run in the making; hashes come in order.
struct RunMaker {
    file: BufWriter<File>,
    len: u64,
    tier: u32,
    fences: Vec<u128>,
    stride: u64,
}

impl RunMaker {
    fn new(folder: &Path, expected: u64, tier: u32) -> io::Result<RunMaker> {
        let pages = expected.div_ceil(PAGE).max(1);
        Ok(RunMaker {
            file: BufWriter::with_capacity(256 << 10, nameless(folder)?),
            len: 0,
            tier,
            fences: Vec::new(),
            stride: pages.div_ceil(FENCES) * PAGE,
        })
    }

    fn push(&mut self, hash: u128) -> io::Result<()> {
        if self.len.is_multiple_of(self.stride) {
            self.fences.push(hash);
        }
        self.len += 1;
        // Big-endian: the file is in order byte by byte too, for whoever has to look at one.
        self.file.write_all(&hash.to_be_bytes())
    }

    fn finish(self) -> io::Result<Run> {
        Ok(Run {
            file: self
                .file
                .into_inner()
                .map_err(io::IntoInnerError::into_error)?,
            len: self.len,
            tier: self.tier,
            fences: self.fences,
            stride: self.stride,
        })
    }
}

/// Reads a run from front to back.
struct Cursor<'a> {
    run: &'a Run,
    at: u64,
    buffer: Vec<u8>,
    offset: usize,
}

impl Cursor<'_> {
    fn next(&mut self) -> io::Result<Option<u128>> {
        if self.offset == self.buffer.len() {
            let count = (self.run.len - self.at).min(4096);
            if count == 0 {
                return Ok(None);
            }
            self.buffer.resize((count * WIDTH) as usize, 0);
            self.run
                .file
                .read_exact_at(&mut self.buffer, self.at * WIDTH)?;
            self.at += count;
            self.offset = 0;
        }
        let bytes = self.buffer[self.offset..].first_chunk::<{ WIDTH as usize }>();
        self.offset += WIDTH as usize;
        Ok(bytes.map(|bytes| u128::from_be_bytes(*bytes)))
    }
}

fn merge(folder: &Path, runs: &[Run], tier: u32) -> io::Result<Run> {
    let mut maker = RunMaker::new(folder, runs.iter().map(|run| run.len).sum(), tier)?;
    let mut heads: Vec<(u128, Cursor<'_>)> = Vec::new();
    for run in runs {
        let mut cursor = Cursor {
            run,
            at: 0,
            buffer: Vec::new(),
            offset: 0,
        };
        if let Some(hash) = cursor.next()? {
            heads.push((hash, cursor));
        }
    }
    // No hash is in two runs: it would not have been inserted a second time.
    while let Some(least) = (0..heads.len()).min_by_key(|&at| heads[at].0) {
        maker.push(heads[least].0)?;
        match heads[least].1.next()? {
            Some(hash) => heads[least].0 = hash,
            None => drop(heads.swap_remove(least)),
        }
    }
    maker.finish()
}

/// A file that only this process can reach, and that ends with it.
fn nameless(folder: &Path) -> io::Result<File> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let random = getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
    let path = folder.join(format!(".rdbkeeper-seen-{random:016x}"));
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_key_is_new_once_with_any_bound() {
        let folder = tempfile::tempdir().unwrap();
        for (bound, keys) in [(1, 200u32), (7, 3000), (1000, 50_000), (100_000, 50_000)] {
            let mut seen = Seen::new(bound, folder.path()).unwrap();
            for key in 0..keys {
                assert!(seen.insert(&key.to_le_bytes()).unwrap());
                // What came long ago, and what came just now.
                assert!(!seen.insert(&(key / 2).to_le_bytes()).unwrap());
                assert!(!seen.insert(&key.to_le_bytes()).unwrap());
            }
            let most = seen.runs.iter().map(|run| run.tier + 1).max().unwrap_or(0);
            assert!(
                seen.runs.len() <= (most as usize) * (TIER - 1),
                "merged in tiers"
            );
            assert_eq!(
                std::fs::read_dir(folder.path()).unwrap().count(),
                0,
                "no name is left"
            );
            seen.clear();
            assert!(seen.insert(&0u32.to_le_bytes()).unwrap());
        }
    }

    #[test]
    fn a_run_finds_what_is_in_it_and_nothing_else_also_when_hashes_crowd() {
        let folder = tempfile::tempdir().unwrap();
        // Far from uniform: interpolation guesses wrong, and must end all the same.
        let hashes: Vec<u128> = (0..5000u128)
            .map(|i| {
                if i < 4000 {
                    i * 2
                } else {
                    u128::MAX - (5000 - i) * 2
                }
            })
            .collect();
        let mut maker = RunMaker::new(folder.path(), hashes.len() as u64, 0).unwrap();
        maker.stride = PAGE * 8;
        for hash in &hashes {
            maker.push(*hash).unwrap();
        }
        let run = maker.finish().unwrap();
        for hash in hashes {
            assert!(run.contains(hash).unwrap());
            assert!(!run.contains(hash + 1).unwrap());
        }
        assert!(!run.contains(u128::MAX).unwrap());
        assert!(!run.contains(u128::MAX / 2).unwrap());
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let mut seen = Seen::new(1, &file.join("sub")).unwrap();
        assert!(seen.insert(b"a").unwrap());
        assert!(seen.insert(b"b").is_err());
    }
}
