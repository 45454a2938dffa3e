//! One pass over a dump makes several archives: each has its databases, its compression, its digests.
//!
//! The scanner sees every byte on the way, so a dump that is torn or wrong is never committed, and
//! the manifests know their keys.

use std::collections::BTreeSet;
use std::convert::Infallible;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::meter::Meter;
use crate::pipeline::Compression;
use crate::pipeline::outbound::{self, PackedFacts, Packer, Settings};
use crate::pipeline::seal::Seal;
use crate::pool::Pool;
use crate::rdb::{
    DbFilter, DbIndex, Event, FilterError, Handler, Report, ScanError, Scanner, Summary,
};
use crate::stage;

/// What one archive is made of.
pub(super) struct Output {
    /// The databases that are in it; `None`: all, byte for byte.
    pub(super) databases: Option<BTreeSet<u32>>,
    pub(super) compression: Compression,
    /// What encrypts it, if anything does.
    pub(super) seal: Option<Seal>,
    /// Where the memory of its parts comes from.
    pub(super) pool: Pool,
    /// Where its parts go.
    pub(super) parts: mpsc::Sender<Bytes>,
}

/// What came of a dump.
pub(super) struct Fanned {
    /// Facts of the whole file.
    pub(super) report: Report,
    pub(super) summary: Summary,
    /// For each output, in their order, its bytes; or why it was lost.
    pub(super) archives: Vec<Result<PackedFacts, outbound::Error>>,
}

/// Why no archive could be made of a dump.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The bytes are not a whole RDB file.
    #[error("the server's dump is not a whole RDB file")]
    Scan(#[source] ScanError<Infallible>),
    /// The file holds what this version does not know, so that nothing can be left out of it.
    #[error("the dump cannot be filtered by database")]
    Opaque(#[source] FilterError),
    /// Every archive was lost: see the storages.
    #[error("no storage takes the data")]
    AllLost,
    /// A thread could not be made.
    #[error(transparent)]
    Start(outbound::Error),
}

/// Runs the pass. Blocks until the source's channel is closed; to be called on a thread of its own.
pub(super) fn run(
    mut chunks: mpsc::Receiver<Bytes>,
    outputs: Vec<Output>,
    threads: usize,
    meter: &Meter,
) -> Result<Fanned, Error> {
    let mut fan = Fan {
        summary: Summary::new(),
        outlets: Vec::with_capacity(outputs.len()),
    };
    for output in outputs {
        let settings = Settings {
            compression: output.compression,
            seal: output.seal,
            threads,
        };
        let packer = Packer::start(settings, output.pool, output.parts).map_err(Error::Start)?;
        fan.outlets.push(Outlet {
            filter: output
                .databases
                .map(|databases| DbFilter::new(databases.into_iter().map(DbIndex))),
            packer: Ok(packer),
        });
    }
    stage::reached("packing");
    let mut scanner = Scanner::new();
    while let Some(chunk) = chunks.blocking_recv() {
        scanner.feed(&chunk, &mut fan).map_err(Error::from)?;
        fan.pass(&chunk)?;
        meter.add_bytes(chunk.len() as u64);
    }
    let report = scanner.finish(&mut fan).map_err(Error::from)?;
    let Fan { summary, outlets } = fan;
    let archives = outlets
        .into_iter()
        .map(|outlet| outlet.packer.and_then(Packer::finish))
        .collect();
    Ok(Fanned {
        report,
        summary,
        archives,
    })
}

impl From<ScanError<FilterError>> for Error {
    fn from(error: ScanError<FilterError>) -> Error {
        match error {
            ScanError::File(error) => Error::Scan(ScanError::File(error)),
            ScanError::Handler(error) => Error::Opaque(error),
        }
    }
}

struct Fan {
    summary: Summary,
    outlets: Vec<Outlet>,
}

struct Outlet {
    filter: Option<DbFilter>,
    packer: Result<Packer, outbound::Error>,
}

impl Outlet {
    /// A packer whose storage is gone takes nothing more; the others go on.
    fn write(packer: &mut Result<Packer, outbound::Error>, data: &[u8]) {
        if let Ok(open) = packer
            && let Err(error) = open.write(data)
        {
            *packer = Err(error);
        }
    }
}

impl Fan {
    /// Gives a chunk to the archives that hold everything.
    fn pass(&mut self, chunk: &[u8]) -> Result<(), Error> {
        for outlet in &mut self.outlets {
            if outlet.filter.is_none() {
                Outlet::write(&mut outlet.packer, chunk);
            }
        }
        match self.outlets.iter().any(|outlet| outlet.packer.is_ok()) {
            true => Ok(()),
            false => Err(Error::AllLost),
        }
    }
}

impl Handler for Fan {
    type Error = FilterError;

    fn event(&mut self, event: Event<'_>) -> Result<(), FilterError> {
        // Counting cannot fail.
        let Ok(()) = self.summary.event(event);
        for outlet in &mut self.outlets {
            if let Some(filter) = &mut outlet.filter {
                let packer = &mut outlet.packer;
                filter.event(&event, &mut |bytes: &[u8]| Outlet::write(packer, bytes))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::rdb::crc64::Crc64;
    use crate::storage::PART_BYTES;

    /// A file with a key that is known in database 1, and one of an unknown type in database 2.
    fn newer_file() -> Vec<u8> {
        let mut file = b"REDIS0012\xfe\x01\x00\x01k\x01v\xfe\x02".to_vec();
        file.extend_from_slice(b"\xc8\x03newthe rest is unknown\xff");
        let mut crc = Crc64::new();
        crc.update(&file);
        file.extend_from_slice(&crc.value().to_le_bytes());
        file
    }

    /// Runs a pass over the file for archives of these databases; gives what each stored.
    fn fan(file: &[u8], wanted: &[Option<&[u32]>]) -> (Result<Fanned, Error>, Vec<Vec<u8>>) {
        let (chunks, incoming) = mpsc::channel(100);
        for chunk in file.chunks(5) {
            chunks.try_send(Bytes::copy_from_slice(chunk)).unwrap();
        }
        drop(chunks);
        let mut outputs = Vec::new();
        let mut stored = Vec::new();
        for databases in wanted {
            let (parts, receiver) = mpsc::channel(100);
            outputs.push(Output {
                databases: databases.map(|databases| databases.iter().copied().collect()),
                compression: Compression::None,
                seal: None,
                pool: Pool::new(PART_BYTES),
                parts,
            });
            stored.push(receiver);
        }
        let result = run(incoming, outputs, 1, &Meter::default());
        let all = |mut receiver: mpsc::Receiver<Bytes>| {
            let mut all = Vec::new();
            while let Some(part) = receiver.blocking_recv() {
                all.extend_from_slice(&part);
            }
            all
        };
        (result, stored.into_iter().map(all).collect())
    }

    #[test]
    fn a_dump_of_a_newer_server_is_archived_byte_for_byte_and_marked() {
        let file = newer_file();
        let (result, stored) = fan(&file, &[None, None]);
        let fanned = result.unwrap();
        assert!(fanned.report.opaque.is_some());
        assert_eq!(fanned.summary.keys(), 1);
        assert!(stored[0] == file && stored[1] == file);
        let packed = fanned.archives[0].as_ref().unwrap();
        assert_eq!(packed.plain_sha256, crate::pipeline::sha256(&file));
    }

    #[test]
    fn a_dump_of_a_newer_server_is_not_filtered_but_said_to_be_opaque() {
        let (result, _) = fan(&newer_file(), &[None, Some(&[1])]);
        assert!(matches!(result, Err(Error::Opaque(_))));
    }

    #[test]
    fn a_newer_dump_that_was_torn_is_an_error_and_no_backup() {
        let file = newer_file();
        for cut in 9..file.len() {
            let (result, _) = fan(&file[..cut], &[None]);
            assert!(matches!(result, Err(Error::Scan(_))), "cut at {cut}");
        }
    }

    #[test]
    fn an_archive_whose_storage_is_gone_does_not_take_the_others_along() {
        let mut file = b"REDIS0009\xfe\x01\x00\x01k\x01v\xff".to_vec();
        let mut crc = Crc64::new();
        crc.update(&file);
        file.extend_from_slice(&crc.value().to_le_bytes());
        let (chunks, incoming) = mpsc::channel(1);
        chunks.try_send(Bytes::copy_from_slice(&file)).unwrap();
        drop(chunks);
        let (gone, receiver) = mpsc::channel(1);
        drop(receiver);
        let (parts, mut kept) = mpsc::channel(1);
        let output = |parts| Output {
            databases: None,
            compression: Compression::None,
            seal: None,
            pool: Pool::new(PART_BYTES),
            parts,
        };
        let fanned = run(
            incoming,
            vec![output(gone), output(parts)],
            1,
            &Meter::default(),
        )
        .unwrap();
        assert!(matches!(
            fanned.archives[..],
            [Err(outbound::Error::Closed), Ok(_)]
        ));
        assert_eq!(kept.blocking_recv().unwrap(), file);
    }
}
