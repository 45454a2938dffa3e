//! What can go wrong while a dump is taken, and whether another method could do better.

use std::io;
use std::path::PathBuf;

use crate::failure::{Failure, Kind};
use crate::server;

use super::Method;

/// What went wrong while a dump was taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A server can't be reached, or does not let us in, and the error says which.
    #[error(transparent)]
    Connect(Box<server::Error>),
    /// A server broke off outside of a transfer, or answered what it should not.
    #[error("{place}: cannot {doing}")]
    Server {
        /// The server.
        place: String,
        /// What was being done.
        doing: &'static str,
        /// What went wrong.
        #[source]
        source: Box<server::Error>,
    },
    /// The server is loading its data set.
    #[error("{place} is loading its data set")]
    Loading {
        /// The server.
        place: String,
    },
    /// The server is a replica that has lost its master: its data may be old.
    #[error("{place} is a replica whose link to its master is down: its data may be stale")]
    StaleReplica {
        /// The server.
        place: String,
    },
    /// A database that is meant does not exist.
    #[error("{place} has no database {db}{}", of(*.count))]
    NoDatabase {
        /// The server.
        place: String,
        /// The number.
        db: u32,
        /// How many there are, where the server tells.
        count: Option<u32>,
        /// The server's answer to SELECT.
        #[source]
        source: Box<server::Error>,
    },
    /// The method does not work here: the server or the user does not allow it.
    #[error("{method} does not work at {place}: {why}")]
    Incapable {
        /// The method.
        method: Method,
        /// The server.
        place: String,
        /// What is missing.
        why: String,
        /// The server's answer, where there is one.
        #[source]
        source: Option<Box<server::Error>>,
    },
    /// The dump file, or a folder on its way, may not be read.
    #[error("no permission to read {path}: {missing}{}", group_has_it(group))]
    FileForbidden {
        /// The dump file.
        path: PathBuf,
        /// The right that is missing, and on what.
        missing: String,
        /// The group that has it.
        group: Option<String>,
    },
    /// The dump file, or its folder, is not to be found from here: a container's path, perhaps.
    #[error("{path} cannot be seen from here")]
    FileUnseen {
        /// The dump file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The dump file can't be read.
    #[error("cannot read {path}")]
    File {
        /// The dump file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The server tried to save and failed.
    #[error("{place} failed to save its data set")]
    SaveFailed {
        /// The server.
        place: String,
    },
    /// The server's last save failed, so that it is not asked for another.
    #[error("{place} could not save its data set the last time it tried")]
    LastSaveFailed {
        /// The server.
        place: String,
    },
    /// The file at the path is not the one that the server has just saved.
    #[error("{path} is not the file that {place} has just saved: {why}")]
    NotOurs {
        /// The server.
        place: String,
        /// The file.
        path: PathBuf,
        /// What does not fit.
        why: String,
    },
    /// The file is not as long as it was when it was opened.
    #[error("{path} ended after {got} of {expected} bytes")]
    FileCut {
        /// The file.
        path: PathBuf,
        /// Its length when it was opened.
        expected: u64,
        /// Bytes read.
        got: u64,
    },
    /// The server was restarted while we waited for its save.
    #[error("{place} was restarted while it saved")]
    Restarted {
        /// The server.
        place: String,
    },
    /// The source broke off in the middle of the transfer.
    #[error("{place} broke off after {received} bytes{}", of_bytes(*.expected))]
    Died {
        /// The server.
        place: String,
        /// Bytes of the file that had come.
        received: u64,
        /// Bytes that should have come, where that was announced.
        expected: Option<u64>,
        /// How it broke off.
        #[source]
        source: Box<server::Error>,
    },
    /// A value that is larger than DUMP should be asked for.
    #[error("a key of database {db} ({key}) is larger than scan_max_value ({limit} bytes){}", has(*.bytes))]
    TooLarge {
        /// The database.
        db: u32,
        /// The key, masked.
        key: String,
        /// Its size in bytes, where it is known.
        bytes: Option<u64>,
        /// The bound.
        limit: u64,
    },
    /// A DUMP payload that is none.
    #[error("the DUMP of a key of database {db} ({key}) is damaged: {problem}")]
    Payload {
        /// The database.
        db: u32,
        /// The key, masked.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The hashes of the keys seen can't be kept on disk.
    #[error("cannot keep the list of the keys seen in {path}")]
    Spill {
        /// The folder.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The method would make the server fork, and that looks dangerous.
    #[error("{method} would make {place} fork: {}", why.join("; "))]
    ForkRefused {
        /// The method.
        method: Method,
        /// The server.
        place: String,
        /// What speaks against it.
        why: Vec<String>,
        /// What can be done about it.
        cures: Vec<&'static str>,
    },
    /// No method works.
    #[error("no method works at {place}")]
    NoMethod {
        /// The server.
        place: String,
        /// Why each does not.
        reasons: Vec<String>,
        /// Whether one was refused by `fork_guard`.
        guarded: bool,
    },
    /// Whoever takes the bytes is gone.
    #[error("the dump was abandoned")]
    ReceiverGone,
    /// Stopped by the request's token.
    #[error("the dump was stopped")]
    Cancelled,
}

fn of(count: Option<u32>) -> String {
    count.map_or_else(String::new, |count| {
        format!(": it has {count}, numbered from 0")
    })
}

fn of_bytes(expected: Option<u64>) -> String {
    expected.map_or_else(String::new, |bytes| format!(" of {bytes}"))
}

fn has(bytes: Option<u64>) -> String {
    bytes.map_or_else(String::new, |bytes| format!(": {bytes} bytes"))
}

impl Error {
    /// Whether the method itself does not work here, so that another may.
    pub fn is_incapacity(&self) -> bool {
        matches!(
            self,
            Error::Incapable { .. }
                | Error::FileForbidden { .. }
                | Error::FileUnseen { .. }
                | Error::NotOurs { .. }
        ) || self.cannot_save()
    }

    /// Whether it is the server that can't save, which is worth a warning where another method works.
    pub(super) fn cannot_save(&self) -> bool {
        matches!(
            self,
            Error::SaveFailed { .. } | Error::LastSaveFailed { .. }
        )
    }

    fn kind(&self) -> Kind {
        match self {
            Error::NoDatabase { .. } => Kind::Config,
            Error::ForkRefused { .. } | Error::NoMethod { guarded: true, .. } => Kind::Refused,
            Error::Incapable { source, .. } => match source {
                Some(error) if error.code() == Some(&server::Code::NoPerm) => Kind::Forbidden,
                _ => Kind::Failed,
            },
            Error::FileForbidden { .. } => Kind::Forbidden,
            Error::FileUnseen { .. }
            | Error::File { .. }
            | Error::FileCut { .. }
            | Error::Spill { .. } => Kind::Storage,
            Error::Loading { .. }
            | Error::StaleReplica { .. }
            | Error::SaveFailed { .. }
            | Error::LastSaveFailed { .. } => Kind::Unavailable,
            Error::Restarted { .. } => Kind::Unreachable,
            Error::Died { source, .. } => match source.as_ref() {
                server::Error::Idle(_) => Kind::Timeout,
                _ => Kind::Unreachable,
            },
            Error::Payload { .. } => Kind::Protocol,
            Error::Cancelled => Kind::Interrupted,
            _ => Kind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Error::Connect(source) | Error::Server { source, .. } => return source.hint(),
            Error::Loading { .. } => {
                "try again when it is done; INFO persistence shows how far it is"
            }
            Error::StaleReplica { .. } => {
                "use the primary's address, or wait until INFO replication says master_link_status:up"
            }
            Error::NoDatabase { .. } => "check `databases` and the number at the end of `url`",
            Error::Incapable {
                source: Some(source),
                ..
            } if source.code() == Some(&server::Code::NoPerm) => {
                "`rdbkeeper check` prints the smallest ACL line for each method; method = \"auto\" takes one that works"
            }
            Error::Incapable { .. } => "method = \"auto\" takes one that works",
            Error::FileForbidden {
                group: Some(group), ..
            } => {
                return Some(format!(
                    "add the user that runs rdbkeeper to the group `{group}` (usermod -aG {group} USER), or use method = \"replication\""
                ));
            }
            Error::FileForbidden { .. } => {
                "give this user the right to read it, or use method = \"replication\""
            }
            Error::FileUnseen { .. } => {
                "is the server in a container? `rdb_path` must say where its file is seen from here; or use method = \"replication\""
            }
            Error::SaveFailed { .. } | Error::LastSaveFailed { .. } => {
                "see the server's log: a full disk, a missing right on its `dir`, or no memory to fork"
            }
            Error::NotOurs { .. } => {
                "is another server's file at this path? set `rdb_path` to where this server's file is seen, or use method = \"replication\""
            }
            Error::Died { .. } => {
                "see the server's log: it was stopped, ran out of memory or disk, or closed us for `client-output-buffer-limit replica`"
            }
            Error::TooLarge { .. } => {
                "raise scan_max_value if the server has the memory for it, or use method = \"replication\""
            }
            Error::Spill { .. } => "it needs 16 bytes for each key, twice while it is merged",
            Error::ForkRefused { cures, .. } => {
                return Some(format!(
                    "{}; or use method = \"scan\", which does not fork, or a replica (`replica_url`); fork_guard = \"warn\" lets it fork all the same",
                    cures.join("; ")
                ));
            }
            Error::NoMethod { guarded: true, .. } => {
                "`rdbkeeper check` says what each method needs; fork_guard = \"warn\" lets the server fork all the same"
            }
            Error::NoMethod { .. } => "`rdbkeeper check` says what each method needs",
            _ => return None,
        };
        Some(text.to_owned())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        // What a server says is classified by the server's room.
        let told = error.to_string();
        if let Error::Connect(source) = error {
            return Failure::from(*source);
        }
        if let Error::Server { source, .. } = error {
            return Failure::from(*source).context(told);
        }
        let mut failure = Failure::new(error.kind(), told);
        failure.hint = error.hint();
        if let Error::NoMethod { reasons, .. } = &error {
            failure.causes.extend(reasons.iter().cloned());
        }
        match std::error::Error::source(&error) {
            Some(source) => failure.caused_by(source),
            None => failure,
        }
    }
}

/// An error with its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

/// A key as an error may show it: keys of web sessions are login tokens.
pub(super) fn masked(key: &[u8]) -> String {
    let shown: String = key
        .iter()
        .take((key.len() / 4).min(6))
        .map(|&b| {
            if b.is_ascii_graphic() {
                char::from(b)
            } else {
                '?'
            }
        })
        .collect();
    format!("`{shown}…`, {} bytes long", key.len())
}

/// Who has the missing right, as the end of a sentence.
fn group_has_it(group: &Option<String>) -> String {
    match group {
        Some(group) => format!("; the group `{group}` has it"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_masked() {
        assert_eq!(
            masked(b"session:0123456789abcdef"),
            "`sessio…`, 24 bytes long"
        );
        assert_eq!(masked(b"abc"), "`…`, 3 bytes long");
        assert_eq!(masked(b"\xff\n00000000000"), "`??0…`, 13 bytes long");
    }

    #[test]
    fn a_forbidden_file_names_the_group_to_join() {
        let failure = Failure::from(Error::FileForbidden {
            path: "/var/lib/redis/dump.rdb".into(),
            missing: "the folder /var/lib/redis is closed to this user".into(),
            group: Some("redis".into()),
        });
        assert_eq!(failure.kind, Kind::Forbidden);
        assert!(
            failure
                .hint
                .is_some_and(|hint| hint.contains("usermod -aG redis"))
        );
    }
}
