//! Files that the configuration names: secrets and certificates, where they are looked for, and reading them.
//!
//! They are looked for and read when they are needed, not when the configuration is: an administrator who
//! lists backups by hand has no `$CREDENTIALS_DIRECTORY`, and needs no password.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use crate::failure::{Failure, Kind};
use crate::secret::Secret;

/// No secret is longer than this, in bytes: a path that names a large file by mistake is not read whole.
const LONGEST_SECRET: u64 = 64 * 1024;

/// A file that the configuration names. An absolute path is what it says; a relative one is looked for in
/// `$CREDENTIALS_DIRECTORY`, then beside the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRef {
    candidates: Vec<PathBuf>,
}

impl FileRef {
    /// Refers to `named`, as it stands in a configuration that lies in `beside`.
    pub fn new(named: &Path, environment: &Environment, beside: &Path) -> FileRef {
        let credentials = environment
            .get_path("CREDENTIALS_DIRECTORY")
            .filter(|_| named.is_relative());
        let mut candidates: Vec<PathBuf> = credentials
            .map(|folder| folder.join(named))
            .into_iter()
            .collect();
        // Joining an absolute path gives that path.
        candidates.push(beside.join(named));
        FileRef { candidates }
    }

    /// Refers to a file by its path alone, as a command line does.
    pub fn at(path: &Path) -> FileRef {
        FileRef {
            candidates: vec![path.to_owned()],
        }
    }

    /// Where the file is.
    ///
    /// # Errors
    /// When it is in none of the places; they are all named.
    pub fn find(&self) -> Result<&Path, SecretError> {
        let found = self
            .candidates
            .iter()
            .find(|path| fs::metadata(path).is_ok());
        let found = found.map(PathBuf::as_path);
        found.ok_or_else(|| {
            // A folder that may not be entered hides the file: say that rather than "not found".
            for path in &self.candidates {
                match fs::metadata(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return SecretError::Unreadable {
                            path: path.clone(),
                            source: error,
                        };
                    }
                    _ => {}
                }
            }
            SecretError::Missing {
                tried: self.candidates.clone(),
            }
        })
    }

    /// Reads the file as a secret: UTF-8, one newline at the end trimmed. A file that everyone may read is
    /// warned of in the log.
    ///
    /// # Errors
    /// When it is missing, not readable, empty, too long, or not text.
    pub fn read_secret(&self) -> Result<Secret, SecretError> {
        let path = self.find()?;
        let unreadable = |source| SecretError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let file = fs::File::open(path).map_err(unreadable)?;
        if file.metadata().map_err(unreadable)?.mode() & 0o004 != 0 {
            tracing::warn!(path = %path.display(), "this file holds a secret, and every user may read it; chmod o-r would end that");
        }
        let mut bytes = Vec::new();
        file.take(LONGEST_SECRET + 1)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        let not_a_secret = |why| SecretError::NotASecret {
            path: path.to_owned(),
            why,
        };
        if bytes.len() as u64 > LONGEST_SECRET {
            return Err(not_a_secret("it is longer than 64 KiB"));
        }
        let text = String::from_utf8(bytes).map_err(|_| not_a_secret("it is not UTF-8 text"))?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() {
            return Err(not_a_secret("it is empty"));
        }
        Ok(Secret::new(text))
    }
}

/// A secret of the configuration: written there (`password`), or in a file (`password_file`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// As it stands in the configuration.
    Inline(Secret),
    /// To be read when it is needed.
    File(FileRef),
}

impl SecretSource {
    /// The secret itself.
    ///
    /// # Errors
    /// When it is in a file that cannot be read; see [`FileRef::read_secret`].
    pub fn read(&self) -> Result<Secret, SecretError> {
        match self {
            SecretSource::Inline(secret) => Ok(secret.clone()),
            SecretSource::File(file) => file.read_secret(),
        }
    }
}

/// Why a file that the configuration names cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// In none of the places.
    #[error("the file is not there: {}", list(tried))]
    Missing {
        /// Where it was looked for.
        tried: Vec<PathBuf>,
    },
    /// There, and not readable.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Readable, and not a secret.
    #[error("{} holds no secret: {why}", path.display())]
    NotASecret {
        /// The file.
        path: PathBuf,
        /// What is wrong with its content.
        why: &'static str,
    },
}

fn list(paths: &[PathBuf]) -> String {
    let shown: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    shown.join(", nor ")
}

impl From<SecretError> for Failure {
    fn from(error: SecretError) -> Failure {
        let hint = match &error {
            SecretError::Missing { .. } => {
                "a relative path is looked for in $CREDENTIALS_DIRECTORY, then beside the configuration"
            }
            SecretError::Unreadable { .. } => {
                "run as the user who may read it, or give it the right"
            }
            SecretError::NotASecret { .. } => "put the secret into it, alone, as one line",
        };
        Failure::new(
            Kind::Config,
            "a file that the configuration names cannot be used",
        )
        .caused_by(&error)
        .hint(hint)
    }
}
