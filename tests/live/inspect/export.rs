//! `backup export`: RDB files, commands, and what is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use rdbkeeper::rdb::{Family, FileVersion, NewKey, Writer};
use rustix::process::Signal;

use super::jsonl::large_hash;
use super::{dumped, program, redis_cli};
use crate::cmd;
use crate::support::compare::{Contents, Value};
use crate::support::data::fill;
use crate::support::poll;
use crate::support::program::{files_below, finish, signal};
use crate::support::servers::{Server, each, usual};

#[test]
fn an_rdb_file_without_filters_is_the_one_that_was_dumped_and_with_filters_one_that_a_server_loads()
{
    let (program, server, path) = dumped(usual(), |server| fill(&mut server.client(), usual()));
    let all = fs::read(&path).unwrap();
    let ran = program
        .run([
            "backup",
            "export",
            "./dump.rdb",
            "--format",
            "rdb",
            "-o",
            "all.rdb",
        ])
        .expect(0);
    assert!(
        ran.stdout.starts_with("exported all to all.rdb"),
        "{}",
        ran.stdout
    );
    let made = program.folder().join("all.rdb");
    assert_eq!(fs::read(&made).unwrap(), all);
    assert_eq!(
        fs::metadata(&made).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let ran = program
        .json([
            "backup",
            "export",
            "./dump.rdb",
            "--format",
            "rdb",
            "-o",
            "some.rdb",
            "--match",
            "*:*",
            "--db",
            "0",
        ])
        .expect(0)
        .json();
    let mut wanted =
        Contents::of(&mut server.client()).only(|db, key, _| db == 0 && key.contains(&b':'));
    assert_eq!(ran["keys"].as_u64().unwrap() as usize, wanted.keys());
    let mut other = Server::start(usual());
    other.kill();
    fs::copy(program.folder().join("some.rdb"), other.dump_file()).unwrap();
    other.restart();
    // Libraries belong to no key: they come along when every key is meant.
    wanted.functions = None;
    wanted.must_equal(&Contents::of(&mut other.client()), "filtered");

    // The same to standard output.
    let line = [
        "backup",
        "export",
        "./dump.rdb",
        "--format",
        "rdb",
        "--match",
        "*:*",
        "--db",
        "0",
    ];
    let output = program.command(line).output().unwrap();
    assert!(output.status.success());
    assert_eq!(
        output.stdout,
        fs::read(program.folder().join("some.rdb")).unwrap()
    );
}

#[test]
fn a_file_that_is_there_is_not_replaced_unless_that_is_said() {
    let (program, _server, path) = dumped(usual(), |server| fill(&mut server.client(), usual()));
    let out = program.folder().join("out");
    fs::write(&out, "precious").unwrap();
    for format in ["rdb", "jsonl"] {
        let line = [
            "backup",
            "export",
            "./dump.rdb",
            "--format",
            format,
            "-o",
            "out",
        ];
        let ran = program.run(line).expect(5);
        assert!(ran.stderr.contains("--yes"), "{}", ran.stderr);
        assert_eq!(fs::read(&out).unwrap(), b"precious");
    }
    let line = [
        "backup",
        "export",
        "./dump.rdb",
        "--format",
        "rdb",
        "-o",
        "out",
        "--yes",
    ];
    program.run(line).expect(0);
    assert_eq!(fs::read(&out).unwrap(), fs::read(path).unwrap());
}

#[test]
fn a_damaged_backup_makes_no_file_and_what_was_streamed_is_said_not_to_be_all() {
    let (program, _server, path) = dumped(usual(), |server| fill(&mut server.client(), usual()));
    let mut bytes = fs::read(&path).unwrap();
    // The checksum: all keys are read before it.
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(program.folder().join("bad.rdb"), bytes).unwrap();
    let before = files_below(program.folder());
    for filters in [&[][..], &["--db", "0"]] {
        for format in ["rdb", "jsonl"] {
            let line = ["backup", "export", "./bad.rdb", "--format", format];
            let to_file = [&line[..], filters, &["-o", "out"]].concat();
            program.run(to_file).expect(3);
            assert_eq!(files_below(program.folder()), before);
            let output = program
                .command([&line[..], filters].concat())
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(3));
            let told = String::from_utf8(output.stderr).unwrap();
            assert!(
                output.stdout.is_empty() || told.contains("is not all"),
                "{told}"
            );
        }
    }
    program.run(["backup", "keys", "./bad.rdb"]).expect(3);
    let ran = program
        .run(["backup", "diff", "./dump.rdb", "./bad.rdb"])
        .expect(3);
    assert_eq!(ran.stdout, "");
    // Nothing was written yet, so the error is the document.
    let ran = program
        .json(["backup", "diff", "./dump.rdb", "./bad.rdb"])
        .expect(3);
    assert_eq!(ran.json()["error"]["kind"], "damaged");
}

#[test]
fn a_file_that_is_not_known_to_its_end_is_refused_where_keys_are_meant_and_copied_where_bytes_are()
{
    let program = program();
    let version = FileVersion {
        family: Family::Redis,
        number: 12,
    };
    let mut writer = Writer::new(Vec::new(), version).unwrap();
    writer.key(&NewKey::new(b"known", 0), b"\x01v").unwrap();
    writer
        .key(&NewKey::new(b"unknown", 99), b"whatever")
        .unwrap();
    let (bytes, _) = writer.finish().unwrap();
    fs::write(program.folder().join("newer.rdb"), &bytes).unwrap();
    for line in [
        &["backup", "keys", "./newer.rdb"][..],
        &["backup", "export", "./newer.rdb", "--format", "jsonl"],
        &[
            "backup",
            "export",
            "./newer.rdb",
            "--format",
            "rdb",
            "--db",
            "0",
        ],
        &["backup", "diff", "./newer.rdb", "./newer.rdb"],
    ] {
        let ran = program.run(line).expect(5);
        assert!(
            ran.stderr.contains("type or opcode 99"),
            "{line:?}: {}",
            ran.stderr
        );
    }
    let line = [
        "backup",
        "export",
        "./newer.rdb",
        "--format",
        "rdb",
        "-o",
        "copy",
    ];
    program.run(line).expect(0);
    assert_eq!(fs::read(program.folder().join("copy")).unwrap(), bytes);
    let shown = program
        .json(["backup", "show", "./newer.rdb"])
        .expect(0)
        .json();
    assert_eq!(shown["content"]["types"][0]["keys"], 1);
}

#[test]
fn a_wrong_command_line_is_told_before_anything_is_read() {
    let (program, _server, _) = dumped(usual(), |server| fill(&mut server.client(), usual()));
    for line in [
        &["backup", "export", "./dump.rdb"][..],
        &["backup", "export", "./dump.rdb", "--format", "xml"],
        &[
            "backup",
            "export",
            "./dump.rdb",
            "--format",
            "jsonl",
            "--yes",
        ],
        &[
            "backup",
            "export",
            "./dump.rdb",
            "--format",
            "jsonl",
            "-o",
            ".",
        ],
        &[
            "backup",
            "export",
            "./dump.rdb",
            "--format",
            "jsonl",
            "--type",
            "sets",
        ],
        &[
            "--json",
            "backup",
            "export",
            "./dump.rdb",
            "--format",
            "rdb",
        ],
        &["backup", "keys"],
        &["backup", "diff", "./dump.rdb"],
        &["backup", "show", "./dump.rdb", "--content", "--no-content"],
    ] {
        program.run(line).expect(2);
    }
    for line in [
        &["backup", "keys", "./none.rdb"][..],
        &[
            "backup",
            "export",
            "./none.rdb",
            "--format",
            "jsonl",
            "-o",
            "out",
        ],
        &["backup", "diff", "./dump.rdb", "20261122T214353Z-7f3a9c"],
    ] {
        program.run(line).expect(4);
    }
    fs::write(program.folder().join("text.rdb"), "no RDB file").unwrap();
    program.run(["backup", "keys", "./text.rdb"]).expect(3);
    assert!(!program.folder().join("out").exists());
}

#[test]
fn an_export_that_is_stopped_leaves_no_file() {
    let program = program();
    large_hash(&program, 3_000_000);
    let before = files_below(program.folder());
    let line = [
        "backup",
        "export",
        "./large.rdb",
        "--format",
        "jsonl",
        "-o",
        "out",
    ];
    let child = program.spawn(line);
    poll::until("the beginning of a file", || {
        let files = files_below(program.folder());
        let begun = files.iter().any(|file| {
            let named = file.to_string_lossy().starts_with(".out.");
            let length = fs::metadata(program.folder().join(file)).map_or(0, |file| file.len());
            named && length > 0
        });
        begun.then_some(())
    });
    signal(&child, Signal::TERM);
    let ran = finish(child);
    assert_eq!(ran.code, Some(143), "{}", ran.stderr);
    assert_eq!(files_below(program.folder()), before);
}

#[test]
fn commands_through_the_pipe_of_redis_cli_make_the_same_data_on_another_server() {
    let Some(cli) = redis_cli() else { return };
    each(|kind| {
        let (program, server, _) = dumped(kind, |server| fill(&mut server.client(), kind));
        let other = Server::start(kind);
        // What is under the names already is replaced.
        other.client().run(cmd!["HSET", "string:raw", "f", "v"]);
        other.client().run(cmd!["SET", "list:3000", "v"]);
        let mut export = program
            .command(["backup", "export", "./dump.rdb", "--format", "resp"])
            .spawn()
            .unwrap();
        let piped = Command::new(&cli)
            .args(["-p", &other.port().to_string(), "--pipe"])
            .stdin(export.stdout.take().unwrap())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&piped.stdout).into_owned();
        assert!(told.contains("errors: 0,"), "{kind}: {told}");
        let ran = finish(export);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{kind}");
        let mut wanted = Contents::of(&mut server.client());
        let items = wanted.databases.values_mut();
        for item in items.flat_map(|items| items.values_mut()) {
            without_times_of_consumers(&mut item.value);
        }
        wanted.must_equal(&Contents::of(&mut other.client()), &kind.to_string());
    });
}

/// No command sets when a consumer was last seen.
fn without_times_of_consumers(value: &mut Value) {
    match value {
        Value::Map(map) => {
            map.remove("seen-time");
            map.values_mut().for_each(without_times_of_consumers);
        }
        Value::List(items) => items.iter_mut().for_each(without_times_of_consumers),
        Value::Text(_) | Value::Nil => {}
    }
}

#[test]
fn a_value_that_cannot_be_decoded_is_named_and_can_be_left_out_when_the_file_is_as_it_was_written()
{
    let program = program();
    let version = FileVersion {
        family: Family::Redis,
        number: 10,
    };
    let mut writer = Writer::new(Vec::new(), version).unwrap();
    writer.key(&NewKey::new(b"good", 0), b"\x01v").unwrap();
    // A set of integers that is none.
    writer
        .key(&NewKey::new(b"rotten:0123456789abcdef", 11), b"\x03abc")
        .unwrap();
    let (mut bytes, _) = writer.finish().unwrap();
    fs::write(program.folder().join("rotten.rdb"), &bytes).unwrap();
    // The checksum does not fit either: the file was changed.
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(program.folder().join("changed.rdb"), &bytes).unwrap();
    fn line<'a>(format: &'a str, file: &'a str) -> Vec<&'a str> {
        match format {
            "diff" => vec!["backup", "diff", file, file],
            format => vec!["backup", "export", file, "--format", format, "-o", "out"],
        }
    }
    for format in ["jsonl", "resp", "diff"] {
        let rotten = program.run(line(format, "./rotten.rdb")).expect(3).stderr;
        assert!(rotten.contains("\"rotten:0123456789abcdef\""), "{rotten}");
        assert!(rotten.contains("--exclude"), "{rotten}");
        let changed = program.run(line(format, "./changed.rdb")).expect(3).stderr;
        assert!(changed.contains("./changed.rdb is damaged"), "{changed}");
        assert!(changed.contains("\"rotten:0123456789abcdef\""), "{changed}");
        assert!(!changed.contains("--exclude"), "{changed}");
        let without = [
            &line(format, "./rotten.rdb")[..],
            &["--exclude", "rotten:*"],
        ]
        .concat();
        program.run(without).expect(0);
        let _ = fs::remove_file(program.folder().join("out"));
    }
}
