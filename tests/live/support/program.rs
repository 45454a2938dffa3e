//! The binary itself, with a configuration, a state folder and an archive of its own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::poll::until;

/// A place to run `rdbkeeper` from.
pub struct Program {
    folder: tempfile::TempDir,
    environment: Vec<(String, String)>,
}

/// What a run left behind.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Panics unless it exited with `code`.
    #[track_caller]
    pub fn expect(self, code: i32) -> Ran {
        assert_eq!(
            self.code,
            Some(code),
            "stdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        self
    }

    /// Standard output as the one JSON document that it must be.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| {
            panic!(
                "not JSON ({error}):\n{}\nstderr:\n{}",
                self.stdout, self.stderr
            )
        })
    }
}

impl Program {
    /// A place whose configuration keeps everything in its own folder, followed by `tables` (databases and the like).
    /// A storage `disk` and the state and spool folders are there already.
    pub fn new(tables: &str) -> Program {
        let program = Program {
            folder: tempfile::Builder::new()
                .prefix("rdbkeeper-run-")
                .tempdir()
                .unwrap(),
            environment: Vec::new(),
        };
        program.configure(tables);
        program
    }

    /// Replaces what follows the folders in the configuration.
    pub fn configure(&self, tables: &str) {
        let text = format!(
            "[daemon]\nstate_dir = {:?}\nspool_dir = {:?}\n\n[storage.disk]\nkind = \"local\"\npath = {:?}\n\n{tables}\n",
            self.folder.path().join("state"),
            self.folder.path().join("spool"),
            self.archive(),
        );
        self.write_configuration(&text);
    }

    /// Writes the whole configuration file.
    pub fn write_configuration(&self, text: &str) {
        std::fs::write(self.configuration(), text).unwrap();
    }

    /// The configuration file.
    pub fn configuration(&self) -> PathBuf {
        self.folder.path().join("rdbkeeper.toml")
    }

    /// The root of the storage `disk`.
    pub fn archive(&self) -> PathBuf {
        self.folder.path().join("archive")
    }

    /// The folder that all of it lies in, and that runs start in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Sets an environment variable for the runs to come.
    pub fn env(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// The command line, ready to be changed or started.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rdbkeeper"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("RDBKEEPER_CONFIG", self.configuration())
            .env("XDG_STATE_HOME", self.folder.path().join("xdg"))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        command
    }

    /// Runs it to its end.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        finish(self.command(arguments).spawn().unwrap())
    }

    /// Runs it with `--json` in front.
    pub fn json<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        let mut all = vec![std::ffi::OsString::from("--json")];
        all.extend(
            arguments
                .into_iter()
                .map(|argument| argument.as_ref().to_owned()),
        );
        self.run(all)
    }

    /// Starts it and lets it run; [`finish`] waits for its end.
    pub fn spawn<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Child {
        self.command(arguments).spawn().unwrap()
    }
}

/// Waits for a run's end.
pub fn finish(child: Child) -> Ran {
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Sends a signal to a run.
pub fn signal(child: &Child, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).unwrap();
}

/// Starts a run that stands still (`RDBKEEPER_STOP_AT`) or stops itself (`RDBKEEPER_PAUSE_AT`) at a stage, and waits
/// until it does.
fn stands_at(program: &Program, how: &str, stage: &str, arguments: &[&str]) -> Child {
    let stopped = program.folder().join(format!("stopped-{stage}"));
    let _ = std::fs::remove_file(&stopped);
    let mut child = program
        .command(arguments)
        .env(how, stage)
        .env("RDBKEEPER_STOPPED", &stopped)
        .spawn()
        .unwrap();
    until(&format!("stage {stage}"), || {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "it ended before {stage}: {ended:?}");
        stopped.exists().then_some(())
    });
    if how == "RDBKEEPER_PAUSE_AT" {
        until("a process that stands", || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
            let state = stat.rsplit_once(") ").unwrap().1;
            state.starts_with('T').then_some(())
        });
    }
    child
}

/// Starts a run that stops itself at a stage, and waits until it does: SIGCONT lets it go on.
pub fn paused_at(program: &Program, stage: &str, arguments: &[&str]) -> Child {
    stands_at(program, "RDBKEEPER_PAUSE_AT", stage, arguments)
}

/// Starts a run and kills it at a stage.
pub fn killed_at(program: &Program, stage: &str, arguments: &[&str]) {
    let child = stands_at(program, "RDBKEEPER_STOP_AT", stage, arguments);
    signal(&child, rustix::process::Signal::KILL);
    finish(child);
}

/// Every regular file below a folder, with its path relative to it.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(next) = todo.pop() {
        let Ok(entries) = std::fs::read_dir(&next) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else {
                found.push(path.strip_prefix(folder).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}
