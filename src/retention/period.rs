//! Calendar periods in a time zone.
//!
//! The trap is the hour that a clock shows twice when it is set back: those are two hours, and each keeps
//! its own backup.

use std::fmt;

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, Zoned};

use crate::config::Keep;

/// A kind of period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Hours of the clock.
    Hourly,
    /// Calendar days.
    Daily,
    /// ISO weeks, which begin on Monday.
    Weekly,
    /// Calendar months.
    Monthly,
    /// Calendar years.
    Yearly,
}

impl Rule {
    /// All of them, the shortest period first.
    pub const ALL: [Rule; 5] = [
        Rule::Hourly,
        Rule::Daily,
        Rule::Weekly,
        Rule::Monthly,
        Rule::Yearly,
    ];

    /// How many of these periods a policy keeps.
    pub(super) fn count(self, policy: &Keep) -> usize {
        let count = match self {
            Rule::Hourly => policy.hourly,
            Rule::Daily => policy.daily,
            Rule::Weekly => policy.weekly,
            Rule::Monthly => policy.monthly,
            Rule::Yearly => policy.yearly,
        };
        usize::try_from(count).unwrap_or(usize::MAX)
    }

    /// The name of the period that a moment lies in, unique within the time zone: `2026-11-22 14h`, `2026-11-22`,
    /// `2026-W47`, `2026-11`, `2026`.
    pub fn period(self, at: Timestamp, zone: &TimeZone) -> String {
        let local = at.to_zoned(zone.clone());
        match self {
            Rule::Hourly => hour(&local),
            Rule::Daily => local.strftime("%Y-%m-%d").to_string(),
            Rule::Weekly => {
                let week = local.date().iso_week_date();
                format!("{:04}-W{:02}", week.year(), week.week())
            }
            Rule::Monthly => local.strftime("%Y-%m").to_string(),
            Rule::Yearly => local.strftime("%Y").to_string(),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rule::Hourly => "hourly",
            Rule::Daily => "daily",
            Rule::Weekly => "weekly",
            Rule::Monthly => "monthly",
            Rule::Yearly => "yearly",
        })
    }
}

/// The hour's name, with its offset from UTC where the clock shows all or a part of that hour twice.
fn hour(local: &Zoned) -> String {
    let of_hour = |minute, second| {
        local
            .datetime()
            .with()
            .minute(minute)
            .second(second)
            .subsec_nanosecond(0)
            .build()
    };
    let is_twice = |time: Result<DateTime, jiff::Error>| {
        let time = time.map(|time| local.time_zone().to_ambiguous_timestamp(time).offset());
        matches!(time, Ok(AmbiguousOffset::Fold { .. }))
    };
    match is_twice(of_hour(0, 0)) || is_twice(of_hour(59, 59)) {
        true => local.strftime("%Y-%m-%d %Hh%:z").to_string(),
        false => local.strftime("%Y-%m-%d %Hh").to_string(),
    }
}
