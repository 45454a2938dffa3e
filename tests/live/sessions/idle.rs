//! Idle sessions: deleted only where idle times can be trusted, and no session that was used goes.

use std::path::Path;

use rdbkeeper::config::{SessionRule, SessionStore};
use rdbkeeper::failure::{Failure, Kind};
use rdbkeeper::sessions::sweep::{Job, Mode};
use rdbkeeper::sessions::{Outcome, Wish};

use super::{
    Listener, as_user, default_rule, job, now_s, pyramid_key, pyramid_value, refused, rule, run,
    run_wishing, swept, ttl,
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

/// A key that was used last so many seconds ago.
fn idle_key(client: &mut Client, key: &str, idle_s: u64) {
    idle_key_of(client, key, b"a", idle_s);
}

fn idle_key_of(client: &mut Client, key: &str, value: &[u8], idle_s: u64) {
    client.run(cmd!["SET", "payload", value]);
    let payload = client.run(cmd!["DUMP", "payload"]).bytes();
    client.run(cmd!["DEL", key, "payload"]);
    client.run(cmd!["RESTORE", key, 0, payload, "IDLETIME", idle_s]);
}

/// Dry runs until the server has been watched for long enough.
fn watched(server: &Server, state: &Path) -> Listener {
    until("it was watched for long enough", || {
        match run(idle_job(server, state, Mode::DryRun)) {
            (Ok(_), told) => Some(told),
            (Err(failure), told) => {
                assert_eq!(failure.kind, Kind::Refused, "{failure:?}");
                assert_eq!(told.told.len(), 0);
                None
            }
        }
    })
}

fn able() -> Vec<&'static ServerKind> {
    let able = servers::available()
        .iter()
        .filter(|kind| kind.speaks_redis(6, 2));
    able.collect()
}

#[test]
fn an_idle_key_goes_after_a_time_without_a_fork_and_one_that_is_used_stays() {
    for kind in able() {
        eprintln!("--- {kind}");
        let server = Server::start(kind);
        let state = tempfile::tempdir().unwrap();
        let mut client = server.client();
        idle_key(&mut client, "o:idle", 1000);
        idle_key(&mut client, "o:used", 1000);
        let first = refused(idle_job(&server, state.path(), Mode::Expire));
        assert_eq!(first.kind, Kind::Refused);
        watched(&server, state.path());
        // From a first look that was long enough ago, until the key itself is said to be over.
        until("the idle key would go", || {
            let (_, told) = swept(idle_job(&server, state.path(), Mode::DryRun));
            (told.came_of("o:idle") == ("idle", Outcome::Would)).then_some(())
        });
        client.run(cmd!["GET", "o:used"]);
        let (_, told) = swept(idle_job(&server, state.path(), Mode::Expire));
        assert_eq!(told.came_of("o:idle"), ("idle", Outcome::Done));
        assert_eq!(told.came_of("o:used").1, Outcome::Nothing);
        assert_eq!(ttl(&mut client, "o:idle"), -2);
        assert_eq!(ttl(&mut client, "o:used"), -1);
    }
}

#[test]
fn a_key_that_is_used_between_the_look_and_the_act_stays_and_so_does_all_after_a_fork() {
    for kind in able() {
        eprintln!("--- {kind}");
        for forks in [false, true] {
            let server = Server::start(kind);
            let state = tempfile::tempdir().unwrap();
            let mut client = server.client();
            idle_key(&mut client, "o:idle", 1000);
            idle_key(&mut client, "o:used", 1000);
            watched(&server, state.path());
            until("the idle key would go", || {
                let (_, told) = swept(idle_job(&server, state.path(), Mode::DryRun));
                (told.came_of("o:idle") == ("idle", Outcome::Would)).then_some(())
            });
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
                }
            });
            last.batch = 1000;
            let (_, told) = swept(last);
            let idle = match forks {
                false => Outcome::Done,
                true => Outcome::Changed,
            };
            assert_eq!(told.came_of("o:idle"), ("idle", idle));
            assert_eq!(told.came_of("o:used"), ("idle", Outcome::Changed));
            assert_eq!(ttl(&mut client, "o:used"), -1);
        }
    }
}

#[test]
fn a_key_that_was_read_while_the_server_saved_stays() {
    for kind in able() {
        eprintln!("--- {kind}");
        let server = Server::start(kind);
        let state = tempfile::tempdir().unwrap();
        let mut client = server.client();
        for n in 0..50 {
            idle_key(&mut client, &format!("o:{n}"), 1000);
        }
        watched(&server, state.path());
        until("the idle keys would go", || {
            let (_, told) = swept(idle_job(&server, state.path(), Mode::DryRun));
            (told.came_of("o:7") == ("idle", Outcome::Would)).then_some(())
        });
        // A save of some seconds, in microseconds a key; reads in it are not seen by OBJECT IDLETIME.
        client.run(cmd!["CONFIG", "SET", "rdb-key-save-delay", 60_000]);
        client.run(cmd!["BGSAVE"]);
        client.run(cmd!["GET", "o:7"]);
        let hidden = client.run(cmd!["OBJECT", "IDLETIME", "o:7"]).int() >= 1000;
        assert!(
            hidden,
            "the server sees reads while it saves: the trap is gone"
        );
        let (_, during) = swept(idle_job(&server, state.path(), Mode::Expire));
        assert_eq!(during.came_of("o:7").1, Outcome::Nothing);
        until("the save ends", || {
            (client.info("rdb_bgsave_in_progress")? == "0").then_some(())
        });
        let (_, after) = swept(idle_job(&server, state.path(), Mode::Expire));
        assert_eq!(after.came_of("o:7").1, Outcome::Nothing);
        assert_eq!(ttl(&mut client, "o:7"), -1);
    }
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
            idle_key_of(&mut client, &pyramid_key(number), &value, 1000);
        }
        idle_key(&mut client, "other", 1000);
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
            assert!(client.run(cmd!["OBJECT", "IDLETIME", key]).int() >= 1000);
        }
        let (_, told) = swept(job(Mode::Expire));
        assert_eq!(told.came_of(pyramid_key(1)), ("idle", Outcome::Done));
        // Its own timeout is longer than the rule's.
        assert_eq!(told.came_of(pyramid_key(2)), ("no-ttl", Outcome::Nothing));
        assert!(client.run(cmd!["OBJECT", "IDLETIME", pyramid_key(2)]).int() >= 1000);
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

    let first = refused(Job {
        rules: {
            let mut rules = rules();
            rules[0].timeout = std::time::Duration::from_secs(86_400);
            rules
        },
        ..expire()
    });
    guard(&first, "a session may be idle for 1d");
    guard(
        &refused(Job {
            state_dir: None,
            ..expire()
        }),
        "no state folder",
    );
    watched(&server, state.path());
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

    let fresh = tempfile::tempdir().unwrap();
    until("it has run for long enough", || {
        let failure = refused(idle_job(&server, fresh.path(), Mode::Expire));
        failure.message.contains("watched since").then_some(())
    });
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
