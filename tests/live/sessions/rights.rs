//! What a sweep may do, and what it says when it may not: users, key patterns, full servers.

use rdbkeeper::config::SessionStore;
use rdbkeeper::failure::Kind;
use rdbkeeper::server::Facts;
use rdbkeeper::sessions::sweep::{Mode, acl_line};
use rdbkeeper::sessions::{Found, Observer, Outcome, Report, Seen, Tally, Wish};

use super::{
    Listener, as_user, default_rule, job, now_s, pyramid_key, pyramid_value, refused, rule, rules,
    run, run_with, spring_session, swept, ttl, with_users,
};
use crate::cmd;
use crate::support::servers::{self, Options, Server};

/// A real observer, and a listener beside it.
struct Both<'a> {
    listener: Listener,
    real: &'a mut dyn Observer,
}

impl Observer for Both<'_> {
    fn wish(&mut self, found: &Found<'_>) -> Wish {
        self.real.wish(found)
    }

    fn seen(&mut self, seen: &Seen<'_>) {
        self.real.seen(seen);
        self.listener.seen(seen);
    }

    fn begun_again(&mut self, db: u32) {
        self.real.begun_again(db);
    }
}

#[test]
fn the_smallest_users_are_enough() {
    servers::each(|kind| {
        let server = Server::start(kind);
        let mut client = server.client();
        let facts = Facts::parse(&client.run(cmd!["INFO"]).text());
        let mut rules = rules();
        rules.push(default_rule(SessionStore::Spring, 1800));
        let spring = "spring:session:sessions:33fdd1b6-b496-4b33-9f7d-df96679d32f0".to_owned();
        client.run(cmd!["SET", "of nobody", "a", "EX", 9000]);
        for mode in [Mode::Report, Mode::DryRun, Mode::Expire] {
            client.run(cmd!["SET", pyramid_key(2), pyramid_value(now_s(), 3600, 5)]);
            client.run(cmd!["RPUSH", "o:1", "a"]);
            client.run(spring_session(&spring, now_s() - 86_400, "ann"));
            client.select(2);
            client.run(cmd!["SET", "o:2", "a"]);
            client.select(0);
            let line = acl_line(mode, &rules, &facts, "small", true).replace("PASSWORD", "pw");
            client.run(
                line.split(' ')
                    .map(|word| word.as_bytes().to_vec())
                    .collect(),
            );
            let (mut tally, mut report) = (Tally::new(&rules), Report::new(&rules));
            let mut both = Both {
                listener: Listener::default(),
                real: match mode {
                    Mode::Report => &mut report,
                    _ => &mut tally,
                },
            };
            let swept = run_with(
                as_user(job(&server, rules.clone(), mode), "small"),
                &mut both,
            );
            let swept = swept.unwrap_or_else(|failure| panic!("{mode:?}: {failure:?}"));
            let told = both.listener;
            assert_eq!(swept.warnings, Vec::<String>::new());
            let outcome = match mode {
                Mode::Expire => Outcome::Done,
                _ => Outcome::Would,
            };
            for key in [pyramid_key(2), "o:1".into(), "o:2".into(), spring.clone()] {
                assert_eq!(told.came_of(key).1, outcome, "{mode:?}");
            }
            if mode != Mode::Report {
                for rule in tally.counts() {
                    assert!(rule.without_ttl.bytes > Some(0), "{mode:?}: {rule:?}");
                }
            }
        }
    });
}

#[test]
fn a_user_that_may_not_act_is_told_which_command_it_lacks() {
    servers::each(|kind| {
        let server = Server::with(
            kind,
            Options::new().user("half on >pw ~* +@all -pexpireat -pexpire"),
        );
        server.client().run(cmd!["SET", "o:1", "a"]);
        let (failed, told) = run(as_user(job(&server, rules(), Mode::Expire), "half"));
        let failure = failed.unwrap_err();
        assert_eq!(failure.kind, Kind::Forbidden, "{failure:?}");
        assert!(failure.message.contains("PEXPIREAT"), "{failure:?}");
        assert!(failure.hint.unwrap().contains("+pexpireat"));
        assert_eq!(told.told, []);
    });
}

#[test]
fn keys_that_a_user_may_not_use_are_passed_over_in_a_report_and_end_other_sweeps() {
    servers::each(|kind| {
        let server = Server::with(kind, Options::new().user("part on >pw ~o:* +@all"));
        let mut client = server.client();
        for key in ["o:1", "p:1", "p:2"] {
            client.run(cmd!["SET", key, "a"]);
        }
        let both = || vec![rule(SessionStore::Opaque, "^[op]:", 600)];
        let (report, told) = swept(as_user(job(&server, both(), Mode::Report), "part"));
        assert_eq!(told.came_of("o:1").1, Outcome::Would);
        assert_eq!(told.told.len(), 1);
        let [warning] = report.warnings.as_slice() else {
            panic!("{:?}", report.warnings);
        };
        assert!(
            warning.contains("2 passed over") && warning.contains("~*"),
            "{warning}"
        );
        for mode in [Mode::DryRun, Mode::Expire] {
            let failure = refused(as_user(job(&server, both(), mode), "part"));
            assert_eq!(failure.kind, Kind::Forbidden, "{failure:?}");
            assert!(failure.message.contains("keys"), "{failure:?}");
            assert!(failure.hint.unwrap().contains("~*"));
        }
        let own = vec![rule(SessionStore::Opaque, "^o:", 600)];
        let (_, told) = swept(as_user(job(&server, own, Mode::Expire), "part"));
        assert_eq!(told.came_of("o:1").1, Outcome::Done);
    });
}

#[test]
fn a_user_that_may_use_some_keys_is_told_which_command_it_lacks() {
    servers::each(|kind| {
        let options = Options::new()
            .user("scripts on >pw ~0* +@all -unlink")
            .user("plain on >pw ~0* +@all -unlink -@scripting");
        let server = Server::with(kind, options);
        let value = pyramid_value(now_s() - 40 * 86_400, 3600, 5);
        server.client().run(cmd!["SET", pyramid_key(1), value]);
        for user in ["scripts", "plain"] {
            let failure = refused(as_user(job(&server, rules(), Mode::Expire), user));
            assert_eq!(failure.kind, Kind::Forbidden, "{failure:?}");
            assert!(failure.message.contains("UNLINK"), "{failure:?}");
            assert!(failure.hint.unwrap().contains("+unlink"));
        }
    });
}

#[test]
fn on_a_full_server_a_script_deletes_and_who_may_run_none_is_told_so() {
    servers::each(|kind| {
        let server = with_users(kind);
        let mut client = server.client();
        let value = pyramid_value(now_s() - 40 * 86_400, 3600, 5);
        client.run(cmd!["SET", pyramid_key(1), value]);
        client.run(cmd!["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
        client.run(cmd!["CONFIG", "SET", "maxmemory", 1]);
        match run(as_user(job(&server, rules(), Mode::Expire), "plain")).0 {
            Err(failure) => {
                assert_eq!(failure.kind, Kind::Unavailable, "{failure:?}");
                assert!(failure.hint.unwrap().contains("+eval"));
            }
            // Of late a transaction without a command that takes memory is let through.
            Ok(_) => {
                assert!(kind.is_valkey() || kind.speaks_redis(8, 0));
                return;
            }
        }
        assert_eq!(ttl(&mut client, pyramid_key(1)), -1);
        let (_, told) = swept(as_user(job(&server, rules(), Mode::Expire), "scripts"));
        assert_eq!(told.came_of(pyramid_key(1)), ("too-old", Outcome::Done));
        assert_eq!(ttl(&mut client, pyramid_key(1)), -2);
    });
}
