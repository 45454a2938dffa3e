//! `backup keys`.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};

use super::dumped;
use super::reader::bytes;
use crate::cmd;
use crate::support::compare::Contents;
use crate::support::data::{fill, sessions};
use crate::support::program::finish;
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
