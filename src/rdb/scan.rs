//! The incremental scanner: slices of any size in, [`Event`]s out.
//!
//! Values are followed by a [`Machine`] and pass as fragments of the input. What must lie in one
//! piece (opcodes, keys) is parsed in the input when it is whole there; when a slice's end cuts it,
//! the machine gathers exactly its bytes, as they come, never what a length promises: no attempt is
//! repeated, and a lying length costs nothing.
//!
//! The trap: the checksum covers everything before itself, and in an opaque file nobody says where
//! that is. So it runs over blocks, and always leaves out the last 8 bytes seen.

use std::collections::HashSet;

use super::error::{FileError, ScanError};
use super::event::{Checksum, Event, Handler, Unknown};
use super::feed::{COMPRESSED_MAGIC, Feed};
use super::held::HeldCrc;
use super::machine::Machine;
use super::program::{self, opcode};
use super::types::{DbIndex, Family, FileVersion};

/// What a scanner accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of what must lie in one piece: a key's name, a function library, an aux field.
    pub max_item: u64,
    /// The most bytes of one string in a value. It costs no memory: values pass in fragments.
    pub max_string: u64,
    /// The most databases that a file may select.
    pub max_databases: usize,
}

impl Default for Limits {
    /// A server's own limit of 512 MiB for an item; 1 TiB for a string; 65 536 databases, where a
    /// server has 16 unless it is told otherwise.
    fn default() -> Limits {
        Limits {
            max_item: 512 << 20,
            max_string: 1 << 40,
            max_databases: 1 << 16,
        }
    }
}

/// What a whole scan found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The header's version; `None` for a file that the server compressed as a whole.
    pub version: Option<FileVersion>,
    /// What the checksum proved.
    pub checksum: Checksum,
    /// From where on the file is opaque, and why.
    pub opaque: Option<(u64, Unknown)>,
    /// The file's length.
    pub bytes: u64,
}

/// What stands at the place where the scanner is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// An opcode or a key begins.
    Top,
    /// Something that must lie in one piece is being gathered.
    Gather(Goal),
    /// In a value.
    Value,
    /// In a module's own data.
    ModuleAux,
    /// In what can't be read.
    Opaque,
    /// Behind the end.
    Ended,
    /// After an error.
    Abandoned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    Header,
    Item,
    End,
}

/// The scanner. Feed it the file from its beginning, then [`finish`](Scanner::finish). A clone goes
/// on from the same place.
#[derive(Clone, Debug)]
pub struct Scanner {
    pub(super) limits: Limits,
    pub(super) state: State,
    pub(super) version: Option<FileVersion>,
    pub(super) db: DbIndex,
    /// Those that were selected: 4 bytes each, and at most as many as the limits say.
    pub(super) selected: HashSet<DbIndex>,
    pub(super) machine: Machine,
    pub(super) pending: Vec<u8>,
    /// The offset in the file of the slice that is being fed.
    pub(super) base: u64,
    pub(super) crc: HeldCrc,
    pub(super) checksum: Checksum,
    pub(super) opaque: Option<(u64, Unknown)>,
    /// A type or opcode was met whose layout is known by description only.
    pub(super) untried: Option<u8>,
    pub(super) trailing: u64,
}

impl Default for Scanner {
    fn default() -> Scanner {
        Scanner::new()
    }
}

impl Scanner {
    /// A scanner with the default limits.
    pub fn new() -> Scanner {
        Scanner::with_limits(Limits::default())
    }

    /// A scanner with limits of its own.
    pub fn with_limits(limits: Limits) -> Scanner {
        // The header tells the family; before it nothing depends on one.
        let mut machine = Machine::new(Family::Redis);
        machine.start(program::FILE_HEADER, 0);
        Scanner {
            limits,
            state: State::Gather(Goal::Header),
            version: None,
            db: DbIndex(0),
            selected: HashSet::new(),
            machine,
            pending: Vec::new(),
            base: 0,
            crc: HeldCrc::default(),
            checksum: Checksum::Unverifiable,
            opaque: None,
            untried: None,
            trailing: 0,
        }
    }

    /// How many bytes it was fed.
    pub fn offset(&self) -> u64 {
        self.base
    }

    /// Takes the next bytes of the file and hands their events to `handler`.
    ///
    /// # Errors
    /// The file is damaged, or the handler wants no more. The scanner is of no use afterwards.
    pub fn feed<H: Handler + ?Sized>(
        &mut self,
        input: &[u8],
        handler: &mut H,
    ) -> Result<(), ScanError<H::Error>> {
        let mut feed = Feed::new(self, input, handler);
        match feed.run() {
            Ok(()) => {
                feed.sum_up_to(input.len());
                self.base += input.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.state = State::Abandoned;
                Err(error)
            }
        }
    }

    /// Says that the file ends here.
    ///
    /// # Errors
    /// It should not end here, something follows its end, or an opaque file's checksum does not fit.
    pub fn finish<H: Handler + ?Sized>(
        self,
        handler: &mut H,
    ) -> Result<Report, ScanError<H::Error>> {
        let truncated = FileError::Truncated { offset: self.base };
        let report = Report {
            version: self.version,
            checksum: self.checksum,
            opaque: self.opaque,
            bytes: self.base,
        };
        match self.state {
            State::Abandoned => Err(FileError::Abandoned.into()),
            State::Ended if self.trailing > 0 => Err(FileError::Trailing {
                offset: self.base - self.trailing,
                count: self.trailing,
            }
            .into()),
            State::Ended => Ok(report),
            State::Opaque => Ok(Report {
                checksum: self.opaque_checksum()?,
                ..report
            }),
            State::Gather(Goal::Header) if !may_be_magic(&self.pending) => {
                Err(FileError::NotRdb.into())
            }
            State::Top | State::Gather(_) | State::Value | State::ModuleAux => {
                // A layout that is known by description only may have led beyond the end.
                let Some(code) = self.untried.filter(|_| self.crc.ends_well()) else {
                    return Err(truncated.into());
                };
                let offset = self.base - self.pending.len() as u64;
                let what = Unknown::Layout(code);
                handler
                    .event(Event::Opaque { offset, what })
                    .map_err(ScanError::Handler)?;
                if !self.pending.is_empty() {
                    handler
                        .event(Event::OpaqueBytes(&self.pending))
                        .map_err(ScanError::Handler)?;
                }
                Ok(Report {
                    checksum: Checksum::Verified,
                    opaque: Some((offset, what)),
                    ..report
                })
            }
        }
    }

    fn opaque_checksum(&self) -> Result<Checksum, FileError> {
        let Some(version) = self.version else {
            return Ok(Checksum::Unverifiable);
        };
        let truncated = FileError::Truncated { offset: self.base };
        if !version.has_checksum() {
            return match self.crc.held().last() {
                Some(&opcode::END) => Ok(Checksum::Unverifiable),
                _ => Err(truncated),
            };
        }
        let Some(found) = self.crc.found() else {
            return Err(truncated);
        };
        if found == self.crc.value() {
            Ok(Checksum::Verified)
        } else if self.crc.last_before() != Some(opcode::END) {
            Err(truncated)
        } else if found == 0 {
            Ok(Checksum::Unverifiable)
        } else {
            Err(FileError::Checksum {
                offset: self.base - 8,
                found,
                computed: self.crc.value(),
            })
        }
    }
}

/// Scans a file that lies in memory.
///
/// # Errors
/// As [`Scanner::feed`] and [`Scanner::finish`].
pub fn scan_bytes<H: Handler + ?Sized>(
    bytes: &[u8],
    handler: &mut H,
) -> Result<Report, ScanError<H::Error>> {
    let mut scanner = Scanner::new();
    scanner.feed(bytes, handler)?;
    scanner.finish(handler)
}

/// Whether so few bytes could be the beginning of a file.
fn may_be_magic(bytes: &[u8]) -> bool {
    [b"REDIS", &b"VALKEY"[..], COMPRESSED_MAGIC]
        .into_iter()
        .any(|magic| {
            let len = bytes.len().min(magic.len());
            bytes[..len] == magic[..len]
        })
}
