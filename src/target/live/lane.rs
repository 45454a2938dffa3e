//! The way from a reading thread to the pump, with room for what is large.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::super::Error;
use super::super::batch::{Asked, Batch, Builder, LARGE};

/// Room for payloads that travel beside their batches, in KiB.
const ROOM_KIB: u32 = 32 << 10;

/// Where batches go.
pub(super) struct Outlet {
    batches: mpsc::Sender<Batch>,
    room: Arc<Semaphore>,
    /// The reading thread need not be one of the runtime's.
    runtime: Handle,
}

impl Outlet {
    /// To be called within the runtime.
    pub(super) fn new(batches: mpsc::Sender<Batch>) -> Outlet {
        Outlet {
            batches,
            room: Arc::new(Semaphore::new(ROOM_KIB as usize)),
            runtime: Handle::current(),
        }
    }
}

/// The way from a reading thread to the pump.
pub(super) struct Lane {
    pub(super) builder: Builder,
    outlet: Option<Outlet>,
}

impl Lane {
    pub(super) fn new(outlet: Outlet, max_commands: usize) -> Lane {
        Lane {
            builder: Builder::new(max_commands),
            outlet: Some(outlet),
        }
    }

    /// Whether somebody still takes batches.
    pub(super) fn check(&self) -> Result<(), Error> {
        match &self.outlet {
            Some(outlet) if !outlet.batches.is_closed() => Ok(()),
            _ => Err(Error::Stopped),
        }
    }

    pub(super) fn send(&self, batch: Batch) -> Result<(), Error> {
        match &self.outlet {
            Some(outlet) => outlet
                .batches
                .blocking_send(batch)
                .map_err(|_| Error::Stopped),
            None => Err(Error::Stopped),
        }
    }

    /// Waits until there is room for so many bytes. When the pump ends, what it had not sent gives its room back.
    pub(super) fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Error> {
        let outlet = self.outlet.as_ref().ok_or(Error::Stopped)?;
        let kib = u32::try_from(bytes >> 10).unwrap_or(ROOM_KIB).min(ROOM_KIB);
        let wait = Arc::clone(&outlet.room).acquire_many_owned(kib);
        outlet.runtime.block_on(wait).map_err(|_| Error::Stopped)
    }

    pub(super) fn send_full(&mut self) -> Result<(), Error> {
        match self.builder.full() {
            Some(batch) => self.send(batch),
            None => Ok(()),
        }
    }

    /// Any command; see [`Builder::command`].
    pub(super) fn command(&mut self, db: u32, words: &[&[u8]], asked: Asked) -> Result<(), Error> {
        let large: usize = words
            .iter()
            .map(|word| word.len())
            .filter(|bytes| *bytes >= LARGE)
            .sum();
        if large == 0 {
            // None is large, so none travels beside.
            self.builder.command(db, words, asked);
            return self.send_full();
        }
        // What waits in the batch is sent, so that the room can come free.
        self.end()?;
        let room = self.room(large)?;
        match self.builder.command(db, words, asked) {
            Some(mut batch) => {
                batch.room = Some(room);
                self.send(batch)
            }
            None => self.send_full(),
        }
    }

    /// Sends what has been gathered.
    pub(super) fn end(&mut self) -> Result<(), Error> {
        match self.builder.rest() {
            Some(batch) => self.send(batch),
            None => Ok(()),
        }
    }

    /// Tells the pump that nothing more comes.
    pub(super) fn close(&mut self) {
        self.outlet = None;
    }
}
