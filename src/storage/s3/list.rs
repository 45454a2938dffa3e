//! What is in the bucket below our prefix: objects, and uploads that were never finished. Keys that cannot be ours
//! are passed over.

use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::MultipartUpload;
use jiff::Timestamp;

use super::S3Store;
use super::error::Fault;
use crate::storage::{Error, ObjectKey, ObjectMeta, Unfinished};

/// A time as the SDK has it.
fn timestamp(time: Option<&DateTime>) -> Timestamp {
    time.and_then(|time| {
        let nanos = i32::try_from(time.subsec_nanos()).ok()?;
        Timestamp::new(time.secs(), nanos).ok()
    })
    // What has no time is never old: nothing is removed for it.
    .unwrap_or(Timestamp::MAX)
}

fn size(bytes: Option<i64>) -> u64 {
    bytes
        .and_then(|bytes| u64::try_from(bytes).ok())
        .unwrap_or(0)
}

impl S3Store {
    pub(super) async fn list_below(&self, prefix: &str) -> Result<Vec<ObjectMeta>, Error> {
        let action = match prefix {
            "" => "list what is there".to_owned(),
            prefix => format!("list {prefix}"),
        };
        let mut found = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let page = self
                .connection()
                .await?
                .client
                .list_objects_v2()
                .bucket(&self.config().bucket)
                .prefix(self.below(prefix))
                .set_continuation_token(token.take())
                .send()
                .await
                .map_err(|error| self.told(error, &action, "s3:ListBucket"))?;
            for object in page.contents() {
                let Some(key) = object.key().and_then(|key| self.own(key)) else {
                    continue;
                };
                found.push(ObjectMeta {
                    key,
                    bytes: size(object.size()),
                    modified: timestamp(object.last_modified()),
                });
            }
            let more = page.is_truncated().unwrap_or(false);
            token = page.next_continuation_token.filter(|_| more);
            if token.is_none() {
                return Ok(found);
            }
        }
    }

    /// The size of one object, by a listing.
    pub(super) async fn listed_bytes(&self, key: &ObjectKey) -> Result<Option<u64>, Error> {
        let folder = key
            .as_str()
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder);
        let all = self.list_below(folder).await?;
        let found = all.iter().find(|object| object.key == *key);
        Ok(found.map(|object| object.bytes))
    }

    pub(super) async fn uploads_below(&self, prefix: &str) -> Result<Vec<Unfinished>, Error> {
        let action = format!("look for what is unfinished in {prefix}");
        let mut found = Vec::new();
        let mut marker: (Option<String>, Option<String>) = (None, None);
        loop {
            let page = self
                .connection()
                .await?
                .client
                .list_multipart_uploads()
                .bucket(&self.config().bucket)
                .prefix(self.below(prefix))
                .set_key_marker(marker.0.take())
                .set_upload_id_marker(marker.1.take())
                .send()
                .await;
            let page = match page {
                Ok(page) => page,
                Err(error) => {
                    let fault = Fault::from(error);
                    if fault.is_unknown_to_server() {
                        return Ok(found);
                    }
                    return Err(self.told(fault, &action, "s3:ListBucketMultipartUploads"));
                }
            };
            for upload in page.uploads() {
                if let Some(unfinished) = self.unfinished_of(upload, &action).await? {
                    found.push(unfinished);
                }
            }
            let more = page.is_truncated().unwrap_or(false);
            marker = (
                page.next_key_marker.filter(|_| more),
                page.next_upload_id_marker.filter(|_| more),
            );
            if marker.0.is_none() {
                return Ok(found);
            }
        }
    }

    /// What an upload takes; `None` when it is none of ours, or gone by now.
    async fn unfinished_of(
        &self,
        upload: &MultipartUpload,
        action: &str,
    ) -> Result<Option<Unfinished>, Error> {
        let (Some(full), Some(id)) = (upload.key(), upload.upload_id()) else {
            return Ok(None);
        };
        let Some(key) = self.own(full) else {
            return Ok(None);
        };
        let mut bytes = 0;
        let mut modified = timestamp(upload.initiated());
        let mut marker: Option<String> = None;
        loop {
            let page = self
                .connection()
                .await?
                .client
                .list_parts()
                .bucket(&self.config().bucket)
                .key(full)
                .upload_id(id)
                .set_part_number_marker(marker.take())
                .send()
                .await;
            let page = match page {
                Ok(page) => page,
                Err(error) => {
                    let fault = Fault::from(error);
                    if fault.status() == 404 {
                        return Ok(None);
                    }
                    return Err(self.told(fault, action, "s3:ListMultipartUploadParts"));
                }
            };
            for part in page.parts() {
                bytes += size(part.size());
                modified = modified.max(timestamp(part.last_modified()));
            }
            let more = page.is_truncated().unwrap_or(false);
            marker = page.next_part_number_marker.filter(|_| more);
            if marker.is_none() {
                return Ok(Some(Unfinished {
                    key,
                    handle: id.to_owned(),
                    bytes,
                    modified,
                }));
            }
        }
    }
}
