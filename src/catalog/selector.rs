//! How a person names a backup, and finding the one that is meant.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;

use super::list::{Broken, Listing, Place, list, missing_manifest, read_place};
use super::{Backup, BackupId, Error, MANIFEST};
use crate::config::{Name, NameError};
use crate::pipeline::inbound::{Expected, Stored, read_ahead};
use crate::storage::{BroughtFile, LocalStore, NamedStore};

/// The name that stands for the storage of a backup that was named by its path.
pub const BY_PATH: &str = "path";

/// A backup as a person names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// A backup's ID.
    Id(BackupId),
    /// `latest`: the newest of the only configured database.
    Latest,
    /// A database's newest.
    Newest(String),
    /// A database's newest taken at or before a time.
    At(String, Timestamp),
    /// The folder of a backup, or an RDB file.
    Path(PathBuf),
}

impl FromStr for Selector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Selector, Error> {
        let is_path = text.contains('/')
            || [".rdb", ".gz", ".zst", ".age"]
                .iter()
                .any(|suffix| text.ends_with(suffix));
        if is_path {
            return Ok(Selector::Path(text.into()));
        }
        if let Ok(id) = text.parse() {
            return Ok(Selector::Id(id));
        }
        let wrong = || Error::Selector(text.to_owned());
        // `latest@TIME` is read, and finds nothing: no database has that name.
        let is_name = |text: &str| !matches!(text.parse::<Name>(), Err(NameError::Malformed(_)));
        match text.split_once('@') {
            Some((name, time)) if is_name(name) => Ok(Selector::At(
                name.to_owned(),
                time.parse().map_err(|_| wrong())?,
            )),
            None if text == "latest" => Ok(Selector::Latest),
            None if is_name(text) => Ok(Selector::Newest(text.to_owned())),
            _ => Err(wrong()),
        }
    }
}

/// What a selector turned out to mean.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A backup with a manifest.
    Stored(Box<Backup>),
    /// An RDB file that somebody brought.
    File(BroughtFile),
}

impl Subject {
    /// The subject for people: an ID and its database, or a path.
    pub fn describe(&self) -> String {
        match self {
            Subject::Stored(backup) => {
                format!("{} of {}", backup.manifest.id, backup.manifest.database)
            }
            Subject::File(file) => file.path().display().to_string(),
        }
    }

    /// Opens its stored bytes, with what the manifest says of them.
    ///
    /// Must be called within a tokio runtime.
    pub async fn open(&self) -> Result<(Stored, Option<Expected>), Error> {
        match self {
            Subject::Stored(backup) => {
                let data = &backup.manifest.data;
                let key = backup.place.key(&data.object)?;
                let reader = backup.place.store().read(&key).await?;
                Ok((read_ahead(reader), Some(data.expected())))
            }
            Subject::File(file) => Ok((read_ahead(file.read()), None)),
        }
    }
}

/// Where selectors are looked up.
#[derive(Clone, Debug)]
pub struct Finder<'a> {
    /// The storages, nearest first.
    pub storages: &'a [NamedStore],
    /// The configured databases' names.
    pub databases: &'a [String],
}

impl Finder<'_> {
    /// Finds the backup that a selector means. Of copies in several storages the nearest whole one.
    pub async fn find(&self, selector: &Selector) -> Result<Subject, Error> {
        match selector {
            Selector::Path(path) => find_path(path).await,
            Selector::Id(id) => self.find_id(id).await,
            Selector::Newest(name) => self.find_newest(name, None).await,
            Selector::At(name, time) => self.find_newest(name, Some(*time)).await,
            Selector::Latest => match self.databases {
                [name] => self.find_newest(name, None).await,
                names => Err(Error::NotFound {
                    what: "named `latest`: several databases are configured".to_owned(),
                    hint: format!("name one of {}", names.join(", ")),
                }),
            },
        }
    }

    /// Finds every folder of the backup that a selector means, in all storages, damaged ones included:
    /// what is to be removed must be removable whatever state it is in.
    pub async fn find_places(&self, selector: &Selector) -> Result<Vec<Place>, Error> {
        let id = match selector {
            Selector::Id(id) => id.clone(),
            other => match self.find(other).await? {
                Subject::Stored(backup) if backup.place.storage() != BY_PATH => backup.manifest.id,
                Subject::Stored(backup) => return Ok(vec![backup.place]),
                Subject::File(file) => {
                    return Err(Error::NotFound {
                        what: format!(
                            "at {}: it is a file and no backup's folder",
                            file.path().display()
                        ),
                        hint: "name a backup by its ID".to_owned(),
                    });
                }
            },
        };
        let mut places = Vec::new();
        for storage in self.storages {
            let mut folders: Vec<String> = Vec::new();
            for object in storage.store.list("").await? {
                let mut segments = object.key.as_str().split('/');
                let (database, folder) = (segments.next(), segments.next());
                if let (Some(database), Some(folder)) = (database, folder)
                    && folder == id.as_str()
                    && !folders.iter().any(|known| known == database)
                {
                    folders.push(database.to_owned());
                }
            }
            let place = |database: String| Place::new(storage.clone(), [database, id.to_string()]);
            places.extend(folders.into_iter().map(place));
        }
        match places.is_empty() {
            true => Err(Error::NotFound {
                what: id.to_string(),
                hint: "`rdbkeeper backup list` shows which there are".to_owned(),
            }),
            false => Ok(places),
        }
    }

    /// Lists what can be listed; a storage that is silent is told.
    async fn list(&self, database: Option<&str>) -> Result<Listing, Error> {
        let listing = list(self.storages, database).await?;
        for (storage, error) in &listing.silent {
            tracing::warn!("storage {storage} is passed over: {error}");
        }
        Ok(listing)
    }

    async fn find_id(&self, id: &BackupId) -> Result<Subject, Error> {
        let mut listing = self.list(None).await?;
        // Storages are listed nearest first, and the sort is stable.
        if let Some(backup) = listing.backups.iter().find(|b| b.manifest.id == *id) {
            return Ok(Subject::Stored(Box::new(backup.clone())));
        }
        if let Some(at) = listing.broken.iter().position(|broken| broken.id == *id) {
            return Err(listing.broken.swap_remove(at).error);
        }
        for storage in self.storages {
            let Ok(objects) = storage.store.list("").await else {
                continue;
            };
            let of_id = |key: &str| key.split('/').nth(1) == Some(id.as_str());
            if let Some(object) = objects.iter().find(|object| of_id(object.key.as_str())) {
                let data = format!("{}/{}", storage.store.describe(), object.key);
                return Err(missing_manifest(id.to_string(), &data));
            }
        }
        Err(Error::NotFound {
            what: id.to_string(),
            hint: "`rdbkeeper backup list` shows which there are".to_owned(),
        })
    }

    async fn find_newest(&self, name: &str, at: Option<Timestamp>) -> Result<Subject, Error> {
        let mut listing = self.list(Some(name)).await?;
        let fits = |id: &BackupId, taken: Option<Timestamp>| match at {
            None => true,
            Some(at) => taken.unwrap_or_else(|| id.time()) <= at,
        };
        listing
            .backups
            .retain(|b| fits(&b.manifest.id, Some(b.manifest.snapshot_at)));
        listing.broken.retain(|broken| fits(&broken.id, None));
        let newest = listing
            .backups
            .last()
            .map(|backup| backup.manifest.id.clone());
        let broken = listing.broken.pop();
        match (newest, broken) {
            // The newest is broken: to take an older one instead is a person's decision.
            (newest, Some(broken))
                if newest
                    .as_ref()
                    .is_none_or(|id| may_be_older(id, &broken.id)) =>
            {
                Err(match newest {
                    Some(id) => older_is_whole(broken, &id),
                    None => broken.error,
                })
            }
            (Some(id), _) => listing
                .backups
                .into_iter()
                .find(|backup| backup.manifest.id == id)
                .map(|backup| Subject::Stored(Box::new(backup)))
                .ok_or_else(|| self.nothing_of(name, at)),
            (None, _) => Err(self.nothing_of(name, at)),
        }
    }

    fn nothing_of(&self, name: &str, at: Option<Timestamp>) -> Error {
        let known = self.databases.iter().any(|database| database == name);
        let what = match at {
            Some(at) => format!("of {name} taken at or before {at}"),
            None => format!("of {name}"),
        };
        let hint = match known {
            true => format!("`rdbkeeper backup list {name}` shows which there are"),
            false => format!(
                "{name} is not configured here; configured: {}; an RDB file is named by a path with a `/` in it",
                self.databases.join(", ")
            ),
        };
        Error::NotFound { what, hint }
    }
}

/// Whether a whole backup may have been begun before a broken one, whose ID tells only the second.
fn may_be_older(whole: &BackupId, broken: &BackupId) -> bool {
    whole != broken && whole.time() <= broken.time()
}

fn older_is_whole(broken: Broken, older: &BackupId) -> Error {
    match broken.error {
        Error::Damaged { backup, why } => Error::Damaged {
            backup,
            why: format!("{why}; {older} before it is listed as whole"),
        },
        other => other,
    }
}

async fn find_path(path: &Path) -> Result<Subject, Error> {
    let facts = match tokio::fs::metadata(path).await {
        Ok(facts) => facts,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::NotFound {
                what: format!("at {}: there is no such file or folder", path.display()),
                hint: "a selector with a `/` in it, or that ends in .rdb, .gz, .zst or .age, is a path".to_owned(),
            });
        }
        Err(source) => {
            return Err(Error::File {
                action: format!("look at {}", path.display()),
                source,
            });
        }
    };
    let folder = match path.file_name() {
        Some(name) if name == MANIFEST => path.parent().map(|parent| match parent {
            bare if bare.as_os_str().is_empty() => Path::new("."),
            parent => parent,
        }),
        _ if facts.is_dir() => Some(path),
        _ => None,
    };
    match folder {
        None => Ok(Subject::File(BroughtFile::open(path).await?)),
        Some(folder) => {
            let storage = NamedStore {
                name: BY_PATH.to_owned(),
                store: Arc::new(LocalStore::new(folder)),
            };
            let place = Place::new(storage, [""; 0]);
            Ok(Subject::Stored(Box::new(read_place(place).await?)))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_selector_is_read_as_its_form_says() {
        let parse = |text: &str| text.parse::<Selector>();
        assert_eq!(parse("latest").unwrap(), Selector::Latest);
        assert_eq!(
            parse("web-1").unwrap(),
            Selector::Newest("web-1".to_owned())
        );
        assert!(matches!(
            parse("20261122T214353Z-7f3a9c"),
            Ok(Selector::Id(_))
        ));
        assert!(matches!(
            parse("sessions@2026-11-22T21:43:53+01:00"),
            Ok(Selector::At(name, _)) if name == "sessions"
        ));
        for path in [
            "dump.rdb",
            "x.rdb.gz",
            "./x",
            "/var/lib/x",
            "x.age",
            "a/b@c",
        ] {
            assert!(matches!(parse(path), Ok(Selector::Path(_))), "{path}");
        }
        for bad in [
            "",
            "Sessions",
            "sessions@yesterday",
            "@2026-11-22T00:00:00Z",
            "-x",
        ] {
            assert!(matches!(parse(bad), Err(Error::Selector(_))), "{bad}");
        }
    }
}
