//! Sizes and durations, as people write them and as people read them.
//!
//! What is read is strict: a unit is always named, so that `512` of what is never a guess. A bare number
//! is taken as seconds or as bytes. What is shown ([`HumanBytes`], [`HumanDuration`], [`HumanCount`]) is
//! rounded and for people; it need not parse back.

use std::fmt;
use std::time::Duration;

/// Why a text is not a size or a duration. The texts say what is accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a duration.
    #[error(
        "`{0}` is not a duration: write \"90s\", \"15m\", \"2h\", \"7d\", \"1w\", \"1h30m\", or whole seconds"
    )]
    NotADuration(String),
    /// A duration beyond what can be counted.
    #[error("`{0}` is too long a duration: at most 1000 years")]
    DurationTooLong(String),
    /// Not a size.
    #[error("`{0}` is not a size: write \"512KB\", \"64MiB\", \"1GiB\", or whole bytes")]
    NotASize(String),
    /// A size beyond 64 bits.
    #[error("`{0}` is too large a size: at most 16 EiB")]
    SizeTooLarge(String),
}

/// The longest duration that is accepted, in seconds: a thousand years, so that adding one to a time of
/// this age cannot overflow.
const LONGEST_SECONDS: u64 = 1000 * 366 * 86_400;

const DURATION_UNITS: [(&str, u64); 5] = [
    ("w", 604_800),
    ("d", 86_400),
    ("h", 3_600),
    ("m", 60),
    ("s", 1),
];

/// Reads a duration: whole numbers, each with one of `w d h m s`, larger units first, each at most once
/// (`"90s"`, `"1h30m"`, `"1w 2d"`); or whole seconds (`"90"`).
///
/// # Errors
/// When the text is none of that, or longer than a thousand years.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let not = || UnitError::NotADuration(text.to_owned());
    let too_long = || UnitError::DurationTooLong(text.to_owned());
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(not());
    }
    let mut seconds: u64 = 0;
    if rest.bytes().all(|byte| byte.is_ascii_digit()) {
        seconds = rest.parse().map_err(|_| too_long())?;
    } else {
        let mut units = DURATION_UNITS.iter();
        while !rest.is_empty() {
            let (digits, after) = split_digits(rest).ok_or_else(not)?;
            let (unit, after) = split_letters(after);
            let (_, worth) = units.find(|(name, _)| *name == unit).ok_or_else(not)?;
            let count: u64 = digits.parse().map_err(|_| too_long())?;
            seconds = count
                .checked_mul(*worth)
                .and_then(|more| seconds.checked_add(more))
                .ok_or_else(too_long)?;
            rest = after.trim_start();
        }
    }
    if seconds > LONGEST_SECONDS {
        return Err(too_long());
    }
    Ok(Duration::from_secs(seconds))
}

const SIZE_UNITS: [(&str, u64); 13] = [
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("pb", 1_000_000_000_000_000),
    ("eb", 1_000_000_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("pib", 1 << 50),
    ("eib", 1 << 60),
];

/// Reads a size in bytes: a whole number and a unit, `KB` being 1000 and `KiB` 1024 bytes, in either
/// case; or whole bytes.
///
/// # Errors
/// When the text is none of that, or beyond 64 bits.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let not = || UnitError::NotASize(text.to_owned());
    let too_large = || UnitError::SizeTooLarge(text.to_owned());
    let (digits, after) = split_digits(text.trim()).ok_or_else(not)?;
    let unit = after.trim_start().to_ascii_lowercase();
    let worth = if unit.is_empty() {
        1
    } else {
        let known = SIZE_UNITS.iter().find(|(name, _)| *name == unit);
        known.ok_or_else(not)?.1
    };
    let count: u64 = digits.parse().map_err(|_| too_large())?;
    count.checked_mul(worth).ok_or_else(too_large)
}

/// The digits in front, at least one, and the rest.
fn split_digits(text: &str) -> Option<(&str, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn split_letters(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    text.split_at(end)
}

/// Shows bytes for people: `512 B`, `1.2 GiB`, `64 MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanBytes(pub u64);

impl fmt::Display for HumanBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return f.pad(&format!("{} B", self.0));
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut name = NAMES[0];
        for next in &NAMES[1..] {
            // What would round up to 1024 is shown as 1 of the next unit.
            if value < 1023.95 {
                break;
            }
            value /= 1024.0;
            name = next;
        }
        let number = format!("{value:.1}");
        let number = number.strip_suffix(".0").unwrap_or(&number);
        f.pad(&format!("{number} {name}"))
    }
}

/// Shows a duration for people, in its two largest units: `250ms`, `1.2s`, `12s`, `3m12s`, `2h5m`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanDuration(pub Duration);

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < Duration::from_millis(9_950) {
            if self.0.is_zero() {
                return f.pad("0s");
            }
            if self.0 < Duration::from_millis(1) {
                return f.pad("<1ms");
            }
            if self.0 < Duration::from_millis(1_000) {
                return f.pad(&format!("{}ms", self.0.as_millis()));
            }
            let text = format!("{:.1}", self.0.as_secs_f64());
            let text = text.strip_suffix(".0").unwrap_or(&text);
            return f.pad(&format!("{text}s"));
        }
        let mut seconds = self.0.as_secs() + u64::from(self.0.subsec_millis() >= 500);
        let mut text = String::new();
        let mut shown = 0;
        for (name, worth) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
            let count = seconds / worth;
            seconds %= worth;
            if count > 0 {
                text.push_str(&format!("{count}{name}"));
            }
            if count > 0 || shown > 0 {
                shown += 1;
            }
            if shown == 2 {
                break;
            }
        }
        f.pad(&text)
    }
}

/// A row of things as people say it: `0`, `0 and 3`, `0, 3 and 5`.
pub fn listed<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let mut items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    match (items.pop(), items.len()) {
        (None, _) => String::new(),
        (Some(last), 0) => last,
        (Some(last), _) => format!("{} and {last}", items.join(", ")),
    }
}

/// Shows a count with its thousands apart: `1,234,567`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanCount(pub u64);

impl HumanCount {
    /// With the word for one or for many of what is counted: `1 key`, `1,234 keys`.
    pub fn of(self, one: &str, many: &str) -> String {
        format!("{self} {}", if self.0 == 1 { one } else { many })
    }
}

impl fmt::Display for HumanCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::with_capacity(digits.len() * 4 / 3);
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        f.pad(&text)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("90s", 90),
            ("15m", 900),
            ("2h", 7_200),
            ("7d", 604_800),
            ("1w", 604_800),
            ("365d", 31_536_000),
            ("1h30m", 5_400),
            ("1w 2d", 777_600),
            ("90", 90),
            ("0s", 0),
            (" 5m ", 300),
        ] {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_secs(seconds));
        }
    }

    #[test]
    fn what_is_not_a_duration_is_told_what_is() {
        for text in [
            "", " ", "s", "1x", "1.5h", "-1s", "1m1h", "1h1h", "1h30", "1ms", "1 h", "٣s",
        ] {
            let error = parse_duration(text).unwrap_err();
            assert!(error.to_string().contains("\"15m\""), "{text}: {error}");
        }
        assert!(matches!(
            parse_duration("99999999999999999999s"),
            Err(UnitError::DurationTooLong(_))
        ));
        assert!(matches!(
            parse_duration("18446744073709551615w"),
            Err(UnitError::DurationTooLong(_))
        ));
        assert!(matches!(
            parse_duration("400000d"),
            Err(UnitError::DurationTooLong(_))
        ));
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("64MiB", 64 << 20),
            ("512KB", 512_000),
            ("1GiB", 1 << 30),
            ("1 gib", 1 << 30),
            ("123", 123),
            ("7B", 7),
            ("0", 0),
            ("15EiB", 15 << 60),
        ] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_told_what_is() {
        for text in ["", "MiB", "-1", "1.5GiB", "64M", "1 x", "1KiBs"] {
            let error = parse_size(text).unwrap_err();
            assert!(error.to_string().contains("\"64MiB\""), "{text}: {error}");
        }
        assert!(matches!(
            parse_size("16EiB"),
            Err(UnitError::SizeTooLarge(_))
        ));
        assert!(matches!(
            parse_size("99999999999999999999"),
            Err(UnitError::SizeTooLarge(_))
        ));
    }

    #[test]
    fn bytes_are_shown_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1_288_490_189, "1.2 GiB"),
            ((1 << 20) - 1, "1 MiB"),
            (64 << 20, "64 MiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(HumanBytes(bytes).to_string(), text);
        }
        assert_eq!(format!("{:>8}", HumanBytes(1)), "     1 B");
    }

    #[test]
    fn durations_are_shown_in_their_two_largest_units() {
        for (millis, text) in [
            (0, "0s"),
            (250, "250ms"),
            (1_000, "1s"),
            (1_240, "1.2s"),
            (9_940, "9.9s"),
            (9_960, "10s"),
            (59_600, "1m"),
            (192_000, "3m12s"),
            (3_600_000, "1h"),
            (3_605_000, "1h"),
            (7_500_000, "2h5m"),
            (604_800_000, "7d"),
            (90_000_000, "1d1h"),
        ] {
            let shown = HumanDuration(Duration::from_millis(millis)).to_string();
            assert_eq!(shown, text, "{millis}");
        }
        assert_eq!(HumanDuration(Duration::from_micros(3)).to_string(), "<1ms");
    }

    #[test]
    fn counts_have_their_thousands_apart() {
        assert_eq!(HumanCount(0).to_string(), "0");
        assert_eq!(HumanCount(999).to_string(), "999");
        assert_eq!(HumanCount(1_000).to_string(), "1,000");
        assert_eq!(HumanCount(1_234_567).to_string(), "1,234,567");
    }

    #[test]
    fn what_is_counted_is_named_by_its_number() {
        let keys = |count| HumanCount(count).of("key", "keys");
        assert_eq!(
            [keys(0), keys(1), keys(1_001)],
            ["0 keys", "1 key", "1,001 keys"]
        );
    }

    #[test]
    fn a_row_ends_with_and() {
        assert_eq!(listed([0; 0]), "");
        assert_eq!(listed([7]), "7");
        assert_eq!(listed([0, 3]), "0 and 3");
        assert_eq!(listed([0, 3, 5]), "0, 3 and 5");
    }
}
