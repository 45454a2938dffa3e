//! What has changed from one backup to another: keys added, removed, changed.
//!
//! Contents are compared by a digest that does not depend on the encoding, so data that another server wrote is no
//! change. Each backup is read once; what is kept of a key is its name, its type, its expiry and the digest, sorted, in
//! memory or in the spool. Nothing is written before both backups are known to be whole.

use serde_json::Value;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::keys::Form;
use super::sorted::{Record, Sorted, Sorter};
use crate::catalog::selector::Subject;
use crate::failure::{Failure, Kind};
use crate::lossless;
use crate::meter::Meter;
use crate::pipeline::Keys;
use crate::rdb::value::{ContentDigest, DecodeError, Decoder, FieldExpiries, ValueError};
use crate::rdb::{DbIndex, Event, Handler, KeyHead};
use crate::reading::{Unread, damaged_value, read_keys};
use crate::selection::Filters;
use crate::spool::Spool;
use crate::storage;
use crate::target;
use crate::target::file::Sink;
use crate::target::out::Blocks;
use crate::units::HumanCount;

/// So many bytes of each backup's records are kept in memory.
const BOUND: usize = 32 << 20;

/// Why two backups can't be compared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A backup can't be read key by key, or the result not be written.
    #[error(transparent)]
    Target(#[from] target::Error),
    /// What does not fit into memory can't be put into the spool.
    #[error(transparent)]
    Spool(#[from] storage::Error),
    /// It can't be read back from there.
    #[error("what was put into the spool cannot be read back")]
    ReadBack(#[source] std::io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match error {
            Error::Target(error) => error.into(),
            Error::Spool(error) => error.into(),
            Error::ReadBack(_) => {
                let failure = Failure::new(Kind::Storage, "the backups cannot be compared");
                failure.caused_by(&error)
            }
        }
    }
}

/// How many keys differ, and in what way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Only the second backup has them.
    pub added: u64,
    /// Only the first has them.
    pub removed: u64,
    /// Both have them, and they differ.
    pub changed: u64,
    /// They are equal.
    pub same: u64,
}

impl Counts {
    /// All keys that were compared.
    pub fn keys(&self) -> u64 {
        self.added + self.removed + self.changed + self.same
    }
}

/// What is kept of the keys of a backup, in their order.
#[derive(Debug)]
pub struct Collected(Sorted);

/// Reads one copy of a backup, for what is to be compared of the keys that the filters take.
///
/// # Errors
/// It is damaged or opaque, or there is no room in the spool.
pub async fn collect(
    subject: Subject,
    keys: Keys,
    filters: Filters,
    spool: &Spool,
    meter: Meter,
    cancel: CancellationToken,
) -> Result<Collected, Unread> {
    if let Subject::Stored(backup) = &subject {
        meter.start_bytes(backup.manifest.data.plain_bytes);
    }
    let sorter = Sorter::new(BOUND, spool.clone(), Handle::current());
    let collector = Collector::new(sorter, filters);
    let collector = read_keys(subject, keys, collector, meter, cancel).await?;
    let sorted = blocking(move || collector.sorter.finish()).await?;
    Ok(Collected(sorted))
}

/// Compares what was collected of two backups, and writes what differs into `to`.
///
/// # Errors
/// The output can't be written.
pub async fn compare<S: Sink + Send + 'static>(
    [first, second]: [Collected; 2],
    (to, form): (S, Form),
    cancel: CancellationToken,
) -> Result<Counts, Failure> {
    blocking(move || {
        let mut list = List::new(to, form);
        walk(first.0, second.0, &cancel, |difference| {
            list.add(difference)
        })?;
        list.finish()
    })
    .await
}

/// What ends a JSON document that is not whole: the error in the place of the counts.
pub fn broken_off(error: &Value) -> String {
    format!("\n],\"error\":{}}}\n", error["error"])
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(error) => {
            let failure = Failure::new(Kind::Failed, "the backups were not compared");
            Err(failure.cause(error.to_string()))
        }
    }
}

/// What is kept of each key of a backup.
#[derive(Debug)]
struct Collector {
    sorter: Sorter,
    filters: Filters,
    decoder: Decoder,
    current: Option<(Record, ContentDigest)>,
}

impl Collector {
    fn new(sorter: Sorter, filters: Filters) -> Collector {
        Collector {
            sorter,
            filters,
            decoder: Decoder::new(),
            current: None,
        }
    }

    fn begin(&mut self, head: &KeyHead<'_>) -> Result<(), Error> {
        let key = self.filters.taken(head).map_err(target::Error::KeyName)?;
        let Some(key) = key else {
            return Ok(());
        };
        let kind = head.value_type.logical();
        let record = Record {
            db: head.db.0,
            key: key.into_owned().into(),
            kind,
            digest: 0,
            expire_at_ms: head.expire_at_ms,
        };
        self.decoder.start(head.value_type);
        self.current = Some((record, ContentDigest::new(kind, FieldExpiries::Count)));
        Ok(())
    }
}

#[cold]
fn damaged(record: &Record, error: DecodeError) -> Failure {
    damaged_value(DbIndex(record.db), &record.key, &error)
}

impl Handler for Collector {
    type Error = Failure;

    fn event(&mut self, event: Event<'_>) -> Result<(), Failure> {
        match event {
            Event::Key(head) => self.begin(&head)?,
            Event::Value(bytes) => {
                if let Some((record, digest)) = &mut self.current {
                    let pushed = self.decoder.push(bytes, &mut |element| {
                        digest.element(element);
                        Ok::<(), std::convert::Infallible>(())
                    });
                    match pushed {
                        Ok(()) => {}
                        Err(ValueError::Damaged(error)) => return Err(damaged(record, error)),
                        Err(ValueError::Sink(never)) => match never {},
                    }
                }
            }
            Event::ValueEnd => {
                if let Some((mut record, digest)) = self.current.take() {
                    if let Err(error) = self.decoder.finish() {
                        return Err(damaged(&record, error));
                    }
                    record.digest = digest.finish();
                    self.sorter.add(record)?;
                }
            }
            Event::Opaque { offset, what } => {
                return Err(target::Error::Opaque { offset, what }.into());
            }
            _ => {}
        }
        Ok(())
    }
}

/// What a key is like in the second backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Difference<'a> {
    Added(&'a Record),
    Removed(&'a Record),
    /// Both records, the first backup's first.
    Changed(&'a Record, &'a Record),
    Same,
}

fn name(record: &Record) -> (u32, &[u8]) {
    (record.db, &record.key)
}

fn walk(
    mut first: Sorted,
    mut second: Sorted,
    cancel: &CancellationToken,
    mut each: impl FnMut(Difference<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let (mut old, mut new) = (first.next()?, second.next()?);
    let mut seen = 0_u32;
    loop {
        seen = seen.wrapping_add(1);
        if seen.is_multiple_of(4096) && cancel.is_cancelled() {
            return Err(target::Error::Stopped.into());
        }
        match (&old, &new) {
            (None, None) => return Ok(()),
            (Some(a), Some(b)) if name(a) == name(b) => {
                let same =
                    a.kind == b.kind && a.digest == b.digest && a.expire_at_ms == b.expire_at_ms;
                each(match same {
                    true => Difference::Same,
                    false => Difference::Changed(a, b),
                })?;
                (old, new) = (first.next()?, second.next()?);
            }
            (Some(a), b) if b.as_ref().is_none_or(|b| name(a) < name(b)) => {
                each(Difference::Removed(a))?;
                old = first.next()?;
            }
            (_, Some(b)) => {
                each(Difference::Added(b))?;
                new = second.next()?;
            }
            // The arm before the last takes every key that stands alone on the left.
            (Some(_), None) => return Ok(()),
        }
    }
}

/// Writes the differences, and what they add up to.
#[derive(Debug)]
struct List<S> {
    out: Blocks<S>,
    form: Form,
    counts: Counts,
    listed: u64,
}

impl<S: Sink> List<S> {
    fn new(to: S, form: Form) -> List<S> {
        let mut out = Blocks::new(to);
        if form == Form::Json {
            out.text("{\"differences\":[");
        }
        List {
            out,
            form,
            counts: Counts::default(),
            listed: 0,
        }
    }

    fn add(&mut self, difference: Difference<'_>) -> Result<(), Error> {
        let (sign, word, record) = match difference {
            Difference::Same => {
                self.counts.same += 1;
                return Ok(());
            }
            Difference::Added(record) => {
                self.counts.added += 1;
                ("+", "added", record)
            }
            Difference::Removed(record) => {
                self.counts.removed += 1;
                ("-", "removed", record)
            }
            Difference::Changed(_, record) => {
                self.counts.changed += 1;
                ("~", "changed", record)
            }
        };
        let mut what = Vec::new();
        if let Difference::Changed(old, new) = difference {
            // Of another type the value is another one too.
            if old.kind != new.kind {
                what.push("type");
            } else if old.digest != new.digest {
                what.push("value");
            }
            if old.expire_at_ms != new.expire_at_ms {
                what.push("expiry");
            }
        }
        match self.form {
            Form::Text => {
                self.out.text(&format!("{sign} {} ", record.db));
                lossless::text(&record.key, &mut self.out.bytes);
                if !what.is_empty() {
                    self.out.text(&format!(" ({})", what.join(", ")));
                }
                self.out.text("\n");
            }
            Form::Json => {
                self.out.text(if self.listed == 0 { "\n" } else { ",\n" });
                let head = format!("{{\"change\":\"{word}\",\"db\":{},\"key\":\"", record.db);
                self.out.text(&head);
                lossless::json(&record.key, &mut self.out.bytes);
                self.out.text("\"");
                if !what.is_empty() {
                    let what = what.join("\",\"");
                    self.out.text(&format!(",\"what\":[\"{what}\"]"));
                }
                self.out.text("}");
            }
        }
        self.listed += 1;
        Ok(self.out.flush_full()?)
    }

    fn finish(mut self) -> Result<Counts, Error> {
        let Counts {
            added,
            removed,
            changed,
            same,
        } = self.counts;
        match self.form {
            Form::Text => self.out.text(&format!(
                "{} added, {} removed, {} changed, {} the same\n",
                HumanCount(added),
                HumanCount(removed),
                HumanCount(changed),
                HumanCount(same),
            )),
            Form::Json => {
                let end = if self.listed == 0 { "]" } else { "\n]" };
                self.out.text(&format!(
                    "{end},\"added\":{added},\"removed\":{removed},\"changed\":{changed},\"same\":{same}}}\n"
                ));
            }
        }
        self.out.finish()?;
        Ok(self.counts)
    }
}
