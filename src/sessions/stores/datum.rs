//! One plain value, as far as sessions need it, and the members of a JSON object as such.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::de::{
    Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess,
    SeqAccess, Visitor,
};

use crate::sessions::facts::{OwnTimeout, Unreadable};

/// A value of a dictionary. What stands inside another dictionary or a list is passed over.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Datum {
    /// `None`, `null`.
    Null,
    /// A whole number that fits in 64 bits.
    Int(i64),
    /// Another number.
    Float(f64),
    /// Text.
    Text(String),
    /// A date and time.
    Moment(Moment),
    /// A dictionary.
    Dict,
    /// Anything else.
    Other,
}

/// A date and time: Unix, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// With its time zone.
    At(i64),
    /// Without, and read as UTC.
    Local(i64),
}

impl Moment {
    /// As UTC, where it says nothing else.
    pub(super) fn utc_ms(self) -> i64 {
        match self {
            Moment::At(ms) | Moment::Local(ms) => ms,
        }
    }

    /// The latest that it can mean: no zone is further behind UTC than twelve hours.
    pub(super) fn latest_ms(self) -> i64 {
        match self {
            Moment::At(ms) => ms,
            Moment::Local(ms) => ms.saturating_add(12 * 3_600_000),
        }
    }
}

impl Datum {
    /// Text that may be a date. No store asks for a longer one, and a copy of it would cost memory.
    pub(super) fn text(text: &str) -> Datum {
        const LONGEST: usize = 256;
        match text.len() {
            0..=LONGEST => Datum::Text(text.to_owned()),
            _ => Datum::Other,
        }
    }

    /// A Unix time in seconds, as milliseconds.
    pub(super) fn seconds_ms(&self) -> Result<i64, Unreadable> {
        match self {
            Datum::Int(seconds) => Ok(seconds.saturating_mul(1000)),
            // A float beyond what fits ends at the limit.
            Datum::Float(seconds) if seconds.is_finite() => Ok((seconds * 1000.0) as i64),
            _ => Err(Unreadable::Format),
        }
    }

    /// A timeout in seconds. One above zero counts; zero or less, or none, says nothing.
    pub(super) fn timeout(&self) -> Result<OwnTimeout, Unreadable> {
        match self {
            Datum::Null => Ok(OwnTimeout::Unknown),
            Datum::Int(seconds) => Ok(match u64::try_from(*seconds) {
                Ok(seconds @ 1..) => OwnTimeout::After(Duration::from_secs(seconds)),
                _ => OwnTimeout::Unknown,
            }),
            Datum::Float(seconds) if seconds.is_nan() => Err(Unreadable::Format),
            Datum::Float(seconds) if *seconds <= 0.0 => Ok(OwnTimeout::Unknown),
            Datum::Float(seconds) => Ok(OwnTimeout::After(
                Duration::try_from_secs_f64(*seconds).unwrap_or(Duration::MAX),
            )),
            _ => Err(Unreadable::Format),
        }
    }
}

/// A date and time as Python and JavaScript write them.
pub(super) fn iso(text: &str) -> Option<Moment> {
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Some(Moment::At(moment.as_millisecond()));
    }
    let naive: DateTime = text.parse().ok()?;
    let moment = naive.to_zoned(TimeZone::UTC).ok()?;
    Some(Moment::Local(moment.timestamp().as_millisecond()))
}

/// Some members of a JSON object, by name; the last counts where there are several.
///
/// # Errors
/// When it is no JSON document, or one that is no object.
pub(super) fn json_members<T: DeserializeOwned, const N: usize>(
    value: &[u8],
    names: [&str; N],
) -> Result<[Option<T>; N], Unreadable> {
    let mut document = serde_json::Deserializer::from_slice(value);
    let found = members(&mut document, names).map_err(|_| Unreadable::Format)?;
    document.end().map_err(|_| Unreadable::Format)?;
    found.ok_or(Unreadable::NotASession)
}

/// The same of a part of a document; `None` where it is no object. What is not asked for is passed over, and nothing is
/// kept of it.
pub(super) fn members<'de, D: Deserializer<'de>, T: Deserialize<'de>, const N: usize>(
    part: D,
    names: [&str; N],
) -> Result<Option<[Option<T>; N]>, D::Error> {
    let mut found = [const { None }; N];
    let members = Members {
        names: &names,
        found: &mut found,
    };
    let object = members.deserialize(part)?;
    Ok(object.then_some(found))
}

/// Reads a document; whether it is an object.
struct Members<'a, T> {
    names: &'a [&'a str],
    found: &'a mut [Option<T>],
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Members<'_, T> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, document: D) -> Result<bool, D::Error> {
        document.deserialize_any(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<'_, T> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON document")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            match self.names.iter().position(|wanted| *wanted == name) {
                Some(at) => self.found[at] = Some(map.next_value()?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(true)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(false)
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<bool, E> {
        Ok(false)
    }
}

impl<'de> Deserialize<'de> for Datum {
    fn deserialize<D: Deserializer<'de>>(document: D) -> Result<Datum, D::Error> {
        document.deserialize_any(DatumVisitor)
    }
}

struct DatumVisitor;

impl<'de> Visitor<'de> for DatumVisitor {
    type Value = Datum;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Datum, E> {
        Ok(Datum::Null)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Datum, E> {
        Ok(Datum::Other)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Datum, E> {
        Ok(Datum::Int(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Datum, E> {
        Ok(i64::try_from(number).map_or(Datum::Float(number as f64), Datum::Int))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Datum, E> {
        Ok(Datum::Float(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Datum, E> {
        Ok(Datum::text(text))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Datum, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Datum::Dict)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Datum, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Datum::Other)
    }
}
