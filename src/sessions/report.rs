//! What an operator reads before anything is done: the rules, lifetimes, what never expires, what to write.
//!
//! An observer of a sweep that writes nothing. Its memory is bounded whatever the data: counters, some thousand
//! prefixes, and one key a rule. What is said from a sample says how large it was.

use jiff::Timestamp;
use serde::Serialize;

use super::facts::{Expiry, Value};
use super::histogram::Histogram;
use super::observe::{Found, Observer, Seen, Wish};
use super::prefixes::{Lasting, counted};
use super::suggest::Classes;
use super::sweep::Swept;
use super::tally::{Tally, expiry};
use crate::config::SessionRule;
use crate::prefixes::Prefixes;
use crate::prefixes::cut::{cut, masked};
use crate::selection::{KeyNames, shown};

pub use super::prefixes::{OtherPrefixes, PrefixCounts};
pub use super::sample::KeysHeld;
pub use super::suggest::{Suggestion, TimeoutFrom};
pub use super::tally::{RuleCounts, RuleFacts};

/// Of the keys with TTL that a rule takes so many are read at first, then one in so many, up to a bound.
const FIRST: u64 = 64;
const ONE_IN: u64 = 100;
const AT_MOST: u64 = 4000;

/// The observer.
#[derive(Clone, Debug)]
pub struct Report {
    rules: Vec<SessionRule>,
    databases: Vec<(u32, Database)>,
    /// Where the database is that was seen last.
    current: usize,
}

#[derive(Clone, Debug)]
struct Database {
    tally: Tally,
    lives: Vec<Lives>,
    with_ttl: u64,
    prefixes: Prefixes<Lasting>,
    classes: Classes,
}

/// What is known of one rule's sessions beyond the counts.
#[derive(Clone, Debug, Default)]
struct Lives {
    keeps_creation: bool,
    asked: u64,
    sampled: u64,
    dated: u64,
    ttl: Histogram,
    oldest: Option<(i64, Vec<u8>)>,
}

impl Report {
    /// A report on a sweep with these rules.
    pub fn new(rules: &[SessionRule]) -> Report {
        Report {
            rules: rules.to_vec(),
            databases: Vec::new(),
            current: 0,
        }
    }

    fn database(&mut self, db: u32) -> &mut Database {
        if self.databases.get(self.current).map(|(db, _)| *db) != Some(db) {
            let known = self.databases.iter().position(|(known, _)| *known == db);
            self.current = known.unwrap_or(self.databases.len());
            if known.is_none() {
                self.databases.push((db, Database::new(&self.rules)));
            }
        }
        &mut self.databases[self.current].1
    }

    /// Makes sure that a database is reported although it has no key.
    pub fn visit(&mut self, db: u32) {
        let _ = self.database(db);
    }

    /// The findings by database, in the order of their numbers. `now_ms` is the server's time.
    pub fn finish(mut self, names: KeyNames, now_ms: i64) -> Vec<DatabaseReport> {
        self.databases.sort_by_key(|(db, _)| *db);
        let finish = |(db, found): (u32, Database)| found.finish(db, names, now_ms);
        self.databases.into_iter().map(finish).collect()
    }
}

impl Observer for Report {
    fn wish(&mut self, found: &Found<'_>) -> Wish {
        self.database(found.db).wish(found)
    }

    fn seen(&mut self, seen: &Seen<'_>) {
        self.database(seen.found.db).seen(seen);
    }

    fn begun_again(&mut self, db: u32) {
        *self.database(db) = Database::new(&self.rules.clone());
    }
}

impl Database {
    fn new(rules: &[SessionRule]) -> Database {
        let lives = |rule: &SessionRule| Lives {
            keeps_creation: rule.store.keeps_creation(),
            ..Lives::default()
        };
        Database {
            tally: Tally::new(rules),
            lives: rules.iter().map(lives).collect(),
            with_ttl: 0,
            prefixes: Prefixes::default(),
            classes: Classes::default(),
        }
    }

    fn wish(&mut self, found: &Found<'_>) -> Wish {
        let with_ttl = matches!(found.expiry, Some(Expiry::At(_)));
        let lives = found.rule.and_then(|rule| self.lives.get_mut(rule));
        if let Some(lives) = lives {
            let value = lives.wish();
            let bytes = !with_ttl && self.prefixes.tally(&cut(found.key)).wish();
            return Wish { bytes, value };
        }
        let cut = cut(found.key);
        Wish {
            bytes: !with_ttl && self.prefixes.tally(&cut).wish(),
            value: self.classes.wish(&cut),
        }
    }

    fn seen(&mut self, seen: &Seen<'_>) {
        self.tally.seen(seen);
        let Found { key, rule, .. } = seen.found;
        let expiry = expiry(seen);
        let cut = cut(key);
        self.prefixes.tally(&cut).add(expiry, seen.bytes);
        self.with_ttl += u64::from(matches!(expiry, Some(Expiry::At(_))));
        match rule.and_then(|rule| self.lives.get_mut(rule)) {
            Some(lives) => lives.seen(seen, expiry),
            None => self.classes.add(key, &cut, expiry, seen.raw, seen.now_ms),
        }
    }

    fn finish(self, db: u32, names: KeyNames, now_ms: i64) -> DatabaseReport {
        let without_ttl = self.prefixes.total().without_ttl();
        let (prefixes, other_prefixes) = counted(self.prefixes);
        let rules = self.tally.counts().into_iter().zip(self.lives);
        let rules = rules.map(|(counts, lives)| RuleReport {
            counts,
            ttl: lives.ttl,
            oldest: lives.finish(names, now_ms),
        });
        DatabaseReport {
            db,
            keys: self.tally.scanned(),
            with_ttl: self.with_ttl,
            without_ttl,
            rules: rules.collect(),
            unmatched: self.tally.unmatched(),
            prefixes,
            other_prefixes,
            suggestions: self.classes.finish(),
        }
    }
}

impl Lives {
    fn wish(&mut self) -> bool {
        if !self.keeps_creation || self.sampled >= AT_MOST {
            return false;
        }
        self.asked += 1;
        let wish = self.asked <= FIRST || self.asked.is_multiple_of(ONE_IN);
        self.sampled += u64::from(wish);
        wish
    }

    fn seen(&mut self, seen: &Seen<'_>, expiry: Option<Expiry>) {
        if let Some(expiry) = expiry {
            self.ttl.add(expiry, seen.now_ms);
        }
        let Some(Value::Read(times)) = seen.facts.map(|facts| facts.value) else {
            return;
        };
        // Before 2000 there were none of these, and tomorrow's are not yet there.
        const YEAR_2000_MS: i64 = 946_684_800_000;
        const DAY_MS: i64 = 86_400_000;
        let plausible = YEAR_2000_MS..=seen.now_ms.saturating_add(DAY_MS);
        let Some(created) = times.created_ms.filter(|time| plausible.contains(time)) else {
            return;
        };
        self.dated += 1;
        if self
            .oldest
            .as_ref()
            .is_none_or(|(oldest, _)| created < *oldest)
        {
            self.oldest = Some((created, seen.found.key.to_vec()));
        }
    }

    fn finish(self, names: KeyNames, now_ms: i64) -> Option<Oldest> {
        let (created, key) = self.oldest?;
        let created_at = Timestamp::from_millisecond(created).ok()?;
        let age = u64::try_from(now_ms.saturating_sub(created)).unwrap_or(0) / 1000;
        let key = match names {
            KeyNames::Masked => masked(&key),
            KeyNames::Shown => shown(&key, names),
        };
        Some(Oldest {
            created_at,
            age,
            read: self.dated,
            key,
        })
    }
}

/// What `sessions report` says of one configured database.
///
/// ```json
/// { "database": "sessions", "address": "localhost:6379", "server": "redis 7.0.15", "at": "2026-11-22T21:43:53Z",
///   "databases": [ { "db": 1, … } ] }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReportDocument {
    /// Its name in the configuration.
    pub database: String,
    /// Where the server is.
    pub address: String,
    /// What it is; `null` where the user may not ask.
    pub server: Option<String>,
    /// When the report was made, by the server's clock.
    pub at: Timestamp,
    /// Why nothing counts as idle yet; left out when idle sessions are found, or no rule has `idle`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_waits: Option<String>,
    /// The findings by database number.
    pub databases: Vec<DatabaseReport>,
}

impl ReportDocument {
    /// The document of a sweep that came to its end.
    pub fn new(database: &str, swept: &Swept, report: Report, names: KeyNames) -> ReportDocument {
        ReportDocument {
            database: database.to_owned(),
            address: swept.address.clone(),
            server: swept.server.clone(),
            at: Timestamp::from_millisecond(swept.finished_ms).unwrap_or(Timestamp::UNIX_EPOCH),
            idle_waits: swept.idle_waits.clone(),
            databases: report.finish(names, swept.finished_ms),
        }
    }
}

/// The findings on one database number.
///
/// ```json
/// { "db": 1, "keys": 2104233, "with_ttl": 102856,
///   "without_ttl": { "keys": 2001377, "bytes": 1300895050, "bytes_error": 270000, "sampled": 31302 },
///   "rules": [ … ], "unmatched": 121,
///   "prefixes": [ { "prefix": "websauna_session*", "keys": 2104112, "with_ttl": 102772, "without_ttl": { … } } ],
///   "other_prefixes": { "prefixes": 3, "keys": 7, "with_ttl": 0, "without_ttl": { … } },
///   "suggestions": [ … ] }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DatabaseReport {
    /// Its number.
    pub db: u32,
    /// Its keys.
    pub keys: u64,
    /// Those with a TTL.
    pub with_ttl: u64,
    /// Those that never expire.
    pub without_ttl: KeysHeld,
    /// What each rule would do, in the order of the configuration.
    pub rules: Vec<RuleReport>,
    /// The keys that no rule takes.
    pub unmatched: u64,
    /// Key prefixes, those first whose keys without TTL hold the most; at most 20.
    pub prefixes: Vec<PrefixCounts>,
    /// All other prefixes.
    pub other_prefixes: OtherPrefixes,
    /// Rules that could be written for keys that none takes.
    pub suggestions: Vec<Suggestion>,
}

/// What a rule would do, and what it would do it to: the members of [`RuleCounts`], and
///
/// ```json
/// { "ttl": { "no_ttl": 900, "up_to_1h": 5, "up_to_1d": 0, "up_to_7d": 0, "up_to_30d": 10, "up_to_1y": 85, "more": 0 },
///   "oldest": { "created_at": "2019-03-01T08:00:00Z", "age": 243700000, "read": 964, "key": "\"websauna_session…\" (80 bytes)" } }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleReport {
    /// What would be done.
    #[serde(flatten)]
    pub counts: RuleCounts,
    /// Its keys by what is left of their lifetime.
    pub ttl: Histogram,
    /// The oldest session of those that were read; `null` where none says when it began.
    pub oldest: Option<Oldest>,
}

/// The oldest session that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Oldest {
    /// When it began, by the clock of the application.
    pub created_at: Timestamp,
    /// How long ago that is, in seconds.
    pub age: u64,
    /// How many sessions with such a time were read. The others may be older.
    pub read: u64,
    /// Its key, masked unless asked for.
    pub key: String,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
