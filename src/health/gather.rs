//! Taking the picture: every storage of every database listed, the records read.
//!
//! The trap is a storage that hangs. A listing that has not answered within the limit is left to itself, its storage
//! counts as silent, and no other listing of it is begun before it has ended: so asking every few minutes piles up nothing.
//! What it finds in the end is not thrown away: a storage that is only slow is known from the look before.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
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

/// A storage and a database.
type Key = (String, String);

/// Takes pictures, and remembers which storages have not answered yet, and which had backups.
#[derive(Debug)]
pub struct Gatherer {
    limit: Duration,
    pending: Mutex<HashMap<Key, JoinHandle<Found>>>,
    /// When a storage had backups last.
    had: Mutex<HashMap<Key, Timestamp>>,
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
            had: Mutex::default(),
        }
    }

    /// Takes a picture of these databases, as they are configured in `config`.
    pub async fn gather(
        &self,
        config: &Config,
        databases: impl IntoIterator<Item = &DatabaseConfig>,
    ) -> Picture {
        let ledger = Ledger::new(&config.daemon.state_dir);
        // One of each for all databases: making one may mean asking somebody for credentials.
        let stores = setup::stores(config, None);
        let stores = stores.map_err(|failure| Told::of(&failure));
        let mut states = Vec::new();
        let mut asked = Vec::new();
        for (at, database) in databases.into_iter().enumerate() {
            states.push(state(database, &ledger));
            asked.extend(database.storage.iter().map(|storage| {
                Asked {
                    at,
                    storage: storage.to_string(),
                    database: database.name.to_string(),
                    guard: database.shrink_guard,
                    store: stores
                        .clone()
                        .and_then(|stores| find(stores, storage.as_str())),
                }
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
        let key = (name.clone(), asked.database.clone());
        let mut held = self.held(asked).await;
        if let Ok(held) = &mut held {
            self.compare(key, held, Timestamp::now());
        }
        (at, StorageState { name, held })
    }

    /// Leaves a listing to itself.
    fn put_off(&self, key: Key, listing: JoinHandle<Found>) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.insert(key, listing);
    }

    /// Notes whether a storage has backups, or has none any more.
    fn compare(&self, key: Key, held: &mut Held, now: Timestamp) {
        let mut had = self.had.lock().unwrap_or_else(PoisonError::into_inner);
        if held.kept > 0 || !held.broken.is_empty() {
            had.insert(key, now);
        } else {
            held.emptied = had.get(&key).copied();
        }
    }

    async fn held(&self, asked: Asked) -> Found {
        let listing = held(asked.store?, asked.database.clone(), asked.guard);
        let key = (asked.storage, asked.database);
        self.listed(key, listing.boxed()).await
    }

    /// What a listing finds, which is begun when none is under way.
    async fn listed(&self, key: Key, listing: BoxFuture<'static, Found>) -> Found {
        let (before, mut listing) = {
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            match pending.remove(&key) {
                Some(old) if !old.is_finished() => {
                    pending.insert(key, old);
                    return Err(silent("it still has not answered".to_owned()));
                }
                before => (before, tokio::spawn(listing)),
            }
        };
        match tokio::time::timeout(self.limit, &mut listing).await {
            Ok(found) => found.unwrap_or_else(|_| Err(went_wrong())),
            Err(_) => {
                self.put_off(key, listing);
                match before {
                    // It has ended: this waits for nothing.
                    Some(before) => before.await.unwrap_or_else(|_| Err(went_wrong())),
                    None => {
                        let limit = HumanDuration(self.limit);
                        Err(silent(format!("it has not answered within {limit}")))
                    }
                }
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
    store: Result<NamedStore, Told>,
}

fn find(stores: Vec<NamedStore>, name: &str) -> Result<NamedStore, Told> {
    let found = stores.into_iter().find(|store| store.name == name);
    found.ok_or_else(|| silent("it is not configured".to_owned()))
}

fn went_wrong() -> Told {
    silent("listing it went wrong within rdbkeeper".to_owned())
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
    let all = listing.backups.iter().filter(|backup| !backup.damaged);
    let found_damaged = listing.backups.iter().filter(|backup| backup.damaged);
    let past = || all.clone().rev().filter(|backup| !future(backup));
    Held {
        kept: all.clone().count() as u64,
        bytes: all.clone().map(|backup| backup.manifest.data.bytes).sum(),
        newest: past().next().map(Brief::of),
        newest_good: past().find(|backup| !backup.shrunk).map(Brief::of),
        emptied: None,
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
            .chain(found_damaged.map(|backup| Broken {
                id: backup.manifest.id.to_string(),
                began_at: backup.manifest.started_at,
                message: "a verification found it damaged".to_owned(),
                damaged: true,
            }))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn what_a_slow_listing_has_found_since_is_used() {
        let gatherer = Gatherer::new(Duration::from_millis(1));
        let key = || ("disk".to_owned(), "web".to_owned());
        let (answer, slow) = tokio::sync::oneshot::channel();
        let found = gatherer.listed(key(), async { slow.await.unwrap() }.boxed());
        assert!(found.await.is_err());
        let held = Held {
            kept: 7,
            ..Held::default()
        };
        answer.send(Ok(held.clone())).unwrap();
        while !gatherer.pending.lock().unwrap()[&key()].is_finished() {
            tokio::task::yield_now().await;
        }
        // The next one does not answer in time either.
        let hangs = || std::future::pending().boxed();
        assert_eq!(gatherer.listed(key(), hangs()).await, Ok(held));
        // That was used once, and the next one is still under way.
        assert!(gatherer.listed(key(), hangs()).await.is_err());
        assert_eq!(gatherer.pending.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_storage_that_had_backups_and_has_none_is_noted_until_it_has_some() {
        let gatherer = Gatherer::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        let emptied = |storage: &str, kept, now| {
            let mut held = Held {
                kept,
                ..Held::default()
            };
            let key = (storage.to_owned(), "web".to_owned());
            gatherer.compare(key, &mut held, at(now));
            held.emptied
        };
        assert_eq!(emptied("disk", 0, 1), None);
        assert_eq!(emptied("disk", 2, 2), None);
        assert_eq!(emptied("disk", 0, 3), Some(at(2)));
        assert_eq!(emptied("disk", 0, 4), Some(at(2)));
        assert_eq!(emptied("offsite", 0, 4), None);
        assert_eq!(emptied("disk", 1, 5), None);
    }
}
