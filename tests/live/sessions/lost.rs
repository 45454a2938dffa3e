//! Connections that are lost in mid-sweep, and servers that are restarted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rdbkeeper::sessions::Outcome;
use rdbkeeper::sessions::sweep::Mode;
use rdbkeeper::stage;

use super::{job, rules, swept, ttl};
use crate::cmd;
use crate::support::client::Client;
use crate::support::servers::{self, Options, Server};

#[test]
fn a_connection_that_is_lost_is_made_again_and_no_key_is_left_out_or_told_twice() {
    servers::each(|kind| {
        let server = Server::start(kind);
        let mut client = server.client();
        client.run_all(
            (0..1000)
                .map(|n| cmd!["SET", format!("o:{n}"), "a"])
                .collect(),
        );
        let name = format!("lost-{}", server.port());
        let (port, times) = (server.port(), Arc::new(AtomicUsize::new(0)));
        stage::at(&format!("sweep-decided:{name}"), move || {
            if [2, 5].contains(&times.fetch_add(1, Ordering::SeqCst)) {
                let mut client = Client::tcp(port).unwrap();
                client.run(cmd!["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
            }
        });
        let mut job = job(&server, rules(), Mode::Expire);
        job.name = name;
        let (swept, told) = swept(job);
        assert_eq!((swept.reconnects, swept.restarts), (2, 0));
        let mut client = server.client();
        for n in 0..1000 {
            let key = format!("o:{n}");
            assert!(told.came_of(&key).1 == Outcome::Done, "{key}");
            assert!(ttl(&mut client, &key) > 0);
        }
    });
}

#[test]
fn after_a_restart_of_the_server_its_database_is_begun_again() {
    let mut server = Server::with(servers::usual(), Options::new().config("appendonly yes"));
    let mut client = server.client();
    client.run_all(
        (0..1000)
            .map(|n| cmd!["SET", format!("o:{n}"), "a"])
            .collect(),
    );
    drop(client);
    let name = format!("restart-{}", server.port());
    let (asks, asked) = std::sync::mpsc::sync_channel::<()>(0);
    let (ready, is_ready) = std::sync::mpsc::sync_channel::<()>(0);
    let hooks = std::sync::Mutex::new((asks, is_ready, 0));
    stage::at(&format!("sweep-decided:{name}"), move || {
        let mut hooks = hooks.lock().unwrap();
        hooks.2 += 1;
        if hooks.2 == 3 {
            hooks.0.send(()).unwrap();
            hooks.1.recv().unwrap();
        }
    });
    let mut job = job(&server, rules(), Mode::Expire);
    job.name = name;
    let sweeping = std::thread::spawn(move || swept(job));
    asked.recv().unwrap();
    server.restart();
    ready.send(()).unwrap();
    let (swept, told) = sweeping.join().unwrap();
    assert_eq!((swept.reconnects, swept.restarts), (1, 1));
    assert!(swept.scanned > 1000);
    let mut client = server.client();
    for n in 0..1000 {
        let key = format!("o:{n}").into_bytes();
        assert!(told.told.iter().any(|told| told.key == key));
        assert!(ttl(&mut client, key) > 0);
    }
}
