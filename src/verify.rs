//! Reading a backup back whole: digests, decryption, decompression, RDB structure and checksum, and the counts
//! of its manifest. Without the key to an encrypted one its stored size and digest are all that can be compared.

use std::convert::Infallible;

use serde::Serialize;

use crate::catalog::Backup;
use crate::catalog::manifest::Rdb;
use crate::catalog::markers::{self, Marker};
use crate::catalog::selector::{BY_PATH, Subject};
use crate::failure::{Failure, Kind};
use crate::meter::Meter;
use crate::pipeline::Keys;
use crate::pipeline::inbound;
use crate::pipeline::keys::KeyError;
use crate::rdb::{Event, Handler, Summary};
use crate::reading::{self, digest_async, prove, read_async};
use crate::units::HumanCount;

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
    /// `whole`; `opaque` when the file holds what this version does not know, so that only digests and checksum were
    /// checked; `stored` when it is encrypted and no key is here, so that only the stored bytes were compared.
    pub result: &'static str,
    /// Whether there was a manifest whose SHA-256 digests were compared.
    pub digests: bool,
    /// Whether it had been found damaged before, and was not read whole now, so that the mark stands.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub still_damaged: bool,
    /// Stored bytes.
    pub bytes: u64,
    /// What is in it; absent when it was not opened.
    #[serde(flatten)]
    pub content: Option<Content>,
}

/// What a verification found in an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Content {
    /// What the file's own CRC64 proved: `verified`, `disabled`, `absent`, `unverifiable`.
    pub checksum: &'static str,
    /// Bytes of the RDB file.
    pub plain_bytes: u64,
    /// What it holds.
    pub rdb: Rdb,
}

/// Verifies a backup or an RDB file. Anything that is not as it was written is [`Kind::Damaged`]; of a backup in a
/// storage that is noted there, so that it counts as good for nobody, and taken back when it is found whole again.
///
/// # Errors
/// [`Kind::Key`] when it is encrypted and the keys that are here do not open it; no key at all is fine.
pub async fn verify(subject: Subject, keys: &Keys, meter: Meter) -> Result<Verified, Failure> {
    let (verified, _) = verify_with(subject, keys, Nobody, meter).await?;
    Ok(verified)
}

/// The same; `also` sees what is read, and comes back when all of it was right. Without a key nothing is read.
///
/// # Errors
/// As [`verify`].
pub async fn verify_with<H>(
    subject: Subject,
    keys: &Keys,
    also: H,
    meter: Meter,
) -> Result<(Verified, Option<H>), Failure>
where
    H: Handler<Error = Infallible> + Send + 'static,
{
    let verified = match prove(&subject, keys).await {
        Err(reading::Error::Read {
            error: inbound::Error::Key(KeyError::Missing { .. }),
            about,
        }) if about.stored => match compare_stored(subject.clone(), meter).await {
            Ok(verified) => Ok((verified, None)),
            Err(failure) => Err(failure),
        },
        // That the key does not fit is told when all has been read, for damage is the graver finding.
        Ok(())
        | Err(reading::Error::Read {
            error: inbound::Error::Key(KeyError::Wrong { .. } | KeyError::Unusable { .. }),
            ..
        }) => read_back(subject.clone(), keys.clone(), also, meter).await,
        Err(error) => Err(error.into()),
    };
    if let Subject::Stored(backup) = &subject
        && backup.place.storage() != BY_PATH
    {
        note(backup, verified.as_ref().map(|(verified, _)| verified)).await;
    }
    verified
}

async fn note(backup: &Backup, verified: Result<&Verified, &Failure>) {
    let place = &backup.place;
    let noted = match verified {
        Err(failure) if failure.kind == Kind::Damaged => markers::set(place, Marker::Damaged).await,
        // Stored bytes that fit their digest say nothing of what an earlier, whole reading found in them.
        Ok(verified) if backup.damaged && verified.content.is_some() => {
            markers::clear(place, Marker::Damaged).await
        }
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

/// What can be done without a key.
async fn compare_stored(subject: Subject, meter: Meter) -> Result<Verified, Failure> {
    let bytes = match &subject {
        Subject::Stored(backup) => backup.manifest.data.bytes,
        Subject::File(_) => 0,
    };
    meter.start_bytes(bytes);
    digest_async(subject.clone(), meter).await?;
    Ok(Verified {
        result: "stored",
        still_damaged: matches!(&subject, Subject::Stored(backup) if backup.damaged),
        bytes,
        ..Verified::of(&subject)
    })
}

/// Sees nothing.
struct Nobody;

impl Handler for Nobody {
    type Error = Infallible;

    fn event(&mut self, _: Event<'_>) -> Result<(), Infallible> {
        Ok(())
    }
}

/// The summary that is compared with the manifest, and whoever sees the same events.
struct Both<H> {
    summary: Summary,
    also: H,
}

impl<H: Handler<Error = Infallible>> Handler for Both<H> {
    type Error = Infallible;

    fn event(&mut self, event: Event<'_>) -> Result<(), Infallible> {
        self.summary.event(event)?;
        self.also.event(event)
    }
}

async fn read_back<H>(
    subject: Subject,
    keys: Keys,
    also: H,
    meter: Meter,
) -> Result<(Verified, Option<H>), Failure>
where
    H: Handler<Error = Infallible> + Send + 'static,
{
    let manifest = match &subject {
        Subject::Stored(backup) => Some(backup.manifest.clone()),
        Subject::File(_) => None,
    };
    meter.start_bytes(manifest.as_ref().map_or(0, |m| m.data.plain_bytes));
    let both = Both {
        summary: Summary::new(),
        also,
    };
    let (Both { summary, also }, whole) = read_async(subject.clone(), keys, both, meter).await?;
    let rdb = Rdb::of(&summary, &whole.report, None);
    if let Some(manifest) = &manifest
        && manifest.rdb != rdb
    {
        return Err(Failure::new(Kind::Damaged, format!("{} is damaged", subject.describe()))
            .cause(format!(
                "it holds {}, {} of them with an expiry, and its manifest says {} and {}",
                HumanCount(rdb.keys).of("key", "keys"),
                HumanCount(rdb.expires),
                HumanCount(manifest.rdb.keys),
                HumanCount(manifest.rdb.expires)
            ))
            .hint("its digests are right: the manifest was written wrong; restore it to a file and look"));
    }
    let verified = Verified {
        result: match whole.report.opaque {
            None => "whole",
            Some(_) => "opaque",
        },
        bytes: whole.unpacked.bytes,
        content: Some(Content {
            checksum: whole.report.checksum.as_str(),
            plain_bytes: whole.unpacked.plain_bytes,
            rdb,
        }),
        ..Verified::of(&subject)
    };
    Ok((verified, Some(also)))
}

impl Verified {
    /// What is known before anything is read.
    fn of(subject: &Subject) -> Verified {
        let (manifest, storage, path) = match subject {
            Subject::Stored(backup) => {
                let storage = backup.place.storage().to_owned();
                (Some(&backup.manifest), Some(storage), None)
            }
            Subject::File(file) => (None, None, Some(file.path().display().to_string())),
        };
        Verified {
            id: manifest.map(|manifest| manifest.id.to_string()),
            database: manifest.map(|manifest| manifest.database.clone()),
            storage,
            path,
            result: "",
            still_damaged: false,
            digests: manifest.is_some(),
            bytes: 0,
            content: None,
        }
    }
}
