//! An object that comes in parts: several on their way at once, in bounded memory.
//!
//! What fits in one part is one request. The trap is the end: completing an upload may take long, its answer may be
//! lost, and then the upload is not known any more: the object itself, by its token, says what became of it.

use std::collections::VecDeque;
use std::mem;

use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::task::JoinSet;

use super::body::{Parcel, Pulse};
use super::error::{Break, Fault};
use super::put::Token;
use super::{DATA, Keeping, S3Store, parts};
use crate::storage::{Error, ObjectKey, Problem, Upload};

/// How many bytes are gathered and on their way together; a part that is larger goes alone.
const AT_ONCE: u64 = 20 << 20;

/// How often a part is sent that stood still, or arrived as something else.
const TRIES: u32 = 3;

/// How long the completion of an upload may take.
const COMPLETION: std::time::Duration = std::time::Duration::from_secs(240);

pub(super) struct S3Upload {
    store: S3Store,
    key: ObjectKey,
    token: Token,
    /// The upload, once there is more than one part.
    id: Option<String>,
    gathered: VecDeque<Bytes>,
    gathered_bytes: u64,
    next: u32,
    on_their_way: JoinSet<Result<(CompletedPart, u64), Error>>,
    bytes_on_their_way: u64,
    sent: Vec<CompletedPart>,
    total: u64,
    /// An earlier step failed: what was sent is not whole, and must never appear.
    broken: bool,
}

impl S3Upload {
    pub(super) fn new(store: S3Store, key: &ObjectKey) -> Result<S3Upload, Error> {
        let token = Token::new(&store.inner.name)?;
        Ok(S3Upload {
            store,
            key: key.clone(),
            token,
            id: None,
            gathered: VecDeque::new(),
            gathered_bytes: 0,
            next: 1,
            on_their_way: JoinSet::new(),
            bytes_on_their_way: 0,
            sent: Vec::new(),
            total: 0,
            broken: false,
        })
    }

    fn part_size(&self) -> Result<u64, Error> {
        let fixed = self.store.config().part_size;
        parts::size(self.next, fixed).ok_or_else(|| {
            let why = format!(
                "{} parts, which is as many as S3 takes, do not hold it",
                parts::MOST
            );
            let error = self
                .store
                .error(Problem::Other, &format!("write {}", self.key), why);
            match fixed {
                Some(_) => error.hint("a larger `part_size`, or none, holds more"),
                None => error,
            }
        })
    }

    async fn add(&mut self, data: Bytes) -> Result<(), Error> {
        self.total += data.len() as u64;
        self.gathered_bytes += data.len() as u64;
        self.gathered.push_back(data);
        // The last part stays here until it is known whether it is the only one.
        loop {
            let size = self.part_size()?;
            if self.gathered_bytes <= size {
                break;
            }
            let pieces = self.take(size);
            self.send(pieces).await?;
        }
        while self.bytes_on_their_way + self.gathered_bytes > AT_ONCE {
            if !self.arrive().await? {
                break;
            }
        }
        // What failed meanwhile is told now and not at the end.
        while let Some(arrived) = self.on_their_way.try_join_next() {
            self.arrived(arrived)?;
        }
        Ok(())
    }

    /// The first bytes of what is gathered.
    fn take(&mut self, bytes: u64) -> Vec<Bytes> {
        let mut pieces = Vec::new();
        let mut missing = bytes;
        while missing > 0 {
            let Some(mut piece) = self.gathered.pop_front() else {
                break;
            };
            let length = piece.len() as u64;
            if length > missing {
                // It fits in memory, so it fits in a usize.
                let rest = piece.split_off(usize::try_from(missing).unwrap_or(usize::MAX));
                self.gathered.push_front(rest);
            }
            let taken = length.min(missing);
            missing -= taken;
            self.gathered_bytes -= taken;
            pieces.push(piece);
        }
        pieces
    }

    /// Sends a part, when there is room for it on the way.
    async fn send(&mut self, pieces: Vec<Bytes>) -> Result<(), Error> {
        let id = self.id().await?;
        let parcel = Parcel::new(pieces);
        let bytes = parcel.bytes();
        while self.bytes_on_their_way > 0 && self.bytes_on_their_way + bytes > AT_ONCE {
            self.arrive().await?;
        }
        self.bytes_on_their_way += bytes;
        let part = Part {
            store: self.store.clone(),
            key: self.key.clone(),
            id,
            number: self.next,
        };
        self.next += 1;
        self.on_their_way
            .spawn(async move { Ok((part.send(&parcel).await?, bytes)) });
        Ok(())
    }

    /// Waits for a part to arrive; false when none is on its way.
    async fn arrive(&mut self) -> Result<bool, Error> {
        match self.on_their_way.join_next().await {
            Some(arrived) => self.arrived(arrived).map(|()| true),
            None => Ok(false),
        }
    }

    fn arrived(
        &mut self,
        arrived: Result<Result<(CompletedPart, u64), Error>, tokio::task::JoinError>,
    ) -> Result<(), Error> {
        let (part, bytes) = arrived.map_err(|error| {
            Error::new(
                Problem::Other,
                &self.store.inner.name,
                format!("write {}", self.key),
            )
            .because(error)
        })??;
        self.bytes_on_their_way -= bytes;
        self.sent.push(part);
        Ok(())
    }

    /// The upload's ID; it is begun when there is none.
    async fn id(&mut self) -> Result<String, Error> {
        if let Some(id) = &self.id {
            return Ok(id.clone());
        }
        let id = self.store.begin_upload(&self.key, &self.token).await?;
        self.id = Some(id.clone());
        Ok(id)
    }

    async fn complete(&mut self) -> Result<(), Error> {
        let action = format!("finish {}", self.key);
        if self.broken {
            return Err(self
                .store
                .error(Problem::Other, &action, "an earlier part of it failed"));
        }
        self.send_the_rest().await?;
        let Some(id) = self.id.clone() else {
            let all = self.take(u64::MAX);
            return self.store.put(&self.key, all, &self.token, &action).await;
        };
        let mut sent = mem::take(&mut self.sent);
        sent.sort_by_key(CompletedPart::part_number);
        self.store
            .complete_upload(&self.key, &self.token, &id, sent, &action)
            .await?;
        // From here on there is nothing to abort.
        self.id = None;
        self.must_be_whole(&action).await
    }

    /// What is there is ours and wrong: it must not stay to be taken for the archive.
    async fn remove_what_is_wrong(&self) {
        let (store, key) = (&self.store, &self.key);
        let removed = async {
            let there = store.look(key, &self.token, "look at it").await?;
            match there.is_some_and(|there| there.ours) {
                true => store.remove(key).await,
                false => Ok(()),
            }
        };
        if let Err(error) = removed.await {
            tracing::warn!("{error}: what was sent of it stays in {}", store.inner.name);
        }
    }

    /// Sends the last part, where there is more than one, and waits for all of them.
    async fn send_the_rest(&mut self) -> Result<(), Error> {
        if self.id.is_some() {
            let rest = self.take(u64::MAX);
            if !rest.is_empty() {
                self.part_size()?;
                self.send(rest).await?;
            }
        }
        while self.arrive().await? {}
        Ok(())
    }

    /// The server has all that was sent to it. Where it does not let us look at the object the listing says.
    async fn must_be_whole(&self, action: &str) -> Result<(), Error> {
        let (store, key) = (&self.store, &self.key);
        let bytes = match store.look(key, &self.token, action).await {
            // A server may let two that finish at the same moment both pass; the later one's is there.
            Ok(Some(there)) if there.theirs => {
                return Err(store.error(Problem::Exists, action, "there is another's already"));
            }
            Ok(there) => there.map(|there| there.bytes),
            Err(error) if error.problem == Problem::Denied => store.listed_bytes(key).await?,
            Err(error) => return Err(error),
        };
        match bytes {
            Some(bytes) if bytes == self.total => Ok(()),
            Some(bytes) => {
                self.remove_what_is_wrong().await;
                Err(store.error(
                    Problem::Other,
                    action,
                    format!(
                        "the server keeps {bytes} bytes of the {} that were sent",
                        self.total
                    ),
                ))
            }
            None => Err(store.error(
                Problem::Other,
                action,
                "the server said that it is complete, and it is not there",
            )),
        }
    }
}

impl Upload for S3Upload {
    fn part(&mut self, data: Bytes) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            if self.broken {
                let action = format!("go on with {}", self.key);
                return Err(self.store.error(
                    Problem::Other,
                    &action,
                    "an earlier part of it failed",
                ));
            }
            // Whoever drops this in the middle has an upload with a hole.
            self.broken = true;
            self.add(data).await?;
            self.broken = false;
            Ok(())
        })
    }

    fn settle(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            if !mem::replace(&mut self.broken, true) {
                self.send_the_rest().await?;
                self.broken = false;
            }
            Ok(())
        })
    }

    fn finish(mut self: Box<Self>) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async move {
            let finished = self.complete().await;
            if finished.is_err() {
                self.clear().await;
            }
            finished
        })
    }

    fn abort(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.clear().await })
    }
}

impl S3Upload {
    /// Removes what was sent. A part that is on its way could arrive after that, so none is left there.
    async fn clear(&mut self) {
        self.on_their_way.shutdown().await;
        self.gathered.clear();
        if let Some(id) = self.id.take() {
            clear(&self.store, &self.key, &id).await;
        }
    }
}

async fn clear(store: &S3Store, key: &ObjectKey, id: &str) {
    let action = format!("abort the upload of {key}");
    if let Err(error) = store.abort_upload(key, id, &action).await {
        tracing::debug!("{error}: prune removes it after its day");
    }
}

impl Drop for S3Upload {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        self.on_their_way.abort_all();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (store, key) = (self.store.clone(), self.key.clone());
            runtime.spawn(async move { clear(&store, &key, &id).await });
        }
    }
}

/// An upload that was begun and is not there any more is nothing that a person looked for.
fn gone(mut error: Error) -> Error {
    if error.problem == Problem::NotFound {
        error.problem = Problem::Other;
        let why = "what was sent of it was removed meanwhile: does a rule of the bucket, or another program, abort unfinished uploads, or was the bucket itself removed?";
        error.hint = Some(why.to_owned());
    }
    error
}

/// A part on its way.
struct Part {
    store: S3Store,
    key: ObjectKey,
    id: String,
    number: u32,
}

impl Part {
    async fn send(&self, parcel: &Parcel) -> Result<CompletedPart, Error> {
        let config = self.store.config();
        let number = i32::try_from(self.number).unwrap_or(i32::MAX);
        let crc32 = config.checksums.then(|| parcel.crc32());
        let mut tries = 0;
        loop {
            let pulse = Pulse::new();
            let request = self
                .store
                .connection()
                .await?
                .bulk
                .upload_part()
                .bucket(&config.bucket)
                .key(self.store.full(self.key.as_str()))
                .upload_id(&self.id)
                .part_number(number)
                .content_length(i64::try_from(parcel.bytes()).unwrap_or(i64::MAX))
                .set_checksum_crc32(crc32.clone())
                .body(parcel.body(&pulse));
            let fault = match pulse.watch(self.store.inner.patience, request.send()).await {
                Ok(Ok(taken)) => {
                    return Ok(CompletedPart::builder()
                        .part_number(number)
                        .set_e_tag(taken.e_tag)
                        .set_checksum_crc32(crc32)
                        .build());
                }
                Ok(Err(error)) => Fault::from(error),
                Err(_stalled) => Fault::Broken(Break::Stalled),
            };
            tries += 1;
            let stalled = matches!(fault, Fault::Broken(Break::Stalled));
            if (stalled || fault.is_of_other_bytes()) && tries < TRIES {
                continue;
            }
            let action = format!("write part {number} of {}", self.key);
            return Err(gone(self.store.told(fault, &action, "s3:PutObject")));
        }
    }
}

impl S3Store {
    async fn begin_upload(&self, key: &ObjectKey, token: &Token) -> Result<String, Error> {
        let action = format!("begin {key}");
        let Keeping {
            encryption,
            kms_key,
            class,
            lock,
            until,
        } = self.keeping(key);
        let (name, value) = token.name();
        let checksums = self.config().checksums;
        let begun = self
            .connection()
            .await?
            .client
            .create_multipart_upload()
            .bucket(&self.config().bucket)
            .key(self.full(key.as_str()))
            .content_type("application/octet-stream")
            .metadata(name, value)
            .set_checksum_algorithm(checksums.then_some(ChecksumAlgorithm::Crc32))
            .set_server_side_encryption(encryption)
            .set_ssekms_key_id(kms_key)
            .set_storage_class(class)
            .set_object_lock_mode(lock)
            .set_object_lock_retain_until_date(until)
            .send()
            .await
            .map_err(|error| self.told(error, &action, "s3:PutObject"))?;
        begun
            .upload_id
            .filter(|id| !id.is_empty())
            .ok_or_else(|| self.error(Problem::Other, &action, "the server gave the upload no ID"))
    }

    async fn complete_upload(
        &self,
        key: &ObjectKey,
        token: &Token,
        id: &str,
        sent: Vec<CompletedPart>,
        action: &str,
    ) -> Result<(), Error> {
        let sent = CompletedMultipartUpload::builder()
            .set_parts(Some(sent))
            .build();
        let mut create_only = self.creates_only();
        let mut doubted = false;
        loop {
            if !create_only
                && self
                    .look(key, token, action)
                    .await?
                    .is_some_and(|there| !there.ours)
            {
                return Err(self.error(Problem::Exists, action, "there is one already"));
            }
            let request = self
                .connection()
                .await?
                .bulk
                .complete_multipart_upload()
                .bucket(&self.config().bucket)
                .key(self.full(key.as_str()))
                .upload_id(id)
                .set_if_none_match(create_only.then(|| "*".to_owned()))
                .multipart_upload(sent.clone());
            let fault = match tokio::time::timeout(COMPLETION, request.send()).await {
                Ok(Ok(_)) => {
                    if doubted {
                        self.give_up_create_only();
                    }
                    return Ok(());
                }
                Ok(Err(error)) => Fault::from(error),
                Err(_elapsed) => Fault::Broken(Break::Stalled),
            };
            if create_only && fault.is_not_implemented() {
                // It may be something else of the request: what it says without shows it.
                (create_only, doubted) = (false, true);
                continue;
            }
            let error = self.told(fault, action, "s3:PutObject");
            return match self.is_ours_after_all(key, token, &error).await {
                Some(_) => Ok(()),
                None => Err(gone(error)),
            };
        }
    }

    /// Aborts an upload; one that is gone is fine.
    pub(super) async fn abort_upload(
        &self,
        key: &ObjectKey,
        id: &str,
        action: &str,
    ) -> Result<(), Error> {
        let aborted = self
            .connection()
            .await?
            .client
            .abort_multipart_upload()
            .bucket(&self.config().bucket)
            .key(self.full(key.as_str()))
            .upload_id(id)
            .send()
            .await;
        match aborted {
            Ok(_) => Ok(()),
            Err(error) => {
                let fault = Fault::from(error);
                match fault.status() {
                    404 => Ok(()),
                    _ => Err(self.told(fault, action, "s3:AbortMultipartUpload")),
                }
            }
        }
    }

    /// Whether an upload in parts can be begun and aborted. It is begun as a dump is, so that a lock or a class which the
    /// bucket does not know is found; nothing is ever created by it.
    pub(super) async fn can_upload_in_parts(&self) -> Result<bool, Error> {
        let token = Token::new(&self.inner.name)?;
        let folder = ["rdbkeeper-check", token.name().1];
        let dump = ObjectKey::new(folder.into_iter().chain([DATA]))?;
        let Err(error) = self.begin_and_abort(&dump, &token).await else {
            return Ok(true);
        };
        if error.problem != Problem::Other {
            return Err(error);
        }
        let config = self.config();
        if config.object_lock.is_some() || config.storage_class.is_some() {
            let plain = ObjectKey::new(folder)?;
            if self.begin_and_abort(&plain, &token).await.is_ok() {
                return Err(error.hint("without `object_lock` and `storage_class` it takes uploads: object lock must be switched on for the bucket, best when it is made, and not every server has storage classes"));
            }
        }
        Ok(false)
    }

    async fn begin_and_abort(&self, key: &ObjectKey, token: &Token) -> Result<(), Error> {
        let id = self.begin_upload(key, token).await?;
        self.abort_upload(key, &id, "abort an upload").await
    }
}
