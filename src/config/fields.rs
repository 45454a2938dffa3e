//! The keys of a database that need more than their type: each is read, judged, and told when it is wrong.

use std::path::PathBuf;
use std::time::Duration;

use super::database::{TlsConfig, Url, UrlCheck};
use super::name::Name;
use super::reader::{Located, Reading, TableReader};
use super::secrets::{FileRef, SecretSource};
use crate::cron::Cron;
use crate::secret::Secret;

pub(super) fn read_url(
    reader: &TableReader<'_, '_>,
    key: &'static str,
    check: UrlCheck<'_>,
) -> Option<Url> {
    let found = reader.text(key)?;
    match check(&found.value) {
        Ok(facts) => Some(Url {
            text: Secret::new(found.value),
            facts,
            span: found.span,
        }),
        Err(why) => {
            reader
                .reading()
                .mistake(found.span, format!("`{key}`: {why}"));
            None
        }
    }
}

pub(super) fn read_databases(reader: &TableReader<'_, '_>) -> Option<Located<Vec<u32>>> {
    let found = reader.wholes("databases")?;
    if found.value.is_empty() {
        reader.reading().mistake(
            found.span,
            "`databases` is empty; leave it out to mean all of them",
        );
        return None;
    }
    let mut seen: Vec<u32> = Vec::with_capacity(found.value.len());
    for db in found.value {
        if seen.contains(&db.value) {
            reader
                .reading()
                .mistake(db.span, format!("`databases` names {} twice", db.value));
        } else {
            seen.push(db.value);
        }
    }
    seen.sort_unstable();
    Some(Located {
        value: seen,
        span: found.span,
    })
}

/// A secret that stands here, or in a file: one of two keys.
pub(super) fn read_secret(
    reader: &TableReader<'_, '_>,
    key: &'static str,
    file_key: &'static str,
) -> Option<Located<SecretSource>> {
    let inline = reader.text(key);
    let file = reader.text(file_key);
    if let (Some(_), Some(span)) = (reader.key_span(key), reader.key_span(file_key)) {
        reader.reading().mistake(
            span,
            format!("`{key}` and `{file_key}` exclude each other; drop one of them"),
        );
        return None;
    }
    if let Some(found) = inline {
        return Some(Located {
            value: SecretSource::Inline(Secret::new(found.value)),
            span: found.span,
        });
    }
    let found = file?;
    Some(Located {
        value: SecretSource::File(refer(reader.reading(), &found.value)),
        span: found.span,
    })
}

pub(super) fn read_tls(reader: &TableReader<'_, '_>) -> Option<Located<TlsConfig>> {
    let table = reader.table("tls", "a table: { ca_file = \"…\" }")?;
    let span = reader.key_span("tls")?;
    let reading = reader.reading();
    let inner = TableReader::new(reading, table, "`tls`");
    let file = |key| inner.text(key).map(|found| refer(reading, &found.value));
    let tls = TlsConfig {
        ca_file: file("ca_file"),
        cert_file: file("cert_file"),
        key_file: file("key_file"),
    };
    let given = |key| inner.key_span(key).is_some();
    if given("cert_file") != given("key_file") {
        reading.mistake(
            span.clone(),
            "`cert_file` and `key_file` belong together: give both or none",
        );
    }
    inner.finish(&[]);
    Some(Located { value: tls, span })
}

pub(super) fn refer(reading: &Reading<'_>, named: &str) -> FileRef {
    FileRef::new(named.as_ref(), reading.environment, reading.folder)
}

pub(super) fn read_rdb_path(reader: &TableReader<'_, '_>) -> Option<PathBuf> {
    let found = reader.text("rdb_path")?;
    let path = PathBuf::from(found.value);
    if path.is_relative() {
        reader.reading().mistake(
            found.span,
            "`rdb_path` is an absolute path: it begins with /",
        );
        return None;
    }
    Some(path)
}

pub(super) fn read_timeout(reader: &TableReader<'_, '_>) -> Option<Duration> {
    let found = reader.duration("timeout")?;
    if found.value.is_zero() {
        reader
            .reading()
            .mistake(found.span, "`timeout` is at least one second");
        return None;
    }
    Some(found.value)
}

pub(super) fn read_storage(reader: &TableReader<'_, '_>) -> Option<Vec<Located<Name>>> {
    let reading = reader.reading();
    let found = reader.strings("storage")?;
    if found.value.is_empty() {
        reading.mistake(
            found.span,
            "`storage` is empty; leave it out to mean every configured storage",
        );
        return None;
    }
    let mut names: Vec<Located<Name>> = Vec::with_capacity(found.value.len());
    for item in found.value {
        match item.value.parse::<Name>() {
            Ok(name) if names.iter().any(|other| other.value == name) => {
                reading.mistake(item.span, format!("`storage` names `{name}` twice"));
            }
            Ok(value) => names.push(Located {
                value,
                span: item.span,
            }),
            Err(error) => reading.mistake(item.span, format!("`storage`: {error}")),
        }
    }
    Some(names)
}

/// A cron expression of five fields, or six with seconds first.
pub(super) fn read_schedule(reader: &TableReader<'_, '_>, key: &'static str) -> Option<Cron> {
    let found = reader.text(key)?;
    match found.value.parse() {
        Ok(cron) => Some(cron),
        Err(error) => {
            reader
                .reading()
                .mistake(found.span, format!("`{key}` {error}"));
            None
        }
    }
}
