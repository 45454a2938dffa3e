//! Threads that take turns, so that no more than a few of them are at work at once, however many there are.
//!
//! Each archive has threads of its own that compress. Databases that share a dump, and those that the daemon backs up at
//! the same time, have several archives; all of them together keep to `threads`.

use std::num::NonZeroUsize;
use std::sync::{Condvar, Mutex, PoisonError};

/// The turns of all threads of this process that compress.
pub static COMPRESSION: Turns = Turns::new();

/// So many threads at once.
#[derive(Debug)]
pub struct Turns {
    state: Mutex<State>,
    free: Condvar,
}

#[derive(Debug)]
struct State {
    at_work: usize,
    /// `None`: nobody waits.
    most: Option<NonZeroUsize>,
}

/// A turn; it ends when this is dropped.
#[derive(Debug)]
pub struct Turn<'a>(&'a Turns);

impl Turns {
    /// Turns without a bound yet.
    pub const fn new() -> Turns {
        Turns {
            state: Mutex::new(State {
                at_work: 0,
                most: None,
            }),
            free: Condvar::new(),
        }
    }

    /// From now on no more than so many begin at once.
    pub fn at_most(&self, most: NonZeroUsize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.most = Some(most);
        self.free.notify_all();
    }

    /// Waits for a turn.
    pub fn take(&self) -> Turn<'_> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |state: &mut State| state.most.is_some_and(|most| state.at_work >= most.get());
        let waited = self.free.wait_while(state, full);
        waited.unwrap_or_else(PoisonError::into_inner).at_work += 1;
        Turn(self)
    }
}

impl Default for Turns {
    fn default() -> Turns {
        Turns::new()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let state = self.0.state.lock();
        state.unwrap_or_else(PoisonError::into_inner).at_work -= 1;
        self.0.free.notify_one();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    /// The most of eight threads that were at work at once, each a hundred times.
    fn most_at_once(turns: &Turns) -> usize {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let _turn = turns.take();
                        let own = now.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(own, Ordering::SeqCst);
                        thread::yield_now();
                        now.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        most.into_inner()
    }

    #[test]
    fn no_more_than_so_many_are_at_work_at_once() {
        let turns = Turns::new();
        for most in [1, 3] {
            turns.at_most(NonZeroUsize::new(most).unwrap());
            assert!(most_at_once(&turns) <= most);
        }
    }

    #[test]
    fn whoever_waits_goes_on_when_there_may_be_more() {
        let turns = Turns::new();
        turns.at_most(NonZeroUsize::MIN);
        let held = turns.take();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(turns.take()));
            turns.at_most(NonZeroUsize::new(2).unwrap());
            waiting.join().unwrap();
        });
        drop(held);
    }
}
