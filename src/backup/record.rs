//! What a manifest says of a backup, gathered from the job, the source and the scan.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::fan::Fanned;
use super::{Context, Job};
use crate::catalog::manifest::{Data, FORMAT, Rdb, Source};
use crate::catalog::{BackupId, Manifest};
use crate::pipeline::outbound::PackedFacts;
use crate::source::{self, Dump, Method};

/// Which databases of a dump go into the archives.
pub(super) enum Keep {
    /// Those that are configured.
    Meant,
    /// All of them, and why.
    All { warning: String },
}

/// One archive in the making.
pub(super) struct Archive {
    pub(super) id: BackupId,
    pub(super) object: String,
    pub(super) started_at: Timestamp,
    pub(super) databases: Option<BTreeSet<u32>>,
}

/// What is known of the dump before it flows.
pub(super) struct About {
    pub(super) facts: source::SourceFacts,
    pub(super) method: Method,
    pub(super) consistency: &'static str,
    pub(super) reasons: Vec<String>,
    pub(super) warnings: Vec<String>,
    /// The databases that the source was asked for; empty: all.
    pub(super) scanned: Vec<u32>,
}

impl About {
    pub(super) fn of(dump: &Dump, scanned: Option<BTreeSet<u32>>) -> About {
        About {
            facts: dump.facts.clone(),
            method: dump.method,
            consistency: dump.consistency.as_str(),
            reasons: dump.reasons.clone(),
            warnings: dump.warnings.clone(),
            scanned: scanned.into_iter().flatten().collect(),
        }
    }
}

#[allow(clippy::too_many_arguments)]
pub(super) fn manifest(
    job: &Job,
    context: &Context,
    archive: Archive,
    about: &About,
    fanned: &Fanned,
    packed: &PackedFacts,
    keep: &Keep,
) -> Manifest {
    let only = archive.databases.as_ref();
    let facts = &about.facts;
    let configured = match keep {
        Keep::Meant => job.databases.iter().flatten().copied().collect(),
        // A scan brings only the databases that it was asked for; the other methods bring all.
        Keep::All { .. } if about.method == Method::Scan => about.scanned.clone(),
        Keep::All { .. } => Vec::new(),
    };
    Manifest {
        format: FORMAT,
        id: archive.id,
        database: job.name.clone(),
        host: context.host.clone(),
        tool: concat!("rdbkeeper ", env!("CARGO_PKG_VERSION")).to_owned(),
        started_at: archive.started_at,
        snapshot_at: snapshot_at(about, fanned).unwrap_or(archive.started_at),
        finished_at: Timestamp::now(),
        source: Source {
            address: facts.address.clone(),
            databases: configured,
            server: facts.server.clone(),
            run_id: facts.run_id.clone(),
            role: facts.role.to_owned(),
            replid: facts.replid.clone().unwrap_or_default(),
            offset: facts.offset,
        },
        method: about.method.to_string(),
        consistency: about.consistency.to_owned(),
        rdb: Rdb::of(&fanned.summary, &fanned.report, only),
        data: Data {
            object: archive.object,
            bytes: packed.bytes,
            sha256: packed.sha256.clone(),
            plain_bytes: packed.plain_bytes,
            plain_sha256: packed.plain_sha256.clone(),
            compression: job.compression,
            encryption: job.encryption.is_on().then(|| "age".to_owned()),
            recipients: job.encryption.recipients(),
            header_bytes: packed.header.as_ref().map(|header| header.bytes),
            header_sha256: packed.header.as_ref().map(|header| header.sha256.clone()),
        },
    }
}

/// The moment of a point-in-time dump is the one that the server wrote into it.
fn snapshot_at(about: &About, fanned: &Fanned) -> Option<Timestamp> {
    let told = about.facts.snapshot_ms;
    let told = told.and_then(|ms| Timestamp::from_millisecond(ms).ok());
    match about.method {
        Method::Scan => told,
        Method::Bgsave | Method::Replication => fanned
            .summary
            .aux
            .ctime
            .and_then(|second| Timestamp::from_second(second).ok())
            .or(told),
    }
}
