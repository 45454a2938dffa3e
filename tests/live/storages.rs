//! Several storages: one dump for all of them, what becomes of it when one is away, and copying what it lacks then.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cmd;
use crate::support::compare::assert_same;
use crate::support::data::sessions;
use crate::support::program::{Program, files_below, finish, killed_at, paused_at, signal};
use crate::support::servers::{Server, usual};

/// A program with the storages `disk`, `second` and `third`, and a database `web` that is kept in these.
fn program(server: &Server, storages: &str, more: &str) -> Program {
    let program = Program::new("");
    program.configure(&tables(&program, server, storages, more));
    program
}

fn tables(program: &Program, server: &Server, storages: &str, more: &str) -> String {
    let folder = |name: &str| program.folder().join(name);
    format!(
        "[storage.second]\nkind = \"local\"\npath = {:?}\n\n[storage.third]\nkind = \"local\"\npath = {:?}\n\n\
         [[database]]\nname = \"web\"\nurl = \"{}\"\nstorage = {storages}\n{more}\n",
        folder("second"),
        folder("third"),
        server.url()
    )
}

/// Makes a storage one that cannot be used: a file stands in its place. Gives it back with [`bring_back`].
fn take_away(program: &Program, name: &str) {
    let folder = program.folder().join(name);
    if folder.exists() {
        fs::rename(&folder, program.folder().join(format!("{name}.away"))).unwrap();
    }
    fs::write(&folder, b"in the way").unwrap();
}

fn bring_back(program: &Program, name: &str) {
    let folder = program.folder().join(name);
    fs::remove_file(&folder).unwrap();
    let away = program.folder().join(format!("{name}.away"));
    if away.exists() {
        fs::rename(away, folder).unwrap();
    }
}

fn id_of(document: &Value) -> String {
    document["id"]
        .as_str()
        .unwrap_or_else(|| panic!("{document}"))
        .to_owned()
}

/// The documents of a list that are whole backups.
fn listed(program: &Program) -> Vec<Value> {
    let list = program.json(["backup", "list"]);
    list.json().as_array().unwrap().clone()
}

fn object(program: &Program, storage: &str, id: &str, name: &str) -> PathBuf {
    program
        .folder()
        .join(storage)
        .join("web")
        .join(id)
        .join(name)
}

#[test]
fn what_one_storage_missed_is_seen_and_a_copy_cures_it() {
    let server = Server::start(usual());
    server.client().run_all(sessions(300));
    let program = program(&server, "[\"disk\", \"second\"]", "");
    take_away(&program, "second");
    let ran = program.run(["backup", "now"]).expect(1);
    assert!(
        ran.stderr.contains("storage second does not have it"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("kept as"), "{}", ran.stderr);
    let hint = ran.stderr.lines().last().unwrap().to_owned();
    bring_back(&program, "second");

    let list = program.run(["backup", "list"]).expect(0);
    assert!(list.stdout.contains("lacks second"), "{}", list.stdout);
    let document = listed(&program).remove(0);
    assert_eq!(document["lacks"], serde_json::json!(["second"]));
    let id = id_of(&document);
    assert_eq!(
        program.json(["backup", "show", &id]).expect(0).json()["lacks"],
        document["lacks"]
    );
    // The command that the failure's hint names is the one that does it.
    let command = hint.split('`').nth_back(1).unwrap();
    assert_eq!(command, format!("rdbkeeper backup copy {id} --to second"));
    let arguments: Vec<&str> = command.split(' ').skip(1).collect();
    let copied = program.json(&arguments).expect(0).json();
    assert_eq!(copied[0]["id"], id.as_str());
    assert_eq!(
        (&copied[0]["from"], &copied[0]["to"]),
        (&"disk".into(), &"second".into())
    );
    assert_eq!(copied[0]["copied"], true);
    for name in ["manifest.json", "dump.rdb.zst"] {
        let read = |storage: &str| fs::read(object(&program, storage, &id, name)).unwrap();
        assert!(read("archive") == read("second"), "{name} differs");
    }
    assert!(
        !program
            .run(["backup", "list"])
            .expect(0)
            .stdout
            .contains("lacks")
    );
    program.run(["backup", "verify", "--all"]).expect(0);
    // Once more changes nothing, and is fine.
    assert_eq!(
        program.json(&arguments).expect(0).json()[0]["copied"],
        false
    );
    // With the first storage gone it comes back from the copy.
    take_away(&program, "archive");
    let target = Server::start(usual());
    program
        .run(["restore", &id, "--to", &target.url()])
        .expect(0);
    assert_same(&mut server.client(), &mut target.client(), "the copy");
}

#[test]
fn everything_that_a_storage_lacks_is_copied_with_its_marks() {
    let server = Server::start(usual());
    server.client().run_all(sessions(50));
    let program = program(&server, "[\"disk\", \"second\"]", "");
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(id_of(
            &program
                .json(["backup", "now", "--storage", "disk"])
                .expect(0)
                .json()[0],
        ));
    }
    program.run(["backup", "pin", &ids[0]]).expect(0);
    program
        .run(["backup", "copy", &ids[1], "--to", "third"])
        .expect(0);
    let copied = program
        .json(["backup", "copy", "--all", "--to", "third"])
        .expect(0)
        .json();
    let copied: Vec<String> = copied.as_array().unwrap().iter().map(id_of).collect();
    assert_eq!(copied, [ids[0].clone(), ids[2].clone()]);
    let in_third: Vec<Value> = listed(&program)
        .into_iter()
        .filter(|b| b["storage"] == "third")
        .collect();
    assert_eq!(in_third.iter().map(id_of).collect::<Vec<_>>(), ids);
    assert_eq!(in_third[0]["pinned"], true);
    assert_eq!(in_third[1]["pinned"], false);
    let none = program
        .json(["backup", "copy", "--all", "web", "--to", "third"])
        .expect(0);
    assert_eq!(none.json(), serde_json::json!([]));
    // From a folder by its path, too.
    let folder = program.archive().join("web").join(&ids[1]);
    program
        .run(["backup", "copy", folder.to_str().unwrap(), "--to", "second"])
        .expect(0);
    program
        .run(["backup", "verify", &ids[1], "--storage", "second"])
        .expect(0);
    program.run(["backup", "copy", "--to", "second"]).expect(2);
    program
        .run(["backup", "copy", &ids[1], "--to", "nowhere"])
        .expect(2);
}

#[test]
fn what_a_storage_would_not_keep_comes_by_its_name_alone() {
    let server = Server::start(usual());
    server.client().run_all(sessions(20));
    let program = program(
        &server,
        "[\"disk\", \"third\"]",
        "keep_in = { third = { last = 1 } }",
    );
    let ids: Vec<String> = (0..3)
        .map(|_| {
            let now = program.json(["backup", "now", "--storage", "disk"]);
            id_of(&now.expect(0).json()[0])
        })
        .collect();
    let copied = |arguments: &[&str]| -> Vec<String> {
        let ran = program.json(arguments).expect(0).json();
        ran.as_array().unwrap().iter().map(id_of).collect()
    };
    let all = ["backup", "copy", "--all", "--to", "third"];
    assert_eq!(copied(&all), [ids[2].clone()]);
    assert!(copied(&all).is_empty());
    let one = ["backup", "copy", &ids[0], "--to", "third"];
    assert_eq!(copied(&one), [ids[0].clone()]);
}

#[test]
fn a_copy_is_never_made_of_what_is_damaged_nor_over_what_is_there() {
    let server = Server::start(usual());
    server.client().run_all(sessions(300));
    let program = program(&server, "[\"disk\", \"second\"]", "");
    let id = id_of(&program.json(["backup", "now"]).expect(0).json()[0]);
    let data = |storage: &str| object(&program, storage, &id, "dump.rdb.zst");
    let flip = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    // The nearest is damaged: the other one is copied.
    flip(&data("archive"));
    let ran = program
        .json(["backup", "copy", &id, "--to", "third"])
        .expect(0);
    assert_eq!(ran.json()[0]["from"], "second");
    program
        .run(["backup", "verify", &id, "--storage", "third"])
        .expect(0);
    program
        .run(["backup", "delete", &id, "--storage", "third", "--yes"])
        .expect(0);
    // Both are: nothing comes.
    flip(&data("second"));
    let ran = program
        .run(["backup", "copy", &id, "--to", "third"])
        .expect(3);
    assert!(ran.stderr.contains("SHA-256"), "{}", ran.stderr);
    assert_eq!(files_below(&program.folder().join("third")).len(), 0);
    // Something else is there under the ID.
    flip(&data("second"));
    fs::write(data("archive"), b"short").unwrap();
    let ran = program
        .run(["backup", "copy", &id, "--to", "disk"])
        .expect(5);
    assert!(ran.stderr.contains("backup delete"), "{}", ran.stderr);
    assert_eq!(fs::read(data("archive")).unwrap(), b"short");
}

#[test]
fn another_hosts_backups_are_not_mixed_by_a_copy() {
    let server = Server::start(usual());
    server.client().run_all(sessions(20));
    let program = program(&server, "[\"disk\", \"second\"]", "");
    let id = id_of(
        &program
            .json(["backup", "now", "--storage", "disk"])
            .expect(0)
            .json()[0],
    );
    // A backup of the same name by another host lies in the target.
    let there = program.folder().join("second/web/20200101T000000Z-abcdef");
    fs::create_dir_all(&there).unwrap();
    let manifest = fs::read_to_string(object(&program, "archive", &id, "manifest.json")).unwrap();
    let mut foreign: rdbkeeper::catalog::Manifest = serde_json::from_str(&manifest).unwrap();
    foreign.host = "elsewhere".to_owned();
    foreign.id = "20200101T000000Z-abcdef".parse().unwrap();
    fs::write(there.join("manifest.json"), foreign.to_bytes().unwrap()).unwrap();
    fs::copy(
        object(&program, "archive", &id, "dump.rdb.zst"),
        there.join("dump.rdb.zst"),
    )
    .unwrap();
    let ran = program
        .run(["backup", "copy", &id, "--to", "second"])
        .expect(5);
    assert!(ran.stderr.contains("elsewhere"), "{}", ran.stderr);
    program.configure(&tables(
        &program,
        &server,
        "[\"disk\", \"second\"]",
        "shared = true",
    ));
    program
        .run(["backup", "copy", &id, "--to", "second"])
        .expect(0);
}

#[test]
fn a_copy_that_is_killed_is_not_listed_and_is_made_again() {
    let server = Server::start(usual());
    server.client().run_all(sessions(200));
    let program = program(&server, "[\"disk\", \"second\"]", "");
    let id = id_of(
        &program
            .json(["backup", "now", "--storage", "disk"])
            .expect(0)
            .json()[0],
    );
    let copy = ["backup", "copy", &id, "--to", "second"];
    let in_second = || {
        listed(&program)
            .iter()
            .filter(|b| b["storage"] == "second")
            .count()
    };
    for stage in [
        "copy-part",
        "before-data",
        "before-manifest",
        "after-manifest",
    ] {
        killed_at(&program, stage, &copy);
        assert_eq!(
            in_second(),
            usize::from(stage == "after-manifest"),
            "{stage}"
        );
        if stage == "before-manifest" {
            // It looks as if somebody were at work there, for a while.
            program.run(copy).expect(6);
            let data = object(&program, "second", &id, "dump.rdb.zst");
            let hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
            let file = fs::File::options().write(true).open(data).unwrap();
            file.set_modified(hour_ago).unwrap();
        }
    }
    program.run(copy).expect(0);
    program.run(["backup", "verify", "--all"]).expect(0);
    assert_eq!(in_second(), 1);
}

#[test]
fn a_restore_takes_the_nearest_copy_that_is_whole() {
    let server = Server::start(usual());
    server.client().run_all(sessions(300));
    let program = program(&server, "[\"third\", \"second\", \"disk\"]", "");
    let id = id_of(&program.json(["backup", "now"]).expect(0).json()[0]);
    let shown = |selector: &str| program.json(["backup", "show", selector]).expect(0).json();
    // Nearest is the order that the database has them in.
    assert_eq!(shown("web")["storage"], "third");
    assert_eq!(shown(&id)["storage"], "third");
    let restored = |what: &str| {
        let target = Server::start(usual());
        let ran = program
            .run(["restore", "web", "--to", &target.url()])
            .expect(0);
        assert_same(&mut server.client(), &mut target.client(), what);
        ran
    };
    // Damage that only reading it shows: nothing is touched, and the next copy is taken.
    let path = object(&program, "third", &id, "dump.rdb.zst");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(restored("damaged").stderr.contains("another copy is taken"));
    program
        .run(["restore", "web", "--to-file", "out.rdb"])
        .expect(0);
    // With `--storage` that one alone is meant.
    program
        .run([
            "restore",
            "web",
            "--to-file",
            "other.rdb",
            "--storage",
            "third",
        ])
        .expect(3);
    assert!(!program.folder().join("other.rdb").exists());
    // A verification marks it, and it is passed over from then on.
    program
        .run(["backup", "verify", &id, "--storage", "third"])
        .expect(3);
    assert_eq!(shown("web")["storage"], "second");
    // The second lacks its data, the third is away.
    fs::remove_file(object(&program, "second", &id, "dump.rdb.zst")).unwrap();
    assert!(restored("data is missing").stderr.contains("passed over"));
    take_away(&program, "third");
    assert!(
        restored("a storage is away")
            .stderr
            .contains("storage third is passed over")
    );
}

#[test]
fn with_one_storage_away_the_others_do_their_part_and_the_exit_code_says_so() {
    let server = Server::start(usual());
    server.client().run_all(sessions(20));
    let keep = "keep = { last = 1 }";
    let program = program(&server, "[\"disk\", \"second\"]", keep);
    let id = id_of(&program.json(["backup", "now"]).expect(0).json()[0]);
    take_away(&program, "second");
    assert!(
        program
            .run(["backup", "list"])
            .expect(1)
            .stdout
            .contains(&id)
    );
    program.run(["backup", "verify"]).expect(1);
    program.run(["backup", "show", &id]).expect(0);
    let ran = program.run(["backup", "pin", &id]).expect(1);
    assert!(ran.stdout.contains("pinned"), "{}", ran.stdout);
    assert!(
        ran.stderr.contains("storage second does not answer"),
        "{}",
        ran.stderr
    );
    program
        .run(["backup", "unpin", &id, "--storage", "disk"])
        .expect(0);
    program.run(["backup", "now"]).expect(1);
    program.run(["backup", "prune"]).expect(1);
    let status = program.run(["status"]);
    assert!(status.stdout.contains("second"), "{}", status.stdout);
    let ran = program.run(["backup", "delete", "web", "--yes"]).expect(1);
    assert!(ran.stdout.contains("removed"), "{}", ran.stdout);
    bring_back(&program, "second");
    program.run(["backup", "list"]).expect(0);
}

#[test]
fn what_a_storages_own_policy_would_not_keep_is_not_lacking_there() {
    let server = Server::start(usual());
    server.client().run(cmd!["SET", "k", "v"]);
    let policies = "keep_in = { second = { last = 1 } }";
    let program = program(&server, "[\"disk\", \"second\"]", policies);
    for _ in 0..3 {
        program.run(["backup", "now"]).expect(0);
    }
    let list = listed(&program);
    assert_eq!(list.len(), 4, "{list:?}");
    assert!(
        list.iter().all(|backup| backup.get("lacks").is_none()),
        "{list:?}"
    );
}

#[test]
fn a_full_and_a_read_only_storage_fail_the_run_and_keep_nobody_from_having_it() {
    use std::process::Command;
    let server = Server::start(usual());
    let mut client = server.client();
    client.run(cmd!["CONFIG", "SET", "rdbcompression", "no"]);
    client.run(cmd!["SETRANGE", "large", 3_000_000, "x"]);
    let storages = "[\"second\", \"third\", \"disk\"]";
    let program = program(&server, storages, "compression = \"none\"");
    let (second, third) = (
        program.folder().join("second"),
        program.folder().join("third"),
    );
    let mount = |options: &str, at: &Path| {
        fs::create_dir_all(at).unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "none"]).arg(at);
        command.output().is_ok_and(|output| output.status.success())
    };
    if !mount("size=1024k", &second) || !mount("size=1024k,ro", &third) {
        let _ = Command::new("umount").arg("-l").arg(&second).output();
        eprintln!(
            "live tests: no small disk can be mounted here: a full storage among others is not tested"
        );
        return;
    }
    let ran = program.run(["backup", "now"]);
    let list = program.json(["backup", "list"]);
    for at in [&second, &third] {
        let _ = Command::new("umount").arg("-l").arg(at).output();
    }
    let ran = ran.expect(1);
    for name in ["second", "third"] {
        let told = format!("storage {name} does not have it");
        assert!(ran.stderr.contains(&told), "{}", ran.stderr);
        assert!(
            ran.stderr.contains(&format!("--to {name}`")),
            "{}",
            ran.stderr
        );
    }
    let list = list.json();
    assert_eq!(list[0]["storage"], "disk");
    assert_eq!(list[0]["lacks"], serde_json::json!(["second", "third"]));
}

#[test]
fn a_copy_that_is_stopped_leaves_nothing() {
    let server = Server::start(usual());
    server.client().run_all(sessions(200));
    let program = program(&server, "[\"disk\", \"second\"]", "");
    let id = id_of(
        &program
            .json(["backup", "now", "--storage", "disk"])
            .expect(0)
            .json()[0],
    );
    let copy = ["backup", "copy", &id, "--to", "second"];
    let child = paused_at(&program, "copy-part", &copy);
    signal(&child, rustix::process::Signal::TERM);
    signal(&child, rustix::process::Signal::CONT);
    let ran = finish(child);
    let there = files_below(&program.folder().join("second"));
    match ran.code {
        Some(143) => assert_eq!(there.len(), 0, "{there:?}"),
        // The signal may come when all of it is on its way.
        _ => assert_eq!((ran.code, there.len()), (Some(0), 2), "{}", ran.stderr),
    }
}

#[test]
fn a_restores_destination_is_judged_before_any_backup_is_looked_for() {
    let server = Server::start(usual());
    let program = program(&server, "[\"second\"]", "");
    fs::write(program.folder().join("there.rdb"), b"precious").unwrap();
    // There is no backup at all, which would be exit code 4.
    for (to, code, expected) in [
        (["--to", "nowhere"], 2, "--to takes"),
        (["--to", "redis://:port"], 2, "--to is not a server's URL"),
        (["--to-file", "there.rdb"], 5, "there.rdb"),
    ] {
        let ran = program.run([&["restore", "web"][..], &to].concat());
        let said = ran.expect(code).stderr;
        assert!(said.contains(expected), "{said}");
    }
    program
        .run(["restore", "web", "--to-file", "new.rdb"])
        .expect(4);
    let left = files_below(program.folder());
    assert!(!left.iter().any(|file| file.ends_with("new.rdb")));
}

#[test]
fn looking_inside_takes_the_nearest_copy_that_is_whole() {
    let server = Server::start(usual());
    server.client().run_all(sessions(20_000));
    let program = program(&server, "[\"second\", \"disk\"]", "compression = \"none\"");
    let id = id_of(&program.json(["backup", "now"]).expect(0).json()[0]);
    let path = object(&program, "second", &id, "dump.rdb");
    let whole = fs::read(&path).unwrap();
    // All keys are read before it.
    let mut bytes = whole.clone();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let lines = [
        "backup show web",
        "backup diff web web",
        "backup keys web --match *f00*",
        "backup export web --format jsonl --match *f00*",
        "backup export web --format jsonl -o lines",
        "backup export web --format resp -o commands",
        "backup export web --format rdb --db 0 -o some",
        "backup export web --format rdb -o all",
    ];
    for line in lines {
        let ran = program.run(line.split(' ')).expect(0);
        let told = &ran.stderr;
        assert!(told.contains("another copy is taken"), "{line}: {told}");
        assert!(told.contains("storage second"), "{line}: {told}");
        // That one alone is meant.
        let alone = line.split(' ').chain(["--storage", "second"]);
        let alone = alone.map(|word| if word == "-o" { "--yes -o" } else { word });
        let alone: Vec<&str> = alone.flat_map(|word| word.split(' ')).collect();
        let told = program.run(alone).expect(3).stderr;
        assert!(!told.contains("another copy"), "{line}: {told}");
    }
    assert_eq!(fs::read(program.folder().join("all")).unwrap(), whole);
    // What went out can't be taken back, but it is told where to get all of it.
    for line in ["backup keys web", "backup export web --format jsonl"] {
        let told = program.run(line.split(' ')).expect(3).stderr;
        assert!(told.contains("is not all"), "{line}: {told}");
        assert!(told.contains("add `--storage disk`"), "{line}: {told}");
        let there = line.split(' ').chain(["--storage", "disk"]);
        assert_eq!(program.run(there).expect(0).stderr, "", "{line}");
    }
}
