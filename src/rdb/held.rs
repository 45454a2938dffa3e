//! A checksum that leaves out the last 8 bytes it has seen.
//!
//! In an opaque file nobody says where the checksum begins but the file's end, which comes without
//! notice.

use super::crc64::Crc64;
use super::program::opcode;

/// A checksum of everything but the last 8 bytes seen.
#[derive(Clone, Debug, Default)]
pub(super) struct HeldCrc {
    crc: Crc64,
    held: [u8; 8],
    held_len: usize,
    /// The last byte that the checksum has taken.
    last: Option<u8>,
}

impl HeldCrc {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if bytes.len() >= 8 {
            self.release();
            let (now, later) = bytes.split_at(bytes.len() - 8);
            self.crc.update(now);
            self.last = now.last().copied().or(self.last);
            self.held.copy_from_slice(later);
            self.held_len = 8;
            return;
        }
        // What is too much for the held bytes goes from their beginning.
        let over = (self.held_len + bytes.len()).saturating_sub(8);
        if over > 0 {
            self.crc.update(&self.held[..over]);
            self.last = Some(self.held[over - 1]);
            self.held.copy_within(over.., 0);
            self.held_len -= over;
        }
        self.held[self.held_len..self.held_len + bytes.len()].copy_from_slice(bytes);
        self.held_len += bytes.len();
    }

    /// Takes the last bytes in too.
    pub(super) fn release(&mut self) {
        if let Some(&last) = self.held().last() {
            self.crc.update(&self.held[..self.held_len]);
            self.last = Some(last);
            self.held_len = 0;
        }
    }

    pub(super) fn held(&self) -> &[u8] {
        &self.held[..self.held_len]
    }

    /// The checksum of everything but the held bytes.
    pub(super) fn value(&self) -> u64 {
        self.crc.value()
    }

    /// What the held bytes say if they are a checksum.
    pub(super) fn found(&self) -> Option<u64> {
        (self.held_len == 8).then(|| u64::from_le_bytes(self.held))
    }

    pub(super) fn last_before(&self) -> Option<u8> {
        self.last
    }

    /// Whether the last 9 bytes are an end mark and the right checksum.
    pub(super) fn ends_well(&self) -> bool {
        self.last == Some(opcode::END) && self.found() == Some(self.crc.value())
    }
}
