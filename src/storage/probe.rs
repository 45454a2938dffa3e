//! Proving that a store does what it must, with a small object of our own that is gone afterwards.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use super::{Error, Features, NamedStore, ObjectKey, Problem, get, within};

/// The folder that probes are made in; it is no database's, for no listing looks for IDs there.
const FOLDER: &str = "rdbkeeper-check";

/// How long each step may take.
const STEP: Duration = Duration::from_secs(30);

/// What a store proved to do. All of writing, reading, listing and deleting worked, or there is an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Probed {
    /// Whether it refuses to create what exists, in one step.
    pub create_only: bool,
    /// Bytes that can still be written, where it can tell.
    pub free_bytes: Option<u64>,
    /// By how many seconds its clock is ahead of this host's.
    pub clock_ahead_seconds: i64,
    /// What it does beyond what it must.
    #[serde(flatten)]
    pub features: Features,
}

/// Writes, reads, lists, tries to overwrite and deletes a small object, and asks for the time.
pub async fn probe(storage: &NamedStore) -> Result<Probed, Error> {
    let store = storage.store.as_ref();
    let wrong = |what: &str| Error::new(Problem::Other, store.describe(), what);
    let mut random = [0u8; 8];
    getrandom::fill(&mut random).map_err(|error| wrong("find a name").because(error))?;
    let name: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let key = ObjectKey::new([FOLDER, &name])?;
    let content = Bytes::from(name);
    let place = store.describe();
    let writing = store.put_new(&key, content.clone());
    within(STEP, &place, format!("write {key}"), writing).await?;
    let probed = async {
        let reading = get(store, &key, content.len());
        if within(STEP, &place, format!("read {key}"), reading).await? != content {
            return Err(wrong("read back what was written"));
        }
        let listing = store.list(FOLDER);
        let listed = within(STEP, &place, format!("list {FOLDER}"), listing).await?;
        if !listed.iter().any(|object| object.key == key) {
            return Err(wrong("list what was written"));
        }
        let again = store.put_new(&key, Bytes::new());
        let create_only = match within(STEP, &place, format!("write {key} once more"), again).await
        {
            Ok(()) => false,
            Err(error) if error.problem == Problem::Exists => true,
            Err(error) => return Err(error),
        };
        let now = Timestamp::now();
        let theirs = within(STEP, &place, "ask for the time", store.clock()).await?;
        let features = within(STEP, &place, "ask what it can do", store.features()).await?;
        Ok(Probed {
            create_only: create_only && !features.only_looks_first,
            free_bytes: within(STEP, &place, "ask for its room", store.free_bytes()).await?,
            clock_ahead_seconds: theirs.duration_since(now).as_secs(),
            features,
        })
    }
    .await;
    let deleting = store.delete(&key);
    match within(STEP, &place, format!("delete {key}"), deleting).await {
        Err(error) if error.problem == Problem::Locked => Err(error.hint(
            "the bucket locks all that is written into it, so that pins and leases could never be removed: drop its default retention, and set `object_lock` here, which locks backups alone",
        )),
        deleted => deleted.and(probed),
    }
}
