//! How a person names a backup, and finding the one that is meant.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;

use super::list::{Broken, Listing, Place, list, missing_manifest, read_place};
use super::{Backup, BackupId, Error, MANIFEST};
use crate::config::{Name, NameError};
use crate::failure::{Failure, Kind};
use crate::pipeline::inbound::{Expected, Stored, read_ahead};
use crate::storage::{self, BroughtFile, LocalStore, NamedStore, Problem, STALL, within};

/// The name that stands for the storage of a backup that was named by its path.
pub const BY_PATH: &str = "path";

/// When a selector is a path.
pub const WHAT_IS_A_PATH: &str =
    "a selector with a `/` in it, or that ends in .rdb, .gz, .zst or .age, is a path";

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

    /// The configured storage that it lies in; `None` for what was named by its path.
    pub fn storage(&self) -> Option<&str> {
        match self {
            Subject::Stored(backup) => {
                Some(backup.place.storage()).filter(|storage| *storage != BY_PATH)
            }
            Subject::File(_) => None,
        }
    }

    /// Opens its stored bytes, with what the manifest says of them.
    ///
    /// Must be called within a tokio runtime.
    pub async fn open(&self) -> Result<(Stored, Option<Expected>), Error> {
        match self {
            Subject::Stored(backup) => {
                let data = &backup.manifest.data;
                if let Some(file) = &backup.fetched {
                    return Ok((read_ahead(file.read()), Some(data.expected())));
                }
                let key = backup.place.key(&data.object)?;
                let reader = backup.place.store().read(&key).await;
                let reader = reader.map_err(|error| match backup.place.storage() {
                    BY_PATH => error.by_path(),
                    _ => error,
                })?;
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

/// Where a backup is, and where it may be.
#[derive(Debug)]
pub struct Places {
    /// Its folders.
    pub places: Vec<Place>,
    /// The storages that do not answer, and why.
    pub silent: Vec<(String, Error)>,
}

impl Finder<'_> {
    /// Finds the backup that a selector means. Of copies in several storages the nearest whole one.
    pub async fn find(&self, selector: &Selector) -> Result<Subject, Error> {
        let mut copies = self.find_copies(selector).await?;
        Ok(copies.swap_remove(0))
    }

    /// Finds the backup that a selector means: every copy that is whole as far as a listing can tell, the nearest
    /// first. There is at least one.
    pub async fn find_copies(&self, selector: &Selector) -> Result<Vec<Subject>, Error> {
        match selector {
            Selector::Path(path) => Ok(vec![find_path(path).await?]),
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
    pub async fn find_places(&self, selector: &Selector) -> Result<Places, Error> {
        let mut found = Places {
            places: Vec::new(),
            silent: Vec::new(),
        };
        let id = match selector {
            Selector::Id(id) => id.clone(),
            other => match self.find(other).await? {
                Subject::Stored(backup) if backup.place.storage() != BY_PATH => backup.manifest.id,
                Subject::Stored(backup) => {
                    found.places.push(backup.place);
                    return Ok(found);
                }
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
        for storage in self.storages {
            let (store, listing) = (storage.store.describe(), storage.store.list(""));
            let objects = match within(STALL, &store, "list it", listing).await {
                Ok(objects) => objects,
                Err(error) => {
                    found.silent.push((storage.name.clone(), error.into()));
                    continue;
                }
            };
            let mut folders: Vec<String> = Vec::new();
            for object in objects {
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
            found.places.extend(folders.into_iter().map(place));
        }
        if !found.places.is_empty() {
            return Ok(found);
        }
        Err(match found.silent.pop() {
            Some((_, error)) => error,
            None => Error::NotFound {
                what: id.to_string(),
                hint: "`rdbkeeper backup list` shows which there are".to_owned(),
            },
        })
    }

    /// Lists what can be listed; a storage that is silent is told.
    async fn list(&self, database: Option<&str>) -> Result<Listing, Error> {
        let listing = list(self.storages, database).await?;
        for (storage, error) in &listing.silent {
            let why = Failure::new(Kind::Storage, "").caused_by(error).causes;
            tracing::warn!("storage {storage} is passed over: {}", why.join(": "));
        }
        Ok(listing)
    }

    async fn find_id(&self, id: &BackupId) -> Result<Vec<Subject>, Error> {
        let mut listing = self.list(None).await?;
        let database = listing
            .backups
            .iter()
            .find(|backup| backup.manifest.id == *id)
            .map(|backup| backup.manifest.database.clone());
        if let Some(database) = database {
            return Ok(copies(listing, &database, id));
        }
        if let Some(at) = listing.broken.iter().position(|broken| broken.id == *id) {
            return Err(listing.broken.swap_remove(at).error);
        }
        for storage in self.storages {
            let (store, listing) = (storage.store.describe(), storage.store.list(""));
            let Ok(objects) = within(STALL, &store, "list it", listing).await else {
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

    async fn find_newest(&self, name: &str, at: Option<Timestamp>) -> Result<Vec<Subject>, Error> {
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
        // A copy that is broken says nothing where another storage has the same backup whole.
        let whole = |id: &BackupId| listing.backups.iter().any(|b| b.manifest.id == *id);
        let broken = listing.broken.iter().rposition(|broken| !whole(&broken.id));
        match (newest, broken.map(|at| &listing.broken[at].id)) {
            // The newest is broken: to take an older one instead is a person's decision.
            (newest, Some(broken_id))
                if newest.as_ref().is_none_or(|id| may_be_older(id, broken_id)) =>
            {
                let broken = listing.broken.swap_remove(broken.unwrap_or_default());
                Err(match newest {
                    Some(id) => older_is_whole(broken, &id),
                    None => broken.error,
                })
            }
            (Some(id), _) => Ok(copies(listing, name, &id)),
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

/// The copies of a backup, the nearest first: what is on this host before what is far away, else in the order of the
/// storages. One that a verification found damaged comes last. Those that cannot be used are told.
fn copies(listing: Listing, database: &str, id: &BackupId) -> Vec<Subject> {
    let mut copies = listing.backups;
    copies.retain(|b| b.manifest.id == *id && b.manifest.database == database);
    copies.sort_by_key(|b| (b.damaged, b.place.store().is_remote()));
    if copies.first().is_some_and(|first| !first.damaged) {
        for damaged in copies.iter().filter(|copy| copy.damaged) {
            let storage = damaged.place.storage();
            tracing::warn!(
                "{id} in storage {storage} is passed over: a verification found it damaged"
            );
        }
    }
    let broken = listing.broken.iter();
    for broken in broken.filter(|b| b.id == *id && b.database == database) {
        let storage = broken.place.storage();
        tracing::warn!("{id} in storage {storage} is passed over: {}", broken.error);
    }
    let subject = |copy| Subject::Stored(Box::new(copy));
    copies.into_iter().map(subject).collect()
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
                hint: WHAT_IS_A_PATH.to_owned(),
            });
        }
        Err(source) => {
            let problem = match source.kind() {
                std::io::ErrorKind::PermissionDenied => Problem::Denied,
                _ => Problem::Other,
            };
            let error = storage::Error::new(problem, path.display().to_string(), "look at it");
            return Err(error.because(source).by_path().into());
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
            let read = read_place(place).await.map_err(|error| match error {
                Error::Storage(error) => Error::Storage(error.by_path()),
                error => error,
            });
            Ok(Subject::Stored(Box::new(read?)))
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
