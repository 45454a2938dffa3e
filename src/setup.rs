//! From the configuration to the things it names: stores, servers, jobs.
//!
//! Here the rooms that judge a key's meaning meet the configuration that only knows its shape.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::backup::Job;
use crate::config::{
    Config, DatabaseConfig, Environment, Method as ConfiguredMethod, StorageConfig,
};
use crate::failure::Failure;
use crate::meter::Meter;
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
        shared: database.shared,
        shrink_guard: database.shrink_guard,
        timeout: database.timeout,
    })
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
        cancel: cancel.clone(),
    })
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
