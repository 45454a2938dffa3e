//! What can go wrong with a server, told apart by what a person does about it.
//!
//! A server's error reply is classified by its first word alone: the words are the protocol,
//! the text behind them is prose that changes between versions. The trap: that text may echo
//! the arguments of an unknown command (`… with args beginning with: 'secret'`), so it is cut.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::failure::{Failure, Kind};

use super::address::AddressError;

/// The first word of a server's error reply.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// `ERR`: anything without a word of its own, unknown commands too.
    Err,
    /// `NOAUTH`: a password is needed.
    NoAuth,
    /// `WRONGPASS`: wrong user or password, or the user is off.
    WrongPass,
    /// `NOPERM`: the ACL forbids the command, the key or the channel.
    NoPerm,
    /// `LOADING`: the data set is being loaded.
    Loading,
    /// `MISCONF`: writes are stopped because the last save failed.
    Misconf,
    /// `OOM`: `maxmemory` is reached.
    Oom,
    /// `MASTERDOWN`: a replica without its master that is told not to serve stale data.
    MasterDown,
    /// `NOMASTERLINK`: a replica without its master can't feed replicas of its own.
    NoMasterLink,
    /// `NOREPLICAS`: too few good replicas to write.
    NoReplicas,
    /// `DENIED`: protected mode.
    Denied,
    /// `READONLY`: a write to a replica.
    ReadOnly,
    /// `BUSY`: a script runs.
    Busy,
    /// `BUSYKEY`: RESTORE without REPLACE on a key that exists.
    BusyKey,
    /// `WRONGTYPE`: the key holds another type.
    WrongType,
    /// `EXECABORT`: a transaction with an error in it.
    ExecAbort,
    /// `MOVED`, `ASK`, `CLUSTERDOWN`, `CROSSSLOT`, `TRYAGAIN`: cluster answers.
    Cluster,
    /// Another word.
    Other(String),
}

impl Code {
    fn of(word: &str) -> Code {
        match word {
            "ERR" => Code::Err,
            "NOAUTH" => Code::NoAuth,
            "WRONGPASS" => Code::WrongPass,
            "NOPERM" => Code::NoPerm,
            "LOADING" => Code::Loading,
            "MISCONF" => Code::Misconf,
            "OOM" => Code::Oom,
            "MASTERDOWN" => Code::MasterDown,
            "NOMASTERLINK" => Code::NoMasterLink,
            "NOREPLICAS" => Code::NoReplicas,
            "DENIED" | "-DENIED" => Code::Denied,
            "READONLY" => Code::ReadOnly,
            "BUSY" => Code::Busy,
            "BUSYKEY" => Code::BusyKey,
            "WRONGTYPE" => Code::WrongType,
            "EXECABORT" => Code::ExecAbort,
            "MOVED" | "ASK" | "CLUSTERDOWN" | "CROSSSLOT" | "TRYAGAIN" => Code::Cluster,
            other => Code::Other(other.chars().take(32).collect()),
        }
    }
}

/// A server's error reply: its code and its text, arguments cut away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError {
    /// What kind of error: the first word.
    pub code: Code,
    text: String,
}

impl ServerError {
    /// Reads the line behind the `-`.
    pub fn parse(line: &[u8]) -> ServerError {
        let line = String::from_utf8_lossy(line);
        let word = line.split([' ', '\r', '\n']).next().unwrap_or_default();
        // Unknown commands are answered with their arguments, which may be keys or passwords.
        let shown = match line.find("with args beginning with") {
            Some(at) => line[..at].trim_end_matches([' ', ',']),
            None => &line,
        };
        let text: String = shown
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(300)
            .collect();
        ServerError {
            code: Code::of(word),
            text: text.trim_end().to_owned(),
        }
    }
}

impl ServerError {
    /// Whether a `NOPERM` forbids the keys, and not the command. Here only the prose tells, which since 6.0 has been:
    /// `… to access one of the keys …`, `… can't access at least one of the keys …`, `No permissions to access a key`.
    pub fn forbids_keys(&self) -> bool {
        let says = |words| self.text.contains(words);
        says("one of the keys") || says("permissions to access a key")
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for ServerError {}

/// Which part of TLS failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsProblem {
    /// The server's certificate is signed by nobody we trust.
    #[error("the server's certificate is not signed by a trusted CA")]
    UnknownCa,
    /// The certificate is of another name.
    #[error("the server's certificate is not valid for the name `{0}`")]
    WrongName(String),
    /// Expired or not valid yet.
    #[error("the server's certificate is out of its validity period")]
    OutOfDate,
    /// Another fault of the certificate.
    #[error("the server's certificate is not acceptable: {0}")]
    Certificate(String),
    /// The server does not speak TLS.
    #[error("the server speaks plain text on this port, not TLS")]
    PlainText,
    /// The server wants a client certificate, or another one.
    #[error("the server does not accept our client certificate, or wants one")]
    ClientCertificate,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// What went wrong with a server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address can't be read.
    #[error("not a server address")]
    Address(#[from] AddressError),
    /// The host name has no address.
    #[error("the host name `{host}` cannot be resolved")]
    Dns {
        /// The name.
        host: String,
        /// The resolver's word.
        source: io::Error,
    },
    /// Nobody listens.
    #[error("nothing listens at {place}")]
    Refused {
        /// The server.
        place: String,
    },
    /// The socket file does not exist.
    #[error("there is no socket {path}")]
    NoSocket {
        /// The socket.
        path: PathBuf,
    },
    /// The socket file may not be used.
    #[error("no permission to use the socket {path}")]
    SocketForbidden {
        /// The socket.
        path: PathBuf,
    },
    /// No connection in time.
    #[error("{place} did not answer within {after:?} ({stage})")]
    ConnectTimeout {
        /// The server.
        place: String,
        /// The limit.
        after: Duration,
        /// What was waited for: `connecting`, `TLS handshake`, `first answer`.
        stage: &'static str,
    },
    /// Another network error while connecting.
    #[error("cannot connect to {place}")]
    Connect {
        /// The server.
        place: String,
        /// The system's word.
        source: io::Error,
    },
    /// TLS failed.
    #[error("no TLS connection to {place}: {problem}")]
    Tls {
        /// The server.
        place: String,
        /// Which part.
        problem: TlsProblem,
    },
    /// A TLS file of ours can't be used.
    #[error("cannot use the TLS file {path}: {problem}")]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// The credentials were refused, or are missing.
    #[error("{place}: login refused for {who}")]
    Login {
        /// The server.
        place: String,
        /// Whether a user was named without a password: a password alone, perhaps.
        user_alone: bool,
        /// `the user …`, `the default user`, `a client without password`.
        who: String,
        /// What it answered.
        #[source]
        reply: ServerError,
    },
    /// The server answered the connection itself with an error: too many clients, protected mode.
    #[error("{place} turned the connection away")]
    TurnedAway {
        /// The server.
        place: String,
        /// What it said.
        #[source]
        reply: ServerError,
    },
    /// A command was answered with an error.
    #[error("{command} was refused")]
    Reply {
        /// The command, without arguments that could be secret.
        command: String,
        /// What was answered.
        #[source]
        reply: ServerError,
    },
    /// A command was answered, but not with what it is known to answer.
    #[error("the answer to {command} makes no sense")]
    Unexpected {
        /// The command.
        command: String,
    },
    /// What came is not RESP2, or beyond a limit.
    #[error("the server sent something that is not the protocol: {0}")]
    Protocol(&'static str),
    /// A string is announced that is longer than the limit.
    #[error("the server announced a string of {len} bytes; the limit is {limit}")]
    TooLong {
        /// Bytes announced.
        len: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// The connection ended.
    #[error("the server closed the connection")]
    Closed,
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[source] io::Error),
    /// Nothing came for too long.
    #[error("the server sent nothing for {0:?}")]
    Idle(Duration),
}

impl Error {
    /// The code of the server's error reply, when there is one in it.
    pub fn code(&self) -> Option<&Code> {
        self.server_error().map(|reply| &reply.code)
    }

    /// The server's error reply, when there is one in it.
    pub fn server_error(&self) -> Option<&ServerError> {
        match self {
            Error::Login { reply, .. }
            | Error::TurnedAway { reply, .. }
            | Error::Reply { reply, .. } => Some(reply),
            _ => None,
        }
    }

    /// Whether it says by itself that no connection came about, and to where.
    pub fn is_no_connection(&self) -> bool {
        matches!(
            self,
            Error::Dns { .. }
                | Error::Refused { .. }
                | Error::NoSocket { .. }
                | Error::SocketForbidden { .. }
                | Error::ConnectTimeout { .. }
                | Error::Connect { .. }
                | Error::Tls { .. }
                | Error::Login { .. }
                | Error::TurnedAway { .. }
        )
    }

    /// Whether the connection itself is gone.
    pub fn is_disconnect(&self) -> bool {
        matches!(self, Error::Closed | Error::Io(_) | Error::Idle(_))
    }

    /// The class of the failure that it becomes.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Address(_) | Error::TlsFile { .. } => Kind::Config,
            Error::Login { .. } => Kind::Auth,
            Error::ConnectTimeout { .. } | Error::Idle(_) => Kind::Timeout,
            Error::Reply { reply, .. } => match reply.code {
                Code::NoAuth | Code::WrongPass => Kind::Auth,
                Code::NoPerm => Kind::Forbidden,
                Code::Err | Code::Other(_) | Code::WrongType | Code::ExecAbort => Kind::Failed,
                _ => Kind::Unavailable,
            },
            Error::TurnedAway { .. } => Kind::Unavailable,
            Error::Unexpected { .. } | Error::Protocol(_) | Error::TooLong { .. } => Kind::Protocol,
            _ => Kind::Unreachable,
        }
    }

    /// What to do next, where that can be said.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Error::Dns { .. } => "check the host name in `url`",
            Error::Refused { .. } => "is the server running, and is the port right?",
            Error::NoSocket { .. } => {
                "is the server running, and does `unixsocket` in its configuration name this path?"
            }
            Error::SocketForbidden { .. } => {
                "see `unixsocketperm` in the server's configuration; the socket's group must include this user"
            }
            Error::ConnectTimeout { stage, .. } if *stage == "TLS handshake" => {
                "does the server speak TLS on this port? `redis://` is without TLS"
            }
            Error::ConnectTimeout { .. } => "a firewall, or a server that hangs?",
            Error::Tls { problem, .. } => match problem {
                TlsProblem::UnknownCa => "name the CA that signed it: tls = { ca_file = \"…\" }",
                TlsProblem::WrongName(_) => {
                    "use the name that is in the certificate's subjectAltName in `url`"
                }
                TlsProblem::PlainText => {
                    "use redis:// instead of rediss://, or the server's TLS port"
                }
                TlsProblem::ClientCertificate => {
                    "give one that the server's CA signed: tls = { cert_file = \"…\", key_file = \"…\" }"
                }
                _ => return None,
            },
            Error::Login {
                user_alone: true, ..
            } => {
                "a password alone is written redis://:PASSWORD@host; for a user, set `password_file`"
            }
            Error::Login { reply, .. } => match reply.code {
                Code::NoAuth => "set `password_file` (and `username` for an ACL user)",
                Code::WrongPass => "check `username` and `password_file`; is the user on?",
                _ => "check `username` and `password_file`",
            },
            Error::TurnedAway { reply, .. } if reply.code == Code::Denied => {
                "the server is in protected mode: connect from its own host, or give it a password"
            }
            Error::TurnedAway { .. } => "see `maxclients` in the server's configuration",
            Error::Reply { reply, .. } => return reply.hint().map(str::to_owned),
            Error::Closed => "see the server's log; a TLS port wants rediss://",
            Error::Idle(_) | Error::Io(_) => "see the server's log, and the network between",
            _ => return None,
        };
        Some(text.to_owned())
    }
}

impl ServerError {
    fn hint(&self) -> Option<&'static str> {
        Some(match self.code {
            Code::NoPerm => "`rdbkeeper check` prints the smallest ACL line for each method",
            Code::Loading => "the server is loading its data set: try again when it is done",
            Code::Misconf => {
                "the server's last save failed: see its log (a full disk, a missing right), then try again"
            }
            Code::Oom => "the server has reached `maxmemory`",
            Code::MasterDown | Code::NoMasterLink => {
                "the replica has lost its master: use the primary, or wait until master_link_status is up"
            }
            Code::Busy => "a script is blocking the server",
            Code::ReadOnly => "this is a replica: write to its primary",
            _ => return None,
        })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let mut failure = Failure::new(error.kind(), error.to_string());
        failure.hint = error.hint();
        match std::error::Error::source(&error) {
            Some(source) => failure.caused_by(source),
            None => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_forbids_a_key_is_told_from_what_forbids_a_command() {
        let forbids = |line: &str| ServerError::parse(line.as_bytes()).forbids_keys();
        for keys in [
            "NOPERM this user has no permissions to access one of the keys used as arguments",
            "NOPERM No permissions to access a key",
            "NOPERM ACL failure in script: No permissions to access a key",
            "The user executing the script can't access at least one of the keys mentioned in the command arguments",
        ] {
            assert!(forbids(keys), "{keys}");
        }
        for command in [
            "NOPERM this user has no permissions to run the 'type' command or its subcommand",
            "NOPERM User default has no permissions to run the 'keys' command",
            "The user executing the script can't run this command or subcommand",
        ] {
            assert!(!forbids(command), "{command}");
        }
    }

    #[test]
    fn an_error_is_classified_by_its_first_word_alone() {
        let code = |line: &str| ServerError::parse(line.as_bytes()).code;
        assert_eq!(code("NOPERM this user has no permissions"), Code::NoPerm);
        assert_eq!(code("ERR NOPERM LOADING"), Code::Err);
        assert_eq!(code("LOADING"), Code::Loading);
        assert_eq!(
            code("DENIED Redis is running in protected mode"),
            Code::Denied
        );
        assert_eq!(code("NEW thing"), Code::Other("NEW".into()));
        assert_eq!(code(""), Code::Other(String::new()));
    }

    #[test]
    fn the_arguments_of_an_unknown_command_are_not_shown() {
        let error = ServerError::parse(
            b"ERR unknown command `AUTH`, with args beginning with: `hunter2`, ",
        );
        assert_eq!(error.to_string(), "ERR unknown command `AUTH`");
    }

    #[test]
    fn a_failure_says_what_to_do() {
        let failure = Failure::from(Error::Login {
            place: "localhost:6379".into(),
            user_alone: false,
            who: "the user backup".into(),
            reply: ServerError::parse(b"WRONGPASS invalid username-password pair"),
        });
        assert_eq!(failure.kind, Kind::Auth);
        assert_eq!(failure.causes, ["WRONGPASS invalid username-password pair"]);
        assert!(failure.hint.is_some());
    }
}
