//! Whether a server's dump file can be read from here, and if not, which right is missing and who has it.
//!
//! `/var/lib/redis` is private to its user and group: "permission denied" alone sends people to
//! `chmod`, so the folder or file that refuses is found, with its mode and the group to join.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Error;

/// Whether this process could read the file at `path`, once there is one: the file if it is
/// there, else its folder.
pub(super) fn readable(path: &Path) -> Result<Option<File>, Error> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match std::fs::metadata(path.parent().unwrap_or(Path::new("/"))) {
                Ok(folder) if folder.is_dir() => Ok(None),
                Ok(_) => Err(Error::FileUnseen {
                    path: path.to_owned(),
                    source: io::ErrorKind::NotADirectory.into(),
                }),
                Err(error) => Err(unreadable(path, error)),
            }
        }
        Err(error) => Err(unreadable(path, error)),
    }
}

fn unreadable(path: &Path, source: io::Error) -> Error {
    if source.kind() == io::ErrorKind::PermissionDenied {
        forbidden(path)
    } else {
        Error::FileUnseen {
            path: path.to_owned(),
            source,
        }
    }
}

/// Finds the first folder on the way that does not let us through, or the file itself.
fn forbidden(path: &Path) -> Error {
    let mut folders: Vec<&Path> = path.ancestors().skip(1).collect();
    folders.reverse();
    for folder in folders {
        // Searching a folder is what `metadata` of a name in it needs.
        let inside = folder.join(".");
        if let Err(error) = std::fs::metadata(&inside)
            && error.kind() == io::ErrorKind::PermissionDenied
        {
            let (mode, group) = mode_and_group(folder);
            return Error::FileForbidden {
                path: path.to_owned(),
                missing: format!(
                    "the folder {} lacks the search right (x) for this user{mode}",
                    folder.display()
                ),
                group,
            };
        }
    }
    let (mode, group) = mode_and_group(path);
    Error::FileForbidden {
        path: path.to_owned(),
        missing: format!("the file lacks the read right (r) for this user{mode}"),
        group,
    }
}

/// What the kernel says of a group that has no number in a user namespace (`/proc/sys/kernel/overflowgid`).
const OVERFLOW_GROUP: u32 = 65534;

/// The mode, as text, and the group if its bits are more than others'.
fn mode_and_group(path: &Path) -> (String, Option<String>) {
    let Ok(meta) = std::fs::metadata(path) else {
        return (String::new(), None);
    };
    let needed = if meta.is_dir() { 0o010 } else { 0o040 };
    // Within `PrivateUsers=` of systemd every foreign group looks like `nogroup`, and nobody should join that.
    let known = meta.gid() != OVERFLOW_GROUP;
    let group = (known && meta.mode() & needed != 0).then(|| {
        std::fs::read_to_string("/etc/group")
            .ok()
            .and_then(|groups| group_name(&groups, meta.gid()))
            .unwrap_or_else(|| meta.gid().to_string())
    });
    (format!(" (mode {:04o})", meta.mode() & 0o7777), group)
}

fn group_name(groups: &str, gid: u32) -> Option<String> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let id = fields.nth(1)?;
        (id.parse() == Ok(gid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_named_by_its_id() {
        let groups = "root:x:0:\nredis:x:113:backup\nbroken\n";
        assert_eq!(group_name(groups, 113).as_deref(), Some("redis"));
        assert_eq!(group_name(groups, 114), None);
    }
}
