//! How what is found of sessions is shown.

pub mod report_text;
pub mod tally_text;
