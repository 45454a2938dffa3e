//! What Python's session libraries write: one dictionary, as a pickle, as JSON, or as zlib of either.

use std::io::ErrorKind;

use flate2::{Decompress, FlushDecompress, Status};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::datum::{Datum, Moment, iso, json_members};
use super::pickle::{Broken, Pickle, Plain};
use crate::sessions::facts::{OwnTimeout, Times, Unreadable};

/// The most that a compressed value may come to.
const LARGEST: usize = 4 << 20;
/// How deep msgpack may be nested: its reader recurses.
const DEEPEST: usize = 128;

/// `pyramid_redis_sessions`: `{'managed_dict': {…}, 'created': seconds, 'timeout': seconds}`.
pub(super) fn read_pyramid(value: &[u8]) -> Result<Times, Unreadable> {
    let [managed, created, timeout] = read_dict(value, ["managed_dict", "created", "timeout"])?;
    let (Some(Datum::Dict), Some(created), Some(timeout)) = (managed, created, timeout) else {
        return Err(Unreadable::NotASession);
    };
    Ok(Times {
        created_ms: Some(created.seconds_ms()?),
        timeout: timeout.timeout()?,
        ..Times::default()
    })
}

/// `pyramid_session_redis`: `{'m': {…}, 'c': created, 'v': version, 't': timeout, 'x': end}` in whole seconds. The
/// library writes no `t` and no `x` where no timeout is configured; it takes no session whose `x` is past,
/// whatever else is configured.
pub(super) fn read_pyramid_session_redis(value: &[u8]) -> Result<Times, Unreadable> {
    let [managed, created, version, timeout, end] = read_dict(value, ["m", "c", "v", "t", "x"])?;
    let (Some(Datum::Dict), Some(created), Some(Datum::Int(_))) = (managed, created, version)
    else {
        return Err(Unreadable::NotASession);
    };
    let ends_ms = match end {
        None | Some(Datum::Null | Datum::Int(0)) => None,
        Some(end) => Some(end.seconds_ms()?),
    };
    let timeout = match timeout {
        None | Some(Datum::Null | Datum::Int(0)) => match ends_ms {
            None => OwnTimeout::Never,
            Some(_) => OwnTimeout::Unknown,
        },
        Some(timeout) => timeout.timeout()?,
    };
    Ok(Times {
        created_ms: Some(created.seconds_ms()?),
        ends_ms,
        timeout,
        ..Times::default()
    })
}

/// Django: the session's own dictionary. `_session_expiry` is what `set_expiry` was given: seconds after the
/// last change, 0 for "until the browser closes", or a date. With `USE_TZ = False`, the default before Django 5, that is
/// the site's local time and names no zone: the session ends at the latest instant that it can mean.
pub(super) fn read_django(value: &[u8]) -> Result<Times, Unreadable> {
    let [expiry] = read_dict(value, ["_session_expiry"])?;
    let mut times = Times::default();
    match expiry {
        None => {}
        Some(Datum::Text(text)) => {
            times.ends_ms = Some(iso(&text).ok_or(Unreadable::Format)?.latest_ms());
        }
        Some(Datum::Moment(moment)) => times.ends_ms = Some(moment.latest_ms()),
        Some(seconds) => times.timeout = seconds.timeout()?,
    }
    Ok(times)
}

/// Flask-Session: the session's own dictionary, as msgpack (0.8), a pickle (before), or JSON. No times stand in it.
pub(super) fn read_flask(value: &[u8]) -> Result<Times, Unreadable> {
    match value {
        // An empty map; before anything else it is the first opcode of a pickle.
        [0x80] => {}
        [0x81..=0x8f | 0xde | 0xdf, ..] => walk_msgpack(value)?,
        _ => {
            let [] = read_plain(value, [])?;
        }
    }
    Ok(Times::default())
}

/// Walks one value of msgpack, which must be all.
fn walk_msgpack(value: &[u8]) -> Result<(), Unreadable> {
    let mut walker = rmp_serde::Deserializer::from_read_ref(value);
    walker.set_max_depth(DEEPEST);
    IgnoredAny::deserialize(&mut walker).map_err(|_| Unreadable::Format)?;
    // Nothing follows: the next value has no first byte.
    match IgnoredAny::deserialize(&mut walker) {
        Err(rmp_serde::decode::Error::InvalidMarkerRead(end))
            if end.kind() == ErrorKind::UnexpectedEof =>
        {
            Ok(())
        }
        _ => Err(Unreadable::Format),
    }
}

/// Celery: a result, in JSON unless configured otherwise. `date_done` is its beginning: from then on it waits to be
/// fetched. Releases that name no zone write UTC. A result in another notation has no times.
pub(super) fn read_celery(value: &[u8]) -> Times {
    let created_ms = match json_members(value, ["date_done"]) {
        Ok([Some(Datum::Text(date))]) => iso(&date).map(Moment::utc_ms),
        _ => None,
    };
    Times {
        created_ms,
        ..Times::default()
    }
}

/// The values that the dictionary has for some keys.
fn read_dict<const N: usize>(
    value: &[u8],
    names: [&str; N],
) -> Result<[Option<Datum>; N], Unreadable> {
    if is_zlib(value) {
        read_plain(&inflate(value)?, names)
    } else {
        read_plain(value, names)
    }
}

/// A zlib header (RFC 1950); no pickle and no JSON begins with its `x`.
fn is_zlib(value: &[u8]) -> bool {
    matches!(value, [0x78, flags, ..] if u16::from_be_bytes([0x78, *flags]).is_multiple_of(31))
}

/// Inflates zlib, all of it, with its checksum.
fn inflate(value: &[u8]) -> Result<Vec<u8>, Unreadable> {
    let mut inflater = Decompress::new(true);
    let mut plain = Vec::with_capacity(4 * value.len().min(LARGEST / 4));
    let mut rest = value;
    loop {
        let before = inflater.total_in();
        let status = inflater
            .decompress_vec(rest, &mut plain, FlushDecompress::None)
            .map_err(|_| Unreadable::Format)?;
        let taken =
            usize::try_from(inflater.total_in() - before).map_err(|_| Unreadable::TooLong)?;
        rest = rest.get(taken..).ok_or(Unreadable::Format)?;
        match status {
            Status::StreamEnd if rest.is_empty() => return Ok(plain),
            Status::StreamEnd => return Err(Unreadable::Format),
            _ if plain.len() < plain.capacity() => return Err(Unreadable::Format),
            _ if plain.len() >= LARGEST => return Err(Unreadable::TooLong),
            _ => plain.reserve_exact(plain.len().max(1024).min(LARGEST - plain.len())),
        }
    }
}

fn read_plain<const N: usize>(
    value: &[u8],
    names: [&str; N],
) -> Result<[Option<Datum>; N], Unreadable> {
    // What a JSON document can begin with is no opcode that a pickle can begin with.
    let json = matches!(
        value.first(),
        Some(
            b'{' | b'[' | b'"' | b'0'
                ..=b'9' | b'-' | b't' | b'f' | b'n' | b' ' | b'\t' | b'\r' | b'\n'
        )
    );
    if json {
        return json_members(value, names);
    }
    let pickle = Pickle::walk(value).map_err(|broken| match broken {
        Broken::At { .. } => Unreadable::Format,
        Broken::TooMany => Unreadable::TooLong,
    })?;
    if !pickle.is_dict() {
        return Err(Unreadable::NotASession);
    }
    Ok(names.map(|name| {
        pickle.get(name).map(|found| match found {
            Plain::None => Datum::Null,
            Plain::Int(number) => Datum::Int(number),
            Plain::Float(number) => Datum::Float(number),
            Plain::Text(bytes) => std::str::from_utf8(bytes).map_or(Datum::Other, Datum::text),
            Plain::Dict => Datum::Dict,
            Plain::Moment(moment) => Datum::Moment(moment),
            Plain::Other => Datum::Other,
        })
    }))
}
