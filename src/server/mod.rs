//! A Redis or Valkey server: its address, connections to it, and what it says of itself.
//!
//! Two kinds of connection are made over the same dialled and authenticated stream, so that
//! passwords, ACL users, TLS and unix sockets work alike for both: [`Wire`] is raw RESP2 for
//! whatever moves data, [`Control`] is the `redis` crate's connection for the few commands
//! that steer a server. The trap: a server's error is told by its first word alone
//! ([`Code`]); the text behind it changes between versions and is only shown, never searched.

pub mod address;
pub mod configured;
pub mod connect;
pub mod control;
pub mod error;
pub mod info;
pub mod pace;
pub mod resp;
mod stream;
pub mod tls;
pub mod wire;

pub use crate::secret::Secret;
pub use address::Address;
pub use connect::Endpoint;
pub use control::Control;
pub use error::{Code, Error, ServerError};
pub use info::Facts;
pub use resp::Reply;
pub use stream::Stream;
pub use wire::Wire;
