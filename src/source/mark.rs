//! The end of a diskless transfer: 40 random bytes, announced before it and repeated after it.
//!
//! Promise: nothing of the mark is passed on, nothing of the file is lost, wherever the reads
//! split it. Reading on until the last 40 bytes fit is not enough: a master may send more behind
//! the mark. The search skips (Horspool), so it looks at a fortieth of the bytes.

use bytes::{Bytes, BytesMut};

/// The mark's length.
pub(super) const LEN: usize = 40;

/// Looks for the mark in a stream of pieces.
#[derive(Debug)]
pub(super) struct Finder {
    mark: [u8; LEN],
    skip: [u8; 256],
    /// The end of the stream so far, while it could be the beginning of the mark.
    held: BytesMut,
}

/// What of the stream may be passed on.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Bytes of the file, in order; either may be empty.
    pub(super) file: [Bytes; 2],
    /// The mark has come: the file is whole.
    pub(super) end: bool,
}

impl Finder {
    pub(super) fn new(mark: [u8; LEN]) -> Finder {
        let mut skip = [LEN as u8; 256];
        for (at, byte) in mark[..LEN - 1].iter().enumerate() {
            skip[usize::from(*byte)] = (LEN - 1 - at) as u8;
        }
        Finder {
            mark,
            skip,
            held: BytesMut::with_capacity(2 * LEN),
        }
    }

    /// The next piece of the stream.
    pub(super) fn feed(&mut self, mut piece: Bytes) -> Found {
        let mut before = Bytes::new();
        if !self.held.is_empty() {
            // A mark that begins in what is held ends within LEN bytes of the piece.
            let was = self.held.len();
            self.held.extend_from_slice(&piece[..piece.len().min(LEN)]);
            if let Some(at) = self.find(&self.held) {
                let file = if at <= was {
                    [self.held.split_to(at).freeze(), Bytes::new()]
                } else {
                    [self.held.split_to(was).freeze(), piece.split_to(at - was)]
                };
                return Found { file, end: true };
            }
            if piece.len() < LEN {
                // All of the piece is in the joint: only its end can be a beginning.
                let keep = self.begins(&self.held);
                let pass = self.held.len() - keep;
                before = self.held.split_to(pass).freeze();
                return Found {
                    file: [before, Bytes::new()],
                    end: false,
                };
            }
            self.held.truncate(was);
            before = self.held.split().freeze();
        }
        if let Some(at) = self.find(&piece) {
            return Found {
                file: [before, piece.split_to(at)],
                end: true,
            };
        }
        let keep = self.begins(&piece);
        self.held
            .extend_from_slice(&piece.split_off(piece.len() - keep));
        Found {
            file: [before, piece],
            end: false,
        }
    }

    fn find(&self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(window) = bytes.get(at..at + LEN) {
            let last = window[LEN - 1];
            if last == self.mark[LEN - 1] && window == self.mark {
                return Some(at);
            }
            at += usize::from(self.skip[usize::from(last)]);
        }
        None
    }

    /// How many bytes at the end are the beginning of the mark.
    fn begins(&self, bytes: &[u8]) -> usize {
        (1..=bytes.len().min(LEN - 1))
            .rev()
            .find(|&len| bytes.ends_with(&self.mark[..len]))
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(mark: [u8; LEN], stream: &[u8], pieces: &[usize]) -> (Vec<u8>, bool) {
        let (mut finder, mut file, mut rest) = (Finder::new(mark), Vec::new(), stream);
        let mut sizes = pieces.iter().cycle();
        while !rest.is_empty() {
            let size = sizes.next().copied().unwrap_or(1).clamp(1, rest.len());
            let (piece, after) = rest.split_at(size);
            rest = after;
            let found = finder.feed(Bytes::copy_from_slice(piece));
            file.extend_from_slice(&found.file[0]);
            file.extend_from_slice(&found.file[1]);
            if found.end {
                return (file, true);
            }
        }
        (file, false)
    }

    #[test]
    fn the_mark_is_found_at_every_split_and_never_passed_on() {
        let mark = *b"0123456789abcdef0123456789abcdeX01234567";
        // False starts before it: the whole of it but one byte, and its own beginning doubled.
        let mut stream = b"REDIS0010".to_vec();
        stream.extend_from_slice(&mark[..39]);
        stream.extend_from_slice(b"x0123456789abcdef");
        let file = stream.clone();
        stream.extend_from_slice(&mark);
        stream.extend_from_slice(b"*1\r\n$4\r\nPING\r\n");
        for first in 1..stream.len() {
            for second in [1, 7, 39, 40, 41, 1000] {
                assert_eq!(run(mark, &stream, &[first, second]), (file.clone(), true));
            }
        }
    }

    proptest! {
        #[test]
        fn any_stream_is_cut_at_its_mark(
            // A tiny alphabet makes false starts likely.
            mark in proptest::array::uniform32(0u8..2),
            file in proptest::collection::vec(0u8..3, 0..300),
            pieces in proptest::collection::vec(1usize..90, 1..20),
        ) {
            let mut full = [0u8; LEN];
            full[..32].copy_from_slice(&mark);
            full[LEN - 1] = 9; // so that the file can't hold the mark itself
            let mut stream = file.clone();
            stream.extend_from_slice(&full);
            stream.extend_from_slice(b"\n\n");
            prop_assert_eq!(run(full, &stream, &pieces), (file, true));
        }
    }
}
