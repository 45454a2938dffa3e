//! A folder on this machine.
//!
//! An object is written under a temporary name beside its own, synced, renamed without replacing
//! anything, and the folder is synced: after a crash at any point it is there whole or not at all.
//! Folders are made with mode 0700 and files with 0600, for a session dump is full of login tokens.
//! What root makes takes the owner of the storage's folder, so that a backup by hand does not lock
//! the daemon out.

mod unfinished;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use rustix::buffer::spare_capacity;
use rustix::fs::{Advice, OFlags};
use rustix::io::Errno;
use tokio::task::JoinHandle;

use super::{Error, ObjectKey, ObjectMeta, Problem, Reader, Store, Unfinished, Upload, private};
use crate::pool::Pool;

/// How much is read at a time.
const READ_BYTES: usize = 1 << 20;

/// How much of an upload is written before it is synced, beside the writing of the next: so the disk works from the beginning,
/// and what is left for the end is little.
const SYNC_BYTES: u64 = 32 << 20;

/// A store in a folder of a local file system.
#[derive(Clone, Debug)]
pub struct LocalStore {
    root: Arc<PathBuf>,
}

impl LocalStore {
    /// A store in this folder. Nothing is touched yet; the folder is made when something is written.
    pub fn new(root: impl Into<PathBuf>) -> LocalStore {
        LocalStore {
            root: Arc::new(root.into()),
        }
    }

    fn path(&self, key: &ObjectKey) -> PathBuf {
        self.root.join(key.as_str())
    }

    fn error(&self, action: String, error: io::Error) -> Error {
        Error::new(problem_of(&error), self.describe(), action).because(error)
    }

    async fn open(&self, path: PathBuf, name: &str) -> Result<Box<dyn Reader>, Error> {
        let (file, bytes) = self
            .blocking(format!("open {name}"), move |_| {
                let file = File::open(&path)?;
                let facts = file.metadata()?;
                if facts.is_dir() {
                    return Err(io::ErrorKind::IsADirectory.into());
                }
                Ok((file, facts.len()))
            })
            .await?;
        Ok(Box::new(LocalReader {
            store: self.clone(),
            action: format!("read {name}"),
            pool: Pool::new(READ_BYTES),
            file: Arc::new(file),
            at: 0,
            bytes,
        }))
    }

    /// Runs blocking file work off the async threads.
    async fn blocking<T: Send + 'static>(
        &self,
        action: String,
        work: impl FnOnce(&LocalStore) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let store = self.clone();
        let task = tokio::task::spawn_blocking(move || work(&store));
        self.done(action, task).await
    }

    /// Waits for file work.
    async fn done<T>(&self, action: String, task: JoinHandle<io::Result<T>>) -> Result<T, Error> {
        match task.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.error(action, error)),
            Err(panic) => Err(self.error(action, io::Error::other(panic))),
        }
    }
}

/// Which of the contract's problems an I/O error is.
fn problem_of(error: &io::Error) -> Problem {
    match error.kind() {
        io::ErrorKind::NotFound => Problem::NotFound,
        io::ErrorKind::AlreadyExists => Problem::Exists,
        io::ErrorKind::PermissionDenied => Problem::Denied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Problem::Full,
        io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::ReadOnlyFilesystem => Problem::Misplaced,
        _ => Problem::Other,
    }
}

impl Store for LocalStore {
    fn describe(&self) -> String {
        self.root.display().to_string()
    }

    fn is_remote(&self) -> bool {
        false
    }

    fn shares_disk_with<'a>(&'a self, folder: &'a Path) -> BoxFuture<'a, bool> {
        let folder = folder.to_owned();
        let same = self.blocking("look at the disk".to_owned(), move |store| {
            Ok(device(&store.root)? == device(&folder)?)
        });
        Box::pin(async { same.await.unwrap_or(false) })
    }

    fn put_new<'a>(&'a self, key: &'a ObjectKey, data: Bytes) -> BoxFuture<'a, Result<(), Error>> {
        let path = self.path(key);
        Box::pin(self.blocking(format!("write {key}"), move |_| {
            let mut file = create_in_folder(&path)?;
            file.file().write_all(&data)?;
            file.appear()
        }))
    }

    fn upload<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Box<dyn Upload>, Error>> {
        let path = self.path(key);
        Box::pin(async move {
            let file = self
                .blocking(format!("create {key}"), move |_| create_in_folder(&path))
                .await?;
            let upload: Box<dyn Upload> = Box::new(LocalUpload {
                store: self.clone(),
                key: key.clone(),
                file: Some(file),
                unsynced: 0..0,
                syncing: None,
            });
            Ok(upload)
        })
    }

    fn read<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Box<dyn Reader>, Error>> {
        Box::pin(self.open(self.path(key), key.as_str()))
    }

    fn read_range<'a>(
        &'a self,
        key: &'a ObjectKey,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes, Error>> {
        let path = self.path(key);
        Box::pin(self.blocking(format!("read {key}"), move |_| {
            let file = File::open(&path)?;
            let end = range.end.min(file.metadata()?.len());
            let length = usize::try_from(end.saturating_sub(range.start));
            let mut bytes = BytesMut::zeroed(length.map_err(io::Error::other)?);
            file.read_exact_at(&mut bytes, range.start)?;
            Ok(bytes.freeze())
        }))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<ObjectMeta>, Error>> {
        let prefix = prefix.to_owned();
        Box::pin(self.blocking(format!("list {prefix:?}"), move |store| {
            let mut found = Vec::new();
            walk(&store.root, &prefix, &mut found)?;
            Ok(found)
        }))
    }

    fn delete<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<(), Error>> {
        let path = self.path(key);
        Box::pin(self.blocking(format!("delete {key}"), move |store| {
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            }
            // A folder that is empty now goes too; one that is not stays, and that is no error.
            let folder = private::parent_of(&path);
            if folder != store.root.as_path() && fs::remove_dir(folder).is_ok() {
                return private::sync_folder(private::parent_of(folder));
            }
            private::sync_folder(folder)
        }))
    }

    fn free_bytes(&self) -> BoxFuture<'_, Result<Option<u64>, Error>> {
        Box::pin(self.blocking("look at the free space".to_owned(), |store| {
            let mut at = store.root.as_path();
            while !at.try_exists()? {
                at = private::parent_of(at);
            }
            let facts = rustix::fs::statvfs(at)?;
            Ok(Some(facts.f_bavail.saturating_mul(facts.f_frsize)))
        }))
    }

    fn clock(&self) -> BoxFuture<'_, Result<Timestamp, Error>> {
        Box::pin(self.blocking("ask for the time".to_owned(), |store| clock(&store.root)))
    }

    fn unfinished<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Unfinished>, Error>> {
        let prefix = prefix.to_owned();
        let action = format!("look for what is unfinished in {prefix:?}");
        Box::pin(self.blocking(action, move |store| {
            let mut found = Vec::new();
            unfinished::walk(&store.root, &prefix, &mut found)?;
            Ok(found)
        }))
    }

    fn discard<'a>(&'a self, unfinished: &'a Unfinished) -> BoxFuture<'a, Result<(), Error>> {
        let handle = unfinished.handle.clone();
        Box::pin(self.blocking(format!("remove {handle}"), move |store| {
            unfinished::discard(&store.root, &handle)
        }))
    }
}

/// The device of a folder, or of the nearest one above it that is there.
fn device(folder: &Path) -> io::Result<u64> {
    let mut at = folder;
    while !at.try_exists()? {
        at = private::parent_of(at);
    }
    Ok(fs::metadata(at)?.dev())
}

/// The time by the file system's clock, which is not this host's when it is mounted from another: that of
/// a new file without a name, or of a temporary one where there are no files without names.
fn clock(root: &Path) -> io::Result<Timestamp> {
    private::make_folders(root)?;
    let nameless = OpenOptions::new()
        .write(true)
        .mode(0o600)
        .custom_flags(OFlags::TMPFILE.bits().cast_signed())
        .open(root);
    let modified = match nameless {
        Ok(file) => file.metadata()?.modified()?,
        Err(_) => create_in_folder(&root.join("clock"))?
            .file()
            .metadata()?
            .modified()?,
    };
    Ok(timestamp(modified))
}

fn timestamp(time: std::time::SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::MIN)
}

/// Makes a temporary file and the folders it lies in. Another process that removes its own last object
/// removes the folder, too: then it is made again.
fn create_in_folder(path: &Path) -> io::Result<private::TemporaryFile> {
    let mut tries = 0;
    loop {
        private::make_folders(private::parent_of(path))?;
        match private::TemporaryFile::create(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < 10 => tries += 1,
            made => return made,
        }
    }
}

/// Collects the objects below a folder; what starts with a dot is unfinished or not ours.
fn walk(root: &Path, prefix: &str, found: &mut Vec<ObjectMeta>) -> io::Result<()> {
    let folder = root.join(prefix);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else {
            continue;
        };
        let below = match prefix {
            "" => name.to_owned(),
            _ => format!("{prefix}/{name}"),
        };
        // What vanishes while it is listed is not there.
        let facts = match fs::metadata(entry.path()) {
            Ok(facts) => facts,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if facts.is_dir() {
            // A folder like lost+found may be closed to us, and is none of ours.
            match walk(root, &below, found) {
                Err(error)
                    if prefix.is_empty() && error.kind() == io::ErrorKind::PermissionDenied => {}
                other => other?,
            }
        } else if facts.is_file()
            && let Ok(key) = ObjectKey::new(below.split('/'))
        {
            found.push(ObjectMeta {
                key,
                bytes: facts.len(),
                modified: timestamp(facts.modified()?),
            });
        }
    }
    Ok(())
}

struct LocalUpload {
    store: LocalStore,
    key: ObjectKey,
    file: Option<private::TemporaryFile>,
    /// What was written since the last sync began.
    unsynced: Range<u64>,
    syncing: Option<JoinHandle<io::Result<()>>>,
}

impl LocalUpload {
    /// Waits until what is being synced is on the disk.
    async fn synced(&mut self) -> Result<(), Error> {
        match self.syncing.take() {
            None => Ok(()),
            Some(task) => {
                let action = format!("write {}", self.key);
                self.store.done(action, task).await
            }
        }
    }

    /// Begins to sync what was written. One sync at a time: that bounds what is not on the disk yet.
    async fn sync(&mut self, file: &mut private::TemporaryFile) -> Result<(), Error> {
        self.synced().await?;
        let copy = file.file().try_clone();
        let end = self.unsynced.end;
        let range = std::mem::replace(&mut self.unsynced, end..end);
        self.syncing = Some(tokio::task::spawn_blocking(move || {
            let copy = copy?;
            copy.sync_data()?;
            forget(&copy, range);
            Ok(())
        }));
        Ok(())
    }
}

impl Upload for LocalUpload {
    fn part(&mut self, data: Bytes) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let Some(mut file) = self.file.take() else {
                // An earlier part failed: the object is lost, and `finish` must not make it appear.
                return Err(Error::new(
                    Problem::Other,
                    self.store.describe(),
                    format!("go on with {}", self.key),
                ));
            };
            self.unsynced.end += data.len() as u64;
            let action = format!("write {}", self.key);
            let mut file = self
                .store
                .blocking(action, move |_| {
                    file.file().write_all(&data)?;
                    Ok(file)
                })
                .await?;
            if self.unsynced.end - self.unsynced.start >= SYNC_BYTES {
                self.sync(&mut file).await?;
            }
            self.file = Some(file);
            Ok(())
        })
    }

    fn finish(mut self: Box<Self>) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async move {
            let Some(file) = self.file.take() else {
                return Err(Error::new(
                    Problem::Other,
                    self.store.describe(),
                    format!("finish {}", self.key),
                ));
            };
            self.synced().await?;
            let action = format!("finish {}", self.key);
            self.store.blocking(action, move |_| file.appear()).await
        })
    }

    fn abort(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let file = self.file.take();
            let folder = self.store.path(&self.key);
            // Removing the temporary file, and the backup's folder when that leaves it empty.
            let _ = self
                .store
                .blocking(String::new(), move |_| {
                    drop(file);
                    let _ = fs::remove_dir(private::parent_of(&folder));
                    Ok(())
                })
                .await;
        })
    }
}

/// Takes what is on the disk out of the page cache: nobody reads it soon, and others' pages stay in.
fn forget(file: &File, range: Range<u64>) {
    let len = NonZeroU64::new(range.end - range.start);
    // Advice: a file system that has none for it keeps its pages.
    let _ = rustix::fs::fadvise(file, range.start, len, Advice::DontNeed);
}

struct LocalReader {
    store: LocalStore,
    action: String,
    file: Arc<File>,
    pool: Pool,
    /// Where the next reading begins: readers of one file do not share a position.
    at: u64,
    bytes: u64,
}

impl Reader for LocalReader {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Bytes, Error>> {
        Box::pin(async move {
            let (file, pool, at) = (Arc::clone(&self.file), self.pool.clone(), self.at);
            let read = self.store.blocking(self.action.clone(), move |_| {
                let mut chunk = pool.take();
                while chunk.len() < chunk.capacity() {
                    let from = at + chunk.len() as u64;
                    match rustix::io::pread(&*file, spare_capacity(&mut chunk), from) {
                        Ok(0) => break,
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Ok(pool.lend(chunk))
            });
            let chunk = read.await?;
            self.at += chunk.len() as u64;
            Ok(chunk)
        })
    }
}

/// A file that is not in a store, like an RDB file that somebody brought. It is opened once, and every
/// reading is of the same file, whatever its name points to by then.
#[derive(Clone, Debug)]
pub struct BroughtFile {
    path: Arc<PathBuf>,
    file: Arc<File>,
    bytes: u64,
}

impl BroughtFile {
    /// Opens a regular file. Pipes and the like are [`Problem::Other`]: they can be read only once.
    pub async fn open(path: &Path) -> Result<BroughtFile, Error> {
        // An error speaks of the file, as it was named.
        let named = LocalStore::new(path);
        let opened = path.to_owned();
        let (file, bytes) = named
            .blocking("open it".to_owned(), move |_| {
                // Opening a pipe without a writer would wait for one.
                if !fs::metadata(&opened)?.is_file() {
                    return Err(io::ErrorKind::IsADirectory.into());
                }
                let file = File::open(&opened)?;
                let bytes = file.metadata()?.len();
                Ok((file, bytes))
            })
            .await
            .map_err(|error| match error.problem {
                Problem::Misplaced => Error::new(
                    Problem::Other,
                    error.store,
                    "read it: it is no regular file, and it has to be read more than once",
                )
                .hint("write what comes from there into a file, and name that"),
                _ => error.by_path(),
            })?;
        Ok(BroughtFile {
            path: Arc::new(path.to_owned()),
            file: Arc::new(file),
            bytes,
        })
    }

    /// A file that is open already. `path` is what it is called for people.
    pub fn opened(path: &Path, file: Arc<File>, bytes: u64) -> BroughtFile {
        BroughtFile {
            path: Arc::new(path.to_owned()),
            file,
            bytes,
        }
    }

    /// The name by which it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it from its start.
    pub fn read(&self) -> Box<dyn Reader> {
        Box::new(LocalReader {
            store: LocalStore::new(self.path.as_path()),
            action: "read it".to_owned(),
            pool: Pool::new(READ_BYTES),
            file: Arc::clone(&self.file),
            at: 0,
            bytes: self.bytes,
        })
    }
}

#[cfg(test)]
mod tests;
