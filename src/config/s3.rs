//! `[storage.NAME]` with `kind = "s3"`: a bucket on any server that speaks S3.

use std::ops::Range;

use super::fields::{read_secret, refer};
use super::reader::{Located, TableReader};
use super::secrets::{FileRef, SecretSource};

/// The smallest and the largest part of an upload that S3 takes.
const PART_SIZES: std::ops::RangeInclusive<u64> = (5 << 20)..=(5 << 30);

/// The longest prefix: keys have at most 1024 bytes, and the rest is ours.
const LONGEST_PREFIX: usize = 512;

/// All its keys.
pub(super) const KEYS: &[&str] = &[
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
    "session_token",
    "session_token_file",
    "server_side_encryption",
    "kms_key_id",
    "storage_class",
    "object_lock",
    "part_size",
];

/// A bucket, and how it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Config {
    /// The bucket.
    pub bucket: String,
    /// What every key begins with, without a `/` at either end; may be empty.
    pub prefix: String,
    /// Where the bucket is; `None`: as the environment says.
    pub region: Option<String>,
    /// The server's URL; `None`: AWS.
    pub endpoint: Option<String>,
    /// Whether the bucket stands in the path and not in the host name; `None`: where an endpoint is set.
    pub path_style: Option<bool>,
    /// Whether what is sent carries a CRC32.
    pub checksums: bool,
    /// Whom to trust in the place of the system's authorities.
    pub ca_file: Option<FileRef>,
    /// The keys; `None`: where AWS's own tools look for them.
    pub credentials: Option<S3Credentials>,
    /// How the server encrypts what it stores.
    pub encryption: Option<S3Encryption>,
    /// Where data goes; manifests and markers, which are small, stay in the standard class.
    pub storage_class: Option<String>,
    /// For how long nobody may remove a backup.
    pub object_lock: Option<ObjectLock>,
    /// The size of every part of an upload; `None`: it grows.
    pub part_size: Option<u64>,
}

/// An access key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Credentials {
    /// Its ID.
    pub access_key_id: SecretSource,
    /// Its secret.
    pub secret_access_key: SecretSource,
    /// The token that belongs to a temporary one.
    pub session_token: Option<SecretSource>,
}

/// How the server encrypts what it stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum S3Encryption {
    /// With a key of the bucket's.
    Aes256,
    /// With a key of its key management.
    Kms {
        /// Which; `None`: the account's own for S3.
        key_id: Option<String>,
    },
}

/// Nobody may remove an object before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectLock {
    /// Who may all the same.
    pub mode: LockMode,
    /// For how many days.
    pub days: u32,
}

/// Who may remove a locked object all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Who has a right of its own for that.
    Governance,
    /// Nobody.
    Compliance,
}

pub(super) fn read(
    reader: &TableReader<'_, '_>,
    title: &str,
    span: Range<usize>,
) -> Option<S3Config> {
    let reading = reader.reading();
    if reader.key_span("bucket").is_none() {
        reading.missing(Some(span), format!("{title} has no `bucket`"));
    }
    // All are read before any that is missing ends it: all mistakes are told at once.
    let bucket = judged(reader, "bucket", reader.text("bucket"), judge_bucket);
    let prefix = judged(reader, "prefix", reader.string("prefix"), judge_prefix);
    let region = judged(reader, "region", reader.text("region"), judge_region);
    let endpoint = judged(reader, "endpoint", reader.text("endpoint"), judge_endpoint);
    let path_style = reader.boolean("path_style");
    let checksums = reader.boolean("checksums").unwrap_or(true);
    let ca_file = reader.text("ca_file");
    let credentials = read_credentials(reader);
    let encryption = read_encryption(reader);
    let class = reader.text("storage_class");
    let storage_class = judged(reader, "storage_class", class, judge_class);
    let object_lock = read_lock(reader);
    if let (Some(_), false, Some(span)) = (&object_lock, checksums, reader.key_span("checksums")) {
        reading.mistake(
            span,
            "`object_lock` needs checksums: the server refuses what has none",
        );
    }
    let part_size = reader.size("part_size").and_then(|size| {
        if PART_SIZES.contains(&size.value) {
            return Some(size.value);
        }
        reading.mistake(size.span, "`part_size` is a size from 5MiB to 5GiB");
        None
    });
    Some(S3Config {
        bucket: bucket?,
        prefix: prefix.unwrap_or_default(),
        region,
        endpoint,
        path_style,
        checksums,
        ca_file: ca_file.map(|found| refer(reading, &found.value)),
        credentials,
        encryption,
        storage_class,
        object_lock,
        part_size,
    })
}

fn judged(
    reader: &TableReader<'_, '_>,
    key: &str,
    found: Option<Located<String>>,
    judge: fn(&str) -> Result<String, String>,
) -> Option<String> {
    let found = found?;
    judge(&found.value)
        .map_err(|why| {
            reader
                .reading()
                .mistake(found.span, format!("`{key}`: {why}"));
        })
        .ok()
}

fn judge_bucket(text: &str) -> Result<String, String> {
    let inner = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-')
    };
    let end = |byte: Option<&u8>| {
        byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    let bytes = text.as_bytes();
    let right = (3..=63).contains(&bytes.len())
        && bytes.iter().all(|byte| inner(*byte))
        && end(bytes.first())
        && end(bytes.last())
        && !text.contains("..");
    match right {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "`{text}` is no bucket's name: 3 to 63 of a-z, 0-9, `-` and `.`, beginning and ending with a letter or a digit"
        )),
    }
}

fn judge_prefix(text: &str) -> Result<String, String> {
    let text = text.trim_matches('/');
    let right = text.len() <= LONGEST_PREFIX
        && !text.contains(|c: char| c.is_control() || c == '\\')
        && (text.is_empty()
            || text
                .split('/')
                .all(|segment| !matches!(segment, "" | "." | "..")));
    match right {
        true => Ok(text.to_owned()),
        false => Err(
            "names are separated by one `/`, and none is `.` or `..`; at most 512 bytes".to_owned(),
        ),
    }
}

fn judge_region(text: &str) -> Result<String, String> {
    let right = text.len() <= 64
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    match right {
        true => Ok(text.to_owned()),
        false => Err(format!("`{text}` is no region, as \"eu-central-1\" is")),
    }
}

fn judge_endpoint(text: &str) -> Result<String, String> {
    let wanted = "a URL that begins with https:// or http://, without a path, as \"https://s3.example.com:9000\"";
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
        .ok_or(wanted)?;
    let host = rest.strip_suffix('/').unwrap_or(rest);
    if host.contains('@') {
        return Err("no user and no password: write `access_key_id`".to_owned());
    }
    let (name, port) = match host.rsplit_once(':') {
        // The colons of an IPv6 address stand in brackets.
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    let right_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '?' | '#' | '\\');
    if name.is_empty() || name.contains(odd) || !right_port {
        return Err(wanted.to_owned());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn judge_class(text: &str) -> Result<String, String> {
    let right = text
        .bytes()
        .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    match text {
        "GLACIER" | "DEEP_ARCHIVE" => Err(format!(
            "what lies in {text} cannot be read before it is asked for, hours ahead; a lifecycle rule of the bucket can move old backups there, GLACIER_IR can be read at once"
        )),
        _ if right => Ok(text.to_owned()),
        _ => Err(format!(
            "`{text}` is no storage class, as \"STANDARD_IA\" is"
        )),
    }
}

fn read_credentials(reader: &TableReader<'_, '_>) -> Option<S3Credentials> {
    let id = read_secret(reader, "access_key_id", "access_key_id_file");
    let secret = read_secret(reader, "secret_access_key", "secret_access_key_file");
    let token = read_secret(reader, "session_token", "session_token_file");
    let span = |keys: [&'static str; 2]| keys.iter().find_map(|key| reader.key_span(key));
    let id_span = span(["access_key_id", "access_key_id_file"]);
    let secret_span = span(["secret_access_key", "secret_access_key_file"]);
    let token_span = span(["session_token", "session_token_file"]);
    match (id_span, secret_span, token_span) {
        (Some(span), None, _) | (None, Some(span), _) => reader.reading().mistake(
            span,
            "`access_key_id` and `secret_access_key` belong together: give both, or none to have them looked for where AWS's own tools do",
        ),
        (None, None, Some(span)) => reader.reading().mistake(
            span,
            "`session_token` belongs to `access_key_id` and `secret_access_key`",
        ),
        _ => {}
    }
    Some(S3Credentials {
        access_key_id: id?.value,
        secret_access_key: secret?.value,
        session_token: token.map(|token| token.value),
    })
}

fn read_encryption(reader: &TableReader<'_, '_>) -> Option<S3Encryption> {
    let reading = reader.reading();
    let kind = reader.text("server_side_encryption");
    let key_id = reader.text("kms_key_id");
    let encryption = match kind.as_ref().map(|kind| kind.value.as_str()) {
        Some("aws:kms") => {
            return Some(S3Encryption::Kms {
                key_id: key_id.map(|key| key.value),
            });
        }
        Some("AES256") => Some(S3Encryption::Aes256),
        Some(other) => {
            let text =
                format!("`server_side_encryption` is \"AES256\" or \"aws:kms\", not `{other}`");
            reading.mistake(kind.as_ref().map(|kind| kind.span.clone())?, text);
            return None;
        }
        None => None,
    };
    if let Some(key) = key_id {
        reading.mistake(
            key.span,
            "`kms_key_id` needs server_side_encryption = \"aws:kms\"",
        );
    }
    encryption
}

fn read_lock(reader: &TableReader<'_, '_>) -> Option<ObjectLock> {
    let wanted = "a table: { mode = \"GOVERNANCE\", days = 30 }";
    let table = reader.table("object_lock", wanted)?;
    let reading = reader.reading();
    let span = reader.key_span("object_lock")?;
    let inner = TableReader::new(reading, table, "`object_lock`");
    let given = |key| inner.key_span(key).is_some();
    if !given("mode") || !given("days") {
        reading.missing(Some(span), format!("`object_lock` is {wanted}"));
    }
    let mode = inner
        .string("mode")
        .and_then(|mode| match mode.value.as_str() {
            "GOVERNANCE" => Some(LockMode::Governance),
            "COMPLIANCE" => Some(LockMode::Compliance),
            other => {
                let text = format!("`mode` is \"GOVERNANCE\" or \"COMPLIANCE\", not `{other}`");
                reading.mistake(mode.span, text);
                None
            }
        });
    let days = inner.whole("days", 1..=36_500);
    inner.finish(&[]);
    Some(ObjectLock {
        mode: mode?,
        days: u32::try_from(days?).ok()?,
    })
}
