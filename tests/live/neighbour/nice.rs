//! The process gives way to others, with all its threads.

use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::support::data::sessions;
use crate::support::poll::until;
use crate::support::program::{Program, finish, signal};
use crate::support::servers::{Server, usual};

/// How nice each thread of a process is, and what it is called.
fn threads(process: u32) -> Vec<(String, i32)> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let stats = tasks.flatten().filter_map(|task| {
        // A thread may end meanwhile.
        let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
        let (before, after) = stat.rsplit_once(')')?;
        let name = before.split_once('(')?.1.to_owned();
        // The 19th field of all is the 17th after the name.
        Some((name, after.split_whitespace().nth(16)?.parse().ok()?))
    });
    stats.collect()
}

fn program(server: &Server, nice: &str) -> Program {
    let program = Program::new("");
    let text = format!(
        "[daemon]\nstate_dir = {:?}\nspool_dir = {:?}\n{nice}\n[storage.disk]\nkind = \"local\"\npath = {:?}\n[[database]]\nname = \"web\"\nurl = \"{}\"\n",
        program.folder().join("state"),
        program.folder().join("spool"),
        program.archive(),
        server.url()
    );
    program.write_configuration(&text);
    program
}

/// The threads of a backup in the middle of its work.
fn of_a_backup(program: &Program, mut command: Command) -> Vec<(String, i32)> {
    let stopped = program.folder().join("stopped");
    let mut child: Child = command
        .env("RDBKEEPER_STOP_AT", "packing")
        .env("RDBKEEPER_STOPPED", &stopped)
        .spawn()
        .unwrap();
    until("a backup at work", || {
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
        stopped.exists().then_some(())
    });
    // All have begun, but one may not have set its priority yet.
    let found = until("threads that compress and give way", || {
        let found = threads(child.id());
        let least = found.iter().map(|(_, own)| *own).min()?;
        let compressing = |(name, _): &&(String, i32)| name == COMPRESSING;
        let mut some = found.iter().filter(compressing).peekable();
        let all = some.peek().is_some() && some.all(|(_, own)| *own > least);
        all.then_some(found)
    });
    signal(&child, Signal::KILL);
    finish(child);
    found
}

const COMPRESSING: &str = "compress";

/// All threads are as nice as this, and those that compress by 5 more.
#[track_caller]
fn all_are(threads: &[(String, i32)], nice: i32) {
    assert!(threads.len() > 2, "{threads:?}");
    let of = |name: &str| match name {
        COMPRESSING => (nice + 5).min(19),
        _ => nice,
    };
    assert!(
        threads.iter().all(|(name, own)| *own == of(name)),
        "{threads:?}"
    );
}

/// How nice this test is itself.
fn own() -> i32 {
    rustix::process::getpriority_process(None).unwrap()
}

#[test]
fn every_thread_of_a_backup_is_as_nice_as_configured() {
    let server = Server::start(usual());
    server.client().run_all(sessions(2000));
    let program = program(&server, "nice = 7");
    let found = of_a_backup(&program, program.command(["backup", "now"]));
    all_are(&found, own().max(7));
}

#[test]
fn without_the_key_and_under_one_that_is_nicer_it_stays_as_it_was_begun() {
    let server = Server::start(usual());
    server.client().run_all(sessions(2000));
    let plain = program(&server, "");
    all_are(
        &of_a_backup(&plain, plain.command(["backup", "now"])),
        own(),
    );

    let configured = program(&server, "nice = 3");
    let like = configured.command(["backup", "now"]);
    let mut command = Command::new("nice");
    command
        .args(["-n", "12"])
        .arg(like.get_program())
        .args(like.get_args())
        .current_dir(configured.folder())
        .env("RDBKEEPER_CONFIG", configured.configuration())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    all_are(&of_a_backup(&configured, command), (own() + 12).min(19));
}

#[test]
fn every_thread_of_the_daemon_is_as_nice_as_configured() {
    let server = Server::start(usual());
    let program = program(&server, "nice = 9");
    let daemon = program.spawn(["run"]);
    let found = until("the daemon's threads", || {
        let found = threads(daemon.id());
        let named = |name: &str| found.iter().any(|(own, _)| own == name);
        named("signals").then_some(found)
    });
    all_are(&found, own().max(9));
    signal(&daemon, Signal::KILL);
    finish(daemon);
}
