//! Spring's sessions: their names, their fields, and what goes with them.

use std::time::Duration;

use rdbkeeper::config::SessionStore;
use rdbkeeper::sessions::stores::spring::{Collection, Removal};
use rdbkeeper::sessions::stores::{companions, hash_fields, read_hash, read_text, role};
use rdbkeeper::sessions::{OwnTimeout, Role, Times, Unreadable};

#[test]
fn of_spring_only_the_hashes_of_sessions_are_touched_by_name() {
    for name in [
        "spring:session:sessions:11111111-1111-4111-8111-111111111111",
        "app:sessions:1",
        "my:sessions:app:sessions:1",
    ] {
        assert_eq!(
            role(SessionStore::Spring, name.as_bytes()),
            Role::Session,
            "{name}"
        );
    }
    let index =
        "org.springframework.session.FindByIndexNameSessionRepository.PRINCIPAL_NAME_INDEX_NAME";
    for name in [
        "spring:session:sessions:expires:1",
        "spring:session:sessions:expirations",
        "spring:session:sessions:1:idx",
        "spring:session:expirations:1795384980000",
        &format!("spring:session:index:{index}:user"),
        &format!("spring:session:index:{index}:a:sessions:b"),
        &format!("spring:session:sessions:index:{index}:user"),
        &format!("spring:session:sessions:index:{index}:a:sessions:b"),
        "spring:session:sessions:",
        ":sessions:1",
        "sessions:1",
        "other",
    ] {
        assert_eq!(
            role(SessionStore::Spring, name.as_bytes()),
            Role::Other,
            "{name}"
        );
    }
}

#[test]
fn spring_writes_json_where_so_configured() {
    let store = SessionStore::Spring;
    let read = |values: [&str; 3]| {
        let values = values.map(|value| (!value.is_empty()).then_some(value.as_bytes()));
        read_hash(store, &[values[0], values[1], values[2], None])
    };
    let created = "1795383119086";
    let expected = Times {
        created_ms: Some(1_795_383_119_086),
        last_access_ms: Some(1_795_383_178_086),
        ends_ms: Some(1_795_383_178_086 + 2_100_000),
        timeout: OwnTimeout::After(Duration::from_secs(1800)),
    };
    assert_eq!(read([created, "1795383178086", "1800"]), Ok(expected));
    let typed = [
        "[\"java.lang.Long\",1795383119086]",
        "[\"java.lang.Long\",1795383178086]",
        "1800",
    ];
    assert_eq!(read(typed), Ok(expected));
    assert_eq!(read(["", "", "-1"]).unwrap().timeout, OwnTimeout::Never);
    assert_eq!(read([created, created, "-1"]).unwrap().ends_ms, None);
    assert_eq!(read(["", "", "1800"]).unwrap().ends_ms, None);
    assert_eq!(read(["", "", ""]), Err(Unreadable::NotASession));
    for wrong in [
        "soon",
        "null",
        "[\"java.util.Date\",5]",
        "\u{ac}",
        "[5]",
        "1.5",
    ] {
        assert_eq!(read([wrong, "", ""]), Err(Unreadable::Format), "{wrong}");
    }
    assert_eq!(read_text(store, b""), Err(Unreadable::WrongType));
    assert_eq!(
        read_hash(SessionStore::Php, &[]),
        Err(Unreadable::WrongType)
    );
    assert!(hash_fields(SessionStore::Php).is_empty());
}

#[test]
fn a_spring_session_takes_its_places_in_the_indexes_along() {
    let store = SessionStore::Spring;
    let id = "11111111-1111-4111-8111-111111111111";
    let key = format!("spring:session:sessions:{id}");
    let removal = |key: &str, member: &[u8], from| Removal {
        key: format!("spring:session:{key}").into_bytes(),
        member: member.to_vec(),
        from,
    };
    let jdk = |text: &str| {
        [
            b"\xac\xed\0\x05t\0",
            &[text.len() as u8][..],
            text.as_bytes(),
        ]
        .concat()
    };
    let json = |text: &str| format!("\"{text}\"").into_bytes();
    let index = "index:org.springframework.session.FindByIndexNameSessionRepository.PRINCIPAL_NAME_INDEX_NAME:user-1";
    let ended = format!("expires:{id}");

    // As the corpus has it: the set of the minute, and the principal's.
    let minute = "expirations:1795384980000";
    let java = |class: &[u8], kind: u8, number: &[u8]| {
        [
            b"\xac\xed\0\x05sr\0".as_slice(),
            class,
            b"\x02\0\x01",
            &[kind],
            b"\0\x05valuexr\0\x10java.lang.Number\x86\xac\x95\x1d\x0b\x94\xe0\x8b\x02\0\0xp",
            number,
        ]
        .concat()
    };
    let long = |number: i64| {
        java(
            b"\x0ejava.lang.Long;\x8b\xe4\x90\xcc\x8f#\xdf",
            b'J',
            &number.to_be_bytes(),
        )
    };
    let integer = |number: i32| {
        java(
            b"\x11java.lang.Integer\x12\xe2\xa0\xa4\xf7\x81\x878",
            b'I',
            &number.to_be_bytes(),
        )
    };
    let (last, interval, user) = (long(1_795_383_178_086), integer(1800), jdk("user-1"));
    let found = companions(
        store,
        key.as_bytes(),
        &[None, Some(&last), Some(&interval), Some(&user)],
    )
    .unwrap();
    assert_eq!(
        found.marker,
        format!("spring:session:sessions:expires:{id}").into_bytes()
    );
    assert_eq!(
        found.removals,
        [
            removal(minute, &jdk(&ended), Collection::Set),
            removal(index, &jdk(id), Collection::Set),
            removal("sessions:expirations", &jdk(id), Collection::SortedSet),
            removal("sessions:expirations", id.as_bytes(), Collection::SortedSet),
        ]
    );

    let values = [
        None,
        Some(&b"1795383178086"[..]),
        Some(b"1800"),
        Some(b"\"user-1\""),
    ];
    let found = companions(store, key.as_bytes(), &values).unwrap();
    assert_eq!(
        found.removals,
        [
            removal(minute, &json(&ended), Collection::Set),
            removal(index, &json(id), Collection::Set),
            removal("sessions:expirations", &json(id), Collection::SortedSet),
            removal("sessions:expirations", id.as_bytes(), Collection::SortedSet),
        ]
    );

    // Nothing but its name is known: both forms, where it may stand.
    let found = companions(store, key.as_bytes(), &[None; 4]).unwrap();
    assert_eq!(
        found.removals,
        [
            removal("sessions:expirations", &jdk(id), Collection::SortedSet),
            removal("sessions:expirations", &json(id), Collection::SortedSet),
            removal("sessions:expirations", id.as_bytes(), Collection::SortedSet),
        ]
    );
    assert_eq!(
        companions(store, b"spring:session:sessions:expirations", &[]),
        None
    );
    assert_eq!(companions(SessionStore::Php, key.as_bytes(), &[]), None);
}
