//! Reading a backup back whole: digests, decompression, RDB structure and checksum, and the counts
//! of its manifest.

use serde::Serialize;

use crate::catalog::Backup;
use crate::catalog::manifest::Rdb;
use crate::catalog::markers::{self, Marker};
use crate::catalog::selector::{BY_PATH, Subject};
use crate::failure::{Failure, Kind};
use crate::meter::Meter;
use crate::rdb::Summary;
use crate::reading::read_async;

/// What a verification proved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The backup's ID, when it has a manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// The storage it was read from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<String>,
    /// The file, when it was named by its path and has no manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `whole`; `opaque` when the file holds what this version does not know, so that only digests and checksum were checked.
    pub result: &'static str,
    /// Whether there was a manifest whose SHA-256 digests were compared.
    pub digests: bool,
    /// What the file's own CRC64 proved: `verified`, `disabled`, `absent`, `unverifiable`.
    pub checksum: &'static str,
    /// Stored bytes.
    pub bytes: u64,
    /// Bytes of the RDB file.
    pub plain_bytes: u64,
    /// What it holds.
    pub rdb: Rdb,
}

/// Verifies a backup or an RDB file. Anything that is not as it was written is [`Kind::Damaged`]; of a backup in a
/// storage that is noted there, so that it counts as good for nobody, and taken back when it is found whole again.
pub async fn verify(subject: Subject, meter: Meter) -> Result<Verified, Failure> {
    let verified = read_back(subject.clone(), meter).await;
    if let Subject::Stored(backup) = &subject
        && backup.place.storage() != BY_PATH
    {
        note(backup, verified.as_ref().err()).await;
    }
    verified
}

async fn note(backup: &Backup, failure: Option<&Failure>) {
    let place = &backup.place;
    let noted = match failure {
        Some(failure) if failure.kind == Kind::Damaged => {
            markers::set(place, Marker::Damaged).await
        }
        None if backup.damaged => markers::clear(place, Marker::Damaged).await,
        _ => return,
    };
    if let Err(error) = noted {
        tracing::warn!(
            "what was found of {} cannot be noted in storage {}: {error}",
            backup.manifest.id,
            place.storage()
        );
    }
}

async fn read_back(subject: Subject, meter: Meter) -> Result<Verified, Failure> {
    let manifest = match &subject {
        Subject::Stored(backup) => Some(backup.manifest.clone()),
        Subject::File(_) => None,
    };
    meter.start_bytes(manifest.as_ref().map_or(0, |m| m.data.plain_bytes));
    let (summary, whole) = read_async(subject.clone(), Summary::new(), meter).await?;
    let rdb = Rdb::of(&summary, &whole.report, None);
    if let Some(manifest) = &manifest
        && manifest.rdb != rdb
    {
        return Err(Failure::new(Kind::Damaged, format!("{} is damaged", subject.describe()))
            .cause(format!(
                "it holds {} keys of which {} expire, and its manifest says {} and {}",
                rdb.keys, rdb.expires, manifest.rdb.keys, manifest.rdb.expires
            ))
            .hint("its digests are right: the manifest was written wrong; restore it to a file and look"));
    }
    let path = match &subject {
        Subject::Stored(_) => None,
        Subject::File(file) => Some(file.path().display().to_string()),
    };
    let storage = match &subject {
        Subject::Stored(backup) => Some(backup.place.storage().to_owned()),
        Subject::File(_) => None,
    };
    Ok(Verified {
        path,
        storage,
        result: match whole.report.opaque {
            None => "whole",
            Some(_) => "opaque",
        },
        digests: manifest.is_some(),
        checksum: whole.report.checksum.as_str(),
        bytes: whole.unpacked.bytes,
        plain_bytes: whole.unpacked.plain_bytes,
        rdb,
        id: manifest.as_ref().map(|m| m.id.to_string()),
        database: manifest.map(|m| m.database),
    })
}
