//! `[[database.sessions]]`: which keys are sessions, of which framework, and how long they live.
//!
//! The first rule that takes a key decides on it. What a store is (the names of its keys, whether it says when
//! a session began) stands here, because mistakes against it are told with all the others; what its values
//! look like is known to the room `sessions`.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use regex::bytes::{Regex, RegexBuilder};
use toml::Spanned;
use toml::de::DeValue;

use super::choices::ChoiceError;
use super::reader::{Reading, TableReader, nearest};

/// `OBJECT IDLETIME` counts in 24 bits of seconds, 194 days: longer timeouts cannot be told by it.
const LONGEST_IDLE: Duration = Duration::from_secs(180 * 86_400);

/// Nobody means more, and no server takes an expiry that lies too far ahead.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The software that keeps the sessions (`store`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SessionStore {
    /// `pyramid_redis_sessions`, Websauna's too.
    Pyramid,
    /// `pyramid_session_redis`.
    PyramidSessionRedis,
    /// Django's sessions in a Redis cache (`cache` and `cached_db`), also by django-redis.
    Django,
    /// Flask-Session.
    Flask,
    /// express-session with connect-redis.
    Express,
    /// PHP's own sessions by phpredis.
    Php,
    /// redis-rack and what is built on it (redis-actionpack, redis-rails).
    Rack,
    /// Laravel's `redis` session driver.
    Laravel,
    /// Spring Session.
    Spring,
    /// Celery's results, and nothing else of Celery.
    Celery,
    /// Anything else: only names, TTLs and idle times count, values are not read.
    Opaque,
}

impl SessionStore {
    /// Every store, in the order in which they are documented.
    pub const ALL: [SessionStore; 11] = [
        SessionStore::Pyramid,
        SessionStore::PyramidSessionRedis,
        SessionStore::Django,
        SessionStore::Flask,
        SessionStore::Express,
        SessionStore::Php,
        SessionStore::Rack,
        SessionStore::Laravel,
        SessionStore::Spring,
        SessionStore::Celery,
        SessionStore::Opaque,
    ];

    /// The word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            SessionStore::Pyramid => "pyramid",
            SessionStore::PyramidSessionRedis => "pyramid-session-redis",
            SessionStore::Django => "django",
            SessionStore::Flask => "flask",
            SessionStore::Express => "express",
            SessionStore::Php => "php",
            SessionStore::Rack => "rack",
            SessionStore::Laravel => "laravel",
            SessionStore::Spring => "spring",
            SessionStore::Celery => "celery",
            SessionStore::Opaque => "opaque",
        }
    }

    /// The names of its keys as the software makes them by itself, a regex on bytes; `None`: `match` is needed.
    pub fn default_match(self) -> Option<&'static str> {
        Some(match self {
            // The prefix is configurable and empty by default; Websauna's has no colon.
            SessionStore::Pyramid => r"^(?:[A-Za-z0-9_.-]+:|[A-Za-z0-9_.-]*_session)?[0-9a-f]{64}$",
            SessionStore::PyramidSessionRedis => r"^(?:[A-Za-z0-9_.-]+:)?[A-Za-z0-9_-]{64}$",
            SessionStore::Django => {
                r"^[^:]*:[0-9]+:django\.contrib\.sessions\.(?:cache|cached_db)[0-9a-z]{32}$"
            }
            SessionStore::Flask => {
                r"^session:(?:[A-Za-z0-9_-]{43}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$"
            }
            SessionStore::Express => r"^sess:[A-Za-z0-9_-]{32}$",
            // A lock that its owner left behind is told of, and left.
            SessionStore::Php => r"^PHPREDIS_SESSION:[0-9a-zA-Z,-]{22,256}(?:_LOCK)?$",
            SessionStore::Rack => r"^(?:[^:]+:)*2::[0-9a-f]{64}$",
            SessionStore::Laravel => {
                // Releases differ in what stands after `cache`: `:`, `_:`, `_` or `-`.
                r"^[a-z0-9_-]+[_-]database[_-][a-z0-9_-]*cache(?:[_-]:?|:)[A-Za-z0-9]{40}$"
            }
            SessionStore::Spring => {
                r"^spring:session(?::[^:]+)*:sessions:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
            }
            SessionStore::Celery => r"^celery-(?:task|taskset)-meta-[0-9a-zA-Z_.-]+$",
            SessionStore::Opaque => return None,
        })
    }

    /// Whether its values say when a session began (for Celery: when the task was done).
    pub fn keeps_creation(self) -> bool {
        matches!(
            self,
            SessionStore::Pyramid
                | SessionStore::PyramidSessionRedis
                | SessionStore::Spring
                | SessionStore::Celery
        )
    }

    /// Whether its values say until when a session lives, so that idle times have nothing to add.
    pub fn keeps_last_access(self) -> bool {
        matches!(self, SessionStore::Spring)
    }
}

impl fmt::Display for SessionStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for SessionStore {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<SessionStore, ChoiceError> {
        let found = SessionStore::ALL
            .into_iter()
            .find(|store| store.as_str() == text);
        found.ok_or_else(|| {
            let known = SessionStore::ALL.map(SessionStore::as_str);
            ChoiceError::SessionStore {
                text: text.to_owned(),
                near: nearest(text, known.into_iter()).map(str::to_owned),
                known: known.join(", "),
            }
        })
    }
}

/// What happens to a session without TTL (`missing_ttl`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingTtl {
    /// It gets one.
    #[default]
    Set,
    /// It is counted.
    Report,
}

impl FromStr for MissingTtl {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<MissingTtl, ChoiceError> {
        match text {
            "set" => Ok(MissingTtl::Set),
            "report" => Ok(MissingTtl::Report),
            _ => Err(ChoiceError::OneOf {
                text: text.to_owned(),
                known: "`set` or `report`",
            }),
        }
    }
}

/// What happens to a session whose TTL is longer than the timeout (`long_ttl`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LongTtl {
    /// It is left.
    #[default]
    Keep,
    /// It is shortened, never below the session's own timeout.
    Shorten,
}

impl FromStr for LongTtl {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<LongTtl, ChoiceError> {
        match text {
            "keep" => Ok(LongTtl::Keep),
            "shorten" => Ok(LongTtl::Shorten),
            _ => Err(ChoiceError::OneOf {
                text: text.to_owned(),
                known: "`keep` or `shorten`",
            }),
        }
    }
}

/// A regex on a key's bytes. Two are equal when they are written alike.
#[derive(Clone, Debug)]
pub struct KeyRegex(Regex);

impl KeyRegex {
    /// Compiles it. `.` takes any byte, `\d` and `\w` are ASCII.
    ///
    /// # Errors
    /// What is wrong with it, on one line or several.
    pub fn new(text: &str) -> Result<KeyRegex, String> {
        RegexBuilder::new(text)
            .unicode(false)
            .dot_matches_new_line(true)
            .build()
            .map(KeyRegex)
            .map_err(|error| error.to_string())
    }

    /// Whether it takes a key.
    pub fn matches(&self, key: &[u8]) -> bool {
        self.0.is_match(key)
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl PartialEq for KeyRegex {
    fn eq(&self, other: &KeyRegex) -> bool {
        self.as_str() == other.as_str()
    }
}

/// One `[[database.sessions]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionRule {
    /// The software that keeps the sessions.
    pub store: SessionStore,
    /// Which keys are meant.
    pub pattern: KeyRegex,
    /// How long a session lives after its last use.
    pub timeout: Duration,
    /// How long a session lives after its creation, however much it is used.
    pub max_age: Option<Duration>,
    /// What is added to every end that a value tells, for clocks that differ.
    pub grace: Duration,
    /// What happens to a session without TTL.
    pub missing_ttl: MissingTtl,
    /// What happens to a session whose TTL is too long.
    pub long_ttl: LongTtl,
    /// Whether sessions that were not used for longer than the timeout are deleted, by OBJECT IDLETIME.
    pub idle: bool,
}

impl SessionRule {
    /// A rule with every default.
    pub fn new(store: SessionStore, pattern: KeyRegex, timeout: Duration) -> SessionRule {
        SessionRule {
            store,
            pattern,
            timeout,
            max_age: None,
            grace: Duration::from_secs(3600),
            missing_ttl: MissingTtl::default(),
            long_ttl: LongTtl::default(),
            idle: false,
        }
    }
}

/// Reads `sessions`, an array of tables.
pub(super) fn read_rules(reader: &TableReader<'_, '_>) -> Option<Vec<SessionRule>> {
    let value = reader.raw("sessions")?;
    let reading = reader.reading();
    let DeValue::Array(items) = value.get_ref() else {
        reading.mistake(
            reader.key_span("sessions").unwrap_or(value.span()),
            "a rule for sessions is written [[database.sessions]], with two brackets, for there may be several",
        );
        return None;
    };
    Some(
        items
            .iter()
            .filter_map(|item| read_rule(reading, item))
            .collect(),
    )
}

fn read_rule(reading: &Reading<'_>, item: &Spanned<DeValue<'_>>) -> Option<SessionRule> {
    let Some(table) = item.get_ref().as_table() else {
        reading.mistake(
            item.span(),
            "a rule for sessions is a table: [[database.sessions]]",
        );
        return None;
    };
    let reader = TableReader::new(reading, table, "[[database.sessions]]");
    for key in ["store", "timeout"] {
        if reader.key_span(key).is_none() {
            reading.missing(
                Some(item.span()),
                format!("this [[database.sessions]] has no `{key}`"),
            );
        }
    }
    let store = reader
        .parsed::<SessionStore>("store")
        .map(|found| found.value);
    let pattern = read_pattern(&reader, store, item.span());
    let timeout = positive(&reader, "timeout");
    let max_age = positive(&reader, "max_age");
    let grace = reader.duration("grace");
    if let Some(found) = &grace
        && found.value > LONGEST
    {
        reading.mistake(found.span.clone(), "`grace` is at most a hundred years");
    }
    let grace = grace.map(|found| found.value);
    let missing_ttl = reader.parsed("missing_ttl").map(|found| found.value);
    let long_ttl = reader.parsed("long_ttl").map(|found| found.value);
    let idle = reader.boolean("idle").unwrap_or(false);
    if let (Some(store), Some(_), Some(span)) = (store, max_age, reader.key_span("max_age"))
        && !store.keeps_creation()
    {
        reading.mistake(
            span,
            format!("`max_age` needs to know when a session began, and `{store}` does not keep that; drop it"),
        );
    }
    if let (true, Some(store), Some(span)) = (idle, store, reader.key_span("idle")) {
        if store.keeps_last_access() {
            reading.mistake(
                span,
                format!("`idle` has nothing to add for `{store}`, whose sessions say when they were used last; drop it"),
            );
        } else if timeout.is_some_and(|timeout| timeout > LONGEST_IDLE) {
            reading.mistake(
                span,
                "`idle` works for a `timeout` up to 180 days: a server's idle clock starts anew after 194",
            );
        }
    }
    reader.finish(&[]);
    let mut rule = SessionRule::new(store?, pattern?, timeout?);
    rule.max_age = max_age;
    rule.grace = grace.unwrap_or(rule.grace);
    rule.missing_ttl = missing_ttl.unwrap_or_default();
    rule.long_ttl = long_ttl.unwrap_or_default();
    rule.idle = idle;
    Some(rule)
}

fn read_pattern(
    reader: &TableReader<'_, '_>,
    store: Option<SessionStore>,
    rule: Range<usize>,
) -> Option<KeyRegex> {
    let reading = reader.reading();
    if reader.key_span("match").is_none() {
        let _ = reader.raw("match");
        let own = store?.default_match();
        if own.is_none() {
            reading.missing(
                Some(rule),
                "`store = \"opaque\"` needs `match`: a regex that takes the keys of sessions, and no other",
            );
        }
        return KeyRegex::new(own?).ok();
    }
    let found = reader.text("match")?;
    let pattern = match KeyRegex::new(&found.value) {
        Ok(pattern) => pattern,
        Err(why) => {
            reading.mistake(found.span, format!("`match` is no regex: {why}"));
            return None;
        }
    };
    if pattern.matches(b"") {
        reading.mistake(
            found.span,
            "`match` takes every key: say what the keys of sessions begin with, as in '^session:'",
        );
        return None;
    }
    Some(pattern)
}

fn positive(reader: &TableReader<'_, '_>, key: &'static str) -> Option<Duration> {
    let found = reader.duration(key)?;
    let wrong = match found.value {
        value if value < Duration::from_secs(1) => "at least one second",
        value if value > LONGEST => "at most a hundred years",
        value => return Some(value),
    };
    let reading = reader.reading();
    reading.mistake(found.span, format!("`{key}` is {wrong}"));
    None
}
