//! Drops databases from a file: what stays, stays byte for byte, under a fresh checksum.
//!
//! The trap: a file that can't be read key by key can't be filtered either. That is
//! [`FilterError::Opaque`], and the caller's to decide: the bytes that came out so far are no file.

use std::collections::BTreeSet;

use super::crc64::Crc64;
use super::event::{Event, Unknown};
use super::types::DbIndex;

/// Output is handed out in blocks of about this many bytes.
const BLOCK: usize = 64 * 1024;

/// Why a file can't be filtered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// Nothing is known from an offset on, so no database can be told from another.
    #[error("databases cannot be told apart from offset {offset} of the RDB file on: {what}")]
    Opaque {
        /// Where.
        offset: u64,
        /// What is not known there.
        what: Unknown,
    },
}

/// Takes the events of a scan and hands out the bytes of the file that holds only some databases.
///
/// Functions, aux fields and modules' own data belong to no database and stay. Where every database
/// is meant, don't filter: pass the file's bytes on as they are.
#[derive(Debug)]
pub struct DbFilter {
    wanted: BTreeSet<DbIndex>,
    /// Whether what comes belongs to a database that stays.
    keep: bool,
    /// Whether something was left out.
    dropped: bool,
    block: Vec<u8>,
    crc: Crc64,
}

impl DbFilter {
    /// A filter that keeps these databases.
    pub fn new(databases: impl IntoIterator<Item = DbIndex>) -> DbFilter {
        let wanted: BTreeSet<DbIndex> = databases.into_iter().collect();
        DbFilter {
            // Before the first selection it is database 0.
            keep: wanted.contains(&DbIndex(0)),
            wanted,
            dropped: false,
            block: Vec::with_capacity(2 * BLOCK),
            crc: Crc64::new(),
        }
    }

    /// Takes the next event; `out` gets blocks of the new file. After [`Event::End`] all is out.
    ///
    /// # Errors
    /// The file is opaque.
    pub fn event(
        &mut self,
        event: &Event<'_>,
        out: &mut impl FnMut(&[u8]),
    ) -> Result<(), FilterError> {
        match *event {
            Event::Opaque { offset, what } => return Err(FilterError::Opaque { offset, what }),
            Event::SelectDb { db, .. } => {
                self.keep = self.wanted.contains(&db);
                self.in_database(event, out);
            }
            Event::Key(_)
            | Event::Value(_)
            | Event::ValueEnd
            | Event::ResizeDb { .. }
            | Event::SlotInfo { .. } => self.in_database(event, out),
            // Valkey's hint of how many keys a cluster slot of the current database has.
            Event::Aux { key, .. } if key.plain() == Some(b"slot-info") => {
                self.in_database(event, out);
            }
            Event::End { raw, .. } => self.end(raw, out),
            _ => self.push(event.raw(), out),
        }
        Ok(())
    }

    #[inline]
    fn in_database(&mut self, event: &Event<'_>, out: &mut impl FnMut(&[u8])) {
        if self.keep {
            self.push(event.raw(), out);
        } else {
            self.dropped = true;
        }
    }

    #[inline]
    fn push(&mut self, bytes: &[u8], out: &mut impl FnMut(&[u8])) {
        if bytes.len() >= BLOCK {
            self.flush(out);
            self.crc.update(bytes);
            out(bytes);
            return;
        }
        self.block.extend_from_slice(bytes);
        if self.block.len() >= BLOCK {
            self.flush(out);
        }
    }

    fn flush(&mut self, out: &mut impl FnMut(&[u8])) {
        if !self.block.is_empty() {
            self.crc.update(&self.block);
            out(&self.block);
            self.block.clear();
        }
    }

    fn end(&mut self, raw: &[u8], out: &mut impl FnMut(&[u8])) {
        let (mark, checksum) = raw.split_at(1);
        self.push(mark, out);
        self.flush(out);
        if checksum.is_empty() {
            return;
        }
        // The very same file keeps its end, be it that its server writes no checksum.
        if self.dropped {
            out(&self.crc.value().to_le_bytes());
        } else {
            out(checksum);
        }
    }
}
