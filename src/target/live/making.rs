//! Keys that are written by several commands: under which temporary name each is made, whether all of it went well, and
//! what must be removed when it did not.
//!
//! The reading thread begins keys and gives them their names, the judge of the answers notes what went wrong with each;
//! this is what the two share. A key gets its name only when everything before was answered well.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The time that a temporary key has to live, in milliseconds, whatever happens to us.
pub(super) const GUARD_MS: &[u8] = b"3600000";

/// After so long its time is renewed.
pub(super) const RENEW: Duration = Duration::from_secs(600);

/// So many temporary keys are remembered for removal; beyond them their expiry must do.
const MOST: usize = 10_000;

/// A key on its way.
#[derive(Clone, Debug)]
pub(super) struct Half {
    pub(super) db: u32,
    /// What it is called for now.
    pub(super) temporary: Vec<u8>,
    /// What it is going to be called.
    pub(super) name: Vec<u8>,
    /// Something went wrong, and has been counted.
    pub(super) broken: bool,
}

/// What is shared.
#[derive(Debug)]
pub(super) struct Making {
    run: String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    begun: u64,
    halves: BTreeMap<u64, Half>,
    /// Every key up to this one is answered, but for its name.
    ready: u64,
}

/// How a key stands whose commands were all answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not all are answered yet.
    Waiting,
    /// All went well.
    Good,
    /// Something was refused.
    Broken,
}

impl Making {
    /// `run` tells the temporary keys of this run from any others.
    pub(super) fn new(run: u64) -> Making {
        Making {
            run: format!("{run:016x}"),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // What is in it is whole after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a key: its number, and its temporary name, which is put into `temporary`.
    pub(super) fn begin(&self, db: u32, name: &[u8], temporary: &mut Vec<u8>) -> u64 {
        let mut state = self.state();
        state.begun += 1;
        let number = state.begun;
        temporary.clear();
        temporary
            .extend_from_slice(format!("rdbkeeper:restoring:{}:{number}", self.run).as_bytes());
        state.halves.insert(
            number,
            Half {
                db,
                temporary: temporary.clone(),
                name: name.to_vec(),
                broken: false,
            },
        );
        if state.halves.len() > MOST {
            state.halves.pop_first();
        }
        number
    }

    /// The key, if it is still on its way.
    pub(super) fn half(&self, number: u64) -> Option<Half> {
        self.state().halves.get(&number).cloned()
    }

    /// Something went wrong with it. Answers whether that is news.
    pub(super) fn broke(&self, number: u64) -> bool {
        match self.state().halves.get_mut(&number) {
            Some(half) => !std::mem::replace(&mut half.broken, true),
            None => false,
        }
    }

    /// Nothing of it is left under its temporary name.
    pub(super) fn ended(&self, number: u64) {
        self.state().halves.remove(&number);
    }

    /// All of its commands are answered.
    pub(super) fn answered(&self, number: u64) {
        self.state().ready = number;
        self.changed.notify_all();
    }

    /// How it stands.
    pub(super) fn standing(&self, number: u64) -> Standing {
        let state = self.state();
        if state.ready < number {
            return Standing::Waiting;
        }
        match state.halves.get(&number) {
            Some(half) if !half.broken => Standing::Good,
            _ => Standing::Broken,
        }
    }

    /// Waits a little for the answers to a key.
    pub(super) fn wait(&self, number: u64) {
        let state = self.state();
        if state.ready < number {
            let waited = self.changed.wait_timeout(state, Duration::from_millis(50));
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// What may still be there under a temporary name: database and name.
    pub(super) fn left(&self) -> Vec<(u32, Vec<u8>)> {
        let state = self.state();
        let left = state.halves.values();
        left.map(|half| (half.db, half.temporary.clone())).collect()
    }
}
