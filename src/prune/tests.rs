#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::*;
use crate::catalog::Manifest;
use crate::catalog::manifest::{Data, FORMAT, Rdb, Source};
use crate::pipeline::Compression;
use crate::stage;
use crate::storage::LocalStore;

/// An archive of backups that nobody ever took.
struct Archive {
    folder: tempfile::TempDir,
}

impl Archive {
    fn new() -> Archive {
        Archive {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn of(backups: &[(&str, u64)]) -> Archive {
        let archive = Archive::new();
        for (time, keys) in backups {
            archive.add(time, *keys);
        }
        archive
    }

    fn storage(&self, name: &str) -> NamedStore {
        NamedStore {
            name: name.to_owned(),
            store: Arc::new(LocalStore::new(self.folder.path())),
        }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join("web").join(below)
    }

    /// Adds a backup taken at `20261122T120000Z`, with so many keys; its ID is the time and zeros.
    fn add(&self, time: &str, keys: u64) {
        let id: BackupId = id(time).parse().unwrap();
        let folder = self.path(id.as_str());
        fs::create_dir_all(&folder).unwrap();
        let manifest = Manifest {
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
            rdb: Rdb {
                keys,
                ..Rdb::default()
            },
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
        };
        fs::write(folder.join("dump.rdb"), b"data").unwrap();
        fs::write(folder.join("manifest.json"), manifest.to_bytes().unwrap()).unwrap();
    }

    /// The folders of the database, by name.
    fn folders(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path(""))
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn id(time: &str) -> String {
    format!("{time}-000000")
}

fn ids(times: &[&str]) -> Vec<String> {
    times.iter().map(|time| id(time)).collect()
}

fn job(storages: Vec<NamedStore>, keep: Keep) -> Job {
    Job {
        name: "web".to_owned(),
        storages,
        policies: Policies {
            keep: (keep != Keep::default()).then_some(keep),
            ..Policies::default()
        },
        zone: TimeZone::UTC,
        shrink_guard: 0.5,
        shared: false,
        timeout: Duration::from_secs(3600),
        host: "here".to_owned(),
        cancel: CancellationToken::new(),
        gate: Gate::default(),
    }
}

fn last(count: u32) -> Keep {
    Keep {
        last: count,
        ..Keep::default()
    }
}

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

const A: &str = "20261119T120000Z";
const B: &str = "20261120T120000Z";
const C: &str = "20261121T120000Z";
const D: &str = "20261122T120000Z";

/// Makes everything below a folder look as if it had been written so long ago.
fn age(path: &Path, by: Duration) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            age(&entry.unwrap().path(), by);
        }
    }
    let file = File::open(path).unwrap();
    file.set_modified(SystemTime::now() - by).unwrap();
}

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test]
async fn what_no_rule_keeps_goes_and_pruning_again_does_nothing() {
    let archive = Archive::of(&[(A, 10), (B, 10), (C, 10), (D, 10)]);
    fs::write(archive.path(&id(A)).join("pinned"), b"").unwrap();
    let job = job(vec![archive.storage("disk")], last(2));

    let planned = prune(&job, Mode::DryRun, now()).await;
    assert_eq!(archive.folders(), ids(&[A, B, C, D]), "a dry run");
    let report = &planned[0].report;
    let states: Vec<State> = report.backups.iter().map(|judged| judged.state).collect();
    assert_eq!(states, [State::Kept, State::Goes, State::Kept, State::Kept]);
    assert_eq!(report.freed_bytes, 4);

    let done = prune(&job, Mode::Remove, now()).await;
    assert!(done[0].failure.is_none(), "{:?}", done[0].failure);
    assert_eq!(archive.folders(), ids(&[A, C, D]));
    assert_eq!(done[0].report.backups[1].state, State::Removed);
    assert!(done[0].report.freed_bytes > 4, "the manifest counts, too");

    let again = prune(&job, Mode::Remove, now()).await;
    assert!(again[0].failure.is_none() && again[0].report.freed_bytes == 0);
    assert_eq!(archive.folders(), ids(&[A, C, D]));
}

#[tokio::test]
async fn without_a_policy_only_debris_goes() {
    let archive = Archive::of(&[(A, 10), (B, 10)]);
    fs::create_dir_all(archive.path(&id(C))).unwrap();
    fs::write(archive.path(&id(C)).join("dump.rdb"), b"half").unwrap();
    age(&archive.path(&id(C)), 2 * DAY);
    let job = job(vec![archive.storage("disk")], Keep::default());
    let done = prune(&job, Mode::Remove, now()).await;
    assert_eq!(archive.folders(), ids(&[A, B]));
    let swept = done[0].report.swept;
    assert_eq!((swept.folders, swept.bytes), (1, 4));
}

#[tokio::test]
async fn a_newest_backup_that_is_shrunk_holds_all_storages_until_it_is_accepted() {
    let disk = Archive::of(&[(A, 10), (B, 10), (C, 10), (D, 2)]);
    let offsite = Archive::of(&[(A, 10), (B, 10), (C, 10)]);
    let job = job(
        vec![disk.storage("disk"), offsite.storage("offsite")],
        last(1),
    );
    for done in prune(&job, Mode::Remove, now()).await {
        assert_eq!(done.report.guard.unwrap().to_string(), id(D));
    }
    assert_eq!(disk.folders(), ids(&[A, B, C, D]));
    assert_eq!(offsite.folders(), ids(&[A, B, C]));
    fs::write(disk.path(&id(D)).join("accepted"), b"").unwrap();
    for done in prune(&job, Mode::Remove, now()).await {
        assert!(done.report.guard.is_none());
    }
    assert_eq!(disk.folders(), ids(&[D]));
    assert_eq!(offsite.folders(), ids(&[C]));
}

#[tokio::test]
async fn a_storage_that_cannot_be_listed_in_full_loses_nothing_and_does_not_keep_the_others() {
    let disk = Archive::of(&[(A, 10), (B, 10)]);
    let torn = Archive::of(&[(A, 10), (B, 10)]);
    // A manifest that cannot be read is not the same as one that is damaged.
    let manifest = torn.path(&id(B)).join("manifest.json");
    fs::remove_file(&manifest).unwrap();
    std::os::unix::fs::symlink("/proc/self/mem", &manifest).unwrap();
    let gone = tempfile::tempdir().unwrap();
    let file = gone.path().join("file");
    fs::write(&file, b"").unwrap();
    let misplaced = NamedStore {
        name: "gone".to_owned(),
        store: Arc::new(LocalStore::new(file)),
    };
    let job = job(
        vec![misplaced, torn.storage("torn"), disk.storage("disk")],
        last(1),
    );
    let done = prune(&job, Mode::Remove, now()).await;
    assert!(done[0].failure.is_some());
    assert_eq!(done[1].failure.as_ref().unwrap().kind, Kind::Storage);
    assert_eq!(torn.folders(), ids(&[A, B]));
    assert!(done[2].failure.is_none());
    assert_eq!(disk.folders(), ids(&[B]));
}

#[tokio::test]
async fn a_pin_that_comes_at_the_last_moment_brings_the_backup_back() {
    let archive = Archive::of(&[(A, 10), (B, 10)]);
    let folder = archive.path(&id(A));
    // Other tests come to this stage, too.
    stage::at("prune-manifest-gone", move || {
        if !folder.join("manifest.json").exists() {
            let _ = fs::write(folder.join("pinned"), b"");
        }
    });
    let job = job(vec![archive.storage("disk")], last(1));
    let before = fs::read(archive.path(&id(A)).join("manifest.json")).unwrap();
    let done = prune(&job, Mode::Remove, now()).await;
    assert_eq!(done[0].report.backups[0].state, State::Kept);
    let after = fs::read(archive.path(&id(A)).join("manifest.json")).unwrap();
    assert_eq!(before, after);
    assert!(archive.path(&id(A)).join("dump.rdb").exists());
}

#[tokio::test]
async fn who_has_lost_the_lease_removes_nothing_more() {
    let archive = Archive::of(&[(A, 10), (B, 10), (C, 10)]);
    let next = archive.path("prune-lease/0000000002");
    stage::at("prune-before-manifest", move || {
        let _ = fs::write(&next, br#"{"token":"x","host":"there","pid":1}"#);
    });
    let job = job(vec![archive.storage("disk")], last(1));
    let done = prune(&job, Mode::Remove, now()).await;
    assert_eq!(done[0].failure.as_ref().unwrap().kind, Kind::Busy);
    let states: Vec<State> = done[0].report.backups.iter().map(|j| j.state).collect();
    assert_eq!(states, [State::Goes, State::Goes, State::Kept]);
    let mut left = ids(&[A, B, C]);
    left.push("prune-lease".to_owned());
    assert_eq!(archive.folders(), left);
}

#[tokio::test]
async fn what_replaces_a_backup_must_still_be_there_when_it_goes() {
    let archive = Archive::of(&[(A, 10), (B, 10), (C, 10)]);
    let manifest = |time| archive.path(&id(time)).join("manifest.json");
    let (first, newest) = (manifest(A), manifest(C));
    stage::at("prune-manifest-gone", move || {
        if !first.exists() {
            let _ = fs::remove_file(&newest);
        }
    });
    let job = job(vec![archive.storage("disk")], last(1));
    let done = prune(&job, Mode::Remove, now()).await;
    assert_eq!(done[0].failure.as_ref().unwrap().kind, Kind::Refused);
    assert!(archive.path(&id(B)).join("manifest.json").exists());
}

#[tokio::test]
async fn debris_goes_after_its_time_and_what_is_not_ours_stays() {
    let archive = Archive::of(&[(A, 10)]);
    let write = |below: &str| {
        let path = archive.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"half").unwrap();
    };
    // Old: data without a manifest, a temporary file, one beside a whole backup, and an empty folder.
    write("20261001T000000Z-000001/dump.rdb.zst");
    write("20261001T000000Z-000002/.dump.rdb.zst.0123456789ab.tmp");
    write(&format!("{}/.pinned.0123456789ab.tmp", id(A)));
    write("prune-lease/.0000000001.0123456789ab.tmp");
    fs::create_dir(archive.path("20261001T000000Z-000003")).unwrap();
    // Old, and not ours, or a person's own.
    write("20261001T000000Z-000004/dump.rdb");
    write("20261001T000000Z-000004/notes.txt");
    write("20261001T000000Z-000005/dump.rdb");
    write("20261001T000000Z-000005/pinned");
    write("elsewhere/dump.rdb");
    write("elsewhere/.dump.rdb.0123456789ab.tmp");
    fs::create_dir(archive.path("empty")).unwrap();
    let day = DAY + Duration::from_secs(60);
    age(archive.folder.path(), day);
    // Old data, but somebody is still at it.
    write("20261001T000000Z-000006/dump.rdb");
    age(&archive.path("20261001T000000Z-000006"), day);
    write("20261001T000000Z-000006/.manifest.json.0123456789ab.tmp");

    let mut job = job(vec![archive.storage("disk")], last(1));
    job.timeout = Duration::from_secs(13 * 3600);
    prune(&job, Mode::Remove, now()).await;
    assert_eq!(archive.folders().len(), 10, "twice the timeout is not over");
    job.timeout = Duration::from_secs(3600);
    let done = prune(&job, Mode::Remove, now()).await;
    assert!(done[0].failure.is_none(), "{:?}", done[0].failure);
    assert_eq!(done[0].report.swept.folders, 5);
    assert_eq!(
        archive.folders(),
        [
            "20261001T000000Z-000004",
            "20261001T000000Z-000005",
            "20261001T000000Z-000006",
            &id(A),
            "elsewhere",
            "empty",
        ]
    );
    let left: Vec<_> = fs::read_dir(archive.path(&id(A))).unwrap().collect();
    assert_eq!(left.len(), 2);
}

#[tokio::test]
async fn nothing_more_goes_after_the_signal_to_stop() {
    let archive = Archive::of(&[(A, 10), (B, 10), (C, 10)]);
    let job = job(vec![archive.storage("disk")], last(1));
    let (cancel, first) = (
        job.cancel.clone(),
        archive.path(&id(A)).join("manifest.json"),
    );
    stage::at("prune-manifest-gone", move || {
        if !first.exists() {
            cancel.cancel();
        }
    });
    let done = prune(&job, Mode::Remove, now()).await;
    assert_eq!(done[0].failure.as_ref().unwrap().kind, Kind::Interrupted);
    // The one that had begun went in full, and the lease was given back.
    assert_eq!(archive.folders(), ids(&[B, C]));
}

#[tokio::test]
async fn nothing_more_goes_once_the_configuration_is_another_one() {
    let archive = Archive::of(&[(A, 10), (B, 10), (C, 10)]);
    let job = job(vec![archive.storage("disk")], last(1));
    let (gate, first) = (job.gate.clone(), archive.path(&id(A)).join("manifest.json"));
    stage::at("prune-manifest-gone", move || {
        if !first.exists() {
            gate.retire();
        }
    });
    let done = prune(&job, Mode::Remove, now()).await;
    let failure = done[0].failure.as_ref().unwrap();
    assert_eq!(failure.kind, Kind::Interrupted);
    assert!(failure.causes[0].contains("read anew"), "{failure:?}");
    assert_eq!(archive.folders(), ids(&[B, C]));
}

#[tokio::test]
async fn backups_of_another_host_go_only_where_the_name_is_shared() {
    let archive = Archive::of(&[(A, 10), (B, 10)]);
    let mut job = job(vec![archive.storage("disk")], last(1));
    job.host = "there".to_owned();
    for mode in [Mode::DryRun, Mode::Remove] {
        let done = prune(&job, mode, now()).await;
        assert_eq!(done[0].failure.as_ref().unwrap().kind, Kind::Refused);
    }
    assert_eq!(archive.folders(), ids(&[A, B]));
    job.shared = true;
    prune(&job, Mode::Remove, now()).await;
    assert_eq!(archive.folders(), ids(&[B]));
}

#[tokio::test]
async fn nothing_more_goes_once_there_is_a_backup_that_nobody_has_judged() {
    let archive = Arc::new(Archive::of(&[(A, 10), (B, 10), (C, 10)]));
    let (other, first) = (
        Arc::clone(&archive),
        archive.path(&id(A)).join("manifest.json"),
    );
    stage::at("prune-manifest-gone", move || {
        if !first.exists() {
            // A shrunk one, beside which nothing may go.
            other.add(D, 1);
        }
    });
    let job = job(vec![archive.storage("disk")], last(1));
    let done = prune(&job, Mode::Remove, now()).await;
    assert_eq!(done[0].failure.as_ref().unwrap().kind, Kind::Busy);
    assert_eq!(archive.folders(), ids(&[B, C, D]));
}

#[tokio::test]
async fn what_takes_too_long_is_stopped_and_gives_its_lease_back() {
    let archive = Archive::of(&[(A, 10), (B, 10), (C, 10)]);
    let first = archive.path(&id(A)).join("manifest.json");
    let limit = Duration::from_secs(1);
    stage::at("prune-manifest-gone", move || {
        if !first.exists() {
            std::thread::sleep(2 * limit);
        }
    });
    let job = job(vec![archive.storage("disk")], last(1));
    let done = prune_within(&job, Mode::Remove, now(), limit).await;
    assert_eq!(done[0].failure.as_ref().unwrap().kind, Kind::Timeout);
    let left = archive.folders();
    assert!(!left.contains(&"prune-lease".to_owned()), "{left:?}");
    assert!(left.contains(&id(B)), "{left:?}");
}
