#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::join_all;

use super::*;
use crate::storage::LocalStore;

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        Place {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn storage(&self) -> NamedStore {
        NamedStore {
            name: "disk".to_owned(),
            store: Arc::new(LocalStore::new(self.folder.path())),
        }
    }

    async fn take(&self) -> Result<Lease, Error> {
        Lease::take(&self.storage(), "web", "here").await
    }

    fn path(&self, generation: u64) -> PathBuf {
        self.folder
            .path()
            .join(format!("web/prune-lease/{generation:010}"))
    }

    fn generations(&self) -> Vec<String> {
        let folder = self.folder.path().join("web/prune-lease");
        let mut names: Vec<String> = fs::read_dir(folder)
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// Makes a file look as if it had been written so long before now.
fn age(path: &Path, by: Duration) {
    let file = File::options().append(true).open(path).unwrap();
    // The clock of the file system ticks more coarsely than this one.
    let by = by + Duration::from_secs(1);
    file.set_modified(SystemTime::now() - by).unwrap();
}

fn is_busy<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Leased { .. }))
}

fn is_lost(result: Result<(), Error>) -> bool {
    matches!(result, Err(Error::LeaseLost { .. }))
}

#[tokio::test]
async fn it_is_held_once_and_its_release_leaves_nothing() {
    let place = Place::new();
    let mut held = place.take().await.unwrap();
    let busy = place.take().await;
    let told = busy.unwrap_err().to_string();
    let process = format!("process {} on host here", std::process::id());
    assert!(told.contains(&process) && told.contains("web"), "{told}");
    held.look().await.unwrap();
    Lease::take(&place.storage(), "other", "here")
        .await
        .unwrap();
    held.release().await.unwrap();
    assert!(!place.folder.path().join("web").exists() || place.generations().is_empty());
    place.take().await.unwrap().release().await.unwrap();
}

#[tokio::test]
async fn of_many_contenders_one_wins_whether_it_is_free_or_stale() {
    for stale in [false, true] {
        let place = Place::new();
        if stale {
            drop(place.take().await.unwrap());
            age(&place.path(1), STALE_AFTER - Duration::from_secs(60));
            assert!(is_busy(place.take().await), "before its time");
            age(&place.path(1), STALE_AFTER);
        }
        let taken = join_all((0..24).map(|_| place.take())).await;
        let mut winners: Vec<Lease> = taken.into_iter().filter_map(Result::ok).collect();
        assert_eq!(winners.len(), 1, "stale: {stale}");
        let mut winner = winners.pop().unwrap();
        winner.look().await.unwrap();
        winner.release().await.unwrap();
        assert!(place.generations().is_empty());
    }
}

#[tokio::test]
async fn it_is_renewed_in_time_and_lost_when_its_time_is_over() {
    let place = Place::new();
    let mut held = place.take().await.unwrap();
    age(&place.path(1), STALE_AFTER / 3 + Duration::from_secs(1));
    held.look().await.unwrap();
    assert_eq!(place.generations(), ["0000000002"]);
    held.look().await.unwrap();
    assert!(is_busy(place.take().await));
    age(&place.path(2), STALE_AFTER);
    assert!(
        is_lost(held.look().await),
        "nobody has taken it, but might now"
    );
    assert_eq!(place.generations(), ["0000000002"]);
}

#[tokio::test]
async fn a_holder_that_was_paused_removes_nothing_more_whatever_came_after_it() {
    let place = Place::new();
    let mut paused = place.take().await.unwrap();
    age(&place.path(1), STALE_AFTER);
    let mut second = place.take().await.unwrap();
    assert!(is_lost(paused.look().await));
    second.look().await.unwrap();
    second.release().await.unwrap();
    assert!(is_lost(paused.look().await), "there is none any more");
    // The generations begin anew: only the token tells.
    let mut third = place.take().await.unwrap();
    assert_eq!(third.generation, paused.generation);
    assert!(is_lost(paused.look().await));
    paused.release().await.unwrap();
    third.look().await.unwrap();
    third.release().await.unwrap();
}

#[tokio::test]
async fn one_from_the_future_is_not_waited_for() {
    let place = Place::new();
    drop(place.take().await.unwrap());
    let file = File::options().append(true).open(place.path(1)).unwrap();
    let year = Duration::from_secs(365 * 86_400);
    file.set_modified(SystemTime::now() + year).unwrap();
    let mut taken = place.take().await.unwrap();
    taken.look().await.unwrap();
}

#[tokio::test]
async fn a_contender_that_comes_late_gives_way() {
    let place = Place::new();
    let mut held = place.take().await.unwrap();
    // It saw generation 1 when that was stale; meanwhile the row has moved on, and 2 is swept.
    for generation in [2, 3] {
        assert!(held.put(generation).await.unwrap());
        held.delete(generation - 1).await.unwrap();
        held.generation = generation;
    }
    let late = Lease {
        storage: place.storage(),
        database: "web".to_owned(),
        holder: Holder {
            token: "late".to_owned(),
            ..held.holder.clone()
        },
        generation: 2,
    };
    assert!(is_busy(late.claim().await));
    held.look().await.unwrap();
    assert_eq!(place.generations(), ["0000000003"]);
}

#[tokio::test]
async fn what_is_no_generation_is_none_of_ours() {
    let place = Place::new();
    let folder = place.folder.path().join("web/prune-lease");
    fs::create_dir_all(&folder).unwrap();
    for foreign in [
        "README",
        "99",
        "00000000001",
        ".0000000007.0123456789ab.tmp",
    ] {
        fs::write(folder.join(foreign), b"x").unwrap();
    }
    let held = place.take().await.unwrap();
    assert_eq!(held.generation, 1);
    held.release().await.unwrap();
    assert_eq!(place.generations().len(), 4);
}
