//! The real thing: the Debian package in a system that systemd has booted, beside Debian's own Redis.
//!
//! One story, told in order, for a system is booted and installed into once: what comes later stands on what came
//! before. It says a line and passes where it cannot be told: without root, systemd-nspawn, or the root that
//! `tests/systemd/fetch.sh` brings.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub
)]

mod container;
#[path = "../live/support/poll.rs"]
mod poll;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use container::Container;
use serde_json::Value;

const PASSWORD: &str = "correct-horse-battery";
const CONFIG: &str = "/etc/rdbkeeper/rdbkeeper.toml";
/// What the hook of the test writes.
const HOOKED: &str = "/var/lib/rdbkeeper/hooked";
const DROP_INS: &str = "/etc/systemd/system/rdbkeeper.service.d";

/// What the daemon of the test is to do: BGSAVE alone, so that the file has to be read, every two seconds.
const SESSIONS: &str = r#"
[daemon]
state_dir = "/var/lib/rdbkeeper/state"
spool_dir = "/var/lib/rdbkeeper/spool"
listen = "127.0.0.1:9187"

[storage.disk]
kind = "local"
path = "/var/lib/rdbkeeper/backups"

[defaults]
password_file = "redis-password"
shrink_guard = 0
keep = { last = 3 }

[[database]]
name = "sessions"
url = "redis://127.0.0.1:6379/0"
method = "bgsave"
schedule = "*/2 * * * * *"
sessions_schedule = "*/2 * * * * *"
hooks = { after = [["sh", "-c", "echo $RDBKEEPER_DATABASE > /var/lib/rdbkeeper/hooked"]] }

[[database.sessions]]
store = "opaque"
match = '^session:'
timeout = "1h"
"#;

/// What a reload adds.
const QUEUE: &str = r#"
[[database]]
name = "queue"
url = "redis://127.0.0.1:6379/1"
method = "replication"
schedule = "*/2 * * * * *"
"#;

/// A part of the story.
type Step = fn(&System);

/// Says a line past the test harness's capture.
fn announce(line: &str) {
    let _ = writeln!(std::io::stderr(), "systemd test: {line}");
}

#[test]
fn the_package_keeps_its_promises_in_a_booted_system() {
    let folder = tempfile::tempdir().unwrap();
    let shared = folder.path().join("shared");
    fs::create_dir(&shared).unwrap();
    let booted = container::root().and_then(|root| {
        make_package(&shared)?;
        Container::boot(&root, &shared, &folder.path().join("nspawn.log"))
    });
    let container = match booted {
        Ok(container) => container,
        Err(why) => return announce(&format!("SKIPPED, {why}")),
    };
    let system = System { container, shared };
    let steps: &[(&str, Step)] = &[
        ("Redis", System::wait_for_redis),
        ("install", System::installs_and_starts),
        ("user and modes", System::is_private_to_its_user),
        (
            "credential and group",
            System::reads_the_servers_file_with_its_group_only,
        ),
        ("all its work", System::does_all_its_work_within_its_walls),
        ("prune", System::removes_what_the_policy_does_not_keep),
        ("journal", System::logs_to_the_journal),
        ("reload", System::reloads_and_refuses_nonsense),
        ("kill -9", System::is_started_again_after_a_kill),
        ("watchdog", System::is_ended_by_the_watchdog_when_it_hangs),
        ("stop", System::stops_in_time),
        ("timers", System::timers_do_without_the_daemon),
        ("hardening", System::exposes_little),
        (
            "upgrade and purge",
            System::survives_an_upgrade_and_leaves_backups_behind,
        ),
    ];
    for (name, step) in steps {
        let began = Instant::now();
        step(&system);
        announce(&format!("{name}: done in {:.1?}", began.elapsed()));
    }
}

/// Makes the package of the program under test. An error says why it cannot be made on this machine.
fn make_package(shared: &Path) -> Result<(), String> {
    let program = Path::new(env!("CARGO_BIN_EXE_rdbkeeper"));
    let profile_folder = program.parent().unwrap();
    let profile = if profile_folder.ends_with("debug") {
        "dev"
    } else {
        "release"
    };
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cargo_deb = Command::new(source.join("packaging/deb.sh"))
        .arg(profile)
        .arg(shared.join("rdbkeeper.deb"))
        .env("CARGO_TARGET_DIR", profile_folder.parent().unwrap())
        .env("RDBKEEPER_NO_DOWNLOAD", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&cargo_deb.stderr);
    match cargo_deb.status.code() {
        Some(0) => Ok(()),
        Some(3) => Err(said.trim().to_owned()),
        _ => panic!("the package cannot be made: {said}"),
    }
}

struct System {
    container: Container,
    shared: PathBuf,
}

impl System {
    fn redis(&self, command: &[&str]) -> String {
        let mut line = vec!["redis-cli", "--no-auth-warning"];
        line.extend_from_slice(command);
        self.container.run(&line).trim().to_owned()
    }

    /// Puts a text into a file of the container.
    fn write(&self, path: &str, text: &str) {
        fs::write(self.shared.join("text"), text).unwrap();
        // With the owner and mode that the file has, if it is there.
        self.container.shell(&format!(
            "mkdir -p $(dirname {path}); cat /shared/text > {path}"
        ));
    }

    fn property(&self, name: &str) -> String {
        let unit = ["show", "rdbkeeper.service", "--value", "--property", name];
        let line: Vec<&str> = ["systemctl"].into_iter().chain(unit).collect();
        self.container.run(&line).trim().to_owned()
    }

    fn is_active(&self) -> bool {
        self.property("ActiveState") == "active" && self.property("SubState") == "running"
    }

    /// The IDs of the backups of a database, the newest last.
    fn backups(&self, database: &str) -> Vec<String> {
        let line = format!(
            "cd /var/lib/rdbkeeper/backups/{database} 2>/dev/null && ls -d */manifest.json 2>/dev/null || true"
        );
        let text = self.container.shell(&line);
        let ids = text
            .lines()
            .map(|line| line.trim_end_matches("/manifest.json").to_owned());
        ids.collect()
    }

    /// Waits until `database` has a backup that it does not have now.
    fn wait_for_another_backup(&self, database: &str) -> String {
        let before = self.backups(database);
        self.until(&format!("another backup of {database}"), || {
            self.backups(database)
                .into_iter()
                .rfind(|id| !before.contains(id))
        })
    }

    /// As [`poll::until`], and when it is in vain shows what the container's journal says.
    fn until<T>(&self, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
        let deadline = poll::Deadline::after(poll::PATIENCE);
        loop {
            if let Some(value) = condition() {
                return value;
            }
            assert!(
                !deadline.is_over(),
                "waited in vain: {what}\n{}",
                self.container.journal()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The entries of the daemon's unit in the journal.
    fn entries(&self) -> Vec<Value> {
        let text = self.container.run(&[
            "journalctl",
            "--unit=rdbkeeper.service",
            "--output=json",
            "--all",
            "--no-pager",
        ]);
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// What the daemon itself wrote at this priority or a graver one, since the journal had `since` entries.
    fn complaints(&self, since: usize) -> Vec<String> {
        let entries = self.entries();
        let graver = entries.iter().skip(since).filter(|entry| {
            let priority = text(entry, "PRIORITY").parse::<u8>().unwrap_or(9);
            text(entry, "SYSLOG_IDENTIFIER") == "rdbkeeper" && priority <= 4
        });
        graver.map(|entry| text(entry, "MESSAGE")).collect()
    }

    fn wait_for_redis(&self) {
        poll::until("Redis answers in the container", || {
            let answer = self.container.try_run(&["redis-cli", "ping"]);
            (answer.out.trim() == "PONG").then_some(())
        });
        // A transfer waits so long for other replicas that may want one.
        self.redis(&["config", "set", "repl-diskless-sync-delay", "0"]);
        for key in 0..100 {
            self.redis(&["set", &format!("session:{key}"), "x"]);
        }
        self.redis(&["-n", "1", "rpush", "celery", "a", "b"]);
    }

    fn installs_and_starts(&self) {
        self.container
            .run(&["dpkg", "--install", "/shared/rdbkeeper.deb"]);
        // It is enabled and started as it comes, with the configuration that it brings.
        self.until("the packaged daemon is active", || {
            self.is_active().then_some(())
        });
        assert_eq!(self.property("Type"), "notify");
        assert_eq!(self.property("UnitFileState"), "enabled");
        assert_eq!(self.property("NRestarts"), "0");
        assert!(!self.property("StatusText").is_empty());
        announce(&format!(
            "installed, ready: {}",
            self.property("StatusText")
        ));
        // A database without any backup is not protected: it does not wait for its time.
        self.wait_for_another_backup("default");
        self.container.run(&[
            "runuser",
            "-u",
            "rdbkeeper",
            "--",
            "rdbkeeper",
            "check",
            "--quiet",
        ]);
        for file in [
            "/usr/share/bash-completion/completions/rdbkeeper",
            "/usr/share/zsh/vendor-completions/_rdbkeeper",
            "/usr/share/fish/vendor_completions.d/rdbkeeper.fish",
            "/usr/share/man/man1/rdbkeeper.1.gz",
            "/usr/lib/sysusers.d/rdbkeeper.conf",
            "/usr/lib/tmpfiles.d/rdbkeeper.conf",
            "/usr/share/doc/rdbkeeper/daemon.md",
        ] {
            self.container.run(&["test", "-s", file]);
        }
    }

    fn is_private_to_its_user(&self) {
        let pid = self.property("MainPID");
        let user = self
            .container
            .run(&["stat", "--format=%U %G", &format!("/proc/{pid}")]);
        assert_eq!(user.trim(), "rdbkeeper rdbkeeper");
        for (path, owned) in [
            ("/var/lib/rdbkeeper", "700 rdbkeeper rdbkeeper"),
            ("/etc/rdbkeeper", "750 root rdbkeeper"),
            (CONFIG, "640 root rdbkeeper"),
        ] {
            let found = self.container.run(&["stat", "--format=%a %U %G", path]);
            assert_eq!(found.trim(), owned, "{path}");
        }
    }

    /// Nobody but the user can look at what is below its folder.
    fn keeps_its_files_to_itself(&self) {
        let loose = self
            .container
            .run(&["find", "/var/lib/rdbkeeper", "-perm", "/077"]);
        assert_eq!(loose, "", "others may look at these");
        let strange =
            self.container
                .run(&["find", "/var/lib/rdbkeeper", "!", "-user", "rdbkeeper"]);
        assert_eq!(strange, "", "these belong to others");
    }

    fn reads_the_servers_file_with_its_group_only(&self) {
        self.redis(&["config", "set", "requirepass", PASSWORD]);
        self.write(CONFIG, SESSIONS);
        self.container.shell(&format!(
            "umask 077; printf '%s\\n' {PASSWORD} > /etc/rdbkeeper/redis-password"
        ));
        self.write(
            &format!("{DROP_INS}/credential.conf"),
            "[Service]\nLoadCredential=redis-password:/etc/rdbkeeper/redis-password\nRestartSec=1s\n",
        );
        let since = self.entries().len();
        self.container.run(&["systemctl", "daemon-reload"]);
        self.container
            .run(&["systemctl", "restart", "rdbkeeper.service"]);
        // It has the password, or it would not get as far as the file; and the file is not for it.
        let complaint = self.until("a complaint about the file of BGSAVE", || {
            self.complaints(since)
                .into_iter()
                .find(|said| said.contains("/var/lib/redis"))
        });
        announce(&format!("without the group: {complaint}"));
        assert_eq!(self.backups("sessions"), Vec::<String>::new());

        let example = "/usr/share/doc/rdbkeeper/rdbkeeper.service.d/redis-group.conf.example";
        self.container.run(&[
            "install",
            "-D",
            "-m",
            "644",
            example,
            &format!("{DROP_INS}/redis-group.conf"),
        ]);
        self.container.run(&["systemctl", "daemon-reload"]);
        self.container
            .run(&["systemctl", "restart", "rdbkeeper.service"]);
        let id = self.wait_for_another_backup("sessions");
        let manifest = self.container.run(&[
            "cat",
            &format!("/var/lib/rdbkeeper/backups/sessions/{id}/manifest.json"),
        ]);
        let manifest: Value = serde_json::from_str(&manifest).unwrap();
        assert_eq!(manifest["method"], "bgsave");
        assert_eq!(manifest["rdb"]["keys"], 100);
        announce(&format!("with the group: {id} by bgsave"));
        self.keeps_its_files_to_itself();
    }

    /// Sessions, hooks and HTTP, for all the hardening.
    fn does_all_its_work_within_its_walls(&self) {
        self.until("the sessions have a TTL", || {
            let ttl = self.redis(&["-a", PASSWORD, "ttl", "session:7"]);
            ttl.parse::<i64>().is_ok_and(|ttl| ttl > 0).then_some(())
        });
        self.until("the hook has run", || {
            let told = self.container.try_run(&["cat", HOOKED]);
            (told.out.trim() == "sessions").then_some(())
        });
        self.until("it is healthy", || {
            let answer = self.container.shell(
                "bash -c 'exec 3<>/dev/tcp/127.0.0.1/9187; printf \"GET /healthz HTTP/1.0\\r\\n\\r\\n\" >&3; cat <&3'",
            );
            answer.lines().next()?.contains(" 200 ").then_some(())
        });
        self.container.run(&["rdbkeeper", "status", "--quiet"]);
    }

    fn removes_what_the_policy_does_not_keep(&self) {
        let oldest = self.backups("sessions").remove(0);
        self.until("old backups are removed", || {
            let kept = self.backups("sessions");
            // Three, and the one of a moment ago whose prune is still to come.
            (!kept.contains(&oldest) && kept.len() <= 4).then_some(())
        });
    }

    fn logs_to_the_journal(&self) {
        let entries = self.entries();
        let own: Vec<&Value> = entries
            .iter()
            .filter(|entry| text(entry, "SYSLOG_IDENTIFIER") == "rdbkeeper")
            .filter(|entry| text(entry, "_TRANSPORT") == "journal")
            .collect();
        let of_the_database = |priorities: &[&str]| {
            own.iter().any(|entry| {
                text(entry, "RDBKEEPER_DATABASE") == "sessions"
                    && priorities.contains(&text(entry, "PRIORITY").as_str())
                    && text(entry, "MESSAGE").contains("sessions")
            })
        };
        assert!(of_the_database(&["6"]), "no information: {entries:#?}");
        assert!(of_the_database(&["3", "4"]), "no complaint: {entries:#?}");
        let found = self.container.run(&[
            "journalctl",
            "--no-pager",
            "--identifier=rdbkeeper",
            "RDBKEEPER_DATABASE=sessions",
        ]);
        assert!(found.lines().count() > 1, "{found}");
        let all = self
            .container
            .run(&["journalctl", "--no-pager", "--all", "--output=verbose"]);
        assert!(!all.contains(PASSWORD), "the journal knows the password");
    }

    fn reloads_and_refuses_nonsense(&self) {
        let pid = self.property("MainPID");
        self.write(CONFIG, &format!("{SESSIONS}{QUEUE}"));
        self.container
            .run(&["systemctl", "reload", "rdbkeeper.service"]);
        self.wait_for_another_backup("queue");

        let since = self.entries().len();
        self.write(CONFIG, "[[database]]\nname = \"sessions\"\nschedul = 1\n");
        self.container
            .try_run(&["systemctl", "reload", "rdbkeeper.service"]);
        let refusal = self.until("a refusal of the broken configuration", || {
            self.complaints(since)
                .into_iter()
                .find(|said| said.contains("schedul"))
        });
        announce(&format!(
            "a broken configuration: {}",
            refusal.lines().next().unwrap_or_default()
        ));
        self.until("it runs on", || self.is_active().then_some(()));
        self.wait_for_another_backup("sessions");
        self.wait_for_another_backup("queue");
        assert_eq!(self.property("MainPID"), pid, "it was restarted");
        self.write(CONFIG, &format!("{SESSIONS}{QUEUE}"));
        self.container
            .run(&["systemctl", "reload", "rdbkeeper.service"]);
        self.until("it runs on", || self.is_active().then_some(()));
    }

    /// Waits until systemd has started it again, and it works.
    fn comes_back(&self, restarts: u32, pid: &str) {
        self.until("systemd starts it again", || {
            let again = self.property("NRestarts").parse::<u32>().unwrap() > restarts;
            (again && self.is_active() && self.property("MainPID") != pid).then_some(())
        });
        self.wait_for_another_backup("sessions");
    }

    fn restarts(&self) -> u32 {
        self.property("NRestarts").parse().unwrap()
    }

    fn is_started_again_after_a_kill(&self) {
        let (restarts, pid) = (self.restarts(), self.property("MainPID"));
        self.container.shell(&format!("kill -KILL {pid}"));
        self.comes_back(restarts, &pid);
        announce("killed, started again, at work");
    }

    fn is_ended_by_the_watchdog_when_it_hangs(&self) {
        self.write(
            &format!("{DROP_INS}/watchdog.conf"),
            "[Service]\nWatchdogSec=3s\n",
        );
        self.container.run(&["systemctl", "daemon-reload"]);
        self.container
            .run(&["systemctl", "restart", "rdbkeeper.service"]);
        // It is fed: it lives for longer than the watchdog would let it.
        let pid = self.property("MainPID");
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(7) {
            self.wait_for_another_backup("sessions");
        }
        assert_eq!(self.property("MainPID"), pid, "the watchdog is not fed");
        let restarts = self.restarts();
        self.container.shell(&format!("kill -STOP {pid}"));
        self.comes_back(restarts, &pid);
        let said = self.container.run(&[
            "journalctl",
            "--no-pager",
            "--unit=rdbkeeper.service",
            "--grep=[Ww]atchdog",
        ]);
        announce(said.lines().last().unwrap_or_default());
        self.container
            .run(&["rm", &format!("{DROP_INS}/watchdog.conf")]);
        self.container.run(&["systemctl", "daemon-reload"]);
        self.container
            .run(&["systemctl", "restart", "rdbkeeper.service"]);
    }

    fn stops_in_time(&self) {
        self.wait_for_another_backup("sessions");
        let began = Instant::now();
        self.container
            .run(&["systemctl", "stop", "rdbkeeper.service"]);
        let took = began.elapsed();
        announce(&format!("stopped in {took:.1?}"));
        assert!(took < Duration::from_secs(10), "it took {took:?}");
        assert_eq!(self.property("ActiveState"), "inactive");
        // Of itself, with 0: systemd did not have to kill it.
        assert_eq!(self.property("Result"), "success");
        assert_eq!(self.property("ExecMainStatus"), "0");
        self.keeps_its_files_to_itself();
    }

    fn timers_do_without_the_daemon(&self) {
        for unit in ["rdbkeeper-backup@", "rdbkeeper-sessions@"] {
            for drop_in in ["credential.conf", "redis-group.conf"] {
                let target = format!("/etc/systemd/system/{unit}.service.d/{drop_in}");
                let source = format!("{DROP_INS}/{drop_in}");
                self.container
                    .run(&["install", "-D", "-m", "644", &source, &target]);
            }
        }
        self.container.run(&["systemctl", "daemon-reload"]);
        let before = self.backups("sessions");
        self.container
            .run(&["systemctl", "start", "rdbkeeper-backup@sessions.service"]);
        assert_ne!(self.backups("sessions"), before);
        self.redis(&["-a", PASSWORD, "persist", "session:7"]);
        self.container
            .run(&["systemctl", "start", "rdbkeeper-sessions@sessions.service"]);
        let ttl = self.redis(&["-a", PASSWORD, "ttl", "session:7"]);
        assert!(ttl.parse::<i64>().unwrap() > 0);
    }

    fn exposes_little(&self) {
        for unit in [
            "rdbkeeper-backup@sessions.service",
            "rdbkeeper-sessions@sessions.service",
            "rdbkeeper.service",
        ] {
            let answer =
                self.container
                    .try_run(&["systemd-analyze", "security", "--no-pager", unit]);
            let verdict = answer.out.lines().last().unwrap_or_default().to_owned();
            if unit == "rdbkeeper.service" {
                announce(&format!("systemd-analyze security {unit}\n{}", answer.out));
            }
            let level: f64 = verdict
                .split_whitespace()
                .find_map(|word| word.parse().ok())
                .unwrap_or_else(|| panic!("{} {}", answer.out, answer.err));
            assert!(level <= 2.0, "{verdict}");
        }
    }

    fn survives_an_upgrade_and_leaves_backups_behind(&self) {
        // Stopped by hand, then upgraded: it runs again, with the configuration of its administrator.
        self.container
            .run(&["dpkg", "--install", "/shared/rdbkeeper.deb"]);
        self.until("the daemon is active after the upgrade", || {
            self.is_active().then_some(())
        });
        self.wait_for_another_backup("sessions");
        let pid = self.property("MainPID");
        self.container
            .run(&["dpkg", "--install", "/shared/rdbkeeper.deb"]);
        self.until("another process after the upgrade", || {
            (self.is_active() && self.property("MainPID") != pid).then_some(())
        });
        let config = self.container.run(&["cat", CONFIG]);
        assert_eq!(config, format!("{SESSIONS}{QUEUE}"));

        self.container.run(&["dpkg", "--remove", "rdbkeeper"]);
        assert_ne!(self.property("ActiveState"), "active");
        self.container.run(&["test", "-e", CONFIG]);
        self.container.run(&["dpkg", "--purge", "rdbkeeper"]);
        assert!(!self.backups("sessions").is_empty());
        for gone in [CONFIG, "/usr/bin/rdbkeeper", "/var/lib/rdbkeeper/state"] {
            self.container.run(&["test", "!", "-e", gone]);
        }
    }
}

/// A field of an entry as text; fields may be bytes, or there several times.
fn text(entry: &Value, field: &str) -> String {
    match &entry[field] {
        Value::String(text) => text.clone(),
        Value::Array(bytes) => {
            let bytes = bytes
                .iter()
                .filter_map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok()));
            String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
        }
        _ => String::new(),
    }
}
