//! Filters, maps, prefixes and expiries, and the rules for the database in a target's address.

use rdbkeeper::failure::Kind;
use rdbkeeper::rdb::{DbIndex, LogicalType};
use rdbkeeper::restore::{Request, Ttl};
use rdbkeeper::selection::{Filters, KeyPattern};
use rdbkeeper::target::Rename;
use rdbkeeper::target::live::OnConflict;

use super::{Dumped, good, plan, run};
use crate::cmd;
use crate::support::client::Client;
use crate::support::compare::Contents;
use crate::support::servers::{self, Server};

fn now_ms(client: &mut Client) -> i64 {
    let reply = client.run(cmd!["TIME"]);
    let part = |at: usize| reply.array()[at].text().parse::<i64>().unwrap();
    part(0) * 1000 + part(1) / 1000
}

#[test]
fn filters_choose_by_database_name_and_type() {
    let kind = servers::usual();
    let dumped = Dumped::full(kind);
    let server = Server::start(kind);
    let request = Request {
        filters: Filters {
            databases: [DbIndex(0), DbIndex(3)].into(),
            include: vec![KeyPattern::new(*b"hash:*"), KeyPattern::new(*b"[sc]e*")],
            exclude: vec![KeyPattern::new(*b"*:[0-9][0-9]")],
            types: [LogicalType::Hash, LogicalType::String, LogicalType::Set].into(),
        },
        ..Request::default()
    };
    let outcome = good(run(&dumped, &server, request));
    let expected = dumped.contents.clone().only(|db, key, item| {
        let name = String::from_utf8_lossy(key).into_owned();
        let tail = name.len() >= 3
            && name.ends_with(|c: char| c.is_ascii_digit())
            && name.as_bytes()[name.len() - 2].is_ascii_digit()
            && name.as_bytes()[name.len() - 3] == b':';
        [0, 3].contains(&db)
            && (name.starts_with("hash:") || name.starts_with("se") || name.starts_with("ce"))
            && !tail
            && ["hash", "string", "set"].contains(&item.kind.as_str())
    });
    let arrived = Contents::of(&mut server.client());
    assert!(expected.keys() > 20);
    assert_eq!(outcome.keys as usize, expected.keys());
    assert_eq!(
        (outcome.keys + outcome.left_out) as usize,
        dumped.contents.keys()
    );
    assert_eq!(outcome.functions, 0, "a selection is of keys");
    assert_eq!(
        expected.databases.keys().collect::<Vec<_>>(),
        arrived.databases.keys().collect::<Vec<_>>()
    );
    let found = expected.differences(&arrived);
    assert!(
        found.iter().all(|line| line.starts_with("functions")),
        "{found:?}"
    );
}

#[test]
fn databases_are_mapped_and_prefixes_renamed() {
    let kind = servers::usual();
    let dumped = Dumped::full(kind);
    let server = Server::start(kind);
    let request = Request {
        map: [(DbIndex(1), DbIndex(5)), (DbIndex(3), DbIndex(5))].into(),
        rename: vec![Rename {
            from: b"websauna_session".to_vec(),
            to: b"s:".to_vec(),
        }],
        ..Request::default()
    };
    good(run(&dumped, &server, request));
    let mut expected = dumped.contents.clone();
    let mut merged = expected.databases.remove(&3).unwrap();
    for (key, item) in expected.databases.remove(&1).unwrap() {
        let key = match key.strip_prefix(b"websauna_session") {
            Some(rest) => [b"s:", rest].concat(),
            None => key,
        };
        merged.insert(key, item);
    }
    expected.databases.insert(5, merged);
    expected.must_equal(&Contents::of(&mut server.client()), "mapped and renamed");
}

#[test]
fn keys_that_would_take_one_name_are_refused() {
    let kind = servers::usual();
    let source = Server::start(kind);
    let mut client = source.client();
    client.run(cmd!["SET", "a:1", "x"]);
    client.run(cmd!["SET", "b:1", "y"]);
    client.select(1);
    client.run(cmd!["SET", "a:1", "z"]);
    let dumped = Dumped::of(&source);
    let server = Server::start(kind);
    let rename = Request {
        rename: vec![Rename {
            from: b"a:".to_vec(),
            to: b"b:".to_vec(),
        }],
        ..Request::default()
    };
    let merge = Request {
        map: [(DbIndex(1), DbIndex(0))].into(),
        ..Request::default()
    };
    for request in [rename, merge] {
        for on_conflict in [OnConflict::Fail, OnConflict::Skip, OnConflict::Replace] {
            let request = Request {
                on_conflict,
                ..request.clone()
            };
            let failure = run(&dumped, &server, request).unwrap_err();
            assert_eq!(failure.kind, Kind::Refused, "{failure:?}");
            assert!(failure.message.starts_with("1 key of"), "{failure:?}");
            assert!(server.client().keyspace().is_empty());
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.rdb");
        let failure = super::run_to_file(&dumped, &path, request).unwrap_err();
        assert_eq!(failure.kind, Kind::Refused, "{failure:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[test]
fn expiries_are_kept_shifted_or_stripped() {
    for kind in [servers::usual(), &servers::available()[0]] {
        let source = Server::start(kind);
        let mut client = source.client();
        let begin = now_ms(&mut client);
        client.run(cmd!["SET", "forever", "v"]);
        client.run(cmd!["SET", "later", "v"]);
        client.run(cmd!["PEXPIREAT", "later", begin + 3_600_000]);
        client.run(cmd!["SET", "over soon", "v"]);
        client.run(cmd!["DEBUG", "SET-ACTIVE-EXPIRE", 0]);
        client.run(cmd!["PEXPIREAT", "over soon", begin + 60_000]);
        let dumped = Dumped::of(&source);
        // The snapshot is said to be an hour old, and "over soon" to have ended: as if the clock had moved on.
        let ttl = |ttl, snapshot_ms| Request {
            ttl,
            snapshot_ms,
            ..Request::default()
        };
        let expiry = |request: Request| {
            let server = Server::start(kind);
            let outcome = good(run(&dumped, &server, request));
            let contents = Contents::of(&mut server.client());
            let items = &contents.databases[&0];
            let of = |key: &str| items.get(key.as_bytes()).map(|item| item.expiry.at());
            (outcome, of("forever"), of("later"), of("over soon"))
        };
        let near = |found: Option<Option<i64>>, wanted: i64| {
            let found = found.unwrap().unwrap();
            assert!(
                (found - wanted).abs() < 10_000,
                "{found} is not near {wanted}"
            );
        };

        let (outcome, forever, later, soon) = expiry(ttl(Ttl::Keep, None));
        assert_eq!((outcome.keys, outcome.expired, forever), (3, 0, Some(None)));
        near(later, begin + 3_600_000);
        near(soon, begin + 60_000);
        if kind.speaks_redis(7, 0) {
            assert_eq!(later, Some(Some(begin + 3_600_000)), "to the millisecond");
        }

        // The snapshot was an hour ago: an hour is added.
        let (_, forever, later, soon) = expiry(ttl(Ttl::Shift, Some(begin - 3_600_000)));
        assert_eq!(forever, Some(None));
        near(later, begin + 7_200_000);
        near(soon, begin + 3_660_000);

        // The file's own time: nothing much changes.
        let (_, _, later, _) = expiry(ttl(Ttl::Shift, None));
        near(later, begin + 3_600_000);

        // At the time of the snapshot one key was over.
        let (outcome, _, later, soon) = expiry(ttl(Ttl::Shift, Some(begin + 120_000)));
        assert_eq!((outcome.expired, soon), (1, None));
        near(later, begin + 3_480_000);

        let (outcome, forever, later, soon) = expiry(ttl(Ttl::Strip, Some(begin)));
        assert_eq!(
            (outcome.keys, forever, later, soon),
            (3, Some(None), Some(None), Some(None))
        );
    }
}

#[test]
fn shifted_time_counts_from_when_the_restore_runs_and_not_from_when_it_was_planned() {
    let kind = servers::usual();
    let source = Server::start(kind);
    let mut client = source.client();
    let snapshot = now_ms(&mut client);
    client.run(cmd!["SET", "k", "v"]);
    client.run(cmd!["PEXPIREAT", "k", snapshot + 3_600_000]);
    let dumped = Dumped::of(&source);
    let server = Server::start(kind);
    let mut client = server.client();
    let request = Request {
        ttl: Ttl::Shift,
        snapshot_ms: Some(snapshot),
        ..Request::default()
    };
    let mut begun = 0;
    let to = super::endpoint(&server);
    good(super::run_after(&dumped, to, request, || {
        // As if a person had thought about it.
        let planned = now_ms(&mut client);
        begun = crate::support::poll::until("time has passed", || {
            Some(now_ms(&mut client)).filter(|now| *now > planned + 300)
        });
    }));
    let at = client.run(cmd!["PEXPIRETIME", "k"]).int();
    // A hundredth of a second for clocks that are read at different times.
    assert!(at >= begun + 3_600_000 - 10, "{at} {begun}");
}

#[test]
fn a_snapshot_time_that_can_not_be_is_refused_when_expiries_count_from_it() {
    let kind = servers::usual();
    let source = Server::start(kind);
    let mut client = source.client();
    client.run(cmd!["SET", "k", "v", "EX", 1000]);
    let now = now_ms(&mut client);
    let dumped = Dumped::of(&source);
    let server = Server::start(kind);
    for absurd in [i64::MIN, -1, 0, now + 2 * 86_400_000, i64::MAX] {
        let request = Request {
            ttl: Ttl::Shift,
            snapshot_ms: Some(absurd),
            ..Request::default()
        };
        let failure = run(&dumped, &server, request.clone()).unwrap_err();
        assert_eq!(failure.kind, Kind::Refused, "{failure:?}");
        assert!(failure.message.contains("said to have been written at"));
        assert!(server.client().keyspace().is_empty());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.rdb");
        let failure = super::run_to_file(&dumped, &path, request).unwrap_err();
        assert_eq!(failure.kind, Kind::Refused, "{failure:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[test]
fn keys_that_are_over_by_the_targets_clock_are_counted_and_left_out() {
    let kind = servers::usual();
    let source = Server::start(kind);
    let mut client = source.client();
    client.run(cmd!["DEBUG", "SET-ACTIVE-EXPIRE", 0]);
    client.run(cmd!["SET", "stays", "v"]);
    client.run(cmd!["SET", "goes", "v", "PX", 300]);
    let dumped = Dumped::of(&source);
    crate::support::poll::until("the key is over", || {
        client.run(cmd!["GET", "goes"]).is_nil().then_some(())
    });
    let server = Server::start(kind);
    let outcome = good(run(&dumped, &server, Request::default()));
    assert_eq!((outcome.keys, outcome.expired), (1, 1));
    assert_eq!(server.client().keyspace(), [(0, 1)]);
}

#[test]
fn a_database_in_the_address_takes_one_database_and_refuses_several() {
    let kind = servers::usual();
    let dumped = Dumped::full(kind);
    let into = |filters: Filters| Request {
        filters,
        into: Some(DbIndex(6)),
        ..Request::default()
    };
    let server = Server::start(kind);
    let failure = run(&dumped, &server, into(Filters::default())).unwrap_err();
    assert_eq!(failure.kind, Kind::Refused);
    assert!(failure.message.contains("0, 1, 3 and 15"), "{failure:?}");
    assert!(server.client().keyspace().is_empty());

    let one = Filters {
        databases: [DbIndex(3)].into(),
        ..Filters::default()
    };
    good(run(&dumped, &server, into(one)));
    let arrived = Contents::of(&mut server.client());
    assert_eq!(
        arrived.databases[&6].len(),
        dumped.contents.databases[&3].len()
    );
    assert_eq!(arrived.databases.len(), 1);
}

#[test]
fn a_database_that_the_target_does_not_have_is_said_before_anything_is_written() {
    let kind = servers::usual();
    let dumped = Dumped::full(kind);
    let server = Server::with(kind, servers::Options::new().config("databases 4"));
    let failure = run(&dumped, &server, Request::default()).unwrap_err();
    assert_eq!(failure.kind, Kind::Refused);
    assert!(failure.message.contains("no database 15"), "{failure:?}");
    assert!(server.client().keyspace().is_empty());
}

#[test]
fn a_dry_run_tells_all_of_it_and_changes_nothing() {
    let kind = servers::usual();
    let dumped = Dumped::full(kind);
    let server = Server::start(kind);
    let mut client = server.client();
    client.select(1);
    client.run(cmd!["SET", "mine", "v"]);
    let request = Request {
        on_conflict: OnConflict::Replace,
        always_look: true,
        ..Request::default()
    };
    let plan = good(plan(&dumped, &server, request));
    assert_eq!(plan.keys as usize, dumped.contents.keys());
    assert_eq!(
        plan.databases
            .iter()
            .map(|found| found.from)
            .collect::<Vec<_>>(),
        [0, 1, 3, 15]
    );
    assert_eq!(plan.databases[1].target_keys, 1);
    assert_eq!(plan.conflicts.as_ref().unwrap().keys, 0);
    assert_eq!(plan.functions.len(), 2);
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(json["databases"][1]["types"]["string"], 300);
    let text = plan.to_string();
    assert!(
        text.contains("database 1: 300 keys (300 string), 300 expire"),
        "{text}"
    );
    assert_eq!(client.keyspace(), [(1, 1)]);
}

#[test]
fn a_map_of_a_database_that_the_backup_does_not_have_is_a_mistake() {
    let source = Server::start(servers::usual());
    let map = || Request {
        map: [(DbIndex(7), DbIndex(3))].into(),
        ..Request::default()
    };
    let server = Server::start(servers::usual());
    // A backup that has nothing says nothing.
    assert_eq!(good(run(&Dumped::of(&source), &server, map())).keys, 0);
    source.client().run(cmd!["SET", "k", "v"]);
    let dumped = Dumped::of(&source);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.rdb");
    for result in [
        run(&dumped, &server, map()),
        super::run_to_file(&dumped, &path, map()),
    ] {
        let failure = result.unwrap_err();
        assert_eq!(failure.kind, Kind::Usage, "{failure:?}");
        assert!(failure.message.starts_with("--map 7:3"), "{failure:?}");
        assert_eq!(failure.causes[0], "the backup has keys in database 0");
    }
    assert!(server.client().keyspace().is_empty() && !path.exists());
}

#[test]
fn keys_that_are_over_are_not_said_to_be_left_out_by_the_filters() {
    let source = Server::start(servers::usual());
    let mut client = source.client();
    client.run(cmd!["SET", "stays", "v"]);
    client.run(cmd!["SET", "goes", "v", "PX", 1500]);
    let dumped = Dumped::of(&source);
    crate::support::poll::until("the key is over", || {
        client.run(cmd!["GET", "goes"]).is_nil().then_some(())
    });
    let server = Server::start(servers::usual());
    let request = Request {
        filters: Filters {
            include: vec![KeyPattern::new(*b"goes")],
            ..Filters::default()
        },
        ..Request::default()
    };
    let planned = good(plan(&dumped, &server, request));
    assert_eq!(planned.refused, None);
    assert_eq!(
        planned.warnings,
        ["no key is left to write: 1 over already, 1 not selected"]
    );
}
