//! What a person or a verification says of a backup: a small object beside the manifest, which itself never changes.
//!
//! A marker says nothing without a backup, so one that is set while the backup is being removed is taken back
//! and told as [`Error::NotFound`]. [`commit::prune`](super::commit::prune) is the other half of that bargain.

use bytes::Bytes;

use super::list::{ACCEPTED, DAMAGED, PINNED, Place};
use super::{Error, MANIFEST};
use crate::stage;
use crate::storage::{Problem, STALL, within};

/// What can be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// Prune never removes it.
    Pinned,
    /// It is as small as it should be.
    Accepted,
    /// A verification found damage: it counts for nothing, and never goes by itself.
    Damaged,
}

impl Marker {
    /// The name of its object, which is also the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Marker::Pinned => PINNED,
            Marker::Accepted => ACCEPTED,
            Marker::Damaged => DAMAGED,
        }
    }
}

/// Whether a marker had to be touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was as it should be.
    None,
    /// It is now.
    Made,
}

/// Marks a backup. [`Error::NotFound`] where none is listed.
pub async fn set(place: &Place, marker: Marker) -> Result<Change, Error> {
    if has(place, marker).await? {
        return Ok(Change::None);
    }
    let key = place.key(marker.as_str())?;
    let store = place.store().describe();
    let writing = place.store().put_new(&key, Bytes::new());
    let change = match within(STALL, &store, format!("write {key}"), writing).await {
        Ok(()) => Change::Made,
        Err(error) if error.problem == Problem::Exists => Change::None,
        Err(error) => return Err(error.into()),
    };
    stage::reached("marked");
    match has(place, marker).await {
        Ok(_) => Ok(change),
        Err(error) => {
            if matches!(error, Error::NotFound { .. }) {
                let deleting = place.store().delete(&key);
                within(STALL, &store, format!("delete {key}"), deleting).await?;
            }
            Err(error)
        }
    }
}

/// Takes a marker off a backup. [`Error::NotFound`] where none is listed.
pub async fn clear(place: &Place, marker: Marker) -> Result<Change, Error> {
    if !has(place, marker).await? {
        return Ok(Change::None);
    }
    let (key, store) = (place.key(marker.as_str())?, place.store().describe());
    let deleting = place.store().delete(&key);
    within(STALL, &store, format!("delete {key}"), deleting).await?;
    Ok(Change::Made)
}

/// Whether the backup has the marker; [`Error::NotFound`] when there is no backup.
async fn has(place: &Place, marker: Marker) -> Result<bool, Error> {
    let (prefix, store) = (place.prefix(), place.store().describe());
    let listing = place.store().list(&prefix);
    let objects = within(STALL, &store, format!("list {prefix:?}"), listing).await?;
    let there = |name: &str| -> Result<bool, Error> {
        let key = place.key(name)?;
        Ok(objects.iter().any(|object| object.key == key))
    };
    match there(MANIFEST)? {
        true => there(marker.as_str()),
        false => Err(Error::NotFound {
            what: format!("in {}", place.describe()),
            hint: "`rdbkeeper backup list` shows which there are".to_owned(),
        }),
    }
}
