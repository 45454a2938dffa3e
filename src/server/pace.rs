//! Keys spread over time, for whoever is told how many a second may be asked for.

use std::time::Duration;

use tokio::time::Instant;

/// Spreads keys over time.
#[derive(Debug)]
pub struct Pace {
    each: Duration,
    next: Instant,
}

impl Pace {
    /// So many keys a second; 0 is without limit.
    pub fn new(per_second: u64) -> Pace {
        Pace {
            each: if per_second == 0 {
                Duration::ZERO
            } else {
                Duration::from_secs(1) / u32::try_from(per_second).unwrap_or(u32::MAX)
            },
            next: Instant::now(),
        }
    }

    /// Waits until the keys that were taken before have had their time, and takes so many more.
    pub async fn take(&mut self, keys: usize) {
        if self.each.is_zero() {
            return;
        }
        tokio::time::sleep_until(self.next).await;
        self.next =
            self.next.max(Instant::now()) + self.each * u32::try_from(keys).unwrap_or(u32::MAX);
    }
}
