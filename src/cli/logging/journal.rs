//! Logs to the journal of systemd: priorities, and the fields of each event as fields of its own.
//!
//! A field `database` becomes `RDBKEEPER_DATABASE`, so that `journalctl RDBKEEPER_DATABASE=sessions` finds what
//! concerns one database. The trap: `journalctl` shows the message of an entry and none of its fields, and "cannot be
//! reached" alone tells nobody what cannot. So the fields stand in the message, too.

use std::fmt::{self, Write as _};
use std::io;

use tracing::field::{Field, Value, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// What every entry is marked with, as `SYSLOG_IDENTIFIER`: `journalctl -t rdbkeeper`.
const IDENTIFIER: &str = "rdbkeeper";

/// Stands before the name of every field, so that none is taken for one of the journal's own.
const PREFIX: &str = "RDBKEEPER";

/// No event has more fields; `tracing` refuses to compile one that has.
const MOST_FIELDS: usize = 32;

/// Whether standard error is the journal. The variable alone proves nothing: a shell that systemd started hands it
/// down to programs whose standard error is a pipe or a file.
pub(super) fn is_stderr() -> bool {
    let told = std::env::var("JOURNAL_STREAM").ok();
    let Ok(meta) = rustix::fs::fstat(io::stderr()) else {
        return false;
    };
    told.is_some_and(|told| names(&told, meta.st_dev, meta.st_ino))
}

/// Whether `$JOURNAL_STREAM`, two decimal numbers with a colon between, names this file
/// (systemd.exec(5), "Environment Variables Set or Propagated by the Service Manager").
fn names(told: &str, device: u64, inode: u64) -> bool {
    told.split_once(':')
        .is_some_and(|(told_device, told_inode)| {
            told_device.parse() == Ok(device) && told_inode.parse() == Ok(inode)
        })
}

/// Sends events to the journal.
pub(super) struct Journal(tracing_journald::Layer);

impl Journal {
    /// Finds the journal of this machine.
    ///
    /// # Errors
    /// When nobody listens at its socket.
    pub(super) fn open() -> io::Result<Journal> {
        // Information is 6 for syslog and for systemd; the crate would call it a notice.
        let priorities = PriorityMappings {
            error: Priority::Error,
            warn: Priority::Warning,
            info: Priority::Informational,
            debug: Priority::Debug,
            trace: Priority::Debug,
        };
        let layer = tracing_journald::layer()?
            .with_syslog_identifier(IDENTIFIER.to_owned())
            .with_field_prefix(Some(PREFIX.to_owned()))
            .with_priority_mappings(priorities);
        Ok(Journal(layer))
    }
}

impl<S> Layer<S> for Journal
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        self.0.on_new_span(attributes, id, context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        self.0.on_record(id, values, context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        with_fields_in_message(event, |event| self.0.on_event(event, context));
    }
}

/// Gives `then` the same event, whose message tells its fields.
fn with_fields_in_message(event: &Event<'_>, then: impl FnOnce(&Event<'_>)) {
    let mut read = Fields::default();
    event.record(&mut read);
    let Some(message) = event.metadata().fields().field("message") else {
        return then(event);
    };
    let text = read.told();
    let absent: Option<&dyn Value> = None;
    let mut values = [(&message, absent); MOST_FIELDS];
    values[0].1 = Some(&text);
    for (slot, (field, value)) in values[1..].iter_mut().zip(&read.others) {
        *slot = (field, Some(value));
    }
    then(&Event::new(
        event.metadata(),
        &event.metadata().fields().value_set(&values),
    ));
}

/// The fields of an event, as texts.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(Field, String)>,
}

impl Fields {
    /// The message, and what `field=value` there is.
    fn told(&self) -> String {
        let mut told = self.message.clone();
        for (field, value) in &self.others {
            let plain = !value.is_empty() && !value.contains([' ', '"', '=', '\n']);
            // Writing to a String cannot fail.
            let _ = if plain {
                write!(told, " {field}={value}")
            } else {
                write!(told, " {field}={value:?}")
            };
        }
        told
    }

    fn put(&mut self, field: &Field, value: String) {
        if field.name() == "message" {
            self.message = value;
        } else {
            self.others.push((field.clone(), value));
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        assert!(names("9:34250", 9, 34250));
        assert!(!names("9:34250", 9, 34251));
        assert!(!names("9:34250", 8, 34250));
        for nonsense in ["", ":", "9", "9:", "9:34250:1", "x:y", "9:-34250"] {
            assert!(!names(nonsense, 9, 34250), "{nonsense}");
        }
    }

    /// Names and values, the message first.
    type Said = Vec<(String, String)>;

    /// Keeps what events say after they went through [`with_fields_in_message`].
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<Said>>>);

    impl<S: Subscriber> Layer<S> for Kept {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            with_fields_in_message(event, |event| {
                let mut read = Fields::default();
                event.record(&mut read);
                let mut said = vec![("message".to_owned(), read.message)];
                for (field, value) in read.others {
                    said.push((field.name().to_owned(), value));
                }
                self.0.lock().unwrap().push(said);
            });
        }
    }

    #[test]
    fn the_message_of_an_entry_tells_its_fields_and_they_stay_fields() {
        let kept = Kept::default();
        let subscriber = tracing_subscriber::registry().with(kept.clone());
        tracing::subscriber::with_default(subscriber, || {
            let path = std::path::Path::new("/a b");
            tracing::warn!(database = "sessions", keys = 3, path = %path.display(), "not {}", "done");
            tracing::info!("alone");
            tracing::info!(only = "a field");
        });
        let said = kept.0.lock().unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            *said,
            [
                vec![
                    pair("message", "not done database=sessions keys=3 path=\"/a b\""),
                    pair("database", "sessions"),
                    pair("keys", "3"),
                    pair("path", "/a b"),
                ],
                vec![pair("message", "alone")],
                vec![pair("message", ""), pair("only", "a field")],
            ]
        );
    }
}
