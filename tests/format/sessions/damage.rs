//! Values are other people's data: whatever they are, a reader says what it finds, and does so soon and in little memory.

use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use rdbkeeper::config::SessionStore;
use rdbkeeper::sessions::stores::{companions, hash_fields, read_hash, read_text, role};
use rdbkeeper::sessions::{Times, Unreadable};

use super::corpus::{Content, scenarios};

/// Every string of the corpus with the store that reads it.
fn texts() -> Vec<(SessionStore, Vec<u8>)> {
    let mut found = Vec::new();
    for scenario in scenarios() {
        for key in scenario.keys {
            if let Content::Text(value) = key.content {
                found.push((scenario.store, value));
            }
        }
    }
    assert!(found.len() > 80);
    found
}

fn read_all(value: &[u8]) {
    for store in SessionStore::ALL {
        let _ = read_text(store, value);
        let _ = role(store, value);
        let values = vec![Some(value); hash_fields(store).len()];
        let _ = read_hash(store, &values);
        let _ = companions(store, value, &values);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_without_harm(value in vec(any::<u8>(), 0..400)) {
        read_all(&value);
    }

    #[test]
    fn opcodes_in_any_order_are_walked_without_harm(
        value in vec(proptest::sample::select(
            &b"().012NJKM\x88\x89IFGLSTUVXBCpqrghj\x94t\x85\x86\x87}dsu]lae\x8f\x90\x91cRbio\x81\x92\x93PQ\x80\x82\x8a\x8c\x95\n\0\x01'5"[..]),
            0..200)
    ) {
        read_all(&value);
    }

    #[test]
    fn notation_of_php_in_any_order_is_walked_without_harm(
        value in vec(proptest::sample::select(&b"abdisOCNrRE:;{}\"|!012\0"[..]), 0..200)
    ) {
        read_all(&value);
    }

    #[test]
    fn what_was_changed_in_places_is_read_without_harm(
        at in any::<prop::sample::Index>(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let texts = texts();
        let (store, mut value) = at.get(&texts).clone();
        for (at, byte) in changes {
            if !value.is_empty() {
                let at = at.index(value.len());
                value[at] = byte;
            }
        }
        let _ = read_text(store, &value);
        read_all(&value);
    }
}

#[test]
fn a_value_that_was_cut_anywhere_is_no_session() {
    for (store, value) in texts() {
        let Ok(times) = read_text(store, &value) else {
            continue;
        };
        for end in 0..value.len() {
            let cut = &value[..end];
            let whole = match store {
                // A result that cannot be read has no times.
                SessionStore::Celery => read_text(store, cut) == Ok(Times::default()),
                // Of Marshal and igbinary the beginning is looked at; an empty session of PHP is a session, and
                // so is the part before a variable.
                SessionStore::Rack | SessionStore::Php => {
                    read_text(store, cut).map_or(true, |cut| cut == times)
                }
                _ => read_text(store, cut).is_err(),
            };
            assert!(whole, "{store} {end} {}", cut.escape_ascii());
        }
    }
}

/// Reads it, and says how long that took at most.
fn in_time(store: SessionStore, value: &[u8]) -> Result<Times, Unreadable> {
    let begun = Instant::now();
    let read = read_text(store, value);
    assert!(begun.elapsed() < Duration::from_secs(20), "{store}");
    read
}

#[test]
fn what_doubles_itself_in_a_pickle_is_not_unfolded() {
    // A tuple of two of the tuple before, again and again: 2^400000 values for who unfolds it.
    let mut bomb = b"}U\x0f_session_expiry".to_vec();
    bomb.extend(b"K\x01");
    for _ in 0..400_000 {
        bomb.extend(b"2\x86");
    }
    bomb.extend(b"s.");
    assert_eq!(
        in_time(SessionStore::Django, &bomb),
        Err(Unreadable::TooLong)
    );
    // The same by memo, and a dictionary that holds itself.
    let mut memo = b"K\x01q\x00".to_vec();
    for _ in 0..200_000 {
        memo.extend(b"h\x00\x86q\x00");
    }
    memo.push(b'.');
    assert_eq!(
        in_time(SessionStore::Django, &memo),
        Err(Unreadable::NotASession)
    );
    let itself = b"}q\x00U\x0f_session_expiryh\x00s.";
    assert_eq!(
        in_time(SessionStore::Django, itself),
        Err(Unreadable::Format)
    );
}

#[test]
fn what_is_nested_deep_overflows_nothing() {
    let deep = 100_000;
    let around = |open: &str, inner: &str, close: &str| {
        format!("{}{inner}{}", open.repeat(deep), close.repeat(deep)).into_bytes()
    };
    let json = around("[", "", "]");
    let object = [b"{\"a\":".as_slice(), &json, b"}"].concat();
    let cookie = [b"{\"cookie\":{\"a\":".as_slice(), &json, b"}}"].concat();
    let max_age = [b"{\"cookie\":{\"originalMaxAge\":".as_slice(), &json, b"}}"].concat();
    let msgpack = [b"\x81\xa1a".as_slice(), &vec![0x91; deep], b"\xc0"].concat();
    let php = [b"a|".as_slice(), &around("a:1:{i:0;", "N;", "}")].concat();
    let payload = [
        b"a:1:{s:6:\"_token\";".as_slice(),
        &around("a:1:{i:0;", "N;", "}"),
        b"}",
    ]
    .concat();
    let laravel = [
        format!("s:{}:\"", payload.len()).as_bytes(),
        &payload,
        b"\";",
    ]
    .concat();
    let lists = [
        b"}U\x01a".as_slice(),
        &vec![b']'; deep],
        &vec![b'a'; deep - 1],
        b"s.",
    ]
    .concat();
    let marks = [vec![b'('; deep], vec![b't'; deep], b".".to_vec()].concat();
    for value in [
        &json, &object, &cookie, &max_age, &msgpack, &php, &laravel, &lists, &marks,
    ] {
        read_all(value);
    }
    // No recursion, so no limit.
    assert_eq!(in_time(SessionStore::Php, &php), Ok(Times::default()));
    assert_eq!(
        in_time(SessionStore::Laravel, &laravel),
        Ok(Times::default())
    );
    assert_eq!(in_time(SessionStore::Django, &lists), Ok(Times::default()));
    assert_eq!(
        in_time(SessionStore::Flask, &msgpack),
        Err(Unreadable::Format)
    );
}

#[test]
fn announced_lengths_are_not_believed() {
    for value in [
        &b"T\xff\xff\xff\x7fab."[..],
        b"X\xff\xff\xff\xffab.",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffab.",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fab.",
        b"\x96\xff\xff\xff\xff\xff\xff\xff\x7fab.",
        b"\x95\xff\xff\xff\xff\xff\xff\xff\xff}.",
        b"\x8b\xff\xff\xff\x7f}.",
        b"\xdf\xff\xff\xff\xff\xa1a",
        b"\x81\xdb\xff\xff\xff\xffab",
        b"\x81\xa1a\xc6\xff\xff\xff\xffab",
        b"a|a:9223372036854775807:{i:0;i:1;}",
        b"a|s:18446744073709551615:\"a\";",
        b"a|C:1:\"a\":18446744073709551615:{}",
        b"s:18446744073709551615:\"a\";",
        b"\0\0\0\x02\x13\xff\xff\xff\xffab",
        b"\xac\xed\0\x05t\xff\xffab",
    ] {
        read_all(value);
        for store in [SessionStore::Django, SessionStore::Flask] {
            assert!(in_time(store, value).is_err(), "{}", value.escape_ascii());
        }
    }
}

#[test]
fn what_inflates_without_end_is_too_long() {
    use std::io::Write;
    let deflated = |plain: &[u8]| {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    };
    let bomb = deflated(&vec![b' '; 100 << 20]);
    assert!(bomb.len() < 1 << 20);
    assert_eq!(
        in_time(SessionStore::Pyramid, &bomb),
        Err(Unreadable::TooLong)
    );
    let session = deflated(br#"{"managed_dict":{},"created":1795383082,"timeout":5}"#);
    assert!(read_text(SessionStore::Pyramid, &session).is_ok());
    let longer = [session.as_slice(), b"x"].concat();
    assert_eq!(
        read_text(SessionStore::Pyramid, &longer),
        Err(Unreadable::Format)
    );
    let twice = deflated(&session);
    assert_eq!(
        read_text(SessionStore::Pyramid, &twice),
        Err(Unreadable::Format)
    );
}
