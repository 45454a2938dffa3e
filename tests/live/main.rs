//! Tests against real servers: one binary, a module for each journey. Servers that are not found are skipped, visibly.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub
)]

mod support;

mod clients;
mod commands_sessions;
mod crash;
mod daemon;
mod damage;
mod docs;
mod encryption;
mod harness;
mod health;
mod hooks;
mod inspect;
mod journey;
mod neighbour;
mod notices;
mod prune;
mod restore;
mod s3;
mod selection;
mod sessions;
mod sources;
mod storages;
mod stores;
mod trouble;
mod values;
