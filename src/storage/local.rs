//! A folder on this machine.
//!
//! An object is written under a temporary name beside its own, synced, renamed without replacing
//! anything, and the folder is synced: after a crash at any point it is there whole or not at all.
//! Folders are made with mode 0700 and files with 0600, for a session dump is full of login tokens.
//! What root makes takes the owner of the storage's folder, so that a backup by hand does not lock
//! the daemon out.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use rustix::fs::RenameFlags;

use super::{Error, ObjectKey, ObjectMeta, Problem, Reader, Store, Upload};

/// How much is read at a time.
const READ_BYTES: usize = 1 << 20;

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

    /// Runs blocking file work off the async threads.
    async fn blocking<T: Send + 'static>(
        &self,
        action: String,
        work: impl FnOnce(&LocalStore) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let store = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        match done {
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

/// Makes a folder and those above it, private, each owned like the nearest one that was there when root makes it.
pub(crate) fn make_private_folders(path: &Path) -> io::Result<()> {
    let mut missing = Vec::new();
    let mut at = path;
    while !at.as_os_str().is_empty() && !at.try_exists()? {
        missing.push(at);
        match at.parent() {
            Some(parent) => at = parent,
            None => break,
        }
    }
    for folder in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o700).create(folder) {
            Ok(()) => {
                let parent = parent_of(folder);
                take_owner_of(parent, folder)?;
                sync_folder(parent)?;
            }
            // Another process made it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// When root, gives `path` the owner of `model`.
pub(crate) fn take_owner_of(model: &Path, path: &Path) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        let owner = fs::metadata(model)?;
        // A folder of root's own, like /var/lib, is no model for anybody.
        if owner.uid() != 0 {
            std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid()))?;
        }
    }
    Ok(())
}

/// The folder that holds `path`; `.` for a bare name.
pub(crate) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes names created in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Renames without replacing: `AlreadyExists` when the new name is taken.
pub(crate) fn rename_new(old: &Path, new: &Path) -> io::Result<()> {
    let cwd = rustix::fs::CWD;
    match rustix::fs::renameat_with(cwd, old, cwd, new, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // File systems without that flag: a hard link refuses to replace, too.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {
            fs::hard_link(old, new)?;
            fs::remove_file(old)
        }
        Err(error) => Err(error.into()),
    }
}

/// A new private file under a temporary name; gone when dropped before [`TemporaryFile::appear`].
pub(crate) struct TemporaryFile {
    file: Option<File>,
    temporary: PathBuf,
    path: PathBuf,
}

impl TemporaryFile {
    /// Creates the file beside `path`, whose folder must exist.
    pub(crate) fn create(path: &Path) -> io::Result<TemporaryFile> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut random = [0u8; 6];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let random: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let temporary = path.with_file_name(format!(".{name}.{random}.tmp"));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        let made = TemporaryFile {
            file: Some(file),
            temporary,
            path: path.to_owned(),
        };
        take_owner_of(parent_of(path), &made.temporary)?;
        Ok(made)
    }

    /// The file, to be written.
    pub(crate) fn file(&mut self) -> &mut File {
        self.file
            .as_mut()
            .expect("the file is taken only by `appear`, which consumes self")
    }

    /// Syncs it and gives it its name, durably; `AlreadyExists` when that is taken.
    pub(crate) fn appear(mut self) -> io::Result<()> {
        self.file().sync_all()?;
        rename_new(&self.temporary, &self.path)?;
        self.file = None;
        sync_folder(parent_of(&self.path))
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // What cannot be removed is debris that no listing shows.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

impl Store for LocalStore {
    fn describe(&self) -> String {
        self.root.display().to_string()
    }

    fn put_new<'a>(&'a self, key: &'a ObjectKey, data: Bytes) -> BoxFuture<'a, Result<(), Error>> {
        let path = self.path(key);
        Box::pin(self.blocking(format!("write {key}"), move |_| {
            make_private_folders(parent_of(&path))?;
            let mut file = TemporaryFile::create(&path)?;
            file.file().write_all(&data)?;
            file.appear()
        }))
    }

    fn upload<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Box<dyn Upload>, Error>> {
        let path = self.path(key);
        Box::pin(async move {
            let file = self
                .blocking(format!("create {key}"), move |_| {
                    make_private_folders(parent_of(&path))?;
                    TemporaryFile::create(&path)
                })
                .await?;
            let upload: Box<dyn Upload> = Box::new(LocalUpload {
                store: self.clone(),
                key: key.clone(),
                file: Some(file),
            });
            Ok(upload)
        })
    }

    fn read<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Box<dyn Reader>, Error>> {
        let path = self.path(key);
        Box::pin(async move {
            let (file, bytes) = self
                .blocking(format!("open {key}"), move |_| {
                    let file = File::open(&path)?;
                    let facts = file.metadata()?;
                    if !facts.is_file() {
                        return Err(io::ErrorKind::IsADirectory.into());
                    }
                    Ok((file, facts.len()))
                })
                .await?;
            let reader: Box<dyn Reader> = Box::new(LocalReader {
                store: self.clone(),
                key: key.clone(),
                file: Arc::new(file),
                bytes,
            });
            Ok(reader)
        })
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
            let folder = parent_of(&path);
            if folder != store.root.as_path() && fs::remove_dir(folder).is_ok() {
                return sync_folder(parent_of(folder));
            }
            sync_folder(folder)
        }))
    }

    fn free_bytes(&self) -> BoxFuture<'_, Result<Option<u64>, Error>> {
        Box::pin(self.blocking("look at the free space".to_owned(), |store| {
            let mut at = store.root.as_path();
            while !at.try_exists()? {
                at = parent_of(at);
            }
            let facts = rustix::fs::statvfs(at)?;
            Ok(Some(facts.f_bavail.saturating_mul(facts.f_frsize)))
        }))
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
                modified: Timestamp::try_from(facts.modified()?).unwrap_or(Timestamp::MIN),
            });
        }
    }
    Ok(())
}

struct LocalUpload {
    store: LocalStore,
    key: ObjectKey,
    file: Option<TemporaryFile>,
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
            let action = format!("write {}", self.key);
            let file = self
                .store
                .blocking(action, move |_| {
                    file.file().write_all(&data)?;
                    Ok(file)
                })
                .await?;
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
                    let _ = fs::remove_dir(parent_of(&folder));
                    Ok(())
                })
                .await;
        })
    }
}

struct LocalReader {
    store: LocalStore,
    key: ObjectKey,
    file: Arc<File>,
    bytes: u64,
}

impl Reader for LocalReader {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Bytes, Error>> {
        let file = Arc::clone(&self.file);
        Box::pin(self.store.blocking(format!("read {}", self.key), move |_| {
            let mut chunk = BytesMut::zeroed(READ_BYTES);
            let mut filled = 0;
            while filled < chunk.len() {
                match (&*file).read(&mut chunk[filled..]) {
                    Ok(0) => break,
                    Ok(n) => filled += n,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            chunk.truncate(filled);
            Ok(chunk.freeze())
        }))
    }
}
