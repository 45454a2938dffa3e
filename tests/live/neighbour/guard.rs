//! A fork that looks dangerous is told, or not done.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cmd;
use crate::support::data::sessions;
use crate::support::poll::until;
use crate::support::program::Program;
use crate::support::servers::{Server, each, named, usual};

/// What stands in the place of the kernel's files: this host, but for what is left of its memory.
fn host(program: &mut Program, server: &Server, available_kib: u64, overcommit: u8) {
    let total = server.client().info("total_system_memory").unwrap();
    let total: u64 = total.parse().unwrap();
    let root = program.folder().join("host");
    let write = |path: &str, text: String| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(
        "proc/meminfo",
        format!(
            "MemTotal: {} kB\nMemAvailable: {available_kib} kB\nSwapFree: 0 kB\n",
            total / 1024
        ),
    );
    write("proc/sys/vm/overcommit_memory", format!("{overcommit}\n"));
    let root = root.to_str().unwrap().to_owned();
    program.env("RDBKEEPER_SYSTEM_ROOT", &root);
}

fn database(server: &Server, keys: &str) -> String {
    format!(
        "[[database]]\nname = \"web\"\nurl = \"{}\"\n{keys}\n",
        server.url()
    )
}

/// A server that has never forked.
fn untouched() -> Server {
    let server = Server::start(usual());
    server.client().run_all(sessions(500));
    server
}

#[track_caller]
fn has_forked(server: &Server, expected: bool) {
    let took = server.client().info("latest_fork_usec").unwrap();
    assert_eq!(took != "0", expected, "latest_fork_usec:{took}");
}

#[test]
fn a_fork_without_memory_for_it_is_told_and_done_by_default() {
    let server = untouched();
    let mut program = Program::new(&database(&server, "method = \"bgsave\""));
    let quiet = program.run(["backup", "now"]).expect(0);
    assert!(!quiet.stderr.contains("fork"), "{}", quiet.stderr);
    host(&mut program, &server, 1, 1);
    for method in ["bgsave", "replication"] {
        let line = ["backup", "now", "--method", method];
        let ran = program.run(line).expect(0);
        assert!(
            ran.stderr.contains("a fork may use up the memory"),
            "{method}: {}",
            ran.stderr
        );
    }
    has_forked(&server, true);
    // A scan does not fork, so there is nothing to tell.
    let scan = program.run(["backup", "now", "--method", "scan"]).expect(0);
    assert!(!scan.stderr.contains("fork"), "{}", scan.stderr);
    let check = program.run(["check"]).expect(0);
    assert!(check.stdout.contains("would be backed up by bgsave"));
    assert!(
        check.stdout.contains("a fork may use up the memory"),
        "{}",
        check.stdout
    );
}

#[test]
fn a_guard_that_refuses_forks_nothing_and_says_what_to_do() {
    let server = untouched();
    for method in ["bgsave", "replication"] {
        let keys = format!("method = \"{method}\"\nfork_guard = \"refuse\"");
        let mut program = Program::new(&database(&server, &keys));
        host(&mut program, &server, 1, 0);
        let ran = program.run(["backup", "now"]).expect(5);
        for part in [
            "cannot back up web",
            "would make 127.0.0.1",
            "vm.overcommit_memory is 0",
            "set vm.overcommit_memory = 1",
            "method = \"scan\"",
            "replica_url",
        ] {
            assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
        }
        let error = program.json(["backup", "now"]).expect(5).json();
        assert_eq!(error["error"]["kind"], "refused");
        let check = program.run(["check"]).expect(1);
        assert!(
            check.stdout.contains("refused by fork_guard"),
            "{}",
            check.stdout
        );
        assert!(
            check.stderr.contains("method = \"scan\""),
            "{}",
            check.stderr
        );
    }
    has_forked(&server, false);
}

#[test]
fn with_auto_a_refused_fork_gives_way_to_a_scan() {
    let server = untouched();
    let mut program = Program::new(&database(&server, "fork_guard = \"refuse\""));
    host(&mut program, &server, 1, 1);
    let check = program.run(["check"]).expect(0);
    assert!(
        check.stdout.contains("would be backed up by scan"),
        "{}",
        check.stdout
    );
    let ran = program.json(["backup", "now"]).expect(0);
    assert_eq!(ran.json()[0]["method"], "scan");
    assert!(
        ran.stderr.contains("the next method is taken"),
        "{}",
        ran.stderr
    );
    has_forked(&server, false);
    program.run(["backup", "verify", "--all"]).expect(0);
    // Where a scan is not allowed either, it is the guard that keeps us from a backup.
    let user = "web on >pw ~* +ping +info +bgsave +time +config|get +psync +replconf";
    let mut words = vec!["ACL", "SETUSER"];
    words.extend(user.split(' '));
    server
        .client()
        .run(words.iter().map(|word| word.as_bytes().to_vec()).collect());
    program.configure(&database(
        &server,
        "fork_guard = \"refuse\"\nusername = \"web\"\npassword = \"pw\"",
    ));
    let ran = program.run(["backup", "now"]).expect(5);
    assert!(ran.stderr.contains("no method works"), "{}", ran.stderr);
    has_forked(&server, false);
}

#[test]
fn a_guard_that_is_off_does_not_look() {
    let server = untouched();
    let mut program = Program::new(&database(
        &server,
        "method = \"bgsave\"\nfork_guard = \"off\"",
    ));
    host(&mut program, &server, 1, 0);
    let ran = program.run(["backup", "now"]).expect(0);
    assert!(!ran.stderr.contains("fork"), "{}", ran.stderr);
    let check = program.run(["check"]).expect(0);
    assert!(!check.stdout.contains("overcommit"), "{}", check.stdout);
}

#[test]
fn databases_that_share_a_dump_share_the_strictest_guard() {
    let server = untouched();
    let one = database(&server, "method = \"bgsave\"");
    let other = one.replace("web", "other");
    let mut program = Program::new(&format!("{one}{other}fork_guard = \"refuse\"\n"));
    host(&mut program, &server, 1, 1);
    let ran = program.run(["backup", "now"]).expect(1);
    for name in ["cannot back up web", "cannot back up other"] {
        assert!(ran.stderr.contains(name), "{}", ran.stderr);
    }
    has_forked(&server, false);
}

/// A host whose memory is hidden, as the shipped unit hides it, is judged by what the server tells.
#[test]
fn a_host_that_cannot_be_seen_is_said_by_check_and_stops_nothing() {
    let server = untouched();
    let mut program = Program::new(&database(
        &server,
        "method = \"bgsave\"\nfork_guard = \"refuse\"",
    ));
    let nowhere = program.folder().join("nowhere");
    assert!(!Path::new(&nowhere).exists());
    program.env("RDBKEEPER_SYSTEM_ROOT", nowhere.to_str().unwrap());
    program.run(["backup", "now"]).expect(0);
    let check = program.run(["check"]).expect(0);
    assert!(
        check.stdout.contains("memory cannot be seen from here"),
        "{}",
        check.stdout
    );
}

/// Writes to a server until it is dropped.
fn while_written<T>(server: &Server, work: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = server.client();
            while !stop.load(Ordering::Relaxed) {
                client.run(cmd!["SET", "busy", vec![b'x'; 10_000]]);
            }
        });
        let mut client = server.client();
        until("a server that is written to", || {
            let rate: f64 = client.info("instantaneous_input_kbps")?.parse().ok()?;
            (rate > 1000.0).then_some(())
        });
        let done = work();
        stop.store(true, Ordering::Relaxed);
        done
    })
}

#[test]
fn an_output_buffer_that_is_too_small_is_found_where_the_server_fills_it() {
    if named("redis-6.0").is_none() {
        return;
    }
    each(|kind| {
        let server = Server::with(
            kind,
            crate::support::servers::Options::new()
                .config("client-output-buffer-limit replica 100kb 0 0"),
        );
        server.client().run_all(sessions(500));
        let program = Program::new(&database(
            &server,
            "method = \"replication\"\nfork_guard = \"refuse\"",
        ));
        let ran = while_written(&server, || program.run(["backup", "now"]));
        // Later ones keep nothing for who only wants the file.
        if kind.speaks_redis(6, 2) {
            ran.expect(0);
            return;
        }
        let ran = ran.expect(5);
        for part in [
            "the hard limit of client-output-buffer-limit replica is 100 KiB",
            "raise client-output-buffer-limit replica",
        ] {
            assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
        }
        // With nothing written there is nothing to be kept back.
        until("a server at rest", || {
            let rate = server.client().info("instantaneous_input_kbps")?;
            (rate.parse::<f64>().ok()? < 50.0).then_some(())
        });
        program.run(["backup", "now"]).expect(0);
    });
}
