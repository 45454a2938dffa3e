//! `[[database]]`: a server's URL, the databases on it that are meant, and how they are backed up.
//! `[defaults]` takes the same keys but the ones that make a database what it is.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeTable;

use super::choices::{Compression, ForkGuard, Method};
use super::encryption::{self, Encryption};
use super::fields;
use super::name::Name;
use super::reader::{Located, Reading, TableReader};
use super::retention::{self, Keep, Policies};
use super::secrets::{FileRef, SecretSource};
use super::sessions::{self, SessionRule};
use super::telling::{self, Hooks, Notify};
use crate::cron::Cron;
use crate::secret::Secret;

/// A configured database, `[defaults]` merged in.
#[derive(Clone, Debug, PartialEq)]
pub struct DatabaseConfig {
    /// Its name, unique in the configuration.
    pub name: Name,
    /// The server's URL. It may hold a password.
    pub url: Secret,
    /// The databases that are meant; `None`: all of them. A `/N` of the URL stands here too.
    pub databases: Option<Vec<u32>>,
    /// The URL of a replica where dumps are taken while it is healthy. It may hold a password.
    pub replica_url: Option<Secret>,
    /// The ACL user. `None` where the URL names one.
    pub username: Option<String>,
    /// The password. `None` where the URL holds one.
    pub password: Option<SecretSource>,
    /// Certificates, for `rediss://`.
    pub tls: TlsConfig,
    /// How dumps are taken.
    pub method: Method,
    /// Where BGSAVE's file is seen from here, when the server cannot tell.
    pub rdb_path: Option<PathBuf>,
    /// What is done when a fork of the server looks dangerous.
    pub fork_guard: ForkGuard,
    /// Whether the server's own compression is off while it makes a dump.
    pub disable_server_compression: bool,
    /// When a backup is due; `None`: only by hand.
    pub schedule: Option<Cron>,
    /// When the newest backup is verified.
    pub verify_schedule: Option<Cron>,
    /// Whether a backup that was missed is made up for at start.
    pub catch_up: bool,
    /// How much later than due a job may begin, so that many hosts do not begin at once.
    pub jitter: Duration,
    /// How long one backup may take.
    pub timeout: Duration,
    /// The storages: every one of them must have each backup. All exist in the configuration; at least one.
    pub storage: Vec<Name>,
    /// Whether several hosts may back up under this name.
    pub shared: bool,
    /// How the stored bytes are compressed.
    pub compression: Compression,
    /// Whom backups are encrypted to.
    pub encryption: Encryption,
    /// The age identities that read encrypted backups back. Only who reads one needs them.
    pub identity: Option<SecretSource>,
    /// A backup with fewer than this part of the keys of the one before counts as shrunk; 0 to 1, 0: never.
    pub shrink_guard: f64,
    /// Which backups stay, in each storage.
    pub policies: Policies,
    /// What is run around a backup.
    pub hooks: Hooks,
    /// Who is told.
    pub notify: Option<Notify>,
    /// The most keys a second of a scan or a restore; 0: no limit.
    pub max_keys_per_second: u64,
    /// How many keys one SCAN asks for.
    pub scan_batch: u32,
    /// The largest value, in bytes, that a scan dumps.
    pub scan_max_value: u64,
    /// Which keys are sessions; the first rule that takes a key decides.
    pub sessions: Vec<SessionRule>,
    /// When sessions are expired.
    pub sessions_schedule: Option<Cron>,
    /// Sessions are not expired when the newest backup is older; zero: it is not asked.
    pub require_backup: Duration,
}

/// The files for TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// The authorities to trust (PEM), instead of the system's.
    pub ca_file: Option<FileRef>,
    /// The client's certificate (PEM). Always together with its key.
    pub cert_file: Option<FileRef>,
    /// The client's key (PEM).
    pub key_file: Option<FileRef>,
}

impl TlsConfig {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.ca_file.is_none() && self.cert_file.is_none() && self.key_file.is_none()
    }
}

impl DatabaseConfig {
    /// A database with every default.
    pub(super) fn plain(name: Name, url: &str, storage: Vec<Name>) -> DatabaseConfig {
        DatabaseConfig {
            name,
            url: Secret::new(url),
            databases: None,
            replica_url: None,
            username: None,
            password: None,
            tls: TlsConfig::default(),
            method: Method::Auto,
            rdb_path: None,
            fork_guard: ForkGuard::default(),
            disable_server_compression: false,
            schedule: None,
            verify_schedule: None,
            catch_up: true,
            jitter: Duration::ZERO,
            timeout: Duration::from_secs(3600),
            storage,
            shared: false,
            compression: Compression::default(),
            encryption: Encryption::None,
            identity: None,
            shrink_guard: 0.5,
            policies: Policies::default(),
            hooks: Hooks::default(),
            notify: None,
            max_keys_per_second: 0,
            scan_batch: 100,
            scan_max_value: 512 << 20,
            sessions: Vec::new(),
            sessions_schedule: None,
            require_backup: Duration::ZERO,
        }
    }
}

/// What the room that knows servers finds in a URL. The configuration asks for it, because some keys
/// may not be given twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UrlFacts {
    /// The database of `/N` or `?db=N`.
    pub db: Option<u32>,
    /// It holds a user's name.
    pub username: bool,
    /// It holds a password.
    pub password: bool,
    /// The connection is encrypted: `rediss://`.
    pub tls: bool,
}

/// Judges a server's URL: its facts, or what is wrong with it, without the password.
pub type UrlCheck<'a> = &'a dyn Fn(&str) -> Result<UrlFacts, String>;

/// A URL that was judged.
#[derive(Clone)]
pub(super) struct Url {
    pub(super) text: Secret,
    pub(super) facts: UrlFacts,
    pub(super) span: Range<usize>,
}

/// The keys that `[defaults]` and `[[database]]` share, as one of them gives them.
#[derive(Default)]
pub(super) struct Settings {
    databases: Option<Located<Vec<u32>>>,
    replica_url: Option<Url>,
    username: Option<Located<String>>,
    password: Option<Located<SecretSource>>,
    tls: Option<Located<TlsConfig>>,
    method: Option<Method>,
    rdb_path: Option<PathBuf>,
    fork_guard: Option<ForkGuard>,
    disable_server_compression: Option<bool>,
    schedule: Option<Cron>,
    verify_schedule: Option<Cron>,
    catch_up: Option<bool>,
    jitter: Option<Duration>,
    timeout: Option<Duration>,
    storage: Option<Vec<Located<Name>>>,
    shared: Option<bool>,
    compression: Option<Compression>,
    encryption: Option<Encryption>,
    identity: Option<SecretSource>,
    shrink_guard: Option<f64>,
    keep: Option<Keep>,
    keep_in: Option<Vec<(Located<Name>, Option<Keep>)>>,
    hooks: Option<Hooks>,
    notify: Option<Notify>,
    max_keys_per_second: Option<u64>,
    scan_batch: Option<u32>,
    scan_max_value: Option<u64>,
    sessions: Option<Vec<SessionRule>>,
    sessions_schedule: Option<Cron>,
    require_backup: Option<Duration>,
}

impl Settings {
    /// Reads `[defaults]`.
    pub(super) fn read_defaults(
        reading: &Reading<'_>,
        table: &DeTable<'_>,
        check: UrlCheck<'_>,
    ) -> Settings {
        let reader = TableReader::new(reading, table, "[defaults]");
        for key in ["name", "url"] {
            if let Some(span) = reader.key_span(key) {
                let _ = reader.raw(key);
                reading.mistake(
                    span,
                    format!("`{key}` has no default: it belongs into each [[database]]"),
                );
            }
        }
        let settings = Settings::read(&reader, check);
        reader.finish(&[]);
        settings
    }

    fn read(reader: &TableReader<'_, '_>, check: UrlCheck<'_>) -> Settings {
        Settings {
            databases: fields::read_databases(reader),
            replica_url: fields::read_url(reader, "replica_url", check),
            username: reader.text("username"),
            password: fields::read_secret(reader, "password", "password_file"),
            tls: fields::read_tls(reader),
            method: reader.parsed("method").map(|found| found.value),
            rdb_path: fields::read_rdb_path(reader),
            fork_guard: reader.parsed("fork_guard").map(|found| found.value),
            disable_server_compression: reader.boolean("disable_server_compression"),
            schedule: fields::read_schedule(reader, "schedule"),
            verify_schedule: fields::read_schedule(reader, "verify_schedule"),
            catch_up: reader.boolean("catch_up"),
            jitter: reader.duration("jitter").map(|found| found.value),
            timeout: fields::read_timeout(reader),
            storage: fields::read_storage(reader),
            shared: reader.boolean("shared"),
            compression: reader.parsed("compression").map(|found| found.value),
            encryption: encryption::read_encryption(reader),
            identity: encryption::read_identity(reader),
            shrink_guard: reader.number("shrink_guard", 0.0..=1.0),
            keep: retention::read_keep(reader),
            keep_in: retention::read_keep_in(reader),
            hooks: telling::read_hooks(reader),
            notify: telling::read_notify(reader),
            max_keys_per_second: reader.whole("max_keys_per_second", 0..=u64::MAX),
            scan_batch: reader
                .whole("scan_batch", 1..=100_000)
                .and_then(|count| u32::try_from(count).ok()),
            scan_max_value: reader.size("scan_max_value").map(|found| found.value),
            sessions: sessions::read_rules(reader),
            sessions_schedule: fields::read_schedule(reader, "sessions_schedule"),
            require_backup: reader.duration("require_backup").map(|found| found.value),
        }
    }

    /// The names of storages that are asked for, to be compared with those that exist.
    pub(super) fn storages(&self) -> impl Iterator<Item = &Located<Name>> {
        let policies = self.keep_in.iter().flatten().map(|(name, _)| name);
        self.storage.iter().flatten().chain(policies)
    }

    /// The policies of `keep_in`, without those that had mistakes.
    fn policies_in(&self) -> Option<BTreeMap<Name, Keep>> {
        let list = self.keep_in.as_ref()?.iter();
        Some(
            list.filter_map(|(name, keep)| Some((name.value.clone(), (*keep)?)))
                .collect(),
        )
    }
}

/// One `[[database]]` as it stands, before the defaults are merged in.
pub(super) struct DatabaseTable {
    pub(super) name: Option<Located<Name>>,
    url: Option<Url>,
    pub(super) settings: Settings,
}

impl DatabaseTable {
    pub(super) fn read(
        reading: &Reading<'_>,
        table: &DeTable<'_>,
        span: Range<usize>,
        check: UrlCheck<'_>,
    ) -> DatabaseTable {
        let reader = TableReader::new(reading, table, "[[database]]");
        for key in ["name", "url"] {
            if reader.key_span(key).is_none() {
                reading.missing(
                    Some(span.clone()),
                    format!("this [[database]] has no `{key}`"),
                );
            }
        }
        let found = DatabaseTable {
            name: reader.parsed("name"),
            url: fields::read_url(&reader, "url", check),
            settings: Settings::read(&reader, check),
        };
        let own = &found.settings;
        if own.method == Some(Method::Scan)
            && own.disable_server_compression == Some(true)
            && let Some(span) = reader.key_span("disable_server_compression")
        {
            reading.mistake(
                span,
                "`disable_server_compression` is for BGSAVE and replication, and `method` is \"scan\"; drop one of them",
            );
        }
        reader.finish(&[]);
        found.refuse_twice(reading);
        found
    }

    /// What is given both in the URL and by a key of the same table.
    fn refuse_twice(&self, reading: &Reading<'_>) {
        let Some(url) = &self.url else { return };
        let own = &self.settings;
        if let (Some(databases), Some(db)) = (&own.databases, url.facts.db) {
            reading.mistake(
                databases.span.clone(),
                format!("`databases` and the database {db} of `url` exclude each other; drop one of them"),
            );
        }
        if let (Some(username), true) = (&own.username, url.facts.username) {
            reading.mistake(
                username.span.clone(),
                "`username` stands in `url` already; drop one of them",
            );
        }
        if let (Some(password), true) = (&own.password, url.facts.password) {
            reading.mistake(
                password.span.clone(),
                "a password stands in `url` already; drop one of them",
            );
        }
        let replica_tls = own
            .replica_url
            .as_ref()
            .is_some_and(|replica| replica.facts.tls);
        if let (Some(tls), false) = (&own.tls, url.facts.tls || replica_tls) {
            reading.mistake(
                tls.span.clone(),
                "`tls` is given, but `url` is not encrypted; write rediss:// instead of redis://",
            );
        }
    }

    /// With the defaults below. `None` where a mistake left nothing to build on; it has been told.
    pub(super) fn merge(
        self,
        reading: &Reading<'_>,
        defaults: &Settings,
        every_storage: &[Name],
    ) -> Option<DatabaseConfig> {
        let own = self.settings;
        let keep_in = own
            .policies_in()
            .or_else(|| defaults.policies_in())
            .unwrap_or_default();
        let replica = own.replica_url.or_else(|| defaults.replica_url.clone());
        let (name, url) = (self.name?.value, self.url?);
        if let Some(replica) = &replica
            && replica.facts.db.is_some()
            && replica.facts.db != url.facts.db
        {
            reading.mistake(
                replica.span.clone(),
                "`replica_url` names another database than `url`; the databases are those of `url` or `databases`",
            );
        }
        let plain = DatabaseConfig::plain(name, "", every_storage.to_vec());
        let values = |located: &Located<Vec<u32>>| located.value.clone();
        // What the URL says is nearer than the defaults, and the database's own keys exclude it.
        let databases = match url.facts.db {
            Some(db) => Some(vec![db]),
            None => own
                .databases
                .as_ref()
                .or(defaults.databases.as_ref())
                .map(values),
        };
        let username = match url.facts.username {
            true => None,
            false => own
                .username
                .or_else(|| defaults.username.clone())
                .map(|found| found.value),
        };
        let password = match url.facts.password {
            true => None,
            false => own
                .password
                .or_else(|| defaults.password.clone())
                .map(|found| found.value),
        };
        let storage = own.storage.as_ref().or(defaults.storage.as_ref());
        let encrypted = url.facts.tls || replica.as_ref().is_some_and(|replica| replica.facts.tls);
        // Certificates of the defaults are for those who use TLS; others need not mind.
        let tls = own.tls.or_else(|| defaults.tls.clone());
        Some(DatabaseConfig {
            url: url.text,
            databases,
            replica_url: replica.map(|replica| replica.text),
            username,
            password,
            tls: tls
                .filter(|_| encrypted)
                .map_or(plain.tls, |found| found.value),
            method: own.method.or(defaults.method).unwrap_or(plain.method),
            rdb_path: own.rdb_path.or_else(|| defaults.rdb_path.clone()),
            fork_guard: own
                .fork_guard
                .or(defaults.fork_guard)
                .unwrap_or(plain.fork_guard),
            disable_server_compression: own
                .disable_server_compression
                .or(defaults.disable_server_compression)
                .unwrap_or(plain.disable_server_compression),
            policies: Policies {
                keep: own.keep.or(defaults.keep),
                keep_in,
            },
            schedule: own.schedule.or_else(|| defaults.schedule.clone()),
            verify_schedule: own
                .verify_schedule
                .or_else(|| defaults.verify_schedule.clone()),
            catch_up: own.catch_up.or(defaults.catch_up).unwrap_or(plain.catch_up),
            jitter: own.jitter.or(defaults.jitter).unwrap_or(plain.jitter),
            hooks: own
                .hooks
                .or_else(|| defaults.hooks.clone())
                .unwrap_or(plain.hooks),
            notify: own.notify.or_else(|| defaults.notify.clone()),
            timeout: own.timeout.or(defaults.timeout).unwrap_or(plain.timeout),
            storage: storage.map_or(plain.storage, |names| {
                names.iter().map(|name| name.value.clone()).collect()
            }),
            shared: own.shared.or(defaults.shared).unwrap_or(plain.shared),
            compression: own
                .compression
                .or(defaults.compression)
                .unwrap_or(plain.compression),
            encryption: own
                .encryption
                .or_else(|| defaults.encryption.clone())
                .unwrap_or(plain.encryption),
            identity: own.identity.or_else(|| defaults.identity.clone()),
            shrink_guard: own
                .shrink_guard
                .or(defaults.shrink_guard)
                .unwrap_or(plain.shrink_guard),
            max_keys_per_second: own
                .max_keys_per_second
                .or(defaults.max_keys_per_second)
                .unwrap_or(plain.max_keys_per_second),
            scan_batch: own
                .scan_batch
                .or(defaults.scan_batch)
                .unwrap_or(plain.scan_batch),
            scan_max_value: own
                .scan_max_value
                .or(defaults.scan_max_value)
                .unwrap_or(plain.scan_max_value),
            sessions: own
                .sessions
                .or_else(|| defaults.sessions.clone())
                .unwrap_or(plain.sessions),
            sessions_schedule: own
                .sessions_schedule
                .or_else(|| defaults.sessions_schedule.clone()),
            require_backup: own
                .require_backup
                .or(defaults.require_backup)
                .unwrap_or(plain.require_backup),
            name: plain.name,
        })
    }
}
