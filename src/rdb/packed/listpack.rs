//! Listpacks (`listpack.c`): 4 bytes length, 2 bytes count, elements, 0xFF; all numbers little-endian.
//!
//! An element is a head that tells type and length, its bytes, and its length once more, written backwards in groups of
//! 7 bits, for those who come from the end. A string's 12-bit length and a 13-bit integer have their high bits first.

use super::{Packed, PackedDamage, PackedError, PackedKind, Reader, Walk};

/// Length and count.
const HEAD: usize = 6;

/// The elements of a listpack.
#[derive(Clone, Debug)]
pub struct Listpack<'a>(Walk<'a>);

impl<'a> Listpack<'a> {
    /// Reads the head.
    ///
    /// # Errors
    /// It is none, or has another length.
    pub fn new(bytes: &'a [u8]) -> Result<Listpack<'a>, PackedError> {
        let mut reader = Reader::new(PackedKind::Listpack, bytes);
        let length = u32::from_le_bytes(reader.fixed()?);
        let said = u16::from_le_bytes(reader.fixed()?);
        reader.check_length(length)?;
        Ok(Listpack(Walk {
            reader,
            said,
            have: 0,
            ended: false,
        }))
    }
}

impl<'a> Iterator for Listpack<'a> {
    type Item = Result<Packed<'a>, PackedError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.0.next_by(element)
    }
}

#[inline]
fn element<'a>(reader: &mut Reader<'a>, first: u8) -> Result<Packed<'a>, PackedError> {
    let begin = reader.at - 1;
    let element = match first {
        0x00..=0x7f => Packed::Int(i64::from(first)),
        0x80..=0xbf => Packed::Bytes(reader.take(usize::from(first & 0x3f))?),
        0xc0..=0xdf => {
            let low = reader.byte()?;
            let raw = u16::from(first & 0x1f) << 8 | u16::from(low);
            // 13 bits, signed.
            Packed::Int(i64::from((raw << 3).cast_signed() >> 3))
        }
        0xe0..=0xef => {
            let low = reader.byte()?;
            let length = usize::from(first & 0x0f) << 8 | usize::from(low);
            Packed::Bytes(reader.take(length)?)
        }
        0xf0 => {
            let length = u32::from_le_bytes(reader.fixed()?);
            // A length that usize can't hold is beyond the end of any string.
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            Packed::Bytes(reader.take(length)?)
        }
        0xf1 => Packed::Int(i64::from(i16::from_le_bytes(reader.fixed()?))),
        0xf2 => Packed::Int(int24(reader.fixed()?)),
        0xf3 => Packed::Int(i64::from(i32::from_le_bytes(reader.fixed()?))),
        0xf4 => Packed::Int(i64::from_le_bytes(reader.fixed()?)),
        other => return Err(reader.error(begin, PackedDamage::Encoding(other))),
    };
    reader.take(back_length_bytes(reader.at - begin))?;
    Ok(element)
}

/// Three bytes, little-endian, signed.
pub(super) fn int24([a, b, c]: [u8; 3]) -> i64 {
    i64::from(i32::from_le_bytes([0, a, b, c]) >> 8)
}

/// How many bytes say that an element has this length (`lpEncodeBacklen`).
fn back_length_bytes(length: usize) -> usize {
    match length {
        0..=127 => 1,
        128..16_383 => 2,
        16_383..2_097_151 => 3,
        2_097_151..268_435_455 => 4,
        _ => 5,
    }
}

/// Makes a listpack.
#[derive(Clone, Debug)]
pub struct ListpackWriter {
    bytes: Vec<u8>,
    count: u64,
}

impl Default for ListpackWriter {
    fn default() -> ListpackWriter {
        ListpackWriter::new()
    }
}

impl ListpackWriter {
    /// An empty one.
    pub fn new() -> ListpackWriter {
        ListpackWriter {
            bytes: vec![0; HEAD],
            count: 0,
        }
    }

    /// How many bytes it has so far.
    pub fn len(&self) -> usize {
        self.bytes.len() + 1
    }

    /// Whether it has no element yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a number.
    pub fn int(&mut self, int: i64) {
        let begin = self.bytes.len();
        if (0..=127).contains(&int) {
            self.bytes.push(int as u8);
        } else if (-4096..=4095).contains(&int) {
            let raw = (int as u16) & 0x1fff;
            self.bytes.extend([0xc0 | (raw >> 8) as u8, raw as u8]);
        } else if let Ok(int) = i16::try_from(int) {
            self.bytes.push(0xf1);
            self.bytes.extend(int.to_le_bytes());
        } else if (-(1 << 23)..1 << 23).contains(&int) {
            self.bytes.push(0xf2);
            self.bytes.extend(&int.to_le_bytes()[..3]);
        } else if let Ok(int) = i32::try_from(int) {
            self.bytes.push(0xf3);
            self.bytes.extend(int.to_le_bytes());
        } else {
            self.bytes.push(0xf4);
            self.bytes.extend(int.to_le_bytes());
        }
        self.end_element(begin);
    }

    /// Adds a string. One that is longer than 4 GiB does not fit in: it is cut, which no server's value can come to.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let begin = self.bytes.len();
        let length = bytes.len();
        if length < 64 {
            self.bytes.push(0x80 | length as u8);
        } else if length < 4096 {
            self.bytes
                .extend([0xe0 | (length >> 8) as u8, length as u8]);
        } else {
            self.bytes.push(0xf0);
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            self.bytes.extend(length.to_le_bytes());
        }
        self.bytes.extend(bytes.iter().take(u32::MAX as usize));
        self.end_element(begin);
    }

    /// Adds all elements of another one, which is empty afterwards.
    pub fn append(&mut self, other: &mut ListpackWriter) {
        self.bytes.extend_from_slice(&other.bytes[HEAD..]);
        self.count += other.count;
        other.bytes.truncate(HEAD);
        other.count = 0;
    }

    /// Ends it and gives its bytes; what is made next begins empty.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::replace(&mut self.bytes, vec![0; HEAD]);
        bytes.push(0xff);
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let count = u16::try_from(self.count).unwrap_or(super::MANY);
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes[4..HEAD].copy_from_slice(&count.to_le_bytes());
        self.count = 0;
        bytes
    }

    fn end_element(&mut self, begin: usize) {
        let length = self.bytes.len() - begin;
        let bytes = back_length_bytes(length);
        for at in (0..bytes).rev() {
            let group = (length >> (7 * at)) as u8 & 0x7f;
            // All but the first of them are marked: read from the end, the first ends it.
            let mark = if at + 1 == bytes { 0 } else { 0x80 };
            self.bytes.push(group | mark);
        }
        self.count += 1;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<Packed<'_>>, PackedError> {
        Listpack::new(bytes)?.collect()
    }

    #[test]
    fn what_is_written_is_read_at_every_threshold() {
        let lengths = [
            0, 1, 63, 64, 125, 126, 127, 128, 4095, 4096, 16_379, 16_380, 70_000,
        ];
        let strings: Vec<Vec<u8>> = lengths.map(|length| vec![b'x'; length]).into();
        let mut ints = vec![0, -1, i64::MAX, i64::MIN];
        for bits in [7, 12, 15, 23, 31] {
            ints.extend([(1 << bits) - 1, 1 << bits, -(1 << bits), -(1 << bits) - 1]);
        }
        let mut writer = ListpackWriter::new();
        strings.iter().for_each(|string| writer.bytes(string));
        ints.iter().for_each(|int| writer.int(*int));
        let bytes = writer.finish();
        let expected: Vec<Packed<'_>> = strings
            .iter()
            .map(|string| Packed::Bytes(string))
            .chain(ints.iter().map(|int| Packed::Int(*int)))
            .collect();
        assert_eq!(read(&bytes).unwrap(), expected);
        for cut in 0..bytes.len().min(300) {
            assert!(read(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn more_elements_than_the_head_can_say_are_read() {
        let mut writer = ListpackWriter::new();
        (0..70_000).for_each(|int| writer.int(int));
        let bytes = writer.finish();
        assert_eq!(bytes[4..6], [0xff, 0xff]);
        assert_eq!(read(&bytes).unwrap().len(), 70_000);
    }

    #[test]
    fn a_head_that_lies_is_damage() {
        let mut writer = ListpackWriter::new();
        writer.bytes(b"abc");
        let bytes = writer.finish();
        for (at, byte) in [(0, 99), (4, 2), (6, 0xf5), (6, 0xbf)] {
            let mut damaged = bytes.clone();
            damaged[at] = byte;
            assert!(read(&damaged).is_err(), "{at}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        longer[0] += 1;
        assert_eq!(read(&longer).unwrap_err().why, PackedDamage::Trailing);
    }
}
