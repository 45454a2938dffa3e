//! What to do with one key: a pure function of the rule, the facts and the time.
//!
//! The traps, all met in real stores:
//! - A key without TTL may be the live session of a store whose reads do not renew anything; and timeouts
//!   slide, so "created long ago" says nothing. Without TTL a session gets one; it is deleted only when its
//!   own value proves that it is over.
//! - The rule's timeout is what the site is configured to; a single session may have its own. The longer counts.
//! - A value that is not what the store writes is somebody else's key.

use std::time::Duration;

use super::facts::{Expiry, KeyFacts, OwnTimeout, Role, Times, Unreadable, Value};
use super::stores;
use crate::config::{LongTtl, MissingTtl, SessionRule};

/// No TTL is set that ends sooner than this from now: what follows from a session's past never takes
/// its key away while somebody looks at it.
pub const SOONEST: Duration = Duration::from_secs(60);
/// A TTL that is longer than it should be by less than this is as it should be.
const SLACK_MS: i64 = 1000;

/// What is to be done with a key. Times are Unix times in milliseconds by the server's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Leave,
    /// It has no TTL and gets one.
    SetTtl {
        /// When it will end.
        at_ms: i64,
    },
    /// Its TTL becomes shorter.
    ShortenTtl {
        /// When it will end.
        at_ms: i64,
    },
    /// It is over, and goes now.
    Delete,
    /// Nothing, but a person should know.
    Report,
}

impl Action {
    /// Whether it changes something on the server.
    pub fn writes(self) -> bool {
        !matches!(self, Action::Leave | Action::Report)
    }
}

/// Why. Each has one word that scripts may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Its TTL is within the timeout.
    TtlInOrder,
    /// Its TTL is longer than the timeout, and the rule keeps such.
    TtlLong,
    /// Its TTL is longer than the timeout.
    TtlTooLong,
    /// It had no TTL.
    NoTtl,
    /// The end that stands in it is past.
    Ended,
    /// It is older than `max_age`.
    TooOld,
    /// It was not used for longer than the timeout.
    Idle,
    /// It would be over, but the marker beside it says that it is in use. The sweep asks for it before a deletion.
    MarkerLive,
    /// It is meant to last for ever.
    ForEverByIntent,
    /// It has no TTL, and its store renews nothing on reading: a TTL could end a session that is in use.
    NeverRenewed,
    /// A lock without TTL: its owner may still run.
    LockWithoutTtl,
    /// By its name it is not a session but something beside them.
    NotASession,
    /// Its value is not what the store writes.
    Unreadable(Unreadable),
}

impl Reason {
    /// The word for scripts.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::TtlInOrder => "ttl-in-order",
            Reason::TtlLong => "ttl-long",
            Reason::TtlTooLong => "ttl-too-long",
            Reason::NoTtl => "no-ttl",
            Reason::Ended => "ended",
            Reason::TooOld => "too-old",
            Reason::Idle => "idle",
            Reason::MarkerLive => "marker-live",
            Reason::ForEverByIntent => "for-ever-by-intent",
            Reason::NeverRenewed => "never-renewed",
            Reason::LockWithoutTtl => "lock-without-ttl",
            Reason::NotASession => "not-a-session",
            Reason::Unreadable(_) => "unreadable",
        }
    }
}

/// What to do with a key, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What.
    pub action: Action,
    /// Why.
    pub reason: Reason,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It depends on the value: read it and ask again. Never when it has been read.
    ReadValue,
    /// Decided.
    Decided(Decision),
}

fn decided(action: Action, reason: Reason) -> Verdict {
    Verdict::Decided(Decision { action, reason })
}

/// Decides on a key that a rule takes. `now_ms` is the server's time, Unix, in milliseconds.
///
/// Without its value, a key whose value could change the answer gives [`Verdict::ReadValue`]: nothing is
/// done to a key of a store with a known format unless its value was read and recognised.
pub fn decide(rule: &SessionRule, facts: &KeyFacts, now_ms: i64) -> Verdict {
    match facts.role {
        Role::Session => {}
        Role::Lock if facts.expiry == Expiry::Never => {
            return decided(Action::Report, Reason::LockWithoutTtl);
        }
        Role::Lock | Role::Other => return decided(Action::Leave, Reason::NotASession),
    }
    let times = match facts.value {
        Value::Unreadable(why) => return decided(Action::Leave, Reason::Unreadable(why)),
        Value::Read(times) => times,
        Value::NotRead => Times::default(),
    };
    let verdict = weigh(rule, facts, &plausible(times, now_ms), now_ms);
    let asked = facts.value == Value::NotRead && stores::reads_values(rule.store);
    // What could be done without the value is an upper bound of what is done with it, but for `max_age`.
    let could_act = match verdict {
        Verdict::Decided(decision) => decision.action != Action::Leave,
        Verdict::ReadValue => true,
    };
    if asked && (could_act || rule.max_age.is_some()) {
        return Verdict::ReadValue;
    }
    verdict
}

/// Times that cannot be are as good as none: before 2000, or begun or used more than a day from now. A timeout or
/// an end that nobody lives to see says "for ever" with a number; no server would take such an expiry either.
fn plausible(times: Times, now_ms: i64) -> Times {
    const YEAR_2000_MS: i64 = 946_684_800_000;
    const DAY_MS: i64 = 86_400_000;
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);
    let beyond = now_ms.saturating_add(millis(CENTURY));
    let for_ever = times.ends_ms.is_some_and(|end| end > beyond)
        || matches!(times.timeout, OwnTimeout::After(own) if own > CENTURY);
    let past = |time: &i64| (YEAR_2000_MS..=now_ms.saturating_add(DAY_MS)).contains(time);
    Times {
        created_ms: times.created_ms.filter(past),
        last_access_ms: times.last_access_ms.filter(past),
        ends_ms: times.ends_ms.filter(|time| *time >= YEAR_2000_MS),
        timeout: match for_ever {
            true => OwnTimeout::Never,
            false => times.timeout,
        },
    }
}

fn weigh(rule: &SessionRule, facts: &KeyFacts, times: &Times, now_ms: i64) -> Verdict {
    let grace = millis(rule.grace);
    // The absolute end: nothing lives beyond it.
    let cap = rule.max_age.and_then(|max_age| {
        let created = times.created_ms?;
        Some(
            created
                .saturating_add(millis(max_age))
                .saturating_add(grace),
        )
    });
    let end = times.ends_ms.map(|end| end.saturating_add(grace));
    if cap.is_some_and(|cap| cap <= now_ms) {
        return decided(Action::Delete, Reason::TooOld);
    }
    // A TTL, where there is one, is renewed with the session and newer than what stands in it.
    if facts.expiry == Expiry::Never && end.is_some_and(|end| end <= now_ms) {
        return decided(Action::Delete, Reason::Ended);
    }
    if times.timeout == OwnTimeout::Never {
        return match facts.expiry {
            Expiry::Never => decided(Action::Report, Reason::ForEverByIntent),
            Expiry::At(_) => decided(Action::Leave, Reason::ForEverByIntent),
        };
    }
    let sliding = match times.timeout {
        OwnTimeout::After(own) => rule.timeout.max(own),
        _ => rule.timeout,
    };
    let lifetime = millis(sliding).saturating_add(millis(stores::margin(rule.store)));
    // An end of its own that is to come outlasts the timeout: Django's `set_expiry` with a date.
    if rule.idle
        && end.is_none_or(|end| end <= now_ms)
        && facts
            .unused
            .is_some_and(|unused| millis(unused) > lifetime.saturating_add(grace))
    {
        return decided(Action::Delete, Reason::Idle);
    }
    let from_now = now_ms.saturating_add(lifetime);
    let soonest = now_ms.saturating_add(millis(SOONEST));
    match facts.expiry {
        Expiry::Never => {
            if rule.missing_ttl == MissingTtl::Report {
                return decided(Action::Report, Reason::NoTtl);
            }
            if !stores::renews_on_use(rule.store, times) {
                return decided(Action::Report, Reason::NeverRenewed);
            }
            let used = times.last_access_ms.map(|used| {
                used.saturating_add(lifetime)
                    .saturating_add(grace)
                    .min(from_now)
            });
            let at = end.or(used).unwrap_or(from_now);
            let at_ms = at.min(cap.unwrap_or(i64::MAX)).max(soonest);
            decided(Action::SetTtl { at_ms }, Reason::NoTtl)
        }
        Expiry::At(expiry) => {
            let latest = from_now
                .max(end.unwrap_or(i64::MIN))
                .min(cap.unwrap_or(i64::MAX));
            if expiry <= latest.saturating_add(SLACK_MS) {
                return decided(Action::Leave, Reason::TtlInOrder);
            }
            let at_ms = latest.max(soonest);
            if rule.long_ttl == LongTtl::Keep || at_ms >= expiry {
                return decided(Action::Leave, Reason::TtlLong);
            }
            decided(Action::ShortenTtl { at_ms }, Reason::TtlTooLong)
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
