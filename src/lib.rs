//! rdbkeeper backs up Redis and Valkey, proves the backups, and restores them.
//!
//! The crate is a library with a thin binary. Rooms import downward only, in this order:
//!
//! - [`cli`]: commands, arguments, rendering.
//! - [`daemon`]: the schedule kept: what is due, the work loop, systemd, what is going on.
//! - [`health`]: whether every database is backed up as it should be: the picture, and its judge.
//! - [`runs`]: a piece of work as it is configured: locked, done, recorded.
//! - [`setup`]: from the configuration to stores, servers and jobs. [`check`]: all of them tried.
//! - [`backup`], [`restore`], [`verify`], [`copy`], [`prune`], [`export`], [`inspect`]: the journeys, each a plan that can be
//!   shown and then done.
//! - [`reading`]: a backup read from its first byte to its last.
//! - [`sessions`]: which sessions are over, and how they leave.
//! - [`source`]: a server becomes RDB bytes. [`target`]: RDB becomes keys on a server, or a file.
//! - [`server`]: addresses, connections, the wire, what a server says of itself.
//! - [`catalog`]: manifests, IDs, selectors, listing, committing, markers, locks, debris.
//! - [`pipeline`]: compression and digests between a reader and a writer.
//! - [`spool`]: stored bytes that wait on this host's disk.
//! - [`storage`]: the store contract, a folder, and a bucket.
//! - [`selection`]: which keys are meant: databases, globs, types. [`prefixes`]: keys by the beginning of their names.
//!   [`retention`]: which backups stay, and why.
//! - [`rdb`]: the file format, and nothing else: no tokio, no network, no files.
//! - [`config`]: the shape of the configuration file. [`cron`]: when a job is due.
//! - [`lossless`]: any bytes as text. [`units`], [`meter`], [`pool`], [`turns`], [`stage`], [`secret`], [`failure`]: sizes and durations, progress, memory used again, threads that take turns, test
//!   points, what is not shown, what a person is told.
//!
//! What never breaks: a backup that is listed is whole, and a restore's target is not touched
//! before the backup has been read and checked in full.

// What unit tests share with the other tests names the crate as those do.
#[cfg(test)]
extern crate self as rdbkeeper;

pub mod backup;
pub mod catalog;
pub mod check;
pub mod cli;
pub mod config;
pub mod copy;
pub mod cron;
pub mod daemon;
pub mod export;
pub mod failure;
pub mod health;
pub mod inspect;
pub mod lossless;
pub mod meter;
pub mod pipeline;
pub mod pool;
pub mod prefixes;
pub mod prune;
pub mod rdb;
pub mod reading;
pub mod restore;
pub mod retention;
pub mod runs;
pub mod secret;
pub mod selection;
pub mod server;
pub mod sessions;
pub mod setup;
pub mod source;
pub mod spool;
pub mod stage;
pub mod storage;
pub mod target;
pub mod turns;
pub mod units;
pub mod verify;
