//! The harness itself: what it hands to the other tests has to be what it says.

use std::collections::BTreeSet;

use crate::cmd;
use crate::support::compare::{Contents, assert_same};
use crate::support::data;
use crate::support::servers::{self, Options, Server};

#[test]
fn the_data_has_every_encoding_of_the_server() {
    servers::each(|kind| {
        let server = Server::start(kind);
        let mut client = server.client();
        data::fill(&mut client, kind);
        client.select(0);
        let keys = crate::support::compare::keys(&mut client);
        let found: BTreeSet<String> = client
            .run_all(
                keys.iter()
                    .map(|key| cmd!["OBJECT", "ENCODING", key])
                    .collect(),
            )
            .iter()
            .map(|reply| reply.text())
            .collect();
        let mut wanted: BTreeSet<&str> = [
            "int",
            "embstr",
            "raw",
            "intset",
            "hashtable",
            "quicklist",
            "skiplist",
            "stream",
        ]
        .into();
        if kind.speaks_redis(7, 0) {
            wanted.insert("listpack");
        } else {
            wanted.insert("ziplist");
        }
        if kind.has_hash_field_expiry() && !kind.is_valkey() {
            wanted.insert("listpackex");
        }
        let missing: Vec<_> = wanted
            .iter()
            .filter(|name| !found.contains(**name))
            .collect();
        assert!(
            missing.is_empty(),
            "{kind} lacks {missing:?}, has {found:?}"
        );
    });
}

#[test]
fn a_server_that_loads_its_own_dump_compares_equal_and_a_change_is_seen() {
    servers::each(|kind| {
        let mut server = Server::start(kind);
        data::fill(&mut server.client(), kind);
        let before = Contents::of(&mut server.client());
        assert_eq!(
            before.databases.keys().copied().collect::<Vec<_>>(),
            data::DATABASES
        );
        server.save();
        server.restart();
        let after = Contents::of(&mut server.client());
        before.must_equal(&after, &format!("{kind} after a restart"));

        let mut client = server.client();
        client.run(cmd!["HSET", "hash:3000", "field 7", "changed"]);
        client.run(cmd!["PEXPIREAT", "expiring:set", 9_999_999_000_000_u64]);
        client.run(cmd!["XADD", "stream:plain", "*", "one", "more"]);
        client.run(cmd!["DEL", "list:1"]);
        let changed = Contents::of(&mut client);
        assert_eq!(
            before.differences(&changed).len(),
            4,
            "{:#?}",
            before.differences(&changed)
        );
    });
}

#[test]
fn replicas_passwords_sockets_and_tls_work() {
    let kind = servers::usual();
    let mut options = Options::new().password("secret").unix_socket();
    if kind.tls {
        options = options.tls();
    }
    let master = Server::with(kind, options);
    data::fill(&mut master.client(), kind);
    let replica = Server::start(kind);
    replica.follow(&master);
    let mut through_socket = crate::support::client::Client::unix(&master.socket()).unwrap();
    through_socket.run(cmd!["AUTH", "secret"]);
    assert_same(&mut through_socket, &mut replica.client(), "a replica");
    if kind.tls {
        assert!(master.certificates().client.0.exists());
        std::net::TcpStream::connect(("127.0.0.1", master.tls_port())).unwrap();
    }
}
