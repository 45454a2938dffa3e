//! Where output goes that comes while a backup is read: a file that appears whole, or standard output; in blocks.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Error;
use super::file::{Existing, PendingFile, Place, Sink};

/// A file that appears when it is whole, or standard output.
#[derive(Debug)]
pub struct Out(To);

#[derive(Debug)]
enum To {
    File(PendingFile),
    Stdout {
        /// Standard output without a buffer of its own: what comes are blocks.
        stream: File,
        written: u64,
        reader: Reader,
    },
}

/// What became of standard output, for whoever has given it away.
#[derive(Clone, Debug, Default)]
pub struct Reader(Arc<Fate>);

#[derive(Debug, Default)]
struct Fate {
    gone: AtomicBool,
    begun: AtomicBool,
}

impl Reader {
    /// Whether its reader wants no more: `head` has seen enough.
    pub fn is_gone(&self) -> bool {
        self.0.gone.load(Ordering::Relaxed)
    }

    /// Whether anything was written.
    pub fn has_output(&self) -> bool {
        self.0.begun.load(Ordering::Relaxed)
    }
}

impl Out {
    /// A file at `path`.
    ///
    /// # Errors
    /// There is one already, or none can be made there.
    pub fn file(path: &Path, existing: Existing) -> Result<Out, Error> {
        Ok(Out(To::File(PendingFile::create(path, existing)?)))
    }

    /// Standard output, and how to know afterwards whether its reader went away.
    ///
    /// # Errors
    /// It is closed.
    pub fn stdout() -> Result<(Out, Reader), Error> {
        let stream = io::stdout().as_fd().try_clone_to_owned();
        let stream = stream.map_err(|source| Error::Stdout { source })?;
        let reader = Reader::default();
        let to = To::Stdout {
            stream: stream.into(),
            written: 0,
            reader: reader.clone(),
        };
        Ok((Out(to), reader))
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            To::File(file) => file.write(bytes),
            To::Stdout {
                stream,
                written,
                reader,
            } => match stream.write(bytes) {
                Ok(count) => {
                    *written += count as u64;
                    reader.0.begun.store(true, Ordering::Relaxed);
                    Ok(count)
                }
                Err(error) => {
                    if error.kind() == io::ErrorKind::BrokenPipe {
                        reader.0.gone.store(true, Ordering::Relaxed);
                    }
                    Err(error)
                }
            },
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            To::File(file) => file.flush(),
            To::Stdout { stream, .. } => stream.flush(),
        }
    }
}

impl Sink for Out {
    fn place(&self) -> Place {
        match &self.0 {
            To::File(file) => file.place(),
            To::Stdout { .. } => Place::Stdout,
        }
    }

    fn commit(self) -> Result<u64, Error> {
        match self.0 {
            To::File(file) => file.commit(),
            To::Stdout { written, .. } => Ok(written),
        }
    }
}

/// Output goes out in blocks of about this many bytes.
const BLOCK: usize = 512 << 10;

/// Output that is gathered into blocks.
#[derive(Debug)]
pub struct Blocks<S> {
    /// What has not gone out yet: to be appended to, with [`flush_full`](Blocks::flush_full) now and then.
    pub bytes: Vec<u8>,
    to: S,
    place: Place,
    written: u64,
}

impl<S: Sink> Blocks<S> {
    /// Gathers for `to`.
    pub fn new(to: S) -> Blocks<S> {
        Blocks {
            bytes: Vec::with_capacity(2 * BLOCK),
            place: to.place(),
            to,
            written: 0,
        }
    }

    /// Adds a text.
    #[inline]
    pub fn text(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// Writes what was gathered when it makes up a block.
    ///
    /// # Errors
    /// It can't be written.
    #[inline]
    pub fn flush_full(&mut self) -> Result<(), Error> {
        match self.bytes.len() >= BLOCK {
            true => self.flush(),
            false => Ok(()),
        }
    }

    #[cold]
    fn flush(&mut self) -> Result<(), Error> {
        let written = self.to.write_all(&self.bytes);
        self.written += self.bytes.len() as u64;
        self.bytes.clear();
        written.map_err(|source| self.place.failed(source))
    }

    /// Ends it. To be called when all of it is known to be right. Returns how many bytes there are.
    ///
    /// # Errors
    /// As [`Sink::commit`].
    pub fn finish(mut self) -> Result<u64, Error> {
        self.flush()?;
        self.to
            .flush()
            .map_err(|source| self.place.failed(source))?;
        self.to.commit()?;
        Ok(self.written)
    }
}
