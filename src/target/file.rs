//! A file as a target: the very bytes that were dumped, or what a [`Route`] makes of them.
//!
//! The file appears under its name whole, synced and with mode 0600, or not at all: it is written beside it under a
//! temporary name, which goes when the work is given up. A file that is there is not replaced unless that was asked for,
//! not even when it appears in the meantime.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{Error, Fate, Route};
use crate::failure::Failure;
use crate::rdb::{DbIndex, Event, Family, FileVersion, Handler, KeyHead, NewKey, Writer};

/// The oldest version that is written: the first with expiries in milliseconds and a checksum that all later servers read.
const OLDEST_WRITTEN: u16 = 6;

/// What to do when the file is there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and nothing is written.
    #[default]
    Refuse,
    /// It is replaced, once the new one is whole.
    Replace,
}

/// A file in the making. Dropped before [`commit`](PendingFile::commit), it leaves nothing.
#[derive(Debug)]
pub struct PendingFile {
    path: PathBuf,
    temporary: Option<PathBuf>,
    file: File,
    existing: Existing,
    written: u64,
}

impl PendingFile {
    /// Begins a file that will be at `path`.
    ///
    /// # Errors
    /// There is one already, or none can be made there.
    pub fn create(path: &Path, existing: Existing) -> Result<PendingFile, Error> {
        let not_a_file = || Error::NotAFile {
            path: path.to_owned(),
        };
        let name = path.file_name().ok_or_else(not_a_file)?;
        match std::fs::symlink_metadata(path) {
            // A device, a pipe or a link would become a file: nobody means that.
            Ok(found) if !found.is_file() => return Err(not_a_file()),
            Ok(_) if existing == Existing::Refuse => {
                return Err(Error::Exists {
                    path: path.to_owned(),
                });
            }
            _ => {}
        }
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| Error::File {
            doing: "create",
            path: path.to_owned(),
            source: io::Error::other(error.to_string()),
        })?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{:016x}.tmp", u64::from_le_bytes(random)));
        let temporary = path.with_file_name(hidden);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(|source| Error::File {
                doing: "create",
                path: path.to_owned(),
                source,
            })?;
        Ok(PendingFile {
            path: path.to_owned(),
            temporary: Some(temporary),
            file,
            existing,
            written: 0,
        })
    }

    /// Syncs it and gives it its name. Returns its length in bytes.
    ///
    /// # Errors
    /// It can't be synced or renamed, or a file has appeared at its name.
    pub fn commit(mut self) -> Result<u64, Error> {
        let failed = |doing, source| Error::File {
            doing,
            path: self.path.clone(),
            source,
        };
        self.file
            .sync_all()
            .map_err(|source| failed("sync", source))?;
        if let Some(temporary) = &self.temporary {
            match self.existing {
                Existing::Replace => std::fs::rename(temporary, &self.path),
                Existing::Refuse => rename_new(temporary, &self.path),
            }
            .map_err(|source| match source.kind() {
                io::ErrorKind::AlreadyExists => Error::Exists {
                    path: self.path.clone(),
                },
                _ => failed("rename", source),
            })?;
        }
        self.temporary = None;
        let folder = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|source| Error::File {
                doing: "sync the folder of",
                path: self.path.clone(),
                source,
            })?;
        Ok(self.written)
    }
}

/// What takes a file's bytes: a [`PendingFile`], or a stream, which can't take back what went into it.
pub trait Sink: Write {
    /// Where they go, for an error.
    fn place(&self) -> Place;

    /// Ends it when all of its bytes are written and known to be right. Returns how many there are.
    ///
    /// # Errors
    /// They do not arrive.
    fn commit(self) -> Result<u64, Error>;
}

/// Where bytes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Into the file that will have this name.
    File(PathBuf),
    /// To standard output.
    Stdout,
}

impl Place {
    /// The error of a write that failed.
    pub fn failed(&self, source: io::Error) -> Error {
        match self {
            Place::File(path) => Error::File {
                doing: "write",
                path: path.clone(),
                source,
            },
            Place::Stdout => Error::Stdout { source },
        }
    }
}

impl Sink for PendingFile {
    fn place(&self) -> Place {
        Place::File(self.path.clone())
    }

    fn commit(self) -> Result<u64, Error> {
        PendingFile::commit(self)
    }
}

impl Write for PendingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary
            && let Err(error) = std::fs::remove_file(temporary)
        {
            tracing::warn!(path = %temporary.display(), %error, "a temporary file stays behind");
        }
    }
}

/// Renames, but never onto something.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // Some file systems can't: a hard link does not replace either.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)
        }
        Err(error) => Err(error.into()),
    }
}

/// Output goes out in blocks of about this many bytes.
const BLOCK: usize = 256 << 10;

/// Writes a backup as it is, byte for byte.
#[derive(Debug)]
pub struct Copy<S = PendingFile> {
    file: S,
    block: Vec<u8>,
}

impl<S: Sink> Copy<S> {
    /// Copies into `file`.
    pub fn new(file: S) -> Copy<S> {
        Copy {
            file,
            block: Vec::with_capacity(2 * BLOCK),
        }
    }

    /// Ends the file. To be called when all of the backup has been read and found whole.
    ///
    /// # Errors
    /// As [`Sink::commit`].
    pub fn finish(mut self) -> Result<u64, Error> {
        self.flush()?;
        self.file.commit()
    }

    fn flush(&mut self) -> Result<(), Error> {
        let written = self.file.write_all(&self.block);
        self.block.clear();
        written.map_err(|source| self.file.place().failed(source))
    }
}

impl<S: Sink> Handler for Copy<S> {
    type Error = Failure;

    fn event(&mut self, event: Event<'_>) -> Result<(), Failure> {
        self.block.extend_from_slice(event.raw());
        if self.block.len() >= BLOCK {
            self.flush()?;
        }
        Ok(())
    }
}

/// Writes what a route makes of a backup.
///
/// What belongs to no key stays: facts, function libraries and modules' own data; libraries only when every key is meant.
#[derive(Debug)]
pub struct Rewrite<S = PendingFile> {
    route: Route,
    /// How many keys, and keys that expire, each database will get.
    sizes: BTreeMap<DbIndex, (u64, u64)>,
    state: State<S>,
    version: Option<FileVersion>,
    db: Option<DbIndex>,
    in_key: bool,
    name: Vec<u8>,
    written: Rewritten,
}

#[derive(Debug)]
enum State<S> {
    /// The version is not known yet.
    Waiting(S),
    Writing(Box<Writer<S>>, Place),
    Gone,
}

/// What a rewritten file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// Its length in bytes.
    pub bytes: u64,
    /// Keys in it.
    pub keys: u64,
    /// Keys that were over.
    pub expired: u64,
    /// Keys that the filters left out.
    pub left_out: u64,
}

impl<S: Sink> Rewrite<S> {
    /// Writes into `file`. `sizes` are the hints about each database that a file carries; what is absent gets none.
    pub fn new(file: S, route: Route, sizes: BTreeMap<DbIndex, (u64, u64)>) -> Rewrite<S> {
        Rewrite {
            route,
            sizes,
            state: State::Waiting(file),
            version: None,
            db: None,
            in_key: false,
            name: Vec::new(),
            written: Rewritten::default(),
        }
    }

    /// Ends the file. To be called when all of the backup has been read and found whole.
    ///
    /// # Errors
    /// As [`Sink::commit`].
    pub fn finish(mut self) -> Result<Rewritten, Error> {
        match std::mem::replace(&mut self.state, State::Gone) {
            State::Writing(writer, place) => {
                let (file, bytes) = writer.finish().map_err(|source| place.failed(source))?;
                file.commit()?;
                Ok(Rewritten {
                    bytes,
                    ..self.written
                })
            }
            State::Waiting(_) | State::Gone => Err(Error::Stopped),
        }
    }

    fn header(&mut self, version: FileVersion) -> Result<(), Error> {
        let version = FileVersion {
            number: match version.family {
                Family::Redis => version.number.max(OLDEST_WRITTEN),
                Family::Valkey => version.number,
            },
            ..version
        };
        self.version = Some(version);
        if let State::Waiting(file) = std::mem::replace(&mut self.state, State::Gone) {
            let place = file.place();
            let writer = Writer::new(file, version).map_err(|source| place.failed(source))?;
            self.state = State::Writing(Box::new(writer), place);
        }
        Ok(())
    }

    fn with_writer(
        &mut self,
        write: impl FnOnce(&mut Writer<S>) -> io::Result<()>,
    ) -> Result<(), Error> {
        match &mut self.state {
            State::Writing(writer, place) => write(writer).map_err(|source| place.failed(source)),
            State::Waiting(_) | State::Gone => Err(Error::Stopped),
        }
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.with_writer(|writer| writer.raw(bytes))
    }

    fn begin(&mut self, head: &KeyHead<'_>) -> Result<(), Error> {
        let key = head.key.decode().map_err(Error::KeyName)?;
        let (db, expire_at_ms) = match self.route.fate(head, &key, None)? {
            Fate::LeftOut => {
                self.written.left_out += 1;
                return Ok(());
            }
            Fate::Expired => {
                self.written.expired += 1;
                return Ok(());
            }
            Fate::Written { db, expire_at_ms } => (db, expire_at_ms),
        };
        if self.db != Some(db) {
            self.db = Some(db);
            let knows_sizes = self.version.is_some_and(|version| version.number >= 7);
            // Removed: a database that is selected again gets no second hint.
            let size = self.sizes.remove(&db).filter(|_| knows_sizes);
            self.with_writer(|writer| {
                writer.select_db(db)?;
                match size {
                    Some((keys, expires)) => writer.resize_db(keys, expires),
                    None => Ok(()),
                }
            })?;
        }
        let mut name = std::mem::take(&mut self.name);
        self.route.name(&key, &mut name);
        let new = NewKey {
            expire_at_ms,
            idle_s: head.idle_s,
            freq: head.freq,
            meta: head.meta,
            ..NewKey::new(&name, head.value_type.code())
        };
        let begun = self.with_writer(|writer| writer.begin_key(&new));
        self.name = name;
        self.in_key = true;
        self.written.keys += 1;
        begun
    }
}

impl<S: Sink> Handler for Rewrite<S> {
    type Error = Failure;

    fn event(&mut self, event: Event<'_>) -> Result<(), Failure> {
        match event {
            Event::Header { version, .. } => self.header(version)?,
            Event::Aux { key, value, raw } => {
                self.route.learn(&key, &value);
                // A hint about a cluster slot of the current database, which may be another one now.
                if key.plain() != Some(b"slot-info") {
                    self.raw(raw)?;
                }
            }
            Event::Key(head) => self.begin(&head)?,
            Event::Value(bytes) if self.in_key => {
                self.raw(bytes)?;
            }
            Event::ValueEnd => self.in_key = false,
            Event::Function { raw, .. } | Event::FunctionPreGa { raw }
                if self.route.filters.is_all() =>
            {
                self.raw(raw)?;
            }
            Event::ModuleAux { raw, .. } | Event::ModuleAuxData(raw) => self.raw(raw)?,
            Event::Opaque { offset, what } => return Err(Error::Opaque { offset, what }.into()),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_appears_whole_and_private_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.rdb");
        let mut file = PendingFile::create(&path, Existing::Refuse).unwrap();
        file.write_all(b"half").unwrap();
        assert!(!path.exists());
        drop(file);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

        let mut file = PendingFile::create(&path, Existing::Refuse).unwrap();
        file.write_all(b"whole").unwrap();
        assert_eq!(file.commit().unwrap(), 5);
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_there_or_appears_meanwhile_is_not_replaced_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.rdb");
        let file = PendingFile::create(&path, Existing::Refuse).unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(file.commit(), Err(Error::Exists { .. })));
        assert!(matches!(
            PendingFile::create(&path, Existing::Refuse),
            Err(Error::Exists { .. })
        ));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");

        let mut file = PendingFile::create(&path, Existing::Replace).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        file.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_regular_file_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        for path in [Path::new("/dev/null"), link.as_path()] {
            for existing in [Existing::Refuse, Existing::Replace] {
                let refused = PendingFile::create(path, existing).unwrap_err();
                assert!(matches!(refused, Error::NotAFile { .. }), "{refused}");
            }
        }
        assert!(link.is_symlink());
    }

    #[test]
    fn a_folder_is_no_file_and_a_missing_folder_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let refused = PendingFile::create(folder.path(), Existing::Replace).unwrap_err();
        assert!(matches!(refused, Error::NotAFile { .. }));
        let missing =
            PendingFile::create(&folder.path().join("no/out.rdb"), Existing::Refuse).unwrap_err();
        let failure = Failure::from(missing);
        assert_eq!(failure.hint.as_deref(), Some("make its folder first"));
    }
}
