//! Reading a backup, or any RDB file, from its first byte to its last, with every check on the way.
//!
//! A handler sees the events while the file is read, before it is known to be whole: what it does
//! must be harmless until the reading has succeeded.

use std::convert::Infallible;
use std::sync::OnceLock;

use crc_fast::CrcAlgorithm;
use tokio::runtime::Handle;

use crate::catalog::{self, selector::Subject};
use crate::failure::{Failure, Kind};
use crate::meter::Meter;
use crate::pipeline::inbound::{self, Unpacked, check_digest, unpack};
use crate::pipeline::keys::{HEADER_LIMIT, KeyError, Keys, OpenError};
use crate::pipeline::sha256;
use crate::rdb::{FileError, Handler, Report, ScanError, Scanner};

mod keys;

pub use keys::{Unread, damaged_value, read_keys};

/// What a whole reading proved.
#[derive(Clone, Debug)]
pub struct Whole {
    /// The file's structure.
    pub report: Report,
    /// Its bytes; the digests were compared when there is a manifest.
    pub unpacked: Unpacked,
}

/// What the first of several readings of one backup proved: how many plain bytes there are, and their CRC-64/NVME. By the CRC-64
/// of Redis all files of one length that end with their own are alike.
#[derive(Debug, Default)]
pub struct Proven(OnceLock<(u64, u64)>);

/// What an error of reading is about.
#[derive(Clone, Debug)]
pub struct About {
    /// The backup, for people.
    pub subject: String,
    /// Whether it is a backup of a storage, and not a file that somebody brought.
    pub stored: bool,
    /// Whom it is encrypted to, where a manifest says so.
    pub recipients: Vec<String>,
}

/// Why a backup could not be read whole.
#[derive(Debug, thiserror::Error)]
pub enum Error<E> {
    /// It could not be opened.
    #[error(transparent)]
    Open(#[from] catalog::Error),
    /// Its bytes are not in order.
    #[error("{} cannot be read back", about.subject)]
    Read {
        /// Of what.
        about: Box<About>,
        /// What was found.
        error: inbound::Error<ScanError<E>>,
    },
    /// The work was stopped from outside.
    #[error("reading was interrupted")]
    Panicked,
}

/// Reads all of it on the calling thread, which must be one that may block, within a runtime. Of several readings with one
/// `proven` only the first makes digests: the later ones have to be of the same bytes, and everything else is checked.
pub fn read<H: Handler>(
    runtime: &Handle,
    subject: &Subject,
    keys: &Keys,
    handler: &mut H,
    meter: &Meter,
    proven: Option<&Proven>,
) -> Result<Whole, Error<H::Error>> {
    let failed = |error| failed(subject, error);
    let (stored, expected) = runtime.block_on(subject.open())?;
    let expected = expected.filter(|_| proven.is_none_or(|proven| proven.0.get().is_none()));
    let mut scanner = Scanner::new();
    let mut crc = proven.map(|_| crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme));
    let unpacked = unpack(stored, expected.as_ref(), keys, |piece| {
        meter.add_bytes(piece.len() as u64);
        if let Some(crc) = &mut crc {
            crc.update(piece);
        }
        scanner.feed(piece, handler)
    })
    .map_err(failed)?;
    let report = scanner
        .finish(handler)
        .map_err(|error| failed(inbound::Error::Consumer(error)))?;
    if let (Some(proven), Some(crc)) = (proven, crc) {
        let is = (unpacked.plain_bytes, crc.finalize());
        if *proven.0.get_or_init(|| is) != is {
            return Err(failed(inbound::Error::Damaged(
                "it is not what it was when it was checked".to_owned(),
            )));
        }
    }
    Ok(Whole { report, unpacked })
}

/// The same for async callers: on a thread for blocking work.
///
/// # Errors
/// [`Error::Panicked`] when that thread ended without an answer.
pub async fn read_async<H>(
    subject: Subject,
    keys: Keys,
    mut handler: H,
    meter: Meter,
) -> Result<(H, Whole), Error<H::Error>>
where
    H: Handler + Send + 'static,
    H::Error: Send + 'static,
{
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        let whole = read(&runtime, &subject, &keys, &mut handler, &meter, None)?;
        Ok((handler, whole))
    })
    .await
    .unwrap_or(Err(Error::Panicked))
}

fn failed<E>(subject: &Subject, error: inbound::Error<ScanError<E>>) -> Error<E> {
    let (stored, recipients) = match subject {
        Subject::Stored(backup) => (true, backup.manifest.data.recipients.clone()),
        Subject::File(_) => (false, Vec::new()),
    };
    let about = About {
        subject: subject.describe(),
        stored,
        recipients,
    };
    Error::Read {
        about: Box::new(about),
        error,
    }
}

/// Proves that one of the keys opens a backup, from its first bytes alone: before anything else is tried. One that is
/// not encrypted needs none.
///
/// # Errors
/// [`Kind::Key`] when none does; [`Kind::Damaged`] when these bytes are not what was written.
pub async fn may_read(subject: &Subject, keys: &Keys) -> Result<(), Failure> {
    Ok(prove(subject, keys).await?)
}

/// [`may_read`], with the error as this room has it.
pub async fn prove(subject: &Subject, keys: &Keys) -> Result<(), Error<Infallible>> {
    let failed = |error| failed(subject, error);
    let head = match subject {
        Subject::Stored(backup) => {
            let data = &backup.manifest.data;
            match data.encryption.as_deref() {
                None => return Ok(()),
                Some("age") => {}
                Some(other) => {
                    let error = KeyError::Newer {
                        encryption: other.to_owned(),
                    };
                    return Err(failed(inbound::Error::Key(error)));
                }
            }
            let key = backup
                .place
                .key(&data.object)
                .map_err(catalog::Error::from)?;
            let store = backup.place.store();
            let head = store.read_range(&key, 0..HEADER_LIMIT as u64).await;
            let head = head.map_err(|error| failed(inbound::Error::Storage(error)))?;
            if let (Some(length), Some(digest)) = (data.header_bytes, &data.header_sha256) {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let bytes = head.get(..length).unwrap_or(&head);
                if sha256(bytes) != *digest {
                    let why = "the SHA-256 of its age header is not the one in its manifest";
                    return Err(failed(inbound::Error::Damaged(why.to_owned())));
                }
            }
            head
        }
        Subject::File(file) => {
            let mut reader = file.read();
            let mut head = Vec::new();
            while head.len() < HEADER_LIMIT {
                let chunk = reader.next().await;
                let chunk = chunk.map_err(|error| failed(inbound::Error::Storage(error)))?;
                if chunk.is_empty() {
                    break;
                }
                head.extend_from_slice(&chunk);
            }
            if !inbound::is_encrypted(&head) {
                return Ok(());
            }
            head.into()
        }
    };
    let keys = keys.clone();
    let proven = tokio::task::spawn_blocking(move || keys.prove(&head)).await;
    match proven.unwrap_or_else(|_| Err(OpenError::Damaged("the decryptor panicked".to_owned()))) {
        Ok(()) => Ok(()),
        Err(OpenError::Damaged(why)) => Err(failed(inbound::Error::Damaged(why))),
        Err(OpenError::Key(error)) => Err(failed(inbound::Error::Key(error))),
    }
}

/// Compares a backup's stored bytes with its manifest: all that can be done without a key. Of a file without a
/// manifest nothing can be said.
pub async fn digest_async(subject: Subject, meter: Meter) -> Result<(), Error<Infallible>> {
    let (stored, expected) = subject.open().await?;
    let Some(expected) = expected else {
        return Ok(());
    };
    let compared = tokio::task::spawn_blocking(move || {
        check_digest(stored, &expected, |bytes| meter.add_bytes(bytes))
    });
    match compared.await {
        Ok(compared) => compared.map_err(|error| failed(&subject, error)),
        Err(_) => Err(Error::Panicked),
    }
}

impl<E: Into<Failure>> From<Error<E>> for Failure {
    fn from(error: Error<E>) -> Failure {
        let (about, error) = match error {
            Error::Open(error) => return error.into(),
            Error::Panicked => {
                return Failure::new(Kind::Failed, "reading the backup was cut short");
            }
            Error::Read { about, error } => (*about, error),
        };
        let About {
            subject,
            stored,
            recipients,
        } = about;
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
            inbound::Error::Key(error) => of_key(&subject, &recipients, error),
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

/// What to do about a key, and whose it would be.
fn of_key(subject: &str, recipients: &[String], error: KeyError) -> Failure {
    const WHERE: &str = "in the configuration, `identity_file` of its database (or of [defaults]) names the file with the age identity; on the command line, --identity FILE";
    const WHERE_PASSPHRASE: &str = "in the configuration, `passphrase_file` of its database (or of [defaults]) names the file with the passphrase; on the command line, --identity FILE";
    let failure = Failure::new(Kind::Key, format!("{subject} cannot be decrypted"));
    let mut failure = failure.cause(error.to_string());
    if !recipients.is_empty() {
        failure = failure.cause(format!("it is encrypted to {}", recipients.join(", ")));
    }
    match error {
        KeyError::Missing { passphrase } | KeyError::OtherKind { passphrase } => {
            failure.hint(if passphrase { WHERE_PASSPHRASE } else { WHERE })
        }
        KeyError::Wrong {
            passphrase,
            problems,
            ..
        } => {
            for problem in problems {
                failure = failure.cause(format!("another key cannot be had: {problem}"));
            }
            failure.hint(if passphrase { WHERE_PASSPHRASE } else { WHERE })
        }
        KeyError::Unusable { .. } => {
            failure.hint("a relative name in the configuration is looked for in $CREDENTIALS_DIRECTORY, then beside the configuration; --identity FILE names another file")
        }
        KeyError::Excessive { .. }
        | KeyError::Format
        | KeyError::LongHeader
        | KeyError::Armored => failure
            .hint("decrypt it with the newest `age -d`, and name the result by its path"),
        KeyError::Newer { .. } => failure.hint("use the newest rdbkeeper"),
    }
}

impl From<std::convert::Infallible> for Failure {
    fn from(never: std::convert::Infallible) -> Failure {
        match never {}
    }
}
