//! What a process that was killed leaves in a folder: temporary files, and folders that are empty.
//!
//! Only names that [`private::TemporaryFile`] gives count, and links are never followed: what others put
//! into the folder is not ours to find.

use std::fs;
use std::io;
use std::path::Path;

use super::timestamp;
use crate::storage::{ObjectKey, Unfinished, private};

/// Collects what is unfinished below the folder `prefix`.
pub(super) fn walk(root: &Path, prefix: &str, found: &mut Vec<Unfinished>) -> io::Result<()> {
    let entries = match fs::read_dir(root.join(prefix)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let below = |name: &str| match prefix {
            "" => name.to_owned(),
            _ => format!("{prefix}/{name}"),
        };
        // What vanishes meanwhile is not there.
        let facts = match fs::symlink_metadata(entry.path()) {
            Ok(facts) => facts,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let (key, bytes) = if facts.is_dir() && !name.starts_with('.') {
            match is_empty(&entry.path()) {
                Ok(true) => (below(&name), 0),
                Ok(false) => {
                    walk(root, &below(&name), found)?;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                // A folder like lost+found may be closed to us, and is none of ours.
                Err(error)
                    if prefix.is_empty() && error.kind() == io::ErrorKind::PermissionDenied =>
                {
                    continue;
                }
                Err(error) => return Err(error),
            }
        } else if facts.is_file()
            && let Some(meant) = private::meant_name(&name)
        {
            (below(meant), facts.len())
        } else {
            continue;
        };
        if let Ok(key) = ObjectKey::new(key.split('/')) {
            found.push(Unfinished {
                key,
                handle: below(&name),
                bytes,
                modified: timestamp(facts.modified()?),
            });
        }
    }
    Ok(())
}

fn is_empty(folder: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(folder)?.next().is_none())
}

/// Removes a temporary file, with its folder when that leaves it empty, or an empty folder.
pub(super) fn discard(root: &Path, handle: &str) -> io::Result<()> {
    let path = root.join(handle);
    let removed = match fs::symlink_metadata(&path) {
        Ok(facts) if facts.is_dir() => fs::remove_dir(&path),
        Ok(_) => fs::remove_file(&path),
        Err(error) => Err(error),
    };
    match removed {
        Ok(()) => {}
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
            ) =>
        {
            return Ok(());
        }
        Err(error) => return Err(error),
    }
    let folder = private::parent_of(&path);
    if folder != root && fs::remove_dir(folder).is_ok() {
        return private::sync_folder(private::parent_of(folder));
    }
    private::sync_folder(folder)
}
