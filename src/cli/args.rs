//! The command line: every command and flag, and what their help says.
//!
//! These types are the command line's own; the journeys have theirs, and the commands translate. A
//! selector stays a text here, for what it means is the catalog's business.

mod copy;
mod inspect;
mod prune;
mod restore;
mod sessions;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::error::ErrorKind;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

pub use self::copy::CopyArgs;
pub use self::inspect::{DiffArgs, ExportArgs, Format, KeysArgs};
pub use self::prune::{MarkArgs, PruneArgs};
pub use self::restore::{Check, Destination, Filters, Mode, OnConflict, RestoreArgs, Ttl};
pub use self::sessions::{ExpireArgs, ReportArgs, SessionsCommand};
use crate::config::{Method, Name};
use crate::failure::{Failure, Kind};
use crate::secret::without_passwords;

/// Backups for Redis and Valkey: taken, verified, kept and restored.
///
/// Every backup is an RDB file, read and checked while it is made. Without a configuration the server at
/// redis://127.0.0.1:6379 is backed up into ~/.local/state/rdbkeeper/backups.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "rdbkeeper",
    version,
    arg_required_else_help = true,
    subcommand_required = true,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 a backup is damaged, 4 no such backup,\n5 refused to protect data, 6 busy.\n\nExamples:\n  rdbkeeper backup now                            back up every configured database\n  rdbkeeper backup list                           what there is\n  rdbkeeper backup verify                         prove the newest backup of each database\n  rdbkeeper restore sessions --to redis://other   bring the newest one to another server\n  rdbkeeper sessions report                       which keys never expire, and what the rules would do"
)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What is to be done.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The configuration [default: $RDBKEEPER_CONFIG, ./rdbkeeper.toml, /etc/rdbkeeper/rdbkeeper.toml]
    #[arg(long, value_name = "FILE", global = true, hide_default_value = true)]
    pub config: Option<PathBuf>,
    /// Write the result to standard output as one JSON document, errors too
    #[arg(long, global = true)]
    pub json: bool,
    /// How logs are written
    #[arg(
        long,
        value_name = "FORMAT",
        value_enum,
        default_value_t,
        global = true
    )]
    pub log: LogFormat,
    /// Log more; twice for everything
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub verbose: u8,
    /// Log errors alone, show no progress
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// The journal where standard error leads there; else text, with times unless on a terminal
    #[default]
    Auto,
    /// Text, with times
    Text,
    /// One JSON object a line
    Json,
    /// Entries of systemd's journal, with priorities and fields (RDBKEEPER_DATABASE=…)
    Journald,
}

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Keep the schedule: back up, verify, expire sessions when they are due (systemd starts this)
    ///
    /// Runs until SIGTERM or SIGINT, which leave nothing half-made; SIGHUP reads the configuration anew.
    #[command(
        after_help = "Examples:\n  rdbkeeper run\n  rdbkeeper --config /etc/rdbkeeper/rdbkeeper.toml --log json run"
    )]
    Run,
    /// Take, list, show, verify, keep and remove backups
    #[command(subcommand, arg_required_else_help = true)]
    Backup(BackupCommand),
    /// Bring a backup back, to a server or into a file
    ///
    /// The backup is read and checked in full before anything is written.
    Restore(Box<RestoreArgs>),
    /// Look at the sessions that web frameworks keep, and expire the old ones
    #[command(subcommand, arg_required_else_help = true)]
    Sessions(SessionsCommand),
    /// Try every configured server and storage: what would happen, and what is in the way
    ///
    /// Prints the smallest ACL that each method needs, as a line for redis-cli.
    Check(CheckArgs),
    /// Is every database backed up as it should be?
    ///
    /// Looks at the storages and at how the last runs on this host ended; no daemon is asked. Exits 0 when every
    /// scheduled backup is there, fresh and good, else 1, with the reasons.
    Status(StatusArgs),
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  rdbkeeper completions bash > /etc/bash_completion.d/rdbkeeper"
    )]
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    #[command(after_help = "Example:\n  rdbkeeper man | man -l -")]
    Man,
}

/// The commands below `backup`.
#[derive(Clone, Debug, Subcommand)]
pub enum BackupCommand {
    /// Back up now
    #[command(
        after_help = "Examples:\n  rdbkeeper backup now\n  rdbkeeper backup now sessions --method scan --json"
    )]
    Now(NowArgs),
    /// List the backups there are
    #[command(
        after_help = "Examples:\n  rdbkeeper backup list\n  rdbkeeper backup list sessions --json"
    )]
    List(ListArgs),
    /// Show one backup: facts; its keys by database, type, prefix and expiry, and the largest
    ///
    /// What its keys add up to needs a reading of the whole backup. That is done by itself where it lies on this host,
    /// with --content also where it is far away. Key names are cut before their IDs.
    #[command(
        after_help = "Examples:\n  rdbkeeper backup show sessions\n  rdbkeeper backup show 20261122T214353Z-7f3a9c\n  rdbkeeper backup show /var/lib/redis/dump.rdb"
    )]
    Show(ShowArgs),
    /// List the keys of a backup: database, type, size, expiry, name
    ///
    /// A line a key, while the backup is read. Names are shown whole; bytes that are not UTF-8 and control characters
    /// are written \xNN, a backslash \\. BYTES is what the key takes in the RDB file, its name included.
    #[command(
        after_help = "Examples:\n  rdbkeeper backup keys sessions --match 'cart:*'\n  rdbkeeper backup keys /var/lib/redis/dump.rdb --type stream --json"
    )]
    Keys(KeysArgs),
    /// Write the keys of a backup, values decoded or as an RDB file
    ///
    /// To standard output it is written while the backup is read: look at the exit code, for a backup may turn out to be
    /// damaged at its end (3). A file given with --output appears when all has been read and is right.
    #[command(
        after_help = "Examples:\n  rdbkeeper backup export sessions --format jsonl --match 'cart:42:*'\n  rdbkeeper backup export dump.rdb.zst --format jsonl -o keys.jsonl\n  rdbkeeper backup export sessions --format rdb --db 1 -o one.rdb\n  rdbkeeper backup export sessions --format resp | redis-cli -h other --pipe"
    )]
    Export(ExportArgs),
    /// Compare two backups: keys added, removed, changed
    ///
    /// A key has changed when its type, its value or its expiry is another one; how a value is encoded does not matter.
    /// Exits 0 whether they differ or not.
    #[command(
        after_help = "Examples:\n  rdbkeeper backup diff sessions@2026-11-21T00:00:00Z sessions\n  rdbkeeper backup diff before.rdb after.rdb --match 'cart:*' --json"
    )]
    Diff(DiffArgs),
    /// Read backups back whole: digests, decompression, RDB structure and checksum
    ///
    /// Without a SELECTOR the newest backup of each database. Exits 3 when one is damaged.
    #[command(
        after_help = "Examples:\n  rdbkeeper backup verify\n  rdbkeeper backup verify --all\n  rdbkeeper backup verify sessions@2026-11-22T00:00:00Z"
    )]
    Verify(VerifyArgs),
    /// Remove the backups that the policy does not keep, and say of each why it stays or goes
    ///
    /// The policy is `keep` (and `keep_in`, for one storage) in the configuration; without one nothing is ever
    /// removed. The newest good backup and pinned ones never go, and nothing goes while the newest backup is
    /// shrunk (exit 5) until `backup accept` says that it is right. What unfinished backups have left is swept
    /// when it is older than a day and twice the database's timeout.
    #[command(
        after_help = "Examples:\n  rdbkeeper backup prune --dry-run\n  rdbkeeper backup prune sessions --storage disk\n  rdbkeeper backup prune --json"
    )]
    Prune(PruneArgs),
    /// Keep a backup whatever the policy says
    ///
    /// In every storage that has it.
    #[command(
        after_help = "Examples:\n  rdbkeeper backup pin sessions\n  rdbkeeper backup pin 20261122T214353Z-7f3a9c --storage disk"
    )]
    Pin(MarkArgs),
    /// Let the policy decide about a pinned backup again
    #[command(after_help = "Example:\n  rdbkeeper backup unpin 20261122T214353Z-7f3a9c")]
    Unpin(MarkArgs),
    /// Say that a shrunk backup is as small as it should be
    ///
    /// Backups go again then, and those to come are compared with this one.
    #[command(after_help = "Example:\n  rdbkeeper backup accept 20261122T214353Z-7f3a9c")]
    Accept(MarkArgs),
    /// Copy backups to another storage, as they are stored
    ///
    /// From the nearest whole copy, its digests checked on the way; pins and acceptances come along. What is there
    /// already is fine. No key is needed.
    #[command(
        after_help = "Examples:\n  rdbkeeper backup copy 20261122T214353Z-7f3a9c --to offsite\n  rdbkeeper backup copy --all --to offsite\n  rdbkeeper backup copy --all sessions --storage old --to new"
    )]
    Copy(CopyArgs),
    /// Remove one backup for good
    #[command(after_help = "Example:\n  rdbkeeper backup delete 20261122T214353Z-7f3a9c --yes")]
    Delete(DeleteArgs),
}

/// What a SELECTOR is, for the long help.
const SELECTOR_HELP: &str = "Which backup: its ID, NAME or `latest`, NAME@TIME, or a path

ID         a backup's ID
NAME       the newest backup of a database; `latest` where there is only one
NAME@TIME  the newest taken at or before that RFC 3339 time
PATH       a backup's folder in an archive, or any RDB file, plain or with .gz, .zst, .age
           (a path holds a / or ends in .rdb, .gz, .zst or .age)";

/// `--identity`, for every command that reads backups back.
#[derive(Clone, Debug, Default, Args)]
pub struct IdentityArg {
    /// Decrypt with the age identities or the passphrase in this file, instead of the configured ones
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
}

/// `--storage`, for every command that looks at storages.
#[derive(Clone, Debug, Default, Args)]
pub struct StorageArg {
    /// This storage alone
    #[arg(long, value_name = "STORAGE")]
    pub storage: Option<Name>,
}

/// `backup now`.
#[derive(Clone, Debug, Args)]
pub struct NowArgs {
    /// The databases; every configured one when none is given
    #[arg(value_name = "NAME")]
    pub names: Vec<Name>,
    /// How the dump is taken, instead of the configured way
    #[arg(long, value_name = "METHOD", value_parser = method_parser())]
    pub method: Option<Method>,
    /// The storage.
    #[command(flatten)]
    pub storage: StorageArg,
}

/// `backup list`.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// The databases; every one when none is given
    #[arg(value_name = "NAME")]
    pub names: Vec<Name>,
    /// The storage.
    #[command(flatten)]
    pub storage: StorageArg,
}

/// `backup show`.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    #[allow(missing_docs)] // its help is longer than a doc comment
    #[arg(value_name = "SELECTOR", long_help = SELECTOR_HELP, help = selector_short())]
    pub selector: String,
    /// The storage.
    #[command(flatten)]
    pub storage: StorageArg,
    /// The key.
    #[command(flatten)]
    pub identity: IdentityArg,
    /// Read the backup and say what its keys add up to, also where it is far away
    #[arg(long)]
    pub content: bool,
    /// Do not read the backup: facts from its manifest alone
    #[arg(long, conflicts_with = "content")]
    pub no_content: bool,
    /// Show the names of the largest keys, which are masked otherwise
    #[arg(long)]
    pub show_keys: bool,
}

/// `backup verify`.
#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    #[allow(missing_docs)]
    #[arg(value_name = "SELECTOR", long_help = SELECTOR_HELP, help = selector_short())]
    pub selectors: Vec<String>,
    /// Every backup there is
    #[arg(long, conflicts_with = "selectors")]
    pub all: bool,
    /// The storage.
    #[command(flatten)]
    pub storage: StorageArg,
    /// The key.
    #[command(flatten)]
    pub identity: IdentityArg,
}

/// `backup delete`.
#[derive(Clone, Debug, Args)]
pub struct DeleteArgs {
    #[allow(missing_docs)]
    #[arg(value_name = "SELECTOR", long_help = SELECTOR_HELP, help = selector_short())]
    pub selector: String,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// The storage.
    #[command(flatten)]
    pub storage: StorageArg,
}

/// `check`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  sudo -u rdbkeeper rdbkeeper check")]
pub struct CheckArgs {
    /// The storage.
    #[command(flatten)]
    pub storage: StorageArg,
}

/// `status`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  rdbkeeper status\n  rdbkeeper status sessions --json")]
pub struct StatusArgs {
    /// The databases; every configured one when none is given
    #[arg(value_name = "NAME")]
    pub names: Vec<Name>,
}

fn selector_short() -> &'static str {
    SELECTOR_HELP.lines().next().unwrap_or(SELECTOR_HELP)
}

fn method_parser() -> impl clap::builder::TypedValueParser<Value = Method> {
    PossibleValuesParser::new(Method::ALL.map(Method::as_str)).try_map(|text| text.parse())
}

/// What there is to do when a command line is not a command.
#[derive(Clone, Debug)]
pub enum NotACommand {
    /// Help or the version was asked for: to standard output, exit 0. `ansi` is for terminals.
    Text {
        /// Without colours.
        plain: String,
        /// With colours.
        ansi: String,
    },
    /// It is wrong.
    Wrong {
        /// What is wrong.
        failure: Failure,
        /// Whether `--json` stands on it.
        json: bool,
    },
}

/// Reads a command line, the program's name first.
///
/// # Errors
/// When help is asked for, or it is wrong.
pub fn parse<I>(line: I) -> Result<Cli, NotACommand>
where
    I: IntoIterator<Item = OsString>,
{
    let line: Vec<OsString> = line.into_iter().collect();
    // Where the parser stopped at a mistake nothing says what came after it.
    let json = line
        .iter()
        .take_while(|arg| *arg != "--")
        .any(|arg| arg == "--json");
    Cli::try_parse_from(line).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let text = error.render();
            NotACommand::Text {
                plain: text.to_string(),
                ansi: text.ansi().to_string(),
            }
        }
        _ => NotACommand::Wrong {
            failure: usage_failure(&error),
            json,
        },
    })
}

fn usage_failure(error: &clap::Error) -> Failure {
    // Errors quote what was written, a URL with its password perhaps.
    let text = without_passwords(&error.render().to_string());
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let usage = text.lines().find(|line| line.starts_with("Usage: "));
        let hints = [
            usage.unwrap_or_default(),
            "`rdbkeeper --help` tells the commands",
        ];
        return Failure::new(Kind::Usage, "a command is missing").hint(hints.join("\n").trim());
    }
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let mut paragraphs = text
        .split("\n\n")
        .map(str::trim)
        .filter(|text| !text.is_empty());
    let message = paragraphs.next().unwrap_or("the command line is wrong");
    let mut hints = Vec::new();
    for paragraph in paragraphs {
        let paragraph = paragraph.strip_prefix("tip: ").unwrap_or(paragraph);
        if !paragraph.starts_with("For more information") {
            hints.push(paragraph);
        }
    }
    hints.push("`rdbkeeper COMMAND --help` tells its flags, with examples");
    Failure::new(Kind::Usage, first_lower(message)).hint(hints.join("\n"))
}

fn first_lower(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests;
