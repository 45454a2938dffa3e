//! Hooks: what they are told, what their failure means, and that none of them, nor what it started, outlives its time.

use std::fs;
use std::path::Path;

use rustix::process::Signal;

use crate::cmd;
use crate::support::poll::until;
use crate::support::program::{Program, files_below, finish, signal};
use crate::support::servers::{NOBODY, Server, usual};

fn database(name: &str, port: u16, more: &str) -> String {
    format!("[[database]]\nname = \"{name}\"\nurl = \"redis://127.0.0.1:{port}\"\n{more}\n")
}

fn filled() -> Server {
    let server = Server::start(usual());
    server.client().run(cmd!["SET", "a", "1"]);
    server
}

/// Whether a process is there and is no zombie.
fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    stat.is_ok_and(|stat| {
        let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
        !state.starts_with(['Z', 'X'])
    })
}

fn written(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.ends_with('\n').then_some(text)
}

#[test]
fn hooks_are_told_what_happened_and_their_output_is_in_the_log() {
    let server = filled();
    let hooks = r#"hooks = { before = [["sh", "-c", "env | sort > before.env; echo about to begin; echo on the error stream >&2"]], after = [["sh", "-c", "env | sort > after.env"]], failure = [["touch", "failed"]] }"#;
    let mut program = Program::new(&database("web", server.port(), hooks));
    program.env("NOTIFY_SOCKET", "/run/nobody");
    program.env("RDBKEEPER_ERROR", "of a run around this one");
    let made = program.json(["backup", "now"]).expect(0);
    let id = made.json()[0]["id"].as_str().unwrap().to_owned();
    let read = |name| fs::read_to_string(program.folder().join(name)).unwrap();
    let (before, after) = (read("before.env"), read("after.env"));
    let has = |text: &str, line: &str| text.lines().any(|found| found == line);
    assert!(has(&before, "RDBKEEPER_EVENT=before"), "{before}");
    assert!(has(&before, "RDBKEEPER_DATABASE=web"), "{before}");
    assert!(has(&before, "RDBKEEPER_TASK=backup"), "{before}");
    assert!(!before.contains("RDBKEEPER_BACKUP_ID"), "{before}");
    for line in [
        "RDBKEEPER_EVENT=after",
        "RDBKEEPER_KEYS=1",
        "RDBKEEPER_STORAGES=disk",
        "RDBKEEPER_SHRUNK=false",
        &format!("RDBKEEPER_BACKUP_ID={id}"),
    ] {
        assert!(has(&after, line), "{line} is not in {after}");
    }
    for text in [&before, &after] {
        assert!(!text.contains("NOTIFY_SOCKET"), "{text}");
        assert!(!text.contains("RDBKEEPER_ERROR"), "{text}");
    }
    assert!(!program.folder().join("failed").exists());
    for said in ["about to begin", "on the error stream"] {
        let line = made.stderr.lines().find(|line| line.contains(said));
        let line = line.unwrap_or_else(|| panic!("{}", made.stderr));
        assert!(line.contains("database=\"web\""), "{line}");
        assert!(line.contains("hook=\"sh\""), "{line}");
    }
}

#[test]
fn a_failing_before_stops_its_backup_alone_and_says_why() {
    let server = filled();
    let failing = r#"hooks = { before = [["sh", "-c", "echo the queue is not empty; exit 3"], ["touch", "second"]], failure = [["sh", "-c", "env > failure.env"]] }"#;
    let program = Program::new(&format!(
        "{}{}",
        database("web", server.port(), failing),
        database("other", server.port(), "")
    ));
    let ran = program.run(["backup", "now", "web"]).expect(1);
    assert!(
        ran.stderr.contains("error: cannot back up web"),
        "{}",
        ran.stderr
    );
    let why = "the hook `sh` ended with exit code 3";
    assert!(ran.stderr.contains(why), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("the queue is not empty"),
        "{}",
        ran.stderr
    );
    assert!(!program.folder().join("second").exists());
    // What it printed may be anything: it is not kept, and so it is in no notice and no answer either.
    let record = program.folder().join("state/runs/web.backup.json");
    let record = fs::read_to_string(record).unwrap();
    assert!(
        record.contains(why) && !record.contains("queue is not"),
        "{record}"
    );
    let facts = fs::read_to_string(program.folder().join("failure.env")).unwrap();
    assert!(facts.contains("RDBKEEPER_EVENT=failure"), "{facts}");
    assert!(
        facts.contains("RDBKEEPER_ERROR=cannot back up web"),
        "{facts}"
    );
    assert!(facts.contains("RDBKEEPER_ERROR_KIND=failed"), "{facts}");
    assert!(facts.contains(why), "{facts}");
    // The other one shares the dump, and has its backup.
    let both = program.json(["backup", "now"]).expect(1).json();
    assert_eq!(both[0]["database"], "web");
    assert_eq!(both[0]["error"]["kind"], "failed");
    assert_eq!(both[1]["database"], "other");
    assert_eq!(both[1]["rdb"]["keys"], 1);
    assert!(!program.archive().join("web").exists());
}

#[test]
fn hooks_after_a_backup_do_not_change_its_result() {
    let server = filled();
    let hooks =
        r#"hooks = { after = [["/no/such/program"], ["sh", "-c", "exit 1"], ["touch", "third"]] }"#;
    let program = Program::new(&database("web", server.port(), hooks));
    let ran = program.run(["backup", "now"]).expect(0);
    assert!(ran.stderr.contains("/no/such/program"), "{}", ran.stderr);
    assert!(ran.stderr.contains("exit code 1"), "{}", ran.stderr);
    assert!(program.folder().join("third").exists());
    // After a failure it is the same the other way round.
    let hooks = r#"hooks = { failure = [["sh", "-c", "exit 1"], ["touch", "told"]] }"#;
    program.configure(&database("web", NOBODY, hooks));
    let ran = program.run(["backup", "now"]).expect(1);
    assert!(
        ran.stderr.contains("error: cannot back up web"),
        "{}",
        ran.stderr
    );
    assert!(program.folder().join("told").exists());
}

/// A hook that starts a child, says who both are, and does not end; asked to, neither does.
const HANGING: &str = r#"[["sh", "-c", "trap '' TERM; (trap '' TERM; echo $$ > own; sh -c 'echo $PPID > child; exec sleep 1000') ; sleep 1000"]]"#;

#[test]
fn hooks_after_a_backup_do_not_wait_for_old_backups_to_go() {
    let server = filled();
    let more = r#"keep = { last = 1 }
hooks = { after = [["sh", "-c", "ls archive/web | wc -l > there"]] }"#;
    let program = Program::new(&database("web", server.port(), more));
    let there = || fs::read_to_string(program.folder().join("there")).unwrap();
    program.run(["backup", "now"]).expect(0);
    assert_eq!(there().trim(), "1");
    program.run(["backup", "now"]).expect(0);
    assert_eq!(there().trim(), "2");
    assert_eq!(program.archive().join("web").read_dir().unwrap().count(), 1);
}

#[test]
fn a_hook_that_hangs_is_killed_with_its_children() {
    let server = filled();
    let hooks = format!("timeout = \"3s\"\nhooks = {{ before = {HANGING} }}");
    let program = Program::new(&database("web", server.port(), &hooks));
    let ran = program.run(["backup", "now"]).expect(1);
    let why = "the hook `sh` had not ended after 3s and was killed";
    assert!(ran.stderr.contains(why), "{}", ran.stderr);
    for name in ["own", "child"] {
        let pid = written(&program.folder().join(name)).unwrap();
        until("the hook and its child have ended", || {
            (!runs(&pid)).then_some(())
        });
    }
    assert_eq!(files_below(&program.archive()).len(), 0);
}

#[test]
fn a_stopped_run_ends_its_hook_and_resumes_what_that_had_paused() {
    let server = filled();
    let hooks = format!("hooks = {{ before = {HANGING}, failure = [[\"touch\", \"resumed\"]] }}");
    let program = Program::new(&database("web", server.port(), &hooks));
    let child = program.spawn(["backup", "now"]);
    let pids = ["own", "child"]
        .map(|name| until("the hook runs", || written(&program.folder().join(name))));
    signal(&child, Signal::TERM);
    finish(child).expect(143);
    for pid in pids {
        until("the hook and its child have ended", || {
            (!runs(&pid)).then_some(())
        });
    }
    assert!(program.folder().join("resumed").exists());
    // What was stopped is no failure of the job.
    assert!(!program.folder().join("state/runs/web.backup.json").exists());
}

#[test]
fn what_a_hook_leaves_behind_and_a_flood_of_output_hold_nothing_up() {
    let server = filled();
    let hooks = r#"hooks = { before = [["sh", "-c", "sleep 1000 & echo $! > left; echo started"], ["seq", "1", "20000"]] }"#;
    let program = Program::new(&database("web", server.port(), hooks));
    let ran = program.run(["backup", "now"]).expect(0);
    let left = written(&program.folder().join("left")).unwrap();
    assert!(runs(&left), "it was not ours to end");
    let pid: i32 = left.trim().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::KILL)
        .unwrap();
    assert!(ran.stderr.contains("started"), "{}", ran.stderr);
    assert!(ran.stderr.contains("more lines, which are left out"));
    assert!(ran.stderr.lines().count() < 1000);
}
