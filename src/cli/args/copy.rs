//! The arguments of `backup copy`.

use clap::Args;

use super::{Name, SELECTOR_HELP, StorageArg, selector_short};

/// `backup copy`.
#[derive(Clone, Debug, Args)]
pub struct CopyArgs {
    #[allow(missing_docs)] // its help is longer than a doc comment
    #[arg(value_name = "SELECTOR", long_help = SELECTOR_HELP, help = selector_short(), required_unless_present = "all")]
    pub selectors: Vec<String>,
    /// The storage that is to have it
    #[arg(long, value_name = "STORAGE")]
    pub to: Name,
    /// Every backup that the storage lacks and would keep, oldest first; of the databases that are named, or of all
    #[arg(long)]
    pub all: bool,
    /// Where it is copied from; the nearest whole copy when it is not given.
    #[command(flatten)]
    pub storage: StorageArg,
}
