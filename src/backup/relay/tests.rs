#![allow(clippy::unwrap_used)]

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::{BoxFuture, pending};
use jiff::Timestamp;

use super::*;
use crate::backup::upload::upload;
use crate::storage::{LocalStore, NamedStore, ObjectKey, ObjectMeta, Reader, Store, Unfinished};

/// What is wrong with a store.
#[derive(Clone, Debug)]
enum Fault {
    /// Its parts wait until this is true.
    Stalled(watch::Receiver<bool>),
    /// The part of this number fails.
    AtPart(usize),
    /// It does not even begin.
    Silent,
}

/// A folder that takes uploads with a fault.
#[derive(Debug)]
struct Faulty {
    inner: LocalStore,
    fault: Fault,
    same_disk: bool,
}

struct FaultyUpload {
    inner: Box<dyn Upload>,
    fault: Fault,
    parts: usize,
}

impl Upload for FaultyUpload {
    fn part(&mut self, data: Bytes) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            self.parts += 1;
            match &mut self.fault {
                Fault::Stalled(released) => {
                    released.wait_for(|released| *released).await.unwrap();
                }
                Fault::AtPart(at) if self.parts == *at => {
                    return Err(Error::new(Problem::Unavailable, "faulty", "take it"));
                }
                _ => {}
            }
            self.inner.part(data).await
        })
    }
    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<(), Error>> {
        self.inner.finish()
    }
    fn abort(self: Box<Self>) -> BoxFuture<'static, ()> {
        self.inner.abort()
    }
}

impl Store for Faulty {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn is_remote(&self) -> bool {
        true
    }
    fn shares_disk_with<'a>(&'a self, _: &'a Path) -> BoxFuture<'a, bool> {
        Box::pin(async { self.same_disk })
    }
    fn put_new<'a>(&'a self, key: &'a ObjectKey, data: Bytes) -> BoxFuture<'a, Result<(), Error>> {
        self.inner.put_new(key, data)
    }
    fn upload<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Box<dyn Upload>, Error>> {
        Box::pin(async move {
            if matches!(self.fault, Fault::Silent) {
                return pending().await;
            }
            let upload: Box<dyn Upload> = Box::new(FaultyUpload {
                inner: self.inner.upload(key).await?,
                fault: self.fault.clone(),
                parts: 0,
            });
            Ok(upload)
        })
    }
    fn read<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Box<dyn Reader>, Error>> {
        self.inner.read(key)
    }
    fn read_range<'a>(
        &'a self,
        key: &'a ObjectKey,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, Error>> {
        self.inner.read_range(key, range)
    }
    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<ObjectMeta>, Error>> {
        self.inner.list(prefix)
    }
    fn delete<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<(), Error>> {
        self.inner.delete(key)
    }
    fn free_bytes(&self) -> BoxFuture<'_, Result<Option<u64>, Error>> {
        self.inner.free_bytes()
    }
    fn clock(&self) -> BoxFuture<'_, Result<Timestamp, Error>> {
        self.inner.clock()
    }
    fn unfinished<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Unfinished>, Error>> {
        self.inner.unfinished(prefix)
    }
    fn discard<'a>(&'a self, unfinished: &'a Unfinished) -> BoxFuture<'a, Result<(), Error>> {
        self.inner.discard(unfinished)
    }
}

/// Storages in folders of their own, and a spool.
struct Bench {
    folder: tempfile::TempDir,
    route: Route,
}

impl Bench {
    fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let patience = Duration::from_millis(50);
        let route = Route {
            object: "dump.rdb".to_owned(),
            spool: Spool::new(folder.path().join("spool")),
            pool: Pool::new(PART_BYTES),
            patience: Patience {
                hold: patience,
                disk: Duration::from_secs(60),
                part: Duration::from_secs(60),
            },
            stop: CancellationToken::new(),
        };
        Bench { folder, route }
    }

    fn place(&self, name: &str, store: impl Store + 'static) -> Place {
        let storage = NamedStore {
            name: name.to_owned(),
            store: Arc::new(store),
        };
        Place::new(storage, ["web"])
    }

    /// One that nothing is wrong with, and that is waited for on a busy machine, too.
    fn good(&self, name: &str) -> Place {
        self.faulty(name, Fault::AtPart(usize::MAX), true)
    }

    fn faulty(&self, name: &str, fault: Fault, same_disk: bool) -> Place {
        let inner = LocalStore::new(self.folder.path().join(name));
        let store = Faulty {
            inner,
            fault,
            same_disk,
        };
        self.place(name, store)
    }

    /// What a storage holds of the object.
    fn held(&self, name: &str) -> Option<Vec<u8>> {
        std::fs::read(self.folder.path().join(name).join("web/dump.rdb")).ok()
    }

    /// Whether a storage holds anything at all.
    fn is_empty(&self, name: &str) -> bool {
        let folder = self.folder.path().join(name).join("web");
        std::fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
    }

    /// Sends these parts through, as the packer does; gives the relays and how many parts were taken.
    async fn send(&self, places: Vec<Place>, parts: Vec<Bytes>) -> (Vec<Relay>, usize) {
        let (sender, receiver) = mpsc::channel(1);
        let uploading = tokio::spawn(upload(places, receiver, self.route.clone()));
        let mut taken = 0;
        for part in parts {
            if sender.send(part).await.is_err() {
                break;
            }
            taken += 1;
        }
        drop(sender);
        (uploading.await.unwrap(), taken)
    }
}

/// Parts of the usual size, and a short one.
fn parts() -> Vec<Bytes> {
    let part = |n: usize, length: usize| (0..length).map(|at| (at / 7 * (n + 3)) as u8).collect();
    let whole = (0..5).map(|n| part(n, PART_BYTES));
    whole.chain([part(9, 4321)]).collect()
}

#[tokio::test]
async fn a_stalled_storage_does_not_hold_the_dump_and_has_all_of_it_in_the_end() {
    let bench = Bench::new();
    let (release, released) = watch::channel(false);
    let places = vec![
        bench.faulty("offsite", Fault::Stalled(released), false),
        bench.good("disk"),
    ];
    let (mut relays, taken) = bench.send(places, parts()).await;
    // The dump is through, and the storage has not taken a byte.
    assert_eq!(taken, 6);
    let (offsite, disk) = (relays.remove(0), relays.remove(0));
    disk.outcome().await.unwrap().finish().await.unwrap();
    assert_eq!(bench.held("disk").unwrap(), parts().concat());
    assert!(!offsite.has_ended());
    assert_eq!(
        std::fs::read_dir(bench.route.spool.folder())
            .unwrap()
            .count(),
        0
    );
    release.send(true).unwrap();
    offsite.outcome().await.unwrap().finish().await.unwrap();
    assert!(bench.held("offsite").unwrap() == parts().concat());
}

#[tokio::test]
async fn a_storage_alone_that_does_not_answer_does_not_hold_the_dump() {
    let bench = Bench::new();
    let place = bench.faulty("offsite", Fault::Silent, false);
    let (relays, taken) = bench.send(vec![place], parts()).await;
    assert_eq!(taken, 6);
    assert!(abandon(relays).await.is_none());
}

#[tokio::test]
async fn a_stalled_storage_whose_rest_can_wait_nowhere_is_left_behind() {
    let mut bench = Bench::new();
    std::fs::write(bench.folder.path().join("file"), b"no folder").unwrap();
    bench.route.spool = Spool::new(bench.folder.path().join("file/spool"));
    let (_held, released) = watch::channel(false);
    let places = vec![
        bench.faulty("offsite", Fault::Stalled(released), false),
        bench.good("disk"),
    ];
    let (mut relays, _) = bench.send(places, parts()).await;
    let error = relays.remove(0).outcome().await.err().unwrap();
    assert!(error.to_string().contains("keep up"), "{error}");
    assert!(error.hint.unwrap().contains("spool_dir"));
    let disk = relays.remove(0).outcome().await.unwrap();
    disk.finish().await.unwrap();
    assert!(bench.held("disk").unwrap() == parts().concat());
    assert!(bench.is_empty("offsite"), "what was begun is still there");
}

#[tokio::test]
async fn a_storage_on_the_disk_of_the_spool_is_waited_for() {
    let bench = Bench::new();
    let (release, released) = watch::channel(false);
    let place = bench.faulty("disk", Fault::Stalled(released), true);
    let sending = bench.send(vec![place], parts());
    let releasing = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        release.send(true).unwrap();
    };
    let ((mut relays, taken), ()) = tokio::join!(sending, releasing);
    assert_eq!(taken, 6);
    assert!(!bench.route.spool.folder().exists());
    let disk = relays.remove(0).outcome().await.unwrap();
    disk.finish().await.unwrap();
    assert!(bench.held("disk").unwrap() == parts().concat());
}

#[tokio::test]
async fn a_storage_that_fails_leaves_nothing_and_the_others_go_on() {
    for at in [1, 3, 6] {
        let bench = Bench::new();
        let places = vec![
            bench.faulty("offsite", Fault::AtPart(at), false),
            bench.good("disk"),
        ];
        let (mut relays, taken) = bench.send(places, parts()).await;
        assert_eq!(taken, 6);
        let error = relays.remove(0).outcome().await.err().unwrap();
        assert_eq!(error.problem, Problem::Unavailable);
        let disk = relays.remove(0).outcome().await.unwrap();
        disk.finish().await.unwrap();
        assert!(bench.held("disk").unwrap() == parts().concat());
        assert!(bench.is_empty("offsite"));
    }
}

#[tokio::test]
async fn when_all_storages_are_gone_nothing_more_is_taken_and_the_cause_is_known() {
    let bench = Bench::new();
    let places = vec![
        bench.faulty("a", Fault::AtPart(1), false),
        bench.faulty("b", Fault::AtPart(2), false),
    ];
    let (relays, taken) = bench.send(places, parts()).await;
    assert!(taken < 6, "{taken}");
    let error = abandon(relays).await.unwrap();
    assert_eq!(error.problem, Problem::Unavailable);
}

#[tokio::test]
async fn stopping_ends_a_stalled_upload_at_once_and_leaves_nothing() {
    let bench = Bench::new();
    let (_held, released) = watch::channel(false);
    let places = vec![
        bench.faulty("offsite", Fault::Stalled(released), false),
        bench.good("disk"),
    ];
    let (relays, _) = bench.send(places, parts()).await;
    bench.route.stop.cancel();
    assert!(abandon(relays).await.is_none());
    assert!(bench.is_empty("offsite") && bench.is_empty("disk"));
}

#[tokio::test]
async fn a_part_that_a_storage_does_not_take_within_its_time_fails_that_storage() {
    let mut bench = Bench::new();
    bench.route.patience.part = Duration::from_millis(100);
    let (_held, released) = watch::channel(false);
    let place = bench.faulty("offsite", Fault::Stalled(released), false);
    let (mut relays, _) = bench.send(vec![place], parts()).await;
    let error = relays.remove(0).outcome().await.err().unwrap();
    assert!(error.to_string().contains("does not answer"), "{error}");
    assert!(bench.is_empty("offsite"));
}
