//! Small files made by hand, each for one rule.

use rdbkeeper::rdb::crc64::crc64;
use rdbkeeper::rdb::{
    Checksum, Damage, DbFilter, DbIndex, Event, Family, FileError, FileVersion, FilterError,
    Limits, NewKey, ScanError, Scanner, Summary, Unknown, Writer, from_fn, scan_bytes,
};

use crate::support::*;

fn with_checksum(body: &[u8]) -> Vec<u8> {
    let mut bytes = body.to_vec();
    bytes.extend_from_slice(&crc64(body).to_le_bytes());
    bytes
}

#[test]
fn an_empty_file_is_cut_off_and_others_are_no_rdb_at_all() {
    assert_eq!(record(b"").0, Err(FileError::Truncated { offset: 0 }));
    assert_eq!(record(b"REDI").0, Err(FileError::Truncated { offset: 4 }));
    assert_eq!(
        record(b"VALKEY0").0,
        Err(FileError::Truncated { offset: 7 })
    );
    for bytes in [
        &b"PK\x03\x04 a zip file"[..],
        b"x",
        b"REDIS00x1\xff",
        b"REDIS0000\xff",
    ] {
        assert_eq!(record(bytes).0, Err(FileError::NotRdb), "{bytes:?}");
    }
}

#[test]
fn a_checksum_of_zero_is_one_that_the_server_did_not_write() {
    let mut bytes = b"REDIS0011\xff".to_vec();
    bytes.extend([0; 8]);
    assert_eq!(record(&bytes).0.unwrap().checksum, Checksum::Disabled);
    assert_eq!(
        record(&with_checksum(b"REDIS0011\xff")).0.unwrap().checksum,
        Checksum::Verified
    );
    assert_eq!(
        record(b"REDIS0004\xff").0.unwrap().checksum,
        Checksum::Absent
    );
}

#[test]
fn a_file_compressed_as_a_whole_is_opaque_from_its_first_byte() {
    let bytes = b"VCS\x01\x02\x03\x04 and a frame that only the server reads";
    for piece in [1, 4, bytes.len()] {
        let (outcome, recorder) = record_pieces(bytes.chunks(piece));
        let report = outcome.unwrap();
        assert_eq!(report.opaque, Some((0, Unknown::Compressed)));
        assert_eq!(
            (report.version, report.checksum),
            (None, Checksum::Unverifiable)
        );
        assert_eq!(recorder.raw, bytes);
    }
}

#[test]
fn an_opaque_file_without_a_checksum_is_whole_only_if_it_ends_as_a_file_ends() {
    let mut bytes = b"REDIS0011\xf2anything".to_vec();
    assert!(matches!(record(&bytes).0, Err(FileError::Truncated { .. })));
    bytes.push(0xff);
    bytes.extend([0; 8]);
    let report = record(&bytes).0.unwrap();
    assert_eq!(report.checksum, Checksum::Unverifiable);
    assert_eq!(report.opaque, Some((9, Unknown::Type(0xf2))));
    bytes.truncate(bytes.len() - 9);
    bytes.extend([0; 9]);
    assert!(matches!(record(&bytes).0, Err(FileError::Truncated { .. })));
}

#[test]
fn a_key_of_unknown_type_is_opaque_with_its_expiry() {
    let mut body = b"REDIS0011\xfc".to_vec();
    body.extend([1; 8]);
    body.extend(b"\x1c\x01k\x01v\xff");
    let bytes = with_checksum(&body);
    for piece in 1..bytes.len() {
        let (outcome, recorder) = record_pieces(bytes.chunks(piece));
        let report = outcome.unwrap();
        assert_eq!(report.opaque, Some((18, Unknown::Type(28))));
        assert_eq!(report.checksum, Checksum::Verified);
        assert_eq!(recorder.raw, bytes);
        assert!(!recorder.events.iter().any(|event| event.starts_with("key")));
    }
}

#[test]
fn a_described_layout_that_does_not_hold_makes_a_file_opaque_and_not_damaged() {
    // A stream of Redis 8.6 whose end is other than described: module opcodes follow.
    let mut body = b"REDIS0013\x1a\x01s".to_vec();
    body.extend([0; 9]);
    body.extend([0, 0, 0, 0, 0]);
    body.extend([0xc7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0xff]);
    let mut bytes = with_checksum(&body);
    for piece in 1..bytes.len() {
        let (outcome, recorder) = record_pieces(bytes.chunks(piece));
        let report = outcome.unwrap();
        assert!(matches!(report.opaque, Some((_, Unknown::Layout(26)))));
        assert_eq!(report.checksum, Checksum::Verified);
        assert_eq!(recorder.raw, bytes);
    }
    bytes[40] ^= 1;
    assert!(matches!(record(&bytes).0, Err(FileError::Checksum { .. })));

    // One that leads beyond the end of the file.
    let mut body = b"REDIS0013\x1a\x01s".to_vec();
    body.extend([0; 9]);
    body.extend([0, 0, 0, 3, 40, 1, 2, 3, 0xff]);
    let bytes = with_checksum(&body);
    for piece in 1..bytes.len() {
        let (outcome, recorder) = record_pieces(bytes.chunks(piece));
        assert_eq!(outcome.unwrap().checksum, Checksum::Verified);
        assert_eq!(recorder.raw, bytes);
    }
}

#[test]
fn a_length_beyond_the_limits_is_an_error_and_costs_no_memory() {
    let mut bytes = b"REDIS0011\x00\x81".to_vec();
    bytes.extend((1u64 << 62).to_be_bytes());
    let error = record(&bytes).0.unwrap_err();
    let damage = Damage::TooLong {
        length: 1 << 62,
        limit: 512 << 20,
    };
    assert_eq!(error, FileError::Damaged { offset: 10, damage });

    let limits = Limits {
        max_item: 10,
        ..Limits::default()
    };
    let mut scanner = Scanner::with_limits(limits);
    assert!(
        scanner
            .feed(b"REDIS0011\xfa\x0bredis", &mut Recorder::default())
            .is_err()
    );
}

#[test]
fn a_file_of_millions_of_databases_is_an_error_before_they_cost_memory() {
    let file = |databases: u32| {
        let mut bytes = b"REDIS0011".to_vec();
        for db in 0..databases {
            bytes.extend(b"\xfe\x80");
            bytes.extend(db.to_be_bytes());
            bytes.extend(b"\x00\x01k\x01v");
        }
        bytes.push(0xff);
        with_checksum(&bytes)
    };
    let mut summary = Summary::new();
    scan_bytes(&file(1 << 16), &mut summary).unwrap();
    assert_eq!(
        (summary.keys(), summary.databases().len()),
        (1 << 16, 1 << 16)
    );

    let expected = FileError::Damaged {
        offset: 9 + 11 * (1 << 16),
        damage: Damage::Databases { limit: 1 << 16 },
    };
    let bytes = file((1 << 16) + 1);
    for piece in [bytes.len(), 7] {
        let (mut scanner, mut summary) = (Scanner::new(), Summary::new());
        let error = bytes
            .chunks(piece)
            .find_map(|part| scanner.feed(part, &mut summary).err())
            .unwrap();
        assert!(
            matches!(error, ScanError::File(error) if error == expected),
            "{error}"
        );
        assert_eq!(summary.keys(), 1 << 16);
    }
    // To and fro between a few is no more than a few.
    let mut bytes = b"REDIS0011".to_vec();
    for _ in 0..1 << 17 {
        bytes.extend(b"\xfe\x01\xfe\x02");
    }
    bytes.push(0xff);
    scan_bytes(&with_checksum(&bytes), &mut Summary::new()).unwrap();
}

#[test]
fn a_damaged_place_is_told_by_its_offset_however_the_file_is_split() {
    // A list node of kind 3, in the second key.
    let bytes = b"REDIS0011\x00\x01a\x01b\x12\x01k\x01\x03\x00";
    for piece in 1..bytes.len() {
        assert_eq!(
            record_pieces(bytes.chunks(piece)).0,
            Err(FileError::Damaged {
                offset: 18,
                damage: Damage::Container(3)
            })
        );
    }
}

#[test]
fn a_scanner_that_failed_stays_failed() {
    let mut scanner = Scanner::new();
    let mut recorder = Recorder::default();
    assert!(scanner.feed(b"no RDB file", &mut recorder).is_err());
    assert_eq!(
        plain(scanner.feed(b"REDIS0011", &mut recorder)),
        Err(FileError::Abandoned)
    );
    assert_eq!(
        plain(scanner.finish(&mut recorder)),
        Err(FileError::Abandoned)
    );
}

#[test]
fn a_handler_can_end_a_scan() {
    let bytes = with_checksum(b"REDIS0011\x00\x01a\x01b\xff");
    let result = scan_bytes(
        &bytes,
        &mut from_fn(|event| match event {
            Event::Key(_) => Err("enough"),
            _ => Ok(()),
        }),
    );
    assert!(matches!(
        result,
        Err(rdbkeeper::rdb::ScanError::Handler("enough"))
    ));
}

#[test]
fn an_expiry_in_seconds_is_told_in_milliseconds() {
    let bytes = with_checksum(b"REDIS0011\xfd\x00\x00\x00\x60\x00\x01a\x01b\xff");
    let (_, summary) = summary(&bytes);
    assert_eq!(
        summary.databases()[&DbIndex(0)].min_expire_at_ms,
        Some(0x6000_0000 * 1000)
    );
}

#[test]
fn an_opaque_file_cannot_be_filtered_and_says_so() {
    let bytes = corpus_file("librdb/redis_ent_opcode_ram_lru");
    let mut filter = DbFilter::new([DbIndex(0)]);
    let error = scan_bytes(
        &bytes,
        &mut from_fn(|event| filter.event(&event, &mut |_| {})),
    )
    .unwrap_err();
    assert!(matches!(
        error,
        rdbkeeper::rdb::ScanError::Handler(FilterError::Opaque {
            offset: 280,
            what: Unknown::Type(b'k')
        })
    ));
}

#[test]
fn a_value_larger_than_a_block_passes_through_writer_scanner_and_filter() {
    let version = FileVersion {
        family: Family::Redis,
        number: 10,
    };
    let mut value = Vec::new();
    rdbkeeper::rdb::length::encode_string(&vec![7; 300_000], &mut value);
    let mut writer = Writer::new(Vec::new(), version).unwrap();
    writer.select_db(DbIndex(3)).unwrap();
    writer.key(&NewKey::new(b"big", 0), &value).unwrap();
    let (bytes, len) = writer.finish().unwrap();
    assert_eq!(len, bytes.len() as u64);
    let (outcome, recorder) = record_pieces(bytes.chunks(100_000));
    assert_eq!(outcome.unwrap().checksum, Checksum::Verified);
    assert_eq!(recorder.raw, bytes);
    assert_eq!(filtered(&bytes, &[3]), bytes);
    let without = filtered(&bytes, &[0]);
    assert_eq!(summary(&without).1.keys(), 0);
}

#[test]
fn the_writer_refuses_a_version_that_does_not_fit_its_header() {
    for (family, number) in [
        (Family::Redis, 0),
        (Family::Redis, 10_000),
        (Family::Valkey, 1_000),
    ] {
        assert!(Writer::new(Vec::new(), FileVersion { family, number }).is_err());
    }
}
