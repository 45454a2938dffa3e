//! Idle sessions: deleted only where idle times can be trusted, and no session that was used goes.

use std::path::Path;

use rdbkeeper::config::{SessionRule, SessionStore};
use rdbkeeper::failure::{Failure, Kind};
use rdbkeeper::sessions::sweep::{Job, Mode};
use rdbkeeper::sessions::{Outcome, Wish};

use super::{
    as_user, default_rule, job, now_s, pyramid_key, pyramid_value, refused, rule, run, run_wishing,
    swept, ttl,
};
use crate::cmd;
use crate::support::client::Client;
use crate::support::poll::until;
use crate::support::servers::{self, Kind as ServerKind, Options, Server};

/// Keys `o:…` that are over when they were idle for longer than a second; they get no TTL.
fn rules() -> Vec<SessionRule> {
    let mut rule = rule(SessionStore::Opaque, "^o:", 1);
    rule.idle = true;
    rule.missing_ttl = rdbkeeper::config::MissingTtl::Report;
    vec![rule]
}

fn idle_job(server: &Server, state: &Path, mode: Mode) -> Job {
    Job {
        state_dir: Some(state.to_owned()),
        ..job(server, rules(), mode)
    }
}

/// A key that looks as if it was used last so many seconds ago.
fn forged_key(client: &mut Client, key: &str, idle_s: u64) {
    client.run(cmd!["SET", "payload", "a"]);
    let payload = client.run(cmd!["DUMP", "payload"]).bytes();
    client.run(cmd!["DEL", key, "payload"]);
    client.run(cmd!["RESTORE", key, 0, payload, "IDLETIME", idle_s]);
}

/// Dry runs until a key would go. That is some seconds after its last use: no idle time is believed
/// that is longer than the server has run.
fn would_go(server: &Server, state: &Path, key: &str) {
    until("the idle key would go", || {
        let (swept, told) = swept(idle_job(server, state, Mode::DryRun));
        let goes = told.came_of(key) == ("idle", Outcome::Would);
        (goes && swept.idle_waits.is_none()).then_some(())
    });
}

fn able() -> Vec<&'static ServerKind> {
    let able = servers::available()
        .iter()
        .filter(|kind| kind.speaks_redis(6, 2));
    able.collect()
}

/// All at once, for each must wait.
fn each_able(body: impl Fn(&'static ServerKind) + Sync) {
    let body = &body;
    std::thread::scope(|threads| {
        for kind in able() {
            let run = move || {
                eprintln!("--- {kind}");
                body(kind);
            };
            threads.spawn(run);
        }
    });
}

#[test]
fn an_idle_key_goes_after_a_time_without_a_fork_and_one_that_is_used_stays() {
    each_able(|kind| {
        let server = Server::start(kind);
        let state = tempfile::tempdir().unwrap();
        let mut client = server.client();
        client.run(cmd!["MSET", "o:idle", "a", "o:used", "a"]);
        // After a step back of its clock by some seconds a server says 194 days of what was used last.
        forged_key(&mut client, "o:back", 16_777_150);
        forged_key(&mut client, "o:longer than it runs", 1000);
        let (first, told) = swept(idle_job(&server, state.path(), Mode::Expire));
        assert!(first.idle_waits.is_some());
        assert_eq!(told.came_of("o:idle").1, Outcome::Nothing);
        // From a first look that was long enough ago, until the key itself is said to be over.
        would_go(&server, state.path(), "o:idle");
        client.run(cmd!["GET", "o:used"]);
        let (_, told) = swept(idle_job(&server, state.path(), Mode::Expire));
        assert_eq!(told.came_of("o:idle"), ("idle", Outcome::Done));
        assert_eq!(ttl(&mut client, "o:idle"), -2);
        for key in ["o:used", "o:back", "o:longer than it runs"] {
            assert_eq!(told.came_of(key).1, Outcome::Nothing, "{key}");
            assert_eq!(ttl(&mut client, key), -1);
        }
    });
}

#[test]
fn a_key_that_is_used_between_the_look_and_the_act_stays_and_so_does_all_after_a_fork() {
    each_able(|kind| {
        for forks in [false, true] {
            let server = Server::start(kind);
            let state = tempfile::tempdir().unwrap();
            let mut client = server.client();
            client.run(cmd!["MSET", "o:used", "a", "o:back", "a"]);
            client.run(cmd!["SET", "o:idle", "a"]);
            would_go(&server, state.path(), "o:idle");
            let mut last = idle_job(&server, state.path(), Mode::Expire);
            // The state is found by the name of the database, which the stage has too.
            let port = server.port();
            let times = std::sync::atomic::AtomicUsize::new(0);
            rdbkeeper::stage::at(&format!("sweep-decided:{}", last.name), move || {
                if times.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 {
                    let mut client = Client::tcp(port).unwrap();
                    if forks {
                        client.run(cmd!["BGSAVE"]);
                    }
                    client.run(cmd!["GET", "o:used"]);
                    // Used, and then the clock was set back.
                    forged_key(&mut client, "o:back", 16_777_150);
                }
            });
            last.batch = 1000;
            let (_, told) = swept(last);
            let idle = match forks {
                false => Outcome::Done,
                true => Outcome::Changed,
            };
            assert_eq!(told.came_of("o:idle"), ("idle", idle));
            for key in ["o:used", "o:back"] {
                assert_eq!(told.came_of(key), ("idle", Outcome::Changed));
                assert_eq!(ttl(&mut client, key), -1);
            }
        }
    });
}

#[test]
fn a_key_that_was_read_while_the_server_saved_stays() {
    each_able(|kind| {
        let server = Server::start(kind);
        let state = tempfile::tempdir().unwrap();
        let mut client = server.client();
        for n in 0..50 {
            client.run(cmd!["SET", format!("o:{n}"), "a"]);
        }
        would_go(&server, state.path(), "o:7");
        // A save of some seconds, in microseconds a key; reads in it are not seen by OBJECT IDLETIME.
        client.run(cmd!["CONFIG", "SET", "rdb-key-save-delay", 60_000]);
        client.run(cmd!["BGSAVE"]);
        client.run(cmd!["GET", "o:7"]);
        let hidden = client.run(cmd!["OBJECT", "IDLETIME", "o:7"]).int() >= 3;
        assert!(
            hidden,
            "the server sees reads while it saves: the trap is gone"
        );
        let (waiting, during) = swept(idle_job(&server, state.path(), Mode::Expire));
        assert!(waiting.idle_waits.is_some());
        assert_eq!(during.came_of("o:7").1, Outcome::Nothing);
        until("the save ends", || {
            (client.info("rdb_bgsave_in_progress")? == "0").then_some(())
        });
        let (_, after) = swept(idle_job(&server, state.path(), Mode::Expire));
        assert_eq!(after.came_of("o:7").1, Outcome::Nothing);
        assert_eq!(ttl(&mut client, "o:7"), -1);
    });
}

/// Makes the one a replica of the other, without a fork.
fn hand_over(from: &Server, to: &Server) {
    until("it takes a FAILOVER", || {
        let reply = from.client().attempt(cmd!["FAILOVER"]).unwrap();
        reply.error().is_none().then_some(())
    });
    until("the other is the primary", || {
        let (mut from, mut to) = (from.client(), to.client());
        (to.info("role")? == "master" && from.info("master_link_status")? == "up").then_some(())
    });
}

#[test]
fn what_was_read_on_another_primary_meanwhile_stays() {
    let kind = servers::usual();
    if !kind.speaks_redis(6, 2) {
        return;
    }
    let (server, other) = (Server::start(kind), Server::start(kind));
    other.follow(&server);
    let state = tempfile::tempdir().unwrap();
    let mut client = server.client();
    client.run(cmd!["SET", "o:used", "a"]);
    would_go(&server, state.path(), "o:used");
    let mut same = || (client.info("run_id"), client.info("total_forks"));
    let before = same();
    hand_over(&server, &other);
    other.client().run(cmd!["GET", "o:used"]);
    hand_over(&other, &server);
    assert_eq!(same(), before);
    let (waiting, told) = swept(idle_job(&server, state.path(), Mode::Expire));
    assert!(waiting.idle_waits.is_some());
    assert_eq!(told.came_of("o:used").1, Outcome::Nothing);
    assert_eq!(ttl(&mut client, "o:used"), -1);

    // Whoever finds it a replica forgets what was seen.
    let kept = || {
        std::fs::read_dir(state.path().join("idle"))
            .unwrap()
            .count()
    };
    assert_eq!(kept(), 1);
    hand_over(&server, &other);
    refused(idle_job(&server, state.path(), Mode::DryRun));
    assert_eq!(kept(), 0);
}

#[test]
fn a_rule_that_must_wait_holds_up_no_other() {
    let server = Server::start(servers::usual());
    let state = tempfile::tempdir().unwrap();
    let mut client = server.client();
    client.run(cmd!["MSET", "o:1", "a", "p:1", "a"]);
    let mut both = rules();
    both[0].timeout = std::time::Duration::from_secs(31 * 86_400);
    both.push(rule(SessionStore::Opaque, "^p:", 600));
    let (swept, told) = swept(Job {
        rules: both,
        ..idle_job(&server, state.path(), Mode::Expire)
    });
    let waits = swept.idle_waits.unwrap();
    assert!(waits.contains("a session may be idle for 31d"), "{waits}");
    assert_eq!(told.came_of("o:1"), ("no-ttl", Outcome::Nothing));
    assert_eq!(told.came_of("p:1"), ("no-ttl", Outcome::Done));
    assert!(ttl(&mut client, "p:1") > 500);
}

#[test]
fn where_the_server_knows_no_touch_values_are_read_and_no_idle_time_is_disturbed() {
    let able = servers::available()
        .iter()
        .filter(|kind| kind.speaks_redis(7, 2));
    for kind in able {
        eprintln!("--- {kind}");
        let server = Server::start(kind);
        let state = tempfile::tempdir().unwrap();
        let mut client = server.client();
        let mut pyramid = default_rule(SessionStore::Pyramid, 1);
        pyramid.idle = true;
        pyramid.missing_ttl = rdbkeeper::config::MissingTtl::Report;
        let job = |mode| Job {
            rules: vec![pyramid.clone()],
            ..idle_job(&server, state.path(), mode)
        };
        for (number, timeout_s) in [(1, 1), (2, 7200)] {
            let value = pyramid_value(now_s(), timeout_s, 5);
            client.run(cmd!["SET", pyramid_key(number), value]);
        }
        client.run(cmd!["SET", "other", "a"]);
        until("the idle key would go", || {
            let (result, told) = run(job(Mode::DryRun));
            result.is_ok().then_some(())?;
            (told.came_of(pyramid_key(1)) == ("idle", Outcome::Would)).then_some(())
        });
        let wish = Wish {
            bytes: true,
            value: true,
        };
        let (_, told) = run_wishing(job(Mode::Report), wish);
        assert_eq!(told.of("other").raw.as_deref(), Some(b"a".as_slice()));
        for key in [pyramid_key(1), pyramid_key(2), "other".into()] {
            assert!(client.run(cmd!["OBJECT", "IDLETIME", key]).int() >= 3);
        }
        let (_, told) = swept(job(Mode::Expire));
        assert_eq!(told.came_of(pyramid_key(1)), ("idle", Outcome::Done));
        // Its own timeout is longer than the rule's.
        assert_eq!(told.came_of(pyramid_key(2)), ("no-ttl", Outcome::Nothing));
        assert!(client.run(cmd!["OBJECT", "IDLETIME", pyramid_key(2)]).int() >= 3);
    }
}

fn guard(failure: &Failure, text: &str) {
    assert_eq!(failure.kind, Kind::Refused, "{failure:?}");
    assert!(failure.message.contains(text), "{failure:?}");
    assert!(failure.hint.is_some(), "{failure:?}");
}

#[test]
fn each_guard_refuses_by_its_name_and_a_report_warns_of_it() {
    let server = Server::with(
        servers::usual(),
        Options::new().user("plain on >pw ~* +@all -@scripting"),
    );
    let state = tempfile::tempdir().unwrap();
    server.client().run(cmd!["SET", "o:1", "a"]);
    let expire = || idle_job(&server, state.path(), Mode::Expire);

    guard(
        &refused(Job {
            state_dir: None,
            ..expire()
        }),
        "no state folder",
    );
    guard(&refused(as_user(expire(), "plain")), "no scripts");

    let mut pyramid = default_rule(SessionStore::Pyramid, 1);
    pyramid.idle = true;
    let touches = Job {
        rules: vec![pyramid],
        ..expire()
    };
    guard(&refused(touches), "CLIENT NO-TOUCH");

    let mut client = server.client();
    client.run(cmd!["CONFIG", "SET", "maxmemory-policy", "allkeys-lfu"]);
    guard(&refused(expire()), "allkeys-lfu");
    let (report, told) = swept(idle_job(&server, state.path(), Mode::Report));
    assert!(report.warnings.iter().any(|w| w.contains("allkeys-lfu")));
    assert_eq!(told.came_of("o:1").1, Outcome::Nothing);
    client.run(cmd!["CONFIG", "SET", "maxmemory-policy", "noeviction"]);

    // What passes with time refuses nothing, and is said.
    until("it has run for long enough", || {
        (client.info("uptime_in_seconds")?.parse::<u32>().unwrap() > 1).then_some(())
    });
    let fresh = tempfile::tempdir().unwrap();
    let (swept, _) = swept(idle_job(&server, fresh.path(), Mode::DryRun));
    let waits = swept.idle_waits.unwrap();
    assert!(waits.contains("without a fork until"), "{waits}");
}

#[test]
fn a_server_that_counts_no_forks_is_refused() {
    let Some(kind) = servers::named("redis-6.0") else {
        return;
    };
    let server = Server::start(kind);
    let state = tempfile::tempdir().unwrap();
    guard(
        &refused(idle_job(&server, state.path(), Mode::DryRun)),
        "total_forks",
    );
}
