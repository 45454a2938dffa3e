//! CRC-64 as Redis computes it: polynomial ad93d23594c935a9 (Jones), reflected, from 0, no final
//! exclusive or. It ends a file and a DUMP payload, as 8 little-endian bytes.
//!
//! A call has a fixed cost, so feed it blocks, not tokens.

use crc_fast::{CrcAlgorithm, Digest};

/// A checksum that grows with the bytes it is given.
#[derive(Clone, Debug)]
pub struct Crc64(Digest);

impl Crc64 {
    /// The checksum of nothing: 0.
    pub fn new() -> Crc64 {
        Crc64(Digest::new(CrcAlgorithm::Crc64Redis))
    }

    /// Takes the next bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.0.update(bytes);
        }
    }

    /// The checksum of all bytes so far.
    pub fn value(&self) -> u64 {
        self.0.finalize()
    }
}

impl Default for Crc64 {
    fn default() -> Crc64 {
        Crc64::new()
    }
}

/// The checksum of `bytes`.
pub fn crc64(bytes: &[u8]) -> u64 {
    let mut crc = Crc64::new();
    crc.update(bytes);
    crc.value()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, a bit at a time.
    fn slow(bytes: &[u8]) -> u64 {
        let mut crc = 0u64;
        for &byte in bytes {
            crc ^= u64::from(byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 {
                    (crc >> 1) ^ 0x95ac_9329_ac4b_c9b5
                } else {
                    crc >> 1
                };
            }
        }
        crc
    }

    #[test]
    fn it_is_the_checksum_of_redis() {
        assert_eq!(crc64(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        assert_eq!(crc64(b""), 0);
    }

    #[test]
    fn every_length_and_every_split_agree_with_the_definition() {
        let bytes: Vec<u8> = (0..1500u32).map(|i| (i * 31 + (i >> 3)) as u8).collect();
        for len in (0..300).chain([511, 512, 513, 1023, 1024, 1500]) {
            assert_eq!(crc64(&bytes[..len]), slow(&bytes[..len]), "length {len}");
        }
        let whole = crc64(&bytes);
        for cut in 0..bytes.len() {
            let mut crc = Crc64::new();
            crc.update(&bytes[..cut]);
            crc.update(&bytes[cut..]);
            assert_eq!(crc.value(), whole, "cut at {cut}");
        }
    }
}
