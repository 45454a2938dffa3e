//! What the format names: families, versions, databases, value types.

use std::fmt;
use std::str::FromStr;

use super::program::{self, Op};

/// Whose file it is. The same type byte can mean different things in the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Redis, and Valkey up to 8.1: header `REDIS`.
    Redis,
    /// Valkey 9 and later: header `VALKEY`.
    Valkey,
}

impl Family {
    /// `redis` or `valkey`.
    pub fn as_str(self) -> &'static str {
        match self {
            Family::Redis => "redis",
            Family::Valkey => "valkey",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The version in a file's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileVersion {
    /// The family, told by the header's word.
    pub family: Family,
    /// The number: 2 to 15 are known of Redis, 80 and 81 of Valkey.
    pub number: u16,
}

impl FileVersion {
    /// Whether a checksum follows the end mark: from version 5 on.
    pub fn has_checksum(self) -> bool {
        self.number >= 5
    }

    /// The version whose family follows from the number, as in a DUMP payload, which has no header:
    /// Valkey from 80 on.
    pub fn of_number(number: u16) -> FileVersion {
        let family = if number >= 80 {
            Family::Valkey
        } else {
            Family::Redis
        };
        FileVersion { family, number }
    }
}

impl fmt::Display for FileVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family, self.number)
    }
}

/// A database's number on its server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DbIndex(pub u32);

impl fmt::Display for DbIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A module's identity in the file: nine 6-bit characters of its name, and 10 bits of its encoding
/// version (`moduleTypeEncodeId` in `module.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ModuleId(pub u64);

impl ModuleId {
    /// The nine characters of the type's name.
    pub fn name(self) -> String {
        const SET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        (0..9)
            .map(|at| char::from(SET[(self.0 >> (58 - 6 * at)) as usize & 63]))
            .collect()
    }

    /// The encoding version, 0 to 1023.
    pub fn encoding_version(self) -> u16 {
        (self.0 & 1023) as u16
    }
}

/// What a value is to its user, however it is encoded: what TYPE answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogicalType {
    /// A string.
    String,
    /// A list.
    List,
    /// A set.
    Set,
    /// A sorted set.
    Zset,
    /// A hash.
    Hash,
    /// A stream.
    Stream,
    /// A module's value.
    Module,
}

impl LogicalType {
    /// Every one, in order.
    pub const ALL: [LogicalType; 7] = [
        LogicalType::String,
        LogicalType::List,
        LogicalType::Set,
        LogicalType::Zset,
        LogicalType::Hash,
        LogicalType::Stream,
        LogicalType::Module,
    ];

    /// The word in filters and manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            LogicalType::String => "string",
            LogicalType::List => "list",
            LogicalType::Set => "set",
            LogicalType::Zset => "zset",
            LogicalType::Hash => "hash",
            LogicalType::Stream => "stream",
            LogicalType::Module => "module",
        }
    }
}

impl fmt::Display for LogicalType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that names no type of value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no type: string, list, set, zset, hash, stream or module")]
pub struct UnknownLogicalType(String);

impl FromStr for LogicalType {
    type Err = UnknownLogicalType;

    fn from_str(word: &str) -> Result<LogicalType, UnknownLogicalType> {
        LogicalType::ALL
            .into_iter()
            .find(|known| known.as_str() == word)
            .ok_or_else(|| UnknownLogicalType(word.to_owned()))
    }
}

/// A type byte whose layout is known, with the meaning that its family gives it.
#[derive(Clone, Copy)]
pub struct ValueType(&'static Info);

struct Info {
    code: u8,
    /// `None`: both families know it.
    family: Option<Family>,
    name: &'static str,
    logical: LogicalType,
    /// The first RDB version that has it.
    since: u16,
    /// Known by description only: a file that does not fit it is not necessarily damaged.
    tried: bool,
    layout: &'static [Op],
}

impl ValueType {
    /// The type of a byte in a file of `family`; `None` when its layout is not known.
    ///
    /// Type 6, of Redis 4.0's release candidates, can't be skipped without the module: not known.
    pub fn new(code: u8, family: Family) -> Option<ValueType> {
        let table = match family {
            Family::Redis => &REDIS,
            Family::Valkey => &VALKEY,
        };
        table
            .get(usize::from(code))
            .and_then(Option::as_ref)
            .map(ValueType)
    }

    /// The type byte.
    pub fn code(self) -> u8 {
        self.0.code
    }

    /// The family that alone knows it; `None` when both do.
    pub fn family(self) -> Option<Family> {
        self.0.family
    }

    /// What it is to its user.
    pub fn logical(self) -> LogicalType {
        self.0.logical
    }

    /// Its name, type and encoding: `hash-listpack`.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Whether a server of `family` whose own RDB version is `rdb_version` knows it.
    pub fn known_to(self, family: Family, rdb_version: u16) -> bool {
        let family_fits = match self.0.family {
            None => true,
            // Valkey up to 8.1 says REDIS too, but its version ends at 11.
            Some(own) => own == family,
        };
        family_fits && rdb_version >= self.0.since
    }

    pub(crate) fn layout(self) -> &'static [Op] {
        self.0.layout
    }

    pub(crate) fn is_tried(self) -> bool {
        self.0.tried
    }
}

impl PartialEq for ValueType {
    fn eq(&self, other: &ValueType) -> bool {
        self.0.code == other.0.code && self.0.family == other.0.family
    }
}

impl Eq for ValueType {}

impl std::hash::Hash for ValueType {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.0.code, self.0.family).hash(state);
    }
}

impl fmt::Debug for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ValueType({} {})", self.0.code, self.0.name)
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0.name)
    }
}

const fn info(
    code: u8,
    name: &'static str,
    logical: LogicalType,
    since: u16,
    layout: &'static [Op],
) -> Option<Info> {
    Some(Info {
        code,
        family: None,
        name,
        logical,
        since,
        tried: true,
        layout,
    })
}

const fn of(family: Family, info: Option<Info>) -> Option<Info> {
    match info {
        Some(info) => Some(Info {
            family: Some(family),
            ..info
        }),
        None => None,
    }
}

const fn untried(info: Option<Info>) -> Option<Info> {
    match info {
        Some(info) => Some(Info {
            tried: false,
            ..info
        }),
        None => None,
    }
}

const TYPES: usize = 28;

/// What both families know: `RDB_TYPE_*` in `rdb.h`.
const fn common() -> [Option<Info>; TYPES] {
    use LogicalType::{Hash, List, Module, Set, Stream, String, Zset};
    let mut table = [const { None }; TYPES];
    table[0] = info(0, "string", String, 1, program::STRING);
    table[1] = info(1, "list", List, 1, program::STRINGS);
    table[2] = info(2, "set", Set, 1, program::STRINGS);
    table[3] = info(3, "zset", Zset, 1, program::ZSET);
    table[4] = info(4, "hash", Hash, 1, program::PAIRS);
    table[5] = info(5, "zset-2", Zset, 8, program::ZSET_2);
    table[7] = info(7, "module-2", Module, 8, program::MODULE);
    table[9] = info(9, "hash-zipmap", Hash, 2, program::STRING);
    table[10] = info(10, "list-ziplist", List, 2, program::STRING);
    table[11] = info(11, "set-intset", Set, 2, program::STRING);
    table[12] = info(12, "zset-ziplist", Zset, 2, program::STRING);
    table[13] = info(13, "hash-ziplist", Hash, 4, program::STRING);
    table[14] = info(14, "list-quicklist", List, 7, program::STRINGS);
    table[15] = info(15, "stream-listpacks", Stream, 9, program::STREAM_1);
    table[16] = info(16, "hash-listpack", Hash, 10, program::STRING);
    table[17] = info(17, "zset-listpack", Zset, 10, program::STRING);
    table[18] = info(18, "list-quicklist-2", List, 10, program::QUICKLIST_2);
    table[19] = info(19, "stream-listpacks-2", Stream, 10, program::STREAM_2);
    table[20] = info(20, "set-listpack", Set, 11, program::STRING);
    table[21] = info(21, "stream-listpacks-3", Stream, 11, program::STREAM_3);
    table
}

static REDIS: [Option<Info>; TYPES] = {
    use LogicalType::{Hash, Stream};
    let mut table = common();
    table[22] = of(
        Family::Redis,
        info(22, "hash-metadata-rc", Hash, 12, program::HASH_EXPIRY_RC),
    );
    table[23] = of(
        Family::Redis,
        info(23, "hash-listpack-ex-rc", Hash, 12, program::STRING),
    );
    table[24] = of(
        Family::Redis,
        info(24, "hash-metadata", Hash, 12, program::HASH_EXPIRY),
    );
    table[25] = of(
        Family::Redis,
        info(25, "hash-listpack-ex", Hash, 12, program::HASH_LISTPACK_EX),
    );
    table[26] = untried(of(
        Family::Redis,
        info(26, "stream-listpacks-4", Stream, 13, program::STREAM_4),
    ));
    table[27] = untried(of(
        Family::Redis,
        info(27, "stream-listpacks-5", Stream, 14, program::STREAM_5),
    ));
    table
};

static VALKEY: [Option<Info>; TYPES] = {
    let mut table = common();
    table[22] = of(
        Family::Valkey,
        info(
            22,
            "hash-2",
            LogicalType::Hash,
            80,
            program::HASH_EXPIRY_VALKEY,
        ),
    );
    table
};

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_means_different_things_in_the_two_families() {
        let redis = ValueType::new(22, Family::Redis).unwrap();
        let valkey = ValueType::new(22, Family::Valkey).unwrap();
        assert_ne!(redis, valkey);
        assert!(redis.known_to(Family::Redis, 12) && !redis.known_to(Family::Valkey, 80));
        assert!(valkey.known_to(Family::Valkey, 80) && !valkey.known_to(Family::Redis, 15));
        assert_eq!(
            ValueType::new(16, Family::Redis),
            ValueType::new(16, Family::Valkey)
        );
    }

    #[test]
    fn the_first_server_that_knows_a_type_is_as_the_table_says() {
        for (code, knows, does_not) in [
            (0, 6, 0),
            (14, 7, 6),
            (5, 8, 7),
            (7, 8, 7),
            (15, 9, 8),
            (16, 10, 9),
            (19, 10, 9),
            (20, 11, 10),
            (21, 11, 10),
            (24, 12, 11),
        ] {
            let value_type = ValueType::new(code, Family::Redis).unwrap();
            assert!(value_type.known_to(Family::Redis, knows), "{value_type}");
            assert!(
                !value_type.known_to(Family::Redis, does_not),
                "{value_type}"
            );
        }
    }

    #[test]
    fn what_cannot_be_skipped_is_no_type() {
        for code in [6, 8, 28, 33, 255] {
            assert_eq!(ValueType::new(code, Family::Redis), None);
        }
        for code in [23, 24, 26] {
            assert_eq!(ValueType::new(code, Family::Valkey), None);
        }
    }

    #[test]
    fn a_module_id_spells_its_name() {
        // From a file of redis/librdb's corpus.
        let id = ModuleId(0xb5eb_2dff_fadd_6c01);
        assert_eq!(id.name(), "test__rdb");
        assert_eq!(id.encoding_version(), 1);
    }
}
