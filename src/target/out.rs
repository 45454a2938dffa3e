//! Where output goes that comes while a backup is read: a file that appears whole, or standard output; in blocks.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use super::Error;
use super::file::{Existing, PendingFile, Place, Sink};

/// A file that appears when it is whole, or standard output.
#[derive(Debug)]
pub struct Out(To);

#[derive(Debug)]
enum To {
    File(PendingFile),
    Stdout { stream: Arc<Stream>, written: u64 },
}

/// Standard output, without a buffer of its own: what comes are blocks.
#[derive(Debug)]
struct Stream {
    file: File,
    /// Something was written, or is about to be.
    begun: AtomicBool,
    /// Nothing more may come.
    closed: AtomicBool,
    /// Something could not be written.
    failed: AtomicBool,
    /// Its reader wants no more.
    gone: AtomicBool,
}

impl Stream {
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        // In this order: whoever closes it looks afterwards whether it was begun, so one of the two sees the other.
        self.begun.store(true, SeqCst);
        if self.closed.load(SeqCst) {
            return Err(io::Error::other("it was closed"));
        }
        let written = (&self.file).write(bytes);
        match &written {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                self.failed.store(true, SeqCst);
                if error.kind() == io::ErrorKind::BrokenPipe {
                    self.gone.store(true, SeqCst);
                }
            }
            Ok(_) => {}
        }
        written
    }
}

/// Standard output, and how to know what became of it when it was given away.
#[derive(Debug)]
pub struct Stdout(Arc<Stream>);

impl Stdout {
    /// That of this process.
    ///
    /// # Errors
    /// It is closed.
    pub fn new() -> Result<Stdout, Error> {
        let stream = io::stdout().as_fd().try_clone_to_owned();
        let stream = stream.map_err(|source| Error::Stdout { source })?;
        Ok(Stdout(Arc::new(Stream {
            file: stream.into(),
            begun: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            gone: AtomicBool::new(false),
        })))
    }

    /// It as a place to write to.
    pub fn out(&self) -> Out {
        Out(To::Stdout {
            stream: Arc::clone(&self.0),
            written: 0,
        })
    }

    /// Whether its reader wants no more: `head` has seen enough.
    pub fn is_gone(&self) -> bool {
        self.0.gone.load(SeqCst)
    }

    /// Whether something could not be written: what is there may break off anywhere.
    pub fn has_failed(&self) -> bool {
        self.0.failed.load(SeqCst)
    }

    /// Whether anything was written, or may have been.
    pub fn has_output(&self) -> bool {
        self.0.begun.load(SeqCst)
    }

    /// Lets nothing more come but what is being written. Whether anything was, or may have been.
    pub fn close(&self) -> bool {
        self.0.closed.store(true, SeqCst);
        self.has_output()
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
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            To::File(file) => file.write(bytes),
            To::Stdout { stream, written } => {
                let count = stream.write(bytes)?;
                *written += count as u64;
                Ok(count)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            To::File(file) => file.flush(),
            To::Stdout { .. } => Ok(()),
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
