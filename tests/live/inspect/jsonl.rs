//! `backup export --format jsonl`.

use rdbkeeper::rdb::{DbIndex, Family, FileVersion, NewKey, Writer};

use super::reader::contents;
use super::{dumped, program};
use crate::cmd;
use crate::support::compare::Contents;
use crate::support::data::{Random, fill};
use crate::support::program::Program;
use crate::support::servers::{each, usual};

#[test]
fn json_lines_hold_what_every_server_holds_of_every_type() {
    each(|kind| {
        let (program, server, _) = dumped(kind, |server| {
            let mut client = server.client();
            fill(&mut client, kind);
            let mut random = Random::new(11);
            for n in 0..200 {
                let size = random.below(90);
                let noise = random.bytes(size);
                client.run(cmd![
                    "SET",
                    [format!("noise {n} ").into_bytes(), noise.clone()].concat(),
                    noise
                ]);
            }
            let noise = random.bytes(40);
            client.run(cmd![
                "HSET",
                "noise hash",
                noise.clone(),
                noise.clone(),
                "\\x41",
                "\\"
            ]);
            client.run(cmd![
                "SADD",
                "noise set",
                noise.clone(),
                "\u{80}\u{9f}ä",
                "\"quoted\""
            ]);
            client.run(cmd![
                "ZADD",
                "scores",
                "inf",
                "a",
                "-inf",
                "b",
                "-0.0",
                "c",
                "1e300",
                "d",
                "5e-324",
                "e",
                "0.1",
                "f",
                "9007199254740993",
                "g"
            ]);
            client.run(cmd![
                "XADD",
                "noise stream",
                "1-1",
                noise.clone(),
                noise,
                "f",
                "v",
                "f",
                "again"
            ]);
        });
        let ran = program
            .run(["backup", "export", "./dump.rdb", "--format", "jsonl"])
            .expect(0);
        assert_eq!(ran.stderr, "", "{kind}");
        contents(&ran.stdout).must_equal(&Contents::of(&mut server.client()), &kind.to_string());
    });
}

#[test]
fn filters_choose_the_lines() {
    let (program, server, _) = dumped(usual(), |server| fill(&mut server.client(), usual()));
    let export = |more: &[&str]| {
        let mut line = vec!["backup", "export", "./dump.rdb", "--format", "jsonl"];
        line.extend(more);
        contents(&program.run(&line).expect(0).stdout)
    };
    let all = Contents::of(&mut server.client());
    let wanted = all.clone().only(|db, _, _| db == 1);
    assert!(wanted.keys() > 10);
    wanted.must_equal(&export(&["--db", "1"]), "one database");
    let wanted = all.clone().only(|_, key, item| {
        key.starts_with(b"hash:") && item.kind == "hash" && !key.ends_with(b"3")
    });
    assert!(wanted.keys() > 5);
    let found = export(&["--match", "hash:*", "--type", "hash", "--exclude", "*3"]);
    wanted.must_equal(&found, "by name and type");
    assert_eq!(export(&["--match", "no such key"]).keys(), 0);
}

#[test]
fn what_belongs_to_a_backup_that_is_stored_encrypted_is_exported_with_its_key_alone() {
    let (mut program, server, _) = dumped(usual(), |server| fill(&mut server.client(), usual()));
    let key = crate::support::age::Key::new();
    program.configure(&format!(
        "[[database]]\nname = \"web\"\nurl = \"{}\"\nrecipients = [{:?}]\n",
        server.url(),
        key.public
    ));
    program.env("RUST_BACKTRACE", "0");
    program.run(["backup", "now"]).expect(0);
    std::fs::write(program.folder().join("key"), key.file()).unwrap();
    let line = ["backup", "export", "web", "--format", "jsonl"];
    let ran = program.run(line).expect(1);
    assert!(ran.stderr.contains("decrypt"), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
    let with_key = [&line[..], &["--identity", "key"]].concat();
    let ran = program.run(with_key).expect(0);
    contents(&ran.stdout).must_equal(&Contents::of(&mut server.client()), "encrypted");
    // What it adds up to is not known without the key, which is said, and no failure.
    let shown = program.run(["backup", "show", "web"]).expect(0);
    assert!(shown.stdout.contains("key is not here"), "{}", shown.stdout);
    let shown = program
        .run(["backup", "show", "web", "--identity", "key"])
        .expect(0);
    assert!(shown.stdout.contains("LARGEST"), "{}", shown.stdout);
}

/// A file with one hash of so many fields.
pub fn large_hash(program: &Program, fields: u32) {
    let version = FileVersion {
        family: Family::Redis,
        number: 10,
    };
    let file = std::fs::File::create(program.folder().join("large.rdb")).unwrap();
    let mut writer = Writer::new(std::io::BufWriter::new(file), version).unwrap();
    writer.select_db(DbIndex(0)).unwrap();
    writer.begin_key(&NewKey::new(b"large", 4)).unwrap();
    writer.raw(&[0x80]).unwrap();
    writer.raw(&fields.to_be_bytes()).unwrap();
    for n in 0..fields {
        let field = format!("\x0dfield{n:08}\x20{n:032}");
        writer.raw(field.as_bytes()).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn a_hash_of_millions_of_fields_takes_no_more_memory_than_a_small_one() {
    let program = program();
    let fields = 3_000_000;
    large_hash(&program, fields);
    let mut child = program
        .command(["backup", "export", "./large.rdb", "--format", "jsonl"])
        .spawn()
        .unwrap();
    // Read slowly enough to look at it meanwhile, and count.
    let mut stdout = child.stdout.take().unwrap();
    let (mut bytes, mut quotes) = (0_u64, 0_u64);
    let mut peak = 0;
    let mut piece = vec![0; 1 << 20];
    loop {
        let count = std::io::Read::read(&mut stdout, &mut piece).unwrap();
        if count == 0 {
            break;
        }
        bytes += count as u64;
        quotes += piece[..count].iter().filter(|byte| **byte == b'"').count() as u64;
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        peak = peak.max(kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0));
    }
    assert!(child.wait().unwrap().success());
    // A field, a value, their quotes, a colon, a comma.
    assert!(bytes > u64::from(fields) * 51, "{bytes}");
    assert!(quotes > u64::from(fields) * 4, "{quotes}");
    assert!(
        peak > 1000 && peak < 96 << 10,
        "{peak} KiB for a file of 141 MB"
    );
}
