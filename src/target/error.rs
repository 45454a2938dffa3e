//! What can go wrong while keys are written.

use std::path::PathBuf;

use crate::failure::{Failure, Kind};
use crate::rdb::value::DecodeError;
use crate::rdb::{Damage, Unknown};
use crate::server::{self, Code, ServerError};
use crate::units::{HumanBytes, HumanCount};

/// What to give to a user that may not restore.
const RIGHTS: &str = "a restore needs the rights +info +select +exists +restore ~*; with --flush also +flushdb, for function libraries +function, for the check afterwards +dump +pexpiretime (before Redis 7.0 +pttl +time)";

/// The same for plain commands.
const RIGHTS_OF_COMMANDS: &str = "by plain commands a restore needs +info +select +exists +multi +exec +discard +pexpire +pexpireat +persist +rename +renamenx +unlink +del, the commands of the types (+set; +rpush; +sadd; +zadd; +hset +hpexpireat; +xadd +xgroup +xclaim +xsetid +xtrim +xdel +xreadgroup) and the keys ~rdbkeeper:restoring:*; with --flush also +flushdb, for function libraries +function, for the check afterwards +dump +pexpiretime (before Redis 7.0 +pttl +time)";

/// What to do for a server that wants more replicas than it has.
const NO_REPLICAS: &str =
    "it wants more replicas than it has (`min-replicas-to-write`): see whether they are there";

/// Why a restore did not end well. Keys in it are masked unless the user asked to see them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server could not be asked.
    #[error("cannot look at the target {place}")]
    Target {
        /// The server.
        place: String,
        /// Why.
        source: Box<server::Error>,
    },
    /// The server forbids a command that a restore needs.
    #[error("{place} forbids {command} to this user")]
    Forbidden {
        /// The server.
        place: String,
        /// The command.
        command: String,
        /// What it said.
        #[source]
        reply: Box<ServerError>,
    },
    /// The server takes no writes now, whoever asks: its last save failed, it lacks replicas, it is read-only.
    #[error("{place} takes no writes")]
    NoWrites {
        /// The server.
        place: String,
        /// What it said.
        #[source]
        reply: Box<ServerError>,
    },
    /// A value can't be decoded.
    #[error("the value of {key} in database {db} of the backup is damaged")]
    Value {
        /// The key.
        key: String,
        /// Its database.
        db: u32,
        /// What is wrong.
        #[source]
        source: DecodeError,
    },
    /// A key's name is damaged: compressed, and does not inflate.
    #[error("a key's name in the backup is damaged: {0}")]
    KeyName(Damage),
    /// The file can't be read key by key.
    #[error("from byte {offset} on the backup is opaque: {what}")]
    Opaque {
        /// Where.
        offset: u64,
        /// What is not known.
        what: Unknown,
    },
    /// Standard output can't be written.
    #[error("cannot write to standard output")]
    Stdout {
        /// Why.
        source: std::io::Error,
    },
    /// The backup does not say when it was taken, and `--ttl shift` needs it.
    #[error("this file does not say when it was written")]
    NoSnapshotTime,
    /// The backup was taken at a time when it can't have been, and `--ttl shift` needs it.
    #[error("this file is said to have been written at {said}, which can't be")]
    AbsurdSnapshotTime {
        /// The time.
        said: String,
    },
    /// The function libraries are so large that they are no libraries.
    #[error("the function libraries of the backup have more than {limit}")]
    TooManyFunctions {
        /// What they may have.
        limit: HumanBytes,
    },
    /// Whoever takes the keys has stopped; what it says is the reason.
    #[error("the target takes no more keys")]
    Stopped,
    /// A key appeared on the target while the restore ran, and the policy is to fail.
    #[error(
        "{key} appeared in database {db} of {place} while the restore ran; {} written",
        HumanCount(*.written).of("key was", "keys were")
    )]
    Appeared {
        /// The server.
        place: String,
        /// The key.
        key: String,
        /// The database.
        db: u32,
        /// Keys written, all in all.
        written: u64,
    },
    /// The server refuses to go on: out of memory, read-only, and the like.
    #[error("{place} refused to take more keys; {} written, {rest}", HumanCount(*.written).of("was", "were"))]
    Refused {
        /// The server.
        place: String,
        /// Keys written.
        written: u64,
        /// How many were not, in words.
        rest: String,
        /// What it said.
        #[source]
        reply: Box<ServerError>,
    },
    /// Some keys were refused, the others written.
    #[error(
        "{place} refused {} of the keys, {} written; the first was {key} in database {db}",
        HumanCount(*.failed),
        HumanCount(*.written).of("was", "were")
    )]
    Keys {
        /// The server.
        place: String,
        /// Keys refused.
        failed: u64,
        /// Keys written.
        written: u64,
        /// The first.
        key: String,
        /// Its database.
        db: u32,
        /// What it said.
        #[source]
        reply: Box<ServerError>,
    },
    /// The connection was lost.
    #[error(
        "the connection to {place} was lost; {} written for certain",
        HumanCount(*.written).of("key was", "keys were")
    )]
    Lost {
        /// The server.
        place: String,
        /// Keys that the server confirmed.
        written: u64,
        /// Why.
        source: Box<server::Error>,
    },
    /// The user stopped it.
    #[error("stopped; {} written to {place}, {rest}", HumanCount(*.written).of("key was", "keys were"))]
    Cancelled {
        /// The server.
        place: String,
        /// Keys written.
        written: u64,
        /// How many were not, in words.
        rest: String,
    },
    /// A function library could not be loaded.
    #[error(
        "the function library {name} cannot be loaded into {place}; {} loaded, no key was written or deleted",
        .loaded.of("other was", "others were")
    )]
    Function {
        /// The server.
        place: String,
        /// The library.
        name: String,
        /// How many were loaded before it.
        loaded: HumanCount,
        /// Why.
        source: Box<server::Error>,
    },
    /// There is a file already.
    #[error("{path} exists already")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The path names a folder, a device, a link, or nothing.
    #[error("{path} is not the path of a regular file")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error("cannot {doing} {path}")]
    File {
        /// `create`, `write`, `sync`, `rename`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Error {
    /// The server was asked whether it would take a key.
    pub(crate) fn writing(place: &str, source: server::Error) -> Error {
        match source {
            server::Error::Reply { reply, .. }
                if matches!(
                    reply.code,
                    Code::Misconf | Code::NoReplicas | Code::ReadOnly
                ) =>
            {
                Error::NoWrites {
                    place: place.to_owned(),
                    reply: Box::new(reply),
                }
            }
            source => Error::target(place, source),
        }
    }

    /// The server could not be asked.
    pub(crate) fn target(place: &str, source: server::Error) -> Error {
        let place = place.to_owned();
        match source {
            server::Error::Reply { command, reply } if reply.code == Code::NoPerm => {
                Error::Forbidden {
                    place,
                    command,
                    reply: Box::new(reply),
                }
            }
            source => Error::Target {
                place,
                source: Box::new(source),
            },
        }
    }
}

impl Error {
    /// The command that is forbidden, where it is one that only a restore by plain commands needs.
    pub(crate) fn plain_command(&self) -> Option<&str> {
        match self {
            Error::Forbidden { command, .. } if is_plain(command) => Some(command),
            _ => None,
        }
    }

    /// Whether the server does not let this user, or nobody, run this command.
    pub(crate) fn refuses(&self, wanted: &str) -> bool {
        match self {
            Error::Forbidden { command, .. } => command == wanted,
            // What may be is asked with a command whose arguments are wrong: any other answer would be to those.
            Error::Target { source, .. } => {
                matches!(source.as_ref(), server::Error::Reply { command, reply }
                    if command == wanted && reply.code == Code::Err)
            }
            _ => false,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let (kind, hint): (Kind, Option<&str>) = match &error {
            Error::Forbidden { .. } => (
                Kind::Forbidden,
                Some(match error.plain_command() {
                    Some(_) => RIGHTS_OF_COMMANDS,
                    None => RIGHTS,
                }),
            ),
            Error::Function { source, .. } if source.code() == Some(&Code::NoPerm) => {
                (Kind::Forbidden, Some(RIGHTS))
            }
            Error::Target { source, .. } | Error::Function { source, .. } => {
                let inner = kind_and_hint(source);
                return with_causes(inner.0, inner.1, &error);
            }
            Error::Lost { source, .. } => {
                let (kind, _) = kind_and_hint(source);
                let hint = "restore again with --on-conflict replace once the server is back: what is there already is written once more";
                return with_causes(kind, Some(hint.to_owned()), &error);
            }
            Error::NoWrites { reply, .. } => match reply.code {
                Code::ReadOnly => (
                    Kind::Refused,
                    Some("the target is a replica: restore to its primary"),
                ),
                Code::NoReplicas => (Kind::Refused, Some(NO_REPLICAS)),
                _ => (
                    Kind::Unavailable,
                    Some(
                        "its last save failed: see its log (a full disk, a missing right), then try again",
                    ),
                ),
            },
            Error::KeyName(_) | Error::Value { .. } => {
                (Kind::Damaged, Some("use another copy or another backup"))
            }
            Error::Opaque { .. } => (
                Kind::Refused,
                Some(
                    "restore the whole of it with --to-file and let the server that wrote it load the file, or use a newer rdbkeeper",
                ),
            ),
            Error::NoSnapshotTime => (Kind::Usage, Some("use --ttl keep or strip")),
            Error::AbsurdSnapshotTime { .. } => (
                Kind::Refused,
                Some("use --ttl keep or strip; and look at the clocks of both servers"),
            ),
            Error::TooManyFunctions { .. } => (
                Kind::Refused,
                Some(
                    "restore the whole of it with --to-file and let the server that wrote it load the file",
                ),
            ),
            Error::Stopped | Error::Stdout { .. } => (Kind::Failed, None),
            Error::Appeared { .. } => (
                Kind::Refused,
                Some("stop what writes to the target, or say --on-conflict skip or replace"),
            ),
            Error::Refused { reply, written, .. } => match reply.code {
                Code::Oom => (
                    Kind::Unavailable,
                    Some(
                        "the target is full: raise its `maxmemory` (CONFIG SET maxmemory) or free memory there, then restore again with --on-conflict skip",
                    ),
                ),
                Code::NoPerm => (Kind::Forbidden, Some(RIGHTS)),
                Code::NoAuth => (Kind::Auth, Some("give the target's password")),
                Code::ReadOnly => (
                    Kind::Refused,
                    Some("the target is a replica: restore to its primary"),
                ),
                Code::NoReplicas => (
                    if *written == 0 {
                        Kind::Refused
                    } else {
                        Kind::Unavailable
                    },
                    Some(NO_REPLICAS),
                ),
                _ => (
                    Kind::Unavailable,
                    Some("see the target's log; then restore again with --on-conflict skip"),
                ),
            },
            Error::Keys { .. } => (
                Kind::Failed,
                Some("--show-keys names the key; a module's values need the module on the target"),
            ),
            Error::Cancelled { .. } => (
                Kind::Interrupted,
                Some("restore again with --on-conflict skip to write only what is missing"),
            ),
            Error::Exists { .. } => (
                Kind::Refused,
                Some("name another path, or say --yes to replace the file"),
            ),
            Error::NotAFile { .. } => (
                Kind::Usage,
                Some(
                    "name the file that is to be written, not a folder, a device, a pipe or a link",
                ),
            ),
            Error::File { source, .. } => (
                Kind::Storage,
                match source.kind() {
                    std::io::ErrorKind::NotFound => Some("make its folder first"),
                    std::io::ErrorKind::PermissionDenied => {
                        Some("choose a folder that you may write to")
                    }
                    std::io::ErrorKind::StorageFull => {
                        Some("free some space, or choose another disk")
                    }
                    _ => None,
                },
            ),
        };
        let hint = hint.map(str::to_owned);
        with_causes(kind, hint, &error)
    }
}

/// Whether a command is one of those that only a restore by plain commands needs.
fn is_plain(command: &str) -> bool {
    const OTHERS: [&str; 8] = [
        "RESTORE", "FUNCTION", "FLUSHDB", "SELECT", "EXISTS", "INFO", "PING", "TIME",
    ];
    let word = command.split(' ').next().unwrap_or_default();
    !OTHERS.contains(&word)
}

fn kind_and_hint(source: &server::Error) -> (Kind, Option<String>) {
    (source.kind(), source.hint())
}

fn with_causes(kind: Kind, hint: Option<String>, error: &Error) -> Failure {
    let mut failure = Failure::new(kind, error.to_string());
    failure.hint = hint;
    match std::error::Error::source(error) {
        Some(source) => failure.caused_by(source),
        None => failure,
    }
}
