//! The RDB engine held against real files, made-up files, damaged files and real servers.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub
)]

mod bounds;
mod corpus;
mod damage;
mod edges;
#[path = "../shared/elements.rs"]
mod elements;
mod fuzz_seeds;
mod goldens;
mod live;
mod made;
mod properties;
mod sessions;
mod support;
