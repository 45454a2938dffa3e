//! Dumps of real servers by every method: what comes out is whole, fresh and complete, or it is an error.

pub mod dumping;

mod access;
mod dying;
mod fresh;
mod methods;
mod scanning;
mod state;
