//! The arguments of `backup keys`, `backup export` and `backup diff`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Filters, IdentityArg, SELECTOR_HELP, StorageArg, selector_short};

/// Which keys are looked at, and how to get at them.
#[derive(Clone, Debug, Args)]
pub struct Which {
    /// The storage.
    #[command(flatten)]
    pub storage: StorageArg,
    /// The key.
    #[command(flatten)]
    pub identity: IdentityArg,
    /// Which keys.
    #[command(flatten)]
    pub filters: Filters,
}

/// `backup keys`.
#[derive(Clone, Debug, Args)]
pub struct KeysArgs {
    #[allow(missing_docs)] // its help is longer than a doc comment
    #[arg(value_name = "SELECTOR", long_help = SELECTOR_HELP, help = selector_short())]
    pub selector: String,
    /// Which keys, and how to get at them.
    #[command(flatten)]
    pub which: Which,
}

/// `backup export`.
#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    #[allow(missing_docs)]
    #[arg(value_name = "SELECTOR", long_help = SELECTOR_HELP, help = selector_short())]
    pub selector: String,
    /// What is written
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub format: Format,
    /// Into this file, which appears when it is whole; standard output when it is not given, or `-`
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace the file when it is there
    #[arg(long, requires = "output")]
    pub yes: bool,
    /// Which keys, and how to get at them.
    #[command(flatten)]
    pub which: Which,
}

/// What an export writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// An RDB file; without filters byte for byte the one that was dumped
    Rdb,
    /// A line of JSON for each key, values decoded
    Jsonl,
    /// Commands for `redis-cli --pipe`; they replace the keys that are there
    Resp,
}

/// `backup diff`.
#[derive(Clone, Debug, Args)]
pub struct DiffArgs {
    #[allow(missing_docs)]
    #[arg(value_name = "OLD", long_help = SELECTOR_HELP, help = selector_short())]
    pub old: String,
    /// The backup that is compared with it
    #[arg(value_name = "NEW")]
    pub new: String,
    /// Which keys, and how to get at them.
    #[command(flatten)]
    pub which: Which,
}
