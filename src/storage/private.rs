//! Files and folders that only their owner may read, and that appear whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, RenameFlags};

/// Makes a folder and those above it, private, each owned like the nearest one that was there when root makes it.
pub fn make_folders(path: &Path) -> io::Result<()> {
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
                let flags = OFlags::NOFOLLOW | OFlags::DIRECTORY;
                let made = OpenOptions::new()
                    .read(true)
                    .custom_flags(flags.bits().cast_signed())
                    .open(folder)?;
                take_owner(parent, &made)?;
                sync_folder(parent)?;
            }
            // Another process made it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// When root, gives a file or folder that was just made the owner of the folder `model`. It goes by the
/// open file and never by a name: who owns the folder could put a link in its place meanwhile.
pub fn take_owner(model: &Path, made: &File) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        let owner = fs::metadata(model)?;
        // A folder of root's own, like /var/lib, is no model for anybody.
        if owner.uid() != 0 {
            std::os::unix::fs::fchown(made, Some(owner.uid()), Some(owner.gid()))?;
        }
    }
    Ok(())
}

/// Opens a private file to be written, making it when it is not there. A link is refused.
pub fn open_or_create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .write(true)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    match options.clone().create_new(true).open(path) {
        Ok(made) => {
            take_owner(parent_of(path), &made)?;
            Ok(made)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(path),
        Err(error) => Err(error),
    }
}

/// Opens a file to be locked, as [`open_or_create`] does. Where nothing can be written to any more, one that is there
/// is opened to be read: a disk that has turned read-only must not keep a backup from being taken elsewhere.
pub fn open_lock(path: &Path) -> io::Result<File> {
    open_or_create(path).or_else(|error| match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            open_to_read(path).map_err(|_| error)
        }
        _ => Err(error),
    })
}

fn open_to_read(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
}

/// The folder that holds `path`; `.` for a bare name.
pub fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes names created in a folder durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Renames without replacing: `AlreadyExists` when the new name is taken.
pub fn rename_new(old: &Path, new: &Path) -> io::Result<()> {
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

/// How many random bytes are in a temporary name.
const RANDOM_BYTES: usize = 6;

/// The name that a file was to get, when `name` is one that [`TemporaryFile`] gives.
pub fn meant_name(name: &str) -> Option<&str> {
    let (meant, random) = name
        .strip_prefix('.')?
        .strip_suffix(".tmp")?
        .rsplit_once('.')?;
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (!meant.is_empty() && random.len() == 2 * RANDOM_BYTES && random.bytes().all(hex))
        .then_some(meant)
}

/// A new private file under a temporary name; gone when dropped before [`TemporaryFile::appear`].
pub struct TemporaryFile {
    file: Option<File>,
    temporary: PathBuf,
    path: PathBuf,
}

impl TemporaryFile {
    /// Creates the file beside `path`, whose folder must exist.
    pub fn create(path: &Path) -> io::Result<TemporaryFile> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut random = [0u8; RANDOM_BYTES];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let random: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let temporary = path.with_file_name(format!(".{name}.{random}.tmp"));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        let mut made = TemporaryFile {
            file: Some(file),
            temporary,
            path: path.to_owned(),
        };
        take_owner(parent_of(path), made.file())?;
        Ok(made)
    }

    /// The file, to be written.
    pub fn file(&mut self) -> &mut File {
        self.file
            .as_mut()
            .expect("the file is taken only by `appear`, which consumes self")
    }

    /// Syncs it and gives it its name, durably; `AlreadyExists` when that is taken.
    pub fn appear(mut self) -> io::Result<()> {
        self.file().sync_all()?;
        rename_new(&self.temporary, &self.path)?;
        self.file = None;
        sync_folder(parent_of(&self.path))
    }

    /// Syncs it and puts it in the place of the file with its name, if there is one, durably.
    pub fn replace(mut self) -> io::Result<()> {
        self.file().sync_all()?;
        fs::rename(&self.temporary, &self.path)?;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_lock_that_can_only_be_read_excludes_one_that_can_be_written_and_is_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.lock");
        assert!(open_to_read(&path).is_err());
        let written = open_lock(&path).unwrap();
        let read = open_to_read(&path).unwrap();
        read.try_lock().unwrap();
        assert!(written.try_lock().is_err());
        drop(read);
        written.try_lock().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(open_to_read(&link).is_err());
    }
}
