//! Keys made by plain commands: under a temporary name that expires by itself, and renamed when all of it is there.
//!
//! A reader of the key sees it whole or not at all. Other keys follow at once: a key gets its name as soon as the answers
//! to its own commands have come, and nobody waits for them unless many keys do.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::super::batch::Asked;
use super::super::commands::{Dialect, Lost, Made, Writer};
use super::super::{Clock, Error};
use super::OnConflict;
use super::lane::Lane;
use super::making::{GUARD_MS, Making, RENEW, Standing};
use crate::rdb::value::{Decoder, Element, StreamId, ValueError};
use crate::rdb::{DbIndex, LogicalType, ValueType};
use crate::selection::{KeyNames, shown};

/// So many keys may wait for answers before they get their names.
const MOST_WAITING: usize = 256;

/// A key and what is not its value.
#[derive(Clone, Debug)]
pub(super) struct Whole<'a> {
    pub(super) db: DbIndex,
    pub(super) name: &'a [u8],
    pub(super) expire_at_ms: Option<i64>,
    pub(super) value_type: ValueType,
}

/// How far a key is on the server.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Nothing is there.
    Nothing,
    /// A transaction is open, with one command in it: it may be all.
    Open,
    /// It is there under its temporary name, which got its expiry then.
    Guarded(Instant),
    /// It is there, by one command.
    Set,
}

/// A key that is there under its temporary name and waits for the answers.
#[derive(Debug)]
struct Waiting {
    number: u64,
    db: u32,
    temporary: Vec<u8>,
    name: Vec<u8>,
    expire_at_ms: Option<i64>,
}

/// Makes keys by plain commands, one after the other.
pub(super) struct Maker {
    decoder: Decoder,
    writer: Writer,
    desk: Desk,
    names: KeyNames,
    waiting: VecDeque<Waiting>,
}

/// What concerns the key at hand.
struct Desk {
    making: Arc<Making>,
    dialect: Dialect,
    clock: Clock,
    on_conflict: OnConflict,
    phase: Phase,
    /// Its number, unless it is made by one command.
    number: Option<u64>,
    db: u32,
    temporary: Vec<u8>,
    name: Vec<u8>,
    expire_at_ms: Option<i64>,
}

impl Maker {
    pub(super) fn new(
        making: Arc<Making>,
        dialect: Dialect,
        clock: Clock,
        on_conflict: OnConflict,
        names: KeyNames,
    ) -> Maker {
        Maker {
            decoder: Decoder::new(),
            writer: Writer::new(dialect),
            desk: Desk {
                making,
                dialect,
                clock,
                on_conflict,
                phase: Phase::Nothing,
                number: None,
                db: 0,
                temporary: Vec::new(),
                name: Vec::new(),
                expire_at_ms: None,
            },
            names,
            waiting: VecDeque::new(),
        }
    }

    /// Begins a key. Not for a module's value.
    pub(super) fn begin(&mut self, key: &Whole<'_>, ghosts: &[StreamId]) {
        let desk = &mut self.desk;
        desk.phase = Phase::Nothing;
        desk.number = None;
        desk.db = key.db.0;
        desk.expire_at_ms = key.expire_at_ms;
        desk.name.clear();
        desk.name.extend_from_slice(key.name);
        self.decoder.start(key.value_type);
        let logical = key.value_type.logical();
        // Most strings are made by one command, under their own name.
        if logical != LogicalType::String {
            desk.begin(&mut self.writer, logical, ghosts);
        }
    }

    /// Takes the next fragment of its value.
    pub(super) fn push(&mut self, lane: &mut Lane, bytes: &[u8]) -> Result<(), Error> {
        let (writer, desk) = (&mut self.writer, &mut self.desk);
        let pushed = self
            .decoder
            .push(bytes, &mut |element| desk.element(writer, lane, element));
        match pushed {
            Ok(()) => Ok(()),
            Err(ValueError::Sink(error)) => Err(error),
            Err(ValueError::Damaged(source)) => Err(self.damaged(source)),
        }
    }

    /// Ends the key. It gets its name once all is answered well.
    pub(super) fn end(&mut self, lane: &mut Lane) -> Result<Made, Error> {
        self.decoder
            .finish()
            .map_err(|source| self.damaged(source))?;
        let desk = &mut self.desk;
        let made = match desk.phase {
            Phase::Set => Made {
                commands: 1,
                lost: Lost::default(),
            },
            _ => self.writer.finish(&mut |words| desk.step(lane, words))?,
        };
        match (desk.phase, desk.number) {
            (Phase::Open, Some(number)) => {
                if let Some(at) = desk.expire_at_ms {
                    let at = at.to_string();
                    desk.step_in(
                        lane,
                        &[b"PEXPIREAT", &desk.temporary, at.as_bytes()],
                        number,
                    )?;
                }
                desk.rename(lane, &desk.temporary, &desk.name, (desk.db, number))?;
            }
            (Phase::Guarded(_), Some(number)) => {
                let renewal: [&[u8]; 3] = [b"PEXPIRE", &desk.temporary, GUARD_MS];
                lane.command(desk.db, &renewal, Asked::Ready(number))?;
                self.waiting.push_back(Waiting {
                    number,
                    db: desk.db,
                    temporary: desk.temporary.clone(),
                    name: desk.name.clone(),
                    expire_at_ms: desk.expire_at_ms,
                });
            }
            // Nothing of it was left.
            (_, Some(number)) => desk.making.ended(number),
            (_, None) => {}
        }
        while self
            .waiting
            .front()
            .is_some_and(|first| self.desk.making.standing(first.number) != Standing::Waiting)
        {
            self.name_first(lane)?;
        }
        while self.waiting.len() > MOST_WAITING {
            self.await_first(lane)?;
        }
        Ok(made)
    }

    /// Gives all keys their names.
    pub(super) fn finish(&mut self, lane: &mut Lane) -> Result<(), Error> {
        while !self.waiting.is_empty() {
            self.await_first(lane)?;
        }
        Ok(())
    }

    fn await_first(&mut self, lane: &mut Lane) -> Result<(), Error> {
        let Some(number) = self.waiting.front().map(|first| first.number) else {
            return Ok(());
        };
        // What it waits for must have been sent.
        lane.end()?;
        while self.desk.making.standing(number) == Standing::Waiting {
            lane.check()?;
            self.desk.making.wait(number);
        }
        self.name_first(lane)
    }

    fn name_first(&mut self, lane: &mut Lane) -> Result<(), Error> {
        let Some(key) = self.waiting.pop_front() else {
            return Ok(());
        };
        let desk = &self.desk;
        let over = key.expire_at_ms.is_some_and(|at| at <= desk.clock.now_ms());
        if over || desk.making.standing(key.number) == Standing::Broken {
            return lane.command(
                key.db,
                &[desk.removal(), &key.temporary],
                Asked::Removed(key.number),
            );
        }
        let step = Asked::Step(key.number);
        lane.command(key.db, &[b"MULTI"], step)?;
        match key.expire_at_ms {
            Some(at) => {
                let at = at.to_string();
                lane.command(key.db, &[b"PEXPIREAT", &key.temporary, at.as_bytes()], step)?;
            }
            None => lane.command(key.db, &[b"PERSIST", &key.temporary], step)?,
        }
        desk.rename(lane, &key.temporary, &key.name, (key.db, key.number))
    }

    fn damaged(&self, source: crate::rdb::value::DecodeError) -> Error {
        Error::Value {
            key: shown(&self.desk.name, self.names),
            db: self.desk.db,
            source,
        }
    }
}

impl Desk {
    /// Begins what needs more than one command.
    fn begin(&mut self, writer: &mut Writer, logical: LogicalType, ghosts: &[StreamId]) {
        self.number = Some(self.making.begin(self.db, &self.name, &mut self.temporary));
        writer.start(logical, &self.temporary, Some(self.clock.now_ms()), ghosts);
    }

    fn element(
        &mut self,
        writer: &mut Writer,
        lane: &mut Lane,
        element: Element<'_>,
    ) -> Result<(), Error> {
        if let Element::String(value) = element {
            if value.len() as u64 <= self.dialect.max_bulk {
                return self.set(lane, value);
            }
            self.begin(writer, LogicalType::String, &[]);
        }
        writer.element(element, &mut |words| self.step(lane, words))
    }

    /// SET, with all that belongs to the key.
    fn set(&mut self, lane: &mut Lane, value: &[u8]) -> Result<(), Error> {
        self.phase = Phase::Set;
        let mut words: Vec<&[u8]> = vec![b"SET", &self.name, value];
        let time;
        if let Some(at) = self.expire_at_ms {
            if self.dialect.set_pxat {
                words.push(b"PXAT");
                time = at.to_string();
            } else {
                words.push(b"PX");
                time = at.saturating_sub(self.clock.now_ms()).max(1).to_string();
            }
            words.push(time.as_bytes());
        }
        if self.on_conflict != OnConflict::Replace {
            words.push(b"NX");
        }
        lane.command(self.db, &words, Asked::Set)
    }

    fn step(&mut self, lane: &mut Lane, words: &[&[u8]]) -> Result<(), Error> {
        let Some(number) = self.number else {
            return Ok(());
        };
        match self.phase {
            Phase::Nothing => {
                // What is made must not be there without an expiry, even if we are killed right then.
                self.step_in(lane, &[b"MULTI"], number)?;
                self.phase = Phase::Open;
            }
            Phase::Open => {
                self.step_in(lane, &[b"PEXPIRE", &self.temporary, GUARD_MS], number)?;
                self.step_in(lane, &[b"EXEC"], number)?;
                self.phase = Phase::Guarded(Instant::now());
            }
            Phase::Guarded(since) if since.elapsed() > RENEW => {
                self.step_in(lane, &[b"PEXPIRE", &self.temporary, GUARD_MS], number)?;
                self.phase = Phase::Guarded(Instant::now());
            }
            Phase::Guarded(_) | Phase::Set => {}
        }
        self.step_in(lane, words, number)
    }

    fn step_in(&self, lane: &mut Lane, words: &[&[u8]], number: u64) -> Result<(), Error> {
        lane.command(self.db, words, Asked::Step(number))
    }

    fn removal(&self) -> &'static [u8] {
        match self.dialect.unlink {
            true => b"UNLINK",
            false => b"DEL",
        }
    }

    /// Ends the transaction in which a key gets its name.
    fn rename(
        &self,
        lane: &mut Lane,
        temporary: &[u8],
        name: &[u8],
        (db, number): (u32, u64),
    ) -> Result<(), Error> {
        let step = Asked::Step(number);
        match self.on_conflict {
            OnConflict::Replace => lane.command(db, &[b"RENAME", temporary, name], step)?,
            OnConflict::Fail | OnConflict::Skip => {
                lane.command(db, &[b"RENAMENX", temporary, name], step)?;
                lane.command(db, &[self.removal(), temporary], step)?;
            }
        }
        lane.command(db, &[b"EXEC"], Asked::Named(number))
    }
}
