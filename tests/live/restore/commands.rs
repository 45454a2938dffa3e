//! Keys made by plain commands: whole or not at all, for readers, conflicts, stops and errors alike.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rdbkeeper::failure::{Failure, Kind};
use rdbkeeper::restore::{self, Loss, Outcome, Request};
use rdbkeeper::target::live::OnConflict;
use rdbkeeper::target::way::Mode;
use tokio_util::sync::CancellationToken;

use super::{
    Dumped, both, endpoint, endpoint_of, finish, good, plan, run, run_after, run_as, silent, wait,
};
use crate::cmd;
use crate::support::compare::Contents;
use crate::support::data;
use crate::support::poll::until;
use crate::support::servers::{self, Options, Server};

/// What temporary keys are called.
const TEMPORARY: &str = "rdbkeeper:restoring:*";

fn by_commands() -> Request {
    Request {
        mode: Mode::Commands,
        ..Request::default()
    }
}

/// A list so long that it takes a while, and a key before and after it.
fn long(server: &Server) -> Dumped {
    let mut client = server.client();
    let script = "for i = 1, 1500 do local t = {} for j = 1, 1000 do t[j] = 'element ' .. i * j end \
                  redis.call('RPUSH', KEYS[1], unpack(t)) end";
    client.run(cmd!["EVAL", script, 1, "long"]);
    client.run(cmd!["SADD", "set", "a", "b"]);
    client.run(cmd!["SET", "string", "value"]);
    Dumped::of(server)
}

/// Runs it while `meanwhile` gets a client of the target.
fn run_and<T: Send + 'static>(
    dumped: &Dumped,
    server: &Server,
    request: Request,
    meanwhile: impl FnOnce(crate::support::client::Client, CancellationToken) -> T + Send + 'static,
) -> (Result<Outcome, Failure>, T) {
    let client = server.client();
    wait(async {
        let token = CancellationToken::new();
        let (backup, to) = (dumped.backup(), endpoint(server));
        let prepared = restore::prepare(backup, to, request, silent(), token.clone()).await;
        let prepared = good(prepared);
        let watching = tokio::task::spawn_blocking(move || meanwhile(client, token));
        let result = finish(prepared).await;
        (result, watching.await.unwrap())
    })
}

#[test]
fn a_reader_sees_a_key_whole_or_not_at_all() {
    let kind = servers::usual();
    let dumped = long(&Server::start(kind));
    let server = Server::start(kind);
    let done = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&done);
    let client = server.client();
    let reader = std::thread::spawn(move || {
        let mut client = client;
        let mut seen = std::collections::BTreeSet::new();
        while !stop.load(Ordering::SeqCst) {
            seen.insert(client.run(cmd!["LLEN", "long"]).int());
        }
        seen.insert(client.run(cmd!["LLEN", "long"]).int());
        seen
    });
    let outcome = good(run(&dumped, &server, by_commands()));
    done.store(true, Ordering::SeqCst);
    let seen: Vec<i64> = reader.join().unwrap().into_iter().collect();
    assert_eq!(seen, [0, 1_500_000]);
    assert_eq!((outcome.keys, outcome.commands), (3, 3));
    dumped
        .contents
        .must_equal(&Contents::of(&mut server.client()), "by commands");
}

#[test]
fn a_stop_in_the_middle_of_a_value_leaves_nothing_and_whoever_is_killed_leaves_it_for_an_hour() {
    let kind = servers::usual();
    let dumped = long(&Server::start(kind));
    let server = Server::start(kind);
    let (result, left) = run_and(&dumped, &server, by_commands(), |mut client, token| {
        let left = until("a key is half made", || {
            let keys = client.run(cmd!["KEYS", TEMPORARY]);
            let key = keys.array().first()?.bytes();
            let length = client.run(cmd!["LLEN", &key]).int();
            (length > 0).then(|| client.run(cmd!["PTTL", &key]).int())
        });
        token.cancel();
        left
    });
    let failure = result.unwrap_err();
    assert_eq!(failure.kind, Kind::Interrupted, "{failure:?}");
    assert!((1..=3_600_000).contains(&left), "{left}");
    let mut client = server.client();
    assert!(client.run(cmd!["KEYS", TEMPORARY]).array().is_empty());
    assert_eq!(client.run(cmd!["EXISTS", "long"]).int(), 0);
}

#[test]
fn an_error_in_the_middle_of_a_value_leaves_nothing() {
    let kind = servers::usual();
    let dumped = long(&Server::start(kind));
    let server = Server::start(kind);
    // The limit comes when the plan is made; before, it would refuse what can't fit.
    let (to, limit) = (endpoint(&server), cmd!["CONFIG", "SET", "maxmemory", "8mb"]);
    let failure = run_after(&dumped, to, by_commands(), || {
        server.client().run(limit);
    })
    .unwrap_err();
    assert_eq!(failure.kind, Kind::Unavailable, "{failure:?}");
    assert!(failure.causes[0].starts_with("OOM"), "{failure:?}");
    let mut client = server.client();
    assert!(client.run(cmd!["KEYS", TEMPORARY]).array().is_empty());
    assert_eq!(client.run(cmd!["EXISTS", "long"]).int(), 0);
}

#[test]
fn conflict_policies_hold() {
    let kind = servers::usual();
    let source = Server::start(kind);
    let mut client = source.client();
    client.run(cmd!["SET", "string", "ours", "EX", 5000]);
    client.run(cmd!["RPUSH", "list", "ours"]);
    client.run(cmd!["XADD", "stream", "1-1", "ours", ""]);
    client.run(cmd!["SADD", "alone", "ours"]);
    let dumped = Dumped::of(&source);
    let server = Server::start(kind);
    let theirs = |server: &Server| {
        let mut client = server.client();
        client.run(cmd!["FLUSHALL"]);
        for key in ["string", "list", "stream"] {
            client.run(cmd!["SET", key, "theirs"]);
        }
    };
    theirs(&server);
    let failure = run(&dumped, &server, by_commands()).unwrap_err();
    assert_eq!(failure.kind, Kind::Refused);
    assert_eq!(server.client().keyspace(), [(0, 3)]);

    let skip = Request {
        on_conflict: OnConflict::Skip,
        ..by_commands()
    };
    let outcome = good(run(&dumped, &server, skip));
    assert_eq!((outcome.keys, outcome.skipped), (1, 3));
    let mut client = server.client();
    assert_eq!(client.run(cmd!["GET", "list"]).text(), "theirs");
    assert_eq!(client.keyspace(), [(0, 4)]);

    theirs(&server);
    let replace = Request {
        on_conflict: OnConflict::Replace,
        ..by_commands()
    };
    assert_eq!(good(run(&dumped, &server, replace)).keys, 4);
    dumped
        .contents
        .must_equal(&Contents::of(&mut server.client()), "replaced");
}

#[test]
fn a_key_that_appears_meanwhile_stays_as_it_is() {
    let kind = servers::usual();
    let dumped = long(&Server::start(kind));
    let server = Server::start(kind);
    let only = Request {
        filters: rdbkeeper::selection::Filters {
            include: vec![rdbkeeper::selection::KeyPattern::new(b"long".to_vec())],
            ..Default::default()
        },
        ..by_commands()
    };
    let (result, ()) = run_and(&dumped, &server, only, |mut client, _| {
        until("a key is half made", || {
            let keys = client.run(cmd!["KEYS", TEMPORARY]);
            keys.array().first().map(|_| ())
        });
        client.run(cmd!["SET", "long", "theirs"]);
    });
    let failure = result.unwrap_err();
    assert_eq!(failure.kind, Kind::Refused, "{failure:?}");
    assert!(failure.message.contains("appeared"), "{failure:?}");
    let mut client = server.client();
    assert_eq!(client.run(cmd!["GET", "long"]).text(), "theirs");
    assert!(client.run(cmd!["KEYS", TEMPORARY]).array().is_empty());
}

#[test]
fn a_value_longer_than_the_target_takes_at_once_arrives_in_pieces() {
    servers::each(|kind| {
        let source = Server::start(kind);
        let mut client = source.client();
        let noise = data::Random::new(3).bytes(3 << 20);
        client.run(cmd!["SET", "large string", &noise]);
        client.run(cmd!["PEXPIREAT", "large string", 4_102_444_800_123_u64]);
        let mut list = cmd!["RPUSH", "large list"];
        list.extend(noise.chunks(700_000).map(<[u8]>::to_vec));
        client.run(list);
        client.run(cmd!["SET", "small", "x"]);
        let dumped = Dumped::of(&source);
        let server = Server::with(kind, Options::new().config("proto-max-bulk-len 1mb"));
        let outcome = good(run(&dumped, &server, Request::default()));
        assert_eq!((outcome.keys, outcome.commands), (3, 2), "{kind}");
        let arrived = Contents::of(&mut server.client());
        dumped.contents.must_equal(&arrived, &kind.to_string());
    });
}

#[test]
fn an_element_longer_than_the_target_takes_is_named_and_left_out_when_that_is_allowed() {
    let kind = servers::usual();
    let source = Server::start(kind);
    let noise = data::Random::new(3).bytes(2 << 20);
    let mut client = source.client();
    client.run(cmd!["RPUSH", "list", "before", &noise, "after"]);
    let dumped = Dumped::of(&source);
    let server = Server::with(kind, Options::new().config("proto-max-bulk-len 1mb"));
    let planned = good(plan(&dumped, &server, Request::default()));
    let found = &planned.unheld[0];
    assert_eq!(
        (found.what, found.keys, found.parts),
        ("element-too-large", 1, 1)
    );
    let failure = run(&dumped, &server, Request::default()).unwrap_err();
    assert_eq!(failure.kind, Kind::Refused);
    let told = "cannot hold everything in 1 of the 1 key";
    assert!(failure.message.ends_with(told), "{failure:?}");
    let allowed = Request {
        loss: Loss::Allowed,
        ..Request::default()
    };
    let outcome = good(run(&dumped, &server, allowed));
    assert_eq!((outcome.keys, outcome.losses.elements), (1, 1));
    let list = server.client().run(cmd!["LRANGE", "list", 0, -1]);
    let list: Vec<String> = list.array().iter().map(|item| item.text()).collect();
    assert_eq!(list, ["before", "after"]);
}

#[test]
fn who_may_not_restore_gets_the_keys_by_commands() {
    let kind = servers::usual();
    let source = Server::start(kind);
    data::fill(&mut source.client(), kind);
    let dumped = Dumped::of(&source);
    let user = Options::new().user("keeper on >pw +@all -restore ~*");
    let server = Server::with(kind, user);
    let to = endpoint_of(&server, "keeper");
    let (plan, result) = both(dumped.backup(), to, Request::default());
    let outcome = good(result);
    assert!(plan.warnings.iter().any(|told| told.contains("RESTORE")));
    assert_eq!(outcome.commands, outcome.keys);
    assert_eq!(outcome.keys as usize, dumped.contents.keys());
}

#[test]
fn a_right_that_commands_need_is_asked_before_anything_is_written() {
    let kind = servers::usual();
    let dumped = Dumped::full(kind);
    for (rights, missing) in [
        ("~* +@all -rpush", "RPUSH"),
        ("~* +@all -rename", "RENAME"),
        ("~* +@all -xclaim", "XCLAIM"),
        ("~[^r]* +@all", "PEXPIRE"),
    ] {
        let user = Options::new().user(&format!("keeper on >pw {rights}"));
        let server = Server::with(kind, user);
        let to = endpoint_of(&server, "keeper");
        let failure = run_as(&dumped, to, by_commands()).unwrap_err();
        assert_eq!(failure.kind, Kind::Forbidden, "{rights}: {failure:?}");
        let forbids = format!("forbids {missing} to this user");
        assert!(failure.message.contains(&forbids), "{rights}: {failure:?}");
        assert!(failure.hint.unwrap().contains("~rdbkeeper:restoring:*"));
        assert!(server.client().keyspace().is_empty());
    }
}

#[test]
fn fields_that_are_over_are_left_out_and_a_hash_of_them_alone_counts_as_over() {
    let (Some(from), Some(to)) = (servers::named("redis-8.0"), servers::named("valkey-9.1")) else {
        return;
    };
    let source = Server::start(from);
    let mut client = source.client();
    for (key, stays) in [("some", true), ("none", false)] {
        client.run(cmd!["HSET", key, "gone", 1]);
        if stays {
            client.run(cmd!["HSET", key, "stays", 2, "later", 3]);
            let later = 4_102_444_800_123_u64;
            client.run(cmd!["HPEXPIREAT", key, later, "FIELDS", 1, "later"]);
        }
        client.run(cmd!["HPEXPIRE", key, 1500, "FIELDS", 1, "gone"]);
    }
    let dumped = Dumped::of(&source);
    until("they are over", || {
        (client.run(cmd!["EXISTS", "none"]).int() == 0
            && client.run(cmd!["HEXISTS", "some", "gone"]).int() == 0)
            .then_some(())
    });
    let left = Contents::of(&mut client);
    for mode in [Mode::Auto, Mode::Commands] {
        let server = Server::start(to);
        let request = Request {
            mode,
            ..Request::default()
        };
        let outcome = good(run(&dumped, &server, request));
        assert_eq!((outcome.keys, outcome.expired), (1, 1), "{mode:?}");
        assert!(outcome.losses.is_none(), "{mode:?}");
        let arrived = Contents::of(&mut server.client());
        left.must_equal(&arrived, &format!("{mode:?}"));
    }
}

#[test]
fn streams_arrive_with_their_history_their_groups_and_what_is_pending_of_deleted_entries() {
    let sources: Vec<(&servers::Kind, Dumped)> = servers::available()
        .iter()
        .map(|kind| {
            let source = Server::start(kind);
            haunted(&mut source.client(), kind);
            (kind, Dumped::of(&source))
        })
        .collect();
    for to in servers::available() {
        for (from, dumped) in &sources {
            let server = Server::start(to);
            let outcome = good(run(dumped, &server, by_commands()));
            let what = format!("{from} to {to}");
            assert_eq!(outcome.commands, outcome.keys, "{what}");
            let arrived = super::across::as_commands_leave_it(Contents::of(&mut server.client()));
            let sent = super::across::as_commands_leave_it(dumped.contents.clone());
            sent.must_equal(&arrived, &what);
        }
    }
}

/// Streams that have seen much.
fn haunted(client: &mut crate::support::client::Client, kind: &servers::Kind) {
    for key in ["trimmed", "deleted", "both", "emptied"] {
        for number in 1..=20 {
            client.run(cmd!["XADD", key, format!("{number}-1"), "f", number]);
        }
        client.run(cmd!["XGROUP", "CREATE", key, "g", "0"]);
        for (consumer, count) in [("a", 3), ("b", 2), ("a", 7), ("c", 1)] {
            let read = cmd![
                "XREADGROUP",
                "GROUP",
                "g",
                consumer,
                "COUNT",
                count,
                "STREAMS",
                key,
                ">"
            ];
            client.run(read);
        }
        client.run(cmd!["XACK", key, "g", "2-1", "9-1"]);
        client.run(cmd!["XCLAIM", key, "g", "b", 0, "5-1", "RETRYCOUNT", 9]);
    }
    client.run(cmd!["XTRIM", "trimmed", "MAXLEN", 14]);
    client.run(cmd!["XDEL", "deleted", "1-1", "4-1", "13-1", "20-1"]);
    client.run(cmd!["XTRIM", "both", "MAXLEN", 17]);
    client.run(cmd!["XDEL", "both", "6-1", "7-1"]);
    client.run(cmd!["XTRIM", "emptied", "MAXLEN", 0]);
    client.run(cmd!["XADD", "far", "5-5", "f", "v"]);
    client.run(cmd!["XSETID", "far", "99-7"]);
    client.run(cmd!["XADD", "nothing", "5-5", "f", "v"]);
    client.run(cmd!["XDEL", "nothing", "5-5"]);
    if kind.speaks_redis(7, 0) {
        let history = cmd![
            "XSETID",
            "far",
            "99-7",
            "ENTRIESADDED",
            400,
            "MAXDELETEDID",
            "77-0"
        ];
        client.run(history);
    }
}
