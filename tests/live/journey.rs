//! The main job by the program itself: back up, prove, restore, compare.

use std::fs;
use std::io::Read as _;

use crate::cmd;
use crate::support::compare::{Contents, assert_same};
use crate::support::data::{celery, fill, sessions};
use crate::support::program::{Program, files_below};
use crate::support::servers::{Server, each, usual};

const METHODS: [&str; 3] = ["bgsave", "replication", "scan"];

#[test]
fn what_is_backed_up_by_any_method_from_any_server_comes_back_the_same() {
    each(|kind| {
        let source = Server::start(kind);
        fill(&mut source.client(), kind);
        let program = Program::new(&format!(
            "[[database]]\nname = \"all\"\nurl = \"{}\"\n",
            source.url()
        ));
        for method in METHODS {
            let made = program
                .json(["backup", "now", "--method", method])
                .expect(0)
                .json();
            assert_eq!(made[0]["method"], method, "{kind}");
            program.run(["backup", "verify"]).expect(0);
            let target = Server::start(kind);
            let url = target.url();
            program.run(["restore", "latest", "--to", &url]).expect(0);
            assert_same(
                &mut source.client(),
                &mut target.client(),
                &format!("{kind} by {method}"),
            );
        }
    });
}

#[test]
fn databases_on_one_server_share_one_dump_and_each_archive_holds_its_own() {
    let server = Server::start(usual());
    let mut client = server.client();
    client.run_all(sessions(500));
    client.select(3);
    client.run_all(celery());
    client.select(0);
    let saves = || {
        server
            .client()
            .info("rdb_saves")
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let all = Contents::of(&mut server.client());
    let dbs: Vec<u32> = server
        .client()
        .keyspace()
        .iter()
        .map(|(db, _)| *db)
        .collect();
    assert!(dbs.len() >= 2, "{dbs:?}");
    let tables: String = dbs
        .iter()
        .map(|db| {
            format!(
                "[[database]]\nname = \"db{db}\"\nurl = \"{}/{db}\"\n",
                server.url()
            )
        })
        .collect();
    for method in METHODS {
        let program = Program::new(&tables);
        let before = saves();
        let made = program
            .json(["backup", "now", "--method", method])
            .expect(0)
            .json();
        if method == "bgsave" {
            assert_eq!(saves(), before + 1, "one dump for all of them");
        }
        assert_eq!(made.as_array().unwrap().len(), dbs.len());
        program.run(["backup", "verify", "--all"]).expect(0);
        for db in &dbs {
            let target = Server::start(usual());
            let url = target.url();
            program
                .run(["restore", &format!("db{db}"), "--to", &url])
                .expect(0);
            let expected = all.clone().only(|of, _, _| of == *db);
            expected.must_equal(
                &Contents::of(&mut target.client()),
                &format!("db {db} by {method}"),
            );
        }
    }
}

#[test]
fn a_backup_comes_back_where_only_its_folder_is_left() {
    let server = Server::start(usual());
    server.client().run_all(sessions(300));
    let program = Program::new(&format!(
        "[[database]]\nname = \"web\"\nurl = \"{}\"\n",
        server.url()
    ));
    let made = program.json(["backup", "now"]).expect(0).json();
    let id = made[0]["id"].as_str().unwrap();
    let left = tempfile::tempdir().unwrap();
    let folder = left.path().join("brought-from-somewhere");
    fs::create_dir(&folder).unwrap();
    for file in ["manifest.json", "dump.rdb.zst"] {
        fs::copy(
            program.archive().join("web").join(id).join(file),
            folder.join(file),
        )
        .unwrap();
    }
    let elsewhere = Program::new("");
    fs::remove_file(elsewhere.configuration()).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = elsewhere.command(arguments);
        command
            .env_remove("RDBKEEPER_CONFIG")
            .env("HOME", left.path());
        crate::support::program::finish(command.spawn().unwrap())
    };
    let folder = folder.to_str().unwrap();
    run(&["backup", "verify", folder]).expect(0);
    run(&["backup", "show", folder]).expect(0);
    for selector in [folder.to_owned(), format!("{folder}/dump.rdb.zst")] {
        let target = Server::start(usual());
        run(&["restore", &selector, "--to", &target.url()]).expect(0);
        assert_same(&mut server.client(), &mut target.client(), &selector);
    }
}

#[test]
fn without_a_configuration_the_server_on_this_host_is_meant() {
    let program = Program::new("");
    fs::remove_file(program.configuration()).unwrap();
    // A command that writes nothing, for as root the default's folder is the machine's own.
    let mut command = program.command(["backup", "show", "nothing"]);
    command.env_remove("RDBKEEPER_CONFIG");
    let ran = crate::support::program::finish(command.spawn().unwrap()).expect(4);
    assert!(
        ran.stderr.contains("configured: default;"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_manifest_and_what_is_printed_of_it_are_as_the_contract_says() {
    let server = Server::start(usual());
    server.client().run(cmd!["SET", "k", "v", "EX", 1000]);
    let program = Program::new(&format!(
        "[[database]]\nname = \"web\"\nurl = \"{}/0\"\nmethod = \"replication\"\n",
        server.url()
    ));
    let made = program.json(["backup", "now"]).expect(0).json();
    let listed = program.json(["backup", "list"]).expect(0).json();
    let shown = ["backup", "show", "web", "--no-content"];
    let shown = program.json(shown).expect(0).json();
    assert_eq!(made, listed);
    assert_eq!(made[0], shown);
    for (member, value) in [
        ("format", 1.into()),
        ("database", "web".into()),
        ("method", "replication".into()),
        ("consistency", "point-in-time".into()),
        ("storage", "disk".into()),
        ("pinned", false.into()),
        ("accepted", false.into()),
        ("shrunk", false.into()),
    ] {
        let value: serde_json::Value = value;
        assert_eq!(shown[member], value, "{member}");
    }
    let source = &shown["source"];
    assert_eq!(source["address"], format!("127.0.0.1:{}", server.port()));
    assert_eq!(source["databases"], serde_json::json!([0]));
    assert_eq!(source["role"], "master");
    assert!(source["server"].as_str().unwrap().starts_with("redis "));
    assert_eq!(source["run_id"].as_str().unwrap().len(), 40);
    assert_eq!(source["replid"].as_str().unwrap().len(), 40);
    assert!(source["offset"].is_i64());
    assert_eq!(
        shown["rdb"]["databases"],
        serde_json::json!([{ "db": 0, "keys": 1, "expires": 1, "types": { "string": 1 } }])
    );
    assert_eq!(shown["data"]["object"], "dump.rdb.zst");
    assert_eq!(shown["data"]["compression"], "zstd:3");
    for time in ["started_at", "snapshot_at", "finished_at"] {
        let time = shown[time].as_str().unwrap();
        assert!(time.parse::<jiff::Timestamp>().is_ok() && time.ends_with('Z'));
    }
}

#[test]
fn an_archive_is_read_by_the_common_tools() {
    let server = Server::start(usual());
    server.client().run_all(sessions(3000));
    for (compression, tool) in [("zstd:1", "zstd"), ("gzip:1", "gzip")] {
        let program = Program::new(&format!(
            "[[database]]\nname = \"web\"\nurl = \"{}\"\ncompression = \"{compression}\"\n",
            server.url()
        ));
        program.run(["backup", "now"]).expect(0);
        program
            .run(["restore", "web", "--to-file", "plain.rdb"])
            .expect(0);
        let data = files_below(&program.archive())
            .into_iter()
            .find(|file| !file.ends_with("manifest.json"))
            .unwrap();
        let decompressed = std::process::Command::new(tool)
            .arg("-dc")
            .arg(program.archive().join(data))
            .output();
        let Ok(decompressed) = decompressed else {
            eprintln!("live tests: there is no {tool} here: its reading an archive is not tested");
            continue;
        };
        assert!(decompressed.status.success(), "{decompressed:?}");
        let mut plain = Vec::new();
        fs::File::open(program.folder().join("plain.rdb"))
            .unwrap()
            .read_to_end(&mut plain)
            .unwrap();
        assert!(decompressed.stdout == plain, "{tool} reads something else");
    }
}

#[test]
fn the_newest_of_several_within_a_second_is_the_one_that_was_made_last() {
    let server = Server::start(usual());
    let program = Program::new(&format!(
        "[[database]]\nname = \"web\"\nurl = \"{}\"\nmethod = \"scan\"\n",
        server.url()
    ));
    for _ in 0..8 {
        let made = program.json(["backup", "now"]).expect(0).json();
        let newest = program.json(["backup", "show", "web"]).expect(0).json();
        assert_eq!(newest["id"], made[0]["id"]);
        let verified = program.json(["backup", "verify"]).expect(0).json();
        assert_eq!(verified[0]["id"], made[0]["id"]);
    }
}

#[test]
fn a_selection_that_matches_nothing_is_refused_and_a_name_that_nobody_knows_is_told() {
    let (server, target) = (Server::start(usual()), Server::start(usual()));
    server.client().run_all(sessions(5));
    target.client().run(cmd!["SET", "mine", "1"]);
    let program = Program::new(&format!(
        "[[database]]\nname = \"web\"\nurl = \"{}\"\n",
        server.url()
    ));
    program.run(["backup", "now"]).expect(0);
    let to = target.url();
    let nothing = [
        "restore", "web", "--to", &to, "--match", "nothing*", "--flush", "--yes",
    ];
    let ran = program.run(nothing).expect(5);
    assert!(
        ran.stderr.contains("no key of the backup is selected"),
        "{}",
        ran.stderr
    );
    assert_eq!(target.client().run(cmd!["GET", "mine"]).text(), "1");
    program.run(["backup", "list", "wbe"]).expect(2);
    program.run(["backup", "list", "web"]).expect(0);
}
