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

/// Makes the data appear, then the manifest. When this fails the backup is not listed, and what
/// could be removed of it is gone.
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
    let put = async {
        must_have_its_data(&place, manifest).await?;
        put_manifest(&place, &bytes).await
    };
    let put = put.await;
    if put.is_err()
        && let Err(error) = within(
            STALL,
            &store,
            "take it back",
            take_back(&place, manifest, &bytes),
        )
        .await
    {
        // Debris: it costs room until it is swept.
        tracing::warn!(
            "{error}: an unfinished backup stays in {}",
            place.describe()
        );
    }
    stage::reached("after-manifest");
    put
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

/// Removes what a failed commit left, in an order that lists nothing broken: writing a manifest can
/// fail after it has appeared. One that was there before under this ID is not ours to remove.
async fn take_back(
    place: &Place,
    manifest: &Manifest,
    bytes: &Bytes,
) -> Result<(), storage::Error> {
    let key = place.key(MANIFEST)?;
    match storage::get(place.store().as_ref(), &key, LIMIT_BYTES).await {
        Ok(there) if there == *bytes => place.store().delete(&key).await?,
        Ok(_) => return Ok(()),
        Err(error) if error.problem == Problem::NotFound => {}
        Err(error) => return Err(error),
    }
    place
        .store()
        .delete(&place.key(&manifest.data.object)?)
        .await
}

async fn put_manifest(place: &Place, bytes: &Bytes) -> Result<(), Error> {
    let key = place.key(MANIFEST)?;
    let (store, put) = (
        place.store().describe(),
        place.store().put_new(&key, bytes.clone()),
    );
    match within(STALL, &store, format!("write {key}"), put).await {
        // Whoever copies the same backup at the same time writes the same.
        Err(error) if error.problem == Problem::Exists => {
            match storage::get(place.store().as_ref(), &key, LIMIT_BYTES).await {
                Ok(there) if there == *bytes => Ok(()),
                _ => Err(error.into()),
            }
        }
        put => Ok(put?),
    }
}

/// Removes a backup for good: its manifest first, so that it is never listed half.
pub async fn delete(place: &Place) -> Result<(), Error> {
    let objects = place.store().list(&place.prefix()).await?;
    place.store().delete(&place.key(MANIFEST)?).await?;
    // Markers before data: what is left when this is interrupted must not look pinned.
    let (markers, data): (Vec<_>, Vec<_>) = objects
        .iter()
        .filter(|object| name_of(object) != MANIFEST)
        .partition(|object| MARKERS.contains(&name_of(object)));
    for rest in [markers, data] {
        for deleted in join_all(rest.iter().map(|object| place.store().delete(&object.key))).await {
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
    stage::reached("prune-before-manifest");
    lease.look().await?;
    match place.store().delete(&key).await {
        Ok(()) => {}
        Err(error) if error.problem == Problem::Locked => {
            let why = error.source.map_or_else(String::new, |why| why.to_string());
            let why = why.strip_prefix("it is ").unwrap_or("locked").to_owned();
            return Ok(Pruned::Locked { why });
        }
        Err(error) => return Err(error.into()),
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
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::catalog::manifest::{Data, FORMAT, Rdb, Source};
    use crate::pipeline::Compression;
    use crate::storage::LocalStore;

    #[tokio::test]
    async fn data_that_gets_no_manifest_is_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let storage = NamedStore {
            name: "disk".to_owned(),
            store: Arc::new(LocalStore::new(folder.path())),
        };
        let id = BackupId::new(Timestamp::now()).unwrap();
        let place = places(&[storage], "web", &id).remove(0);
        let manifest = Manifest {
            format: FORMAT,
            started_at: id.time(),
            snapshot_at: id.time(),
            finished_at: id.time(),
            id,
            database: "web".to_owned(),
            host: "here".to_owned(),
            tool: "rdbkeeper 0.1.0".to_owned(),
            source: Source::default(),
            method: "scan".to_owned(),
            consistency: "fuzzy".to_owned(),
            rdb: Rdb::default(),
            data: Data {
                object: "dump.rdb".to_owned(),
                bytes: 4,
                sha256: String::new(),
                plain_bytes: 4,
                plain_sha256: String::new(),
                compression: Compression::None,
                encryption: None,
                recipients: Vec::new(),
                header_bytes: None,
                header_sha256: None,
            },
        };
        let key = place.key("dump.rdb").unwrap();
        let mut upload = place.store().upload(&key).await.unwrap();
        upload.part(b"data".as_slice().into()).await.unwrap();
        // A folder that cannot be listed once the data is there.
        let backup = folder.path().join(place.prefix());
        let (data, knot) = (backup.join("dump.rdb"), backup.join("knot"));
        let there = data.clone();
        crate::stage::at("before-manifest", move || {
            if there.exists() {
                let _ = std::os::unix::fs::symlink(&knot, &knot);
            }
        });
        let error = commit(Prepared { place, upload }, &manifest).await;
        assert!(matches!(error, Err(Error::Storage(_))), "{error:?}");
        assert!(!data.exists());
        assert!(!backup.join(MANIFEST).exists());
    }
}
