#![allow(clippy::unwrap_used)]
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::storage::get;

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text.split('/')).unwrap()
}

async fn keys(store: &LocalStore) -> Vec<String> {
    let mut keys: Vec<String> = store
        .list("")
        .await
        .unwrap()
        .iter()
        .map(|object| object.key.to_string())
        .collect();
    keys.sort();
    keys
}

fn files_below(folder: &Path) -> usize {
    std::fs::read_dir(folder)
        .map(|entries| {
            entries
                .map(|entry| match entry.unwrap().path() {
                    path if path.is_dir() => files_below(&path),
                    _ => 1,
                })
                .sum()
        })
        .unwrap_or(0)
}

#[tokio::test]
async fn an_object_appears_whole_and_private_and_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("a/b");
    let store = LocalStore::new(&root);
    let object = key("sessions/one/dump.rdb");
    assert!(keys(&store).await.is_empty());

    let mut upload = store.upload(&object).await.unwrap();
    upload.part(Bytes::from_static(b"first ")).await.unwrap();
    assert!(keys(&store).await.is_empty(), "listed before it is whole");
    upload.part(Bytes::from_static(b"second")).await.unwrap();
    upload.finish().await.unwrap();
    assert_eq!(keys(&store).await, ["sessions/one/dump.rdb"]);
    assert_eq!(get(&store, &object, 100).await.unwrap(), "first second");
    assert!(get(&store, &object, 5).await.is_err());

    let again = store.put_new(&object, Bytes::from_static(b"other")).await;
    assert_eq!(again.unwrap_err().problem, Problem::Exists);
    let upload = store.upload(&object).await.unwrap();
    assert_eq!(upload.finish().await.unwrap_err().problem, Problem::Exists);
    assert_eq!(get(&store, &object, 100).await.unwrap(), "first second");
    assert_eq!(files_below(&root), 1, "a temporary file was left");

    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&root.join("sessions/one/dump.rdb")), 0o600);
    assert_eq!(mode(&root.join("sessions/one")), 0o700);
    assert_eq!(mode(&root), 0o700);
}

#[tokio::test]
async fn what_is_synced_while_the_next_is_written_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::new(folder.path());
    let object = key("db/id/x");
    let mut upload = store.upload(&object).await.unwrap();
    let mut expected = Vec::new();
    for part in 0u32.. {
        if expected.len() as u64 > 3 * SYNC_BYTES {
            break;
        }
        let bytes: Vec<u8> = (0..1_700_003u32)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8 ^ part as u8)
            .collect();
        expected.extend_from_slice(&bytes);
        upload.part(bytes.into()).await.unwrap();
    }
    upload.finish().await.unwrap();
    assert!(get(&store, &object, expected.len()).await.unwrap() == expected);
}

#[tokio::test]
async fn an_upload_that_is_aborted_or_dropped_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::new(folder.path());
    let mut upload = store.upload(&key("db/id/x")).await.unwrap();
    upload.part(Bytes::from_static(b"data")).await.unwrap();
    upload.abort().await;
    assert!(!folder.path().join("db/id").exists());
    let mut upload = store.upload(&key("db/id/x")).await.unwrap();
    upload.part(Bytes::from_static(b"data")).await.unwrap();
    drop(upload);
    assert_eq!(files_below(folder.path()), 0);
}

#[tokio::test]
async fn what_is_deleted_takes_its_empty_folder_along_and_deleting_nothing_is_fine() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::new(folder.path());
    for name in ["db/id/a", "db/id/b"] {
        store.put_new(&key(name), Bytes::new()).await.unwrap();
    }
    store.delete(&key("db/id/a")).await.unwrap();
    assert_eq!(keys(&store).await, ["db/id/b"]);
    store.delete(&key("db/id/b")).await.unwrap();
    store.delete(&key("db/id/b")).await.unwrap();
    assert!(!folder.path().join("db/id").exists());
    let missing = store.read(&key("db/id/b")).await.err().unwrap();
    assert_eq!(missing.problem, Problem::NotFound);
}

#[tokio::test]
async fn a_root_that_is_a_file_is_told_as_misplaced() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("file");
    std::fs::write(&root, b"").unwrap();
    let store = LocalStore::new(&root);
    let put = store.put_new(&key("db/id/x"), Bytes::new()).await;
    assert_eq!(put.unwrap_err().problem, Problem::Misplaced);
    let list = store.list("").await;
    assert_eq!(list.unwrap_err().problem, Problem::Misplaced);
}

#[test]
fn a_key_can_leave_the_store_by_no_name() {
    for bad in ["..", ".", "", "a/b", ".hidden", "a\0b", "a\\b"] {
        assert!(ObjectKey::new(["db", bad]).is_err(), "{bad:?}");
    }
}

#[tokio::test]
async fn the_clock_is_that_of_listings_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("new");
    let store = LocalStore::new(&root);
    let before = store.clock().await.unwrap();
    store.put_new(&key("db/id/a"), Bytes::new()).await.unwrap();
    let after = store.clock().await.unwrap();
    let modified = store.list("").await.unwrap()[0].modified;
    assert!(before <= modified && modified <= after);
    assert_eq!(files_below(&root), 1);
}

#[tokio::test]
async fn what_was_never_finished_is_found_and_removed_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::new(folder.path());
    store
        .put_new(&key("db/one/a"), Bytes::from_static(b"whole"))
        .await
        .unwrap();
    let mut upload = store.upload(&key("db/two/dump.rdb")).await.unwrap();
    upload.part(Bytes::from_static(b"part")).await.unwrap();
    std::fs::create_dir(folder.path().join("db/three")).unwrap();
    std::fs::create_dir(folder.path().join("other")).unwrap();
    for foreign in [
        ".hidden",
        ".x.tmp",
        ".x.0123456789aG.tmp",
        "y.0123456789ab.tmp",
    ] {
        std::fs::write(folder.path().join("db/one").join(foreign), b"").unwrap();
    }
    std::os::unix::fs::symlink("a", folder.path().join("db/one/.l.0123456789ab.tmp")).unwrap();

    let mut found = store.unfinished("db").await.unwrap();
    found.sort_by(|a, b| a.key.cmp(&b.key));
    let shown: Vec<(&str, u64)> = found.iter().map(|f| (f.key.as_str(), f.bytes)).collect();
    assert_eq!(shown, [("db/three", 0), ("db/two/dump.rdb", 4)]);
    assert!(store.unfinished("nowhere").await.unwrap().is_empty());

    // A folder that is in use again is left.
    std::fs::write(folder.path().join("db/three/new"), b"").unwrap();
    for one in &found {
        store.discard(one).await.unwrap();
        store.discard(one).await.unwrap();
    }
    assert!(folder.path().join("db/three/new").exists());
    assert!(!folder.path().join("db/two").exists());
    assert_eq!(files_below(&folder.path().join("db/one")), 6);
    drop(upload);
}

#[tokio::test]
async fn a_range_gives_what_the_object_has_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::new(folder.path());
    let object = key("sessions/one/dump.rdb");
    let data = Bytes::from_static(b"0123456789");
    store.put_new(&object, data.clone()).await.unwrap();
    for (range, wanted) in [
        (0..4, "0123"),
        (4..100, "456789"),
        (10..20, ""),
        (20..30, ""),
    ] {
        let read = store.read_range(&object, range.clone()).await.unwrap();
        assert_eq!(read, wanted, "{range:?}");
    }
}
