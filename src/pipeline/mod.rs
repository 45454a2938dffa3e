//! What happens to bytes between a source and a storage, and on their way back.
//!
//! Out: [`outbound::Packer`] digests the plain bytes, compresses them as independent frames on
//! several threads, encrypts them where that is wanted, digests what is stored and hands it on in parts. Back:
//! [`inbound::unpack`] undoes that while it checks every digest. Both are plain threads and bounded queues: memory does
//! not grow with the data. A queue's other end being gone means that somebody gave up, and ends the
//! stage quietly: the one who gave up knows why.

pub mod compression;
pub mod inbound;
pub mod keys;
pub mod outbound;
pub mod seal;

use sha2::{Digest as _, Sha256};

pub use compression::Compression;
pub use keys::Keys;

/// A SHA-256 in the making, with the count of what went in.
#[derive(Clone, Default)]
pub struct Digester {
    hash: Sha256,
    bytes: u64,
}

impl Digester {
    /// Takes more bytes.
    pub fn update(&mut self, data: &[u8]) {
        self.hash.update(data);
        self.bytes += data.len() as u64;
    }

    /// The count of bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digest of all of them, as 64 hex digits.
    pub fn finish(self) -> String {
        hex(&self.hash.finalize())
    }
}

/// The SHA-256 of some bytes, as 64 hex digits.
pub fn sha256(data: &[u8]) -> String {
    hex(&Sha256::digest(data))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
