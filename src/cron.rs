//! Cron expressions: when a job is due, in a time zone, whatever its clocks do.
//!
//! Pure: now is an argument. An expression has five fields, or six with seconds first; day of month and
//! weekday are joined as cron does it (either is enough when both are given). Across daylight saving a job
//! with a fixed time runs once: one whose time is skipped at the moment the clocks go on, one whose time
//! comes twice at the first of them. A job that repeats (`*/15`) goes by the time that really passes.

use std::fmt;
use std::str::FromStr;

use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

/// A cron expression that is known to be one. Two are equal when they are written alike.
#[derive(Clone)]
pub struct Cron {
    text: String,
    cron: croner::Cron,
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

impl Cron {
    /// The first due time after `time`, in this zone. `None`: never again.
    pub fn next(&self, time: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let from = time.to_zoned(zone.clone());
        let found: Zoned = self.cron.find_next_occurrence(&from, false).ok()?;
        Some(found.timestamp())
    }

    /// The last due time at or before `time`, in this zone. `None`: there was none in the last years.
    pub fn last(&self, time: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        // Going forward alone decides what is due, so that both directions agree across daylight saving.
        let mut back = SignedDuration::from_mins(2);
        let longest = SignedDuration::from_hours(24 * 366 * 9);
        while back <= longest {
            let mut at = time.checked_sub(back).ok()?;
            let mut found = None;
            while let Some(next) = self.next(at, zone).filter(|next| *next <= time) {
                found = Some(next);
                at = next;
            }
            if found.is_some() {
                return found;
            }
            back *= 4;
        }
        None
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
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
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn day_of_month_and_weekday_are_joined_by_or() {
        let cron: Cron = "0 3 13 * FRI".parse().unwrap();
        let utc = TimeZone::UTC;
        let first = cron.next(at("2026-11-01T00:00:00Z"), &utc).unwrap();
        assert_eq!(first, at("2026-11-06T03:00:00Z"));
        let next = cron.next(at("2026-11-20T04:00:00Z"), &utc).unwrap();
        assert_eq!(next, at("2026-11-27T03:00:00Z"));
        let sunday = cron.next(at("2026-12-12T00:00:00Z"), &utc).unwrap();
        assert_eq!(sunday, at("2026-12-13T03:00:00Z"));
    }

    #[test]
    fn what_is_no_expression_or_never_due_is_refused() {
        for text in ["", "every hour", "* * * *", "61 * * * *", "0 0 0 0 0 0 0"] {
            let error = text.parse::<Cron>().unwrap_err();
            assert!(matches!(error, CronError::Malformed(_)), "{text}: {error}");
        }
        assert_eq!("0 0 30 2 *".parse::<Cron>(), Err(CronError::Never));
        assert!("0 0 29 2 *".parse::<Cron>().is_ok());
    }
}
