//! Real web frameworks at work while their sessions are expired in a loop: none that is in use is lost.
//!
//! The frameworks come from tests/clients/fetch.sh; what is missing is skipped, visibly.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::cmd;
use crate::support::client::Client;
use crate::support::poll::until;
use crate::support::program::Program;
use crate::support::servers::{Kind, Server, announce, named, usual};

/// How long people are at work: several timeouts, before and after a fork.
const SECONDS: u64 = 24;

/// What the people at work tell in the end.
#[derive(Debug, Deserialize)]
struct Told {
    requests: u64,
    lost: Vec<String>,
    late: u64,
    abandoned: Vec<String>,
}

fn clients(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("RDBKEEPER_TEST_CLIENTS").map(PathBuf::from);
    let folder = folder.or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")))?;
        Some(cache.join("rdbkeeper-test-clients"))
    })?;
    let found = folder.join(name);
    if found.join("complete").exists() {
        return Some(found);
    }
    announce(&format!(
        "{name} was not found: its test is skipped (tests/clients/fetch.sh brings it)"
    ));
    None
}

/// A server where reading a value does not count as use, or else the usual one, without `idle`: there idle times
/// and values cannot both be had.
fn with_idle(name: &str) -> (&'static Kind, bool) {
    match named(name) {
        Some(kind) => (kind, true),
        None => (usual(), false),
    }
}

/// Lets people work and expires sessions all the while, with a BGSAVE in the middle, during which reading
/// does not count as use.
fn work(server: &Server, program: &Program, idle: bool, mut people: Command) -> Told {
    let mut people = people
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let began = std::time::Instant::now();
    let (mut runs, mut waited, mut saved) = (0, 0, false);
    while people.try_wait().unwrap().is_none() {
        let ran = program.run(["sessions", "expire"]);
        match ran.code {
            // Idle times are not trusted until the server has not forked for long enough.
            Some(0) if ran.stdout.contains("nothing counts as idle yet") => waited += 1,
            Some(0) => runs += 1,
            _ => panic!("{ran:?}"),
        }
        if !saved && began.elapsed().as_secs() >= SECONDS / 2 {
            // A child that takes its time: some seconds in which the idle clock does not see what is read.
            let mut client = server.client();
            client.run(cmd!["CONFIG", "SET", "rdb-key-save-delay", 30000]);
            client.run(cmd!["BGSAVE"]);
            saved = true;
        }
    }
    let output = people.wait_with_output().unwrap();
    assert!(output.status.success());
    eprintln!("{runs} runs did all their work, {waited} found nothing idle yet");
    assert!(runs > 5 && saved && (waited > 0) == idle, "{runs} {waited}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn nobody_was_thrown_out(told: &Told) {
    assert!(told.requests > 300, "{told:?}");
    assert!(told.lost.is_empty(), "{:?}", told.lost);
    // A machine that stands still loses nothing, and proves nothing.
    assert!(
        told.late < told.requests / 10,
        "{} of {}",
        told.late,
        told.requests
    );
}

/// The sessions that nobody used, and that had no TTL, are gone in the end.
fn the_abandoned_are_gone(program: &Program, client: &mut Client, told: &Told) {
    until("the abandoned sessions are gone", || {
        let _ = program.run(["sessions", "expire"]);
        let left = told
            .abandoned
            .iter()
            .filter(|key| client.run(cmd!["EXISTS", key.as_str()]).int() == 1)
            .count();
        (left == 0).then_some(())
    });
}

#[test]
fn no_pyramid_session_that_is_in_use_is_lost() {
    let Some(folder) = clients("pyramid") else {
        return;
    };
    let (kind, idle) = with_idle("redis-8.0");
    let server = Server::start(kind);
    let program = Program::new(&format!(
        r#"
        [[database]]
        name = "sessions"
        url = "redis://127.0.0.1:{}/1"
        [[database.sessions]]
        store = "pyramid"
        match = '^websauna_session[0-9a-f]{{64}}$'
        timeout = "4s"
        grace = "2s"
        long_ttl = "shorten"
        idle = {idle}
        [[database.sessions]]
        store = "pyramid"
        match = '^short:[0-9a-f]{{64}}$'
        timeout = "365d"
        max_age = "6s"
        grace = "2s"
        "#,
        server.port()
    ));
    let mut people = Command::new(folder.join("bin/python"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/pyramid_live.py");
    people
        .arg("-W")
        .arg("ignore")
        .arg(script)
        .args([server.port().to_string(), SECONDS.to_string()]);
    let told = work(&server, &program, idle, people);
    nobody_was_thrown_out(&told);
    let mut client = server.client();
    client.select(1);
    if idle {
        the_abandoned_are_gone(&program, &mut client, &told);
    }
}

#[test]
fn no_express_session_that_is_in_use_is_lost() {
    let Some(folder) = clients("express") else {
        return;
    };
    let (kind, idle) = with_idle("valkey-9.1");
    let server = Server::start(kind);
    let program = Program::new(&format!(
        r#"
        [[database]]
        name = "sessions"
        url = "redis://127.0.0.1:{}/2"
        [[database.sessions]]
        store = "express"
        match = '^(sess|touched):[A-Za-z0-9_-]{{32}}$'
        timeout = "4s"
        grace = "2s"
        long_ttl = "shorten"
        idle = {idle}
        "#,
        server.port()
    ));
    let mut people = Command::new("node");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/express_live.mjs");
    people
        .current_dir(folder)
        .arg(script)
        .args([server.port().to_string(), SECONDS.to_string()]);
    let told = work(&server, &program, idle, people);
    nobody_was_thrown_out(&told);
    let mut client = server.client();
    client.select(2);
    if idle {
        the_abandoned_are_gone(&program, &mut client, &told);
    }
}
