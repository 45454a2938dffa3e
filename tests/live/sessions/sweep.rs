//! What a sweep does to keys, on every server, with scripts and without.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rdbkeeper::config::SessionStore;
use rdbkeeper::failure::Kind;
use rdbkeeper::sessions::sweep::Mode;
use rdbkeeper::sessions::{Outcome, Wish};
use rdbkeeper::stage;

use super::{
    as_user, default_rule, each_way, job, now_s, pyramid_key, pyramid_value, rules, run,
    run_wishing, spring_session, swept, ttl, with_users,
};
use crate::cmd;
use crate::support::client::Client;
use crate::support::poll::until;
use crate::support::servers::{self, Options, Server};

#[test]
fn what_is_decided_is_done() {
    each_way(|server, user| {
        let mut client = server.client();
        let (old, now) = (now_s() - 40 * 86_400, now_s());
        client.run(cmd!["SET", pyramid_key(1), pyramid_value(old, 3600, 5)]);
        client.run(cmd!["SET", pyramid_key(2), pyramid_value(now, 3600, 5)]);
        client.run(cmd![
            "SET",
            pyramid_key(3),
            pyramid_value(now, 60, 5),
            "EX",
            999_999
        ]);
        client.run(cmd![
            "SET",
            pyramid_key(4),
            pyramid_value(now, 3600, 5),
            "EX",
            100
        ]);
        client.run(cmd!["RPUSH", pyramid_key(5), "a"]);
        client.run(cmd!["SET", pyramid_key(6), "no pickle"]);
        client.run(cmd![
            "SET",
            pyramid_key(7),
            pyramid_value(old, 3600, 200_000)
        ]);
        client.run(cmd![
            "SET",
            pyramid_key(8),
            pyramid_value(old, 3600, 17 << 20)
        ]);
        client.run(cmd!["SET", pyramid_key(9), pyramid_value(now, 7200, 5)]);
        client.run(cmd!["RPUSH", "o:list", "a"]);
        client.run(cmd!["SET", "o:long", "a", "EX", 5000]);
        client.run(cmd!["SET", b"o:\xff\x00\r\n", "a"]);
        // Over, and not removed yet.
        client.run(cmd!["DEBUG", "SET-ACTIVE-EXPIRE", 0]);
        client.run(cmd!["SET", "o:over", "a", "PX", 1]);
        let clock = |client: &mut Client| {
            let told = client.run(cmd!["TIME"]);
            let part = |at: usize| told.array()[at].text().parse::<u64>().unwrap();
            part(0) * 1_000_000 + part(1)
        };
        let begun = clock(&mut client);
        until("its millisecond is over", || {
            (clock(&mut client) > begun + 2000).then_some(())
        });
        client.run(cmd!["SET", "websauna_session_test", "a"]);
        client.select(3);
        client.run(cmd!["SADD", "o:three", "a"]);
        client.select(0);
        let (swept, told) = swept(as_user(job(server, rules(), Mode::Expire), user));
        let done = |reason| (reason, Outcome::Done);
        let left = |reason| (reason, Outcome::Nothing);
        assert_eq!(told.came_of(pyramid_key(1)), done("too-old"));
        assert_eq!(told.came_of(pyramid_key(2)), done("no-ttl"));
        assert_eq!(told.came_of(pyramid_key(3)), done("ttl-too-long"));
        assert_eq!(told.came_of(pyramid_key(4)), left("ttl-in-order"));
        assert_eq!(told.came_of(pyramid_key(5)), left("unreadable"));
        assert_eq!(told.came_of(pyramid_key(6)), left("unreadable"));
        assert_eq!(told.came_of(pyramid_key(7)), done("too-old"));
        assert_eq!(told.came_of(pyramid_key(8)), left("unreadable"));
        assert_eq!(told.came_of(pyramid_key(9)), done("no-ttl"));
        assert_eq!(told.came_of("o:list"), done("no-ttl"));
        assert_eq!(told.came_of("o:long"), done("ttl-too-long"));
        assert_eq!(told.came_of(b"o:\xff\x00\r\n"), done("no-ttl"));
        assert_eq!(told.came_of("websauna_session_test").0, "no rule");
        assert_eq!(told.of("o:three").db, 3);
        assert!(!told.told.iter().any(|told| told.key == b"o:over"));
        assert_eq!(ttl(&mut client, pyramid_key(1)), -2);
        assert_eq!(ttl(&mut client, pyramid_key(7)), -2);
        let near = |ttl: i64, wanted: i64| assert!((wanted - 60..=wanted).contains(&ttl), "{ttl}");
        near(ttl(&mut client, pyramid_key(2)), 3600);
        near(ttl(&mut client, pyramid_key(3)), 3600);
        near(ttl(&mut client, pyramid_key(9)), 7200);
        near(ttl(&mut client, "o:list"), 600);
        near(ttl(&mut client, "o:long"), 600);
        near(ttl(&mut client, b"o:\xff\x00\r\n"), 600);
        for key in [
            pyramid_key(5),
            pyramid_key(6),
            pyramid_key(8),
            "websauna_session_test".into(),
        ] {
            assert_eq!(ttl(&mut client, key), -1);
        }
        assert_eq!((swept.restarts, swept.reconnects), (0, 0));
        let numbers: Vec<u32> = swept.databases.iter().map(|found| found.db).collect();
        assert_eq!(numbers, [0, 3]);
        assert!(swept.finished_ms >= swept.started_ms);
    });
}

/// Runs `change` once, when the keys of the first batch are decided upon and not yet acted upon.
fn between(server: &Server, name: &str, change: impl Fn(&mut Client) + Send + Sync + 'static) {
    let port = server.port();
    let times = AtomicUsize::new(0);
    stage::at(&format!("sweep-decided:{name}"), move || {
        if times.fetch_add(1, Ordering::SeqCst) == 0 {
            change(&mut Client::tcp(port).unwrap());
        }
    });
}

#[test]
fn a_key_that_changed_between_the_look_and_the_act_is_left() {
    each_way(|server, user| {
        let mut client = server.client();
        let (old, now) = (now_s() - 40 * 86_400, now_s());
        for number in [1, 2, 3, 4] {
            client.run(cmd![
                "SET",
                pyramid_key(number),
                pyramid_value(old, 3600, 5)
            ]);
        }
        for number in [5, 6, 7] {
            let value = pyramid_value(now, 3600, 5);
            client.run(cmd!["SET", pyramid_key(number), value, "EX", 9000]);
        }
        for number in [8, 9] {
            client.run(cmd![
                "SET",
                pyramid_key(number),
                pyramid_value(now, 3600, 5)
            ]);
        }
        for key in ["o:renewed", "o:kept"] {
            client.run(cmd!["SET", key, "a", "EX", 9000]);
        }
        client.run(cmd!["SET", "o:given", "a"]);
        let name = format!("changes-{}-{user}", server.port());
        between(server, &name, |client| {
            let now = now_s();
            client.run(cmd!["SET", pyramid_key(1), pyramid_value(now, 3600, 5)]);
            client.run(cmd!["DEL", pyramid_key(2)]);
            client.run(cmd!["DEL", pyramid_key(3)]);
            client.run(cmd!["RPUSH", pyramid_key(3), "a list now"]);
            client.run(cmd!["EXPIRE", pyramid_key(5), 20_000]);
            client.run(cmd!["PERSIST", pyramid_key(6)]);
            client.run(cmd!["EXPIRE", pyramid_key(8), 50_000]);
            client.run(cmd!["APPEND", pyramid_key(9), "."]);
            client.run(cmd!["EXPIRE", "o:renewed", 20_000]);
            client.run(cmd!["EXPIRE", "o:given", 20_000]);
        });
        let mut job = as_user(job(server, rules(), Mode::Expire), user);
        job.name = name;
        let (_, told) = swept(job);
        let of = |number| told.came_of(pyramid_key(number)).1;
        assert_eq!(of(1), Outcome::Changed);
        assert_eq!(of(2), Outcome::Gone);
        assert_eq!(of(3), Outcome::Changed);
        assert_eq!(of(4), Outcome::Done);
        assert_eq!(of(5), Outcome::Changed);
        assert_eq!(of(6), Outcome::Changed);
        assert_eq!(of(7), Outcome::Done);
        assert_eq!(of(8), Outcome::Changed);
        assert_eq!(of(9), Outcome::Changed);
        assert_eq!(told.came_of("o:renewed").1, Outcome::Changed);
        assert_eq!(told.came_of("o:given").1, Outcome::Changed);
        assert_eq!(told.came_of("o:kept").1, Outcome::Done);
        assert_eq!(ttl(&mut client, pyramid_key(1)), -1);
        assert_eq!(ttl(&mut client, pyramid_key(3)), -1);
        assert_eq!(ttl(&mut client, pyramid_key(4)), -2);
        assert!(ttl(&mut client, pyramid_key(5)) > 19_000);
        assert_eq!(ttl(&mut client, pyramid_key(6)), -1);
        assert!(ttl(&mut client, pyramid_key(7)) <= 3600);
        assert!(ttl(&mut client, pyramid_key(8)) > 49_000);
        assert_eq!(ttl(&mut client, pyramid_key(9)), -1);
        assert!(ttl(&mut client, "o:renewed") > 19_000);
        assert!(ttl(&mut client, "o:given") > 19_000);
    });
}

#[test]
fn a_key_that_changes_under_watch_is_left_and_the_others_are_done() {
    servers::each(|kind| {
        let server = with_users(kind);
        let mut client = server.client();
        for number in [1, 2, 3] {
            let value = pyramid_value(now_s() - 40 * 86_400, 3600, 5);
            client.run(cmd!["SET", pyramid_key(number), value]);
        }
        let port = server.port();
        stage::at(&format!("sweep-watched:127.0.0.1:{port}"), move || {
            let mut client = Client::tcp(port).unwrap();
            client.run(cmd!["APPEND", pyramid_key(2), "."]);
        });
        let (_, told) = swept(as_user(job(&server, rules(), Mode::Expire), "plain"));
        assert_eq!(told.came_of(pyramid_key(1)).1, Outcome::Done);
        assert_eq!(told.came_of(pyramid_key(2)).1, Outcome::Changed);
        assert_eq!(told.came_of(pyramid_key(3)).1, Outcome::Done);
        assert_eq!(ttl(&mut client, pyramid_key(1)), -2);
        assert_eq!(ttl(&mut client, pyramid_key(2)), -1);
    });
}

#[test]
fn a_ttl_that_was_made_shorter_meanwhile_does_not_get_longer() {
    each_way(|server, user| {
        let mut client = server.client();
        client.run(cmd!["SET", "o:1", "a", "EX", 86_400]);
        let name = format!("shorter-{}-{user}", server.port());
        between(server, &name, |client| {
            client.run(cmd!["EXPIRE", "o:1", 100]);
        });
        let mut job = as_user(job(server, rules(), Mode::Expire), user);
        job.name = name;
        let (_, told) = swept(job);
        assert_eq!(told.came_of("o:1"), ("ttl-too-long", Outcome::Changed));
        assert!(ttl(&mut client, "o:1") <= 100);
    });
}

const ID: &str = "33fdd1b6-b496-4b33-9f7d-df96679d32f";

#[test]
fn a_session_of_spring_takes_along_what_stands_beside_it_and_a_live_marker_protects_it() {
    each_way(|server, user| {
        let mut client = server.client();
        let used = now_s() - 86_400;
        let minute = (used + 1800) / 60 * 60_000 + 60_000;
        let (expirations, by_end) = (
            format!("spring:session:expirations:{minute}"),
            "spring:session:sessions:expirations",
        );
        let index = "spring:session:index:org.springframework.session.FindByIndexNameSessionRepository.\
                     PRINCIPAL_NAME_INDEX_NAME:ann";
        let key = |n: u32| format!("spring:session:sessions:{ID}{n}");
        for n in [0, 1, 2, 3] {
            client.run(spring_session(&key(n), used, "ann"));
            client.run(cmd!["SADD", expirations, format!("\"expires:{ID}{n}\"")]);
            client.run(cmd!["SADD", index, format!("\"{ID}{n}\"")]);
            client.run(cmd!["ZADD", by_end, 1, format!("{ID}{n}")]);
        }
        // One is live by its marker, one becomes live between the look and the act, one is used then.
        let marker = |n: u32| format!("spring:session:sessions:expires:{ID}{n}");
        client.run(cmd!["SET", marker(1), ""]);
        let name = format!("spring-{}-{user}", server.port());
        let (marked, renewed) = (marker(2), key(3));
        between(server, &name, move |client| {
            client.run(cmd!["SET", marked, ""]);
            client.run(cmd!["HSET", renewed, "lastAccessedTime", 1000 * now_s()]);
        });
        let rules = vec![default_rule(SessionStore::Spring, 1800)];
        let mut job = as_user(job(server, rules, Mode::Expire), user);
        job.name = name;
        let (_, told) = swept(job);
        assert_eq!(told.came_of(key(0)), ("ended", Outcome::Done));
        assert_eq!(told.came_of(key(1)), ("marker-live", Outcome::Nothing));
        for n in [2, 3] {
            assert_eq!(told.came_of(key(n)).1, Outcome::Changed, "{n}");
        }
        for n in [1, 2, 3] {
            assert_eq!(ttl(&mut client, key(n)), -1);
        }
        assert_eq!(ttl(&mut client, key(0)), -2);
        assert_eq!(client.run(cmd!["SCARD", expirations]).int(), 3);
        assert_eq!(client.run(cmd!["SCARD", index]).int(), 3);
        assert_eq!(client.run(cmd!["ZCARD", by_end]).int(), 3);
    });
}

#[test]
fn fields_that_are_too_long_are_not_read() {
    each_way(|server, user| {
        let mut client = server.client();
        client.run(cmd!["CONFIG", "RESETSTAT"]);
        let used = now_s() - 86_400;
        let key = |n: u32| format!("spring:session:sessions:{ID}{n}");
        client.run(spring_session(&key(0), used, "ann"));
        client.run(spring_session(&key(1), used, &"x".repeat(200_000)));
        client.run(spring_session(&key(2), used, "ann"));
        client.run(cmd!["SET", key(3), "no hash"]);
        // One has grown by the time when it would be removed.
        let name = format!("fields-{}-{user}", server.port());
        let grown = key(2);
        between(server, &name, move |client| {
            client.run(spring_session(&grown, used, &"x".repeat(200_000)));
        });
        // Two types, so that SCAN gives strings, too.
        let mut rules = rules();
        rules.push(default_rule(SessionStore::Spring, 1800));
        let mut job = as_user(job(server, rules, Mode::Expire), user);
        job.name = name;
        let (_, told) = swept(job);
        assert_eq!(told.came_of(key(0)), ("ended", Outcome::Done));
        assert_eq!(told.came_of(key(1)), ("unreadable", Outcome::Nothing));
        assert_eq!(told.came_of(key(2)), ("ended", Outcome::Changed));
        assert_eq!(told.came_of(key(3)), ("unreadable", Outcome::Nothing));
        if user == "scripts" {
            let calls = client.info("cmdstat_hmget").unwrap();
            assert!(calls.starts_with("calls=3,"), "{calls}");
        }
    });
}

#[test]
fn a_session_of_spring_that_is_too_old_but_in_use_is_told_so_by_every_run() {
    each_way(|server, user| {
        let mut client = server.client();
        let key = |n: u32| format!("spring:session:sessions:{ID}{n}");
        for n in [0, 1] {
            client.run(spring_session(&key(n), now_s() - 60, "ann"));
            client.run(cmd!["EXPIRE", key(n), 2100]);
        }
        let marker = format!("spring:session:sessions:expires:{ID}1");
        client.run(cmd!["SET", marker, "", "EX", 1800]);
        let mut rule = default_rule(SessionStore::Spring, 1800);
        rule.max_age = Some(Duration::from_secs(120));
        for (mode, outcome) in [
            (Mode::Report, Outcome::Would),
            (Mode::DryRun, Outcome::Would),
            (Mode::Expire, Outcome::Done),
        ] {
            let (_, told) = swept(as_user(job(server, vec![rule.clone()], mode), user));
            assert_eq!(told.came_of(key(0)), ("too-old", outcome));
            assert_eq!(told.came_of(key(1)), ("marker-live", Outcome::Nothing));
        }
        assert!(ttl(&mut client, key(1)) > 2000);
    });
}

#[test]
fn a_dry_run_and_a_report_tell_the_same_and_write_nothing() {
    servers::each(|kind| {
        let server = Server::with(kind, Options::new().user("reader on >pw ~* +@read"));
        let mut client = server.client();
        client.run(cmd![
            "SET",
            pyramid_key(1),
            pyramid_value(now_s() - 40 * 86_400, 3600, 5)
        ]);
        client.run(cmd!["SET", pyramid_key(2), pyramid_value(now_s(), 3600, 5)]);
        client.run(cmd!["SET", "other", "y".repeat(70_000), "EX", 900]);
        client.run(cmd!["RPUSH", "a list", "a"]);
        let changes = client.info("rdb_changes_since_last_save");
        let (_, dry) = swept(job(&server, rules(), Mode::DryRun));
        let wish = Wish {
            bytes: true,
            value: true,
        };
        for user in ["", "reader"] {
            let mut report = job(&server, rules(), Mode::Report);
            if !user.is_empty() {
                report = as_user(report, user);
            }
            let (swept, told) = run_wishing(report, wish);
            let swept = swept.unwrap();
            for number in [1, 2] {
                assert_eq!(
                    told.came_of(pyramid_key(number)),
                    dry.came_of(pyramid_key(number))
                );
                assert_eq!(told.came_of(pyramid_key(number)).1, Outcome::Would);
            }
            let other = told.of("other");
            assert_eq!(other.raw.as_ref().unwrap().len(), 64 << 10);
            assert!(other.bytes.unwrap() >= 70_000 && other.expiry.is_some());
            assert_eq!(told.of("a list").raw, None);
            assert_eq!(swept.scanned, 4);
            assert_eq!(swept.databases[0].keys, Some(4));
            if !user.is_empty() {
                assert_eq!((swept.server, swept.role), (None, None));
                assert!(
                    swept
                        .warnings
                        .iter()
                        .any(|warning| warning.contains("INFO"))
                );
                // TIME counted as reading until 6.2.
                let clock = swept
                    .warnings
                    .iter()
                    .any(|warning| warning.contains("TIME"));
                assert_eq!(clock, kind.speaks_redis(6, 2));
            }
        }
        assert_eq!(client.info("rdb_changes_since_last_save"), changes);
        assert_eq!(ttl(&mut client, pyramid_key(2)), -1);
    });
}

#[test]
fn a_sweep_that_is_stopped_ends_between_two_batches() {
    let server = Server::start(servers::usual());
    let mut client = server.client();
    client.run_all(
        (0..1000)
            .map(|n| cmd!["SET", format!("o:{n}"), "a"])
            .collect(),
    );
    let mut job = job(&server, rules(), Mode::Expire);
    job.name = format!("stopped-{}", server.port());
    let cancel = job.cancel.clone();
    stage::at(&format!("sweep-decided:{}", job.name), move || {
        cancel.cancel()
    });
    let (stopped, told) = run(job);
    assert_eq!(stopped.unwrap_err().kind, Kind::Interrupted);
    let done = told.told.len();
    assert!(done > 0 && done < 1000, "{done}");
    let with_ttl = (0..1000).filter(|n| ttl(&mut client, format!("o:{n}")) > 0);
    assert_eq!(with_ttl.count(), done);
}

#[test]
fn a_rate_is_kept_to() {
    let server = Server::start(servers::usual());
    let mut client = server.client();
    client.run_all(
        (0..300)
            .map(|n| cmd!["SET", format!("o:{n}"), "a"])
            .collect(),
    );
    let mut job = job(&server, rules(), Mode::Expire);
    job.max_keys_per_second = 300;
    let begun = std::time::Instant::now();
    let (swept, _) = swept(job);
    assert!(begun.elapsed() > Duration::from_millis(800));
    assert_eq!(swept.scanned, 300);
}

#[test]
fn an_empty_server_is_swept_and_a_database_that_is_not_there_is_said() {
    let server = Server::start(servers::usual());
    for mode in [Mode::Report, Mode::DryRun, Mode::Expire] {
        let (swept, told) = swept(job(&server, rules(), mode));
        assert_eq!((swept.scanned, told.told.len()), (0, 0));
        let mut job = job(&server, rules(), mode);
        job.databases = Some([0, 99].into());
        let failure = run(job).0.unwrap_err();
        assert_eq!(failure.kind, Kind::Config);
        assert!(failure.message.contains("no database 99"));
    }
}
