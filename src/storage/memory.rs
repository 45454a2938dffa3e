//! A store in memory, for tests: it keeps the contract, and forgets everything when it is dropped.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use futures_util::future::{BoxFuture, ready};
use jiff::Timestamp;

use super::{Error, ObjectKey, ObjectMeta, Problem, Reader, Store, Unfinished, Upload};

/// How much is read at a time.
const READ_BYTES: usize = 1 << 20;

/// Objects in memory. Clones are one store.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    objects: BTreeMap<ObjectKey, (Bytes, Timestamp)>,
    uploads: BTreeMap<u64, Pending>,
    next: u64,
}

#[derive(Debug)]
struct Pending {
    key: ObjectKey,
    data: BytesMut,
    modified: Timestamp,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, problem: Problem, action: String) -> Error {
        Error::new(problem, self.describe(), action)
    }

    fn create(&self, key: &ObjectKey, data: Bytes) -> Result<(), Error> {
        let mut held = self.held();
        if held.objects.contains_key(key) {
            return Err(self.error(Problem::Exists, format!("write {key}")));
        }
        held.objects.insert(key.clone(), (data, Timestamp::now()));
        Ok(())
    }

    fn get(&self, key: &ObjectKey) -> Result<Bytes, Error> {
        match self.held().objects.get(key) {
            Some((data, _)) => Ok(data.clone()),
            None => Err(self.error(Problem::NotFound, format!("open {key}"))),
        }
    }
}

/// Whether a key lies below a folder.
fn is_below(key: &ObjectKey, folder: &str) -> bool {
    let rest = key.as_str().strip_prefix(folder);
    folder.is_empty() || rest.is_some_and(|rest| rest.starts_with('/'))
}

impl Store for MemoryStore {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn is_remote(&self) -> bool {
        false
    }

    fn put_new<'a>(&'a self, key: &'a ObjectKey, data: Bytes) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move { self.create(key, data) })
    }

    fn upload<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Box<dyn Upload>, Error>> {
        let mut held = self.held();
        held.next += 1;
        let number = held.next;
        held.uploads.insert(
            number,
            Pending {
                key: key.clone(),
                data: BytesMut::new(),
                modified: Timestamp::now(),
            },
        );
        drop(held);
        let upload: Box<dyn Upload> = Box::new(MemoryUpload {
            store: self.clone(),
            number,
        });
        Box::pin(ready(Ok(upload)))
    }

    fn read<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Box<dyn Reader>, Error>> {
        Box::pin(async move {
            let data = self.get(key)?;
            let reader: Box<dyn Reader> = Box::new(MemoryReader {
                bytes: data.len() as u64,
                data,
            });
            Ok(reader)
        })
    }

    fn read_range<'a>(
        &'a self,
        key: &'a ObjectKey,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, Error>> {
        Box::pin(async move {
            let data = self.get(key)?;
            let within = |at: u64| usize::try_from(at).map_or(data.len(), |at| at.min(data.len()));
            let (start, end) = (within(range.start), within(range.end));
            Ok(data.slice(start..end.max(start)))
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<ObjectMeta>, Error>> {
        let held = self.held();
        let below = held.objects.iter().filter(|(key, _)| is_below(key, prefix));
        let found = below
            .map(|(key, (data, modified))| ObjectMeta {
                key: key.clone(),
                bytes: data.len() as u64,
                modified: *modified,
            })
            .collect();
        Box::pin(ready(Ok(found)))
    }

    fn delete<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<(), Error>> {
        self.held().objects.remove(key);
        Box::pin(ready(Ok(())))
    }

    fn free_bytes(&self) -> BoxFuture<'_, Result<Option<u64>, Error>> {
        Box::pin(ready(Ok(None)))
    }

    fn clock(&self) -> BoxFuture<'_, Result<Timestamp, Error>> {
        Box::pin(ready(Ok(Timestamp::now())))
    }

    fn unfinished<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Unfinished>, Error>> {
        let held = self.held();
        let found = held
            .uploads
            .iter()
            .filter(|(_, pending)| is_below(&pending.key, prefix))
            .map(|(number, pending)| Unfinished {
                key: pending.key.clone(),
                handle: number.to_string(),
                bytes: pending.data.len() as u64,
                modified: pending.modified,
            })
            .collect();
        Box::pin(ready(Ok(found)))
    }

    fn discard<'a>(&'a self, unfinished: &'a Unfinished) -> BoxFuture<'a, Result<(), Error>> {
        if let Ok(number) = unfinished.handle.parse() {
            self.held().uploads.remove(&number);
        }
        Box::pin(ready(Ok(())))
    }
}

struct MemoryUpload {
    store: MemoryStore,
    number: u64,
}

impl MemoryUpload {
    fn gone(&self) -> Error {
        let action = "go on with an upload that was discarded".to_owned();
        self.store.error(Problem::NotFound, action)
    }
}

impl Upload for MemoryUpload {
    fn part(&mut self, data: Bytes) -> BoxFuture<'_, Result<(), Error>> {
        let taken = match self.store.held().uploads.get_mut(&self.number) {
            Some(pending) => {
                pending.data.extend_from_slice(&data);
                pending.modified = Timestamp::now();
                true
            }
            None => false,
        };
        let result = if taken { Ok(()) } else { Err(self.gone()) };
        Box::pin(ready(result))
    }

    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<(), Error>> {
        let pending = self.store.held().uploads.remove(&self.number);
        let result = match pending {
            Some(pending) => self.store.create(&pending.key, pending.data.freeze()),
            None => Err(self.gone()),
        };
        Box::pin(ready(result))
    }

    fn abort(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(ready(()))
    }
}

impl Drop for MemoryUpload {
    fn drop(&mut self) {
        self.store.held().uploads.remove(&self.number);
    }
}

struct MemoryReader {
    data: Bytes,
    bytes: u64,
}

impl Reader for MemoryReader {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Bytes, Error>> {
        let chunk = self.data.split_to(self.data.len().min(READ_BYTES));
        Box::pin(ready(Ok(chunk)))
    }
}
