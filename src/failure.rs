//! What a person or a script is told when something does not work.
//!
//! Every room has its own error type, precise and typed. At the edge each becomes a [`Failure`]:
//! what failed and on what (`message`), why (`causes`, outermost first), and what to do (`hint`).
//! Its [`Kind`] decides the exit code. No secret and no unmasked key name may enter any of its texts.

use std::fmt;

/// The class of a failure: a stable word for scripts, and an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The command line is wrong (exit 2).
    Usage,
    /// The configuration is wrong (exit 2).
    Config,
    /// The server cannot be reached, or the connection broke (exit 1).
    Unreachable,
    /// The server refused the credentials (exit 1).
    Auth,
    /// The server forbids a command to this user (exit 1).
    Forbidden,
    /// The server cannot do it now: loading, MISCONF, out of memory, master link down (exit 1).
    Unavailable,
    /// The server said or sent something that makes no sense (exit 1).
    Protocol,
    /// A storage or file operation failed (exit 1).
    Storage,
    /// It took longer than allowed (exit 1).
    Timeout,
    /// A backup is encrypted, and the key to it is not here or does not fit (exit 1).
    Key,
    /// Something else failed, or several things (exit 1).
    Failed,
    /// A backup is damaged (exit 3).
    Damaged,
    /// There is no such backup (exit 4).
    NotFound,
    /// Refused to protect data (exit 5).
    Refused,
    /// Another process holds the lock (exit 6).
    Busy,
    /// Stopped by SIGINT (exit 130).
    Interrupted,
    /// Stopped by SIGTERM (exit 143).
    Terminated,
}

impl Kind {
    /// The process exit code of this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Usage | Kind::Config => 2,
            Kind::Unreachable
            | Kind::Auth
            | Kind::Forbidden
            | Kind::Unavailable
            | Kind::Protocol
            | Kind::Storage
            | Kind::Timeout
            | Kind::Key
            | Kind::Failed => 1,
            Kind::Damaged => 3,
            Kind::NotFound => 4,
            Kind::Refused => 5,
            Kind::Busy => 6,
            Kind::Interrupted => 130,
            Kind::Terminated => 143,
        }
    }

    /// The word that stands in `error.kind` with `--json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Usage => "usage",
            Kind::Config => "config",
            Kind::Unreachable => "unreachable",
            Kind::Auth => "auth",
            Kind::Forbidden => "forbidden",
            Kind::Unavailable => "unavailable",
            Kind::Protocol => "protocol",
            Kind::Storage => "storage",
            Kind::Timeout => "timeout",
            Kind::Key => "key",
            Kind::Failed => "failed",
            Kind::Damaged => "damaged",
            Kind::NotFound => "not-found",
            Kind::Refused => "refused",
            Kind::Busy => "busy",
            Kind::Interrupted => "interrupted",
            Kind::Terminated => "terminated",
        }
    }
}

/// What is told: the failure of a command, ready to be rendered as text or JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The class, which decides the exit code.
    pub kind: Kind,
    /// What failed, on what: one sentence without a full stop, lower case.
    pub message: String,
    /// Why, outermost first.
    pub causes: Vec<String>,
    /// What to do next.
    pub hint: Option<String>,
    /// The last lines that a program of somebody else's printed. They are for the log and for whoever runs the command;
    /// they are neither recorded nor told elsewhere, for nobody knows what they hold.
    pub said: Vec<String>,
}

impl Failure {
    /// A failure with no causes and no hint yet.
    pub fn new(kind: Kind, message: impl Into<String>) -> Failure {
        Failure {
            kind,
            message: message.into(),
            causes: Vec::new(),
            hint: None,
            said: Vec::new(),
        }
    }

    /// That of work which was told to stop.
    pub fn interrupted() -> Failure {
        Failure::new(Kind::Interrupted, "stopped before it was done")
    }

    /// Adds a cause below those that are there.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Failure {
        self.causes.push(cause.into());
        self
    }

    /// Adds an error and its chain of sources as causes.
    #[must_use]
    pub fn caused_by(mut self, error: &(dyn std::error::Error + 'static)) -> Failure {
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            if self.causes.last() != Some(&text) {
                self.causes.push(text);
            }
            next = error.source();
        }
        self
    }

    /// Sets the hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// The causes, and below them what a program printed: for the log and for whoever runs the command.
    pub fn causes_and_said(&self) -> Vec<String> {
        let mut all = self.causes.clone();
        if !self.said.is_empty() {
            all.push(format!("it said:\n{}", self.said.join("\n")));
        }
        all
    }

    /// Puts a new message on top; the old one becomes the first cause. Kind and hint stay.
    #[must_use]
    pub fn context(mut self, message: impl Into<String>) -> Failure {
        let old = std::mem::replace(&mut self.message, message.into());
        self.causes.insert(0, old);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_keeps_what_was_said_as_the_first_cause() {
        let failure = Failure::new(Kind::Auth, "wrong password")
            .cause("WRONGPASS")
            .hint("set password_file")
            .context("cannot back up sessions");
        assert_eq!(failure.message, "cannot back up sessions");
        assert_eq!(failure.causes, ["wrong password", "WRONGPASS"]);
        assert_eq!(failure.kind.exit_code(), 1);
    }
}
