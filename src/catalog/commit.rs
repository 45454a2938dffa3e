//! Making a backup exist, and making it go.
//!
//! The order is the promise. A backup comes data first, manifest last; it goes manifest first, data
//! last. Whatever interrupts either, what is listed is whole.

use bytes::Bytes;
use futures_util::future::join_all;

use super::debris::is_ours;
use super::lease::Lease;
use super::list::{Backup, MARKERS, PINNED, Place};
use super::manifest::LIMIT_BYTES;
use super::{BackupId, Error, MANIFEST, Manifest};
use crate::stage;
use crate::storage::{
    self, NamedStore, ObjectKey, ObjectMeta, Problem, STALL, TRANSFER, Upload, within,
};

/// Data that is fully written, in one storage, and waits for its manifest.
pub struct Prepared {
    /// Where it is.
    pub place: Place,
    /// The data's upload, not yet finished.
    pub upload: Box<dyn Upload>,
}

/// The key of a backup's data or manifest.
pub fn key(database: &str, id: &BackupId, object: &str) -> Result<ObjectKey, storage::Error> {
    ObjectKey::new([database, id.as_str(), object])
}

/// Makes the data appear, then the manifest. When this fails the backup is not listed, and what could be removed of it
/// is gone, unless a storage did not answer: a manifest that comes late must find its data.
pub async fn commit(prepared: Prepared, manifest: &Manifest) -> Result<(), Error> {
    let bytes = manifest.to_bytes().map_err(|error| Error::Damaged {
        backup: manifest.id.to_string(),
        why: error.to_string(),
    })?;
    commit_copy(prepared, manifest, bytes.into()).await
}

/// The same with a manifest that was written before, by a later version perhaps: `bytes` is what it was read from.
pub async fn commit_copy(
    prepared: Prepared,
    manifest: &Manifest,
    bytes: Bytes,
) -> Result<(), Error> {
    let Prepared { place, upload } = prepared;
    stage::reached("before-data");
    let store = place.store().describe();
    within(TRANSFER, &store, "finish the data", upload.finish()).await?;
    stage::reached("before-manifest");
    let written = match must_have_its_data(&place, manifest).await {
        Ok(()) => match put_manifest(&place, &bytes).await {
            Ok(()) => Ok(()),
            Err(error) => after_all(&place, manifest, &bytes, error).await,
        },
        // Whoever swept it may be writing it anew.
        Err(error @ Error::Swept { .. }) => Err(error),
        Err(error) => {
            take_back(&place, manifest).await;
            Err(error)
        }
    };
    let done = match written {
        Ok(()) => must_still_have_its_data(&place, manifest).await,
        Err(error) => Err(error),
    };
    stage::reached("after-manifest");
    done
}

/// A process that stood still here for longer than a day may find that its data was taken for debris.
async fn must_have_its_data(place: &Place, manifest: &Manifest) -> Result<(), Error> {
    let key = place.key(&manifest.data.object)?;
    let (prefix, store) = (place.prefix(), place.store().describe());
    let listing = place.store().list(&prefix);
    let objects = within(STALL, &store, format!("list {prefix:?}"), listing).await?;
    match objects.iter().any(|object| object.key == key) {
        true => Ok(()),
        false => Err(Error::Swept {
            backup: place.describe(),
        }),
    }
}

/// The same once the manifest is there: whoever copies the same backup may have removed the data as debris meanwhile.
async fn must_still_have_its_data(place: &Place, manifest: &Manifest) -> Result<(), Error> {
    match must_have_its_data(place, manifest).await {
        Err(error @ Error::Swept { .. }) => {
            let (key, store) = (place.key(MANIFEST)?, place.store().describe());
            let deletion = place.store().delete(&key);
            within(STALL, &store, format!("delete {key}"), deletion).await?;
            Err(error)
        }
        // It was there, and so is the manifest: that a storage cannot be listed now takes nothing away.
        Err(error) => {
            tracing::debug!("{error}: {} is taken for whole", place.describe());
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Writing a manifest can fail after it has appeared: then the backup is whole. Whoever copies the same backup at the
/// same time writes the same, too.
async fn after_all(
    place: &Place,
    manifest: &Manifest,
    bytes: &Bytes,
    error: storage::Error,
) -> Result<(), Error> {
    let (key, store) = (place.key(MANIFEST)?, place.store().describe());
    let getting = storage::get(place.store().as_ref(), &key, LIMIT_BYTES);
    match within(STALL, &store, format!("read {key}"), getting).await {
        Ok(there) if there == *bytes => return Ok(()),
        // One that was there before under this ID is not ours to remove, nor is its data.
        Ok(_) => {}
        // A request without an answer may still be done, and then needs the data.
        Err(missing)
            if missing.problem == Problem::NotFound && error.problem != Problem::Unavailable =>
        {
            take_back(place, manifest).await;
        }
        Err(_) => tracing::warn!(
            "it is not known whether {key} was written: what there is of the backup stays in {}",
            place.describe()
        ),
    }
    Err(error.into())
}

/// Removes the data of a backup that has no manifest.
async fn take_back(place: &Place, manifest: &Manifest) {
    let store = place.store().describe();
    let taken = async {
        let key = place.key(&manifest.data.object)?;
        place.store().delete(&key).await
    };
    if let Err(error) = within(STALL, &store, "take it back", taken).await {
        // Debris: it costs room until it is swept.
        tracing::warn!(
            "{error}: an unfinished backup stays in {}",
            place.describe()
        );
    }
}

async fn put_manifest(place: &Place, bytes: &Bytes) -> Result<(), storage::Error> {
    let key = place.key(MANIFEST)?;
    let (store, put) = (
        place.store().describe(),
        place.store().put_new(&key, bytes.clone()),
    );
    within(TRANSFER, &store, format!("write {key}"), put).await
}

/// Removes a backup for good: its manifest first, so that it is never listed half.
pub async fn delete(place: &Place) -> Result<(), Error> {
    let (prefix, store) = (place.prefix(), place.store().describe());
    let listing = place.store().list(&prefix);
    let objects = within(STALL, &store, format!("list {prefix:?}"), listing).await?;
    let delete = async |key: &ObjectKey| {
        let deleting = place.store().delete(key);
        within(STALL, &store, format!("delete {key}"), deleting).await
    };
    // Data alone may be locked: then the backup stays as it was.
    for object in &objects {
        let may = place.store().may_delete(&object.key);
        within(STALL, &store, format!("delete {}", object.key), may).await?;
    }
    delete(&place.key(MANIFEST)?).await?;
    // Markers before data: what is left when this is interrupted must not look pinned.
    let (markers, data): (Vec<_>, Vec<_>) = objects
        .iter()
        .filter(|object| name_of(object) != MANIFEST)
        .partition(|object| MARKERS.contains(&name_of(object)));
    for rest in [markers, data] {
        for deleted in join_all(rest.iter().map(|object| delete(&object.key))).await {
            deleted?;
        }
    }
    Ok(())
}

/// What came of removing a backup that no rule keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pruned {
    /// It is gone.
    Removed {
        /// The bytes that it took.
        bytes: u64,
    },
    /// A person pinned it meanwhile: it stays.
    Pinned,
    /// Somebody else removed it.
    Gone,
    /// The storage must keep it for now: it is as it was.
    Locked {
        /// As far as the storage tells: `locked until 2026-12-24T18:00:00Z`.
        why: String,
    },
}

/// Removes a backup that no rule keeps, unless it is pinned, even at the last moment: when a pin appears while the
/// manifest goes, the manifest is put back. Of what lies in its folder only what is ours goes.
///
/// # Errors
/// [`Error::LeaseLost`]: nothing more was removed.
pub async fn prune(backup: &Backup, lease: &mut Lease) -> Result<Pruned, Error> {
    let place = &backup.place;
    let key = place.key(MANIFEST)?;
    let pin = place.key(PINNED)?;
    let objects = place.store().list(&place.prefix()).await?;
    if !objects.iter().any(|object| object.key == key) {
        return Ok(Pruned::Gone);
    }
    if objects.iter().any(|object| object.key == pin) {
        return Ok(Pruned::Pinned);
    }
    let manifest = match storage::get(place.store().as_ref(), &key, LIMIT_BYTES).await {
        Ok(manifest) => manifest,
        Err(error) if error.problem == Problem::NotFound => return Ok(Pruned::Gone),
        Err(error) => return Err(error.into()),
    };
    // Data alone may be locked, and without its manifest it would be debris that cannot go.
    let data = place.key(&backup.manifest.data.object)?;
    if let Err(error) = place.store().may_delete(&data).await {
        return locked(error);
    }
    stage::reached("prune-before-manifest");
    lease.look().await?;
    if let Err(error) = place.store().delete(&key).await {
        return locked(error);
    }
    stage::reached("prune-manifest-gone");
    let objects = place.store().list(&place.prefix()).await?;
    if objects.iter().any(|object| object.key == pin) {
        return match place.store().put_new(&key, manifest).await {
            Ok(()) => Ok(Pruned::Pinned),
            Err(error) if error.problem == Problem::Exists => Ok(Pruned::Pinned),
            Err(error) => Err(error.into()),
        };
    }
    lease.look().await?;
    let mut bytes = manifest.len() as u64;
    for object in &objects {
        let name = name_of(object);
        if name == backup.manifest.data.object || is_ours(name) {
            match place.store().delete(&object.key).await {
                Ok(()) => bytes += object.bytes,
                // Without its manifest it is debris, and goes when it may.
                Err(error) if error.problem == Problem::Locked => {
                    tracing::warn!("{error}: it goes when its lock is over");
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(Pruned::Removed { bytes })
}

/// What a removal that the storage refuses comes to.
fn locked(error: storage::Error) -> Result<Pruned, Error> {
    if error.problem != Problem::Locked {
        return Err(error.into());
    }
    let why = error.source.map_or_else(String::new, |why| why.to_string());
    let why = why.strip_prefix("it is ").unwrap_or("locked").to_owned();
    Ok(Pruned::Locked { why })
}

fn name_of(object: &ObjectMeta) -> &str {
    object.key.as_str().rsplit('/').next().unwrap_or_default()
}

/// Where a new backup goes in each of these storages.
pub fn places(storages: &[NamedStore], database: &str, id: &BackupId) -> Vec<Place> {
    storages
        .iter()
        .map(|storage| Place::new(storage.clone(), [database, id.as_str()]))
        .collect()
}

#[cfg(test)]
mod tests;
