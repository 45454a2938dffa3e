//! A backup's keys in a form that other programs read: JSON lines, commands, or another RDB file.
//!
//! The backup is read once and written as it is read, value by value and element by element: memory does not grow with a
//! value. The trap: what goes to a stream goes before the backup is known to be whole, so whoever reads it must look at
//! the exit code; a file appears when all has been read and found right.

mod json;
mod jsonl;
mod resp;

use std::borrow::Cow;

use tokio_util::sync::CancellationToken;

use crate::catalog::selector::Subject;
use crate::failure::Failure;
use crate::meter::Meter;
use crate::pipeline::Keys;
use crate::rdb::KeyHead;
use crate::reading::{Unread, read_keys};
use crate::selection::Filters;
use crate::target::file::{Copy, Rewrite};
use crate::target::out::Out;
use crate::target::{self, Route};

pub use json::score;
pub use jsonl::Jsonl;
pub use resp::Resp;

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An RDB file.
    Rdb,
    /// A line of JSON for each key.
    Jsonl,
    /// Commands, as a client sends them.
    Resp,
}

impl Format {
    /// The word on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Rdb => "rdb",
            Format::Jsonl => "jsonl",
            Format::Resp => "resp",
        }
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Keys; not known of a file that was copied as it is.
    pub keys: Option<u64>,
    /// Keys that the filters left out.
    pub left_out: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Which keys are written, and how many there were of them and of the others.
#[derive(Debug)]
struct Chosen {
    filters: Filters,
    keys: u64,
    left_out: u64,
}

impl Chosen {
    fn new(filters: Filters) -> Chosen {
        Chosen {
            filters,
            keys: 0,
            left_out: 0,
        }
    }

    /// The name of a key that is to be written.
    fn name<'a>(&mut self, head: &KeyHead<'a>) -> Result<Option<Cow<'a, [u8]>>, target::Error> {
        let name = self.filters.taken(head).map_err(target::Error::KeyName)?;
        match name {
            Some(_) => self.keys += 1,
            None => self.left_out += 1,
        }
        Ok(name)
    }

    fn exported(&self, bytes: u64) -> Exported {
        Exported {
            keys: Some(self.keys),
            left_out: self.left_out,
            bytes,
        }
    }
}

/// Writes the keys of one copy of a backup that the filters take.
///
/// # Errors
/// The backup is damaged, or opaque where it has to be read key by key; the output can't be written.
pub async fn export(
    subject: Subject,
    keys: Keys,
    format: Format,
    filters: Filters,
    out: Out,
    meter: Meter,
    cancel: CancellationToken,
) -> Result<Exported, Unread> {
    if let Subject::Stored(backup) = &subject {
        meter.start_bytes(backup.manifest.data.plain_bytes);
    }
    match format {
        Format::Rdb if filters.is_all() => {
            let copy = Copy::new(out);
            let copy = read_keys(subject, keys, copy, meter, cancel).await?;
            Ok(Exported {
                bytes: copy.finish().map_err(Failure::from)?,
                ..Exported::default()
            })
        }
        Format::Rdb => {
            let route = Route {
                filters,
                ..Route::default()
            };
            let rewrite = Rewrite::new(out, route, Default::default());
            let rewrite = read_keys(subject, keys, rewrite, meter, cancel).await?;
            let written = rewrite.finish().map_err(Failure::from)?;
            Ok(Exported {
                keys: Some(written.keys),
                left_out: written.left_out,
                bytes: written.bytes,
            })
        }
        Format::Jsonl => {
            let jsonl = Jsonl::new(out, filters);
            let jsonl = read_keys(subject, keys, jsonl, meter, cancel).await?;
            Ok(jsonl.finish().map_err(Failure::from)?)
        }
        Format::Resp => {
            let resp = Resp::new(out, filters);
            let resp = read_keys(subject, keys, resp, meter, cancel).await?;
            Ok(resp.finish().map_err(Failure::from)?)
        }
    }
}
