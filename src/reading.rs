//! Reading a backup, or any RDB file, from its first byte to its last, with every check on the way.
//!
//! A handler sees the events while the file is read, before it is known to be whole: what it does
//! must be harmless until the reading has succeeded.

use tokio::runtime::Handle;

use crate::catalog::{self, selector::Subject};
use crate::failure::{Failure, Kind};
use crate::meter::Meter;
use crate::pipeline::inbound::{self, Unpacked, unpack};
use crate::rdb::{FileError, Handler, Report, ScanError, Scanner};

/// What a whole reading proved.
#[derive(Clone, Debug)]
pub struct Whole {
    /// The file's structure.
    pub report: Report,
    /// Its bytes; the digests were compared when there is a manifest.
    pub unpacked: Unpacked,
}

/// Why a backup could not be read whole.
#[derive(Debug, thiserror::Error)]
pub enum Error<E> {
    /// It could not be opened.
    #[error(transparent)]
    Open(#[from] catalog::Error),
    /// Its bytes are not in order.
    #[error("{subject} cannot be read back")]
    Read {
        /// The backup, for people.
        subject: String,
        /// Whether it is a backup of a storage, and not a file that somebody brought.
        stored: bool,
        /// What was found.
        error: inbound::Error<ScanError<E>>,
    },
    /// The work was stopped from outside.
    #[error("reading was interrupted")]
    Panicked,
}

/// Reads all of it on the calling thread, which must be one that may block, within a runtime.
pub fn read<H: Handler>(
    runtime: &Handle,
    subject: &Subject,
    handler: &mut H,
    meter: &Meter,
) -> Result<Whole, Error<H::Error>> {
    let failed = |error| Error::Read {
        subject: subject.describe(),
        stored: matches!(subject, Subject::Stored(_)),
        error,
    };
    let (stored, expected) = runtime.block_on(subject.open())?;
    let mut scanner = Scanner::new();
    let unpacked = unpack(stored, expected.as_ref(), |piece| {
        meter.add_bytes(piece.len() as u64);
        scanner.feed(piece, handler)
    })
    .map_err(failed)?;
    let report = scanner
        .finish(handler)
        .map_err(|error| failed(inbound::Error::Consumer(error)))?;
    Ok(Whole { report, unpacked })
}

/// The same for async callers: on a thread for blocking work.
///
/// # Errors
/// [`Error::Panicked`] when that thread ended without an answer.
pub async fn read_async<H>(
    subject: Subject,
    mut handler: H,
    meter: Meter,
) -> Result<(H, Whole), Error<H::Error>>
where
    H: Handler + Send + 'static,
    H::Error: Send + 'static,
{
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        let whole = read(&runtime, &subject, &mut handler, &meter)?;
        Ok((handler, whole))
    })
    .await
    .unwrap_or(Err(Error::Panicked))
}

impl<E: Into<Failure>> From<Error<E>> for Failure {
    fn from(error: Error<E>) -> Failure {
        let (subject, stored, error) = match error {
            Error::Open(error) => return error.into(),
            Error::Panicked => {
                return Failure::new(Kind::Failed, "reading the backup was cut short");
            }
            Error::Read {
                subject,
                stored,
                error,
            } => (subject, stored, error),
        };
        let hint = match stored {
            true => "`rdbkeeper backup verify --all` tells which of the others are whole",
            false => {
                "take another copy of the file, or one of the backups that `rdbkeeper backup list` shows"
            }
        };
        let damaged = |why: String| {
            Failure::new(Kind::Damaged, format!("{subject} is damaged"))
                .cause(why)
                .hint(hint)
        };
        match error {
            inbound::Error::Storage(error) => {
                let failure = Failure::from(error);
                match failure.kind {
                    // The listing had it, or the person named it: its data is gone.
                    Kind::NotFound => damaged(failure.message),
                    _ => failure,
                }
            }
            inbound::Error::Damaged(why) => damaged(why),
            inbound::Error::Encrypted => {
                Failure::new(Kind::Failed, format!("{subject} is encrypted"))
                    .cause("this version reads no encrypted backups")
                    .hint("decrypt it with `age -d -i KEY FILE`, and name the result by its path")
            }
            error @ inbound::Error::Thread(_) => {
                Failure::new(Kind::Failed, format!("{subject} cannot be read"))
                    .cause(error.to_string())
            }
            inbound::Error::Consumer(ScanError::File(error @ FileError::NotRdb)) => {
                Failure::new(Kind::Damaged, format!("{subject} is no RDB file"))
                    .cause(error.to_string())
                    .hint(hint)
            }
            inbound::Error::Consumer(ScanError::File(error)) => damaged(error.to_string()),
            inbound::Error::Consumer(ScanError::Handler(error)) => error.into(),
        }
    }
}

impl From<std::convert::Infallible> for Failure {
    fn from(never: std::convert::Infallible) -> Failure {
        match never {}
    }
}
