//! A backup of a storage far away, fetched once: a restore reads it twice or three times.

use super::{Failure, Kind};
use crate::catalog::Backup;
use crate::meter::Meter;
use crate::pipeline::Digester;
use crate::spool::Spool;
use crate::stage;
use crate::storage::{BroughtFile, Error, Problem, STALL, TRANSFER, within};

/// Why a backup was not fetched.
#[derive(Debug)]
pub enum NotFetched {
    /// It is damaged, or its storage fails.
    Copy(Failure),
    /// The spool is full or cannot be written.
    Spool(Failure),
}

impl<E: Into<Failure>> From<E> for NotFetched {
    fn from(error: E) -> NotFetched {
        NotFetched::Copy(error.into())
    }
}

fn of_spool(error: Error) -> NotFetched {
    NotFetched::Spool(error.into())
}

/// Fetches the data of a backup into the spool, as it is stored, if its storage is far away. Its size and digest are
/// checked on the way. Dropping this leaves nothing.
///
/// # Errors
/// A copy's is [`Kind::Damaged`] when it is not what its manifest says.
pub async fn fetch(backup: Backup, spool: &Spool, meter: &Meter) -> Result<Backup, NotFetched> {
    if backup.fetched.is_some() || !backup.place.store().is_remote() {
        return Ok(backup);
    }
    let data = &backup.manifest.data;
    let damaged = |why: String| {
        let (id, storage) = (&backup.manifest.id, backup.place.storage());
        Failure::new(
            Kind::Damaged,
            format!("{id} in storage {storage} is damaged"),
        )
        .cause(why)
        .hint("`rdbkeeper backup verify --all` tells which of the others are whole")
    };
    let room = spool.must_have_room(data.bytes).await;
    room.map_err(of_spool)?;
    let mut file = spool.file().await.map_err(of_spool)?;
    meter.start_bytes(data.bytes);
    let (key, store) = (backup.place.key(&data.object)?, backup.place.store());
    let place = store.describe();
    let opening = within(STALL, &place, format!("open {key}"), store.read(&key)).await;
    let mut reader = opening.map_err(|error| match error.problem {
        Problem::NotFound => damaged(error.to_string()),
        _ => Failure::from(error),
    })?;
    let mut digest = Digester::default();
    loop {
        let chunk = within(TRANSFER, &place, format!("read {key}"), reader.next()).await?;
        if chunk.is_empty() {
            break;
        }
        digest.update(&chunk);
        if digest.bytes() > data.bytes {
            break;
        }
        meter.add_bytes(chunk.len() as u64);
        file.append(chunk).await.map_err(of_spool)?;
        stage::reached("fetched-some");
    }
    if digest.bytes() != data.bytes {
        let (is, should) = (digest.bytes(), data.bytes);
        return Err(NotFetched::Copy(damaged(format!(
            "it has {} {is} bytes, and its manifest says {should}",
            if is < should { "only" } else { "at least" }
        ))));
    }
    let sha256 = digest.finish();
    if sha256 != data.sha256 {
        return Err(NotFetched::Copy(damaged(format!(
            "the SHA-256 of the stored bytes is {sha256}, and its manifest says {}",
            data.sha256
        ))));
    }
    let name = spool.folder().join(&data.object);
    let fetched = BroughtFile::opened(&name, file.file().clone(), file.bytes());
    Ok(Backup {
        fetched: Some(fetched),
        ..backup
    })
}
