//! Pending entries that are in their stream no more.
//!
//! A consumer group remembers what it handed out even when the entry is deleted or trimmed away. XCLAIM makes no such memory
//! of an entry that is not there, so the entry must be there for a moment; and XADD takes IDs in rising order only. So they
//! must be known before the first entry is written: a reading before finds them.

use std::collections::BTreeSet;

use crate::rdb::value::{Element, StreamId};

/// The IDs of a stream's entries are kept in about so many bytes at most, and so many ghosts.
const MOST_BYTES: usize = 32 << 20;
const MOST_GHOSTS: usize = 1 << 20;

/// Finds the ghosts of a stream. Memory is a few bytes for each of its entries.
#[derive(Debug, Default)]
pub struct Ghosts {
    /// The entries' IDs, each as what it is more than the one before it.
    packed: Vec<u8>,
    last: StreamId,
    found: BTreeSet<StreamId>,
    pending: Vec<StreamId>,
    lost: u64,
}

impl Ghosts {
    /// Nothing yet.
    pub fn new() -> Ghosts {
        Ghosts::default()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.packed.clear();
        self.last = StreamId::default();
        self.found.clear();
        self.pending.clear();
        self.lost = 0;
    }

    /// Looks at the next element of a stream.
    pub fn element(&mut self, element: Element<'_>) {
        match element {
            Element::Entry(entry) => self.entry(entry.id),
            Element::Owned(pending) => {
                self.pending.push(pending.id);
                if self.pending.len() >= 1 << 16 {
                    self.settle();
                }
            }
            Element::GroupEnd => self.settle(),
            _ => {}
        }
    }

    /// The ghosts, in order, and how many were not kept because there are too many.
    pub fn finish(&mut self) -> (Vec<StreamId>, u64) {
        self.settle();
        let found = std::mem::take(&mut self.found).into_iter().collect();
        (found, self.lost)
    }

    fn entry(&mut self, id: StreamId) {
        if self.packed.len() >= MOST_BYTES {
            return;
        }
        let same = id.ms == self.last.ms;
        number(&mut self.packed, id.ms.wrapping_sub(self.last.ms));
        let before = if same { self.last.seq } else { 0 };
        number(&mut self.packed, id.seq.wrapping_sub(before));
        self.last = id;
    }

    /// Finds those of the pending ones that no entry has.
    fn settle(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        self.pending.sort_unstable();
        self.pending.dedup();
        let mut pending = self.pending.drain(..).peekable();
        let mut bytes = self.packed.iter().copied();
        let mut id = StreamId::default();
        // Of entries beyond what is kept nothing is known.
        let known = match self.packed.len() >= MOST_BYTES {
            true => Some(self.last),
            false => None,
        };
        let (found, lost) = (&mut self.found, &mut self.lost);
        let mut keep = |ghost| {
            let beyond = known.is_some_and(|last| ghost > last);
            if !beyond && (found.len() < MOST_GHOSTS || found.contains(&ghost)) {
                found.insert(ghost);
            } else {
                *lost += 1;
            }
        };
        while let (Some(ms), Some(seq)) = (read(&mut bytes), read(&mut bytes)) {
            let before = if ms == 0 { id.seq } else { 0 };
            id = StreamId {
                ms: id.ms.wrapping_add(ms),
                seq: before.wrapping_add(seq),
            };
            while let Some(ghost) = pending.next_if(|pending| *pending < id) {
                keep(ghost);
            }
            if pending.next_if_eq(&id).is_none() && pending.peek().is_none() {
                break;
            }
        }
        pending.for_each(keep);
    }
}

/// Seven bits a byte, the lowest first.
fn number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn read(bytes: &mut impl Iterator<Item = u8>) -> Option<u64> {
    let mut number = 0;
    let mut shift = 0;
    loop {
        let byte = bytes.next()?;
        number |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        shift += 7;
        if byte < 0x80 {
            return Some(number);
        }
    }
}
