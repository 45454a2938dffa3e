//! Dumps of real servers by every method: what comes out is whole, fresh and complete, or it is an error.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub
)]

#[path = "../live/support/mod.rs"]
mod support;

mod dumping;

mod access;
mod dying;
mod fresh;
mod methods;
mod scanning;
mod state;
