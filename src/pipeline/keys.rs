//! The keys that open encrypted archives: where they are, read when the first encrypted archive is met.
//!
//! Backing up needs none of this, and a host that only backs up need not have a private key.

use std::cell::Cell;
use std::fmt;
use std::io::{self, BufRead, Read};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use age::DecryptError;
use age::secrecy::{ExposeSecret as _, SecretString};
use age::stream::StreamReader;
use age_core::format::{FileKey, Stanza};

use crate::config::{IdentityError, PassphraseError, SecretError, SecretSource};
use crate::config::{judge_passphrase, looks_like_identities, parse_identities};
use crate::secret::Secret;

/// The largest header of an age file that is read: for a few hundred recipients.
pub const HEADER_LIMIT: usize = 32 << 10;

/// The largest work factor of a passphrase that is tried: 2^20 rounds take 1 GiB of memory.
const MOST_WORK: u8 = 20;

/// What stands in a source of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// age identities, several perhaps.
    Identities,
    /// A passphrase.
    Passphrase,
    /// One of both, as it turns out.
    Either,
}

/// A place that keys come from.
#[derive(Clone, Debug)]
pub struct KeySource {
    /// What it holds.
    pub holds: Holds,
    /// Where.
    pub secret: SecretSource,
    /// What it is called, for people: ``--identity``, ``the `identity_file` of sessions``.
    pub name: String,
}

/// The keys that may open an archive. Cheap to clone; what was read and found out is shared by the clones.
#[derive(Clone, Default)]
pub struct Keys(Arc<Inner>);

#[derive(Default)]
struct Inner {
    sources: Vec<KeySource>,
    loaded: OnceLock<Loaded>,
    /// The key of the last archive, so that the next reading of it does not pay for scrypt again.
    last: Mutex<Option<(Vec<Stanza>, FileKey)>>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.sources.iter().map(|source| &source.name))
            .finish()
    }
}

/// What the sources held.
#[derive(Default)]
struct Loaded {
    identities: Vec<age::x25519::Identity>,
    passphrases: Vec<SecretString>,
    /// What of them could not be used, and why.
    problems: Vec<String>,
}

/// Why an encrypted archive cannot be opened, though nothing is known to be wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is none that could.
    #[error("{}", match passphrase {
        true => "it is encrypted with a passphrase, and none is given",
        false => "it is encrypted, and no identity is given that could open it",
    })]
    Missing {
        /// Whether a passphrase is wanted, and no identity.
        passphrase: bool,
    },
    /// What `--identity` holds is of the other kind.
    #[error("{}", match passphrase {
        true => "it is encrypted with a passphrase, and what is given is an age identity",
        false => "it is encrypted to public keys, and what is given is a passphrase, not an age identity",
    })]
    OtherKind {
        /// Whether a passphrase is wanted.
        passphrase: bool,
    },
    /// Those that could are in files that cannot be used.
    #[error("the key cannot be had: {}", problems.join("; "))]
    Unusable {
        /// Why, for each.
        problems: Vec<String>,
    },
    /// None of those that are here fits.
    #[error("{}", wrong(*passphrase, tried))]
    Wrong {
        /// Whether a passphrase is wanted.
        passphrase: bool,
        /// The public keys of the identities that were tried.
        tried: Vec<String>,
        /// Sources that could not be used.
        problems: Vec<String>,
    },
    /// Trying the passphrase would take too much memory.
    #[error(
        "its passphrase has a work factor of 2^{work}, which takes more memory than the 1 GiB of 2^{MOST_WORK}"
    )]
    Excessive {
        /// The factor's exponent.
        work: u8,
    },
    /// A later version of the format.
    #[error("it is encrypted in a later version of age's format")]
    Format,
    /// More recipients than anyone has.
    #[error("its age header is longer than the {} KiB that are read", HEADER_LIMIT >> 10)]
    LongHeader,
    /// Written as text.
    #[error("it is an age file written as text (`age --armor`), which is not read here")]
    Armored,
    /// Encrypted by something that this version does not know.
    #[error(
        "its manifest says that it is encrypted with `{encryption}`: a newer rdbkeeper made it"
    )]
    Newer {
        /// What the manifest says.
        encryption: String,
    },
}

fn wrong(passphrase: bool, tried: &[String]) -> String {
    match (passphrase, tried) {
        (true, _) => "the passphrase is not the one that it is encrypted with".to_owned(),
        (false, [one]) => format!("it is not encrypted to the key that is here, {one}"),
        (false, all) => format!(
            "it is encrypted to none of the keys that are here, {}",
            all.join(", ")
        ),
    }
}

/// Why the encryption of an archive could not be undone.
#[derive(Debug)]
pub enum OpenError {
    /// Its header is not whole.
    Damaged(String),
    /// A matter of keys.
    Key(KeyError),
}

impl Keys {
    /// The keys of these sources. None is read yet.
    pub fn new(sources: Vec<KeySource>) -> Keys {
        Keys(Arc::new(Inner {
            sources,
            ..Inner::default()
        }))
    }

    /// Whether there is no source of keys at all.
    pub fn is_empty(&self) -> bool {
        self.0.sources.is_empty()
    }

    /// Whether a person brought them for this backup.
    fn is_given(&self) -> bool {
        let mut sources = self.0.sources.iter();
        sources.any(|source| source.holds == Holds::Either)
    }

    /// Reads all sources now; gives what is wrong with them.
    pub fn problems(&self) -> &[String] {
        &self.loaded().problems
    }

    /// The public keys of the identities that they hold. Reads all sources.
    pub fn public_keys(&self) -> Vec<String> {
        let identities = self.loaded().identities.iter();
        identities
            .map(|identity| identity.to_public().to_string())
            .collect()
    }

    fn loaded(&self) -> &Loaded {
        self.0.loaded.get_or_init(|| load(&self.0.sources))
    }

    /// Finds out whether one of them opens the age file that begins with these bytes. Blocks: a passphrase takes a while.
    ///
    /// # Errors
    /// When none does, or the header is not whole.
    pub fn prove(&self, head: &[u8]) -> Result<(), OpenError> {
        self.open(head).map(drop)
    }

    /// Whether the key of the file that begins with these bytes is known without asking a passphrase again.
    #[cfg(test)]
    pub(super) fn has_open(&self, head: &[u8]) -> bool {
        let forgetful = Keys::new(Vec::new());
        let last = self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last
            .as_ref()
            .map(|(stanzas, key)| (stanzas.iter().map(copy_stanza).collect(), copy(key)));
        *forgetful
            .0
            .last
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = known;
        forgetful.prove(head).is_ok()
    }

    /// Undoes the encryption of an age file.
    pub(super) fn open<R: BufRead>(&self, input: R) -> Result<StreamReader<Bounded<R>>, OpenError> {
        let bound = Rc::new(Cell::new(Some(HEADER_LIMIT)));
        let input = Bounded {
            inner: input,
            left: Rc::clone(&bound),
        };
        let told = |error| self.told(error, false);
        let decryptor = age::Decryptor::new_buffered(input).map_err(told)?;
        bound.set(None);
        let passphrase = decryptor.is_scrypt();
        let ring = Ring {
            keys: &self.0,
            loaded: self.loaded(),
        };
        decryptor
            .decrypt(std::iter::once(&ring as &dyn age::Identity))
            .map_err(|error| self.told(error, passphrase))
    }

    fn told(&self, error: DecryptError, passphrase: bool) -> OpenError {
        let damaged = |why: &str| OpenError::Damaged(format!("its age header {why}"));
        match error {
            DecryptError::InvalidHeader => damaged("is malformed"),
            DecryptError::InvalidMac => damaged("does not fit its checksum"),
            DecryptError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                damaged("is cut short")
            }
            DecryptError::Io(error)
                if error.get_ref().is_some_and(|error| error.is::<TooLong>()) =>
            {
                OpenError::Key(KeyError::LongHeader)
            }
            DecryptError::Io(error) => damaged(&format!("cannot be read: {error}")),
            DecryptError::UnknownFormat => OpenError::Key(KeyError::Format),
            DecryptError::ExcessiveWork { required, .. } => {
                OpenError::Key(KeyError::Excessive { work: required })
            }
            _ => OpenError::Key(self.no_key(passphrase)),
        }
    }

    fn no_key(&self, passphrase: bool) -> KeyError {
        let none = Loaded::default();
        let loaded = self.0.loaded.get().unwrap_or(&none);
        let problems = loaded.problems.clone();
        let tried: Vec<String> = match passphrase {
            true => Vec::new(),
            false => loaded
                .identities
                .iter()
                .map(|identity| identity.to_public().to_string())
                .collect(),
        };
        let some = !tried.is_empty() || passphrase && !loaded.passphrases.is_empty();
        match (some, problems.is_empty()) {
            (true, _) => KeyError::Wrong {
                passphrase,
                tried,
                problems,
            },
            // Who names a key means it; what is configured may be for other backups.
            (false, true) if self.is_given() => KeyError::OtherKind { passphrase },
            (false, true) => KeyError::Missing { passphrase },
            (false, false) => KeyError::Unusable { problems },
        }
    }
}

fn load(sources: &[KeySource]) -> Loaded {
    let mut loaded = Loaded::default();
    for source in sources {
        if let Err(problem) = loaded.take(source) {
            loaded.problems.push(format!("{}: {problem}", source.name));
        }
    }
    loaded
}

#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("{}", with_source(.0))]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Passphrase(#[from] PassphraseError),
    #[error("it has several lines, and none of them is an age identity")]
    Neither,
}

fn with_source(error: &SecretError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl Loaded {
    fn take(&mut self, source: &KeySource) -> Result<(), Unusable> {
        let secret: Secret = source.secret.read()?;
        let identities = match source.holds {
            Holds::Identities => true,
            Holds::Passphrase => false,
            Holds::Either => looks_like_identities(&secret),
        };
        if identities {
            self.identities.extend(parse_identities(&secret)?);
            return Ok(());
        }
        if source.holds == Holds::Either && secret.expose().contains('\n') {
            return Err(Unusable::Neither);
        }
        judge_passphrase(&secret)?;
        self.passphrases
            .push(SecretString::from(secret.expose().to_owned()));
        Ok(())
    }
}

/// All keys together, as the one that the age crate asks.
struct Ring<'k> {
    keys: &'k Inner,
    loaded: &'k Loaded,
}

impl age::Identity for Ring<'_> {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        self.unwrap_stanzas(std::slice::from_ref(stanza))
    }

    fn unwrap_stanzas(&self, stanzas: &[Stanza]) -> Option<Result<FileKey, DecryptError>> {
        let mut last = self
            .keys
            .last
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((known, key)) = &*last
            && known == stanzas
        {
            return Some(Ok(copy(key)));
        }
        let found = self.unwrap(stanzas);
        if let Some(Ok(key)) = &found {
            *last = Some((stanzas.iter().map(copy_stanza).collect(), copy(key)));
        }
        found
    }
}

impl Ring<'_> {
    fn unwrap(&self, stanzas: &[Stanza]) -> Option<Result<FileKey, DecryptError>> {
        use age::Identity as _;
        for identity in &self.loaded.identities {
            if let Some(found) = identity.unwrap_stanzas(stanzas) {
                return Some(found);
            }
        }
        for passphrase in &self.loaded.passphrases {
            let _alone = scrypt_alone();
            let mut identity = age::scrypt::Identity::new(passphrase.clone());
            identity.set_max_work_factor(MOST_WORK);
            match identity.unwrap_stanzas(stanzas) {
                None | Some(Err(DecryptError::DecryptionFailed)) => {}
                found => return found,
            }
        }
        None
    }
}

/// Holds whoever wants to use scrypt back while somebody else does: each takes 128 MiB of memory and more.
pub(super) fn scrypt_alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn copy(key: &FileKey) -> FileKey {
    FileKey::init_with_mut(|copied| copied.copy_from_slice(key.expose_secret()))
}

fn copy_stanza(stanza: &Stanza) -> Stanza {
    Stanza {
        tag: stanza.tag.clone(),
        args: stanza.args.clone(),
        body: stanza.body.clone(),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("it is too long")]
struct TooLong;

/// A reader that gives no more than a bound, until that is lifted: the header of a hostile file may have no end.
pub(super) struct Bounded<R> {
    inner: R,
    left: Rc<Cell<Option<usize>>>,
}

impl<R: BufRead> BufRead for Bounded<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let buffer = self.inner.fill_buf()?;
        match self.left.get() {
            None => Ok(buffer),
            Some(0) => Err(io::Error::other(TooLong)),
            Some(left) => Ok(&buffer[..buffer.len().min(left)]),
        }
    }

    fn consume(&mut self, amount: usize) {
        self.inner.consume(amount);
        self.left
            .set(self.left.get().map(|left| left.saturating_sub(amount)));
    }
}

impl<R: BufRead> Read for Bounded<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let buffer = self.fill_buf()?;
        let n = buffer.len().min(out.len());
        out[..n].copy_from_slice(&buffer[..n]);
        self.consume(n);
        Ok(n)
    }
}
