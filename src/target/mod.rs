//! RDB becomes keys on a live server, or a file.
//!
//! [`Route`] decides for each key of a backup whether it is meant, where it goes and when it expires; [`live`] writes
//! what it chose by pipelined RESTORE, or by plain [`commands`] where [`way`] says so, [`mod@file`] as another RDB file;
//! [`out`] is where other forms of it go. Both take the events of a scan as a
//! [`Handler`](crate::rdb::Handler), so whoever reads the backup drives them.
//!
//! What it promises: memory is bounded by a few batches and one value; a file appears under its name whole or not at all;
//! an error says how much was written. The trap: RESTORE takes 0 for "no expiry", and a relative TTL of a key that is
//! over would be 0 or less: keys that are over are left out here, never sent.

mod batch;
pub mod commands;
mod error;
pub mod facts;
pub mod file;
pub mod live;
pub mod out;
mod pump;
mod route;
pub mod way;

pub use error::Error;
pub use facts::{Clock, TargetFacts, TargetLibraries};
pub use route::{Expiry, Fate, Rename, Route};
