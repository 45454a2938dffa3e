//! The command line: arguments, and how results, failures, progress and logs are shown.
//!
//! Results go to standard output, everything else to standard error; with `--json` standard output
//! carries exactly one document.

pub mod app;
pub mod args;
mod backup;
mod check;
mod content;
pub mod context;
mod copies;
mod copy;
mod diff;
mod export;
mod keys;
mod lacks;
pub mod logging;
pub mod man;
mod mark;
pub mod output;
pub mod progress;
mod prune;
mod restore;
mod run;
pub mod sessions;
mod show;
mod status;
pub mod table;
