//! R1: `kill -9` at any stage of a backup. What is listed is whole, and the next run succeeds.

use std::time::Duration;

use rustix::process::Signal;

use crate::cmd;
use crate::support::data::{Random, sessions};
use crate::support::poll;
use crate::support::program::{Program, files_below, finish, killed_at, signal};
use crate::support::servers::{Server, usual};

const STAGES: [&str; 6] = [
    "source-open",
    "part",
    "pumped",
    "before-data",
    "before-manifest",
    "after-manifest",
];

fn listed(program: &Program) -> Vec<String> {
    let list = program.json(["backup", "list"]).expect(0).json();
    let list = list.as_array().unwrap();
    list.iter()
        .map(|backup| {
            backup["id"]
                .as_str()
                .unwrap_or_else(|| panic!("{backup}"))
                .to_owned()
        })
        .collect()
}

fn database(server: &Server, method: &str) -> String {
    format!(
        "[[database]]\nname = \"web\"\nurl = \"{}\"\nmethod = \"{method}\"\n",
        server.url()
    )
}

#[test]
fn a_killed_backup_is_never_listed_unless_it_is_whole_and_the_next_one_succeeds() {
    let server = Server::start(usual());
    server.client().run_all(sessions(2000));
    for method in ["bgsave", "replication", "scan"] {
        for stage in STAGES {
            let program = Program::new(&database(&server, method));
            killed_at(&program, stage, &["backup", "now"]);

            let before = listed(&program);
            let expected = usize::from(stage == "after-manifest");
            assert_eq!(before.len(), expected, "{method} killed at {stage}");
            if !before.is_empty() {
                program.run(["backup", "verify", "--all"]).expect(0);
            }
            program.run(["backup", "now"]).expect(0);
            assert_eq!(listed(&program).len(), expected + 1);
            program.run(["backup", "verify", "--all"]).expect(0);
        }
    }
}

#[test]
fn a_backup_killed_at_any_moment_leaves_only_whole_ones_in_the_list() {
    let server = Server::start(usual());
    server.client().run_all(sessions(20_000));
    let program = Program::new(&database(&server, "replication"));
    let mut random = Random::new(11);
    for _ in 0..25 {
        let child = program.spawn(["backup", "now"]);
        // The moment of the kill is the point of the test: any will do.
        std::thread::sleep(Duration::from_millis(random.below(150) as u64));
        signal(&child, Signal::KILL);
        finish(child);
    }
    let listed = listed(&program).len();
    if listed > 0 {
        program.run(["backup", "verify", "--all"]).expect(0);
    }
    program.run(["backup", "now"]).expect(0);
}

#[test]
fn an_interrupted_backup_cleans_up_and_says_how_it_ended() {
    let server = Server::start(usual());
    server.client().run_all(sessions(3000));
    for (ended_by, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        // So slow that it is still at work when the signal comes.
        let program = Program::new(&format!(
            "{}max_keys_per_second = 200\n",
            database(&server, "scan")
        ));
        let child = program.spawn(["backup", "now"]);
        poll::until("a backup at work", || {
            let begun = files_below(&program.archive()).into_iter().next();
            begun.filter(|file| file.to_string_lossy().ends_with(".tmp"))
        });
        signal(&child, ended_by);
        let ran = finish(child).expect(code);
        assert!(ran.stderr.contains("error: "), "{}", ran.stderr);
        assert_eq!(files_below(&program.archive()).len(), 0, "debris was left");
    }
}

#[test]
fn a_source_that_dies_in_mid_transfer_is_an_error_and_leaves_nothing() {
    for method in ["replication", "scan"] {
        let mut server = Server::start(usual());
        let mut client = server.client();
        client.run_all(sessions(20_000));
        client.run(cmd!["CONFIG", "SET", "rdb-key-save-delay", 100]);
        let program = Program::new(&format!(
            "{}max_keys_per_second = 500\n",
            database(&server, method)
        ));
        let child = program.spawn(["backup", "now"]);
        poll::until("a backup at work", || {
            let begun = files_below(&program.archive()).into_iter().next();
            begun.filter(|file| file.to_string_lossy().ends_with(".tmp"))
        });
        server.kill();
        let ran = finish(child).expect(1);
        assert!(ran.stderr.contains("cannot back up web"), "{}", ran.stderr);
        assert_eq!(files_below(&program.archive()).len(), 0, "debris was left");
        assert!(listed(&program).is_empty());
    }
}
