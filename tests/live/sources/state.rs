//! Servers in a state in which a dump is not worth having, and the choice between primary and replica.

use rdbkeeper::failure::{Failure, Kind};
use rdbkeeper::source::{Error, Method, Request};

use super::dumping::{by, endpoint, fail, take, verified};
use crate::cmd;
use crate::support::data;
use crate::support::poll::until;
use crate::support::servers::{self, NOBODY, Options, Server};

#[test]
fn a_replica_that_has_lost_its_master_is_refused() {
    servers::each(|kind| {
        for stale in ["yes", "no"] {
            let mut primary = Server::start(kind);
            let replica = Server::with(
                kind,
                Options::new().config(format!("replica-serve-stale-data {stale}")),
            );
            primary.client().run(cmd!["SET", "k", "v"]);
            replica.follow(&primary);
            primary.kill();
            until("the link is down", || {
                (replica.client().info("master_link_status")? == "down").then_some(())
            });
            for method in Method::ALL {
                let error = fail(by(method, &replica));
                assert!(
                    matches!(error, Error::StaleReplica { .. }),
                    "{kind}: {error:?}"
                );
                assert_eq!(Failure::from(error).kind, Kind::Unavailable);
            }
        }
    });
}

#[test]
fn a_healthy_replica_is_preferred_and_any_other_gives_way_with_a_warning() {
    servers::each(|kind| {
        let (primary, replica) = (Server::start(kind), Server::start(kind));
        primary.client().run_all(data::sessions(50));
        replica.follow(&primary);
        let mut request = Request::new(endpoint(&primary.url()));
        request.replica = Some(endpoint(&replica.url()));
        let taken = take(request.clone());
        assert_eq!(taken.facts.address, format!("127.0.0.1:{}", replica.port()));
        assert_eq!(taken.facts.role, "slave");
        assert!(taken.warnings.is_empty(), "{:?}", taken.warnings);
        assert_eq!(verified(&taken.bytes).keys(), 50);

        let from_primary = |request: &Request| {
            let taken = take(request.clone());
            assert_eq!(taken.facts.address, format!("127.0.0.1:{}", primary.port()));
            assert_eq!(taken.warnings.len(), 1, "{:?}", taken.warnings);
            assert_eq!(verified(&taken.bytes).keys(), 50);
        };
        // Nobody there; a server that is no replica; a replica of somebody else.
        request.replica = Some(endpoint(&format!("redis://127.0.0.1:{NOBODY}")));
        from_primary(&request);
        let stranger = Server::start(kind);
        request.replica = Some(endpoint(&stranger.url()));
        from_primary(&request);
        let other = Server::start(kind);
        stranger.follow(&other);
        from_primary(&request);

        // The primary is down: the replica knows, and is refused as well as stale.
        drop(primary);
        until("the link is down", || {
            (replica.client().info("master_link_status")? == "down").then_some(())
        });
        request.replica = Some(endpoint(&replica.url()));
        assert!(matches!(fail(request), Error::Connect(_)));
    });
}

#[test]
fn a_server_that_is_loading_is_told_as_such() {
    servers::each(|kind| {
        // A replica that loads slowly what its master sends: it answers meanwhile.
        let (primary, replica) = (Server::start(kind), Server::start(kind));
        // A loading server looks at its clients every 2 MiB.
        let mut random = data::Random::new(2);
        for number in 0..50 {
            let value = random.bytes(1 << 20);
            primary
                .client()
                .run(cmd!["SET", format!("k{number}"), value]);
        }
        let mut client = replica.client();
        client.run(cmd!["CONFIG", "SET", "key-load-delay", 100_000]);
        client.run(cmd!["REPLICAOF", "127.0.0.1", primary.port()]);
        until("it is loading", || {
            (client.info("loading")? == "1").then_some(())
        });
        for method in Method::ALL {
            let error = fail(by(method, &replica));
            assert!(
                matches!(error, Error::Loading { .. }),
                "{kind} {method}: {error:?}"
            );
        }
    });
}

#[test]
fn a_database_that_does_not_exist_is_an_error() {
    servers::each(|kind| {
        let server = Server::with(kind, Options::new().config("databases 4"));
        for method in Method::ALL {
            let mut request = by(method, &server);
            request.databases = Some([0, 4].into());
            match fail(request) {
                Error::NoDatabase {
                    db: 4,
                    count: Some(4),
                    ..
                } => {}
                other => panic!("{kind} {method}: {other:?}"),
            }
            let mut request = by(method, &server);
            request.databases = Some([3].into());
            take(request);
        }
    });
}
