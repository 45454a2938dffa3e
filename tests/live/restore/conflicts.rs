//! Keys that the target has already, or that appear while a restore runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rdbkeeper::failure::{Failure, Kind};
use rdbkeeper::restore::{Check, LibraryFate, Outcome, Request};
use rdbkeeper::target::live::OnConflict;
use rdbkeeper::units::HumanCount;

use super::{Dumped, endpoint, good, plan, run, run_after, sessions};
use crate::cmd;
use crate::support::compare::Contents;
use crate::support::data;
use crate::support::servers::{self, Server};

fn policy(on_conflict: OnConflict) -> Request {
    Request {
        on_conflict,
        ..Request::default()
    }
}

#[test]
fn a_key_that_is_there_refuses_the_restore_and_nothing_is_written() {
    let kind = servers::usual();
    let dumped = Dumped::full(kind);
    let server = Server::start(kind);
    let mut client = server.client();
    client.select(15);
    client.run(cmd!["SET", "last", "mine"]);
    client.run(cmd!["SET", "unrelated", "mine too"]);
    let before = Contents::of(&mut client);
    let failure = run(&dumped, &server, policy(OnConflict::Fail)).unwrap_err();
    assert_eq!(failure.kind, Kind::Refused);
    assert!(failure.message.contains("has 1 of the"), "{failure:?}");
    assert!(failure.hint.is_some());
    before.must_equal(&Contents::of(&mut client), "after a refused restore");
}

#[test]
fn skip_keeps_the_targets_key_and_replace_takes_the_backups() {
    let kind = servers::usual();
    let dumped = Dumped::full(kind);
    for (on_conflict, value) in [
        (OnConflict::Skip, "mine"),
        (OnConflict::Replace, "database"),
    ] {
        let server = Server::start(kind);
        let mut client = server.client();
        client.select(15);
        client.run(cmd!["SET", "last", "mine"]);
        let outcome = good(run(&dumped, &server, policy(on_conflict)));
        assert_eq!(client.run(cmd!["GET", "last"]).text(), value);
        assert_eq!(outcome.skipped, u64::from(on_conflict == OnConflict::Skip));
        assert_eq!(
            (outcome.keys + outcome.skipped) as usize,
            dumped.contents.keys()
        );
    }
}

#[test]
fn flush_empties_the_target_databases_and_no_others() {
    let kind = servers::usual();
    let dumped = Dumped::full(kind);
    let server = Server::start(kind);
    let mut client = server.client();
    for db in [0, 9, 15] {
        client.select(db);
        client.run(cmd!["SET", "old", "value"]);
    }
    let request = Request {
        flush: true,
        ..Request::default()
    };
    let planned = good(plan(&dumped, &server, request.clone()));
    assert!(
        planned.question().unwrap().contains("all 2 keys"),
        "{:?}",
        planned.question()
    );
    good(run(&dumped, &server, request));
    let arrived = Contents::of(&mut client).only(|db, _, _| db != 9);
    dumped.contents.must_equal(&arrived, "after a flush");
    client.select(9);
    assert_eq!(client.run(cmd!["GET", "old"]).text(), "value");
}

#[test]
fn a_function_library_follows_the_policy_too() {
    let kind = servers::usual();
    let dumped = Dumped::full(kind);
    let name = data::LIBRARY;
    let other = format!(
        "#!lua name={name}\nredis.register_function('{name}_f', function() return 'mine' end)"
    );
    for (on_conflict, fate) in [
        (OnConflict::Fail, LibraryFate::Conflict),
        (OnConflict::Skip, LibraryFate::Skip),
        (OnConflict::Replace, LibraryFate::Replace),
    ] {
        let server = Server::start(kind);
        let mut client = server.client();
        client.run(cmd!["FUNCTION", "LOAD", &other]);
        let planned = good(plan(&dumped, &server, policy(on_conflict)));
        assert!(
            planned
                .functions
                .iter()
                .any(|found| found.name == name && found.fate == fate)
        );
        let result = run(&dumped, &server, policy(on_conflict));
        let answer = client.run(cmd!["FCALL", format!("{name}_f"), 0]).text();
        match on_conflict {
            OnConflict::Fail => {
                assert_eq!(result.unwrap_err().kind, Kind::Refused);
                assert!(client.keyspace().is_empty());
            }
            OnConflict::Skip => assert_eq!((good(result).functions, answer.as_str()), (1, "mine")),
            OnConflict::Replace => assert_eq!((good(result).functions, answer.as_str()), (2, name)),
        }
    }
    // The very same library is no conflict.
    let server = Server::start(kind);
    good(run(&dumped, &server, Request::default()));
    server.client().run(cmd!["FLUSHALL"]);
    assert_eq!(good(run(&dumped, &server, Request::default())).functions, 0);
}

/// Prepares a restore of many sessions, then lets a key appear on the target, then runs it.
fn appearing(on_conflict: OnConflict) -> (Server, Result<Outcome, Failure>, Vec<u8>) {
    let dumped = sessions(20_000);
    let key = dumped.contents.databases[&0]
        .keys()
        .nth(7000)
        .unwrap()
        .clone();
    let server = Server::start(servers::usual());
    let result = run_after(&dumped, endpoint(&server), policy(on_conflict), || {
        server.client().run(cmd!["SET", &key, "created meanwhile"]);
    });
    (server, result, key)
}

#[test]
fn a_key_that_appears_after_the_look_is_handled_as_the_policy_says() {
    let (server, result, key) = appearing(OnConflict::Fail);
    let failure = result.unwrap_err();
    assert_eq!(failure.kind, Kind::Refused, "{failure:?}");
    let name = String::from_utf8(key.clone()).unwrap();
    assert!(!format!("{failure:?}").contains(&name), "{failure:?}");
    // It says how far it came, and that is the truth.
    let keys = server.client().keyspace()[0].1 - 1;
    assert!(
        failure
            .message
            .contains(&format!(" {} keys were written", HumanCount(keys))),
        "{keys}: {failure:?}"
    );
    assert_eq!(
        server.client().run(cmd!["GET", &key]).text(),
        "created meanwhile"
    );

    let (server, result, key) = appearing(OnConflict::Skip);
    let outcome = good(result);
    assert_eq!((outcome.keys, outcome.skipped), (19_999, 1));
    assert_eq!(
        server.client().run(cmd!["GET", &key]).text(),
        "created meanwhile"
    );

    let (server, result, key) = appearing(OnConflict::Replace);
    assert_eq!(good(result).keys, 20_000);
    assert_ne!(
        server.client().run(cmd!["GET", &key]).text(),
        "created meanwhile"
    );
}

#[test]
fn keys_that_change_and_vanish_while_a_restore_runs_do_not_stop_it() {
    let dumped = sessions(20_000);
    let names: Vec<String> = dumped.contents.databases[&0]
        .keys()
        .map(|key| String::from_utf8(key.clone()).unwrap())
        .collect();
    let server = Server::start(servers::usual());
    let done = Arc::new(AtomicBool::new(false));
    let disturber = {
        let (done, mut client) = (Arc::clone(&done), server.client());
        std::thread::spawn(move || {
            let mut random = data::Random::new(5);
            while !done.load(Ordering::Relaxed) {
                let name = &names[random.below(names.len())];
                client.run(crate::support::compare::disturb(&mut random, name));
            }
        })
    };
    for on_conflict in [OnConflict::Replace, OnConflict::Skip] {
        // A check would find what was disturbed.
        let request = Request {
            check: Check::None,
            ..policy(on_conflict)
        };
        let outcome = good(run(&dumped, &server, request));
        assert_eq!(outcome.keys + outcome.skipped, 20_000);
    }
    done.store(true, Ordering::Relaxed);
    disturber.join().unwrap();
    assert!(server.client().keyspace()[0].1 > 10_000);
}
