//! The commands below `sessions`.

use clap::{Args, Subcommand};

use crate::config::Name;

/// The commands below `sessions`.
#[derive(Clone, Debug, Subcommand)]
pub enum SessionsCommand {
    /// Which keys never expire, and what the rules would do; writes nothing
    ///
    /// For each rule what it would do, how long sessions still live, and how old the oldest is; for the whole
    /// database which prefixes never expire, and the bytes they hold. Where keys look like sessions and no rule
    /// takes them, it prints a rule to begin with. It needs no more than the right to read.
    #[command(
        after_help = "Examples:\n  rdbkeeper sessions report\n  rdbkeeper sessions report sessions --show-keys\n  rdbkeeper sessions report --json\n\ndocs/sessions.md tells what to write for each web framework."
    )]
    Report(ReportArgs),
    /// Do what the rules say: TTLs for sessions without, an end for those that are over
    ///
    /// The rules are the [[database.sessions]] of the configuration. A session that could still be used is not
    /// deleted. A value that cannot be read is left, and counted. A replica, a node of a cluster and, with
    /// `require_backup`, a database without a young backup are refused. Keys of a type that no rule can take are
    /// passed over where the server can do that, so it may look at fewer keys than there are.
    #[command(
        after_help = "Examples:\n  rdbkeeper sessions expire --dry-run            what would be done\n  rdbkeeper sessions expire                      every database that has rules\n  rdbkeeper sessions expire sessions --json"
    )]
    Expire(ExpireArgs),
}

/// `sessions report`.
#[derive(Clone, Debug, Args)]
pub struct ReportArgs {
    /// The databases; every configured one when none is given
    #[arg(value_name = "NAME")]
    pub names: Vec<Name>,
    /// Show key names whole; a session's key is a login token
    #[arg(long)]
    pub show_keys: bool,
}

/// `sessions expire`.
#[derive(Clone, Debug, Args)]
pub struct ExpireArgs {
    /// The databases; every one that has rules when none is given
    #[arg(value_name = "NAME")]
    pub names: Vec<Name>,
    /// Say what would be done, and write nothing
    #[arg(long)]
    pub dry_run: bool,
}
