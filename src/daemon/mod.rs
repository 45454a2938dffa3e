//! The daemon.

pub mod agenda;
pub mod board;
pub mod http;
pub mod picture;
