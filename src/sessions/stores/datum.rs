//! One plain value, as far as sessions need it, and the members of a JSON object as such.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
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
    /// A point in time: Unix, in milliseconds.
    Moment(i64),
    /// A dictionary.
    Dict,
    /// Anything else.
    Other,
}

impl Datum {
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

/// A date and time as Python and JavaScript write them; one without a zone is UTC. Unix, in milliseconds.
pub(super) fn iso_ms(text: &str) -> Option<i64> {
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Some(moment.as_millisecond());
    }
    let naive: DateTime = text.parse().ok()?;
    let moment = naive.to_zoned(TimeZone::UTC).ok()?;
    Some(moment.timestamp().as_millisecond())
}

/// Some members of a JSON object, by name; the last counts where there are several.
///
/// # Errors
/// When it is no JSON document, or one that is no object.
pub(super) fn json_members<const N: usize>(
    value: &[u8],
    names: [&str; N],
) -> Result<[Option<Datum>; N], Unreadable> {
    let mut found = [const { None }; N];
    let mut document = serde_json::Deserializer::from_slice(value);
    let members = Members {
        names: &names,
        found: &mut found,
    };
    let object = members
        .deserialize(&mut document)
        .map_err(|_| Unreadable::Format)?;
    document.end().map_err(|_| Unreadable::Format)?;
    if !object {
        return Err(Unreadable::NotASession);
    }
    Ok(found)
}

/// Reads a document; whether it is an object.
struct Members<'a> {
    names: &'a [&'a str],
    found: &'a mut [Option<Datum>],
}

impl<'de> DeserializeSeed<'de> for Members<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, document: D) -> Result<bool, D::Error> {
        document.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Members<'_> {
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
        Ok(i64::try_from(number).map_or(Datum::Other, Datum::Int))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Datum, E> {
        Ok(Datum::Float(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Datum, E> {
        Ok(Datum::Text(text.to_owned()))
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
