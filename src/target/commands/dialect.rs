//! Which commands and options a server knows.

use crate::rdb::{Family, FileVersion};
use crate::server::Facts;
use crate::server::info::Version;

/// Which commands and options a server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// The longest argument that it takes, in bytes.
    pub max_bulk: u64,
    /// HSET takes several fields: from Redis 4.0 on. Before it is HMSET.
    pub hset_many: bool,
    /// UNLINK: from Redis 4.0 on.
    pub unlink: bool,
    /// SET takes PXAT: from Redis 6.2 on.
    pub set_pxat: bool,
    /// Streams: from Redis 5.0 on.
    pub streams: bool,
    /// XGROUP CREATECONSUMER: from Redis 6.2 on.
    pub create_consumer: bool,
    /// ENTRIESADDED, MAXDELETEDID and ENTRIESREAD: from Redis 7.0 on.
    pub stream_history: bool,
    /// HPEXPIREAT: from Redis 7.4 and Valkey 9.0 on.
    pub field_expiry: bool,
}

/// `proto-max-bulk-len` unless a server says otherwise, in bytes.
const DEFAULT_MAX_BULK: u64 = 512 << 20;

impl Dialect {
    /// What a live server speaks.
    pub fn of(info: &Facts, max_bulk: u64) -> Dialect {
        let any = Version(0, 0, 0);
        let since = |major, minor| info.is_at_least(Version(major, minor, 0), any);
        Dialect {
            max_bulk,
            hset_many: since(4, 0),
            unlink: since(4, 0),
            set_pxat: since(6, 2),
            streams: since(5, 0),
            create_consumer: since(6, 2),
            stream_history: since(7, 0),
            field_expiry: info.is_at_least(Version(7, 4, 0), Version(9, 0, 0)),
        }
    }

    /// What every server speaks that writes files of this version; with the default limit of an argument.
    pub fn of_rdb(version: FileVersion) -> Dialect {
        let since = |number| version.family == Family::Valkey || version.number >= number;
        Dialect {
            max_bulk: DEFAULT_MAX_BULK,
            hset_many: since(8),
            unlink: since(8),
            set_pxat: since(10),
            streams: since(9),
            create_consumer: since(10),
            stream_history: since(10),
            field_expiry: since(12),
        }
    }
}
