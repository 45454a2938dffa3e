//! Where archives are kept: one small contract, and its backends.
//!
//! A store holds objects under keys like `sessions/20261122T214353Z-7f3a9c/dump.rdb.zst`. An object
//! appears whole or not at all, and none is ever overwritten: [`Store::put_new`] and
//! [`Upload::finish`] refuse a key that exists. The trap of the subject is in the failures: every
//! backend must say which of the few [`Problem`]s it met, so that callers never look at texts.

mod local;
mod memory;
pub mod private;
pub mod probe;
mod s3;

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use jiff::Timestamp;

use crate::failure::{Failure, Kind};
use crate::units::HumanDuration;

pub use local::{BroughtFile, LocalStore};
pub use memory::MemoryStore;
pub use s3::{Patience, S3Store};

/// How many bytes a caller gathers before it hands a part to [`Upload::part`] (the last may be shorter). Small, because
/// several are in memory on their way to each store; a store that wants larger ones gathers them itself.
pub const PART_BYTES: usize = 1 << 20;

/// How long one step in a store may take (a part, an object's appearing, a listing) before the store counts as away:
/// one that hangs must not hold up the others for ever. Parts are a few mebibytes.
pub const STALL: Duration = Duration::from_secs(120);

/// How long a part may take, and an upload's end: longer than [`STALL`], for a store far away may have a few parts in
/// flight over a slow line.
pub const TRANSFER: Duration = Duration::from_secs(300);

/// Does a step in a store, within a limit. What the store still does of it after that is not known.
///
/// # Errors
/// Those of the work; [`Problem::Unavailable`] when it takes longer.
pub async fn within<T>(
    limit: Duration,
    store: &str,
    action: impl fmt::Display,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(Error::new(
            Problem::Unavailable,
            store,
            format!(
                "{action}: it does not answer within {}",
                HumanDuration(limit)
            ),
        )),
    }
}

/// The key of an object: segments joined by `/`, none empty, none starting with a dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// A key of these segments. They come from validated names, IDs and constants, or from a
    /// manifest, whose object name must be a plain file name: anything else is refused.
    pub fn new<S: AsRef<str>>(segments: impl IntoIterator<Item = S>) -> Result<ObjectKey, Error> {
        let mut key = String::new();
        for segment in segments {
            let segment = segment.as_ref();
            if segment.is_empty()
                || segment.starts_with('.')
                || segment.contains(['/', '\\', '\0'])
                || segment.len() > 255
            {
                return Err(Error::new(
                    Problem::Other,
                    "the store",
                    format!("name an object {segment:?}"),
                ));
            }
            if !key.is_empty() {
                key.push('/');
            }
            key.push_str(segment);
        }
        Ok(ObjectKey(key))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An object as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its key.
    pub key: ObjectKey,
    /// Its size.
    pub bytes: u64,
    /// When it was last written, by the store's own clock.
    pub modified: Timestamp,
}

/// Something that was begun in a store and never finished: no listing shows it, and it costs room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// The key that it was to appear under; that of the folder, when it is an empty folder.
    pub key: ObjectKey,
    /// The store's own name of it, for [`Store::discard`].
    pub handle: String,
    /// What it takes.
    pub bytes: u64,
    /// Its last sign of life, by the store's own clock.
    pub modified: Timestamp,
}

/// A store: what every backend does, and what callers may rely on.
pub trait Store: Send + Sync + fmt::Debug {
    /// What it is, for people: a path or a URL, without secrets.
    fn describe(&self) -> String;

    /// Whether it is reached over a network: what is in it is neither near nor private to this host.
    fn is_remote(&self) -> bool;

    /// Whether what is written to it lands on the same disk as what is written in this folder: neither is faster then.
    fn shares_disk_with<'a>(&'a self, _folder: &'a Path) -> BoxFuture<'a, bool> {
        Box::pin(async { false })
    }

    /// Creates an object from bytes that are all here. [`Problem::Exists`] when the key is taken.
    fn put_new<'a>(&'a self, key: &'a ObjectKey, data: Bytes) -> BoxFuture<'a, Result<(), Error>>;

    /// Begins an object whose bytes come in parts. Nothing shows under the key before
    /// [`Upload::finish`] has succeeded.
    fn upload<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Box<dyn Upload>, Error>>;

    /// Opens an object to be read from its start.
    fn read<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Box<dyn Reader>, Error>>;

    /// Reads some bytes of an object: those of `range` that it has. Meant for small ranges; they come as one.
    fn read_range<'a>(
        &'a self,
        key: &'a ObjectKey,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, Error>>;

    /// Lists all objects whose key lies below the folder `prefix` (without a `/` at its end; empty: all), in any order.
    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<ObjectMeta>, Error>>;

    /// Removes an object for good, all its versions where the store keeps those. One that is not there is fine.
    /// [`Problem::Locked`] when the store must keep it for now: then it is as it was.
    fn delete<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<(), Error>>;

    /// Whether an object could be removed, before anything that belongs to it is: [`Problem::Locked`] when the store must
    /// keep it for now. A store that cannot tell says nothing.
    fn may_delete<'a>(&'a self, _key: &'a ObjectKey) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }

    /// Bytes that can still be written, where the store can tell.
    fn free_bytes(&self) -> BoxFuture<'_, Result<Option<u64>, Error>>;

    /// The time by the clock that [`ObjectMeta::modified`] is by. It may need the right to write.
    fn clock(&self) -> BoxFuture<'_, Result<Timestamp, Error>>;

    /// What was begun below the folder `prefix` and never finished, that which is at work right now too.
    fn unfinished<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Unfinished>, Error>>;

    /// Removes something unfinished. What is gone, or in use again, is fine.
    fn discard<'a>(&'a self, unfinished: &'a Unfinished) -> BoxFuture<'a, Result<(), Error>>;

    /// What there is to know of it beyond this contract. Something may be written for it, and is gone afterwards.
    fn features(&self) -> BoxFuture<'_, Result<Features, Error>> {
        Box::pin(async { Ok(Features::default()) })
    }
}

/// What a store does beyond the contract; `None`: it does not say, or the question makes no sense there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Features {
    /// Whether what is deleted by others stays as a version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub versioned: Option<bool>,
    /// Whether large objects can be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multipart: Option<bool>,
    /// It has no way to refuse to create what exists: it is looked at beforehand, and two may do that at a time.
    #[serde(skip)]
    pub only_looks_first: bool,
}

/// An object on its way into a store. Dropping it means abort, as far as that can be done at once;
/// [`Upload::abort`] does it in full.
pub trait Upload: Send {
    /// Adds the next part.
    fn part(&mut self, data: Bytes) -> BoxFuture<'_, Result<(), Error>>;

    /// Waits until the store has all parts that were added, as far as it takes them before the end: what is left to
    /// [`Upload::finish`] is short then. Unlike that, it may be left in the middle, to abort.
    fn settle(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }

    /// Makes the object appear, durably. [`Problem::Exists`] when the key is taken.
    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<(), Error>>;

    /// Removes what was sent so far.
    fn abort(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// An object being read.
pub trait Reader: Send {
    /// The size of the object.
    fn bytes(&self) -> u64;

    /// The next bytes, at most about a mebibyte; empty at the end.
    fn next(&mut self) -> BoxFuture<'_, Result<Bytes, Error>>;
}

/// Reads a small object whole. One of more than `limit` bytes is [`Problem::Other`].
pub async fn get(store: &dyn Store, key: &ObjectKey, limit: usize) -> Result<Bytes, Error> {
    let mut reader = store.read(key).await?;
    let mut all = Vec::new();
    loop {
        let chunk = reader.next().await?;
        if chunk.is_empty() {
            return Ok(all.into());
        }
        if all.len() + chunk.len() > limit {
            return Err(Error::new(
                Problem::Other,
                store.describe(),
                format!("read {key}: it is larger than {limit} bytes"),
            ));
        }
        all.extend_from_slice(&chunk);
    }
}

/// A store by its configured name.
#[derive(Clone, Debug)]
pub struct NamedStore {
    /// The name in the configuration.
    pub name: String,
    /// The store.
    pub store: Arc<dyn Store>,
}

/// What kind of trouble a store met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// There is no such object.
    NotFound,
    /// The key is taken.
    Exists,
    /// The credentials or file modes do not allow it.
    Denied,
    /// The store was told to keep the object for some time, and that is not over.
    Locked,
    /// There is no room left.
    Full,
    /// It may work later: a network or a server in trouble.
    Unavailable,
    /// The place is not what it should be: a file where a folder must be, a read-only file system, no such bucket.
    Misplaced,
    /// Anything else.
    Other,
}

/// A failed storage operation.
#[derive(Debug, thiserror::Error)]
#[error("{store}: cannot {action}")]
pub struct Error {
    /// What kind of trouble it is.
    pub problem: Problem,
    /// The store, for people.
    pub store: String,
    /// What could not be done, on what.
    pub action: String,
    /// The cause below it.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
    /// What to do about it, where the store knows better than the kind of trouble tells.
    pub hint: Option<String>,
}

impl Error {
    /// An error without a cause.
    pub fn new(problem: Problem, store: impl Into<String>, action: impl Into<String>) -> Error {
        Error {
            problem,
            store: store.into(),
            action: action.into(),
            source: None,
            hint: None,
        }
    }

    /// The same with its cause.
    #[must_use]
    pub fn because(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Error {
        self.source = Some(Box::new(source));
        self
    }

    /// The same of what was named by its path and belongs to no configured storage.
    #[must_use]
    pub fn by_path(self) -> Error {
        match self.problem {
            Problem::Denied if self.hint.is_none() => self.hint(
                "run it as a user who may read that, or give this user the right to: to the file and to the folders above it",
            ),
            _ => self,
        }
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = Some(hint.into());
        self
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let kind = match error.problem {
            Problem::NotFound => Kind::NotFound,
            Problem::Locked => Kind::Refused,
            _ => Kind::Storage,
        };
        let hint = match error.problem {
            Problem::Denied => Some(
                "give the user that rdbkeeper runs as read and write access to the storage folder",
            ),
            Problem::Full => Some("free some room there, or keep fewer backups"),
            Problem::Misplaced => {
                Some("the storage's `path` must be a folder on a file system that can be written")
            }
            Problem::Unavailable => Some("try again later"),
            Problem::Locked => Some("try again when its retention is over"),
            Problem::NotFound | Problem::Exists | Problem::Other => None,
        };
        let mut failure = Failure::new(kind, error.to_string());
        if let Some(source) = &error.source {
            failure = failure.caused_by(source.as_ref());
        }
        failure.hint = error.hint.or(hint.map(str::to_owned));
        failure
    }
}
