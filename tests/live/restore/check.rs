//! After a restore: what is on the target is compared with the backup, and what other clients did meanwhile is found.

use rdbkeeper::failure::{Failure, Kind};
use rdbkeeper::restore::{Check, Loss, Outcome, Request, Stage, Ttl};
use rdbkeeper::selection::KeyNames;
use rdbkeeper::target::live::OnConflict;
use rdbkeeper::target::way::Mode;
use rdbkeeper::units::HumanCount;
use rustix::process::Signal;
use tokio_util::sync::CancellationToken;

use super::{
    Dumped, endpoint, endpoint_of, good, prepare, run, run_as, run_to_file, run_watched, sessions,
    wait,
};
use crate::cmd;
use crate::support::client::Client;
use crate::support::data;
use crate::support::poll::until;
use crate::support::program::{Program, finish, paused_at, signal};
use crate::support::servers::{self, Options, Server};

fn checking(check: Check) -> Request {
    Request {
        check,
        names: KeyNames::Shown,
        ..Request::default()
    }
}

/// Restores, and does something with a client of the target when all is written and nothing compared.
fn run_with(
    dumped: &Dumped,
    server: &Server,
    request: Request,
    between: impl Fn(&mut Client) + Send + Sync + 'static,
) -> Result<Outcome, Failure> {
    let port = server.port();
    let token = CancellationToken::new();
    run_watched(dumped, endpoint(server), request, token, move |progress| {
        if progress.stage == Stage::Checking && progress.keys == 0 {
            between(&mut Client::tcp(port).unwrap());
        }
    })
}

#[test]
fn every_key_of_every_server_is_found_as_it_was_on_every_server_that_takes_it() {
    for from in servers::available() {
        let dumped = Dumped::full(from);
        for to in servers::available().iter().filter(|to| from.fits_into(to)) {
            let server = Server::start(to);
            let outcome = run(&dumped, &server, checking(Check::All));
            let outcome = outcome.unwrap_or_else(|failure| panic!("{from} to {to}: {failure:#?}"));
            let checked = outcome.checked.unwrap();
            assert_eq!(
                (checked.keys, checked.missing, checked.differing),
                (outcome.keys, 0, 0),
                "{from} to {to}"
            );
            assert_eq!(
                (checked.by_length, checked.by_presence, checked.incomplete),
                (0, 0, None),
                "{from} to {to}"
            );
        }
    }
}

#[test]
fn what_went_another_way_is_found_as_it_was_but_for_what_could_not_be_held() {
    let sources: Vec<_> = servers::available()
        .iter()
        .map(|kind| (kind, Dumped::full(kind)))
        .collect();
    for to in servers::available() {
        let server = Server::start(to);
        for (from, dumped) in &sources {
            for mode in [Mode::Auto, Mode::Commands] {
                server.client().run(cmd!["FLUSHALL"]);
                let what = format!("{from} to {to}, --mode {}", mode.as_str());
                let request = Request {
                    mode,
                    loss: Loss::Allowed,
                    on_conflict: OnConflict::Replace,
                    ..checking(Check::All)
                };
                let outcome = run(dumped, &server, request);
                let outcome = outcome.unwrap_or_else(|failure| panic!("{what}: {failure:#?}"));
                let checked = outcome.checked.unwrap();
                assert_eq!(
                    (checked.keys, checked.incomplete),
                    (outcome.keys, None),
                    "{what}"
                );
                // Streams with pending entries of entries that are deleted.
                assert_eq!(checked.by_length, 0, "{what}");
                assert!(checked.by_presence < 5, "{what}: {}", checked.by_presence);
            }
        }
    }
}

#[test]
fn expiries_are_compared_as_they_were_to_become() {
    servers::each(|kind| {
        let dumped = Dumped::full(kind);
        for ttl in [Ttl::Keep, Ttl::Shift, Ttl::Strip] {
            let server = Server::start(kind);
            let request = Request {
                ttl,
                ..checking(Check::All)
            };
            let outcome = good(run(&dumped, &server, request));
            assert_eq!(outcome.checked.unwrap().keys, outcome.keys, "{ttl:?}");
        }
    });
}

#[test]
fn what_another_client_changed_is_found_and_named() {
    servers::each(|kind| {
        let dumped = Dumped::full(kind);
        // One change a time, and what is said of it.
        let changes: Vec<(crate::support::client::Command, &str, &str)> = vec![
            (
                cmd!["APPEND", "string:raw", "x"],
                "string:raw",
                "holds something else",
            ),
            (
                cmd!["INCR", "string:int8"],
                "string:int8",
                "holds something else",
            ),
            (
                cmd!["RPUSH", "list:3000", "x"],
                "list:3000",
                "holds something else",
            ),
            (
                cmd!["LSET", "list:2", 0, "x"],
                "list:2",
                "holds something else",
            ),
            (
                cmd!["SADD", "set:ints:513", "1"],
                "set:ints:513",
                "holds something else",
            ),
            (
                cmd!["ZINCRBY", "zset:129", "0.5", "member 3"],
                "zset:129",
                "holds something else",
            ),
            (
                cmd!["HSET", "hash:3000", "field 7", "x"],
                "hash:3000",
                "holds something else",
            ),
            (cmd!["DEL", "hash:1"], "hash:1", "is missing"),
            (
                cmd!["RENAME", "hash:2", "list:1"],
                "list:1",
                "is of another type",
            ),
            (
                cmd!["EXPIRE", "zset:1", 1000],
                "zset:1",
                "has another expiry",
            ),
        ];
        for (change, key, words) in changes {
            let server = Server::start(kind);
            let failure = run_with(&dumped, &server, checking(Check::All), move |client| {
                client.run(change.clone());
            })
            .unwrap_err();
            assert_eq!(failure.kind, Kind::Failed, "{kind} {key}: {failure:?}");
            let said = format!("key {key:?} in database 0 {words}");
            assert!(
                failure.causes.contains(&said),
                "{kind}: {said}: {failure:#?}"
            );
            assert!(failure.message.contains("by another client"), "{failure:?}");
        }
    });
}

#[test]
fn an_expiry_that_is_gone_or_is_another_is_found() {
    servers::each(|kind| {
        let source = Server::start(kind);
        source.client().run_all(data::sessions(200));
        let dumped = Dumped::of(&source);
        let key = dumped.contents.databases[&0].keys().next().unwrap().clone();
        for (command, argument) in [("PERSIST", None), ("PEXPIRE", Some(700_000_000))] {
            let (server, key) = (Server::start(kind), key.clone());
            let failure = run_with(&dumped, &server, checking(Check::All), move |client| {
                let mut words = cmd![command, &key];
                words.extend(argument.map(|number: i64| number.to_string().into_bytes()));
                client.run(words);
            })
            .unwrap_err();
            assert!(failure.message.contains("1 differ"), "{failure:?}");
            assert!(
                failure.causes[0].ends_with("has another expiry"),
                "{failure:?}"
            );
        }
    });
}

#[test]
fn names_are_masked_unless_they_may_be_shown() {
    let dumped = sessions(100);
    let key = dumped.contents.databases[&0].keys().next().unwrap().clone();
    let name = String::from_utf8(key.clone()).unwrap();
    for names in [KeyNames::Masked, KeyNames::Shown] {
        let (server, key) = (Server::start(servers::usual()), key.clone());
        let request = Request {
            names,
            ..checking(Check::All)
        };
        let failure = run_with(&dumped, &server, request, move |client| {
            client.run(cmd!["DEL", &key]);
        })
        .unwrap_err();
        assert_eq!(
            format!("{failure:?}").contains(&name),
            names == KeyNames::Shown,
            "{failure:?}"
        );
    }
}

#[test]
fn a_sample_has_every_type_and_finds_what_is_wrong_with_many_keys() {
    let kind = servers::usual();
    let source = Server::start(kind);
    let mut client = source.client();
    client.run_all(data::sessions(20_000));
    client.run(cmd!["RPUSH", "the only list", "x"]);
    client.run(cmd![
        "SET",
        "the largest",
        data::Random::new(1).bytes(300_000)
    ]);
    let dumped = Dumped::of(&source);
    drop(source);
    let sampled = || checking(Check::Sample);
    let server = Server::start(kind);
    let outcome = good(run(&dumped, &server, sampled()));
    let checked = outcome.checked.unwrap();
    assert!((800..1200).contains(&checked.keys), "{checked:?}");

    for (change, what) in [
        (cmd!["DEL", "the only list"], "is missing"),
        (
            cmd!["SETRANGE", "the largest", 200_000, "abc"],
            "holds something else",
        ),
    ] {
        let server = Server::start(kind);
        let failure = run_with(&dumped, &server, sampled(), move |client| {
            client.run(change.clone());
        })
        .unwrap_err();
        assert!(failure.causes[0].ends_with(what), "{failure:?}");
    }

    let names: Vec<Vec<u8>> = dumped.contents.databases[&0].keys().cloned().collect();
    let server = Server::start(kind);
    let persisted = names.clone();
    let failure = run_with(&dumped, &server, sampled(), move |client| {
        client.run_all(persisted.iter().map(|key| cmd!["PERSIST", key]).collect());
    })
    .unwrap_err();
    assert!(
        failure.message.contains("differ from the backup"),
        "{failure:?}"
    );

    // How many are missing is known of all, though only some are asked for.
    let server = Server::start(kind);
    let failure = run_with(&dumped, &server, sampled(), move |client| {
        client.run_all(names[..5000].iter().map(|key| cmd!["DEL", key]).collect());
    })
    .unwrap_err();
    let told = "at least 5,000 of the backup's keys are missing";
    assert!(failure.message.contains(told), "{failure:?}");
    assert!(
        failure
            .causes
            .iter()
            .any(|cause| cause.contains("has 15,002 keys")),
        "{failure:?}"
    );
}

#[test]
fn where_the_target_evicts_no_more_keys_are_missing_than_were_compared_and_it_is_said_what_to_do() {
    let dumped = sessions(20_000);
    for check in [Check::Sample, Check::All] {
        let options = Options::new()
            .config("maxmemory 4mb")
            .config("maxmemory-policy allkeys-lru");
        let server = Server::with(servers::usual(), options);
        let ended = wait(async {
            let prepared = prepare(dumped.backup(), endpoint(&server), checking(check)).await;
            good(prepared).run().await.unwrap_err()
        });
        let (failure, outcome) = (ended.failure, ended.outcome.unwrap());
        assert_eq!((failure.kind, outcome.keys), (Kind::Failed, 20_000));
        let checked = outcome.checked.unwrap();
        assert!(
            checked.missing > 0 && checked.missing <= checked.keys,
            "{checked:?}"
        );
        assert!(checked.evicted >= checked.fewer, "{checked:?}");
        assert!((1000..20_000).contains(&checked.fewer), "{checked:?}");
        let (keys, missing) = (HumanCount(checked.keys), HumanCount(checked.missing));
        let told = format!("; of {keys} compared {missing} are missing");
        assert!(failure.message.contains(&told), "{failure:?}");
        let told = format!("at least {} of the backup's", HumanCount(checked.fewer));
        assert_eq!(
            failure.message.contains(&told),
            checked.fewer > checked.missing,
            "{failure:?}"
        );
        let hint = failure.hint.unwrap();
        assert!(
            hint.contains("maxmemory 4 MiB, maxmemory-policy allkeys-lru"),
            "{hint}"
        );
        assert!(hint.contains("`maxmemory-policy noeviction`"), "{hint}");
    }
}

#[test]
fn a_target_that_evicted_other_keys_is_told_although_all_is_as_in_the_backup() {
    let kind = servers::usual();
    let source = Server::start(kind);
    // They never expire, and so they stay.
    let keys = (0..10).map(|number| cmd!["SET", number, "x".repeat(200_000)]);
    source.client().run_all(keys.collect());
    let dumped = Dumped::of(&source);
    let options = Options::new()
        .config("maxmemory 4mb")
        .config("maxmemory-policy volatile-lru");
    let server = Server::with(kind, options);
    let own = (0..10).map(|n| cmd!["SET", format!("own:{n}"), "x".repeat(200_000), "EX", 9999]);
    server.client().run_all(own.collect());
    let checked = good(run(&dumped, &server, checking(Check::All)))
        .checked
        .unwrap();
    assert_eq!((checked.keys, checked.missing), (10, 0));
    assert!(checked.evicted > 0, "{checked:?}");
    assert!(
        checked.words().contains("meanwhile the target evicted"),
        "{}",
        checked.words()
    );
}

#[test]
fn keys_and_fields_that_are_over_meanwhile_are_not_missing() {
    servers::each(|kind| {
        let source = Server::start(kind);
        let mut client = source.client();
        client.run_all(data::sessions(50));
        client.run(cmd!["SET", "soon over", "x", "PX", 3000]);
        if kind.has_hash_field_expiry() {
            client.run(cmd!["HSET", "some fields", "stays", "1", "goes", "2"]);
            client.run(cmd!["HPEXPIRE", "some fields", 3000, "FIELDS", 1, "goes"]);
            client.run(cmd!["HSET", "all fields", "goes", "1"]);
            client.run(cmd!["HPEXPIRE", "all fields", 3000, "FIELDS", 1, "goes"]);
        }
        let dumped = Dumped::of(&source);
        let server = Server::start(kind);
        let fields = kind.has_hash_field_expiry();
        good(run_with(
            &dumped,
            &server,
            checking(Check::All),
            move |client| {
                until("the key is over", || {
                    client.run(cmd!["GET", "soon over"]).is_nil().then_some(())
                });
                if fields {
                    until("the fields are over", || {
                        client
                            .run(cmd!["HGET", "all fields", "goes"])
                            .is_nil()
                            .then_some(())
                    });
                }
            },
        ));
    });
}

#[test]
fn where_the_questions_are_forbidden_the_restore_is_good_and_says_that_it_was_not_checked() {
    for kind in [servers::usual(), &servers::available()[0]] {
        let source = Server::start(kind);
        source.client().run_all(data::sessions(300));
        let dumped = Dumped::of(&source);
        for rights in [
            "-dump",
            "-pexpiretime -pttl",
            "-@all +info +select +restore +exists +ping",
        ] {
            if rights.contains("pexpiretime") && !kind.speaks_redis(7, 0) {
                continue;
            }
            let rule = format!("keeper on >pw ~* +@all {rights}");
            let server = Server::with(kind, Options::new().user(&rule));
            let to = endpoint_of(&server, "keeper");
            let outcome = good(run_as(&dumped, to, checking(Check::All)));
            assert_eq!(outcome.keys, 300);
            let checked = outcome.checked.unwrap();
            assert_eq!(checked.keys, 0, "{rights}");
            let why = checked.incomplete.as_ref().unwrap();
            assert!(why.contains("NOPERM"), "{why}");
            assert!(
                checked.words().starts_with("not checked: "),
                "{}",
                checked.words()
            );
        }
        // Without the server's clock an older one is asked all the same.
        let server = Server::with(kind, Options::new().user("keeper on >pw ~* +@all -time"));
        let to = endpoint_of(&server, "keeper");
        let outcome = good(run_as(&dumped, to, checking(Check::All)));
        assert_eq!(outcome.checked.unwrap().keys, 300);
    }
}

#[test]
fn keys_that_were_there_and_stayed_are_not_compared() {
    let kind = servers::usual();
    let dumped = Dumped::full(kind);
    let server = Server::start(kind);
    let mut client = server.client();
    client.select(15);
    client.run(cmd!["SET", "last", "mine"]);
    client.select(3);
    client.run(cmd!["SET", "celery", "mine"]);
    let request = Request {
        on_conflict: OnConflict::Skip,
        ..checking(Check::All)
    };
    let outcome = good(run(&dumped, &server, request.clone()));
    let checked = outcome.checked.unwrap();
    assert_eq!((outcome.skipped, checked.keys), (2, outcome.keys));
    // Those that were written are.
    let server = Server::start(kind);
    let mut client = server.client();
    client.select(15);
    client.run(cmd!["SET", "last", "mine"]);
    let failure = run_with(&dumped, &server, request, |client| {
        client.run(cmd!["APPEND", "string:raw", "x"]);
    })
    .unwrap_err();
    assert!(failure.message.contains("1 differ"), "{failure:?}");
}

#[test]
fn other_names_and_databases_are_compared_where_they_went() {
    let kind = servers::usual();
    let dumped = Dumped::full(kind);
    let server = Server::start(kind);
    let request = Request {
        map: [(rdbkeeper::rdb::DbIndex(0), rdbkeeper::rdb::DbIndex(5))].into(),
        rename: vec![rdbkeeper::target::Rename {
            from: b"list:".to_vec(),
            to: b"other:".to_vec(),
        }],
        ..checking(Check::All)
    };
    let outcome = good(run(&dumped, &server, request.clone()));
    assert_eq!(outcome.checked.unwrap().keys, outcome.keys);
    let server = Server::start(kind);
    let failure = run_with(&dumped, &server, request, |client| {
        client.select(5);
        client.run(cmd!["DEL", "other:3000"]);
    })
    .unwrap_err();
    assert!(
        failure
            .causes
            .contains(&"key \"other:3000\" in database 5 is missing".to_owned()),
        "{failure:?}"
    );
}

#[test]
fn a_huge_value_is_compared_by_its_length() {
    let kind = servers::usual();
    let source = Server::start(kind);
    source
        .client()
        .run(cmd!["SETRANGE", "huge", 70_000_000, "x"]);
    source.client().run(cmd!["SET", "small", "x"]);
    let dumped = Dumped::of(&source);
    drop(source);
    let server = Server::start(kind);
    let checked = good(run(&dumped, &server, checking(Check::All)))
        .checked
        .unwrap();
    assert_eq!((checked.keys, checked.by_length), (2, 1));
    let words = checked.words();
    assert_eq!(words, "2 compared with the backup (1 by length alone)");
    let server = Server::start(kind);
    let failure = run_with(&dumped, &server, checking(Check::Sample), |client| {
        client.run(cmd!["APPEND", "huge", "x"]);
    })
    .unwrap_err();
    assert!(
        failure.causes[0].ends_with("has another length"),
        "{failure:?}"
    );
}

#[test]
fn large_values_are_compared_one_after_the_other() {
    let kind = servers::usual();
    let source = Server::start(kind);
    let mut client = source.client();
    let noise = data::Random::new(11).bytes(20 << 20);
    for number in 0..3 {
        client.run(cmd!["SET", format!("large:{number}"), &noise]);
        client.run(cmd!["SET", format!("middle:{number}"), &noise[..1 << 20]]);
        client.run(cmd!["SET", format!("small:{number}"), number]);
    }
    let dumped = Dumped::of(&source);
    drop(source);
    let server = Server::start(kind);
    let checked = good(run(&dumped, &server, checking(Check::All)))
        .checked
        .unwrap();
    assert_eq!((checked.keys, checked.by_length), (9, 0));
}

#[test]
fn a_stop_while_it_compares_says_that_all_was_written() {
    let dumped = sessions(5000);
    let server = Server::start(servers::usual());
    let token = CancellationToken::new();
    let stop = token.clone();
    let to = endpoint(&server);
    let failure = run_watched(&dumped, to, checking(Check::All), token, move |progress| {
        if progress.stage == Stage::Checking {
            stop.cancel();
        }
    })
    .unwrap_err();
    assert_eq!(failure.kind, Kind::Interrupted, "{failure:?}");
    assert!(
        failure.message.contains("all 5,000 keys were written"),
        "{failure:?}"
    );
}

#[test]
fn a_file_is_read_back_and_its_keys_counted() {
    let kind = servers::usual();
    let dumped = Dumped::full(kind);
    let folder = tempfile::tempdir().unwrap();
    let part = Request {
        filters: rdbkeeper::selection::Filters {
            databases: [rdbkeeper::rdb::DbIndex(1)].into(),
            ..Default::default()
        },
        ..checking(Check::Sample)
    };
    for (name, request, keys) in [
        (
            "whole.rdb",
            checking(Check::All),
            Some(dumped.contents.keys() as u64),
        ),
        ("part.rdb", part, Some(300)),
        ("unread.rdb", checking(Check::None), None),
    ] {
        let outcome = good(run_to_file(&dumped, &folder.path().join(name), request));
        assert_eq!(outcome.checked.map(|checked| checked.keys), keys, "{name}");
    }
}

#[test]
fn the_command_tells_what_it_compared_and_fails_where_it_differs() {
    let dumped = sessions(40);
    let file = dumped.file.to_str().unwrap();
    let server = Server::start(servers::usual());
    let url = server.url();
    let program = Program::new(&format!("[[database]]\nname = \"it\"\nurl = {url:?}\n"));
    let outcome = program
        .json(["restore", file, "--to", &url, "--check", "all"])
        .expect(0)
        .json();
    assert_eq!(outcome["checked"]["mode"], "all");
    assert_eq!(outcome["checked"]["keys"], 40);
    assert_eq!(outcome["checked"]["missing"], 0);
    assert_eq!(outcome["checked"]["differing"], 0);
    assert_eq!(outcome["checked"]["samples"], serde_json::json!([]));
    let again = ["restore", file, "--to", &url, "--on-conflict", "replace"];
    let text = program.run(again).expect(0).stdout;
    assert!(text.contains("; 40 compared with the backup"), "{text}");
    let unchecked = [&again[..], &["--check", "none"]].concat();
    let text = program.run(unchecked).expect(0).stdout;
    assert!(!text.contains("compared"), "{text}");

    let emptied_before_the_check = |words: &[&str]| {
        let child = paused_at(&program, "before-check", words);
        server.client().run(cmd!["FLUSHALL"]);
        signal(&child, Signal::CONT);
        finish(child).expect(1)
    };
    let told = emptied_before_the_check(&again).stderr;
    assert!(told.contains("; of 40 compared 40 are missing"), "{told}");
    assert!(told.contains("--on-conflict replace"), "{told}");
    assert!(told.contains("--show-keys names the keys"), "{told}");
    let shown = [&again[..], &["--show-keys"]].concat();
    let told = emptied_before_the_check(&shown).stderr;
    assert!(!told.contains("--show-keys"), "{told}");
    // What was found stands beside the error.
    let json = [&["--json"], &again[..]].concat();
    let document = emptied_before_the_check(&json).json();
    assert_eq!(document["error"]["code"], 1);
    assert_eq!(document["keys"], 40);
    assert_eq!(document["checked"]["keys"], 40);
    assert_eq!(document["checked"]["missing"], 40);
    assert_eq!(document["checked"]["samples"].as_array().unwrap().len(), 3);
}
