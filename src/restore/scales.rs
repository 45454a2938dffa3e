//! What the keys of a backup weigh: what a server needs for them, estimated from what the file holds.
//!
//! An RDB file is not a server's memory: strings are compressed in it, and a server keeps pointers, headers and spare room
//! that no file has. What is known for certain is small: a server needs at least the bytes of names and values as they
//! stand in the file. The rest is an estimate by costs that were measured (`used_memory` before and after RESTORE of
//! 400 to 20,000 keys of one shape, jemalloc; Redis 7.0 and 8.0, Valkey 9.1). It decides nothing but a warning.
//!
//! Where the file says how much memory its server had, and that is near the estimate, it is believed instead: it knows of
//! the data's true shape.

use crate::rdb::{Event, LogicalType, StringRef, ValueType, length};
use crate::server::info::Product;

/// What a server without keys uses, in bytes: measured 0.9 to 1.3 MiB.
pub(super) const EMPTY_SERVER: u64 = 1 << 20;

/// The first bytes of a value, which tell how long it is unpacked, or how many elements it has: the head of a string that is
/// compressed, behind the earliest expiry of a hash's fields.
const HEAD: usize = 8 + 11;

/// What things cost beyond their own bytes, in bytes.
#[derive(Clone, Copy, Debug)]
struct Costs {
    /// A key with a string: its entry, its object, the headers of two strings, rounding.
    key: u64,
    /// Its expiry.
    expiry: u64,
    /// A key with a collection that is packed into one block.
    packed: u64,
    /// A list's own structure.
    list: u64,
    /// A stream's own structure.
    stream: u64,
    /// A member or field of a collection that is a table.
    set_member: u64,
    hash_field: u64,
    zset_member: u64,
}

/// Redis 7.0: 64 to 80 for a key with a string, 45 for an expiry, 70 to 80 for a packed collection, 172 for a list (77 in
/// 8.0), 185 for a stream; 51 for a set's member (25 in 8.0), 58 for a hash's field, 97 for a sorted set's member.
const REDIS: Costs = Costs {
    key: 78,
    expiry: 45,
    packed: 78,
    list: 170,
    stream: 190,
    set_member: 51,
    hash_field: 58,
    zset_member: 97,
};

/// Valkey 9.1: 39 to 43, 16, 60 to 70, 62, 204; 20, 28, 50.
const VALKEY: Costs = Costs {
    key: 42,
    expiry: 16,
    packed: 66,
    list: 62,
    stream: 204,
    set_member: 20,
    hash_field: 28,
    zset_member: 50,
};

/// Blocks are rounded up by the allocator: a string of 400 bytes by 37, one of 2,000 by 38, one of 5,000 by 110.
fn rounded(bytes: u64) -> u64 {
    bytes.saturating_add(bytes / 12)
}

/// What keys weigh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weight {
    /// Names and values as they stand in the file, without values that may come to need less.
    pub(super) raw: u64,
    /// What a Redis would need for them.
    redis: u64,
    /// What a Valkey would.
    valkey: u64,
}

impl Weight {
    fn add(&mut self, other: Weight) {
        self.raw = self.raw.saturating_add(other.raw);
        self.redis = self.redis.saturating_add(other.redis);
        self.valkey = self.valkey.saturating_add(other.valkey);
    }

    fn estimate(&self, product: Product) -> u64 {
        match product {
            Product::Redis => self.redis,
            Product::Valkey => self.valkey,
        }
    }
}

/// Weighs a backup's keys while it is read. Its own memory is constant.
#[derive(Clone, Debug, Default)]
pub struct Scales {
    pub(super) meant: Weight,
    pub(super) all: Weight,
    /// `used-mem` in the file.
    pub(super) used_memory: Option<u64>,
    /// Of the largest key that is meant: its bytes, and its hash.
    largest: Option<(u64, u64)>,
    current: Option<OnScales>,
}

#[derive(Clone, Debug)]
struct OnScales {
    value_type: ValueType,
    name_bytes: u64,
    expires: bool,
    /// Its hash on the target, when it is meant.
    meant: Option<u64>,
    head: [u8; HEAD],
    head_bytes: usize,
    value_bytes: u64,
}

impl Scales {
    /// Scales on which lies so much: certain, and estimated for a Redis, in bytes.
    #[cfg(test)]
    pub(super) fn loaded(raw: u64, redis: u64) -> Scales {
        let meant = Weight {
            raw,
            redis,
            valkey: 0,
        };
        Scales {
            meant,
            ..Scales::default()
        }
    }

    /// Takes every event, the key's head apart: see [`Scales::key`]. What becomes of a key is to be said before.
    pub(super) fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Aux { key, value, .. } if key.plain() == Some(b"used-mem") => {
                let text = value.decode().ok();
                let number = text.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok());
                self.used_memory = number.or(self.used_memory);
            }
            Event::Value(bytes) => {
                if let Some(current) = &mut self.current {
                    current.value_bytes += bytes.len() as u64;
                    let more = (HEAD - current.head_bytes).min(bytes.len());
                    let end = current.head_bytes + more;
                    current.head[current.head_bytes..end].copy_from_slice(&bytes[..more]);
                    current.head_bytes = end;
                }
            }
            Event::ValueEnd => self.end(),
            _ => {}
        }
    }

    /// A key comes. `meant` is its hash on the target when it will be written.
    pub(super) fn key(
        &mut self,
        value_type: ValueType,
        name: &[u8],
        expires: bool,
        meant: Option<u64>,
    ) {
        self.current = Some(OnScales {
            value_type,
            name_bytes: name.len() as u64,
            expires,
            meant,
            head: [0; HEAD],
            head_bytes: 0,
            value_bytes: 0,
        });
    }

    /// The key that has come is not written after all.
    pub(super) fn lost(&mut self) {
        if let Some(current) = &mut self.current {
            current.meant = None;
        }
    }

    fn end(&mut self) {
        let Some(key) = self.current.take() else {
            return;
        };
        let mut head = &key.head[..key.head_bytes];
        if matches!(key.value_type.name(), "hash-metadata" | "hash-listpack-ex") {
            head = head.get(8..).unwrap_or_default();
        }
        let weight = Weight {
            raw: key
                .name_bytes
                .saturating_add(match may_shrink(key.value_type) {
                    true => 0,
                    false => key.value_bytes,
                }),
            redis: cost(&REDIS, &key, head),
            valkey: cost(&VALKEY, &key, head),
        };
        self.all.add(weight);
        if let Some(hash) = key.meant {
            self.meant.add(weight);
            if self
                .largest
                .is_none_or(|(bytes, _)| bytes < key.value_bytes)
            {
                self.largest = Some((key.value_bytes, hash));
            }
        }
    }

    /// The hash of the largest key that is meant.
    pub(super) fn largest(&self) -> Option<u64> {
        self.largest.map(|(_, hash)| hash)
    }

    /// What the meant keys will need on such a server, in bytes.
    pub(super) fn needs(&self, product: Product) -> u64 {
        let (meant, all) = (self.meant.estimate(product), self.all.estimate(product));
        let Some(used) = self
            .used_memory
            .map(|used| used.saturating_sub(EMPTY_SERVER))
        else {
            return meant;
        };
        // It holds what clients and replicas had waiting, too, and can be anything in a file that somebody made.
        if all == 0 || used < all / 2 || used > all.saturating_mul(2) {
            return meant;
        }
        let share = u128::from(used) * u128::from(meant) / u128::from(all);
        u64::try_from(share).unwrap_or(u64::MAX)
    }
}

/// Whether a server may need less for a value than the file: nobody knows what a module makes of it, and fields of a hash
/// that are over are left away.
fn may_shrink(value_type: ValueType) -> bool {
    const NEWEST_WITHOUT_FIELD_EXPIRY: u8 = 21;
    match value_type.logical() {
        LogicalType::Module => true,
        LogicalType::Hash => value_type.code() > NEWEST_WITHOUT_FIELD_EXPIRY,
        _ => false,
    }
}

/// What a key needs, by its type, its first bytes and its length in the file.
fn cost(costs: &Costs, key: &OnScales, head: &[u8]) -> u64 {
    // In the file it may be compressed; the head tells how long it is.
    let unpacked = || match unpacked_len(head) {
        Some(bytes) => bytes,
        None => key.value_bytes,
    };
    // What a file announces may be anything: an element has two bytes at least.
    let elements = || match length::decode(head) {
        Ok(Some((count, _))) => count.min(key.value_bytes / 2),
        _ => 0,
    };
    let table = |each: u64| {
        let own = costs.packed.saturating_add(100);
        own.saturating_add(key.value_bytes)
            .saturating_add(elements().saturating_mul(each))
    };
    let packed = || costs.packed.saturating_add(rounded(unpacked()));
    let value = match (key.value_type.logical(), key.value_type.name()) {
        (LogicalType::String, _) => costs.key.saturating_add(rounded(unpacked())),
        (LogicalType::Set, "set") => table(costs.set_member),
        (LogicalType::Zset, "zset" | "zset-2") => table(costs.zset_member),
        (LogicalType::Hash, "hash" | "hash-2" | "hash-metadata") => table(costs.hash_field),
        (LogicalType::Set | LogicalType::Zset | LogicalType::Hash, _) => packed(),
        (LogicalType::List, "list-ziplist") => costs.list.saturating_add(rounded(unpacked())),
        (LogicalType::List, _) => costs.list.saturating_add(rounded(key.value_bytes)),
        (LogicalType::Stream, _) => costs.stream.saturating_add(rounded(key.value_bytes)),
        (LogicalType::Module, _) => costs.key.saturating_add(rounded(key.value_bytes)),
    };
    let expiry = if key.expires { costs.expiry } else { 0 };
    value.saturating_add(key.name_bytes).saturating_add(expiry)
}

/// How long the string that begins so is when it is not compressed.
fn unpacked_len(head: &[u8]) -> Option<u64> {
    const LZF: u8 = 0xc3;
    if head.first() != Some(&LZF) {
        return match StringRef::parse(head) {
            Ok(Some(string)) => Some(string.decoded_len()),
            _ => length::decode(head).ok()?.map(|(bytes, _)| bytes),
        };
    }
    let (packed, used) = length::decode(head.get(1..)?).ok()??;
    let (plain, _) = length::decode(head.get(1 + used..)?).ok()??;
    // LZF makes at most 264 bytes of three.
    Some(plain.min(packed.saturating_mul(88)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::rdb::Family;

    fn scales(keys: &[(u8, &[u8], bool)], used: Option<u64>) -> Scales {
        let mut scales = Scales {
            used_memory: used,
            ..Scales::default()
        };
        for (code, value, meant) in keys {
            let value_type = ValueType::new(*code, Family::Redis).unwrap();
            scales.key(value_type, b"name", false, meant.then_some(7));
            // In pieces, as a scanner hands them out.
            for piece in value.chunks(3) {
                scales.event(&Event::Value(piece));
            }
            scales.event(&Event::ValueEnd);
        }
        scales
    }

    #[test]
    fn a_compressed_string_counts_with_its_full_length_and_a_lie_about_it_has_a_bound() {
        let honest = [&[0xc3, 20, 0x43, 0xe8][..], &[0; 20]].concat();
        let needs = scales(&[(0, &honest, true)], None).needs(Product::Redis);
        assert!((1000..1300).contains(&needs), "{needs}");
        let lie = [&[0xc3, 20, 0x80, 0xff, 0xff, 0xff, 0xff][..], &[0; 20]].concat();
        assert!(scales(&[(0, &lie, true)], None).needs(Product::Redis) < 5000);
    }

    #[test]
    fn a_table_costs_more_than_its_bytes_and_a_lie_about_its_length_has_a_bound() {
        let members: Vec<u8> = [&[0x42, 0x58][..], &[1, b'x'].repeat(600)].concat();
        let needs = scales(&[(2, &members, true)], None).needs(Product::Redis);
        assert!((30_000..35_000).contains(&needs), "{needs}");
        let lie = [0x81, 255, 255, 255, 255, 255, 255, 255, 255, 1, b'x'];
        assert!(scales(&[(2, &lie, true)], None).needs(Product::Redis) < 1000);
    }

    #[test]
    fn the_files_own_word_is_taken_where_it_can_be_true_and_scaled_to_what_is_meant() {
        let value = [&[0x43, 0xe8][..], &[7; 1000]].concat();
        let half = [(0, &value[..], true), (0, &value[..], false)];
        let own = scales(&half, None).needs(Product::Redis);
        let all = 2 * own;
        for (said, needs) in [
            (all + all / 4, own + own / 4),
            (all * 3, own),
            (0, own),
            (u64::MAX, own),
        ] {
            let said = said.saturating_add(EMPTY_SERVER);
            assert_eq!(scales(&half, Some(said)).needs(Product::Redis), needs);
        }
        assert_eq!(scales(&[], Some(5 << 20)).needs(Product::Redis), 0);
    }

    #[test]
    fn the_largest_key_that_is_meant_is_known() {
        let mut scales = Scales::default();
        for (size, meant) in [(10, Some(1)), (30, Some(2)), (20, Some(3)), (40, None)] {
            let value_type = ValueType::new(0, Family::Redis).unwrap();
            scales.key(value_type, b"name", false, meant);
            scales.event(&Event::Value(&vec![0; size]));
            scales.event(&Event::ValueEnd);
        }
        assert_eq!(scales.largest(), Some(2));
    }
}
