//! LZF, the compression of strings inside a file (liblzf's format, `lzf_d.c`).
//!
//! A control byte below 32 announces that many literals and one more; any other is a reference back:
//! the three high bits are its length less 2 (7: the next byte is added), the low five and the next
//! byte the distance less 1.

use super::error::Damage;

/// Inflates `packed`, which must give exactly `plain_len` bytes.
///
/// # Errors
/// A reference before the beginning, a token that is cut, or another length than announced.
pub fn decompress(packed: &[u8], plain_len: usize) -> Result<Vec<u8>, Damage> {
    let mut out = Vec::new();
    decompress_into(packed, plain_len, &mut out)?;
    Ok(out)
}

/// The same into a buffer that was used before; its content goes.
///
/// # Errors
/// As [`decompress`]; the buffer then holds something.
pub fn decompress_into(packed: &[u8], plain_len: usize, out: &mut Vec<u8>) -> Result<(), Damage> {
    out.clear();
    // What is announced is believed only as far as most texts deliver it: beyond that the buffer grows with what comes.
    out.reserve(plain_len.min(packed.len().saturating_mul(8)));
    let mut rest = packed;
    while let Some((&control, after)) = rest.split_first() {
        rest = after;
        if control < 32 {
            let count = usize::from(control) + 1;
            let (literals, after) = rest.split_at_checked(count).ok_or(Damage::Lzf)?;
            if count > plain_len - out.len() {
                return Err(Damage::Lzf);
            }
            out.extend_from_slice(literals);
            rest = after;
            continue;
        }
        let mut length = usize::from(control >> 5);
        if length == 7 {
            let (&more, after) = rest.split_first().ok_or(Damage::Lzf)?;
            length += usize::from(more);
            rest = after;
        }
        length += 2;
        let (&low, after) = rest.split_first().ok_or(Damage::Lzf)?;
        rest = after;
        let distance = (usize::from(control & 0x1f) << 8 | usize::from(low)) + 1;
        let from = out.len().checked_sub(distance).ok_or(Damage::Lzf)?;
        if length > plain_len - out.len() {
            return Err(Damage::Lzf);
        }
        // A reference that runs into what it makes itself is a repetition: what is there grows with each round.
        let end = out.len() + length;
        while out.len() < end {
            let there = out.len() - from;
            let count = there.min(end - out.len());
            out.extend_from_within(from..from + count);
        }
    }
    if out.len() == plain_len {
        Ok(())
    } else {
        Err(Damage::Lzf)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn literals_references_and_repetitions_inflate() {
        assert_eq!(decompress(&[2, b'a', b'b', b'c'], 3).unwrap(), b"abc");
        // "ab", then 5 bytes from 2 back.
        assert_eq!(
            decompress(&[1, b'a', b'b', 0x60, 1], 7).unwrap(),
            b"abababa"
        );
        // "a", then 7 + 10 + 2 bytes from 1 back.
        assert_eq!(decompress(&[0, b'a', 0xe0, 10, 0], 20).unwrap(), [b'a'; 20]);
    }

    #[test]
    fn every_lie_is_an_error() {
        for (packed, len) in [
            (&[2u8, b'a'][..], 3),
            (&[0x60, 1], 5),
            (&[0, b'a', 0xe0], 9),
            (&[0, b'a', 0x20, 0], 3),
            (&[0, b'a'], 2),
            (&[1, b'a', b'b'], 1),
            (&[], 1),
        ] {
            assert_eq!(decompress(packed, len), Err(Damage::Lzf), "{packed:?}");
        }
    }
}
