//! Sessions as frameworks keep them, and what is done with them.

mod corpus;
mod damage;
mod decide;
mod memory;
mod spring;
mod stores;
