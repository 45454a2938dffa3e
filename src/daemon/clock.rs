//! The wall clock, watched by one that cannot be set.
//!
//! Which backups are old enough to go depends on the wall clock, so after it leapt forward by more than a day
//! nothing is removed for a day: a person has the time to put it right. A machine that slept is no leap: the other
//! clock counts the time asleep, too.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// A leap forward that holds pruning.
const LEAP: SignedDuration = SignedDuration::from_hours(24);

/// For how long.
const HOLD: Duration = Duration::from_secs(24 * 3600);

/// Both clocks, when they were last looked at. Pure: the looks are arguments.
#[derive(Clone, Debug)]
pub(super) struct ClockWatch {
    wall: Timestamp,
    /// Since the machine was started, the time asleep included.
    up: Duration,
    /// Until when nothing is removed, by the clock that cannot be set.
    hold: Option<Duration>,
}

impl ClockWatch {
    /// Begins to watch.
    pub(super) fn new(wall: Timestamp, up: Duration) -> ClockWatch {
        ClockWatch {
            wall,
            up,
            hold: None,
        }
    }

    /// Looks at both clocks; gives the leap when the wall clock leapt forward by more than a day since the last look.
    pub(super) fn look(&mut self, wall: Timestamp, up: Duration) -> Option<SignedDuration> {
        let passed = SignedDuration::try_from(up.saturating_sub(self.up)).unwrap_or_default();
        let leap = wall.duration_since(self.wall) - passed;
        (self.wall, self.up) = (wall, up);
        if leap > LEAP {
            self.hold = Some(up.saturating_add(HOLD));
            return Some(leap);
        }
        if leap < -LEAP || self.hold.is_some_and(|hold| hold <= up) {
            // It was put right, or a day has passed.
            self.hold = None;
        }
        None
    }

    /// Whether nothing may be removed now.
    pub(super) fn holds(&self) -> bool {
        self.hold.is_some()
    }
}

/// How long the machine is up, the time asleep included.
pub(super) fn up() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_leap_of_more_than_a_day_holds_and_for_a_day() {
        let hours = |hours: i64| SignedDuration::from_hours(hours);
        let wall = Timestamp::UNIX_EPOCH;
        let up = |hours: u64| Duration::from_secs(hours * 3600);
        let mut watch = ClockWatch::new(wall, up(0));
        // A night asleep, a clock set on by 23 hours, one set back.
        assert_eq!(watch.look(wall + hours(40), up(40)), None);
        assert_eq!(watch.look(wall + hours(64), up(41)), None);
        assert_eq!(watch.look(wall + hours(45), up(42)), None);
        assert!(!watch.holds());
        let year = hours(24 * 365);
        assert_eq!(watch.look(wall + hours(46) + year, up(43)), Some(year));
        assert_eq!(watch.look(wall + hours(69) + year, up(66)), None);
        assert!(watch.holds());
        assert_eq!(watch.look(wall + hours(70) + year, up(67)), None);
        assert!(!watch.holds());
        // Put right before the day is over.
        assert!(watch.look(wall + hours(71) + year + year, up(68)).is_some());
        assert!(watch.holds());
        assert_eq!(watch.look(wall + hours(72) + year, up(69)), None);
        assert!(!watch.holds());
    }
}
