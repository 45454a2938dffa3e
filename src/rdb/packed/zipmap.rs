//! Zipmaps (`zipmap.c`), in which Redis up to 2.4 kept small hashes: 1 byte count, pairs, 0xFF.
//!
//! A pair is a length and the field, a length, one byte that counts unused bytes, the value and the unused bytes. A length
//! is one byte below 254, or 254 and 4 bytes, little-endian. From 254 pairs on the count says nothing.

use super::{PackedDamage, PackedError, PackedKind, Reader};

/// The pairs of a zipmap.
#[derive(Clone, Debug)]
pub struct Zipmap<'a> {
    reader: Reader<'a>,
    said: u8,
    have: u64,
    ended: bool,
}

/// Field and value.
type Pair<'a> = (&'a [u8], &'a [u8]);

impl<'a> Zipmap<'a> {
    /// Reads the head.
    ///
    /// # Errors
    /// There is none.
    pub fn new(bytes: &'a [u8]) -> Result<Zipmap<'a>, PackedError> {
        let mut reader = Reader::new(PackedKind::Zipmap, bytes);
        let said = reader.byte()?;
        Ok(Zipmap {
            reader,
            said,
            have: 0,
            ended: false,
        })
    }

    fn pair(&mut self) -> Result<Option<Pair<'a>>, PackedError> {
        let first = self.reader.byte()?;
        if first == 0xff {
            let at = self.reader.at;
            if at != self.reader.bytes.len() {
                return Err(self.reader.error(at, PackedDamage::Trailing));
            }
            let (said, have) = (u64::from(self.said), self.have);
            if said < 254 && said != have {
                return Err(self.reader.error(0, PackedDamage::Count { said, have }));
            }
            return Ok(None);
        }
        let length = self.length(first)?;
        let field = self.reader.take(length)?;
        let at = self.reader.at;
        let first = self.reader.byte()?;
        if first == 0xff {
            return Err(self.reader.error(at, PackedDamage::Cut));
        }
        let length = self.length(first)?;
        let unused = self.reader.byte()?;
        let value = self.reader.take(length)?;
        self.reader.take(usize::from(unused))?;
        self.have += 1;
        Ok(Some((field, value)))
    }

    fn length(&mut self, first: u8) -> Result<usize, PackedError> {
        if first < 254 {
            return Ok(usize::from(first));
        }
        let length = u32::from_le_bytes(self.reader.fixed()?);
        // A length that usize can't hold is beyond the end of any string.
        Ok(usize::try_from(length).unwrap_or(usize::MAX))
    }
}

impl<'a> Iterator for Zipmap<'a> {
    type Item = Result<Pair<'a>, PackedError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let pair = self.pair();
        self.ended = !matches!(pair, Ok(Some(_)));
        pair.transpose()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pairs_with_unused_bytes_and_long_values_are_read() {
        let long = [b'v'; 300];
        let mut bytes = vec![
            2, 1, b'a', 2, 3, b'x', b'y', 0, 0, 0, 1, b'b', 254, 44, 1, 0, 0, 0,
        ];
        bytes.extend(long);
        bytes.push(0xff);
        fn read(bytes: &[u8]) -> Result<Vec<Pair<'_>>, PackedError> {
            Zipmap::new(bytes)?.collect()
        }
        assert_eq!(
            read(&bytes).unwrap(),
            [(&b"a"[..], &b"xy"[..]), (&b"b"[..], &long[..])]
        );
        for cut in 0..bytes.len() {
            assert!(read(&bytes[..cut]).is_err(), "{cut}");
        }
        bytes[0] = 3;
        assert!(read(&bytes).is_err());
    }
}
