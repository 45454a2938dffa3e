//! `--flush`: nothing is deleted before it is shown that the restore can begin, and what was deleted is said.

use rdbkeeper::failure::Kind;
use rdbkeeper::restore::Request;
use rdbkeeper::target::live::OnConflict;

use super::{Dumped, both, endpoint, endpoint_of, good, sessions};
use crate::cmd;
use crate::support::data;
use crate::support::servers::{self, Options, Server};

fn flush() -> Request {
    Request {
        flush: true,
        on_conflict: OnConflict::Replace,
        ..Request::default()
    }
}

#[test]
fn a_right_that_is_missing_is_known_before_anything_is_deleted() {
    let plain = sessions(100);
    let full = Dumped::full(servers::usual());
    for (dumped, rights, missing) in [
        // Who may not RESTORE could still write by plain commands.
        (
            &plain,
            "~* +@all -restore -set",
            "RESTORE to this user, and SET, which plain commands need",
        ),
        (
            &plain,
            "~none:* +@all",
            "RESTORE to this user, and PEXPIRE, which plain commands need",
        ),
        (&plain, "~* +@all -flushdb", "FLUSHDB to this user"),
        (&plain, "~* +@all -restore -flushdb", "FLUSHDB to this user"),
        (
            &full,
            "~* +@all -function|load",
            "FUNCTION LOAD to this user",
        ),
        (
            &full,
            "~* +@all -function|list",
            "FUNCTION LIST to this user",
        ),
        (&full, "~* +@all -function", "FUNCTION LIST to this user"),
    ] {
        let rule = format!("keeper on >pw {rights}");
        let server = Server::with(servers::usual(), Options::new().user(&rule));
        let mut client = server.client();
        client.run(cmd!["SET", "mine", "v"]);
        let (plan, result) = both(dumped.backup(), endpoint_of(&server, "keeper"), flush());
        // A dry run sees it too.
        assert!(
            plan.refused
                .as_ref()
                .is_some_and(|text| text.ends_with(&format!("forbids {missing}"))),
            "{rights}: {plan:?}"
        );
        let failure = result.unwrap_err();
        assert_eq!(failure.kind, Kind::Forbidden, "{rights}: {failure:?}");
        let hint = failure.hint.unwrap();
        assert!(hint.contains("+flushdb"), "{hint}");
        // Who may not RESTORE is told of both ways.
        let both = hint.contains(", +restore or else +multi") && hint.contains("+set ");
        assert_eq!(
            both,
            rights.contains("-restore") || rights.contains("~none"),
            "{hint}"
        );
        assert!(
            failure
                .causes
                .last()
                .is_some_and(|told| told == "nothing was written")
        );
        assert!(failure.causes[0].starts_with("NOPERM"));
        assert_eq!(client.keyspace(), [(0, 1)], "{rights}");
        assert!(client.run(cmd!["FUNCTION", "LIST"]).array().is_empty());
    }
}

#[test]
fn the_question_about_rights_changes_nothing() {
    let dumped = sessions(100);
    let server = Server::start(servers::usual());
    let mut client = server.client();
    for key in dumped.contents.databases[&0].keys() {
        client.run(cmd!["SET", key, "mine"]);
    }
    let plan = good(super::plan(&dumped, &server, flush()));
    assert_eq!(plan.refused, None);
    for key in dumped.contents.databases[&0].keys() {
        assert_eq!(client.run(cmd!["GET", key]).text(), "mine");
    }
    assert_eq!(client.keyspace(), [(0, 100)]);
    assert!(client.run(cmd!["FUNCTION", "LIST"]).array().is_empty());
}

#[test]
fn the_smallest_rights_suffice_to_flush_and_keys_of_ones_own_to_restore() {
    let dumped = Dumped::full(servers::usual());
    let rights = "keeper on >pw ~* +ping +info +select +exists +restore +time +flushdb +function";
    let server = Server::with(servers::usual(), Options::new().user(rights));
    server.client().run(cmd!["SET", "old", "v"]);
    let (plan, result) = both(dumped.backup(), endpoint_of(&server, "keeper"), flush());
    assert_eq!(plan.refused, None);
    assert_eq!(good(result).keys as usize, dumped.contents.keys());

    let source = Server::start(servers::usual());
    source.client().run(cmd!["SET", "mine:1", "v"]);
    let dumped = Dumped::of(&source);
    let rights = "keeper on >pw ~mine:* +info +select +exists +restore";
    let server = Server::with(servers::usual(), Options::new().user(rights));
    let (_, result) = both(
        dumped.backup(),
        endpoint_of(&server, "keeper"),
        Request::default(),
    );
    assert_eq!(good(result).keys, 1);
}

#[test]
fn a_library_that_the_target_refuses_ends_it_before_anything_is_deleted() {
    let dumped = Dumped::full(servers::usual());
    let server = Server::start(servers::usual());
    let mut client = server.client();
    client.run(cmd!["SET", "mine", "v"]);
    // Another library has a function of the same name.
    let code = format!(
        "#!lua name=another\nredis.register_function('{}_f', function() return 'mine' end)",
        data::LIBRARY
    );
    client.run(cmd!["FUNCTION", "LOAD", code]);
    let (_, result) = both(dumped.backup(), endpoint(&server), flush());
    let failure = result.unwrap_err();
    assert!(failure.message.contains(data::LIBRARY), "{failure:?}");
    assert!(
        failure.message.contains("no key was written or deleted"),
        "{failure:?}"
    );
    assert_eq!(client.keyspace(), [(0, 1)]);
}

#[test]
fn an_error_after_databases_were_emptied_says_so() {
    let source = Server::start(servers::usual());
    source.client().run_all(data::sessions(20_000));
    let mut client = source.client();
    client.select(3);
    client.run(cmd!["SET", "k", "v"]);
    let dumped = Dumped::of(&source);
    let server = Server::with(servers::usual(), Options::new().config("maxmemory 6mb"));
    server.client().run(cmd!["SET", "old", "v"]);
    let (_, result) = both(dumped.backup(), endpoint(&server), flush());
    let failure = result.unwrap_err();
    assert_eq!(failure.kind, Kind::Unavailable, "{failure:?}");
    assert!(
        failure
            .message
            .ends_with("; the databases 0 and 3 were emptied before"),
        "{failure:?}"
    );
}
