//! Lengths: the numbers of the format, and the heads of its strings.
//!
//! The two high bits of the first byte tell the form: 6 bits in the byte itself, 14 bits with the
//! next one, `0x80` + 4 bytes and `0x81` + 8 bytes (both big-endian), or, where a string may stand, a
//! special encoding: an integer or LZF (`rdbLoadLenByRef` in `rdb.c`).
//!
//! All readers here answer `None` when the bytes end too early, so that the caller can ask again
//! with more; the longest head of a string is [`MAX_HEAD`] bytes.

use super::error::Damage;

/// The longest head of a string: the LZF mark and two lengths of 9 bytes.
pub const MAX_HEAD: usize = 19;

/// No LZF token makes more than 264 bytes of 3, so a greater ratio is a lie.
const LZF_RATIO: u64 = 88;

/// Reads the length at the start of `bytes`: its value, and how many bytes it takes.
///
/// # Errors
/// A first byte that begins no length.
#[inline]
pub fn decode(bytes: &[u8]) -> Result<Option<(u64, usize)>, Damage> {
    let Some(&first) = bytes.first() else {
        return Ok(None);
    };
    Ok(match first >> 6 {
        0 => Some((u64::from(first), 1)),
        1 => bytes
            .get(1)
            .map(|&low| (u64::from(first & 0x3f) << 8 | u64::from(low), 2)),
        2 if first == 0x80 => bytes[1..]
            .first_chunk::<4>()
            .map(|be| (u64::from(u32::from_be_bytes(*be)), 5)),
        2 if first == 0x81 => bytes[1..]
            .first_chunk::<8>()
            .map(|be| (u64::from_be_bytes(*be), 9)),
        _ => return Err(Damage::NotALength(first)),
    })
}

/// Appends the shortest form of a length.
pub fn encode(value: u64, out: &mut Vec<u8>) {
    if value < 1 << 6 {
        out.push(value as u8);
    } else if value < 1 << 14 {
        out.extend_from_slice(&[0x40 | (value >> 8) as u8, value as u8]);
    } else if let Ok(value) = u32::try_from(value) {
        out.push(0x80);
        out.extend_from_slice(&value.to_be_bytes());
    } else {
        out.push(0x81);
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// Appends a string in its plain form: length and bytes.
pub fn encode_string(bytes: &[u8], out: &mut Vec<u8>) {
    encode(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// How a string's bytes are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As they are.
    Plain,
    /// As a little-endian signed integer that is read as decimal text.
    Int,
    /// Compressed; the length is that of the plain bytes.
    Lzf {
        /// The length once inflated.
        plain: u64,
    },
}

/// The head of a string: how long the head is, how long the body behind it, and what the body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StringHead {
    pub(crate) head: usize,
    pub(crate) body: u64,
    pub(crate) form: Form,
}

/// Reads the head of the string at the start of `bytes`.
#[inline]
pub(crate) fn string_head(bytes: &[u8]) -> Result<Option<StringHead>, Damage> {
    match bytes.first() {
        Some(&first) if first >= 0xc0 => special_head(first, bytes),
        _ => Ok(decode(bytes)?.map(|(body, head)| StringHead {
            head,
            body,
            form: Form::Plain,
        })),
    }
}

fn special_head(first: u8, bytes: &[u8]) -> Result<Option<StringHead>, Damage> {
    let int = |body| {
        Ok(Some(StringHead {
            head: 1,
            body,
            form: Form::Int,
        }))
    };
    match first & 0x3f {
        0 => int(1),
        1 => int(2),
        2 => int(4),
        3 => {
            let Some((packed, first_len)) = decode(&bytes[1..])? else {
                return Ok(None);
            };
            let Some((plain, second_len)) = decode(&bytes[1 + first_len..])? else {
                return Ok(None);
            };
            if plain / LZF_RATIO > packed {
                return Err(Damage::LzfRatio { packed, plain });
            }
            Ok(Some(StringHead {
                head: 1 + first_len + second_len,
                body: packed,
                form: Form::Lzf { plain },
            }))
        }
        _ => Err(Damage::NotAString(first)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes_and_every_cut_asks_for_more() {
        for value in [
            0,
            63,
            64,
            16383,
            16384,
            u64::from(u32::MAX),
            u64::from(u32::MAX) + 1,
            u64::MAX,
        ] {
            let mut bytes = Vec::new();
            encode(value, &mut bytes);
            assert_eq!(decode(&bytes).unwrap(), Some((value, bytes.len())));
            for cut in 0..bytes.len() {
                assert_eq!(decode(&bytes[..cut]).unwrap(), None);
            }
        }
    }

    #[test]
    fn marks_that_mean_nothing_are_refused() {
        for first in [0x82u8, 0xbf, 0xc0, 0xff] {
            assert_eq!(decode(&[first; 9]), Err(Damage::NotALength(first)));
        }
        assert_eq!(string_head(&[0xc4; 9]), Err(Damage::NotAString(0xc4)));
    }

    #[test]
    fn a_string_that_claims_to_inflate_beyond_what_lzf_can_is_refused() {
        assert!(matches!(
            string_head(&[0xc3, 1, 0x81, 0, 0, 1, 0, 0, 0, 0, 0]),
            Err(Damage::LzfRatio { .. })
        ));
        let head = string_head(&[0xc3, 1, 60]).unwrap().unwrap();
        assert_eq!((head.head, head.body), (3, 1));
    }
}
