//! The daemon as a process: R2, R16, and what bad days do to it.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::data::sessions;
use crate::support::poll::{PATIENCE, until};
use crate::support::program::{Program, files_below, signal};
use crate::support::servers::{Server, usual};

/// Due in more than a month, but for a catch-up.
const SELDOM: &str = "0 0 1 1 *";
/// Due every two seconds.
const OFTEN: &str = "*/2 * * * * *";

/// It tells systemd of every second round.
const FED: &[(&str, &str)] = &[("WATCHDOG_USEC", "4000000")];

/// A daemon that runs. Dropping it kills it.
struct Daemon {
    child: Child,
    log: PathBuf,
    notices: UnixDatagram,
    heard: Vec<String>,
}

impl Daemon {
    fn start(program: &Program) -> Daemon {
        Daemon::with(program, &[])
    }

    fn with(program: &Program, environment: &[(&str, &str)]) -> Daemon {
        let lives = (0..).map(|life| program.folder().join(format!("daemon-{life}.log")));
        let log = lives.into_iter().find(|log| !log.exists()).unwrap();
        let socket = log.with_extension("sock");
        let notices = UnixDatagram::bind(&socket).unwrap();
        notices.set_nonblocking(true).unwrap();
        let mut command = program.command(["run"]);
        command
            .env("NOTIFY_SOCKET", &socket)
            .stdout(File::create(log.with_extension("out")).unwrap())
            .stderr(File::create(&log).unwrap());
        for (name, value) in environment {
            command.env(name, value);
        }
        Daemon {
            child: command.spawn().unwrap(),
            log,
            notices,
            heard: Vec::new(),
        }
    }

    /// One that has told that it is ready.
    fn ready(program: &Program) -> Daemon {
        let mut daemon = Daemon::start(program);
        daemon.hears("READY=1");
        daemon
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits for a line of the log.
    fn says(&mut self, text: &str) {
        self.until(&format!("the log says {text:?}"), |daemon| {
            daemon.log().contains(text)
        });
    }

    /// Waits for a message to systemd.
    fn hears(&mut self, text: &str) {
        self.until(&format!("systemd is told {text:?}"), |daemon| {
            daemon.heard.iter().any(|message| message.contains(text))
        });
    }

    /// Waits until nothing is left to be made up for of a database's backup, and the loop has gone round since. The
    /// daemon must be [`FED`].
    fn settles(&mut self, program: &Program, database: &str) {
        let state = program.folder().join("state/daemon.json");
        self.until("the backup is served", |_| {
            let text = std::fs::read_to_string(&state).unwrap_or_default();
            let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            let job = &json["jobs"][database]["backup"];
            job["served"].is_string() && job["open"].is_null()
        });
        let rounds = |daemon: &Daemon| {
            let heard = daemon.heard.iter();
            heard
                .filter(|message| message.contains("WATCHDOG=1"))
                .count()
        };
        let before = rounds(self);
        self.until("it went round twice", |daemon| rounds(daemon) >= before + 2);
    }

    fn until(&mut self, what: &str, mut condition: impl FnMut(&mut Daemon) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut buffer = [0; 4096];
            while let Ok(length) = self.notices.recv(&mut buffer) {
                let message = String::from_utf8(buffer[..length].to_vec()).unwrap();
                self.heard.push(message);
            }
            if condition(self) {
                return;
            }
            let told = || format!("{what}\n{}\n{:?}", self.log(), self.heard);
            assert!(Instant::now() < deadline, "in vain: {}", told());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn kill(mut self) {
        signal(&self.child, Signal::KILL);
        self.child.wait().unwrap();
    }

    /// SIGTERM; gives the log. It must be over, well, within ten seconds.
    fn stop(mut self) -> String {
        let asked = Instant::now();
        signal(&self.child, Signal::TERM);
        let status = self.child.wait().unwrap();
        let took = asked.elapsed();
        assert_eq!(status.code(), Some(0), "{}", self.log());
        assert!(took < Duration::from_secs(10), "{took:?}\n{}", self.log());
        self.log()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn database(name: &str, url: &str, method: &str, schedule: &str) -> String {
    format!(
        "[[database]]\nname = \"{name}\"\nurl = \"{url}\"\nmethod = \"{method}\"\nschedule = \"{schedule}\"\n"
    )
}

/// How many backups there are of a database.
fn count(program: &Program, name: &str) -> usize {
    let list = program.json(["backup", "list", name]).expect(0).json();
    list.as_array().unwrap().len()
}

fn wait_for_backups(program: &Program, name: &str, least: usize) {
    until(&format!("{least} backups of {name}"), || {
        (count(program, name) >= least).then_some(())
    });
}

#[test]
fn backups_are_made_when_they_are_due_and_databases_of_one_server_share_a_dump() {
    let server = Server::start(usual());
    server.client().run_all(sessions(500));
    let tables = ["one", "two"].map(|name| database(name, &server.url(), "bgsave", OFTEN));
    let program = Program::new(&tables.concat());
    let daemon = Daemon::ready(&program);
    wait_for_backups(&program, "one", 2);
    let log = daemon.stop();
    let backups = count(&program, "one");
    assert_eq!(count(&program, "two"), backups, "{log}");
    let forks = server.log().matches("Background saving started").count();
    assert_eq!(forks, backups, "{log}\n{}", server.log());
    program.run(["backup", "verify", "--all"]).expect(0);
}

#[test]
fn a_daemon_that_is_stopped_in_mid_backup_leaves_nothing_half_made_and_makes_it_up() {
    let server = Server::start(usual());
    server.client().run_all(sessions(5000));
    let table = database("web", &server.url(), "scan", SELDOM);
    let program = Program::new(&format!("{table}max_keys_per_second = 100\n"));
    let mut daemon = Daemon::ready(&program);
    daemon.until("a backup at work", |_| {
        let files = files_below(&program.archive());
        files
            .iter()
            .any(|file| file.to_string_lossy().ends_with(".tmp"))
    });
    daemon.hears("STATUS=backing up web");
    let log = daemon.stop();
    assert!(log.contains("stopping; 1 still at work"), "{log}");
    assert_eq!(files_below(&program.archive()).len(), 0, "debris was left");

    program.configure(&table);
    let daemon = Daemon::ready(&program);
    wait_for_backups(&program, "web", 1);
    daemon.stop();
    assert_eq!(count(&program, "web"), 1);
}

#[test]
fn a_killed_daemon_makes_its_run_up_once_and_never_twice() {
    let server = Server::start(usual());
    server.client().run_all(sessions(500));
    for (stage, left) in [
        ("daemon-run", 0),
        ("before-manifest", 0),
        ("after-manifest", 1),
    ] {
        let program = Program::new(&database("web", &server.url(), "bgsave", SELDOM));
        let stopped = program.folder().join("stopped");
        let mut daemon = Daemon::with(
            &program,
            &[
                ("RDBKEEPER_STOP_AT", stage),
                ("RDBKEEPER_STOPPED", stopped.to_str().unwrap()),
            ],
        );
        daemon.until(stage, |_| stopped.exists());
        daemon.kill();
        assert_eq!(count(&program, "web"), left, "killed at {stage}");

        let mut daemon = Daemon::with(&program, FED);
        daemon.settles(&program, "web");
        assert_eq!(
            count(&program, "web"),
            1,
            "killed at {stage}: {}",
            daemon.log()
        );
        daemon.kill();
        // Its state is lost, too: the store knows.
        std::fs::remove_file(program.folder().join("state/daemon.json")).unwrap();
        let mut daemon = Daemon::with(&program, FED);
        daemon.settles(&program, "web");
        let log = daemon.stop();
        assert!(!log.contains("backup begins"), "killed at {stage}: {log}");
        assert_eq!(count(&program, "web"), 1);
    }
}

#[test]
fn systemd_is_told_and_a_wrong_configuration_is_refused() {
    let server = Server::start(usual());
    let table = database("web", &server.url(), "bgsave", SELDOM);
    let program = Program::new(&table);
    let mut daemon = Daemon::with(&program, FED);
    daemon.hears("READY=1");
    daemon.hears("WATCHDOG=1");
    daemon.hears("STATUS=idle; next: web backup at");
    let first = daemon
        .heard
        .iter()
        .position(|message| message.contains("READY=1"));
    assert!(
        !daemon.heard[..first.unwrap()]
            .iter()
            .any(|message| message.contains("WATCHDOG"))
    );

    let ready = |daemon: &Daemon| {
        let heard = daemon.heard.iter();
        heard.filter(|message| message.contains("READY=1")).count()
    };
    program.configure(&format!(
        "{table}schedul = \"x\"\n[[database]]\nname = \"other\"\n"
    ));
    signal(&daemon.child, Signal::HUP);
    daemon.until("ready again", |daemon| ready(daemon) == 2);
    let reloading = daemon
        .heard
        .iter()
        .find(|message| message.starts_with("RELOADING=1"));
    let usec = reloading
        .unwrap()
        .lines()
        .find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    assert!(usec.unwrap().parse::<u64>().unwrap() > 0);
    daemon.hears("STATUS=the new configuration is refused");
    let log = daemon.log();
    assert!(
        log.contains("unknown key `schedul`") && log.contains("has no `url`"),
        "all mistakes: {log}"
    );

    let other = database("other", &server.url(), "bgsave", SELDOM);
    program.configure(&format!("{table}{other}"));
    signal(&daemon.child, Signal::HUP);
    daemon.until("ready again", |daemon| ready(daemon) == 3);
    daemon.says("the configuration was read anew");
    wait_for_backups(&program, "other", 1);
    daemon.until("the trouble is over", |daemon| {
        let status = daemon
            .heard
            .iter()
            .rev()
            .find(|message| message.contains("STATUS="));
        status.unwrap().starts_with("STATUS=idle")
    });
    assert_eq!(count(&program, "web"), 1, "{}", daemon.log());
    let fed = daemon.heard.len();
    daemon.until("it is fed again", |daemon| {
        daemon.heard[fed..]
            .iter()
            .any(|message| message.contains("WATCHDOG=1"))
    });
    signal(&daemon.child, Signal::TERM);
    daemon.hears("STOPPING=1");
    daemon.stop();
}

#[test]
fn a_second_daemon_is_refused() {
    let program = Program::new(&database("web", "redis://127.0.0.1:1", "scan", SELDOM));
    let daemon = Daemon::ready(&program);
    let second = program.run(["run"]).expect(6);
    assert!(
        second.stderr.contains("another daemon"),
        "{}",
        second.stderr
    );
    daemon.stop();
}

#[test]
fn a_state_folder_that_cannot_be_made_is_told_at_start() {
    let program = Program::new(&database("web", "redis://127.0.0.1:1", "scan", SELDOM));
    std::fs::write(program.folder().join("state"), b"a file").unwrap();
    let ran = program.run(["run"]).expect(1);
    assert!(
        ran.stderr.contains("cannot write to the state folder"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_server_that_comes_back_is_backed_up() {
    let mut server = Server::start(usual());
    let program = Program::new(&database("web", &server.url(), "bgsave", OFTEN));
    server.kill();
    let mut daemon = Daemon::ready(&program);
    daemon.says("cannot back up web");
    daemon.says("it fails as before");
    server.restart();
    wait_for_backups(&program, "web", 1);
    let log = daemon.stop();
    assert_eq!(log.matches("ERROR").count(), 1, "told once: {log}");
}

#[test]
fn a_backup_by_hand_beside_the_daemon_finds_it_busy_and_both_are_fine() {
    let server = Server::start(usual());
    server.client().run_all(sessions(500));
    let program = Program::new(&database("web", &server.url(), "scan", SELDOM));
    // It stands still in the middle of its backup, for as long as it takes to ask for another.
    let stopped = program.folder().join("stopped");
    let mut daemon = Daemon::with(
        &program,
        &[
            ("RDBKEEPER_PAUSE_AT", "before-manifest"),
            ("RDBKEEPER_STOPPED", stopped.to_str().unwrap()),
        ],
    );
    daemon.until("a backup at work", |_| stopped.exists());
    program.run(["backup", "now"]).expect(6);
    daemon.until("it goes on", |daemon| {
        signal(&daemon.child, Signal::CONT);
        // Listed is not yet over: what is done around it is done under the same lock.
        daemon.log().contains("backed up")
    });
    program.run(["backup", "now"]).expect(0);
    daemon.stop();
    assert_eq!(count(&program, "web"), 2);
}

#[test]
fn a_log_that_nobody_reads_does_not_keep_the_daemon_from_ending() {
    let program = Program::new(&database("web", "redis://127.0.0.1:1", "scan", SELDOM));
    let (_reader, mut full) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&full, true).unwrap();
    while full.write(&[b'.'; 512]).is_ok() {}
    while full.write(b".").is_ok() {}
    rustix::io::ioctl_fionbio(&full, false).unwrap();
    let mut command = program.command(["run"]);
    let mut daemon = Daemon {
        child: command.stdout(Stdio::null()).stderr(full).spawn().unwrap(),
        log: program.folder().join("none"),
        notices: UnixDatagram::unbound().unwrap(),
        heard: Vec::new(),
    };
    // Whoever writes to the log now waits for ever. It must get as far as to watch for signals.
    let status = format!("/proc/{}/status", daemon.child.id());
    until("it watches for signals", || {
        let status = std::fs::read_to_string(&status).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = u64::from_str_radix(line.unwrap().trim(), 16).unwrap();
        (caught & 1 << (Signal::TERM.as_raw() - 1) != 0).then_some(())
    });
    signal(&daemon.child, Signal::TERM);
    let ended = until("it ends", || daemon.child.try_wait().unwrap());
    assert_eq!(ended.code(), Some(0));
}

#[test]
fn a_server_that_hangs_delays_no_other_and_does_not_keep_the_daemon_from_ending() {
    let (stuck, fine) = (Server::start(usual()), Server::start(usual()));
    let tables = [
        database("stuck", &stuck.url(), "bgsave", OFTEN),
        database("fine", &fine.url(), "bgsave", OFTEN),
    ];
    let program = Program::new(&tables.concat());
    stuck.signal(Signal::STOP);
    let mut daemon = Daemon::ready(&program);
    wait_for_backups(&program, "fine", 2);
    assert_eq!(count(&program, "stuck"), 0);
    daemon.hears("STATUS=backing up stuck");
    daemon.stop();
    stuck.signal(Signal::CONT);
}

#[test]
fn nothing_scheduled_is_a_warning_and_a_reload_helps() {
    let server = Server::start(usual());
    let bare = format!("[[database]]\nname = \"web\"\nurl = \"{}\"\n", server.url());
    let program = Program::new(&bare);
    let mut daemon = Daemon::ready(&program);
    daemon.says("nothing is scheduled");
    daemon.hears("STATUS=idle; nothing is scheduled");
    program.configure(&database("web", &server.url(), "bgsave", SELDOM));
    signal(&daemon.child, Signal::HUP);
    wait_for_backups(&program, "web", 1);
    daemon.stop();
}
