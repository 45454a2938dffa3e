//! What can be wrong with a file.

use crate::failure::{Failure, Kind};

/// A rule of the format that some bytes break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// A byte that begins no length.
    #[error("byte {0:#04x} begins no length")]
    NotALength(u8),
    /// A byte that begins no string.
    #[error("byte {0:#04x} begins no string")]
    NotAString(u8),
    /// A compressed string that claims to be longer than LZF could make it.
    #[error("a compressed string of {packed} bytes claims to hold {plain}")]
    LzfRatio {
        /// Bytes as compressed.
        packed: u64,
        /// Bytes as announced.
        plain: u64,
    },
    /// A compressed string that does not inflate to what it announced.
    #[error("a compressed string is damaged")]
    Lzf,
    /// A length beyond what is accepted.
    #[error("a length of {length} is beyond the limit of {limit}")]
    TooLong {
        /// What the file says.
        length: u64,
        /// What is accepted at that place.
        limit: u64,
    },
    /// A module opcode that does not exist.
    #[error("module opcode {0} does not exist")]
    ModuleOpcode(u64),
    /// A quicklist node of neither kind.
    #[error("{0} is no kind of list node")]
    Container(u64),
    /// A flag that is neither 0 nor 1.
    #[error("{0} stands where 0 or 1 must")]
    Flag(u64),
    /// Module data for an unknown moment.
    #[error("module data begins with opcode {0} where 2 must stand")]
    WhenOpcode(u64),
    /// An expiry, an idle time or the like that no key follows.
    #[error("byte {0:#04x} stands where a key's type must")]
    NoKey(u8),
    /// A database number that no server has.
    #[error("database number {0} is beyond what a server can have")]
    Database(u64),
    /// More databases than are accepted: each costs memory in whatever counts them.
    #[error("it selects more than {limit} databases, which is the limit")]
    Databases {
        /// How many are accepted.
        limit: usize,
    },
}

/// Why a file is not whole, or no RDB file at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The first bytes are not those of an RDB file.
    #[error("this is not an RDB file: it begins with neither REDIS nor VALKEY and a version")]
    NotRdb,
    /// The file ends before its end mark.
    #[error("the RDB file is cut off: it ends at offset {offset} without an end mark")]
    Truncated {
        /// The length of what is there.
        offset: u64,
    },
    /// A rule of the format is broken.
    #[error("the RDB file is damaged at offset {offset}: {damage}")]
    Damaged {
        /// Where, in bytes from the file's beginning.
        offset: u64,
        /// What.
        damage: Damage,
    },
    /// The checksum at the end does not fit the content.
    #[error(
        "the RDB file is damaged: its checksum at offset {offset} is {found:016x}, its content gives {computed:016x}"
    )]
    Checksum {
        /// Where the checksum stands.
        offset: u64,
        /// What stands there.
        found: u64,
        /// What the content gives.
        computed: u64,
    },
    /// Something follows the end.
    #[error("{count} bytes follow the end of the RDB file at offset {offset}")]
    Trailing {
        /// Where the file should end.
        offset: u64,
        /// How many bytes follow.
        count: u64,
    },
    /// The scanner was used further after it or its handler had failed.
    #[error("the scan was given up after an earlier error")]
    Abandoned,
}

/// Why a scan ended early: the file, or whoever took its events.
#[derive(Debug, thiserror::Error)]
pub enum ScanError<E> {
    /// The file is not whole.
    #[error(transparent)]
    File(#[from] FileError),
    /// The handler refused an event.
    #[error("the scan was stopped by what takes its events")]
    Handler(E),
}

impl<E> ScanError<E> {
    /// The file's error, or what `f` makes of the handler's.
    pub fn either<T: From<FileError>>(self, f: impl FnOnce(E) -> T) -> T {
        match self {
            ScanError::File(error) => error.into(),
            ScanError::Handler(error) => f(error),
        }
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Failure {
        let hint = match error {
            FileError::NotRdb => {
                "check the path: compressed files are recognised by .gz or .zst at the end of their name"
            }
            FileError::Truncated { .. } => {
                "it may still be written, or its copying was cut off: copy it again, or use another backup"
            }
            FileError::Trailing { .. } => {
                "something was appended to the file: use another copy, or cut it at that offset"
            }
            FileError::Abandoned => "look at the first error",
            FileError::Damaged { .. } | FileError::Checksum { .. } => {
                "use another copy or another backup; redis-check-rdb may tell more about this one"
            }
        };
        Failure::new(Kind::Damaged, error.to_string()).hint(hint)
    }
}
