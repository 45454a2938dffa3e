//! Every server's data into every server that can hold it.

use rdbkeeper::failure::Kind as FailureKind;
use rdbkeeper::restore::{Loss, Request};
use rdbkeeper::target::way::Mode;

use super::{Dumped, good, plan, run};
use crate::cmd;
use crate::support::compare::{Contents, Value};
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
        let strict = Request {
            mode: Mode::Restore,
            ..Request::default()
        };
        let plan = good(plan(&dumped, &server, strict.clone()));
        assert!(
            plan.unheld.iter().any(|found| found.what == what),
            "{from} to {to}: {:?}",
            plan.unheld
        );
        let failure = run(&dumped, &server, strict).unwrap_err();
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

/// What must arrive of it on such a server: all, but for the expiries of fields where the server knows none.
fn held(contents: &Contents, to: &servers::Kind, mode: Mode) -> Contents {
    let mut held = contents.clone();
    for item in held
        .databases
        .values_mut()
        .flat_map(|items| items.values_mut())
    {
        if item.kind == "hash" && !to.has_hash_field_expiry() {
            without_field_expiries(&mut item.value);
        }
        if item.kind == "stream" && mode == Mode::Commands {
            without_times_of_consumers(&mut item.value);
        }
    }
    if !to.speaks_redis(7, 0) {
        held.functions = None;
    }
    held
}

fn without_field_expiries(value: &mut Value) {
    let Value::List(fields) = value else {
        return;
    };
    for field in fields.iter_mut() {
        if let Value::List(parts) = field {
            parts.truncate(2);
        }
    }
    fields.sort_by_cached_key(|field| format!("{field:?}"));
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
fn every_servers_data_arrives_on_every_server_by_each_mode_but_for_what_is_named() {
    let sources: Vec<_> = servers::available()
        .iter()
        .map(|kind| (kind, Dumped::full(kind)))
        .collect();
    for to in servers::available() {
        for mode in [Mode::Auto, Mode::Commands, Mode::Restore] {
            let server = Server::start(to);
            for (from, dumped) in &sources {
                let what = format!("{from} to {to}, --mode {}", mode.as_str());
                let mut client = server.client();
                client.run(cmd!["FLUSHALL"]);
                if to.speaks_redis(7, 0) {
                    client.run(cmd!["FUNCTION", "FLUSH"]);
                }
                arrives(dumped, &server, mode, from, &what);
            }
        }
    }
}

/// Hashes with fields that expire, and how many such fields there are.
fn fields_that_expire(contents: &Contents) -> (u64, u64) {
    let items = contents.databases.values().flat_map(|items| items.values());
    let hashes = items.filter(|item| item.kind == "hash").map(|item| {
        let Value::List(fields) = &item.value else {
            return 0;
        };
        let expiring = |field: &&Value| matches!(field, Value::List(parts) if parts.len() == 3);
        fields.iter().filter(expiring).count() as u64
    });
    hashes
        .filter(|fields| *fields > 0)
        .fold((0, 0), |(keys, sum), fields| (keys + 1, sum + fields))
}

fn arrives(dumped: &Dumped, server: &Server, mode: Mode, from: &servers::Kind, what: &str) {
    let to = server.kind();
    let knows_all = from.fits_into(to) || from.rdb_version() == to.rdb_version();
    let expiring = fields_that_expire(&dumped.contents);
    let request = Request {
        mode,
        ..Request::default()
    };
    let plan = good(plan(dumped, server, request.clone()));
    let loses_expiries = from.has_hash_field_expiry() && !to.has_hash_field_expiry();
    let loses_functions = from.speaks_redis(7, 0) && !to.speaks_redis(7, 0);
    let named: Vec<_> = plan.unheld.iter().map(|found| found.what).collect();
    match mode {
        // Nothing is recoded: the types that are not known are named.
        Mode::Restore => assert_eq!(named.is_empty(), knows_all, "{what}: {named:?}"),
        _ if loses_expiries => {
            assert_eq!(named, ["field-expiry"], "{what}");
            assert_eq!(
                (plan.unheld[0].keys, plan.unheld[0].parts),
                expiring,
                "{what}"
            );
        }
        _ => assert!(named.is_empty(), "{what}: {named:?}"),
    }
    let allowed = Request {
        loss: Loss::Allowed,
        ..request.clone()
    };
    if !named.is_empty() || loses_functions {
        let failure = run(dumped, server, request).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Refused, "{what}: {failure:?}");
        assert!(server.client().keyspace().is_empty(), "{what}");
    }
    let outcome = good(run(dumped, server, allowed));
    let losses = outcome.losses;
    let held = held(&dumped.contents, to, mode);
    let arrived = Contents::of(&mut server.client());
    let held = match mode {
        Mode::Restore => held.only(|db, key, _| {
            let there = arrived.databases.get(&db);
            there.is_some_and(|there| there.contains_key(key))
        }),
        _ => held,
    };
    let compared = match mode {
        Mode::Commands => without_times(arrived.clone()),
        Mode::Auto | Mode::Restore => arrived.clone(),
    };
    held.must_equal(&compared, what);
    assert_eq!(outcome.keys as usize, arrived.keys(), "{what}");
    let missing = (dumped.contents.keys() - arrived.keys()) as u64;
    assert_eq!(losses.keys, missing, "{what}");
    assert_eq!(losses.functions > 0, loses_functions, "{what}");
    match mode {
        Mode::Restore => assert_eq!((outcome.recoded, outcome.commands), (0, 0), "{what}"),
        Mode::Auto => {
            assert_eq!(outcome.commands, 0, "{what}");
            assert_eq!(outcome.recoded > 0, !knows_all, "{what}");
        }
        Mode::Commands => assert_eq!(outcome.commands, outcome.keys, "{what}"),
    }
    let expiries = match mode {
        Mode::Auto | Mode::Commands if loses_expiries => expiring.1,
        _ => 0,
    };
    assert_eq!(losses.field_expiries, expiries, "{what}");
}

/// Without what commands can't set.
pub(super) fn without_times(mut contents: Contents) -> Contents {
    let items = contents
        .databases
        .values_mut()
        .flat_map(|db| db.values_mut());
    items
        .filter(|item| item.kind == "stream")
        .for_each(|item| without_times_of_consumers(&mut item.value));
    contents
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
