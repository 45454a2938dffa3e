//! A backup's keys in a form that other programs read: JSON lines, commands, or another RDB file.
//!
//! The backup is read once and written as it is read, value by value and element by element: memory does not grow with a
//! value. The trap: what goes to a stream goes before the backup is known to be whole, so whoever reads it must look at
//! the exit code; a file appears when all has been read and found right.

mod json;
mod jsonl;
mod resp;

use tokio_util::sync::CancellationToken;

use crate::catalog::selector::Subject;
use crate::failure::Failure;
use crate::meter::Meter;
use crate::pipeline::Keys;
use crate::rdb::Handler;
use crate::reading::{Stoppable, read_async};
use crate::selection::Filters;
use crate::target::Route;
use crate::target::file::{Copy, Rewrite};
use crate::target::out::Out;

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

/// Writes the keys of a backup that the filters take.
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
) -> Result<Exported, Failure> {
    if let Subject::Stored(backup) = &subject {
        meter.start_bytes(backup.manifest.data.plain_bytes);
    }
    match format {
        Format::Rdb if filters.is_all() => {
            let copy = Copy::new(out);
            let copy = through(subject, keys, copy, meter, cancel).await?;
            Ok(Exported {
                bytes: copy.finish()?,
                ..Exported::default()
            })
        }
        Format::Rdb => {
            let route = Route {
                filters,
                ..Route::default()
            };
            let rewrite = Rewrite::new(out, route, Default::default());
            let rewrite = through(subject, keys, rewrite, meter, cancel).await?;
            let written = rewrite.finish()?;
            Ok(Exported {
                keys: Some(written.keys),
                left_out: written.left_out,
                bytes: written.bytes,
            })
        }
        Format::Jsonl => {
            let jsonl = Jsonl::new(out, filters);
            let jsonl = through(subject, keys, jsonl, meter, cancel).await?;
            Ok(jsonl.finish()?)
        }
        Format::Resp => {
            let resp = Resp::new(out, filters);
            let resp = through(subject, keys, resp, meter, cancel).await?;
            Ok(resp.finish()?)
        }
    }
}

async fn through<H>(
    subject: Subject,
    keys: Keys,
    handler: H,
    meter: Meter,
    cancel: CancellationToken,
) -> Result<H, Failure>
where
    H: Handler<Error = Failure> + Send + 'static,
{
    let handler = Stoppable::new(handler, cancel);
    let (handler, _) = read_async(subject, keys, handler, meter).await?;
    handler.check()?;
    Ok(handler.inner)
}
