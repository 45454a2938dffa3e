//! Commands in RESP, gathered into batches that are sent as they are, with a note for each reply that will come.
//!
//! A batch is small (a few hundred KiB), so that a handful in flight keeps a server busy and costs little memory; a large
//! payload is not copied into it but travels beside it.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use tokio::sync::OwnedSemaphorePermit;

use crate::rdb::packed::Digits;

/// A batch is full with so many bytes.
const FULL_BYTES: usize = 128 << 10;

/// A batch is full with so many commands.
const FULL_COMMANDS: usize = 1024;

/// A payload from this size on travels beside its batch.
pub(crate) const LARGE: usize = 256 << 10;

/// What a reply answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// SELECT.
    Select,
    /// EXISTS.
    Exists,
    /// RESTORE of a payload as it was.
    Restore,
    /// RESTORE of a payload in a plainer layout.
    Recoded,
    /// SET, which makes a whole key.
    Set,
    /// One of several commands that make a key: which.
    Step(u64),
    /// The last of them before the key gets its name.
    Ready(u64),
    /// What is left of a key that went wrong is removed.
    Removed(u64),
    /// The transaction that gives a key its name.
    Named(u64),
    /// TIME, for a comparison.
    Time,
    /// When a key expires, for a comparison.
    Expiry,
    /// What a key holds, for a comparison: the last question about it.
    Content,
}

impl Asked {
    /// Whether a key is dealt with by the answer.
    fn is_key(self) -> bool {
        match self {
            Asked::Exists
            | Asked::Restore
            | Asked::Recoded
            | Asked::Set
            | Asked::Removed(_)
            | Asked::Named(_)
            | Asked::Content => true,
            Asked::Select | Asked::Step(_) | Asked::Ready(_) | Asked::Time | Asked::Expiry => false,
        }
    }
}

/// A reply that will come.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) asked: Asked,
    pub(crate) db: u32,
    /// Where the key stands in the batch's bytes.
    key: Range<u32>,
}

/// Commands ready to be sent.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Bytes,
    beside: Vec<Bytes>,
    pub(crate) expected: Vec<Expected>,
    /// The room that a payload beside it takes, until it is sent.
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

impl Batch {
    /// Bytes that travel beside it.
    pub(crate) fn bytes_beside(&self) -> usize {
        self.beside.iter().map(Bytes::len).sum()
    }

    /// The bytes to send, in order.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Bytes> {
        std::iter::once(self.bytes.clone()).chain(self.beside.iter().cloned())
    }

    /// Keys in it.
    pub(crate) fn keys(&self) -> usize {
        self.expected
            .iter()
            .filter(|expected| expected.asked.is_key())
            .count()
    }

    /// The batch without its large payloads, which are not needed once they are sent.
    pub(crate) fn without_payloads(mut self) -> Batch {
        self.beside = Vec::new();
        self
    }

    /// The key that an expected reply is about.
    pub(crate) fn key(&self, expected: &Expected) -> &[u8] {
        &self.bytes[expected.key.start as usize..expected.key.end as usize]
    }
}

/// Gathers commands.
#[derive(Debug)]
pub(crate) struct Builder {
    bytes: BytesMut,
    expected: Vec<Expected>,
    max_commands: usize,
    db: Option<u32>,
}

impl Builder {
    /// `max_commands` is lowered where a rate must be kept evenly.
    pub(crate) fn new(max_commands: usize) -> Builder {
        Builder {
            bytes: BytesMut::with_capacity(FULL_BYTES * 2),
            expected: Vec::new(),
            max_commands: max_commands.clamp(1, FULL_COMMANDS),
            db: None,
        }
    }

    /// SELECT, unless that database is selected already.
    pub(crate) fn select(&mut self, db: u32) {
        if self.db != Some(db) {
            self.db = Some(db);
            self.array(2);
            self.argument(b"SELECT");
            self.number(i64::from(db));
            self.expect(Asked::Select, db, 0..0);
        }
    }

    /// EXISTS.
    pub(crate) fn exists(&mut self, db: u32, key: &[u8]) {
        self.select(db);
        self.array(2);
        self.argument(b"EXISTS");
        let place = self.argument(key);
        self.expect(Asked::Exists, db, place);
    }

    /// RESTORE. Leaves `payload` empty. Returns a batch when the payload is too large to be copied into one.
    pub(crate) fn restore(
        &mut self,
        asked: Asked,
        db: u32,
        key: &[u8],
        ttl: i64,
        payload: &mut Vec<u8>,
        options: &Options,
    ) -> Option<Batch> {
        self.select(db);
        let words = usize::from(options.replace)
            + usize::from(options.absolute)
            + 2 * usize::from(options.eviction.is_some());
        self.array(4 + words);
        self.argument(b"RESTORE");
        let place = self.argument(key);
        self.number(ttl);
        self.expect(asked, db, place);
        if payload.len() < LARGE {
            self.argument(payload);
            payload.clear();
            self.options(options);
            return None;
        }
        self.head(b'$', payload.len() as u64);
        let bytes = self.bytes.split().freeze();
        let payload = Bytes::from(std::mem::take(payload));
        self.bytes.extend_from_slice(b"\r\n");
        self.options(options);
        Some(Batch {
            bytes,
            beside: vec![payload, self.bytes.split().freeze()],
            expected: std::mem::take(&mut self.expected),
            room: None,
        })
    }

    /// Any command; its second argument is the key, where it has one. Returns a batch when one of its arguments is too
    /// large to be copied into one.
    pub(crate) fn command(&mut self, db: u32, words: &[&[u8]], asked: Asked) -> Option<Batch> {
        self.select(db);
        self.array(words.len());
        let mut key = 0..0;
        let mut before: Option<Bytes> = None;
        let mut beside = Vec::new();
        for (at, word) in words.iter().enumerate() {
            if word.len() >= LARGE && at > 1 {
                self.head(b'$', word.len() as u64);
                let head = self.bytes.split().freeze();
                match before {
                    None => before = Some(head),
                    Some(_) => beside.push(head),
                }
                beside.push(Bytes::copy_from_slice(word));
                self.bytes.extend_from_slice(b"\r\n");
                continue;
            }
            let place = self.argument(word);
            if at == 1 {
                key = place;
            }
        }
        self.expect(asked, db, key);
        let before = before?;
        beside.push(self.bytes.split().freeze());
        Some(Batch {
            bytes: before,
            beside,
            expected: std::mem::take(&mut self.expected),
            room: None,
        })
    }

    /// The batch, when it is full.
    pub(crate) fn full(&mut self) -> Option<Batch> {
        if self.bytes.len() >= FULL_BYTES || self.expected.len() >= self.max_commands {
            self.rest()
        } else {
            None
        }
    }

    /// What has been gathered, if anything.
    pub(crate) fn rest(&mut self) -> Option<Batch> {
        if self.expected.is_empty() {
            return None;
        }
        let batch = Batch {
            bytes: self.bytes.split().freeze(),
            beside: Vec::new(),
            expected: std::mem::take(&mut self.expected),
            room: None,
        };
        self.bytes.reserve(FULL_BYTES * 2);
        Some(batch)
    }

    fn options(&mut self, options: &Options) {
        if options.replace {
            self.argument(b"REPLACE");
        }
        if options.absolute {
            self.argument(b"ABSTTL");
        }
        match options.eviction {
            Some(Eviction::Idle(seconds)) => {
                self.argument(b"IDLETIME");
                self.number(seconds);
            }
            Some(Eviction::Frequency(frequency)) => {
                self.argument(b"FREQ");
                self.number(i64::from(frequency));
            }
            None => {}
        }
    }

    fn expect(&mut self, asked: Asked, db: u32, key: Range<u32>) {
        self.expected.push(Expected { asked, db, key });
    }

    fn array(&mut self, count: usize) {
        self.head(b'*', count as u64);
    }

    fn argument(&mut self, argument: &[u8]) -> Range<u32> {
        self.head(b'$', argument.len() as u64);
        // A batch is far smaller than 4 GiB; a key is at most 512 MiB.
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(argument);
        let end = self.bytes.len() as u32;
        self.bytes.extend_from_slice(b"\r\n");
        start..end
    }

    fn number(&mut self, number: i64) {
        self.argument(Digits::new().of(number));
    }

    fn head(&mut self, kind: u8, count: u64) {
        self.bytes.extend_from_slice(&[kind]);
        self.bytes
            .extend_from_slice(Digits::new().of_unsigned(count));
        self.bytes.extend_from_slice(b"\r\n");
    }
}

/// What follows the payload of a RESTORE.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// REPLACE.
    pub(crate) replace: bool,
    /// ABSTTL.
    pub(crate) absolute: bool,
    /// IDLETIME or FREQ.
    pub(crate) eviction: Option<Eviction>,
}

/// What a server's eviction policy knows of a key. RESTORE takes one of the two.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Eviction {
    /// Seconds.
    Idle(i64),
    /// A logarithmic counter.
    Frequency(u8),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn bytes(batch: &Batch) -> Vec<u8> {
        batch.parts().flat_map(|part| part.to_vec()).collect()
    }

    #[test]
    fn commands_are_arrays_of_bulk_strings_and_a_database_is_selected_once() {
        let mut builder = Builder::new(1000);
        let options = Options {
            replace: true,
            absolute: true,
            eviction: Some(Eviction::Frequency(9)),
        };
        assert!(
            builder
                .restore(Asked::Restore, 3, b"k", 17, &mut b"PAY".to_vec(), &options)
                .is_none()
        );
        builder.exists(3, b"other");
        let batch = builder.rest().unwrap();
        assert_eq!(
            bytes(&batch).escape_ascii().to_string(),
            "*2\\r\\n$6\\r\\nSELECT\\r\\n$1\\r\\n3\\r\\n*8\\r\\n$7\\r\\nRESTORE\\r\\n$1\\r\\nk\\r\\n$2\\r\\n17\\r\\n$3\\r\\nPAY\\r\\n\
             $7\\r\\nREPLACE\\r\\n$6\\r\\nABSTTL\\r\\n$4\\r\\nFREQ\\r\\n$1\\r\\n9\\r\\n*2\\r\\n$6\\r\\nEXISTS\\r\\n$5\\r\\nother\\r\\n"
        );
        assert_eq!(batch.keys(), 2);
        assert_eq!(batch.key(&batch.expected[1]), b"k");
        assert_eq!(batch.key(&batch.expected[2]), b"other");
        assert!(builder.rest().is_none());
    }

    #[test]
    fn a_large_payload_travels_beside_its_batch_and_is_not_kept() {
        let mut builder = Builder::new(1000);
        builder.exists(0, b"first");
        let mut payload = vec![7; LARGE];
        let batch = builder
            .restore(
                Asked::Restore,
                0,
                b"big",
                0,
                &mut payload,
                &Options::default(),
            )
            .unwrap();
        assert!(payload.is_empty());
        let sent = bytes(&batch);
        assert!(sent.ends_with(b"\x07\r\n"));
        assert!(sent.len() > LARGE);
        assert_eq!(batch.keys(), 2);
        let kept = batch.without_payloads();
        assert_eq!(kept.key(&kept.expected[2]), b"big");
        assert!(bytes(&kept).len() < 200);
    }

    #[test]
    fn a_command_with_a_large_argument_is_whole_and_the_next_goes_into_another_batch() {
        let mut builder = Builder::new(1000);
        let large = vec![b'x'; LARGE];
        let words: [&[u8]; 4] = [b"RPUSH", b"key", &large, b"small"];
        let batch = builder.command(0, &words, Asked::Step(1)).unwrap();
        let sent = bytes(&batch);
        let (head, tail) = (&sent[..80], &sent[sent.len() - 20..]);
        assert!(head.starts_with(
            b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*4\r\n$5\r\nRPUSH\r\n$3\r\nkey\r\n$262144\r\nx"
        ));
        assert!(tail.ends_with(b"xx\r\n$5\r\nsmall\r\n"));
        assert_eq!(batch.key(&batch.expected[1]), b"key");
        assert_eq!(batch.keys(), 0);
        assert!(
            builder
                .command(0, &[b"DEL", b"key"], Asked::Removed(1))
                .is_none()
        );
        assert_eq!(builder.rest().unwrap().keys(), 1);
    }

    #[test]
    fn a_batch_is_full_by_count_or_by_size() {
        let mut builder = Builder::new(3);
        builder.exists(0, b"a");
        assert!(builder.full().is_none());
        builder.exists(0, b"b");
        assert_eq!(builder.full().unwrap().keys(), 2);
        builder.exists(0, &vec![1; FULL_BYTES]);
        assert!(builder.full().is_some());
    }
}
