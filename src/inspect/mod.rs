//! Looking into a backup: its keys one by one, what they add up to, and what has changed between two.
//!
//! Everything is done in one reading, in memory that does not grow with the backup. The trap: key names are login tokens
//! more often than not. [`keys`] and [`diff`] show them whole, for that is what they are asked for; [`content`] masks them.

pub mod content;
pub mod diff;
pub mod keys;
mod sorted;
