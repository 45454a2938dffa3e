//! The server's answers, counted, and which of them ends a run.

use std::ops::ControlFlow;

use super::super::batch::Asked;
use super::super::pump::{End, Judge};
use super::super::{Error, TargetFacts};
use super::making::Making;
use super::{Conflicts, OnConflict, Settings, Written};
use crate::selection::shown;
use crate::server::{self, Code, Reply, ServerError};
use crate::units::HumanCount;

/// Counts the answers to EXISTS.
pub(super) struct Look<'a> {
    pub(super) found: Conflicts,
    pub(super) refused: Option<ServerError>,
    asked: u64,
    settings: &'a Settings,
}

impl<'a> Look<'a> {
    pub(super) fn new(settings: &'a Settings) -> Look<'a> {
        Look {
            found: Conflicts::default(),
            refused: None,
            asked: 0,
            settings,
        }
    }
}

impl Judge for Look<'_> {
    fn judge(&mut self, asked: Asked, db: u32, key: &[u8], reply: Reply) -> ControlFlow<()> {
        if let Some(error) = reply.as_error() {
            self.refused.get_or_insert(error);
            return ControlFlow::Break(());
        }
        if asked == Asked::Exists {
            self.asked += 1;
            if self.asked.is_multiple_of(1024) {
                (self.settings.progress)(self.asked);
            }
            if reply.as_int().is_some_and(|count| count > 0) {
                self.found.keys += 1;
                if self.found.samples.len() < 3 {
                    self.found
                        .samples
                        .push((db, shown(key, self.settings.names)));
                }
            }
        }
        ControlFlow::Continue(())
    }
}

/// Counts the answers to what makes keys, and decides which of them ends the run.
pub(super) struct Tally<'a> {
    facts: &'a TargetFacts,
    settings: &'a Settings,
    making: &'a Making,
    pub(super) written: Written,
    failed: u64,
    answered: u64,
    /// The first key that was refused alone.
    first: Option<(String, u32, ServerError)>,
    /// Why it does not go on.
    fatal: Option<Fatal>,
}

enum Fatal {
    Appeared(String, u32),
    Refused(ServerError),
}

impl<'a> Tally<'a> {
    pub(super) fn new(
        facts: &'a TargetFacts,
        settings: &'a Settings,
        making: &'a Making,
    ) -> Tally<'a> {
        Tally {
            facts,
            settings,
            making,
            written: Written::default(),
            failed: 0,
            answered: 0,
            first: None,
            fatal: None,
        }
    }

    /// What the run's end means, once everything in flight is answered.
    pub(super) fn conclude(&mut self, ended: Result<End, server::Error>) -> Result<(), Error> {
        let place = self.facts.place.clone();
        let written = self.written.keys;
        let rest = self
            .settings
            .keys
            .saturating_sub(written + self.written.skipped);
        let rest = HumanCount(rest).of("was not", "were not");
        if let Some(fatal) = self.fatal.take() {
            return Err(match fatal {
                Fatal::Appeared(key, db) => Error::Appeared {
                    place,
                    key,
                    db,
                    written,
                },
                Fatal::Refused(reply) => Error::Refused {
                    place,
                    written,
                    rest,
                    reply: Box::new(reply),
                },
            });
        }
        match ended {
            Err(source) if self.answered == 0 && !source.is_disconnect() => {
                Err(Error::target(&place, source))
            }
            Err(source) => Err(Error::Lost {
                place,
                written,
                source: Box::new(source),
            }),
            Ok(End::Cancelled) => Err(Error::Cancelled {
                place,
                written,
                rest,
            }),
            Ok(End::Done | End::Stopped) => match self.first.take() {
                None => Ok(()),
                Some((key, db, reply)) => Err(Error::Keys {
                    place,
                    failed: self.failed,
                    written,
                    key,
                    db,
                    reply: Box::new(reply),
                }),
            },
        }
    }

    fn refused(&mut self, db: u32, key: &[u8], reply: ServerError) -> ControlFlow<()> {
        let names = self.settings.names;
        match (&reply.code, self.settings.on_conflict) {
            (Code::BusyKey, OnConflict::Skip) => {
                self.written.skipped += 1;
                self.settings.skipped.add(db, key);
                return ControlFlow::Continue(());
            }
            (Code::BusyKey, OnConflict::Fail) => {
                self.fatal
                    .get_or_insert_with(|| Fatal::Appeared(shown(key, names), db));
            }
            // What is wrong with this key alone.
            (Code::Err | Code::Other(_) | Code::WrongType | Code::BusyKey, _) => {
                self.failed += 1;
                self.first
                    .get_or_insert_with(|| (shown(key, names), db, reply));
                return ControlFlow::Continue(());
            }
            _ => {
                self.fatal.get_or_insert(Fatal::Refused(reply));
            }
        }
        ControlFlow::Break(())
    }
}

impl Tally<'_> {
    /// One more key is dealt with.
    fn count(&mut self) {
        self.answered += 1;
        if self.answered.is_multiple_of(1024) {
            (self.settings.progress)(self.answered);
        }
    }

    /// One of the commands that make a key was answered.
    fn step(&mut self, number: u64, reply: &Reply) -> ControlFlow<()> {
        let refused = match reply {
            Reply::Array(Some(parts)) => parts.iter().find_map(Reply::as_error),
            reply => reply.as_error(),
        };
        match refused {
            None => ControlFlow::Continue(()),
            Some(refused) => self.broke(number, refused),
        }
    }

    /// A key went wrong; only the first that is said of it counts.
    fn broke(&mut self, number: u64, refused: ServerError) -> ControlFlow<()> {
        let Some(half) = self.making.half(number) else {
            return ControlFlow::Continue(());
        };
        if !self.making.broke(number) {
            return ControlFlow::Continue(());
        }
        self.refused(half.db, &half.name, refused)
    }

    /// A key got its name, or did not.
    fn named(&mut self, number: u64, reply: Reply) -> ControlFlow<()> {
        self.count();
        let parts = match reply {
            Reply::Array(Some(parts)) => parts,
            // `EXECABORT`: one of its commands was refused before.
            reply => {
                return match reply.as_error() {
                    Some(refused) => self.broke(number, refused),
                    None => self.broke(
                        number,
                        ServerError::parse(b"ERR the transaction was given up"),
                    ),
                };
            }
        };
        if let Some(refused) = parts.iter().find_map(Reply::as_error) {
            return self.broke(number, refused);
        }
        // RENAME is the last, RENAMENX the last but one: what it did not rename is removed.
        let renamed = match self.settings.on_conflict {
            OnConflict::Replace => true,
            OnConflict::Fail | OnConflict::Skip => {
                parts.iter().rev().nth(1).and_then(Reply::as_int) != Some(0)
            }
        };
        let flow = match renamed {
            true => {
                self.written.keys += 1;
                self.written.by_commands += 1;
                ControlFlow::Continue(())
            }
            false => self.broke(number, there_already()),
        };
        self.making.ended(number);
        flow
    }
}

fn there_already() -> ServerError {
    ServerError::parse(b"BUSYKEY Target key name already exists.")
}

impl Judge for Tally<'_> {
    fn judge(&mut self, asked: Asked, db: u32, key: &[u8], reply: Reply) -> ControlFlow<()> {
        match asked {
            // Without its database no key may follow.
            Asked::Select | Asked::Exists | Asked::Time | Asked::Expiry | Asked::Content => {
                match reply.as_error() {
                    Some(reply) => {
                        self.fatal.get_or_insert(Fatal::Refused(reply));
                        return ControlFlow::Break(());
                    }
                    None => return ControlFlow::Continue(()),
                }
            }
            Asked::Step(number) => return self.step(number, &reply),
            Asked::Ready(number) => {
                let flow = self.step(number, &reply);
                self.making.answered(number);
                return flow;
            }
            Asked::Removed(number) => {
                self.count();
                if reply.as_error().is_none() {
                    self.making.ended(number);
                }
                return ControlFlow::Continue(());
            }
            Asked::Named(number) => return self.named(number, reply),
            Asked::Restore | Asked::Recoded | Asked::Set => {}
        }
        self.count();
        let refused = match (asked, reply) {
            // SET … NX of a key that is there.
            (Asked::Set, Reply::Bulk(None)) => Some(there_already()),
            (_, reply) => reply.as_error(),
        };
        match refused {
            None => {
                self.written.keys += 1;
                self.written.recoded += u64::from(asked == Asked::Recoded);
                self.written.by_commands += u64::from(asked == Asked::Set);
                ControlFlow::Continue(())
            }
            Some(reply) => self.refused(db, key, reply),
        }
    }
}
