//! Removing an object for good.
//!
//! In a bucket with versions a plain deletion only puts a marker before the object, which stays and goes on costing.
//! So each version goes by its ID: the oldest first and markers last, so that one which is locked leaves what can be
//! seen as it was.

use aws_sdk_s3::types::ObjectLockLegalHoldStatus;
use jiff::Timestamp;

use super::client::DateTaker;
use super::error::Fault;
use super::{S3Store, Told};
use crate::storage::{Error, ObjectKey, Problem};

/// Whether a bucket keeps versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Versions {
    /// It does, or did.
    Kept,
    /// It does not, and never did.
    None,
    /// The server does not tell.
    Unknown,
}

/// The right that a removal needs.
const RIGHT: &str = "s3:DeleteObject";

const RIGHT_VERSION: &str = "s3:DeleteObjectVersion";

impl S3Store {
    pub(super) async fn versions(&self) -> Result<Versions, Error> {
        let find_out = || async {
            let asked = self
                .connection()
                .await?
                .client
                .get_bucket_versioning()
                .bucket(&self.config().bucket)
                .send()
                .await;
            match asked {
                Ok(found) if found.status().is_some() => Ok(Versions::Kept),
                Ok(_) => Ok(Versions::None),
                Err(error) => {
                    let fault = Fault::from(error);
                    match fault.status() {
                        403 | 404 | 405 | 501 if !fault.is(&["NoSuchBucket"]) => {
                            Ok(Versions::Unknown)
                        }
                        _ => {
                            let action = "ask whether it keeps versions";
                            Err(self.told(fault, action, "s3:GetBucketVersioning"))
                        }
                    }
                }
            }
        };
        self.inner.versions.get_or_try_init(find_out).await.copied()
    }

    pub(super) async fn remove(&self, key: &ObjectKey) -> Result<(), Error> {
        let action = format!("delete {key}");
        match self.versions().await? {
            Versions::None => return self.remove_plainly(key, &action).await,
            Versions::Kept | Versions::Unknown => {}
        }
        let kept = self.versions().await? == Versions::Kept;
        // Where it is not known whether there are versions, none listed says nothing of the object.
        let listed = self.versions_of(key, &action).await?;
        let Some(versions) = listed.filter(|listed| kept || !listed.is_empty()) else {
            return self.remove_plainly(key, &action).await;
        };
        for version in versions {
            self.remove_version(key, &version, &action).await?;
        }
        Ok(())
    }

    async fn remove_plainly(&self, key: &ObjectKey, action: &str) -> Result<(), Error> {
        let removed = self
            .connection()
            .await?
            .client
            .delete_object()
            .bucket(&self.config().bucket)
            .key(self.full(key.as_str()))
            .send()
            .await;
        match removed {
            Ok(_) => Ok(()),
            Err(error) => self.not_removed(key, None, error.into(), action).await,
        }
    }

    async fn remove_version(
        &self,
        key: &ObjectKey,
        version: &str,
        action: &str,
    ) -> Result<(), Error> {
        let removed = self
            .connection()
            .await?
            .client
            .delete_object()
            .bucket(&self.config().bucket)
            .key(self.full(key.as_str()))
            .version_id(version)
            .send()
            .await;
        match removed {
            Ok(_) => Ok(()),
            Err(error) => {
                self.not_removed(key, Some(version), error.into(), action)
                    .await
            }
        }
    }

    /// What is gone is fine; what may not go may be locked.
    async fn not_removed(
        &self,
        key: &ObjectKey,
        version: Option<&str>,
        fault: Fault,
        action: &str,
    ) -> Result<(), Error> {
        if fault.status() == 404 && !fault.is(&["NoSuchBucket"]) {
            return Ok(());
        }
        if matches!(fault.status(), 400 | 403 | 409)
            && let Some(why) = self.lock_of(key, version).await
        {
            return Err(Error::new(Problem::Locked, &self.inner.name, action).because(Told(why)));
        }
        let right = match version {
            Some(_) => RIGHT_VERSION,
            None => RIGHT,
        };
        Err(self.told(fault, action, right))
    }

    /// Whether an object is locked. Without versions nothing can be.
    pub(super) async fn must_be_unlocked(&self, key: &ObjectKey) -> Result<(), Error> {
        if self.versions().await? == Versions::None {
            return Ok(());
        }
        match self.lock_of(key, None).await {
            Some(why) => {
                let action = format!("delete {key}");
                Err(Error::new(Problem::Locked, &self.inner.name, action).because(Told(why)))
            }
            None => Ok(()),
        }
    }

    /// Why a version may not be removed, as far as the server tells.
    async fn lock_of(&self, key: &ObjectKey, version: Option<&str>) -> Option<String> {
        let connection = self.connection().await.ok()?;
        let taker = DateTaker::default();
        let found = connection
            .client
            .head_object()
            .bucket(&self.config().bucket)
            .key(self.full(key.as_str()))
            .set_version_id(version.map(str::to_owned))
            .customize()
            .interceptor(taker.clone())
            .send()
            .await
            .ok()?;
        if found.object_lock_legal_hold_status() == Some(&ObjectLockLegalHoldStatus::On) {
            return Some("it is under a legal hold".to_owned());
        }
        let until = found.object_lock_retain_until_date()?;
        let until = Timestamp::from_second(until.secs()).ok()?;
        // By the clock of who locks it.
        let now = taker.taken().unwrap_or_else(Timestamp::now);
        (until > now).then(|| format!("it is locked until {until}"))
    }

    /// The IDs of all versions of an object in the order in which they go; `None` where they cannot be listed.
    async fn versions_of(
        &self,
        key: &ObjectKey,
        action: &str,
    ) -> Result<Option<Vec<String>>, Error> {
        let full = self.full(key.as_str());
        let mut versions: Vec<(i64, u32, String)> = Vec::new();
        let mut markers: Vec<String> = Vec::new();
        let mut marker: (Option<String>, Option<String>) = (None, None);
        loop {
            let page = self
                .connection()
                .await?
                .client
                .list_object_versions()
                .bucket(&self.config().bucket)
                .prefix(&full)
                .set_key_marker(marker.0.take())
                .set_version_id_marker(marker.1.take())
                .send()
                .await;
            let page = match page {
                Ok(page) => page,
                Err(error) => return self.versions_not_listed(error.into(), action),
            };
            for version in page.versions() {
                if let (Some(name), Some(id)) = (version.key(), version.version_id())
                    && name == full
                {
                    let time = version.last_modified();
                    let secs = time.map_or(i64::MAX, aws_sdk_s3::primitives::DateTime::secs);
                    let nanos = time.map_or(0, aws_sdk_s3::primitives::DateTime::subsec_nanos);
                    versions.push((secs, nanos, id.to_owned()));
                }
            }
            for gone in page.delete_markers() {
                if let (Some(name), Some(id)) = (gone.key(), gone.version_id())
                    && name == full
                {
                    markers.push(id.to_owned());
                }
            }
            let more = page.is_truncated().unwrap_or(false);
            marker = (
                page.next_key_marker.filter(|_| more),
                page.next_version_id_marker.filter(|_| more),
            );
            if marker.0.is_none() {
                break;
            }
        }
        versions.sort();
        let mut all: Vec<String> = versions.into_iter().map(|(_, _, id)| id).collect();
        all.extend(markers);
        Ok(Some(all))
    }

    fn versions_not_listed(
        &self,
        fault: Fault,
        action: &str,
    ) -> Result<Option<Vec<String>>, Error> {
        let kept = self.inner.versions.get() == Some(&Versions::Kept);
        match fault.status() {
            403 | 405 | 501 => {
                if kept
                    && !self
                        .inner
                        .warned
                        .swap(true, std::sync::atomic::Ordering::Relaxed)
                {
                    tracing::warn!(
                        "{} keeps versions, and they cannot be listed: what is deleted there stays as a version and goes on costing; the right s3:ListBucketVersions would end that",
                        self.inner.name
                    );
                }
                Ok(None)
            }
            _ => Err(self.told(fault, action, "s3:ListBucketVersions")),
        }
    }
}
