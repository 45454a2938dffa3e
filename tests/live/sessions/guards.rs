//! Servers that are not swept.

use rdbkeeper::config::SessionStore;
use rdbkeeper::failure::Kind;
use rdbkeeper::sessions::sweep::Mode;

use super::{as_user, job, refused, rule, run, swept};
use crate::cmd;
use crate::support::client::Client;
use crate::support::servers::{self, Options, Server};

#[test]
fn replicas_and_cluster_nodes_are_refused_and_reported_on() {
    let kind = servers::usual();
    let master = Server::start(kind);
    master.client().run(cmd!["SET", "o:1", "a"]);
    let replica = Server::start(kind);
    replica.follow(&master);
    let node = Server::with(kind, Options::new().config("cluster-enabled yes"));
    let rules = || vec![rule(SessionStore::Opaque, "^o:", 600)];
    for mode in [Mode::DryRun, Mode::Expire] {
        let failure = refused(job(&replica, rules(), mode));
        assert_eq!(failure.kind, Kind::Refused);
        assert!(failure.message.contains("replica"));
        assert!(failure.hint.unwrap().contains(&master.port().to_string()));
        let failure = refused(job(&node, rules(), mode));
        assert_eq!(failure.kind, Kind::Refused);
        assert!(failure.message.contains("cluster"));
    }
    let (replicated, told) = swept(job(&replica, rules(), Mode::Report));
    assert_eq!((replicated.role, told.told.len()), (Some("slave"), 1));
    assert!(replicated.warnings[0].contains("replica"));
    let (node, _) = swept(job(&node, rules(), Mode::Report));
    assert!(node.warnings[0].contains("cluster"));
}

#[test]
fn a_server_that_is_loading_is_not_swept() {
    let mut server = Server::with(
        servers::usual(),
        // Microseconds a key: some seconds of loading, in which it answers.
        Options::new()
            .config("key-load-delay 3000")
            .config("loading-process-events-interval-bytes 1024"),
    );
    let mut client = server.client();
    client.run_all(
        (0..2000)
            .map(|n| cmd!["SET", format!("o:{n}"), "a"])
            .collect(),
    );
    server.save();
    let port = server.port();
    let restarting = std::thread::spawn(move || {
        server.restart();
        server
    });
    crate::support::poll::until("it loads", || {
        let mut client = Client::tcp(port).ok()?;
        let reply = client.attempt(cmd!["GET", "o:1"]).ok()?;
        reply
            .error()
            .is_some_and(|text| text.starts_with("LOADING"))
            .then_some(())
    });
    let url = format!("redis://127.0.0.1:{port}");
    let rules = vec![rule(SessionStore::Opaque, "^o:", 600)];
    let endpoint = rdbkeeper::server::Endpoint::new(url.parse().unwrap());
    let failure = refused(rdbkeeper::sessions::sweep::Job::new(
        endpoint,
        rules,
        Mode::Expire,
    ));
    assert_eq!(failure.kind, Kind::Unavailable, "{failure:?}");
    assert!(failure.message.contains("loading"));
    drop(restarting.join().unwrap());
}

#[test]
fn a_server_that_becomes_a_replica_in_mid_sweep_is_left_alone() {
    servers::each(|kind| {
        for user in ["scripts", "plain"] {
            let server = Server::with(
                kind,
                Options::new()
                    .user("scripts on >pw ~* +@all")
                    .user("plain on >pw ~* +@all -@scripting"),
            );
            server.client().run(cmd!["SET", "o:1", "a"]);
            let mut job = job(
                &server,
                vec![rule(SessionStore::Opaque, "^o:", 600)],
                Mode::Expire,
            );
            let port = server.port();
            // Another test may get the port, and must not meet this stage.
            job.name = format!("becomes-a-replica-{port}");
            rdbkeeper::stage::at(&format!("sweep-decided:{}", job.name), move || {
                let mut client = Client::tcp(port).unwrap();
                client.run(cmd!["REPLICAOF", "127.0.0.1", 1]);
            });
            let (failed, told) = run(as_user(job, user));
            let failure = failed.unwrap_err();
            assert_eq!(failure.kind, Kind::Refused, "{failure:?}");
            assert!(failure.message.contains("is a replica"), "{failure:?}");
            assert_eq!(told.told, []);
        }
    });
}
