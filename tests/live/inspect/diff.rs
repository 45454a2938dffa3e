//! `backup diff`.

use super::dumped;
use crate::cmd;
use crate::support::data::fill;
use crate::support::servers::{Server, named, usual};

#[test]
fn what_was_added_removed_and_changed_is_told_and_nothing_else() {
    let (program, server, _) = dumped(usual(), |server| {
        let mut client = server.client();
        fill(&mut client, usual());
        client.select(1);
        client.run(cmd!["SET", "one more", "v"]);
    });
    let mut client = server.client();
    client.run(cmd!["SET", b"new \xff\\".as_slice(), "v"]);
    client.run(cmd!["DEL", "string:lzf"]);
    client.run(cmd!["RPUSH", "list:3000", "x"]);
    client.run(cmd!["PEXPIREAT", "hash:129", 4_102_444_800_000_u64]);
    client.run(cmd!["SET", "expiring:string", "another", "PX", 1_000_000]);
    client.run(cmd!["DEL", "set:ints:1"]);
    client.run(cmd!["LPUSH", "set:ints:1", "1"]);
    client.run(cmd!["HSET", "hash:2", "field 0", "other"]);
    // The same content by another way, in another order and encoding.
    client.run(cmd!["SADD", "set:words:2", "x".repeat(100)]);
    client.run(cmd!["SREM", "set:words:2", "x".repeat(100)]);
    client.select(1);
    client.run(cmd!["DEL", "one more"]);
    std::fs::write(program.folder().join("new.rdb"), server.save()).unwrap();

    let ran = program
        .run(["backup", "diff", "./dump.rdb", "./new.rdb"])
        .expect(0);
    let wanted = [
        "~ 0 expiring:string (value, expiry)",
        "~ 0 hash:129 (expiry)",
        "~ 0 hash:2 (value)",
        "~ 0 list:3000 (value)",
        r"+ 0 new \xff\\",
        "~ 0 set:ints:1 (type)",
        "- 0 string:lzf",
        "- 1 one more",
    ];
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines[..lines.len() - 1], wanted);
    let summary = lines.last().unwrap();
    assert!(
        summary.starts_with("1 added, 2 removed, 5 changed, "),
        "{summary}"
    );

    let document = program
        .json(["backup", "diff", "./dump.rdb", "./new.rdb"])
        .expect(0)
        .json();
    assert_eq!(document["added"], 1);
    assert_eq!(document["removed"], 2);
    assert_eq!(document["changed"], 5);
    assert!(document["same"].as_u64().unwrap() > 100);
    let first = &document["differences"][0];
    assert_eq!(first["change"], "changed");
    assert_eq!(first["key"], "expiring:string");
    assert_eq!(first["what"], serde_json::json!(["value", "expiry"]));
    assert_eq!(document["differences"].as_array().unwrap().len(), 8);

    // The other way round, and filtered.
    let ran = program
        .run(["backup", "diff", "./new.rdb", "./dump.rdb", "--db", "1"])
        .expect(0);
    assert!(
        ran.stdout.starts_with("+ 1 one more\n1 added, 0 removed"),
        "{}",
        ran.stdout
    );
    let ran = program
        .json(["backup", "diff", "./new.rdb", "./new.rdb"])
        .expect(0);
    assert_eq!(ran.json()["differences"], serde_json::json!([]));
}

#[test]
fn the_same_data_on_another_server_is_no_difference() {
    for (old, new) in [
        ("redis-6.2", "redis-7.0"),
        ("redis-7.0", "redis-8.0"),
        ("redis-7.0", "valkey-9.1"),
    ] {
        let (Some(old), Some(new)) = (named(old), named(new)) else {
            continue;
        };
        let (program, _server, path) = dumped(old, |server| {
            fill(&mut server.client(), old);
        });
        let other = Server::start(new);
        program
            .run(["restore", "./dump.rdb", "--to", &other.url()])
            .expect(0);
        let arrived = program.folder().join("arrived.rdb");
        std::fs::write(&arrived, other.save()).unwrap();
        assert_ne!(
            std::fs::read(&path).unwrap(),
            std::fs::read(&arrived).unwrap()
        );
        let ran = program
            .run(["backup", "diff", "./dump.rdb", "./arrived.rdb"])
            .expect(0);
        assert!(
            ran.stdout.starts_with("0 added, 0 removed, 0 changed, "),
            "{old} and {new}: {}",
            ran.stdout
        );
    }
}
