//! A bucket on any server that speaks S3.
//!
//! Objects lie under the prefix, by the same keys as in a folder. What makes it safe: an object is created with
//! `If-None-Match: *` where the server honours that, and carries a random token, so that after an answer that was lost
//! it can be seen whether the object that is there is the one that was sent. Large objects are uploads in parts,
//! which show nothing before they are complete. ETags and the sizes that a server names are not trusted: what comes
//! back is checked against digests of our own by those who read.
//!
//! The trap of the subject: the SDK tries requests again, so any answer may be that to a second try of something that
//! has worked; and a deletion in a bucket with versions hides an object instead of removing it.

mod body;
mod client;
mod delete;
mod error;
mod list;
mod parts;
mod put;
mod read;
mod upload;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_s3::types::{ObjectLockMode, ServerSideEncryption, StorageClass};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::OnceCell;

use self::client::{Connection, DateTaker, connect};
use self::error::{Asked, Fault, Told};
use super::{Error, Features, ObjectKey, ObjectMeta, Problem, Reader, Store, Unfinished, Upload};
use crate::config::{LockMode, S3Config, S3Encryption};

pub use self::body::Patience;

/// The names of what a backup consists of: they alone are locked, for the rest must be removable at any time.
const MANIFEST: &str = "manifest.json";
const DATA: &str = "dump.rdb";

/// A store in a bucket. Clones are one store.
#[derive(Clone)]
pub struct S3Store {
    inner: Arc<Inner>,
}

struct Inner {
    config: S3Config,
    patience: Patience,
    /// As people are told: `s3://bucket/prefix`.
    name: String,
    /// The server, for people.
    place: String,
    connection: OnceCell<Connection>,
    /// The server does not know `If-None-Match` with what is written.
    no_create_only: AtomicBool,
    versions: OnceCell<delete::Versions>,
    /// It was said that versions stay.
    warned: AtomicBool,
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("S3Store").field(&self.inner.name).finish()
    }
}

impl S3Store {
    /// A store in this bucket. Nothing is asked of the server, and no secret is read, before something is done.
    pub fn new(config: S3Config) -> S3Store {
        S3Store::with_patience(config, Patience::default())
    }

    /// The same with another patience with what stands still.
    pub fn with_patience(config: S3Config, patience: Patience) -> S3Store {
        let name = match config.prefix.as_str() {
            "" => format!("s3://{}", config.bucket),
            prefix => format!("s3://{}/{prefix}", config.bucket),
        };
        let place = config.endpoint.clone().unwrap_or_else(|| "AWS".to_owned());
        S3Store {
            inner: Arc::new(Inner {
                config,
                patience,
                name,
                place,
                connection: OnceCell::new(),
                no_create_only: AtomicBool::new(false),
                versions: OnceCell::new(),
                warned: AtomicBool::new(false),
            }),
        }
    }

    fn config(&self) -> &S3Config {
        &self.inner.config
    }

    async fn connection(&self) -> Result<&Connection, Error> {
        let Inner { config, name, .. } = self.inner.as_ref();
        self.inner
            .connection
            .get_or_try_init(|| connect(config, name))
            .await
    }

    /// The key in the bucket.
    fn full(&self, key: &str) -> String {
        match self.config().prefix.as_str() {
            "" => key.to_owned(),
            prefix => format!("{prefix}/{key}"),
        }
    }

    /// What the keys in the bucket below a folder begin with.
    fn below(&self, folder: &str) -> String {
        match self.full(folder) {
            full if full.is_empty() || full.ends_with('/') => full,
            full => format!("{full}/"),
        }
    }

    /// The key that a key in the bucket is of this store, if it is one.
    fn own(&self, full: &str) -> Option<ObjectKey> {
        let key = match self.config().prefix.as_str() {
            "" => full,
            prefix => full.strip_prefix(prefix)?.strip_prefix('/')?,
        };
        ObjectKey::new(key.split('/')).ok()
    }

    /// The error of a fault.
    fn told(&self, fault: impl Into<Fault>, action: &str, right: &str) -> Error {
        let Inner {
            config,
            name,
            place,
            connection,
            ..
        } = self.inner.as_ref();
        fault.into().told(Asked {
            store: name,
            bucket: &config.bucket,
            place,
            region: connection.get().map_or("", |connection| &connection.region),
            action,
            right,
        })
    }

    fn error(&self, problem: Problem, action: &str, why: impl Into<String>) -> Error {
        Error::new(problem, &self.inner.name, action).because(Told(why.into()))
    }

    fn creates_only(&self) -> bool {
        !self.inner.no_create_only.load(Ordering::Relaxed)
    }

    /// Remembers that the server does not know create-only requests.
    fn give_up_create_only(&self) {
        if !self.inner.no_create_only.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "{} does not know create-only requests: what is written there is looked for beforehand, and two that write the same at once are not told apart",
                self.inner.name
            );
        }
    }

    /// How an object is to be kept, by its key.
    fn keeping(&self, key: &ObjectKey) -> Keeping {
        let config = self.config();
        let name = key.as_str().rsplit('/').next().unwrap_or_default();
        let data = name.starts_with(DATA);
        let (encryption, kms_key) = match &config.encryption {
            None => (None, None),
            Some(S3Encryption::Aes256) => (Some(ServerSideEncryption::Aes256), None),
            Some(S3Encryption::Kms { key_id }) => {
                (Some(ServerSideEncryption::AwsKms), key_id.clone())
            }
        };
        let class = config.storage_class.as_deref().filter(|_| data);
        let lock = config.object_lock.filter(|_| data || name == MANIFEST);
        let until = lock.and_then(|lock| {
            let days = SignedDuration::from_hours(i64::from(lock.days) * 24);
            let until = Timestamp::now().checked_add(days).ok()?;
            Some(aws_sdk_s3::primitives::DateTime::from_secs(
                until.as_second(),
            ))
        });
        Keeping {
            encryption,
            kms_key,
            class: class.map(StorageClass::from),
            lock: lock.map(|lock| match lock.mode {
                LockMode::Governance => ObjectLockMode::Governance,
                LockMode::Compliance => ObjectLockMode::Compliance,
            }),
            until,
        }
    }

    async fn ask_the_time(&self) -> Result<Timestamp, Error> {
        let (action, right) = ("ask for the time", "s3:ListBucket");
        let taker = DateTaker::default();
        let asked = self
            .connection()
            .await?
            .client
            .head_bucket()
            .bucket(&self.config().bucket)
            .customize()
            .interceptor(taker.clone())
            .send()
            .await;
        match (asked, taker.taken()) {
            (Ok(_), Some(time)) => Ok(time),
            (Ok(_), None) => Err(self.error(
                Problem::Other,
                action,
                "the server's answer has no `Date`; is there a proxy that drops it?",
            )),
            (Err(error), _) => {
                // An answer to HEAD has no body: without it a bucket that is missing looks like an object.
                let fault = Fault::from(error);
                let missing = fault.status() == 404;
                let mut told = self.told(fault, action, right);
                if missing {
                    told.problem = Problem::Misplaced;
                    told.hint = Some("make the bucket, or correct `bucket`".to_owned());
                }
                Err(told)
            }
        }
    }

    async fn look_at_features(&self) -> Result<Features, Error> {
        Ok(Features {
            versioned: match self.versions().await? {
                delete::Versions::Kept => Some(true),
                delete::Versions::None => Some(false),
                delete::Versions::Unknown => None,
            },
            multipart: Some(self.can_upload_in_parts().await?),
            only_looks_first: !self.creates_only(),
        })
    }
}

/// How an object is kept.
struct Keeping {
    encryption: Option<ServerSideEncryption>,
    kms_key: Option<String>,
    class: Option<StorageClass>,
    lock: Option<ObjectLockMode>,
    until: Option<aws_sdk_s3::primitives::DateTime>,
}

impl Store for S3Store {
    fn describe(&self) -> String {
        self.inner.name.clone()
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn put_new<'a>(&'a self, key: &'a ObjectKey, data: Bytes) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let action = format!("write {key}");
            self.put(
                key,
                vec![data],
                &put::Token::new(&self.inner.name)?,
                &action,
            )
            .await
        })
    }

    fn upload<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Box<dyn Upload>, Error>> {
        Box::pin(async move {
            // Nothing is sent yet, and whether the server can be reached at all is known early all the same.
            self.connection().await?;
            let upload: Box<dyn Upload> = Box::new(upload::S3Upload::new(self.clone(), key)?);
            Ok(upload)
        })
    }

    fn read<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Box<dyn Reader>, Error>> {
        Box::pin(async move {
            let reader: Box<dyn Reader> = Box::new(read::S3Reader::open(self, key).await?);
            Ok(reader)
        })
    }

    fn read_range<'a>(
        &'a self,
        key: &'a ObjectKey,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, Error>> {
        Box::pin(read::range(self, key, range))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<ObjectMeta>, Error>> {
        Box::pin(self.list_below(prefix))
    }

    fn delete<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.remove(key))
    }

    fn may_delete<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.must_be_unlocked(key))
    }

    fn free_bytes(&self) -> BoxFuture<'_, Result<Option<u64>, Error>> {
        Box::pin(async { Ok(None) })
    }

    fn clock(&self) -> BoxFuture<'_, Result<Timestamp, Error>> {
        Box::pin(self.ask_the_time())
    }

    fn unfinished<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Unfinished>, Error>> {
        Box::pin(self.uploads_below(prefix))
    }

    fn discard<'a>(&'a self, unfinished: &'a Unfinished) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let action = format!("abort the upload of {}", unfinished.key);
            self.abort_upload(&unfinished.key, &unfinished.handle, &action)
                .await
        })
    }

    fn features(&self) -> BoxFuture<'_, Result<Features, Error>> {
        Box::pin(self.look_at_features())
    }
}
