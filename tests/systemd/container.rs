//! A Debian system that boots with systemd as its first process, in namespaces of its own.
//!
//! `systemd-nspawn` lays a file system in memory over the root that `fetch.sh` brought, so nothing of a run stays, and
//! the network in it is a loopback alone. Commands are run in it through its namespaces: no machined, no bus of this
//! host. It ends with this value, by the process id of what was started here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::poll;

/// How long one command in it may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// Where a folder of this host is seen in it.
const SHARED: &str = "/shared";

/// A booted system.
pub struct Container {
    nspawn: Child,
    leader: i32,
    machine: String,
    log: PathBuf,
}

/// What a command in it gave.
pub struct Answer {
    /// Its exit code; `None`: it was killed.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// The root that is booted, or why there is none.
pub fn root() -> Result<PathBuf, String> {
    if !geteuid().is_root() {
        return Err("it needs root".to_owned());
    }
    for program in ["systemd-nspawn", "nsenter"] {
        if !in_path(program) {
            return Err(format!("there is no {program}"));
        }
    }
    let servers = std::env::var_os("RDBKEEPER_TEST_SERVERS").map(PathBuf::from);
    let cache = || {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
    };
    let folder = servers.or_else(|| Some(cache()?.join("rdbkeeper-test-servers")));
    let root = folder.unwrap_or_default().join("boot");
    if root.join("complete").exists() {
        Ok(root)
    } else {
        Err(format!(
            "{} is not there; tests/systemd/fetch.sh brings it",
            root.display()
        ))
    }
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

impl Container {
    /// Boots `root`, with the folder `shared` as `/shared`; the machine's log is kept in `log`. An error says why it
    /// cannot be booted on this machine.
    pub fn boot(root: &Path, shared: &Path, log: &Path) -> Result<Container, String> {
        let machine = format!("rdbkeeper-test-{}", std::process::id());
        let file = fs::File::create(log).unwrap();
        let mut nspawn = Command::new("systemd-nspawn")
            .arg("--quiet")
            .arg("--directory")
            .arg(root)
            .args(["--volatile=overlay", "--boot", "--private-network"])
            .args(["--register=no", "--keep-unit", "--console=pipe"])
            .args(["--resolv-conf=off", "--timezone=off"])
            .arg(format!("--machine={machine}"))
            .arg(format!("--bind={}:{SHARED}", shared.display()))
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .map_err(|error| format!("systemd-nspawn cannot be started: {error}"))?;
        let found = poll::until("the first process of the container", || {
            if let Some(status) = nspawn.try_wait().unwrap() {
                let said = fs::read_to_string(log).unwrap_or_default();
                let last = said.lines().last().unwrap_or_default().to_owned();
                return Some(Err(format!("systemd-nspawn ended with {status}: {last}")));
            }
            first_process_below(nspawn.id()).map(Ok)
        });
        let container = Container {
            nspawn,
            leader: found?,
            machine,
            log: log.to_owned(),
        };
        poll::until("the container is up", || {
            let answer = container.try_run(&["systemctl", "is-system-running"]);
            ["running", "degraded"]
                .contains(&answer.out.trim())
                .then_some(())
        });
        Ok(container)
    }

    /// Runs a command in it, as root, whatever comes of it.
    pub fn try_run(&self, command: &[&str]) -> Answer {
        let output = Command::new("timeout")
            .arg(PATIENCE.as_secs().to_string())
            .args(["nsenter", "--target", &self.leader.to_string()])
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"])
            .args(["--root", "--wd=/", "--"])
            .args(command)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .envs([("LANG", "C.UTF-8"), ("HOME", "/root"), ("TERM", "dumb")])
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Answer {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs a command in it that has to succeed, and gives what it wrote to standard output.
    pub fn run(&self, command: &[&str]) -> String {
        let answer = self.try_run(command);
        assert!(
            answer.code == Some(0),
            "{command:?} ended with {:?}\n{}{}\n{}",
            answer.code,
            answer.out,
            answer.err,
            self.journal()
        );
        answer.out
    }

    /// A line of shell in it that has to succeed.
    pub fn shell(&self, line: &str) -> String {
        self.run(&["sh", "-ec", line])
    }

    /// The last of what the journal in it says, for the message of a failure.
    pub fn journal(&self) -> String {
        let answer = self.try_run(&["journalctl", "--no-pager", "--lines=60", "--output=short"]);
        format!("--- the journal in it\n{}", answer.out)
    }
}

/// The process that is the first one of its namespace, below nspawn's.
fn first_process_below(nspawn: u32) -> Option<i32> {
    let mut pids: Vec<i32> = Vec::new();
    for entry in fs::read_dir("/proc").ok()? {
        let Some(pid) = entry
            .ok()?
            .file_name()
            .to_str()
            .and_then(|pid| pid.parse().ok())
        else {
            continue;
        };
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(|values| values.split_whitespace().collect::<Vec<_>>())
        };
        let child = field("PPid:").is_some_and(|parent| parent == [nspawn.to_string()]);
        let first = field("NSpid:").is_some_and(|ids| ids.len() > 1 && ids.last() == Some(&"1"));
        if child && first {
            pids.push(pid);
        }
    }
    pids.first().copied()
}

impl Drop for Container {
    fn drop(&mut self) {
        // nspawn passes this on as an orderly shutdown; what does not heed it in time goes with its parent.
        let pid = i32::try_from(self.nspawn.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = poll::Deadline::after(Duration::from_secs(30));
        while matches!(self.nspawn.try_wait(), Ok(None)) {
            if deadline.is_over() {
                let _ = self.nspawn.kill();
                let _ = self.nspawn.wait();
                break;
            }
            deadline.pause();
        }
        let _ = fs::remove_dir(Path::new("/run/systemd/nspawn/propagate").join(&self.machine));
        remove_control_groups();
        if std::thread::panicking() {
            let said = fs::read_to_string(&self.log).unwrap_or_default();
            eprintln!("--- systemd-nspawn said\n{said}");
        }
    }
}

/// nspawn divides the control group that it was started in, and leaves the empty halves. Only empty ones can be removed.
fn remove_control_groups() {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controller), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let mounts: &[&str] = match controller {
            "" => &["/sys/fs/cgroup", "/sys/fs/cgroup/unified"],
            "name=systemd" => &["/sys/fs/cgroup/systemd"],
            _ => continue,
        };
        for mount in mounts {
            let group = Path::new(mount).join(path.trim_start_matches('/'));
            for half in ["payload", "supervisor"] {
                remove_empty(&group.join(half));
            }
        }
    }
}

fn remove_empty(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}
