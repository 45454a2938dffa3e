//! The contract: one set of promises, and every store keeps it.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use rdbkeeper::storage::Problem;

use super::{PART, bytes, each, key, keys, read, upload};
use crate::support::poll::{Deadline, PATIENCE};

#[test]
fn an_object_appears_once_and_is_never_overwritten() {
    each(async |name, store| {
        let object = key("web/one/manifest.json");
        assert!(keys(store, "").await.is_empty(), "{name}");
        store.put_new(&object, "first".into()).await.unwrap();
        let again = store.put_new(&object, "other".into()).await.unwrap_err();
        assert_eq!(again.problem, Problem::Exists, "{name}: {again:?}");
        for size in [10, PART + 1] {
            let late = upload(store, &object, &bytes(size)).await.unwrap_err();
            assert_eq!(late.problem, Problem::Exists, "{name}: {late:?}");
        }
        assert_eq!(read(store, &object).await, "first", "{name}");
        assert_eq!(keys(store, "").await, ["web/one/manifest.json"], "{name}");
        assert!(store.unfinished("web").await.unwrap().is_empty(), "{name}");
    });
}

#[test]
fn of_many_that_create_the_same_object_one_succeeds() {
    each(async |name, store| {
        let object = key("web/prune-lease/0000000001");
        let contents: Vec<Bytes> = (0..8u8).map(|number| vec![b'a' + number].into()).collect();
        let puts = contents
            .iter()
            .map(|content| store.put_new(&object, content.clone()));
        let results = futures_util::future::join_all(puts).await;
        let winners: Vec<usize> = (0..8).filter(|at| results[*at].is_ok()).collect();
        assert_eq!(winners.len(), 1, "{name}: {results:?}");
        assert_eq!(read(store, &object).await, contents[winners[0]], "{name}");
        for lost in results.iter().filter_map(|result| result.as_ref().err()) {
            assert_eq!(lost.problem, Problem::Exists, "{name}: {lost:?}");
        }
    });
}

#[test]
fn an_upload_shows_nothing_before_it_is_finished_and_then_all_of_it() {
    each(async |name, store| {
        for size in [0, 1, PART, PART + 1, 2 * PART, 3 * PART + 12_345] {
            let object = key(&format!("web/one/dump-{size}"));
            let data = bytes(size);
            let mut open = store.upload(&object).await.unwrap();
            for at in (0..size).step_by(PART) {
                open.part(data.slice(at..size.min(at + PART)))
                    .await
                    .unwrap();
            }
            let listed = keys(store, "web").await;
            assert!(!listed.contains(&object.to_string()), "{name}: {listed:?}");
            let early = store.read(&object).await.err().unwrap();
            assert_eq!(early.problem, Problem::NotFound, "{name}: {early:?}");
            open.finish().await.unwrap();
            let listed = store.list("web/one").await.unwrap();
            let one = listed.iter().find(|one| one.key == object).unwrap();
            assert_eq!(one.bytes, size as u64, "{name}");
            let reader = store.read(&object).await.unwrap();
            assert_eq!(reader.bytes(), size as u64, "{name}");
            assert!(read(store, &object).await == data, "{name}: {size} bytes");
        }
        assert!(store.unfinished("").await.unwrap().is_empty(), "{name}");
    });
}

#[test]
fn parts_of_any_size_make_one_object() {
    each(async |name, store| {
        let object = key("web/one/dump.rdb");
        let data = bytes(2 * PART + 777);
        let mut open = store.upload(&object).await.unwrap();
        let mut at = 0usize;
        for size in [1, 0, 100_000, PART + 5, 3, usize::MAX] {
            let end = data.len().min(at.saturating_add(size));
            open.part(data.slice(at..end)).await.unwrap();
            at = end;
        }
        open.finish().await.unwrap();
        assert!(read(store, &object).await == data, "{name}");
    });
}

#[test]
fn what_is_aborted_or_dropped_leaves_nothing() {
    each(async |name, store| {
        let object = key("web/one/dump.rdb");
        for size in [10, 2 * PART] {
            let mut open = store.upload(&object).await.unwrap();
            open.part(bytes(size)).await.unwrap();
            open.abort().await;
            assert!(store.unfinished("web").await.unwrap().is_empty(), "{name}");
        }
        let mut open = store.upload(&object).await.unwrap();
        open.part(bytes(PART)).await.unwrap();
        open.part(bytes(PART)).await.unwrap();
        drop(open);
        let deadline = Deadline::after(PATIENCE);
        // An empty folder takes no room, and is swept.
        let stays = async || {
            let left = store.unfinished("web").await.unwrap();
            left.iter().any(|one| one.bytes > 0 || name != "local")
        };
        while stays().await {
            assert!(!deadline.is_over(), "{name}: a dropped upload stays");
            tokio::task::yield_now().await;
        }
        assert!(keys(store, "").await.is_empty(), "{name}");
        store.put_new(&object, "free".into()).await.unwrap();
    });
}

#[test]
fn what_was_never_finished_is_found_and_can_be_discarded() {
    each(async |name, store| {
        let object = key("web/one/dump.rdb");
        let before = store.clock().await.unwrap();
        let mut open = store.upload(&object).await.unwrap();
        // Enough for some of it to be sent.
        for _ in 0..7 {
            open.part(bytes(PART)).await.unwrap();
        }
        assert!(
            store.unfinished("other").await.unwrap().is_empty(),
            "{name}"
        );
        let found = store.unfinished("web").await.unwrap();
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        assert_eq!(found[0].key, object, "{name}");
        assert!(found[0].bytes > 0, "{name}");
        let age = found[0].modified.duration_since(before).as_secs();
        assert!((-2..120).contains(&age), "{name}: {age}");
        store.discard(&found[0]).await.unwrap();
        store.discard(&found[0]).await.unwrap();
        assert!(store.unfinished("web").await.unwrap().is_empty(), "{name}");
        if name != "local" {
            // A file that lost its name can still get it back; elsewhere there is nothing to finish.
            open.finish().await.unwrap_err();
            assert!(keys(store, "").await.is_empty(), "{name}");
        }
    });
}

#[test]
fn a_listing_shows_all_of_thousands_of_objects_below_a_folder_and_no_others() {
    each(async |name, store| {
        let expected: BTreeSet<String> = (0..2_100)
            .map(|number| format!("web/{:02}/{number}", number % 70))
            .collect();
        let others = ["web-1/x", "webx/y", "wea/z", "top"].map(str::to_owned);
        let all: Vec<String> = expected.iter().chain(&others).cloned().collect();
        let mut puts = stream::iter(&all)
            .map(async |text| {
                let object = key(text);
                let content = Bytes::copy_from_slice(text.as_bytes());
                store.put_new(&object, content).await
            })
            .buffer_unordered(32);
        while let Some(done) = puts.next().await {
            done.unwrap();
        }
        let listed = store.list("web").await.unwrap();
        let found: BTreeSet<String> = listed.iter().map(|one| one.key.to_string()).collect();
        assert_eq!(listed.len(), found.len(), "{name}: listed twice");
        assert!(found == expected, "{name}: {} found", found.len());
        for one in &listed {
            assert_eq!(one.bytes, one.key.as_str().len() as u64, "{name}");
        }
        assert_eq!(keys(store, "web/07").await.len(), 30, "{name}");
        assert_eq!(keys(store, "").await.len(), all.len(), "{name}");
        assert!(keys(store, "nowhere").await.is_empty(), "{name}");
    });
}

#[test]
fn what_is_deleted_is_gone_and_deleting_nothing_is_fine() {
    each(async |name, store| {
        for object in ["web/one/dump.rdb", "web/one/dump.rdb.zst", "web/two/x"] {
            store.put_new(&key(object), "data".into()).await.unwrap();
        }
        let object = key("web/one/dump.rdb");
        store.delete(&object).await.unwrap();
        store.delete(&object).await.unwrap();
        assert_eq!(
            keys(store, "web").await,
            ["web/one/dump.rdb.zst", "web/two/x"],
            "{name}"
        );
        let missing = store.read(&object).await.err().unwrap();
        assert_eq!(missing.problem, Problem::NotFound, "{name}: {missing:?}");
        let missing = store.read_range(&object, 0..4).await.unwrap_err();
        assert_eq!(missing.problem, Problem::NotFound, "{name}: {missing:?}");
        store.put_new(&object, "again".into()).await.unwrap();
        assert_eq!(read(store, &object).await, "again", "{name}");
    });
}

#[test]
fn a_range_gives_what_the_object_has_of_it() {
    each(async |name, store| {
        let object = key("web/one/dump.rdb");
        let data = bytes(PART + 100_000);
        upload(store, &object, &data).await.unwrap();
        let length = data.len();
        for range in [
            0..4,
            0..65_536,
            PART - 10..PART + 10,
            length - 5..length + 100,
            length..length + 1,
            length + 10..length + 20,
            7..7,
        ] {
            let asked = range.start as u64..range.end as u64;
            let got = store.read_range(&object, asked).await.unwrap();
            let wanted = data.slice(range.start.min(length)..range.end.min(length));
            assert!(got == wanted, "{name}: {range:?}: {} bytes", got.len());
        }
        let nothing = key("web/one/empty");
        store.put_new(&nothing, Bytes::new()).await.unwrap();
        assert!(read(store, &nothing).await.is_empty(), "{name}");
        let got = store.read_range(&nothing, 0..10).await.unwrap();
        assert!(got.is_empty(), "{name}");
    });
}

#[test]
fn the_clock_is_that_of_the_listings() {
    each(async |name, store| {
        let before = store.clock().await.unwrap();
        store.put_new(&key("web/one/a"), "x".into()).await.unwrap();
        let after = store.clock().await.unwrap();
        let modified = store.list("web").await.unwrap()[0].modified;
        // Some tell whole seconds.
        let second = jiff::SignedDuration::from_secs(2);
        assert!(
            before - second <= modified && modified <= after + second,
            "{name}"
        );
    });
}

#[test]
fn many_read_one_object_at_a_time() {
    each(async |name, store| {
        let object = key("web/one/dump.rdb");
        let data = bytes(PART + 1);
        upload(store, &object, &data).await.unwrap();
        let reads = (0..4).map(|_| read(store, &object));
        for got in futures_util::future::join_all(reads).await {
            assert!(got == data, "{name}");
        }
        let mut reader = store.read(&object).await.unwrap();
        let mut total = 0;
        loop {
            let chunk = reader.next().await.unwrap();
            assert!(
                chunk.len() <= 2 << 20,
                "{name}: {} bytes at once",
                chunk.len()
            );
            if chunk.is_empty() {
                break;
            }
            total += chunk.len();
        }
        assert_eq!(total, data.len(), "{name}");
        assert!(reader.next().await.unwrap().is_empty(), "{name}");
    });
}
