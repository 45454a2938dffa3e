//! Where the configuration is looked for, and what can be wrong with it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::mistake::Mistakes;
use super::name::Name;
use super::reader::nearest;
use crate::failure::{Failure, Kind};

/// The file of the host.
const OF_THE_HOST: &str = "/etc/rdbkeeper/rdbkeeper.toml";

/// The file of the folder.
const OF_THE_FOLDER: &str = "rdbkeeper.toml";

/// The variable that names a file.
const VARIABLE: &str = "RDBKEEPER_CONFIG";

/// Why there is no configuration to work with.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that was named is not there.
    #[error("there is no configuration {}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// Who named it.
        named_by: &'static str,
    },
    /// A file is there and cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It can be read, and holds mistakes.
    #[error("{0}")]
    Mistakes(Mistakes),
    /// Without a configuration, nothing says where backups could lie.
    #[error(
        "there is no configuration, and neither XDG_STATE_HOME nor HOME says where backups could lie"
    )]
    NoHome,
    /// A database that is not configured was asked for.
    #[error("no database `{name}` is configured")]
    UnknownDatabase {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<Name>,
    },
    /// A storage that is not configured was asked for.
    #[error("no storage `{name}` is configured")]
    UnknownStorage {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<Name>,
    },
}

/// The first configuration there is, read; `None` when there is none and none was named.
pub(super) fn find(
    named: Option<&Path>,
    environment: &Environment,
) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let by_variable = environment.get_path(VARIABLE);
    let named = match (named, &by_variable) {
        (Some(path), _) => Some((path, "--config")),
        (None, Some(path)) => Some((path.as_path(), "$RDBKEEPER_CONFIG")),
        (None, None) => None,
    };
    if let Some((path, named_by)) = named {
        let path = environment.folder().join(path);
        return match read(&path)? {
            Some(text) => Ok(Some((path, text))),
            None => Err(ConfigError::Missing { path, named_by }),
        };
    }
    for path in [
        environment.folder().join(OF_THE_FOLDER),
        PathBuf::from(OF_THE_HOST),
    ] {
        if let Some(text) = read(&path)? {
            return Ok(Some((path, text)));
        }
    }
    Ok(None)
}

/// `None`: it is not there.
fn read(path: &Path) -> Result<Option<String>, ConfigError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        }),
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        let failure = Failure::new(Kind::Config, error.to_string());
        match error {
            ConfigError::Missing { named_by, .. } => failure.hint(format!(
                "it is named by {named_by}; correct that, or create the file"
            )),
            ConfigError::Unreadable { source, .. } => failure
                .caused_by(&source)
                .hint("give its user the right to read it, or name another file with --config"),
            ConfigError::Mistakes(mistakes) => {
                let failure = mistakes.texts().fold(failure, Failure::cause);
                failure.hint(
                    "docs/configuration.md tells every key; config/rdbkeeper.toml shows them all",
                )
            }
            ConfigError::NoHome => {
                failure.hint("set HOME, or write a configuration and name it with --config")
            }
            ConfigError::UnknownDatabase { name, known } => unknown(failure, &name, &known),
            ConfigError::UnknownStorage { name, known } => unknown(failure, &name, &known),
        }
    }
}

fn unknown(mut failure: Failure, name: &str, known: &[Name]) -> Failure {
    failure.kind = Kind::Usage;
    let all: Vec<&str> = known.iter().map(Name::as_str).collect();
    match nearest(name, all.iter().copied()) {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None => failure.hint(format!("configured are: {}", all.join(", "))),
    }
}
