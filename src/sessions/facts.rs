//! What is known of one key when it is decided upon.
//!
//! Two clocks meet here. Expiry and idle time are the server's; what stands in a value is the clock of the
//! machine that the web application runs on. A rule's `grace` is for the difference.

use std::time::Duration;

/// When the server removes a key by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Never: the key has no TTL.
    Never,
    /// At this Unix time in milliseconds, by the server's clock.
    At(i64),
}

/// What a key is, by its name and in the eyes of its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A session; of Celery, a result.
    Session,
    /// A lock on a session.
    Lock,
    /// Something that stands beside sessions: an index, a marker, a queue. Never touched by itself.
    Other,
}

/// The timeout that a session has of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OwnTimeout {
    /// The value says nothing about it.
    #[default]
    Unknown,
    /// So long after its last use.
    After(Duration),
    /// It is meant to last for ever.
    Never,
}

/// The times that a store keeps in a session. All are Unix times in milliseconds, by the clock of the
/// web application, as they stand there: the decision passes over those that cannot be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// When the session began.
    pub created_ms: Option<i64>,
    /// When it was used last.
    pub last_access_ms: Option<i64>,
    /// When it is over: from then on the framework itself takes it no more.
    pub ends_ms: Option<i64>,
    /// Its own timeout.
    pub timeout: OwnTimeout,
}

/// Why a value is not what its store writes. The texts are part of the JSON output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unreadable {
    /// It is of another type, such as a list in the place of a string.
    WrongType,
    /// It is longer than what is read of a value.
    TooLong,
    /// It is not of the store's format, or not whole.
    Format,
    /// The format is right, and the content is not a session.
    NotASession,
}

impl Unreadable {
    /// The reason in a few words.
    pub fn as_str(self) -> &'static str {
        match self {
            Unreadable::WrongType => "another type",
            Unreadable::TooLong => "too long",
            Unreadable::Format => "not the store's format",
            Unreadable::NotASession => "not a session",
        }
    }
}

/// What is known of a key's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// Not looked at yet, or the store has nothing to read.
    NotRead,
    /// It is not what its store writes.
    Unreadable(Unreadable),
    /// It is a session of its store.
    Read(Times),
}

/// What is known of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyFacts {
    /// What it is, by its name.
    pub role: Role,
    /// When the server removes it.
    pub expiry: Expiry,
    /// Its value.
    pub value: Value,
    /// A stretch of time in which it was certainly not used; `None` where that is not known.
    pub unused: Option<Duration>,
}
