//! R4: every kind of damage to every object is found by verify and by restore, and the target stays untouched.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cmd;
use crate::support::age::Key;
use crate::support::data::{Random, sessions};
use crate::support::program::Program;
use crate::support::servers::{Server, usual};

/// A small archive with two backups of different data.
fn archive(program: &Program, server: &Server) -> (PathBuf, PathBuf) {
    let mut folders = Vec::new();
    for round in 0..2 {
        server.client().run(cmd!["SET", "round", round]);
        let made = program.json(["backup", "now"]).expect(0).json();
        let id = made[0]["id"].as_str().unwrap().to_owned();
        folders.push(program.archive().join("web").join(id));
    }
    (folders.remove(0), folders.remove(0))
}

/// Runs verify and restore on the backup, by its ID and by its path, and wants 3 of each.
#[track_caller]
fn must_be_found(program: &Program, folder: &Path, target: &Server, what: &str) {
    let id = folder.file_name().unwrap().to_str().unwrap();
    let by_path = folder.to_str().unwrap();
    let url = target.url();
    for arguments in [
        vec!["backup", "verify", id],
        vec!["backup", "verify", by_path],
        vec!["restore", id, "--to", &url],
        vec!["restore", by_path, "--to", &url, "--flush", "--yes"],
        vec!["restore", by_path, "--to-file", "out.rdb"],
    ] {
        let ran = program.run(&arguments);
        assert_eq!(ran.code, Some(3), "{what}: {arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("error: "), "{what}: {}", ran.stderr);
    }
    assert!(!program.folder().join("out.rdb").exists());
    assert_eq!(
        target.client().run(cmd!["GET", "mine"]).text(),
        "untouched",
        "{what}: the target was touched"
    );
}

#[test]
fn damage_to_any_object_is_found_by_verify_and_by_restore_and_the_target_stays_untouched() {
    let server = Server::start(usual());
    server.client().run_all(sessions(300));
    let target = Server::start(usual());
    target.client().run(cmd!["SET", "mine", "untouched"]);
    let key = Key::new();
    let encrypted = format!(
        "recipients = [{:?}]\nidentity = {:?}",
        key.public, key.secret
    );
    for (compression, encryption) in [
        ("zstd:3", ""),
        ("gzip:6", ""),
        ("none", ""),
        ("zstd:3", &encrypted),
        ("none", &encrypted),
    ] {
        let program = Program::new(&format!(
            "[[database]]\nname = \"web\"\nurl = \"{}\"\ncompression = \"{compression}\"\n{encryption}\n",
            server.url()
        ));
        let (folder, other) = archive(&program, &server);
        program.run(["backup", "verify", "--all"]).expect(0);
        let mut objects: Vec<String> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        objects.sort();
        assert_eq!(objects.len(), 2, "{objects:?}");
        let mut random = Random::new(4);
        for object in &objects {
            let path = folder.join(object);
            let whole = fs::read(&path).unwrap();
            let check = |bytes: Option<&[u8]>, what: &str| {
                match bytes {
                    Some(bytes) => fs::write(&path, bytes).unwrap(),
                    None => fs::remove_file(&path).unwrap(),
                }
                must_be_found(&program, &folder, &target, what);
                fs::write(&path, &whole).unwrap();
            };
            for at in [0, random.below(whole.len()), whole.len() - 1] {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << random.below(8);
                check(
                    Some(&flipped),
                    &format!("{compression} {object} flipped at {at}"),
                );
            }
            let cut = &whole[..random.below(whole.len())];
            check(Some(cut), &format!("{compression} {object} cut"));
            let long = [&whole[..], b"\0"].concat();
            check(Some(&long), &format!("{compression} {object} extended"));
            check(Some(b""), &format!("{compression} {object} emptied"));
            check(None, &format!("{compression} {object} gone"));
            let swapped = fs::read(other.join(object)).unwrap();
            // By its path a folder with another backup's data and manifest alike would be that backup.
            check(Some(&swapped), &format!("{compression} {object} swapped"));
        }
        program.run(["backup", "verify", "--all"]).expect(0);
    }
}
