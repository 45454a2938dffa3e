//! What holds for every file.

use proptest::collection::vec;
use proptest::prelude::*;
use rdbkeeper::rdb::payload::{self, Payload};
use rdbkeeper::rdb::{
    Checksum, DbIndex, Event, Family, FileVersion, StringRef, ValueType, from_fn, scan_bytes,
};

use crate::made::{self, Part};
use crate::support::*;

/// Cuts bytes into pieces of these sizes, over and over.
fn pieces<'a>(bytes: &'a [u8], sizes: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = bytes;
    sizes.iter().cycle().map_while(move |size| {
        let (piece, after) = rest.split_at((*size).min(rest.len()));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// The database of every key, in order.
fn databases(bytes: &[u8]) -> Vec<DbIndex> {
    let mut found = Vec::new();
    plain(scan_bytes(
        bytes,
        &mut from_fn(|event| {
            if let Event::Key(head) = event {
                found.push(head.db);
            }
            Ok(())
        }),
    ))
    .unwrap();
    found
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn events_are_the_same_however_the_input_is_split(
        (version, parts) in made::file(),
        sizes in vec(1..30usize, 1..8),
    ) {
        let bytes = made::write(version, &parts);
        let (outcome, whole) = record(&bytes);
        prop_assert_eq!(outcome.as_ref().map(|report| report.opaque), Ok(None));
        prop_assert_eq!(&whole.raw, &bytes);
        for sizes in [&sizes[..], &[1]] {
            let (split, recorder) = record_pieces(pieces(&bytes, sizes));
            prop_assert_eq!(&split, &outcome);
            prop_assert_eq!(&recorder.raw, &bytes);
            prop_assert_eq!(&recorder.events, &whole.events);
        }
    }

    #[test]
    fn what_the_writer_wrote_is_what_the_scanner_reads((version, parts) in made::file()) {
        let bytes = made::write(version, &parts);
        let mut db = DbIndex(0);
        let mut expected = Vec::new();
        for part in &parts {
            match part {
                Part::Db(index) => db = DbIndex(*index),
                Part::Key(key) => expected.push((
                    db,
                    key.type_code,
                    key.name.clone(),
                    (key.expire_at_ms, key.idle_s, key.freq),
                    key.meta.clone(),
                    key.value.clone(),
                )),
                Part::Raw(raw) if raw[0] == 253 => expected.push((
                    db,
                    0,
                    vec![],
                    (None, None, None),
                    vec![],
                    vec![],
                )),
                _ => {}
            }
        }
        let mut found = Vec::new();
        let report = plain(scan_bytes(&bytes, &mut from_fn(|event| {
            match event {
                Event::Key(head) => found.push((
                    head.db,
                    head.value_type.code(),
                    head.key.decode().unwrap_or_default().into_owned(),
                    (head.expire_at_ms, head.idle_s, head.freq),
                    head.meta.to_vec(),
                    Vec::new(),
                )),
                Event::Value(raw) => {
                    let (.., value): &mut (_, _, _, _, _, Vec<u8>) = found.last_mut().unwrap();
                    value.extend_from_slice(raw);
                }
                _ => {}
            }
            Ok(())
        })))
        .unwrap();
        let checksum = if version.number < 5 { Checksum::Absent } else { Checksum::Verified };
        prop_assert_eq!(report.checksum, checksum);
        prop_assert_eq!(found.len(), expected.len());
        for (found, expected) in found.into_iter().zip(expected) {
            // Those with an expiry in seconds were written raw.
            if !expected.2.is_empty() || !expected.5.is_empty() {
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn a_filter_that_keeps_everything_changes_nothing((version, parts) in made::file()) {
        let bytes = made::write(version, &parts);
        prop_assert_eq!(filtered(&bytes, &[0, 1, 2, 3, 4]), bytes);
    }

    #[test]
    fn a_filtered_file_holds_the_wanted_databases_byte_for_byte(
        (version, parts) in made::file(),
        wanted in vec(0..5u32, 0..3),
    ) {
        let bytes = made::write(version, &parts);
        let few = filtered(&bytes, &wanted);
        let (outcome, recorder) = record(&few);
        let report = outcome.unwrap();
        prop_assert!(matches!(report.checksum, Checksum::Verified | Checksum::Absent));
        prop_assert_eq!(&recorder.raw, &few);
        let mut expected = databases(&bytes);
        expected.retain(|db| wanted.contains(&db.0));
        prop_assert_eq!(databases(&few), expected);
        // Every key that stays is told exactly as before.
        let (_, all) = record(&bytes);
        let keys = |recorder: &Recorder| {
            let mut keys = Vec::new();
            for pair in recorder.events.windows(2) {
                let db = pair[0].strip_prefix("key ").and_then(|rest| rest.split(' ').next());
                if let Some(db) = db && wanted.contains(&db.parse().unwrap()) {
                    keys.push(pair.to_vec());
                }
            }
            keys
        };
        prop_assert_eq!(keys(&recorder), keys(&all));
    }

    #[test]
    fn a_payload_gives_back_what_it_was_made_of(
        key in prop_oneof![made::key(Family::Redis), made::key(Family::Valkey)],
    ) {
        // The metadata of Redis does not go with the types of Valkey.
        let redis = ValueType::new(key.type_code, Family::Redis).is_some_and(|value_type| {
            key.type_code != 22 && value_type.known_to(Family::Redis, 15)
        });
        let number = if redis { 15 } else { 80 };
        let value_type = ValueType::new(key.type_code, FileVersion::of_number(number).family);
        let bytes = payload::encode(key.type_code, &key.meta, &key.value, number);
        prop_assume!(key.type_code != 22);
        let parsed = Payload::parse(&bytes).unwrap();
        prop_assert_eq!(parsed.value_type, value_type);
        prop_assert_eq!(parsed.type_code, key.type_code);
        prop_assert_eq!(parsed.meta, &key.meta[..]);
        prop_assert_eq!(parsed.value, &key.value[..]);
        prop_assert_eq!(parsed.version.number, number);
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 4;
        prop_assert!(Payload::parse(&flipped).is_err());
        // A checksum of zero was not written, so it is not held against anything.
        let end = flipped.len();
        let mut unchecked = bytes;
        unchecked[end - 8..].fill(0);
        prop_assert!(Payload::parse(&unchecked).is_ok());
    }

    #[test]
    fn no_bytes_at_all_make_a_payload_panic(bytes in vec(any::<u8>(), 0..60)) {
        let _ = Payload::parse(&bytes);
        let mut summed = bytes;
        let footer = payload::footer(&summed, 15);
        summed.extend_from_slice(&footer);
        let _ = Payload::parse(&summed);
        let _ = payload::parse_functions(&summed);
    }

    #[test]
    fn functions_travel_through_their_payload(libraries in vec(vec(any::<u8>(), 0..90), 0..4)) {
        let encoded: Vec<_> = libraries.iter().map(|code| made::encoded(code)).collect();
        let refs = encoded.iter().map(|raw| StringRef::parse(raw).unwrap().unwrap());
        let bytes = payload::encode_functions(refs, 11);
        let parsed = payload::parse_functions(&bytes).unwrap();
        let decoded: Vec<_> =
            parsed.iter().map(|code| code.decode().unwrap().into_owned()).collect();
        prop_assert_eq!(decoded, libraries);
    }
}

#[test]
fn every_corpus_file_tells_the_same_however_it_is_split() {
    for (name, bytes) in corpus() {
        let (outcome, whole) = record(&bytes);
        let cuts: Vec<usize> = if bytes.len() < 2_000 {
            (1..bytes.len()).collect()
        } else {
            (1..bytes.len()).step_by(331).collect()
        };
        for cut in cuts {
            let (head, tail) = bytes.split_at(cut);
            let (split, recorder) = record_pieces([head, tail].into_iter());
            assert_eq!(split, outcome, "{name} cut at {cut}");
            assert_eq!(recorder.events, whole.events, "{name} cut at {cut}");
        }
        for piece in [1, 2, 3, 7, 64] {
            let (split, recorder) = record_pieces(bytes.chunks(piece));
            assert_eq!(split, outcome, "{name} in pieces of {piece}");
            assert_eq!(recorder.events, whole.events, "{name} in pieces of {piece}");
        }
    }
}

#[test]
fn a_footer_goes_as_far_down_as_the_target_asks() {
    let redis = |code| ValueType::new(code, Family::Redis).unwrap();
    for (code, family, own, expected) in [
        (0, Family::Redis, 6, Some(6)),
        (0, Family::Redis, 9, Some(9)),
        (0, Family::Redis, 15, Some(11)),
        (0, Family::Valkey, 80, Some(11)),
        (16, Family::Redis, 9, None),
        (20, Family::Redis, 11, Some(11)),
        (24, Family::Redis, 12, Some(12)),
        (24, Family::Redis, 14, Some(14)),
        (24, Family::Redis, 11, None),
        (24, Family::Valkey, 80, None),
    ] {
        assert_eq!(
            payload::footer_version_for(redis(code), family, own),
            expected,
            "type {code} to {family} {own}"
        );
    }
    let valkey = ValueType::new(22, Family::Valkey).unwrap();
    assert_eq!(
        payload::footer_version_for(valkey, Family::Valkey, 81),
        Some(81)
    );
    assert_eq!(payload::footer_version_for(valkey, Family::Redis, 15), None);
}
