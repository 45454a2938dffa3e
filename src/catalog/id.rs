//! A backup's ID: the UTC time at which it was started, and random hex. It sorts by time and is never used twice.

use std::fmt;
use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Unit};
use serde::{Deserialize, Serialize};

/// How many hex digits follow the time. Two hosts that start in the same second collide once in sixteen million.
const RANDOM_DIGITS: usize = 6;

/// An ID like `20261122T214353Z-7f3a9c`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupId(String);

impl BackupId {
    /// A new ID for a backup that starts at `start`.
    pub fn new(start: Timestamp) -> Result<BackupId, std::io::Error> {
        let mut random = [0u8; RANDOM_DIGITS / 2];
        getrandom::fill(&mut random).map_err(std::io::Error::other)?;
        let second = start
            .round(
                jiff::TimestampRound::new()
                    .smallest(Unit::Second)
                    .mode(jiff::RoundMode::Trunc),
            )
            .unwrap_or(start);
        let time = second
            .to_zoned(TimeZone::UTC)
            .strftime("%Y%m%dT%H%M%SZ")
            .to_string();
        let random: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(BackupId(format!("{time}-{random}")))
    }

    /// The ID as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The second in which the backup was started.
    pub fn time(&self) -> Timestamp {
        time_of(&self.0).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

fn time_of(text: &str) -> Option<Timestamp> {
    let time = text.get(..16)?;
    let parsed = DateTime::strptime("%Y%m%dT%H%M%SZ", time).ok()?;
    // strptime is lenient about widths: the text must be the one that we would write.
    if parsed.strftime("%Y%m%dT%H%M%SZ").to_string() != time {
        return None;
    }
    Some(parsed.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for BackupId {
    type Err = String;

    fn from_str(text: &str) -> Result<BackupId, String> {
        let wrong = || format!("{text:?} is no backup ID");
        let random = text
            .get(16..)
            .and_then(|rest| rest.strip_prefix('-'))
            .ok_or_else(wrong)?;
        let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        if random.len() != RANDOM_DIGITS || !random.bytes().all(hex) || time_of(text).is_none() {
            return Err(wrong());
        }
        Ok(BackupId(text.to_owned()))
    }
}

impl TryFrom<String> for BackupId {
    type Error = String;

    fn try_from(text: String) -> Result<BackupId, String> {
        text.parse()
    }
}

impl From<BackupId> for String {
    fn from(id: BackupId) -> String {
        id.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_id_tells_its_time_and_sorts_by_it() {
        let early: Timestamp = "2026-11-22T21:43:53.9Z".parse().unwrap();
        let late: Timestamp = "2026-11-22T21:43:54Z".parse().unwrap();
        let (a, b) = (BackupId::new(early).unwrap(), BackupId::new(late).unwrap());
        assert!(a.as_str().starts_with("20261122T214353Z-") && a < b);
        assert_eq!(b.time(), late);
        assert_eq!(a.as_str().parse::<BackupId>().unwrap(), a);
    }

    #[test]
    fn only_the_text_that_we_write_is_an_id() {
        for bad in [
            "",
            "20261122T214353Z",
            "20261122T214353Z-7f3a9",
            "20261122T214353Z-7F3A9C",
            "20261322T214353Z-7f3a9c",
            "20261122T246353Z-7f3a9c",
            "2026112T214353Z-07f3a9c",
            "../../../etc/passwd-000",
            "20261122T214353Z-7f3a9c/",
            "20261122T214353Z_7f3a9c",
        ] {
            assert!(bad.parse::<BackupId>().is_err(), "{bad}");
        }
    }
}
