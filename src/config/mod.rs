//! The configuration file: its shape, where it is looked for, defaults, secrets.
//!
//! TOML is parsed with the place of every value kept, and read by a small reader of our own: so that all
//! mistakes are told at once, each with its line, and an unknown key with the nearest known one. A typed
//! deserialiser would stop at the first.
//!
//! The trap: this room lies below the one that knows servers, so whether a URL is right is asked of the
//! caller ([`UrlCheck`]); and no text that leaves here may hold what stands in a `password` or a URL.

mod choices;
mod daemon;
mod database;
mod encryption;
mod environment;
mod fields;
mod locate;
mod mistake;
mod name;
mod reader;
mod retention;
mod s3;
mod secrets;
mod sessions;
mod storage;
mod telling;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub use self::choices::{ChoiceError, Compression, ForkGuard, Method};
pub use self::daemon::DaemonConfig;
pub use self::database::{DatabaseConfig, TlsConfig, UrlCheck, UrlFacts};
pub use self::encryption::{
    Encryption, IdentityError, PassphraseError, Recipient, RecipientError, judge_passphrase,
    looks_like_identities, parse_identities,
};
pub use self::environment::{Environment, ExpandError};
pub use self::locate::ConfigError;
pub use self::mistake::{Mistakes, PlacedMistake};
pub use self::name::{Name, NameError};
pub use self::retention::{Keep, Policies};
pub use self::s3::{LockMode, ObjectLock, S3Config, S3Credentials, S3Encryption};
pub use self::secrets::{FileRef, SecretError, SecretSource};
pub use self::sessions::{KeyRegex, LongTtl, MissingTtl, SessionRule, SessionStore};
pub use self::storage::StorageConfig;
pub use self::telling::{Hooks, Notify, NotifyOn, NotifyStyle};

use self::daemon::DaemonTable;
use self::database::{DatabaseTable, Settings};
use self::mistake::{About, Mistake, line_of};
use self::reader::{Located, Reading, TableReader, nearest};

/// Everything that is configured, checked, `[defaults]` merged in.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What is one for the host.
    pub daemon: DaemonConfig,
    /// The storages by name; at least one.
    pub storages: BTreeMap<Name, StorageConfig>,
    /// The databases in the order of the file; at least one.
    pub databases: Vec<DatabaseConfig>,
    /// The file it was read from; `None`: there is none, and these are the defaults.
    pub origin: Option<PathBuf>,
}

/// The name of the storage that is used when none is configured.
const DEFAULT_STORAGE: &str = "local";

impl Config {
    /// Finds the configuration and reads it: `named` (of `--config`), `$RDBKEEPER_CONFIG`,
    /// `./rdbkeeper.toml`, `/etc/rdbkeeper/rdbkeeper.toml`; with none, the zero-configuration default.
    ///
    /// # Errors
    /// When a named file is missing, one that is there cannot be read, or it holds mistakes: all of them.
    pub fn load(
        named: Option<&Path>,
        environment: &Environment,
        check: UrlCheck<'_>,
    ) -> Result<Config, ConfigError> {
        match locate::find(named, environment)? {
            Some((path, text)) => Config::parse(&path, &text, environment, check),
            None => Config::without_file(environment),
        }
    }

    /// One database `default` on this host, all its databases, kept in this user's state folder.
    ///
    /// # Errors
    /// When the user has no home.
    pub fn without_file(environment: &Environment) -> Result<Config, ConfigError> {
        let home = environment.home_of_state().ok_or(ConfigError::NoHome)?;
        let storage = own_name(DEFAULT_STORAGE);
        let database = DatabaseConfig::plain(
            own_name("default"),
            "redis://127.0.0.1:6379",
            vec![storage.clone()],
        );
        Ok(Config {
            daemon: DaemonConfig::below(&home),
            storages: BTreeMap::from([(storage, local_storage(&home))]),
            databases: vec![database],
            origin: None,
        })
    }

    /// Reads a configuration that stands in `text`; `path` is where it came from.
    ///
    /// # Errors
    /// All mistakes that it holds.
    pub fn parse(
        path: &Path,
        text: &str,
        environment: &Environment,
        check: UrlCheck<'_>,
    ) -> Result<Config, ConfigError> {
        // Relative paths hold for the process's lifetime, wherever it goes.
        let path = environment.folder().join(path);
        let folder = path.parent().unwrap_or(Path::new("/"));
        let (root, broken) = DeTable::parse_recoverable(text);
        let reading = Reading::new(environment, folder);
        let read = read_root(&reading, root.get_ref(), check);
        let mut mistakes = reading.into_mistakes();
        if !broken.is_empty() {
            mistakes = beside_syntax_errors(text, mistakes, &broken);
        }
        match read {
            Some(mut config) if mistakes.is_empty() => {
                config.origin = Some(path);
                Ok(config)
            }
            _ => Err(ConfigError::Mistakes(Mistakes::place(
                &path, text, mistakes,
            ))),
        }
    }

    /// The database of this name.
    ///
    /// # Errors
    /// Names those that are there.
    pub fn database(&self, name: &str) -> Result<&DatabaseConfig, ConfigError> {
        let mut all = self.databases.iter();
        let found = all.find(|database| database.name.as_str() == name);
        found.ok_or_else(|| ConfigError::UnknownDatabase {
            name: name.to_owned(),
            known: self
                .databases
                .iter()
                .map(|database| database.name.clone())
                .collect(),
        })
    }

    /// The storage of this name, with the name.
    ///
    /// # Errors
    /// Names those that are there.
    pub fn storage(&self, name: &str) -> Result<(&Name, &StorageConfig), ConfigError> {
        let found = self.storages.get_key_value(name);
        found.ok_or_else(|| ConfigError::UnknownStorage {
            name: name.to_owned(),
            known: self.storages.keys().cloned().collect(),
        })
    }
}

/// A name of ours, known to be one.
fn own_name(name: &'static str) -> Name {
    name.parse()
        .expect("the program's own names match the rule for names")
}

fn local_storage(home: &Path) -> StorageConfig {
    StorageConfig::Local {
        path: home.join("backups"),
    }
}

fn read_root(reading: &Reading<'_>, root: &DeTable<'_>, check: UrlCheck<'_>) -> Option<Config> {
    let reader = TableReader::new(reading, root, "the top level");
    let daemon = reader.table("daemon", "a table: [daemon]");
    let daemon = daemon.map_or_else(DaemonTable::default, |table| {
        DaemonTable::read(TableReader::new(reading, table, "[daemon]"))
    });
    let storage_is_given = reader.key_span("storage").is_some();
    let storages = reader.table("storage", "a table: [storage.NAME]");
    let mut storages =
        storages.map_or_else(BTreeMap::new, |table| storage::read_all(reading, table));
    let defaults = reader.table("defaults", "a table: [defaults]");
    let defaults = defaults.map_or_else(Settings::default, |table| {
        Settings::read_defaults(reading, table, check)
    });
    let tables = read_databases(reading, &reader, check);
    // Storages with mistakes exist: what refers to them is not a mistake of its own.
    let named = named_storages(root);
    reader.finish(&[]);

    let home = reading.environment.home_of_state();
    if !storage_is_given {
        match &home {
            Some(home) => {
                storages.insert(own_name(DEFAULT_STORAGE), local_storage(home));
            }
            None => reading.missing(
                None,
                "no [storage.NAME] is configured, and neither XDG_STATE_HOME nor HOME says where else backups could lie",
            ),
        }
    }
    let asked = tables
        .iter()
        .map(|table| &table.settings)
        .chain([&defaults]);
    for name in asked.flat_map(Settings::storages) {
        unknown_storage(reading, name, &storages, named.as_deref().unwrap_or(&[]));
    }
    unique_names(reading, &tables);

    let every: Vec<Name> = storages.keys().cloned().collect();
    if named.as_ref().is_some_and(Vec::is_empty) {
        reading.missing(None, "[storage] holds no storage; write [storage.NAME]");
    }
    let databases = tables
        .into_iter()
        .filter_map(|table| table.merge(reading, &defaults, &every))
        .collect();
    let below = home.as_deref().map(DaemonConfig::below).or_else(|| {
        // Without a home both folders have to be given.
        daemon.spool_dir.as_ref()?;
        Some(DaemonConfig::below(daemon.state_dir.as_deref()?))
    });
    let Some(below) = below else {
        reading.missing(
            None,
            "neither XDG_STATE_HOME nor HOME is set: [daemon] needs `state_dir` and `spool_dir`",
        );
        return None;
    };
    let daemon = daemon.over(below);
    Some(Config {
        daemon,
        storages,
        databases,
        origin: None,
    })
}

fn read_databases(
    reading: &Reading<'_>,
    reader: &TableReader<'_, '_>,
    check: UrlCheck<'_>,
) -> Vec<DatabaseTable> {
    let Some(value) = reader.raw("database") else {
        reading.missing(
            None,
            "no database is configured; write [[database]] with `name` and `url`",
        );
        return Vec::new();
    };
    let items: &[Spanned<DeValue<'_>>] = match value.get_ref() {
        DeValue::Array(items) => items,
        _ => {
            let span = reader.key_span("database").unwrap_or(value.span());
            reading.mistake(
                span,
                "a database is written [[database]], with two brackets, for there may be several",
            );
            return Vec::new();
        }
    };
    if items.is_empty() {
        reading.mistake(
            value.span(),
            "`database` is empty: nothing would be backed up",
        );
    }
    let mut tables = Vec::with_capacity(items.len());
    for item in items {
        match item.get_ref().as_table() {
            Some(table) => tables.push(DatabaseTable::read(reading, table, item.span(), check)),
            None => reading.mistake(item.span(), "a database is a table: [[database]]"),
        }
    }
    tables
}

/// The names under `[storage]`, those of storages with mistakes too. `None`: there is no such table.
fn named_storages(root: &DeTable<'_>) -> Option<Vec<String>> {
    let table = root.get("storage")?.get_ref().as_table()?;
    let names = table.keys().map(|name| name.get_ref().to_string());
    Some(names.collect())
}

fn unknown_storage(
    reading: &Reading<'_>,
    name: &Located<Name>,
    storages: &BTreeMap<Name, StorageConfig>,
    named: &[String],
) {
    if storages.contains_key(&name.value) || named.iter().any(|other| other == name.value.as_str())
    {
        return;
    }
    let text = match nearest(name.value.as_str(), storages.keys().map(Name::as_str)) {
        Some(near) => format!(
            "there is no storage `{}`; did you mean `{near}`?",
            name.value
        ),
        None => format!(
            "there is no storage `{0}`; configure it: [storage.{0}]",
            name.value
        ),
    };
    reading.mistake(name.span.clone(), text);
}

fn unique_names(reading: &Reading<'_>, tables: &[DatabaseTable]) {
    let mut seen: Vec<&Name> = Vec::with_capacity(tables.len());
    for name in tables.iter().filter_map(|table| table.name.as_ref()) {
        if seen.contains(&&name.value) {
            reading.mistake(
                name.span.clone(),
                format!("there is another database `{}` already", name.value),
            );
        }
        seen.push(&name.value);
    }
}

/// The syntax errors, and of the other mistakes those that they cannot have caused: what is missing may
/// stand in a line that was not understood.
fn beside_syntax_errors(
    text: &str,
    mistakes: Vec<Mistake>,
    broken: &[toml::de::Error],
) -> Vec<Mistake> {
    let span_of = |error: &toml::de::Error| -> Option<Range<usize>> { error.span() };
    let lines: Vec<usize> = broken
        .iter()
        .filter_map(span_of)
        .map(|span| line_of(text, span.start))
        .collect();
    let unrelated = |mistake: &Mistake| {
        if mistake.about == About::Missing {
            return false;
        }
        mistake
            .span
            .as_ref()
            .is_some_and(|span| !lines.contains(&line_of(text, span.start)))
    };
    let mut all: Vec<Mistake> = mistakes.into_iter().filter(unrelated).collect();
    all.extend(broken.iter().map(|error| Mistake {
        span: span_of(error),
        text: error.message().to_owned(),
        about: About::Place,
    }));
    all
}
