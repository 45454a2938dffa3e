//! Commands as `redis-cli --pipe` takes them: what was under a key's name goes, its value is made, its expiry comes last.
//!
//! Values are written element by element; a stream and a module's value are held whole until they end, a stream because
//! what is pending in it must be known before its first entry (see [`Ghosts`]). Values of modules go as RESTORE. Function
//! libraries are loaded when every key is meant. Commands are those of the version that wrote the file; an older server
//! refuses what it does not know, and says so.

use crate::failure::Failure;
use crate::rdb::value::{DecodeError, Decoder, Element, ValueError, decode};
use crate::rdb::{
    DbIndex, Event, Family, FileVersion, Handler, KeyHead, LogicalType, ValueType, payload,
};
use crate::reading::damaged_value;
use crate::selection::Filters;
use crate::target;
use crate::target::commands::{Dialect, Ghosts, Writer};
use crate::target::file::Sink;
use crate::target::out::Blocks;

use super::{Chosen, Exported};

/// Writes the commands.
#[derive(Debug)]
pub struct Resp<S> {
    out: Blocks<S>,
    chosen: Chosen,
    version: FileVersion,
    decoder: Decoder,
    writer: Writer,
    db: Option<DbIndex>,
    current: Option<Current>,
    lost: u64,
}

/// The key whose value is being read.
#[derive(Debug)]
struct Current {
    name: Vec<u8>,
    value_type: ValueType,
    expire_at_ms: Option<i64>,
    /// Metadata, type and value, of what is held whole.
    held: Vec<u8>,
    /// Of those, what comes before the value.
    before: usize,
}

impl Current {
    /// Whether its value is held until it ends.
    fn is_held(&self) -> bool {
        let logical = self.value_type.logical();
        matches!(logical, LogicalType::Stream | LogicalType::Module)
    }
}

fn command<S: Sink>(out: &mut Blocks<S>, words: &[&[u8]]) -> Result<(), target::Error> {
    out.text(&format!("*{}\r\n", words.len()));
    for word in words {
        out.text(&format!("${}\r\n", word.len()));
        out.bytes.extend_from_slice(word);
        out.text("\r\n");
        out.flush_full()?;
    }
    Ok(())
}

impl<S: Sink> Resp<S> {
    /// Writes the keys that the filters take into `to`.
    pub fn new(to: S, filters: Filters) -> Resp<S> {
        let version = FileVersion {
            family: Family::Redis,
            number: 0,
        };
        Resp {
            out: Blocks::new(to),
            chosen: Chosen::new(filters),
            version,
            decoder: Decoder::new(),
            writer: Writer::new(Dialect::of_rdb(version)),
            db: None,
            current: None,
            lost: 0,
        }
    }

    /// Ends it. To be called when all of the backup has been read and found whole.
    ///
    /// # Errors
    /// The rest can't be written.
    pub fn finish(self) -> Result<Exported, target::Error> {
        if self.lost > 0 {
            tracing::warn!(
                "{} pending entries or elements have no command that would make them, and were left out",
                self.lost
            );
        }
        Ok(self.chosen.exported(self.out.finish()?))
    }

    fn begin(&mut self, head: &KeyHead<'_>) -> Result<(), target::Error> {
        let Some(key) = self.chosen.name(head)? else {
            return Ok(());
        };
        if self.db != Some(head.db) {
            self.db = Some(head.db);
            let db = head.db.to_string();
            command(&mut self.out, &[b"SELECT", db.as_bytes()])?;
        }
        let logical = head.value_type.logical();
        let mut held = head.meta.to_vec();
        held.push(head.value_type.code());
        let current = Current {
            name: key.into_owned(),
            value_type: head.value_type,
            expire_at_ms: head.expire_at_ms,
            before: held.len(),
            held,
        };
        // SET and RESTORE replace by themselves.
        if !matches!(logical, LogicalType::String | LogicalType::Module) {
            command(&mut self.out, &[b"DEL", &current.name])?;
        }
        if !current.is_held() {
            self.decoder.start(head.value_type);
            self.writer.start(logical, &current.name, None, &[]);
        }
        self.current = Some(current);
        Ok(())
    }

    fn fragment(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        if current.is_held() {
            current.held.extend_from_slice(bytes);
            return Ok(());
        }
        let (writer, out) = (&mut self.writer, &mut self.out);
        let pushed = self.decoder.push(bytes, &mut |element| {
            writer.element(element, &mut |words| command(out, words))
        });
        pushed.map_err(|error| told(current, self.db, error))
    }

    fn end(&mut self) -> Result<(), Failure> {
        let Some(current) = self.current.take() else {
            return Ok(());
        };
        let db = self.db;
        match current.value_type.logical() {
            LogicalType::Module => self.module(&current)?,
            LogicalType::Stream => self.stream(&current)?,
            _ => {
                let finished = self.decoder.finish();
                finished.map_err(|error| told(&current, db, ValueError::Damaged(error)))?;
                self.settle()?;
            }
        }
        if let Some(at) = current.expire_at_ms {
            let at = at.to_string();
            command(&mut self.out, &[b"PEXPIREAT", &current.name, at.as_bytes()])?;
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), Failure> {
        let out = &mut self.out;
        let made = self.writer.finish(&mut |words| command(out, words))?;
        self.lost += made.lost.too_large + made.lost.field_expiries + made.lost.unowned;
        Ok(())
    }

    fn stream(&mut self, current: &Current) -> Result<(), Failure> {
        let value = &current.held[current.before..];
        let mut ghosts = Ghosts::new();
        let looked = decode(current.value_type, value, &mut |element: Element<'_>| {
            ghosts.element(element);
            Ok::<(), target::Error>(())
        });
        looked.map_err(|error| told(current, self.db, error))?;
        let (ghosts, lost) = ghosts.finish();
        self.lost += lost;
        self.writer
            .start(LogicalType::Stream, &current.name, None, &ghosts);
        let (writer, out) = (&mut self.writer, &mut self.out);
        let made = decode(current.value_type, value, &mut |element: Element<'_>| {
            writer.element(element, &mut |words| command(out, words))
        });
        made.map_err(|error| told(current, self.db, error))?;
        self.settle()
    }

    fn module(&mut self, current: &Current) -> Result<(), Failure> {
        let FileVersion { family, number } = self.version;
        let known = payload::footer_version_for(current.value_type, family, number);
        let version = match current.before {
            1 => known.unwrap_or(number),
            _ => number,
        };
        let footer = payload::footer(&current.held, version);
        let payload = [&current.held[..], &footer].concat();
        let words: [&[u8]; 5] = [b"RESTORE", &current.name, b"0", &payload, b"REPLACE"];
        Ok(command(&mut self.out, &words)?)
    }
}

#[cold]
fn told(current: &Current, db: Option<DbIndex>, error: ValueError<target::Error>) -> Failure {
    match error {
        ValueError::Sink(error) => error.into(),
        ValueError::Damaged(error) => damaged(current, db, error),
    }
}

fn damaged(current: &Current, db: Option<DbIndex>, error: DecodeError) -> Failure {
    damaged_value(db.unwrap_or_default(), &current.name, &error)
}

impl<S: Sink> Handler for Resp<S> {
    type Error = Failure;

    fn event(&mut self, event: Event<'_>) -> Result<(), Failure> {
        match event {
            Event::Header { version, .. } => {
                self.version = version;
                self.writer = Writer::new(Dialect::of_rdb(version));
            }
            Event::Function { code, .. } if self.chosen.filters.is_all() => {
                let code = code.decode().map_err(target::Error::KeyName)?;
                command(&mut self.out, &[b"FUNCTION", b"LOAD", b"REPLACE", &code])?;
            }
            Event::Key(head) => self.begin(&head)?,
            Event::Value(bytes) => self.fragment(bytes)?,
            Event::ValueEnd => self.end()?,
            Event::Opaque { offset, what } => {
                return Err(target::Error::Opaque { offset, what }.into());
            }
            _ => {}
        }
        Ok(())
    }
}
