//! Trying every configured server and storage: what would happen, what is in the way, and the
//! smallest rights that each method needs. Nothing is dumped; a storage is proven with a small object.

use serde::Serialize;

use crate::backup::Job;
use crate::config::{DatabaseConfig, SecretSource};
use crate::failure::Failure;
use crate::pipeline::keys::{Holds, KeySource, Keys};
use crate::pipeline::seal;
use crate::server::info::Role;
use crate::server::{Endpoint, Facts};
use crate::source::{Choice, plan};
use crate::storage::NamedStore;
use crate::storage::probe::{Probed, probe};

/// What was found out about a configured database.
#[derive(Clone, Debug, Serialize)]
pub struct Server {
    /// The database's configured name.
    pub database: String,
    /// The server that would be dumped: `localhost:6379`.
    pub address: String,
    /// Its family and version.
    pub server: String,
    /// `master` or `slave`.
    pub role: String,
    /// Keys by database number, of those that would be in the backup.
    pub keys: Vec<(u32, u64)>,
    /// The method that would be taken; absent when none works.
    pub method: Option<String>,
    /// Every method, the best first.
    pub methods: Vec<Method>,
    /// Why this server was chosen.
    pub reasons: Vec<String>,
    /// What a person should know although it works.
    pub warnings: Vec<String>,
}

/// What was found out about a method.
#[derive(Clone, Debug, Serialize)]
pub struct Method {
    /// `bgsave`, `replication`, `scan`.
    pub method: String,
    /// Whether nothing is known to be in its way.
    pub works: bool,
    /// What is in its way.
    pub obstacles: Vec<String>,
    /// What could not be found out without doing it.
    pub unknown: Vec<String>,
    /// What a person should know although it works.
    pub warnings: Vec<String>,
    /// Whether what is in its way is a fork that looks dangerous.
    #[serde(skip)]
    pub fork_refused: bool,
    /// The smallest user that it needs.
    pub acl: String,
}

/// What was found out about a storage.
#[derive(Clone, Debug, Serialize)]
pub struct Storage {
    /// Its configured name.
    pub storage: String,
    /// Where it is.
    pub place: String,
    /// Whether it is reached over a network.
    pub remote: bool,
    /// What it proved to do.
    #[serde(flatten)]
    pub probed: Probed,
}

/// What was found out about the rules for sessions of a configured database.
#[derive(Clone, Debug, Serialize)]
pub struct Sessions {
    /// How many there are.
    pub rules: usize,
    /// Why `sessions expire` would refuse the server; absent where nothing is known to be in its way.
    pub refused: Option<String>,
    /// The schedule that is configured.
    pub schedule: Option<String>,
}

/// Looks whether the rules of a database could be followed; `None` where it has none, and no schedule. It is asked
/// of the database's own server, also where backups are taken from a replica.
pub async fn sessions(database: &DatabaseConfig) -> Option<Sessions> {
    if database.sessions.is_empty() && database.sessions_schedule.is_none() {
        return None;
    }
    let facts = match Endpoint::of_database(database) {
        Ok(endpoint) => info(&endpoint).await,
        Err(failure) => Err(failure),
    };
    let refused = match facts {
        Ok(facts) if facts.loading => Some("it is loading its data set".to_owned()),
        Ok(facts) if facts.role == Role::Replica => Some("it is a replica".to_owned()),
        Ok(facts) if facts.cluster_enabled => Some("it is a node of a cluster".to_owned()),
        Ok(_) => None,
        Err(failure) => Some(failure.causes.first().unwrap_or(&failure.message).clone()),
    };
    Some(Sessions {
        rules: database.sessions.len(),
        refused,
        schedule: database.sessions_schedule.as_ref().map(ToString::to_string),
    })
}

async fn info(endpoint: &Endpoint) -> Result<Facts, Failure> {
    Ok(endpoint.control().await?.info().await?)
}

/// Tries a database's server. That the chosen method does not work is told in the result.
pub async fn server(job: &Job) -> Result<Server, Failure> {
    let plan = plan(&job.source).await?;
    let meant = |db: &u32| {
        job.databases
            .as_ref()
            .is_none_or(|meant| meant.contains(db))
    };
    Ok(Server {
        database: job.name.clone(),
        address: plan.facts.address.clone(),
        server: plan.facts.server.clone(),
        role: plan.facts.role.to_owned(),
        keys: plan
            .databases
            .iter()
            .filter(|(db, _)| meant(db))
            .copied()
            .collect(),
        method: plan.chosen.map(|method| method.to_string()),
        methods: plan
            .methods
            .iter()
            .map(|method| Method {
                method: method.method.to_string(),
                works: method.works(),
                obstacles: method.obstacles.clone(),
                unknown: method.unknown.clone(),
                warnings: method.warnings.clone(),
                fork_refused: method.fork_refused,
                acl: method.acl.clone(),
            })
            .collect(),
        reasons: plan.reasons,
        warnings: plan.warnings.into_iter().chain(unencrypted(job)).collect(),
    })
}

/// Judges the keys of a database: what encrypts its backups, and what would read them back on this host. Gives what a
/// person should know although backups can be made.
///
/// # Errors
/// When they cannot, for want of the passphrase.
pub fn keys(database: &DatabaseConfig) -> Result<Vec<String>, Failure> {
    seal::judge(&database.encryption)?;
    let Some(identity) = &database.identity else {
        return Ok(Vec::new());
    };
    let name = match identity {
        SecretSource::File(_) => "`identity_file`",
        SecretSource::Inline(_) => "`identity`",
    };
    let keys = Keys::new(vec![KeySource {
        holds: Holds::Identities,
        secret: identity.clone(),
        name: name.to_owned(),
    }]);
    if let Some(problem) = keys.problems().first() {
        return Ok(vec![format!(
            "encrypted backups could not be read back here: {problem}"
        )]);
    }
    let recipients = database.encryption.recipients();
    let held = keys.public_keys();
    let fits = recipients.is_empty() || recipients.iter().any(|key| held.contains(key));
    Ok(match fits {
        true => Vec::new(),
        false => vec![format!(
            "none of the keys in {name} belongs to `recipients`: backups made now could not be read back with it"
        )],
    })
}

/// That backups leave this host in a form that whoever keeps them can read.
fn unencrypted(job: &Job) -> Option<String> {
    let mut remote = job.storages.iter();
    let remote = remote.find(|storage| storage.store.is_remote())?;
    (!job.encryption.is_on()).then(|| {
        format!(
            "backups go to storage {} unencrypted: set `recipients`, or `passphrase_file` (docs/encryption.md)",
            remote.name
        )
    })
}

/// Tries a storage: writes, reads, lists, and deletes a small object.
pub async fn storage(storage: &NamedStore) -> Result<Storage, Failure> {
    Ok(Storage {
        storage: storage.name.clone(),
        place: storage.store.describe(),
        remote: storage.store.is_remote(),
        probed: probe(storage).await?,
    })
}

/// Whether a method is one that the database is configured for.
pub fn is_wanted(job: &Job, method: &Method) -> bool {
    match job.source.choice {
        Choice::Auto => true,
        Choice::Only(only) => only.as_str() == method.method,
    }
}
