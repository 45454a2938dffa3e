//! What the live tests stand on: real servers, a client of their own, data of every shape, a comparison, and the binary.

#![allow(dead_code, reason = "each test module takes what it needs")]

pub mod age;
pub mod backup;
pub mod client;
pub mod compare;
pub mod data;
#[path = "../../shared/elements.rs"]
pub mod elements;
pub mod encodings;
pub mod poll;
pub mod program;
pub mod proxy;
pub mod receiver;
pub mod servers;
pub mod tls;
pub mod weed;
