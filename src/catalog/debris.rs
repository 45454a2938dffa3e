//! What backups that never were have left: folders without a manifest, and what a store began and never finished.
//!
//! No listing shows it; it only costs room. The trap is that a backup which is being made looks just like it, so
//! a folder counts as debris when everything in it is older, by the store's own clock, than any backup may take.
//! And a folder that holds anything which is not ours, or that a person pinned, is left alone.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::lease::Lease;
use super::list::{MARKERS, PINNED, Place};
use super::{BackupId, Error, MANIFEST, Manifest, lease};
use crate::storage::{NamedStore, ObjectMeta, Problem, Unfinished};

/// No debris is younger than this.
const LEAST_AGE: Duration = Duration::from_secs(24 * 3600);

/// How old debris of a database must be whose backups may take so long: a day, and twice that time.
pub fn age(timeout: Duration) -> Duration {
    LEAST_AGE.max(timeout.saturating_mul(2))
}

/// Whether an object's name is one that a backup's folder has.
pub fn is_ours(name: &str) -> bool {
    let data = |suffix: &str| {
        matches!(
            suffix,
            "" | ".zst" | ".gz" | ".age" | ".zst.age" | ".gz.age"
        )
    };
    name == MANIFEST || MARKERS.contains(&name) || name.strip_prefix("dump.rdb").is_some_and(data)
}

/// What may be debris in one folder.
#[derive(Clone, Debug)]
pub struct Debris {
    /// The folder.
    pub place: Place,
    objects: Vec<ObjectMeta>,
    unfinished: Vec<Unfinished>,
}

/// How much was removed, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Amount {
    /// Folders, or what was left in them.
    pub folders: u64,
    /// Bytes that they took.
    pub bytes: u64,
}

impl Debris {
    /// Its last sign of life, by the store's clock.
    fn modified(&self) -> Timestamp {
        let objects = self.objects.iter().map(|object| object.modified);
        let unfinished = self.unfinished.iter().map(|unfinished| unfinished.modified);
        objects.chain(unfinished).max().unwrap_or(Timestamp::MAX)
    }

    /// Whether it is older than `age` at `now`, by the store's clock.
    pub fn is_ripe(&self, now: Timestamp, age: Duration) -> bool {
        let age = SignedDuration::try_from(age).unwrap_or(SignedDuration::MAX);
        now.duration_since(self.modified()) > age
    }

    /// The bytes that it takes.
    pub fn bytes(&self) -> u64 {
        let objects = self.objects.iter().map(|object| object.bytes);
        let unfinished = self.unfinished.iter().map(|unfinished| unfinished.bytes);
        objects.chain(unfinished).sum()
    }
}

/// Finds what may be debris of a database, of any age: without the store's clock none of it is.
pub async fn find(storage: &NamedStore, database: &str) -> Result<Vec<Debris>, Error> {
    // In this order: what is finished in between is then seen as an object, and not as nothing.
    let unfinished = storage.store.unfinished(database).await?;
    let objects = storage.store.list(database).await?;
    let mut folders: BTreeMap<String, (Vec<ObjectMeta>, Vec<Unfinished>)> = BTreeMap::new();
    let mut keep_off: Vec<String> = Vec::new();
    let mut whole: Vec<String> = Vec::new();
    for object in objects {
        let Some((folder, name)) = of_folder(database, object.key.as_str()) else {
            continue;
        };
        // The lease looks after itself.
        if folder == lease::FOLDER {
            continue;
        }
        match name {
            MANIFEST => whole.push(folder.to_owned()),
            PINNED => keep_off.push(folder.to_owned()),
            name if !is_ours(name) => keep_off.push(folder.to_owned()),
            _ => {}
        }
        let folder = folder.to_owned();
        folders.entry(folder).or_default().0.push(object);
    }
    // What lies beside a manifest belongs to a backup.
    for folder in &whole {
        if let Some((objects, _)) = folders.get_mut(folder) {
            objects.clear();
        }
    }
    for folder in &keep_off {
        if let Some((objects, _)) = folders.get_mut(folder)
            && !objects.is_empty()
        {
            tracing::warn!(
                "{}/{database}/{folder} has no manifest, and is left because it is pinned or holds something else",
                storage.store.describe()
            );
            objects.clear();
        }
    }
    for unfinished in unfinished {
        let key = unfinished.key.as_str();
        let folder = match of_folder(database, key) {
            Some((folder, _)) => folder,
            // The folder itself, which is empty.
            None => match key
                .strip_prefix(database)
                .and_then(|key| key.strip_prefix('/'))
            {
                Some(folder) if is_folder(folder) => folder,
                _ => continue,
            },
        };
        let folder = folder.to_owned();
        folders.entry(folder).or_default().1.push(unfinished);
    }
    let debris = folders
        .into_iter()
        .map(|(folder, (objects, unfinished))| Debris {
            place: Place::new(storage.clone(), [database.to_owned(), folder]),
            objects,
            unfinished,
        });
    let something = |debris: &Debris| !debris.objects.is_empty() || !debris.unfinished.is_empty();
    Ok(debris.filter(something).collect())
}

/// Removes debris, and says how much went: what the storage must keep for now stays.
pub async fn sweep(debris: &Debris) -> Result<Amount, Error> {
    let (mut bytes, mut left) = (debris.bytes(), 0);
    for object in &debris.objects {
        match debris.place.store().delete(&object.key).await {
            Ok(()) => {}
            Err(error) if error.problem == Problem::Locked => {
                bytes -= object.bytes;
                left += 1;
            }
            Err(error) => return Err(error.into()),
        }
    }
    for unfinished in &debris.unfinished {
        debris.place.store().discard(unfinished).await?;
    }
    let went = debris.objects.len() + debris.unfinished.len() - left;
    Ok(Amount {
        folders: u64::from(went > 0),
        bytes,
    })
}

/// Removes what an unfinished copy has left in a folder that holds no manifest, whatever its age, while nobody prunes.
///
/// # Errors
/// [`Error::Leased`] while somebody prunes.
pub async fn clear(
    place: &Place,
    storage: &NamedStore,
    of: &Manifest,
    host: &str,
) -> Result<(), Error> {
    let lease = Lease::take(storage, &of.database, host).await?;
    let cleared = async {
        let objects = place.store().list(&place.prefix()).await?;
        let (manifest, data) = (place.key(MANIFEST)?, place.key(&of.data.object)?);
        if !objects.iter().any(|object| object.key == manifest) {
            place.store().delete(&data).await?;
        }
        Ok(())
    };
    let cleared: Result<(), Error> = cleared.await;
    let released = lease.release().await;
    cleared.and(released)
}

/// The folder below a database's own, and the rest of the key, where the folder is a backup's or the lease's.
fn of_folder<'k>(database: &str, key: &'k str) -> Option<(&'k str, &'k str)> {
    let below = key.strip_prefix(database)?.strip_prefix('/')?;
    let (folder, name) = below.split_once('/')?;
    is_folder(folder).then_some((folder, name))
}

fn is_folder(folder: &str) -> bool {
    folder == lease::FOLDER || folder.parse::<BackupId>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_names_that_a_backup_has_are_ours() {
        for ours in [
            "manifest.json",
            "pinned",
            "accepted",
            "damaged",
            "dump.rdb",
            "dump.rdb.zst",
            "dump.rdb.gz.age",
        ] {
            assert!(is_ours(ours), "{ours}");
        }
        for foreign in ["notes.txt", "dump.rdb.bak", "dump.rdb.zst.part", "x/y", ""] {
            assert!(!is_ours(foreign), "{foreign}");
        }
    }

    #[test]
    fn debris_is_older_than_a_day_and_than_twice_what_a_backup_may_take() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        assert_eq!(age(hours(1)), hours(24));
        assert_eq!(age(hours(12)), hours(24));
        assert_eq!(age(hours(30)), hours(60));
        assert_eq!(age(Duration::MAX), Duration::MAX);
    }
}
