//! The layouts of values and opcodes as small programs: what to skip, in what order.
//!
//! [`Machine`](super::machine::Machine) runs them. Every step reads at least one byte, so that no
//! count that a file claims can make a loop longer than the file.
//! Sources: `rdbLoadObject`, `rdbLoadRioWithLoadingCtx` in `rdb.c`; `keymeta.c` (8.6);
//! `cluster_migrateslots.c` (Valkey 9).

/// One step of a layout.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Op {
    /// A string in any encoding.
    Str,
    /// A length.
    Len,
    /// That many bytes, at least one.
    Fixed(u8),
    /// A score of the old sorted set: a length byte and ASCII, or 253 to 255 for what has no digits.
    Score,
    /// The kind of a quicklist node: 1 or 2.
    Container,
    /// 0, or 1 and a string.
    Optional,
    /// A length, the opcode 2 that announces a module's moment.
    When,
    /// Module opcodes with their values, until 0.
    ModuleOps,
    /// A count, and that many times the steps.
    Repeat(&'static [Op]),
    /// What may stand before a key's type, and the type byte.
    KeyPrefix,
}

use Op::{Container, Fixed, KeyPrefix, Len, ModuleOps, Optional, Repeat, Score, Str, When};

pub(crate) const STRING: &[Op] = &[Str];
pub(crate) const STRINGS: &[Op] = &[Repeat(&[Str])];
pub(crate) const PAIRS: &[Op] = &[Repeat(&[Str, Str])];
pub(crate) const ZSET: &[Op] = &[Repeat(&[Str, Score])];
pub(crate) const ZSET_2: &[Op] = &[Repeat(&[Str, Fixed(8)])];
pub(crate) const MODULE: &[Op] = &[Len, ModuleOps];
pub(crate) const QUICKLIST_2: &[Op] = &[Repeat(&[Container, Str])];

/// Redis 7.4's release candidates: expiry, field, value.
pub(crate) const HASH_EXPIRY_RC: &[Op] = &[Repeat(&[Len, Str, Str])];
/// The least expiry, then expiry, field, value.
pub(crate) const HASH_EXPIRY: &[Op] = &[Fixed(8), Repeat(&[Len, Str, Str])];
pub(crate) const HASH_LISTPACK_EX: &[Op] = &[Fixed(8), Str];
/// Field, value, expiry.
pub(crate) const HASH_EXPIRY_VALKEY: &[Op] = &[Repeat(&[Str, Str, Fixed(8)])];

/// Raw stream IDs.
const IDS: Op = Repeat(&[Fixed(16)]);
/// A group's entries that wait: ID, delivery time, delivery count.
const PENDING: Op = Repeat(&[Fixed(16), Fixed(8), Len]);
/// Name, seen time, entries.
const CONSUMERS_1: Op = Repeat(&[Str, Fixed(8), IDS]);
/// Name, seen time, active time, entries.
const CONSUMERS_3: Op = Repeat(&[Str, Fixed(8), Fixed(8), IDS]);
/// ID and listpack of each node.
const NODES: Op = Repeat(&[Str, Str]);
const GROUPS_1: Op = Repeat(&[Str, Len, Len, PENDING, CONSUMERS_1]);
const GROUPS_2: Op = Repeat(&[Str, Len, Len, Len, PENDING, CONSUMERS_1]);
const GROUPS_3: Op = Repeat(&[Str, Len, Len, Len, PENDING, CONSUMERS_3]);
const GROUPS_5: Op = Repeat(&[Str, Len, Len, Len, PENDING, CONSUMERS_3, IDS]);
/// A producer and its message IDs, each with the stream ID that it became.
const PRODUCERS: Op = Repeat(&[Str, Repeat(&[Str, Len, Len])]);

/// Nodes, length, last ID, groups.
pub(crate) const STREAM_1: &[Op] = &[NODES, Len, Len, Len, GROUPS_1];
/// From here on also first ID, greatest deleted ID, entries added.
pub(crate) const STREAM_2: &[Op] = &[NODES, Len, Len, Len, Len, Len, Len, Len, Len, GROUPS_2];
pub(crate) const STREAM_3: &[Op] = &[NODES, Len, Len, Len, Len, Len, Len, Len, Len, GROUPS_3];
/// From here on also duration, greatest number, producers, added, duplicates.
pub(crate) const STREAM_4: &[Op] = &[
    NODES, Len, Len, Len, Len, Len, Len, Len, Len, GROUPS_3, Len, Len, PRODUCERS, Len, Len,
];
pub(crate) const STREAM_5: &[Op] = &[
    NODES, Len, Len, Len, Len, Len, Len, Len, Len, GROUPS_5, Len, Len, PRODUCERS, Len, Len,
];

/// Everything up to a key's value: expiry and the like, type byte, key.
pub(crate) const KEY_HEAD: &[Op] = &[KeyPrefix, Str];
/// What follows opcode 243 of Redis: a 4-byte class and module opcodes each.
pub(crate) const KEY_METADATA: &[Op] = &[Repeat(&[Fixed(4), ModuleOps])];

// Whole opcodes, their first byte included.
pub(crate) const FILE_HEADER: &[Op] = &[Fixed(9)];
pub(crate) const END: &[Op] = &[Fixed(9)];
pub(crate) const AUX: &[Op] = &[Fixed(1), Str, Str];
pub(crate) const SELECT_DB: &[Op] = &[Fixed(1), Len];
pub(crate) const RESIZE_DB: &[Op] = &[Fixed(1), Len, Len];
pub(crate) const SLOT_INFO: &[Op] = &[Fixed(1), Len, Len, Len];
pub(crate) const SLOT_IMPORT: &[Op] = &[Fixed(1), Str, Repeat(&[Len, Len])];
pub(crate) const FUNCTION: &[Op] = &[Fixed(1), Str];
pub(crate) const FUNCTION_PRE_GA: &[Op] = &[Fixed(1), Str, Str, Optional, Str];
pub(crate) const MODULE_AUX_HEAD: &[Op] = &[Fixed(1), Len];
/// What follows the head of module data, and passes in fragments.
pub(crate) const MODULE_AUX_BODY: &[Op] = &[When, Len, ModuleOps];

/// The opcodes: `RDB_OPCODE_*` in `rdb.h`.
pub(crate) mod opcode {
    /// Redis: key metadata. Valkey: slot import.
    pub(crate) const META_OR_IMPORT: u8 = 243;
    pub(crate) const SLOT_INFO: u8 = 244;
    pub(crate) const FUNCTION: u8 = 245;
    pub(crate) const FUNCTION_PRE_GA: u8 = 246;
    pub(crate) const MODULE_AUX: u8 = 247;
    pub(crate) const IDLE: u8 = 248;
    pub(crate) const FREQ: u8 = 249;
    pub(crate) const AUX: u8 = 250;
    pub(crate) const RESIZE_DB: u8 = 251;
    pub(crate) const EXPIRE_MS: u8 = 252;
    pub(crate) const EXPIRE_S: u8 = 253;
    pub(crate) const SELECT_DB: u8 = 254;
    pub(crate) const END: u8 = 255;
}
