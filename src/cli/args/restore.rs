//! The flags of `restore`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser as _};
use clap::{Args, ValueEnum};

use super::{SELECTOR_HELP, selector_short};
use crate::config::Name;

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
    /// How values are written
    #[arg(
        long,
        value_name = "MODE",
        value_enum,
        default_value_t,
        conflicts_with = "to_file",
        help_heading = CHANGES
    )]
    pub mode: Mode,
    /// Go on although the target cannot hold everything, and leave that out
    #[arg(long, conflicts_with = "to_file", help_heading = SAFETY)]
    pub allow_loss: bool,
    /// Empty the target databases first; asks, unless --yes
    #[arg(long, conflicts_with = "to_file", help_heading = SAFETY)]
    pub flush: bool,
    /// What becomes of expiries
    #[arg(long, value_name = "POLICY", value_enum, default_value_t, help_heading = CHANGES)]
    pub ttl: Ttl,
    /// What is compared with the backup afterwards; a difference is exit code 1
    #[arg(long, value_name = "WHAT", value_enum, default_value_t, help_heading = SAFETY)]
    pub check: Check,
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
    /// Decrypt with the age identities or the passphrase in this file, instead of the configured ones
    #[arg(long, value_name = "FILE", help_heading = "Source")]
    pub identity: Option<PathBuf>,
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
    #[arg(long, value_name = "N", value_parser = parse_db, allow_negative_numbers = true)]
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

/// How values are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// As they are where the target reads them so, else re-encoded for its version, else by plain commands
    #[default]
    Auto,
    /// By RESTORE, as they are or not at all
    Restore,
    /// By plain commands (SET, RPUSH, HSET, XADD…), each key whole or not at all
    Commands,
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

/// What is compared with the backup after a restore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Check {
    /// Every key; of a file, that it can be read back whole
    All,
    /// About a thousand keys, evenly chosen, and the largest
    #[default]
    Sample,
    /// Nothing
    None,
}

/// The heading of what a restore changes on the way.
const CHANGES: &str = "Changes on the way";

/// The heading of how careful a restore is.
const SAFETY: &str = "Care";

fn parse_db(text: &str) -> Result<u32, String> {
    let parsed = text.parse();
    parsed.map_err(|_| {
        "it takes the number of one database, 0 or more; for several repeat the flag: --db 3 --db 5"
            .to_owned()
    })
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
