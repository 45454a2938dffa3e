//! Values, decoded and encoded, held against real servers.

mod commands;
mod files;
mod payloads;
mod random;
