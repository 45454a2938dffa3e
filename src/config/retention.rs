//! `keep`: how many backups stay, and which.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use toml::de::DeTable;

use super::name::Name;
use super::reader::{Located, Reading, TableReader};
use crate::units::HumanDuration;

/// A policy: of each kind of period, how many of the newest ones keep their newest good backup. At least one
/// of its values is not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// The newest good backups, so many.
    pub last: u32,
    /// Hours.
    pub hourly: u32,
    /// Calendar days.
    pub daily: u32,
    /// ISO weeks.
    pub weekly: u32,
    /// Calendar months.
    pub monthly: u32,
    /// Calendar years.
    pub yearly: u32,
    /// Every good backup that is not older than the newest good one by more than this.
    pub within: Duration,
}

/// As it is written in the configuration, without what is zero: `last 4, daily 7, within 30d`.
impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            ("last", self.last),
            ("hourly", self.hourly),
            ("daily", self.daily),
            ("weekly", self.weekly),
            ("monthly", self.monthly),
            ("yearly", self.yearly),
        ];
        let counts = counts.iter().filter(|(_, count)| *count > 0);
        let mut parts: Vec<String> = counts
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        if !self.within.is_zero() {
            parts.push(format!("within {}", HumanDuration(self.within)));
        }
        f.pad(&parts.join(", "))
    }
}

/// Nobody needs more of a kind.
const MOST: u64 = 100_000;

/// Reads `keep`.
pub(super) fn read_keep(reader: &TableReader<'_, '_>) -> Option<Keep> {
    let table = reader.table("keep", "a table: { last = 4, daily = 7 }")?;
    let span = reader.key_span("keep")?;
    read_policy(reader.reading(), table, "`keep`", span)
}

/// Reads `keep_in`: a policy for each of some storages.
pub(super) fn read_keep_in(
    reader: &TableReader<'_, '_>,
) -> Option<Vec<(Located<Name>, Option<Keep>)>> {
    let table = reader.table("keep_in", "a table: { STORAGE = { daily = 30 } }")?;
    let reading = reader.reading();
    let mut all = Vec::new();
    for (key, value) in TableReader::new(reading, table, "`keep_in`").entries() {
        let name = match key.value.parse::<Name>() {
            Ok(value) => Located {
                value,
                span: key.span.clone(),
            },
            Err(error) => {
                reading.mistake(key.span, error);
                continue;
            }
        };
        let title = format!("`keep_in.{}`", name.value);
        let policy = match value.get_ref().as_table() {
            Some(table) => read_policy(reading, table, &title, key.span),
            None => {
                reading.mistake(
                    value.span(),
                    format!("{title} is a table: {{ daily = 30 }}"),
                );
                None
            }
        };
        all.push((name, policy));
    }
    Some(all)
}

fn read_policy(
    reading: &Reading<'_>,
    table: &DeTable<'_>,
    title: &str,
    span: std::ops::Range<usize>,
) -> Option<Keep> {
    let reader = TableReader::new(reading, table, title);
    let count = |key| {
        let given = reader.key_span(key).is_some();
        let found = reader.whole(key, 0..=MOST);
        let found = found.and_then(|count| u32::try_from(count).ok());
        // A value that is wrong has been told, and is none to go on with.
        (found.unwrap_or(0), given && found.is_none())
    };
    let counts = [
        count("last"),
        count("hourly"),
        count("daily"),
        count("weekly"),
        count("monthly"),
        count("yearly"),
    ];
    let within_given = reader.key_span("within").is_some();
    let within = reader.duration("within").map(|found| found.value);
    let known = [
        "last", "hourly", "daily", "weekly", "monthly", "yearly", "within",
    ];
    let misspelt = table
        .iter()
        .any(|(key, _)| !known.contains(&key.get_ref().as_ref()));
    let wrong =
        misspelt || counts.iter().any(|(_, wrong)| *wrong) || (within_given && within.is_none());
    reader.finish(&[]);
    if wrong {
        return None;
    }
    let [last, hourly, daily, weekly, monthly, yearly] = counts.map(|(count, _)| count);
    let keep = Keep {
        last,
        hourly,
        daily,
        weekly,
        monthly,
        yearly,
        within: within.unwrap_or_default(),
    };
    if keep == Keep::default() {
        reading.mistake(
            span,
            format!("{title} keeps nothing: give at least one of last, hourly, daily, weekly, monthly, yearly, within; without a policy nothing is ever removed"),
        );
        return None;
    }
    Some(keep)
}

/// The policies of a database by storage: those of `keep_in`, and `keep` for the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    /// `keep`.
    pub keep: Option<Keep>,
    /// `keep_in`.
    pub keep_in: BTreeMap<Name, Keep>,
}

impl Policies {
    /// The policy for one storage; `None`: nothing is ever removed there.
    pub fn of(&self, storage: &str) -> Option<&Keep> {
        self.keep_in.get(storage).or(self.keep.as_ref())
    }

    /// Whether there is any policy at all.
    pub fn is_empty(&self) -> bool {
        self.keep.is_none() && self.keep_in.is_empty()
    }
}
