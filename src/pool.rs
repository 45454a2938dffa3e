//! Memory that is used again.
//!
//! Blocks, frames and parts are large, all of one size, and made by one thread and dropped by another: an allocator keeps
//! a hole for each that was given back, and takes more from the system all the same. Who makes parts of one archive in
//! two places, as its packer and a relay that catches up do, shares one pool: what the one has no use for the other has.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Buffers of one size. Clones share them. No more are kept than were in use at once.
#[derive(Clone, Debug)]
pub struct Pool {
    free: Arc<Mutex<Vec<Vec<u8>>>>,
    room: usize,
}

impl Pool {
    /// A pool whose buffers have room for so many bytes.
    pub fn new(room: usize) -> Pool {
        Pool {
            free: Arc::default(),
            room,
        }
    }

    /// How many bytes a buffer has room for.
    pub fn room(&self) -> usize {
        self.room
    }

    /// An empty buffer.
    pub fn take(&self) -> Vec<u8> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let found = free.pop();
        drop(free);
        found.unwrap_or_else(|| Vec::with_capacity(self.room))
    }

    /// Takes a buffer back. One that is not of this size is dropped.
    pub fn give(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() < self.room {
            return;
        }
        buffer.clear();
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(buffer);
    }

    /// Bytes whose memory comes back when nobody holds them any more.
    pub fn lend(&self, buffer: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent {
            buffer,
            pool: self.clone(),
        })
    }
}

/// A buffer of a pool that is being filled. It is taken when the first byte comes.
#[derive(Debug)]
pub struct Filling {
    pool: Pool,
    buffer: Vec<u8>,
    full: usize,
}

impl Filling {
    /// Nothing yet. Buffers are full with so many bytes, which is at most what the pool's have room for.
    pub fn new(pool: Pool, full: usize) -> Filling {
        Filling {
            pool,
            buffer: Vec::new(),
            full,
        }
    }

    /// Takes what it has room for from the front of `bytes`, which are the rest then: the buffer, when that has filled it.
    pub fn fill(&mut self, bytes: &mut &[u8]) -> Option<Vec<u8>> {
        if self.buffer.capacity() == 0 && !bytes.is_empty() {
            self.buffer = self.pool.take();
        }
        let room = self.full - self.buffer.len();
        let (now, later) = bytes.split_at(room.min(bytes.len()));
        self.buffer.extend_from_slice(now);
        *bytes = later;
        (self.buffer.len() == self.full).then(|| std::mem::take(&mut self.buffer))
    }

    /// What there is, if there is any.
    pub fn rest(&mut self) -> Option<Vec<u8>> {
        (!self.buffer.is_empty()).then(|| std::mem::take(&mut self.buffer))
    }

    /// The pool that its buffers come from.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }
}

struct Lent {
    buffer: Vec<u8>,
    pool: Pool,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_is_cut_into_buffers_of_one_size() {
        let mut filling = Filling::new(Pool::new(8), 4);
        let mut full = Vec::new();
        for mut bytes in [b"ab".as_slice(), b"", b"cdefghijk", b"l"] {
            while !bytes.is_empty() {
                full.extend(filling.fill(&mut bytes));
            }
        }
        assert_eq!(full, [b"abcd", b"efgh", b"ijkl"]);
        assert_eq!(filling.rest(), None);
        assert_eq!(filling.fill(&mut b"m".as_slice()), None);
        assert_eq!(filling.rest(), Some(b"m".to_vec()));
    }

    #[test]
    fn memory_comes_back_when_the_last_holder_is_gone() {
        let pool = Pool::new(100);
        let mut buffer = pool.take();
        buffer.extend_from_slice(b"some bytes");
        let at = buffer.as_ptr();
        let lent = pool.lend(buffer);
        let part = lent.slice(5..);
        drop(lent);
        let other = pool.take();
        assert_ne!(other.as_ptr(), at, "lent and given away");
        assert_eq!(part, "bytes");
        drop(part);
        let again = pool.take();
        assert_eq!(again.as_ptr(), at);
        assert!(again.is_empty());
        pool.give(Vec::with_capacity(3));
        assert!(pool.take().capacity() >= 100);
    }
}
