use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::{KeyRegex, SessionStore};
use crate::sessions::{Action, Decision, KeyFacts, Outcome, Reason, Role, Times, tally};

const NOW: i64 = 1_795_383_092_461;
const DAY_MS: i64 = 86_400_000;

fn rules() -> Vec<SessionRule> {
    let pattern = KeyRegex::new("^websauna_session[0-9a-f]{64}$").unwrap();
    let year = Duration::from_secs(31_536_000);
    vec![SessionRule::new(SessionStore::Pyramid, pattern, year)]
}

/// Gives a key to a report as a sweep does. Returns what was wished for.
fn show(report: &mut Report, db: u32, key: &[u8], expiry: Expiry, created: i64) -> Wish {
    let session = report.rules.first();
    let rule = session.and_then(|rule| rule.pattern.matches(key).then_some(0));
    let found = Found {
        db,
        key,
        rule,
        expiry: Some(expiry),
    };
    let wish = report.wish(&found);
    let never = expiry == Expiry::Never;
    let value = if never || wish.value {
        Value::Read(Times {
            created_ms: Some(created),
            ..Times::default()
        })
    } else {
        Value::NotRead
    };
    let (action, reason, outcome) = if never {
        let set = Action::SetTtl { at_ms: NOW };
        (set, Reason::NoTtl, Outcome::Would)
    } else {
        (Action::Leave, Reason::TtlInOrder, Outcome::Nothing)
    };
    report.seen(&Seen {
        found,
        now_ms: NOW,
        facts: rule.map(|_| KeyFacts {
            role: Role::Session,
            expiry,
            value,
            unused: None,
        }),
        decision: rule.map(|_| Decision { action, reason }),
        outcome,
        bytes: wish.bytes.then_some(key.len() as u64 * 10),
        raw: None,
    });
    wish
}

fn number(seed: u64) -> u64 {
    let mut hash = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// An ID as a framework makes it: so long, of these letters.
fn id(seed: u64, length: u64, letters: &[u8]) -> String {
    let pick = |at| letters[(number(seed * 1000 + at) % letters.len() as u64) as usize];
    (0..length).map(|at| char::from(pick(at))).collect()
}

const HEX: &[u8] = b"0123456789abcdef";
const SMALL: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const ALNUM: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const URL: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";

#[test]
fn a_million_keys_are_counted_and_few_are_asked_about() {
    let mut report = Report::new(&rules());
    let (mut bytes, mut values) = (0, 0);
    for n in 0..1_000_000_u64 {
        let key = format!(
            "websauna_session{:016x}{:016x}{n:032x}",
            number(n),
            number(!n)
        );
        let expiry = if n % 10 == 0 {
            Expiry::At(NOW + DAY_MS)
        } else {
            Expiry::Never
        };
        let wish = show(
            &mut report,
            1,
            key.as_bytes(),
            expiry,
            NOW - 1000 * n as i64,
        );
        bytes += u64::from(wish.bytes);
        values += u64::from(wish.value);
    }
    assert!(bytes < 20_000 && values <= AT_MOST, "{bytes}, {values}");
    let found = &report.finish(KeyNames::Masked, NOW)[0];
    assert_eq!(
        (found.db, found.keys, found.with_ttl),
        (1, 1_000_000, 100_000)
    );
    assert_eq!(found.without_ttl.bytes, Some(900_000 * 800));
    let rule = &found.rules[0];
    assert_eq!((rule.ttl.no_ttl, rule.ttl.up_to_1d), (900_000, 100_000));
    let oldest = rule.oldest.as_ref().unwrap();
    assert_eq!(oldest.age, 999_999);
    assert_eq!(oldest.key, "\"websauna_session…\" (80 bytes)");
    assert!(oldest.read >= 900_000);
    let prefixes: Vec<&str> = found
        .prefixes
        .iter()
        .map(|row| row.prefix.as_str())
        .collect();
    assert_eq!(prefixes, ["websauna_session*"]);
    assert_eq!(found.prefixes[0].without_ttl, found.without_ttl);
}

#[test]
fn nothing_that_is_shown_holds_five_letters_of_an_id() {
    let makers: [(&str, u64, &[u8]); 12] = [
        ("", 64, HEX),
        ("websauna_session", 64, HEX),
        ("", 43, URL),
        ("session:", 43, URL),
        ("session_", 43, URL),
        ("", 32, SMALL),
        (":1:django.contrib.sessions.cache", 32, SMALL),
        ("", 32, URL),
        ("sess:", 32, URL),
        ("", 64, URL),
        ("PHPREDIS_SESSION:", 26, SMALL),
        ("laravel_database_laravel_cache_", 40, ALNUM),
    ];
    let mut report = Report::new(&[]);
    let mut parts = std::collections::HashSet::new();
    for (kind, (prefix, length, letters)) in makers.into_iter().enumerate() {
        for n in 0..2_000 {
            let id = id(n * 100 + kind as u64, length, letters);
            // By chance alone an ID may hold five digits of another.
            parts.extend(id.as_bytes().windows(5).map(<[u8]>::to_vec));
            let key = format!("{prefix}{id}");
            show(&mut report, 0, key.as_bytes(), Expiry::Never, NOW);
        }
    }
    let found = &report.finish(KeyNames::Masked, NOW)[0];
    assert_eq!(found.keys, 24_000);
    let known = makers.map(|(prefix, _, _)| prefix);
    for row in &found.prefixes {
        let name = row.prefix.trim_end_matches('*');
        // The pieces of words may be in an ID too; what is more than the true prefix must not.
        let extra = known
            .iter()
            .filter_map(|known| name.strip_prefix(known))
            .min_by_key(|extra| extra.len())
            .unwrap_or(name);
        assert!(
            extra
                .as_bytes()
                .windows(5)
                .all(|part| !parts.contains(part)),
            "{}",
            row.prefix
        );
    }
    let shown = |prefix| found.prefixes.iter().any(|row| row.prefix == prefix);
    assert!(
        shown("*") && shown("sess:*") && shown("session_*"),
        "{:?}",
        found.prefixes
    );
}

#[test]
fn databases_are_apart_and_those_without_keys_are_told() {
    let mut report = Report::new(&[]);
    report.visit(3);
    show(&mut report, 7, b"celery", Expiry::Never, NOW);
    show(&mut report, 0, b"throttle_login", Expiry::Never, NOW);
    let found = report.finish(KeyNames::Masked, NOW);
    let keys: Vec<(u32, u64)> = found.iter().map(|one| (one.db, one.keys)).collect();
    assert_eq!(keys, [(0, 1), (3, 0), (7, 1)]);
    assert_eq!(found[0].prefixes[0].prefix, "throttle_login");
    assert_eq!(found[0].unmatched, 1);
}

#[test]
fn a_time_that_cannot_be_is_no_age() {
    let mut report = Report::new(&rules());
    let key = format!("websauna_session{}", "a".repeat(64));
    show(&mut report, 1, key.as_bytes(), Expiry::Never, 5);
    show(
        &mut report,
        1,
        key.as_bytes(),
        Expiry::Never,
        NOW + 2 * DAY_MS,
    );
    assert_eq!(
        report.clone().finish(KeyNames::Masked, NOW)[0].rules[0].oldest,
        None
    );
    show(&mut report, 1, key.as_bytes(), Expiry::Never, NOW - DAY_MS);
    let found = report.finish(KeyNames::Shown, NOW);
    let oldest = found[0].rules[0].oldest.as_ref().unwrap();
    assert_eq!((oldest.age, oldest.read), (86_400, 1));
    assert_eq!(oldest.key, format!("\"{key}\""));
}

#[test]
fn the_document_is_as_it_is_described() {
    let mut report = Report::new(&rules());
    show(&mut report, 1, b"unacked", Expiry::Never, NOW);
    let document = ReportDocument {
        database: "sessions".to_owned(),
        address: "localhost:6379".to_owned(),
        server: Some("redis 7.0.15".to_owned()),
        at: Timestamp::from_millisecond(NOW).unwrap(),
        idle_waits: None,
        databases: report.finish(KeyNames::Masked, NOW),
    };
    let nothing = serde_json::json!({ "keys": 0, "bytes": 0, "bytes_error": 0, "sampled": 0 });
    let one = serde_json::json!({ "keys": 1, "bytes": 70, "bytes_error": 0, "sampled": 1 });
    assert_eq!(
        serde_json::to_value(&document).unwrap(),
        serde_json::json!({
            "database": "sessions", "address": "localhost:6379", "server": "redis 7.0.15",
            "at": "2026-11-22T21:31:32.461Z",
            "databases": [{
                "db": 1, "keys": 1, "with_ttl": 0, "without_ttl": one,
                "rules": [{
                    "rule": 0, "store": "pyramid", "match": "^websauna_session[0-9a-f]{64}$",
                    "timeout": 31_536_000, "max_age": null, "matched": 0, "with_ttl": 0, "without_ttl": nothing,
                    "set": 0, "shortened": 0, "deleted": {}, "reported": {}, "left": {}, "unreadable": {},
                    "changed": 0, "gone": 0,
                    "ttl": { "no_ttl": 0, "up_to_1h": 0, "up_to_1d": 0, "up_to_7d": 0, "up_to_30d": 0, "up_to_1y": 0, "more": 0 },
                    "oldest": null
                }],
                "unmatched": 1,
                "prefixes": [{ "prefix": "unacked", "keys": 1, "with_ttl": 0, "without_ttl": one }],
                "other_prefixes": { "prefixes": 0, "keys": 0, "with_ttl": 0, "without_ttl": nothing },
                "suggestions": []
            }]
        })
    );
}

proptest! {
    #[test]
    fn counts_add_up(keys in prop::collection::vec(("[a-c]{1,2}(:[a-c]{1,2}){0,2}", any::<bool>()), 0..300), sessions in 0..50_u64) {
        let mut report = Report::new(&rules());
        for (key, never) in &keys {
            let expiry = if *never { Expiry::Never } else { Expiry::At(NOW + 1) };
            show(&mut report, 0, key.as_bytes(), expiry, NOW);
        }
        for n in 0..sessions {
            show(&mut report, 0, format!("websauna_session{n:064x}").as_bytes(), Expiry::At(NOW + DAY_MS * n as i64), NOW);
        }
        report.visit(0);
        let found = &report.finish(KeyNames::Masked, NOW)[0];
        let all = keys.len() as u64 + sessions;
        prop_assert_eq!(found.keys, all);
        prop_assert_eq!(found.with_ttl + found.without_ttl.keys, all);
        let rows: u64 = found.prefixes.iter().map(|row| row.keys).sum();
        prop_assert_eq!(rows + found.other_prefixes.keys, all);
        let rule = &found.rules[0];
        prop_assert_eq!(rule.ttl.total(), rule.counts.matched);
        prop_assert_eq!(rule.counts.matched, sessions);
        prop_assert_eq!(tally::sum(&rule.counts.left), sessions);
    }
}
