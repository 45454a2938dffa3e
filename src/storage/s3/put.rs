//! Creating an object by one request, and looking whether it is ours.

use std::time::Duration;

use bytes::Bytes;

use super::body::{Parcel, Pulse};
use super::error::{Break, Fault};
use super::{Keeping, S3Store};
use crate::storage::{Error, ObjectKey, Problem};

/// The metadata that tells what we wrote from what others did.
const TOKEN: &str = "rdbkeeper-put";

/// How often a request is made that stood still, met another of its kind, or arrived as something else.
const TRIES: u32 = 3;

const BETWEEN: Duration = Duration::from_millis(300);

/// Random: which of two objects under one key is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token(String);

impl Token {
    pub(super) fn new(store: &str) -> Result<Token, Error> {
        let mut random = [0u8; 16];
        getrandom::fill(&mut random)
            .map_err(|error| Error::new(Problem::Other, store, "find a token").because(error))?;
        Ok(Token(
            random.iter().map(|byte| format!("{byte:02x}")).collect(),
        ))
    }

    pub(super) fn name(&self) -> (&'static str, &str) {
        (TOKEN, &self.0)
    }
}

/// An object that is there.
pub(super) struct There {
    pub(super) bytes: u64,
    pub(super) ours: bool,
    /// It has a token of another writer.
    pub(super) theirs: bool,
}

impl S3Store {
    /// Creates an object. One that is there is fine when it is this very one, by its token: then an answer was lost.
    pub(super) async fn put(
        &self,
        key: &ObjectKey,
        pieces: Vec<Bytes>,
        token: &Token,
        action: &str,
    ) -> Result<(), Error> {
        let parcel = Parcel::new(pieces);
        let mut tries = 0;
        let mut create_only = self.creates_only();
        let mut doubted = false;
        loop {
            if !create_only {
                match self.look(key, token, action).await? {
                    Some(there) if !there.ours => {
                        return Err(self.error(Problem::Exists, action, "there is one already"));
                    }
                    Some(there) if there.bytes == parcel.bytes() => return Ok(()),
                    Some(_) | None => {}
                }
            }
            let Err(fault) = self.put_once(key, &parcel, token, create_only).await? else {
                if doubted {
                    self.give_up_create_only();
                }
                return Ok(());
            };
            tries += 1;
            if fault.is(&["ConditionalRequestConflict"])
                || fault.is_of_other_bytes()
                || matches!(fault, Fault::Broken(Break::Stalled))
            {
                if tries < TRIES {
                    tokio::time::sleep(BETWEEN * tries).await;
                    continue;
                }
            } else if create_only && fault.is_not_implemented() {
                // It may be something else of the request: what it says without shows it.
                (create_only, doubted) = (false, true);
                continue;
            }
            let error = self.told(fault, action, "s3:PutObject");
            return match self.is_ours_after_all(key, token, &error).await {
                Some(there) if there.bytes == parcel.bytes() => Ok(()),
                _ => Err(error),
            };
        }
    }

    async fn put_once(
        &self,
        key: &ObjectKey,
        parcel: &Parcel,
        token: &Token,
        create_only: bool,
    ) -> Result<Result<(), Fault>, Error> {
        let Keeping {
            encryption,
            kms_key,
            class,
            lock,
            until,
        } = self.keeping(key);
        let pulse = Pulse::new();
        let (name, value) = token.name();
        let length = i64::try_from(parcel.bytes()).unwrap_or(i64::MAX);
        let request = self
            .connection()
            .await?
            .bulk
            .put_object()
            .bucket(&self.config().bucket)
            .key(self.full(key.as_str()))
            .content_type("application/octet-stream")
            .content_length(length)
            .metadata(name, value)
            .set_checksum_crc32(self.config().checksums.then(|| parcel.crc32()))
            .set_if_none_match(create_only.then(|| "*".to_owned()))
            .set_server_side_encryption(encryption)
            .set_ssekms_key_id(kms_key)
            .set_storage_class(class)
            .set_object_lock_mode(lock)
            .set_object_lock_retain_until_date(until)
            .body(parcel.body(&pulse));
        Ok(
            match pulse.watch(self.inner.patience, request.send()).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(error.into()),
                Err(_stalled) => Err(Fault::Broken(Break::Stalled)),
            },
        )
    }

    /// After an error that leaves it open whether the object was written: the object, if it is there and ours.
    pub(super) async fn is_ours_after_all(
        &self,
        key: &ObjectKey,
        token: &Token,
        error: &Error,
    ) -> Option<There> {
        let open = matches!(
            error.problem,
            Problem::Exists | Problem::Unavailable | Problem::NotFound
        );
        if !open {
            return None;
        }
        let there = self.look(key, token, "look at it").await.ok().flatten()?;
        there.ours.then_some(there)
    }

    /// What is there under a key.
    pub(super) async fn look(
        &self,
        key: &ObjectKey,
        token: &Token,
        action: &str,
    ) -> Result<Option<There>, Error> {
        let asked = self
            .connection()
            .await?
            .client
            .head_object()
            .bucket(&self.config().bucket)
            .key(self.full(key.as_str()))
            .send()
            .await;
        match asked {
            Ok(found) => {
                let (name, value) = token.name();
                let metadata = found.metadata();
                let token = metadata.and_then(|metadata| metadata.get(name));
                Ok(Some(There {
                    bytes: found.content_length().unwrap_or(0).unsigned_abs(),
                    ours: token.is_some_and(|token| token == value),
                    theirs: token.is_some_and(|token| token != value),
                }))
            }
            Err(error) => {
                let fault = Fault::from(error);
                match fault.status() {
                    404 => Ok(None),
                    _ => Err(self.told(fault, action, "s3:GetObject")),
                }
            }
        }
    }
}
