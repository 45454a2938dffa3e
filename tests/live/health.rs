//! Health: what has never run, is late, failed, shrunk or damaged is said, by `status` and by the daemon alike.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Child;

use rustix::process::Signal;
use serde_json::Value;

use crate::cmd;
use crate::support::poll::{PATIENCE, until};
use crate::support::program::{Program, Ran, files_below, finish, signal};
use crate::support::servers::{NOBODY, Options, Server, usual};

fn database(port: u16, more: &str) -> String {
    format!("[[database]]\nname = \"web\"\nurl = \"redis://127.0.0.1:{port}\"\n{more}\n")
}

fn filled(keys: usize) -> Server {
    let server = Server::start(usual());
    fill(&server, keys);
    server
}

fn fill(server: &Server, keys: usize) {
    let mut client = server.client();
    client.run(cmd!["FLUSHALL"]);
    for number in 0..keys {
        client.run(cmd!["SET", format!("k{number}"), "1"]);
    }
}

fn words(document: &Value) -> Vec<&str> {
    let reasons = document["reasons"].as_array().unwrap();
    reasons
        .iter()
        .map(|reason| reason["reason"].as_str().unwrap())
        .collect()
}

/// `status` as text and as JSON, which agree.
#[track_caller]
fn status(program: &Program, code: i32) -> (Ran, Value) {
    let json = program.json(["status"]).expect(code).json();
    assert_eq!(json["healthy"], code == 0);
    (program.run(["status"]).expect(code), json)
}

/// Far enough apart that none is due while a test runs, unless it is the first of the month.
const MONTHLY: &str = "schedule = \"0 0 1 * *\"";

#[test]
fn what_has_never_run_is_unhealthy_and_a_good_backup_is_healthy() {
    let server = filled(100);
    let program = Program::new(&database(server.port(), MONTHLY));
    let (text, json) = status(&program, 1);
    assert_eq!(words(&json), ["never-backed-up"]);
    assert!(
        text.stdout
            .contains("unhealthy: web has never been backed up")
    );
    assert!(text.stdout.contains("NEVER-BACKED-UP"), "{}", text.stdout);
    program.run(["backup", "now"]).expect(0);
    let (text, json) = status(&program, 0);
    assert!(text.stdout.contains("1 in disk"), "{}", text.stdout);
    let storage = &json["databases"][0]["storages"][0];
    assert_eq!(storage["kept"], 1);
    assert_eq!(storage["newest"]["keys"], 100);
    assert_eq!(
        json["databases"][0]["tasks"]["backup"]["schedule"],
        "0 0 1 * *"
    );
    assert!(json["databases"][0]["tasks"]["backup"]["next"].is_string());
    // With a storage more, that one has none.
    let offsite = format!(
        "[storage.offsite]\nkind = \"local\"\npath = {:?}\n{}",
        program.folder().join("offsite"),
        database(server.port(), MONTHLY)
    );
    program.configure(&offsite);
    let (_, json) = status(&program, 1);
    assert_eq!(json["reasons"][0]["storage"], "offsite");
    // A name that is not configured is a usage mistake, and one that is may be asked for alone.
    assert_eq!(program.run(["status", "nobody"]).code, Some(2));
    assert_eq!(program.run(["status", "web"]).code, Some(1));
}

#[test]
fn a_backup_that_is_too_old_is_unhealthy() {
    let server = filled(1);
    let program = Program::new(&database(
        server.port(),
        "schedule = \"* * * * * *\"\ntimeout = \"1s\"",
    ));
    program.run(["backup", "now"]).expect(0);
    let json = until("the backup is late", || {
        let ran = program.json(["status"]);
        (ran.code == Some(1)).then(|| ran.json())
    });
    assert_eq!(words(&json), ["late"]);
}

#[test]
fn failures_shrunk_backups_and_damage_are_unhealthy() {
    let server = filled(100);
    let program = Program::new(&database(server.port(), MONTHLY));
    program.run(["backup", "now"]).expect(0);
    program.configure(&database(NOBODY, MONTHLY));
    program.run(["backup", "now"]).expect(1);
    let (text, json) = status(&program, 1);
    assert_eq!(words(&json), ["backup-failed"]);
    assert!(json["reasons"][0]["since"].is_string());
    assert!(text.stdout.contains("the last backup of web failed"));
    program.configure(&database(server.port(), MONTHLY));
    fill(&server, 3);
    program.run(["backup", "now"]).expect(0);
    let (_, json) = status(&program, 1);
    assert_eq!(words(&json), ["shrunk"]);
    // Damage that a listing sees.
    let newest = json["databases"][0]["storages"][0]["newest"]["id"]
        .as_str()
        .unwrap();
    let folder = program.archive().join("web").join(newest);
    fs::write(folder.join("manifest.json"), "{}").unwrap();
    let (_, json) = status(&program, 1);
    assert_eq!(words(&json), ["damaged"]);
    // A storage that is no folder any more.
    fs::rename(program.archive(), program.folder().join("away")).unwrap();
    fs::write(program.archive(), "in the way").unwrap();
    let (text, json) = status(&program, 1);
    assert_eq!(words(&json), ["storage-silent"]);
    assert!(text.stdout.contains("? in disk"), "{}", text.stdout);
}

#[test]
fn without_a_schedule_nothing_is_expected_and_that_is_said() {
    let program = Program::new(&database(NOBODY, ""));
    let (text, json) = status(&program, 0);
    assert_eq!(json["scheduled"], false);
    assert!(
        text.stdout.contains("no backup is scheduled"),
        "{}",
        text.stdout
    );
}

/// A daemon, and where it serves.
struct Daemon {
    child: Option<Child>,
    port: u16,
}

impl Daemon {
    /// One whose configuration lets it choose its port.
    fn start(program: &Program) -> Daemon {
        let mut command = program.command(["-vv", "run"]);
        let path = program.folder().join("daemon.log");
        let log = fs::File::create(&path).unwrap();
        let child = command
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut daemon = Daemon {
            child: Some(child),
            port: 0,
        };
        daemon.port = until("it says where it serves", || {
            let log = fs::read_to_string(&path).ok()?;
            let place = log.split("status are at http://127.0.0.1:").nth(1)?;
            let (port, _) = place.split_once(|c: char| !c.is_ascii_digit())?;
            port.parse().ok()
        });
        daemon
    }

    fn ask(&self, method: &str, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let status = text.split(' ').nth(1)?.parse().ok()?;
        let body = text.split_once("\r\n\r\n")?.1;
        Some((status, body.to_owned()))
    }

    /// Waits until `/healthz` has this status, and its reasons are these.
    #[track_caller]
    fn becomes(&self, status: u16, reasons: &[&str]) -> Value {
        until(&format!("health is {status} {reasons:?}"), || {
            let (found, body) = self.ask("GET", "/healthz")?;
            let document: Value = serde_json::from_str(&body).ok()?;
            let same = document["troubles"].as_array()?.is_empty() && words(&document) == reasons;
            (found == status && same).then_some(document)
        })
    }

    #[track_caller]
    fn get(&self, path: &str) -> String {
        let (status, body) = self.ask("GET", path).unwrap();
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    fn stop(mut self) -> Option<i32> {
        let child = self.child.take().unwrap();
        signal(&child, Signal::TERM);
        finish(child).code
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn serving(program: &Program, port: u16, tables: &str) {
    let folder = program.folder();
    let text = format!(
        "[daemon]\nstate_dir = {:?}\nspool_dir = {:?}\nlisten = \"127.0.0.1:{port}\"\n\n[storage.disk]\nkind = \"local\"\npath = {:?}\n\n{tables}\n",
        folder.join("state"),
        folder.join("spool"),
        program.archive(),
    );
    program.write_configuration(&text);
}

/// The samples of a scrape, by series.
fn samples(text: &str) -> BTreeMap<&str, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series, value.parse().unwrap())
        })
        .collect()
}

#[test]
fn the_daemon_says_by_http_how_the_backups_are() {
    let server = Server::with(usual(), Options::new().password("correct-horse"));
    fill(&server, 5);
    server
        .client()
        .run(cmd!["SET", "websauna_session_secret", "x"]);
    let program = Program::new("");
    let password = program.folder().join("password");
    fs::write(&password, "battery-staple\n").unwrap();
    let url = format!("http://127.0.0.1:{NOBODY}/T0KEN");
    let more = format!(
        "password_file = \"password\"\nschedule = \"* * * * * *\"\nverify_schedule = \"* * * * * *\"\nnotify = {{ url = {url:?} }}"
    );
    serving(&program, 0, &database(server.port(), &more));
    let daemon = Daemon::start(&program);
    let document = daemon.becomes(503, &["backup-failed", "never-backed-up"]);
    assert_eq!(document["healthy"], false);
    let samples_before = daemon.get("/metrics");
    let never = "rdbkeeper_backup_last_success_timestamp_seconds{database=\"web\"}";
    assert_eq!(samples(&samples_before).get(never), Some(&0.0));
    // What was wrong is put right.
    fs::write(&password, "correct-horse\n").unwrap();
    daemon.becomes(200, &[]);
    assert_eq!(daemon.get("/livez"), "ok\n");
    let metrics = daemon.get("/metrics");
    let found = samples(&metrics);
    assert!(found[never] > 1.7e9, "{metrics}");
    assert_eq!(found["rdbkeeper_backup_last_keys{database=\"web\"}"], 6.0);
    assert!(found["rdbkeeper_backups_total{database=\"web\",result=\"success\"}"] >= 1.0);
    assert!(found["rdbkeeper_backups_total{database=\"web\",result=\"failure\"}"] >= 1.0);
    assert!(found["rdbkeeper_backup_next_timestamp_seconds{database=\"web\"}"] > 1.7e9);
    assert_eq!(found["rdbkeeper_healthy"], 1.0);
    // Where there was no backup there was nothing to verify.
    let status: Value = until("the verification", || {
        let status: Value = serde_json::from_str(&daemon.get("/api/status")).unwrap();
        let mut jobs = status["jobs"].as_array().unwrap().iter();
        let verified = jobs.any(|job| job["task"] == "verify" && job["succeeded_at"].is_string());
        verified.then_some(status)
    });
    let jobs = status["jobs"].as_array().unwrap();
    let job = |task: &str| jobs.iter().find(|job| job["task"] == task).unwrap();
    for task in ["backup", "verify"] {
        assert!(job(task)["next"].is_string(), "{status}");
        assert!(job(task)["last"]["finished_at"].is_string(), "{status}");
        assert_eq!(job(task)["schedule"], "* * * * * *");
    }
    assert_eq!(status["databases"][0]["database"], "web");
    assert_eq!(status["healthy"], true);
    // Nothing writes, and nothing else is there.
    for path in ["/metrics", "/healthz", "/api/status", "/livez"] {
        assert_eq!(daemon.ask("POST", path).unwrap().0, 405, "{path}");
        assert_eq!(daemon.ask("DELETE", path).unwrap().0, 405, "{path}");
        let (code, body) = daemon.ask("HEAD", path).unwrap();
        assert_eq!((code, body.as_str()), (200, ""), "{path}");
    }
    assert_eq!(daemon.ask("GET", "/api/jobs").unwrap().0, 404);
    // It fails again, and is unhealthy again.
    fs::write(&password, "battery-staple\n").unwrap();
    daemon.becomes(503, &["backup-failed"]);
    let pages: String = ["/metrics", "/healthz", "/api/status"]
        .iter()
        .map(|path| daemon.ask("GET", path).unwrap().1)
        .collect();
    let pid = daemon.child.as_ref().unwrap().id();
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(daemon.stop(), Some(0));
    let log = fs::read_to_string(program.folder().join("daemon.log")).unwrap();
    for secret in ["correct-horse", "battery-staple", "T0KEN", "session_secret"] {
        for text in [&pages, &metrics, &line, &log] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
    }
    assert!(!files_below(&program.archive()).is_empty());
}

#[test]
fn idle_clients_do_not_keep_others_from_being_answered() {
    let server = filled(1);
    let program = Program::new("");
    serving(&program, 0, &database(server.port(), MONTHLY));
    let daemon = Daemon::start(&program);
    let port = daemon.port;
    let idle: Vec<TcpStream> = (0..100)
        .map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap())
        .collect();
    assert_eq!(daemon.get("/livez"), "ok\n");
    drop(idle);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn an_address_in_use_is_a_clear_error_at_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let program = Program::new("");
    serving(&program, port, &database(NOBODY, MONTHLY));
    let ran = program.run(["run"]).expect(1);
    let message = format!("error: cannot serve metrics and health at 127.0.0.1:{port}");
    assert!(ran.stderr.contains(&message), "{}", ran.stderr);
    assert!(ran.stderr.contains("another process listens there"));
}
