//! The rule to write for sessions that no rule takes.
//!
//! A name that looks right proves little: 64 hex digits may be anything. So keys are put into classes by prefix and
//! by the shape of their ID, some values of each class are read as the store's that it would be, and a rule is
//! suggested when nearly all of them are. Hashes cannot be read here; Spring's names are unmistakable, and the
//! suggestion says on what it rests. What stands beside sessions (queues, bindings, throttles, caches) is never
//! suggested, for no store's values are read from it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::facts::{Expiry, OwnTimeout, Role};
use super::looks::{Id, Looks, has, is_unmistakable, looks};
use super::stores;
use crate::config::SessionStore;
use crate::prefixes::cut::Cut;

/// At most so many classes are kept of a database.
const MOST: usize = 64;
/// So many values of a class are read at first, then one in so many keys, up to a bound.
const FIRST: u64 = 16;
const ONE_IN: u64 = 4096;
const AT_MOST: u64 = 64;
/// A prefix that may be the beginning of an ID is believed when so many keys share it.
const SHARED_BY: u64 = 8;

#[derive(Clone, Debug, Default)]
struct Class {
    sure: bool,
    asked: u64,
    keys: u64,
    without_ttl: u64,
    longest_ms: i64,
    read: u64,
    right: u64,
    for_ever: u64,
    /// Own timeouts, and how often each was read.
    timeouts: Vec<(Duration, u64)>,
}

/// Keys that no rule takes and that look like sessions, by class.
#[derive(Clone, Debug, Default)]
pub(super) struct Classes {
    classes: HashMap<Looks, HashMap<Box<[u8]>, Class>>,
    count: usize,
}

impl Classes {
    fn class(&mut self, looks: Looks, cut: &Cut<'_>) -> Option<&mut Class> {
        let mut prefix = cut.prefix;
        if looks.id == Id::Celery {
            // Tasks and groups are one rule.
            for name in [&b"celery-task-meta-"[..], b"celery-taskset-meta-"] {
                prefix = prefix.strip_suffix(name).unwrap_or(prefix);
            }
        }
        let same = self.classes.entry(looks).or_default();
        if !same.contains_key(prefix) {
            if self.count >= MOST {
                return None;
            }
            self.count += 1;
            same.insert(prefix.into(), Class::default());
        }
        let class = same.get_mut(prefix)?;
        class.sure |= cut.sure;
        Some(class)
    }

    /// Whether the value of this key should be read.
    pub(super) fn wish(&mut self, cut: &Cut<'_>) -> bool {
        let Some(looks) = looks(cut) else {
            return false;
        };
        let Some(class) = self.class(looks, cut) else {
            return false;
        };
        class.asked += 1;
        // A hash is not read here, and Celery's results may be of any type: their names are enough.
        stores::shape(looks.store) == stores::Shape::Text
            && class.read < AT_MOST
            && (class.asked <= FIRST || class.asked.is_multiple_of(ONE_IN))
    }

    /// Counts a key that no rule takes.
    pub(super) fn add(
        &mut self,
        key: &[u8],
        cut: &Cut<'_>,
        expiry: Option<Expiry>,
        raw: Option<&[u8]>,
        now_ms: i64,
    ) {
        let Some(looks) = looks(cut) else { return };
        // A lock or the like stands beside sessions, and is none.
        if stores::role(looks.store, key) != Role::Session {
            return;
        }
        let Some(class) = self.class(looks, cut) else {
            return;
        };
        class.keys += 1;
        match expiry {
            Some(Expiry::At(at)) => {
                class.longest_ms = class.longest_ms.max(at.saturating_sub(now_ms));
            }
            Some(Expiry::Never) => class.without_ttl += 1,
            None => {}
        }
        let Some(raw) = raw else { return };
        class.read += 1;
        // A map in msgpack may be anything: Flask's own mark is looked for where the name says nothing.
        let marked = looks.store != SessionStore::Flask
            || has(cut.prefix, b"sess")
            || has(raw, b"_permanent");
        if let (true, Ok(times)) = (marked, stores::read_text(looks.store, raw)) {
            class.right += 1;
            match times.timeout {
                OwnTimeout::After(own) if !own.is_zero() => class.own_timeout(own),
                OwnTimeout::Never => class.for_ever += 1,
                _ => {}
            }
        }
    }

    /// The rules to write, those with the most keys first.
    pub(super) fn finish(self) -> Vec<Suggestion> {
        let mut suggestions = Vec::new();
        for (looks, same) in self.classes {
            for (prefix, class) in same {
                suggestions.extend(class.suggest(looks, &prefix));
            }
        }
        suggestions.sort_by(|a: &Suggestion, b| {
            b.keys.cmp(&a.keys).then_with(|| a.pattern.cmp(&b.pattern))
        });
        suggestions
    }
}

impl Class {
    fn own_timeout(&mut self, own: Duration) {
        let known = self.timeouts.iter().position(|(known, _)| *known == own);
        match known {
            Some(at) => self.timeouts[at].1 += 1,
            None if self.timeouts.len() < 16 => self.timeouts.push((own, 1)),
            None => {}
        }
    }

    fn suggest(&self, looks: Looks, prefix: &[u8]) -> Option<Suggestion> {
        let by_name = self.read == 0 && is_unmistakable(looks);
        // Nearly all: a value may have been cut off, or be of an older version.
        let by_value = self.right > 0 && self.right * 10 >= self.read * 9;
        let known = self.sure || self.keys >= SHARED_BY;
        if self.keys == 0 || !known || !(by_name || by_value) {
            return None;
        }
        let pattern = format!("^{}{}$", escaped(prefix), looks.id.regex());
        let (timeout, evidence) = self.timeout(looks.store);
        let mut suggestion = Suggestion {
            store: looks.store.as_str(),
            pattern,
            timeout: timeout.map(|timeout| timeout.as_secs()),
            timeout_from: evidence,
            keys: self.keys,
            without_ttl: self.without_ttl,
            read: self.read,
            read_as_store: self.right,
            for_ever: self.for_ever,
            toml: String::new(),
        };
        suggestion.toml = suggestion.write();
        Some(suggestion)
    }

    fn timeout(&self, store: SessionStore) -> (Option<Duration>, Option<TimeoutFrom>) {
        let most = self
            .timeouts
            .iter()
            .max_by_key(|(own, times)| (*times, *own));
        // Where most sessions have none of their own, those that do are the exceptions.
        if let Some((own, _)) = most.filter(|(_, times)| times * 2 >= self.right) {
            return (Some(*own), Some(TimeoutFrom::Sessions));
        }
        let longest = u64::try_from(self.longest_ms).unwrap_or(0);
        let longest = Duration::from_millis(longest).saturating_sub(stores::margin(store));
        // A key or two with a TTL say nothing of those without.
        let with_ttl = self.keys.saturating_sub(self.without_ttl);
        if longest.is_zero() || with_ttl < 10 && with_ttl * 2 < self.keys {
            return (None, None);
        }
        (Some(rounded_up(longest)), Some(TimeoutFrom::LongestTtl))
    }
}

/// The prefix as a regex that takes it and nothing else, in ASCII, and fit for a literal string of TOML.
fn escaped(prefix: &[u8]) -> String {
    let mut text = String::new();
    for byte in prefix {
        match byte {
            b'\'' => text.push_str(r"\x27"),
            b'-' => text.push('-'),
            b' '..=b'~' => text.push_str(&regex::escape(&char::from(*byte).to_string())),
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(text, r"\x{byte:02x}");
            }
        }
    }
    text
}

const MINUTE: u64 = 60;
const HOUR: u64 = 3600;
const DAY: u64 = 86_400;

/// The next duration that people configure.
fn rounded_up(longest: Duration) -> Duration {
    const USUAL: [u64; 25] = [
        5 * MINUTE,
        10 * MINUTE,
        15 * MINUTE,
        20 * MINUTE,
        24 * MINUTE,
        30 * MINUTE,
        HOUR,
        90 * MINUTE,
        2 * HOUR,
        3 * HOUR,
        4 * HOUR,
        6 * HOUR,
        8 * HOUR,
        12 * HOUR,
        DAY,
        2 * DAY,
        3 * DAY,
        7 * DAY,
        14 * DAY,
        30 * DAY,
        31 * DAY,
        60 * DAY,
        90 * DAY,
        180 * DAY,
        365 * DAY,
    ];
    let usual = USUAL.map(Duration::from_secs);
    let found = usual.into_iter().find(|usual| *usual >= longest);
    found.unwrap_or_else(|| {
        let seconds = longest.as_secs() + u64::from(longest.subsec_nanos() > 0);
        Duration::from_secs(seconds.div_ceil(DAY) * DAY)
    })
}

/// A duration as the configuration has it, in its largest whole unit.
fn written(seconds: u64) -> String {
    for (worth, unit) in [(DAY, "d"), (HOUR, "h"), (MINUTE, "m")] {
        if seconds > 0 && seconds.is_multiple_of(worth) {
            return format!("{}{unit}", seconds / worth);
        }
    }
    format!("{seconds}s")
}

/// Where a suggested timeout comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeoutFrom {
    /// It stands in most of the sessions that were read.
    Sessions,
    /// It is the longest TTL that a key has left, rounded up.
    LongestTtl,
}

/// A rule that could be written.
///
/// ```json
/// { "store": "pyramid", "match": "^websauna_session[0-9a-f]{64}$", "timeout": 31536000, "timeout_from": "sessions",
///   "keys": 2000000, "without_ttl": 1900000, "read": 64, "read_as_store": 64, "for_ever": 0, "toml": "[[database.sessions]]\n…" }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Suggestion {
    /// The store, the word of the configuration.
    pub store: &'static str,
    /// The regex.
    #[serde(rename = "match")]
    pub pattern: String,
    /// The timeout in seconds; `null` where nothing tells it.
    pub timeout: Option<u64>,
    /// Where the timeout comes from.
    pub timeout_from: Option<TimeoutFrom>,
    /// The keys that it would take.
    pub keys: u64,
    /// Those of them that never expire.
    pub without_ttl: u64,
    /// How many values were read to make sure; 0: the names are all that is known.
    pub read: u64,
    /// How many of those are what the store writes.
    pub read_as_store: u64,
    /// How many of those say of themselves that they never end.
    pub for_ever: u64,
    /// The rule, to be pasted below its `[[database]]`.
    pub toml: String,
}

impl Suggestion {
    fn write(&self) -> String {
        let timeout = match self.timeout {
            Some(timeout) => {
                let from = match self.timeout_from {
                    Some(TimeoutFrom::LongestTtl) => {
                        "   # a guess from the longest TTL seen: write what the application has"
                    }
                    _ => "",
                };
                format!("\"{}\"{from}", written(timeout))
            }
            None => "\"\"   # as the application is configured: nothing here tells it".to_owned(),
        };
        format!(
            "[[database.sessions]]\nstore   = \"{}\"\nmatch   = '{}'\ntimeout = {timeout}\n",
            self.store, self.pattern
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
