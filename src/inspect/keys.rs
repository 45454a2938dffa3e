//! A line for each key, while the backup is read.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::catalog::selector::Subject;
use crate::failure::Failure;
use crate::lossless;
use crate::meter::Meter;
use crate::pipeline::Keys;
use crate::rdb::{Event, Handler, KeyHead};
use crate::reading::{Unread, read_keys};
use crate::selection::Filters;
use crate::target;
use crate::target::file::Sink;
use crate::target::out::Blocks;

/// How keys are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Columns for people: database, type, bytes, expiry, name.
    Text,
    /// One JSON document, a list of objects.
    Json,
}

/// Lists the keys that the filters take. Drive it by a scan, then [`finish`](KeyList::finish).
#[derive(Debug)]
pub struct KeyList<S> {
    out: Blocks<S>,
    form: Form,
    filters: Filters,
    /// What of the current key's line comes before its size, and what after.
    before: String,
    after: Vec<u8>,
    bytes: Option<u64>,
    keys: u64,
}

impl<S: Sink> KeyList<S> {
    /// Lists into `to`.
    pub fn new(to: S, form: Form, filters: Filters) -> KeyList<S> {
        let mut out = Blocks::new(to);
        match form {
            Form::Text => out.text("DB  TYPE         BYTES  EXPIRES                   KEY\n"),
            Form::Json => out.text("["),
        }
        KeyList {
            out,
            form,
            filters,
            before: String::new(),
            after: Vec::new(),
            bytes: None,
            keys: 0,
        }
    }

    /// Ends the list. To be called when all of the backup has been read and found whole. Returns how many keys it has.
    ///
    /// # Errors
    /// The rest can't be written.
    pub fn finish(mut self) -> Result<u64, target::Error> {
        match (self.form, self.keys) {
            (Form::Text, _) => {}
            (Form::Json, 0) => self.out.text("]\n"),
            (Form::Json, _) => self.out.text("\n]\n"),
        }
        self.out.finish()?;
        Ok(self.keys)
    }

    fn begin(&mut self, head: &KeyHead<'_>) -> Result<(), target::Error> {
        let key = self.filters.taken(head).map_err(target::Error::KeyName)?;
        let Some(key) = key else {
            return Ok(());
        };
        let (db, kind) = (head.db, head.value_type.logical());
        self.before.clear();
        self.after.clear();
        // A text takes everything.
        let _ = match self.form {
            Form::Text => {
                let expires = head.expire_at_ms.map_or_else(|| "-".to_owned(), rfc_3339);
                let expires = format!("  {expires:<24}  ");
                self.after.extend_from_slice(expires.as_bytes());
                lossless::text(&key, &mut self.after);
                write!(self.before, "{db:>2}  {kind:<6}")
            }
            Form::Json => {
                self.after.extend_from_slice(b",\"key\":\"");
                lossless::json(&key, &mut self.after);
                self.after.push(b'"');
                if let Some(at) = head.expire_at_ms {
                    let expires = format!(",\"expire_at_ms\":{at}");
                    self.after.extend_from_slice(expires.as_bytes());
                }
                let encoding = head.value_type.name();
                write!(
                    self.before,
                    "{{\"db\":{db},\"type\":\"{kind}\",\"encoding\":\"{encoding}\",\"bytes\":"
                )
            }
        };
        self.bytes = Some(head.raw.len() as u64);
        Ok(())
    }

    fn end(&mut self) -> Result<(), target::Error> {
        let Some(bytes) = self.bytes.take() else {
            return Ok(());
        };
        if self.form == Form::Json {
            self.out.text(if self.keys == 0 { "\n" } else { ",\n" });
        }
        self.out.text(&self.before);
        match self.form {
            Form::Text => self.out.text(&format!("  {bytes:>10}")),
            Form::Json => self.out.text(&bytes.to_string()),
        }
        self.out.bytes.extend_from_slice(&self.after);
        self.out.text(match self.form {
            Form::Text => "\n",
            Form::Json => "}",
        });
        self.keys += 1;
        self.out.flush_full()
    }
}

impl<S: Sink> Handler for KeyList<S> {
    type Error = Failure;

    fn event(&mut self, event: Event<'_>) -> Result<(), Failure> {
        match event {
            Event::Key(head) => self.begin(&head)?,
            Event::Value(fragment) => {
                if let Some(bytes) = &mut self.bytes {
                    *bytes += fragment.len() as u64;
                }
            }
            Event::ValueEnd => self.end()?,
            Event::Opaque { offset, what } => {
                return Err(target::Error::Opaque { offset, what }.into());
            }
            _ => {}
        }
        Ok(())
    }
}

/// What ends a JSON list that is not whole: an error in the place of the keys that are missing.
pub fn broken_off(error: &Value) -> String {
    format!(",\n{error}\n]\n")
}

/// A moment as RFC 3339 has it; as milliseconds where it has none.
pub(super) fn rfc_3339(ms: i64) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => format!("{ms} ms"),
    }
}

/// Lists the keys of one copy of a backup that the filters take into `to`. Returns how many they are.
///
/// # Errors
/// It is damaged, or opaque; or the output can't be written.
pub async fn list<S: Sink + Send + 'static>(
    (subject, keys): (Subject, Keys),
    filters: Filters,
    (to, form): (S, Form),
    meter: Meter,
    cancel: CancellationToken,
) -> Result<u64, Unread> {
    if let Subject::Stored(backup) = &subject {
        meter.start_bytes(backup.manifest.data.plain_bytes);
    }
    let list = KeyList::new(to, form, filters);
    let list = read_keys(subject, keys, list, meter, cancel).await?;
    Ok(list.finish().map_err(Failure::from)?)
}
