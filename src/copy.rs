//! Copying a backup to another storage: as it is stored, proven on the way, its manifest byte for byte.
//!
//! No key is needed, for nothing is decrypted. Whoever copies takes no lock: an ID is never used twice, and what is
//! there already is compared, never overwritten.

use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::catalog::commit::{Prepared, commit_copy};
use crate::catalog::list::{DAMAGED, Place};
use crate::catalog::manifest::{LIMIT_BYTES, Read};
use crate::catalog::markers::{self, Marker};
use crate::catalog::selector::BY_PATH;
use crate::catalog::{Backup, Error, Listing, MANIFEST, Manifest, debris};
use crate::failure::{Failure, Kind};
use crate::meter::Meter;
use crate::pipeline::Digester;
use crate::pool::Pool;
use crate::stage;
use crate::storage::{
    self, NamedStore, PART_BYTES, Problem, Reader, STALL, TRANSFER, Upload, within,
};

/// Data without a manifest that is younger than this is perhaps being committed right now.
const AT_WORK: SignedDuration = SignedDuration::from_mins(15);

/// How long a store may take to remove what was sent, or to finish it, after the signal to stop.
const GRACE: Duration = Duration::from_secs(2);

/// What came of copying a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// The backup's ID.
    pub id: String,
    /// Its database.
    pub database: String,
    /// The storage that it was read from; `path` for a folder.
    pub from: String,
    /// The storage that has it now.
    pub to: String,
    /// What its data takes.
    pub bytes: u64,
    /// Whether anything was copied: false when it was there already.
    pub copied: bool,
}

/// Makes sure that a storage may take a backup: that what it holds of the database, its `listing`, is the same host's.
///
/// # Errors
/// [`Kind::Refused`] when it is not.
pub fn may_take(listing: &Listing, manifest: &Manifest) -> Result<(), Failure> {
    listing.must_be_of(&manifest.host).map_err(|error| {
        let hosts = format!("host {} took {}", manifest.host, manifest.id);
        let mut failure = Failure::from(error);
        failure.causes = vec![hosts];
        failure
    })
}

/// Copies a backup to a storage from the first of its copies that is whole. There is at least one. `host` is this one.
///
/// # Errors
/// [`Kind::Damaged`] when no copy is whole; [`Kind::Refused`] when the storage has something else under its ID.
pub async fn copy(
    copies: &[Backup],
    to: &NamedStore,
    host: &str,
    meter: &Meter,
    cancel: &CancellationToken,
) -> Result<Copied, Failure> {
    let mut failed: Option<Failure> = None;
    for from in copies {
        match copy_from(from, to, host, meter, cancel).await {
            Ok(copied) => return Ok(copied),
            Err(Trouble::Target(failure)) => return Err(about(from, to, failure)),
            Err(Trouble::Source(failure)) => {
                let storage = from.place.storage();
                tracing::warn!("the copy in storage {storage} is passed over: {failure}");
                failed.get_or_insert(about(from, to, failure));
            }
        }
    }
    Err(failed.unwrap_or_else(|| Failure::new(Kind::NotFound, "there is no backup to copy")))
}

fn about(from: &Backup, to: &NamedStore, failure: Failure) -> Failure {
    let id = &from.manifest.id;
    failure.context(format!("cannot copy {id} to storage {}", to.name))
}

/// Whose trouble it is.
enum Trouble {
    /// This copy's: another may do.
    Source(Failure),
    /// The target's, or that it was stopped.
    Target(Failure),
}

fn of_source(error: impl Into<Failure>) -> Trouble {
    Trouble::Source(error.into())
}

fn of_target(error: impl Into<Failure>) -> Trouble {
    Trouble::Target(error.into())
}

fn stopped() -> Trouble {
    of_target(Failure::interrupted())
}

/// Does what can be dropped anywhere, until the signal to stop.
async fn stoppable<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    tokio::select! {
        done = work => done,
        () = cancel.cancelled() => Err(stopped()),
    }
}

/// Does what should come to its end once it is begun: it has a moment for that after the signal to stop.
async fn stoppable_in_grace<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    let too_late = async {
        cancel.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        done = work => done,
        () = too_late => Err(stopped()),
    }
}

async fn copy_from(
    from: &Backup,
    to: &NamedStore,
    host: &str,
    meter: &Meter,
    cancel: &CancellationToken,
) -> Result<Copied, Trouble> {
    let data = &from.manifest.data;
    meter.start_bytes(data.bytes);
    let bytes = stoppable(cancel, manifest_of(from)).await?;
    let folder = [from.manifest.database.clone(), from.manifest.id.to_string()];
    let place = Place::new(to.clone(), folder);
    let looking = async || look(&place, from, &bytes).await.map_err(of_target);
    let mut there = stoppable(cancel, looking()).await?;
    if there == There::Data {
        let clearing = async {
            let cleared = debris::clear(&place, to, &from.manifest, host).await;
            cleared.map_err(of_target)
        };
        stoppable_in_grace(cancel, clearing).await?;
        there = stoppable(cancel, looking()).await?;
    }
    let copied = match there {
        There::Whole => false,
        There::Nothing => {
            let asking = async { room(to, data.bytes).await.map_err(of_target) };
            stoppable(cancel, asking).await?;
            transfer(from, &place, &bytes, meter, cancel).await?
        }
        There::Data => return Err(of_target(at_work(&place))),
    };
    let marks = [
        (from.pinned, Marker::Pinned),
        (from.accepted, Marker::Accepted),
    ];
    for (_, marker) in marks.into_iter().filter(|(is, _)| *is) {
        let marking = async { markers::set(&place, marker).await.map_err(of_target) };
        stoppable_in_grace(cancel, marking).await?;
    }
    Ok(Copied {
        id: from.manifest.id.to_string(),
        database: from.manifest.database.clone(),
        from: match from.place.storage() {
            BY_PATH => from.place.describe(),
            name => name.to_owned(),
        },
        to: to.name.clone(),
        bytes: data.bytes,
        copied,
    })
}

/// The manifest as it stands, with what this version does not know of it.
async fn manifest_of(from: &Backup) -> Result<Bytes, Trouble> {
    let key = from.place.key(MANIFEST).map_err(of_source)?;
    let store = from.place.store();
    let getting = storage::get(store.as_ref(), &key, LIMIT_BYTES);
    let bytes = within(STALL, &store.describe(), format!("read {key}"), getting).await;
    let bytes = bytes.map_err(of_source)?;
    match Manifest::read(&bytes) {
        Read::Whole(manifest) if *manifest == from.manifest => Ok(bytes),
        _ => Err(of_source(Error::Damaged {
            backup: from.place.describe(),
            why: "it is not as it was when it was listed".to_owned(),
        })),
    }
}

/// What the target has under the ID.
#[derive(Debug, PartialEq, Eq)]
enum There {
    Nothing,
    /// The same backup.
    Whole,
    /// Data without a manifest, which nobody is at work on.
    Data,
}

async fn look(place: &Place, from: &Backup, manifest: &Bytes) -> Result<There, Failure> {
    let (store, prefix) = (place.store().describe(), place.prefix());
    let listing = place.store().list(&prefix);
    let objects = within(STALL, &store, format!("list {prefix:?}"), listing).await?;
    let data = &from.manifest.data;
    let object = |name: &str| {
        let key = place.key(name)?;
        Ok::<_, Failure>(objects.iter().find(|object| object.key == key))
    };
    let refused = |why: String| {
        let (id, storage) = (&from.manifest.id, place.storage());
        Failure::new(Kind::Refused, format!("storage {storage} has {id}, and not as it is here"))
            .cause(why)
            .hint(format!(
                "`rdbkeeper backup delete {id} --storage {storage} --yes` removes it there; then copy it again"
            ))
    };
    let stored = object(&data.object)?;
    if object(MANIFEST)?.is_none() {
        let Some(stored) = stored else {
            return Ok(There::Nothing);
        };
        let clock = place.store().clock();
        let now = within(STALL, &store, "ask for the time", clock).await?;
        return match now.duration_since(stored.modified) < AT_WORK && now >= Timestamp::UNIX_EPOCH {
            true => Err(at_work(place)),
            false => Ok(There::Data),
        };
    }
    let key = place.key(MANIFEST)?;
    let getting = storage::get(place.store().as_ref(), &key, LIMIT_BYTES);
    let there = within(STALL, &store, format!("read {key}"), getting).await?;
    if there != *manifest {
        return Err(refused("its manifest there is another one".to_owned()));
    }
    if object(DAMAGED)?.is_some() {
        return Err(refused("a verification found it damaged there".to_owned()));
    }
    match stored {
        Some(stored) if stored.bytes == data.bytes => Ok(There::Whole),
        Some(stored) => Err(refused(format!(
            "{} has {} bytes there, and its manifest says {}",
            data.object, stored.bytes, data.bytes
        ))),
        None => Err(refused(format!("{} is missing there", data.object))),
    }
}

fn at_work(place: &Place) -> Failure {
    Failure::new(
        Kind::Busy,
        format!("{} is being written, it seems", place.describe()),
    )
    .cause("its data is there, and its manifest is not")
    .hint("look again in a quarter of an hour: if it was given up, it is copied anew then")
}

async fn room(to: &NamedStore, needed: u64) -> Result<(), Failure> {
    let store = to.store.describe();
    match within(STALL, &store, "ask for its room", to.store.free_bytes()).await? {
        Some(free) if free < needed => Err(Failure::new(
            Kind::Storage,
            format!("there is not enough room in storage {}", to.name),
        )
        .cause(format!(
            "{} has {free} bytes left, and the backup takes {needed}",
            to.store.describe()
        ))
        .hint("free some room there, or keep fewer backups")),
        _ => Ok(()),
    }
}

/// Brings data and manifest over. False when somebody else was faster.
async fn transfer(
    from: &Backup,
    place: &Place,
    manifest: &Bytes,
    meter: &Meter,
    cancel: &CancellationToken,
) -> Result<bool, Trouble> {
    let data = &from.manifest.data;
    let (source, target) = (from.place.store(), place.store());
    let read_key = from.place.key(&data.object).map_err(of_source)?;
    let key = place.key(&data.object).map_err(of_target)?;
    let opening = async {
        let reading = source.read(&read_key);
        let reader = within(
            STALL,
            &source.describe(),
            format!("open {read_key}"),
            reading,
        )
        .await;
        let reader = reader.map_err(|error| gone_is_damaged(from, error))?;
        let begun = target.upload(&key);
        let upload = within(STALL, &target.describe(), format!("create {key}"), begun).await;
        Ok((reader, upload.map_err(of_target)?))
    };
    let (reader, mut upload) = stoppable(cancel, opening).await?;
    let pumping = pump(from, reader, place, upload.as_mut(), meter);
    let pumped = stoppable(cancel, pumping).await;
    if let Err(trouble) = pumped {
        let limit = match cancel.is_cancelled() {
            true => GRACE,
            false => STALL,
        };
        let _ = tokio::time::timeout(limit, upload.abort()).await;
        return Err(trouble);
    }
    let prepared = Prepared {
        place: place.clone(),
        upload,
    };
    let committing = async { Ok(commit_copy(prepared, &from.manifest, manifest.clone()).await) };
    match stoppable_in_grace(cancel, committing).await? {
        Ok(()) => Ok(true),
        Err(Error::Storage(error)) if error.problem == Problem::Exists => {
            let looking = async { look(place, from, manifest).await.map_err(of_target) };
            match stoppable(cancel, looking).await? {
                There::Whole => Ok(false),
                There::Nothing | There::Data => Err(of_target(error)),
            }
        }
        Err(error) => Err(of_target(error)),
    }
}

fn gone_is_damaged(from: &Backup, error: storage::Error) -> Trouble {
    match error.problem {
        Problem::NotFound => of_source(Error::Damaged {
            backup: from.place.describe(),
            why: error.to_string(),
        }),
        _ => of_source(error),
    }
}

/// Sends the data, and makes sure at its end that it is what the manifest says.
async fn pump(
    from: &Backup,
    mut reader: Box<dyn Reader>,
    place: &Place,
    upload: &mut dyn Upload,
    meter: &Meter,
) -> Result<(), Trouble> {
    let data = &from.manifest.data;
    let (source, target) = (from.place.store().describe(), place.store().describe());
    let mut digest = Digester::default();
    let pool = Pool::new(PART_BYTES);
    let mut part = pool.take();
    loop {
        let chunk = within(TRANSFER, &source, "read the data", reader.next()).await;
        let mut chunk = chunk.map_err(of_source)?;
        digest.update(&chunk);
        meter.add_bytes(chunk.len() as u64);
        let ends = chunk.is_empty();
        loop {
            let now = chunk.split_to(chunk.len().min(PART_BYTES - part.len()));
            part.extend_from_slice(&now);
            if part.is_empty() || (part.len() < PART_BYTES && !ends) {
                break;
            }
            let full = std::mem::replace(&mut part, pool.take());
            let sending = upload.part(pool.lend(full));
            within(TRANSFER, &target, "write the data", sending)
                .await
                .map_err(of_target)?;
            stage::reached("copy-part");
        }
        if ends {
            break;
        }
    }
    let (bytes, sha256) = (digest.bytes(), digest.finish());
    if bytes == data.bytes && sha256 == data.sha256 {
        let settling = within(TRANSFER, &target, "write the data", upload.settle());
        return settling.await.map_err(of_target);
    }
    let why = match bytes == data.bytes {
        true => format!(
            "its SHA-256 is {sha256}, and its manifest says {}",
            data.sha256
        ),
        false => format!("it has {bytes} bytes, and its manifest says {}", data.bytes),
    };
    let place = from.place.describe();
    Err(of_source(
        Failure::new(Kind::Damaged, format!("{place} is damaged"))
            .cause(why)
            .hint("`rdbkeeper backup verify --all` tells which of the others are whole"),
    ))
}
