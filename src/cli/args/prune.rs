//! The arguments of the commands that say which backups stay.

use clap::Args;

use super::{Name, SELECTOR_HELP, StorageArg, selector_short};

/// `backup prune`.
#[derive(Clone, Debug, Args)]
pub struct PruneArgs {
    /// The databases; every configured one when none is given
    #[arg(value_name = "NAME")]
    pub names: Vec<Name>,
    /// Remove nothing: say what would be removed, and why the others stay
    #[arg(long)]
    pub dry_run: bool,
    /// The storage.
    #[command(flatten)]
    pub storage: StorageArg,
}

/// `backup pin`, `unpin`, `accept`.
#[derive(Clone, Debug, Args)]
pub struct MarkArgs {
    #[allow(missing_docs)] // its help is longer than a doc comment
    #[arg(value_name = "SELECTOR", long_help = SELECTOR_HELP, help = selector_short())]
    pub selector: String,
    /// The storage.
    #[command(flatten)]
    pub storage: StorageArg,
}
