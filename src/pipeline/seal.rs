//! Encrypting an archive with age.
//!
//! What is slow about a passphrase, scrypt, is done when the [`Seal`] is made: before a server is asked for a dump,
//! so that no fork waits for it.

use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;

use age::secrecy::SecretString;

use super::keys::scrypt_alone;
use crate::config::{Encryption, PassphraseError, SecretError, SecretSource, judge_passphrase};
use crate::failure::{Failure, Kind};
use crate::secret::Secret;

/// The work factor of passphrases: 2^17 rounds take 128 MiB of memory and less than a second, once a backup.
pub const WORK_FACTOR: u8 = 17;

/// What encrypts one archive: a file key of its own, wrapped already for those who may read it.
pub struct Seal {
    encryptor: age::Encryptor,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal")
    }
}

/// Why an archive cannot be encrypted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The passphrase cannot be had.
    #[error(transparent)]
    Passphrase(#[from] SecretError),
    /// The passphrase is none that could be given again.
    #[error("the passphrase for backups cannot be used: {0}")]
    Unfit(#[from] PassphraseError),
    /// The recipients are refused.
    #[error("the archive cannot be encrypted to these recipients: {0}")]
    Recipients(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match error {
            Error::Passphrase(error) => error.into(),
            error @ (Error::Unfit(_) | Error::Recipients(_)) => {
                Failure::new(Kind::Config, error.to_string())
            }
        }
    }
}

impl Seal {
    /// What the configuration wants; `None` where it wants nothing. Blocks for a while where there is a passphrase.
    ///
    /// # Errors
    /// When the passphrase cannot be read, or would not be taken for one when the backup is read back.
    pub fn new(encryption: &Encryption) -> Result<Option<Seal>, Error> {
        let encryptor = match encryption {
            Encryption::None => return Ok(None),
            Encryption::Recipients(recipients) => age::Encryptor::with_recipients(
                recipients
                    .iter()
                    .map(|recipient| recipient.key() as &dyn age::Recipient),
            ),
            Encryption::Passphrase(source) => {
                let passphrase = SecretString::from(passphrase(source)?.expose().to_owned());
                let mut recipient = age::scrypt::Recipient::new(passphrase);
                recipient.set_work_factor(WORK_FACTOR);
                let _alone = scrypt_alone();
                age::Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient))
            }
        };
        let encryptor = encryptor.map_err(|error| Error::Recipients(error.to_string()))?;
        Ok(Some(Seal { encryptor }))
    }
}

/// Finds out whether [`Seal::new`] would succeed, without its work.
///
/// # Errors
/// When the passphrase cannot be read, or would not be taken for one when the backup is read back.
pub fn judge(encryption: &Encryption) -> Result<(), Error> {
    match encryption {
        Encryption::Passphrase(source) => passphrase(source).map(drop),
        Encryption::None | Encryption::Recipients(_) => Ok(()),
    }
}

fn passphrase(source: &SecretSource) -> Result<Secret, Error> {
    let passphrase = source.read()?;
    judge_passphrase(&passphrase)?;
    Ok(passphrase)
}

/// What takes the bytes of an archive: as they are, or encrypted on their way.
pub(super) enum Sink<W: Write> {
    Open(Shared<W>),
    Sealed(Box<age::stream::StreamWriter<Shared<W>>>, Shared<W>),
}

/// A writer that can be asked for while age holds it.
pub(super) struct Shared<W>(Rc<RefCell<W>>);

impl<W> Clone for Shared<W> {
    fn clone(&self) -> Shared<W> {
        Shared(Rc::clone(&self.0))
    }
}

impl<W> Shared<W> {
    fn new(inner: W) -> Shared<W> {
        Shared(Rc::new(RefCell::new(inner)))
    }
}

impl<W: Write> Write for Shared<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.borrow_mut().flush()
    }
}

impl<W: Write> Sink<W> {
    /// Begins; the header of an encrypted archive is written at once, and `header` is told of it.
    pub(super) fn start(
        inner: W,
        seal: Option<Seal>,
        header: impl FnOnce(&W),
    ) -> io::Result<Sink<W>> {
        let shared = Shared::new(inner);
        Ok(match seal {
            None => Sink::Open(shared),
            Some(seal) => {
                let writer = seal.encryptor.wrap_output(shared.clone())?;
                header(&shared.0.borrow());
                Sink::Sealed(Box::new(writer), shared)
            }
        })
    }

    pub(super) fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Sink::Open(inner) => inner.write_all(data),
            Sink::Sealed(writer, _) => writer.write_all(data),
        }
    }

    /// Ends the encryption, and gives the writer back.
    pub(super) fn finish(self) -> io::Result<W> {
        let shared = match self {
            Sink::Open(shared) => shared,
            Sink::Sealed(writer, shared) => {
                drop(writer.finish()?);
                shared
            }
        };
        Rc::try_unwrap(shared.0)
            .map(RefCell::into_inner)
            .map_err(|_| io::Error::other("the archive is still being written"))
    }
}
