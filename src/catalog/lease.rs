//! The lease of prune: one process at a time removes backups of a database from a storage, whichever host it
//! is on.
//!
//! ```text
//! <database>/prune-lease/0000000001      { token, host, pid }
//! ```
//!
//! A store can create an object that is not there, and nothing else, in one step. So the lease is a row of
//! generations: the highest holds it; renewing it and taking over a stale one are both the making of the next
//! generation, which only one contender can do. Its age is measured by the store's own clock. The trap is the
//! holder that was paused and wakes up: it must look again before each thing that it removes ([`Lease::look`]),
//! and it finds another generation, another token in its own, or its time over.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Error;
use crate::storage::{self, NamedStore, ObjectKey, Problem, get};

/// The folder of the lease, beside a database's backups.
pub const FOLDER: &str = "prune-lease";

/// A lease that was not renewed for so long is nobody's any more.
pub const STALE_AFTER: Duration = Duration::from_secs(10 * 60);

/// How many digits a generation's name has.
const DIGITS: usize = 10;

/// The largest lease that is read.
const LIMIT_BYTES: usize = 4096;

/// Who holds it, as it stands in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    /// Random: what tells the holder from one that came after it.
    token: String,
    host: String,
    pid: u32,
}

/// A generation as a listing shows it.
#[derive(Clone, Copy, Debug)]
struct Generation {
    number: u64,
    modified: Timestamp,
}

/// Held while backups of a database are removed from a storage. It is given back by [`Lease::release`]; one that is
/// only dropped stands until it is stale.
#[derive(Debug)]
pub struct Lease {
    storage: NamedStore,
    database: String,
    holder: Holder,
    generation: u64,
}

impl Lease {
    /// Takes the lease, a stale one over if need be.
    ///
    /// # Errors
    /// [`Error::Leased`] while another process holds it, or was faster.
    pub async fn take(storage: &NamedStore, database: &str, host: &str) -> Result<Lease, Error> {
        let mut random = [0u8; 16];
        getrandom::fill(&mut random).map_err(|error| Error::File {
            action: "find a random token".to_owned(),
            source: std::io::Error::other(error),
        })?;
        let mut lease = Lease {
            storage: storage.clone(),
            database: database.to_owned(),
            holder: Holder {
                token: random.iter().map(|byte| format!("{byte:02x}")).collect(),
                host: host.to_owned(),
                pid: std::process::id(),
            },
            generation: 1,
        };
        if let Some(highest) = lease.generations().await?.pop() {
            if !lease.is_stale(highest).await? {
                return Err(lease.held_by_another(highest.number).await);
            }
            lease.generation = highest.number + 1;
        }
        lease.claim().await
    }

    /// Makes its generation, unless somebody was faster.
    async fn claim(self) -> Result<Lease, Error> {
        if !self.put(self.generation).await? {
            return Err(self.held_by_another(self.generation).await);
        }
        // Between the look and the put the row may have moved on, and been swept behind us.
        match self.generations().await?.pop() {
            Some(highest) if highest.number == self.generation => Ok(self),
            highest => {
                self.delete(self.generation).await?;
                let number = highest.map_or(self.generation, |highest| highest.number);
                Err(self.held_by_another(number).await)
            }
        }
    }

    /// Makes sure that the lease is still ours, and renews it when a third of its time is over. To be called
    /// before each thing that is removed.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] when it is not ours any more: nothing may be removed then.
    pub async fn look(&mut self) -> Result<(), Error> {
        let highest = self.mine().await?.ok_or_else(|| self.lost())?;
        let age = self.age(highest).await?;
        if age >= STALE_AFTER {
            return Err(self.lost());
        }
        if age >= STALE_AFTER / 3 {
            if !self.put(self.generation + 1).await? {
                return Err(self.lost());
            }
            let old = self.generation;
            self.generation += 1;
            self.delete(old).await?;
        }
        Ok(())
    }

    /// Gives it back, and removes what earlier holders left. Where it is not ours any more nothing is touched.
    pub async fn release(self) -> Result<(), Error> {
        if self.mine().await?.is_none() {
            return Ok(());
        }
        // Ours goes last, so that nobody comes in between.
        for generation in self.generations().await? {
            if generation.number < self.generation {
                self.delete(generation.number).await?;
            }
        }
        Ok(self.delete(self.generation).await?)
    }

    /// The highest generation, if it is ours by number and token.
    async fn mine(&self) -> Result<Option<Generation>, Error> {
        let highest = self.generations().await?.pop();
        let Some(highest) = highest.filter(|highest| highest.number == self.generation) else {
            return Ok(None);
        };
        let holder = self.holder_of(highest.number).await?;
        let ours = holder.is_some_and(|holder| holder.token == self.holder.token);
        Ok(ours.then_some(highest))
    }

    /// The generations there are, the highest last.
    async fn generations(&self) -> Result<Vec<Generation>, storage::Error> {
        let prefix = format!("{}/{FOLDER}", self.database);
        let objects = self.storage.store.list(&prefix).await?;
        let generation = |object: &storage::ObjectMeta| {
            let name = object
                .key
                .as_str()
                .strip_prefix(&prefix)?
                .strip_prefix('/')?;
            let digits = name.len() == DIGITS && name.bytes().all(|byte| byte.is_ascii_digit());
            Some(Generation {
                number: name.parse().ok().filter(|_| digits)?,
                modified: object.modified,
            })
        };
        let mut all: Vec<Generation> = objects.iter().filter_map(generation).collect();
        all.sort_by_key(|generation| generation.number);
        Ok(all)
    }

    async fn is_stale(&self, generation: Generation) -> Result<bool, storage::Error> {
        Ok(self.age(generation).await? >= STALE_AFTER)
    }

    /// How old it is. One from the future is as old as it is ahead: a clock was put back, and nobody may wait for
    /// it to come there again.
    async fn age(&self, generation: Generation) -> Result<Duration, storage::Error> {
        let now = self.storage.store.clock().await?;
        let age: SignedDuration = now.duration_since(generation.modified);
        Ok(age.unsigned_abs())
    }

    fn key(&self, generation: u64) -> Result<ObjectKey, storage::Error> {
        ObjectKey::new([&self.database, FOLDER, &format!("{generation:0DIGITS$}")])
    }

    /// Makes a generation; false when it is there already.
    async fn put(&self, generation: u64) -> Result<bool, Error> {
        let content = serde_json::to_vec(&self.holder).map_err(|error| Error::File {
            action: "write a lease".to_owned(),
            source: error.into(),
        })?;
        let key = self.key(generation)?;
        match self.storage.store.put_new(&key, content.into()).await {
            Ok(()) => Ok(true),
            Err(error) if error.problem == Problem::Exists => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn delete(&self, generation: u64) -> Result<(), storage::Error> {
        self.storage.store.delete(&self.key(generation)?).await
    }

    /// Who made a generation; `None` when it is gone, or says nothing.
    async fn holder_of(&self, generation: u64) -> Result<Option<Holder>, storage::Error> {
        let key = self.key(generation)?;
        match get(self.storage.store.as_ref(), &key, LIMIT_BYTES).await {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.problem == Problem::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn held_by_another(&self, generation: u64) -> Error {
        let holder = self.holder_of(generation).await.ok().flatten();
        Error::Leased {
            database: self.database.clone(),
            storage: self.storage.name.clone(),
            holder: holder.map_or_else(
                || "another process".to_owned(),
                |holder| format!("process {} on host {}", holder.pid, holder.host),
            ),
        }
    }

    fn lost(&self) -> Error {
        Error::LeaseLost {
            database: self.database.clone(),
            storage: self.storage.name.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
