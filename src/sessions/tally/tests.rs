use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::{KeyRegex, SessionStore};
use crate::sessions::{Decision, KeyFacts, Role, Value};

const NOW: i64 = 1_795_383_092_461;

fn rules() -> Vec<SessionRule> {
    let rule = |store, pattern| {
        let pattern = KeyRegex::new(pattern).unwrap();
        SessionRule::new(store, pattern, Duration::from_secs(1200))
    };
    vec![
        rule(SessionStore::Pyramid, "^a"),
        rule(SessionStore::Flask, "^b"),
    ]
}

fn seen(
    rule: Option<usize>,
    expiry: Expiry,
    decision: Decision,
    outcome: Outcome,
) -> Seen<'static> {
    Seen {
        found: Found {
            db: 1,
            key: b"a",
            rule,
            expiry: Some(expiry),
        },
        now_ms: NOW,
        facts: rule.map(|_| KeyFacts {
            role: Role::Session,
            expiry,
            value: Value::NotRead,
            unused: None,
        }),
        decision: rule.map(|_| decision),
        outcome,
        bytes: None,
        raw: None,
    }
}

#[test]
fn every_reason_has_a_place_of_its_own() {
    for (at, reason) in REASONS.into_iter().enumerate() {
        assert_eq!(slot(reason), at);
    }
}

#[test]
fn the_document_is_as_it_is_described() {
    let mut tally = Tally::new(&rules());
    let set = Decision {
        action: Action::SetTtl { at_ms: NOW },
        reason: Reason::NoTtl,
    };
    let delete = Decision {
        action: Action::Delete,
        reason: Reason::TooOld,
    };
    let unreadable = Decision {
        action: Action::Leave,
        reason: Reason::Unreadable(Unreadable::Format),
    };
    let mut with_bytes = seen(Some(0), Expiry::Never, set, Outcome::Done);
    assert!(tally.wish(&with_bytes.found).bytes);
    with_bytes.bytes = Some(400);
    for one in [
        with_bytes,
        seen(Some(0), Expiry::Never, set, Outcome::Changed),
        seen(Some(0), Expiry::At(NOW), delete, Outcome::Done),
        seen(Some(0), Expiry::At(NOW), delete, Outcome::Gone),
        seen(Some(0), Expiry::At(NOW), unreadable, Outcome::Nothing),
        seen(None, Expiry::Never, set, Outcome::Nothing),
    ] {
        tally.seen(&one);
    }
    assert_eq!((tally.scanned(), tally.done()), (6, 2));
    let json = serde_json::to_value(tally.document("sessions", false)).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "database": "sessions", "dry_run": false, "scanned": 6, "unmatched": 1,
            "rules": [
                { "rule": 0, "store": "pyramid", "match": "^a", "timeout": 1200, "max_age": null,
                  "matched": 5, "with_ttl": 3,
                  "without_ttl": { "keys": 2, "bytes": 800, "bytes_error": 0, "sampled": 1 },
                  "set": 1, "shortened": 0, "deleted": { "too-old": 1 }, "reported": {}, "left": {},
                  "unreadable": { "not the store's format": 1 }, "changed": 1, "gone": 1 },
                { "rule": 1, "store": "flask", "match": "^b", "timeout": 1200, "max_age": null,
                  "matched": 0, "with_ttl": 0,
                  "without_ttl": { "keys": 0, "bytes": 0, "bytes_error": 0, "sampled": 0 },
                  "set": 0, "shortened": 0, "deleted": {}, "reported": {}, "left": {},
                  "unreadable": {}, "changed": 0, "gone": 0 }
            ]
        })
    );
}

fn any_seen() -> impl Strategy<Value = Seen<'static>> {
    let action = prop::sample::select(vec![
        Action::Leave,
        Action::Report,
        Action::Delete,
        Action::SetTtl { at_ms: 1 },
        Action::ShortenTtl { at_ms: 1 },
    ]);
    let outcome = prop::sample::select(vec![
        Outcome::Nothing,
        Outcome::Would,
        Outcome::Done,
        Outcome::Changed,
        Outcome::Gone,
    ]);
    let rule = prop::sample::select(vec![None, Some(0), Some(1)]);
    let reason = prop::sample::select(REASONS.to_vec());
    (rule, any::<Option<i64>>(), action, reason, outcome).prop_map(
        |(rule, expiry, action, reason, outcome)| {
            // Only a key that is left alone is unreadable.
            let action = match reason {
                Reason::Unreadable(_) => Action::Leave,
                _ => action,
            };
            let expiry = expiry.map_or(Expiry::Never, Expiry::At);
            seen(rule, expiry, Decision { action, reason }, outcome)
        },
    )
}

proptest! {
    #[test]
    fn every_key_is_in_exactly_one_place(stream in prop::collection::vec(any_seen(), 0..200)) {
        let mut tally = Tally::new(&rules());
        for one in &stream {
            let _ = tally.wish(&one.found);
            tally.seen(one);
        }
        let counts = tally.counts();
        for rule in &counts {
            let places = rule.acted() + sum(&rule.reported) + sum(&rule.left) + sum(&rule.unreadable) + rule.changed + rule.gone;
            prop_assert_eq!(places, rule.matched);
            prop_assert_eq!(rule.with_ttl + rule.without_ttl.keys, rule.matched);
        }
        let matched: u64 = counts.iter().map(|rule| rule.matched).sum();
        prop_assert_eq!(matched + tally.unmatched(), stream.len() as u64);
    }
}
