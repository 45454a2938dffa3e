//! The memory that a target will need, told before anything is written; and targets that take no writes.

use rdbkeeper::failure::Kind;
use rdbkeeper::restore::{MemoryPlan, Request};
use rdbkeeper::target::live::OnConflict;

use super::{Dumped, good, plan, run, sessions};
use crate::cmd;
use crate::support::client::Client;
use crate::support::data;
use crate::support::poll::until;
use crate::support::servers::{self, Options, Server};

fn memory(dumped: &Dumped, server: &Server, request: Request) -> (MemoryPlan, Vec<String>) {
    let plan = good(plan(dumped, server, request));
    (plan.memory.unwrap(), plan.warnings)
}

fn used(client: &mut Client) -> u64 {
    client.info("used_memory").unwrap().parse().unwrap()
}

/// Fills a server until it uses so many bytes.
fn fill_up(client: &mut Client, bytes: u64) {
    let mut random = data::Random::new(31);
    let mut number = 0;
    while used(client) < bytes {
        client.run(cmd!["SET", format!("own:{number}"), random.bytes(50_000)]);
        number += 1;
    }
}

#[test]
fn what_cannot_fit_is_refused_before_anything_is_written() {
    let dumped = sessions(20_000);
    let server = Server::with(servers::usual(), Options::new().config("maxmemory 3mb"));
    let (memory, warnings) = memory(&dumped, &server, Request::default());
    assert_eq!(memory.maxmemory, Some(3 << 20));
    assert_eq!(memory.policy.as_deref(), Some("noeviction"));
    assert!(
        memory.at_least > 3 << 20 && memory.needs > memory.at_least,
        "{memory:?}"
    );
    assert!(warnings[0].contains("(maxmemory)"), "{warnings:?}");
    for on_conflict in [OnConflict::Fail, OnConflict::Skip, OnConflict::Replace] {
        let request = Request {
            on_conflict,
            ..Request::default()
        };
        let failure = run(&dumped, &server, request).unwrap_err();
        assert_eq!(failure.kind, Kind::Refused, "{failure:?}");
        assert!(failure.message.contains("has no room"), "{failure:?}");
        assert!(failure.hint.unwrap().contains("CONFIG SET maxmemory"));
        assert!(server.client().keyspace().is_empty());
    }
}

#[test]
fn what_will_probably_not_fit_is_warned_of() {
    let dumped = sessions(20_000);
    let generous = Server::start(servers::usual());
    let (memory_of, warnings) = memory(&dumped, &generous, Request::default());
    assert_eq!(memory_of.maxmemory, None);
    assert_eq!(warnings, [""; 0]);
    // More than the bytes in the file, less than a server makes of them.
    let limit = memory_of.used + (memory_of.at_least + memory_of.needs) / 2;
    for (policy, words) in [
        ("noeviction", "will probably refuse some of them"),
        ("allkeys-lru", "will evict keys (allkeys-lru)"),
        ("volatile-ttl", "will evict keys (volatile-ttl)"),
    ] {
        let options = Options::new()
            .config(format!("maxmemory {limit}"))
            .config(format!("maxmemory-policy {policy}"));
        let server = Server::with(servers::usual(), options);
        let plan = good(plan(&dumped, &server, Request::default()));
        assert_eq!(plan.refused, None);
        assert_eq!(plan.warnings.len(), 1, "{:?}", plan.warnings);
        assert!(plan.warnings[0].contains(words), "{:?}", plan.warnings);
        let text = plan.to_string();
        assert!(
            text.contains(&format!("(maxmemory), policy {policy}")),
            "{text}"
        );
    }
    // One that evicts takes whatever comes, and is not refused even where nothing fits.
    let options = Options::new()
        .config("maxmemory 3mb")
        .config("maxmemory-policy allkeys-lru");
    let server = Server::with(servers::usual(), options);
    let plan = good(plan(&dumped, &server, Request::default()));
    assert_eq!((plan.refused, plan.warnings.len()), (None, 1));
}

#[test]
fn where_there_is_room_nothing_is_said() {
    let dumped = sessions(2000);
    let server = Server::with(servers::usual(), Options::new().config("maxmemory 64mb"));
    let (memory, warnings) = memory(&dumped, &server, Request::default());
    assert_eq!((memory.maxmemory, warnings.len()), (Some(64 << 20), 0));
    good(run(&dumped, &server, Request::default()));
}

#[test]
fn the_estimate_is_near_what_a_server_then_uses() {
    let (first, all) = (&servers::available()[0], servers::available());
    let few = Dumped::full(first);
    let many = sessions(10_000);
    for to in all {
        let own = Dumped::full(to);
        for (from, dumped) in [(first, &few), (servers::usual(), &many), (to, &own)] {
            if from.fits_into(to) {
                let server = Server::start(to);
                let mut client = server.client();
                let before = used(&mut client);
                let (memory, _) = memory(dumped, &server, Request::default());
                good(run(dumped, &server, Request::default()));
                // Clients that have gone give their buffers back a little later.
                client.run(cmd!["PING"]);
                let grown = used(&mut client) - before;
                let ratio = memory.needs as f64 / grown as f64;
                eprintln!("{from} to {to}: {ratio:.2} of what it then used, {grown} bytes");
                assert!(
                    (0.6..1.7).contains(&ratio),
                    "{from} to {to}: estimated {}, used {grown}",
                    memory.needs
                );
                assert!(memory.at_least < grown, "{from} to {to}");
            }
        }
    }
}

#[test]
fn keys_that_are_left_out_need_no_memory() {
    let dumped = Dumped::full(servers::usual());
    let server = Server::start(servers::usual());
    let (whole, _) = memory(&dumped, &server, Request::default());
    let request = Request {
        filters: rdbkeeper::selection::Filters {
            databases: [rdbkeeper::rdb::DbIndex(1)].into(),
            ..Default::default()
        },
        ..Request::default()
    };
    let (part, _) = memory(&dumped, &server, request);
    assert!(part.needs < whole.needs / 2 && part.at_least < whole.at_least / 2);
    assert!(part.needs > 300 * 300, "{part:?}");
}

#[test]
fn what_a_flush_gives_back_is_room() {
    let dumped = sessions(20_000);
    let server = Server::with(servers::usual(), Options::new().config("maxmemory 24mb"));
    fill_up(&mut server.client(), 20 << 20);
    let failure = run(&dumped, &server, Request::default()).unwrap_err();
    assert_eq!(failure.kind, Kind::Refused, "{failure:?}");
    let request = Request {
        flush: true,
        ..Request::default()
    };
    let (memory, warnings) = memory(&dumped, &server, request.clone());
    assert!(memory.freed.unwrap() > 15 << 20, "{memory:?}");
    assert_eq!(warnings, [""; 0]);
    assert_eq!(good(run(&dumped, &server, request)).keys, 20_000);
}

#[test]
fn a_server_that_takes_no_writes_is_known_before_it_is_emptied() {
    let kind = servers::usual();
    let dumped = sessions(10);
    let flush = || Request {
        flush: true,
        ..Request::default()
    };
    let server = Server::start(kind);
    let mut client = server.client();
    client.run(cmd!["SET", "mine", "v"]);
    client.run(cmd!["CONFIG", "SET", "min-replicas-to-write", 1]);
    let failure = run(&dumped, &server, flush()).unwrap_err();
    assert_eq!(failure.kind, Kind::Refused, "{failure:?}");
    assert!(failure.message.ends_with("takes no writes"), "{failure:?}");
    assert!(failure.causes[0].starts_with("NOREPLICAS"), "{failure:?}");
    assert_eq!(failure.causes[1], "nothing was written");
    assert_eq!(client.keyspace(), [(0, 1)]);

    // Its dump can't be renamed over a folder.
    let server = Server::with(kind, Options::new().config("dbfilename taken"));
    let mut client = server.client();
    client.run(cmd!["SET", "mine", "v"]);
    std::fs::create_dir_all(server.folder().join("taken/inner")).unwrap();
    client.run(cmd!["CONFIG", "SET", "save", "3600 1"]);
    client.run(cmd!["BGSAVE"]);
    until("a save that fails", || {
        (client.info("rdb_last_bgsave_status")? == "err").then_some(())
    });
    let failure = run(&dumped, &server, flush()).unwrap_err();
    assert_eq!(failure.kind, Kind::Unavailable, "{failure:?}");
    assert!(failure.causes[0].starts_with("MISCONF"), "{failure:?}");
    assert!(failure.hint.unwrap().contains("save failed"));
    assert_eq!(client.keyspace(), [(0, 1)]);
}
