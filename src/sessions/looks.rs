//! What a key may be a session of, by its name alone.
//!
//! A name proves little, and whoever asks here looks at values next. What frameworks write is in
//! [`SessionStore::default_match`]; prefixes are configurable, so here the shape of the ID decides, and of the
//! prefix only what the framework puts there itself.

use crate::config::SessionStore;
use crate::prefixes::cut::{Cut, Shape};

/// An ID, and the regex that takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Id {
    Hex64,
    Token64,
    Token43,
    Token32,
    Uuid,
    Django,
    Php,
    Laravel,
    Celery,
}

impl Id {
    /// The regex.
    pub(super) fn regex(self) -> &'static str {
        match self {
            Id::Hex64 => "[0-9a-f]{64}",
            Id::Token64 => "[A-Za-z0-9_-]{64}",
            Id::Token43 => "[A-Za-z0-9_-]{43}",
            Id::Token32 => "[A-Za-z0-9_-]{32}",
            Id::Uuid => "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
            Id::Django => "[0-9a-z]{32}",
            Id::Php => "[0-9a-zA-Z,-]{22,256}(?:_LOCK)?",
            Id::Laravel => "[A-Za-z0-9]{40}",
            Id::Celery => "celery-(?:task|taskset)-meta-[0-9a-zA-Z_.-]+",
        }
    }
}

/// What a key may be a session of, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Looks {
    pub(super) store: SessionStore,
    pub(super) id: Id,
}

/// Looks at a name alone.
pub(super) fn looks(cut: &Cut<'_>) -> Option<Looks> {
    let Cut { prefix, rest, .. } = *cut;
    let of = |store, id| Some(Looks { store, id });
    if prefix.ends_with(b"celery-task-meta-") || prefix.ends_with(b"celery-taskset-meta-") {
        return of(SessionStore::Celery, Id::Celery);
    }
    if prefix.ends_with(b"django.contrib.sessions.cache")
        || prefix.ends_with(b"django.contrib.sessions.cached_db")
    {
        let small = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        return (rest.len() == 32 && rest.iter().all(small)).then_some(Looks {
            store: SessionStore::Django,
            id: Id::Django,
        });
    }
    let colon = prefix.ends_with(b":");
    let session = has(prefix, b"sess");
    match cut.shape {
        Shape::Hex(64) if rest.iter().any(u8::is_ascii_uppercase) => None,
        Shape::Hex(64) if prefix.ends_with(b"2::") => of(SessionStore::Rack, Id::Hex64),
        Shape::Hex(64) => of(SessionStore::Pyramid, Id::Hex64),
        Shape::Token(64) => of(SessionStore::PyramidSessionRedis, Id::Token64),
        Shape::Uuid if prefix.starts_with(b"spring:session:") => {
            // Not the marker of its expiry, nor an index.
            prefix.ends_with(b":sessions:").then_some(Looks {
                store: SessionStore::Spring,
                id: Id::Uuid,
            })
        }
        Shape::Uuid if colon && session => of(SessionStore::Flask, Id::Uuid),
        _ if prefix.ends_with(b"PHPREDIS_SESSION:") && is_php(rest) => {
            of(SessionStore::Php, Id::Php)
        }
        Shape::Token(43) if colon => of(SessionStore::Flask, Id::Token43),
        Shape::Token(32) if colon => of(SessionStore::Express, Id::Token32),
        Shape::Token(40) | Shape::Hex(40) if has(prefix, b"cache") && !rest.contains(&b'-') => {
            of(SessionStore::Laravel, Id::Laravel)
        }
        Shape::Token(_) | Shape::Hex(_) if colon && session && is_php(rest) => {
            of(SessionStore::Php, Id::Php)
        }
        _ => None,
    }
}

fn is_php(rest: &[u8]) -> bool {
    let id = rest.strip_suffix(b"_LOCK").unwrap_or(rest);
    (22..=256).contains(&id.len())
        && id
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b',' | b'-'))
}

/// Whether a word is in it, in whatever case.
pub(super) fn has(prefix: &[u8], word: &[u8]) -> bool {
    prefix
        .windows(word.len())
        .any(|part| part.eq_ignore_ascii_case(word))
}

/// Names that nothing else has.
pub(super) fn is_unmistakable(looks: Looks) -> bool {
    matches!(
        looks.store,
        SessionStore::Spring | SessionStore::Celery | SessionStore::Django | SessionStore::Rack
    )
}
