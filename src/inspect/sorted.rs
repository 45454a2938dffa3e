//! Facts about keys in the order of database and name, however many there are.
//!
//! What fits into memory is sorted there; more goes into the spool in sorted runs, which are merged when they are read.
//! Memory is bounded by one run while it is filled, and by a piece of each run while they are merged.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::vec;

use bytes::Bytes;
use tokio::runtime::Handle;

use super::diff::Error;
use crate::rdb::LogicalType;
use crate::spool::{Spool, SpoolFile};

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Record {
    pub(super) db: u32,
    pub(super) key: Box<[u8]>,
    pub(super) kind: LogicalType,
    pub(super) digest: u128,
    pub(super) expire_at_ms: Option<i64>,
}

/// A record's bytes in a run, before its name: database, type, whether it expires, when, digest, the name's length.
const HEAD: usize = 4 + 1 + 1 + 8 + 16 + 8;

impl Record {
    /// What it takes in memory, about.
    fn bytes(&self) -> usize {
        size_of::<Record>() + 16 + self.key.len()
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.db.to_le_bytes());
        let kind = LogicalType::ALL.iter().position(|kind| *kind == self.kind);
        out.push(kind.unwrap_or(0) as u8);
        out.push(u8::from(self.expire_at_ms.is_some()));
        out.extend_from_slice(&self.expire_at_ms.unwrap_or(0).to_le_bytes());
        out.extend_from_slice(&self.digest.to_le_bytes());
        out.extend_from_slice(&(self.key.len() as u64).to_le_bytes());
        out.extend_from_slice(&self.key);
    }
}

/// Takes records in any order.
#[derive(Debug)]
pub(super) struct Sorter {
    records: Vec<Record>,
    bytes: usize,
    /// So many bytes are kept in memory.
    bound: usize,
    spool: Spool,
    runtime: Handle,
    file: Option<SpoolFile>,
    /// Where each run lies in the file.
    runs: Vec<(u64, u64)>,
}

/// The spool is written in pieces of about this many bytes.
const PIECE: usize = 1 << 20;

impl Sorter {
    /// A sorter that keeps so many bytes in memory, and the rest in the spool. To be fed on a thread that may block.
    pub(super) fn new(bound: usize, spool: Spool, runtime: Handle) -> Sorter {
        Sorter {
            records: Vec::new(),
            bytes: 0,
            bound,
            spool,
            runtime,
            file: None,
            runs: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, record: Record) -> Result<(), Error> {
        self.bytes += record.bytes();
        self.records.push(record);
        match self.bytes > self.bound {
            true => self.spill(),
            false => Ok(()),
        }
    }

    fn spill(&mut self) -> Result<(), Error> {
        self.records.sort_unstable();
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(self.runtime.block_on(self.spool.file())?),
        };
        let begin = file.bytes();
        let mut piece = Vec::with_capacity(PIECE);
        let mut records = self.records.drain(..).peekable();
        while let Some(record) = records.next() {
            record.write(&mut piece);
            if piece.len() >= PIECE || records.peek().is_none() {
                let piece = Bytes::from(std::mem::take(&mut piece));
                self.runtime.block_on(file.append(piece))?;
            }
        }
        drop(records);
        self.runs.push((begin, file.bytes()));
        self.bytes = 0;
        Ok(())
    }

    /// The records in their order.
    pub(super) fn finish(mut self) -> Result<Sorted, Error> {
        if self.runs.is_empty() {
            self.records.sort_unstable();
            return Ok(Sorted::Memory(self.records.into_iter()));
        }
        if !self.records.is_empty() {
            self.spill()?;
        }
        let Some(file) = self.file else {
            return Ok(Sorted::Memory(Vec::new().into_iter()));
        };
        let window = (self.bound / self.runs.len()).clamp(4 << 10, PIECE);
        let mut runs = Vec::new();
        let mut heads = BinaryHeap::new();
        for (index, (at, end)) in self.runs.into_iter().enumerate() {
            let mut run = Run {
                file: Arc::clone(file.file()),
                at,
                end,
                window,
                read: Vec::new(),
                used: 0,
            };
            heads.extend(run.next()?.map(|record| Reverse((record, index))));
            runs.push(run);
        }
        Ok(Sorted::Runs {
            heads,
            runs,
            _file: file,
        })
    }
}

/// Records in the order of database and name.
#[derive(Debug)]
pub(super) enum Sorted {
    /// All in memory.
    Memory(vec::IntoIter<Record>),
    /// Runs, and the first record of each that was not given yet.
    Runs {
        heads: BinaryHeap<Reverse<(Record, usize)>>,
        runs: Vec<Run>,
        /// It goes when nobody holds it.
        _file: SpoolFile,
    },
}

impl Sorted {
    pub(super) fn next(&mut self) -> Result<Option<Record>, Error> {
        match self {
            Sorted::Memory(records) => Ok(records.next()),
            Sorted::Runs { heads, runs, .. } => {
                let Some(Reverse((record, index))) = heads.pop() else {
                    return Ok(None);
                };
                let next = runs[index].next()?;
                heads.extend(next.map(|next| Reverse((next, index))));
                Ok(Some(record))
            }
        }
    }
}

/// A run that is being read.
#[derive(Debug)]
pub(super) struct Run {
    file: Arc<File>,
    at: u64,
    end: u64,
    window: usize,
    read: Vec<u8>,
    used: usize,
}

impl Run {
    fn next(&mut self) -> Result<Option<Record>, Error> {
        if self.used == self.read.len() && self.at == self.end {
            return Ok(None);
        }
        let short = || Error::ReadBack(io::ErrorKind::UnexpectedEof.into());
        let mut fields = Fields(self.have(HEAD)?);
        let db = u32::from_le_bytes(fields.take().ok_or_else(short)?);
        let [kind, expires] = fields.take().ok_or_else(short)?;
        let expire_at_ms = i64::from_le_bytes(fields.take().ok_or_else(short)?);
        let digest = u128::from_le_bytes(fields.take().ok_or_else(short)?);
        let length = u64::from_le_bytes(fields.take().ok_or_else(short)?);
        let kind = LogicalType::ALL.get(usize::from(kind));
        let kind = *kind.ok_or_else(short)?;
        self.used += HEAD;
        let length = usize::try_from(length).map_err(|_| short())?;
        let key = self.have(length)?.into();
        self.used += length;
        Ok(Some(Record {
            db,
            key,
            kind,
            digest,
            expire_at_ms: (expires == 1).then_some(expire_at_ms),
        }))
    }

    /// The next so many bytes, which have to be there.
    fn have(&mut self, bytes: usize) -> Result<&[u8], Error> {
        let held = self.read.len() - self.used;
        if held < bytes {
            self.read.drain(..self.used);
            self.used = 0;
            let left = self.end - self.at;
            let more = (self.window.max(bytes - held) as u64).min(left) as usize;
            self.read.resize(held + more, 0);
            let read = self.file.read_exact_at(&mut self.read[held..], self.at);
            read.map_err(Error::ReadBack)?;
            self.at += more as u64;
        }
        let bytes = self.read.get(self.used..self.used + bytes);
        bytes.ok_or_else(|| Error::ReadBack(io::ErrorKind::UnexpectedEof.into()))
    }
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn record(n: u32) -> Record {
        let scattered = n.wrapping_mul(2_654_435_761);
        Record {
            db: scattered % 3,
            key: format!("{:x}{}", scattered, "k".repeat(n as usize % 200))
                .into_bytes()
                .into(),
            kind: LogicalType::ALL[n as usize % 7],
            digest: u128::from(n) << 77 | 1,
            expire_at_ms: n.is_multiple_of(2).then_some(i64::from(n) - 1000),
        }
    }

    #[tokio::test]
    async fn in_memory_or_in_many_runs_the_order_is_the_same_and_nothing_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(folder.path());
        let runtime = Handle::current();
        let work = move || {
            let mut wanted: Vec<Record> = (0..5000).map(record).collect();
            wanted.sort();
            for bound in [usize::MAX, 100 << 10, 3000] {
                let mut sorter = Sorter::new(bound, spool.clone(), runtime.clone());
                for n in 0..5000 {
                    sorter.add(record(n)).unwrap();
                }
                let mut sorted = sorter.finish().unwrap();
                assert_eq!(matches!(sorted, Sorted::Memory(_)), bound == usize::MAX);
                let mut found = Vec::new();
                while let Some(record) = sorted.next().unwrap() {
                    found.push(record);
                }
                assert!(found == wanted, "bound {bound}");
            }
        };
        tokio::task::spawn_blocking(work).await.unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
