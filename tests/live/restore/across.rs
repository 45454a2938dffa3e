//! Every server's data into every server that can hold it.

use rdbkeeper::failure::Kind as FailureKind;
use rdbkeeper::restore::Request;

use super::{Dumped, good, plan, run};
use crate::cmd;
use crate::support::compare::Contents;
use crate::support::data;
use crate::support::servers::{self, Server};

#[test]
fn everything_arrives_on_every_server_that_is_the_same_or_newer() {
    for from in servers::available() {
        let dumped = Dumped::full(from);
        for to in servers::available().iter().filter(|to| from.fits_into(to)) {
            let server = Server::start(to);
            let outcome = good(run(&dumped, &server, Request::default()));
            assert_eq!(
                outcome.keys as usize,
                dumped.contents.keys(),
                "{from} to {to}"
            );
            let arrived = Contents::of(&mut server.client());
            dumped
                .contents
                .must_equal(&arrived, &format!("{from} to {to}"));
        }
    }
}

#[test]
fn a_payload_too_new_for_the_target_arrives_when_its_type_is_known_there() {
    // Redis 8.0 writes version 12, Redis 7.0 speaks 10: plain hashes, strings and the like are the same.
    let (Some(from), Some(to)) = (servers::named("redis-8.0"), servers::named("redis-7.0")) else {
        return;
    };
    let source = Server::start(from);
    let mut client = source.client();
    client.run_all(data::sessions(200));
    client.select(2);
    client.run(cmd!["HSET", "h", "f", "v"]);
    client.run(cmd!["RPUSH", "l", "a", "b"]);
    client.run(cmd!["ZADD", "z", "1.5", "a"]);
    let dumped = Dumped::of(&source);
    let server = Server::start(to);
    good(run(&dumped, &server, Request::default()));
    dumped
        .contents
        .must_equal(&Contents::of(&mut server.client()), "8.0 to 7.0");
}

#[test]
fn a_type_that_the_target_does_not_know_is_named_before_anything_is_written() {
    for (from, to, what) in [
        ("valkey-9.1", "redis-7.0", "hash-2"),
        ("valkey-9.1", "redis-8.0", "hash-2"),
        ("redis-8.0", "valkey-9.1", "hash-metadata"),
        ("redis-8.0", "redis-7.0", "hash-listpack-ex"),
        ("redis-7.0", "redis-6.2", "hash-listpack"),
    ] {
        let (Some(from), Some(to)) = (servers::named(from), servers::named(to)) else {
            continue;
        };
        let dumped = Dumped::full(from);
        let server = Server::start(to);
        let plan = good(plan(&dumped, &server, Request::default()));
        assert!(
            plan.unheld.iter().any(|found| found.what == what),
            "{from} to {to}: {:?}",
            plan.unheld
        );
        let failure = run(&dumped, &server, Request::default()).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Refused, "{failure:?}");
        assert!(
            failure.causes.iter().any(|cause| cause.contains(what)),
            "{failure:?}"
        );
        assert!(
            !format!("{failure:?}").contains("fields:small"),
            "key names are masked"
        );
        assert!(server.client().keyspace().is_empty());
    }
}

#[test]
fn idle_times_and_frequencies_travel() {
    let kind = servers::usual();
    let source = Server::with(
        kind,
        servers::Options::new().config("maxmemory-policy allkeys-lfu"),
    );
    let mut client = source.client();
    for _ in 0..300 {
        client.run(cmd!["SET", "often", "x"]);
    }
    let frequency = client.run(cmd!["OBJECT", "FREQ", "often"]).int();
    assert!(frequency > 6);
    let dumped = Dumped::of(&source);
    let server = Server::with(
        kind,
        servers::Options::new().config("maxmemory-policy allkeys-lfu"),
    );
    good(run(&dumped, &server, Request::default()));
    let arrived = server.client().run(cmd!["OBJECT", "FREQ", "often"]).int();
    // It decays by one a minute.
    assert!(
        (frequency - arrived).abs() <= 2,
        "{frequency} became {arrived}"
    );
}
