//! The programs that are run around a backup: no shell, facts in variables, a time limit, output in the log.
//!
//! Each gets a process group of its own, and at the limit, or when the run is stopped, the whole group ends: SIGTERM,
//! and SIGKILL soon after. The traps: a child that a hook leaves behind may hold its output open for ever, so the end of
//! a hook is the end of its first process; and a flood of output must not become a flood in the log.

mod listen;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use self::listen::Listener;
use crate::failure::{Failure, Kind};
use crate::units::HumanDuration;

/// How long a hook may take; the database's `timeout`, where that is shorter.
pub const LIMIT: Duration = Duration::from_secs(5 * 60);

/// How long the hooks after a backup may still take when the run is stopped: they put right what `before` has begun.
pub const LIMIT_STOPPED: Duration = Duration::from_secs(1);

/// How long a hook that was asked to end may take to do so.
const GRACE: Duration = Duration::from_millis(500);

/// How long the last lines of a hook that has ended may take to arrive.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The same for one that was stopped: somebody waits for the process to end.
const LAST_LINES_STOPPED: Duration = Duration::from_millis(200);

/// How long hooks take at most when a run is stopped: one before the backup ends, and those after it have their time.
pub const LONGEST_STOPPED: Duration =
    LIMIT_STOPPED.saturating_add(GRACE.saturating_add(LAST_LINES_STOPPED).saturating_mul(2));

/// The longest value of a variable, in bytes: one larger than 128 KiB would keep the program from being started.
const LONGEST_VALUE: usize = 8 << 10;

/// Variables of ours that are not for a hook: it must not speak to systemd in our name.
const NOT_INHERITED: [&str; 6] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "JOURNAL_STREAM",
];

/// Every fact there may be, without the `RDBKEEPER_` before it.
const FACTS: [&str; 16] = [
    "EVENT",
    "DATABASE",
    "HOST",
    "TASK",
    "BACKUP_ID",
    "KEYS",
    "BYTES",
    "PLAIN_BYTES",
    "METHOD",
    "STORAGES",
    "SHRUNK",
    "DURATION_SECONDS",
    "ERROR",
    "ERROR_KIND",
    "CAUSES",
    "STARTED_AT",
];

/// When a hook is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the backup.
    Before,
    /// After one that was made.
    After,
    /// After one that failed.
    Failure,
}

impl Moment {
    /// The word in the configuration and in `RDBKEEPER_EVENT`.
    pub fn as_str(self) -> &'static str {
        match self {
            Moment::Before => "before",
            Moment::After => "after",
            Moment::Failure => "failure",
        }
    }
}

/// What a hook is told, by the name of a variable without the `RDBKEEPER_` before it.
pub type Facts = BTreeMap<&'static str, String>;

/// A hook that is to be run.
#[derive(Debug)]
pub struct Hook<'a> {
    /// The program and its arguments.
    pub command: &'a [String],
    /// The database whose hook it is.
    pub database: &'a str,
    /// When it is run.
    pub moment: Moment,
    /// What it is told.
    pub facts: &'a Facts,
    /// How long it may take.
    pub limit: Duration,
}

/// Why a hook did not do its work. Arguments are not shown: they may hold a secret.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// It could not be started.
    #[error("the hook `{program}` cannot be started")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It ended by itself, and not with 0.
    #[error("the hook `{program}` {how}")]
    Failed {
        /// The program.
        program: String,
        /// The exit code or the signal.
        how: String,
        /// Its last lines of output.
        output: Vec<String>,
    },
    /// It did not end.
    #[error("the hook `{program}` had not ended after {} and was killed", HumanDuration(*limit))]
    Hung {
        /// The program.
        program: String,
        /// How long it might have taken.
        limit: Duration,
        /// Its last lines of output.
        output: Vec<String>,
    },
    /// The run was stopped meanwhile.
    #[error("the hook `{program}` was stopped before it was done")]
    Stopped {
        /// The program.
        program: String,
    },
}

impl From<HookError> for Failure {
    fn from(error: HookError) -> Failure {
        let kind = match &error {
            HookError::Start { .. } | HookError::Failed { .. } => Kind::Failed,
            HookError::Hung { .. } => Kind::Timeout,
            HookError::Stopped { .. } => Kind::Interrupted,
        };
        let failure = Failure::new(kind, error.to_string());
        match error {
            HookError::Start { source, .. } => failure.caused_by(&source).hint(
                "a hook is a program and its arguments, without a shell; the program is looked for in PATH",
            ),
            HookError::Failed { output, .. } | HookError::Hung { output, .. } => {
                let mut failure = match output.is_empty() {
                    true => failure.cause("it said nothing"),
                    false => failure,
                };
                failure.said = output;
                failure.hint("run it by hand, as the user that rdbkeeper runs as")
            }
            HookError::Stopped { .. } => failure,
        }
    }
}

/// Runs a hook to its end, its output going into the log.
///
/// # Errors
/// When it cannot be started, ends with anything but 0, does not end within its limit, or `cancel` is cancelled.
pub async fn run(hook: &Hook<'_>, cancel: &CancellationToken) -> Result<(), HookError> {
    let program = hook.command.first().cloned().unwrap_or_default();
    let deadline = Instant::now() + hook.limit;
    let begin = |source| HookError::Start {
        program: program.clone(),
        source,
    };
    let (mut running, pipe) = start(hook).map_err(begin)?;
    let listener = Listener::new(hook.database, &program);
    // It goes on listening for what a hook left behind, as long as the hook itself might have run.
    let listening = tokio::spawn(listener.clone().listen(pipe, deadline));
    let ended = tokio::select! {
        status = running.wait() => Ok(status.map_err(begin)?),
        () = sleep_until(deadline) => Err(false),
        () = cancel.cancelled() => Err(true),
    };
    if ended.is_err() {
        running.end().await;
    }
    let last_lines = match ended {
        Err(true) => LAST_LINES_STOPPED,
        _ => LAST_LINES,
    };
    let _ = timeout(last_lines, listening).await;
    let output = listener.last_lines();
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(HookError::Failed {
            program,
            how: how(status),
            output,
        }),
        Err(true) => Err(HookError::Stopped { program }),
        Err(false) => Err(HookError::Hung {
            program,
            limit: hook.limit,
            output,
        }),
    }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended without an exit code".to_owned(),
    }
}

fn start(hook: &Hook<'_>) -> io::Result<(Running, pipe::Receiver)> {
    let (program, arguments) = hook
        .command
        .split_first()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    // One pipe for both streams, so that the log has their lines in their order.
    let (reader, writer) = io::pipe()?;
    let mut command = std::process::Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0);
    for name in NOT_INHERITED {
        command.env_remove(name);
    }
    for name in FACTS {
        let variable = format!("RDBKEEPER_{name}");
        match hook.facts.get(name) {
            Some(value) => command.env(variable, fitting(value)),
            // A hook may have been started by a run that a hook started.
            None => command.env_remove(variable),
        };
    }
    let pipe = pipe::Receiver::from_owned_fd(reader.into())?;
    // The writing ends of this process close when the command is dropped.
    let child = Command::from(command).spawn()?;
    Ok((Running::new(child), pipe))
}

/// A text that can be the value of a variable.
fn fitting(value: &str) -> String {
    let mut value = value.replace('\0', "\u{fffd}");
    let mut end = LONGEST_VALUE.min(value.len());
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    value.truncate(end);
    value
}

/// A hook's first process, and the group that it leads. Dropping it kills the group.
struct Running {
    child: Child,
    // Until the leader is waited for nobody else can get the number of its group.
    group: Option<Pid>,
}

impl Running {
    fn new(child: Child) -> Running {
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        Running {
            group: pid.and_then(Pid::from_raw),
            child,
        }
    }

    /// Waits for the leader.
    async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        self.group = None;
        Ok(status)
    }

    /// Ends the whole group: asked first, killed soon after.
    async fn end(&mut self) {
        let Some(group) = self.group else { return };
        let _ = kill_process_group(group, Signal::TERM);
        let deadline = Instant::now() + GRACE;
        // Not waited for yet, so that its number stays its own until the last of the group is killed.
        while !has_ended(group) && Instant::now() < deadline {
            sleep(Duration::from_millis(20)).await;
        }
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.wait().await;
    }
}

fn has_ended(leader: Pid) -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(waitid(WaitId::Pid(leader), look), Ok(None))
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
