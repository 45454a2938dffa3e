//! From the configuration to the things it names: stores, servers, jobs.
//!
//! Here the rooms that judge a key's meaning meet the configuration that only knows its shape.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::backup::Job;
use crate::config::{
    Config, DatabaseConfig, Encryption, Environment, FileRef, Method as ConfiguredMethod,
    SecretSource, StorageConfig,
};
use crate::failure::{Failure, Kind};
use crate::meter::Meter;
use crate::pipeline::keys::{Holds, KeySource, Keys};
use crate::prune;
use crate::server::Endpoint;
use crate::server::configured::judge_url;
use crate::sessions::journey::Conditions;
use crate::sessions::sweep;
use crate::source::{self, Choice, Method, ScanSettings};
use crate::storage::{LocalStore, NamedStore, S3Store};

/// Finds and reads the configuration, with every room's judgement of its own keys.
pub fn load(named: Option<&Path>, environment: &Environment) -> Result<Config, Failure> {
    Ok(Config::load(named, environment, &judge_url)?)
}

/// This host's name, as manifests have it.
pub fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// One configured storage, or all of them, in the order in which a restore looks for a backup.
pub fn stores(config: &Config, only: Option<&str>) -> Result<Vec<NamedStore>, Failure> {
    match only {
        Some(name) => {
            let (name, storage) = config.storage(name)?;
            Ok(vec![store(name.as_str(), storage)])
        }
        None => Ok(config
            .storages
            .iter()
            .map(|(name, storage)| store(name.as_str(), storage))
            .collect()),
    }
}

/// One configured storage, or all of them, in the order in which a backup is looked for: those on this host first, and
/// within each the order in which `database` has them, then that of the others.
pub fn nearest(
    config: &Config,
    only: Option<&str>,
    database: Option<&str>,
) -> Result<Vec<NamedStore>, Failure> {
    let mut storages = stores(config, only)?;
    let own = config
        .databases
        .iter()
        .filter(|of| Some(of.name.as_str()) == database);
    let order: Vec<&str> = own
        .chain(&config.databases)
        .flat_map(|of| of.storage.iter().map(|name| name.as_str()))
        .collect();
    storages.sort_by_key(|storage| {
        let place = order.iter().position(|name| *name == storage.name);
        (storage.store.is_remote(), place.unwrap_or(order.len()))
    });
    Ok(storages)
}

fn store(name: &str, config: &StorageConfig) -> NamedStore {
    NamedStore {
        name: name.to_owned(),
        store: match config {
            StorageConfig::Local { path } => Arc::new(LocalStore::new(path)),
            StorageConfig::S3(config) => Arc::new(S3Store::new(config.as_ref().clone())),
        },
    }
}

/// The databases that are named; all of them when none is.
pub fn databases<'a>(
    config: &'a Config,
    names: &[String],
) -> Result<Vec<&'a DatabaseConfig>, Failure> {
    if names.is_empty() {
        return Ok(config.databases.iter().collect());
    }
    let mut seen = BTreeSet::new();
    names
        .iter()
        .filter(|name| seen.insert(name.as_str()))
        .map(|name| Ok(config.database(name)?))
        .collect()
}

/// What the command line may say in place of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--method`.
    pub method: Option<Choice>,
    /// `--storage`.
    pub storage: Option<String>,
}

/// The job of backing up a configured database.
pub fn job(
    config: &Config,
    database: &DatabaseConfig,
    overrides: &Overrides,
    cancel: &CancellationToken,
) -> Result<Job, Failure> {
    let storages = match &overrides.storage {
        Some(name) => stores(config, Some(name))?,
        None => storages_of(config, database)?,
    };
    Ok(Job {
        name: database.name.to_string(),
        source: request(config, database, overrides, cancel)?,
        databases: meant(database),
        storages,
        compression: database.compression,
        encryption: database.encryption.clone(),
        shared: database.shared,
        shrink_guard: database.shrink_guard,
        timeout: database.timeout,
    })
}

/// The keys in the file of `--identity`, which is read at once: who names it means it.
///
/// # Errors
/// [`Kind::Usage`] when it cannot be used.
pub fn identity(path: &Path) -> Result<Keys, Failure> {
    let keys = Keys::new(vec![KeySource {
        holds: Holds::Either,
        secret: SecretSource::File(FileRef::at(path)),
        name: format!("--identity {}", path.display()),
    }]);
    let problem = keys.problems().first().cloned();
    match problem {
        None => Ok(keys),
        Some(problem) => Err(Failure::new(Kind::Usage, "the key cannot be had")
            .cause(problem)
            .hint("--identity names a file with age identities (AGE-SECRET-KEY-1…) or with a passphrase, readable by this user")),
    }
}

/// The keys that read encrypted backups back where none is named: those of the configured database, else (a file that
/// somebody brought, a database that is not configured) all there are. None is read before an encrypted backup is met.
pub fn keys(config: &Config, database: Option<&str>) -> Keys {
    let configured = database.and_then(|name| config.database(name).ok());
    let databases = match configured {
        Some(database) => std::slice::from_ref(database),
        None => &config.databases,
    };
    let mut sources: Vec<KeySource> = Vec::new();
    for database in databases {
        let identity = database.identity.as_ref();
        let identity = identity.map(|secret| (Holds::Identities, "identity", secret));
        let passphrase = match &database.encryption {
            Encryption::Passphrase(secret) => Some((Holds::Passphrase, "passphrase", secret)),
            Encryption::None | Encryption::Recipients(_) => None,
        };
        for (holds, key, secret) in identity.into_iter().chain(passphrase) {
            // What stands in [defaults] is the same for many.
            if sources
                .iter()
                .any(|known| known.holds == holds && known.secret == *secret)
            {
                continue;
            }
            let file = match secret {
                SecretSource::File(_) => "_file",
                SecretSource::Inline(_) => "",
            };
            sources.push(KeySource {
                holds,
                secret: secret.clone(),
                name: format!("`{key}{file}` of {}", database.name),
            });
        }
    }
    Keys::new(sources)
}

/// The storages of a database, in the order in which they are configured.
pub fn storages_of(config: &Config, database: &DatabaseConfig) -> Result<Vec<NamedStore>, Failure> {
    database
        .storage
        .iter()
        .map(|name| {
            let (name, storage) = config.storage(name.as_str())?;
            Ok(store(name.as_str(), storage))
        })
        .collect()
}

/// A sweep over the sessions of a configured database, always on the server of its `url`.
pub fn sweep(
    config: &Config,
    database: &DatabaseConfig,
    mode: sweep::Mode,
    cancel: &CancellationToken,
    meter: &Meter,
) -> Result<sweep::Job, Failure> {
    Ok(sweep::Job {
        endpoint: Endpoint::of_database(database)?,
        databases: meant(database),
        rules: database.sessions.clone(),
        mode,
        batch: database.scan_batch as usize,
        max_keys_per_second: database.max_keys_per_second,
        state_dir: Some(config.daemon.state_dir.clone()),
        name: database.name.to_string(),
        cancel: cancel.clone(),
        meter: meter.clone(),
    })
}

/// Pruning a configured database in some storages.
pub fn prune(
    config: &Config,
    database: &DatabaseConfig,
    storages: Vec<NamedStore>,
    cancel: &CancellationToken,
    gate: &prune::Gate,
) -> prune::Job {
    prune::Job {
        name: database.name.to_string(),
        storages,
        policies: database.policies.clone(),
        zone: config.daemon.timezone.clone(),
        shrink_guard: database.shrink_guard,
        shared: database.shared,
        timeout: database.timeout,
        host: host_name(),
        cancel: cancel.clone(),
        gate: gate.clone(),
    }
}

/// What must hold before the sessions of a configured database are expired.
pub fn conditions(config: &Config, database: &DatabaseConfig) -> Result<Conditions, Failure> {
    Ok(Conditions {
        state_dir: config.daemon.state_dir.clone(),
        storages: storages_of(config, database)?,
        require_backup: database.require_backup,
    })
}

/// What is asked of a database's server.
pub fn request(
    config: &Config,
    database: &DatabaseConfig,
    overrides: &Overrides,
    cancel: &CancellationToken,
) -> Result<source::Request, Failure> {
    Ok(source::Request {
        endpoint: Endpoint::of_database(database)?,
        replica: Endpoint::of_replica(database)?,
        choice: overrides.method.unwrap_or(choice(database.method)),
        databases: meant(database),
        rdb_path: database.rdb_path.clone(),
        scan: ScanSettings {
            batch: database.scan_batch as usize,
            max_value: database.scan_max_value,
            max_keys_per_second: database.max_keys_per_second,
            spill_dir: config.daemon.spool_dir.clone(),
            ..ScanSettings::default()
        },
        fork_guard: database.fork_guard,
        disable_server_compression: database.disable_server_compression,
        state_dir: Some(config.daemon.state_dir.clone()),
        cancel: cancel.clone(),
    })
}

/// The servers of all configured databases, each once, with their replicas. One whose credentials cannot be had is left out:
/// its backups will say so.
pub fn endpoints(config: &Config) -> Vec<Endpoint> {
    let mut all: Vec<Endpoint> = Vec::new();
    for database in &config.databases {
        let own = Endpoint::of_database(database).ok();
        let replica = Endpoint::of_replica(database).ok().flatten();
        for endpoint in own.into_iter().chain(replica) {
            let known = |other: &Endpoint| {
                other.address.transport() == endpoint.address.transport()
                    && other.username == endpoint.username
            };
            if !all.iter().any(known) {
                all.push(endpoint);
            }
        }
    }
    all
}

/// The configuration's word for a method.
pub fn choice(method: ConfiguredMethod) -> Choice {
    match method {
        ConfiguredMethod::Auto => Choice::Auto,
        ConfiguredMethod::Bgsave => Choice::Only(Method::Bgsave),
        ConfiguredMethod::Replication => Choice::Only(Method::Replication),
        ConfiguredMethod::Scan => Choice::Only(Method::Scan),
    }
}

fn meant(database: &DatabaseConfig) -> Option<BTreeSet<u32>> {
    let databases = database.databases.as_ref()?;
    Some(databases.iter().copied().collect())
}
