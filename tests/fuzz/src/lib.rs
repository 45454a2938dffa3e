//! The rooms whose readers are fuzzed, and nothing else of the crate: this builds in a minute, and the fuzzer watches
//! just them. They are the files of `src`, not copies; only what they name of other rooms stands here as well.

#![allow(dead_code, unreachable_pub)]

// So that the targets name things as any user of the crate does; tests/format runs the same file.
extern crate self as rdbkeeper;

pub mod catalog;
pub mod config;
#[path = "../../../src/failure.rs"]
pub mod failure;
pub mod pipeline;
#[path = "../../../src/rdb/mod.rs"]
pub mod rdb;
pub mod sessions;
pub mod targets;
