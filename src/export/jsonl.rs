//! JSON lines: `{"db":0,"key":"k","type":"hash","expire_at_ms":…,"value":…}`, a line for each key.
//!
//! Each element is written as it comes, so a hash of any size takes the memory of one field. Bytes are written as
//! [`lossless`](crate::lossless) says. What belongs to no key (function libraries, modules' own data) has no line.

use crate::failure::Failure;
use crate::lossless;
use crate::rdb::crc64::Crc64;
use crate::rdb::value::{DecodeError, Decoder, Element, Pending, StreamId, ValueError};
use crate::rdb::{DbIndex, Event, Family, FileVersion, Handler, KeyHead, LogicalType, payload};
use crate::reading::damaged_value;
use crate::selection::Filters;
use crate::target;
use crate::target::file::Sink;
use crate::target::out::Blocks;

use super::json::{Base64, id, score, signed, string, unsigned};
use super::{Chosen, Exported};

/// A string longer than this is written in pieces.
const PIECE: usize = 128 << 10;

/// Writes the lines.
#[derive(Debug)]
pub struct Jsonl<S> {
    block: Blocks<S>,
    chosen: Chosen,
    version: FileVersion,
    decoder: Decoder,
    /// The beginning of a line, for the current database.
    begin: Vec<u8>,
    db: Option<DbIndex>,
    value: Option<ValueWriter>,
    /// Of the key whose value is being written, for an error.
    key: Vec<u8>,
}

impl<S: Sink> Blocks<S> {
    /// A string with its quotes; a long one goes out in pieces.
    #[inline]
    fn string(&mut self, bytes: &[u8]) -> Result<(), target::Error> {
        if bytes.len() <= PIECE {
            string(bytes, &mut self.bytes);
            return Ok(());
        }
        self.bytes.push(b'"');
        let mut rest = bytes;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(lossless::boundary(rest, PIECE));
            lossless::json(piece, &mut self.bytes);
            rest = after;
            self.flush_full()?;
        }
        self.bytes.push(b'"');
        Ok(())
    }

    fn number(&mut self, before: &str, number: u64) {
        self.text(before);
        unsigned(number, &mut self.bytes);
    }

    fn time(&mut self, before: &str, ms: i64) {
        self.text(before);
        signed(ms, &mut self.bytes);
    }

    fn id(&mut self, before: &str, of: StreamId) {
        self.text(before);
        id(of, &mut self.bytes);
    }
}

impl<S: Sink> Jsonl<S> {
    /// Writes the keys that the filters take into `to`.
    pub fn new(to: S, filters: Filters) -> Jsonl<S> {
        Jsonl {
            block: Blocks::new(to),
            chosen: Chosen::new(filters),
            version: FileVersion {
                family: Family::Redis,
                number: 0,
            },
            decoder: Decoder::new(),
            begin: Vec::new(),
            db: None,
            value: None,
            key: Vec::new(),
        }
    }

    /// Ends it. To be called when all of the backup has been read and found whole.
    ///
    /// # Errors
    /// The rest can't be written.
    pub fn finish(self) -> Result<Exported, target::Error> {
        Ok(self.chosen.exported(self.block.finish()?))
    }

    fn begin(&mut self, head: &KeyHead<'_>) -> Result<(), target::Error> {
        let Some(key) = self.chosen.name(head)? else {
            return Ok(());
        };
        if self.db != Some(head.db) {
            self.db = Some(head.db);
            self.begin.clear();
            self.begin.extend_from_slice(b"{\"db\":");
            unsigned(u64::from(head.db.0), &mut self.begin);
            self.begin.extend_from_slice(b",\"key\":");
        }
        self.block.bytes.extend_from_slice(&self.begin);
        self.block.string(&key)?;
        // Whoever is told of a damaged value must be told in which key.
        self.key.clear();
        self.key.extend_from_slice(&key);
        let logical = head.value_type.logical();
        self.block.text(match logical {
            LogicalType::String => ",\"type\":\"string\"",
            LogicalType::List => ",\"type\":\"list\"",
            LogicalType::Set => ",\"type\":\"set\"",
            LogicalType::Zset => ",\"type\":\"zset\"",
            LogicalType::Hash => ",\"type\":\"hash\"",
            LogicalType::Stream => ",\"type\":\"stream\"",
            LogicalType::Module => ",\"type\":\"module\"",
        });
        if let Some(at) = head.expire_at_ms {
            self.block.time(",\"expire_at_ms\":", at);
        }
        self.block.text(",\"value\":");
        self.decoder.start(head.value_type);
        self.value = Some(ValueWriter::begin(head, self.version, &mut self.block));
        Ok(())
    }

    #[cold]
    fn damaged(&self, error: DecodeError) -> Failure {
        damaged_value(self.db.unwrap_or_default(), &self.key, &error)
    }

    fn fragment(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let Some(value) = &mut self.value else {
            return Ok(());
        };
        let block = &mut self.block;
        let pushed = self
            .decoder
            .push(bytes, &mut |element| value.element(element, block));
        match pushed {
            Ok(()) => {}
            Err(ValueError::Sink(error)) => return Err(error.into()),
            Err(ValueError::Damaged(error)) => return Err(self.damaged(error)),
        }
        if let ValueWriter::Module(module) = value {
            module.fragment(bytes, block)?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Failure> {
        let Some(value) = self.value.take() else {
            return Ok(());
        };
        if let Err(error) = self.decoder.finish() {
            return Err(self.damaged(error));
        }
        value.end(&mut self.block);
        self.block.text("}\n");
        self.block.flush_full()?;
        Ok(())
    }
}

impl<S: Sink> Handler for Jsonl<S> {
    type Error = Failure;

    #[inline]
    fn event(&mut self, event: Event<'_>) -> Result<(), Failure> {
        match event {
            Event::Header { version, .. } => self.version = version,
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

/// Where in a value the writer is.
#[derive(Debug)]
enum ValueWriter {
    String,
    /// Items or members between brackets or braces; whether there was none yet, and what ends them.
    Many {
        first: bool,
        end: &'static str,
    },
    Stream {
        first: bool,
        place: InStream,
    },
    Module(Box<ModuleWriter>),
}

/// Where in a stream: which lists are open, the innermost last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InStream {
    Entries,
    Groups,
    Consumers,
    Pending,
    Unowned,
}

impl ValueWriter {
    fn begin<S: Sink>(
        head: &KeyHead<'_>,
        version: FileVersion,
        block: &mut Blocks<S>,
    ) -> ValueWriter {
        let (begin, writer) = match head.value_type.logical() {
            LogicalType::String => return ValueWriter::String,
            LogicalType::Module => {
                return ValueWriter::Module(Box::new(ModuleWriter::new(head, version)));
            }
            LogicalType::List | LogicalType::Set | LogicalType::Zset => {
                let (first, end) = (true, "]");
                ("[", ValueWriter::Many { first, end })
            }
            LogicalType::Hash => {
                let (first, end) = (true, "}");
                ("{", ValueWriter::Many { first, end })
            }
            LogicalType::Stream => {
                let (first, place) = (true, InStream::Entries);
                ("{\"entries\":[", ValueWriter::Stream { first, place })
            }
        };
        block.text(begin);
        writer
    }

    #[inline]
    fn element<S: Sink>(
        &mut self,
        element: Element<'_>,
        block: &mut Blocks<S>,
    ) -> Result<(), target::Error> {
        match self {
            ValueWriter::String => {
                if let Element::String(bytes) = element {
                    block.string(bytes)?;
                }
                return Ok(());
            }
            ValueWriter::Many { first, .. } => {
                if !std::mem::take(first) {
                    block.bytes.push(b',');
                }
                match element {
                    Element::Item(bytes) => block.string(bytes)?,
                    Element::Scored {
                        member,
                        score: number,
                    } => {
                        block.text("{\"member\":");
                        block.string(member)?;
                        block.text(",\"score\":");
                        score(number, &mut block.bytes);
                        block.bytes.push(b'}');
                    }
                    Element::Field {
                        field,
                        value,
                        expire_at_ms,
                    } => {
                        block.string(field)?;
                        match expire_at_ms {
                            None => {
                                block.bytes.push(b':');
                                block.string(value)?;
                            }
                            Some(at) => {
                                block.text(":{\"value\":");
                                block.string(value)?;
                                block.time(",\"expire_at_ms\":", at);
                                block.bytes.push(b'}');
                            }
                        }
                    }
                    _ => {}
                }
            }
            ValueWriter::Stream { first, place } => in_stream(first, place, element, block)?,
            ValueWriter::Module(module) => {
                if let Element::Module(id) = element {
                    block.text("{\"module\":");
                    block.string(id.name().as_bytes())?;
                    block.text(",\"payload_b64\":\"");
                    module.begun = true;
                }
            }
        }
        block.flush_full()
    }

    fn end<S: Sink>(self, block: &mut Blocks<S>) {
        match self {
            ValueWriter::String => {}
            ValueWriter::Many { end, .. } => block.text(end),
            ValueWriter::Stream { .. } => block.text("]}"),
            ValueWriter::Module(module) => module.end(block),
        }
    }
}

fn in_stream<S: Sink>(
    first: &mut bool,
    place: &mut InStream,
    element: Element<'_>,
    block: &mut Blocks<S>,
) -> Result<(), target::Error> {
    let comma = |first: &mut bool, block: &mut Blocks<S>| {
        if !std::mem::take(first) {
            block.bytes.push(b',');
        }
    };
    match element {
        Element::Entry(entry) => {
            comma(first, block);
            block.id("{\"id\":", entry.id);
            block.text(",\"fields\":[");
            for (at, (field, value)) in entry.fields.iter().enumerate() {
                block.text(if at == 0 { "[" } else { ",[" });
                block.string(field)?;
                block.bytes.push(b',');
                block.string(value)?;
                block.bytes.push(b']');
                block.flush_full()?;
            }
            block.text("]}");
        }
        Element::Stream(facts) => {
            block.number("],\"length\":", facts.length);
            block.id(",\"last_id\":", facts.last_id);
            if let Some(since) = facts.since_7 {
                block.id(",\"first_id\":", since.first_id);
                block.id(",\"max_deleted_id\":", since.max_deleted_id);
                block.number(",\"entries_added\":", since.entries_added);
            }
            block.text(",\"groups\":[");
            (*first, *place) = (true, InStream::Groups);
        }
        Element::Group(group) => {
            comma(first, block);
            block.text("{\"name\":");
            block.string(group.name)?;
            block.id(",\"last_id\":", group.last_id);
            if let Some(read) = group.entries_read {
                block.number(",\"entries_read\":", read);
            }
            block.text(",\"consumers\":[");
            (*first, *place) = (true, InStream::Consumers);
        }
        Element::Consumer(consumer) => {
            if *place == InStream::Pending {
                block.text("]}");
                *first = false;
            }
            comma(first, block);
            block.text("{\"name\":");
            block.string(consumer.name)?;
            block.time(",\"seen_ms\":", consumer.seen_ms);
            if let Some(at) = consumer.active_ms {
                block.time(",\"active_ms\":", at);
            }
            block.text(",\"pending\":[");
            (*first, *place) = (true, InStream::Pending);
        }
        Element::Owned(entry) => {
            comma(first, block);
            pending(entry, block);
        }
        Element::Unowned(entry) => {
            if *place != InStream::Unowned {
                block.text(match place {
                    InStream::Pending => "]}],\"unowned\":[",
                    _ => "],\"unowned\":[",
                });
                (*first, *place) = (true, InStream::Unowned);
            }
            comma(first, block);
            pending(entry, block);
        }
        Element::GroupEnd => {
            block.text(match place {
                InStream::Pending => "]}]}",
                _ => "]}",
            });
            (*first, *place) = (false, InStream::Groups);
        }
        _ => {}
    }
    Ok(())
}

fn pending<S: Sink>(entry: Pending, block: &mut Blocks<S>) {
    block.id("{\"id\":", entry.id);
    block.time(",\"delivered_ms\":", entry.delivered_ms);
    block.number(",\"deliveries\":", entry.deliveries);
    block.bytes.push(b'}');
}

/// A module's value as the payload that DUMP would give, made as it comes.
#[derive(Debug)]
struct ModuleWriter {
    /// Metadata, type and what came before the module's name was known.
    held: Vec<u8>,
    /// Whether the name is written.
    begun: bool,
    base64: Base64,
    crc: Crc64,
    rdb_version: u16,
}

impl ModuleWriter {
    fn new(head: &KeyHead<'_>, version: FileVersion) -> ModuleWriter {
        let known = payload::footer_version_for(head.value_type, version.family, version.number);
        let mut held = head.meta.to_vec();
        held.push(head.value_type.code());
        ModuleWriter {
            rdb_version: match head.meta {
                [] => known.unwrap_or(version.number),
                _ => version.number,
            },
            held,
            begun: false,
            base64: Base64::default(),
            crc: Crc64::new(),
        }
    }

    fn fragment<S: Sink>(
        &mut self,
        bytes: &[u8],
        block: &mut Blocks<S>,
    ) -> Result<(), target::Error> {
        if !self.begun {
            // A few bytes: the module's ID is not complete.
            self.held.extend_from_slice(bytes);
            return Ok(());
        }
        let held = std::mem::take(&mut self.held);
        self.push(&held, block);
        for piece in bytes.chunks(PIECE) {
            self.push(piece, block);
            block.flush_full()?;
        }
        Ok(())
    }

    fn push<S>(&mut self, bytes: &[u8], block: &mut Blocks<S>) {
        self.crc.update(bytes);
        self.base64.push(bytes, &mut block.bytes);
    }

    fn end<S: Sink>(mut self, block: &mut Blocks<S>) {
        let held = std::mem::take(&mut self.held);
        self.push(&held, block);
        self.push(&self.rdb_version.to_le_bytes().clone(), block);
        let sum = self.crc.value().to_le_bytes();
        self.base64.push(&sum, &mut block.bytes);
        self.base64.finish(&mut block.bytes);
        block.text("\"}");
    }
}
