//! `[storage.NAME]`: a place where archives are kept. The keys of a bucket are in [`super::s3`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use toml::de::DeTable;

use super::name::Name;
use super::reader::{Reading, TableReader};
use super::s3::{self, S3Config};

/// A configured storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageConfig {
    /// A folder on this host.
    Local {
        /// The archive's root; need not exist yet. Absolute when the configuration's own path is.
        path: PathBuf,
    },
    /// A bucket.
    S3(Box<S3Config>),
}

pub(super) fn read_all(
    reading: &Reading<'_>,
    table: &DeTable<'_>,
) -> BTreeMap<Name, StorageConfig> {
    let mut all = BTreeMap::new();
    for (key, value) in TableReader::new(reading, table, "[storage]").entries() {
        let Some(table) = value.get_ref().as_table() else {
            reading.mistake(
                key.span,
                format!(
                    "a storage has a name: `{}` belongs under [storage.NAME]",
                    key.value
                ),
            );
            continue;
        };
        let name = match key.value.parse::<Name>() {
            Ok(name) => name,
            Err(error) => {
                reading.mistake(key.span, error);
                continue;
            }
        };
        let reader = TableReader::new(reading, table, format!("[storage.{name}]"));
        if let Some(storage) = read(&reader, &name, value.span()) {
            all.insert(name, storage);
        }
        reader.finish(&[]);
    }
    all
}

/// Reads the keys of its kind alone, so that each other one is told as unknown.
fn read(
    reader: &TableReader<'_, '_>,
    name: &Name,
    span: std::ops::Range<usize>,
) -> Option<StorageConfig> {
    let reading = reader.reading();
    let title = format!("[storage.{name}]");
    if reader.key_span("kind").is_none() {
        reading.missing(
            Some(span.clone()),
            format!("{title} has no `kind`; write kind = \"local\" or kind = \"s3\""),
        );
    }
    let kind = reader.string("kind");
    match kind.as_ref().map(|kind| kind.value.as_str()) {
        Some("local") => {
            if reader.key_span("path").is_none() {
                reading.missing(
                    Some(span),
                    format!("{title} has no `path`: the folder of the archive"),
                );
            }
            let path = reader.path("path")?.value;
            Some(StorageConfig::Local { path })
        }
        Some("s3") => {
            let config = s3::read(reader, &title, span)?;
            Some(StorageConfig::S3(Box::new(config)))
        }
        other => {
            if let (Some(other), Some(kind)) = (other, &kind) {
                let text = format!(
                    "`kind`: `{other}` is not a kind of storage; write \"local\" or \"s3\""
                );
                reading.mistake(kind.span.clone(), text);
            }
            // Nobody can tell which kind is meant: the keys of both are known, and none is judged.
            for key in ["path"].iter().chain(s3::KEYS) {
                let _ = reader.raw(key);
            }
            None
        }
    }
}
