//! Waiting for a condition, never for a time: `until` asks again and again, and names what it waited for when it gives up.

use std::time::{Duration, Instant};

/// How long a condition may take on a slow, busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks `condition` until it gives a value; panics with `what` when it has not done so in [`PATIENCE`].
pub fn until<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, condition)
}

/// As [`until`], with its own patience.
pub fn within<T>(patience: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Deadline::after(patience);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(!deadline.is_over(), "waited {patience:?} in vain: {what}");
        deadline.pause();
    }
}

/// A point in time after which waiting is a failure.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline that lies `patience` from now.
    pub fn after(patience: Duration) -> Deadline {
        Deadline(Instant::now() + patience)
    }

    /// Whether it has passed.
    pub fn is_over(self) -> bool {
        Instant::now() >= self.0
    }

    /// A short breath between two looks at a condition.
    pub fn pause(self) {
        std::thread::sleep(Duration::from_millis(5));
    }
}
