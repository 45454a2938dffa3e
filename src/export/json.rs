//! Numbers, strings and base64 as they stand in the export's JSON, written by hand into one buffer.

use std::io::Write as _;

use crate::lossless;
use crate::rdb::packed::Digits;
use crate::rdb::value::StreamId;

/// Adds a whole number.
#[inline]
pub(super) fn unsigned(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(Digits::new().of_unsigned(number));
}

/// Adds a whole number.
#[inline]
pub(super) fn signed(number: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(Digits::new().of(number));
}

/// Whole numbers up to here are doubles of their own.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Adds a sorted set's score: the shortest number that is read back as the same double, −0 as `-0`, and what is no number
/// to JSON as a string: `"inf"`, `"-inf"`, `"nan"`.
pub fn score(score: f64, out: &mut Vec<u8>) {
    if score.is_nan() {
        out.extend_from_slice(b"\"nan\"");
    } else if score.is_infinite() {
        let text: &[u8] = if score > 0.0 { b"\"inf\"" } else { b"\"-inf\"" };
        out.extend_from_slice(text);
    } else if score == 0.0 && score.is_sign_negative() {
        out.extend_from_slice(b"-0");
    } else if score.trunc() == score && score.abs() <= EXACT {
        signed(score as i64, out);
    } else {
        let exponent = !(1e-5..1e21).contains(&score.abs());
        // A vector takes every byte.
        let _ = match exponent {
            true => write!(out, "{score:e}"),
            false => write!(out, "{score}"),
        };
    }
}

/// Adds a string with its quotes.
#[inline]
pub(super) fn string(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    lossless::json(bytes, out);
    out.push(b'"');
}

/// Adds an entry's ID with its quotes.
pub(super) fn id(id: StreamId, out: &mut Vec<u8>) {
    out.push(b'"');
    unsigned(id.ms, out);
    out.push(b'-');
    unsigned(id.seq, out);
    out.push(b'"');
}

/// Bytes as base64, in pieces of any size.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Base64 {
    /// Those that do not make up a group of three yet.
    rest: [u8; 2],
    held: usize,
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

impl Base64 {
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for &byte in bytes {
            if self.held < 2 {
                self.rest[self.held] = byte;
                self.held += 1;
            } else {
                let group = [self.rest[0], self.rest[1], byte];
                out.extend_from_slice(&four(group));
                self.held = 0;
            }
        }
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        if held > 0 {
            let group = [self.rest[0], if held > 1 { self.rest[1] } else { 0 }, 0];
            out.extend_from_slice(&four(group)[..=held]);
            out.extend_from_slice(&b"=="[..3 - held]);
        }
    }
}

fn four([a, b, c]: [u8; 3]) -> [u8; 4] {
    let bits = u32::from_be_bytes([0, a, b, c]);
    [18, 12, 6, 0].map(|shift| ALPHABET[(bits >> shift) as usize & 63])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn scores_are_written_as_a_person_would() {
        for (number, wanted) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-3.0, "-3"),
            (1.5, "1.5"),
            (0.1, "0.1"),
            (1_795_383_079_411.0, "1795383079411"),
            (9_007_199_254_740_992.0, "9007199254740992"),
            (1e20, "100000000000000000000"),
            (1e21, "1e21"),
            (1.7976931348623157e308, "1.7976931348623157e308"),
            (5e-324, "5e-324"),
            (0.00001, "0.00001"),
            (1.5e-7, "1.5e-7"),
            (f64::INFINITY, "\"inf\""),
            (f64::NEG_INFINITY, "\"-inf\""),
            (f64::NAN, "\"nan\""),
        ] {
            assert_eq!(written(|out| score(number, out)), wanted);
        }
    }

    #[test]
    fn base64_is_as_its_definition_has_it() {
        for (bytes, wanted) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg=="),
            (b"fooba", "Zm9vYmE="),
            (b"foobar", "Zm9vYmFy"),
            (b"\xff\xfe\xfd", "//79"),
        ] {
            for size in 1..7 {
                let found = written(|out| {
                    let mut base64 = Base64::default();
                    for piece in bytes.chunks(size) {
                        base64.push(piece, out);
                    }
                    base64.finish(out);
                });
                assert_eq!(found, wanted);
            }
        }
    }

    proptest! {
        #[test]
        fn a_score_is_read_back_as_the_same_double(bits in any::<u64>(), small in -1e6..1e6_f64) {
            for number in [f64::from_bits(bits), small, small.trunc()] {
                let text = written(|out| score(number, out));
                if number.is_finite() {
                    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
                    prop_assert!(value.is_number());
                    prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), number.to_bits());
                }
            }
        }

        #[test]
        fn whole_numbers_are_written_whole(number in any::<i64>()) {
            prop_assert_eq!(written(|out| signed(number, out)), number.to_string());
            prop_assert_eq!(written(|out| unsigned(number as u64, out)), (number as u64).to_string());
        }
    }
}
