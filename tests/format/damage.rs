//! Every real file, cut and flipped everywhere.

use rdbkeeper::rdb::{Checksum, FileError, Scanner};

use crate::support::*;

/// Larger files are flipped only here and there.
const SMALL: usize = 6_000;

#[test]
fn a_file_cut_at_any_byte_is_never_whole() {
    for (name, bytes) in corpus() {
        let mut recorder = Recorder::default();
        let mut scanner = Scanner::new();
        for (at, byte) in bytes.iter().enumerate() {
            let outcome = plain(scanner.clone().finish(&mut Recorder::default()));
            match outcome {
                Err(FileError::Truncated { offset }) => assert_eq!(offset, at as u64, "{name}"),
                // An opaque rest is known to be cut by its checksum only.
                Err(FileError::Checksum { .. }) => {}
                other => panic!("{name} cut at {at}: {other:?}"),
            }
            if let Err(error) = plain(scanner.feed(&[*byte], &mut recorder)) {
                assert_eq!(at, bytes.len() - 1, "{name}: {error}");
            }
        }
    }
}

#[test]
fn a_file_with_a_flipped_byte_is_never_whole_where_it_has_a_checksum() {
    for (name, bytes) in corpus() {
        let verified =
            matches!(record(&bytes).0, Ok(report) if report.checksum == Checksum::Verified);
        let (step, piece) = if bytes.len() < SMALL {
            (1, 3)
        } else {
            (509, 1000)
        };
        let mut damaged = bytes.clone();
        for at in (0..bytes.len()).step_by(step) {
            for mask in [0x01, 0x10, 0x80, 0xff] {
                damaged[at] ^= mask;
                let (outcome, _) = summary(&damaged);
                assert!(
                    outcome.is_err() || !verified,
                    "{name}: byte {at} flipped by {mask:#x} goes unnoticed"
                );
                // The same in small pieces: no panic, the same verdict.
                if mask == 0x10 {
                    let (in_pieces, _) = record_pieces(damaged.chunks(piece));
                    assert_eq!(outcome, in_pieces, "{name}: byte {at} flipped by {mask:#x}");
                }
                damaged[at] = bytes[at];
            }
        }
    }
}

#[test]
fn what_follows_the_end_is_an_error_with_its_offset_and_count() {
    for (name, mut bytes) in corpus() {
        let (Ok(report), _) = record(&bytes) else {
            continue;
        };
        if report.opaque.is_some() {
            continue;
        }
        let offset = bytes.len() as u64;
        bytes.extend_from_slice(b"more");
        for piece in [1, 5, bytes.len()] {
            assert_eq!(
                record_pieces(bytes.chunks(piece)).0,
                Err(FileError::Trailing { offset, count: 4 }),
                "{name}"
            );
        }
    }
}

#[test]
fn any_bytes_behind_a_header_end_in_an_answer() {
    // A cheap generator: the property tests have a better one, but no time for so many.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..20_000u32 {
        let mut bytes = match round % 4 {
            0 => b"REDIS0011".to_vec(),
            1 => b"VALKEY080".to_vec(),
            2 => b"REDIS0014".to_vec(),
            _ => b"REDIS0003".to_vec(),
        };
        let len = next() % 60;
        for _ in 0..len {
            let word = next();
            // Mostly bytes that mean something.
            bytes.push(match word % 4 {
                0 => (240 + (word >> 8) % 16) as u8,
                1 => ((word >> 8) % 32) as u8,
                2 => 0x80 | ((word >> 8) % 2) as u8,
                _ => (word >> 8) as u8,
            });
        }
        let (outcome, whole) = record(&bytes);
        assert!(whole.raw.len() <= bytes.len());
        let (again, pieces) = record_pieces(bytes.chunks(1 + (round % 7) as usize));
        assert_eq!(outcome, again, "{bytes:?}");
        if outcome.is_ok() {
            assert_eq!(whole.raw, bytes);
            assert_eq!(whole.events, pieces.events);
        }
    }
}
