//! Making a backup exist, and making it go.
//!
//! The order is the promise. A backup comes data first, manifest last; it goes manifest first, data
//! last. Whatever interrupts either, what is listed is whole.

use futures_util::future::join_all;

use super::list::Place;
use super::manifest::{LIMIT_BYTES, Read};
use super::{BackupId, Error, MANIFEST, Manifest};
use crate::stage;
use crate::storage::{self, NamedStore, ObjectKey, Problem, Upload};

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
    let Prepared { place, upload } = prepared;
    stage::reached("before-data");
    upload.finish().await?;
    stage::reached("before-manifest");
    let put = put_manifest(&place, manifest).await;
    if put.is_err()
        && let Err(error) = take_back(&place, manifest).await
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

/// Removes what a failed commit left, in an order that lists nothing broken: writing a manifest can
/// fail after it has appeared. One that was there before under this ID is not ours to remove.
async fn take_back(place: &Place, manifest: &Manifest) -> Result<(), storage::Error> {
    let key = place.key(MANIFEST)?;
    match storage::get(place.store().as_ref(), &key, LIMIT_BYTES).await {
        Ok(there) => match Manifest::read(&there) {
            Read::Whole(there) if *there == *manifest => place.store().delete(&key).await?,
            _ => return Ok(()),
        },
        Err(error) if error.problem == Problem::NotFound => {}
        Err(error) => return Err(error),
    }
    place
        .store()
        .delete(&place.key(&manifest.data.object)?)
        .await
}

async fn put_manifest(place: &Place, manifest: &Manifest) -> Result<(), Error> {
    let bytes = manifest.to_bytes().map_err(|error| Error::Damaged {
        backup: manifest.id.to_string(),
        why: error.to_string(),
    })?;
    let key = place.key(MANIFEST)?;
    place.store().put_new(&key, bytes.into()).await?;
    Ok(())
}

/// Removes a backup for good: its manifest first, so that it is never listed half.
pub async fn delete(place: &Place) -> Result<(), Error> {
    let objects = place.store().list(&place.prefix()).await?;
    place.store().delete(&place.key(MANIFEST)?).await?;
    let rest = objects
        .iter()
        .filter(|object| object.key.as_str().rsplit('/').next() != Some(MANIFEST));
    for deleted in join_all(rest.map(|object| place.store().delete(&object.key))).await {
        deleted?;
    }
    Ok(())
}

/// Where a new backup goes in each of these storages.
pub fn places(storages: &[NamedStore], database: &str, id: &BackupId) -> Vec<Place> {
    storages
        .iter()
        .map(|storage| Place::new(storage.clone(), [database, id.as_str()]))
        .collect()
}
