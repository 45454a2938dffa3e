//! Plain commands that make a value: RPUSH, SADD, ZADD, HSET and HPEXPIREAT, XADD, XGROUP and XCLAIM, SET.
//!
//! [`Writer`] takes the elements of a value and hands out commands, each a list of arguments, to whoever takes them: a live
//! server, or a file for `redis-cli --pipe`. It knows nothing of what was under that name before, of the key's own expiry
//! or of transactions: whoever takes the commands puts those around them.
//!
//! What it promises: the commands, run in order on a name that is free, make the value; memory is one batch
//! ([`BATCH_BYTES`]) and one element. What a server can't take is left out and counted ([`Lost`]).
//!
//! The traps: a server takes no argument longer than its `proto-max-bulk-len`, and no APPEND beyond it either; XCLAIM passes
//! over an entry that was deleted, though it may well be pending ([`Ghosts`]); XADD makes no empty stream.

mod dialect;
mod ghosts;
mod stream;

pub use dialect::Dialect;
pub use ghosts::Ghosts;

use crate::rdb::LogicalType;
use crate::rdb::value::{Element, StreamId};

/// A batch of elements has about so many bytes.
pub const BATCH_BYTES: usize = 64 << 10;

/// A command has at most about so many arguments.
const BATCH_ARGUMENTS: usize = 1000;

/// A string that is longer than one argument may be comes in pieces, as a list, and is put together by the server: no other
/// command makes one, and SET in a script is not measured. What is left of the name's time stays.
const JOIN: &[u8] = b"local left = redis.call('PTTL', KEYS[1]) \
redis.call('SET', KEYS[1], table.concat(redis.call('LRANGE', KEYS[1], 0, -1))) \
if left > 0 then redis.call('PEXPIRE', KEYS[1], left) end \
return 1";

/// What of a value was left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Elements, or a stream's entries, with something in them that is longer than an argument may be.
    pub too_large: u64,
    /// Fields that came without their expiry.
    pub field_expiries: u64,
    /// Fields that were over already. Nothing is lost by that.
    pub fields_over: u64,
    /// Pending entries that no consumer has, for which there is no command.
    pub unowned: u64,
}

/// What has been made of a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Commands handed out. With none there is no key: nothing of the value was left.
    pub commands: u64,
    /// What was left out.
    pub lost: Lost,
}

/// Makes commands of values, one value after the other.
#[derive(Debug)]
pub struct Writer {
    dialect: Dialect,
    key: Vec<u8>,
    logical: LogicalType,
    /// Fields that end by then are over.
    now_ms: Option<i64>,
    batch: Words,
    /// The fields in the batch that expire: when, and which argument names them.
    expiring: Vec<(i64, usize)>,
    stream: stream::State,
    made: Made,
}

impl Writer {
    /// A writer for servers that speak so.
    pub fn new(dialect: Dialect) -> Writer {
        Writer {
            dialect,
            key: Vec::new(),
            logical: LogicalType::String,
            now_ms: None,
            batch: Words::default(),
            expiring: Vec::new(),
            stream: stream::State::default(),
            made: Made::default(),
        }
    }

    /// Begins a value under the name `key`; whatever came before is forgotten. Not for a module's: there are no commands.
    ///
    /// `now_ms`: Unix time in milliseconds; single fields that are over by then are left out. `ghosts`: of a stream what
    /// [`Ghosts`] found in it, in order; pending entries that are no longer in the stream and not named here are lost.
    pub fn start(
        &mut self,
        logical: LogicalType,
        key: &[u8],
        now_ms: Option<i64>,
        ghosts: &[StreamId],
    ) {
        self.key.clear();
        self.key.extend_from_slice(key);
        self.logical = logical;
        self.now_ms = now_ms;
        self.batch.clear();
        self.expiring.clear();
        self.stream.start(ghosts);
        self.made = Made::default();
    }

    /// Takes the next element; `sink` gets the commands that are ready.
    ///
    /// # Errors
    /// What `sink` says.
    pub fn element<E>(
        &mut self,
        element: Element<'_>,
        sink: &mut impl FnMut(&[&[u8]]) -> Result<(), E>,
    ) -> Result<(), E> {
        match element {
            Element::String(value) => self.string(value, sink),
            Element::Item(item) => self.add(&[item], None, sink),
            Element::Scored { member, score } => {
                self.add(&[score_text(score).as_bytes(), member], None, sink)
            }
            Element::Field {
                field,
                value,
                expire_at_ms,
            } => {
                if let (Some(at), Some(now)) = (expire_at_ms, self.now_ms)
                    && at <= now
                {
                    self.made.lost.fields_over += 1;
                    return Ok(());
                }
                let fits = self.fits(&[field, value]);
                let expire_at_ms = match self.dialect.field_expiry {
                    true => expire_at_ms,
                    false => {
                        self.made.lost.field_expiries += u64::from(fits && expire_at_ms.is_some());
                        None
                    }
                };
                self.add(&[field, value], expire_at_ms, sink)
            }
            Element::Module(_) | Element::ModuleBytes(_) => Ok(()),
            of_stream => self.stream_element(of_stream, sink),
        }
    }

    /// Ends the value.
    ///
    /// # Errors
    /// What `sink` says.
    pub fn finish<E>(
        &mut self,
        sink: &mut impl FnMut(&[&[u8]]) -> Result<(), E>,
    ) -> Result<Made, E> {
        self.flush(sink)?;
        self.stream_end(sink)?;
        Ok(self.made)
    }

    fn fits(&self, words: &[&[u8]]) -> bool {
        let longest = words.iter().map(|word| word.len()).max().unwrap_or(0);
        longest as u64 <= self.dialect.max_bulk
    }

    fn string<E>(
        &mut self,
        value: &[u8],
        sink: &mut impl FnMut(&[&[u8]]) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.fits(&[value]) {
            self.made.commands += 1;
            return sink(&[b"SET", &self.key, value]);
        }
        let piece = usize::try_from(self.dialect.max_bulk).unwrap_or(usize::MAX);
        for piece in value.chunks(piece.clamp(1, PIECE)) {
            self.made.commands += 1;
            sink(&[b"RPUSH", &self.key, piece])?;
        }
        self.made.commands += 1;
        sink(&[b"EVAL", JOIN, b"1", &self.key])
    }

    /// Adds what one element is written as.
    fn add<E>(
        &mut self,
        words: &[&[u8]],
        expire_at_ms: Option<i64>,
        sink: &mut impl FnMut(&[&[u8]]) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.fits(words) {
            self.made.lost.too_large += 1;
            return Ok(());
        }
        let bytes: usize = words.iter().map(|word| word.len()).sum();
        if bytes >= BATCH_BYTES {
            // Not copied: it goes by itself.
            self.flush(sink)?;
            let mut command: Vec<&[u8]> = vec![self.command(), &self.key];
            command.extend_from_slice(words);
            self.made.commands += 1;
            sink(&command)?;
            if let Some(at) = expire_at_ms {
                self.made.commands += 1;
                let at = at.to_string();
                sink(&[
                    b"HPEXPIREAT",
                    &self.key,
                    at.as_bytes(),
                    b"FIELDS",
                    b"1",
                    words[0],
                ])?;
            }
            return Ok(());
        }
        if let Some(at) = expire_at_ms {
            self.expiring.push((at, self.batch.len()));
        }
        for word in words {
            self.batch.push(word);
        }
        if self.batch.is_full() {
            self.flush(sink)?;
        }
        Ok(())
    }

    fn flush<E>(&mut self, sink: &mut impl FnMut(&[&[u8]]) -> Result<(), E>) -> Result<(), E> {
        if self.batch.len() == 0 {
            return Ok(());
        }
        let mut command: Vec<&[u8]> = vec![self.command(), &self.key];
        command.extend(self.batch.iter());
        self.made.commands += 1;
        sink(&command)?;
        // Those of one time together.
        self.expiring.sort_unstable();
        for run in self.expiring.chunk_by(|a, b| a.0 == b.0) {
            let (at, count) = (run[0].0.to_string(), run.len().to_string());
            let mut command: Vec<&[u8]> = vec![b"HPEXPIREAT", &self.key];
            command.extend([at.as_bytes(), b"FIELDS", count.as_bytes()]);
            command.extend(run.iter().map(|(_, index)| self.batch.get(*index)));
            self.made.commands += 1;
            sink(&command)?;
        }
        self.expiring.clear();
        self.batch.clear();
        Ok(())
    }

    /// The command that adds elements of this type.
    fn command(&self) -> &'static [u8] {
        match self.logical {
            LogicalType::List => b"RPUSH",
            LogicalType::Set => b"SADD",
            LogicalType::Zset => b"ZADD",
            LogicalType::Hash if self.dialect.hset_many => b"HSET",
            LogicalType::Hash => b"HMSET",
            LogicalType::String | LogicalType::Stream | LogicalType::Module => b"SET",
        }
    }
}

/// A string in pieces has pieces of so many bytes.
const PIECE: usize = 16 << 20;

/// The score as ZADD reads it back, to the bit.
fn score_text(score: f64) -> String {
    match score {
        f64::INFINITY => "inf".to_owned(),
        f64::NEG_INFINITY => "-inf".to_owned(),
        // The shortest decimal that is this number and no other.
        score => format!("{score:?}"),
    }
}

/// Arguments, gathered.
#[derive(Debug, Default)]
struct Words {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Words {
    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn push(&mut self, word: &[u8]) {
        self.bytes.extend_from_slice(word);
        self.ends.push(self.bytes.len());
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn is_full(&self) -> bool {
        self.bytes.len() >= BATCH_BYTES || self.ends.len() >= BATCH_ARGUMENTS
    }

    fn get(&self, index: usize) -> &[u8] {
        let start = match index {
            0 => 0,
            index => self.ends[index - 1],
        };
        &self.bytes[start..self.ends[index]]
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.get(index))
    }
}

#[cfg(test)]
mod tests;
