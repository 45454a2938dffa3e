#![allow(clippy::unwrap_used)]

use std::os::unix::ffi::OsStringExt as _;

use clap::CommandFactory as _;

use super::*;

fn parsed(line: &str) -> Result<Cli, NotACommand> {
    parse(line.split_whitespace().map(OsString::from))
}

fn wrong(line: &str) -> (Failure, bool) {
    match parsed(line) {
        Err(NotACommand::Wrong { failure, json }) => (failure, json),
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_definition_holds_together() {
    Cli::command().debug_assert();
}

#[test]
fn every_restore_flag_is_taken() {
    let cli = parsed(
        "rdbkeeper restore sessions@2026-01-01T00:00:00Z --to rediss://u@h/3 --password-file p --tls-ca a --tls-cert b \
         --tls-key c --db 1 --db 2 --match x* --exclude y? --type hash --type string --map 1:4 --rename-prefix a=b=c \
         --on-conflict replace --flush --ttl shift --rate 100 --dry-run --yes --show-keys --storage disk --json -vv",
    )
    .unwrap();
    assert!(cli.global.json);
    assert_eq!(cli.global.verbose, 2);
    let Command::Restore(restore) = cli.command else {
        panic!("restore");
    };
    assert_eq!(restore.to.to.as_deref(), Some("rediss://u@h/3"));
    assert_eq!(restore.filters.db, [1, 2]);
    assert_eq!(restore.filters.r#match, [b"x*"]);
    assert_eq!(restore.filters.r#type, ["hash", "string"]);
    assert_eq!(restore.map, [(1, 4)]);
    assert_eq!(restore.rename_prefix, [(b"a".to_vec(), b"b=c".to_vec())]);
    assert_eq!(restore.on_conflict, OnConflict::Replace);
    assert_eq!(restore.ttl, Ttl::Shift);
    assert_eq!(restore.rate, Some(100));
    assert!(restore.flush && restore.dry_run && restore.yes && restore.show_keys);
    assert_eq!(restore.storage.unwrap().as_str(), "disk");
}

#[test]
fn a_glob_is_bytes_not_text() {
    let line = ["rdbkeeper", "restore", "x.rdb", "--to-file", "y", "--match"];
    let glob = OsString::from_vec(b"\xff*".to_vec());
    let cli = parse(line.iter().map(OsString::from).chain([glob])).unwrap();
    let Command::Restore(restore) = cli.command else {
        panic!("restore");
    };
    assert_eq!(restore.filters.r#match, [b"\xff*"]);
}

#[test]
fn the_other_commands_are_taken() {
    for line in [
        "rdbkeeper backup now",
        "rdbkeeper backup now a b --method scan --storage disk",
        "rdbkeeper --config x.toml --log json -q backup list a",
        "rdbkeeper backup show latest --json",
        "rdbkeeper backup verify",
        "rdbkeeper backup verify a b",
        "rdbkeeper backup verify --all --storage disk",
        "rdbkeeper backup delete x --yes",
        "rdbkeeper backup prune",
        "rdbkeeper backup prune a b --dry-run --storage disk --json",
        "rdbkeeper backup pin x --storage disk",
        "rdbkeeper backup unpin x",
        "rdbkeeper backup accept x",
        "rdbkeeper restore a --to-file x.rdb",
        "rdbkeeper check --storage disk",
        "rdbkeeper completions zsh",
        "rdbkeeper man",
    ] {
        assert!(parsed(line).is_ok(), "{line}");
    }
}

#[test]
fn a_wrong_line_is_a_usage_failure_and_knows_json() {
    for line in [
        "rdbkeeper",
        "rdbkeeper backup",
        "rdbkeeper bakup now",
        "rdbkeeper backup now UPPER",
        "rdbkeeper backup now --method dump",
        "rdbkeeper backup verify a --all",
        "rdbkeeper backup pin",
        "rdbkeeper backup accept a b",
        "rdbkeeper restore a",
        "rdbkeeper restore a --to b --to-file c",
        "rdbkeeper restore a --to-file c --flush",
        "rdbkeeper restore a --to-file c --password-file p",
        "rdbkeeper restore a --to b --tls-cert x",
        "rdbkeeper restore a --to b --map 1",
        "rdbkeeper restore a --to b --type strings",
        "rdbkeeper restore a --to b --rate 0",
        "rdbkeeper -v -q check",
        "rdbkeeper --log syslog check",
    ] {
        let (failure, json) = wrong(line);
        assert_eq!(failure.kind, Kind::Usage, "{line}");
        assert!(!failure.message.is_empty() && !failure.message.contains("error:"));
        assert!(!json);
        assert!(wrong(&format!("{line} --json")).1, "{line}");
    }
    // Behind `--` it is no flag.
    assert!(!wrong("rdbkeeper backup show -- --json x").1);
    let (failure, _) = wrong("rdbkeeper bakup now");
    assert!(format!("{failure:?}").contains("backup"), "{failure:?}");
}

#[test]
fn what_is_no_database_is_told_how_several_are_named() {
    for db in ["-1", "3,5", "x", "4294967296"] {
        let (failure, _) = wrong(&format!("rdbkeeper backup keys a --db {db}"));
        assert!(failure.message.contains(db), "{failure:?}");
        assert!(failure.message.contains("repeat the flag"), "{failure:?}");
        assert!(!format!("{failure:?}").contains("'-- "), "{failure:?}");
    }
}

#[test]
fn help_is_no_failure() {
    for line in [
        "rdbkeeper --help",
        "rdbkeeper -h",
        "rdbkeeper --version",
        "rdbkeeper backup --help",
        "rdbkeeper restore --help",
    ] {
        assert!(
            matches!(parsed(line), Err(NotACommand::Text { .. })),
            "{line}"
        );
    }
}

#[test]
fn a_password_on_a_wrong_line_is_not_told() {
    for line in [
        "rdbkeeper restore a redis://me:hunter2@h",
        "rdbkeeper restore a --to-file x redis://:hunter2@h/1",
        "rdbkeeper restore a --too=redis://me:hunter2@h",
        "rdbkeeper backup now redis://:hunter2@h",
        "rdbkeeper check --storage redis://:hunter2@h",
    ] {
        let (failure, _) = wrong(line);
        assert!(!format!("{failure:?}").contains("hunter2"), "{failure:?}");
    }
}
