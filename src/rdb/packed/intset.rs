//! Intsets (`intset.c`): 4 bytes width (2, 4 or 8), 4 bytes count, integers; all little-endian.

use super::{PackedDamage, PackedError, PackedKind, Reader};

/// The members of an intset.
#[derive(Clone, Debug)]
pub struct Intset<'a> {
    width: usize,
    members: std::slice::ChunksExact<'a, u8>,
}

impl<'a> Intset<'a> {
    /// Reads it: what is wrong with it is found here.
    ///
    /// # Errors
    /// It is none, or has another length than it says.
    pub fn new(bytes: &'a [u8]) -> Result<Intset<'a>, PackedError> {
        let mut reader = Reader::new(PackedKind::Intset, bytes);
        let width = u32::from_le_bytes(reader.fixed()?);
        let said = u32::from_le_bytes(reader.fixed()?);
        let width = match width {
            2 | 4 | 8 => width as usize,
            other => return Err(reader.error(0, PackedDamage::Width(other))),
        };
        let members = &bytes[reader.at..];
        if members.len() as u64 != u64::from(said) * width as u64 {
            let have = (members.len() / width) as u64;
            let said = u64::from(said);
            return Err(reader.error(4, PackedDamage::Count { said, have }));
        }
        let members = members.chunks_exact(width);
        Ok(Intset { width, members })
    }
}

impl Iterator for Intset<'_> {
    type Item = i64;

    #[inline]
    fn next(&mut self) -> Option<i64> {
        let member = self.members.next()?;
        // The top bytes are the sign's.
        let sign = if member[self.width - 1] & 0x80 == 0 {
            0
        } else {
            0xff
        };
        let mut wide = [sign; 8];
        wide[..self.width].copy_from_slice(member);
        Some(i64::from_le_bytes(wide))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_width_is_read() {
        for (width, members) in [
            (2, vec![-32768, -1, 0, 32767]),
            (4, vec![i64::from(i32::MIN), 65536]),
            (8, vec![i64::MIN, i64::MAX]),
        ] {
            let mut bytes = vec![width as u8, 0, 0, 0, members.len() as u8, 0, 0, 0];
            for member in &members {
                bytes.extend(&i64::to_le_bytes(*member)[..width]);
            }
            assert_eq!(Intset::new(&bytes).unwrap().collect::<Vec<_>>(), members);
            for cut in 0..bytes.len() {
                assert!(Intset::new(&bytes[..cut]).is_err());
            }
        }
        let odd = [3, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(Intset::new(&odd).unwrap_err().why, PackedDamage::Width(3));
    }
}
