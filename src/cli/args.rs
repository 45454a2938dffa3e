//! The command line: every command and flag, and what their help says.
//!
//! These types are the command line's own; the journeys have theirs, and the commands translate. A
//! selector stays a text here, for what it means is the catalog's business.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser as _};
use clap::error::ErrorKind;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::config::{Method, Name};
use crate::failure::{Failure, Kind};

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
    after_help = "Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 a backup is damaged, 4 no such backup,\n5 refused to protect data, 6 busy.\n\nExamples:\n  rdbkeeper backup now                            back up every configured database\n  rdbkeeper backup list                           what there is\n  rdbkeeper backup verify                         prove the newest backup of each database\n  rdbkeeper restore sessions --to redis://other   bring the newest one to another server"
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
    /// How logs are written to standard error
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
    /// Text; with a time where neither a terminal nor the journal shows one
    #[default]
    Auto,
    /// Text, with times
    Text,
    /// One JSON object a line
    Json,
}

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Take, list, show, verify and delete backups
    #[command(subcommand, arg_required_else_help = true)]
    Backup(BackupCommand),
    /// Bring a backup back, to a server or into a file
    ///
    /// The backup is read and checked in full before anything is written.
    Restore(Box<RestoreArgs>),
    /// Try every configured server and storage: what would happen, and what is in the way
    ///
    /// Prints the smallest ACL that each method needs, as a line for redis-cli.
    Check(CheckArgs),
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
    /// Show one backup: facts, keys by database, type and expiry
    #[command(
        after_help = "Examples:\n  rdbkeeper backup show sessions\n  rdbkeeper backup show 20261122T214353Z-7f3a9c\n  rdbkeeper backup show /var/lib/redis/dump.rdb"
    )]
    Show(ShowArgs),
    /// Read backups back whole: digests, decompression, RDB structure and checksum
    ///
    /// Without a SELECTOR the newest backup of each database. Exits 3 when one is damaged.
    #[command(
        after_help = "Examples:\n  rdbkeeper backup verify\n  rdbkeeper backup verify --all\n  rdbkeeper backup verify sessions@2026-11-22T00:00:00Z"
    )]
    Verify(VerifyArgs),
    /// Remove one backup for good
    #[command(after_help = "Example:\n  rdbkeeper backup delete 20261122T214353Z-7f3a9c --yes")]
    Delete(DeleteArgs),
}

/// What a SELECTOR is, for the long help.
const SELECTOR_HELP: &str = "Which backup: its ID, NAME or `latest`, NAME@TIME, or a path

ID         a backup's ID
NAME       the newest backup of a database; `latest` where there is only one
NAME@TIME  the newest taken at or before that RFC 3339 time
PATH       a backup's folder in an archive, or any RDB file, plain or with .gz or .zst
           (a path holds a / or ends in .rdb, .gz or .zst)";

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

/// `restore`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  rdbkeeper restore sessions --to redis://new-host:6379 --dry-run\n  rdbkeeper restore sessions --to sessions --on-conflict skip\n  rdbkeeper restore latest --to-file /var/lib/redis/dump.rdb\n  rdbkeeper restore old.rdb.gz --to redis://localhost --db 1 --map 1:4 --match 'websauna_session*'"
)]
pub struct RestoreArgs {
    #[allow(missing_docs)]
    #[arg(value_name = "SELECTOR", long_help = SELECTOR_HELP, help = selector_short())]
    pub selector: String,

    /// Where to.
    #[command(flatten)]
    pub to: Destination,

    /// The ACL user's password for --to URL is in this file; without it a terminal is asked
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "to_file",
        help_heading = "Destination"
    )]
    pub password_file: Option<PathBuf>,
    /// Trust these authorities (PEM) instead of the system's
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "to_file",
        help_heading = "Destination"
    )]
    pub tls_ca: Option<PathBuf>,
    /// The client's certificate (PEM)
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "to_file",
        requires = "tls_key",
        help_heading = "Destination"
    )]
    pub tls_cert: Option<PathBuf>,
    /// The key of the client's certificate (PEM)
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "to_file",
        requires = "tls_cert",
        help_heading = "Destination"
    )]
    pub tls_key: Option<PathBuf>,

    /// Which keys.
    #[command(flatten)]
    pub filters: Filters,

    /// Database OLD of the backup goes to NEW
    #[arg(long, value_name = "OLD:NEW", value_parser = parse_map, help_heading = CHANGES)]
    pub map: Vec<(u32, u32)>,
    /// Keys that begin with OLD begin with NEW instead
    #[arg(long, value_name = "OLD=NEW", value_parser = OsStringValueParser::new().try_map(parse_rename), help_heading = CHANGES)]
    pub rename_prefix: Vec<(Vec<u8>, Vec<u8>)>,
    /// When a key exists in the target
    #[arg(
        long,
        value_name = "POLICY",
        value_enum,
        default_value_t,
        conflicts_with = "to_file",
        help_heading = SAFETY
    )]
    pub on_conflict: OnConflict,
    /// Empty the target databases first; asks, unless --yes
    #[arg(long, conflicts_with = "to_file", help_heading = SAFETY)]
    pub flush: bool,
    /// What becomes of expiries
    #[arg(long, value_name = "POLICY", value_enum, default_value_t, help_heading = CHANGES)]
    pub ttl: Ttl,
    /// At most so many keys a second
    #[arg(long, value_name = "KEYS_PER_SECOND", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "to_file", help_heading = SAFETY)]
    pub rate: Option<u64>,
    /// Say what would be done, and write nothing
    #[arg(long, help_heading = SAFETY)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long, help_heading = SAFETY)]
    pub yes: bool,
    /// Show the names of keys, which are masked otherwise
    #[arg(long, help_heading = SAFETY)]
    pub show_keys: bool,
    /// The backup lies in this storage
    #[arg(long, value_name = "STORAGE", help_heading = "Source")]
    pub storage: Option<Name>,
}

/// Where a restore writes to: one of them.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
#[command(next_help_heading = "Destination")]
pub struct Destination {
    /// A configured database, or a server's URL; a /N in it puts every key into database N
    #[arg(long, value_name = "NAME|URL")]
    pub to: Option<String>,
    /// An RDB file; without filters byte for byte the one that was dumped
    #[arg(long, value_name = "PATH")]
    pub to_file: Option<PathBuf>,
}

/// Which keys are meant. Within one flag any of its values suffices; all flags together must hold.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Filters (each may be repeated)")]
pub struct Filters {
    /// Keys of this database
    #[arg(long, value_name = "N")]
    pub db: Vec<u32>,
    /// Keys that match, by the rules of Redis: * ? [a-z] [^a] \x
    #[arg(long, value_name = "GLOB", value_parser = OsStringValueParser::new().map(OsString::into_vec))]
    pub r#match: Vec<Vec<u8>>,
    /// Not the keys that match
    #[arg(long, value_name = "GLOB", value_parser = OsStringValueParser::new().map(OsString::into_vec))]
    pub exclude: Vec<Vec<u8>>,
    /// Keys of this type
    #[arg(long, value_name = "TYPE", value_parser = PossibleValuesParser::new(["string", "list", "set", "zset", "hash", "stream", "module"]))]
    pub r#type: Vec<String>,
}

/// What happens when a key exists in the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OnConflict {
    /// Look first, and write nothing when one exists
    #[default]
    Fail,
    /// Leave it as it is
    Skip,
    /// Put the backup's in its place
    Replace,
}

/// What becomes of expiries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Ttl {
    /// The time stands; keys that are over are left out
    #[default]
    Keep,
    /// What was left when the backup was taken counts from now
    Shift,
    /// None
    Strip,
}

/// The heading of what a restore changes on the way.
const CHANGES: &str = "Changes on the way";

/// The heading of how careful a restore is.
const SAFETY: &str = "Care";

fn selector_short() -> &'static str {
    SELECTOR_HELP.lines().next().unwrap_or(SELECTOR_HELP)
}

fn method_parser() -> impl clap::builder::TypedValueParser<Value = Method> {
    PossibleValuesParser::new(Method::ALL.map(Method::as_str)).try_map(|text| text.parse())
}

fn parse_map(text: &str) -> Result<(u32, u32), String> {
    let parsed = text
        .split_once(':')
        .and_then(|(old, new)| Some((old.parse().ok()?, new.parse().ok()?)));
    parsed.ok_or_else(|| "write OLD:NEW, two database numbers, like 1:4".to_owned())
}

fn parse_rename(text: OsString) -> Result<(Vec<u8>, Vec<u8>), String> {
    let bytes = text.into_vec();
    match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => Ok((bytes[..at].to_vec(), bytes[at + 1..].to_vec())),
        None => Err("write OLD=NEW, like 'staging:=live:'".to_owned()),
    }
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
    let text = error.render().to_string();
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
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parsed(line: &str) -> Result<Cli, NotACommand> {
        parse(line.split_whitespace().map(OsString::from))
    }

    fn wrong(line: &str) -> (Failure, bool) {
        match parsed(line) {
            Err(NotACommand::Wrong { failure, json }) => (failure, json),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_restore_flag_is_taken() {
        let cli = parsed(
            "rdbkeeper restore sessions@2026-01-01T00:00:00Z --to rediss://u@h/3 --password-file p --tls-ca a --tls-cert b \
             --tls-key c --db 1 --db 2 --match x* --exclude y? --type hash --type string --map 1:4 --rename-prefix a=b=c \
             --on-conflict replace --flush --ttl shift --rate 100 --dry-run --yes --show-keys --storage disk --json -vv",
        )
        .unwrap();
        assert!(cli.global.json);
        assert_eq!(cli.global.verbose, 2);
        let Command::Restore(restore) = cli.command else {
            panic!("restore");
        };
        assert_eq!(restore.to.to.as_deref(), Some("rediss://u@h/3"));
        assert_eq!(restore.filters.db, [1, 2]);
        assert_eq!(restore.filters.r#match, [b"x*"]);
        assert_eq!(restore.filters.r#type, ["hash", "string"]);
        assert_eq!(restore.map, [(1, 4)]);
        assert_eq!(restore.rename_prefix, [(b"a".to_vec(), b"b=c".to_vec())]);
        assert_eq!(restore.on_conflict, OnConflict::Replace);
        assert_eq!(restore.ttl, Ttl::Shift);
        assert_eq!(restore.rate, Some(100));
        assert!(restore.flush && restore.dry_run && restore.yes && restore.show_keys);
        assert_eq!(restore.storage.unwrap().as_str(), "disk");
    }

    #[test]
    fn a_glob_is_bytes_not_text() {
        let line = ["rdbkeeper", "restore", "x.rdb", "--to-file", "y", "--match"];
        let glob = OsString::from_vec(b"\xff*".to_vec());
        let cli = parse(line.iter().map(OsString::from).chain([glob])).unwrap();
        let Command::Restore(restore) = cli.command else {
            panic!("restore");
        };
        assert_eq!(restore.filters.r#match, [b"\xff*"]);
    }

    #[test]
    fn the_other_commands_are_taken() {
        for line in [
            "rdbkeeper backup now",
            "rdbkeeper backup now a b --method scan --storage disk",
            "rdbkeeper --config x.toml --log json -q backup list a",
            "rdbkeeper backup show latest --json",
            "rdbkeeper backup verify",
            "rdbkeeper backup verify a b",
            "rdbkeeper backup verify --all --storage disk",
            "rdbkeeper backup delete x --yes",
            "rdbkeeper restore a --to-file x.rdb",
            "rdbkeeper check --storage disk",
            "rdbkeeper completions zsh",
            "rdbkeeper man",
        ] {
            assert!(parsed(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn a_wrong_line_is_a_usage_failure_and_knows_json() {
        for line in [
            "rdbkeeper",
            "rdbkeeper backup",
            "rdbkeeper bakup now",
            "rdbkeeper backup now UPPER",
            "rdbkeeper backup now --method dump",
            "rdbkeeper backup verify a --all",
            "rdbkeeper restore a",
            "rdbkeeper restore a --to b --to-file c",
            "rdbkeeper restore a --to-file c --flush",
            "rdbkeeper restore a --to-file c --password-file p",
            "rdbkeeper restore a --to b --tls-cert x",
            "rdbkeeper restore a --to b --map 1",
            "rdbkeeper restore a --to b --type strings",
            "rdbkeeper restore a --to b --rate 0",
            "rdbkeeper -v -q check",
            "rdbkeeper --log journald check",
        ] {
            let (failure, json) = wrong(line);
            assert_eq!(failure.kind, Kind::Usage, "{line}");
            assert!(!failure.message.is_empty() && !failure.message.contains("error:"));
            assert!(!json);
            assert!(wrong(&format!("{line} --json")).1, "{line}");
        }
        // Behind `--` it is no flag.
        assert!(!wrong("rdbkeeper backup show -- --json x").1);
        let (failure, _) = wrong("rdbkeeper bakup now");
        assert!(format!("{failure:?}").contains("backup"), "{failure:?}");
    }

    #[test]
    fn help_is_no_failure() {
        for line in [
            "rdbkeeper --help",
            "rdbkeeper -h",
            "rdbkeeper --version",
            "rdbkeeper backup --help",
            "rdbkeeper restore --help",
        ] {
            assert!(
                matches!(parsed(line), Err(NotACommand::Text { .. })),
                "{line}"
            );
        }
    }
}
