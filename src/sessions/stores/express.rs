//! express-session with connect-redis: JSON with the session's `cookie` in it.
//!
//! The trap: `cookie.expires` is no end. A session that is used without being changed gets a new TTL and keeps its
//! old JSON. What holds is `cookie.originalMaxAge`, its own timeout.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::datum::{Datum, json_members, members};
use crate::sessions::facts::{OwnTimeout, Times, Unreadable};

/// What a session has by the name `cookie`.
enum Cookie {
    /// The cookie's `originalMaxAge`, where it has one.
    MaxAge(Option<Datum>),
    /// No object.
    Other,
}

impl<'de> Deserialize<'de> for Cookie {
    fn deserialize<D: Deserializer<'de>>(part: D) -> Result<Cookie, D::Error> {
        let found = members(part, ["originalMaxAge"])?;
        Ok(found.map_or(Cookie::Other, |[max_age]| Cookie::MaxAge(max_age)))
    }
}

/// Reads a session.
pub(super) fn read(value: &[u8]) -> Result<Times, Unreadable> {
    let [Some(Cookie::MaxAge(max_age))] = json_members(value, ["cookie"])? else {
        return Err(Unreadable::NotASession);
    };
    let millis = match max_age {
        // Until the browser closes, or without any: the store's own TTL is the site's timeout.
        None | Some(Datum::Null) => 0.0,
        Some(Datum::Int(millis)) => millis as f64,
        Some(Datum::Float(millis)) => millis,
        Some(_) => return Err(Unreadable::Format),
    };
    let timeout = match millis > 0.0 {
        true => {
            OwnTimeout::After(Duration::try_from_secs_f64(millis / 1000.0).unwrap_or(Duration::MAX))
        }
        false => OwnTimeout::Unknown,
    };
    Ok(Times {
        timeout,
        ..Times::default()
    })
}
