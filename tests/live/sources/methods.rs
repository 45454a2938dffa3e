//! Each source against each server.

use rdbkeeper::source::{Consistency, Method, Request};

use super::dumping::{by, endpoint, loaded, take, verified};
use crate::cmd;
use crate::support::compare::{Contents, assert_same};
use crate::support::data;
use crate::support::servers::{self, Options, Server};

#[test]
fn every_method_brings_every_key_of_every_server() {
    servers::each(|kind| {
        let server = Server::start(kind);
        data::fill(&mut server.client(), kind);
        let run_id = server.client().info("run_id").unwrap();
        for method in Method::ALL {
            let taken = take(by(method, &server));
            let summary = verified(&taken.bytes);
            assert_eq!(
                summary.version.unwrap().number,
                kind.rdb_version(),
                "{kind} {method}"
            );
            assert_eq!(taken.facts.run_id, run_id);
            assert_eq!(taken.facts.role, "master");
            assert_eq!(
                method.consistency() == Consistency::Fuzzy,
                method == Method::Scan
            );
            assert_eq!(taken.pumped.vanished_keys, 0);
            assert!(taken.pumped.warnings.is_empty() && taken.warnings.is_empty());
            let copy = loaded(kind, &taken.bytes);
            assert_same(
                &mut server.client(),
                &mut copy.client(),
                &format!("{kind} by {method}"),
            );
        }
    });
}

#[test]
fn an_empty_server_gives_an_empty_file() {
    servers::each(|kind| {
        let server = Server::start(kind);
        for method in Method::ALL {
            let summary = verified(&take(by(method, &server)).bytes);
            assert_eq!(summary.keys(), 0, "{kind} {method}");
        }
    });
}

#[test]
fn replication_works_with_and_without_a_disk_and_leaves_no_replica_behind() {
    servers::each(|kind| {
        for diskless in ["yes", "no"] {
            let server = Server::with(
                kind,
                Options::new().config(format!("repl-diskless-sync {diskless}")),
            );
            let mut client = server.client();
            client.run_all(data::sessions(20_000));
            let taken = take(by(Method::Replication, &server));
            assert_eq!(verified(&taken.bytes).keys(), 20_000, "{kind} {diskless}");
            assert_eq!(
                Some(taken.facts.replid.unwrap()),
                client.info("master_replid")
            );
            crate::support::poll::until("the server forgets us", || {
                (client.info("connected_slaves")? == "0").then_some(())
            });
        }
    });
}

#[test]
fn pings_while_the_master_waits_for_more_replicas_are_a_sign_of_life() {
    servers::each(|kind| {
        let server = Server::with(
            kind,
            Options::new()
                .config("repl-diskless-sync yes")
                .config("repl-diskless-sync-delay 5"),
        );
        server.client().run_all(data::sessions(100));
        let mut request = by(Method::Replication, &server);
        request.endpoint.idle_timeout = std::time::Duration::from_secs(3);
        assert_eq!(verified(&take(request).bytes).keys(), 100, "{kind}");
    });
}

#[test]
fn a_value_beyond_what_memory_should_hold_passes_in_pieces() {
    let server = Server::start(servers::usual());
    let mut client = server.client();
    client.run(cmd!["CONFIG", "SET", "rdbcompression", "no"]);
    client.run(cmd!["SETRANGE", "huge", 200 << 20, "end"]);
    for method in Method::ALL {
        let summary = super::dumping::block_on(async {
            let dump = rdbkeeper::source::open(by(method, &server)).await.unwrap();
            let (sender, mut receiver) = tokio::sync::mpsc::channel::<bytes::Bytes>(4);
            let pump = tokio::spawn(dump.pump(sender));
            let mut scanner = rdbkeeper::rdb::Scanner::new();
            let mut summary = rdbkeeper::rdb::Summary::new();
            while let Some(piece) = receiver.recv().await {
                assert!(
                    piece.len() <= 1 << 20,
                    "{method}: a piece of {} bytes",
                    piece.len()
                );
                scanner.feed(&piece, &mut summary).unwrap();
            }
            assert!(pump.await.unwrap().unwrap().bytes > 200 << 20);
            scanner.finish(&mut summary).unwrap();
            summary
        });
        assert_eq!(summary.keys(), 1, "{method}");
    }
}

#[test]
fn fields_of_a_hash_keep_their_expiry_by_every_method() {
    for kind in servers::available() {
        if !kind.has_hash_field_expiry() {
            continue;
        }
        for diskless in ["yes", "no"] {
            let server = Server::with(
                kind,
                Options::new().config(format!("repl-diskless-sync {diskless}")),
            );
            let mut client = server.client();
            client.run(cmd!["HSET", "h", "a", "1", "b", "2"]);
            client.run(cmd![
                "HPEXPIREAT",
                "h",
                4_000_000_000_000i64,
                "FIELDS",
                1,
                "a"
            ]);
            for method in Method::ALL {
                let taken = take(by(method, &server));
                verified(&taken.bytes);
                let copy = loaded(kind, &taken.bytes);
                let at = copy
                    .client()
                    .run(cmd!["HPEXPIRETIME", "h", "FIELDS", 2, "a", "b"]);
                let at: Vec<i64> = at
                    .array()
                    .iter()
                    .map(crate::support::client::Reply::int)
                    .collect();
                assert_eq!(at, [4_000_000_000_000, -1], "{kind} {method}");
            }
        }
    }
}

#[test]
fn a_dump_does_not_count_as_a_replica_that_has_the_data() {
    servers::each(|kind| {
        let server = Server::with(
            kind,
            Options::new()
                .config("min-replicas-max-lag 10")
                .config("repl-diskless-sync no"),
        );
        let mut client = server.client();
        // More than the socket buffers take: the transfer is under way until we have read it.
        let mut random = data::Random::new(1);
        for number in 0..8 {
            client.run(cmd!["SET", format!("big{number}"), random.bytes(4 << 20)]);
        }
        client.run(cmd!["CONFIG", "SET", "min-replicas-to-write", 1]);
        let request = by(Method::Replication, &server);
        super::dumping::block_on(async {
            let dump = rdbkeeper::source::open(request).await.unwrap();
            let reply = client.attempt(cmd!["SET", "k", "v"]).unwrap();
            let refused = |text: &str| text.starts_with("NOREPLICAS");
            assert!(reply.error().is_some_and(refused), "{kind}: {reply:?}");
            client.run(cmd!["CONFIG", "SET", "min-replicas-to-write", 0]);
            client.run(cmd!["SET", "k", "v"]);
            assert_eq!(client.run(cmd!["WAIT", 1, 20]).int(), 0);
            super::dumping::collect(dump).await.unwrap();
            assert_eq!(client.run(cmd!["WAIT", 1, 20]).int(), 0);
        });
    });
}

#[test]
fn a_replica_is_a_source_for_every_method() {
    servers::each(|kind| {
        let (primary, replica) = (Server::start(kind), Server::start(kind));
        data::fill(&mut primary.client(), kind);
        replica.follow(&primary);
        for method in Method::ALL {
            let taken = take(by(method, &replica));
            verified(&taken.bytes);
            assert_eq!(taken.facts.role, "slave");
            let copy = loaded(kind, &taken.bytes);
            // Not the replica itself: it hides keys that have expired, and keeps them.
            assert_same(
                &mut primary.client(),
                &mut copy.client(),
                &format!("{kind} by {method}"),
            );
        }
    });
}

#[test]
fn auto_takes_bgsave_here_and_says_why() {
    servers::each(|kind| {
        let server = Server::start(kind);
        let taken = take(Request::new(endpoint(&server.url())));
        assert_eq!(taken.method, Method::Bgsave);
        assert!(taken.reasons[0].contains("dump.rdb"), "{:?}", taken.reasons);
    });
}

#[test]
fn auto_goes_down_to_what_the_server_knows() {
    for (hidden, method) in [
        (&["CONFIG"][..], Method::Replication),
        (&["BGSAVE"], Method::Replication),
        (&["BGSAVE", "PSYNC"], Method::Scan),
        (&["CONFIG", "REPLCONF", "PSYNC", "SYNC"], Method::Scan),
    ] {
        servers::each(|kind| {
            let options = hidden.iter().fold(Options::new(), |options, command| {
                options.config(format!("rename-command {command} \"\""))
            });
            let server = Server::with(kind, options);
            server.client().run(cmd!["SET", "k", "v"]);
            let taken = take(Request::new(endpoint(&server.url())));
            assert_eq!(taken.method, method, "{kind} without {hidden:?}");
            assert_eq!(verified(&taken.bytes).keys(), 1);
            assert!(taken.reasons.len() > 1, "{:?}", taken.reasons);
            let plan = super::dumping::block_on(rdbkeeper::source::plan(&Request::new(endpoint(
                &server.url(),
            ))))
            .unwrap();
            assert_eq!(
                plan.chosen,
                Some(method),
                "{kind} without {hidden:?}: {:?}",
                plan.methods
            );
        });
    }
}

#[test]
fn a_scan_brings_only_the_databases_that_are_meant() {
    servers::each(|kind| {
        let server = Server::start(kind);
        data::fill(&mut server.client(), kind);
        let mut request = by(Method::Scan, &server);
        request.databases = Some([1, 15].into());
        let copy = loaded(kind, &take(request).bytes);
        let wanted = Contents::of(&mut server.client()).only(|db, _, _| db == 1 || db == 15);
        wanted.must_equal(&Contents::of(&mut copy.client()), "databases 1 and 15");
    });
}
