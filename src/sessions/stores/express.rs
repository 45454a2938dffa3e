//! express-session with connect-redis: JSON with the session's `cookie` in it.
//!
//! The trap: `cookie.expires` is no end. A session that is used without being changed gets a new TTL and keeps its
//! old JSON. What holds is `cookie.originalMaxAge`, its own timeout.

use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::datum::Datum;
use crate::sessions::facts::{OwnTimeout, Times, Unreadable};

#[derive(Deserialize)]
struct Session {
    cookie: Option<MaybeCookie>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum MaybeCookie {
    Cookie(Cookie),
    Other(IgnoredAny),
}

#[derive(Deserialize)]
struct Cookie {
    #[serde(rename = "originalMaxAge")]
    original_max_age: Option<Datum>,
}

pub(super) fn read(value: &[u8]) -> Result<Times, Unreadable> {
    if serde_json::from_slice::<IgnoredAny>(value).is_err() {
        return Err(Unreadable::Format);
    }
    // A document that is no object, or whose `cookie` is none, is no session.
    let Ok(Session {
        cookie: Some(MaybeCookie::Cookie(cookie)),
    }) = serde_json::from_slice(value)
    else {
        return Err(Unreadable::NotASession);
    };
    let timeout = match cookie.original_max_age {
        // Until the browser closes, or without any: the store's own TTL is the site's timeout.
        None | Some(Datum::Null) => OwnTimeout::Unknown,
        Some(Datum::Int(millis)) => match u64::try_from(millis) {
            Ok(millis @ 1..) => OwnTimeout::After(Duration::from_millis(millis)),
            _ => OwnTimeout::Unknown,
        },
        Some(Datum::Float(millis)) if millis > 0.0 => {
            OwnTimeout::After(Duration::try_from_secs_f64(millis / 1000.0).unwrap_or(Duration::MAX))
        }
        Some(Datum::Float(_)) => OwnTimeout::Unknown,
        Some(_) => return Err(Unreadable::Format),
    };
    Ok(Times {
        timeout,
        ..Times::default()
    })
}
