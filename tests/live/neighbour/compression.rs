//! The server's own compression is off while it makes a dump, and put back whatever happens.

use std::process::Child;

use rdbkeeper::server::Secret;
use rdbkeeper::source::{Choice, Method, Request, plan};
use rustix::process::Signal;

use crate::cmd;
use crate::sources::dumping::{block_on, by, endpoint, take};
use crate::support::poll::until;
use crate::support::program::{Program, files_below, finish, killed_at, signal};
use crate::support::servers::{Kind, Options, Server, each, usual};

/// A server with values that compress well.
fn server(kind: &Kind, options: Options) -> Server {
    let server = Server::with(kind, options);
    let mut client = server.client();
    let commands = (0..2000).map(|n| cmd!["SET", format!("key:{n}"), vec![b'a'; 400]]);
    client.run_all(commands.collect());
    server
}

fn database(server: &Server, name: &str, keys: &str) -> String {
    format!(
        "[[database]]\nname = \"{name}\"\nurl = \"{}\"\n{keys}\n",
        server.url()
    )
}

const OFF: &str = "disable_server_compression = true";

fn value(server: &Server) -> String {
    let answer = server.client().run(cmd!["CONFIG", "GET", "rdbcompression"]);
    answer.array()[1].text()
}

/// How often the server was told to change its configuration; before Redis 7.0 it does not tell.
fn changes(server: &Server) -> u64 {
    let Some(line) = server.client().info("cmdstat_config|set") else {
        return 0;
    };
    let calls = line.strip_prefix("calls=").unwrap();
    calls.split(',').next().unwrap().parse().unwrap()
}

/// What is recorded in the state folder.
fn records(program: &Program) -> usize {
    files_below(&program.folder().join("state/server-compression")).len()
}

/// Every save takes some seconds from now on.
fn slow(server: &Server) {
    let delay = cmd!["CONFIG", "SET", "rdb-key-save-delay", 1000];
    server.client().run(delay);
}

#[test]
fn it_is_off_for_the_dump_alone_and_the_archive_shows_it() {
    each(|kind| {
        let server = server(kind, Options::new());
        for method in ["bgsave", "replication"] {
            let plain = |keys: &str| {
                let keys = format!("method = \"{method}\"\n{keys}");
                let program = Program::new(&database(&server, "web", &keys));
                let ran = program.json(["backup", "now"]).expect(0);
                assert!(!ran.stderr.contains("WARN"), "{}", ran.stderr);
                assert_eq!(value(&server), "yes");
                assert_eq!(records(&program), 0);
                program.run(["backup", "verify"]).expect(0);
                ran.json()[0]["data"]["plain_bytes"].as_u64().unwrap()
            };
            let (compressed, not) = (plain(""), plain(OFF));
            assert!(compressed * 2 < not, "{method}: {compressed} and {not}");
        }
        // One that is off anyway is left alone.
        server
            .client()
            .run(cmd!["CONFIG", "SET", "rdbcompression", "no"]);
        let before = changes(&server);
        let program = Program::new(&database(&server, "web", OFF));
        program.run(["backup", "now"]).expect(0);
        assert_eq!((value(&server).as_str(), changes(&server)), ("no", before));
        assert_eq!(records(&program), 0);
    });
}

#[test]
fn a_killed_run_is_put_right_by_the_next_one_whatever_that_is_configured_for() {
    let server = server(usual(), Options::new());
    for method in ["bgsave", "replication"] {
        for (stage, left, told) in [
            ("compression-recorded", "yes", false),
            ("compression-off", "no", true),
            ("compression-back", "yes", false),
        ] {
            let keys = format!("method = \"{method}\"\n{OFF}");
            let program = Program::new(&database(&server, "web", &keys));
            killed_at(&program, stage, &["backup", "now"]);
            assert_eq!(value(&server), left, "{method} killed at {stage}");
            assert_eq!(records(&program), 1);
            let check = program.run(["check"]).expect(0);
            assert!(
                check
                    .stdout
                    .contains("left off by a backup that was killed"),
                "{}",
                check.stdout
            );
            // Also when it would not be turned off any more, and nothing is forked.
            program.configure(&database(&server, "web", "method = \"scan\""));
            let ran = program.run(["backup", "now"]).expect(0);
            assert_eq!(value(&server), "yes", "{method} killed at {stage}");
            assert_eq!(records(&program), 0);
            let says = ran.stderr.contains("rdbcompression of 127.0.0.1");
            assert_eq!(says, told, "{stage}: {}", ran.stderr);
        }
    }
}

#[test]
fn a_killed_run_is_put_right_by_the_same_kind_of_run() {
    let server = server(usual(), Options::new());
    let program = Program::new(&database(&server, "web", OFF));
    killed_at(&program, "compression-off", &["backup", "now"]);
    program.run(["backup", "now"]).expect(0);
    assert_eq!((value(&server).as_str(), records(&program)), ("yes", 0));
}

#[test]
fn a_daemon_puts_it_right_when_it_starts() {
    let server = server(usual(), Options::new());
    let program = Program::new(&database(&server, "web", OFF));
    killed_at(&program, "compression-off", &["backup", "now"]);
    assert_eq!(value(&server), "no");
    let daemon = program.spawn(["run"]);
    until("the setting as it was", || {
        (value(&server) == "yes" && records(&program) == 0).then_some(())
    });
    signal(&daemon, Signal::TERM);
    let ran = finish(daemon).expect(0);
    assert!(ran.stderr.contains("is yes again"), "{}", ran.stderr);
}

/// Waits until a run has turned it off.
fn is_off(server: &Server, child: &mut Child) {
    until("the setting off", || {
        assert!(child.try_wait().unwrap().is_none(), "it ended before");
        (value(server) == "no").then_some(())
    });
}

#[test]
fn a_run_that_is_stopped_puts_it_back() {
    let server = server(usual(), Options::new());
    slow(&server);
    for (ended_by, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        for method in ["bgsave", "replication"] {
            let keys = format!("method = \"{method}\"\n{OFF}");
            let program = Program::new(&database(&server, "web", &keys));
            let mut child = program.spawn(["backup", "now"]);
            is_off(&server, &mut child);
            signal(&child, ended_by);
            finish(child).expect(code);
            assert_eq!(value(&server), "yes", "{method}");
            assert_eq!(records(&program), 0, "{method}");
        }
    }
}

#[test]
fn a_dump_that_fails_or_takes_too_long_puts_it_back() {
    let server = server(usual(), Options::new());
    // A file that is not the server's.
    let elsewhere = server.folder().join("elsewhere.rdb");
    std::fs::write(&elsewhere, b"REDIS0010").unwrap();
    let keys = format!("method = \"bgsave\"\nrdb_path = {elsewhere:?}\n{OFF}");
    let program = Program::new(&database(&server, "web", &keys));
    let ran = program.run(["backup", "now"]).expect(1);
    assert!(ran.stderr.contains("is not the file"), "{}", ran.stderr);
    assert!(changes(&server) >= 2, "it was not even tried");
    assert_eq!((value(&server).as_str(), records(&program)), ("yes", 0));

    slow(&server);
    let keys = format!("method = \"bgsave\"\ntimeout = 1\n{OFF}");
    let program = Program::new(&database(&server, "web", &keys));
    let ran = program.run(["backup", "now"]).expect(1);
    assert!(ran.stderr.contains("longer than 1s"), "{}", ran.stderr);
    assert_eq!((value(&server).as_str(), records(&program)), ("yes", 0));
}

/// Whether a process has the record of a server open.
fn has_joined(child: &Child) -> bool {
    let files = std::fs::read_dir(format!("/proc/{}/fd", child.id()));
    files.into_iter().flatten().flatten().any(|file| {
        let target = std::fs::read_link(file.path());
        target.is_ok_and(|target| target.to_string_lossy().contains("server-compression"))
    })
}

#[test]
fn of_two_dumps_of_a_server_the_last_one_puts_it_back() {
    let server = server(usual(), Options::new());
    slow(&server);
    // The first is done with the setting when its file is saved.
    let diskless = cmd!["CONFIG", "SET", "repl-diskless-sync", "no"];
    server.client().run(diskless);
    let one = database(&server, "one", &format!("method = \"replication\"\n{OFF}"));
    let two = database(&server, "two", &format!("method = \"bgsave\"\n{OFF}"));
    let program = Program::new(&format!("{one}{two}"));
    for kills_the_last in [false, true] {
        let mut first = program.spawn(["backup", "now", "one"]);
        is_off(&server, &mut first);
        // Its save begins when the first one's is over.
        let second = program.spawn(["backup", "now", "two"]);
        until("the second at work", || has_joined(&second).then_some(()));
        finish(first).expect(0);
        assert_eq!(value(&server), "no", "the second needs it still");
        if kills_the_last {
            signal(&second, Signal::KILL);
            finish(second);
            assert_eq!((value(&server).as_str(), records(&program)), ("no", 1));
            program.configure(&database(&server, "one", "method = \"scan\""));
            program.run(["backup", "now"]).expect(0);
        } else {
            finish(second).expect(0);
        }
        assert_eq!((value(&server).as_str(), records(&program)), ("yes", 0));
    }
}

#[test]
fn a_server_that_was_restarted_or_that_somebody_changed_is_left_alone() {
    let mut server = server(usual(), Options::new());
    let program = Program::new(&database(&server, "web", OFF));
    let scan = database(&server, "web", "method = \"scan\"");
    killed_at(&program, "compression-off", &["backup", "now"]);
    // Somebody else puts it right.
    server
        .client()
        .run(cmd!["CONFIG", "SET", "rdbcompression", "yes"]);
    let before = changes(&server);
    program.configure(&scan);
    program.run(["backup", "now"]).expect(0);
    assert_eq!(changes(&server), before);
    assert_eq!((value(&server).as_str(), records(&program)), ("yes", 0));

    program.configure(&database(&server, "web", OFF));
    killed_at(&program, "compression-off", &["backup", "now"]);
    server.restart();
    program.configure(&scan);
    program.run(["backup", "now"]).expect(0);
    assert_eq!(changes(&server), 0, "it says what its file says");
    assert_eq!((value(&server).as_str(), records(&program)), ("yes", 0));
}

#[test]
fn another_server_at_the_same_address_keeps_the_record() {
    let mut first = server(usual(), Options::new());
    let program = Program::new(&database(&first, "web", OFF));
    killed_at(&program, "compression-off", &["backup", "now"]);
    // As after a failover: what answers there now is older than the record, and the first one may come back.
    let record = files_below(&program.folder().join("state/server-compression"));
    let path = program
        .folder()
        .join("state/server-compression")
        .join(&record[0]);
    let text = std::fs::read_to_string(&path).unwrap();
    let mut changed: serde_json::Value = serde_json::from_str(&text).unwrap();
    changed["run_id"] = "another".into();
    changed["at_s"] = u64::MAX.into();
    std::fs::write(path.with_file_name("another"), changed.to_string()).unwrap();
    until("a server that is not new", || {
        (first.client().info("uptime_in_seconds")? != "0").then_some(())
    });
    program.run(["backup", "now"]).expect(0);
    assert_eq!(value(&first), "yes");
    let left = files_below(&program.folder().join("state/server-compression"));
    assert_eq!(left, [std::path::PathBuf::from("another")]);
    first.kill();
}

#[test]
fn a_user_who_may_not_gets_a_warning_and_a_backup() {
    each(|kind| {
        let user = "small on >pw ~* +ping +info +bgsave +time +psync +replconf +config|get";
        let server = server(kind, Options::new().user(user));
        for method in ["bgsave", "replication"] {
            let keys =
                format!("method = \"{method}\"\nusername = \"small\"\npassword = \"pw\"\n{OFF}");
            let program = Program::new(&database(&server, "web", &keys));
            let ran = program.run(["backup", "now"]).expect(0);
            assert!(
                ran.stderr.contains("stays as it is") && ran.stderr.contains("CONFIG SET"),
                "{}",
                ran.stderr
            );
            assert_eq!((value(&server).as_str(), records(&program)), ("yes", 0));
            let check = program.run(["check"]).expect(0);
            assert!(
                check.stdout.contains("would stay as it is"),
                "{}",
                check.stdout
            );
        }
    });
}

#[test]
fn a_state_folder_that_cannot_be_written_leaves_the_server_alone() {
    let server = server(usual(), Options::new());
    let program = Program::new(&database(&server, "web", OFF));
    let state = program.folder().join("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::write(state.join("server-compression"), b"in the way").unwrap();
    let before = changes(&server);
    let ran = program.run(["backup", "now"]).expect(0);
    assert!(ran.stderr.contains("stays as it is"), "{}", ran.stderr);
    assert_eq!(changes(&server), before);
}

#[test]
fn check_says_what_would_be_done_and_its_acl_line_is_enough() {
    each(|kind| {
        let server = server(kind, Options::new());
        let program = Program::new(&database(&server, "web", OFF));
        let check = program.run(["check"]).expect(0);
        assert!(
            check.stdout.contains("(rdbcompression) would be off"),
            "{}",
            check.stdout
        );
        assert_eq!(value(&server), "yes");

        let state = tempfile::tempdir().unwrap();
        let mut request = Request::new(endpoint(&server.url()));
        request.disable_server_compression = true;
        request.state_dir = Some(state.path().to_owned());
        let lines = block_on(plan(&request)).unwrap().methods;
        for method in [Method::Bgsave, Method::Replication] {
            let line = lines.iter().find(|plan| plan.method == method).unwrap();
            let line = line.acl.replace("PASSWORD", "pw");
            let mut client = server.client();
            client.run(cmd!["ACL", "LOG", "RESET"]);
            client.run(
                line.split(' ')
                    .map(|word| word.as_bytes().to_vec())
                    .collect(),
            );
            let before = changes(&server);
            let mut request = Request {
                choice: Choice::Only(method),
                ..request.clone()
            };
            request.endpoint = by(method, &server).endpoint;
            request.endpoint.username = Some("rdbkeeper".to_owned());
            request.endpoint.password = Some(Secret::new("pw"));
            let taken = take(request.clone());
            assert!(taken.warnings.is_empty(), "{kind}: {:?}", taken.warnings);
            let changed = changes(&server) > before;
            assert!(changed || !kind.speaks_redis(7, 0), "{kind} {method}");
            assert_eq!(value(&server), "yes");
            let seen = block_on(plan(&request)).unwrap();
            assert!(seen.warnings.is_empty(), "{kind}: {:?}", seen.warnings);
            // The rights for one method do not make `auto` stumble over another.
            request.choice = Choice::Auto;
            assert_eq!(take(request).method, method, "{kind}");
        }
    });
}
