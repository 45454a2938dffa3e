//! How frameworks keep sessions: which keys are sessions by their names, and what stands in their values.
//!
//! Nothing is run: a pickle is walked, not unpickled. Values are other people's data and may be anything, so
//! what is longer than [`LONGEST`] is not read, every reader's memory is bounded, and none panics or recurses without bound.
//! The trap: names that only look like sessions (`websauna_session_test`) and values that were not written
//! by the store. Both are [`Unreadable`], and whoever reads them leaves them alone.

mod datum;
mod express;
mod php;
mod pickle;
mod python;
mod rack;
pub mod spring;

use std::time::Duration;

use self::spring::Companions;
use super::facts::{Role, Times, Unreadable};
use crate::config::SessionStore;

/// The longest string that is read, in bytes. Whatever stands in it, reading it takes less than 32 MiB.
pub const LONGEST: usize = 1 << 20;

/// Whether a store's values are looked at before anything is done to its keys.
pub fn reads_values(store: SessionStore) -> bool {
    // The names of Celery's results are strict; what is in them matters for `max_age` alone.
    !matches!(store, SessionStore::Opaque)
}

/// Whether the framework renews the TTL of a session without one when it is used, or writes its end into it. Where
/// it does neither, a TTL from outside would end sessions that are in use:
/// - connect-redis leaves out the TTL with `disableTTL` alone, and then never sends one;
/// - pyramid_session_redis does so with `set_redis_ttl = false`. By default the session then has its end in it, which
///   is renewed; with `python_expires = false` it has none.
pub fn renews_on_use(store: SessionStore, times: &Times) -> bool {
    match store {
        SessionStore::Express => false,
        SessionStore::PyramidSessionRedis => times.ends_ms.is_some(),
        _ => true,
    }
}

/// What the framework itself adds to a session's timeout when it sets the TTL of its key.
pub fn margin(store: SessionStore) -> Duration {
    match store {
        SessionStore::Spring => spring::MARGIN,
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

/// What a key is in the eyes of a store, by its name, whatever the rule's regex takes.
pub fn role(store: SessionStore, key: &[u8]) -> Role {
    match store {
        // phpredis puts it after the name of the session that it locks.
        SessionStore::Php if key.ends_with(b"_LOCK") => Role::Lock,
        SessionStore::Spring if spring::split(key).is_none() => Role::Other,
        SessionStore::Celery if !is_celery_result(key) => Role::Other,
        _ => Role::Session,
    }
}

/// Whether a key holds a result of Celery: `celery-task-meta-<id>` of a task, `celery-taskset-meta-<id>` of a
/// group with `.j`, `.s`, `.t`, `.c` or `.d` after it of a chord; `global_keyprefix` may stand in front. The names of
/// kombu's bindings and queues are not of this shape.
fn is_celery_result(key: &[u8]) -> bool {
    let id = [b"celery-task-meta-".as_slice(), b"celery-taskset-meta-"]
        .into_iter()
        .find_map(|kind| {
            let at = key.windows(kind.len()).position(|part| part == kind)?;
            Some((&key[..at], &key[at + kind.len()..]))
        });
    id.is_some_and(|(prefix, id)| {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-".contains(byte);
        !id.is_empty() && id.iter().all(plain) && !prefix.windows(7).any(|part| part == b"_kombu.")
    })
}

/// Reads a string value.
///
/// # Errors
/// When it is not what the store writes, or too long to be read.
pub fn read_text(store: SessionStore, value: &[u8]) -> Result<Times, Unreadable> {
    if value.len() > LONGEST {
        return Err(Unreadable::TooLong);
    }
    match store {
        SessionStore::Pyramid => python::read_pyramid(value),
        SessionStore::PyramidSessionRedis => python::read_pyramid_session_redis(value),
        SessionStore::Django => python::read_django(value),
        SessionStore::Flask => python::read_flask(value),
        SessionStore::Express => express::read(value),
        SessionStore::Php => php::read_php(value),
        SessionStore::Rack => rack::read(value),
        SessionStore::Laravel => php::read_laravel(value),
        SessionStore::Spring => Err(Unreadable::WrongType),
        SessionStore::Celery => Ok(python::read_celery(value)),
        SessionStore::Opaque => Ok(Times::default()),
    }
}

/// The fields of a hash that are read, for HMGET.
pub fn hash_fields(store: SessionStore) -> &'static [&'static [u8]] {
    match store {
        SessionStore::Spring => &spring::FIELDS,
        _ => &[],
    }
}

/// Reads a hash from the values of its [`hash_fields`], in their order; `None` for a field that it does not have.
///
/// # Errors
/// When it is not what the store writes.
pub fn read_hash(store: SessionStore, values: &[Option<&[u8]>]) -> Result<Times, Unreadable> {
    match store {
        SessionStore::Spring => spring::read(values),
        _ => Err(Unreadable::WrongType),
    }
}

/// What stands beside a session and goes with it, from its key and the values of its [`hash_fields`]; `None` where
/// the store keeps a session in one key, or the key is not that of a session.
pub fn companions(store: SessionStore, key: &[u8], values: &[Option<&[u8]>]) -> Option<Companions> {
    match store {
        SessionStore::Spring => spring::companions(key, values),
        _ => None,
    }
}
