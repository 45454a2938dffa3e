//! A backup's manifest: what the backup is, written once, last, and never changed.
//!
//! It is JSON whose last member, `check`, is the SHA-256 of all bytes before that member: a manifest
//! that was flipped, cut or mixed up is told from a whole one without any key.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::BackupId;
use crate::pipeline::inbound::Expected;
use crate::pipeline::{Compression, sha256};
use crate::rdb::{Report, Summary};

/// The format that this version writes.
pub const FORMAT: u64 = 1;

/// The largest manifest that is read. One of every database and type is far below.
pub const LIMIT_BYTES: usize = 4 << 20;

/// The text before the digest. Everything before it is what the digest covers.
const CHECK: &str = "\"check\":";

/// What a backup is. Times are UTC, sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The manifest's format: [`FORMAT`].
    pub format: u64,
    /// The backup's ID, which is also its folder's name.
    pub id: BackupId,
    /// The configured database's name.
    pub database: String,
    /// The host that took it.
    pub host: String,
    /// The program that took it: `rdbkeeper 0.1.0`.
    pub tool: String,
    /// When the backup was begun.
    pub started_at: Timestamp,
    /// The moment whose data it holds; for a key-by-key dump the moment at which that began, by the server's clock.
    pub snapshot_at: Timestamp,
    /// When it was complete.
    pub finished_at: Timestamp,
    /// Where it was taken.
    pub source: Source,
    /// How it was taken: `bgsave`, `replication`, `scan`.
    pub method: String,
    /// `point-in-time`, or `fuzzy` when it was taken key by key.
    pub consistency: String,
    /// What the RDB file holds.
    pub rdb: Rdb,
    /// The stored bytes.
    pub data: Data,
}

/// The server that a backup was taken from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Host and port, or the socket's path.
    pub address: String,
    /// The databases that are in the backup by configuration; empty: all of them.
    pub databases: Vec<u32>,
    /// Family and version: `redis 7.0.15`.
    pub server: String,
    /// The server process's own random ID.
    pub run_id: String,
    /// `master` or `slave`.
    pub role: String,
    /// The ID of its replication history.
    pub replid: String,
    /// The place in that history, where the method tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
}

/// What an RDB file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rdb {
    /// The number in its header.
    pub version: u16,
    /// The family whose header it has: `redis` or `valkey`.
    pub family: String,
    /// True when it holds something that this version does not know: counts are those up to there.
    pub opaque: bool,
    /// All keys.
    pub keys: u64,
    /// Those with an expiry.
    pub expires: u64,
    /// Function libraries.
    pub functions: u64,
    /// Counts by database, those without keys left out.
    pub databases: Vec<Database>,
}

impl Rdb {
    /// What a scan counted, of all databases or of some.
    pub fn of(summary: &Summary, report: &Report, only: Option<&BTreeSet<u32>>) -> Rdb {
        let databases: Vec<Database> = summary
            .databases()
            .into_iter()
            .filter(|(db, _)| only.is_none_or(|only| only.contains(&db.0)))
            .map(|(db, counts)| Database {
                db: db.0,
                keys: counts.keys,
                expires: counts.expires,
                types: counts
                    .logical_types()
                    .into_iter()
                    .map(|(kind, keys)| (kind.as_str().to_owned(), keys))
                    .collect(),
            })
            .collect();
        Rdb {
            version: report.version.map_or(0, |version| version.number),
            family: report
                .version
                .map_or_else(String::new, |version| version.family.to_string()),
            opaque: report.opaque.is_some(),
            keys: databases.iter().map(|database| database.keys).sum(),
            expires: databases.iter().map(|database| database.expires).sum(),
            functions: summary.functions,
            databases,
        }
    }
}

/// The keys of one database in an RDB file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// The database's number.
    pub db: u32,
    /// All its keys.
    pub keys: u64,
    /// Those with an expiry.
    pub expires: u64,
    /// Keys by type.
    pub types: BTreeMap<String, u64>,
}

/// The stored bytes of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// The object's name, beside the manifest.
    pub object: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
    /// The size of the RDB file in it.
    pub plain_bytes: u64,
    /// The SHA-256 of that file.
    pub plain_sha256: String,
    /// How it is compressed.
    pub compression: Compression,
    /// How it is encrypted; absent: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<String>,
    /// Who can read it: age public keys. Encrypted and without any: whoever knows the passphrase.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<String>,
    /// How many bytes the encryption put in front.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header_bytes: Option<u64>,
    /// Their SHA-256: a wrong key and a damaged header are told apart by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header_sha256: Option<String>,
}

impl Data {
    /// What reading the data back must give.
    pub fn expected(&self) -> Expected {
        Expected {
            bytes: self.bytes,
            sha256: self.sha256.clone(),
            plain_bytes: self.plain_bytes,
            plain_sha256: self.plain_sha256.clone(),
        }
    }
}

/// What the bytes of a manifest turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// A whole manifest.
    Whole(Box<Manifest>),
    /// A whole manifest of a later format.
    Newer {
        /// That format.
        format: u64,
    },
    /// Not what was written.
    Damaged(String),
}

impl Manifest {
    /// The manifest's file, digest included.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut text = serde_json::to_string_pretty(self)?;
        // The digest becomes one more member: it goes where the closing brace was.
        text.truncate(text.len() - "\n}".len());
        text.push_str(",\n  ");
        let check = sha256(text.as_bytes());
        text.push_str(&format!("{CHECK} \"{check}\"\n}}\n"));
        Ok(text.into_bytes())
    }

    /// Reads a manifest's file and checks its digest. Every byte of the file counts.
    pub fn read(bytes: &[u8]) -> Read {
        let damaged = |why: &str| Read::Damaged(why.to_owned());
        let Ok(text) = std::str::from_utf8(bytes) else {
            return damaged("it is not text");
        };
        let Some(at) = text.rfind(CHECK) else {
            return damaged("it has no `check`: it was cut, or is no manifest");
        };
        let (covered, tail) = text.split_at(at);
        if tail != format!("{CHECK} \"{}\"\n}}\n", sha256(covered.as_bytes())) {
            return damaged("its digest is not the one of its bytes");
        }
        #[derive(Deserialize)]
        struct Format {
            format: u64,
        }
        match serde_json::from_str::<Format>(text) {
            Ok(Format { format }) if format > FORMAT => return Read::Newer { format },
            Ok(_) => {}
            Err(error) => return Read::Damaged(error.to_string()),
        }
        match serde_json::from_str(text) {
            Ok(manifest) => Read::Whole(Box::new(manifest)),
            Err(error) => Read::Damaged(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn manifest() -> Manifest {
        let time: Timestamp = "2026-11-22T21:43:53Z".parse().unwrap();
        Manifest {
            format: FORMAT,
            id: "20261122T214353Z-7f3a9c".parse().unwrap(),
            database: "sessions".to_owned(),
            host: "web1".to_owned(),
            tool: "rdbkeeper 0.1.0".to_owned(),
            started_at: time,
            snapshot_at: time,
            finished_at: time,
            source: Source {
                offset: Some(123),
                ..Source::default()
            },
            method: "replication".to_owned(),
            consistency: "point-in-time".to_owned(),
            rdb: Rdb {
                databases: vec![Database::default()],
                ..Rdb::default()
            },
            data: Data {
                object: "dump.rdb.zst".to_owned(),
                bytes: 123,
                sha256: "ab".to_owned(),
                plain_bytes: 456,
                plain_sha256: "cd".to_owned(),
                compression: Compression::Zstd(3),
                encryption: None,
                recipients: Vec::new(),
                header_bytes: None,
                header_sha256: None,
            },
        }
    }

    #[test]
    fn what_is_written_is_read_and_is_json_whose_last_member_is_the_check() {
        let bytes = manifest().to_bytes().unwrap();
        assert_eq!(Manifest::read(&bytes), Read::Whole(Box::new(manifest())));
        let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let check = json["check"].as_str().unwrap();
        let text = std::str::from_utf8(&bytes).unwrap();
        let before = text.rfind("\"check\"").unwrap();
        assert_eq!(check, sha256(&text.as_bytes()[..before]));
    }

    #[test]
    fn every_flipped_bit_every_cut_and_every_extension_is_found() {
        let bytes = manifest().to_bytes().unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(
                    matches!(Manifest::read(&flipped), Read::Damaged(_)),
                    "{at}.{bit}"
                );
            }
            assert!(
                matches!(Manifest::read(&bytes[..at]), Read::Damaged(_)),
                "cut at {at}"
            );
        }
        for tail in [&b"\n"[..], b" ", b"}", &bytes] {
            let long = [&bytes[..], tail].concat();
            assert!(matches!(Manifest::read(&long), Read::Damaged(_)));
        }
    }

    #[test]
    fn a_later_format_is_told_from_damage() {
        let mut later = manifest();
        later.format = 2;
        let read = Manifest::read(&later.to_bytes().unwrap());
        assert_eq!(read, Read::Newer { format: 2 });
    }
}
