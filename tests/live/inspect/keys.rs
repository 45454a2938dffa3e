//! `backup keys`.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};

use rustix::process::Signal;

use super::dumped;
use super::reader::bytes;
use crate::cmd;
use crate::support::compare::Contents;
use crate::support::data::{fill, sessions};
use crate::support::program::{finish, signal};
use crate::support::servers::{each, usual};

#[test]
fn every_key_is_listed_with_its_type_and_expiry_under_a_name_that_can_be_read_back() {
    each(|kind| {
        let (program, server, path) = dumped(kind, |server| {
            let mut client = server.client();
            fill(&mut client, kind);
            client.run(cmd!["SET", b"\xff\x00\\ \x1b[2J \xc2\x9b".as_slice(), "v"]);
        });
        let there = Contents::of(&mut server.client());
        let ran = program.json(["backup", "keys", "./dump.rdb"]).expect(0);
        let mut found = BTreeMap::new();
        let mut total = 0;
        for row in ran.json().as_array().unwrap() {
            let key = bytes(row["key"].as_str().unwrap());
            let db = row["db"].as_u64().unwrap() as u32;
            let kind = row["type"].as_str().unwrap().to_owned();
            assert!(row["encoding"].as_str().unwrap().starts_with(&kind[..3]));
            total += row["bytes"].as_u64().unwrap();
            let expiry = row.get("expire_at_ms").map(|at| at.as_i64().unwrap());
            assert!(found.insert((db, key), (kind, expiry)).is_none());
        }
        let mut wanted = BTreeMap::new();
        for (db, items) in &there.databases {
            for (key, item) in items {
                wanted.insert((*db, key.clone()), (item.kind.clone(), item.expiry.at()));
            }
        }
        assert_eq!(found.len(), wanted.len(), "{kind}");
        for (key, (kind, expiry)) in &wanted {
            let (listed, at) = &found[key];
            assert_eq!(listed, kind);
            assert_eq!(at.is_some(), expiry.is_some());
        }
        // All but the file's own head, end and functions.
        let size = std::fs::metadata(&path).unwrap().len();
        assert!(total < size && total > size * 8 / 10, "{total} of {size}");

        let ran = program.run(["backup", "keys", "./dump.rdb"]).expect(0);
        let mut lines = ran.stdout.lines();
        let head: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
        assert_eq!(head, ["DB", "TYPE", "BYTES", "EXPIRES", "KEY"]);
        assert_eq!(lines.clone().count(), wanted.len());
        for line in lines {
            assert!(!line.chars().any(char::is_control));
            let mut words = line.split_whitespace();
            let db = words.next().unwrap().parse().unwrap();
            let kind = words.next().unwrap();
            assert!(words.next().unwrap().parse::<u64>().unwrap() > 2);
            let expires = words.next().unwrap();
            // Two blanks behind the widest column.
            let at = line.find(expires).unwrap() + expires.len().max(24) + 2;
            let key = bytes(&line[at..]);
            let (wanted_kind, expiry) = &wanted[&(db, key)];
            assert_eq!(kind, wanted_kind);
            match expiry {
                None => assert_eq!(expires, "-"),
                Some(_) => assert!(expires.parse::<jiff::Timestamp>().is_ok(), "{expires}"),
            }
        }
    });
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let (program, _server, _) = dumped(usual(), |server| {
        server.client().run_all(sessions(60_000));
    });
    for line in [
        vec!["backup", "keys", "./dump.rdb"],
        vec!["--json", "backup", "keys", "./dump.rdb"],
        vec!["backup", "export", "./dump.rdb", "--format", "jsonl"],
        vec!["backup", "export", "./dump.rdb", "--format", "rdb"],
        vec![
            "backup",
            "export",
            "./dump.rdb",
            "--format",
            "rdb",
            "--db",
            "0",
        ],
    ] {
        let mut child = program.spawn(&line);
        let mut first = Vec::new();
        let mut stdout = BufReader::with_capacity(4096, child.stdout.take().unwrap());
        stdout.read_until(b'\n', &mut first).unwrap();
        assert!(!first.is_empty());
        drop(stdout);
        let ran = finish(child);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{line:?}");
    }
}

/// A place with a file of so many keys that their list goes out in several pieces.
fn many() -> (crate::support::program::Program, std::path::PathBuf) {
    let (program, _server, path) = dumped(usual(), |server| {
        server.client().run_all(sessions(60_000));
    });
    (program, path)
}

#[test]
fn a_list_of_a_damaged_backup_is_one_json_document_whose_last_element_is_the_error() {
    let (program, path) = many();
    let mut bytes = std::fs::read(&path).unwrap();
    // The checksum: all keys are read before it.
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let ran = program.json(["backup", "keys", "./dump.rdb"]).expect(3);
    let document = ran.json();
    let list = document.as_array().unwrap();
    let (last, keys) = list.split_last().unwrap();
    assert!(keys.len() > 1000 && keys.iter().all(|row| row["key"].is_string()));
    assert_eq!(last["error"]["code"], 3);
    assert_eq!(last["error"]["kind"], "damaged");
    assert_eq!(ran.stderr, "");
    // What fits into one piece is not begun before the end is known.
    let line = ["backup", "keys", "./dump.rdb", "--match", "*f00*"];
    let document = program.json(line).expect(3).json();
    assert_eq!(document["error"]["code"], 3);
}

#[test]
fn a_list_that_a_signal_stops_is_one_json_document() {
    let (program, _) = many();
    let mut child = program.spawn(["--json", "backup", "keys", "./dump.rdb"]);
    let mut stdout = BufReader::with_capacity(4096, child.stdout.take().unwrap());
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut text = Vec::new();
    stdout.read_until(b'{', &mut text).unwrap();
    signal(&child, Signal::TERM);
    let mut told = String::new();
    stderr.read_line(&mut told).unwrap();
    assert!(told.contains("stopping"), "{told}");
    stdout.read_to_end(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    let document: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let list = document.as_array().unwrap();
    assert!(list.len() > 1 && list.len() < 60_000, "{}", list.len());
    assert_eq!(list.last().unwrap()["error"]["code"], 143);
}

#[test]
fn a_signal_ends_a_list_that_nobody_reads() {
    let (program, _) = many();
    let mut child = program.spawn(["--json", "backup", "keys", "./dump.rdb"]);
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0]).unwrap();
    signal(&child, Signal::TERM);
    // The pipe is full, and stays so.
    assert_eq!(child.wait().unwrap().code(), Some(143));
    let mut told = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut told)
        .unwrap();
    assert!(told.contains("error: "), "{told}");
    drop(stdout);
}

#[test]
fn an_output_that_takes_nothing_is_told() {
    let (program, _server, _) = dumped(usual(), |server| {
        server.client().run_all(sessions(20));
    });
    for line in [
        &["backup", "keys", "./dump.rdb"][..],
        &["backup", "diff", "./dump.rdb", "./dump.rdb"],
        &["backup", "show", "./dump.rdb"],
    ] {
        for json in [&[][..], &["--json"]] {
            let full = std::fs::File::options()
                .write(true)
                .open("/dev/full")
                .unwrap();
            let mut command = program.command([json, line].concat());
            let ran = finish(command.stdout(full).spawn().unwrap());
            assert_eq!(ran.code, Some(1), "{line:?}");
            assert!(
                ran.stderr.contains("cannot write to standard output"),
                "{}",
                ran.stderr
            );
            assert!(ran.stderr.contains("No space left"), "{}", ran.stderr);
        }
    }
}

#[test]
fn filters_that_take_no_key_are_told() {
    let (program, _server, _) = dumped(usual(), |server| {
        server.client().run_all(sessions(20));
    });
    for line in [
        &["backup", "keys", "./dump.rdb"][..],
        &["backup", "diff", "./dump.rdb", "./dump.rdb"],
        &["backup", "export", "./dump.rdb", "--format", "jsonl"],
        &[
            "backup",
            "export",
            "./dump.rdb",
            "--format",
            "rdb",
            "-o",
            "x",
            "--yes",
        ],
    ] {
        let ran = program.run([line, &["--db", "7"]].concat()).expect(0);
        assert!(ran.stderr.contains("no key is selected"), "{}", ran.stderr);
        let ran = program.run(line).expect(0);
        assert!(!ran.stderr.contains("no key"), "{}", ran.stderr);
    }
}
