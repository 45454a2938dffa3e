//! What a pickle calls, as far as it is understood: dates and times. Their results come from their arguments alone.

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;

use super::{Moment, Node};

/// The functions whose results are understood.
#[derive(Clone, Copy)]
pub(super) enum Callable {
    DateTime,
    TimeDelta,
    TimeZone,
    PytzUtc,
}

impl Callable {
    /// The one of that name.
    pub(super) fn named(module: &[u8], name: &[u8]) -> Option<Callable> {
        match (module, name) {
            (b"datetime", b"datetime") => Some(Callable::DateTime),
            (b"datetime", b"timedelta") => Some(Callable::TimeDelta),
            (b"datetime", b"timezone") => Some(Callable::TimeZone),
            (b"pytz", b"_UTC") => Some(Callable::PytzUtc),
            _ => None,
        }
    }
}

/// What a call would make, as far as it is understood.
pub(super) fn call(input: &[u8], callable: Callable, arguments: [Option<Node>; 3]) -> Option<Node> {
    match (callable, arguments) {
        (Callable::PytzUtc, [None, ..]) => Some(Node::Zone(0)),
        (
            Callable::TimeDelta,
            [
                Some(Node::Int(days)),
                Some(Node::Int(seconds)),
                Some(Node::Int(micros)),
            ],
        ) => {
            let seconds = days.checked_mul(86_400)?.checked_add(seconds)?;
            let micros = seconds.checked_mul(1_000_000)?.checked_add(micros)?;
            Some(Node::Delta(micros))
        }
        (Callable::TimeZone, [Some(Node::Delta(micros)), ..]) => Some(Node::Zone(micros)),
        (Callable::DateTime, [Some(Node::Text { from, to }), zone, None]) => {
            let packed = input.get(from as usize..to as usize)?;
            let utc_ms = unpack_datetime(packed)?;
            Some(Node::Moment(match zone {
                None => Moment::Local(utc_ms),
                Some(Node::Zone(micros)) => Moment::At(utc_ms.checked_sub(micros / 1000)?),
                Some(_) => return None,
            }))
        }
        _ => None,
    }
}

/// The ten bytes of a pickled `datetime`, read as UTC: Unix, in milliseconds.
///
/// Year (two bytes, big-endian), month (its highest bit is the fold), day, hour, minute, second,
/// microseconds (three bytes); CPython's `Lib/_pydatetime.py`.
fn unpack_datetime(packed: &[u8]) -> Option<i64> {
    let &[y1, y0, month, day, hour, minute, second, u2, u1, u0] = packed else {
        return None;
    };
    let small = |byte: u8| i8::try_from(byte).ok();
    let micros = i32::from_be_bytes([0, u2, u1, u0]);
    let date = Date::new(
        i16::from_be_bytes([y1, y0]),
        small(month & 0x7f)?,
        small(day)?,
    )
    .ok()?;
    let time = Time::new(
        small(hour)?,
        small(minute)?,
        small(second)?,
        micros.checked_mul(1000)?,
    )
    .ok()?;
    let moment = date.to_datetime(time).to_zoned(TimeZone::UTC).ok()?;
    Some(moment.timestamp().as_millisecond())
}
