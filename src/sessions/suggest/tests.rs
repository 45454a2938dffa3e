use super::*;
use crate::config::KeyRegex;
use crate::prefixes::cut::cut;
use crate::units::parse_duration;

const NOW: i64 = 1_795_383_079_411;
const PYRAMID: &[u8] = b"(dp1\nS'timeout'\np2\nI1200\nsS'managed_dict'\np3\n(dp4\nsS'created'\np10\nF1795383078.139245\ns.";
const FLASK: &[u8] = b"\x83\xaa_permanent\xc3\xa7user_id*\xa4name\xa6na\xc3\xafve";
const EXPRESS: &[u8] = br#"{"cookie":{"originalMaxAge":3600000,"expires":"2026-11-22T22:32:48.824Z","httpOnly":true,"path":"/"},"userId":42}"#;
const PHP: &[u8] = br#"user_id|i:42;name|s:1:"n";"#;
const DJANGO: &[u8] = b"\x80\x05}\x94.";
const RACK: &[u8] =
    b"\x04\x08{\x07I\"\x0cuser_id\x06:\x06ETi/I\"\x10_csrf_token\x06;\x00TI\"\rdG9rZW4=\x06;\x00T";
const LARAVEL: &[u8] = br#"s:137:"a:3:{s:6:"_token";s:40:"tttttttttttttttttttttttttttttttttttttttt";s:7:"user_id";i:42;s:6:"_flash";a:2:{s:3:"old";a:0:{}s:3:"new";a:0:{}}}";"#;

fn hex(n: usize) -> String {
    format!("{:08x}", n.wrapping_mul(2_654_435_761) as u32).repeat(8)
}

fn token(n: usize, length: usize) -> String {
    let letters = b"xQ-w7Z_kRtYpLmNvBcDhJgF2W9z8sV";
    let pick = |at: usize| char::from(letters[(n * 7 + at * at + at * n) % letters.len()]);
    (0..length).map(pick).collect()
}

const UUID: &str = "11111111-1111-4111-8111-111111111111";

/// What is suggested for ten keys; `left` is what their TTL has left.
fn suggested(key: impl Fn(usize) -> String, raw: &[u8], left: Option<i64>) -> Vec<Suggestion> {
    let mut classes = Classes::default();
    let mut names = Vec::new();
    for n in 0..10 {
        let name = key(n);
        let cut = cut(name.as_bytes());
        let expiry = left.map_or(Expiry::Never, |left| Expiry::At(NOW + left));
        let raw = classes.wish(&cut).then_some(raw);
        classes.add(name.as_bytes(), &cut, Some(expiry), raw, NOW);
        names.push(name);
    }
    let suggestions = classes.finish();
    for suggestion in &suggestions {
        let rule = toml::from_str::<toml::Table>(&suggestion.toml).unwrap();
        let rule = &rule["database"]["sessions"][0];
        let pattern = KeyRegex::new(rule["match"].as_str().unwrap()).unwrap();
        assert_eq!(pattern.as_str(), suggestion.pattern);
        assert!(
            names.iter().all(|name| pattern.matches(name.as_bytes())),
            "{pattern:?}"
        );
        assert!(
            rule["store"]
                .as_str()
                .unwrap()
                .parse::<SessionStore>()
                .is_ok()
        );
        if let Some(timeout) = suggestion.timeout {
            let written = parse_duration(rule["timeout"].as_str().unwrap()).unwrap();
            assert_eq!(written.as_secs(), timeout);
        }
    }
    suggestions
}

#[test]
fn every_framework_is_known_by_what_it_writes() {
    let day = Some(86_395_000);
    for (found, store, pattern, timeout) in [
        (
            suggested(|n| format!("websauna_session{}", hex(n)), PYRAMID, None),
            "pyramid",
            "^websauna_session[0-9a-f]{64}$",
            Some(1200),
        ),
        (
            suggested(hex, PYRAMID, None),
            "pyramid",
            "^[0-9a-f]{64}$",
            Some(1200),
        ),
        (
            suggested(
                |n| format!("session:{}", token(n, 43)),
                FLASK,
                Some(2_678_300_000),
            ),
            "flask",
            "^session:[A-Za-z0-9_-]{43}$",
            Some(31 * DAY),
        ),
        (
            suggested(|n| format!("sess:{}", token(n, 32)), EXPRESS, day),
            "express",
            "^sess:[A-Za-z0-9_-]{32}$",
            None,
        ),
        (
            suggested(
                |n| format!("PHPREDIS_SESSION:{}", &hex(n)[..26]),
                PHP,
                Some(1_438_000),
            ),
            "php",
            "^PHPREDIS_SESSION:[0-9a-zA-Z,-]{22,256}(?:_LOCK)?$",
            Some(1440),
        ),
        (
            suggested(
                |n| format!(":1:django.contrib.sessions.cache{}", &hex(n)[..32]),
                DJANGO,
                Some(1_209_598_533),
            ),
            "django",
            r"^:1:django\.contrib\.sessions\.cache[0-9a-z]{32}$",
            Some(14 * DAY),
        ),
        (
            suggested(|n| format!("rack:session:2::{}", hex(n)), RACK, None),
            "rack",
            "^rack:session:2::[0-9a-f]{64}$",
            None,
        ),
        (
            suggested(
                |n| format!("laravel_database_laravel_cache_{}z", &hex(n)[..39]),
                LARAVEL,
                Some(7_198_753),
            ),
            "laravel",
            "^laravel_database_laravel_cache_[A-Za-z0-9]{40}$",
            Some(2 * HOUR),
        ),
        (
            suggested(
                |n| format!("spring:session:sessions:{n:08x}{}", &UUID[8..]),
                b"",
                Some(2_095_394),
            ),
            "spring",
            "^spring:session:sessions:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
            Some(1800),
        ),
        (
            suggested(
                |n| {
                    let kind = if n % 2 == 0 { "task" } else { "taskset" };
                    format!("celery-{kind}-meta-{n:08x}{}", &UUID[8..])
                },
                b"",
                day,
            ),
            "celery",
            "^celery-(?:task|taskset)-meta-[0-9a-zA-Z_.-]+$",
            Some(DAY),
        ),
    ] {
        assert_eq!(found.len(), 1, "{store}: {found:?}");
        assert_eq!(
            (found[0].store, found[0].pattern.as_str()),
            (store, pattern)
        );
        assert_eq!(found[0].keys, 10, "{store}");
        if timeout.is_some() {
            assert_eq!(found[0].timeout, timeout, "{store}");
        }
    }
}

#[test]
fn what_looks_like_sessions_and_is_none_is_left_out() {
    for (found, what) in [
        (
            suggested(|n| format!("page:{}", hex(n)), b"<html>", None),
            "a cache",
        ),
        (
            suggested(|n| format!("sess:{}", token(n, 32)), b"{\"a\":1}", None),
            "other JSON",
        ),
        (
            suggested(
                |n| format!("digest:{}", token(n, 43)),
                b"\x81\xa1a\x01",
                None,
            ),
            "other msgpack",
        ),
        (
            suggested(|n| format!("_kombu.binding.q{n}"), b"", None),
            "bindings",
        ),
        (
            suggested(|n| format!("celery\x06\x16{n}"), b"", None),
            "queues",
        ),
        (
            suggested(|n| format!("throttle_view{n}"), b"", None),
            "throttles",
        ),
        (
            suggested(
                |n| format!("spring:session:sessions:expires:{n:08x}{}", &UUID[8..]),
                b"",
                None,
            ),
            "markers",
        ),
        (suggested(|_| "unacked".to_owned(), b"", None), "a queue"),
    ] {
        assert_eq!(found, [], "{what}");
    }
}

#[test]
fn a_lock_beside_a_session_is_not_counted() {
    let found = suggested(
        |n| match n {
            0 => format!("PHPREDIS_SESSION:{}_LOCK", &hex(1)[..26]),
            _ => format!("PHPREDIS_SESSION:{}", &hex(n)[..26]),
        },
        PHP,
        None,
    );
    assert_eq!((found[0].keys, found[0].timeout), (9, None));
    assert!(
        found[0]
            .toml
            .contains("timeout = \"\"   # as the application"),
        "{}",
        found[0].toml
    );
}

#[test]
fn a_rule_reads_as_it_is_pasted() {
    let found = suggested(|n| format!("shop.eu mine:{}", hex(n)), PYRAMID, None);
    assert_eq!(
        found[0].toml,
        "[[database.sessions]]\nstore   = \"pyramid\"\nmatch   = '^shop\\.eu mine:[0-9a-f]{64}$'\ntimeout = \"20m\"\n"
    );
    let found = suggested(
        |n| format!("session:{}", token(n, 43)),
        FLASK,
        Some(1_000_000),
    );
    assert!(found[0].toml.ends_with(
        "timeout = \"20m\"   # a guess from the longest TTL seen: write what the application has\n"
    ));
}

#[test]
fn a_prefix_in_a_regex_takes_itself_alone() {
    let prefix: Vec<u8> = (0..=255).collect();
    let text = escaped(&prefix);
    assert!(text.is_ascii() && !text.contains('\''), "{text}");
    assert!(!text.chars().any(char::is_control));
    let pattern = KeyRegex::new(&format!("^{text}$")).unwrap();
    assert!(pattern.matches(&prefix));
    assert!(
        !KeyRegex::new(&format!("^{}$", escaped(b"a.b")))
            .unwrap()
            .matches(b"axb")
    );
}

#[test]
fn durations_are_rounded_to_what_people_configure() {
    for (seconds, wanted) in [
        (1, "5m"),
        (1199, "20m"),
        (5398, "90m"),
        (86_395, "1d"),
        (1_209_598, "14d"),
        (31_535_998, "365d"),
        (31_536_001, "366d"),
    ] {
        let rounded = rounded_up(Duration::from_secs(seconds));
        assert_eq!(written(rounded.as_secs()), wanted);
    }
    assert_eq!(written(61), "61s");
}

#[test]
fn classes_are_bounded() {
    let mut classes = Classes::default();
    for n in 0..1000 {
        let letter = |n: usize| char::from(b'a' + (n % 26) as u8);
        let name = format!("s{}{}:{}", letter(n), letter(n / 26), hex(n));
        let cut = cut(name.as_bytes());
        classes.wish(&cut);
    }
    assert_eq!(classes.count, MOST);
}
