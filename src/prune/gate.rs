//! Whether anything may be removed at all: shared by those who remove, and by whoever learns that they must not.
//!
//! A run goes by the policy that it was begun with. The trap is that hours may lie between its beginning and what
//! it removes: meanwhile a person may have raised the policy, or the clock may have leapt.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Open until somebody closes it. Clones are the same gate.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<AtomicU8>);

/// Why nothing may be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The policy is no longer the one that is configured.
    Outdated,
    /// The clock leapt.
    Clock,
}

const OUTDATED: u8 = 1;
const CLOCK: u8 = 2;

impl Gate {
    /// Closes it for good: there is another configuration, with a gate of its own.
    pub fn retire(&self) {
        self.0.fetch_or(OUTDATED, Ordering::SeqCst);
    }

    /// Closes it while the clock cannot be trusted.
    pub fn doubt_clock(&self, doubted: bool) {
        match doubted {
            true => self.0.fetch_or(CLOCK, Ordering::SeqCst),
            false => self.0.fetch_and(!CLOCK, Ordering::SeqCst),
        };
    }

    /// Why it is closed, if it is.
    pub fn closed(&self) -> Option<Closed> {
        match self.0.load(Ordering::SeqCst) {
            0 => None,
            bits if bits & CLOCK != 0 => Some(Closed::Clock),
            _ => Some(Closed::Outdated),
        }
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Closed::Outdated => "the configuration was read anew",
            Closed::Clock => "the clock leapt forward a short while ago",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_trusted_again_opens_it_and_an_outdated_policy_never_does() {
        let gate = Gate::default();
        let other = gate.clone();
        assert_eq!(gate.closed(), None);
        other.doubt_clock(true);
        assert_eq!(gate.closed(), Some(Closed::Clock));
        other.doubt_clock(false);
        assert_eq!(gate.closed(), None);
        other.doubt_clock(true);
        other.retire();
        other.doubt_clock(false);
        assert_eq!(gate.closed(), Some(Closed::Outdated));
    }
}
