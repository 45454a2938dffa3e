//! Ziplists (`ziplist.c`): 4 bytes length, 4 bytes place of the last element, 2 bytes count, elements, 0xFF.
//!
//! An element is the length of the one before it (1 byte, or 254 and 4 bytes), a head that tells type and length, and its
//! bytes. The trap: numbers are little-endian, but the lengths of strings are big-endian.

use super::listpack::int24;
use super::{Packed, PackedDamage, PackedError, PackedKind, Reader, Walk};

/// The elements of a ziplist.
#[derive(Clone, Debug)]
pub struct Ziplist<'a>(Walk<'a>);

impl<'a> Ziplist<'a> {
    /// Reads the head.
    ///
    /// # Errors
    /// It is none, or has another length.
    pub fn new(bytes: &'a [u8]) -> Result<Ziplist<'a>, PackedError> {
        let mut reader = Reader::new(PackedKind::Ziplist, bytes);
        let length = u32::from_le_bytes(reader.fixed()?);
        // Where the last element begins: for those who come from the end.
        reader.fixed::<4>()?;
        let said = u16::from_le_bytes(reader.fixed()?);
        reader.check_length(length)?;
        Ok(Ziplist(Walk {
            reader,
            said,
            have: 0,
            ended: false,
        }))
    }
}

impl<'a> Iterator for Ziplist<'a> {
    type Item = Result<Packed<'a>, PackedError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.0.next_by(element)
    }
}

#[inline]
fn element<'a>(reader: &mut Reader<'a>, first: u8) -> Result<Packed<'a>, PackedError> {
    if first == 254 {
        reader.fixed::<4>()?;
    }
    let at = reader.at;
    let head = reader.byte()?;
    Ok(match head {
        0x00..=0x3f => Packed::Bytes(reader.take(usize::from(head))?),
        0x40..=0x7f => {
            let low = reader.byte()?;
            let length = usize::from(head & 0x3f) << 8 | usize::from(low);
            Packed::Bytes(reader.take(length)?)
        }
        // The low bits mean nothing here; servers write none.
        0x80..=0xbf => {
            let length = u32::from_be_bytes(reader.fixed()?);
            // A length that usize can't hold is beyond the end of any string.
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            Packed::Bytes(reader.take(length)?)
        }
        0xc0 => Packed::Int(i64::from(i16::from_le_bytes(reader.fixed()?))),
        0xd0 => Packed::Int(i64::from(i32::from_le_bytes(reader.fixed()?))),
        0xe0 => Packed::Int(i64::from_le_bytes(reader.fixed()?)),
        0xf0 => Packed::Int(int24(reader.fixed()?)),
        0xf1..=0xfd => Packed::Int(i64::from(head) - 0xf1),
        0xfe => Packed::Int(i64::from(reader.byte()?.cast_signed())),
        other => return Err(reader.error(at, PackedDamage::Encoding(other))),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ziplist(count: u16, elements: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![0; 8];
        bytes.extend(count.to_le_bytes());
        elements.iter().for_each(|element| bytes.extend(*element));
        bytes.push(0xff);
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<Packed<'_>>, PackedError> {
        Ziplist::new(bytes)?.collect()
    }

    #[test]
    fn every_form_of_an_element_is_read() {
        let long = [&[0, 0x41, 0x00][..], &[b'y'; 256]].concat();
        let bytes = ziplist(
            11,
            &[
                &[0, 2, b'h', b'i'],
                &long,
                &[254, 3, 1, 0, 0, 0x80, 0, 0, 0, 1, b'z'],
                &[3, 0xc0, 0x00, 0x80],
                &[3, 0xd0, 0xff, 0xff, 0xff, 0x7f],
                &[3, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0x80],
                &[3, 0xf0, 0xff, 0xff, 0xff],
                &[3, 0xf1],
                &[3, 0xfd],
                &[3, 0xfe, 0x80],
                &[3, 0],
            ],
        );
        assert_eq!(
            read(&bytes).unwrap(),
            [
                Packed::Bytes(b"hi"),
                Packed::Bytes(&[b'y'; 256]),
                Packed::Bytes(b"z"),
                Packed::Int(-32768),
                Packed::Int(i64::from(i32::MAX)),
                Packed::Int(i64::MIN),
                Packed::Int(-1),
                Packed::Int(0),
                Packed::Int(12),
                Packed::Int(-128),
                Packed::Bytes(b""),
            ]
        );
        for cut in 0..bytes.len() {
            assert!(read(&bytes[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn what_is_no_ziplist_is_damage() {
        let wrong_count = ziplist(2, &[&[0, 0xf1]]);
        assert_eq!(
            read(&wrong_count).unwrap_err().why,
            PackedDamage::Count { said: 2, have: 1 }
        );
        let no_element = ziplist(1, &[&[0, 0xc1, 0, 0]]);
        assert_eq!(
            read(&no_element).unwrap_err().why,
            PackedDamage::Encoding(0xc1)
        );
        let beyond = ziplist(1, &[&[0, 0x80, 0xff, 0xff, 0xff, 0xff, 1]]);
        assert_eq!(read(&beyond).unwrap_err().why, PackedDamage::Cut);
    }
}
