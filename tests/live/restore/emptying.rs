//! `--flush`: nothing is deleted before it is shown that the restore can begin, and what was deleted is said.

use rdbkeeper::failure::{Failure, Kind};
use rdbkeeper::restore::{self, Plan, Request};
use rdbkeeper::server::Endpoint;
use rdbkeeper::target::live::OnConflict;
use tokio_util::sync::CancellationToken;

use super::{Dumped, endpoint, endpoint_of, good, silent, wait};
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

/// The plan, and what came of it.
fn both(dumped: &Dumped, endpoint: Endpoint, request: Request) -> (Plan, Result<u64, Failure>) {
    wait(async {
        let token = CancellationToken::new();
        let prepared = restore::prepare(dumped.backup(), endpoint, request, silent(), token).await;
        let prepared = good(prepared);
        let plan = prepared.plan().clone();
        (plan, prepared.run().await.map(|outcome| outcome.keys))
    })
}

fn sessions() -> Dumped {
    let source = Server::start(servers::usual());
    source.client().run_all(data::sessions(100));
    Dumped::of(&source)
}

#[test]
fn a_right_that_is_missing_is_known_before_anything_is_deleted() {
    let plain = sessions();
    let full = Dumped::full(servers::usual());
    for (dumped, rights, missing) in [
        // Who may not RESTORE could still write by plain commands.
        (&plain, "~* +@all -restore -set", "RESTORE"),
        (&plain, "~none:* +@all", "RESTORE"),
        (&plain, "~* +@all -flushdb", "FLUSHDB"),
        (&full, "~* +@all -function|load", "FUNCTION LOAD"),
        (&full, "~* +@all -function|list", "FUNCTION LIST"),
        (&full, "~* +@all -function", "FUNCTION LIST"),
    ] {
        let rule = format!("keeper on >pw {rights}");
        let server = Server::with(servers::usual(), Options::new().user(&rule));
        let mut client = server.client();
        client.run(cmd!["SET", "mine", "v"]);
        let (plan, result) = both(dumped, endpoint_of(&server, "keeper"), flush());
        // A dry run sees it too.
        assert!(
            plan.refused
                .as_ref()
                .is_some_and(|text| text.ends_with(&format!("forbids {missing} to this user"))),
            "{rights}: {plan:?}"
        );
        let failure = result.unwrap_err();
        assert_eq!(failure.kind, Kind::Forbidden, "{rights}: {failure:?}");
        assert!(failure.hint.unwrap().contains("+flushdb"));
        assert!(failure.causes[0].starts_with("NOPERM"));
        assert_eq!(client.keyspace(), [(0, 1)], "{rights}");
        assert!(client.run(cmd!["FUNCTION", "LIST"]).array().is_empty());
    }
}

#[test]
fn the_question_about_rights_changes_nothing() {
    let dumped = sessions();
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
    let (plan, result) = both(&dumped, endpoint_of(&server, "keeper"), flush());
    assert_eq!(plan.refused, None);
    assert_eq!(good(result) as usize, dumped.contents.keys());

    let source = Server::start(servers::usual());
    source.client().run(cmd!["SET", "mine:1", "v"]);
    let dumped = Dumped::of(&source);
    let rights = "keeper on >pw ~mine:* +info +select +exists +restore";
    let server = Server::with(servers::usual(), Options::new().user(rights));
    let (_, result) = both(&dumped, endpoint_of(&server, "keeper"), Request::default());
    assert_eq!(good(result), 1);
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
    let (_, result) = both(&dumped, endpoint(&server), flush());
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
    let (_, result) = both(&dumped, endpoint(&server), flush());
    let failure = result.unwrap_err();
    assert_eq!(failure.kind, Kind::Unavailable, "{failure:?}");
    assert!(
        failure
            .message
            .ends_with("; the databases 0, 3 were emptied before"),
        "{failure:?}"
    );
}
