//! Of the sessions, the readers of stores.

#[path = "../../../src/sessions/facts.rs"]
pub mod facts;
#[path = "../../../src/sessions/stores/mod.rs"]
pub mod stores;
