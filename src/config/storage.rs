//! `[storage.NAME]`: a place where archives are kept.

use std::collections::BTreeMap;
use std::path::PathBuf;

use toml::de::DeTable;

use super::name::Name;
use super::reader::{Reading, TableReader};

/// A configured storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageConfig {
    /// A folder on this host.
    Local {
        /// The archive's root; need not exist yet. Absolute when the configuration's own path is.
        path: PathBuf,
    },
}

/// The keys that only a storage of a later kind has.
const LATER: &[&str] = &[
    "bucket",
    "prefix",
    "region",
    "endpoint",
    "path_style",
    "checksums",
    "ca_file",
    "access_key_id",
    "access_key_id_file",
    "secret_access_key",
    "secret_access_key_file",
    "server_side_encryption",
    "kms_key_id",
    "storage_class",
    "object_lock",
];

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
        reader.finish(LATER);
    }
    all
}

fn read(
    reader: &TableReader<'_, '_>,
    name: &Name,
    span: std::ops::Range<usize>,
) -> Option<StorageConfig> {
    let has_kind = reader.key_span("kind").is_some();
    let has_path = reader.key_span("path").is_some();
    let kind = reader.string("kind");
    let path = reader.path("path");
    if !has_kind {
        reader.reading().missing(
            Some(span.clone()),
            format!("[storage.{name}] has no `kind`; write kind = \"local\""),
        );
    }
    let kind = kind?;
    match kind.value.as_str() {
        "local" => {
            if !has_path {
                reader.reading().missing(
                    Some(span),
                    format!("[storage.{name}] has no `path`: the folder of the archive"),
                );
            }
            Some(StorageConfig::Local { path: path?.value })
        }
        "s3" => {
            // One mistake is enough: its keys are not told one by one.
            for key in LATER {
                let _ = reader.raw(key);
            }
            reader.reading().mistake(
                kind.span,
                "`kind` = \"s3\" is not supported by this version; write \"local\"",
            );
            None
        }
        other => {
            reader.reading().mistake(
                kind.span,
                format!("`kind`: `{other}` is not a kind of storage; write \"local\""),
            );
            None
        }
    }
}
