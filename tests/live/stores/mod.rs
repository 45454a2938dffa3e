//! What every store promises, and what a bucket does beyond that.

mod bucket;
mod promises;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rdbkeeper::config::{Config, Environment};
use rdbkeeper::server::configured::judge_url;
use rdbkeeper::setup;
use rdbkeeper::storage::{Error, LocalStore, MemoryStore, ObjectKey, Store, get};

use crate::support::weed::{self, Bucket};

/// The size of a part that fills a part of S3's.
const PART: usize = 8 << 20;

/// Tries a promise on every store that can be had here, each empty.
fn each(promise: impl AsyncFn(&str, &dyn Store)) {
    let folder = tempfile::tempdir().unwrap();
    let local = LocalStore::new(folder.path().join("archive"));
    weed::wait(promise("local", &local));
    weed::wait(promise("memory", &MemoryStore::new()));
    if let Some(weed) = weed::shared() {
        let bucket = weed.bucket();
        let store = store_of(&format!("{}prefix = \"some/where\"", bucket.table("s3")));
        weed::wait(promise("s3", store.as_ref()));
    }
}

/// The store of a table `[storage.NAME]`, made as the program makes it.
fn store_of(table: &str) -> Arc<dyn Store> {
    let text = format!("{table}\n[[database]]\nname = \"web\"\nurl = \"redis://localhost\"\n");
    let environment = Environment::in_folder("/").with("HOME", "/nowhere");
    let config = Config::parse(Path::new("/x.toml"), &text, &environment, &judge_url).unwrap();
    let mut stores = setup::stores(&config, None).unwrap();
    assert_eq!(stores.len(), 1);
    stores.remove(0).store
}

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text.split('/')).unwrap()
}

/// Bytes of which no two stretches are alike.
fn bytes(length: usize) -> Bytes {
    let mut state = 1u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33).to_le_bytes()
    };
    let mut data = Vec::with_capacity(length + 8);
    while data.len() < length {
        data.extend_from_slice(&next()[..4]);
    }
    data.truncate(length);
    data.into()
}

/// Uploads these bytes in parts as the backup hands them over.
async fn upload(store: &dyn Store, object: &ObjectKey, data: &Bytes) -> Result<(), Error> {
    let mut upload = store.upload(object).await?;
    for at in (0..data.len()).step_by(PART) {
        let end = data.len().min(at + PART);
        upload.part(data.slice(at..end)).await?;
    }
    upload.finish().await
}

async fn keys(store: &dyn Store, prefix: &str) -> Vec<String> {
    let listed = store.list(prefix).await.unwrap();
    let mut keys: Vec<String> = listed.iter().map(|one| one.key.to_string()).collect();
    keys.sort();
    keys
}

async fn read(store: &dyn Store, object: &ObjectKey) -> Bytes {
    get(store, object, usize::MAX).await.unwrap()
}

/// A store in a bucket, with further lines of its table.
fn in_bucket(bucket: &Bucket, lines: &str) -> Arc<dyn Store> {
    store_of(&format!("{}{lines}\n", bucket.table("s3")))
}
