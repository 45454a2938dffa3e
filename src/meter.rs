//! How far a piece of work is: counters that the work moves and whoever shows progress looks at.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// The progress of one piece of work. Cloning it gives another handle to the same counters.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    bytes: AtomicU64,
    keys: AtomicU64,
    total_bytes: AtomicU64,
    total_keys: AtomicU64,
    phase: Mutex<&'static str>,
}

/// What a meter shows at one moment. A total of 0 is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Bytes done.
    pub bytes: u64,
    /// Keys done.
    pub keys: u64,
    /// Bytes in all, as far as known.
    pub total_bytes: u64,
    /// Keys in all, as far as known.
    pub total_keys: u64,
    /// What is done at present; empty where the work has one phase alone.
    pub phase: &'static str,
}

impl Meter {
    /// So many more bytes are done.
    pub fn add_bytes(&self, bytes: u64) {
        self.0.bytes.fetch_add(bytes, Relaxed);
    }

    /// So many more keys are done.
    pub fn add_keys(&self, keys: u64) {
        self.0.keys.fetch_add(keys, Relaxed);
    }

    /// Says how many bytes there are in all, and that none is done yet.
    pub fn start_bytes(&self, total: u64) {
        self.0.bytes.store(0, Relaxed);
        self.0.total_bytes.store(total, Relaxed);
    }

    /// Says how many keys there are in all, and that none is done yet.
    pub fn start_keys(&self, total: u64) {
        self.0.keys.store(0, Relaxed);
        self.0.total_keys.store(total, Relaxed);
    }

    /// Says what is done from now on. Where that is something else than before, the counters begin anew.
    pub fn start_phase(&self, phase: &'static str) {
        let mut current = self.0.phase.lock().unwrap_or_else(PoisonError::into_inner);
        if *current != phase {
            *current = phase;
            self.start_bytes(0);
            self.start_keys(0);
        }
    }

    /// What it shows now.
    pub fn read(&self) -> Reading {
        let phase = self.0.phase.lock().unwrap_or_else(PoisonError::into_inner);
        Reading {
            phase: *phase,
            bytes: self.0.bytes.load(Relaxed),
            keys: self.0.keys.load(Relaxed),
            total_bytes: self.0.total_bytes.load(Relaxed),
            total_keys: self.0.total_keys.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_phase_begins_at_nothing_and_the_same_one_goes_on() {
        let meter = Meter::default();
        meter.start_keys(10);
        meter.add_keys(3);
        meter.add_bytes(4);
        meter.start_phase("reading");
        let nothing = Reading {
            phase: "reading",
            ..Reading::default()
        };
        assert_eq!(meter.read(), nothing);
        meter.add_bytes(5);
        meter.start_phase("reading");
        assert_eq!(meter.read().bytes, 5);
    }
}
