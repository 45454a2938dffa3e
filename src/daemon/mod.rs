//! The daemon.

pub mod agenda;
pub mod board;
