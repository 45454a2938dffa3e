//! What can go wrong in a sweep, and which guard refuses it.

use std::path::PathBuf;
use std::time::Duration;

use crate::failure::{Failure, Kind};
use crate::server::{self, Code, ServerError};
use crate::units::HumanDuration;

/// What ended a sweep.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server can't be reached, or does not let us in, and the error says which.
    #[error(transparent)]
    Connect(Box<server::Error>),
    /// The server broke off, or answered what it should not.
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
    /// The user may not run a command that the sweep cannot do without.
    #[error("{place}: this user may not run {command}")]
    Forbidden {
        /// The server.
        place: String,
        /// The command, with its subcommand.
        command: String,
        /// As an ACL grants it: `+pexpireat`.
        grant: String,
        /// What the server said.
        #[source]
        source: Box<server::Error>,
    },
    /// The user may run the command, but not on a key that the sweep came to.
    #[error("{place}: the keys that this user may use leave out one that the sweep came to")]
    ForbiddenKey {
        /// The server.
        place: String,
        /// What the server said.
        #[source]
        source: Box<server::Error>,
    },
    /// The server's memory is full, and the act was tried in a transaction.
    #[error("{place} is full, and takes no transactions then")]
    Full {
        /// The server.
        place: String,
        /// What the server said.
        #[source]
        source: Box<server::Error>,
    },
    /// The connection broke again and again.
    #[error("{place}: the connection was lost {times} times in a row")]
    Lost {
        /// The server.
        place: String,
        /// How often it was lost without anything done between.
        times: u32,
        /// How it was lost last.
        #[source]
        source: Box<server::Error>,
    },
    /// A replica, which takes no writes and does not see what its primary's clients use.
    #[error("{place} is a replica")]
    Replica {
        /// The server.
        place: String,
        /// Its primary, where it says so.
        primary: Option<String>,
    },
    /// A node of a cluster.
    #[error("{place} is a node of a cluster")]
    Cluster {
        /// The server.
        place: String,
    },
    /// The server is loading its data set.
    #[error("{place} is loading its data set")]
    Loading {
        /// The server.
        place: String,
    },
    /// A database that is meant does not exist.
    #[error("{place} has no database {db}")]
    NoDatabase {
        /// The server.
        place: String,
        /// The number.
        db: u32,
        /// The server's answer to SELECT.
        #[source]
        source: Box<server::Error>,
    },
    /// A rule has `idle`, and idle times cannot be trusted here.
    #[error("`idle` cannot be trusted at {place}: {guard}")]
    Idle {
        /// The server.
        place: String,
        /// Which guard refuses.
        #[source]
        guard: Guard,
    },
    /// What was observed of the server's forks can't be read or kept.
    #[error("cannot use {path}")]
    State {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// Stopped by the job's token.
    #[error("stopped before the last key")]
    Cancelled,
}

/// Why idle times cannot be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Guard {
    /// A replica does not see what is used on its primary.
    #[error("it is a replica, which does not see what is used on its primary")]
    Replica,
    /// The server's time is needed.
    #[error("TIME is refused to this user")]
    NoClock,
    /// Under an LFU policy the server keeps no idle times.
    #[error("its maxmemory-policy is {policy}, which keeps no idle times")]
    Lfu {
        /// The policy.
        policy: String,
    },
    /// The server has not run for longer than a session may be idle.
    #[error("it has run for {}, and a session may be idle for {}", HumanDuration(*.uptime), HumanDuration(*.needs))]
    Young {
        /// How long it has run.
        uptime: Duration,
        /// How long a session may be idle, with its grace.
        needs: Duration,
    },
    /// INFO has no `total_forks`: before Redis 6.2.
    #[error("it does not count its forks (INFO has no total_forks; Redis does from 6.2 on)")]
    ForksUncounted,
    /// Without a script an idle time can't be checked in one step with the deletion.
    #[error(
        "this user may run no scripts, so an idle time cannot be checked in one step with the deletion"
    )]
    NoScripts,
    /// Reading a value counts as a use, so that the sweep itself would hide what it looks for.
    #[error(
        "reading a value counts as a use there (CLIENT NO-TOUCH is missing), and sessions of `{store}` are read before they are deleted"
    )]
    ReadsTouch {
        /// The rule's store.
        store: &'static str,
    },
    /// There is nowhere to remember what was observed.
    #[error("there is no state folder to remember its forks in")]
    NoState,
    /// Not watched for long enough.
    #[error(
        "while it forks, reads leave idle times as they are; it certainly had no fork since {since}, and must have none for {}", HumanDuration(*.needs)
    )]
    Watching {
        /// Since when there was no fork: UTC.
        since: String,
        /// For how long there must be none.
        needs: Duration,
        /// When that will be, if no fork comes between: UTC.
        able: String,
    },
    /// It was watched for long enough, and forks too often.
    #[error(
        "while it forks, reads leave idle times as they are; in {} no time without a fork was longer than {}, and it takes {}",
        HumanDuration(*.watched), HumanDuration(*.longest), HumanDuration(*.needs)
    )]
    ForksTooOften {
        /// For how long it was watched.
        watched: Duration,
        /// The longest time without a fork.
        longest: Duration,
        /// How long one must be.
        needs: Duration,
    },
    /// A child works, so that reads are not seen.
    #[error(
        "a child process is at work there (a save, a rewrite), and until it ends no read is seen"
    )]
    ChildAtWork,
}

impl Error {
    /// An error of the server, told apart by what a person does about it.
    pub(super) fn server(place: &str, doing: &'static str, source: server::Error) -> Error {
        let place = place.to_owned();
        if source.is_no_connection() {
            return Error::Connect(Box::new(source));
        }
        if source.server_error().is_some_and(ServerError::forbids_keys) {
            return Error::ForbiddenKey {
                place,
                source: Box::new(source),
            };
        }
        match (&source, source.code()) {
            // Of one in a script or a transaction the name may not be known.
            (server::Error::Reply { command, .. }, Some(Code::NoPerm))
                if !command.starts_with("a command ") =>
            {
                Error::Forbidden {
                    grant: grant(command),
                    command: command.clone(),
                    place,
                    source: Box::new(source),
                }
            }
            (_, Some(Code::Loading)) => Error::Loading { place },
            (_, Some(Code::ReadOnly)) => Error::Replica {
                place,
                primary: None,
            },
            _ => Error::Server {
                place,
                doing,
                source: Box::new(source),
            },
        }
    }

    /// Whether the connection itself is gone.
    pub(super) fn is_disconnect(&self) -> bool {
        matches!(self, Error::Server { source, .. } if source.is_disconnect())
    }

    fn kind(&self) -> Kind {
        match self {
            Error::Connect(source) | Error::Server { source, .. } | Error::Lost { source, .. } => {
                source.kind()
            }
            Error::Forbidden { .. } | Error::ForbiddenKey { .. } => Kind::Forbidden,
            Error::Replica { .. } | Error::Cluster { .. } | Error::Idle { .. } => Kind::Refused,
            Error::Loading { .. } | Error::Full { .. } => Kind::Unavailable,
            Error::NoDatabase { .. } => Kind::Config,
            Error::State { .. } => Kind::Storage,
            Error::Cancelled => Kind::Interrupted,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Error::Connect(source) | Error::Server { source, .. } | Error::Lost { source, .. } => {
                return source.hint();
            }
            Error::Forbidden { grant, .. } => {
                format!("grant it with ACL SETUSER USER {grant}")
            }
            Error::ForbiddenKey { .. } => {
                "grant all keys with ACL SETUSER USER ~*, or let no rule take others".to_owned()
            }
            Error::Replica { primary, .. } => match primary {
                Some(primary) => format!("sessions expire on the primary: use {primary} in `url`"),
                None => "sessions expire on the primary: use its address in `url`".to_owned(),
            },
            Error::Cluster { .. } => "use a server that is not in cluster mode".to_owned(),
            Error::Full { .. } => {
                "grant +eval: a script may delete when memory is full, a transaction may not"
                    .to_owned()
            }
            Error::Loading { .. } => {
                "try again when it is done; INFO persistence shows how far it is".to_owned()
            }
            Error::NoDatabase { .. } => {
                "check `databases` and the number at the end of `url`".to_owned()
            }
            Error::Idle { guard, .. } => return guard.hint(),
            _ => return None,
        })
    }
}

impl Guard {
    /// Whether it passes with time alone: then it refuses nothing, and until then nothing counts as idle.
    pub(super) fn passes(&self) -> bool {
        matches!(
            self,
            Guard::Young { .. } | Guard::Watching { .. } | Guard::ChildAtWork
        )
    }

    pub(super) fn hint(&self) -> Option<String> {
        Some(match self {
            Guard::Replica => "use its primary".to_owned(),
            Guard::NoClock => "grant +time".to_owned(),
            Guard::Lfu { .. } => {
                "use a maxmemory-policy without LFU, or set idle = false".to_owned()
            }
            Guard::Young { .. } => "try again when it has run for longer".to_owned(),
            Guard::ForksUncounted => "set idle = false".to_owned(),
            Guard::NoScripts => "grant +eval, or set idle = false".to_owned(),
            Guard::ReadsTouch { .. } => {
                "grant +client|no-touch (Redis 7.2 and later, Valkey), or set idle = false".to_owned()
            }
            Guard::NoState => "set state_dir, or idle = false".to_owned(),
            Guard::Watching { able, .. } => {
                format!("keep running it: without a fork until {able} it will be able to")
            }
            Guard::ForksTooOften { .. } => {
                "BGSAVE, AOF rewrites and replicas that synchronise fork; backups with method = \"scan\" do not. \
                 Where forks come more often than sessions end, set idle = false"
                    .to_owned()
            }
            Guard::ChildAtWork => "try again when it has ended".to_owned(),
        })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let told = error.to_string();
        if let Error::Connect(source) = error {
            return Failure::from(*source);
        }
        let mut failure = Failure::new(error.kind(), told);
        failure.hint = error.hint();
        match std::error::Error::source(&error) {
            // The guard stands in the message already.
            Some(source) if !matches!(error, Error::Idle { .. }) => failure.caused_by(source),
            _ => failure,
        }
    }
}

/// `CLIENT NO-TOUCH` as an ACL grants it: `+client|no-touch`.
fn grant(command: &str) -> String {
    format!("+{}", command.to_lowercase().replace(' ', "|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_is_forbidden_is_named_with_what_grants_it() {
        let source = server::Error::Reply {
            command: "OBJECT IDLETIME".to_owned(),
            reply: ServerError::parse(b"NOPERM this user has no permissions"),
        };
        let failure = Failure::from(Error::server("here:1", "look at keys", source));
        assert_eq!(failure.kind, Kind::Forbidden);
        assert!(failure.message.contains("OBJECT IDLETIME"));
        assert!(
            failure
                .hint
                .is_some_and(|hint| hint.contains("+object|idletime"))
        );
    }
}
