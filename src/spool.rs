//! The spool: stored bytes that wait on this host's disk, in files without a name.
//!
//! What a slow storage has not taken yet waits here during a backup, and what a restore reads more than once from a
//! storage far away lies here meanwhile, both as they are stored. A file without a name is gone when its last holder
//! is, however that ended. The trap is the disk itself: a spool that fills it harms others, so it keeps off a reserve.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::OFlags;

use crate::pool::Pool;
use crate::storage::{Error, Problem, private};
use crate::units::HumanBytes;

/// So much stays free on the spool's file system, or a twentieth of it where that is less.
const RESERVE: u64 = 256 << 20;

/// The name that files have for a moment where there are no files without names.
const NAME: &str = "spooled";

/// A folder for what waits.
#[derive(Clone, Debug)]
pub struct Spool {
    folder: Arc<PathBuf>,
}

impl Spool {
    /// A spool in this folder, which is made when it is needed.
    pub fn new(folder: impl Into<PathBuf>) -> Spool {
        Spool {
            folder: Arc::new(folder.into()),
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes an empty file without a name.
    ///
    /// # Errors
    /// When that cannot be done there.
    pub async fn file(&self) -> Result<SpoolFile, Error> {
        let folder = Arc::clone(&self.folder);
        let file = self
            .blocking("make a file", move || nameless(&folder))
            .await?;
        Ok(SpoolFile {
            spool: self.clone(),
            file: Arc::new(file),
            bytes: 0,
        })
    }

    /// Makes sure that so many more bytes may be written.
    ///
    /// # Errors
    /// [`Problem::Full`] when they would take the reserve.
    pub async fn must_have_room(&self, bytes: u64) -> Result<(), Error> {
        let folder = Arc::clone(&self.folder);
        let room = self
            .blocking("look at the free space", move || room(&folder))
            .await?;
        match bytes <= room {
            true => Ok(()),
            false => Err(full(&self.folder, bytes, room)),
        }
    }

    /// Removes what has a name of ours there: of a process that was killed within the moment in which it had one.
    /// Gives how many they were.
    ///
    /// # Errors
    /// When the folder is there and cannot be looked into.
    pub fn sweep(&self) -> io::Result<usize> {
        let entries = match fs::read_dir(self.folder.as_path()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let mut swept = 0;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let ours = name.to_str().and_then(private::meant_name) == Some(NAME);
            if ours && entry.file_type()?.is_file() && fs::remove_file(entry.path()).is_ok() {
                swept += 1;
            }
        }
        Ok(swept)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        action: &str,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let done = tokio::task::spawn_blocking(work).await;
        let done = done.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        done.map_err(|error| {
            let problem = match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Problem::Full,
                io::ErrorKind::PermissionDenied => Problem::Denied,
                _ => Problem::Other,
            };
            Error::new(problem, describe(&self.folder), action)
                .because(error)
                .hint(HINT)
        })
    }
}

const HINT: &str = "`spool_dir` in [daemon] must be a folder that can be written, with room for a backup as it is stored";

fn describe(folder: &Path) -> String {
    format!("the spool folder {}", folder.display())
}

fn full(folder: &Path, bytes: u64, room: u64) -> Error {
    let action = format!(
        "take {} more: it may take {}, for the rest of that disk is kept free",
        HumanBytes(bytes),
        HumanBytes(room)
    );
    Error::new(Problem::Full, describe(folder), action).hint(HINT)
}

/// A file without a name that bytes are appended to, and read from meanwhile. Clones are the same file.
#[derive(Clone, Debug)]
pub struct SpoolFile {
    spool: Spool,
    file: Arc<File>,
    bytes: u64,
}

impl SpoolFile {
    /// How many bytes were appended by this handle.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The file itself.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`Problem::Full`] when they would take the reserve; others when they cannot be written.
    pub async fn append(&mut self, data: Bytes) -> Result<(), Error> {
        let more = data.len() as u64;
        self.spool.must_have_room(more).await?;
        let (file, at) = (Arc::clone(&self.file), self.bytes);
        self.spool
            .blocking("write", move || file.write_all_at(&data, at))
            .await?;
        self.bytes += more;
        Ok(())
    }

    /// Reads so many bytes, which have been appended before, into memory of a pool.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn read(&self, at: u64, length: usize, pool: &Pool) -> Result<Bytes, Error> {
        let (file, pool) = (Arc::clone(&self.file), pool.clone());
        self.spool
            .blocking("read", move || {
                let mut buffer = pool.take();
                buffer.resize(length, 0);
                file.read_exact_at(&mut buffer, at)?;
                Ok(pool.lend(buffer))
            })
            .await
    }
}

/// Makes a private file that nobody finds; where there are no files without names its name is removed at once.
fn nameless(folder: &Path) -> io::Result<File> {
    private::make_folders(folder)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    let flags = OFlags::TMPFILE.bits().cast_signed();
    if let Ok(file) = options.clone().custom_flags(flags).open(folder) {
        return Ok(file);
    }
    let mut random = [0u8; 6];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let random: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = folder.join(format!(".{NAME}.{random}.tmp"));
    let file = options.create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// How many bytes may still be written in a folder.
fn room(folder: &Path) -> io::Result<u64> {
    private::make_folders(folder)?;
    let facts = rustix::fs::statvfs(folder)?;
    let bytes = |blocks: u64| blocks.saturating_mul(facts.f_frsize);
    let reserve = RESERVE.min(bytes(facts.f_blocks) / 20);
    Ok(bytes(facts.f_bavail).saturating_sub(reserve))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn what_is_appended_is_read_and_no_name_is_ever_seen() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(folder.path().join("made/when/needed"));
        let mut file = spool.file().await.unwrap();
        file.append(Bytes::from_static(b"one ")).await.unwrap();
        file.append(Bytes::from_static(b"two")).await.unwrap();
        assert_eq!(file.bytes(), 7);
        // What a packer has done with is what catching up reads into.
        let pool = Pool::new(9);
        let done_with = pool.lend(pool.take());
        let at = done_with.as_ptr();
        drop(done_with);
        let read = file.read(2, 4, &pool).await.unwrap();
        assert_eq!(read, b"e tw".as_slice());
        assert_eq!(read.as_ptr(), at);
        assert_eq!(fs::read_dir(spool.folder()).unwrap().count(), 0);
        let mode = file.file().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let error = spool.must_have_room(1 << 60).await.unwrap_err();
        assert_eq!(error.problem, Problem::Full);
    }

    #[test]
    fn only_what_has_a_name_of_ours_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(folder.path());
        assert_eq!(Spool::new(folder.path().join("none")).sweep().unwrap(), 0);
        for name in [".spooled.0123456789ab.tmp", ".spooled.tmp", "notes"] {
            fs::write(folder.path().join(name), b"x").unwrap();
        }
        assert_eq!(spool.sweep().unwrap(), 1);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
