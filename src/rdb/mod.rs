//! The RDB file format, and nothing else: no tokio, no network, no files.
//!
//! [`Scanner`] is fed slices of any size and hands [`Event`]s to a [`Handler`]; the raw bytes of the
//! events, one after the other, are the file. Values pass as they are, in fragments: nothing is
//! decoded and nothing is gathered but the few bytes that a slice's end cuts in two. [`Summary`]
//! counts, [`DbFilter`] drops databases, [`Writer`] makes a file, [`payload`] turns a value into what
//! RESTORE takes and DUMP gives, [`value`] decodes what is in it, [`packed`] the packed structures in that.
//!
//! What it promises: a damaged or hostile file gives a [`FileError`] with its offset, never a panic,
//! unbounded memory or an endless loop; a type or opcode that is not known makes the rest of the
//! file [opaque](Event::Opaque), never worthless.
//!
//! The trap: one type byte means different things under the headers `REDIS` and `VALKEY`, so no
//! byte can be judged without the [`Family`].

pub mod crc64;
mod error;
mod event;
mod feed;
mod filter;
mod held;
mod item;
pub mod length;
pub mod lzf;
mod machine;
pub mod packed;
pub mod payload;
mod program;
mod scan;
mod string;
mod summary;
mod types;
pub mod value;
mod write;

pub use error::{Damage, FileError, ScanError};
pub use event::{Checksum, Event, FromFn, Handler, KeyHead, Unknown, from_fn};
pub use filter::{DbFilter, FilterError};
pub use scan::{Limits, Report, Scanner, scan_bytes};
pub use string::StringRef;
pub use summary::{AuxFacts, DbSummary, Summary};
pub use types::{DbIndex, Family, FileVersion, LogicalType, ModuleId, ValueType};
pub use write::{NewKey, Writer};
