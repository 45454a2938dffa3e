#![allow(clippy::unwrap_used)]
use std::ops::Range;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use super::*;
use crate::catalog::manifest::{Data, FORMAT, Rdb, Source};
use crate::pipeline::Compression;
use crate::storage::{LocalStore, MemoryStore, Reader, Store, Unfinished};

#[tokio::test]
async fn data_that_gets_no_manifest_is_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let storage = NamedStore {
        name: "disk".to_owned(),
        store: Arc::new(LocalStore::new(folder.path())),
    };
    let id = BackupId::new(Timestamp::now()).unwrap();
    let place = places(&[storage], "web", &id).remove(0);
    let manifest = manifest(id);
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

fn manifest(id: BackupId) -> Manifest {
    Manifest {
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
    }
}

/// What a storage does when the manifest is written.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// It writes it, and its answer is lost.
    AnswerLost,
    /// It does not answer, and nothing is written.
    Silent,
    /// It refuses.
    Denied,
    /// It writes it, and somebody has removed the data.
    DataGone,
}

#[derive(Debug)]
struct Troubled {
    inner: MemoryStore,
    trouble: Trouble,
}

impl Store for Troubled {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn put_new<'a>(
        &'a self,
        key: &'a ObjectKey,
        data: Bytes,
    ) -> BoxFuture<'a, Result<(), storage::Error>> {
        Box::pin(async move {
            let failed = |problem| Err(storage::Error::new(problem, "troubled", "write"));
            match self.trouble {
                Trouble::AnswerLost => {
                    self.inner.put_new(key, data).await?;
                    failed(Problem::Unavailable)
                }
                Trouble::Silent => failed(Problem::Unavailable),
                Trouble::Denied => failed(Problem::Denied),
                Trouble::DataGone => {
                    for object in self.inner.list("").await? {
                        self.inner.delete(&object.key).await?;
                    }
                    self.inner.put_new(key, data).await
                }
            }
        })
    }

    fn upload<'a>(
        &'a self,
        key: &'a ObjectKey,
    ) -> BoxFuture<'a, Result<Box<dyn Upload>, storage::Error>> {
        self.inner.upload(key)
    }

    fn read<'a>(
        &'a self,
        key: &'a ObjectKey,
    ) -> BoxFuture<'a, Result<Box<dyn Reader>, storage::Error>> {
        self.inner.read(key)
    }

    fn read_range<'a>(
        &'a self,
        key: &'a ObjectKey,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, storage::Error>> {
        self.inner.read_range(key, range)
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
    ) -> BoxFuture<'a, Result<Vec<ObjectMeta>, storage::Error>> {
        self.inner.list(prefix)
    }

    fn delete<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<(), storage::Error>> {
        self.inner.delete(key)
    }

    fn free_bytes(&self) -> BoxFuture<'_, Result<Option<u64>, storage::Error>> {
        self.inner.free_bytes()
    }

    fn clock(&self) -> BoxFuture<'_, Result<Timestamp, storage::Error>> {
        self.inner.clock()
    }

    fn unfinished<'a>(
        &'a self,
        prefix: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Unfinished>, storage::Error>> {
        self.inner.unfinished(prefix)
    }

    fn discard<'a>(
        &'a self,
        unfinished: &'a Unfinished,
    ) -> BoxFuture<'a, Result<(), storage::Error>> {
        self.inner.discard(unfinished)
    }
}

/// Commits to a storage with a trouble; gives what came of it, and the names of what is there then.
async fn committed(trouble: Trouble) -> (Result<(), Error>, Vec<String>) {
    let inner = MemoryStore::new();
    let storage = NamedStore {
        name: "far".to_owned(),
        store: Arc::new(Troubled {
            inner: inner.clone(),
            trouble,
        }),
    };
    let id = BackupId::new(Timestamp::now()).unwrap();
    let place = places(&[storage], "web", &id).remove(0);
    let key = place.key("dump.rdb").unwrap();
    let mut upload = place.store().upload(&key).await.unwrap();
    upload.part(b"data".as_slice().into()).await.unwrap();
    let done = commit(Prepared { place, upload }, &manifest(id)).await;
    let there = inner.list("").await.unwrap();
    let mut names: Vec<String> = there.iter().map(|it| name_of(it).to_owned()).collect();
    names.sort();
    (done, names)
}

#[tokio::test]
async fn a_manifest_whose_answer_was_lost_makes_a_whole_backup() {
    let (done, names) = committed(Trouble::AnswerLost).await;
    assert!(done.is_ok(), "{done:?}");
    assert_eq!(names, ["dump.rdb", "manifest.json"]);
}

#[tokio::test]
async fn data_whose_manifest_may_come_late_is_left() {
    let (done, names) = committed(Trouble::Silent).await;
    assert!(matches!(done, Err(Error::Storage(_))), "{done:?}");
    assert_eq!(names, ["dump.rdb"]);
}

#[tokio::test]
async fn data_whose_manifest_is_refused_is_taken_back() {
    let (done, names) = committed(Trouble::Denied).await;
    assert!(matches!(done, Err(Error::Storage(_))), "{done:?}");
    assert!(names.is_empty(), "{names:?}");
}

#[tokio::test]
async fn a_manifest_never_stays_without_its_data() {
    let (done, names) = committed(Trouble::DataGone).await;
    assert!(matches!(done, Err(Error::Swept { .. })), "{done:?}");
    assert!(names.is_empty(), "{names:?}");
}

#[tokio::test]
async fn the_newest_backups_are_listed_without_a_look_at_the_others() {
    let storage = NamedStore {
        name: "far".to_owned(),
        store: Arc::new(MemoryStore::new()),
    };
    let mut ids = Vec::new();
    for day in 1..4 {
        let taken: Timestamp = format!("2026-11-0{day}T00:00:00Z").parse().unwrap();
        let id = BackupId::new(taken).unwrap();
        let place = places(std::slice::from_ref(&storage), "web", &id).remove(0);
        let key = place.key("dump.rdb").unwrap();
        let store = place.store().as_ref();
        store
            .put_new(&key, b"data".as_slice().into())
            .await
            .unwrap();
        let bytes = match day {
            1 => b"no manifest".to_vec(),
            _ => manifest(id.clone()).to_bytes().unwrap(),
        };
        let key = place.key(MANIFEST).unwrap();
        store.put_new(&key, bytes.into()).await.unwrap();
        ids.push(id);
    }
    let newest = async |count| {
        let listing = crate::catalog::list::newest(&storage, "web", count).await;
        let listing = listing.unwrap();
        let ids: Vec<BackupId> = listing.backups.into_iter().map(|b| b.manifest.id).collect();
        (ids, listing.broken.len())
    };
    assert_eq!(newest(2).await, (ids[1..].to_vec(), 0));
    assert_eq!(newest(64).await, (ids[1..].to_vec(), 1));
}
