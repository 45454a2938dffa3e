//! Values, decoded and encoded, held against real servers.

mod files;
mod payloads;
