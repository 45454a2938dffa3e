//! Cron expressions: when a job is due, in a time zone, whatever its clocks do.
//!
//! Pure: now is an argument. An expression has five fields, or six with seconds first, or is one of `@hourly`,
//! `@daily`, `@weekly`, `@monthly`, `@yearly`; day of month and weekday are joined as cron does it (either is
//! enough when both are given).
//!
//! Across daylight saving a job that names its hours runs once for each of its times: one whose time is skipped
//! at the moment the clocks go on, one whose time comes twice at the first of them. A job of every hour
//! (`*/15 * * * *`) goes by the time that really passes, so nothing of it is skipped and nothing held back.
//!
//! The trap: croner, searching in a zone, calls a job fixed only when second, minute and hour are one number
//! each, and so drops a skipped time of `0 2,14 * * *` or `0 */6 * * *`; it gives up in a gap of more than two
//! hours, and drops a time whose gap ends on the next day. So it searches on the wall clock alone here, which
//! knows no zone, and what a wall clock time means in the zone is decided below.

use std::fmt;
use std::str::FromStr;

use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};

/// A cron expression that is known to be one. Two are equal when they are written alike.
#[derive(Clone)]
pub struct Cron {
    text: String,
    cron: croner::Cron,
    /// Whether every hour fits.
    every_hour: bool,
}

/// What is wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// It cannot be read.
    #[error("is no cron expression such as \"*/15 * * * *\": {0}")]
    Malformed(String),
    /// It can be read, and no time ever fits it: February 30.
    #[error("is never due: no such day ever comes")]
    Never,
}

/// More changes of the clocks than lie between two due times of any expression.
const CHANGES: usize = 1000;

impl Cron {
    /// The first due time after `time`, in this zone. `None`: never again.
    pub fn next(&self, time: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self.every_hour {
            true => self.next_by_real_time(time, zone),
            false => self.next_of_its_times(time, zone),
        }
    }

    /// The last due time at or before `time`, in this zone. `None`: there was none.
    pub fn last(&self, time: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self.every_hour {
            true => self.last_by_real_time(time, zone),
            false => self.last_of_its_times(time, zone),
        }
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first wall clock time after `wall` (or at it) that fits.
    fn wall_after(&self, wall: DateTime, at_it: bool) -> Option<DateTime> {
        self.cron.find_next_occurrence(&wall, at_it).ok()
    }

    /// The last wall clock time before `wall` (or at it) that fits. Fractions of a second are cut off.
    fn wall_before(&self, wall: DateTime, at_it: bool) -> Option<DateTime> {
        self.cron.find_previous_occurrence(&wall, at_it).ok()
    }

    /// Later wall clock times never mean earlier moments ([`moment_of`]), so the first that lies after `time` is it.
    fn next_of_its_times(&self, time: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut wall = zone.to_datetime(time);
        if let Some(end) = end_of_repeated(wall, time, zone) {
            // What comes twice was due when it came first.
            wall = self.wall_after(end, true)?;
        } else {
            wall = self.wall_after(wall, false)?;
        }
        loop {
            let moment = moment_of(wall, zone)?;
            if moment > time {
                return Some(moment);
            }
            wall = self.wall_after(wall, false)?;
        }
    }

    fn last_of_its_times(&self, time: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let wall = zone.to_datetime(time);
        let found = match end_of_repeated(wall, time, zone) {
            Some(end) => self.wall_before(end, false),
            None => self.wall_before(wall, true),
        };
        moment_of(found?, zone)
    }

    /// Goes from one change of the clocks to the next: between them wall clock and real time move alike.
    fn next_by_real_time(&self, time: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut offset = zone.to_offset(time);
        let mut found = self.wall_after(offset.to_datetime(time), false)?;
        for change in zone.following(time).take(CHANGES) {
            let moment = offset.to_timestamp(found).ok()?;
            if moment < change.timestamp() {
                return Some(moment);
            }
            offset = change.offset();
            found = self.wall_after(offset.to_datetime(change.timestamp()), true)?;
        }
        offset.to_timestamp(found).ok()
    }

    fn last_by_real_time(&self, time: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut found = self.wall_before(zone.to_datetime(time), true)?;
        let mut offset = zone.to_offset(time);
        for change in changes_until(time, zone).take(CHANGES) {
            let moment = offset.to_timestamp(found).ok()?;
            if moment >= change {
                return Some(moment);
            }
            offset = offset_before(change, zone);
            found = self.wall_before(offset.to_datetime(change), false)?;
        }
        offset.to_timestamp(found).ok()
    }
}

/// The moments at which the clocks changed, at `time` and before it, the last one first.
fn changes_until(time: Timestamp, zone: &TimeZone) -> impl Iterator<Item = Timestamp> {
    let just_after = time.checked_add(jiff::SignedDuration::from_nanos(1));
    zone.preceding(just_after.unwrap_or(time))
        .map(|change| change.timestamp())
}

/// The offset that held until the clocks changed at `change`.
fn offset_before(change: Timestamp, zone: &TimeZone) -> Offset {
    let before = change.checked_sub(jiff::SignedDuration::from_nanos(1));
    zone.to_offset(before.unwrap_or(change))
}

/// When the wall clock's time at `time` has come for the second time: where on the wall clock the repeated times end.
fn end_of_repeated(wall: DateTime, time: Timestamp, zone: &TimeZone) -> Option<DateTime> {
    match zone.to_ambiguous_timestamp(wall).offset() {
        AmbiguousOffset::Fold { before, after } if zone.to_offset(time) == after => {
            let change = changes_until(time, zone).next()?;
            Some(before.to_datetime(change))
        }
        _ => None,
    }
}

/// The moment that a wall clock time means: the first of two; when it is skipped, that at which the clocks go on.
fn moment_of(wall: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    match zone.to_ambiguous_timestamp(wall).offset() {
        AmbiguousOffset::Unambiguous { offset } | AmbiguousOffset::Fold { before: offset, .. } => {
            offset.to_timestamp(wall).ok()
        }
        AmbiguousOffset::Gap { after, .. } => {
            let before_it = after.to_timestamp(wall).ok()?;
            Some(zone.following(before_it).next()?.timestamp())
        }
    }
}

impl FromStr for Cron {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Cron, CronError> {
        let parser = CronParser::builder()
            .seconds(Seconds::Optional)
            .year(Year::Disallowed)
            .build();
        let cron = parser
            .parse(text)
            .map_err(|error| CronError::Malformed(error.to_string()))?;
        let cron = Cron {
            text: text.to_owned(),
            every_hour: cron.pattern.hours.values().len() == 24,
            cron,
        };
        match cron.next(Timestamp::UNIX_EPOCH, &TimeZone::UTC) {
            Some(_) => Ok(cron),
            None => Err(CronError::Never),
        }
    }
}

impl PartialEq for Cron {
    fn eq(&self, other: &Cron) -> bool {
        self.text == other.text
    }
}

impl Eq for Cron {}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cron({:?})", self.text)
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

#[cfg(test)]
mod tests;
