//! A backup's events become EXISTS commands, on the thread that reads it.

use std::collections::BTreeSet;

use super::super::{Clock, Error, Fate, Route};
use super::lane::{Lane, Outlet};
use crate::failure::Failure;
use crate::rdb::{DbIndex, Event, Handler};

/// A handler that sends what it makes of a backup.
pub(super) trait Feeder: Handler<Error = Failure> + Send + Sized + 'static {
    fn lane(&mut self) -> &mut Lane;

    /// Sends what is left when all of the backup has been read.
    fn finish(&mut self) -> Result<(), Error> {
        self.lane().end()
    }
}

/// Makes EXISTS commands of a backup's events.
pub struct KeyLooker {
    lane: Lane,
    route: Route,
    clock: Clock,
    databases: BTreeSet<DbIndex>,
    name: Vec<u8>,
}

impl KeyLooker {
    pub(super) fn new(
        outlet: Outlet,
        max_commands: usize,
        route: Route,
        clock: Clock,
        databases: BTreeSet<DbIndex>,
    ) -> KeyLooker {
        KeyLooker {
            lane: Lane::new(outlet, max_commands),
            route,
            clock,
            databases,
            name: Vec::new(),
        }
    }
}

impl Handler for KeyLooker {
    type Error = Failure;

    fn event(&mut self, event: Event<'_>) -> Result<(), Failure> {
        match event {
            Event::Key(head) if self.databases.contains(&self.route.database(head.db)) => {
                let key = head.key.decode().map_err(Error::KeyName)?;
                let now = Some(self.clock.now_ms());
                if let Fate::Written { db, .. } = self.route.fate(&head, &key, now)? {
                    self.route.name(&key, &mut self.name);
                    self.lane.builder.exists(db.0, &self.name);
                    self.lane.send_full()?;
                }
            }
            Event::Aux { key, value, .. } => self.route.learn(&key, &value),
            Event::Opaque { offset, what } => return Err(Error::Opaque { offset, what }.into()),
            _ => {}
        }
        Ok(())
    }
}

impl Feeder for KeyLooker {
    fn lane(&mut self) -> &mut Lane {
        &mut self.lane
    }
}
