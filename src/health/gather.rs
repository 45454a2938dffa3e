//! Taking the picture: every storage of every database listed, the records read.
//!
//! The trap is a storage that hangs. A listing that has not answered within the limit is left to itself, its storage
//! counts as silent, and no other listing of it is begun before it has ended: so asking every few minutes piles up nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use jiff::Timestamp;
use tokio::task::JoinHandle;

use super::{Brief, Broken, CLOCKS_DIFFER, DatabaseState, Held, Picture, StorageState};
use crate::catalog::Error;
use crate::catalog::list::{Listing, list};
use crate::config::{Config, DatabaseConfig};
use crate::failure::{Failure, Kind};
use crate::runs::Task;
use crate::runs::ledger::{Ledger, Told};
use crate::setup;
use crate::storage::NamedStore;
use crate::units::HumanDuration;

/// How long one storage may take to list one database's backups.
pub const LIMIT: Duration = Duration::from_secs(20);

/// How many listings run at a time.
const AT_ONCE: usize = 8;

type Found = Result<Held, Told>;

/// Takes pictures, and remembers which storages have not answered yet.
#[derive(Debug)]
pub struct Gatherer {
    limit: Duration,
    pending: Mutex<HashMap<(String, String), JoinHandle<Found>>>,
}

impl Default for Gatherer {
    fn default() -> Gatherer {
        Gatherer::new(LIMIT)
    }
}

impl Gatherer {
    /// One that gives a listing so long.
    pub fn new(limit: Duration) -> Gatherer {
        Gatherer {
            limit,
            pending: Mutex::default(),
        }
    }

    /// Takes a picture of these databases, as they are configured in `config`.
    pub async fn gather(
        &self,
        config: &Config,
        databases: impl IntoIterator<Item = &DatabaseConfig>,
    ) -> Picture {
        let ledger = Ledger::new(&config.daemon.state_dir);
        let mut states = Vec::new();
        let mut asked = Vec::new();
        for (at, database) in databases.into_iter().enumerate() {
            states.push(state(database, &ledger));
            asked.extend(database.storage.iter().map(|storage| Asked {
                at,
                storage: storage.to_string(),
                database: database.name.to_string(),
                guard: database.shrink_guard,
                stores: setup::stores(config, Some(storage.as_str())),
            }));
        }
        let looked: Vec<(usize, StorageState)> = stream::iter(asked)
            .map(|asked| self.look(asked))
            .buffered(AT_ONCE)
            .collect()
            .await;
        for (at, storage) in looked {
            let state: &mut DatabaseState = &mut states[at];
            state.storages.push(storage);
        }
        Picture {
            taken_at: Timestamp::now(),
            zone: config.daemon.timezone.clone(),
            databases: states,
        }
    }

    async fn look(&self, asked: Asked) -> (usize, StorageState) {
        let (at, name) = (asked.at, asked.storage.clone());
        let held = self.held(asked).await;
        (at, StorageState { name, held })
    }

    async fn held(&self, asked: Asked) -> Found {
        let stores = asked.stores.map_err(|failure| Told::of(&failure))?;
        let Some(store) = stores.into_iter().next() else {
            return Err(silent("it is not configured".to_owned()));
        };
        let key = (asked.storage, asked.database);
        let mut listing = {
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            match pending.remove(&key) {
                Some(old) if !old.is_finished() => {
                    pending.insert(key, old);
                    return Err(silent("it still has not answered".to_owned()));
                }
                _ => tokio::spawn(held(store, key.1.clone(), asked.guard)),
            }
        };
        match tokio::time::timeout(self.limit, &mut listing).await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) => Err(silent("listing it went wrong within rdbkeeper".to_owned())),
            Err(_) => {
                let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
                pending.insert(key, listing);
                let limit = HumanDuration(self.limit);
                Err(silent(format!("it has not answered within {limit}")))
            }
        }
    }
}

/// One storage of one database.
struct Asked {
    /// The place of the database.
    at: usize,
    storage: String,
    database: String,
    guard: f64,
    stores: Result<Vec<NamedStore>, Failure>,
}

fn silent(why: String) -> Told {
    Told::of(&Failure::new(Kind::Storage, why))
}

/// What is known of a database without asking a storage.
fn state(database: &DatabaseConfig, ledger: &Ledger) -> DatabaseState {
    let name = database.name.as_str();
    let schedules = [
        (Task::Backup, &database.schedule),
        (Task::Verify, &database.verify_schedule),
        (Task::Sessions, &database.sessions_schedule),
    ];
    let schedules = schedules
        .into_iter()
        .filter_map(|(task, cron)| Some((task, cron.clone()?)));
    let records = Task::ALL.map(|task| (task, ledger.read(name, task)));
    DatabaseState {
        name: name.to_owned(),
        schedules: schedules.collect(),
        jitter: database.jitter,
        timeout: database.timeout,
        storages: Vec::new(),
        records: BTreeMap::from(records),
    }
}

async fn held(store: NamedStore, database: String, guard: f64) -> Found {
    let mut listing = list(&[store], Some(&database))
        .await
        .map_err(|error| Told::of(&Failure::from(error)))?;
    listing.mark_shrunk(|_| guard);
    Ok(of_listing(&listing, Timestamp::now()))
}

/// What a listing of one database in one storage says.
fn of_listing(listing: &Listing, now: Timestamp) -> Held {
    let future = |backup: &&crate::catalog::Backup| {
        backup.manifest.started_at.duration_since(now) > CLOCKS_DIFFER
    };
    let all = listing.backups.iter();
    let past = || all.clone().rev().filter(|backup| !future(backup));
    Held {
        kept: listing.backups.len() as u64,
        bytes: all.clone().map(|backup| backup.manifest.data.bytes).sum(),
        newest: past().next().map(Brief::of),
        newest_good: past().find(|backup| !backup.shrunk).map(Brief::of),
        from_future: all.clone().rev().find(future).map(Brief::of),
        broken: listing
            .broken
            .iter()
            .map(|broken| Broken {
                id: broken.id.to_string(),
                began_at: broken.id.time(),
                message: broken.error.to_string(),
                damaged: !matches!(broken.error, Error::Newer { .. }),
            })
            .collect(),
    }
}
