//! Every combination of facts and rules, against what must hold, said in other words than the decision is.

use std::time::Duration;

use rdbkeeper::config::{KeyRegex, LongTtl, MissingTtl, SessionRule, SessionStore};
use rdbkeeper::sessions::{
    Action, Expiry, KeyFacts, OwnTimeout, Reason, Role, Times, Unreadable, Value, Verdict, decide,
};

const NOW: i64 = 1_795_383_000_000;
const TIMEOUT: i64 = 1_200_000;
const DAY: i64 = 86_400_000;
const SOONEST: i64 = 60_000;

fn duration(millis: i64) -> Duration {
    Duration::from_millis(millis.unsigned_abs())
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn values() -> Vec<Value> {
    let mut all = vec![
        Value::NotRead,
        Value::Unreadable(Unreadable::Format),
        Value::Unreadable(Unreadable::WrongType),
    ];
    let created = [
        None,
        Some(0),
        Some(NOW - 10 * TIMEOUT),
        Some(NOW - TIMEOUT / 2),
        Some(NOW + 3 * DAY),
    ];
    let last = [
        None,
        Some(1_000),
        Some(NOW - 10 * TIMEOUT),
        Some(NOW - 1_000),
        Some(NOW + 60_000),
    ];
    let ends = [
        None,
        Some(86_400_000),
        Some(NOW - 3 * TIMEOUT),
        Some(NOW + 5_000),
        Some(NOW + 20 * TIMEOUT),
        Some(i64::MAX),
    ];
    let own = [
        OwnTimeout::Unknown,
        OwnTimeout::After(Duration::ZERO),
        OwnTimeout::After(duration(TIMEOUT / 2)),
        OwnTimeout::After(duration(15 * TIMEOUT)),
        OwnTimeout::After(Duration::MAX),
        OwnTimeout::Never,
    ];
    for created_ms in created {
        for last_access_ms in last {
            for ends_ms in ends {
                for timeout in own {
                    all.push(Value::Read(Times {
                        created_ms,
                        last_access_ms,
                        ends_ms,
                        timeout,
                    }));
                }
            }
        }
    }
    all
}

fn rules() -> Vec<SessionRule> {
    let mut all = Vec::new();
    for store in [
        SessionStore::Pyramid,
        SessionStore::PyramidSessionRedis,
        SessionStore::Express,
        SessionStore::Spring,
        SessionStore::Opaque,
    ] {
        for missing_ttl in [MissingTtl::Set, MissingTtl::Report] {
            for long_ttl in [LongTtl::Keep, LongTtl::Shorten] {
                for max_age in [None, Some(2 * TIMEOUT), Some(TIMEOUT / 2 + 10_000)] {
                    for idle in [false, true] {
                        for grace in [0, 3_600_000] {
                            let regex = KeyRegex::new("^s").unwrap();
                            let mut rule = SessionRule::new(store, regex, duration(TIMEOUT));
                            rule.missing_ttl = missing_ttl;
                            rule.long_ttl = long_ttl;
                            rule.max_age = max_age.map(duration);
                            rule.idle = idle;
                            rule.grace = duration(grace);
                            all.push(rule);
                        }
                    }
                }
            }
        }
    }
    all
}

/// Calls with every combination.
fn every(mut check: impl FnMut(&SessionRule, &KeyFacts)) {
    let expiries = [
        Expiry::Never,
        Expiry::At(NOW + 10_000),
        Expiry::At(NOW + TIMEOUT),
        Expiry::At(NOW + 10 * TIMEOUT),
        Expiry::At(NOW + 400 * DAY),
    ];
    let unused = [None, Some(TIMEOUT / 2), Some(4 * TIMEOUT), Some(400 * DAY)];
    let (rules, values) = (rules(), values());
    for role in [Role::Session, Role::Lock, Role::Other] {
        for expiry in expiries {
            for unused in unused {
                for value in &values {
                    let facts = KeyFacts {
                        role,
                        expiry,
                        value: *value,
                        unused: unused.map(duration),
                    };
                    for rule in &rules {
                        check(rule, &facts);
                    }
                }
            }
        }
    }
}

/// What the times say that can be: a clock that stood at 1970 or runs days ahead says nothing.
struct Said {
    created: Option<i64>,
    last: Option<i64>,
    end: Option<i64>,
    own: OwnTimeout,
}

fn said(facts: &KeyFacts) -> Said {
    let times = match facts.value {
        Value::Read(times) => times,
        _ => Times::default(),
    };
    let sane = |time: &i64| *time > 1_000_000_000_000;
    let past = |time: &i64| sane(time) && *time <= NOW + DAY;
    Said {
        created: times.created_ms.filter(past),
        last: times.last_access_ms.filter(past),
        end: times.ends_ms.filter(sane),
        // A century from now is for ever, however it is written.
        own: match times.timeout {
            OwnTimeout::After(own) if ms(own) > 36_500 * DAY => OwnTimeout::Never,
            _ if times.ends_ms.is_some_and(|end| end > NOW + 36_500 * DAY) => OwnTimeout::Never,
            own => own,
        },
    }
}

/// How long a session of these facts may go unused.
fn lifetime(rule: &SessionRule, own: OwnTimeout) -> i64 {
    let own = match own {
        OwnTimeout::After(own) => ms(own),
        _ => 0,
    };
    let margin = if rule.store == SessionStore::Spring {
        300_000
    } else {
        0
    };
    own.max(ms(rule.timeout)).saturating_add(margin)
}

#[test]
fn no_combination_breaks_a_promise() {
    let mut combinations = 0;
    every(|rule, facts| {
        combinations += 1;
        let verdict = decide(rule, facts, NOW);
        let context = || format!("{rule:?} {facts:?} {verdict:?}");
        let decision = match verdict {
            Verdict::ReadValue => {
                assert_eq!(facts.value, Value::NotRead, "{}", context());
                assert_ne!(rule.store, SessionStore::Opaque, "{}", context());
                return;
            }
            Verdict::Decided(decision) => decision,
        };
        if facts.role != Role::Session || matches!(facts.value, Value::Unreadable(_)) {
            let left_lock = facts.role == Role::Lock && facts.expiry == Expiry::Never;
            let expected = if left_lock {
                Action::Report
            } else {
                Action::Leave
            };
            assert_eq!(decision.action, expected, "{}", context());
            return;
        }
        if facts.value == Value::NotRead && rule.store != SessionStore::Opaque {
            assert!(!decision.action.writes(), "{}", context());
        }
        let said = said(facts);
        let grace = ms(rule.grace);
        let lifetime = lifetime(rule, said.own);
        let cap = rule
            .max_age
            .and_then(|max_age| Some(said.created? + ms(max_age) + grace));
        let too_old = cap.is_some_and(|cap| cap <= NOW);
        let ended = facts.expiry == Expiry::Never
            && said.end.is_some_and(|end| end.saturating_add(grace) <= NOW);
        let capped = |at: i64| cap.map_or(at, |cap| at.min(cap));
        match decision.action {
            Action::Delete => {
                let for_ever = said.own == OwnTimeout::Never;
                let to_come = said.end.is_some_and(|end| end.saturating_add(grace) > NOW);
                let idle = rule.idle
                    && !for_ever
                    && !to_come
                    && facts
                        .unused
                        .is_some_and(|unused| ms(unused) > lifetime.saturating_add(grace));
                assert!(too_old || ended || idle, "{}", context());
            }
            Action::SetTtl { at_ms } => {
                assert_eq!(facts.expiry, Expiry::Never, "{}", context());
                assert_eq!(rule.missing_ttl, MissingTtl::Set, "{}", context());
                assert_ne!(said.own, OwnTimeout::Never, "{}", context());
                assert_ne!(rule.store, SessionStore::Express, "{}", context());
                assert!(at_ms >= NOW + SOONEST, "{}", context());
                assert!(at_ms < NOW + 73_000 * DAY, "{}", context());
                // Its own end, or so long after its last use, or so long from now.
                let promised = match (said.end, said.last) {
                    (Some(end), _) => end.saturating_add(grace),
                    (None, Some(last)) => last.min(NOW).saturating_add(lifetime),
                    (None, None) => NOW.saturating_add(lifetime),
                };
                assert!(at_ms >= capped(promised), "{}", context());
            }
            Action::ShortenTtl { at_ms } => {
                let Expiry::At(expiry) = facts.expiry else {
                    panic!("shortened what has none: {}", context());
                };
                assert_eq!(rule.long_ttl, LongTtl::Shorten, "{}", context());
                assert_ne!(said.own, OwnTimeout::Never, "{}", context());
                assert!(at_ms < expiry, "{}", context());
                assert!(at_ms >= NOW + SOONEST, "{}", context());
                let promised = NOW
                    .saturating_add(lifetime)
                    .max(said.end.unwrap_or(i64::MIN));
                assert!(at_ms >= capped(promised), "{}", context());
            }
            Action::Report => {
                assert_eq!(facts.expiry, Expiry::Never, "{}", context());
                let known = match decision.reason {
                    Reason::NoTtl => rule.missing_ttl == MissingTtl::Report,
                    Reason::ForEverByIntent => said.own == OwnTimeout::Never,
                    Reason::NeverRenewed => {
                        rule.store == SessionStore::Express
                            || (rule.store == SessionStore::PyramidSessionRedis
                                && said.end.is_none())
                    }
                    _ => false,
                };
                assert!(known, "{}", context());
            }
            // A session without TTL is never passed over in silence.
            Action::Leave => assert_ne!(facts.expiry, Expiry::Never, "{}", context()),
        }
        // What is provably over does not stay.
        if facts.value != Value::NotRead && (too_old || ended) {
            assert_eq!(decision.action, Action::Delete, "{}", context());
        }
    });
    assert!(combinations > 1_000_000, "{combinations}");
}

#[test]
fn deciding_again_after_acting_finds_nothing_to_do() {
    every(|rule, facts| {
        let Verdict::Decided(first) = decide(rule, facts, NOW) else {
            return;
        };
        let at_ms = match first.action {
            Action::SetTtl { at_ms } | Action::ShortenTtl { at_ms } => at_ms,
            _ => return,
        };
        let after = KeyFacts {
            expiry: Expiry::At(at_ms),
            ..*facts
        };
        // A moment later, with the same value: nobody has used it.
        for later in [0, 500] {
            let second = decide(rule, &after, NOW + later);
            let left =
                matches!(second, Verdict::Decided(decision) if decision.action == Action::Leave);
            // What comes of age in this moment may go.
            let too_old =
                matches!(second, Verdict::Decided(decision) if decision.reason == Reason::TooOld);
            assert!(left || too_old, "{rule:?} {facts:?} {first:?} {second:?}");
        }
    });
}

#[test]
fn a_longer_grace_or_timeout_deletes_nothing_more() {
    every(|rule, facts| {
        let deletes = |rule: &SessionRule| matches!(decide(rule, facts, NOW), Verdict::Decided(decision) if decision.action == Action::Delete);
        let mut longer = rule.clone();
        longer.timeout *= 3;
        longer.grace += duration(DAY);
        longer.max_age = rule.max_age.map(|max_age| max_age * 2);
        assert!(
            !deletes(&longer) || deletes(rule),
            "{rule:?} {facts:?} {longer:?}"
        );
    });
}
