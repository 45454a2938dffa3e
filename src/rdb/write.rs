//! Makes an RDB file: what [`Scanner`](super::Scanner) reads, and a server loads.
//!
//! The trap: a server ends itself over a key that stands twice in a database. The writer remembers
//! no keys; whoever calls it must not repeat one.

use std::io;

use super::crc64::Crc64;
use super::length;
use super::program::opcode;
use super::types::{DbIndex, FileVersion};

/// Output goes out in blocks of about this many bytes.
const BLOCK: usize = 64 * 1024;

/// Everything about a key but its value.
#[derive(Clone, Copy)]
pub struct NewKey<'a> {
    /// Its name.
    pub key: &'a [u8],
    /// The type byte of the value that follows: [`ValueType::code`](super::ValueType::code), or
    /// that of a payload whose type is not known.
    pub type_code: u8,
    /// When it expires, in milliseconds of Unix time.
    pub expire_at_ms: Option<i64>,
    /// For how long it has not been used, in seconds.
    pub idle_s: Option<u64>,
    /// How often it is used, a logarithmic counter.
    pub freq: Option<u8>,
    /// Its metadata, opcode included, as in [`KeyHead::meta`](super::KeyHead::meta).
    pub meta: &'a [u8],
}

impl<'a> NewKey<'a> {
    /// A key that never expires.
    pub fn new(key: &'a [u8], type_code: u8) -> NewKey<'a> {
        NewKey {
            key,
            type_code,
            expire_at_ms: None,
            idle_s: None,
            freq: None,
            meta: &[],
        }
    }
}

impl std::fmt::Debug for NewKey<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "NewKey(type {}, {} bytes)",
            self.type_code,
            self.key.len()
        )
    }
}

/// Writes a file to `W` and sums it. [`finish`](Writer::finish) ends it; dropped before, it is no
/// file.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    version: FileVersion,
    block: Vec<u8>,
    crc: Crc64,
    written: u64,
}

impl<W: io::Write> Writer<W> {
    /// Begins a file. The version must have every type and opcode that will be written.
    ///
    /// # Errors
    /// A number of more digits than the header has room for: [`io::ErrorKind::InvalidInput`].
    pub fn new(to: W, version: FileVersion) -> io::Result<Writer<W>> {
        let (word, digits) = match version.family {
            super::Family::Redis => ("REDIS", 4),
            super::Family::Valkey => ("VALKEY", 3),
        };
        let header = format!("{word}{:0digits$}", version.number);
        if header.len() != 9 || version.number == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("there is no RDB version {version}"),
            ));
        }
        let mut writer = Writer {
            to,
            version,
            block: Vec::with_capacity(2 * BLOCK),
            crc: Crc64::new(),
            written: 0,
        };
        writer.raw(header.as_bytes())?;
        Ok(writer)
    }

    /// How many bytes the file has so far.
    pub fn bytes(&self) -> u64 {
        self.written + self.block.len() as u64
    }

    /// Adds bytes as they are: the raw bytes of a scanner's events, the next fragment of a value.
    ///
    /// # Errors
    /// What the output says; so do all others.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() >= BLOCK {
            self.flush()?;
            self.crc.update(bytes);
            self.written += bytes.len() as u64;
            return self.to.write_all(bytes);
        }
        self.block.extend_from_slice(bytes);
        self.flush_full()
    }

    /// Adds a fact about the file: `redis-ver`, `ctime` and the like.
    ///
    /// # Errors
    /// As [`raw`](Writer::raw).
    pub fn aux(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.block.push(opcode::AUX);
        self.string(key)?;
        self.string(value)
    }

    /// The following keys are of this database.
    ///
    /// # Errors
    /// As [`raw`](Writer::raw).
    pub fn select_db(&mut self, db: DbIndex) -> io::Result<()> {
        self.block.push(opcode::SELECT_DB);
        length::encode(u64::from(db.0), &mut self.block);
        self.flush_full()
    }

    /// How many keys to make room for in this database. Known from version 7 on.
    ///
    /// # Errors
    /// As [`raw`](Writer::raw).
    pub fn resize_db(&mut self, keys: u64, expires: u64) -> io::Result<()> {
        self.block.push(opcode::RESIZE_DB);
        length::encode(keys, &mut self.block);
        length::encode(expires, &mut self.block);
        self.flush_full()
    }

    /// Adds a function library by its source. Known from version 10 on.
    ///
    /// # Errors
    /// As [`raw`](Writer::raw).
    pub fn function(&mut self, code: &[u8]) -> io::Result<()> {
        self.block.push(opcode::FUNCTION);
        self.string(code)
    }

    /// Adds a key with its value in file form.
    ///
    /// # Errors
    /// As [`raw`](Writer::raw).
    pub fn key(&mut self, head: &NewKey<'_>, value: &[u8]) -> io::Result<()> {
        self.begin_key(head)?;
        self.raw(value)
    }

    /// Begins a key; the value follows by [`raw`](Writer::raw), in as many fragments as one likes.
    ///
    /// # Errors
    /// As [`raw`](Writer::raw).
    pub fn begin_key(&mut self, head: &NewKey<'_>) -> io::Result<()> {
        // The order in which a server writes them (`rdbSaveKeyValuePair`).
        if let Some(at) = head.expire_at_ms {
            self.block.push(opcode::EXPIRE_MS);
            self.block.extend_from_slice(&at.to_le_bytes());
        }
        if let Some(idle) = head.idle_s {
            self.block.push(opcode::IDLE);
            length::encode(idle, &mut self.block);
        }
        if let Some(freq) = head.freq {
            self.block.extend_from_slice(&[opcode::FREQ, freq]);
        }
        self.raw(head.meta)?;
        self.block.push(head.type_code);
        self.string(head.key)
    }

    /// Ends the file, with its checksum from version 5 on, and gives back the output, flushed, and
    /// the file's length.
    ///
    /// # Errors
    /// What the output says.
    pub fn finish(mut self) -> io::Result<(W, u64)> {
        self.block.push(opcode::END);
        self.flush()?;
        if self.version.has_checksum() {
            self.to.write_all(&self.crc.value().to_le_bytes())?;
            self.written += 8;
        }
        self.to.flush()?;
        Ok((self.to, self.written))
    }

    fn string(&mut self, bytes: &[u8]) -> io::Result<()> {
        length::encode(bytes.len() as u64, &mut self.block);
        self.raw(bytes)
    }

    fn flush_full(&mut self) -> io::Result<()> {
        if self.block.len() >= BLOCK {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.crc.update(&self.block);
        self.to.write_all(&self.block)?;
        self.written += self.block.len() as u64;
        self.block.clear();
        Ok(())
    }
}
