//! What each store may write, beyond what the corpus has.

use std::time::Duration;

use rdbkeeper::config::SessionStore;
use rdbkeeper::sessions::stores::{read_text, role};
use rdbkeeper::sessions::{OwnTimeout, Role, Times, Unreadable};

fn after(seconds: u64) -> OwnTimeout {
    OwnTimeout::After(Duration::from_secs(seconds))
}

fn own(store: SessionStore, value: &[u8]) -> Result<OwnTimeout, Unreadable> {
    read_text(store, value).map(|times| times.timeout)
}

#[test]
fn pyramid_takes_its_envelope_and_nothing_like_it() {
    let pyramid = |text: &str| read_text(SessionStore::Pyramid, text.as_bytes());
    let timeout = |text: &str| {
        pyramid(&format!(
            r#"{{"managed_dict":{{"timeout":5}},"created":1795383082.5,"timeout":{text}}}"#
        ))
    };
    for (text, expected) in [
        ("1200", after(1200)),
        (
            "1200.5",
            OwnTimeout::After(Duration::from_millis(1_200_500)),
        ),
        ("null", OwnTimeout::Unknown),
        ("0", OwnTimeout::Unknown),
        ("-5", OwnTimeout::Unknown),
        ("1e300", OwnTimeout::After(Duration::MAX)),
        ("99999999999999999999", OwnTimeout::After(Duration::MAX)),
    ] {
        let expected = Times {
            created_ms: Some(1_795_383_082_500),
            timeout: expected,
            ..Times::default()
        };
        assert_eq!(timeout(text), Ok(expected), "{text}");
    }
    for text in ["\"1200\"", "true", "[]", "{}"] {
        assert_eq!(timeout(text), Err(Unreadable::Format), "{text}");
    }
    for text in [
        "{}",
        "7",
        "[1]",
        "null",
        "\"text\"",
        r#"{"assets": [1,2,3]}"#,
        r#"{"created": 1, "timeout": 2}"#,
        r#"{"managed_dict": 1, "created": 1, "timeout": 2}"#,
        r#"{"managed_dict": {}, "created": 1}"#,
        r#"{"x": {"managed_dict": {}, "created": 1, "timeout": 2}}"#,
    ] {
        assert_eq!(pyramid(text), Err(Unreadable::NotASession), "{text}");
    }
    for text in ["", "success", "{", "{}x", "{} {}"] {
        assert_eq!(pyramid(text), Err(Unreadable::Format), "{text}");
    }
}

#[test]
fn pyramid_session_redis_says_its_end_its_timeout_or_that_it_has_none() {
    let store = SessionStore::PyramidSessionRedis;
    let read = |rest: &str| {
        read_text(
            store,
            format!(r#"{{"m":{{}},"c":1795383094{rest}}}"#).as_bytes(),
        )
    };
    let times = |timeout, ends_ms| Times {
        created_ms: Some(1_795_383_094_000),
        last_access_ms: None,
        ends_ms,
        timeout,
    };
    assert_eq!(
        read(r#","v":1,"t":1200,"x":1795384294"#),
        Ok(times(after(1200), Some(1_795_384_294_000)))
    );
    assert_eq!(read(r#","v":1,"t":1200"#), Ok(times(after(1200), None)));
    assert_eq!(read(r#","v":1"#), Ok(times(OwnTimeout::Never, None)));
    assert_eq!(
        read(r#","v":1,"t":null,"x":0"#),
        Ok(times(OwnTimeout::Never, None))
    );
    assert_eq!(
        read(r#","v":1,"x":1795384294"#),
        Ok(times(OwnTimeout::Unknown, Some(1_795_384_294_000)))
    );
    assert_eq!(read(r#","v":1,"x":"soon""#), Err(Unreadable::Format));
    assert_eq!(read(""), Err(Unreadable::NotASession));
}

#[test]
fn a_pickle_is_understood_whatever_stands_in_it() {
    let store = SessionStore::Django;
    let moment = |zone: &str| {
        format!(
            "(dp0\nS'_session_expiry'\np1\ncdatetime\ndatetime\np2\n(U\n\u{7}\u{6a}\u{b}\u{17}\u{c}\u{0}\u{0}\u{0}\u{0}\u{0}{zone}tRp9\ns."
        )
    };
    // 1898-11-23 12:00 as the year's high byte must be ASCII here: too long ago to count, but a date.
    let naive = read_text(store, moment("").as_bytes()).unwrap();
    // Without a zone it is local time, somewhere: up to twelve hours behind UTC.
    let ms = naive.ends_ms.unwrap() - 12 * 3_600_000;
    assert_eq!(
        ms,
        "1898-11-23T12:00:00Z"
            .parse::<jiff::Timestamp>()
            .unwrap()
            .as_millisecond()
    );
    let utc = moment("cpytz\n_UTC\n(tR");
    assert_eq!(read_text(store, utc.as_bytes()).unwrap().ends_ms, Some(ms));
    let east = moment("cdatetime\ntimezone\n(cdatetime\ntimedelta\n(I0\nI7200\nI0\ntRtR");
    assert_eq!(
        read_text(store, east.as_bytes()).unwrap().ends_ms,
        Some(ms - 7_200_000)
    );
    // A zone that is not known, and a date that is none.
    let unknown = moment("cdateutil.tz\ntzlocal\n(tR");
    assert_eq!(
        read_text(store, unknown.as_bytes()),
        Err(Unreadable::Format)
    );
    let opaque = b"(dS'_session_expiry'\ncmy.dates\nDate\n(tRs.";
    assert_eq!(read_text(store, opaque), Err(Unreadable::Format));
    // Persistent ids, the extension registry, objects old and new: opaque, and what follows is read all the same.
    let mixed = b"\x80\x04}(U\x01aPsome id\nU\x01b\x82\x07U\x01c\x83\x07\x00U\x01d\x84\x07\x00\x00\x00U\x01ecos\nsystem\n)\x81U\x01f(ios\nsystem\n\
        U\x01gcos\nsystem\n)}\x92}U\x01yNsbU\x01h(cos\nsystem\noU\x01i\x8f(K\x01\x90U\x01j(K\x01\x91U\x01kNQU\x0f_session_expiryM\x84\x03u.";
    assert_eq!(own(store, mixed), Ok(after(900)));
    // The last value counts; a dictionary inside does not.
    assert_eq!(own(store, b"}(U\x0f_session_expiryK\x05U\x0f_session_expiryK\x07U\x01x}U\x0f_session_expiryK\x09su."), Ok(after(7)));
    for (value, expected) in [
        (&b"}."[..], Ok(OwnTimeout::Unknown)),
        (b"}U\x0f_session_expiryNs.", Ok(OwnTimeout::Unknown)),
        (b"}U\x0f_session_expiry\x8a\x02\x10\x0es.", Ok(after(3600))),
        (
            b"}U\x0f_session_expiry\x8a\x01\xffs.",
            Ok(OwnTimeout::Unknown),
        ),
        (b"}U\x0f_session_expiryL3600L\ns.", Ok(after(3600))),
        (b"}U\x0f_session_expiryI01\ns.", Err(Unreadable::Format)),
        (b"}U\x0f_session_expiryU\x04soons.", Err(Unreadable::Format)),
        (b"K\x07.", Err(Unreadable::NotASession)),
        (b"U\x04text.", Err(Unreadable::NotASession)),
        (b"](K\x01e.", Err(Unreadable::NotASession)),
        (b"7", Err(Unreadable::NotASession)),
        (b"}.}", Err(Unreadable::Format)),
        (b"}}.", Err(Unreadable::Format)),
        (b"\x80\x06}.", Err(Unreadable::Format)),
        (b"}\x97.", Err(Unreadable::Format)),
        (b"0.", Err(Unreadable::Format)),
        (b"}(0K\x07s.", Err(Unreadable::Format)),
        (b"h\x05.", Err(Unreadable::Format)),
        (b"}(K\x01u.", Err(Unreadable::Format)),
    ] {
        assert_eq!(own(store, value), expected, "{}", value.escape_ascii());
    }
}

#[test]
fn a_date_in_a_django_session_is_its_end() {
    let read = |date: &str| {
        let value = format!(r#"{{"_session_expiry":"{date}"}}"#);
        read_text(SessionStore::Django, value.as_bytes())
    };
    for date in [
        "2027-02-20T21:31:35.974312+00:00",
        "2027-02-20T22:31:35.974312+01:00",
    ] {
        assert_eq!(
            read(date).unwrap().ends_ms,
            Some(1_803_159_095_974),
            "{date}"
        );
    }
    // USE_TZ = False: local time. In no zone is it later than this.
    assert_eq!(
        read("2027-02-20T21:31:35.974312").unwrap().ends_ms,
        Some(1_803_159_095_974 + 12 * 3_600_000)
    );
    assert_eq!(read("tomorrow"), Err(Unreadable::Format));
}

#[test]
fn flask_sessions_are_maps_of_three_notations() {
    let flask = |value: &[u8]| read_text(SessionStore::Flask, value);
    for value in [
        &b"\x80"[..],
        b"\x81\xa1a\xc3",
        b"\xde\x00\x01\xa1a\xc7\x0c\xff0123456789ab",
        b"\x81\xa1a\xd6\xff0123",
        b"{}",
        b"\x80\x02}q\x00.",
        b"(dp0\n.",
    ] {
        assert_eq!(
            flask(value),
            Ok(Times::default()),
            "{}",
            value.escape_ascii()
        );
    }
    for value in [
        &b""[..],
        b"\x81",
        b"\x81\xa1a\xc3\xc3",
        b"\x81\xa1a\xc3\xc1",
        b"\x80\xc3",
    ] {
        assert_eq!(
            flask(value),
            Err(Unreadable::Format),
            "{}",
            value.escape_ascii()
        );
    }
    assert_eq!(flask(b"[1]"), Err(Unreadable::NotASession));
    assert_eq!(flask(b"on"), Err(Unreadable::Format));
}

#[test]
fn express_has_the_timeout_of_its_cookie_and_no_end() {
    let express = |text: &str| read_text(SessionStore::Express, text.as_bytes());
    let stale =
        r#"{"cookie":{"originalMaxAge":3600000,"expires":"2000-01-01T00:00:00.000Z"},"u":1}"#;
    let expected = Times {
        timeout: after(3600),
        ..Times::default()
    };
    assert_eq!(express(stale), Ok(expected));
    assert_eq!(
        express(r#"{"cookie":{"originalMaxAge":null}}"#),
        Ok(Times::default())
    );
    assert_eq!(express(r#"{"cookie":{}}"#), Ok(Times::default()));
    assert_eq!(
        express(r#"{"cookie":{"originalMaxAge":"1h"}}"#),
        Err(Unreadable::Format)
    );
    for text in [
        "{}",
        "[]",
        "1",
        r#"{"cookie":null}"#,
        r#"{"cookie":[]}"#,
        r#"{"cookie":[1]}"#,
        r#"[{"originalMaxAge":1}]"#,
        r#"{"cookie":"a"}"#,
        r#"{"a":{"cookie":{}}}"#,
    ] {
        assert_eq!(express(text), Err(Unreadable::NotASession), "{text}");
    }
    assert_eq!(express("{\"cookie\":{}"), Err(Unreadable::Format));
}

#[test]
fn php_sessions_are_walked_to_their_end() {
    let php = |text: &[u8]| read_text(SessionStore::Php, text);
    for text in [
        &b""[..],
        b"a|i:1;",
        b"a|N;b|b:1;c|d:-0.5;d|d:1.0E+25;e|d:INF;",
        b"!gone|a|i:1;",
        b"a|O:8:\"stdClass\":2:{s:1:\"x\";i:1;s:1:\"y\";r:2;}b|R:1;",
        b"a|C:11:\"ArrayObject\":3:{i:0}",
        b"a|E:11:\"Suit:Hearts\";",
        b"a|s:4:\"\";|}\";",
        b"a|a:2:{i:0;a:1:{i:1;a:0:{}}s:1:\"b\";N;}b|i:2;",
        b"a:0:{}",
        b"a:1:{s:7:\"user_id\";i:42;}",
        b"\0\0\0\x01\x14\x00",
        b"\0\0\0\x02\x15\x01\x00",
    ] {
        assert_eq!(php(text), Ok(Times::default()), "{}", text.escape_ascii());
    }
    for text in [
        &b"on"[..],
        b"vm|22682",
        b"a|",
        b"a|i:1",
        b"a|i:1;b",
        b"a|s:5:\"four\";",
        b"a|a:2:{i:0;i:1;}",
        b"a|a:1:{N;i:1;}",
        b"a|a:18446744073709551615:{}",
        b"a|a:9999999999:{i:0;i:1;}",
        b"a|s:9999999999999999999999:\"a\";",
        b"a:1:{i:0;i:1;}x",
        b"\0\0\0\x02\x11\x01a",
        b"\0\0\0\x03\x14\x00",
        b"\0\0\0\x02",
    ] {
        assert_eq!(
            php(text),
            Err(Unreadable::Format),
            "{}",
            text.escape_ascii()
        );
    }
}

#[test]
fn of_laravels_cache_only_sessions_are_taken() {
    let laravel = |text: &[u8]| read_text(SessionStore::Laravel, text);
    let serialized = |payload: &str| format!("s:{}:\"{payload}\";", payload.len());
    let encrypted = "eyJpdiI6IkFBQUEiLCJ2YWx1ZSI6IkJCQkIiLCJtYWMiOiJDQ0NDIn0=";
    for payload in [
        "a:1:{s:6:\"_token\";s:2:\"tt\";}",
        "a:2:{i:0;N;s:6:\"_flash\";a:2:{s:3:\"old\";a:0:{}s:3:\"new\";a:0:{}}}",
        "{\"_token\":\"tt\"}",
        "{\"user\":1,\"_flash\":{\"old\":[],\"new\":[]}}",
        encrypted,
    ] {
        let text = serialized(payload);
        assert_eq!(laravel(text.as_bytes()), Ok(Times::default()), "{text}");
    }
    // Where phpredis serialises by itself, alone or once more.
    let payload = "a:1:{s:6:\"_token\";s:2:\"tt\";}";
    for inner in [payload.to_owned(), serialized(payload)] {
        let igbinary = [
            b"\0\0\0\x02\x11".as_slice(),
            &[inner.len() as u8],
            inner.as_bytes(),
        ]
        .concat();
        assert_eq!(laravel(&igbinary), Ok(Times::default()));
        let json = serde_json::to_vec(&inner).unwrap();
        assert_eq!(laravel(&json), Ok(Times::default()));
    }
    // A cached array, text, number (a rate limiter's count), object, page, what looks encrypted, and texts that are
    // arrays once more, without what is in every session.
    for text in [
        "a:1:{s:1:\"a\";i:1;}".to_owned(),
        serialized("on"),
        serialized("<html>cached</html>"),
        serialized("eyJpdiI6I not base64"),
        serialized("a:0:{}"),
        serialized("a:1:{s:1:\"a\";s:6:\"_token\";}"),
        serialized("a:1:{i:0;a:1:{s:6:\"_token\";N;}}"),
        serialized("a:1:{s:6:\"_token\";N;}x"),
        serialized("[]"),
        serialized("{\"products\":[1,2]}"),
        serialized("{\"page\":{\"_token\":1}}"),
        "5".to_owned(),
        "1795383184".to_owned(),
        "i:5;".to_owned(),
        "O:8:\"stdClass\":0:{}".to_owned(),
        "\"on\"".to_owned(),
    ] {
        assert_eq!(
            laravel(text.as_bytes()),
            Err(Unreadable::NotASession),
            "{text}"
        );
    }
    for text in ["", "on", "s:3:\"on\";", "s:2:\"on\""] {
        assert_eq!(laravel(text.as_bytes()), Err(Unreadable::Format), "{text}");
    }
}

#[test]
fn rack_sessions_are_hashes() {
    let rack = |text: &[u8]| read_text(SessionStore::Rack, text);
    for text in [
        &b"\x04\x08{\0"[..],
        b"\x04\x08C:\x1eMyHash{\0",
        b"{}",
        b"{\"a\":1}",
    ] {
        assert_eq!(rack(text), Ok(Times::default()), "{}", text.escape_ascii());
    }
    for text in [&b"\x04\x08i\x06"[..], b"\x04\x08I\"\x07on", b"7", b"[]"] {
        assert_eq!(
            rack(text),
            Err(Unreadable::NotASession),
            "{}",
            text.escape_ascii()
        );
    }
    for text in [&b""[..], b"\x04", b"\x04\x07{\0", b"on"] {
        assert_eq!(
            rack(text),
            Err(Unreadable::Format),
            "{}",
            text.escape_ascii()
        );
    }
}

#[test]
fn a_result_of_celery_is_as_old_as_it_says() {
    let created = |text: &str| {
        read_text(SessionStore::Celery, text.as_bytes())
            .unwrap()
            .created_ms
    };
    let expected = Some(1_795_383_156_288);
    assert_eq!(
        created(r#"{"date_done":"2026-11-22T21:32:36.288379+00:00"}"#),
        expected
    );
    assert_eq!(
        created(r#"{"date_done":"2026-11-22T21:32:36.288379"}"#),
        expected
    );
    for text in [
        r#"{"date_done":null}"#,
        r#"{"date_done":"late"}"#,
        "{}",
        "3",
        "not JSON",
        "",
    ] {
        assert_eq!(created(text), None, "{text}");
    }
}

#[test]
fn of_celery_only_results_are_touched_by_name() {
    for name in [
        "celery-task-meta-11111111-1111-1111-1111-111111111111",
        "celery-taskset-meta-3d9a8047-37dc-464a-b8d4-efd3ae75cd45.j",
        "my_prefix_celery-task-meta-1",
    ] {
        assert_eq!(
            role(SessionStore::Celery, name.as_bytes()),
            Role::Session,
            "{name}"
        );
    }
    for name in [
        "celery",
        "celery\x06\x166",
        "unacked",
        "unacked_index",
        "unacked_mutex",
        "_kombu.binding.celery",
        "_kombu.binding.celery-task-meta-1",
        "07d567b5-7df7-35e2-adb6-69518b6a59fa.reply.celery.pidbox",
        "celery-task-meta-",
        "celery-task-meta-1\x06\x166",
        "chord-unlock-1",
    ] {
        assert_eq!(
            role(SessionStore::Celery, name.as_bytes()),
            Role::Other,
            "{name}"
        );
    }
}
