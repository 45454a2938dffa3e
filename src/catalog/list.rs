//! Which backups there are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};

use super::manifest::{LIMIT_BYTES, Read};
use super::{BackupId, Error, MANIFEST, Manifest};
use crate::retention::is_shrunk;
use crate::storage::{self, BroughtFile, NamedStore, ObjectKey, ObjectMeta, STALL, Store, within};

/// The marker of a backup that is never pruned.
pub const PINNED: &str = "pinned";
/// The marker of a backup that is as small as it should be.
pub const ACCEPTED: &str = "accepted";
/// The marker of a backup that a verification found damaged.
pub const DAMAGED: &str = "damaged";
/// Every marker there is.
pub const MARKERS: [&str; 3] = [PINNED, ACCEPTED, DAMAGED];

/// How many manifests are read at a time.
const READ_AT_ONCE: usize = 16;

/// A backup's folder in a storage.
#[derive(Clone, Debug)]
pub struct Place {
    storage: NamedStore,
    folder: Vec<String>,
}

impl Place {
    /// The folder of these segments; none: the store's root is the folder.
    pub fn new<S: Into<String>>(storage: NamedStore, folder: impl IntoIterator<Item = S>) -> Place {
        Place {
            storage,
            folder: folder.into_iter().map(Into::into).collect(),
        }
    }

    /// The configured name of the storage.
    pub fn storage(&self) -> &str {
        &self.storage.name
    }

    /// The storage.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.storage.store
    }

    /// The key of an object in the folder.
    pub fn key(&self, object: &str) -> Result<ObjectKey, storage::Error> {
        ObjectKey::new(self.folder.iter().map(String::as_str).chain([object]))
    }

    /// The folder, as [`Store::list`] takes it.
    pub fn prefix(&self) -> String {
        self.folder.join("/")
    }

    /// The folder for people.
    pub fn describe(&self) -> String {
        match self.folder.is_empty() {
            true => self.store().describe(),
            false => format!("{}/{}", self.store().describe(), self.prefix()),
        }
    }
}

/// A committed backup in one storage.
#[derive(Clone, Debug)]
pub struct Backup {
    /// Where it is.
    pub place: Place,
    /// What it is.
    pub manifest: Manifest,
    /// Whether prune must leave it.
    pub pinned: bool,
    /// Whether a person said that it is as small as it should be.
    pub accepted: bool,
    /// Whether the last verification of it found damage. Its manifest is whole, its data is not.
    pub damaged: bool,
    /// Whether it has far fewer keys than the one before.
    pub shrunk: bool,
    /// Its data, when it was fetched to be read more than once; else it is read where it is.
    pub fetched: Option<BroughtFile>,
}

/// A backup whose manifest cannot be used, or whose data is evidently not what the manifest says.
#[derive(Debug)]
pub struct Broken {
    /// Where it is.
    pub place: Place,
    /// The database whose folder it is in.
    pub database: String,
    /// Its ID, by its folder's name.
    pub id: BackupId,
    /// What is wrong with it.
    pub error: Error,
}

/// The backups of one or several storages.
#[derive(Debug, Default)]
pub struct Listing {
    /// Those that are whole as far as a listing can tell, by the moment at which they were begun, oldest first.
    pub backups: Vec<Backup>,
    /// Those that are not, by ID.
    pub broken: Vec<Broken>,
    /// Storages that could not be listed, by name: what they hold is not known.
    pub silent: Vec<(String, Error)>,
}

/// Lists the backups in these storages, of one database or of all. A storage that does not answer does
/// not hide what the others have, unless none answers.
pub async fn list(storages: &[NamedStore], database: Option<&str>) -> Result<Listing, Error> {
    let mut listing = Listing::default();
    let mut lists = Vec::with_capacity(storages.len());
    for storage in storages {
        lists.push(list_one(storage, database.unwrap_or_default(), usize::MAX));
    }
    for (storage, listed) in storages.iter().zip(join_all(lists).await) {
        match listed {
            Ok(found) => {
                for read in found {
                    match read {
                        Ok(backup) => listing.backups.push(backup),
                        Err(broken) => listing.broken.push(broken),
                    }
                }
            }
            Err(error) => listing.silent.push((storage.name.clone(), error)),
        }
    }
    if !storages.is_empty() && listing.silent.len() == storages.len() {
        return Err(listing.silent.swap_remove(0).1);
    }
    listing.sort();
    Ok(listing)
}

/// Lists the newest `count` backups of a database in a storage, by their IDs: no other manifest is read.
pub async fn newest(storage: &NamedStore, database: &str, count: usize) -> Result<Listing, Error> {
    let mut listing = Listing::default();
    for read in list_one(storage, database, count).await? {
        match read {
            Ok(backup) => listing.backups.push(backup),
            Err(broken) => listing.broken.push(broken),
        }
    }
    listing.sort();
    Ok(listing)
}

async fn list_one(
    storage: &NamedStore,
    prefix: &str,
    newest: usize,
) -> Result<Vec<Result<Backup, Broken>>, Error> {
    let (store, listing) = (storage.store.describe(), storage.store.list(prefix));
    let objects = within(STALL, &store, format!("list {prefix:?}"), listing).await?;
    let mut folders = folders(&objects);
    let older = folders.len().saturating_sub(newest);
    let mut reading = stream::iter(folders.drain(older..))
        .map(|folder| read_folder(storage, folder))
        .buffered(READ_AT_ONCE);
    let mut found = Vec::new();
    while let Some(read) = reading.next().await {
        found.extend(read);
    }
    Ok(found)
}

/// Reads the backup in one folder, whose names say nothing: somebody may have moved it.
pub async fn read_place(place: Place) -> Result<Backup, Error> {
    let (prefix, store) = (place.prefix(), place.store().describe());
    let listing = place.store().list(&prefix);
    let mut objects = within(STALL, &store, format!("list {prefix:?}"), listing).await?;
    let all = objects.len();
    objects.retain(|object| {
        let inside = &object.key.as_str()[prefix.len()..];
        !inside.trim_start_matches('/').contains('/')
    });
    let inside = all > objects.len();
    let sizes = sizes(&objects);
    if !sizes.contains_key(MANIFEST) {
        if let Some(data) = sizes.keys().find(|name| name.starts_with("dump.rdb")) {
            let data = format!("{}/{data}", place.describe());
            return Err(missing_manifest(place.describe(), &data));
        }
        return Err(Error::NotFound {
            what: format!("in {}: it has no {MANIFEST}", place.describe()),
            hint: match inside {
                true => "name the folder within it that holds manifest.json, or an RDB file",
                false => "name the folder that holds manifest.json, or an RDB file",
            }
            .to_owned(),
        });
    }
    read(&place, &sizes, None).await
}

/// The error of a folder that has data and no manifest.
pub(super) fn missing_manifest(backup: String, data: &str) -> Error {
    Error::Damaged {
        backup,
        why: format!(
            "it is missing, though {data} is there: the backup was never finished, or its manifest was removed"
        ),
    }
}

struct Folder {
    database: String,
    id: BackupId,
    sizes: BTreeMap<String, u64>,
}

fn sizes(objects: &[ObjectMeta]) -> BTreeMap<String, u64> {
    let name = |object: &ObjectMeta| object.key.as_str().rsplit('/').next().map(str::to_owned);
    objects
        .iter()
        .filter_map(|object| Some((name(object)?, object.bytes)))
        .collect()
}

/// Groups objects by backup folder; what does not look like `<database>/<id>/<object>` is not ours.
fn folders(objects: &[ObjectMeta]) -> Vec<Folder> {
    let mut folders = BTreeMap::<(&str, BackupId), BTreeMap<String, u64>>::new();
    for object in objects {
        let mut segments = object.key.as_str().split('/');
        let (Some(database), Some(id), Some(name), None) = (
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
        ) else {
            continue;
        };
        if let Ok(id) = id.parse() {
            let sizes = folders.entry((database, id)).or_default();
            sizes.insert(name.to_owned(), object.bytes);
        }
    }
    folders
        .into_iter()
        .filter(|(_, sizes)| sizes.contains_key(MANIFEST))
        .map(|((database, id), sizes)| Folder {
            database: database.to_owned(),
            id,
            sizes,
        })
        .collect()
}

/// Reads a folder's manifest. `None` when it vanished since it was listed: it was deleted meanwhile.
async fn read_folder(storage: &NamedStore, folder: Folder) -> Option<Result<Backup, Broken>> {
    let Folder {
        database,
        id,
        sizes,
    } = folder;
    let place = Place::new(storage.clone(), [database.as_str(), id.as_str()]);
    match read(&place, &sizes, Some((&database, &id))).await {
        Ok(backup) => Some(Ok(backup)),
        Err(Error::Storage(error)) if error.problem == storage::Problem::NotFound => None,
        Err(error) => Some(Err(Broken {
            place,
            database,
            id,
            error,
        })),
    }
}

async fn read(
    place: &Place,
    sizes: &BTreeMap<String, u64>,
    named: Option<(&str, &BackupId)>,
) -> Result<Backup, Error> {
    let (key, store) = (place.key(MANIFEST)?, place.store().describe());
    let getting = storage::get(place.store().as_ref(), &key, LIMIT_BYTES);
    let bytes = within(STALL, &store, format!("read {key}"), getting).await?;
    let backup = || place.describe();
    let damaged = |why: String| Error::Damaged {
        backup: backup(),
        why,
    };
    let manifest = match Manifest::read(&bytes) {
        Read::Whole(manifest) => *manifest,
        Read::Newer { format } => {
            return Err(Error::Newer {
                backup: backup(),
                format,
            });
        }
        Read::Damaged(why) => return Err(damaged(why)),
    };
    if let Some((database, id)) = named
        && (manifest.database != database || manifest.id != *id)
    {
        return Err(damaged(format!(
            "it is the manifest of {}/{}",
            manifest.database, manifest.id
        )));
    }
    match sizes.get(&manifest.data.object) {
        None => return Err(damaged(format!("{} is missing", manifest.data.object))),
        Some(&bytes) if bytes != manifest.data.bytes => {
            return Err(damaged(format!(
                "{} has {bytes} bytes, and the manifest says {}",
                manifest.data.object, manifest.data.bytes
            )));
        }
        Some(_) => {}
    }
    Ok(Backup {
        place: place.clone(),
        manifest,
        pinned: sizes.contains_key(PINNED),
        accepted: sizes.contains_key(ACCEPTED),
        damaged: sizes.contains_key(DAMAGED),
        shrunk: false,
        fetched: None,
    })
}

/// Marks which of one database's backups in one storage, oldest first, are shrunk: fewer than
/// `guard` times the keys of the newest one before that is not itself shrunk.
pub fn mark_shrunk<'a>(backups: impl IntoIterator<Item = &'a mut Backup>, guard: f64) {
    let mut baseline = None;
    for backup in backups {
        if backup.damaged {
            continue;
        }
        let keys = backup.manifest.rdb.keys;
        backup.shrunk =
            !backup.accepted && baseline.is_some_and(|before| is_shrunk(keys, before, guard));
        if !backup.shrunk {
            baseline = Some(keys);
        }
    }
}

impl Listing {
    /// Makes sure that no other host than this one took any of these backups.
    ///
    /// # Errors
    /// [`Error::Foreign`] when one did.
    pub fn must_be_of(&self, host: &str) -> Result<(), Error> {
        let mut newest_first = self.backups.iter().rev();
        match newest_first.find(|backup| backup.manifest.host != host) {
            None => Ok(()),
            Some(backup) => Err(Error::Foreign {
                storage: backup.place.storage().to_owned(),
                database: backup.manifest.database.clone(),
                host: backup.manifest.host.clone(),
                here: host.to_owned(),
            }),
        }
    }

    /// Orders both lists, oldest first. IDs alone tell no order within a second; manifests do.
    pub fn sort(&mut self) {
        let began = |backup: &Backup| (backup.manifest.started_at, backup.manifest.id.clone());
        self.backups.sort_by_key(began);
        self.broken.sort_by(|a, b| a.id.cmp(&b.id));
    }

    /// Marks the shrunk backups of every database and storage; `guard` gives a database's own.
    pub fn mark_shrunk(&mut self, guard: impl Fn(&str) -> f64) {
        let groups: BTreeSet<(String, String)> = self
            .backups
            .iter()
            .map(|backup| {
                (
                    backup.place.storage().to_owned(),
                    backup.manifest.database.clone(),
                )
            })
            .collect();
        for (storage, database) in groups {
            let of_group = self.backups.iter_mut().filter(|backup| {
                backup.place.storage() == storage && backup.manifest.database == database
            });
            mark_shrunk(of_group, guard(&database));
        }
    }
}
