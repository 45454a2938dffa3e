//! `sessions report` and `sessions expire` as a person meets them.

use std::path::Path;

use rdbkeeper::catalog::lock::{HostLock, Work};

use crate::cmd;
use crate::support::client::Client;
use crate::support::poll::until;
use crate::support::program::{Program, finish, signal};
use crate::support::servers::{Options, Server, usual};

const KEYS: usize = 40;

/// A session's key as pyramid_redis_sessions makes them.
fn key(number: usize) -> String {
    format!("websauna_session{:064x}", number * 7919 + 0x5eed_0000)
}

/// Sessions of a Pyramid site in database 1: one in four without TTL, one in ten from two years ago; and beside them
/// what only looks like it.
fn fill(client: &mut Client) {
    client.select(1);
    let now = jiff::Timestamp::now().as_second();
    for number in 0..KEYS {
        let created = now - if number % 10 == 0 { 63_072_000 } else { 3600 };
        let value = format!("{{\"managed_dict\":{{}},\"created\":{created}.5,\"timeout\":1200}}");
        client.run(cmd!["SET", key(number), value]);
        if number % 4 != 0 {
            client.run(cmd!["EXPIRE", key(number), 1200]);
        }
    }
    client.run(cmd!["SET", "websauna_session_test", "success"]);
    client.run(cmd!["ZADD", "throttle_login", 1, "a"]);
}

fn rules(server: &Server, more: &str) -> String {
    format!(
        r#"
        [[database]]
        name = "sessions"
        url = "redis://127.0.0.1:{}/1"
        {more}
        [[database.sessions]]
        store = "pyramid"
        match = '^websauna_session[0-9a-f]{{64}}$'
        timeout = "1h"
        max_age = "365d"
        "#,
        server.port()
    )
}

#[test]
fn a_report_comes_first_then_a_dry_run_and_only_the_run_writes() {
    let server = Server::start(usual());
    let mut client = server.client();
    fill(&mut client);
    let program = Program::new(&rules(&server, ""));
    let before = server.client().info("rdb_changes_since_last_save");

    let report = program.run(["sessions", "report"]).expect(0);
    assert!(
        report.stdout.contains("websauna_session*"),
        "{}",
        report.stdout
    );
    assert!(
        report.stdout.contains("throttle_login"),
        "{}",
        report.stdout
    );
    let dry = program.run(["sessions", "expire", "--dry-run"]).expect(0);
    assert!(dry.stdout.contains("nothing was written"), "{}", dry.stdout);
    assert_eq!(server.client().info("rdb_changes_since_last_save"), before);
    for text in [&report, &dry] {
        // 16 digits of the name are the prefix; none of the token is shown.
        assert!(!format!("{text:?}").contains("session0000"), "{text:?}");
    }

    let ran = program.run(["--json", "sessions", "expire"]).expect(0);
    let document = &ran.json()[0];
    let rule = &document["rules"][0];
    assert_eq!(document["database"], "sessions");
    assert_eq!(document["dry_run"], false);
    // Only strings are asked for: no session of this store is anything else.
    assert_eq!(document["scanned"], KEYS + 1);
    assert_eq!(document["unmatched"], 1);
    assert_eq!(rule["store"], "pyramid");
    assert_eq!(rule["matched"], KEYS);
    assert_eq!(rule["without_ttl"]["keys"], KEYS / 4);
    assert_eq!(rule["deleted"]["too-old"], KEYS / 10);
    // Of the ten without TTL two are older than max_age.
    assert_eq!(rule["set"], KEYS / 4 - 2);
    assert_eq!(rule["left"]["ttl-in-order"], KEYS - KEYS / 4 - 2);

    assert_eq!(
        client.run(cmd!["DBSIZE"]).int(),
        (KEYS - KEYS / 10 + 2) as i64
    );
    for number in 0..KEYS {
        let ttl = client.run(cmd!["TTL", key(number)]).int();
        assert!(
            (ttl == -2) == (number % 10 == 0) && ttl != -1 && ttl <= 3600,
            "{number}: {ttl}"
        );
    }
    assert_eq!(client.run(cmd!["TTL", "websauna_session_test"]).int(), -1);
    assert_eq!(client.run(cmd!["TTL", "throttle_login"]).int(), -1);

    let again = program.run(["--json", "sessions", "expire"]).expect(0);
    let rule = again.json()[0]["rules"][0].clone();
    assert_eq!(
        (&rule["set"], &rule["deleted"]),
        (&0.into(), &serde_json::json!({}))
    );
}

#[test]
fn key_names_are_masked_unless_they_are_asked_for() {
    let server = Server::start(usual());
    fill(&mut server.client());
    let program = Program::new(&rules(&server, ""));
    let tokens: Vec<String> = (0..KEYS)
        .map(|number| key(number)[40..].to_owned())
        .collect();
    let shows = |text: &str| tokens.iter().any(|token| text.contains(token));
    for arguments in [
        &["sessions", "report"][..],
        &["--json", "sessions", "report"],
        &["sessions", "expire", "--dry-run", "-vv"],
        &["--json", "sessions", "expire", "-vv"],
    ] {
        let ran = program.run(arguments).expect(0);
        assert!(!shows(&ran.stdout) && !shows(&ran.stderr), "{arguments:?}");
    }
    let shown = program.run(["sessions", "report", "--show-keys"]).expect(0);
    assert!(shows(&shown.stdout), "{}", shown.stdout);
}

#[test]
fn without_a_fresh_backup_nothing_expires_when_one_is_required() {
    let server = Server::start(usual());
    let mut client = server.client();
    fill(&mut client);
    let program = Program::new(&rules(&server, "require_backup = \"1h\""));
    let refused = program.run(["sessions", "expire"]).expect(5);
    assert!(
        refused.stderr.contains("there is no backup of it"),
        "{}",
        refused.stderr
    );
    assert!(
        refused.stderr.contains("backup now sessions"),
        "{}",
        refused.stderr
    );
    assert_eq!(client.run(cmd!["TTL", key(4)]).int(), -1);
    // Looking is always allowed.
    program.run(["sessions", "expire", "--dry-run"]).expect(0);

    program.run(["backup", "now"]).expect(0);
    program.run(["sessions", "expire"]).expect(0);
    assert!(client.run(cmd!["TTL", key(4)]).int() > 0);

    // A second later a backup that must be younger than a second is too old.
    program.configure(&rules(&server, "require_backup = 1"));
    until("the backup is older than a second", || {
        let ran = program.run(["sessions", "expire"]);
        (ran.code == Some(5) && ran.stderr.contains("old")).then_some(())
    });
}

#[test]
fn two_runs_at_once_exclude_each_other_and_a_backup_does_not() {
    let server = Server::start(usual());
    fill(&mut server.client());
    let program = Program::new(&rules(&server, ""));
    let state = program.folder().join("state");
    let held = HostLock::take(&state, "sessions", Work::Sessions).unwrap();
    let busy = program.run(["sessions", "expire"]).expect(6);
    assert!(
        busy.stderr.contains("another process is expiring"),
        "{}",
        busy.stderr
    );
    program.run(["sessions", "report"]).expect(0);
    program.run(["backup", "now"]).expect(0);
    drop(held);
    let _held = HostLock::take(&state, "sessions", Work::Backup).unwrap();
    program.run(["sessions", "expire"]).expect(0);
}

#[test]
fn one_database_that_fails_does_not_keep_the_others_from_being_done() {
    let server = Server::start(usual());
    let mut client = server.client();
    fill(&mut client);
    let nobody = crate::support::servers::NOBODY;
    let program = Program::new(&format!(
        "[[database]]\nname = \"gone\"\nurl = \"redis://127.0.0.1:{nobody}/1\"\n\
         [[database.sessions]]\nstore = \"flask\"\ntimeout = \"1d\"\n{}",
        rules(&server, "")
    ));
    let ran = program.run(["--json", "sessions", "expire"]).expect(1);
    assert_eq!(ran.json()[0]["database"], "gone");
    assert_eq!(ran.json()[0]["error"]["kind"], "unreachable");
    assert_eq!(ran.json()[1]["rules"][0]["matched"], KEYS);
    assert!(client.run(cmd!["TTL", key(4)]).int() > 0);
    let report = program.run(["sessions", "report"]).expect(1);
    assert!(report.stdout.contains("^websauna_session") && report.stderr.contains("gone"));
    // Alone it fails as itself.
    let alone = program
        .run(["--json", "sessions", "expire", "gone"])
        .expect(1);
    assert_eq!(alone.json()["error"]["kind"], "unreachable");
}

#[test]
fn without_rules_the_report_suggests_them_and_expire_says_so() {
    let server = Server::start(usual());
    let mut client = server.client();
    fill(&mut client);
    let database = format!(
        "[[database]]\nname = \"sessions\"\nurl = \"redis://127.0.0.1:{}/1\"\n",
        server.port()
    );
    let program = Program::new(&database);
    let refused = program.run(["sessions", "expire"]).expect(2);
    assert!(
        refused.stderr.contains("[[database.sessions]]"),
        "{}",
        refused.stderr
    );
    program.run(["sessions", "expire", "sessions"]).expect(2);

    // What is suggested can be pasted, and takes the sessions and nothing else.
    let report = program.run(["--json", "sessions", "report"]).expect(0);
    let suggestion = &report.json()[0]["databases"][0]["suggestions"][0];
    assert_eq!(suggestion["store"], "pyramid");
    let toml = suggestion["toml"].as_str().unwrap();
    program.configure(&format!("{database}{toml}"));
    let dry = program
        .run(["--json", "sessions", "expire", "--dry-run"])
        .expect(0);
    assert_eq!(dry.json()[0]["rules"][0]["matched"], KEYS);
    assert_eq!(dry.json()[0]["unmatched"], 1);
}

#[test]
fn a_password_and_a_user_with_few_rights_are_enough_for_a_report() {
    let options = Options::new()
        .password("very-secret")
        .user("looker on >look ~* +@read +ping +select");
    let server = Server::with(usual(), options);
    fill(&mut server.client());
    let program = Program::new(&rules(
        &server,
        "username = \"looker\"\npassword_file = \"password\"",
    ));
    std::fs::write(Path::new(program.folder()).join("password"), "look\n").unwrap();
    let ran = program.run(["sessions", "report"]).expect(0);
    assert!(ran.stdout.contains("websauna_session*"), "{}", ran.stdout);
    assert!(!format!("{ran:?}").contains("very-secret"));
    let refused = program.run(["sessions", "expire"]);
    assert!(matches!(refused.code, Some(1 | 5)), "{refused:?}");
}

#[test]
fn check_tells_of_the_rules_and_of_what_would_refuse_them() {
    let server = Server::start(usual());
    fill(&mut server.client());
    let scheduled = rules(&server, "sessions_schedule = \"*/15 * * * *\"");
    let program = Program::new(&scheduled);
    let text = program.run(["check"]).expect(0).stdout;
    assert!(
        text.contains("sessions: 1 rule, would expire by `sessions expire`"),
        "{text}"
    );
    assert!(
        text.contains("`rdbkeeper run` does it at */15 * * * *"),
        "{text}"
    );

    let replica = Server::start(usual());
    replica.follow(&server);
    program.configure(&rules(&replica, ""));
    let found = program.run(["--json", "check"]).json();
    let sessions = &found["databases"][0]["sessions"];
    assert_eq!(sessions["rules"], 1);
    assert_eq!(sessions["refused"], "it is a replica");
    assert!(sessions["schedule"].is_null());
    program.run(["sessions", "expire"]).expect(5);
}

#[test]
fn the_text_says_in_words_what_the_json_says_in_one() {
    let server = Server::start(usual());
    fill(&mut server.client());
    let program = Program::new(&rules(&server, ""));
    for arguments in [&["sessions", "report"][..], &["sessions", "expire"]] {
        let text = program.run(arguments).expect(0).stdout;
        assert!(text.contains("4: older than `max_age`\n"), "{text}");
        assert!(text.contains("28: the TTL is in order\n"), "{text}");
        assert!(!text.contains("too-old") && !text.contains("ttl-in-order"));
    }
    // Without rules in the way, a suggestion is told with what to do with it.
    program.configure(&format!(
        "[[database]]\nname = \"sessions\"\nurl = \"redis://127.0.0.1:{}/1\"\n",
        server.port()
    ));
    let text = program.run(["sessions", "report"]).expect(0).stdout;
    assert!(text.contains("look like sessions of pyramid"), "{text}");
    assert!(text.contains("below its [[database]]"), "{text}");
}

#[test]
fn what_was_done_before_a_signal_is_told_and_the_rest_is_left() {
    let server = Server::start(usual());
    let mut client = server.client();
    fill(&mut client);
    client.select(2);
    let mut sets = Vec::new();
    for number in 0..2000 {
        sets.push(cmd!["SET", format!("slow:{number}"), "x"]);
    }
    client.run_all(sets);
    let program = Program::new(&format!(
        "{}\n[[database]]\nname = \"slow\"\nurl = \"redis://127.0.0.1:{}/2\"\nmax_keys_per_second = 100\n\
         [[database.sessions]]\nstore = \"opaque\"\nmatch = '^slow:'\ntimeout = \"1d\"\n",
        rules(&server, ""),
        server.port()
    ));
    let child = program
        .command(["--json", "sessions", "expire"])
        .spawn()
        .unwrap();
    until("the second database is begun", || {
        (client.info("db2")?.contains(",expires=") && !client.info("db2")?.contains(",expires=0,"))
            .then_some(())
    });
    signal(&child, rustix::process::Signal::TERM);
    let ran = finish(child).expect(143);
    let told = ran.json();
    assert_eq!(told[0]["rules"][0]["set"], KEYS / 4 - 2);
    assert_eq!(told[1]["error"]["kind"], "interrupted");
    let set = told[1]["rules"][0]["set"].as_u64().unwrap();
    assert!(set > 0 && set < 2000, "{told}");
    let expires = client.info("db2").unwrap();
    assert!(
        expires.contains(&format!("expires={set},")),
        "{expires} {set}"
    );
}

#[test]
fn a_dry_run_says_that_the_run_would_be_refused() {
    let server = Server::start(usual());
    fill(&mut server.client());
    let program = Program::new(&rules(&server, "require_backup = \"1h\""));
    let dry = program.run(["sessions", "expire", "--dry-run"]).expect(0);
    assert!(
        dry.stderr.contains("there is no backup of it"),
        "{}",
        dry.stderr
    );
}
