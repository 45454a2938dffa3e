//! express-session with connect-redis: JSON with the session's `cookie` in it.
//!
//! The trap: `cookie.expires` is no end. A session that is used without being changed gets a new TTL and keeps its
//! old JSON. What holds is `cookie.originalMaxAge`, its own timeout.

use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::sessions::facts::{OwnTimeout, Times, Unreadable};

#[derive(Deserialize)]
struct Session {
    cookie: Option<Value>,
}

/// Reads a session.
pub(super) fn read(value: &[u8]) -> Result<Times, Unreadable> {
    serde_json::from_slice::<IgnoredAny>(value).map_err(|_| Unreadable::Format)?;
    // A document that is no object, or whose `cookie` is none, is no session.
    let object = value.trim_ascii_start().starts_with(b"{");
    let session = object.then(|| serde_json::from_slice::<Session>(value).ok());
    let Some(Some(Session {
        cookie: Some(Value::Object(cookie)),
    })) = session
    else {
        return Err(Unreadable::NotASession);
    };
    let timeout = match cookie.get("originalMaxAge") {
        // Until the browser closes, or without any: the store's own TTL is the site's timeout.
        None | Some(Value::Null) => OwnTimeout::Unknown,
        Some(millis) => match millis.as_f64().ok_or(Unreadable::Format)? {
            millis if millis > 0.0 => OwnTimeout::After(
                Duration::try_from_secs_f64(millis / 1000.0).unwrap_or(Duration::MAX),
            ),
            _ => OwnTimeout::Unknown,
        },
    };
    Ok(Times {
        timeout,
        ..Times::default()
    })
}
