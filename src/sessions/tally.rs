//! What a sweep found and did, counted by rule.
//!
//! For each rule every key that it takes is in exactly one place: `matched` is the sum of `set`, `shortened`,
//! `deleted`, `reported`, `left`, `unreadable`, `changed` and `gone`. In a run that writes nothing, `set`,
//! `shortened` and `deleted` say what would be done.

use std::collections::BTreeMap;

use serde::Serialize;

use super::decide::{Action, Reason};
use super::facts::{Expiry, Unreadable};
use super::observe::{Found, Observer, Outcome, Seen, Wish};
use super::sample::{Held, KeysHeld};
use crate::config::SessionRule;

/// Every reason, in the order in which they are told.
const REASONS: [Reason; 16] = [
    Reason::TtlInOrder,
    Reason::TtlLong,
    Reason::TtlTooLong,
    Reason::NoTtl,
    Reason::Ended,
    Reason::TooOld,
    Reason::Idle,
    Reason::MarkerLive,
    Reason::ForEverByIntent,
    Reason::NeverRenewed,
    Reason::LockWithoutTtl,
    Reason::NotASession,
    Reason::Unreadable(Unreadable::WrongType),
    Reason::Unreadable(Unreadable::TooLong),
    Reason::Unreadable(Unreadable::Format),
    Reason::Unreadable(Unreadable::NotASession),
];

fn slot(reason: Reason) -> usize {
    match reason {
        Reason::TtlInOrder => 0,
        Reason::TtlLong => 1,
        Reason::TtlTooLong => 2,
        Reason::NoTtl => 3,
        Reason::Ended => 4,
        Reason::TooOld => 5,
        Reason::Idle => 6,
        Reason::MarkerLive => 7,
        Reason::ForEverByIntent => 8,
        Reason::NeverRenewed => 9,
        Reason::LockWithoutTtl => 10,
        Reason::NotASession => 11,
        Reason::Unreadable(Unreadable::WrongType) => 12,
        Reason::Unreadable(Unreadable::TooLong) => 13,
        Reason::Unreadable(Unreadable::Format) => 14,
        Reason::Unreadable(Unreadable::NotASession) => 15,
    }
}

type ByReason = [u64; REASONS.len()];

#[derive(Clone, Debug)]
struct RuleTally {
    rule: RuleFacts,
    matched: u64,
    without_ttl: Held,
    set: u64,
    shortened: u64,
    changed: u64,
    gone: u64,
    deleted: ByReason,
    reported: ByReason,
    left: ByReason,
}

/// The counters of a sweep, by rule. It is what `sessions expire` prints.
#[derive(Clone, Debug)]
pub struct Tally {
    counted: Counted,
    /// The database that is being walked.
    current: Option<u32>,
    /// What stays when that is begun again: what was counted before it, and what was done to its keys.
    stays: Counted,
}

#[derive(Clone, Debug)]
struct Counted {
    scanned: u64,
    unmatched: u64,
    done: u64,
    rules: Vec<RuleTally>,
}

impl Tally {
    /// Counters for these rules, all zero.
    pub fn new(rules: &[SessionRule]) -> Tally {
        let fresh = |(number, rule): (usize, &SessionRule)| RuleTally {
            rule: RuleFacts::new(number, rule),
            matched: 0,
            without_ttl: Held::default(),
            set: 0,
            shortened: 0,
            changed: 0,
            gone: 0,
            deleted: ByReason::default(),
            reported: ByReason::default(),
            left: ByReason::default(),
        };
        let counted = Counted {
            scanned: 0,
            unmatched: 0,
            done: 0,
            rules: rules.iter().enumerate().map(fresh).collect(),
        };
        Tally {
            stays: counted.clone(),
            current: None,
            counted,
        }
    }

    /// How many keys SCAN gave.
    pub fn scanned(&self) -> u64 {
        self.counted.scanned
    }

    /// How many of them no rule takes.
    pub fn unmatched(&self) -> u64 {
        self.counted.unmatched
    }

    /// How many keys were really changed or deleted.
    pub fn done(&self) -> u64 {
        self.counted.done
    }

    /// What was counted, by rule, in the order of the configuration.
    pub fn counts(&self) -> Vec<RuleCounts> {
        self.counted.rules.iter().map(RuleTally::counts).collect()
    }

    /// The document of `sessions expire` for one configured database.
    pub fn document(&self, database: &str, dry_run: bool) -> ExpireDocument {
        ExpireDocument {
            database: database.to_owned(),
            dry_run,
            scanned: self.scanned(),
            rules: self.counts(),
            unmatched: self.unmatched(),
            idle_waits: None,
        }
    }
}

impl Counted {
    fn rule(&mut self, found: &Found<'_>) -> Option<&mut RuleTally> {
        self.rules.get_mut(found.rule?)
    }

    fn count(&mut self, seen: &Seen<'_>) {
        self.scanned += 1;
        self.done += u64::from(seen.outcome == Outcome::Done);
        match self.rule(&seen.found) {
            Some(rule) => rule.count(seen),
            None => self.unmatched += 1,
        }
    }
}

impl Observer for Tally {
    fn wish(&mut self, found: &Found<'_>) -> Wish {
        let with_ttl = matches!(found.expiry, Some(Expiry::At(_)));
        let rule = self.counted.rule(found);
        let bytes = !with_ttl && rule.is_some_and(|rule| rule.without_ttl.wish());
        Wish {
            bytes,
            value: false,
        }
    }

    fn seen(&mut self, seen: &Seen<'_>) {
        if self.current != Some(seen.found.db) {
            self.current = Some(seen.found.db);
            self.stays = self.counted.clone();
        }
        self.counted.count(seen);
        if seen.outcome == Outcome::Done {
            self.stays.count(seen);
        }
    }

    fn begun_again(&mut self, db: u32) {
        if self.current == Some(db) {
            self.counted = self.stays.clone();
        }
    }
}

/// When the key of this ends, as far as it is known.
pub(super) fn expiry(seen: &Seen<'_>) -> Option<Expiry> {
    seen.facts.map(|facts| facts.expiry).or(seen.found.expiry)
}

impl RuleTally {
    fn count(&mut self, seen: &Seen<'_>) {
        self.matched += 1;
        if expiry(seen) == Some(Expiry::Never) {
            self.without_ttl.add(seen.bytes);
        }
        let counter = match (seen.outcome, seen.decision) {
            (Outcome::Gone, _) => &mut self.gone,
            // Without a decision, or with one that was not carried out, it waits for the next run too.
            (Outcome::Changed, _) | (_, None) => &mut self.changed,
            (outcome, Some(decision)) => match decision.action {
                Action::Leave => &mut self.left[slot(decision.reason)],
                Action::Report => &mut self.reported[slot(decision.reason)],
                _ if outcome == Outcome::Nothing => &mut self.changed,
                Action::SetTtl { .. } => &mut self.set,
                Action::ShortenTtl { .. } => &mut self.shortened,
                Action::Delete => &mut self.deleted[slot(decision.reason)],
            },
        };
        *counter += 1;
    }

    fn counts(&self) -> RuleCounts {
        let named = |counts: &ByReason| -> BTreeMap<&'static str, u64> {
            let told = REASONS
                .iter()
                .zip(counts)
                .filter(|(reason, keys)| **keys > 0 && !matches!(reason, Reason::Unreadable(_)));
            told.map(|(reason, keys)| (reason.as_str(), *keys))
                .collect()
        };
        let unreadable = REASONS.iter().zip(&self.left);
        let unreadable = unreadable.filter_map(|(reason, keys)| match reason {
            Reason::Unreadable(why) if *keys > 0 => Some((why.as_str(), *keys)),
            _ => None,
        });
        RuleCounts {
            rule: self.rule.clone(),
            matched: self.matched,
            with_ttl: self.matched - self.without_ttl.keys(),
            without_ttl: self.without_ttl.held(),
            set: self.set,
            shortened: self.shortened,
            deleted: named(&self.deleted),
            reported: named(&self.reported),
            left: named(&self.left),
            unreadable: unreadable.collect(),
            changed: self.changed,
            gone: self.gone,
        }
    }
}

/// What `sessions expire` says of one configured database.
///
/// ```json
/// { "database": "sessions", "dry_run": true, "scanned": 1000, "rules": [ … ], "unmatched": 3 }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExpireDocument {
    /// Its name in the configuration.
    pub database: String,
    /// Whether nothing was written, and the counts say what would be done.
    pub dry_run: bool,
    /// The keys that were looked at.
    pub scanned: u64,
    /// What was found and done by rule, in the order of the configuration.
    pub rules: Vec<RuleCounts>,
    /// The keys that no rule takes.
    pub unmatched: u64,
    /// Why nothing counts as idle yet; left out when idle sessions are found, or no rule has `idle`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_waits: Option<String>,
}

/// A rule, so that the counts can be told apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleFacts {
    /// Its place in the configuration, from 0.
    #[serde(rename = "rule")]
    pub number: usize,
    /// Its store, the word of the configuration.
    pub store: &'static str,
    /// Its regex.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Its timeout, in seconds.
    pub timeout: u64,
    /// Its `max_age`, in seconds.
    pub max_age: Option<u64>,
}

impl RuleFacts {
    fn new(number: usize, rule: &SessionRule) -> RuleFacts {
        RuleFacts {
            number,
            store: rule.store.as_str(),
            pattern: rule.pattern.as_str().to_owned(),
            timeout: rule.timeout.as_secs(),
            max_age: rule.max_age.map(|age| age.as_secs()),
        }
    }
}

/// What was found and done by one rule. In JSON the facts of the rule stand beside the counts:
///
/// ```json
/// { "rule": 0, "store": "pyramid", "match": "^websauna_session[0-9a-f]{64}$", "timeout": 31536000, "max_age": null,
///   "matched": 1000, "with_ttl": 100,
///   "without_ttl": { "keys": 900, "bytes": 518400, "bytes_error": 1200, "sampled": 46 },
///   "set": 850, "shortened": 0, "deleted": { "too-old": 40 }, "reported": {}, "left": { "ttl-in-order": 100 },
///   "unreadable": { "not the store's format": 8 }, "changed": 1, "gone": 1 }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleCounts {
    /// The rule.
    #[serde(flatten)]
    pub rule: RuleFacts,
    /// The keys that it takes.
    pub matched: u64,
    /// Those with a TTL, before anything was done.
    pub with_ttl: u64,
    /// Those without, before anything was done.
    pub without_ttl: KeysHeld,
    /// They had no TTL and got one.
    pub set: u64,
    /// Their TTL became shorter.
    pub shortened: u64,
    /// They were over, by reason.
    pub deleted: BTreeMap<&'static str, u64>,
    /// Nothing was done but a person should know, by reason.
    pub reported: BTreeMap<&'static str, u64>,
    /// Nothing was to be done, by reason.
    pub left: BTreeMap<&'static str, u64>,
    /// Left because their value is not what the store writes, by what is wrong with it.
    pub unreadable: BTreeMap<&'static str, u64>,
    /// They changed between the look and the act: left for the next run.
    pub changed: u64,
    /// They were gone before anything was done.
    pub gone: u64,
}

impl RuleCounts {
    /// The keys that something was or would be done to.
    pub fn acted(&self) -> u64 {
        self.set + self.shortened + sum(&self.deleted)
    }
}

/// The keys of all reasons.
pub fn sum(counts: &BTreeMap<&'static str, u64>) -> u64 {
    counts.values().sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
