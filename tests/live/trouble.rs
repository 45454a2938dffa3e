//! What bad input gets: one clear error with a hint, the right exit code, and nothing half-made.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::cmd;
use crate::support::data::sessions;
use crate::support::poll;
use crate::support::program::{Program, Ran, files_below, finish, signal};
use crate::support::servers::{NOBODY, Options, Server, usual};

fn database(url: &str, more: &str) -> String {
    format!("[[database]]\nname = \"web\"\nurl = \"{url}\"\n{more}\n")
}

/// The run failed as it should: told as text, and as one JSON document.
#[track_caller]
fn fails(program: &Program, arguments: &[&str], code: i32, kind: &str) -> Ran {
    let text = program.run(arguments).expect(code);
    assert!(text.stdout.is_empty(), "{}", text.stdout);
    assert!(text.stderr.contains("error: "), "{}", text.stderr);
    assert!(text.stderr.contains("  hint: "), "{}", text.stderr);
    let json = program.json(arguments).expect(code).json();
    assert_eq!(json["error"]["code"], code, "{json}");
    assert_eq!(json["error"]["kind"], kind, "{json}");
    text
}

#[test]
fn a_server_that_is_down_is_told_and_leaves_nothing() {
    let program = Program::new(&database(&format!("redis://127.0.0.1:{NOBODY}"), ""));
    let ran = fails(&program, &["backup", "now"], 1, "unreachable");
    assert!(ran.stderr.contains("cannot back up web"), "{}", ran.stderr);
    assert_eq!(files_below(&program.archive()).len(), 0);
    assert_eq!(program.run(["check"]).code, Some(1));
}

#[test]
fn a_wrong_password_is_told_and_never_shown() {
    let server = Server::with(usual(), Options::new().password("correct-horse"));
    let url = server
        .url()
        .replacen("redis://", "redis://:battery-staple@", 1);
    // The helper's URL may hold the right one already.
    let url = match url.matches('@').count() {
        1 => url,
        _ => format!("redis://:battery-staple@127.0.0.1:{}", server.port()),
    };
    let program = Program::new(&database(&url, ""));
    let ran = fails(&program, &["-vv", "backup", "now"], 1, "auth");
    assert!(!ran.stderr.contains("battery-staple"), "{}", ran.stderr);
}

#[test]
fn neither_password_nor_session_keys_show_anywhere() {
    let server = Server::with(usual(), Options::new().password("correct-horse"));
    let target = Server::start(usual());
    let mut client = server.client();
    client.run_all(sessions(50));
    client.run(cmd!["SET", "websauna_session_secret_token", "x"]);
    let program = Program::new(&database(
        &format!("redis://127.0.0.1:{}", server.port()),
        "password_file = \"secret\"",
    ));
    fs::write(program.folder().join("secret"), "correct-horse\n").unwrap();
    let to = target.url();
    target
        .client()
        .run(cmd!["SET", "websauna_session_secret_token", "y"]);
    let mut seen = String::new();
    for arguments in [
        vec!["-vv", "check"],
        vec!["-vv", "backup", "now"],
        vec!["-vv", "--json", "--log", "json", "backup", "list"],
        vec!["-vv", "backup", "show", "web"],
        vec!["-vv", "restore", "web", "--to", &to, "--dry-run"],
        vec!["-vv", "restore", "web", "--to", &to],
        vec![
            "-vv",
            "restore",
            "web",
            "--to",
            &to,
            "--on-conflict",
            "replace",
        ],
    ] {
        let ran = program.run(&arguments);
        seen.push_str(&ran.stdout);
        seen.push_str(&ran.stderr);
    }
    for file in files_below(&program.archive()) {
        if file.ends_with("manifest.json") {
            seen.push_str(&fs::read_to_string(program.archive().join(file)).unwrap());
        }
    }
    assert!(!seen.contains("correct-horse"), "{seen}");
    assert!(!seen.contains("secret_token"), "{seen}");
    let one = ["--match", "*secret_token", "--show-keys"];
    let shown = program.run(["restore", "web", "--to", &to].iter().chain(&one));
    assert!(
        shown
            .expect(5)
            .stderr
            .contains("websauna_session_secret_token")
    );
}

#[test]
fn every_file_that_is_made_is_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = Server::start(usual());
    server.client().run_all(sessions(20));
    let program = Program::new(&database(&server.url(), ""));
    program.run(["backup", "now"]).expect(0);
    program
        .run(["restore", "web", "--to-file", "out.rdb"])
        .expect(0);
    let mut files: Vec<_> = files_below(&program.archive())
        .into_iter()
        .map(|file| program.archive().join(file))
        .collect();
    assert_eq!(files.len(), 2);
    files.push(program.folder().join("out.rdb"));
    for file in files {
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
}

#[test]
fn a_database_number_that_does_not_exist_is_told() {
    let server = Server::start(usual());
    let program = Program::new(&database(&server.url(), "databases = [99]"));
    let ran = fails(&program, &["backup", "now"], 2, "config");
    assert!(ran.stderr.contains("99"), "{}", ran.stderr);
    assert_eq!(files_below(&program.archive()).len(), 0);
}

#[test]
fn a_storage_that_is_a_file_is_told_before_the_server_is_bothered() {
    let server = Server::start(usual());
    let program = Program::new(&database(&server.url(), ""));
    fs::write(program.archive(), b"in the way").unwrap();
    let saves = || server.client().info("rdb_saves");
    let before = saves();
    let ran = fails(&program, &["backup", "now"], 1, "storage");
    assert!(ran.stderr.contains("path"), "{}", ran.stderr);
    assert_eq!(saves(), before);
}

/// A file system of its own of so many kibibytes, where this machine lets us make one.
struct SmallDisk<'a>(&'a Path);

impl SmallDisk<'_> {
    fn mount(at: &Path, kibibytes: u32) -> Option<SmallDisk<'_>> {
        fs::create_dir_all(at).unwrap();
        let size = format!("size={kibibytes}k");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "none"])
            .arg(at)
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            eprintln!("live tests: no small disk can be mounted here: a full disk is not tested");
        }
        mounted.then_some(SmallDisk(at))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).output();
    }
}

#[test]
fn a_full_disk_is_told_and_leaves_only_what_was_whole() {
    let server = Server::start(usual());
    let mut client = server.client();
    client.run_all(sessions(100));
    let program = Program::new(&database(&server.url(), "compression = \"none\""));
    let archive = program.archive();
    let Some(_disk) = SmallDisk::mount(&archive, 1024) else {
        return;
    };
    program.run(["backup", "now"]).expect(0);
    let whole = files_below(&archive);
    client.run(cmd!["SET", "large", vec![b'x'; 1]]);
    client.run(cmd!["CONFIG", "SET", "rdbcompression", "no"]);
    client.run(cmd!["SETRANGE", "large", 3_000_000, "x"]);
    let ran = fails(&program, &["backup", "now"], 1, "storage");
    assert!(ran.stderr.contains("room"), "{}", ran.stderr);
    assert_eq!(files_below(&archive), whole, "debris was left");
    program.run(["backup", "verify", "--all"]).expect(0);
}

#[test]
fn a_selector_that_matches_nothing_exits_with_4_and_nonsense_with_2() {
    let server = Server::start(usual());
    let program = Program::new(&database(&server.url(), ""));
    for selector in [
        "web",
        "latest",
        "20261122T214353Z-7f3a9c",
        "web@2020-01-01T00:00:00Z",
        "./nowhere/dump.rdb",
    ] {
        fails(&program, &["backup", "show", selector], 4, "not-found");
    }
    fails(&program, &["backup", "show", "WEB!"], 2, "usage");
    program.run(["backup", "now"]).expect(0);
    program.run(["backup", "show", "latest"]).expect(0);
    program
        .run(["backup", "show", "web@2020-01-01T00:00:00Z"])
        .expect(4);
    program
        .run(["backup", "show", "web@2120-01-01T00:00:00Z"])
        .expect(0);
}

#[test]
fn a_database_is_backed_up_by_one_process_at_a_time() {
    let server = Server::start(usual());
    server.client().run_all(sessions(2000));
    let program = Program::new(&database(
        &server.url(),
        "method = \"scan\"\nmax_keys_per_second = 200",
    ));
    let first = program.spawn(["backup", "now"]);
    poll::until("a backup at work", || {
        files_below(&program.archive()).into_iter().next()
    });
    fails(&program, &["backup", "now"], 6, "busy");
    signal(&first, rustix::process::Signal::TERM);
    finish(first).expect(143);
}

#[test]
fn another_hosts_backups_under_the_same_name_are_refused_unless_shared() {
    let server = Server::start(usual());
    let program = Program::new(&database(&server.url(), ""));
    let made = program.json(["backup", "now"]).expect(0).json();
    let id = made[0]["id"].as_str().unwrap();
    let path = program.archive().join("web").join(id).join("manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    let host = made[0]["host"].as_str().unwrap();
    let text = text.replace(
        &format!("\"host\": \"{host}\""),
        "\"host\": \"another-host\"",
    );
    // A manifest proves itself: one of another host is made by the same rule.
    let covered = &text[..text.rfind("\"check\":").unwrap()];
    let check = rdbkeeper::pipeline::sha256(covered.as_bytes());
    fs::write(&path, format!("{covered}\"check\": \"{check}\"\n}}\n")).unwrap();

    let ran = fails(&program, &["backup", "now"], 5, "refused");
    assert!(ran.stderr.contains("another-host"), "{}", ran.stderr);
    program.configure(&database(&server.url(), "shared = true"));
    program.run(["backup", "now"]).expect(0);
}

#[test]
fn of_several_databases_one_fails_and_the_others_are_still_backed_up() {
    let server = Server::start(usual());
    server.client().run_all(sessions(20));
    let program = Program::new(&format!(
        "{}\n[[database]]\nname = \"down\"\nurl = \"redis://127.0.0.1:{NOBODY}\"\n",
        database(&server.url(), ""),
    ));
    let ran = program.json(["backup", "now"]).expect(1).json();
    let list = ran.as_array().unwrap();
    assert_eq!(list.len(), 2);
    assert_eq!(list[0]["database"], "web");
    assert_eq!(list[0]["rdb"]["keys"], 20);
    assert_eq!(list[1]["database"], "down");
    assert_eq!(list[1]["error"]["kind"], "unreachable");
    assert_eq!(
        program
            .json(["backup", "list"])
            .expect(0)
            .json()
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn a_backup_is_removed_for_good_whatever_state_it_is_in() {
    let server = Server::start(usual());
    let program = Program::new(&database(&server.url(), ""));
    let mut ids = Vec::new();
    for _ in 0..2 {
        let made = program.json(["backup", "now"]).expect(0).json();
        ids.push(made[0]["id"].as_str().unwrap().to_owned());
    }
    fails(&program, &["backup", "delete", &ids[0]], 2, "usage");
    let manifest = program
        .archive()
        .join("web")
        .join(&ids[0])
        .join("manifest.json");
    fs::write(manifest, b"nonsense").unwrap();
    program.run(["backup", "list"]).expect(0);
    program
        .run(["backup", "delete", &ids[0], "--yes"])
        .expect(0);
    program
        .run(["backup", "delete", &ids[0], "--yes"])
        .expect(4);
    program.run(["backup", "delete", "web", "--yes"]).expect(0);
    assert_eq!(files_below(&program.archive()).len(), 0);
}

#[test]
fn a_target_that_is_loading_is_refused() {
    let options = Options::new()
        .config("enable-debug-command yes")
        .config("key-load-delay 100000");
    let target = Server::with(usual(), options);
    let mut random = crate::support::data::Random::new(3);
    // A loading server looks at its clients every 2 MiB.
    for number in 0..30 {
        let value = random.bytes(1 << 20);
        target
            .client()
            .run(cmd!["SET", format!("k{number}"), value]);
    }
    let source = Server::start(usual());
    source.client().run_all(sessions(10));
    let program = Program::new(&database(&source.url(), ""));
    program.run(["backup", "now"]).expect(0);
    let port = target.port();
    let reloading = std::thread::spawn(move || {
        let mut client = crate::support::client::Client::tcp(port).unwrap();
        // Its answer comes when the test's server is ended, or not at all.
        let _ = client.attempt(cmd!["DEBUG", "RELOAD"]);
    });
    poll::until("it is loading", || {
        (target.client().info("loading")? == "1").then_some(())
    });
    let to = target.url();
    let ran = fails(&program, &["restore", "web", "--to", &to], 5, "refused");
    assert!(ran.stderr.contains("loading"), "{}", ran.stderr);
    drop(target);
    reloading.join().unwrap();
}

#[test]
fn one_bad_storage_fails_the_run_and_the_others_have_the_backup() {
    let server = Server::start(usual());
    server.client().run_all(sessions(20));
    let program = Program::new("");
    let bad = program.folder().join("bad");
    let tables = format!(
        "[storage.bad]\nkind = \"local\"\npath = {bad:?}\n\n{}",
        database(&server.url(), "storage = [\"bad\", \"disk\"]")
    );
    program.configure(&tables);
    fs::write(&bad, b"a file where a folder should be").unwrap();
    let ran = program.run(["backup", "now"]).expect(1);
    assert!(
        ran.stderr.contains("storage bad does not have it"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("kept as"), "{}", ran.stderr);
    // A backup in the other one alone does not put that right.
    let record = || {
        let text = fs::read(program.folder().join("state/runs/web.backup.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&text).unwrap()
    };
    let failed = record();
    assert!(failed["failing_since"].is_string(), "{failed}");
    program
        .run(["backup", "now", "--storage", "disk"])
        .expect(0);
    assert_eq!(record(), failed);
    let listed = program.json(["backup", "list"]).expect(1).json();
    assert_eq!(listed[0]["storage"], "disk");
    program.run(["backup", "show", "web"]).expect(0);
    program.run(["backup", "verify"]).expect(1);
    program
        .run(["backup", "verify", "--storage", "disk"])
        .expect(0);
    program
        .run(["restore", "web", "--to-file", "out.rdb"])
        .expect(0);
}

#[test]
fn a_backup_that_takes_too_long_ends_in_time_and_leaves_nothing() {
    let server = Server::start(usual());
    server.client().run_all(sessions(2000));
    for method in ["scan", "bgsave", "replication"] {
        let slow = match method {
            "scan" => "max_keys_per_second = 100",
            _ => "",
        };
        let program = Program::new(&database(
            &server.url(),
            &format!("method = \"{method}\"\ntimeout = \"1s\"\n{slow}"),
        ));
        // So slow a save that it cannot be done in time.
        server
            .client()
            .run(cmd!["CONFIG", "SET", "rdb-key-save-delay", 20_000]);
        let began = std::time::Instant::now();
        fails(&program, &["backup", "now"], 1, "timeout");
        assert!(began.elapsed().as_secs() < 20, "{method}");
        server
            .client()
            .run(cmd!["CONFIG", "SET", "rdb-key-save-delay", 0]);
        poll::until("no save is running", || {
            let info = server.client().info("rdb_bgsave_in_progress")?;
            (info == "0").then_some(())
        });
        assert_eq!(files_below(&program.archive()).len(), 0, "{method}");
    }
}

#[test]
fn a_pipe_is_not_taken_for_a_file_that_can_be_read_twice() {
    let target = Server::start(usual());
    target.client().run(cmd!["SET", "mine", "1"]);
    let program = Program::new(&database(&target.url(), ""));
    let pipe = program.folder().join("pipe.rdb");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let to = target.url();
    let arguments = ["restore", "./pipe.rdb", "--to", &to, "--flush", "--yes"];
    let ran = program.run(arguments).expect(1);
    assert!(ran.stderr.contains("no regular file"), "{}", ran.stderr);
    for path in ["./pipe.rdb", "/dev/null"] {
        let ran = program.run(["backup", "show", path]).expect(1);
        let told = format!("error: {path}: cannot read it: it is no regular file");
        assert!(ran.stderr.contains(&told), "{}", ran.stderr);
        assert!(
            ran.stderr.contains("hint: write what comes"),
            "{}",
            ran.stderr
        );
    }
    assert_eq!(target.client().run(cmd!["GET", "mine"]).text(), "1");
}

#[test]
fn what_is_meant_as_a_file_and_is_no_path_is_told_how_to_be_one() {
    let target = Server::start(usual());
    let program = Program::new(&database(&target.url(), ""));
    for name in ["weird.RDB", "dump", "20261122T214353Z-7f3a9c"] {
        fs::write(program.folder().join(name), b"").unwrap();
        let ran = program.run(["backup", "show", name]);
        assert!(matches!(ran.code, Some(2 | 4)), "{ran:?}");
        let told = format!("there is a file of this name: write ./{name}");
        assert!(ran.stderr.contains(&told), "{}", ran.stderr);
    }
    let ran = program.run(["backup", "show", "nothing.RDB"]).expect(2);
    assert!(!ran.stderr.contains("of this name"), "{}", ran.stderr);
    // A folder that holds no backup.
    let ran = program.run(["backup", "show", "."]).expect(2);
    assert!(
        ran.stderr.contains("a folder of this name: write ./."),
        "{}",
        ran.stderr
    );
    let ran = program.run(["backup", "show", "./"]).expect(4);
    assert!(ran.stderr.contains("manifest.json"), "{}", ran.stderr);
    program.run(["backup", "now"]).expect(0);
    let archive = program.archive();
    let ran = program.run(["backup", "show", archive.to_str().unwrap()]);
    let hint = "hint: name the folder within it that holds manifest.json";
    assert!(ran.expect(4).stderr.contains(hint));
}

#[test]
fn a_state_folder_that_has_turned_read_only_keeps_no_backup_from_being_taken() {
    let server = Server::start(usual());
    server.client().run_all(sessions(20));
    let program = Program::new(&database(&server.url(), "method = \"scan\""));
    let state = program.folder().join("state");
    fs::create_dir_all(&state).unwrap();
    let mount = |arguments: &[&str]| {
        let done = Command::new("mount").args(arguments).arg(&state).output();
        done.is_ok_and(|output| output.status.success())
    };
    if !mount(&["-t", "tmpfs", "none"]) {
        eprintln!("live tests: nothing can be mounted here: a read-only state is not tested");
        return;
    }
    let first = program.run(["backup", "now"]);
    let remounted = mount(&["-o", "remount,ro"]);
    let second = program.run(["backup", "now"]);
    let _ = Command::new("umount").arg("-l").arg(&state).output();
    assert!(remounted);
    first.expect(0);
    let told = second.expect(0).stderr;
    assert!(told.contains("cannot be kept"), "{told}");
}
